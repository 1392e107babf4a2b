"""Losses as modules, with PyTorch's constructors: each calls the operation of `anaphora.ops`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from anaphora import ops
from anaphora.nn.module import Module
from anaphora.tensor import Array, Buffer, Operand, Tensor, as_integers


class _Loss(Module):
    """A loss with a reduction, "mean", "sum" or "none"; the operation says what is raised."""

    def __init__(self, reduction: str = "mean") -> None:
        ops.losses.check_reduction(type(self).__name__, reduction)
        self.reduction = reduction

    def extra_repr(self) -> str:
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class _Weighted(_Loss):
    """A loss with weights, which are a buffer as in PyTorch."""

    weight: Buffer | None

    def __init__(self, weight: ArrayLike | None, reduction: str) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else Buffer(weight)

    def _weights(self) -> Array | None:
        return None if self.weight is None else self.weight.data


class CrossEntropyLoss(_Weighted):
    """The negative log-probability of classes under softmax, in nats: `ops.cross_entropy`.

    Shapes: logits [..., V]; targets [...] integers, or [..., V] probabilities of all classes;
    returns one number, or [...] without reduction.
    The classes are the last axis; PyTorch's second axis is ``logits.transpose(0, 2, 1)``.

    Args:
        weight: [V] the weight of each class.
        ignore_index: Targets with this value do not count.
        reduction: "mean", "sum" or "none".
        label_smoothing: The share of each target, 0 to 1, that is spread over all classes.

    Raises:
        ValueError, TypeError: as for `ops.cross_entropy`.

    >>> round(CrossEntropyLoss()([[0.0, 0.0]], [1]).item(), 4)
    0.6931
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, logits: Operand, targets: Operand) -> Tensor:
        """Shapes: logits [..., V]; targets [...], or [..., V] probabilities."""
        result: Tensor = ops.cross_entropy(
            logits, targets, self.ignore_index, self.reduction, self._weights(),
            self.label_smoothing,
        )  # fmt: skip
        return result


