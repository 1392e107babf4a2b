"""Sums, means and maxima, over everything or along axes."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from anaphora import engine
from anaphora.tensor import Array, differentiable

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
def sum(x: Array, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The sum over all elements, or along axes.

    >>> sum([[1.0, 2.0], [3.0, 4.0]], axis=0).data
    array([4., 6.], dtype=float32)
    """
    shape = x.shape
    return _total(x, axis, keepdims), lambda dy: _spread(dy, shape, axis, keepdims)


@differentiable
def mean(x: Array, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The mean over all elements, or along axes.

    Raises:
        ValueError: there are no elements.

    >>> mean([[1.0, 2.0], [3.0, 4.0]], axis=1).data
    array([1.5, 3.5], dtype=float32)
    """
    y = _total(x, axis, keepdims)
    shape = x.shape
    count = x.dtype.type(x.size // y.size if y.size else 1)
    if count == 0:
        raise ValueError(f"mean: an array of shape {shape} has no elements to take the mean of")
    return y / count, lambda dy: _spread(dy / count, shape, axis, keepdims)


@differentiable
def max(x: Array, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The maximum of all elements, or along axes; equal maxima share the gradient.

    >>> max([[1.0, 2.0], [3.0, 4.0]], axis=0).data
    array([3., 4.], dtype=float32)
    """
    y = x.max(axis=axis, keepdims=keepdims)

    def pullback(dy: Array) -> Array:
        largest = x == _spread(y, x.shape, axis, keepdims)
        shares = largest.sum(axis=axis, keepdims=keepdims).astype(x.dtype)
        return np.asarray(largest * _spread(dy / shares, x.shape, axis, keepdims))

    return y, pullback
