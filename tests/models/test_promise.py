"""The numerical promise, by equality: for every model the bits of a row do not depend on the number
of threads, on the other rows of the batch, or on padding.
"""

from dataclasses import replace

import numpy as np
import pytest

from anaphora import engine, ops, random
from anaphora.data import Batch, PairBatch, SpelledBatch
from anaphora.models import (
    EncoderDecoder,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    VectorToSequence,
)
from anaphora.tensor import Tensor

pytestmark = pytest.mark.skipif(
    engine.info()["engine"] != "native", reason="models do not run on the native engine"
)

THREADS = [1, 2, 3, 5]
B, V, I = 5, 11, 3
# Lengths around a line of 16 numbers, and products that AMX would make in another way from 96 on.
SOURCE_LENGTHS = np.array([17, 1, 9, 16, 3])
LENGTHS = np.array([6, 2, 7, 1, 4])
PADDED = [30, 100]


@pytest.fixture(autouse=True)
def settings():
    """The number of threads is restored, and weights are the same for every test."""
    before = engine.info()["threads"]
    random.seed(3)
    yield
    engine.set_num_threads(before)


@pytest.fixture(params=["float32", "float64", "bfloat16"])
def dtype(request):
    """The dtype of models; bfloat16 is that of float32's products."""
    with engine.matmul_precision("bfloat16" if request.param == "bfloat16" else "float32"):
        yield "float64" if request.param == "float64" else "float32"


def widened(model):
    """A model with weights that are large enough to tell its rows apart, in evaluation."""
    for parameter in model.parameters():
        with parameter.writing() as array:
            array *= 2
    return model.eval()


def padded(array, length, value):
    """The array with more steps, of another value."""
    more = np.full((length - len(array), *array.shape[1:]), value, array.dtype)
    return np.concatenate([array, more])


def assert_steps_equal(found, expected, lengths, rows=None):
    """[T, B, ...] arrays are equal within the lengths of the rows."""
    for k, row in enumerate(range(len(lengths)) if rows is None else rows):
        np.testing.assert_array_equal(found[: lengths[row], k], expected[: lengths[row], row])


def assert_promise(run, alone, wide, lengths):
    """All ways of computing steps [T, B, ...] give the bits of the first."""
    engine.set_num_threads(1)
    expected = run()
    assert np.isfinite(expected).all()
    assert len(np.unique(expected[0])) > B  # rows differ
    for threads in THREADS:
        engine.set_num_threads(threads)
        np.testing.assert_array_equal(run(), expected)
        for found in wide():
            assert_steps_equal(found, expected, lengths)
        for rows in ([0], [3], [4, 2], [1, 2, 3, 4]):
            assert_steps_equal(alone(rows), expected, lengths, rows)


# Sequence to sequence ----------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "hidden_size"), [("lstm", 26), ("gru", 104)])
@pytest.mark.parametrize("attention", [None, "additive", "multiplicative"])
def test_encoder_decoder(attention, cell, hidden_size, dtype, rng):
    model = widened(
        EncoderDecoder(
            V, V + 2, hidden_size=hidden_size, embedding_size=7, num_layers=2, attention=attention,
            cell=cell, dtype=dtype,
        )
    )  # fmt: skip
    source = rng.integers(1, V, (SOURCE_LENGTHS.max(), B))
    inputs = rng.integers(1, V + 2, (LENGTHS.max(), B))

    def run(source=source, inputs=inputs, rows=slice(None)):
        return model(source, inputs, SOURCE_LENGTHS[rows], LENGTHS[rows])[0].data

    def alone(rows):
        sources, steps = SOURCE_LENGTHS[rows].max(), LENGTHS[rows].max()
        return run(source[:sources, rows], inputs[:steps, rows], rows)

    def wide():
        for length in PADDED:
            yield run(padded(source, length, 5))
            yield run(padded(source, length, 5), padded(inputs, length, 6))

    assert_promise(run, alone, wide, LENGTHS)


@pytest.mark.parametrize("attention", ["additive", "multiplicative"])
def test_weights_of_attention(attention, dtype, rng):
    model = EncoderDecoder(V, V, hidden_size=26, attention=attention, dtype=dtype).eval()
    source, inputs = rng.integers(1, V, (17, B)), rng.integers(1, V, (7, B))
    expected = model(source, inputs, SOURCE_LENGTHS, LENGTHS)[1].data
    for length in PADDED:
        found = model(padded(source, length, 5), inputs, SOURCE_LENGTHS, LENGTHS)[1].data
        np.testing.assert_array_equal(found[:, :, :17], expected)
        assert not found[:, :, 17:].any()


