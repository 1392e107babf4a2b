"""Matrix products in bfloat16: bit for bit those of a reference in NumPy, on every instruction set.

The reference rounds both operands and sums in the order of src/formats/bfloat16.h.
"""

import concurrent.futures
import functools
import itertools

import numpy as np
import pytest

from anaphora import engine, matmul_precision, set_matmul_precision
from anaphora.cells import cell, gru, lstm, rnn
from anaphora.engine import current_matmul_precision, kernels, recurrence
from anaphora.engine.precision import rounded, with_current_precision
from anaphora.equations import relu, sigmoid, tanh

TILES = ("amx", "amx-emulated")


@cell(gates="n m", state="h c", parameters="p")
def rectified(n, m, h, c, p):
    """A cell without exponentials: engines compute the same bits, given the same products."""
    c = 0.5 * c + relu(n.x + n.h)
    return c - relu(m) * p, c


@cell(gates="f n", state="h c", parameters="p")
def own(f, n, h, c, p):
    f = sigmoid(f + p * c)
    c = f * c + (1 - f) * tanh(n)
    return tanh(2 * c), c


@pytest.fixture
def native(native_settings):
    return pytest.importorskip("anaphora.engine.native")


@pytest.fixture
def nearest(nearest_bfloat16):
    return nearest_bfloat16


@pytest.fixture
def product(nearest):
    """The product of an instruction set."""
    return lambda name, a, b, bias=None: ordered_product(name, nearest(a), nearest(b), bias)


def ordered_product(name, a, b, bias):
    """[M, K] times [K, N] with sums in the order of an instruction set."""
    block = 32 if name in TILES else 2
    missing = -len(b) % block
    a, b = np.pad(a, ((0, 0), (0, missing))), np.pad(b, ((0, missing), (0, 0)))
    sums = np.zeros((len(a), b.shape[1]), np.float32)
    terms = [(a[:, k, None], b[None, k]) for k in range(len(b))]
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(b), block):
            if name in TILES:
                even, odd = np.zeros_like(sums), np.zeros_like(sums)
                for k in range(start, start + block, 2):
                    even = even + terms[k][0] * terms[k][1]
                    odd = odd + terms[k + 1][0] * terms[k + 1][1]
                sums = sums + (even + odd)
            else:
                for x, y in (terms[start + 1], terms[start]):
                    sums = sums + x * y
        return sums if bias is None else sums + bias


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def in_layouts(x):
    """The same numbers in every layout in memory that the engine tells apart."""
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    return x, np.asfortranarray(x), wide, backwards, unaligned


# Rounding ----------------------------------------------------------------------------------------


def test_rounding_to_the_nearest(nearest):
    ulp = 2.0**-7
    for given, expected in {
        1 + ulp / 2: 1,  # ties go to even
        1 + 1.5 * ulp: 1 + 2 * ulp,
        1 + ulp / 2 + 2**-20: 1 + ulp,
        -(1 + 1.5 * ulp): -(1 + 2 * ulp),
        3.4e38: np.inf,  # the largest is 3.39e38
        2.0**-126: 2.0**-126,
        2.0**-126 - 2.0**-149: 0,
        -1e-40: -0.0,
        np.inf: np.inf,
        -np.inf: -np.inf,
    }.items():
        with matmul_precision("bfloat16"):
            found = rounded(np.array([[given]], np.float32))
        assert found == nearest(np.array([[given]], np.float32)) == expected
        assert np.signbit(found) == np.signbit(expected)
    with matmul_precision("bfloat16"):
        nans = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
        assert np.isnan(rounded(nans)).all()
        assert rounded(np.zeros((0, 3), np.float32)).shape == (0, 3)
        assert rounded(np.zeros((2, 3, 4), np.float32)[:, ::2].T).shape == (4, 2, 2)


def test_random_bits_are_rounded(rng, nearest):
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    with matmul_precision("bfloat16"):
        found = rounded(bits)
    np.testing.assert_array_equal(found, nearest(bits))
    assert not (found[~np.isnan(found)].view(np.uint32) & 0xFFFF).any()


