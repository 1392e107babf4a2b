"""Batches that are computed in shards, by one process or several, with the same bits."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from anaphora.distributed import Processes
from anaphora.distributed.sums import TreeSum, is_power_of_two
from anaphora.tensor import Array, Parameter
from anaphora.tensor.hooks import awaiting_gradients
from anaphora.training.exchanges import add_gradients, exchange_of


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

    Each process adds those of its own shards in a tree, then the processes add theirs; see
    `exchange_of`.

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
        self._sums = [TreeSum(add_gradients) for _ in self._parameters]
        self._index = {parameter: k for k, parameter in enumerate(self._parameters)}
        self._given: set[int] = set()
        self._exchange = exchange_of(self._parameters, processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *arguments: object) -> None:
        self._exchange.close(failed=kind is not None)

    def last_backward(self) -> contextlib.AbstractContextManager[None]:
        """Within the block is the last backward pass, of the last shard."""
        return awaiting_gradients(self._complete)

    def end_shard(self) -> None:
        """Add the gradients of a shard that is not the last."""
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            total.push(parameter.grad)
            parameter.grad = None

    def _complete(self, parameter: Parameter) -> None:
        """Add the gradient of the last shard, and give the sum to the exchange.

        The gradient is not changed: the backward pass may still read the array.
        """
        if (k := self._index.get(parameter)) is None or k in self._given:
            return
        self._given.add(k)
        self._sums[k].push(parameter.grad)
        parameter.grad = None
        self._exchange.give(k, self._sums[k].pop())

    def finish(self) -> float:
        """Set ``grad`` of each parameter to the sum; return the seconds waited for it."""
        for parameter in self._parameters:
            self._complete(parameter)
        self._given.clear()
        began = time.monotonic()
        totals = self._exchange.totals()
        seconds = time.monotonic() - began
        for parameter, total in zip(self._parameters, totals, strict=True):
            # One order of memory, because it is that of the sum in the norm.
            is_array = isinstance(total, np.ndarray)
            parameter.grad = np.ascontiguousarray(total) if is_array else total
        return seconds


def digest(arrays: Iterable[Array]) -> str:
    """A short hash of arrays.

    >>> digest([np.array([1.0])]) == digest([np.array([2.0])])
    False
    """
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
