"""The CRF layer: what it computes of its parameters, and constraints of tags that mark spans."""

import itertools

import numpy as np
import pytest

from anaphora import nn, ops, optim, random
from anaphora.nn import CRF, TagConstraints, tag_constraints

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
BIOES = ["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"]


def spans_are_well_formed(tags, scheme):
    """By the definition of each scheme, from the first tag to the last."""
    open_type = None  # of the span that continues
    for before, tag in itertools.pairwise([*["O"], *tags, "O"]):
        letter, kind = tag[:1], tag[2:]
        if scheme == "BIO" and letter == "I" and not (before[:1] in "BI" and before[2:] == kind):
            return False
        if scheme == "IOB1" and letter == "B" and not (before[:1] in "BI" and before[2:] == kind):
            return False
        if scheme == "BIOES":
            if open_type is not None and not (letter in "IE" and kind == open_type):
                return False
            if open_type is None and letter in "IE":
                return False
            open_type = kind if letter in "BI" else None
    return True


@pytest.mark.parametrize(
    ("names", "scheme"), [(NAMES, "BIO"), (NAMES, "IOB1"), (BIOES, "BIOES"), ("IOB", "BIO")]
)
def test_constraints_allow_what_is_well_formed(names, scheme):
    allowed = tag_constraints(names, scheme)
    found = set()
    for length in (1, 2, 3):
        for path in itertools.product(range(len(names)), repeat=length):
            possible = allowed.start[path[0]] and allowed.end[path[-1]]
            possible &= all(allowed.transitions[i, j] for i, j in itertools.pairwise(path))
            assert possible == spans_are_well_formed([names[k] for k in path], scheme), path
            found.add(bool(possible))
    assert found == {True, False}


@pytest.mark.parametrize(
    ("names", "scheme", "message"),
    [
        (["O", "NOUN"], "BIO", "'NOUN' is not a tag of BIO: B-type, I-type or O"),
        (["O", "BPER"], "BIO", "'BPER' is not a tag of BIO"),
        (["O-PER"], "BIO", "'O-PER' is not a tag of BIO"),
        (["O", ""], "BIO", "'' is not a tag of BIO"),
        (["O", "S-PER"], "IOB1", "'S-PER' is not a tag of IOB1: B-type, I-type or O"),
        (["O"], "IOB2", "scheme 'IOB2' is not one of BIO, IOB1, BIOES"),
    ],
)
def test_other_tags_are_refused(names, scheme, message):
    with pytest.raises(ValueError, match=f"^tag_constraints: {message}"):
        tag_constraints(names, scheme)


@pytest.fixture
def emissions(rng):
    return (3 * rng.standard_normal((6, 50, 5))).astype(np.float32)


def test_values_are_those_of_the_operations(emissions, rng):
    crf = CRF(5)
    tags, lengths = rng.integers(0, 5, (6, 50)), rng.integers(0, 7, 50)
    parameters = [p.data for p in (crf.transitions, crf.start_transitions, crf.end_transitions)]
    assert all((p != 0).all() and (np.abs(p) <= 0.1).all() for p in parameters)
    for reduction in ("mean", "sum", "none"):
        np.testing.assert_array_equal(
            crf.loss(emissions, tags, lengths, reduction=reduction).data,
            ops.crf_loss(emissions, *parameters, tags, lengths, reduction=reduction).data,
        )
    assert crf(emissions, tags, lengths).item() == crf.loss(emissions, tags, lengths).item()
    np.testing.assert_array_equal(
        crf.decode(emissions, lengths), ops.crf_decode(emissions, *parameters, lengths)
    )
    np.testing.assert_array_equal(
        crf.marginals(emissions, lengths), ops.crf_marginals(emissions, *parameters, lengths)
    )
    assert list(crf.state_dict()) == ["transitions", "start_transitions", "end_transitions"]


def test_constraints_hold_in_decoding_and_marginals_and_not_in_the_loss(emissions, rng):
    random.seed(1)
    free = CRF(5)
    random.seed(1)
    crf = CRF(5, constraints=tag_constraints(NAMES))
    lengths = rng.integers(0, 7, 50)

    def broken(tags):
        paths = [[NAMES[k] for k in tags[:length, b]] for b, length in enumerate(lengths)]
        return sum(not spans_are_well_formed(path, "BIO") for path in paths)

    assert broken(free.decode(emissions, lengths)) > 20
    assert broken(crf.decode(emissions, lengths)) == 0
    marginals = crf.marginals(emissions, lengths)
    assert not marginals[0][:, [2, 4]].any()  # I cannot be first
    np.testing.assert_allclose(marginals.sum(axis=(0, 2)), lengths, rtol=1e-5)
    tags = np.full((6, 50), 2)  # I-PER from the start
    assert crf.loss(emissions, tags, lengths).item() == free.loss(emissions, tags, lengths).item()
    assert np.isfinite(crf.loss(emissions, tags, lengths).item())


def test_it_learns_what_follows_what(rng):
    """Tags that say nothing about their step, but alternate: only transitions can tell."""
    random.seed(3)
    crf = CRF(3)
    tags = (rng.integers(0, 3, 20) + np.arange(8)[:, None]) % 3
    emissions = np.zeros((8, 20, 3), np.float32)
    optimizer = optim.Adam(crf.parameters(), 0.2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = crf.loss(emissions, tags)
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.2 * np.log(3) / 8  # what is left is the first tag
    hint = emissions.copy()
    hint[3, np.arange(20), tags[3]] = 1
    np.testing.assert_array_equal(crf.decode(hint), tags)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initialization(dtype):
    crf = CRF(30, initialization=0.5, dtype=dtype)
    assert crf.transitions.dtype == dtype
    assert 0.4 < np.abs(crf.transitions.data).max() <= 0.5
    before = crf.transitions.data.copy()
    crf.reset_parameters()
    assert (crf.transitions.data != before).all()
    with nn.initialization.shapes_only():
        assert CRF(10**6).transitions.shape == (10**6, 10**6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CRF(0), "CRF: num_tags must be an integer of at least 1, not 0"),
        (lambda: CRF(3, initialization="best"), "initialization 'best' is not one of"),
        (
            lambda: CRF(3, constraints=tag_constraints(["O"])),
            r"CRF: constraints have transitions of bool\(1, 1\); expected bool\(3, 3\) for num",
        ),
        (
            lambda: CRF(1, constraints=TagConstraints(np.ones((1, 1), bool), *np.ones((2, 1)))),
            r"CRF: constraints have start of float64\(1,\); expected bool\(1,\)",
        ),
    ],
)
def test_misuse(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_repr():
    assert repr(CRF(5)) == "CRF(5) (35 parameters)"
    assert repr(CRF(5, constraints=tag_constraints(NAMES))) == "CRF(5, constrained) (35 parameters)"
