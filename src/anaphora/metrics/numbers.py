"""Errors of predicted numbers."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def mean_absolute_error(actual: ArrayLike, predicted: ArrayLike) -> float:
    """MAE, the mean of ``|actual - predicted|``, in the units of the numbers.

    Raises:
        ValueError: the two differ in shape, or are empty.

    >>> mean_absolute_error([1.0, 2.0], [2.0, 4.0])
    1.5
    """
    y, answer = _pair("mean_absolute_error", actual, predicted)
    return float(np.abs(y - answer).mean())


def root_mean_squared_error(actual: ArrayLike, predicted: ArrayLike) -> float:
    """RMSE, ``sqrt(mean((actual - predicted)**2))``, in the units of the numbers.

    Raises:
        ValueError: as for `mean_absolute_error`.

    >>> root_mean_squared_error([1.0, 2.0], [2.0, 9.0])
    5.0
    """
    y, answer = _pair("root_mean_squared_error", actual, predicted)
    return float(np.sqrt(np.square(y - answer).mean()))


def mean_absolute_scaled_error(
    actual: ArrayLike, predicted: ArrayLike, training: ArrayLike, seasonality: int = 1
) -> float:
    """MASE, the error relative to that of repeating the last season in the training series.

        MASE = mean|actual - predicted| / mean|training[t] - training[t - m]|

    A value below 1 is better than that seasonal naive forecast, one step ahead, on the training
    series (Hyndman and Koehler 2006, "Another look at measures of forecast accuracy").

    Args:
        actual: [..., h] the steps after the training series; each series has its own scale.
        predicted: [..., h].
        training: [..., T].
        seasonality: m, the steps of a season; 1 if there is none.

    Raises:
        ValueError: shapes do not match, the training series is not longer than a season, or it
            repeats exactly, so that there is no scale.

    >>> mean_absolute_scaled_error([5.0, 6.0], [5.0, 4.0], training=[1.0, 3.0, 2.0, 4.0])
    0.6
    """
    y, answer = _pair("mean_absolute_scaled_error", actual, predicted)
    series = np.asarray(training, np.float64)
    if series.shape[:-1] != y.shape[:-1]:
        raise ValueError(
            f"mean_absolute_scaled_error: training has the shape {series.shape} and actual "
            f"{y.shape}; expected [..., T] and [..., h], equal except for the last"
        )
    if not 1 <= seasonality < series.shape[-1]:
        raise ValueError(
            f"mean_absolute_scaled_error: seasonality is {seasonality}, of {series.shape[-1]} "
            "training steps; expected at least 1, and less than there are steps"
        )
    change = np.abs(series[..., seasonality:] - series[..., :-seasonality])
    scale = change.mean(axis=-1, keepdims=True)
    if not scale.all():
        raise ValueError(
            "mean_absolute_scaled_error: a training series repeats exactly, so there is no error "
            "to compare with; use mean_absolute_error"
        )
    return float((np.abs(y - answer) / scale).mean())


def r2(actual: ArrayLike, predicted: ArrayLike) -> float:
    """The share of the variance that is explained; 0 is as good as predicting the mean.

        R2 = 1 - sum (actual - predicted)**2 / sum (actual - mean(actual))**2

    For several numbers each, [N, O], it is the mean over O. If all are equal it is 1 if they are
    predicted exactly, otherwise 0, as in scikit-learn.

    Raises:
        ValueError: as `mean_absolute_error`.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.5
    """
    y, answer = _pair("r2", actual, predicted)
    y, answer = (np.atleast_1d(x).reshape(len(np.atleast_1d(x)), -1) for x in (y, answer))
    error = np.square(y - answer).sum(axis=0)
    total = np.square(y - y.mean(axis=0)).sum(axis=0)
    explained = 1 - error / np.where(total > 0, total, 1)
    return float(np.where(total > 0, explained, error == 0).mean())


def _pair(owner: str, actual: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays of the same shape that is not empty."""
    y, answer = np.asarray(actual, np.float64), np.asarray(predicted, np.float64)
    if y.shape != answer.shape:
        raise ValueError(
            f"{owner}: actual has the shape {y.shape} and predicted {answer.shape}; expected the "
            "same"
        )
    if y.size == 0:
        raise ValueError(f"{owner}: there are no numbers")
    return y, answer
