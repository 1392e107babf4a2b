"""The training loop, one for every model."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import anaphora
from anaphora import engine, random, schema
from anaphora.artifact import ArtifactError, ModelDirectory, Shape, check_arrays
from anaphora.distributed import Processes, world
from anaphora.distributed.sums import TreeSum, tree_sum
from anaphora.generation.reading import evaluating
from anaphora.metrics import direction, is_better
from anaphora.models.quantization import check_trainable
from anaphora.nn import Module
from anaphora.optim import Optimizer, Schedule, clip_grad_norm, clip_grad_value
from anaphora.tensor import Array, Tensor, detach, no_grad
from anaphora.training.averaging import Averaging, check_apart, has_outer_steps
from anaphora.training.callbacks import Callback
from anaphora.training.checkpoint import Checkpoint, Progress, state_tensors
from anaphora.training.epoch import Epoch, arrays_of, check_batches, count_sequences, sampled
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
from anaphora.training.shards import GradientSum, check_shards, digest, shards_of

MINIMUM_TARGETS_TO_SELECT = 50
"""Validation targets below which accuracy and the like do not select the weights that are kept.

The standard error of a fraction of n is up to ``0.5 / sqrt(n)``: 7 % for 50, 16 % for 10. With
fewer targets the best of several evaluations is mostly luck, and the last weights are better.
"""


class TrainingDiverged(RuntimeError):  # noqa: N818 - it names what happened
    """The loss or a gradient became NaN or infinite; the message says where, and what to try."""


class _Stopped(Exception):  # noqa: N818 - it is not an error
    """A stop was requested during an evaluation."""


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
        processes: Those that share the shards of each batch (see `shards` of `TrainingOptions`);
            None for all that were started together, by ``mpiexec`` or ``srun``. Each has a trainer
            with the same arguments. Rank 0 saves and shows progress; callbacks are
            called on every rank, unless their ``only_main`` is true.

    Raises:
        TypeError: the batches have no length.
        ValueError: there are no batches; the model computes with weights in 8 bits; or the
            processes cannot share the shards.

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
        evaluator: Callable[..., Evaluation] = evaluate,
        processes: Processes | None = None,
    ) -> None:
        for name, given in (("batches", batches), ("validation", validation)):
            if given is not None:
                check_batches(name, given)
        check_trainable("Trainer", model)
        self.model = model
        # To look for all members of a protocol at each step takes long.
        self._penalized = model if isinstance(model, PenalizedModel) else None
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
        self.processes = world() if processes is None else processes
        self.states: list[Any] = []  # of the shards of this process
        self._stop_requested: str | None = None
        self._stopping: str | None = None  # the same, when all processes know
        self._checkpoint_due = False
        self._gradients: GradientSum | None = None
        self._averaging: Averaging | None = None
        self._velocity: dict[str, Array] = {}  # of outer steps
        self._communication_seconds = 0.0  # since the last record
        self._gradient_norm = 0.0
        self._clock = self._last_checkpoint = time.monotonic()
        self._evaluation_seconds: float | None = None  # duration of the last evaluation
        self._checkpoint_seconds = 0.0
        self._notices: set[str] = set()
        check_shards(self.shards, self.processes.size)
        self.states = [None] * len(self.own_shards)
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

    @property
    def shards(self) -> int:
        """The number of shards of each batch."""
        return self.options.shards or self.processes.size

    @property
    def own_shards(self) -> range:
        """The numbers of the shards of this process."""
        count = self.shards // self.processes.size
        return range(self.processes.rank * count, (self.processes.rank + 1) * count)

    def share(self, processes: Processes) -> None:
        """Share the shards of a trainer of one process with others, which have the same trainer, at
        the same step.

        Raises:
            ValueError: they cannot share the shards.
        """
        check_shards(self.shards, processes.size)
        if self.processes.size == 1:
            self.processes = processes
            self.states = [self.states[number] for number in self.own_shards]

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
            ProcessesDiffer: the processes differ in their options, weights or data.
        """
        with contextlib.ExitStack() as stack:
            with self.processes.together():
                if self.directory is not None and self.processes.is_main:
                    self.directory.lock()
                    stack.callback(self.directory.unlock)
            if progress and self.processes.is_main and (bar := bar_for(self.callbacks)) is not None:
                self.callbacks.append(bar)
                stack.callback(self.callbacks.remove, bar)
                stack.enter_context(bar)
            stack.enter_context(self._matmul_precision())
            self._check_alike()
            check_apart(self.options.average_every, self.shards, self.processes.size)
            if self.options.average_every > 1:
                self._averaging = Averaging(
                    dict(self.model.named_parameters()), self.optimizer, self.options,
                    self.processes, self.progress.step, self._velocity,
                )  # fmt: skip
            elif self.shards > 1:
                parameters = [parameter for _, parameter in self.model.named_parameters()]
                self._gradients = stack.enter_context(GradientSum(parameters, self.processes))
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
        epoch: Epoch | None = None
        while True:
            if self._is_together():
                self._agree()
                if self._stopping is None and self._evaluation_is_due():
                    self.evaluate()
                    self._agree()
                if self._checkpoint_due:
                    self.save_checkpoint()
                    self._agree()
                if (reason := self._reason_to_stop()) is not None:
                    break
            if progress.position == 0:
                epoch = None
                if self.schedule is not None:
                    self.schedule.on_epoch(progress.epoch)
                self._notify("on_epoch")
            if epoch is None:
                epoch = Epoch(self._epoch_batches(), progress.position)
            update = self._update if self._averaging is None else self._update_apart
            loss = update(epoch.take(self.options.accumulate))
            if progress.position == len(epoch):
                progress.epoch, progress.position = progress.epoch + 1, 0
                self.states = [None] * len(self.own_shards)
            recorded = (progress.step - 1) // self.options.log_every
            if self._averaging is not None and self._is_together():
                recorded = self._averaging.step // self.options.log_every
                self._average()
            progress.seconds = time.monotonic() - self._clock
            self._notify("on_step", loss)
            if self._is_together() and progress.step // self.options.log_every > recorded:
                self._record_training()
        if self._stopping is None and progress.evaluated_step != progress.step:
            self.evaluate()
        self.save_checkpoint()
        self._notify("on_stop", reason)
        return reason

    def _is_together(self) -> bool:
        """Whether all processes have the same weights: always, unless `average_every` is not 1."""
        progress, options = self.progress, self.options
        return (
            self._averaging is None
            or progress.step in (self._averaging.step, options.max_steps)
            or progress.step % options.average_every == 0
            or progress.position == 0
        )

    def _update_apart(self, batches: Sequence[Any]) -> float:
        """An update of this process by itself; an error waits until all are together."""
        assert self._averaging is not None
        if self._averaging.failure is None:
            try:
                return self._update(batches)
            except Exception as error:
                self._averaging.failure = error
        self.progress.position += len(batches)
        self.progress.step += 1
        return math.nan

    def _average(self) -> None:
        """Average the weights of all processes."""
        assert self._averaging is not None
        began, progress = time.monotonic(), self.progress
        loss, tokens = self._averaging.average(progress.step)
        self._velocity = self._averaging.velocity
        progress.tokens += tokens
        progress.interval_loss += loss
        progress.interval_tokens += tokens
        self._communication_seconds += time.monotonic() - began

    def _agree(self) -> None:
        """Share what only one process knows: rank 0's clock, and any request to stop."""
        waited = time.monotonic() - self._last_checkpoint
        self._checkpoint_due = waited >= self.options.checkpoint_seconds
        self._stopping = self._stop_requested
        if self.processes.size == 1:
            return
        began = time.monotonic()
        own = [
            self._stopping is not None,
            self._checkpoint_due,
            self.progress.seconds,
            math.nan if self._evaluation_seconds is None else self._evaluation_seconds,
            self._checkpoint_seconds,
        ]
        shared = self.processes.all_gather_numbers(np.array(own, np.float64))
        _, due, self.progress.seconds, evaluation, self._checkpoint_seconds = shared[0].tolist()
        self._checkpoint_due = bool(due)
        self._evaluation_seconds = None if math.isnan(evaluation) else evaluation
        if shared[:, 0].any():
            reasons = self.processes.all_gather(self._stopping)
            self._stopping = next(reason for reason in reasons if reason is not None)
        self._communication_seconds += time.monotonic() - began

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
        if self._averaging is not None:
            mean, total = self._backward_apart(batches)
        elif self.shards == 1:
            counts = [count_targets(self.model, batch) for batch in batches]
            total = sum(counts)
            mean = self._backward(batches, counts, total, self._sequences(batches))
        else:
            mean, total = self._backward_of_shards(batches)
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
        if self._averaging is not None:
            self._averaging.count(mean * total, total)
            return mean
        progress.tokens += total
        progress.interval_loss += mean * total
        progress.interval_tokens += total
        return mean

    def _sequences(self, batches: Sequence[Any]) -> int:
        return count_sequences(batches) if self.options.loss_per == "sequence" else 0

    def _backward(
        self,
        batches: Sequence[Any],
        counts: Sequence[int],
        total: int,
        sequences: int,
        place: int = 0,
        is_last: bool = False,
    ) -> float:
        """Forward and backward over batches, or one shard of each; their share of the mean loss.

        Args:
            batches: The batches, or shards, of which None have no row.
            counts: Their targets.
            total: All targets of the update.
            sequences: All its sequences, for ``loss_per`` "sequence".
            place: Of the shard in this process.
            is_last: Whether it is the last shard of this process.
        """
        mean = 0.0
        alone = self.shards == 1 and len(batches) == 1
        for number, (batch, count) in enumerate(zip(batches, counts, strict=True), start=1):
            if self.shards > 1 and not count:
                self._pass_over(batch, place)
                continue
            loss, to_minimize = self._loss(batch, place)
            share = 1.0 if alone or not total else count / total
            mean = mean + loss * share
            if self.options.loss_per == "sequence":  # mean over sequences of sums over time
                to_minimize = to_minimize * (count / sequences)
            elif not alone:
                to_minimize = to_minimize * share
            if is_last and number == len(batches) and self._gradients is not None:
                with self._gradients.last_backward():
                    to_minimize.backward()
            else:
                to_minimize.backward()
        return mean

    def _backward_apart(self, batches: Sequence[Any]) -> tuple[float, int]:
        """Forward and backward over the shard of this process; its mean loss, and its targets."""
        number = self.processes.rank
        key = int(random.generator().integers(2**63))
        parts = [shards_of(self.model, batch, self.shards)[number] for batch in batches]
        counts = [0 if part is None else count_targets(self.model, part) for part in parts]
        sequences = self._sequences([part for part in parts if part is not None])
        with random.seeded((key, number)):  # for dropout
            mean = self._backward(parts, counts, sum(counts), sequences)
        return mean, sum(counts)

    def _backward_of_shards(self, batches: Sequence[Any]) -> tuple[float, int]:
        """Forward and backward over all shards of batches; the mean loss, and the targets."""
        assert self._gradients is not None
        key = int(random.generator().integers(2**63))
        own, losses = self.own_shards, TreeSum[float](operator.add)
        error: Exception | None = None
        total = 0
        try:
            shards = [shards_of(self.model, batch, self.shards) for batch in batches]
            counts = [
                [0 if part is None else count_targets(self.model, part) for part in parts]
                for parts in shards
            ]
            total, sequences = sum(map(sum, counts)), self._sequences(batches)
            for place, number in enumerate(own):
                parts, targets = ([one[number] for one in given] for given in (shards, counts))
                is_last = place == len(own) - 1
                with random.seeded((key, number)):  # for dropout
                    losses.push(self._backward(parts, targets, total, sequences, place, is_last))
                if not is_last:
                    self._gradients.end_shard()
        except Exception as failure:  # the others wait for the gradients
            if self.processes.size == 1:
                raise
            error = failure
            losses.push(math.nan)
        self._communication_seconds += self._gradients.finish()
        shared = np.array([losses.pop(), error is not None], np.float64)
        shared = self.processes.all_gather_numbers(shared)
        if shared[:, 1].any():
            self.processes.raise_first(error)
        return tree_sum(shared[:, 0].tolist(), operator.add), total

    def _pass_over(self, shard: Any, place: int) -> None:
        """Carry the state over a shard without targets."""
        if shard is not None and self._carries_state():
            with no_grad():
                _, state = loss_and_state(self.model, shard, self.states[place])
            self.states[place] = detach(state)

    def _loss(self, batch: Any, place: int) -> tuple[float, Tensor]:
        """The loss of a batch, and the loss to minimize; the state is carried over."""
        state = self.states[place] if self._carries_state() else None
        penalty: Tensor | None = None
        if self._penalized is not None and self._penalized.penalized:
            mean_loss, penalty, state = self._penalized.loss_and_penalty(batch, state)
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
        self.states[place] = detach(state)
        return loss, mean_loss if penalty is None else mean_loss + penalty

    def _diverged(self, problem: str, step: int, *batches: Any) -> TrainingDiverged:
        options = self.options
        for batch in batches:
            for name, given in arrays_of(batch):
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
        if self._stopping is not None:
            return self._stopping
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
            seconds = self._estimated_seconds(self.validation) if self.processes.is_main else 0.0
            self._evaluation_seconds = self.processes.broadcast(seconds)
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
            if self.processes.is_main or not callback.only_main:
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
        more: dict[str, Any] = {}
        if self.processes.size > 1:
            more["communication_seconds"] = round(self._communication_seconds, 6)
        self._record(
            "train",
            Evaluation(loss, tokens, loss_kind=getattr(self.model, "loss_kind", None)),
            learning_rate=self.optimizer.learning_rate,
            gradient_norm=self._gradient_norm,
            **more,
        )
        self._communication_seconds = 0.0
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
            if (result := self._evaluation()) is None:
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
                with self.processes.together():
                    if self.processes.is_main:
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

    def _evaluation(self) -> Evaluation | None:
        """The figures of the validation data, for all processes; None if it was stopped."""
        result: Evaluation | None = None
        given = self.model, self.validation, self._evaluation_watcher()
        with contextlib.suppress(_Stopped), self._matmul_precision():
            if "processes" in inspect.signature(self.evaluator).parameters:
                result = self.evaluator(*given, processes=self.processes)
            else:
                with self.processes.together():
                    if self.processes.is_main:
                        result = self.evaluator(*given)
        if self.processes.size > 1:  # it may have sampled
            result, state = self.processes.broadcast((result, random.get_state()))
            random.set_state(state)
        return result

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
        """Save everything that a training run needs to continue bit for bit."""
        began = self._last_checkpoint = time.monotonic()
        states: list[Any] = []
        if self.directory is not None:
            self._check_weights()
            states = [state for own in self.processes.gather(self.states) for state in own]
        with self.processes.together():
            if self.processes.is_main:
                self._save_checkpoint(states)
        if self.directory is not None:
            self._checkpoint_seconds = time.monotonic() - began
            self._notify("on_checkpoint")

    def _check_alike(self) -> None:
        """Check that all processes train the same, before they start.

        Raises:
            ProcessesDiffer: they do not.
        """
        if self.processes.size == 1:
            return
        found = engine.info()
        own = {
            "version": f"anaphora {anaphora.__version__} and NumPy {np.__version__}",
            "engine": f"{found['engine']} {found['instruction_set']}",
            **{name: repr(getattr(self.options, name)) for name in self.options.fields()},
            "model": type(self.model).__name__,
            "initial weights": self._weights_digest(),
            "random numbers (anaphora.random.seed)": str(random.get_state()["state"]["state"]),
            "step": str(self.progress.step),
            "number of batches": str(len(self.batches)),
            "training data": digest(sampled(self.batches)),
        }
        self.processes.check_alike(own)

    def _weights_digest(self) -> str:
        return digest(parameter.data for _, parameter in self.model.named_parameters())

    def _check_weights(self) -> None:
        """Check that all processes have computed the same weights.

        Raises:
            ProcessesDiffer: they have not.
        """
        if self.processes.size == 1:
            return
        self.processes.check_alike(
            {f"weights after {self.progress.step:,} steps": self._weights_digest()},
            "nothing was saved; their processors or libraries compute differently",
        )

    def _save_checkpoint(self, states: Sequence[Any]) -> None:
        if self.progress.best_loss is None:
            with self.optimizer.averaged():
                self.save_model({"kind": "checkpoint", "step": self.progress.step})
        if self.directory is None:
            return
        arrays = self._model_arrays()
        optimizer = self.optimizer.state_dict()
        arrays |= {f"optimizer.{name}": array for name, array in optimizer.pop("arrays").items()}
        arrays |= self._state_arrays(states)
        arrays |= {f"outer.{name}": array for name, array in self._velocity.items()}
        self.directory.save_checkpoint(
            arrays,
            {
                "progress": dataclasses.asdict(self.progress),
                "optimizer": optimizer,
                "schedule": self._schedule_state(),
                "random": random.get_state(),
                "state_is_tuple": any(isinstance(state, (tuple, list)) for state in states),
                "metrics_size": self.directory.metrics_size(),
            },
        )

    def _state_arrays(self, states: Sequence[Any]) -> dict[str, Array]:
        """The states of all shards, by their names in a checkpoint."""
        return {
            f"state.{self._shard_prefix(number)}{k}": tensor.data
            for number, state in enumerate(states)
            for k, tensor in enumerate(state_tensors(state))
        }

    def _shard_prefix(self, number: int) -> str:
        return f"{number}." if self.shards > 1 else ""

    def _state_of(self, number: int, arrays: Mapping[str, Array], is_tuple: bool) -> Any:
        """The state of a shard in a checkpoint."""
        prefix = self._shard_prefix(number)
        names = (f"{prefix}{k}" for k in itertools.count())
        tensors = tuple(
            Tensor(arrays[name]) for name in itertools.takewhile(arrays.__contains__, names)
        )
        return tensors if is_tuple else tensors[0] if tensors else None

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
            parts: dict[str, dict[str, Array]]
            parts = {"model": {}, "optimizer": {}, "state": {}, "outer": {}}
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
            is_tuple = checkpoint["state_is_tuple"]
            states = [self._state_of(k, parts["state"], is_tuple) for k in self.own_shards]
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path}: this is not a checkpoint of this training: {error}; restore the file "
                "that was saved with config.json, or train again"
            ) from error
        self.progress = progress
        self.states, self._velocity = states, parts["outer"]
        if self.processes.is_main:
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
                    first = Epoch(self.batches, 0).take(1)[0]
                    parts = (
                        shards_of(self.model, first, self.shards) if self.shards > 1 else [first]
                    )
                    after = [
                        None if part is None else loss_and_state(self.model, part, None)[1]
                        for part in parts
                    ]
                is_tuple = any(isinstance(one, (tuple, list)) for one in after)
                if checkpoint["state_is_tuple"] != is_tuple:
                    raise ValueError(f"state_is_tuple is {checkpoint['state_is_tuple']}")
                state = self._state_arrays(after)
        outer = {}
        if has_outer_steps(self.options) and any(name.startswith("outer.") for name in given):
            outer = {f"outer.{name}": p.data for name, p in self.model.named_parameters()}
        arrays = model | optimizer | state | outer
        return {name: Shape(array.shape, array.dtype) for name, array in arrays.items()}


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
