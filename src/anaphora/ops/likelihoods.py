"""Negative log-likelihoods of numbers under distributions whose parameters a network gives.

DeepAR trains on them (Salinas et al. 2020, DeepAR: probabilistic forecasting with autoregressive
recurrent networks). All are in nats, with their constants, so that distributions can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import foreign_names
from anaphora.ops.losses import (
    as_floats,
    as_targets,
    counted_elements,
    only_counted,
    reduce_losses,
)
from anaphora.tensor import Array, Input, Operand, Tensor, as_tensor, differentiable, floating


@differentiable
@floating
def _gaussian(mean: Input, deviation: Input, /, targets: Input) -> Any:
    z = (targets - mean) / deviation
    constant = mean.dtype.type(0.5 * math.log(2 * math.pi))
    losses = constant + np.log(deviation) + mean.dtype.type(0.5) * z * z
    return losses, (lambda dy: -dy * z / deviation, lambda dy: dy * (1 - z * z) / deviation)


@foreign_names.arguments_checked
def gaussian_nll_loss(
    mean: Operand,
    deviation: Operand,
    targets: Operand,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-density of the targets under normal distributions.

        loss = log(deviation) + ((target - mean) / deviation)**2 / 2 + log(2 pi) / 2

    PyTorch's takes the variance, and omits the constant.

    Args:
        mean: [...].
        deviation: [...] above 0, such as ``ops.softplus(x) + 1e-6``.
        targets: [...].
        where: Booleans, broadcast to [...]: False where a target does not count (it is not read).
        reduction: "mean" over the targets that count (0 if none does), "sum", or "none": [...].

    Raises:
        ValueError: shapes do not match, a deviation is not above 0, or the reduction is unknown.

    >>> gaussian_nll_loss([0.0], [1.0], [0.0]).item()
    0.918938...
    """
    name = "gaussian_nll_loss"
    (m, d), y, counted = _checked(name, {"mean": mean, "deviation": deviation}, targets, where)
    losses = only_counted(_gaussian(m, d, targets=y), counted)
    return reduce_losses(name, losses, counted, reduction)


@differentiable
@floating
def _student_t(mean: Input, scale: Input, degrees: Input, /, targets: Input) -> Any:
    dtype = mean.dtype
    m, s, v = (a.astype(np.float64) for a in (mean, scale, degrees))
    z = (targets - m) / s
    squares = z * z
    log1p = np.log1p(squares / v)
    losses = log_gamma(v / 2) - log_gamma((v + 1) / 2) + 0.5 * np.log(v * math.pi)
    losses += np.log(s) + (v + 1) / 2 * log1p
    pull = (v + 1) / (v + squares)  # how hard a target pulls, relative to the normal distribution

    def d_degrees(dy: Array) -> Any:
        d = digamma(v / 2) - digamma((v + 1) / 2) + 1 / v + log1p - pull * squares / v
        return (dy * 0.5 * d).astype(dtype)

    return losses.astype(dtype), (
        lambda dy: (-dy * pull * z / s).astype(dtype),
        lambda dy: (dy * (1 - pull * squares) / s).astype(dtype),
        d_degrees,
    )


