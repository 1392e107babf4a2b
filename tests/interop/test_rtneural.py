"""RTNeural's JSON, read by its rules in NumPy: it computes what a session computes."""

import json

import numpy as np
import pytest

from anaphora import interop, models, nn
from anaphora.cells import cell
from anaphora.data import RegressorCodec
from anaphora.equations import sigmoid, tanh


def randomized(model, seed=0):
    """A model with random parameters, biases too."""
    generator = np.random.default_rng(seed)
    for parameter in model.parameters():
        with parameter.writing() as array:
            array[...] = generator.standard_normal(array.shape) * 0.3
    return model.eval()


def read(path):
    """A model as RTNeural's parseJson reads it: a function of one step [I] of a sequence.

    After RTNeural/model_loader.h: a layer's size is the last number of its shape; "activation" is
    that of a dense layer, and is ignored for LSTM and GRU, whose weights are Keras's.
    """
    data = json.loads(path.read_text("utf-8"))
    assert set(data) == {"in_shape", "layers"}
    size = data["in_shape"][-1]
    steps = []
    for layer in data["layers"]:
        weights, out = layer["weights"], layer["shape"][-1]
        steps.append(LOADERS[layer["type"]](size, out, weights, layer["activation"]))
        size = out

    def step(x):
        for one in steps:
            x = one(x)
        return x

    return step


def logistic(x):
    return 1 / (1 + np.exp(-x))


def load_lstm(size, out, weights, activation):
    """Gates i f c o."""
    kernel, recurrent, bias = map(np.array, weights)
    assert (kernel.shape, recurrent.shape, bias.shape) == (
        (size, 4 * out),
        (out, 4 * out),
        (4 * out,),
    )
    state = {"h": np.zeros(out), "c": np.zeros(out)}

    def step(x):
        i, f, c, o = np.split(x @ kernel + state["h"] @ recurrent + bias, 4)
        state["c"] = logistic(f) * state["c"] + logistic(i) * np.tanh(c)
        state["h"] = logistic(o) * np.tanh(state["c"])
        return state["h"]

    return step


def load_gru(size, out, weights, activation):
    """Gates z r h; biases [2, 3 H], the input's first."""
    kernel, recurrent, bias = map(np.array, weights)
    assert (kernel.shape, recurrent.shape, bias.shape) == (
        (size, 3 * out),
        (out, 3 * out),
        (2, 3 * out),
    )
    state = {"h": np.zeros(out)}

    def step(x):
        zx, rx, hx = np.split(x @ kernel + bias[0], 3)
        zh, rh, hh = np.split(state["h"] @ recurrent + bias[1], 3)
        z, r = logistic(zx + zh), logistic(rx + rh)
        state["h"] = (1 - z) * np.tanh(hx + r * hh) + z * state["h"]
        return state["h"]

    return step


def load_dense(size, out, weights, activation):
    """W[i][j] is from input i to output j."""
    weight, bias = map(np.array, weights)
    assert (weight.shape, bias.shape) == ((size, out), (out,))

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    functions = {"": lambda x: x, "softmax": softmax, "sigmoid": logistic}
    return lambda x: functions[activation](x @ weight + bias)


LOADERS = {"lstm": load_lstm, "gru": load_gru, "dense": load_dense}


@cell(gates="i f g o", state="h c")
def same_as_lstm(i, f, g, o, h, c):
    """The equations of an LSTM under another name."""
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = f * c + i * g
    h = o * tanh(c)
    return h, c


def scaled_regressor():
    model = models.SequenceRegressor(2, hidden_size=6, input_size=3, cell="gru", num_layers=2)
    model.codec = RegressorCodec(
        ("a", "b"), np.array([3.0, -2.0]), np.array([0.5, 4.0]),
        mean=np.array([5.0, -1.0, 100.0]), scale=np.array([2.0, 0.25, 30.0]),
    )  # fmt: skip
    return model


MODELS = {
    "lstm": lambda: nn.LSTM(3, 5, num_layers=2),
    "gru": lambda: nn.GRU(2, 7),
    "no biases": lambda: nn.GRU(2, 3, bias=False),
    "lstm without biases": lambda: nn.LSTM(2, 3, bias=False),
    "amplifier": lambda: models.SequenceRegressor(1, hidden_size=9, input_size=1),
    "units": scaled_regressor,
    "classes": lambda: models.SequenceClassifier(4, hidden_size=5, input_size=2),
    "labels": lambda: models.SequenceClassifier(4, hidden_size=5, input_size=2, multi_label=True),
    "tags": lambda: models.SequenceTagger(3, hidden_size=5, input_size=2, num_layers=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_read_by_its_rules_it_computes_the_same(name, tmp_path):
    model = randomized(MODELS[name]())
    written = interop.export(model, tmp_path / "amp.json", "rtneural")
    step = read(tmp_path / "amp.json")
    recurrent = model if isinstance(model, nn.Recurrent) else model.recurrent
    x = np.random.default_rng(1).standard_normal((200, recurrent.input_size)).astype(np.float32)
    if name == "units":
        x = (x * model.codec.scale + model.codec.mean).astype(np.float32)
    expected = np.asarray(model.session().feed(x))
    found = np.array([step(one.astype(np.float64)) for one in x])
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < (2e-5 if name == "units" else 3e-6)
    assert written.record["layers"] == [
        layer["type"] for layer in json.loads((tmp_path / "amp.json").read_text())["layers"]
    ]


def test_equal_equations_are_an_lstm_under_any_name(tmp_path):
    ours = randomized(nn.Recurrent(same_as_lstm, 2, 3))
    interop.export(ours, tmp_path / "a.json")
    interop.export(randomized(nn.LSTM(2, 3)), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_8_bits_are_written_as_the_numbers_that_they_stand_for(tmp_path):
    model = randomized(nn.LSTM(3, 5)).use_int8()
    interop.export(model, tmp_path / "amp.json")
    kernel = np.array(json.loads((tmp_path / "amp.json").read_text())["layers"][0]["weights"][0])
    largest = np.abs(kernel).max(axis=0)
    integers = kernel / (largest / 127)
    assert np.abs(integers - np.rint(integers)).max() < 1e-2
    assert not np.allclose(kernel.T, model.weight_ih_l0.data, atol=1e-5)
    assert np.abs(kernel.T - model.weight_ih_l0.data).max() < largest.max() / 127


REFUSED = {
    "tokens": (lambda: models.LanguageModel(9, hidden_size=4), "language model reads tokens"),
    "pooling": (
        lambda: models.SequenceRegressor(1, hidden_size=4, input_size=1, pooling="mean"),
        "sequence regressor has the pooling 'mean'; expected 'last'",
    ),
    "layer norms": (lambda: nn.LSTM(1, 4, layer_norm=True), "the LSTM stack has layer norms"),
    "projections": (lambda: nn.LSTM(1, 4, proj_size=2), "has projections"),
    "zoneout": (lambda: nn.GRU(1, 4, zoneout=0.1), "layers of 'gru' with zoneout"),
    "another cell": (lambda: nn.RNN(1, 4), "layers of 'rnn'; expected lstm or gru"),
    "both directions": (lambda: nn.LSTM(1, 4, bidirectional=True), "LSTM is bidirectional"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_rtneural_has_no_layer_for_is_refused(what, tmp_path):
    make, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        interop.export(make(), tmp_path / "amp.json")
    assert not list(tmp_path.iterdir())
