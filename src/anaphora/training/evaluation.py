"""Evaluation: the loss of a model, every target counted once, and what follows from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from anaphora.data import IGNORE_INDEX
from anaphora.generation.reading import evaluating
from anaphora.tensor import Array, Parameter, Tensor, no_grad
from anaphora.training.measures import Measure


class Model(Protocol):
    """What can be trained and evaluated: a module that has a loss.

    A batch may be anything that the loss understands. The targets of one that has no attribute
    ``tokens`` are counted by the model's ``count_targets(batch)``; without that method each batch
    counts as one.
    """

    training: bool

    def loss(self, batch: Any, state: Any = None) -> Tensor | tuple[Tensor, Any]:
        """The mean loss of a batch; a model that carries a state also returns that for the next.

        What is reported besides it follows from the model's ``loss_kind``, if it has one; see
        `loss_figures`.
        """

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters by name."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training, or to evaluation."""


class AnyBatches(Protocol):
    """Batches of an epoch: a list, `anaphora.data.Batches`, or what else has a length.

    Attributes that are used where they are there: ``carries_state`` (True if not), whether the
    state of a batch is that in which the next begins; ``shuffled(generator)``, the batches in the
    order of an epoch; ``tokens``, the number of their targets.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


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
        more: Other figures by name, such as ``span_f1``; see `anaphora.metrics.DIRECTIONS`.

    >>> round(Evaluation(loss=math.log(50), tokens=1000, loss_kind="tokens").perplexity)
    50
    >>> Evaluation(loss=1.21, tokens=1000, loss_kind="squared error").figures
    {'mean_squared_error': 1.21, 'root_mean_squared_error': 1.1}
    """

    loss: float
    tokens: int
    correct: int | None = None
    loss_kind: str | None = None
    more: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def figures(self) -> dict[str, float]:
        """What is reported besides the loss: what follows from it, the accuracy, and others."""
        accuracy = self.accuracy
        counted = {} if accuracy is None else {"accuracy": accuracy}
        return {**loss_figures(self.loss_kind, self.loss), **counted, **self.more}

    def monitored(self, name: str) -> str:
        """The name of the figure that judges, if "auto" is given: the F1 of spans, the micro F1 of
        several labels, the accuracy of classes, or the loss, the first that there is.

        >>> Evaluation(loss=0.5, tokens=10, correct=9).monitored("auto")
        'accuracy'
        """
        if name != "auto":
            return name
        figures = self.figures
        return next(
            (name for name in ("span_f1", "micro_f1", "accuracy") if name in figures), "loss"
        )

    def figure(self, name: str) -> float:
        """The loss or another figure, by its name.

        Raises:
            ValueError: there is no figure of this name; the message lists all names.

        >>> Evaluation(loss=0.5, tokens=10, correct=9).figure("accuracy")
        0.9
        """
        figures = {"loss": self.loss, **self.figures}
        if name not in figures:
            raise ValueError(
                f"an evaluation of this model has no figure {name!r}; monitor one of "
                f"{', '.join(figures)}"
            )
        return figures[name]

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
    "likelihood": lambda loss: {},
    "quantile loss": lambda loss: {},
    "squared error": lambda loss: {
        "mean_squared_error": loss,
        "root_mean_squared_error": math.sqrt(loss),
    },
}

_IN_NATS = ("tokens", "classes", "likelihood")


def loss_figures(kind: str | None, loss: float) -> dict[str, float]:
    """What people of the field read a loss as, by name.

    A model says with an attribute ``loss_kind`` what its loss is the mean of:

    - "tokens": negative log-probabilities of the tokens of a text, in nats: their perplexity and
      bits a token;
    - "classes": those of classes or tags, in nats: nothing but the accuracy, which `evaluate`
      counts;
    - "likelihood": negative logarithms of probability densities, in nats: nothing;
    - "quantile loss": pinball losses (Koenker & Bassett 1978): nothing;
    - "squared error": squared differences: the mean squared error, which is the loss, and its root;
    - None, or no such attribute: anything else, and nothing is reported besides the loss.

    Raises:
        ValueError: the kind is another one.

    >>> loss_figures("squared error", 4.0)
    {'mean_squared_error': 4.0, 'root_mean_squared_error': 2.0}
    >>> loss_figures("classes", 4.0), loss_figures(None, 4.0)
    ({}, {})
    """
    if kind not in _FIGURES:
        kinds = ", ".join(repr(known) for known in _FIGURES)
        raise ValueError(f"the loss_kind {kind!r} of the model is not one of {kinds}")
    return _FIGURES[kind](loss)


def loss_unit(kind: str | None) -> str:
    """What a loss of a kind is measured in: "nats", or nothing.

    >>> loss_unit("tokens"), loss_unit("squared error")
    ('nats', '')
    """
    return "nats" if kind in _IN_NATS else ""


