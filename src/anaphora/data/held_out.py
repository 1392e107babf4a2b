"""Which examples are held out to judge by."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["held_out_in_proportion"]


def held_out_in_proportion(
    classes: ArrayLike, share: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw a share of the examples, in which every class has its proportion.

    Of each class one example at least is left to learn from. Rounding goes to the classes that
    would lose most by it.

    Args:
        classes: [n] the class of each example.
        share: Of the examples, 0 < share < 1.
        generator: Draws them.

    Returns:
        The indices of about n * share examples, sorted.

    Raises:
        ValueError: the share is out of its range.

    >>> classes = ["a"] * 10 + ["b"] * 30
    >>> held = held_out_in_proportion(classes, 0.2, np.random.default_rng(1))
    >>> np.asarray(classes)[held].tolist()
    ['a', 'a', 'b', 'b', 'b', 'b', 'b', 'b']
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out_in_proportion: share is {share}; wanted 0 < share < 1")
    _, numbers, counts = np.unique(np.asarray(classes), return_inverse=True, return_counts=True)
    wanted = counts * share
    taken = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), counts - 1)
    left = round(len(numbers) * share) - int(taken.sum())
    for k in np.argsort(taken - wanted, kind="stable")[: max(left, 0)]:
        taken[k] = min(taken[k] + 1, counts[k] - 1)
    held = [
        generator.permutation(np.flatnonzero(numbers == k))[:count] for k, count in enumerate(taken)
    ]
    return np.sort(np.concatenate(held)) if held else np.zeros(0, np.int64)
