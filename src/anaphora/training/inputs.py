"""Texts or series of any file, as classifiers and regressors read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anaphora.data import (
    FORMATS,
    CharacterTokenizer,
    DataError,
    Tokenizer,
    WordTokenizer,
    is_table,
    kind_of,
    read_columns,
    read_series,
    split_words,
    uncompressed_name,
)
from anaphora.training.examples import line_inputs
from anaphora.training.options import SplitOptions, data_option
from anaphora.training.task import Paths

_SERIES = [suffix for one in FORMATS.values() if one.kind == "series" for suffix in one.suffixes]


@dataclass(kw_only=True)
class InputOptions(SplitOptions):
    """How texts or series are read.

    >>> InputOptions(level="word").column is None
    True
    """

    level: str = data_option("char", "What a token is.", ("char", "word"), common=True)
    column: str | None = data_option(
        None, "Read .csv or .tsv files, and take the text from this column.", reading=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level != "word" and (self.lowercase or self.split != "whitespace"):
            raise ValueError(f"lowercase and split are for level 'word', not for {self.level!r}")


def are_series(paths: Paths, reader: str) -> bool:
    """Whether files hold series; otherwise they hold texts.

    Args:
        paths: The files.
        reader: What reads them, for the message.

    Raises:
        DataError: some hold series and some texts.

    >>> are_series(["one.ts", "two.npy"], "classifier"), are_series(["one.csv"], "classifier")
    (True, False)
    """
    found = set(map(holds_series, paths))
    if len(found) > 1:
        raise DataError(f"both texts and series were given; a {reader} is of one or the other")
    return found == {True}


def holds_series(path: Any) -> bool:
    """Whether a file holds series; see `data.kind_of`.

    >>> holds_series("ECG200_TRAIN.ts"), holds_series("reviews.csv")
    (True, False)
    """
    return kind_of(path) == "series"


def fit_tokenizer(options: InputOptions) -> Callable[[Sequence[str]], Tokenizer]:
    """What makes the tokenizer of some texts.

    >>> fit_tokenizer(InputOptions(level="word"))(["oh no"]).words
    ('<eos>', 'no', 'oh')
    """

    def fit(texts: Sequence[str]) -> Tokenizer:
        limits = options.vocabulary_size, options.minimum_count
        if options.level == "char":
            return CharacterTokenizer.fit(texts, *limits)
        split: Any = options.split
        return WordTokenizer.fit([f"{text}\n" for text in texts], *limits, options.lowercase, split)

    return fit


def read_inputs(
    options: InputOptions, path: str, *, targets: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yield where each text or series of a file is, and what it is.

    Args:
        options: How it is read.
        path: The file, or ``-`` for standard input.
        targets: Whether answers beside series are numbers to predict.

    Raises:
        DataError: the file cannot be read, or is a table of which no column was named.
    """
    if holds_series(path):
        for number, one in enumerate(read_series(path, options.encoding, targets=targets)[0], 1):
            yield f"{path}, series {number:,}", one
    elif not is_table(path):
        yield from line_inputs(options, path)
    elif options.column is None:
        raise DataError(f"{path} is a table: say with --column which column holds the texts")
    else:
        for place, (text,) in read_columns(path, [options.column], options.encoding):
            yield place, text.strip("\n")


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
    if any(map(is_table, paths)):
        return
    for name in names:
        if given.get(name) is not None:
            raise ValueError(f"{name} is for .csv and .tsv files, and none was given")


def refuse_text_options(options: Any, others: Sequence[str] = ()) -> None:
    """Refuse options of texts, as the files hold series, which have no tokens and no columns.

    Args:
        options: All options of the task.
        others: Names in the section "data" that are not only for texts.

    Raises:
        ValueError: one is not what it is by default.
    """
    for name in sorted(set(options.fields("data")) - {"validation_share", "encoding", *others}):
        if getattr(options, name) != options.default(name):
            raise ValueError(f"{name} is for texts, but the files hold series")


def example_file(options: InputOptions, files: str) -> str:
    """A file that a model could answer, as an argument, given the files of the training.

    >>> example_file(InputOptions(column="body"), "reviews.csv")
    'YOUR_TABLE.csv'
    """
    suffix = Path(uncompressed_name(files.split(", ")[0])).suffix.lower()
    if suffix in (".csv", ".tsv"):
        column = "" if options.column is not None else " --column YOUR_COLUMN"
        return f"YOUR_TABLE{suffix}{column}"
    return f"YOUR_SERIES{suffix}" if suffix in _SERIES else "YOUR_LINES.txt"
