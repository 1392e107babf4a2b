"""The state of a thread: whether it records (no_grad), its hooks, and its interpreter."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol


class Hook(Protocol):
    """Observes operations. See `hook`."""

    def enter(self, phase: str, operation: str, inputs: tuple[Any, ...]) -> None:
        """Called before an operation with its name and inputs; phase "forward" or "backward"."""

    def leave(self, phase: str, operation: str, outputs: tuple[Any, ...]) -> None:
        """Called after an operation, unless it failed, with its name and outputs."""


class Interpreter(Protocol):
    """Evaluates operations and modules on values of its own. See `interpreting`.

    All methods return NotImplemented for what is to be computed as usual.
    """

    def operation(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The result of a differentiable operation."""

    def composed(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The result of an operation that is written with others, which are asked for else."""

    def module(self, module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The result of calling a `Module`."""


class ThreadState(threading.local):
    """Thread-local settings: whether the thread records, and its hooks, its interpreter and who
    awaits gradients.
    """

    recording = True
    hooks: tuple[Hook, ...] = ()
    interpreter: Interpreter | None = None
    on_gradient: Callable[[Any], None] | None = None


thread = ThreadState()


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Disable recording in this thread: a context manager, also a decorator.

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
    """Whether this thread records operations: False within `no_grad`.

    >>> with no_grad():
    ...     recording()
    False
    """
    return thread.recording


@contextlib.contextmanager
def hook(watcher: Hook) -> Iterator[None]:
    """Call ``watcher.enter`` and ``watcher.leave`` around every operation, forward and backward.

    Hooks belong to the thread that sets them, and must not change what they are given.

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


@contextlib.contextmanager
def interpreting(interpreter: Interpreter) -> Iterator[None]:
    """Ask an interpreter first, for every operation and every call of a module of this thread.

    So that the code of a model can be run on something other than numbers: an export runs it on
    symbols, and writes down what it computes.

    >>> from anaphora import Tensor
    >>> class Printer:
    ...     def operation(self, name, arguments, options):
    ...         print(name)
    ...         return NotImplemented
    ...
    ...     def composed(self, name, arguments, options):
    ...         return NotImplemented
    ...
    ...     def module(self, module, arguments, options):
    ...         return NotImplemented
    >>> with interpreting(Printer()):
    ...     (Tensor([1.0]) * 2).sum()
    multiply
    sum
    Tensor(2., dtype=float32)
    """
    before = thread.interpreter
    thread.interpreter = interpreter
    try:
        yield
    finally:
        thread.interpreter = before


@contextlib.contextmanager
def awaiting_gradients(on_gradient: Callable[[Any], None]) -> Iterator[None]:
    """Within the block, a backward calls a function with each leaf as soon as its ``grad`` is
    complete, while the rest is still computed.

    >>> from anaphora import Tensor
    >>> x, y = Tensor(2.0, requires_grad=True), Tensor(3.0, requires_grad=True)
    >>> with awaiting_gradients(lambda leaf: print(leaf.data, leaf.grad)):
    ...     (x * x * y).backward()
    3.0 4.0
    2.0 12.0
    """
    before = thread.on_gradient
    thread.on_gradient = on_gradient
    try:
        yield
    finally:
        thread.on_gradient = before


def enter(phase: str, operation: str, inputs: tuple[Any, ...]) -> None:
    """Notify this thread's hooks that an operation begins."""
    for watcher in thread.hooks:
        watcher.enter(phase, operation, inputs)


def leave(phase: str, operation: str, outputs: tuple[Any, ...]) -> None:
    """Notify this thread's hooks that an operation is done."""
    for watcher in reversed(thread.hooks):
        watcher.leave(phase, operation, outputs)
