"""Reading text from files, folders, CSV columns and standard input, a chunk at a time."""

import dataclasses
import io
import itertools
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.data.encodings import (
    GZIP,
    SAMPLE,
    check_encoding,
    codec_of_pipe,
    has_plain_lines,
    open_text,
)
from anaphora.data.errors import DataError
from anaphora.data.files import SourceFile, find_files, opened, refuse_lone_returns, remove
from anaphora.data.formats import format_of
from anaphora.data.tables import check_columns, names_of, read_rows, text_of

__all__ = [
    "Source",
    "open_source",
    "read_lines",
    "standard_library_source",
    "stream_lines",
]

# Characters read at once. A chunk holds at most twice as many, so memory stays bounded.
BLOCK = 1 << 18

# Packages that `standard_library_source` reads beside the top-level modules.
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

# Tables that make no sense as plain text; .tsv and .json files may be read as such.
NOT_PLAIN_TEXT = {
    "csv": "CSV",
    "jsonl": "JSON lines",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "dataset": "dataset",
}


class Source:
    r"""Text that can be read any number of times; iterating yields it in chunks of `str`.

    A byte order mark is skipped; `\r\n` and `\r` become `\n`. Plain text comes in chunks of at
    most 512 Ki characters, cut after a line end; only a line longer than 256 Ki characters is cut
    within, before a space between two words if it has one. A CSV column comes as one chunk per row,
    ending in `\n`; rows with empty text are skipped. Where a file does not end in `\n` and another
    follows, a `\n` is inserted between them. The chunks, joined, are the text.

    Iterating raises `DataError` for bytes that are invalid in the encoding, a row without the
    column, a file that cannot be read, and a source that has no text.

    Args:
        files: What to read, in order.
        column: The column that holds the text, in files that `read_columns` reads; None reads
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
        self.by_lines = False  # whether each line counts, so that lone carriage returns are refused
        self._may_be_empty = False

    def __repr__(self) -> str:
        column = "" if self.column is None else f", column {self.column!r}"
        return f"Source({self.name}{column})"

    @property
    def name(self) -> str:
        """The name of this text in messages: its file's name, or the number of files."""
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
        if not read_any and not self._may_be_empty:
            where = "" if self.column is None else f" in column {self.column!r}"
            raise DataError(f"{self.name} holds no text{where}: there is nothing to read")

    def pieces(self, count: int) -> list["Source"]:
        r"""Cut the text into at most `count` pieces of similar size, which, joined, are the text.

        Plain text is cut after line ends, tables between files. Text that is compressed, or in an
        encoding such as UTF-16, stays one piece, and so does standard input.

        >>> import tempfile, pathlib
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "poem.txt")
        >>> _ = path.write_bytes(b"So much\ndepends\nupon")
        >>> [list(piece) for piece in open_source(path).pieces(2)]
        [['So much\ndepends\n'], ['upon']]
        >>> folder.cleanup()
        """
        if count < 2 or any(file.name != str(file.path) for file in self.files):
            return [self]  # a copy of standard input may be on this machine only
        sizes = [file.path.stat().st_size for file in self.files]
        ends = np.cumsum(sizes)
        wanted = [int(ends[-1]) * k // count for k in range(1, count)]
        cuts: list[tuple[int, int]] = []  # files and bytes
        if self.column is not None:
            cuts = [(1 + int(np.abs(ends - place).argmin()), 0) for place in wanted]
        elif all(has_plain_lines(file.path, file.encoding) for file in self.files):
            for place in wanted:
                number = int(np.searchsorted(ends, place, side="right"))
                cuts.append(self._after_line_end(number, place - int(ends[number]) + sizes[number]))
        cuts = sorted({cut for cut in cuts if (0, 0) < cut < (len(self.files), 0)})
        if not cuts:
            return [self]
        found = []
        for start, end in itertools.pairwise([(0, 0), *cuts, (len(self.files), 0)]):
            piece = Source(self._between(start, end, sizes), self.column)
            piece._may_be_empty = True  # some rows of a table have no text
            found.append(piece)
        return found

    def _after_line_end(self, number: int, place: int) -> tuple[int, int]:
        """Where the first line begins after a byte of a file: the file, and the byte."""
        for later in range(number, len(self.files)):
            with self.files[later].path.open("rb") as stream:
                stream.seek(place if later == number else 0)
                while line := stream.readline(BLOCK):
                    if line.endswith(b"\n"):
                        at_end = not stream.peek(1)
                        return (later + 1, 0) if at_end else (later, stream.tell())
        return len(self.files), 0

    def _between(
        self, start: tuple[int, int], end: tuple[int, int], sizes: Sequence[int]
    ) -> list[SourceFile]:
        """The files, or parts of them, between two places."""
        found = []
        for number in range(start[0], min(end[0] + 1, len(self.files))):
            first = start[1] if number == start[0] else 0
            last = end[1] if number == end[0] else sizes[number]
            if first == 0 and last == sizes[number]:
                found.append(self.files[number])
            elif first < last:
                found.append(dataclasses.replace(self.files[number], span=(first, last)))
        return found


def open_source(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    column: str | None = None,
    pattern: str = "*.txt",
    encoding: str = "utf-8",
    format: str | None = None,
) -> Source:
    """Return the text of one or several files, folders, or standard input.

    A folder means the files in it and its subfolders, sorted by path, whose names match `pattern`,
    with or without a final ``.gz``. Empty files are skipped, and so are files whose names, or whose
    folders' names, begin with a dot. `-` is standard input. It, and anything else that can be read
    only once (a pipe, `<(xzcat text.xz)`), is copied to a temporary file, in the folder that the
    environment variable TMPDIR names; the copy is deleted with the Source. Files are opened when
    read, so they must not change in between. Those compressed with gzip are decompressed.

    Args:
        paths: A path, or several; read in this order.
        column: Read every file as a table with a header line, as `read_columns` does, and take this
            column.
        pattern: A shell pattern for the names of files in folders, such as `*.md`.
        encoding: The encoding of the files, by its name in Python.
        format: The format of a table, a key of `FORMATS`; None: according to the name.

    Raises:
        DataError: a path does not exist or cannot be read, a file is empty, no file in a folder
            matches, a folder has a file both compressed and uncompressed, a `.csv` file is given
            without `column`, a file has no such column, or the encoding is unknown.

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
    format_of("", format)  # refuses unknown ones
    files: list[SourceFile] = []
    spooled: list[Path] = []
    try:
        for path in given:
            found = find_files(path, pattern, spooled)
            files += [SourceFile(its_path, name, encoding, format) for its_path, name in found]
        for file in files:
            _check_column(file, column)
        source = Source(files, column)
    except BaseException:
        remove(spooled)
        raise
    weakref.finalize(source, remove, spooled)
    return source


def read_lines(path: str | os.PathLike[str], encoding: str = "utf-8") -> list[str]:
    r"""The lines of a text, without their ends.

    Raises:
        DataError: as for `open_source`.

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
    r"""Yield the lines of a text like `read_lines`; those of `-` and pipes as they arrive.

    A stream compressed with gzip is first read to its end.

    Raises:
        DataError: as for `open_source`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "lines.txt")
    ...     _ = path.write_text("one\n\nthree\n")
    ...     list(stream_lines(path))
    ['one', '', 'three']
    """
    if os.fspath(path) == "-":
        if sys.stdin is None or not hasattr(sys.stdin.buffer, "peek"):
            yield from read_lines("-", encoding)  # reports that it is closed
        else:
            yield from _lines_as_they_arrive(sys.stdin.buffer, "standard input", encoding)
        return
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        with open(path, "rb") as pipe:
            yield from _lines_as_they_arrive(pipe, os.fspath(path), encoding)
        return
    begun = ""  # a line that the next chunk may continue
    source = open_source(path, encoding=encoding)
    source.by_lines = True
    for chunk in source:
        *lines, begun = (begun + chunk).split("\n")
        yield from lines
    if begun:
        yield begun


def _lines_as_they_arrive(pipe: Any, name: str, encoding: str) -> Iterator[str]:
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
        refuse_lone_returns(stream, name)
    except UnicodeDecodeError as error:
        number = count + 1 + error.object.count(b"\n", 0, error.start)
        raise DataError(
            f"{name} is not valid {encoding}, about line {number:,}: byte "
            f"0x{error.object[error.start]:02X}; give --encoding, or convert the text to UTF-8"
        ) from error
    except UnicodeError as error:
        raise DataError(f"{name} is not valid {encoding}: {error}") from error
    finally:
        stream.detach()  # otherwise the pipe would be closed with it


def standard_library_source() -> tuple[Source, Source]:
    """Return Python's own standard library as a training and a validation text.

    They have about 5 MB and 0.3 MB. This is real text on every machine that has Python: the
    top-level modules and the packages asyncio, collections, concurrent, importlib, json, logging
    and urllib, sorted by path. Every 20th file is held out for validation. Files that are empty or
    not UTF-8 are skipped, and so are those that the build of Python generated for the machine
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


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _read_text(file: SourceFile, by_lines: bool) -> Iterator[str]:
    """Yield the text in chunks that end at line ends, or before a space in a very long line."""
    with opened(file) as stream:
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
            refuse_lone_returns(stream, file.name)
        if rest:
            yield rest


def _last_word_end(text: str) -> int:
    """Return the end of the last word before a single space and another word, or the text's end.

    Byte-pair encoding never joins across this place, so a cut there leaves no trace.
    """
    match = re.match(r".*\S(?= \S)", text, re.DOTALL)
    return match.end() if match else len(text)


def _read_column(file: SourceFile, column: str) -> Iterator[str]:
    """Yield the text of each row, ending in a line end."""
    for place, (value,) in read_rows(file, [column]):
        if text := text_of(value, place, column):
            yield text if text.endswith("\n") else text + "\n"


def _check_column(file: SourceFile, column: str | None) -> None:
    """Raise `DataError` if `column` is missing: in the call, or in the file."""
    if column is not None:
        check_columns(file, [column])
        return
    found = format_of(file.path if file.path.is_dir() else file.name, file.format)
    if found in NOT_PLAIN_TEXT and not file.name.lower().endswith((".json", ".json.gz")):
        names = ", ".join(map(repr, names_of(file))) or "none (its first line is blank)"
        kind = "dataset folder" if found == "dataset" else f"{NOT_PLAIN_TEXT[found]} file"
        raise DataError(
            f"{file.name} is a {kind}: say with --column which column holds the text; it has "
            f"{names}"
        )
