"""The recurrent language model: tokens in, the distribution of the next token out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.artifact import ArtifactError
from anaphora.cells import Cell
from anaphora.data import IGNORE_INDEX, Batch, DataError, Tokenizer
from anaphora.models.saved import load_model
from anaphora.models.session import LanguageModelSession
from anaphora.nn.initialization import Initialization
from anaphora.tensor import Tensor


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, and a linear layer that scores every next token.

    Dropout of units stands where Zaremba et al. 2014 put it: on the embeddings, between the layers,
    and before the output, never on the recurrent connection. Whatever is dropped is drawn anew in
    each call; in evaluation nothing is. `session` makes what reads a text as it comes and goes on
    with it.

    Shapes: ids [T, B] integers; state as of `nn.Recurrent`; returns logits [T, B, V], state.

    Args:
        vocabulary_size: V.
        hidden_size: H of every layer.
        embedding_size: E; H if None.
        num_layers: L.
        cell: The name of a cell, or a `Cell`.
        dropout: The share that is dropped at each of these places.
        tied: Use the embeddings as the weights of the output as well (Press & Wolf 2017).
        initialization: Of all layers; see `nn.Recurrent`.
        forget_bias: The bias with which forget gates start; None leaves it to the initialisation.
        dtype: "float32" or "float64".
        locked_dropout: Drop the same units at all steps of a window (Gal & Ghahramani 2016), not
            others at each.
        embedding_dropout: The share of the vocabulary whose embeddings are 0 in a window (Gal &
            Ghahramani 2016).
        weight_dropout: The share of the recurrent weights that are dropped in a window (Merity et
            al. 2018).
        zoneout: The share of the units that keep their states in a step; see `nn.Recurrent`.
        activation_penalty: The factor of the mean square of what the output layer reads, which is
            added to the loss in training (AR of Merity et al. 2017).
        temporal_penalty: The factor of the mean squared change of the last layer's output, before
            dropout, from step to step, which is added likewise (TAR).
        layer_norm: Normalise the outputs of each layer; see `nn.Recurrent`.

    Raises:
        ValueError: an option is out of range, or ``tied`` with E other than H.

    >>> model = LanguageModel(vocabulary_size=10, hidden_size=4)
    >>> logits, state = model([[1, 2, 3], [4, 5, 6]])
    >>> logits.shape
    (2, 3, 10)
    """

    loss_kind = "tokens"

    def __init__(
        self,
        vocabulary_size: int,
        hidden_size: int,
        embedding_size: int | None = None,
        num_layers: int = 1,
        cell: str | Cell = "lstm",
        dropout: float = 0.0,
        tied: bool = False,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        dtype: str = "float32",
        *,
        locked_dropout: bool = False,
        embedding_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        activation_penalty: float = 0.0,
        temporal_penalty: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        embedding_size = hidden_size if embedding_size is None else embedding_size
        if tied and embedding_size != hidden_size:
            raise ValueError(
                "LanguageModel: tied needs embedding_size == hidden_size, not "
                f"{embedding_size} and {hidden_size}"
            )
        penalties = {"activation_penalty": activation_penalty, "temporal_penalty": temporal_penalty}
        for name, factor in penalties.items():
            if not 0 <= factor < math.inf:
                raise ValueError(f"LanguageModel: {name} must be finite and >= 0, not {factor}")
        shared: dict[str, Any] = {"initialization": initialization, "dtype": dtype}
        self.vocabulary_size = vocabulary_size
        self.activation_penalty = activation_penalty
        self.temporal_penalty = temporal_penalty
        self.embedding = nn.Embedding(
            vocabulary_size, embedding_size, dropout=embedding_dropout, **shared
        )
        self.recurrent = nn.Recurrent(
            cell,
            embedding_size,
            hidden_size,
            num_layers,
            dropout=dropout,
            locked_dropout=locked_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            layer_norm=layer_norm,
            forget_bias=forget_bias,
            **shared,
        )
        self.dropout = nn.Dropout(dropout, locked_dropout)
        self.output = nn.Linear(hidden_size, vocabulary_size, **shared)
        if tied:
            self.output.weight = self.embedding.weight
            # As embeddings they might start at normal(0, 1), which makes the first logits huge.
            self.output.reset_parameters(initialization)

    def forward(
        self, ids: Any, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, Any]:
        """Score the tokens that may follow each token.

        Args:
            ids: [T, B] integers.
            state: What a call before returned, or None to begin.
            lengths: [B] the number of steps of each row, or None for all T.

        Returns:
            The logits [T, B, V] and the state.
        """
        y, state = self._recur(ids, state, lengths)
        return self.output(self.dropout(y)), state

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, Any]:
        """The mean negative log-probability of the batch's targets, in nats, and the state.

        In training mode the penalties are added to it; `loss_and_penalty` has them apart.
        """
        loss, penalty, state = self.loss_and_penalty(batch, state)
        return loss if penalty is None else loss + penalty, state

    @property
    def penalized(self) -> bool:
        """Whether training adds penalties to the loss."""
        return self.activation_penalty > 0 or self.temporal_penalty > 0

    def loss_and_penalty(
        self, batch: Batch, state: Any = None
    ) -> tuple[Tensor, Tensor | None, Any]:
        """The mean negative log-probability of the batch's targets, the penalties, and the state.

        There are no penalties, but None, in evaluation mode or if the model has none.
        """
        h, state = self._recur(batch.inputs, state, batch.lengths)
        y = self.dropout(h)
        loss: Tensor = ops.linear_cross_entropy(
            y, self.output.weight, self.output.bias, batch.targets, ignore_index=IGNORE_INDEX
        )
        if not (self.penalized and self.training):
            return loss, None, state
        penalty = self.activation_penalty * ops.activation_penalty(y, lengths=batch.lengths)
        penalty += self.temporal_penalty * ops.temporal_penalty(h, lengths=batch.lengths)
        return loss, penalty, state

    def session(
        self, batch_size: int | None = None, excluded: Sequence[int] = ()
    ) -> LanguageModelSession:
        """A session that reads ids as they come and goes on with text of its own.

        It has the weights as they are now, and runs in evaluation mode.

        Args:
            batch_size: B texts at a time; None for one, whose arrays have no axis for it.
            excluded: Ids whose scores are -inf, so that `generate` never draws them.

        Raises:
            ValueError: the batch size is below 1.
            IndexError: an excluded id is not in the vocabulary.

        >>> session = LanguageModel(vocabulary_size=10, hidden_size=4).session(batch_size=2)
        >>> session.feed([7, 1]).shape, session.fork().feed([[1, 2], [3, 4], [5, 6]]).shape
        ((2, 10), (3, 2, 10))
        """
        plain = (
            type(self).forward is LanguageModel.forward
            and type(self)._recur is LanguageModel._recur
            and type(self.embedding) is nn.Embedding
            and type(self.output) is nn.Linear
        )
        return LanguageModelSession(
            self, batch_size, excluded, None if plain else type(self).forward
        )

    def _recur(self, ids: Any, state: Any, lengths: ArrayLike | None) -> tuple[Tensor, Any]:
        """The output of the last layer, before dropout."""
        x = self.dropout(self.embedding(ids))
        y, state = self.recurrent(x, state, lengths=lengths)
        return y, state