def test_other_precisions_stay_as_they_are(rng):
    for x in (normal(rng, 5), rng.standard_normal(5), rng.standard_normal(5).astype(np.float16)):
        assert rounded(x) is x
    with matmul_precision("bfloat16"):
        for x in (rng.standard_normal(5), rng.standard_normal(5).astype(np.float16)):
            assert rounded(x) is x


# Products ----------------------------------------------------------------------------------------

# Around the lines of 16 numbers, pairs of terms, 32 of them to a tile, 1,024 to a block.
SIZES = [
    (1, 1, 1), (2, 3, 5), (1, 64, 100), (3, 31, 17), (16, 32, 16), (17, 33, 15), (33, 63, 33),
    (5, 129, 64), (37, 100, 70), (32, 96, 130), (70, 1024, 20), (9, 2049, 66), (1, 1025, 16),
    (130, 2, 47), (6, 5, 600), (400, 65, 9),
]  # fmt: skip


@pytest.mark.parametrize("gradient", ["", "input", "weight"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products(size, gradient, instruction_set, native, rng, product):
    M, K, N = size
    a, b, bias = normal(rng, M, K), normal(rng, K, N), normal(rng, N)
    expected = product(instruction_set, a, b)
    with matmul_precision("bfloat16"):
        found = native.matmul(a, b, gradient=gradient)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
        found = native.matmul(a, b, bias, gradient=gradient)
        np.testing.assert_array_equal(found, expected + bias)
    assert np.abs(expected - a @ b).max() > 0  # float32's are others


@pytest.mark.parametrize("gradient", ["", "input", "weight"])
def test_products_of_any_layout(gradient, instruction_set, native, rng, product):
    for M, K, N in [(19, 37, 50), (1, 40, 21), (40, 33, 1)]:
        a, b = normal(rng, M, K), normal(rng, K, N)
        expected = product(instruction_set, a, b)
        with matmul_precision("bfloat16"):
            for x, y in itertools.product(in_layouts(a), in_layouts(b)):
                np.testing.assert_array_equal(native.matmul(x, y, gradient=gradient), expected)


def test_products_without_rows_terms_or_columns(instruction_set, native, rng):
    bias = normal(rng, 5)
    with matmul_precision("bfloat16"):
        for gradient in ("", "input", "weight"):
            for M, N in ((3, 5), (0, 5), (3, 0)):
                a, b = np.zeros((M, 0), np.float32), np.zeros((0, N), np.float32)
                np.testing.assert_array_equal(native.matmul(a, b, gradient=gradient), a @ b)
            found = native.matmul(np.zeros((3, 0), "f"), np.zeros((0, 5), "f"), bias)
            np.testing.assert_array_equal(found, np.tile(bias, (3, 1)))
            assert native.matmul(np.zeros((0, 4), "f"), normal(rng, 4, 5)).shape == (0, 5)


@pytest.mark.parametrize("K", [7, 64, 100])
def test_nan_infinity_and_small_numbers(K, instruction_set, native, rng, product):
    """They stay in their rows and columns; operands below 2^-126 are 0."""
    a, b = normal(rng, 40, K), normal(rng, K, 35)
    a[3, 2], a[5, K - 1], a[7, 1], a[8, 0] = np.nan, np.inf, 3.4e38, -np.inf
    a[10], a[11, 3] = 1e-39, -1e-45
    b[4, 9], b[0, 11], b[:, 13] = np.inf, np.nan, 2.0**-127
    a[20, 4] = 0  # times infinity
    expected = product(instruction_set, a, b)
    assert np.isnan(expected[20, 9])
    assert not expected[10, 0]
    assert not expected[0, 13]
    for gradient in ("", "input", "weight"):
        with matmul_precision("bfloat16"):
            found = native.matmul(a, b, gradient=gradient)
        np.testing.assert_array_equal(found, expected)


def test_sums_overflow_to_infinity(instruction_set, native):
    a = np.full((2, 40), 1e20, np.float32)
    with matmul_precision("bfloat16"):
        np.testing.assert_array_equal(native.matmul(a, a.T), np.full((2, 2), np.inf))


@pytest.mark.parametrize(("M", "K", "P"), [(3, 17, 40), (1, 33, 5), (20, 5, 1)])
def test_products_of_batches(M, K, P, instruction_set, native, rng, nearest):
    """Each a chain along K in float32, of rounded operands."""
    a, b = normal(rng, 4, M, K), normal(rng, 4, K, P)
    with matmul_precision("bfloat16"):
        found, on_numpy = native.batch_matmul(a, b), kernels.batch_matmul(a, b)
    np.testing.assert_array_equal(found, native.batch_matmul(nearest(a), nearest(b)))
    np.testing.assert_allclose(found, nearest(a) @ nearest(b), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(on_numpy, nearest(a) @ nearest(b))


def test_products_on_numpy(rng, nearest):
    a, b, bias = normal(rng, 5, 40), normal(rng, 40, 7), normal(rng, 7)
    with matmul_precision("bfloat16"):
        found = kernels.matmul(a, b, bias)
    np.testing.assert_array_equal(found, nearest(a) @ nearest(b) + bias)
    assert np.abs(found - kernels.matmul(a, b, bias)).max() > 1e-4


def test_losses_without_all_logits(instruction_set, native, rng, product):
    x, weight, bias = normal(rng, 40, 33), normal(rng, 77, 33), normal(rng, 77)
    targets = rng.integers(0, 77, 40)
    expected, _ = native.cross_entropy_forward(product(instruction_set, x, weight.T, bias), targets)
    with matmul_precision("bfloat16"):
        found = native.linear_cross_entropy_losses(x, weight, bias, targets)
    np.testing.assert_array_equal(found, expected)


def test_products_of_float64_stay_as_they_are(instruction_set, native, problem, rng):
    a, b = rng.standard_normal((5, 200)), rng.standard_normal((200, 33))
    p = problem(lstm, rng, np.float64, P=3)

    def results():
        batch = native.batch_matmul(a[None], b[None])
        losses = native.linear_cross_entropy_losses(a, b.T, None, np.arange(5))
        return [native.matmul(a, b), batch, losses, *p.results(native).values()]

    expected = results()
    with matmul_precision("bfloat16"):
        for found, wanted in zip(results(), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


# Recurrences -------------------------------------------------------------------------------------


@pytest.mark.parametrize("P", [None, 9])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("B", "H", "I"), [(1, 5, 3), (3, 33, 11), (20, 40, 35)])
def test_recurrences_to_the_bit(
    B, H, I, ragged, reverse, P, instruction_set, native, problem, rng, monkeypatch, product
):
    """Of a cell whose equations have the same bits on both engines."""
    p = problem(rectified, rng, np.float32, T=5, B=B, H=H, I=I, P=P)
    lengths = rng.integers(0, 6, B) if ragged else None
    with monkeypatch.context() as patch:  # the NumPy engine with these products
        patch.setattr(recurrence, "matmul", functools.partial(product, instruction_set))
        expected = p.results(recurrence, lengths, reverse)
    with matmul_precision("bfloat16"):
        found = p.results(native, lengths, reverse)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if name.startswith(
            ("d weight", "d bias", "d parameter")
        ):  # sums over rows in another order
            scale = np.abs(array).max()
            np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-6 * scale, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("declared", "P"), [(rnn, None), (lstm, None), (lstm, 9), (gru, None), (own, None), (own, 9)]
)
def test_recurrences_and_the_numpy_engine(
    declared, reverse, P, instruction_set, native, problem, rng
):
    """A number that the engines round to another neighbour differs by 2^-8 of its size."""
    p = problem(declared, rng, np.float32, T=5, B=6, H=33, I=11, P=P)
    in_float32 = p.results(native, np.array([3, 0, 5, 5, 1, 4]), reverse)
    with matmul_precision("bfloat16"):
        found = p.results(native, np.array([3, 0, 5, 5, 1, 4]), reverse)
        expected = p.results(recurrence, np.array([3, 0, 5, 5, 1, 4]), reverse)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(found[name], array, rtol=0, atol=2**-8 * scale, err_msg=name)
        # They are far closer to each other than to float32.
        away = np.abs(found[name] - in_float32[name]).mean()
        assert np.abs(found[name] - array).mean() < 0.2 * away, name


def test_a_backward_pass_has_the_precision_of_its_forward_pass(native, problem, rng):
    p = problem(lstm, rng, np.float32, B=5, H=20)
    with matmul_precision("bfloat16"):
        expected = p.results(native)
        steps = p.forward(native)
    found = p.backward(native, steps)
    np.testing.assert_array_equal(found.x, expected["d x"])
    np.testing.assert_array_equal(found.weights.weight_hh, expected["d weight_hh"])


# Instruction sets --------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("avx512", "avx2", "baseline"), TILES], ids=str)
def test_instruction_sets_that_agree(names, native_settings, native, problem, rng):
    """In products; what is not one, such as an exponential, differs on the baseline."""
    a, b = normal(rng, 70, 333), normal(rng, 333, 90)
    problems = [problem(rectified, rng, np.float32, B=B, H=H, P=9) for B, H in ((1, 65), (20, 40))]
    found = {}
    for name in names:
        try:
            native_settings.use_instruction_set(name)
        except ValueError:
            continue
        with matmul_precision("bfloat16"):
            found[name] = [native.matmul(a, b, gradient=g) for g in ("", "input", "weight")]
            for p in problems:
                results = p.results(native)
                found[name] += [v for k, v in results.items() if not k.startswith("d parameter")]
    if len(found) < 2:
        pytest.skip(f"this machine or build has but one of {', '.join(names)}")
    first, *others = found.values()
    for other in others:
        for array, expected in zip(other, first, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_tiles_and_vectors_sum_in_other_orders(
    native_settings, native, tile_registers, rng, nearest
):
    a, b = normal(rng, 40, 96), normal(rng, 96, 40)
    with matmul_precision("bfloat16"):
        on_tiles = native.matmul(a, b)
        native_settings.use_instruction_set("baseline")
        assert not np.array_equal(native.matmul(a, b), on_tiles)
    np.testing.assert_allclose(on_tiles, nearest(a) @ nearest(b), rtol=1e-4, atol=1e-4)


def test_what_multiplies_bfloat16(instruction_set, native):
    unit = native.info()["bfloat16"]
    if instruction_set in ("amx", "avx512"):
        assert unit in {"amx": ("tiles",), "avx512": ("dots", "vectors")}[instruction_set]
    else:
        assert unit == "vectors"


# Where a precision is in force -------------------------------------------------------------------


def test_contexts_nest_and_end():
    assert current_matmul_precision() == "float32"
    with matmul_precision("bfloat16"):
        with matmul_precision("float32"):
            assert current_matmul_precision() == "float32"
        assert current_matmul_precision() == "bfloat16"
        with pytest.raises(ZeroDivisionError), matmul_precision("float32"):
            raise ZeroDivisionError
        assert current_matmul_precision() == "bfloat16"
    assert current_matmul_precision() == "float32"


@pytest.mark.parametrize("given", ["bf16", "float64", "", None, np.float32])
def test_unknown_precisions_are_refused(given):
    for use in (set_matmul_precision, lambda name: matmul_precision(name).__enter__()):
        with pytest.raises(ValueError, match=r"is .*; expected 'float32' or 'bfloat16'"):
            use(given)
    assert current_matmul_precision() == "float32"


def test_threads_have_their_own_precisions(rng):
    a = normal(rng, 40, 40)
    expected = {}
    for name in ("float32", "bfloat16"):
        with matmul_precision(name):
            expected[name] = engine.matmul(a, a)
    assert not np.array_equal(*expected.values())

    def run(name):
        with matmul_precision(name):
            return all(np.array_equal(engine.matmul(a, a), expected[name]) for _ in range(200))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert all(pool.map(run, ["float32", "bfloat16"]))
        with matmul_precision("bfloat16"):  # which is this thread's alone
            assert pool.submit(current_matmul_precision).result() == "float32"
        set_matmul_precision("bfloat16")
        try:
            assert pool.submit(current_matmul_precision).result() == "bfloat16"
            with matmul_precision("float32"):
                assert current_matmul_precision() == "float32"
        finally:
            set_matmul_precision("float32")


def test_an_iteration_keeps_its_precision():
    def steps():
        for _ in range(2):
            yield current_matmul_precision()

    with matmul_precision("bfloat16"):
        found = with_current_precision(steps())
    assert next(found) == "bfloat16"
    assert current_matmul_precision() == "float32"
    with matmul_precision("float32"):
        assert list(found) == ["bfloat16"]
