"""Standardizing series by the mean and the standard deviation of each channel."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora.data.errors import DataError

__all__ = ["moments", "standardized"]


def moments(
    values: ArrayLike, what: str = "channel"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean and the standard deviation along the first axis; 1 for a constant channel.

    They are computed in float64, whatever the dtype of the values.

    Args:
        values: [N, ...] finite numbers, such as the steps of all series [N, I].
        what: The word for a column in messages.

    Raises:
        DataError: a channel has a value that is not finite, or values so large that their squares
            overflow; the message names it. Or N is 0.

    >>> mean, deviation = moments([[1.0, 5.0], [3.0, 5.0]])
    >>> mean.tolist(), deviation.tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    array = np.asarray(values)
    if len(array) == 0:
        raise DataError("moments: there are no steps; expected at least one")
    with np.errstate(over="ignore", invalid="ignore"):  # reported below, by channel
        mean = array.mean(axis=0, dtype=np.float64)
        deviation = array.std(axis=0, dtype=np.float64)
    overflowed = np.flatnonzero(~np.isfinite(mean + deviation))
    if len(overflowed):
        channel = int(overflowed[0])
        column = array.reshape(len(array), -1)[:, channel]
        wrong = column[~np.isfinite(column)]
        raise DataError(
            f"{what} {channel} has the value {wrong[0]}, which is not finite; remove it or "
            "replace it"
            if len(wrong)
            else f"{what} {channel} has values as large as {np.abs(column).max():g}, whose squares "
            "overflow float64; divide the values by a power of ten"
        )
    # Rounding may make the deviation of a constant slightly positive.
    constant = (array.min(axis=0) == array.max(axis=0)) | (deviation == 0)
    return mean, np.where(constant, 1.0, deviation)


def standardized(
    series: NDArray[Any], mean: NDArray[Any], deviation: NDArray[Any], what: str = "a series"
) -> NDArray[np.float64]:
    """A series [T, I] minus the mean of each channel, divided by its deviation (see `moments`).

    Args:
        series: [T, I].
        mean: [I].
        deviation: [I].
        what: The name of the series in messages.

    Raises:
        DataError: a standardized value is too large for float32; the message names the channel and
            the step.

    >>> standardized(np.array([[1.0], [4.0]]), np.array([2.0]), np.array([0.5])).tolist()
    [[-2.0], [4.0]]
    """
    scaled: NDArray[np.float64] = (series - mean) / deviation
    beyond = np.argwhere(~(np.abs(scaled) <= np.finfo(np.float32).max))
    if len(beyond):
        step, channel = beyond[0]
        raise DataError(
            f"{what} has the value {series[step, channel]:g} in channel {channel} at step {step}, "
            "which is too large for float32 when standardized by the training mean "
            f"{mean[channel]:g} and deviation {deviation[channel]:g}; correct it or remove the "
            "series"
        )
    return scaled
