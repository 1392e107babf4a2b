"""The codec of forecasters, and batches of windows of series."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora import schema
from anaphora.data.batches import Batch, Batches
from anaphora.data.codecs import Codec, Column
from anaphora.data.errors import DataError
from anaphora.data.series import moments
from anaphora.data.time_series import Frequency, Times, TimeSeries, calendar_features, same_columns

Array = NDArray[Any]

SCALINGS = ("standard", "mean_absolute", "none")

ForecastExample = tuple[TimeSeries, int]
"""A series, and for validation the number of steps before the first horizon of its windows; 0 for
training."""

# More windows are slow and change little.
_VALIDATION_WINDOWS = 512
_SCORED_WINDOWS = 64
_TYPICAL_WINDOWS = 32


@dataclass(frozen=True, eq=False)
class ForecastBatch(Batch):
    """Windows of series: P steps for the lags, a context of C steps, and h steps to forecast.

    Attributes:
        inputs: The values [P + C + h, B, N] in their own units, with missing values filled (see
            `Forecaster.fill`).
        targets: The last C + h of them.
        features: [C + h, B, F] the features of each step, which are known in advance.
        observed: [P + C + h, B, N] whether a value was observed.
        counted: [C + h, B, N] whether a target counts; None for all that were observed.
        scored: [B] whether an evaluation also forecasts the window; None for none.
        naive_error: [B, N] the mean absolute error of the seasonal naive forecast on the series of
            each window, which divides the errors of its forecasts.

    >>> values = np.array([[[1.0]], [[0.0]], [[3.0]]], np.float32)
    >>> batch = ForecastBatch(
    ...     values, values[1:], features=np.zeros((2, 1, 0), np.float32), observed=values > 0
    ... )
    >>> batch.tokens
    1
    """

    features: Array = field(kw_only=True)
    observed: NDArray[np.bool_] = field(kw_only=True)
    counted: NDArray[np.bool_] | None = None
    scored: NDArray[np.bool_] | None = None
    naive_error: NDArray[np.float64] | None = None

    def _batch_axes(self) -> dict[str, int]:
        steps = dict.fromkeys(("inputs", "targets", "features", "observed", "counted"), 1)
        return {**steps, "scored": 0, "naive_error": 0}

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[C + h, B, N]: the targets that were observed and count."""
        observed = self.observed[len(self.observed) - len(self.targets) :]
        return observed if self.counted is None else observed & self.counted

    @property
    def tokens(self) -> int:
        """The number of targets that count."""
        return int(np.count_nonzero(self.mask))


