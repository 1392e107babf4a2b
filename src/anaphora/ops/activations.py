"""Activation functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora import engine, equations
from anaphora.tensor import Array, differentiable, floating


@differentiable
@floating
def sigmoid(x: Array, /) -> Any:
    """The logistic function ``1 / (1 + exp(-x))``.

    >>> sigmoid([0.0]).data
    array([0.5], dtype=float32)
    """
    y = equations.sigmoid(x)
    return y, lambda dy: dy * (y * (1 - y))


@differentiable
@floating
def tanh(x: Array, /) -> Any:
    """The hyperbolic tangent.

    >>> tanh([0.0, 100.0]).data
    array([0., 1.], dtype=float32)
    """
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


@differentiable
def relu(x: Array, /) -> Any:
    """The rectifier ``max(x, 0)``; its derivative at 0 is 0.

    >>> relu([-1.0, 2.0]).data
    array([0., 2.], dtype=float32)
    """
    y = np.maximum(x, 0)
    return y, lambda dy: dy * np.sign(y)


@differentiable
@floating
def softplus(x: Array, /) -> Any:
    """``log(1 + exp(x))``, computed without overflow.

    >>> softplus([-200.0, 200.0]).data
    array([  0., 200.], dtype=float32)
    """
    return equations.softplus(x), lambda dy: dy * equations.sigmoid(x)


@differentiable
@floating
def softmax(x: Array, /, axis: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis.

    >>> softmax([0.0, 0.0]).data
    array([0.5, 0.5], dtype=float32)
    """
    return _over_rows(x, axis, logarithm=False)


@differentiable
@floating
def log_softmax(x: Array, /, axis: int = -1) -> Any:
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
