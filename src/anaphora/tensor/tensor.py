"""Tensor: an array that remembers how it was computed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import foreign_names, notebook
from anaphora.tensor.hooks import recording
from anaphora.tensor.methods import OPERATIONS, Booleans, Methods, Operand, Registry
from anaphora.tensor.rows import Array, Gradient
from anaphora.tensor.tape import Node, Version, add_gradients, run_backward

T = TypeVar("T")

NUMPY_FUNCTIONS: Registry[Any] = Registry()
"""The operation for each of NumPy's functions on Tensors; filled by `anaphora.ops`."""


def as_array(data: Any, dtype: DTypeLike | None, what: str = "Tensor") -> Array:
    """A new array; without a dtype, Python's floats become float32.

    Args:
        data: An array, a list or a number.
        dtype: The dtype to convert to.
        what: The name of the data in messages.

    Raises:
        TypeError: the data are not real numbers, or Tensors whose gradients would be lost.
        ValueError: a number is too large for the dtype, or lists differ in length.
    """
    if _holds_gradients(data):
        raise TypeError(f"{what}: a list of Tensors that have gradients; ops.stack joins them")
    try:
        array = np.array(data)
    except ValueError as error:
        raise ValueError(f"{what}: no array can be made of it: {error}") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what}: cannot hold {array.dtype}; give numbers of one dtype")
    if dtype is None:
        plain = not isinstance(data, (np.ndarray, np.generic))
        own = array.dtype.newbyteorder("=")  # native byte order
        dtype = np.float32 if plain and own == np.float64 else own
    if array.dtype == dtype:
        return array
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype)
    except FloatingPointError:
        largest = np.abs(array[np.isfinite(array)]).max()
        raise ValueError(
            f"{what}: {largest:g} is too large for {np.dtype(dtype)}; scale the numbers down"
        ) from None


def _holds_gradients(data: Any) -> bool:
    """Whether nested lists or object arrays contain a Tensor whose gradient would be lost."""
    if isinstance(data, (list, tuple)):
        return any(
            isinstance(part, (list, tuple, Tensor, np.ndarray)) and _holds_gradients(part)
            for part in data
        )
    if isinstance(data, np.ndarray):
        return data.dtype == object and any(map(_holds_gradients, data.flat))
    return isinstance(data, Tensor) and data.requires_grad


def as_tensor(data: Any, dtype: DTypeLike | None, what: str) -> Tensor:
    """A Tensor of a dtype; arrays and lists are converted to it, a Tensor must have it.

    Raises:
        TypeError: a Tensor has another dtype, or the data are not real numbers.
        ValueError: a number is too large for the dtype, or lists differ in length.

    >>> as_tensor(np.array([1, 2]), np.float32, "Layer: an input")
    Tensor([1., 2.], dtype=float32)
    """
    if not isinstance(data, Tensor):
        return Tensor._result(as_array(data, dtype, what), None, 0)
    if dtype is not None and data.dtype != dtype:
        raise TypeError(
            f"{what} of {data.dtype} for a layer of {np.dtype(dtype)}; convert it with .astype(): "
            "arrays and lists are converted automatically, Tensors are not"
        )
    return data


def as_input(data: Any, dtype: DTypeLike | None, what: str) -> Tensor:
    """As `as_tensor`, for data that are read in this call alone: under no_grad without a copy.

    >>> from anaphora import no_grad
    >>> x = np.zeros((50, 2), np.float32)
    >>> with no_grad():
    ...     np.shares_memory(as_input(x, np.float32, "Layer: an input").data, x), x.flags.writeable
    (True, True)
    """
    if type(data) is np.ndarray and data.dtype == dtype and not recording():
        return Tensor._result(data.view(), None, 0)
    return as_tensor(data, dtype, what)


def as_integers(data: Any, requirement: str) -> Array:
    """A new array of integers.

    Raises:
        TypeError: the data are not integers; the message starts with `requirement`.

    >>> as_integers([3, 1], "Layer: ids are integers")
    array([3, 1])
    """
    array = np.array(data)
    if array.size == 0:
        return array.astype(np.int64)  # NumPy makes an empty list float64
    if array.dtype.kind not in "iu":
        raise TypeError(f"{requirement}, not {array.dtype}; convert them with .astype(int)")
    return array


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


