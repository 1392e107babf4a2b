"""Batches of what is no text: sequences with their answers, streams of signals, drawn tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora.data import IGNORE_INDEX, Batch, Batches
from anaphora.models import SpelledBatch

Order = list[NDArray[np.int64]]


class SequenceBatches(Batches):
    """Sequences of about equal length side by side, padded, each with its answer.

    Args:
        inputs: For each sequence its features [T, I], or its ids [T].
        targets: For each sequence its answer: a class, or numbers [O]. With ``per_step`` a class
            for each of its steps, [T].
        batch_size: B; the last batch of the longest sequences may be smaller.
        per_step: Whether there is a target for each step.
        characters: For each sequence the spelling of each of its T ids, as arrays of character ids;
            batches are then `SpelledBatch`.
        order: The sequences of each batch; None sorts by length.

    Raises:
        ValueError: sizes do not fit, or there is no sequence.

    >>> series = [np.ones((5, 2)), np.ones((3, 2)), np.ones((4, 2))]
    >>> batches = SequenceBatches(series, [1, 0, 1], batch_size=2)
    >>> [(batch.inputs.shape, batch.targets.tolist(), batch.lengths.tolist()) for batch in batches]
    [((4, 2, 2), [0, 1], [3, 4]), ((5, 1, 2), [1], [5])]
    """

    carries_state = False

    def __init__(
        self,
        inputs: Sequence[ArrayLike],
        targets: Sequence[Any] | NDArray[Any],
        batch_size: int,
        *,
        per_step: bool = False,
        characters: Sequence[Sequence[ArrayLike]] | None = None,
        order: Order | None = None,
    ) -> None:
        self._inputs = [np.asarray(sequence) for sequence in inputs]
        self._lengths = np.array([len(sequence) for sequence in self._inputs], np.int64)
        self._per_step = per_step
        self._targets = targets if per_step else np.asarray(targets)
        self._characters = characters
        self._batch_size = batch_size
        if len(self._inputs) == 0:
            raise ValueError("SequenceBatches: there is no sequence")
        if batch_size < 1:
            raise ValueError(f"SequenceBatches: batch_size is {batch_size}; at least 1 is needed")
        self._check()
        self._order = self._bucket(np.arange(len(inputs))) if order is None else order

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
                        f"{name}; wanted one for each step"
                    )

    @functools.cached_property
    def tokens(self) -> int:  # type: ignore[override]
        """The number of targets that count, in all batches together."""
        return sum(batch.tokens for batch in self)

    def __len__(self) -> int:
        return len(self._order)

    def _batch(self, index: int) -> Batch:
        rows = self._order[index]
        lengths = self._lengths[rows]
        inputs = _padded([self._inputs[row] for row in rows], 0)
        targets = self._targets
        if self._per_step:
            targets = _padded([np.asarray(targets[row]) for row in rows], IGNORE_INDEX)
        else:
            targets = np.asarray(targets)[rows]
        if self._characters is None:
            return Batch(inputs, targets, lengths)
        counts = np.zeros(inputs.shape, np.int64)
        words = {}
        for b, row in enumerate(rows):
            for t, word in enumerate(self._characters[row]):
                words[t, b] = np.asarray(word)
                counts[t, b] = len(words[t, b])
        characters = np.zeros((counts.max(initial=0), *counts.shape), np.int64)
        for (t, b), word in words.items():
            characters[: len(word), t, b] = word
        return SpelledBatch(inputs, targets, lengths, characters, counts)

    def shuffled(self, generator: np.random.Generator) -> SequenceBatches:
        """The same sequences in batches drawn anew, those of about equal length together."""
        order = self._bucket(generator.permutation(len(self._inputs)))
        return SequenceBatches(
            self._inputs,
            self._targets,
            self._batch_size,
            per_step=self._per_step,
            characters=self._characters,
            order=[order[k] for k in generator.permutation(len(order))],
        )

    def _bucket(self, rows: NDArray[np.int64]) -> Order:
        rows = rows[np.argsort(self._lengths[rows], kind="stable")]
        return np.split(rows, np.arange(self._batch_size, len(rows), self._batch_size))


class SignalBatches(Batches):
    """Windows over parallel streams, the state carried from each to the next.

    Args:
        inputs: [N, B, ...] the streams.
        targets: [N, B, ...] what is wanted at each step.
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
                f"{targets.shape}; wanted [N, B, ...] alike"
            )
        if window < 1:
            raise ValueError(f"SignalBatches: window is {window}; it must be at least 1")
        self._inputs, self._targets, self._window = inputs, targets, window
        self.tokens = Batch(inputs, targets).tokens

    def __len__(self) -> int:
        return -(-len(self._inputs) // self._window)

    def _batch(self, index: int) -> Batch:
        steps = slice(index * self._window, (index + 1) * self._window)
        return Batch(self._inputs[steps], self._targets[steps])


class DrawnBatches(Batches):
    """Batches of a synthetic task, drawn when they are wanted; every epoch has its own.

    Batch k of an epoch follows from the epoch's seed and k alone, so a training resumes anywhere.

    Args:
        draw: Makes a batch, given a generator.
        count: Batches an epoch.
        seed: Of this epoch; `shuffled` draws that of another.

    >>> def draw(generator):
    ...     bits = generator.integers(0, 2, (5, 3))
    ...     return Batch(bits, bits.sum(axis=0))
    >>> batches = DrawnBatches(draw, count=10)
    >>> len(batches), np.array_equal(batches[7].inputs, batches[7].inputs)
    (10, True)
    """

    carries_state = False

    def __init__(
        self, draw: Callable[[np.random.Generator], Batch], count: int, seed: int = 0
    ) -> None:
        if count < 1:
            raise ValueError(f"DrawnBatches: count is {count}; it must be at least 1")
        self._draw, self._count, self._seed = draw, count, seed

    @functools.cached_property
    def tokens(self) -> int:  # type: ignore[override]
        """The number of targets that count, in all batches together."""
        return sum(batch.tokens for batch in self)

    def __len__(self) -> int:
        return self._count

    def _batch(self, index: int) -> Batch:
        return self._draw(np.random.default_rng((self._seed, index)))

    def shuffled(self, generator: np.random.Generator) -> DrawnBatches:
        """Other batches of the same task."""
        return DrawnBatches(self._draw, self._count, int(generator.integers(1 << 62)))


def side_by_side(
    inputs: Sequence[ArrayLike], characters: Sequence[Sequence[ArrayLike]] | None = None
) -> Batch:
    """One batch of sequences to be answered, in the order given; its targets mean nothing.

    The arguments are those of `SequenceBatches`.

    >>> side_by_side([[7, 8], [9]]).inputs.T.tolist()
    [[7, 8], [9, 0]]
    """
    rows = np.arange(len(inputs))
    targets = np.full(len(rows), IGNORE_INDEX)
    return SequenceBatches(inputs, targets, len(rows), characters=characters, order=[rows])[0]


def _padded(sequences: list[NDArray[Any]], padding: float) -> NDArray[Any]:
    """Sequences [T, ...] side by side: [longest T, B, ...]."""
    longest = max(len(sequence) for sequence in sequences)
    dtype = np.result_type(*sequences)
    padded = np.full((longest, len(sequences), *sequences[0].shape[1:]), padding, dtype)
    for b, sequence in enumerate(sequences):
        padded[: len(sequence), b] = sequence
    return padded
