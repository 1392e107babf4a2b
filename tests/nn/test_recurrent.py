"""The recurrent layers against the cells' equations, run one sequence and one step at a time."""

import inspect
import re

import numpy as np
import pytest

from anaphora import engine, matmul_precision, nn, random
from anaphora.cells import CELLS, Gate, cell
from anaphora.equations import abs, log, sigmoid, tanh
from anaphora.tensor import Tensor, no_grad

T, B, I, H, P = 6, 3, 5, 8, 7
LENGTHS = np.array([4, 0, 6])
DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-11}}


@cell(gates="f n", state="h s", parameters="p", fused=False)
def unfused(f, n, h, s, p):
    """A cell that is not traced: two states, a gate in halves, a vector of its own."""
    f = sigmoid(f + p * s)
    n = tanh(n.x + f * n.h)
    s = s + f
    h = f * h + (1 - f) * n
    return h, s


ALL_CELLS = {**CELLS, "unfused": unfused}
PROJECTABLE = [name for name, c in CELLS.items() if not c.reads_output_state()]


def make(name, layers=1, directions=1, dtype=np.float64, **options):
    random.seed(3)
    return nn.Recurrent(
        ALL_CELLS[name],
        I,
        H,
        layers,
        bidirectional=directions == 2,
        initialization=0.5,
        dtype=dtype,
        **options,
    )


def inputs(layer, seed=4):
    """Random [T, B, I] and non-zero initial states [L*D, B, H or P]."""
    numbers = np.random.default_rng(seed)
    places = layer.num_layers * layer.num_directions
    sizes = [layer.proj_size or H] + [H] * (len(layer.cell.states) - 1)
    x = numbers.normal(size=(T, B, I)).astype(layer.dtype)
    return x, tuple(numbers.normal(size=(places, B, n)).astype(layer.dtype) for n in sizes)


def as_state(states):
    """States as a layer takes and returns them: a tuple, or the only one."""
    return states if len(states) > 1 else states[0]


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def one_step(layer, suffix, x, states):
    """The equations once, on arrays [I] and [H]."""
    cell, weights = layer.cell, layer.state_dict()

    def affine(name, v):
        if f"weight_{name}{suffix}" not in weights:
            return np.zeros(0, v.dtype)
        y = weights[f"weight_{name}{suffix}"] @ v
        return y + weights.get(f"bias_{name}{suffix}", 0)

    x_halves = dict(zip(cell.input_gates, affine("ih", x).reshape(-1, H), strict=True))
    h_halves = dict(zip(cell.recurrent_gates, affine("hh", states[0]).reshape(-1, H), strict=True))

    gates = []
    for gate in cell.gates:
        halves = Gate(x_halves.get(gate), h_halves.get(gate))
        is_sum = gate in cell.program.inputs if cell.fused else gate == "f"
        gates.append(halves.x + halves.h if is_sum else halves)
    after = as_tuple(cell(*gates, *states, *(weights[p + suffix] for p in cell.parameters)))
    after = list(after)
    if layer.proj_size:
        after[0] = weights["weight_hr" + suffix] @ after[0]
    return after


