"""What a thread records, and who watches: no_grad and hooks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Protocol


class Hook(Protocol):
    """Watches operations go by; no layer knows of it. See `hook`."""

    def enter(self, phase: str, operation: str, inputs: tuple[Any, ...]) -> None:
        """Before an operation: its name and what it is given; phase "forward" or "backward"."""

    def leave(self, phase: str, operation: str, outputs: tuple[Any, ...]) -> None:
        """After an operation, unless it failed: its name and what it gave."""


class ThreadState(threading.local):
    """What is set for one thread: whether it records, and its hooks."""

    recording = True
    hooks: tuple[Hook, ...] = ()


thread = ThreadState()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Within it this thread records nothing. Also a decorator.

    >>> from anaphora import Tensor
    >>> x = Tensor([1.0], requires_grad=True)
    >>> with no_grad():
    ...     (x * 2).requires_grad
    False
    """
    before = thread.recording
    thread.recording = False
    try:
        yield
    finally:
        thread.recording = before


def recording() -> bool:
    """Whether this thread records: False within `no_grad`, where nothing can go backward.

    >>> with no_grad():
    ...     recording()
    False
    """
    return thread.recording


@contextlib.contextmanager
def hook(watcher: Hook) -> Iterator[None]:
    """Call ``watcher.enter`` and ``watcher.leave`` around every operation, forward and backward.

    Hooks belong to the thread that sets them. What they are given is not theirs to change.

    >>> from anaphora import Tensor
    >>> class Printer:
    ...     def enter(self, phase, operation, inputs):
    ...         print(phase, operation)
    ...
    ...     def leave(self, phase, operation, outputs):
    ...         pass
    >>> with hook(Printer()):
    ...     (Tensor([1.0], requires_grad=True) * 2).sum().backward()
    forward multiply
    forward sum
    backward sum
    backward multiply
    """
    before = thread.hooks
    thread.hooks = (*before, watcher)
    try:
        yield
    finally:
        thread.hooks = before


def enter(phase: str, operation: str, inputs: tuple[Any, ...]) -> None:
    """Tell this thread's hooks that an operation begins."""
    for watcher in thread.hooks:
        watcher.enter(phase, operation, inputs)


def leave(phase: str, operation: str, outputs: tuple[Any, ...]) -> None:
    """Tell this thread's hooks that an operation is done."""
    for watcher in reversed(thread.hooks):
        watcher.leave(phase, operation, outputs)
