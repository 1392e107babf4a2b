"""Layers that look at windows of steps: what they share with `Conv1d`, and pooling over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anaphora import foreign_names, ops
from anaphora.nn.kinds import without_padding
from anaphora.nn.module import Module
from anaphora.ops.convolution import output_steps
from anaphora.ops.recurrence import checked_lengths, within
from anaphora.options import check_sizes
from anaphora.tensor import Array, Operand, Tensor, as_integers, as_tensor
from anaphora.tensor.hooks import thread


class _Pooling(Module):
    """The base of both kinds of pooling: a subclass joins the steps of windows."""

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        *,
        ceil_mode: bool = False,
        batch_first: bool = False,
    ) -> None:
        stride = kernel_size if stride is None else stride
        check_sizes(self, kernel_size=kernel_size, stride=stride, dilation=dilation)
        check_sizes(self, minimum=0, padding=padding)
        span = dilation * (kernel_size - 1) + 1
        if padding > span // 2:
            dilated = "" if dilation == 1 else f" with dilation={dilation}"
            raise ValueError(
                f"{type(self).__name__}: padding {padding} is more than half of kernel_size="
                f"{kernel_size}{dilated}, so a window could be all padding"
            )
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode
        self.batch_first = batch_first

    def output_lengths(self, lengths: ArrayLike) -> Array:
        """[B]: the numbers of outputs of sequences of these lengths, 0 for too short ones."""
        if not self.ceil_mode:
            sizes = self.kernel_size, self.stride, self.dilation
            return window_counts(type(self).__name__, lengths, 2 * self.padding, *sizes)
        steps = as_integers(lengths, f"{type(self).__name__}: lengths are integers")
        return np.where(steps > 0, np.maximum(self._windows_of(steps), 0), 0)

    def _windows_of(self, steps: Any) -> Any:
        """The number of windows of so many steps; at most 0 if there are too few for one."""
        sizes = self.kernel_size, self.stride, self.dilation
        full = output_steps(steps, 2 * self.padding, *sizes)
        if not self.ceil_mode:
            return full
        partial = output_steps(steps, 2 * self.padding + self.stride - 1, *sizes)
        reads = (partial - 1) * self.stride < steps + self.padding  # not only what is after all
        return np.where(reads, partial, partial - 1)

    def _pool(self, x: Tensor, lengths: Array | None) -> Tensor:
        raise NotImplementedError

    def _windows(self, x: Tensor, fill: float) -> Tensor:
        """[K, S, B, I]: the steps of windows [T, B, I], with a number in the padding."""
        S = int(self._windows_of(len(x)))
        if S < 1:
            raise ValueError(
                f"{type(self).__name__}: {len(x) + 2 * self.padding} steps, with padding, are "
                f"fewer than a window of kernel_size={self.kernel_size} has"
            )
        end = (S - 1) * self.stride + 1
        places = range(0, self.dilation * self.kernel_size, self.dilation)
        after = max(places[-1] + end - len(x) - self.padding, 0)  # in a partial window
        if self.padding or after:
            ends = [np.full((n, *x.shape[1:]), fill, x.dtype) for n in (self.padding, after)]
            x = ops.concatenate([ends[0], x, ends[1]])
        return ops.stack([x[k : k + end : self.stride] for k in places])

    @foreign_names.arguments_checked
    def forward(self, x: Operand, lengths: ArrayLike | None = None) -> Tensor:
        """Pool a batch of sequences, or one.

        Args:
            x: [T, B, I], or [B, T, I] with ``batch_first``; [T, I] is one sequence.
            lengths: [B] integers in 0..T: the number of steps of each sequence, which has the
                outputs that it has alone; outputs beyond `output_lengths` are 0.

        Returns:
            [S, B, I], layout as x.

        Raises:
            ValueError: the shapes do not match, or there are fewer steps than in a window.
        """

        def pooled(x: Tensor, ends: Array | None) -> Tensor:
            y = self._pool(x, ends)
            return y if ends is None else without_padding(y, self.output_lengths(ends))

        return over_time(type(self).__name__, x, lengths, self.batch_first, pooled)

    def extra_repr(self) -> str:
        options = f"kernel_size={self.kernel_size}, stride={self.stride}"
        options += f", padding={self.padding}" if self.padding else ""
        options += f", dilation={self.dilation}" if self.dilation != 1 else ""
        options += ", ceil_mode=True" if self.ceil_mode else ""
        return options + (", batch_first=True" if self.batch_first else "")


class MaxPool1d(_Pooling):
    """The maximum over windows of steps: ``y[s] = max of x[s * stride + k * dilation], k < K``.

    Equal maxima share the gradient. Shapes: x [T, B, I], or [B, T, I] with ``batch_first``, or
    [T, I]; returns [S, B, I] (layout as x) with
    ``S = (T + 2 * padding - dilation * (K - 1) - 1) // stride + 1``. PyTorch's x is [B, I, T].

    Args:
        kernel_size: K, the number of steps of a window.
        stride: The number of steps from one window to the next; K if None.
        padding: The number of steps at both ends that are never the maximum, at most half a window.
        dilation: The number of steps from one step of a window to the next.
        ceil_mode: Whether a last window that is cut by the end of the sequence counts.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...].

    Raises:
        ValueError: an option is out of range; at the call, a sequence is shorter than a window.

    >>> MaxPool1d(2)([[1.0], [3.0], [2.0], [0.0], [9.0]]).data.ravel()
    array([3., 2.], dtype=float32)
    """

    def _pool(self, x: Tensor, lengths: Array | None) -> Tensor:
        if lengths is not None:
            active = within(lengths, x.shape[0])
            x = ops.where(active[:, :, None], x, -np.inf)
        return self._windows(x, -np.inf).max(axis=0)


class AvgPool1d(_Pooling):
    """The mean over windows of steps.

    Shapes: as `MaxPool1d`.

    Args:
        kernel_size: K, the number of steps of a window.
        stride: The number of steps from one window to the next; K if None.
        padding: The number of zeros at both ends, at most K / 2.
        ceil_mode: Whether a last window that is cut by the end counts; it is the mean of the steps
            that it has.
        count_include_pad: Whether the zeros of the padding count in the mean.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...].

    Raises:
        ValueError: as for `MaxPool1d`.

    >>> AvgPool1d(2)([[1.0], [3.0], [2.0], [0.0], [9.0]]).data.ravel()
    array([2., 1.], dtype=float32)
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        batch_first: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, batch_first=batch_first)
        self.count_include_pad = count_include_pad

    def _pool(self, x: Tensor, lengths: Array | None) -> Tensor:
        windows = self._windows(without_padding(x, lengths), 0.0)
        if self.count_include_pad and not self.ceil_mode:
            return windows.mean(axis=0)
        steps = len(x) if lengths is None else lengths
        starts = np.arange(windows.shape[1])[:, None] * self.stride - self.padding  # [S, 1]
        ends = np.minimum(starts + self.kernel_size, steps + self.padding)  # [S, B]
        if not self.count_include_pad:
            starts, ends = np.maximum(starts, 0), np.minimum(ends, steps)
        counts = np.maximum(ends - starts, 1)  # outputs after the last of a sequence become 0
        return windows.sum(axis=0) / counts[:, :, None].astype(x.dtype)

    def extra_repr(self) -> str:  # noqa: D102
        padding = "" if self.count_include_pad else ", count_include_pad=False"
        return super().extra_repr() + padding


