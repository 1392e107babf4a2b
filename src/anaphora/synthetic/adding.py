"""The adding problem: the sum of two marked numbers in a long sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def adding_problem(
    generator: np.random.Generator, batch_size: int, length: int = 100
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.integer[Any]]]:
    """Sample sequences of numbers and marks, with the sum of the marked numbers as the target.

    Each step is a number, uniform in [-1, 1], and a mark: 1 at the two numbers to add, -1 at the
    first and the last step, 0 elsewhere. One of the first ten steps is marked, and another one of
    the first ``length / 2 - 1``; a marked first step has the number 0 and the mark 1. A sequence
    has ``length`` to ``1.1 * length`` steps. The target is ``0.5 + (a + b) / 4``, in [0, 1]; an
    answer is correct if its error is below 0.04.

    Source: Hochreiter & Schmidhuber 1997, experiment 4.

    Args:
        generator: The source of randomness.
        batch_size: B.
        length: The minimum number of steps, at least 6.

    Returns:
        Inputs [T, B, 2], targets [B, 1] and lengths [B].

    Raises:
        ValueError: the length is below 6.

    >>> x, y, lengths = adding_problem(np.random.default_rng(1), batch_size=3, length=20)
    >>> x.shape[1:], y.shape, lengths
    ((3, 2), (3, 1), array([21, 21, 22]))
    """
    if length < 6:
        raise ValueError(f"adding_problem: length {length}; it must be at least 6")
    B = batch_size
    lengths = generator.integers(length, length + length // 10 + 1, B)
    row = np.arange(B)
    x = np.zeros((lengths.max(initial=0), B, 2), np.float32)
    real = np.arange(len(x))[:, None] < lengths
    x[:, :, 0] = np.where(real, generator.uniform(-1, 1, real.shape), 0)
    x[0, :, 1] = x[lengths - 1, row, 1] = -1
    half = length // 2 - 1
    first = generator.integers(0, min(10, half), B)
    second = generator.integers(0, half - 1, B)
    second += second >= first  # another one
    for marked in (first, second):
        x[marked, row, 1] = 1
    x[0, :, 0] = np.where(x[0, :, 1] == 1, 0, x[0, :, 0])
    total = x[first, row, 0] + x[second, row, 0]
    return x, (0.5 + total / 4)[:, None], lengths
