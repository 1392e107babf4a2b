"""Operations that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anaphora import foreign_names
from anaphora.tensor import Array, Tensor, differentiable


@differentiable
def reshape(x: Array, /, shape: tuple[int, ...]) -> Any:
    """The same elements in another shape; one size may be -1.

    >>> reshape([[1.0, 2.0], [3.0, 4.0]], (4,)).data
    array([1., 2., 3., 4.], dtype=float32)
    """
    return x.reshape(shape), lambda dy: dy.reshape(x.shape)


@differentiable
def transpose(x: Array, /, axes: Sequence[int] | None = None) -> Any:
    """Permute the axes; by default reverse them.

    >>> transpose([[1.0, 2.0], [3.0, 4.0]]).data
    array([[1., 3.],
           [2., 4.]], dtype=float32)
    """
    back = None if axes is None else np.argsort([axis % x.ndim for axis in axes])
    return x.transpose(axes), lambda dy: dy.transpose(back)


@differentiable
def broadcast_to(x: Array, /, shape: tuple[int, ...]) -> Any:
    """Broadcast axes of size 1, and new leading axes, to a shape.

    >>> broadcast_to([1.0, 2.0], (2, 2)).data
    array([[1., 2.],
           [1., 2.]], dtype=float32)
    """
    return np.broadcast_to(x, shape), lambda dy: dy


@differentiable
def getitem(x: Array, /, index: Any) -> Any:
    """Elements by integers, slices, and arrays of integers or booleans, as NumPy indexes.

    Its gradient is an array as large as x: to iterate over the steps of a sequence, use `unstack`.
    The gradients of an element that is indexed several times are summed.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> getitem(x, [0, 0, 2]).sum().backward()
    >>> x.grad
    array([2., 0., 1.], dtype=float32)
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(p._data if isinstance(p, Tensor) else p for p in parts)
    basic = all(
        p is None or p is Ellipsis or isinstance(p, (int, slice, np.integer)) for p in parts
    )
    shape, dtype = x.shape, x.dtype

    def pullback(dy: Array) -> Array:
        dx = np.zeros(shape, dtype)
        if basic:
            dx[parts] = dy
        else:
            np.add.at(dx, parts, dy)
        return dx

    return x[parts], pullback


@differentiable
def _concatenate(*arrays: Array, axis: int) -> Any:
    y = np.concatenate(arrays, axis)
    ends = np.cumsum([a.shape[axis] for a in arrays])[:-1]
    return y, lambda dy: tuple(np.split(dy, ends, axis))


@foreign_names.arguments_checked
def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Concatenate along an existing axis.

    >>> concatenate([[1.0], [2.0, 3.0]]).data
    array([1., 2., 3.], dtype=float32)
    """
    result: Tensor = _concatenate(*tensors, axis=axis)
    return result


@differentiable
def _stack(*arrays: Array, axis: int) -> Any:
    def pullback(dy: Array) -> tuple[Array, ...]:
        return tuple(np.moveaxis(dy, axis, 0))

    return np.stack(arrays, axis), pullback


@foreign_names.arguments_checked
def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Stack along a new axis.

    >>> stack([[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 2)
    """
    result: Tensor = _stack(*tensors, axis=axis)
    return result


@differentiable
def split(x: Array, /, sections: int | Sequence[int], axis: int = 0) -> Any:
    """Split along an axis into equal parts, or before the given indices.

    >>> [part.data.tolist() for part in split([1.0, 2.0, 3.0], [1])]
    [[1.0], [2.0, 3.0]]
    """
    parts = tuple(np.split(x, sections, axis))

    def pullback(d: tuple[Array | None, ...]) -> Array:
        return np.concatenate(_filled(d, parts), axis)

    return parts, pullback


@differentiable
def unstack(x: Array, /, axis: int = 0) -> Any:
    """The slices along an axis, as a tuple; the inverse of `stack`.

    >>> [row.data.tolist() for row in unstack([[1.0, 2.0], [3.0, 4.0]])]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    parts = tuple(np.moveaxis(x, axis, 0)[k, ...] for k in range(x.shape[axis]))
    return parts, lambda d: np.stack(_filled(d, parts), axis)


def _filled(gradients: Sequence[Array | None], parts: Sequence[Array]) -> list[Array]:
    """The gradients of the parts, zero for those that nothing depends on."""
    return [np.zeros_like(p) if d is None else d for p, d in zip(parts, gradients, strict=True)]
