"""The recurrence on plain arrays: arguments and results."""

import numpy as np
import pytest

from anaphora import engine
from anaphora.cells import gru, lstm, mingru
from anaphora.engine import LayerWeights

T, B, H = 5, 3, 7


def arguments(cell, rng, steps=T, batch=B, dtype=np.float64):
    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    Gh = len(cell.recurrent_gates)
    return {
        "x": normal(steps, batch, len(cell.input_gates) * H),
        "initial": [normal(batch, H) for _ in cell.states],
        "weights": LayerWeights(
            weight_hh=normal(Gh * H, H) if Gh else None,
            bias_hh=normal(Gh * H) if Gh else None,
            parameters=[normal(H) for _ in cell.parameters],
        ),
    }


def backward(cell, steps, d_output, d_final, given, **options):
    rest = {name: value for name, value in given.items() if name != "initial"}
    return engine.recurrence_backward(cell.trace, steps, d_output, d_final, **rest, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", [lstm, gru, mingru], ids=lambda c: c.name)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, np.array([2, 5, 0])], ids=str)
def test_arguments_are_not_changed(cell, reverse, lengths, dtype, rng):
    given = arguments(cell, rng, dtype=dtype)
    weights = given["weights"]
    flat = [given["x"], *given["initial"], weights.weight_hh, weights.bias_hh]
    flat = [array for array in flat if array is not None]
    before = [array.copy() for array in flat]
    steps = engine.recurrence_forward(
        cell.trace, **given, lengths=lengths, reverse=reverse, record=True
    )
    d_output = rng.standard_normal(steps.output.shape).astype(dtype)
    d_final = [rng.standard_normal(s.shape).astype(dtype) for s in steps.final]
    flat += [d_output, *d_final]
    before += [array.copy() for array in (d_output, *d_final)]
    found = backward(cell, steps, d_output, d_final, given, lengths=lengths, reverse=reverse)
    for array, copy in zip(flat, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    results = [steps.output, *steps.final, *steps.named.values(), found.x, *found.states]
    results += [
        array for array in (found.weights.weight_hh, found.weights.bias_hh) if array is not None
    ]
    assert all(array.dtype == dtype for array in results)


def test_omitted_gradients_are_zero(rng):
    given = arguments(lstm, rng)
    steps = engine.recurrence_forward(lstm.trace, **given)
    d_output, one = rng.standard_normal((T, B, H)), np.ones((B, H))
    for output, final in (
        (d_output, [None, None]),
        (None, [one, None]),
        (None, [None, one]),
    ):
        found = backward(lstm, steps, output, final, given)
        output = 0 * d_output if output is None else output
        final = [0 * one if d is None else d for d in final]
        expected = backward(lstm, steps, output, final, given)
        np.testing.assert_array_equal(found.weights.weight_hh, expected.weights.weight_hh)
        np.testing.assert_array_equal(found.x, expected.x)
        for a, b in zip(found.states, expected.states, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (5, 0), (0, 0)])
@pytest.mark.parametrize("cell", [lstm, mingru], ids=lambda c: c.name)
def test_empty_inputs(cell, steps, batch, rng):
    given = arguments(cell, rng, steps, batch)
    for lengths in (None, np.zeros(batch, int)):
        steps_taken = engine.recurrence_forward(cell.trace, **given, lengths=lengths, record=True)
        assert steps_taken.output.shape == (steps, batch, H)
        assert {v.shape for v in steps_taken.named.values()} == {(steps, batch, H)}
        for final, initial in zip(steps_taken.final, given["initial"], strict=True):
            np.testing.assert_array_equal(final, initial)
        ones = [np.ones((batch, H)) for _ in cell.states]
        found = backward(cell, steps_taken, steps_taken.output, ones, given, lengths=lengths)
        assert found.x.shape == given["x"].shape
        for d in found.states:
            np.testing.assert_array_equal(d, np.ones((batch, H)))
        if found.weights.weight_hh is not None:
            assert found.weights.weight_hh.shape == given["weights"].weight_hh.shape
            assert not found.weights.weight_hh.any()


def test_values_are_recorded_on_request_only(rng):
    given = arguments(lstm, rng)
    assert engine.recurrence_forward(lstm.trace, **given).named == {}
    named = engine.recurrence_forward(lstm.trace, **given, record=True).named
    assert set(named) == {"i", "f", "g", "o", "h", "c"}
