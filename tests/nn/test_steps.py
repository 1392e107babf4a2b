"""Kinds that run step by step, trainable initial states, initial values of a cell's parameters."""

import copy
import json
import pickle
import re

import numpy as np
import pytest

import anaphora
from anaphora import Tensor, cells, engine, models, nn, plot, random
from anaphora.cells import Cell, cell
from anaphora.equations import EquationError, sigmoid, tanh
from anaphora.nn.states import as_tuple
from anaphora.training import LanguageModelOptions

DTYPES = [np.float32, np.float64]
LENGTHS = np.array([5, 0, 3, 6])


def same(found, expected):
    """Equal bits with the native engine; NumPy's products do not promise them."""
    if engine.info()["engine"] == "native":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def lstm(gates, c):
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(c), c


def norm(x, p, place):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p[f"norm_{place}_weight"] + p[f"norm_{place}_bias"]


def mogrifier(x, states, p):
    h, c = states
    for r in range(1, 6):
        if r % 2:
            x = 2 * logistic(h @ p[f"mogrify_{r}"].T) * x
        else:
            h = 2 * logistic(x @ p[f"mogrify_{r}"].T) * h
    gates = x @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"]
    return lstm(gates, c)


def nested(x, states, p):
    h, c, n = states
    gates = x @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p["bias_hh"]
    i, f, g, o = np.split(gates, 4, axis=-1)
    inner_x, inner_h = logistic(i) * np.tanh(g), logistic(f) * c
    inner = inner_x @ p["inner_weight_ih"].T + p["inner_bias_ih"]
    c, n = lstm(inner + inner_h @ p["inner_weight_hh"].T + p["inner_bias_hh"], n)
    return logistic(o) * np.tanh(c), c, n


def normalized(x, states, p):
    h, c = states
    gates = norm(x @ p["weight_ih"].T, p, "ih") + norm(h @ p["weight_hh"].T, p, "hh") + p["bias"]
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(norm(c, p, "c")), c


def reset_before(x, states, p):
    (h,) = states
    own = x @ p["weight_ih"].T + p["bias_ih"] + p["bias_hh"]
    r, z, n = np.split(p["weight_hh"], 3)
    r, z = logistic(own[:, :4] + h @ r.T), logistic(own[:, 4:8] + h @ z.T)
    n = np.tanh(own[:, 8:] + (r * h) @ n.T)
    return ((1 - z) * n + z * h,)


STEPS = {
    "mogrifier_lstm": mogrifier,
    "nested_lstm": nested,
    "layer_norm_lstm": normalized,
    "gru_reset_before": reset_before,
}


def made(kind, dtype=np.float64, **options):
    random.seed(6)
    layer = nn.Recurrent(kind, 3, 4, dtype=dtype, **options)
    rng = np.random.default_rng(1)
    for parameter in layer.parameters():  # also norms and initial states
        with parameter.writing() as array:
            array[...] = rng.uniform(-0.9, 0.9, array.shape)
    return layer


