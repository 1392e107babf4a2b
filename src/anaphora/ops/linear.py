"""Matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora import engine
from anaphora.tensor import Array, Input, differentiable


@differentiable
def matmul(a: Input, b: Input, /) -> Any:
    """``a @ b``: vectors, matrices, and batches of matrices, as in NumPy.

    With the native engine each element is one chain of multiply-adds in the order of its terms:
    its bits do not depend on other rows, and not on zeros that the inner axis is padded with.

    Raises:
        ValueError: the inner sizes differ, or one of them is a single number.

    >>> matmul([[1.0, 2.0]], [[3.0], [4.0]]).data
    array([[11.]], dtype=float32)
    """
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(
            f"matmul: shapes {a.shape} and {b.shape} do not match; the last axis of the first must "
            "equal the second-to-last of the second"
        )
    if b.ndim <= 2:  # one product of all rows; a vector is a matrix of one column
        rows, columns = a.reshape(math.prod(a.shape[:-1]), len(b)), b if b.ndim == 2 else b[:, None]

        def of_rows(dy: Array) -> Array:
            return dy.reshape(len(rows), columns.shape[1])

        y = _products(rows, columns).reshape((*a.shape[:-1], *b.shape[1:]))
        return y, (
            lambda dy: _products(of_rows(dy), columns.T).reshape(a.shape),
            lambda dy: _products(rows.T, of_rows(dy)).reshape(b.shape),
        )
    if a.ndim == 1:  # a matrix of one row
        y = _products(a[None], b)[..., 0, :]
        return y, (
            lambda dy: _products(dy[..., None, :], b.swapaxes(-1, -2))[..., 0, :],
            lambda dy: _products(a[:, None], dy[..., None, :]),
        )
    return _products(a, b), (
        lambda dy: _products(dy, b.swapaxes(-1, -2)),
        lambda dy: _products(a.swapaxes(-1, -2), dy),
    )


def _products(a: Array, b: Array) -> Array:
    """``a @ b`` of matrices or batches of them, [..., M, K] and [..., K, N], by the engine."""
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    count = math.prod(shape)

    def batch(x: Array) -> Array:
        wide = x if x.shape[:-2] == shape else np.broadcast_to(x, (*shape, *x.shape[-2:]))
        return wide.reshape(count, *x.shape[-2:])

    return engine.batch_matmul(batch(a), batch(b)).reshape((*shape, a.shape[-2], b.shape[-1]))


@differentiable
def linear(x: Input, weight: Input, bias: Input | None = None, /) -> Any:
    """``x W^T + b``.

    Shapes: x [..., I]; weight [O, I]; bias [O]; returns [..., O].

    Raises:
        ValueError: the shapes do not match.

    >>> linear([1.0, 2.0], [[3.0, 4.0], [0.0, 1.0]], [0.5, 0.0]).data
    array([11.5,  2. ], dtype=float32)
    """
    check_linear("linear", x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    y = engine.matmul(rows, weight.T, bias)

    def pull_x(dy: Array) -> Array:
        return engine.matmul(dy.reshape(-1, dy.shape[-1]), weight, gradient="input").reshape(
            x.shape
        )

    def pull_weight(dy: Array) -> Array:
        return engine.matmul(dy.reshape(-1, dy.shape[-1]).T, rows, gradient="weight")

    def pull_bias(dy: Array) -> Array:
        return engine.sum_columns(dy.reshape(-1, dy.shape[-1]))

    return y.reshape(*x.shape[:-1], len(weight)), (pull_x, pull_weight, pull_bias)


def check_linear(name: str, x: Array, weight: Array, bias: Array | None) -> None:
    """Check the shapes of ``x W^T + b``.

    Raises:
        ValueError: the shapes do not match; the message starts with the name.
    """
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{name}: an input of shape {x.shape} for a weight of shape {weight.shape}; the weight "
            "is [O, I] and the input [..., I]"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{name}: a bias of shape {bias.shape} for a weight of shape {weight.shape}; expected "
            f"{weight.shape[:1]}"
        )
