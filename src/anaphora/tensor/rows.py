"""Gradients of tables of which only some rows were read."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anaphora import engine

Array: TypeAlias = NDArray[Any]


class RowGradient:
    """The gradient of a table of which only some rows were read: indices and values.

    Rows read several times are summed, in the order in which they were read.

    Attributes:
        indices: [N] the rows, ascending, each once.
        values: [N, ...] their gradients.
        shape: The shape of the table.

    >>> gradient = RowGradient(np.array([2, 0, 2]), np.ones((3, 1)), (4, 1))
    >>> gradient.indices, gradient.dense()[:, 0]
    (array([0, 2]), array([1., 0., 2., 0.]))
    """

    __slots__ = ("indices", "shape", "values")

    def __init__(self, indices: Array, values: Array, shape: tuple[int, ...]) -> None:
        rows = np.asarray(values).reshape(-1, *shape[1:])
        self.indices, self.values = engine.sum_rows(np.asarray(indices).reshape(-1), rows)
        self.shape = shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.values.dtype

    def dense(self) -> Array:
        """The whole table, zero in the rows that were not read."""
        table = np.zeros(self.shape, self.dtype)
        table[self.indices] = self.values
        return table

    def __add__(self, other: RowGradient | Array) -> RowGradient | Array:
        if isinstance(other, RowGradient):
            return RowGradient(
                np.concatenate([self.indices, other.indices]),
                np.concatenate([self.values, other.values]),
                self.shape,
            )
        total = other.copy()
        total[self.indices] += self.values
        return total

    __radd__ = __add__
    __array_ufunc__ = None  # an array on the left leaves the addition to us

    def __repr__(self) -> str:
        return f"RowGradient({len(self.indices)} of {self.shape[0]} rows, {self.dtype})"


Gradient: TypeAlias = "Array | RowGradient"
