"""Operations with NumPy's names: values beside NumPy's, pullbacks beside central differences."""

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

INDICES = np.array([[[1, -1, 0, 1]], [[0, 0, 1, 1]]])  # [2, 1, 4], one of them twice
MASK = np.arange(12).reshape(3, 4) % 5 == 0


# By name: the options, in a form for both; and NumPy's function if its name is another.
REDUCTIONS = [{}, {"axis": 0}, {"axis": -2}, {"axis": (0, -1)}, {"axis": 1, "keepdims": True}]
ONE_AXIS = [{}, {"axis": 0}, {"axis": -2}]
CASES = {
    "sin": (np.sin, [{}]),
    "cos": (np.cos, [{}]),
    "floor": (np.floor, [{}]),
    "ceil": (np.ceil, [{}]),
    "round": (np.round, [{}, {"decimals": 1}]),
    "clip": (np.clip, [{"min": -0.5}, {"max": 0.3}, {"min": -0.5, "max": 0.3}, {}]),
    "min": (np.min, REDUCTIONS),
    "max": (np.max, REDUCTIONS),
    "prod": (np.prod, REDUCTIONS),
    "var": (np.var, [*REDUCTIONS, {"ddof": 1}, {"axis": 0, "ddof": 1}]),
    "std": (np.std, [*REDUCTIONS, {"axis": -1, "ddof": 1}]),
    "norm": (
        np.linalg.vector_norm,
        [*REDUCTIONS, *({"ord": p, "axis": 1} for p in (1, 2.5, np.inf)), {"ord": 1}, {"ord": 3}],
    ),
    "logsumexp": (
        lambda x, axis=None, keepdims=False: np.log(np.sum(np.exp(x), axis, keepdims=keepdims)),
        REDUCTIONS,
    ),
    "cumsum": (np.cumsum, ONE_AXIS),
    "sort": (np.sort, [*ONE_AXIS, {"axis": None}]),
    "squeeze": (np.squeeze, [{}]),
    "expand_dims": (np.expand_dims, [{"axis": 0}, {"axis": -1}, {"axis": (0, 2)}]),
    "swapaxes": (np.swapaxes, [{"axis1": 0, "axis2": -1}, {"axis1": 1, "axis2": 1}]),
    "moveaxis": (
        np.moveaxis,
        [{"source": 0, "destination": -1}, {"source": (0, 2), "destination": (1, 0)}],
    ),
    "broadcast_to": (np.broadcast_to, [{"shape": (3, 2, 3, 4)}]),
    "repeat": (
        np.repeat,
        [
            {"repeats": 3, "axis": 0},
            {"repeats": 2, "axis": -1},
            {"repeats": [0, 1, 3], "axis": 1},
            {"repeats": [2, 1], "axis": 0},
        ],
    ),
    "tile": (np.tile, [{"reps": 2}, {"reps": (3, 1, 2)}, {"reps": (2, 1, 1, 3)}, {"reps": (0, 2)}]),
    "flip": (np.flip, [{}, {"axis": 0}, {"axis": (-1, 1)}]),
    "roll": (
        np.roll,
        [{"shift": 2}, {"shift": -1, "axis": -1}, {"shift": (1, 2), "axis": (0, 2)}],
    ),
    "take_along_axis": (np.take_along_axis, [{"indices": INDICES, "axis": 1}]),
}
ROWS = [
    pytest.param(name, function, options, id=f"{name} {options}")
    for name, (function, forms) in CASES.items()
    for options in forms
]
FUNCTIONS_ONLY = {"moveaxis"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "function", "options"), ROWS)
def test_the_value_is_numpys(name, function, options, dtype, rng):
    x = rng.standard_normal((2, 3, 4)).astype(dtype)
    expected = function(x, **options)
    tolerance = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-6}
    results = [getattr(ops, name)(x, **options), getattr(ops, name)(Tensor(x), **options)]
    if name not in FUNCTIONS_ONLY:
        results.append(getattr(Tensor(x), name)(**options))
    for result in results:
        assert isinstance(result, Tensor)
        assert (result.shape, result.dtype) == (expected.shape, dtype)
        np.testing.assert_allclose(result.data, expected, **tolerance)


@pytest.mark.parametrize(("name", "function", "options"), ROWS)
def test_the_pullback_is_the_gradient(name, function, options, rng, check_gradients):
    x = rng.standard_normal((2, 3, 4))
    check_gradients(lambda x: getattr(ops, name)(x, **options), x)
    check_gradients(lambda x: ops.add(getattr(ops, name)(x, **options), ops.sum(x)), x)  # twice