class NLLLoss(_Weighted):
    """The negative log-likelihood of classes, from log-probabilities: `ops.nll_loss`.

    Shapes: log_probabilities [..., V]; targets [...] integers. The classes are the last axis.

    Args:
        weight: [V] the weight of each class.
        ignore_index: Targets with this value do not count.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError, TypeError: as for `ops.nll_loss`.

    >>> NLLLoss()([[-1.0, -2.0]], [1]).item()
    2.0
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, log_probabilities: Operand, targets: Operand) -> Tensor:
        """Shapes: log_probabilities [..., V]; targets [...]."""
        result: Tensor = ops.nll_loss(
            log_probabilities, targets, self.ignore_index, self.reduction, self._weights()
        )
        return result


class MSELoss(_Loss):
    """The mean of the squared differences: `ops.mean_squared_error`.

    Args:
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: the shapes differ.

    >>> MSELoss()([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """

    def forward(self, prediction: Operand, target: Operand) -> Tensor:
        """Shapes: both [...]."""
        return ops.mean_squared_error(prediction, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The mean of the absolute differences: `ops.l1_loss`.

    Args:
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: the shapes differ.

    >>> L1Loss(reduction="sum")([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """

    def forward(self, prediction: Operand, target: Operand) -> Tensor:
        """Shapes: both [...]."""
        return ops.l1_loss(prediction, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """Quadratic for small differences, linear for large ones: `ops.huber_loss`.

    Args:
        reduction: "mean", "sum" or "none".
        delta: Where the loss changes from quadratic to linear, > 0.

    Raises:
        ValueError: the shapes differ, or the delta is not above 0.

    >>> HuberLoss()([1.0, 2.0], [1.5, 6.0]).item()
    1.8125
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, prediction: Operand, target: Operand) -> Tensor:
        """Shapes: both [...]."""
        return ops.huber_loss(prediction, target, self.delta, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """`HuberLoss` divided by its delta, here ``beta``, so that the linear part has the slope 1.

    Args:
        reduction: "mean", "sum" or "none".
        beta: Where the loss changes from quadratic to linear; 0 for `L1Loss`.

    Raises:
        ValueError: the shapes differ, or beta is negative.

    >>> SmoothL1Loss(beta=2.0)([0.0, 0.0], [1.0, 4.0]).item()  # (0.25 + 3) / 2
    1.625
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, prediction: Operand, target: Operand) -> Tensor:
        """Shapes: both [...]."""
        if self.beta == 0:
            return ops.l1_loss(prediction, target, reduction=self.reduction)
        loss = ops.huber_loss(prediction, target, self.beta, reduction=self.reduction)
        return loss / self.beta


class BCELoss(_Weighted):
    """The negative log-probability of binary targets: `ops.binary_cross_entropy`.

    Probabilities are given; `BCEWithLogitsLoss` of logits is exact
    where a probability rounds to 0 or 1.

    Args:
        weight: The weight of each loss; broadcast to its shape.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: shapes do not match, or a probability or a target is outside 0..1.

    >>> BCELoss()([0.5, 0.25], [1, 0]).item()  # (0.693 + 0.288) / 2
    0.490414...
    """

    def __init__(self, weight: ArrayLike | None = None, reduction: str = "mean") -> None:
        super().__init__(weight, reduction)

    def forward(self, probabilities: Operand, targets: Operand) -> Tensor:
        """Shapes: both [...]."""
        return ops.binary_cross_entropy(
            probabilities, targets, self._weights(), reduction=self.reduction
        )


class BCEWithLogitsLoss(_Weighted):
    """The same of logits: `ops.binary_cross_entropy_with_logits`.

    Args:
        weight: The weight of each loss; broadcast to its shape.
        reduction: "mean", "sum" or "none".
        pos_weight: The weight of positive relative to negative targets.

    Raises:
        ValueError: as for `ops.binary_cross_entropy_with_logits`.

    >>> BCEWithLogitsLoss()([0.0, 3.0], [1, 0]).item()
    1.870867...
    """

    pos_weight: Buffer | None

    def __init__(
        self,
        weight: ArrayLike | None = None,
        reduction: str = "mean",
        pos_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(weight, reduction)
        self.pos_weight = None if pos_weight is None else Buffer(pos_weight)

    def forward(self, logits: Operand, targets: Operand) -> Tensor:
        """Shapes: both [...]."""
        return ops.binary_cross_entropy_with_logits(
            logits,
            targets,
            self._weights(),
            None if self.pos_weight is None else self.pos_weight.data,
            reduction=self.reduction,
        )


class CTCLoss(_Loss):
    """Connectionist temporal classification with PyTorch's arguments: `ops.ctc_loss`.

    Args:
        blank: The class of the blank.
        reduction: "mean" (each loss divided by its number of labels), "sum" or "none".
        zero_infinity: Whether a target without alignment has the loss 0 instead of infinity.

    Raises:
        ValueError, TypeError: as for `ops.ctc_loss`, or the labels of all rows in one list are not
            as many as their lengths.

    >>> log_probabilities = np.log(np.full((2, 1, 2), 0.5))
    >>> round(CTCLoss()(log_probabilities, [[1]], [2], [1]).item(), 4)
    0.2877
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(
        self,
        log_probabilities: Operand,
        targets: ArrayLike,
        input_lengths: ArrayLike,
        target_lengths: ArrayLike,
    ) -> Tensor:
        """Compute the loss.

        Args:
            log_probabilities: [T, B, V], or logits.
            targets: [B, S], or the labels of all rows in one list.
            input_lengths: [B] the number of steps of each row.
            target_lengths: [B] the number of labels of each row.
        """
        labels = as_integers(targets, "CTCLoss: targets are integers (labels)")
        if labels.ndim == 1:
            labels = _as_rows(labels, as_integers(target_lengths, "CTCLoss: lengths are integers"))
        result: Tensor = ops.ctc_loss(
            log_probabilities,
            labels.T,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            "zero" if self.zero_infinity else "infinity",
        )
        return result


def _as_rows(labels: Array, lengths: Array) -> Array:
    """Labels in one list as [B, S], padded with 0."""
    if lengths.ndim != 1 or (lengths < 0).any() or len(labels) != lengths.sum():
        raise ValueError(
            f"CTCLoss: {len(labels)} labels in one list, but target_lengths are {lengths.tolist()};"
            " give as many labels as their sum, or [B, S]"
        )
    rows = np.zeros((len(lengths), lengths.max(initial=0)), labels.dtype)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = labels
    return rows
