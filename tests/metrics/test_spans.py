"""Spans and their scores against the state machine by which conlleval counts."""

from pathlib import Path

import numpy as np
import pytest

from anaphora.metrics import are_span_tags, find_spans, span_scores

CONLL = Path(__file__).resolve().parents[3] / "shared" / "data" / "conll2002"


def split(tag):
    prefix, hyphen, type_ = tag.partition("-")
    return (prefix, type_) if hyphen else (tag, "")


def ends(prefix, type_, next_prefix, next_type):
    """Rule by rule, as conlleval lists them; S was added by those who extended it."""
    pairs = {"BB", "BO", "IB", "IO", "EE", "EI", "EO", "EB", "BS", "IS", "ES"}
    return prefix + next_prefix in pairs or prefix == "S" or (prefix != "O" and type_ != next_type)


def begins(prefix, type_, next_prefix, next_type):
    pairs = {"BB", "IB", "OB", "OI", "EE", "EI", "OE", "EB", "SB", "SI", "SE"}
    return (
        prefix + next_prefix in pairs
        or next_prefix == "S"
        or (next_prefix != "O" and type_ != next_type)
    )


def conlleval(actual, predicted):
    """Counts of one pass over the words, as the Perl script makes it: correct, guessed, there."""
    counts = {}

    def count(type_, index):
        counts.setdefault(type_, [0, 0, 0])[index] += 1

    inside = False
    before, guess_before = ("O", ""), ("O", "")
    pairs = [
        pair
        for tags in zip(actual, predicted, strict=True)
        for pair in [*zip(*tags, strict=True), "OO"]
    ]
    for tag, guess in pairs:
        now, guess_now = split(tag), split(guess)
        if inside:
            end, guess_end = ends(*before, *now), ends(*guess_before, *guess_now)
            if end and guess_end:
                count(before[1], 0)
                inside = False
            elif end != guess_end or now[1] != guess_now[1]:
                inside = False
        begin, guess_begin = begins(*before, *now), begins(*guess_before, *guess_now)
        if begin and guess_begin and now[1] == guess_now[1]:
            inside = True
        if begin:
            count(now[1], 2)
        if guess_begin:
            count(guess_now[1], 1)
        before, guess_before = now, guess_now
    return counts


def counted(scores):
    columns = zip(scores.correct, scores.predicted, scores.support, strict=True)
    return {name: [int(c) for c in row] for name, row in zip(scores.names, columns, strict=True)}


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", []),
        ("B-A I-A O", [(0, 2, "A")]),
        ("I-A I-A B-A I-A", [(0, 2, "A"), (2, 4, "A")]),  # IOB1
        ("I-A I-B", [(0, 1, "A"), (1, 2, "B")]),
        ("B-A I-B I-B", [(0, 1, "A"), (1, 3, "B")]),  # BIO that is broken
        ("O I-A", [(1, 2, "A")]),
        ("B-A B-A", [(0, 1, "A"), (1, 2, "A")]),
        ("S-A B-A E-A S-A S-A", [(0, 1, "A"), (1, 3, "A"), (3, 4, "A"), (4, 5, "A")]),
        ("B-A E-A I-A E-A", [(0, 2, "A"), (2, 4, "A")]),
        ("E-A E-A", [(0, 1, "A"), (1, 2, "A")]),
        ("U-A B-A L-A I-A", [(0, 1, "A"), (1, 3, "A"), (3, 4, "A")]),  # BILOU
        ("B-A-B I-A-B I-A", [(0, 2, "A-B"), (2, 3, "A")]),  # the first hyphen counts
        ("B I O", [(0, 2, "")]),
        ("", []),
    ],
)
def test_spans_of_a_sentence(tags, spans):
    assert [tuple(span) for span in find_spans(tags.split())] == spans


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-A", "I-A"], True),
        (["B-A"], True),
        (["S-A", "E-A", "O", "L-B", "U-B"], True),
        (["O"], False),
        ([], False),
        (["O", "B-A", ""], False),
        (["NOUN", "VERB"], False),
        (["B-A", "X-A"], False),
        (["B", "I", "O"], False),
        (["PRP", "-LRB-", "O"], False),
    ],
)
def test_tags_that_mark_spans_are_recognised(tags, expected):
    assert are_span_tags(tags) is expected


@pytest.mark.parametrize("prefixes", ["BI", "I", "IE", "BIES"])
def test_counts_are_those_of_conlleval_on_random_tags(prefixes, rng):
    choices = ["O", *(f"{p}-{t}" for p in prefixes for t in ("X", "Y"))]
    total = np.zeros(3, int)
    for _ in range(100):
        lengths = rng.integers(0, 12, 6)
        actual = [rng.choice(choices, n).tolist() for n in lengths]
        predicted = [
            [t if rng.random() < 0.7 else str(rng.choice(choices)) for t in tags] for tags in actual
        ]
        expected = conlleval(actual, predicted)
        assert counted(span_scores(actual, predicted)) == expected
        total += np.sum(list(expected.values()), axis=0)
    assert 100 < total[0] < total[1]


@pytest.mark.parametrize("name", ["esp.testa", "ned.testa"])
def test_counts_are_those_of_conlleval_on_entities(name, rng):
    if not (CONLL / name).exists():
        pytest.skip("needs conll2002 in ../shared/data")
    blocks = (CONLL / name).read_text(encoding="utf-8").split("\n\n")[:1000]
    actual = [[line.split()[-1] for line in b.splitlines() if line.strip()] for b in blocks]
    tags = sorted({tag for sentence in actual for tag in sentence})
    assert are_span_tags(tags)
    predicted = [
        [tag if rng.random() < 0.9 else str(rng.choice(tags)) for tag in s] for s in actual
    ]
    scores = span_scores(actual, predicted)
    assert counted(scores) == conlleval(actual, predicted)
    correct, guessed, there = scores.correct.sum(), scores.predicted.sum(), scores.support.sum()
    precision, recall = correct / guessed, correct / there
    assert scores.overall_precision == pytest.approx(precision)
    assert scores.overall_recall == pytest.approx(recall)
    assert scores.overall_f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert 0.1 < scores.overall_f1 < 0.95
    assert span_scores(actual, actual).overall_f1 == 1


def test_spans_of_neighbouring_sentences_stay_apart():
    split, joined = [["B-A"], ["I-A"]], [["B-A", "I-A"]]
    assert counted(span_scores(split, split)) == {"A": [2, 2, 2]}
    assert counted(span_scores(joined, joined)) == {"A": [1, 1, 1]}


def test_without_spans_all_scores_are_zero():
    scores = span_scores([["O", "O"]], [["O", "O"]])
    assert scores.names == ()
    assert (scores.overall_f1, scores.macro_f1, scores.weighted_f1) == (0, 0, 0)
    missed = span_scores([["B-A"]], [["O"]])
    assert (missed.overall_precision, missed.overall_recall, missed.overall_f1) == (0, 0, 0)


def test_sentences_and_tags_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="2 sentences, but predictions of 1"):
        span_scores([["O"], ["O"]], [["O"]])
    with pytest.raises(ValueError, match="sentence 1 has 2 tags, but 1 were predicted"):
        span_scores([["O"], ["O", "O"]], [["O"], ["O"]])
    assert np.array_equal(span_scores([], []).support, [])
