"""A thread that works on what requests submit, and takes what has arrived after each step."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from typing import Any, Generic, TypeVar

from anaphora import engine
from anaphora.serve.errors import RequestError, queue_full

Item = TypeVar("Item")


class Worker(threading.Thread, Generic[Item]):
    """A thread with a bounded queue.

    It computes matrix products in the precision of its construction (see `matmul_precision`).

    Args:
        name: Its name.
        max_queue: Items that may wait, besides those for which there is room; items that find
            nothing waiting are always taken.

    Attributes:
        room: How many items the next step can take.
        waiting: The items that no step has taken yet. Use it with `lock`.
    """

    def __init__(self, name: str, max_queue: int) -> None:
        super().__init__(name=name, daemon=True)
        self.max_queue = max_queue
        self.room = 0
        self.waiting: deque[Item] = deque()
        self.lock = threading.Lock()
        self._news = threading.Condition(self.lock)
        self._closing = False
        self._precision = engine.current_matmul_precision()

    def submit(self, items: list[Item]) -> None:
        """Append items, which belong together, to the queue.

        Raises:
            RequestError: the queue is full (429), or the worker ends (503).
        """
        with self._news:
            if self._closing:
                raise RequestError("the server is shutting down", 503, code="shutting_down")
            count = len(self.waiting) + len(items)
            if self.waiting and count > self.room + self.max_queue:
                raise queue_full(
                    f"{len(self.waiting):,} requests are waiting already, and at most "
                    f"{self.max_queue:,} may; try again later"
                )
            self.waiting.extend(items)
            self._news.notify()

    def close(self) -> None:
        """Finish what was submitted, and end the thread."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Work until closed."""
        with engine.precision.products_in(self._precision):
            self._work()

    def _work(self) -> None:
        while True:
            with self._news:
                while not (self.waiting or self.busy()):
                    if self._closing:
                        return
                    self._news.wait()
            self.step()

    @abstractmethod
    def ask(self, work: Any) -> None:
        """Submit work.

        Raises:
            RequestError: as for `submit`.
        """

    @abstractmethod
    def busy(self) -> bool:
        """Whether there is work besides what waits."""

    @abstractmethod
    def step(self) -> None:
        """Take what waits and do some work; called in the thread. It must not raise."""
