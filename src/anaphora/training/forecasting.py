"""Forecasting: windows of series, fitting, forecasts, baselines, and backtests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import random
from anaphora.cells import CELLS
from anaphora.data import Batches, DataError, moments
from anaphora.data.time_series import Frequency, Times, TimeSeries, calendar_features, same_columns
from anaphora.models.distributions import DISTRIBUTIONS, normal_scores
from anaphora.models.forecaster import (
    QUANTILES,
    SCALINGS,
    ForecastBatch,
    Forecaster,
    window_moments,
)
from anaphora.optim import Adam, Cosine
from anaphora.training.callbacks import Callback
from anaphora.training.options import Options, TrainingOptions, option
from anaphora.training.trainer import Trainer

# More would take long, and say little more.
_VALIDATION_WINDOWS = 512
_LEAST_SQUARES_BATCHES = 200

Method = Callable[[Sequence[TimeSeries], int], "list[Forecast]"]


@dataclass(frozen=True)
class ForecastOptions(Options):
    """How a forecaster is made and trained.

    >>> ForecastOptions(season=4).chosen_lags()
    (1, 2, 3, 4, 5, 6, 7, 8, 9)
    """

    horizon: int | None = option(None, "Steps to forecast; a season if not given, or 10.")
    season: int | None = option(
        None, "Steps after which the series repeats itself; by the calendar if not given."
    )
    context: int | None = option(
        None, "Steps that are read before a forecast; a season or the horizon if not given."
    )
    lags: tuple[int, ...] | None = option(
        None, "How many steps before its own each step reads values; by the season if not given."
    )
    distribution: str = option("student_t", "What is learnt of the next value.", DISTRIBUTIONS)
    quantiles: tuple[float, ...] = option(QUANTILES, "Levels of the distribution 'quantiles'.")
    scaling: str | None = option(
        None,
        "How windows are scaled: standard, mean_absolute or none; counts mean_absolute and others "
        "standard if not given.",
    )
    autoregressive: bool = option(True, "Add a weighted sum of the lags to the forecast.")
    calendar: bool = option(True, "Read the time of the day, week and year of dates.")
    cell: str = option("lstm", "The recurrent cell.", tuple(CELLS))
    hidden_size: int = option(16, "Units of each recurrent layer.")
    num_layers: int = option(1, "Recurrent layers.")
    dropout: float = option(0.0, "Share dropped between layers and before the output.")
    max_steps: int = option(1000, "Updates.")
    batch_size: int = option(32, "Windows an update.")
    learning_rate: float = option(0.001, "Learning rate at the start; it falls to 0 as a cosine.")
    weight_decay: float = option(0.0, "Weight decay.")
    clip_norm: float = option(5.0, "Clip gradients to this global norm; 0 for no clipping.")
    validation_share: float = option(
        0.2, "Share of each series (its end) on which the number of updates is chosen; 0 for none."
    )
    patience: int = option(8, "Evaluations (40 a training) without progress before it ends.")
    members: int = option(1, "Networks, each of a seed of its own, whose paths are put together.")
    seed: int = option(1, "Seed of all random numbers.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scaling is not None and self.scaling not in SCALINGS:
            raise ValueError(f"scaling {self.scaling!r:.80} is none of {', '.join(SCALINGS)}")
        for name in ("horizon", "season", "context", "hidden_size", "num_layers", "members"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")

    def chosen_lags(self) -> tuple[int, ...]:
        """The lags, or those that suit the season.

        All up to one beyond two seasons; of a season above 24 the first four, and those around one
        season.
        """
        if self.lags is not None:
            return tuple(self.lags)
        season = self.season or 1
        if season <= 24:
            return tuple(range(1, 2 * max(season, 2) + 2))
        return (1, 2, 3, 4, season - 1, season, season + 1)


@dataclass(frozen=True)
class ForecastCodec:
    """What the numbers of a forecaster stand for: columns, times, and how columns are scaled.

    Attributes:
        target_names: [N].
        known_names: [K] columns known in advance.
        frequency: The step, as text.
        season: In steps.
        horizon: The steps that are forecast unless told otherwise.
        calendar: Whether the calendar is read.
        known_mean: [K] of the columns known in advance.
        known_deviation: [K].

    >>> codec = ForecastCodec.fit([TimeSeries.of([1.0, 2.0, 3.0], frequency="month")])
    >>> codec.season, codec.horizon, ForecastCodec.from_dict(codec.to_dict()) == codec
    (12, 12, True)
    """

    target_names: tuple[str, ...]
    known_names: tuple[str, ...]
    frequency: str
    season: int
    horizon: int
    calendar: bool
    known_mean: tuple[float, ...]
    known_deviation: tuple[float, ...]

    @classmethod
    def fit(
        cls, series: Sequence[TimeSeries], options: ForecastOptions | None = None
    ) -> ForecastCodec:
        """The codec of series to learn from, which must have the same columns and step.

        Raises:
            DataError: there is no series, or they differ.
        """
        options = options or ForecastOptions()
        if not series:
            raise DataError("there is no series to learn from; give at least one")
        same_columns(series)
        first = series[0]
        season = options.season or first.frequency.season
        horizon = options.horizon or (season if season > 1 else 10)
        known = np.concatenate([one.known for one in series])
        mean, deviation = moments(known, "the column known in advance")
        return cls(
            first.target_names,
            first.known_names,
            str(first.frequency),
            season,
            horizon,
            options.calendar,
            tuple(mean.tolist()),
            tuple(deviation.tolist()),
        )

    @property
    def feature_size(self) -> int:
        """F: what each step has of the calendar and of columns known in advance."""
        calendar = self._calendar(np.zeros(1, "datetime64[us]"))
        return len(self.known_names) + int(calendar.shape[1])

    def features(self, times: Times, known: NDArray[np.float64]) -> NDArray[np.float32]:
        """What is known in advance of steps: [T, F] of their times [T] and columns [T, K]."""
        scaled = (known - np.array(self.known_mean)) / np.array(self.known_deviation)
        together = np.concatenate([scaled, self._calendar(times)], axis=1)
        return together.astype(np.float32)

    def _calendar(self, times: Times) -> NDArray[np.float64]:
        if not self.calendar:
            return np.zeros((len(times), 0))
        return calendar_features(times, Frequency.parse(self.frequency))

    def to_dict(self) -> dict[str, Any]:
        """As what JSON can say."""
        return {
            entry.name: list(value) if isinstance(value, tuple) else value
            for entry in fields(self)
            for value in [getattr(self, entry.name)]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ForecastCodec:
        """Of what `to_dict` gave."""
        made: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**made)


class WindowBatches(Batches):
    """All windows of several series, drawn anew for each epoch.

    A window is the past that lags reach, the context and the horizon, P + C + h steps; the first
    begins where the series has its first value. Of a shorter series the steps before count as
    missing, if it has at least P + 1 + h of its own.

    Args:
        series: The series.
        codec: Of them.
        past: P, the largest lag.
        context: C.
        horizon: h.
        batch_size: B windows at most.
        after: For each series, take only windows whose horizon begins after so many steps or
            later, and count their horizon alone: to validate on. Of many, some evenly spread.

    Attributes:
        skipped: The names of series that are too short.

    Raises:
        DataError: all series are too short; the message says how many steps are needed.

    >>> series = [TimeSeries.of(np.arange(6.0))]
    >>> codec = ForecastCodec.fit(series)
    >>> batches = WindowBatches(series, codec, past=2, context=1, horizon=2, batch_size=2)
    >>> [batch.inputs[:, :, 0].T.tolist() for batch in batches]
    [[[0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]]]
    """

    carries_state = False

    def __init__(
        self,
        series: Sequence[TimeSeries],
        codec: ForecastCodec,
        past: int,
        context: int,
        horizon: int,
        batch_size: int,
        *,
        after: Sequence[int] | None = None,
    ) -> None:
        self._sizes = past, context, horizon
        self._batch_size = batch_size
        self._values: list[NDArray[np.float64]] = []
        self._features: list[NDArray[np.float32]] = []
        self.skipped: list[str] = []
        ends: list[tuple[int, int]] = []
        longest: tuple[int, str] = (0, "")
        self._validates = after is not None
        for index, one in enumerate(series):
            steps = one.steps
            there = np.flatnonzero(~np.isnan(one.targets).all(axis=1))
            start = int(there[0]) if len(there) else 0
            longest = max(longest, (steps - start, one.name))
            if steps - start < past + 1 + horizon:
                self.skipped.append(one.name)
                continue
            number = len(self._values)
            self._values.append(one.targets[start:steps])
            self._features.append(codec.features(one.times[start:steps], one.known[start:steps]))
            length = steps - start
            first = min(past + context + horizon, length)
            if after is not None:
                first = max(first, after[index] - start + horizon)
            ends += [(number, end) for end in range(first, length + 1)]
        if not ends:
            raise DataError(
                f"the series have too few steps: the longest, {longest[1]!r}, has {longest[0]}, "
                f"but lags of up to {past} steps and a horizon of {horizon} need at least "
                f"{past + 1 + horizon}; give shorter lags (a shorter season) or a shorter horizon"
            )
        if after is not None:
            ends = ends[:: -(-len(ends) // _VALIDATION_WINDOWS)]
        self._ends = np.array(ends)
        self._filled = self._values

    def fill(self, model: Forecaster) -> None:
        """Put into windows what a model says of missing values, where they are read."""
        self._filled = [
            model.fill(values[:, None], features[:, None])[:, 0]
            for values, features in zip(self._values, self._features, strict=True)
        ]

    @property
    def tokens(self) -> int:  # type: ignore[override]
        """The number of targets that count, in all batches together."""
        return sum(batch.tokens for batch in self)

    def __len__(self) -> int:
        return -(-len(self._ends) // self._batch_size)

    def __getitem__(self, index: int) -> ForecastBatch:
        return self._batch(range(len(self))[index])

    def _batch(self, index: int) -> ForecastBatch:
        rows = self._ends[index * self._batch_size : (index + 1) * self._batch_size]
        past, context, horizon = self._sizes
        values = np.stack(
            [_window(self._values[k], end, past + context + horizon, np.nan) for k, end in rows],
            axis=1,
        )
        features = np.stack(
            [_window(self._features[k], end, context + horizon, 0) for k, end in rows], axis=1
        )
        observed = ~np.isnan(values)
        values = np.nan_to_num(
            np.stack(
                [_window(self._filled[k], end, past + context + horizon, 0) for k, end in rows],
                axis=1,
            )
        )
        counted = None
        if self._validates:
            counted = np.zeros(values[past:].shape, np.bool_)
            counted[context:] = True
        return ForecastBatch(
            values, values[past:], None, features=features, observed=observed, counted=counted
        )

    def shuffled(self, generator: np.random.Generator) -> WindowBatches:
        """The same windows in batches drawn anew."""
        other = object.__new__(WindowBatches)
        vars(other).update(vars(self))
        other._ends = self._ends[generator.permutation(len(self._ends))]
        return other


def _window(array: NDArray[Any], end: int, steps: int, padding: float) -> NDArray[Any]:
    """The steps before an end, with padding where the series has not begun."""
    part = array[max(end - steps, 0) : end]
    window: NDArray[Any] = np.pad(part, [(steps - len(part), 0), (0, 0)], constant_values=padding)
    return window


@dataclass(frozen=True, eq=False)
class Forecast:
    """How a series may go on.

    Attributes:
        times: [h].
        paths: [S, h, N], in the units of the series.
        name: Of the series.

    >>> forecast = Forecast(np.arange(2.0), np.array([[[1.0], [2.0]], [[3.0], [4.0]]]))
    >>> forecast.median.tolist(), forecast.quantile([0.0, 1.0])[:, 0, 0].tolist()
    ([[2.0], [3.0]], [1.0, 3.0])
    """

    times: Times
    paths: NDArray[np.float64]
    name: str = "series"

    @property
    def median(self) -> NDArray[np.float64]:
        """[h, N]: the forecast with the least absolute error."""
        median: NDArray[np.float64] = self.quantile([0.5])[0]
        return median

    @property
    def mean(self) -> NDArray[np.float64]:
        """[h, N]: the forecast with the least squared error."""
        mean: NDArray[np.float64] = self.paths.mean(axis=0)
        return mean

    def quantile(self, levels: Sequence[float]) -> NDArray[np.float64]:
        """The quantiles at some levels, [Q, h, N]."""
        quantiles: NDArray[np.float64] = np.quantile(self.paths, list(levels), axis=0)
        return quantiles


@dataclass(frozen=True, eq=False)
class FittedForecaster:
    """Forecasters that were trained, and what their numbers stand for."""

    models: list[Forecaster]
    codec: ForecastCodec
    skipped: list[str] = field(default_factory=list)

    def forecast(
        self,
        series: Sequence[TimeSeries],
        horizon: int | None = None,
        *,
        paths: int = 400,
        seed: int = 1,
    ) -> list[Forecast]:
        """How each series may go on after its last target.

        Args:
            series: With the columns and the step that were learnt; as many future rows as are to be
                forecast, if columns are known in advance.
            horizon: h; None for that of the codec.
            paths: How many, of all models together.
            seed: Of the paths.

        Raises:
            DataError: columns or steps differ, future rows are missing, or a series has no value
                in its last steps.
        """
        horizon = horizon or self.codec.horizon
        each = -(-paths // len(self.models))
        pasts, known = [], []
        model = self.models[0]
        reach = model.past + model.context
        for one in series:
            self._check(one, horizon)
            steps = one.steps
            begin = max(steps - reach - model.past, 0)
            positions = np.arange(begin, steps + horizon)
            columns = one.known[begin : steps + horizon]
            if not self.codec.known_names:
                columns = np.zeros((len(positions), 0))
            features = self.codec.features(one.frequency.at(one.times[0], positions), columns)
            if np.isnan(one.targets[max(steps - reach, 0) : steps]).all(axis=0).any():
                raise DataError(
                    f"{one.name}: a target has no value in the last {reach} steps, which are read "
                    "to forecast; give some"
                )
            pasts.append(_window(one.targets, steps, reach + model.past, np.nan))
            known.append(_window(features, len(features), reach + model.past + horizon, 0))
        past, together = np.stack(pasts, axis=1), np.stack(known, axis=1)
        drawn = np.concatenate(
            [
                model.predict(past, horizon, together, paths=each, seed=seed + number)
                for number, model in enumerate(self.models)
            ]
        )
        return [
            Forecast(one.future(horizon), drawn[:, :, b], one.name) for b, one in enumerate(series)
        ]

    def _check(self, one: TimeSeries, horizon: int) -> None:
        codec = self.codec
        sizes = len(codec.target_names), len(codec.known_names)
        found = one.targets.shape[1], one.known.shape[1]
        if sizes != found or str(one.frequency) != codec.frequency:
            raise DataError(
                f"{one.name}: {found[0]} targets, {found[1]} columns known in advance, step "
                f"{one.frequency}; the forecaster learnt {sizes[0]}, {sizes[1]} and step "
                f"{codec.frequency}"
            )
        rows = len(one.known) - one.steps
        if codec.known_names and rows < horizon:
            raise DataError(
                f"{one.name}: {', '.join(map(repr, codec.known_names))} must be known of all "
                f"{horizon} steps to forecast, but only {rows} rows follow the last target; add "
                f"{horizon - rows} rows whose targets are empty, or forecast fewer steps"
            )


def fit_forecaster(
    series: Sequence[TimeSeries],
    options: ForecastOptions | None = None,
    callbacks: Sequence[Callback] = (),
) -> FittedForecaster:
    """Train one forecaster on all series.

    Args:
        series: What to learn from.
        options: How.
        callbacks: What watches; see `Trainer`.

    Raises:
        DataError: series differ in their columns, or are all too short.
        ValueError: an option is out of range.

    >>> series = [TimeSeries.of(np.sin(np.arange(60.0)))]
    >>> options = ForecastOptions(horizon=4, season=6, max_steps=20, hidden_size=4)
    >>> fit_forecaster(series, options).forecast(series)[0].paths.shape
    (400, 4, 1)
    """
    options = options or ForecastOptions()
    codec = ForecastCodec.fit(series, options)
    if options.distribution == "negative_binomial":
        _check_counts(series)
    fit = _Fit(series, codec, options)
    before = random.get_state()
    try:
        models = [fit.member(options.seed + k, callbacks) for k in range(options.members)]
    finally:
        random.set_state(before)
    return FittedForecaster(models, codec, fit.batches.skipped)


class _Fit:
    """Models of one shape, trained on the windows of the same series."""

    def __init__(
        self, series: Sequence[TimeSeries], codec: ForecastCodec, options: ForecastOptions
    ) -> None:
        self._options = options
        lags = ForecastOptions(season=codec.season, lags=options.lags).chosen_lags()
        context = options.context or max(codec.season, codec.horizon)
        counts = options.distribution == "negative_binomial"
        scaling = options.scaling or ("mean_absolute" if counts else "standard")
        sizes = (codec, max(lags), context, codec.horizon, options.batch_size)
        self.batches = WindowBatches(series, *sizes)
        self._validation: tuple[WindowBatches, WindowBatches] | None = None
        if options.validation_share:
            needed = max(lags) + 1 + codec.horizon
            splits = [
                _split(one, codec.horizon, options.validation_share, needed) for one in series
            ]
            if any(split < one.steps for one, split in zip(series, splits, strict=True)):
                past = [one.until(split) for one, split in zip(series, splits, strict=True)]
                self._validation = (
                    WindowBatches(past, *sizes),
                    WindowBatches(series, *sizes, after=splits),
                )
        self._shape: dict[str, Any] = {
            "hidden_size": options.hidden_size,
            "target_size": len(codec.target_names),
            "feature_size": codec.feature_size,
            "context": context,
            "lags": lags,
            "distribution": options.distribution,
            "quantiles": options.quantiles,
            "scaling": scaling,
            "typical_scale": typical_scale(self.batches, scaling, max(lags) + context),
            "autoregressive": options.autoregressive,
            "linear_features": len(codec.known_names),
            "cell": options.cell,
            "num_layers": options.num_layers,
            "dropout": options.dropout,
        }

    def member(self, seed: int, callbacks: Sequence[Callback]) -> Forecaster:
        """A model that was trained for as many updates as were best on the steps held out."""
        steps = self._options.max_steps
        if self._validation is not None:
            steps = self._train(*self._validation, seed, steps, callbacks)[1]
        return self._train(self.batches, None, seed, steps, callbacks)[0]

    def _train(
        self,
        batches: WindowBatches,
        validation: WindowBatches | None,
        seed: int,
        steps: int,
        callbacks: Sequence[Callback],
    ) -> tuple[Forecaster, int]:
        """A trained model, and after how many updates it was best."""
        options = self._options
        random.seed(seed)
        model = Forecaster(**self._shape)
        if options.autoregressive and not model.distribution.counts:
            some = batches.shuffled(np.random.default_rng(seed))
            count = min(len(some), _LEAST_SQUARES_BATCHES)
            model.start_from_least_squares(some[k] for k in range(count))
            batches.fill(model)
            if validation is not None:
                validation.fill(model)
        best = [0]
        if steps:
            optimizer = Adam(
                model.parameters(), options.learning_rate, weight_decay=options.weight_decay
            )
            training = TrainingOptions(
                max_steps=steps,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                clip_norm=options.clip_norm,
                evaluate_every=max(options.max_steps // 40, 1),
                patience=options.patience if validation is not None else 0,
                seed=seed,
            )
            trainer = Trainer(
                model,
                optimizer,
                batches,
                training,
                schedule=Cosine(optimizer, total_steps=options.max_steps),
                validation=validation,
                save_model=lambda record: best.append(record["step"]),
                callbacks=callbacks,
            )
            if validation is not None:
                trainer.evaluate()
            trainer.run()
        return model.eval(), best[-1]


def _split(one: TimeSeries, horizon: int, share: float, needed: int) -> int:
    """After how many steps the validation of a series begins; its end if it is too short."""
    held = max(horizon, round(share * one.steps))
    there = np.flatnonzero(~np.isnan(one.targets).all(axis=1))
    start = int(there[0]) if len(there) else 0
    return one.steps - held if one.steps - start - held >= needed else one.steps


def typical_scale(batches: WindowBatches, scaling: str, past: int) -> list[float]:
    """The median of the scale of the windows of a batch, for each target."""
    batch = batches.shuffled(np.random.default_rng(1))[0]
    _, scale = window_moments(scaling, batch.inputs[:past], batch.observed[:past])
    return [float(size) for size in np.median(scale, axis=0)]


def _check_counts(series: Sequence[TimeSeries]) -> None:
    for one in series:
        wrong = ~np.isnan(one.targets) & ((one.targets < 0) | (one.targets % 1 != 0))
        for row, column in np.argwhere(wrong)[:1]:
            raise DataError(
                f"{one.name}: {one.target_names[column]!r} is {one.targets[row, column]:g} at "
                f"{one.times[row]}; the distribution 'negative_binomial' is of counts 0, 1, 2, "
                "...: take 'student_t'"
            )


# Baselines


def seasonal_naive(
    series: Sequence[TimeSeries], horizon: int, season: int | None = None, paths: int = 400
) -> list[Forecast]:
    """Each step as it was a season before, with normal errors of the size that this had so far.

    The variance of a forecast k seasons ahead is k times that of the seasonal differences (Hyndman
    & Athanasopoulos 2021, 5.5). A missing value is taken from a season earlier.

    Args:
        series: The series.
        horizon: h.
        season: In steps; None for that of the calendar.
        paths: How many.

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
                f"{one.name}: a seasonal naive forecast needs a value for each of the last {m} "
                "steps, or a season before it"
            )
        given = one.targets[: one.steps]
        squares = (given[m:] - given[:-m]) ** 2
        there = ~np.isnan(squares)
        deviation = np.sqrt(np.where(there, squares, 0).sum(axis=0) / np.maximum(there.sum(0), 1))
        seasons = np.arange(horizon) // m + 1
        level = values[-m:][np.arange(horizon) % m]
        spread = np.sqrt(seasons)[:, None] * deviation
        drawn = level + normal_scores(paths)[:, None, None] * spread
        forecasts.append(Forecast(one.future(horizon), drawn, one.name))
    return forecasts


