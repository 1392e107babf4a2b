"""Another kind of layer in the stack: a matrix for a state (DeltaNet) against a loop by hand."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

from anaphora import nn, ops, random
from anaphora.nn import initialization as initialize
from anaphora.nn.kinds import CellLayer
from anaphora.tensor import Tensor

T, B, I, H = 5, 3, 4, 6
LENGTHS = np.array([3, 0, 5])
DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-11}}


class Delta(nn.LayerKind):
    """The delta rule (Schlag et al. 2021) with a decay that the sum of all betas makes.

    S = S + beta (v - S k) k^T;  n = n + beta;  y = S q / (1 + n)
    """

    name = "delta"

    def state_shapes(self, layer):
        return {"S": (layer.hidden_size, layer.hidden_size), "n": ()}

    def parameter_shapes(self, layer, input_size):
        size = layer.hidden_size
        shapes = {"weight_qkv": (3 * size, input_size), "weight_beta": (1, input_size)}
        return shapes | ({"bias_beta": (1,)} if layer.bias else {})

    def reset_parameters(self, layer, parameters, initialization):
        for parameter in parameters.values():
            initialize.uniform(parameter, 0.7)

    def run(self, layer, x, states, parameters, lengths, reverse, recorded):
        steps, rows, _ = x.shape
        ends = np.full(rows, steps) if lengths is None else lengths
        active = np.arange(steps)[:, None] < ends
        x = ops.where(active[:, :, None], x, 0.0)
        order = np.broadcast_to(np.arange(steps)[:, None], (steps, rows))
        if reverse:
            order = np.where(active, ends - 1 - order, order)
            x = x[order, np.arange(rows)]
        qkv = ops.linear(x, parameters["weight_qkv"])
        betas = ops.sigmoid(ops.linear(x, parameters["weight_beta"], parameters.get("bias_beta")))
        (S, n), outputs = states, []
        for t in range(steps):
            q, k, v = ops.split(qkv[t], 3, axis=-1)
            new = v - (S * k[:, None, :]).sum(axis=2)
            after = S + betas[t][:, :, None] * new[:, :, None] * k[:, None, :]
            count = n + betas[t][:, 0]
            y = (after * q[:, None, :]).sum(axis=2) / (1.0 + count)[:, None]
            S = ops.where(active[t][:, None, None], after, S)
            n = ops.where(active[t], count, n)
            outputs.append(ops.where(active[t][:, None], y, 0.0))
        y = ops.stack(outputs) if outputs else Tensor(np.zeros((0, rows, layer.hidden_size), "f"))
        if recorded is not None:
            recorded["beta"] = np.where(active, betas.data[..., 0][order, np.arange(rows)], 0)
        return (y[order, np.arange(rows)] if reverse else y), (S, n)


def make(layers=2, directions=2, dtype=np.float64, **options):
    random.seed(2)
    return nn.Recurrent(
        Delta(), I, H, layers, bidirectional=directions == 2, dtype=dtype, **options
    )  # fmt: skip


def inputs(layer, seed=3):
    numbers = np.random.default_rng(seed)
    x = numbers.normal(size=(T, B, I)).astype(layer.dtype)
    states = [numbers.normal(size=shape) for shape in layer.state_shapes(B).values()]
    return x, (states[0].astype(layer.dtype), np.abs(states[1]).astype(layer.dtype))


def by_hand(layer, x, states, lengths):
    """The outputs and final states of loops over rows, layers, directions and steps."""
    weights, D = layer.state_dict(), layer.num_directions
    final = [np.array(s, np.float64) for s in states]
    output = np.zeros((len(x), x.shape[1], layer.output_size))
    for row, length in enumerate(lengths):
        below = x[:length, row].astype(np.float64)
        for layer_number in range(layer.num_layers):
            columns = []
            for direction in range(D):
                suffix = f"_l{layer_number}" + ("_reverse" if direction else "")
                place = layer_number * D + direction
                S, n = final[0][place, row], final[1][place, row]
                column = np.zeros((length, H))
                for t in reversed(range(length)) if direction else range(length):
                    q, k, v = (weights["weight_qkv" + suffix] @ below[t]).reshape(3, H)
                    z = weights["weight_beta" + suffix] @ below[t]
                    beta = 1 / (1 + np.exp(-z[0] - weights.get("bias_beta" + suffix, [0])[0]))
                    S = S + beta * np.outer(v - S @ k, k)
                    n = n + beta
                    column[t] = S @ q / (1 + n)
                final[0][place, row], final[1][place, row] = S, n
                columns.append(column)
            below = np.concatenate(columns, axis=-1)
        output[:length, row] = below
    return output, final


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_the_stack_runs_a_matrix_memory(layers, directions, lengths, bias, dtype):
    layer = make(layers, directions, dtype, bias=bias)
    x, states = inputs(layer)
    y, final = layer(x, states, lengths)
    expected, reference = by_hand(layer, x, states, [T] * B if lengths is None else lengths)
    assert y.dtype == dtype
    assert [s.shape for s in final] == [(layers * directions, B, H, H), (layers * directions, B)]
    np.testing.assert_allclose(y.data, expected, **TOLERANCE[dtype])
    for given, by_loop in zip(final, reference, strict=True):
        np.testing.assert_allclose(given.data, by_loop, **TOLERANCE[dtype])


def test_layouts_and_no_state():
    layer = make()
    x, states = inputs(layer)
    y, (S, n) = layer(x, states, LENGTHS)
    layer.batch_first = True
    swapped, (same, _) = layer(x.swapaxes(0, 1), states, LENGTHS)
    np.testing.assert_array_equal(swapped.data, y.data.swapaxes(0, 1))
    np.testing.assert_array_equal(same.data, S.data)
    alone, (S_alone, n_alone) = layer(x[:3, 0], tuple(s[:, 0] for s in states))
    np.testing.assert_allclose(alone.data, y.data[:3, 0], atol=1e-14)
    np.testing.assert_allclose(S_alone.data, S.data[:, 0], atol=1e-14)
    np.testing.assert_allclose(n_alone.data, n.data[:, 0], atol=1e-14)
    zeros = tuple(np.zeros_like(s) for s in states)
    np.testing.assert_array_equal(
        layer(x[0])[0].data, layer(x[0], tuple(z[:, 0] for z in zeros))[0]
    )


def test_what_stands_between_layers_is_the_stacks():
    layer, plain = make(layer_norm=True, dropout=0.5), make(1)
    x, states = inputs(layer)
    first = {n: a for n, a in layer.state_dict().items() if "_l0" in n and "norm" not in n}
    plain.load_state_dict(first)
    below, _ = plain(x, tuple(s[:2] for s in states), LENGTHS)
    with layer.norm_l0.weight.writing() as array:
        array *= 3
    normed = layer.norm_l0(below)
    second = nn.Recurrent(Delta(), 2 * H, H, bidirectional=True, dtype=np.float64)
    second.load_state_dict(
        {n.replace("_l1", "_l0"): a for n, a in layer.state_dict().items()
         if "_l1" in n and "norm" not in n}
    )  # fmt: skip
    y, _ = second(normed, tuple(s[2:] for s in states), LENGTHS)
    expected = np.where((np.arange(T)[:, None] < LENGTHS)[..., None], layer.norm_l1(y).data, 0)
    found, _ = layer.eval()(x, states, LENGTHS)
    np.testing.assert_allclose(found.data, expected, atol=1e-13)
    assert not np.allclose(layer.train()(x, states, LENGTHS)[0].data, expected)


def test_gradients_along_a_random_direction():
    layer = make()
    x, states = inputs(layer)
    numbers = np.random.default_rng(9)
    leaves = [Tensor(a, requires_grad=True) for a in (x, *states)]
    targets = [numbers.normal(size=s) for s in ((T, B, 2 * H), (4, B, H, H), (4, B))]

    def loss(tensors):
        y, final = layer(tensors[0], (tensors[1], tensors[2]), LENGTHS)
        return sum(
            ((a * w).sum() for a, w in zip((y, *final), targets, strict=True)), Tensor(np.zeros(()))
        )

    loss(leaves).backward()
    parameters = list(layer.parameters())
    assert all(p.grad is not None and p.grad.any() for p in parameters)
    steps = [numbers.normal(size=t.shape) for t in (*leaves, *parameters)]
    slope = sum((t.grad * d).sum() for t, d in zip((*leaves, *parameters), steps, strict=True))
    values, size = [], 1e-5
    for sign in (1, -2, 1):  # forward, back past the start, and to the start again
        for tensor, d in zip((*leaves, *parameters), steps, strict=True):
            with tensor.writing() as array:
                array += sign * size * d
        moved = [Tensor(t.data) for t in leaves]
        values.append(loss(moved).data)
    assert slope == pytest.approx((values[0] - values[1]) / (2 * size), rel=1e-6)


@pytest.mark.parametrize("batch", [None, B])
def test_sessions_feed_it(batch):
    layer = make(2, 1, np.float32)
    x, states = inputs(layer)
    x, states = (x, states) if batch else (x[:, 1], tuple(s[:, 1] for s in states))
    expected, final = layer(x, states)
    session = layer.session(batch)
    session.state = states
    pieces = [session.feed(x[0])[None], session.feed(x[1:3])]
    for made in (session.fork(), pickle.loads(pickle.dumps(session)), copy.deepcopy(session)):
        rest = [made.feed(step)[None] for step in x[3:]]
        found = np.concatenate([*pieces, *rest])
        np.testing.assert_allclose(found, expected.data, rtol=1e-5, atol=1e-6)
        for name, reference in zip(("S", "n"), final, strict=True):
            np.testing.assert_allclose(
                made.state_dict()[name], reference.data, rtol=1e-5, atol=1e-6
            )
    assert repr(layer.session(2)).endswith("batch_size=2, S [2, 2, 6, 6], n [2, 2])")


def test_recording_names_what_the_kind_records():
    layer = make()
    x, states = inputs(layer)
    y, final, named = layer.record(x, states, LENGTHS)
    expected, reference = layer(x, states, LENGTHS)
    np.testing.assert_array_equal(y.data, expected.data)
    np.testing.assert_array_equal(final[0].data, reference[0].data)
    assert sorted(named) == ["beta_l0", "beta_l0_reverse", "beta_l1", "beta_l1_reverse"]
    z = x @ layer.weight_beta_l0_reverse.data[0] + layer.bias_beta_l0_reverse.data
    active = np.arange(T)[:, None] < LENGTHS
    np.testing.assert_allclose(named["beta_l0_reverse"], np.where(active, 1 / (1 + np.exp(-z)), 0))


def test_names_and_the_text_of_the_layer():
    layer = make(1, 2)
    assert list(layer.state_dict()) == [
        "weight_qkv_l0", "weight_beta_l0", "bias_beta_l0",
        "weight_qkv_l0_reverse", "weight_beta_l0_reverse", "bias_beta_l0_reverse",
    ]  # fmt: skip
    assert repr(layer).startswith("Recurrent(delta, 4, 6, num_layers=1, bidirectional=True")
    assert layer.cell is layer.kind


@pytest.mark.parametrize(
    "option", [{"proj_size": 2}, {"weight_dropout": 0.1}, {"zoneout": 0.1}, {"forget_bias": 1.0}]
)
def test_options_that_the_kind_does_not_have_are_reported(option):
    (name,) = option
    with pytest.raises(
        ValueError, match=f"Recurrent: layers of 'delta' do not support {name}; omit it"
    ):
        make(**option)


def test_states_that_do_not_fit_are_reported():
    layer = make()
    x, (S, n) = inputs(layer)
    with pytest.raises(
        ValueError, match=re.escape("state of 'delta' is (S, n), 2 Tensors; 1 were")
    ):
        layer(x, S)
    with pytest.raises(ValueError, match=re.escape("S of shape (4, 3, 6); expected (4, 3, 6, 6)")):
        layer(x, (S[..., 0], n))
    with pytest.raises(
        ValueError, match=r"Recurrent: lengths from 1 to 6, but the sequences have 5"
    ):
        layer(x, (S, n), [1, 6, 2])


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("state_shapes", "does not define state_shapes"),
        ("parameter_shapes", "does not define parameter_shapes"),
        ("reset_parameters", "does not define reset_parameters"),
        ("run", "does not define run"),
    ],
)
def test_a_kind_that_says_too_little_is_reported(method, said):
    given = [None] * (len(inspect.signature(getattr(nn.LayerKind, method)).parameters) - 1)
    with pytest.raises(NotImplementedError, match=f"LayerKind {said}"):
        getattr(nn.LayerKind(), method)(*given)


class Doubled(CellLayer):
    """A cell whose inputs count twice."""

    def run(self, layer, x, *rest):
        return super().run(layer, 2.0 * x, *rest)


def test_a_run_of_its_own_is_that_of_both_directions(rng):
    layer = nn.Recurrent(Doubled("gru"), I, H, bidirectional=True)
    plain = nn.GRU(I, H, bidirectional=True)
    plain.load_state_dict(layer.state_dict())
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    y, h = layer(x, lengths=LENGTHS)
    expected, last = plain(2 * x, lengths=LENGTHS)
    np.testing.assert_array_equal(y.data, expected.data)
    np.testing.assert_array_equal(h.data, last.data)
