"""Inputs that the processes of a command share out: read by rank 0, and printed by it in order."""

from __future__ import annotations

import itertools
import os
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from anaphora import engine
from anaphora.distributed import Processes, from_main, shared

Place = tuple[str, frozenset[int]]
"""A machine, and some of its processors."""

Input = TypeVar("Input")
Found = TypeVar("Found")


class Group(Generic[Input, Found]):
    """Inputs that are worked on at once, and what was found until the first error, if any.

    Attributes:
        inputs: The inputs.
        found: As many results as there are before the error.
    """

    def __init__(self, inputs: list[Input], results: Iterable[Found]) -> None:
        self.inputs = inputs
        self.found: list[Found] = []
        self._error: Exception | None = None
        try:
            self.found.extend(results)
        except Exception as error:  # after the results before it, as by one process
            self._error = error

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self._error is not None:
            raise self._error


def share_processors(processes: Processes) -> None:
    """Divide the threads among the processes of each machine that may run on the same processors.

    A launcher that binds processes to processors has done so already.
    """
    own = socket.gethostname(), _processors()
    engine.share_processors(sharing(own, processes.all_gather(own)))


def _processors() -> frozenset[int]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def sharing(own: Place, places: Iterable[Place]) -> int:
    """How many processes, with this one, may run on its processors.

    >>> sharing(("a", frozenset({0, 1})), [("a", frozenset({0, 1})), ("a", frozenset({1, 2}))])
    2
    """
    host, processors = own
    return sum(other == host and bool(processors & others) for other, others in places)


def check_alike(processes: Processes, model: Any) -> None:
    """Check that all processes find the same with a model, to the bit.

    Raises:
        ProcessesDiffer: they compute with other instructions, or have read another model.
    """
    if processes.size == 1:
        return
    checksum = 0
    for _, parameter in model.named_parameters():
        checksum = zlib.crc32(parameter.data.tobytes(), checksum)
    found = engine.info()
    processes.check_alike(
        {
            "engine": f"{found['engine']} {found['instruction_set']}",
            "checksum of the weights": f"{checksum:08x}",
        }
    )


def in_groups(
    processes: Processes,
    inputs: Iterable[Input],
    size: int,
    work: Callable[[list[Input]], Iterable[Found]],
    show: Callable[[Group[Input, Found]], None],
) -> None:
    """Work on groups of inputs, and show them in their order.

    Args:
        processes: The processes; rank 0 reads the inputs.
        inputs: The inputs.
        size: How many inputs are worked on at once.
        work: Yields a result for each input of a group.
        show: Called with each group by rank 0, which prints it.

    Raises:
        Exception: one of the inputs, of the work or of `show`, after what came before it.
    """
    groups = from_main(processes, _cut(inputs, size))
    for _, group in shared(processes, groups, lambda some: Group(some, work(some))):
        with processes.together():
            if processes.is_main:
                show(group)
            group.check()


def _cut(inputs: Iterable[Input], size: int) -> Iterator[list[Input]]:
    iterator = iter(inputs)
    while group := list(itertools.islice(iterator, size)):
        yield group
