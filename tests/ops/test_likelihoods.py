"""Negative log-likelihoods: against their textbook formulas, and as densities that sum to 1."""

import math

import numpy as np
import pytest

from anaphora import ops
from anaphora.ops.likelihoods import digamma, log_gamma
from anaphora.tensor import Tensor

SHAPE = (3, 4)


def gaussian(y, mean, deviation):
    return (2 * math.pi * deviation**2) ** -0.5 * math.exp(-(((y - mean) / deviation) ** 2) / 2)


def student_t(y, mean, scale, v):
    z = (y - mean) / scale
    factor = math.gamma((v + 1) / 2) / (math.gamma(v / 2) * math.sqrt(v * math.pi) * scale)
    return factor * (1 + z * z / v) ** (-(v + 1) / 2)


def negative_binomial(y, mean, dispersion):
    r = 1 / dispersion
    p = 1 / (1 + dispersion * mean)
    return math.gamma(y + r) / (math.gamma(y + 1) * math.gamma(r)) * p**r * (1 - p) ** y


LOSSES = {
    "gaussian": (ops.gaussian_nll_loss, gaussian, 1, False),
    "student_t": (ops.student_t_nll_loss, student_t, 2, False),
    "negative_binomial": (ops.negative_binomial_nll_loss, negative_binomial, 1, True),
}


@pytest.fixture(params=LOSSES)
def case(request, rng):
    """The loss, the density, parameters and targets."""
    loss, density, positive, counts = LOSSES[request.param]
    mean = rng.uniform(0.5, 5, SHAPE) if counts else rng.standard_normal(SHAPE)
    others = [rng.uniform(0.2, 3, SHAPE) for _ in range(positive)]
    targets = rng.poisson(3, SHAPE) if counts else mean + 2 * rng.standard_normal(SHAPE)
    return loss, density, [mean, *others], targets


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_is_the_density(case, masked, reduction, rng, check_gradients):
    loss, density, parameters, targets = case
    where = rng.uniform(0, 1, SHAPE) > 0.4 if masked else np.ones(SHAPE, bool)
    losses = np.zeros(SHAPE)
    for k in np.ndindex(SHAPE):
        if where[k]:
            losses[k] = -math.log(density(targets[k], *(p[k] for p in parameters)))
    expected = {"mean": losses.sum() / where.sum(), "sum": losses.sum(), "none": losses}[reduction]
    options = {"reduction": reduction, "where": where if masked else None}
    given = targets.astype(float)
    given[~where] = np.nan
    np.testing.assert_allclose(loss(*parameters, given, **options).data, expected, rtol=1e-12)
    check_gradients(lambda *p: loss(*p, given, **options), *parameters)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_parameters(case, dtype):
    loss, _, parameters, targets = case
    tensors = [Tensor(p.astype(dtype), requires_grad=True) for p in parameters]
    value = loss(*tensors, targets.tolist())
    assert value.dtype == dtype
    np.testing.assert_allclose(value.data, loss(*parameters, targets).data, rtol=1e-5)
    value.backward()
    assert all(t.grad.dtype == dtype for t in tensors)
    mixed = loss(parameters[0].tolist(), *tensors[1:], targets)  # plain numbers adopt the dtype
    assert mixed.dtype == dtype


def test_what_does_not_count_is_not_read(case):
    loss, _, parameters, targets = case
    spoilt = [p.copy() for p in parameters]
    for p in spoilt:
        p[1] = np.nan
    spoilt[-1][2] = -1
    tensors = [Tensor(p, requires_grad=True) for p in spoilt]
    value = loss(*tensors, targets, where=[[True], [False], [False]])
    value.backward()
    np.testing.assert_allclose(value.data, loss(*(p[0] for p in parameters), targets[0]).data)
    for t in tensors:
        assert (t.grad[0] != 0).all()
        assert not t.grad[1:].any()


def test_probabilities_of_counts_sum_to_1_with_mean_and_variance():
    mean, dispersion = 2.5, 0.7
    y = np.arange(400)
    losses = ops.negative_binomial_nll_loss(
        np.full(400, mean), np.full(400, dispersion), y, reduction="none"
    )
    p = np.exp(-losses.data)
    assert p.sum() == pytest.approx(1, rel=1e-12)
    assert (y * p).sum() == pytest.approx(mean, rel=1e-12)
    assert ((y - mean) ** 2 * p).sum() == pytest.approx(mean + dispersion * mean**2, rel=1e-10)


def test_many_degrees_of_freedom_are_a_normal_distribution(rng):
    mean, scale, y = rng.standard_normal(5), rng.uniform(0.5, 2, 5), rng.standard_normal(5)
    many = ops.student_t_nll_loss(mean, scale, np.full(5, 1e8), y, reduction="none").data
    normal = ops.gaussian_nll_loss(mean, scale, y, reduction="none").data
    np.testing.assert_allclose(many, normal, rtol=1e-6)


def test_little_dispersion_is_a_poisson_distribution():
    y = np.arange(8)
    found = ops.negative_binomial_nll_loss(
        np.full(8, 3.0), np.full(8, 1e-6), y, reduction="none"
    ).data
    poisson = [3 - k * math.log(3) + math.lgamma(k + 1) for k in y]
    np.testing.assert_allclose(found, poisson, rtol=1e-5)


def test_gamma_functions():
    x = np.concatenate([np.geomspace(1e-8, 1e8, 1000), np.linspace(0.1, 12, 500)])
    expected = np.array([math.lgamma(v) for v in x])
    np.testing.assert_allclose(log_gamma(x), expected, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(digamma(x), digamma(x + 1) - 1 / x, rtol=1e-14, atol=1e-14)
    x = np.linspace(0.5, 20, 50)
    numeric = (log_gamma(x + 1e-5) - log_gamma(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(digamma(x), numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.gaussian_nll_loss([1.0], [1.0, 2.0], [1.0]),
            r"gaussian_nll_loss: a deviation of shape \(2,\) for targets of shape \(1,\)",
        ),
        (
            lambda: ops.gaussian_nll_loss([1.0], [0.0], [1.0]),
            r"gaussian_nll_loss: a deviation of 0\.0; it must be above 0, such as ops\.softplus",
        ),
        (
            lambda: ops.student_t_nll_loss([1.0], [1.0], [-2.0], [1.0]),
            r"student_t_nll_loss: a degrees_of_freedom of -2\.0; it must be above 0",
        ),
        (
            lambda: ops.negative_binomial_nll_loss([0.0], [1.0], [1]),
            r"negative_binomial_nll_loss: a mean of 0\.0; it must be above 0",
        ),
        (
            lambda: ops.negative_binomial_nll_loss([1.0], [1.0], [1.5]),
            r"negative_binomial_nll_loss: target 1\.5 is not a count",
        ),
        (
            lambda: ops.negative_binomial_nll_loss([1.0], [1.0], [-1]),
            r"negative_binomial_nll_loss: target -1\.0 is not a count",
        ),
        (
            lambda: ops.gaussian_nll_loss([1.0], [1.0], [1.0], reduction="all"),
            "gaussian_nll_loss: reduction 'all' is not one of",
        ),
    ],
)
def test_wrong_parameters_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
