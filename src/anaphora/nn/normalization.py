"""Normalization over batches, groups of features, and by the root mean square."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import foreign_names, ops
from anaphora.nn import initialization as initialize
from anaphora.nn.kinds import without_padding
from anaphora.nn.module import Module
from anaphora.nn.pooling import over_time
from anaphora.ops.recurrence import checked_lengths, within
from anaphora.options import check_sizes
from anaphora.tensor import Array, Buffer, Operand, Tensor, as_tensor


class BatchNorm1d(Module):
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias``, over the rows of a batch.

    In training mean and variance are those of the batch, of each feature over all rows (and steps),
    and running ones follow them; in evaluation they are the running ones:

        running = (1 - momentum) * running + momentum * that of the batch

    where the variance that is kept is divided by the number of rows minus 1.

    Shapes: x [..., I], such as [B, I] or [T, B, I]; weight, bias, and the buffers running_mean and
    running_var [I]; returns [..., I]. PyTorch's x is [B, I, T]. Source: Ioffe & Szegedy 2015.

    Args:
        num_features: I.
        epsilon: Added to the variance.
        momentum: The weight of a batch in the running statistics; None for their mean over all
            batches.
        affine: Whether there are a weight and a bias.
        track_running_stats: Whether there are running statistics; else those of the batch are used
            in evaluation too.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...]; matters with lengths.
        dtype: float32 or float64.

    Raises:
        ValueError: a size is below 1; at the call, the last axis of x is not I, or a batch of one
            row in training.

    >>> norm = BatchNorm1d(2, epsilon=0, affine=False)
    >>> norm([[1.0, 5.0], [3.0, 9.0]]).data.tolist(), norm.running_mean.data
    ([[-1.0, -1.0], [1.0, 1.0]], array([0.2, 0.7], dtype=float32))
    """

    def __init__(
        self,
        num_features: int,
        epsilon: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, num_features=num_features)
        self.num_features = num_features
        self.epsilon = epsilon
        self.momentum = momentum
        self.batch_first = batch_first
        self.dtype = initialize.parameter_dtype(dtype)
        shape = (num_features,)
        self.weight = initialize.parameter(shape, dtype, 1) if affine else None
        self.bias = initialize.parameter(shape, dtype) if affine else None
        tracks = track_running_stats
        self.running_mean = Buffer(np.zeros(shape, dtype)) if tracks else None
        self.running_var = Buffer(np.ones(shape, dtype)) if tracks else None
        self.num_batches_tracked = Buffer(np.zeros((), np.int64)) if tracks else None

    def reset_parameters(self) -> None:
        """Set weight and bias to 1 and 0, and the running statistics to those of no batch."""
        for tensor, value in (
            (self.weight, 1), (self.bias, 0), (self.running_mean, 0), (self.running_var, 1),
            (self.num_batches_tracked, 0),
        ):  # fmt: skip
            if tensor is not None:
                with tensor.writing() as array:
                    array[...] = value

    @foreign_names.arguments_checked
    def forward(self, x: Operand, lengths: ArrayLike | None = None) -> Tensor:
        """Normalize.

        Args:
            x: [..., I].
            lengths: [B] integers in 0..T, for x [T, B, I] (or [B, T, I] with ``batch_first``): only
                steps within the length of their sequence count; others become 0.

        Raises:
            ValueError: the shapes do not match, or there is one row in training.
        """
        x = as_tensor(x, self.dtype, "BatchNorm1d: an input")
        if x.ndim < 2 or x.shape[-1] != self.num_features:
            raise ValueError(
                f"BatchNorm1d: an input of shape {x.shape}; expected [..., I] with I = "
                f"{self.num_features}: features on the last axis"
            )
        where = None
        if lengths is not None:
            shape = x.shape[1::-1] if self.batch_first else x.shape[:2]
            ends = checked_lengths("BatchNorm1d", lengths, shape)
            where = within(ends, shape[0])
            where = where.T if self.batch_first else where
        if self.running_mean is not None and not self.training:
            return self._from_running(x, where)
        count = x.size // self.num_features if where is None else int(where.sum())
        if self.training and count == 1:
            raise ValueError(
                "BatchNorm1d: a batch of one row in training, whose variance would be 0; give more "
                "rows, or call eval() first"
            )
        y, mean, variance = ops.batch_norm(
            x, self.weight, self.bias, epsilon=self.epsilon, where=where
        )
        if self.training and self.running_mean is not None:
            self._follow(mean.data, variance.data * (count / max(count - 1, 1)))
        result: Tensor = y
        return result

    def _from_running(self, x: Tensor, where: Array | None) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        y = (x - self.running_mean) * (1 / np.sqrt(self.running_var.data + self.epsilon))
        if self.weight is not None and self.bias is not None:
            y = y * self.weight + self.bias
        return y if where is None else ops.where(where[..., None], y, 0.0)

    def _follow(self, mean: Array, variance: Array) -> None:
        """Move the running statistics towards those of a batch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with self.num_batches_tracked.writing() as count:
            count += 1
            share = 1 / int(count) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            with running.writing() as array:
                array += share * (new - array)

    def extra_repr(self) -> str:  # noqa: D102
        options = f"{self.num_features}, epsilon={self.epsilon}, momentum={self.momentum}"
        options += "" if self.weight is not None else ", affine=False"
        return options + ("" if self.running_mean is not None else ", track_running_stats=False")


class GroupNorm(Module):
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` over groups of features.

    Mean and variance are those of one sequence, over the features of a group and all its steps, as
    in PyTorch, whose x is [B, I, T].

    Shapes: x [B, I], or [T, B, I] ([B, T, I] with ``batch_first``); weight [I]; bias [I]; returns
    the same as x. Source: Wu & He 2018.

    Args:
        num_groups: The number of groups.
        num_channels: I, a multiple of the number of groups.
        epsilon: Added to the variance.
        affine: Whether there are a weight and a bias.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...].
        dtype: float32 or float64.

    Raises:
        ValueError: I is not a multiple of the groups; at the call, a shape does not match.

    >>> GroupNorm(2, 4, epsilon=0)([[1.0, 3.0, 5.0, 9.0]]).data
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        epsilon: float = 1e-5,
        affine: bool = True,
        *,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels={num_channels} must be a multiple of num_groups="
                f"{num_groups}"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.epsilon = epsilon
        self.batch_first = batch_first
        self.dtype = initialize.parameter_dtype(dtype)
        self.weight = initialize.parameter((num_channels,), dtype, 1) if affine else None
        self.bias = initialize.parameter((num_channels,), dtype) if affine else None

    @foreign_names.arguments_checked
    def forward(self, x: Operand, lengths: ArrayLike | None = None) -> Tensor:
        """Normalize.

        Args:
            x: [B, I], or [T, B, I] ([B, T, I] with ``batch_first``).
            lengths: [B] integers in 0..T, for x with steps: only steps within the length of their
                sequence count; others become 0.

        Raises:
            ValueError: the shapes do not match.
        """
        x = as_tensor(x, self.dtype, "GroupNorm: an input")
        if x.ndim == 2:  # rows without steps, not one sequence
            return self.forward(
                x.reshape(1, *x.shape)
                if not self.batch_first
                else x.reshape(len(x), 1, x.shape[1]),
                lengths,
            ).reshape(*x.shape)
        return over_time(
            "GroupNorm", x, lengths, self.batch_first, self._normalized, self.dtype,
            self.num_channels,
        )  # fmt: skip

    def _normalized(self, x: Tensor, ends: Array | None) -> Tensor:
        T, B, I = x.shape
        size = I // self.num_groups
        steps = np.full(B, T) if ends is None else np.maximum(ends, 1)
        share = (1 / (steps * size)).astype(x.dtype)[:, None, None]

        def mean(values: Tensor) -> Tensor:  # [T, B, G, I / G] to [1, B, G, 1]
            return values.sum(axis=(0, 3), keepdims=True) * share

        def masked(values: Tensor) -> Tensor:
            return without_padding(values.reshape(T, B, I), ends).reshape(*values.shape)

        groups = masked(x.reshape(T, B, self.num_groups, size))
        centred = masked(groups - mean(groups))
        y = centred * ops.power(mean(centred * centred) + self.epsilon, -0.5)
        y = y.reshape(T, B, I)
        if self.weight is None or self.bias is None:
            return y
        return without_padding(y * self.weight + self.bias, ends)

    def extra_repr(self) -> str:  # noqa: D102
        options = f"{self.num_groups}, {self.num_channels}, epsilon={self.epsilon}"
        return options + ("" if self.weight is not None else ", affine=False")


class RMSNorm(Module):
    """``x / sqrt(mean(x**2) + epsilon) * weight`` over the last axis.

    Shapes: x [..., H]; weight [H]; returns [..., H]. Source: Zhang & Sennrich 2019.

    Args:
        normalized_shape: H.
        epsilon: Added to the mean square; None for the smallest number that changes 1 in the
            layer's dtype, as in PyTorch.
        elementwise_affine: Whether there is a weight.
        dtype: float32 or float64.

    Raises:
        ValueError: H is below 1; at the call, the last axis of x is not H.

    >>> RMSNorm(2, epsilon=0)([[3.0, 3.0], [1.0, -1.0]]).data
    array([[ 1.,  1.],
           [ 1., -1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int,
        epsilon: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, normalized_shape=normalized_shape)
        self.normalized_shape = normalized_shape
        self.epsilon = epsilon
        self.dtype = initialize.parameter_dtype(dtype)
        self.weight = None
        if elementwise_affine:
            self.weight = initialize.parameter((normalized_shape,), dtype, 1)

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [..., H]; returns the same."""
        x = as_tensor(x, self.dtype, "RMSNorm: an input")
        if x.shape[-1:] != (self.normalized_shape,):
            raise ValueError(
                f"RMSNorm: an input of shape {x.shape}; its last axis must be normalized_shape="
                f"{self.normalized_shape}"
            )
        epsilon = np.finfo(self.dtype).eps if self.epsilon is None else self.epsilon
        y: Tensor = x * ops.power((x * x).mean(axis=-1, keepdims=True) + epsilon, -0.5)
        return y if self.weight is None else y * self.weight

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.normalized_shape}, epsilon={self.epsilon}"
