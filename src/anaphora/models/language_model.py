"""The recurrent language model: tokens in, the distribution of the next token out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.data import Batch, Tokenizer
from anaphora.models.body import LanguageModelBody
from anaphora.models.reader import Reader, make_linear, tie
from anaphora.models.sequences import token_loss
from anaphora.models.session import LanguageModelSession
from anaphora.nn.states import State
from anaphora.tensor import Tensor


@dataclass(eq=False, repr=False)
class LanguageModel(Reader, LanguageModelBody):
    """Embedding, recurrent layers, and a linear layer that scores every next token.

    `session` reads a text as it arrives, and continues it.

    Shapes: ids [T, B] integers; state as for `nn.Recurrent`; returns logits [T, B, V], state.

    Attributes:
        vocabulary_size: V.

    The other arguments are those of `LanguageModelBody`.

    Raises:
        ValueError: an option is out of range, or ``tied`` is used with E other than H.

    >>> model = LanguageModel(vocabulary_size=10, hidden_size=4)
    >>> logits, state = model([[1, 2, 3], [4, 5, 6]])
    >>> logits.shape
    (2, 3, 10)
    """

    vocabulary_size: int

    kind = "language_model"
    loss_kind = "tokens"
    codec_type = Tokenizer

    def __post_init__(self) -> None:
        super().__post_init__()
        self.build(vocabulary_size=self.vocabulary_size)
        self.output = make_linear(self, self.recurrent.output_size, self.vocabulary_size)
        if self.tied:
            tie(self.output, self.embedding, self.initialization)

    def forward(
        self, ids: Any, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, State]:
        """Score the tokens that may follow each token.

        Args:
            ids: [T, B] integers.
            state: The state that a previous call returned, or None for zeros.
            lengths: [B] the number of steps of each row, or None for all T.

        Returns:
            The logits [T, B, V] and the state.
        """
        y, state = self.read(ids, state, lengths)
        return self.output(self.drop(y)), state

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, State]:
        """The mean negative log-probability of the batch's targets, in nats, and the state.

        In training mode it includes the penalties; `loss_and_penalty` returns them separately.
        """
        loss, penalty, state = self.loss_and_penalty(batch, state)
        return loss if penalty is None else loss + penalty, state

    @property
    def penalized(self) -> bool:
        """Whether training adds penalties to the loss."""
        return self.activation_penalty > 0 or self.temporal_penalty > 0

    def loss_and_penalty(
        self, batch: Batch, state: Any = None
    ) -> tuple[Tensor, Tensor | None, State]:
        """The mean negative log-probability of the batch's targets, the penalties, and the state.

        The penalty is None in evaluation mode, and if the model has none.
        """
        h, state = self.read(batch.inputs, state, batch.lengths)
        y = self.drop(h)
        loss = token_loss(self, y, self.output, batch.targets)
        if not (self.penalized and self.training):
            return loss, None, state
        penalty = self.activation_penalty * ops.activation_penalty(y, lengths=batch.lengths)
        penalty += self.temporal_penalty * ops.temporal_penalty(h, lengths=batch.lengths)
        return loss, penalty, state

    def token_losses(self, batch: Batch, state: Any = None) -> tuple[Tensor, State]:
        """The negative log-probability of each target, [T, B], in nats, and the state.

        That of a target of -100 is 0; there are no penalties.
        """
        h, state = self.read(batch.inputs, state, batch.lengths)
        return token_loss(self, self.drop(h), self.output, batch.targets, "none"), state

    def session(
        self,
        batch_size: int | None = None,
        excluded: Sequence[int] = (),
        *,
        weights: str | None = None,
    ) -> LanguageModelSession:
        """A session that reads ids as they arrive, and generates text.

        It has the current weights, and runs in evaluation mode.

        Args:
            batch_size: B; None for one text, whose arrays have no batch axis.
            excluded: Ids whose scores are -inf, so that `generate` never samples them.
            weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

        Raises:
            ValueError: the batch size is below 1, or the weights are not of these two.
            IndexError: an excluded id is not in the vocabulary.

        >>> session = LanguageModel(vocabulary_size=10, hidden_size=4).session(batch_size=2)
        >>> session.feed([7, 1]).shape, session.fork().feed([[1, 2], [3, 4], [5, 6]]).shape
        ((2, 10), (3, 2, 10))
        """
        plain = (
            type(self).forward is LanguageModel.forward
            and type(self).read is LanguageModel.read
            and type(self.embedding) is nn.Embedding
            and type(self.output) is nn.Linear
        )
        return LanguageModelSession(
            self, batch_size, excluded, None if plain else type(self).forward, weights=weights
        )
