"""Fixed-point products on tile registers: bit for bit as in the reference here.

They are those of AMX, or emulated ones of the same bits on machines without it.
"""

import numpy as np
import pytest

from anaphora import Tensor, engine, nn, ops
from anaphora.cells import CELLS, cell, gru, lstm
from anaphora.engine import recurrence
from anaphora.equations import tanh
from anaphora.models import LanguageModel

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

pytestmark = pytest.mark.usefixtures("tile_registers")


def slices_of(rows):
    """Three slices of each number, most significant first, and the exponent of each row's scale."""
    maxima = np.abs(rows).max(1, initial=0)
    # One more than the largest number's exponent if that is close to the next power of two.
    exponents = (maxima.view(np.int32) + 0x20000 >> 23) - 127 - 22
    left = np.rint(np.ldexp(rows.astype(np.float64), -exponents[:, None])).astype(np.int64)
    found = []
    for _ in range(3):
        last = (left + 128) % 256 - 128
        found.insert(0, last)
        left = (left - last) // 256
    assert not left.any()
    return found, exponents


def product(a, b):
    """[M, K] times [K, N] in float32."""
    left, row_exponents = slices_of(a)
    right, column_exponents = slices_of(np.ascontiguousarray(b.T))
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for level in (3, 2, 1, 0):
        pairs = [(i, level - i) for i in range(3) if 0 <= level - i < 3]
        exact = sum(left[i] @ right[j].T for i, j in pairs)
        total = (total / 256.0 + exact.astype(np.float32)).astype(np.float32)
    return np.ldexp(total, row_exponents[:, None] + column_exponents + 32)


def product_by_blocks(a, b, max_depth):
    """`max_depth` of K at a time, each block with its own scales."""
    total = None
    for start in range(0, a.shape[1], max_depth):
        block = product(a[:, start : start + max_depth].copy(), b[start : start + max_depth])
        total = block if total is None else total + block
    return total


def in_other_layouts(a):
    """The same numbers in other memory layouts."""
    backwards = np.ascontiguousarray(a[:, ::-1])[:, ::-1]
    return np.asfortranarray(a), np.ascontiguousarray(a), np.repeat(a, 2, 1)[:, ::2], backwards


