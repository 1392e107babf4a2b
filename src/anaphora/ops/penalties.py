"""Regularizing penalties on activations (Merity et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anaphora.ops.recurrence import checked_lengths
from anaphora.tensor import Array, Input, differentiable, floating


@differentiable
@floating
def activation_penalty(x: Input, /, lengths: ArrayLike | None = None) -> Any:
    """The mean of the squares, which keeps activations small; 0 if there are none.

    Args:
        x: [T, B, ...].
        lengths: [B] integers in 0..T, the number of steps of each row; None means all T.

    Raises:
        ValueError: the lengths are invalid.

    >>> x = [[[3.0], [9.0]], [[1.0], [9.0]]]
    >>> activation_penalty(x, lengths=[2, 0]).item()  # (9 + 1) / 2
    5.0
    """
    return _mean_square(*_counted(x, checked_lengths("activation_penalty", lengths, x.shape)))


@differentiable
@floating
def temporal_penalty(x: Input, /, lengths: ArrayLike | None = None) -> Any:
    """The mean of the squared changes between steps, which keeps them small; 0 if there are none.

    The arguments are those of `activation_penalty`.

    Raises:
        ValueError: the lengths are invalid.

    >>> x = [[[3.0], [9.0]], [[1.0], [0.0]]]
    >>> temporal_penalty(x, lengths=[2, 1]).item()  # (1 - 3) ** 2
    4.0
    """
    ends = checked_lengths("temporal_penalty", lengths, x.shape)
    changes = x[1:] - x[:-1]
    value, pullback = _mean_square(*_counted(changes, None if ends is None else ends - 1))

    def pull(dy: Array) -> Array:
        d_changes = pullback(dy)
        dx = np.zeros_like(x)
        dx[1:] += d_changes
        dx[:-1] -= d_changes
        return dx

    return value, pull


def _counted(x: Array, ends: Array | None) -> tuple[Array, int]:
    """The array with 0 after each row's end, and the number of elements before it."""
    if ends is None:
        return x, x.size
    counted = np.arange(len(x))[:, None] < ends
    kept = np.where(counted.reshape(*counted.shape, *[1] * (x.ndim - 2)), x, 0)
    return kept.astype(x.dtype, copy=False), int(counted.sum()) * math.prod(x.shape[2:])


def _mean_square(x: Array, count: int) -> Any:
    """The sum of the squares over a count, and the pullback."""
    share = 1 / max(count, 1)
    value = np.asarray(np.vdot(x, x) * x.dtype.type(share))
    return value, lambda dy: x * (dy * x.dtype.type(2 * share))
