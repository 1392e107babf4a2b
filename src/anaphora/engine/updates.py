"""In-place updates of parameters and optimizer states; the gradient norm.

The optimizers' updates are elementwise, so a few rows of a table may be updated instead of all.
Arrays may have any layout. Scalars take the dtype of the arrays.

The gradient of an optimiser's update is [...], of all of the parameter, or that of a few of its
rows [M, ...]: ``rows`` [M] int64 are their numbers, ascending, each once. That of the others is 0
then, which gives the same bits as the dense gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "adagrad_update",
    "adam_update",
    "average_update",
    "global_norm",
    "rmsprop_update",
    "scale",
    "sgd_update",
]

Array: TypeAlias = NDArray[Any]

_BLOCK = 32_768
"""Elements updated at a time, so that all passes but the first hit the cache."""

_NORM_BLOCK = 8_192
"""Small enough that BLAS computes a block's dot product on one thread, in a fixed order."""


def sgd_update(
    parameter: Array,
    gradient: Array,
    velocity: Array | None,
    *,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    rows: Array | None = None,
) -> None:
    """Stochastic gradient descent, optionally with momentum.

        g = gradient + weight_decay * parameter
        v = momentum * v + g
        parameter -= learning_rate * (g + momentum * v if nesterov else v)

    Args:
        parameter: [...] changed in place.
        gradient: [...].
        velocity: [...] changed in place; 0 before the first update. None means no momentum:
            ``parameter -= learning_rate * g``.
        learning_rate: >= 0.
        momentum: The decay factor of the velocity.
        nesterov: Use Nesterov momentum.
        weight_decay: The factor of the parameter added to its gradient.
        rows: Those that the gradient is of; None for all.

    >>> parameter, gradient, velocity = np.array([1.0]), np.array([0.5]), np.array([0.4])
    >>> numbers = {"momentum": 0.5, "nesterov": False, "weight_decay": 0.0}
    >>> sgd_update(parameter, gradient, velocity, learning_rate=0.1, **numbers)
    >>> parameter, velocity
    (array([0.93]), array([0.7]))
    """
    gradient = _dense(gradient, rows, parameter)
    for p, g, v in _blocks(parameter, gradient, velocity):
        g = _decayed(g, p, weight_decay)
        if v is not None:
            v *= momentum
            v += g
            g = g + momentum * v if nesterov else v
        p -= learning_rate * g


def adam_update(
    parameter: Array,
    gradient: Array,
    first_moment: Array,
    second_moment: Array,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
    rows: Array | None = None,
) -> None:
    """Adam: descend along the mean gradient, each element scaled by its root mean square.

        g = gradient + weight_decay * parameter
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        parameter -= learning_rate * m / (1 - beta_1**step)
                     / (sqrt(v / (1 - beta_2**step)) + epsilon)

    Args:
        parameter: [...] changed in place.
        gradient: [...].
        first_moment: [...] m, changed in place; 0 before the first update.
        second_moment: [...] v, changed in place; 0 before the first update.
        step: The number of this update, from 1.
        learning_rate: >= 0.
        betas: The decay factors of m and v.
        epsilon: > 0.
        weight_decay: The factor of the parameter added to its gradient.
        decoupled: Decay ``parameter *= 1 - learning_rate * weight_decay`` first instead (AdamW).
        rows: Those that the gradient is of; None for all.

    >>> parameter, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> numbers = {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.0, "decoupled": False}
    >>> adam_update(parameter, np.array([100.0]), m, v, step=1, learning_rate=0.1, **numbers)
    >>> parameter.round(6)  # the first step is as long as the learning rate
    array([0.9])
    """
    beta_1, beta_2 = betas
    rate = learning_rate / (1 - beta_1**step)
    root_correction = math.sqrt(1 - beta_2**step)
    gradient = _dense(gradient, rows, parameter)
    for p, g, m, v in _blocks(parameter, gradient, first_moment, second_moment):
        if decoupled:
            p *= 1 - learning_rate * weight_decay
        else:
            g = _decayed(g, p, weight_decay)
        m *= beta_1
        m += (1 - beta_1) * g
        v *= beta_2
        v += (1 - beta_2) * np.square(g)
        root = np.sqrt(v)
        root /= root_correction
        root += epsilon
        np.divide(m, root, out=root)
        root *= rate
        p -= root


