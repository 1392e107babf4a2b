"""Memory that the processes of one machine share."""

from __future__ import annotations

import mmap
import os
import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.distributed.processes import Processes

__all__ = ["shared_memory"]


def shared_memory(processes: Processes, size: int) -> NDArray[Any] | None:
    """The same memory in all processes, zero at first; all of them call this.

    It has no name and is in no directory: the kernel frees it when the last process ends, however
    it ends, and the size of ``/dev/shm`` does not limit it.

    Args:
        processes: The processes.
        size: In bytes, > 0.

    Returns:
        [size] uint8; or None on all, where they are not all on one machine (and in one container)
        that allows it. Only Linux does.

    >>> from anaphora.distributed import ALONE
    >>> shared_memory(ALONE, 3)
    array([0, 0, 0], dtype=uint8)
    """
    memory: mmap.mmap | None = None
    file: int | None = None
    name = f"anaphora-{secrets.token_hex(16)}"
    try:
        if processes.is_main:
            file, memory = _created(name, size)
        path, name = processes.broadcast((f"/proc/{os.getpid()}/fd/{file}", name))
        if not processes.is_main:
            memory = _opened(path, name, size)
        # It also keeps rank 0's file open until the others have opened it.
        everywhere = all(processes.all_gather(memory is not None))
    finally:
        if file is not None:
            os.close(file)
    return np.frombuffer(memory, np.uint8) if everywhere and memory is not None else None


def _created(name: str, size: int) -> tuple[int | None, mmap.mmap | None]:
    """A file in memory, and its memory; None for what cannot be had."""
    file: int | None = None
    try:
        file = os.memfd_create(name)
        os.ftruncate(file, size)
        return file, mmap.mmap(file, size)
    except (AttributeError, OSError, OverflowError, ValueError):
        return file, None


def _opened(path: str, name: str, size: int) -> mmap.mmap | None:
    """The memory of another process's file; None if it is not to be seen from here."""
    try:
        # In another container or on another machine the path may be of any file.
        if os.readlink(path) != f"/memfd:{name} (deleted)":
            return None
        file = os.open(path, os.O_RDWR)
        try:
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except (OSError, OverflowError, ValueError):
        return None
