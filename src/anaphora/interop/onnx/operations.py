"""The operations of an export: each writes what the one of its name in `anaphora.ops` computes."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from anaphora import ops
from anaphora.interop.onnx.symbols import (
    COMPOSED,
    OPERATIONS,
    Dim,
    ExportError,
    Size,
    Symbol,
    Tracer,
    _refuse,
    broadcast,
    elements,
)
from anaphora.ops.contraction import read_subscripts
from anaphora.ops.shapes import pad_widths
from anaphora.tensor import Tensor

Axes = int | tuple[int, ...] | None


def elementwise(operator: str) -> Callable[..., Symbol]:
    """An operation of one elementwise node."""
    return lambda t, *operands: t.elementwise(operator, *operands)


def of_floats(operator: str) -> Callable[..., Symbol]:
    """The same for floats; integers become such."""
    return lambda t, x: t.elementwise(operator, t.cast(x, t.dtype))


def _divide(t: Tracer, a: Any, b: Any) -> Symbol:
    floats = (t.cast(v, t.dtype) if isinstance(v, Symbol) else v for v in (a, b))
    return t.elementwise("Div", *floats)


def _power(t: Tracer, x: Symbol, exponent: float) -> Symbol:
    return t.elementwise("Pow", t.cast(x, t.dtype), np.asarray(exponent, t.dtype))


def _softmax(operator: str) -> Callable[..., Symbol]:
    def write(t: Tracer, x: Symbol, axis: int = -1) -> Symbol:
        return t.made(t.graph.node(operator, x.value, axis=axis), x.shape)

    return write


def _masked_softmax(t: Tracer, x: Symbol, mask: Any) -> Symbol:
    if not isinstance(mask, Symbol) and np.all(mask):
        return _softmax("Softmax")(t, x)
    return t.where(mask, _softmax("Softmax")(t, t.where(mask, x, -np.inf)), 0.0)


def _additive_scores(t: Tracer, queries: Any, keys: Any, weight: Any) -> Symbol:
    (T, B, A), S = queries.shape, keys.shape[0]
    sums = queries.reshape(T, 1, B, A) + keys.reshape(1, S, B, A)
    scores = OPERATIONS["tanh"](t, sums) @ weight.reshape(A, 1)  # [T, S, B, 1]
    return scores.reshape(T, S, B).transpose(2, 0, 1)  # type: ignore[no-any-return]


def _matmul(t: Tracer, a: Any, b: Any) -> Symbol:
    a, b = (v if isinstance(v, Tensor) else np.asarray(v, t.dtype) for v in (a, b))
    rows, columns = tuple(a.shape[:-1]), tuple(b.shape[-1:]) if len(b.shape) > 1 else ()
    batch = broadcast(tuple(a.shape[:-2]), tuple(b.shape[:-2]))
    value = t.graph.node("MatMul", t.name(a), t.name(b))
    return t.made(value, (*batch, *rows[-1:], *columns))


def linear(t: Tracer, x: Any, weight: Tensor, bias: Tensor | None = None) -> Symbol:
    """``x W^T + b``; the transposed weight is a constant, unless W is one already."""
    if isinstance(weight, Symbol):
        y = _matmul(t, x, weight.transpose())
    else:
        shape = tuple(weight.shape)
        if t.is_written(weight):  # the weight of an embedding too
            right = t.graph.node("Transpose", t.parameter(weight), perm=[1, 0])
        else:
            right = t.parameter(weight, ".T", weight.data.T)
        y = t.made(t.graph.node("MatMul", t.name(x), right), (*x.shape[:-1], shape[0]))
    return y if bias is None else t.elementwise("Add", y, bias)


def _embedding(t: Tracer, weight: Tensor, ids: Any, padding_idx: int | None = None) -> Symbol:
    value = t.graph.node("Gather", t.name(weight), t.name(ids), axis=0)
    return t.made(value, (*ids.shape, weight.shape[1]))


def _layer_norm(
    t: Tracer, x: Symbol, weight: Any = None, bias: Any = None, epsilon: float = 1e-5
) -> Symbol:
    scale = t.graph.constant(np.ones(x.shape[-1], np.float32)) if weight is None else t.name(weight)
    inputs = [x.value, scale] + ([] if bias is None else [t.name(bias)])
    value = t.graph.node("LayerNormalization", *inputs, axis=-1, epsilon=float(epsilon))
    return t.made(value, x.shape)


def reduced(operator: str) -> Callable[..., Symbol]:
    """A reduction along axes."""

    def write(t: Tracer, x: Symbol, axis: Axes = None, keepdims: bool = False) -> Symbol:
        chosen = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        axes = sorted(a % x.ndim for a in chosen)
        if operator == "ReduceSum":
            value = t.graph.node(operator, x.value, t.graph.integers(*axes), keepdims=int(keepdims))
        else:
            value = t.graph.node(operator, x.value, axes=axes, keepdims=int(keepdims))
        kept = [(1 if a in axes else size) for a, size in enumerate(x.shape)]
        sizes = kept if keepdims else [size for a, size in enumerate(x.shape) if a not in axes]
        return t.made(value, sizes, x.dtype)

    return write


def _transpose(t: Tracer, x: Symbol, axes: Sequence[int] | None = None) -> Symbol:
    order = range(x.ndim)[::-1] if axes is None else [axis % x.ndim for axis in axes]
    return t.moved(x, *order)


def _reshape(t: Tracer, x: Symbol, shape: Any) -> Symbol:
    return t.reshaped(x, [shape] if isinstance(shape, (int, Dim)) else list(shape))


def _broadcast_to(t: Tracer, x: Symbol, shape: Sequence[Size]) -> Symbol:
    return t.made(t.graph.node("Expand", x.value, t.sizes(shape)), shape, x.dtype)


def _concatenate(t: Tracer, *arrays: Any, axis: int = 0) -> Symbol:
    parts = [a if isinstance(a, Tensor) else np.asarray(a, t.dtype) for a in arrays]
    axis %= len(parts[0].shape)
    value = t.graph.node("Concat", *map(t.name, parts), axis=axis)
    along = [part.shape[axis] for part in parts]
    free = not all(isinstance(size, int) for size in along)
    sizes = broadcast(*((*p.shape[:axis], 1, *p.shape[axis + 1 :]) for p in parts))
    return t.made(value, (*sizes[:axis], None if free else sum(along), *sizes[axis + 1 :]))


def _stack(t: Tracer, *arrays: Any, axis: int = 0) -> Symbol:
    parts = [a if isinstance(a, Tensor) else np.asarray(a, t.dtype) for a in arrays]
    axis %= len(parts[0].shape) + 1
    where = t.graph.integers(axis)
    names = [t.graph.node("Unsqueeze", t.name(part), where) for part in parts]
    shape = broadcast(*(tuple(part.shape) for part in parts))
    value = t.graph.node("Concat", *names, axis=axis)
    return t.made(value, (*shape[:axis], len(parts), *shape[axis:]))


def _known(x: Symbol, axis: int) -> int:
    size = x.shape[axis]
    if not isinstance(size, int):
        _refuse(
            f"axis {axis} of a Tensor of shape {x.shape} is split into its elements, but its "
            "size is free: a loop over steps in Python cannot be exported; a recurrent layer of a "
            "cell can"
        )
    return size


def _unstack(t: Tracer, x: Symbol, axis: int = 0) -> tuple[Symbol, ...]:
    axis %= x.ndim
    index = (slice(None),) * axis
    return tuple(_getitem(t, x, (*index, k)) for k in range(_known(x, axis)))


def _split(t: Tracer, x: Symbol, sections: Any, axis: int = 0) -> tuple[Symbol, ...]:
    axis %= x.ndim
    size = _known(x, axis)
    if isinstance(sections, int):
        ends = [size // sections * (k + 1) for k in range(sections)]
    else:
        ends = [*(int(end) for end in sections), size]
    index = (slice(None),) * axis
    starts = [0, *ends[:-1]]
    return tuple(
        _getitem(t, x, (*index, slice(start, end))) for start, end in zip(starts, ends, strict=True)
    )


def _getitem(t: Tracer, x: Symbol, index: Any) -> Symbol:
    """Integers, slices, None, an ellipsis, and one array of constant integers."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(p is Ellipsis for p in parts):
        place = next(k for k, p in enumerate(parts) if p is Ellipsis)
        given = sum(p is not None for p in parts) - 1
        parts[place : place + 1] = [slice(None)] * (x.ndim - given)
    parts += [slice(None)] * (x.ndim - sum(p is not None for p in parts))
    if sum(p is not None for p in parts) > x.ndim:
        _refuse(f"an index of {len(parts)} parts for a Tensor of shape {x.shape}")
    old = [p for p in parts if p is not None]
    value, sizes = x.value, list[Any](x.shape)
    cut = [(a, p) for a, p in enumerate(old) if isinstance(p, slice) and p != slice(None)]
    if cut:
        value = t.graph.node("Slice", value, *_bounds(t, cut))
        for axis, part in cut:
            size = x.shape[axis]
            sizes[axis] = len(range(*part.indices(size))) if _is_fixed(size, part) else None
        sizes = list(t.made(value, sizes).shape)
    picked = [(a, p) for a, p in enumerate(old) if not isinstance(p, slice)]
    for axis, part in reversed(picked):  # so that the axes before stay in place
        index, shape = _picks(t, part)
        if shape and len(picked) > 1:
            _refuse("an index of several integers beside another integer cannot be exported")
        value = t.graph.node("Gather", value, index, axis=axis)
        sizes[axis : axis + 1] = shape
    added, axis = [], 0
    for part in parts:
        if part is None:
            added.append(axis)
            sizes.insert(axis, 1)
        axis += 1 if part is None or isinstance(part, slice) else np.ndim(part)
    if added:
        value = t.graph.node("Unsqueeze", value, t.graph.integers(*added))
    return t.made(value, sizes, x.dtype)


