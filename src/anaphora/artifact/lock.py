"""The lock of a model directory: one training at a time, and none once its process has ended."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import sys
import time
import warnings
import weakref
from pathlib import Path

from anaphora.artifact.folder import Folder

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK_FILE = ".lock"

_BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK, errno.EWOULDBLOCK}
_UNSUPPORTED = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_BYTE = 1 << 30  # the one that Windows locks: far from the text, which others are to read
_TEXT_SIZE = 512  # always as long, so that one write replaces the text of another holder
_HOST = re.compile(r"[\w.:-]{1,255}")
_TIME = re.compile(r"[\d :-]{1,32} UTC")


class Held(Exception):  # noqa: N818 - it names what happened
    """Another holds the lock; the message says who, as far as that is known."""


class Lock:
    """The exclusive lock of a folder, which the system drops when the holder's process ends.

    The system's lock of an open file (``flock``) is what counts; the file ``.lock`` is only there
    to be locked, and says who holds it. So a file that a killed process or a copy of the folder
    left behind locks nothing. A forked child holds nothing, nor does it keep the lock from being
    released.

    Over NFS, Linux passes the lock on to the server (kernel 2.6.12 and later), so that it holds
    between machines, unless the mount says ``nolock`` or ``local_lock``. Where a file system has
    no locks a warning says so, and nothing is held.

    Args:
        folder: Which one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock, other = Lock(Path(folder)), Lock(Path(folder))
    ...     lock.acquire()
    ...     try:
    ...         other.acquire()
    ...     except Held as error:
    ...         print(error)
    ...     lock.release()
    ...     other.acquire()
    ...     print(other.held)
    ...     other.release()
    this process, process ... on ..., since ... UTC
    True
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.abspath(folder))  # the working directory may change
        self._open = _OpenFile(self._folder)
        weakref.finalize(self, self._open.release)

    @property
    def held(self) -> bool:
        """Whether this object holds it, in this process."""
        return self._open.descriptor is not None

    def acquire(self) -> None:
        """Take the lock, at once or not at all.

        Raises:
            Held: another has it.
            OSError: the folder is missing or cannot be written.
        """
        while not self.held:
            with Folder(self._folder) as folder:
                descriptor = folder.open(LOCK_FILE, os.O_RDWR | os.O_CREAT)
                try:
                    if not _try_to_lock(descriptor, self._folder):
                        raise Held(_holder(descriptor))
                    entry = folder.status(LOCK_FILE)
                    # The holder of before may have removed the file after it was opened here.
                    if entry is not None and os.path.samestat(entry, os.fstat(descriptor)):
                        _write(descriptor)
                        self._open.keep(descriptor)
                finally:
                    if not self.held:
                        os.close(descriptor)

    def release(self) -> None:
        """Let others have it, if this object holds it; the file goes too."""
        self._open.release()


class _OpenFile:
    """The open file of a `Lock` that is held; apart from it, so as to be closed after its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptor: int | None = None

    def keep(self, descriptor: int) -> None:
        self.descriptor = descriptor
        _open_files.add(self)

    def release(self) -> None:
        if self.descriptor is None:
            return
        # Before it is unlocked, or it would be another's file that goes.
        with contextlib.suppress(OSError), Folder(self.folder) as folder:
            entry = folder.status(LOCK_FILE)
            if entry is not None and os.path.samestat(entry, os.fstat(self.descriptor)):
                folder.remove(LOCK_FILE)
        self.drop()

    def drop(self) -> None:
        """Close the file; that unlocks it, unless a parent process has it open too."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None
        _open_files.discard(self)


_open_files: set[_OpenFile] = set()


def _drop_in_child() -> None:
    for file in list(_open_files):
        file.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)


def _try_to_lock(descriptor: int, folder: Path) -> bool:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(
            f"{folder}: the file system has no locks ({error.strerror}), so nothing keeps a second "
            "training out of this directory; see to it that one runs at a time",
            RuntimeWarning,
            stacklevel=2,
        )
    return True


def _write(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    text = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since})
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text.encode().ljust(_TEXT_SIZE - 1) + b"\n")


def _holder(descriptor: int) -> str:
    """Who holds the lock, by the file; it is another's, so its text is checked."""
    for wait in (0.01, 0.1, 0):
        os.lseek(descriptor, 0, os.SEEK_SET)
        text = os.read(descriptor, _TEXT_SIZE)
        if text:
            break
        time.sleep(wait)  # the holder has locked it, and is about to write
    try:
        values = json.loads(text)
        process, host, since = (values[name] for name in ("process", "host", "since"))
        known = _HOST.fullmatch(host) and _TIME.fullmatch(since) and isinstance(process, int)
    except (ValueError, TypeError, KeyError, RecursionError):
        known = False
    if not known:
        return "another process"
    ours = process == os.getpid() and host == socket.gethostname()
    return f"{'this process, ' if ours else ''}process {process} on {host}, since {since}"
