"""Kernels without a loop over time: products, softmax, losses, rows, dropout, normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anaphora.engine.precision import int8_product, rounded, rows_of_table

Array: TypeAlias = NDArray[Any]

_LOGITS = 1 << 20
"""The approximate number of logits held at a time if only the losses are needed."""


def matmul(a: Array, b: Array, bias: Array | None = None, *, gradient: str = "") -> Array:
    """The product of two matrices, [M, K] and [K, N] give [M, N], plus a bias [N] if given.

    If the product is a gradient, `gradient` may say so: "input" (b is the weight) or "weight" (the
    result is the weight's gradient). The native engine may then use a faster method that rounds
    differently.

    >>> matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), bias=np.array([0.5]))
    array([[11.5]])
    """
    product = int8_product(a, b) if gradient == "" else None
    if product is None:
        product = np.asarray(rounded(a) @ rounded(b))
    if bias is not None:
        product += bias
    return product


def batch_matmul(a: Array, b: Array) -> Array:
    """The products of a batch of matrices: [N, M, K] and [N, K, P] give [N, M, P].

    >>> batch_matmul(np.array([[[1.0, 2.0]]]), np.array([[[3.0], [4.0]]]))
    array([[[11.]]])
    """
    return np.asarray(rounded(a) @ rounded(b))


def softmax_forward(x: Array, mask: Array | None = None, *, logarithm: bool = False) -> Array:
    """``exp(x) / sum(exp(x))`` of each row, or its logarithm, without overflow.

    Args:
        x: [N, S].
        mask: [N, S] booleans: what is included; the rest is 0, and so is a row of which nothing is.
            None includes all.
        logarithm: Return the logarithm; then there is no mask.

    Returns:
        y [N, S].

    >>> x = np.array([[1000.0, 1000.0], [0.0, 0.0]])
    >>> softmax_forward(x), softmax_forward(x, np.array([[True, False], [False, False]]))
    (array([[0.5, 0.5],
           [0.5, 0.5]]), array([[1., 0.],
           [0., 0.]]))
    """
    if x.shape[1] == 0:
        return x.copy()
    if logarithm:
        shifted = x - x.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
    kept = np.ones(x.shape, bool) if mask is None else mask
    largest = x.max(axis=1, keepdims=True, initial=-np.inf, where=kept)
    some = kept.any(axis=1, keepdims=True)
    y = np.zeros_like(x)
    np.exp(x - np.where(some, largest, 0).astype(x.dtype), out=y, where=kept)
    return np.asarray(y / np.where(some, y.sum(axis=1, keepdims=True), 1).astype(x.dtype))


def softmax_backward(y: Array, dy: Array, *, logarithm: bool = False) -> Array:
    """The gradient of x [N, S] of `softmax_forward`, of what it returned and its gradient.

    >>> softmax_backward(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    array([[ 0.25, -0.25]])
    """
    if logarithm:
        return np.asarray(dy - np.exp(y) * dy.sum(axis=1, keepdims=True))
    return np.asarray(y * (dy - (dy * y).sum(axis=1, keepdims=True)))


_python_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to x.

    >>> erf(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.842701])
    """
    return np.asarray(_python_erf(x), x.dtype)


def sum_columns(x: Array) -> Array:
    """The sums of the columns: [M, N] gives [N].

    >>> sum_columns(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([4., 6.])
    """
    return np.asarray(x.sum(axis=0))


def cross_entropy_forward(
    logits: Array, targets: Array, in_place: bool = False
) -> tuple[Array, Array]:
    """The negative log-probability of each row's target, and what `cross_entropy_backward` needs.

    Args:
        logits: [N, V] unnormalized log-probabilities.
        targets: [N] integers in 0..V-1.
        in_place: The probabilities may overwrite the logits.

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


def linear_cross_entropy_losses(
    x: Array, weight: Array, bias: Array | None, targets: Array
) -> Array:
    """The losses of `cross_entropy_forward` for the logits ``x @ weight.T + bias``.

    Only a block of rows of the logits exists at a time.

    Args:
        x: [N, I].
        weight: [V, I].
        bias: [V].
        targets: [N] integers in 0..V-1.

    Returns:
        losses [N] in nats.

    >>> weight = np.array([[0.0], [0.0]])
    >>> linear_cross_entropy_losses(np.array([[1.0]]), weight, None, np.array([1])).round(4)
    array([0.6931])
    """
    losses = np.empty(len(x), x.dtype)
    rows = max(1, _LOGITS // max(1, len(weight)))
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        logits = matmul(x[block], weight.T, bias)
        losses[block], _ = cross_entropy_forward(logits, targets[block], in_place=True)
    return losses


def gather_rows(table: Array, ids: Array) -> Array:
    """Look up rows of a table [V, E]: integer ids [...] give [..., E].

    Within `precision.int8_weights` the rows are those of the table in 8 bits.

    Raises:
        IndexError: an id is outside 0..V-1.

    >>> gather_rows(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1, 0]))
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])
    """
    if ids.size and not (ids.min() >= 0 and ids.max() < len(table)):
        raise IndexError(
            f"embedding: ids from {ids.min()} to {ids.max()} for a table of {len(table)} rows"
        )
    return rows_of_table(np.asarray(table[ids]))


def sum_rows(indices: Array, values: Array) -> tuple[Array, Array]:
    """Sum the values of each row, in an order that depends on the indices only.

    Args:
        indices: [N] integers >= 0.
        values: [N, ...].

    Returns:
        The distinct rows [M], ascending, and their sums [M, ...].

    >>> sum_rows(np.array([2, 0, 2]), np.array([1.0, 10.0, 3.0]))
    (array([0, 2]), array([10.,  4.]))
    """
    order = np.argsort(indices, kind="stable")
    ascending = indices[order]
    first = np.flatnonzero(np.diff(ascending, prepend=-1))
    if len(first) == 0:
        return ascending, values[:0]
    return ascending[first], np.add.reduceat(values[order], first, axis=0)


def cumsum(x: Array, axis: int, *, reverse: bool = False) -> Array:
    """The sums of all elements up to each along an axis; in reverse, from the last element on.

    >>> cumsum(np.array([1.0, 2.0, 4.0]), 0), cumsum(np.array([1.0, 2.0, 4.0]), 0, reverse=True)
    (array([1., 3., 7.]), array([7., 6., 4.]))
    """
    if reverse:
        return np.flip(np.cumsum(np.flip(x, axis), axis), axis)
    return np.cumsum(x, axis)


def take_along_axis(x: Array, indices: Array, axis: int) -> Array:
    """Elements of each slice along an axis, by indices of its own.

    Args:
        x: [...].
        indices: Integers, in the shape of x but for the axis; -1 is the last element.
        axis: The axis, from 0.

    Raises:
        IndexError: there is no such element.

    >>> take_along_axis(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1, 1, 0], [-1, 0, 0]]), 1)
    array([[2., 2., 1.],
           [4., 3., 3.]])
    """
    return np.take_along_axis(x, indices, axis)


def add_along_axis(dy: Array, indices: Array, axis: int, count: int) -> Array:
    """The gradient of x in `take_along_axis`, with `count` elements along the axis, of that of y.

    The gradients of an element that was taken several times are summed, in their order.

    >>> add_along_axis(np.array([[1.0, 10.0, 100.0]]), np.array([[1, 1, 0]]), 1, count=3)
    array([[100.,  11.,   0.]])
    """
    shape = (*dy.shape[:axis], count, *dy.shape[axis + 1 :])
    places = [np.arange(n).reshape(-1, *(1,) * (len(shape) - d - 1)) for d, n in enumerate(shape)]
    places[axis] = indices
    dx = np.zeros(shape, dy.dtype)
    np.add.at(dx, tuple(places), dy)
    return dx


def add_rows(dy: Array, rows: Array, shape: tuple[int, ...], axes: int) -> Array:
    """Rows added to an array of zeros, in their order.

    Args:
        dy: [N, ...] rows.
        rows: [N] where to add each.
        shape: The shape of the result.
        axes: How many of its axes number its rows; the others are those of a row.

    Raises:
        IndexError: there is no such row.

    >>> add_rows(np.array([[1.0], [2.0], [4.0]]), np.array([3, 0, 3]), (2, 2, 1), axes=2)[..., 0]
    array([[2., 0.],
           [0., 5.]])
    """
    dx = np.zeros((math.prod(shape[:axes]), *shape[axes:]), dy.dtype)
    np.add.at(dx, rows, dy)
    return dx.reshape(shape)


def order_rows(x: Array, count: int, *, descending: bool = False) -> NDArray[np.int64]:
    """The places of the first elements of each row, in order.

    Args:
        x: [N, S].
        count: How many of each row.
        descending: From the largest element on. Of equal ones the first is first; NaN is larger
            than all numbers.

    Returns:
        [N, count].

    >>> order_rows(np.array([[3.0, 1.0, 2.0, 3.0]]), 3, descending=True)
    array([[0, 3, 2]])
    """
    if not descending:
        return np.argsort(x, 1, kind="stable")[:, :count]
    # The last of those in ascending order; reversed before too, so that the first remain first.
    order = np.argsort(x[:, ::-1], 1, kind="stable")[:, ::-1]
    return np.asarray(x.shape[1] - 1 - order)[:, :count]


def sample(
    logits: Array, uniforms: Array, temperature: float, top_k: int, top_p: float
) -> NDArray[np.int64]:
    """Sample one id from each row of logits, by the rules of `generation.Sampler`.

    Args:
        logits: [B, V], -inf where an id is excluded.
        uniforms: [B] float64 numbers, 0 <= u < 1; not used at temperature 0.
        temperature: Divides the logits; 0 takes the largest.
        top_k: The number of most likely ids to sample from; 0 means all.
        top_p: The probability mass of the nucleus.

    Returns:
        [B] ids.

    Raises:
        TypeError, ValueError: as for `check_logits`.

    >>> sample(np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]), np.array([0.6, 0.9]), 1.0, 0, 1.0)
    array([1, 2])
    """
    check_logits(logits)
    if temperature == 0:
        greedy: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
        return greedy
    ranked = top_k > 0 or top_p < 1

    # Weights are unnormalized probabilities; a row's most likely token has weight 1. They are
    # float64, since a float32 sum over a large vocabulary would lose the rare tokens.
    scores = logits.astype(np.float64)  # [B, V]
    with np.errstate(over="ignore"):  # a difference that overflows has weight 0
        scores = (scores - scores.max(axis=1, keepdims=True)) / temperature
    if ranked:
        order = np.argsort(-logits, axis=1, kind="stable")  # [B, V], most likely first
        order = order[:, : top_k or None]
        scores = np.take_along_axis(scores, order, axis=1)
    cumulative = np.exp(scores).cumsum(axis=1)  # [B, V or k]
    total = cumulative[:, -1:]  # [B, 1]
    if top_p < 1:
        # The number of tokens before the one that reaches top_p, the last of the nucleus.
        last = (cumulative < top_p * total).sum(axis=1, keepdims=True)
        total = np.take_along_axis(cumulative, last, axis=1)

    threshold = uniforms[:, None] * total  # [B, 1], below the total
    sampled = (cumulative <= threshold).sum(axis=1, keepdims=True)  # [B, 1]
    if ranked:
        sampled = np.take_along_axis(order, sampled, axis=1)
    ids: NDArray[np.int64] = sampled[:, 0].astype(np.int64)
    return ids


def check_logits(logits: Array) -> None:
    """Raise if an id cannot be sampled from the logits.

    Raises:
        TypeError: they are not floating-point numbers.
        ValueError: they are not [B, V] with V > 0; or a row has NaN, +inf or only -inf.

    >>> check_logits(np.array([[0.0, -np.inf]]))
    """
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"sample: logits have shape {list(logits.shape)}; expected [B, V], V > 0")
    if not np.issubdtype(logits.dtype, np.floating):
        raise TypeError(f"sample: logits are {logits.dtype}; expected float32 or float64")
    largest = logits.max(axis=1)  # NaN if any is NaN
    if not np.isfinite(largest).all():
        row = int(np.argmin(np.isfinite(largest)))
        problem = {-math.inf: "only -inf", math.inf: "+inf"}.get(float(largest[row]), "NaN")
        raise ValueError(
            f"sample: row {row} of the logits has {problem}; expected finite numbers, or -inf for "
            "some tokens: are the model's weights NaN, or were all tokens excluded?"
        )


def philox(counter: Sequence[Array], key: int) -> list[Array]:
    """Random bits as a function of counter and key: Philox4x32-10 (Salmon et al. 2011).

    Args:
        counter: Four arrays [...] of uint64, each a word below 2**32, least significant first.
        key: 0 <= key < 2**64.

    Returns:
        Four arrays [...] of uint64, each a random word below 2**32.

    >>> zero = np.zeros(1, np.uint64)
    >>> [hex(word[0]) for word in philox([zero] * 4, key=0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    key_0, key_1 = key & 0xFFFFFFFF, key >> 32
    a, b, c, d = counter
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b = (second >> half) ^ b ^ np.uint64(key_0), second & low
        c, d = (first >> half) ^ d ^ np.uint64(key_1), first & low
        key_0, key_1 = (key_0 + 0x9E3779B9) & 0xFFFFFFFF, (key_1 + 0xBB67AE85) & 0xFFFFFFFF
    return [a, b, c, d]


def random_words(count: int, key: int) -> Array:
    """Random 32-bit words, each a function of its position and the key only.

    Words 64 g ... 64 g + 63 are those of `philox` for the counters 16 g ... 16 g + 15: first word 0
    of all sixteen, then word 1, and so on, an order that vector registers can store directly.

    Args:
        count: The number of words.
        key: 0 <= key < 2**64.

    Returns:
        [count] uint32.

    >>> bool((random_words(5, key=3) == random_words(100, key=3)[:5]).all())
    True
    """
    counters = np.arange(-(-count // 64) * 16, dtype=np.uint64).reshape(-1, 16)
    zero = np.zeros_like(counters)
    low, high = counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32)
    words = np.stack(philox([low, high, zero, zero], key), axis=1)
    return words.reshape(-1)[:count].astype(np.uint32)


def mask_shape(shape: tuple[int, ...], shared_axes: Sequence[int]) -> tuple[int, ...]:
    """The shape of the mask of `dropout`: 1 along the axes that share it.

    >>> mask_shape((5, 3, 4), shared_axes=(0, -1))
    (1, 3, 1)
    """
    sizes = list(shape)
    for axis in shared_axes:
        sizes[axis] = 1
    return tuple(sizes)


def dropout_threshold(rate: float) -> int:
    """The smallest random 32-bit word at which an element is kept.

    >>> dropout_threshold(0.25) / 2**32
    0.25
    """
    return min(round(rate * 2**32), 2**32 - 1)


def dropout(x: Array, rate: float, key: int, shared_axes: Sequence[int] = ()) -> Array:
    """Multiply by a mask: 0 with probability `rate`, else ``1 / (1 - rate)``.

    The mask is a function of the key and the position, in C order, so the backward pass is the same
    call with the gradient: it regenerates the mask.

    Args:
        x: [...].
        rate: 0 <= rate < 1.
        key: 0 <= key < 2**64, a new random one for each mask.
        shared_axes: Axes along which the mask is the same.

    >>> dropout(np.ones(10), 0.5, key=1)
    array([2., 2., 0., 2., 0., 0., 0., 0., 2., 0.])
    """
    shape = mask_shape(x.shape, shared_axes)
    kept = random_words(int(np.prod(shape)), key) >= np.uint32(dropout_threshold(rate))
    return np.asarray(x * (kept.reshape(shape) * x.dtype.type(1 / (1 - rate))))


def layer_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, epsilon: float
) -> tuple[Array, Array, Array]:
    """Shift and scale rows to mean 0 and variance 1; then ``* weight + bias``.

    Args:
        x: [N, H].
        weight: [H]; None means 1.
        bias: [H]; None means 0.
        epsilon: Added to the variance.

    Returns:
        y [N, H], the means of the rows [N], and the factors that scaled them [N].

    >>> layer_norm_forward(np.array([[2.0, 6.0]]), None, np.array([0.0, 5.0]), epsilon=0.0)
    (array([[-1.,  6.]]), array([4.]), array([0.5]))
    """
    means = x.mean(axis=1)
    centered = x - means[:, None]
    factors = 1 / np.sqrt((centered * centered).mean(axis=1) + x.dtype.type(epsilon))
    y = centered * factors[:, None]
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, means, factors


def layer_norm_backward(
    x: Array, weight: Array | None, means: Array, factors: Array, dy: Array
) -> tuple[Array, Array, Array]:
    """The gradients of x [N, H], weight [H] and bias [H] of `layer_norm_forward`.

    Means and factors are what it returned; dy [N, H] is the gradient of y.

    >>> x, d = np.array([[0.0, 0.0, 4.0, 4.0]]), np.array([[1.0, 0.0, 0.0, 0.0]])
    >>> _, means, factors = layer_norm_forward(x, None, None, epsilon=0.0)
    >>> layer_norm_backward(x, None, means, factors, d)[0]
    array([[ 0.25, -0.25,  0.  ,  0.  ]])
    """
    normalized = (x - means[:, None]) * factors[:, None]
    d = dy if weight is None else dy * weight
    along = (d * normalized).mean(axis=1, keepdims=True)
    dx = (d - d.mean(axis=1, keepdims=True) - normalized * along) * factors[:, None]
    return np.asarray(dx), np.asarray((dy * normalized).sum(axis=0)), np.asarray(dy.sum(axis=0))


def batch_norm_forward(
    x: Array, mask: Array | None, weight: Array | None, bias: Array | None, epsilon: float
) -> tuple[Array, Array, Array, Array]:
    """Shift and scale columns to mean 0 and variance 1; then ``* weight + bias``.

    Args:
        x: [..., I]: N rows.
        mask: [N] booleans, False where a row does not count, and y is 0; None if all do. One does.
        weight: [I]; None means 1.
        bias: [I]; None means 0.
        epsilon: Added to the variance.

    Returns:
        y [..., I], the means of the columns [I], their variances [I], and the factors that scaled
        them [I].

    >>> x = np.array([[2.0], [6.0], [9.0]])
    >>> y, *_ = batch_norm_forward(x, np.array([True, True, False]), None, None, epsilon=0.0)
    >>> y.ravel()
    array([-1.,  1.,  0.])
    """
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    counted = rows if mask is None else rows[mask]
    means, variances = counted.mean(axis=0), counted.var(axis=0)
    factors = 1 / np.sqrt(variances + x.dtype.type(epsilon))
    y = (rows - means) * factors
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    y = y if mask is None else _masked(y, mask)
    return y.reshape(x.shape), means, variances, factors


def batch_norm_backward(
    x: Array, mask: Array | None, weight: Array | None, means: Array, factors: Array, dy: Array
) -> tuple[Array, Array]:
    """The gradients of x [..., I], and of weight and bias [2, I], of `batch_norm_forward`.

    >>> x, ones = np.array([[1.0], [3.0]]), np.ones(1)
    >>> dx, d_weight_and_bias = batch_norm_backward(x, None, None, 2 * ones, ones, x)
    >>> dx.ravel(), d_weight_and_bias.ravel()
    (array([0., 0.]), array([2., 4.]))
    """
    rows = math.prod(x.shape[:-1]), x.shape[-1]
    normalized, d = (x.reshape(rows) - means) * factors, dy.reshape(rows)
    if mask is not None:
        normalized, d = _masked(normalized, mask), _masked(d, mask)
    d_weight, d_bias = (d * normalized).sum(axis=0), d.sum(axis=0)
    share = x.dtype.type(1 / (len(normalized) if mask is None else np.count_nonzero(mask)))
    dx = (d - share * d_bias - normalized * (share * d_weight)) * factors
    dx = dx if weight is None else dx * weight
    dx = dx if mask is None else _masked(dx, mask)
    return dx.reshape(x.shape), np.stack([d_weight, d_bias])


def _masked(rows: Array, mask: Array) -> Array:
    return np.where(mask[:, None], rows, rows.dtype.type(0))
