"""Windows of token ids: parallel streams, an exact cover of a text, separate sentences.

Letters: T steps, B batch, N tokens of a text.
"""

import numpy as np
from numpy.typing import NDArray

from anaphora.data.batches.base import (
    IGNORE_INDEX,
    Batch,
    Batches,
    BucketedBatches,
    Int64,
    Integers,
    pad,
)
from anaphora.data.errors import DataError
from anaphora.options import check_sizes

__all__ = [
    "SentenceBatches",
    "StreamBatches",
    "batchify",
    "cover",
    "sentence_batches",
    "split_sentences",
]


class StreamBatches(Batches):
    """Windows of T steps over B contiguous streams of one text; `batchify` and `cover` make them.

    Args:
        ids: The text, [N]; read window by window, so a memory map stays on disk.
        first: The position in `ids` of each stream's first target, [B].
        lengths: The number of targets of each stream, [B].
        window: T of all windows but the last, which may be shorter.
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


class SentenceBatches(BucketedBatches):
    """Sentences bucketed by length and padded; `sentence_batches` makes them.

    Args:
        ids: The text, [N]; read batch by batch.
        first: The position in `ids` of each piece's first target.
        lengths: The number of targets of each piece.
        begins: Whether a piece begins a sentence and so has `start_id` as its first input, not the
            token before.
        batch_size: B; the last batch of the longest pieces may be smaller.
        start_id: The input before a sentence; None where sentences have it as their first token.

    >>> ids = np.array([5, 6, 0, 7, 0, 8, 0])
    >>> batches = sentence_batches(ids, end_id=0, batch_size=2, window=9, start_id=0)
    >>> [batch.lengths.tolist() for batch in batches]
    [[2, 2], [3]]
    """

    def __init__(
        self,
        ids: Integers,
        first: Int64,
        lengths: Int64,
        begins: NDArray[np.bool_],
        batch_size: int,
        start_id: int | None = None,
    ) -> None:
        super().__init__([lengths], batch_size)
        self._ids = ids
        self._first = first
        self._lengths = lengths
        self._begins = begins
        self._start_id = start_id
        self.tokens = int(lengths.sum())

    def _collate(self, examples: Int64) -> Batch:
        first, lengths = self._first[examples], self._lengths[examples]
        return Batch(
            *gather(self._ids, first, lengths, self._begins[examples], self._start_id), lengths
        )


def batchify(ids: Integers, batch_size: int, window: int) -> StreamBatches:
    """Cut a text into B parallel streams of equal length, for training.

    Stream `b` is `ids[b * n : (b + 1) * n]` with `n = N // B`; the remainder is dropped. Targets
    are the inputs shifted by one, so `B * (n - 1)` tokens count. The last window may be shorter
    than T.

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
    check_sizes("batchify", batch_size=batch_size, window=window)
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
    state is reset at the start of each stream: `batch_size=1` reads the entire text in one pass, as
    in papers.

    Args:
        ids: The text, [N]; a memory map stays on disk.
        batch_size: B.
        window: T.
        start_id: The input that predicts the first token, so that all N count; with None, N - 1
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
    check_sizes("cover", batch_size=batch_size, window=window)
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

    Sentence `s` is `ids[offsets[s] : offsets[s + 1]]`. Each sentence ends with `end_id`, except the
    last, which may lack it. The text is read `block` tokens at a time.

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
    """Batch the sentences of a text, bucketed by length.

    A sentence ends with `end_id`. One with more than T targets is split into pieces of at most T,
    whose first input is the true previous token, so that every token counts exactly once; the
    state is reset at each piece. Padding is 0 in the inputs and -100 in the targets. Batches
    are in the order of length; `shuffled` gives another for each epoch.

    Args:
        ids: The text, [N]; a memory map stays on disk.
        end_id: The last token of each sentence; at word level the tokenizer's `start_id`.
        batch_size: B; one batch may be smaller.
        window: The maximum T.
        start_id: The input that predicts a sentence's first token, so that all N tokens count. None
            takes the first token itself as the first input, not counted, for a text that has
            `<bos>` before each sentence.

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
    check_sizes("sentence_batches", batch_size=batch_size, window=window)
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
    ends = first + lengths
    targets, _ = pad(
        [ids[a:b] for a, b in zip(first.tolist(), ends.tolist(), strict=True)], IGNORE_INDEX
    )
    before = np.asarray(ids[np.clip(first - 1, 0, len(ids) - 1)], dtype=np.int64)
    if start_id is not None:
        before = np.where(begins, start_id, before)
    real = np.arange(len(targets))[:, np.newaxis] < lengths
    return np.where(real, np.concatenate([before[np.newaxis], targets[:-1]]), 0), targets
