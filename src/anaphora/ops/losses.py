"""Losses for classes, for binary targets, and for numbers.

Targets that do not count are marked by ``ignore_index`` for classes, and for numbers by ``where``,
an array of booleans, as in NumPy's reductions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import engine, equations, foreign_names
from anaphora.ops.activations import log_softmax
from anaphora.ops.arithmetic import _where, abs, subtract
from anaphora.ops.linear import check_linear
from anaphora.tensor import (
    Array,
    Input,
    Operand,
    Tensor,
    as_integers,
    as_tensor,
    composed,
    differentiable,
    floating,
    recording,
)

_REDUCTIONS = ("mean", "sum", "none")


# Classes -------------------------------------------------------------------------------------


@composed
def cross_entropy(
    logits: Operand,
    targets: Operand,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_weights: ArrayLike | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The negative log-probability of the targets under softmax, in nats.

        q = (1 - s) * onehot(target) + s / V            s: label_smoothing
        loss = -sum(w * q * log softmax(logits))        w: class_weights, else 1

    Targets may also be probabilities p, of which q = (1 - s) * p + s / V. Source of label
    smoothing: Szegedy et al. 2016.

    Args:
        logits: [..., V] unnormalized log-probabilities.
        targets: [...] integers in 0..V-1; or floats [..., V], at least 0, the probabilities of all
            classes, which may have gradients.
        ignore_index: Targets with this value do not count: loss 0, gradient 0. For integers.
        reduction: "mean" over the targets that count (0 if none does), "sum", or "none": [...].
            With class weights the mean is weighted by those of integer targets, as in PyTorch.
        class_weights: [V] the weight of each class, at least 0; see `balanced_class_weights`.
        label_smoothing: The share of each target, 0 to 1, that is spread over all classes.

    Raises:
        ValueError: shapes do not match, a target is outside 0..V-1, a probability or a weight is
            negative or not finite, the smoothing is outside 0..1, or the reduction is unknown.
        TypeError: the targets are neither integers [...] nor floats [..., V].

    >>> round(cross_entropy([[0.0, 0.0]], [1]).item(), 4)
    0.6931
    >>> round(cross_entropy([[2.0, 0.0]], [[0.5, 0.5]]).item(), 4)  # (0.1269 + 2.1269) / 2
    1.1269
    >>> logits = [[2.0, 0.0], [2.0, 0.0]]
    >>> cross_entropy(logits, [0, 1], class_weights=[1, 3]).item()  # (0.127 + 3 * 2.127) / 4
    1.62692...
    """
    given = targets if isinstance(targets, Tensor) else np.asarray(targets)
    if given.dtype.kind == "f" and given.ndim and given.shape == np.shape(logits):
        if ignore_index != -100:
            raise ValueError(
                f"cross_entropy: ignore_index={ignore_index} is for integer targets; the row of a "
                "target that does not count is all 0 among probabilities"
            )
        return _cross_entropy_of_probabilities(
            as_floats("cross_entropy", logits), given, reduction, class_weights, label_smoothing
        )
    return _cross_entropy(logits, targets, ignore_index, reduction, class_weights, label_smoothing)


def _cross_entropy_of_probabilities(
    logits: Tensor,
    targets: Tensor | Array,
    reduction: str,
    class_weights: ArrayLike | None,
    label_smoothing: float,
) -> Tensor:
    name, V = "cross_entropy", logits.shape[-1]
    check_reduction(name, reduction)
    _check_smoothing(name, label_smoothing)
    probabilities = np.asarray(targets)
    wrong = ~(np.isfinite(probabilities) & (probabilities >= 0))
    if wrong.any():
        raise ValueError(
            f"{name}: the probability {probabilities[wrong][0]} in the targets; expected finite "
            "numbers of at least 0 (floats as targets are probabilities, integers are classes)"
        )
    weights = _checked_weights(name, class_weights, V).astype(logits.dtype)
    q = as_tensor(targets, logits.dtype, f"{name}: targets")
    if label_smoothing:
        q = q * (1 - label_smoothing) + label_smoothing / V
    losses = -(log_softmax(logits, -1) * q * weights).sum(axis=-1)
    return reduce_losses(name, losses, None, reduction)


