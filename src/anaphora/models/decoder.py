"""The decoder, which writes a sequence token by token, and what models that have one share."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.cells import CELLS, Cell
from anaphora.data import IGNORE_INDEX, DataError, PairBatch, Tokenizer
from anaphora.models.saved import load_model
from anaphora.nn.initialization import Initialization
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
        a_t = tanh(W [c_t, h_t])             what the output layer reads; without attention h_t
        scores_t = output(a_t)

    Attention stands above the recurrent layers (Luong et al. 2015), and `a_t` is not fed back to
    them. So in training, where all y are known (teacher forcing), the recurrence runs over the
    whole target in one call, and attention and scores of all steps are a few matrix products. Input
    feeding, which Luong et al. add, would make every step wait for the attention of the one before.

    Shapes: ids [T, N]; state as of `nn.Recurrent`; memory of B rows; returns features a [T, N, F],
    state, weights [T, N, S]. N may be K * B: row ``k * B + b`` then attends to row b of the memory.

    Args:
        vocabulary_size: V.
        hidden_size: H of every layer.
        embedding_size: E; H if None.
        num_layers: L.
        cell: The name of a cell, or a `Cell`.
        attention: "additive", "multiplicative", or None.
        memory_size: The size of the states that are attended to; H if None.
        dropout: The share dropped on the embeddings, between layers and before the output.
        tied: Use the embeddings as the weights of the output as well (Press & Wolf 2017); F is E
            then, otherwise H.
        end_id: The token that ends a sequence, and stands before its first.
        initialization: Of all layers; see `nn.Recurrent`.
        forget_bias: The bias with which forget gates start; None leaves it to the initialisation.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option is out of range, or ``tied`` with E other than H and no attention.

    >>> import numpy as np
    >>> decoder = Decoder(vocabulary_size=10, hidden_size=4, attention="additive")
    >>> memory = decoder.attention.remember(np.ones((5, 2, 4), np.float32), lengths=[5, 3])
    >>> features, state, weights = decoder([[1, 2], [3, 4], [5, 6]], None, memory)
    >>> features.shape, weights.shape
    ((3, 2, 4), (3, 2, 5))
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_size: int,
        embedding_size: int | None = None,
        num_layers: int = 1,
        cell: str | Cell = "lstm",
        attention: str | None = None,
        memory_size: int | None = None,
        dropout: float = 0.0,
        tied: bool = False,
        end_id: int = 0,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        dtype: str = "float32",
    ) -> None:
        embedding_size = hidden_size if embedding_size is None else embedding_size
        if attention is not None and attention not in ATTENTIONS:
            raise ValueError(
                f"Decoder: attention {attention!r} is none of {', '.join(ATTENTIONS)}, nor None"
            )
        if tied and attention is None and embedding_size != hidden_size:
            raise ValueError(
                "Decoder: tied without attention needs embedding_size == hidden_size, not "
                f"{embedding_size} and {hidden_size}"
            )
        if vocabulary_size < 2 or not 0 <= end_id < vocabulary_size:
            raise ValueError(
                f"Decoder: end_id {end_id} in a vocabulary of {vocabulary_size}; wanted one of its "
                "ids, and at least one more"
            )
        shared: dict[str, Any] = {"initialization": initialization, "dtype": dtype}
        self.vocabulary_size = vocabulary_size
        self.end_id = end_id
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, **shared)
        self.recurrent = nn.Recurrent(
            cell,
            embedding_size,
            hidden_size,
            num_layers,
            dropout=dropout,
            forget_bias=forget_bias,
            **shared,
        )
        self.dropout = nn.Dropout(dropout)
        feature_size = embedding_size if tied else hidden_size
        self.attention: nn.Attention | None = None
        if attention is not None:
            memory_size = hidden_size if memory_size is None else memory_size
            self.attention = ATTENTIONS[attention](hidden_size, memory_size, **shared)
            self.combine = nn.Linear(memory_size + hidden_size, feature_size, bias=False, **shared)
        self.output = nn.Linear(feature_size, vocabulary_size, **shared)
        if tied:
            self.output.weight = self.embedding.weight
            # As embeddings they might start at normal(0, 1), which makes the first logits huge.
            self.output.reset_parameters(initialization)

    def forward(
        self,
        ids: Any,
        state: Any,
        memory: nn.Memory | None = None,
        lengths: ArrayLike | None = None,
    ) -> tuple[Tensor, Any, Tensor | None]:
        """Read tokens; return what the output layer is to read, the state, and the weights.

        Args:
            ids: [T, N] integers: the token before each that is to be scored.
            state: What the recurrent layers begin with; None is zeros.
            memory: What to attend to; for a decoder with attention.
            lengths: [N] the number of steps of each row, or None for all T.

        Raises:
            ValueError: there is a memory and no attention, or the other way round; or N is no
                multiple of its rows.
        """
        if (memory is None) != (self.attention is None):
            raise ValueError(
                "Decoder: a decoder with attention needs a memory, and only that takes one"
            )
        y, state = self.recurrent(self.dropout(self.embedding(ids)), state, lengths=lengths)
        weights = None
        if self.attention is not None and memory is not None:
            T, N, H = y.shape
            B, S = memory.mask.shape[0], memory.mask.shape[2]
            if N % max(B, 1):
                raise ValueError(f"Decoder: {N} rows for a memory of {B}; wanted a multiple of it")
            # Several rows that share a memory are so many queries of it.
            contexts, weights = self.attention.attend(y.reshape(T * N // max(B, 1), B, H), memory)
            contexts = contexts.reshape(T, N, self.attention.state_size)
            weights = weights.reshape(T, N, S)
            y = ops.tanh(self.combine(ops.concatenate([contexts, y], axis=-1)))
        return self.dropout(y), state, weights


class ConditionalLanguageModel(nn.Module):
    """The base of models whose decoder writes a sequence that depends on a source.

    A subclass makes ``decoder``, says in `encode` what the decoder is to begin with, and puts its
    arguments into ``options``, from which a model directory makes it again.
    `anaphora.generation.beam_search` writes with any of them.

    Attributes:
        loss_kind: What its loss is the mean of; see `training.loss_figures`.
        decoder: The `Decoder`.
        options: The arguments that the model was made with.

    >>> from anaphora.models import VectorToSequence
    >>> isinstance(VectorToSequence(3, vocabulary_size=10, hidden_size=4), ConditionalLanguageModel)
    True
    """

    task: ClassVar[str]
    loss_kind: ClassVar[str | None] = "tokens"
    decoder: Decoder
    options: dict[str, Any]

    @abstractmethod
    def encode(self, source: Any, lengths: ArrayLike | None = None) -> tuple[Any, nn.Memory | None]:
        """What a source makes of it: the decoder's initial state, and what it attends to."""

    def forward(
        self,
        source: Any,
        inputs: Any,
        source_lengths: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Score the tokens that may follow each input (teacher forcing).

        Args:
            source: As of `encode`.
            inputs: [T, B] integers, the token before each that is to be scored; at first the
                decoder's ``end_id``.
            source_lengths: [B] the number of steps of each row of the source, or None for all.
            lengths: [B] the number of inputs of each row, or None for all T.

        Returns:
            The logits [T, B, V], and the weights of attention [T, B, S] or None.
        """
        state, memory = self.encode(source, source_lengths)
        features, _, weights = self.decoder(inputs, state, memory, lengths)
        return self.decoder.output(features), weights

    def loss(self, batch: PairBatch, state: Any = None) -> tuple[Tensor, None]:
        """The mean negative log-probability of the batch's targets, in nats.

        Nothing is carried from one batch to the next: ``state`` is there for the training loop.
        """
        initial, memory = self.encode(batch.source, batch.source_lengths)
        features, _, _ = self.decoder(batch.inputs, initial, memory, batch.lengths)
        output = self.decoder.output
        loss: Tensor = ops.linear_cross_entropy(
            features, output.weight, output.bias, batch.targets, ignore_index=IGNORE_INDEX
        )
        return loss, None

    def save(
        self,
        directory: ModelDirectory,
        tokenizers: Mapping[str, Tokenizer],
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Save the model and its tokenizers to a model directory.

        Args:
            directory: Where to.
            tokenizers: By what they are for, "source" or "target".
            config: More to write to ``config.json``, such as how it was trained.

        Raises:
            ValueError: the cell is none of `anaphora.cells`, so that nobody could load it.
            ArtifactError: as `ModelDirectory.save`.
        """
        cell = self.decoder.recurrent.cell
        if CELLS.get(cell.name) is not cell:
            raise ValueError(
                f"save: the cell {cell.name!r} is none of those that come with the package, so a "
                "directory cannot name it; keep state_dict() and make the model in Python"
            )
        directory.save(
            {**(config or {}), "task": self.task, "model": {**self.options, "cell": cell.name}},
            {name: tokenizer.to_dict() for name, tokenizer in tokenizers.items()},
            {name: parameter.data for name, parameter in self.named_parameters()},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[Self, dict[str, Tokenizer]]:
        """Load a model and its tokenizers from a model directory; it is ready to write.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
        """
        model, data, directory = load_model(cls, cls.task, path)
        try:
            tokenizers = {name: Tokenizer.from_dict(value) for name, value in data.items()}
        except DataError as error:
            raise ArtifactError(
                f"{directory.tokenizer}: {error}; put back the one that the model was trained with"
            ) from error
        sizes = model.vocabulary_sizes()
        if {name: t.vocabulary_size for name, t in tokenizers.items()} != sizes:
            raise ArtifactError(
                f"{directory.tokenizer}: does not hold the tokenizers that the model was trained "
                f"with: {', '.join(f'{n:,} entries for the {name}' for name, n in sizes.items())}"
            )
        return model, tokenizers

    def vocabulary_sizes(self) -> dict[str, int]:
        """The number of tokens that it knows, by what they are for: "target", and "source"."""
        return {"target": self.decoder.vocabulary_size}
