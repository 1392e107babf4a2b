"""Convolution over time."""

from __future__ import annotations

from typing import Any

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
    other sequences, nor on zeros after its end. While it is computed, a batch takes K / stride
    times the memory of x; one sequence takes none.

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
    batch = x.shape[1:-1]  # (B,), or () for one sequence
    pads = [(before, after), *((0, 0),) * (x.ndim - 1)]
    padded = np.pad(x, pads) if before or after else x
    blocks = [slice(g * O // groups, (g + 1) * O // groups) for g in range(groups)]
    taps = [slice(k * dilation, k * dilation + (S - 1) * stride + 1, stride) for k in range(K)]
    features = weight.shape[1]

    def unfolded(group: int) -> Array:
        """What each output of a group reads: [S * B, K * I / groups], without a copy if B is 1."""
        inputs = padded[..., group * features : (group + 1) * features]
        strides = inputs.strides
        windows = np.lib.stride_tricks.as_strided(
            inputs,
            (S, *batch, K, features),
            (stride * strides[0], *strides[1:-1], dilation * strides[0], strides[-1]),
            writeable=False,
        )
        return windows.reshape(-1, K * features)

    def filters(group: int) -> Array:
        """The weight of a group as a matrix [O / groups, K * I / groups]."""
        return weight[blocks[group]].transpose(0, 2, 1).reshape(-1, K * features)

    y = np.empty((S, *batch, O), x.dtype)
    for group, block in enumerate(blocks):
        product = engine.matmul(
            unfolded(group), filters(group).T, None if bias is None else bias[block]
        )
        y[..., block] = product.reshape(S, *batch, O // groups)

    def of_group(dy: Array, group: int) -> Array:
        return dy[..., blocks[group]].reshape(-1, O // groups)

    def pull_x(dy: Array) -> Array:
        d_padded = np.zeros_like(padded)
        for group in range(groups):
            d_windows = engine.matmul(of_group(dy, group), filters(group), gradient="input")
            d_windows = d_windows.reshape(S, *batch, K, features)
            d_inputs = d_padded[..., group * features : (group + 1) * features]
            for k, tap in enumerate(taps):
                d_inputs[tap] += d_windows[..., k, :]
        return d_padded[before : before + len(x)]

    def pull_weight(dy: Array) -> Array:
        d_weight = np.empty_like(weight)
        for group, block in enumerate(blocks):
            d_filters = engine.matmul(of_group(dy, group).T, unfolded(group), gradient="weight")
            d_weight[block] = d_filters.reshape(-1, K, features).transpose(0, 2, 1)
        return d_weight

    def pull_bias(dy: Array) -> Array:
        return engine.sum_columns(dy.reshape(-1, O))

    return y, (pull_x, pull_weight, pull_bias)


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
