"""Sums, means and maxima along every axis."""

import math

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

AXES = [None, 0, 1, -1, (0, 2), (0, 1, 2)]


def plain(values, name):
    return {"sum": math.fsum(values), "mean": math.fsum(values) / len(values), "max": max(values)}[
        name
    ]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_reduction(name, axis, keepdims, rng, check_gradients):
    x = rng.standard_normal((2, 3, 4))
    axes = tuple(range(3)) if axis is None else axis if isinstance(axis, tuple) else (axis % 3,)
    kept = [a for a in range(3) if a not in axes]
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    expected = np.apply_along_axis(lambda row: plain(row.tolist(), name), -1, rows)
    if keepdims:
        expected = np.expand_dims(expected, axes)
    result = getattr(Tensor(x), name)(axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(result.data, expected, rtol=1e-13)
    assert result.shape == expected.shape
    check_gradients(lambda x: getattr(ops, name)(x, axis, keepdims), x)


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_of_a_single_number(name, check_gradients):
    check_gradients(getattr(ops, name), np.array(2.0))


def test_equal_maxima_share_the_gradient():
    x = Tensor([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    (x.max(axis=1) * [2.0, 3.0]).sum().backward()
    assert x.grad.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_of_nothing(check_gradients):
    assert Tensor(np.zeros((0, 3))).sum().item() == 0
    assert Tensor(np.zeros((0, 3))).sum(axis=0).data.tolist() == [0, 0, 0]
    check_gradients(ops.sum, np.zeros((0, 3)))
    check_gradients(lambda x: ops.mean(x, 1), np.zeros((0, 3)))
    check_gradients(lambda x: ops.max(x, 1), np.zeros((0, 3)))
    for axis in (None, 0):
        with pytest.raises(ValueError, match=r"^mean: an array of shape \(0, 3\) has no elements"):
            Tensor(np.zeros((0, 3))).mean(axis=axis)
    with pytest.raises(ValueError, match="zero-size array"):
        Tensor(np.zeros((0, 3))).max()


def test_an_axis_that_is_not_there():
    with pytest.raises(np.exceptions.AxisError, match="axis 2"):
        Tensor([[1.0]]).sum(axis=2)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cosine_similarity(axis, rng, check_gradients):
    x, y = rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 4))
    full = np.broadcast_to(y, x.shape)
    expected = (x * full).sum(axis) / np.sqrt((x**2).sum(axis) * (full**2).sum(axis))
    if axis:
        result = ops.cosine_similarity(Tensor(x), Tensor(y), axis - 3 if axis > 0 else axis)
        np.testing.assert_allclose(result.data, expected, rtol=1e-13)
        check_gradients(lambda x, y: ops.cosine_similarity(x, y, -1), x, y)
    result = ops.cosine_similarity(Tensor(x), Tensor(full), axis)
    np.testing.assert_allclose(result.data, expected, rtol=1e-13)
    zeros = ops.cosine_similarity(Tensor(np.zeros((2, 3)), requires_grad=True), np.ones((2, 3)))
    assert zeros.data.tolist() == [0, 0]
    zeros.sum().backward()
