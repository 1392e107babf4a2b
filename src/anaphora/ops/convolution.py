"""Convolution over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from anaphora import engine
from anaphora.options import check_sizes
from anaphora.tensor import Array, Input, differentiable

Padding = int | str | tuple[int, int]
"""Zeros at both ends, "same", "causal", or the numbers of zeros before and after."""


@differentiable
def conv1d(
    x: Input,
    weight: Input,
    bias: Input | None = None,
    /,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Any:
    """``y[s] = b + sum over k of W[:, :, k] x[s * stride + k * dilation - before]``, over time.

    x is 0 outside its T steps, of which ``padding`` puts some ``before`` and some after. It is a
    matrix product with the native engine: the bits of a sequence's outputs do not depend on the
    other sequences, nor on zeros after its end. It takes as much memory as x; or K / stride times
    as much if both a stride and a dilation are more than 1, or if x is hardly longer than a filter.

    Shapes: x [T, B, I], or [T, I] for one sequence; weight [O, I / groups, K]; bias [O]; returns
    [S, B, O] or [S, O] with ``S = (T + before + after - dilation * (K - 1) - 1) // stride + 1``.
    PyTorch's layout is [B, I, T]: ``x.transpose(2, 0, 1)`` of it is ours.

    Args:
        x: The sequences.
        weight: The filters, as in PyTorch.
        bias: One number for each output feature.
        stride: The number of steps from one output to the next.
        padding: The number of zeros at both ends, or (before, after); "same" for as many as keep
            T (stride 1; one more after than before if their number is odd); "causal" for all of
            them before, so that an output depends on no later step.
        dilation: The number of steps from one term to the next.
        groups: The number of equal blocks of features, each with filters of its own.

    Raises:
        ValueError: the shapes do not match, an option is out of range, or the padded sequence is
            shorter than the filter.

    >>> x = [[1.0], [2.0], [4.0]]
    >>> conv1d(x, [[[1.0, 10.0]]]).data.ravel()
    array([21., 42.], dtype=float32)
    >>> conv1d(x, [[[1.0, 10.0]]], padding="causal").data.ravel()
    array([10., 21., 42.], dtype=float32)
    """
    O, K = _checked(x, weight, bias, stride, dilation, groups)
    before, after = padding_sizes(padding, K, stride, dilation)
    S = output_steps(len(x), before + after, K, stride, dilation)
    if S < 1:
        raise ValueError(
            f"conv1d: {len(x)} steps and {before + after} of padding are shorter than the filter, "
            f"which covers {dilation * (K - 1) + 1}; pad the sequence"
        )
    sizes = _Sizes(x.shape, S, O, K, before, stride, dilation, groups)
    rows: _CopiedRows = _OverlappingRows(sizes, before + len(x) + after)
    if not rows.suits:
        rows = _CopiedRows(sizes, before + len(x) + after)
    columns = weight.reshape(groups, O // groups, -1, K).swapaxes(2, 3)  # [groups, O', K, I']
    filters = columns.reshape(groups, O // groups, -1)
    windows = rows.windows(x)
    biases = [None] * groups if bias is None else bias.reshape(groups, -1)
    products = [engine.matmul(a, w.T, b) for a, w, b in zip(windows, filters, biases, strict=True)]

    def pull_x(dy: Array) -> Array:
        return rows.d_inputs(dy, columns)

    def pull_weight(dy: Array) -> Array:
        d_filters = [
            engine.matmul(d_rows.T, read, gradient="weight")
            for d_rows, read in zip(rows.gradients(dy), windows, strict=True)
        ]
        return np.stack(d_filters).reshape(columns.shape).swapaxes(2, 3).reshape(weight.shape)

    def pull_bias(dy: Array) -> Array:
        return engine.sum_columns(dy.reshape(-1, O))

    return rows.outputs(products), (pull_x, pull_weight, pull_bias)


class _Sizes(NamedTuple):
    """The sizes of a convolution; x [T, B, I] or [T, I]."""

    shape: tuple[int, ...]  # of x
    S: int
    O: int
    K: int
    before: int
    stride: int
    dilation: int
    groups: int

    @property
    def sequences(self) -> int:
        """B, or 1."""
        return math.prod(self.shape[1:-1])

    @property
    def features(self) -> int:
        """Those of a group."""
        return self.shape[-1] // self.groups

    @property
    def outputs(self) -> int:
        """The output features of a group."""
        return self.O // self.groups


def _products_with_weight(gradients: Iterable[Array], filters: Array) -> list[Array]:
    """The gradients of what a product's rows read, of each group."""
    return [engine.matmul(d, w, gradient="input") for d, w in zip(gradients, filters, strict=True)]


