"""How processes add their gradients: by messages, or in memory that they share."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from anaphora import settings
from anaphora.distributed import Processes
from anaphora.distributed.memory import shared_memory
from anaphora.distributed.sums import add_arrays, sum_into, tree_sum
from anaphora.tensor import Array, Gradient, Parameter, RowGradient

_BUCKET_BYTES = 1 << 18  # gradients that travel together: below, latency costs more than it hides
_ALIGNMENT = 64  # bytes
_BLOCK = 1 << 16  # elements that are added at a time, so that sums of sums stay in the cache

_ABSENT, _DENSE = -2, -1  # kinds of gradients; the others are numbers of rows


class Exchange(Protocol):
    """Adds the gradients of all processes, in the order of `TreeSum`."""

    def give(self, k: int, gradient: Gradient | None) -> None:
        """Take the gradient of parameter k of this process, which is not changed."""

    def totals(self) -> list[Gradient | None]:
        """The sums over all processes, when all gradients are given; it starts anew."""

    def close(self, failed: bool) -> None:
        """Free what it holds; after an error others may still wait."""


def exchange_of(parameters: Sequence[Parameter], processes: Processes) -> Exchange:
    """The fastest exchange that these processes have; all of them call this.

    >>> from anaphora.distributed import ALONE
    >>> type(exchange_of([], ALONE)).__name__
    'Alone'
    """
    if processes.size == 1:
        return Alone(parameters)
    memory = None
    if all(processes.all_gather(settings.may_share_memory())):
        memory = shared_memory(processes, Memory.size(parameters, processes.size))
    if memory is None:
        return Messages(parameters, processes)
    return Memory(parameters, processes, memory)


class Alone:
    """The exchange of one process.

    >>> exchange = Alone([Parameter([1.0])])
    >>> exchange.give(0, np.array([2.0]))
    >>> exchange.totals()
    [array([2.])]
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._given: list[Gradient | None] = [None] * len(parameters)

    def give(self, k: int, gradient: Gradient | None) -> None:
        """As `Exchange.give`."""
        self._given[k] = gradient

    def totals(self) -> list[Gradient | None]:
        """As `Exchange.totals`."""
        totals, self._given = self._given, [None] * len(self._given)
        return totals

    def close(self, failed: bool) -> None:
        """As `Exchange.close`."""


