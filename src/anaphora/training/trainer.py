"""The training loop, one for every model."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np

from anaphora import random, schema
from anaphora.artifact import ArtifactError, ModelDirectory, Shape, check_arrays
from anaphora.data import Batch, Batches
from anaphora.optim import Optimizer, Schedule, clip_grad_norm, clip_grad_value
from anaphora.tensor import Array, Tensor, detach, no_grad
from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import Evaluation, Model, PenalizedModel, evaluate
from anaphora.training.options import TrainingOptions


class TrainingDiverged(RuntimeError):  # noqa: N818 - it names what happened
    """The loss or a gradient is no longer a number; the message says where and what to try."""


class _Stopped(Exception):  # noqa: N818 - it is no error
    """A request to stop came during an evaluation."""


@dataclass
class Progress:
    """How far a training has come; a checkpoint holds it.

    Attributes:
        epoch: Passes over the data that are complete.
        position: Batches of the current pass that are done.
        step: Updates so far.
        tokens: Tokens learnt from so far.
        seconds: Time spent so far.
        best_loss: The lowest loss of an evaluation, None before the first.
        evaluations_since_best: Evaluations after that.
        evaluated_step: The step of the last evaluation.
        interval_loss: The sum of losses since the last record.
        interval_tokens: Tokens since the last record.

    >>> progress = Progress(epoch=1, position=3, step=103)
    >>> Progress(**dataclasses.asdict(progress)) == progress  # as by way of a checkpoint
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

    def __post_init__(self) -> None:
        # Each batch has a token at least, and so has each that the next record is the mean of.
        if self.position > self.step or self.evaluated_step > self.step:
            raise ValueError(
                f"step is {self.step}, but position {self.position} and evaluated_step "
                f"{self.evaluated_step}; expected none that is larger"
            )


class OptimizerState(TypedDict):
    """What a checkpoint keeps of the optimiser, beside its arrays."""

    optimizer: str
    learning_rate: schema.NotNegative
    options: dict[str, Any]
    steps: dict[str, schema.Count]
    averaged_steps: NotRequired[schema.Count | None]


class ScheduleState(TypedDict):
    """What a checkpoint keeps of the schedule, whichever it is."""

    schedule: str
    initial_learning_rate: schema.NotNegative
    learning_rate: schema.NotNegative
    factor: NotRequired[schema.NotNegative]
    best_loss: NotRequired[float | None]
    evaluations_without_best: NotRequired[schema.Count]
    losses: NotRequired[list[float]]
    of: NotRequired[ScheduleState]


