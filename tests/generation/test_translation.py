"""Translating sentences: in their order, whatever else is in the batch, unknown words copied."""

import numpy as np
import pytest

from anaphora import matmul_precision, random
from anaphora.data import DataError, WordTokenizer
from anaphora.generation import Hypothesis, beam_search, translate
from anaphora.generation.translation import _spell
from anaphora.models import EncoderDecoder

SENTENCES = ["a b c a", "c", "b a d d d b", "", "a c", "c"]


@pytest.fixture
def translator():
    random.seed(3)
    tokenizers = {
        "source": WordTokenizer.fit("a a b b c c x", minimum_count=2),
        "target": WordTokenizer.fit("k k l l m m m y", minimum_count=2),
    }
    sizes = (tokenizers[name].vocabulary_size for name in ("source", "target"))
    end = tokenizers["target"].start_id
    model = EncoderDecoder(*sizes, hidden_size=6, end_id=end, initialization=1.0, dtype="float64")
    with model.decoder.output.bias.writing() as bias:
        bias[end] -= 3  # so that not all translations are empty
    return model.eval(), tokenizers


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_each_sentence_is_translated_as_if_alone(translator, batch_size):
    model, tokenizers = translator
    found = translate(model, tokenizers, SENTENCES, 3, length_penalty=0.5, batch_size=batch_size)
    assert len({one.text for one in found}) > 2
    for sentence, one in zip(SENTENCES, found, strict=True):
        ids = tokenizers["source"].encode(sentence + "\n")[:, None]
        # The limit is that of the batch; what has not ended by then may differ.
        if one.hypothesis.ended and len(one.hypothesis.ids) < 2 * len(ids) + 10:
            best = beam_search(model, ids, [len(ids)], 3, 2 * len(ids) + 10, 0.5)[0][0]
            assert one.hypothesis.ids.tolist() == best.ids.tolist()
            assert one.hypothesis.score == pytest.approx(best.score)


def test_an_unknown_word_is_the_one_with_most_attention():
    tokenizer = WordTokenizer.fit("k k l l y", minimum_count=2)
    unknown, k = tokenizer.unknown_id, tokenizer.encode("k")[0]
    # Most attention of the last unknown word is on the source's end, which is no word.
    weights = np.array([[0.1, 0.7, 0.2], [0.9, 0.1, 0], [0.3, 0.2, 0.5], [1, 0, 0]])
    hypothesis = Hypothesis(np.array([unknown, k, unknown]), -1.0, -0.5, True, weights)
    assert _spell(hypothesis, tokenizer, ["Ann", "Bob"]) == ["Bob", "k", "Ann"]
    blind = Hypothesis(hypothesis.ids, -1.0, -0.5, True)
    assert _spell(blind, tokenizer, ["Ann", "Bob"]) == ["<unk>", "k", "<unk>"]


def test_sentences_that_cannot_be_translated_are_named(translator):
    model, tokenizers = translator
    with pytest.raises(DataError, match="sentence 2: it has a line end, which ends a sentence"):
        translate(model, tokenizers, ["a", "b\nc"])
    known = {**tokenizers, "source": WordTokenizer.fit("a b c d")}
    with pytest.raises(DataError, match="sentence 3: the word 'z' is not in the vocabulary of 5"):
        translate(model, known, ["a", "b", "c z"])


def test_translations_are_searched_in_the_precision_of_the_call():
    """Their log-probabilities are those of the model that reads them, in this precision."""
    random.seed(3)
    tokenizers = {"source": WordTokenizer.fit("a b c d"), "target": WordTokenizer.fit("k l m n")}
    end = tokenizers["target"].start_id
    model = EncoderDecoder(5, 5, hidden_size=24, end_id=end, initialization=0.4).eval()

    def log_probability(sentence, ids):
        source = tokenizers["source"].encode(sentence + "\n")[:, None]
        logits = model(source, np.array([[end], *([id] for id in ids)]))[0].data[:, 0]
        targets = [*ids, end][: len(logits)]
        totals = np.log(np.exp(logits).sum(axis=1))
        return [logits[t, id] - totals[t] for t, id in enumerate(targets)]

    scores = {}
    for precision in ("float32", "bfloat16"):
        with matmul_precision(precision):
            (found,) = translate(model, tokenizers, ["a b c a"])
            ended = found.hypothesis.ended
            values = log_probability("a b c a", found.hypothesis.ids)
        expected = sum(values if ended else values[:-1])
        scores[precision] = found.hypothesis.log_probability, expected
    for value, expected in scores.values():
        assert value == pytest.approx(expected, rel=1e-4)
    assert abs(scores["bfloat16"][0] - scores["float32"][0]) > 1e-3