@pytest.mark.parametrize("attention", [None, "additive", "multiplicative"])
def test_the_loss_of_a_padded_batch(attention, dtype, rng):
    model = EncoderDecoder(V, V, hidden_size=26, attention=attention, dtype=dtype).eval()
    source, inputs = rng.integers(1, V, (17, B)), rng.integers(1, V, (7, B))
    targets = np.where(np.arange(7)[:, None] < LENGTHS, rng.integers(0, V, (7, B)), -100)
    batch = PairBatch(
        inputs, targets, source=source, source_lengths=SOURCE_LENGTHS, lengths=LENGTHS
    )
    expected = model.loss(batch)[0].item()
    for length in PADDED:
        longer = replace(
            batch,
            inputs=padded(inputs, length, 5),
            targets=padded(targets, length, -100),
            source=padded(source, length, 6),
        )
        assert model.loss(longer)[0].item() == expected


def test_captioner(dtype, rng):
    model = widened(
        VectorToSequence(I, V, hidden_size=26, embedding_size=7, num_layers=2, dtype=dtype)
    )
    vectors, inputs = rng.standard_normal((B, I)).astype(dtype), rng.integers(1, V, (7, B))

    def run(inputs=inputs, rows=slice(None)):
        return model(vectors[rows], inputs, lengths=LENGTHS[rows])[0].data

    assert_promise(
        run,
        lambda rows: run(inputs[: LENGTHS[rows].max(), rows], rows),
        lambda: (run(padded(inputs, length, 5)) for length in PADDED),
        LENGTHS,
    )


# Taggers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("crf", [False, True])
def test_tagger_with_characters(crf, dtype, rng):
    model = widened(
        SequenceTagger(
            4, hidden_size=13, vocabulary_size=V, num_characters=9, num_layers=2,
            bidirectional=True, crf=crf, dtype=dtype,
        )
    )  # fmt: skip
    words, letters = rng.integers(0, V, (7, B)), rng.integers(0, 9, (17, 7, B))
    counts = rng.integers(1, 18, (7, B))

    def run(words=words, letters=letters, counts=counts, rows=slice(None)):
        batch = SpelledBatch(
            words, words, LENGTHS[rows], characters=letters, character_lengths=counts
        )
        scores = model.scores(batch)
        tags = model.answers(scores, batch.lengths)[..., None]
        return np.concatenate([scores.data, model.probabilities(scores, batch.lengths), tags], -1)

    def alone(rows):
        steps = LENGTHS[rows].max()
        spelled = counts[:steps, rows]
        return run(words[:steps, rows], letters[: spelled.max(), :steps, rows], spelled, rows)

    def wide():
        for length in PADDED:
            yield run(letters=padded(letters, length, 3))
            more = np.swapaxes(padded(np.swapaxes(letters, 0, 1), length, 3), 0, 1)
            yield run(padded(words, length, 2), more, padded(counts, length, 1))

    assert_promise(run, alone, wide, LENGTHS)


def test_the_loss_of_a_padded_tagging(dtype, rng):
    model = SequenceTagger(4, hidden_size=13, input_size=I, bidirectional=True, dtype=dtype).eval()
    inputs = rng.standard_normal((7, B, I)).astype(dtype)
    targets = np.where(np.arange(7)[:, None] < LENGTHS, rng.integers(0, 4, (7, B)), -100)
    expected = model.loss(Batch(inputs, targets, LENGTHS))[0].item()
    for length in PADDED:
        batch = Batch(padded(inputs, length, 9.0), padded(targets, length, -100), LENGTHS)
        assert model.loss(batch)[0].item() == expected


# One answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("hidden_size", [1, 13])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_pooling(bidirectional, pooling, hidden_size, kind, dtype, rng):
    model = widened(
        kind(
            4, hidden_size=hidden_size, input_size=I, pooling=pooling, layer_norm=hidden_size > 1,
            bidirectional=bidirectional, dtype=dtype,
        )
    )  # fmt: skip
    lengths = np.array([17, 1, 9, 16, 30])
    inputs = rng.standard_normal((30, B, I)).astype(dtype)

    def run(inputs=inputs, rows=slice(None)):
        answers = model.answer(model(inputs, lengths[rows]))
        return np.asarray(getattr(answers, "data", answers))[None]

    assert_promise(
        run,
        lambda rows: run(inputs[: lengths[rows].max(), rows], rows),
        lambda: (run(padded(inputs, length, 9.0)) for length in (31, 100)),
        np.ones(B, int),
    )


# Connectionist temporal classification -----------------------------------------------------------


