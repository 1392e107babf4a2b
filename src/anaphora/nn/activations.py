"""Activation functions as modules, for `Sequential`: each calls the operation of `anaphora.ops`."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from anaphora import ops
from anaphora.nn import initialization as initialize
from anaphora.nn.module import Module
from anaphora.options import check_sizes
from anaphora.tensor import Operand, Tensor, as_tensor


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


class PReLU(Module):
    """``x`` where it is positive, ``weight * x`` elsewhere, with trained slopes (He et al. 2015).

    Shapes: x [..., I]; weight [1] or [I]. PyTorch's features are the second axis.

    Args:
        num_parameters: 1, or I for a slope for each feature.
        init: The slopes at first.
        dtype: float32 or float64.

    Raises:
        ValueError: the number of slopes is not at least 1.

    >>> PReLU(init=0.5)([-1.0, 2.0]).data
    array([-0.5,  2. ], dtype=float32)
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, *, dtype: DTypeLike = np.float32
    ) -> None:
        check_sizes(self, num_parameters=num_parameters)
        self.init = init
        self.weight = initialize.parameter((num_parameters,), dtype, init)

    def reset_parameters(self) -> None:
        """Set the slopes to what they were at first."""
        initialize.constant(self.weight, self.init)

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [..., I]; returns the same."""
        x = as_tensor(x, self.weight.dtype, "PReLU: an input")
        result: Tensor = ops.where(x > 0, x, self.weight * x)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"num_parameters={self.weight.size}"


class GLU(Module):
    """``a * sigmoid(b)`` of the halves of x along an axis: `ops.glu`.

    Args:
        axis: The axis, of an even size.

    Raises:
        ValueError: at the call, its size is odd.

    >>> GLU()([3.0, 5.0, 0.0, 100.0]).data
    array([1.5, 5. ], dtype=float32)
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [..., 2 * I, ...]; returns [..., I, ...]."""
        return ops.glu(x, self.axis)

    def extra_repr(self) -> str:  # noqa: D102
        return f"axis={self.axis!r}"


class CosineSimilarity(Module):
    """The cosine of the angles between vectors: `ops.cosine_similarity`.

    Args:
        axis: The axis of the vectors.
        epsilon: A norm below it counts as it.

    >>> CosineSimilarity()([[1.0, 1.0]], [[1.0, 0.0]]).data.round(4)
    array([0.7071], dtype=float32)
    """

    def __init__(self, axis: int = 1, epsilon: float = 1e-8) -> None:
        self.axis = axis
        self.epsilon = epsilon

    def forward(self, x: Operand, y: Operand) -> Tensor:
        """Shapes: both [...]; returns them without the axis."""
        return ops.cosine_similarity(x, y, self.axis, self.epsilon)

    def extra_repr(self) -> str:  # noqa: D102
        return f"axis={self.axis!r}, epsilon={self.epsilon!r}"


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
