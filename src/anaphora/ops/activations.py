"""Activation functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora import engine, equations
from anaphora.ops.arithmetic import multiply
from anaphora.ops.shapes import split
from anaphora.tensor import Array, Input, Operand, Tensor, composed, differentiable, floating


@differentiable
@floating
def sigmoid(x: Input, /) -> Any:
    """The logistic function ``1 / (1 + exp(-x))``.

    >>> sigmoid([0.0]).data
    array([0.5], dtype=float32)
    """
    y = equations.sigmoid(x)
    return y, lambda dy: dy * (y * (1 - y))


@differentiable
@floating
def tanh(x: Input, /) -> Any:
    """The hyperbolic tangent.

    >>> tanh([0.0, 100.0]).data
    array([0., 1.], dtype=float32)
    """
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


@differentiable
def relu(x: Input, /) -> Any:
    """The rectifier ``max(x, 0)``; its derivative at 0 is 0.

    >>> relu([-1.0, 2.0]).data
    array([0., 2.], dtype=float32)
    """
    y = np.maximum(x, 0)
    return y, lambda dy: dy * np.sign(y)


@differentiable
@floating
def softplus(x: Input, /) -> Any:
    """``log(1 + exp(x))``, computed without overflow.

    >>> softplus([-200.0, 200.0]).data
    array([  0., 200.], dtype=float32)
    """
    return equations.softplus(x), lambda dy: dy * equations.sigmoid(x)


@differentiable
@floating
def silu(x: Input, /) -> Any:
    """``x * sigmoid(x)``, also called swish (Hendrycks and Gimpel 2016).

    >>> silu([-1.0, 0.0, 100.0]).data.round(4)
    array([ -0.2689,   0.    , 100.    ], dtype=float32)
    """
    share = equations.sigmoid(x)
    y = x * share
    return y, lambda dy: dy * (share + y * (1 - share))


@differentiable
@floating
def gelu(x: Input, /, approximate: str = "none") -> Any:
    """``x * P(X <= x)`` of a standard normal X (Hendrycks and Gimpel 2016).

    Args:
        x: [...].
        approximate: "none", or "tanh" for
            ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``.

    Raises:
        ValueError: `approximate` is neither.

    >>> gelu([-1.0, 0.0, 1.0]).data.round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    if approximate == "none":
        share = 0.5 * (1 + engine.erf(x * math.sqrt(0.5)))
        density = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    elif approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        height = np.tanh(scale * (x + 0.044715 * x * x * x))
        share = 0.5 * (1 + height)
        density = (1 - height * height) * (0.5 * scale * (1 + 3 * 0.044715 * x * x))
    else:
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    return x * share, lambda dy: dy * (share + x * density)


@differentiable
@floating
def elu(x: Input, /, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al. 2015).

    >>> elu([-100.0, 0.0, 2.0]).data
    array([-1.,  0.,  2.], dtype=float32)
    """
    low = alpha * np.expm1(np.minimum(x, 0))
    return np.where(x > 0, x, low), lambda dy: dy * np.where(x > 0, 1, low + alpha)


@differentiable
@floating
def leaky_relu(x: Input, /, negative_slope: float = 0.01) -> Any:
    """``x`` where it is positive, ``negative_slope * x`` elsewhere (Maas et al. 2013).

    >>> leaky_relu([-1.0, 0.0, 2.0], 0.25).data
    array([-0.25,  0.  ,  2.  ], dtype=float32)
    """
    slopes = np.where(x > 0, 1, negative_slope).astype(x.dtype)
    return x * slopes, lambda dy: dy * slopes


@composed
def glu(x: Operand, axis: int = -1) -> Tensor:
    """``a * sigmoid(b)``, where a and b are the halves of x along an axis (Dauphin et al. 2017).

    Raises:
        ValueError: the axis has an odd size.

    >>> glu([3.0, 5.0, 0.0, 100.0]).data
    array([1.5, 5. ], dtype=float32)
    """
    a, b = split(x, 2, axis)
    result: Tensor = multiply(a, sigmoid(b))
    return result


@differentiable
@floating
def softmax(x: Input, /, axis: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis.

    >>> softmax([0.0, 0.0]).data
    array([0.5, 0.5], dtype=float32)
    """
    return _over_rows(x, axis, logarithm=False)


@differentiable
@floating
def log_softmax(x: Input, /, axis: int = -1) -> Any:
    """The logarithm of `softmax`, computed without overflow.

    >>> log_softmax([0.0, 1000.0]).data
    array([-1000.,     0.], dtype=float32)
    """
    return _over_rows(x, axis, logarithm=True)


def _over_rows(x: Array, axis: int, logarithm: bool) -> Any:
    """Softmax or its logarithm along an axis, by the engine, which takes rows; and the pullback."""
    moved = np.moveaxis(x, axis, -1)

    def rows(array: Array) -> Array:
        return np.moveaxis(array, axis, -1).reshape(math.prod(moved.shape[:-1]), moved.shape[-1])

    def back(array: Array) -> Array:
        return np.moveaxis(array.reshape(moved.shape), -1, axis)

    y = engine.softmax_forward(rows(x), logarithm=logarithm)
    return back(y), lambda dy: back(engine.softmax_backward(y, rows(dy), logarithm=logarithm))