class Memory:
    """An exchange in memory that all processes share.

    Of each dense gradient every process adds a part, of the same size. It writes what the others
    add as soon as the gradient is complete; when all have, it adds its part of all processes, from
    their memory, and writes the sums for all. So nothing is copied twice, and all wait twice.

    The sums are arrays in that memory, which is why they are not writeable. They are valid until
    the `totals` of the next update.

    Args:
        parameters: The parameters.
        processes: The processes.
        memory: [size] of `shared_memory`.
    """

    def __init__(
        self, parameters: Sequence[Parameter], processes: Processes, memory: Array
    ) -> None:
        self._processes = processes
        self._given: list[Gradient | None] = [None] * len(parameters)
        starts, total = _layout(parameters)

        def arrays(place: int) -> list[Array]:
            of_place = memory[place * total : (place + 1) * total]
            return [
                of_place[start : start + p.data.nbytes].view(p.dtype)
                for start, p in zip(starts, parameters, strict=True)
            ]

        self._of_ranks = [arrays(rank) for rank in range(processes.size)]  # each [N] of a gradient
        self._sums = arrays(processes.size)
        self._results = [
            _read_only(one.reshape(p.shape)) for one, p in zip(self._sums, parameters, strict=True)
        ]
        self._own = [_part(p.size, processes, p.dtype.itemsize) for p in parameters]

    @staticmethod
    def size(parameters: Sequence[Parameter], processes: int) -> int:
        """The bytes of the memory: for the gradients of each process, and their sums.

        Of these a process writes, and so occupies, as much as one gradient takes.
        """
        return max((processes + 1) * _layout(parameters)[1], 1)

    def give(self, k: int, gradient: Gradient | None) -> None:
        """As `Exchange.give`."""
        if isinstance(gradient, np.ndarray):
            flat = np.ascontiguousarray(gradient).reshape(-1)
            own, to = self._own[k], self._of_ranks[self._processes.rank][k]
            to[: own.start], to[own.stop :] = flat[: own.start], flat[own.stop :]
        self._given[k] = gradient

    def totals(self) -> list[Gradient | None]:
        """As `Exchange.totals`."""
        given, self._given = self._given, [None] * len(self._given)
        kinds = self._processes.all_gather_numbers(np.array([_kind(g) for g in given]))
        dense = (kinds == _DENSE).all(axis=0)
        for k in np.flatnonzero(dense).tolist():
            self._add(k, given[k])
        sums = _sums_of_others(self._processes, given, kinds)
        self._processes.barrier()
        return [self._results[k] if dense[k] else total for k, total in enumerate(sums)]

    def _add(self, k: int, gradient: Any) -> None:
        """Add the part of this process of a gradient, in blocks."""
        own, rank = self._own[k], self._processes.rank
        flat = np.ascontiguousarray(gradient).reshape(-1)
        for start in range(own.start, own.stop, _BLOCK):
            block = slice(start, min(start + _BLOCK, own.stop))
            values = [of_rank[k][block] for of_rank in self._of_ranks]
            values[rank] = flat[block]
            sum_into(self._sums[k][block], values)

    def close(self, failed: bool) -> None:
        """As `Exchange.close`."""


