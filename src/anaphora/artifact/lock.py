"""The lock of a model directory: one training run at a time, released when its process ends."""

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
_BYTE = 1 << 30  # locked on Windows: far from the text, which must stay readable
_TEXT_SIZE = 512  # fixed, so that one write replaces the previous holder's text
_HOST = re.compile(r"[\w.:-]{1,255}")
_TIME = re.compile(r"[\d :-]{1,32} UTC")


class Held(Exception):  # noqa: N818 - it names what happened
    """The lock is held by another; the message says by whom, if known."""


class Lock:
    """The exclusive lock of a folder, which the system releases when the holder's process ends.

    The lock is the system's lock of the open file ``.lock`` (``flock``), which also says who holds
    it. A file left by a killed process or copied with the folder therefore locks nothing. A forked
    child does not hold the lock, nor prevent its release.

    Over NFS, Linux forwards the lock to the server (kernel 2.6.12 and later), so it works between
    machines, unless mounted with ``nolock`` or ``local_lock``. On file systems without locks a
    warning is issued, and nothing is locked.

    Args:
        folder: The folder.

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
        """Whether this object holds the lock, in this process."""
        return self._open.descriptor is not None

    def acquire(self) -> None:
        """Acquire the lock, without waiting.

        Raises:
            Held: another holds it.
            OSError: the folder is missing or cannot be written.
        """
        while not self.held:
            with Folder(self._folder) as folder:
                descriptor = folder.open(LOCK_FILE, os.O_RDWR | os.O_CREAT)
                try:
                    if not _try_to_lock(descriptor, self._folder):
                        raise Held(_holder(descriptor))
                    entry = folder.status(LOCK_FILE)
                    # The previous holder may have removed the file after it was opened here.
                    if entry is not None and os.path.samestat(entry, os.fstat(descriptor)):
                        _write(descriptor)
                        self._open.keep(descriptor)
                finally:
                    if not self.held:
                        os.close(descriptor)

    def release(self) -> None:
        """Release the lock and remove the file, if this object holds it."""
        self._open.release()


class _OpenFile:
    """The open file of a held `Lock`; separate, so that a finalizer can close it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptor: int | None = None

    def keep(self, descriptor: int) -> None:
        self.descriptor = descriptor
        _open_files.add(self)

    def release(self) -> None:
        if self.descriptor is None:
            return
        # Before it is unlocked, since afterwards the file may be another holder's.
        with contextlib.suppress(OSError), Folder(self.folder) as folder:
            entry = folder.status(LOCK_FILE)
            if entry is not None and os.path.samestat(entry, os.fstat(self.descriptor)):
                folder.remove(LOCK_FILE)
        self.drop()

    def drop(self) -> None:
        """Close the file, which unlocks it unless a parent process has it open too."""
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
            f"{folder}: the file system has no locks ({error.strerror}), so nothing prevents a "
            "second training run in this directory; make sure that only one runs at a time",
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
    """Who holds the lock, according to the file; its text is untrusted, so it is checked."""
    for wait in (0.01, 0.1, 0):
        os.lseek(descriptor, 0, os.SEEK_SET)
        text = os.read(descriptor, _TEXT_SIZE)
        if text:
            break
        time.sleep(wait)  # the holder has locked it and is about to write
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