def normal(rng, *shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("M", "K", "N"),
    [(1, 96, 1), (2, 97, 15), (16, 128, 16), (17, 130, 100), (33, 200, 257), (70, 513, 65)],
)
def test_the_bits_of_a_product(M, K, N, native_settings, rng):
    a, b, bias = normal(rng, M, K), normal(rng, K, N), normal(rng, N)
    expected = product(a, b)
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        for x, weight in zip(in_other_layouts(a), in_other_layouts(b), strict=True):
            np.testing.assert_array_equal(native.matmul(x, weight), expected)
            np.testing.assert_array_equal(native.matmul(x, weight, bias), expected + bias)
    for rows, columns in [(slice(1), slice(None)), (slice(None), slice(N // 2, None))]:
        found = native.matmul(a[rows], b[:, columns])
        np.testing.assert_array_equal(found, expected[rows, columns])


@pytest.mark.parametrize("factor", [1, 0.125, 1.9921874])
def test_numbers_of_all_magnitudes(factor, rng):
    sizes = 2.0 ** rng.integers(-120, 120, (40, 1))
    a = (rng.uniform(-1, 1, (40, 150)) * sizes).astype(np.float32)
    a[::3] *= (2.0 ** rng.integers(-30, 0, (14, 150))).astype(np.float32)
    a[5], a[6, 3], a[7] = 0, 1.0, np.float32(2) - np.float32(2**-23)
    a[8, :] = np.finfo(np.float32).max / 4
    b = normal(rng, 150, 60, scale=1e-4)
    b[:, 7] = 0
    b[:, 8] = 1.9999999
    b[:, 9] *= np.float32(1e38)
    b[:, 10] *= np.float32(1e-30)
    a = a * np.float32(factor)
    tiny = np.finfo(np.float32).tiny  # denormal numbers count as 0
    a[np.abs(a) < tiny] = 0
    with np.errstate(over="ignore"):
        expected = product(a, b)
    expected[np.abs(expected) < tiny] = 0
    np.testing.assert_array_equal(native.matmul(a, b), expected)
    np.testing.assert_array_equal(native.matmul(b.T, a.T), expected.T)
    assert not np.isnan(expected).any()
    assert not expected[5].any()
    assert np.isfinite(expected[7]).all()


def test_integers_are_exact(rng):
    a = rng.integers(-100_000, 100_000, (20, 120)).astype(np.float32)
    b = rng.integers(-3, 4, (120, 30)).astype(np.float32)
    b[0] = 4
    a[:, 1:] = rng.integers(-100, 100, (20, 119))
    np.testing.assert_array_equal(native.matmul(a, b), a.astype(np.float64) @ b)


@pytest.mark.parametrize("K", [96, 128, 200, 650, 1500])
@pytest.mark.parametrize("kind", ["states", "normal", "uniform"])
def test_the_error_is_below_that_of_an_fma_chain(kind, K, native_settings, rng):
    a = rng.uniform(-1, 1, (60, K)) if kind == "uniform" else rng.standard_normal((60, K))
    a = (np.tanh(a) if kind == "states" else a).astype(np.float32)
    b = rng.uniform(-0.1, 0.1, (K, 300)).astype(np.float32)
    exact = a.astype(np.float64) @ b
    fixed = native.matmul(a, b) - exact
    native_settings.use_instruction_set("avx512")
    chain = native.matmul(a, b) - exact
    assert (fixed**2).mean() < (chain**2).mean()
    assert np.abs(fixed).max() < np.abs(chain).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_make_their_row_or_column_nan(bad, rng):
    a, b = normal(rng, 20, 100), normal(rng, 100, 50)
    clean = native.matmul(a, b)
    a[3, 50] = b[70, 7] = bad
    found = native.matmul(a, b)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 7]).all()
    rows, columns = np.arange(20) != 3, np.arange(50) != 7
    np.testing.assert_array_equal(found[rows][:, columns], clean[rows][:, columns])


@pytest.mark.parametrize("gradient", ["", "input", "weight"])
@pytest.mark.parametrize("K", [32_768, 32_769, 50_000])
def test_long_sums_fit(K, gradient, rng):
    largest = np.float32(1.98)  # slices of 126 and 127
    a, b = np.full((70, K), -largest), np.full((K, 64), largest)
    found = native.matmul(a, b, gradient=gradient)
    np.testing.assert_allclose(found, -K * np.float64(largest) ** 2, rtol=1e-3)
    assert found.min() == found.max()


def test_short_sums_are_fma_chains(native_settings, rng):
    a, b = normal(rng, 9, 95), normal(rng, 95, 200)
    found = native.matmul(a, b)
    native_settings.use_instruction_set("avx512")
    np.testing.assert_array_equal(native.matmul(a, b), found)


def test_empty_products():
    for M, N in [(0, 30), (30, 0), (0, 0)]:
        for gradient in ("", "input", "weight"):
            a, b = np.ones((M, 100), np.float32), np.ones((100, N), np.float32)
            assert native.matmul(a, b, gradient=gradient).shape == (M, N)
    for gradient in ("", "input", "weight"):
        empty = np.zeros((100, 0), np.float32)
        found = native.matmul(empty, np.zeros((0, 120), np.float32), gradient=gradient)
        np.testing.assert_array_equal(found, np.zeros((100, 120)))


# Gradients --------------------------------------------------------------------------------------


# The gradient of an input: [rows, K] times a weight [K, N].
@pytest.mark.parametrize(
    ("M", "K", "N"), [(1, 96, 5), (7, 130, 100), (97, 97, 113), (170, 1536, 70), (90, 1537, 170)]
)
def test_gradients_of_inputs(M, K, N, native_settings, rng):
    a, b = normal(rng, M, K), normal(rng, K, N)
    expected = product_by_blocks(a, b, 768 if K > 1536 else K)
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        for x, weight in zip(in_other_layouts(a), in_other_layouts(b), strict=True):
            found = native.matmul(x, weight, gradient="input")
            np.testing.assert_array_equal(found, expected)
    for count in (1, 2, 15, 16, 17):  # a row does not depend on the others
        found = native.matmul(a[:count], b, gradient="input")
        np.testing.assert_array_equal(found, expected[:count])


# The gradient of a weight [M, N], summed over K rows.
@pytest.mark.parametrize(
    ("M", "K", "N"), [(100, 1, 64), (64, 45, 100), (130, 512, 131), (150, 1025, 70), (65, 700, 300)]
)
def test_gradients_of_weights(M, K, N, native_settings, rng):
    a, b = normal(rng, K, M), normal(rng, K, N)
    a[K // 2 :] *= 1e-3
    expected = product_by_blocks(a.T, b, 512)
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        for d, x in zip(in_other_layouts(a.T), in_other_layouts(b), strict=True):
            found = native.matmul(d, x, gradient="weight")
            np.testing.assert_array_equal(found, expected)


def test_trailing_zero_rows_do_not_change_a_weight_gradient(rng):
    d, x = normal(rng, 500, 70), normal(rng, 500, 90)
    found = native.matmul(d.T, x, gradient="weight")
    for zeros in (1, 12, 13, 600):
        longer = np.concatenate([x, normal(rng, zeros, 90) * 0])
        more = native.matmul(np.pad(d, ((0, zeros), (0, 0))).T, longer, gradient="weight")
        np.testing.assert_array_equal(more, found)


def test_gradients_of_small_weights_are_fma_chains(native_settings, rng):
    a, b = normal(rng, 63, 150), normal(rng, 150, 200)
    found = native.matmul(a, b, gradient="weight")
    native_settings.use_instruction_set("avx512")
    np.testing.assert_array_equal(native.matmul(a, b), found)


@pytest.mark.parametrize("gradient", ["input", "weight"])
def test_float64_uses_fma_chains(gradient, rng):
    a, b = rng.standard_normal((140, 190)), rng.standard_normal((190, 200))
    found = native.matmul(a, b, gradient=gradient)
    np.testing.assert_array_equal(found, native.matmul(a, b))


# How a product is computed depends on the weight, not on the number of rows.
@pytest.mark.parametrize("outputs", [1, 63, 64, 130])
@pytest.mark.skipif(engine.info()["engine"] != "native", reason="layers run on NumPy")
def test_zero_rows_do_not_change_the_gradients_of_a_linear_layer(outputs, rng):
    x, d = rng.standard_normal((97, 100)), rng.standard_normal((97, outputs))
    x, d = x.astype(np.float32), d.astype(np.float32)
    weight = rng.standard_normal((outputs, 100)).astype(np.float32)
    found = []
    for rows, transposed in ((94, False), (95, True), (96, False), (97, True)):
        x[94:rows], d[94:rows] = rng.standard_normal((rows - 94, 100)), 0
        inputs, weights = Tensor(x[:rows], requires_grad=True), Tensor(weight, requires_grad=True)
        y = ops.linear(inputs, weights)
        if transposed:
            y.transpose(1, 0).backward(d[:rows].T.copy())
        else:
            y.backward(d[:rows])
        found.append((inputs.grad[:94], weights.grad))
    for d_x, d_weight in found[1:]:
        np.testing.assert_array_equal(d_x, found[0][0])
        np.testing.assert_array_equal(d_weight, found[0][1])


# Layers -----------------------------------------------------------------------------------------


@pytest.mark.pairs
@pytest.mark.parametrize("inputs", [0, 5, 100])
@pytest.mark.parametrize(("B", "H"), [(1, 97), (3, 100), (21, 130), (50, 96), (5, 330)])
@pytest.mark.parametrize(
    ("name", "P"), [("rnn", None), ("lstm", None), ("lstm", 40), ("gru", None), ("mingru", None)]
)
def test_a_recurrence(name, P, B, H, inputs, native_settings, problem, rng):
    p = problem(CELLS[name], rng, np.float32, T=4, B=B, H=H, I=inputs, P=P)
    for options in ({}, {"lengths": np.arange(B) * 3 % 5, "reverse": True}):
        exact = p.copy(lambda array: array.astype(np.float64)).results(
            recurrence, record=True, **options
        )
        found = []
        for threads in (1, 2, 3, 5):
            native_settings.set_num_threads(threads)
            found.append(p.results(native, record=True, **options))
        for key, values in exact.items():
            scale = np.abs(values).max(initial=0) or 1.0
            assert np.abs(found[0][key] - values).max() <= 3e-6 * scale, key
            for other in found[1:]:
                np.testing.assert_array_equal(other[key], found[0][key], err_msg=key)


def test_a_cell_of_many_gates(native_settings, problem, rng):
    """With one thread a step could multiply the gates' gradients by the input weights itself."""
    eight = cell(gates="a b c d e f g i", state="h")(
        lambda a, b, c, d, e, f, g, i, h: tanh(a * b + c * d + e * f + g * i)
    )
    p = problem(eight, rng, np.float32, T=3, B=6, H=250, I=5)
    found = []
    for threads in (1, 2, 3):
        native_settings.set_num_threads(threads)
        found.append(p.results(native))
    for other in found[1:]:
        for key, values in other.items():
            np.testing.assert_array_equal(values, found[0][key], err_msg=key)


@pytest.mark.parametrize("B", [1, 2, 16, 17, 40])
def test_the_gates_of_a_layer_are_fixed_point_products(B, problem, rng):
    """A cell whose output is the rectified sum of its gate's halves."""
    p = problem(CELLS["rnn_relu"], rng, np.float32, T=1, B=B, H=110, I=120)
    halves = product(p.initial[0], np.ascontiguousarray(p.weight_hh.T)) + p.bias_hh
    gates = halves + (product(p.x[0], np.ascontiguousarray(p.weight_ih.T)) + p.bias_ih)
    found = p.forward(native).output[0]
    np.testing.assert_array_equal(found, np.maximum(gates, 0))


@pytest.mark.skipif(engine.info()["engine"] != "native", reason="models run on NumPy")
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize(("V", "H", "I"), [(20, 130, 130), (300, 70, 110), (130, 100, 30)])
def test_a_session_gives_the_bits_of_the_full_sequence(V, H, I, cell, native_settings, rng):
    model = LanguageModel(V, hidden_size=H, cell=cell, embedding_size=I, num_layers=2)
    for B in (1, 2, 19):
        ids = rng.integers(0, V, (7, B))
        full, _ = model(ids)
        for threads in (1, 2, 3):
            native_settings.set_num_threads(threads)
            for split in ([7], [1] * 7, [3, 4]):
                session = model.session(B)
                chunks = np.split(ids, np.cumsum(split)[:-1])
                found = np.concatenate([session.feed(chunk) for chunk in chunks])
                np.testing.assert_array_equal(found, full.data)


@pytest.mark.skipif(engine.info()["engine"] != "native", reason="layers run on NumPy")
@pytest.mark.parametrize(("H", "P"), [(80, 60), (130, 60), (130, 95), (130, 96), (200, 120)])
def test_a_session_with_a_projection(H, P, native_settings, rng):
    layer = nn.LSTM(100, H, 2, proj_size=P)
    for B in (1, 3, 18):
        x = normal(rng, 6, B, 100)
        full, _ = layer(x)
        for threads in (1, 2, 3):
            native_settings.set_num_threads(threads)
            session = layer.session(batch_size=B)
            found = np.concatenate([session.feed(x[:1]), session.feed(x[1:4]), session.feed(x[4:])])
            np.testing.assert_array_equal(found, full.data)


def test_the_loss_alone_has_the_bits_of_the_logits(rng):
    x, targets = normal(rng, 40, 120), rng.integers(0, 90, 40)
    weight, bias = normal(rng, 90, 120), normal(rng, 90)
    losses, _ = native.cross_entropy_forward(native.matmul(x, weight.T, bias), targets)
    alone = native.linear_cross_entropy_losses(x, weight, bias, targets)
    np.testing.assert_array_equal(alone, losses)


@pytest.mark.parametrize("cell", [lstm, gru], ids=["lstm", "gru"])
def test_a_row_does_not_depend_on_the_others(cell, native_settings, problem, rng):
    p = problem(cell, rng, np.float32, T=4, B=37, H=130, I=100)
    lengths = np.arange(37) * 3 % 5
    for threads in (1, 2):
        native_settings.set_num_threads(threads)
        for options in ({}, {"lengths": lengths}, {"lengths": lengths, "reverse": True}):
            batch = p.results(native, **options)
            for row in (0, 17, 36):
                if options:
                    options["lengths"] = lengths[[row]]
                alone = p.rows([row]).results(native, **options)
                for key in ("output", "d x"):
                    np.testing.assert_array_equal(alone[key][:, 0], batch[key][:, row])
                for key in alone.keys() & {"final 0", "final 1", "d state 0", "d state 1"}:
                    np.testing.assert_array_equal(alone[key][0], batch[key][row])


# Emulated tile registers ------------------------------------------------------------------------


@pytest.fixture
def both(native_settings):
    """Call a function on AMX and with emulated tile registers; return both results."""

    def call(function):
        results = []
        for name in ("amx", "amx-emulated"):
            try:
                native_settings.use_instruction_set(name)
            except ValueError:
                pytest.skip(f"this machine or build has no {name}")
            results.append(function())
        return results

    return call


@pytest.mark.parametrize("gradient", ["", "input", "weight"])
@pytest.mark.parametrize(
    ("M", "K", "N"), [(1, 96, 65), (17, 130, 64), (70, 1540, 77), (66, 33, 90)]
)
def test_emulated_products_have_the_bits_of_amx(M, K, N, gradient, both, rng):
    a, b = normal(rng, M, K), normal(rng, K, N)
    a[:, 1:] *= (2.0 ** rng.integers(-140, 20, (M, K - 1))).astype(np.float32)
    a[0, 1], b[0, 3] = np.finfo(np.float32).max, 1e-30
    a[M // 2, 5], b[7, 9] = np.nan, np.inf
    real, emulated = both(lambda: native.matmul(a, b, gradient=gradient))
    np.testing.assert_array_equal(emulated, real)
    assert np.isnan(real).any()


@pytest.mark.parametrize(
    ("name", "B", "P"), [("lstm", 19, None), ("gru", 1, None), ("lstm", 5, 98)]
)
def test_an_emulated_recurrence_has_the_bits_of_amx(name, B, P, both, problem, rng):
    p = problem(CELLS[name], rng, np.float32, T=4, B=B, H=130, I=100, P=P)
    for options in ({}, {"lengths": np.arange(B) * 3 % 5, "reverse": True}):
        real, emulated = both(lambda o=options: p.results(native, record=True, **o))
        for key, values in real.items():
            np.testing.assert_array_equal(emulated[key], values, err_msg=key)