@pytest.mark.parametrize(
    ("name", "function", "options"),
    [row for row in ROWS if row.values[0] not in ("norm", "logsumexp")],
)
def test_numpys_function_on_a_tensor_is_recorded(name, function, options, rng):
    x = Tensor(rng.standard_normal((2, 3, 4)), requires_grad=True)
    result = function(x, **options)
    assert isinstance(result, Tensor)
    assert result.requires_grad
    np.testing.assert_array_equal(result.data, getattr(ops, name)(x, **options).data)


INTEGERS = {
    name: [options for options in CASES[name][1] if not {"min", "max", "ord"} & options.keys()]
    for name in CASES
    if name not in ("sin", "cos", "clip", "logsumexp", "norm", "floor", "ceil", "round")
}


@pytest.mark.parametrize("kind", ["i4", "i8", "u1", "?"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_and_booleans_are_numpys(name, kind, rng):
    x = rng.integers(0, 5, (2, 3, 4)).astype(kind)
    for options in INTEGERS[name]:
        expected = CASES[name][0](x, **options)
        result = getattr(ops, name)(Tensor(x), **options)
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result.data, expected, rtol=1e-12)


def test_integers_in_float_operations():
    x = Tensor([[1, 2], [3, 4]])
    assert ops.sin(x).dtype == ops.logsumexp(x).dtype == np.float32
    assert ops.norm(x).dtype == np.float64
    assert ops.floor(x).dtype == ops.ceil(x).dtype == ops.round(x).dtype == np.int64
    assert ops.clip(x, 2, 3).data.tolist() == [[2, 2], [3, 3]]
    assert ops.mean(Tensor([True, False])).item() == 0.5
    assert ops.clip(x, 1.5).dtype == np.float64
    assert ops.clip(x, 1.5).tolist() == [[1.5, 2], [3, 4]]


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["argmax", "argmin", "any", "all"])
def test_places_and_truth(name, axis, keepdims, rng):
    for x in (rng.integers(0, 2, (2, 3, 4)), rng.standard_normal((3, 2)), np.eye(3, dtype=bool)):
        x = Tensor(x)
        expected = getattr(np, name)(x.data, axis, keepdims=keepdims)
        for result in (
            getattr(ops, name)(x, axis=axis, keepdims=keepdims),
            getattr(x, name)(axis, keepdims),
            getattr(np, name)(x, axis=axis, keepdims=keepdims),
        ):
            np.testing.assert_array_equal(result, expected)
            assert isinstance(result, Tensor) == (name in ("argmax", "argmin"))
            assert result.dtype == expected.dtype


