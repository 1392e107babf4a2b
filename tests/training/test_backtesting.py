"""Backtests: the seasonal naive forecast, and scores by hand."""

import math

import numpy as np
import pytest

from anaphora import metrics, random
from anaphora.data import DataError, ForecastCodec, TimeSeries, WindowBatches
from anaphora.models.forecaster import Forecaster
from anaphora.training import evaluate
from anaphora.training.backtesting import (
    Forecast,
    ForecastMeasure,
    backtest,
    backtest_origins,
    seasonal_naive,
)


def test_seasonal_naive():
    series = TimeSeries.of([1, 2, 3, 4, 7, np.nan], start="2024-01-01", frequency="day").until(6)
    (forecast,) = seasonal_naive([series], 5, season=3, paths=1001)
    # The missing value is that of a season before.
    np.testing.assert_allclose(forecast.median[:, 0], [4, 7, 3, 4, 7], atol=1e-9)
    # Seasonal differences are 3 and 5: 4.12 in the root of the mean square, twice the variance in
    # the second season.
    deviation = forecast.quantile([0.8413447])[0, :, 0] - forecast.median[:, 0]
    np.testing.assert_allclose(deviation, np.sqrt([17, 17, 17, 34, 34]), rtol=1e-2)
    assert str(forecast.times[0].astype("datetime64[D]")) == "2024-01-07"
    with pytest.raises(DataError, match="needs a value at each of the last 3 steps"):
        seasonal_naive([TimeSeries.of([1.0, 2.0])], 2, season=3)


def test_scores_by_hand():
    values = np.array([1.0, 4.0, 2.0, 7.0, 5.0, np.nan, 10.0, 12.0])
    calls = []

    def method(series, horizon):
        (one,) = series
        calls.append((one.steps, horizon, np.nan_to_num(one.targets[:, 0], nan=-1).tolist()))
        # Paths 4, 6, 8: median 6, mean 6.
        return [
            Forecast(one.future(horizon), np.array([4.0, 6.0, 8.0])[:, None, None] + [[0.0], [3.0]])
        ]

    scores = backtest(
        [TimeSeries.of(values)], {"mine": method}, 2, origins=2, step=2, season=2,
        quantiles=[0.5], coverage=[1 / 3],
    )["mine"]  # fmt: skip
    # Origins after 4 and 6 steps; what came later is not shown.
    assert calls == [(4, 2, [1, 4, 2, 7, -1, -1, -1, -1]), (6, 2, [1, 4, 2, 7, 5, -1, -1, -1])]
    errors = np.array([5 - 6, 10 - 6, 12 - 9])
    assert scores.values == 3
    assert scores.mae == pytest.approx(np.abs(errors).mean())
    assert scores.rmse == pytest.approx(math.sqrt((errors**2).mean()))
    scale = (abs(2 - 1) + abs(7 - 4)) / 2  # within the first 4 steps
    assert scores.mase == pytest.approx(np.abs(errors).mean() / scale)
    assert scores.weighted_quantile_loss == pytest.approx(
        2 * np.abs(errors).sum() / 2 / (5 + 10 + 12)
    )
    # The central third of 4, 6, 8 is 5 1/3 to 6 2/3: of 5, 10 and 12 - 3 none is within.
    assert scores.coverage == {1 / 3: 0}


def test_mase_is_scaled_by_each_series():
    noise = np.random.default_rng(1).standard_normal(60)
    series = [TimeSeries.of(noise), TimeSeries.of(1000 * noise)]

    def zero(series, horizon):
        return [Forecast(one.future(horizon), np.zeros((1, horizon, 1))) for one in series]

    both = backtest(series, {"zero": zero}, 4, season=1)["zero"]
    first = backtest(series[:1], {"zero": zero}, 4, season=1)["zero"]
    assert both.mase == pytest.approx(first.mase)
    assert both.mae == pytest.approx(500.5 * first.mae)


def test_coverage_of_a_known_distribution():
    rng = np.random.default_rng(1)
    series = [TimeSeries.of(rng.standard_normal(2000))]

    def normal(series, horizon):
        return [
            Forecast(one.future(horizon), rng.standard_normal((2000, horizon, 1))) for one in series
        ]

    scores = backtest(series, {"normal": normal}, 100, 15, season=1)["normal"]
    assert scores.coverage[0.8] == pytest.approx(0.8, abs=0.03)
    assert scores.coverage[0.95] == pytest.approx(0.95, abs=0.02)


def test_backtests_that_are_refused():
    message = (
        "a backtest of 5 origins every 10 steps, with a horizon of 10, needs at least 52 steps; "
        "the series has 30: give fewer origins or a shorter horizon"
    )
    with pytest.raises(DataError, match=message):
        backtest_origins(30, 10, 5)
    with pytest.raises(DataError, match=r"all seasonal differences \(3 steps\) are 0"):
        backtest([TimeSeries.of(np.ones(40))], {}, 2, season=3)


