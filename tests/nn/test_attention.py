"""Attention against plain NumPy, row by row and query by query; gradients; lengths; refusals."""

import numpy as np
import pytest

from anaphora import matmul_precision
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


def test_gradients_in_bfloat16(arrays, nearest_bfloat16):
    """Multiplicative attention by hand: what is multiplied is rounded, all else is float32."""
    queries, states = (array.astype(np.float32) for array in arrays)
    attention = MultiplicativeAttention(Q, E, initialization=1.0)
    tensors = Tensor(queries, requires_grad=True), Tensor(states, requires_grad=True)
    with matmul_precision("bfloat16"):
        contexts, _ = attention(*tensors)
    d_contexts = np.random.default_rng(3).standard_normal(contexts.shape).astype(np.float32)
    contexts.backward(d_contexts)
    found = [contexts.data, *(t.grad for t in tensors), attention.key.weight.grad]

    def by_hand(r):
        q, s, w = (a.astype(np.float64) for a in (queries, states, attention.key.weight.data))
        d = d_contexts.astype(np.float64).transpose(1, 0, 2)  # [B, T, E]
        keys = r(s) @ r(w).T  # [S, B, Q]
        a, k, s_ = q.transpose(1, 0, 2), keys.transpose(1, 2, 0), s.transpose(1, 0, 2)
        shares = np.exp(r(a) @ r(k))
        shares /= shares.sum(axis=2, keepdims=True)
        values = r(shares) @ r(s_)
        d_shares = r(d) @ r(s_).transpose(0, 2, 1)
        d_states = r(shares).transpose(0, 2, 1) @ r(d)  # [B, S, E]
        d_scores = shares * (d_shares - (d_shares * shares).sum(axis=2, keepdims=True))
        d_queries = r(d_scores) @ r(k).transpose(0, 2, 1)
        d_keys = (r(a).transpose(0, 2, 1) @ r(d_scores)).transpose(2, 0, 1)  # [S, B, Q]
        d_states = d_states.transpose(1, 0, 2) + r(d_keys) @ r(w)
        d_weight = r(d_keys).reshape(S * B, Q).T @ r(s).reshape(S * B, E)
        return values.transpose(1, 0, 2), d_queries.transpose(1, 0, 2), d_states, d_weight

    pairs = zip(found, by_hand(nearest_bfloat16), by_hand(lambda x: x), strict=True)
    for array, expected, in_float32 in pairs:
        # A number close to a tie may be rounded to the other side.
        assert array.dtype == np.float32
        error, away = np.abs(array - expected), np.abs(expected - in_float32)
        assert error.max() < 2**-8 * np.abs(expected).max()
        assert error.mean() < 0.05 * away.mean()