def test_places_have_no_gradient_and_are_indices():
    x = Tensor([[1.0, 5.0, 2.0]], requires_grad=True)
    place = x.argmax(-1)
    assert (place.dtype, place.requires_grad, place.tolist()) == (np.int64, False, [1])
    assert ["a", "b", "c"][place] == "b"
    assert x[0, place].item() == 5
    assert (Tensor([7, 8]) // 3).tolist() == [2, 2]
    assert (Tensor([7, 8]) % 3).tolist() == [1, 2]
    assert (20 // Tensor([7, 8])).tolist() == [2, 2]
    assert (20 % Tensor([7, 8])).tolist() == [6, 4]
    for wrong in (Tensor([1.0]), Tensor([1, 2])):
        with pytest.raises(TypeError, match="is not an index; give a single integer"):
            [1, 2][wrong]


# Ties, NaN, nothing


def test_equal_elements_keep_their_order():
    x = Tensor([2.0, 1.0, 2.0, 1.0])
    assert x.argsort().tolist() == [1, 3, 0, 2]
    assert x.argsort(descending=True).tolist() == [0, 2, 1, 3]
    assert x.sort(descending=True).tolist() == [2, 2, 1, 1]
    assert x.topk(3).indices.tolist() == [0, 2, 1]
    assert x.topk(3, largest=False).indices.tolist() == [1, 3, 0]
    assert (x.argmax().item(), x.argmin().item()) == (0, 1)


def test_nan_is_numpys():
    values = np.array([[1.0, np.nan, 0.0], [3.0, 2.0, 3.0]])
    x = Tensor(values, requires_grad=True)
    for name in ("min", "max", "prod", "var", "std", "cumsum", "sort", "argsort", "argmax"):
        np.testing.assert_array_equal(
            getattr(ops, name)(x, axis=1).data, getattr(np, name)(values, axis=1)
        )
    assert np.isnan(x.clip(0, 2).data).tolist() == [[False, True, False], [False] * 3]
    assert np.isnan(ops.logsumexp(x, 1).data).tolist() == [True, False]
    assert np.isnan(x.norm(axis=1).data).tolist() == [True, False]
    assert x.argsort(1, descending=True).tolist() == [[1, 0, 2], [0, 2, 1]]
    assert x.topk(2).indices.tolist() == [[1, 0], [0, 2]]
    (x.max(1) + 10 * x.min(1)).sum().backward()
    assert x.grad.tolist() == [[0, 11, 0], [0.5, 10, 0.5]]


@pytest.mark.parametrize("name", ["cumsum", "sort", "flip", "prod", "flatten", "squeeze"])
def test_of_nothing(name, check_gradients):
    function = {"flatten": np.ravel}.get(name) or getattr(np, name)
    for shape in [(0, 3), (0,), (2, 0)]:
        np.testing.assert_array_equal(
            getattr(ops, name)(np.zeros(shape)).data, function(np.zeros(shape))
        )
        check_gradients(getattr(ops, name), np.zeros(shape))
    if name != "sort":
        check_gradients(getattr(ops, name), np.array(2.0))


def test_of_nothing_where_there_is_no_answer():
    nothing = Tensor(np.zeros((0, 3)))
    assert ops.logsumexp(nothing).item() == -np.inf
    assert ops.norm(nothing).item() == 0
    assert (bool(nothing.any()), bool(nothing.all())) == (False, True)
    for call in (ops.min, ops.argmax, ops.argmin):
        with pytest.raises(ValueError, match=r"zero-size|empty"):
            call(nothing)
    with pytest.raises(ValueError, match=r"^var: 0 elements for a variance with ddof=0"):
        nothing.var()
    with pytest.raises(ValueError, match=r"^var: 1 elements for a variance with ddof=1"):
        Tensor([[1.0], [2.0]]).std(axis=1, ddof=1)


# Gradients at special places


def gradients(operation, *values):
    x = Tensor(np.array(values), requires_grad=True)
    operation(x).sum().backward()
    return x.grad.tolist()


def test_gradients_at_special_places():
    assert gradients(lambda x: x.clip(0, 1), -1.0, 0.0, 0.5, 1.0, 2.0) == [0, 1, 1, 1, 0]
    assert gradients(ops.prod, 0.0, 2.0, 3.0) == [6, 0, 0]
    assert gradients(ops.prod, 0.0, 2.0, 0.0) == [0, 0, 0]
    assert gradients(ops.std, 2.0, 2.0) == [0, 0]
    for p in (1, 2, 3, np.inf):
        assert gradients(lambda x, p=p: x.norm(p), 0.0, 0.0) == [0, 0]
    assert gradients(lambda x: ops.logsumexp(x), -np.inf, 0.0) == [0, 1]
    assert gradients(lambda x: ops.logsumexp(x), -np.inf, -np.inf) == [0, 0]
    assert gradients(ops.logsumexp, 1e4, 0.0) == [1, 0]
    assert gradients(ops.min, 1.0, 1.0, 2.0) == [0.5, 0.5, 0]
    assert gradients(lambda x: x.floor() + x.ceil() + x.round(), 0.5, 1.0) == [0, 0]
    assert gradients(lambda x: x.sort() * [1.0, 10.0, 100.0], 2.0, 3.0, 1.0) == [10, 100, 1]


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_topk(axis, largest, rng, check_gradients):
    x = rng.standard_normal((3, 4, 5))
    found = Tensor(x).topk(2, axis, largest)
    ascending = np.sort(x, axis)
    both = np.flip(ascending, axis) if largest else ascending
    np.testing.assert_array_equal(found.values.data, np.take(both, [0, 1], axis))
    np.testing.assert_array_equal(
        np.take_along_axis(x, found.indices.data, axis), found.values.data
    )
    assert not found.indices.requires_grad
    check_gradients(lambda x: ops.topk(x, 2, axis, largest).values, x)
    check_gradients(lambda x: ops.sort(x, axis, descending=largest), x)
    assert Tensor(x).topk(0).values.shape == (3, 4, 0)


def test_limits_and_values_that_are_tensors_have_gradients(rng, check_gradients):
    x, low, high = rng.standard_normal((3, 4)), rng.uniform(-1, 0, 4), rng.uniform(0, 1, (3, 1))
    check_gradients(ops.clip, x, low, high)
    np.testing.assert_array_equal(ops.clip(x, low, high).data, np.clip(x, low, high))
    check_gradients(lambda x, value: ops.masked_fill(x, MASK, value), x, rng.standard_normal(4))
    expected = np.where(MASK, -np.inf, x)
    np.testing.assert_array_equal(Tensor(x).masked_fill(MASK, -np.inf).data, expected)
    np.testing.assert_array_equal(Tensor(x).masked_fill(Tensor(MASK), -np.inf).data, expected)
    a, b = rng.uniform(1, 5, (3, 4)), rng.uniform(1, 2, 4)
    check_gradients(ops.remainder, a, b)
    check_gradients(ops.floor_divide, a, b)
    np.testing.assert_array_equal((Tensor(a) % -b).data, a % -b)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [((), (24,)), ((1,), (2, 12)), ((0, 1), (6, 4)), ((-2, -1), (2, 12)), ((1, 1), (2, 3, 4))],
)
def test_flatten(axes, shape, rng, check_gradients):
    x = rng.standard_normal((2, 3, 4))
    np.testing.assert_array_equal(Tensor(x).flatten(*axes).data, x.reshape(shape))
    check_gradients(lambda x: ops.flatten(x, *axes), x)
    assert ops.flatten(5.0).shape == (1,)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
def test_squeeze(axis, rng, check_gradients):
    x = rng.standard_normal((1, 3, 1))
    np.testing.assert_array_equal(Tensor(x).squeeze(axis).data, x.squeeze(axis))
    check_gradients(lambda x: ops.squeeze(x, axis), x)
    with pytest.raises(ValueError, match="size not equal to one"):
        ops.squeeze(x, 1)


def test_take_along_axis_like_indexing(rng, check_gradients):
    x = rng.standard_normal((3, 1, 4))
    indices = np.array([[[0, 3]], [[2, 2]], [[-1, -4]]])
    taken = Tensor(x).take_along_axis(indices).data
    for i, j in np.ndindex(3, 2):
        assert taken[i, 0, j] == x[i, 0, indices[i, 0, j]]
    check_gradients(lambda x: ops.take_along_axis(x, indices), x)
    wide = np.zeros((3, 5, 1), int)  # broadcasts along the other axes
    np.testing.assert_array_equal(
        ops.take_along_axis(x, wide).data, np.take_along_axis(x, wide, -1)
    )
    check_gradients(lambda x: ops.take_along_axis(x, wide), x)
    check_gradients(lambda x: ops.take_along_axis(x, [3, 3, 0], None), x)
    for dtype in (np.int8, np.uint8, np.uint64):
        np.testing.assert_array_equal(
            ops.take_along_axis(x, (indices % 4).astype(dtype)).data, taken
        )


def test_indices_changed_after_the_call_do_not_change_the_gradient():
    x, indices = Tensor([1.0, 2.0, 3.0], requires_grad=True), np.array([2, 2])
    y = ops.take_along_axis(x, indices)
    indices[:] = 0
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 2]