# Backtests


@dataclass(frozen=True)
class ForecastScores:
    """How good forecasts were, over all series, origins, steps and targets that have a value.

    Attributes:
        mae: The mean absolute error of the median.
        rmse: The root of the mean squared error of the mean.
        mase: The mean of absolute errors over those of the seasonal naive forecast one step ahead
            in the training part of the series (Hyndman & Koehler 2006).
        weighted_quantile_loss: Twice the sum of pinball losses over the sum of absolute values, the
            mean over levels (Salinas et al. 2020).
        coverage: The share of values within the central interval, by its level.
        values: How many values there were.

    >>> ForecastScores(1.0, 2.0, 0.5, 0.1, {0.8: 0.75}, 10).mase
    0.5
    """

    mae: float
    rmse: float
    mase: float
    weighted_quantile_loss: float
    coverage: dict[float, float]
    values: int


def backtest_origins(steps: int, horizon: int, origins: int, step: int | None = None) -> list[int]:
    """After how many steps the forecasts of a backtest begin; the last has its whole horizon.

    Args:
        steps: Of the series.
        horizon: h.
        origins: How many.
        step: From one to the next; None for h.

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
            f"needs at least {steps - first + 2} steps; the series has {steps}"
        )
    return [first + k * step for k in range(origins)]


def before_backtest(
    series: Sequence[TimeSeries], horizon: int, origins: int, step: int | None = None
) -> list[TimeSeries]:
    """Each series as it was at its first origin: what may be learnt from before a backtest.

    The arguments are those of `backtest`.

    >>> [one.steps for one in before_backtest([TimeSeries.of(np.arange(100.0))], 12, 3, 6)]
    [76]
    """
    return [one.until(backtest_origins(one.steps, horizon, origins, step)[0]) for one in series]


def backtest(
    series: Sequence[TimeSeries],
    methods: Mapping[str, Method],
    horizon: int,
    origins: int = 5,
    step: int | None = None,
    *,
    season: int | None = None,
    quantiles: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    coverage: Sequence[float] = (0.8, 0.95),
) -> dict[str, ForecastScores]:
    """Compare forecasts from rolling origins with what came (Tashman 2000).

    Args:
        series: The series.
        methods: By name, what forecasts series from their ends on, such as the ``forecast`` of a
            `FittedForecaster` that was fitted on `before_backtest`, or a function that fits anew.
            It gets the series as they were at an origin, and the rows known in advance.
        horizon: h.
        origins: How many, the last one h steps before the end of each series.
        step: From one origin to the next; None for h.
        season: Of the seasonal naive forecast that scales the errors; None for the calendar's.
        quantiles: Levels of the weighted quantile loss.
        coverage: Levels of the central intervals.

    Returns:
        The scores of each method.

    Raises:
        DataError: a series is too short, or constant over seasons so that nothing scales its
            errors.

    >>> series = [TimeSeries.of(np.arange(30.0) + np.tile([0.0, 5.0], 15))]
    >>> scores = backtest(series, {"naive": lambda s, h: seasonal_naive(s, h, 2)}, 2, season=2)
    >>> scores["naive"].mae, scores["naive"].mase
    (2.0, 1.0)
    """
    starts = [backtest_origins(one.steps, horizon, origins, step) for one in series]
    scales = [
        _naive_error(one, start[0], season or one.frequency.season)
        for one, start in zip(series, starts, strict=True)
    ]
    sums = {name: _Sums(quantiles, coverage) for name in methods}
    for origin in range(origins):
        pasts = [one.until(start[origin]) for one, start in zip(series, starts, strict=True)]
        for name, method in methods.items():
            forecasts = method(pasts, horizon)
            for one, start, scale, forecast in zip(series, starts, scales, forecasts, strict=True):
                came = one.targets[start[origin] : start[origin] + horizon]
                sums[name].add(forecast, came, scale)
    return {name: total.scores() for name, total in sums.items()}


def _naive_error(one: TimeSeries, steps: int, season: int) -> NDArray[np.float64]:
    """[N]: the mean absolute seasonal difference of the training part."""
    past = one.targets[:steps]
    errors = np.abs(past[season:] - past[:-season])
    there = ~np.isnan(errors)
    total = np.where(there, errors, 0).sum(axis=0)
    scale: NDArray[np.float64] = total / np.maximum(there.sum(axis=0), 1)
    if not (scale > 0).all():
        raise DataError(
            f"{one.name}: the {steps} steps before the first origin have no seasonal differences "
            f"({season} steps) other than 0, so nothing scales the errors; give another season, "
            "fewer origins, or leave the series out"
        )
    return scale


class _Sums:
    """The sums that scores are made of."""

    def __init__(self, quantiles: Sequence[float], coverage: Sequence[float]) -> None:
        self._levels = np.array(quantiles)
        self._coverage = list(coverage)
        self._count = 0
        self._absolute = self._squared = self._scaled = self._size = 0.0
        self._pinball = np.zeros(len(self._levels))
        self._within = np.zeros(len(self._coverage))

    def add(self, forecast: Forecast, came: NDArray[np.float64], scale: ArrayLike) -> None:
        there = ~np.isnan(came)
        came = np.where(there, came, 0)
        error = np.where(there, np.abs(came - forecast.median), 0)
        self._count += int(there.sum())
        self._absolute += float(error.sum())
        self._scaled += float((error / np.asarray(scale)).sum())
        self._squared += float(np.where(there, (came - forecast.mean) ** 2, 0).sum())
        self._size += float(np.abs(came).sum())
        levels = self._levels[:, None, None]
        over = came - forecast.quantile(self._levels.tolist())
        loss = np.maximum(levels * over, (levels - 1) * over)
        self._pinball += np.where(there, loss, 0).sum(axis=(1, 2))
        for k, level in enumerate(self._coverage):
            low, high = forecast.quantile([(1 - level) / 2, (1 + level) / 2])
            self._within[k] += (there & (low <= came) & (came <= high)).sum()

    def scores(self) -> ForecastScores:
        count = self._count
        if count == 0:
            raise DataError("there is no value after the origins of the backtest")
        size = self._size or math.nan
        return ForecastScores(
            self._absolute / count,
            math.sqrt(self._squared / count),
            self._scaled / count,
            float(np.mean(2 * self._pinball / size)),
            {k: float(w / count) for k, w in zip(self._coverage, self._within, strict=True)},
            count,
        )
