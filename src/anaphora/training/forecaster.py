"""Forecasters of series in memory: options, fitting and forecasting."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anaphora import random
from anaphora.data import (
    GAPS,
    DataError,
    ForecastCodec,
    Frequency,
    TimeSeries,
    WindowBatches,
)
from anaphora.data.forecasting import ForecastExample, are_lags, window
from anaphora.data.time_series import shown
from anaphora.models.body import ForecasterBody
from anaphora.models.distributions import COUNTS
from anaphora.models.forecaster import Forecaster
from anaphora.optim import Adam, Cosine
from anaphora.options import SIZE, option
from anaphora.tensor import Array
from anaphora.training.backtesting import Forecast, ForecastMeasure
from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import evaluate
from anaphora.training.options import FileOptions, TaskOptions, check_format, data_option
from anaphora.training.trainer import Trainer

_LEAST_SQUARES_BATCHES = 200  # more take long and change little
_EVALUATIONS = 40  # per training


@dataclass(kw_only=True)
class ForecasterOptions(FileOptions, ForecasterBody, TaskOptions):
    """All options for training a forecaster.

    >>> ForecasterOptions.make(season=4, lags=[1, 2, 4]).lags
    (1, 2, 4)
    """

    time_column: str | None = data_option(
        None, "Column of the times; by default the first without another role.", reading=True
    )
    target_column: tuple[str, ...] = data_option(
        (),
        "Column to forecast; by default all columns without another role.",
        reading=True,
    )
    series_column: str | None = data_option(
        None, "Column of the name of the series, if a file has several.", reading=True
    )
    known_column: tuple[str, ...] = data_option(
        (),
        "Column that is known in advance, such as prices and holidays, and given for the steps to "
        "forecast too.",
        reading=True,
    )
    frequency: str | None = data_option(
        None, "Step of the times: day, 15 minutes, month, 0.5, ...; by default inferred."
    )
    gaps: str = data_option("refuse", "What to do with steps without a row.", GAPS, reading=True)
    time_format: str | None = data_option(
        None, "Format of dates other than ISO 8601, such as %d.%m.%Y.", reading=True
    )
    horizon: int | None = data_option(
        None, "Steps to forecast; by default a season, or 10.", SIZE, common=True, reading=True
    )
    season: int | None = data_option(None, "Steps of a season; by default from the calendar.", SIZE)
    context: int | None = data_option(
        None, "Steps that are read before a forecast; by default a season or the horizon.", SIZE
    )
    lags: tuple[int, ...] | None = data_option(
        None, "Lags of the values that each step reads; by default from the season."
    )
    calendar: bool = data_option(True, "Read the time of the day, week and year of dates.")
    paths: int = option(
        400, "Sampled paths, whose quantiles are the forecast.", SIZE,
        section="prediction", reading=True,
    )  # fmt: skip
    levels: tuple[float, ...] = option(
        (0.1, 0.9), "Levels of the quantiles besides the median.", section="prediction"
    )
    origins: int = option(
        5, "Origins from which forecasts are compared with the true values; the last is one "
        "horizon before the end.",
        SIZE, section="evaluation",
    )  # fmt: skip

    presets = {  # noqa: RUF012 - it is never changed
        "default": {
            "hidden_size": 16,
            "max_steps": 1000,
            "learning_rate": 0.001,
            "schedule": "cosine",
            "validation_share": 0.2,
            "evaluate_every": 1000 // _EVALUATIONS,
            "patience": 8,
        }
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_format(self.format, ("table",))
        for name in ("target_column", "known_column", "levels"):
            setattr(self, name, tuple(getattr(self, name)))
        if self.lags is not None:
            self.lags = tuple(self.lags)
            if not are_lags(self.lags):
                raise ValueError(
                    f"lags {list(self.lags)}: expected distinct numbers of at least 1 step"
                )
        if not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels {list(self.levels)}: expected numbers between 0 and 1")
        if self.frequency is not None:
            Frequency.parse(self.frequency)


@dataclass(frozen=True, eq=False)
class FittedForecaster:
    """Trained forecasters and their codec.

    Attributes:
        models: One model per seed; their paths are combined.
        codec: The columns, step and lags of the models.
        skipped: The names of the series that were too short for training.

    >>> series = [TimeSeries.of(np.sin(np.arange(30.0)))]
    >>> options = ForecasterOptions.make(horizon=2, lags=[1], max_steps=1, hidden_size=4)
    >>> fitted = fit_forecaster(series, options)
    >>> FittedForecaster(fitted.models, fitted.codec).forecast(series)[0].median.shape
    (2, 1)
    """

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
        """Forecast each series from its last target.

        Args:
            series: Series with the columns and the step of the training, and with h future rows if
                columns are known in advance.
            horizon: h; None for that of the codec.
            paths: The number of paths, over all models.
            seed: Seed of the paths.

        Raises:
            DataError: columns or steps differ, future rows are missing, or a series has no value
                in its last steps.
        """
        horizon = horizon or self.codec.horizon
        model = self.models[0]
        read = model.past + model.context
        filled = read + model.past  # P more steps, from which missing values are filled
        pasts, known = [], []
        for one in series:
            self._check(one, horizon)
            steps = one.steps
            if np.isnan(one.targets[max(steps - read, 0) : steps]).all(axis=0).any():
                raise DataError(
                    f"{one.name}: a target has no value in the last {read} steps, which the "
                    "forecast reads; give at least one"
                )
            positions = np.arange(max(steps - filled, 0), steps + horizon)
            columns = np.zeros((len(positions), 0))
            if self.codec.known_names:
                columns = one.known[positions]
            features = self.codec.features(one.frequency.at(one.times[0], positions), columns)
            pasts.append(window(one.targets, steps, filled, np.nan))
            known.append(window(features, len(features), filled + horizon, 0))
        past, features = np.stack(pasts, axis=1), np.stack(known, axis=1)
        each = -(-paths // len(self.models))
        sampled = np.concatenate(
            [
                model.predict(past, horizon, features, paths=each, seed=seed + number)
                for number, model in enumerate(self.models)
            ]
        )
        return [
            Forecast(one.future(horizon), sampled[:, :, b], one.name)
            for b, one in enumerate(series)
        ]

    def _check(self, one: TimeSeries, horizon: int) -> None:
        codec = self.codec
        sizes = len(codec.target_names), len(codec.known_names)
        found = one.targets.shape[1], one.known.shape[1]
        if sizes != found or str(one.frequency) != codec.frequency:
            raise DataError(
                f"{one.name}: {found[0]} targets, {found[1]} columns known in advance, step "
                f"{one.frequency}; the forecaster was trained with {sizes[0]}, {sizes[1]} and step "
                f"{codec.frequency}"
            )
        rows = len(one.known) - one.steps
        if codec.known_names and rows < horizon:
            raise DataError(
                f"{one.name}: {', '.join(map(repr, codec.known_names))} must be known for all "
                f"{horizon} steps to forecast, but only {rows} rows follow the last target; add "
                f"{horizon - rows} rows with empty targets, or forecast fewer steps"
            )


def fit_forecaster(
    series: Sequence[TimeSeries],
    options: ForecasterOptions | None = None,
    *,
    members: int = 1,
    callbacks: Sequence[Callback] = (),
) -> FittedForecaster:
    """Train one forecaster on all series.

    The weights kept are the best by the figure ``monitor`` on the ends of the series, which
    ``validation_share`` holds out; the last weights if the share is 0 or the series are too short.

    Args:
        series: The series to train on.
        options: All options; those for reading files have no effect. The optimizer is Adam, with a
            cosine schedule.
        members: The number of models, one per seed, whose paths are combined.
        callbacks: See `Trainer`.

    Raises:
        DataError: series differ in their columns, or are all too short.
        ValueError: an option is out of range.

    >>> series = [TimeSeries.of(np.sin(np.arange(60.0)))]
    >>> options = ForecasterOptions.make(horizon=4, season=6, max_steps=20, hidden_size=4)
    >>> fit_forecaster(series, options).forecast(series)[0].paths.shape
    (400, 4, 1)
    """
    options = options or ForecasterOptions.make()
    if members < 1 or options.max_steps is None:
        raise ValueError(
            f"fit_forecaster: members {members}, max_steps {options.max_steps}; expected at least "
            "1 and a number"
        )
    codec, examples, skipped = split_ends(options, series)
    training, validation = (
        codec.batches(codec.encode(some), options.batch_size) if some else None for some in examples
    )
    models = []
    for seed in range(options.seed, options.seed + members):
        with random.seeded(seed):
            own = dataclasses.replace(options, seed=seed)
            models.append(_train(own, codec, training, validation, callbacks))
    return FittedForecaster(models, codec, [one.name for one in skipped])


def split_ends(
    options: ForecasterOptions, series: Sequence[TimeSeries]
) -> tuple[ForecastCodec, tuple[list[ForecastExample], list[ForecastExample]], list[TimeSeries]]:
    """The codec, the training and the validation examples, and the series that are too short.

    Raises:
        DataError: as for `fit_forecaster`.
    """
    check_counts(options, series)
    codec = _fit(options, series)
    kept, skipped = codec.long_enough(series)
    training, validation = [], []
    for one in kept:
        split = one.steps - max(codec.horizon, round(options.validation_share * one.steps))
        if options.validation_share and split - one.start >= codec.needed_steps:
            training.append(one.until(split))
            validation.append((one, split))
        else:
            training.append(one)
    return _fit(options, training), ([(one, 0) for one in training], validation), skipped


def _fit(options: ForecasterOptions, series: Sequence[TimeSeries]) -> ForecastCodec:
    assert options.scaling is not None
    return ForecastCodec.fit(
        series,
        horizon=options.horizon,
        season=options.season,
        context=options.context,
        lags=options.lags,
        calendar=options.calendar,
        scaling=options.scaling,
    )


def _train(
    options: ForecasterOptions,
    codec: ForecastCodec,
    training: Any,
    validation: Any,
    callbacks: Sequence[Callback],
) -> Forecaster:
    """Train a model on windows; it has the weights that were best in validation."""
    model = new_model(options, codec, training, validation)
    model.codec = codec
    best: dict[str, Array] = {}

    def keep(record: Mapping[str, Any]) -> None:
        best.update({name: p.data.copy() for name, p in model.named_parameters()})

    assert options.max_steps is not None
    optimizer = Adam(model.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    trainer = Trainer(
        model,
        optimizer,
        training,
        dataclasses.replace(options, evaluate_every=max(options.max_steps // _EVALUATIONS, 1)),
        schedule=Cosine(optimizer, total_steps=options.max_steps),
        validation=validation,
        save_model=keep,
        callbacks=callbacks,
        evaluator=lambda model, windows, on_batch: evaluate(
            model, windows, on_batch, ForecastMeasure(model)
        ),
    )
    if validation is not None:
        trainer.evaluate()
    trainer.run(progress=False)
    for name, parameter in model.named_parameters():
        parameter.assign(best.get(name, parameter.data))
    return model.eval()


def new_model(
    options: ForecasterOptions, codec: ForecastCodec, training: Any, validation: Any
) -> Forecaster:
    """A new model; its initial weights fill the missing values of the windows."""
    chosen = {name: getattr(options, name) for name in Forecaster.fields("model")}
    model = Forecaster.from_dict({**codec.sizes(), **chosen})
    start_from_least_squares(options, model, training)
    for windows in (training, validation):
        if windows is not None:
            windows.fill(model)
    return model


def start_from_least_squares(
    options: ForecasterOptions, model: Forecaster, training: WindowBatches
) -> None:
    """Initialize a model by least squares on windows, if its options say so."""
    if model.starts_from_least_squares:
        batches: Any = training.unfilled().shuffled(np.random.default_rng(options.seed))
        model.start_from_least_squares(itertools.islice(batches, _LEAST_SQUARES_BATCHES))


def check_counts(options: ForecasterOptions, series: Sequence[TimeSeries]) -> None:
    """Check that all values are counts, if the distribution is for counts.

    Raises:
        DataError: a value is not; the message says where.
    """
    if options.distribution not in COUNTS:
        return
    for one in series:
        wrong = ~np.isnan(one.targets) & ((one.targets < 0) | (one.targets % 1 != 0))
        for row, column in np.argwhere(wrong)[:1]:
            raise DataError(
                f"{one.name}: {one.target_names[column]!r} is {one.targets[row, column]:g} at "
                f"{shown(one.times[row])}; the distribution {options.distribution!r} is for counts "
                "0, 1, 2, ...: use 'student_t'"
            )