def test_repeat_wants_an_axis_as_a_method():
    x = Tensor([[1.0, 2.0]])
    assert ops.repeat(x, 2).tolist() == [1, 1, 2, 2]
    assert np.repeat(x, [1, 2]).tolist() == [1, 2, 2]
    for call in (lambda: x.repeat(2), lambda: x.repeat(2, 1)):
        with pytest.raises(TypeError, match=r"^repeat: as in NumPy.*axis=0.*x\.tile\(\(2, 3\)\)"):
            call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.topk(4), ValueError, r"^topk: k is 4, but axis 1 of a Tensor"),
        (lambda x: x.norm("fro"), ValueError, r"^norm: ord must be at least 1, or inf, not 'fro'"),
        (lambda x: x.norm(0.5), ValueError, r"^norm: ord must be at least 1"),
        (lambda x: x.masked_fill([1, 0, 1], 0.0), TypeError, "^masked_fill: a mask is of booleans"),
        (
            lambda x: x.masked_fill(np.ones((4, 2, 3), bool), 0.0),
            ValueError,
            r"^masked_fill: a mask of shape \(4, 2, 3\) and a value of shape \(\) for a Tensor of",
        ),
        (lambda x: x.take_along_axis([0]), ValueError, r"^take_along_axis: indices of shape"),
        (lambda x: x.take_along_axis([[0.5]]), TypeError, "^take_along_axis: indices are integers"),
        (
            lambda x: x.take_along_axis([[1], [3]]),
            IndexError,
            "^take_along_axis: index 3 is out of bounds for",
        ),
        (lambda x: x.take_along_axis([[-4]]), IndexError, "^take_along_axis: index -4 is out of"),
        (
            lambda x: x.take_along_axis(np.array([[2**64 - 1]], np.uint64)),
            IndexError,
            f"^take_along_axis: index {2**64 - 1} is out of bounds",
        ),
        (
            lambda x: x.take_along_axis(np.zeros((3, 1), int)),
            ValueError,
            r"^take_along_axis: indices of shape \(3, 1\) for a Tensor of shape .* but for axis 1",
        ),
        (lambda x: x.sort(2), np.exceptions.AxisError, "axis 2"),
        (lambda x: x.cumsum(dim=1), TypeError, "^cumsum: .* 'dim': write axis="),
        (lambda x: ops.cumsum(x, dim=1), TypeError, "^cumsum: .* 'dim': write axis="),
        (lambda x: x.var(unbiased=True), TypeError, "^var: .* 'unbiased': write ddof=1"),
        (lambda x: ops.sort(x, dim=1), TypeError, "^sort: .* 'dim': write axis="),
        (lambda x: x.flatten(start_dim=1), TypeError, "^flatten: .* 'start_dim': write start_"),
        (lambda x: ops.pad(x, 1, value=1.0), TypeError, "^pad: .* 'value': write constant_values="),
        (lambda x: np.linalg.norm(x, 1), TypeError, r"^numpy\.linalg\.norm: with ord=1 over 2"),
        (lambda x: np.sum(x, dtype=float), TypeError, r"^sum: .* 'dtype': write x\.astype"),
        (lambda x: np.dot(x, np.ones((2, 3, 4))), TypeError, r"^numpy\.dot: .*ops\.einsum"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call(Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True))


