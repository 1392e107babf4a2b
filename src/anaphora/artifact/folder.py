"""An open folder, whose entries are accessed by name and never through symbolic links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

Opener = Callable[[str, int], int]

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
# Opening a pipe must not block; on Windows files are opened in binary mode.
_FILE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_HAS_DESCRIPTORS = bool(_NO_FOLLOW) and {
    os.open, os.stat, os.mkdir, os.unlink, os.rename
} <= os.supports_dir_fd  # fmt: skip


class Folder:
    """An open folder, whose entries are accessed by name and never through symbolic links.

    The path itself may contain links. Without folder descriptors (on Windows) entries are checked
    before they are opened. Opening a link, or anything but a regular file, raises an ``OSError``
    with the reason.

    Args:
        path: The folder.

    Attributes:
        path: The folder, for messages.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path, Folder(Path(path)) as folder:
    ...     os.symlink("elsewhere", Path(path, "config.json"))
    ...     folder.open("config.json", os.O_RDONLY)
    Traceback (most recent call last):
        ...
    OSError: [Errno ...] config.json is a symbolic link
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, _FOLDER) if _HAS_DESCRIPTORS else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @classmethod
    @contextlib.contextmanager
    def within(cls, root: Path, path: Path) -> Iterator[Folder]:
        """Open ``path``, ``root`` or a folder in it, without following links within ``root``."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(cls(root))
            for name in path.relative_to(root).parts:
                folder = stack.enter_context(folder._below(name))
            yield folder

    def _below(self, name: str) -> Folder:
        self._refuse_link(name)
        below = object.__new__(Folder)
        below.path = self.path / name
        below._descriptor = None
        if self._descriptor is not None:
            below._descriptor = os.open(name, _FOLDER | _NO_FOLLOW, dir_fd=self._descriptor)
        return below

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        """Open a regular file, as `os.open`; also an ``opener`` for ``open``."""
        self._refuse_link(name)
        entry = self.status(name)
        if entry is not None and not stat.S_ISREG(entry.st_mode):
            raise _refusal(name, "is not a regular file")
        flags |= _FILE | _NO_FOLLOW
        descriptor = os.open(self._name(name), flags, mode, dir_fd=self._descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _refusal(name, "is not a regular file")
        return descriptor

    def status(self, name: str) -> os.stat_result | None:
        """The status of the entry itself, as from `os.stat`; None if it does not exist."""
        try:
            return os.stat(self._name(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """The names of all entries."""
        return os.listdir(self.path if self._descriptor is None else self._descriptor)

    def make_folder(self, name: str) -> None:
        """Create a folder, unless it exists; a link of that name is refused."""
        self._refuse_link(name)
        try:
            os.mkdir(self._name(name), dir_fd=self._descriptor)
        except FileExistsError:
            self._below(name).__exit__()

    def remove(self, name: str) -> None:
        """Remove a file or a link (not its target), if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name(name), dir_fd=self._descriptor)

    def remove_link(self, name: str) -> None:
        """Remove a link (not its target); keep anything else."""
        if self._is_link(name):
            self.remove(name)

    def replace(self, name: str, new_name: str) -> None:
        """Rename a file, replacing an existing file or link."""
        os.replace(
            self._name(name),
            self._name(new_name),
            src_dir_fd=self._descriptor,
            dst_dir_fd=self._descriptor,
        )

    def flush(self) -> None:
        """Make renames within the folder durable, if the system supports it."""
        if self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot flush a folder
                raise

    def _name(self, name: str) -> str:
        return name if self._descriptor is not None else str(self.path / name)

    def _is_link(self, name: str) -> bool:
        status = self.status(name)
        if status is None:
            return False
        # Windows also has junctions, which Python does not regard as links.
        junction = getattr(status, "st_reparse_tag", 0) == getattr(
            stat, "IO_REPARSE_TAG_MOUNT_POINT", -1
        )
        return stat.S_ISLNK(status.st_mode) or junction

    def _refuse_link(self, name: str) -> None:
        if self._is_link(name):
            raise _refusal(name, "is a symbolic link")


def opener_within(root: Path) -> Opener:
    """An opener for ``open`` that follows no links within ``root`` and opens regular files only.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text("{}")
    ...     with open(Path(folder, "config.json"), opener=opener_within(Path(folder))) as file:
    ...         file.read()
    '{}'
    """

    def opener(path: str, flags: int) -> int:
        with Folder.within(root, Path(path).parent) as folder:
            return folder.open(os.path.basename(path), flags)

    return opener


def _refusal(name: str, problem: str) -> OSError:
    return OSError(errno.ELOOP, f"{name} {problem}")
