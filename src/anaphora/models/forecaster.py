"""The forecaster: an autoregressive recurrent network that predicts the next steps (DeepAR)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import ops
from anaphora.data import ForecastBatch, ForecastCodec, window_moments
from anaphora.data.forecasting import are_lags, window
from anaphora.models.body import ForecasterBody
from anaphora.models.distributions import Distribution, make_distribution, stratified_normals
from anaphora.models.reader import Reader, make_linear
from anaphora.nn import initialization as initialize
from anaphora.tensor import Array, Tensor, no_grad

_RIDGE = 1e-4  # relative to the mean square of the scaled lags
_ROWS_PER_WEIGHT = 3  # minimum for least squares
_MAXIMUM_ROWS = 4096  # paths of series in a batch


@dataclass(eq=False, repr=False)
class Forecaster(Reader, ForecasterBody):
    """A recurrent network that forecasts series step by step (DeepAR, Salinas et al. 2020).

    At each step it reads lagged values, the columns known in advance, and the scale, and returns
    the distribution of the next value. In training it reads the true values (teacher forcing); to
    forecast, it samples a value, reads it, and so on: a path. Values are scaled by the past of
    their window, so that one network serves series of any scale. With ``autoregressive``, the level
    of the distribution is the network's plus a weighted sum of the scaled lags (Lai et al. 2018),
    which extrapolates trends.

    Attributes:
        target_size: N, the targets per step.
        feature_size: F, the features per step, which are known in advance.
        linear_features: J, the number of features in the weighted sum.
        context: C, the steps that are read before the first forecast.
        lags: The lags of the values that each step reads, in steps; P is the largest.
        typical_scale: [N] divides the scales whose logarithms the network reads; None for 1.

    The other arguments are those of `ForecasterBody`.

    Raises:
        ValueError: an option is out of range, or the scaling does not suit counts.

    >>> model = Forecaster(hidden_size=4, context=6, lags=(1, 2), distribution="gaussian")
    >>> paths = model.predict(np.arange(10.0)[:, None, None], horizon=3, paths=5, seed=1)
    >>> paths.shape
    (5, 3, 1, 1)
    """

    target_size: int = field(default=1, kw_only=True)
    feature_size: int = field(default=0, kw_only=True)
    linear_features: int = field(default=0, kw_only=True)
    context: int = field(default=24, kw_only=True)
    lags: tuple[int, ...] = field(default=(1,), kw_only=True)
    typical_scale: tuple[float, ...] | None = field(default=None, kw_only=True)

    kind = "forecaster"
    loss_kind = "likelihood"
    codec_type = ForecastCodec

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        N, F, lags = self.target_size, self.feature_size, list(self.lags)
        if N < 1 or F < 0 or self.context < 1:
            raise ValueError(
                f"{name}: target_size {N}, feature_size {F}, context {self.context}; expected at "
                "least 1, 0 and 1"
            )
        if not 0 <= self.linear_features <= F:
            raise ValueError(
                f"{name}: linear_features {self.linear_features}; expected 0 to feature_size, "
                f"which is {F}"
            )
        if not are_lags(lags):
            raise ValueError(f"{name}: lags {lags}; expected distinct numbers of at least 1 step")
        sizes = [1.0] * N if self.typical_scale is None else [float(s) for s in self.typical_scale]
        if len(sizes) != N or not all(0 < size < np.inf for size in sizes):
            raise ValueError(f"{name}: typical_scale {sizes}; expected {N} numbers above 0")
        self.lags, self.typical_scale = tuple(int(lag) for lag in lags), tuple(sizes)
        self.past = max(self.lags)
        self.head: Distribution = make_distribution(name, self.distribution, list(self.quantiles))
        if self.distribution == "quantiles":
            self.loss_kind = "quantile loss"  # type: ignore[misc]
        self.build(input_size=N * (len(lags) + 2) + F)
        self.output = make_linear(self, self.recurrent.output_size, N * self.head.size)
        if self.autoregressive:
            self.linear_weights = initialize.parameter(
                (N, len(lags) + self.linear_features), self.dtype
            )

    @property
    def starts_from_least_squares(self) -> bool:
        """Whether it is initialized to a linear model, which does not apply to counts."""
        return self.autoregressive and not self.head.counts

    # Windows

    def forward(self, batch: ForecastBatch) -> Tensor:
        """The parameters of the distribution of each target: [C + h, B, N, P]."""
        return self._answer(self._window(batch.inputs, batch.observed), batch)

    def loss(self, batch: ForecastBatch, state: Any = None) -> tuple[Tensor, None]:
        """The mean loss over the observed targets of context and horizon; the state is None.

        It is the negative log-likelihood of the scaled values (or of the counts), in nats, or their
        mean pinball loss.
        """
        window = self._window(batch.inputs, batch.observed)
        raw = self._answer(window, batch)
        steps = slice(self.past, None)
        scale = np.broadcast_to(window.scale.astype(self.dtype), window.values[steps].shape)
        losses = self.head.loss(raw, window.values[steps], scale)
        counted = batch.mask
        loss = (losses * counted.astype(losses.dtype)).sum() / max(int(counted.sum()), 1)
        result: Tensor = ops.astype(loss, self.dtype)
        return result, None

    def _answer(self, window: _Window, batch: ForecastBatch) -> Tensor:
        linear, x = window.read(np.arange(len(batch.targets)), np.asarray(batch.features))
        y, _ = self.recurrent(x)
        return self._raw(self.drop(y), linear)

    def _raw(self, y: Tensor, linear: Array) -> Tensor:
        """Parameters [T, B, N, P] from outputs [T, B, H], lags and features [T, B, N, K + J]."""
        P = self.head.size
        raw: Tensor = self.output(y).reshape(*y.shape[:2], self.target_size, P)
        if self.autoregressive:
            level = (self.linear_weights * linear).sum(axis=-1)
            raw = raw + level.reshape(*level.shape, 1) * self.head.location.astype(self.dtype)
        return raw

    def _window(self, values: ArrayLike, observed: NDArray[np.bool_]) -> _Window:
        return _Window(self, np.asarray(values, np.float64), observed)

    def start_from_least_squares(self, batches: Iterable[ForecastBatch]) -> None:
        """Initialize to the linear model that fits windows best.

        The weights of lags and features, and the bias, are the least squares solution (with a small
        ridge penalty); the network's contribution to the level is 0 at first, so that training
        improves on the linear model. Only targets with observed lags count, if there are enough.

        Args:
            batches: Windows, as for `loss`.

        Raises:
            ValueError: the model is not autoregressive.
        """
        if not self.autoregressive:
            raise ValueError("start_from_least_squares: the model is not autoregressive")
        N, K = self.target_size, len(self.lags) + self.linear_features
        squares, products = np.zeros((2, N, K + 1, K + 1)), np.zeros((2, N, K + 1))
        for batch in batches:
            window = self._window(batch.inputs, batch.observed)
            steps = np.arange(len(batch.targets))
            linear, _ = window.read(steps, np.asarray(batch.features))
            targets = window.values[self.past :]
            lagged = window.observed[steps[:, None] + self.past - np.array(self.lags)].all(axis=1)
            for n in range(N):
                for k, counted in enumerate([batch.mask & lagged, batch.mask]):
                    x = linear[:, :, n][counted[:, :, n]].astype(np.float64)
                    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
                    squares[k, n] += x.T @ x
                    products[k, n] += x.T @ targets[:, :, n][counted[:, :, n]]
        enough = squares[0, :, -1, -1] > _ROWS_PER_WEIGHT * (K + 1)
        chosen = np.where(enough, 0, 1), np.arange(N)
        ridge = (_RIDGE * squares[chosen][:, -1:, -1:] + 1e-12) * np.eye(K + 1)
        solved = np.linalg.solve(squares[chosen] + ridge, products[chosen][..., None])
        weights = solved[..., 0]
        at_level = np.tile(self.head.location, N) > 0
        with self.linear_weights.writing() as array:
            array[...] = weights[:, :K]
        with self.output.weight.writing() as array:
            array[at_level] = 0
        assert self.output.bias is not None
        with self.output.bias.writing() as array:
            array[at_level] = np.repeat(weights[:, K], int(self.head.location.sum()))

    def fill(self, values: ArrayLike, features: ArrayLike) -> NDArray[np.float64]:
        """Fill missing values with the weighted sum of their lags and features.

        If one of the P steps before is missing, or the model is not autoregressive, the last value
        is repeated. NaN remains before the first value.

        Args:
            values: [S, B, N], NaN where missing.
            features: [S, B, F].

        Returns:
            [S, B, N].
        """
        filled = np.array(values, np.float64)
        known = np.asarray(features, np.float64)
        for step in np.flatnonzero(np.isnan(filled).any(axis=(1, 2))):
            filled[step] = self._filled(filled[:step], filled[step], known[step])
        return filled

    def _filled(
        self, before: NDArray[np.float64], step: NDArray[np.float64], known: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """One step [B, N], after filled ones [S, B, N]; its features are [B, F]."""
        missing = np.isnan(step)
        if not missing.any() or len(before) == 0:
            return step
        estimate = before[-1]
        if self.autoregressive and len(before) >= self.past:
            past = before[-self.past :]
            present = ~np.isnan(past)
            mean, scale = window_moments(str(self.scaling), past, present)
            weights = self.linear_weights.data.astype(np.float64)
            K = len(self.lags)
            lagged = np.moveaxis((past[-np.array(self.lags)] - mean) / scale, 0, -1)  # [B, N, K]
            level = (lagged * weights[:, :K]).sum(axis=-1) + known[
                :, : self.linear_features
            ] @ weights[:, K:].T
            estimate = np.where(present.all(axis=0), mean + level * scale, estimate)
        return np.where(missing, estimate, step)

    # Forecasts

    def predict(
        self,
        values: ArrayLike,
        horizon: int,
        features: ArrayLike | None = None,
        *,
        paths: int = 200,
        seed: int = 1,
    ) -> NDArray[np.float64]:
        """Sample paths of the next steps.

        Args:
            values: [S, B, N] the past, in its own units; NaN where missing. The last P + C steps
                are read; if S is smaller, the first of them are missing. P more steps help to fill
                missing values.
            horizon: h.
            features: [S + h, B, F] of the past and of the steps to forecast; None if F is 0.
            paths: The number of paths.
            seed: Seed of the paths.

        Returns:
            [paths, h, B, N], in the units of the values.

        Raises:
            ValueError: a shape does not match, or a series has no value in its last P + C steps.
        """
        past = np.asarray(values, np.float64)
        F = self.feature_size
        if past.ndim != 3 or past.shape[2] != self.target_size or horizon < 1 or paths < 1:
            raise ValueError(
                f"predict: values of shape {past.shape}, horizon {horizon}, paths {paths}; "
                f"expected [S, B, {self.target_size}], at least 1 and at least 1"
            )
        steps, B = past.shape[:2]
        known = np.zeros((steps + horizon, B, 0)) if features is None else np.asarray(features)
        if known.shape != (steps + horizon, B, F):
            raise ValueError(
                f"predict: features of shape {known.shape}; expected {(steps + horizon, B, F)}, "
                f"for the {steps} steps of the past and the {horizon} to forecast"
            )
        filled = self.fill(past, known[:steps])
        return self._predict(filled, ~np.isnan(past), known, horizon, paths, seed)

    def forecast(
        self, batch: ForecastBatch, *, paths: int = 200, seed: int = 1
    ) -> NDArray[np.float64]:
        """Sample paths of the horizons of windows, without reading the true values there.

        Args:
            batch: Windows, as for `loss`.
            paths: The number of paths.
            seed: Seed of the paths.

        Returns:
            [paths, h, B, N], in the units of the values.

        Raises:
            ValueError: a target of a window has no value before the horizon.
        """
        past = self.past + self.context
        return self._predict(
            np.asarray(batch.inputs, np.float64)[:past],
            batch.observed[:past],
            np.asarray(batch.features),
            len(batch.targets) - self.context,
            paths,
            seed,
        )

    def _predict(
        self,
        past: NDArray[np.float64],
        observed: NDArray[np.bool_],
        known: NDArray[Any],
        horizon: int,
        paths: int,
        seed: int,
    ) -> NDArray[np.float64]:
        """Paths after a past [S, B, N] with filled missing values."""
        S, B = self.past + self.context, past.shape[1]
        past = window(past, len(past), S, np.nan)
        observed = window(observed, len(observed), S, False)
        known = window(known, len(known), self.context + horizon, 0)
        for b, n in np.argwhere(~observed.any(axis=0))[:1]:
            raise ValueError(
                f"predict: series {b}, target {n} has no value in its last {S} steps; expected at "
                "least one"
            )
        generator = np.random.default_rng(seed)
        batch_size = max(_MAXIMUM_ROWS // paths, 1)
        sampled = []
        for start in range(0, B, batch_size):
            part = slice(start, start + batch_size)
            features = known[:, part].astype(self.dtype)
            sampled.append(
                self._paths(past[:, part], observed[:, part], features, horizon, paths, generator)
            )
        return np.concatenate(sampled, axis=2)

    def _paths(
        self,
        past: NDArray[np.float64],
        observed: NDArray[np.bool_],
        features: Array,
        horizon: int,
        paths: int,
        generator: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Paths [paths, h, B, N], from the past [P + C, B, N] and features [C + h, B, F]."""
        C, N = self.context, self.target_size
        B = past.shape[1]
        window = self._window(np.nan_to_num(past), observed)
        session = self.recurrent.session(batch_size=B)
        session.feed(window.read(np.arange(C), features[:C])[1])
        state = session.state_dict()
        window = window.repeated(paths, horizon)
        features = np.repeat(features, paths, axis=1)
        session = self.recurrent.session(batch_size=B * paths)
        session.load_state_dict({k: np.repeat(s, paths, axis=1) for k, s in state.items()})
        scale = np.broadcast_to(window.scale, (B * paths, N))
        for step in range(C, C + horizon):
            linear, x = window.read(np.array([step]), features[step : step + 1])
            with no_grad():
                raw = self._raw(Tensor(session.feed(x)), linear).data[0]
            normals = stratified_normals(paths, (B, N), generator).swapaxes(0, 1)
            values = self.head.sample(raw, normals.reshape(B * paths, N), scale, generator)
            window.values[self.past + step] = values
            window.observed[self.past + step] = True
        sampled = window.values[-horizon:].astype(np.float64) * window.scale + window.mean
        return sampled.reshape(horizon, B, paths, N).transpose(2, 0, 1, 3)

    def session(self, *, weights: str | None = None) -> ForecasterSession:
        """A session that is fed a series as it arrives, and forecasts at any time.

        Args:
            weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

        Raises:
            ValueError: the weights are not of these two, or int8 with float64.

        >>> model = Forecaster(hidden_size=4, context=6, lags=(1, 2), distribution="gaussian")
        >>> session = model.session()
        >>> for value in range(10):
        ...     session.feed([float(value)])
        >>> session.forecast(3, paths=5).shape
        (5, 3, 1)
        """
        return ForecasterSession(self, weights=weights)


