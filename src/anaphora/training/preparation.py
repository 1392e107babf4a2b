"""Making a `Trainer`, from files or from the checkpoint of a model directory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anaphora import engine, random
from anaphora.artifact import ArtifactError, Folder, ModelDirectory
from anaphora.data import DataError
from anaphora.distributed import ALONE, Processes, helped, world
from anaphora.models.quantization import untrainable
from anaphora.nn.initialization import shapes_only
from anaphora.optim import (
    OPTIMIZERS,
    SCHEDULES,
    Optimizer,
    Schedule,
    WarmUp,
    discriminative_groups,
    freeze,
    layer_groups,
)
from anaphora.tensor import Parameter
from anaphora.training.averaging import check_apart
from anaphora.training.callbacks import Callback, GradualUnfreezing, MetricsFile
from anaphora.training.evaluation import evaluate
from anaphora.training.options import LIMITS, TaskOptions, TrainingOptions, with_new_limits
from anaphora.training.shards import check_shards
from anaphora.training.start import Start
from anaphora.training.task import Adapt, Notify, Paths, Task, TrainingData
from anaphora.training.trainer import Trainer

_SCHEDULE_PARAMETERS = {
    "exponential": ("decay", "constant_epochs"),
    "plateau": ("decay", "plateau_patience"),
}
"""The options of each schedule that has any."""

_SCHEDULE_OPTIONS = {
    "learning_rate", "schedule", "warm_up", "decay", "constant_epochs", "plateau_patience",
}  # fmt: skip
_NEGLIGIBLE = 0.01  # fraction of the initial learning rate


def prepare_training(
    task: Task,
    options: TaskOptions,
    directory: str | os.PathLike[str],
    texts: Paths = (),
    validation_texts: Paths = (),
    *,
    start: Start | None = None,
    overwrite: bool = False,
    notify: Notify = lambda message: None,
) -> Trainer:
    r"""Read files, build the vocabulary and the model; return a trainer.

    Args:
        task: One of `TASKS`.
        options: All options, of class ``task.options``.
        directory: The model directory to create.
        texts: The training files, of the kinds that the task reads.
        validation_texts: The validation files; if empty, part of the texts is held out.
        start: A trained model to start from, whose ``options`` made the options; None for a new
            model.
        overwrite: Replace a model in the directory.
        notify: Called with a message at each stage.

    Raises:
        DataError: a file cannot be read, is too small, or has entries that are not in the
            vocabulary.
        ArtifactError: the directory cannot be used.
        ValueError: the options contradict each other.

    >>> import tempfile
    >>> from anaphora.training import TASKS
    >>> folder, task = tempfile.TemporaryDirectory(), TASKS["classify"]
    >>> table = Path(folder.name, "table.csv")
    >>> _ = table.write_text("text,label\n" + "oh,vowel\nhm,consonant\n" * 9)
    >>> options = task.options.make(
    ...     column="text", label_column="label", hidden_size=4, batch_size=2, max_steps=2
    ... )
    >>> prepare_training(task, options, Path(folder.name, "model"), [table]).run()
    '2 steps done'
    >>> folder.cleanup()
    """
    processes = world()
    trainer: Trainer | None = None
    with processes.together(), helped(processes):
        if processes.is_main:
            trainer = _prepared(
                task, options, directory, texts, validation_texts, start, overwrite, notify
            )
    return _shared(trainer, task, directory, processes)


def _prepared(
    task: Task,
    options: TaskOptions,
    directory: str | os.PathLike[str],
    texts: Paths,
    validation_texts: Paths,
    start: Start | None,
    overwrite: bool,
    notify: Notify,
) -> Trainer:
    """A trainer of this process alone, whose directory has a checkpoint."""
    _check(task, options)
    task.check_files(options.to_dict("data"), [*texts, *validation_texts])
    home = ModelDirectory(directory)
    with _locked(home):
        with _claimed(home, overwrite=overwrite) as folder:
            codec, names = _read(task, options, texts, validation_texts, folder, notify, start)
            options = _with_shards(_with_matmul_precision(task.resolve(options, codec)))
            config = {**options.to_config(), "sources": names}
            # All errors must come before an old model is deleted.
            random.seed(options.seed)
            model = task.make_model(options, codec.sizes())
            model.codec = codec
            if start is not None:
                start.copy_weights(task, options, model, notify)
                config["from"] = start.record()
            data = task.open(options, codec, folder)
            trainer = _trainer(task, options, home, config, model, data)
            home.clear(overwrite=overwrite)
            for file in _data(home.checkpoint.parent):
                file.unlink()
            for file in _data(folder):
                file.replace(home.checkpoint.parent / file.name)
            folder.rmdir()

        notify(data.description)
        task.begin(options, trainer, start is None)
        trainer.save_checkpoint()  # now the training can be resumed
    return trainer


def resume_training(
    task: Task,
    directory: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    notify: Notify = lambda message: None,
) -> Trainer:
    r"""Return a trainer that continues from the last checkpoint, bit for bit as if uninterrupted.

    Limits are totals, including what was done before. A new ``learning_rate``, ``schedule`` or
    schedule option restarts the schedule at the current step, from the given or else the current
    learning rate; so does a new end of the schedule cosine, which without a ``learning_rate`` never
    raises the current one. If ``minutes`` becomes the only limit, cosine becomes plateau.
    ``config.json`` records each restart under ``changes``.

    Args:
        task: The task of the directory.
        directory: The model directory.
        changes: New limits (``epochs``, ``max_steps``, ``minutes``), ``patience``,
            ``learning_rate``, ``schedule``, ``warm_up``, ``decay``, ``constant_epochs`` or
            ``plateau_patience``. Other options cannot change.
        notify: Called with a message about the consequences of the changes.

    Raises:
        ArtifactError: there is no checkpoint, or it is damaged or of another task.
        ValueError: another option changes, or a new value is out of range.

    >>> import tempfile
    >>> from anaphora.training import TASKS
    >>> folder, task = tempfile.TemporaryDirectory(), TASKS["tag"]
    >>> sentences = Path(folder.name, "sentences.tsv")
    >>> _ = sentences.write_text("It\tPRON\nrains\tVERB\n\n" * 20)
    >>> options = task.options.make(tag_column=2, hidden_size=4, batch_size=2, max_steps=2)
    >>> prepare_training(task, options, Path(folder.name, "model"), [sentences]).run()
    '2 steps done'
    >>> resume_training(task, Path(folder.name, "model"), {"max_steps": 3}).run()
    '3 steps done'
    >>> folder.cleanup()
    """
    processes = world()
    trainer: Trainer | None = None
    with processes.together():
        changes = dict(changes or {})
        check_changes(changes)
        if processes.is_main:
            home = ModelDirectory.open(directory)
            with _locked(home):
                trainer = _resumed(task, home, changes, notify)
    return _shared(trainer, task, directory, processes)


def _shared(
    trainer: Trainer | None,
    task: Task,
    directory: str | os.PathLike[str],
    processes: Processes,
) -> Trainer:
    """The trainer of each process: of rank 0 that which it made, of the others that which they read
    from its directory.
    """
    if processes.size == 1:
        assert trainer is not None
        return trainer
    with processes.together():
        if trainer is None:
            try:
                trainer = _resumed(task, ModelDirectory.open(directory), {}, lambda message: None)
            except (ArtifactError, OSError) as error:
                raise ArtifactError(
                    f"it cannot read what rank 0 wrote: {error}; all processes need the same "
                    "folder, on a disk that their machines share"
                ) from error
        check_shards(trainer.shards, processes.size)
        check_apart(trainer.options.average_every, trainer.shards, processes.size)
    trainer.share(processes)
    return trainer


def _resumed(
    task: Task, home: ModelDirectory, changes: Mapping[str, Any], notify: Notify
) -> Trainer:
    """A trainer that continues from the last checkpoint of a locked directory."""
    if home.load_config().get("weights") == "int8":
        raise ArtifactError(untrainable(home.path))
    if not home.checkpoint.exists():
        raise ArtifactError(
            f"{home.path}: has no checkpoint to resume from; train again, to another folder or "
            "over this one"
        )
    options = task.load_options(home)
    before = options
    config, codec, weights = home.load()
    if changes:
        values = with_new_limits({name: vars(options)[name] for name in options.fields()}, changes)
        options = type(options).from_dict({**values, **changes})
        _check_parameters(options.schedule, changes)
    model = task.model.made(home, config.pop("model"), weights).train()
    model.codec = task.model.load_codec(home, codec, model.options)
    try:
        data = task.open(before, model.codec, home.checkpoint.parent)
        trainer = _trainer(task, before, home, config, model, data)
        task.begin(before, trainer, False)
    except ValueError as error:
        raise ArtifactError(f"{home.path}: this training cannot be resumed: {error}") from error
    trainer.load_checkpoint()
    if changes:  # for the next --resume
        trainer.options = options
        _restart_schedule(trainer, before, config, changes, notify)
        config["training"] = options.to_dict("training")
        model.save(home, **config)
    return trainer


def check_changes(changes: Iterable[str]) -> None:
    """Check that options may change when a training is resumed.

    Raises:
        ValueError: one may not.

    >>> check_changes(["max_steps", "window"])
    Traceback (most recent call last):
        ...
    ValueError: window: cannot change when a training is resumed; only epochs, ... may
    """
    if fixed := sorted(set(changes) - LIMITS - {"patience"} - _SCHEDULE_OPTIONS):
        raise ValueError(
            f"{', '.join(fixed)}: cannot change when a training is resumed; only epochs, "
            f"max_steps, minutes, patience, {', '.join(sorted(_SCHEDULE_OPTIONS))} may"
        )


def _check_parameters(schedule: str, changes: Iterable[str]) -> None:
    """Refuse options of schedules other than the current one."""
    every = {name for names in _SCHEDULE_PARAMETERS.values() for name in names}
    if unused := sorted(every & set(changes) - set(_SCHEDULE_PARAMETERS.get(schedule, ()))):
        raise ValueError(
            f"{', '.join(unused)}: the schedule {schedule} has no such option; omit it, or "
            "choose another schedule"
        )


@dataclass(frozen=True)
class _ScheduleStart:
    """Where a resumed training restarted its schedule, as stored in ``config.json``.

    Attributes:
        step: The updates before it.
        epoch: The passes before it.
        learning_rate: The initial learning rate of the schedule; None for that of the options.
        warm_up_step: The first step of the warm-up.
    """

    step: int = 0
    epoch: int = 0
    learning_rate: float | None = None
    warm_up_step: int = 0

    @classmethod
    def last(cls, config: Mapping[str, Any]) -> _ScheduleStart:
        """The last restart in a config."""
        changes = config.get("changes", [])
        if not changes:
            return cls()
        return cls(**{name: value for name, value in changes[-1].items() if name != "options"})


def _restart_schedule(
    trainer: Trainer,
    before: TrainingOptions,
    config: dict[str, Any],
    changes: Mapping[str, Any],
    notify: Notify,
) -> None:
    """Restart the schedule if the changes require it, and record that in the config."""
    options, progress = trainer.options, trainer.progress
    done = trainer.fraction_done() >= 1
    if done and LIMITS & set(changes):
        notify(
            "the training is complete already: limits are totals, and it has run for "
            f"{progress.step:,} steps, {progress.epoch:,} epochs and "
            f"{progress.seconds / 60:.1f} minutes; give a larger limit"
        )
    epoch_steps = trainer.epoch_steps
    ends = [given.last_step(epoch_steps) for given in (before, options)]
    extended = options.schedule == "cosine" and ends[0] != ends[1] and not done
    if not (_SCHEDULE_OPTIONS & set(changes) or options.schedule != before.schedule or extended):
        return
    schedule = trainer.schedule
    assert schedule is not None
    current = schedule.schedule if isinstance(schedule, WarmUp) else schedule
    start = _ScheduleStart(
        progress.step,
        progress.epoch,
        float(changes.get("learning_rate", current.learning_rate)),
        progress.step if "warm_up" in changes else _ScheduleStart.last(config).warm_up_step,
    )
    record = {**dataclasses.asdict(start), "options": dict(changes)}
    config["changes"] = [*config.get("changes", []), record]
    trainer.schedule_changes = len(config["changes"])
    trainer.schedule = _schedule(trainer.optimizer, options, epoch_steps, start)
    assert start.learning_rate is not None
    reason = ""
    if options.schedule != before.schedule and "schedule" not in changes:
        reason = f", as {before.schedule} needs a known last step (epochs or max_steps)"
    notify(
        f"the schedule restarts at step {start.step:,}: {options.schedule}{reason}, from the "
        f"learning rate {start.learning_rate:.3g}"
    )
    if start.learning_rate < _NEGLIGIBLE * current.initial_learning_rate:
        notify(
            f"a learning rate of {start.learning_rate:.3g} is too low to learn: give learning_rate "
            f"too, such as {options.learning_rate:g}, the initial one"
        )


@contextlib.contextmanager
def _locked(home: ModelDirectory) -> Iterator[None]:
    """Lock a directory for a trainer, which unlocks it at its end; unlock it here on an error."""
    existed = home.path.exists()
    made = False
    try:
        home.lock()
        made = not existed and home.is_empty()
        yield
    except BaseException:  # Ctrl-C too
        if not (existed or home.locked) and home.path.exists():  # perhaps with a lock's file
            with contextlib.suppress(ArtifactError):
                home.lock()
        if made or (not existed and home.locked and home.is_empty()):
            shutil.rmtree(home.path, ignore_errors=True)
        elif not existed:
            with contextlib.suppress(OSError):  # it is missing, or has files
                home.path.rmdir()
        home.unlock()
        raise


@contextlib.contextmanager
def _claimed(home: ModelDirectory, *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder for the data of a run, while those of an old one may be needed; if
    the preparation fails, the directory does not change.
    """
    folder = home.checkpoint.parent / "new"
    try:
        if overwrite and (home.weights.exists() or home.checkpoint.exists()):
            ModelDirectory.open(home.path)  # refuses a folder of something else
            with Folder(home.path) as place:
                place.remove_link(home.checkpoint.parent.name)
        else:
            home.clear(overwrite=overwrite)
        home.make_folder(home.checkpoint.parent.name)
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir()
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _data(folder: Path) -> list[Path]:
    """The data files of a training run in a folder."""
    names = ("train.npy", "validation.npy", "train.safetensors", "validation.safetensors")
    return [folder / name for name in names if os.path.lexists(folder / name)]


