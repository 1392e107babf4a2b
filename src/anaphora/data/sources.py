"""Reading text from files, folders, CSV columns and standard input, a chunk at a time."""

import csv
import io
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from anaphora.data.encodings import (
    GZIP,
    SAMPLE,
    check_encoding,
    codec_of_pipe,
    open_text,
    uncompressed_name,
)
from anaphora.data.errors import DataError

__all__ = [
    "Source",
    "SourceFile",
    "column_names",
    "is_table",
    "open_source",
    "read_columns",
    "read_lines",
    "standard_library_source",
    "stream_lines",
]

# Characters read at once. A chunk holds at most twice as many, so memory stays bounded.
BLOCK = 1 << 18

# The longest CSV field, in characters; the csv module's own limit of 131,072 is less than a long
# post. Its C type is a long, which has 32 bits on Windows.
FIELD_LIMIT = 2**31 - 1

# A field of a row: a quoted one, with the quote that closes it, if there is one; and another one.
UNQUOTED = re.compile(r"[^,\n]*")
QUOTED = re.compile(r'"(?:[^"]|"")*+("?)')

# Packages of the standard library that join its top-level modules in `standard_library_source`.
STANDARD_PACKAGES = (
    "asyncio",
    "collections",
    "concurrent",
    "importlib",
    "json",
    "logging",
    "urllib",
)
HELD_OUT_EVERY = 20


@dataclass(frozen=True)
class SourceFile:
    """A file of text, the name under which messages speak of it, and its encoding.

    >>> Source([SourceFile(Path("downloads/tmp8472.txt"), name="Moby-Dick")])
    Source(Moby-Dick)
    """

    path: Path
    name: str
    encoding: str = "utf-8"


class Source:
    r"""Text that can be read any number of times; iterating yields it in chunks of `str`.

    A byte order mark is left out; `\r\n` and `\r` become `\n`. Plain text comes in chunks of at
    most 512 Ki characters, cut after a line end; only a line longer than 256 Ki characters is cut
    inside, before a space between two words where it has one. A CSV column comes one row's text a
    chunk, ending in `\n`; a row whose text is empty is left out. Where a file does not end in `\n`
    and another one follows, a `\n` is put between them. The chunks, joined, are the text.

    Iterating raises `DataError` for bytes that are not of the encoding, a row without the column, a
    file that cannot be read, and a source that turns out to hold no text at all.

    Args:
        files: What to read, in order.
        column: The column that holds the text, of files as `read_columns` reads them; None reads
            plain text.

    >>> import tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "poem.txt")
    >>> _ = path.write_bytes(b"So much depends\r\nupon")
    >>> list(open_source(path))
    ['So much depends\n', 'upon']
    >>> folder.cleanup()
    """

    def __init__(self, files: Sequence[SourceFile], column: str | None = None) -> None:
        self.files = tuple(files)
        self.column = column
        self.by_lines = False  # whether each line counts, so that no other sign may end one

    def __repr__(self) -> str:
        column = "" if self.column is None else f", column {self.column!r}"
        return f"Source({self.name}{column})"

    @property
    def name(self) -> str:
        """What to call this text in a message: its file's name, or how many files it has."""
        return self.files[0].name if len(self.files) == 1 else f"{len(self.files):,} files"

    def __iter__(self) -> Iterator[str]:
        last = "\n"
        read_any = False
        for file in self.files:
            chunks = (
                _read_text(file, self.by_lines)
                if self.column is None
                else _read_column(file, self.column)
            )
            for number, chunk in enumerate(chunks):
                if number == 0 and not last.endswith("\n"):
                    yield "\n"
                yield chunk
                last = chunk
                read_any = True
        if not read_any:
            where = "" if self.column is None else f" in column {self.column!r}"
            raise DataError(f"{self.name} holds no text{where}: there is nothing to read")


