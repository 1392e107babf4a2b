"""Backtests: the seasonal naive forecast, and scores by hand."""

import math

import numpy as np
import pytest

from anaphora.data import DataError, TimeSeries
from anaphora.training.backtesting import Forecast, backtest, backtest_origins, seasonal_naive


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
    with pytest.raises(DataError, match="needs a value for each of the last 3 steps"):
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
    with pytest.raises(DataError, match="a backtest of 5 origins every 10 steps, with a horizon of "
                       "10, needs at least 52 steps; the series has 30"):  # fmt: skip
        backtest_origins(30, 10, 5)
    with pytest.raises(DataError, match="have no seasonal differences"):
        backtest([TimeSeries.of(np.ones(40))], {}, 2, season=3)