class _Window:
    """The values of windows, scaled by their past, and the network's inputs from them.

    Attributes:
        values: [P + C + ..., B, N] scaled; 0 before the first observed value.
        observed: Whether each was observed.
        mean, scale: [B, N].
    """

    def __init__(
        self, model: Forecaster, values: NDArray[np.float64], observed: NDArray[np.bool_]
    ) -> None:
        self._model = model
        past = model.past + model.context
        self.mean, self.scale = window_moments(str(model.scaling), values[:past], observed[:past])
        started = np.logical_or.accumulate(observed, axis=0)
        scaled = np.where(started, (values - self.mean) / self.scale, 0.0)
        self.values: Array = scaled.astype(model.dtype)
        self.observed = observed

    def read(self, steps: NDArray[np.int64], features: Array) -> tuple[Array, Array]:
        """Inputs of linear model and network at steps [T]: [T, B, N, K + J] and [T, B, I]."""
        model = self._model
        lagged_steps = steps[:, None] + model.past - np.array(model.lags)  # [T, K]
        lagged = np.moveaxis(self.values[lagged_steps], 1, -1)
        T, B = lagged.shape[:2]
        before = self.observed[steps + model.past - 1]
        size = np.broadcast_to(np.log(self.scale / np.array(model.typical_scale)), before.shape)
        read = [lagged.reshape(T, B, -1), before, features, size]
        x = np.concatenate([part.astype(model.dtype, copy=False) for part in read], axis=-1)
        J = model.linear_features
        known = np.broadcast_to(features[:, :, None, :J], (T, B, model.target_size, J))
        linear = np.concatenate([lagged, known.astype(model.dtype, copy=False)], axis=-1)
        return linear, x

    def repeated(self, times: int, more: int) -> Self:
        """Copies of each series, with more steps for samples."""
        other = copy.copy(self)
        other.mean = np.repeat(self.mean, times, axis=0)
        other.scale = np.repeat(self.scale, times, axis=0)
        padding = [(0, more), (0, 0), (0, 0)]
        other.values = np.pad(np.repeat(self.values, times, axis=1), padding)
        other.observed = np.pad(np.repeat(self.observed, times, axis=1), padding)
        return other


