"""The forecasting estimator: scikit-learn's and sktime's conventions, and forms of series."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra sklearn)")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from anaphora import matmul_precision
from anaphora.estimators import RecurrentForecaster

QUICK = {"season": 6, "max_steps": 60, "learning_rate": 0.01, "random_state": 1, "paths": 200}


def series(steps=90, seed=1):
    rng = np.random.default_rng(seed)
    pattern = np.array([0.0, 2.0, 5.0, 3.0, -2.0, -4.0])
    return 10 + np.resize(pattern, steps) + 0.2 * rng.standard_normal(steps)


def test_scikit_learns_conventions():
    forecaster = RecurrentForecaster(**QUICK)
    again = clone(forecaster.set_params(hidden_size=5))
    assert again.get_params()["hidden_size"] == 5
    with pytest.raises(NotFittedError, match="RecurrentForecaster instance is not fitted yet"):
        again.predict()
    assert again.fit(series()) is again
    np.testing.assert_array_equal(again.predict(), clone(again).fit(series()).predict())


def test_a_series_is_forecast():
    y = series(96)
    forecaster = RecurrentForecaster(**QUICK).fit(y[:90])
    np.testing.assert_array_equal(forecaster.fh_, np.arange(1, 7))
    forecast = forecaster.predict()
    assert forecast.shape == (6,)
    assert np.abs(forecast - y[90:]).mean() < 0.6
    np.testing.assert_array_equal(forecaster.predict(fh=[2, 5]), forecast[[1, 4]][:2])
    np.testing.assert_array_equal(forecaster.predict(fh=3)[0], forecaster.predict(fh=[3])[0])

    quantiles = forecaster.predict_quantiles(alpha=[0.1, 0.5, 0.9])
    assert quantiles.shape == (6, 3)
    assert (np.diff(quantiles, axis=1) > 0).all()
    np.testing.assert_allclose(quantiles[:, 1], forecast, rtol=1e-12)
    interval = forecaster.predict_interval(coverage=0.8)
    np.testing.assert_allclose(interval, forecaster.predict_quantiles(alpha=[0.1, 0.9]), rtol=1e-12)


def test_update_goes_on_from_what_came_since():
    y = series(96)
    forecaster = RecurrentForecaster(**QUICK).fit(y[:88])
    weights = forecaster.forecaster_.models[0].state_dict()
    updated = forecaster.update(y[88:90]).predict(fh=[1, 2, 3])
    assert np.abs(updated - y[90:93]).mean() < 0.6
    for name, array in forecaster.forecaster_.models[0].state_dict().items():
        np.testing.assert_array_equal(array, weights[name])
    forecaster.update(y[90:91], update_params=True)
    assert len(forecaster._form.series[0].times) == 91
    assert np.abs(forecaster.predict(fh=[1, 2]) - y[91:93]).mean() < 0.6
    with pytest.raises(
        ValueError, match=r"columns of X\) \(1, 1, 0\), but it was fitted on \(2, 1, 0\)"
    ):
        RecurrentForecaster(**QUICK).fit([y, y]).update([y])


def test_several_series_and_targets():
    many = [series(90), 100 * series(60, seed=2)]
    first, second = RecurrentForecaster(**QUICK).fit(many).predict()
    assert np.abs(first - series(96)[90:]).mean() < 0.8
    assert np.abs(second / 100 - series(66)[60:]).mean() < 0.8
    both = np.stack([series(90), -series(90, seed=3)], axis=1)
    forecaster = RecurrentForecaster(**QUICK).fit(both, fh=[1, 2])
    assert forecaster.predict().shape == (2, 2)
    assert forecaster.predict_quantiles(alpha=[0.2, 0.5, 0.8]).shape == (2, 6)
    middle = forecaster.predict_quantiles(alpha=[0.2, 0.5, 0.8])[:, [1, 4]]
    np.testing.assert_allclose(middle, forecaster.predict(), rtol=1e-12)


def test_columns_known_in_advance():
    rng = np.random.default_rng(1)
    X = (rng.random((120, 1)) < 0.3).astype(float)
    y = 10 * X[:, 0] + rng.standard_normal(120)
    forecaster = RecurrentForecaster(**QUICK).fit(y[:110], X[:110], fh=np.arange(1, 11))
    assert np.abs(forecaster.predict(X=X[110:]) - 10 * X[110:, 0]).max() < 4
    with pytest.raises(
        ValueError, match="fitted with 1 columns of X, which must be known for all 10"
    ):
        forecaster.predict()
    with pytest.raises(ValueError, match=r"X of shape \(4, 1\) to forecast y; expected \(10, 1\)"):
        forecaster.predict(X=X[:4])
    with pytest.raises(ValueError, match="y has 110 rows, its X 109; expected a row of X for each"):
        RecurrentForecaster().fit(y[:110], X[:109])


def test_pandas_in_and_out():
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2020-01-31", periods=60, freq="ME", name="month")
    pattern = np.resize(10.0 + np.arange(12), 60)
    y = pandas.Series(pattern + 0.01 * np.random.default_rng(1).random(60), index, name="sold")
    options = {k: v for k, v in QUICK.items() if k != "season"}
    forecaster = RecurrentForecaster(**options).fit(y)
    found = forecaster.predict(fh=[1, 3])
    assert (found.name, found.index.name) == ("sold", "month")
    assert [str(time.date()) for time in found.index] == ["2025-01-31", "2025-03-31"]
    np.testing.assert_allclose(found, [10, 12], atol=0.7)
    interval = forecaster.predict_interval(fh=[1], coverage=[0.5, 0.9])
    assert list(interval.columns) == [
        ("sold", 0.5, "lower"), ("sold", 0.5, "upper"),
        ("sold", 0.9, "lower"), ("sold", 0.9, "upper"),
    ]  # fmt: skip
    later = pandas.Series([10.0], pandas.DatetimeIndex(["2025-01-31"]), name="sold")
    assert str(forecaster.update(later).predict(fh=1).index[0].date()) == "2025-02-28"

    X = pandas.DataFrame(
        {"k": np.arange(66.0) % 5}, pandas.date_range(index[0], periods=66, freq="ME")
    )
    forecaster = RecurrentForecaster(**options).fit(y, X.iloc[:60], fh=[1, 2])
    forecast, future = forecaster.predict(X=X), forecaster.predict(X=X.iloc[60:62])
    pandas.testing.assert_series_equal(forecast, future)

    periods = pandas.Series(pattern, pandas.period_range("2020-01", periods=60, freq="M"))
    found = RecurrentForecaster(**options).fit(periods).predict(fh=[2])
    assert str(found.index[0]) == "2025-02"

    frame = pandas.concat({"a": y.iloc[:50], "b": 10 * y}, names=["shop"])
    found = RecurrentForecaster(**options).fit(frame, fh=[1, 2]).predict()
    assert [(shop, str(time.date())) for shop, time in found.index] == [
        ("a", "2024-03-31"), ("a", "2024-04-30"), ("b", "2025-01-31"), ("b", "2025-02-28"),
    ]  # fmt: skip
    np.testing.assert_allclose(found.loc["b"], [100, 110], atol=7)


@pytest.mark.parametrize("fh", [0, [1, 0], [1.5], [], "next", [[1]]])
def test_horizons_that_are_none(fh):
    with pytest.raises(ValueError, match="expected steps after the last row, integers"):
        RecurrentForecaster().fit(series(), fh=fh)


def test_what_is_refused():
    with pytest.raises(ValueError, match="y is not an array of numbers"):
        RecurrentForecaster().fit(["a", "b"])
    with pytest.raises(ValueError, match=r"y has shape \(2, 2, 2\); expected \[T\] or \[T, N\]"):
        RecurrentForecaster().fit(np.ones((2, 2, 2)))
    with pytest.raises(
        ValueError, match="has 9, but lags of up to 25 steps and a horizon of 12 need"
    ):
        RecurrentForecaster(season=12).fit(np.ones(9))
    forecaster = RecurrentForecaster(**{**QUICK, "max_steps": 2}).fit(series())
    with pytest.raises(ValueError, match=r"alpha 1\.5; expected levels between 0 and 1"):
        forecaster.predict_quantiles(alpha=1.5)
    with pytest.raises(ValueError, match="coverage 0; expected probabilities between 0 and 1"):
        forecaster.predict_interval(coverage=0)


def test_products_in_bfloat16():
    """The option is for fitting; forecasts have the precision that is current."""
    few = {**QUICK, "max_steps": 3, "hidden_size": 8}

    def weights(precision, around="float32"):
        with matmul_precision(around):
            fitted = RecurrentForecaster(**few, matmul_precision=precision).fit(series())
        return fitted, fitted.forecaster_.models[0].state_dict()

    fitted, in_bfloat16 = weights("bfloat16")
    around, in_float32 = weights(None, "bfloat16")[1], weights(None)[1]
    for name, array in in_bfloat16.items():
        np.testing.assert_array_equal(array, around[name])
    assert any((in_float32[name] != array).any() for name, array in in_bfloat16.items())
    expected = fitted.predict()
    with matmul_precision("bfloat16"):
        assert np.abs(fitted.predict() - expected).max() > 0
    with pytest.raises(ValueError, match=r"^matmul_precision 'half' is not one of float32, bfloat"):
        RecurrentForecaster(matmul_precision="half").fit(series())
