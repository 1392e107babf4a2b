"""Symbols: the Tensors of an export, with which a model is called to write down its operations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray

from anaphora import nn
from anaphora.interop.onnx.graph import Graph
from anaphora.tensor import Tensor

Array = NDArray[Any]

TYPES = {
    "f": onnx.TensorProto.FLOAT,
    "i": onnx.TensorProto.INT64,
    "b": onnx.TensorProto.BOOL,
}
"""ONNX's types by NumPy's kind; float64 is written as float32."""


class ExportError(ValueError):
    """A model cannot be written; the message says which part of it."""


def _refuse(message: str) -> NoReturn:
    raise ExportError(message)


class Dim:
    """The size of a free axis, known when the file is run: for reshapes, and arithmetic.

    Attributes:
        label: Its letter, such as T; "" for one without.
    """

    def __init__(self, graph: Graph, value: str, axis: int, label: str = "") -> None:
        self.label = label
        self._graph, self._value, self._axis = graph, value, axis
        self._scalar = ""

    @classmethod
    def computed(cls, graph: Graph, scalar: str) -> Dim:
        """A size that is the value of a scalar of the graph."""
        dim = cls(graph, "", 0)
        dim._scalar = scalar
        return dim

    @property
    def scalar(self) -> str:
        """The name of the size in the graph, an int64."""
        if not self._scalar:
            shape = self._graph.node("Shape", self._value)
            axis = self._graph.constant(np.int64(self._axis))
            self._scalar = self._graph.node("Gather", shape, axis, named=self.label)
        return self._scalar

    def _with(self, operator: str, other: Dim | int, swapped: bool = False) -> Dim:
        right = other.scalar if isinstance(other, Dim) else self._graph.constant(np.int64(other))
        pair = (right, self.scalar) if swapped else (self.scalar, right)
        return Dim.computed(self._graph, self._graph.node(operator, *pair))

    def __add__(self, other: Any) -> Dim:
        return self._with("Add", other)

    def __mul__(self, other: Any) -> Dim:
        return self._with("Mul", other)

    def __sub__(self, other: Any) -> Dim:
        return self._with("Sub", other)

    def __rsub__(self, other: Any) -> Dim:
        return self._with("Sub", other, swapped=True)

    def __floordiv__(self, other: Any) -> Dim:
        return self._with("Div", other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Dim):
            self._unknown()
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _unknown(self, *arguments: Any) -> NoReturn:
        _refuse(
            f"the size of a free axis{f' ({self.label})' * bool(self.label)} is used as a number, "
            "but differs from run to run; it may be used in reshape and broadcast_to alone"
        )

    __bool__ = __index__ = __int__ = __float__ = __lt__ = __le__ = __gt__ = __ge__ = _unknown

    def __repr__(self) -> str:
        return self.label or "?"


Size = int | Dim
Sizes = tuple[Size, ...]


class Symbol(Tensor):
    """A Tensor without numbers: a value of the graph, with its shape and dtype."""

    __slots__ = ("_dtype", "_shape", "tracer", "value")

    def __init__(self, tracer: Tracer, value: str, shape: Sizes, dtype: Any) -> None:
        self.tracer = tracer
        self.value = value
        self._shape = shape
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self.requires_grad = False
        self.grad = None
        self._node, self._output, self._version = None, 0, None

    @property
    def _data(self) -> Array:  # type: ignore[override]
        _refuse(
            "it uses the numbers of a Tensor (as .data, in an if, or in a function of NumPy), "
            "which a symbol of an export does not have; use operations of anaphora.ops"
        )

    @property
    def shape(self) -> Any:
        """The size along each axis: an int, or a `Dim`."""
        return self._shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype; the model's for floats."""
        return self._dtype

    @property
    def size(self) -> Any:
        """The number of elements."""
        return elements(self._shape)

    def detach(self) -> Tensor:
        """The symbol itself: an export has no gradients."""
        return self

    def __len__(self) -> int:
        if not isinstance(self._shape[0], int):
            self._shape[0]._unknown()
        return self._shape[0]

    def __bool__(self) -> bool:
        return bool(self._data)

    def _compared(self, operator: str, other: Any) -> Symbol:
        return self.tracer.elementwise(operator, self, other, dtype=np.bool_)

    def __lt__(self, other: Any) -> Any:
        return self._compared("Less", other)

    def __le__(self, other: Any) -> Any:
        return self._compared("LessOrEqual", other)

    def __gt__(self, other: Any) -> Any:
        return self._compared("Greater", other)

    def __ge__(self, other: Any) -> Any:
        return self._compared("GreaterOrEqual", other)

    def __eq__(self, other: object) -> Any:
        return self._compared("Equal", other)

    def __ne__(self, other: object) -> Any:
        return self.tracer.elementwise("Not", self == other, dtype=np.bool_)

    __hash__ = object.__hash__

    def _logical(self, operator: str, other: Any) -> Symbol:
        if {_kind(self), _kind(other)} != {"b"}:
            _refuse(f"{operator} cannot be exported of integers, but of booleans")
        return self.tracer.elementwise(operator, self, other, dtype=np.bool_)

    def __and__(self, other: Any) -> Any:
        return self._logical("And", other)

    def __or__(self, other: Any) -> Any:
        return self._logical("Or", other)

    def __xor__(self, other: Any) -> Any:
        return self._logical("Xor", other)

    def __invert__(self) -> Any:
        return self.tracer.elementwise("Not", self, dtype=np.bool_)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def active(self, steps: Size) -> Symbol:
        """For lengths [...], whether each of a number of steps is within them: [steps, ...]."""
        order = self.tracer.range(steps).reshape(steps, *[1] * self.ndim)  # type: ignore[arg-type]
        return order < self  # type: ignore[no-any-return]

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        if function is np.shape:
            return self._shape
        if function is np.ndim:
            return self.ndim
        return super().__array_function__(function, types, inputs, options)

    def __repr__(self) -> str:
        return f"Symbol({self.value}, {list(self._shape)}, {self._dtype})"


