"""Initialization of parameters: PyTorch's, uniform, Xavier, orthogonal."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from anaphora import random
from anaphora.tensor import Array, Parameter, Tensor

Initialization: TypeAlias = "str | float"
"""``"pytorch"``, ``"xavier"``, ``"orthogonal"``, or a number ``a`` for uniform(-a, a)."""

SCHEMES = ("pytorch", "xavier", "orthogonal")


LARGEST = float(np.finfo(np.float32).max)
"""The largest number that a parameter of any dtype can hold."""

_shapes_only = contextvars.ContextVar("shapes_only", default=False)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which layers make parameters without memory and values, to learn their shapes.

    >>> from anaphora.nn import Linear
    >>> with shapes_only():
    ...     layer = Linear(10**9, 10**6)
    >>> layer.weight.shape
    (1000000, 1000000000)
    """
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


def is_enabled() -> bool:
    """Whether parameters get initial values: not within `shapes_only`."""
    return not _shapes_only.get()


def parameter_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype as NumPy's.

    Raises:
        ValueError: it is "bfloat16", which NumPy lacks.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        raise ValueError(
            "dtype 'bfloat16': parameters are float32 or float64; for products in bfloat16 use "
            "anaphora.matmul_precision('bfloat16')"
        )
    return np.dtype(dtype)


def parameter(shape: tuple[int, ...], dtype: DTypeLike, value: float = 0.0) -> Parameter:
    """A parameter filled with a value, or within `shapes_only` one without memory."""
    dtype = parameter_dtype(dtype)
    if _shapes_only.get():
        return Parameter.without_memory(shape, dtype)
    return Parameter(np.full(shape, value, dtype))


def check(initialization: Initialization) -> None:
    """Refuse an unknown initialization.

    Raises:
        ValueError: an unknown name, or a number that is not positive or too large for float32.
    """
    if isinstance(initialization, str):
        if initialization not in SCHEMES:
            raise ValueError(
                f"initialization {initialization!r} is not one of {', '.join(SCHEMES)}, nor a "
                "number a for uniform(-a, a)"
            )
    elif not isinstance(initialization, (int, float, np.number)) or not (
        0 < initialization <= LARGEST
    ):
        raise ValueError(
            f"initialization {initialization!r}: uniform(-a, a) needs a positive, finite number a, "
            f"at most {LARGEST:.3g}"
        )


def uniform(parameter: Parameter, bound: float) -> None:
    """Fill with samples of the uniform distribution between -bound and bound."""
    with parameter.writing() as array:
        array[...] = random.generator().uniform(-bound, bound, array.shape)


def normal(parameter: Parameter, deviation: float) -> None:
    """Fill with samples of a normal distribution around 0."""
    with parameter.writing() as array:
        array[...] = random.generator().normal(0, deviation, array.shape)


def constant(parameter: Parameter, value: float) -> None:
    """Set every element to a value."""
    with parameter.writing() as array:
        array[...] = value


def xavier(parameter: Parameter, blocks: int = 1) -> None:
    """Fill with samples of uniform(-a, a), a = sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010).

    Args:
        parameter: [blocks * O, I]; each block is a matrix. Or [O, I, K]: the filters of a
            convolution, with K terms for each input and output.
        blocks: The number of gates whose matrices are stacked.
    """
    outputs, inputs, terms = parameter.shape[0] // blocks, parameter.shape[1], parameter.shape[2:]
    uniform(parameter, math.sqrt(6 / ((inputs + outputs) * math.prod(terms))))


def orthogonal(parameter: Tensor, blocks: int = 1) -> None:
    """Fill each block [O, ...] with a random orthonormal matrix (Saxe et al. 2014)."""
    with parameter.writing() as array:
        for block in np.split(array, blocks):
            block[...] = _orthonormal(len(block), block[0].size).reshape(block.shape)


def _orthonormal(rows: int, columns: int) -> Array:
    samples = random.generator().normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(samples)
    q *= np.sign(np.diag(r))  # uniform over the orthogonal matrices
    return q if rows >= columns else q.T


def of_layer(
    parameter: Parameter,
    initialization: Initialization,
    hidden_size: int,
    is_recurrent: bool = False,
) -> None:
    """Initialize a parameter of a recurrent layer by the layer's option.

    Args:
        parameter: A vector, or a matrix: if its rows are a multiple of H, one block a gate.
        initialization: The option.
        hidden_size: H.
        is_recurrent: Whether "orthogonal" is meant for this matrix.
    """
    if initialization == "pytorch":
        uniform(parameter, 1 / math.sqrt(hidden_size))
    elif not isinstance(initialization, str):
        uniform(parameter, initialization)
    elif parameter.ndim == 1:
        constant(parameter, 0)
    else:
        blocks = len(parameter) // hidden_size if len(parameter) % hidden_size == 0 else 1
        is_orthogonal = is_recurrent and initialization == "orthogonal"
        (orthogonal if is_orthogonal else xavier)(parameter, blocks)
