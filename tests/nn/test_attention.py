"""Attention against plain NumPy, row by row and query by query; gradients; lengths; refusals."""

import numpy as np
import pytest

from anaphora.nn import AdditiveAttention, Attention, MultiplicativeAttention
from anaphora.tensor import Tensor

T, S, B, Q, E, A = 5, 6, 4, 3, 7, 2
LENGTHS = [6, 0, 2, 5]
KINDS = {
    "additive": lambda **options: AdditiveAttention(Q, E, A, **options),
    "multiplicative": lambda **options: MultiplicativeAttention(Q, E, **options),
}


@pytest.fixture
def arrays(rng):
    return rng.normal(size=(T, B, Q)), rng.normal(size=(S, B, E))


def by_hand(weights, queries, states, lengths):
    """Contexts and weights, one number after the other."""
    contexts, shares = np.zeros((T, B, E)), np.zeros((T, B, S))
    for b, length in enumerate(lengths):
        for t in range(T):
            query, scores = queries[t, b], []
            for state in states[:length, b]:
                key = weights["key.weight"] @ state
                if "query.weight" in weights:
                    hidden = np.tanh(weights["query.weight"] @ query + key)
                    scores.append(weights["score.weight"][0] @ hidden)
                else:
                    scores.append(query @ key)
            if length:
                shares[t, b, :length] = np.exp(scores) / np.sum(np.exp(scores))
                contexts[t, b] = shares[t, b, :length] @ states[:length, b]
    return contexts, shares


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [LENGTHS, None])
def test_values_are_those_of_a_loop(kind, lengths, arrays):
    attention = KINDS[kind](dtype="float64", initialization=1.0)
    contexts, weights = attention(*arrays, lengths)
    expected = by_hand(attention.state_dict(), *arrays, lengths or [S] * B)
    np.testing.assert_allclose(contexts.data, expected[0], atol=1e-12)
    np.testing.assert_allclose(weights.data, expected[1], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_weighs_nothing_and_an_empty_row_has_a_context_of_zero(kind, dtype, arrays):
    queries, states = (array.astype(dtype) for array in arrays)
    attention = KINDS[kind](dtype=dtype, initialization=1.0)
    contexts, weights = attention(queries, states, LENGTHS)
    assert contexts.dtype == weights.dtype == dtype
    padding = np.arange(S) >= np.array(LENGTHS)[:, None]
    assert (weights.data[:, padding] == 0).all()
    assert (contexts.data[:, 1] == 0).all()
    np.testing.assert_allclose(weights.data.sum(axis=2)[:, [0, 2, 3]], 1, rtol=1e-6)
    states[padding.T] = 1e6
    np.testing.assert_array_equal(attention(queries, states, LENGTHS)[0].data, contexts.data)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, arrays, check_gradients):
    attention = KINDS[kind](dtype="float64", initialization=1.0)
    parameters = attention.state_dict()

    def run(queries, states, *values):
        # The parameters take part as the inputs that the check moves.
        for name, value in zip(parameters, values, strict=True):
            holder, _, leaf = name.rpartition(".")
            vars(getattr(attention, holder))[leaf] = value  # though it is no Parameter
        return attention(queries, states, LENGTHS)

    check_gradients(run, *arrays, *parameters.values())


def test_attending_step_by_step_to_one_memory_is_attending_at_once(arrays):
    attention = KINDS["additive"](dtype="float64")
    queries, states = arrays
    memory = attention.remember(states, LENGTHS)
    complete, _ = attention.attend(queries, memory)
    steps = [attention.attend(query[None], memory)[0].data[0] for query in queries]
    np.testing.assert_allclose(complete.data, np.stack(steps), atol=1e-14)
    some, _ = attention.attend(queries[:, [3, 0]], memory.rows([3, 0]))
    np.testing.assert_allclose(some.data, complete.data[:, [3, 0]], atol=1e-14)


def test_no_states_and_no_queries():
    attention = MultiplicativeAttention(Q, E)
    contexts, weights = attention(np.ones((T, B, Q), "f"), np.ones((0, B, E), "f"), [0] * B)
    assert weights.shape == (T, B, 0)
    np.testing.assert_array_equal(contexts.data, np.zeros((T, B, E)))
    assert attention(np.ones((0, B, Q), "f"), np.ones((S, B, E), "f"))[0].shape == (0, B, E)


def test_what_does_not_fit_is_refused():
    attention = MultiplicativeAttention(Q, E)
    states = Tensor(np.ones((S, B, E), "f"))
    with pytest.raises(ValueError, match=r"states of shape \(4, 7\); expected \[S, B, 7\]"):
        attention.remember(states[0])
    with pytest.raises(
        ValueError, match="Attention: lengths from 2 to 7, but the sequences have 6 steps"
    ):
        attention.remember(states, [6, 2, 7, 3])
    with pytest.raises(ValueError, match="expected one integer for each of the 4 rows"):
        attention.remember(states, [6, 2])
    with pytest.raises(ValueError, match=r"queries of shape \(5, 3, 3\); expected \[T, 4, 3\]"):
        attention(np.ones((T, 3, Q), "f"), states)
    with pytest.raises(ValueError, match="attention_size must be an integer of at least 1"):
        AdditiveAttention(Q, E, 0)
    with pytest.raises(NotImplementedError, match="does not define keys"):
        Attention(Q, E).remember(states)
