"""Activations, far from zero too."""

import math

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

ACTIVATIONS = {
    "sigmoid": (ops.sigmoid, lambda x: math.exp(x) / (math.exp(x) + 1)),
    "tanh": (ops.tanh, math.tanh),
    "relu": (ops.relu, lambda x: x if x > 0 else 0.0),
    "softplus": (ops.softplus, lambda x: math.log(1 + math.exp(x))),
}


@pytest.mark.parametrize("shape", [(5, 3), (), (0, 3)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_elementwise(name, shape, rng, check_gradients):
    operation, plain = ACTIVATIONS[name]
    x = np.asarray(2 * rng.standard_normal(shape))
    expected = np.reshape([plain(value) for value in x.ravel()], shape)
    np.testing.assert_allclose(operation(Tensor(x)).data, expected, rtol=1e-14)
    check_gradients(operation, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows(dtype):
    x = Tensor(np.array([-1e4, 0, 1e4], dtype), requires_grad=True)
    assert ops.sigmoid(x).data.tolist() == [0, 0.5, 1]
    assert ops.softplus(x).data.tolist() == [0, dtype(math.log(2)), 1e4]
    assert ops.softmax(x).data.tolist() == [0, 0, 1]
    assert ops.log_softmax(x).data.tolist() == [-2e4, -1e4, 0]
    for operation in (ops.sigmoid, ops.softplus, ops.tanh, ops.softmax, ops.log_softmax):
        operation(x).sum().backward()
    assert np.isfinite(x.grad).all()


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
