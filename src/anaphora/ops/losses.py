"""Losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from anaphora import engine
from anaphora.tensor import Array, Tensor, differentiable

_REDUCTIONS = ("mean", "sum", "none")


@differentiable
def cross_entropy(
    logits: Array, /, targets: Any, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    """The negative log-probability of the targets under softmax, in nats.

    Args:
        logits: [..., V] unnormalised log-probabilities.
        targets: [...] integers in 0..V-1.
        ignore_index: Targets with this value do not count: loss 0, gradient 0.
        reduction: "mean" over the targets that count (0 if none does), "sum", or "none": [...].

    Raises:
        ValueError: shapes do not fit, a target is outside 0..V-1, or an unknown reduction.
        TypeError: the targets are not integers.

    >>> round(cross_entropy([[0.0, 0.0]], [1]).item(), 4)
    0.6931
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"cross_entropy: reduction {reduction!r} is none of {_REDUCTIONS}")
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: targets are integers (class numbers), not {targets.dtype}")
    if logits.ndim == 0 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: targets of shape {targets.shape} for logits of shape {logits.shape}; "
            "wanted one target for each row of logits"
        )
    V = logits.shape[-1]
    flat = targets.reshape(-1)
    counted = flat != ignore_index
    outside = counted & ((flat < 0) | (flat >= V))
    if outside.any():
        raise ValueError(
            f"cross_entropy: target {flat[outside][0]} is outside 0..{V - 1} (and is not "
            f"ignore_index={ignore_index})"
        )
    safe = np.where(counted, flat, 0).astype(np.intp)
    losses, probabilities = engine.cross_entropy_forward(logits.reshape(-1, V), safe)
    losses = np.where(counted, losses, 0).astype(logits.dtype, copy=False)

    scale = logits.dtype.type(1 / (int(counted.sum()) or 1) if reduction == "mean" else 1)
    value = losses.reshape(targets.shape) if reduction == "none" else losses.sum() * scale

    def pullback(dy: Array) -> Array:
        d_losses = np.where(counted, dy.reshape(-1) * scale, 0).astype(logits.dtype, copy=False)
        return engine.cross_entropy_backward(probabilities, safe, d_losses).reshape(logits.shape)

    return value, pullback


def mean_squared_error(prediction: Any, target: Any) -> Tensor:
    """The mean of the squared differences; shapes [...] alike.

    Raises:
        ValueError: the shapes differ.

    >>> mean_squared_error([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """
    if np.shape(prediction) != np.shape(target):
        raise ValueError(
            f"mean_squared_error: a prediction of shape {np.shape(prediction)} for a target of "
            f"shape {np.shape(target)}"
        )
    prediction = prediction if isinstance(prediction, Tensor) else Tensor(prediction)
    difference = prediction - target
    result: Tensor = (difference * difference).mean()
    return result