def _picks(t: Tracer, part: Any) -> tuple[str, list[Size]]:
    """An index by integers: its name in the graph, and its shape."""
    if isinstance(part, Symbol) and part.dtype.kind == "i":
        return part.value, list(part.shape)
    array = np.asarray(part)
    if array.dtype.kind not in "iu":
        _refuse(
            f"the index {part!r:.60} cannot be exported: integers, slices, None and one array of "
            "integers can"
        )
    return t.graph.constant(array.astype(np.int64)), list(array.shape)


def _is_fixed(size: Size, part: slice) -> bool:
    bounds = (part.start, part.stop, part.step)
    return isinstance(size, int) and not any(isinstance(bound, Dim) for bound in bounds)


def _bounds(t: Tracer, cut: Sequence[tuple[int, slice]]) -> list[str]:
    """The inputs starts, ends, axes and steps of Slice."""
    far = 2**31 - 1
    steps = [1 if part.step is None else int(part.step) for _, part in cut]
    starts = [
        (0 if step > 0 else far) if part.start is None else part.start
        for (_, part), step in zip(cut, steps, strict=True)
    ]
    ends = [
        (far if step > 0 else -far) if part.stop is None else part.stop
        for (_, part), step in zip(cut, steps, strict=True)
    ]
    axes = t.graph.integers(*(axis for axis, _ in cut))
    return [t.sizes(starts), t.sizes(ends), axes, t.graph.integers(*steps)]