@differentiable
@floating
def _cross_entropy(
    logits: Input,
    /,
    targets: Input,
    ignore_index: int,
    reduction: str,
    class_weights: ArrayLike | None,
    label_smoothing: float,
) -> Any:
    target = _Targets(
        "cross_entropy", targets, logits.shape, logits.dtype, ignore_index, reduction,
        class_weights, label_smoothing,
    )  # fmt: skip
    rows = logits.reshape(-1, logits.shape[-1])
    losses, probabilities = engine.cross_entropy_forward(rows, target.safe)
    gaps = None
    if target.spread is not None:
        below = rows[target.places][:, None] - rows
        with engine.matmul_precision("float32"):  # it is part of the loss, not of the model
            gaps = engine.matmul(below, target.spread[:, None])[:, 0]

    def pullback(dy: Array) -> Array:
        return target.pull(dy, probabilities).reshape(logits.shape)

    return target.reduce(losses, gaps), pullback


@differentiable
@floating
def linear_cross_entropy(
    x: Input,
    weight: Input,
    bias: Input | None = None,
    /,
    targets: Input | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_weights: ArrayLike | None = None,
    label_smoothing: float = 0.0,
) -> Any:
    """`cross_entropy` of `linear`: the last layer and the loss of a classifier over V classes.

    The logits become the probabilities in place, so that there is one such array, not two; within
    `no_grad`, where only the loss is needed, there is only a block of rows at a time.

    Shapes: x [..., I]; weight [V, I]; bias [V]; the others as in `cross_entropy`.

    Raises:
        ValueError: as for `linear` and `cross_entropy`.
        TypeError: the targets are not integers.

    >>> round(linear_cross_entropy([[1.0]], [[0.0], [0.0]], targets=[1]).item(), 4)
    0.6931
    """
    check_linear("linear_cross_entropy", x, weight, bias)
    shape = (*x.shape[:-1], len(weight))
    target = _Targets(
        "linear_cross_entropy", targets, shape, x.dtype, ignore_index, reduction,
        class_weights, label_smoothing,
    )  # fmt: skip
    rows = x.reshape(-1, x.shape[-1])
    gaps = None
    if target.spread is not None:  # the gaps are linear in the logits: no logits are needed
        with engine.matmul_precision("float32"):
            centre = engine.matmul(target.spread[None], weight)
        gaps = (rows * (weight[target.safe] * target.spread.sum() - centre)).sum(axis=1)
        if bias is not None:
            gaps += bias[target.safe] * target.spread.sum() - target.spread @ bias
    if not recording():
        losses = engine.linear_cross_entropy_losses(rows, weight, bias, target.safe)
        return target.reduce(losses, gaps), None
    logits = engine.matmul(rows, weight.T, bias)
    losses, probabilities = engine.cross_entropy_forward(logits, target.safe, in_place=True)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        d_logits = target.pull(dy, probabilities)
        return (
            engine.matmul(d_logits, weight, gradient="input").reshape(x.shape),
            engine.matmul(d_logits.T, rows, gradient="weight"),
            None if bias is None else engine.sum_columns(d_logits),
        )

    return target.reduce(losses, gaps), pullback


@differentiable
@floating
def nll_loss(
    log_probabilities: Input,
    /,
    targets: Input,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_weights: ArrayLike | None = None,
    from_probabilities: bool = False,
) -> Any:
    """The negative log-likelihood of the targets, in nats, from normalized log-probabilities.

    For logits use `cross_entropy`, which is exact for probabilities of 0 and 1.

    Args:
        log_probabilities: [..., V] as from `log_softmax`; nothing is normalized here.
        targets: [...] integers in 0..V-1.
        ignore_index: Targets with this value do not count: loss 0, gradient 0.
        reduction: As in `cross_entropy`.
        class_weights: [V], as in `cross_entropy`.
        from_probabilities: Whether probabilities are given instead of their logarithms. The loss
            of a target with probability 0 is infinite.

    Raises:
        ValueError, TypeError: as for `cross_entropy`.

    >>> nll_loss([[0.25, 0.75]], [0], from_probabilities=True).item()
    1.386294...
    """
    target = _Targets(
        "nll_loss", targets, log_probabilities.shape, log_probabilities.dtype, ignore_index,
        reduction, class_weights, 0.0,
    )  # fmt: skip
    rows = log_probabilities.reshape(-1, log_probabilities.shape[-1])
    at_target = rows[target.places]
    if from_probabilities:
        at_target = np.where(target.counted, at_target, 1).astype(rows.dtype, copy=False)
        with np.errstate(divide="ignore"):
            losses = -np.log(at_target)
    else:
        losses = -at_target

    def pullback(dy: Array) -> Array:
        d_losses = target.pull_rows(dy)
        d_rows = np.zeros_like(rows)
        with np.errstate(divide="ignore"):
            d_rows[target.places] = -d_losses / at_target if from_probabilities else -d_losses
        return d_rows.reshape(log_probabilities.shape)

    return target.reduce(losses), pullback


