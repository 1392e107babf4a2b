"""ONNX out and in again is the identity, for layers and for every model."""

import functools
import json

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx

from anaphora import cells, models, nn
from anaphora.cells import cell
from anaphora.data import CharacterTokenizer
from anaphora.equations import exp, maximum, sigmoid, tanh
from anaphora.interop.onnx import OnnxError, load, load_model, save
from anaphora.interop.onnx.exporting import computed, random_inputs
from anaphora.interop.signatures import signatures
from anaphora.tensor import no_grad

I, H, L = 3, 5, 2


@cell(gates="u v", state="s m", parameters="k")
def own(u, v, s, m, k):
    """A cell that no operator of the standard computes."""
    u, v = sigmoid(u), tanh(v.x + k * v.h)
    m = maximum(m + u, -0.5 * s)
    s = exp(-m * m) * s + u * v
    return s, m


LAYERS = {
    **{
        f"{name}-{directions}": functools.partial(
            nn.Recurrent, name, I, H, num_layers=L, bidirectional=directions == 2
        )
        for name in cells.CELLS
        for directions in (1, 2)
    },
    "own": functools.partial(nn.Recurrent, own, I, H, L, bidirectional=True),
    "projection": functools.partial(nn.LSTM, I, H, proj_size=2),
    "layer norm": functools.partial(nn.LSTM, I, H, L, layer_norm=True),
    "zoneout": functools.partial(nn.GRU, I, H, zoneout=0.3),
    "no bias": functools.partial(nn.GRU, I, H, L, bias=False),
    "convolution": functools.partial(nn.Conv1d, I, H, 3, padding="same"),
}
MODELS = {
    "language model": functools.partial(
        models.LanguageModel, vocabulary_size=11, hidden_size=H, num_layers=L, tied=True
    ),
    "own cell": functools.partial(
        models.LanguageModel, vocabulary_size=7, hidden_size=H, cell=own
    ),
    "coupled gates": functools.partial(
        models.LanguageModel, vocabulary_size=7, hidden_size=H, cell="coupled_lstm"
    ),
    "tagger": functools.partial(
        models.SequenceTagger, num_tags=3, hidden_size=H, vocabulary_size=9, num_characters=6,
        bidirectional=True, layer_norm=True,
    ),
    "tagger with a CRF": functools.partial(
        models.SequenceTagger, num_tags=3, hidden_size=H, vocabulary_size=9, crf=True
    ),
    "classifier": functools.partial(
        models.SequenceClassifier, num_classes=3, input_size=I, hidden_size=H, num_layers=L,
        pooling="max",
    ),
    "reset before": functools.partial(
        models.LanguageModel, vocabulary_size=9, hidden_size=H, num_layers=L,
        cell="gru_reset_before",
    ),
    "regressor": functools.partial(
        models.SequenceRegressor, num_outputs=2, vocabulary_size=9, hidden_size=H, cell="gru"
    ),
    "forecaster": functools.partial(
        models.Forecaster, hidden_size=H, context=6, lags=(1, 2, 5), target_size=2, feature_size=3,
        linear_features=2, typical_scale=(2.0, 0.5), autoregressive=True,
    ),
    "encoder-decoder": functools.partial(
        models.EncoderDecoder, source_vocabulary_size=9, vocabulary_size=10, hidden_size=6,
        num_layers=L,
    ),
    "vector to sequence": functools.partial(
        models.VectorToSequence, input_size=I, vocabulary_size=10, hidden_size=H
    ),
}  # fmt: skip


def randomized(module):
    """Random numbers for every parameter: biases and peepholes too."""
    r = np.random.default_rng(1)
    for parameter in module.parameters():
        with parameter.writing() as array:
            array[...] = 0.7 * r.standard_normal(array.shape)
    return module.eval()


def assert_same(module, folder):
    """The graphs that a module is written as compute what it computes, in every function of it."""
    files = save(module, folder / "model.onnx").record["files"]
    for function, record in zip(signatures(module), files, strict=True):
        graph = load(record["out"])
        for seed in (0, 1, 2):
            inputs = random_inputs(function.inputs, function.smallest, seed)
            expected = computed(function, module, inputs)
            with no_grad():
                results = graph(**inputs)
            for value, result in zip(graph.graph_outputs, results, strict=True):
                np.testing.assert_allclose(
                    np.asarray(result), expected[value.name], rtol=1e-5, atol=1e-5
                )