def load_language_model(path: str | os.PathLike[str]) -> tuple[LanguageModel, Tokenizer]:
    """Load a language model and its tokenizer from a model directory; it is ready to evaluate.

    Raises:
        ArtifactError: the directory is missing, damaged, or holds something else.

    >>> import tempfile
    >>> from anaphora.artifact import ModelDirectory
    >>> from anaphora.data import CharacterTokenizer
    >>> sizes, tokenizer = {"vocabulary_size": 2, "hidden_size": 3}, CharacterTokenizer.fit("ab")
    >>> weights = {name: p.data for name, p in LanguageModel(**sizes).named_parameters()}
    >>> config = {"task": "language_model", "model": sizes}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ModelDirectory.create(folder).save(config, tokenizer.to_dict(), weights)
    ...     model, tokenizer = load_language_model(folder)
    >>> model.training, tokenizer.decode([1, 0])
    (False, 'ba')
    """
    model, tokenizer, directory = load_model(LanguageModel, "language_model", path)
    try:
        read = Tokenizer.from_dict(tokenizer)
    except DataError as error:
        raise ArtifactError(
            f"{directory.tokenizer}: {error}; put back the one that the model was trained with"
        ) from error
    if read.vocabulary_size != model.vocabulary_size:
        raise ArtifactError(
            f"{directory.tokenizer}: has {read.vocabulary_size:,} entries, but the model knows "
            f"{model.vocabulary_size:,} tokens; put back the one that it was trained with"
        )
    return model, read
