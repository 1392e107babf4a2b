"""Holding out examples to validate on."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError

__all__ = ["label_strata", "stratified_split"]


def stratified_split(
    labels: Sequence[Hashable] | int, share: float, seed: int = 0
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Choose which examples to hold out, each class in proportion.

    Of N examples ``round(share * N)`` are held out, but at least 1, and each class keeps at least
    one example to train on. Each class gives its share, rounded down, and those with the
    largest remainders give one more (Hamilton's method). A class with one example stays in the
    training set. The choice depends on the seed alone.

    Args:
        labels: The class of each example, or the number of examples without classes.
        share: The share to hold out, above 0 and below 1.
        seed: The seed.

    Returns:
        The indices of the examples to train on, and of those held out, both ascending.

    Raises:
        DataError: the share is not between 0 and 1, or there are fewer than two examples.

    >>> training, held_out = stratified_split(list("aaaabbbbbbbbc"), share=0.25, seed=1)
    >>> len(training), ["aaaabbbbbbbbc"[k] for k in held_out]
    (10, ['a', 'b', 'b'])
    """
    if not 0 < share < 1:
        raise DataError(f"share is {share}; it must be above 0 and below 1")
    count = labels if isinstance(labels, int) else len(labels)
    if count < 2:
        raise DataError(f"there are too few examples to hold some out: {count}; give 2 or more")
    classes: dict[Hashable, list[int]] = {}
    for number, label in enumerate([None] * count if isinstance(labels, int) else labels):
        classes.setdefault(label, []).append(number)
    sizes = np.array([len(members) for members in classes.values()])
    target = max(1, round(share * count))
    taken = np.minimum(np.floor(share * sizes).astype(int), sizes - 1)
    remainders = np.where(taken < sizes - 1, share * sizes - taken, -1)  # -1: none to spare
    for k in np.argsort(-remainders, kind="stable")[: max(0, target - int(taken.sum()))]:
        taken[k] += remainders[k] >= 0
    generator = np.random.default_rng(seed)
    held_out = [
        generator.choice(members, number, replace=False)
        for members, number in zip(classes.values(), taken, strict=True)
    ]
    chosen = np.zeros(count, np.bool_)
    chosen[np.concatenate(held_out)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def label_strata(sets: Sequence[Hashable], share: float) -> list[Hashable]:
    """The classes by which `stratified_split` holds out examples of several labels each.

    Sets that are too rare to give their share, an example at least, are one class together.

    Args:
        sets: The labels of each example, as a tuple; what is no tuple is a class of its own.
        share: The share to hold out.

    >>> label_strata([("a",), ("a",), ("a", "b"), ()], share=0.5)
    [('a',), ('a',), None, None]
    """
    counts = Counter(sets)
    return [None if isinstance(one, tuple) and share * counts[one] < 1 else one for one in sets]