@pytest.mark.parametrize("name", LAYERS)
def test_layers_out_and_in_again_are_the_same(name, tmp_path):
    assert_same(randomized(LAYERS[name]()), tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_models_out_and_in_again_are_the_same(name, tmp_path):
    assert_same(randomized(MODELS[name]()), tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_restored_from_their_files(name, tmp_path):
    """To the bit: every weight, and what the model computes."""
    model = randomized(MODELS[name]())
    if name == "own cell":
        model.codec = CharacterTokenizer.fit(["abcdefg"])
    save(model, tmp_path / "model.onnx")
    again = load_model(tmp_path / "model.onnx")
    assert type(again) is type(model)
    assert again.options == model.options
    assert not again.training
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[key], array, err_msg=key)
    if model.codec is not None:
        assert again.codec.to_dict() == model.codec.to_dict()
    again.save(tmp_path / "directory")
    restored = models.load(tmp_path / "directory")
    for function, other in zip(signatures(model), signatures(restored), strict=True):
        inputs = random_inputs(function.inputs, function.smallest, 3)
        expected = computed(function, model, inputs)
        for key, value in computed(other, restored, inputs).items():
            np.testing.assert_array_equal(value, expected[key])


def test_a_model_of_more_weights_than_ids_of_one_part_can_tell(tmp_path, monkeypatch):
    """The numbers of elements are written in two parts, here of few numbers each."""
    from anaphora.interop.onnx import importing

    monkeypatch.setattr(importing, "_BASE", 64)
    model = randomized(MODELS["language model"]())
    save(model, tmp_path / "model.onnx")
    again = load_model(tmp_path / "model.onnx")
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[key], array)


def changed(path, change):
    """The file again, after a change of its protobuf."""
    proto = onnx.load(path)
    change(proto)
    onnx.save(proto, path)
    return path


def test_files_that_are_no_models_of_ours_are_explained(tmp_path):
    model = randomized(MODELS["language model"]())
    path = tmp_path / "model.onnx"

    def metadata(proto, **entries):
        kept = {e.key: e.value for e in proto.metadata_props}
        onnx.helper.set_model_props(
            proto, {k: v for k, v in (kept | entries).items() if v is not None}
        )

    def as_gru(proto):
        next(node for node in proto.graph.node if node.op_type == "LSTM").op_type = "GRU"

    huge = json.dumps(dict(model.options, hidden_size=10**8))
    for change, message in [
        (lambda p: metadata(p, **{"anaphora.task": "poems"}), "metadata describe no model of"),
        (lambda p: metadata(p, **{"anaphora.model": None}), "metadata describe no model of"),
        (lambda p: metadata(p, **{"anaphora.model": "{"}), "options of the model .* are damaged"),
        (lambda p: metadata(p, **{"anaphora.model": "[]"}), "options of the model .* are damaged"),
        (
            lambda p: metadata(p, **{"anaphora.model": huge}),
            r"a model of \d{10,} weights, but it has \d+",
        ),
        (lambda p: p.graph.initializer[-1].dims.insert(0, 1), "its arrays are not those of"),
        (as_gru, "interop.onnx.load runs graphs that are no models of anaphora"),
    ]:  # fmt: skip
        save(model, path)
        with pytest.raises(OnnxError, match=message):
            load_model(changed(path, change))
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "other.onnx")


def test_a_graph_that_computes_something_else_is_told(tmp_path):
    model = randomized(MODELS["classifier"]())
    save(model, tmp_path / "model.onnx")

    def change(proto):
        node = next(n for n in proto.graph.node if n.op_type == "LSTM")
        node.attribute.append(onnx.helper.make_attribute("clip", 0.1))

    with pytest.raises(OnnxError, match="its output outputs differs from that of the model"):
        load_model(changed(tmp_path / "model.onnx", change))


def test_models_in_8_bits_compute_what_their_file_says(tmp_path):
    """The LSTMs as ONNX Runtime computes them; see `test_onnx_load` for the numbers."""
    model = randomized(MODELS["language model"]())
    model.weights = "int8"
    path = save(model, tmp_path / "model.onnx").record["files"][0]["out"]
    graph = load(path)
    (function,) = signatures(model)
    inputs = random_inputs(function.inputs, function.smallest, 0)
    expected = computed(function, model, inputs)
    for value, result in zip(graph.graph_outputs, graph(**inputs), strict=True):
        np.testing.assert_allclose(np.asarray(result), expected[value.name], atol=0.3)


@pytest.mark.parametrize("name", ["language model", "tagger with a CRF", "mean", "encoder-decoder"])
def test_models_in_8_bits_are_restored_as_floats(name, tmp_path):
    """The numbers that the integers stand for: those of the model, rounded."""
    made = MODELS.get(name) or functools.partial(
        models.SequenceClassifier, num_classes=3, input_size=I, hidden_size=H, pooling="mean",
        bidirectional=False,
    )  # fmt: skip
    model = randomized(made())
    model.codec = CharacterTokenizer.fit(["abcdefghijk"]) if name == "language model" else None
    model.weights = "int8"
    save(model, tmp_path / "model.onnx")
    with pytest.warns(UserWarning, match="8 bits become the float32 numbers"):
        again = load_model(tmp_path / "model.onnx")
    assert again.options == model.options
    if model.codec is not None:
        assert again.codec.to_dict() == model.codec.to_dict()
    for key, array in model.state_dict().items():
        found = again.state_dict()[key]
        largest = np.abs(array).max(-1, keepdims=True)
        assert (np.abs(found - array) <= largest / 253).all(), key
        if "weight" in key:
            assert not np.array_equal(found, array), key