@foreign_names.arguments_checked
def student_t_nll_loss(
    mean: Operand,
    scale: Operand,
    degrees_of_freedom: Operand,
    targets: Operand,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-density of the targets under Student's t distributions, shifted and scaled.

        z = (target - mean) / scale,  v: degrees_of_freedom
        loss = log(scale) + (v + 1) / 2 * log(1 + z**2 / v) + log(pi v) / 2
               + log gamma(v / 2) - log gamma((v + 1) / 2)

    Its tails are heavy: outliers pull less than with `gaussian_nll_loss`, the limit for many
    degrees of freedom. Computed in float64.

    Args:
        mean: [...] the location; the mean if v > 1.
        scale: [...] above 0, such as ``ops.softplus(x) + 1e-6``.
        degrees_of_freedom: [...] above 0; ``ops.softplus(x) + 2`` has a finite variance.
        targets: [...].
        where: As in `gaussian_nll_loss`.
        reduction: As in `gaussian_nll_loss`.

    Raises:
        ValueError: shapes do not match, a scale or the degrees are not above 0, or the reduction
            is unknown.

    >>> student_t_nll_loss([0.0], [1.0], [1.0], [0.0]).item()  # log pi
    1.144729...
    """
    name = "student_t_nll_loss"
    given = {"mean": mean, "scale": scale, "degrees_of_freedom": degrees_of_freedom}
    (m, s, v), y, counted = _checked(name, given, targets, where)
    losses = only_counted(_student_t(m, s, v, targets=y), counted)
    return reduce_losses(name, losses, counted, reduction)


@differentiable
@floating
def _negative_binomial(mean: Input, dispersion: Input, /, targets: Input) -> Any:
    dtype = mean.dtype
    m, a, y = (x.astype(np.float64) for x in (mean, dispersion, targets))
    r = 1 / a
    log1p = np.log1p(a * m)
    losses = log_gamma(y + 1) + log_gamma(r) - log_gamma(y + r) + (r + y) * log1p
    losses -= y * np.log(a * m)
    excess = (m - y) / (1 + a * m)

    def d_dispersion(dy: Array) -> Any:
        d = r * r * (digamma(y + r) - digamma(r) - log1p) + r * excess
        return (dy * d).astype(dtype)

    return losses.astype(dtype), (lambda dy: (dy * excess / m).astype(dtype), d_dispersion)


@foreign_names.arguments_checked
def negative_binomial_nll_loss(
    mean: Operand,
    dispersion: Operand,
    targets: Operand,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log-probability of counts under negative binomial distributions.

        r = 1 / dispersion
        p = gamma(y + r) / (gamma(y + 1) gamma(r)) * (1 + dispersion mean)**-r
            * (dispersion mean / (1 + dispersion mean))**y

    The variance is ``mean + dispersion * mean**2``; the parameters are DeepAR's (Salinas et al.
    2020). Computed in float64.

    Args:
        mean: [...] above 0, such as ``ops.softplus(x) + 1e-6``.
        dispersion: [...] above 0; below 1e-6 its gradient loses precision.
        targets: [...] counts: 0, 1, 2, ...
        where: As in `gaussian_nll_loss`.
        reduction: As in `gaussian_nll_loss`.

    Raises:
        ValueError: shapes do not match, a parameter is not above 0, a target is not a count, or
            the reduction is unknown.

    >>> negative_binomial_nll_loss([1.0], [1.0], [0]).item()  # log 2
    0.693147...
    """
    name = "negative_binomial_nll_loss"
    given = {"mean": mean, "dispersion": dispersion}
    (m, a), y, counted = _checked(name, given, targets, where, real=())
    wrong = (y < 0) | (y != np.floor(y))
    if wrong.any():
        raise ValueError(f"{name}: target {y[wrong][0]} is not a count (0, 1, 2, ...)")
    losses = only_counted(_negative_binomial(m, a, targets=y), counted)
    return reduce_losses(name, losses, counted, reduction)


def _checked(
    name: str,
    given: dict[str, Any],
    targets: Any,
    where: ArrayLike | None,
    real: Collection[str] = ("mean",),
) -> tuple[list[Tensor], Array, NDArray[np.bool_] | None]:
    """Parameters, targets and which count; 1 and 0 replace those that do not.

    Parameters are positive, except those that may be any real number.
    """
    shape = np.shape(targets)
    counted = counted_elements(name, where, shape)
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    dtype = as_floats(name, (tensors or list(given.values()))[0]).dtype
    parameters = []
    for argument, value in given.items():
        tensor = as_floats(name, as_tensor(value, dtype, name))
        if tensor.shape != shape:
            raise ValueError(
                f"{name}: a {argument} of shape {tensor.shape} for targets of shape {shape}"
            )
        tensor = only_counted(tensor, counted, 1.0)
        if argument not in real and (tensor.data <= 0).any():
            raise ValueError(
                f"{name}: a {argument} of {tensor.data.min()}; it must be above 0, such as "
                "ops.softplus(x) + 1e-6"
            )
        parameters.append(tensor)
    return parameters, as_targets(name, targets, dtype, counted), counted


# The logarithm of the gamma function and its derivative, by Stirling's series for x > 8; smaller x
# are shifted by the recurrence gamma(x + 1) = x gamma(x).
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_SHIFT = 8


def log_gamma(x: Array) -> NDArray[np.float64]:
    """The logarithm of the gamma function of x > 0, in float64.

    >>> log_gamma(np.array([1.0, 5.0])).round(12)  # of 0! and 4!
    array([0.        , 3.17805383])
    """
    shifted, product = _shifted(x)
    series = np.zeros_like(shifted)
    for k in reversed(range(len(_STIRLING))):
        series = series / (shifted * shifted) + _STIRLING[k]
    stirling = (shifted - 0.5) * np.log(shifted) - shifted + 0.5 * math.log(2 * math.pi)
    return np.asarray(stirling + series / shifted - np.log(product))


def digamma(x: Array) -> NDArray[np.float64]:
    """The derivative of `log_gamma`.

    >>> digamma(np.array([1.0])).round(6)  # less Euler's constant
    array([-0.577216])
    """
    shifted, _ = _shifted(x)
    series = np.zeros_like(shifted)
    for k in reversed(range(len(_STIRLING))):
        series = series / (shifted * shifted) + (2 * k + 1) * _STIRLING[k]
    total = np.log(shifted) - 0.5 / shifted - series / (shifted * shifted)
    small = x < _SHIFT
    for k in range(_SHIFT):
        total = total - np.where(small, 1 / (x + k), 0)
    return np.asarray(total)


def _shifted(x: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`x + 8` and `x (x + 1) ... (x + 7)` where x is below 8; elsewhere x and 1."""
    x = np.asarray(x, np.float64)
    small = x < _SHIFT
    product = np.ones_like(x)
    for k in range(_SHIFT):
        product = np.where(small, product * (x + k), product)
    return np.where(small, x + _SHIFT, x), product
