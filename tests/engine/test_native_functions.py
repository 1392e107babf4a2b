"""The elementwise functions of the native engine, through cells of one instruction."""

import numpy as np
import pytest

from anaphora.cells import cell
from anaphora.engine import LayerWeights
from anaphora.equations import maximum, relu

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
LARGEST_ERROR = 4  # in units in the last place, on every instruction set; see test_accuracy


def evaluate(expression, *arrays):
    """An expression of the gates a and b, elementwise on arrays [N]."""
    letters = "a b"[: 2 * len(arrays)].split()
    names = {}
    exec(
        "from anaphora.equations import *\n"
        f"def one({', '.join(letters)}, h):\n    h = {expression}\n    return h",
        names,
    )
    one = cell(gates=" ".join(letters), state="h")(names["one"])
    x_gates = np.concatenate(arrays)[None, None]
    initial = [np.zeros((1, len(arrays[0])), x_gates.dtype)]
    steps = native.recurrence_forward(one.trace, x_gates, initial, LayerWeights())
    return steps.output[0, 0]


REFERENCES = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}


def points(name, dtype, rng, count=100_000):
    """Numbers of all magnitudes, and more where the function varies."""
    limits = np.finfo(dtype)
    end = np.log(limits.max)
    sizes = np.exp(rng.uniform(np.log(limits.tiny), end, count))
    if name == "log":
        x = np.concatenate([sizes, rng.uniform(0.5, 2, count), 1 + rng.uniform(-1e-3, 1e-3, count)])
    else:
        signs = rng.choice([-1, 1], count)
        x = [rng.uniform(-reach, reach, count) for reach in (1, 10, end)]
        x = np.concatenate([sizes * signs, *x])
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", REFERENCES)
def test_accuracy(name, dtype, instructions, rng):
    """Measured: exp 1.0, tanh 1.4, log 2.0, sigmoid 2.5 and softplus 3.3 units, in both precisions.

    Results below the smallest normal number are flushed to 0.
    """
    wider = np.float64 if dtype == np.float32 else np.longdouble
    if np.finfo(wider).nmant <= np.finfo(dtype).nmant:
        pytest.skip("this machine has no wider type to compare with")
    x = points(name, dtype, rng)
    found = evaluate(f"{name}(a.x)", x)
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](x.astype(wider))
        expected = exact.astype(dtype)
    assert found.dtype == dtype
    tiny = np.finfo(dtype).tiny
    normal = (np.abs(exact) >= tiny) & np.isfinite(expected)
    spacing = np.spacing(np.abs(expected[normal])).astype(wider)
    errors = np.abs(found[normal].astype(wider) - exact[normal]) / spacing
    worst = np.argmax(errors)
    assert errors[worst] <= LARGEST_ERROR, (x[normal][worst], found[normal][worst])
    assert (np.abs(found[np.abs(exact) < tiny]) <= tiny).all()
    np.testing.assert_array_equal(found[np.isinf(expected)], expected[np.isinf(expected)])


INF, NAN = np.inf, np.nan
SPECIAL = {
    "exp": [1, 1, INF, 0, NAN],
    "log": [-INF, -INF, INF, NAN, NAN],
    "tanh": [0, -0.0, 1, -1, NAN],
    "sigmoid": [0.5, 0.5, 1, 0, NAN],
    "softplus": [np.log(2), np.log(2), INF, 0, NAN],
    "relu": [0, 0, INF, 0, NAN],
    "abs": [0, 0, INF, INF, NAN],
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_numbers(name, dtype, instructions):
    found = evaluate(f"{name}(a.x)", np.array([0, -0.0, INF, -INF, NAN], dtype))
    np.testing.assert_allclose(found, np.array(SPECIAL[name], dtype), rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_ends_of_the_range(dtype, instructions):
    limits = np.finfo(dtype)
    last = {np.float32: 88.72283, np.float64: 709.782712893384}[dtype]  # where exp is still finite
    for large in (np.nextafter(dtype(last), dtype(INF)), 2 * last, limits.max):
        x = np.array([large, -2 * large if large < limits.max else -large], dtype)
        assert evaluate("exp(a.x)", x).tolist() == [INF, 0]
        assert evaluate("sigmoid(a.x)", x).tolist() == [1, 0]
        assert evaluate("tanh(a.x)", x).tolist() == [1, -1]
        assert evaluate("softplus(a.x)", x).tolist() == [x[0], 0]
    assert np.isfinite(evaluate("exp(a.x)", np.array([last], dtype))).all()
    assert np.isnan(evaluate("log(a.x)", np.array([-1, -limits.tiny, -INF], dtype))).all()
    ends = evaluate("log(a.x)", np.array([limits.tiny, limits.max], dtype))
    np.testing.assert_allclose(ends, np.log([limits.tiny, limits.max]), rtol=1e-6)
    one = np.nextafter(dtype(1), dtype([0, 2]))
    np.testing.assert_allclose(evaluate("log(a.x)", one), np.log(one.astype(float)), rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ("maximum(a.x, b.x)", np.maximum),
        ("minimum(a.x, b.x)", np.minimum),
        ("a.x + b.x", np.add),
        ("a.x - b.x", np.subtract),
        ("a.x * b.x", np.multiply),
        ("a.x / b.x", np.divide),
    ],
)
def test_two_operands(expression, function, dtype, instructions):
    some = np.array([0, -0.0, 1, -2.5, INF, -INF, NAN], dtype)
    a, b = (grid.ravel() for grid in np.meshgrid(some, some))
    with np.errstate(all="ignore"):
        expected = function(a, b)
    np.testing.assert_array_equal(evaluate(expression, a, b), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_gradient_of_kinks_propagates_nan(dtype, instructions):
    """The sign that the adjoint of abs, maximum and minimum uses."""

    @cell(gates="a b", state="h")
    def kinked(a, b, h):
        h = abs(a.x) + relu(a.x) + maximum(a.x, b.x)
        return h

    a, b = np.array([[-2, 3, NAN, 1, INF], [-3, 4, 1, NAN, 2]], dtype)
    x_gates, one = np.concatenate([a, b])[None, None], np.ones((1, 5), dtype)
    weights = LayerWeights()
    gradients = []
    for engine in (native, native.recurrence):
        with np.errstate(invalid="ignore"):
            steps = engine.recurrence_forward(kinked.trace, x_gates, [0 * one], weights)
            d = engine.recurrence_backward(kinked.trace, steps, None, [one], x_gates, weights)
        gradients.append(d.x)
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("dtype", FLOATS)
def test_denormal_numbers_are_flushed_inside_only(dtype, native_settings):
    tiny = np.finfo(dtype).tiny
    denormal = np.array([tiny / 2, tiny / 8, np.finfo(dtype).smallest_subnormal], dtype)
    one = np.ones(3, dtype)
    for threads in (1, 3):
        native_settings.set_num_threads(threads)
        assert not evaluate("a.x * b.x", denormal, one).any()
        assert not evaluate("a.x * b.x", one * tiny, one / 4).any()
        assert evaluate("log(a.x)", denormal).tolist() == [-INF] * 3
        product = native.matmul(np.full((400, 3), tiny, dtype), np.full((3, 400), 0.125, dtype))
        assert not product.any()
        # The caller's arithmetic still has denormal numbers.
        assert (denormal * one > 0).all()
        assert (one * tiny / 4 > 0).all()
        assert float(np.finfo(np.float64).tiny) / 4 > 0
