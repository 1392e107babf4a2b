"""Initial states that are trained: gradients, model directories, sessions, messages."""

import numpy as np
import pytest

from anaphora import interop, models, nn, optim, random
from anaphora.data import Batch, PairBatch
from anaphora.models import (
    EncoderDecoder,
    LanguageModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    VectorToSequence,
)
from anaphora.tensor import no_grad

T, B, I, H, V, C = 5, 3, 4, 6, 9, 7
RNG = np.random.default_rng(2)
IDS, LENGTHS = RNG.integers(0, V, (T, B)), np.array([5, 0, 3])
X = RNG.standard_normal((T, B, I))
TAGS = np.where(np.arange(T)[:, None] < LENGTHS, RNG.integers(0, C, (T, B)), -100)
CLASSES = RNG.integers(0, C, B)
COMMON = {"hidden_size": H, "trainable_state": True}

MODELS = {
    "language model": (
        lambda **o: LanguageModel(V, num_layers=2, **COMMON, **o),
        Batch(IDS, np.where(TAGS < 0, -100, IDS), LENGTHS),
    ),
    "tagger": (
        lambda **o: SequenceTagger(C, input_size=I, cell="gru", bidirectional=True, **COMMON, **o),
        Batch(X, TAGS, LENGTHS),
    ),
    "classifier": (
        lambda **o: SequenceClassifier(
            C, input_size=I, cell="mgu", bidirectional=True, **COMMON, **o
        ),
        Batch(X, CLASSES, LENGTHS),
    ),
    "regressor": (
        lambda **o: SequenceRegressor(2, vocabulary_size=V, pooling="mean", **COMMON, **o),
        Batch(IDS, RNG.standard_normal((B, 2)), LENGTHS),
    ),
    "kind of steps": (
        lambda **o: SequenceTagger(C, input_size=I, cell="mogrifier_lstm", **COMMON, **o),
        Batch(X, TAGS, LENGTHS),
    ),
    "encoder and decoder": (
        lambda **o: EncoderDecoder(V, C, bidirectional=True, attention="additive", **COMMON, **o),
        PairBatch(TAGS.clip(0), TAGS, source=IDS, source_lengths=LENGTHS.clip(1)),
    ),
}  # fmt: skip


def made(name, dtype):
    """A model whose initial states are random, and their names."""
    random.seed(4)
    model = MODELS[name][0](dtype=dtype, initialization=0.5)
    names = [n for n, _ in model.named_parameters() if ".initial_" in n]
    assert names
    rng = np.random.default_rng(5)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name in names:
            assert not parameter.data.any()  # where they start
            with parameter.writing() as array:
                array[...] = rng.standard_normal(array.shape)
    return model, names


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_initial_states_are_those_of_central_differences(name):
    model, names = made(name, "float64")
    batch = MODELS[name][1]
    loss, _ = model.loss(batch)
    loss.backward()
    parameters = dict(model.named_parameters())
    for one in names:
        parameter = parameters[one]
        assert np.abs(parameter.grad).max() > 1e-6, one
        numeric = np.zeros(H if "encoder" not in name else H // 2)
        for unit in range(len(numeric)):
            ends = []
            for step in (1e-6, -1e-6):
                with parameter.writing() as array:
                    array[unit] += step
                ends.append(model.loss(batch)[0].item())
                with parameter.writing() as array:
                    array[unit] -= step
            numeric[unit] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(parameter.grad, numeric, atol=1e-8, err_msg=one)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_they_are_saved_and_loaded(name, dtype, tmp_path):
    model, names = made(name, dtype)
    model.save(tmp_path / "model")
    assert '"trainable_state": true' in (tmp_path / "model" / "config.json").read_text()
    loaded = models.load(tmp_path / "model")
    assert loaded.trainable_state
    for one in names:
        np.testing.assert_array_equal(loaded.state_dict()[one], model.state_dict()[one])
    batch = MODELS[name][1]
    assert loaded.loss(batch)[0].item() == model.loss(batch)[0].item()


def test_a_model_saved_before_starts_at_zero(tmp_path):
    LanguageModel(V, hidden_size=H).save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        "\n".join(line for line in text.splitlines() if "trainable_state" not in line),
        encoding="utf-8",
    )
    assert not models.load(tmp_path / "model").trainable_state


@pytest.mark.parametrize(
    ("name", "dtype", "weights"),
    [
        ("language model", "float32", "float32"),
        ("language model", "float64", "float32"),
        ("language model", "float32", "int8"),
        ("kind of steps", "float64", "float32"),
    ],
)
def test_sessions_begin_with_them(name, dtype, weights):
    model, _ = made(name, dtype)
    model.eval().use_int8(weights == "int8")
    inputs = IDS if name == "language model" else X.astype(dtype)
    with no_grad():
        expected = model(inputs)[0].data
    session = model.session(B)
    np.testing.assert_allclose(session.feed(inputs), expected, rtol=1e-5, atol=1e-5)
    session.reset()
    found = [session.feed(step) for step in inputs]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    start = model.recurrent.initial_state(B)
    model.recurrent.trainable_state = False
    with no_grad():
        assert np.abs(model(inputs)[0].data - expected).max() > 1e-2
        given = model(inputs, tuple(start.values()))[0].data
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


def test_windows_of_a_stream_train_them_in_the_first_only():
    model, names = made("language model", "float64")
    optimizer = optim.Adam(model.parameters(), learning_rate=0.1)
    batch, state = Batch(IDS, IDS), None
    before = model.state_dict()
    for _ in range(2):
        model.zero_grad()
        loss, state = model.loss(batch, state)
        state = tuple(s.detach() for s in state)
        loss.backward()
        trained = dict(model.named_parameters())[names[0]].grad is not None
        optimizer.step()
        assert trained == (before is not None)
        before = None


def test_what_cannot_have_them_says_so(tmp_path):
    with pytest.raises(ValueError, match="VectorToSequence: the initial states are made of the v"):
        VectorToSequence(I, V, hidden_size=H, trainable_state=True)
    model, _ = made("language model", "float32")
    with pytest.raises(ValueError, match="has trained initial states, and what is exported start"):
        interop.c.export(model, tmp_path / "c")
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=r"trained initial states \(trainable_state\) cannot be"):
        interop.onnx.save(model, tmp_path / "m.onnx")
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="LSTM: trainable_state has no equivalent in PyTorch"):
        interop.torch.to_torch(nn.LSTM(I, H, trainable_state=True))
