"""Operations that move elements without changing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from anaphora import foreign_names
from anaphora.tensor import Array, Tensor, as_tensor, differentiable


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


PadWidth: TypeAlias = "int | Sequence[Any] | Mapping[int, int | tuple[int, int]]"


@foreign_names.arguments_checked
def pad(
    x: Any, pad_width: PadWidth, mode: str = "constant", constant_values: float = 0.0
) -> Tensor:
    """Elements before and after those of x, along one or more axes.

    Args:
        x: [...].
        pad_width: How many: a number for all sides; or for each axis a pair, (before, after); or a
            dictionary from axes to numbers or pairs.
        mode: What they are: "constant"; or "edge", "reflect", "symmetric" or "wrap", copies of
            those of x, as in NumPy.
        constant_values: The number for "constant".

    Raises:
        ValueError: the pairs do not fit the axes, one is negative, or there is no such mode.

    >>> pad([[1.0, 2.0]], {-1: (2, 1)}).data
    array([[0., 0., 1., 2., 0.]], dtype=float32)
    >>> pad([1.0, 2.0, 3.0], 1, mode="wrap").data
    array([3., 1., 2., 3., 1.], dtype=float32)
    """
    x = as_tensor(x, None, "pad")
    widths = _pad_widths(pad_width, x.ndim)
    if mode not in ("constant", "edge", "reflect", "symmetric", "wrap"):
        raise ValueError(
            f"pad: there is no mode {mode!r}; there are 'constant', 'edge', 'reflect', "
            "'symmetric' and 'wrap'"
        )
    padded: Tensor = x
    if mode == "constant" and widths:
        padded = _pad(x, widths, constant_values)
    elif mode != "constant":
        for axis, width in enumerate(widths):
            copied = np.pad(np.arange(x.shape[axis]), width, mode)  # type: ignore[call-overload]
            padded = getitem(padded, (slice(None),) * axis + (copied,))
    return padded


@differentiable
def _pad(x: Array, /, widths: list[tuple[int, int]], value: float) -> Any:
    inner = tuple(
        slice(before, before + size) for (before, _), size in zip(widths, x.shape, strict=True)
    )
    return np.pad(x, widths, constant_values=value), lambda dy: dy[inner]


def _pad_widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """The numbers of elements before and after each axis.

    Raises:
        ValueError: they do not fit the axes, or one is negative.
    """
    if isinstance(pad_width, Mapping):
        widths: list[Any] = [0] * ndim
        for axis, width in pad_width.items():
            widths[normalize_axis_index(axis, ndim)] = width
    elif isinstance(pad_width, (int, np.integer)):
        widths = [pad_width] * ndim
    else:
        widths = list(pad_width)
        if widths and all(isinstance(w, (int, np.integer)) for w in widths):
            if ndim != 1:
                raise ValueError(
                    f"pad: {tuple(widths)} for {ndim} axes pads all of them in NumPy and the last "
                    "in PyTorch; write {-1: (before, after)} for the last, or a pair for each axis"
                )
            widths = [widths]
    pairs = [(w, w) if isinstance(w, (int, np.integer)) else tuple(w) for w in widths]
    if len(pairs) != ndim or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ValueError(
            f"pad: {pad_width} for {ndim} axes; give (before, after), not negative, for each axis, "
            "or {axis: (before, after)}"
        )
    return [(int(before), int(after)) for before, after in pairs]


def _filled(gradients: Sequence[Array | None], parts: Sequence[Array]) -> list[Array]:
    """The gradients of the parts, zero for those that nothing depends on."""
    return [np.zeros_like(p) if d is None else d for p, d in zip(parts, gradients, strict=True)]