def _trainer(
    task: Task,
    options: TaskOptions,
    home: ModelDirectory,
    config: dict[str, Any],
    model: Any,
    data: TrainingData,
) -> Trainer:
    """A trainer that saves models with the current config."""
    if options.freeze:
        freeze(model.named_parameters(), options.freeze)
    optimizer = _optimizer(model.named_parameters(), options)

    def save_model(record: Mapping[str, Any]) -> None:
        results = {
            name: value if math.isfinite(value) else None
            for name, value in record.items()
            if name not in ("kind", "best")
        }
        model.save(home, **{**config, "results": results})

    callbacks: list[Callback] = [MetricsFile(home)]
    if options.gradual_unfreezing:
        callbacks.append(GradualUnfreezing(model.named_parameters()))
    trainer = Trainer(
        model,
        optimizer,
        data.batches,
        options,
        validation=data.validation,
        directory=home,
        save_model=save_model,
        callbacks=callbacks,
        evaluator=lambda model, batches, on_batch, processes: evaluate(
            model, batches, on_batch, task.measure_of(options, model, model.codec), processes
        ),
        processes=ALONE if world().is_main else world(),  # rank 0 is the first to have a trainer
    )
    start = _ScheduleStart.last(config)
    trainer.schedule = _schedule(optimizer, options, trainer.epoch_steps, start)
    trainer.schedule_changes = len(config.get("changes", []))
    return trainer


