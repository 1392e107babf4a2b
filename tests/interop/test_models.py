"""Layers and states of others as our models: outputs stay the same."""

import re
import sys

import numpy as np
import pytest
import safetensors.numpy

import anaphora
from anaphora import interop, nn, random
from anaphora.artifact import ArtifactError
from anaphora.cells import Cell
from anaphora.interop.cells import lstm_cell, rnn_cell
from anaphora.interop.layers import (
    MaskedRecurrent,
    MaskingEmbedding,
    Pooling,
    ResetBefore,
    function,
)
from anaphora.interop.models import from_layers, from_state, read_safetensors
from anaphora.models import LanguageModel, SequenceClassifier, SequenceRegressor, SequenceTagger
from anaphora.tensor import Tensor

V, T, B, I, H = 11, 7, 4, 3, 5


@pytest.fixture(autouse=True)
def seed():
    random.seed(5)


def ids():
    found = np.random.default_rng(3).integers(1, V, (T, B))
    lengths = np.array([7, 3, 1, 5])
    found[np.arange(T)[:, None] >= lengths] = 0
    return found, lengths


def recurrent(*sizes, sequences=True, cell="gru", **options):
    return MaskedRecurrent(
        nn.Recurrent(cell, *sizes, **options), return_sequences=sequences, dropout=0.1
    )


def run(layers, x):
    """The layers one after the other, on [B, T, ...]."""
    mask = None
    for layer in layers.values():
        if isinstance(layer, MaskedRecurrent):
            x, mask, _ = layer(x, mask)
        elif isinstance(layer, MaskingEmbedding | Pooling):
            x, mask = layer(x, mask)
        else:
            x = layer(x)
    return x.data


def named(*layers):
    for layer in layers:
        layer.eval()
    return {f"l{k}": layer for k, layer in enumerate(layers)}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_classifiers(pooling):
    layers = named(
        MaskingEmbedding(nn.Embedding(V, I)),
        recurrent(I, H, bidirectional=True),
        nn.Dropout(0.3),
        recurrent(2 * H, H, bidirectional=True, sequences=pooling != "last"),
        *([] if pooling == "last" else [Pooling(pooling)]),
        nn.Linear(2 * H, 3, bias=False),
        function("softmax"),
    )
    model = from_layers(layers)
    assert type(model) is SequenceClassifier
    assert not model.training
    assert (model.pooling, model.num_layers, model.dropout) == (pooling, 2, 0.3)
    x, lengths = ids()
    np.testing.assert_allclose(
        softmax(model(x, lengths).data), run(layers, x.T), rtol=1e-5, atol=1e-6
    )


def test_regressors_of_features_and_any_cell():
    cell = lstm_cell(("softsign", ()), ("hard_sigmoid", (0.2,)))
    layers = named(recurrent(I, H, sequences=False, cell=cell, bias=False), nn.Linear(H, 2))
    model = from_layers(layers)
    assert type(model) is SequenceRegressor
    assert isinstance(model.cell, Cell)
    x = np.random.default_rng(3).normal(size=(T, B, I)).astype("f")
    np.testing.assert_allclose(model(x).data, run(layers, x.swapaxes(0, 1)), rtol=1e-5, atol=1e-6)


def test_labels_and_tags_and_language_models():
    layers = named(nn.Embedding(V, I), recurrent(I, H, sequences=False), nn.Linear(H, 1))
    model = from_layers({**layers, "last": function("sigmoid")})
    assert model.multi_label
    layers = named(nn.Embedding(V, I), recurrent(I, H), nn.Linear(H, 2), function("softmax"))
    tagger = from_layers(layers)
    assert type(tagger) is SequenceTagger
    x, _ = ids()
    expected = run(layers, x.T).swapaxes(0, 1)
    np.testing.assert_allclose(softmax(tagger(x)[0].data), expected, rtol=1e-5, atol=1e-6)
    layers = named(nn.Embedding(V, I), nn.GRU(I, H, 2), nn.Linear(H, V))
    model = from_layers(layers)
    assert type(model) is LanguageModel
    assert type(from_layers(layers, "tag")) is SequenceTagger


