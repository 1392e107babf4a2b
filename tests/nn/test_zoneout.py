"""Zoneout: any cell with it against loops, its expectation, its gradients, and its sessions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anaphora import engine, nn, ops, random
from anaphora.cells import CELLS, Gate, cell, lstm, zoneout
from anaphora.engine import LayerWeights
from anaphora.equations import EquationError
from anaphora.tensor import Tensor

T, B, I, H = 6, 4, 5, 7
LENGTHS = np.array([4, 0, 6, 1])
RATE = 0.3


@cell(gates="a", state="h", fused=False)
def untraced(a, h):
    """A cell whose equations are not read."""
    return ops.tanh(a) + 0 * h


def make(name, layers=2, directions=2, dtype=np.float64, **options):
    random.seed(3)
    given = {"zoneout": RATE, "initialization": 0.5, "dtype": dtype, **options}
    return nn.Recurrent(CELLS[name], I, H, layers, bidirectional=directions == 2, **given)


def inputs(layer):
    numbers = np.random.default_rng(4)
    shape = (layer.num_layers * layer.num_directions, B, H)
    states = tuple(numbers.normal(size=shape).astype(layer.dtype) for _ in layer.cell.states)
    x = numbers.normal(size=(T, B, I)).astype(layer.dtype)
    return x, states if len(states) > 1 else states[0]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def one_step(layer, suffix, x, states):
    """The equations of the cell itself, once, on [B, I] and [B, H]."""
    weights, cell = layer.state_dict(), layer.cell

    def halves(gates, name, v):
        if not gates:
            return {}
        blocks = v @ weights[f"weight_{name}{suffix}"].T + weights[f"bias_{name}{suffix}"]
        return dict(zip(gates, np.split(blocks, len(gates), axis=1), strict=True))

    of_x = halves(cell.input_gates, "ih", x)
    of_h = halves(cell.recurrent_gates, "hh", states[0])
    gates = [
        of_x[gate] + of_h[gate]
        if gate in cell.program.inputs
        else Gate(of_x.get(gate), of_h.get(gate))
        for gate in cell.gates
    ]
    return as_tuple(cell(*gates, *states, *(weights[name + suffix] for name in cell.parameters)))


def by_loops(layer, x, state, keep):
    """All layers and directions; keep() gives what is kept in each, [T, B, states, H]."""
    final = []
    for k in range(layer.num_layers):
        outputs = []
        for d, suffix in enumerate([f"_l{k}", f"_l{k}_reverse"][: layer.num_directions]):
            share, y = keep(), np.zeros((T, B, H), x.dtype)
            now = [s[k * layer.num_directions + d].copy() for s in as_tuple(state)]
            for b, length in enumerate(LENGTHS):
                # The engine takes the steps of a row in the order of the direction.
                for n in range(length):
                    t = length - 1 - n if d == 1 else n
                    before = [s[b : b + 1] for s in now]
                    new = one_step(layer, suffix, x[t, b : b + 1], before)
                    for s, (old, after) in enumerate(zip(before, new, strict=True)):
                        p = share[t, b, s]
                        now[s][b] = p * old[0] + (1 - p) * after[0]
                    y[t, b] = now[0][b]
            outputs.append(y)
            final.append(now)
        x = np.concatenate(outputs, axis=2)
    return x, [np.stack(states) for states in zip(*final, strict=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CELLS)
def test_training_is_the_cell_with_units_that_keep_their_states(name, dtype):
    layer = make(name, dtype=dtype)
    x, state = inputs(layer)
    S = len(layer.cell.states)

    def keep():
        sampled = ops.dropout(Tensor(np.ones((T, B, S * H), dtype)), RATE).data
        return (sampled == 0).reshape(T, B, S, H)

    random.seed(5)
    expected, final = by_loops(layer, x, state, keep)
    random.seed(5)
    y, after = layer(x, state, LENGTHS)
    tolerance = 2e-5 if dtype == np.float32 else 1e-11
    assert y.dtype == dtype
    np.testing.assert_allclose(y.data, expected, rtol=tolerance, atol=tolerance)
    for found, other in zip(as_tuple(after), final, strict=True):
        np.testing.assert_allclose(found.data, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CELLS)
def test_evaluation_mixes_old_and_new_in_the_expected_proportion(name):
    layer = make(name).eval()
    x, state = inputs(layer)
    expected, final = by_loops(layer, x, state, lambda: np.full((T, B, 2, 1), RATE))
    y, after = layer(x, state, LENGTHS)
    np.testing.assert_allclose(y.data, expected, rtol=1e-11, atol=1e-11)
    for found, other in zip(as_tuple(after), final, strict=True):
        np.testing.assert_allclose(found.data, other, rtol=1e-11, atol=1e-11)


def test_evaluation_is_the_mean_of_training_over_a_step():
    rows = 20000
    layer = nn.LSTM(I, H, zoneout=RATE, dtype=np.float64)
    x = np.ones((1, rows, I))
    state = tuple(np.full((1, rows, H), value) for value in (0.5, -2.0))
    random.seed(5)
    sampled = layer(x, state)[1]
    expected = layer.eval()(x, state)[1]
    for found, mean in zip(sampled, expected, strict=True):
        deviation = found.data.std(axis=1) / np.sqrt(rows)
        assert (np.abs(found.data.mean(axis=1) - mean.data[:, 0]) < 5 * deviation).all()


@settings(max_examples=15)
@given(data=st.data(), reverse=st.booleans(), seed=st.integers(0, 2**16))
def test_any_cell_fused_is_unfused(random_cells, data, reverse, seed):
    inner, _ = data.draw(random_cells)
    wrapped, rng = zoneout(inner), np.random.default_rng(seed)
    leaves = {
        "x": Tensor(rng.normal(size=(T, B, len(inner.input_gates) * H)), requires_grad=True),
        **{s: Tensor(rng.normal(size=(B, H)), requires_grad=True) for s in inner.states},
        **{p: Tensor(rng.normal(size=H), requires_grad=True) for p in inner.parameters},
    }
    if rows := len(inner.recurrent_gates) * H:
        leaves["weight_hh"] = Tensor(rng.normal(size=(rows, H)), requires_grad=True)
    renew = Tensor(rng.poisson(1, (T, B, len(inner.states) * H)).astype(float))
    found = []
    for recurrence in (ops.recurrence, ops.recurrence_unfused):
        for tensor in leaves.values():
            tensor.grad = None
        y, final = recurrence(
            wrapped,
            ops.concatenate([leaves["x"], renew], axis=-1),
            [leaves[s] for s in inner.states],
            LayerWeights(
                weight_hh=leaves.get("weight_hh"), parameters=[leaves[p] for p in inner.parameters]
            ),
            lengths=LENGTHS,
            reverse=reverse,
        )
        (y * y + y).sum().backward(retain_graph=True)
        for state in final:
            state.sum().backward(retain_graph=True)
        gradients = [np.zeros(t.shape) if t.grad is None else t.grad for t in leaves.values()]
        found.append([y.data, *(s.data for s in final), *gradients])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CELLS)
def test_sessions_run_the_expectation_packed(name, dtype):
    layer = make(name, 2, 1, dtype)
    x, _ = inputs(layer)
    session = layer.session(batch_size=B)
    steps = np.stack([session.feed(step) for step in x])
    expected = layer.eval()(x)[0].data
    if engine.info()["engine"] == "native":
        assert layer.pack() is not None
        np.testing.assert_array_equal(steps, expected)
    np.testing.assert_allclose(steps, expected, rtol=1e-5)


@pytest.mark.parametrize("option", [{"zoneout": RATE}, {"zoneout": 0.0, "layer_norm": True}])
def test_what_is_in_the_padding_is_not_seen(option):
    layer = make("lstm", **option)
    x, state = inputs(layer)
    found = []
    for padding in (0.0, np.nan):
        x[np.arange(T)[:, None] >= LENGTHS] = padding
        layer.zero_grad()
        random.seed(5)
        given = Tensor(x, requires_grad=True)
        y, (h, _) = layer(given, state, LENGTHS)
        ((y * y).sum() + h.sum()).backward()
        found.append([y.data, given.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*found, strict=True):
        assert np.isfinite(other).all()
        np.testing.assert_array_equal(one, other)
    assert (found[0][0][np.arange(T)[:, None] >= LENGTHS] == 0).all()


def test_recorded_names_are_those_of_the_cell():
    layer = make("lstm", 1, 1)
    x, state = inputs(layer)
    _, _, in_training = layer.record(x, state, LENGTHS)
    y, _, recorded = layer.eval().record(x, state, LENGTHS)
    assert recorded.keys() == {f"{name}_l0" for name in "ifgohc"}
    np.testing.assert_array_equal(recorded["h_l0"], y.data)
    assert in_training.keys() == recorded.keys()


def test_the_wrapped_equations_keep_or_renew():
    i, f, g, o, h, c = np.random.default_rng(1).normal(size=(6, H))
    renew_h, renew_c = (Gate(x=np.arange(H) % n * 1.5, h=None) for n in (2, 3))
    new_h, new_c = lstm(i, f, g, o, h, c)
    found_h, found_c = zoneout(lstm)(i, f, g, o, renew_h, renew_c, h, c)
    np.testing.assert_array_equal(found_h, np.where(renew_h.x, new_h, h))
    np.testing.assert_array_equal(found_c, np.where(renew_c.x, new_c, c))
    mixed_h, _ = zoneout(lstm, 0.25)(i, f, g, o, h, c)
    np.testing.assert_allclose(mixed_h, 0.25 * h + 0.75 * new_h, rtol=1e-14)


def test_what_zoneout_cannot_do_is_reported():
    with pytest.raises(ValueError, match=r"traced, and states that are not projected; 'lstm' has"):
        nn.LSTM(I, H, zoneout=0.1, proj_size=3)
    with pytest.raises(ValueError, match=r"'untraced' has fused=False"):
        nn.Recurrent(untraced, I, H, zoneout=0.1)
    with pytest.raises(ValueError, match=r"GRU: zoneout must be >= 0 and < 1, not 1.0"):
        nn.GRU(I, H, zoneout=1.0)
    with pytest.raises(
        ValueError, match="Recurrent: lengths from 1 to 7, but the sequences have 6"
    ):
        make("lstm")(np.zeros((T, B, I)), lengths=[1, 2, 3, 7])
    with pytest.raises(EquationError, match="fused=False"):
        zoneout(untraced)
