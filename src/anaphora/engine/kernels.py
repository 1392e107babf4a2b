"""Kernels without a loop over time: products, softmax, losses, masks, normalisation, rows."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """The product of two matrices, [M, K] and [K, N] give [M, N], plus a bias [N] if given.

    >>> matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), bias=np.array([0.5]))
    array([[11.5]])
    """
    product = np.asarray(a @ b)
    if bias is not None:
        product += bias
    return product


def sum_columns(x: Array) -> Array:
    """The sums of the columns: [M, N] gives [N].

    >>> sum_columns(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([4., 6.])
    """
    return np.asarray(x.sum(axis=0))


def log_softmax(x: Array, axis: int) -> Array:
    """``x - log(sum(exp(x)))`` along an axis, without overflow; x [...] of any shape.

    >>> np.exp(log_softmax(np.array([1000.0, 1000.0]), axis=0))
    array([0.5, 0.5])
    """
    shifted = x - x.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def cross_entropy_forward(
    logits: Array, targets: Array, in_place: bool = False
) -> tuple[Array, Array]:
    """The negative log-probability of each row's target, and what `cross_entropy_backward` needs.

    Args:
        logits: [N, V] unnormalised log-probabilities.
        targets: [N] integers in 0..V-1.
        in_place: The logits are not needed any more: the probabilities may take their memory.

    Returns:
        losses [N] in nats, and probabilities [N, V].

    >>> losses, probabilities = cross_entropy_forward(np.array([[0.0, 0.0]]), np.array([1]))
    >>> losses.round(4), probabilities
    (array([0.6931]), array([[0.5, 0.5]]))
    """
    largest = logits.max(axis=1, keepdims=True)
    probabilities = np.subtract(logits, largest, out=logits if in_place else None)
    losses = -probabilities[np.arange(len(targets)), targets]
    np.exp(probabilities, out=probabilities)
    totals = probabilities.sum(axis=1, keepdims=True)
    losses += np.log(totals[:, 0])
    probabilities /= totals
    return losses, probabilities


def cross_entropy_backward(probabilities: Array, targets: Array, d_losses: Array) -> Array:
    """``p - onehot(target)``, times each row's gradient [N]; returns [N, V].

    >>> cross_entropy_backward(np.array([[0.25, 0.75]]), np.array([1]), np.array([1.0]))
    array([[ 0.25, -0.25]])
    """
    d_logits = probabilities * d_losses[:, None]
    d_logits[np.arange(len(targets)), targets] -= d_losses
    return np.asarray(d_logits)


def sum_rows(indices: Array, values: Array) -> tuple[Array, Array]:
    """Sum the values that belong to the same row, in the order in which they stand.

    Args:
        indices: [N] integers >= 0.
        values: [N, ...].

    Returns:
        The rows [M], ascending, each once, and their sums [M, ...].

    >>> sum_rows(np.array([2, 0, 2]), np.array([1.0, 10.0, 3.0]))
    (array([0, 2]), array([10.,  4.]))
    """
    order = np.argsort(indices, kind="stable")
    ascending = indices[order]
    first = np.flatnonzero(np.diff(ascending, prepend=-1))
    if len(first) == 0:
        return ascending, values[:0]
    return ascending[first], np.add.reduceat(values[order], first, axis=0)


def draw(
    logits: Array, uniforms: Array, temperature: float, top_k: int, top_p: float
) -> NDArray[np.int64]:
    """Draw one id for each row of logits; `generation.Sampler` says by which rule.

    Args:
        logits: [B, V], -inf where an id is excluded.
        uniforms: [B] float64 numbers, 0 <= u < 1; not read at temperature 0.
        temperature: Divides the logits; 0 takes the largest.
        top_k: The number of ids to draw from; 0 is all.
        top_p: The probability that the nucleus reaches.

    Returns:
        [B] ids.

    Raises:
        TypeError, ValueError: as `check_logits`.

    >>> draw(np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), np.array([0.6, 0.9]), 1.0, 0, 1.0)
    array([1, 2])
    """
    check_logits(logits)
    if temperature == 0:
        greedy: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
        return greedy
    ranked = top_k > 0 or top_p < 1

    # Weights are probabilities up to a factor; a row's likeliest token has weight 1. They are
    # float64, as a float32 sum over a large vocabulary would lose the rare tokens.
    scores = logits.astype(np.float64)  # [B, V]
    with np.errstate(over="ignore"):  # a difference too large to write is a weight of 0
        scores = (scores - scores.max(axis=1, keepdims=True)) / temperature
    if ranked:
        order = np.argsort(-logits, axis=1, kind="stable")  # [B, V], likeliest first
        order = order[:, : top_k or None]
        scores = np.take_along_axis(scores, order, axis=1)
    cumulative = np.exp(scores).cumsum(axis=1)  # [B, V or k]
    total = cumulative[:, -1:]  # [B, 1]
    if top_p < 1:
        # The tokens before the one that reaches top_p, which is the nucleus's last.
        last = (cumulative < top_p * total).sum(axis=1, keepdims=True)
        total = np.take_along_axis(cumulative, last, axis=1)

    threshold = uniforms[:, None] * total  # [B, 1], below the total
    drawn = (cumulative <= threshold).sum(axis=1, keepdims=True)  # [B, 1]
    if ranked:
        drawn = np.take_along_axis(order, drawn, axis=1)
    ids: NDArray[np.int64] = drawn[:, 0].astype(np.int64)
    return ids


def check_logits(logits: Array) -> None:
    """Refuse logits from which no id can be drawn.

    Raises:
        TypeError: they are not floating-point numbers.
        ValueError: they are not [B, V] with V > 0; or a row has NaN, +inf or only -inf.

    >>> check_logits(np.array([[0.0, -np.inf]]))
    """
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"sample: logits have shape {list(logits.shape)}; expected [B, V], V > 0")
    if not np.issubdtype(logits.dtype, np.floating):
        raise TypeError(f"sample: logits are {logits.dtype}; expected float32 or float64")
    largest = logits.max(axis=1)  # NaN if any is
    if not np.isfinite(largest).all():
        row = int(np.argmin(np.isfinite(largest)))
        problem = {-math.inf: "only -inf", math.inf: "+inf"}.get(float(largest[row]), "NaN")
        raise ValueError(
            f"sample: row {row} of the logits has {problem}; expected finite numbers, or -inf for "
            "some tokens: have the model's weights become NaN, or were all tokens excluded?"
        )


def dropout_mask(
    shape: tuple[int, ...], rate: float, dtype: DTypeLike, generator: np.random.Generator
) -> Array:
    """0 with probability `rate`, else ``1 / (1 - rate)``, so that the expectation is 1.

    >>> mask = dropout_mask((100,), 0.5, np.float32, np.random.default_rng(1))
    >>> np.unique(mask)
    array([0., 2.], dtype=float32)
    """
    kept = generator.random(shape, dtype=np.float32) >= rate
    return np.multiply(kept, 1 / (1 - rate), dtype=dtype)


def layer_norm_forward(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Shift and scale rows to mean 0 and variance 1.

    Args:
        x: [N, H].
        epsilon: Added to the variance.

    Returns:
        The rows so scaled [N, H], and the factors that scaled them [N, 1].

    >>> layer_norm_forward(np.array([[2.0, 6.0]]), epsilon=0.0)
    (array([[-1.,  1.]]), array([[0.5]]))
    """
    centred = x - x.mean(axis=1, keepdims=True)
    factors = 1 / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + x.dtype.type(epsilon))
    return centred * factors, factors


def layer_norm_backward(normalised: Array, factors: Array, d_normalised: Array) -> Array:
    """The gradient of the rows that `layer_norm_forward` was given; all [N, H], factors [N, 1].

    >>> normalised, factors = layer_norm_forward(np.array([[0.0, 0.0, 4.0, 4.0]]), epsilon=0.0)
    >>> layer_norm_backward(normalised, factors, np.array([[1.0, 0.0, 0.0, 0.0]]))
    array([[ 0.25, -0.25,  0.  ,  0.  ]])
    """
    mean = d_normalised.mean(axis=1, keepdims=True)
    along = (d_normalised * normalised).mean(axis=1, keepdims=True)
    return np.asarray((d_normalised - mean - normalised * along) * factors)