def test_every_kind_is_tested():
    assert set(STEPS) == set(nn.KINDS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", STEPS)
def test_steps_are_the_equations(kind, dtype):
    layer = made(kind, dtype, num_layers=2)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 2, 3)).astype(dtype)
    states = [rng.normal(size=(2, 2, 4)).astype(dtype) for _ in layer.state_shapes()]
    y, final = layer(x, tuple(states))
    expected = x.astype(np.float64)
    for k in range(2):
        p = {n.removesuffix(f"_l{k}"): v.data for n, v in layer.named_parameters() if f"_l{k}" in n}
        current, outputs = tuple(s[k] for s in states), []
        for step in expected:
            current = STEPS[kind](step, current, p)
            outputs.append(current[0])
        expected = np.array(outputs)
        for one, other in zip(as_tuple(final), current, strict=True):
            np.testing.assert_allclose(one.data[k], other, rtol=2e-4, atol=1e-6)
    rtol = 2e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(y.data, expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("kind", STEPS)
def test_gradients(kind, check_gradients):
    layer = made(kind, num_layers=1, bidirectional=True)
    shapes = layer.state_shapes(2)
    rng = np.random.default_rng(3)
    names = [name for name, _ in layer.named_parameters()]
    arrays = [rng.normal(size=(4, 2, 3)), *(rng.normal(size=s) for s in shapes.values())]
    weights = [p.data.copy() for p in layer.parameters()]

    def run(x, *others):
        states, parameters = others[: len(shapes)], others[len(shapes) :]
        twin = copy.deepcopy(layer).to(x.dtype)
        for name, values in zip(names, parameters, strict=True):
            vars(twin)[name] = values if isinstance(values, Tensor) else Tensor(values)
        return twin(x, tuple(states), lengths=[4, 2])[0]

    check_gradients(run, *arrays, *weights)


@pytest.mark.parametrize("kind", STEPS)
def test_ragged_batches_sessions_and_records(kind):
    layer = made(kind, np.float32, num_layers=2, bidirectional=True)
    x = np.random.default_rng(2).normal(size=(6, 4, 3)).astype(np.float32)
    x[np.arange(6)[:, None] >= LENGTHS] = np.nan
    y, final = layer(x, lengths=LENGTHS)
    recorded = layer.record(x, lengths=LENGTHS)[2]
    assert recorded.keys() >= {f"{n}_l0{s}" for n in layer.state_shapes() for s in ("", "_reverse")}
    same(recorded["h_l1"], y.data[..., :4])
    for b, n in enumerate(LENGTHS):
        alone, after = layer(x[:n, b])
        same(y.data[:n, b], alone.data)
        assert not y.data[n:, b].any()
        for one, other in zip(as_tuple(final), as_tuple(after), strict=True):
            same(one.data[:, b], other.data)
    assert layer.record(x[:0])[2]["h_l1"].shape == (0, 4, 4)

    layer = made(kind, np.float32, num_layers=2)
    x = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    session = layer.session()
    found = [session.feed(step) for step in x]
    same(found, layer(x)[0].data)


@pytest.mark.parametrize("kind", STEPS)
def test_models_of_these_kinds_are_saved_loaded_and_streamed(kind, tmp_path):
    random.seed(2)
    model = models.LanguageModel(vocabulary_size=7, cell=kind, hidden_size=6, num_layers=2)
    model.save(tmp_path / "model")
    found = anaphora.load(tmp_path / "model")
    assert found.options == model.options
    assert found.recurrent.kind.name == kind
    ids = np.random.default_rng(1).integers(0, 7, (5, 1))
    expected = model.eval()(ids)[0].data
    same(found(ids)[0].data, expected)
    session = found.session()
    same([session.feed(i) for i in ids[:, 0]], expected[:, 0])
    models.quantize(tmp_path / "model", tmp_path / "small")
    small = anaphora.load(tmp_path / "small")
    np.testing.assert_allclose(small(ids)[0].data, expected, atol=0.2)
    assert LanguageModelOptions.make(cell=kind).forget_bias is None


@pytest.mark.parametrize("kind", STEPS)
def test_vectors_make_the_states_of_these_kinds(kind):
    random.seed(2)
    model = models.VectorToSequence(3, 7, cell=kind, hidden_size=4).eval()
    x, ids = np.random.default_rng(1).normal(size=(2, 3)), np.array([[0, 0], [5, 6]])
    state = np.tanh(x @ model.initial.weight.data.T + model.initial.bias.data)
    states = tuple(one[None].astype("f") for one in np.split(state, state.shape[1] // 4, axis=1))
    decoder = model.decoder
    y, _ = decoder.recurrent(decoder.embedding(ids), states if len(states) > 1 else states[0])
    expected = decoder.output(y).data
    np.testing.assert_allclose(model(x, ids)[0].data, expected, rtol=1e-4, atol=1e-6)


def test_initialization_of_kinds():
    random.seed(1)
    layer = nn.Recurrent("layer_norm_lstm", 3, 4, initialization="orthogonal")
    np.testing.assert_array_equal(layer.norm_c_weight_l0.data, 1)
    np.testing.assert_array_equal(layer.norm_ih_bias_l0.data, 0)
    np.testing.assert_array_equal(layer.bias_l0.data, 0)
    block = layer.weight_hh_l0.data[4:8]
    np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-6)
    layer = nn.Recurrent(nn.MogrifierLSTM(rounds=0), 3, 4)
    plain = nn.LSTM(3, 4)
    plain.load_state_dict(layer.state_dict())
    x = np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(x)[0].data, plain(x)[0].data, rtol=1e-5, atol=1e-6)
    layer = nn.Recurrent("mogrifier_lstm", 3, 4, initialization=0.25)
    assert 0.2 < np.abs(layer.mogrify_2_l0.data).max() <= 0.25
    with pytest.raises(ValueError, match="layers of 'nested_lstm' do not support zoneout; omit it"):
        nn.Recurrent("nested_lstm", 3, 4, zoneout=0.1)
    assert pickle.loads(pickle.dumps(layer)).kind.rounds == 5


# Trainable initial states


@pytest.mark.parametrize("kind", ["gru", "lstm", "peephole_lstm", "nested_lstm"])
def test_trained_initial_states_are_those_of_calls_and_sessions(kind):
    layer = made(kind, np.float32, num_layers=2, bidirectional=True, trainable_state=True)
    names = list(layer.state_shapes())
    assert {f"initial_{names[-1]}_l1_reverse", "initial_h_l0"} <= layer.state_dict().keys()
    states = tuple(
        np.stack([np.tile(getattr(layer, f"initial_{n}{s}").data, (3, 1))
                  for s in ("_l0", "_l0_reverse", "_l1", "_l1_reverse")])
        for n in names
    )  # fmt: skip
    x = np.random.default_rng(4).normal(size=(5, 3, 3)).astype(np.float32)
    lengths = [5, 0, 2]
    y, final = layer(x, lengths=lengths)
    given = states if len(states) > 1 else states[0]
    other, after = layer(x, given, lengths=lengths)
    same(y.data, other.data)
    for one, two, start in zip(as_tuple(final), as_tuple(after), states, strict=True):
        same(one.data, two.data)
        same(one.data[:, 1], start[:, 1])  # no step
    one = layer.to(np.float64)
    one(x[:, 0])[0].sum().backward()
    found = one.initial_h_l0_reverse.grad
    epsilon, loss = 1e-6, []
    for sign in (1, -1):
        moved = copy.deepcopy(one)
        with moved.initial_h_l0_reverse.writing() as array:
            array[2] += sign * epsilon
        loss.append(moved(x[:, 0])[0].data.sum())
    np.testing.assert_allclose(found[2], (loss[0] - loss[1]) / (2 * epsilon), rtol=1e-6)

    layer = made(kind, np.float32, num_layers=2, trainable_state=True)
    session = layer.session()
    for _ in range(2):
        found = [session.feed(step) for step in x[:, 0]]
        same(found, layer(x[:, 0])[0].data)
        session.state = None
    batch = layer.session(batch_size=3)
    same(batch.feed(x), layer(x)[0].data)


def test_initial_states_start_at_zero_and_are_trained():
    random.seed(1)
    layer = nn.LSTM(3, 4, trainable_state=True)
    plain = nn.LSTM(3, 4)
    assert plain.load_state_dict(layer.state_dict(), strict=False).unexpected_keys == [
        "initial_h_l0", "initial_c_l0"
    ]  # fmt: skip
    x = np.ones((5, 2, 3), np.float32)
    np.testing.assert_array_equal(layer(x)[0].data, plain(x)[0].data)
    optimizer = anaphora.optim.SGD(layer.parameters(), 1.0)
    layer(x)[0].sum().backward()
    optimizer.step()
    assert layer.initial_c_l0.data.all()
    assert "trainable_state=True" in repr(layer)
    layer.reset_parameters()
    assert not layer.initial_c_l0.data.any()


# Initial values of a cell's own parameters


@cell(gates="f n", state="h", parameters="p q", initial={"p": 1.5})
def biased(f, n, h, p, q):
    f = sigmoid(f + p)
    return f * h + (1 - f) * tanh(n + q * h)


def test_a_cells_parameters_start_as_declared():
    for options in ({}, {"initialization": "xavier"}, {"initialization": 0.1, "zoneout": 0.2}):
        layer = nn.Recurrent(biased, 3, 4, num_layers=2, **options)
        np.testing.assert_array_equal(layer.p_l1.data, 1.5)
        assert not (layer.q_l1.data == 1.5).any()
    np.testing.assert_array_equal(nn.RecurrentCell(biased, 3, 4).p.data, 1.5)
    assert cells.zoneout(biased).initial == {"p": 1.5}
    data = json.loads(json.dumps(biased.to_dict()))
    again = Cell.from_dict(data)
    assert again.initial == {"p": 1.5}
    np.testing.assert_array_equal(nn.Recurrent(again, 3, 4).p_l0.data, 1.5)
    assert pickle.loads(pickle.dumps(again)).initial == {"p": 1.5}
    assert "initial" not in cells.peephole_lstm.to_dict()  # files stay as they were
    with pytest.raises(ValueError, match=r"cell: .*initial has 'z', which is not one of the param"):
        Cell.from_dict({**data, "initial": {"z": 1.0}})
    for initial, message in (
        ({"z": 1}, "initial has 'z', which is not one of the parameters: p"),
        ({"p": "1"}, "initial['p'] must be a number, not '1'"),
        ({"p": float("nan")}, "initial['p'] must be a finite float32, not nan"),
    ):
        with pytest.raises(EquationError, match=re.escape(message)):
            cell(gates="a", state="h", parameters="p", initial=initial)(lambda a, h, p: a * h * p)


@pytest.mark.parametrize("kind", STEPS)
def test_states_of_these_kinds_are_plotted_and_told_from_gates(kind):
    layer = made(kind, np.float32)
    x = np.ones((5, 2, 3), np.float32)
    figure = plot.states(layer, x)
    assert sorted(figure.data) == sorted(f"{name}_l0" for name in layer.state_shapes())
    if kind == "gru_reset_before":  # whose gates are those of a cell
        assert sorted(plot.gates(layer, x).data) == ["n_l0", "r_l0", "z_l0"]
        return
    with pytest.raises(ValueError, match=rf"gates: the gates of the cell '{kind}' have no names"):
        plot.gates(layer, x)
