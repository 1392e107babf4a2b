"""Training a language model from raw text, from the files to a `Trainer` that is ready to run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from anaphora import random
from anaphora.artifact import ArtifactError, ModelDirectory, read_json
from anaphora.cells import CELLS
from anaphora.models import LanguageModel
from anaphora.optim import OPTIMIZERS, SCHEDULES, Optimizer, Schedule, WarmUp
from anaphora.tensor import Parameter
from anaphora.text import (
    Batches,
    BPETokenizer,
    CharacterTokenizer,
    Source,
    TextError,
    Tokenizer,
    WordTokenizer,
    batchify,
    cover,
    encode_to_file,
    open_ids,
    open_source,
    sentence_batches,
    standard_library_source,
)
from anaphora.training.callbacks import MetricsFile
from anaphora.training.options import ModelOptions, TextOptions, TrainingOptions
from anaphora.training.presets import PRESETS
from anaphora.training.trainer import Trainer

Ids = NDArray[Any]
Notify = Callable[[str], None]

_DEFAULT_BPE_VOCABULARY = 4096
_LONGEST_SENTENCE = 256  # tokens that an evaluation reads with one state
_LIMITS = {"epochs", "max_steps", "minutes"}
_IDS = ("train", "validation")
_UNITS = {"char": "characters", "word": "words", "bpe": "byte pairs"}


@dataclass(frozen=True)
class LanguageModelOptions:
    """All options of a training of a language model.

    Attributes:
        text: How the text is read.
        model: The shape of the model.
        training: How it is trained.

    >>> training = TrainingOptions(epochs=1)
    >>> options = LanguageModelOptions(TextOptions(), ModelOptions(hidden_size=64), training)
    >>> options.model.cell, options.model.hidden_size
    ('lstm', 64)
    >>> LanguageModelOptions.from_dict(options.to_dict()) == options
    True
    """

    text: TextOptions
    model: ModelOptions
    training: TrainingOptions

    @classmethod
    def from_preset(cls, preset: str = "char-small", **changes: Any) -> Self:
        """The options of a preset, with some of them changed.

        A limit (``epochs``, ``max_steps``, ``minutes``) among the changes takes the place of the
        preset's limits. Where the changes leave no room for something in the preset, that gives
        way: its forget_bias with a cell that has no forget gate, and its schedule cosine, which
        ends at a known step, with ``minutes`` alone (it becomes plateau).

        Raises:
            ValueError: the preset or the name of an option is unknown, or a value is out of range.

        >>> LanguageModelOptions.from_preset("zaremba-small", epochs=1).training.epochs
        1
        """
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
        values = dict(PRESETS[preset])
        if _LIMITS & set(changes):
            values = {name: value for name, value in values.items() if name not in _LIMITS}
            if values.get("schedule") == "cosine" and not {"epochs", "max_steps"} & set(changes):
                values["schedule"] = "plateau"
        cell = CELLS.get(changes.get("cell", "lstm"))
        if cell is not None and "f" not in cell.gates:
            values.pop("forget_bias", None)
        values |= changes
        sections = (TextOptions, ModelOptions, TrainingOptions)
        unknown = set(values).difference(*(section.names() for section in sections))
        if unknown:
            raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
        text, model, training = (
            {name: value for name, value in values.items() if name in section.names()}
            for section in sections
        )
        return cls(
            TextOptions.from_dict(text),
            ModelOptions.from_dict(model),
            TrainingOptions.from_dict(training),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The options as `to_dict` gave them.

        Raises:
            ValueError: something is missing, unknown or out of range.
        """
        try:
            return cls(
                TextOptions.from_dict(values["text"]),
                ModelOptions.from_dict(
                    {k: v for k, v in values["model"].items() if k != "vocabulary_size"}
                ),
                TrainingOptions.from_dict(values["training"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the options are damaged: {error!r}") from error

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, in sections."""
        return {
            "text": self.text.to_dict(),
            "model": self.model.to_dict(),
            "training": self.training.to_dict(),
        }


def prepare_language_model(
    options: LanguageModelOptions,
    directory: str | os.PathLike[str],
    texts: Sequence[str | os.PathLike[str]] = (),
    validation_texts: Sequence[str | os.PathLike[str]] = (),
    *,
    overwrite: bool = False,
    notify: Notify = lambda message: None,
) -> Trainer:
    """Read texts, build the vocabulary and the model; return what is ready to train.

    Args:
        options: All options.
        directory: The model directory to make.
        texts: Files, folders or ``-``; Python's standard library if there are none.
        validation_texts: What to evaluate on; if there are none, the end of the text.
        overwrite: Replace a model that the directory holds.
        notify: Gets a sentence at every stage.

    Raises:
        TextError: a text cannot be read, is too short, or has tokens outside the vocabulary.
        ArtifactError: the directory cannot be used.
        ValueError: the options do not fit together.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> text = Path(folder.name, "text.txt")
    >>> _ = text.write_text("to be or not to be " * 30)
    >>> options = LanguageModelOptions.from_preset(
    ...     max_steps=2, hidden_size=4, batch_size=2, window=8, minimum_count=1
    ... )
    >>> trainer = prepare_language_model(options, Path(folder.name, "model"), [text])
    >>> trainer.run()
    '2 steps done'
    >>> resume_language_model(Path(folder.name, "model"), {"max_steps": 3}).run()
    '3 steps done'
    >>> folder.cleanup()
    """
    _check(options)
    with _claimed(directory, overwrite=overwrite) as home:
        source, validation_source = _sources(options.text, texts, validation_texts)
        notify(f"reading {source.name}")
        tokenizer = fit_tokenizer(options.text, source)
        encode_to_file(source, tokenizer, _new(_ids_path(home, "train")))
        if validation_source is not None:
            notify(f"reading {validation_source.name}")
            _encode_validation(validation_source, tokenizer, _new(_ids_path(home, "validation")))
        # All that can be wrong is to come up before an old model goes.
        random.seed(options.training.seed)
        model = _model(options, tokenizer)
        _batches(options, tokenizer, *_open_ids(home, options.text, new=True))
        ModelDirectory.create(home.path, overwrite=overwrite)
        for name in _IDS:
            _ids_path(home, name).unlink(missing_ok=True)
            if _new(_ids_path(home, name)).exists():
                _new(_ids_path(home, name)).replace(_ids_path(home, name))

    ids, validation_ids = _open_ids(home, options.text)
    notify(
        f"{len(ids):,} {_UNITS[options.text.level]} to train on, {len(validation_ids):,} to "
        f"validate on, a vocabulary of {tokenizer.vocabulary_size:,}"
    )
    names = {"texts": source.name, "validation_texts": validation_source and validation_source.name}
    config = {"task": "language_model", **options.to_dict(), "sources": names}
    trainer = _trainer(options, home, config, tokenizer, model, (ids, validation_ids))
    trainer.save_checkpoint()  # from here on it can be resumed
    return trainer


def resume_language_model(
    directory: str | os.PathLike[str], changes: Mapping[str, Any] | None = None
) -> Trainer:
    """Return what goes on from the last checkpoint, bit for bit as if it had not stopped.

    Args:
        directory: The model directory.
        changes: New limits: ``epochs``, ``max_steps``, ``minutes`` (and ``patience``). Other
            options stay what they were.

    Raises:
        ArtifactError: there is nothing to resume, or it is damaged.
        ValueError: another option is to change, or its new value is out of range.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> text, home = Path(folder.name, "text.txt"), Path(folder.name, "model")
    >>> _ = text.write_text("to be or not to be " * 30)
    >>> options = LanguageModelOptions.from_preset(
    ...     max_steps=2, hidden_size=4, batch_size=2, window=8, minimum_count=1
    ... )
    >>> prepare_language_model(options, home, [text]).run()
    '2 steps done'
    >>> resume_language_model(home, {"max_steps": 3}).run()
    '3 steps done'
    >>> folder.cleanup()
    """
    changes = dict(changes or {})
    if fixed := sorted(set(changes) - _LIMITS - {"patience"}):
        raise ValueError(
            f"{', '.join(fixed)}: a training that goes on keeps its options; only epochs, "
            "max_steps, minutes and patience may change"
        )
    home = ModelDirectory.open(directory)
    if not home.checkpoint.exists():
        raise ArtifactError(
            f"{home.path}: has no checkpoint, so there is no training to continue; train anew, "
            "into another folder or over this one"
        )
    config, tokenizer_dict, weights = home.load()
    try:
        options = LanguageModelOptions.from_dict(config)
        tokenizer = Tokenizer.from_dict(tokenizer_dict)
        ids = _open_ids(home, options.text)
    except ValueError as error:  # TextError is one
        raise ArtifactError(f"{home.path}: this training cannot be resumed: {error}") from error
    if changes:
        limits = dict.fromkeys(_LIMITS) if _LIMITS & set(changes) else {}
        training = TrainingOptions.from_dict({**options.training.to_dict(), **limits, **changes})
        options = dataclasses.replace(options, training=training)
        config["training"] = training.to_dict()
    try:
        trainer = _trainer(options, home, config, tokenizer, _model(options, tokenizer), ids)
    except ValueError as error:
        raise ArtifactError(f"{home.path}: this training cannot be resumed: {error}") from error
    trainer.load_checkpoint()
    if changes:  # another --resume shall know them too
        home.save(config, tokenizer_dict, weights)
    return trainer


def load_language_model_options(directory: str | os.PathLike[str]) -> LanguageModelOptions:
    """Read with which options the model of a directory was trained.

    Raises:
        ArtifactError: the directory holds no language model, or its ``config.json`` is damaged.

    >>> import tempfile
    >>> options = LanguageModelOptions.from_preset("zaremba-small")
    >>> config = {"task": "language_model", **options.to_dict()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ModelDirectory.create(folder).save(config, {}, {})
    ...     load_language_model_options(folder) == options
    True
    """
    home = ModelDirectory.open(directory)
    config = read_json(home.config)
    if config.get("task") != "language_model":
        raise ArtifactError(
            f"{home.config}: its task is {config.get('task')!r}; expected 'language_model'"
        )
    try:
        return LanguageModelOptions.from_dict(config)
    except ValueError as error:
        raise ArtifactError(f"{home.config}: {error}") from error


def fit_tokenizer(options: TextOptions, chunks: Iterable[str]) -> Tokenizer:
    """Build the vocabulary that the options ask for.

    Raises:
        TextError: the text is empty, or an option out of range.
    """
    if options.level == "char":
        return CharacterTokenizer.fit(chunks, options.vocabulary_size, options.minimum_count)
    if options.level == "bpe":
        return BPETokenizer.fit(chunks, options.vocabulary_size or _DEFAULT_BPE_VOCABULARY)
    return WordTokenizer.fit(
        chunks,
        options.vocabulary_size,
        options.minimum_count,
        options.lowercase,
        options.split,  # type: ignore[arg-type]
        options.sentence_start,
    )


def evaluation_batches(
    options: TextOptions, tokenizer: Tokenizer, ids: Ids, batch_size: int
) -> Batches:
    """A text in batches in which every token counts once.

    >>> tokenizer = CharacterTokenizer.fit("ab")
    >>> ids = tokenizer.encode("abbaab")
    >>> evaluation_batches(TextOptions(), tokenizer, ids, batch_size=2).tokens
    5
    """
    if options.batching == "sentences":
        return _sentences(options, tokenizer, ids, batch_size, _LONGEST_SENTENCE)
    return cover(ids, batch_size, max(1, 1024 // batch_size), tokenizer.start_id)


def _sentences(
    options: TextOptions, tokenizer: Tokenizer, ids: Ids, batch_size: int, window: int
) -> Batches:
    end = tokenizer.start_id
    assert end is not None
    start = None if options.sentence_start else end
    return sentence_batches(ids, end, batch_size, window, start)


def _sources(
    options: TextOptions,
    texts: Sequence[str | os.PathLike[str]],
    validation_texts: Sequence[str | os.PathLike[str]],
) -> tuple[Source, Source | None]:
    if texts:
        source, validation = open_source(texts, options.column, options.pattern), None
    else:
        source, validation = standard_library_source()
    if validation_texts:
        validation = open_source(validation_texts, options.column, options.pattern)
    return source, validation


def _check(options: LanguageModelOptions) -> None:
    """Refuse options that do not fit together, whatever the text will be; seconds, not minutes."""
    LanguageModel(1, **{**options.model.to_dict(), "hidden_size": 1, "embedding_size": 1})
    optimizer = _optimizer([("weight", Parameter([0.0]))], options.training)
    _schedule(optimizer, options.training, epoch_steps=1)


@contextlib.contextmanager
def _claimed(directory: str | os.PathLike[str], *, overwrite: bool) -> Iterator[ModelDirectory]:
    """A model directory to prepare a training in; if that fails, it is left as it was before."""
    home = ModelDirectory(directory)
    existed = home.path.exists()
    try:
        if overwrite and (home.weights.exists() or home.checkpoint.exists()):
            ModelDirectory.open(directory)  # refuses a folder of something else
            home.checkpoint.parent.mkdir(exist_ok=True)
        else:
            ModelDirectory.create(directory)
        yield home
    except BaseException:  # Ctrl-C too
        for name in _IDS:
            _new(_ids_path(home, name)).unlink(missing_ok=True)
        if not existed:
            shutil.rmtree(home.path, ignore_errors=True)
        raise


def _ids_path(home: ModelDirectory, name: str) -> Path:
    return home.checkpoint.parent / f"{name}.npy"


def _new(path: Path) -> Path:
    """Where a file is written as long as an old one may still be needed."""
    return path.with_name(f"new-{path.name}")


def _open_ids(home: ModelDirectory, options: TextOptions, *, new: bool = False) -> tuple[Ids, Ids]:
    """The ids to train on and to validate on."""
    training, validation = (
        _new(path) if new else path for path in (_ids_path(home, name) for name in _IDS)
    )
    ids = open_ids(training)
    if validation.exists():
        return ids, open_ids(validation)
    count = int(len(ids) * options.validation_share)
    kept = len(ids) - (count if count > 1 else 0)  # one token has none before it
    return ids[:kept], ids[kept:]


def _encode_validation(source: Source, tokenizer: Tokenizer, path: Path) -> None:
    try:
        encode_to_file(source, tokenizer, path)
    except TextError as error:
        raise TextError(f"the validation text {source.name}: {error}") from error


def _batches(
    options: LanguageModelOptions, tokenizer: Tokenizer, ids: Ids, validation_ids: Ids
) -> tuple[Batches, Batches | None]:
    """What to train on, and what to validate on if there is anything."""
    text, training = options.text, options.training
    batches: Batches
    if text.batching == "sentences":
        batches = _sentences(text, tokenizer, ids, training.batch_size, training.window)
    else:
        batches = batchify(ids, training.batch_size, training.window)
    if len(validation_ids) == 0:
        return batches, None
    size = max(1, min(training.evaluation_batch_size, len(validation_ids) - 1))
    return batches, evaluation_batches(text, tokenizer, validation_ids, size)


def _model(options: LanguageModelOptions, tokenizer: Tokenizer) -> LanguageModel:
    return LanguageModel(tokenizer.vocabulary_size, **options.model.to_dict())


def _trainer(
    options: LanguageModelOptions,
    home: ModelDirectory,
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    model: LanguageModel,
    ids: tuple[Ids, Ids],
) -> Trainer:
    training = options.training
    batches, validation = _batches(options, tokenizer, *ids)
    arguments = {"vocabulary_size": tokenizer.vocabulary_size, **options.model.to_dict()}
    optimizer = _optimizer(model.named_parameters(), training)

    def save_model(record: Mapping[str, Any]) -> None:
        weights = {name: p.data for name, p in model.named_parameters()}
        results = {
            name: value if math.isfinite(value) else None
            for name, value in record.items()
            if name not in ("kind", "best")
        }
        home.save({**config, "model": arguments, "results": results}, tokenizer.to_dict(), weights)

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
