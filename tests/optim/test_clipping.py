"""Clipping gradients: exact values, in place, rows among them."""

import math

import numpy as np
import pytest

from anaphora.optim import clip_grad_norm, clip_grad_value, gradient_norms
from anaphora.tensor import Parameter, RowGradient


def with_gradients(*gradients):
    """A parameter for each gradient."""
    parameters = []
    for gradient in gradients:
        shape = (1,) if gradient is None else gradient.shape
        parameters.append(Parameter(np.zeros(shape)))
        parameters[-1].grad = gradient
    return parameters


def rows(ids, values, table_rows=10):
    values = np.array(values)
    return RowGradient(np.array(ids), values, (table_rows, *values.shape[1:]))


def test_the_norm_is_that_of_all_gradients_together():
    dense, table = np.array([1.0, 2.0]), rows([7, 2], [[2.0], [4.0]])
    parameters = with_gradients(dense, None, table)
    assert clip_grad_norm(parameters, 5.0) == 5.0
    coefficient = 5.0 / (5.0 + 1e-6)  # PyTorch's: a norm at the limit shrinks a little
    assert dense.tolist() == [1 * coefficient, 2 * coefficient]
    assert table.indices.tolist() == [2, 7]
    assert table.values.tolist() == [[4 * coefficient], [2 * coefficient]]
    assert parameters[0].grad is dense, "in place"
    assert parameters[1].grad is None
    assert parameters[2].grad is table


def test_a_norm_below_the_limit_changes_nothing():
    gradient = np.array([3.0, 4.0], np.float32)
    for limit in (5.1, math.inf):
        assert clip_grad_norm(with_gradients(gradient), limit) == 5.0
        assert gradient.tolist() == [3.0, 4.0]


def test_rows_are_clipped_as_their_dense_table_is():
    table = rows([3, 1, 3], np.random.default_rng(0).standard_normal((3, 4)))
    dense = table.dense()
    norms = [clip_grad_norm(with_gradients(g), 0.1) for g in (table, dense)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-15)
    np.testing.assert_allclose(norms[0], np.linalg.norm(dense) * norms[0] / 0.1, rtol=1e-5)
    np.testing.assert_allclose(table.dense(), dense, rtol=1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_norm_that_is_not_finite_is_returned_and_changes_nothing(bad, dtype):
    fine, broken = np.array([30.0], dtype), np.array([bad, 1.0], dtype)
    norm = clip_grad_norm(with_gradients(fine, broken), 1.0)
    assert not math.isfinite(norm)
    assert math.isnan(norm) == math.isnan(bad)
    assert fine[0] == 30
    assert broken[1] == 1


def test_float32_neither_overflows_nor_loses_small_terms():
    large = np.full(4, 1e30, np.float32)
    assert math.isclose(clip_grad_norm(with_gradients(large), 2.0), 2e30, rel_tol=1e-6)
    np.testing.assert_allclose(large, 1.0, rtol=1e-6)
    assert large.dtype == np.float32
    many = np.full((3000, 700), 1e-3, np.float32)  # a running float32 sum would stall
    expected = np.float64(np.float32(1e-3)) * math.sqrt(many.size)
    assert math.isclose(clip_grad_norm(with_gradients(many), 100.0), expected, rel_tol=1e-12)


def test_without_gradients_the_norm_is_zero():
    assert clip_grad_norm(with_gradients(None, np.zeros((0, 3))), 1.0) == 0.0


def test_a_gradient_in_any_layout_is_clipped_in_place():
    gradient = np.arange(6.0).reshape(2, 3).T[::-1]
    expected = gradient / (np.linalg.norm(gradient) + 1e-6)
    clip_grad_norm(with_gradients(gradient), 1.0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_that_is_read_only_is_replaced(rng, dtype):
    """By the bits that it would have in place."""
    gradient = rng.normal(size=(3, 5)).astype(dtype)
    for clip, limit in ((clip_grad_norm, 0.3), (clip_grad_value, 0.3)):
        given = gradient.copy()
        given.flags.writeable = False
        (one,), (other,) = with_gradients(gradient.copy()), with_gradients(given)
        assert clip([one], limit) == clip([other], limit)
        assert given.tobytes() == gradient.tobytes() != other.grad.tobytes()
        assert one.grad.tobytes() == other.grad.tobytes()
        assert other.grad.dtype == dtype


def test_a_gradient_without_axes_is_clipped():
    for scalar in (np.float32(-8.0), np.array(-8.0, np.float32)):
        (parameter,) = with_gradients(scalar)
        assert clip_grad_norm([parameter], 2.0) == 8.0
        np.testing.assert_allclose(parameter.grad, -2.0, rtol=1e-6)
        clip_grad_value([parameter], 0.5)
        assert parameter.grad == -0.5
        assert parameter.grad.dtype == np.float32


def test_values_are_clipped_element_by_element():
    dense, table = np.array([0.5, -3.0, 1.0], np.float32), rows([4], [[9.0, -0.25]])
    clip_grad_value(zip("abc", with_gradients(dense, None, table), strict=True), 1)
    assert dense.tolist() == [0.5, -1.0, 1.0]
    assert table.values.tolist() == [[1.0, -0.25]]


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, "5"])
def test_a_bad_limit_is_reported(limit):
    parameters = with_gradients(np.ones(1))
    with pytest.raises(ValueError, match="clip_grad_norm: max_norm must be a number > 0, not"):
        clip_grad_norm(parameters, limit)
    with pytest.raises(ValueError, match="clip_grad_value: limit must be a number > 0, not"):
        clip_grad_value(parameters, limit)


def test_bad_parameters_are_reported():
    (parameter,) = with_gradients(np.ones(1))
    with pytest.raises(ValueError, match="clip_grad_norm: parameter '1' is the same as '0'"):
        clip_grad_norm([parameter, parameter], 1.0)
    with pytest.raises(ValueError, match="clip_grad_value: there are no parameters"):
        clip_grad_value(iter(()), 1.0)


def test_the_norms_of_gradients_are_found_by_name():
    weight, table, other = Parameter([3.0, 4.0]), Parameter(np.ones((4, 2), "f")), Parameter([1.0])
    (weight * [3.0, 4.0]).sum().backward()
    table.grad = RowGradient(np.array([2, 2]), np.full((2, 2), 1.0, "f"), (4, 2))
    named = [("weight", weight), ("table", table), ("other", other)]
    norms = gradient_norms(named)
    assert list(norms) == ["weight", "table"]
    np.testing.assert_allclose([norms["weight"], norms["table"]], [5, np.sqrt(8)], rtol=1e-6)
    np.testing.assert_allclose(
        np.sqrt(sum(n * n for n in norms.values())),
        clip_grad_norm([weight, table, other], np.inf),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(weight.grad, [3, 4])