def _read(
    task: Task,
    options: TaskOptions,
    texts: Paths,
    validation_texts: Paths,
    folder: Path,
    notify: Notify,
    start: Start | None,
) -> tuple[Any, dict[str, str | None]]:
    """Read files, with the vocabulary of the model to start from, if any."""
    adapt: Adapt = (lambda fit: fit()) if start is None else functools.partial(start.codec, task)
    try:
        return task.read(options, texts, validation_texts, folder, notify, adapt)
    except DataError as error:
        if start and start.vocabulary == "keep" and "is not in the vocabulary" in str(error):
            raise DataError(
                f"{error}; or extend the vocabulary of {start.path} (--extend-vocabulary)"
            ) from error
        raise


def _with_matmul_precision(options: Any) -> Any:
    """The options with the precision in which the training runs, for who resumes it."""
    precision = options.matmul_precision or engine.current_matmul_precision()
    if options.dtype == "float64":
        precision = "float32"  # the other one is not for it
    return dataclasses.replace(options, matmul_precision=precision)


def _with_shards(options: Any) -> Any:
    """The options with the shards of the training, for who resumes it; by default one a process."""
    shards = options.shards or world().size
    check_shards(shards, world().size)
    check_apart(options.average_every, shards, world().size)
    return dataclasses.replace(options, shards=shards)


