"""Tensor and the tape: recording operations, running them backwards, no_grad, detach, hooks."""

from __future__ import annotations

import contextlib
import functools
import heapq
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from anaphora import engine

Array: TypeAlias = NDArray[Any]
Operand: TypeAlias = "Tensor | ArrayLike"
Pullback: TypeAlias = Callable[..., Any]
T = TypeVar("T")


# The state of this thread -------------------------------------------------------------------------


class Hook(Protocol):
    """Watches operations go by; no layer knows of it. See `hook`."""

    def enter(self, phase: str, operation: str, inputs: tuple[Any, ...]) -> None:
        """Before an operation: its name and what it is given; phase "forward" or "backward"."""

    def leave(self, phase: str, operation: str, outputs: tuple[Any, ...]) -> None:
        """After an operation, unless it failed: its name and what it gave."""


class _ThreadState(threading.local):
    recording = True
    hooks: tuple[Hook, ...] = ()


_state = _ThreadState()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Within it this thread records nothing. Also a decorator.

    >>> x = Tensor([1.0], requires_grad=True)
    >>> with no_grad():
    ...     (x * 2).requires_grad
    False
    """
    before = _state.recording
    _state.recording = False
    try:
        yield
    finally:
        _state.recording = before


@contextlib.contextmanager
def hook(watcher: Hook) -> Iterator[None]:
    """Call ``watcher.enter`` and ``watcher.leave`` around every operation, forward and backward.

    Hooks belong to the thread that sets them. What they are given is not theirs to change.
    """
    before = _state.hooks
    _state.hooks = (*before, watcher)
    try:
        yield
    finally:
        _state.hooks = before


def _enter(phase: str, operation: str, inputs: tuple[Any, ...]) -> None:
    for watcher in _state.hooks:
        watcher.enter(phase, operation, inputs)


def _leave(phase: str, operation: str, outputs: tuple[Any, ...]) -> None:
    for watcher in reversed(_state.hooks):
        watcher.leave(phase, operation, outputs)


# Gradients of rows --------------------------------------------------------------------------------


class RowGradient:
    """The gradient of a table of which only some rows were read: indices and values.

    Rows read several times are summed, in the order in which they were read.

    Attributes:
        indices: [N] the rows, ascending, each once.
        values: [N, ...] their gradients.
        shape: The shape of the table.
    """

    __slots__ = ("indices", "shape", "values")

    def __init__(self, indices: Array, values: Array, shape: tuple[int, ...]) -> None:
        rows = np.asarray(values).reshape(-1, *shape[1:])
        self.indices, self.values = engine.sum_rows(np.asarray(indices).reshape(-1), rows)
        self.shape = shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.values.dtype

    def dense(self) -> Array:
        """The whole table, zero in the rows that were not read."""
        table = np.zeros(self.shape, self.dtype)
        table[self.indices] = self.values
        return table

    def __add__(self, other: RowGradient | Array) -> RowGradient | Array:
        if isinstance(other, RowGradient):
            return RowGradient(
                np.concatenate([self.indices, other.indices]),
                np.concatenate([self.values, other.values]),
                self.shape,
            )
        total = other.copy()
        total[self.indices] += self.values
        return total

    __radd__ = __add__
    __array_ufunc__ = None  # an array on the left leaves the addition to us

    def __repr__(self) -> str:
        return f"RowGradient({len(self.indices)} of {self.shape[0]} rows, {self.dtype})"


Gradient: TypeAlias = "Array | RowGradient"


# The tape -----------------------------------------------------------------------------------------


class _Edge(NamedTuple):
    """Where an input of an operation came from, and so where its gradient goes."""

    target: _Node | Tensor
    output: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Version:
    """Counts the changes in place of one array; its views share it."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class _Node:
    """One recorded operation."""

    __slots__ = ("edges", "operation", "order", "output_count", "pullback", "single", "versions")

    counter = itertools.count()

    def __init__(
        self,
        operation: str,
        edges: tuple[_Edge | None, ...],
        pullback: Pullback | tuple[Pullback, ...],
        output_count: int | None,
        versions: tuple[tuple[Tensor, _Version, int], ...],
    ) -> None:
        self.operation = operation
        self.edges = edges
        self.pullback: Pullback | tuple[Pullback, ...] | None = pullback
        self.single = output_count is None  # the value is not a tuple
        self.output_count = 1 if output_count is None else output_count
        self.versions = versions
        self.order = -next(_Node.counter)  # the newest first

    def __lt__(self, other: _Node) -> bool:
        return self.order < other.order

    def gradients(self, outputs: list[Gradient | None]) -> Iterator[tuple[_Edge, Gradient]]:
        """Pull the gradients of the outputs back to the inputs that need one."""
        pullback = self.pullback
        if pullback is None:
            raise RuntimeError(
                f"{self.operation}: backward ran through this graph before and freed it; run the "
                "forward again, or call the first backward with retain_graph=True"
            )
        for tensor, version, number in self.versions:
            if version.number != number:
                raise RuntimeError(
                    f"{self.operation}: an input of shape {tensor.shape} was changed in place "
                    "after it was used here, so the gradient would be wrong; change it after "
                    "backward, or run the forward again"
                )
        argument = outputs[0] if self.single else tuple(outputs)
        if isinstance(pullback, tuple):
            pairs = (
                (edge, pull(argument))
                for edge, pull in zip(self.edges, pullback, strict=True)
                if edge is not None
            )
        else:
            pulled = pullback(argument)
            pulled = pulled if isinstance(pulled, tuple) else (pulled,)
            pairs = ((e, d) for e, d in zip(self.edges, pulled, strict=True) if e is not None)
        for edge, gradient in pairs:
            if gradient is not None:
                yield edge, self._checked(edge, gradient)

    def _checked(self, edge: _Edge, gradient: Any) -> Gradient:
        if isinstance(gradient, np.generic):
            gradient = np.asarray(gradient, edge.dtype)  # NumPy 1 makes float64 of single numbers
        checked: Gradient = gradient
        if not isinstance(gradient, RowGradient):
            checked = _unbroadcast(np.asarray(gradient), edge.shape)
        if checked.shape != edge.shape or checked.dtype != edge.dtype:
            raise RuntimeError(
                f"{self.operation}: its pullback gave a gradient {checked.dtype}{checked.shape} "
                f"for an input {edge.dtype}{edge.shape}; mend the pullback"
            )
        return checked