def _astype(t: Tracer, x: Symbol, dtype: Any) -> Symbol:
    return t.cast(x, dtype)  # float32 and float64 are written as float32


# Elementwise


def _scaled(t: Tracer, x: Any, factor: float) -> Symbol:
    return t.elementwise("Mul", x, np.asarray(factor, t.dtype))


def _gelu(t: Tracer, x: Symbol, approximate: str = "none") -> Any:
    x = t.cast(x, t.dtype)
    if approximate == "tanh":
        inner = _scaled(t, x + _scaled(t, x * x * x, 0.044715), math.sqrt(2 / math.pi))
        share = t.elementwise("Tanh", inner)
    else:
        share = t.elementwise("Erf", _scaled(t, x, math.sqrt(0.5)))
    return _scaled(t, x, 0.5) * (share + 1.0)


def _silu(t: Tracer, x: Symbol) -> Any:
    x = t.cast(x, t.dtype)
    return x * t.elementwise("Sigmoid", x)


def _with_alpha(operator: str, default: float) -> Callable[..., Symbol]:
    def write(t: Tracer, x: Symbol, alpha: float = default) -> Symbol:
        value = t.graph.node(operator, t.cast(x, t.dtype).value, alpha=float(alpha))
        return t.made(value, x.shape)

    return write