class WindowBatches(Batches):
    """All windows of several series, shuffled in each epoch.

    A window has P + C + h steps: the past for the lags, the context and the horizon. The first
    starts at the first step of the series. In shorter series, the steps before are missing.

    Args:
        values: [T, N] of each series; NaN where missing.
        features: [T, F] of each series.
        past: P, the largest lag.
        context: C.
        horizon: h.
        batch_size: B, the maximum number of windows.
        after: For validation, the steps of each series before the first horizon. Only the horizons
            of windows count; many windows are subsampled evenly.
        every: The steps between these windows.
        naive_errors: [N] of each validation series; see `ForecastBatch`.

    Raises:
        DataError: no series has P + 1 + h steps.

    >>> series = [np.arange(6.0)[:, None]]
    >>> sizes = {"past": 2, "context": 1, "horizon": 2, "batch_size": 2}
    >>> batches = WindowBatches(series, [np.zeros((6, 0))], **sizes)
    >>> [batch.inputs[:, :, 0].T.tolist() for batch in batches]
    [[[0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]]]
    """

    carries_state = False

    def __init__(
        self,
        values: Sequence[Array],
        features: Sequence[Array],
        *,
        past: int,
        context: int,
        horizon: int,
        batch_size: int,
        after: Sequence[int] | None = None,
        every: int | None = None,
        naive_errors: Sequence[NDArray[np.float64]] | None = None,
    ) -> None:
        self._naive_errors = naive_errors
        self._sizes = past, context, horizon
        self._batch_size = batch_size
        self._values, self._features = list(values), list(features)
        self._filled = self._values
        self._validates = after is not None
        ends: list[tuple[int, int]] = []
        for number, one in enumerate(values):
            if len(one) < past + 1 + horizon:
                continue
            first = min(past + context + horizon, len(one))
            if after is not None:
                first = max(first, after[number] + horizon)
            ends += [(number, end) for end in range(first, len(one) + 1, every or 1)]
        if not ends:
            longest = max(map(len, values), default=0)
            raise DataError(
                f"the series have too few steps: the longest has {longest}, but lags of up to "
                f"{past} steps and a horizon of {horizon} need at least {past + 1 + horizon}"
            )
        if after is not None and every is None:
            ends = ends[:: -(-len(ends) // _VALIDATION_WINDOWS)]
        self._ends = np.array(ends)

    def fill(self, model: Any) -> None:
        """Fill the missing values of the inputs with `Forecaster.fill`."""
        self._filled = [
            model.fill(values[:, None], features[:, None])[:, 0]
            for values, features in zip(self._values, self._features, strict=True)
        ]

    def unfilled(self) -> WindowBatches:
        """The same windows before missing values were filled."""
        return self._with(_filled=self._values)

    @property
    def tokens(self) -> int:
        """The number of targets that count, over all batches."""
        _, context, horizon = self._sizes
        counted = horizon if self._validates else context + horizon
        total = 0
        for number, values in enumerate(self._values):
            before = np.concatenate([[0], np.cumsum((~np.isnan(values)).sum(axis=1))])
            ends = self._ends[self._ends[:, 0] == number, 1]
            total += int((before[ends] - before[np.maximum(ends - counted, 0)]).sum())
        return total

    def __len__(self) -> int:
        return -(-len(self._ends) // self._batch_size)

    def _batch(self, index: int) -> ForecastBatch:
        start = index * self._batch_size
        rows = self._ends[start : start + self._batch_size]
        past, context, horizon = self._sizes
        steps = past + context + horizon
        given = np.stack([window(self._values[k], end, steps, np.nan) for k, end in rows], axis=1)
        filled = np.stack([window(self._filled[k], end, steps, 0) for k, end in rows], axis=1)
        features = np.stack(
            [window(self._features[k], end, context + horizon, 0) for k, end in rows], axis=1
        )
        values = np.nan_to_num(filled)
        more: dict[str, Any] = {}
        if self._validates:
            more["counted"] = np.zeros(values[past:].shape, np.bool_)
            more["counted"][context:] = True
        if self._naive_errors is not None:
            spacing = -(-len(self._ends) // _SCORED_WINDOWS)
            more["scored"] = np.arange(start, start + len(rows)) % spacing == 0
            more["naive_error"] = np.stack([self._naive_errors[k] for k, _ in rows])
        return ForecastBatch(
            values,
            values[past:],
            None,
            features=features,
            observed=~np.isnan(given),
            **more,
        )

    def shuffled(self, generator: np.random.Generator) -> WindowBatches:
        """The same windows in batches of another order."""
        return self._with(_ends=self._ends[generator.permutation(len(self._ends))])

    def _with(self, **changes: Any) -> WindowBatches:
        other = copy.copy(self)
        vars(other).update(changes)
        return other


def window(array: Array, end: int, steps: int, padding: float) -> Array:
    """The steps [steps, ...] of an array [T, ...] before an end, padded at the start if needed.

    They are a view of the array where they need no padding.

    >>> window(np.array([[1.0], [2.0], [3.0]]), end=2, steps=3, padding=0)[:, 0].tolist()
    [0.0, 1.0, 2.0]
    """
    part = array[max(end - steps, 0) : end]
    if len(part) == steps:
        return part
    before: Array = np.full((steps - len(part), *array.shape[1:]), padding, array.dtype)
    return np.concatenate([before, part])


def window_moments(
    scaling: str, past: NDArray[np.float64], observed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The means to subtract from the values of windows, and the scales to divide by, each [B, N].

    Args:
        scaling: One of `SCALINGS`.
        past: [P + C, B, N].
        observed: Whether each was observed.

    >>> past = np.array([[[1.0]], [[5.0]]])
    >>> [part.item() for part in window_moments("standard", past, past > 0)]
    [3.0, 2.0]
    """
    count = np.maximum(observed.sum(axis=0), 1)
    values = np.where(observed, past, 0.0)
    mean, scale = np.zeros(count.shape), np.ones(count.shape)
    if scaling == "mean_absolute":
        scale += np.abs(values).sum(axis=0) / count
    elif scaling == "standard":
        mean = values.sum(axis=0) / count
        squares = np.where(observed, (past - mean) ** 2, 0.0).sum(axis=0) / count
        # The deviation of a constant is a rounding error.
        deviation = np.where(squares > (1e-7 * mean) ** 2, np.sqrt(squares), 0.0)
        scale = np.where(deviation > 0, deviation, np.where(mean == 0, 1.0, np.abs(mean)))
    return mean, scale


def seasonal_error(values: NDArray[np.float64], season: int, power: int = 1) -> NDArray[np.float64]:
    """The mean of ``|y[t] - y[t - m]|**power``, the error of repeating the last season, [N].

    Args:
        values: [T, N], NaN where missing; a step counts if both values are observed.
        season: m.
        power: 2 for squared errors.

    Returns:
        [N], 0 if no step counts.

    >>> seasonal_error(np.array([[1.0], [5.0], [3.0], [np.nan], [4.0]]), season=2).tolist()
    [1.5]
    """
    errors = np.abs(values[season:] - values[:-season]) ** power
    counted = ~np.isnan(errors)
    total = np.where(counted, errors, 0).sum(axis=0)
    mean: NDArray[np.float64] = total / np.maximum(counted.sum(axis=0), 1)
    return mean


def are_lags(lags: Sequence[int]) -> bool:
    """Whether there are lags, which are distinct and at least 1 step.

    >>> are_lags([1, 12]), are_lags([2, 2])
    (True, False)
    """
    return len(lags) > 0 and min(lags) >= 1 and len(set(lags)) == len(lags)


def default_lags(season: int) -> tuple[int, ...]:
    """The default lags.

    All up to two seasons and one step; for a season longer than 24 steps, the first four and those
    around one season.

    >>> default_lags(4), default_lags(365)
    ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 364, 365, 366))
    """
    if season <= 24:
        return tuple(range(1, 2 * max(season, 2) + 2))
    return (1, 2, 3, 4, season - 1, season, season + 1)


@dataclass(frozen=True)
class ForecastCodec(Codec):
    """The codec of a forecaster: columns, times, and the sizes of a window.

    Attributes:
        target_names: [N] the columns to forecast.
        known_names: [K] the columns known in advance.
        frequency: The step, as text.
        season: In steps.
        horizon: h, the default number of steps to forecast.
        context: C, the steps that are read before the first forecast.
        lags: The lags of the values that each step reads, in steps; P is the largest.
        calendar: Whether the calendar is read.
        known_mean: [K] the means of the columns known in advance.
        known_deviation: [K] their standard deviations.
        typical_scale: [N] the median scale of windows.

    >>> codec = ForecastCodec.fit([TimeSeries.of(np.arange(60.0), frequency="month")])
    >>> codec.season, codec.horizon, ForecastCodec.from_dict(codec.to_dict()) == codec
    (12, 12, True)
    """

    target_names: tuple[str, ...]
    known_names: tuple[str, ...]
    frequency: str
    season: schema.Size
    horizon: schema.Size
    context: schema.Size
    lags: tuple[schema.Size, ...]
    calendar: bool
    known_mean: tuple[float, ...]
    known_deviation: tuple[float, ...]
    typical_scale: tuple[float, ...]

    counted = "values"

    @classmethod
    def fit(
        cls,
        series: Sequence[TimeSeries],
        *,
        horizon: int | None = None,
        season: int | None = None,
        context: int | None = None,
        lags: Sequence[int] | None = None,
        calendar: bool = True,
        scaling: str = "standard",
    ) -> ForecastCodec:
        """Fit a codec to training series, which must have the same columns and step.

        Args:
            series: At least one, long enough for a window.
            horizon: h; None for a season, or 10 steps if there is none.
            season: In steps; None for that of the calendar.
            context: C; None for a season or the horizon.
            lags: None for `default_lags`.
            calendar: Whether to read the calendar.
            scaling: One of `SCALINGS`.

        Raises:
            DataError: there are no series, they differ in columns or step, or all are too short.
        """
        if not series:
            raise DataError("there are no series to train on; give at least one")
        same_columns(series)
        first = series[0]
        season = season or first.frequency.season
        horizon = horizon or (season if season > 1 else 10)
        known = np.concatenate([one.known for one in series])
        mean, deviation = moments(known, "the column known in advance")
        codec = cls(
            first.target_names,
            first.known_names,
            str(first.frequency),
            season,
            horizon,
            context or max(season, horizon),
            tuple(lags or default_lags(season)),
            calendar,
            tuple(mean.tolist()),
            tuple(deviation.tolist()),
            (),
        )
        kept, _ = codec.long_enough(series)
        arrays = codec.encode([(one, 0) for one in kept])
        batches = codec.batches(arrays, _TYPICAL_WINDOWS)
        batch: Any = batches.shuffled(np.random.default_rng(1))[0]
        steps = codec.past + codec.context
        _, scale = window_moments(scaling, batch.inputs[:steps], batch.observed[:steps])
        return replace(codec, typical_scale=tuple(np.median(scale, axis=0).tolist()))

    @property
    def past(self) -> int:
        """P, the largest lag."""
        return max(self.lags)

    @property
    def needed_steps(self) -> int:
        """The minimum length of a series with a window."""
        return self.past + 1 + self.horizon

    def long_enough(
        self, series: Sequence[TimeSeries]
    ) -> tuple[list[TimeSeries], list[TimeSeries]]:
        """The series that have a window, and those that are too short.

        Raises:
            DataError: all are too short.
        """
        kept = [one for one in series if one.steps - one.start >= self.needed_steps]
        if not kept:
            longest = max(series, key=lambda one: one.steps - one.start)
            raise DataError(
                f"the series have too few steps: the longest, {longest.name!r}, has "
                f"{longest.steps - longest.start}, but lags of up to {self.past} steps and a "
                f"horizon of {self.horizon} need at least {self.needed_steps}; give shorter lags "
                "(a shorter season) or a shorter horizon"
            )
        return kept, [one for one in series if one.steps - one.start < self.needed_steps]

    @property
    def feature_size(self) -> int:
        """F: the columns known in advance, and the features of the calendar."""
        calendar = self._calendar(np.zeros(1, "datetime64[us]"))
        return len(self.known_names) + int(calendar.shape[1])

    def features(self, times: Times, known: NDArray[np.float64]) -> NDArray[np.float32]:
        """The features [T, F] of steps with the times [T] and the known columns [T, K]."""
        scaled = (known - np.array(self.known_mean)) / np.array(self.known_deviation)
        features = np.concatenate([scaled, self._calendar(times)], axis=1)
        return features.astype(np.float32)

    def _calendar(self, times: Times) -> NDArray[np.float64]:
        if not self.calendar:
            return np.zeros((len(times), 0))
        return calendar_features(times, Frequency.parse(self.frequency))

    def encode(self, examples: Sequence[ForecastExample]) -> dict[str, Array]:
        """Convert series to arrays, from first to last value; see `ForecastExample`."""
        spans = [(one, slice(one.start, one.steps)) for one, _ in examples]
        targets = np.concatenate([one.targets[span] for one, span in spans])
        observed = ~np.isnan(targets)
        return {
            "targets": np.where(observed, targets, 0.0),
            "observed": observed.astype(np.float32),
            "features": np.concatenate(
                [self.features(one.times[span], one.known[span]) for one, span in spans]
            ),
            "lengths": np.array([span.stop - span.start for _, span in spans]),
            "after": np.array([max(after - one.start, bool(after)) for one, after in examples]),
        }

    def columns(self) -> dict[str, Column]:  # noqa: D102
        N = len(self.target_names)
        return {
            "targets": Column("steps", features=N),
            "observed": Column("steps", features=N),
            "features": Column("steps", features=self.feature_size),
            "lengths": Column("series", of="steps"),
            "after": Column("series"),
        }

    def batches(
        self,
        arrays: Mapping[str, Array],
        batch_size: int,
        dtype: str = "float64",
        every: int | None = None,
    ) -> WindowBatches:
        """Windows of the series of `encode`; values stay float64, as the model scales them.

        Args:
            arrays: The result of `encode`.
            batch_size: B.
            dtype: Ignored.
            every: The steps between validation windows; None for 1, or more if there are many
                windows.

        Raises:
            DataError: no series is long enough.
        """
        cuts = np.cumsum(arrays["lengths"])[:-1]
        values = np.split(np.where(arrays["observed"] > 0, arrays["targets"], np.nan), cuts)
        after = arrays["after"].tolist() if arrays["after"].any() else None
        naive_errors = None
        if after is not None:  # series that are held out completely have no past
            m = self.season
            pasts = (one[:end] if end > m else one for one, end in zip(values, after, strict=True))
            naive_errors = [seasonal_error(past, m) for past in pasts]
        return WindowBatches(
            values,
            np.split(arrays["features"], cuts),
            past=self.past,
            context=self.context,
            horizon=self.horizon,
            batch_size=batch_size,
            after=after,
            every=every,
            naive_errors=naive_errors,
        )

    def counts(self, arrays: Mapping[str, Array]) -> int:  # noqa: D102
        ends = np.cumsum(arrays["lengths"])
        before = zip(ends - arrays["lengths"] + arrays["after"], ends, strict=True)
        return sum(int(arrays["observed"][start:end].sum()) for start, end in before)

    def sizes(self) -> dict[str, Any]:  # noqa: D102
        return {
            "target_size": len(self.target_names),
            "feature_size": self.feature_size,
            "linear_features": len(self.known_names),
            "context": self.context,
            "lags": self.lags,
            "typical_scale": self.typical_scale,
        }

    def describe(self) -> str:  # noqa: D102
        known = f", {len(self.known_names)} columns known in advance" if self.known_names else ""
        return (
            f"{len(self.target_names)} to forecast by {self.frequency}{known}; horizon "
            f"{self.horizon}, season {self.season}, lags up to {self.past} steps"
        )

    def selected(self, one: TimeSeries) -> TimeSeries:
        """A series with only the targets and known columns of the training, in their order.

        Raises:
            DataError: a column is missing, or the step differs.
        """
        missing = [name for name in self.target_names if name not in one.target_names]
        missing += [name for name in self.known_names if name not in one.known_names]
        if missing:
            raise DataError(
                f"{one.name}: has no column {', '.join(map(repr, missing))}, which the forecaster "
                f"reads; it has {', '.join(map(repr, one.target_names + one.known_names))}"
            )
        if str(one.frequency) != self.frequency:
            raise DataError(
                f"{one.name}: has the step {one.frequency}, but the forecaster was trained with "
                f"the step {self.frequency}"
            )
        targets = [one.target_names.index(name) for name in self.target_names]
        known = [one.known_names.index(name) for name in self.known_names]
        return replace(
            one,
            targets=one.targets[:, targets],
            known=one.known[:, known],
            target_names=self.target_names,
            known_names=self.known_names,
        )

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ForecastCodec:
        """Make a codec from the result of `to_dict`.

        Raises:
            ValueError: the data is damaged; the message names the field.
        """
        codec: ForecastCodec = schema.convert(data, cls)
        Frequency.parse(codec.frequency)
        N, K = len(codec.target_names), len(codec.known_names)
        for name, expected in (("known_mean", K), ("known_deviation", K), ("typical_scale", N)):
            found = getattr(codec, name)
            if len(found) != expected or not np.isfinite(found).all():
                raise ValueError(f"{name} is {list(found)}; expected {expected} finite numbers")
        for name in ("known_deviation", "typical_scale"):
            if not all(value > 0 for value in getattr(codec, name)):
                raise ValueError(f"{name} has a number of 0 or less; expected numbers above 0")
        if N == 0 or not are_lags(codec.lags):
            raise ValueError(
                "target_names and lags: expected at least one of each, and distinct lags >= 1"
            )
        for name in ("season", "horizon", "context"):
            if getattr(codec, name) < 1:
                raise ValueError(f"{name} is {getattr(codec, name)}; expected at least 1")
        return codec
