"""Linear-chain conditional random fields: the loss of tag sequences, the best one, marginals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import engine
from anaphora.ops.losses import check_reduction
from anaphora.ops.recurrence import checked_lengths
from anaphora.tensor import (
    Array,
    Input,
    Operand,
    Tensor,
    as_integers,
    as_tensor,
    differentiable,
    floating,
)


@differentiable
@floating
def crf_loss(
    emissions: Input,
    transitions: Input,
    start: Input,
    end: Input,
    /,
    tags: Input,
    lengths: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """The negative log-probability of tag sequences (paths), in nats.

        score(path) = start[path 0] + sum of emissions[t, path t]
                      + sum of transitions[path t, path t+1] + end[last of path]
        loss = log(sum of exp(score) over all paths) - score(tags)

    It is computed in float64; the gradient of the emissions is the probability of each tag at each
    step, minus 1 for the true tag. Source: Lafferty et al. 2001; on a recurrent network, Lample et
    al. 2016.

    Args:
        emissions: [T, B, C] scores of the tags at each step; they need not be normalized.
        transitions: [C, C] scores of a tag (column) after another (row).
        start: [C] scores of the first tag.
        end: [C] scores of the last tag.
        tags: [T, B] integers in 0..C-1.
        lengths: [B] the steps of each row, or None for all T. Later steps are not read.
        ignore_index: Final steps of a row with this tag do not count either.
        reduction: "mean" divides the sum by the number of steps that have a tag, so that the loss
            is in nats per tag, like that of `cross_entropy` (0 if there are none); "sum"; or
            "none": [B], one per row.

    Raises:
        ValueError: shapes do not match; a tag or a length is out of range; ignore_index precedes
            a tag; or the reduction is unknown.
        TypeError: the tags are not integers.

    >>> zero = np.zeros(2)
    >>> crf_loss(np.zeros((3, 1, 2)), np.zeros((2, 2)), zero, zero, [[0], [1], [1]]).item()
    0.693147...
    """
    check_reduction("crf_loss", reduction)
    _check_shapes("crf_loss", emissions, transitions, start, end)
    path = _Path(
        emissions, tags, checked_lengths("crf_loss", lengths, emissions.shape), ignore_index
    )
    arrays = emissions, transitions, start, end, path.lengths
    log_partitions, alphas = engine.crf_forward(*arrays)
    with np.errstate(invalid="ignore"):
        losses = log_partitions - path.scores(emissions, transitions, start, end)
    tokens = int(path.lengths.sum())
    scale = 1 / (tokens or 1) if reduction == "mean" else 1.0

    def pullback(dy: Array) -> tuple[Array, ...]:
        weights = np.broadcast_to(dy * dy.dtype.type(scale), losses.shape)
        d_emissions, d_transitions = engine.crf_backward(*arrays, log_partitions, alphas, weights)
        path.subtract(weights, d_emissions, d_transitions)
        return (d_emissions, d_transitions, *path.of_ends(d_emissions))

    value = losses if reduction == "none" else losses.sum() * scale
    return np.asarray(value, emissions.dtype), pullback


def crf_decode(
    emissions: Operand,
    transitions: Operand,
    start: Operand,
    end: Operand,
    lengths: ArrayLike | None = None,
    padding: int = -100,
) -> NDArray[np.int64]:
    """The path with the highest score, as defined in `crf_loss`, by Viterbi's algorithm.

    It has no gradient. Ties are broken in favor of the first tag.

    Args:
        emissions: [T, B, C].
        transitions: [C, C]; -inf where a tag must not follow another.
        start: [C]; -inf for a tag that must not be first.
        end: [C]; -inf for a tag that must not be last.
        lengths: [B] the steps of each row, or None for all T.
        padding: The tag after the lengths.

    Returns:
        tags [T, B].

    Raises:
        ValueError: shapes do not match, a length is out of range, scores contain NaN, or no path
            of a row's length is possible.

    >>> emissions = [[[0.0, 1.0]], [[0.5, 0.0]]]
    >>> crf_decode(emissions, [[0, -1], [-1, 0]], [0, 0], [0, 0])[:, 0]
    array([1, 1])
    """
    arrays = _plain("crf_decode", emissions, transitions, start, end, lengths)
    with np.errstate(invalid="ignore"):
        tags, scores = engine.crf_decode(*arrays, padding)
    _check_possible("crf_decode", scores, arrays[-1])
    return tags


def crf_marginals(
    emissions: Operand,
    transitions: Operand,
    start: Operand,
    end: Operand,
    lengths: ArrayLike | None = None,
) -> Array:
    """The probability of each tag at each step, over all paths: the forward-backward algorithm.

    It has no gradient. The arguments are those of `crf_decode`.

    Returns:
        [T, B, C], 0 after the lengths.

    Raises:
        ValueError: as for `crf_decode`.

    >>> marginals = crf_marginals(np.zeros((2, 1, 2)), [[0, 0], [-np.inf, 0]], [0, 0], [0, 0])
    >>> marginals[:, 0].round(3)  # of the paths 00, 01, 11
    array([[0.667, 0.333],
           [0.333, 0.667]])
    """
    arrays = _plain("crf_marginals", emissions, transitions, start, end, lengths)
    log_partitions, alphas = engine.crf_forward(*arrays)
    _check_possible("crf_marginals", log_partitions, arrays[-1])
    weights = np.ones(len(log_partitions), arrays[0].dtype)
    return engine.crf_backward(*arrays, log_partitions, alphas, weights)[0]


class _Path:
    """The tags of a batch: checked, with the length of each row, and their scores."""

    def __init__(
        self, emissions: Array, tags: Any, lengths: Array | None, ignore_index: int
    ) -> None:
        T, B, C = emissions.shape
        given = as_integers(tags, "crf_loss: tags are integers")
        if given.size == 0:
            given = given.reshape(T, B) if T * B == 0 else given
        if given.shape != (T, B):
            raise ValueError(
                f"crf_loss: tags of shape {given.shape} for emissions of shape {emissions.shape}; "
                f"expected [T, B], ({T}, {B})"
            )
        step = np.arange(T)[:, None]
        tagged = given != ignore_index
        if lengths is not None:
            tagged &= step < lengths
        self.lengths = np.where(tagged, step + 1, 0).max(axis=0, initial=0).astype(np.int64)
        self.real = step < self.lengths  # [T, B]
        missing = self.real & ~tagged
        if missing.any():
            t, b = np.argwhere(missing)[0]
            raise ValueError(
                f"crf_loss: row {b} has no tag at step {t} (ignore_index={ignore_index}) but has "
                "one later; a path has a tag at each step, except for a row's final steps"
            )
        outside = self.real & ((given < 0) | (given >= C))
        if outside.any():
            t, b = np.argwhere(outside)[0]
            raise ValueError(
                f"crf_loss: tag {given[t, b]} of row {b} at step {t} is outside 0..{C - 1} (and is "
                f"not ignore_index={ignore_index})"
            )
        self.tags = np.where(self.real, given, 0).astype(np.intp)
        self.rows = np.flatnonzero(self.lengths)  # rows that have a path
        self.last = self.lengths[self.rows] - 1

    def scores(self, emissions: Array, transitions: Array, start: Array, end: Array) -> Array:
        """The score of each row's path, [B] float64, summed from its first step to its last."""
        total = np.zeros(len(self.lengths))
        if len(self.rows) == 0:
            return total
        terms = np.take_along_axis(emissions, self.tags[..., None], axis=2)[..., 0]
        terms = np.where(self.real, terms, 0).astype(np.float64)
        moves = np.where(self.real[1:], transitions[self.tags[:-1], self.tags[1:]], 0)
        terms[1:] += moves
        total += np.cumsum(terms, axis=0)[-1]  # unlike sum, it adds in the order of the steps
        total[self.rows] += start[self.tags[0, self.rows]].astype(np.float64)
        total[self.rows] += end[self.tags[self.last, self.rows]]
        return total

    def subtract(self, weights: Array, d_emissions: Array, d_transitions: Array) -> None:
        """Take what the score contributes, by the weight of each row, from gradients, in place."""
        of_steps = np.broadcast_to(weights, self.real.shape)
        steps, rows = np.nonzero(self.real)
        d_emissions[steps, rows, self.tags[steps, rows]] -= of_steps[steps, rows]
        follows = self.real[1:]
        pairs = self.tags[:-1][follows], self.tags[1:][follows]
        np.subtract.at(d_transitions, pairs, of_steps[1:][follows])

    def of_ends(self, d_emissions: Array) -> tuple[Array, Array]:
        """The gradients of start and end: those of the emissions of the first and last steps."""
        first = d_emissions[np.zeros_like(self.last), self.rows]
        return first.sum(axis=0), d_emissions[self.last, self.rows].sum(axis=0)


