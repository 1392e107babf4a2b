"""Matrix products."""

from __future__ import annotations

from typing import Any

from anaphora import engine
from anaphora.tensor import Array, differentiable


@differentiable
def matmul(a: Array, b: Array, /) -> Any:
    """``a @ b``: vectors, matrices, and batches of matrices, as in NumPy.

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
    # A vector is a matrix of one row on the left, of one column on the right.
    rows = a[None, :] if a.ndim == 1 else a
    columns = b[:, None] if b.ndim == 1 else b

    def widen(dy: Array) -> Array:
        if b.ndim == 1:
            dy = dy[..., None]
        return dy[..., None, :] if a.ndim == 1 else dy

    def pull_a(dy: Array) -> Array:
        da = widen(dy) @ columns.swapaxes(-1, -2)
        return da[..., 0, :] if a.ndim == 1 else da

    def pull_b(dy: Array) -> Array:
        db = rows.swapaxes(-1, -2) @ widen(dy)
        return db[..., 0] if b.ndim == 1 else db

    return a @ b, (pull_a, pull_b)


@differentiable
def linear(x: Array, weight: Array, bias: Array | None = None, /) -> Any:
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
