"""Activation functions as modules, for `Sequential`: each calls the operation of `anaphora.ops`."""

from __future__ import annotations

from typing import Any

from anaphora import ops
from anaphora.nn.module import Module
from anaphora.tensor import Tensor


class Identity(Module):
    """Returns its input.

    >>> Identity()([1.0])
    [1.0]
    """

    def forward(self, x: Any) -> Any:
        """Shapes: x [...]; returns x."""
        return x


class Flatten(Module):
    """Makes one axis of several, by default of all but the first.

    Args:
        start: The first of them.
        end: The last of them.

    >>> Flatten()(Tensor([[[1.0, 2.0], [3.0, 4.0]]])).shape
    (1, 4)
    """

    def __init__(self, start: int = 1, end: int = -1) -> None:
        self.start = start
        self.end = end

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        start, end = self.start % x.ndim, self.end % x.ndim + 1
        result: Tensor = x.reshape(*x.shape[:start], -1, *x.shape[end:])
        return result


class ReLU(Module):
    """The rectifier ``max(x, 0)``: `ops.relu`.

    >>> ReLU()([-1.0, 2.0]).data
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.relu(x)
        return result


class Tanh(Module):
    """The hyperbolic tangent: `ops.tanh`.

    >>> Tanh()([0.0, 100.0]).data
    array([0., 1.], dtype=float32)
    """

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.tanh(x)
        return result


class Sigmoid(Module):
    """The logistic function ``1 / (1 + exp(-x))``: `ops.sigmoid`.

    >>> Sigmoid()([0.0]).data
    array([0.5], dtype=float32)
    """

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.sigmoid(x)
        return result


class Softplus(Module):
    """``log(1 + exp(x))``: `ops.softplus`.

    >>> Softplus()([-200.0, 200.0]).data
    array([  0., 200.], dtype=float32)
    """

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.softplus(x)
        return result


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along an axis: `ops.softmax`.

    Args:
        axis: The axis of the classes.

    >>> Softmax(axis=0)([[0.0], [0.0]]).data.ravel()
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.softmax(x, self.axis)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"axis={self.axis!r}"


class LogSoftmax(Module):
    """The logarithm of `Softmax`, computed without overflow: `ops.log_softmax`.

    Args:
        axis: The axis of the classes.

    >>> LogSoftmax()([0.0, 1000.0]).data
    array([-1000.,     0.], dtype=float32)
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.log_softmax(x, self.axis)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"axis={self.axis!r}"
