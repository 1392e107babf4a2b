"""Tables, records with named fields: CSV, JSON lines, Parquet, and data sets of `datasets`."""

import csv
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from anaphora.data import arrow
from anaphora.data.encodings import check_encoding
from anaphora.data.errors import DataError
from anaphora.data.files import (
    SourceFile,
    find_files,
    opened,
    refuse_lone_returns,
    remove,
)
from anaphora.data.formats import FORMATS, format_of

__all__ = ["column_names", "is_table", "read_columns", "read_rows", "text_of"]

# The longest CSV field, in characters; the csv module's own limit of 131,072 is less than a long
# post. Its C type is a long, which has 32 bits on Windows.
FIELD_LIMIT = 2**31 - 1

# A field of a row, unquoted or quoted; the group is the closing quote, if there is one.
UNQUOTED = re.compile(r"[^,\n]*")
QUOTED = re.compile(r'"(?:[^"]|"")*+("?)')


def read_columns(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    encoding: str = "utf-8",
    format: str | None = None,
) -> Iterator[tuple[str, list[Any]]]:
    r"""Yield the place of each row of a table, and its values in some columns.

    - ``.csv``: fields are separated by commas, and quoted as in RFC 4180. Each is a str.
    - ``.tsv``: fields are separated by tabs; quotes are ordinary characters, so a text can contain
      neither tabs nor line ends.
    - ``.jsonl``, ``.ndjson``, ``.json``: each line is a JSON object with named fields, or the
      file is one array of such objects.
    - ``.parquet``, ``.arrow``, and folders that Hugging Face's `datasets` saved or that have
      ``.parquet`` files: with the extra ``parquet``. Numbers of a ``ClassLabel`` become names.

    Files with any other name, and standard input, are read as ``.csv`` unless `format` says
    otherwise. Fields within an object or a struct are named with a dot: ``translation.de``. If all
    columns are numbers, and are not names in the first line of a ``.csv`` or ``.tsv`` file, they
    number the columns from 1, and the file has no header line.

    Args:
        path: A file, a folder, or ``-`` for standard input.
        columns: The names of the columns.
        encoding: The encoding of a text file.
        format: A key of `FORMATS`; None: according to the name.

    Raises:
        DataError: as for `open_source`; a column is missing, or appears twice; a row lacks the
            field, or has more fields than the header; a quote is not closed; a line is not
            JSON; pyarrow is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.tsv")
    ...     _ = path.write_text("id\ttext\tlabel\n7\tyes\tgood\n")
    ...     [fields for _, fields in read_columns(path, ["label", "text"])]
    ...     path = Path(folder, "table.jsonl")
    ...     _ = path.write_text('{"text": "yes", "label": {"stars": 4}}')
    ...     [fields for _, fields in read_columns(path, ["label.stars", "text"])]
    [['good', 'yes']]
    [[4, 'yes']]
    """
    with table_file(path, encoding, format) as file:
        yield from read_rows(file, columns)


def is_table(path: str | os.PathLike[str], format: str | None = None) -> bool:
    """Whether a file or folder is a table, judged by its name or the given format.

    >>> is_table("reviews.tsv"), is_table("reviews.csv.gz"), is_table("reviews.txt")
    (True, True, False)
    """
    found = format_of(path, format)
    return found is not None and FORMATS[found].kind == "table"


def column_names(
    path: str | os.PathLike[str], encoding: str = "utf-8", format: str | None = None
) -> list[str]:
    r"""The names of a table's columns: from its header line, its first object, or its schema.

    Raises:
        DataError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     _ = path.write_text("id,text\n7,yes\n")
    ...     column_names(path)
    ['id', 'text']
    """
    with table_file(path, encoding, format) as file:
        return names_of(file)


def text_of(value: Any, place: str, column: str) -> str:
    """A text from a field of a table; a missing one is empty.

    Raises:
        DataError: the field is not a text.

    >>> text_of(7, "reviews.jsonl, line 2", "body")
    Traceback (most recent call last):
    anaphora.data.errors.DataError: reviews.jsonl, line 2: column 'body' has 7; expected a text
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{place}: column {column!r} has {_shown(value)}; expected a text")
    return value


def label_of(value: Any, place: str, column: str) -> str:
    """A label from a field of a table: a text, an integer, or a boolean.

    >>> label_of(True, "line 2", "good"), label_of(3.0, "line 2", "stars")
    ('true', '3')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and value == value // 1:
        return str(int(value))
    if value is not None and not isinstance(value, str):
        raise DataError(
            f"{place}: column {column!r} has {_shown(value)}; expected a label: a text or an "
            "integer"
        )
    return value or ""