def _check(task: Task, options: TaskOptions) -> None:
    """Refuse options that contradict each other, before files are read."""
    task.check(options)
    _with_shards(options)
    fields = task.model.fields()
    sizes = dict.fromkeys((n for n, f in fields.items() if f.default is dataclasses.MISSING), 2)
    sizes |= {"vocabulary_size": 2} if "vocabulary_size" in fields else {}
    with shapes_only():
        task.make_model(options, sizes)
    optimizer = _optimizer([("weight", Parameter([0.0]))], options)
    _schedule(optimizer, options, epoch_steps=1)


def _optimizer(parameters: Iterable[tuple[str, Parameter]], options: TrainingOptions) -> Optimizer:
    more: dict[str, Any] = {"weight_decay": options.weight_decay}
    if options.momentum:
        more["momentum"] = options.momentum
    if options.lazy_rows:
        more["lazy_rows"] = True
    groups: Any = parameters
    if options.discriminative_factor > 1:
        named = list(parameters)
        groups = discriminative_groups(
            named, layer_groups(named), options.learning_rate, factor=options.discriminative_factor
        )
    return OPTIMIZERS[options.optimizer](groups, learning_rate=options.learning_rate, **more)


def _schedule(
    optimizer: Optimizer,
    options: TrainingOptions,
    epoch_steps: int,
    start: _ScheduleStart = _ScheduleStart(),
) -> Schedule:
    if start.learning_rate is not None:
        optimizer.learning_rate = start.learning_rate
    more: dict[str, Any] = {}
    if options.schedule == "exponential":
        more = {"decay": options.decay, "constant_epochs": options.constant_epochs}
        more["first_epoch"] = start.epoch
    elif options.schedule == "plateau":
        more = {"factor": options.decay, "patience": options.plateau_patience}
    elif options.schedule == "cosine":
        end = options.last_step(epoch_steps)
        assert end is not None
        more = {"total_steps": max(end, start.step + 1), "first_step": start.step}
    schedule = SCHEDULES[options.schedule](optimizer, **more)
    if not options.warm_up:
        return schedule
    return WarmUp(schedule, steps=options.warm_up, first_step=start.warm_up_step)