class Tensor(Methods):
    """An array that records how it was computed, for backpropagation.

    Args:
        data: Anything that NumPy converts to an array; it is copied. Python's floats become
            float32, arrays keep their dtype.
        requires_grad: Whether `backward` computes a gradient for it.
        dtype: The dtype to convert to.

    Attributes:
        grad: The gradient that `backward` computed, an array or a `RowGradient`; None before.
        requires_grad: Whether this Tensor takes part in differentiation.

    The arrays of Tensors are read-only, so that values saved on the tape do not change; `writing`
    makes one writable. A plain array passed to an operation must not be changed before backward.
    Copies (`copy`, `pickle`) own their array; results of operations cannot be copied, because their
    history is not: `detach` them first.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_data", "_node", "_output", "_version", "grad", "requires_grad")

    def __init__(
        self, data: Any, *, requires_grad: bool = False, dtype: DTypeLike | None = None
    ) -> None:
        if isinstance(data, Tensor):
            data = data._data
        array = as_array(data, dtype)
        if requires_grad and array.dtype.kind != "f":
            raise TypeError(
                f"Tensor: only floating-point Tensors have gradients, not {array.dtype}"
            )
        self._data: Array = _read_only(array)
        self.requires_grad = requires_grad
        self.grad: Gradient | None = None
        self._node: Node | None = None
        self._output = 0
        self._version: Version | None = Version()

    @classmethod
    def _result(
        cls, array: Any, node: Node | None, output: int, inputs: tuple[Any, ...] = ()
    ) -> Self:
        """Wrap the result of an operation, without a copy.

        A view of an input shares its version; other results cannot be changed and have none.
        """
        tensor = cls.__new__(cls)
        array = _read_only(np.asarray(array))
        tensor._data = array
        tensor.requires_grad = node is not None
        tensor.grad = None
        tensor._node = node
        tensor._output = output
        tensor._version = None
        if isinstance(array.base, np.ndarray):
            for i in inputs:
                version = i._version if isinstance(i, Tensor) else None
                if version is not None and np.may_share_memory(array, i._data):
                    tensor._version = version
        return tensor

    @property
    def data(self) -> Array:
        """The array, read-only."""
        return self._data

    @contextlib.contextmanager
    def writing(self) -> Iterator[Array]:
        """Make the array writable in a `with` block; graphs that already used it detect the change.

        Views taken within the block stay writable afterwards: do not keep them.

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
                "writing: this Tensor is the result of an operation; only Tensors that you created "
                "can be changed in place"
            )
        if self._version.shared:
            self._data = np.array(self._data)  # the other Tensor keeps the old values
            self._version.shared = False
        self._data.flags.writeable = True
        try:
            yield self._data
        finally:
            self._data.flags.writeable = False
            self._version.number += 1

    def convert(self, dtype: DTypeLike) -> None:
        """Convert the numbers to another dtype in place; the gradient is removed.

        Raises:
            RuntimeError: the Tensor is the result of an operation.
            ValueError: a number is too large for the dtype.

        >>> x = Tensor([1.0, 2.0])
        >>> x.convert(np.float64)
        >>> x
        Tensor([1., 2.], dtype=float64)
        """
        if self._node is not None or self._version is None:
            raise RuntimeError("convert: this Tensor is the result of an operation; use .astype()")
        if self._data.dtype == dtype:
            return
        self._data = _read_only(as_array(self._data, dtype, "convert"))
        self._version.number += 1
        self._version, self.grad = Version(), None

    # Copies

    def shared(self) -> Self:
        """A copy-on-write copy: the array is shared until one of the two Tensors is changed.

        Raises:
            RuntimeError: the Tensor is the result of an operation.

        >>> x = Tensor([1.0, 2.0])
        >>> before = x.shared()
        >>> with x.writing() as array:
        ...     array[0] = 5
        >>> before
        Tensor([1., 2.], dtype=float32)
        """
        tensor = type(self).__new__(type(self))
        tensor._restore(*self.__getstate__())
        tensor.grad = None
        if self._version is None or not self._data.flags.owndata:
            tensor._data = _read_only(np.array(self._data))
        else:
            self._version.shared = True
            tensor._version = Version(shared=True)
        return tensor

    def __getstate__(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        if self._node is not None:
            raise RuntimeError(
                "the result of an operation cannot be copied or pickled, because its "
                "history is not: detach() it first"
            )
        attributes, slots = cast(Any, super().__getstate__())
        return attributes, {k: v for k, v in slots.items() if k not in ("_node", "_version")}

    def __setstate__(self, state: tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
        self._restore(*state)
        self._data = _read_only(np.array(self._data))

    def _restore(self, attributes: dict[str, Any] | None, slots: dict[str, Any]) -> None:
        for name, value in ((attributes or {}) | slots).items():
            setattr(self, name, value)
        self._node, self._output, self._version = None, 0, Version()

    # Backward

    @foreign_names.arguments_checked
    def backward(self, gradient: ArrayLike | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradients of this Tensor to ``grad`` of the leaves that it was computed from.

        Args:
            gradient: The gradient of the final result with respect to this Tensor, of its shape;
                1 by default, if it is a single number.
            retain_graph: Keep the graph for another backward; otherwise it is freed.

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
                    "or pass its gradient to backward"
                )
            gradient = np.ones(self.shape, self.dtype)
        seed = np.asarray(gradient, dtype=self.dtype)
        if seed.shape != self.shape:
            raise ValueError(
                f"backward: a gradient of shape {seed.shape} for a Tensor of shape {self.shape}"
            )
        if self._node is None:
            self._add_gradient(seed.copy())
        else:
            run_backward(self._node, self._output, seed, retain_graph)

    def _add_gradient(self, gradient: Gradient) -> None:
        if self.grad is None:
            self.grad = gradient
        elif isinstance(self.grad, np.ndarray) and isinstance(gradient, np.ndarray):
            self.grad += gradient
        else:
            self.grad = add_gradients(self.grad, gradient)

    def detach(self) -> Tensor:
        """The same array, without its history: gradients stop here."""
        return Tensor._result(self._data.view(), None, 0, (self,))

    # Inspection

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

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._data.tolist()

    def numpy(self) -> Array:
        """The array, read-only; the same as ``data``."""
        return self._data

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self._data, dtype=dtype) if copy else np.asarray(self._data, dtype=dtype)

    def __len__(self) -> int:
        return len(self._data)

    def __float__(self) -> float:
        return float(self._number("float"))

    def __int__(self) -> int:
        return int(self._number("int"))

    def __index__(self) -> int:
        if self.size != 1 or self.dtype.kind not in "iu":
            raise TypeError(
                f"a Tensor of shape {self.shape} and {self.dtype} is not an index; give a single "
                "integer, as item() returns it"
            )
        return int(self.item())

    def __format__(self, specification: str) -> str:
        if not specification:
            return str(self)
        return format(self._number(f"format {specification!r}"), specification)

    def __round__(self, digits: int | None = None) -> float:
        return round(self._number("round"), digits)

    def _number(self, purpose: str) -> float:
        if self.size != 1:
            raise TypeError(
                f"{purpose}: a Tensor of shape {self.shape} is not a single number; give an "
                "element of it, its sum() or its mean()"
            )
        return self.item()

    def __bool__(self) -> bool:
        return bool(self._data)

    def __repr__(self) -> str:
        text = repr(self._data).replace("array(", "Tensor(", 1).replace("\n", "\n ")
        if "dtype=" not in text:  # NumPy omits its own default
            text = f"{text[:-1]}, dtype={self.dtype})"
        return f"{text[:-1]}, requires_grad=True)" if self.requires_grad else text

    def _repr_html_(self) -> str:
        """Shape and statistics, and the numbers, colored."""
        kind = ", requires gradient" if self.requires_grad else ""
        summary = f"<b>{type(self).__name__}</b> {notebook.shape(self._data)}, {self.dtype}{kind}"
        if not self.size:
            return f"<div>{summary}</div>"
        head = notebook.table(notebook.STATISTICS, [notebook.statistics(self._data)])
        return notebook.folded(summary, head + notebook.matrix(self._data))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "Tensors are not changed by assignment, since the tape may have saved them: use "
            "where(), or 'with tensor.writing() as array' for one that you created"
        )

    __hash__ = object.__hash__

    # Comparisons and logic give arrays of booleans, which have no gradient.

    def __eq__(self, other: object) -> Booleans:  # type: ignore[override]
        return cast(Booleans, self._data == _plain(other))

    def __ne__(self, other: object) -> Booleans:  # type: ignore[override]
        return cast(Booleans, self._data != _plain(other))

    def __lt__(self, other: Operand) -> Booleans:
        return cast(Booleans, self._data < _plain(other))

    def __le__(self, other: Operand) -> Booleans:
        return cast(Booleans, self._data <= _plain(other))

    def __gt__(self, other: Operand) -> Booleans:
        return cast(Booleans, self._data > _plain(other))

    def __ge__(self, other: Operand) -> Booleans:
        return cast(Booleans, self._data >= _plain(other))

    def __invert__(self) -> Any:
        return ~self._data

    def __and__(self, other: Operand) -> Any:
        return self._data & _plain(other)

    def __or__(self, other: Operand) -> Any:
        return self._data | _plain(other)

    def __xor__(self, other: Operand) -> Any:
        return self._data ^ _plain(other)

    # NumPy's functions: those that are operations here are recorded, others apply to the arrays,
    # unless a gradient would be lost.

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and ufunc in NUMPY_FUNCTIONS and not options:
            return NUMPY_FUNCTIONS[ufunc](*inputs)
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        return _on_arrays(name, getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        if function in NUMPY_FUNCTIONS:
            return NUMPY_FUNCTIONS[function](*inputs, **options)
        return _on_arrays(function.__name__, function, inputs, options)

    if not TYPE_CHECKING:  # type checkers should see the real attributes only

        def __getattr__(self, name: str) -> Any:
            if name in OPERATIONS and foreign_names.advice("Tensor", name) is None:
                raise AttributeError(f"Tensor has no attribute {name!r}: write ops.{name}(x)")
            foreign_names.attribute_missing(self, "Tensor", name)


def _plain(value: Any) -> Any:
    return value._data if isinstance(value, Tensor) else value


_WITHOUT_GRADIENT = {np.zeros_like, np.ones_like, np.empty_like, np.full_like}


def _on_arrays(name: str, function: Callable[..., Any], inputs: Any, options: Any) -> Any:
    """Apply a NumPy function to the arrays of Tensors.

    Raises:
        TypeError: it has an ``out`` argument, or would lose a gradient.
    """
    tensors: list[Tensor] = []

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return value._data
        if type(value) in (list, tuple):
            return type(value)(plain(v) for v in value)
        return {k: plain(v) for k, v in value.items()} if type(value) is dict else value

    if options.get("out") is not None:
        raise TypeError(
            f"numpy.{name}: out= is not differentiable; write array = array + tensor instead of "
            "array += tensor, or pass tensor.data"
        )
    result = function(*plain(tuple(inputs)), **plain(dict(options)))
    lost = recording() and any(t.requires_grad for t in tensors) and _has_floats(result)
    if lost and function not in _WITHOUT_GRADIENT:
        hint = foreign_names.advice("Tensor", name)
        if hint is None or hint.startswith("NumPy's"):
            hint = "see anaphora.ops"
        raise TypeError(
            f"numpy.{name}: its result would have no gradient; {hint}, or pass x.data to use the "
            "values without gradient"
        )
    return result


def _has_floats(result: Any) -> bool:
    if isinstance(result, (tuple, list)):
        return any(map(_has_floats, result))
    return isinstance(result, float) or getattr(getattr(result, "dtype", None), "kind", "") == "f"


class Parameter(Tensor):
    """A trainable Tensor of a module: ``requires_grad`` is True, and `nn.Module` registers it.

    >>> Parameter([1.0])
    Tensor([1.], dtype=float32, requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, *, dtype: DTypeLike | None = None) -> None:
        super().__init__(data, requires_grad=True, dtype=dtype)

    @classmethod
    def without_memory(cls, shape: tuple[int, ...], dtype: DTypeLike) -> Self:
        """A parameter with a shape but no memory, zeros until `assign` sets its array.

        >>> Parameter.without_memory((10**9, 10**6), "float32").size
        1000000000000000
        """
        parameter = cls(np.zeros((), dtype))
        parameter._data = np.broadcast_to(parameter._data, shape)
        return parameter

    def assign(self, array: ArrayLike) -> None:
        """Set a copy of an array of the same shape, in the parameter's dtype.

        >>> parameter = Parameter.without_memory((2,), "float32")
        >>> parameter.assign([1.0, 2.0])
        >>> parameter
        Tensor([1., 2.], dtype=float32, requires_grad=True)
        """
        data = np.array(array, self.dtype, order="C")
        if data.shape != self.shape:
            raise ValueError(f"assign: an array of shape {data.shape} for a shape of {self.shape}")
        data.flags.writeable = False
        self._data = data


class Buffer(Tensor):
    """A Tensor of a module that is saved with it but not trained, such as a running mean.

    Args:
        data: As for `Tensor`.
        persistent: Whether `Module.state_dict` has it.
        dtype: The dtype to convert to.

    >>> steps = Buffer(0)
    >>> with steps.writing() as array:
    ...     array += 1
    >>> steps, steps.requires_grad
    (Tensor(1, dtype=int64), False)
    """

    __slots__ = ("persistent",)

    def __init__(
        self, data: Any, persistent: bool = True, *, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(data, dtype=dtype)
        self.persistent = persistent


@overload
def detach(value: Tensor) -> Tensor: ...
@overload
def detach(value: T) -> T: ...
def detach(value: Any) -> Any:
    """Detach Tensors from their history; also those in tuples and lists, such as a state.

    Between two windows of truncated backpropagation through time it stops the gradient.

    >>> x = Tensor([1.0], requires_grad=True)
    >>> [t.requires_grad for t in detach((x * 2, x * 3))]
    [False, False]
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (tuple, list)):
        return type(value)(detach(v) for v in value)
    return value
