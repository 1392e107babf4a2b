"""Training a language model from raw text."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anaphora.artifact import ArtifactError, ModelDirectory, opener_within
from anaphora.data import (
    Batches,
    BPETokenizer,
    CharacterTokenizer,
    DataError,
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
from anaphora.data.tokenizers.bpe import require_tokenizers
from anaphora.models import LanguageModel, load_language_model
from anaphora.training.options import ModelOptions, TextOptions, TrainingOptions
from anaphora.training.preparation import prepare_training, resume_training
from anaphora.training.presets import PRESETS
from anaphora.training.task import Notify, Paths, Task, TaskOptions
from anaphora.training.trainer import Trainer

Ids = NDArray[Any]

_DEFAULT_BPE_VOCABULARY = 4096
_LONGEST_SENTENCE = 256  # tokens that an evaluation reads with one state
_UNITS = {"char": "characters", "word": "words", "bpe": "byte pairs"}


@dataclass(frozen=True)
class LanguageModelOptions(TaskOptions):
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

    defaults = PRESETS["char-small"]
    unused = frozenset()

    @classmethod
    def from_preset(cls, preset: str = "char-small", **changes: Any) -> Self:
        """The options of a preset, with some of them changed.

        What the changes leave no room for gives way, as in `make`.

        Raises:
            ValueError: the preset or the name of an option is unknown, or a value is out of range.

        >>> LanguageModelOptions.from_preset("zaremba-small", epochs=1).training.epochs
        1
        """
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
        return cls._changed(PRESETS[preset], changes)


class LanguageModelTask(Task):
    """Predicting the next token of a text.

    >>> LanguageModelTask().name
    'language-model'
    """

    name = "language-model"
    kind = "language_model"
    model_type = LanguageModel
    options = LanguageModelOptions
    unit = "tokens"

    def check(self, options: LanguageModelOptions) -> None:  # noqa: D102
        if options.text.level == "bpe":
            require_tokenizers()
        LanguageModel(1, **{**options.model.to_dict(), "hidden_size": 1, "embedding_size": 1})

    def read(  # noqa: D102
        self,
        options: LanguageModelOptions,
        texts: Paths,
        validation_texts: Paths,
        folder: Path,
        notify: Notify,
    ) -> tuple[Tokenizer, dict[str, str | None]]:
        source, validation = _sources(options.text, texts, validation_texts)
        notify(f"reading {source.name}")
        tokenizer = fit_tokenizer(options.text, source)
        encode_to_file(source, tokenizer, folder / "train.npy")
        if validation is not None:
            notify(f"reading {validation.name}")
            try:
                encode_to_file(validation, tokenizer, folder / "validation.npy")
            except DataError as error:
                raise DataError(f"the validation text {validation.name}: {error}") from error
        names = {"texts": source.name, "validation_texts": validation.name if validation else None}
        return tokenizer, names

    def arguments(  # noqa: D102
        self, options: LanguageModelOptions, vocabulary: Tokenizer
    ) -> dict[str, Any]:
        return {"vocabulary_size": vocabulary.vocabulary_size, **options.model.to_dict()}

    def vocabulary(self, data: Mapping[str, Any]) -> Tokenizer:  # noqa: D102
        return Tokenizer.from_dict(data)

    def load(self, directory: Path) -> tuple[LanguageModel, Tokenizer]:  # noqa: D102
        return load_language_model(directory)

    def load_options(self, directory: Any) -> LanguageModelOptions:  # noqa: D102
        options: LanguageModelOptions = super().load_options(directory)
        home = ModelDirectory(directory)
        tokenizer = home.load_tokenizer()
        for name in ("level", "sentence_start"):
            said = getattr(options.text, name)
            if tokenizer.get(name, said) != said:
                raise ArtifactError(
                    f"{home.config}: text.{name} is {said!r}, but in {home.tokenizer.name} it is "
                    f"{tokenizer[name]!r}; put back the two files that were saved together"
                )
        return options

    def batches(  # noqa: D102
        self, options: LanguageModelOptions, vocabulary: Tokenizer, folder: Path
    ) -> tuple[Batches, Batches | None]:
        text, training = options.text, options.training
        ids, validation_ids = _open_ids(folder, text, vocabulary)
        batches: Batches
        if text.batching == "sentences":
            batches = _sentences(text, vocabulary, ids, training.batch_size, training.window)
        else:
            batches = batchify(ids, training.batch_size, training.window)
        if len(validation_ids) == 0:
            return batches, None
        size = max(1, min(training.evaluation_batch_size, len(validation_ids) - 1))
        return batches, evaluation_batches(text, vocabulary, validation_ids, size)

    def describe_data(  # noqa: D102
        self, options: LanguageModelOptions, vocabulary: Tokenizer, folder: Path
    ) -> str:
        ids, validation_ids = _open_ids(folder, options.text, vocabulary)
        unknown = np.count_nonzero(validation_ids == vocabulary.unknown_id)
        told = f" ({unknown:,} unknown)" if unknown else ""
        return (
            f"{len(ids):,} {_UNITS[options.text.level]} to train on, {len(validation_ids):,} to "
            f"validate on{told}, a vocabulary of {vocabulary.vocabulary_size:,}"
        )

    def describe_batches(self, options: TaskOptions) -> str:  # noqa: D102
        at_most = "at most " if options.text.batching == "sentences" else ""
        return f"{at_most}{options.training.batch_size} x {options.training.window} tokens"

    def measure(self, options: TaskOptions, loss: float) -> str:  # noqa: D102
        if options.text.level == "char":
            return f"{loss / math.log(2):.3f} bits/char"
        return super().measure(options, loss)

    def report(self, options: TaskOptions, record: Mapping[str, Any]) -> str:  # noqa: D102
        if options.text.level == "char":
            return f"{record['loss'] / math.log(2):.3f} bits per character"
        return super().report(options, record)


LANGUAGE_MODEL = LanguageModelTask()


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
        DataError: a text cannot be read, is too short, or has tokens outside the vocabulary.
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
    return prepare_training(
        LANGUAGE_MODEL,
        options,
        directory,
        texts,
        validation_texts,
        overwrite=overwrite,
        notify=notify,
    )


def resume_language_model(
    directory: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    notify: Notify = lambda message: None,
) -> Trainer:
    """Return what goes on from the last checkpoint, bit for bit as if it had not stopped.

    Args:
        directory: The model directory.
        changes: As of `resume_training`: new limits, another learning rate or schedule.
        notify: Gets a sentence where the changes have a consequence to know of.

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
    return resume_training(LANGUAGE_MODEL, directory, changes, notify)


