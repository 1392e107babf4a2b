"""The task "forecast": series from files."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anaphora import random
from anaphora.artifact import write_weights
from anaphora.data import DataError, ForecastCodec, TimeSeries, UnknownShare, read_time_series
from anaphora.data.time_series import shown
from anaphora.distributed import Processes
from anaphora.models.forecaster import Forecaster
from anaphora.training.backtesting import (
    Forecast,
    ForecastMeasure,
    Method,
    backtest,
    backtest_origins,
    seasonal_naive,
)
from anaphora.training.evaluation import Evaluation, check_scores
from anaphora.training.examples import example_of_table, name_of, open_examples
from anaphora.training.forecaster import (
    FittedForecaster,
    ForecasterOptions,
    check_counts,
    new_model,
    split_ends,
    start_from_least_squares,
)
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

_REPORTED = {
    "mean_absolute_scaled_error": "MASE {:.4f}",
    "mean_absolute_error": "mean absolute error {:.4g}",
    "root_mean_squared_error": "root mean squared error {:.4g}",
    "quantile_loss": "quantile loss {:.4f}",
}


def _series(options: ForecasterOptions, paths: Paths) -> list[TimeSeries]:
    if not paths:
        raise DataError("no files to forecast: give .csv or .tsv files of series")
    if list(paths).count("-") > 1:
        raise DataError("standard input (-) was given more than once, but can be read only once")
    return [
        one
        for path in paths
        for one in read_time_series(
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
    ]


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
    if validation_texts:
        options = dataclasses.replace(options, validation_share=0.0)
    fitted, (training, validation), skipped = split_ends(options, series)
    codec: ForecastCodec = adapt(lambda: fitted)
    if skipped:
        notify(
            f"{len(skipped):,} of {len(series):,} series have fewer than {codec.needed_steps} "
            f"steps and are not trained on; the first is {skipped[0].name!r}"
        )
    if validation_texts:
        notify(f"reading {names_of(validation_texts)}")
        held_out = [codec.selected(one) for one in _series(options, validation_texts)]
        check_counts(options, held_out)
        validation = [(one, 1) for one in codec.long_enough(held_out)[0]]
    elif options.validation_share and not validation:
        notify(
            "no series is long enough to hold out its end for validation, so the last weights are "
            "kept"
        )
    for name, examples in (("train", training), ("validation", validation)):
        if examples:
            arrays = codec.encode(examples)
            write_weights(folder / f"{name}.safetensors", arrays, within=folder)
    names = {"texts": names_of(texts), "validation_texts": names_of(validation_texts) or None}
    return codec, names


def _resolve(options: ForecasterOptions, codec: ForecastCodec) -> ForecasterOptions:
    """The options with the columns, frequency and sizes that the codec has inferred."""
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
    """Windows whose missing values are filled by the initial weights, also when resumed."""
    data = open_examples(options, codec, folder)
    before = random.get_state()
    new_model(options, codec, data.batches, data.validation)
    random.set_state(before)
    return data


def _begin(options: ForecasterOptions, trainer: Trainer, initial: bool) -> None:
    """Initialize new weights by least squares, and evaluate them as the first candidate."""
    if not initial:
        return
    model: Any = trainer.model
    start_from_least_squares(options, model, trainer.batches)
    if trainer.validation is not None:
        trainer.evaluate()


def _evaluation(
    options: ForecasterOptions, model: Forecaster, files: Paths, batch_size: int | None
) -> EvaluationData:
    trained: ForecastCodec = model.codec
    series = [trained.selected(one) for one in _series(options, files)]
    horizon = options.horizon or trained.horizon
    codec = dataclasses.replace(trained, horizon=horizon)
    examples = [
        (one, backtest_origins(one.steps, horizon, options.origins, name=one.name)[0])
        for one in series
    ]
    batches = codec.batches(codec.encode(examples), batch_size or options.batch_size, every=horizon)
    batches.fill(model)

    def figures(result: Evaluation, processes: Processes) -> dict[str, Any]:
        forecast, paths = FittedForecaster([model], codec).forecast, options.paths
        methods: dict[str, Method] = {
            "model": functools.partial(forecast, paths=paths),
            "seasonal_naive": functools.partial(seasonal_naive, season=codec.season, paths=paths),
        }
        found = backtest(
            series, methods, horizon, options.origins, season=codec.season, processes=processes
        )
        return {
            **found["model"].figures,
            "forecasts": len(series) * options.origins,
            "seasonal_naive": found["seasonal_naive"].figures,
        }

    return EvaluationData(batches, names_of(files), UnknownShare(Counter(), 0, 0), figures)


def _inputs(options: ForecasterOptions, path: str) -> Iterator[tuple[str, TimeSeries]]:
    for one in _series(options, [path]):
        in_file = "" if options.series_column is None else f", series {one.name!r}"
        yield f"{name_of(path)}{in_file}", one


def _answer(
    options: ForecasterOptions, model: Forecaster, inputs: Sequence[TimeSeries]
) -> Iterator[Answer]:
    codec: ForecastCodec = model.codec
    series = [codec.selected(one) for one in inputs]
    horizon = options.horizon or codec.horizon
    fitted = FittedForecaster([model], codec)
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        forecasts = fitted.forecast(series, horizon, paths=options.paths)
    for forecast in forecasts:
        check_scores("forecast", forecast.paths)
        yield _to_answer(forecast, codec.target_names, options)


def _to_answer(forecast: Forecast, targets: Sequence[str], options: ForecasterOptions) -> Answer:
    """A forecast as a record, and as a table with one row per time."""
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
    by_level = [
        (level, f" {level:g}", values)
        for level, values in zip(options.levels, quantiles, strict=True)
    ]
    columns = [(suffix, values) for level, suffix, values in by_level if level < 0.5]
    columns.append(("", median))
    columns += [(suffix, values) for level, suffix, values in by_level if level >= 0.5]
    one_series = options.series_column is None
    heading = ["time", *([] if one_series else [str(options.series_column)])]
    heading += [f"{target}{suffix}" for target in targets for suffix, _ in columns]
    rows = []
    for step, time in enumerate(times):
        row = [time, *([] if one_series else [forecast.name])]
        row += [f"{values[step, n]:.6g}" for n in range(len(targets)) for _, values in columns]
        rows.append("\t".join(row))
    return Answer(record, "\n".join(rows), "\t".join(heading))


def _report(options: ForecasterOptions, record: Mapping[str, Any], short: bool = False) -> str:
    """MASE, or the first error available, and the figure that is monitored."""
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
    begin=_begin,
    report=_report,
    example_file=_example_file,
)
"""Forecasts series, with quantiles."""
