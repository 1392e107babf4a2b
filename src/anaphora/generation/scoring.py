"""Scoring texts with a language model: the log-probability of each of their tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anaphora import engine, ops
from anaphora.data import Tokenizer
from anaphora.generation.reading import Ids, opening, read, token_text
from anaphora.models import LanguageModel
from anaphora.tensor import Array, no_grad

_BATCHES_AT_ONCE = 16  # sorted by length together


@dataclass(frozen=True, eq=False)
class TextScore:
    """The log-probability of a text under a language model.

    Attributes:
        tokens: The predicted tokens.
        log_probabilities: The log-probability of each token given the previous ones, [N], in nats;
            NaN for a first token without context.

    >>> score = TextScore(["a", "b"], np.log([0.5, 0.125]))
    >>> round(score.log_probability, 3), round(score.perplexity, 3)
    (-2.773, 4.0)
    """

    tokens: list[str]
    log_probabilities: NDArray[np.float64]

    @property
    def log_probability(self) -> float:
        """The sum over all predicted tokens, in nats."""
        return float(np.nansum(self.log_probabilities))

    @property
    def perplexity(self) -> float:
        """Computed as exp(-mean log-probability of the predicted tokens); NaN if there are none."""
        count = np.count_nonzero(~np.isnan(self.log_probabilities))
        mean = -self.log_probability / count if count else math.nan
        return math.exp(mean) if not mean >= 700 else math.inf


def score(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    end: bool = True,
    batch_size: int = 32,
) -> Iterator[TextScore]:
    r"""Yield the log-probability of each token of each text, in nats.

        log p(text) = sum_t log p(token_t | tokens before t)

    Each text is scored on its own, as a line that follows another: before its first token the model
    reads a line end (at word level `<eos>`, or `<bos>` if the vocabulary has it), and the end of
    the text's own line is predicted too. A character vocabulary without a line end allows neither:
    the first character is then not predicted, and its log-probability is NaN.

    The values depend neither on the other texts nor on the batch size.

    Args:
        model: The model, which is run in evaluation mode.
        tokenizer: The model's tokenizer.
        texts: Texts without a line end; they are consumed 16 batches at a time.
        end: Whether the end of the line counts.
        batch_size: B, texts per batch.

    Raises:
        DataError: a token of a text is not in the vocabulary, which has no unknown token.
        ValueError: the batch size is below 1; or the model's scores are NaN.

    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit("ab\n")
    >>> model = LanguageModel(vocabulary_size=3, hidden_size=4)
    >>> scores = list(score(model, tokenizer, ["abba", ""]))
    >>> [found.tokens for found in scores]
    [['a', 'b', 'b', 'a', '\n'], ['\n']]
    >>> bool(scores[0].log_probability < scores[0].log_probabilities[0] < 0)
    True
    """
    if batch_size < 1:
        raise ValueError(f"score: batch_size is {batch_size}; expected at least 1")
    return engine.with_current_precision(_score(model, tokenizer, iter(texts), end, batch_size))


def _score(
    model: LanguageModel, tokenizer: Tokenizer, texts: Iterator[str], end: bool, batch_size: int
) -> Iterator[TextScore]:
    start = opening(tokenizer)
    while group := list(itertools.islice(texts, _BATCHES_AT_ONCE * batch_size)):
        bodies = [_encode(tokenizer, text, start, end) for text in group]
        order = sorted(range(len(group)), key=lambda k: len(bodies[k]))
        found: dict[int, Array] = {}
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            values = score_ids(model, [bodies[row] for row in rows], start)
            found.update(zip(rows, values, strict=True))
        for row, ids in enumerate(bodies):
            tokens = [token_text(tokenizer, id) for id in ids]
            yield TextScore(tokens, found[row])


def score_ids(
    model: LanguageModel, sequences: list[list[int]], context: Ids = ()
) -> list[NDArray[np.float64]]:
    """The log-probability of each id of a batch of sequences, in nats.

    Args:
        model: As for `score`.
        sequences: The ids [N] of each.
        context: Ids that precede each sequence; without context, the value of each first id is NaN.

    Raises:
        IndexError: an id is not in the vocabulary.
        ValueError: the model's scores are NaN.

    >>> values = score_ids(LanguageModel(vocabulary_size=9, hidden_size=4), [[1, 2, 3], [8]], [0])
    >>> [len(row) for row in values]
    [3, 1]
    """
    given = [[*context, *ids] for ids in sequences]
    values = [np.full(len(ids), np.nan) for ids in given]
    for window in read(model, [ids[:-1] for ids in given]):
        ends = window.start + 1 + window.lengths  # of the targets of each sequence
        targets = [ids[window.start + 1 : end] for ids, end in zip(given, ends, strict=True)]
        b, t = np.nonzero(np.arange(len(window.features)) < window.lengths[:, None])
        quiet = np.errstate(over="ignore", invalid="ignore")
        with no_grad(), quiet, model.output.products():
            losses: Array = ops.linear_cross_entropy(
                window.features.data[t, b],
                model.output.weight,
                model.output.bias,
                targets=np.array(list(itertools.chain.from_iterable(targets)), np.int64),
                reduction="none",
            ).data
        if not np.isfinite(losses).all():
            raise ValueError(
                "score: the model's scores are NaN or infinite; its weights are too large: train "
                "again with a lower learning_rate"
            )
        for row, end in enumerate(ends):
            values[row][window.start + 1 : end] = -losses[b == row]
    return [row[len(context) :] for row in values]


def log_probabilities(logits: Array) -> Array:
    """The log-probability of every id after each of N steps, in nats, with the bits of `score`.

    Args:
        logits: [N, V].

    Returns:
        [N, V].

    >>> log_probabilities(np.array([[0.0, 0.0]], np.float32)).round(4)
    array([[-0.6931, -0.6931]], dtype=float32)
    """
    best = logits.argmax(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        # The loss of the most likely id is the logarithm of the sum alone.
        log_totals, _ = engine.cross_entropy_forward(logits, best)
        largest = np.take_along_axis(logits, best[:, None], axis=1)
        differences: Array = (logits - largest) - log_totals[:, None]
    return differences


def most_likely(scores: Array, count: int) -> list[int]:
    """The ids with the largest scores, in descending order; ties in favor of the lower id.

    >>> most_likely(np.array([0.1, 0.5, 0.5, 0.2]), 3)
    [1, 2, 3]
    """
    count = min(count, len(scores))
    if count == 0:
        return []
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    ids = np.flatnonzero(scores >= least)
    found: list[int] = ids[np.argsort(-scores[ids], kind="stable")][:count].tolist()
    return found


def _encode(tokenizer: Tokenizer, text: str, start: list[int], end: bool) -> list[int]:
    """The ids of a text, with its line end if it counts, without the opening."""
    if tokenizer.start_id is not None:  # a word tokenizer marks line ends, and maybe line starts
        ids = [int(id) for id in tokenizer.encode(text + "\n")]
        ids = ids[len(start) :] if start != [tokenizer.start_id] else ids
        return ids if end else ids[:-1]
    return [int(id) for id in tokenizer.encode(text + "\n" if end and start else text)]