def _leaky_relu(t: Tracer, x: Symbol, negative_slope: float = 0.01) -> Symbol:
    return _with_alpha("LeakyRelu", negative_slope)(t, x)


def _round(t: Tracer, x: Symbol, decimals: int = 0) -> Symbol:
    if not decimals:
        return t.elementwise("Round", x)
    scaled = t.elementwise("Round", _scaled(t, x, 10.0**decimals))
    return t.elementwise("Div", scaled, np.asarray(10.0**decimals, t.dtype))


def _floor_divide(t: Tracer, a: Any, b: Any) -> Symbol:
    quotient = t.elementwise("Div", a, b)
    if quotient.dtype.kind == "f":
        return t.elementwise("Floor", quotient)
    rest = t.elementwise("Mod", a, b)  # of the divisor's sign; Div rounds toward 0
    return t.elementwise("Div", t.elementwise("Sub", a, rest), b)


def _remainder(t: Tracer, a: Any, b: Any) -> Symbol:
    if "f" in {np.dtype(getattr(v, "dtype", type(v))).kind for v in (a, b)}:
        return t.elementwise("Sub", a, t.elementwise("Mul", _floor_divide(t, a, b), b))
    return t.elementwise("Mod", a, b)


def _clip(t: Tracer, x: Any, min: Any = None, max: Any = None) -> Any:
    limits = [v for v in (min, max) if v is not None]
    if not isinstance(x, Symbol) or not all(np.isscalar(limit) for limit in limits):
        return NotImplemented
    names = ["" if v is None else t.name(np.asarray(v, x.dtype)) for v in (min, max)]
    return t.made(t.graph.node("Clip", x.value, *names), x.shape, x.dtype)


def _masked_fill(t: Tracer, x: Any, mask: Any, value: Any) -> Any:
    return t.where(mask, value, x) if isinstance(mask, Symbol) else NotImplemented


# Reductions


def _cumsum(t: Tracer, x: Symbol, axis: int | None = None) -> Symbol:
    x, axis = _flattened(x, axis)
    value = t.graph.node("CumSum", x.value, t.graph.constant(np.int64(axis % x.ndim)))
    return t.made(value, x.shape, x.dtype)


def _var(t: Tracer, x: Symbol, axis: Axes = None, keepdims: bool = False, *, ddof: int = 0) -> Any:
    distances = x - x.mean(axis=axis, keepdims=True)
    mean = (distances * distances).mean(axis=axis, keepdims=keepdims)
    if not ddof:
        return mean
    chosen = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    count = t.number(elements(tuple(x.shape[k] for k in chosen)))
    share = t.elementwise("Div", count, t.elementwise("Sub", count, ddof))
    return t.elementwise("Mul", mean, share)


