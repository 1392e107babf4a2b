"""Connectionist temporal classification: the loss of labels without known positions in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import engine
from anaphora.tensor import Array, Input, as_integers, differentiable, floating

_REDUCTIONS = ("mean", "sum", "none")
_IMPOSSIBLE = ("raise", "infinity", "zero")


@differentiable
@floating
def ctc_loss(
    logits: Input,
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
            steps (one per label, and one between equal neighbors) or probability 0: "raise"
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
    checked = _checked(logits, targets, lengths, target_lengths, blank)
    if reduction not in _REDUCTIONS:
        raise ValueError(f"ctc_loss: reduction {reduction!r} is not one of {_REDUCTIONS}")
    if impossible not in _IMPOSSIBLE:
        raise ValueError(f"ctc_loss: impossible {impossible!r} is not one of {_IMPOSSIBLE}")
    saved = engine.ctc_forward(logits, *checked, blank)
    losses = saved[0].copy()
    lost = np.isposinf(losses)
    if impossible == "raise" and lost.any():
        raise ValueError(_explained(int(np.argmax(lost)), *checked))
    if impossible == "zero":
        losses[lost] = 0
    weights = np.ones(len(losses))
    if reduction == "mean":
        weights /= np.maximum(checked[2], 1) * max(len(losses), 1)

    def pullback(dy: Array) -> Array:
        return engine.ctc_backward(
            logits, *checked, blank, *saved, (dy * weights).astype(logits.dtype)
        )

    value = losses if reduction == "none" else (losses * weights).sum()
    return np.asarray(value, logits.dtype), pullback


def _checked(
    logits: Array,
    targets: ArrayLike,
    lengths: ArrayLike | None,
    target_lengths: ArrayLike | None,
    blank: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Targets [S, B], their labels beyond a length replaced by the blank, and both lengths [B]."""
    if logits.ndim != 3:
        raise ValueError(f"ctc_loss: logits of shape {logits.shape}; expected [T, B, V]")
    T, B, V = logits.shape
    if not 0 <= blank < V:
        raise ValueError(f"ctc_loss: blank {blank} is outside 0..{V - 1}")
    labels = as_integers(targets, "ctc_loss: targets are integers (labels)")
    if labels.ndim != 2 or labels.shape[1] != B:
        raise ValueError(
            f"ctc_loss: targets of shape {labels.shape} for logits of shape {logits.shape}; "
            f"expected [S, B] with B = {B}"
        )
    steps = _lengths("lengths", lengths, B, T)
    counts = _lengths("target_lengths", target_lengths, B, len(labels))
    given = np.arange(len(labels))[:, None] < counts
    wrong = given & ((labels < 0) | (labels >= V) | (labels == blank))
    if wrong.any():
        s, b = np.argwhere(wrong)[0]
        raise ValueError(
            f"ctc_loss: label {labels[s, b]} of row {b}; labels must be in 0..{V - 1} and not "
            f"the blank, {blank}"
        )
    return np.where(given, labels, blank).astype(np.int64), steps, counts


def _explained(
    row: int, targets: NDArray[np.int64], lengths: NDArray[np.int64], counts: NDArray[np.int64]
) -> str:
    """Why a row's target has no alignment, and what to do."""
    count, steps = counts[row], lengths[row]
    labels = targets[:count, row]
    repeats = int((labels[1:] == labels[:-1]).sum())
    if steps < count + repeats:
        reason = (
            f"{count} labels with {repeats} equal neighbors need {count + repeats} steps, and it "
            f"has {steps}"
        )
    else:
        reason = "its labels have probability 0"
    return (
        f"ctc_loss: the target of row {row} is impossible: {reason}; omit the row, or choose "
        "impossible='zero' or 'infinity'"
    )


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