def rmsprop_update(
    parameter: Array,
    gradient: Array,
    square_average: Array,
    gradient_average: Array | None,
    velocity: Array | None,
    *,
    learning_rate: float,
    alpha: float,
    epsilon: float,
    momentum: float,
    weight_decay: float,
    rows: Array | None = None,
) -> None:
    """RMSprop: descend along the gradient, each element scaled by its recent root mean square.

        g = gradient + weight_decay * parameter
        s = alpha * s + (1 - alpha) * g**2
        a = alpha * a + (1 - alpha) * g
        v = momentum * v + g / (sqrt(s - a**2) + epsilon)
        parameter -= learning_rate * v

    Args:
        parameter: [...] changed in place.
        gradient: [...].
        square_average: [...] s, changed in place; 0 before the first update.
        gradient_average: [...] a, changed in place; 0 before the first update. None uses
            ``sqrt(s)``, not centered.
        velocity: [...] v, changed in place; 0 before the first update. None means no momentum.
        learning_rate: >= 0.
        alpha: The decay factor of the averages.
        epsilon: > 0.
        momentum: The decay factor of the velocity.
        weight_decay: The factor of the parameter added to its gradient.
        rows: Those that the gradient is of; None for all.

    >>> parameter, s = np.array([1.0]), np.zeros(1)
    >>> numbers = {"alpha": 0.75, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
    >>> rmsprop_update(parameter, np.array([100.0]), s, None, None, learning_rate=0.1, **numbers)
    >>> parameter.round(6), s  # the root mean square is 50
    (array([0.8]), array([2500.]))
    """
    gradient = _dense(gradient, rows, parameter)
    for p, g, s, a, v in _blocks(parameter, gradient, square_average, gradient_average, velocity):
        g = _decayed(g, p, weight_decay)
        s *= alpha
        s += (1 - alpha) * np.square(g)
        if a is None:
            root = np.sqrt(s)
        else:
            a *= alpha
            a += (1 - alpha) * g
            # Rounding may make the variance negative where the gradient is constant.
            root = np.sqrt(np.maximum(s - np.square(a), 0))
        root += epsilon
        np.divide(g, root, out=root)
        if v is not None:
            v *= momentum
            v += root
            root[...] = v
        root *= learning_rate
        p -= root


def adagrad_update(
    parameter: Array,
    gradient: Array,
    square_sum: Array,
    *,
    learning_rate: float,
    epsilon: float,
    weight_decay: float,
    rows: Array | None = None,
) -> None:
    """Adagrad: descend along the gradient, each element scaled by the root of its sum of squares.

        g = gradient + weight_decay * parameter
        s += g**2
        parameter -= learning_rate * g / (sqrt(s) + epsilon)

    Args:
        parameter: [...] changed in place.
        gradient: [...].
        square_sum: [...] s, changed in place; 0 before the first update.
        learning_rate: >= 0.
        epsilon: > 0.
        weight_decay: The factor of the parameter added to its gradient.
        rows: Those that the gradient is of; None for all.

    >>> parameter, s = np.array([1.0]), np.array([9.0])
    >>> numbers = {"epsilon": 1e-8, "weight_decay": 0.0}
    >>> adagrad_update(parameter, np.array([4.0]), s, learning_rate=0.1, **numbers)
    >>> parameter.round(6), s
    (array([0.92]), array([25.]))
    """
    gradient = _dense(gradient, rows, parameter)
    for p, g, s in _blocks(parameter, gradient, square_sum):
        g = _decayed(g, p, weight_decay)
        s += np.square(g)
        root = np.sqrt(s)
        root += epsilon
        np.divide(g, root, out=root)
        root *= learning_rate
        p -= root


def average_update(average: Array, parameter: Array, count: float) -> None:
    """Add a value to the running mean: ``average += (parameter - average) / count``.

    Args:
        average: [...] changed in place: the mean of ``count - 1`` values before, of `count` after.
        parameter: [...].
        count: From 1; at 1 the average is set to the parameter. One that stays at n
            makes it an exponential moving average of decay ``1 - 1 / n``.

    >>> average = np.array([2.0])
    >>> average_update(average, np.array([4.0]), count=2)
    >>> average
    array([3.])
    """
    if count == 1:
        average[...] = parameter
        return
    for a, p in _blocks(average, parameter):
        difference = p - a
        difference *= 1 / count
        a += difference


def scale(x: Array, factor: float) -> None:
    """Multiply an array by a number, in place.

    >>> x = np.array([1.0, 2.0])
    >>> scale(x, 0.5)
    >>> x
    array([0.5, 1. ])
    """
    x *= factor


def global_norm(arrays: Iterable[Array]) -> float:
    """The 2-norm of all elements of all arrays, summed in float64.

    It is infinite or NaN if an element is; squares of float32 numbers cannot overflow.

    >>> global_norm([np.array([3.0]), np.array([[4.0]])])
    5.0
    """
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for array in arrays:
            flat = array.ravel(order="K")
            for start in range(0, len(flat), _NORM_BLOCK):
                block = flat[start : start + _NORM_BLOCK].astype(np.float64, copy=False)
                total += float(block @ block)
    return math.sqrt(total)


def _dense(gradient: Array, rows: Array | None, parameter: Array) -> Array:
    if rows is None:
        return gradient
    dense = np.zeros(parameter.shape, gradient.dtype)
    dense[rows] = gradient
    return dense


def _decayed(gradient: Array, parameter: Array, weight_decay: float) -> Array:
    return gradient if weight_decay == 0 else gradient + weight_decay * parameter


def _blocks(*arrays: Array | None) -> Iterator[Any]:
    """Views of the arrays, all of one shape, of about `_BLOCK` elements along the first axis."""
    views = [None if a is None else np.atleast_1d(a) for a in arrays]
    first = next(view for view in views if view is not None)
    rows = max(1, _BLOCK // max(1, first[:1].size))
    for start in range(0, len(first), rows):
        yield [None if view is None else view[start : start + rows] for view in views]
