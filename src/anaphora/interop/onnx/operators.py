"""ONNX's operators besides the recurrent ones: each as a function of its inputs.

A function gets arrays, or Tensors where a gradient may be asked for; each operator is written once,
and calls the same operation for both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import engine, ops
from anaphora.interop.cells import joined
from anaphora.interop.onnx.cells import ACTIVATIONS, Activation, activations_of
from anaphora.interop.onnx.reading import DTYPES, Array, Node, OnnxError
from anaphora.interop.onnx.recurrent import RecurrentNode, tensor
from anaphora.tensor import Tensor

Function = Callable[..., Any]

LARGEST = 2**28
"""The most elements of a value that an operator may make: 1 GiB of float32."""

OPERATORS: dict[str, Callable[[Node], Function]] = {}
"""By the operator's name: what makes, of a node, the function that computes it."""

STATIC: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,),
    "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,), "Unsqueeze": (1,),
    "ReduceL2": (1,), "ReduceMax": (1,), "ReduceMean": (1,), "ReduceMin": (1,), "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
}  # fmt: skip
"""The inputs of an operator whose numbers determine shapes, by position."""


def operator(*names: str) -> Callable[[Callable[[Node], Function]], Callable[[Node], Function]]:
    """Register what makes the function of a node, for operators of these names."""

    def register(prepare: Callable[[Node], Function]) -> Callable[[Node], Function]:
        OPERATORS.update(dict.fromkeys(names, prepare))
        return prepare

    return register


def apply(operation: Any, *inputs: Any, **options: Any) -> Any:
    """An operation of `anaphora.ops`: on arrays alone unless an input is a Tensor."""
    if any(isinstance(value, Tensor) for value in inputs):
        return operation(*inputs, **options)
    return operation.__wrapped__(*inputs, **options)[0]


class Shaped:
    """A function in two parts: what depends on shapes and sizes alone, and the rest.

    ``at(*inputs)`` returns the function for all inputs of the same shapes and dtypes, and with the
    same numbers where these determine shapes (`STATIC`).
    """

    def __init__(self, at: Callable[..., Function]) -> None:
        self.at = at

    def __call__(self, *inputs: Any) -> Any:
        """The result."""
        return self.at(*inputs)(*inputs)


def check_size(node: Node, shape: Sequence[int]) -> None:
    """Check the size of a value before memory is asked for it."""
    if math.prod(shape) > LARGEST:
        raise node.error(
            f"would make a value of shape {str(list(shape))[:80]}, more than {LARGEST} elements"
        )


def integers(node: Node, value: Any, what: str) -> list[int]:
    """The numbers of a list of integers, such as axes."""
    if isinstance(value, Tensor) or value.dtype.kind not in "iu" or value.ndim > 1:
        raise node.error(f"{what}: expected a list of integers, not {value.dtype}{value.shape}")
    return [int(number) for number in value.reshape(-1)]


def axis_of(node: Node, axis: int, axes: int) -> int:
    """An axis counted from the front."""
    if not -axes <= axis < axes:
        raise node.error(f"axis {axis} of a value of {axes} axes")
    return axis % axes


def _numbers(node: Node, name: str) -> list[int] | None:
    """A list of integers among the attributes; None if there is none."""
    value = node.get(name, None, tuple)
    if value is not None and not all(type(number) is int for number in value):
        raise node.error(f"attribute {name!r} is {value!r:.60}, expected integers")
    return None if value is None else list(value)


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
    axes = _numbers(node, "perm")
    return lambda x: x.transpose() if axes is None else x.transpose(*axes)


def _axes_input(node: Node, since: int) -> Callable[[Any], list[int] | None]:
    """A function from the optional input of axes to a list; they were attributes once."""
    if node.version < since or "axes" in node.attributes:
        axes = _numbers(node, "axes")
        return lambda given: axes
    return lambda given: None if given is None else integers(node, given, "axes")


