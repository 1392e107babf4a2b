"""Penalties on activations against loops, with gradients, lengths and what does not fit."""

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

T, B, H = 5, 4, 3
LENGTHS = np.array([3, 0, 5, 1])


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, B, H))


def by_loops(x, lengths):
    squares, changes = [], []
    for b, length in enumerate(lengths):
        for t in range(length):
            squares += [u**2 for u in x[t, b]]
            if t > 0:
                changes += [(u - v) ** 2 for u, v in zip(x[t, b], x[t - 1, b], strict=True)]
    return np.mean(squares), np.mean(changes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_values_are_those_of_loops(x, lengths, dtype):
    x = x.astype(dtype)
    expected = by_loops(x, [T] * B if lengths is None else lengths)
    found = [f(x, lengths=lengths) for f in (ops.activation_penalty, ops.temporal_penalty)]
    assert [y.dtype for y in found] == [dtype, dtype]
    rtol = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose([y.item() for y in found], expected, rtol=rtol)


@pytest.mark.parametrize("penalty", [ops.activation_penalty, ops.temporal_penalty])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_are_those_of_central_differences(x, penalty, lengths, check_gradients):
    check_gradients(lambda x: penalty(x, lengths=lengths), x)


@pytest.mark.parametrize("penalty", [ops.activation_penalty, ops.temporal_penalty])
def test_what_is_beyond_the_end_does_not_count(x, penalty):
    expected = penalty(x, lengths=LENGTHS).item()
    x[np.arange(T)[:, None] >= LENGTHS] = np.nan
    given = Tensor(x, requires_grad=True)
    found = penalty(given, lengths=LENGTHS)
    found.backward()
    assert found.item() == expected
    assert (given.grad[np.arange(T)[:, None] >= LENGTHS] == 0).all()


@pytest.mark.parametrize("penalty", [ops.activation_penalty, ops.temporal_penalty])
@pytest.mark.parametrize("shape", [(0, B, H), (T, 0, H), (T, B, 0)])
def test_the_penalty_of_nothing_is_0(penalty, shape):
    x = Tensor(np.zeros(shape), requires_grad=True)
    y = penalty(x)
    y.backward()
    assert y.item() == 0
    assert x.grad.shape == shape
    ones = Tensor(np.ones((T, B, H)), requires_grad=True)
    none = penalty(ones, lengths=np.zeros(B, int))
    none.backward()
    assert none.item() == 0
    assert (ones.grad == 0).all()


def test_a_single_step_does_not_change():
    assert ops.temporal_penalty(np.ones((1, B, H))).item() == 0


@pytest.mark.parametrize("penalty", [ops.activation_penalty, ops.temporal_penalty])
def test_lengths_that_do_not_fit_are_reported(x, penalty):
    with pytest.raises(ValueError, match="_penalty: lengths from 1 to 6, but the sequences have 5"):
        penalty(x, lengths=[1, 2, 3, 6])
    with pytest.raises(ValueError, match=r"_penalty: lengths got .* the 4 rows of the batch"):
        penalty(x, lengths=[1, 2])
