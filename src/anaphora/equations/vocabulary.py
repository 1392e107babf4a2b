"""The vocabulary of equations: each function, and its derivative in the same vocabulary."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


def _sigmoid(x: Any) -> Any:
    with np.errstate(over="ignore"):  # exp(-x) may overflow; 1 / infinity is the correct 0
        return 1 / (1 + np.exp(-x))


class Function(NamedTuple):
    """One function of the vocabulary: its values, and its cotangents by the chain rule.

    ``pullback(d, y, *operands)`` gives the cotangent of each operand of ``y = evaluate(*operands)``
    from the cotangent ``d`` of ``y``. It is written in the vocabulary itself, so that it works with
    symbols and numbers alike.

    >>> multiply = FUNCTIONS["multiply"]
    >>> float(multiply.evaluate(2.0, 3.0)), multiply.pullback(1.0, 6.0, 2.0, 3.0)
    (6.0, (3.0, 2.0))
    """

    evaluate: Callable[..., Any]
    pullback: Callable[..., tuple[Any, ...]]
    infix: str | None = None


FUNCTIONS: dict[str, Function] = {
    "add": Function(np.add, lambda d, y, a, b: (d, d), "+"),
    "subtract": Function(np.subtract, lambda d, y, a, b: (d, -d), "-"),
    "multiply": Function(np.multiply, lambda d, y, a, b: (d * b, d * a), "*"),
    "divide": Function(np.true_divide, lambda d, y, a, b: (d / b, -(d * y / b)), "/"),
    "negative": Function(np.negative, lambda d, y, a: (-d,), "-"),
    "sigmoid": Function(_sigmoid, lambda d, y, a: (d * (y * (1 - y)),)),
    "tanh": Function(np.tanh, lambda d, y, a: (d * (1 - y * y),)),
    "relu": Function(lambda x: np.maximum(x, 0), lambda d, y, a: (d * sign(y),)),
    "exp": Function(np.exp, lambda d, y, a: (d * y,)),
    "log": Function(np.log, lambda d, y, a: (d / a,)),
    "softplus": Function(lambda x: np.logaddexp(x, 0), lambda d, y, a: (d * sigmoid(a),)),
    "abs": Function(np.abs, lambda d, y, a: (d * sign(a),)),
    # Equal operands get half of the cotangent each.
    "maximum": Function(np.maximum, lambda d, y, a, b: _split_by_sign(d, a - b)),
    "minimum": Function(np.minimum, lambda d, y, a, b: _split_by_sign(d, b - a)),
    "sign": Function(np.sign, lambda d, y, a: (0.0,)),
}
OPERANDS: dict[str, int] = {
    name: len(inspect.signature(function.pullback).parameters) - 2
    for name, function in FUNCTIONS.items()
}
"""The number of operands of each function: those of its pullback after ``d`` and ``y``."""


def _split_by_sign(d: Any, difference: Any) -> tuple[Any, Any]:
    first = d * (0.5 * sign(difference) + 0.5)
    return first, d - first


def apply(name: str, *operands: Any) -> Any:
    """Apply one function of the vocabulary to arrays, Tensors or symbols.

    Other types than NumPy's define its meaning in a method ``__equation__(name, *operands)``.

    >>> float(apply("add", 1.0, 2.0))
    3.0
    """
    for operand in operands:
        if hasattr(operand, "__equation__"):
            return operand.__equation__(name, *operands)
    return FUNCTIONS[name].evaluate(*operands)


def sigmoid(x: Any) -> Any:
    """The logistic function ``1 / (1 + exp(-x))``.

    >>> float(sigmoid(0.0))
    0.5
    """
    return apply("sigmoid", x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent.

    >>> float(tanh(0.0))
    0.0
    """
    return apply("tanh", x)


def relu(x: Any) -> Any:
    """The rectifier ``max(x, 0)``; its derivative at 0 is 0.

    >>> float(relu(-1.0)), float(relu(2.0))
    (0.0, 2.0)
    """
    return apply("relu", x)


def exp(x: Any) -> Any:
    """The exponential function.

    >>> float(exp(0.0))
    1.0
    """
    return apply("exp", x)


def log(x: Any) -> Any:
    """The natural logarithm.

    >>> float(log(1.0))
    0.0
    """
    return apply("log", x)


def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``, computed without overflow.

    >>> float(softplus(1000.0))
    1000.0
    """
    return apply("softplus", x)


def abs(x: Any) -> Any:
    """The absolute value; its derivative at 0 is 0.

    >>> float(abs(-2.0))
    2.0
    """
    return apply("abs", x)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values; equal ones get half of the gradient each.

    >>> float(maximum(1.0, 2.0))
    2.0
    """
    return apply("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values; equal ones get half of the gradient each.

    >>> float(minimum(1.0, 2.0))
    1.0
    """
    return apply("minimum", a, b)


def sign(x: Any) -> Any:
    """-1, 0 or 1, from which the derivatives of `relu`, `abs`, `maximum`, `minimum` are built.

    >>> float(sign(-3.0))
    -1.0
    """
    return apply("sign", x)


VOCABULARY = "+ - * /, numbers, sigmoid tanh relu exp log softplus abs maximum minimum"
