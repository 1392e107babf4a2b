"""The package's random numbers: one generator, which can be seeded, saved and restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np

_generator = np.random.Generator(np.random.PCG64())
_here: ContextVar[np.random.Generator | None] = ContextVar("generator", default=None)


def generator() -> np.random.Generator:
    """The generator from which initial weights and dropout masks are sampled.

    >>> generator().uniform(-0.1, 0.1, size=(2, 3)).shape
    (2, 3)
    """
    return _here.get() or _generator


@contextlib.contextmanager
def seeded(value: int | tuple[int, ...]) -> Iterator[None]:
    """A block with a generator of its own, which no other thread uses.

    Trainings in several threads of a process are reproducible if each runs in such a block.

    >>> seed(1)
    >>> first = generator().random()
    >>> with seeded(1):
    ...     generator().random() == first
    True
    """
    token = _here.set(np.random.Generator(np.random.PCG64(value)))
    try:
        yield
    finally:
        _here.reset(token)


def seed(value: int) -> None:
    """Restart the generator: the same seed gives the same numbers.

    >>> seed(1)
    >>> first = generator().random()
    >>> seed(1)
    >>> generator().random() == first
    True
    """
    set_state(np.random.PCG64(value).state)


def get_state() -> dict[str, Any]:
    """The state of the generator, as plain numbers and strings (it can be written as JSON).

    >>> get_state()["bit_generator"]
    'PCG64'
    """
    return dict(generator().bit_generator.state)


def set_state(state: Mapping[str, Any]) -> None:
    """Restore a state that `get_state` returned.

    >>> state = get_state()
    >>> first = generator().random()
    >>> set_state(state)
    >>> generator().random() == first
    True
    """
    generator().bit_generator.state = state
