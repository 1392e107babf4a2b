"""Beam search against a plain one of a single row and all sequences, and its promises."""

import itertools

import numpy as np
import pytest

from anaphora import optim, random
from anaphora.data import pair_batches
from anaphora.generation import beam_search, greedy_search
from anaphora.models import EncoderDecoder, VectorToSequence

V, S, B, I, END = 6, 5, 4, 3, 2
LENGTHS = [5, 1, 3, 4]


def make(attention="multiplicative", V=V, seed=1, end_bias=1.0, **options):
    """A model that is not sure of anything, and ends now and then."""
    random.seed(seed)
    model = EncoderDecoder(
        7,
        V,
        hidden_size=4,
        embedding_size=3,
        attention=attention,
        end_id=END,
        initialization=1.5,
        dtype="float64",
        **options,
    )
    with model.decoder.output.bias.writing() as bias:
        bias[END] += end_bias
    return model


@pytest.fixture
def source(rng):
    return rng.integers(0, 7, (S, B))


def log_probabilities(model, source, length, prefix):
    """Of every next token of one sequence: all of it is read again."""
    inputs = np.array([[END], *([id] for id in prefix)])
    logits, _ = model(source[:length, None], inputs)
    last = logits.data[-1, 0]
    return last - np.log(np.exp(last).sum())


def repeats(ids, n):
    ngrams = [tuple(ids[k : k + n]) for k in range(len(ids) - n + 1)]
    return n > 0 and len(set(ngrams)) < len(ngrams)


def plain_beam_search(model, source, length, beam_size, max_length, penalty=1.0, n=0):
    """One row, with lists: (ids, log-probability, score, ended), best first."""
    live, found = [((), 0.0)], []
    for _ in range(max_length):
        longer = [
            ((*ids, id), total + p)
            for ids, total in live
            for id, p in enumerate(log_probabilities(model, source, length, ids))
            if not repeats((*ids, id), n)
        ]
        longer.sort(key=lambda one: -one[1])
        for ids, total in longer[:beam_size]:
            if ids[-1] == END:
                found.append((ids[:-1], total, total / len(ids) ** penalty, True))
        live = [one for one in longer if one[0][-1] != END][:beam_size]
        found.sort(key=lambda one: -one[2])
        if not live:
            break
        best_left = live[0][1] / len(live[0][0]) ** penalty
        if len(found) >= beam_size and best_left <= found[beam_size - 1][2]:
            break
    else:
        found += [(ids, total, total / len(ids) ** penalty, False) for ids, total in live]
    return sorted(found, key=lambda one: (not one[3], -one[2]))[:beam_size]


