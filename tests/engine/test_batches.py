"""Batched products and softmax over masked rows: as NumPy, and bits that no padding changes."""

import numpy as np
import pytest

from anaphora.engine import kernels

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 1e-6}, np.float64: {"rtol": 1e-12, "atol": 1e-13}}


@pytest.fixture(params=FLOATS)
def dtype(request):
    return request.param


# Products ----------------------------------------------------------------------------------------

SIZES = [
    (1, 1, 1, 1),
    (3, 2, 5, 4),
    (7, 20, 130, 33),
    (2, 65, 97, 300),
    (33, 1, 17, 25),
    (2, 3, 45, 600),
    (2, 600, 45, 1),
]


@pytest.mark.parametrize(("N", "M", "K", "P"), [*SIZES, (0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4)])
def test_products(N, M, K, P, dtype, instructions, rng):
    a, b = rng.standard_normal((N, M, K)), rng.standard_normal((N, K, P))
    found = native.batch_matmul(a.astype(dtype), b.astype(dtype))
    assert found.dtype == dtype
    assert found.shape == (N, M, P)
    np.testing.assert_allclose(
        found, a @ b, rtol=0, atol={np.float32: 2e-4, np.float64: 1e-12}[dtype]
    )


@pytest.mark.parametrize(("N", "M", "K", "P"), SIZES)
def test_products_of_any_layout_threads_and_padding(
    N, M, K, P, dtype, native_settings, instructions, rng
):
    a, b = (
        rng.standard_normal((N, M, K)).astype(dtype),
        rng.standard_normal((N, K, P)).astype(dtype),
    )
    expected = native.batch_matmul(a, b)
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        turned = (
            a.transpose(1, 0, 2).copy().transpose(1, 0, 2),
            b.transpose(2, 0, 1).copy().transpose(1, 2, 0),
        )
        np.testing.assert_array_equal(native.batch_matmul(*turned), expected)
        for more in (1, 13, 200):  # columns of a and rows of b that are 0; rows, columns, batches
            longer = np.zeros((N + 1, M + 2, K + more), dtype)
            longer[:N, :M, :K] = a
            taller = np.full((N + 1, K + more, P + more), 7, dtype)
            taller[:N, :K, :P] = b
            found = native.batch_matmul(longer, taller)
            np.testing.assert_array_equal(found[:N, :M, :P], expected)
    for n in range(N):
        alone = native.batch_matmul(a[n : n + 1, : M // 2 + 1], b[n : n + 1, :, P // 2 :])
        np.testing.assert_array_equal(alone[0], expected[n, : M // 2 + 1, P // 2 :])
    for rows in range(1, 6):  # few are multiplied in another way
        for other in (b, turned[1], np.repeat(b, 2, axis=2)[:, :, ::2]):
            found = native.batch_matmul(a[:, :rows], other)
            np.testing.assert_array_equal(found, expected[:, :rows])


def test_products_of_other_precisions(rng):
    a, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 5))
    np.testing.assert_array_equal(native.batch_matmul(a.astype("f"), b), a.astype("f") @ b)
    assert native.batch_matmul(a.astype(int), b.astype(int)).dtype == int


# Softmax -----------------------------------------------------------------------------------------


def softmaxes(engine, x, mask, dy):
    """Every value and gradient, by name."""
    y, masked = engine.softmax_forward(x), engine.softmax_forward(x, mask)
    logarithm = engine.softmax_forward(x, logarithm=True)
    return {
        "y": y,
        "masked": masked,
        "logarithm": logarithm,
        "dx": engine.softmax_backward(y, dy),
        "d masked": engine.softmax_backward(masked, dy),
        "d logarithm": engine.softmax_backward(logarithm, dy, logarithm=True),
    }


@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize(("N", "S"), [(1, 1), (9, 5), (20, 16), (41, 100), (0, 3), (3, 0)])
def test_softmax(N, S, scale, dtype, instructions, rng):
    x = (scale * rng.standard_normal((N, S))).astype(dtype)
    dy, mask = rng.standard_normal((N, S)).astype(dtype), rng.random((N, S)) < 0.6
    mask[: N // 2] &= False
    found, expected = softmaxes(native, x, mask, dy), softmaxes(kernels, x, mask, dy)
    for name, array in expected.items():
        assert found[name].dtype == dtype
        np.testing.assert_allclose(found[name], array, **TOLERANCE[dtype], err_msg=name)
    assert not found["masked"][~mask].any()


@pytest.mark.parametrize("S", [1, 7, 16, 17, 33, 100])
def test_softmax_of_rows_alone_and_padded(S, dtype, native_settings, instructions, rng):
    x, dy = rng.standard_normal((2, 23, S)).astype(dtype)
    mask = rng.random((23, S)) < 0.7
    expected = softmaxes(native, x, mask, dy)
    for more in (1, 13, 100):
        wide = np.full((23, S + more), 1e30, dtype)
        wide[:, :S] = x
        d, kept = np.full_like(wide, -3), np.zeros(wide.shape, bool)
        d[:, :S], kept[:, :S] = dy, mask
        found = native.softmax_forward(wide, kept)
        np.testing.assert_array_equal(found[:, :S], expected["masked"])
        assert not found[:, S:].any()
        d = native.softmax_backward(found, d)
        np.testing.assert_array_equal(d[:, :S], expected["d masked"])
        assert not d[:, S:].any()
    for threads in (2, 3):
        native_settings.set_num_threads(threads)
        for rows in (slice(None), slice(3, 4), slice(5, 22)):
            part = softmaxes(native, x[rows], mask[rows], dy[rows])
            for name, array in part.items():
                np.testing.assert_array_equal(array, expected[name][rows], err_msg=name)


def test_softmax_of_what_is_not_finite(dtype, instructions):
    inf, nan = np.inf, np.nan
    x = np.array([[0, -inf, 1], [-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1]], dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        for logarithm in (False, True):
            np.testing.assert_allclose(
                native.softmax_forward(x, logarithm=logarithm),
                kernels.softmax_forward(x, logarithm=logarithm),
                rtol=1e-6,
            )
        mask = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]], bool)
        np.testing.assert_allclose(
            native.softmax_forward(x, mask), kernels.softmax_forward(x, mask), rtol=1e-6
        )


def test_registers_of_avx512_and_avx2_give_the_same_bits(native_settings, rng):
    x, dy = rng.standard_normal((2, 23, 77)).astype(np.float32)
    mask, found = rng.random(x.shape) < 0.7, []
    for name in ("avx512", "avx2"):
        try:
            native_settings.use_instruction_set(name)
        except ValueError:
            pytest.skip(f"this machine or build has no {name}")
        found.append(softmaxes(native, x, mask, dy))
        found[-1]["product"] = native.batch_matmul(x[None], dy.T[None])
    for name, array in found[0].items():
        np.testing.assert_array_equal(found[1][name], array, err_msg=name)