@operator("Squeeze")
def _squeeze(node: Node) -> Function:
    axes_of = _axes_input(node, 13)

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
    axes_of = _axes_input(node, 13)

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
    axis, attribute = node.get("axis", 0), _numbers(node, "split")
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
        old = [_numbers(node, name) for name in ("starts", "ends", "axes")]
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
    attribute = _numbers(node, "pads" if node.version > 1 else "paddings")
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
        _broadcast(node, condition, a, b)
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return ops.where(condition, a, b)
        return np.where(condition, a, b)

    return function


# Arithmetic


def _broadcast(node: Node, *values: Any) -> None:
    """Check that shapes broadcast, to a size that is allowed."""
    shapes = [v.shape for v in values]
    try:
        check_size(node, np.broadcast_shapes(*shapes))
    except OnnxError:
        raise
    except ValueError:
        raise node.error(f"the shapes {', '.join(map(str, shapes))} do not broadcast") from None


def _quotient(a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise ValueError("an integer is divided by 0")
    quotient = np.abs(a) // np.abs(b)  # rounded toward 0
    return (np.sign(a) * np.sign(b) * quotient).astype(a.dtype)


def _power(a: Any, b: Any) -> Any:
    if b.size == 1 and not isinstance(b, Tensor):
        exponent = b.reshape(-1)[0].item()
        if isinstance(a, Tensor):
            return a**exponent
        return np.square(a) if exponent == 2 else np.power(a, np.asarray(exponent, a.dtype))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return ops.exp(ops.log(tensor(a)) * tensor(b))
    return np.power(a, b).astype(a.dtype)


_BINARY: dict[str, Function] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _quotient,
    "Pow": _power,
    "Equal": lambda a, b: a == b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "PRelu": lambda a, b: apply(ops.relu, a) - b * apply(ops.relu, -a),
}


@operator(*_BINARY)
def _binary(node: Node) -> Function:
    function = _BINARY[node.operator]

    def at(a: Any, b: Any) -> Function:
        _broadcast(node, a, b)
        if a.dtype != b.dtype and node.operator != "Pow":
            raise node.error(f"mixes {a.dtype} and {b.dtype}")
        return function

    return Shaped(at)


@operator("Mod")
def _mod(node: Node) -> Function:
    remainder = np.fmod if node.get("fmod", 0) else np.mod

    def function(a: Any, b: Any) -> Any:
        _broadcast(node, a, b)
        if a.dtype.kind != "f" and not np.all(b):
            raise node.error("an integer is divided by 0")
        return remainder(np.asarray(a), np.asarray(b))

    return function


_VARIADIC: dict[str, Function] = {
    "Sum": lambda a, b: a + b,
    "Mean": lambda a, b: a + b,
    "Max": lambda a, b: apply(ops.maximum, a, b),
    "Min": lambda a, b: apply(ops.minimum, a, b),
}


@operator(*_VARIADIC)
def _variadic(node: Node) -> Function:
    function = _VARIADIC[node.operator]

    def checked(*values: Any) -> Any:
        _broadcast(node, *values)
        total = values[0]
        for value in values[1:]:
            total = function(total, value)
        return total / len(values) if node.operator == "Mean" else total

    return checked


def _rounded(function: Function) -> Function:
    return lambda x: function(np.asarray(x))


_UNARY: dict[str, Function] = {
    "Relu": lambda x: ops.relu(x) if isinstance(x, Tensor) else np.maximum(x, 0),
    "Sigmoid": lambda x: ops.sigmoid(x) if isinstance(x, Tensor) else 1 / (1 + np.exp(-x)),
    "Tanh": lambda x: ops.tanh(x) if isinstance(x, Tensor) else np.tanh(x),
    "Exp": lambda x: apply(ops.exp, x),
    "Log": lambda x: apply(ops.log, x),
    "Sqrt": lambda x: apply(ops.sqrt, x),
    "Abs": lambda x: apply(ops.abs, x),
    "Sign": lambda x: apply(ops.sign, x),
    "Neg": lambda x: -x,
    "Reciprocal": lambda x: 1 / x,
    "Softplus": lambda x: apply(ops.softplus, x),
    "Softsign": lambda x: Activation("Softsign")(x),
    "Not": lambda x: np.logical_not(x),
    "Floor": _rounded(np.floor),
    "Ceil": _rounded(np.ceil),
    "Round": _rounded(np.rint),
}


