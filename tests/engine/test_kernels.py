"""Kernels compared with loops over single numbers."""

import math

import numpy as np
import pytest

from anaphora import engine
from anaphora.engine.kernels import philox, random_words

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
    x = rng.standard_normal((4, 3)).astype(dtype)
    result = engine.softmax_forward(x, logarithm=True)
    assert result.dtype == dtype
    for k in range(4):
        total = math.log(math.fsum(math.exp(value) for value in x[k]))
        np.testing.assert_allclose(result[k], x[k] - total, rtol=1e-4)
    np.testing.assert_allclose(engine.softmax_forward(x), np.exp(result), rtol=1e-5)
    assert engine.softmax_forward(x + dtype(1e4), logarithm=True).max() <= 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_over_a_mask(dtype, rng):
    x, mask = rng.standard_normal((3, 4)).astype(dtype), np.ones((3, 4), bool)
    mask[0, 2] = mask[1] = False
    result = engine.softmax_forward(x, mask)
    assert result.dtype == dtype
    weights = np.exp(x[0, [0, 1, 3]])
    np.testing.assert_allclose(result[0, [0, 1, 3]], weights / weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(result[2], engine.softmax_forward(x)[2])
    assert not result[~mask].any()
    assert engine.softmax_forward(x[:, :0]).shape == (3, 0)


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


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)], ids=str)
def test_gather_rows(shape, dtype, rng):
    table, ids = rng.standard_normal((7, 4)), rng.integers(0, 7, shape).astype(dtype)
    rows = engine.gather_rows(table, ids)
    assert rows.shape == (*shape, 4)
    for index in np.ndindex(shape):
        np.testing.assert_array_equal(rows[index], table[int(ids[index])])


@pytest.mark.parametrize("ids", [[7], [0, -1, 3], [2**40], [[6], [7]]], ids=str)
def test_ids_outside_the_table_are_refused(ids):
    ids = np.array(ids)
    message = f"^embedding: ids from {ids.min()} to {ids.max()} for a table of 7 rows$"
    with pytest.raises(IndexError, match=message):
        engine.gather_rows(np.zeros((7, 4)), ids)


# The test vectors that the authors of Philox publish: counter, key, words.
ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "words"), ANSWERS)
def test_philox_gives_the_known_answers(counter, key, words):
    low, high = (int(word, 16) for word in key.split())
    counters = [np.array([int(word, 16)], np.uint64) for word in counter.split()]
    found = philox(counters, low + (high << 32))
    assert [int(word[0]) for word in found] == [int(word, 16) for word in words.split()]


