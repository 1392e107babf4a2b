"""Directories with weights in 8 bits: what is stored, what it computes, and what is refused."""

import copy
import json
import math
import os
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

import anaphora
from anaphora import models, no_grad
from anaphora.artifact import ArtifactError, ModelDirectory, read_weights, write_weights
from anaphora.cells import cell
from anaphora.data import Batch, cover
from anaphora.engine.precision import int8_weights
from anaphora.equations import sigmoid, tanh
from anaphora.generation import Sampler, beam_search
from anaphora.generation.generate import generate_ids
from anaphora.generation.scoring import log_probabilities, score_ids
from anaphora.models import (
    EncoderDecoder,
    Forecaster,
    LanguageModel,
    SavedModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    VectorToSequence,
)
from anaphora.optim import SGD
from anaphora.plot import gradient_norms
from anaphora.training import Trainer, TrainingOptions, evaluate

CHANGES = 4000 if os.environ.get("ANAPHORA_ALL_CASES") == "1" else 500


@cell(gates="f n", state="h", parameters="p")
def forgetful(f, n, h, p):
    f = sigmoid(f + p * h)
    return f * h + (1.5 - f) * tanh(n.x)


rng = np.random.default_rng(7)


def ids(*shape, below=7):
    return rng.integers(0, below, shape)


def numbers(*shape):
    return rng.standard_normal(shape).astype(np.float32)


MODELS = {
    "language model": lambda: LanguageModel(vocabulary_size=7, hidden_size=20, num_layers=2),
    "tied": lambda: LanguageModel(vocabulary_size=7, hidden_size=20, tied=True, layer_norm=True),
    "own cell": lambda: LanguageModel(vocabulary_size=7, hidden_size=9, cell=forgetful),
    "classifier": lambda: SequenceClassifier(num_classes=2, hidden_size=30, input_size=5),
    "regressor": lambda: SequenceRegressor(
        num_outputs=4, hidden_size=13, vocabulary_size=7, pooling="mean", cell="gru"
    ),
    "tagger": lambda: SequenceTagger(
        num_tags=4, hidden_size=11, input_size=5, bidirectional=True, crf=True
    ),
    "additive attention": lambda: EncoderDecoder(
        source_vocabulary_size=7, vocabulary_size=7, hidden_size=8, attention="additive"
    ),
    "multiplicative attention": lambda: EncoderDecoder(
        source_vocabulary_size=7, vocabulary_size=7, hidden_size=8, attention="multiplicative"
    ),
    "vector to sequence": lambda: VectorToSequence(input_size=5, vocabulary_size=7, hidden_size=9),
}
NOT_QUANTIZED = ("bias", "norm", ".p_l", "score.weight", "crf_layer")


def made(name):
    """A model in evaluation mode whose weights have outliers, tiny rows and rows of zeros."""
    model = MODELS[name]().eval()
    for parameter in model.parameters():
        with parameter.writing() as array:
            array[...] = rng.standard_normal(array.shape) * 0.5
            if array.ndim == 2 and len(array) > 4:
                array[0] *= 30
                array[1] *= 1e-35
                array[2] = 0
    return model


def inputs_of(name):
    if "attention" in name:
        return ids(6, 3), ids(4, 3)
    if name == "vector to sequence":
        return numbers(3, 5), ids(4, 3)
    return (numbers(6, 3, 5) if name in ("classifier", "tagger") else ids(6, 3),)


