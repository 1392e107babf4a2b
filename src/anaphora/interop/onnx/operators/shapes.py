"""Operators for constants and shapes, and those that move, pick and join elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anaphora import ops
from anaphora.interop.cells import joined
from anaphora.interop.onnx.operators.registry import (
    Function,
    Shaped,
    apply,
    axis_of,
    check_broadcast,
    check_size,
    integers,
    number_list,
    operator,
)
from anaphora.interop.onnx.reading import DTYPES, Array, Node
from anaphora.tensor import Tensor

# Constants, and numbers about shapes


@operator("Constant")
def _constant(node: Node) -> Function:
    given = [(name, v) for name, v in node.attributes.items() if name.startswith("value")]
    if len(given) != 1 or given[0][0] in ("value_string", "value_strings"):
        raise node.error("expected one value that is an array or numbers")
    name, value = given[0]
    if not isinstance(value, np.ndarray):
        value = np.array(value, np.float32 if "float" in name else np.int64)
    return lambda: value


@operator("ConstantOfShape")
def _constant_of_shape(node: Node) -> Function:
    value = node.get("value", np.zeros(1, np.float32))
    if value.size != 1:
        raise node.error(f"its value has {value.size} elements, expected 1")

    def function(shape: Any) -> Any:
        sizes = integers(node, shape, "shape")
        if any(size < 0 for size in sizes):
            raise node.error(f"the shape {sizes} has a negative size")
        check_size(node, sizes)
        return np.full(sizes, value.reshape(()))

    return function


@operator("Shape")
def _shape(node: Node) -> Function:
    start, end = node.get("start", 0), node.get("end", None, int)
    return lambda x: np.array(x.shape[start:end], np.int64)


@operator("Size")
def _size(node: Node) -> Function:
    return lambda x: np.array(x.size, np.int64)


@operator("Range")
def _range(node: Node) -> Function:
    def function(start: Any, limit: Any, delta: Any) -> Any:
        first, last, step = (np.asarray(v).reshape(-1)[0].item() for v in (start, limit, delta))
        count = (last - first) / step if step else math.nan
        if not math.isfinite(count):
            raise node.error(f"from {first} to {last} in steps of {step}")
        check_size(node, [max(0, math.ceil(count))])
        return np.arange(first, last, step, dtype=start.dtype)

    return function


@operator("Cast")
def _cast(node: Node) -> Function:
    number = node.get("to", 0)
    if number not in DTYPES:
        raise node.error(f"to a type that is not read (number {number})")
    dtype = DTYPES[number]

    def function(x: Any) -> Any:
        if x.dtype == dtype:
            return x
        if isinstance(x, Tensor):
            return x.astype(dtype) if dtype.kind == "f" else x.data.astype(dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            return x.astype(dtype)

    return function


@operator("CastLike")
def _cast_like(node: Node) -> Function:
    def function(x: Any, like: Any) -> Any:
        if isinstance(x, Tensor) and like.dtype.kind == "f":
            return x.astype(like.dtype)
        return np.asarray(x).astype(like.dtype)

    return function


# What moves elements


@operator("Identity", "Dropout")
def _identity(node: Node) -> Function:
    if len(node.outputs) > 1 and node.outputs[1]:
        return lambda x, *_: (x, np.ones(x.shape, bool))
    return lambda x, *_: x


@operator("Reshape")
def _reshape(node: Node) -> Function:
    keeps_zero = bool(node.get("allowzero", 0))

    def at(x: Any, shape: Any) -> Function:
        sizes = integers(node, shape, "shape")
        if not keeps_zero:
            if any(size == 0 and k >= x.ndim for k, size in enumerate(sizes)):
                raise node.error(f"the shape {sizes} keeps an axis that {x.shape} does not have")
            sizes = [x.shape[k] if size == 0 else size for k, size in enumerate(sizes)]
        return _reshaped(sizes)

    return Shaped(at)


def _reshaped(shape: Sequence[int]) -> Function:
    to = tuple(shape)
    return lambda x, *_: x.reshape(to)


@operator("Flatten")
def _flatten(node: Node) -> Function:
    axis = node.get("axis", 1)

    def at(x: Any) -> Function:
        k = axis if axis == x.ndim else axis_of(node, axis, x.ndim)
        return _reshaped([math.prod(x.shape[:k]), math.prod(x.shape[k:])])

    return Shaped(at)


@operator("Transpose")
def _transpose(node: Node) -> Function:
    axes = number_list(node, "perm")
    return lambda x: x.transpose() if axes is None else x.transpose(*axes)


def axes_input(node: Node, since: int) -> Callable[[Any], list[int] | None]:
    """A function from the optional input of axes to a list; they were attributes once."""
    if node.version < since or "axes" in node.attributes:
        axes = number_list(node, "axes")
        return lambda given: axes
    return lambda given: None if given is None else integers(node, given, "axes")


@operator("Squeeze")
def _squeeze(node: Node) -> Function:
    axes_of = axes_input(node, 13)

    def at(x: Any, axes: Any = None) -> Function:
        given = axes_of(axes)
        if given is None:
            dropped = {k for k, size in enumerate(x.shape) if size == 1}
        else:
            dropped = {axis_of(node, axis, x.ndim) for axis in given}
        if any(x.shape[axis] != 1 for axis in dropped):
            raise node.error(f"axes {given} of the shape {x.shape} are not all of size 1")
        return _reshaped([size for k, size in enumerate(x.shape) if k not in dropped])

    return Shaped(at)


@operator("Unsqueeze")
def _unsqueeze(node: Node) -> Function:
    axes_of = axes_input(node, 13)

    def at(x: Any, axes: Any = None) -> Function:
        given = axes_of(axes)
        if given is None:
            raise node.error("got no axes")
        count = x.ndim + len(given)
        added = {axis_of(node, axis, count) for axis in given}
        if len(added) != len(given):
            raise node.error(f"axes {given} are not all different")
        sizes = iter(x.shape)
        return _reshaped([1 if k in added else next(sizes) for k in range(count)])

    return Shaped(at)


@operator("Concat")
def _concat(node: Node) -> Function:
    axis = node.get("axis", 0)

    def function(*values: Any) -> Any:
        k = axis_of(node, axis, values[0].ndim)
        if any(v.ndim != values[0].ndim for v in values):
            raise node.error(f"values of shapes {', '.join(str(v.shape) for v in values)}")
        total = sum(v.shape[k] for v in values)
        check_size(node, [*values[0].shape[:k], total, *values[0].shape[k + 1 :]])
        return values[0] if len(values) == 1 else joined(values, k)

    return function


@operator("Split")
def _split(node: Node) -> Function:
    axis, attribute = node.get("axis", 0), number_list(node, "split")
    count = len(node.outputs)

    def function(x: Any, split: Any = None) -> Any:
        k = axis_of(node, axis, x.ndim)
        sizes = attribute if split is None else integers(node, split, "split")
        if sizes is None:
            size = -(-x.shape[k] // count)
            sizes = [max(0, min(size, x.shape[k] - n * size)) for n in range(count)]
        if sum(sizes) != x.shape[k] or len(sizes) != count or any(s < 0 for s in sizes):
            raise node.error(f"into {sizes} of an axis of {x.shape[k]}, for {count} outputs")
        ends = np.cumsum([0, *sizes])
        before = (slice(None),) * k
        return tuple(x[(*before, slice(a, b))] for a, b in itertools.pairwise(ends))

    return function


@operator("Slice")
def _slice(node: Node) -> Function:
    if node.version < 10:
        old = [number_list(node, name) for name in ("starts", "ends", "axes")]
        if old[0] is None or old[1] is None:
            raise node.error("has no starts or no ends")
        return lambda x: _sliced(node, x, old[0] or [], old[1] or [], old[2], None)(x)

    def at(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Function:
        given = [
            None if v is None else integers(node, v, name)
            for name, v in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps))
        ]
        return _sliced(node, x, given[0] or [], given[1] or [], given[2], given[3])

    return Shaped(at)


def _sliced(
    node: Node,
    x: Any,
    starts: list[int],
    ends: list[int],
    axes: list[int] | None,
    steps: list[int] | None,
) -> Function:
    """The function that cuts values of a shape."""
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.error(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        k = axis_of(node, axis, x.ndim)
        size = x.shape[k]
        if step < 0 and end < -size:  # before the first: Python has no number for that
            index[k] = slice(start, None, step)
        else:
            index[k] = slice(start, end, step)
    cut = tuple(index)
    return lambda x, *_: x[cut]


@operator("Gather")
def _gather(node: Node) -> Function:
    axis = node.get("axis", 0)

    def function(x: Any, indices: Any) -> Any:
        k = axis_of(node, axis, x.ndim)
        if indices.dtype.kind not in "iu":
            raise node.error(f"indices of {indices.dtype}, expected integers")
        size = x.shape[k]
        if indices.size and not (indices.min() >= -size and indices.max() < size):
            raise node.error(
                f"indices from {indices.min()} to {indices.max()} of an axis of {size}"
            )
        check_size(node, [*x.shape[:k], *indices.shape, *x.shape[k + 1 :]])
        if isinstance(x, Tensor):
            if k == 0 and x.ndim == 2:
                return ops.embedding(x, np.where(indices < 0, indices + size, indices))
            return x[(*(slice(None),) * k, indices)]
        return np.take(x, indices, k)

    return function


@operator("GatherElements")
def _gather_elements(node: Node) -> Function:
    axis = node.get("axis", 0)

    def function(x: Any, indices: Any) -> Any:
        k = axis_of(node, axis, x.ndim)
        size = x.shape[k]
        if indices.dtype.kind not in "iu" or indices.ndim != x.ndim:
            raise node.error(f"indices of {indices.dtype}{indices.shape} for {x.shape}")
        if indices.size and not (indices.min() >= -size and indices.max() < size):
            raise node.error(
                f"indices from {indices.min()} to {indices.max()} of an axis of {size}"
            )
        others = np.ogrid[tuple(slice(n) for n in indices.shape)]
        return x[(*others[:k], indices, *others[k + 1 :])]

    return function


@operator("Expand")
def _expand(node: Node) -> Function:
    def function(x: Any, shape: Any) -> Any:
        sizes = integers(node, shape, "shape")
        try:
            wide = np.broadcast_shapes(x.shape, tuple(sizes))
        except ValueError:
            raise node.error(f"the shapes {x.shape} and {sizes} do not broadcast") from None
        check_size(node, wide)
        return apply(ops.broadcast_to, x, shape=wide)

    return function


@operator("Tile")
def _tile(node: Node) -> Function:
    def function(x: Any, repeats: Any) -> Any:
        counts = integers(node, repeats, "repeats")
        if len(counts) != x.ndim or any(c < 0 for c in counts):
            raise node.error(f"repeats {counts} of a value of {x.ndim} axes")
        check_size(node, [size * c for size, c in zip(x.shape, counts, strict=True)])
        for axis, count in enumerate(counts):
            if count != 1:
                x = (
                    x[(*(slice(None),) * axis, slice(0, 0))]
                    if not count
                    else joined([x] * count, axis)
                )
        return x

    return function


@operator("Pad")
def _pad(node: Node) -> Function:
    mode = node.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise node.error(f"mode {mode!r:.40}")
    attribute = number_list(node, "pads" if node.version > 1 else "paddings")
    constant = node.get("value", 0.0)

    def at(x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Function:
        given = (attribute or []) if pads is None else integers(node, pads, "pads")
        which = range(x.ndim) if axes is None else integers(node, axes, "axes")
        if len(given) != 2 * len(which):
            raise node.error(f"pads {given} for {len(which)} axes")
        before, after = [0] * x.ndim, [0] * x.ndim
        for k, axis in enumerate(which):
            number = axis_of(node, axis, x.ndim)
            before[number], after[number] = given[k], given[k + len(which)]
        sizes = [s + b + a for s, b, a in zip(x.shape, before, after, strict=True)]
        if min(sizes, default=0) < 0:
            raise node.error(f"pads {given} cut more than there is of the shape {x.shape}")
        grown = zip(x.shape, before, after, strict=True)
        check_size(node, [max(1, s + max(0, b) + max(0, a)) for s, b, a in grown])
        parts = []
        for axis, (size, b, a) in enumerate(zip(x.shape, before, after, strict=True)):
            if b or a:
                read = None if mode == "constant" else _positions(node, size, b, a, mode)
                parts.append((axis, b, a, read))

        def function(x: Any, pads: Any = None, value: Any = None, *_: Any) -> Any:
            fill = constant if value is None else np.asarray(value).reshape(-1)[0].item()
            for axis, b, a, read in parts:
                if read is None:
                    x = _surrounded(x, axis, b, a, fill)
                elif isinstance(x, Tensor):
                    x = x[(*(slice(None),) * axis, read)]
                else:
                    x = x.take(read, axis)
            return x

        return function

    return Shaped(at)


def _surrounded(x: Any, axis: int, before: int, after: int, fill: float) -> Any:
    """A value with constants around it along an axis, or, by negative numbers, cut."""
    along = (slice(None),) * axis
    cut = x[(*along, slice(max(0, -before), x.shape[axis] - max(0, -after)))]
    parts = [
        np.full([*x.shape[:axis], max(0, n), *x.shape[axis + 1 :]], fill, x.dtype)
        for n in (before, after)
    ]
    return joined([parts[0], cut, parts[1]], axis)


def _positions(node: Node, size: int, before: int, after: int, mode: str) -> Array:
    """The element of an axis that each element of the padded axis is."""
    positions = np.arange(-before, size + after)
    if not size or (mode == "reflect" and size < 2 and len(positions) > 1):
        raise node.error(f"{mode} of an axis of {size} with pads {before} and {after}")
    if mode == "edge":
        return positions.clip(0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(1, 2 * size - 2)
    return np.abs((positions + size - 1) % period - size + 1) if size > 1 else 0 * positions


@operator("Where")
def _where(node: Node) -> Function:
    def function(condition: Any, a: Any, b: Any) -> Any:
        check_broadcast(node, condition, a, b)
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return ops.where(condition, a, b)
        return np.where(condition, a, b)

    return function


@operator("OneHot")
def _one_hot(node: Node) -> Function:
    axis = node.get("axis", -1)

    def function(ids: Any, depth: Any, values: Any) -> Any:
        (count,) = integers(node, np.asarray(depth).astype(np.int64).reshape(-1)[:1], "depth")
        if values.shape != (2,) or count < 1:
            raise node.error(f"values of shape {values.shape} and a depth of {count}")
        check_size(node, [*ids.shape, count])
        k = axis_of(node, axis, ids.ndim + 1)
        ids = np.asarray(ids)
        found = np.expand_dims(np.where(ids < 0, ids + count, ids), k) == np.arange(count).reshape(
            -1, *(1,) * (ids.ndim - k)
        )
        off, on = (values[n : n + 1].reshape(()) for n in (0, 1))
        return ops.where(found, on, off) if isinstance(values, Tensor) else np.where(found, on, off)

    return function
