"""Batches that are computed in shards, by one process or several, with the same bits."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from anaphora.distributed import Processes
from anaphora.distributed.sums import TreeSum, add_arrays, is_power_of_two, tree_sum
from anaphora.tensor import Array, Gradient, Parameter, RowGradient
from anaphora.tensor.hooks import awaiting_gradients

_BUCKET_BYTES = 1 << 18  # gradients that travel together: below, latency costs more than it hides
_ALIGNMENT = 64  # bytes

_ABSENT, _DENSE = -2, -1  # kinds of gradients; the others are numbers of rows


def shards_of(model: Any, batch: Any, count: int) -> list[Any]:
    """The shards of a batch; None for those without rows.

    Raises:
        TypeError: neither batch nor model can cut it.

    >>> from anaphora.data import batchify
    >>> batch = batchify(np.arange(11), batch_size=2, window=4)[0]
    >>> [shard.inputs.shape for shard in shards_of(None, batch, 2)]
    [(4, 1), (4, 1)]
    """
    if callable(cut := getattr(batch, "shard", None)):
        return [cut(number, count) for number in range(count)]
    if callable(cut := getattr(model, "shard_batch", None)):
        return [cut(batch, number, count) for number in range(count)]
    raise TypeError(
        f"a batch of type {type(batch).__name__} cannot be cut into {count} shards: give it a "
        "method shard(number, count), or the model a method shard_batch(batch, number, count), "
        "that returns the rows of one shard, or None if it has no row"
    )


def check_shards(shards: int, processes: int) -> None:
    """Check that processes can share the shards of a batch.

    Raises:
        ValueError: the shards are not a power of two, or not a multiple of the processes.

    >>> check_shards(4, 2)
    >>> check_shards(4, 8)
    Traceback (most recent call last):
        ...
    ValueError: 8 processes cannot share 4 shards: start 1, 2 or 4 processes, or start a new...
    """
    if not is_power_of_two(processes):
        near = 1 << processes.bit_length()
        raise ValueError(
            f"{processes} processes cannot share the shards of a batch, whose number is a power of "
            f"two: start {near // 2} or {near} processes"
        )
    if not is_power_of_two(shards):
        raise ValueError(f"shards must be a power of two (1, 2, 4, ...), not {shards}")
    if shards % processes:
        fitting = [str(2**k) for k in range(shards.bit_length())]
        names = f"{', '.join(fitting[:-1])} or {fitting[-1]} processes" if shards > 1 else "one"
        raise ValueError(
            f"{processes} processes cannot share {shards} shard{'s' * (shards > 1)}: start {names}"
            ", or start a new training with shards a power of two and a multiple of the processes"
        )


class GradientSum:
    """The gradients of all shards, summed in a fixed order.

    Each process adds those of its own shards in a tree, then the processes add theirs. Gradients
    travel as soon as those of the last shard are complete, last layers first, in a second thread,
    while the first still computes.

    Args:
        parameters: The parameters, first layers first.
        processes: The processes that share the shards.

    >>> from anaphora.distributed import ALONE
    >>> weight = Parameter([1.0, 2.0])
    >>> total = GradientSum([weight], ALONE)
    >>> (weight * weight).sum().backward()
    >>> total.end_shard()
    >>> with total.last_backward():
    ...     (weight * weight).sum().backward()
    >>> _ = total.finish()
    >>> weight.grad
    array([4., 8.], dtype=float32)
    """

    def __init__(self, parameters: Sequence[Parameter], processes: Processes) -> None:
        self._parameters = list(parameters)
        self._processes = processes.split()
        self._sums = [TreeSum(_add) for _ in self._parameters]
        self._buckets = _buckets(self._parameters)
        self._bucket_of = {k: b for b, bucket in enumerate(self._buckets) for k in bucket}
        self._index = {parameter: k for k, parameter in enumerate(self._parameters)}
        self._buffers: dict[int, Array] = {}
        self._thread = ThreadPoolExecutor(1, "anaphora-gradients") if processes.size > 1 else None
        self._start()

    def _start(self) -> None:
        self._totals: dict[int, Gradient | None] = {}
        self._missing = [len(bucket) for bucket in self._buckets]
        self._travelling: list[Future[list[Gradient | None]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *arguments: object) -> None:
        """End the second thread, which after an error may still wait for other processes."""
        if self._thread:
            self._thread.shutdown(wait=kind is None, cancel_futures=True)
            if kind is None:
                self._processes.free()

    def last_backward(self) -> contextlib.AbstractContextManager[None]:
        """Within the block is the last backward pass, of the last shard."""
        return awaiting_gradients(self._complete)

    def end_shard(self) -> None:
        """Add the gradients of a shard that is not the last."""
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            total.push(parameter.grad)
            parameter.grad = None

    def _complete(self, parameter: Parameter) -> None:
        """Add the gradient of the last shard, and send those that wait for no other.

        The gradient is not changed: the backward pass may still read the array.
        """
        if (k := self._index.get(parameter)) is None or k in self._totals:
            return
        self._sums[k].push(parameter.grad)
        self._totals[k], parameter.grad = self._sums[k].pop(), None
        self._missing[self._bucket_of[k]] -= 1
        while self._thread and len(self._travelling) < len(self._buckets):
            number = len(self._travelling)
            if self._missing[number]:
                break
            gradients = [self._totals[k] for k in self._buckets[number]]
            self._travelling.append(self._thread.submit(self._reduce, number, gradients))

    def finish(self) -> float:
        """Set ``grad`` of each parameter to the sum; return the seconds waited for it."""
        for parameter in self._parameters:
            self._complete(parameter)
        began = time.monotonic()
        for bucket, travelling in zip(self._buckets, self._travelling, strict=False):
            self._totals.update(zip(bucket, travelling.result(), strict=True))
        seconds = time.monotonic() - began
        for k, parameter in enumerate(self._parameters):
            total = self._totals[k]
            # One order of memory, because it is that of the sum in the norm.
            parameter.grad = np.ascontiguousarray(total) if _is_dense(total) else total
        self._start()
        return seconds

    def _reduce(self, number: int, gradients: list[Gradient | None]) -> list[Gradient | None]:
        """The sums of the gradients of a bucket over all processes."""
        processes = self._processes
        kinds = processes.all_gather_numbers(np.array([_kind(g) for g in gradients]))
        dense = [k for k in range(len(gradients)) if (kinds[:, k] == _DENSE).all()]
        others = [
            k for k in range(len(gradients)) if k not in dense and kinds[:, k].max() > _ABSENT
        ]
        sums: list[Gradient | None] = [None] * len(gradients)
        if dense:
            for k, total in zip(
                dense, self._sum(number, [gradients[k] for k in dense]), strict=True
            ):
                sums[k] = total
        if others:
            gathered = processes.all_gather([_packed(gradients[k]) for k in others])
            for place, k in enumerate(others):
                sums[k] = tree_sum([_unpacked(one[place]) for one in gathered], _add)
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


def digest(arrays: Iterable[Array]) -> str:
    """A short hash of arrays.

    >>> digest([np.array([1.0])]) == digest([np.array([2.0])])
    False
    """
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _buckets(parameters: Sequence[Parameter]) -> list[list[int]]:
    """The indices of parameters whose gradients travel together, last layers first."""
    buckets: list[list[int]] = []
    size = _BUCKET_BYTES
    for k in reversed(range(len(parameters))):
        same = buckets and parameters[buckets[-1][0]].dtype == parameters[k].dtype
        if size >= _BUCKET_BYTES or not same:
            buckets.append([])
            size = 0
        buckets[-1].append(k)
        size += parameters[k].data.nbytes
    return buckets


def _is_dense(gradient: Gradient | None) -> bool:
    return gradient is not None and not isinstance(gradient, RowGradient)


def _kind(gradient: Gradient | None) -> int:
    if gradient is None:
        return _ABSENT
    return len(gradient.indices) if isinstance(gradient, RowGradient) else _DENSE


def _add(a: Gradient | None, b: Gradient | None) -> Gradient | None:
    """The sum of two gradients; the first may change."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, RowGradient) or isinstance(b, RowGradient):
        return a + b
    return add_arrays(a, b)


def _packed(gradient: Gradient | None) -> Any:
    if isinstance(gradient, RowGradient):
        return gradient.indices, gradient.values, gradient.shape
    return gradient


def _unpacked(packed: Any) -> Gradient | None:
    return RowGradient(*packed) if isinstance(packed, tuple) else packed
