"""Forecasting: windows, what is learnt, and what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest

from anaphora import random
from anaphora.data import DataError, ForecastCodec, TimeSeries, WindowBatches, read_time_series
from anaphora.models.forecaster import Forecaster
from anaphora.training.backtesting import backtest, before_backtest, seasonal_naive
from anaphora.training.forecaster import FittedForecaster, ForecasterOptions, fit_forecaster

SMALL = {"hidden_size": 8, "learning_rate": 0.01}


def autoregressive(steps, factor=0.8, seed=1):
    """A Gaussian process: each value is the one before times a factor, and a normal number."""
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal() / math.sqrt(1 - factor**2)]
    for noise in rng.standard_normal(steps - 1):
        values.append(factor * values[-1] + noise)
    return np.array(values)


def seasonal(steps, season=7, seed=1, noise=0.3):
    rng = np.random.default_rng(seed)
    pattern = 4 * rng.standard_normal(season)
    return 0.1 * np.arange(steps) + np.resize(pattern, steps) + noise * rng.standard_normal(steps)


# Windows


def test_windows_by_hand():
    first = TimeSeries.of(
        [[np.nan, np.nan], [1, 10], [2, np.nan], [3, 30], [4, 40], [5, 50], [6, 60]],
        known=[[9], [-1], [1], [-1], [1], [-1], [1], [7]],
    )
    short = TimeSeries.of([[7, 70], [8, 80], [9, 90], [10, 100]], known=[[0], [1], [0], [1]])
    codec = ForecastCodec(
        ("a", "b"), ("k",), "1", season=1, horizon=1, context=2, lags=(1, 2), calendar=True,
        known_mean=(1.0,), known_deviation=(2.0,), typical_scale=(1.0, 1.0),
    )  # fmt: skip
    batches = codec.batches(codec.encode([(first, 0), (short, 0)]), 2)
    # Of the first, whose rows begin with row 1: windows of 5 steps end after 5 and 6 steps. The
    # second has 4 steps, so that the first step of its window counts as missing.
    assert len(batches) == 2
    one, two = batches
    assert one.inputs[:, 0].tolist() == [[1, 10], [2, 0], [3, 30], [4, 40], [5, 50]]
    assert one.observed[:, 0].tolist() == [[True, True], [True, False], *[[True, True]] * 3]
    assert one.inputs[:, 1, 0].tolist() == [2, 3, 4, 5, 6]
    assert one.targets[:, 1, 1].tolist() == [40, 50, 60]
    assert one.features[:, :, 0].T.tolist() == [[-1, 0, -1], [0, -1, 0]]
    assert two.inputs[:, 0, 1].tolist() == [0, 70, 80, 90, 100]
    assert two.observed[:, 0, 0].tolist() == [False, True, True, True, True]
    assert two.features[:, 0, 0].tolist() == [0, -0.5, 0]
    assert batches.tokens == 3 * 3 * 2
    assert sorted(batch.inputs[-1, b, 0] for batch in batches.shuffled(np.random.default_rng(1))
                  for b in range(batch.inputs.shape[1])) == [5, 6, 10]  # fmt: skip

    arrays = codec.encode([(first, 6), (short, 4)])
    later = codec.batches(arrays, 8)
    (batch,) = later
    assert batch.inputs[:, 0, 0].tolist() == [2, 3, 4, 5, 6]
    assert batch.tokens == later.tokens == codec.counts(arrays) == 2  # the horizon alone
    arrays = codec.encode([(first, 0), (short, 0)])
    assert codec.counts(arrays) == 2 * 6 - 1 + 2 * 4


def test_windows_count_their_targets_as_their_batches_do():
    rng = np.random.default_rng(1)
    values = [np.where(rng.random((n, 2)) < 0.2, np.nan, 1.0) for n in (9, 3, 30, 12)]
    features = [np.zeros((len(one), 1)) for one in values]
    for after in (None, [0, 0, 17, 8]):
        batches = WindowBatches(
            values, features, past=3, context=4, horizon=2, batch_size=3, after=after
        )
        assert batches.tokens == sum(batch.tokens for batch in batches) > 20


def test_missing_values_are_filled_where_they_are_read():
    rng = np.random.default_rng(2)
    values = rng.standard_normal(60).cumsum()
    values[[20, 21, 40]] = np.nan
    codec = ForecastCodec.fit([TimeSeries.of(values)], horizon=3, season=4)
    batches = codec.batches(codec.encode([(TimeSeries.of(values), 0)]), 100)
    model = Forecaster(hidden_size=3, **codec.sizes())
    model.start_from_least_squares(batches)
    batches.fill(model)
    filled = model.fill(values[:, None, None], np.zeros((60, 1, 0)))[:, 0]
    (batch,) = batches
    (raw,) = batches.unfilled()
    steps = codec.past + codec.context + 3
    for window in (0, 7, 20):
        np.testing.assert_array_equal(batch.inputs[:, window], filled[window : window + steps])
        np.testing.assert_array_equal(
            raw.inputs[:, window, 0], np.nan_to_num(values[window : window + steps])
        )
    np.testing.assert_array_equal(batch.observed, raw.observed)
    assert not batch.observed.all()


def test_series_that_are_too_short():
    codec = ForecastCodec.fit([TimeSeries.of(np.ones(19))], horizon=4, context=3, lags=[4])
    series = [TimeSeries.of(np.ones(n), name=f"of {n}") for n in (8, 5, 30)]
    kept, short = codec.long_enough(series)
    assert [one.name for one in kept] == ["of 30"]
    assert [one.name for one in short] == ["of 8", "of 5"]
    options = ForecasterOptions.make(horizon=4, context=3, lags=[4], max_steps=1, **SMALL)
    assert fit_forecaster(series, options).skipped == ["of 8", "of 5"]
    with pytest.raises(DataError, match="longest, 'of 8', has 8, but lags of up to 4 steps and a "
                       "horizon of 4 need at least 9; give shorter lags"):  # fmt: skip
        fit_forecaster(series[:2], options)
    with pytest.raises(DataError, match="there are no series to train on"):
        fit_forecaster([])


# What is learnt


@pytest.mark.parametrize("distribution", ["student_t", "gaussian", "quantiles"])
def test_trend_and_season_are_forecast_better_than_by_the_season_before(distribution):
    series = [TimeSeries.of(seasonal(200))]
    options = ForecasterOptions.make(
        horizon=7, season=7, max_steps=100, distribution=distribution, **SMALL
    )
    fitted = fit_forecaster(before_backtest(series, 7, 8, 3), options)
    methods = {"ours": fitted.forecast, "naive": lambda s, h: seasonal_naive(s, h, 7)}
    scores = backtest(series, methods, 7, 8, 3, season=7)
    assert scores["ours"].mase < 0.65 * scores["naive"].mase
    assert scores["ours"].weighted_quantile_loss < 0.65 * scores["naive"].weighted_quantile_loss
    # The best that is possible has an error of 0.3 sqrt(2 / pi).
    assert scores["ours"].mae < 1.9 * 0.3 * math.sqrt(2 / math.pi)


@pytest.mark.parametrize("distribution", ["student_t", "gaussian", "quantiles"])
def test_paths_are_calibrated(distribution):
    """The quantiles of the paths are those of the process: from z, mean f^k z, known variance."""
    factor, h = 0.8, 4
    values = autoregressive(2000, factor)
    options = ForecasterOptions.make(
        horizon=h, lags=(1, 2), context=40, max_steps=200, scaling="none",
        distribution=distribution, quantiles=(0.05, 0.25, 0.5, 0.75, 0.95), **SMALL,
    )  # fmt: skip
    fitted = fit_forecaster([TimeSeries.of(values)], options)
    levels = [0.1, 0.25, 0.5, 0.75, 0.9]
    scores = np.array([-1.2815515655, -0.6744897502, 0, 0.6744897502, 1.2815515655])
    tests = [TimeSeries.of(autoregressive(120, factor, seed)) for seed in range(2, 42)]
    forecasts = fitted.forecast(tests, h, paths=800)
    errors = []
    for one, forecast in zip(tests, forecasts, strict=True):
        found = forecast.quantile(levels)[:, :, 0]
        k = np.arange(1, h + 1)
        mean = factor**k * one.targets[-1, 0]
        deviation = np.sqrt((1 - factor ** (2 * k)) / (1 - factor**2))
        errors.append((found - mean - scores[:, None] * deviation) / deviation)
    # Units are deviations of the process; the mean over 40 series, for each level and step.
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15
    assert np.abs(errors).mean() < 0.2


def test_known_columns_are_used():
    rng = np.random.default_rng(3)
    known = (rng.random(300) < 0.3).astype(float)
    values = 10 * known + rng.standard_normal(300)
    series = TimeSeries.of(values[:280], known=known)
    options = ForecasterOptions.make(horizon=20, lags=(1,), context=10, max_steps=200, **SMALL)
    (forecast,) = fit_forecaster([series], options).forecast([series])
    assert np.abs(forecast.median[:, 0] - 10 * known[280:]).max() < 3
    assert forecast.times.tolist() == list(range(280, 300))


def test_many_series_of_different_sizes_in_one_file(tmp_path):
    lines = ["shop,day,sold"]
    days = np.datetime64("2024-01-01") + np.arange(90)
    for shop, (size, start) in {"a": (1, 0), "b": (1000, 20)}.items():
        for k in range(start, 90):
            lines.append(f"{shop},{days[k]},{size * (5 + (k % 7 == 6) * 3 + 0.01 * (k * k % 11))}")
    path = tmp_path / "shops.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    series = read_time_series(path, time_column="day", series_column="shop")
    fitted = fit_forecaster(series, ForecasterOptions.make(max_steps=60, **SMALL))
    assert (fitted.codec.horizon, fitted.codec.season, fitted.codec.frequency) == (7, 7, "day")
    small, large = fitted.forecast(series)
    assert (small.name, large.name) == ("a", "b")
    assert str(large.times[0].astype("datetime64[D]")) == "2024-03-31"  # a Sunday, as 6 is
    expected = [8, 5, 5, 5, 5, 5, 5]
    np.testing.assert_allclose(small.median[:, 0], expected, atol=0.4)
    np.testing.assert_allclose(large.median[:, 0] / 1000, expected, atol=0.4)


def test_several_targets_and_missing_values():
    values = np.stack([seasonal(150, seed=1), 100 + 20 * seasonal(150, seed=2)], axis=1)
    rng = np.random.default_rng(1)
    holes = np.where(rng.random(values.shape) < 0.1, np.nan, values)
    options = ForecasterOptions.make(horizon=7, season=7, max_steps=100, **SMALL)
    past = TimeSeries.of(holes[:143])
    (forecast,) = fit_forecaster([past], options).forecast([past])
    error = np.abs(forecast.median - values[143:])
    assert error[:, 0].mean() < 1.0
    assert error[:, 1].mean() < 20.0


def test_counts():
    rng = np.random.default_rng(2)
    values = rng.poisson(np.resize([1.0, 1.0, 20.0], 240)).astype(float)
    options = ForecasterOptions.make(
        horizon=6, season=3, distribution="negative_binomial", max_steps=150, **SMALL
    )
    series = TimeSeries.of(values)
    (forecast,) = fit_forecaster([series], options).forecast([series])
    np.testing.assert_allclose(forecast.paths, np.rint(forecast.paths), atol=1e-9)
    np.testing.assert_allclose(forecast.mean[:, 0], [1, 1, 20, 1, 1, 20], rtol=0.5)
    with pytest.raises(DataError, match="the distribution 'negative_binomial' is for counts"):
        fit_forecaster([TimeSeries.of([*values[:-1], 0.5])], options)


def test_the_same_seed_gives_the_same_and_leaves_the_generator_alone():
    series = [TimeSeries.of(seasonal(60))]
    options = ForecasterOptions.make(horizon=3, season=7, max_steps=15, **SMALL)
    before = random.get_state()
    one, two = (
        fit_forecaster(series, options, members=2).forecast(series)[0].paths for _ in range(2)
    )
    assert random.get_state() == before
    np.testing.assert_array_equal(one, two)
    other = dataclasses.replace(options, seed=2)
    assert not np.array_equal(
        fit_forecaster(series, other, members=2).forecast(series)[0].paths, one
    )


def test_what_a_forecast_refuses():
    rng = np.random.default_rng(3)
    series = TimeSeries.of(rng.standard_normal(40), known=rng.standard_normal(42))
    options = ForecasterOptions.make(horizon=3, max_steps=2, **SMALL)
    fitted = fit_forecaster([series], options)
    assert fitted.forecast([series], 2)[0].paths.shape == (400, 2, 1)
    with pytest.raises(DataError, match="'known 0' must be known for all 3 steps to forecast, but "
                       "only 2 rows follow the last target; add 1 rows"):  # fmt: skip
        fitted.forecast([series])
    with pytest.raises(DataError, match="1 targets, 0 columns known in advance, step 1; the "
                       "forecaster was trained with 1, 1 and step 1"):  # fmt: skip
        fitted.forecast([TimeSeries.of(np.ones(40))])
    with pytest.raises(DataError, match="has the step 2, the first 1"):
        fit_forecaster([TimeSeries.of(np.ones(40)), TimeSeries.of(np.ones(40), frequency="2")])
    nothing = TimeSeries.of([*np.ones(9), *[np.nan] * 60]).until(69)
    fitted = fit_forecaster([TimeSeries.of(rng.standard_normal(40))], options)
    with pytest.raises(DataError, match="a target has no value in the last"):
        fitted.forecast([nothing])


def test_options_that_are_refused():
    with pytest.raises(ValueError, match="horizon must be an integer of at least 1, not 0"):
        ForecasterOptions.make(horizon=0)
    with pytest.raises(ValueError, match="distribution 'normal' is not one of quantiles, gaussian"):
        ForecasterOptions.make(distribution="normal")
    with pytest.raises(ValueError, match="scaling 'log' is not one of standard, mean_absolute"):
        ForecasterOptions.make(scaling="log")
    with pytest.raises(ValueError, match=r"lags \[1, 1\]: expected distinct numbers"):
        ForecasterOptions.make(lags=[1, 1])
    with pytest.raises(ValueError, match=r"levels \[0.5, 1.0\]: expected numbers between 0 and 1"):
        ForecasterOptions.make(levels=[0.5, 1.0])
    with pytest.raises(ValueError, match="the frequency 'fortnight' is unknown"):
        ForecasterOptions.make(frequency="fortnight")
    options = ForecasterOptions.make(season=3, lags=(1, 2), scaling="none")
    assert ForecasterOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_a_model_directory_forecasts_as_before(tmp_path):
    rng = np.random.default_rng(1)
    known = rng.standard_normal(64)
    series = TimeSeries.of(seasonal(60), known=known, start="2024-01-01", frequency="day")
    fitted = fit_forecaster([series], ForecasterOptions.make(horizon=4, max_steps=10, **SMALL))
    fitted.models[0].save(tmp_path / "model")
    model = Forecaster.load(tmp_path / "model")
    assert model.codec == fitted.codec
    again = FittedForecaster([model], model.codec)
    np.testing.assert_array_equal(
        again.forecast([series])[0].paths, fitted.forecast([series])[0].paths
    )


def test_the_codec_goes_through_json():
    series = TimeSeries.of(
        np.arange(9.0), known=np.arange(9.0), start="2024-01-31", frequency="month"
    )
    codec = ForecastCodec.fit([series], horizon=2, lags=[1])
    again = ForecastCodec.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert again == codec
    features = again.features(series.times, series.known)
    assert features.shape == (9, codec.feature_size) == (9, 1 + 4)
    np.testing.assert_allclose(features[:, 0], (np.arange(9) - 4) / np.std(np.arange(9)), rtol=1e-6)
