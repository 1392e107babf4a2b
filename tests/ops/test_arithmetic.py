"""Elementwise arithmetic: values against NumPy's, pullbacks against central differences."""

import math

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

UNARY = {
    "negative": (ops.negative, lambda x: -x),
    "exp": (ops.exp, math.exp),
    "log": (ops.log, math.log),
    "sqrt": (ops.sqrt, math.sqrt),
    "abs": (ops.abs, math.fabs),
    "sign": (ops.sign, lambda x: math.copysign(1, x)),
}
POSITIVE = {"log", "sqrt"}
BINARY = {
    "add": (ops.add, lambda a, b: a + b),
    "subtract": (ops.subtract, lambda a, b: a - b),
    "multiply": (ops.multiply, lambda a, b: a * b),
    "divide": (ops.divide, lambda a, b: a / b),
    "maximum": (ops.maximum, max),
    "minimum": (ops.minimum, min),
}
SHAPES = [((4, 3), (4, 3)), ((4, 3), (3,)), ((4, 1), (1, 3)), ((), (2, 3)), ((0, 3), (3,))]


def away_from_zero(rng, shape):
    return rng.uniform(0.5, 2, shape) * rng.choice([-1.0, 1.0], shape)


@pytest.mark.parametrize("shape", [(4, 3), (), (0, 3)], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, shape, rng, check_gradients):
    operation, plain = UNARY[name]
    x = np.asarray(rng.uniform(0.5, 2, shape) if name in POSITIVE else away_from_zero(rng, shape))
    expected = np.reshape([plain(value) for value in x.ravel()], shape)
    np.testing.assert_allclose(operation(Tensor(x)).data, expected, rtol=1e-14)
    check_gradients(operation, x)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_binary_operations_broadcast(name, shapes, rng, check_gradients):
    operation, plain = BINARY[name]
    a, b = (np.asarray(away_from_zero(rng, shape)) for shape in shapes)
    wide = np.broadcast_arrays(a, b)
    expected = [plain(x, y) for x, y in zip(wide[0].ravel(), wide[1].ravel(), strict=True)]
    result = operation(Tensor(a), Tensor(b)).data
    np.testing.assert_array_equal(result, np.reshape(expected, wide[0].shape))
    check_gradients(operation, a, b)


@pytest.mark.parametrize("exponent", [3, 2, 1, 0, 0.5, -1, np.float64(1.5), np.int64(2)])
def test_power(exponent, rng, check_gradients):
    x = rng.uniform(0.5, 2, (2, 3))
    check_gradients(lambda x: ops.power(x, exponent), x)
    expected = [[math.pow(value, exponent) for value in row] for row in x]
    np.testing.assert_allclose((Tensor(x) ** exponent).data, expected)


def test_power_at_zero_is_finite():
    x = Tensor([0.0, 0.0], requires_grad=True)
    (x**1 + x**2 + x**0).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("exponent", [Tensor(2.0), np.ones(2), [1, 2]])
def test_power_wants_a_number(exponent):
    with pytest.raises(TypeError, match=r"^power: the exponent must be a number.*exp\(exponent"):
        Tensor([1.0]) ** exponent


def test_a_number_to_the_power_of_a_tensor_is_an_exponential():
    with pytest.raises(TypeError, match=r"^power: the exponent must be a number.*exp\(exponent"):
        2 ** Tensor([1.0, 2.0])


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_equal_operands_share_the_gradient(name):
    a, b = Tensor([1.0, np.inf], requires_grad=True), Tensor([1.0, np.inf], requires_grad=True)
    BINARY[name][0](a, b).sum().backward()
    assert a.grad.tolist() == b.grad.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["abs", "sign"])
def test_derivative_at_zero_is_zero(name):
    x = Tensor([0.0], requires_grad=True)
    UNARY[name][0](x).sum().backward()
    assert x.grad.tolist() == [0.0]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_where(shapes, rng, check_gradients):
    a, b = (rng.standard_normal(shape) for shape in shapes)
    condition = rng.random((3,)) < 0.5
    wide = np.broadcast_arrays(a, b, condition)
    expected = [x if c else y for x, y, c in zip(*(w.ravel() for w in wide), strict=True)]
    result = ops.where(condition, Tensor(a), Tensor(b)).data
    np.testing.assert_array_equal(result, np.reshape(expected, wide[0].shape))
    check_gradients(lambda a, b: ops.where(condition, a, b), np.asarray(a), np.asarray(b))


def test_where_stops_a_gradient_that_is_not_finite():
    x = Tensor([0.0, 4.0], requires_grad=True)
    with np.errstate(divide="ignore"):
        y = ops.log(ops.where(x > 0, x, 1.0))
        y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.25]


def test_where_takes_a_tensor_as_condition():
    condition = Tensor(np.array([True, False]))
    assert ops.where(condition, 1.0, Tensor([2.0, 3.0])).data.tolist() == [1.0, 3.0]


def test_astype_converts_the_gradient_back():
    x = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = x.astype(np.float32)
    assert y.dtype == np.float32
    (y * y).sum().backward()
    assert x.grad.dtype == np.float64
    assert x.grad.tolist() == [2.0, 4.0]


def test_astype_is_for_floating_point():
    with pytest.raises(TypeError, match=r"^astype: .*floating-point.*int"):
        Tensor([1.0]).astype(int)