def load_language_model_options(directory: str | os.PathLike[str]) -> LanguageModelOptions:
    """Read with which options the model of a directory was trained.

    Raises:
        ArtifactError: the directory holds no language model, or its ``config.json`` is damaged.

    >>> import tempfile
    >>> from anaphora.artifact import ModelDirectory
    >>> options = LanguageModelOptions.from_preset("zaremba-small")
    >>> config = {"task": "language_model", **options.to_dict()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ModelDirectory.create(folder).save(config, {}, {})
    ...     load_language_model_options(folder) == options
    True
    """
    return LANGUAGE_MODEL.load_options(directory)


def fit_tokenizer(options: TextOptions, chunks: Iterable[str]) -> Tokenizer:
    """Build the vocabulary that the options ask for.

    Raises:
        DataError: the text is empty, or an option out of range.
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
    more = options.column, options.pattern, options.encoding
    if texts:
        source, validation = open_source(texts, *more), None
    else:
        source, validation = standard_library_source()
    if validation_texts:
        validation = open_source(validation_texts, *more)
    return source, validation


def _open_ids(folder: Path, options: TextOptions, tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    """The ids to train on and to validate on."""
    opener = opener_within(folder.parent)
    ids = open_ids(folder / "train.npy", tokenizer, opener)
    if (folder / "validation.npy").exists():
        return ids, open_ids(folder / "validation.npy", tokenizer, opener)
    count = int(len(ids) * options.validation_share)
    kept = len(ids) - (count if count > 1 else 0)  # one token has none before it
    return ids[:kept], ids[kept:]
