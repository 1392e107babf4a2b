"""Batches: which token is predicted from which, how often, and in which order."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.data import (
    IGNORE_INDEX,
    Batches,
    DataError,
    WordTokenizer,
    batchify,
    cover,
    open_ids,
    sentence_batches,
    split_sentences,
)

sizes = st.integers(1, 7)
START = 10_000


def unique_ids(count: int) -> np.ndarray:
    """Ids that are their own positions plus 1, so that each (input, target) tells where it is
    from.
    """
    return np.arange(1, count + 1, dtype=np.uint16)


def pairs(batches: Batches) -> Counter[tuple[int, int]]:
    """Count each (input, target) that counts."""
    found: Counter[tuple[int, int]] = Counter()
    for batch in batches:
        real = batch.targets != IGNORE_INDEX
        assert batch.inputs.dtype == batch.targets.dtype == np.int64
        assert batch.inputs.shape == batch.targets.shape
        assert (batch.inputs >= 0).all()
        assert (batch.inputs[1:] == batch.targets[:-1])[real[1:]].all(), "rows are contiguous"
        assert batch.tokens == real.sum() > 0
        found.update(zip(batch.inputs[real].tolist(), batch.targets[real].tolist(), strict=True))
    assert found.total() == batches.tokens
    return found


def rows(batches: Batches) -> list[list[int]]:
    """Return the targets of each row over the complete epoch, what does not count omitted."""
    targets = np.concatenate([batch.targets for batch in batches])
    return [row[row != IGNORE_INDEX].tolist() for row in targets.T]


# Training streams


@given(sizes, sizes, st.integers(0, 60))
def test_batchify(batch_size, window, extra):
    ids = unique_ids(batch_size * (window + 1) + extra)
    batches = batchify(ids, batch_size, window)
    length = len(ids) // batch_size
    streams = ids[: length * batch_size].reshape(batch_size, length)
    assert batches.carries_state
    assert batches.tokens == batch_size * (length - 1)
    assert [len(batch.inputs) for batch in batches][:-1] == [window] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([b.inputs for b in batches]).T, streams[:, :-1])
    np.testing.assert_array_equal(np.concatenate([b.targets for b in batches]).T, streams[:, 1:])
    assert all(batch.lengths is None for batch in batches)


def test_any_batch_by_index():
    batches = batchify(unique_ids(100), 3, 4)
    for index, batch in enumerate(batches):
        np.testing.assert_array_equal(batches[index].inputs, batch.inputs)
        np.testing.assert_array_equal(batches[index - len(batches)].targets, batch.targets)
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_windows_of_a_memory_map_are_ordinary_arrays(tmp_path):
    np.save(tmp_path / "ids.npy", unique_ids(50))
    batches = batchify(open_ids(tmp_path / "ids.npy"), 2, 5)
    assert type(batches[0].inputs) is np.ndarray
    assert batches[1].inputs.T.tolist() == [[6, 7, 8, 9, 10], [31, 32, 33, 34, 35]]


def test_text_too_short_for_batchify():
    with pytest.raises(DataError) as caught:
        batchify(unique_ids(719), batch_size=20, window=35)
    message = str(caught.value)
    for part in ["719 tokens", "20 parallel streams of 35 steps needs 720", "batch_size (20)"]:
        assert part in message
    assert len(batchify(unique_ids(720), batch_size=20, window=35)) == 1


# Exact cover


@given(st.integers(1, 80), sizes, sizes, st.booleans())
def test_cover_counts_each_token_once_after_its_true_predecessor(count, batch_size, window, start):
    ids = unique_ids(count + (not start))
    batches = cover(ids, batch_size, window, START if start else None)
    text = [START, *ids.tolist()] if start else ids.tolist()
    assert pairs(batches) == Counter(itertools.pairwise(text))
    assert batches.tokens == count
    assert batches.carries_state
    streams = rows(batches)
    assert list(itertools.chain(*streams)) == text[1:], "streams are contiguous and in order"
    lengths = [len(stream) for stream in streams]
    assert max(lengths) - min(lengths) <= 1
    assert all(len(batch.inputs) == window for batch in list(batches)[:-1])
    for batch in batches:  # padding only where a stream has ended
        real = batch.targets != IGNORE_INDEX
        assert (real[:-1] >= real[1:]).all()
        assert np.isin(batch.inputs, [0, *text]).all()


def test_cover_of_one_stream_is_the_plain_scheme():
    batches = cover(unique_ids(7), batch_size=1, window=3, start_id=START)
    assert [batch.inputs[:, 0].tolist() for batch in batches] == [[START, 1, 2], [3, 4, 5], [6]]
    assert [batch.targets[:, 0].tolist() for batch in batches] == [[1, 2, 3], [4, 5, 6], [7]]


def test_nothing_to_cover():
    with pytest.raises(DataError, match="too few tokens to predict one: 1, where at least 2"):
        cover(unique_ids(1), 1, 5)
    with pytest.raises(DataError, match="too few tokens to predict one: 0, where at least 1"):
        cover(unique_ids(0), 1, 5, start_id=0)


# Sentences

END = 9_999
sentence_lengths = st.lists(st.integers(0, 12), min_size=1, max_size=30)


def sentences_of(lengths: list[int], last_ends: bool = True) -> tuple[np.ndarray, list[list[int]]]:
    """Return ids with sentences of so many words before their end, and the sentences."""
    words = iter(range(1, 9_000))
    sentences = [[*itertools.islice(words, length), END] for length in lengths]
    if not last_ends:
        sentences[-1] = [*sentences[-1][:-1], next(words)]
    return np.array(list(itertools.chain(*sentences)), dtype=np.uint16), sentences


@given(sentence_lengths, st.booleans(), st.integers(1, 20))
def test_split_sentences(lengths, last_ends, block):
    ids, sentences = sentences_of(lengths, last_ends)
    offsets = split_sentences(ids, END, block)
    found = [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    assert found == sentences
    assert offsets.dtype == np.int64


def test_sentences_are_lines_whatever_is_written_in_them():
    lines = ["a b", "<eos> a <eos>", "", "<bos>", "b"] * 8
    text = "".join(f"{line}\n" for line in lines)
    tokenizer = WordTokenizer.fit([text])
    ids = tokenizer.encode(text)
    offsets = split_sentences(ids, tokenizer.start_id)
    assert [tokenizer.decode(ids[a:b]) for a, b in itertools.pairwise(offsets)] == [
        f"{line}\n" for line in lines
    ]


@given(sentence_lengths, st.booleans(), sizes, sizes, st.integers(0, 9))
def test_sentences_count_each_token_once(lengths, last_ends, batch_size, window, seed):
    ids, sentences = sentences_of(lengths, last_ends)
    batches = sentence_batches(ids, END, batch_size, window, START)
    expected: Counter[tuple[int, int]] = Counter()
    for sentence in sentences:
        expected.update(itertools.pairwise([START, *sentence]))
    generator = np.random.default_rng(seed)
    for epoch in [batches, batches.shuffled(generator), batches.shuffled(generator)]:
        assert pairs(epoch) == expected
        assert not epoch.carries_state
        assert sum(len(batch.lengths) < batch_size for batch in epoch) <= 1
        for batch in epoch:
            assert batch.inputs.shape == (batch.lengths.max(), len(batch.lengths))
            assert 1 <= batch.lengths.min() <= batch.lengths.max() <= window
            real = np.arange(len(batch.inputs))[:, np.newaxis] < batch.lengths
            np.testing.assert_array_equal(real, batch.targets != IGNORE_INDEX)
            assert (batch.inputs[~real] == 0).all()
            for row, length in zip(batch.inputs.T, batch.lengths, strict=True):
                assert START not in row[1:length], "a row is of one sentence"


def test_sentences_that_begin_with_their_own_token():
    ids = np.array([7, 1, 2, END, 7, END, 7, 3, 4, 5])
    batches = sentence_batches(ids, END, batch_size=2, window=9)
    assert batches.tokens == 7
    assert batches[0].inputs.T.tolist() == [[7, 0, 0], [7, 1, 2]]
    assert batches[0].targets.T.tolist() == [[END, -100, -100], [1, 2, END]]
    assert batches[1].inputs.T.tolist() == [[7, 3, 4]]
    assert batches[1].targets.T.tolist() == [[3, 4, 5]]


def test_long_sentences_are_split_with_their_true_predecessor():
    ids, _ = sentences_of([6])
    batches = sentence_batches(ids, END, batch_size=9, window=3, start_id=END)
    assert batches[0].lengths.tolist() == [1, 3, 3]
    assert batches[0].inputs.T.tolist() == [[6, 0, 0], [END, 1, 2], [3, 4, 5]]
    assert batches[0].targets.T.tolist() == [[END, -100, -100], [1, 2, 3], [4, 5, 6]]


def test_buckets_waste_little():
    generator = np.random.default_rng(3)
    ids, _ = sentences_of(generator.integers(1, 40, size=400).tolist())
    epoch = sentence_batches(ids, END, 20, 50, END).shuffled(generator)
    positions = sum(batch.targets.size for batch in epoch)
    assert epoch.tokens / positions > 0.9


def test_order_follows_from_the_generator():
    ids, _ = sentences_of([3] * 50 + [5] * 50)
    batches = sentence_batches(ids, END, 10, 9, END)

    def order(epoch: Batches) -> list[list[int]]:
        return [batch.targets[0].tolist() for batch in epoch]

    first, again = (order(batches.shuffled(np.random.default_rng(1))) for _ in range(2))
    other = order(batches.shuffled(np.random.default_rng(2)))
    assert first == again
    assert first != other
    assert sorted(map(sorted, first)) != sorted(map(sorted, other)), "other neighbours as well"
    assert len(first) == len(other) == len(batches)
    lengths = [batch.lengths[0] for batch in batches.shuffled(np.random.default_rng(1))]
    assert lengths != sorted(lengths), "batches come in any order"


def test_streams_have_one_order():
    batches = batchify(unique_ids(50), 2, 5)
    generator = np.random.default_rng(1)
    state = generator.bit_generator.state
    assert batches.shuffled(generator) is batches
    assert generator.bit_generator.state == state


def test_no_sentence_to_predict():
    for ids in [np.array([], int), np.array([END, END])]:
        with pytest.raises(DataError, match="no sentence with one to predict"):
            sentence_batches(ids, END, 2, 5)


@pytest.mark.parametrize(
    "make", [batchify, cover, lambda ids, b, t: sentence_batches(ids, 3, b, t)]
)
def test_sizes_that_cannot_be_meant(make):
    for name, sizes in [("batch_size", (0, 5)), ("window", (5, 0))]:
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, not 0"):
            make(unique_ids(100), *sizes)