class RandomState(TypedDict):
    """What a checkpoint keeps of the package's generator."""

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

    Each update is truncated backpropagation through time: forward over a window from the state in
    which the window before ended, backward, detach, step.

    Args:
        model: Its ``loss(batch, state)`` gives the mean loss of a batch and the state for the next.
            If it is ``penalized``, its ``loss_and_penalty`` is asked instead: the sum is minimised,
            and the loss alone is reported. Its ``loss_kind``, if it has one, says what follows from
            the loss and is reported with it; see `loss_figures`.
        optimizer: Made of the model's parameters.
        batches: One epoch.
        options: Limits, clipping, and how often to do what.
        schedule: Sets the learning rate; None leaves it.
        validation: What evaluations run on; None for no evaluations.
        directory: Where checkpoints go; None for none.
        save_model: Called with a record when the weights are worth keeping: the best of all
            evaluations, or the latest where there are none.
        callbacks: What watches.

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
        batches: Batches,
        options: TrainingOptions,
        *,
        schedule: Schedule | None = None,
        validation: Batches | None = None,
        directory: ModelDirectory | None = None,
        save_model: Callable[[Mapping[str, Any]], None] = lambda record: None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.batches = batches
        self.options = options
        self.schedule = schedule
        self.validation = validation
        self.directory = directory
        self.save_model = save_model
        self.callbacks = list(callbacks)
        self.progress = Progress()
        self.schedule_changes = 0  # how often a training that went on has begun another schedule
        self.state: Any = None
        self._stop_requested: str | None = None
        self._gradient_norm = 0.0
        self._clock = self._last_checkpoint = time.monotonic()

    def request_stop(self, reason: str) -> None:
        """End the training after the update that is under way; signal handlers may call it.

        An evaluation that is under way is given up.
        """
        self._stop_requested = reason

    def run(self) -> str:
        """Train to the end; return why it ended.

        Raises:
            TrainingDiverged: the loss or a gradient is not finite. What is on disk stays as it was.
            ArtifactError: another training holds the directory, which this one locks until it ends.
        """
        if self.directory is None:
            return self._run()
        self.directory.lock()
        try:
            return self._run()
        finally:
            self.directory.unlock()

    def _run(self) -> str:
        progress = self.progress
        self._clock = time.monotonic() - progress.seconds
        self._last_checkpoint = time.monotonic()
        self._notify("on_start")
        epoch_batches = self._epoch_batches()
        while True:
            if self._stop_requested is None and self._evaluation_is_due():
                self.evaluate()
            if time.monotonic() - self._last_checkpoint >= self.options.checkpoint_seconds:
                self.save_checkpoint()
            if (reason := self._reason_to_stop()) is not None:
                break
            if progress.position == 0:
                epoch_batches = self._epoch_batches()
                if self.schedule is not None:
                    self.schedule.on_epoch(progress.epoch)
            loss = self._update(epoch_batches[progress.position])
            if progress.position == len(epoch_batches):
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

    def _epoch_batches(self) -> Batches:
        """The batches in the order of this epoch, which only depends on seed and epoch."""
        return self.batches.shuffled(
            np.random.default_rng((self.options.seed, self.progress.epoch))
        )

    @np.errstate(over="ignore", invalid="ignore")  # it says itself what became no number
    def _update(self, batch: Batch) -> float:
        """One step of truncated backpropagation through time."""
        progress, options = self.progress, self.options
        if self.schedule is not None:
            self.schedule.on_step(progress.step)
        state = self.state if self.batches.carries_state else None
        penalty: Tensor | None = None
        if isinstance(self.model, PenalizedModel) and self.model.penalized:
            mean_loss, penalty, state = self.model.loss_and_penalty(batch, state)
        else:
            mean_loss, state = self.model.loss(batch, state)
        loss = mean_loss.item()
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss}", progress.step + 1, batch)
        if penalty is not None:
            mean_loss = mean_loss + penalty
        if options.loss_per == "sequence":  # a mean over rows of sums over time
            mean_loss = mean_loss * (batch.tokens / batch.targets.shape[1])
        mean_loss.backward()
        parameters = [parameter for _, parameter in self.model.named_parameters()]
        self._gradient_norm = clip_grad_norm(parameters, options.clip_norm or math.inf)
        if not math.isfinite(self._gradient_norm):
            what = f"the norm of the gradient became {self._gradient_norm}"
            raise self._diverged(what, progress.step + 1, batch)
        if options.clip_value:
            clip_grad_value(parameters, options.clip_value)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state = detach(state)

        progress.position += 1
        progress.step += 1
        progress.tokens += batch.tokens
        progress.interval_loss += loss * batch.tokens
        progress.interval_tokens += batch.tokens
        return loss

    def _diverged(self, what: str, step: int, batch: Batch | None = None) -> TrainingDiverged:
        options = self.options
        for name in ("inputs", "targets"):
            given = np.asarray(getattr(batch, name, 0))
            if given.dtype.kind == "f" and not np.isfinite(given).all():
                place = ", ".join(map(str, np.argwhere(~np.isfinite(given))[0]))
                return TrainingDiverged(
                    f"{what} at step {step:,} (epoch {self.progress.epoch + 1:,}), because the "
                    f"{name} of its batch are not finite (at [{place}]); correct the data"
                )
        kept = "nothing was saved"
        if self.directory is not None:
            kept = f"the model and the checkpoint in {self.directory.path} are from before"
        clip = f"lower than {options.clip_norm:g}" if options.clip_norm else "such as 5"
        return TrainingDiverged(
            f"{what} at step {step:,} (epoch {self.progress.epoch + 1:,}); {kept}. Try a "
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
        if options.minutes is not None and progress.seconds >= 60 * options.minutes:
            return f"{options.minutes:g} minutes are over"
        if options.patience and progress.evaluations_since_best >= options.patience:
            return f"{_counted(options.patience, 'evaluation')} brought nothing better"
        return None

    def fraction_done(self) -> float:
        """How much of the training is done, 0 to 1, by the limit that is nearest."""
        progress, options = self.progress, self.options
        fractions = [0.0]
        if options.epochs is not None:
            whole = progress.epoch + progress.position / len(self.batches)
            fractions.append(whole / options.epochs)
        if options.max_steps is not None:
            fractions.append(progress.step / options.max_steps)
        if options.minutes is not None:
            fractions.append(progress.seconds / (60 * options.minutes))
        return min(max(fractions), 1.0)

    # Records and evaluations

    def _notify(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

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
        loss, tokens = progress.interval_loss / progress.interval_tokens, progress.interval_tokens
        self._record(
            "train",
            Evaluation(loss, tokens, loss_kind=getattr(self.model, "loss_kind", None)),
            learning_rate=self.optimizer.learning_rate,
            gradient_norm=self._gradient_norm,
        )
        progress.interval_loss, progress.interval_tokens = 0.0, 0

    def _evaluation_is_due(self) -> bool:
        if self.progress.evaluated_step == self.progress.step:
            return False
        if self.options.evaluate_every:
            return self.progress.step % self.options.evaluate_every == 0
        return self.progress.position == 0

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(self) -> None:
        """Evaluate, keep the model if it is the best so far, and tell the schedule.

        A request to stop ends it before anything is kept; a training that goes on begins with it.

        Raises:
            TrainingDiverged: the loss is not finite.
        """
        progress = self.progress
        if self.validation is None:
            progress.evaluated_step = progress.step
            return
        self._notify("on_evaluation")
        with self.optimizer.averaged():
            try:
                result = evaluate(self.model, self.validation, self._stop_evaluation)
            except _Stopped:
                return
            if not math.isfinite(result.loss):
                raise self._diverged(f"the validation loss became {result.loss}", progress.step)
            progress.evaluated_step = progress.step
            progress.seconds = time.monotonic() - self._clock
            best = progress.best_loss is None or result.loss < progress.best_loss
            record = self._record("evaluation", result, best=best)
            if best:
                progress.best_loss, progress.evaluations_since_best = result.loss, 0
                self.save_model(record)
            else:
                progress.evaluations_since_best += 1
        if self.schedule is not None:
            self.schedule.on_evaluation(result.loss)

    def _stop_evaluation(self, tokens: int) -> None:
        if self._stop_requested is not None:
            raise _Stopped

    # Checkpoints

    def save_checkpoint(self) -> None:
        """Write all that a training needs to go on bit for bit."""
        self._last_checkpoint = time.monotonic()
        if self.progress.best_loss is None:
            self.save_model({"kind": "checkpoint", "step": self.progress.step})
        if self.directory is None:
            return
        arrays = {f"model.{name}": p.data for name, p in self.model.named_parameters()}
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
                "state_is_tuple": isinstance(self.state, tuple),
                "metrics_size": self.directory.metrics_size(),
            },
        )
        self._notify("on_checkpoint")

    def _schedule_state(self) -> dict[str, Any] | None:
        if self.schedule is None:
            return None
        changes = {"changes": self.schedule_changes} if self.schedule_changes else {}
        return {**self.schedule.state_dict(), **changes}

    def load_checkpoint(self) -> None:
        """Go back to the last checkpoint of the directory.

        Raises:
            ArtifactError: there is none, or it is damaged or of another model.
        """
        assert self.directory is not None
        path = self.directory.checkpoint
        arrays, metadata = self.directory.load_checkpoint()
        try:
            checkpoint: Checkpoint = schema.convert(metadata, Checkpoint)
            progress = checkpoint["progress"]
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
                raise ValueError(f"schedule is {schedule}, but config.json has another")
            check_arrays(path, arrays, self._array_shapes(checkpoint, arrays))
            parts: dict[str, dict[str, Array]] = {"model": {}, "optimizer": {}, "state": {}}
            for name, array in arrays.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = array
            self.model.load_state_dict(parts["model"])
            self.optimizer.load_state_dict({**optimizer, "arrays": parts["optimizer"]})
            if self.schedule is not None:
                if schedule.get("changes", 0) == self.schedule_changes:
                    self.schedule.load_state_dict(schedule)
                else:  # the checkpoint is from before the last change, so this one begins now
                    self.optimizer.learning_rate = self.schedule.learning_rate
            random.set_state(metadata["random"])
            tensors = tuple(Tensor(parts["state"][str(k)]) for k in range(len(parts["state"])))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path}: this is no checkpoint of this training: {error}; put back the file that "
                "was saved with config.json, or train anew"
            ) from error
        self.progress = progress
        self.state = tensors if checkpoint["state_is_tuple"] else tensors[0] if tensors else None
        self.directory.truncate_metrics(checkpoint["metrics_size"])

    def _array_shapes(self, checkpoint: Checkpoint, given: Mapping[str, Array]) -> dict[str, Shape]:
        """The arrays that belong to a checkpoint."""
        model = {f"model.{name}": p.data for name, p in self.model.named_parameters()}
        optimizer = self.optimizer.state_dict()["arrays"]
        state = {name: array for name, array in given.items() if name.startswith("state.")}
        if self.batches.carries_state:
            state = {}
            if checkpoint["progress"].position:
                # A model that reads a batch tells how its states look.
                training = self.model.training
                self.model.train(False)
                with no_grad(), np.errstate(over="ignore", invalid="ignore"):
                    _, after = self.model.loss(self.batches[0])
                self.model.train(training)
                if checkpoint["state_is_tuple"] != isinstance(after, tuple):
                    raise ValueError(f"state_is_tuple is {checkpoint['state_is_tuple']}")
                state = {f"state.{k}": s.data for k, s in enumerate(_state_tensors(after))}
        arrays = model | {f"optimizer.{name}": array for name, array in optimizer.items()} | state
        return {name: Shape(array.shape, array.dtype) for name, array in arrays.items()}


def _state_tensors(state: Any) -> tuple[Tensor, ...]:
    if state is None:
        return ()
    return state if isinstance(state, tuple) else (state,)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
