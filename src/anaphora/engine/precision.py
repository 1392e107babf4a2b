"""The precision of the operands of matrix products, and their rounding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

Item = TypeVar("Item")

MATMUL_PRECISIONS = ("float32", "bfloat16")

_here: ContextVar[str | None] = ContextVar("matmul_precision", default=None)
_elsewhere = "float32"


def current_matmul_precision() -> str:
    """The precision that products of float32 have now.

    >>> with matmul_precision("bfloat16"):
    ...     current_matmul_precision()
    'bfloat16'
    """
    return _here.get() or _elsewhere


def set_matmul_precision(precision: str) -> None:
    """Set the precision of matrix products, in all threads; see `matmul_precision`.

    Raises:
        ValueError: it is neither "float32" nor "bfloat16".

    >>> set_matmul_precision("bfloat16")
    >>> current_matmul_precision()
    'bfloat16'
    >>> set_matmul_precision("float32")
    """
    global _elsewhere
    _elsewhere = _checked(precision)


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Compute matrix products of float32 in this precision, in the block that follows.

    With "bfloat16" both operands of every product are rounded to bfloat16, to the nearest, ties to
    even, and multiplied with sums in float32. Parameters, states, gates, gradients and whatever an
    optimizer keeps are float32, as with "float32", the default. float64 stays as it is.

    A backward pass has the precision of its forward pass, wherever it runs, and a session that of
    its construction.

    Args:
        precision: "float32" or "bfloat16".

    Raises:
        ValueError: it is neither.

    >>> x = np.array([[1 + 2**-9]], np.float32)  # bfloat16 has 8 bits
    >>> from anaphora.engine import matmul
    >>> with matmul_precision("bfloat16"):
    ...     matmul(x, x)
    array([[1.]], dtype=float32)
    """
    token = _here.set(_checked(precision))
    try:
        yield
    finally:
        _here.reset(token)


def with_current_precision(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate in the precision that matrix products have now, wherever the iteration goes on.

    >>> with matmul_precision("bfloat16"):
    ...     precisions = with_current_precision(current_matmul_precision() for _ in range(2))
    >>> list(precisions), current_matmul_precision()
    (['bfloat16', 'bfloat16'], 'float32')
    """
    precision, iterator = current_matmul_precision(), iter(items)

    def steps() -> Iterator[Item]:
        while True:
            with matmul_precision(precision):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    return steps()


def rounded(array: Array) -> Array:
    """An operand of a product as the current precision has it.

    Numbers below 2^-126 become 0 in bfloat16, as in the instructions of processors.

    >>> with matmul_precision("bfloat16"):
    ...     rounded(np.array([3.14159, 1e-40], np.float32)).tolist()
    [3.140625, 0.0]
    """
    if array.dtype != np.float32 or current_matmul_precision() == "float32":
        return array
    bits = np.ascontiguousarray(array).view(np.uint32)
    nearest = (bits + (0x7FFF + (bits >> 16 & 1))) & np.uint32(0xFFFF0000)
    magnitude = bits & 0x7FFFFFFF
    nearest = np.where(magnitude > 0x7F800000, bits | 0x400000, nearest)  # NaN
    nearest = np.where(magnitude < 0x800000, bits & 0x80000000, nearest)
    return nearest.astype(np.uint32).view(np.float32).reshape(array.shape)


def _checked(precision: str) -> str:
    if precision not in MATMUL_PRECISIONS:
        raise ValueError(
            f"the precision of matrix products is {precision!r}; expected 'float32' or 'bfloat16'"
        )
    return precision