def read_rows(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the place of each row of a table, and its values in the columns."""
    yield from _READERS[table_format(file)][1](file, columns)


def names_of(file: SourceFile) -> list[str]:
    """The names of the columns of a table."""
    return _READERS[table_format(file)][0](file)


def check_columns(file: SourceFile, columns: Sequence[str]) -> None:
    """Raise `DataError` if a table lacks one of the columns."""
    if table_format(file) in ("csv", "tsv"):
        with opened(file) as stream:
            _, header = next(_rows(stream, file), (1, []))
        _column_indices(header, file, columns)
        return
    names = names_of(file)
    for column in columns:
        if column not in names:
            raise DataError(f"{file.name} has no column {column!r}; it has {_names(names)}")


def table_format(file: SourceFile) -> str:
    """The format in which a file is read as a table; CSV by default."""
    found = format_of(file.path if file.path.is_dir() else file.name, file.format)
    if found == "ucr":  # columns were requested, so the first line has their names
        return "tsv"
    return found if found in _READERS else "csv"


@contextmanager
def table_file(
    path: str | os.PathLike[str], encoding: str, format: str | None
) -> Iterator[SourceFile]:
    """The one file that a path denotes; a copy of a pipe is deleted at the end."""
    check_encoding(encoding)
    format_of("", format)  # refuses unknown ones
    spooled: list[Path] = []
    try:
        if os.path.isdir(path):
            if format_of(path, format) != "dataset":
                raise DataError(
                    f"{path} is a folder without .arrow or .parquet files; name a table in it"
                )
            yield SourceFile(Path(path), os.fspath(path), encoding, "dataset")
        else:
            ((its_path, name),) = find_files(path, "*", spooled)
            yield SourceFile(its_path, name, encoding, format)
    finally:
        remove(spooled)


def _read_csv(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    for line, fields in _read_fields(file, columns):
        yield f"{file.name}, line {line}", fields


def _csv_names(file: SourceFile) -> list[str]:
    with opened(file) as stream:
        return next(_rows(stream, file), (1, []))[1]


def _read_json(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    for place, record in _objects(file):
        yield place, [_field(record, column, place) for column in columns]


def _json_names(file: SourceFile) -> list[str]:
    _, record = next(_objects(file), ("", {}))
    names: list[str] = []
    for name, value in record.items():
        names.append(name)
        names += [f"{name}.{inner}" for inner in value] if isinstance(value, dict) else []
    return names


def _objects(file: SourceFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON lines file, or of one array."""
    with opened(file) as stream:
        begun = False
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            if not begun and line.lstrip().startswith("["):
                yield from _array(file, line + stream.read())
                return
            begun = True
            place = f"{file.name}, line {number}"
            yield place, _checked(_parsed(line, place), place)
        refuse_lone_returns(stream, file.name)


def _array(file: SourceFile, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in enumerate(_parsed(text, file.name), start=1):
        place = f"{file.name}, item {number}"
        yield place, _checked(record, place)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(
            f"{place}: this is not JSON ({error.msg}, {where}column {error.colno}); expected one "
            'object per line: {"text": "...", "label": "..."}'
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits
        raise DataError(f"{place}: this JSON cannot be read: {error}") from error


def _checked(record: Any, place: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(
            f"{place}: found {_shown(record)}; expected an object with named fields: "
            '{"text": "...", "label": "..."}'
        )
    return record


def _field(record: dict[str, Any], column: str, place: str) -> Any:
    if column in record:
        return record[column]
    first, _, rest = column.partition(".")
    inner = record.get(first)
    if rest and isinstance(inner, dict) and rest in inner:
        return inner[rest]
    raise DataError(f"{place}: there is no field {column!r}; it has {_names(list(record))}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _read_fields(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each row, and its values in the columns."""
    with opened(file) as stream:
        rows = _rows(stream, file)
        first, header = next(rows, (1, []))
        indices = _column_indices(header, file, columns)
        last = max(indices)
        if _are_numbers(header, columns):
            rows = itertools.chain([(first, header)], rows)  # the first line is a row too
        is_tsv = _is_tsv(file)
        torn_before = 0  # the previous line, if its last field has only an opening quote
        for line, row in rows:
            if not row and len(header) > 1:  # a blank line
                continue
            row = row or [""]
            torn = line if is_tsv and _is_torn(row[-1]) else 0
            if len(row) != len(header) and (torn_before or torn):
                raise DataError(
                    f"{file.name}, line {torn_before or torn}: the last field begins with a quote "
                    "and seems to continue on the next line, but quotes have no meaning in .tsv "
                    "files; remove line ends from the texts, or save the table as .csv"
                )
            torn_before = torn
            if len(row) <= last:
                raise DataError(
                    f"{file.name}, line {line}: the row has too few fields ({len(row)}) for column "
                    f"{header[last]!r}, which is number {last + 1}; a comma or a quote is missing "
                    "there"
                )
            if len(row) > len(header):
                fix = "remove tabs from it" if is_tsv else "put quotes around it"
                raise DataError(
                    f"{file.name}, line {line}: the row has {len(row)} fields, but the header has "
                    f"{len(header)}; if a text contains the separator, {fix}"
                )
            yield line, [row[index] for index in indices]


def _rows(stream: TextIO, file: SourceFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each row, and its fields."""
    lines: list[str] = []  # of the row that is being read

    def read_lines() -> Iterator[str]:
        for line in stream:
            lines.append(line)
            yield line

    csv.field_size_limit(max(FIELD_LIMIT, csv.field_size_limit()))
    if _is_tsv(file):
        reader = csv.reader(read_lines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(read_lines(), strict=True)
    try:
        for row in reader:
            yield reader.line_num - len(lines) + 1, row
            lines.clear()
        refuse_lone_returns(stream, file.name)
    except csv.Error as error:
        first = reader.line_num - len(lines) + 1
        raise DataError(_explain_quote(file, first, "".join(lines), error)) from error


def _explain_quote(file: SourceFile, first: int, row: str, error: csv.Error) -> str:
    """Say which quoted field of a row that begins in line `first` is not closed properly."""
    place = 0
    while place < len(row):
        match = QUOTED.match(row, place)
        if match is None:
            place = UNQUOTED.match(row, place).end() + 1  # type: ignore[union-attr]
            continue
        opened, end = first + row.count("\n", 0, place), match.end()
        if not match[1]:
            return (
                f"{file.name}, line {opened}: a field begins with a quote that is never closed; "
                "close it, or double it if it belongs to the text: "
                '"He said ""yes"""'
            )
        if row[end : end + 1] not in ("", ",", "\n"):
            closed = first + row.count("\n", 0, end)
            return (
                f"{file.name}, line {closed}: a quote closes the field that began in line {opened},"
                f" but {row[end]!r} follows it instead of a comma; close the field where it ends, "
                'and double quotes that belong to the text: "He said ""yes"""'
            )
        place = end + 1
    return f"{file.name}, line {first} cannot be read as CSV: {error}"


def _is_tsv(file: SourceFile) -> bool:
    return table_format(file) == "tsv"


def _is_torn(field: str) -> bool:
    """Whether a field begins with a quote and does not end with another."""
    return field.startswith('"') and (len(field) == 1 or not field.endswith('"'))


def _column_indices(header: list[str], file: SourceFile, columns: Sequence[str]) -> list[int]:
    """The indices of columns, by name, or by number where there are no names."""
    if not _are_numbers(header, columns):
        return [_column_index(header, file, column) for column in columns]
    for column in columns:
        if not 1 <= int(column) <= len(header):
            raise DataError(
                f"{file.name} has no column {column}; its first line has {len(header)} fields, and "
                "columns without names are numbered from 1"
            )
    return [int(column) - 1 for column in columns]


def _are_numbers(header: list[str], columns: Sequence[str]) -> bool:
    """Whether columns are given by number, and the numbers are not names."""
    return all(column.isdecimal() and column not in header for column in columns)


def _column_index(header: list[str], file: SourceFile, column: str) -> int:
    if column not in header:
        raise DataError(f"{file.name} has no column {column!r}; it has {_names(header)}")
    if header.count(column) > 1:
        places = " and ".join(str(n) for n, name in enumerate(header, 1) if name == column)
        raise DataError(
            f"{file.name} has the column {column!r} more than once, as columns {places}; rename "
            "one of them in the header"
        )
    return header.index(column)


def _names(header: list[str]) -> str:
    return ", ".join(map(repr, header)) or "none (its first line is blank)"


# For each format, the functions that read its column names and its rows.
_READERS: dict[
    str,
    tuple[
        Callable[[SourceFile], list[str]],
        Callable[[SourceFile, Sequence[str]], Iterator[tuple[str, list[Any]]]],
    ],
] = {
    "csv": (_csv_names, _read_csv),
    "tsv": (_csv_names, _read_csv),
    "jsonl": (_json_names, _read_json),
    **dict.fromkeys(("parquet", "arrow", "dataset"), (arrow.column_names, arrow.read_rows)),
}
