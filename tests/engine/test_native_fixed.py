"""Products in fixed point on tile registers (AMX): bit for bit as written down here."""

import numpy as np
import pytest

from anaphora import engine
from anaphora.cells import CELLS
from anaphora.engine import recurrence
from anaphora.models import LanguageModel

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

pytestmark = pytest.mark.usefixtures("tile_registers")


def digits(rows):
    """Three digits of each number, the most significant first, and what a row's last is worth."""
    tops = np.abs(rows).max(1, initial=0)
    # An exponent more than the largest number's where that is close to the next power of two.
    exponents = np.maximum((tops.view(np.int32) + 0x20000 >> 23) - 127, -100)
    worth = np.ldexp(1.0, exponents - 22)
    left = np.rint(rows / worth[:, None]).astype(np.int64)
    found = []
    for _ in range(3):
        last = (left + 128) % 256 - 128
        found.insert(0, last)
        left = (left - last) // 256
    assert not left.any()
    return found, worth


def product(a, b):
    """[M, K] [K, N] in float32."""
    left, row_worth = digits(a)
    right, column_worth = digits(np.ascontiguousarray(b.T))
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for level in (3, 2, 1, 0):
        pairs = [(i, level - i) for i in range(3) if 0 <= level - i < 3]
        exact = sum(left[i] @ right[j].T for i, j in pairs)
        total = (total / 256.0 + exact.astype(np.float32)).astype(np.float32)
    total = total * row_worth[:, None].astype(np.float32)
    return total * (column_worth * 2.0**32).astype(np.float32)


def draw(rng, *shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("M", "K", "N"),
    [(1, 96, 1), (2, 97, 15), (16, 128, 16), (17, 130, 100), (33, 200, 257), (70, 513, 65)],
)
def test_the_bits_of_a_product(M, K, N, native_settings, rng):
    a, b, bias = draw(rng, M, K), draw(rng, K, N), draw(rng, N)
    expected = product(a, b)
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        for x, weight in [
            (a, b),
            (np.asfortranarray(a), np.asfortranarray(b)),
            (np.repeat(a, 2, 1)[:, ::2], b[::-1][::-1]),
        ]:
            np.testing.assert_array_equal(native.matmul(x, weight), expected)
            np.testing.assert_array_equal(native.matmul(x, weight, bias), expected + bias)
    for rows, columns in [(slice(1), slice(None)), (slice(None), slice(N // 2, None))]:
        part = native.matmul(a[rows], b[:, columns])
        np.testing.assert_array_equal(part, expected[rows, columns])


def test_numbers_of_every_size(rng):
    sizes = 2.0 ** rng.integers(-100, 100, (40, 1))
    a = (rng.uniform(-1, 1, (40, 150)) * sizes).astype(np.float32)
    a[::3] *= (2.0 ** rng.integers(-30, 0, (14, 150))).astype(np.float32)
    a[5], a[6, 3], a[7] = 0, 1.0, np.float32(2) - np.float32(2**-23)
    a[8, :] = np.finfo(np.float32).max
    b = draw(rng, 150, 60, scale=1e-4)
    b[:, 7] = 0
    b[:, 8] = 1.9999999
    with np.errstate(over="ignore"):
        for factor in (1, 0.125, 1.9921874):
            x = a * np.float32(factor)
            x = x[np.isfinite(x).all(1)]
            np.testing.assert_array_equal(native.matmul(x, b), product(x, b))


def test_whole_numbers_are_exact(rng):
    a = rng.integers(-100_000, 100_000, (20, 120)).astype(np.float32)
    b = rng.integers(-3, 4, (120, 30)).astype(np.float32)
    b[0] = 4
    a[:, 1:] = rng.integers(-100, 100, (20, 119))
    np.testing.assert_array_equal(native.matmul(a, b), a.astype(np.float64) @ b)


@pytest.mark.parametrize("K", [96, 128, 200, 650, 1500])
@pytest.mark.parametrize("kind", ["states", "normal", "uniform"])
def test_the_error_is_no_larger_than_a_chain_s(kind, K, native_settings, rng):
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
def test_what_is_not_finite_makes_its_row_or_column_nan(bad, rng):
    a, b = draw(rng, 20, 100), draw(rng, 100, 50)
    clean = native.matmul(a, b)
    a[3, 50] = b[70, 7] = bad
    found = native.matmul(a, b)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 7]).all()
    rows, columns = np.arange(20) != 3, np.arange(50) != 7
    np.testing.assert_array_equal(found[rows][:, columns], clean[rows][:, columns])


def test_short_sums_are_chains(native_settings, rng):
    a, b = draw(rng, 9, 95), draw(rng, 95, 200)
    found = native.matmul(a, b)
    native_settings.use_instruction_set("avx512")
    np.testing.assert_array_equal(native.matmul(a, b), found)


def test_nothing():
    for M, N in [(0, 30), (30, 0), (0, 0)]:
        found = native.matmul(np.ones((M, 100), np.float32), np.ones((100, N), np.float32))
        assert found.shape == (M, N)


# Layers -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("B", [1, 2, 16, 17, 40])
def test_a_layer_s_gates_are_these_products(B, problem, rng):
    """A cell that hands on the sum of its gate's halves."""
    p = problem(CELLS["rnn_relu"], rng, np.float32, T=1, B=B, H=110, I=120)
    halves = product(p.initial[0], np.ascontiguousarray(p.weight_hh.T)) + p.bias_hh
    gates = halves + (product(p.x[0], np.ascontiguousarray(p.weight_ih.T)) + p.bias_ih)
    found = p.forward(native).output[0]
    np.testing.assert_array_equal(found, np.maximum(gates, 0))


@pytest.mark.skipif(engine.info()["engine"] != "native", reason="models run on NumPy")
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize(("V", "H", "I"), [(20, 130, 130), (300, 70, 110), (130, 100, 30)])
def test_a_session_gives_the_bits_of_the_whole(V, H, I, cell, native_settings, rng):
    model = LanguageModel(V, H, cell=cell, embedding_size=I, num_layers=2)
    for B in (1, 2, 19):
        ids = rng.integers(0, V, (7, B))
        whole, _ = model(ids)
        for threads in (1, 2, 3):
            native_settings.set_num_threads(threads)
            for split in ([7], [1] * 7, [3, 4]):
                session = model.session(B)
                chunks = np.split(ids, np.cumsum(split)[:-1])
                found = np.concatenate([session.feed(chunk) for chunk in chunks])
                np.testing.assert_array_equal(found, whole.data)


def test_the_loss_alone_has_the_bits_of_the_logits(rng):
    x, targets = draw(rng, 40, 120), rng.integers(0, 90, 40)
    weight, bias = draw(rng, 90, 120), draw(rng, 90)
    losses, _ = native.cross_entropy_forward(native.matmul(x, weight.T, bias), targets)
    alone = native.linear_cross_entropy_losses(x, weight, bias, targets)
    np.testing.assert_array_equal(alone, losses)
