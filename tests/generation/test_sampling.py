"""Sampling draws from exactly the distribution that its options describe."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anaphora.generation.sampling import Sampler

LOGITS = np.array([0.3, -1.2, 2.0, 0.9, -0.4, 1.4, 0.1])  # no ties


def expected(logits, sampler):
    """The distribution by its definition, one token at a time."""
    weights = [math.exp(z / sampler.temperature) for z in logits]
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    kept = ranked[: sampler.top_k or None]
    total, nucleus, reached = math.fsum(weights[i] for i in kept), [], 0.0
    for i in kept:
        nucleus.append(i)
        reached += weights[i] / total
        if reached >= sampler.top_p:
            break
    total = math.fsum(weights[i] for i in nucleus)
    return np.array([weights[i] / total if i in nucleus else 0.0 for i in range(len(logits))])


class FixedUniforms:
    """Stands in for a generator, and gives the numbers it was given."""

    def __init__(self, *uniforms):
        self.uniforms = uniforms

    def random(self, size):
        return np.array(self.uniforms).reshape(size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 3},
        {"top_k": 100},
        {"top_p": 0.75},
        {"temperature": 1.7, "top_p": 0.6},
        {"top_k": 4, "top_p": 0.9},
        {"temperature": 0.8, "top_k": 5, "top_p": 0.7},
    ],
    ids=str,
)
def test_frequencies_match_the_exact_distribution(options, dtype):
    sampler = Sampler(**options, seed=7)
    logits = LOGITS.astype(dtype)
    draws = 40_000
    ids = sampler.sample(np.tile(logits, (draws, 1)), sampler.generator())
    assert ids.shape == (draws,)
    assert ids.dtype == np.int64
    p = expected(logits.astype(float), sampler)
    counts = np.bincount(ids, minlength=len(logits))
    assert (counts[p == 0] == 0).all()
    kept = p > 0
    chi_square = np.sum((counts[kept] - draws * p[kept]) ** 2 / (draws * p[kept]))
    assert chi_square < 25  # with 6 degrees of freedom a true sampler exceeds it once in 3,000


def test_top_k_is_applied_before_the_nucleus():
    # Of all tokens the best has 0.4, which misses 0.55; of the best two, 0.4 / 0.7 reaches it.
    logits = np.log([[0.1, 0.4, 0.2, 0.3]])
    assert Sampler(top_k=2, top_p=0.55).sample(logits, FixedUniforms(0.9999))[0] == 1
    assert Sampler(top_p=0.55).sample(logits, FixedUniforms(0.9999))[0] == 3


def test_nucleus_stops_at_the_token_that_reaches_p():
    logits = np.zeros((1, 10))  # the cumulative sum of ten times 0.1 would miss 0.8 by rounding
    for kept in range(1, 11):
        sampler = Sampler(top_p=kept / 10)
        assert sampler.sample(logits, FixedUniforms(1 - 2**-53)) == [kept - 1]
    assert Sampler(top_p=1e-300).sample(logits, FixedUniforms(1 - 2**-53)) == [0]


def test_the_draw_inverts_the_cumulative_distribution():
    logits = np.log([[0.5, 0.25, 0.125, 0.125]])
    for uniform, id in [
        (0, 0),
        (0.49, 0),
        (0.51, 1),
        (0.74, 1),
        (0.76, 2),
        (0.88, 3),
        (1 - 2**-53, 3),
    ]:
        assert Sampler().sample(logits, FixedUniforms(uniform)) == [id]


def test_excluded_tokens_are_never_sampled():
    logits = np.array([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]])
    for sampler in (Sampler(), Sampler(top_k=4), Sampler(top_p=0.999), Sampler(temperature=9.0)):
        assert sampler.sample(logits, FixedUniforms(0.0))[0] in (1, 3)
        assert sampler.sample(logits, FixedUniforms(1 - 2**-53))[0] in (1, 3)


def test_ties_at_the_kth_logit_keep_the_lower_ids_and_exactly_k():
    logits = np.tile([1.0, 2.0, 1.0, 1.0, 2.0, 1.0], (2000, 1))
    sampler = Sampler(top_k=4, seed=3)
    assert set(sampler.sample(logits, sampler.generator())) == {0, 1, 2, 4}
    sampler = Sampler(top_p=0.5, seed=3)  # 2e / (2e + 4) = 0.58
    assert set(sampler.sample(logits, sampler.generator())) == {1, 4}


matrices = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 8)),
    elements=st.floats(-30, 30, allow_subnormal=False),
)


@given(matrices, st.integers(0, 2**32))
def test_greedy_is_argmax(logits, seed):
    generator = np.random.default_rng(seed)
    greedy = logits.argmax(axis=1).tolist()
    assert Sampler(temperature=0).sample(logits, generator).tolist() == greedy
    assert Sampler(top_k=1).sample(logits, generator).tolist() == greedy


@given(
    matrices,
    st.sampled_from([0.25, 0.7, 1.0, 2.5]),
    st.integers(0, 9),
    st.sampled_from([0.01, 0.3, 0.8, 0.99, 1.0]),
    st.integers(0, 2**32),
)
def test_support_is_within_the_top_k_and_the_nucleus(logits, temperature, top_k, top_p, seed):
    sampler = Sampler(temperature, top_k, top_p, seed)
    ids = sampler.sample(logits, sampler.generator())
    slack = Sampler(temperature, top_k, min(1.0, top_p + 1e-9))  # the two round differently
    for row, id in zip(logits, ids, strict=True):
        assert expected(row, slack)[id] > 0
    assert sampler.sample(logits, sampler.generator()).tolist() == ids.tolist()


def test_a_draw_does_not_depend_on_the_other_rows():
    generator = np.random.default_rng(5)
    logits, uniforms = generator.normal(size=(6, 11)), generator.random(6)
    for sampler in (Sampler(0.9), Sampler(top_k=5), Sampler(top_p=0.8), Sampler(1.3, 7, 0.9)):
        together = sampler.sample(logits, FixedUniforms(*uniforms))
        alone = [sampler.sample(logits[b : b + 1], FixedUniforms(uniforms[b]))[0] for b in range(6)]
        assert together.tolist() == alone


def test_the_seed_decides_the_ids():
    logits = np.random.default_rng(1).normal(size=(50, 9))
    one, same, other = Sampler(seed=4), Sampler(seed=4), Sampler(seed=5)
    ids = one.sample(logits, one.generator()).tolist()
    assert same.sample(logits, same.generator()).tolist() == ids
    assert other.sample(logits, other.generator()).tolist() != ids


def test_one_uniform_number_is_taken_a_row_and_none_when_greedy():
    generator, twin = np.random.default_rng(2), np.random.default_rng(2)
    Sampler(top_p=0.5).sample(np.zeros((3, 4)), generator)
    twin.random(3)
    Sampler(temperature=0).sample(np.zeros((3, 4)), generator)
    assert generator.random() == twin.random()


@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_extreme_logits_and_temperatures(top_p):
    logits = np.array([[1e308, -1e308, 0.0], [1e-300, 0.0, -1e308]])
    for temperature in (1e-320, 1e-3, 1.0, 1e300):
        sampler = Sampler(temperature, top_p=top_p)
        assert sampler.sample(logits, FixedUniforms(0.0, 0.0)).tolist() == [0, 0]
    large = np.array([[3e38, -3e38]], np.float32)
    assert Sampler(top_p=top_p).sample(large, FixedUniforms(0.9)) == [0]


def test_no_rows_and_one_token():
    for sampler in (Sampler(), Sampler(0), Sampler(top_k=3, top_p=0.5)):
        assert sampler.sample(np.zeros((0, 4)), np.random.default_rng(0)).shape == (0,)
        assert sampler.sample(np.zeros((2, 1)), np.random.default_rng(0)).tolist() == [0, 0]


def test_logits_are_not_changed():
    logits = np.random.default_rng(0).normal(size=(2, 5))
    logits.flags.writeable = False
    Sampler(0.5, 3, 0.9).sample(logits, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, r"temperature is -0.1; expected a finite number >= 0"),
        ({"temperature": math.nan}, r"temperature is nan; expected a finite number"),
        ({"temperature": math.inf}, r"temperature is inf; expected a finite number"),
        ({"top_k": -1}, r"top_k is -1; expected an integer >= 0 \(0 keeps all tokens\)"),
        ({"top_k": 2.5}, r"top_k is 2.5; expected an integer"),
        ({"top_p": 0.0}, r"top_p is 0.0; expected 0 < top_p <= 1"),
        ({"top_p": 1.1}, r"top_p is 1.1; expected 0 < top_p <= 1"),
        ({"top_p": math.nan}, r"top_p is nan; expected 0 < top_p <= 1"),
        ({"seed": -1}, r"seed is -1; expected an integer >= 0 or None"),
    ],
    ids=str,
)
def test_options_out_of_range_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**options)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([[0.0, 1.0], [np.nan, 1.0]], "row 1 of the logits has NaN"),
        ([[np.nan, np.inf]], "row 0 of the logits has NaN"),
        ([[0.0, 1.0], [0.0, 1.0], [-np.inf, -np.inf]], "row 2 of the logits has only -inf"),
        ([[0.0, np.inf]], r"row 0 of the logits has \+inf"),
        ([0.0, 1.0], r"logits have shape \[2\]; expected \[B, V\]"),
        (np.zeros((2, 0)), r"logits have shape \[2, 0\]; expected \[B, V\], V > 0"),
    ],
    ids=str,
)
def test_bad_logits_are_explained(logits, message, temperature):
    with pytest.raises(ValueError, match=message):
        Sampler(temperature).sample(np.array(logits), np.random.default_rng(0))


def test_integer_logits_are_refused():
    with pytest.raises(TypeError, match="logits are int64; expected float32 or float64"):
        Sampler().sample(np.zeros((1, 3), np.int64), np.random.default_rng(0))


def test_a_top_k_that_does_not_fit_into_64_bits_is_refused():
    with pytest.raises(ValueError, match=f"top_k is {2**63}; expected at most {2**63 - 1}"):
        Sampler(top_k=2**63)
    assert Sampler(top_k=2**63 - 1).top_k == 2**63 - 1


# Penalties on repetition


def by_hugging_face(logits, previous, penalty, n):
    """What its two processors do, token by token (RepetitionPenaltyLogitsProcessor,
    NoRepeatNGramLogitsProcessor).
    """
    result = [list(row) for row in logits.tolist()]
    for row, ids in zip(result, previous, strict=True):
        for id in set(ids):
            row[id] = row[id] * penalty if row[id] < 0 else row[id] / penalty
        if n and len(ids) + 1 >= n:
            ngrams = {}
            for k in range(len(ids) - n + 1):
                *beginning, last = ids[k : k + n]
                ngrams.setdefault(tuple(beginning), []).append(last)
            for id in ngrams.get(tuple(ids[len(ids) + 1 - n :]), []):
                row[id] = -math.inf
    return np.array(result)


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=4),
    st.sampled_from([0.7, 1.0, 1.3, 5.0]),
    st.integers(0, 4),
    st.integers(0, 1000),
)
def test_penalties_are_those_of_hugging_face(previous, penalty, n, seed):
    random = np.random.default_rng(seed)
    logits = 2 * random.standard_normal((len(previous), 9))
    uniforms = random.random(len(previous))
    expected = by_hugging_face(logits, previous, penalty, n)
    options = {"temperature": 0.8, "top_k": 6, "top_p": 0.9}
    sampler = Sampler(**options, repetition_penalty=penalty, no_repeat_ngram=n)
    before = logits.copy()
    found = sampler.choose(logits, uniforms, previous)
    assert (logits == before).all()
    assert (found == Sampler(**options).choose(expected, uniforms)).all()
    greedy = Sampler(0, repetition_penalty=penalty, no_repeat_ngram=n)
    assert (greedy.choose(logits, uniforms, previous) == expected.argmax(axis=1)).all()


def test_a_penalty_changes_frequencies_as_it_says():
    sampler = Sampler(seed=3, repetition_penalty=2.0)
    rows = np.tile(LOGITS, (40_000, 1))
    previous = [[2, 1, 2]] * len(rows)
    ids = sampler.sample(rows, sampler.generator(), previous)
    changed = LOGITS.copy()
    changed[2] /= 2
    changed[1] *= 2
    frequencies = np.bincount(ids, minlength=len(LOGITS)) / len(ids)
    np.testing.assert_allclose(frequencies, expected(changed, Sampler()), atol=0.01)


def test_messages_of_penalties():
    for options, message in [
        ({"repetition_penalty": 0}, "repetition_penalty is 0; expected a finite number > 0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty is inf; expected a finite number"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1; expected an integer >= 0"),
        ({"no_repeat_ngram": 1.5}, "no_repeat_ngram is 1.5; expected an integer >= 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Sampler(**options)
    sampler = Sampler(no_repeat_ngram=1)
    logits, uniforms = np.zeros((1, 3)), np.zeros(1)
    with pytest.raises(TypeError, match="sample: repetition penalties need the previous ids"):
        sampler.choose(logits, uniforms)
    with pytest.raises(ValueError, match="after 4 ids no_repeat_ngram 1 leaves no token; choose"):
        sampler.choose(logits, uniforms, [[0, 1, 2, 1]])
    with pytest.raises(ValueError, match="zip"):
        sampler.choose(logits, uniforms, [[0], [1]])


def test_biases_are_added_to_the_logits_before_penalties():
    sampler = Sampler(temperature=0, logit_bias=((1, 4.0), (2, -2.5)), repetition_penalty=3.0)
    logits = np.stack([LOGITS, LOGITS + np.eye(7)[0] * 2])
    uniforms = np.zeros(2)
    biased = logits + np.array([0, 4.0, -2.5, 0, 0, 0, 0])
    assert (
        sampler.choose(logits, uniforms, [[], []]).tolist() == biased.argmax(1).tolist() == [1, 1]
    )
    assert sampler.choose(logits, uniforms, [[1], [1]]).tolist() == [5, 0]  # 2.8 / 3 of id 1
    with pytest.raises(ValueError, match=r"logit_bias is .*expected ids >= 0 with finite numbers"):
        Sampler(logit_bias=((1, math.inf),))
    with pytest.raises(IndexError):
        Sampler(logit_bias=((7, 1.0),)).choose(logits, uniforms)
