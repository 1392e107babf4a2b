"""Convolution over time: values against a loop, gradients, padding, messages, the promise."""

import re

import numpy as np
import pytest

from anaphora import engine, ops
from anaphora.tensor import Tensor

# T, B, I, O, K, and options
CASES = [
    (9, 4, 3, 5, 2, {}),
    (9, 4, 3, 5, 1, {"stride": 2}),
    (11, 4, 3, 5, 3, {"stride": 2, "padding": 1, "dilation": 2}),
    (9, 4, 3, 5, 4, {"padding": "same"}),
    (9, 4, 3, 5, 4, {"padding": "causal", "stride": 3}),
    (9, 4, 6, 4, 3, {"groups": 2, "padding": (0, 5)}),
    (9, 4, 6, 12, 3, {"groups": 6, "dilation": 3, "padding": "same"}),
    (2, 4, 3, 5, 7, {"padding": (5, 0)}),
    (9, 1, 3, 5, 4, {"stride": 2}),
    (9, 0, 3, 5, 4, {}),
    (9, None, 3, 5, 4, {"padding": 2}),  # one sequence, [T, I]
]


def arrays_of(case, rng):
    T, B, I, O, K, options = case
    shape = (T, I) if B is None else (T, B, I)
    weight = (O, I // options.get("groups", 1), K)
    return [rng.standard_normal(s) for s in (shape, weight, (O,))], options


def by_hand(x, weight, bias, stride=1, padding=0, dilation=1, groups=1):
    """One multiplication at a time."""
    O, features, K = weight.shape
    reach = dilation * (K - 1)
    named = {"same": (reach // 2, reach - reach // 2), "causal": (reach, 0)}
    if padding in named:
        padding = named[padding]
    before, after = padding if isinstance(padding, tuple) else (padding, padding)
    starts = range(-before, len(x) + after - reach, stride)
    y = np.zeros((len(starts), *x.shape[1:-1], O))
    for s, start in enumerate(starts):
        for o in range(O):
            y[s, ..., o] = bias[o]
            for i in range(features):
                for k in range(K):
                    t = start + k * dilation
                    if 0 <= t < len(x):
                        channel = o // (O // groups) * features + i
                        y[s, ..., o] += weight[o, i, k] * x[t, ..., channel]
    return y


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, rng, check_gradients):
    (x, weight, bias), options = arrays_of(case, rng)
    y = ops.conv1d(x, weight, bias, **options)
    np.testing.assert_allclose(y.data, by_hand(x, weight, bias, **options), atol=1e-13)
    plain = ops.conv1d(x, weight, **options).data
    np.testing.assert_allclose(plain + bias, y.data, atol=1e-13)
    check_gradients(lambda x, w, b: ops.conv1d(x, w, b, **options), x, weight, bias)
    check_gradients(lambda x, w: ops.conv1d(x, w, **options), x, weight)


def test_inputs_and_weights_that_are_used_twice(rng, check_gradients):
    x, weight, bias = (rng.standard_normal(s) for s in ((9, 4, 3), (3, 3, 2), (3,)))

    def twice(x, weight, bias):
        return x[1:] * ops.conv1d(
            ops.tanh(ops.conv1d(x, weight, bias)), weight, bias, padding=(1, 0)
        )

    check_gradients(twice, x, weight, bias)


def test_arrays_of_any_layout(rng):
    x, weight = rng.standard_normal((3, 9, 4)), rng.standard_normal((2, 5, 4))
    expected = ops.conv1d(x.transpose(1, 0, 2).copy(), weight.transpose(1, 2, 0).copy())
    found = ops.conv1d(x.transpose(1, 0, 2), weight.transpose(1, 2, 0))
    np.testing.assert_array_equal(found.data, expected.data)
    backwards = ops.conv1d(x.transpose(1, 0, 2)[::-1], weight.transpose(1, 2, 0)[:, :, ::-1])
    np.testing.assert_allclose(backwards.data[::-1], expected.data, atol=1e-13)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((9, 3), (5, 3), None), {}, "a weight of shape (5, 3) for 1 groups; expected [O, I"),
        (((9, 4), (5, 2, 2), None), {"groups": 2}, "(5, 2, 2) for 2 groups; expected [O, I"),
        (((9, 3), (5, 3, 0), None), {}, "a weight of shape (5, 3, 0)"),
        (((4, 3, 9), (5, 3, 2), None), {}, "(4, 3, 9) for a weight of shape (5, 3, 2) and 1"),
        (((4, 3, 9), (5, 3, 2), None), {}, "with I = 3: time is the first axis, features the la"),
        (((3,), (5, 3, 2), None), {}, "an input of shape (3,)"),
        (((9, 3), (5, 3, 2), (3,)), {}, "a bias of shape (3,) for a weight of shape (5, 3, 2)"),
        (((9, 3), (5, 3, 2), None), {"stride": 0}, "stride must be an integer of at least 1, n"),
        (((9, 3), (5, 3, 2), None), {"dilation": 0.5}, "dilation must be an integer"),
        (((9, 3), (5, 3, 2), None), {"groups": 0}, "groups must be an integer of at least 1"),
        (((9, 3), (5, 3, 2), None), {"padding": -1}, "padding must be an integer of at least 0"),
        (((9, 3), (5, 3, 2), None), {"padding": (1, -1)}, "padding must be an integer of at least"),
        (((9, 3), (5, 3, 2), None), {"padding": "full"}, "padding 'full' is not a number of zeros"),
        (((9, 3), (5, 3, 2), None), {"padding": (1, 2, 3)}, "padding (1, 2, 3) is not a number"),
        (((9, 3), (5, 3, 2), None), {"padding": "same", "stride": 2}, "keeps the number of steps"),
        (((2, 3), (5, 3, 4), None), {"padding": (0, 1)}, "2 steps and 1 of padding are shorter"),
        (((6, 3), (5, 3, 4), None), {"dilation": 2}, "the filter, which covers 7"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(shapes, options, message):
    arrays = [np.ones(shape) for shape in shapes if shape is not None]
    with pytest.raises(ValueError, match=f"^conv1d: .*{re.escape(message)}"):
        ops.conv1d(*arrays, **options)


def test_dtypes_do_not_mix():
    with pytest.raises(TypeError, match="conv1d: float64 and float32 do not mix"):
        ops.conv1d(Tensor(np.ones((9, 3))), Tensor(np.ones((5, 3, 2), np.float32)))


@pytest.mark.skipif(engine.info()["engine"] != "native", reason="runs on the native engine")
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_bits_of_a_sequence_are_its_own(dtype, groups, rng):
    """Whatever the threads, the other sequences, and the zeros after its end."""
    precision = "bfloat16" if dtype == "bfloat16" else "float32"
    dtype = np.float64 if dtype == "float64" else np.float32
    x, weight, bias = (
        rng.standard_normal(s).astype(dtype) for s in ((70, 7, 48), (30, 48 // groups, 5), (30,))
    )
    options = {"stride": 2, "padding": "causal", "groups": groups}
    threads = engine.info()["threads"]
    try:
        with engine.matmul_precision(precision):
            engine.set_num_threads(1)
            expected = ops.conv1d(x, weight, bias, **options).data
            for count in (1, 2, 5):
                engine.set_num_threads(count)
                np.testing.assert_array_equal(ops.conv1d(x, weight, bias, **options).data, expected)
                for rows in ([3], [0, 6], [5, 4, 2]):
                    alone = ops.conv1d(x[:, rows], weight, bias, **options).data
                    np.testing.assert_array_equal(alone, expected[:, rows])
                longer = np.concatenate([x, np.zeros_like(x)])
                found = ops.conv1d(longer, weight, bias, **options).data
                np.testing.assert_array_equal(found[: len(expected)], expected)
                single = ops.conv1d(x[:, 2], weight, bias, **options).data
                np.testing.assert_array_equal(single, expected[:, 2])
    finally:
        engine.set_num_threads(threads)
