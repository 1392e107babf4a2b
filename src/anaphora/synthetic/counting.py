"""Counting: n times `a`, n times `b`, and n times `a` again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anaphora.options import check_sizes

COUNTING_TOKENS = ("<eos>", "<unk>", "a", "b")
"""The tokens of the ids of `count_block`."""


def count_block(n: int, unknown: bool = False) -> NDArray[np.int64]:
    """The sequence a^n b^n a^n with its end, as ids of `COUNTING_TOKENS`.

    From the first ``b`` on, everything is determined by the number of words before it.

    Args:
        n: The number of words of each kind, at least 1.
        unknown: Replace the first n ``a`` by unknown words, which must be counted all the same.

    Returns:
        [3 n + 1] ids.

    Raises:
        ValueError: n is below 1.

    >>> " ".join(COUNTING_TOKENS[id] for id in count_block(2))
    'a a b b a a <eos>'
    >>> " ".join(COUNTING_TOKENS[id] for id in count_block(1, unknown=True))
    '<unk> b a <eos>'
    """
    check_sizes("count_block", n=n)
    end, unk, a, b = range(4)
    return np.array([unk if unknown else a] * n + [b] * n + [a] * n + [end])
