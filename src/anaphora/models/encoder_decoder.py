"""Sequence to sequence: an encoder reads the source, a decoder generates the target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import ArrayLike

from anaphora import nn
from anaphora.models.body import EncoderDecoderBody
from anaphora.models.decoder import ConditionalLanguageModel, Decoder
from anaphora.models.reader import make_embedding, make_recurrent
from anaphora.nn.states import State, as_tuple, from_tuple
from anaphora.options import defaults


@dataclass(eq=False, repr=False)
@defaults(bidirectional=True)
class EncoderDecoder(ConditionalLanguageModel, EncoderDecoderBody):
    """An encoder and a decoder, with or without attention.

    The encoder's final state is the decoder's initial state; without attention, it is all that the
    decoder sees of the source (Sutskever et al. 2014; Cho et al. 2014). A bidirectional encoder has
    H / 2 units in each direction. With attention, the decoder also reads a weighted mean of the
    encoder's outputs at each step (additive: Bahdanau et al. 2015; multiplicative: Luong et al.
    2015); see `Decoder`.

    Shapes: source [S, B] and inputs [T, B] integers; returns logits [T, B, V] and the attention
    weights [T, B, S] or None.

    Attributes:
        source_vocabulary_size: The number of tokens of the source.
        vocabulary_size: V, of the target.
        end_id: The token that ends a sequence, and precedes its first token.

    The other arguments are those of `EncoderDecoderBody`; the embeddings of source and target have
    the same size, encoder and decoder have L layers each.

    Raises:
        ValueError: an option is out of range, H is odd for two directions, or ``tied`` is used with
            E other than H and no attention.

    >>> model = EncoderDecoder(source_vocabulary_size=9, vocabulary_size=10, hidden_size=4)
    >>> source, inputs = [[1, 2], [8, 0], [7, 0]], [[0, 0], [3, 9]]
    >>> logits, weights = model(source, inputs, source_lengths=[3, 1])
    >>> logits.shape, weights.shape, weights.data[0, 1].tolist()
    ((2, 2, 10), (2, 2, 3), [1.0, 0.0, 0.0])
    """

    source_vocabulary_size: int
    vocabulary_size: int
    end_id: int = field(default=0, kw_only=True)

    kind = "encoder_decoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(
                "EncoderDecoder: each of two directions has half of hidden_size, so it must be "
                f"even, not {self.hidden_size}"
            )
        self.embedding = make_embedding(self, self.source_vocabulary_size)
        self.drop = nn.Dropout(self.dropout, self.locked_dropout)
        self.encoder = make_recurrent(
            self,
            self.embedding.embedding_dim,
            self.bidirectional,
            self.hidden_size // 2 if self.bidirectional else self.hidden_size,
        )
        self.decoder = Decoder(
            self, self.vocabulary_size, attention=self.attention or "none", end_id=self.end_id
        )

    def encode(
        self, source: Any, lengths: ArrayLike | None = None
    ) -> tuple[State, nn.Memory | None]:
        """Encode a source.

        Args:
            source: [S, B] integers.
            lengths: [B] the number of tokens of each row, or None for all S.

        Returns:
            The decoder's initial state, and the encoder's outputs as its memory (None without
            attention).
        """
        x = self.drop(self.embedding(source))
        y, final = self.encoder(x, lengths=lengths)
        state = from_tuple([self._joined(one) for one in as_tuple(final)])
        attention = self.decoder.attention
        memory = None if attention is None else attention.remember(self.drop(y), lengths)
        return state, memory

    def _joined(self, state: Any) -> Any:
        """Concatenate the directions of each layer: [L*D, B, H/D] to [L, B, H]."""
        L, D = self.encoder.num_layers, self.encoder.num_directions
        _, B, H = state.shape
        return state.reshape(L, D, B, H).transpose(0, 2, 1, 3).reshape(L, B, D * H)
