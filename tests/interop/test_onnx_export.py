"""Models as ONNX files: what ONNX Runtime computes from them is what they compute."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import anaphora
from anaphora import cells, models, nn, ops
from anaphora.artifact import ArtifactError
from anaphora.cells import cell
from anaphora.cli.app import app
from anaphora.data import CharacterTokenizer, ForecastBatch
from anaphora.equations import abs as absolute
from anaphora.equations import exp, log, maximum, minimum, relu, sigmoid, softplus, tanh
from anaphora.interop.layers import ResetBefore
from anaphora.interop.signatures import signatures
from anaphora.tensor import no_grad

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from anaphora.interop.onnx import ExportError, describe, layers, load, operations, save, symbols  # noqa: E402

T, B, I, H, L = 7, 4, 3, 5, 2
LENGTHS = np.array([5, 0, 7, 1])


class File:
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path):
        self.path, self.proto = path, onnx.load(path)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_outputs()]
        self.inputs = [value.name for value in self.session.get_inputs()]

    def __call__(self, **inputs):
        return dict(zip(self.names, self.session.run(None, inputs), strict=True))

    def operators(self):
        return {node.op_type for node in self.proto.graph.node}

    def metadata(self):
        return {entry.key: entry.value for entry in self.proto.metadata_props}


def exported(model, folder, **options):
    """The file, or files, of a model."""
    result = save(model, folder / "model.onnx", **options)
    files = [File(record["out"]) for record in result.record["files"]]
    return files[0] if len(files) == 1 else files


def randomized(module, seed=1):
    """Give every parameter random numbers: biases and peepholes too."""
    generator = np.random.default_rng(seed)
    for parameter in module.parameters():
        with parameter.writing() as array:
            array[...] = generator.normal(size=array.shape) * 0.7
    return module.eval()


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def states_of(layer, batch=B):
    shapes = layer.state_shapes(batch)
    return {name: random(*shape, seed=k + 7) for k, (name, shape) in enumerate(shapes.items())}


def call(module, *arguments, **options):
    with no_grad():
        return module(*arguments, **options)


def plain(state):
    return [s.data for s in (state if isinstance(state, tuple) else (state,))]


def assert_close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def computed_alike(file, layer):
    """An input and states, and what the file makes of them within lengths: what the layer does."""
    x, states = random(T, B, I), states_of(layer)
    found = file(x=x, lengths=LENGTHS, **states)
    y, after = call(layer, x, tuple(states.values()), lengths=LENGTHS)
    for one, expected in zip(found.values(), (y.data, *plain(after)), strict=True):
        assert_close(one, expected)
    return x, states, found


# Cells and layers

OPERATORS = {
    "rnn": "RNN", "rnn_relu": "RNN", "lstm": "LSTM", "peephole_lstm": "LSTM",
    "coupled_lstm": "LSTM", "gru": "GRU", "mgu": "GRU", "mingru": "Scan",
}  # fmt: skip


@cell(gates="u v w", state="s q m", parameters="k j")
def strange(u, v, w, s, q, m, k, j):
    """Every function of the vocabulary, gates in halves, three states and two parameters."""
    u, v = sigmoid(u), tanh(v.x) - softplus(v.h) * 0.3
    rising = maximum(m + log(1 + exp(w.h)), -absolute(q))
    m = rising / (2 + relu(k))
    q = minimum(u * q + (1 - u) * v, j * m)
    s = exp(-absolute(m)) * s - q * u
    return s, q, m


@cell(gates="a", state="h older")
def remembering(a, h, older):
    """A state that is another one of before."""
    new = tanh(a + 0.5 * older)
    return new, h


@cell(gates="a b", state="h", fused=False)
def untraced(a, b, h):
    """Operations on Tensors."""
    return ops.tanh(a.x + 0.5 * a.h) * ops.sqrt(ops.sigmoid(b)) + 0.5 * ops.sigmoid(h)


def recurrent_layers():
    for name in cells.CELLS:
        for directions in (1, 2):
            options = {"num_layers": L, "bidirectional": directions == 2}
            yield f"{name}-{directions}", lambda n=name, o=options: nn.Recurrent(n, I, H, **o)
    for custom in (strange, remembering, untraced):
        yield custom.name, lambda c=custom: nn.Recurrent(c, I, H, L, bidirectional=True)
    for name, options in {
        "no-bias": {"bias": False},
        "projection": {"proj_size": 2, "bidirectional": True},
        "layer-norm": {"layer_norm": True},
        "layer-norm-both": {"layer_norm": True, "bidirectional": True},
        "zoneout": {"zoneout": 0.3},
        "float64": {"dtype": "float64"},
        "one-layer": {"num_layers": 1},
    }.items():
        yield name, lambda o=options: nn.LSTM(I, H, **{"num_layers": L, **o})
    yield "gru-no-bias", lambda: nn.GRU(I, H, L, bias=False)


LAYERS = dict(recurrent_layers())


@pytest.mark.parametrize("name", LAYERS)
def test_a_recurrent_layer_with_states_and_ragged_lengths(name, tmp_path):
    layer = randomized(LAYERS[name]())
    file = exported(layer, tmp_path)
    x, states = random(T, B, I), states_of(layer)
    assert file.inputs == ["x", "lengths", *states]
    found = file(x=x, lengths=LENGTHS, **states)
    state = tuple(states.values())
    y, after = call(layer, x, state if len(state) > 1 else state[0], LENGTHS)
    assert_close(found["y"], y.data)
    assert not found["y"][LENGTHS[0] :, 0].any()
    for key, expected in zip(states, plain(after), strict=True):
        assert_close(found[f"next_{key}"], expected)
        assert (found[f"next_{key}"][:, 1] == states[key][:, 1]).all()  # the row without a step


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_cells(data, random_cells, tmp_path):
    drawn, projectable = data.draw(random_cells)
    options = {"proj_size": 2} if projectable and data.draw(st.booleans()) else {}
    layer = randomized(nn.Recurrent(drawn, I, H, L, bidirectional=True, **options))
    x, states = random(T, B, I), states_of(layer)
    names = [value.name for value in signatures(layer)[0].inputs[2:]]
    given = dict(zip(names, states.values(), strict=True))
    found = exported(layer, tmp_path)(x=x, lengths=LENGTHS, **given)
    y, after = call(layer, x, tuple(states.values()), LENGTHS)
    assert_close(found["y"], y.data)
    for name, state in zip(names, plain(after), strict=True):
        assert_close(found[f"next_{name}"], state)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_operator_of_a_cell(name, tmp_path):
    file = exported(nn.Recurrent(name, I, H, L, bidirectional=True), tmp_path)
    kinds = file.operators() & {"RNN", "LSTM", "GRU", "Scan"}
    assert kinds == {OPERATORS[name]}
    count = sum(node.op_type in kinds for node in file.proto.graph.node)
    assert count == (2 * L if OPERATORS[name] == "Scan" else L)


def test_a_custom_cell_that_is_an_lstm_by_its_equations_is_one(tmp_path):
    @cell(gates="i f g o", state="h c")
    def mine(i, f, g, o, h, c):
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = f * c + i * g
        return o * tanh(c), c

    assert "LSTM" in exported(nn.Recurrent(mine, I, H), tmp_path).operators()


def test_the_body_of_a_scan_has_the_authors_names(tmp_path):
    file = exported(nn.Recurrent(strange, I, H), tmp_path)
    (scan,) = (node for node in file.proto.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    made = {name for node in body.node for name in node.output}
    assert {"/rising", "/u", "/q"} <= {name.removesuffix("'") for name in made}
    assert "MatMul" in {node.op_type for node in body.node}


@pytest.mark.parametrize("cell", ["lstm", "mingru"])
def test_chunks_with_carried_states_equal_the_whole(cell, tmp_path):
    layer = randomized(nn.Recurrent(cell, I, H, L))
    file = exported(layer, tmp_path)
    x, states, outputs = random(T, B, I), states_of(layer), []
    whole = file(x=x, lengths=np.full(B, T), **states)
    start = 0
    for size in (1, 4, 2):
        piece = file(x=x[start : start + size], lengths=np.full(B, size), **states)
        outputs.append(piece["y"])
        states = {name: piece[f"next_{name}"] for name in states}
        start += size
    assert_close(np.concatenate(outputs), whole["y"], 1e-6)
    for name, state in states.items():
        assert_close(state, whole[f"next_{name}"], 1e-6)


def test_batch_first(tmp_path):
    layer = randomized(nn.GRU(I, H, L, batch_first=True))
    x, state = random(B, T, I), random(L, B, H, seed=5)
    found = exported(layer, tmp_path)(x=x, lengths=LENGTHS, h=state)
    y, after = call(layer, x, state, LENGTHS)
    assert_close(found["y"], y.data)
    assert_close(found["next_h"], after.data)


def test_one_sequence_without_lengths_and_states(tmp_path):
    for name in ("gru", "mingru"):
        layer = randomized(nn.Recurrent(name, I, H, L, bidirectional=True))
        x = random(T, I)
        file = exported(layer, tmp_path, example=[np.zeros((9, I), np.float32)])
        y, after = call(layer, x)
        found = file(x=x)
        assert_close(found["output"], y.data)
        assert_close(found["output_2"], after.data)


def test_the_mode_of_a_model_does_not_matter_nor_change(tmp_path):
    layer = randomized(nn.LSTM(I, H, L, dropout=0.5, zoneout=0.2, weight_dropout=0.3))
    layer.train()
    file = exported(nn.Sequential(layer, nn.Dropout(0.5)), tmp_path)
    assert layer.training
    x = random(T, B, I)
    assert_close(file(x=x)["output"], call(layer.eval(), x)[0].data)


# Models


def test_language_model(tmp_path):
    model = randomized(
        models.LanguageModel(vocabulary_size=11, hidden_size=H, num_layers=L, tied=True)
    )
    file = exported(model, tmp_path)
    ids = np.random.default_rng(0).integers(0, 11, (T, B))
    states = states_of(model.recurrent)
    found = file(ids=ids, lengths=LENGTHS, **states)
    logits, after = call(model, ids, tuple(states.values()), LENGTHS)
    assert_close(found["logits"], logits.data)
    assert_close(found["next_c"], after[1].data)
    table = [c for c in file.proto.graph.initializer if tuple(c.dims) == (11, H)]
    assert len(table) == 1  # tied weights are stored once


def test_the_tokenizer_and_the_options_are_metadata(tmp_path):
    model = models.LanguageModel(vocabulary_size=4, hidden_size=H, cell=strange)
    model.codec = CharacterTokenizer.fit(["abc"])
    metadata = exported(model, tmp_path).metadata()
    tokenizer = CharacterTokenizer.from_dict(json.loads(metadata["anaphora.tokenizer"]))
    assert tokenizer.encode("cab").tolist() == model.codec.encode("cab").tolist()
    assert metadata["anaphora.task"] == "language_model"
    again = models.LanguageModel.from_dict(json.loads(metadata["anaphora.model"]))
    assert again.recurrent.cell.program == strange.program
    assert json.loads(metadata["anaphora.states"]) == {"s": "0.0", "q": "0.0", "m": "0.0"}


@pytest.mark.parametrize("crf", [False, True])
def test_tagger_with_characters(crf, tmp_path):
    model = randomized(
        models.SequenceTagger(
            num_tags=3, hidden_size=H, vocabulary_size=9, num_characters=6, bidirectional=True,
            crf=crf, layer_norm=True,
        ), seed=2
    )  # fmt: skip
    if crf:
        model.crf_layer.constraints = nn.tag_constraints(["O", "B", "I"])
        with model.output.weight.writing() as array:
            array *= 12
    generator = np.random.default_rng(2)
    ids = generator.integers(0, 9, (T, B))
    spelling = {
        "characters": generator.integers(0, 6, (8, T, B)),
        "character_lengths": generator.integers(0, 9, (T, B)),
    }
    states = states_of(model.recurrent)
    file = exported(model, tmp_path)
    found = file(ids=ids, lengths=LENGTHS, **spelling, **states)
    logits, _ = call(model, ids, tuple(states.values()), LENGTHS, **spelling)
    assert_close(found["logits"], logits.data)
    assert ("tags" in found) == crf
    if crf:
        expected = model.crf_layer.decode(logits, LENGTHS)
        assert len(np.unique(expected)) == 4  # all tags, and -100
        assert (found["tags"] == expected).all()
        one = {"characters": spelling["characters"][:, :1], "lengths": np.array([1, 0, 1, 1])}
        one |= {"character_lengths": spelling["character_lengths"][:1], "ids": ids[:1], **states}
        found = file(**one)
        expected = model.crf_layer.decode(found["logits"], one["lengths"])
        assert (found["tags"] == expected).all()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_classifier_and_its_states(pooling, bidirectional, layer_norm, tmp_path):
    model = randomized(
        models.SequenceClassifier(
            num_classes=3, input_size=I, hidden_size=H, num_layers=L, pooling=pooling,
            bidirectional=bidirectional, layer_norm=layer_norm,
        )
    )  # fmt: skip
    file = exported(model, tmp_path)
    x = random(T, B, I)
    (signature,) = signatures(model)
    start = {
        value.name: np.full([B if a == "B" else a for a in value.axes], value.start, np.float32)
        for value in signature.inputs[2:]
    }
    found = file(inputs=x, lengths=LENGTHS, **start)
    assert_close(found["outputs"], call(model, x, LENGTHS).data)
    assert bidirectional == (not start)
    if bidirectional:
        return
    for first in range(0, T, 3):  # in pieces, with sequences that end in different ones
        piece = x[first : first + 3]
        lengths = np.clip(LENGTHS - first, 0, len(piece))
        found = file(inputs=piece, lengths=lengths, **start)
        start = {name: found[f"next_{name}"] for name in start}
    assert_close(found["outputs"], call(model, x, LENGTHS).data)
    scores = model.session(batch_size=B).feed(x)[-1]
    in_full = {name: np.full_like(array, 0) for name, array in start.items()}
    for value in signature.inputs[2:]:
        in_full[value.name][...] = value.start
    logits = file(inputs=x, lengths=np.full(B, T), **in_full)["outputs"]
    assert_close(ops.softmax(logits).data, np.asarray(scores))


def test_regressor_of_ids(tmp_path):
    model = randomized(
        models.SequenceRegressor(num_outputs=2, vocabulary_size=9, hidden_size=H, cell="gru")
    )
    ids = np.random.default_rng(0).integers(0, 9, (T, B))
    file = exported(model, tmp_path)
    found = file(ids=ids, lengths=LENGTHS, h=np.zeros((1, B, H), np.float32))
    assert_close(found["outputs"], call(model, ids, LENGTHS).data)


@pytest.mark.parametrize("attention", ["additive", "multiplicative", "none"])
@pytest.mark.parametrize("cell", ["lstm", "mingru"])
def test_encoder_and_decoder_step_by_step(attention, cell, tmp_path):
    model = randomized(
        models.EncoderDecoder(
            source_vocabulary_size=9, vocabulary_size=10, hidden_size=6, num_layers=L,
            attention=attention, cell=cell,
        )
    )  # fmt: skip
    encoder, decoder = exported(model, tmp_path)
    assert not (tmp_path / "model.onnx").exists()
    generator = np.random.default_rng(0)
    source, targets = generator.integers(0, 9, (T, B)), generator.integers(0, 10, (5, B))
    encoded = encoder(source=source, source_lengths=LENGTHS)
    logits, weights = call(model, source, targets, LENGTHS)
    steps, attended = [], []
    for ids in targets:
        inputs = {**encoded, "source_lengths": LENGTHS, "ids": ids[None]}
        inputs["lengths"] = np.ones(B, np.int64)
        found = decoder(**{name: inputs[name] for name in decoder.inputs})
        steps.append(found["logits"])
        attended.append(found.get("weights"))
        encoded |= {
            name.removeprefix("next_"): value
            for name, value in found.items()
            if name.startswith("next_")
        }
    assert_close(np.concatenate(steps), logits.data)
    if attention != "none":
        assert_close(np.concatenate(attended), weights.data)


def test_vector_to_sequence(tmp_path):
    model = randomized(
        models.VectorToSequence(input_size=I, vocabulary_size=10, hidden_size=H, num_layers=L)
    )
    encoder, decoder = exported(model, tmp_path)
    x, ids = random(B, I), np.random.default_rng(0).integers(0, 10, (T, B))
    found = decoder(ids=ids, lengths=np.full(B, T), **encoder(source=x))
    assert_close(found["logits"], call(model, x, ids)[0].data)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_forecaster(autoregressive, tmp_path):
    lags, context, horizon, N, F = (1, 2, 5), 6, 3, 2, 3
    model = randomized(
        models.Forecaster(
            hidden_size=H, context=context, lags=lags, target_size=N, feature_size=F,
            linear_features=2, typical_scale=(2.0, 0.5), autoregressive=autoregressive,
        )
    )  # fmt: skip
    generator = np.random.default_rng(0)
    steps = max(lags) + context + horizon
    series = generator.normal(size=(steps, B, N)) * 3 + 1
    observed = generator.random((steps, B, N)) < 0.8
    features = random(context + horizon, B, F)
    batch = ForecastBatch(series, series[max(lags) :], features=features, observed=observed)
    window = model._window(series, observed)
    states = {name: np.zeros_like(s) for name, s in states_of(model.recurrent).items()}
    found = exported(model, tmp_path)(
        values=window.values, observed=observed, features=features,
        scale=window.scale.astype(np.float32), **states,
    )  # fmt: skip
    assert_close(found["parameters"], call(model, batch).data)


# Weights in 8 bits


def test_int8_models_have_quantized_lstms(tmp_path):
    model = randomized(models.LanguageModel(vocabulary_size=50, hidden_size=64, num_layers=L))
    full = save(model, tmp_path / "float32.onnx").record["files"][0]
    model.weights = "int8"
    result = save(model, tmp_path / "int8.onnx")
    file = File(tmp_path / "int8.onnx")
    assert "DynamicQuantizeLSTM" in file.operators()
    assert "LSTM" not in file.operators()
    assert any("in 8 bits (DynamicQuantizeLSTM" in line for line in result.lines)
    ids = np.random.default_rng(0).integers(0, 50, (T, B))
    states = states_of(model.recurrent)
    found = file(ids=ids, lengths=LENGTHS, **states)
    logits, _ = call(model, ids, tuple(states.values()), LENGTHS)
    largest = np.abs(logits.data).max()
    assert 1e-5 < np.abs(found["logits"] - logits.data).max() / largest < 0.05
    assert result.record["files"][0]["bytes"] < 0.4 * full["bytes"]
    table = next(
        onnx.numpy_helper.to_array(c)
        for c in file.proto.graph.initializer
        if c.name == "embedding.weight"
    )
    assert all(len(np.unique(row)) <= 255 for row in table)
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    assert_close(table / scale, np.rint(table / scale), 1e-2)
    assert model.weights == "int8"


def test_int8_models_without_lstms_are_rounded_and_say_so(tmp_path):
    model = randomized(models.LanguageModel(vocabulary_size=50, hidden_size=16, cell="gru"))
    model.weights = "int8"
    result = save(model, tmp_path / "model.onnx")
    assert any("no layer is an LSTM node" in line for line in result.lines)
    assert result.record["files"][0]["largest_difference"] < 1e-5


def test_a_part_in_8_bits(tmp_path):
    net = randomized(nn.Sequential(nn.LSTM(I, H), nn.Linear(H, I), nn.LSTM(I, H)))
    weight = net[1].weight.data.copy()
    net[2].use_int8()
    file = exported(net, tmp_path)
    kinds = [node.op_type for node in file.proto.graph.node if "LSTM" in node.op_type]
    assert kinds == ["LSTM", "DynamicQuantizeLSTM"]
    stored = {c.name: onnx.numpy_helper.to_array(c) for c in file.proto.graph.initializer}
    assert (stored["1.weight.T"] == weight.T).all()
    assert net[2].in_int8
    assert not net[0].in_int8


# Modules


class Net(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(20, I)
        self.recurrent = nn.GRU(I, H, bidirectional=True)
        self.attention = nn.AdditiveAttention(2 * H, 2 * H)
        self.output = nn.Linear(4 * H, 3)
        self.scale = nn.Parameter(np.ones(3, np.float32))

    def forward(self, ids, lengths=None, state=None):
        y, h = self.recurrent(self.embedding(ids), state, lengths=lengths)
        contexts, weights = self.attention(y, y, lengths)
        steps, batch, size = y.shape
        rows = ops.concatenate([contexts, y], axis=-1).reshape(steps * batch, 2 * size)
        scores = ops.log_softmax(self.output(rows) * self.scale - 1).reshape(steps, batch, 3)
        return {"last": scores[-1], "all": (scores.mean(axis=0), h), "weights": weights}


def test_a_module_with_a_forward_of_its_own(tmp_path):
    net = randomized(Net())
    ids = np.random.default_rng(0).integers(0, 20, (T, B))
    state = random(2, B, H, seed=3)
    file = exported(
        net, tmp_path, example=(np.zeros((8, 2), int), np.array([8, 3]), np.zeros((2, 2, H), "f"))
    )
    found = file(ids=ids, lengths=LENGTHS, state=state)
    expected = call(net, ids, LENGTHS, state)
    parts = [expected["last"], *expected["all"], expected["weights"]]
    for name, part in zip(file.names, parts, strict=True):
        assert_close(found[name], part.data)
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in file.proto.graph.input]  # fmt: skip
    assert shapes == [["T", "B"], ["B"], [2, "B", H]]


def test_names_inside_never_take_those_of_inputs_and_outputs(tmp_path):
    @cell(gates="a", state="h", parameters="y")
    def clashing(a, h, y):
        x = a * y
        lengths = tanh(x)
        next_h = lengths + 0.5 * h
        return next_h

    layer = randomized(nn.Recurrent(clashing, I, H))
    layer.output = nn.Parameter(random(H, seed=9))
    layer.x = layer.output
    file = exported(layer, tmp_path)
    assert (file.inputs, file.names) == (["x", "lengths", "h"], ["y", "next_h"])
    net = Of(lambda m, x: x * m.output)
    net.output = nn.Parameter(random(I))
    assert exported(net, tmp_path, example=[random(2, 3, I)]).names == ["output"]


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(I, H), nn.Linear(I, H, bias=False), nn.LayerNorm(I, epsilon=0.1),
     nn.LayerNorm(I, bias=False), nn.Sequential(nn.Dropout(), nn.Linear(I, H), nn.LSTM(H, I))],
    ids=str,
)  # fmt: skip
def test_a_layer_alone(layer, tmp_path):
    randomized(layer)
    x = random(T, B, I)
    found = exported(layer, tmp_path)(x=x)["output"]
    expected = call(layer, x)
    assert_close(found, (expected[0] if isinstance(expected, tuple) else expected).data)


@pytest.mark.parametrize("kind", [nn.AdditiveAttention, nn.MultiplicativeAttention])
def test_attention_alone(kind, tmp_path):
    attention = randomized(kind(I, H))
    queries, states = random(T, B, I), random(6, B, H, seed=1)
    lengths = np.array([6, 0, 2, 1])
    file = exported(attention, tmp_path)
    found = file(queries=queries, states=states, lengths=lengths)
    contexts, weights = call(attention, queries, states, lengths)
    assert_close(found["output"], contexts.data)
    assert_close(found["output_2"], weights.data)


class Of(nn.Module):
    """A module of one function of x [T, B, I]."""

    def __init__(self, function):
        self.function = function
        self.weight = nn.Parameter(random(4, I, seed=4))
        self.vector = nn.Parameter(np.abs(random(I, seed=5)) + np.float32(0.5))

    def forward(self, x):
        return self.function(self, x)


CONVOLUTIONS = {
    "valid": {"kernel_size": 3},
    "causal": {"kernel_size": 4, "padding": "causal", "bias": False},
    "same": {"kernel_size": 4, "padding": "same", "dilation": 2},
    "strided": {"kernel_size": 2, "stride": 3, "padding": (1, 2), "batch_first": True},
    "groups": {"kernel_size": 3, "groups": 2, "dilation": 3, "padding": 2},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_within_lengths(name, tmp_path):
    layer = randomized(nn.Conv1d(4, 6, **CONVOLUTIONS[name]))
    shape = (B, 11, 4) if layer.batch_first else (11, B, 4)
    x, lengths = random(*shape), np.array([11, 0, 3, 6])
    file = exported(layer, tmp_path)
    assert_close(file(x=x, lengths=lengths)["output"], call(layer, x, lengths).data)


def test_a_convolution_before_a_recurrent_layer(tmp_path):
    class Front(nn.Module):
        def __init__(self):
            self.convolution = nn.Conv1d(I, H, kernel_size=5, stride=2, padding=1)
            self.recurrent = nn.LSTM(H, H, bidirectional=True)

        def forward(self, x, lengths, state):
            y = ops.relu(self.convolution(x, lengths))
            lengths = self.convolution.output_lengths(lengths)
            return self.recurrent(y, anaphora.detach(state), lengths=lengths)

    net = randomized(Front())
    state = tuple(random(2, B, H, seed=k) for k in (1, 2))
    example = {"x": np.zeros((8, 2, I), np.float32), "lengths": np.array([8, 2]),
               "state": tuple(s[:, :2] for s in state)}  # fmt: skip
    file = exported(net, tmp_path, example=example)
    x, lengths = random(13, B, I), np.array([13, 0, 2, 6])
    found = file(x=x, lengths=lengths, state_0=state[0], state_1=state[1])
    y, (h, c) = call(net, x, lengths, state)
    for name, expected in zip(file.names, (y, h, c), strict=True):
        assert_close(found[name], expected.data)


def test_windows_of_maxima_and_means_within_lengths(tmp_path):
    for layer in (nn.MaxPool1d(3, 2), nn.AvgPool1d(4, 3, 2), nn.MaxPool1d(2, batch_first=True),
                  nn.AvgPool1d(2, 1, 1, batch_first=True),
                  nn.MaxPool1d(2, 2, 1, dilation=4)):  # fmt: skip
        shape = (B, 11, 4) if layer.batch_first else (11, B, 4)
        x, lengths = random(*shape), np.array([11, 0, 3, 6])
        example = {"x": x[:3], "lengths": lengths[:3]} if layer.batch_first else {
            "x": x[:9, :3], "lengths": np.array([9, 1, 2])}  # fmt: skip
        file = exported(layer, tmp_path, example=example)
        assert {"MaxPool", "AveragePool"} & file.operators()
        expected = call(layer, x, lengths).data
        assert_close(file(x=x, lengths=lengths)["output"], expected)
        (again,) = load(file.path)(x, lengths)
        assert_close(again.data, expected)


def test_means_without_padding(tmp_path):
    layer = nn.AvgPool1d(3, 2, 1, count_include_pad=False)
    x, lengths = random(11, B, 4), np.array([11, 0, 3, 6])
    file = exported(layer, tmp_path, example={"x": x[:9, :3]})
    assert_close(file(x=x)["output"], call(layer, x).data)
    with pytest.raises(ExportError, match="count_include_pad=False cannot be exported with leng"):
        exported(layer, tmp_path, example={"x": x, "lengths": lengths})


def test_partial_windows_are_refused(tmp_path):
    with pytest.raises(ExportError, match="ceil_mode=True cannot be exported"):
        exported(nn.MaxPool1d(3, 2, ceil_mode=True), tmp_path, example={"x": random(11, B, 4)})


def statistics_of(norm):
    with norm.running_mean.writing() as mean, norm.running_var.writing() as variance:
        mean[...] = random(norm.num_features, seed=8)
        variance[...] = np.abs(random(norm.num_features, seed=9)) + np.float32(0.1)
    return norm


NORMS = {
    "batch": lambda: statistics_of(nn.BatchNorm1d(6)),
    "batch, no parameters": lambda: statistics_of(nn.BatchNorm1d(6, affine=False)),
    "batch first": lambda: statistics_of(nn.BatchNorm1d(6, batch_first=True)),
    "groups": lambda: nn.GroupNorm(2, 6),
    "groups, batch first": lambda: nn.GroupNorm(3, 6, 0.1, affine=False, batch_first=True),
    "RMS": lambda: nn.RMSNorm(6),
    "RMS, no weight": lambda: nn.RMSNorm(6, 0.1, elementwise_affine=False),
    "highway": lambda: nn.Highway(6, num_layers=2),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalizations(name, tmp_path):
    layer = randomized(NORMS[name]())
    first = getattr(layer, "batch_first", False)
    x, lengths = random(*(B, 11) if first else (11, B), 6), np.array([11, 0, 3, 6])
    file = exported(layer, tmp_path)
    given = (x, lengths) if "lengths" in file.inputs else (x,)
    assert ("lengths" in file.inputs) == ("batch" in name or "groups" in name)
    expected = call(layer, *given).data
    assert_close(file(**dict(zip(file.inputs, given, strict=True)))["output"], expected)
    (again,) = load(file.path)(*given)
    assert_close(again.data, expected)
    without = exported(layer, tmp_path, example=[x[:3, :2]])
    assert_close(without(x=x)["output"], call(layer, x).data)


def test_rows_without_steps_are_normalized(tmp_path):
    for layer in (nn.GroupNorm(2, 6), nn.GroupNorm(2, 6, batch_first=True)):
        x = random(B, 6)
        file = exported(randomized(layer), tmp_path, example=[x[:3]])
        assert_close(file(x=x)["output"], call(layer, x).data)


@pytest.mark.parametrize("options", [{}, {"kdim": 5, "vdim": 4}, {"batch_first": True}])
def test_multihead_attention(options, tmp_path):
    layer = randomized(nn.MultiheadAttention(6, 2, **options))
    first = layer.batch_first
    sizes = {"query": (T, 6), "key": (9, layer.kdim), "value": (9, layer.vdim)}
    inputs = {
        name: random(*((B, steps) if first else (steps, B)), size, seed=steps + size)
        for name, (steps, size) in sizes.items()
    }
    lengths = np.array([9, 0, 4, 1])
    file = exported(layer, tmp_path)
    found = file(**inputs, lengths=lengths)
    for one, expected in zip(found.values(), call(layer, **inputs, lengths=lengths), strict=True):
        assert_close(one, expected.data)
    for one, expected in zip(
        load(file.path)(**inputs, lengths=lengths), found.values(), strict=True
    ):
        assert_close(one.data, expected)


def test_a_module_of_attention_activations_and_convolutions(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            self.layers = nn.Sequential(
                nn.Conv1d(I, 6, 3, padding="same"), nn.GELU(), nn.BatchNorm1d(6), nn.SiLU(),
                nn.MaxPool1d(2), nn.LeakyReLU(0.2), nn.ELU(), nn.Softplus(), nn.GELU("tanh"),
                nn.Tanh(), nn.Sigmoid(), nn.ReLU(), nn.Identity(), nn.RMSNorm(6),
            )  # fmt: skip
            self.attention = nn.MultiheadAttention(6, 3)
            self.end = nn.Sequential(nn.Softmax(), nn.LogSoftmax(0), nn.Flatten(1))

        def forward(self, x):
            y = self.layers(x)
            return self.end(self.attention(y, y, y, need_weights=False)[0])

    net = randomized(Net())
    statistics_of(net.layers[2])
    file = exported(net, tmp_path, example=[np.zeros((8, 2, I), np.float32)])
    x = random(13, B, I)
    assert_close(file(x=x)["output"], call(net, x).data)


@pytest.mark.parametrize("kind", ["mogrifier_lstm", "nested_lstm", "layer_norm_lstm"])
@pytest.mark.parametrize("directions", [1, 2])
def test_steps_that_are_no_program(kind, directions, tmp_path):
    """With states and lengths, of a layer and in a model."""
    options = {"num_layers": L, "bidirectional": directions == 2}
    layer = randomized(nn.Recurrent(kind, I, H, **options))
    file = exported(layer, tmp_path)
    assert file.operators() >= {"Scan"}
    x, states, found = computed_alike(file, layer)
    again = load(file.path)(x, LENGTHS, *states.values())
    for one, expected in zip(again, found.values(), strict=True):
        assert_close(one.data, expected)
    model = randomized(models.LanguageModel(vocabulary_size=9, hidden_size=H, cell=kind))
    assert exported(model, tmp_path).inputs[:2] == ["ids", "lengths"]


@pytest.mark.parametrize("directions", [1, 2])
def test_a_reset_before_the_product_is_a_node(directions, tmp_path):
    layer = nn.Recurrent(ResetBefore(), I, H, L, bidirectional=directions == 2)
    file = exported(randomized(layer), tmp_path)
    assert file.operators() >= {"GRU"}
    computed_alike(file, layer)
    odd = nn.Recurrent(ResetBefore(("relu", ())), I, H)
    with pytest.raises(ExportError, match="'gru_reset_before_relu_sigmoid' cannot be"):
        save(odd, tmp_path / "odd.onnx")


def test_a_kind_with_a_matrix_as_its_state(tmp_path):
    class Fast(nn.StepKind):
        name = "fast_weights"

        def state_shapes(self, layer):
            return {"h": (layer.hidden_size,), "A": (layer.hidden_size, layer.hidden_size)}

        def parameter_shapes(self, layer, input_size):
            return {"weight_ih": (layer.hidden_size, input_size)}

        def step(self, layer, x, states, parameters):
            h, A = states
            A = 0.9 * A + ops.expand_dims(h, 2) * ops.expand_dims(h, 1)
            h = ops.tanh(ops.linear(x, parameters["weight_ih"]) + ops.einsum("bij,bj->bi", A, h))
            return h, A

    layer = randomized(nn.Recurrent(Fast(), I, H))
    file = exported(layer, tmp_path)
    computed_alike(file, layer)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell", "mgu"])
def test_single_steps(name, tmp_path):
    make = getattr(nn, name, None)
    layer = randomized(nn.RecurrentCell(name, I, H) if make is None else make(I, H))
    file = exported(layer, tmp_path)
    names = layer.kind.cell.states
    assert (file.inputs, file.names) == (["x", *names], [f"next_{n}" for n in names])
    x, states = random(B, I), {n: random(B, H, seed=k) for k, n in enumerate(names)}
    given = tuple(states.values())
    after = call(layer, x, given if len(given) > 1 else given[0])
    for one, expected in zip(file(x=x, **states).values(), plain(after), strict=True):
        assert_close(one, expected)


PLACES = np.array([[2, 0], [1, 1]])
FUNCTIONS = {
    "add": lambda m, x: 1 + x + m.vector,
    "subtract": lambda m, x: 1 - (x - m.vector),
    "multiply": lambda m, x: 2.5 * x * m.vector,
    "divide": lambda m, x: 1 / (x * x + m.vector) / m.vector,
    "negative": lambda m, x: -x,
    "abs": lambda m, x: abs(x),
    "sign": lambda m, x: ops.sign(x),
    "exp": lambda m, x: np.exp(x),
    "log": lambda m, x: ops.log(x * x + 0.1),
    "sqrt": lambda m, x: ops.sqrt(x * x),
    "power": lambda m, x: x**3,
    "maximum": lambda m, x: ops.maximum(x, m.vector),
    "minimum": lambda m, x: ops.minimum(0.1, x),
    "where": lambda m, x: ops.where(x > m.vector, x, ops.where([True, False, True], 0.0, -x)),
    "comparisons": lambda m, x: sum(
        ops.where(c, 1.0, x) for c in (x < 0.1, x <= m.vector, x >= 0, x == 0, x != x * 1)
    ),
    "astype": lambda m, x: x.astype("float32") * 2,
    "sigmoid": lambda m, x: ops.sigmoid(x),
    "tanh": lambda m, x: ops.tanh(x),
    "relu": lambda m, x: ops.relu(x),
    "softplus": lambda m, x: ops.softplus(30 * x),
    "softmax": lambda m, x: ops.softmax(x) + ops.softmax(x, axis=0),
    "log_softmax": lambda m, x: ops.log_softmax(x, axis=1),
    "masked_softmax": lambda m, x: ops.masked_softmax(x, [True, False, True])
    + ops.masked_softmax(x, x > 0.3),
    "matmul": lambda m, x: (x @ m.weight.T, x @ m.vector, m.weight @ x.transpose(0, 2, 1)),
    "batches": lambda m, x: (x @ x.transpose(0, 2, 1), m.vector @ x.transpose(0, 2, 1)),
    "linear": lambda m, x: ops.linear(x, m.weight, np.arange(4.0)),
    "conv1d": lambda m, x: (
        ops.conv1d(x, np.ones((2, I, 3), "f"), [1.0, 2.0]),
        ops.conv1d(x[0], m.weight.reshape(2, I, 2), padding="causal"),
    ),
    "layer_norm": lambda m, x: ops.layer_norm(x) + ops.layer_norm(x, m.vector),
    "sum": lambda m, x: (x.sum(), x.sum(axis=(0, -1)), x.sum(axis=1, keepdims=True)),
    "mean": lambda m, x: (x.mean(), x.mean(axis=1), x.mean(axis=(0, 1), keepdims=True)),
    "max": lambda m, x: (x.max(), x.max(axis=-1), x.max(axis=0, keepdims=True)),
    "reshape": lambda m, x: (
        x.reshape(-1), x.reshape(x.shape[0], -1), x.reshape(x.shape[0] * x.shape[1], 3),
        x.reshape(x.shape[1], x.shape[0], 3), x.reshape(-1, 1, 3),
        x.reshape(x.shape[0] * 2 - x.shape[0], x.shape[1] // 1, 1 + x.shape[1] - x.shape[1], 3),
    ),
    "transpose": lambda m, x: (x.T, x.transpose(1, 2, 0), x.transpose(-1, 0, 1)),
    "broadcast_to": lambda m, x: ops.broadcast_to(x[:1], x.shape) + m.vector,
    "concatenate": lambda m, x: (
        ops.concatenate([x, 2 * x], axis=0), ops.concatenate([x, -x, x], axis=-1),
        ops.concatenate([x[0], m.weight], axis=0),
    ),
    "stack": lambda m, x: (ops.stack([x, -x]), ops.stack([x, x + 1], axis=-1)),
    "split": lambda m, x: (ops.split(x, [1], axis=2), ops.split(x, 3, axis=-1)),
    "unstack": lambda m, x: ops.unstack(x, axis=2),
    "getitem": lambda m, x: (
        x[0], x[-1, 1], x[..., 1], x[1:], x[:-1, :, :2], x[::2, 1], x[:, None, 0], x[..., ::-1],
        x[:, :, PLACES], x[None, ..., 0, None], x[:, :, [0, 2]], x[:, :, np.int64(1)], x[::-1],
    ),
    "sin": lambda m, x: ops.sin(3 * x),
    "cos": lambda m, x: np.cos(3 * x),
    "erf": lambda m, x: ops.erf(2 * x),
    "floor": lambda m, x: ops.floor(3 * x),
    "ceil": lambda m, x: ops.ceil(3 * x),
    "round": lambda m, x: (ops.round(3 * x), ops.round(x, 1)),
    "floor_divide": lambda m, x: (x // m.vector, ops.argmax(x, 2) // -2),
    "remainder": lambda m, x: (x % m.vector, (ops.argmax(x, 2) - 1) % 3, 1 % (2 + x * x)),
    "gelu": lambda m, x: (ops.gelu(2 * x), ops.gelu(2 * x, "tanh")),
    "silu": lambda m, x: ops.silu(2 * x),
    "elu": lambda m, x: (ops.elu(x), ops.elu(x, 0.7)),
    "leaky_relu": lambda m, x: (ops.leaky_relu(x), ops.leaky_relu(x, negative_slope=0.3)),
    "cumsum": lambda m, x: (ops.cumsum(x, axis=0), x.cumsum(axis=-1), ops.cumsum(x)),
    "min": lambda m, x: (x.min(), x.min(axis=-1), x.min(axis=(0, 2), keepdims=True)),
    "prod": lambda m, x: (x.prod(axis=-1), x.prod(axis=2, keepdims=True), x.prod(axis=(2, 1))),
    "logsumexp": lambda m, x: (ops.logsumexp(90 * x, axis=-1), ops.logsumexp(x)),
    "flip": lambda m, x: (ops.flip(x, 0), ops.flip(x), ops.flip(x, (0, -1)) + x),
    "roll": lambda m, x: (
        ops.roll(x, 1, 0) + x, ops.roll(x, -9, -1), ops.roll(x, (1, 2), (1, 0)), ops.roll(x, 4),
    ),
    "pad": lambda m, x: (
        ops.pad(x, {0: (2, 1)}, constant_values=3), ops.pad(x, {-1: 1}), ops.pad(x, 1),
        ops.pad(x, {0: 1}, "edge"), ops.pad(x, {2: (1, 2)}, "reflect"), ops.pad(x, {2: 2}, "wrap"),
    ),
}  # fmt: skip
COMPOSED = {
    "argmax": lambda m, x: (ops.argmax(x, 2), x.argmax(0, keepdims=True), np.argmax(x)),
    "argmin": lambda m, x: (ops.argmin(x, 2), x.argmin(-1)),
    "argsort": lambda m, x: (x.argsort(0), x.argsort(0, descending=True), ops.argsort(x, None)),
    "sort": lambda m, x: (ops.sort(x), ops.sort(x, 0, descending=True), np.sort(x, axis=1)),
    "topk": lambda m, x: (*ops.topk(x, 2), *ops.topk(ops.round(x), 1, 0, largest=False)),
    "take_along_axis": lambda m, x: (
        ops.take_along_axis(x, ops.argsort(x), -1), ops.take_along_axis(x, [[[2, 0]]], 2),
        ops.take_along_axis(m.weight, [[0, 1, 1], [2, 3, 0]], 0) * x[0, 0],
        ops.take_along_axis(x, ops.argmax(x, 0, keepdims=True), 0),
    ),
    "clip": lambda m, x: (x.clip(-0.1, 0.5), ops.clip(x, max=0), np.clip(x, m.vector, None)),
    "masked_fill": lambda m, x: (x.masked_fill(x > 0, 3), x.masked_fill([True, False, True], 0)),
    "squeeze": lambda m, x: (x[:, :, None].squeeze(2), ops.squeeze(x[None, ..., None])),
    "expand_dims": lambda m, x: (ops.expand_dims(x, 0), ops.expand_dims(x, (1, -1))),
    "any": lambda m, x: (ops.any(x > 1, axis=2), ops.where((x > 1).any(), x, 0)),
    "all": lambda m, x: (ops.all(x > -1, axis=(0, 2)), ops.all(x, axis=-1, keepdims=True)),
    "var": lambda m, x: (x.var(), x.var(0), x.var((0, 2), keepdims=True, ddof=1), x.var(2, ddof=1)),
    "repeat": lambda m, x: (x.repeat(2, axis=0), ops.repeat(x, 3), ops.repeat(x, [1, 0, 2], 2)),
    "one_hot": lambda m, x: ops.one_hot(ops.argmax(x, 2), 4) + 1,
    "einsum": lambda m, x: (
        ops.einsum("tbi,oi->bto", x, m.weight), ops.einsum("...i,i", x, m.vector),
        ops.einsum("bij,bkj", x, x), ops.einsum("ii->i", ops.einsum("ti,tj->ij", x[:, 0], x[:, 1])),
    ),
    "pad": FUNCTIONS["pad"],
}  # fmt: skip
OTHERS = {
    "std": lambda m, x: (x.std(), x.std(0), x.std(-1, ddof=1), (x * 0).std(0)),
    "norm": lambda m, x: (x.norm(axis=-1), ops.norm(x, 1), ops.norm(x, 3, 0), x.norm(np.inf)),
    "flatten": lambda m, x: (ops.flatten(x), ops.flatten(x, 1), x.flatten(0, 1)),
    "swapaxes": lambda m, x: (x.swapaxes(0, 1), np.swapaxes(x, 0, -1)),
    "glu": lambda m, x: ops.glu(ops.concatenate([x, -x], axis=-1)),
    "cosine_similarity": lambda m, x: ops.cosine_similarity(x, x[..., ::-1], axis=-1),
    "moveaxis": lambda m, x: ops.moveaxis(x, (0, 1), (-1, 0)),
    "tile": lambda m, x: (ops.tile(x, 2), ops.tile(x, (2, 1, 3)), ops.tile(x, (2, 1, 1, 1))),
    "logical": lambda m, x: [
        ops.where(c, x, 0)
        for c in ((x > 0) & (x < 1), (x > 1) | ~(x > 0), (x > 0) ^ [True, False, True])
    ],
}
"""Operations that are made of others, whose parts are written."""


@pytest.mark.parametrize("name", FUNCTIONS | COMPOSED | OTHERS)
def test_an_operation(name, tmp_path):
    module = Of((FUNCTIONS | COMPOSED | OTHERS)[name])
    x = random(T, B, I)
    file = exported(module, tmp_path, example=[np.zeros((8, 2, I), np.float32)])
    expected = call(module, anaphora.Tensor(x))

    def flat(value):
        several = isinstance(value, (tuple, list))
        return [t for v in value for t in flat(v)] if several else [np.asarray(value)]

    again = load(file.path)
    for found, ours, one in zip(file(x=x).values(), again(x), flat(expected), strict=True):
        assert_close(found, one)
        assert found.dtype == one.dtype
        assert_close(np.asarray(ours), one)


def test_every_operation_is_tested():
    inside_models = {"embedding", "additive_scores", "crf_decode", "output_lengths"}
    assert set(symbols.OPERATIONS) == (set(FUNCTIONS) - {"comparisons", "batches"}) | inside_models
    assert set(symbols.COMPOSED) == set(COMPOSED)


# Refusals


def looping(m, x):
    h = 0
    for step in x:
        h = ops.tanh(step + h)
    return h


REFUSED = {
    "numbers": (lambda m, x: x if (x.data > 0).all() else -x, r"uses the numbers of a Tensor"),
    "truth": (lambda m, x: x if x.sum() > 0 else -x, r"uses the numbers of a Tensor"),
    "numpy": (lambda m, x: np.fft.fft(x), r"uses the numbers of a Tensor"),
    "loop": (looping, r"axis 0 .* is split into its elements, but its size is free"),
    "size": (lambda m, x: x.reshape(len(x), -1), r"size of a free axis \(T\) is used as a number"),
    "random": (lambda m, x: ops.gumbel_softmax(x), r"size of a free axis \([TB]\) is used as a"),
    "range": (lambda m, x: np.zeros(x.shape) + x, r"size of a free axis( \([TB]\))? is used as a"),
    "loss": (
        lambda m, x: ops.cross_entropy(x, [0]),
        r"the operation 'cross_entropy' cannot be exported; those that can are abs, add",
    ),
    "mask": (lambda m, x: x[np.array([True, False])], r"the index .* cannot be exported"),
    "constant": (lambda m, x: m.vector * 2, r"output output does not depend on an input"),
    "nothing": (lambda m, x: None, r"its forward returns no Tensor"),
    "error": (lambda m, x: x.missing, r"its forward does not run on the symbols .* 'missing'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_named(name, tmp_path):
    function, message = REFUSED[name]
    net = nn.Sequential(nn.Linear(I, I), Of(function))
    with pytest.raises(ExportError, match=message) as caught:
        save(net, tmp_path / "model.onnx")
    if name not in ("constant", "nothing"):
        assert str(caught.value).startswith("Of (1): ")
    assert not list(tmp_path.iterdir())


def test_unknown_inputs_and_wrong_examples(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"Net has a forward of its own, .* give example="):
        save(Net(), path)
    with pytest.raises(ExportError, match="Net: the example does not fit its forward: missing"):
        save(Net(), path, example=())
    with pytest.raises(ExportError, match=r"Net: the example of ids is <U1; give numbers"):
        save(Net(), path, example=["a"])
    with pytest.raises(ExportError, match=r"the example of ids has the shape \(3, 3\): give one"):
        save(Net(), path, example=[np.zeros((3, 3), int)])
    index = Of(lambda m, x: ops.where(x.max(axis=(1, 2)) > 0, x[:, 3, 0], 0.0))
    with pytest.raises(ExportError, match=r"the model itself fails for random inputs x \("):
        save(index, path, example=[np.zeros((2, 3, I), np.float32)])
    with pytest.raises(TypeError, match="save: str is not a Module"):
        save("model", path)

    class Kind(nn.LayerKind):
        name = "moving_average"

        def state_shapes(self, layer):
            return {"h": (layer.hidden_size,)}

        def parameter_shapes(self, layer, input_size):
            return {"weight_ih": (layer.hidden_size, input_size)}

        def reset_parameters(self, layer, parameters, initialization):
            pass

    with pytest.raises(ExportError, match="layers of the kind 'moving_average' cannot"):
        save(nn.Recurrent(Kind(), I, H), path)
    assert not list(tmp_path.iterdir())


def test_a_difference_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    layer, path = randomized(nn.GRU(I, H)), tmp_path / "model.onnx"
    wrong = layers.Node("GRU", ("r", "z", "n"), (), {"linear_before_reset": 1})
    monkeypatch.setattr(layers, "NODES", ((cells.gru, wrong),))
    with pytest.raises(ExportError, match=r"its output y differs .* by [\d.]+ .* more than 1e-05"):
        save(layer, path)
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"before")
    with pytest.raises(ExportError):
        save(layer, path)
    assert path.read_bytes() == b"before"


def test_a_small_difference_is_an_error_too(tmp_path, monkeypatch):
    monkeypatch.setattr(
        symbols, "OPERATIONS", symbols.OPERATIONS | {"tanh": operations.of_floats("Erf")}
    )
    with pytest.raises(ExportError, match="differs"):
        save(Of(lambda m, x: ops.tanh(x)), tmp_path / "m.onnx", example=[random(2, 3, I)])
    close = symbols.OPERATIONS | {
        "tanh": lambda t, x: t.elementwise("Mul", t.elementwise("Tanh", x), 1 + 3e-5)
    }
    monkeypatch.setattr(symbols, "OPERATIONS", close)
    with pytest.raises(ExportError, match="differs"):
        save(Of(lambda m, x: ops.tanh(x)), tmp_path / "m.onnx", example=[random(2, 3, I)])
    assert not list(tmp_path.iterdir())


def test_without_onnx_runtime_the_file_is_not_compared_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = save(nn.Linear(I, H), tmp_path / "model.onnx")
    assert result.record["files"][0]["largest_difference"] is None
    assert any("not compared: ONNX Runtime is not installed" in line for line in result.lines)
    assert (tmp_path / "model.onnx").exists()


def test_without_onnx_the_message_names_the_extra():
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from pathlib import Path; from anaphora import interop, nn\n"
        "interop.export(nn.Linear(2, 2), Path('model.onnx'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = 'ImportError: ONNX files need an extra: pip install "anaphora[onnx]"'
    assert done.stderr.strip().endswith(expected)


def test_the_bytes_of_a_file_are_reproducible(tmp_path):
    layer = randomized(nn.Recurrent(strange, I, H))
    for name in "ab":
        save(layer, tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


# The command line


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def test_the_command_and_what_info_shows(tmp_path):
    model = randomized(models.LanguageModel(vocabulary_size=3, hidden_size=H))
    model.codec = CharacterTokenizer.fit(["abc"])
    model.save(tmp_path / "model")
    out, _ = run("export", tmp_path / "model", tmp_path / "small.onnx", "--weights", "int8")
    assert "DynamicQuantizeLSTM" in out
    out, _ = run("export", tmp_path / "model", tmp_path / "model.onnx", "--json")
    record = json.loads(out)["files"][0]
    assert record["largest_difference"] < 1e-5
    assert [value["name"] for value in record["inputs"]] == ["ids", "lengths", "h", "c"]
    out, _ = run("info", tmp_path / "model.onnx")
    assert "ids      [T, B] int64\n" in out
    assert "next_c  [1, B, 5] float32\n" in out
    assert "made by anaphora" in out
    out, _ = run("info", tmp_path / "model.onnx", "--json")
    assert json.loads(out)["inputs"]["h"] == "[1, B, 5] float32"
    _, err = run("export", tmp_path / "model", tmp_path / "model.txt", code=2)
    assert "model.txt: its name must end with .onnx" in err
    _, err = run("export", tmp_path / "model", tmp_path / "no" / "model.onnx", code=1)
    assert "No such file or directory" in err


def test_info_of_a_file_that_is_none(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"text")
    (tmp_path / "b.onnx").write_bytes(b"")
    for name in ("a.onnx", "b.onnx"):
        with pytest.raises(ArtifactError, match="is not an ONNX file"):
            describe(tmp_path / name)
        _, err = run("info", tmp_path / name, code=1)
        assert "is not an ONNX file" in err
    with pytest.raises(ArtifactError, match="cannot be read"):
        describe(tmp_path / "c.onnx")


def test_a_failed_command_says_what_cannot_be_exported(tmp_path, monkeypatch):
    models.LanguageModel(vocabulary_size=4, hidden_size=H).save(tmp_path / "model")
    monkeypatch.setattr(layers, "NODES", ())
    monkeypatch.setattr(layers, "FUNCTIONS", {**layers.FUNCTIONS, "sigmoid": "Tanh"})
    _, err = run("export", tmp_path / "model", tmp_path / "model.onnx", code=1)
    assert "its output logits differs from that of the model" in err
    assert not (tmp_path / "model.onnx").exists()
    assert anaphora.load(tmp_path / "model") is not None