def open_source(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    column: str | None = None,
    pattern: str = "*.txt",
    encoding: str = "utf-8",
) -> Source:
    """Return the text of one or several files, folders, or standard input.

    A folder stands for the files in it and in the folders below, sorted by path, whose names match
    `pattern`, with or without a final ``.gz``. Empty ones are left out, and so is what has a name
    that begins with a dot, or lies in a folder that has. `-` is standard input. It, and anything
    else that can be read only once (a pipe, `<(xzcat text.xz)`), is copied to a temporary file, in
    the folder that the environment variable TMPDIR names, which is deleted with the Source. Files
    are opened when read, so they must not change in between. Those that gzip compressed are
    decompressed.

    Args:
        paths: A path, or several; read in this order.
        column: Read every file as a table with a header line, as `read_columns` does, and take this
            column.
        pattern: A shell pattern for the names of files in folders, such as `*.md`.
        encoding: That of the files, by Python's name of it.

    Raises:
        DataError: a path does not exist or cannot be read, a file is empty, no file in a folder
            matches, a folder has a file compressed and not, a `.csv` file comes without `column`,
            a file has no such column, or the encoding is unknown.

    >>> open_source("missing.txt")
    Traceback (most recent call last):
    anaphora.data.errors.DataError: missing.txt does not exist; the current folder is ...
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise DataError("no text was given: name a file, a folder, or - for standard input")
    if sum(os.fspath(path) == "-" for path in given) > 1:
        raise DataError("standard input (-) was given more than once, but can be read only once")
    check_encoding(encoding)
    files: list[SourceFile] = []
    spooled: list[Path] = []
    try:
        for path in given:
            found = _find(path, pattern, spooled)
            files += [SourceFile(its_path, name, encoding) for its_path, name in found]
        for file in files:
            _check_columns(file, column)
        source = Source(files, column)
    except BaseException:
        _remove(spooled)
        raise
    weakref.finalize(source, _remove, spooled)
    return source


def read_lines(path: str | os.PathLike[str], encoding: str = "utf-8") -> list[str]:
    r"""The lines of a text, without their ends.

    Raises:
        DataError: what `open_source` raises.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "lines.txt")
    ...     _ = path.write_text("one\n\nthree\n")
    ...     read_lines(path)
    ['one', '', 'three']
    """
    source = open_source(path, encoding=encoding)
    source.by_lines = True
    return "".join(source).removesuffix("\n").split("\n")


def stream_lines(path: str | os.PathLike[str], encoding: str = "utf-8") -> Iterator[str]:
    r"""Yield the lines of a text as `read_lines` gives them; those of `-` and pipes as they come.

    What comes that gzip compressed is read to its end first.

    Raises:
        DataError: what `open_source` raises.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "lines.txt")
    ...     _ = path.write_text("one\n\nthree\n")
    ...     list(stream_lines(path))
    ['one', '', 'three']
    """
    if os.fspath(path) == "-":
        if sys.stdin is None or not hasattr(sys.stdin.buffer, "peek"):
            yield from read_lines("-", encoding)  # which says that it is closed
        else:
            yield from _lines_as_they_come(sys.stdin.buffer, "standard input", encoding)
        return
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        with open(path, "rb") as pipe:
            yield from _lines_as_they_come(pipe, os.fspath(path), encoding)
        return
    begun = ""  # a line that the next chunk may go on with
    source = open_source(path, encoding=encoding)
    source.by_lines = True
    for chunk in source:
        *lines, begun = (begun + chunk).split("\n")
        yield from lines
    if begun:
        yield begun


def _lines_as_they_come(pipe: Any, name: str, encoding: str) -> Iterator[str]:
    sample = pipe.peek(SAMPLE)
    if sample.startswith(GZIP):
        with tempfile.TemporaryDirectory(prefix="anaphora-") as folder:
            path = Path(folder, "text")
            with path.open("wb") as file:
                shutil.copyfileobj(pipe, file)
            with open_text(path, name, encoding) as text:
                yield from (line.removesuffix("\n") for line in text)
        return
    if not sample:
        raise DataError(f"{name} is empty: there is nothing to read")
    stream = io.TextIOWrapper(pipe, codec_of_pipe(name, sample, encoding))
    count = 0
    try:
        for line in stream:
            count += 1
            yield line.removesuffix("\n")
        _refuse_lone_returns(stream, name)
    except UnicodeDecodeError as error:
        number = count + 1 + error.object.count(b"\n", 0, error.start)
        raise DataError(
            f"{name} is not valid {encoding}, about line {number:,}: byte "
            f"0x{error.object[error.start]:02X}; give --encoding, or convert the text to UTF-8"
        ) from error
    except UnicodeError as error:
        raise DataError(f"{name} is not valid {encoding}: {error}") from error
    finally:
        stream.detach()  # else the pipe would be closed with it


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str], encoding: str = "utf-8"
) -> Iterator[tuple[str, list[str]]]:
    r"""Yield where each row of a table is, and what it has in some columns.

    Fields are between commas, quoted as RFC 4180 says. Those of ``.tsv`` files are between tabs;
    quotes are ordinary characters there, so that a text can have neither tabs nor line ends.

    Args:
        path: A file with a header line.
        columns: The names of the columns.
        encoding: That of the file.

    Raises:
        DataError: what `open_source` raises; a column is not there, or stands twice; a row lacks
            it, or has more fields than the header; a quote is not closed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.tsv")
    ...     _ = path.write_text("id\ttext\tlabel\n7\tyes\tgood\n")
    ...     [fields for _, fields in read_columns(path, ["label", "text"])]
    [['good', 'yes']]
    """
    source = open_source(path, columns[0], encoding=encoding)
    for file in source.files:
        for line, fields in _read_rows(file, columns):
            yield f"{file.name}, line {line}", fields


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table by its name.

    >>> is_table("reviews.tsv"), is_table("reviews.csv.gz"), is_table("reviews.txt")
    (True, True, False)
    """
    return uncompressed_name(path).lower().endswith((".csv", ".tsv"))


