"""Attention: for each query, a mean of the states of a sequence, weighted by similarity."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from anaphora import ops
from anaphora.nn.initialization import Initialization
from anaphora.nn.layers import Linear
from anaphora.nn.module import Module
from anaphora.ops.recurrence import checked_lengths
from anaphora.options import check_sizes
from anaphora.tensor import Tensor, as_tensor


class Memory(NamedTuple):
    """States that queries attend to; `Attention.remember` makes one.

    Attributes:
        states: [S, B, E].
        keys: [S, B, A], with which queries are compared.
        mask: [B, 1, S], False in the padding.

    >>> memory = MultiplicativeAttention(3, 4).remember(np.ones((5, 2, 4), np.float32), [5, 2])
    >>> memory.keys.shape, memory.rows([1]).mask.tolist()
    ((5, 2, 3), [[[True, True, False, False, False]]])
    """

    states: Tensor
    keys: Tensor
    mask: NDArray[np.bool_]

    def rows(self, index: ArrayLike) -> Memory:
        """The memory of the given rows of the batch, by index."""
        rows = np.asarray(index)
        return Memory(self.states[:, rows], self.keys[:, rows], self.mask[rows])


class Attention(Module):
    """The base of both kinds: a subclass computes keys from states, and scores from both.

        weights = softmax(scores) over the states within the length of their row
        context = sum of weights * states

    The weights are 0 in the padding. A row of length 0 has weights and a context of 0.

    Shapes: queries [T, B, Q]; states [S, B, E]; lengths [B]; returns contexts [T, B, E] and weights
    [T, B, S].

    Args:
        query_size: Q.
        state_size: E.

    >>> attention = AdditiveAttention(query_size=3, state_size=4)
    >>> queries, states = np.ones((6, 2, 3), np.float32), np.ones((5, 2, 4), np.float32)
    >>> contexts, weights = attention(queries, states, lengths=[5, 2])
    >>> contexts.shape, weights.data[0, 1].tolist()
    ((6, 2, 4), [0.5, 0.5, 0.0, 0.0, 0.0])
    """

    def __init__(self, query_size: int, state_size: int) -> None:
        check_sizes(self, query_size=query_size, state_size=state_size)
        self.query_size = query_size
        self.state_size = state_size

    def keys(self, states: Tensor) -> Tensor:
        """The keys that queries are compared with: states [S, B, E] give [S, B, A]."""
        raise NotImplementedError(f"{type(self).__name__} does not define keys()")

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The similarities: queries [T, B, Q] and keys [S, B, A] give [B, T, S]."""
        raise NotImplementedError(f"{type(self).__name__} does not define scores()")

    def remember(self, states: Tensor, lengths: ArrayLike | None = None) -> Memory:
        """Compute the keys, once for all later queries.

        Args:
            states: [S, B, E].
            lengths: [B] the number of states of each row, or None for all S.

        Raises:
            ValueError: a shape does not match, or a length is outside 0..S.
        """
        name = type(self).__name__
        dtype = next((parameter.dtype for parameter in self.parameters()), None)
        states = as_tensor(states, dtype, f"{name}: states")
        if states.ndim != 3 or states.shape[2] != self.state_size:
            raise ValueError(
                f"{name}: states of shape {states.shape}; expected [S, B, {self.state_size}]"
            )
        S, B, _ = states.shape
        checked = checked_lengths(name, lengths, states.shape)
        ends = np.full(B, S) if checked is None else checked
        return Memory(states, self.keys(states), (np.arange(S) < ends[:, None])[:, None])

    def attend(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The contexts [T, B, E] and the weights [T, B, S] of queries [T, B, Q].

        Raises:
            ValueError: the shape of the queries does not match.
        """
        queries = as_tensor(queries, memory.keys.dtype, f"{type(self).__name__}: queries")
        B = memory.states.shape[1]
        if queries.ndim != 3 or queries.shape[1:] != (B, self.query_size):
            raise ValueError(
                f"{type(self).__name__}: queries of shape {queries.shape}; expected "
                f"[T, {B}, {self.query_size}]"
            )
        weights = ops.masked_softmax(self.scores(queries, memory.keys), memory.mask)  # [B, T, S]
        contexts = ops.matmul(weights, memory.states.transpose(1, 0, 2))
        return contexts.transpose(1, 0, 2), weights.transpose(1, 0, 2)

    def forward(
        self, queries: Tensor, states: Tensor, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, Tensor]:
        """`remember`, then `attend`."""
        return self.attend(queries, self.remember(states, lengths))

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.query_size}, {self.state_size}"


class MultiplicativeAttention(Attention):
    """Multiplicative attention (Luong et al. 2015, "general").

        score = query . (W state)

    Shapes: as `Attention`; key.weight [Q, E].

    Args:
        query_size: Q.
        state_size: E.
        initialization: As for `Linear`.
        dtype: float32 or float64.

    Raises:
        ValueError: a size is below 1, or the initialization is unknown; at the call, a shape does
            not match or a length is outside 0..S.

    >>> attention = MultiplicativeAttention(query_size=3, state_size=4)
    >>> contexts, weights = attention(np.ones((6, 2, 3), np.float32), np.ones((5, 2, 4), "f"))
    >>> contexts.shape, weights.shape
    ((6, 2, 4), (6, 2, 5))
    """

    def __init__(
        self,
        query_size: int,
        state_size: int,
        *,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(query_size, state_size)
        self.key = Linear(
            state_size, query_size, bias=False, initialization=initialization, dtype=dtype
        )

    def keys(self, states: Tensor) -> Tensor:
        """Shapes: states [S, B, E]; returns [S, B, Q]."""
        return self.key(states)

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Shapes: queries [T, B, Q]; keys [S, B, Q]; returns [B, T, S]."""
        result: Tensor = ops.matmul(queries.transpose(1, 0, 2), keys.transpose(1, 2, 0))
        return result


class AdditiveAttention(Attention):
    """Additive attention (Bahdanau et al. 2015).

        score = v . tanh(W query + U state)

    Shapes: as `Attention`; query.weight (W) [A, Q]; key.weight (U) [A, E]; score.weight (v) [1, A].

    Args:
        query_size: Q.
        state_size: E.
        attention_size: A; Q if None.
        initialization: As for `Linear`.
        dtype: float32 or float64.

    Raises:
        ValueError: as for `MultiplicativeAttention`.

    >>> attention = AdditiveAttention(query_size=3, state_size=4, attention_size=5)
    >>> [(name, parameter.shape) for name, parameter in attention.named_parameters()]
    [('query.weight', (5, 3)), ('key.weight', (5, 4)), ('score.weight', (1, 5))]
    """

    def __init__(
        self,
        query_size: int,
        state_size: int,
        attention_size: int | None = None,
        *,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(query_size, state_size)
        A = query_size if attention_size is None else attention_size
        check_sizes(self, attention_size=A)
        self.query, self.key, self.score = (
            Linear(inputs, outputs, bias=False, initialization=initialization, dtype=dtype)
            for inputs, outputs in ((query_size, A), (state_size, A), (A, 1))
        )

    def keys(self, states: Tensor) -> Tensor:
        """Shapes: states [S, B, E]; returns [S, B, A]."""
        return self.key(states)

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Shapes: queries [T, B, Q]; keys [S, B, A]; returns [B, T, S]."""
        result: Tensor = ops.additive_scores(self.query(queries), keys, self.score.weight[0])
        return result