def test_random_words_are_in_groups_of_sixteen_counters():
    key = 0x0123456789ABCDEF
    words = random_words(200, key)
    assert words.dtype == np.uint32
    for position in (0, 15, 16, 63, 64, 100, 199):
        group, word, counter = position // 64, position % 64 // 16, position % 16
        zero = np.zeros(1, np.uint64)
        one = philox([zero + np.uint64(16 * group + counter), zero, zero, zero], key)
        assert words[position] == one[word][0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout(rate, dtype, rng):
    x = (1 + rng.random((500, 400))).astype(dtype)
    y = engine.dropout(x, rate, key=3)
    assert y.dtype == dtype
    kept = y != 0
    np.testing.assert_array_equal(y, kept * (x * dtype(1 / (1 - rate))))
    spread = math.sqrt(rate * (1 - rate) / x.size)
    assert abs((~kept).mean() - rate) < 4 * spread
    for axis in (0, 1):  # neighbours are dropped independently of each other
        both = np.take(~kept, range(1, 400), axis) & np.take(~kept, range(399), axis)
        assert abs(both.mean() - rate**2) < 6 * spread
    np.testing.assert_array_equal(engine.dropout(x, rate, key=3), y)
    other = engine.dropout(x, rate, key=3 + 2**40) != 0
    assert abs((other == kept).mean() - rate**2 - (1 - rate) ** 2) < 6 * spread


@pytest.mark.parametrize("rate", [1e-12, 1 - 1e-12])
def test_dropout_at_extreme_rates(rate):
    y = engine.dropout(np.ones(1000), rate, key=1)
    assert ((y != 0) == (rate < 0.5)).all()


@pytest.mark.parametrize("axes", [(), (0,), (-3,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_shared_mask_is_generated_in_its_own_shape(axes, dtype, rng):
    x = rng.standard_normal((5, 3, 70)).astype(dtype)
    shape = [1 if k in axes or k - 3 in axes else size for k, size in enumerate(x.shape)]
    mask = engine.dropout(np.ones(shape, dtype), 0.5, key=9)
    y = engine.dropout(x, 0.5, key=9, shared_axes=axes)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x * mask)


def test_dropout_propagates_nan():
    y = engine.dropout(np.full(100, np.nan), 0.5, key=1)
    assert np.isnan(y).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm(dtype, rng):
    x = (3 * rng.standard_normal((4, 6)) + 5).astype(dtype)
    d = rng.standard_normal((4, 6)).astype(dtype)
    y, means, factors = engine.layer_norm_forward(x, None, None, 1e-5)
    dx, d_weight, d_bias = engine.layer_norm_backward(x, None, means, factors, d)
    for array in (y, means, factors, dx, d_weight, d_bias):
        assert array.dtype == dtype
    np.testing.assert_allclose(means, x.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(factors, 1 / x.std(axis=1), rtol=1e-4)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose((y**2).mean(axis=1), 1, rtol=1e-4)
    # The result is invariant to shift and scale of the rows, so the gradient is orthogonal to both.
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose((dx * (x - x.mean(axis=1, keepdims=True))).sum(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(d_weight, (d * y).sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(d_bias, d.sum(axis=0), rtol=1e-4, atol=1e-6)
    weight, bias = rng.standard_normal((2, 6)).astype(dtype)
    moved, *_ = engine.layer_norm_forward(x, weight, bias, 1e-5)
    np.testing.assert_allclose(moved, y * weight + bias, rtol=1e-4, atol=1e-6)
    again, same, _ = engine.layer_norm_backward(x, weight, means, factors, d)
    through, *_ = engine.layer_norm_backward(x, None, means, factors, d * weight)
    np.testing.assert_allclose(again, through, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(same, d_weight)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("N", "V"), [(0, 5), (1, 1), (7, 33), (40, 60_000)])
def test_losses_without_all_logits(N, V, dtype, bias, rng):
    x, weight = rng.standard_normal((N, 3)).astype(dtype), rng.standard_normal((V, 3)).astype(dtype)
    b = rng.standard_normal(V).astype(dtype) if bias else None
    targets = rng.integers(0, V, N)
    losses = engine.linear_cross_entropy_losses(x, weight, b, targets)
    expected, _ = engine.cross_entropy_forward(engine.matmul(x, weight.T, b), targets)
    assert losses.dtype == dtype
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_info_says_what_the_engine_is():
    found = engine.info()
    if found["engine"] == "numpy":
        assert found == {
            "engine": "numpy",
            "instruction_set": None,
            "bfloat16": None,
            "threads": None,
        }
        assert engine.info(measure=True) == found
    else:
        assert found["engine"] == "native"
        assert found["instruction_set"] in ("amx", "avx512", "avx2", "baseline")
        assert found["bfloat16"] in ("tiles", "dots", "vectors")
        assert found["threads"] >= 1
        measured = engine.info(measure=True)
        assert measured.pop("peak_gflops") > 0
        assert measured == found


def test_the_number_of_threads_is_at_least_one():
    before = engine.info()["threads"]
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"^set_num_threads: .*, not {count}"):
            engine.set_num_threads(count)
    engine.set_num_threads(3)
    assert engine.info()["threads"] in (None, 3)
    engine.set_num_threads(before or 1)