def outputs(model, inputs):
    with no_grad():
        found = model(*inputs)
    return [t.data for t in (found if isinstance(found, tuple) else [found]) if hasattr(t, "data")]


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.mark.parametrize("name", MODELS)
def test_what_is_stored_and_what_it_computes(folder, name):
    model = made(name)
    model.save(folder / "model", sources={"texts": "book.txt"})
    models.quantize(folder / "model", folder / "small")
    stored, _ = read_weights(folder / "small" / "model.safetensors")
    parameters = dict(model.named_parameters())
    loaded = anaphora.load(folder / "small")
    assert loaded.weights == "int8"
    assert not loaded.training
    assert loaded.config["sources"] == {"texts": "book.txt"}
    for name_of, parameter in parameters.items():
        array, kept = parameter.data, stored.pop(name_of)
        if any(part in name_of for part in NOT_QUANTIZED):
            assert kept.dtype == np.float32
            np.testing.assert_array_equal(kept, array)
            continue
        scales = stored.pop(f"{name_of}.scales")
        assert (kept.dtype, kept.shape) == (np.int8, array.shape)
        assert (scales.dtype, scales.shape) == (np.float32, array.shape[:1])
        largest = np.abs(array).max(axis=1).astype(np.float64)
        exact = np.where(largest < 2.0**-100, 0, largest / 127)
        assert (exact <= scales).all()
        assert (scales <= exact * (1 + 2**-14)).all()
        product = kept.astype(np.float64) * scales.astype(np.float64)[:, None]
        np.testing.assert_array_equal(product, product.astype(np.float32))  # exact
        found = dict(loaded.named_parameters())[name_of].data
        np.testing.assert_array_equal(found, product)
        assert (np.abs(found - array) <= scales[:, None] * 0.5001 + 2.0**-100).all()
    assert not stored
    rounded = anaphora.load(folder / "model", weights="int8")
    inputs = inputs_of(name)
    in_int8 = outputs(loaded, inputs)
    with int8_weights():
        expected = outputs(model, inputs)
    for one, other, third in zip(in_int8, outputs(rounded, inputs), expected, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
    in_float32 = outputs(model, inputs)
    assert any((a != b).any() for a, b in zip(in_int8, in_float32, strict=True))
    loaded.weights = "float32"
    assert loaded.weights == "float32"
    assert any((a != b).any() for a, b in zip(in_int8, outputs(loaded, inputs), strict=True))


def test_a_quantized_model_is_saved_as_it_is(folder):
    made("tied").save(folder / "model")
    models.quantize(folder / "model", folder / "small")
    anaphora.load(folder / "small").save(folder / "again")
    for file in ("model.safetensors", "config.json"):
        assert (folder / "small" / file).read_bytes() == (folder / "again" / file).read_bytes()
    config = json.loads((folder / "small" / "config.json").read_text())
    assert (config["format"], config["weights"]) == (3, "int8")
    plain = json.loads((folder / "model" / "config.json").read_text())
    assert (plain["format"], "weights" in plain) == (2, False)
    anaphora.load(folder / "small", weights="float32").save(folder / "rounded")
    rounded = anaphora.load(folder / "rounded")
    assert rounded.weights == "float32"
    for name, array in anaphora.load(folder / "small").state_dict().items():
        np.testing.assert_array_equal(rounded.state_dict()[name], array)
    models.quantize(folder / "rounded", folder / "third")
    one, other = (
        read_weights(folder / name / "model.safetensors")[0] for name in ("small", "third")
    )
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_it_has_a_quarter_of_the_size(folder):
    model = LanguageModel(vocabulary_size=400, hidden_size=200)
    model.save(folder / "model")
    models.quantize(folder / "model", folder / "small")
    sizes = [(folder / n / "model.safetensors").stat().st_size for n in ("model", "small")]
    V, H = 400, 200
    weights, rows, biases = 2 * V * H + 8 * H * H, 2 * V + 8 * H, 8 * H + V
    assert 0 <= sizes[0] - 4 * (weights + biases) < 1024  # the rest is the header
    assert 0 <= sizes[1] - (weights + 4 * rows + 4 * biases) < 1536
    assert sizes[1] < 0.28 * sizes[0]


def test_evaluation_is_what_a_session_says_token_by_token():
    model = made("language model")
    text = ids(50)
    in_float32 = evaluate(model, cover(text, batch_size=1, window=7)).loss
    model.weights = "int8"
    session = model.session()
    logits = np.array([session.feed(id) for id in text[:-1]])
    losses = -log_probabilities(logits)[np.arange(49), text[1:]]
    (scored,) = score_ids(model, [text[1:]], [text[0]])
    np.testing.assert_array_equal(losses, -scored)
    one_by_one = evaluate(model, cover(text, batch_size=1, window=1))
    assert one_by_one.loss == math.fsum(losses.astype(float)) / 49
    for size, window in ((1, 7), (1, 49)):
        loss = evaluate(model, cover(text, batch_size=size, window=window)).loss
        np.testing.assert_allclose(loss, one_by_one.loss, rtol=1e-6)
    assert abs(in_float32 - one_by_one.loss) > 1e-5


def test_a_model_in_training_is_switched_to_evaluation():
    model = MODELS["language model"]()
    assert model.training
    model.weights = "int8"
    assert not model.training
    evaluate(model, cover(ids(20), batch_size=1, window=7))
    assert model.weights == "int8"


def test_generation_is_what_a_session_says():
    model = made("language model")
    model.weights = "int8"
    session = model.session()
    expected, logits = [], session.feed([3, 1])[-1]
    for _ in range(30):
        expected.append(int(logits.argmax()))
        logits = session.feed(expected[-1])
    found = [int(id) for id in generate_ids(model, [3, 1], Sampler(temperature=0), 30)]
    assert found == expected


def test_batches_sessions_and_searches_are_in_it():
    tagger = MODELS["tagger"]().eval()
    batch = Batch(numbers(6, 3, 5), ids(6, 3, below=4), np.array([6, 2, 4]))
    searcher, source = MODELS["additive attention"]().eval(), ids(6, 3)
    forecaster = Forecaster(hidden_size=8, context=6, distribution="gaussian").eval()
    series = numbers(20, 1)

    def forecast(weights=None):
        session = forecaster.session(weights=weights)
        session.feed(series)
        return session.forecast(3, paths=4, seed=5)

    def scores(batch):
        with no_grad():
            return tagger.scores(batch)

    def everything():
        found = beam_search(searcher, source, [6, 2, 4], max_length=5)
        return [
            scores(batch).data,
            np.array([h.log_probability for best in found for h in best]),
            np.array(evaluate(tagger, [batch]).loss),
            forecast(),
        ]

    before = everything()
    in_float32 = forecast("int8")
    for model in (tagger, searcher, forecaster):
        model.weights = "int8"
    found = everything()
    np.testing.assert_array_equal(found[3], in_float32)
    np.testing.assert_array_equal(forecast("float32"), before[3])
    for one, other in zip(found, before, strict=True):
        assert (one != other).any()
    for model in (tagger, searcher, forecaster):
        model.weights = "float32"
    with int8_weights():
        expected = everything()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(everything(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_recorded_gates_and_pictures_are_in_it():
    model, text = made("language model"), ids(9)
    session = model.session(weights="int8")
    session.feed(text)
    x = model.embedding(text).data
    in_float32 = model.recurrent.record(x)[2]["h_l1"]
    norms = gradient_norms({"layer": model.recurrent}, x).data
    model.weights = "int8"
    recorded = model.recurrent.record(model.embedding(text))[2]
    np.testing.assert_array_equal(recorded["h_l1"][-1], session.state_dict()["h"][1])
    assert (recorded["h_l1"] != in_float32).any()
    for one, other in zip(
        norms["layer"], gradient_norms({"layer": model.recurrent}, x).data["layer"], strict=True
    ):  # of the float32 weights, since what is in 8 bits has no gradients
        assert one == other


def test_a_session_has_the_weights_of_the_model_unless_told():
    model = made("language model")
    text = ids(9)
    in_float32 = model.session().feed(text)
    in_int8 = model.session(weights="int8").feed(text)
    assert (in_float32 != in_int8).any()
    model.weights = "int8"
    np.testing.assert_array_equal(model.session().feed(text), in_int8)
    np.testing.assert_array_equal(model.session(weights="float32").feed(text), in_float32)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.weights == "int8"
        np.testing.assert_array_equal(outputs(copied, (text,))[0], outputs(model, (text,))[0])
    session = pickle.loads(pickle.dumps(model.session()))
    np.testing.assert_array_equal(session.feed(text), in_int8)


def test_a_session_that_runs_the_model_has_its_own_weights():
    class Cooler(LanguageModel):
        def forward(self, inputs, state=None, lengths=None):
            logits, state = super().forward(inputs, state, lengths)
            return logits / 2, state

    model, text = Cooler(vocabulary_size=7, hidden_size=20).eval(), ids(9)
    in_float32 = model.session().feed(text)
    model.weights = "int8"
    in_int8 = model.session().feed(text)
    assert (in_float32 != in_int8).any()
    np.testing.assert_array_equal(model.session(weights="float32").feed(text), in_float32)
    np.testing.assert_array_equal(in_int8, outputs(model, (text[:, None],))[0][:, 0])


# What is refused


def test_it_cannot_be_trained(folder):
    made("language model").save(folder / "model")
    models.quantize(folder / "model", folder / "small")
    model = anaphora.load(folder / "small")
    message = "its weights have 8 bits, which cannot be trained; train the model that it was quant"
    with pytest.raises(RuntimeError, match=message):
        model.train()
    assert not model.training
    batches = cover(ids(50), batch_size=1, window=7)
    with pytest.raises(ValueError, match=f"Trainer: {message}"):
        Trainer(model, SGD(model.parameters(), 0.1), batches, TrainingOptions(max_steps=1))
    assert not model(ids(5, 1))[0].requires_grad
    model.weights = "float32"
    assert model.train().training


def test_what_cannot_be_quantized(folder):
    made("language model").save(folder / "model")
    models.quantize(folder / "model", folder / "small")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refused(message, directory, out, **options):
        with pytest.raises(ArtifactError, match=message):
            models.quantize(folder / directory, folder / out, **options)
        after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert after == before

    refused("model: is the directory to quantize; choose another", "model", "model", overwrite=True)
    refused("small: already holds a model; choose another", "model", "small")
    refused("small: is quantized already", "small", "other")
    refused("none: no such folder", "none", "other")
    (folder / "link").symlink_to(folder / "model")
    refused("link: is the directory to quantize", "model", "link", overwrite=True)
    LanguageModel(vocabulary_size=7, hidden_size=3, dtype="float64").save(folder / "double")
    (folder / "notes").mkdir()
    (folder / "notes" / "note.txt").write_text("mine")
    (folder / "file").write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused("double: its weights are float64, and 8 bits stand for float32", "double", "other")
    refused("notes: is not empty and is not a model directory", "model", "notes", overwrite=True)
    refused("file: is a file", "model", "file", overwrite=True)
    training = ModelDirectory.create(folder / "training")
    training.lock()
    with pytest.raises(ArtifactError, match="training: is being trained by"):
        models.quantize(folder / "model", training.path, overwrite=True)
    training.unlock()
    models.quantize(folder / "model", folder / "double", overwrite=True)
    assert anaphora.load(folder / "double").weights == "int8"
    with pytest.raises(ValueError, match="weights is 'int4'; expected 'float32' or 'int8'"):
        anaphora.load(folder / "model", weights="int4")


def test_weights_too_large_to_quantize_replace_nothing(folder):
    model = made("language model")
    model.save(folder / "target")
    before = (folder / "target" / "model.safetensors").read_bytes()
    with model.output.weight.writing() as array:
        array[4, 2] = 3e38
    model.save(folder / "model")
    with pytest.raises(ArtifactError, match=r"model: output.weight\[4\] has NaN, or a number of 2"):
        models.quantize(folder / "model", folder / "target", overwrite=True)
    assert (folder / "target" / "model.safetensors").read_bytes() == before


def test_a_model_without_such_weights(folder):
    from dataclasses import dataclass

    from anaphora.tensor import Parameter

    @dataclass(eq=False, repr=False)
    class Constant(SavedModel):
        kind = "constant_for_this_test"

        def __post_init__(self):
            super().__post_init__()
            self.value = Parameter(np.ones(3, np.float32))

    try:
        Constant().save(folder / "model")
        with pytest.raises(ArtifactError, match="model: has no weights to quantize, which are"):
            models.quantize(folder / "model", folder / "small")
        assert not (folder / "small").exists()
    finally:
        del SavedModel.kinds["constant_for_this_test"]


# Damage


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A directory with a language model in 8 bits."""
    folder = tmp_path_factory.mktemp("small")
    LanguageModel(vocabulary_size=7, hidden_size=5, num_layers=2).save(folder / "model")
    models.quantize(folder / "model", folder / "small")
    return folder / "small"


def change(array, index, value):
    array = array.copy()
    array[index] = value
    return array


NAME, SCALES = "output.weight", "output.weight.scales"
DAMAGE = {
    "no scales": ({SCALES: None}, f"{NAME} is in 8 bits, but {SCALES} is missing"),
    "no integers": ({NAME: None}, f"has an array {SCALES}|has no array {NAME}"),
    "extra": ({"other": np.zeros(2, np.float32)}, "has an array other, which the model of config"),
    "extra integers": ({"other": np.zeros((2, 2), np.int8)}, "other is in 8 bits, but"),
    "extra scales": ({"other.scales": np.zeros(2, np.float32)}, "has an array other.scales"),
    "bias in 8 bits": (
        {"output.bias": np.zeros(7, np.int8), "output.bias.scales": np.zeros(7, np.float32)},
        r"output.bias is int8 \[7\] and output.bias.scales float32 \[7\]; expected int8 \[N, K\]",
    ),
    "not in 8 bits": ({NAME: lambda a: a.astype(np.float32), SCALES: None},
                      f"{NAME} is float32; expected int8"),
    "uint8": ({NAME: lambda a: a.astype(np.uint8)}, f"has an array {SCALES}|uint8"),
    "int16": ({NAME: lambda a: a.astype(np.int16)}, f"has an array {SCALES}|int16"),
    "scales of float64": ({SCALES: lambda a: a.astype(np.float64)}, f"{SCALES} float64 .*expected"),
    "scales of int8": ({SCALES: lambda a: a.astype(np.int8)}, f"{SCALES}"),
    "fewer scales": ({SCALES: lambda a: a[1:]}, rf"{SCALES} float32 \[6\]; expected int8 \[N, K\]"),
    "scales [N, 1]": ({SCALES: lambda a: a[:, None]}, rf"{SCALES} float32 \[7, 1\]; expected"),
    "transposed": ({NAME: lambda a: np.ascontiguousarray(a.T)}, rf"{NAME} is int8 \[5, 7\]"),
    "nan": ({SCALES: lambda a: change(a, 2, np.nan)}, rf"{NAME}\[2\] .*: its scale is nan"),
    "negative": ({SCALES: lambda a: -a}, rf"{NAME}\[0\] .*: its scale is -0"),
    "infinite": ({SCALES: lambda a: change(a, 3, np.inf)}, rf"{NAME}\[3\] .*: its scale is inf"),
    "huge": ({SCALES: lambda a: change(a, 3, 3e38)}, rf"{NAME}\[3\] .*, 3e\+38, do not belong"),
    "tiny": ({SCALES: lambda a: change(a, 3, 1e-40)}, rf"{NAME}\[3\] .*do not belong together"),
    "zero": ({SCALES: lambda a: change(a, 3, 0)}, rf"{NAME}\[3\] .*do not belong together"),
    "too fine": ({SCALES: lambda a: np.nextafter(a, np.float32(9))}, rf"{NAME}\[0\] .*do not bel"),
    "-128": ({NAME: lambda a: change(a, (1, 3), -128)}, rf"{NAME}\[1\] .*: it has -128, which is"),
    "small": ({NAME: lambda a: change(a, 1, 5)}, rf"{NAME}\[1\] .*do not belong together"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(small, folder, damage):
    changes, message = DAMAGE[damage]
    home = ModelDirectory(shutil.copytree(small, folder / "small"))
    arrays, _ = read_weights(home.weights)
    for name, value in changes.items():
        old = arrays.pop(name, None)
        if value is not None:
            arrays[name] = value(old) if callable(value) else value
    write_weights(home.weights, arrays)
    with pytest.raises(ArtifactError, match=message) as caught:
        anaphora.load(home.path)
    assert str(home.path) in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"format": 2}, "\"weights\" 'int8'; expected 3 and 'int8', or 2 and no weights"),
        ({"weights": ...}, 'has "format" 3 and "weights" None; expected 3 and \'int8\''),
        ({"format": 2, "weights": ...}, r"scales, which the model of config|expected float32"),
        ({"weights": "int4"}, "\"weights\" 'int4'; expected 3 and"),
        ({"weights": 8}, "weights is 8; expected str"),
        ({"format": 4}, "was written by a newer anaphora"),
    ],
)
def test_a_config_that_lies_is_named(small, folder, config, message):
    home = ModelDirectory(shutil.copytree(small, folder / "small"))
    found = json.loads(home.config.read_text())
    for name, value in config.items():
        if value is ...:
            del found[name]
        else:
            found[name] = value
    home.config.write_text(json.dumps(found))
    with pytest.raises(ArtifactError, match=message) as caught:
        anaphora.load(home.path)
    assert str(home.path) in str(caught.value)


def test_float32_that_calls_itself_int8_is_named(folder):
    made("language model").save(folder / "model")
    home = ModelDirectory(folder / "model")
    found = json.loads(home.config.read_text()) | {"format": 3, "weights": "int8"}
    home.config.write_text(json.dumps(found))
    with pytest.raises(ArtifactError, match=r"weight\w* is float32; expected int8; restore"):
        anaphora.load(home.path)


@pytest.mark.parametrize("shape", [(2**40, 0), (0, 2**40), (2**62, 2**62), (2**31, 5)])
def test_sizes_that_lie_take_no_memory(small, folder, shape):
    home = ModelDirectory(shutil.copytree(small, folder / "small"))
    data = home.weights.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header[NAME]["shape"] = list(shape)
    if 0 in shape:  # a place without bytes
        header[NAME]["data_offsets"] = [header[NAME]["data_offsets"][0]] * 2
    text = json.dumps(header).encode()
    home.weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=str(home.path)):
        anaphora.load(home.path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def mutated(generator, data):
    """A file of safetensors with a random change: of bytes, of the header, of its length."""
    data = bytearray(data)
    size = int.from_bytes(data[:8], "little")
    kind = generator.integers(8)
    if kind == 0:  # truncated
        return bytes(data[: generator.integers(len(data))])
    if kind == 1:  # longer
        return bytes(data) + generator.bytes(generator.integers(1, 50))
    if kind == 2:  # a length of the header that lies
        lie = (0, 1, size + 1, 2**31, 2**62, 2**64 - 1)[generator.integers(6)]
        data[:8] = lie.to_bytes(8, "little")
        return bytes(data)
    if kind in (3, 4):  # bytes of the numbers
        for place in generator.integers(8 + size, len(data), generator.integers(1, 4)):
            data[place] = generator.integers(256)
        return bytes(data)
    if kind == 5:  # bytes of the header
        for place in generator.integers(8, 8 + size, generator.integers(1, 3)):
            data[place] = generator.integers(32, 127)
        return bytes(data)
    header = json.loads(data[8 : 8 + size])
    name = generator.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match generator.integers(5):
        case 0:
            entry["dtype"] = str(generator.choice(["U8", "I8", "F16", "BF16", "F32", "I64", "X"]))
        case 1:
            entry["shape"] = [
                (0, 1, 5, 2**31, 2**40, 2**63, -1)[generator.integers(7)] for _ in entry["shape"]
            ]
        case 2:
            entry["data_offsets"] = [int(generator.choice([0, 7, 2**40, -4])), len(data)]
        case 3:
            header[f"{name}.scales"] = header.pop(name)
        case 4:
            del header[name]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data[8 + size :])


def test_any_change_of_the_weights_is_named_or_loaded(small, folder):
    home = ModelDirectory(shutil.copytree(small, folder / "small"))
    intact = home.weights.read_bytes()
    expected = anaphora.load(home.path).state_dict()
    generator = np.random.default_rng(11)
    refused = loaded = 0
    for _ in range(CHANGES):
        data = mutated(generator, intact)
        home.weights.write_bytes(data)
        problem = ""
        try:
            model = anaphora.load(home.path)
        except ArtifactError as error:
            problem = str(error)
        if problem:
            assert str(home.path) in problem
            refused += 1
            continue
        loaded += 1
        assert model.weights == "int8"
        integers = safetensors.numpy.load(data)
        for name, array in model.state_dict().items():
            assert array.shape == expected[name].shape
            assert np.isfinite(array).all()
            if f"{name}.scales" in integers:  # what it computes with is what the file holds
                assert (np.abs(integers[name].astype(int)) <= 127).all()
    assert refused > 0.6 * CHANGES
    assert loaded > 0.02 * CHANGES
