"""Embedding, one-hot vectors, dropout and layer normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anaphora import engine, random
from anaphora.ops.activations import softmax
from anaphora.ops.arithmetic import add, divide
from anaphora.tensor import (
    Array,
    Input,
    Operand,
    RowGradient,
    Tensor,
    as_integers,
    as_tensor,
    composed,
    differentiable,
    floating,
)


@differentiable
def embedding(weight: Input, /, ids: Input, padding_idx: int | None = None) -> Any:
    """Look up rows of a table, whose gradient is a `RowGradient`.

    Args:
        weight: [V, E].
        ids: [...] integers in 0..V-1.
        padding_idx: An id whose row gets no gradient, or None.

    Returns:
        [..., E].

    Raises:
        TypeError: the ids are not integers.
        IndexError: an id is outside the table.

    >>> table = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    >>> embedding(table, [2, 0, 2]).sum().backward()
    >>> table.grad
    RowGradient(2 of 3 rows, float32)
    >>> table.grad.values
    array([[1., 1.],
           [2., 2.]], dtype=float32)
    """
    # A copy, since the caller may reuse the array for the next batch.
    ids = as_integers(ids, "embedding: ids are integers")

    def pullback(dy: Array) -> RowGradient:
        if padding_idx is None:
            return RowGradient(ids, dy, weight.shape)
        return RowGradient(ids[ids != padding_idx], dy[ids != padding_idx], weight.shape)

    return engine.gather_rows(weight, ids), pullback


@composed
def one_hot(ids: Operand, num_classes: int | None = None, dtype: DTypeLike = np.float32) -> Tensor:
    """A vector for each id: 1 at the id, 0 elsewhere. It has no gradient.

    `embedding` and the losses over classes take ids directly, which is faster.

    Args:
        ids: [...] integers in 0..V-1.
        num_classes: V; None for the largest id plus 1.
        dtype: Of the result; PyTorch's is int64.

    Returns:
        [..., V].

    Raises:
        TypeError: the ids are not integers.
        IndexError: an id is negative or `num_classes` or more.
        ValueError: there are no ids, and no number of classes.

    >>> one_hot([2, 0], 3).data
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    array = as_integers(ids, "one_hot: ids are integers")
    if num_classes is None:
        if array.size == 0:
            raise ValueError("one_hot: without ids, give num_classes")
        num_classes = int(array.max()) + 1
    outside = array[(array < 0) | (array >= num_classes)]
    if outside.size:
        raise IndexError(
            f"one_hot: an id of {outside[0]} for {num_classes} classes; ids are in "
            f"0..{num_classes - 1}"
        )
    return Tensor(array[..., None] == np.arange(num_classes), dtype=dtype)


@differentiable
@floating
def _dropout(x: Input, /, rate: float, key: int, shared_axes: Sequence[int]) -> Any:
    y = engine.dropout(x, rate, key, shared_axes)
    return y, lambda dy: engine.dropout(dy, rate, key, shared_axes)  # the same mask, regenerated


@composed
def gumbel_softmax(
    logits: Operand, temperature: float = 1.0, hard: bool = False, axis: int = -1
) -> Tensor:
    """A random choice that has a gradient: softmax of logits with noise (Jang et al. 2017).

    The largest of ``logits + noise``, where the noise has a Gumbel distribution, is class k with
    the probability ``softmax(logits)[k]``. The noise comes from `anaphora.random.generator`.

    Args:
        logits: [...].
        temperature: What they are divided by, > 0: towards 0 the result becomes a choice.
        hard: Whether the result is one-hot; its gradient is that of the soft one.
        axis: The axis of the classes.

    Returns:
        [...], as the logits.

    Raises:
        ValueError: the temperature is not above 0.

    >>> random.seed(1)
    >>> gumbel_softmax([0.0, 0.0, 50.0], hard=True).data
    array([0., 0., 1.], dtype=float32)
    """
    if not temperature > 0:
        raise ValueError(f"gumbel_softmax: temperature must be above 0, not {temperature!r}")
    x = as_tensor(logits, None, "gumbel_softmax")
    noise = random.generator().gumbel(size=x.shape).astype(np.result_type(x.dtype, np.float32))
    soft: Tensor = softmax(divide(add(x, noise), temperature), axis)
    if not hard:
        return soft
    choices = np.eye(soft.shape[axis], dtype=soft.dtype)[soft.data.argmax(axis)]
    chosen: Tensor = add(soft, np.moveaxis(choices, -1, axis) - soft.data)
    return chosen


@composed
def dropout(x: Tensor, rate: float, shared_axes: Sequence[int] = ()) -> Tensor:
    """Set elements to 0 with probability `rate`; divide the others by ``1 - rate``.

    No mask is stored: it is a function of the position and one random number from
    `anaphora.random.generator`.

    Args:
        x: [...].
        rate: The probability that an element is dropped, 0 <= rate < 1.
        shared_axes: Axes along which the mask is the same: ``(0,)`` on [T, B, H] is the locked
            (variational) dropout of Gal & Ghahramani 2016.

    Raises:
        ValueError: the rate is outside 0 <= rate < 1.

    >>> y = dropout(Tensor(np.ones((5, 3, 4))), 0.5, shared_axes=(0,)).data
    >>> bool((y == y[0]).all()), set(y.flatten().tolist()) <= {0.0, 2.0}
    (True, True)
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate, the share to drop, must be >= 0 and < 1, not {rate}")
    if rate == 0:
        return x if isinstance(x, Tensor) else as_tensor(x, None, "dropout")
    key = int(random.generator().integers(2**64, dtype=np.uint64))
    return _dropout(x, rate, key, tuple(shared_axes))


@differentiable
@floating
def layer_norm(
    x: Input, weight: Input | None = None, bias: Input | None = None, /, epsilon: float = 1e-5
) -> Any:
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` over the last axis.

    Shapes: x [..., H]; weight [H]; bias [H]; returns [..., H]. Source: Ba et al. 2016.

    Raises:
        ValueError: the shapes do not match.

    >>> layer_norm([[1.0, 3.0]], epsilon=0).data
    array([[-1.,  1.]], dtype=float32)
    """
    if x.ndim == 0:
        raise ValueError("layer_norm: the input is a single number; expected [..., H]")
    H = x.shape[-1]
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != (H,):
            raise ValueError(
                f"layer_norm: a {name} of shape {vector.shape} for an input of shape {x.shape}; "
                f"expected {(H,)}"
            )
    rows = x.reshape(-1, H)
    y, means, factors = engine.layer_norm_forward(rows, weight, bias, epsilon)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dx, d_weight, d_bias = engine.layer_norm_backward(
            rows, weight, means, factors, dy.reshape(-1, H)
        )
        return (
            dx.reshape(x.shape),
            None if weight is None else d_weight,
            None if bias is None else d_bias,
        )

    return y.reshape(x.shape), pullback