def column_names(path: str | os.PathLike[str], encoding: str = "utf-8") -> list[str]:
    r"""The names of a table's columns, from its header line.

    Raises:
        DataError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     _ = path.write_text("id,text\n7,yes\n")
    ...     column_names(path)
    ['id', 'text']
    """
    file = SourceFile(Path(path), os.fspath(path), encoding)
    with _opened(file) as stream:
        return next(_rows(stream, file), (1, []))[1]


def standard_library_source() -> tuple[Source, Source]:
    """Return Python's own standard library as a training and a validation text.

    They have about 5 MB and 0.3 MB. It is real text that is on every machine that has Python: the
    top-level modules and the packages asyncio, collections, concurrent, importlib, json, logging
    and urllib, sorted by path. Every 20th file is held out for validation. Files that are empty or
    not UTF-8 are left out, and so is what the build of Python generated about the machine
    (`_sysconfigdata...`). The text differs between versions of Python.

    Raises:
        DataError: this Python has no source files (an embedded or frozen one).

    >>> training, validation = standard_library_source()
    >>> sum(len(chunk) for chunk in validation) < sum(len(chunk) for chunk in training)
    True
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = list(root.glob("*.py"))
    for package in STANDARD_PACKAGES:
        paths += (root / package).rglob("*.py")
    files = [
        SourceFile(path, path.relative_to(root).as_posix())
        for path in sorted(paths)
        if not path.name.startswith((".", "_sysconfigdata")) and _is_text(path)
    ]
    if len(files) < HELD_OUT_EVERY:
        raise DataError(
            f"the source of Python's standard library is not in {root} ({len(files)} files found); "
            "name a text file to train on instead"
        )
    held_out = files[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    return Source([file for file in files if file not in held_out]), Source(held_out)


def _find(
    path: str | os.PathLike[str], pattern: str, spooled: list[Path]
) -> list[tuple[Path, str]]:
    """Return the files that `path` stands for, and their names; add those copied from a pipe to
    `spooled`.
    """
    if os.fspath(path) == "-":
        if sys.stdin is None:
            raise DataError("standard input is closed; name a file, or send a text to it")
        return [_spool(sys.stdin.buffer, "standard input", spooled)]
    path = Path(path)
    if path.is_dir():
        return _find_in_folder(path, pattern)
    if not path.exists():
        raise DataError(f"{path} does not exist; the current folder is {Path.cwd()}")
    if not path.is_file():
        try:
            with path.open("rb") as pipe:
                return [_spool(pipe, str(path), spooled)]
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: there is nothing to read")
    return [(path, str(path))]


def _find_in_folder(folder: Path, pattern: str) -> list[tuple[Path, str]]:
    matching, holds = matching_files(folder, pattern, below=True)
    if not matching:
        raise DataError(
            f"no file in the folder {folder} or below has a name that matches {pattern!r} "
            f"({holds}); wanted such names, or for a language model another --pattern, for example "
            "--pattern '*.md'"
        )
    full = [path for path in matching if path.stat().st_size > 0]
    if not full:
        raise DataError(
            f"every file in the folder {folder} that matches {pattern!r} is empty: "
            "there is nothing to read"
        )
    return [(path, str(path)) for path in full]


def matching_files(folder: Path, pattern: str, *, below: bool) -> tuple[list[Path], str]:
    """The files of a folder that match a pattern, with or without a final ``.gz``, sorted by path.

    What has a name that begins with a dot, or lies in a folder that has, is left out: systems and
    editors keep their own things there.

    Args:
        folder: The folder.
        pattern: A shell pattern.
        below: Whether files in folders below it are among them.

    Returns:
        The files, and what the folder holds, for a message.

    Raises:
        DataError: a file is there compressed and not.
    """
    files = sorted(path for path in folder.glob("**/*" if below else "*") if path.is_file())
    seen = [path for path in files if not _is_hidden(path, folder)]
    holds = f"files there: {len(seen):,}, first {seen[0].name}" if seen else "it is empty"
    if hidden := len(files) - len(seen):
        holds = (
            f"{holds}, but for {hidden:,} whose names, or those of their folders, begin with a dot"
        )
    matching = [
        path
        for path in seen
        if fnmatch(path.name, pattern) or fnmatch(uncompressed_name(path.name), pattern)
    ]
    names = set(matching)
    for path in matching:
        other = Path(uncompressed_name(path))
        if other != path and other in names:
            raise DataError(f"{folder} has both {other.name} and {path.name}; remove one of them")
    return matching, holds


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _spool(stream: BinaryIO, name: str, spooled: list[Path]) -> tuple[Path, str]:
    """Copy what can be read only once to a temporary file."""
    with tempfile.NamedTemporaryFile(prefix="anaphora-", suffix=".txt", delete=False) as file:
        path = Path(file.name)
        spooled.append(path)
        shutil.copyfileobj(stream, file)
    if path.stat().st_size == 0:
        raise DataError(f"{name} is empty: there is nothing to read")
    return path, name


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _read_text(file: SourceFile, by_lines: bool) -> Iterator[str]:
    """Yield the text in chunks that end at line ends, or before a space in a very long line."""
    with _opened(file) as stream:
        rest = ""
        while block := stream.read(BLOCK):
            text = rest + block
            end = text.rfind("\n") + 1
            if end == 0 and len(text) > BLOCK:
                end = _last_word_end(text)
            if end > 0:
                yield text[:end]
            rest = text[end:]
        if by_lines:
            _refuse_lone_returns(stream, file.name)
        if rest:
            yield rest


def _refuse_lone_returns(stream: TextIO, name: str) -> None:
    """Refuse a text that was read if some of its lines end with a carriage return alone."""
    if isinstance(stream.newlines, tuple) and "\r" in stream.newlines:
        raise DataError(
            f"{name} has carriage returns (\\r) that end no line, as its lines end with another "
            "sign; take them out: tr -d '\\r'"
        )


def _last_word_end(text: str) -> int:
    """Return where the last word ends that a single space and a word follow, or the text's end.

    Byte-pair encoding never joins across this place, so a cut there leaves no trace.
    """
    match = re.match(r".*\S(?= \S)", text, re.DOTALL)
    return match.end() if match else len(text)


def _read_column(file: SourceFile, column: str) -> Iterator[str]:
    """Yield the text of each row, ending in a line end."""
    for _, (text,) in _read_rows(file, [column]):
        if text:
            yield text if text.endswith("\n") else text + "\n"


def _read_rows(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield of each row the number of its first line, and what it has in the columns."""
    with _opened(file) as stream:
        rows = _rows(stream, file)
        _, header = next(rows, (1, []))
        indices = [_column_index(header, file, column) for column in columns]
        last = max(indices)
        torn_before = 0  # the line before, if its last field has a quote only at its beginning
        for line, row in rows:
            if not row and len(header) > 1:  # a blank line
                continue
            row = row or [""]
            torn = line if _is_tsv(file) and _is_torn(row[-1]) else 0
            if len(row) != len(header) and (torn_before or torn):
                raise DataError(
                    f"{file.name}, line {torn_before or torn}: the last field begins with a quote "
                    "and seems to go on in the next line, but quotes mean nothing in .tsv files; "
                    "take line ends out of the texts, or save the table as .csv"
                )
            torn_before = torn
            if len(row) <= last:
                raise DataError(
                    f"{file.name}, line {line}: the row has {len(row)} of the at least "
                    f"{last + 1} fields that column {header[last]!r} needs; a comma or a quote is "
                    "missing there"
                )
            if len(row) > len(header):
                cure = "take tabs out of it" if _is_tsv(file) else "put quotes around it"
                raise DataError(
                    f"{file.name}, line {line}: the row has {len(row)} fields, but the header has "
                    f"{len(header)}; if a text has the separator in it, {cure}"
                )
            yield line, [row[index] for index in indices]


