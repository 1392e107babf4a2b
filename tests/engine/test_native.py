"""The native engine beside NumPy: values and all gradients."""

import itertools

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
SIZES = [(1, 1), (2, 15), (5, 16), (6, 17), (7, 33), (13, 65), (3, 200)]  # B, H: tiles and beside
PROJECTED = [name for name, c in CELLS.items() if not c.reads_output_state()]


def widened(array):
    return array.astype(np.float64)


def assert_close(found, expected, dtype):
    """Each result beside that in float64, in units of the largest of its kind."""
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
    """All lengths from 0 to T, in no order."""
    return (np.arange(B) * 3 + 1) % (T + 1)


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
    """A cell of so many gates: whole ones, input halves, recurrent halves and both apart."""
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


@settings(max_examples=60, deadline=None)
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
    drawn, may_be_projected = data.draw(random_cells)
    P = P if may_be_projected and data.draw(st.booleans()) else None
    p = problem(drawn, np.random.default_rng(seed), dtype, T, B, H, P)
    lengths = some_lengths(T, B) if padded else None
    if dtype == np.float64:
        assert_as_numpy(p, dtype, lengths=lengths, reverse=reverse)
    else:  # kinks, and differences of near numbers: what float32 itself reaches is the measure
        expected = p.results(recurrence, lengths, reverse, record=True)
        for name, array in p.results(native, lengths, reverse, record=True).items():
            assert array.dtype == dtype
            np.testing.assert_allclose(array, expected[name], rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("cell", [lstm, gru, mingru], ids=lambda c: c.name)
@pytest.mark.parametrize(("T", "B", "H"), list(itertools.product([0, 2], [0, 3], [1, 5])))
def test_nothing_to_do(cell, T, B, H, problem, rng):
    p = problem(cell, rng, T=T, B=B, H=H)
    assert_as_numpy(p, np.float64)
    assert_as_numpy(p, np.float64, lengths=np.full(B, T))


def test_what_has_no_bias_and_no_gradient_from_above(problem, rng):
    p = problem(lstm, rng, B=7, H=20)
    p.bias_hh = None
    assert_as_numpy(p, np.float64)
    p.d_output = None
    assert_as_numpy(p, np.float64, lengths=some_lengths(4, 7))
    p.d_final = [None, p.d_final[1]]
    assert_as_numpy(p, np.float64)


def test_other_precisions_go_to_numpy(problem, rng):
    p = problem(lstm, rng, np.float16)
    expected = p.results(recurrence, record=True)
    for name, array in p.results(native, record=True).items():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    a = rng.standard_normal((3, 4)).astype(np.float16)
    for found, wanted in (
        (native.matmul(a, a.T), a @ a.T),
        (native.sum_columns(a), kernels.sum_columns(a)),
        (native.matmul(np.arange(6).reshape(2, 3), np.ones((3, 1), int)), [[3], [12]]),
    ):
        np.testing.assert_array_equal(found, wanted)


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
