"""A forecaster with the interfaces of scikit-learn and sktime (extra ``sklearn``)."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise ImportError('estimators need an extra: pip install "anaphora[sklearn]"') from error

from anaphora.data import DataError
from anaphora.data.time_series import TimeSeries
from anaphora.training.backtesting import Forecast
from anaphora.training.forecaster import ForecasterOptions, fit_forecaster

Float64 = NDArray[np.float64]


class RecurrentForecaster(BaseEstimator):
    """A recurrent forecaster of one or several series, with sktime's interface.

    y is a series: [T] or [T, N] numbers (NaN where missing), or a pandas Series or DataFrame, whose
    index has the times; or a list of these, of any lengths; or a DataFrame whose index has two
    levels, series and time. Forecasts have the same form, for the steps of the forecasting horizon
    fh, which counts from the last row of y: 1 is the next step. X contains columns known in
    advance, with a row for each row of y; in a forecast, with the next rows.

    If the times are dates, the time of the day, week and year is read too. See `models.Forecaster`
    for the model.

    Args:
        season: Steps of a season; None for that of the calendar.
        context: Steps that are read before a forecast; None for a season or the horizon.
        lags: The lags of the values that each step reads; None for those of the season.
        distribution: "student_t", "gaussian", "negative_binomial" (of counts), or "quantiles".
        scaling: "standard", "mean_absolute" or "none"; None for that of the distribution.
        calendar: Whether to read the calendar.
        cell: The name of a cell.
        hidden_size: H of every layer.
        num_layers: L.
        dropout: Dropout probability, between layers and before the output.
        max_steps: Maximum number of updates.
        batch_size: Windows per update.
        learning_rate: Initial learning rate of Adam, with a cosine schedule to 0.
        weight_decay: Weight decay of Adam.
        validation_share: The fraction of each series (its end) that is held out to select the
            weights; 0 keeps the last weights.
        members: The number of networks, whose paths are combined.
        paths: The number of sampled paths, whose quantiles are the forecast.
        matmul_precision: "float32" or "bfloat16": the precision of matrix products while fitting;
            None for the current one. See `matmul_precision`, which determines that of predictions.
        random_state: A seed, a `numpy.random.RandomState`, or None for NumPy's global one.

    Attributes:
        forecaster_: The fitted `training.FittedForecaster`.
        fh_: The forecasting horizon that was given to ``fit``, or a season, [h].

    >>> y = np.arange(72) + 5 * np.sin(np.arange(72) * np.pi / 6)
    >>> forecaster = RecurrentForecaster(season=12, max_steps=50, random_state=1)
    >>> forecaster.fit(y, fh=[1, 2, 3]).predict().shape
    (3,)
    >>> low, high = forecaster.predict_interval(coverage=0.8).T
    >>> bool((low < high).all())
    True
    """

    def __init__(
        self,
        season: int | None = None,
        context: int | None = None,
        lags: Sequence[int] | None = None,
        distribution: str = "student_t",
        scaling: str | None = None,
        calendar: bool = True,
        cell: str = "lstm",
        hidden_size: int = 16,
        num_layers: int = 1,
        dropout: float = 0.0,
        max_steps: int = 1000,
        batch_size: int = 32,
        learning_rate: float = 0.001,
        weight_decay: float = 0.0,
        validation_share: float = 0.2,
        members: int = 1,
        paths: int = 400,
        matmul_precision: str | None = None,
        random_state: Any = None,
    ) -> None:
        self.season = season
        self.context = context
        self.lags = lags
        self.distribution = distribution
        self.scaling = scaling
        self.calendar = calendar
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_share = validation_share
        self.members = members
        self.paths = paths
        self.matmul_precision = matmul_precision
        self.random_state = random_state

    def fit(self, y: Any, X: Any = None, fh: Any = None) -> Self:
        """Fit the forecaster.

        Args:
            y: See the class.
            X: Columns known in advance, with a row for each row of y; a list if y is a list.
            fh: The steps to forecast, such as [1, 2, 3]; None for a season (or 10 steps).

        Raises:
            ValueError: y, X or fh is invalid, or an option is out of range.
        """
        return self._fit(_Form(y, X), None if fh is None else _horizon(fh))

    def _fit(self, form: _Form, steps: NDArray[np.int64] | None) -> Self:
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        names = ForecasterOptions.fields()
        given = {k: v for k, v in self.get_params(deep=False).items() if k in names}
        options = ForecasterOptions.make(
            **{
                **given,
                "horizon": None if steps is None else int(steps.max()),
                "lags": None if self.lags is None else tuple(int(lag) for lag in self.lags),
                "seed": seed,
            }
        )
        self.forecaster_ = fit_forecaster(form.series, options, members=self.members)
        self.fh_ = np.arange(1, self.forecaster_.codec.horizon + 1) if steps is None else steps
        self._form, self._seed = form, seed
        return self

    def update(self, y: Any, X: Any = None, update_params: bool = False) -> Self:
        """Append rows to y, without changing the networks.

        Args:
            y: The next rows, in the form of the fitted y.
            X: Columns known in advance, for the same rows.
            update_params: Whether to train again on all rows.

        Raises:
            ValueError: y or X has another form, or does not continue the previous y.
        """
        check_is_fitted(self, "forecaster_")
        form = self._form.followed_by(_Form(y, X, self._form))
        if update_params:
            return self._fit(form, self.fh_)
        self._form = form
        return self

    def predict(self, fh: Any = None, X: Any = None) -> Any:
        """The median of the forecast.

        Args:
            fh: The steps to forecast; None for those given to ``fit``.
            X: The columns known in advance, for all steps up to the last of fh.

        Returns:
            [len(fh)] or [len(fh), N], in the form of y.

        Raises:
            NotFittedError: it is not fitted.
            ValueError: fh or X is invalid.
        """
        steps, forecasts = self._forecast(fh, X)
        return self._form.answer([one.median[steps - 1] for one in forecasts], steps)

    def predict_quantiles(
        self, fh: Any = None, X: Any = None, alpha: float | Sequence[float] | None = None
    ) -> Any:
        """Quantiles of the forecast.

        Args:
            fh: As in `predict`.
            X: As in `predict`.
            alpha: Their levels; None for 0.05 and 0.95.

        Returns:
            [len(fh), N * Q], or for pandas a DataFrame, with columns by target and level.
        """
        levels = [0.05, 0.95] if alpha is None else np.atleast_1d(alpha).tolist()
        if not levels or not all(0 < level < 1 for level in levels):
            raise ValueError(f"RecurrentForecaster: alpha {alpha}; expected levels between 0 and 1")
        steps, forecasts = self._forecast(fh, X)
        columns = [(name, level) for name in self._form.targets for level in levels]
        return self._form.answer(
            [_columns(one, steps, levels) for one in forecasts], steps, columns
        )

    def predict_interval(
        self, fh: Any = None, X: Any = None, coverage: float | Sequence[float] = 0.9
    ) -> Any:
        """Central prediction intervals.

        Args:
            fh: As in `predict`.
            X: As in `predict`.
            coverage: The probability of an interval, or several.

        Returns:
            [len(fh), N * C * 2] lower and upper ends, or for pandas a DataFrame, with columns by
            target, coverage, and "lower" or "upper".
        """
        expected = np.atleast_1d(coverage).tolist()
        if not expected or not all(0 < level < 1 for level in expected):
            raise ValueError(
                f"RecurrentForecaster: coverage {coverage}; expected probabilities between 0 and 1"
            )
        steps, forecasts = self._forecast(fh, X)
        levels = [(1 + sign * level) / 2 for level in expected for sign in (-1, 1)]
        columns = [
            (name, level, end)
            for name in self._form.targets
            for level in expected
            for end in ("lower", "upper")
        ]
        return self._form.answer(
            [_columns(one, steps, levels) for one in forecasts], steps, columns
        )

    def _forecast(self, fh: Any, X: Any) -> tuple[NDArray[np.int64], list[Forecast]]:
        check_is_fitted(self, "forecaster_")
        steps = self.fh_ if fh is None else _horizon(fh)
        horizon = int(steps.max())
        series = self._form.with_future(X, horizon)
        forecasts = self.forecaster_.forecast(series, horizon, paths=self.paths, seed=self._seed)
        return steps, forecasts


def _columns(forecast: Forecast, steps: NDArray[np.int64], levels: list[float]) -> Float64:
    """[h, N * Q] quantiles of some steps."""
    quantiles = forecast.quantile(levels)[:, steps - 1]  # [Q, h, N]
    return np.moveaxis(quantiles, 0, -1).reshape(len(steps), -1)


def _horizon(fh: Any) -> NDArray[np.int64]:
    """A forecasting horizon as steps."""
    given = np.atleast_1d(np.asarray(fh))
    integers = given.ndim == 1 and given.size and given.dtype.kind in "iu"
    if not integers or (given < 1).any():
        raise ValueError(
            f"RecurrentForecaster: fh {fh!r}; expected steps after the last row, integers of at "
            "least 1, such as [1, 2, 3]"
        )
    return given.astype(np.int64)


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"


class _Form:
    """The series of y and X, and the form of y."""

    series: list[TimeSeries]

    def __init__(self, y: Any, X: Any = None, like: _Form | None = None) -> None:
        self._index_names = getattr(getattr(y, "index", None), "names", None)
        self._panel = _is_pandas(y) and getattr(y.index, "nlevels", 1) == 2
        self._several = self._panel or (
            isinstance(y, (list, tuple)) and len(y) > 0 and np.ndim(y[0]) > 0
        )
        self._names: list[Any] = ["y"]
        ys, Xs = [y], [X]
        if self._panel:
            self._names = list(dict.fromkeys(y.index.get_level_values(0)))
            ys = [y.xs(name) for name in self._names]
            Xs = [None if X is None else X.xs(name) for name in self._names]
        elif self._several:
            self._names = [f"y[{k}]" for k in range(len(y))]
            ys, Xs = list(y), [None] * len(y) if X is None else list(X)
        if len(Xs) != len(ys):
            raise ValueError(
                f"RecurrentForecaster: y has {len(ys)} series, but X has {len(Xs)}; expected one X "
                "for each"
            )
        self._ys = ys
        values = [_numbers(name, one) for name, one in zip(self._names, ys, strict=True)]
        known = [
            np.zeros((len(one), 0)) if x is None else _numbers(f"X of {name}", x)
            for name, one, x in zip(self._names, values, Xs, strict=True)
        ]
        for name, one, x in zip(self._names, values, known, strict=True):
            if len(one) != len(x) or len(one) == 0:
                raise ValueError(
                    f"RecurrentForecaster: {name} has {len(one)} rows, its X {len(x)}; expected a "
                    "row of X for each row of y, and at least one"
                )
        times = [_times(one, len(v)) for one, v in zip(ys, values, strict=True)]
        if like is not None:
            found = [(len(ys), values[0].shape[1], known[0].shape[1])]
            first = like.series[0]
            found.append((len(like.series), first.targets.shape[1], first.known.shape[1]))
            if found[0] != found[1]:
                raise ValueError(
                    "RecurrentForecaster: y and X have (series, targets, columns of X) "
                    f"{found[0]}, but it was fitted on {found[1]}; expected the same"
                )
            times = [  # positions continue those before
                t + (len(before.times) if not _is_pandas(one) else 0)
                for t, one, before in zip(times, ys, like.series, strict=True)
            ]
        width = values[0].shape[1]
        names = getattr(ys[0], "columns", None)
        self.targets = [getattr(ys[0], "name", None) or 0] if names is None else list(names)
        if len(self.targets) != width:
            self.targets = list(range(width))
        self.series = TimeSeries.at(
            times, values, known, list(map(str, self._names)), list(map(str, self.targets)),
            [f"column {k} of X" for k in range(known[0].shape[1])],
        )  # fmt: skip

    def followed_by(self, later: _Form) -> _Form:
        """This form with later rows."""
        joined = copy.copy(self)
        joined._ys = later._ys
        pairs = list(zip(self.series, later.series, strict=True))
        times = [np.concatenate([a.times, b.times]) for a, b in pairs]
        targets = [np.concatenate([a.targets, b.targets]) for a, b in pairs]
        known = [np.concatenate([a.known, b.known]) for a, b in pairs]
        first = self.series[0]
        joined.series = TimeSeries.at(
            times, targets, known, [one.name for one in self.series], first.target_names,
            first.known_names,
        )  # fmt: skip
        return joined

    def with_future(self, X: Any, horizon: int) -> list[TimeSeries]:
        """The series, each with rows of X for the steps to forecast; forecasts start after y."""
        K = self.series[0].known.shape[1]
        if K and X is None:
            raise ValueError(
                f"RecurrentForecaster: it was fitted with {K} columns of X, which must be known "
                f"for all {horizon} steps to forecast: give X"
            )
        series = []
        for k, one in enumerate(self.series):
            part = X
            if K and self._panel:
                part = X.xs(self._names[k])
            elif K and self._several:
                part = X[k]
            if K and _is_pandas(part) and len(part) > horizon and _is_pandas(self._ys[k]):
                part = part[part.index > self._ys[k].index[-1]]  # without X of the past
            known = _numbers(f"X of {one.name}", part) if K else np.zeros((horizon, 0))
            if known.shape[1] != K or len(known) < horizon:
                raise ValueError(
                    f"RecurrentForecaster: X of shape {known.shape} to forecast {one.name}; "
                    f"expected {(horizon, K)}, a row for each of the {horizon} steps after y"
                )
            rows = len(one.times)
            series.append(
                replace(
                    one,
                    times=one.frequency.at(one.times[0], np.arange(rows + horizon)),
                    targets=np.pad(one.targets, [(0, horizon), (0, 0)], constant_values=np.nan),
                    known=np.concatenate([one.known, known[:horizon]]),
                    past=rows,
                )
            )
        return series

    def answer(
        self,
        values: list[Float64],
        steps: NDArray[np.int64],
        columns: list[tuple[Any, ...]] | None = None,
    ) -> Any:
        """Values [h, ...] of each series in the form of y."""
        answers = [
            self._one(y, one, array, steps, columns)
            for y, one, array in zip(self._ys, self.series, values, strict=True)
        ]
        if self._panel:
            pandas = importlib.import_module("pandas")
            return pandas.concat(answers, keys=self._names, names=self._index_names)
        return answers if self._several else answers[0]

    def _one(
        self,
        y: Any,
        one: TimeSeries,
        values: Float64,
        steps: NDArray[np.int64],
        columns: list[tuple[Any, ...]] | None,
    ) -> Any:
        flat = columns is None and np.ndim(y) == 1
        if not _is_pandas(y):
            return values[:, 0] if flat else values
        pandas = importlib.import_module("pandas")
        times = one.frequency.after(one.times[-1], int(steps.max()))[steps - 1]
        if hasattr(y.index, "to_timestamp"):
            index = pandas.DatetimeIndex(times).to_period(y.index.freq)
        elif times.dtype.kind == "M":
            index = pandas.DatetimeIndex(times.astype(y.index.dtype))
        else:
            index = pandas.Index(times.astype(y.index.dtype))
        index.name = y.index.name
        if flat:
            return pandas.Series(values[:, 0], index, name=y.name)
        names = self.targets if columns is None else pandas.MultiIndex.from_tuples(columns)
        return pandas.DataFrame(values, index, names)


def _numbers(name: Any, value: Any) -> Float64:
    """[T, N] of numbers, NaN where missing."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"RecurrentForecaster: {name} is not an array of numbers: {error}"
        ) from error
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(
            f"RecurrentForecaster: {name} has shape {np.shape(value)}; expected [T] or [T, N]; "
            "give several series as a list"
        )
    return array


def _times(y: Any, rows: int) -> NDArray[Any]:
    """The times of a series: its index, or positions."""
    if not _is_pandas(y):
        return np.arange(float(rows))
    index = y.index.to_timestamp() if hasattr(y.index, "to_timestamp") else y.index
    times = np.asarray(index)
    if times.dtype.kind == "M":
        return times.astype("datetime64[us]")
    if times.dtype.kind not in "iuf":
        raise DataError(
            f"RecurrentForecaster: the index of y has dtype {index.dtype}; expected dates, periods "
            "or numbers"
        )
    return times.astype(np.float64)
