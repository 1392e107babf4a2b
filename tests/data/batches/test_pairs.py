"""Batches of pairs: every pair once, its two sides together, like lengths side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.data import IGNORE_INDEX, DataError, pad, pair_batches

SOURCE_END, END = 3, 1
sentences = st.lists(st.integers(4, 99), max_size=6)


def texts(pairs):
    """The ids of both texts, each sentence with its end mark."""
    source = [id for one, _ in pairs for id in [*one, SOURCE_END]]
    target = [id for _, other in pairs for id in [*other, END]]
    return np.array(source, np.uint8), np.array(target, np.uint16)


def found_pairs(batches):
    """The pairs of an epoch, in its order, out of the padding."""
    found = []
    for batch in batches:
        real = batch.targets != IGNORE_INDEX
        assert batch.source.dtype == batch.inputs.dtype == batch.targets.dtype == np.int64
        np.testing.assert_array_equal(real.sum(axis=0), batch.lengths)
        assert (batch.inputs[0] == END).all()
        assert (batch.inputs[1:] == batch.targets[:-1])[real[1:]].all()
        assert (batch.inputs[~real] == 0).all()
        assert batch.tokens == real.sum()
        for b, (S, T) in enumerate(zip(batch.source_lengths, batch.lengths, strict=True)):
            source, target = batch.source[:, b], batch.targets[:, b]
            assert source[S - 1] == SOURCE_END
            assert target[T - 1] == END
            assert (source[S:] == 0).all()
            found.append((source[: S - 1].tolist(), target[: T - 1].tolist()))
    return found


@given(
    st.lists(st.tuples(sentences, sentences), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_every_pair_comes_once_in_any_order(pairs, batch_size, seed):
    batches = pair_batches(*texts(pairs), batch_size, END, SOURCE_END)
    assert len(batches) == -(-len(pairs) // batch_size)
    assert batches.tokens == sum(len(target) + 1 for _, target in pairs)
    assert [pairs[k] for order in batches.order for k in order] == found_pairs(batches)
    assert sorted(found_pairs(batches)) == sorted(pairs)

    shuffled = batches.shuffled(np.random.default_rng(seed))
    assert sorted(found_pairs(shuffled)) == sorted(pairs)
    again = batches.shuffled(np.random.default_rng(seed))
    assert found_pairs(shuffled) == found_pairs(again)
    sizes = [batch.lengths.max() - batch.lengths.min() for batch in batches]
    assert sum(sizes) <= max(len(target) for _, target in pairs)  # sorted by length


def test_pairs_of_one_target_length_are_sorted_by_their_source():
    pairs = [([9] * source, [8, 7]) for source in (5, 1, 4, 2)]
    batches = pair_batches(*texts(pairs), 2, END, SOURCE_END)
    assert [batch.source_lengths.tolist() for batch in batches] == [[2, 3], [5, 6]]


def test_vectors_stand_beside_their_targets(rng):
    _, target = texts([([], [5, 6]), ([], []), ([], [7]), ([], [8, 9, 4])])
    vectors = rng.normal(size=(4, 3))
    batches = pair_batches(vectors, target, batch_size=3, end_id=END)
    seen = 0
    for order, batch in zip(batches.order, batches, strict=True):
        assert batch.source_lengths is None
        np.testing.assert_array_equal(batch.source, vectors[order])
        seen += len(order)
    assert seen == 4
    assert batches[0].lengths.tolist() == [1, 2, 3]


def test_what_does_not_belong_together_is_refused():
    source, target = texts([([5], [6]), ([7], [8, 9])])
    with pytest.raises(DataError, match="the source has 1 sentences, but the target has 2"):
        pair_batches(source[:2], target, 2, END, SOURCE_END)
    with pytest.raises(DataError, match="the source has 3 vectors, but the target has 2"):
        pair_batches(np.ones((3, 4)), target, 2, END)
    with pytest.raises(DataError, match=r"last sentence of the target does not end with .* id 1"):
        pair_batches(source, target[:-1], 2, END, SOURCE_END)
    with pytest.raises(DataError, match="the source has no sentence"):
        pair_batches(source[:0], target, 2, END, SOURCE_END)
    with pytest.raises(DataError, match=r"shape \(4,\); expected vectors"):
        pair_batches(source, target, 2, END)
    with pytest.raises(
        ValueError, match="pair_batches: batch_size must be an integer of at least 1"
    ):
        pair_batches(source, target, 0, END, SOURCE_END)


def test_pad_stands_sequences_side_by_side():
    ids, lengths = pad([np.array([5]), np.array([], np.uint8), np.array([7, 8, 9], np.uint8)])
    np.testing.assert_array_equal(ids.T, [[5, 0, 0], [0, 0, 0], [7, 8, 9]])
    assert ids.dtype == np.int64
    assert lengths.tolist() == [1, 0, 3]
    assert pad([])[0].shape == (0, 0)
