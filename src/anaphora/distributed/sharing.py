"""Work that processes share out, with the results in the order of the work."""

from __future__ import annotations

import contextlib
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from anaphora.distributed.processes import ALONE, Processes, _portable

__all__ = ["from_main", "helped", "helpers", "shared", "spread"]

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


_helped: ContextVar[Processes] = ContextVar("helped", default=ALONE)


@contextlib.contextmanager
def helped(processes: Processes) -> Iterator[None]:
    """A block in which rank 0 works, and the others help with what it gives to `spread`.

    The others skip nothing of the block, so it is for them to do nothing in it; they help at its
    end, until rank 0 has left it.

    >>> with helped(ALONE):
    ...     list(spread(len, ["ab", "c"]))
    [2, 1]
    """
    token = _helped.set(processes)
    try:
        yield
    finally:
        _helped.reset(token)
        if processes.is_main:
            for rank in range(1, processes.size):
                processes.send(None, rank)
        else:
            while (task := processes.receive(0)) is not None:
                processes.send(_attempt(processes, *task), 0)


def helpers() -> int:
    """The number of processes that `spread` uses: 1 outside of `helped`.

    >>> helpers()
    1
    """
    return _helped.get().size


def spread(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results of the work on each item, done by all processes within `helped`.

    Rank r works on item r and each following one by the number of processes.

    Args:
        work: A function that can be pickled, as its results can.
        items: Can be pickled.

    Raises:
        Exception: the work of one failed; an error of the first rank of which it did.

    >>> spread(abs, [-3, 4])
    [3, 4]
    """
    processes = _helped.get()
    size = processes.size
    for rank in range(1, size):
        processes.send((work, items[rank::size]), rank)
    outcomes = [_attempt(processes, work, items[::size])]
    outcomes += [processes.receive(rank) for rank in range(1, size)]
    for _, error in outcomes:
        if error is not None:
            raise pickle.loads(error) if isinstance(error, bytes) else error
    return [outcomes[number % size][0][number // size] for number in range(len(items))]


def _attempt(
    processes: Processes, work: Callable[[Any], Any], items: Sequence[Any]
) -> tuple[list[Any], Exception | bytes | None]:
    """The results of the work, and the error that ended it, if any; as bytes if not of rank 0."""
    found: list[Any] = []
    try:
        for item in items:
            found.append(work(item))
    except Exception as error:
        return found, error if processes.is_main else _portable(error, processes)
    return found, None