def by_hand(layer, x, states, lengths):
    """Output [T, B, D*(P or H)] and final states, by loops over rows, layers, directions, steps."""
    D = layer.num_directions
    output = np.zeros((len(x), x.shape[1], layer.output_size))
    final = [np.array(s) for s in states]
    for row, length in enumerate(lengths):
        below = x[:length, row]
        for k in range(layer.num_layers):
            columns = []
            for direction, suffix in enumerate([f"_l{k}", f"_l{k}_reverse"][:D]):
                now = [s[k * D + direction, row] for s in states]
                column = np.zeros((length, layer.output_size // D))
                for t in reversed(range(length)) if direction else range(length):
                    now = one_step(layer, suffix, below[t], now)
                    column[t] = now[0]
                for kept, value in zip(final, now, strict=True):
                    kept[k * D + direction, row] = value
                columns.append(column)
            below = np.concatenate(columns, axis=-1)
        output[:length, row] = below
    return output, final


# Values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("name", ALL_CELLS)
def test_a_layer_is_its_equations_over_time(name, layers, directions, lengths, dtype):
    layer = make(name, layers, directions, dtype)
    x, states = inputs(layer)
    output, state = layer(x, as_state(states), lengths=lengths)
    expected, final = by_hand(layer, x, states, [T] * B if lengths is None else lengths)
    assert output.dtype == dtype
    assert output.shape == (T, B, directions * H)
    np.testing.assert_allclose(output.data, expected, **TOLERANCE[dtype])
    assert len(as_tuple(state)) == len(final)
    for given, reference in zip(as_tuple(state), final, strict=True):
        assert given.dtype == dtype
        np.testing.assert_allclose(given.data, reference, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", PROJECTABLE)
def test_projection(name, bias, lengths, dtype):
    layer = make(name, 2, 2, dtype, proj_size=P, bias=bias)
    x, states = inputs(layer)
    output, state = layer(x, as_state(states), lengths=lengths)
    expected, final = by_hand(layer, x, states, [T] * B if lengths is None else lengths)
    assert layer.output_size == 2 * P
    np.testing.assert_allclose(output.data, expected, **TOLERANCE[dtype])
    for given, reference in zip(as_tuple(state), final, strict=True):
        np.testing.assert_allclose(given.data, reference, **TOLERANCE[dtype])


@pytest.mark.parametrize("name", ALL_CELLS)
def test_without_biases(name):
    layer = make(name, 2, 1, bias=False)
    assert not any("bias" in key for key in layer.state_dict())
    x, states = inputs(layer)
    output, _ = layer(x, as_state(states))
    np.testing.assert_allclose(output.data, by_hand(layer, x, states, [T] * B)[0], atol=1e-11)


@pytest.mark.parametrize("name", ALL_CELLS)
def test_no_state_is_a_state_of_zeros(name):
    layer = make(name, 2, 2)
    x, states = inputs(layer)
    zeros = as_state(tuple(np.zeros_like(s) for s in states))
    np.testing.assert_array_equal(layer(x)[0].data, layer(x, zeros)[0].data)


@pytest.mark.parametrize("name", ALL_CELLS)
def test_several_layers_are_single_ones_on_top_of_each_other(name):
    stacked = make(name, 2, 2)
    x, states = inputs(stacked)
    output, state = stacked(x, as_state(states), lengths=LENGTHS)
    below, finals = Tensor(x), []
    for k in range(2):
        single = nn.Recurrent(
            stacked.cell, below.shape[-1], H, bidirectional=True, dtype=np.float64
        )
        single.load_state_dict(
            {
                key.replace(f"_l{k}", "_l0"): array
                for key, array in stacked.state_dict().items()
                if f"_l{k}" in key
            }
        )
        below, final = single(
            below, as_state(tuple(s[2 * k : 2 * k + 2] for s in states)), lengths=LENGTHS
        )
        finals.append(as_tuple(final))
    np.testing.assert_array_equal(output.data, below.data)
    for given, parts in zip(as_tuple(state), zip(*finals, strict=True), strict=True):
        np.testing.assert_array_equal(given.data, np.concatenate([p.data for p in parts]))


# Layouts


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("name", ALL_CELLS)
def test_batch_first_moves_the_axes_of_sequences_and_not_of_states(name, lengths):
    layer = make(name, 2, 2)
    x, states = inputs(layer)
    output, state, named = layer.record(x, as_state(states), lengths=lengths)
    layer.batch_first = True
    swapped, same, rows = layer.record(x.swapaxes(0, 1), as_state(states), lengths=lengths)
    np.testing.assert_array_equal(swapped.data, output.data.swapaxes(0, 1))
    for given, reference in zip(as_tuple(same), as_tuple(state), strict=True):
        np.testing.assert_array_equal(given.data, reference.data)
    assert rows.keys() == named.keys()
    for key, values in named.items():
        np.testing.assert_array_equal(rows[key], values.swapaxes(0, 1))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ALL_CELLS)
def test_one_sequence_without_a_batch_axis(name, batch_first):
    layer = make(name, 2, 2, batch_first=batch_first)
    x, states = inputs(layer)
    complete, finals, named = make(name, 2, 2).record(
        x[:, :1], as_state(tuple(s[:, :1] for s in states))
    )
    output, state, alone = layer.record(x[:, 0], as_state(tuple(s[:, 0] for s in states)))
    np.testing.assert_array_equal(output.data, complete.data[:, 0])
    for given, reference in zip(as_tuple(state), as_tuple(finals), strict=True):
        np.testing.assert_array_equal(given.data, reference.data[:, 0])
    for key, values in named.items():
        np.testing.assert_array_equal(alone[key], values[:, 0])


# Lengths


@pytest.mark.parametrize("name", ALL_CELLS)
def test_padded_rows_are_the_rows_alone(name):
    layer = make(name, 2, 2)
    x, states = inputs(layer)
    output, state = layer(x, as_state(states), lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone, final = layer(
            x[:length, row : row + 1], as_state(tuple(s[:, row : row + 1] for s in states))
        )
        np.testing.assert_allclose(output.data[:length, row], alone.data[:, 0], atol=1e-13)
        np.testing.assert_array_equal(output.data[length:, row], 0)
        for given, reference in zip(as_tuple(state), as_tuple(final), strict=True):
            np.testing.assert_allclose(given.data[:, row], reference.data[:, 0], atol=1e-13)


@pytest.mark.parametrize("name", ALL_CELLS)
def test_what_stands_in_the_padding_changes_nothing(name):
    layer = make(name, 2, 2)
    x, states = inputs(layer)
    padding = np.arange(T)[:, None] >= LENGTHS
    results = []
    for filler in (0.0, 1e30):
        x[padding] = filler
        x_tensor = Tensor(x, requires_grad=True)
        layer.zero_grad()
        output, state = layer(x_tensor, as_state(states), lengths=LENGTHS)
        (output * output).sum().backward()
        gradients = [p.grad for p in layer.parameters()]
        np.testing.assert_array_equal(x_tensor.grad[padding], 0)
        results.append([output.data, *(s.data for s in as_tuple(state)), x_tensor.grad, *gradients])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def singular(a, b, h, s):
    """A cell without a finite derivative where an input is 0, as it is in the padding."""
    s = s + tanh(b.x / abs(b.x)) * sigmoid(b.h)
    h = tanh(log(abs(a.x)) + a.h) * s
    return h, s


NORMED = {"dropout": 0.4, "layer_norm": True}


@pytest.mark.parametrize(
    ("fused", "options"),
    [(True, {}), (True, {"zoneout": 0.3}), (True, NORMED), (False, {}), (False, NORMED)],
    ids=str,
)
def test_gradients_of_a_cell_that_is_singular_in_the_padding(fused, options):
    sampled = cell(gates="a b", state="h s", fused=fused)(singular)
    random.seed(3)
    layer = nn.Recurrent(
        sampled, I, H, 2, bidirectional=True, bias=False, dtype=np.float64, **options
    )  # fmt: skip
    x, states = inputs(layer)

    def gradients(rows, lengths):
        layer.zero_grad()
        x_rows = Tensor(x[: max(lengths), rows], requires_grad=True)
        output, state = layer(x_rows, as_state(tuple(s[:, rows] for s in states)), lengths=lengths)
        total = (output * output).sum()
        for s in as_tuple(state):
            total = total + (s * s).sum()
        total.backward()
        return {"x": x_rows.grad} | {n: p.grad for n, p in layer.named_parameters()}

    found = gradients(np.arange(B), LENGTHS)
    assert all(np.isfinite(d).all() for d in found.values())
    assert all(d.any() for d in found.values())
    layer.eval()  # no mask: the sum over rows by themselves
    found = gradients(np.arange(B), LENGTHS)
    alone = [gradients([row], [length]) for row, length in enumerate(LENGTHS) if length]
    for name in found.keys() - {"x"}:
        total = sum(d[name] for d in alone)
        np.testing.assert_allclose(found[name], total, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ALL_CELLS)
def test_a_row_of_length_0_hands_its_state_and_its_gradient_through(name):
    layer = make(name, 2, 2)
    x, states = inputs(layer)
    tensors = tuple(Tensor(s, requires_grad=True) for s in states)
    output, state = layer(x, as_state(tensors), lengths=[0] * B)
    np.testing.assert_array_equal(output.data, 0)
    weights = [np.random.default_rng(9).normal(size=s.shape) for s in states]
    total = output.sum()
    for given, initial, w in zip(as_tuple(state), states, weights, strict=True):
        np.testing.assert_array_equal(given.data, initial)
        total = total + (given * w).sum()
    total.backward()
    for tensor, w in zip(tensors, weights, strict=True):
        np.testing.assert_array_equal(tensor.grad, w)
    for parameter in layer.parameters():
        np.testing.assert_array_equal(parameter.grad, 0)


@pytest.mark.parametrize("name", ALL_CELLS)
@pytest.mark.parametrize(("steps", "rows"), [(0, B), (T, 0)])
def test_no_steps_and_no_rows(name, steps, rows):
    layer = make(name, 2, 2)
    _, states = inputs(layer)
    states = tuple(s[:, :rows] for s in states)
    output, state, named = layer.record(np.zeros((steps, rows, I)), as_state(states))
    assert output.shape == (steps, rows, 2 * H)
    for given, initial in zip(as_tuple(state), states, strict=True):
        np.testing.assert_array_equal(given.data, initial)
    assert all(values.shape == (steps, rows, H) for values in named.values())


@pytest.mark.parametrize("name", ALL_CELLS)
def test_one_pass_is_three_with_the_state_carried(name):
    layer = make(name, 2)
    x, states = inputs(layer)
    complete, final = layer(x, as_state(states))
    state, parts = as_state(states), []
    for start, stop in ((0, 1), (1, 4), (4, T)):
        part, state = layer(x[start:stop], state)
        parts.append(part.data)
    np.testing.assert_allclose(np.concatenate(parts), complete.data, atol=1e-13)
    for given, reference in zip(as_tuple(state), as_tuple(final), strict=True):
        np.testing.assert_allclose(given.data, reference.data, atol=1e-13)


# Gradients


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("name", "proj_size"), [*((n, 0) for n in ALL_CELLS), ("lstm", P)])
def test_all_gradients_along_a_random_direction(name, proj_size, batch_first):
    layer = make(name, 2, 2, batch_first=batch_first, proj_size=proj_size)
    x, states = inputs(layer)
    x = x.swapaxes(0, 1) if batch_first else x
    numbers = np.random.default_rng(12)
    leaves = [Tensor(a, requires_grad=True) for a in (x, *states)]
    weights = [numbers.normal(size=(*x.shape[:2], layer.output_size))]
    weights += [numbers.normal(size=s.shape) for s in states]

    def loss():
        output, state = layer(leaves[0], as_state(tuple(leaves[1:])), lengths=LENGTHS)
        values = (output, *as_tuple(state))
        total = 0
        for value, w in zip(values, weights, strict=True):
            total = total + (value * w).sum()
        return total

    loss().backward()
    # Each leaf along a direction of its own, so that no error can hide behind another's sum.
    for leaf in [*leaves, *layer.parameters()]:
        assert leaf.grad.dtype == np.float64
        direction, values = numbers.normal(size=leaf.shape), []
        step = 1e-6
        for sign in (1, -1):
            with leaf.writing() as array:
                before = array.copy()
                array += sign * step * direction
            values.append(loss().item())
            with leaf.writing() as array:
                array[...] = before
        numerical = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(leaf.grad * direction), numerical, rtol=2e-6, atol=2e-7)


# Record


@pytest.mark.parametrize("name", ALL_CELLS)
def test_record_names_the_values_of_every_layer_and_direction(name):
    layer = make(name, 2, 2)
    x, states = inputs(layer)
    plain, plain_state = layer(x, as_state(states), lengths=LENGTHS)
    output, state, named = layer.record(x, as_state(states), lengths=LENGTHS)
    np.testing.assert_array_equal(output.data, plain.data)
    for given, reference in zip(as_tuple(state), as_tuple(plain_state), strict=True):
        np.testing.assert_array_equal(given.data, reference.data)
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        for state_name in layer.cell.states:
            assert named[state_name + suffix].shape == (T, B, H)
            np.testing.assert_array_equal(
                named[state_name + suffix][np.arange(T)[:, None] >= LENGTHS], 0
            )
    top = np.concatenate([named["h_l1"], named["h_l1_reverse"]], axis=-1)
    np.testing.assert_array_equal(top, output.data)


def test_recorded_gates_are_the_equations():
    layer = make("lstm", 1)
    x, (h, c) = inputs(layer)
    _, _, named = layer.record(x, (h, c))
    assert set(named) == {"i_l0", "f_l0", "g_l0", "o_l0", "c_l0", "h_l0"}
    before = np.concatenate([c, named["c_l0"][:-1]])
    i, f, g, o = (named[f"{gate}_l0"] for gate in "ifgo")
    np.testing.assert_allclose(named["c_l0"], f * before + i * g, atol=1e-14)
    np.testing.assert_allclose(named["h_l0"], o * np.tanh(named["c_l0"]), atol=1e-14)
    h_before = np.concatenate([h, named["h_l0"][:-1]])
    gates = (
        x @ layer.weight_ih_l0.data.T
        + layer.bias_ih_l0.data
        + h_before @ layer.weight_hh_l0.data.T
        + layer.bias_hh_l0.data
    )
    np.testing.assert_allclose(f, 1 / (1 + np.exp(-gates[..., H : 2 * H])), atol=1e-13)
    np.testing.assert_allclose(g, np.tanh(gates[..., 2 * H : 3 * H]), atol=1e-13)


# Dropout


@pytest.mark.parametrize("name", ["lstm", "unfused"])
def test_dropout_stands_between_the_layers_in_training_only(name):
    plain, dropping = make(name, 2, 2), make(name, 2, 2, dropout=0.5)
    x, states = inputs(plain)
    expected, _ = plain(x, as_state(states))
    output, _, named = dropping.record(x, as_state(states))
    assert not np.allclose(output.data, expected.data)
    _, _, below = plain.record(x, as_state(states))
    np.testing.assert_array_equal(named["h_l0"], below["h_l0"])
    assert (output.data != 0).all()
    np.testing.assert_array_equal(dropping.eval()(x, as_state(states))[0].data, expected.data)


def test_the_layer_above_reads_the_dropped_output():
    layer = make("rnn", 2, 1, dropout=0.25)
    x, (h,) = inputs(layer)
    random.seed(8)
    output, _ = layer(x, h)
    random.seed(8)
    mask = nn.Dropout(0.25)(Tensor(np.ones((T, B, H)))).data
    assert (mask == 0).any()
    _, _, named = layer.eval().record(x, h)
    dropped = named["h_l0"] * mask
    state = h[1]
    for t in range(T):
        state = np.tanh(
            dropped[t] @ layer.weight_ih_l1.data.T
            + layer.bias_ih_l1.data
            + state @ layer.weight_hh_l1.data.T
            + layer.bias_hh_l1.data
        )
        np.testing.assert_allclose(output.data[t], state, atol=1e-13)


def test_a_single_layer_drops_nothing():
    layer = make("gru", 1, dropout=0.5)
    x, (h,) = inputs(layer)
    np.testing.assert_array_equal(layer(x, h)[0].data, layer.eval()(x, h)[0].data)


# Parameters and their names


def test_names_and_shapes_are_pytorchs():
    layer = nn.LSTM(I, H, 2, bidirectional=True, proj_size=P)
    expected = {}
    for k, width in ((0, I), (1, 2 * P)):
        for suffix in (f"_l{k}", f"_l{k}_reverse"):
            expected |= {
                "weight_ih" + suffix: (4 * H, width),
                "weight_hh" + suffix: (4 * H, P),
                "bias_ih" + suffix: (4 * H,),
                "bias_hh" + suffix: (4 * H,),
                "weight_hr" + suffix: (P, H),
            }
    assert list(expected.items()) == [(k, v.shape) for k, v in layer.state_dict().items()]


def test_halves_that_the_equations_do_not_use_have_no_weights():
    shapes = {name: array.shape for name, array in make("mingru").state_dict().items()}
    assert shapes == {"weight_ih_l0": (2 * H, I), "bias_ih_l0": (2 * H,)}


def test_vectors_of_the_cell_come_last():
    names = list(make("peephole_lstm", 1, 2).state_dict())
    assert names[4:7] == ["p_i_l0", "p_f_l0", "p_o_l0"]
    assert names[-1] == "p_o_l0_reverse"


@pytest.mark.parametrize(
    ("named", "general"),
    [
        (lambda: nn.RNN(I, H, 2), "rnn"),
        (lambda: nn.RNN(I, H, 2, "relu"), "rnn_relu"),
        (lambda: nn.LSTM(I, H, 2), "lstm"),
        (lambda: nn.GRU(I, H, 2), "gru"),
    ],
)
def test_the_named_layers_are_their_cells(named, general):
    layer = named()
    other = nn.Recurrent(general, I, H, 2)
    other.load_state_dict(layer.state_dict())
    x = np.random.default_rng(1).normal(size=(T, B, I)).astype(np.float32)
    np.testing.assert_array_equal(layer(x)[0].data, other(x)[0].data)


def test_positional_arguments_stand_where_pytorch_has_them():
    layer = nn.LSTM(I, H, 2, False, True, 0.1, True, P)
    assert (layer.num_layers, layer.bias, layer.batch_first) == (2, False, True)
    assert (layer.dropout, layer.bidirectional, layer.proj_size) == (0.1, True, P)
    layer = nn.RNN(I, H, 2, "relu", False, True, 0.1, True)
    assert layer.cell is CELLS["rnn_relu"]
    assert (layer.num_layers, layer.bias, layer.batch_first) == (2, False, True)
    assert (layer.dropout, layer.bidirectional) == (0.1, True)


@pytest.mark.parametrize("named", [nn.RNN, nn.LSTM, nn.GRU])
def test_signatures_are_spelled_out_in_recurrents_order_and_reach_it(named):
    general = inspect.signature(nn.Recurrent).parameters
    own = inspect.signature(named).parameters
    omitted = {"RNN": {"forget_bias"}, "LSTM": set(), "GRU": {"proj_size", "forget_bias"}}
    assert own.keys() - {"nonlinearity"} == general.keys() - {"cell"} - omitted[named.__name__]
    values = {
        "num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.1, "bidirectional": True,
        "proj_size": P, "locked_dropout": True, "weight_dropout": 0.2, "zoneout": 0.3,
        "layer_norm": True, "forget_bias": 1.5, "dtype": np.dtype("float64"),
    }  # fmt: skip
    for name, parameter in own.items():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if name not in ("input_size", "hidden_size", "nonlinearity"):
            assert parameter.default == general[name].default, name
            assert parameter.annotation == general[name].annotation, name
        if name in values:
            assert getattr(named(I, H, **{name: values[name]}), name) == values[name]
    assert [n for n in own if n != "nonlinearity"] == [n for n in general if n in own]
    zeros = named(I, H, initialization="xavier").bias_ih_l0.data
    np.testing.assert_array_equal(zeros, 0)
    for call in (named.forward, named.record):
        assert list(inspect.signature(call).parameters) == ["self", "x", "state", "lengths"]


def test_repr_shows_what_is_not_the_default():
    assert repr(nn.LSTM(I, H)) == "LSTM(lstm, 5, 8, num_layers=1) (480 parameters)"
    assert repr(nn.GRU(I, H, 2, bias=False, dropout=0.5, bidirectional=True)) == (
        "GRU(gru, 5, 8, num_layers=2, bias=False, dropout=0.5, bidirectional=True) "
        "(1,776 parameters)"
    )
    layer = nn.LSTM(I, H, forget_bias=1.0, dtype="float64", initialization="xavier")
    assert "num_layers=1, forget_bias=1.0, dtype=float64)" in repr(layer)


# Layer normalisation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_layer_norm_stands_on_the_joined_output_of_each_layer(dtype, batch_first):
    layer = make("gru", 2, 2, dtype, layer_norm=True, batch_first=batch_first)
    numbers = np.random.default_rng(8)
    for k in range(2):
        for name in ("weight", "bias"):
            with getattr(getattr(layer, f"norm_l{k}"), name).writing() as array:
                array += numbers.standard_normal(2 * H)
    x, (h,) = inputs(layer)
    expected, final = x, []
    for k in range(2):
        one = nn.GRU(expected.shape[-1], H, bidirectional=True, dtype=dtype)
        state = {n: a for n, a in layer.state_dict().items() if f"_l{k}" in n and "norm" not in n}
        one.load_state_dict({name.replace(f"_l{k}", "_l0"): a for name, a in state.items()})
        y, after = one(expected, h[2 * k : 2 * k + 2], LENGTHS)
        norm = getattr(layer, f"norm_l{k}")
        centred = y.data - y.data.mean(axis=2, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-5)
        y = y * norm.weight.data + norm.bias.data
        expected = np.where((np.arange(T)[:, None] < LENGTHS)[..., None], y, 0).astype(dtype)
        final.append(after.data)
    x = x.swapaxes(0, 1).copy() if batch_first else x
    y, after = layer(x, h, LENGTHS)
    y = y.data.swapaxes(0, 1) if batch_first else y.data
    np.testing.assert_allclose(y, expected, **TOLERANCE[dtype])
    np.testing.assert_allclose(after.data, np.concatenate(final), **TOLERANCE[dtype])


def test_normalisation_starts_as_it_is_whatever_the_initialisation():
    for initialization in ("pytorch", "xavier", "orthogonal", 0.1):
        layer = nn.LSTM(I, H, 2, layer_norm=True, initialization=initialization)
        for norm in (layer.norm_l0, layer.norm_l1):
            assert (norm.weight.data == 1).all()
            assert (norm.bias.data == 0).all()
    with layer.norm_l0.weight.writing() as array:
        array += 1
    layer.reset_parameters()
    assert (layer.norm_l0.weight.data == 1).all()


def test_a_session_of_a_normalised_layer_gives_the_outputs_of_the_full_sequence():
    layer = make("lstm", 2, 1, np.float32, layer_norm=True)
    x, _ = inputs(layer)
    session = layer.session(batch_size=B)
    steps = np.stack([session.feed(step) for step in x])
    expected = layer(x)[0].data
    if engine.info()["engine"] == "native":
        assert layer.pack() is not None
        np.testing.assert_array_equal(steps, expected)
    np.testing.assert_allclose(steps, expected, rtol=1e-5, atol=1e-6)


# Messages


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: nn.LSTM(0, H), "LSTM: input_size must be an integer of at least 1, not 0"),
        (lambda: nn.GRU(I, -1), "GRU: hidden_size must be an integer of at least 1, not -1"),
        (lambda: nn.GRU(I, 2.0), "GRU: hidden_size must be an integer of at least 1, not 2.0"),
        (lambda: nn.RNN(I, H, 0), "RNN: num_layers must be an integer of at least 1, not 0"),
        (lambda: nn.RNN(I, H, 1, "gelu"), "RNN: nonlinearity 'gelu' is neither 'tanh' nor 'relu'"),
        (lambda: nn.LSTM(I, H, dropout=1.0), "LSTM: dropout must be >= 0 and < 1, not 1.0"),
        (lambda: nn.LSTM(I, H, dropout=-0.5), "dropout must be >= 0 and < 1, not -0.5"),
        (
            lambda: nn.LSTM(I, H, proj_size=H),
            "LSTM: proj_size must be positive and smaller than hidden_size=8, or 0 for no "
            "projection, not 8",
        ),
        (lambda: nn.LSTM(I, H, proj_size=-1), "or 0 for no projection, not -1"),
        (
            lambda: nn.Recurrent("gru", I, H, proj_size=P),
            "Recurrent: proj_size needs a cell whose equations leave the state 'h' to the gates; "
            "those of 'gru' read it",
        ),
        (
            lambda: nn.Recurrent(unfused, I, H, proj_size=P),
            "those of 'unfused' were not traced (fused=False)",
        ),
        (
            lambda: nn.Recurrent("gru", I, H, forget_bias=1.0),
            "Recurrent: forget_bias needs biases and a gate called f; 'gru' has the gates r z n, "
            "bias=True",
        ),
        (lambda: nn.LSTM(I, H, bias=False, forget_bias=1.0), "bias=False"),
        (lambda: nn.Recurrent("ltsm", I, H), "cell 'ltsm' is neither one of rnn, rnn_relu, lstm"),
        (lambda: nn.Recurrent(np.tanh, I, H), "nor a Cell (see anaphora.cells.cell)"),
        (lambda: nn.LSTM(I, H, initialization="he"), "initialization 'he' is not one of pytorch"),
    ],
)
def test_bad_options_are_reported(make_layer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_layer()


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("options", "arguments", "error", "message"),
    [
        (
            {},
            [zeros(T, B, I + 1)],
            ValueError,
            "LSTM: an input of shape (6, 3, 6); expected [T, B, I] or [T, I] with I = 5",
        ),
        (
            {"batch_first": True},
            [zeros(B, T, I + 1)],
            ValueError,
            "LSTM: an input of shape (3, 6, 6); expected [B, T, I] or [T, I] with I = 5",
        ),
        ({}, [zeros(I)], ValueError, "LSTM: an input of shape (5,)"),
        (
            {},
            [Tensor(zeros(T, B, I, dtype=np.float64))],
            TypeError,
            "LSTM: an input of float64 for a layer of float32; convert it with .astype()",
        ),
        (
            {"dtype": np.float64},
            [Tensor(zeros(T, B, I))],
            TypeError,
            "LSTM: an input of float32 for a layer of float64",
        ),
        (
            {},
            [zeros(T, B, I), zeros(1, B, H)],
            ValueError,
            "LSTM: the state of 'lstm' is (h, c), 2 Tensors; 1 were given",
        ),
        (
            {"bidirectional": True},
            [zeros(T, B, I), (zeros(1, B, H), zeros(1, B, H))],
            ValueError,
            "LSTM: an initial state h of shape (1, 3, 8); expected (2, 3, 8): layers times "
            "directions, batch, size",
        ),
        (
            {},
            [zeros(T, B, I), (zeros(1, B, H), zeros(1, B + 1, H))],
            ValueError,
            "LSTM: an initial state c of shape (1, 4, 8); expected (1, 3, 8)",
        ),
        (
            {"proj_size": P},
            [zeros(T, B, I), (zeros(1, B, H), zeros(1, B, H))],
            ValueError,
            "LSTM: an initial state h of shape (1, 3, 8); expected (1, 3, 7)",
        ),
        (
            {},
            [zeros(T, I), (zeros(1, 1, H), zeros(1, 1, H))],
            ValueError,
            "expected (1, 8): layers times directions, size",
        ),
        (
            {},
            [zeros(T, B, I), (zeros(1, B, H), Tensor(zeros(1, B, H, dtype=np.float64)))],
            TypeError,
            "LSTM: an initial state c of float64 for a layer of float32; convert it with .astype()",
        ),
        (
            {},
            [zeros(T, B, I), None, [1, 2]],
            ValueError,
            "int64(2,), expected one integer for each of the 3 rows of the batch",
        ),
        (
            {},
            [zeros(T, B, I), None, [1.0, 2.0, 3.0]],
            ValueError,
            "float64(3,), expected one integer",
        ),
        (
            {},
            [zeros(T, B, I), None, [1, 7, 3]],
            ValueError,
            "lengths from 1 to 7, but the sequences have 6 steps",
        ),
        ({}, [zeros(T, B, I), None, [1, -1, 3]], ValueError, "lengths from -1 to 3"),
    ],
)
def test_bad_calls_are_reported(options, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        nn.LSTM(I, H, **options)(*arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_states_are_converted(dtype):
    layer = make("lstm", dtype=dtype)
    x, (h, c) = inputs(layer)
    expected = layer(x, (h, c))
    for convert in (np.ndarray.tolist, lambda a: a.astype(np.float64), Tensor):
        y, state = layer(x, (convert(h), convert(c)))
        np.testing.assert_array_equal(y.data, expected[0].data)
        assert state[0].dtype == state[1].dtype == dtype
    wholes = [np.ones(h.shape, int), np.zeros(c.shape, bool)]
    same = layer(x, [array.astype(dtype) for array in wholes])[0].data
    np.testing.assert_array_equal(layer(x, wholes)[0].data, same)
    with pytest.raises(TypeError, match="an initial state h: cannot hold complex128"):
        layer(x, (h.astype(complex), c))


def test_the_state_of_a_cell_with_one_is_a_tensor_or_a_tuple_of_it():
    layer = make("gru")
    x, (h,) = inputs(layer)
    np.testing.assert_array_equal(layer(x, (h,))[0].data, layer(x, h)[0].data)
    with pytest.raises(ValueError, match=re.escape("the state of 'gru' is (h), 1 Tensors; 2 were")):
        layer(x, (h, h))


@pytest.mark.parametrize("save", [True, False])
def test_an_lstm_in_bfloat16(save, nearest_bfloat16):
    """By hand: the operands of products are rounded; gates, states and sums are not."""
    layer = make("lstm", dtype=np.float32)
    array, (h0, c0) = inputs(layer)
    x = Tensor(array, requires_grad=save)
    with matmul_precision("bfloat16"):
        y, (h, c) = layer(x, (h0, c0))
    dy = np.random.default_rng(8).standard_normal(y.shape).astype(np.float32)
    found = {"y": y.data, "h": h.data, "c": c.data}
    if save:
        y.backward(dy)
        found |= {"dx": x.grad, "d_ih": layer.weight_ih_l0.grad, "d_hh": layer.weight_hh_l0.grad}
        found |= {"d_bias": layer.bias_hh_l0.grad}

    def by_hand(r):
        w_ih, w_hh, b_ih, b_hh = (
            getattr(layer, f"{name}_l0").data.astype(np.float64)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        xs, d = array.astype(np.float64), dy.astype(np.float64)
        h, c, kept, ys = h0[0].astype(np.float64), c0[0].astype(np.float64), [], []
        for t in range(T):
            z = r(xs[t]) @ r(w_ih).T + b_ih + r(h) @ r(w_hh).T + b_hh
            i, f, g, o = np.split(z, 4, axis=1)
            i, f, g, o = (*(1 / (1 + np.exp(-gate)) for gate in (i, f)), np.tanh(g), o)
            o = 1 / (1 + np.exp(-o))
            new_c = f * c + i * g
            kept.append((h, c, i, f, g, o, new_c))
            h, c = o * np.tanh(new_c), new_c
            ys.append(h)
        dz_of, dh, dc = np.zeros((T, B, 4 * H)), np.zeros((B, H)), np.zeros((B, H))
        for t in reversed(range(T)):
            _, before, i, f, g, o, new_c = kept[t]
            dh = dh + d[t]
            dc = dc + dh * o * (1 - np.tanh(new_c) ** 2)
            parts = (
                dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g),
                dh * np.tanh(new_c) * o * (1 - o),
            )  # fmt: skip
            dz_of[t] = np.concatenate(parts, axis=1)
            dc, dh = dc * f, r(dz_of[t]) @ r(w_hh)
        rows = dz_of.reshape(T * B, -1)
        states = np.array([step[0] for step in kept]).reshape(T * B, H)
        return {
            "y": np.array(ys), "h": h[None], "c": c[None], "dx": r(dz_of) @ r(w_ih),
            "d_ih": r(rows).T @ r(xs).reshape(T * B, I), "d_hh": r(rows).T @ r(states),
            "d_bias": rows.sum(axis=0),
        }  # fmt: skip

    expected, in_float32 = by_hand(nearest_bfloat16), by_hand(lambda x: x)
    for name, value in found.items():
        assert value.dtype == np.float32
        error = np.abs(value - expected[name])
        # A number close to a tie may be rounded to the other side.
        assert error.max() < 2**-8 * np.abs(expected[name]).max(), name
        assert error.mean() < 0.05 * np.abs(expected[name] - in_float32[name]).mean(), name


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", ["lstm", "unfused"])
def test_an_array_stays_the_callers(name, batch_first, recorded):
    layer = make(name, layers=2, batch_first=batch_first)
    x = np.random.default_rng(5).normal(size=(B, T, I) if batch_first else (T, B, I))
    kept = x.copy()
    expected = layer(Tensor(x))[0]
    if recorded:
        y = layer(x)[0]
    else:
        with no_grad():
            y = layer(x)[0]
    x[:] = 0  # writable as before, and nobody reads it any more
    np.testing.assert_array_equal(y.data, expected.data)
    if recorded:
        y.sum().backward()
        found = layer.weight_ih_l0.grad
        layer.zero_grad()
        layer(Tensor(kept))[0].sum().backward()
        np.testing.assert_array_equal(found, layer.weight_ih_l0.grad)