def window_counts(
    name: str, lengths: ArrayLike, padding: int, K: int, stride: int, dilation: int
) -> Array:
    """[B]: the numbers of windows of K steps in sequences of these lengths, 0 in too short ones."""
    if thread.interpreter is not None:
        options = (lengths, padding, K, stride, dilation)
        result = thread.interpreter.operation("output_lengths", options, {})
        if result is not NotImplemented:
            return result  # type: ignore[no-any-return]
    steps = as_integers(lengths, f"{name}: lengths are integers")
    found = output_steps(steps, padding, K, stride, dilation)
    return np.where(steps > 0, np.maximum(found, 0), 0)


def over_time(
    name: str,
    x: Any,
    lengths: ArrayLike | None,
    batch_first: bool,
    compute: Callable[[Tensor, Array | None], Tensor],
    dtype: Any = None,
    features: int | None = None,
) -> Tensor:
    """The result of ``compute(x [T, B, I], lengths)``, for x of any layout and in that layout.

    Raises:
        ValueError: the shape of x is none of these, or lengths are wrong; it begins with the name.
    """
    x = as_tensor(x, dtype, f"{name}: an input")
    if x.ndim not in (2, 3) or (features is not None and x.shape[-1] != features):
        layout = "[B, T, I]" if batch_first else "[T, B, I]"
        sizes = "" if features is None else f" with I = {features}"
        raise ValueError(
            f"{name}: an input of shape {x.shape}; expected {layout} or [T, I]{sizes}: time before "
            "features"
        )
    single, swapped = x.ndim == 2, batch_first and x.ndim == 3
    if single:
        x = x.reshape(x.shape[0], 1, x.shape[1])
    elif swapped:
        x = x.transpose(1, 0, 2)
    y = compute(x, checked_lengths(name, lengths, x.shape))
    if single:
        return y.reshape(y.shape[0], y.shape[2])
    return y.transpose(1, 0, 2) if swapped else y
