"""Temporal order: which of two symbols came first, a long time ago."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPORAL_SYMBOLS = ("a", "b", "c", "d", "B", "E", "X", "Y")
"""The symbols of the ids of `temporal_order`."""

_PLACES = {4: ((0.1, 0.2), (0.5, 0.6)), 8: ((0.1, 0.2), (0.33, 0.43), (0.66, 0.76))}


def temporal_order(
    generator: np.random.Generator, batch_size: int, classes: int = 4, length: int = 100
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.integer[Any]]]:
    """Sample sequences of symbols whose class is the order of the X and Y in them.

    A sequence begins with E, ends with B, and has random a, b, c and d in between, except for
    two symbols (4 classes) or three (8 classes) that are X or Y. With the length 100 it is the
    published task: 100 to 110 steps, with these symbols at 10 to 20 and 50 to 60; or at 10 to 20,
    33 to 43 and 66 to 76. Other lengths scale these positions; shorter is easier.

    Source: Hochreiter & Schmidhuber 1997, experiments 6a and 6b.

    Args:
        generator: The source of randomness.
        batch_size: B.
        classes: 4 or 8.
        length: The minimum number of steps of a sequence, at least 10; the maximum is a tenth more.

    Returns:
        Ids [T, B] of `TEMPORAL_SYMBOLS` (0 after a sequence's end), classes [B] (X as 0, Y as 1,
        the first symbol the most significant) and lengths [B].

    Raises:
        ValueError: the classes are neither 4 nor 8, or the length is below 10.

    >>> ids, order, lengths = temporal_order(np.random.default_rng(1), batch_size=1, length=10)
    >>> "".join(TEMPORAL_SYMBOLS[id] for id in ids[:, 0]), order, lengths
    ('EXdaaYdabB', array([1]), array([10]))
    """
    if classes not in _PLACES:
        raise ValueError(f"temporal_order: {classes} classes; expected 4 or 8")
    if length < 10:
        raise ValueError(f"temporal_order: length {length}; it must be at least 10")
    B = batch_size
    lengths = generator.integers(length, length + length // 10 + 1, B)
    row = np.arange(B)
    T = lengths.max(initial=0)
    ids = np.where(np.arange(T)[:, None] < lengths, generator.integers(0, 4, (T, B)), 0)
    ids[0] = TEMPORAL_SYMBOLS.index("E")
    ids[lengths - 1, row] = TEMPORAL_SYMBOLS.index("B")
    order = np.zeros(B, np.int64)
    for first, last in _PLACES[classes]:
        low, high = round(first * length), round(last * length)
        symbol = generator.integers(0, 2, B)
        ids[generator.integers(low, high + 1, B), row] = TEMPORAL_SYMBOLS.index("X") + symbol
        order = 2 * order + symbol
    return ids, order, lengths