@operator(*_UNARY)
def _unary(node: Node) -> Function:
    return _UNARY[node.operator]


@operator("LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu")
def _activation(node: Node) -> Function:
    defaults = ACTIVATIONS[node.operator]
    alpha = node.get("alpha", 1.0 if node.operator == "ThresholdedRelu" else defaults.alpha, float)
    beta = node.get("beta", defaults.beta, float)
    (activation,) = activations_of([node.operator], [alpha], [] if beta is None else [beta])
    return activation.__call__


@operator("Clip")
def _clip(node: Node) -> Function:
    lowest, highest = node.get("min", None, float), node.get("max", None, float)

    def function(x: Any, low: Any = None, high: Any = None) -> Any:
        low, high = (lowest if low is None else low), (highest if high is None else high)
        if low is not None:
            x = apply(ops.maximum, x, np.asarray(low, x.dtype))
        return x if high is None else apply(ops.minimum, x, np.asarray(high, x.dtype))

    return function


@operator("Softmax", "LogSoftmax")
def _softmax(node: Node) -> Function:
    operation = ops.softmax if node.operator == "Softmax" else ops.log_softmax
    over_rest = node.version < 13  # all axes from this one on, as one
    axis = node.get("axis", 1 if over_rest else -1)

    def function(x: Any) -> Any:
        k = axis_of(node, axis, x.ndim)
        if not over_rest or k == x.ndim - 1:
            return apply(operation, x, axis=k)
        rows = x.reshape(math.prod(x.shape[:k]), math.prod(x.shape[k:]))
        return apply(operation, rows, axis=1).reshape(x.shape)

    return function


_REDUCTIONS: dict[str, Function] = {
    "ReduceSum": lambda x, **o: apply(ops.sum, x, **o),
    "ReduceMean": lambda x, **o: apply(ops.mean, x, **o),
    "ReduceMax": lambda x, **o: apply(ops.max, x, **o),
    "ReduceMin": lambda x, **o: -apply(ops.max, -x, **o),
    "ReduceSumSquare": lambda x, **o: apply(ops.sum, x * x, **o),
    "ReduceL2": lambda x, **o: apply(ops.sqrt, apply(ops.sum, x * x, **o)),
}


@operator(*_REDUCTIONS)
def _reduction(node: Node) -> Function:
    since = 13 if node.operator == "ReduceSum" else 18
    return reduction(node, _REDUCTIONS[node.operator], since)


def reduction(node: Node, function: Function, since: int) -> Function:
    """The function of a node; its axes are an input since a version, and an attribute before."""
    axes_of = _axes_input(node, since)
    keepdims = bool(node.get("keepdims", 1))
    keeps_all = bool(node.get("noop_with_empty_axes", 0))

    def checked(x: Any, axes: Any = None) -> Any:
        given = axes_of(axes)
        if not given:
            if keeps_all:
                return x
            given = list(range(x.ndim))
        along = tuple(sorted({axis_of(node, axis, x.ndim) for axis in given}))
        if not along:
            return x
        return function(x, axis=along[0] if len(along) == 1 else along, keepdims=keepdims)

    return checked


@operator("ArgMax", "ArgMin")
def _arg_max(node: Node) -> Function:
    axis, keepdims = node.get("axis", 0), bool(node.get("keepdims", 1))
    last = bool(node.get("select_last_index", 0))
    find = np.argmax if node.operator == "ArgMax" else np.argmin

    def function(x: Any) -> Any:
        array = np.asarray(x)
        k = axis_of(node, axis, array.ndim)
        if last:
            return array.shape[k] - 1 - find(np.flip(array, k), axis=k, keepdims=keepdims)
        return find(array, axis=k, keepdims=keepdims).astype(np.int64)

    return function


