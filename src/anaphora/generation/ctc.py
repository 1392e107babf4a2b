"""Decoding the outputs of a model that was trained with `ops.ctc_loss`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import ops
from anaphora.options import check_sizes
from anaphora.tensor import Array

Labels = NDArray[np.int64]


class CTCHypothesis(NamedTuple):
    """Labels of a row, and their log-probability.

    Attributes:
        labels: [S] integers, without blanks.
        log_probability: That of the alignments that the search kept, in nats.

    >>> CTCHypothesis(np.array([3, 1]), -0.5).labels.tolist()
    [3, 1]
    """

    labels: Labels
    log_probability: float


def ctc_greedy(logits: ArrayLike, lengths: ArrayLike | None = None, blank: int = 0) -> list[Labels]:
    """The labels of the most likely alignment: the best class of each step, then collapsed.

    Shapes: logits [T, B, V]; lengths [B] or None for all T; returns B arrays of labels, [S] each.

    Raises:
        ValueError: a shape does not match, or a length or the blank is out of range.

    >>> scores = np.log([[[0.1, 0.8, 0.1]], [[0.2, 0.7, 0.1]], [[0.6, 0.3, 0.1]]])
    >>> ctc_greedy(scores)
    [array([1])]
    """
    scores, steps = _checked("ctc_greedy", logits, lengths, blank)
    best: Array = scores.argmax(axis=2)
    new = np.ones(best.shape, bool)
    new[1:] = best[1:] != best[:-1]
    kept = new & (best != blank) & (np.arange(len(best))[:, None] < steps)
    return [best[kept[:, b], b].astype(np.int64) for b in range(len(steps))]


def ctc_beam_search(
    logits: ArrayLike, lengths: ArrayLike | None = None, beam_size: int = 10, blank: int = 0
) -> list[list[CTCHypothesis]]:
    """The most likely labels, by prefix beam search over all rows at once.

    Alignments that collapse to the same labels so far share a prefix, and their probabilities are
    summed: separately for those that end in a blank and in a label, because a label can follow an
    equal one only after a blank. If the beam holds all prefixes, the probabilities are exact.

    Source: Graves & Jaitly 2014 (algorithm 1, without a language model); Hannun et al. 2014.

    Args:
        logits: [T, B, V] unnormalized log-probabilities.
        lengths: [B] the number of steps of each row, or None for all T.
        beam_size: The number of prefixes to keep, K.
        blank: The class of the blank.

    Returns:
        For each row at most K hypotheses, the most likely first.

    Raises:
        ValueError: a shape does not match, or a length, the beam size or the blank is out of range.

    >>> scores = np.log([[[0.6, 0.4]], [[0.6, 0.4]]])
    >>> ctc_greedy(scores), [h.labels.tolist() for h in ctc_beam_search(scores)[0]]
    ([array([], dtype=int64)], [[1], []])
    """
    scores, steps = _checked("ctc_beam_search", logits, lengths, blank)
    check_sizes("ctc_beam_search", beam_size=beam_size)
    log_p = ops.log_softmax(scores).data.astype(np.float64)
    beams = _Beams(log_p.shape[1], log_p.shape[2], beam_size, blank)
    for t in range(len(log_p)):
        rows = np.flatnonzero(t < steps)
        beams.step(rows, log_p[t, rows])
    return [beams.hypotheses(row) for row in range(log_p.shape[1])]


class _Beams:
    """The prefixes of every row, K slots each; unused slots have probability 0.

    A prefix is the index of its last label's node in a tree, whose roots are the empty prefixes,
    one for each row. So equal prefixes of a row have equal indices.
    """

    def __init__(self, rows: int, classes: int, width: int, blank: int) -> None:
        self.blank = blank
        self.parents, self.labels = [-1] * rows, [-1] * rows
        self.children: dict[tuple[int, int], int] = {}
        self.prefix = np.full((rows, width), -1)
        self.prefix[:, 0] = np.arange(rows)
        self.parent = np.full((rows, width), -1)  # of each prefix; -1 for a root
        self.last = np.full((rows, width), blank)  # label; the blank if there is none
        self.ends_blank = np.full((rows, width), -np.inf)
        self.ends_blank[:, 0] = 0
        self.ends_label = np.full((rows, width), -np.inf)
        self.others = np.delete(np.arange(classes), blank)

    def step(self, rows: Any, log_p: Array) -> None:
        """Advance some rows [R] by one step: log_p [R, V]."""
        prefix, last = self.prefix[rows], self.last[rows]
        ends_blank, ends_label = self.ends_blank[rows], self.ends_label[rows]
        total = np.logaddexp(ends_blank, ends_label)  # [R, K]
        # The prefix stays the same: by a blank, or by its last label again.
        stay_blank = total + log_p[:, [self.blank]]
        stay_label = ends_label + np.take_along_axis(log_p, last, axis=1)
        # Or it is extended by a label; by one equal to its last label only after a blank.
        labels = self.others
        repeated = labels == last[:, :, None]  # [R, K, V-1]
        grown = np.where(repeated, ends_blank[:, :, None], total[:, :, None])
        grown = grown + log_p[:, None, labels]
        # An extension that equals another prefix of the beam is merged into it.
        merged = self.parent[rows][:, None, :] == prefix[:, :, None]  # [R, K from, K to]
        merged &= prefix[:, :, None] >= 0
        row, source, target = np.nonzero(merged)
        label = np.searchsorted(labels, last[row, target])
        stay_label[row, target] = np.logaddexp(stay_label[row, target], grown[row, source, label])
        grown[row, source, label] = -np.inf
        self._keep(rows, stay_blank, stay_label, grown)

    def _keep(self, rows: Any, stay_blank: Array, stay_label: Array, grown: Array) -> None:
        """Keep the K best of the unchanged and the extended prefixes."""
        R, K = stay_blank.shape
        stayed = np.logaddexp(stay_blank, stay_label)
        candidates = np.concatenate([stayed, grown.reshape(R, K * len(self.others))], axis=1)
        chosen = np.argsort(-candidates, axis=1, kind="stable")[:, :K]
        score = np.take_along_axis(candidates, chosen, axis=1)
        old = chosen < K
        source = np.where(old, chosen, (chosen - K) // max(len(self.others), 1))

        def of_source(values: Array) -> Array:
            return np.take_along_axis(values, source, axis=1)

        prefix, parent = of_source(self.prefix[rows]), of_source(self.parent[rows])
        last = of_source(self.last[rows])
        for row, place in np.argwhere(~old & (score > -np.inf)):
            label = int(self.others[(chosen[row, place] - K) % len(self.others)])
            parent[row, place] = prefix[row, place]
            prefix[row, place] = self._child(int(prefix[row, place]), label)
            last[row, place] = label
        prefix[score == -np.inf] = parent[score == -np.inf] = -1
        self.prefix[rows], self.parent[rows], self.last[rows] = prefix, parent, last
        self.ends_blank[rows] = np.where(old, of_source(stay_blank), -np.inf)
        self.ends_label[rows] = np.where(old, of_source(stay_label), score)

    def _child(self, prefix: int, label: int) -> int:
        number = self.children.setdefault((prefix, label), len(self.parents))
        if number == len(self.parents):
            self.parents.append(prefix)
            self.labels.append(label)
        return number

    def hypotheses(self, row: int) -> list[CTCHypothesis]:
        """The prefixes of a row, most likely first."""
        total = np.logaddexp(self.ends_blank[row], self.ends_label[row])
        found = []
        for place in np.argsort(-total, kind="stable"):
            if total[place] == -np.inf:
                break
            labels, node = [], int(self.prefix[row, place])
            while self.parents[node] >= 0:
                labels.append(self.labels[node])
                node = self.parents[node]
            found.append(CTCHypothesis(np.array(labels[::-1], np.int64), float(total[place])))
        return found


def _checked(
    name: str, logits: ArrayLike, lengths: ArrayLike | None, blank: int
) -> tuple[Array, NDArray[np.int64]]:
    """The scores [T, B, V] and the number of steps of each row."""
    scores = np.asarray(logits)
    if scores.ndim != 3:
        raise ValueError(f"{name}: logits of shape {scores.shape}; expected [T, B, V]")
    T, B, V = scores.shape
    if not 0 <= blank < V:
        raise ValueError(f"{name}: blank {blank} is outside 0..{V - 1}")
    steps = np.full(B, T) if lengths is None else np.asarray(lengths)
    if steps.shape != (B,) or ((steps < 0) | (steps > T)).any():
        raise ValueError(
            f"{name}: lengths {steps.tolist()}; expected [B] with B = {B}, each in 0..{T}"
        )
    real = np.arange(T)[:, None] < steps
    return np.where(real[:, :, None], scores, 0), steps.astype(np.int64)
