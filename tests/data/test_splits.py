"""Holding out: every class in its proportion, by the seed alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anaphora.data import DataError, stratified_split


@given(
    st.lists(st.sampled_from("abcde"), min_size=2, max_size=80),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
@example(list("aaaaaab"), 0.5, 0)  # b can give none: of its 6 a gives 4, although 3 is its half
def test_every_class_in_its_proportion(labels, share, seed):
    training, held_out = stratified_split(labels, share, seed)
    assert sorted([*training, *held_out]) == list(range(len(labels)))
    assert (np.diff(training) > 0).all()
    assert (np.diff(held_out) > 0).all()
    counts, taken = Counter(labels), Counter(labels[k] for k in held_out)
    for label, count in counts.items():
        assert taken[label] < count, "each class can be trained"
        assert abs(taken[label] - min(share * count, count - 1)) <= 1
    room = sum(count - 1 for count in counts.values())
    expected = max(1, round(share * len(labels)))
    assert len(held_out) <= expected
    if room >= expected and all(share * n <= n - 1 for n in counts.values()):
        assert len(held_out) == expected


def test_the_largest_remainders_give_one_more():
    labels = ["a"] * 17 + ["b"] * 13 + ["c"] * 6 + ["d"]  # 1.7, 1.3, 0.6 and 0.1 of 3.7
    for seed in range(5):
        _, held_out = stratified_split(labels, 0.1, seed)
        assert Counter(labels[k] for k in held_out) == {"a": 2, "b": 1, "c": 1}


def test_the_seed_alone_chooses():
    labels = [1, 2] * 50
    first, again, other = (stratified_split(labels, 0.2, seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other
    found = Counter(k for seed in range(300) for k in stratified_split(labels, 0.2, seed)[1])
    assert len(found) == 100, "any example can be held out"
    assert 25 < min(found.values()) < max(found.values()) < 100


def test_examples_without_classes():
    training, held_out = stratified_split(50, 0.1, seed=3)
    assert (len(training), len(held_out)) == (45, 5)
    assert set(training) | set(held_out) == set(range(50))
    assert [len(part) for part in stratified_split(2, 0.01)] == [1, 1]
    assert [len(part) for part in stratified_split(2, 0.99)] == [1, 1]


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_shares_out_of_range(share):
    with pytest.raises(DataError, match="it must be above 0 and below 1"):
        stratified_split(10, share)
    with pytest.raises(DataError, match="too few examples to hold some out: 1"):
        stratified_split(["a"], 0.5)
