"""Evaluation: the loss of a model, every target counted once, and what follows from it."""

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
        """The mean loss of a batch, and the state for the next batch.

        What is reported beside it follows from the model's ``loss_kind``, if it has one; see
        `loss_figures`.
        """

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
        loss: The mean loss of a target: of tokens and classes the negative log-probability, in
            nats.
        tokens: The number of targets that were predicted.
        correct: How many of them were the likeliest in the model's view; None where it was not
            counted.
        loss_kind: What the loss is, as the model says; see `loss_figures`.

    >>> round(Evaluation(loss=math.log(50), tokens=1000, loss_kind="tokens").perplexity)
    50
    >>> Evaluation(loss=1.21, tokens=1000, loss_kind="squared error").figures
    {'mean_squared_error': 1.21, 'root_mean_squared_error': 1.1}
    """

    loss: float
    tokens: int
    correct: int | None = None
    loss_kind: str | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What is reported beside the loss: what follows from it, and the accuracy, if counted."""
        accuracy = self.accuracy
        counted = {} if accuracy is None else {"accuracy": accuracy}
        return {**loss_figures(self.loss_kind, self.loss), **counted}

    @property
    def accuracy(self) -> float | None:
        """The share that was predicted right, if that was counted."""
        return None if self.correct is None else self.correct / self.tokens

    @property
    def perplexity(self) -> float | None:
        """exp(loss): as uncertain as between so many equally likely tokens; None if not tokens."""
        return self.figures.get("perplexity")

    @property
    def bits_per_token(self) -> float | None:
        """The loss in bits; None if it is not one of tokens."""
        return self.figures.get("bits_per_token")

    @property
    def mean_squared_error(self) -> float | None:
        """The loss of a regressor; None of other models."""
        return self.figures.get("mean_squared_error")

    @property
    def root_mean_squared_error(self) -> float | None:
        """Its root, in the units of the targets; None of other models."""
        return self.figures.get("root_mean_squared_error")


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is too large for a number.

    >>> perplexity(0.0), perplexity(1e9)
    (1.0, inf)
    """
    return math.exp(loss) if loss < 700 else math.inf


_FIGURES: dict[str | None, Callable[[float], dict[str, float]]] = {
    None: lambda loss: {},
    "tokens": lambda loss: {
        "perplexity": perplexity(loss),
        "bits_per_token": loss / math.log(2),
    },
    "classes": lambda loss: {},
    "squared error": lambda loss: {
        "mean_squared_error": loss,
        "root_mean_squared_error": math.sqrt(loss),
    },
}


def loss_figures(kind: str | None, loss: float) -> dict[str, float]:
    """What people of the field read a loss as, by name.

    A model says with an attribute ``loss_kind`` what its loss is the mean of:

    - "tokens": negative log-probabilities of the tokens of a text, in nats: their perplexity and
      bits a token;
    - "classes": those of classes or tags, in nats: nothing but the accuracy, which `evaluate`
      counts;
    - "squared error": squared differences: the mean squared error, which is the loss, and its root;
    - None, or no such attribute: anything else, and nothing is reported beside the loss.

    Raises:
        ValueError: the kind is another one.

    >>> loss_figures("squared error", 4.0)
    {'mean_squared_error': 4.0, 'root_mean_squared_error': 2.0}
    >>> loss_figures("classes", 4.0), loss_figures(None, 4.0)
    ({}, {})
    """
    if kind not in _FIGURES:
        kinds = ", ".join(repr(known) for known in _FIGURES)
        raise ValueError(f"the loss_kind {kind!r} of the model is none of {kinds}")
    return _FIGURES[kind](loss)


def report_loss(record: Mapping[str, Any], short: bool = False) -> str:
    """What stands beside a loss as people of the field read it: accuracy, perplexity, or an error.

    Args:
        record: The loss and the figures that follow from it, by name.
        short: In few characters.

    >>> report_loss({"loss": 1.6, "perplexity": 4.95303}), report_loss({"loss": 0.3})
    ('perplexity 4.95', '')
    """
    if "accuracy" in record:
        return f"accuracy {record['accuracy']:.2%}"
    if record.get("perplexity") is not None:
        return f"perplexity {record['perplexity']:,.{1 if short else 2}f}"
    if record.get("root_mean_squared_error") is not None:
        return f"root mean squared error {record['root_mean_squared_error']:.4g}"
    return ""


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
        model: Its ``loss(batch, state)`` gives the mean loss of the batch's targets and the state,
            its ``loss_kind`` says what that is (see `loss_figures`). If it has ``scores(batch)``,
            the targets that score highest are counted too.
        batches: Batches of `anaphora.data`; the state is carried over where they say so.
        on_batch: Called with the number of tokens of each batch that is done.

    Raises:
        ValueError: the batches have no token.

    >>> import numpy as np
    >>> from anaphora.models import LanguageModel
    >>> from anaphora.data import cover
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
    kind = getattr(model, "loss_kind", None)
    return Evaluation(total / tokens, tokens, None if scores is None else correct, kind)
