"""Graphs of small operations in one memory, which the native engine runs in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from anaphora.engine.kernels import Array
from anaphora.engine.recurrence import PackedLayers

LINE = 16
"""The numbers to a multiple of which arrays that steps write are rounded up in the memory."""


class Elementwise(NamedTuple):
    """``to = name(a, b)``: an operation of `equations`, or square_root; b is any if it has one."""

    name: str
    to: int
    a: int
    b: int
    size: int


class Gather(NamedTuple):
    """``to[i] = memory[places[i]]``."""

    to: int
    places: Array


class Product(NamedTuple):
    """``to [rows, row] = a [rows, K] weight [N, K]^T + bias [N]``; row is N rounded up."""

    to: int
    row: int
    a: int
    rows: int
    weight: Array
    bias: Array | None


class Layers(NamedTuple):
    """One packed layer over x [steps, batch, I] at ``a``; its states are updated in place."""

    to: int
    a: int
    steps: int
    batch: int
    packed: PackedLayers
    states: Sequence[int]


GraphStep: TypeAlias = Elementwise | Gather | Product | Layers
GraphArray: TypeAlias = tuple[int, tuple[int, ...]]
"""The place of an array in the memory, and its shape."""


def pack_graph(
    memory: int,
    constants: Array,
    given: Sequence[GraphArray],
    results: Sequence[GraphArray],
    steps: Sequence[GraphStep],
) -> Callable[[Sequence[Array]], tuple[Array, ...]] | None:
    """Pack the weights of a graph of steps; each writes to places that no other step writes to.

    Sums of products are of the arrays' precision on every instruction set.

    Args:
        memory: The number of elements of the memory.
        constants: What it begins with, [n].
        given: The arrays that the graph is called with, contiguous and of the constants' dtype.
        results: What it returns.
        steps: In their order.

    Returns:
        A function from the arrays given to those returned, which any number of threads may call; or
        None if the engine cannot pack: on NumPy, and for precisions other than float32 and float64.

    >>> import numpy as np
    >>> steps = [Elementwise("multiply", 16, 0, 0, 2)]
    >>> pack_graph(32, np.zeros(0), [(0, (2,))], [(16, (2,))], steps) is None  # NumPy's version
    True
    """
    return None