@pytest.mark.parametrize("attention", [None, "additive", "multiplicative"])
@pytest.mark.parametrize("beam_size", [1, 2, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_batch_finds_what_a_plain_search_of_each_row_finds(source, attention, beam_size, penalty):
    model = make(attention, num_layers=2, cell="gru" if attention is None else "lstm")
    found = beam_search(model, source, LENGTHS, beam_size, 6, penalty)
    for b, length in enumerate(LENGTHS):
        expected = plain_beam_search(model, source[:, b], length, beam_size, 6, penalty)
        assert [(tuple(h.ids), h.ended) for h in found[b]] == [(w[0], w[3]) for w in expected]
        for hypothesis, (_, total, score, _) in zip(found[b], expected, strict=True):
            np.testing.assert_allclose(hypothesis.log_probability, total, atol=1e-10)
            np.testing.assert_allclose(hypothesis.score, score, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("beam_size", [1, 4])
def test_no_ngram_occurs_twice_where_that_is_asked(source, beam_size, n):
    model = make("additive", end_bias=-3.0)
    plain = beam_search(model, source, LENGTHS, beam_size, 8)
    found = beam_search(model, source, LENGTHS, beam_size, 8, no_repeat_ngram=n)
    assert any(repeats(h.ids.tolist(), n) for row in plain for h in row)
    for b, length in enumerate(LENGTHS):
        expected = plain_beam_search(model, source[:, b], length, beam_size, 8, n=n)
        assert [(tuple(h.ids), h.ended) for h in found[b]] == [(w[0], w[3]) for w in expected]
        assert not any(repeats(h.ids.tolist(), n) for h in found[b])
        for hypothesis, (_, total, _, _) in zip(found[b], expected, strict=True):
            np.testing.assert_allclose(hypothesis.log_probability, total, atol=1e-10)


def test_a_beam_of_all_sequences_finds_the_best_of_all(source):
    model = make(V=3)
    (found,) = beam_search(model, source[:, :1], LENGTHS[:1], 50, max_length=4)
    every = []
    for n in range(4):
        for ids in itertools.product([0, 1], repeat=n):
            p = [
                log_probabilities(model, source[:, 0], LENGTHS[0], ids[:k])[id]
                for k, id in enumerate([*ids, END])
            ]
            every.append((np.mean(p), ids))
    every.sort(reverse=True)
    ended = [h for h in found if h.ended]
    assert [tuple(h.ids) for h in ended] == [ids for _, ids in every]
    np.testing.assert_allclose([h.score for h in ended], [score for score, _ in every], atol=1e-10)
    assert sum(not h.ended for h in found) == 2**4
    assert not any(h.ended for h in found[len(ended) :])  # what was cut comes last


def test_greedy_search_takes_the_most_likely_token_at_each_step(source):
    model = make()
    for b, found in enumerate(greedy_search(model, source, LENGTHS, max_length=9)):
        ids = []
        while len(ids) < 9 and (not ids or ids[-1] != END):
            ids.append(int(log_probabilities(model, source[:, b], LENGTHS[b], ids).argmax()))
        assert found.ended == (ids[-1] == END)
        assert found.ids.tolist() == [id for id in ids if id != END]


def test_weights_of_attention_are_those_of_the_full_sequence(source):
    model = make(end_bias=-1.0)
    cut = 0
    for b, found in enumerate(beam_search(model, source, LENGTHS, beam_size=3, max_length=4)):
        for hypothesis in found:
            read = hypothesis.ids if hypothesis.ended else hypothesis.ids[:-1]
            inputs = np.array([END, *read])[:, None]
            _, weights = model(source[:, b : b + 1], inputs, LENGTHS[b : b + 1])
            assert hypothesis.weights.shape == (len(inputs), S)
            np.testing.assert_allclose(hypothesis.weights, weights.data[:, 0], atol=1e-12)
            assert (hypothesis.weights[:, LENGTHS[b] :] == 0).all()
            cut += not hypothesis.ended
    assert cut > 0


def test_a_vector_is_written_about(rng):
    random.seed(1)
    model = VectorToSequence(
        I, V, hidden_size=4, num_layers=2, end_id=END, initialization=1.5, dtype="float64"
    )
    vectors = rng.normal(size=(B, I))
    found = beam_search(model, vectors, beam_size=3, max_length=5)
    for b in range(B):
        (alone,) = beam_search(model, vectors[b : b + 1], beam_size=3, max_length=5)
        assert [tuple(h.ids) for h in found[b]] == [tuple(h.ids) for h in alone]
        assert all(h.weights is None for h in alone)
    assert len({tuple(row[0].ids) for row in found}) > 1


def test_dropout_is_off_while_searching_and_on_again_after(source):
    model = make(dropout=0.5, num_layers=2)
    one, other = (beam_search(model, source, LENGTHS, max_length=5) for _ in range(2))
    assert model.training
    assert model.decoder.drop.training
    for rows in zip(one, other, strict=True):
        for a, b in zip(*rows, strict=True):
            assert a.ids.tolist() == b.ids.tolist()
            assert a.score == b.score


def test_equally_likely_tokens_come_in_the_order_of_their_ids():
    model = make(attention=None)
    for parameter in model.parameters():
        with parameter.writing() as array:
            array[...] = 0
    (found,) = beam_search(model, np.zeros((1, 1), int), beam_size=3, max_length=2)
    # Of six equal tokens 0, 1 and the end are the best three; then 0 0, 0 1 and 0 with its end.
    assert [h.ids.tolist() for h in found] == [[], [0], [0, 0]]
    assert [h.ended for h in found] == [True, True, False]


def test_unlikely_ends_do_not_stop_the_search_before_the_likely_one():
    # The beginnings of a word are words too, so that an end is always the second choice.
    random.seed(1)
    word = [4, 3, 0, 1, 5]
    texts = np.array([id for n in range(1, 6) for id in [*word[:n], END]])
    vectors = np.eye(5, dtype=np.float32)
    model = VectorToSequence(5, V, hidden_size=16, end_id=END)
    (batch,) = pair_batches(vectors, texts, 5, END)
    optimizer = optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        model.loss(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    for beam_size in (1, 2, 3):
        for n, found in enumerate(beam_search(model, vectors, beam_size=beam_size), 1):
            assert found[0].ids.tolist() == word[:n]
            assert len(found) == beam_size


def test_an_empty_batch():
    assert beam_search(make(), np.zeros((3, 0), int)) == []


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_cannot_be_meant_is_refused(source):
    model = make()
    for options in (
        {"beam_size": 0},
        {"max_length": 0},
        {"length_penalty": -1.0},
        {"no_repeat_ngram": -1},
    ):
        with pytest.raises(ValueError, match="expected beam_size >= 1, max_length >= 1"):
            beam_search(model, source, LENGTHS, **options)
    with model.decoder.output.weight.writing() as weight:
        weight[3, 0] = np.nan
    with pytest.raises(ValueError, match="the model's scores are NaN"):
        beam_search(model, source, LENGTHS)
