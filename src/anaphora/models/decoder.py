"""The decoder, which generates a sequence token by token, and the base of models with one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.data import Codec, PairBatch, PairCodec
from anaphora.models.body import DecoderBody
from anaphora.models.reader import make_embedding, make_linear, make_recurrent, tie
from anaphora.models.saved import SavedModel
from anaphora.models.sequences import token_loss
from anaphora.nn.states import State
from anaphora.tensor import Tensor

ATTENTIONS = {
    "additive": nn.AdditiveAttention,
    "multiplicative": nn.MultiplicativeAttention,
}
"""The kinds of attention by name."""


class Decoder(nn.Module):
    """Embedding, recurrent layers, attention if there is a memory, and scores of the next token.

        h_t = recurrent(embedding(y_t-1))
        c_t = attention(h_t, memory)
        a_t = tanh(W [c_t, h_t])             input of the output layer; without attention h_t
        scores_t = output(a_t)

    Attention follows the recurrent layers (Luong et al. 2015), and `a_t` is not fed back to them:
    in training, where all y are known (teacher forcing), the recurrence runs over the complete
    target in one call, and attention and scores of all steps are a few matrix products. With the
    input feeding of Luong et al., each step would depend on the attention of the step before.

    Shapes: ids [T, N]; state as for `nn.Recurrent`; memory of B rows; returns features a [T, N, F],
    state, weights [T, N, S]. N may be K * B: row ``k * B + b`` then attends to row b of the memory.

    Args:
        body: The options; with ``tied``, F is E, otherwise H.
        vocabulary_size: V.
        attention: "additive", "multiplicative", or "none".
        memory_size: The size of the states that are attended to; None for H.
        end_id: The token that ends a sequence, and precedes its first token.

    Raises:
        ValueError: an option is out of range.

    >>> import numpy as np
    >>> from anaphora.models.body import DecoderBody
    >>> decoder = Decoder(DecoderBody(hidden_size=4), vocabulary_size=10, attention="additive")
    >>> memory = decoder.attention.remember(np.ones((5, 2, 4), np.float32), lengths=[5, 3])
    >>> features, state, weights = decoder([[1, 2], [3, 4], [5, 6]], None, memory)
    >>> features.shape, weights.shape
    ((3, 2, 4), (3, 2, 5))
    """

    def __init__(
        self,
        body: DecoderBody,
        vocabulary_size: int,
        *,
        attention: str = "none",
        memory_size: int | None = None,
        end_id: int = 0,
    ) -> None:
        if vocabulary_size < 2 or not 0 <= end_id < vocabulary_size:
            raise ValueError(
                f"Decoder: end_id is {end_id} and vocabulary_size {vocabulary_size}; expected an "
                "id below vocabulary_size, which is at least 2"
            )
        self.vocabulary_size = vocabulary_size
        self.end_id = end_id
        self.embedding = make_embedding(body, vocabulary_size)
        self.recurrent = make_recurrent(body, self.embedding.embedding_dim, is_given_states=True)
        self.drop = nn.Dropout(body.dropout, body.locked_dropout)
        size = self.embedding.embedding_dim if body.tied else body.hidden_size
        self.attention: nn.Attention | None = None
        if attention != "none":
            memory_size = body.hidden_size if memory_size is None else memory_size
            self.attention = ATTENTIONS[attention](
                body.hidden_size,
                memory_size,
                initialization=body.initialization,
                dtype=body.dtype,
            )
            self.combine = make_linear(body, memory_size + body.hidden_size, size, bias=False)
        self.output = make_linear(body, size, vocabulary_size)
        if body.tied:
            tie(self.output, self.embedding, body.initialization)

    def forward(
        self,
        ids: Any,
        state: Any,
        memory: nn.Memory | None = None,
        lengths: ArrayLike | None = None,
    ) -> tuple[Tensor, State, Tensor | None]:
        """Read tokens; return the inputs of the output layer, the state, and attention weights.

        Args:
            ids: [T, N] integers: the token before each token to score.
            state: The initial state of the recurrent layers; None for zeros.
            memory: What to attend to, for a decoder with attention.
            lengths: [N] the number of steps of each row, or None for all T.

        Raises:
            ValueError: there is a memory but no attention, or the reverse; or N is not a multiple
                of the rows of the memory.
        """
        if (memory is None) != (self.attention is None):
            raise ValueError("Decoder: give a memory to a decoder with attention, and only to one")
        y, state = self.recurrent(self.drop(self.embedding(ids)), state, lengths=lengths)
        weights = None
        if self.attention is not None and memory is not None:
            T, N, H = y.shape
            B, S = memory.mask.shape[0], memory.mask.shape[2]
            if N % max(B, 1):
                raise ValueError(
                    f"Decoder: ids have {N} rows and the memory {B}; expected a multiple of {B}"
                )
            # Rows that share a memory are queries of it.
            contexts, weights = self.attention.attend(y.reshape(T * N // max(B, 1), B, H), memory)
            contexts = contexts.reshape(T, N, self.attention.state_size)
            weights = weights.reshape(T, N, S)
            y = ops.tanh(self.combine(ops.concatenate([contexts, y], axis=-1)))
        return self.drop(y), state, weights


class ConditionalLanguageModel(SavedModel):
    """The base of models whose decoder generates a sequence from a source.

    A subclass makes ``decoder``, and implements `encode`. `anaphora.generation.beam_search`
    generates with any of them.

    Attributes:
        decoder: The `Decoder`.

    >>> from anaphora.models import VectorToSequence
    >>> isinstance(VectorToSequence(3, vocabulary_size=10, hidden_size=4), ConditionalLanguageModel)
    True
    """

    loss_kind: ClassVar[str | None] = "tokens"
    codec_type: ClassVar[type[Codec]] = PairCodec
    decoder: Decoder

    @abstractmethod
    def encode(
        self, source: Any, lengths: ArrayLike | None = None
    ) -> tuple[State, nn.Memory | None]:
        """Encode a source: return the decoder's initial state, and the memory it attends to."""

    def forward(
        self,
        source: Any,
        inputs: Any,
        source_lengths: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Score the tokens that may follow each input (teacher forcing).

        Args:
            source: As for `encode`.
            inputs: [T, B] integers, the token before each token to score; first the decoder's
                ``end_id``.
            source_lengths: [B] the number of steps of each row of the source, or None for all.
            lengths: [B] the number of inputs of each row, or None for all T.

        Returns:
            The logits [T, B, V], and the attention weights [T, B, S] or None.
        """
        state, memory = self.encode(source, source_lengths)
        features, _, weights = self.decoder(inputs, state, memory, lengths)
        return self.decoder.output(features), weights

    def loss(self, batch: PairBatch, state: Any = None) -> tuple[Tensor, None]:
        """The mean negative log-probability of the batch's targets, in nats.

        No state is carried between batches; ``state`` is ignored.
        """
        initial, memory = self.encode(batch.source, batch.source_lengths)
        features, _, _ = self.decoder(batch.inputs, initial, memory, batch.lengths)
        return token_loss(self, features, self.decoder.output, batch.targets), None
