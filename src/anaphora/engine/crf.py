"""A linear-chain conditional random field: the sum over all paths of tags, and the best path.

The score of a path of tags is the sum of its emissions, its transitions between neighbors, and its
start and end scores. Everything is computed in float64, in logarithms. The empty path of a row of
length 0 has score 0.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


def crf_forward(
    emissions: Array, transitions: Array, start: Array, end: Array, lengths: Array
) -> tuple[Array, Array]:
    """The logarithm of the sum of exp(score) over all paths, and what `crf_backward` needs.

    Args:
        emissions: [T, B, C]; steps beyond a row's length are not read.
        transitions: [C, C] from, to; -inf where there is none.
        start: [C].
        end: [C].
        lengths: [B] int64, each 0..T.

    Returns:
        log_partitions [B] and alphas [T, B, C], the same for all partial paths that end in a tag at
        a step; both float64.

    >>> emissions = np.zeros((3, 1, 2))
    >>> zero = np.zeros(2)
    >>> log_partitions, _ = crf_forward(emissions, np.zeros((2, 2)), zero, zero, np.array([3]))
    >>> np.exp(log_partitions).round(12)  # 2 * 2 * 2 paths
    array([8.])
    """
    wide, start, end = transitions.astype(np.float64), start.astype(np.float64), end
    alphas = np.zeros(emissions.shape)
    log_partitions = np.zeros(emissions.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        for t in range(len(emissions)):
            real = lengths > t
            now = emissions[t, real].astype(np.float64)
            if t == 0:
                alphas[t, real] = start + now
            else:
                alphas[t, real] = _log_sum(alphas[t - 1, real][:, :, None] + wide) + now
            ends = lengths == t + 1
            log_partitions[ends] = _log_sum(alphas[t, ends] + end)
    return log_partitions, alphas


def crf_backward(
    emissions: Array,
    transitions: Array,
    start: Array,
    end: Array,
    lengths: Array,
    log_partitions: Array,
    alphas: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """The gradients of the sum of ``weights * log_partitions`` of `crf_forward`.

    With weights of 1 the gradient of the emissions is the probability of each tag at each step.

    Args:
        emissions: [T, B, C]; this and the next four as for `crf_forward`.
        transitions: [C, C].
        start: [C].
        end: [C].
        lengths: [B].
        log_partitions: [B], as `crf_forward` returned them.
        alphas: [T, B, C], as `crf_forward` returned them.
        weights: [B].

    Returns:
        d_emissions [T, B, C], 0 beyond the lengths, and d_transitions [C, C].

    >>> arrays = np.zeros((2, 1, 2)), np.zeros((2, 2)), np.zeros(2), np.zeros(2), np.array([2])
    >>> d_emissions, d_transitions = crf_backward(*arrays, *crf_forward(*arrays), np.ones(1))
    >>> d_emissions[0].round(12), d_transitions.round(12)
    (array([[0.5, 0.5]]), array([[0.25, 0.25],
           [0.25, 0.25]]))
    """
    wide = transitions.astype(np.float64)
    d_emissions = np.zeros_like(emissions)
    d_transitions = np.zeros_like(wide)
    beta = np.broadcast_to(end.astype(np.float64), emissions.shape[1:]).copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for t in reversed(range(len(emissions))):
            real, goes_on = lengths > t, lengths > t + 1
            if goes_on.any():
                after = beta[goes_on] + emissions[t + 1, goes_on]
                pairs = alphas[t, goes_on][:, :, None] + wide + after[:, None]
                pairs = np.exp(pairs - log_partitions[goes_on, None, None])
                d_transitions += (weights[goes_on, None, None] * pairs).sum(axis=0)
                beta[goes_on] = _log_sum(wide.T[None] + after[:, :, None])
            p = np.exp(alphas[t, real] + beta[real] - log_partitions[real, None])
            d_emissions[t, real] = weights[real, None] * p
    return d_emissions, d_transitions.astype(emissions.dtype)


def crf_decode(
    emissions: Array, transitions: Array, start: Array, end: Array, lengths: Array, padding: int
) -> tuple[NDArray[np.int64], Array]:
    """The path with the highest score of each row, by the Viterbi algorithm.

    Ties are broken in favor of the first tag.

    Args:
        emissions: [T, B, C] without NaN; this and the next four as for `crf_forward`.
        transitions: [C, C].
        start: [C].
        end: [C].
        lengths: [B].
        padding: The tag beyond the lengths.

    Returns:
        tags [T, B] and scores [B], float64.

    >>> emissions = np.array([[[0.0, 1.0]], [[0.5, 0.0]]])
    >>> stay = np.array([[0.0, -1.0], [-1.0, 0.0]])
    >>> tags, scores = crf_decode(emissions, stay, np.zeros(2), np.zeros(2), np.array([2]), -1)
    >>> tags[:, 0], scores
    (array([1, 1]), array([1.]))
    """
    wide = transitions.astype(np.float64)
    T, B, C = emissions.shape
    before = np.zeros((T, B, C), np.int64)
    best = np.zeros((B, C))
    for t in range(T):
        real = lengths > t
        if t == 0:
            best[real] = start.astype(np.float64) + emissions[0, real]
            continue
        scores = best[real][:, :, None] + wide
        before[t, real] = scores.argmax(axis=1)
        best[real] = scores.max(axis=1) + emissions[t, real]
    tags = np.full((T, B), padding, np.int64)
    total = np.where(lengths[:, None] > 0, best + end, 0)
    tag = total.argmax(axis=1)
    for t in reversed(range(T)):
        real = lengths > t
        tags[t, real] = tag[real]
        tag = np.where(real, before[t, np.arange(B), tag], tag)
    return tags, total.max(axis=1)


def _log_sum(x: Array) -> Array:
    """``log(sum(exp(x)))`` over axis 1; -inf if all elements are -inf."""
    largest = x.max(axis=1)
    largest = np.where(np.isneginf(largest), 0, largest)
    return np.asarray(np.log(np.exp(x - np.expand_dims(largest, 1)).sum(axis=1)) + largest)