class _CopiedRows:
    """What each output reads, as the rows of a matrix [S * B, K * I'] for each group: a copy."""

    def __init__(self, sizes: _Sizes, length: int) -> None:
        self.sizes, self.length = sizes, length

    @property
    def suits(self) -> bool:
        """Whether to compute the convolution so."""
        return True

    def windows(self, x: Array) -> list[Array]:
        """The rows, of each group."""
        z, T = self.sizes, self.sizes.shape[0]
        padded = np.zeros((self.length, z.sequences, z.groups, z.features), x.dtype)
        padded[z.before : z.before + T] = x.reshape(T, z.sequences, z.groups, z.features)
        t, b, g, i = padded.strides
        read = np.lib.stride_tricks.as_strided(
            padded,
            (z.groups, z.S, z.sequences, z.K, z.features),
            (g, t * z.stride, b, t * z.dilation, i),
            writeable=False,
        )
        return [group.reshape(z.S * z.sequences, z.K * z.features) for group in read]

    def outputs(self, products: list[Array]) -> Array:
        """The outputs [S, B, O], of the products of each group's rows."""
        z = self.sizes
        shape = (z.S, *z.shape[1:-1], z.O)
        return (products[0] if z.groups == 1 else np.concatenate(products, 1)).reshape(shape)

    def gradients(self, dy: Array) -> list[Array]:
        """The gradients of the products."""
        z = self.sizes
        split = dy.reshape(z.S * z.sequences, z.groups, z.outputs)
        return [split[:, group] for group in range(z.groups)]

    def d_inputs(self, dy: Array, columns: Array) -> Array:
        """The gradient of x, of that of the outputs and the filters [groups, O', K, I']."""
        z, T = self.sizes, self.sizes.shape[0]
        filters = columns.reshape(z.groups, z.outputs, z.K * z.features)
        d_padded = np.zeros((self.length, z.sequences, z.groups, z.features), dy.dtype)
        for group, d in enumerate(_products_with_weight(self.gradients(dy), filters)):
            d_windows = d.reshape(z.S, z.sequences, z.K, z.features)
            for k in range(z.K):
                first = k * z.dilation
                tap = slice(first, first + (z.S - 1) * z.stride + 1, z.stride)
                d_padded[tap, :, group] += d_windows[:, :, k]
        return d_padded[z.before : z.before + T].reshape(z.shape)