def _truth(operator: str) -> Callable[..., Symbol]:
    """Whether one, or each, is not 0."""

    def write(t: Tracer, x: Symbol, axis: Axes = None, keepdims: bool = False) -> Symbol:
        flags = x if x.dtype.kind == "b" else x != 0
        numbers = t.cast(flags, np.int64)
        return t.cast(reduced(operator)(t, numbers, axis, keepdims), np.bool_)

    return write


# Order


def _flattened(x: Symbol, axis: int | None) -> tuple[Symbol, int]:
    """The array and the axis; of None the flattened array."""
    return (x.reshape(-1), 0) if axis is None else (x, axis)  # type: ignore[return-value]


def _place(operator: str) -> Callable[..., Symbol]:
    def write(t: Tracer, x: Symbol, axis: int | None = None, keepdims: bool = False) -> Symbol:
        if axis is None and keepdims:
            raise ExportError(f"{operator} of all elements with keepdims cannot be exported")
        x, axis = _flattened(x, axis)
        axis %= x.ndim
        value = t.graph.node(operator, x.value, axis=axis, keepdims=int(keepdims))
        rest = [1] if keepdims else []
        return t.made(value, (*x.shape[:axis], *rest, *x.shape[axis + 1 :]), np.int64)

    return write


class _TopK(NamedTuple):
    values: Symbol
    indices: Symbol


def _topk(t: Tracer, x: Symbol, k: Size, axis: int = -1, largest: bool = True) -> _TopK:
    axis %= x.ndim
    values, indices = t.graph.nodes_of(
        "TopK", x.value, t.sizes([k]), named=["values", "indices"], axis=axis,
        largest=int(largest), sorted=1,
    )  # fmt: skip
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return _TopK(t.made(values, shape, x.dtype), t.made(indices, shape, np.int64))


def _sorted(t: Tracer, x: Symbol, axis: int | None, descending: bool) -> _TopK:
    x, axis = _flattened(x, axis)
    return _topk(t, x, x.shape[axis], axis, descending)


def _sort(t: Tracer, x: Symbol, axis: int | None = -1, descending: bool = False) -> Symbol:
    return _sorted(t, x, axis, descending).values


def _argsort(t: Tracer, x: Symbol, axis: int | None = -1, descending: bool = False) -> Symbol:
    return _sorted(t, x, axis, descending).indices


def _take_along_axis(t: Tracer, x: Any, indices: Any, axis: int | None = -1) -> Symbol:
    x, axis = _flattened(x, axis)
    axis %= x.ndim
    given = tuple(indices.shape) if isinstance(indices, Tensor) else np.shape(indices)
    if len(given) != x.ndim:
        raise ExportError(f"take_along_axis of indices {given} and a Tensor of shape {x.shape}")
    others = broadcast(*((*s[:axis], 1, *s[axis + 1 :]) for s in (tuple(x.shape), given)))
    names = []
    for one, shape in ((x, tuple(x.shape)), (indices, given)):
        wide = (*others[:axis], shape[axis], *others[axis + 1 :])
        name = t.name(one if isinstance(one, Tensor) else np.asarray(one, np.int64))
        same = [a is b for a, b in zip(wide, shape, strict=True)]  # small integers are one, too
        names.append(name if all(same) else t.graph.node("Expand", name, t.sizes(wide)))
    value = t.graph.node("GatherElements", *names, axis=axis)
    return t.made(value, (*others[:axis], given[axis], *others[axis + 1 :]), x.dtype)


def _one_hot(t: Tracer, ids: Any, num_classes: int | None = None, dtype: Any = np.float32) -> Any:
    if num_classes is None:
        raise ExportError("one_hot cannot be exported without num_classes; give it")
    kind = np.dtype(dtype)
    values = np.array([0, 1], t.dtype if kind.kind == "f" else kind)
    depth = t.graph.constant(np.int64(num_classes))
    value = t.graph.node("OneHot", ids.value, depth, t.name(values), axis=-1)
    return t.made(value, (*ids.shape, num_classes), values.dtype)


