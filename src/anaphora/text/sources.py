"""Reading text from files, folders, CSV columns and standard input, a chunk at a time."""

import codecs
import contextlib
import csv
import io
import os
import re
import shlex
import shutil
import sys
import sysconfig
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from anaphora.text.errors import TextError

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
    """A file of text, and the name under which messages speak of it.

    >>> Source([SourceFile(Path("downloads/tmp8472.txt"), name="Moby-Dick")])
    Source(Moby-Dick)
    """

    path: Path
    name: str


class Source:
    r"""Text that can be read any number of times; iterating yields it in chunks of `str`.

    Text is UTF-8, with or without a byte order mark; `\r\n` and `\r` become `\n`. Plain text
    comes in chunks of at most 512 Ki characters, cut after a line end; only a line longer than 256
    Ki characters is cut inside, before a space between two words where it has one. A CSV column
    comes one row's text a chunk, ending in `\n`; a row whose text is empty is left out. Where a
    file does not end in `\n` and another one follows, a `\n` is put between them. The chunks,
    joined, are the text.

    Iterating raises `TextError` for bytes that are not UTF-8, a row without the column, a file that
    cannot be read, and a source that turns out to hold no text at all.

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
            chunks = _read_text(file) if self.column is None else _read_column(file, self.column)
            for number, chunk in enumerate(chunks):
                if number == 0 and not last.endswith("\n"):
                    yield "\n"
                yield chunk
                last = chunk
                read_any = True
        if not read_any:
            where = "" if self.column is None else f" in column {self.column!r}"
            raise TextError(f"{self.name} holds no text{where}: there is nothing to read")


def open_source(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    column: str | None = None,
    pattern: str = "*.txt",
) -> Source:
    """Return the text of one or several files, folders, or standard input.

    A folder stands for the files in it and in the folders below, sorted by path, whose names match
    `pattern`; empty ones are left out. `-` is standard input. It, and anything else that can be
    read only once (a pipe, `<(zcat text.gz)`), is copied to a temporary file, in the folder that
    the environment variable TMPDIR names, which is deleted with the Source. Files are opened when
    read, so they must not change in between.

    Args:
        paths: A path, or several; read in this order.
        column: Read every file as a table with a header line, as `read_columns` does, and take this
            column.
        pattern: A shell pattern for the names of files in folders, such as `*.md`.

    Raises:
        TextError: a path does not exist or cannot be read, a file is empty, no file in a folder
            matches, a `.csv` file comes without `column`, or a file has no such column.

    >>> open_source("missing.txt")
    Traceback (most recent call last):
    anaphora.text.errors.TextError: missing.txt does not exist; the current folder is ...
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise TextError("no text was given: name a file, a folder, or - for standard input")
    if sum(os.fspath(path) == "-" for path in given) > 1:
        raise TextError("standard input (-) was given more than once, but can be read only once")
    files: list[SourceFile] = []
    spooled: list[Path] = []
    try:
        for path in given:
            files += _find(path, pattern, spooled)
        for file in files:
            _check_columns(file, column)
        source = Source(files, column)
    except BaseException:
        _remove(spooled)
        raise
    weakref.finalize(source, _remove, spooled)
    return source


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    r"""The lines of a text, without their ends.

    Raises:
        TextError: what `open_source` raises.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "lines.txt")
    ...     _ = path.write_text("one\n\nthree\n")
    ...     read_lines(path)
    ['one', '', 'three']
    """
    return "".join(open_source(path)).removesuffix("\n").split("\n")


def stream_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    r"""Yield the lines of a text as `read_lines` gives them; those of `-` and pipes as they come.

    What comes is UTF-8.

    Raises:
        TextError: what `open_source` raises.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "lines.txt")
    ...     _ = path.write_text("one\n\nthree\n")
    ...     list(stream_lines(path))
    ['one', '', 'three']
    """
    if os.fspath(path) == "-":
        yield from _lines_as_they_come(sys.stdin.buffer, "standard input")
        return
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        with open(path, "rb") as pipe:
            yield from _lines_as_they_come(pipe, os.fspath(path))
        return
    begun = ""  # a line that the next chunk may go on with
    for chunk in open_source(path):
        *lines, begun = (begun + chunk).split("\n")
        yield from lines
    if begun:
        yield begun


