"""Batch normalization; that of layers is in `anaphora.ops.network`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora import engine
from anaphora.tensor import Array, Input, differentiable, floating


@differentiable
@floating
def batch_norm(
    x: Input,
    weight: Input | None = None,
    bias: Input | None = None,
    /,
    epsilon: float = 1e-5,
    where: Input | None = None,
) -> Any:
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias``, over all axes but the last.

    Mean and variance (divided by the number of rows) are those of each feature over the rows that
    count; other rows become 0.

    Shapes: x [..., I]; weight [I]; bias [I]; returns y [..., I], the mean [I] and the variance [I],
    which have no gradient. Source: Ioffe & Szegedy 2015.

    Args:
        x: The rows.
        weight: The factor of each feature, or None.
        bias: What is added to each feature, or None.
        epsilon: Added to the variance.
        where: [...] booleans, False where a row does not count; None if all do.

    Raises:
        ValueError: the shapes do not match, or no row counts.

    >>> y, mean, variance = batch_norm([[1.0, 5.0], [3.0, 9.0]], epsilon=0)
    >>> y.data.tolist(), mean.data.tolist(), variance.data.tolist()
    ([[-1.0, -1.0], [1.0, 1.0]], [2.0, 7.0], [1.0, 4.0])
    """
    if x.ndim < 2:
        raise ValueError(f"batch_norm: an input of shape {x.shape}; expected [..., I]")
    I = x.shape[-1]
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != (I,):
            raise ValueError(f"batch_norm: a {name} of shape {vector.shape}; expected {(I,)}")
    mask = None
    if where is not None:
        mask = np.asarray(where, bool)
        if mask.shape != x.shape[:-1]:
            raise ValueError(
                f"batch_norm: where of shape {mask.shape} for an input of shape {x.shape}; "
                f"expected {x.shape[:-1]}"
            )
        mask = mask.reshape(-1)
    if not (math.prod(x.shape[:-1]) if mask is None else mask.any()):
        raise ValueError("batch_norm: no row counts, so there is no mean")
    y, mean, variance, factors = engine.batch_norm_forward(x, mask, weight, bias, epsilon)

    def pullback(gradients: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
        if gradients[0] is None:
            return None, None, None
        dx, (d_weight, d_bias) = engine.batch_norm_backward(
            x, mask, weight, mean, factors, gradients[0]
        )
        return dx, None if weight is None else d_weight, None if bias is None else d_bias

    return (y, mean, variance), pullback
