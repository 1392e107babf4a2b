"""The training loop, one for every model."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np

from anaphora import engine, random, schema
from anaphora.artifact import ArtifactError, ModelDirectory, Shape, check_arrays
from anaphora.generation.reading import evaluating
from anaphora.metrics import direction, is_better
from anaphora.models.quantization import check_trainable
from anaphora.nn import Module
from anaphora.nn.states import as_tuple
from anaphora.optim import Optimizer, Schedule, clip_grad_norm, clip_grad_value
from anaphora.tensor import Array, Tensor, detach, no_grad
from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import (
    AnyBatches,
    Evaluation,
    Model,
    PenalizedModel,
    count_targets,
    evaluate,
    loss_and_state,
)
from anaphora.training.options import TrainingOptions, matmul_precision_notice
from anaphora.training.progress import bar_for

MINIMUM_TARGETS_TO_SELECT = 50
"""Validation targets below which accuracy and the like do not select the weights that are kept.

The standard error of a fraction of n is up to ``0.5 / sqrt(n)``: 7 % for 50, 16 % for 10. With
fewer targets the best of several evaluations is mostly luck, and the last weights are better.
"""


class TrainingDiverged(RuntimeError):  # noqa: N818 - it names what happened
    """The loss or a gradient became NaN or infinite; the message says where, and what to try."""


class _Stopped(Exception):  # noqa: N818 - it is not an error
    """A stop was requested during an evaluation."""


@dataclass
class Progress:
    """The progress of a training, as saved in checkpoints.

    Attributes:
        epoch: Complete passes over the data.
        position: Batches of the current pass that are done.
        step: Updates so far.
        tokens: Tokens trained on so far.
        seconds: Time spent so far.
        best_loss: The loss of the best evaluation, whose weights are kept; None before the first.
        best: The figure of the best evaluation that ``monitor`` names.
        evaluations_since_best: Evaluations after the best.
        evaluated_step: The step of the last evaluation.
        interval_loss: The sum of losses since the last record.
        interval_tokens: Tokens since the last record.

    >>> progress = Progress(epoch=1, position=3, step=103)
    >>> Progress(**dataclasses.asdict(progress)) == progress  # as through a checkpoint
    True
    """

    epoch: schema.Count = 0
    position: schema.Count = 0
    step: schema.Count = 0
    tokens: schema.Count = 0
    seconds: schema.NotNegative = 0.0
    best_loss: float | None = None
    evaluations_since_best: schema.Count = 0
    evaluated_step: schema.Count = 0
    interval_loss: float = 0.0
    interval_tokens: schema.Count = 0
    best: float | None = None

    def __post_init__(self) -> None:
        if self.evaluated_step > self.step:
            raise ValueError(
                f"evaluated_step is {self.evaluated_step}; expected at most step, which is "
                f"{self.step}"
            )
        if self.best is None:  # in old checkpoints, which only monitored the loss
            self.best = self.best_loss


class OptimizerState(TypedDict):
    """The state of the optimizer in a checkpoint, besides its arrays."""

    optimizer: str
    learning_rate: schema.NotNegative
    options: dict[str, Any]
    steps: dict[str, schema.Count]
    averaged_steps: NotRequired[schema.Count | None]
    average_decay: NotRequired[schema.NotNegative]
    initial_learning_rate: NotRequired[schema.NotNegative]
    groups: NotRequired[list[GroupState]]


class GroupState(TypedDict):
    """The state of a group of parameters in a checkpoint."""

    parameters: list[str]
    learning_rate: schema.NotNegative | None
    weight_decay: schema.NotNegative | None


class ScheduleState(TypedDict):
    """The state of any schedule in a checkpoint."""

    schedule: str
    initial_learning_rate: schema.NotNegative
    learning_rate: schema.NotNegative
    factor: NotRequired[schema.NotNegative]
    best_loss: NotRequired[float | None]
    evaluations_without_best: NotRequired[schema.Count]
    losses: NotRequired[list[float]]
    of: NotRequired[ScheduleState]


class RandomState(TypedDict):
    """The state of the package's random generator in a checkpoint."""

    bit_generator: str
    state: dict[str, int]
    has_uint32: int
    uinteger: int