# Places


def _axes_of(axes: int | Sequence[int], ndim: int) -> list[int]:
    given = [axes] if isinstance(axes, (int, np.integer)) else list(axes)
    return sorted(int(axis) % ndim for axis in given)


def _squeeze(t: Tracer, x: Symbol, axis: Any = None) -> Symbol:
    if axis is None:
        axes = [k for k, size in enumerate(x.shape) if isinstance(size, int) and size == 1]
    else:
        axes = _axes_of(axis, x.ndim)
    rest = [size for k, size in enumerate(x.shape) if k not in axes]
    return t.made(t.graph.node("Squeeze", x.value, t.graph.integers(*axes)), rest, x.dtype)


def _expand_dims(t: Tracer, x: Symbol, axis: Any) -> Symbol:
    count = x.ndim + (1 if isinstance(axis, (int, np.integer)) else len(axis))
    axes = _axes_of(axis, count)
    sizes = iter(x.shape)
    shape = [1 if k in axes else next(sizes) for k in range(count)]
    return t.made(t.graph.node("Unsqueeze", x.value, t.graph.integers(*axes)), shape, x.dtype)


def _flip(t: Tracer, x: Symbol, axis: Any = None) -> Symbol:
    axes = _axes_of(range(x.ndim) if axis is None else axis, x.ndim)
    count, far = len(axes), 2**31 - 1
    bounds = ([-1] * count, [-far] * count, axes, [-1] * count)
    value = t.graph.node("Slice", x.value, *(t.graph.integers(*numbers) for numbers in bounds))
    return t.made(value, x.shape, x.dtype)


def _roll(t: Tracer, x: Symbol, shift: Any, axis: Any = None) -> Any:
    if axis is None:
        return _roll(t, x.reshape(-1), shift, 0).reshape(x.shape)  # type: ignore[arg-type]
    shifts, axes = np.broadcast_arrays(shift, axis)
    for by, along in zip(shifts.reshape(-1).tolist(), axes.reshape(-1).tolist(), strict=True):
        k = along % x.ndim
        size = x.shape[k]
        count = t.made(size.scalar, (), np.int64) if isinstance(size, Dim) else size
        places = t.elementwise("Mod", t.range(size) - by, count)
        x = t.made(t.graph.node("Gather", x.value, places.value, axis=k), x.shape, x.dtype)
    return x


def _repeat(t: Tracer, x: Any, repeats: Any, axis: int | None = None) -> Any:
    if not isinstance(repeats, (int, np.integer)):
        return NotImplemented
    x, axis = _flattened(x, axis)
    axis %= x.ndim
    shape, count = tuple(x.shape), int(repeats)
    before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
    apart = x.reshape(*before, size, 1, *after)
    wide = ops.broadcast_to(apart, (*before, size, count, *after))
    return wide.reshape(*before, size * count, *after)


def _constant_pad(t: Tracer, x: Symbol, widths: Sequence[tuple[int, int]], value: float) -> Symbol:
    return _padded(t, x, widths, "constant", t.name(np.asarray(value, x.dtype)))


def _pad(
    t: Tracer, x: Symbol, pad_width: Any, mode: str = "constant", constant_values: float = 0.0
) -> Any:
    if mode not in ("edge", "reflect"):
        return NotImplemented
    return _padded(t, x, pad_widths(pad_width, x.ndim), mode)


def _padded(
    t: Tracer, x: Symbol, widths: Sequence[tuple[int, int]], mode: str, *value: str
) -> Symbol:
    pads = t.graph.integers(*(before for before, _ in widths), *(after for _, after in widths))
    made = t.graph.node("Pad", x.value, pads, *value, mode=mode)
    sizes = [
        size if not sum(width) else size + sum(width) if isinstance(size, int) else None
        for size, width in zip(x.shape, widths, strict=True)
    ]
    return t.made(made, sizes, x.dtype)


