"""The inputs of classifiers and regressors: texts or series, from any file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.data import (
    CharacterTokenizer,
    DataError,
    Tokenizer,
    WordTokenizer,
    is_table,
    kind_of,
    located,
    read_columns,
    read_series,
    split_words,
    text_of,
    uncompressed_name,
)
from anaphora.models import LanguageModel
from anaphora.options import COUNT
from anaphora.tensor import Array, Tensor, no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.examples import (
    example_of_table,
    example_task,
    in_batches,
    line_inputs,
    name_of,
    split_of,
)
from anaphora.training.options import SentenceOptions, check_format, data_option
from anaphora.training.task import Paths, Task

_SERIES_OPTIONS = {"validation_share", "encoding", "format", "max_frames", "label_separator"}
"""The data options that apply to series."""

_PREDICTION_BATCH = 256

SERIES: dict[str, Any] = {
    "max_frames": 32,
    "validation_share": 0.1,
    "cell": "gru",
    "hidden_size": 64,
    "bidirectional": True,
    "dropout": 0.2,
    "pooling": "max",
    "batch_size": 16,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "schedule": "cosine",
    "max_steps": 800,
    "evaluate_every": 100,
}
"""The preset of series, their default, without ``monitor``."""


@dataclass(kw_only=True)
class InputOptions(SentenceOptions):
    """How texts or series are read.

    >>> InputOptions(level="word").column is None
    True
    """

    level: str = data_option(
        "auto",
        "What a token is; auto is word if most texts have several.",
        ("auto", "char", "word"),
        common=True,
    )
    column: str | None = data_option(
        None, "Column of the text, in tables (.csv, .jsonl, ...).", reading=True
    )

    max_frames: int = data_option(
        0,
        "Approximate number of frames that a series of median length is cut into; a frame is one "
        "step of the model. 0 makes every step of the series one of the model.",
        COUNT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level == "char" and (self.lowercase or self.split != "auto"):
            raise ValueError(f"lowercase and split are for level 'word', not for {self.level!r}")
        check_format(self.format, ("table", "series"))


def reading(options: Any, training: Sequence[Any]) -> dict[str, Any]:
    """The arguments of a codec's ``fit`` that say how texts or series are read.

    Raises:
        ValueError: an option for texts is set, but the examples are series.

    >>> from anaphora.training import TASKS
    >>> reading(TASKS["regress"].options.make(max_frames=20), [(np.zeros((90, 1)), 0.5)])
    {'max_frames': 20}
    """
    if isinstance(training[0][0], str):
        return {"fit_tokenizer": functools.partial(_fit_tokenizer, options)}
    for name in sorted(set(options.fields("data")) - _SERIES_OPTIONS):
        if getattr(options, name) not in (options.default(name), options.fields()[name].default):
            raise ValueError(f"{name} is for texts, but the files hold series")
    return {"max_frames": _for_series(options).max_frames}


def _fit_tokenizer(options: Any, texts: Sequence[str]) -> Tokenizer:
    limits, level = (options.vocabulary_size, options.minimum_count), options.level
    if level == "auto":
        with_several = sum(len(split_words(text)) > 1 for text in texts)
        level = "word" if 2 * with_several > len(texts) else "char"
    if level == "word":
        split: Any = split_of(options, texts)
        lines = [f"{text}\n" for text in texts]
        return WordTokenizer.fit(lines, *limits, options.lowercase, split)
    if options.lowercase or options.split != "auto":
        raise ValueError(
            "lowercase and split are for words, but most of the texts have at most one word, so "
            "they are read by characters; set level to word, or omit these options"
        )
    return CharacterTokenizer.fit(texts, *limits)


def _for_series(options: Any) -> Any:
    """The options with the preset of series for those not given, unless a preset was given."""
    if options.given is None:
        return options
    return type(options).make("series", **{name: getattr(options, name) for name in options.given})


def _resolved(options: Any, codec: Any) -> Any:
    """The options with those that depend on the files: the preset of series, level and split."""
    if codec.tokenizer is None:
        return _for_series(options)
    if isinstance(codec.tokenizer, WordTokenizer):
        return dataclasses.replace(options, level="word", split=codec.tokenizer.split)
    return dataclasses.replace(options, level="char")


def read_examples(
    options: Any,
    paths: Paths,
    *,
    reader: str,
    nothing: str,
    of_texts: Callable[[Any, Any], Iterable[Any]],
    answers_of: Callable[[Any, Any, Any], Iterable[Any]],
    targets: bool = False,
) -> list[tuple[Any, Any]]:
    """The texts or series of files, each with its target.

    Args:
        options: All options.
        paths: The files.
        reader: The kind of model, for messages.
        nothing: The message if there are no files.
        of_texts: Reads the texts of a file with their targets, given options and file.
        answers_of: The targets of the series of a file, given options, file, and its labels or
            numbers.
        targets: Whether the targets are numbers.

    Raises:
        DataError: there are no files, or one cannot be read.
    """
    if not paths:
        raise DataError(nothing)
    kinds = {_holds_series(options, path) for path in paths}
    if len(kinds) > 1:
        raise DataError(f"both texts and series were given; a {reader} reads one or the other")
    if kinds == {False}:
        return [example for path in paths for example in of_texts(options, path)]
    found: list[tuple[Any, Any]] = []
    for path in paths:
        series, answers = read_series(path, options.encoding, options.format, targets=targets)
        found += zip(series, answers_of(options, path, answers), strict=True)
    return found


def predictions(owner: str, model: Any, examples: Sequence[Any]) -> Iterator[Array]:
    """Yield a model's prediction for each text or series, [O].

    Args:
        owner: The name that messages start with.
        model: A classifier or a regressor with its codec, in evaluation mode.
        examples: Texts, or series [T, I].

    Raises:
        DataError: as for `SequenceCodec.encode_input`.
        ValueError: a prediction is NaN or infinite.
    """
    for start, part in in_batches(examples, _PREDICTION_BATCH):
        with located(f"an example after the first {start:,}" if start else "an example"):
            batch = model.codec.input_batch(part, model.dtype)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            found = model.answer(model.scores(batch))
        answers: Array = found.data if isinstance(found, Tensor) else found
        check_scores(owner, answers)
        yield from answers


def sequence_task(
    *,
    predict: Callable[[Any, Sequence[Any]], Iterator[Any]],
    targets: bool = False,
    **entry: Any,
) -> Task:
    """The `Task` of a model with one prediction per text or series.

    Args:
        predict: Yields the prediction for each, given the model and texts or series.
        targets: Whether the targets in files of series are numbers.
        **entry: The other arguments of `example_task`.
    """
    return example_task(
        starts=(LanguageModel,),
        rows="sequences",
        predict=lambda options, model, inputs: predict(model, inputs),
        is_empty=lambda one: not (split_words(one) if isinstance(one, str) else len(one)),
        resolve=_resolved,
        inputs=functools.partial(_inputs, targets=targets),
        example_file=_example_file,
        **entry,
    )


def _holds_series(options: Any, path: Any) -> bool:
    return kind_of(path, options.format) == "series"


def _inputs(options: Any, path: str, *, targets: bool) -> Iterator[tuple[str, Any]]:
    if _holds_series(options, path):
        series, _ = read_series(path, options.encoding, options.format, targets=targets)
        for number, one in enumerate(series, start=1):
            yield f"{name_of(path)}, series {number:,}", one
    elif not is_table(path, options.format):
        yield from line_inputs(options, path)
    elif options.column is None:
        raise DataError(f"{path} is a table: give the column of the texts with --column")
    else:
        rows = read_columns(path, [options.column], options.encoding, options.format)
        for place, (value,) in rows:
            yield place, text_of(value, place, options.column).strip("\n")


def _example_file(options: Any, files: str) -> str:
    first = files.split(", ")[0]
    if _holds_series(options, first):
        format = "" if options.format is None else f" --format {options.format}"
        return f"YOUR_SERIES{Path(uncompressed_name(first)).suffix.lower()}{format}"
    return example_of_table(files, options.format) or "YOUR_LINES.txt"