def test_functions_of_numpy_with_other_arguments(rng):
    x = Tensor(rng.standard_normal((3, 4)), requires_grad=True)
    for function in (
        lambda x: np.clip(x, 0, 1), lambda x: np.clip(x, None, 0.5), lambda x: np.linalg.norm(x),
        lambda x: np.linalg.norm(x, 1, axis=0), lambda x: np.linalg.norm(x, axis=1, keepdims=True),
        lambda x: np.dot(x, np.ones(4)), lambda x: np.dot(2.0, x), lambda x: np.ravel(x),
        lambda x: np.einsum("ij,kj->ik", x, np.ones((2, 4)), optimize=True),
        lambda x: np.pad(x, ((1, 0), (0, 2))), lambda x: np.pad(x, 1, mode="edge"),
        lambda x: np.sin(x) + np.cos(x) + np.floor(x) + np.rint(x) + np.ceil(x),
        lambda x: np.reciprocal(x), lambda x: np.floor_divide(x, 2), lambda x: np.mod(x, 2.0),
        lambda x: np.amin(x), lambda x: np.around(x, 1),
    ):  # fmt: skip
        result = function(x)
        assert result.requires_grad
        np.testing.assert_allclose(result.data, function(x.data), rtol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "abs", "exp", "log", "sqrt", "sin", "cos", "floor", "ceil", "round", "tanh", "sigmoid",
        "relu", "softmax", "log_softmax", "logsumexp", "any", "all", "argsort",
    ],
)  # fmt: skip
def test_methods_are_the_operations(name, rng):
    x = Tensor(rng.uniform(0.5, 2, (3, 4)))
    np.testing.assert_array_equal(np.asarray(getattr(x, name)()), np.asarray(getattr(ops, name)(x)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sums_of_a_row_depend_on_no_other_row_nor_on_what_follows(dtype, rng):
    x = rng.standard_normal((50, 7, 9)).astype(dtype)
    for operation in (lambda x: ops.cumsum(x, 0), lambda x: ops.sort(x, 0)[:1]):
        full = operation(Tensor(x))
        np.testing.assert_array_equal(operation(Tensor(x[:, 2:3])).data, full.data[:, 2:3])
    found = ops.cumsum(Tensor(x[:31]), 0).data
    np.testing.assert_array_equal(found, ops.cumsum(Tensor(x), 0).data[:31])