def balanced_class_weights(
    targets: Operand, num_classes: int, ignore_index: int = -100
) -> NDArray[np.float64]:
    """Class weights that give each class the same total weight, whatever its number of targets.

        weight = n / (C * count)

    n is the number of targets, count the number in a class, and C the number of classes that occur.
    A class that does not occur has weight 1. These are scikit-learn's "balanced" weights.

    Args:
        targets: Integers in 0..num_classes-1, of any shape.
        num_classes: V.
        ignore_index: Targets with this value do not count.

    Returns:
        [V].

    Raises:
        ValueError: a target is outside 0..V-1.
        TypeError: the targets are not integers.

    >>> balanced_class_weights([0, 0, 0, 1], num_classes=2)
    array([0.66666667, 2.        ])
    """
    flat = as_integers(targets, "balanced_class_weights: targets are integers (class numbers)")
    flat = flat.reshape(-1)
    flat = flat[flat != ignore_index]
    outside = (flat < 0) | (flat >= num_classes)
    if outside.any():
        raise ValueError(
            f"balanced_class_weights: target {flat[outside][0]} is outside 0..{num_classes - 1} "
            f"(and is not ignore_index={ignore_index})"
        )
    counts = np.bincount(flat.astype(np.intp), minlength=num_classes)
    occurs = counts > 0
    weights = np.ones(num_classes)
    weights[occurs] = len(flat) / (occurs.sum() * counts[occurs])
    return weights


class _Targets:
    """The targets of a cross-entropy: checked and flattened, and the reduction of their losses.

    With label smoothing s the loss of a row is a sum of two terms:

        factor * -log p[target] + sum(spread * (logits[target] - logits)),
        spread = w * s / V,  factor = (1 - s) * w[target] + sum(spread)

    The second is called the row's gap.
    """

    def __init__(
        self,
        name: str,
        targets: Any,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        ignore_index: int,
        reduction: str,
        class_weights: ArrayLike | None,
        label_smoothing: float,
    ) -> None:
        check_reduction(name, reduction)
        targets = as_integers(targets, f"{name}: targets are integers (class numbers)")
        if len(shape) == 0 or targets.shape != shape[:-1]:
            raise ValueError(
                f"{name}: targets of shape {targets.shape} for logits of shape {shape}; "
                "expected one target for each row of logits, whose last axis is the classes"
            )
        _check_smoothing(name, label_smoothing)
        flat = targets.reshape(-1)
        self.counted = flat != ignore_index
        outside = self.counted & ((flat < 0) | (flat >= shape[-1]))
        if outside.any():
            raise ValueError(
                f"{name}: target {flat[outside][0]} is outside 0..{shape[-1] - 1} (and is not "
                f"ignore_index={ignore_index})"
            )
        self.safe = np.where(self.counted, flat, 0).astype(np.intp)
        self.places = np.arange(len(flat)), self.safe
        self.shape = targets.shape
        self.reduction = reduction
        self.factors: Array | None = None  # [N], by which losses are multiplied
        self.spread: Array | None = None  # [V]
        total: float = int(self.counted.sum())  # what the mean divides by
        if class_weights is not None or label_smoothing:
            weights = _checked_weights(name, class_weights, shape[-1])
            of_targets = weights[self.safe]
            total = float(of_targets[self.counted].sum())
            spread = weights * (label_smoothing / max(shape[-1], 1))
            self.factors = ((1 - label_smoothing) * of_targets + spread.sum()).astype(dtype)
            self.spread = spread.astype(dtype) if label_smoothing else None
        self.scale = 1 / (total or 1) if reduction == "mean" else 1.0

    def reduce(self, losses: Array, gaps: Array | None = None) -> Array:
        """The result, from the losses of all rows, [N]."""
        if self.factors is not None:
            losses = losses * self.factors
        if gaps is not None:
            losses = losses + gaps
        counted = np.where(self.counted, losses, 0).astype(losses.dtype, copy=False)
        if self.reduction == "none":
            return counted.reshape(self.shape)
        return scaled_sum(counted, self.scale)

    def pull_rows(self, dy: Array) -> Array:
        """The gradient of ``-log p[target]`` of each row, [N], from that of the result."""
        scaled = self._pull(dy)
        return scaled if self.factors is None else scaled * self.factors

    def pull(self, dy: Array, probabilities: Array) -> Array:
        """The gradient of the logits, [N, V]."""
        d_logits = engine.cross_entropy_backward(probabilities, self.safe, self.pull_rows(dy))
        if self.spread is not None:
            d_gaps = self._pull(dy)
            d_logits -= d_gaps[:, None] * self.spread
            d_logits[self.places] += d_gaps * self.spread.sum()
        return d_logits

    def _pull(self, dy: Array) -> Array:
        scaled = dy.reshape(-1) * dy.dtype.type(self.scale)
        counted: Array = np.where(self.counted, scaled, 0).astype(dy.dtype, copy=False)
        return counted


