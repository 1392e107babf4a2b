"""Sums, means, maxima, norms and the like, over everything or along axes."""

from __future__ import annotations

import math
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from anaphora import engine
from anaphora.ops.arithmetic import (
    abs,
    divide,
    maximum,
    multiply,
    power,
    sqrt,
    subtract,
    where,
)
from anaphora.tensor import (
    Array,
    Booleans,
    Input,
    Operand,
    Tensor,
    as_tensor,
    composed,
    differentiable,
    floating,
)

Axes: TypeAlias = "int | tuple[int, ...] | None"


def _spread(dy: Array, shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Array:
    """Broadcast the gradient of a reduced array to the shape before the reduction."""
    if axis is not None and not keepdims:
        dy = np.expand_dims(dy, axis)
    return np.broadcast_to(dy, shape)


def _total(x: Array, axis: Axes, keepdims: bool) -> Array:
    """The sum; along the first axis, which is time, in the order of the steps.

    Zeros at its end, such as padded steps, then change no bit, and neither do other rows.
    """
    if axis == 0 and x.ndim > 1 and x.dtype.kind == "f":
        y = engine.sum_columns(x.reshape(len(x), math.prod(x.shape[1:]))).reshape(x.shape[1:])
        return y[None] if keepdims else y
    return np.asarray(x.sum(axis=axis, keepdims=keepdims))


@differentiable
def sum(x: Input, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The sum over all elements, or along axes.

    >>> sum([[1.0, 2.0], [3.0, 4.0]], axis=0).data
    array([4., 6.], dtype=float32)
    """
    shape = x.shape
    return _total(x, axis, keepdims), lambda dy: _spread(dy, shape, axis, keepdims)


@differentiable
def mean(x: Input, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The mean over all elements, or along axes.

    Raises:
        ValueError: there are no elements.

    >>> mean([[1.0, 2.0], [3.0, 4.0]], axis=1).data
    array([1.5, 3.5], dtype=float32)
    """
    y = _total(x, axis, keepdims)
    shape = x.shape
    count = x.size // y.size if y.size else 1
    if count == 0:
        raise ValueError(f"mean: an array of shape {shape} has no elements to take the mean of")
    if x.dtype.kind == "f":
        count = x.dtype.type(count)
    return y / count, lambda dy: _spread(dy / count, shape, axis, keepdims)


@differentiable
def max(x: Input, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The maximum of all elements, or along axes; equal maxima share the gradient.

    >>> max([[1.0, 2.0], [3.0, 4.0]], axis=0).data
    array([3., 4.], dtype=float32)
    """
    y = x.max(axis=axis, keepdims=keepdims)
    return y, _shared(x, y, axis, keepdims)


@differentiable
def min(x: Input, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The minimum of all elements, or along axes; equal minima share the gradient.

    >>> min([[1.0, 2.0], [3.0, 4.0]], axis=0).data
    array([1., 2.], dtype=float32)
    """
    y = x.min(axis=axis, keepdims=keepdims)
    return y, _shared(x, y, axis, keepdims)


def _shared(x: Array, y: Array, axis: Axes, keepdims: bool) -> Any:
    """The pullback of y, some elements of x, to all that are equal to them, or NaN as they are."""

    def pullback(dy: Array) -> Array:
        equal = (x == _spread(y, x.shape, axis, keepdims)) | np.isnan(x)
        shares = equal.sum(axis=axis, keepdims=keepdims).astype(x.dtype)
        return np.asarray(equal * _spread(dy / shares, x.shape, axis, keepdims))

    return pullback


@differentiable
def prod(x: Input, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The product of all elements, or along axes.

    >>> prod([[1.0, 2.0], [3.0, 4.0]], axis=0).data
    array([3., 8.], dtype=float32)
    """

    def pullback(dy: Array) -> Array:
        """The product of the elements before and after each, which is exact where one is 0."""
        axes = _axes(axis, x.ndim)
        kept = [k for k in range(x.ndim) if k not in axes]
        moved = x.transpose(*kept, *axes)
        rows = moved.reshape([math.prod(x.shape[k] for k in group) for group in (kept, axes)])
        before, after = np.ones_like(rows), np.ones_like(rows)
        np.cumprod(rows[:, :-1], axis=1, out=before[:, 1:])
        after[:, :-1] = np.cumprod(rows[:, :0:-1], axis=1)[:, ::-1]
        others = (before * after).reshape(moved.shape).transpose(np.argsort([*kept, *axes]))
        return np.asarray(others * _spread(dy, x.shape, axis, keepdims))

    return np.asarray(x.prod(axis=axis, keepdims=keepdims)), pullback


@differentiable
@floating
def logsumexp(x: Input, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` over all elements, or along axes, without overflow.

    >>> round(logsumexp([1000.0, 1000.0]).item(), 3)
    1000.693
    """
    largest = x.max(axis, keepdims=True, initial=-np.inf)
    largest = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):  # the logarithm of nothing
        y = np.log(_total(np.exp(x - largest), axis, True)) + largest

    def pullback(dy: Array) -> Array:
        shares = np.exp(x - np.where(np.isneginf(y), 0, y))
        return np.asarray(_spread(dy, x.shape, axis, keepdims) * shares)

    return y if keepdims else y.squeeze(_axes(axis, x.ndim)), pullback


@differentiable
def cumsum(x: Input, /, axis: int | None = None) -> Any:
    """The sums of all elements up to each, along an axis, or of the flattened array.

    They are summed in order: a sum depends on no later element.

    >>> cumsum([[1.0, 2.0], [3.0, 4.0]], axis=1).data
    array([[1., 3.],
           [3., 7.]], dtype=float32)
    """
    along = 0 if axis is None else normalize_axis_index(axis, x.ndim)

    def pullback(dy: Array) -> Array:
        dx = engine.cumsum(dy, along, reverse=True)
        return dx.reshape(x.shape) if axis is None else dx

    return engine.cumsum(x.reshape(-1) if axis is None else x, along), pullback


@composed
def var(x: Operand, axis: Axes = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
    """The variance: the mean of the squared distances from the mean.

    Args:
        x: [...].
        axis: An axis, or several; None for all elements.
        keepdims: Keep the axes, of size 1.
        ddof: The sum is divided by the number of elements minus `ddof`: 0 as in NumPy. PyTorch's is
            1.

    Raises:
        ValueError: there are no more than `ddof` elements.

    >>> var([1.0, 3.0]).item(), var([1.0, 3.0], ddof=1).item()
    (1.0, 2.0)
    """
    x = _floats(x, "var")
    count = math.prod(x.shape[k] for k in _axes(axis, x.ndim))
    if count <= ddof:
        raise ValueError(f"var: {count} elements for a variance with ddof={ddof}; it takes more")
    distances = subtract(x, mean(x, axis, True))
    return divide(sum(multiply(distances, distances), axis, keepdims), count - ddof)


@composed
def std(x: Operand, axis: Axes = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
    """The standard deviation, the root of `var`; where it is 0 its derivative is 0.

    >>> std([1.0, 3.0]).item()
    1.0
    """
    return _root(var(x, axis, keepdims, ddof=ddof), 2)


@composed
def norm(x: Operand, ord: float = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """``sum(abs(x) ** ord) ** (1 / ord)`` of all elements, or along axes; 0 has the derivative 0.

    Args:
        x: [...].
        ord: 2 for the Euclidean norm, 1, another number of at least 1, or ``inf`` for the largest
            absolute value.
        axis: An axis, or several; None for all elements.
        keepdims: Keep the axes, of size 1.

    Raises:
        ValueError: there is no such norm.

    >>> norm([3.0, -4.0]).item(), norm([3.0, -4.0], 1).item(), norm([3.0, -4.0], np.inf).item()
    (5.0, 7.0, 4.0)
    """
    x = _floats(x, "norm")
    if not (isinstance(ord, (int, float)) and ord >= 1):
        raise ValueError(
            f"norm: ord must be at least 1, or inf, not {ord!r}; it is the norm of vectors"
        )
    result: Tensor
    if ord == np.inf:
        result = max(abs(x), axis, keepdims)
    elif ord == 1:
        result = sum(abs(x), axis, keepdims)
    elif ord == 2:
        result = _root(sum(multiply(x, x), axis, keepdims), 2)
    else:
        result = _root(sum(power(abs(x), ord), axis, keepdims), ord)
    return result


@composed
def cosine_similarity(x: Operand, y: Operand, axis: int = 1, epsilon: float = 1e-8) -> Tensor:
    """The cosine of the angles between vectors along an axis: their products by their norms.

    Args:
        x: [...].
        y: [...], which broadcasts with x.
        axis: The axis of the vectors; as in PyTorch not the last one by default, but 1.
        epsilon: A norm below it counts as it, so that vectors of zeros have the similarity 0.

    >>> cosine_similarity([[1.0, 1.0]], [[1.0, 0.0]]).data.round(4)
    array([0.7071], dtype=float32)
    """
    norms = [maximum(norm(v, 2, axis), epsilon) for v in (x, y)]
    result: Tensor = divide(sum(multiply(x, y), axis), multiply(*norms))
    return result


@composed
def any(x: Operand, axis: Axes = None, keepdims: bool = False) -> Booleans:
    """Whether an element is not 0, of all or along axes: an array of booleans, as a comparison.

    >>> any([[True, False], [False, False]], axis=1)
    array([ True, False])
    """
    return cast(Booleans, np.any(as_tensor(x, None, "any").data, axis, keepdims=keepdims))


@composed
def all(x: Operand, axis: Axes = None, keepdims: bool = False) -> Booleans:
    """Whether no element is 0, of all or along axes: an array of booleans, as a comparison.

    >>> all([[True, True], [False, True]], axis=1)
    array([ True, False])
    """
    return cast(Booleans, np.all(as_tensor(x, None, "all").data, axis, keepdims=keepdims))


def _axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)


def _floats(x: Any, name: str) -> Tensor:
    """A Tensor of floats; integers become float64, as in NumPy."""
    x = as_tensor(x, None, name)
    return x if x.dtype.kind == "f" else Tensor(x.data, dtype=np.float64)


def _root(x: Any, degree: float) -> Tensor:
    """``x ** (1 / degree)``, with the derivative 0 where x is 0."""
    some = x != 0
    positive = where(some, x, 1.0)
    root = sqrt(positive) if degree == 2 else power(positive, 1 / degree)
    return where(some, root, 0.0)
