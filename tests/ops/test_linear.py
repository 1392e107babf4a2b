"""Matrix products of vectors, matrices and batches."""

import numpy as np
import pytest

from anaphora import matmul_precision, ops
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


def assert_precise(found, expected, in_float32):
    """It is what was computed by hand, up to the order of sums, and not that of float32."""
    assert found.dtype == np.float32
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale)
    assert np.abs(expected - in_float32).max() > 1e-4 * scale


def test_linear_in_bfloat16(rng, nearest_bfloat16):
    x, weight, bias, dy = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((5, 2, 33), (21, 33), (21,), (5, 2, 21))
    )
    tensors = [Tensor(array, requires_grad=True) for array in (x, weight, bias)]
    with matmul_precision("bfloat16"):
        y = ops.linear(*tensors)
    y.backward(dy)  # in the precision of its forward pass
    rx, rw, rdy = (nearest_bfloat16(a).astype(np.float64) for a in (x, weight, dy))
    rows, d_rows = x.reshape(10, 33), dy.reshape(10, 21)
    r_rows, rd_rows = rx.reshape(10, 33), rdy.reshape(10, 21)
    assert_precise(y.data, rx @ rw.T + bias, x @ weight.T + bias)
    d_x, d_weight, d_bias = (tensor.grad for tensor in tensors)
    assert_precise(d_x, rdy @ rw, dy @ weight)
    assert_precise(d_weight, rd_rows.T @ r_rows, d_rows.T @ rows)
    np.testing.assert_allclose(d_bias, d_rows.sum(axis=0), rtol=1e-5)  # no product: no rounding


@pytest.mark.parametrize(
    ("left", "right"),
    [((7, 33), (33, 9)), ((4, 7, 33), (4, 33, 9)), ((4, 7, 33), (33, 9))],
    ids=str,
)
def test_matmul_in_bfloat16(left, right, rng, nearest_bfloat16):
    a, b = rng.standard_normal(left).astype("f"), rng.standard_normal(right).astype("f")
    tensors = [Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)]
    with matmul_precision("bfloat16"):
        y = ops.matmul(*tensors)
    dy = rng.standard_normal(y.shape).astype("f")
    with matmul_precision("float32"):
        y.backward(dy)

    def by_hand(a, b, dy):
        d_b = a.swapaxes(-1, -2) @ dy
        return a @ b, dy @ b.swapaxes(-1, -2), d_b if b.ndim == d_b.ndim else d_b.sum(axis=0)

    rounded = (nearest_bfloat16(array).astype(np.float64) for array in (a, b, dy))
    found = y.data, *(tensor.grad for tensor in tensors)
    for one, expected, other in zip(found, by_hand(*rounded), by_hand(a, b, dy), strict=True):
        assert_precise(one, expected, other)
