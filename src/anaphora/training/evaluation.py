"""Evaluation: a model's loss over every target once, and the figures derived from it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from anaphora.data import IGNORE_INDEX, Batch
from anaphora.distributed import ALONE, Processes, shared
from anaphora.generation.reading import evaluating
from anaphora.models import LanguageModel
from anaphora.ops.losses import scaled_sum
from anaphora.tensor import Array, Parameter, Tensor, no_grad
from anaphora.training.measures import Measure


class Model(Protocol):
    """A model that can be trained and evaluated: a module with a loss.

    A batch may be anything that the loss accepts. The targets of a batch without an attribute
    ``tokens`` are counted by the model's ``count_targets(batch)``; without that method, each batch
    counts as one target.
    """

    training: bool

    def loss(self, batch: Any, state: Any = None) -> Tensor | tuple[Tensor, Any]:
        """The mean loss of a batch; a model with a state also returns that for the next batch.

        The model's ``loss_kind``, if it has one, determines the figures reported with it; see
        `loss_figures`.
        """

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters by name."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training or evaluation mode."""


class AnyBatches(Protocol):
    """Batches of an epoch: a list, `anaphora.data.Batches`, or any iterable with a length.

    Optional attributes: ``carries_state`` (True by default), whether the state after a batch is the
    initial state of the next; ``shuffled(generator)``, the batches in the order of an epoch;
    ``tokens``, the number of their targets.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


@runtime_checkable
class PenalizedModel(Model, Protocol):
    """A model whose training may minimize a penalty in addition to the reported loss."""

    penalized: bool

    def loss_and_penalty(self, batch: Any, state: Any = None) -> tuple[Tensor, Tensor | None, Any]:
        """The mean loss of a batch, the penalty that training adds to it, and the state."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        loss: The mean loss over targets: for tokens and classes the negative log-probability, in
            nats.
        tokens: The number of targets that were predicted.
        correct: The number of targets that were predicted correctly; None if not counted.
        loss_kind: The kind of loss; see `loss_figures`.
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
        """The figures reported besides the loss: those derived from it, accuracy, and others."""
        accuracy = self.accuracy
        counted = {} if accuracy is None else {"accuracy": accuracy}
        return {**loss_figures(self.loss_kind, self.loss), **counted, **self.more}

    def monitored(self, name: str) -> str:
        """The name of the monitored figure. "auto" is the first available of: F1 of spans, micro F1
        of several labels, accuracy of classes, loss.

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
            ValueError: there is no figure of this name; the message lists the names.

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
        """The fraction of targets that were predicted correctly; None if not counted."""
        return None if self.correct is None else self.correct / self.tokens

    @property
    def perplexity(self) -> float | None:
        """exp(loss), the effective number of equally likely tokens; None of other losses."""
        return self.figures.get("perplexity")

    @property
    def bits_per_token(self) -> float | None:
        """The loss in bits; None if it is not a loss of tokens."""
        return self.figures.get("bits_per_token")

    @property
    def mean_squared_error(self) -> float | None:
        """The loss of a regressor; None of other models."""
        return self.figures.get("mean_squared_error")

    @property
    def root_mean_squared_error(self) -> float | None:
        """Its square root, in the units of the targets; None of other models."""
        return self.figures.get("root_mean_squared_error")


def perplexity(loss: float) -> float:
    """exp(loss), infinite if that overflows.

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
    """The figures derived from a loss, by name.

    The attribute ``loss_kind`` of a model states what its loss averages:

    - "tokens": negative log-probabilities of tokens, in nats; perplexity and bits per token are
      derived;
    - "classes": negative log-probabilities of classes or tags, in nats; nothing is derived
      (`evaluate` counts the accuracy);
    - "likelihood": negative log-densities, in nats; nothing is derived;
    - "quantile loss": pinball losses (Koenker & Bassett 1978); nothing is derived;
    - "squared error": squared errors; the mean squared error, which is the loss, and its root;
    - None, or no such attribute: any other loss; nothing is derived.

    Raises:
        ValueError: the kind is unknown.

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
    """The unit of a loss: "nats", or "".

    >>> loss_unit("tokens"), loss_unit("squared error")
    ('nats', '')
    """
    return "nats" if kind in _IN_NATS else ""


def report_loss(record: Mapping[str, Any], short: bool = False) -> str:
    """Format the figures of a record: accuracy, perplexity, errors.

    Args:
        record: The loss and other figures, by name.
        short: Use fewer characters.

    >>> report_loss({"loss": 1.6, "perplexity": 4.95303}), report_loss({"loss": 0.3})
    ('perplexity 4.95', '')
    >>> report_loss({"loss": 0.1, "accuracy": 0.97, "span_f1": 0.8})
    'span F1 80.00%, accuracy 97.00%'
    """
    forms = _REPORTED | _REPORTED_SHORT if short else _REPORTED
    return ", ".join(
        form.format(record[name]) for name, form in forms.items() if record.get(name) is not None
    )


_REPORTED = {
    "span_f1": "span F1 {:.2%}",
    "micro_f1": "micro F1 {:.2%}",
    "subset_accuracy": "subset accuracy {:.2%}",
    "accuracy": "accuracy {:.2%}",
    "bleu": "BLEU {:.1f}",
    "mean_absolute_error": "mean absolute error {:.4g}",
    "root_mean_squared_error": "root mean squared error {:.4g}",
    "perplexity": "perplexity {:,.2f}",
}

_REPORTED_SHORT = {"root_mean_squared_error": "error {:.4g}", "perplexity": "perplexity {:,.1f}"}


def check_scores(owner: str, scores: Array) -> None:
    """Check that predictions are finite.

    Raises:
        ValueError: one is NaN or infinite.

    >>> check_scores("classify", np.array([0.5, 0.5]))
    """
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{owner}: the model's predictions are NaN or infinite, as its weights or its inputs "
            "are too large: train again with a lower learning_rate"
        )


def loss_and_state(model: Model, batch: Any, state: Any) -> tuple[Tensor, Any]:
    """A model's loss on a batch, and the state after it, None if the model returns none.

    Raises:
        TypeError: the model returns anything else.

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
            f"{type(model).__name__}.loss(batch, state) returned {found}; expected the mean loss "
            "of the batch, a Tensor of one number, or a pair of that and the state"
        )
    return loss, after