def _lines_as_they_come(pipe: BinaryIO, name: str) -> Iterator[str]:
    stream = io.TextIOWrapper(pipe, encoding="utf-8-sig")
    count = 0
    try:
        for line in stream:
            count += 1
            yield line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name}, line {count + 1} or soon after, is not valid UTF-8: byte "
            f"0x{error.object[error.start]:02X}; convert the text to UTF-8"
        ) from error
    finally:
        stream.detach()  # else the pipe would be closed with it
    if count == 0:
        raise TextError(f"{name} is empty: there is nothing to read")


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    r"""Yield where each row of a table is, and what it has in some columns.

    Fields are between commas, quoted as RFC 4180 says; those of ``.tsv`` files are between tabs,
    and quotes mean nothing there.

    Args:
        path: A file with a header line.
        columns: The names of the columns.

    Raises:
        TextError: what `open_source` raises; a column is not there, or a row lacks it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.tsv")
    ...     _ = path.write_text("id\ttext\tlabel\n7\tyes\tgood\n")
    ...     [fields for _, fields in read_columns(path, ["label", "text"])]
    [['good', 'yes']]
    """
    source = open_source(path, columns[0])
    for file in source.files:
        for line, fields in _read_rows(file, columns):
            yield f"{file.name}, line {line}", fields


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table by its name.

    >>> is_table("reviews.tsv"), is_table("reviews.txt")
    (True, False)
    """
    return os.fspath(path).lower().endswith((".csv", ".tsv"))


def column_names(path: str | os.PathLike[str]) -> list[str]:
    r"""The names of a table's columns, from its header line.

    Raises:
        TextError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     _ = path.write_text("id,text\n7,yes\n")
    ...     column_names(path)
    ['id', 'text']
    """
    file = SourceFile(Path(path), os.fspath(path))
    with _opened(file) as stream, _csv_errors(file):
        return list(next(_csv_reader(stream, file), []))


def standard_library_source() -> tuple[Source, Source]:
    """Return Python's own standard library as a training and a validation text.

    They have about 5 MB and 0.3 MB. It is real text that is on every machine that has Python: the
    top-level modules and the packages asyncio, collections, concurrent, importlib, json, logging
    and urllib, sorted by path. Every 20th file is held out for validation. Files that are empty or
    not UTF-8 are left out, and so is what the build of Python generated about the machine
    (`_sysconfigdata...`). The text differs between versions of Python.

    Raises:
        TextError: this Python has no source files (an embedded or frozen one).

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
        if not path.name.startswith("_sysconfigdata") and _is_text(path)
    ]
    if len(files) < HELD_OUT_EVERY:
        raise TextError(
            f"the source of Python's standard library is not in {root} ({len(files)} files found); "
            "name a text file to train on instead"
        )
    held_out = files[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    return Source([file for file in files if file not in held_out]), Source(held_out)


def _find(path: str | os.PathLike[str], pattern: str, spooled: list[Path]) -> list[SourceFile]:
    """Return the files that `path` stands for; add those copied from a pipe to `spooled`."""
    if os.fspath(path) == "-":
        return [_spool(sys.stdin.buffer, "standard input", spooled)]
    path = Path(path)
    if path.is_dir():
        return _find_in_folder(path, pattern)
    if not path.exists():
        raise TextError(f"{path} does not exist; the current folder is {Path.cwd()}")
    if not path.is_file():
        try:
            with path.open("rb") as pipe:
                return [_spool(pipe, str(path), spooled)]
        except OSError as error:
            raise TextError(f"{path} cannot be read: {error.strerror}") from error
    if path.stat().st_size == 0:
        raise TextError(f"{path} is empty: there is nothing to read")
    return [SourceFile(path, str(path))]


def _find_in_folder(folder: Path, pattern: str) -> list[SourceFile]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    matching = [path for path in files if fnmatch(path.name, pattern)]
    if not matching:
        holds = f"files there: {len(files):,}, first {files[0].name}" if files else "it is empty"
        raise TextError(
            f"no file in the folder {folder} or below has a name that matches {pattern!r} "
            f"({holds}); wanted such names, or for a language model another --pattern, for example "
            "--pattern '*.md'"
        )
    full = [path for path in matching if path.stat().st_size > 0]
    if not full:
        raise TextError(
            f"every file in the folder {folder} that matches {pattern!r} is empty: "
            "there is nothing to read"
        )
    return [SourceFile(path, str(path)) for path in full]


def _spool(stream: BinaryIO, name: str, spooled: list[Path]) -> SourceFile:
    """Copy what can be read only once to a temporary file."""
    with tempfile.NamedTemporaryFile(prefix="anaphora-", suffix=".txt", delete=False) as file:
        path = Path(file.name)
        spooled.append(path)
        shutil.copyfileobj(stream, file)
    if path.stat().st_size == 0:
        raise TextError(f"{name} is empty: there is nothing to read")
    return SourceFile(path, name)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _read_text(file: SourceFile) -> Iterator[str]:
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
        if rest:
            yield rest


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
    """Yield of each row the number of its last line, and what it has in the columns."""
    with _opened(file) as stream, _csv_errors(file):
        rows = _csv_reader(stream, file)
        header: list[str] = next(rows, [])
        indices = [_column_index(header, file, column) for column in columns]
        last = max(indices)
        for row in rows:
            if not row:  # a blank line
                continue
            if len(row) <= last:
                raise TextError(
                    f"{file.name}, line {rows.line_num}: the row has {len(row)} of the at least "
                    f"{last + 1} fields that column {header[last]!r} needs; a comma or a quote is "
                    "missing there"
                )
            yield rows.line_num, [row[index] for index in indices]


def _csv_reader(stream: TextIO, file: SourceFile) -> Any:
    """Fields between commas; in ``.tsv`` files between tabs, where quotes mean nothing."""
    if file.name.lower().endswith(".tsv"):
        return csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(stream)


def _check_columns(file: SourceFile, column: str | None) -> None:
    """Raise `TextError` where `column` is missing: in the call, or in the file."""
    if column is None and not file.name.lower().endswith(".csv"):
        return
    with _opened(file) as stream, _csv_errors(file):
        header: list[str] = next(_csv_reader(stream, file), [])
        if column is not None:
            _column_index(header, file, column)
            return
        raise TextError(
            f"{file.name} is a CSV file: say with --column which column holds the text; "
            f"it has {_names(header)}"
        )


def _column_index(header: list[str], file: SourceFile, column: str) -> int:
    if column not in header:
        raise TextError(f"{file.name} has no column {column!r}; it has {_names(header)}")
    return header.index(column)


def _names(header: list[str]) -> str:
    return ", ".join(map(repr, header)) or "none (its first line is blank)"


@contextlib.contextmanager
def _opened(file: SourceFile) -> Iterator[TextIO]:
    """Open the file as text; failures to open, read or decode it become a `TextError`."""
    try:
        with file.path.open(encoding="utf-8-sig") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise TextError(_explain_bytes(file)) from error
    except OSError as error:
        raise TextError(f"{file.name} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _csv_errors(file: SourceFile) -> Iterator[None]:
    """Let long fields pass; failures of the csv module become a `TextError`."""
    csv.field_size_limit(max(FIELD_LIMIT, csv.field_size_limit()))
    try:
        yield
    except csv.Error as error:
        raise TextError(f"{file.name} cannot be read as CSV: {error}") from error


def _explain_bytes(file: SourceFile) -> str:
    """Find the first byte of the file that is not UTF-8, and say how to convert it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0  # of the first byte that the decoder has not taken
    with file.path.open("rb") as stream:
        while True:
            block = stream.read(io.DEFAULT_BUFFER_SIZE)
            waiting = decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                offset += error.start
                break
            if not block:  # the file has been mended since
                return f"{file.name} changed while it was read; try again"
            offset += len(waiting) + len(block) - len(decoder.getstate()[0])
    encoding = "UTF-16" if offset == 0 and byte in (0xFE, 0xFF) else "LATIN1"
    name = shlex.quote(file.name) if file.name == str(file.path) else "FILE"
    return (
        f"{file.name} is not valid UTF-8: byte 0x{byte:02X} at offset {offset:,}. If it is "
        f"{encoding} text, convert it: iconv -f {encoding} -t UTF-8 {name} > {name}.utf8"
    )
