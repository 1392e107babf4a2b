"""Finding files: one, those of a folder, and what can be read only once."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, TextIO

from anaphora.data.encodings import open_text, uncompressed_name
from anaphora.data.errors import DataError
from anaphora.data.formats import format_of

__all__ = [
    "SourceFile",
    "find_files",
    "matching_files",
    "opened",
    "refuse_lone_returns",
    "remove",
]


@dataclass(frozen=True)
class SourceFile:
    """A file, its name in messages, its encoding, and its format if given; or a part of it, which
    lies between two of its bytes, after line ends.

    >>> from anaphora.data import Source
    >>> Source([SourceFile(Path("downloads/tmp8472.txt"), name="Moby-Dick")])
    Source(Moby-Dick)
    """

    path: Path
    name: str
    encoding: str = "utf-8"
    format: str | None = None
    span: tuple[int, int] | None = None


def find_files(
    path: str | os.PathLike[str], pattern: str, spooled: list[Path]
) -> list[tuple[Path, str]]:
    """Return the files that `path` denotes, and their names; add copies of pipes to `spooled`."""
    if os.fspath(path) == "-":
        if sys.stdin is None:
            raise DataError("standard input is closed; name a file, or pipe a text into it")
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
    matching, contents = matching_files(folder, pattern, recursive=True)
    if not matching and format_of(folder) == "dataset":
        return [(folder, str(folder))]
    if not matching:
        raise DataError(
            f"no file in the folder {folder} or below it has a name that matches {pattern!r} "
            f"({contents}); rename the files or, for a language model, give another --pattern, "
            "such as --pattern '*.md'"
        )
    nonempty = [path for path in matching if path.stat().st_size > 0]
    if not nonempty:
        raise DataError(
            f"every file in the folder {folder} that matches {pattern!r} is empty: "
            "there is nothing to read"
        )
    return [(path, str(path)) for path in nonempty]


def matching_files(folder: Path, pattern: str, *, recursive: bool) -> tuple[list[Path], str]:
    """The files of a folder that match a pattern, with or without a final ``.gz``, sorted by path.

    Files whose names, or whose folders' names, begin with a dot are skipped: systems and editors
    keep their own files there.

    Args:
        folder: The folder.
        pattern: A shell pattern.
        recursive: Whether files in subfolders are included.

    Returns:
        The files, and what the folder contains, for a message.

    Raises:
        DataError: a file is there both compressed and uncompressed.
    """
    files = sorted(path for path in folder.glob("**/*" if recursive else "*") if path.is_file())
    visible = [path for path in files if not _hidden(path, folder)]
    contents = (
        f"files there: {len(visible):,}, first {visible[0].name}" if visible else "it is empty"
    )
    if hidden := len(files) - len(visible):
        contents += f", not counting {hidden:,} whose names or folders begin with a dot"
    matching = [
        path
        for path in visible
        if fnmatch(path.name, pattern) or fnmatch(uncompressed_name(path.name), pattern)
    ]
    names = set(matching)
    for path in matching:
        other = Path(uncompressed_name(path))
        if other != path and other in names:
            raise DataError(f"{folder} has both {other.name} and {path.name}; remove one of them")
    return matching, contents


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _spool(stream: BinaryIO, name: str, spooled: list[Path]) -> tuple[Path, str]:
    """Copy a stream, which can be read only once, to a temporary file."""
    with tempfile.NamedTemporaryFile(prefix="anaphora-", suffix=".txt", delete=False) as file:
        path = Path(file.name)
        spooled.append(path)
        shutil.copyfileobj(stream, file)
    if path.stat().st_size == 0:
        raise DataError(f"{name} is empty: there is nothing to read")
    return path, name


def remove(paths: Iterable[Path]) -> None:
    """Delete the files that still exist."""
    for path in paths:
        path.unlink(missing_ok=True)


def refuse_lone_returns(stream: TextIO, name: str) -> None:
    """Refuse a text, once read, in which some lines end with a carriage return alone."""
    if isinstance(stream.newlines, tuple) and "\r" in stream.newlines:
        raise DataError(
            f"{name} has carriage returns (\\r) within lines, because its line ends are of another "
            "kind; remove them: tr -d '\\r'"
        )


def opened(file: SourceFile) -> AbstractContextManager[TextIO]:
    """The text of a file."""
    return open_text(file.path, file.name, file.encoding, file.span)
