"""The native engine compared with NumPy: values and all gradients."""

import contextlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anaphora.cells import CELLS, cell, gru, lstm, mingru
from anaphora.engine import kernels, recurrence, updates

pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
TOLERANCES = {np.float32: 2e-5, np.float64: 1e-11}
# B, H, around the sizes of tiles.
SIZES = [(1, 1), (2, 15), (5, 16), (6, 17), (7, 33), (13, 65), (3, 200)]
PROJECTED = [name for name, c in CELLS.items() if not c.reads_output_state()]


def widened(array):
    return array.astype(np.float64)


def optional(function):
    """The same function, passing None through."""
    return lambda array: None if array is None else function(array)


def assert_close(found, expected, dtype):
    """Compare each result with that in float64, relative to the largest element."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == dtype, name
        scale = max(1, np.abs(array).max(initial=0))
        np.testing.assert_allclose(
            found[name], array, rtol=0, atol=TOLERANCES[dtype] * scale, err_msg=name
        )  # fmt: skip


def assert_as_numpy(p, dtype, **options):
    expected = p.copy(widened).results(recurrence, record=True, **options)
    assert_close(p.results(native, record=True, **options), expected, dtype)


def some_lengths(T, B):
    """All lengths from 0 to T, unordered."""
    return (np.arange(B) * 3 + 1) % (T + 1)


def available(native_settings):
    """The instruction sets of this machine and build; tile registers are emulated if need be."""
    found = []
    for name in ("amx", "amx-emulated", "avx512", "avx2", "baseline"):
        if name == "amx-emulated" and "amx" in found:
            continue
        with contextlib.suppress(ValueError):
            native_settings.use_instruction_set(name)
            found.append(name)
            yield name


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("B", "H"), SIZES)
@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name, B, H, dtype, problem, rng):
    p = problem(CELLS[name], rng, dtype, T=4, B=B, H=H)
    assert_as_numpy(p, dtype)
    assert_as_numpy(p, dtype, reverse=True)
    for reverse in (False, True):
        assert_as_numpy(p, dtype, lengths=some_lengths(4, B), reverse=reverse)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("B", "H", "P"), [(2, 15, 3), (7, 33, 16), (13, 65, 17), (3, 5, 9)])
@pytest.mark.parametrize("name", PROJECTED)
def test_projections(name, B, H, P, dtype, problem, rng):
    p = problem(CELLS[name], rng, dtype, T=4, B=B, H=H, P=P)
    assert_as_numpy(p, dtype)
    for reverse in (False, True):
        assert_as_numpy(p, dtype, lengths=some_lengths(4, B), reverse=reverse)


def gated(count):
    """A cell of `count` gates: full ones, input halves, recurrent halves, and both halves apart."""
    forms = ["tanh({})", "sigmoid({}.x)", "tanh({}.h)", "sigmoid({0}.x) * tanh({0}.h)"]
    gates = [f"g{k}" for k in range(count)]
    terms = [f"{k + 1} / 8 * {forms[k % 4].format(gate)}" for k, gate in enumerate(gates)]
    names = {}
    exec(
        "from anaphora.equations import *\n"
        f"def gated({', '.join(gates)}, h):\n    h = 0.5 * h + {' + '.join(terms)}\n    return h",
        names,
    )
    return cell(gates=" ".join(gates), state="h")(names["gated"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("H", [3, 16, 33, 70])
@pytest.mark.parametrize("count", range(1, 8))
def test_numbers_of_gates(count, H, dtype, problem, rng):
    p = problem(gated(count), rng, dtype, T=3, B=6, H=H)
    assert_as_numpy(p, dtype)
    assert_as_numpy(p, dtype, lengths=some_lengths(3, 6), reverse=True)


@settings(max_examples=60)
@given(
    data=st.data(),
    T=st.integers(0, 4),
    B=st.integers(0, 9),
    H=st.integers(1, 40),
    P=st.integers(1, 20),
    dtype=st.sampled_from(FLOATS),
    padded=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_cell(problem, random_cells, data, T, B, H, P, dtype, padded, reverse, seed):
    cell, may_be_projected = data.draw(random_cells)
    P = P if may_be_projected and data.draw(st.booleans()) else None
    p = problem(cell, np.random.default_rng(seed), dtype, T, B, H, P)
    lengths = some_lengths(T, B) if padded else None
    if dtype == np.float64:
        assert_as_numpy(p, dtype, lengths=lengths, reverse=reverse)
    else:  # kinks and cancellation: float32 on NumPy is the reference
        expected = p.results(recurrence, lengths, reverse, record=True)
        for name, array in p.results(native, lengths, reverse, record=True).items():
            assert array.dtype == dtype
            np.testing.assert_allclose(array, expected[name], rtol=2e-3, atol=2e-3, err_msg=name)


@settings(max_examples=60)
@given(
    data=st.data(),
    lengths=st.lists(st.integers(0, 4), min_size=5, max_size=5),
    I=st.sampled_from([0, 5]),
    reverse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_cells_that_are_singular_at_padding(
    problem, singular_cells, data, lengths, I, reverse, seed
):
    cell, _ = data.draw(singular_cells)
    p = problem(cell, np.random.default_rng(seed), B=5, I=I)
    p.bias_ih = None
    found = p.results(native, np.array(lengths), reverse, record=True)
    assert all(np.isfinite(array).all() for array in found.values())
    assert_as_numpy(p, np.float64, lengths=np.array(lengths), reverse=reverse)


@pytest.mark.parametrize("cell", [lstm, gru, mingru], ids=lambda c: c.name)
@pytest.mark.parametrize(("T", "B", "H"), list(itertools.product([0, 2], [0, 3], [1, 5])))
def test_nothing_to_do(cell, T, B, H, problem, rng):
    p = problem(cell, rng, T=T, B=B, H=H)
    assert_as_numpy(p, np.float64)
    assert_as_numpy(p, np.float64, lengths=np.full(B, T))


def test_no_bias_and_no_output_gradient(problem, rng):
    p = problem(lstm, rng, B=7, H=20)
    p.bias_hh = None
    assert_as_numpy(p, np.float64)
    p.d_output = None
    assert_as_numpy(p, np.float64, lengths=some_lengths(4, 7))
    p.d_final = [None, p.d_final[1]]
    assert_as_numpy(p, np.float64)


def test_other_precisions_use_numpy(problem, rng):
    p = problem(lstm, rng, np.float16)
    expected = p.results(recurrence, record=True)
    for name, array in p.results(native, record=True).items():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    a = rng.standard_normal((3, 4)).astype(np.float16)
    for found, reference in (
        (native.matmul(a, a.T), a @ a.T),
        (native.sum_columns(a), kernels.sum_columns(a)),
        (native.erf(a), kernels.erf(a)),
        (native.matmul(np.arange(6).reshape(2, 3), np.ones((3, 1), int)), [[3], [12]]),
    ):
        np.testing.assert_array_equal(found, reference)


# Without a loop over time ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("K", [0, 1, 3, 127, 128, 129, 300])
@pytest.mark.parametrize("N", [0, 1, 15, 16, 17, 63, 65, 130, 200])
def test_matmul(N, K, bias, dtype, rng):
    for M in (0, 1, 2, 5, 6, 7, 13, 145):
        a, b = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
        c = rng.standard_normal(N).astype(dtype) if bias else None
        expected = widened(a) @ widened(b) + (0 if c is None else c)
        found = native.matmul(a, b, c)
        assert_close({"product": found}, {"product": expected}, dtype)
        for other in (
            native.matmul(np.asfortranarray(a), b, c),
            native.matmul(a, np.asfortranarray(b), c),
            native.matmul(a[::-1], b, c)[::-1],
            native.matmul(a, b[:, ::-1], None if c is None else c[::-1])[:, ::-1],
        ):
            np.testing.assert_array_equal(other, found)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(13, 790, 850), (400, 21, 1700), (203, 1160, 67), (800, 390, 70), (90, 400, 7000)]
)
def test_large_matmul_on_any_number_of_threads(shape, dtype, rng, native_settings):
    """Products of several blocks of rows, columns and depth, divided by the number of threads."""
    M, K, N = shape
    a, b = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
    bias = rng.standard_normal(N).astype(dtype)
    found = {}
    for threads in (1, 2, 3, 5):
        native_settings.set_num_threads(threads)
        found[threads] = native.matmul(a, b, bias)
        for other in (
            native.matmul(np.asfortranarray(a), b, bias),
            native.matmul(a, np.asfortranarray(b), bias),
            found[1],
        ):
            np.testing.assert_array_equal(other, found[threads])
    expected = widened(a) @ widened(b) + bias
    assert_close({"product": found[1]}, {"product": expected}, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 5), (7, 1), (3, 50, 63)])
def test_erf(shape, dtype, rng):
    x = np.asarray(3 * rng.standard_normal(shape), dtype)
    expected = np.vectorize(math.erf, otypes=[float])(x)
    found = native.erf(x)
    assert (found.shape, found.dtype) == (shape, dtype)
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(native.erf(x.T), found.T)  # bits depend on no other element
    special = native.erf(np.array([np.inf, -np.inf, np.nan, 0, 1e-30], dtype))
    np.testing.assert_allclose(special, [1, -1, np.nan, 0, 2e-30 / math.sqrt(math.pi)], rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (7, 1), (3, 0), (50, 63), (9, 200)])
def test_sum_columns(shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    expected = widened(x).sum(axis=0)
    assert_close({"sums": native.sum_columns(x)}, {"sums": expected}, dtype)
    np.testing.assert_array_equal(
        native.sum_columns(np.asfortranarray(x)), native.sum_columns(x)
    )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("V", [1, 2, 15, 16, 17, 33, 1000])
@pytest.mark.parametrize("N", [0, 1, 7, 8, 9, 40])
def test_cross_entropy(N, V, dtype, rng):
    logits = (5 * rng.standard_normal((N, V))).astype(dtype)
    targets = rng.integers(0, V, N)
    d_losses = rng.standard_normal(N).astype(dtype)
    losses, probabilities = native.cross_entropy_forward(logits, targets)
    d_logits = native.cross_entropy_backward(probabilities, targets, d_losses)
    wide_losses, wide = kernels.cross_entropy_forward(widened(logits), targets)
    expected = kernels.cross_entropy_backward(wide, targets, widened(d_losses))
    assert_close(
        {"losses": losses, "probabilities": probabilities, "d": d_logits},
        {"losses": wide_losses, "probabilities": wide, "d": expected},
        dtype,
    )
    assert probabilities.min(initial=0) >= 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_of_logits_far_apart(dtype):
    infinity = np.inf
    logits = np.array([[1e4, 0, -1e4], [3, -infinity, 3], [-1e30, -1e30, -1e30]], dtype)
    losses, probabilities = native.cross_entropy_forward(logits, np.array([1, 0, 2]))
    np.testing.assert_allclose(losses, [1e4, np.log(2), np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(
        probabilities, [[1, 0, 0], [0.5, 0, 0.5], [1 / 3] * 3], rtol=1e-6
    )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_in_place(dtype, rng):
    logits, targets = rng.standard_normal((9, 33)).astype(dtype), rng.integers(0, 33, 9)
    expected = native.cross_entropy_forward(logits, targets)
    found = native.cross_entropy_forward(logits, targets, in_place=True)
    assert np.shares_memory(found[1], logits)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.pairs
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("K", [0, 1, 5, 300])
@pytest.mark.parametrize(("N", "V"), [(0, 3), (1, 1), (9, 16), (33, 47), (100, 1000), (37, 70_001)])
def test_losses_without_all_logits_are_the_same_bits(N, V, K, bias, dtype, native_settings, rng):
    if V * K > 10_000_000:
        K = 20
    x, weight = rng.standard_normal((N, K)).astype(dtype), rng.standard_normal((V, K)).astype(dtype)
    b, targets = rng.standard_normal(V).astype(dtype) if bias else None, rng.integers(0, V, N)
    for name in available(native_settings):
        native_settings.use_instruction_set(name)
        expected, _ = native.cross_entropy_forward(native.matmul(x, weight.T, b), targets)
        losses = native.linear_cross_entropy_losses(x, weight, b, targets)
        np.testing.assert_array_equal(losses, expected, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
def test_losses_of_logits_with_nan(dtype):
    weight = np.array([[1, 0], [np.inf, 0], [0, np.nan], [0, 1]], dtype)
    x, targets = np.array([[1, 0], [0, 1], [-1, 1], [2, 3]], dtype), np.array([0, 1, 2, 3])
    expected, _ = native.cross_entropy_forward(native.matmul(x, weight.T), targets)
    losses = native.linear_cross_entropy_losses(x, weight, None, targets)
    np.testing.assert_array_equal(losses, expected)
    assert np.isnan(losses).all()


# Rows, dropout, normalisation ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (9, 30), (3000,)], ids=str)
@pytest.mark.parametrize("width", [0, 1, 17, 650])
def test_rows(width, shape, dtype, rng):
    table, ids = rng.standard_normal((40, width)).astype(dtype), rng.integers(0, 40, shape)
    np.testing.assert_array_equal(native.gather_rows(table, ids), table[ids])
    values = rng.standard_normal((ids.size, width)).astype(dtype)
    rows, sums = native.sum_rows(ids.reshape(-1), values)
    expected = {}
    for i, value in zip(ids.reshape(-1).tolist(), values, strict=True):
        expected[i] = expected[i] + value if i in expected else value
    assert rows.tolist() == sorted(expected)
    assert sums.dtype == dtype
    for row, found in zip(rows.tolist(), sums, strict=True):
        np.testing.assert_array_equal(found, expected[row])


def test_sums_of_rows_of_any_shape(rng):
    ids = rng.integers(0, 9, 50)
    for shape in ((50,), (50, 2, 3), (50, 2, 0)):
        values = rng.standard_normal(shape)
        for found, expected in zip(
            native.sum_rows(ids, values), kernels.sum_rows(ids, values), strict=True
        ):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [0, 1, 15, 63, 64, 65, 4095, 4097, 100_003])
def test_dropout_equals_numpy_bit_for_bit(size, dtype, native_settings, rng):
    x = rng.standard_normal(size).astype(dtype)
    for key in (0, 1, 2**32 - 1, 2**32, 2**64 - 1, int(rng.integers(2**63))):
        rate = float(rng.uniform(0.01, 0.99))
        expected = kernels.dropout(x, rate, key)
        for name in available(native_settings):
            native_settings.use_instruction_set(name)
            found = native.dropout(x, rate, key)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("axes", [(), (0,), (-3,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("shape", [(5, 3, 70), (1, 3, 70), (5, 1, 70), (5, 3, 1), (5, 0, 70)])
def test_shared_dropout_equals_numpy_bit_for_bit(shape, axes, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    expected = kernels.dropout(x, 0.3, 77, axes)
    np.testing.assert_array_equal(native.dropout(x, 0.3, 77, axes), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("parts", ["", "weight", "bias", "weight bias"])
@pytest.mark.parametrize("H", [1, 5, 16, 17, 31, 64, 650])
@pytest.mark.parametrize("N", [0, 1, 9])
def test_layer_norm(N, H, parts, dtype, native_settings, rng):
    x, dy = (3 * rng.standard_normal((2, N, H)) + [[[5]], [[0]]]).astype(dtype)
    weight, bias = rng.standard_normal((2, H)).astype(dtype)
    weight, bias = (
        v if name in parts else None for v, name in ((weight, "weight"), (bias, "bias"))
    )
    for name in available(native_settings):
        native_settings.use_instruction_set(name)
        results = []
        for side, wide in ((native, lambda a: a), (kernels, optional(widened))):
            y, means, factors = side.layer_norm_forward(wide(x), wide(weight), wide(bias), 0.1)
            d = side.layer_norm_backward(wide(x), wide(weight), means, factors, wide(dy))
            names = ("y", "means", "factors", "dx", "d weight", "d bias")
            results.append(dict(zip(names, (y, means, factors, *d), strict=True)))
        assert_close(*results, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("parts", ["", "weight bias mask", "bias mask"])
@pytest.mark.parametrize(("N", "I"), [(2, 1), (9, 5), (300, 40), (513, 17)])
def test_batch_norm(N, I, parts, dtype, native_settings, rng):
    x, dy = (3 * rng.standard_normal((2, N, I)) + [[[5]], [[0]]]).astype(dtype)
    weight, bias = rng.standard_normal((2, I)).astype(dtype)
    weight, bias = (
        v if name in parts else None for v, name in ((weight, "weight"), (bias, "bias"))
    )
    mask = np.arange(N) % 4 < 3 if "mask" in parts else None
    for name in available(native_settings):
        native_settings.use_instruction_set(name)
        results = []
        for side, wide in ((native, lambda a: a), (kernels, optional(widened))):
            forward = side.batch_norm_forward(wide(x), mask, wide(weight), wide(bias), 0.1)
            _, means, _, factors = forward
            d = side.batch_norm_backward(wide(x), mask, wide(weight), means, factors, wide(dy))
            names = ("y", "means", "variances", "factors", "dx", "d weight and bias")
            results.append(dict(zip(names, (*forward, *d), strict=True)))
        assert_close(*results, dtype)
        bits = []
        for threads in (1, 2, 3, 5):
            native.set_num_threads(threads)
            y, means, _, factors = native.batch_norm_forward(x, mask, weight, bias, 0.1)
            d = native.batch_norm_backward(x, mask, weight, means, factors, dy)
            bits.append([a.tobytes() for a in (y, means, factors, *d)])
        assert all(other == bits[0] for other in bits)


# Updates ------------------------------------------------------------------------------------------

SGD = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.01}
MOVING = {"momentum": 0.7, "nesterov": False, "weight_decay": 0.0}
ADAM = {"betas": (0.8, 0.9), "epsilon": 0.01, "weight_decay": 0.1}
RMSPROP = {"alpha": 0.6, "epsilon": 0.01, "weight_decay": 0.1}
UPDATES = {
    "sgd": ("sgd_update", "n", SGD),
    "momentum": ("sgd_update", "+", MOVING),
    "nesterov": ("sgd_update", "+", MOVING | {"nesterov": True, "weight_decay": 0.1}),
    "adam": ("adam_update", "++", ADAM | {"step": 3, "decoupled": False}),
    "adamw": ("adam_update", "++", ADAM | {"step": 3, "decoupled": True}),
    "rmsprop": ("rmsprop_update", "+nn", RMSPROP | {"momentum": 0.0}),
    "rmsprop centred": ("rmsprop_update", "+sn", RMSPROP | {"momentum": 0.0}),
    "rmsprop with momentum": ("rmsprop_update", "+n+", RMSPROP | {"momentum": 0.5}),
    "rmsprop with all": ("rmsprop_update", "+s+", RMSPROP | {"momentum": 0.5}),
    "adagrad": ("adagrad_update", "+", {"epsilon": 0.01, "weight_decay": 0.1}),
}


def state_of(kinds, shape, rng, dtype):
    """Arrays of an optimiser state: "+" positive, "s" small, "n" None."""
    scales = {"+": 1.0, "s": 0.1}
    return [
        None if kind == "n" else np.asarray(scales[kind] * (0.1 + rng.random(shape)), dtype)
        for kind in kinds
    ]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (17,), (5, 13), (130, 301)], ids=str)
@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_optimisers(name, shape, dtype, native_settings, rng):
    function, kinds, options = UPDATES[name]
    start, d = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    state = state_of(kinds, shape, rng, dtype)
    for instructions in available(native_settings):
        native_settings.use_instruction_set(instructions)
        for odd in (np.array, np.asfortranarray, lambda a: np.repeat(a[..., None], 2, -1)[..., 0]):
            results = []
            for side, change in ((native, lambda a, odd=odd: odd(a.copy())), (updates, widened)):
                arrays = [optional(change)(a) for a in (start, d, *state)]
                gradient = arrays[1].copy()
                getattr(side, function)(*arrays, learning_rate=0.3, **options)
                np.testing.assert_array_equal(arrays[1], gradient)
                results.append({str(k): a for k, a in enumerate(arrays) if a is not None})
            assert_close(*results, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_mixed_precisions_use_numpy(dtype, rng):
    other = np.float64 if dtype == np.float32 else np.float32
    start, d = rng.standard_normal(9).astype(dtype), rng.standard_normal(9).astype(other)
    found, expected = start.copy(), start.copy()
    for side, parameter in ((native, found), (updates, expected)):
        side.sgd_update(parameter, d, None, learning_rate=0.3, **SGD)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_averages(dtype, rng):
    values = rng.standard_normal((5, 1000)).astype(dtype)
    average = np.full(1000, np.nan, dtype)
    for count, value in enumerate(values, start=1):
        native.average_update(average, value, count)
    np.testing.assert_allclose(average, widened(values).mean(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (17,), (5, 13), (300, 301)], ids=str)
def test_updates(shape, dtype, rng):
    d, start = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    options = {"learning_rate": 0.3, "momentum": 0.0, "nesterov": False, "weight_decay": 0.01}
    for odd in (np.array, np.asfortranarray, lambda a: np.repeat(a[..., None], 2, -1)[..., 0]):
        results = []
        for side in (native, updates):
            parameter, scaled = odd(start.copy()), odd(d.copy())
            side.sgd_update(parameter, odd(d), None, **options)
            side.scale(scaled, 0.7)
            results.append({"parameter": parameter, "scaled": scaled})
        assert_close(*results, dtype)
    norms = native.global_norm([d, start]), updates.global_norm([widened(d), widened(start)])
    np.testing.assert_allclose(*norms, rtol=1e-6 if dtype == np.float32 else 1e-13)
