"""From files to a `Trainer` that is ready, and from a model directory to one that goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from anaphora import random
from anaphora.artifact import ArtifactError, Folder, ModelDirectory
from anaphora.optim import OPTIMIZERS, SCHEDULES, Optimizer, Schedule, WarmUp
from anaphora.tensor import Parameter
from anaphora.training.callbacks import MetricsFile
from anaphora.training.options import TrainingOptions
from anaphora.training.task import LIMITS, Notify, Paths, Task, TaskOptions
from anaphora.training.trainer import Trainer


def prepare_training(
    task: Task,
    options: TaskOptions,
    directory: str | os.PathLike[str],
    texts: Paths = (),
    validation_texts: Paths = (),
    *,
    overwrite: bool = False,
    notify: Notify = lambda message: None,
) -> Trainer:
    r"""Read files, build the vocabulary and the model; return what is ready to train.

    Args:
        task: One of `TASKS`.
        options: All options, of ``task.options``.
        directory: The model directory to make.
        texts: What to train on: what it may be, the task says.
        validation_texts: What to evaluate on; if there are none, a part of the texts.
        overwrite: Replace a model that the directory holds.
        notify: Gets a sentence at every stage.

    Raises:
        TextError: a file cannot be read, has too little in it, or what the vocabulary lacks.
        ArtifactError: the directory cannot be used.
        ValueError: the options do not fit together.

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
    task.check(options)
    optimizer = _optimizer([("weight", Parameter([0.0]))], options.training)
    _schedule(optimizer, options.training, epoch_steps=1)
    home = ModelDirectory(directory)
    with _locked(home):
        with _claimed(home, overwrite=overwrite) as folder:
            vocabulary, names = task.read(options, texts, validation_texts, folder, notify)
            # All that can be wrong is to come up before an old model goes.
            random.seed(options.training.seed)
            model = task.model(task.arguments(options, vocabulary))
            task.batches(options, vocabulary, folder)
            home.clear(overwrite=overwrite)
            for file in _data(home.checkpoint.parent):
                file.unlink()
            for file in _data(folder):
                file.replace(home.checkpoint.parent / file.name)
            folder.rmdir()

        config = {"task": task.kind, **options.to_dict(), "sources": names}
        trainer = _trainer(task, options, home, config, vocabulary, model)
        notify(task.describe_data(options, vocabulary, home.checkpoint.parent))
        trainer.save_checkpoint()  # from here on it can be resumed
    return trainer


