"""The native CTC loss against NumPy's: the same values, and the same bits, however it is split."""

import itertools

import numpy as np
import pytest

from anaphora.engine import ctc

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
CLASSES = [2, 3, 8, 9, 30]  # lines of 8 and around


def problem(rng, dtype, V, T=23, B=7, S=6, blank=1, scale=2.0, few=False):
    """Logits, targets, lengths, target lengths, the blank, and the weights of the rows.

    Lengths from 0 to T, those of targets from 0 to S; rows that are long enough and rows that are
    not. With few labels many neighbours are equal.
    """
    logits = (scale * rng.standard_normal((T, B, V))).astype(dtype)
    labels = np.delete(np.arange(V), blank)
    targets = rng.choice(labels[:2] if few else labels, (S, B))
    lengths = rng.permutation(np.round(np.linspace(0, T, B)).astype(int))
    target_lengths = rng.permutation(np.arange(B) % (S + 1))
    return logits, targets, lengths, target_lengths, blank, rng.standard_normal(B).astype(dtype)


def results(engine, *arrays):
    """Every value and gradient, by name."""
    *arrays, weights = arrays
    losses, normalizers, alphas = engine.ctc_forward(*arrays)
    d_logits = engine.ctc_backward(*arrays, losses, normalizers, alphas, weights)
    return {"losses": losses, "normalizers": normalizers, "alphas": alphas, "d_logits": d_logits}


