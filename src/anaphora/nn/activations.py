"""Activation functions as modules, for `Sequential`: each calls the operation of `anaphora.ops`."""

from __future__ import annotations

from anaphora import ops
from anaphora.nn.module import Module
from anaphora.tensor import Operand, Tensor


class _Plain(Module):
    """A function without options."""

    def __init__(self) -> None:
        """Take no arguments."""


class Identity(_Plain):
    """Returns its input.

    >>> Identity()([1.0])
    [1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x [...]; returns x."""
        return x


class Flatten(Module):
    """Makes one axis of several, by default of all but the first.

    Args:
        start_axis: The first of them.
        end_axis: The last of them.

    >>> Flatten()(Tensor([[[1.0, 2.0], [3.0, 4.0]]])).shape
    (1, 4)
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis = start_axis
        self.end_axis = end_axis

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]."""
        result: Tensor = ops.flatten(x, self.start_axis, self.end_axis)
        return result


class ReLU(_Plain):
    """The rectifier ``max(x, 0)``: `ops.relu`.

    >>> ReLU()([-1.0, 2.0]).data
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.relu(x)
        return result


class Tanh(_Plain):
    """The hyperbolic tangent: `ops.tanh`.

    >>> Tanh()([0.0, 100.0]).data
    array([0., 1.], dtype=float32)
    """

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.tanh(x)
        return result


class Sigmoid(_Plain):
    """The logistic function ``1 / (1 + exp(-x))``: `ops.sigmoid`.

    >>> Sigmoid()([0.0]).data
    array([0.5], dtype=float32)
    """

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.sigmoid(x)
        return result


class SiLU(_Plain):
    """``x * sigmoid(x)``: `ops.silu`.

    >>> SiLU()([0.0, 100.0]).data
    array([  0., 100.], dtype=float32)
    """

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.silu(x)
        return result


class Softplus(_Plain):
    """``log(1 + exp(x))``: `ops.softplus`.

    >>> Softplus()([-200.0, 200.0]).data
    array([  0., 200.], dtype=float32)
    """

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.softplus(x)
        return result


class GELU(Module):
    """``x * P(X <= x)`` of a standard normal X: `ops.gelu`.

    Args:
        approximate: "none", or "tanh" for an approximation.

    >>> GELU()([0.0, 100.0]).data
    array([  0., 100.], dtype=float32)
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.gelu(x, self.approximate)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"approximate={self.approximate!r}"


class ELU(Module):
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere: `ops.elu`.

    Args:
        alpha: The limit below, negated.

    >>> ELU()([-100.0, 2.0]).data
    array([-1.,  2.], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.elu(x, self.alpha)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha!r}"


class LeakyReLU(Module):
    """``x`` where it is positive, ``negative_slope * x`` elsewhere: `ops.leaky_relu`.

    Args:
        negative_slope: The slope below 0.

    >>> LeakyReLU(0.25)([-1.0, 2.0]).data
    array([-0.25,  2.  ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.leaky_relu(x, self.negative_slope)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"negative_slope={self.negative_slope!r}"


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along an axis: `ops.softmax`.

    Args:
        axis: The axis of the classes.

    >>> Softmax(axis=0)([[0.0], [0.0]]).data.ravel()
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Operand) -> Tensor:
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

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [...]; returns the same."""
        result: Tensor = ops.log_softmax(x, self.axis)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"axis={self.axis!r}"