class Checkpoint(TypedDict):
    """The metadata of ``checkpoint/state.safetensors``."""

    progress: Progress
    optimizer: OptimizerState
    schedule: ScheduleState | None
    random: RandomState
    state_is_tuple: bool
    metrics_size: schema.Count


class Trainer:
    """Trains a model until a limit of its options is reached.

    Each update is truncated backpropagation through time: forward over a window from the last state
    of the window before, backward, step, detach.

    Args:
        model: Its ``loss(batch, state)`` returns the mean loss of a batch, alone or with the state
            for the next. If it is ``penalized``, its ``loss_and_penalty`` is called instead: the
            sum is minimized, and only the loss is reported. Its ``loss_kind``, if it has one,
            determines the figures reported with the loss; see `loss_figures`.
        optimizer: The optimizer of the model's parameters.
        batches: One epoch: a list of anything that the loss accepts, `anaphora.data.Batches`, or
            any iterable with a length; see `evaluation.AnyBatches`.
        options: Limits, clipping, the intervals of evaluations, records and checkpoints, and the
            precision of matrix products: None for the current one; see `matmul_precision`.
        schedule: Sets the learning rate; None keeps it constant.
        validation: The batches of evaluations; None for no evaluations.
        directory: Where checkpoints are saved; None for no checkpoints.
        save_model: Called with a record to save the weights: those of the best evaluation, or the
            latest if there are no evaluations. The parameters are averaged then, if the optimizer
            averages.
        callbacks: Hooks into the loop.
        evaluator: Evaluates the model on `validation`, with the arguments of
            `anaphora.training.evaluate`; it may compute more figures.

    Raises:
        TypeError: the batches have no length.
        ValueError: there are no batches; or the model computes with weights in 8 bits.

    >>> from anaphora.models import LanguageModel
    >>> from anaphora.optim import SGD
    >>> from anaphora.data import batchify
    >>> random.seed(1)
    >>> model = LanguageModel(vocabulary_size=2, hidden_size=4)
    >>> batches = batchify(np.tile([0, 1], 50), batch_size=2, window=8)
    >>> optimizer = SGD(model.parameters(), learning_rate=1.0)
    >>> Trainer(model, optimizer, batches, TrainingOptions(epochs=20)).run()
    '20 epochs done'
    >>> evaluate(model, batches).perplexity < 1.1  # 2 was a guess
    True
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        batches: AnyBatches,
        options: TrainingOptions,
        *,
        schedule: Schedule | None = None,
        validation: AnyBatches | None = None,
        directory: ModelDirectory | None = None,
        save_model: Callable[[Mapping[str, Any]], None] = lambda record: None,
        callbacks: Sequence[Callback] = (),
        evaluator: Callable[[Any, Any, Callable[[int], None]], Evaluation] = evaluate,
    ) -> None:
        for name, given in (("batches", batches), ("validation", validation)):
            if given is not None:
                _check_batches(name, given)
        check_trainable("Trainer", model)
        self.model = model
        self.optimizer = optimizer
        self.batches: Any = batches
        self.options = options
        self.schedule = schedule
        self.validation = validation
        self.directory = directory
        self.save_model = save_model
        self.callbacks = list(callbacks)
        self.evaluator = evaluator
        self.progress = Progress()
        self.schedule_changes = 0  # schedule restarts of a resumed training
        self.state: Any = None
        self._stop_requested: str | None = None
        self._gradient_norm = 0.0
        self._clock = self._last_checkpoint = time.monotonic()
        self._evaluation_seconds: float | None = None  # duration of the last evaluation
        self._checkpoint_seconds = 0.0
        self._notices: set[str] = set()
        if options.ema_decay:
            optimizer.start_averaging(options.ema_decay)

    def __repr__(self) -> str:
        parameters = [parameter for _, parameter in self.model.named_parameters()]
        frozen = sum(p.size for p in parameters if not p.requires_grad)
        sizes = f"{sum(p.size for p in parameters):,} parameters"
        progress, options = self.progress, self.options
        limits = [
            f"{name}={getattr(options, name):g}"
            for name in ("epochs", "max_steps", "minutes")
            if getattr(options, name) is not None
        ]
        best = ""
        if progress.best is not None:
            best = f", best {options.monitor} {progress.best:.4g}"
        lines = [
            f"model={type(self.model).__name__}, {sizes}"
            + (f" ({frozen:,} frozen)" * bool(frozen)),
            f"optimizer={self.optimizer!r}",
            *([f"schedule={type(self.schedule).__name__}"] if self.schedule is not None else []),
            f"batches={len(self.batches):,}"
            + (f" ({options.accumulate} per update)" if options.accumulate > 1 else "")
            + ("" if self.validation is None else f", validation={len(self.validation):,}"),
            f"limits: {', '.join(limits)}",
            *([f"matmul_precision={options.matmul_precision}"] if options.matmul_precision else []),
            f"done: {progress.step:,} steps, {progress.epoch:,} epochs, "
            f"{self.fraction_done():.0%}{best}",
        ]
        return "\n  ".join(["Trainer(", *lines]) + "\n)"

    def request_stop(self, reason: str) -> None:
        """End the training after the current update; signal handlers may call it.

        A running evaluation is aborted.
        """
        self._stop_requested = reason

    def run(self, progress: bool = True) -> str:
        """Train until a limit is reached; return the reason for stopping.

        Args:
            progress: Show a progress bar and evaluations, in a terminal or a notebook; elsewhere
                nothing is printed.

        Raises:
            TrainingDiverged: the loss or a gradient is NaN or infinite. Nothing on disk changes.
            ArtifactError: the directory is locked by another training.
        """
        with contextlib.ExitStack() as stack:
            if self.directory is not None:
                self.directory.lock()
                stack.callback(self.directory.unlock)
            if progress and (bar := bar_for(self.callbacks)) is not None:
                self.callbacks.append(bar)
                stack.callback(self.callbacks.remove, bar)
                stack.enter_context(bar)
            stack.enter_context(self._matmul_precision())
            return self._run()

    def _matmul_precision(self) -> contextlib.AbstractContextManager[None]:
        return engine.matmul_precision(
            self.options.matmul_precision or engine.current_matmul_precision()
        )

    def _run(self) -> str:
        progress = self.progress
        self._clock = time.monotonic() - progress.seconds
        self._last_checkpoint = time.monotonic()
        self._notify("on_start")
        if notice := matmul_precision_notice():
            self._notice_once("matmul_precision", notice)
        epoch: _Epoch | None = None
        while True:
            if self._stop_requested is None and self._evaluation_is_due():
                self.evaluate()
            if time.monotonic() - self._last_checkpoint >= self.options.checkpoint_seconds:
                self.save_checkpoint()
            if (reason := self._reason_to_stop()) is not None:
                break
            if progress.position == 0:
                epoch = None
                if self.schedule is not None:
                    self.schedule.on_epoch(progress.epoch)
                self._notify("on_epoch")
            if epoch is None:
                epoch = _Epoch(self._epoch_batches(), progress.position)
            loss = self._update(epoch.take(self.options.accumulate))
            if progress.position == len(epoch):
                progress.epoch, progress.position, self.state = progress.epoch + 1, 0, None
            progress.seconds = time.monotonic() - self._clock
            self._notify("on_step", loss)
            if progress.step % self.options.log_every == 0:
                self._record_training()
        if self._stop_requested is None and progress.evaluated_step != progress.step:
            self.evaluate()
        self.save_checkpoint()
        self._notify("on_stop", reason)
        return reason

    @property
    def epoch_steps(self) -> int:
        """Updates per epoch."""
        return -(-len(self.batches) // self.options.accumulate)

    def _epoch_batches(self) -> Any:
        """The batches in the order of this epoch, which depends only on seed and epoch."""
        shuffled = getattr(self.batches, "shuffled", None)
        if shuffled is None:
            return self.batches
        return shuffled(np.random.default_rng((self.options.seed, self.progress.epoch)))

    def _carries_state(self) -> bool:
        return bool(getattr(self.batches, "carries_state", True))

    @np.errstate(over="ignore", invalid="ignore")  # NaN and infinity raise TrainingDiverged
    def _update(self, batches: Sequence[Any]) -> float:
        """One step of truncated backpropagation through time; return the mean loss."""
        progress, options = self.progress, self.options
        if self.schedule is not None:
            self.schedule.on_step(progress.step)
        counts = [count_targets(self.model, batch) for batch in batches]
        total, mean = sum(counts), 0.0
        sequences = _count_sequences(batches) if options.loss_per == "sequence" else 0
        for batch, count in zip(batches, counts, strict=True):
            loss, to_minimize = self._loss(batch)
            share = count / total if len(batches) > 1 and total else 1.0
            mean = mean + loss * share
            if options.loss_per == "sequence":  # mean over sequences of sums over time
                to_minimize = to_minimize * (count / sequences)
            elif len(batches) > 1:
                to_minimize = to_minimize * share
            to_minimize.backward()
        parameters = [parameter for _, parameter in self.model.named_parameters()]
        self._gradient_norm = clip_grad_norm(parameters, options.clip_norm or math.inf)
        if not math.isfinite(self._gradient_norm):
            problem = f"the gradient norm became {self._gradient_norm}"
            raise self._diverged(problem, progress.step + 1, *batches)
        if options.clip_value:
            clip_grad_value(parameters, options.clip_value)
        self.optimizer.step()
        self.optimizer.zero_grad()

        progress.position += len(batches)
        progress.step += 1
        progress.tokens += total
        progress.interval_loss += mean * total
        progress.interval_tokens += total
        return mean

    def _loss(self, batch: Any) -> tuple[float, Tensor]:
        """The loss of a batch, and the loss to minimize; the state is carried over."""
        state = self.state if self._carries_state() else None
        penalty: Tensor | None = None
        if isinstance(self.model, PenalizedModel) and self.model.penalized:
            mean_loss, penalty, state = self.model.loss_and_penalty(batch, state)
        else:
            mean_loss, state = loss_and_state(self.model, batch, state)
        loss = mean_loss.item()
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss}", self.progress.step + 1, batch)
        if not mean_loss.requires_grad:
            raise ValueError(
                "the loss depends on no trainable parameter: unfreeze some (requires_grad = True), "
                "and compute the loss with Tensors, not with their arrays"
            )
        self.state = detach(state)
        return loss, mean_loss if penalty is None else mean_loss + penalty

    def _diverged(self, problem: str, step: int, *batches: Any) -> TrainingDiverged:
        options = self.options
        for batch in batches:
            for name, given in _arrays_of(batch):
                if given.dtype.kind == "f" and not np.isfinite(given).all():
                    place = ", ".join(map(str, np.argwhere(~np.isfinite(given))[0]))
                    return TrainingDiverged(
                        f"{problem} at step {step:,} (epoch {self.progress.epoch + 1:,}), because "
                        f"the {name} of its batch contain NaN or infinity (at [{place}]); fix the "
                        "data"
                    )
        kept = "nothing was saved"
        if self.directory is not None:
            kept = f"the model and the checkpoint in {self.directory.path} are from before"
        clip = f"lower than {options.clip_norm:g}" if options.clip_norm else "such as 5"
        return TrainingDiverged(
            f"{problem} at step {step:,} (epoch {self.progress.epoch + 1:,}); {kept}. Try a "
            f"learning_rate lower than {options.learning_rate:g}, a clip_norm {clip}, or a warm_up"
        )

    def _reason_to_stop(self) -> str | None:
        progress, options = self.progress, self.options
        if self._stop_requested is not None:
            return self._stop_requested
        if options.epochs is not None and progress.epoch >= options.epochs:
            return f"{_counted(options.epochs, 'epoch')} done"
        if options.max_steps is not None and progress.step >= options.max_steps:
            return f"{_counted(options.max_steps, 'step')} done"
        if options.minutes is not None and (
            progress.seconds + self._seconds_to_reserve() >= 60 * options.minutes
        ):
            return f"{options.minutes:g} minutes are over"
        if options.patience and progress.evaluations_since_best >= options.patience:
            return f"{_counted(options.patience, 'evaluation')} without improvement"
        return None

    def _seconds_to_reserve(self) -> float:
        """Estimated time of the final evaluation and checkpoint, at most half of ``minutes``."""
        if self.validation is None or self.options.minutes is None or not self.progress.step:
            return 0.0
        if self._evaluation_seconds is None:
            self._evaluation_seconds = self._estimated_seconds(self.validation)
        seconds = self._evaluation_seconds + self._checkpoint_seconds
        return min(seconds, 30 * self.options.minutes)

    def _estimated_seconds(self, validation: Any) -> float:
        """The estimated time of the first evaluation, extrapolated from a few of its batches."""
        count = len(validation)
        if hasattr(validation, "__getitem__"):  # they may be sorted by length
            sample = [validation[k] for k in sorted({count // 4, count // 2, 3 * count // 4})]
        else:
            sample = list(itertools.islice(iter(validation), 3))
        began = time.monotonic()
        with contextlib.suppress(ValueError):  # they may have no target
            evaluate(self.model, sample)
        return 1.1 * (time.monotonic() - began) * count / max(len(sample), 1)

    def fraction_done(self) -> float:
        """The fraction of the training that is done, 0 to 1, by the nearest limit."""
        progress, options = self.progress, self.options
        fractions = [0.0]
        if options.epochs is not None:
            passes = progress.epoch + progress.position / len(self.batches)
            fractions.append(passes / options.epochs)
        if options.max_steps is not None:
            fractions.append(progress.step / options.max_steps)
        if options.minutes is not None:
            fractions.append(progress.seconds / (60 * options.minutes))
        return min(max(fractions), 1.0)

    # Records and evaluations

    def _notify(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def _notice_once(self, subject: str, sentence: str) -> None:
        """Send a notice unless one on the same subject was sent."""
        if subject not in self._notices:
            self._notices.add(subject)
            self._notify("on_notice", sentence)

    def _record(self, kind: str, result: Evaluation, **more: Any) -> dict[str, Any]:
        progress = self.progress
        record = {
            "kind": kind,
            "step": progress.step,
            "epoch": progress.epoch + progress.position / len(self.batches),
            "loss": result.loss,
            **result.figures,
            "tokens": result.tokens,
            **more,
            "seconds": round(progress.seconds, 3),
        }
        self._notify("on_record", record)
        return record

    def _record_training(self) -> None:
        progress = self.progress
        tokens = progress.interval_tokens
        loss = progress.interval_loss / max(tokens, 1)
        self._record(
            "train",
            Evaluation(loss, tokens, loss_kind=getattr(self.model, "loss_kind", None)),
            learning_rate=self.optimizer.learning_rate,
            gradient_norm=self._gradient_norm,
        )
        progress.interval_loss, progress.interval_tokens = 0.0, 0

    def _evaluation_is_due(self) -> bool:
        progress, options = self.progress, self.options
        if progress.evaluated_step == progress.step:
            return False
        if options.evaluate_every:
            due = progress.step % options.evaluate_every == 0
        else:
            due = progress.position == 0
        return due or (progress.evaluated_step == 0 and self._needs_early_evaluation())

    def _needs_early_evaluation(self) -> bool:
        """Whether half of the training is over, and the first evaluation would be the final one."""
        progress, options = self.progress, self.options
        if options.minutes is not None and progress.seconds >= 30 * options.minutes:
            return progress.seconds + 2 * self._seconds_to_reserve() < 60 * options.minutes
        total = options.last_step(self.epoch_steps) or math.inf
        first = options.evaluate_every or self.epoch_steps
        return first >= total and progress.step >= total / 2

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(self) -> None:
        """Evaluate, keep the model if it is the best so far, and inform the schedule.

        A stop request aborts it before anything is saved; a resumed training repeats it first.

        Raises:
            TrainingDiverged: the loss is NaN or infinite.
            ValueError: the evaluation has no figure with the name ``monitor``.
        """
        progress = self.progress
        if self.validation is None:
            progress.evaluated_step = progress.step
            return
        began = time.monotonic()
        self._notify("on_evaluation")
        with self.optimizer.averaged():
            try:
                with self._matmul_precision():
                    result = self.evaluator(self.model, self.validation, self._evaluation_watcher())
            except _Stopped:
                return
            if not math.isfinite(result.loss):
                raise self._diverged(f"the validation loss became {result.loss}", progress.step)
            figure = result.figure(result.monitored(self.options.monitor))
            progress.evaluated_step = progress.step
            progress.seconds = time.monotonic() - self._clock
            best = self._is_best(result, figure)
            record = self._record("evaluation", result, best=best)
            if best:
                progress.best_loss, progress.best = result.loss, figure
                progress.evaluations_since_best = 0
                self.save_model(record)
            else:
                progress.evaluations_since_best += 1
        if self.schedule is not None:
            self.schedule.on_evaluation(result.loss)
        self._evaluation_seconds = time.monotonic() - began
        progress.seconds = time.monotonic() - self._clock
        if self.options.minutes and self._evaluation_seconds > 30 * self.options.minutes:
            self._notice_once(
                "minutes",
                f"an evaluation takes {self._evaluation_seconds / 60:.1f} minutes, more than half "
                f"of {self.options.minutes:g}: give more minutes, or less validation data",
            )

    def _is_best(self, result: Evaluation, figure: float) -> bool:
        """Whether to save the weights: the best so far, or the latest if there are few targets."""
        progress, monitor = self.progress, result.monitored(self.options.monitor)
        if direction(monitor) == "higher" and result.tokens < MINIMUM_TARGETS_TO_SELECT:
            self._notice_once(
                "judge",
                f"{_counted(result.tokens, 'validation target')} are too few to select the best "
                f"weights by {monitor} (at least {MINIMUM_TARGETS_TO_SELECT}): the last are kept",
            )
            return True
        if progress.best is None or progress.best_loss is None:
            return True
        if figure == progress.best:
            return result.loss < progress.best_loss
        return is_better(monitor, figure, progress.best)

    def _evaluation_watcher(self) -> Callable[[int], None]:
        """The function that an evaluation calls after each batch."""
        total, done = len(self.validation or ()), itertools.count(1)

        def watch(tokens: int) -> None:
            self._notify("on_evaluation_batch", next(done), total)
            if self._stop_requested is not None:
                raise _Stopped

        return watch

    # Checkpoints

    def save_checkpoint(self) -> None:
        """Save everything that a training needs to continue bit for bit."""
        began = self._last_checkpoint = time.monotonic()
        if self.progress.best_loss is None:
            with self.optimizer.averaged():
                self.save_model({"kind": "checkpoint", "step": self.progress.step})
        if self.directory is None:
            return
        arrays = self._model_arrays()
        optimizer = self.optimizer.state_dict()
        arrays |= {f"optimizer.{name}": array for name, array in optimizer.pop("arrays").items()}
        arrays |= {f"state.{k}": s.data for k, s in enumerate(_state_tensors(self.state))}
        self.directory.save_checkpoint(
            arrays,
            {
                "progress": dataclasses.asdict(self.progress),
                "optimizer": optimizer,
                "schedule": self._schedule_state(),
                "random": random.get_state(),
                "state_is_tuple": isinstance(self.state, (tuple, list)),
                "metrics_size": self.directory.metrics_size(),
            },
        )
        self._checkpoint_seconds = time.monotonic() - began
        self._notify("on_checkpoint")

    def _schedule_state(self) -> dict[str, Any] | None:
        if self.schedule is None:
            return None
        changes = {"changes": self.schedule_changes} if self.schedule_changes else {}
        return {**self.schedule.state_dict(), **changes}

    def load_checkpoint(self) -> None:
        """Restore the last checkpoint of the directory.

        Raises:
            ArtifactError: it is missing, damaged or of another model.
        """
        assert self.directory is not None
        path = self.directory.checkpoint
        arrays, metadata = self.directory.load_checkpoint()
        try:
            checkpoint: Checkpoint = schema.convert(metadata, Checkpoint)
            progress = checkpoint["progress"]
            if progress.position > progress.step * self.options.accumulate:
                raise ValueError(
                    f"progress.position is {progress.position}; expected at most the "
                    f"{progress.step * self.options.accumulate} batches of {progress.step} steps"
                )
            if progress.position >= len(self.batches):
                raise ValueError(
                    f"progress.position is {progress.position}; expected less than the "
                    f"{len(self.batches)} batches of an epoch"
                )
            optimizer, schedule = metadata["optimizer"], metadata["schedule"]
            if optimizer["options"] != (own := self.optimizer.state_dict()["options"]):
                raise ValueError(
                    f"optimizer.options are {optimizer['options']}; expected those of config.json, "
                    f"{own}"
                )
            if (schedule is None) != (self.schedule is None):
                raise ValueError(f"schedule is {schedule}, which contradicts config.json")
            check_arrays(path, arrays, self._array_shapes(checkpoint, arrays))
            parts: dict[str, dict[str, Array]] = {"model": {}, "optimizer": {}, "state": {}}
            for name, array in arrays.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = array
            model: Any = self.model
            model.load_state_dict(parts["model"])
            self.optimizer.load_state_dict({**optimizer, "arrays": parts["optimizer"]})
            if self.schedule is not None:
                if schedule.get("changes", 0) == self.schedule_changes:
                    self.schedule.load_state_dict(schedule)
                else:  # the checkpoint is older than the last change, so the schedule starts now
                    self.optimizer.learning_rate = self.schedule.learning_rate
            random.set_state(metadata["random"])
            tensors = tuple(Tensor(parts["state"][str(k)]) for k in range(len(parts["state"])))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path}: this is not a checkpoint of this training: {error}; restore the file "
                "that was saved with config.json, or train again"
            ) from error
        self.progress = progress
        self.state = tensors if checkpoint["state_is_tuple"] else tensors[0] if tensors else None
        self.directory.truncate_metrics(checkpoint["metrics_size"])

    def _model_arrays(self) -> dict[str, Array]:
        """The arrays of the model in a checkpoint: its parameters, then its buffers."""
        tensors: dict[str, Tensor] = dict(self.model.named_parameters())
        if isinstance(self.model, Module):
            tensors |= {name: b for name, b in self.model.named_buffers() if b.persistent}
        return {f"model.{name}": tensor.data for name, tensor in tensors.items()}

    def _array_shapes(self, checkpoint: Checkpoint, given: Mapping[str, Array]) -> dict[str, Shape]:
        """The shapes of the arrays of a checkpoint."""
        model = self._model_arrays()
        names = {name.removeprefix("optimizer.") for name in given if name.startswith("optimizer.")}
        of_optimizer = self.optimizer.arrays_of({**checkpoint["optimizer"], "arrays": names})
        optimizer = {f"optimizer.{name}": p.data for name, p in of_optimizer.items()}
        state = {name: array for name, array in given.items() if name.startswith("state.")}
        if self._carries_state():
            state = {}
            if checkpoint["progress"].position:
                # The state after any batch has the shapes of the saved one.
                with (
                    evaluating(self.model),
                    no_grad(),
                    np.errstate(over="ignore", invalid="ignore"),
                ):
                    _, after = loss_and_state(self.model, _Epoch(self.batches, 0).take(1)[0], None)
                if checkpoint["state_is_tuple"] != isinstance(after, (tuple, list)):
                    raise ValueError(f"state_is_tuple is {checkpoint['state_is_tuple']}")
                state = {f"state.{k}": s.data for k, s in enumerate(_state_tensors(after))}
        arrays = model | optimizer | state
        return {name: Shape(array.shape, array.dtype) for name, array in arrays.items()}


class _Epoch:
    """The batches of an epoch in order, from a position on."""

    def __init__(self, batches: AnyBatches, position: int) -> None:
        self._batches: Any = batches
        self._position = position
        self._iterator: Iterator[Any] | None = None
        if not hasattr(batches, "__getitem__"):
            self._iterator = itertools.islice(iter(batches), position, None)

    def __len__(self) -> int:
        return len(self._batches)

    def take(self, count: int) -> list[Any]:
        """The next `count` batches, or fewer at the end, but at least one."""
        end = min(self._position + count, len(self))
        if self._iterator is None:
            taken = [self._batches[k] for k in range(self._position, end)]
        else:
            taken = list(itertools.islice(self._iterator, end - self._position))
        if len(taken) < end - self._position:
            raise ValueError(
                f"the batches ended after {self._position + len(taken)}, but their length is "
                f"{len(self)}; the two must agree"
            )
        self._position = end
        return taken


def _check_batches(name: str, batches: Any) -> None:
    """Check the batches of an epoch.

    Raises:
        TypeError: it has no length, or is a dictionary.
        ValueError: it is empty.
    """
    advice = "give a list of batches, or another object with a length"
    if isinstance(batches, Mapping) or not hasattr(batches, "__len__"):
        hint = "; list(batches) converts a generator" if hasattr(batches, "__next__") else ""
        raise TypeError(f"Trainer: {name} is of type {type(batches).__name__}; {advice}{hint}")
    if len(batches) == 0:
        raise ValueError(f"Trainer: {name} is empty; {advice}")


def _count_sequences(batches: Sequence[Any]) -> int:
    """The total number of sequences in batches, B of targets [T, B]."""
    try:
        return sum(batch.targets.shape[1] for batch in batches)
    except (AttributeError, IndexError) as error:
        raise ValueError(
            "loss_per 'sequence' needs batches with targets [T, B]; use loss_per 'token', and "
            "return from the model's loss what is to be minimized"
        ) from error


def _arrays_of(batch: Any) -> Iterator[tuple[str, Array]]:
    """The arrays of a batch with their names: of a `Batch`, a tuple or a dict."""
    if isinstance(batch, Mapping):
        items = [(f"arrays {name!r}", array) for name, array in batch.items()]
    elif isinstance(batch, (tuple, list)):
        items = [(f"arrays {k}", array) for k, array in enumerate(batch)]
    else:
        items = [(name, getattr(batch, name, None)) for name in ("inputs", "targets")]
        items.append(("numbers", batch))
    for name, array in items:
        if isinstance(array, np.ndarray):
            yield name, array


def _state_tensors(state: Any) -> tuple[Tensor, ...]:
    tensors = () if state is None else as_tuple(state)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                "a checkpoint can only save a state that is a Tensor or a tuple of Tensors; the "
                f"loss returned one with a {type(tensor).__name__}"
            )
    return tensors


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