def assert_equal(found, expected):
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def assert_close(found, expected, dtype):
    for name in ("losses", "normalizers", "alphas"):
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)
    assert found["d_logits"].dtype == dtype
    tolerance = {np.float32: 1e-6, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(found["d_logits"], expected["d_logits"], atol=tolerance, rtol=1e-6)


def alignments(logits, target, blank):
    """The probability of one row's target [T, V], and the shares of the labels, path by path."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    total, shares = 0.0, np.zeros_like(p)
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        spelled = [label for label, _ in itertools.groupby(path) if label != blank]
        if spelled == list(target):
            probability = np.prod(p[np.arange(len(path)), path])
            total += probability
            shares[np.arange(len(path)), path] += probability
    return total, p - shares / total if total else np.zeros_like(p)


@pytest.mark.parametrize("engine", [ctc, native])
@pytest.mark.parametrize("blank", [0, 2])
def test_every_alignment_is_counted(engine, blank, rng):
    targets = [[], [1], [1, 1], [1, 3], [3, 1, 3], [1, 1, 1, 1]]  # the last one takes seven steps
    T, B, V, S = 5, len(targets), 4, 4
    logits = 2 * rng.standard_normal((T, B, V))
    padded = np.array([target + [-9] * (S - len(target)) for target in targets]).T
    padded = np.where(padded == -9, 0, padded)
    counts = np.array([len(target) for target in targets])
    for lengths in (np.full(B, T), np.arange(B), np.array([0, 0, 3, 1, 4, 5])):
        losses, normalizers, alphas = engine.ctc_forward(logits, padded, lengths, counts, blank)
        weights = rng.standard_normal(B)
        d_logits = engine.ctc_backward(
            logits, padded, lengths, counts, blank, losses, normalizers, alphas, weights
        )
        for b, target in enumerate(targets):
            end = lengths[b]
            probability, gradient = alignments(logits[:end, b], target, blank)
            np.testing.assert_allclose(np.exp(-losses[b]), probability, rtol=1e-12)
            np.testing.assert_allclose(d_logits[:end, b], weights[b] * gradient, atol=1e-12)
            assert not d_logits[end:, b].any()
        assert np.isposinf(losses[-1])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("V", CLASSES)
def test_as_numpy(V, few, dtype, instructions, rng):
    arrays = problem(rng, dtype, V, few=few)
    expected = results(ctc, *arrays)
    assert 0 < np.isposinf(expected["losses"]).sum() < 7
    assert_close(results(native, *arrays), expected, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_logits(scale, dtype, instructions, rng):
    arrays = problem(rng, dtype, 9, scale=scale)
    found, expected = results(native, *arrays), results(ctc, *arrays)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-12)
    np.testing.assert_allclose(found["d_logits"], expected["d_logits"], atol=1e-5)
    assert np.isfinite(found["d_logits"]).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_long_sequences(dtype, instructions, rng):
    arrays = problem(rng, dtype, 5, T=700, B=3, S=40, scale=30.0)
    arrays = *arrays[:2], np.array([700, 600, 0]), np.array([40, 3, 0]), *arrays[4:]
    found, expected = results(native, *arrays), results(ctc, *arrays)
    assert found["losses"].min() == 0
    assert found["losses"].max() > 5000  # far below the smallest number
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-12)
    tolerance = {np.float32: 1e-6, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(found["d_logits"], expected["d_logits"], atol=tolerance)


def test_labels_of_probability_zero_and_nan(instructions, rng):
    arrays = problem(rng, np.float32, 9)
    logits, lengths, counts = arrays[0], arrays[2], arrays[3]
    rows = np.flatnonzero((lengths > 8) & (counts > 0))
    logits[:, rows[0], arrays[1][0, rows[0]]] = -np.inf
    logits[3, rows[1], 0] = np.nan
    logits[3, rows[2], 0] = np.inf
    found, expected = results(native, *arrays), results(ctc, *arrays)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-12)
    assert np.isposinf(found["losses"][rows[0]])
    assert not found["d_logits"][:, rows[0]].any()
    for row in rows[1:3]:
        assert np.isnan(found["losses"][row])
        assert np.isnan(found["d_logits"][: lengths[row], row]).any()
    assert not np.isnan(np.delete(found["d_logits"], rows[1:3], axis=1)).any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_other_layouts_and_precisions(dtype, rng):
    logits, targets, lengths, counts, blank, weights = problem(rng, dtype, 9)
    expected = results(native, logits, targets, lengths, counts, blank, weights)
    narrow = [np.asfortranarray(a.astype(np.int16)) for a in (targets, lengths, counts)]
    found = results(native, np.asfortranarray(logits), *narrow, blank, weights)
    assert_equal(found, expected)
    half = results(native, logits.astype(np.float16), *narrow, blank, weights)  # by NumPy
    np.testing.assert_allclose(half["losses"], expected["losses"], rtol=1e-2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("V", CLASSES)
def test_threads(V, dtype, native_settings, instructions, rng):
    arrays = problem(rng, dtype, V, T=40, B=13, S=9)
    found = []
    for count in (1, 2, 3):
        native_settings.set_num_threads(count)
        found.append(results(native, *arrays))
    for other in found[1:]:
        assert_equal(other, found[0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("V", CLASSES)
def test_rows_alone_and_padding(V, dtype, instructions, rng):
    logits, targets, lengths, counts, blank, weights = problem(rng, dtype, V, B=11)
    together = results(native, logits, targets, lengths, counts, blank, weights)
    (T, B, _), S = logits.shape, len(targets)
    more_steps = np.concatenate([logits, np.full((19, B, V), np.nan, dtype)])
    more_labels = np.concatenate([targets, np.full((14, B), 10**9)])
    padded = results(native, more_steps, more_labels, lengths, counts, blank, weights)
    assert not padded["d_logits"][T:].any()
    assert np.isneginf(padded["alphas"][:, :, 2 * S + 1 :]).all()
    for name in ("losses", "d_logits", "normalizers"):
        part = padded[name] if name == "losses" else padded[name][:T]
        np.testing.assert_array_equal(part, together[name])
    for b in range(B):
        alone = results(
            native,
            logits[: lengths[b], b : b + 1],
            targets[: counts[b], b : b + 1],
            lengths[b : b + 1],
            counts[b : b + 1],
            blank,
            weights[b : b + 1],
        )
        assert alone["losses"][0] == together["losses"][b]
        np.testing.assert_array_equal(
            alone["d_logits"][:, 0], together["d_logits"][: lengths[b], b]
        )


def test_registers_of_avx512_and_avx2_give_the_same_bits(native_settings, rng):
    arrays = problem(rng, np.float32, 17)
    found = []
    for name in ("avx512", "avx2"):
        try:
            native_settings.use_instruction_set(name)
        except ValueError:
            pytest.skip(f"this machine or build has no {name}")
        found.append(results(native, *arrays))
    assert_equal(*found)


@pytest.mark.parametrize(("T", "B", "S"), [(0, 3, 0), (0, 3, 2), (4, 0, 2), (4, 3, 0), (0, 0, 0)])
def test_empty_arrays(T, B, S, rng):
    arrays = problem(rng, np.float64, 3, T=T, B=B, S=S)
    assert_close(results(native, *arrays), results(ctc, *arrays), np.float64)


def test_wrong_arrays_are_refused_natively(rng):
    logits, targets, lengths, counts, blank, weights = problem(rng, np.float64, 3)
    good = logits, targets, lengths, counts, blank
    saved = native.ctc_forward(*good)
    for place, wrong, message in (
        (0, logits[0], r"ctc: logits are \[T, B, V\]"),
        (1, targets[:, :-1], r"ctc: targets are \[S, B\]"),
        (1, targets[0], "targets must have two axes"),
        (1, targets + 3, r"ctc: a label is outside 0\.\.V-1"),
        (1, targets - 3, r"ctc: a label is outside 0\.\.V-1"),
        (2, lengths[:-1], "wrong shape of lengths"),
        (2, lengths + 1, "ctc: a length is outside"),
        (2, lengths - 1, "ctc: a length is outside"),
        (3, counts[:-1], "wrong shape of target_lengths"),
        (3, counts + 1, "ctc: a length is outside"),
        (3, counts - 1, "ctc: a length is outside"),
        (4, 3, "ctc: the blank is outside"),
        (4, -1, "ctc: the blank is outside"),
    ):
        changed = [*good[:place], wrong, *good[place + 1 :]]
        with pytest.raises(ValueError, match=message):
            native.ctc_forward(*changed)
        with pytest.raises(ValueError, match=message):
            native.ctc_backward(*changed, *saved, weights)
    for place, name in enumerate(("losses", "normalizers", "alphas", "weights")):
        given = [*saved, weights]
        given[place] = given[place][:-1]
        with pytest.raises(ValueError, match=f"wrong shape of {name}"):
            native.ctc_backward(*good, *given)
