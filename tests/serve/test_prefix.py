"""The cache of states: the longest prefix, exactly, within its bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.serve.prefix import PrefixCache


def state(number, size=3):
    return {"h": np.full((2, size), number, np.float32)}


def common(one, other):
    pairs = enumerate(zip(one, other, strict=False))
    return next((k for k, (a, b) in pairs if a != b), min(len(one), len(other)))


SEQUENCES = st.lists(st.sampled_from([0, 1, 255, 256, 2**31]), max_size=7)


@given(st.lists(SEQUENCES, max_size=20), SEQUENCES)
def test_the_longest_prefix_is_found_as_by_trying_all(entries, ids):
    cache = PrefixCache(10**6)
    for entry in entries:
        cache.add(entry, state(hash(tuple(entry)) % 1000))
    prefixes = [entry for entry in entries if ids[: len(entry)] == entry]
    length, found, shared = cache.find(ids)
    assert length == max(map(len, prefixes), default=0)
    assert shared == max((common(entry, ids) for entry in entries), default=0)
    if prefixes:
        assert found["h"][0, 0] == hash(tuple(ids[:length])) % 1000
    else:
        assert found is None


def test_the_least_recently_used_entries_are_dropped_and_the_bytes_add_up():
    one = PrefixCache(10**6)
    one.add([1], state(1))
    size = one.bytes
    cache = PrefixCache(3 * size)
    for number in (1, 2, 3):
        cache.add([number], state(number))
    assert cache.bytes == 3 * size
    cache.find([1, 5])
    cache.add([3], state(9))  # it is there: used again, not replaced
    cache.add([4], state(4))
    assert [cache.find([n])[0] for n in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert cache.find([3])[1]["h"][0, 0] == 3
    assert cache.bytes == 3 * size
    cache.add([5], state(5, size=10**4))  # larger than the limit
    assert (len(cache), cache.bytes) == (3, 3 * size)


def test_a_state_is_copied():
    cache = PrefixCache(10**4)
    batch = np.ones((2, 100, 3), np.float32)
    cache.add([1], {"h": batch[:, 7]})
    batch[...] = 0
    found = cache.find([1])[1]["h"]
    assert (found == 1).all()
    assert found.base is None  # it does not keep the batch


@pytest.mark.parametrize("limit", [0, 100])
def test_a_cache_without_room_keeps_nothing(limit):
    cache = PrefixCache(limit)
    cache.add([1], state(1))
    assert cache.find([1, 2]) == (0, None, 0)