def report_loss(record: Mapping[str, Any], short: bool = False) -> str:
    """What follows from a loss as people of the field read it: accuracy, perplexity, or an error.

    Args:
        record: The loss and the figures that follow from it, by name.
        short: In few characters.

    >>> report_loss({"loss": 1.6, "perplexity": 4.95303}), report_loss({"loss": 0.3})
    ('perplexity 4.95', '')
    >>> report_loss({"loss": 0.1, "accuracy": 0.97, "span_f1": 0.8})
    'span F1 80.00%, accuracy 97.00%'
    """
    parts = [
        form.format(record[name])
        for name, form in _REPORTED.items()
        if record.get(name) is not None
    ]
    if record.get("perplexity") is not None:
        parts.append(f"perplexity {record['perplexity']:,.{1 if short else 2}f}")
    return ", ".join(parts)


_REPORTED = {
    "span_f1": "span F1 {:.2%}",
    "micro_f1": "micro F1 {:.2%}",
    "subset_accuracy": "subset accuracy {:.2%}",
    "accuracy": "accuracy {:.2%}",
    "bleu": "BLEU {:.1f}",
    "mean_absolute_error": "mean absolute error {:.4g}",
    "root_mean_squared_error": "root mean squared error {:.4g}",
}


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


def loss_and_state(model: Model, batch: Any, state: Any) -> tuple[Tensor, Any]:
    """A model's loss of a batch and the state after it, None where the model returns none.

    Raises:
        TypeError: the model returns something else.

    >>> from anaphora.models import LanguageModel
    >>> from anaphora.data import batchify
    >>> model = LanguageModel(vocabulary_size=2, hidden_size=3)
    >>> loss, state = loss_and_state(model, batchify(np.array([0, 1, 0, 1]), 1, 3)[0], None)
    >>> loss.shape
    ()
    """
    result = model.loss(batch, state)
    loss, after = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(loss, Tensor) or loss.size != 1:
        found = f"of shape {loss.shape}" if isinstance(loss, Tensor) else f"{type(loss).__name__}"
        raise TypeError(
            f"{type(model).__name__}.loss(batch, state) returned {found}; it returns the mean loss "
            "of the batch, a Tensor of one number, or a pair of that and the state"
        )
    return loss, after


def count_targets(model: Model, batch: Any) -> int:
    """How many targets the loss of a batch is the mean of, as batch or model say; else 1.

    >>> from anaphora.models import LanguageModel
    >>> count_targets(LanguageModel(vocabulary_size=2, hidden_size=3), ["anything"])
    1
    """
    count = getattr(batch, "tokens", None)
    if isinstance(count, (int, np.integer)):
        return int(count)
    own = getattr(model, "count_targets", None)
    return int(own(batch)) if callable(own) else 1


def evaluate(
    model: Model,
    batches: Iterable[Any],
    on_batch: Callable[[int], None] = lambda tokens: None,
    measure: Measure | None = None,
) -> Evaluation:
    """Evaluate a model on batches, without dropout.

    Args:
        model: Its ``loss(batch, state)`` gives the mean loss of the batch's targets and the state,
            its ``loss_kind`` says what that is (see `loss_figures`). If it has ``scores(batch)``,
            the targets that score highest are counted too, of batches that have ``targets``; or
            those that its ``answers(scores, lengths)`` says, as of a CRF. Targets beyond the scores
            are of classes that it does not know: answers to them are wrong, and the loss is that of
            the sequences without.
        batches: Batches of `anaphora.data`, or any that the loss understands (see `Model`); the
            state is carried over unless they say otherwise (see `AnyBatches`).
        on_batch: Called with the number of tokens of each batch that is done.
        measure: Counts more figures, one of `anaphora.training.measures`.

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
    total, tokens, measured, state = 0.0, 0, 0, None
    correct: int | None = None
    # What is not finite comes back as the loss.
    with evaluating(model), no_grad(), np.errstate(over="ignore", invalid="ignore"):
        for batch in batches:
            answers, known = _answers(model, batch)
            loss, after = loss_and_state(model, known, state)
            state = after if carries_state else None
            count, count_known = count_targets(model, batch), count_targets(model, known)
            total += loss.item() * count_known
            tokens += count
            measured += count_known
            if answers is not None and answers.dtype.kind in "iu":
                # Padding has the same number in the targets and in the path of a CRF.
                hits = (answers == batch.targets) & (batch.targets != IGNORE_INDEX)
                right = int(np.count_nonzero(hits))
                correct = right if correct is None else correct + right
            if measure is not None:
                measure.update(batch, answers)
            on_batch(count)
    if measured == 0:
        raise ValueError("evaluate: the batches have no token to predict")
    kind, more = getattr(model, "loss_kind", None), {} if measure is None else measure.figures()
    return Evaluation(total / measured, tokens, correct, kind, more)


def _answers(model: Any, batch: Any) -> tuple[Array | None, Any]:
    """A model's answers to a batch, None if it has none; and what of the batch its loss is of."""
    if not hasattr(model, "scores") or not hasattr(batch, "targets"):
        return None, batch
    scores = model.scores(batch)
    if hasattr(model, "answers"):
        answers = model.answers(scores, getattr(batch, "lengths", None))
    else:
        answers = scores.data.argmax(axis=-1)
    targets = np.asarray(batch.targets)
    if targets.dtype.kind in "fb" or not (unknown := targets >= scores.shape[-1]).any():
        return answers, batch
    rows = unknown.any(axis=0) if unknown.ndim > 1 else unknown  # a path is judged as a whole
    return answers, dataclasses.replace(batch, targets=np.where(rows, IGNORE_INDEX, targets))