def _unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an input of this shape was broadcast."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    stretches = zip(shape, gradient.shape[max(extra, 0) :], strict=False)
    if extra < 0 or any(before not in (1, after) for before, after in stretches):
        return gradient  # not a broadcast: the caller reports it
    stretched = [axis for axis, size in enumerate(shape, start=extra) if size == 1]
    return np.asarray(gradient.sum(axis=(*range(extra), *stretched))).reshape(shape)


class _Accumulator:
    """Sums the gradients that arrive at one place; adds in place only into arrays of its own."""

    __slots__ = ("owned", "total")

    def __init__(self) -> None:
        self.total: Gradient | None = None
        self.owned = False

    def add(self, gradient: Gradient) -> None:
        if self.total is None:
            self.total = gradient
        elif self.owned and isinstance(self.total, np.ndarray) and isinstance(gradient, np.ndarray):
            self.total += gradient
        else:
            self.total = _sum(self.total, gradient)
            self.owned = True


def _sum(a: Gradient, b: Gradient) -> Gradient:
    total = a + b
    return total if isinstance(total, RowGradient) else np.asarray(total)  # not a NumPy scalar


def _run_backward(root: _Node, output: int, seed: Array, retain_graph: bool) -> None:
    """Walk the tape from `root`, the newest operation first, without recursion."""
    pending: dict[_Node, list[_Accumulator]] = {}
    leaves: dict[Tensor, _Accumulator] = {}
    queue: list[_Node] = []

    def send(target: _Node | Tensor, output: int, gradient: Gradient) -> None:
        if isinstance(target, Tensor):
            leaves.setdefault(target, _Accumulator()).add(gradient)
            return
        if target not in pending:
            pending[target] = [_Accumulator() for _ in range(target.output_count)]
            heapq.heappush(queue, target)
        if isinstance(gradient, RowGradient):
            gradient = gradient.dense()  # only leaves keep rows; pullbacks get arrays
        pending[target][output].add(gradient)

    send(root, output, seed)
    while queue:
        node = heapq.heappop(queue)
        totals = [accumulator.total for accumulator in pending.pop(node)]
        _enter("backward", node.operation, tuple(totals))
        pairs = list(node.gradients(totals))
        _leave("backward", node.operation, tuple(gradient for _, gradient in pairs))
        for edge, gradient in pairs:
            send(edge.target, edge.output, gradient)
        if not retain_graph:
            node.pullback, node.edges, node.versions = None, (), ()
    taken = {id(seed)}
    for leaf, accumulator in leaves.items():
        total = cast(Gradient, accumulator.total)
        if isinstance(total, np.ndarray) and (total.base is not None or id(total) in taken):
            total = total.copy()  # another leaf may have it too, and a later clip works in place
        taken.add(id(total))
        leaf._add_gradient(total)


