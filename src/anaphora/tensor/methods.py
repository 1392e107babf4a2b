"""The operators and methods of Tensors: each is the operation of its name in `anaphora.ops`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from anaphora import foreign_names

if TYPE_CHECKING:
    from anaphora.tensor.tensor import Tensor

Operand: TypeAlias = "Tensor | ArrayLike"
Axes: TypeAlias = "int | tuple[int, ...] | None"
Booleans: TypeAlias = NDArray[np.bool_]
Key = TypeVar("Key", bound=Hashable)


class TopK(NamedTuple):
    """The elements that `anaphora.ops.topk` found.

    Attributes:
        values: The elements.
        indices: Their places along the axis.

    >>> from anaphora import Tensor
    >>> Tensor([2.0, 3.0]).topk(1).indices
    Tensor([1], dtype=int64)
    """

    values: Tensor
    indices: Tensor


class Registry(dict[Key, Callable[..., Any]]):
    """Operations that `anaphora.ops` registers as it is imported: when one is first asked for.

    A program that imports Tensors alone has their methods too. The import is by name, because
    `anaphora.ops` is made of what is here.

    >>> "softmax" in OPERATIONS
    True
    """

    def __missing__(self, key: Key) -> Callable[..., Any]:
        if key not in self:
            raise KeyError(key)
        return self[key]

    def __contains__(self, key: object) -> bool:
        if not super().__contains__(key):
            importlib.import_module("anaphora.ops")
        return super().__contains__(key)


OPERATIONS: Registry[str] = Registry()
"""Every operation by name; the methods of Tensors call them."""


class Methods:
    """The operators and methods of `Tensor` that are operations."""

    __slots__ = ()

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

    def __floordiv__(self, other: Operand) -> Tensor:
        return _call("floor_divide", self, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return _call("floor_divide", other, self)

    def __mod__(self, other: Operand) -> Tensor:
        return _call("remainder", self, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return _call("remainder", other, self)

    def __pow__(self, exponent: float) -> Tensor:
        return _call("power", self, exponent)

    def __rpow__(self, base: Operand) -> Tensor:
        return _call("power", base, self)  # which says what to write

    def __neg__(self) -> Tensor:
        return _call("negative", self)

    def __abs__(self) -> Tensor:
        return _call("abs", self)

    def __getitem__(self, index: Any) -> Tensor:
        return _call("getitem", self, index)

    def __iter__(self) -> Iterator[Tensor]:
        if cast("Tensor", self).ndim == 0:
            raise TypeError("a Tensor of a single number has nothing to iterate over")
        return iter(OPERATIONS["unstack"](self))

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Convert to another floating-point dtype; gradients are converted back."""
        return _call("astype", self, dtype)

    @foreign_names.arguments_checked
    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The sum over all elements, or along axes."""
        return _call("sum", self, axis, keepdims)

    @foreign_names.arguments_checked
    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The mean over all elements, or along axes."""
        return _call("mean", self, axis, keepdims)

    @foreign_names.arguments_checked
    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The maximum of all elements, or along axes; equal maxima share the gradient."""
        return _call("max", self, axis, keepdims)

    @foreign_names.arguments_checked
    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The minimum of all elements, or along axes; equal minima share the gradient."""
        return _call("min", self, axis, keepdims)

    @foreign_names.arguments_checked
    def prod(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The product of all elements, or along axes."""
        return _call("prod", self, axis, keepdims)

    @foreign_names.arguments_checked
    def var(self, axis: Axes = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
        """The variance; the sum of squares is divided by the number of elements minus `ddof`."""
        return cast("Tensor", OPERATIONS["var"](self, axis, keepdims, ddof=ddof))

    @foreign_names.arguments_checked
    def std(self, axis: Axes = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
        """The standard deviation, the root of `var`."""
        return cast("Tensor", OPERATIONS["std"](self, axis, keepdims, ddof=ddof))

    @foreign_names.arguments_checked
    def norm(self, ord: float = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The norm of all elements, or along axes: Euclidean, or of another order."""
        return _call("norm", self, ord, axis, keepdims)

    @foreign_names.arguments_checked
    def logsumexp(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """``log(sum(exp(x)))`` over all elements, or along axes, without overflow."""
        return _call("logsumexp", self, axis, keepdims)

    @foreign_names.arguments_checked
    def cumsum(self, axis: int | None = None) -> Tensor:
        """The sums up to each element, along an axis or of the flattened array."""
        return _call("cumsum", self, axis)

    @foreign_names.arguments_checked
    def any(self, axis: Axes = None, keepdims: bool = False) -> Booleans:
        """Whether an element is not 0: an array of booleans, as a comparison."""
        return cast("Booleans", OPERATIONS["any"](self, axis, keepdims))

    @foreign_names.arguments_checked
    def all(self, axis: Axes = None, keepdims: bool = False) -> Booleans:
        """Whether no element is 0: an array of booleans, as a comparison."""
        return cast("Booleans", OPERATIONS["all"](self, axis, keepdims))

    # The largest, and elements in order

    @foreign_names.arguments_checked
    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The place of the first maximum along an axis, or in the flattened array."""
        return _call("argmax", self, axis, keepdims)

    @foreign_names.arguments_checked
    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The place of the first minimum along an axis, or in the flattened array."""
        return _call("argmin", self, axis, keepdims)

    @foreign_names.arguments_checked
    def sort(self, axis: int | None = -1, descending: bool = False) -> Tensor:
        """The elements in order, along an axis or of the flattened array, as a new Tensor."""
        return _call("sort", self, axis, descending)

    @foreign_names.arguments_checked
    def argsort(self, axis: int | None = -1, descending: bool = False) -> Tensor:
        """The places of the elements in order."""
        return _call("argsort", self, axis, descending)

    @foreign_names.arguments_checked
    def topk(self, k: int, axis: int = -1, largest: bool = True) -> TopK:
        """The k largest (or smallest) along an axis: their ``values`` and ``indices``."""
        return cast("TopK", OPERATIONS["topk"](self, k, axis, largest))

    @foreign_names.arguments_checked
    def take_along_axis(self, indices: Operand, axis: int | None = -1) -> Tensor:
        """Elements of each slice along an axis, by indices of its own: PyTorch's ``gather``."""
        return _call("take_along_axis", self, indices, axis)

    # Elementwise

    @foreign_names.arguments_checked
    def clip(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """Numbers below a minimum become it, numbers above a maximum become that."""
        return _call("clip", self, min, max)

    @foreign_names.arguments_checked
    def masked_fill(self, mask: Operand, value: Operand) -> Tensor:
        """A value where a mask of booleans is True."""
        return _call("masked_fill", self, mask, value)

    def abs(self) -> Tensor:
        """The absolute value."""
        return _call("abs", self)

    def exp(self) -> Tensor:
        """The exponential function."""
        return _call("exp", self)

    def log(self) -> Tensor:
        """The natural logarithm."""
        return _call("log", self)

    def sqrt(self) -> Tensor:
        """The square root."""
        return _call("sqrt", self)

    def sin(self) -> Tensor:
        """The sine of an angle in radians."""
        return _call("sin", self)

    def cos(self) -> Tensor:
        """The cosine of an angle in radians."""
        return _call("cos", self)

    def floor(self) -> Tensor:
        """The largest integer that is not larger."""
        return _call("floor", self)

    def ceil(self) -> Tensor:
        """The smallest integer that is not smaller."""
        return _call("ceil", self)

    def round(self, decimals: int = 0) -> Tensor:
        """The nearest number with so many decimals."""
        return _call("round", self, decimals)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return _call("tanh", self)

    def sigmoid(self) -> Tensor:
        """The logistic function."""
        return _call("sigmoid", self)

    def relu(self) -> Tensor:
        """The rectifier ``max(x, 0)``."""
        return _call("relu", self)

    @foreign_names.arguments_checked
    def softmax(self, axis: int = -1) -> Tensor:
        """``exp(x) / sum(exp(x))`` along an axis."""
        return _call("softmax", self, axis)

    @foreign_names.arguments_checked
    def log_softmax(self, axis: int = -1) -> Tensor:
        """The logarithm of `softmax`."""
        return _call("log_softmax", self, axis)

    # Shapes

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

    @foreign_names.arguments_checked
    def squeeze(self, axis: Axes = None) -> Tensor:
        """Remove axes of size 1: all, or those that are named."""
        return _call("squeeze", self, axis)

    @foreign_names.arguments_checked
    def expand_dims(self, axis: int | tuple[int, ...]) -> Tensor:
        """Insert axes of size 1: PyTorch's ``unsqueeze``."""
        return _call("expand_dims", self, axis)

    @foreign_names.arguments_checked
    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor:
        """All axes as one, or those from one axis to another."""
        return _call("flatten", self, start_axis, end_axis)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Exchange two axes."""
        return _call("swapaxes", self, axis1, axis2)

    def broadcast_to(self, shape: tuple[int, ...]) -> Tensor:
        """Broadcast axes of size 1, and new leading axes, to a shape."""
        return _call("broadcast_to", self, shape)

    @foreign_names.arguments_checked
    def repeat(self, repeats: Any, *more: Any, axis: int | None = None) -> Tensor:
        """Repeat each element along an axis, which is given by name.

        Raises:
            TypeError: there is no axis: NumPy and PyTorch mean different things.
        """
        if more or axis is None:
            raise TypeError(
                "repeat: as in NumPy, it repeats elements: write x.repeat(2, axis=0), or "
                "x.flatten() before it; PyTorch's x.repeat(2, 3) is x.tile((2, 3))"
            )
        return _call("repeat", self, repeats, axis)

    def tile(self, reps: int | Sequence[int]) -> Tensor:
        """Repeat the array along each axis: PyTorch's ``repeat``."""
        return _call("tile", self, reps)

    @foreign_names.arguments_checked
    def flip(self, axis: Axes = None) -> Tensor:
        """Reverse the elements along axes; by default along all."""
        return _call("flip", self, axis)

    @foreign_names.arguments_checked
    def roll(self, shift: int | tuple[int, ...], axis: Axes = None) -> Tensor:
        """Move elements along axes, or in the flattened array; what leaves enters in front."""
        return _call("roll", self, shift, axis)


def _call(name: str, *arguments: Any) -> Tensor:
    return cast("Tensor", OPERATIONS[name](*arguments))