# Layers


@operator("MatMul")
def _matmul(node: Node) -> Function:
    def function(a: Any, b: Any) -> Any:
        if a.ndim and b.ndim:
            rows = a.shape[:-1] if a.ndim > 1 else ()
            check_size(node, [*rows, *b.shape[:-2], b.shape[-1] if b.ndim > 1 else 1])
        if a.dtype != b.dtype or a.dtype.kind != "f":
            raise node.error(f"of {a.dtype} and {b.dtype}, expected floats of one type")
        return apply(ops.matmul, a, b)

    return function


@operator("Gemm")
def _gemm(node: Node) -> Function:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    transposes = [bool(node.get(name, 0)) for name in ("transA", "transB")]

    def function(a: Any, b: Any, c: Any = None) -> Any:
        if a.ndim != 2 or b.ndim != 2 or a.dtype != b.dtype or a.dtype.kind != "f":
            raise node.error(f"of {a.dtype}{a.shape} and {b.dtype}{b.shape}, expected matrices")
        a, b = (v.transpose() if t else v for v, t in zip((a, b), transposes, strict=True))
        check_size(node, [a.shape[0], b.shape[1]])
        y = apply(ops.matmul, a, b)
        y = y if alpha == 1 else y * alpha
        if c is None or beta == 0:
            return y
        _broadcast(node, y, c)
        return y + (c if beta == 1 else c * beta)

    return function


