"""Distributions of the next value of a forecaster: a likelihood, or quantiles."""

from __future__ import annotations

import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from anaphora import ops
from anaphora.tensor import Array, Tensor

Float64 = NDArray[np.float64]

# In units of the scale, so that the likelihood of a series without noise is finite.
SMALLEST_DEVIATION = 1e-3
SMALLEST_SHAPE = 1e-4


class Distribution(ABC):
    """A distribution with P parameters, which a network returns for each value.

    All values are in units of the window's scale.

    Attributes:
        size: P.
        location: [P] 1 for parameters that shift with the level of the series, else 0.
        counts: Whether values are counts: 0, 1, 2, ...
    """

    size: int
    location: Float64
    counts = False

    @abstractmethod
    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The loss of each target [...] for the network's outputs [..., P] and the scale [...]."""

    @abstractmethod
    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """Samples [...] for the network's outputs [..., P], from standard normal numbers [...]."""


class Gaussian(Distribution):
    """Mean and standard deviation."""

    size = 2
    location = np.array([1.0, 0.0])

    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The negative log-density."""
        deviation = ops.softplus(raw[..., 1]) + SMALLEST_DEVIATION
        return ops.gaussian_nll_loss(raw[..., 0], deviation, targets, reduction="none")

    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A value for each row."""
        values: Float64 = raw[..., 0] + (_softplus(raw[..., 1]) + SMALLEST_DEVIATION) * normal
        return values


class StudentT(Distribution):
    """Location, scale, and more than 2 degrees of freedom: heavier tails than a Gaussian."""

    size = 3
    location = np.array([1.0, 0.0, 0.0])

    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The negative log-density."""
        spread = ops.softplus(raw[..., 1]) + SMALLEST_DEVIATION
        freedom = ops.softplus(raw[..., 2]) + 2.0
        return ops.student_t_nll_loss(raw[..., 0], spread, freedom, targets, reduction="none")

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
        mean = (ops.softplus(raw[..., 0]) + SMALLEST_SHAPE) * scale
        shape = (ops.softplus(raw[..., 1]) + SMALLEST_SHAPE) / np.sqrt(scale)
        counts = np.rint(targets * scale)
        return ops.negative_binomial_nll_loss(mean, shape, counts, reduction="none")

    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A count for each row, in units of the scale."""
        size = scale.astype(np.float64)
        mean = (_softplus(raw[..., 0]) + SMALLEST_SHAPE) * size
        shape = (_softplus(raw[..., 1]) + SMALLEST_SHAPE) / np.sqrt(size)
        rates = generator.standard_gamma(1 / shape) * shape * mean
        # Diverged weights give NaN, which poisson refuses.
        counts = generator.poisson(np.nan_to_num(np.minimum(rates, 1e15)))
        values: Float64 = np.where(np.isnan(rates), np.nan, counts / size)
        return values


class Quantiles(Distribution):
    """Quantiles at given levels, trained with the pinball loss (Koenker & Bassett 1978).

    For sampling, values are interpolated and extrapolated linearly in the normal quantiles of the
    levels.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = np.array(levels, np.float64)
        self.size = len(levels)
        self.location = np.ones(self.size)
        self._normal = np.array([NormalDist().inv_cdf(level) for level in levels])

    def loss(self, raw: Tensor, targets: Array, scale: Array) -> Tensor:
        """The mean pinball loss over levels."""
        losses = ops.pinball_loss(raw, targets, self.levels.tolist(), reduction="none")
        mean: Tensor = losses.mean(axis=-1)
        return mean

    def sample(
        self, raw: Array, normal: Float64, scale: Array, generator: np.random.Generator
    ) -> Float64:
        """A value for each row."""
        values = np.sort(raw, axis=-1).astype(np.float64)
        left = np.clip(np.searchsorted(self._normal, normal) - 1, 0, self.size - 2)[..., None]
        low, high = (np.take_along_axis(values, left + k, -1)[..., 0] for k in (0, 1))
        at_low, at_high = (self._normal[left + k][..., 0] for k in (0, 1))
        sampled: Float64 = low + (high - low) * (normal - at_low) / (at_high - at_low)
        return sampled


def make_distribution(owner: str, name: str, levels: Sequence[float]) -> Distribution:
    """The distribution with a name.

    Raises:
        ValueError: the name is unknown, or the levels are not at least two increasing numbers
            between 0 and 1.
    """
    if name == "quantiles":
        increasing = all(a < b for a, b in itertools.pairwise(levels))
        if len(levels) < 2 or not increasing or not 0 < levels[0] < levels[-1] < 1:
            raise ValueError(
                f"{owner}: quantiles {list(levels)}; expected at least two increasing levels "
                "between 0 and 1, such as 0.1, 0.5, 0.9"
            )
        return Quantiles(levels)
    if name not in LIKELIHOODS:
        raise ValueError(f"{owner}: distribution {name!r} is not one of {', '.join(DISTRIBUTIONS)}")
    return LIKELIHOODS[name]()


LIKELIHOODS: dict[str, type[Distribution]] = {
    "gaussian": Gaussian,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
}
DISTRIBUTIONS = ("quantiles", *LIKELIHOODS)
COUNTS = tuple(name for name, law in LIKELIHOODS.items() if law.counts)


@functools.lru_cache(maxsize=8)
def normal_scores(count: int) -> Float64:
    """The normal quantiles of the levels (k + 1/2) / count, [count]."""
    return np.array([NormalDist().inv_cdf((k + 0.5) / count) for k in range(count)])


def stratified_normals(
    count: int, shape: tuple[int, ...], generator: np.random.Generator
) -> Float64:
    """Standard normal numbers [count, *shape] by Latin hypercube sampling (McKay et al. 1979).

    Each column is a permutation of `normal_scores`, so that means and quantiles over few paths are
    close to those over many.
    """
    columns = np.broadcast_to(normal_scores(count)[:, None], (count, math.prod(shape)))
    sampled: Float64 = generator.permuted(columns, axis=0).reshape(count, *shape)
    return sampled


def _softplus(x: Array) -> Float64:
    y: Float64 = np.logaddexp(0, x.astype(np.float64))
    return y
