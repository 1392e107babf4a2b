"""Attention scores, and their softmax over sequences of different lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora import engine
from anaphora.tensor import Array, Input, differentiable, floating


@differentiable
@floating
def masked_softmax(x: Input, /, mask: Input) -> Any:
    """`softmax` along the last axis over unmasked elements; masked ones become 0.

    A row that is fully masked is 0.

    Args:
        x: [...].
        mask: Booleans that broadcast to the shape of x, True where an element is included.

    Raises:
        ValueError: the mask does not broadcast to that shape.

    >>> masked_softmax([[1.0, 1.0, 9.0], [2.0, 3.0, 4.0]], [[True, True, False], [False] * 3]).data
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 0. ]], dtype=float32)
    """
    kept = np.asarray(mask, bool)
    try:
        kept = np.broadcast_to(kept, x.shape)
    except ValueError:
        raise ValueError(
            f"masked_softmax: a mask of shape {kept.shape} for scores of shape {x.shape}; expected "
            "one that broadcasts to it"
        ) from None
    rows = math.prod(x.shape[:-1]), x.shape[-1]
    y = engine.softmax_forward(x.reshape(rows), kept.reshape(rows))

    def pullback(dy: Array) -> Array:
        return engine.softmax_backward(y, dy.reshape(rows)).reshape(x.shape)

    return y.reshape(x.shape), pullback


@differentiable
@floating
def additive_scores(queries: Input, keys: Input, weight: Input, /) -> Any:
    """``weight . tanh(query + key)`` of every query with every key of its row.

    All sums together would be [T, S, B, A]; they are computed, and recomputed in the backward pass,
    for one query of each row at a time.

    Shapes: queries [T, B, A]; keys [S, B, A]; weight [A]; returns [B, T, S].

    Raises:
        ValueError: the shapes do not match.

    >>> additive_scores([[[0.0]]], [[[0.0]], [[100.0]]], [2.0]).data
    array([[[0., 2.]]], dtype=float32)
    """
    fits = queries.ndim == keys.ndim == 3 and queries.shape[1:] == keys.shape[1:]
    if not fits or weight.shape != keys.shape[2:]:
        raise ValueError(
            f"additive_scores: queries {queries.shape}, keys {keys.shape} and a weight "
            f"{weight.shape}; expected [T, B, A], [S, B, A] and [A]"
        )
    (T, B, A), S = queries.shape, len(keys)

    def hidden(t: int) -> Array:
        """The hidden layer of every key with the query at t: [S, B, A]."""
        sums = np.asarray(keys + queries[t])
        np.tanh(sums, out=sums)
        return sums

    scores = np.empty((B, T, S), keys.dtype)
    for t in range(T):
        products = engine.matmul(hidden(t).reshape(-1, A), weight[:, None])
        scores[:, t] = products.reshape(S, B).T

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        d_queries, d_keys, d_weight = (np.zeros_like(array) for array in (queries, keys, weight))
        for t in range(T):
            h, d_scores = hidden(t), dy[:, t].T[:, :, None]  # [S, B, A], [S, B, 1]
            d_weight += engine.sum_columns((d_scores * h).reshape(-1, A))
            d_sums = h
            np.multiply(h, h, out=d_sums)
            np.subtract(1, d_sums, out=d_sums)
            d_sums *= weight
            d_sums *= d_scores
            d_queries[t] = engine.sum_columns(d_sums.reshape(S, B * A)).reshape(B, A)
            d_keys += d_sums
        return d_queries, d_keys, d_weight

    return scores, pullback
