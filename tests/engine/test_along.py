"""Along an axis: sums, elements and their order as loops in Python, on any number of threads."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anaphora.engine import kernels

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
SHAPES = [
    (1,), (300,), (5, 1), (70, 33), (33, 129), (3, 40, 270), (130, 9, 3), (0, 4), (4, 0), (2, 0, 3),
]  # fmt: skip


@pytest.fixture(params=FLOATS)
def dtype(request):
    return request.param


def in_order(x, axis, reverse=False):
    """The sums up to each element, by a loop."""
    moved = np.moveaxis(x, axis, 0)[:: -1 if reverse else 1]
    sums = np.empty_like(moved)
    for n, row in enumerate(moved):
        sums[n] = row if n == 0 else sums[n - 1] + row
    return np.moveaxis(sums[:: -1 if reverse else 1], 0, axis)


def added(dy, indices, axis, count):
    """The elements of dy, added one by one."""
    dx = np.zeros((*dy.shape[:axis], count, *dy.shape[axis + 1 :]), dy.dtype)
    for place in np.ndindex(dy.shape):
        to = (*place[:axis], indices[place], *place[axis + 1 :])
        dx[to] += dy[place]
    return dx


def first_in_order(row, count, descending):
    """The places of a row's first elements, by Python's sort, which keeps equals in order."""

    def rank(k):
        nan = math.isnan(row[k])
        value = 0.0 if nan else float(row[k])
        return (not nan, -value) if descending else (nan, value)

    return sorted(range(len(row)), key=rank)[:count]


def same_bits(call, native_settings):
    """The result, which is the same for every number of threads."""
    found = []
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        found.append(call())
    assert len({array.tobytes() for array in found}) == 1
    return found[0]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_up_to_each_element(shape, reverse, dtype, instructions, native_settings, rng):
    x = rng.standard_normal(shape).astype(dtype)
    for axis in range(len(shape)):
        expected = in_order(x, axis, reverse)
        found = same_bits(lambda k=axis: native.cumsum(x, k, reverse=reverse), native_settings)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(kernels.cumsum(x, axis, reverse=reverse), expected)
        turned = np.asfortranarray(x)
        np.testing.assert_array_equal(native.cumsum(turned, axis, reverse=reverse), expected)


def test_sums_of_what_is_no_number(dtype):
    x = np.array([[-0.0, -0.0, 1.0, np.inf, 1.0, -np.inf, 2.0], [-0.0, 0.0, 0.0, np.nan, 1, 2, 3]])
    for side in (native, kernels):
        with np.errstate(invalid="ignore"):
            found = side.cumsum(x.astype(dtype), 1)
            np.testing.assert_array_equal(found, np.cumsum(x, 1))
        assert np.signbit(found[:, 0]).all()
        assert np.signbit(found[0, 1])
        assert not np.signbit(found[1, 1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elements_taken_and_added(shape, dtype, instructions, native_settings, rng):
    x = rng.standard_normal(shape).astype(dtype)
    for axis, N in enumerate(shape):
        count = 7 if N else 0
        wanted = (*shape[:axis], count, *shape[axis + 1 :])
        indices = rng.integers(-N, N, wanted) if N else np.zeros(wanted, np.int64)
        taken = same_bits(
            lambda i=indices, k=axis: native.take_along_axis(x, i, k), native_settings
        )
        np.testing.assert_array_equal(taken, np.take_along_axis(x, indices, axis))
        dy = rng.standard_normal(wanted).astype(dtype)
        found = same_bits(
            lambda d=dy, i=indices, k=axis, n=N: native.add_along_axis(d, i, k, n), native_settings
        )
        expected = added(dy, indices, axis, N)
        assert found.dtype == dtype
        for array in (found, kernels.add_along_axis(dy, indices, axis, N)):
            np.testing.assert_array_equal(array, expected)
        turned = np.asfortranarray(dy), np.asfortranarray(indices).astype(np.int32)
        np.testing.assert_array_equal(native.add_along_axis(*turned, axis, N), expected)


@pytest.mark.parametrize("axes", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(4, 3, 300), (50, 2, 1), (2, 3, 0)], ids=str)
def test_rows_added(shape, axes, dtype, instructions, native_settings, rng):
    count = math.prod(shape[:axes])
    rows = rng.integers(-count, count, 40) if count else np.zeros(0, np.int64)
    dy = rng.standard_normal((len(rows), *shape[axes:])).astype(dtype)
    expected = np.zeros((count, *shape[axes:]), dtype)
    for row, d in zip(rows, dy, strict=True):
        expected[row] += d
    found = same_bits(lambda: native.add_rows(dy, rows, shape, axes), native_settings)
    for array in (found, kernels.add_rows(dy, rows, shape, axes)):
        assert array.shape == shape
        np.testing.assert_array_equal(array, expected.reshape(shape))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(0, 90),
    st.sampled_from(FLOATS),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_orders_of_random_rows(rows, N, dtype, descending, ties, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, N)).astype(dtype)
    if ties:
        special = [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-310, 1.0]
        x = rng.choice(special, (rows, N)).astype(dtype)
    for count in {0, min(1, N), N // 9, N // 2, N}:
        expected = [first_in_order(row, count, descending) for row in x]
        for side in (native, kernels):
            order = side.order_rows(x, count, descending=descending)
            assert order.dtype == np.int64
            np.testing.assert_array_equal(order, np.reshape(expected, (rows, count)))


@pytest.mark.parametrize("count", [3, 4000])
def test_orders_of_long_rows(count, dtype, instructions, native_settings, rng):
    x = rng.standard_normal((9, 4000)).astype(dtype)
    x[:, 3900:] += 10  # most of what is found comes last
    order = same_bits(lambda: native.order_rows(x, count, descending=True), native_settings)
    np.testing.assert_array_equal(order, np.argsort(-x, axis=1, kind="stable")[:, :count])
    for row in range(9):  # alone
        alone = native.order_rows(x[row : row + 1], count, descending=True)
        np.testing.assert_array_equal(alone[0], order[row])


def test_indices_out_of_bounds(dtype):
    x, dy = np.ones((3, 4), dtype), np.ones((3, 2), dtype)
    for wrong in (4, -5, 2**62, -(2**63)):
        indices = np.zeros((3, 2), np.int64)
        indices[1, 1] = wrong
        for call in (
            lambda i=indices: native.take_along_axis(x, i, 1),
            lambda i=indices: native.add_along_axis(dy, i, 1, 4),
            lambda i=indices: native.add_rows(dy.reshape(-1), i.reshape(-1), (4,), 1),
        ):
            with pytest.raises(IndexError, match=f"^index {wrong} is out of bounds for an axis of"):
                call()
    with pytest.raises(IndexError, match=r"^index 0 is out of bounds for an axis of 0 elements"):
        native.take_along_axis(x[:, :0], np.zeros((3, 2), np.int64), 1)
    with pytest.raises(IndexError, match=r"^index 0 is out of bounds for an axis of 0 elements"):
        native.add_along_axis(dy, np.zeros((3, 2), np.int64), 1, 0)
