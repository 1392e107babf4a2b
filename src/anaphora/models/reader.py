"""The base of models that read sequences: embeddings or features, and recurrent layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.models.body import Body, SequenceBody
from anaphora.models.saved import SavedModel
from anaphora.models.sequence_session import SequenceSession
from anaphora.nn.states import State, as_tuple
from anaphora.tensor import Tensor


def make_embedding(body: Body, vocabulary_size: int) -> nn.Embedding:
    """The embeddings of a body, [V, E]."""
    return nn.Embedding(
        vocabulary_size,
        body.hidden_size if body.embedding_size is None else body.embedding_size,
        dropout=body.embedding_dropout,
        initialization=body.initialization,
        dtype=body.dtype,
    )


def make_recurrent(
    body: Body,
    input_size: int,
    bidirectional: bool = False,
    hidden_size: int | None = None,
    *,
    is_given_states: bool = False,
) -> nn.Recurrent:
    """The recurrent layers of a body, with ``hidden_size`` units per direction if given.

    Those that are always given their initial states have none of their own to train.
    """
    return nn.Recurrent(
        body.cell,
        input_size,
        body.hidden_size if hidden_size is None else hidden_size,
        body.num_layers,
        dropout=body.dropout,
        bidirectional=bidirectional,
        locked_dropout=body.locked_dropout,
        weight_dropout=body.weight_dropout,
        zoneout=body.zoneout,
        layer_norm=body.layer_norm,
        trainable_state=body.trainable_state and not is_given_states,
        initialization=body.initialization,
        forget_bias=body.forget_bias,
        dtype=body.dtype,
    )


def make_linear(body: Body, in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """A linear layer with the initialization and the precision of a body."""
    return nn.Linear(
        in_features, out_features, bias, initialization=body.initialization, dtype=body.dtype
    )


def tie(output: nn.Linear, embedding: nn.Embedding, initialization: str | float) -> None:
    """Use the embeddings as the weights of the output as well (Press & Wolf 2017)."""
    output.weight = embedding.weight
    # As embeddings they might start at normal(0, 1), which makes the first logits huge.
    output.reset_parameters(initialization)


def last_outputs(recurrent: nn.Recurrent, state: Any) -> Tensor:
    """The last layer's output at the last step of each row, with concatenated directions [B, D*H],
    from the final state.
    """
    h: Tensor = as_tuple(state)[0]
    D, B = recurrent.num_directions, h.shape[1]
    return h[len(h) - D :].transpose(1, 0, 2).reshape(B, recurrent.output_size)


class CharacterLayer(nn.Module):
    """A vector for each word from its characters, which a bidirectional layer reads.

    It is the character model of Ling et al. 2015 and Lample et al. 2016.

    Args:
        vocabulary_size: The number of characters.
        embedding_size: E of a character.
        hidden_size: H of each direction; the vector of a word has size 2 H.
        cell: As for `nn.Recurrent`.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option is out of range.

    >>> layer = CharacterLayer(vocabulary_size=9, embedding_size=2, hidden_size=3)
    >>> layer(np.ones((4, 5, 2), int), np.full((5, 2), 4)).shape  # 5 x 2 words of 4 characters
    (5, 2, 6)
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        *,
        cell: Any = "lstm",
        dtype: str = "float32",
    ) -> None:
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, dtype=dtype)
        self.recurrent = nn.Recurrent(
            cell, embedding_size, hidden_size, bidirectional=True, dtype=dtype
        )

    def forward(self, characters: Any, lengths: Any) -> Tensor:
        """The last states of both directions.

        Args:
            characters: [W, ...] ids, for words of any shape [...].
            lengths: [...] the number of characters of each word; a word without any has zeros.

        Returns:
            [..., 2 H].
        """
        characters, lengths = np.asarray(characters), np.asarray(lengths)
        if characters.shape[1:] != lengths.shape:
            raise ValueError(
                f"CharacterLayer: characters of shape {characters.shape} with lengths of shape "
                f"{lengths.shape}; expected [W, ...] and [...]"
            )
        flat = characters.reshape(len(characters), lengths.size)
        _, state = self.recurrent(self.embedding(flat), lengths=lengths.reshape(-1))
        h = last_outputs(self.recurrent, state)  # [words, 2 H]
        return h.reshape(*lengths.shape, h.shape[1])


