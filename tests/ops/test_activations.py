"""Activations, far from zero too."""

import math
import statistics

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

ACTIVATIONS = {
    "sigmoid": (ops.sigmoid, lambda x: math.exp(x) / (math.exp(x) + 1)),
    "tanh": (ops.tanh, math.tanh),
    "relu": (ops.relu, lambda x: x if x > 0 else 0.0),
    "softplus": (ops.softplus, lambda x: math.log(1 + math.exp(x))),
    "silu": (ops.silu, lambda x: x / (1 + math.exp(-x))),
    "erf": (ops.erf, math.erf),
    "gelu": (ops.gelu, lambda x: x * statistics.NormalDist().cdf(x)),
    "gelu, tanh": (
        lambda x: ops.gelu(x, approximate="tanh"),
        lambda x: x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "elu": (ops.elu, lambda x: x if x > 0 else math.exp(x) - 1),
    "elu, alpha": (lambda x: ops.elu(x, 0.3), lambda x: x if x > 0 else 0.3 * (math.exp(x) - 1)),
    "leaky_relu": (ops.leaky_relu, lambda x: x if x > 0 else 0.01 * x),
    "leaky_relu, slope": (lambda x: ops.leaky_relu(x, 0.3), lambda x: x if x > 0 else 0.3 * x),
}


@pytest.mark.parametrize("shape", [(5, 3), (), (0, 3)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_elementwise(name, shape, rng, check_gradients):
    operation, plain = ACTIVATIONS[name]
    x = np.asarray(2 * rng.standard_normal(shape))
    expected = np.reshape([plain(value) for value in x.ravel()], shape)
    np.testing.assert_allclose(operation(Tensor(x)).data, expected, rtol=2e-13)
    check_gradients(operation, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows(dtype):
    x = Tensor(np.array([-1e4, 0, 1e4], dtype), requires_grad=True)
    assert ops.sigmoid(x).data.tolist() == [0, 0.5, 1]
    assert ops.softplus(x).data.tolist() == [0, dtype(math.log(2)), 1e4]
    assert ops.softmax(x).data.tolist() == [0, 0, 1]
    assert ops.log_softmax(x).data.tolist() == [-2e4, -1e4, 0]
    assert ops.silu(x).data.tolist() == ops.gelu(x).data.tolist() == [0, 0, 1e4]
    assert ops.gelu(x, "tanh").data.tolist() == [0, 0, 1e4]
    assert ops.elu(x).data.tolist() == [-1, 0, 1e4]
    for operation in (ops.silu, ops.gelu, lambda x: ops.gelu(x, "tanh"), ops.elu, ops.leaky_relu):
        operation(x).sum().backward()
    for operation in (ops.sigmoid, ops.softplus, ops.tanh, ops.softmax, ops.log_softmax):
        operation(x).sum().backward()
    assert np.isfinite(x.grad).all()


def test_glu_is_one_half_gated_by_the_other(rng, check_gradients):
    x = rng.standard_normal((3, 4, 5))
    expected = x[:, :2] / (1 + np.exp(-x[:, 2:]))
    np.testing.assert_allclose(ops.glu(Tensor(x), axis=1).data, expected, rtol=1e-13)
    check_gradients(lambda x: ops.glu(x, 1), x)
    with pytest.raises(ValueError, match="split"):
        ops.glu(Tensor(x))


def test_relu_has_derivative_zero_at_zero():
    x = Tensor([-1.0, 0.0, 2.0], requires_grad=True)
    ops.relu(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax_and_its_logarithm(axis, rng, check_gradients):
    x = rng.standard_normal((2, 3, 4))
    exponentials = np.exp(x)
    expected = exponentials / exponentials.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(ops.softmax(Tensor(x), axis=axis).data, expected, rtol=1e-13)
    np.testing.assert_allclose(ops.log_softmax(Tensor(x), axis).data, np.log(expected), rtol=1e-12)
    check_gradients(lambda x: ops.softmax(x, axis), x)
    check_gradients(lambda x: ops.log_softmax(x, axis), x)


def test_softmax_of_masked_scores():
    x = Tensor([0.0, -np.inf, 0.0], requires_grad=True)
    y = ops.softmax(x)
    assert y.data.tolist() == [0.5, 0, 0.5]
    (y * [1.0, 2.0, 3.0]).sum().backward()
    assert x.grad.tolist() == [-0.5, 0, 0.5]


def test_softmax_of_no_rows(check_gradients):
    check_gradients(ops.softmax, np.zeros((0, 3)))
    check_gradients(ops.log_softmax, np.zeros((0, 3)))


def test_at_zero_the_rectifiers_have_the_derivative_from_the_left():
    x = Tensor([0.0], requires_grad=True)
    (ops.elu(x, 0.5) + ops.leaky_relu(x, 0.25)).sum().backward()
    assert x.grad.tolist() == [0.75]


def test_gelu_has_one_approximation():
    with pytest.raises(ValueError, match=r"^gelu: approximate must be 'none' or 'tanh', not 'fa"):
        ops.gelu(Tensor([1.0]), approximate="fast")


@pytest.mark.parametrize("name", ["silu", "gelu", "elu", "leaky_relu"])
def test_nan_stays(name):
    x = Tensor([np.nan, 1.0], requires_grad=True)
    y = getattr(ops, name)(x)
    assert np.isnan(y.data).tolist() == [True, False]