class Messages:
    """An exchange by messages, in a second thread, while the backward pass still computes.

    Gradients travel in buckets, last layers first.

    Args:
        parameters: The parameters, first layers first.
        processes: The processes.
    """

    def __init__(self, parameters: Sequence[Parameter], processes: Processes) -> None:
        self._processes = processes.split()
        self._count = len(parameters)
        self._buckets = buckets(parameters)
        self._bucket_of = {k: b for b, bucket in enumerate(self._buckets) for k in bucket}
        self._buffers: dict[int, Array] = {}
        self._thread = ThreadPoolExecutor(1, "anaphora-gradients")
        self._start()

    def _start(self) -> None:
        self._given: dict[int, Gradient | None] = {}
        self._missing = [len(bucket) for bucket in self._buckets]
        self._travelling: list[Future[list[Gradient | None]]] = []

    def close(self, failed: bool) -> None:
        """As `Exchange.close`."""
        self._thread.shutdown(wait=not failed, cancel_futures=True)
        if not failed:
            self._processes.free()

    def give(self, k: int, gradient: Gradient | None) -> None:
        """As `Exchange.give`; send what waits for no other."""
        self._given[k] = gradient
        self._missing[self._bucket_of[k]] -= 1
        while len(self._travelling) < len(self._buckets):
            number = len(self._travelling)
            if self._missing[number]:
                break
            gradients = [self._given[k] for k in self._buckets[number]]
            self._travelling.append(self._thread.submit(self._reduce, number, gradients))

    def totals(self) -> list[Gradient | None]:
        """As `Exchange.totals`."""
        found: list[Gradient | None] = [None] * self._count
        for bucket, travelling in zip(self._buckets, self._travelling, strict=True):
            for k, total in zip(bucket, travelling.result(), strict=True):
                found[k] = total
        self._start()
        return found

    def _reduce(self, number: int, gradients: list[Gradient | None]) -> list[Gradient | None]:
        """The sums of the gradients of a bucket over all processes."""
        kinds = self._processes.all_gather_numbers(np.array([_kind(g) for g in gradients]))
        dense = np.flatnonzero((kinds == _DENSE).all(axis=0)).tolist()
        sums = _sums_of_others(self._processes, gradients, kinds)
        if len(dense):
            totals = self._sum(number, [gradients[k] for k in dense])
            for k, total in zip(dense, totals, strict=True):
                sums[k] = total
        return sums

    def _sum(self, number: int, gradients: Sequence[Any]) -> list[Array]:
        """The sums of arrays, which travel as one."""
        dtype = gradients[0].dtype
        step = _ALIGNMENT // dtype.itemsize
        starts = np.cumsum([0, *(-(-g.size // step) * step for g in gradients)])
        buffer = self._buffers.get(number)
        if buffer is None or len(buffer) != starts[-1] or buffer.dtype != dtype:
            buffer = self._buffers[number] = np.zeros(starts[-1], dtype)
        parts = [
            buffer[a : a + g.size].reshape(g.shape)
            for a, g in zip(starts[:-1], gradients, strict=True)
        ]
        for part, gradient in zip(parts, gradients, strict=True):
            part[...] = gradient
        self._processes.sum_in_order(buffer)
        return parts


def buckets(parameters: Sequence[Parameter]) -> list[list[int]]:
    """The indices of parameters whose gradients travel together, last layers first.

    >>> buckets([Parameter([1.0]), Parameter([2.0])])
    [[1, 0]]
    """
    found: list[list[int]] = []
    size = _BUCKET_BYTES
    for k in reversed(range(len(parameters))):
        same = found and parameters[found[-1][0]].dtype == parameters[k].dtype
        if size >= _BUCKET_BYTES or not same:
            found.append([])
            size = 0
        found[-1].append(k)
        size += parameters[k].data.nbytes
    return found


def add_gradients(a: Gradient | None, b: Gradient | None) -> Gradient | None:
    """The sum of two gradients; the first may change.

    >>> add_gradients(None, np.array([1.0]))
    array([1.])
    """
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, RowGradient) or isinstance(b, RowGradient):
        return a + b
    return add_arrays(a, b)


def _layout(parameters: Sequence[Parameter]) -> tuple[list[int], int]:
    """Where in memory each gradient starts, and the bytes of all."""
    sizes = [-(-p.data.nbytes // _ALIGNMENT) * _ALIGNMENT for p in parameters]
    ends = [0, *np.cumsum(sizes).tolist()]
    return ends[:-1], ends[-1]


def _part(size: int, processes: Processes, itemsize: int) -> slice:
    """The elements of a gradient that this process adds, in full lines of the cache."""
    line = _ALIGNMENT // itemsize
    lines = -(-size // line)
    ends = [min(lines * r // processes.size * line, size) for r in range(processes.size + 1)]
    return slice(ends[processes.rank], ends[processes.rank + 1])


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _sums_of_others(
    processes: Processes, gradients: Sequence[Gradient | None], kinds: Array
) -> list[Gradient | None]:
    """The sums of gradients that are not dense in all processes; None in place of the others.

    Args:
        processes: The processes.
        gradients: Those of this process.
        kinds: Those of all, [processes, gradients].
    """
    sums: list[Gradient | None] = [None] * len(gradients)
    others = np.flatnonzero((kinds != _DENSE).any(axis=0) & (kinds != _ABSENT).any(axis=0)).tolist()
    if len(others):
        gathered = processes.all_gather([_packed(gradients[k]) for k in others])
        for place, k in enumerate(others):
            sums[k] = tree_sum([_unpacked(one[place]) for one in gathered], add_gradients)
    return sums


def _kind(gradient: Gradient | None) -> int:
    if gradient is None:
        return _ABSENT
    return len(gradient.indices) if isinstance(gradient, RowGradient) else _DENSE


def _packed(gradient: Gradient | None) -> Any:
    if isinstance(gradient, RowGradient):
        return gradient.indices, gradient.values, gradient.shape
    return gradient


def _unpacked(packed: Any) -> Gradient | None:
    return RowGradient(*packed) if isinstance(packed, tuple) else packed
