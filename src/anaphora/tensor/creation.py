"""New Tensors: zeros, ones, ranges, random numbers and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import DTypeLike

from anaphora import foreign_names, random
from anaphora.tensor.methods import Operand
from anaphora.tensor.tensor import Tensor, as_tensor

Sizes: TypeAlias = "int | Sequence[int]"


def _shape(name: str, sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape of ``zeros(2, 3)`` and of ``zeros((2, 3))``.

    Raises:
        TypeError: the sizes are not integers.
    """
    given = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
    if not all(isinstance(size, (int, np.integer)) for size in given):
        raise TypeError(f"{name}: sizes are integers, not {given}; the dtype is given as dtype=")
    return given


def _dtype(x: Operand, dtype: DTypeLike | None) -> DTypeLike:
    """A dtype, or that of x without one."""
    return as_tensor(x, None, "x").dtype if dtype is None else dtype


@foreign_names.arguments_checked
def zeros(*shape: Sizes, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A Tensor of zeros; the sizes follow one another, or are a tuple.

    >>> zeros(2, 3), zeros((2,), dtype="int64")
    (Tensor([[0., 0., 0.],
            [0., 0., 0.]], dtype=float32), Tensor([0, 0], dtype=int64))
    """
    return Tensor(np.zeros(_shape("zeros", shape), dtype), requires_grad=requires_grad)


@foreign_names.arguments_checked
def ones(*shape: Sizes, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A Tensor of ones; the sizes follow one another, or are a tuple.

    >>> ones(2)
    Tensor([1., 1.], dtype=float32)
    """
    return Tensor(np.ones(_shape("ones", shape), dtype), requires_grad=requires_grad)


@foreign_names.arguments_checked
def full(
    shape: Sizes, fill_value: float, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """A Tensor of one number; without a dtype float32, or int64 for an integer.

    >>> full((2,), 0.5), full(2, 7)
    (Tensor([0.5, 0.5], dtype=float32), Tensor([7, 7], dtype=int64))
    """
    value = Tensor(fill_value, dtype=dtype).data
    return Tensor(np.full(_shape("full", (shape,)), value), requires_grad=requires_grad)


@foreign_names.arguments_checked
def arange(
    start: float, stop: float | None = None, step: float = 1, dtype: DTypeLike | None = None
) -> Tensor:
    """Numbers from a start (0, if only the stop is given) in steps, without the stop.

    Without a dtype they are int64, or float32 if one of the arguments is a float.

    >>> arange(3), arange(0, 1, 0.5)
    (Tensor([0, 1, 2], dtype=int64), Tensor([0. , 0.5], dtype=float32))
    """
    numbers = np.arange(start, step=step) if stop is None else np.arange(start, stop, step)
    if dtype is None and numbers.dtype == np.float64:
        dtype = np.float32
    return Tensor(numbers, dtype=dtype)


@foreign_names.arguments_checked
def rand(*shape: Sizes, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """Random numbers, uniform in 0 <= x < 1, from `anaphora.random.generator`.

    >>> random.seed(1)
    >>> rand(2)
    Tensor([0.47318864, 0.51182157], dtype=float32)
    """
    numbers = random.generator().random(_shape("rand", shape), cast(Any, np.dtype(dtype)))
    return Tensor(numbers, requires_grad=requires_grad)


@foreign_names.arguments_checked
def randn(*shape: Sizes, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """Random numbers from the standard normal distribution, from `anaphora.random.generator`.

    >>> random.seed(1)
    >>> randn(2, 1).shape
    (2, 1)
    """
    numbers = random.generator().standard_normal(_shape("randn", shape))
    return Tensor(numbers, dtype=dtype, requires_grad=requires_grad)


@foreign_names.arguments_checked
def zeros_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros in the shape of x, and in its dtype unless another is given.

    >>> zeros_like(ones(2, dtype="float64"))
    Tensor([0., 0.], dtype=float64)
    """
    return zeros(np.shape(x), dtype=_dtype(x, dtype), requires_grad=requires_grad)


@foreign_names.arguments_checked
def ones_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Ones in the shape of x, and in its dtype unless another is given.

    >>> ones_like(zeros(2), dtype="int64")
    Tensor([1, 1], dtype=int64)
    """
    return ones(np.shape(x), dtype=_dtype(x, dtype), requires_grad=requires_grad)


@foreign_names.arguments_checked
def full_like(
    x: Operand, fill_value: float, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """One number in the shape of x, and in its dtype unless another is given.

    >>> full_like(zeros(2), 7)
    Tensor([7., 7.], dtype=float32)
    """
    return full(np.shape(x), fill_value, _dtype(x, dtype), requires_grad)


@foreign_names.arguments_checked
def rand_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Random numbers as of `rand` in the shape of x, and in its dtype unless another is given.

    >>> rand_like(zeros(2, 3)).shape
    (2, 3)
    """
    return rand(np.shape(x), dtype=_dtype(x, dtype), requires_grad=requires_grad)


@foreign_names.arguments_checked
def randn_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Random numbers as of `randn` in the shape of x, and in its dtype unless another is given.

    >>> mean, deviation = zeros(2, 3), ones(2, 3)
    >>> sample = mean + deviation * randn_like(deviation)
    """
    return randn(np.shape(x), dtype=_dtype(x, dtype), requires_grad=requires_grad)


@foreign_names.arguments_checked
def randint(low: int, high: int | None, size: Sizes) -> Tensor:
    """Random integers, low <= x < high, from `anaphora.random.generator`.

    >>> random.seed(1)
    >>> randint(0, 10, (3,))
    Tensor([4, 5, 7], dtype=int64)
    """
    return Tensor(random.generator().integers(low, high, _shape("randint", (size,))))


@foreign_names.arguments_checked
def multinomial(probabilities: Operand, num_samples: int, replacement: bool = False) -> Tensor:
    """Sample indices with given probabilities, from `anaphora.random.generator`.

    Args:
        probabilities: [..., V], not negative; they are divided by their sum.
        num_samples: N, the number of indices to sample for each row.
        replacement: Whether an index can be sampled several times.

    Returns:
        int64 [..., N]; what has the probability 0 is never among them.

    Raises:
        ValueError: a probability is negative or not finite, all of a row are 0, or without
            replacement fewer than N are above 0.

    >>> random.seed(1)
    >>> multinomial([0.1, 0.0, 0.9], 2)
    Tensor([2, 0], dtype=int64)
    """
    weights = np.asarray(probabilities, np.float64)
    possible = np.count_nonzero(weights, axis=-1).min(initial=weights.shape[-1])
    if not np.isfinite(weights).all() or (weights < 0).any() or possible == 0:
        raise ValueError(
            "multinomial: probabilities are finite, not negative, and above 0 for at least one "
            "index of each row; softmax makes such of logits"
        )
    if not replacement and num_samples > possible:
        raise ValueError(
            f"multinomial: {num_samples} different indices, but a row has only {possible} whose "
            "probability is above 0; sample fewer, or with replacement=True"
        )
    shape = *weights.shape[:-1], num_samples
    if replacement:
        limits = weights.cumsum(axis=-1)
        uniform = random.generator().random(shape) * limits[..., -1:]
        found = (limits[..., None, :] <= uniform[..., None]).sum(axis=-1)
        last = weights.shape[-1] - 1 - (weights[..., ::-1] > 0).argmax(axis=-1)
        return Tensor(np.minimum(found, last[..., None]))  # where the product was rounded up
    # The first of independent events that happen with these rates are such a sample.
    times = np.full(weights.shape, np.inf)
    waits = random.generator().standard_exponential(weights.shape)
    np.divide(waits, weights, out=times, where=weights > 0)
    return Tensor(times.argsort(axis=-1)[..., :num_samples])
