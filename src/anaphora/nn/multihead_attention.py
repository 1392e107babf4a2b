"""Attention of several heads, with PyTorch's parameters and arguments."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import foreign_names, ops
from anaphora.nn import initialization as initialize
from anaphora.nn.layers import Linear
from anaphora.nn.module import Module
from anaphora.ops.recurrence import checked_lengths, within
from anaphora.options import check_shares, check_sizes
from anaphora.tensor import Operand, Tensor, as_tensor


class MultiheadAttention(Module):
    """Scaled dot-product attention of several heads (Vaswani et al. 2017).

        weights = softmax(q k^T / sqrt(E / heads))      q, k, v: a head's share of W x + b
        y = W_out concatenate(weights v) + b_out

    Shapes: query [T, B, E]; key [S, B, K]; value [S, B, V] ([B, T, ...] with ``batch_first``, no B
    for one sequence); returns y [T, B, E] and the weights [B, T, S]. Parameters are PyTorch's:
    in_proj_weight [3 * E, E] (or q_proj_weight [E, E], k_proj_weight [E, K], v_proj_weight [E, V]
    if K or V is not E), in_proj_bias [3 * E], out_proj.weight [E, E], out_proj.bias [E].

    Args:
        embed_dim: E.
        num_heads: The number of heads, which divides E.
        dropout: The share of the weights that is dropped in training.
        bias: Whether to add the biases.
        kdim: K; E if None.
        vdim: V; E if None.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...].
        dtype: float32 or float64.

    Raises:
        ValueError: a size is out of range, or E is not a multiple of the heads.

    >>> attention = MultiheadAttention(embed_dim=4, num_heads=2)
    >>> states = np.ones((5, 2, 4), np.float32)
    >>> y, weights = attention(states[:3], states, states, lengths=[5, 2])
    >>> y.shape, weights.data[1, 0].tolist()
    ((3, 2, 4), [0.5, 0.5, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, embed_dim=embed_dim, num_heads=num_heads, kdim=kdim, vdim=vdim)
        check_shares(self, dropout=dropout)
        if embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: embed_dim={embed_dim} must be a multiple of num_heads="
                f"{num_heads}"
            )
        self.embed_dim = E = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.kdim = E if kdim is None else kdim
        self.vdim = E if vdim is None else vdim
        self.batch_first = batch_first
        self.dtype = initialize.parameter_dtype(dtype)
        if self.kdim == self.vdim == E:
            self.in_proj_weight = initialize.parameter((3 * E, E), dtype)
        else:
            self.q_proj_weight = initialize.parameter((E, E), dtype)
            self.k_proj_weight = initialize.parameter((E, self.kdim), dtype)
            self.v_proj_weight = initialize.parameter((E, self.vdim), dtype)
        self.in_proj_bias = initialize.parameter((3 * E,), dtype) if bias else None
        self.out_proj = Linear(E, E, bias, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the parameters again: Xavier's uniform distribution; biases are 0."""
        self.out_proj.reset_parameters()
        if not initialize.is_enabled():
            return
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                initialize.constant(parameter, 0)
            elif name.endswith("proj_weight"):
                initialize.xavier(parameter)

    @foreign_names.arguments_checked
    def forward(
        self,
        query: Operand,
        key: Operand,
        value: Operand,
        key_padding_mask: ArrayLike | None = None,
        need_weights: bool = True,
        attn_mask: ArrayLike | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        lengths: ArrayLike | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to values, for each query.

        A query that may attend to nothing has weights of 0, and the output of a value of 0.

        Args:
            query: [T, B, E].
            key: [S, B, K].
            value: [S, B, V].
            key_padding_mask: [B, S] booleans, True for what is not attended to, as in PyTorch.
            need_weights: Whether to return the weights; else None.
            attn_mask: [T, S], or [B * heads, T, S]: booleans, True for what is not attended to; or
                numbers that are added to the scores.
            average_attn_weights: Whether the weights are the mean over the heads, [B, T, S], or
                those of all, [B, heads, T, S].
            is_causal: Each query attends to no key after its own step.
            lengths: [B] the number of keys of each row, in place of `key_padding_mask`.

        Returns:
            y [T, B, E] and the weights (before dropout).

        Raises:
            ValueError: a shape does not match.
        """
        query, key, value = (
            as_tensor(x, self.dtype, f"MultiheadAttention: a {name}")
            for name, x in (("query", query), ("key", key), ("value", value))
        )
        single = query.ndim == 2
        if single:  # one sequence
            query, key, value = (x.reshape(x.shape[0], 1, x.shape[-1]) for x in (query, key, value))
        elif self.batch_first:
            query, key, value = (x.transpose(1, 0, 2) for x in (query, key, value))
        (T, B, _), S = query.shape, key.shape[0]
        for name, x, shape in (
            ("query", query, (T, B, self.embed_dim)),
            ("key", key, (S, B, self.kdim)),
            ("value", value, (S, B, self.vdim)),
        ):
            if x.shape != shape:
                raise ValueError(
                    f"MultiheadAttention: a {name} of shape {x.shape}; expected {shape}, time "
                    "before batch (or batch_first=True)"
                )
        q, k, v = self._heads(query, key, value)  # [B, heads, T or S, E / heads]
        scores = ops.matmul(q * (1 / math.sqrt(q.shape[-1])), k.transpose(0, 1, 3, 2))
        kept = self._kept(B, T, S, key_padding_mask, lengths, is_causal)
        if attn_mask is not None:
            added = np.asarray(attn_mask)
            if added.shape not in ((T, S), (B * self.num_heads, T, S)):
                raise ValueError(
                    f"MultiheadAttention: attn_mask of shape {added.shape}; expected {(T, S)} or "
                    f"{(B * self.num_heads, T, S)}"
                )
            added = added.reshape(-1, self.num_heads if added.ndim == 3 else 1, T, S)
            if added.dtype == bool:
                kept = kept & ~added
            else:
                kept = kept & ~np.isneginf(added)
                scores = scores + np.where(np.isneginf(added), 0, added).astype(self.dtype)
        weights = ops.masked_softmax(scores, kept)  # [B, heads, T, S]
        applied = ops.dropout(weights, self.dropout) if self.training else weights
        contexts = ops.matmul(applied, v).transpose(2, 0, 1, 3)
        y = self.out_proj(contexts.reshape(T, B, self.embed_dim))
        if single:
            y = y.reshape(T, self.embed_dim)
        elif self.batch_first:
            y = y.transpose(1, 0, 2)
        if not need_weights:
            return y, None
        weights = weights.mean(axis=1) if average_attn_weights else weights
        return y, weights.reshape(*weights.shape[1:]) if single else weights

    def _heads(self, *inputs: Tensor) -> list[Tensor]:
        """Queries, keys and values of all heads, [B, heads, T or S, E / heads]."""
        E = self.embed_dim
        if self.kdim == self.vdim == E:
            weights = list(ops.split(self.in_proj_weight, 3))
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        bias = self.in_proj_bias
        biases = [None] * 3 if bias is None else list(ops.split(bias, 3))
        return [
            ops.linear(x, weight, one)
            .reshape(*x.shape[:2], self.num_heads, E // self.num_heads)
            .transpose(1, 2, 0, 3)
            for x, weight, one in zip(inputs, weights, biases, strict=True)
        ]

    def _kept(
        self,
        B: int,
        T: int,
        S: int,
        key_padding_mask: ArrayLike | None,
        lengths: ArrayLike | None,
        is_causal: bool,
    ) -> Any:
        """Booleans that broadcast to [B, heads, T, S], True for what is attended to."""
        masks: list[Any] = []
        ends = checked_lengths("MultiheadAttention", lengths, (S, B))
        if ends is not None:
            masks.append(within(ends, S).T[:, None, None])
        if is_causal:
            masks.append(np.tri(T, S, dtype=bool)[None, None])
        if key_padding_mask is not None:
            mask = np.atleast_2d(np.asarray(key_padding_mask, bool))
            if mask.shape != (B, S):
                raise ValueError(
                    f"MultiheadAttention: key_padding_mask of shape {mask.shape}; expected {(B, S)}"
                )
            masks.append(~mask[:, None, None])
        return functools.reduce(operator.and_, masks) if masks else np.ones((1, 1, 1, 1), bool)

    def extra_repr(self) -> str:  # noqa: D102
        options = f"{self.embed_dim}, {self.num_heads}"
        options += f", dropout={self.dropout}" if self.dropout else ""
        return options + (", batch_first=True" if self.batch_first else "")
