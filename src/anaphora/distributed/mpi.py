"""Processes that were started together by MPI; the one file that imports mpi4py."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import re
import stat
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from anaphora.distributed.processes import Processes
from anaphora.distributed.sums import add_arrays, tree_sum

__all__ = ["MPIProcesses"]

Value = TypeVar("Value")
Bytes = NDArray[np.uint8]

_YIELDS = 100  # of a process that waits, before it sleeps: it may wait long
_SLEEP, _LONG_SLEEP = 50e-6, 1e-3  # seconds
_SLEEPS = 1000  # before the long ones: what others do takes a while
_SECONDS_TO_READ = 2.0  # what a process that ends all of them wrote

_MESSAGE, _EXCHANGE = 0, 1  # tags


class MPIProcesses(Processes):
    """All processes of an MPI job. An exception that nothing catches ends all of them.

    Values travel as pickles and arrays as their bytes: MPI computes nothing, so that no result
    depends on its implementation. Calls do not block but poll, so that signals are handled.

    Args:
        launched: How many processes the launcher started.

    Raises:
        RuntimeError: MPI knows another number.
    """

    def __init__(self, launched: int) -> None:
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise RuntimeError(
                "gradients travel in a second thread, but this MPI is not for threads: it provides "
                "less than MPI_THREAD_SERIALIZED"
            )
        self._communicator = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self._communicator.rank, self._communicator.size
        if self.size != launched:
            library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
            raise RuntimeError(
                f"{launched} processes were started together, but MPI finds {self.size}: mpi4py "
                f"uses {library}, which is not the MPI of the launcher; start them with the "
                "mpiexec of that library, or install mpi4py for the launcher's"
            )
        self._farewell = MPI.COMM_WORLD.Dup()
        self._hosts: list[str] = self.all_gather(MPI.Get_processor_name())
        _unlink_segments()  # which all have mapped, now that all have sent their hosts
        self._hook, sys.excepthook = sys.excepthook, self._end_all

    def name(self, rank: int | None = None) -> str:
        rank = self.rank if rank is None else rank
        return f"rank {rank} on {self._hosts[rank]}"

    def split(self) -> MPIProcesses:
        """The same processes with messages of their own, for another thread."""
        other = object.__new__(MPIProcesses)
        other.__dict__.update(self.__dict__)
        other._communicator = self._communicator.Dup()
        return other

    def free(self) -> None:
        self._communicator.Free()

    def broadcast(self, value: Value, root: int = 0) -> Value:
        data = _pickled(value) if self.rank == root else np.empty(0, np.uint8)
        length = np.array([len(data)])
        _wait(self._communicator.Ibcast(length, root))
        if self.rank != root:
            data = np.empty(length[0], np.uint8)
        _wait(self._communicator.Ibcast([data, MPI.BYTE], root))
        return value if self.rank == root else pickle.loads(data.data)

    def all_gather(self, value: Value) -> list[Value]:
        data = _pickled(value)
        lengths = self.all_gather_numbers(np.array([len(data)]))[:, 0]
        received = [np.empty(length, np.uint8) for length in lengths]
        received[self.rank] = data
        self._exchange([data] * self.size, received)
        return [pickle.loads(one.data) for one in received]

    def gather(self, value: Value) -> list[Value]:
        data = _pickled(value)
        lengths = self.all_gather_numbers(np.array([len(data)]))[:, 0]
        received = np.empty(lengths.sum() if self.is_main else 0, np.uint8)
        _wait(self._communicator.Igatherv([data, MPI.BYTE], [received, lengths, MPI.BYTE]))
        return _unpickled(received, lengths) if self.is_main else []

    def all_gather_numbers(self, numbers: NDArray[Any]) -> NDArray[Any]:
        numbers = np.ascontiguousarray(numbers)
        received = np.empty((self.size, *numbers.shape), numbers.dtype)
        _wait(
            self._communicator.Iallgather(
                [numbers.view(np.uint8), MPI.BYTE], [received.view(np.uint8), MPI.BYTE]
            )
        )
        return received

    def sum_in_order(self, numbers: NDArray[Any]) -> None:
        sizes = np.full(self.size, len(numbers) // self.size)
        sizes[: len(numbers) % self.size] += 1
        parts = np.split(numbers, np.cumsum(sizes)[:-1])
        of_ranks = np.empty((self.size, sizes[self.rank]), numbers.dtype)
        of_ranks[self.rank] = parts[self.rank]
        self._exchange(parts, list(of_ranks))
        parts[self.rank][:] = tree_sum(of_ranks, add_arrays)
        self._exchange([parts[self.rank]] * self.size, parts)

    def _exchange(self, sent: Sequence[NDArray[Any]], received: Sequence[NDArray[Any]]) -> None:
        """Send an array to each other rank, and receive one from each.

        Between processes of one machine, messages are copied once, and pieces of a collective call
        through a buffer: that took ten times as long with MPICH.
        """
        others = [(self.rank + k) % self.size for k in range(1, self.size)]
        requests = [
            self._communicator.Irecv([received[rank], MPI.BYTE], rank, _EXCHANGE) for rank in others
        ]
        requests += [
            self._communicator.Isend([sent[rank], MPI.BYTE], rank, _EXCHANGE) for rank in others
        ]
        _wait(*requests)

    def barrier(self) -> None:
        _wait(self._communicator.Ibarrier())

    def send(self, value: Any, rank: int) -> None:
        self._check_other("send", rank)
        _wait(self._communicator.Isend([_pickled(value), MPI.BYTE], rank, _MESSAGE))

    def receive(self, rank: int) -> Any:
        self._check_other("receive", rank)
        status = MPI.Status()
        pause = _Pause()
        while (message := self._communicator.Improbe(rank, _MESSAGE, status)) is None:
            pause()
        data = np.empty(status.Get_count(MPI.BYTE), np.uint8)
        _wait(message.Irecv([data, MPI.BYTE]))
        return pickle.loads(data.data)

    def _check_other(self, owner: str, rank: int) -> None:
        if rank == self.rank or not 0 <= rank < self.size:
            raise ValueError(f"{owner}: there is no rank {rank} besides this one, of {self.size}")

    def farewell(self, value: Value, seconds: float | None = None) -> list[Value] | None:
        data = _pickled(value)
        lengths = np.empty(self.size, np.int64)
        request = self._farewell.Iallgather(np.array([len(data)]), lengths)
        end = time.monotonic() + (math.inf if seconds is None else seconds)
        pause = _Pause()
        while not request.Test():
            if time.monotonic() > end:
                return None
            pause()
        received = np.empty(lengths.sum(), np.uint8)
        _wait(self._farewell.Iallgatherv([data, MPI.BYTE], [received, lengths, MPI.BYTE]))
        return _unpickled(received, lengths)

    def abort(self, code: int = 1) -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):  # closed at either end
                    stream.flush()
        for descriptor in (1, 2):
            _wait_until_read(descriptor)
        MPI.COMM_WORLD.Abort(code)

    def _end_all(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Print an exception that nothing caught, with the rank before each line; end all."""
        lines = "".join(traceback.format_exception(kind, error, trace)).splitlines()
        print(
            "\n".join(f"{self.name()}: {line}" for line in lines), file=sys.__stderr__, flush=True
        )
        self.abort(1)