def test_numbers_take_the_dtype_of_the_tensor():
    x = Tensor([1.0, 2.0])
    for result in (x + 1, 1 + x, x * 2.5, 2.5 / x, x - np.float64(1), x / np.int64(3), -x, x**2):
        assert result.dtype == np.float32
    assert (x * [1.0, 2.0]).dtype == np.float32
    assert (Tensor(1.0) * 2.5 + 1).dtype == np.float32
    assert ops.exp(0.5).dtype == np.float32
    assert ops.exp(np.float64(0.5)).dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i8", "u4", "?"])
def test_arrays_take_the_dtype_of_the_tensor(dtype, kind):
    x = Tensor(np.array([1.5, 2.0], dtype), requires_grad=True)
    array = np.array([1, 0], kind)
    for result, expected in [
        (x * array, [1.5, 0]), (array * x, [1.5, 0]), (array - x, [-0.5, -2]), (x @ array, 1.5),
        (ops.multiply(array, x), [1.5, 0]), (ops.where([True, False], x, array), [1.5, 0]),
        (ops.maximum(x, array), [1.5, 2]), (ops.concatenate([array, x])[:3], [1, 0, 1.5]),
    ]:  # fmt: skip
        assert result.dtype == dtype
        np.testing.assert_array_equal(result.data, np.array(expected, dtype))
    (x * array).sum().backward()
    assert x.grad.dtype == dtype
    np.testing.assert_array_equal(x.grad, [1, 0])


@pytest.mark.parametrize("mask", [np.array([True, False]), Tensor([True, False]), [True, False]])
def test_masks_of_booleans_multiply(mask):
    x = Tensor([2.0, 3.0], requires_grad=True)
    for y in (x * mask, ops.multiply(mask, x)):
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y.data, [2, 0])
        x.grad = None
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, [1, 0])
    assert (Tensor([2, 3]) * mask).dtype == np.int64
    assert ops.multiply(np.array([True, True]), np.array([True, False])).data.tolist() == [1, 0]


def test_arrays_without_a_tensor_are_promoted_as_numpy_does():
    assert ops.add(np.ones(2), np.ones(2, np.float32)).dtype == np.float64
    assert ops.add(np.ones(2, np.float32), np.ones(2, bool)).dtype == np.float32
    assert ops.add(np.ones(2, np.float32), 1.5).dtype == np.float32


def test_arrays_that_lose_too_much_are_refused():
    x = Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"^multiply: 1e\+300 is too large for float32; scale"):
        x * np.array([1.0, 1e300])
    with pytest.raises(ValueError, match=r"^add: 1e\+300 is too large for float32; scale"):
        x + 1e300
    for array in (np.ones(2, complex), np.array([None, None]), np.array(["a", "b"])):
        with pytest.raises(
            TypeError, match=r"^multiply: cannot hold .*; give numbers of one dtype"
        ):
            x * array
    with pytest.raises(TypeError, match=r"^exp: cannot hold complex128"):
        ops.exp(np.ones(2, complex))


@pytest.mark.parametrize(
    ("x", "other"),
    [
        (Tensor([1.0, 2.0]), Tensor(np.ones(2))),
        (Tensor([1.0, 2.0]), Tensor([1])),
        (Tensor([1, 2]), np.ones(2)),
    ],
)
def test_dtypes_do_not_mix(x, other):
    message = (
        rf"^multiply: {x.dtype} and {other.dtype} do not mix; convert one of them with .astype"
    )
    with pytest.raises(TypeError, match=message):
        x * other
    with pytest.raises(TypeError, match="do not mix"):
        other * x


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        Tensor([1.0, 2.0]) + Tensor([1.0, 2.0, 3.0])


def test_a_missing_operand_is_reported():
    with pytest.raises(TypeError, match=r"maximum\(\) missing 1 required positional argument: 'b'"):
        ops.maximum(Tensor([1.0]))


INTEGERS = [[1, -2, 3], [0, 4, 2]]


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: ops.layer_norm(x),
        lambda x: ops.cross_entropy(x, [2, 0]),
        lambda x: ops.linear_cross_entropy(x, x, targets=[1, 0]),
        lambda x: ops.masked_softmax(x, [[True, True, False]] * 2),
        lambda x: ops.activation_penalty(x),
        lambda x: ops.temporal_penalty(x),
        lambda x: ops.additive_scores(ops.stack([x]), ops.stack([x]), [1, 2, 3]),
        lambda x: ops.ctc_loss(ops.stack([x, x]), [[1, 2]]),
        ops.softmax,
        ops.log_softmax,
        ops.sigmoid,
        ops.softplus,
        ops.tanh,
        ops.exp,
    ],
)
@pytest.mark.parametrize("kind", ["u1", "i8", "f8", list, Tensor])
def test_operations_that_compute_in_floats_take_integers(operation, kind):
    integers = np.abs(INTEGERS) if kind == "u1" else np.array(INTEGERS)
    expected = operation(integers.astype(np.float64)).data
    given = {list: INTEGERS, Tensor: Tensor(INTEGERS)}.get(kind)
    found = operation(integers.astype(kind) if given is None else given).data
    assert found.dtype.kind == "f"
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_dropout_of_integers():
    assert set(np.unique(ops.dropout(np.ones((100, 3), int), 0.75).data)) == {0.0, 4.0}
    assert ops.dropout([1.0, 2.0], 0).data.tolist() == [1, 2]
