"""Sums, means and maxima, over everything or along axes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from anaphora.tensor import Array, differentiable

Axes: TypeAlias = "int | tuple[int, ...] | None"


def _spread(dy: Array, x: Array, axis: Axes, keepdims: bool) -> Array:
    """Stretch what belongs to a reduced array over the array that was reduced."""
    if axis is not None and not keepdims:
        dy = np.expand_dims(dy, axis)
    return np.broadcast_to(dy, x.shape)


@differentiable
def sum(x: Array, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The sum over all elements, or along axes."""
    return x.sum(axis=axis, keepdims=keepdims), lambda dy: _spread(dy, x, axis, keepdims)


@differentiable
def mean(x: Array, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The mean over all elements, or along axes.

    Raises:
        ValueError: there is nothing to take the mean of.
    """
    y = x.sum(axis=axis, keepdims=keepdims)
    count = x.size // (y.size or 1)
    if x.size == 0:
        raise ValueError(f"mean: an array of shape {x.shape} has no elements")
    return y / x.dtype.type(count), lambda dy: _spread(dy / x.dtype.type(count), x, axis, keepdims)


@differentiable
def max(x: Array, /, axis: Axes = None, keepdims: bool = False) -> Any:
    """The largest element, or along axes; equal ones share the gradient."""
    y = x.max(axis=axis, keepdims=keepdims)

    def pullback(dy: Array) -> Array:
        largest = x == _spread(y, x, axis, keepdims)
        shares = largest.sum(axis=axis, keepdims=keepdims).astype(x.dtype)
        return np.asarray(largest * _spread(dy / shares, x, axis, keepdims))

    return y, pullback