RELU = ("relu", ())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(I, H)], "layer 'l0' (Linear) is not where a model has one: embedding, recurr"),
        ([nn.Conv1d(I, H, 3), nn.GRU(H, 2)], "layer 'l0' (Conv1d) is not where a model has one"),
        ([nn.GRU(I, H)], "no linear layer after it"),
        ([nn.GRU(I, H), nn.LSTM(H, H), nn.Linear(H, 2)], "its recurrent layers differ in their c"),
        ([nn.GRU(I, H), nn.GRU(H, 2), nn.Linear(2, 2)], "its recurrent layers differ"),
        ([nn.LSTM(I, H, proj_size=2), nn.Linear(2, 2)], "layer 'l0' has a projection"),
        (
            [nn.Recurrent(ResetBefore(RELU), I, H), nn.Linear(H, 2)],
            "is a gru_reset_before_relu_sigmoi",
        ),
        ([nn.GRU(I, H), nn.Linear(H, 2), function("tanh")], "its last activation is tanh"),
        ([nn.GRU(I, H), nn.Linear(H, 2)], "it does not say what its 2 outputs are; give the task"),
        (
            [MaskedRecurrent(nn.GRU(I, H), go_backwards=True), nn.Linear(H, 2)],
            "layer 'l0' goes backwards, or does not",
        ),
    ],
)
def test_what_is_no_model_is_told(layers, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_layers(named(*layers))


def test_tasks_that_do_not_fit_are_told():
    layers = named(nn.Embedding(V, I), recurrent(I, H, sequences=False), nn.Linear(H, 2))
    with pytest.raises(
        ValueError, match="the task tag predicts at each step, but the network once"
    ):
        from_layers(layers, "tag")
    with pytest.raises(ValueError, match="the task 'sing' is not one of language-model, tag, clas"):
        from_layers(layers, "sing")
    layers = named(nn.Embedding(V, I), nn.GRU(I, H), nn.Linear(H, 2))
    with pytest.raises(ValueError, match="a language model has an embedding, as many outputs as"):
        from_layers(layers, "language-model")
    with pytest.raises(ValueError, match="the task classify predicts once per sequence, but the n"):
        from_layers(layers, "classify")


# States -------------------------------------------------------------------------------------------


def state_of(**modules):
    return {f"{k}.{n}": a for k, m in modules.items() for n, a in m.state_dict().items()}


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("H", [H, 4])
def test_states(kind, bidirectional, H):
    """Whether or not the embedding is as wide as what the linear layer reads."""
    I, D = (8, 2) if bidirectional else (4, 1)
    table = nn.Embedding(V, I)
    layer = nn.Recurrent(kind, I, H, 2, bidirectional=bidirectional)
    output = nn.Linear(D * H, 3)
    state = state_of(**{"module.words": table, "module.body": layer, "module.fc": output})
    model = from_state(state, "classify")
    x, lengths = ids()
    _, final = layer(table(x), lengths=lengths)
    h = final[0] if kind == "lstm" else final
    last = np.concatenate([*h.data[-D:]], axis=-1)
    np.testing.assert_allclose(model(x, lengths).data, output(last).data, rtol=1e-5, atol=1e-6)


def test_states_of_language_models():
    for options in ({}, {"tied": True}):
        source = LanguageModel(V, hidden_size=H, num_layers=2, **options).eval()
        model = from_state(source.state_dict())
        assert type(model) is LanguageModel
        assert model.tied == bool(options)
        x, _ = ids()
        np.testing.assert_array_equal(model(x)[0].data, source(x)[0].data)
    separate = state_of(emb=nn.Embedding(V, I), a=nn.GRU(I, H), b=nn.GRU(H, H), out=nn.Linear(H, V))
    assert from_state(separate).num_layers == 2
    bare = state_of(emb=nn.Embedding(V, I), a=nn.GRU(I, H), out=nn.Linear(H, V, bias=False))
    assert not from_state(bare).output.bias.data.any()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (state_of(fc=nn.Linear(3, 2)), "it has no recurrent layer (weight_ih_l0, ...): fc.weight"),
        (state_of(a=nn.GRU(I, H)), "one linear layer, and perhaps an embedding, and nothing e"),
        (
            state_of(a=nn.GRU(I, H), fc=nn.Linear(H, 2), fd=nn.Linear(H, 2)),
            "one linear layer, and perhaps an embedding, and nothing else; it has fc.weight [2, 5]",
        ),
        (
            state_of(a=nn.GRU(I, H), fc=nn.Linear(H, 2), norm=nn.LayerNorm(H)),
            "and nothing else; it has fc.weight [2, 5], fc.bias [2], norm.weight [5]",
        ),
        ({"weight_ih_l0": np.ones((8, 3))}, "the recurrent layer lacks weight_ih_l0 or weight_hh"),
        (
            {"a.weight_ih_l0": np.ones((10, 3)), "a.weight_hh_l0": np.ones((10, 5))},
            "a is not an RNN, LSTM or GRU by its shapes",
        ),
        (
            {"a.weight_ih_l0": np.ones((15, 3)), "a.weight_hh_l0": np.ones((14, 5))},
            "a: weight_hh_l0 should be [15, 5]",
        ),
        (
            {"a.weight_ih_l0": np.ones((15, 3)), "a.weight_hh_l0": np.ones((15, 5)),
             "a.weight_ih_l2": np.ones((15, 5))},
            "a: weight_ih_l1 should be [15, 5]",
        ),
        (
            {**state_of(a=nn.GRU(I, H)), "weight": np.full((2, H), np.nan), "bias": np.ones(2)},
            "output.weight has numbers that are not finite",
        ),
    ],
)  # fmt: skip
def test_states_of_something_else_are_told(state, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_state(state, "classify")


def test_files(tmp_path):
    source = LanguageModel(V, hidden_size=H).eval()
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(source.state_dict(), path)
    model = interop.read(path)
    x, _ = ids()
    np.testing.assert_array_equal(model(x)[0].data, source(x)[0].data)
    model.save(tmp_path / "model", imported="here")
    np.testing.assert_array_equal(anaphora.load(tmp_path / "model")(x)[0].data, source(x)[0].data)
    with pytest.raises(ValueError, match=r"model\.safetensors: the task 'sing'"):
        interop.read(path, "sing")
    with pytest.raises(ValueError, match=r"model\.safetensors: needs no configuration; omit it"):
        interop.read(path, None, tmp_path)
    with pytest.raises(ArtifactError, match=r"model\.pb: its name must end with \.keras, \.h5"):
        interop.read(tmp_path / "model.pb")


def test_narrow_safetensors_are_widened(tmp_path):
    array = np.random.default_rng(1).normal(size=(3, 2)).astype("f")
    bits = (array.view(np.uint32) >> 16).astype("<u2")
    header = b'{"a":{"dtype":"BF16","shape":[3,2],"data_offsets":[0,12]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())
    found = read_safetensors(path)["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), bits.astype(np.uint32) << 16)
    safetensors.numpy.save_file({"a": array.astype(np.float16)}, path)
    np.testing.assert_array_equal(read_safetensors(path)["a"], array.astype("f2").astype("f"))
    safetensors.numpy.save_file({"a": np.arange(3)}, path)
    with pytest.raises(ArtifactError, match="'a' is of I64; expected floats"):
        read_safetensors(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ArtifactError, match="is not a readable safetensors file"):
        read_safetensors(path)


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("model.keras", "h5py", 'Keras files need an extra: pip install "anaphora.keras."'),
        ("model.pt", "torch", "this needs PyTorch: pip install torch"),
    ],
)
def test_peers_that_are_missing_are_named(name, missing, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ImportError, match=message):
        interop.read(tmp_path / name)


