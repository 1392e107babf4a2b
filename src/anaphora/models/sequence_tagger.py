"""From a sequence to a tag for each of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.data import IGNORE_INDEX, Batch, SpelledBatch
from anaphora.models.sequences import SequenceModel
from anaphora.tensor import Tensor


class CharacterLayer(nn.Module):
    """A vector for each word, of its spelling: a small layer reads it from both ends.

    It is the character model of Ling et al. 2015 and Lample et al. 2016.

    Args:
        vocabulary_size: The number of characters.
        embedding_size: E of a character.
        hidden_size: H of each direction; a word's vector has 2 H numbers.
        **options: As of `nn.Recurrent`, with the cell among them.

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
        **options: Any,
    ) -> None:
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, dtype=dtype)
        self.recurrent = nn.Recurrent(
            cell, embedding_size, hidden_size, bidirectional=True, dtype=dtype, **options
        )

    def forward(self, characters: Any, lengths: Any) -> Tensor:
        """The last states of both directions.

        Args:
            characters: [W, ...] ids, words in any arrangement.
            lengths: [...] the number of characters of each word; a word of none has zeros.

        Returns:
            [..., 2 H].
        """
        characters, lengths = np.asarray(characters), np.asarray(lengths)
        if characters.shape[1:] != lengths.shape:
            raise ValueError(
                f"CharacterLayer: characters of shape {characters.shape} with lengths of shape "
                f"{lengths.shape}; wanted [W, ...] and [...]"
            )
        flat = characters.reshape(len(characters), lengths.size)
        _, state = self.recurrent(self.embedding(flat), lengths=lengths.reshape(-1))
        h: Tensor = state[0] if isinstance(state, tuple) else state  # [2, words, H]
        size = self.recurrent.output_size
        return h.transpose(1, 0, 2).reshape(*lengths.shape, size)


class SequenceTagger(SequenceModel):
    """A tag for each step of a sequence of ids or features.

    With characters, a `CharacterLayer` reads how each word is spelled, and its vector is joined to
    the word's embedding: so words that were never seen have something to be known by.

    Shapes: ids [T, B] or inputs [T, B, I]; characters [W, T, B]; lengths [B]; state as of
    `nn.Recurrent`; returns logits [T, B, C], state.

    Args:
        num_tags: C.
        hidden_size: H of every layer.
        num_characters: The number of characters in the character vocabulary; None for no
            characters.
        character_embedding_size: The size of a character's embedding.
        character_hidden_size: The units of each direction of the character layer.
        **options: As of `SequenceModel`: ``vocabulary_size`` or ``input_size``, and the others.

    Raises:
        ValueError: as `SequenceModel`.

    >>> model = SequenceTagger(
    ...     num_tags=3, hidden_size=4, vocabulary_size=9, num_characters=26, bidirectional=True
    ... )
    >>> spelling = {"characters": np.ones((6, 5, 2), int), "character_lengths": np.full((5, 2), 6)}
    >>> model(np.ones((5, 2), int), lengths=[5, 3], **spelling)[0].shape
    (5, 2, 3)
    """

    task = "sequence_tagger"
    loss_kind = "classes"

    def __init__(
        self,
        num_tags: int,
        hidden_size: int,
        *,
        num_characters: int | None = None,
        character_embedding_size: int = 16,
        character_hidden_size: int = 32,
        **options: Any,
    ) -> None:
        self.characters: CharacterLayer | None = None
        if num_characters is not None:
            self.characters = CharacterLayer(
                num_characters,
                character_embedding_size,
                character_hidden_size,
                **{name: options[name] for name in ("cell", "dtype") if name in options},
            )
        super().__init__(num_tags, hidden_size, **options)
        self.num_tags = num_tags
        self.options |= {
            "num_tags": num_tags,
            "num_characters": num_characters,
            "character_embedding_size": character_embedding_size,
            "character_hidden_size": character_hidden_size,
        }

    def _recurrent_input_size(self) -> int:
        below = 0 if self.characters is None else self.characters.recurrent.output_size
        return super()._recurrent_input_size() + below

    def forward(
        self,
        inputs: Any,
        state: Any = None,
        lengths: ArrayLike | None = None,
        characters: Any = None,
        character_lengths: Any = None,
    ) -> tuple[Tensor, Any]:
        """Score the tags of each step.

        Args:
            inputs: Ids [T, B], or features [T, B, I].
            state: What a call before returned, or None to begin.
            lengths: [B] the number of steps of each sequence, or None for all T.
            characters: [W, T, B] ids, for a model with a character layer.
            character_lengths: [T, B] the number of characters of each word.

        Returns:
            The logits [T, B, C] and the state.

        Raises:
            ValueError: characters are missing, or the model has no layer for them.
        """
        y, state = self._recur(inputs, state, lengths, characters, character_lengths)
        return self.output(y), state

    def scores(self, batch: Batch) -> Tensor:
        """The logits [T, B, C] of a batch whose sequences begin anew."""
        logits: Tensor = self(batch.inputs, None, batch.lengths, *_spelling(batch))[0]
        return logits

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, Any]:
        """The mean negative log-probability of the tags ``batch.targets`` [T, B], and the state.

        Steps with the tag -100 do not count. With a character layer it is a `SpelledBatch`.
        """
        y, state = self._recur(batch.inputs, state, batch.lengths, *_spelling(batch))
        loss: Tensor = ops.linear_cross_entropy(
            y, self.output.weight, self.output.bias, batch.targets, ignore_index=IGNORE_INDEX
        )
        return loss, state

    def _recur(
        self, inputs: Any, state: Any, lengths: Any, characters: Any, character_lengths: Any
    ) -> tuple[Tensor, Any]:
        """What the output layer reads."""
        x = self._embed(inputs)
        if (characters is None) != (self.characters is None):
            raise ValueError(
                "SequenceTagger: characters were given to a model without a layer for them; make "
                "it with num_characters"
                if self.characters is None
                else "SequenceTagger: a model with a character layer needs characters [W, T, B] "
                "and character_lengths [T, B]; give loss a SpelledBatch"
            )
        if self.characters is not None:
            spelled = self.dropout(self.characters(characters, character_lengths))
            x = ops.concatenate([x, spelled], axis=-1)
        y, state = self.recurrent(x, state, lengths=lengths)
        return self.dropout(y), state


def _spelling(batch: Batch) -> tuple[Any, Any]:
    """The characters of a batch and their numbers, if it has them."""
    if isinstance(batch, SpelledBatch):
        return batch.characters, batch.character_lengths
    return None, None
