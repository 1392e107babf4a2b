"""Connectionist temporal classification: the loss of labels without known positions in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import engine
from anaphora.tensor import Array, as_integers, differentiable, floating

_REDUCTIONS = ("mean", "sum", "none")
_IMPOSSIBLE = ("raise", "infinity", "zero")


@differentiable
@floating
def ctc_loss(
    logits: Array,
    /,
    targets: ArrayLike,
    lengths: ArrayLike | None = None,
    target_lengths: ArrayLike | None = None,
    blank: int = 0,
    reduction: str = "mean",
    impossible: str = "raise",
) -> Any:
    """The negative log-probability of label sequences, over all their alignments, in nats.

    An alignment has one label or the blank at each step; it yields the labels that remain when
    repetitions are merged and blanks removed. The probabilities of all alignments of a target are
    summed by the forward recursion, in logarithms and float64; the gradient is that of softmax:
    probabilities minus the posterior probability of each label at each step.

    Source: Graves et al. 2006, Connectionist temporal classification.

    Args:
        logits: [T, B, V] unnormalized log-probabilities of the labels and the blank; the result of
            log-softmax works too.
        targets: [S, B] labels in 0..V-1, none of them the blank; values after a row's length are
            not read. (PyTorch has [B, S].)
        lengths: [B] the number of steps of each row, or None for all T.
        target_lengths: [B] the number of labels of each row, 0 allowed, or None for all S.
        blank: The class of the blank.
        reduction: "mean" divides each loss by its number of labels (at least 1) and takes the mean
            over the rows, as in PyTorch; "sum"; or "none": [B].
        impossible: How to handle a row whose target has no alignment, because it has too few
            steps (one per label, and one between equal neighbours) or probability 0: "raise"
            refuses it, "infinity" makes its loss infinite, "zero" 0. Its gradient is 0 then.

    Raises:
        ValueError: shapes do not match, a label or a length is out of range, an option is unknown,
            or a target is impossible and ``impossible`` is "raise".
        TypeError: targets or lengths are not integers.

    >>> logits = [[[0.0, 0.0]], [[0.0, 0.0]]]  # two steps; the blank, and one label
    >>> round(ctc_loss(logits, [[1]]).item(), 4)  # 3 of 4 alignments: -log 0.75
    0.2877
    >>> ctc_loss(logits, [[1], [1]], impossible="infinity").item()  # it takes three steps
    inf
    """
    alignments = _Alignments(logits, targets, lengths, target_lengths, blank, reduction, impossible)
    steps = np.where(alignments.real[:, :, None], logits, 0)  # padding is not read
    with np.errstate(invalid="ignore"):  # logits with NaN have a NaN loss
        log_p = engine.log_softmax(steps, -1).astype(np.float64)
        emitted = np.take_along_axis(log_p, alignments.labels[None], axis=2)  # [T, B, 2S+1]
        alpha = alignments.forward(emitted)
        losses = -alignments.total(alpha)
    lost = np.isposinf(losses)
    if impossible == "raise" and lost.any():
        raise ValueError(alignments.explained(int(np.argmax(lost))))
    if impossible == "zero":
        losses[lost] = 0

    def pullback(dy: Array) -> Array:
        shares = alignments.shares(emitted, alpha, np.where(lost, 0, losses), log_p.shape[2])
        counted = (alignments.real & ~lost)[:, :, None]
        scale = np.where(lost, 0, dy * alignments.weights)[:, None]
        return (np.where(counted, np.exp(log_p) - shares, 0) * scale).astype(logits.dtype)

    value = losses if reduction == "none" else (losses * alignments.weights).sum()
    return np.asarray(value, logits.dtype), pullback


class _Alignments:
    """The targets of a batch, checked, with blanks around every label, and the recursions on them.

    A place is a position among the 2 S + 1 labels and blanks: blank, label, blank, ..., blank.
    """

    def __init__(
        self,
        logits: Array,
        targets: ArrayLike,
        lengths: ArrayLike | None,
        target_lengths: ArrayLike | None,
        blank: int,
        reduction: str,
        impossible: str,
    ) -> None:
        if logits.ndim != 3:
            raise ValueError(f"ctc_loss: logits of shape {logits.shape}; expected [T, B, V]")
        T, B, V = logits.shape
        if not 0 <= blank < V:
            raise ValueError(f"ctc_loss: blank {blank} is outside 0..{V - 1}")
        if reduction not in _REDUCTIONS:
            raise ValueError(f"ctc_loss: reduction {reduction!r} is not one of {_REDUCTIONS}")
        if impossible not in _IMPOSSIBLE:
            raise ValueError(f"ctc_loss: impossible {impossible!r} is not one of {_IMPOSSIBLE}")
        labels = as_integers(targets, "ctc_loss: targets are integers (labels)")
        if labels.ndim != 2 or labels.shape[1] != B:
            raise ValueError(
                f"ctc_loss: targets of shape {labels.shape} for logits of shape {logits.shape}; "
                f"expected [S, B] with B = {B}"
            )
        S = len(labels)
        self.blank = blank
        self.lengths = _lengths("lengths", lengths, B, T)
        self.target_lengths = _lengths("target_lengths", target_lengths, B, S)
        given = np.arange(S)[:, None] < self.target_lengths
        wrong = given & ((labels < 0) | (labels >= V) | (labels == blank))
        if wrong.any():
            s, b = np.argwhere(wrong)[0]
            raise ValueError(
                f"ctc_loss: label {labels[s, b]} of row {b}; labels must be in 0..{V - 1} and not "
                f"the blank, {blank}"
            )
        self.labels = np.full((B, 2 * S + 1), blank, np.intp)
        self.labels[:, 1::2] = np.where(given, labels, blank).T
        # From a label to the next without a blank between them, unless they are equal.
        self.skips = np.zeros(self.labels.shape, bool)
        self.skips[:, 3::2] = self.labels[:, 3::2] != self.labels[:, 1:-2:2]
        self.real = np.arange(T)[:, None] < self.lengths  # [T, B]
        self.weights = (
            1 / (np.maximum(self.target_lengths, 1) * max(B, 1))
            if reduction == "mean"
            else np.ones(B)
        )
        self.first = np.where(self.target_lengths > 0, 2, 1)  # the number of possible first places
        # Where an alignment ends: the last blank, and the last label if there is one.
        place = np.arange(2 * S + 1)
        last = 2 * self.target_lengths[:, None]
        self.ends = np.where((place == last) | (place == last - 1), 0.0, -np.inf)

    def forward(self, emitted: Array) -> Array:
        """The log-probability of all prefixes that are in each place at each step, [T, B, 2S+1].

        After a row's last step the values of the last step remain.
        """
        alpha = np.full(emitted.shape, -np.inf)
        if len(alpha):
            start = np.arange(emitted.shape[2]) < self.first[:, None]
            alpha[0] = np.where(start & self.real[0, :, None], emitted[0], -np.inf)
        for t in range(1, len(alpha)):
            before = alpha[t - 1]
            reached = before.copy()
            _add(reached[:, 1:], before[:, :-1])
            _add(reached[:, 2:], np.where(self.skips[:, 2:], before[:, :-2], -np.inf))
            alpha[t] = np.where(self.real[t, :, None], reached + emitted[t], before)
        return alpha

    def total(self, alpha: Array) -> Array:
        """The log-probability of each row's target, [B]."""
        empty = np.where(self.target_lengths == 0, 0.0, -np.inf)  # of a row without steps
        if len(alpha) == 0:
            return empty
        total = np.logaddexp.reduce(alpha[-1] + self.ends, axis=1)
        return np.where(self.lengths == 0, empty, total)

    def shares(self, emitted: Array, alpha: Array, losses: Array, classes: int) -> Array:
        """The probability of each class at each step, given the target: [T, B, V].

        The backward recursion runs here: the log-probability of all suffixes, given step and place.
        """
        occupied = np.empty_like(emitted)  # the probability of each place at each step
        beta = np.full(emitted.shape[1:], -np.inf)
        for t in reversed(range(len(emitted))):
            if t + 1 < len(emitted):
                after = beta + emitted[t + 1]
                reached = after.copy()
                _add(reached[:, :-1], after[:, 1:])
                _add(reached[:, :-2], np.where(self.skips[:, 2:], after[:, 2:], -np.inf))
                beta = np.where(self.real[t + 1, :, None], reached, beta)
            ending = (self.lengths == t + 1)[:, None]
            beta = np.where(ending, self.ends, beta)
            occupied[t] = np.exp(alpha[t] + beta + losses[:, None])
        shares = np.zeros((*emitted.shape[:2], classes))
        shares[:, :, self.blank] = occupied[:, :, ::2].sum(axis=2)
        row = np.arange(emitted.shape[1])
        for place in range(1, emitted.shape[2], 2):
            shares[:, row, self.labels[:, place]] += occupied[:, :, place]
        return shares

    def explained(self, row: int) -> str:
        """Why a row's target has no alignment, and what to do."""
        count, steps = self.target_lengths[row], self.lengths[row]
        labels = self.labels[row, 1 : 2 * count : 2]
        repeats = int((labels[1:] == labels[:-1]).sum())
        if steps < count + repeats:
            reason = (
                f"{count} labels with {repeats} equal neighbours need {count + repeats} steps, and "
                f"it has {steps}"
            )
        else:
            reason = "its labels have probability 0"
        return (
            f"ctc_loss: the target of row {row} is impossible: {reason}; omit the row, or "
            "choose impossible='zero' or 'infinity'"
        )


def _add(into: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Add probabilities in place, given as logarithms."""
    np.logaddexp(into, other, out=into)


def _lengths(name: str, given: ArrayLike | None, rows: int, maximum: int) -> NDArray[np.int64]:
    if given is None:
        return np.full(rows, maximum, np.int64)
    lengths = as_integers(given, f"ctc_loss: {name} are integers")
    if lengths.shape != (rows,):
        raise ValueError(f"ctc_loss: {name} of shape {lengths.shape}; expected [B] with B = {rows}")
    outside = (lengths < 0) | (lengths > maximum)
    if outside.any():
        raise ValueError(
            f"ctc_loss: {name} {lengths[outside][0]} of row {np.argmax(outside)} is outside "
            f"0..{maximum}"
        )
    return lengths.astype(np.int64)
