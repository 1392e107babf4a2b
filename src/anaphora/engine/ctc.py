"""Connectionist temporal classification: all alignments of a target summed, and their gradient.

The places of a target of n labels are these with blanks around them, ``2 n + 1``: blank, label,
blank, ..., blank. An alignment stays in a place, moves on to the next, or skips a blank between two
labels that differ. Everything is computed in float64, in logarithms.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def ctc_forward(
    logits: Array, targets: Array, lengths: Array, target_lengths: Array, blank: int
) -> tuple[Array, Array, Array]:
    """The losses of `ops.ctc_loss` without a reduction, and what `ctc_backward` needs.

    Args:
        logits: [T, B, V]; what lies beyond a row's length is not read.
        targets: [S, B] labels in 0..V-1, not the blank; what lies beyond a row's length is not
            read.
        lengths: [B] int64, each 0..T.
        target_lengths: [B] int64, each 0..S.
        blank: 0..V-1.

    Returns:
        losses [B], infinite where a target has no alignment; normalizers [T, B], the logarithms of
        the sums of exp(logits), 0 beyond a length; and alphas [T, B, 2 S + 1], the log-probability
        of all beginnings of alignments that end in a place at a step; all float64.

    >>> arrays = np.zeros((2, 1, 2)), np.array([[1]]), np.array([2]), np.array([1])
    >>> losses, _, _ = ctc_forward(*arrays, blank=0)
    >>> np.exp(-losses).round(12)  # 3 of 4 alignments
    array([0.75])
    """
    labels, skips = _places(targets, target_lengths, blank)
    B, places = labels.shape
    losses = np.where(target_lengths == 0, 0.0, np.inf)  # of rows without steps
    normalizers = np.zeros(logits.shape[:2])
    alphas = np.full((len(logits), B, places), -np.inf)
    of_row = np.arange(places) <= 2 * target_lengths[:, None]
    alpha = np.full((B, places), -np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for t in range(len(logits)):
            real = lengths > t
            normalizers[t, real] = _log_sum(logits[t, real].astype(np.float64))
            emissions = _emissions(logits, normalizers, labels, t, real)
            if t == 0:
                first = np.arange(places) < 2
                alpha = np.where(first, emissions, -np.inf)
            else:
                before = alpha.copy()
                np.logaddexp(alpha[:, 1:], before[:, :-1], out=alpha[:, 1:])
                skipped = before[:, :-2] + skips[:, 2:]
                np.logaddexp(alpha[:, 2:], skipped, out=alpha[:, 2:])
                alpha += emissions
            alpha = np.where(of_row, alpha, -np.inf)
            alphas[t, real] = alpha[real]
            ends = np.flatnonzero(lengths == t + 1)
            last = 2 * target_lengths[ends]
            totals = alpha[ends, last]
            some = last > 0
            totals[some] = np.logaddexp(totals[some], alpha[ends[some], last[some] - 1])
            losses[ends] = -totals
    return losses, normalizers, alphas


def ctc_backward(
    logits: Array,
    targets: Array,
    lengths: Array,
    target_lengths: Array,
    blank: int,
    losses: Array,
    normalizers: Array,
    alphas: Array,
    weights: Array,
) -> Array:
    """The gradient [T, B, V] of the sum of ``weights * losses`` of `ctc_forward`.

    It is that of softmax: probabilities less the share of the alignments that have each label at
    each step; 0 beyond the lengths, and for rows whose loss is infinite.

    Args:
        logits: [T, B, V], as are the next ones those of `ctc_forward`.
        targets: [S, B].
        lengths: [B].
        target_lengths: [B].
        blank: 0..V-1.
        losses: [B], which it returned.
        normalizers: [T, B], which it returned.
        alphas: [T, B, 2 S + 1], which it returned.
        weights: [B].

    >>> arrays = np.zeros((2, 1, 2)), np.array([[1]]), np.array([2]), np.array([1]), 0
    >>> ctc_backward(*arrays, *ctc_forward(*arrays), np.ones(1))[:, 0].round(4)
    array([[ 0.1667, -0.1667],
           [ 0.1667, -0.1667]])
    """
    labels, skips = _places(targets, target_lengths, blank)
    B, places = labels.shape
    lengths = np.where(np.isposinf(losses), 0, lengths)
    place, last = np.arange(places), 2 * target_lengths[:, None]
    ends = np.where((place == last) | (place == last - 1), 0.0, -np.inf)
    d_logits = np.zeros_like(logits)
    beta = np.full((B, places), -np.inf)
    rows = np.arange(B)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for t in reversed(range(len(logits))):
            goes_on, real = lengths > t + 1, lengths > t
            if goes_on.any():
                after = beta + _emissions(logits, normalizers, labels, t + 1, goes_on)
                beta = after.copy()
                np.logaddexp(beta[:, :-1], after[:, 1:], out=beta[:, :-1])
                skipped = after[:, 2:] + skips[:, 2:]
                np.logaddexp(beta[:, :-2], skipped, out=beta[:, :-2])
            beta = np.where(goes_on[:, None], beta, ends)
            occupied = np.exp(alphas[t] + beta + np.where(real, losses, 0)[:, None])
            shares = np.zeros(logits.shape[1:])
            for k in range(places):
                shares[rows, labels[:, k]] += occupied[:, k]
            p = np.exp(logits[t, real].astype(np.float64) - normalizers[t, real, None])
            d_logits[t, real] = (p - shares[real]) * weights[real, None]
    return d_logits


def _places(targets: Array, target_lengths: Array, blank: int) -> tuple[Array, Array]:
    """The label of each place, and 0 where it follows the one before the last, else -inf."""
    S, B = targets.shape
    labels = np.full((B, 2 * S + 1), blank, np.int64)
    labels[:, 1::2] = np.where(np.arange(S)[:, None] < target_lengths, targets, blank).T
    skips = np.full(labels.shape, -np.inf)
    skips[:, 3::2] = np.where(labels[:, 3::2] == labels[:, 1:-2:2], -np.inf, 0)
    return labels, skips


def _emissions(logits: Array, normalizers: Array, labels: Array, t: int, rows: Array) -> Array:
    """The log-probability of each place's label at a step, for some rows; 0 in the others."""
    found = np.zeros(labels.shape)
    step = np.take_along_axis(logits[t, rows].astype(np.float64), labels[rows], axis=1)
    found[rows] = step - normalizers[t, rows, None]
    return found


def _log_sum(x: Array) -> Array:
    """``log(sum(exp(x)))`` over axis 1."""
    largest = x.max(axis=1, keepdims=True)
    largest = np.where(np.isneginf(largest), 0, largest)
    return np.asarray((np.log(np.exp(x - largest).sum(axis=1, keepdims=True)) + largest)[:, 0])
