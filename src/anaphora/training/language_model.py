"""Training a language model from raw text, from the files to a `Trainer` that is ready to run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from anaphora import random
from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.models import LanguageModel
from anaphora.optim import OPTIMIZERS, SCHEDULES, Optimizer, Schedule, WarmUp
from anaphora.text import (
    Batches,
    BPETokenizer,
    CharacterTokenizer,
    Source,
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
from anaphora.training.trainer import Trainer

Ids = NDArray[Any]
Notify = Callable[[str], None]

_DEFAULT_BPE_VOCABULARY = 4096

_ZAREMBA: dict[str, Any] = {
    "level": "word",
    "batch_size": 20,
    "evaluation_batch_size": 1,
    "num_layers": 2,
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "schedule": "exponential",
    "loss_per": "sequence",
}

PRESETS: dict[str, dict[str, Any]] = {
    "char-small": {
        "minimum_count": 5,
        "hidden_size": 256,
        "embedding_size": 64,
        "forget_bias": 1.0,
        "batch_size": 32,
        "window": 64,
        "learning_rate": 0.004,
        "schedule": "cosine",
        "max_steps": 1500,
        "evaluate_every": 250,
    },
    "zaremba-small": {
        **_ZAREMBA,
        "hidden_size": 200,
        "initialization": "0.1",
        "window": 20,
        "epochs": 13,
        "constant_epochs": 4,
        "decay": 0.5,
        "clip_norm": 5.0,
    },
    "zaremba-medium": {
        **_ZAREMBA,
        "hidden_size": 650,
        "dropout": 0.5,
        "initialization": "0.05",
        "window": 35,
        "epochs": 39,
        "constant_epochs": 6,
        "decay": 1 / 1.2,
        "clip_norm": 5.0,
    },
    "zaremba-large": {
        **_ZAREMBA,
        "hidden_size": 1500,
        "dropout": 0.65,
        "initialization": "0.04",
        "window": 35,
        "epochs": 55,
        "constant_epochs": 14,
        "decay": 1 / 1.15,
        "clip_norm": 10.0,
    },
}
"""Options by the name of their preset. The models of Zaremba et al. 2014 and their schedules:
SGD from 1, sums over the window, carried state."""


@dataclass(frozen=True)
class LanguageModelOptions:
    """All options of a training of a language model.

    Attributes:
        text: How the text is read.
        model: The shape of the model.
        training: How it is trained.
    """

    text: TextOptions
    model: ModelOptions
    training: TrainingOptions

    @classmethod
    def from_preset(cls, preset: str = "char-small", **changes: Any) -> Self:
        """The options of a preset, with some of them changed.

        A limit (``epochs``, ``max_steps``, ``minutes``) among the changes takes the place of the
        preset's limits.

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
            raise ValueError(f"the options are incomplete: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, in sections."""
        return {
            "text": self.text.to_dict(),
            "model": self.model.to_dict(),
            "training": self.training.to_dict(),
        }


_LIMITS = {"epochs", "max_steps", "minutes"}


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
    """
    source, validation_source = _sources(options.text, texts, validation_texts)
    home = ModelDirectory.create(directory, overwrite=overwrite)
    notify(f"reading {source.name}")
    tokenizer = fit_tokenizer(options.text, source)
    ids = encode_to_file(source, tokenizer, _ids_path(home, "train"))
    if validation_source is None:
        ids, validation_ids = _split(ids, options.text.validation_share)
    else:
        notify(f"reading {validation_source.name}")
        path = _ids_path(home, "validation")
        validation_ids = encode_to_file(validation_source, tokenizer, path)
    unit = {"char": "characters", "word": "words", "bpe": "byte pairs"}[options.text.level]
    notify(
        f"{len(ids):,} {unit} to train on, {len(validation_ids):,} to validate on, "
        f"a vocabulary of {tokenizer.vocabulary_size:,}"
    )
    names = {"texts": source.name, "validation_texts": validation_source and validation_source.name}
    config = {"task": "language_model", **options.to_dict(), "sources": names}
    return _trainer(options, home, config, tokenizer, ids, validation_ids, fresh=True)


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
        ValueError: another option is to change.
    """
    changes = dict(changes or {})
    if fixed := sorted(set(changes) - _LIMITS - {"patience"}):
        raise ValueError(
            f"{', '.join(fixed)}: a training that goes on keeps its options; only epochs, "
            "max_steps, minutes and patience may change"
        )
    home = ModelDirectory.open(directory)
    config, tokenizer_dict, _ = home.load()
    try:
        if _LIMITS & set(changes):
            config["training"] |= dict.fromkeys(_LIMITS)
        config["training"] |= changes
        options = LanguageModelOptions.from_dict(config)
        tokenizer = Tokenizer.from_dict(tokenizer_dict)
        ids = open_ids(_ids_path(home, "train"))
        if _ids_path(home, "validation").exists():
            validation_ids = open_ids(_ids_path(home, "validation"))
        else:
            ids, validation_ids = _split(ids, options.text.validation_share)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArtifactError(f"{home.path}: this training cannot be resumed: {error}") from error
    trainer = _trainer(options, home, config, tokenizer, ids, validation_ids, fresh=False)
    if home.checkpoint.exists():
        trainer.load_checkpoint()
    return trainer


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
    """A text in batches in which every token counts once."""
    steps = max(1, 1024 // batch_size)
    if options.batching == "sentences":
        return _sentences(options, tokenizer, ids, batch_size, steps)
    return cover(ids, batch_size, steps, tokenizer.start_id)


def _sentences(
    options: TextOptions, tokenizer: Tokenizer, ids: Ids, batch_size: int, steps: int
) -> Batches:
    end = tokenizer.start_id
    assert end is not None
    start = None if options.sentence_start else end
    return sentence_batches(ids, end, batch_size, steps, start)


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


def _ids_path(home: ModelDirectory, name: str) -> Path:
    return home.checkpoint.parent / f"{name}.npy"


def _split(ids: Ids, validation_share: float) -> tuple[Ids, Ids]:
    kept = len(ids) - int(len(ids) * validation_share)
    return ids[:kept], ids[kept:]


def _trainer(
    options: LanguageModelOptions,
    home: ModelDirectory,
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    ids: Ids,
    validation_ids: Ids,
    *,
    fresh: bool,
) -> Trainer:
    text, training = options.text, options.training
    batches: Batches
    if text.batching == "sentences":
        batches = _sentences(text, tokenizer, ids, training.batch_size, training.window)
    else:
        batches = batchify(ids, training.batch_size, training.window)
    validation = None
    if len(validation_ids) > 1:
        size = min(training.evaluation_batch_size, len(validation_ids) - 1)
        validation = evaluation_batches(text, tokenizer, validation_ids, size)

    random.seed(training.seed)
    arguments = {"vocabulary_size": tokenizer.vocabulary_size, **options.model.to_dict()}
    model = LanguageModel(**arguments)
    optimizer = _optimizer(model, training)

    def save_model(record: Mapping[str, Any]) -> None:
        weights = {name: p.data for name, p in model.named_parameters()}
        results = {name: value for name, value in record.items() if name != "kind"}
        home.save({**config, "model": arguments, "results": results}, tokenizer.to_dict(), weights)

    if fresh:
        save_model({"step": 0})
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


def _optimizer(model: LanguageModel, options: TrainingOptions) -> Optimizer:
    more: dict[str, Any] = {"weight_decay": options.weight_decay}
    if options.momentum:
        if options.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is for sgd and rmsprop, not for {options.optimizer}")
        more["momentum"] = options.momentum
    kind = OPTIMIZERS[options.optimizer]
    return kind(model.named_parameters(), learning_rate=options.learning_rate, **more)


def _schedule(optimizer: Optimizer, options: TrainingOptions, epoch_steps: int) -> Schedule:
    more: dict[str, Any] = {}
    if options.schedule == "exponential":
        more = {"decay": options.decay, "constant_epochs": options.constant_epochs}
    elif options.schedule == "plateau":
        more = {"factor": options.decay, "patience": options.plateau_patience}
    elif options.schedule == "cosine":
        steps = [options.max_steps, options.epochs and options.epochs * epoch_steps]
        known = [s for s in steps if s is not None]
        if not known:
            raise ValueError(
                "the schedule cosine ends at a known step: give epochs or max_steps (or another "
                "schedule with minutes)"
            )
        more = {"total_steps": min(known)}
    elif options.schedule == "nonmonotonic" and options.optimizer != "asgd":
        raise ValueError("the schedule nonmonotonic starts averaging: it needs the optimizer asgd")
    schedule = SCHEDULES[options.schedule](optimizer, **more)
    return WarmUp(schedule, steps=options.warm_up) if options.warm_up else schedule
