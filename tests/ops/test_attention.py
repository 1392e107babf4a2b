"""The masked softmax and the additive scores: values by hand, gradients, and what is refused."""

import numpy as np
import pytest

from anaphora import ops

T, S, B, A = 5, 6, 3, 4


def test_masked_softmax_is_the_softmax_of_what_is_kept(rng):
    x = rng.normal(size=(B, T, S))
    lengths = [4, 0, 6]
    y = ops.masked_softmax(x, np.arange(S) < np.reshape(lengths, (B, 1, 1))).data
    for b, length in enumerate(lengths):
        e = np.exp(x[b, :, :length])
        np.testing.assert_allclose(y[b, :, :length], e / e.sum(axis=1, keepdims=True), rtol=1e-12)
        assert (y[b, :, length:] == 0).all()


def test_masked_softmax_neither_overflows_nor_sees_what_is_left_out():
    x = np.array([[1000.0, 1000.0, np.inf], [-1e30, np.nan, -1e30]], np.float32)
    mask = [[True, True, False], [True, False, True]]
    np.testing.assert_array_equal(ops.masked_softmax(x, mask).data, [[0.5, 0.5, 0], [0.5, 0, 0.5]])


def test_masked_softmax_of_nothing():
    assert ops.masked_softmax(np.zeros((2, 3, 0)), np.zeros((2, 1, 0))).shape == (2, 3, 0)


def test_masked_softmax_gradient(rng, check_gradients):
    mask = np.arange(S) < np.reshape([4, 0, 6], (B, 1, 1))
    check_gradients(lambda x: ops.masked_softmax(x, mask), rng.normal(size=(B, T, S)))


def test_masked_softmax_refuses_a_mask_of_another_shape():
    with pytest.raises(ValueError, match=r"a mask of shape \(2,\) for scores of shape \(4, 3\)"):
        ops.masked_softmax(np.zeros((4, 3)), [True, False])


def test_additive_scores_are_those_of_the_formula(rng):
    queries, keys = rng.normal(size=(T, B, A)), rng.normal(size=(S, B, A))
    weight = rng.normal(size=A)
    scores = ops.additive_scores(queries, keys, weight).data
    assert scores.shape == (B, T, S)
    for t, s, b in np.ndindex(T, S, B):
        expected = sum(weight[a] * np.tanh(queries[t, b, a] + keys[s, b, a]) for a in range(A))
        np.testing.assert_allclose(scores[b, t, s], expected, rtol=1e-12)


@pytest.mark.parametrize(("T", "S"), [(5, 6), (0, 6), (5, 0)])
def test_additive_scores_gradient(rng, check_gradients, T, S):
    arrays = rng.normal(size=(T, B, A)), rng.normal(size=(S, B, A)), rng.normal(size=A)
    check_gradients(ops.additive_scores, *arrays)


def test_additive_scores_refuse_shapes_that_do_not_fit(rng):
    queries, keys = rng.normal(size=(T, B, A)), rng.normal(size=(S, B, A + 1))
    with pytest.raises(ValueError, match=r"expected \[T, B, A\], \[S, B, A\] and \[A\]"):
        ops.additive_scores(queries, keys, rng.normal(size=A))
