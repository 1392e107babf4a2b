"""Texts or series of any file, as classifiers and regressors read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anaphora.data import (
    CharacterTokenizer,
    DataError,
    Tokenizer,
    WordTokenizer,
    is_table,
    kind_of,
    read_columns,
    read_series,
    split_words,
    text_of,
    uncompressed_name,
)
from anaphora.options import check_sizes
from anaphora.training.examples import example_of_table, line_inputs, name_of, split_of
from anaphora.training.options import NAME_FORMAT, SentenceOptions, check_format, data_option
from anaphora.training.task import Paths

_OF_SERIES = {"validation_share", "encoding", "format", "max_frames", "label_separator"}
"""The options of data that series have too."""


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
        "About how many frames a series of median length is cut into, each of which is one step of "
        "the model; 0 reads every step by itself.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, 0, "max_frames")
        if self.level == "char" and (self.lowercase or self.split != "auto"):
            raise ValueError(f"lowercase and split are for level 'word', not for {self.level!r}")
        check_format(self.format, ("table", "series"))


def are_series(options: Any, paths: Paths, reader: str) -> bool:
    """Whether files hold series; otherwise they hold texts.

    Args:
        options: How they are read.
        paths: The files.
        reader: What reads them, for the message.

    Raises:
        DataError: some hold series and some texts.

    >>> are_series(InputOptions(), ["one.ts", "two.npy"], "classifier")
    True
    """
    found = {holds_series(options, path) for path in paths}
    if len(found) > 1:
        raise DataError(f"both texts and series were given; a {reader} is of one or the other")
    return found == {True}


def holds_series(options: Any, path: Any) -> bool:
    """Whether a file holds series; see `data.kind_of`.

    >>> holds_series(InputOptions(), "reviews.csv"), holds_series(InputOptions(format="ts"), "-")
    (False, True)
    """
    return kind_of(path, options.format) == "series"


def fit_tokenizer(options: Any) -> Callable[[Sequence[str]], Tokenizer]:
    """What makes the tokenizer of some texts.

    >>> fit_tokenizer(InputOptions(level="word"))(["oh no"]).level
    'word'
    """

    def fit(texts: Sequence[str]) -> Tokenizer:
        limits = options.vocabulary_size, options.minimum_count
        level = options.level if options.level != "auto" else _level_of(texts)
        if level == "char":
            _refuse_word_options(options)
            return CharacterTokenizer.fit(texts, *limits)
        lines = [f"{text}\n" for text in texts]
        split: Any = split_of(options, texts)
        return WordTokenizer.fit(lines, *limits, options.lowercase, split)

    return fit


def _level_of(texts: Sequence[str]) -> str:
    of_words = sum(len(split_words(text)) > 1 for text in texts)
    return "word" if 2 * of_words > len(texts) else "char"


def of_preset(options: Any, preset: str) -> Any:
    """The options with a preset for those that were not given, if there is one of that name and
    none was named.

    >>> of_preset(InputOptions(), "series") == InputOptions()
    True
    """
    if getattr(options, "given", None) is None or preset not in options.presets:
        return options
    return type(options).make(preset, **{name: getattr(options, name) for name in options.given})


def resolved(options: Any, codec: Any) -> Any:
    """The options with what the files decided: the preset of series, and how texts are read.

    >>> from anaphora.data import RegressorCodec
    >>> resolved(InputOptions(), RegressorCodec.fit([("a", [1]), ("b", [2])])).level
    'char'
    """
    tokenizer = codec.tokenizer
    if isinstance(tokenizer, WordTokenizer):
        return dataclasses.replace(options, level="word", split=tokenizer.split)
    return dataclasses.replace(options, level="char") if tokenizer else of_preset(options, "series")


def read_inputs(options: Any, path: str, *, targets: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield where each text or series of a file is, and what it is.

    Args:
        options: How it is read.
        path: The file, or ``-`` for standard input.
        targets: Whether answers beside series are numbers to predict.

    Raises:
        DataError: the file cannot be read, or is a table of which no column was named.
    """
    if holds_series(options, path):
        series, _ = read_series(path, options.encoding, options.format, targets=targets)
        for number, one in enumerate(series, start=1):
            yield f"{name_of(path)}, series {number:,}", one
    elif not is_table(path, options.format):
        yield from line_inputs(options, path)
    elif options.column is None:
        raise DataError(f"{path} is a table: say with --column which column holds the texts")
    else:
        rows = read_columns(path, [options.column], options.encoding, options.format)
        for place, (value,) in rows:
            yield place, text_of(value, place, options.column).strip("\n")


def is_blank(one: Any) -> bool:
    """Whether a text has no word, or a series no step.

    >>> is_blank(" "), is_blank("a")
    (True, False)
    """
    return not (split_words(one) if isinstance(one, str) else len(one))


def check_columns_of_tables(names: Sequence[str], given: Mapping[str, Any], paths: Paths) -> None:
    """Refuse options that name columns where no table is given.

    Raises:
        ValueError: they are.

    >>> check_columns_of_tables(["column"], {"column": "body"}, ["reviews.csv"])
    """
    if any(is_table(path, given.get("format")) for path in paths):
        return
    for name in names:
        if given.get(name) is not None:
            raise ValueError(f"{name} is for tables, and none was given; {NAME_FORMAT}")


def example_file(options: Any, files: str) -> str:
    """A file that a model could answer, as an argument, given the files of the training.

    >>> example_file(InputOptions(column="body"), "reviews.csv")
    'YOUR_TABLE.csv'
    """
    first = files.split(", ")[0]
    if holds_series(options, first):
        format = "" if options.format is None else f" --format {options.format}"
        return f"YOUR_SERIES{Path(uncompressed_name(first)).suffix.lower()}{format}"
    return example_of_table(files, options.format) or "YOUR_LINES.txt"


def refuse_text_options(options: Any) -> None:
    """Refuse options of texts, as the files hold series, which have no tokens and no columns.

    Raises:
        ValueError: one is not what it is by default.
    """
    for name in sorted(set(options.fields("data")) - _OF_SERIES):
        if getattr(options, name) != options.default(name):
            raise ValueError(f"{name} is for texts, but the files hold series")


def _refuse_word_options(options: Any) -> None:
    """Texts that are read by characters have no words, though the options may want some."""
    if options.lowercase or options.split != "auto":
        raise ValueError(
            "lowercase and split are for words, but most of the texts have one word or none, so "
            "they are read by characters; say level word, or omit these options"
        )