def test_ctc(dtype, rng):
    model = widened(SequenceTagger(V, hidden_size=13, input_size=I, dtype=dtype))
    inputs = rng.standard_normal((17, B, I)).astype(dtype)
    targets, counts = rng.integers(1, V, (4, B)), np.array([4, 0, 3, 4, 1])

    def run(inputs=inputs, targets=targets, rows=slice(None)):
        logits = Tensor(model(inputs, lengths=SOURCE_LENGTHS[rows])[0].data, requires_grad=True)
        losses = ops.ctc_loss(logits, targets, SOURCE_LENGTHS[rows], counts[rows], reduction="none")
        losses.backward(np.ones_like(losses.data))
        of_steps = np.broadcast_to(losses.data[None, :, None], (len(logits), len(losses), 1))
        return np.concatenate([logits.grad, of_steps], axis=2)

    assert_promise(
        run,
        lambda rows: run(
            inputs[: SOURCE_LENGTHS[rows].max(), rows], targets[: counts[rows].max(), rows], rows
        ),
        lambda: (run(padded(inputs, n, 9.0), padded(targets, n, 1)) for n in PADDED),
        SOURCE_LENGTHS,
    )


# Operations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_gradients_of_attention_in_a_padded_memory(kind, dtype, rng):
    from anaphora.models.decoder import ATTENTIONS

    attention = ATTENTIONS[kind](6, 5, dtype=dtype)
    queries, states = rng.standard_normal((7, B, 6)), rng.standard_normal((17, B, 5))
    dy = rng.standard_normal((7, B, 5)).astype(dtype)

    def run(length, queries=queries, rows=slice(None)):
        q = Tensor(queries[:, rows].astype(dtype), requires_grad=True)
        s = Tensor(padded(states, length, 0.0)[:, rows].astype(dtype), requires_grad=True)
        contexts, _ = attention(q, s, SOURCE_LENGTHS[rows])
        contexts.backward(dy[:, rows])
        return contexts.data, q.grad, s.grad

    expected = run(17)
    for length in PADDED:
        contexts, d_queries, d_states = run(length)
        np.testing.assert_array_equal(contexts, expected[0])
        np.testing.assert_array_equal(d_queries, expected[1])
        np.testing.assert_array_equal(d_states[:17], expected[2])
        assert not d_states[17:].any()
    for b in range(B):
        for found, together in zip(run(17, rows=slice(b, b + 1)), expected, strict=True):
            np.testing.assert_array_equal(found[:, 0], together[:, b])


# Gradients ---------------------------------------------------------------------------------------


def gradients(model, batch):
    """The gradients of all parameters, by name."""
    model.zero_grad()
    model.loss(batch)[0].backward()
    return {name: np.asarray(p.grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("attention", [None, "additive", "multiplicative"])
def test_gradients_of_an_encoder_decoder(attention, dtype, rng):
    model = EncoderDecoder(V, V, hidden_size=26, attention=attention, dtype=dtype)
    source, inputs = rng.integers(1, V, (17, B)), rng.integers(1, V, (7, B))
    targets = np.where(np.arange(7)[:, None] < LENGTHS, inputs, -100)
    batch = PairBatch(
        inputs, targets, source=source, source_lengths=SOURCE_LENGTHS, lengths=LENGTHS
    )
    assert_gradients_of_threads(model, batch)
    expected = gradients(model, batch)
    for length in PADDED:  # weights of which AMX too sums the gradients in chains: H < 64
        found = gradients(model, replace(batch, source=padded(source, length, 5)))
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_gradients_of_a_classifier(pooling, dtype, rng):
    model = SequenceClassifier(4, hidden_size=13, input_size=I, pooling=pooling, dtype=dtype)
    inputs = rng.standard_normal((17, B, I)).astype(dtype)
    assert_gradients_of_threads(model, Batch(inputs, rng.integers(0, 4, B), SOURCE_LENGTHS))


@pytest.mark.parametrize("crf", [False, True])
def test_gradients_of_a_tagger_with_characters(crf, dtype, rng):
    model = SequenceTagger(
        4, hidden_size=13, vocabulary_size=V, num_characters=9, crf=crf, dtype=dtype
    )
    words, letters = rng.integers(0, V, (7, B)), rng.integers(0, 9, (5, 7, B))
    tags = np.where(np.arange(7)[:, None] < LENGTHS, rng.integers(0, 4, (7, B)), -100)
    counts = rng.integers(1, 6, (7, B))
    assert_gradients_of_threads(model, SpelledBatch(words, tags, LENGTHS, letters, counts))


def assert_gradients_of_threads(model, batch):
    engine.set_num_threads(THREADS[0])
    expected = gradients(model, batch)
    assert all(array.any() for array in expected.values())
    for threads in THREADS[1:]:
        engine.set_num_threads(threads)
        for name, array in gradients(model, batch).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