# Operations ---------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""Every differentiable operation by its name: what the methods of Tensor call."""


def differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an operation on Tensors of a function that returns its value and its pullback.

    The function gets NumPy arrays. Its parameters before ``/`` (and ``*arrays``) are what it
    differentiates; the others are options and are passed as they are. It returns ``(value,
    pullback)``, where a value may be a tuple, for several outputs. The pullback is

    - for one input, a function from the gradient of the value to the gradient of the input;
    - for several, a tuple of such functions, of which only those are called whose input needs a
      gradient; or one function that returns a tuple, with None for an input without gradient.

    The pullback of a tuple gets a tuple, with None for an output that nothing depended on.
    It returns new arrays, or the gradient that it was given, or views of these; never a saved
    array. Broadcasting is undone here, and shape and dtype of each gradient are checked here.
    Messages and hooks call the operation by the function's name, without a leading underscore.

    >>> @differentiable
    ... def cube(x, /):
    ...     return x**3, lambda dy: 3 * x**2 * dy
    >>> x = Tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> float(x.grad)
    12.0
    """
    name = function.__name__.removeprefix("_")
    parameters = inspect.signature(function).parameters.values()
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    differentiated = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    count = len(differentiated)
    required = sum(p.default is p.empty for p in differentiated)

    @functools.wraps(function)
    def operation(*arguments: Any, **options: Any) -> Any:
        inputs, rest = (arguments, ()) if variadic else (arguments[:count], arguments[count:])
        if required <= len(inputs) < count:
            inputs += (None,) * (count - len(inputs))
        _enter("forward", name, inputs)
        result = run(inputs, rest, options)
        _leave("forward", name, result if isinstance(result, tuple) else (result,))
        return result

    def run(inputs: tuple[Any, ...], rest: tuple[Any, ...], options: dict[str, Any]) -> Any:
        arrays = _unwrap(name, inputs)
        rest = tuple(o._data if isinstance(o, Tensor) else o for o in rest)
        options = {k: o._data if isinstance(o, Tensor) else o for k, o in options.items()}
        value, pullback = function(*arrays, *rest, **options)
        if isinstance(value, np.generic) and arrays[0].dtype.kind == "f":
            value = np.asarray(value, arrays[0].dtype)  # NumPy 1 makes float64 of single numbers
        node = None
        if _state.recording:
            edges = tuple(
                _Edge(i._node or i, i._output, i._data.shape, i._data.dtype)
                if isinstance(i, Tensor) and i.requires_grad
                else None
                for i in inputs
            )
            if any(edges):
                versions = tuple(
                    (i, i._version, i._version.number)
                    for i in inputs
                    if isinstance(i, Tensor) and i._version is not None
                )
                outputs = len(value) if isinstance(value, tuple) else None
                node = _Node(name, edges, pullback, outputs, versions)
        if isinstance(value, tuple):
            return tuple(Tensor._result(v, node, k, inputs) for k, v in enumerate(value))
        return Tensor._result(value, node, 0, inputs)

    OPERATIONS[name] = operation
    return operation


def _unwrap(name: str, inputs: tuple[Any, ...]) -> list[Any]:
    """The arrays of an operation's inputs, all of one dtype; numbers become arrays of it."""
    dtype: np.dtype[Any] | None = None
    for value in inputs:
        if isinstance(value, (Tensor, np.ndarray)):
            if dtype is None:
                dtype = value.dtype
            elif value.dtype != dtype:
                raise TypeError(
                    f"{name}: {dtype} and {value.dtype} do not mix; convert one of them with "
                    ".astype()"
                )
    number_dtype = dtype if dtype is not None and dtype.kind == "f" else None
    arrays: list[Any] = []
    for value in inputs:
        if isinstance(value, Tensor):
            arrays.append(value._data)
        elif value is None or isinstance(value, np.ndarray):
            arrays.append(value)
        else:
            arrays.append(_as_array(value, number_dtype))
    return arrays


