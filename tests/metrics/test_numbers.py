"""Errors of numbers against scikit-learn's and the definitions written as loops."""

import numpy as np
import pytest

from anaphora.metrics import (
    mean_absolute_error,
    mean_absolute_scaled_error,
    r2,
    root_mean_squared_error,
)


@pytest.mark.parametrize("shape", [(7,), (7, 3)])
def test_errors_are_those_of_scikit_learn(shape, rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn (extra sklearn)")
    y, answer = rng.standard_normal((2, *shape)) * 5 + 3
    assert mean_absolute_error(y, answer) == pytest.approx(metrics.mean_absolute_error(y, answer))
    squared = metrics.mean_squared_error(y, answer)
    assert root_mean_squared_error(y, answer) == pytest.approx(np.sqrt(squared))
    assert r2(y, answer) == pytest.approx(metrics.r2_score(y, answer))
    assert r2(np.full(shape, 2.0), answer) == metrics.r2_score(np.full(shape, 2.0), answer) == 0
    assert r2(np.full(shape, 2.0), np.full(shape, 2.0)) == 1


@pytest.mark.parametrize("m", [1, 3])
def test_mase_by_its_definition(m, rng):
    training, y, answer = rng.random((4, 11)) * 9, rng.random((4, 5)), rng.random((4, 5))
    found = mean_absolute_scaled_error(y, answer, training, seasonality=m)
    terms = []
    for n in range(4):
        naive = [abs(training[n, t] - training[n, t - m]) for t in range(m, 11)]
        scale = sum(naive) / (11 - m)
        terms += [abs(y[n, t] - answer[n, t]) / scale for t in range(5)]
    assert found == pytest.approx(sum(terms) / 20)
    each = [mean_absolute_scaled_error(y[n], answer[n], training[n], m) for n in range(4)]
    assert found == pytest.approx(np.mean(each))


def test_mase_of_the_seasonal_naive_forecast_within_the_training_series_is_one(rng):
    series = rng.random(20)
    assert mean_absolute_scaled_error(series[4:], series[:-4], series, 4) == pytest.approx(1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"actual has the shape \(2,\) and predicted \(2, 1\)"):
        mean_absolute_error([1, 2], [[1], [2]])
    with pytest.raises(ValueError, match="r2: there are no numbers"):
        r2([], [])
    with pytest.raises(ValueError, match="seasonality is 4, of 4 training steps"):
        mean_absolute_scaled_error([1], [1], [1, 2, 3, 4], seasonality=4)
    with pytest.raises(ValueError, match="repeats exactly"):
        mean_absolute_scaled_error([1], [1], [1, 2, 1, 2], seasonality=2)
    with pytest.raises(ValueError, match=r"training has the shape \(3, 4\) and actual \(1,\)"):
        mean_absolute_scaled_error([1], [1], np.ones((3, 4)))
