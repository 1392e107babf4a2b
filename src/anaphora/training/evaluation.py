"""Evaluation: the loss of a model on a text, every token counted once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from anaphora.tensor import Array, Parameter, Tensor, no_grad


class Model(Protocol):
    """What can be trained and evaluated: a module that has a loss."""

    training: bool

    def loss(self, batch: Any, state: Any = None) -> tuple[Tensor, Any]:
        """The mean loss of a batch, in nats a token, and the state for the next batch."""

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters by name."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Copy arrays into the parameters."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training, or to evaluation."""


@runtime_checkable
class PenalizedModel(Model, Protocol):
    """A model whose training may minimise more than the loss that is reported."""

    penalized: bool

    def loss_and_penalty(self, batch: Any, state: Any = None) -> tuple[Tensor, Tensor | None, Any]:
        """The mean loss of a batch, what is added to it in training, and the state."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts.

    Attributes:
        loss: The mean negative log-probability of a token, in nats.
        tokens: The number of tokens that were predicted.
        correct: How many of them were the likeliest in the model's view; None where it was not
            counted.

    >>> round(Evaluation(loss=math.log(50), tokens=1000).perplexity)
    50
    """

    loss: float
    tokens: int
    correct: int | None = None

    @property
    def accuracy(self) -> float | None:
        """The share that was predicted right, if that was counted."""
        return None if self.correct is None else self.correct / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): as uncertain as between so many equally likely tokens."""
        return perplexity(self.loss)

    @property
    def bits_per_token(self) -> float:
        """The loss in bits."""
        return self.loss / math.log(2)


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is too large for a number.

    >>> perplexity(0.0), perplexity(1e9)
    (1.0, inf)
    """
    return math.exp(loss) if loss < 700 else math.inf


def check_scores(owner: str, scores: Array) -> None:
    """Refuse probabilities that are NaN: an answer from them would be none.

    Raises:
        ValueError: one is.

    >>> check_scores("classify", np.array([0.5, 0.5]))
    """
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{owner}: the model's scores are NaN or infinite, so there is no answer; its weights "
            "or its inputs are too large: train again with a lower learning_rate"
        )


def evaluate(
    model: Model, batches: Iterable[Any], on_batch: Callable[[int], None] = lambda tokens: None
) -> Evaluation:
    """Evaluate a model on batches, without dropout.

    Args:
        model: Its ``loss(batch, state)`` gives the mean loss of the batch's tokens and the state.
            If it has ``scores(batch)``, the targets that score highest are counted too.
        batches: Batches of `anaphora.text`; the state is carried over where they say so.
        on_batch: Called with the number of tokens of each batch that is done.

    Raises:
        ValueError: the batches have no token.

    >>> import numpy as np
    >>> from anaphora.models import LanguageModel
    >>> from anaphora.text import cover
    >>> model = LanguageModel(vocabulary_size=4, hidden_size=3)
    >>> evaluate(model, cover(np.array([0, 3, 1, 2]), batch_size=1, window=2)).tokens
    3
    """
    carries_state = getattr(batches, "carries_state", True)
    scores = getattr(model, "scores", None)
    total, tokens, correct, state = 0.0, 0, 0, None
    was_training = model.training
    model.train(False)
    try:
        # What is not finite comes back as the loss.
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            for batch in batches:
                loss, after = model.loss(batch, state)
                state = after if carries_state else None
                total += loss.item() * batch.tokens
                tokens += batch.tokens
                if scores is not None:
                    answers = scores(batch).data.argmax(axis=-1)
                    correct += int(np.count_nonzero(answers == batch.targets))  # none is -100
                on_batch(batch.tokens)
    finally:
        model.train(was_training)
    if tokens == 0:
        raise ValueError("evaluate: the batches have no token to predict")
    return Evaluation(total / tokens, tokens, None if scores is None else correct)