class _OverlappingRows(_CopiedRows):
    """The same without a copy: rows of a view of lines, where they overlap.

    A line holds the steps of one sequence, with its padding, that are ``dilation`` apart, so that
    what an output reads are adjacent numbers. The lines [dilation, B, N, I'] of a group are one
    after the other, and outputs of all of them the rows of one matrix. Rows that cross from a line
    to the next belong to no output, and have the gradient 0.
    """

    def __init__(self, sizes: _Sizes, length: int) -> None:
        super().__init__(sizes, length)
        unit = sizes.stride * sizes.dilation
        self.N = -(-length // unit) * sizes.stride  # steps of a line
        self.M = sizes.dilation * sizes.sequences * self.N // sizes.stride  # rows

    @property
    def suits(self) -> bool:
        """Whether a line holds all that its outputs read, and few rows belong to no output."""
        z = self.sizes
        return (z.stride == 1 or z.dilation == 1) and 0 < 4 * self.M <= 5 * z.S * z.sequences

    def windows(self, x: Array) -> list[Array]:
        """The rows, of each group."""
        z = self.sizes
        lines = self._lines(
            x.reshape(len(x), z.sequences, z.groups, z.features), z.before, self.N, 0, z.K
        )
        return self._views(lines, z.stride)

    def outputs(self, products: list[Array]) -> Array:
        """The outputs [S, B, O], of the products of each group's rows."""
        z = self.sizes
        y = self._steps(products, z.S, 0)
        return y.reshape(z.S, *z.shape[1:-1], z.O)

    def gradients(self, dy: Array) -> list[Array]:
        """The gradients of the products."""
        z = self.sizes
        split = dy.reshape(z.S, z.sequences, z.groups, z.outputs)
        lines = self._lines(split, 0, self.N // z.stride, 0, 0)
        return list(lines.reshape(z.groups, self.M, z.outputs))

    def d_inputs(self, dy: Array, columns: Array) -> Array:
        """The gradient of x, of that of the outputs and the filters [groups, O', K, I']."""
        z, T = self.sizes, self.sizes.shape[0]
        if z.stride == 1:  # the convolution of dy by the filters in reverse
            split = dy.reshape(z.S, z.sequences, z.groups, z.outputs)
            rows = self._views(self._lines(split, 0, self.N, z.K - 1, 1), 1)
            reverse = columns[:, :, ::-1].transpose(0, 2, 1, 3).reshape(z.groups, -1, z.features)
            return self._steps(_products_with_weight(rows, reverse), T, z.before).reshape(z.shape)
        filters = columns.reshape(z.groups, z.outputs, z.K * z.features)
        width, lines = z.stride * z.features, []
        for d_windows in _products_with_weight(self.gradients(dy), filters):
            line = np.zeros((self.M + -(-z.K // z.stride), width), dy.dtype)
            for n, first in enumerate(range(0, z.K * z.features, width)):
                part = d_windows[:, first : first + width]
                line[n : n + self.M, : part.shape[1]] += part
            lines.append(line[: self.M].reshape(-1, z.features))
        return self._steps(lines, T, z.before).reshape(z.shape)

    def _lines(self, x: Array, before: int, N: int, first: int, after: int) -> Array:
        """Lines of N steps of x [T, B, groups, features], its first step at a place of its line.

        Zeros are around them: so many steps before the first line, and after the last one.
        """
        z, (T, B, groups, features) = self.sizes, x.shape
        count = z.dilation * B * N
        lines = np.zeros((groups, first + count + after, features), x.dtype)
        inner = lines[:, first : first + count].reshape(groups, z.dilation, B, N, features)
        for place, steps, line in self._places(T, before):
            inner[:, place, :, line] = x[steps].transpose(2, 1, 0, 3)
        return lines

    def _views(self, lines: Array, stride: int) -> list[Array]:
        """Rows of K steps of lines [groups, steps, features], each `stride` steps after another."""
        g, t, i = lines.strides
        K, features = self.sizes.K, lines.shape[2]
        shape = (len(lines), self.M, K * features)
        read = np.lib.stride_tricks.as_strided(lines, shape, (g, stride * t, i), writeable=False)
        return list(read)

    def _steps(self, lines: list[Array], T: int, before: int) -> Array:
        """The T steps [T, B, groups * features] from a place on, of lines of each group."""
        z = self.sizes
        N, features = len(lines[0]) // (z.dilation * z.sequences), lines[0].shape[1]
        x = np.empty((T, z.sequences, z.groups * features), lines[0].dtype)
        for group, of_group in enumerate(lines):
            inner = of_group.reshape(z.dilation, z.sequences, N, features)
            block = slice(group * features, (group + 1) * features)
            for place, steps, line in self._places(T, before):
                x[steps, :, block] = inner[place, :, line].transpose(1, 0, 2)
        return x

    def _places(self, T: int, before: int) -> Iterator[tuple[int, slice, slice]]:
        """Of each line of a sequence: its number, its steps among T, and their places in it."""
        for line in range(self.sizes.dilation):
            start = -(-max(0, before - line) // self.sizes.dilation)
            first = start * self.sizes.dilation + line - before
            count = max(0, -(-(T - first) // self.sizes.dilation))
            yield line, slice(first, T, self.sizes.dilation), slice(start, start + count)


def padding_sizes(padding: Padding, K: int, stride: int, dilation: int) -> tuple[int, int]:
    """The numbers of zeros before and after a sequence.

    Raises:
        ValueError: the padding is not one that `conv1d` knows, or "same" with a stride.
    """
    needed = dilation * (K - 1)
    if padding == "causal":
        return needed, 0
    if padding == "same":
        if stride != 1:
            raise ValueError(
                f"conv1d: padding 'same' keeps the number of steps, but stride {stride} does not; "
                "give the number of zeros, or 'causal'"
            )
        return needed // 2, needed - needed // 2
    sizes = padding if isinstance(padding, tuple) else (padding, padding)
    if isinstance(padding, str) or len(sizes) != 2:
        raise ValueError(
            f"conv1d: padding {padding!r} is not a number of zeros, two of them (before, after), "
            "'same' or 'causal'"
        )
    check_sizes("conv1d", minimum=0, padding=sizes[0])
    check_sizes("conv1d", minimum=0, padding=sizes[1])
    return int(sizes[0]), int(sizes[1])


def output_steps(T: Any, padding: int, K: int, stride: int, dilation: int) -> Any:
    """The number of outputs of T steps with padding; at most 0 if the filter is longer."""
    return (T + padding - dilation * (K - 1) - 1) // stride + 1


def _checked(
    x: Array, weight: Array, bias: Array | None, stride: int, dilation: int, groups: int
) -> tuple[int, int]:
    """The numbers of output features and of terms in time, after checks of what is given."""
    check_sizes("conv1d", stride=stride, dilation=dilation, groups=groups)
    if weight.ndim != 3 or len(weight) % groups or not weight.size:
        raise ValueError(
            f"conv1d: a weight of shape {weight.shape} for {groups} groups; expected "
            "[O, I / groups, K] with O a multiple of groups"
        )
    if x.ndim not in (2, 3) or x.shape[-1] != groups * weight.shape[1]:
        raise ValueError(
            f"conv1d: an input of shape {x.shape} for a weight of shape {weight.shape} and "
            f"{groups} groups; expected [T, B, I] or [T, I] with I = {groups * weight.shape[1]}: "
            "time is the first axis, features the last"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"conv1d: a bias of shape {bias.shape} for a weight of shape {weight.shape}; expected "
            f"{weight.shape[:1]}"
        )
    return len(weight), weight.shape[2]
