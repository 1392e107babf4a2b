"""Work that processes share out, with the results in the order of the work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from anaphora.distributed.processes import Processes

__all__ = ["from_main", "shared"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def shared(
    processes: Processes, items: Iterable[Item], work: Callable[[Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with the result of its work, which one of the processes has done.

    They work in rounds: on item k rank k modulo their number, and all of them yield all results, in
    the order of the items. An error of an item is raised by all of them, after the results before
    it; an error of the work, instead of the results of its round.

    Args:
        processes: The processes; all call this function, and consume it to the same point.
        items: The same on all processes.
        work: Does not communicate; its result can be pickled.

    >>> from anaphora.distributed import ALONE
    >>> list(shared(ALONE, [3, 4], lambda n: n * n))
    [(3, 9), (4, 16)]
    """
    iterator = iter(items)
    ended = False
    while not ended:
        group: list[Item] = []
        error: Exception | None = None
        try:
            group.extend(itertools.islice(iterator, processes.size))
            ended = len(group) < processes.size
        except Exception as failure:
            error = failure
        mine: tuple[Result] | None = None
        with processes.together():
            if processes.rank < len(group):
                mine = (work(group[processes.rank]),)
        for item, found in zip(group, processes.all_gather(mine), strict=False):
            assert found is not None
            yield item, found[0]
        if error is not None:
            raise error


def from_main(processes: Processes, items: Iterable[Item]) -> Iterator[Item]:
    """Yield on all processes the items of rank 0, which alone reads them.

    An error of an item is raised by all processes.

    >>> from anaphora.distributed import ALONE
    >>> list(from_main(ALONE, "ab"))
    ['a', 'b']
    """
    if processes.size == 1:
        yield from items
        return
    iterator = iter(items) if processes.is_main else iter(())
    while True:
        with processes.together():
            found = list(itertools.islice(iterator, 1))
        found = processes.broadcast(found)
        if not found:
            return
        yield found[0]
