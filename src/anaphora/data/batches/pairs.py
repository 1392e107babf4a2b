"""Batches of pairs of a source and a target sequence.

Letters: S steps of the source, T steps of the target, B batch, N tokens of a text.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.data.batches.base import Batch, BucketedBatches, Int64, Integers, pad
from anaphora.data.batches.text import gather, split_sentences
from anaphora.data.errors import DataError
from anaphora.options import check_sizes

__all__ = ["PairBatch", "PairBatches", "pair_batches"]

Source = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PairBatch(Batch):
    """A `Batch` of targets with their sources.

    Attributes:
        source: Ids, [S, B], each row ending with its end-of-sequence id, padded with 0; or a vector
            for each target, [B, I].
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

    def _batch_axes(self) -> dict[str, int]:
        source = 0 if self.source_lengths is None else 1
        return {**super()._batch_axes(), "source": source, "source_lengths": 0}


class PairBatches(BucketedBatches):
    """Pairs bucketed by length and padded; `pair_batches` makes them.

    Args:
        source: The source text, [N] ids; or vectors, [number of pairs, I].
        source_offsets: Where the sentences of the source begin and end, from `split_sentences`;
            None for vectors.
        target: The target text, [N] ids.
        target_offsets: Where its sentences begin and end.
        batch_size: B; the last batch of the longest pairs may be smaller.
        end_id: The target's end-of-sequence id, which is also the input before its first token.

    >>> source, target = np.array([7, 0, 8, 9, 0]), np.array([4, 1, 5, 6, 4, 1])
    >>> batches = PairBatches(source, np.array([0, 2, 5]), target, np.array([0, 2, 6]), 1, 1)
    >>> [(batch.source.T.tolist(), batch.targets.T.tolist()) for batch in batches]
    [([[7, 0]], [[4, 1]]), ([[8, 9, 0]], [[5, 6, 4, 1]])]
    """

    def __init__(
        self,
        source: Source,
        source_offsets: Int64 | None,
        target: Integers,
        target_offsets: Int64,
        batch_size: int,
        end_id: int,
    ) -> None:
        self._lengths = np.diff(target_offsets)
        lengths = [self._lengths]
        if source_offsets is not None:
            lengths.append(np.diff(source_offsets))
        super().__init__(lengths, batch_size)
        self._source = source
        self._source_offsets = source_offsets
        self._target = target
        self._target_offsets = target_offsets
        self._end_id = end_id
        self.tokens = int(self._lengths.sum())

    def _collate(self, examples: Int64) -> PairBatch:
        first, lengths = self._target_offsets[examples], self._lengths[examples]
        begins = np.full(len(examples), True)
        inputs, targets = gather(self._target, first, lengths, begins, self._end_id)
        offsets, source_lengths = self._source_offsets, None
        if offsets is None:
            source = self._source[examples]
        else:
            spans = zip(offsets[examples].tolist(), offsets[examples + 1].tolist(), strict=True)
            source, source_lengths = pad([self._source[a:b] for a, b in spans])
        return PairBatch(inputs, targets, lengths, source=source, source_lengths=source_lengths)


def pair_batches(
    source: Source,
    target: Integers,
    batch_size: int,
    end_id: int,
    source_end_id: int | None = None,
) -> PairBatches:
    """Batch two aligned texts: sentence `k` of the target belongs to sentence `k` of the source, or
    to vector `k`.

    Pairs are sorted by the length of the target, then of the source, so that pairs of similar
    lengths are together. Batches are in the order of length; `shuffled` gives another for each
    epoch.

    Args:
        source: The ids of a text, [N], in which each sentence ends with `source_end_id`; or
            vectors, [number of sentences of the target, I].
        target: The ids of a text, [N], in which each sentence ends with `end_id`.
        batch_size: B; one batch may be smaller.
        end_id: The target's end-of-sequence id, which is also the input before its first token.
        source_end_id: The source's end-of-sequence id; None for vectors.

    Raises:
        DataError: the source and the target have different numbers of sentences, or none, or the
            last sentence of a text has no end-of-sequence id.

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
    check_sizes("pair_batches", batch_size=batch_size)
    target_offsets = _offsets("target", target, end_id)
    source_offsets = None
    if source_end_id is not None:
        source_offsets = _offsets("source", source, source_end_id)
    elif source.ndim != 2:
        raise DataError(
            f"the source is an array of shape {source.shape}; expected vectors "
            "[number of pairs, I], or ids [N] and a source_end_id"
        )
    count = len(source) if source_offsets is None else len(source_offsets) - 1
    if count != len(target_offsets) - 1:
        raise DataError(
            f"the source has {count:,} {'vectors' if source_offsets is None else 'sentences'}, but "
            f"the target has {len(target_offsets) - 1:,} sentences; give texts that are aligned "
            "line by line"
        )
    return PairBatches(source, source_offsets, target, target_offsets, batch_size, end_id)


def _offsets(name: str, ids: Integers, end_id: int) -> Int64:
    """Where the sentences of a text begin and end."""
    if len(ids) == 0:
        raise DataError(f"the {name} has no sentence; give more text")
    if ids[-1] != end_id:
        raise DataError(
            f"the last sentence of the {name} does not end with the end-of-sequence id {end_id}; "
            "add it, or give the id that ends sentences"
        )
    return split_sentences(ids, end_id)
