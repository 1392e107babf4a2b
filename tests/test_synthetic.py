"""The synthetic tasks: what a solver that knows the rule answers, seeds, and bad sizes."""

import numpy as np
import pytest

from anaphora.synthetic import (
    COUNTING_TOKENS,
    TEMPORAL_SYMBOLS,
    adding_problem,
    count_block,
    signal_echo,
    temporal_order,
)

DRAWS = {
    "temporal_order": lambda g: temporal_order(g, 7),
    "adding_problem": lambda g: adding_problem(g, 7),
    "signal_echo": lambda g: signal_echo(g, 20, 7, 3),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_seed_draws_the_same(name):
    one, two, other = (DRAWS[name](np.random.default_rng(seed)) for seed in (1, 1, 2))
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape != c.shape or not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("classes", "places"), [(4, [(10, 20), (50, 60)]), (8, [(10, 20), (33, 43), (66, 76)])]
)
def test_temporal_order_is_the_published_task(rng, classes, places):
    ids, order, lengths = temporal_order(rng, 2000, classes)
    assert ids.shape == (110, 2000)
    assert set(lengths) == set(range(100, 111))
    assert sorted(set(order)) == list(range(classes))
    seen = [set() for _ in places]
    for b, length in enumerate(lengths):
        word = "".join(TEMPORAL_SYMBOLS[id] for id in ids[:length, b])
        found = [t for t, symbol in enumerate(word) if symbol in "XY"]
        assert len(found) == len(places)
        for places_seen, t in zip(seen, found, strict=True):
            places_seen.add(t)
        assert word[0] == "E"
        assert word[-1] == "B"
        assert set(word[1:-1]) <= set("abcdXY")
        digits = "".join("01"["XY".index(word[t])] for t in found)
        assert order[b] == int(digits, 2)
        assert not ids[length:, b].any()
    assert seen == [set(range(low, high + 1)) for low, high in places]


@pytest.mark.parametrize("length", [10, 23, 60])
@pytest.mark.parametrize("classes", [4, 8])
def test_easier_temporal_orders_have_their_symbols_apart(rng, classes, length):
    ids, _, lengths = temporal_order(rng, 500, classes, length)
    marks = (ids >= TEMPORAL_SYMBOLS.index("X")).sum(axis=0)
    assert set(marks) == {2 if classes == 4 else 3}
    assert lengths.min() == length
    assert (ids[lengths - 1, np.arange(500)] == TEMPORAL_SYMBOLS.index("B")).all()


@pytest.mark.parametrize("length", [6, 30, 100])
def test_the_adding_problem_is_solved_by_adding(rng, length):
    x, y, lengths = adding_problem(rng, 3000, length)
    assert x.dtype == y.dtype == np.float32
    assert y.shape == (3000, 1)
    numbers, marks = x[:, :, 0], x[:, :, 1]
    assert ((marks == 1).sum(axis=0) == 2).all()
    np.testing.assert_allclose((numbers * (marks == 1)).sum(axis=0), 4 * (y[:, 0] - 0.5), atol=1e-6)
    row = np.arange(3000)
    assert (marks[lengths - 1, row] == -1).all()
    marked_first = marks[0] == 1
    assert (marks[0][~marked_first] == -1).all()
    assert (numbers[0][marked_first] == 0).all()
    assert set(lengths) == set(range(length, length + length // 10 + 1))
    places = np.argwhere(marks.T == 1)[:, 1]
    assert set(places) == set(range(length // 2 - 1))
    assert (np.argmax(marks == 1, axis=0) < 10).all()
    assert numbers.min() >= -1
    assert numbers.max() <= 1
    assert numbers.std() > 0.5
    assert not x[np.arange(len(x))[:, None] >= lengths].any()


@pytest.mark.parametrize("delay", [0, 1, 6, 20, 25])
def test_an_echo_is_the_bit_of_some_steps_ago(rng, delay):
    bits, echoes = signal_echo(rng, 20, 3, delay)
    assert set(bits.ravel()) == {0, 1}
    for t in range(20):
        expected = bits[t - delay] if t >= delay else np.full(3, -100)
        np.testing.assert_array_equal(echoes[t], expected)


@pytest.mark.parametrize("n", [1, 3])
def test_blocks_are_counted(n):
    for unknown in (False, True):
        words = [COUNTING_TOKENS[id] for id in count_block(n, unknown)]
        first = "<unk>" if unknown else "a"
        assert words == [first] * n + ["b"] * n + ["a"] * n + ["<eos>"]


def test_sizes_that_make_no_task_are_refused(rng):
    with pytest.raises(ValueError, match="temporal_order: 5 classes; expected 4 or"):
        temporal_order(rng, 2, classes=5)
    with pytest.raises(ValueError, match="temporal_order: length 9; it must be at least 10"):
        temporal_order(rng, 2, length=9)
    with pytest.raises(ValueError, match="adding_problem: length 5; it must be at least 6"):
        adding_problem(rng, 2, length=5)
    with pytest.raises(ValueError, match="signal_echo: delay -1; it must be at least 0"):
        signal_echo(rng, 5, 2, -1)
    with pytest.raises(ValueError, match="count_block: n must be an integer of at least 1, not 0"):
        count_block(0)
