"""Kernels, beside loops over single numbers."""

import math

import numpy as np
import pytest

from anaphora import engine

FLOATS = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sizes", [(4, 3, 5), (0, 3, 5), (4, 0, 5), (4, 3, 0), (1, 1, 1)], ids=str)
def test_matmul(sizes, dtype, rng):
    M, K, N = sizes
    a, b = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
    result = engine.matmul(a, b)
    assert result.dtype == dtype
    assert result.shape == (M, N)
    expected = [[math.fsum(x * y for x, y in zip(r, c, strict=True)) for c in b.T] for r in a]
    np.testing.assert_allclose(result, np.reshape(expected, (M, N)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_log_softmax(dtype, rng):
    x = rng.standard_normal((3, 4)).astype(dtype)
    result = engine.log_softmax(x, 0)
    assert result.dtype == dtype
    for k in range(4):
        total = math.log(math.fsum(math.exp(value) for value in x[:, k]))
        np.testing.assert_allclose(result[:, k], x[:, k] - total, rtol=1e-4)
    assert engine.log_softmax(x + dtype(1e4), 0).max() <= 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy(dtype, rng):
    logits, targets = rng.standard_normal((3, 4)).astype(dtype), np.array([2, 0, 2])
    before = logits.copy()
    losses, probabilities = engine.cross_entropy_forward(logits, targets)
    np.testing.assert_array_equal(logits, before)
    d_losses = np.array([1, 10, 100], dtype)
    d_logits = engine.cross_entropy_backward(probabilities, targets, d_losses)
    assert losses.dtype == probabilities.dtype == d_logits.dtype == dtype
    for n, target in enumerate(targets):
        weights = [math.exp(z) for z in logits[n]]
        plain = np.array(weights) / math.fsum(weights)
        np.testing.assert_allclose(probabilities[n], plain, rtol=1e-5)
        np.testing.assert_allclose(losses[n], -math.log(plain[target]), rtol=1e-5)
        plain[target] -= 1
        np.testing.assert_allclose(d_logits[n], plain * d_losses[n], rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("ids", [[3], [3, 0, 3, 3, 1], [255, 255], []], ids=str)
def test_sum_rows(ids, dtype, rng):
    values = rng.standard_normal((len(ids), 2))
    rows, sums = engine.sum_rows(np.array(ids, dtype), values)
    assert rows.tolist() == sorted(set(ids))
    assert rows.dtype == dtype
    assert sums.shape == (len(rows), 2)
    for row, found in zip(rows, sums, strict=True):
        expected = sum(v for i, v in zip(ids, values, strict=True) if i == row)
        np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout_mask(dtype):
    generator = np.random.Generator(np.random.PCG64(3))
    mask = engine.dropout_mask((500, 400), 0.3, dtype, generator)
    assert mask.dtype == dtype
    assert set(np.unique(mask)) == {0, dtype(1 / 0.7)}
    assert abs((mask == 0).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / mask.size)
    again = engine.dropout_mask((500, 400), 0.3, dtype, np.random.Generator(np.random.PCG64(3)))
    np.testing.assert_array_equal(mask, again)


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm(dtype, rng):
    x = (3 * rng.standard_normal((4, 6)) + 5).astype(dtype)
    normalised, factors = engine.layer_norm_forward(x, 1e-5)
    d = rng.standard_normal((4, 6)).astype(dtype)
    dx = engine.layer_norm_backward(normalised, factors, d)
    assert normalised.dtype == factors.dtype == dx.dtype == dtype
    np.testing.assert_allclose(normalised.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose((normalised**2).mean(axis=1), 1, rtol=1e-4)
    # Neither a shift of the rows nor their scale matters, so the gradient is orthogonal to both.
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose((dx * (x - x.mean(axis=1, keepdims=True))).sum(axis=1), 0, atol=1e-4)


def test_info_says_what_the_engine_is():
    found = engine.info()
    if found["engine"] == "numpy":
        assert found == {"engine": "numpy", "instruction_set": None, "threads": None}
        assert engine.info(measure=True) == found
    else:
        assert found["engine"] == "native"
        assert found["instruction_set"] in ("avx512", "avx2", "baseline")
        assert found["threads"] >= 1
        measured = engine.info(measure=True)
        assert measured.pop("peak_gflops") > 0
        assert measured == found


def test_the_number_of_threads_is_at_least_one():
    before = engine.info()["threads"]
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"^set_num_threads: .* at least 1, not {count}"):
            engine.set_num_threads(count)
    engine.set_num_threads(3)
    assert engine.info()["threads"] in (None, 3)
    engine.set_num_threads(before or 1)