@operator("Conv")
def _conv(node: Node) -> Function:
    given = {n: _numbers(node, n) for n in ("kernel_shape", "strides", "dilations", "pads")}
    groups, automatic = node.get("group", 1), node.get("auto_pad", "NOTSET")
    if any(
        v is not None and len(v) != n for v, n in zip(given.values(), (1, 1, 1, 2), strict=True)
    ):
        raise node.error("more than one axis of space: convolutions are read over one axis (time)")
    if automatic not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.error(f"auto_pad {automatic!r:.40}")
    stride, dilation = ((given[n] or [1])[0] for n in ("strides", "dilations"))
    pads = given["pads"] or [0, 0]
    if stride < 1 or dilation < 1 or groups < 1 or min(pads) < 0:
        raise node.error(f"strides {stride}, dilations {dilation}, group {groups}, pads {pads}")

    def at(x: Any, weight: Any, bias: Any = None) -> Function:
        if x.ndim != 3 or weight.ndim != 3:
            raise node.error(
                f"an input of shape {x.shape} and filters of shape {weight.shape}; convolutions "
                "are read over one axis (time), [N, C, T]"
            )
        (O, C, K), T = weight.shape, x.shape[2]
        if x.shape[1] != C * groups or O % groups or (bias is not None and bias.shape != (O,)):
            raise node.error(f"an input of shape {x.shape} for filters of shape {weight.shape}")
        before, after = pads
        if automatic.startswith("SAME"):
            total = max(0, (-(-T // stride) - 1) * stride + dilation * (K - 1) + 1 - T)
            before, after = total // 2, total - total // 2
            if automatic == "SAME_LOWER":
                before, after = after, before
        steps = (T + before + after - dilation * (K - 1) - 1) // stride + 1
        if steps < 1:
            raise node.error(f"{T} steps with pads {before} and {after} for a filter of {K}")
        check_size(node, [x.shape[0], steps, C * K])
        check_size(node, [x.shape[0], T + before + after, C * groups])
        check_size(node, [x.shape[0], steps, O])
        return Convolution(stride, before, after, dilation, groups)

    return Shaped(at)


@dataclass(frozen=True)
class Convolution:
    """A convolution over time of x [N, C, T]."""

    stride: int
    before: int
    after: int
    dilation: int
    groups: int

    def windows(self, x: Array, K: int) -> Array:
        """What each output of a filter of K terms reads: [N, S, C, K]."""
        N, C, T = x.shape
        if self.before or self.after:
            padded = np.zeros((N, C, self.before + T + self.after), x.dtype)
            padded[:, :, self.before : self.before + T] = x
            x = padded
        S = (x.shape[2] - self.dilation * (K - 1) - 1) // self.stride + 1
        n, c, t = x.strides
        return np.lib.stride_tricks.as_strided(
            x, (N, S, C, K), (n, self.stride * t, c, self.dilation * t), writeable=False
        )

    def __call__(self, x: Any, weight: Any, bias: Any = None) -> Any:
        """As `ops.conv1d`; of one group of arrays with sums of their precision.

        Spectra, as models of sound begin with, range over too many magnitudes for the fixed point
        of AMX.
        """
        recorded = isinstance(x, Tensor) or isinstance(weight, Tensor)
        if self.groups > 1 or recorded or isinstance(bias, Tensor):
            y = apply(
                ops.conv1d, x.transpose(2, 0, 1), weight, bias, stride=self.stride,
                padding=(self.before, self.after), dilation=self.dilation, groups=self.groups,
            )  # fmt: skip
            return y.transpose(1, 2, 0)
        windows = self.windows(x, weight.shape[2])
        N, S = windows.shape[:2]
        flat = weight.reshape(1, len(weight), -1).swapaxes(1, 2)
        y = engine.batch_matmul(windows.reshape(1, N * S, -1), flat)[0]
        if bias is not None:
            y += bias
        return y.reshape(N, S, -1).transpose(0, 2, 1)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node) -> Function:
    operation = ops.mean if node.operator == "GlobalAveragePool" else ops.max
    return lambda x: apply(operation, x, axis=tuple(range(2, x.ndim)), keepdims=True)


@operator("BatchNormalization")
def _batch_normalization(node: Node) -> Function:
    epsilon = node.get("epsilon", 1e-5)
    if node.get("training_mode", 0) or sum(map(bool, node.outputs)) > 1:
        raise node.error("in training mode, which is not read; export the model for inference")

    return BatchScale(node, epsilon)


class BatchScale:
    """A batch normalization with fixed statistics."""

    def __init__(self, node: Node, epsilon: float) -> None:
        self.node, self.epsilon = node, epsilon

    def scale(self, axes: int, scale: Any, bias: Any, mean: Any, variance: Any) -> tuple[Any, Any]:
        """What an input of so many axes is multiplied by, and what is added then."""
        factor = scale * (1 / np.sqrt(np.asarray(variance) + variance.dtype.type(self.epsilon)))
        shift = bias - mean * factor
        shape = (-1, *(1,) * (axes - 2))
        return factor.reshape(shape), shift.reshape(shape)

    def __call__(self, x: Any, *vectors: Any) -> Any:
        """The normalized x."""
        if x.ndim < 2 or any(v.shape != x.shape[1:2] for v in vectors):
            raise self.node.error(f"an input of shape {x.shape} for {vectors[0].shape} channels")
        factor, shift = self.scale(x.ndim, *vectors)
        return x * factor + shift


@operator("LayerNormalization")
def _layer_normalization(node: Node) -> Function:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    if sum(map(bool, node.outputs)) > 1:
        raise node.error("its mean and deviation are read, which are not computed")

    def function(x: Any, scale: Any, bias: Any = None) -> Any:
        k = axis_of(node, axis, x.ndim)
        size = math.prod(x.shape[k:])
        vectors = []
        for vector in (scale, bias):
            if vector is not None and vector.shape != x.shape[k:]:
                if np.broadcast_shapes(vector.shape, x.shape[k:]) != x.shape[k:]:
                    raise node.error(f"{vector.shape} for an input of shape {x.shape}")
                vector = apply(ops.broadcast_to, vector, shape=x.shape[k:])
            vectors.append(None if vector is None else vector.reshape(size))
        rows = x.reshape(math.prod(x.shape[:k]), size)
        return apply(ops.layer_norm, rows, *vectors, epsilon=epsilon).reshape(x.shape)

    return function


@operator("RNN", "GRU", "LSTM")
def _recurrent(node: Node) -> Function:
    return RecurrentNode(node)
