"""Forecasting: the task, and training in Python on series in memory."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anaphora import random
from anaphora.artifact import write_weights
from anaphora.data import (
    GAPS,
    DataError,
    ForecastBatch,
    ForecastCodec,
    Frequency,
    TimeSeries,
    UnknownShare,
    WindowBatches,
    read_time_series,
)
from anaphora.data.forecasting import ForecastExample, window
from anaphora.data.time_series import shown
from anaphora.models.body import ForecasterBody
from anaphora.models.distributions import COUNTS
from anaphora.models.forecaster import Forecaster
from anaphora.optim import Adam, Cosine
from anaphora.options import check_sizes, option
from anaphora.tensor import Array
from anaphora.training.backtesting import (
    Forecast,
    ForecastMeasure,
    Method,
    backtest,
    backtest_origins,
    seasonal_naive,
)
from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import Evaluation, evaluate
from anaphora.training.examples import example_of_table, name_of, open_examples
from anaphora.training.options import FileOptions, TaskOptions, check_format, data_option
from anaphora.training.task import (
    Adapt,
    Answer,
    EvaluationData,
    Notify,
    Paths,
    Task,
    TrainingData,
    names_of,
)
from anaphora.training.trainer import Trainer

_LEAST_SQUARES_BATCHES = 200  # more would take long, and say little more
_EVALUATIONS = 40  # a training

_REPORTED = {
    "mean_absolute_scaled_error": "MASE {:.4f}",
    "mean_absolute_error": "mean absolute error {:.4g}",
    "root_mean_squared_error": "root mean squared error {:.4g}",
    "quantile_loss": "quantile loss {:.4f}",
}


@dataclass(kw_only=True)
class ForecasterOptions(FileOptions, ForecasterBody, TaskOptions):
    """All options of a training of a forecaster.

    >>> ForecasterOptions.make(season=4, lags=[1, 2, 4]).lags
    (1, 2, 4)
    """

    time_column: str | None = data_option(
        None, "Column with the times; the first without another role if not given.", reading=True
    )
    target_column: tuple[str, ...] = data_option(
        (),
        "Column to forecast; all columns without another role if not given.",
        reading=True,
    )
    series_column: str | None = data_option(
        None, "Column that tells several series apart.", reading=True
    )
    known_column: tuple[str, ...] = data_option(
        (),
        "Column that is known in advance, such as prices and holidays; also in the rows to "
        "forecast.",
        reading=True,
    )
    frequency: str | None = data_option(
        None, "Step of the times: day, 15 minutes, month, 0.5, ...; found if not given."
    )
    gaps: str = data_option("refuse", "What becomes of steps that have no row.", GAPS, reading=True)
    time_format: str | None = data_option(
        None, "How dates are written that are not as ISO 8601 has it: %d.%m.%Y.", reading=True
    )
    horizon: int | None = data_option(
        None, "Steps to forecast; a season or 10 if not given.", common=True, reading=True
    )
    season: int | None = data_option(
        None, "Steps after which the series repeat; by the calendar if not given."
    )
    context: int | None = data_option(
        None, "Steps that are read before a forecast; a season or the horizon if not given."
    )
    lags: tuple[int, ...] | None = data_option(
        None, "How many steps before its own each step reads values; by the season if not given."
    )
    calendar: bool = data_option(True, "Read the time of the day, week and year of dates.")
    paths: int = option(
        400, "Paths that are sampled, of which quantiles are taken.", section="prediction",
        reading=True,
    )  # fmt: skip
    levels: tuple[float, ...] = option(
        (0.1, 0.9), "Levels of the quantiles beside the median.", section="prediction"
    )
    origins: int = option(
        5, "Times from which forecasts are compared with what came; the last leaves one horizon.",
        section="evaluation",
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
        check_sizes(self, 1, "horizon", "season", "context", "paths", "origins")
        if self.lags is not None:
            self.lags = tuple(self.lags)
            if not self.lags or min(self.lags) < 1 or len(set(self.lags)) != len(self.lags):
                raise ValueError(
                    f"lags {list(self.lags)}: expected different ones of at least 1 step"
                )
        if not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels {list(self.levels)}: expected numbers between 0 and 1")
        if self.frequency is not None:
            Frequency.parse(self.frequency)


@dataclass(frozen=True, eq=False)
class FittedForecaster:
    """Forecasters that were trained, and what their numbers stand for.

    Attributes:
        models: Each of a seed of its own; their paths are put together.
        codec: What their numbers stand for.
        skipped: The names of series that were too short to learn from.

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
            pasts.append(window(one.targets, steps, reach + model.past, np.nan))
            known.append(window(features, len(features), reach + model.past + horizon, 0))
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
    options: ForecasterOptions | None = None,
    *,
    members: int = 1,
    callbacks: Sequence[Callback] = (),
) -> FittedForecaster:
    """Train one forecaster on all series.

    The weights that are kept are those that do best on the ends of the series, which
    ``validation_share`` holds out; the last ones where it is 0, or the series are too short.

    Args:
        series: What to learn from.
        options: How; those that say how files are read mean nothing here. The optimiser is Adam,
            with a cosine schedule.
        members: Models, each of a seed of its own, whose paths are put together.
        callbacks: What watches; see `Trainer`.

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
    _check_counts(options, series)
    codec, examples, skipped = _prepared(options, series)
    training, validation = (
        codec.batches(codec.encode(some), options.batch_size) if some else None for some in examples
    )
    before = random.get_state()
    try:
        models = [
            _trained(
                dataclasses.replace(options, seed=options.seed + k),
                codec, training, validation, callbacks,
            )
            for k in range(members)
        ]  # fmt: skip
    finally:
        random.set_state(before)
    return FittedForecaster(models, codec, [one.name for one in skipped])


def _prepared(
    options: ForecasterOptions, series: Sequence[TimeSeries]
) -> tuple[ForecastCodec, tuple[list[ForecastExample], list[ForecastExample]], list[TimeSeries]]:
    """The codec, what to train on and to validate on, and the series that are too short."""
    codec = _fit(options, series)
    kept, skipped = codec.long_enough(series)
    past, validation = [], []
    for one in kept:
        split = one.steps - max(codec.horizon, round(options.validation_share * one.steps))
        if options.validation_share and split - one.start >= codec.needed_steps:
            past.append(one.until(split))
            validation.append((one, split))
        else:
            past.append(one)
    return _fit(options, past), ([(one, 0) for one in past], validation), skipped


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


def _trained(
    options: ForecasterOptions,
    codec: ForecastCodec,
    batches: Any,
    validation: Any,
    callbacks: Sequence[Callback],
) -> Forecaster:
    """A model that was trained on batches, with the weights that were best in validation."""
    random.seed(options.seed)
    model: Forecaster = FORECAST.make_model(options, codec.sizes())
    model.codec = codec
    _begin(options, model, batches)
    for windows in (batches, validation):
        if windows is not None:
            windows.fill(model)
    best: dict[str, Array] = {}

    def keep(record: Mapping[str, Any]) -> None:
        best.update({name: p.data.copy() for name, p in model.named_parameters()})

    assert options.max_steps is not None
    optimizer = Adam(model.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    trainer = Trainer(
        model,
        optimizer,
        batches,
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


def _begin(options: ForecasterOptions, model: Forecaster, batches: WindowBatches) -> None:
    """Give a model the weights that it begins with."""
    if model.starts_from_least_squares:
        model.start_from_least_squares(_some(batches, options.seed))


def _some(batches: WindowBatches, seed: int) -> Iterator[ForecastBatch]:
    """Batches of windows of all series, before anything stands for missing values."""
    some: Any = batches.unfilled().shuffled(np.random.default_rng(seed))
    return (some[k] for k in range(min(len(some), _LEAST_SQUARES_BATCHES)))


def _check_counts(options: ForecasterOptions, series: Sequence[TimeSeries]) -> None:
    if options.distribution not in COUNTS:
        return
    for one in series:
        wrong = ~np.isnan(one.targets) & ((one.targets < 0) | (one.targets % 1 != 0))
        for row, column in np.argwhere(wrong)[:1]:
            raise DataError(
                f"{one.name}: {one.target_names[column]!r} is {one.targets[row, column]:g} at "
                f"{one.times[row]}; the distribution {options.distribution!r} is of counts 0, 1, "
                "2, ...: take 'student_t'"
            )


# The task


def _series(options: ForecasterOptions, paths: Paths) -> list[TimeSeries]:
    if not paths:
        raise DataError("nothing was given to forecast: name .csv or .tsv files of series")
    if list(paths).count("-") > 1:
        raise DataError("standard input (-) was given more than once, but can be read only once")
    found = []
    for path in paths:
        series = read_time_series(
            path,
            time_column=options.time_column,
            target_columns=options.target_column,
            series_column=options.series_column,
            known_columns=options.known_column,
            frequency=options.frequency,
            gaps=options.gaps,
            time_format=options.time_format,
            encoding=options.encoding,
            format=options.format,
        )
        if options.series_column is None:
            series = [dataclasses.replace(one, name=name_of(str(path))) for one in series]
        found += series
    return found


def _read(
    options: ForecasterOptions,
    texts: Paths,
    validation_texts: Paths,
    folder: Path,
    notify: Notify,
    adapt: Adapt = lambda fit: fit(),
) -> tuple[ForecastCodec, dict[str, str | None]]:
    if texts:
        notify(f"reading {names_of(texts)}")
    series = _series(options, texts)
    _check_counts(options, series)
    if validation_texts:
        options = dataclasses.replace(options, validation_share=0.0)
    fitted, (training, validation), skipped = _prepared(options, series)
    codec: ForecastCodec = adapt(lambda: fitted)
    if skipped:
        notify(
            f"{len(skipped):,} of {len(series):,} series have fewer than {codec.needed_steps} "
            f"steps, so that nothing is learnt from them; the first is {skipped[0].name!r}"
        )
    if validation_texts:
        notify(f"reading {names_of(validation_texts)}")
        held_out = [codec.selected(one) for one in _series(options, validation_texts)]
        _check_counts(options, held_out)
        validation = [(one, 1) for one in codec.long_enough(held_out)[0]]
    elif options.validation_share and not validation:
        notify(
            "no series is long enough to hold out its end for validation, so the last weights are "
            "kept"
        )
    examples = {"train": training, "validation": validation}
    for name, of_name in examples.items():
        if of_name:
            arrays = codec.encode(of_name)
            write_weights(folder / f"{name}.safetensors", arrays, within=folder)
    names = {"texts": names_of(texts), "validation_texts": names_of(validation_texts) or None}
    return codec, names


def _resolve(options: ForecasterOptions, codec: ForecastCodec) -> ForecasterOptions:
    """The options as later commands need them to read files like those of the training."""
    return dataclasses.replace(
        options,
        target_column=codec.target_names,
        frequency=codec.frequency,
        horizon=codec.horizon,
        season=codec.season,
        context=codec.context,
        lags=codec.lags,
    )


def _open(options: ForecasterOptions, codec: ForecastCodec, folder: Path) -> TrainingData:
    """Windows in which missing values are what the first weights say, also after a resume."""
    data = open_examples("series", options, codec, folder)
    before = random.get_state()
    model: Forecaster = FORECAST.make_model(options, codec.sizes())
    random.set_state(before)
    training: Any = data.batches
    validation: Any = data.validation
    _begin(options, model, training)
    for windows in (training, validation):
        if windows is not None:
            windows.fill(model)
    return data


def _start(options: ForecasterOptions, trainer: Trainer) -> None:
    """Begin with the least squares; they are kept where the network does not do better."""
    model: Any = trainer.model
    _begin(options, model, trainer.batches)
    if trainer.validation is not None:
        trainer.evaluate()


def _evaluation(
    options: ForecasterOptions, model: Forecaster, files: Paths, batch_size: int | None
) -> EvaluationData:
    codec: ForecastCodec = model.codec
    series = [codec.selected(one) for one in _series(options, files)]
    horizon = options.horizon or codec.horizon
    codec = dataclasses.replace(codec, horizon=horizon)
    examples = []
    for one in series:
        origins = backtest_origins(one.steps, horizon, options.origins, name=one.name)
        examples.append((one, origins[0]))
    batches = codec.batches(codec.encode(examples), batch_size or options.batch_size, every=horizon)
    batches.fill(model)

    def figures(result: Evaluation) -> dict[str, Any]:
        ours = FittedForecaster([model], codec)
        methods: dict[str, Method] = {
            "model": functools.partial(ours.forecast, paths=options.paths),
            "seasonal_naive": functools.partial(
                seasonal_naive, season=codec.season, paths=options.paths
            ),
        }
        found = backtest(series, methods, horizon, options.origins, season=codec.season)
        return {
            **found["model"].figures,
            "forecasts": len(series) * options.origins,
            "seasonal_naive": found["seasonal_naive"].figures,
        }

    return EvaluationData(batches, names_of(files), UnknownShare(Counter(), 0, 0), figures)


def _inputs(options: ForecasterOptions, path: str) -> Iterator[tuple[str, TimeSeries]]:
    name = name_of(path)
    for one in _series(options, [path]):
        yield (name if options.series_column is None else f"{name}, series {one.name!r}"), one


def _answer(
    options: ForecasterOptions, model: Forecaster, inputs: Sequence[TimeSeries]
) -> Iterator[Answer]:
    codec: ForecastCodec = model.codec
    series = [codec.selected(one) for one in inputs]
    horizon = options.horizon or codec.horizon
    forecasts = FittedForecaster([model], codec).forecast(series, horizon, paths=options.paths)
    for forecast in forecasts:
        yield _shown(forecast, codec.target_names, options)


def _shown(forecast: Forecast, targets: Sequence[str], options: ForecasterOptions) -> Answer:
    """A forecast as a record, and as a table with a row for each time and target."""
    times = [shown(time) for time in forecast.times]
    median, quantiles = forecast.median, forecast.quantile(options.levels)
    record = {
        "series": forecast.name,
        "times": times,
        "forecasts": {
            target: {
                "median": median[:, n].tolist(),
                "quantiles": {
                    f"{level:g}": values[:, n].tolist()
                    for level, values in zip(options.levels, quantiles, strict=True)
                },
            }
            for n, target in enumerate(targets)
        },
    }
    several = options.series_column is not None
    below = [k for k, level in enumerate(options.levels) if level < 0.5]
    above = [k for k, level in enumerate(options.levels) if level >= 0.5]
    heads = ["time", *([options.series_column] if several else [])]
    for target in targets:
        heads += [f"{target} {options.levels[k]:g}" for k in below]
        heads += [target, *(f"{target} {options.levels[k]:g}" for k in above)]
    rows = []
    for step, time in enumerate(times):
        row = [str(time), *([forecast.name] if several else [])]
        for n in range(len(targets)):
            values = [*quantiles[below, step, n], median[step, n], *quantiles[above, step, n]]
            row += [f"{value:.6g}" for value in values]
        rows.append(row)
    return Answer(record, "\n".join(map("\t".join, rows)), "\t".join(map(str, heads)))


def _report(options: ForecasterOptions, record: Mapping[str, Any], short: bool = False) -> str:
    """MASE, or the first error that there is, and the figure that decides what weights are kept."""
    found = [name for name in _REPORTED if record.get(name) is not None]
    return ", ".join(
        _REPORTED[name].format(record[name])
        for name in found
        if name in (found[0], options.monitor)
    )


def _example_file(options: ForecasterOptions, files: str) -> str:
    return (example_of_table(files, options.format) or "YOUR_TABLE.csv").replace("TABLE", "SERIES")


FORECAST = Task(
    name="forecast",
    model=Forecaster,
    options=ForecasterOptions,
    files=".csv or .tsv files of series, with a column of times",
    unit="values",
    read=_read,
    open=_open,
    evaluation=_evaluation,
    inputs=_inputs,
    answer=_answer,
    measure_of=lambda options, model, codec: ForecastMeasure(model),
    rows="windows",
    resolve=_resolve,
    start=_start,
    report=_report,
    example_file=_example_file,
)
"""Series that are forecast, with quantiles."""
