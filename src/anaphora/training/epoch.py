"""The batches of an epoch, and what the trainer reads of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from anaphora.tensor import Array
from anaphora.training.evaluation import AnyBatches

__all__ = ["Epoch", "arrays_of", "check_batches", "count_sequences", "sampled"]


class Epoch:
    """The batches of an epoch in order, from a position on."""

    def __init__(self, batches: AnyBatches, position: int) -> None:
        self._batches: Any = batches
        self._position = position
        self._iterator: Iterator[Any] | None = None
        if not hasattr(batches, "__getitem__"):
            self._iterator = itertools.islice(iter(batches), position, None)

    def __len__(self) -> int:
        return len(self._batches)

    def take(self, count: int) -> list[Any]:
        """The next `count` batches, or fewer at the end, but at least one."""
        end = min(self._position + count, len(self))
        if self._iterator is None:
            taken = [self._batches[k] for k in range(self._position, end)]
        else:
            taken = list(itertools.islice(self._iterator, end - self._position))
        if len(taken) < end - self._position:
            raise ValueError(
                f"the batches ended after {self._position + len(taken)}, but their length is "
                f"{len(self)}; the two must agree"
            )
        self._position = end
        return taken


def sampled(batches: Any) -> Iterator[Array]:
    """The arrays of a few batches; of none that can only be iterated."""
    count = len(batches) if hasattr(batches, "__getitem__") else 0
    for k in sorted({count * part // 8 for part in range(8)}) if count else ():
        for _, array in arrays_of(batches[k]):
            yield array


def check_batches(name: str, batches: Any) -> None:
    """Check the batches of an epoch.

    Raises:
        TypeError: it has no length, or is a dictionary.
        ValueError: it is empty.
    """
    advice = "give a list of batches, or another object with a length"
    if isinstance(batches, Mapping) or not hasattr(batches, "__len__"):
        hint = "; list(batches) converts a generator" if hasattr(batches, "__next__") else ""
        raise TypeError(f"Trainer: {name} is of type {type(batches).__name__}; {advice}{hint}")
    if len(batches) == 0:
        raise ValueError(f"Trainer: {name} is empty; {advice}")


def count_sequences(batches: Sequence[Any]) -> int:
    """The total number of sequences in batches, B of targets [T, B]."""
    try:
        return sum(batch.targets.shape[1] for batch in batches)
    except (AttributeError, IndexError) as error:
        raise ValueError(
            "loss_per 'sequence' needs batches with targets [T, B]; use loss_per 'token', and "
            "return from the model's loss what is to be minimized"
        ) from error


def arrays_of(batch: Any) -> Iterator[tuple[str, Array]]:
    """The arrays of a batch with their names: of a `Batch`, a tuple or a dict."""
    if isinstance(batch, Mapping):
        items = [(f"arrays {name!r}", array) for name, array in batch.items()]
    elif isinstance(batch, (tuple, list)):
        items = [(f"arrays {k}", array) for k, array in enumerate(batch)]
    else:
        items = [(name, getattr(batch, name, None)) for name in ("inputs", "targets")]
        items.append(("numbers", batch))
    for name, array in items:
        if isinstance(array, np.ndarray):
            yield name, array
