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
    """A file, the name under which messages speak of it, its encoding, and its format if named.

    >>> from anaphora.data import Source
    >>> Source([SourceFile(Path("downloads/tmp8472.txt"), name="Moby-Dick")])
    Source(Moby-Dick)
    """

    path: Path
    name: str
    encoding: str = "utf-8"
    format: str | None = None


def find_files(
    path: str | os.PathLike[str], pattern: str, spooled: list[Path]
) -> list[tuple[Path, str]]:
    """Return the files that `path` means, and their names; add those copied from a pipe to
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
    if not matching and format_of(folder) == "dataset":
        return [(folder, str(folder))]
    if not matching:
        raise DataError(
            f"no file in the folder {folder} or below has a name that matches {pattern!r} "
            f"({holds}); expected such names, or for a language model another --pattern, for "
            "example --pattern '*.md'"
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

    What has a name that begins with a dot, or lies in a folder that has, is skipped: systems and
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
    seen = [path for path in files if not _hidden(path, folder)]
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


def _hidden(path: Path, folder: Path) -> bool:
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


def remove(paths: Iterable[Path]) -> None:
    """Delete files, those that are still there."""
    for path in paths:
        path.unlink(missing_ok=True)


def refuse_lone_returns(stream: TextIO, name: str) -> None:
    """Refuse a text that was read if some of its lines end with a carriage return alone."""
    if isinstance(stream.newlines, tuple) and "\r" in stream.newlines:
        raise DataError(
            f"{name} has carriage returns (\\r) that end no line, as its lines end "
            "differently; remove them: tr -d '\\r'"
        )


def opened(file: SourceFile) -> AbstractContextManager[TextIO]:
    """The text of a file."""
    return open_text(file.path, file.name, file.encoding)
