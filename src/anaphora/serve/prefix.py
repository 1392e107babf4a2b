"""A cache of states by the ids that a model has read to reach them."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from anaphora.tensor import Array

State = Mapping[str, Array]
"""The state of one sequence: its arrays by name, as in `nn.Session.state_dict`."""

_OVERHEAD = 500  # bytes of an entry besides its arrays and ids, roughly


class PrefixCache:
    """The states of sequences that were read, found by the longest prefix of a new sequence.

    The least recently used entries are dropped when their size exceeds a limit. A state is found
    only if all of its ids are equal, so that continuing from it gives the bits of reading all.

    Args:
        max_bytes: The limit; 0 keeps nothing.

    Attributes:
        bytes: The size of all entries.

    >>> cache = PrefixCache(max_bytes=10_000)
    >>> cache.add([3, 1, 4], {"h": np.zeros((2, 5), np.float32)})
    >>> cache.find([3, 1, 4, 1, 5])[0], cache.find([3, 1, 5])
    (3, (0, None, 2))
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._states: OrderedDict[bytes, State] = OrderedDict()  # least recently used first
        self._keys: list[bytes] = []  # sorted: the order of bytes is that of ids

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ids: Sequence[int]) -> tuple[int, State | None, int]:
        """The longest cached prefix of ids.

        Returns:
            Its length, its state (None if there is none), and the number of ids that the sequence
            has in common with the entry that is most like it, which may be larger.
        """
        key = _key(ids)
        at = bisect.bisect_right(self._keys, key)
        shared = max(
            (_shared(key, other) for other in self._keys[max(0, at - 1) : at + 1]), default=0
        )
        # Of all keys up to it, the last has the longest common prefix with a key.
        while (at := bisect.bisect_right(self._keys, key)) > 0:
            candidate = self._keys[at - 1]
            length = _shared(key, candidate)
            if 4 * length == len(candidate):
                self._states.move_to_end(candidate)
                return length, self._states[candidate], shared
            key = key[: 4 * length]
        return 0, None, shared

    def add(self, ids: Sequence[int], state: State) -> None:
        """Keep a copy of the state after some ids."""
        key = _key(ids)
        if key in self._states:
            self._states.move_to_end(key)
            return
        size = _size(key, state)
        if size > self.max_bytes:
            return
        while self.bytes + size > self.max_bytes:
            self._drop()
        self._states[key] = {name: array.copy() for name, array in state.items()}
        bisect.insort(self._keys, key)
        self.bytes += size

    def _drop(self) -> None:
        key, state = self._states.popitem(last=False)
        self.bytes -= _size(key, state)
        del self._keys[bisect.bisect_left(self._keys, key)]


def _key(ids: Sequence[int]) -> bytes:
    return np.asarray(ids, ">u4").tobytes()


def _size(key: bytes, state: State) -> int:
    return len(key) + sum(array.nbytes for array in state.values()) + _OVERHEAD


def _shared(one: bytes, other: bytes) -> int:
    """The number of ids with which two keys begin alike."""
    count = min(len(one), len(other)) // 4
    first, second = (np.frombuffer(key, ">u4", count) for key in (one, other))
    different = np.flatnonzero(first != second)
    return int(different[0]) if len(different) else count
