"""Sums in one fixed order: a balanced binary tree over the shards of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["TreeSum", "add_arrays", "is_power_of_two", "sum_into", "tree_sum"]

Value = TypeVar("Value")


class TreeSum(Generic[Value]):
    """The sum of values that come one after the other, in the order of a balanced binary tree.

    Of 4 values it is ``(0 + 1) + (2 + 3)``. The values of a process are a subtree, so that the sum
    over processes of their sums is the same, to the bit, however many processes share the values.
    No more than ``log2(count) + 1`` values are kept.

    Args:
        add: The sum of two values; it may change the first.

    >>> total = TreeSum(lambda a, b: f"({a} + {b})")
    >>> for value in range(4):
    ...     total.push(str(value))
    >>> total.pop()
    '((0 + 1) + (2 + 3))'
    """

    def __init__(self, add: Callable[[Value, Value], Value]) -> None:
        self._add = add
        self._subtrees: list[tuple[int, Value]] = []  # their heights, descending, and their sums

    def push(self, value: Value) -> None:
        """Add the next value."""
        height = 0
        while self._subtrees and self._subtrees[-1][0] == height:
            value = self._add(self._subtrees.pop()[1], value)
            height += 1
        self._subtrees.append((height, value))

    def pop(self) -> Value:
        """The sum of the values, of which there must be at least one; it starts anew."""
        _, total = self._subtrees.pop()
        while self._subtrees:
            total = self._add(self._subtrees.pop()[1], total)
        return total


def tree_sum(values: Iterable[Value], add: Callable[[Value, Value], Value]) -> Value:
    """The sum of all values in the order of `TreeSum`.

    >>> tree_sum([1.0, 1e16, -1e16, 1.0], lambda a, b: a + b)  # from left to right it is 1.0
    0.0
    """
    total = TreeSum(add)
    for value in values:
        total.push(value)
    return total.pop()


def sum_into(out: NDArray[Any], values: Sequence[NDArray[Any]]) -> None:
    """Write the sum of arrays into another, in the order of `TreeSum`; they do not change.

    >>> total = np.empty(1)
    >>> sum_into(total, [np.array([x]) for x in (1.0, 1e16, -1e16, 1.0)])
    >>> total
    array([0.])
    """
    if len(values) == 1:
        out[...] = values[0]
    elif len(values) == 2:
        np.add(values[0], values[1], out=out)
    else:
        first = 1 << ((len(values) - 1).bit_length() - 1)  # values in the first subtree
        other = np.empty_like(out)
        sum_into(out, values[:first])
        sum_into(other, values[first:])
        out += other


def add_arrays(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Add the second array to the first.

    >>> add_arrays(np.array([1.0]), np.array([2.0]))
    array([3.])
    """
    a += b
    return a


def is_power_of_two(number: int) -> bool:
    """Whether a number is 1, 2, 4, 8, ...

    >>> [number for number in range(10) if is_power_of_two(number)]
    [1, 2, 4, 8]
    """
    return number > 0 and number & (number - 1) == 0
