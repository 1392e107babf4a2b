"""Operations that move elements without changing them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from anaphora import engine
from anaphora.tensor import (
    Array,
    Input,
    Operand,
    Tensor,
    as_tensor,
    composed,
    differentiable,
)


@differentiable
def reshape(x: Input, /, shape: tuple[int, ...]) -> Any:
    """The same elements in another shape; one size may be -1.

    >>> reshape([[1.0, 2.0], [3.0, 4.0]], (4,)).data
    array([1., 2., 3., 4.], dtype=float32)
    """
    return x.reshape(shape), lambda dy: dy.reshape(x.shape)


@differentiable
def transpose(x: Input, /, axes: Sequence[int] | None = None) -> Any:
    """Permute the axes; by default reverse them. PyTorch's is `swapaxes`.

    Raises:
        ValueError: the axes are not all axes of x, each once.

    >>> transpose([[1.0, 2.0], [3.0, 4.0]]).data
    array([[1., 3.],
           [2., 4.]], dtype=float32)
    """
    if axes is not None and len(axes) != x.ndim:
        raise ValueError(
            f"transpose: {tuple(axes)} for {x.ndim} axes; give all of them in their new order, or "
            "exchange two with swapaxes, which is PyTorch's transpose"
        )
    back = None if axes is None else np.argsort([axis % x.ndim for axis in axes])
    return x.transpose(axes), lambda dy: dy.transpose(back)


@differentiable
def broadcast_to(x: Input, /, shape: tuple[int, ...]) -> Any:
    """Broadcast axes of size 1, and new leading axes, to a shape.

    >>> broadcast_to([1.0, 2.0], (2, 2)).data
    array([[1., 2.],
           [1., 2.]], dtype=float32)
    """
    return np.broadcast_to(x, shape), lambda dy: dy


@differentiable
def getitem(x: Input, /, index: Any) -> Any:
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
    shape, dtype = x.shape, x.dtype
    if all(p is None or p is Ellipsis or isinstance(p, (int, slice, np.integer)) for p in parts):

        def pullback(dy: Array) -> Array:
            dx = np.zeros(shape, dtype)
            dx[parts] = dy
            return dx

    else:

        def pullback(dy: Array) -> Array:  # by the numbers of the rows, along the indexed axes
            axes = _indexed_axes(parts, len(shape))
            numbers = np.arange(math.prod(shape[:axes])).reshape(shape[:axes])[parts]
            rows = dy.reshape(numbers.size, *shape[axes:])
            return engine.add_rows(rows, numbers.reshape(-1), shape, axes)

    return x[parts], pullback


def _indexed_axes(parts: tuple[Any, ...], ndim: int) -> int:
    """How many of the first axes an index reads; the rest is taken as it is."""
    if any(p is Ellipsis for p in parts):
        return ndim
    booleans = [np.asarray(p) for p in parts if p is not None and not isinstance(p, slice)]
    more = sum(p.ndim - 1 for p in booleans if p.dtype == bool)
    return sum(p is not None for p in parts) + more


@differentiable
def _concatenate(*arrays: Input, axis: int) -> Any:
    y = np.concatenate(arrays, axis)
    ends = np.cumsum([a.shape[axis] for a in arrays])[:-1]
    return y, lambda dy: tuple(np.split(dy, ends, axis))


@composed
def concatenate(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Concatenate along an existing axis.

    >>> concatenate([[1.0], [2.0, 3.0]]).data
    array([1., 2., 3.], dtype=float32)
    """
    return _concatenate(*tensors, axis=axis)


@differentiable
def _stack(*arrays: Input, axis: int) -> Any:
    def pullback(dy: Array) -> tuple[Array, ...]:
        return tuple(np.moveaxis(dy, axis, 0))

    return np.stack(arrays, axis), pullback


