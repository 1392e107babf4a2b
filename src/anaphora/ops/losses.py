"""Losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from anaphora import engine
from anaphora.ops.arithmetic import subtract
from anaphora.ops.linear import check_linear
from anaphora.tensor import Array, Tensor, as_integers, differentiable, floating, recording

_REDUCTIONS = ("mean", "sum", "none")


@differentiable
@floating
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
    target = _Targets("cross_entropy", targets, logits.shape, ignore_index, reduction)
    losses, probabilities = engine.cross_entropy_forward(
        logits.reshape(-1, logits.shape[-1]), target.safe
    )

    def pullback(dy: Array) -> Array:
        d_losses = target.pull(dy, logits.dtype)
        d_logits = engine.cross_entropy_backward(probabilities, target.safe, d_losses)
        return d_logits.reshape(logits.shape)

    return target.reduce(losses), pullback


@differentiable
@floating
def linear_cross_entropy(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    /,
    targets: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """`cross_entropy` of `linear`: the last layer and the loss of a classifier over V classes.

    The logits become the probabilities in place, so that there is one array of them, not two; and
    within `no_grad`, for the loss alone, no more than a block of rows of them at a time.

    Shapes: x [..., I]; weight [V, I]; bias [V]; the others as in `cross_entropy`.

    Raises:
        ValueError: as `linear` and `cross_entropy`.
        TypeError: the targets are not integers.

    >>> round(linear_cross_entropy([[1.0]], [[0.0], [0.0]], targets=[1]).item(), 4)
    0.6931
    """
    check_linear("linear_cross_entropy", x, weight, bias)
    shape = (*x.shape[:-1], len(weight))
    target = _Targets("linear_cross_entropy", targets, shape, ignore_index, reduction)
    rows = x.reshape(-1, x.shape[-1])
    if not recording():
        losses = engine.linear_cross_entropy_losses(rows, weight, bias, target.safe)
        return target.reduce(losses), None
    logits = engine.matmul(rows, weight.T, bias)
    losses, probabilities = engine.cross_entropy_forward(logits, target.safe, in_place=True)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        d_losses = target.pull(dy, x.dtype)
        d_logits = engine.cross_entropy_backward(probabilities, target.safe, d_losses)
        return (
            engine.matmul(d_logits, weight, gradient="input").reshape(x.shape),
            engine.matmul(d_logits.T, rows, gradient="weight"),
            None if bias is None else engine.sum_columns(d_logits),
        )

    return target.reduce(losses), pullback


class _Targets:
    """The targets of a cross-entropy: checked, flat, and what becomes of their losses."""

    def __init__(
        self, name: str, targets: Any, shape: tuple[int, ...], ignore_index: int, reduction: str
    ) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"{name}: reduction {reduction!r} is none of {_REDUCTIONS}")
        targets = as_integers(targets, f"{name}: targets are integers (class numbers)")
        if len(shape) == 0 or targets.shape != shape[:-1]:
            raise ValueError(
                f"{name}: targets of shape {targets.shape} for logits of shape {shape}; "
                "wanted one target for each row of logits"
            )
        flat = targets.reshape(-1)
        self.counted = flat != ignore_index
        outside = self.counted & ((flat < 0) | (flat >= shape[-1]))
        if outside.any():
            raise ValueError(
                f"{name}: target {flat[outside][0]} is outside 0..{shape[-1] - 1} (and is not "
                f"ignore_index={ignore_index})"
            )
        self.safe = np.where(self.counted, flat, 0).astype(np.intp)
        self.shape = targets.shape
        self.reduction = reduction
        mean = reduction == "mean"
        self.scale = 1 / (int(self.counted.sum()) or 1) if mean else 1.0

    def reduce(self, losses: Array) -> Array:
        """What is returned of the losses of all rows, [N]."""
        counted = np.where(self.counted, losses, 0).astype(losses.dtype, copy=False)
        if self.reduction == "none":
            return counted.reshape(self.shape)
        return np.asarray(counted.sum() * losses.dtype.type(self.scale))

    def pull(self, dy: Array, dtype: np.dtype[Any]) -> Array:
        """The gradient of each row's loss, [N], from that of what was returned."""
        scaled = dy.reshape(-1) * dtype.type(self.scale)
        return np.where(self.counted, scaled, 0).astype(dtype, copy=False)


def mean_squared_error(prediction: Any, target: Any) -> Tensor:
    """The mean of the squared differences; shapes [...] alike.

    An array is converted to the dtype of the other, if that is a Tensor.

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
    difference = subtract(prediction, target)
    result: Tensor = (difference * difference).mean()
    return result