class _Pause:
    """Waits a little: at first only lets other threads and processes run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        if self._count <= _YIELDS:
            time.sleep(0)  # lets other threads of this process run
            _yield_core()
        else:
            time.sleep(_SLEEP if self._count <= _YIELDS + _SLEEPS else _LONG_SLEEP)


_yield_core = getattr(os, "sched_yield", lambda: None)


def _unlink_segments() -> None:
    """Remove the names of MPICH's own shared memory, whose files would outlive a killed process."""
    try:
        mapped = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:  # there are none to see, as on macOS
        return
    for path in set(re.findall(r"/dev/shm/mpich_shm_\w+$", mapped, re.MULTILINE)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _wait_until_read(descriptor: int) -> None:
    """Wait for the reader of a pipe: MPICH's launcher leaves unread what precedes an abort."""
    end = time.monotonic() + _SECONDS_TO_READ
    pause = _Pause()
    while _unread(descriptor) and time.monotonic() < end:
        pause()


if sys.platform == "win32":

    def _unread(descriptor: int) -> int:
        return 0

else:
    import fcntl
    import termios

    def _unread(descriptor: int) -> int:
        """How many bytes wait in a pipe; 0 where that is not known."""
        try:
            if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                return 0
            count = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(count, sys.byteorder)


def _wait(*requests: MPI.Request) -> None:
    pause = _Pause()
    while not MPI.Request.Testall(requests):
        pause()


def _pickled(value: Any) -> Bytes:
    return np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8)


def _unpickled(data: Bytes, lengths: NDArray[Any]) -> list[Any]:
    return [pickle.loads(part.data) for part in np.split(data, np.cumsum(lengths)[:-1])]