class Reader(SavedModel):
    """The base of models that read sequences: embedding or features, dropout, recurrent layers.

    x = dropout(embedding(ids))      or features
    x = [x, dropout(characters)]     with a character layer
    y, state = recurrent(x, state)
    """

    embedding: Any = None  # of ids
    characters: CharacterLayer | None = None
    recurrent: nn.Recurrent
    drop: nn.Dropout

    def build(
        self,
        *,
        input_size: int | None = None,
        vocabulary_size: int | None = None,
        bidirectional: bool = False,
    ) -> None:
        """Make the layers of the body; ``characters``, if used, must be set before.

        Args:
            input_size: I, for sequences of features [T, B, I].
            vocabulary_size: V, for sequences of ids [T, B]; this or ``input_size``.
            bidirectional: Whether to read in both directions.

        Raises:
            ValueError: both sizes or neither were given, or an option is out of range.
        """
        name = type(self).__name__
        if (input_size is None) == (vocabulary_size is None):
            raise ValueError(
                f"{name}: give input_size, for features [T, B, I], or vocabulary_size, for ids "
                f"[T, B]; not {'both' if input_size is not None else 'neither'}"
            )
        size = input_size or 0
        if vocabulary_size is not None:
            self.embedding = make_embedding(self, vocabulary_size)
            size = self.embedding.embedding_dim
        for option in ("embedding_size", "embedding_dropout"):
            if self.embedding is None and getattr(self, option):
                raise ValueError(f"{name}: {option} is for ids, so give vocabulary_size too")
        if self.characters is not None:
            size += self.characters.recurrent.output_size
        self.recurrent = make_recurrent(self, size, bidirectional)
        self.drop = nn.Dropout(self.dropout, self.locked_dropout)

    def read(
        self,
        inputs: Any,
        state: Any = None,
        lengths: ArrayLike | None = None,
        characters: Any = None,
        character_lengths: Any = None,
    ) -> tuple[Tensor, State]:
        """Run over a batch of sequences.

        Args:
            inputs: Ids [T, B], or features [T, B, I].
            state: The state that a previous call returned, or None for zeros.
            lengths: [B] the number of steps of each sequence, or None for all T.
            characters: [W, T, B] ids, for a model with a character layer.
            character_lengths: [T, B] the number of characters of each word.

        Returns:
            The output of the last layer [T, B, D*H], before dropout, and the state.

        Raises:
            ValueError: characters are missing, or the model has no character layer.
        """
        x = self.embed(inputs, characters, character_lengths)
        result: tuple[Tensor, State] = self.recurrent(x, state, lengths=lengths)
        return result

    def embed(self, inputs: Any, characters: Any = None, character_lengths: Any = None) -> Any:
        """The input of the recurrent layers [T, B, I]; the arguments are those of `read`.

        Raises:
            ValueError: characters are missing, or the model has no character layer.
        """
        x = inputs if self.embedding is None else self.drop(self.embedding(inputs))
        if (characters is None) != (self.characters is None):
            raise ValueError(
                f"{type(self).__name__}: characters were given to a model without a character "
                "layer; make it with num_characters"
                if self.characters is None
                else f"{type(self).__name__}: a model with a character layer needs characters "
                "[W, T, B] and character_lengths [T, B]; give loss a SpelledBatch"
            )
        if self.characters is not None:
            spelled = self.drop(self.characters(characters, character_lengths))
            x = ops.concatenate([x, spelled], axis=-1)
        return x


@dataclass(eq=False, repr=False)
class SequenceModel(Reader, SequenceBody):
    """The base of models that predict from sequences of features or ids, with a linear layer.

    Attributes:
        input_size: I, for sequences of features [T, B, I].
        vocabulary_size: V, for sequences of ids [T, B]; this or ``input_size`` is given.
    """

    input_size: int | None = field(default=None, kw_only=True)
    vocabulary_size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.build(
            input_size=self.input_size,
            vocabulary_size=self.vocabulary_size,
            bidirectional=self.bidirectional,
        )

    def session(
        self, batch_size: int | None = None, *, weights: str | None = None
    ) -> SequenceSession:
        """A session with the current weights, which reads step by step and predicts after each.

        Args:
            batch_size: B; None for one sequence, whose arrays have no batch axis.
            weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

        Raises:
            ValueError: the model is bidirectional; the batch size is below 1; the model has a
                character layer, but no codec; or the weights are not of these two.

        >>> from anaphora.models import SequenceTagger
        >>> model = SequenceTagger(num_tags=3, hidden_size=4, vocabulary_size=9)
        >>> model.session().feed([7, 2]).shape
        (2, 3)
        """
        return SequenceSession(self, batch_size, weights=weights)

    def session_arguments(self) -> dict[str, Any]:
        """The layers after the recurrent ones, as arguments of `nn.Session`."""
        output: Any = self.output  # type: ignore[attr-defined]
        return {"output": (output.weight, output.bias)}
