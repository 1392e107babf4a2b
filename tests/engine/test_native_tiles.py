"""Gradients on tile registers (AMX): bit for bit as written down here, and no less exact."""

import numpy as np
import pytest

from anaphora import Tensor, engine, ops
from anaphora.cells import CELLS, gru, lstm
from anaphora.engine import recurrence

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")


pytestmark = pytest.mark.usefixtures("tile_registers")


def split(x):
    """Three numbers of bfloat16, as float32, whose sum is x."""
    parts = []
    for _ in range(2):
        bits = (x.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
        parts.append(bits.view(np.float32))
        x = x - parts[-1]
    return [*parts, x]


def tile_product(a, b):
    """What a tile register adds: 16 even and 16 odd terms apart, then these two."""
    even = odd = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(0, 32, 2):
        even = even + a[:, k, None] * b[k]
        odd = odd + a[:, k + 1, None] * b[k + 1]
    return even + odd


def product(a, b, depth):
    """[M, K] [K, N]; so much of K at a time."""
    total = None
    for start in range(0, a.shape[1], depth):
        block = slice(start, min(start + depth, a.shape[1]))
        padding = -(block.stop - block.start) % 32
        left = [np.pad(part, ((0, 0), (0, padding))) for part in split(a[:, block].copy())]
        right = [np.pad(part, ((0, padding), (0, 0))) for part in split(b[block].copy())]
        c = np.zeros((len(a), b.shape[1]), np.float32)
        for k in range(0, left[0].shape[1], 32):
            for i, j in ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0)):
                c = c + tile_product(left[i][:, k : k + 32], right[j][k : k + 32])
        total = c if total is None else total + c
    return total


def assert_every_thread_count(native_settings, a, b, gradient, expected):
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        np.testing.assert_array_equal(native.matmul(a, b, gradient=gradient), expected)


def in_other_orders(a):
    """The same numbers, lying otherwise."""
    return np.asfortranarray(a), np.ascontiguousarray(a), np.repeat(a, 2, 1)[:, ::2], a[::-1][::-1]


# The gradient of an input: [rows, K] times a weight [K, N].
@pytest.mark.parametrize(
    ("M", "K", "N"), [(1, 96, 96), (7, 130, 100), (97, 97, 113), (170, 600, 257), (5, 900, 300)]
)
def test_gradients_of_inputs(M, K, N, native_settings, rng):
    a, b = rng.standard_normal((M, K)), rng.standard_normal((K, N))
    a, b = a.astype(np.float32), b.astype(np.float32)
    expected = product(a, b, depth=512 if N <= 256 else 768)
    assert_every_thread_count(native_settings, a, b, "input", expected)
    for x, weight in zip(in_other_orders(a), in_other_orders(b), strict=True):
        np.testing.assert_array_equal(native.matmul(x, weight, gradient="input"), expected)
        for count in (1, 2, 95, 96, 97):  # a row does not know the others
            some = native.matmul(x[:count], b, gradient="input")
            np.testing.assert_array_equal(some, expected[:count])


# The gradient of a weight [M, N], summed over K rows; the shorter operand is turned.
@pytest.mark.parametrize(
    ("M", "K", "N"), [(100, 1, 96), (130, 45, 100), (96, 530, 131), (150, 97, 290), (300, 70, 257)]
)
def test_gradients_of_weights(M, K, N, native_settings, rng):
    a, b = rng.standard_normal((K, M)), rng.standard_normal((K, N))
    a, b = a.astype(np.float32), b.astype(np.float32)
    if M > N and N <= 256:
        expected = product(b.T, a, depth=512).T
    else:
        expected = product(a.T, b, depth=512 if N <= 256 else 768)
    assert_every_thread_count(native_settings, a.T, b, "weight", expected)
    for d, x in zip(in_other_orders(a.T), in_other_orders(b), strict=True):
        np.testing.assert_array_equal(native.matmul(d, x, gradient="weight"), expected)


@pytest.mark.parametrize("gradient", ["input", "weight"])
def test_float64_goes_the_other_way(gradient, rng):
    a, b = rng.standard_normal((140, 190)), rng.standard_normal((190, 200))
    found = native.matmul(a, b, gradient=gradient)
    np.testing.assert_array_equal(found, native.matmul(a, b))