def resume_training(
    task: Task, directory: str | os.PathLike[str], changes: Mapping[str, Any] | None = None
) -> Trainer:
    r"""Return what goes on from the last checkpoint, bit for bit as if it had not stopped.

    Args:
        task: That of the directory.
        directory: The model directory.
        changes: New limits: ``epochs``, ``max_steps``, ``minutes`` (and ``patience``). Other
            options stay what they were.

    Raises:
        ArtifactError: there is nothing to resume, or it is damaged or of another task.
        ValueError: another option is to change, or its new value is out of range.

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
    changes = dict(changes or {})
    check_changes(changes)
    home = ModelDirectory.open(directory)
    with _locked(home):
        return _resumed(task, home, changes)


def _resumed(task: Task, home: ModelDirectory, changes: Mapping[str, Any]) -> Trainer:
    if not home.checkpoint.exists():
        raise ArtifactError(
            f"{home.path}: has no checkpoint, so there is no training to continue; train anew, "
            "into another folder or over this one"
        )
    config, data, weights = home.load()
    if config.get("task") != task.kind:
        raise ArtifactError(
            f"{home.config}: its task is {config.get('task')!r}; expected {task.kind!r}"
        )
    try:
        options = task.options.from_dict(config)
        vocabulary = task.vocabulary(data)
    except ValueError as error:  # TextError is one
        raise ArtifactError(f"{home.path}: this training cannot be resumed: {error}") from error
    if changes:
        limits = dict.fromkeys(LIMITS) if LIMITS & set(changes) else {}
        training = {**options.training.to_dict(), **limits, **changes}
        options = dataclasses.replace(options, training=TrainingOptions.from_dict(training))
        config["training"] = options.to_dict()["training"]
    try:
        model = task.model(task.arguments(options, vocabulary))
        trainer = _trainer(task, options, home, config, vocabulary, model)
    except ValueError as error:
        raise ArtifactError(f"{home.path}: this training cannot be resumed: {error}") from error
    trainer.load_checkpoint()
    if changes:  # another --resume shall know them too
        home.save(config, data, weights)
    return trainer


def check_changes(changes: Iterable[str]) -> None:
    """Refuse options that a training cannot change when it goes on.

    Raises:
        ValueError: there are some.

    >>> check_changes(["max_steps", "window"])
    Traceback (most recent call last):
        ...
    ValueError: window: a training that goes on keeps its options; only epochs, ... may change
    """
    if fixed := sorted(set(changes) - LIMITS - {"patience"}):
        raise ValueError(
            f"{', '.join(fixed)}: a training that goes on keeps its options; only epochs, "
            "max_steps, minutes and patience may change"
        )


@contextlib.contextmanager
def _locked(home: ModelDirectory) -> Iterator[None]:
    """Lock a directory for a trainer, whose end unlocks it; if none comes of it, unlock it here."""
    existed = home.path.exists()
    home.lock()
    try:
        made = not existed and home.is_empty()
        try:
            yield
        except BaseException:  # Ctrl-C too
            if made:
                shutil.rmtree(home.path, ignore_errors=True)
            raise
    except BaseException:
        home.unlock()
        raise


@contextlib.contextmanager
def _claimed(home: ModelDirectory, *, overwrite: bool) -> Iterator[Path]:
    """A folder for a training's data as long as an old one's may still be needed; if the
    preparation fails, the directory is left as it was before.
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
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir()
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _data(folder: Path) -> list[Path]:
    """The files in which tasks keep their data."""
    names = ("train.npy", "validation.npy", "train.safetensors", "validation.safetensors")
    return [folder / name for name in names if os.path.lexists(folder / name)]


def _trainer(
    task: Task,
    options: TaskOptions,
    home: ModelDirectory,
    config: Mapping[str, Any],
    vocabulary: Any,
    model: Any,
) -> Trainer:
    training = options.training
    batches, validation = task.batches(options, vocabulary, home.checkpoint.parent)
    optimizer = _optimizer(model.named_parameters(), training)
    config = {**config, "model": task.arguments(options, vocabulary)}

    def save_model(record: Mapping[str, Any]) -> None:
        weights = {name: p.data for name, p in model.named_parameters()}
        results = {
            name: value if math.isfinite(value) else None
            for name, value in record.items()
            if name not in ("kind", "best")
        }
        home.save({**config, "results": results}, vocabulary.to_dict(), weights)

    return Trainer(
        model,
        optimizer,
        batches,
        training,
        schedule=_schedule(optimizer, training, len(batches)),
        validation=validation,
        directory=home,
        save_model=save_model,
        callbacks=[MetricsFile(home)],
    )


def _optimizer(parameters: Iterable[tuple[str, Parameter]], options: TrainingOptions) -> Optimizer:
    more: dict[str, Any] = {"weight_decay": options.weight_decay}
    if options.momentum:
        more["momentum"] = options.momentum
    return OPTIMIZERS[options.optimizer](parameters, learning_rate=options.learning_rate, **more)


def _schedule(optimizer: Optimizer, options: TrainingOptions, epoch_steps: int) -> Schedule:
    more: dict[str, Any] = {}
    if options.schedule == "exponential":
        more = {"decay": options.decay, "constant_epochs": options.constant_epochs}
    elif options.schedule == "plateau":
        more = {"factor": options.decay, "patience": options.plateau_patience}
    elif options.schedule == "cosine":
        steps = (options.max_steps, options.epochs and options.epochs * epoch_steps)
        more = {"total_steps": min(s for s in steps if s is not None)}
    schedule = SCHEDULES[options.schedule](optimizer, **more)
    return WarmUp(schedule, steps=options.warm_up) if options.warm_up else schedule
