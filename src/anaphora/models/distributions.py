"""What a forecaster says of the next value: a likelihood, or quantiles."""

from __future__ import annotations

import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora import ops
from anaphora.tensor import Array, Tensor, differentiable, floating

Float64 = NDArray[np.float64]

# Of a deviation, in units of the scale, so that a series without noise has a finite likelihood.
SMALLEST_DEVIATION = 1e-3
SMALLEST_SHAPE = 1e-4


class Distribution(ABC):
    """What the P numbers that a network gives for a value mean.

    All values are in units of the window's scale.

    Attributes:
        size: P.
        location: [P] 1 where a number moves with the level of the series, 0 elsewhere.
        counts: Whether values are counts: 0, 1, 2, ...
    """

    size: int
    location: Float64
    counts = False

    @abstractmethod
    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The loss of each target [...] for raw numbers [..., P] and the scale [...]."""

    @abstractmethod
    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A value for each row of raw numbers [..., P], made of standard normal ones [...]."""


class Gaussian(Distribution):
    """Mean and deviation."""

    size = 2
    location = np.array([1.0, 0.0])

    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The negative log-density."""
        deviation = ops.softplus(raw[..., 1]) + SMALLEST_DEVIATION
        z = (targets - raw[..., 0]) / deviation
        loss: Tensor = ops.log(deviation) + z * z * 0.5 + 0.5 * math.log(2 * math.pi)
        return loss

    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A value for each row."""
        values: Float64 = raw[..., 0] + (_softplus(raw[..., 1]) + SMALLEST_DEVIATION) * normal
        return values


class StudentT(Distribution):
    """Location, scale, and more than two degrees of freedom: heavier tails than a Gaussian's."""

    size = 3
    location = np.array([1.0, 0.0, 0.0])

    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The negative log-density."""
        raw = ops.astype(raw, np.float64)  # of the functions log gamma a difference remains
        spread = ops.softplus(raw[..., 1]) + SMALLEST_DEVIATION
        freedom = ops.softplus(raw[..., 2]) + 2.0
        z = (targets.astype(np.float64) - raw[..., 0]) / spread
        constant = _log_gamma(freedom * 0.5) - _log_gamma(freedom * 0.5 + 0.5)
        loss: Tensor = (
            ops.log(spread)
            + ops.log(freedom * math.pi) * 0.5
            + constant
            + (freedom + 1.0) * 0.5 * ops.log(z * z / freedom + 1.0)
        )
        return loss

    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A value for each row."""
        spread = _softplus(raw[..., 1]) + SMALLEST_DEVIATION
        freedom = _softplus(raw[..., 2]) + 2.0
        chi_square = 2 * generator.standard_gamma(freedom / 2)
        values: Float64 = raw[..., 0] + spread * normal * np.sqrt(freedom / chi_square)
        return values


class NegativeBinomial(Distribution):
    """Mean m and shape a of counts, whose variance is m + a m^2 (Salinas et al. 2020).

    With the scale s: m = s softplus(raw), a = softplus(raw) / sqrt(s).
    """

    size = 2
    location = np.array([1.0, 0.0])
    counts = True

    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The negative log-probability."""
        raw = ops.astype(raw, np.float64)
        size = scale.astype(np.float64)
        counts = np.rint(targets * size)
        mean = (ops.softplus(raw[..., 0]) + SMALLEST_SHAPE) * size
        shape = (ops.softplus(raw[..., 1]) + SMALLEST_SHAPE) / np.sqrt(size)
        inverse = 1.0 / shape
        odds = ops.log(shape * mean)
        total = ops.log(shape * mean + 1.0)
        loss: Tensor = (
            _log_gamma(inverse)
            + _log_gamma(Tensor(counts + 1.0))
            - _log_gamma(inverse + counts)
            + inverse * total
            - (odds - total) * counts
        )
        return loss

    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A count for each row, in units of the scale."""
        size = scale.astype(np.float64)
        mean = (_softplus(raw[..., 0]) + SMALLEST_SHAPE) * size
        shape = (_softplus(raw[..., 1]) + SMALLEST_SHAPE) / np.sqrt(size)
        rates = generator.standard_gamma(1 / shape) * shape * mean
        counts: Float64 = generator.poisson(np.minimum(rates, 1e15)) / size
        return counts


