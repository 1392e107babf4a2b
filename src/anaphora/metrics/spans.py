"""Spans, such as names of persons, that tags mark word by word, and their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from anaphora.metrics.classes import ClassScores

OUTSIDE = "O"
_BEGINNING = frozenset("BSU")  # BILOU writes U and L for S and E
_ENDING = frozenset("ESLU")
_PREFIXES = _BEGINNING | _ENDING | {"I"}


class Span(NamedTuple):
    """The words from `start` up to `stop`, exclusive, as one span of a type.

    >>> Span(3, 5, "LOC").stop
    5
    """

    start: int
    stop: int
    type: str


def are_span_tags(tags: Iterable[str]) -> bool:
    """Whether tags mark spans: each is O, or a type after B-, I-, E-, S-, L- or U-; not all are O.

    Args:
        tags: All distinct tags, or those of a text.

    >>> are_span_tags(["O", "B-PER", "I-PER"]), are_span_tags(["NOUN", "O"])
    (True, False)
    """
    found = set(tags) - {OUTSIDE}
    return bool(found) and all(tag[:1] in _PREFIXES and tag[1:2] == "-" for tag in found)


def find_spans(tags: Sequence[str]) -> list[Span]:
    """The spans that the tags of one sentence mark, as conlleval reads them.

    A tag is O, outside of all spans, or a prefix and a type, joined by the first hyphen. A span
    begins at each B and S, after O, after each E and S, and where the type changes; so IOB1 (B only
    between neighbors), IOB2 or BIO, IOE and IOBES or BILOU are all read, and tags that break their
    own scheme mark spans too.

    The rules are those of conlleval (Tjong Kim Sang and Buchholz 2000, "Introduction to the
    CoNLL-2000 shared task: chunking"), to which S is added.

    >>> find_spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-ORG"])
    [Span(start=0, stop=2, type='PER'), Span(start=3, stop=4, type='LOC'), \
Span(start=4, stop=5, type='LOC'), Span(start=5, stop=6, type='ORG')]
    """
    spans = []
    start, before, type_before = 0, OUTSIDE, ""
    for position, tag in enumerate([*tags, OUTSIDE]):
        prefix, hyphen, rest = tag.partition("-")
        prefix, type_ = (prefix, rest) if hyphen else (tag, "")
        inside = before != OUTSIDE
        goes_on = (
            inside
            and prefix != OUTSIDE
            and prefix not in _BEGINNING
            and before not in _ENDING
            and type_ == type_before
        )
        if inside and not goes_on:
            spans.append(Span(start, position, type_before))
        if not goes_on:
            start = position
        before, type_before = prefix, type_
    return spans


def span_scores(actual: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> ClassScores:
    """The scores of each type of span, as conlleval counts them.

    A predicted span is correct if there is one of the same first word, last word and type.
    `overall_f1` of the result is the F1 usually published for named entities and chunks.

    Args:
        actual: The tags of each sentence.
        predicted: The predicted tags.

    Returns:
        The scores of each type, sorted by name.

    Raises:
        ValueError: the number of sentences, or of tags in one of them, differs.

    >>> actual = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC"]]
    >>> predicted = [["B-PER", "O", "O", "B-LOC"], ["B-ORG"]]
    >>> scores = span_scores(actual, predicted)
    >>> scores.names, scores.correct.tolist(), scores.predicted.tolist(), scores.support.tolist()
    (('LOC', 'ORG', 'PER'), [1, 0, 0], [1, 1, 1], [2, 0, 1])
    >>> round(scores.overall_f1, 3)
    0.333
    """
    correct: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    there: Counter[str] = Counter()
    sentences, answers = list(actual), list(predicted)
    if len(sentences) != len(answers):
        raise ValueError(
            f"span_scores: {len(sentences)} sentences, but predictions of {len(answers)}"
        )
    for number, (tags, answer) in enumerate(zip(sentences, answers, strict=True)):
        if len(tags) != len(answer):
            raise ValueError(
                f"span_scores: sentence {number} has {len(tags)} tags, but {len(answer)} were "
                "predicted"
            )
        expected, found = set(find_spans(tags)), set(find_spans(answer))
        there.update(span.type for span in expected)
        guessed.update(span.type for span in found)
        correct.update(span.type for span in expected & found)
    names = tuple(sorted(there.keys() | guessed.keys()))
    counts = [np.array([c[name] for name in names], np.int64) for c in (correct, guessed, there)]
    return ClassScores(names, *counts)