# What evaluations of a training count


@pytest.mark.parametrize("distribution", ["student_t", "quantiles"])
def test_figures_of_windows_are_those_of_their_forecasts(distribution):
    """Two series of different sizes and two targets; one target of one series never changes."""
    generator = np.random.default_rng(1)
    values = [size * generator.standard_normal((n, 2)) for n, size in ((30, 1), (26, 50))]
    values[1][:, 1] = 7.0
    values[0][[3, 27], 0] = np.nan
    series = [TimeSeries.of(one) for one in values]
    codec = ForecastCodec.fit(series, horizon=3, season=2, context=4, lags=[1, 5])
    split = 22
    batches = codec.batches(codec.encode([(one, split) for one in series]), 3)
    random.seed(2)
    model = Forecaster(hidden_size=4, distribution=distribution, **codec.sizes())
    batches.fill(model)
    found = evaluate(model, batches, measure=ForecastMeasure(model))

    # Horizons begin after 22 to 27 and after 22 to 23 steps; what is read is the 9 steps before.
    ends = [(k, end) for k, last in ((0, 30), (1, 26)) for end in range(split + 3, last + 1)]
    filled = [model.fill(one[:, None], np.zeros((len(one), 1, 0)))[:, 0] for one in values]
    past = np.stack([filled[k][end - 12 : end - 3] for k, end in ends], axis=1)
    paths = model.predict(past, 3, paths=16, seed=1)
    actual = np.stack([values[k][end - 3 : end] for k, end in ends], axis=1)
    present = ~np.isnan(actual)
    median, mean = np.median(paths, axis=0), paths.mean(axis=0)
    pair = actual[present], median[present]
    assert found.more["mean_absolute_error"] == pytest.approx(metrics.mean_absolute_error(*pair))
    assert found.more["root_mean_squared_error"] == pytest.approx(
        metrics.root_mean_squared_error(actual[present], mean[present])
    )
    naive = [np.abs(one[2:split] - one[: split - 2]) for one in values]
    scale = np.array([np.nanmean(naive[k], axis=0) for k, _ in ends])
    assert scale[-1, 1] == 0  # does not count
    scaled = np.abs(actual - median)[present & (scale > 0)]
    scales = np.broadcast_to(scale, present.shape)[present & (scale > 0)]
    assert found.more["mean_absolute_scaled_error"] == pytest.approx((scaled / scales).mean())
    losses = []
    for level in np.arange(1, 10) / 10:
        error = (actual - np.quantile(paths, level, axis=0))[present]
        losses.append(2 * np.maximum(level * error, (level - 1) * error).sum())
    assert found.more["quantile_loss"] == pytest.approx(
        np.mean(losses) / np.abs(actual[present]).sum()
    )
    assert found.loss == evaluate(model, batches).loss


def test_of_many_windows_some_evenly_spread_are_forecast():
    values = [np.arange(float(n))[:, None] for n in (130, 60)]
    batches = WindowBatches(
        values, [np.zeros((len(one), 0)) for one in values], past=1, context=2, horizon=1,
        batch_size=7, after=[20, 30], naive_errors=[np.ones(1), np.full(1, 2.0)],
    )  # fmt: skip
    scored = np.concatenate([batch.scored for batch in batches])
    errors = np.concatenate([batch.naive_error[:, 0] for batch in batches])
    assert len(scored) == 110 + 30
    assert np.flatnonzero(scored).tolist() == list(range(0, 140, 3))  # at most 64
    assert errors.tolist() == [1.0] * 110 + [2.0] * 30


def test_series_held_out_in_full_are_scaled_by_themselves():
    values = np.random.default_rng(1).standard_normal(20)
    codec = ForecastCodec.fit([TimeSeries.of(values)], horizon=2, season=3, lags=[1])
    (batch,) = codec.batches(codec.encode([(TimeSeries.of(values), 1)]), 99)
    expected = np.abs(values[3:] - values[:-3]).mean()
    np.testing.assert_allclose(batch.naive_error[:, 0], expected)


@pytest.mark.parametrize("distribution", ["negative_binomial", "student_t", "quantiles"])
def test_a_model_that_diverged_has_figures_that_are_nan(distribution):
    series = TimeSeries.of(np.resize([1.0, 4.0, 2.0], 30))
    codec = ForecastCodec.fit([series], horizon=2, season=2, lags=[1], scaling="mean_absolute")
    batches = codec.batches(codec.encode([(series, 20)]), 8)
    model = Forecaster(
        hidden_size=3, distribution=distribution, scaling="mean_absolute", **codec.sizes()
    )
    model.output.weight.assign(np.full_like(model.output.weight.data, np.nan))
    figures = evaluate(model, batches, measure=ForecastMeasure(model)).more
    assert len(figures) == 4
    assert all(math.isnan(value) for value in figures.values())