def elements(shape: Sizes) -> Size:
    """The product of sizes."""
    total: Size = 1
    for size in shape:
        total = size if isinstance(total, int) and total == 1 else total * size
    return total


def broadcast(*shapes: Sizes) -> Sizes:
    """The shape of arrays of these shapes that are broadcast; a free axis fits any size."""
    ndim = max(map(len, shapes))
    padded = [(1,) * (ndim - len(shape)) + shape for shape in shapes]

    def common(sizes: Sequence[Size]) -> Size:
        known = {size for size in sizes if isinstance(size, int) and size != 1}
        if len(known) > 1:
            _refuse(f"shapes {', '.join(map(str, shapes))} do not match")
        free = [size for size in sizes if isinstance(size, Dim)]
        return known.pop() if known else free[0] if free else 1

    return tuple(common(sizes) for sizes in zip(*padded, strict=True))


class Tracer:
    """The interpreter of an export: operations of Symbols become nodes of its graph.

    Attributes:
        graph: The graph that nodes are added to: that of a loop's body while it is traced.
        dtype: Of the model's floats.
        modules: What writes a module, by the forward that it has; others run their own.
        in_int8: The layers with weights in 8 bits, by their id.
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: Any,
        modules: Mapping[Any, Callable[..., Any]],
        in_int8: frozenset[int],
    ) -> None:
        self.graph = Graph()
        self._modules = modules
        self.dtype = np.dtype(dtype)
        self.in_int8 = in_int8
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._written: dict[str, str] = {}

    # The methods of an `Interpreter`

    def operation(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Write an operation on Symbols; anything else is computed as usual."""
        if not _has_symbols((arguments, options)):
            return NotImplemented
        if name not in OPERATIONS:
            _refuse(
                f"the operation {name!r} cannot be exported; those that can are "
                f"{', '.join(sorted(OPERATIONS))}"
            )
        return OPERATIONS[name](self, *arguments, **options)

    def composed(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Write an operation that is made of others, if there is a node for it."""
        if name not in COMPOSED or not _has_symbols((arguments, options)):
            return NotImplemented
        return COMPOSED[name](self, *arguments, **options)

    def module(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call a module with Symbols: as the table of layers says, or else its own forward."""
        if not _has_symbols((arguments, options)):
            return NotImplemented
        path = self._paths.get(id(module), "")
        with self.scope(f"{path}." if path else ""):
            try:
                writer = self._modules.get(type(module).forward)
                if writer is not None:
                    return writer(self, module, *arguments, **options)
                return module.forward(*arguments, **options)
            except ExportError as error:
                if hasattr(error, "module"):
                    raise
                explained = ExportError(f"{_named(module, path)}: {error}")
            except Exception as error:
                explained = ExportError(
                    f"{_named(module, path)}: its forward does not run on the symbols of an "
                    f"export: {type(error).__name__}: {error}"
                )
                explained.__cause__ = error
            explained.module = module  # type: ignore[attr-defined]
            raise explained

    # Values

    @contextlib.contextmanager
    def scope(self, prefix: str) -> Iterator[None]:
        """Names in the block begin with a prefix."""
        root = self.graph.root
        before, root.scope = root.scope, prefix
        try:
            yield
        finally:
            root.scope = before

    @contextlib.contextmanager
    def body(self) -> Iterator[Graph]:
        """The nodes of the block are those of a loop's body."""
        outer, self.graph = self.graph, Graph(self.graph)
        try:
            yield self.graph
        finally:
            self.graph = outer

    def made(self, value: str, shape: Sequence[Size | None], dtype: Any = None) -> Symbol:
        """The Symbol of a value; a size that is None is a new free axis."""
        sizes = tuple(
            Dim(self.graph, value, axis) if size is None else size
            for axis, size in enumerate(shape)
        )
        return Symbol(self, value, sizes, self.dtype if dtype is None else dtype)

    def input(
        self, name: str, axes: Sequence[int | str], dtype: Any, dims: dict[str, Dim]
    ) -> Symbol:
        """An input; free axes with the same letter have the same size."""
        sizes: list[Size] = [
            dims.setdefault(axis, Dim(self.graph, name, place, axis))
            if isinstance(axis, str)
            else axis
            for place, axis in enumerate(axes)
        ]
        kind = np.dtype(dtype)
        return self.made(name, sizes, self.dtype if kind.kind == "f" else kind)

    def name(self, value: Any) -> str:
        """The name of a Symbol, or of a constant."""
        if isinstance(value, Symbol):
            return value.value
        if isinstance(value, Tensor):
            return self.parameter(value)
        array = np.asarray(value)
        return self.graph.constant(array.astype(np.int64) if array.dtype.kind == "u" else array)

    def parameter(self, tensor: Tensor, suffix: str = "", array: Array | None = None) -> str:
        """A parameter as a constant under its name; with a suffix, an array that was made of it."""
        name = self._names.get(id(tensor), "")
        if not name:
            return self.graph.constant(tensor.data if array is None else array)
        return self.array(name + suffix, tensor.data if array is None else array)

    def array(self, name: str, array: Array) -> str:
        """A constant that is written once under a name of its own."""
        if name not in self._written:
            self._written[name] = self.graph.constant(array, name)
        return self._written[name]

    def is_written(self, tensor: Tensor) -> bool:
        """Whether a parameter is a constant of the graph."""
        return self._names.get(id(tensor), "") in self._written

    def sizes(self, sizes: Sequence[Size]) -> str:
        """A vector of sizes, some of which may be free."""
        if all(isinstance(size, int) for size in sizes):
            return self.graph.integers(*sizes)  # type: ignore[arg-type]
        axis = self.graph.integers(0)
        parts = [
            self.graph.node("Unsqueeze", size.scalar, axis)
            if isinstance(size, Dim)
            else self.graph.integers(size)
            for size in sizes
        ]
        return self.graph.node("Concat", *parts, axis=0)

    def number(self, size: Size) -> Any:
        """A size as a float."""
        if isinstance(size, int):
            return np.asarray(size, self.dtype)
        return self.cast(self.made(size.scalar, (), np.int64), self.dtype)

    def range(self, size: Size) -> Symbol:
        """The integers from 0 to below a size."""
        graph = self.graph
        end = size.scalar if isinstance(size, Dim) else graph.constant(np.int64(size))
        start, step = (graph.constant(np.int64(n)) for n in (0, 1))
        return self.made(graph.node("Range", start, end, step), (size,), np.int64)

    def cast(self, x: Symbol, dtype: Any) -> Symbol:
        """Convert to a dtype, if it is another kind."""
        dtype = np.dtype(dtype)
        if x.dtype.kind == dtype.kind:
            return x
        return self.made(self.graph.node("Cast", x.value, to=TYPES[dtype.kind]), x.shape, dtype)

    def elementwise(
        self, operator: str, *operands: Any, dtype: Any = None, named: str = ""
    ) -> Symbol:
        """An elementwise node; its operands are broadcast, and converted to a float if one is."""
        kinds = {_kind(operand) for operand in operands}
        common = self.dtype if "f" in kinds else np.dtype(np.int64 if "i" in kinds else np.bool_)
        names, shapes = [], []
        for operand in operands:
            if isinstance(operand, Symbol):
                operand = self.cast(operand, common)
            elif not isinstance(operand, Tensor):
                operand = np.asarray(operand, common)
            names.append(self.name(operand))
            shapes.append(tuple(operand.shape))
        value = self.graph.node(operator, *names, named=named)
        return self.made(value, broadcast(*shapes), common if dtype is None else dtype)

    def where(self, condition: Any, a: Any, b: Any) -> Symbol:
        """Choose a where the condition is True, b elsewhere."""
        if not isinstance(condition, Symbol):
            condition = np.asarray(getattr(condition, "data", condition), np.bool_)
        a, b = (v if isinstance(v, Tensor) else np.asarray(v, self.dtype) for v in (a, b))
        value = self.graph.node("Where", self.name(condition), self.name(a), self.name(b))
        return self.made(value, broadcast(*(tuple(v.shape) for v in (condition, a, b))))

    def moved(self, x: Symbol, *axes: int) -> Symbol:
        """The axes in another order."""
        value = self.graph.node("Transpose", x.value, perm=list(axes))
        return self.made(value, [x.shape[axis] for axis in axes], x.dtype)

    def reshaped(self, x: Symbol, shape: Sequence[Size]) -> Symbol:
        """The same elements in another shape."""
        wanted: list[Size] = []
        for axis, size in enumerate(shape):
            same = axis < x.ndim and isinstance(size, Dim) and size is x.shape[axis]
            wanted.append(0 if same else size)  # 0 copies the size of the axis
        rest = [axis for axis, size in enumerate(shape) if isinstance(size, int) and size == -1]
        free = [axis for axis, size in enumerate(wanted) if isinstance(size, Dim)]
        if len(free) == 1 and not rest:
            wanted[free[0]] = -1
        sizes: list[Size | None] = list(shape)
        for axis in rest:
            others = [size for size in shape if size is not shape[axis]]
            known = all(isinstance(size, int) for size in (*x.shape, *others))
            counts = (int(np.prod(np.array(s, object))) for s in (x.shape, others))
            sizes[axis] = next(counts) // next(counts) if known else None
        return self.made(self.graph.node("Reshape", x.value, self.sizes(wanted)), sizes, x.dtype)


def _has_symbols(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_symbols, value))
    if isinstance(value, dict):
        return any(map(_has_symbols, value.values()))
    return isinstance(value, Symbol)


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    kind = np.asarray(value).dtype.kind if dtype is None else dtype.kind
    return "i" if kind == "u" else str(kind)