def _rows(stream: TextIO, file: SourceFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each row, and its fields."""
    lines: list[str] = []  # of the row that is being read

    def read_lines() -> Iterator[str]:
        for line in stream:
            lines.append(line)
            yield line

    # Long fields are to pass.
    csv.field_size_limit(max(FIELD_LIMIT, csv.field_size_limit()))
    if _is_tsv(file):
        reader = csv.reader(read_lines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(read_lines(), strict=True)
    try:
        for row in reader:
            yield reader.line_num - len(lines) + 1, row
            lines.clear()
        _refuse_lone_returns(stream, file.name)
    except csv.Error as error:
        first = reader.line_num - len(lines) + 1
        raise DataError(_explain_quote(file, first, "".join(lines), error)) from error


def _explain_quote(file: SourceFile, first: int, row: str, error: csv.Error) -> str:
    """Say which quoted field of a row, from line `first` on, is not closed as it should be."""
    place = 0
    while place < len(row):
        match = QUOTED.match(row, place)
        if match is None:
            place = UNQUOTED.match(row, place).end() + 1  # type: ignore[union-attr]
            continue
        opened, end = first + row.count("\n", 0, place), match.end()
        if not match[1]:
            return (
                f"{file.name}, line {opened}: a field there begins with a quote, and the file ends "
                "before another one closes it; close it, or double it if it belongs to the text: "
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
    return uncompressed_name(file.name).lower().endswith(".tsv")


def _is_torn(field: str) -> bool:
    """Whether a field begins with a quote and does not end with another."""
    return field.startswith('"') and (len(field) == 1 or not field.endswith('"'))


def _check_columns(file: SourceFile, column: str | None) -> None:
    """Raise `DataError` where `column` is missing: in the call, or in the file."""
    if column is None and not uncompressed_name(file.name).lower().endswith(".csv"):
        return
    with _opened(file) as stream:
        _, header = next(_rows(stream, file), (1, []))
        if column is not None:
            _column_index(header, file, column)
            return
        raise DataError(
            f"{file.name} is a CSV file: say with --column which column holds the text; "
            f"it has {_names(header)}"
        )


def _column_index(header: list[str], file: SourceFile, column: str) -> int:
    if column not in header:
        raise DataError(f"{file.name} has no column {column!r}; it has {_names(header)}")
    if header.count(column) > 1:
        places = " and ".join(str(n) for n, name in enumerate(header, 1) if name == column)
        raise DataError(
            f"{file.name} has the column {column!r} more than once, as columns {places}; give "
            "one of them another name in the header"
        )
    return header.index(column)


def _names(header: list[str]) -> str:
    return ", ".join(map(repr, header)) or "none (its first line is blank)"


def _opened(file: SourceFile) -> AbstractContextManager[TextIO]:
    return open_text(file.path, file.name, file.encoding)
