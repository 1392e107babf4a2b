"""Sequence to sequence: an encoder reads the source, a decoder writes the target."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from anaphora import nn
from anaphora.cells import Cell
from anaphora.models.decoder import ConditionalLanguageModel, Decoder
from anaphora.nn.initialization import Initialization


class EncoderDecoder(ConditionalLanguageModel):
    """An encoder and a decoder, with or without attention.

    The encoder's final state is the decoder's initial one: without attention all that the decoder
    knows of the source (Sutskever et al. 2014; Cho et al. 2014). In both directions each has H / 2
    units, so that the two together are as wide as the decoder. With attention the decoder also
    reads a mean of the encoder's outputs, weighted anew at each step (additive: Bahdanau et al.
    2015; multiplicative: Luong et al. 2015). `Decoder` says where it stands and why.

    Shapes: source [S, B] and inputs [T, B] integers; returns logits [T, B, V] and the weights of
    attention [T, B, S] or None.

    Args:
        source_vocabulary_size: The number of tokens of the source.
        vocabulary_size: V, of the target.
        hidden_size: H of every layer.
        embedding_size: E, of the source and of the target; H if None.
        num_layers: L of the encoder, and of the decoder.
        cell: The name of a cell, or a `Cell`.
        bidirectional: Whether the encoder reads the source in both directions.
        attention: "additive", "multiplicative", or None.
        dropout: The share dropped on the embeddings, between layers, on what is attended to and
            before the output.
        tied: Use the embeddings of the target as the weights of the output as well.
        end_id: The token that ends a target, and stands before its first.
        initialization: Of all layers; see `nn.Recurrent`.
        forget_bias: The bias with which forget gates start; None leaves it to the initialisation.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option is out of range, H is odd for two directions, or ``tied`` with E other
            than H and no attention.

    >>> model = EncoderDecoder(source_vocabulary_size=9, vocabulary_size=10, hidden_size=4)
    >>> source, inputs = [[1, 2], [8, 0], [7, 0]], [[0, 0], [3, 9]]
    >>> logits, weights = model(source, inputs, source_lengths=[3, 1])
    >>> logits.shape, weights.shape, weights.data[0, 1].tolist()
    ((2, 2, 10), (2, 2, 3), [1.0, 0.0, 0.0])
    """

    task = "encoder_decoder"

    def __init__(
        self,
        source_vocabulary_size: int,
        vocabulary_size: int,
        hidden_size: int,
        embedding_size: int | None = None,
        num_layers: int = 1,
        cell: str | Cell = "lstm",
        bidirectional: bool = True,
        attention: str | None = "multiplicative",
        dropout: float = 0.0,
        tied: bool = False,
        end_id: int = 0,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        dtype: str = "float32",
    ) -> None:
        both: dict[str, Any] = {
            "num_layers": num_layers,
            "cell": cell,
            "dropout": dropout,
            "initialization": initialization,
            "forget_bias": forget_bias,
            "dtype": dtype,
        }
        if bidirectional and hidden_size % 2:
            raise ValueError(
                "EncoderDecoder: each of two directions gets half of hidden_size, so it must be "
                f"even, not {hidden_size}"
            )
        embedding_size = hidden_size if embedding_size is None else embedding_size
        self.options = {
            "source_vocabulary_size": source_vocabulary_size,
            "vocabulary_size": vocabulary_size,
            "hidden_size": hidden_size,
            "embedding_size": embedding_size,
            "bidirectional": bidirectional,
            "attention": attention,
            "tied": tied,
            "end_id": end_id,
            **both,
        }
        self.embedding = nn.Embedding(
            source_vocabulary_size, embedding_size, initialization=initialization, dtype=dtype
        )
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Recurrent(
            input_size=embedding_size,
            hidden_size=hidden_size // 2 if bidirectional else hidden_size,
            bidirectional=bidirectional,
            **both,
        )
        self.decoder = Decoder(
            vocabulary_size,
            hidden_size,
            embedding_size,
            attention=attention,
            tied=tied,
            end_id=end_id,
            **both,
        )

    def encode(self, source: Any, lengths: ArrayLike | None = None) -> tuple[Any, nn.Memory | None]:
        """Read a source.

        Args:
            source: [S, B] integers.
            lengths: [B] the number of tokens of each row, or None for all S.

        Returns:
            The decoder's initial state, and the encoder's outputs as its memory, None without
            attention.
        """
        x = self.dropout(self.embedding(source))
        y, final = self.encoder(x, lengths=lengths)
        states = [self._joined(state) for state in (final if isinstance(final, tuple) else [final])]
        attention = self.decoder.attention
        memory = None if attention is None else attention.remember(self.dropout(y), lengths)
        return states[0] if len(states) == 1 else tuple(states), memory

    def _joined(self, state: Any) -> Any:
        """The directions of each layer side by side: [L*D, B, H/D] gives [L, B, H]."""
        L, D = self.encoder.num_layers, self.encoder.num_directions
        _, B, H = state.shape
        return state.reshape(L, D, B, H).transpose(0, 2, 1, 3).reshape(L, B, D * H)

    def vocabulary_sizes(self) -> dict[str, int]:
        """The number of tokens that it knows, of the source and of the target."""
        return {"source": self.embedding.num_embeddings, **super().vocabulary_sizes()}
