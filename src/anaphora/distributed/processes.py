"""The processes that work together: their ranks, and what they exchange."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALONE", "Processes", "ProcessesDiffer", "launched_size", "world"]

Value = TypeVar("Value")


class ProcessesDiffer(ValueError):  # noqa: N818 - it names what is wrong
    """Processes that should do the same differ; the message says in what.

    >>> issubclass(ProcessesDiffer, ValueError)
    True
    """


class Processes:
    """The processes that work together. This class is one process alone; `world` returns as many
    as were started together, by ``mpiexec`` or ``srun``.

    Every method but `name`, `send`, `receive` and `abort` is collective: all processes call it, in
    the same order. A process that waits sleeps, and so leaves its core to the others.

    Attributes:
        rank: The number of this process, from 0.
        size: How many there are.

    >>> ALONE.rank, ALONE.size, ALONE.is_main
    (0, 1, True)
    """

    rank = 0
    size = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes and prints."""
        return self.rank == 0

    def name(self, rank: int | None = None) -> str:
        """The name of a rank in messages, this process by default: its number and its host.

        >>> ALONE.name().startswith("rank 0 on ")
        True
        """
        return f"rank {self.rank if rank is None else rank} on {socket.gethostname()}"

    def split(self) -> Processes:
        """The same processes with messages of their own, for another thread.

        >>> ALONE.split() is ALONE
        True
        """
        return self

    def free(self) -> None:
        """Free what `split` made, when all are done with it."""

    def broadcast(self, value: Value, root: int = 0) -> Value:
        """The value of rank `root`, on all.

        >>> ALONE.broadcast("value")
        'value'
        """
        return value

    def all_gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order, on all.

        >>> ALONE.all_gather("value")
        ['value']
        """
        return [value]

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order, on rank 0; an empty list elsewhere.

        >>> ALONE.gather("value")
        ['value']
        """
        return [value]

    def all_gather_numbers(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The arrays of all ranks, of one shape and dtype, stacked: [size, ...].

        >>> ALONE.all_gather_numbers(np.array([1.0, 2.0]))
        array([[1., 2.]])
        """
        return np.array(numbers)[np.newaxis]

    def sum_in_order(self, numbers: NDArray[Any]) -> None:
        """Replace an array [N] by its sum over all ranks, in the order of `TreeSum`, on all.

        Each rank adds a part of the array and sends it to the others.

        >>> numbers = np.array([1.0, 2.0])
        >>> ALONE.sum_in_order(numbers)
        >>> numbers
        array([1., 2.])
        """

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def send(self, value: Any, rank: int) -> None:
        """Send a value to a rank, which must receive it.

        Raises:
            ValueError: there is no such other rank.
        """
        raise ValueError(f"send: there is no rank {rank} besides this one, of {self.size}")

    def receive(self, rank: int) -> Any:
        """Wait for a value from a rank.

        Raises:
            ValueError: there is no such other rank.
        """
        raise ValueError(f"receive: there is no rank {rank} besides this one, of {self.size}")

    def farewell(self, value: Value, seconds: float | None = None) -> list[Value] | None:
        """The values of all ranks as they end, whatever else they wait for; None if some have not
        come after `seconds`.

        >>> ALONE.farewell("done")
        ['done']
        """
        return [value]

    def abort(self, code: int = 1) -> None:
        """End all processes at once, after an error that the others do not know of.

        It returns where there is only one process, which may end as usual.
        """

    def check_alike(
        self,
        own: Mapping[str, str],
        advice: str = "start all with the same options, files and versions",
    ) -> None:
        """Check that values, by name, are the same in all processes.

        Args:
            own: The values of this process.
            advice: The end of the message.

        Raises:
            ProcessesDiffer: one is not; the message names it, two ranks and their values.

        >>> ALONE.check_alike({"version": "1.0"})
        """
        gathered = self.all_gather(dict(own))
        for name in dict.fromkeys(name for one in gathered for name in one):
            values = [one.get(name, "none") for one in gathered]
            for rank, value in enumerate(values):
                if value != values[0]:
                    raise ProcessesDiffer(
                        f"the processes differ in {name}: {self.name(0)} has {values[0]}, "
                        f"{self.name(rank)} has {value}; {advice}"
                    )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block in which no process may fail alone: if any does, all raise the error of the first
        rank that failed, named by its rank.

        >>> with ALONE.together():
        ...     pass
        """
        if self.size == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as failure:
            error = failure
        self.raise_first(error)

    def raise_first(self, error: Exception | None) -> None:
        """Raise the first error that any process has, on all; nothing if none has one."""
        if self.size == 1:
            if error is not None:
                raise error
            return
        errors = self.all_gather(_portable(error, self))
        first = next((rank for rank, one in enumerate(errors) if one is not None), None)
        if first is None:
            return
        if error is not None and first == self.rank == 0:
            raise error
        raise pickle.loads(errors[first] or b"") from error


def _portable(error: Exception | None, processes: Processes) -> bytes | None:
    """An error as bytes, with the name of its rank in the message, unless it is rank 0."""
    if error is None:
        return None
    copied: Exception = error
    if not processes.is_main:
        name = processes.name()
        with contextlib.suppress(Exception):
            if isinstance(error, OSError) and error.filename is not None:
                where = f"{name}: {os.fsdecode(error.filename)}"
                copied = type(error)(error.errno, error.strerror, where)
            elif error.args and isinstance(error.args[0], str):
                copied = type(error)(f"{name}: {error.args[0]}", *error.args[1:])
    try:
        data = pickle.dumps(copied)
        pickle.loads(data)
    except Exception:
        data = pickle.dumps(RuntimeError(f"{processes.name()}: {type(error).__name__}: {error}"))
    return data


_STARTED = "ANAPHORA_STARTED_BY_MPI"  # the PID of the process that a launcher started

ALONE = Processes()
"""One process alone."""


@functools.cache
def world() -> Processes:
    """All processes that were started together, by ``mpiexec`` or ``srun``; `ALONE` if none were.

    A process that one of them starts, such as a worker of joblib, inherits the environment of the
    launcher, but is alone.

    Raises:
        ImportError: several were started, but mpi4py is not installed.
        RuntimeError: they do not find each other: mpi4py uses another MPI than the launcher.

    >>> world() is ALONE
    True
    """
    size = launched_size(os.environ)
    if size == 1 or os.environ.setdefault(_STARTED, str(os.getpid())) != str(os.getpid()):
        return ALONE
    try:
        from anaphora.distributed.mpi import MPIProcesses
    except ImportError as error:
        raise ImportError(
            f"{size} processes were started together, which needs an extra: "
            f'pip install "anaphora[mpi]" ({error}); or start one process, without mpiexec or srun'
        ) from error
    return MPIProcesses(size)


def launched_rank(environment: Mapping[str, str]) -> int:
    """The rank that the launcher gave this process; 0 without a launcher.

    >>> launched_rank({"PMI_RANK": "3"})
    3
    """
    names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK")
    return next((int(r) for name in names if (r := environment.get(name, "")).isdigit()), 0)


def launched_size(environment: Mapping[str, str]) -> int:
    """How many processes the launcher started, by its environment variables; 1 without a launcher.

    Known are MPICH's and Intel's ``mpiexec`` and Slurm's PMI-2 (``PMI_SIZE``), Open MPI's
    (``OMPI_COMM_WORLD_SIZE``), MVAPICH's, and ``srun --mpi=pmix`` (``SLURM_STEP_NUM_TASKS``). The
    tasks of an ``srun`` without MPI are independent of each other.

    >>> launched_size({"PMI_SIZE": "4"}), launched_size({"SLURM_STEP_NUM_TASKS": "4"})
    (4, 1)
    >>> launched_size({"SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "0"})
    4
    """
    names = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"]
    if "PMIX_RANK" in environment:
        names.append("SLURM_STEP_NUM_TASKS")
    given = [environment[name] for name in names if environment.get(name, "").isdigit()]
    return max([1, *map(int, given)])