def _einsum(t: Tracer, subscripts: str, /, *operands: Any) -> Symbol:
    tensors = [x if isinstance(x, Tensor) else np.asarray(x, t.dtype) for x in operands]
    terms, output = read_subscripts(subscripts, [len(x.shape) for x in tensors])
    sizes: dict[str, Size] = {}
    for term, x in zip(terms, tensors, strict=True):
        for label, size in zip(term, x.shape, strict=True):
            sizes[label] = broadcast((sizes.get(label, 1),), (size,))[0]
    letters = (letter for letter in string.ascii_letters if letter not in sizes)
    named = {label: next(letters) if label.isdigit() else label for label in sizes}
    texts = ["".join(named[label] for label in labels) for labels in (*terms, output)]
    equation = f"{','.join(texts[:-1])}->{texts[-1]}"
    value = t.graph.node("Einsum", *map(t.name, tensors), equation=equation)
    return t.made(value, [sizes[label] for label in output])


OPERATIONS.update(
    {
        "abs": elementwise("Abs"),
        "add": elementwise("Add"),
        "additive_scores": _additive_scores,
        "astype": _astype,
        "broadcast_to": _broadcast_to,
        "ceil": elementwise("Ceil"),
        "concatenate": _concatenate,
        "cos": of_floats("Cos"),
        "cumsum": _cumsum,
        "divide": _divide,
        "elu": _with_alpha("Elu", 1.0),
        "embedding": _embedding,
        "erf": of_floats("Erf"),
        "exp": of_floats("Exp"),
        "flip": _flip,
        "floor": elementwise("Floor"),
        "floor_divide": _floor_divide,
        "gelu": _gelu,
        "getitem": _getitem,
        "layer_norm": _layer_norm,
        "leaky_relu": _leaky_relu,
        "linear": linear,
        "log": of_floats("Log"),
        "log_softmax": _softmax("LogSoftmax"),
        "logsumexp": reduced("ReduceLogSumExp"),
        "masked_softmax": _masked_softmax,
        "matmul": _matmul,
        "max": reduced("ReduceMax"),
        "maximum": elementwise("Max"),
        "mean": reduced("ReduceMean"),
        "min": reduced("ReduceMin"),
        "minimum": elementwise("Min"),
        "multiply": elementwise("Mul"),
        "negative": elementwise("Neg"),
        "pad": _constant_pad,
        "power": _power,
        "prod": reduced("ReduceProd"),
        "relu": of_floats("Relu"),
        "remainder": _remainder,
        "reshape": _reshape,
        "roll": _roll,
        "round": _round,
        "sigmoid": of_floats("Sigmoid"),
        "sign": elementwise("Sign"),
        "silu": _silu,
        "sin": of_floats("Sin"),
        "softmax": _softmax("Softmax"),
        "softplus": of_floats("Softplus"),
        "split": _split,
        "sqrt": of_floats("Sqrt"),
        "stack": _stack,
        "subtract": elementwise("Sub"),
        "sum": reduced("ReduceSum"),
        "tanh": of_floats("Tanh"),
        "transpose": _transpose,
        "unstack": _unstack,
        "where": lambda t, a, b, condition: t.where(condition, a, b),
    }
)

COMPOSED.update(
    {
        "all": _truth("ReduceMin"),
        "any": _truth("ReduceMax"),
        "argmax": _place("ArgMax"),
        "argmin": _place("ArgMin"),
        "argsort": _argsort,
        "clip": _clip,
        "einsum": _einsum,
        "expand_dims": _expand_dims,
        "masked_fill": _masked_fill,
        "one_hot": _one_hot,
        "pad": _pad,
        "repeat": _repeat,
        "sort": _sort,
        "squeeze": _squeeze,
        "take_along_axis": _take_along_axis,
        "topk": _topk,
        "var": _var,
    }
)
