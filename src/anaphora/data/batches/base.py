"""What all kinds of batches share: a batch, an epoch of them, bucketing and padding.

Letters: T steps, B batch, I inputs.
"""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["IGNORE_INDEX", "Batch", "Batches", "BucketedBatches", "pad"]

# The target of a position that does not count: cross-entropy's `ignore_index`, as in PyTorch.
IGNORE_INDEX = -100

Integers = NDArray[np.integer[Any]]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """The input of one step of training or evaluation.

    For a text: ids [T, B] and the ids that follow them. Other models read features [T, B, I], and
    have one target per sequence, [B], or numbers as targets, all of which count.

    Attributes:
        inputs: The token before each target, [T, B].
        targets: The tokens to predict, [T, B]; -100 where there is none.
        lengths: The number of real steps of each row, [B]; None where rows continue in the next
            batch.

    >>> batch = Batch(np.array([[4], [2]]), np.array([[2], [IGNORE_INDEX]]), np.array([1]))
    >>> batch.tokens
    1
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    lengths: Int64 | None = None

    @property
    def tokens(self) -> int:
        """The number of targets that count; a row of booleans, a set of labels, is one."""
        if self.targets.dtype.kind == "b":
            return len(self.targets)
        if self.targets.dtype.kind == "f":
            return int(self.targets.size)
        return int(np.count_nonzero(self.targets != IGNORE_INDEX))

    def shard(self, number: int, count: int) -> Self | None:
        """One of `count` parts of almost B / count consecutive rows; None if it has no row.

        >>> inputs = np.arange(10).reshape(2, 5)
        >>> [Batch(inputs, inputs).shard(k, 3).inputs[0].tolist() for k in range(3)]
        [[0], [1, 2], [3, 4]]
        """
        rows = self.inputs.shape[1]
        own = slice(number * rows // count, (number + 1) * rows // count)
        if own.start == own.stop:
            return None
        parts: dict[str, Any] = {}
        for name, axis in self._batch_axes().items():
            if (array := getattr(self, name)) is not None:
                parts[name] = array[(*[slice(None)] * axis, own)]
        return replace(self, **parts)

    def _batch_axes(self) -> dict[str, int]:
        """The axis of the B rows in each array."""
        steps = self.targets.ndim > 1 and self.targets.shape[:2] == self.inputs.shape[:2]
        if self.lengths is not None and self.targets.dtype.kind in "fb":
            steps = False  # numbers [B, O] or labels [B, C], of which O or C happens to be B
        return {"inputs": 1, "targets": int(steps), "lengths": 0}


class Batches(ABC):
    """One epoch's batches: a length, batches by index, iteration from first to last.

    `batches[k]` costs the same for every `k`, so training resumes anywhere:
    `for k in range(start, len(batches))`.

    Attributes:
        carries_state: Whether row `b` of a batch continues where row `b` of the batch before it
            ended, so that the recurrent state must be carried over. Otherwise every row starts
            from the initial state.

    >>> from anaphora.data import batchify
    >>> batches = batchify(np.arange(11), batch_size=1, window=4)
    >>> len(batches), batches.tokens, batches.carries_state
    (3, 10, True)
    >>> batches[-1].targets.T
    array([[ 9, 10]])
    """

    carries_state: ClassVar[bool]

    @functools.cached_property
    def tokens(self) -> int:
        """The total number of targets that count."""
        return sum(batch.tokens for batch in self)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _batch(self, index: int) -> Batch:
        """Return the batch at `index`, which is from 0 to `len(self) - 1`."""

    def __getitem__(self, index: int) -> Batch:
        return self._batch(range(len(self))[index])

    def __iter__(self) -> Iterator[Batch]:
        for index in range(len(self)):
            yield self._batch(index)

    def shuffled(self, generator: np.random.Generator) -> "Batches":
        """Return the batches in an order for one epoch, sampled from `generator`.

        Streams that carry state have only one order: they are returned unchanged, and nothing is
        sampled.
        """
        return self


class BucketedBatches(Batches):
    """Examples bucketed by length; a subclass collates them into batches.

    Args:
        lengths: The length of each example; further arrays sort examples of equal length.
        batch_size: B; the last batch of the longest examples may be smaller.

    >>> from anaphora.data import SequenceBatches
    >>> batches = SequenceBatches([[5], [6, 7, 8], [9]], [0, 1, 0], batch_size=2)
    >>> isinstance(batches, BucketedBatches), [rows.tolist() for rows in batches.order]
    (True, [[0, 2], [1]])
    """

    carries_state = False

    def __init__(self, lengths: Sequence[Int64], batch_size: int) -> None:
        self._sort_keys = lengths[::-1]  # the last key is the first that lexsort sorts by
        self._batch_size = batch_size
        self.order = self._bucket(np.arange(len(lengths[0])))
        """The indices of the examples of each batch, in the order of the epoch."""

    def __len__(self) -> int:
        return len(self.order)

    def _batch(self, index: int) -> Batch:
        return self._collate(self.order[index])

    @abstractmethod
    def _collate(self, examples: Int64) -> Batch:
        """Return the batch of the examples with these indices."""

    def shuffled(self, generator: np.random.Generator) -> Self:
        """Return the same examples in new batches.

        Examples of equal length are permuted, and so are the batches. The same generator state
        gives the same order.
        """
        order = self._bucket(generator.permutation(len(self._sort_keys[0])))
        other = copy.copy(self)
        other.order = [order[k] for k in generator.permutation(len(order))]
        return other

    def _bucket(self, examples: Int64) -> list[Int64]:
        """Sort examples by length, stably, and cut them into batches."""
        examples = examples[np.lexsort([key[examples] for key in self._sort_keys])]
        return np.split(examples, np.arange(self._batch_size, len(examples), self._batch_size))


def pad(
    sequences: Sequence[NDArray[Any]], padding: float = 0, dtype: Any = np.int64
) -> tuple[NDArray[Any], Int64]:
    """Pad sequences to one array.

    Args:
        sequences: B arrays [T, ...], each with its own T.
        padding: The value after the end of a shorter sequence.
        dtype: The dtype of the result; None takes one that holds all the sequences.

    Returns:
        The padded sequences, [longest T, B, ...], and their lengths, [B].

    >>> ids, lengths = pad([np.array([5, 6, 7]), np.array([8])])
    >>> ids.T, lengths
    (array([[5, 6, 7],
           [8, 0, 0]]), array([3, 1]))
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if dtype is None:
        dtype = np.result_type(*{sequence.dtype for sequence in sequences})
    trailing = sequences[0].shape[1:] if len(sequences) else ()
    padded = np.full((lengths.max(initial=0), len(sequences), *trailing), padding, dtype)
    for b, sequence in enumerate(sequences):
        padded[: len(sequence), b] = sequence
    return padded, lengths