@composed
def stack(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Stack along a new axis.

    >>> stack([[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 2)
    """
    return _stack(*tensors, axis=axis)


@differentiable
def _split(x: Input, /, sections: int | Sequence[int], axis: int) -> Any:
    parts = tuple(np.split(x, sections, axis))

    def pullback(d: tuple[Array | None, ...]) -> Array:
        return np.concatenate(_filled(d, parts), axis)

    return parts, pullback


@composed
def split(x: Operand, sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Split along an axis into equal parts, or before the given indices.

    >>> [part.data.tolist() for part in split([1.0, 2.0, 3.0], [1])]
    [[1.0], [2.0, 3.0]]
    """
    return tuple(_split(x, sections, axis))


@differentiable
def _unstack(x: Input, /, axis: int) -> Any:
    parts = tuple(np.moveaxis(x, axis, 0)[k, ...] for k in range(x.shape[axis]))
    return parts, lambda d: np.stack(_filled(d, parts), axis)


@composed
def unstack(x: Operand, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, as a tuple; the inverse of `stack`.

    >>> [row.data.tolist() for row in unstack([[1.0, 2.0], [3.0, 4.0]])]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return tuple(_unstack(x, axis))


@composed
def squeeze(x: Operand, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Remove axes of size 1: all, or those that are named, which must have it.

    >>> squeeze([[[1.0], [2.0]]]).shape, squeeze([[[1.0], [2.0]]], axis=0).shape
    ((2,), (2, 1))
    """
    x = as_tensor(x, None, "squeeze")
    return reshape(x, np.squeeze(x.data, axis).shape)


@composed
def expand_dims(x: Operand, axis: int | tuple[int, ...]) -> Tensor:
    """Insert axes of size 1, which are in these places afterwards: PyTorch's ``unsqueeze``.

    >>> expand_dims([1.0, 2.0], 0).shape, expand_dims([1.0, 2.0], -1).shape
    ((1, 2), (2, 1))
    """
    x = as_tensor(x, None, "expand_dims")
    return reshape(x, np.expand_dims(x.data, axis).shape)


@composed
def flatten(x: Operand, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """All axes as one, or those from one axis to another.

    >>> flatten([[1.0, 2.0], [3.0, 4.0]]).data
    array([1., 2., 3., 4.], dtype=float32)
    >>> flatten(np.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    x = as_tensor(x, None, "flatten")
    shape = x.shape or (1,)
    first, last = (normalize_axis_index(axis, len(shape)) for axis in (start_axis, end_axis))
    size = math.prod(shape[first : last + 1])
    return reshape(x, (*shape[:first], size, *shape[last + 1 :]))


@composed
def swapaxes(x: Operand, axis1: int, axis2: int) -> Tensor:
    """Exchange two axes: PyTorch's ``transpose``.

    >>> swapaxes(np.zeros((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    x = as_tensor(x, None, "swapaxes")
    return transpose(x, np.swapaxes(_axes_of(x), axis1, axis2).shape)


@composed
def moveaxis(x: Operand, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Move axes to other places; the others keep their order.

    >>> moveaxis(np.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = as_tensor(x, None, "moveaxis")
    return transpose(x, np.moveaxis(_axes_of(x), source, destination).shape)


def _axes_of(x: Tensor) -> Array:
    """An array without elements' memory whose sizes are the numbers of the axes of x."""
    return np.broadcast_to(np.zeros(()), tuple(range(x.ndim)))


@composed
def repeat(x: Operand, repeats: Any, axis: int | None = None) -> Tensor:
    """Repeat each element along an axis, or of the flattened array.

    PyTorch's method ``repeat`` is `tile`; its ``repeat_interleave`` is this.

    Args:
        x: [...].
        repeats: How often: a number, or one for each element along the axis.
        axis: The axis; None for the flattened array.

    >>> repeat([1.0, 2.0], 2).data, repeat([1.0, 2.0], [2, 1], axis=0).data
    (array([1., 1., 2., 2.], dtype=float32), array([1., 1., 2.], dtype=float32))
    """
    x = as_tensor(x, None, "repeat")
    if axis is None:
        x, axis = flatten(x), 0
    axis = normalize_axis_index(axis, x.ndim)
    index = np.repeat(np.arange(x.shape[axis]), np.asarray(repeats))
    return getitem(x, (slice(None),) * axis + (index,))


@composed
def tile(x: Operand, reps: int | Sequence[int]) -> Tensor:
    """Repeat the array along each axis: PyTorch's method ``repeat``.

    Args:
        x: [...].
        reps: How often, for each axis from the last; there may be more than x has axes.

    >>> tile([1.0, 2.0], 2).data, tile([1.0, 2.0], (2, 1)).shape
    (array([1., 2., 1., 2.], dtype=float32), (2, 2))
    """
    x = as_tensor(x, None, "tile")
    given = (reps,) if isinstance(reps, (int, np.integer)) else tuple(reps)
    ndim = max(x.ndim, len(given))
    shape = (1,) * (ndim - x.ndim) + x.shape
    counts = (1,) * (ndim - len(given)) + given
    apart = reshape(x, tuple(n for size in shape for n in (1, size)))
    pairs = list(zip(counts, shape, strict=True))
    wide = broadcast_to(apart, tuple(n for pair in pairs for n in pair))
    return reshape(wide, tuple(count * size for count, size in pairs))


@differentiable
def flip(x: Input, /, axis: int | tuple[int, ...] | None = None) -> Any:
    """Reverse the elements along axes; by default along all.

    >>> flip([[1.0, 2.0], [3.0, 4.0]], axis=0).data
    array([[3., 4.],
           [1., 2.]], dtype=float32)
    """
    return np.flip(x, axis), lambda dy: np.flip(dy, axis)


@differentiable
def roll(
    x: Input, /, shift: int | tuple[int, ...], axis: int | tuple[int, ...] | None = None
) -> Any:
    """Move elements along axes, or in the flattened array; what leaves at the end enters in front.

    >>> roll([1.0, 2.0, 3.0], 1).data
    array([3., 1., 2.], dtype=float32)
    """
    return np.roll(x, shift, axis), lambda dy: np.roll(dy, np.negative(shift), axis)


PadWidth: TypeAlias = "int | Sequence[Any] | Mapping[int, int | tuple[int, int]]"


@composed
def pad(
    x: Operand, pad_width: PadWidth, mode: str = "constant", constant_values: float = 0.0
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
    widths = pad_widths(pad_width, x.ndim)
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
            if width == (0, 0):
                continue
            copied = np.pad(np.arange(x.shape[axis]), width, mode)  # type: ignore[call-overload]
            padded = getitem(padded, (slice(None),) * axis + (copied,))
    return padded


@composed
def pad_sequence(
    sequences: Sequence[Any], batch_first: bool = False, padding_value: float = 0.0
) -> Tensor:
    """Sequences of different lengths as one array, with a number after the end of each.

    Layers take the lengths as they are: ``layer(x, lengths=[len(s) for s in sequences])``.

    Args:
        sequences: B Tensors or arrays [T, ...], each with its own T.
        batch_first: Return [B, T, ...] instead of [T, B, ...]; T is the longest.
        padding_value: The number after the end of a shorter sequence.

    Raises:
        ValueError: there are no sequences, or they differ in more than their length.

    >>> pad_sequence([[5, 6, 7], [8]], batch_first=True).data
    array([[5, 6, 7],
           [8, 0, 0]])
    """
    tensors = [as_tensor(sequence, None, "pad_sequence") for sequence in sequences]
    shapes = {t.shape[1:] if t.ndim else None for t in tensors}
    if len(shapes) != 1 or None in shapes:
        raise ValueError(
            f"pad_sequence: shapes {', '.join(str(t.shape) for t in tensors) or 'of nothing'}; "
            "give sequences [T, ...] that differ in T alone, at least one"
        )
    longest = max(map(len, tensors))
    padded = [pad(t, {0: (0, longest - len(t))}, constant_values=padding_value) for t in tensors]
    return stack(padded, 0 if batch_first else 1)


@differentiable
def _pad(x: Input, /, widths: list[tuple[int, int]], value: float) -> Any:
    inner = tuple(
        slice(before, before + size) for (before, _), size in zip(widths, x.shape, strict=True)
    )
    return np.pad(x, widths, constant_values=value), lambda dy: dy[inner]


def pad_widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
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
