"""Frames: windows of consecutive steps of a long series, each of which is one step of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anaphora.data.series import moments, standardized

__all__ = ["Frames"]

_OVERLAP = 3
"""The number of frames that contain a step."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Standardizes series and cuts them into overlapping frames, the steps of a model.

        z = (x - mean) / deviation
        m[k] = mean of z[k*stride : k*stride + size]
        frame[k] = (z[k*stride : k*stride + size] - m[k]) / spread, m[k]

    A recurrent layer that reads hundreds of steps as a few dozen frames trains in a fraction of the
    time, and more accurately; and small changes of a smooth series are not hidden by its level. The
    last step is repeated to fill the last frame. With ``stride=1`` and ``size=1``, series are only
    standardized.

    Attributes:
        mean: [I] the mean over all training steps.
        deviation: [I] the standard deviation.
        stride: Steps from frame to frame.
        size: Steps per frame.
        spread: [I] divides the changes within frames.

    >>> series = [np.arange(100.0)[:, None], np.arange(80.0)[:, None]]
    >>> frames = Frames.fit(series, max_frames=32)
    >>> frames.stride, frames.size, frames(series[0]).shape
    (3, 9, (34, 10))
    >>> Frames.fit(series, max_frames=None)(series[0]).shape
    (100, 1)
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    stride: int
    size: int
    spread: NDArray[np.float64]

    @classmethod
    def fit(cls, series: Sequence[NDArray[Any]], max_frames: int | None = 32) -> Self:
        """Fit frames to training series [T, I].

        Args:
            series: Series, of which at least one has steps.
            max_frames: Approximate maximum number of frames of a series of median length; shorter
                series are not cut. None for no frames.

        Raises:
            DataError: as for `moments`.
            ValueError: ``max_frames`` is less than 1.
        """
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"Frames: max_frames is {max_frames}; it must be at least 1, or None")
        mean, deviation = moments(np.concatenate(series))
        length = float(np.median([len(x) for x in series]))
        stride = 1 if max_frames is None else max(int(np.ceil(length / max_frames)), 1)
        size = 1 if stride == 1 else _OVERLAP * stride
        spread = np.ones_like(mean)
        if size > 1:
            square = np.zeros_like(mean)
            for x in series:
                within = _cut((x - mean) / deviation, stride, size)
                within = within - within.mean(axis=1, keepdims=True)
                square += np.square(within).sum(axis=(0, 1))
            steps = sum(-(-len(x) // stride) for x in series) * size
            # The square root of the deviation amplifies smooth changes without amplifying noise.
            spread = np.sqrt(np.sqrt(square / steps))
            spread = np.where(spread > 1e-3, spread, 1.0)
        return cls(mean, deviation, stride, size, spread)

    @property
    def features(self) -> int:
        """The size of a frame's vector."""
        return len(self.mean) * (self.size + 1 if self.size > 1 else 1)

    def __call__(self, series: NDArray[Any], what: str = "a series") -> NDArray[np.float32]:
        """The frames of a series.

        Args:
            series: [T, I].
            what: The name of the series in messages.

        Returns:
            [ceil(T / stride), I * (size + 1)], or [T, I] without frames.

        Raises:
            DataError: as for `standardized`.
        """
        scaled = standardized(series, self.mean, self.deviation, what)
        if self.size == 1:
            return scaled.astype(np.float32)
        return self.vectors(_cut(scaled, self.stride, self.size))

    def vectors(self, cut: NDArray[Any]) -> NDArray[np.float32]:
        """The inputs of a model, from frames of standardized steps.

        Args:
            cut: [K, size, I].

        Returns:
            [K, I * (size + 1)], or [K, I] if frames have one step.
        """
        if self.size > 1:
            level = cut.mean(axis=1, keepdims=True)
            cut = np.concatenate([(cut - level) / self.spread, level], axis=1)
        return cut.reshape(len(cut), self.features).astype(np.float32)


def _cut(series: NDArray[Any], stride: int, size: int) -> NDArray[Any]:
    """The frames [K, size, I] of a series [T, I], whose last step is repeated."""
    if len(series) == 0:
        return np.zeros((0, size, series.shape[1]))
    count = -(-len(series) // stride)
    index = np.arange(count)[:, None] * stride + np.arange(size)
    cut: NDArray[Any] = series[np.minimum(index, len(series) - 1)]
    return cut
