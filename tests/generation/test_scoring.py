"""Scoring: the log-probability of each token, whatever else is in the batch."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from anaphora import engine, matmul_precision, random
from anaphora.data import BPETokenizer, CharacterTokenizer, DataError, WordTokenizer
from anaphora.generation import TextScore, reading, score
from anaphora.generation.scoring import log_probabilities, score_ids
from anaphora.models import LanguageModel
from anaphora.training import evaluate, evaluation_batches
from anaphora.training.options import TextOptions

LINES = ["the cat saw the dog", "", "a dog", "the the the cat cat saw a a dog the cat", "dog"]
TEXT = "".join(line + "\n" for line in LINES)


def make(tokenizer, **options):
    random.seed(3)
    return LanguageModel(tokenizer.vocabulary_size, hidden_size=6, initialization=0.8, **options)


def by_hand(model, context, ids):
    """The log-probabilities of one sequence, from the logits of all of it."""
    read = [*context, *ids]
    logits, _ = model.eval()(np.array(read[:-1])[:, None])
    z = logits.data[:, 0].astype(np.float64)
    log_p = (
        z
        - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True))
        - z.max(1, keepdims=True)
    )
    values = [log_p[t, id] for t, id in enumerate(read[1:])]
    return np.array(values[max(0, len(context) - 1) :])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("window", [3, 256])
def test_the_values_are_those_of_the_model_itself(dtype, tolerance, window, monkeypatch):
    monkeypatch.setattr(reading, "_WINDOW", window)
    tokenizer = CharacterTokenizer.fit(TEXT)
    model = make(tokenizer, dtype=dtype, num_layers=2, cell="gru", dropout=0.5)
    newline = int(tokenizer.encode("\n")[0])
    found = list(score(model, tokenizer, LINES, batch_size=2))
    assert model.training
    for line, one in zip(LINES, found, strict=True):
        expected = by_hand(model, [newline], tokenizer.encode(line + "\n"))
        assert "".join(one.tokens) == line + "\n"
        assert_allclose(one.log_probabilities, expected, rtol=tolerance)
        assert one.log_probability == pytest.approx(expected.sum(), rel=tolerance)
        assert one.perplexity == pytest.approx(math.exp(-expected.mean()), rel=1e-5)


def test_all_continuations_of_a_context_have_probability_one():
    tokenizer = CharacterTokenizer.fit("abc\n")
    model = make(tokenizer, dtype="float64")
    pairs = [[a, b] for a in range(4) for b in range(4)]
    total = sum(math.exp(values.sum()) for values in score_ids(model, pairs, [2, 1]))
    assert total == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_do_not_depend_on_what_is_read_beside(dtype, monkeypatch):
    tokenizer = WordTokenizer.fit([TEXT])
    model = make(tokenizer, dtype=dtype)
    alone = [next(score(model, tokenizer, [line], batch_size=1)) for line in LINES]
    for window in (2, 256):
        monkeypatch.setattr(reading, "_WINDOW", window)
        for batch_size in (1, 2, 32):
            for one, expected in zip(
                score(model, tokenizer, iter(LINES), batch_size=batch_size), alone, strict=True
            ):
                assert one.tokens == expected.tokens
                assert_array_equal(one.log_probabilities, expected.log_probabilities)


@pytest.mark.parametrize("sentence_start", [False, True])
def test_the_sum_over_the_lines_is_the_loss_of_their_evaluation(sentence_start):
    tokenizer = WordTokenizer.fit([TEXT], sentence_start=sentence_start)
    model = make(tokenizer, dtype="float64")
    options = TextOptions(level="word", batching="sentences", sentence_start=sentence_start)
    batches = evaluation_batches(options, tokenizer, tokenizer.encode(TEXT), batch_size=2)
    expected = evaluate(model, batches)
    found = list(score(model, tokenizer, LINES))
    assert sum(len(one.tokens) for one in found) == expected.tokens
    assert sum(one.log_probability for one in found) == pytest.approx(
        -expected.loss * expected.tokens, rel=1e-12
    )


@pytest.mark.parametrize("sentence_start", [False, True])
def test_words_and_the_end_of_their_line(sentence_start):
    tokenizer = WordTokenizer.fit([TEXT], minimum_count=3, sentence_start=sentence_start)
    model = make(tokenizer, dtype="float64")
    text = "the emu saw"
    (complete,) = score(model, tokenizer, [text])
    (without,) = score(model, tokenizer, [text], end=False)
    assert complete.tokens == ["the", "<unk>", "<unk>", "<eos>"]
    assert without.tokens == complete.tokens[:-1]
    start = tokenizer.sentence_start_id if sentence_start else tokenizer.start_id
    ids = tokenizer.encode(text)[1 if sentence_start else 0 :]
    assert_allclose(complete.log_probabilities, by_hand(model, [start], ids), rtol=1e-12)
    assert_array_equal(without.log_probabilities, complete.log_probabilities[:-1])
    (nothing,) = score(model, tokenizer, [""], end=False)
    assert nothing.tokens == []
    assert nothing.log_probability == 0
    assert math.isnan(nothing.perplexity)


@pytest.mark.parametrize(
    "tokenizer", [CharacterTokenizer.fit("abc"), CharacterTokenizer.fit("abc\ufffd")], ids=str
)
def test_without_a_line_end_the_first_character_is_not_predicted(tokenizer):
    model = make(tokenizer, dtype="float64")
    found, empty, single = score(model, tokenizer, ["abca", "", "b"])
    assert found.tokens == list("abca")
    assert math.isnan(found.log_probabilities[0])
    expected = by_hand(model, [], tokenizer.encode("abca"))
    assert_allclose(found.log_probabilities[1:], expected, rtol=1e-12)
    assert found.perplexity == pytest.approx(math.exp(-expected.mean()), rel=1e-12)
    assert (empty.tokens, single.tokens) == ([], ["b"])
    assert math.isnan(empty.perplexity)
    assert math.isnan(single.perplexity)


def test_byte_pairs():
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer.fit([TEXT] * 3, vocabulary_size=265)
    model = make(tokenizer, dtype="float64")
    (found,) = score(model, tokenizer, ["the ☃"])
    newline = tokenizer.encode("\n")
    assert_allclose(
        found.log_probabilities, by_hand(model, newline, tokenizer.encode("the ☃\n")), rtol=1e-12
    )


def test_texts_are_taken_as_they_are_needed():
    tokenizer = CharacterTokenizer.fit(TEXT)
    taken = []

    def texts():
        for number in range(100):
            taken.append(number)
            yield "the"

    next(score(make(tokenizer), tokenizer, texts(), batch_size=1))
    assert len(taken) == 16


def test_perplexity_is_infinite_where_it_is_too_large():
    assert TextScore(["a"], np.array([-1e4])).perplexity == math.inf


def test_messages():
    tokenizer = CharacterTokenizer.fit(TEXT)
    model = make(tokenizer)
    with pytest.raises(ValueError, match="score: batch_size is 0; expected at least 1"):
        score(model, tokenizer, ["the"], batch_size=0)
    with pytest.raises(DataError, match=r"'x' \(U\+0078\) at line 1, column 1"):
        list(score(model, tokenizer, ["x"]))
    bias = np.full(tokenizer.vocabulary_size, np.nan, np.float32)
    model.load_state_dict({**model.state_dict(), "output.bias": bias})
    with pytest.raises(ValueError, match="score: the model's scores are NaN or infinite; its"):
        list(score(model, tokenizer, ["the"]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_probabilities_of_logits_have_the_bits_of_the_scores(dtype):
    tokenizer = CharacterTokenizer.fit(TEXT)
    model = make(tokenizer, dtype=dtype, num_layers=2)
    ids = [int(id) for id in tokenizer.encode(TEXT)]
    (expected,) = score_ids(model, [ids])
    found = log_probabilities(model.session().feed(ids[:-1]))
    at_targets = found[np.arange(len(ids) - 1), ids[1:]]
    if engine.info()["engine"] == "native":
        assert_array_equal(at_targets, expected[1:].astype(dtype))
    else:
        assert_allclose(at_targets, expected[1:], rtol=1e-5)
    assert_allclose(np.exp(found.astype(np.float64)).sum(1), 1, rtol=1e-5)


def test_texts_are_scored_in_the_precision_of_the_call():
    tokenizer = CharacterTokenizer.fit(TEXT)
    model = make(tokenizer, num_layers=2)
    start = [int(id) for id in tokenizer.encode("\n")]
    with matmul_precision("bfloat16"):
        found = score(model, tokenizer, LINES, batch_size=2)
        ids = [[int(id) for id in tokenizer.encode(line + "\n")] for line in LINES]
        expected = [by_hand(model, start, one) for one in ids]
    for one, values, line in zip(found, expected, score(model, tokenizer, LINES), strict=True):
        assert_allclose(one.log_probabilities, values, atol=2e-4)
        away = np.abs(one.log_probabilities - line.log_probabilities)
        assert away.max() > 5 * np.abs(one.log_probabilities - values).max()
