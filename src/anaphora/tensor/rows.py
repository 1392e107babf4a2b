"""Sparse gradients of tables of which only some rows were read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from anaphora import engine, foreign_names

Array: TypeAlias = NDArray[Any]

Input: TypeAlias = Array | Any
"""What an operation is called with, a Tensor or anything like an array; its function gets an array.
"""


class RowGradient(NDArrayOperatorsMixin):
    """The sparse gradient of a table of which only some rows were read: indices and values.

    Gradients of the same row are summed, in order. NumPy's functions, operators and indexing treat
    it as the dense table, zero in all other rows.

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
        """The dense table, zero in all other rows."""
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
        if np.shape(other) != self.shape:
            return self.dense() + other
        total = other.copy()
        total[self.indices] += self.values
        return total

    __radd__ = __add__

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self.dense()[index]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(
                "RowGradient: the dense table is a new array; copy=False is not possible"
            )
        return self.dense().astype(self.dtype if dtype is None else dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if ufunc is np.add and method == "__call__" and not options:  # array + rows
            return self + (inputs[0] if inputs[1] is self else inputs[1])
        dense = (i.dense() if isinstance(i, RowGradient) else i for i in inputs)
        return getattr(ufunc, method)(*dense, **options)

    if not TYPE_CHECKING:  # type checkers should see the real attributes only

        def __getattr__(self, name: str) -> Any:
            foreign_names.attribute_missing(self, "RowGradient", name)

    def __repr__(self) -> str:
        return f"RowGradient({len(self.indices)} of {self.shape[0]} rows, {self.dtype})"


Gradient: TypeAlias = "Array | RowGradient"