def _named(module: nn.Module, path: str) -> str:
    return f"{type(module).__name__}{f' ({path})' * bool(path)}"


# Operations: each writes what the one of its name in `anaphora.ops` computes. More are in
# `further_operations`.

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


OPERATIONS: dict[str, Callable[..., Any]] = {
    "abs": elementwise("Abs"),
    "add": elementwise("Add"),
    "additive_scores": _additive_scores,
    "astype": _astype,
    "broadcast_to": _broadcast_to,
    "concatenate": _concatenate,
    "divide": _divide,
    "embedding": _embedding,
    "exp": of_floats("Exp"),
    "getitem": _getitem,
    "layer_norm": _layer_norm,
    "linear": linear,
    "log": of_floats("Log"),
    "log_softmax": _softmax("LogSoftmax"),
    "masked_softmax": _masked_softmax,
    "matmul": _matmul,
    "max": reduced("ReduceMax"),
    "maximum": elementwise("Max"),
    "mean": reduced("ReduceMean"),
    "minimum": elementwise("Min"),
    "multiply": elementwise("Mul"),
    "negative": elementwise("Neg"),
    "power": _power,
    "relu": of_floats("Relu"),
    "reshape": _reshape,
    "sigmoid": of_floats("Sigmoid"),
    "sign": elementwise("Sign"),
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
"""The operations that can be exported, by name."""

COMPOSED: dict[str, Callable[..., Any]] = {}
"""What writes operations that are made of others, by name; others run, and write their parts."""
