"""Windows of token ids: parallel streams, exact cover of a text, separate sentences.

Letters: T steps, B batch, N tokens of a text.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError

__all__ = [
    "IGNORE_INDEX",
    "Batch",
    "Batches",
    "SentenceBatches",
    "StreamBatches",
    "batchify",
    "cover",
    "sentence_batches",
    "split_sentences",
]

# The target of a position that does not count: cross-entropy's `ignore_index`, as in PyTorch.
IGNORE_INDEX = -100

Integers = NDArray[np.integer[Any]]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step of training or evaluation needs.

    Of a text: ids [T, B] and the ids that follow them. Other models read features [T, B, I], and
    have one target a sequence, [B], or numbers as targets, which all count.

    Attributes:
        inputs: The token before each target, [T, B].
        targets: The tokens to predict, [T, B]; -100 where nothing is.
        lengths: The number of real steps of each row, [B]; None where rows go on in the next batch.

    >>> batch = Batch(np.array([[4], [2]]), np.array([[2], [IGNORE_INDEX]]), np.array([1]))
    >>> batch.tokens
    1
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    lengths: Int64 | None = None

    @property
    def tokens(self) -> int:
        """The number of targets that count."""
        if self.targets.dtype.kind == "f":
            return int(self.targets.size)
        return int(np.count_nonzero(self.targets != IGNORE_INDEX))


class Batches(ABC):
    """One epoch's batches: a length, batches by index, iteration from first to last.

    `batches[k]` costs the same for every `k`, so training resumes anywhere:
    `for k in range(start, len(batches))`.

    Attributes:
        carries_state: Whether row `b` of a batch goes on where row `b` of the batch before it
            ended, so that the recurrent state is to be carried over. Otherwise every row starts
            from the initial state.
        tokens: The number of targets that count, in all batches together.

    >>> batches = batchify(np.arange(11), batch_size=1, window=4)
    >>> len(batches), batches.tokens, batches.carries_state
    (3, 10, True)
    >>> batches[-1].targets.T
    array([[ 9, 10]])
    """

    carries_state: ClassVar[bool]
    tokens: int

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
        """Return the batches in an order for one epoch, drawn from `generator`.

        Streams that carry state have one order only: they are returned as they are, and nothing is
        drawn.
        """
        return self


class StreamBatches(Batches):
    """Windows of T steps over B contiguous streams of one text; `batchify` and `cover` make them.

    Args:
        ids: The text, [N]; read window by window, so a memory map stays on disk.
        first: The position in `ids` of each stream's first target, [B].
        lengths: The number of targets of each stream, [B].
        window: T, of all windows but the last, which may be shorter.
        start_id: The input before position 0 of the text, needed where a stream begins there.

    >>> batches = StreamBatches(np.arange(10), np.array([1, 6]), np.array([4, 4]), window=3)
    >>> [batch.inputs.T.tolist() for batch in batches]
    [[[0, 1, 2], [5, 6, 7]], [[3], [8]]]
    """

    carries_state = True

    def __init__(
        self,
        ids: Integers,
        first: Int64,
        lengths: Int64,
        window: int,
        start_id: int | None = None,
    ) -> None:
        self._ids = ids
        self._first = first
        self._lengths = lengths
        self._window = window
        self._start_id = start_id
        self.tokens = int(lengths.sum())

    def __len__(self) -> int:
        return -(-int(self._lengths.max()) // self._window)

    def _batch(self, index: int) -> Batch:
        done = index * self._window
        first = self._first + done
        lengths = np.clip(self._lengths - done, 0, self._window)
        return Batch(*gather(self._ids, first, lengths, first == 0, self._start_id))


class SentenceBatches(Batches):
    """Sentences of about equal length side by side, padded; `sentence_batches` makes them.

    Args:
        ids: The text, [N]; read batch by batch.
        first: The position in `ids` of each piece's first target.
        lengths: The number of targets of each piece.
        begins: Whether a piece begins a sentence and so has `start_id` as its first input, not the
            token before.
        batch_size: B; the last batch of the longest pieces may be smaller.
        start_id: The input before a sentence; None where sentences have it as their first token.
        order: The pieces of each batch, [number of batches], in the order of the epoch; None sorts
            by length.

    >>> ids = np.array([5, 6, 0, 7, 0, 8, 0])
    >>> batches = sentence_batches(ids, end_id=0, batch_size=2, window=9, start_id=0)
    >>> [batch.lengths.tolist() for batch in batches]
    [[2, 2], [3]]
    """

    carries_state = False

    def __init__(
        self,
        ids: Integers,
        first: Int64,
        lengths: Int64,
        begins: NDArray[np.bool_],
        batch_size: int,
        start_id: int | None = None,
        order: list[Int64] | None = None,
    ) -> None:
        self._ids = ids
        self._first = first
        self._lengths = lengths
        self._begins = begins
        self._batch_size = batch_size
        self._start_id = start_id
        self._order = order or self._bucket(np.arange(len(first)))
        self.tokens = int(lengths.sum())

    def __len__(self) -> int:
        return len(self._order)

    def _batch(self, index: int) -> Batch:
        pieces = self._order[index]
        first, lengths, begins = self._first[pieces], self._lengths[pieces], self._begins[pieces]
        inputs, targets = gather(self._ids, first, lengths, begins, self._start_id)
        return Batch(inputs, targets, lengths)

    def shuffled(self, generator: np.random.Generator) -> "SentenceBatches":
        """Return the same sentences in batches drawn anew.

        Sentences of one length change places among each other, and batches come in any order. The
        same state of the generator gives the same order.
        """
        order = self._bucket(generator.permutation(len(self._first)))
        order = [order[batch] for batch in generator.permutation(len(order))]
        return SentenceBatches(
            self._ids,
            self._first,
            self._lengths,
            self._begins,
            self._batch_size,
            self._start_id,
            order,
        )

    def _bucket(self, pieces: Int64) -> list[Int64]:
        """Sort pieces by length, keeping the order of equal ones, and cut them into batches."""
        pieces = pieces[np.argsort(self._lengths[pieces], kind="stable")]
        return np.split(pieces, np.arange(self._batch_size, len(pieces), self._batch_size))


def batchify(ids: Integers, batch_size: int, window: int) -> StreamBatches:
    """Cut a text into B parallel streams of equal length, for training.

    Stream `b` is `ids[b * n : (b + 1) * n]` with `n = N // B`; what remains is dropped. Targets are
    the inputs shifted by one, so `B * (n - 1)` tokens count. The last window may be shorter than T.

    Args:
        ids: The text, [N]; a memory map stays on disk.
        batch_size: B.
        window: T, the length of truncated backpropagation through time.

    Raises:
        DataError: the text is shorter than one window, B * (T + 1) tokens.

    >>> batches = batchify(np.arange(11), batch_size=2, window=3)
    >>> len(batches), batches.tokens
    (2, 8)
    >>> batches[0].inputs.T
    array([[0, 1, 2],
           [5, 6, 7]])
    >>> batches[0].targets.T
    array([[1, 2, 3],
           [6, 7, 8]])
    """
    check_sizes(batch_size, window)
    needed = batch_size * (window + 1)
    if len(ids) < needed:
        raise DataError(
            f"the text has {len(ids):,} tokens, but one window of {batch_size:,} parallel streams "
            f"of {window:,} steps needs {needed:,}, batch_size * (window + 1); lower batch_size "
            f"({batch_size:,}) or window ({window:,}), or give more text"
        )
    length = len(ids) // batch_size
    first = np.arange(batch_size) * length + 1
    return StreamBatches(ids, first, np.full(batch_size, length - 1), window)


def cover(
    ids: Integers, batch_size: int, window: int, start_id: int | None = None
) -> StreamBatches:
    """Cut a text into B parallel streams such that every token counts exactly once: for evaluation.

    Streams are contiguous, and their lengths differ by at most one. The first input of each is the
    token before it in the text. Where a stream has ended, targets are -100. Only the recurrent
    state is new at the begin of each stream: `batch_size=1` is the whole text in one pass, as
    papers report it.

    Args:
        ids: The text, [N]; a memory map stays on disk.
        batch_size: B.
        window: T.
        start_id: The input for the first token, so that all N count; None leaves it out, and N - 1
            count.

    Raises:
        DataError: there is no token to predict.

    >>> batches = cover(np.arange(1, 8), batch_size=2, window=5, start_id=0)
    >>> batches.tokens
    7
    >>> batches[0].inputs.T
    array([[0, 1, 2, 3],
           [4, 5, 6, 0]])
    >>> batches[0].targets.T
    array([[   1,    2,    3,    4],
           [   5,    6,    7, -100]])
    """
    check_sizes(batch_size, window)
    skipped = 1 if start_id is None else 0
    count = len(ids) - skipped
    if count < 1:
        raise DataError(
            f"the text has too few tokens to predict one: {len(ids)}, where at least {skipped + 1} "
            "are needed; give more text"
        )
    lengths = np.full(batch_size, count // batch_size)
    lengths[: count % batch_size] += 1
    first = skipped + np.cumsum(lengths) - lengths
    return StreamBatches(ids, first, lengths, window, start_id)


def split_sentences(ids: Integers, end_id: int, block: int = 1 << 20) -> Int64:
    """Return where sentences begin and end, [S + 1].

    Sentence `s` is `ids[offsets[s] : offsets[s + 1]]`. Each sentence ends with its `end_id`, but
    for the last, which may lack it. The text is read `block` tokens at a time.

    >>> split_sentences(np.array([5, 6, 0, 7, 0, 8]), end_id=0)
    array([0, 3, 5, 6])
    """
    offsets = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(ids), block):
        offsets.append(np.flatnonzero(ids[start : start + block] == end_id) + (start + 1))
    if len(ids) > 0 and ids[-1] != end_id:
        offsets.append(np.array([len(ids)]))
    return np.concatenate(offsets)


def sentence_batches(
    ids: Integers, end_id: int, batch_size: int, window: int, start_id: int | None = None
) -> SentenceBatches:
    """Batch the sentences of a text, those of about equal length together.

    A sentence ends with `end_id`. One of more than T targets is split into pieces of at most T,
    whose first input is the true token before them, so that every token counts exactly once; the
    state starts anew at each piece. Padding is 0 in the inputs and -100 in the targets. Batches
    come in the order of length; draw another for each epoch with `shuffled`.

    Args:
        ids: The text, [N]; a memory map stays on disk.
        end_id: The last token of each sentence, at word level the tokenizer's `start_id`.
        batch_size: B; one batch may be smaller.
        window: T at most.
        start_id: The input that predicts a sentence's first token, so that all N tokens count. None
            takes the first token itself as first input, uncounted, for a text that has `<bos>`
            before each sentence.

    Raises:
        DataError: no sentence has a token to predict.

    >>> ids = np.array([5, 6, 0, 7, 0])
    >>> batch = sentence_batches(ids, end_id=0, batch_size=2, window=9, start_id=0)[0]
    >>> batch.inputs.T
    array([[0, 7, 0],
           [0, 5, 6]])
    >>> batch.targets.T
    array([[   7,    0, -100],
           [   5,    6,    0]])
    >>> batch.lengths
    array([2, 3])
    """
    check_sizes(batch_size, window)
    offsets = split_sentences(ids, end_id)
    skipped = 1 if start_id is None else 0
    begin, end = offsets[:-1] + skipped, offsets[1:]
    pieces = -(-(end - begin) // window)  # of each sentence; none where nothing is to be predicted
    if pieces.sum() == 0:
        raise DataError(
            f"the text has {len(ids):,} tokens, but no sentence with one to predict; give more "
            "text, or a start_id, so that each sentence's first token is predicted too"
        )
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = np.repeat(begin, pieces) + number * window
    lengths = np.minimum(np.repeat(end, pieces) - first, window)
    begins = (number == 0) & (start_id is not None)
    return SentenceBatches(ids, first, lengths, begins, batch_size, start_id)


def check_sizes(batch_size: int, window: int) -> None:
    """Refuse sizes below 1 with a `DataError`."""
    for name, value in [("batch_size", batch_size), ("window", window)]:
        if value < 1:
            raise DataError(f"{name} is {value}; it must be at least 1")


def gather(
    ids: Integers,
    first: Int64,
    lengths: Int64,
    begins: NDArray[np.bool_],
    start_id: int | None,
) -> tuple[Int64, Int64]:
    """Return inputs and targets, [T, B], of the `lengths` targets from position `first` on, padded.

    Where `begins`, the first input is `start_id`, elsewhere the token at `first - 1`.
    """
    step = np.arange(lengths.max())[:, np.newaxis]
    real = step < lengths
    targets = np.asarray(ids[np.minimum(first + step, len(ids) - 1)], dtype=np.int64)
    before = np.asarray(ids[np.clip(first - 1, 0, len(ids) - 1)], dtype=np.int64)
    if start_id is not None:
        before = np.where(begins, start_id, before)
    inputs = np.where(real, np.concatenate([before[np.newaxis], targets[:-1]]), 0)
    return inputs, np.where(real, targets, IGNORE_INDEX)
