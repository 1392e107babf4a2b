"""Einstein summation, by way of batched matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora.ops.arithmetic import multiply
from anaphora.ops.linear import matmul
from anaphora.ops.reductions import sum
from anaphora.ops.shapes import getitem, reshape, transpose
from anaphora.tensor import Input, Operand, Tensor, composed, differentiable


@differentiable
def _einsum(*operands: Input) -> Any:
    """The operands as they are, in one dtype."""
    return operands, lambda d: d


@composed
def einsum(subscripts: str, /, *operands: Operand) -> Tensor:
    """Einstein summation: products of elements, summed over the letters that the output lacks.

    Operands are combined from left to right. Each pair that shares a summed letter is a batched
    matrix product, with the bits of `matmul`.

    Args:
        subscripts: The letters of the axes of each operand, and after ``->`` those of the output;
            without ``->`` these are the letters that occur once, in alphabetical order. ``...``
            stands for any axes, which broadcast.
        operands: One or more.

    Raises:
        TypeError: the subscripts are not a string.
        ValueError: the subscripts cannot be read, or do not fit the shapes.

    >>> einsum("bi,bj,ij->b", [[1.0, 2.0]], [[3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]).data
    array([11.], dtype=float32)
    """
    tensors = _einsum(*operands) if operands else ()
    terms, output = read_subscripts(subscripts, [x.ndim for x in tensors])
    sizes = _sizes(subscripts, terms, [x.shape for x in tensors])
    parts = [_plain(x, term, sizes) for x, term in zip(tensors, terms, strict=True)]
    (y, labels), *rest = parts
    for k, (x, others) in enumerate(rest, start=1):
        needed = {*output, *(label for _, later in parts[k + 1 :] for label in later)}
        y, labels = _combine(y, labels, x, others, needed, sizes)
    y, labels = _summed(y, labels, set(output))
    return transpose(y, [labels.index(label) for label in output])


def read_subscripts(subscripts: str, axes: list[int]) -> tuple[list[list[str]], list[str]]:
    """The labels of the axes of each operand, and of the output; those of ``...`` are numbers.

    Raises:
        TypeError: the subscripts are not a string.
        ValueError: they cannot be read, or do not fit the numbers of axes.
    """
    if not isinstance(subscripts, str):
        raise TypeError("einsum: the subscripts come first, as a string such as 'ij,jk->ik'")
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    texts = inputs.split(",")
    if len(texts) != len(axes):
        raise ValueError(
            f"einsum: {subscripts!r} is for {len(texts)} operands, but {len(axes)} were given"
        )
    terms = [_labels(subscripts, text, ndim) for text, ndim in zip(texts, axes, strict=True)]
    given = [label for term in terms for label in term]
    unnamed = sorted({label for label in given if label.isdigit()}, key=int, reverse=True)
    if not arrow:
        once = sorted(label for label in set(given) if given.count(label) == 1)
        return terms, [*unnamed, *(label for label in once if not label.isdigit())]
    dots = len(unnamed) if "..." in output else 0
    wanted = _labels(subscripts, output, len(output.replace("...", "")) + dots)
    lost = set(unnamed) - set(wanted)
    if not set(wanted) <= set(given) or len(set(wanted)) < len(wanted) or lost:
        raise ValueError(
            f"einsum: the output of {subscripts!r} must have letters of the operands, each once"
            + (", and '...', which an operand has" if lost else "")
        )
    return terms, wanted


def _labels(subscripts: str, text: str, ndim: int) -> list[str]:
    """The letters of one operand with ``...`` replaced by numbers, counted from the last axis.

    Raises:
        ValueError: there are other characters, or too many or too few for the axes.
    """
    before, dots, after = text.partition("...")
    unnamed = ndim - len(before) - len(after)
    if not all(c.isascii() and c.isalpha() for c in before + after):
        raise ValueError(
            f"einsum: {subscripts!r} has characters other than letters, ',', '->' and '...'"
        )
    if unnamed < 0 or (unnamed > 0 and not dots):
        raise ValueError(
            f"einsum: {text!r} in {subscripts!r} is for {len(before) + len(after)} axes, but the "
            f"operand has {ndim}"
        )
    return [*before, *(str(k) for k in range(unnamed - 1, -1, -1)), *after]


def _sizes(
    subscripts: str, terms: list[list[str]], shapes: list[tuple[int, ...]]
) -> dict[str, int]:
    """The size of each label; axes of size 1 broadcast.

    Raises:
        ValueError: a label has two sizes.
    """
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            before = sizes.setdefault(label, size)
            if before == 1:
                sizes[label] = size
            elif size not in (1, before):
                what = "'...'" if label.isdigit() else repr(label)
                raise ValueError(
                    f"einsum: {what} in {subscripts!r} is {before} and {size} in shapes "
                    f"{', '.join(map(str, shapes))}"
                )
    return sizes


def _plain(x: Any, labels: list[str], sizes: dict[str, int]) -> tuple[Any, list[str]]:
    """An operand without axes that broadcast, and with each label once: of two, the diagonal."""
    kept = [k for k, label in enumerate(labels) if x.shape[k] == sizes[label]]
    x, labels = reshape(x, tuple(x.shape[k] for k in kept)), [labels[k] for k in kept]
    while len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        first = labels.index(twice)
        second = labels.index(twice, first + 1)
        others = [k for k in range(len(labels)) if k not in (first, second)]
        diagonal = np.arange(sizes[twice])
        x = getitem(transpose(x, [first, second, *others]), (diagonal, diagonal))
        labels = [twice, *(labels[k] for k in others)]
    return x, labels


def _summed(x: Any, labels: list[str], needed: set[str]) -> tuple[Any, list[str]]:
    """Sum over the axes whose labels are not needed."""
    axes = tuple(k for k, label in enumerate(labels) if label not in needed)
    return (sum(x, axes) if axes else x), [label for label in labels if label in needed]


def _combine(
    a: Any,
    a_labels: list[str],
    b: Any,
    b_labels: list[str],
    needed: set[str],
    sizes: dict[str, int],
) -> tuple[Any, list[str]]:
    """The product of two operands, summed over the labels that are not needed afterwards."""
    a, a_labels = _summed(a, a_labels, needed | set(b_labels))
    b, b_labels = _summed(b, b_labels, needed | set(a_labels))
    shared = [label for label in a_labels if label in b_labels]
    batch = [label for label in shared if label in needed]
    inner = [label for label in shared if label not in needed]
    left = [label for label in a_labels if label not in shared]
    right = [label for label in b_labels if label not in shared]

    def arranged(x: Any, labels: list[str], order: list[str], shape: tuple[int, ...]) -> Any:
        return reshape(transpose(x, [labels.index(label) for label in order]), shape)

    def shape(labels: list[str]) -> tuple[int, ...]:
        return tuple(sizes[label] for label in labels)

    if not inner:
        a = arranged(a, a_labels, batch + left, shape(batch + left) + (1,) * len(right))
        b = arranged(b, b_labels, batch + right, shape(batch) + (1,) * len(left) + shape(right))
        return multiply(a, b), batch + left + right
    M, K, N = (math.prod(shape(labels)) for labels in (left, inner, right))
    a = arranged(a, a_labels, batch + left + inner, (*shape(batch), M, K))
    b = arranged(b, b_labels, batch + inner + right, (*shape(batch), K, N))
    return reshape(matmul(a, b), shape(batch + left + right)), batch + left + right
