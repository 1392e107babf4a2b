"""Sentences of tagged words: column files, CoNLL-U, and tables with lists."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anaphora.data.errors import DataError
from anaphora.data.files import SourceFile
from anaphora.data.formats import format_of
from anaphora.data.labelled import check_labels
from anaphora.data.sources import Source, open_source
from anaphora.data.tables import column_names, label_of, read_columns

__all__ = ["read_conllu", "read_tagged", "read_words"]

Sentence = tuple[list[str], list[str]]  # words and tags

NAMES = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
COLUMN_NAMES = "# global.columns ="  # in the first line of CoNLL-U Plus

# The first column: the number of a word, the range of a multiword token (3-4), or the number of
# an empty node (5.1).
NUMBER = re.compile(r"\d+(?P<not_a_word>[-.]\d+)?")

_NO_TAGS = "\n"  # as tag_column: read no tags; the words take their place

# Names of separators that are hard to type; the character itself is accepted too.
SEPARATORS = {"whitespace": None, "tab": "\t", "\\t": "\t", "space": " ", "comma": ","}


def read_tagged(
    path: str | os.PathLike[str],
    word_column: str | int | None = None,
    tag_column: str | int | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    format: str | None = None,
    places: dict[str, str] | None = None,
) -> list[Sentence]:
    r"""Read the words and the tags of each sentence.

    - CoNLL-U (Nivre et al. 2020) and CoNLL-X: a line is a word with its ten columns, separated by
      tabs, the first its number. Comments (#), multiword tokens (3-4) and empty nodes (5.1) are
      skipped. By default the word is the column ``FORM``, the tag ``UPOS``. The format is
      recognized by these columns, whatever the file's name; the first line of CoNLL-U Plus may
      name others.
    - Other column files, such as those of CoNLL-2000, 2002 and 2003: by default the word is the
      first column, the tag the last, and white space (spaces and tabs) separates them. Lines that
      begin with ``-DOCSTART-`` are skipped; a ``#`` is a word. Columns of ``.tsv`` files are
      separated by tabs.
    - Tables whose rows are sentences with lists (``.jsonl``, ``.parquet``, folders of Hugging
      Face's `datasets`): by default the columns ``tokens`` and ``tags``.

    A blank line ends a sentence.

    Args:
        path: A file, a folder of ``.conllu`` files, or ``-`` for standard input.
        word_column: The name of the column of the words, or its number: from 1, or from -1 for the
            last. Numbers may be strings.
        tag_column: The column of the tags.
        separator: What separates columns, or ``whitespace``, ``tab``, ``space`` or ``comma``.
        encoding: The encoding of the files.
        format: A key of `FORMATS`; None recognizes it by the columns.
        places: Filled with the place where each tag first occurs.

    Returns:
        The words and the tags of each sentence.

    Raises:
        DataError: as for `open_source`; a line has another number of columns than the first,
            an empty column, or a first column that is not a number; there is no such column, or no
            sentence; two tags look the same (see `check_labels`).

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "chunks.txt")
    ...     _ = path.write_text("-DOCSTART- -X- O\n\nIt PRP B-NP\nrains VBZ B-VP\n\nYes UH O\n")
    ...     read_tagged(path), read_tagged(path, tag_column=2)[1]
    ([(['It', 'rains'], ['B-NP', 'B-VP']), (['Yes'], ['O'])], (['Yes'], ['UH']))
    """
    found = {} if places is None else places
    return _read(path, word_column, tag_column, separator, encoding, format, found)


def read_words(
    path: str | os.PathLike[str],
    word_column: str | int | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    format: str | None = None,
) -> list[list[str]]:
    r"""Read the words of each sentence of a file that `read_tagged` reads, which may have no tags.

    Arguments and exceptions are those of `read_tagged`.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "words.conll")
    ...     _ = path.write_text("It\nrains\n\nYes\n")
    ...     read_words(path)
    [['It', 'rains'], ['Yes']]
    """
    sentences = _read(path, word_column, _NO_TAGS, separator, encoding, format, {})
    return [words for words, _ in sentences]


def _read(
    path: str | os.PathLike[str],
    word_column: str | int | None,
    tag_column: str | int | None,
    separator: str | None,
    encoding: str,
    format: str | None,
    places: dict[str, str],
) -> list[Sentence]:
    if separator == "":
        raise DataError(
            "separator is empty; expected a character, or whitespace, tab, space or comma"
        )
    between = SEPARATORS.get(separator, separator) if separator is not None else None
    if format_of(path, format) in ("jsonl", "parquet", "arrow", "dataset"):
        columns = [str(word_column or "tokens"), str(tag_column or "tags")]
        if tag_column == _NO_TAGS:
            columns[1] = columns[0]
        sentences = list(_lists(path, columns, encoding, format, places))
        name = os.fspath(path)
    else:
        source = open_source(path, pattern="*.conllu", encoding=encoding, format=format)
        name = source.name
        sentences = []
        for file in source.files:
            lines = _lines(file)
            layout = _layout(file, lines, between, separator is not None, format)
            sentences += _sentences(file, lines, layout, word_column, tag_column, places)
    if not sentences:
        raise DataError(f"{name} has no sentence; give a file with tagged words")
    if tag_column != _NO_TAGS:
        check_labels(places, "tag")
    return sentences


def read_conllu(
    path: str | os.PathLike[str], column: int = 4, encoding: str = "utf-8"
) -> list[Sentence]:
    r"""Read a CoNLL-U file or, with ``column=2``, lines of a word, a tab and its tag.

    This is `read_tagged` with the format that the column implies.

    Raises:
        DataError: the column is below 2; or as for `read_tagged`.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "pairs.tsv")
    ...     _ = path.write_text("It\tPRON\nrains\tVERB\n\nYes\tINTJ\n")
    ...     read_conllu(path, column=2)
    [(['It', 'rains'], ['PRON', 'VERB']), (['Yes'], ['INTJ'])]
    """
    if column < 2:
        raise DataError(
            f"column is {column}; expected 2, for lines of a word and its tag, or the later column "
            "of CoNLL-U that has the tags"
        )
    if column == 2:
        return read_tagged(path, 1, 2, "tab", encoding, "columns")
    return read_tagged(path, 2, column, None, encoding, "conllu")


@dataclass(frozen=True)
class _Layout:
    """How the lines of a file are laid out."""

    numbered: bool  # like CoNLL-U: comments, and a first column of numbers
    separator: str | None  # None is white space
    names: tuple[str, ...] = ()
    defaults: tuple[str | int, str | int] = (1, -1)

    def fields(self, line: str) -> list[str]:
        if self.separator is None:
            return re.split(r"[ \t]+", line.strip(" \t"))
        return line.split(self.separator)


def _lines(file: SourceFile) -> list[str]:
    source = Source([file])
    source.by_lines = True
    return "".join(source).split("\n")


def _layout(
    file: SourceFile, lines: Sequence[str], separator: str | None, given: bool, format: str | None
) -> _Layout:
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    fields = first.split("\t")
    names: tuple[str, ...] = NAMES
    if lines[0].startswith(COLUMN_NAMES):
        names = tuple(lines[0].removeprefix(COLUMN_NAMES).split())
    numbered = len(fields) == len(names) and names[0] == "ID" and NUMBER.fullmatch(fields[0])
    found = format_of(file.name, format)
    if found == "conllu" or (numbered and format is None and not given):
        return _Layout(names[0] == "ID", "\t", names, ("FORM", "UPOS"))
    if not given and found in ("tsv", "ucr"):
        separator = "\t"
    return _Layout(False, separator)


def _sentences(
    file: SourceFile,
    lines: Sequence[str],
    layout: _Layout,
    word_column: str | int | None,
    tag_column: str | int | None,
    places: dict[str, str],
) -> Iterator[Sentence]:
    """The sentences of one file; the last needs no blank line after it.

    `places` is filled with the place where each tag first occurs.
    """
    requested = [
        default if column is None else column
        for column, default in zip((word_column, tag_column), layout.defaults, strict=True)
    ]
    if tag_column == _NO_TAGS:
        requested[1] = requested[0]
    words: list[str] = []
    tags: list[str] = []
    count = 0  # columns, once they are known
    first = 0
    for number, line in enumerate([*lines, ""], start=1):
        if not line.strip():
            if words:
                yield words, tags
                words, tags = [], []
            continue
        commented = bool(layout.names) and line.startswith("#")
        if commented or line.split(maxsplit=1)[0] == "-DOCSTART-":
            continue
        where = f"{file.name}, line {number}"
        fields = layout.fields(line)
        indices = [_index(column, fields, layout, where) for column in requested]
        if layout.numbered:
            match = NUMBER.fullmatch(fields[0])
            if match is None:
                raise DataError(
                    f"{where}: the first column is {fields[0]!r}; expected the number of a word, "
                    "as in CoNLL-U. For lines of a word and its tag, give column 2"
                )
            if match["not_a_word"]:
                continue
        elif count and len(fields) != count:
            spaces = (
                ""
                if layout.separator
                else (
                    "; if words contain spaces and tabs separate the columns, give the separator "
                    "tab"
                )
            )
            raise DataError(
                f"{where}: there are {len(fields)} columns, where line {first} has {count}{spaces}"
            )
        count, first = len(fields), first or number
        word, tag = (fields[index] for index in indices)
        if not word.strip() or not tag.strip():
            empty = "tag" if word.strip() else "word"
            raise DataError(f"{where}: the {empty} is empty; fix the line")
        places.setdefault(tag, where)
        words.append(word)
        tags.append(tag)


def _index(column: str | int, fields: list[str], layout: _Layout, where: str) -> int:
    """The index of a column among the fields of a line."""
    number: int | None = None
    if isinstance(column, int) or re.fullmatch(r"-?\d+", column):
        number = int(column)
    elif column in layout.names:
        number = layout.names.index(column) + 1
    if number is None:
        known = (
            f"; it has {', '.join(layout.names)}"
            if layout.names
            else (
                ", as its columns have no names; expected a number: from 1, or from -1 for the last"
            )
        )
        raise DataError(f"{where}: there is no column {column!r}{known}")
    if number == 0:
        raise DataError("columns are numbered from 1, or from -1 for the last; 0 is not a column")
    if abs(number) > len(fields):
        between = (
            "white space"
            if layout.separator is None
            else "tabs"
            if layout.separator == "\t"
            else repr(layout.separator)
        )
        raise DataError(
            f"{where}: there are {len(fields)} columns, but column {column} was requested; "
            f"expected {'CoNLL-U' if layout.numbered else 'a word and its tag'}, separated by "
            f"{between}"
        )
    return number - 1 if number > 0 else len(fields) + number


def _lists(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    encoding: str,
    format: str | None,
    places: dict[str, str],
) -> Iterator[Sentence]:
    """The sentences of a table whose rows have lists."""
    if os.fspath(path) != "-":
        names = column_names(path, encoding, format)
        for column, option in zip(columns, ("--word-column", "--tag-column"), strict=True):
            if column not in names:
                raise DataError(
                    f"{path} has no column {column!r}; it has {', '.join(map(repr, names))}; name "
                    f"one of them with {option}"
                )
    for where, (words, tags) in read_columns(path, columns, encoding, format):
        for column, values in zip(columns, (words, tags), strict=True):
            if not isinstance(values, list):
                raise DataError(
                    f"{where}: column {column!r} is not a list; expected a list of words and a "
                    "list of their tags"
                )
        if len(words) != len(tags):
            raise DataError(
                f"{where}: there are {len(words)} words and {len(tags)} tags; expected one tag per "
                "word"
            )
        if not words:
            continue
        sentence = (
            [label_of(word, where, columns[0]) for word in words],
            [label_of(tag, where, columns[1]) for tag in tags],
        )
        for what, values in zip(("word", "tag"), sentence, strict=True):
            if not all(value.strip() for value in values):
                raise DataError(f"{where}: a {what} is empty; fix the row")
        for tag in sentence[1]:
            places.setdefault(tag, where)
        yield sentence
