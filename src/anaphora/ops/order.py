"""The largest and the smallest elements, their places, and elements in order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from anaphora import engine
from anaphora.ops.shapes import broadcast_to, flatten
from anaphora.tensor import (
    Array,
    Input,
    Operand,
    Tensor,
    TopK,
    as_integers,
    as_tensor,
    composed,
    differentiable,
)


@composed
def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the first maximum along an axis, or in the flattened array. It has no gradient.

    >>> argmax([[1.0, 3.0], [4.0, 2.0]], axis=1).data
    array([1, 0])
    """
    return Tensor(np.argmax(as_tensor(x, None, "argmax").data, axis, keepdims=keepdims))


@composed
def argmin(x: Operand, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the first minimum along an axis, or in the flattened array. It has no gradient.

    >>> argmin([[1.0, 3.0], [4.0, 2.0]]).data
    array(0)
    """
    return Tensor(np.argmin(as_tensor(x, None, "argmin").data, axis, keepdims=keepdims))


@composed
def argsort(x: Operand, axis: int | None = -1, descending: bool = False) -> Tensor:
    """The places of the elements in order, along an axis or of the flattened array.

    Equal elements keep their order. NaN is larger than all numbers. It has no gradient.

    >>> argsort([3.0, 1.0, 2.0]).data, argsort([3.0, 1.0, 2.0], descending=True).data
    (array([1, 2, 0]), array([0, 2, 1]))
    """
    return Tensor(_order(as_tensor(x, None, "argsort").data, axis, descending))


@composed
def sort(x: Operand, axis: int | None = -1, descending: bool = False) -> Tensor:
    """The elements in order, along an axis or of the flattened array; `argsort` has their places.

    >>> sort([3.0, 1.0, 2.0]).data
    array([1., 2., 3.], dtype=float32)
    """
    x = as_tensor(x, None, "sort")
    return take_along_axis(x, _order(x.data, axis, descending), axis)


@composed
def topk(x: Operand, k: int, axis: int = -1, largest: bool = True) -> TopK:
    """The k largest (or smallest) elements along an axis, in order, and their places.

    Of equal elements the first come first. NaN is larger than all numbers.

    Raises:
        ValueError: there are fewer than k elements.

    >>> values, indices = topk([3.0, 1.0, 2.0], 2)
    >>> values.data, indices.data
    (array([3., 2.], dtype=float32), array([0, 2]))
    """
    x = as_tensor(x, None, "topk")
    axis = normalize_axis_index(axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(
            f"topk: k is {k}, but axis {axis} of a Tensor of shape {x.shape} has {x.shape[axis]} "
            "elements"
        )
    first = _order(x.data, axis, largest, k)
    return TopK(take_along_axis(x, first, axis), Tensor(first))


def _order(x: Array, axis: int | None, descending: bool, count: int | None = None) -> Array:
    """The places of the first elements along an axis, or of all of them."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    moved = np.moveaxis(x, axis, -1)
    size = moved.shape[-1]
    rows = moved.reshape(math.prod(moved.shape[:-1]), size)
    order = engine.order_rows(rows, size if count is None else count, descending=descending)
    return np.moveaxis(order.reshape(*moved.shape[:-1], order.shape[1]), -1, axis)


@differentiable
def _take_along_axis(x: Input, /, indices: Array, axis: int) -> Any:
    count = x.shape[axis]
    try:
        y = engine.take_along_axis(x, indices, axis)
    except IndexError as error:
        raise IndexError(f"take_along_axis: {error}") from None
    return y, lambda dy: engine.add_along_axis(dy, indices, axis, count)


@composed
def take_along_axis(x: Operand, indices: Operand, axis: int | None = -1) -> Tensor:
    """Elements of each slice along an axis, by indices of its own: PyTorch's ``gather``.

    ``y[i, j] = x[i, indices[i, j]]`` for two axes. The gradients of an element that is taken
    several times are summed.

    Args:
        x: [...].
        indices: Integers, as many axes as x; the other axes broadcast with those of x.
        axis: The axis; None for the flattened array.

    Raises:
        TypeError: the indices are not integers.
        ValueError: they have another number of axes.
        IndexError: an index is out of bounds.

    >>> take_along_axis([[1.0, 2.0], [3.0, 4.0]], [[1], [0]], axis=1).data
    array([[2.],
           [3.]], dtype=float32)
    """
    x = as_tensor(x, None, "take_along_axis")
    indices = as_integers(indices, "take_along_axis: indices are integers")
    if axis is None:
        x, axis = flatten(x), 0
    axis = normalize_axis_index(axis, x.ndim)
    if indices.ndim != x.ndim:
        raise ValueError(
            f"take_along_axis: indices of shape {indices.shape} for a Tensor of shape {x.shape}; "
            "they have the same number of axes"
        )
    if indices.dtype == np.uint64 and indices.max(initial=0) > np.iinfo(np.int64).max:
        raise IndexError(f"take_along_axis: index {indices.max()} is out of bounds")

    def with_axis(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
        return (*shape[:axis], size, *shape[axis + 1 :])

    if with_axis(x.shape, 1) != with_axis(indices.shape, 1):
        try:
            others = np.broadcast_shapes(with_axis(x.shape, 1), with_axis(indices.shape, 1))
        except ValueError:
            raise ValueError(
                f"take_along_axis: indices of shape {indices.shape} for a Tensor of shape "
                f"{x.shape}; they broadcast, but for axis {axis}"
            ) from None
        x = broadcast_to(x, with_axis(others, x.shape[axis]))
        indices = np.broadcast_to(indices, with_axis(others, indices.shape[axis]))
    return _take_along_axis(x, indices, axis)