# Which way a product goes depends on the weight, not on how many rows there are.
@pytest.mark.parametrize("outputs", [1, 95, 96])
@pytest.mark.skipif(engine.info()["engine"] != "native", reason="layers run on NumPy")
def test_rows_of_zeros_change_no_gradient_of_a_linear_layer(outputs, rng):
    x, d = rng.standard_normal((97, 100)), rng.standard_normal((97, outputs))
    x, d = x.astype(np.float32), d.astype(np.float32)
    weight = rng.standard_normal((outputs, 100)).astype(np.float32)
    found = []
    for rows, turned in ((94, False), (95, True), (96, False), (97, True)):
        x[94:rows], d[94:rows] = rng.standard_normal((rows - 94, 100)), 0
        inputs, weights = Tensor(x[:rows], requires_grad=True), Tensor(weight, requires_grad=True)
        y = ops.linear(inputs, weights)
        if turned:
            y.transpose(1, 0).backward(d[:rows].T.copy())
        else:
            y.backward(d[:rows])
        found.append((inputs.grad[:94], weights.grad))
    for d_x, d_weight in found[1:]:
        np.testing.assert_array_equal(d_x, found[0][0])
        np.testing.assert_array_equal(d_weight, found[0][1])


def test_nothing_to_add():
    empty = np.zeros((100, 0), np.float32)
    found = native.matmul(empty, np.zeros((0, 120), np.float32), gradient="input")
    np.testing.assert_array_equal(found, np.zeros((100, 120)))
    assert native.matmul(np.zeros((0, 100), np.float32), np.zeros((100, 120), np.float32),
                         gradient="input").shape == (0, 120)  # fmt: skip


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_the_error_is_no_larger_than_a_chain_s(scale, native_settings, rng):
    """Measured: less than half of it at K = 1000."""
    a = (rng.standard_normal((60, 1000)) * scale).astype(np.float32)
    b = rng.standard_normal((1000, 200)).astype(np.float32)
    exact = a.astype(np.float64) @ b
    tiles = np.abs(native.matmul(a, b, gradient="input") - exact)
    native_settings.use_instruction_set("avx512")
    chain = np.abs(native.matmul(a, b) - exact)
    assert np.sqrt((tiles**2).mean()) < 0.7 * np.sqrt((chain**2).mean())
    assert tiles.max() < chain.max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(bad, rng):
    a = rng.standard_normal((20, 100)).astype(np.float32)
    b = rng.standard_normal((100, 96)).astype(np.float32)
    clean = native.matmul(a, b, gradient="input")
    a[3, 50] = bad
    found = native.matmul(a, b, gradient="input")
    assert not np.isfinite(found[3]).any()
    rest = np.arange(20) != 3
    np.testing.assert_array_equal(found[rest], clean[rest])


# The way back of a recurrence -------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [0, 5, 100])
@pytest.mark.parametrize(("B", "H"), [(3, 100), (21, 130), (40, 96), (5, 330)])
@pytest.mark.parametrize(
    ("name", "P"), [("rnn", None), ("lstm", None), ("lstm", 97), ("gru", None), ("mingru", None)]
)
def test_gradients_of_a_recurrence(name, B, H, inputs, P, native_settings, problem, rng):
    p = problem(CELLS[name], rng, np.float32, T=4, B=B, H=H, I=inputs, P=P)
    for options in ({}, {"lengths": np.arange(B) * 3 % 5, "reverse": True}):
        exact = p.copy(lambda array: array.astype(np.float64)).results(recurrence, **options)
        found = []
        for threads in (1, 2, 3, 5):
            native_settings.set_num_threads(threads)
            found.append(p.results(native, **options))
        for key, values in exact.items():
            scale = np.abs(values).max(initial=0) or 1.0
            error = np.abs(found[0][key] - values).max()
            assert error <= 3e-6 * scale, key
            for other in found[1:]:
                np.testing.assert_array_equal(other[key], found[0][key], err_msg=key)


@pytest.mark.parametrize("cell", [lstm, gru], ids=["lstm", "gru"])
def test_a_row_does_not_know_the_others(cell, native_settings, problem, rng):
    p = problem(cell, rng, np.float32, T=4, B=37, H=130, I=100)
    for threads in (1, 2):
        native_settings.set_num_threads(threads)
        batch = p.results(native)
        for row in (0, 17, 36):
            alone = p.rows([row]).results(native)
            for key in ("d x", "d state 0"):
                np.testing.assert_array_equal(alone[key][..., 0, :], batch[key][..., row, :])
