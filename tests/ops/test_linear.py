"""Matrix products of vectors, matrices and batches."""

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_matmul(left, right, rng, check_gradients):
    a, b = rng.standard_normal(left), rng.standard_normal(right)
    rows = a if a.ndim > 1 else a[None]
    columns = b if b.ndim > 1 else b[:, None]
    expected = (rows[..., :, :, None] * columns[..., None, :, :]).sum(axis=-2)
    expected = expected if a.ndim > 1 else expected[..., 0, :]
    expected = expected if b.ndim > 1 else expected[..., 0]
    np.testing.assert_allclose((Tensor(a) @ Tensor(b)).data, expected, atol=1e-14)
    np.testing.assert_array_equal((a @ Tensor(b)).data, (Tensor(a) @ b).data)
    check_gradients(ops.matmul, a, b)


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (2, 3)), ((3,), (4,)), ((), (3,)), ((3,), ())], ids=str
)
def test_matmul_says_which_shapes_do_not_fit(left, right):
    with pytest.raises(ValueError, match=r"^matmul: shapes \(.*\) and \(.*\) do not match"):
        Tensor(np.ones(left)) @ Tensor(np.ones(right))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (5, 2, 3), (0, 3), (5, 0, 3)], ids=str)
def test_linear(shape, bias, rng, check_gradients):
    x, weight = rng.standard_normal(shape), rng.standard_normal((4, 3))
    b = rng.standard_normal(4) if bias else None
    expected = np.einsum("...i,oi->...o", x, weight) + (b if bias else 0)
    result = ops.linear(x, weight, b) if bias else ops.linear(x, weight)
    assert result.shape == (*shape[:-1], 4)
    np.testing.assert_allclose(result.data, expected, atol=1e-14)
    check_gradients(ops.linear, x, weight, b)


def test_linear_does_not_change_what_it_is_given(rng):
    bias = np.ones(4)
    ops.linear(np.ones((2, 3)), np.ones((4, 3)), bias)
    assert bias.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        ((2, 3), (4, 5), None, r"an input of shape \(2, 3\) for a weight of shape \(4, 5\)"),
        ((), (4, 5), None, r"an input of shape \(\) for"),
        ((2, 3), (3,), None, r"the weight is \[O, I\]"),
        ((2, 3), (4, 3), (3,), r"a bias of shape \(3,\) .* expected \(4,\)"),
        ((2, 3), (4, 3), (1,), r"a bias of shape \(1,\) .* expected \(4,\)"),
    ],
)
def test_linear_says_which_shapes_do_not_fit(x, weight, bias, message):
    arrays = [np.ones(shape) for shape in (x, weight, bias) if shape is not None]
    with pytest.raises(ValueError, match=f"^linear: .*{message}"):
        ops.linear(*arrays)
