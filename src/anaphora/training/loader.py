"""Batches of any examples, for a loop of your own: PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np

from anaphora import foreign_names, ops, random
from anaphora.options import check_sizes
from anaphora.tensor import Tensor

Example_co = TypeVar("Example_co", covariant=True)
Example = TypeVar("Example")
Batch = TypeVar("Batch")


class Dataset(Protocol[Example_co]):
    """What has a length and examples by index: a list, an array, a class of your own.

    >>> examples: Dataset[str] = ["a", "b"]
    >>> len(examples), examples[0]
    (2, 'a')
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example_co: ...


class TensorDataset:
    """Examples that are the rows of Tensors: example k is ``(x[k], y[k])``.

    Args:
        tensors: Tensors or arrays, of the same length.

    Raises:
        ValueError: there are none, or their lengths differ.

    >>> TensorDataset([[1.0], [2.0]], [0, 1])[1]
    (Tensor([2.], dtype=float32), Tensor(1, dtype=int64))
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(t if isinstance(t, Tensor) else Tensor(t) for t in tensors)
        shapes = [t.shape for t in self.tensors]
        if len({shape[:1] for shape in shapes}) != 1 or not shapes[0]:
            raise ValueError(
                f"TensorDataset: shapes {', '.join(map(str, shapes)) or 'of nothing'}; give "
                "Tensors of the same number of rows, at least one"
            )

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"TensorDataset: example {index} of {len(self)}")
        return tuple(t[index] for t in self.tensors)


class DataLoader(Generic[Batch]):
    """Batches of examples, for each epoch anew, in their order or shuffled.

    It is for a training loop of your own. `Trainer` takes the batches of `anaphora.data`, which can
    be resumed, and which put sequences of similar lengths together.

    Args:
        dataset: The examples: anything with a length and examples by index.
        batch_size: The number of examples of a batch.
        shuffle: Whether each epoch has a new order, from `anaphora.random.generator`.
        collate_fn: Makes a batch of a list of examples; by default `collate`.
        drop_last: Whether to omit a last batch that would be smaller.
        generator: For the order, instead of the package's.

    Raises:
        ValueError: the batch size is not at least 1.

    >>> loader = DataLoader(TensorDataset([[1.0], [2.0], [3.0]], [0, 1, 0]), batch_size=2)
    >>> for x, y in loader:
    ...     print(x.shape, y.tolist())
    (2, 1) [0, 1]
    (1, 1) [0]
    """

    @overload
    def __init__(
        self: DataLoader[tuple[Tensor, ...]],
        dataset: TensorDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        generator: np.random.Generator | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        dataset: Dataset[Example],
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        collate_fn: Callable[[list[Example]], Batch],
        drop_last: bool = False,
        generator: np.random.Generator | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self: DataLoader[Any],
        dataset: Dataset[Any],
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        generator: np.random.Generator | None = None,
    ) -> None: ...

    @foreign_names.arguments_checked
    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: np.random.Generator | None = None,
    ) -> None:
        check_sizes("DataLoader", batch_size=batch_size)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.collate_fn = collate if collate_fn is None else collate_fn
        self.drop_last = drop_last
        self.generator = generator

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        examples = len(self.dataset)
        return (examples if self.drop_last else examples + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = (self.generator or random.generator()).permutation(order)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = order[start : start + self.batch_size].tolist()
            yield self.collate_fn([self.dataset[row] for row in rows])


def collate(examples: Sequence[Any]) -> Any:
    """A batch of examples that are alike.

    Tensors, arrays and numbers are stacked to a Tensor; tuples, lists and dictionaries are collated
    item by item; anything else stays a list.

    Raises:
        ValueError: arrays differ in shape, or examples in their number of items.

    >>> collate([(1.5, "a"), (2.5, "b")])
    (Tensor([1.5, 2.5], dtype=float32), ['a', 'b'])
    """
    first = examples[0]
    if isinstance(first, Mapping):
        return {key: collate([example[key] for example in examples]) for key in first}
    if isinstance(first, (tuple, list)):
        if len({len(example) for example in examples}) != 1:
            raise ValueError(
                "collate: examples of different numbers of items; to pad sequences give DataLoader "
                "a collate_fn, in which ops.pad_sequence does it"
            )
        return tuple(map(collate, zip(*examples, strict=True)))
    if isinstance(first, (Tensor, np.ndarray, np.generic)):
        shapes = {np.shape(example) for example in examples}
        if len(shapes) != 1:
            raise ValueError(
                f"collate: arrays of shapes {', '.join(map(str, sorted(shapes)))} in one batch; to "
                "pad sequences give DataLoader a collate_fn, in which ops.pad_sequence does it"
            )
        return ops.stack(examples)
    if isinstance(first, (bool, int, float)):
        return Tensor(examples)
    return list(examples)