# Layers -------------------------------------------------------------------------------------------


def test_functions_of_cells_and_tensors_are_the_same_ones():
    x = np.linspace(-4, 4, 41)
    for name, options in [("elu", (0.7,)), ("hard_silu", (0.2,)), ("clipped", (-1.0, 2.0))]:
        layer = nn.Recurrent(rnn_cell((name, options)), 1, 1, dtype=np.float64)
        layer.load_state_dict(
            {k: np.ones_like(p) if k == "weight_ih_l0" else 0 * p for k, p in
             layer.state_dict().items()}
        )  # fmt: skip
        y, _ = layer(x[None, :, None])
        np.testing.assert_allclose(y.data[0, :, 0], function(name, *options)(Tensor(x)).data)
    with pytest.raises(ValueError, match="activation 'cube' is not one of linear, tanh"):
        function("cube")


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_reset_before_the_product(bidirectional, check_gradients, rng):
    """Against its equations, step by step; with lengths and initial states."""
    layer = nn.Recurrent(ResetBefore(), I, H, bidirectional=bidirectional, dtype=np.float64)
    x, lengths, D = rng.normal(size=(T, B, I)), np.array([7, 3, 0, 5]), 1 + bidirectional
    initial = rng.normal(size=(D, B, H))
    y, h = layer(x, initial, lengths=lengths)
    weights = layer.state_dict()
    for d, suffix in enumerate(("_l0", "_l0_reverse")[:D]):
        W, R, b, c = (weights[n + suffix] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        for row, length in enumerate(lengths):
            state = initial[d, row]
            for t in range(length)[:: -1 if d else 1]:
                a, own = W @ x[t, row] + b, R @ state + c
                r, z = (1 / (1 + np.exp(-(a + own)[k * H : k * H + H])) for k in (0, 1))
                n = np.tanh(a[2 * H :] + R[2 * H :] @ (r * state) + c[2 * H :])
                state = (1 - z) * n + z * state
                np.testing.assert_allclose(y.data[t, row, d * H : (d + 1) * H], state, atol=1e-12)
            np.testing.assert_allclose(h.data[d, row], state, atol=1e-12)
            assert not y.data[length:, row].any()

    single = nn.Recurrent(ResetBefore(), I, H, bidirectional=bidirectional)
    single.load_state_dict(weights)

    def of_either_dtype(x, h):
        return (single if x.dtype == np.float32 else layer)(x, h, lengths=lengths)

    check_gradients(of_either_dtype, x, initial)
    layer.zero_grad()
    cotangent = rng.normal(size=y.shape)
    (layer(x, initial, lengths=lengths)[0] * cotangent).sum().backward()
    for name, parameter in layer.named_parameters():
        found, direction = parameter.grad, rng.normal(size=parameter.shape)
        values = []
        for sign in (1, -1):
            layer.load_state_dict({**weights, name: weights[name] + sign * 1e-6 * direction})
            values.append((layer(x, initial, lengths=lengths)[0].data * cotangent).sum())
        layer.load_state_dict(weights)
        numeric = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose((found * direction).sum(), numeric, rtol=1e-5, atol=1e-7)


def test_a_reset_before_the_product_becomes_a_model():
    layers = named(
        nn.Embedding(V, I), recurrent(I, H, cell=ResetBefore(), bidirectional=True),
        recurrent(2 * H, H, cell="gru_reset_before", bidirectional=True), nn.Linear(2 * H, 2),
    )  # fmt: skip
    model = from_layers(layers, "tag")
    assert (model.cell, model.num_layers) == ("gru_reset_before", 2)
    x, _ = ids()
    expected = run(layers, x.T).swapaxes(0, 1)
    np.testing.assert_allclose(model(x)[0].data, expected, rtol=1e-5, atol=1e-6)


def test_what_a_reset_before_the_product_records(rng):
    layer = nn.Recurrent(ResetBefore(), I, H, bidirectional=True)
    x = rng.normal(size=(T, B, I)).astype("f")
    y, _, gates = layer.record(x)
    assert sorted(gates) == sorted(f"{n}_l0{s}" for n in "rznh" for s in ("", "_reverse"))
    h = np.concatenate([gates["h_l0"], gates["h_l0_reverse"]], -1)
    np.testing.assert_array_equal(h, y.data)
    before = np.concatenate([np.zeros((1, B, H), "f"), gates["h_l0"][:-1]])
    z, n = gates["z_l0"], gates["n_l0"]
    np.testing.assert_allclose(gates["h_l0"], (1 - z) * n + z * before, rtol=1e-5, atol=1e-6)
    session = nn.Recurrent(ResetBefore(), I, H).session()
    assert session.feed(x[0, 0]).shape == (H,)
