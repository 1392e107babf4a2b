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

MAX_INT8_TERMS = 133_000
"""A sum of so many products of int8 fits into int32; longer ones are computed in float32."""

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
    with products_in(_checked(precision)):
        yield


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Compute matrix products in what `current_matmul_precision` was: with int8 weights too.

    >>> with int8_weights():
    ...     precision = current_matmul_precision()
    >>> with products_in(precision):
    ...     current_matmul_precision()
    'int8'
    """
    token = _here.set(precision)
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def int8_weights() -> Iterator[None]:
    """Compute products of float32 rows and weights in int8, in the block that follows.

    For inference: nothing can be recorded in the block. The weights are those of recurrent layers,
    of linear layers and of embeddings: all that `matmul`, `linear_cross_entropy_losses`,
    `recurrence_forward`, `pack_layers` and `gather_rows` take. Products of two activations,
    equations, biases and softmax are those of float32, and so are sums of more than 133,000 terms.

    A weight [N, K] is `quantized`, with one scale s an output unit; each row x of the activations
    as it comes, with one scale r:

        r = max|x| / 127;  p = x * (127 / max|x|), rounded to the nearest integer, ties to even
        y = (p_1 q_1 + ... + p_K q_K) * (r * s) + bias

    The sum is exact and then rounded to float32, as is every other operation, in this order: the
    bits are the same with every engine and instruction set. As in `quantized`, a row below 2^-100
    is 0, and one that is not below 2^127 gives NaN.

    >>> from anaphora.engine import matmul
    >>> x, weight = np.array([[1.0, 0.26]], np.float32), np.array([[2.0], [1.0]], np.float32)
    >>> with int8_weights():
    ...     matmul(x, weight)
    array([[2.2578638]], dtype=float32)
    """
    with products_in("int8"):
        yield


def quantized(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight [N, K] in 8 bits: integers [N, K] and the scale of each row, [N].

        s = max|w| / 127, rounded up to 16 significant bits;  q = w / s, rounded half to even

    So q s is exact in float32, and what `dequantized` returns is quantized to the same q and s. A
    row whose largest magnitude is below 2^-100 becomes 0, with the scale 0. The scale of a row with
    NaN, or a magnitude of 2^127 or more, is NaN.

    >>> integers, scales = quantized(np.array([[0.5, -1.27], [0.0, 0.0]], np.float32))
    >>> integers.tolist(), scales
    ([[50, -127], [0, 0]], array([0.01000023, 0.        ], dtype=float32))
    """
    weight = np.ascontiguousarray(weight, np.float32)
    largest, finite = _largest(weight)
    bits = (largest / np.float32(127)).view(np.uint32)
    scales = ((bits + np.uint32(0xFF)) & np.uint32(0xFFFFFF00)).view(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(np.inf))[:, None]
    integers = np.rint(np.where(finite[:, None], weight, 0) / divisors)
    return integers.astype(np.int8), np.where(finite, scales, np.float32(np.nan))


def dequantized(integers: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weight [N, K] that `quantized` made integers and scales of, within half a scale.

    >>> dequantized(np.array([[50, -127]], np.int8), np.array([0.5], np.float32))
    array([[ 25. , -63.5]], dtype=float32)
    """
    return integers.astype(np.float32) * scales.astype(np.float32)[:, None]


def rows_of_table(rows: Array) -> Array:
    """Rows [..., I] of an embedding, as the current precision has them.

    >>> with int8_weights():
    ...     rows_of_table(np.array([1.0, 0.3], np.float32))
    array([1.0000298 , 0.29922152], dtype=float32)
    """
    if rows.dtype != np.float32 or rows.ndim == 0 or current_matmul_precision() != "int8":
        return rows
    return dequantized(*quantized(rows.reshape(-1, rows.shape[-1]))).reshape(rows.shape)


def int8_product(a: Array, b: Array) -> Array | None:
    """Rows a [M, K] by the weight b [K, N], or None if the current precision is another."""
    if not (a.dtype == b.dtype == np.float32 and len(b) <= MAX_INT8_TERMS):
        return None
    if current_matmul_precision() != "int8":
        return None
    a = np.ascontiguousarray(a)
    largest, finite = _largest(a)
    nonzero = np.where(largest > 0, largest, np.float32(1))
    factors = np.where(largest > 0, np.float32(127) / nonzero, np.float32(0))[:, None]
    left = np.rint(np.where(finite[:, None], a, 0) * factors)
    units = np.where(finite, largest / np.float32(127), np.float32(np.nan))
    right, scales = quantized(b.T)
    sums = left.astype(np.float64) @ right.T.astype(np.float64)  # exact: integers below 2^53
    with np.errstate(over="ignore", invalid="ignore"):
        product: Array = (sums + 0.0).astype(np.float32) * (units[:, None] * scales)  # no -0
    return product


def _largest(rows: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The largest magnitude of each row [N, K], 0 if it counts as 0, and whether it is finite."""
    largest = np.abs(rows).max(axis=1, initial=0)
    finite = largest < np.float32(2.0**127)  # NaN is not
    return np.where(finite & (largest >= np.float32(2.0**-100)), largest, np.float32(0)), finite


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
            with products_in(precision):
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
    if array.dtype != np.float32 or current_matmul_precision() != "bfloat16":
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
