"""Forecasts, seasonal naive and exponential smoothing: ``python -m benchmarks.forecasting``.

Two series of statsmodels (``pip install "statsmodels>=0.14"``): the yearly sunspots (season 11,
horizon 11, an origin each year) and the monthly mean CO2 of Mauna Loa (season 12, horizon 12, an
origin every third month). The origins roll over the last fifth of each series. The network
is trained once, on the steps before the first origin, with the defaults of `ForecasterOptions`;
exponential smoothing is fitted again at every origin, on all steps before it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anaphora.data.time_series import TimeSeries
from anaphora.training.backtesting import (
    Forecast,
    ForecastScores,
    Method,
    backtest,
    before_backtest,
    seasonal_naive,
)
from anaphora.training.forecaster import ForecasterOptions, fit_forecaster

SETS = {"sunspots": (11, 11, 1), "co2": (12, 12, 3)}  # season, horizon, steps between origins


def series_of(name: str) -> TimeSeries:
    """One of the series."""
    from statsmodels import datasets

    data = getattr(datasets, name).load_pandas().data
    if name == "sunspots":
        return TimeSeries.of(data["SUNACTIVITY"], start="1700-01-01", frequency="year", name=name)
    monthly = data["co2"].resample("MS").mean()
    return TimeSeries.of(monthly, start="1958-03-01", frequency="month", name=name)


def smoothing(season: int, seasonal: bool, trend: bool, paths: int = 400) -> Method:
    """Additive exponential smoothing, estimated by statsmodels; gaps are interpolated linearly."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    def method(series: Sequence[TimeSeries], horizon: int) -> list[Forecast]:
        forecasts = []
        for one in series:
            values = one.targets[: one.steps, 0]
            steps, present = np.arange(len(values)), ~np.isnan(values)
            options: dict[str, Any] = {"trend": "add" if trend else None}
            if seasonal:
                options |= {"seasonal": "add", "seasonal_periods": season}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an optimizer that did not converge
                fitted = ExponentialSmoothing(
                    np.interp(steps, steps[present], values[present]),
                    initialization_method="estimated",
                    **options,
                ).fit()
                sampled = fitted.simulate(horizon, repetitions=paths, random_state=1)
                # The median of the paths is the forecast itself, without the sampling noise.
                sampled += (fitted.forecast(horizon) - np.median(sampled, axis=1))[:, None]
            forecasts.append(Forecast(one.future(horizon), sampled.T[:, :, None], one.name))
        return forecasts

    return method


def measure(name: str, seeds: Sequence[int], members: int = 1) -> None:
    """Print the table of one series."""
    season, horizon, step = SETS[name]
    one = series_of(name)
    origins = (one.steps - horizon - int(0.8 * one.steps)) // step + 1
    (train,) = before_backtest([one], horizon, origins, step)
    print(
        f"\n{name}: {one.steps} steps of a {one.frequency}, {train.steps} before the first of "
        f"{origins} origins, one every {step}; season {season}, horizon {horizon}\n"
    )
    print("| | MASE | MAE | RMSE | quantile loss | in 80 % | in 95 % | seconds per fit |")
    print("|---|---|---|---|---|---|---|---|")
    baselines = {
        "seasonal naive": lambda series, h: seasonal_naive(series, h, season),
        "exponential smoothing, level": smoothing(season, seasonal=False, trend=False),
        "exponential smoothing, level and season": smoothing(season, seasonal=True, trend=False),
        "Holt-Winters": smoothing(season, seasonal=True, trend=True),
    }
    scores = backtest([one], baselines, horizon, origins, step, season=season)
    for label, result in scores.items():
        print(_row(label, [result], ""), flush=True)
    found: list[ForecastScores] = []
    began = time.perf_counter()
    ours: dict[str, Method] = {}
    for seed in seeds:
        chosen = ForecasterOptions.make(season=season, horizon=horizon, seed=seed)
        ours[f"seed {seed}"] = fit_forecaster([train], chosen, members=members).forecast
    seconds = f"{(time.perf_counter() - began) / len(seeds):.1f}"
    found = list(backtest([one], ours, horizon, origins, step, season=season).values())
    print(_row(f"anaphora, mean of {len(seeds)} seeds", found, seconds))
    figures = ", ".join(f"{result.mase:.3f}" for result in found)
    print(f"\nMASE by seed: {figures}", flush=True)


def _row(label: str, results: Sequence[ForecastScores], seconds: str) -> str:
    def mean(of: Callable[[ForecastScores], float]) -> float:
        return float(np.mean([of(result) for result in results]))

    return (
        f"| {label} | {mean(lambda r: r.mase):.3f} | {mean(lambda r: r.mae):.3g} "
        f"| {mean(lambda r: r.rmse):.3g} | {mean(lambda r: r.weighted_quantile_loss):.4f} "
        f"| {mean(lambda r: r.coverage[0.8]):.2f} | {mean(lambda r: r.coverage[0.95]):.2f} "
        f"| {seconds} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecasting", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SETS), help="sunspots, co2")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 1")
    parser.add_argument("--members", type=int, default=1, help="networks per forecaster")
    options = parser.parse_args(arguments)
    for name in options.names:
        measure(name, range(1, options.seeds + 1), members=options.members)


if __name__ == "__main__":
    main()
