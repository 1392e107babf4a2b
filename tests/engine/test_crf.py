"""The native conditional random field against NumPy's: the same bits, however it is split."""

import numpy as np
import pytest

from anaphora.engine import crf

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
TAGS = [1, 2, 7, 8, 9, 17, 33, 70]  # lines of 8 and around; blocks of 1, 3 and 4 vectors


def problem(rng, dtype, C, T=5, B=7, scale=2.0, excluded=0.0):
    """Emissions, transitions, start, end, lengths, and the weights of the rows."""
    shapes = (T, B, C), (C, C), (C,), (C,)
    arrays = [(scale * rng.standard_normal(shape)).astype(dtype) for shape in shapes]
    for array in arrays[1:]:
        array[rng.uniform(0, 1, array.shape) < excluded] = -np.inf
    return *arrays, rng.permutation(np.arange(B) % (T + 1)), rng.standard_normal(B).astype(dtype)


def results(engine, *arrays):
    """Every value and gradient, by name."""
    *arrays, weights = arrays
    log_partitions, alphas = engine.crf_forward(*arrays)
    d_emissions, d_transitions = engine.crf_backward(*arrays, log_partitions, alphas, weights)
    tags, scores = engine.crf_decode(*arrays, -100)
    return {
        "log_partitions": log_partitions,
        "alphas": alphas,
        "d_emissions": d_emissions,
        "d_transitions": d_transitions,
        "tags": tags,
        "scores": scores,
    }


def assert_equal(found, expected):
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("C", TAGS)
def test_as_numpy(C, dtype, instructions, rng):
    arrays = problem(rng, dtype, C)
    found, expected = results(native, *arrays), results(crf, *arrays)
    for name in ("tags", "scores"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name in ("log_partitions", "alphas"):
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)
    for name in ("d_emissions", "d_transitions"):
        assert found[name].dtype == dtype
        tolerance = {np.float32: 1e-6, np.float64: 1e-12}[dtype]
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("scale", "excluded"), [(2, 0.4), (300, 0), (1e4, 0.3), (1e30, 0)])
def test_extreme_scores_and_exclusions(scale, excluded, dtype, instructions, rng):
    for C in (2, 5, 9):
        for _ in range(10):
            arrays = problem(rng, dtype, C, scale=scale, excluded=excluded)
            with np.errstate(invalid="ignore", over="ignore"):
                expected = results(crf, *arrays)
                possible = np.isfinite(expected["log_partitions"])
                arrays = arrays[0][:, possible], *arrays[1:4], *(a[possible] for a in arrays[4:])
                found, expected = results(native, *arrays), results(crf, *arrays)
            for name in ("tags", "scores"):
                np.testing.assert_array_equal(found[name], expected[name])
            for name, tolerance in {"log_partitions": 1e-9, "d_emissions": 1e-5}.items():
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=tolerance)
            if scale < 1e20:  # beyond, a rounding error is worth more than a path
                np.testing.assert_allclose(
                    found["d_transitions"], expected["d_transitions"], rtol=1e-5, atol=1e-5
                )


@pytest.mark.parametrize("dtype", FLOATS)
def test_other_layouts_and_precisions(dtype, rng):
    arrays = problem(rng, dtype, 9)
    expected = results(native, *arrays)
    fortran = [np.asfortranarray(a) for a in arrays[:4]]
    assert_equal(results(native, *fortran, arrays[4].astype(np.int32), arrays[5]), expected)
    half = [a.astype(np.float16) for a in arrays[:4]]
    found = results(native, *half, *arrays[4:])  # by NumPy
    np.testing.assert_allclose(found["log_partitions"], expected["log_partitions"], rtol=1e-2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("C", [3, 17, 70])
def test_threads(C, dtype, native_settings, rng):
    arrays = problem(rng, dtype, C, T=20, B=30)
    found = []
    for count in (1, 2, 3, 5):
        native_settings.set_num_threads(count)
        found.append(results(native, *arrays))
    for other in found[1:]:
        assert_equal(other, found[0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("C", [3, 17, 70])
def test_rows_alone_and_padding(C, dtype, rng):
    *arrays, lengths, weights = problem(rng, dtype, C, T=9, B=13)
    together = results(native, *arrays, lengths, weights)
    padded = np.concatenate([arrays[0], np.full((4, 13, C), np.nan, dtype)])
    longer = results(native, padded, *arrays[1:], lengths, weights)
    np.testing.assert_array_equal(longer["d_transitions"], together["d_transitions"])
    np.testing.assert_array_equal(longer["scores"], together["scores"])
    for name in ("alphas", "d_emissions", "tags"):
        np.testing.assert_array_equal(longer[name][:9], together[name])
    for b, length in enumerate(lengths):
        emissions = np.ascontiguousarray(arrays[0][:length, b : b + 1])
        one = slice(b, b + 1)
        alone = results(native, emissions, *arrays[1:], lengths[one], weights[one])
        for name in ("log_partitions", "scores"):
            np.testing.assert_array_equal(alone[name], together[name][one])
        for name in ("alphas", "d_emissions", "tags"):
            np.testing.assert_array_equal(alone[name], together[name][:length, one])


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


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_scores_take_the_first_tag(dtype, rng):
    emissions, transitions, start, end, lengths, _ = problem(rng, dtype, 17)
    arrays = [np.round(a).astype(dtype) for a in (emissions, transitions, start, end)]
    tags, _ = native.crf_decode(*arrays, lengths, -1)
    expected, _ = crf.crf_decode(*arrays, lengths, -1)
    np.testing.assert_array_equal(tags, expected)


def test_wrong_arrays_are_refused_natively(rng):
    *arrays, lengths, weights = problem(rng, np.float64, 3)
    log_partitions, alphas = native.crf_forward(*arrays, lengths)
    for number in range(4):
        changed = [a if k != number else a[..., :-1] for k, a in enumerate(arrays)]
        with pytest.raises(ValueError, match="shape of"):
            native.crf_forward(*changed, lengths)
    for wrong in (lengths[:-1], lengths + 1, lengths - 1):
        with pytest.raises(ValueError, match=r"crf: a length is outside 0\.\.T|shape of lengths"):
            native.crf_decode(*arrays, wrong, -1)
    for given in (
        (log_partitions[:-1], alphas, weights),
        (log_partitions, alphas[:-1], weights),
        (log_partitions, alphas, weights[:-1]),
    ):
        with pytest.raises(ValueError, match="shape of"):
            native.crf_backward(*arrays, lengths, *given)
    with pytest.raises(ValueError, match=r"crf: emissions are \[T, B, C\], C > 0"):
        native.crf_forward(arrays[0][0], *arrays[1:], lengths)