def count_targets(model: Model, batch: Any) -> int:
    """The number of targets that the loss of a batch averages: of the batch, of the model, or 1.

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
    processes: Processes = ALONE,
) -> Evaluation:
    """Evaluate a model on batches, without dropout.

    Several processes share out the batches; or, of a `LanguageModel` whose state is carried over,
    their streams. All return the same, with the bits of one process (with the native engine).

    Args:
        model: Its ``loss(batch, state)`` returns the mean loss over the batch's targets and the
            state; its ``loss_kind`` is the kind of loss (see `loss_figures`). If it has
            ``scores(batch)`` and the batches have ``targets``, accuracy is counted too, of the
            highest scores, or of the model's ``answers(scores, lengths)``, as for a CRF. Targets
            after the last score are classes that the model lacks: predictions of them count as
            wrong, and the loss excludes their sequences.
        batches: Batches of `anaphora.data`, or any that the loss accepts (see `Model`); the state
            is carried over unless ``carries_state`` is False (see `AnyBatches`).
        on_batch: Called after each batch with its number of tokens.
        measure: Computes more figures; one of `anaphora.training.measures`.
        processes: The processes that call this function together, as `anaphora.distributed.world`.

    Raises:
        ValueError: the batches have no tokens.

    >>> import numpy as np
    >>> from anaphora.models import LanguageModel
    >>> from anaphora.data import cover
    >>> model = LanguageModel(vocabulary_size=4, hidden_size=3)
    >>> evaluate(model, cover(np.array([0, 3, 1, 2]), batch_size=1, window=2)).tokens
    3
    """
    total, tokens, measured = 0.0, 0, 0
    correct: int | None = None
    # NaN and infinity show in the loss.
    with evaluating(model), no_grad(), np.errstate(over="ignore", invalid="ignore"):
        if not getattr(batches, "carries_state", True):
            results = shared(processes, batches, functools.partial(_result, model, measure))
        elif processes.size > 1 and _has_streams(model):
            results = _stream_results(model, batches, processes)
        else:
            results = _results(model, measure, batches)
        for batch, result in results:
            total += result.loss * result.known
            tokens += result.tokens
            measured += result.known
            if result.correct is not None:
                correct = result.correct + (correct or 0)
            with processes.together():
                if measure is not None:
                    measure.update(batch, result.found)
                on_batch(result.tokens)
    if measured == 0:
        raise ValueError("evaluate: the batches have no tokens to predict")
    kind, more = getattr(model, "loss_kind", None), {} if measure is None else measure.figures()
    return Evaluation(total / measured, tokens, correct, kind, more)


class _Result(NamedTuple):
    """The evaluation of a batch.

    Attributes:
        loss: The mean loss over the targets that the model has.
        tokens: The number of targets.
        known: The number of those that the model has.
        correct: The number of correct predictions; None if not counted.
        found: For the measure.
    """

    loss: float
    tokens: int
    known: int
    correct: int | None = None
    found: Any = None


def _result(model: Model, measure: Measure | None, batch: Any) -> _Result:
    return _result_and_state(model, measure, batch, None)[0]


def _result_and_state(
    model: Model, measure: Measure | None, batch: Any, state: Any
) -> tuple[_Result, Any]:
    answers, known = _answers(model, batch)
    loss, state = loss_and_state(model, known, state)
    correct: int | None = None
    if answers is not None and answers.dtype.kind in "iu":
        # Padding is IGNORE_INDEX in the targets and in the path of a CRF.
        hits = (answers == batch.targets) & (batch.targets != IGNORE_INDEX)
        correct = int(np.count_nonzero(hits))
    found = None if measure is None else measure.found(batch, answers)
    counts = count_targets(model, batch), count_targets(model, known)
    return _Result(loss.item(), *counts, correct, found), state


def _results(
    model: Model, measure: Measure | None, batches: Iterable[Any]
) -> Iterator[tuple[Any, _Result]]:
    """Yield each batch and its result; the state is carried over."""
    state = None
    for batch in batches:
        result, state = _result_and_state(model, measure, batch, state)
        yield batch, result


def _has_streams(model: Model) -> bool:
    """Whether the loss is the mean of the losses of all tokens, computed stream by stream."""
    return isinstance(model, LanguageModel) and all(
        getattr(type(model), name) is getattr(LanguageModel, name)
        for name in ("loss", "loss_and_penalty")
    )


def _stream_results(
    model: Any, batches: Iterable[Batch], processes: Processes
) -> Iterator[tuple[Batch, _Result]]:
    """Yield each batch and its result; each process reads some of its streams."""
    state = None
    for batch in batches:
        with processes.together():
            share = np.array_split(np.arange(batch.inputs.shape[1]), processes.size)[processes.rank]
            losses = np.zeros((len(batch.inputs), 0), model.dtype)
            if len(share):
                lengths = None if batch.lengths is None else batch.lengths[share]
                own = Batch(batch.inputs[:, share], batch.targets[:, share], lengths)
                found, state = model.token_losses(own, state)
                losses = found.data
        losses = np.concatenate(processes.all_gather(losses), axis=1)
        loss = scaled_sum(losses, 1 / (batch.tokens or 1))
        yield batch, _Result(loss.item(), batch.tokens, batch.tokens)


def _answers(model: Any, batch: Any) -> tuple[Array | None, Any]:
    """A model's predictions for a batch, or None; and the batch without targets it lacks."""
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
    # The loss of a CRF is of complete paths.
    rows = unknown.any(axis=0) if unknown.ndim > 1 else unknown
    return answers, dataclasses.replace(batch, targets=np.where(rows, IGNORE_INDEX, targets))
