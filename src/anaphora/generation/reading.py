"""Reading many sequences with a language model: batched, in windows, with the state carried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.data import DataError, Tokenizer, WordTokenizer
from anaphora.models import LanguageModel
from anaphora.tensor import Tensor, no_grad

Ids = Sequence[int] | NDArray[np.int64]

_WINDOW = 256  # steps


@dataclass(frozen=True, eq=False)
class Window:
    """Some steps of a batch of sequences.

    Attributes:
        start: The position of the first step in each sequence.
        lengths: [B] the number of steps of each sequence in the window.
        features: The input of the output layer, [T, B, H].
        state: The state of each sequence after its last step so far.

    >>> model = LanguageModel(vocabulary_size=5, hidden_size=4)
    >>> [(window.start, window.lengths.tolist()) for window in read(model, [[1, 2, 3], [4]])]
    [(0, [3, 1])]
    """

    start: int
    lengths: NDArray[np.int64]
    features: Tensor
    state: Any


def read(model: LanguageModel, sequences: Sequence[Ids]) -> Iterator[Window]:
    """Read a batch of sequences in evaluation mode; yields a window even if all are empty.

    The output layer is not run: nothing here grows with the vocabulary.

    >>> model = LanguageModel(vocabulary_size=5, hidden_size=4)
    >>> [(window.start, window.lengths.tolist()) for window in read(model, [[], []])]
    [(0, [0, 0])]
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    state = None
    for start in range(0, max(1, int(lengths.max(initial=0))), _WINDOW):
        steps = np.clip(lengths - start, 0, _WINDOW)
        ids = np.zeros((int(steps.max(initial=0)), len(sequences)), np.int64)
        for b, sequence in enumerate(sequences):
            ids[: steps[b], b] = sequence[start : start + steps[b]]
        # A gate may saturate; callers report NaN.
        with evaluating(model), no_grad(), np.errstate(over="ignore", invalid="ignore"):
            features, state = model.recurrent(model.embedding(ids), state, lengths=steps)
        yield Window(start, steps, features, state)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Run a model in evaluation mode, then restore the mode.

    >>> model = LanguageModel(vocabulary_size=5, hidden_size=4)
    >>> with evaluating(model):
    ...     model.training
    False
    >>> model.training
    True
    """
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


def token_text(tokenizer: Tokenizer, id: int) -> str:
    r"""A token as displayed: words as in the vocabulary, so `<eos>` for the end of a line.

    >>> token_text(WordTokenizer.fit("a b\n"), 0)
    '<eos>'
    """
    return tokenizer.words[id] if isinstance(tokenizer, WordTokenizer) else tokenizer.decode([id])


def opening(tokenizer: Tokenizer) -> list[int]:
    r"""The ids that a model reads before a line; none if no token ends a line.

    At word level `<bos>` or, without it, the `<eos>` of the previous line; otherwise the line end.

    >>> tokenizer = WordTokenizer.fit("a b\n", sentence_start=True)
    >>> [tokenizer.words[id] for id in opening(tokenizer)]
    ['<bos>']
    """
    if tokenizer.start_id is not None:
        start = [int(id) for id in tokenizer.encode("\n")][:-1]  # <bos>, if there is one
        return start or [tokenizer.start_id]
    try:
        ids = [int(id) for id in tokenizer.encode("\n")]
    except DataError:
        return []
    return [] if tokenizer.unknown_tokens(["\n"]) else ids
