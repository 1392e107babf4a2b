"""Batches of pairs: a source, and the sequence to make of it.

Letters: S steps of the source, T steps of the target, B batch, N tokens of a text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.data.batches import (
    Batch,
    Batches,
    Int64,
    Integers,
    check_sizes,
    gather,
    split_sentences,
)
from anaphora.data.errors import DataError

__all__ = ["PairBatch", "PairBatches", "pad", "pair_batches"]

Source = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PairBatch(Batch):
    """A `Batch` of targets, and what each is to be made of.

    Attributes:
        source: Ids, [S, B], each row ending with its end mark, padded with 0; or a vector for each
            target, [B, I].
        source_lengths: The number of ids of each row, [B]; None for vectors.

    >>> inputs, targets = np.array([[0], [5]]), np.array([[5], [0]])
    >>> source = np.array([[3], [4], [0]])
    >>> batch = PairBatch(
    ...     inputs, targets, np.array([2]), source=source, source_lengths=np.array([3])
    ... )
    >>> batch.tokens
    2
    """

    source: Source = field(kw_only=True)
    source_lengths: Int64 | None = field(kw_only=True)


class PairBatches(Batches):
    """Pairs of about equal lengths side by side, padded; `pair_batches` makes them.

    Args:
        source: The source text, [N] ids; or vectors, [number of pairs, I].
        source_offsets: Where the sentences of the source begin and end, as `split_sentences` gives
            it; None for vectors.
        target: The target text, [N] ids.
        target_offsets: Where its sentences begin and end.
        batch_size: B; the last batch of the longest pairs may be smaller.
        end_id: The target's end mark, which is also the input before its first token.
        order: The pairs of each batch, in the order of the epoch; None sorts by length.

    >>> source, target = np.array([7, 0, 8, 9, 0]), np.array([4, 1, 5, 6, 4, 1])
    >>> batches = PairBatches(source, np.array([0, 2, 5]), target, np.array([0, 2, 6]), 1, 1)
    >>> [(batch.source.T.tolist(), batch.targets.T.tolist()) for batch in batches]
    [([[7, 0]], [[4, 1]]), ([[8, 9, 0]], [[5, 6, 4, 1]])]
    """

    carries_state = False

    def __init__(
        self,
        source: Source,
        source_offsets: Int64 | None,
        target: Integers,
        target_offsets: Int64,
        batch_size: int,
        end_id: int,
        order: list[Int64] | None = None,
    ) -> None:
        self._source = source
        self._source_offsets = source_offsets
        self._target = target
        self._target_offsets = target_offsets
        self._batch_size = batch_size
        self._end_id = end_id
        self._lengths = np.diff(target_offsets)
        self._source_lengths = None if source_offsets is None else np.diff(source_offsets)
        self._order = order or self._bucket(np.arange(len(self._lengths)))
        self.tokens = int(self._lengths.sum())

    def __len__(self) -> int:
        return len(self._order)

    @property
    def order(self) -> list[Int64]:
        """The numbers of the pairs in each batch."""
        return self._order

    def _batch(self, index: int) -> PairBatch:
        pairs = self._order[index]
        first, lengths = self._target_offsets[pairs], self._lengths[pairs]
        begins = np.full(len(pairs), True)
        inputs, targets = gather(self._target, first, lengths, begins, self._end_id)
        if self._source_offsets is None or self._source_lengths is None:
            source, source_lengths = self._source[pairs], None
        else:
            source_lengths = self._source_lengths[pairs]
            step = np.arange(source_lengths.max())[:, np.newaxis]
            place = np.where(step < source_lengths, self._source_offsets[pairs] + step, 0)
            ids = np.asarray(self._source[place], np.int64)
            source = np.where(step < source_lengths, ids, 0)
        return PairBatch(inputs, targets, lengths, source=source, source_lengths=source_lengths)

    def shuffled(self, generator: np.random.Generator) -> "PairBatches":
        """Return the same pairs in batches drawn anew.

        Pairs whose lengths are equal change places among each other, and batches come in any order.
        The same state of the generator gives the same order.
        """
        order = self._bucket(generator.permutation(len(self._lengths)))
        order = [order[batch] for batch in generator.permutation(len(order))]
        return PairBatches(
            self._source,
            self._source_offsets,
            self._target,
            self._target_offsets,
            self._batch_size,
            self._end_id,
            order,
        )

    def _bucket(self, pairs: Int64) -> list[Int64]:
        """Sort pairs by length, keeping the order of equal ones, and cut them into batches."""
        keys = [self._lengths[pairs]]  # the last key is the first to sort by
        if self._source_lengths is not None:
            keys.insert(0, self._source_lengths[pairs])
        pairs = pairs[np.lexsort(keys)]
        return np.split(pairs, np.arange(self._batch_size, len(pairs), self._batch_size))


def pair_batches(
    source: Source,
    target: Integers,
    batch_size: int,
    end_id: int,
    source_end_id: int | None = None,
) -> PairBatches:
    """Batch two aligned texts: sentence `k` of the target is to be made of sentence `k` of the
    source, or of vector `k`.

    Pairs are sorted by the length of their target, then by that of their source, so that those of
    like lengths stand together. Batches come in the order of length; draw another for each epoch
    with `shuffled`.

    Args:
        source: The ids of a text, [N], whose every sentence ends with `source_end_id`; or vectors,
            [number of sentences of the target, I].
        target: The ids of a text, [N], whose every sentence ends with `end_id`.
        batch_size: B; one batch may be smaller.
        end_id: The target's end mark, which is also the input before its first token.
        source_end_id: The source's end mark; None for vectors.

    Raises:
        DataError: the source and the target are not as many, there is none, or the last sentence
            of a text lacks its end mark.

    >>> source, target = np.array([7, 0, 8, 9, 0]), np.array([4, 1, 5, 6, 4, 1])
    >>> batch = pair_batches(source, target, batch_size=2, end_id=1, source_end_id=0)[0]
    >>> batch.source.T
    array([[7, 0, 0],
           [8, 9, 0]])
    >>> batch.inputs.T
    array([[1, 4, 0, 0],
           [1, 5, 6, 4]])
    >>> batch.targets.T
    array([[   4,    1, -100, -100],
           [   5,    6,    4,    1]])
    >>> pair_batches(np.ones((2, 3)), target, batch_size=2, end_id=1)[0].source.shape
    (2, 3)
    """
    check_sizes(batch_size, 1)
    target_offsets = _offsets("target", target, end_id)
    source_offsets = None
    if source_end_id is not None:
        source_offsets = _offsets("source", source, source_end_id)
    elif source.ndim != 2:
        raise DataError(
            f"the source is an array of shape {source.shape}; wanted vectors "
            "[number of pairs, I], or ids [N] and a source_end_id"
        )
    count = len(source) if source_offsets is None else len(source_offsets) - 1
    if count != len(target_offsets) - 1:
        raise DataError(
            f"the source has {count:,} {'vectors' if source_offsets is None else 'sentences'}, but "
            f"the target has {len(target_offsets) - 1:,} sentences; give texts whose lines "
            "belong together, one by one"
        )
    return PairBatches(source, source_offsets, target, target_offsets, batch_size, end_id)


def pad(sequences: Sequence[Integers]) -> tuple[Int64, Int64]:
    """Stand sequences of ids side by side, with 0 below those that are shorter.

    Returns:
        The ids, [T, B], and the lengths, [B].

    >>> ids, lengths = pad([np.array([5, 6, 7]), np.array([8])])
    >>> ids.T, lengths
    (array([[5, 6, 7],
           [8, 0, 0]]), array([3, 1]))
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    ids = np.zeros((lengths.max(initial=0), len(sequences)), np.int64)
    for b, sequence in enumerate(sequences):
        ids[: len(sequence), b] = sequence
    return ids, lengths


def _offsets(name: str, ids: Integers, end_id: int) -> Int64:
    """Where the sentences of a text begin and end."""
    if len(ids) == 0:
        raise DataError(f"the {name} has no sentence; give more text")
    if ids[-1] != end_id:
        raise DataError(
            f"the last sentence of the {name} does not end with its end mark, the id {end_id}; add "
            "it, or name the id that ends sentences"
        )
    return split_sentences(ids, end_id)