def _check_shapes(
    name: str, emissions: Array, transitions: Array, start: Array, end: Array
) -> None:
    if emissions.ndim != 3 or emissions.shape[2] == 0:
        raise ValueError(
            f"{name}: emissions of shape {emissions.shape}; expected [T, B, C] with C > 0"
        )
    C = emissions.shape[2]
    expected = {"transitions": (C, C), "start": (C,), "end": (C,)}
    for (argument, shape), array in zip(expected.items(), (transitions, start, end), strict=True):
        if array.shape != shape:
            raise ValueError(
                f"{name}: {argument} of shape {array.shape} for emissions of shape "
                f"{emissions.shape}; expected {shape}"
            )


def _plain(
    name: str, emissions: Any, transitions: Any, start: Any, end: Any, lengths: ArrayLike | None
) -> tuple[Array, Array, Array, Array, Array]:
    """The arrays of a call that has no gradient, checked, of the emissions' dtype."""
    scores = as_tensor(emissions, None, name).data
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float32)
    others = [
        as_tensor(a.data if isinstance(a, Tensor) else a, scores.dtype, name).data
        for a in (transitions, start, end)
    ]
    _check_shapes(name, scores, *others)
    T, B, _ = scores.shape
    ends = checked_lengths(name, lengths, scores.shape)
    ends = np.full(B, T, np.int64) if ends is None else ends
    real = (np.arange(T)[:, None] < ends)[:, :, None]
    if np.isnan(scores, where=real, out=np.zeros(scores.shape, bool)).any():
        raise ValueError(f"{name}: emissions contain NaN: have the model's weights become NaN?")
    if any(np.isnan(a).any() for a in others):
        raise ValueError(f"{name}: transitions contain NaN: have the model's weights become NaN?")
    return scores, others[0], others[1], others[2], ends


def _check_possible(name: str, scores: Array, lengths: Array) -> None:
    impossible = np.isneginf(scores)
    if impossible.any():
        row = int(np.argmax(impossible))
        raise ValueError(
            f"{name}: no path of {lengths[row]} steps is possible in row {row}; what transitions, "
            "start, end and emissions exclude (-inf) must leave one"
        )
