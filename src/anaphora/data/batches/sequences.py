"""Batches of sequences with targets, of streams of signals, and of sampled tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora.data.batches.base import IGNORE_INDEX, Batch, Batches, BucketedBatches, Int64, pad
from anaphora.options import check_sizes

__all__ = ["SampledBatches", "SequenceBatches", "SignalBatches", "SpelledBatch", "side_by_side"]


@dataclass(frozen=True, eq=False)
class SpelledBatch(Batch):
    """A batch of words that come with their characters.

    Attributes:
        characters: The characters of each word, [W, T, B] ids, W being the longest word's length.
        character_lengths: The number of characters of each word, [T, B]; 0 in the padding.

    >>> words, tags = np.array([[7], [2]]), np.array([[1], [0]])
    >>> characters = np.array([[[3], [5]], [[4], [0]]])  # two of the first word, one of the second
    >>> SpelledBatch(words, tags, np.array([2]), characters, np.array([[2], [1]])).tokens
    2
    """

    characters: NDArray[np.integer[Any]] | None = None
    character_lengths: NDArray[np.integer[Any]] | None = None

    def _batch_axes(self) -> dict[str, int]:
        return {**super()._batch_axes(), "characters": 2, "character_lengths": 1}


class SequenceBatches(BucketedBatches):
    """Sequences bucketed by length and padded, with their targets.

    Args:
        inputs: The features [T, I] or the ids [T] of each sequence.
        targets: The target of each sequence: a class, numbers [O], or booleans [C], one for each
            label. With ``per_step`` a class for each step, [T].
        batch_size: B; the last batch of the longest sequences may be smaller.
        per_step: Whether there is a target for each step.
        characters: For each sequence, the character ids of each of its T words; batches are then
            `SpelledBatch`.

    Raises:
        ValueError: sizes do not match, or there is no sequence.

    >>> series = [np.ones((5, 2)), np.ones((3, 2)), np.ones((4, 2))]
    >>> batches = SequenceBatches(series, [1, 0, 1], batch_size=2)
    >>> [(batch.inputs.shape, batch.targets.tolist(), batch.lengths.tolist()) for batch in batches]
    [((4, 2, 2), [0, 1], [3, 4]), ((5, 1, 2), [1], [5])]
    """

    def __init__(
        self,
        inputs: Sequence[ArrayLike],
        targets: Sequence[Any] | NDArray[Any],
        batch_size: int,
        *,
        per_step: bool = False,
        characters: Sequence[Sequence[ArrayLike]] | None = None,
    ) -> None:
        self._inputs = [np.asarray(sequence) for sequence in inputs]
        self._lengths = np.array([len(sequence) for sequence in self._inputs], np.int64)
        self._per_step = per_step
        self._targets = targets if per_step else np.asarray(targets)
        self._characters = characters
        if len(self._inputs) == 0:
            raise ValueError("SequenceBatches: there is no sequence")
        check_sizes(self, batch_size=batch_size)
        self._check()
        super().__init__([self._lengths], batch_size)

    def _check(self) -> None:
        count = len(self._inputs)
        for name, given in [("targets", self._targets), ("characters", self._characters)]:
            if given is not None and len(given) != count:
                raise ValueError(f"SequenceBatches: {len(given)} {name} for {count} sequences")
        spelled = [] if self._characters is None else [("spellings", self._characters)]
        for name, given in [("targets", self._targets), *spelled] if self._per_step else spelled:
            for number, (length, steps) in enumerate(zip(self._lengths, given, strict=True)):
                if len(steps) != length:
                    raise ValueError(
                        f"SequenceBatches: sequence {number} has {length} steps and {len(steps)} "
                        f"{name}; expected one for each step"
                    )

    def _collate(self, examples: Int64) -> Batch:
        inputs, lengths = pad([self._inputs[k] for k in examples], dtype=None)
        if self._per_step:
            per_step = [np.asarray(self._targets[k]) for k in examples]
            targets, _ = pad(per_step, IGNORE_INDEX, dtype=None)
        else:
            targets = np.asarray(self._targets)[examples]
        if self._characters is None:
            return Batch(inputs, targets, lengths)
        words = [self._characters[k] for k in examples]
        spellings = [
            np.asarray(word[t] if t < len(word) else (), np.int64)
            for t in range(len(inputs))
            for word in words
        ]
        characters, counts = pad(spellings)
        grid = (len(inputs), len(examples))
        return SpelledBatch(
            inputs, targets, lengths, characters.reshape(-1, *grid), counts.reshape(grid)
        )


class SignalBatches(Batches):
    """Windows over parallel streams, with the state carried from each to the next.

    Args:
        inputs: [N, B, ...] the streams.
        targets: [N, B, ...] the target of each step.
        window: T, the length of truncated backpropagation through time; the last window may be
            shorter.

    Raises:
        ValueError: the streams are not of one length, or the window is below 1.

    >>> bits = np.array([[0], [1], [1], [0], [1]])
    >>> [batch.inputs[:, 0].tolist() for batch in SignalBatches(bits, bits, window=2)]
    [[0, 1], [1, 0], [1]]
    """

    carries_state = True

    def __init__(self, inputs: NDArray[Any], targets: NDArray[Any], window: int) -> None:
        if inputs.shape[:2] != targets.shape[:2]:
            raise ValueError(
                f"SignalBatches: inputs of shape {inputs.shape} with targets of shape "
                f"{targets.shape}; expected the same [N, B] in both"
            )
        check_sizes(self, window=window)
        self._inputs, self._targets, self._window = inputs, targets, window
        self.tokens = Batch(inputs, targets).tokens

    def __len__(self) -> int:
        return -(-len(self._inputs) // self._window)

    def _batch(self, index: int) -> Batch:
        steps = slice(index * self._window, (index + 1) * self._window)
        return Batch(self._inputs[steps], self._targets[steps])


class SampledBatches(Batches):
    """Batches of a synthetic task, sampled on demand, anew for each epoch.

    Batch k of an epoch depends only on the epoch's seed and k, so training can resume anywhere.

    Args:
        sample: Makes a batch, given a generator.
        count: Batches per epoch.
        seed: The seed of this epoch; `shuffled` samples another.

    Raises:
        ValueError: the count is below 1.

    >>> def sample(generator):
    ...     bits = generator.integers(0, 2, (5, 3))
    ...     return Batch(bits, bits.sum(axis=0))
    >>> batches = SampledBatches(sample, count=10)
    >>> len(batches), np.array_equal(batches[7].inputs, batches[7].inputs)
    (10, True)
    """

    carries_state = False

    def __init__(
        self, sample: Callable[[np.random.Generator], Batch], count: int, seed: int = 0
    ) -> None:
        check_sizes(self, count=count)
        self._sample, self._count, self._seed = sample, count, seed

    def __len__(self) -> int:
        return self._count

    def _batch(self, index: int) -> Batch:
        return self._sample(np.random.default_rng((self._seed, index)))

    def shuffled(self, generator: np.random.Generator) -> SampledBatches:
        """New batches of the same task."""
        return SampledBatches(self._sample, self._count, int(generator.integers(1 << 62)))


def side_by_side(
    inputs: Sequence[ArrayLike], characters: Sequence[Sequence[ArrayLike]] | None = None
) -> Batch:
    """One batch of sequences to predict, in the order given; its targets are placeholders.

    The arguments are those of `SequenceBatches`.

    >>> side_by_side([[7, 8], [9]]).inputs.T.tolist()
    [[7, 8], [9, 0]]
    """
    rows = np.arange(len(inputs))
    targets = np.full(len(rows), IGNORE_INDEX)
    return SequenceBatches(inputs, targets, len(rows), characters=characters)._collate(rows)