def _as_array(data: Any, dtype: DTypeLike | None) -> Array:
    """A new array; where no dtype is asked for, Python's floats become float32."""
    array = np.array(data, dtype=dtype)
    plain = dtype is None and not isinstance(data, (np.ndarray, np.generic))
    return array.astype(np.float32) if plain and array.dtype == np.float64 else array


# Tensor -------------------------------------------------------------------------------------------


class Tensor:
    """An array that remembers how it was computed, so that gradients can flow back through it.

    Args:
        data: Anything that NumPy makes an array of; it is copied. Python's floats become float32,
            arrays keep their dtype.
        requires_grad: Whether `backward` leaves a gradient here.
        dtype: Convert to this dtype.

    Attributes:
        grad: The gradient that `backward` left, an array or a `RowGradient`; None before.
        requires_grad: Whether this Tensor takes part in differentiation.

    Arrays of Tensors are read-only, so that what the tape has saved stays what it was; `writing`
    opens one. A plain array that an operation is given is the caller's to keep until backward.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_data", "_node", "_output", "_version", "grad", "requires_grad")

    __array_ufunc__ = None  # an array on the left of an operator leaves it to us

    def __init__(
        self, data: Any, *, requires_grad: bool = False, dtype: DTypeLike | None = None
    ) -> None:
        if isinstance(data, Tensor):
            data = data._data
        array = _as_array(data, dtype)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"Tensor: cannot hold {array.dtype}; give numbers of one dtype")
        if requires_grad and array.dtype.kind != "f":
            raise TypeError(
                f"Tensor: only floating-point Tensors have gradients, not {array.dtype}"
            )
        array.flags.writeable = False
        self._data: Array = array
        self.requires_grad = requires_grad
        self.grad: Gradient | None = None
        self._node: _Node | None = None
        self._output = 0
        self._version: _Version | None = _Version()

    @classmethod
    def _result(
        cls, array: Any, node: _Node | None, output: int, inputs: tuple[Any, ...] = ()
    ) -> Self:
        """Wrap what an operation computed from its inputs, without a copy.

        A view of an input has its version; an array of its own cannot be changed and has none.
        """
        tensor = cls.__new__(cls)
        array = np.asarray(array)
        array.flags.writeable = False
        tensor._data = array
        tensor.requires_grad = node is not None
        tensor.grad = None
        tensor._node = node
        tensor._output = output
        tensor._version = None
        if array.base is not None:
            for i in inputs:
                if isinstance(i, Tensor) and np.may_share_memory(array, i._data):
                    tensor._version = i._version
        return tensor

    @property
    def data(self) -> Array:
        """The array, read-only."""
        return self._data

    @contextlib.contextmanager
    def writing(self) -> Iterator[Array]:
        """Open the array for a change in place; a graph that used it before can tell.

        Raises:
            RuntimeError: the Tensor is the result of an operation.

        >>> x = Tensor([1.0, 2.0])
        >>> with x.writing() as array:
        ...     array[0] = 5
        >>> x
        Tensor([5., 2.], dtype=float32)
        """
        if self._version is None or not self._data.flags.owndata:
            raise RuntimeError(
                "writing: this Tensor is the result of an operation; only Tensors that you made "
                "can be changed in place"
            )
        self._data.flags.writeable = True
        try:
            yield self._data
        finally:
            self._data.flags.writeable = False
            self._version.number += 1

    # Backwards

    def backward(self, gradient: ArrayLike | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to ``grad`` of every Tensor that it was computed from.

        Args:
            gradient: The gradient of what is wanted by this Tensor, of its shape; 1 if it is a
                single number.
            retain_graph: Keep the graph for another backward; it is freed otherwise.

        Raises:
            RuntimeError: nothing was recorded, the graph was freed, a Tensor was changed in place,
                or the Tensor is not a single number and no gradient was given.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward: this Tensor does not depend on anything with requires_grad=True (or was "
                "computed under no_grad, or detached)"
            )
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward: a Tensor of shape {self.shape} is not a single number; sum() it, "
                    "or give backward the gradient of it"
                )
            gradient = np.ones(self.shape, self.dtype)
        seed = np.array(gradient, dtype=self.dtype)
        if seed.shape != self.shape:
            raise ValueError(
                f"backward: a gradient of shape {seed.shape} for a Tensor of shape {self.shape}"
            )
        if self._node is None:
            self._add_gradient(seed)
        else:
            _run_backward(self._node, self._output, seed, retain_graph)

    def _add_gradient(self, gradient: Gradient) -> None:
        if self.grad is None:
            self.grad = gradient
        elif isinstance(self.grad, np.ndarray) and isinstance(gradient, np.ndarray):
            self.grad += gradient
        else:
            self.grad = _sum(self.grad, gradient)

    def detach(self) -> Tensor:
        """The same array, without its history: gradients stop here."""
        return Tensor._result(self._data.view(), None, 0, (self,))

    # Looking

    @property
    def shape(self) -> tuple[int, ...]:
        """The size along each axis."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the array."""
        return self._data.dtype

    def item(self) -> float:
        """The only element, as a Python number."""
        return cast(float, self._data.item())

    def numpy(self) -> Array:
        """The array, read-only; the same as ``data``."""
        return self._data

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self._data, dtype=dtype) if copy else np.asarray(self._data, dtype=dtype)

    def __len__(self) -> int:
        return len(self._data)

    def __float__(self) -> float:
        return float(self._data)

    def __int__(self) -> int:
        return int(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __repr__(self) -> str:
        text = repr(self._data).replace("array(", "Tensor(", 1).replace("\n", "\n ")
        return f"{text[:-1]}, requires_grad=True)" if self.requires_grad else text

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "Tensors are not changed by assignment, the tape may have saved them: use where(), or "
            "'with tensor.writing() as array' for one that you made"
        )

    __hash__ = object.__hash__

    # Comparisons give arrays of booleans, which have no gradient.

    def __eq__(self, other: object) -> Any:
        return self._data == _plain(other)

    def __ne__(self, other: object) -> Any:
        return self._data != _plain(other)

    def __lt__(self, other: Operand) -> Any:
        return self._data < _plain(other)

    def __le__(self, other: Operand) -> Any:
        return self._data <= _plain(other)

    def __gt__(self, other: Operand) -> Any:
        return self._data > _plain(other)

    def __ge__(self, other: Operand) -> Any:
        return self._data >= _plain(other)

    # Operators and methods: each is the operation of its name in anaphora.ops.

    def __equation__(self, name: str, *operands: Any) -> Tensor:
        return _call(name, *operands)

    def __add__(self, other: Operand) -> Tensor:
        return _call("add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return _call("add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return _call("subtract", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return _call("subtract", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return _call("multiply", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return _call("multiply", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return _call("divide", self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return _call("divide", other, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return _call("matmul", self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return _call("matmul", other, self)

    def __pow__(self, exponent: float) -> Tensor:
        return _call("power", self, exponent)

    def __neg__(self) -> Tensor:
        return _call("negative", self)

    def __abs__(self) -> Tensor:
        return _call("abs", self)

    def __getitem__(self, index: Any) -> Tensor:
        return _call("getitem", self, index)

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("a Tensor of a single number has nothing to iterate over")
        return iter(OPERATIONS["unstack"](self))

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Convert to another floating-point dtype; gradients are converted back."""
        return _call("astype", self, dtype)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The sum over all elements, or along axes."""
        return _call("sum", self, axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The mean over all elements, or along axes."""
        return _call("mean", self, axis, keepdims)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The largest element, or along axes; equal ones share the gradient."""
        return _call("max", self, axis, keepdims)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        return _call("reshape", self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """The axes in another order; without arguments, reversed."""
        given = len(axes) == 1 and not isinstance(axes[0], int)
        return _call("transpose", self, axes[0] if given else axes or None)

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's name
        """The axes reversed."""
        return self.transpose()


def _call(name: str, *arguments: Any) -> Tensor:
    return cast(Tensor, OPERATIONS[name](*arguments))


def _plain(value: Any) -> Any:
    return value._data if isinstance(value, Tensor) else value


class Parameter(Tensor):
    """A Tensor that a module learns: ``requires_grad`` is True, and `nn.Module` finds it."""

    __slots__ = ()

    def __init__(self, data: Any, *, dtype: DTypeLike | None = None) -> None:
        super().__init__(data, requires_grad=True, dtype=dtype)


@overload
def detach(value: Tensor) -> Tensor: ...
@overload
def detach(value: T) -> T: ...
def detach(value: Any) -> Any:
    """Cut Tensors off from their history; also those in tuples and lists, such as a state.

    Between two windows of truncated backpropagation through time it is what stops the gradient.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (tuple, list)):
        return type(value)(detach(v) for v in value)
    return value
