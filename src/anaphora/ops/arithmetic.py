"""Elementwise arithmetic; operands broadcast as in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anaphora import engine
from anaphora.tensor import (
    Array,
    Input,
    Operand,
    Tensor,
    as_tensor,
    composed,
    differentiable,
    floating,
)


@differentiable
def add(a: Input, b: Input, /) -> Any:
    """``a + b``.

    >>> add([1.0, 2.0], 1.0).data
    array([2., 3.], dtype=float32)
    """
    return a + b, (lambda dy: dy, lambda dy: dy)


@differentiable
def subtract(a: Input, b: Input, /) -> Any:
    """``a - b``.

    >>> subtract([1.0, 2.0], 1.0).data
    array([0., 1.], dtype=float32)
    """
    return a - b, (lambda dy: dy, lambda dy: -dy)


@differentiable
def multiply(a: Input, b: Input, /) -> Any:
    """``a * b``.

    >>> multiply([[1.0], [2.0]], [3.0, 4.0]).data
    array([[3., 4.],
           [6., 8.]], dtype=float32)
    """
    return a * b, (lambda dy: dy * b, lambda dy: dy * a)


@differentiable
def divide(a: Input, b: Input, /) -> Any:
    """``a / b``.

    >>> divide([1.0, 2.0], 2.0).data
    array([0.5, 1. ], dtype=float32)
    """
    y = a / b
    return y, (lambda dy: dy / b, lambda dy: -dy * y / b)


@differentiable
def negative(x: Input, /) -> Any:
    """``-x``.

    >>> negative([1.0, -2.0]).data
    array([-1.,  2.], dtype=float32)
    """
    return -x, lambda dy: -dy


@differentiable
def power(x: Input, /, exponent: float) -> Any:
    """``x ** exponent``, where the exponent is a number.

    >>> power([1.0, 3.0], 2).data
    array([1., 9.], dtype=float32)
    """
    if not np.isscalar(exponent):
        raise TypeError(
            f"power: the exponent must be a number, not {type(exponent).__name__}; for a Tensor "
            "write exp(exponent * log(x))"
        )
    p = float(exponent)  # type: ignore[arg-type]
    return x**p, lambda dy: dy * (p * x ** (p - 1)) if p else np.zeros_like(x)


@differentiable
@floating
def exp(x: Input, /) -> Any:
    """The exponential function.

    >>> exp([0.0]).data
    array([1.], dtype=float32)
    """
    y = np.exp(x)
    return y, lambda dy: dy * y


@differentiable
@floating
def log(x: Input, /) -> Any:
    """The natural logarithm.

    >>> log([1.0]).data
    array([0.], dtype=float32)
    """
    return np.log(x), lambda dy: dy / x


@differentiable
@floating
def sqrt(x: Input, /) -> Any:
    """The square root.

    >>> sqrt([9.0]).data
    array([3.], dtype=float32)
    """
    y = np.sqrt(x)
    return y, lambda dy: dy / (2 * y)


@differentiable
@floating
def sin(x: Input, /) -> Any:
    """The sine of an angle in radians.

    >>> sin([0.0, np.pi / 2]).data
    array([0., 1.], dtype=float32)
    """
    return np.sin(x), lambda dy: dy * np.cos(x)


@differentiable
@floating
def cos(x: Input, /) -> Any:
    """The cosine of an angle in radians.

    >>> cos([0.0, np.pi]).data
    array([ 1., -1.], dtype=float32)
    """
    return np.cos(x), lambda dy: -dy * np.sin(x)


@differentiable
@floating
def erf(x: Input, /) -> Any:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to x.

    >>> erf([0.0, 0.5, 10.0]).data.round(4)
    array([0.    , 0.5205, 1.    ], dtype=float32)
    """
    return engine.erf(x), lambda dy: dy * (2 / math.sqrt(math.pi) * np.exp(-x * x))


@differentiable
def floor(x: Input, /) -> Any:
    """The largest integer that is not larger; its derivative is 0.

    >>> floor([-1.5, 1.5]).data
    array([-2.,  1.], dtype=float32)
    """
    return np.floor(x), np.zeros_like


@differentiable
def ceil(x: Input, /) -> Any:
    """The smallest integer that is not smaller; its derivative is 0.

    >>> ceil([-1.5, 1.5]).data
    array([-1.,  2.], dtype=float32)
    """
    return np.ceil(x), np.zeros_like


@differentiable
def round(x: Input, /, decimals: int = 0) -> Any:
    """The nearest number with so many decimals, of two the even one; its derivative is 0.

    >>> round([0.5, 1.5, 2.51]).data, round([1.26], 1).data
    (array([0., 2., 3.], dtype=float32), array([1.3], dtype=float32))
    """
    return np.round(x, decimals), np.zeros_like