def _check_smoothing(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name}: label_smoothing must be from 0 to 1, not {share}")


def scaled_sum(losses: Array, scale: float) -> Array:
    """The sum of losses times a factor.

    They are added in their order, so that padding, which adds zeros, changes no bit.
    """
    total = np.cumsum(losses, dtype=np.float64)[-1:].sum().astype(losses.dtype)
    return np.asarray(total * losses.dtype.type(scale))


def _checked_weights(
    name: str, class_weights: ArrayLike | None, classes: int
) -> NDArray[np.float64]:
    if class_weights is None:
        return np.ones(classes)
    weights = np.asarray(class_weights, np.float64)
    if weights.shape != (classes,):
        raise ValueError(
            f"{name}: class_weights of shape {weights.shape}; expected one weight for each of "
            f"{classes} classes"
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise ValueError(
            f"{name}: the class weight {weights[wrong][0]} of class {np.argmax(wrong)}; weights "
            "are finite and at least 0"
        )
    return weights


# Binary targets ------------------------------------------------------------------------------


@differentiable
@floating
def _binary_cross_entropy(
    logits: Input, /, targets: Input, weight: Input | None, pos_weight: Input | None
) -> Any:
    positive = targets if pos_weight is None else targets * pos_weight
    # -(positive * log sigmoid(x) + (1 - targets) * log sigmoid(-x))
    losses = positive * equations.softplus(-logits) + (1 - targets) * equations.softplus(logits)
    if weight is not None:
        losses = losses * weight

    def pullback(dy: Array) -> Array:
        d = (1 - targets) * equations.sigmoid(logits) - positive * equations.sigmoid(-logits)
        d_logits: Array = dy * (d if weight is None else d * weight)
        return d_logits

    return losses, pullback


@foreign_names.arguments_checked
def binary_cross_entropy_with_logits(
    logits: Operand,
    targets: Operand,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-probability of binary targets under the logistic function, in nats.

        loss = -weight * (pos_weight * y * log p + (1 - y) * log(1 - p)),  p = sigmoid(logits)

    With an axis of labels it is the loss of a multi-label classifier: each label is a binary target
    of its own.

    Args:
        logits: [...] log-odds of the positive class.
        targets: [...] 1 or True for positive, 0 for negative, or anything in between.
        weight: The weight of each loss; broadcast to [...].
        pos_weight: The weight of positive relative to negative targets, such as the ratio of
            negatives to positives; with labels on the last axis, one per label. Broadcast to [...].
        where: Booleans, broadcast to [...]: False where a target does not count (it is not read).
        reduction: "mean" over the losses that count (0 if none does), "sum", or "none": [...].

    Raises:
        ValueError: shapes do not match, a target is outside 0..1, or the reduction is unknown.

    >>> binary_cross_entropy_with_logits([0.0, 3.0], [1, 0]).item()  # (0.693 + 3.049) / 2
    1.870867...
    """
    name = "binary_cross_entropy_with_logits"
    if np.shape(logits) != np.shape(targets):
        raise ValueError(
            f"{name}: targets of shape {np.shape(targets)} for logits of shape {np.shape(logits)}; "
            "expected one target for each logit"
        )
    x = as_floats(name, logits)
    counted = counted_elements(name, where, x.shape)
    y = as_targets(name, targets, x.dtype, counted)
    wrong = (y < 0) | (y > 1)
    if wrong.any():
        raise ValueError(f"{name}: target {y[wrong][0]} is outside 0..1")
    factors = [_factor(name, f, y, k) for k, f in (("weight", weight), ("pos_weight", pos_weight))]
    losses = _binary_cross_entropy(
        only_counted(x, counted), targets=y, weight=factors[0], pos_weight=factors[1]
    )
    if counted is not None:  # the loss of a logit of 0 is not 0
        losses = _where(losses, 0, condition=counted)
    return reduce_losses(name, losses, counted, reduction)


@differentiable
@floating
def _of_probabilities(probabilities: Input, /, targets: Input, weight: Input | None) -> Any:
    with np.errstate(divide="ignore"):
        positive, negative = (
            np.maximum(np.log(p), p.dtype.type(-100)) for p in (probabilities, 1 - probabilities)
        )
    losses = -(targets * positive + (1 - targets) * negative)

    def pullback(dy: Array) -> Array:
        smallest = probabilities.dtype.type(1e-12)
        d = (probabilities - targets) / np.maximum(probabilities * (1 - probabilities), smallest)
        d_probabilities: Array = dy * (d if weight is None else d * weight)
        return d_probabilities

    return (losses if weight is None else losses * weight), pullback


@foreign_names.arguments_checked
def binary_cross_entropy(
    probabilities: Operand,
    targets: Operand,
    weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-probability of binary targets, from probabilities, in nats.

        loss = -weight * (y * log p + (1 - y) * log(1 - p))

    Logarithms are at least -100, as in PyTorch. Of logits use `binary_cross_entropy_with_logits`,
    which is exact where a probability rounds to 0 or 1.

    Args:
        probabilities: [...] of the positive class, 0..1.
        targets: [...] 1 or True for positive, 0 for negative, or anything in between.
        weight: The weight of each loss; broadcast to [...].
        where: Booleans, broadcast to [...]: False where a target does not count (it is not read).
        reduction: "mean" over the losses that count (0 if none does), "sum", or "none": [...].

    Raises:
        ValueError: shapes do not match, a probability or a target is outside 0..1, or the reduction
            is unknown.

    >>> binary_cross_entropy([0.5, 0.25], [1, 0]).item()  # (0.693 + 0.288) / 2
    0.490414...
    """
    name = "binary_cross_entropy"
    if np.shape(probabilities) != np.shape(targets):
        raise ValueError(
            f"{name}: targets of shape {np.shape(targets)} for probabilities of shape "
            f"{np.shape(probabilities)}; expected one target for each"
        )
    x = as_floats(name, probabilities)
    counted = counted_elements(name, where, x.shape)
    y = as_targets(name, targets, x.dtype, counted)
    x = only_counted(x, counted)
    for what, values in (("target", y), ("probability", x.data)):
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            raise ValueError(
                f"{name}: {what} {values[wrong][0]} is outside 0..1; of logits use "
                "binary_cross_entropy_with_logits"
            )
    losses = _of_probabilities(x, targets=y, weight=_factor(name, weight, y, "weight"))
    if counted is not None:
        losses = _where(losses, 0, condition=counted)
    return reduce_losses(name, losses, counted, reduction)


def _factor(name: str, given: ArrayLike | None, targets: Array, argument: str) -> Array | None:
    if given is None:
        return None
    factor = np.asarray(given, targets.dtype)
    if not _fits(factor.shape, targets.shape):
        raise ValueError(
            f"{name}: {argument} of shape {factor.shape} cannot be broadcast to {targets.shape}"
        )
    return factor


# Numbers -------------------------------------------------------------------------------------


@foreign_names.arguments_checked
def mean_squared_error(
    prediction: Operand, target: Operand, where: ArrayLike | None = None, reduction: str = "mean"
) -> Tensor:
    """The mean of the squared differences of equal shapes.

    If one argument is a Tensor, the other is converted to its dtype.

    Args:
        prediction: [...].
        target: [...].
        where: Booleans, broadcast to [...]: False where a target does not count (it is not read).
        reduction: "mean" over what counts (0 if nothing does), "sum", or "none": [...].

    Raises:
        ValueError: the shapes differ, or the reduction is unknown.

    >>> mean_squared_error([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    >>> mean_squared_error([1.0, 2.0], [np.nan, 4.0], where=[False, True]).item()
    4.0
    """
    difference, counted = _difference("mean_squared_error", prediction, target, where)
    return reduce_losses("mean_squared_error", difference * difference, counted, reduction)


@foreign_names.arguments_checked
def l1_loss(
    prediction: Operand, target: Operand, where: ArrayLike | None = None, reduction: str = "mean"
) -> Tensor:
    """The mean of the absolute differences, minimized by the median.

    The derivative at 0 is 0. The arguments are those of `mean_squared_error`.

    Raises:
        ValueError: as for `mean_squared_error`.

    >>> l1_loss([1.0, 2.0], [1.0, 4.0]).item()
    1.0
    """
    difference, counted = _difference("l1_loss", prediction, target, where)
    return reduce_losses("l1_loss", abs(difference), counted, reduction)


@differentiable
@floating
def _huber(difference: Input, /, delta: float) -> Any:
    slope = np.clip(difference, -delta, delta).astype(difference.dtype, copy=False)
    half = difference.dtype.type(0.5)
    return slope * (difference - half * slope), lambda dy: dy * slope


@foreign_names.arguments_checked
def huber_loss(
    prediction: Operand,
    target: Operand,
    delta: float = 1.0,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Quadratic for small differences, linear for large ones.

        loss = d**2 / 2                         if abs(d) <= delta, d the difference
        loss = delta * (abs(d) - delta / 2)     else

    The derivative is the difference, clipped to +-delta, so that outliers pull no harder. The
    other arguments are those of `mean_squared_error`. Source: Huber 1964.

    Args:
        prediction: [...].
        target: [...].
        delta: Where the loss changes from quadratic to linear, > 0; in units of the targets.
        where: As in `mean_squared_error`.
        reduction: As in `mean_squared_error`.

    Raises:
        ValueError: as for `mean_squared_error`, or the delta is not above 0.

    >>> huber_loss([1.0, 2.0], [1.5, 6.0]).item()  # (0.125 + 3.5) / 2
    1.8125
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"huber_loss: delta must be above 0 and finite, not {delta}")
    difference, counted = _difference("huber_loss", prediction, target, where)
    return reduce_losses("huber_loss", _huber(difference, delta=delta), counted, reduction)


@differentiable
@floating
def _pinball(predictions: Input, /, targets: Input, quantiles: Input) -> Any:
    below = targets[..., None] - predictions  # how far a prediction is below its target
    slopes = np.where(below < 0, quantiles - 1, np.where(below > 0, quantiles, 0))
    slopes = slopes.astype(predictions.dtype, copy=False)
    return slopes * below, lambda dy: -dy * slopes


@foreign_names.arguments_checked
def pinball_loss(
    predictions: Operand,
    targets: Operand,
    quantiles: Sequence[float],
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss that is minimized by quantiles; several at once, one per column.

        loss = q * d          if d >= 0, d = target - prediction
        loss = (q - 1) * d    else

    For the quantile 0.5 it is half the absolute difference. Source: Koenker & Bassett 1978.

    Args:
        predictions: [..., Q].
        targets: [...].
        quantiles: Q numbers, above 0 and below 1.
        where: Booleans, broadcast to [...]: False where a target does not count (it is not read).
        reduction: "mean" over what counts and the quantiles (0 if nothing counts), "sum", or
            "none": [..., Q].

    Raises:
        ValueError: shapes do not match, a quantile is out of range, or the reduction is unknown.

    >>> pinball_loss([[1.0, 5.0]], [3.0], quantiles=[0.1, 0.9], reduction="none").data
    array([[0.2, 0.2]], dtype=float32)
    """
    name = "pinball_loss"
    levels = np.asarray(quantiles, np.float64)
    if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(
            f"{name}: quantiles are a list of numbers above 0 and below 1, not {quantiles}"
        )
    shape = np.shape(targets)
    if np.shape(predictions) != (*shape, len(levels)):
        raise ValueError(
            f"{name}: predictions of shape {np.shape(predictions)} for targets of shape {shape} "
            f"and {len(levels)} quantiles; expected {(*shape, len(levels))}"
        )
    x = as_floats(name, predictions)
    counted = counted_elements(name, where, shape)
    y = as_targets(name, targets, x.dtype, counted)
    if counted is not None:
        counted = np.broadcast_to(counted[..., None], x.shape)
    losses = _pinball(only_counted(x, counted), targets=y, quantiles=levels)
    return reduce_losses(name, losses, counted, reduction)


# Shared --------------------------------------------------------------------------------------


def reduce_losses(name: str, losses: Tensor, counted: Array | None, reduction: str) -> Tensor:
    """The "mean" over the losses that count, the "sum", or with "none" the losses themselves.

    Losses that do not count are already 0.

    Raises:
        ValueError: the reduction is unknown; the message begins with the name.
    """
    check_reduction(name, reduction)
    if reduction == "none":
        return losses
    if reduction == "mean" and counted is None and losses.size:
        mean: Tensor = losses.mean()
        return mean
    total: Tensor = losses.sum()
    count = int(counted.sum()) if counted is not None else losses.size
    return total if reduction == "sum" else total * (1 / (count or 1))


def counted_elements(
    name: str, where: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Which elements count, as booleans of a shape; None if all do.

    Raises:
        ValueError: ``where`` does not broadcast to the shape; the message begins with the name.
        TypeError: it is not an array of booleans.
    """
    if where is None:
        return None
    mask = np.asarray(where)
    if mask.dtype != bool:
        raise TypeError(f"{name}: where must be an array of booleans, not {mask.dtype}")
    if not _fits(mask.shape, shape):
        raise ValueError(
            f"{name}: where of shape {mask.shape} cannot be broadcast to {shape}, the shape of the "
            "targets"
        )
    return np.broadcast_to(mask, shape)


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a shape can be broadcast to another."""
    pairs = zip(reversed(shape), reversed(expected), strict=False)
    return len(shape) <= len(expected) and all(size in (1, other) for size, other in pairs)


def check_reduction(name: str, reduction: str) -> None:
    """Refuse an unknown reduction.

    Raises:
        ValueError: it is not "mean", "sum" or "none"; the message begins with the name.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{name}: reduction {reduction!r} is not one of {_REDUCTIONS}")


def as_floats(name: str, x: Any) -> Tensor:
    """A Tensor of floats; one that already is stays the same."""
    tensor = x if isinstance(x, Tensor) else as_tensor(x, None, name)
    return tensor if tensor.dtype.kind == "f" else Tensor(tensor.data, dtype=np.float32)


def as_targets(name: str, targets: Any, dtype: np.dtype[Any], counted: Array | None) -> Array:
    """Targets as plain numbers, 0 where they do not count."""
    array = as_tensor(targets.data if isinstance(targets, Tensor) else targets, dtype, name).data
    return array if counted is None else np.where(counted, array, dtype.type(0))


def only_counted(x: Any, counted: Array | None, otherwise: float = 0.0) -> Any:
    """A Tensor or an array with the elements that do not count replaced by a number."""
    if counted is None:
        return x
    if isinstance(x, Tensor):
        return _where(x, otherwise, condition=counted)
    return np.where(counted, x, otherwise)


def _difference(
    name: str, prediction: Any, target: Any, where: ArrayLike | None
) -> tuple[Tensor, NDArray[np.bool_] | None]:
    """Prediction minus target, 0 where they do not count."""
    if np.shape(prediction) != np.shape(target):
        raise ValueError(
            f"{name}: a prediction of shape {np.shape(prediction)} for a target of shape "
            f"{np.shape(target)}"
        )
    counted = counted_elements(name, where, np.shape(target))
    difference: Tensor = subtract(only_counted(prediction, counted), only_counted(target, counted))
    return difference, counted