class ForecasterSession:
    """A forecaster that is fed one series as it arrives; `Forecaster.session` makes one.

    It keeps the last P + C steps. As the window before a forecast scales it, the network reads that
    window again for each forecast. A forecast equals that of `Forecaster.predict` for the complete
    series, and does not change the session.

    Args:
        model: The model.
        weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

    Raises:
        ValueError: the weights are not of these two, or int8 with float64.

    >>> model = Forecaster(hidden_size=4, context=6, distribution="gaussian")
    >>> session = model.session()
    >>> session.feed([[3.0], [np.nan], [5.0]])  # three steps; one is missing
    >>> bool((session.forecast(2) == session.forecast(2)).all())
    True
    """

    def __init__(self, model: Forecaster, *, weights: str | None = None) -> None:
        self._model = model
        if weights not in (None, model.weights):
            self._model = copy.deepcopy(model)
            self._model.weights = weights
        self._in_use = False
        self._values = np.zeros((0, 1, model.target_size))  # filled
        self._observed = np.zeros((0, 1, model.target_size), np.bool_)
        self._features = np.zeros((0, model.feature_size))

    def feed(self, values: ArrayLike, features: ArrayLike | None = None) -> None:
        """Read the next step, or several.

        Args:
            values: [N] or [T, N], in their own units; NaN where missing.
            features: [F] or [T, F] of the same steps; None if F is 0.

        Raises:
            ValueError: a shape does not match; the session does not change.
            RuntimeError: another thread is using this session.
        """
        with self._used_by_one("feed"):
            self._feed(values, features)

    def _feed(self, values: ArrayLike, features: ArrayLike | None) -> None:
        model = self._model
        new = np.asarray(values, np.float64)
        new = new[None] if new.ndim == 1 else new
        if new.ndim != 2 or new.shape[1] != model.target_size or np.isinf(new).any():
            raise ValueError(
                f"feed: values of shape {np.shape(values)}; expected [{model.target_size}] for one "
                f"step, [T, {model.target_size}] for T of them, finite or NaN"
            )
        known = self._checked("feed", features, len(new))
        kept = model.past + model.context
        for step, its_features in zip(new, known, strict=True):
            filled = model._filled(self._values, step[None], its_features[None])
            self._values = np.concatenate([self._values, filled[None]])[-kept:]
        self._observed = np.concatenate([self._observed, ~np.isnan(new)[:, None]])[-kept:]
        self._features = np.concatenate([self._features, known])[-kept:]

    def forecast(
        self,
        horizon: int,
        features: ArrayLike | None = None,
        *,
        paths: int = 200,
        seed: int = 1,
    ) -> NDArray[np.float64]:
        """Paths of the next steps, [paths, h, N]; the session does not change.

        Args:
            horizon: h.
            features: [h, F] of these steps; None if F is 0.
            paths: The number of paths.
            seed: Seed of the paths.

        Raises:
            ValueError: a target has no value yet, or a shape does not match.
            RuntimeError: another thread is using this session.
        """
        known = self._checked("forecast", features, horizon)
        with self._used_by_one("forecast"):
            if not self._observed.any(axis=0).all():
                raise ValueError("forecast: feed at least one value of each target first")
            features = np.concatenate([self._features, known])[:, None]
            sampled = self._model._predict(
                self._values, self._observed, features, horizon, paths, seed
            )
        return sampled[:, :, 0]

    @contextlib.contextmanager
    def _used_by_one(self, method: str) -> Iterator[None]:
        """A context in which any other use of the session is refused."""
        if self._in_use:  # a plain flag, as in `nn.Session`
            raise RuntimeError(
                f"{method}: another thread is using this session, which is for one thread at a "
                "time; give each thread its own session, such as session.fork()"
            )
        self._in_use = True
        try:
            yield
        finally:
            self._in_use = False

    def _checked(self, name: str, features: ArrayLike | None, steps: int) -> NDArray[np.float64]:
        F = self._model.feature_size
        known = np.zeros((steps, 0)) if features is None else np.asarray(features, np.float64)
        known = known[None] if known.ndim == 1 else known
        if known.shape != (steps, F) or not np.isfinite(known).all():
            raise ValueError(
                f"{name}: features of shape {known.shape}; expected {(steps, F)}, finite: the "
                "values known in advance of each step"
            )
        return known

    def fork(self) -> ForecasterSession:
        """An independent session that continues from here, with the same model."""
        other = ForecasterSession(self._model)
        with self._used_by_one("fork"):
            vars(other).update(vars(self))  # arrays are never changed in place
        other._in_use = False
        return other
