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


OPERATIONS: dict[str, Callable[..., Any]] = {}
"""The operations that can be exported, by name; `operations` has them."""

COMPOSED: dict[str, Callable[..., Any]] = {}
"""What writes operations that are made of others, by name; others run, and write their parts."""
