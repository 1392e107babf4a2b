"""Signal echo: repeat the input of some steps ago."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def signal_echo(
    generator: np.random.Generator, length: int, batch_size: int, delay: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sample streams of random bits, and the same bits some steps later.

    Args:
        generator: The source of randomness.
        length: T.
        batch_size: B streams.
        delay: The number of steps between a bit and its echo.

    Returns:
        The bits [T, B] and their echoes [T, B]; -100, which losses ignore, before the first echo.

    Raises:
        ValueError: the delay is negative.

    >>> bits, echoes = signal_echo(np.random.default_rng(1), length=6, batch_size=1, delay=2)
    >>> bits[:, 0], echoes[:, 0]
    (array([0, 1, 1, 1, 0, 0]), array([-100, -100,    0,    1,    1,    1]))
    """
    if delay < 0:
        raise ValueError(f"signal_echo: delay {delay}; it must be at least 0")
    bits = generator.integers(0, 2, (length, batch_size))
    echoes = np.full_like(bits, -100)
    echoes[delay:] = bits[: max(length - delay, 0)]
    return bits, echoes