class Quantiles(Distribution):
    """Quantiles at some levels, learnt by the pinball loss (Koenker & Bassett 1978).

    Between them, and beyond the first and the last, values lie on straight lines over the normal
    quantiles of the levels, so that samples can be drawn.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = np.array(levels, np.float64)
        self.size = len(levels)
        self.location = np.ones(self.size)
        self._normal = np.array([NormalDist().inv_cdf(level) for level in levels])

    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """max(q e, (q - 1) e), where e is the target less the quantile; the mean over levels."""
        levels = self.levels.astype(raw.dtype)
        error = np.asarray(targets, raw.dtype)[..., None] - raw
        loss: Tensor = ops.maximum(error * levels, error * (levels - 1)).mean(axis=-1)
        return loss

    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A value for each row."""
        values = np.sort(raw, axis=-1).astype(np.float64)
        left = np.clip(np.searchsorted(self._normal, normal) - 1, 0, self.size - 2)[..., None]
        low, high = (np.take_along_axis(values, left + k, -1)[..., 0] for k in (0, 1))
        at_low, at_high = (self._normal[left + k][..., 0] for k in (0, 1))
        drawn: Float64 = low + (high - low) * (normal - at_low) / (at_high - at_low)
        return drawn


def make_distribution(owner: str, name: str, levels: Sequence[float]) -> Distribution:
    """The distribution of a name.

    Raises:
        ValueError: there is none of it, or the levels are not at least two rising ones within 0..1.
    """
    if name == "quantiles":
        rising = all(a < b for a, b in itertools.pairwise(levels))
        if len(levels) < 2 or not rising or not 0 < levels[0] < levels[-1] < 1:
            raise ValueError(
                f"{owner}: quantiles {list(levels)}; wanted at least two rising levels between 0 "
                "and 1, such as 0.1, 0.5, 0.9"
            )
        return Quantiles(levels)
    if name not in LIKELIHOODS:
        raise ValueError(f"{owner}: distribution {name!r} is none of {', '.join(DISTRIBUTIONS)}")
    return LIKELIHOODS[name]()


LIKELIHOODS: dict[str, type[Distribution]] = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
}
DISTRIBUTIONS = ("quantiles", *LIKELIHOODS)


@functools.lru_cache(maxsize=8)
def normal_scores(count: int) -> Float64:
    """The normal quantiles of the levels (k + 1/2) / count, [count]."""
    return np.array([NormalDist().inv_cdf((k + 0.5) / count) for k in range(count)])


def stratified_normals(
    count: int, shape: tuple[int, ...], generator: np.random.Generator
) -> Float64:
    """[count, *shape] numbers; each column is a permutation of `normal_scores`.

    Every column is as a standard normal sample without its noise (Latin hypercube sampling, McKay
    et al. 1979), so that means and quantiles over few paths are close to those over many.
    """
    columns = np.broadcast_to(normal_scores(count)[:, None], (count, math.prod(shape)))
    drawn: Float64 = generator.permuted(columns, axis=0).reshape(count, *shape)
    return drawn


def _softplus(x: Array) -> Float64:
    y: Float64 = np.logaddexp(0, x.astype(np.float64))
    return y


@differentiable
@floating
def _log_gamma(x: Array, /) -> Any:
    """The logarithm of Gamma(x), x > 0: Stirling's series at x + 8, and the recurrence to x."""
    large = x + 8
    series = 1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * large**2)) / large**2) / large**2
    steps = x[..., None] + np.arange(8)
    value = (large - 0.5) * np.log(large) - large + 0.5 * math.log(2 * math.pi) + series / large

    def pullback(dy: Array) -> Array:
        inverse = 1 / large**2
        digamma = np.log(large) - 0.5 / large
        digamma -= inverse * (1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse / 240)))
        dx: Array = dy * (digamma - (1 / steps).sum(axis=-1))
        return dx.astype(x.dtype, copy=False)

    return (value - np.log(steps).sum(axis=-1)).astype(x.dtype, copy=False), pullback
