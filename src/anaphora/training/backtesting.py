"""Backtests: forecasts from rolling origins, and their errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.data import DataError, ForecastBatch, TimeSeries
from anaphora.data.forecasting import seasonal_error
from anaphora.data.time_series import Times
from anaphora.distributed import ALONE, Processes, shared
from anaphora.models.distributions import normal_scores
from anaphora.models.forecaster import Forecaster
from anaphora.training.measures import Measure

Float64 = NDArray[np.float64]

_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MEASURED_PATHS = 16


@dataclass(frozen=True, eq=False)
class Forecast:
    """Sampled paths of the next steps of a series.

    Attributes:
        times: [h].
        paths: [S, h, N], in the units of the series.
        name: The name of the series.

    >>> forecast = Forecast(np.arange(2.0), np.array([[[1.0], [2.0]], [[3.0], [4.0]]]))
    >>> forecast.median.tolist(), forecast.quantile([0.0, 1.0])[:, 0, 0].tolist()
    ([[2.0], [3.0]], [1.0, 3.0])
    """

    times: Times
    paths: Float64
    name: str = "series"

    @property
    def median(self) -> Float64:
        """[h, N]: the forecast that minimizes the expected absolute error."""
        median: Float64 = self.quantile([0.5])[0]
        return median

    @property
    def mean(self) -> Float64:
        """[h, N]: the forecast that minimizes the expected squared error."""
        mean: Float64 = self.paths.mean(axis=0)
        return mean

    def quantile(self, levels: Sequence[float]) -> Float64:
        """The quantiles at some levels, [Q, h, N]."""
        quantiles: Float64 = np.quantile(self.paths, list(levels), axis=0)
        return quantiles


Method = Callable[[Sequence[TimeSeries], int], list[Forecast]]
"""Forecasts series from their ends, given the series and the horizon."""


def seasonal_naive(
    series: Sequence[TimeSeries], horizon: int, season: int | None = None, paths: int = 400
) -> list[Forecast]:
    """Repeat the last season, with normal errors scaled by the past seasonal differences.

    The variance of a forecast k seasons ahead is k times that of the seasonal differences (Hyndman
    & Athanasopoulos 2021, 5.5). A missing value is replaced by that of the season before.

    Args:
        series: The series.
        horizon: h.
        season: In steps; None for that of the calendar.
        paths: The number of paths.

    Raises:
        DataError: a step of the last season has no value, nor has the same step of the season
            before.

    >>> series = TimeSeries.of([1.0, 5.0, 1.0, 5.0])
    >>> seasonal_naive([series], 3, season=2)[0].median[:, 0].tolist()
    [1.0, 5.0, 1.0]
    """
    forecasts = []
    for one in series:
        m = season or one.frequency.season
        values = one.targets[: one.steps].copy()
        for t in range(m, len(values)):
            values[t] = np.where(np.isnan(values[t]), values[t - m], values[t])
        if len(values) < m or np.isnan(values[-m:]).any():
            raise DataError(
                f"{one.name}: a seasonal naive forecast needs a value at each of the last {m} "
                "steps, or one season earlier"
            )
        deviation = np.sqrt(seasonal_error(one.targets[: one.steps], m, power=2))
        steps = np.arange(horizon)
        level, seasons_ahead = values[-m:][steps % m], steps // m + 1
        spread = np.sqrt(seasons_ahead)[:, None] * deviation
        sampled = level + normal_scores(paths)[:, None, None] * spread
        forecasts.append(Forecast(one.future(horizon), sampled, one.name))
    return forecasts


@dataclass(frozen=True)
class ForecastScores:
    """Scores of forecasts, over all series, origins, steps and targets with a value.

    Attributes:
        mae: The mean absolute error of the median.
        rmse: The root mean squared error of the mean.
        mase: The mean absolute error divided by that of the one-step seasonal naive forecast on
            the training part of the series (Hyndman & Koehler 2006).
        weighted_quantile_loss: Twice the sum of pinball losses divided by the sum of absolute
            values, averaged over levels (Salinas et al. 2020).
        coverage: The fraction of values inside the central interval, by its level.
        values: The number of values.

    >>> ForecastScores(1.0, 2.0, 0.5, 0.1, {0.8: 0.75}, 10).mase
    0.5
    """

    mae: float
    rmse: float
    mase: float
    weighted_quantile_loss: float
    coverage: dict[float, float]
    values: int

    @property
    def figures(self) -> dict[str, float]:
        """The scores by their names in `anaphora.metrics`."""
        return {
            "mean_absolute_scaled_error": self.mase,
            "mean_absolute_error": self.mae,
            "root_mean_squared_error": self.rmse,
            "quantile_loss": self.weighted_quantile_loss,
            **{f"coverage_{100 * level:g}": share for level, share in self.coverage.items()},
        }


def backtest_origins(
    steps: int, horizon: int, origins: int, step: int | None = None, name: str = "the series"
) -> list[int]:
    """The number of steps before each origin of a backtest; the last leaves a full horizon.

    Args:
        steps: The length of the series.
        horizon: h.
        origins: The number of origins.
        step: Steps from one origin to the next; None for h.
        name: The name of the series, for messages.

    Raises:
        DataError: the series is too short.

    >>> backtest_origins(100, horizon=12, origins=3, step=6)
    [76, 82, 88]
    """
    step = step or horizon
    first = steps - horizon - (origins - 1) * step
    if first < 2:
        raise DataError(
            f"a backtest of {origins} origins every {step} steps, with a horizon of {horizon}, "
            f"needs at least {steps - first + 2} steps; {name} has {steps}: give fewer origins or "
            "a shorter horizon"
        )
    return [first + k * step for k in range(origins)]


def before_backtest(
    series: Sequence[TimeSeries], horizon: int, origins: int, step: int | None = None
) -> list[TimeSeries]:
    """Each series up to its first origin: what a model may be trained on before a backtest.

    The arguments are those of `backtest`.

    >>> [one.steps for one in before_backtest([TimeSeries.of(np.arange(100.0))], 12, 3, 6)]
    [76]
    """
    return [
        one.until(backtest_origins(one.steps, horizon, origins, step, one.name)[0])
        for one in series
    ]


def backtest(
    series: Sequence[TimeSeries],
    methods: Mapping[str, Method],
    horizon: int,
    origins: int = 5,
    step: int | None = None,
    *,
    season: int | None = None,
    quantiles: Sequence[float] = _LEVELS,
    coverage: Sequence[float] = (0.8, 0.95),
    processes: Processes = ALONE,
) -> dict[str, ForecastScores]:
    """Compare forecasts from rolling origins with the values that followed (Tashman 2000).

    Args:
        series: The series.
        methods: Functions that forecast series from their ends, by name: the ``forecast`` of a
            `FittedForecaster` that was fitted on `before_backtest`, or one that fits a model at
            each origin. A method receives the series up to an origin, with the future rows of
            columns known in advance.
        horizon: h.
        origins: The number of origins, the last one h steps before the end of each series.
        step: Steps from one origin to the next; None for h.
        season: Season of the seasonal naive forecast that scales the errors; None for that of the
            calendar.
        quantiles: Levels of the weighted quantile loss.
        coverage: Levels of the central intervals.
        processes: The processes that call this function together, and share out the forecasts; all
            return the same scores.

    Returns:
        The scores of each method, by name.

    Raises:
        DataError: a series is too short, or repeats exactly each season, so that its errors cannot
            be scaled.

    >>> series = [TimeSeries.of(np.arange(30.0) + np.tile([0.0, 5.0], 15))]
    >>> scores = backtest(series, {"naive": lambda s, h: seasonal_naive(s, h, 2)}, 2, season=2)
    >>> scores["naive"].mae, scores["naive"].mase
    (2.0, 1.0)
    """
    starts = [backtest_origins(one.steps, horizon, origins, step, one.name) for one in series]
    scales = [
        _scale(one, start[0], season or one.frequency.season)
        for one, start in zip(series, starts, strict=True)
    ]
    sums = {name: _Sums(quantiles, coverage) for name in methods}

    def terms(origin_and_name: tuple[int, str]) -> list[tuple[Any, ...]]:
        origin, name = origin_and_name
        pasts = [one.until(start[origin]) for one, start in zip(series, starts, strict=True)]
        forecasts = methods[name](pasts, horizon)
        return [
            sums[name].terms(forecast, one.targets[start[origin] : start[origin] + horizon], scale)
            for one, start, scale, forecast in zip(series, starts, scales, forecasts, strict=True)
        ]

    for (_, name), found in shared(processes, itertools.product(range(origins), methods), terms):
        for some in found:
            sums[name].add(some)
    return {name: total.scores() for name, total in sums.items()}


def _scale(one: TimeSeries, steps: int, season: int) -> Float64:
    """The mean seasonal difference before the first origin, which divides the errors [N]."""
    scale = seasonal_error(one.targets[:steps], season)
    if not (scale > 0).all():
        raise DataError(
            f"{one.name}: all seasonal differences ({season} steps) are 0 in the {steps} steps "
            "before the first origin, so errors cannot be scaled; give another season or fewer "
            "origins, or omit the series"
        )
    return scale


class _Sums:
    """The sums that scores are computed from."""

    def __init__(self, quantiles: Sequence[float], coverage: Sequence[float]) -> None:
        self._levels = np.array(quantiles)
        self._coverage = list(coverage)
        self._count = self._scaled_count = 0
        self._absolute = self._squared = self._scaled = self._size = 0.0
        self._pinball = np.zeros(len(self._levels))
        self._within = np.zeros(len(self._coverage))

    def terms(self, forecast: Forecast, actual: Float64, scale: Float64) -> tuple[Any, ...]:
        """What a forecast adds, given the true values [h, N], and the scale [N] of its errors.

        Errors with a scale of 0 do not count in MASE.
        """
        present = ~np.isnan(actual)
        actual = np.where(present, actual, 0)
        error = np.where(present, np.abs(actual - forecast.median), 0)
        scaled = scale > 0
        levels = self._levels[:, None, None]
        over = actual - forecast.quantile(self._levels.tolist())
        loss = np.maximum(levels * over, (levels - 1) * over)
        within = []
        for level in self._coverage:
            low, high = forecast.quantile([(1 - level) / 2, (1 + level) / 2])
            within.append((present & (low <= actual) & (actual <= high)).sum())
        return (
            int(present.sum()),
            float(error.sum()),
            int((present & scaled).sum()),
            float((error / np.where(scaled, scale, np.inf)).sum()),
            float(np.where(present, (actual - forecast.mean) ** 2, 0).sum()),
            float(np.abs(actual).sum()),
            np.where(present, loss, 0).sum(axis=(1, 2)),
            np.array(within, np.float64),
        )

    def add(self, terms: tuple[Any, ...]) -> None:
        """Add what a forecast adds."""
        count, absolute, scaled_count, scaled, squared, size, pinball, within = terms
        self._count += count
        self._absolute += absolute
        self._scaled_count += scaled_count
        self._scaled += scaled
        self._squared += squared
        self._size += size
        self._pinball += pinball
        self._within += within

    def scores(self) -> ForecastScores:
        count = self._count
        if count == 0:
            raise DataError("the backtest has no values after its origins")
        size = self._size or math.nan
        return ForecastScores(
            self._absolute / count,
            math.sqrt(self._squared / count),
            self._scaled / self._scaled_count if self._scaled_count else math.nan,
            float(np.mean(2 * self._pinball / size)),
            {k: float(w / count) for k, w in zip(self._coverage, self._within, strict=True)},
            count,
        )


class ForecastMeasure(Measure):
    """MASE, MAE, RMSE and quantile loss on the validation windows of a training run.

    The loss is of predictions one step ahead; these figures are of forecasts over the full horizon,
    as in a `backtest`. To keep evaluations fast, at most 64 evenly spaced windows are forecast,
    with 16 paths each. All evaluations use the same windows and random numbers, so that their
    figures are comparable.

    Args:
        model: The forecaster.

    >>> import types
    >>> perfect = types.SimpleNamespace(
    ...     past=2, context=3, forecast=lambda batch, paths: batch.inputs[None, 5:] + 1
    ... )
    >>> values = np.arange(6.0)[:, None, None]
    >>> batch = ForecastBatch(
    ...     values, values[2:], features=np.zeros((4, 1, 0)), observed=values >= 0,
    ...     scored=np.array([True]), naive_error=np.array([[2.0]]),
    ... )
    >>> measure = ForecastMeasure(perfect)
    >>> measure.update(batch)
    >>> measure.figures()["mean_absolute_scaled_error"]
    0.5
    """

    def __init__(self, model: Forecaster) -> None:
        self._model = model
        self._windows: list[tuple[Any, ...]] = []  # inputs, observed, features, naive errors

    def update(self, batch: ForecastBatch, answers: None = None) -> None:
        """Store the windows of a batch that are forecast."""
        if batch.scored is None or batch.naive_error is None:
            return
        past = self._model.past + self._model.context
        rows = batch.scored & batch.observed[:past].any(axis=0).all(axis=-1)
        arrays = batch.inputs, batch.observed, batch.features
        self._windows.append((*(array[:, rows] for array in arrays), batch.naive_error[rows]))

    def figures(self) -> dict[str, float]:
        """The scores by name; without MASE if no series has seasonal differences."""
        if not self._windows:
            return {}
        axes = 1, 1, 1, 0
        inputs, observed, features, naive_error = (
            np.concatenate(parts, axis)
            for parts, axis in zip(zip(*self._windows, strict=True), axes, strict=True)
        )
        past = self._model.past + self._model.context
        actual = np.where(observed, inputs, np.nan)[past:]
        if np.isnan(actual).all():
            return {}
        batch = ForecastBatch(
            inputs, inputs[self._model.past :], features=features, observed=observed
        )
        sums, horizon = _Sums(_LEVELS, ()), len(actual)
        with np.errstate(over="ignore", invalid="ignore"):  # the weights may have diverged
            paths = self._model.forecast(batch, paths=_MEASURED_PATHS)
            forecast = Forecast(np.arange(horizon), paths.reshape(len(paths), horizon, -1))
            sums.add(sums.terms(forecast, actual.reshape(horizon, -1), naive_error.reshape(-1)))
        figures = sums.scores().figures
        if not (naive_error > 0).any():
            del figures["mean_absolute_scaled_error"]
        return figures