@differentiable
def floor_divide(a: Input, b: Input, /) -> Any:
    """``a // b``, the quotient rounded down; its derivative is 0.

    >>> floor_divide([7, -7], 2).data
    array([ 3, -4])
    """
    return a // b, (np.zeros_like, np.zeros_like)


@differentiable
def remainder(a: Input, b: Input, /) -> Any:
    """``a % b``, which has the sign of b.

    >>> remainder([7, -7], 4).data
    array([3, 1])
    """
    return a % b, (lambda dy: dy, lambda dy: -dy * np.floor_divide(a, b))


@differentiable
def abs(x: Input, /) -> Any:
    """The absolute value; its derivative at 0 is 0.

    >>> abs([-1.0, 2.0]).data
    array([1., 2.], dtype=float32)
    """
    return np.abs(x), lambda dy: dy * np.sign(x)


@differentiable
def sign(x: Input, /) -> Any:
    """-1, 0 or 1; its derivative is 0.

    >>> sign([-3.0, 0.0, 2.0]).data
    array([-1.,  0.,  1.], dtype=float32)
    """
    return np.sign(x), np.zeros_like


@differentiable
def maximum(a: Input, b: Input, /) -> Any:
    """The larger of two; ties share the gradient equally.

    >>> maximum([1.0, 5.0], 2.0).data
    array([2., 5.], dtype=float32)
    """
    return np.maximum(a, b), (lambda dy: dy * _share(a, b), lambda dy: dy * _share(b, a))


@differentiable
def minimum(a: Input, b: Input, /) -> Any:
    """The smaller of two; ties share the gradient equally.

    >>> minimum([1.0, 5.0], 2.0).data
    array([1., 2.], dtype=float32)
    """
    return np.minimum(a, b), (lambda dy: dy * _share(b, a), lambda dy: dy * _share(a, b))


def _share(one: Array, other: Array) -> Array:
    """1 where one is larger, 0 where the other is, a half where they are equal."""
    return np.where(one == other, 0.5, one > other).astype(one.dtype)


@differentiable
def _where(a: Input, b: Input, /, condition: Input) -> Any:
    y = np.where(condition, a, b)
    return y, (
        lambda dy: np.where(condition, dy, 0).astype(dy.dtype, copy=False),
        lambda dy: np.where(condition, 0, dy).astype(dy.dtype, copy=False),
    )


@composed
def where(condition: Operand, a: Operand, b: Operand) -> Tensor:
    """``a`` where the condition (an array of booleans) is True, ``b`` elsewhere.

    >>> where([True, False], [1.0, 2.0], [3.0, 4.0]).data
    array([1., 4.], dtype=float32)
    """
    given = condition if isinstance(condition, Tensor) else np.asarray(condition)
    return _where(a, b, condition=given)


@composed
def clip(x: Operand, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Numbers below a minimum become it, numbers above a maximum become that.

    The gradient goes to x where it is within the limits, or equal to one; else to the limit.

    >>> clip([-1.0, 0.5, 3.0], 0, 1).data
    array([0. , 0.5, 1. ], dtype=float32)
    """
    y = as_tensor(x, None, "clip")
    if min is not None:
        y = where(y < min, min, y)
    if max is not None:
        y = where(y > max, max, y)
    return y


@composed
def masked_fill(x: Operand, mask: Operand, value: Operand) -> Tensor:
    """A value where a mask (booleans that broadcast to the shape of x) is True, x elsewhere.

    Raises:
        TypeError: the mask is not of booleans.
        ValueError: it does not broadcast to the shape of x.

    >>> masked_fill([1.0, 2.0], [False, True], -np.inf).data
    array([  1., -inf], dtype=float32)
    """
    x, mask = as_tensor(x, None, "masked_fill"), np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"masked_fill: a mask is of booleans, not {mask.dtype}")
    filled = where(mask, value, x)
    if filled.shape != x.shape:
        raise ValueError(
            f"masked_fill: a mask of shape {mask.shape} and a value of shape {np.shape(value)} for "
            f"a Tensor of shape {x.shape}; expected shapes that broadcast to it"
        )
    return filled


@differentiable
def astype(x: Input, /, dtype: DTypeLike) -> Any:
    """Convert to another floating-point dtype; the gradient is converted back.

    >>> astype([1.0], "float64").dtype
    dtype('float64')
    """
    if np.dtype(dtype).kind != "f":
        raise TypeError(f"astype: Tensors with gradients are floating-point, not {dtype}")
    before = x.dtype
    return x.astype(dtype), lambda dy: dy.astype(before)
