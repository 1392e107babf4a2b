"""Decoding of CTC scores: against every alignment counted one by one, and against the loss."""

import itertools

import numpy as np
import pytest

from anaphora import ops
from anaphora.generation import ctc_beam_search, ctc_greedy

T, B, V = 5, 4, 3
BLANK = 1
LENGTHS = np.array([5, 3, 0, 4])


def collapse(path, blank=BLANK):
    """The labels that an alignment spells: repetitions merged, then blanks removed."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def every_label_sequence(logits, blank=BLANK):
    """The probability of all label sequences of one row [T, V], over its V ** T alignments."""
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        labels = collapse(path, blank)
        share = np.prod([p[t, label] for t, label in enumerate(path)])
        found[labels] = found.get(labels, 0) + share
    return found


@pytest.fixture
def logits(rng):
    return 2 * rng.standard_normal((T, B, V))


def test_greedy_collapses_the_best_path(logits):
    found = ctc_greedy(logits, LENGTHS, BLANK)
    for b, length in enumerate(LENGTHS):
        assert tuple(found[b]) == collapse(logits[:length, b].argmax(axis=1))


def test_a_wide_beam_finds_every_label_sequence_with_its_probability(logits):
    beams = ctc_beam_search(logits, LENGTHS, beam_size=200, blank=BLANK)
    for b, length in enumerate(LENGTHS):
        expected = every_label_sequence(logits[:length, b])
        found = {tuple(h.labels): np.exp(h.log_probability) for h in beams[b]}
        assert len(found) == len(beams[b]) == len(expected)
        for labels, probability in expected.items():
            np.testing.assert_allclose(found[labels], probability, rtol=1e-10)
        scores = [h.log_probability for h in beams[b]]
        assert scores == sorted(scores, reverse=True)
        assert sum(found.values()) == pytest.approx(1)


def test_the_probability_is_the_one_of_the_loss(rng):
    logits = rng.standard_normal((6, 2, 4))
    for b, beam in enumerate(ctc_beam_search(logits, beam_size=2000)):
        for labels, log_probability in beam[:20]:
            row = logits[:, b : b + 1]
            loss = ops.ctc_loss(row, labels[:, None], reduction="sum")
            np.testing.assert_allclose(-log_probability, loss.item(), rtol=1e-10)


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_a_narrow_beam_is_that_of_a_plain_search_of_each_row(rng, width):
    logits = rng.standard_normal((12, 3, 4))
    beams = ctc_beam_search(logits, [12, 9, 5], width)
    for b, steps in enumerate([12, 9, 5]):
        expected = plain_search(logits[:steps, b], width)
        assert [tuple(h.labels) for h in beams[b]] == [labels for labels, _ in expected]
        scores = [h.log_probability for h in beams[b]]
        np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-10)


def plain_search(logits, width, blank=0):
    """Prefix beam search of one row with a dictionary of tuples, in probabilities."""
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    beam = {(): (1.0, 0.0)}  # ending in the blank, ending in a label
    for p_t in p:
        after = {}

        def add(prefix, ends_blank, ends_label, after=after):
            one, other = after.get(prefix, (0.0, 0.0))
            after[prefix] = (one + ends_blank, other + ends_label)

        for prefix, (ends_blank, ends_label) in beam.items():
            add(prefix, (ends_blank + ends_label) * p_t[blank], 0)
            for label in range(len(p_t)):
                if label == blank:
                    continue
                if prefix and prefix[-1] == label:
                    add(prefix, 0, ends_label * p_t[label])
                    add((*prefix, label), 0, ends_blank * p_t[label])
                else:
                    add((*prefix, label), 0, (ends_blank + ends_label) * p_t[label])
        best = sorted(after.items(), key=lambda item: -sum(item[1]))[:width]
        beam = dict(best)
    return [(prefix, np.log(sum(ends))) for prefix, ends in beam.items()]


def test_other_rows_and_padding_change_nothing(logits):
    together = ctc_beam_search(logits, LENGTHS, 4, BLANK)
    logits[3:, 1] = np.nan
    for b, length in enumerate(LENGTHS):
        (alone,) = ctc_beam_search(logits[:length, b : b + 1], None, 4, BLANK)
        assert [h.labels.tolist() for h in alone] == [h.labels.tolist() for h in together[b]]
    padded = ctc_beam_search(logits, LENGTHS, 4, BLANK)
    assert [h.log_probability for h in padded[1]] == [h.log_probability for h in together[1]]


def test_labels_of_probability_zero_are_not_found(logits):
    logits[:, :, 2] = -np.inf
    beams = ctc_beam_search(logits, LENGTHS, 50, BLANK)
    assert {label for beam in beams for h in beam for label in h.labels.tolist()} == {0}


def test_a_blank_alone_and_no_rows(rng):
    (beam,) = ctc_beam_search(rng.standard_normal((3, 1, 1)))
    assert [h.labels.tolist() for h in beam] == [[]]
    assert beam[0].log_probability == 0
    assert ctc_beam_search(np.zeros((3, 0, 2))) == ctc_greedy(np.zeros((3, 0, 2))) == []


@pytest.mark.parametrize("decode", [ctc_greedy, ctc_beam_search])
def test_wrong_input_is_refused(logits, decode):
    name = decode.__name__
    with pytest.raises(
        ValueError, match=rf"{name}: logits of shape \(5, 3\); expected \[T, B, V\]"
    ):
        decode(logits[:, 0])
    with pytest.raises(ValueError, match=rf"{name}: blank 3 is outside 0\.\.2"):
        decode(logits, blank=3)
    with pytest.raises(ValueError, match=rf"{name}: lengths \[6, 1, 1, 1\]; .*each in 0\.\.5"):
        decode(logits, [6, 1, 1, 1])


def test_a_beam_of_no_width_is_refused(logits):
    with pytest.raises(
        ValueError, match="ctc_beam_search: beam_size must be an integer of at least 1"
    ):
        ctc_beam_search(logits, beam_size=0)
