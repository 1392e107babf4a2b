"""Beam search: the most likely sequences of a decoder, given a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora.generation.reading import evaluating
from anaphora.generation.sampling import repeating
from anaphora.models import ConditionalLanguageModel
from anaphora.nn import Memory
from anaphora.nn.states import as_tuple, from_tuple
from anaphora.tensor import Array, Tensor, no_grad


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A sequence that a search found.

    Attributes:
        ids: Its tokens, [N], without the end-of-sequence token.
        log_probability: The sum of the log-probabilities of its tokens and of its end-of-sequence
            token, in nats.
        score: The ranking score: `log_probability / length ** length_penalty`, with the
            end-of-sequence token included in the length.
        ended: Whether it has an end-of-sequence token; otherwise it was cut at the maximum length.
        weights: The attention weights for each token and the end-of-sequence token, [N + 1, S]
            ([N, S] if it was cut), 0 in the padding; None without attention.

    >>> Hypothesis(np.array([5, 7]), log_probability=-1.5, score=-0.5, ended=True).ids.tolist()
    [5, 7]
    """

    ids: NDArray[np.int64]
    log_probability: float
    score: float
    ended: bool
    weights: Array | None = None


def greedy_search(
    model: ConditionalLanguageModel,
    source: Any,
    lengths: ArrayLike | None = None,
    max_length: int = 100,
) -> list[Hypothesis]:
    """Take the most likely token at each step, for each row of a batch: a beam of one.

    Arguments and exceptions are those of `beam_search`.

    >>> from anaphora.models import EncoderDecoder
    >>> model = EncoderDecoder(source_vocabulary_size=9, vocabulary_size=10, hidden_size=4)
    >>> one, other = greedy_search(model, [[1, 2], [8, 0], [7, 0]], lengths=[3, 1], max_length=6)
    >>> len(one.ids) <= 6
    True
    """
    return [found[0] for found in beam_search(model, source, lengths, 1, max_length)]


def beam_search(
    model: ConditionalLanguageModel,
    source: Any,
    lengths: ArrayLike | None = None,
    beam_size: int = 5,
    max_length: int = 100,
    length_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
) -> list[list[Hypothesis]]:
    """Find the most likely sequences for each row of a batch (Sutskever et al. 2014).

    Each step keeps the K best of all extensions by one token. One that ends, and is among the K
    best, is finished. Since every token makes a sequence less likely, finished sequences are
    ranked by the mean log-probability per token or, more generally, by their score,
    `log_probability / length ** length_penalty`. A row is done when it has K of them, and no
    unfinished sequence has a better score than the last of these K.

    Ties are broken in favor of the sequence with the better prefix, then of the lower id, so that
    every run gives the same result. The model runs in evaluation mode.

    Args:
        model: An `EncoderDecoder`, a `VectorToSequence`, or another with a decoder.
        source: The input of the model's ``encode``: ids [S, B], or vectors [B, I].
        lengths: [B] the number of tokens of each source, or None for all S.
        beam_size: K; 1 is greedy search.
        max_length: The maximum number of tokens, including the end-of-sequence token. Sequences
            that have not ended by then are ranked last.
        length_penalty: 1 ranks by the mean, 0 by the sum.
        no_repeat_ngram: The n of n-grams that must not repeat in a sequence (Paulus et al. 2018);
            0 allows all. Log-probabilities remain those of the model.

    Returns:
        The K best hypotheses of each row, best first; fewer if there are not as many.

    Raises:
        ValueError: an option is out of range, or the model's scores are NaN.

    >>> from anaphora.models import VectorToSequence
    >>> model = VectorToSequence(input_size=3, vocabulary_size=10, hidden_size=4)
    >>> found = beam_search(model, np.ones((2, 3), np.float32), beam_size=4, max_length=6)
    >>> len(found), len(found[0]), len(found[0][0].ids) <= 6
    (2, 4, True)
    """
    if beam_size < 1 or max_length < 1 or not length_penalty >= 0 or no_repeat_ngram < 0:
        raise ValueError(
            f"beam_search: beam_size {beam_size}, max_length {max_length}, length_penalty "
            f"{length_penalty}, no_repeat_ngram {no_repeat_ngram}; expected beam_size >= 1, "
            "max_length >= 1, length_penalty >= 0 and no_repeat_ngram >= 0"
        )
    # A gate may saturate; NaN scores are refused below.
    with evaluating(model), no_grad(), np.errstate(over="ignore", invalid="ignore"):
        state, memory = model.encode(source, lengths)
        beams = _Beams(model, state, memory, beam_size, length_penalty, no_repeat_ngram)
        for _ in range(max_length):
            if not beams.rows.size:
                break
            beams.step()
        return beams.finish()


class _Beams:
    """The unfinished sequences of a search, [K, B], and the finished ones.

    Row k * B + b of the decoder's batch is sequence k of row b.
    """

    def __init__(
        self,
        model: ConditionalLanguageModel,
        state: Any,
        memory: Memory | None,
        beam_size: int,
        length_penalty: float,
        no_repeat_ngram: int,
    ) -> None:
        self.decoder = model.decoder
        self.no_repeat_ngram = no_repeat_ngram
        self.length_penalty = length_penalty
        states = as_tuple(state)
        K, B = beam_size, states[0].shape[1]
        self.states = [np.tile(s.data, (1, K, 1)) for s in states]  # [L, K*B, H]
        self.memory = memory
        self.rows = np.arange(B)  # the rows of the source that are not done
        self.ids = np.empty((0, K, B), np.int64)
        self.totals = np.full((K, B), -np.inf)  # of log-probabilities
        self.totals[0] = 0  # the others would be copies of the first
        S = 0 if memory is None else memory.mask.shape[2]
        self.weights = np.empty((0, K, B, S), self.states[0].dtype)
        self.found: list[list[Hypothesis]] = [[] for _ in range(B)]

    def step(self) -> None:
        """Extend every sequence by one token."""
        K, B = self.totals.shape
        end = self.decoder.end_id
        last = self.ids[-1:] if len(self.ids) else np.full((1, K, B), end)
        logits, weights = self._run(last.reshape(1, K * B))
        best = _best_tokens(logits, 2 * K, self._repeating())
        tokens, scores = (a.reshape(K, B, -1) for a in best)
        n = tokens.shape[2]
        candidates = (self.totals[:, :, None] + scores).transpose(1, 0, 2).reshape(B, K * n)
        order = np.argsort(-candidates, axis=1, kind="stable")[:, : 2 * K]

        parents, ids = np.zeros((K, B), np.int64), np.zeros((K, B), np.int64)
        totals = np.full((K, B), -np.inf)
        for b, ranked in enumerate(order):
            kept = 0
            for rank, candidate in enumerate(ranked):
                total, (k, j) = candidates[b, candidate], divmod(int(candidate), n)
                if total == -np.inf or kept == K:
                    break
                if tokens[k, b, j] != end:
                    parents[kept, b], ids[kept, b], totals[kept, b] = k, tokens[k, b, j], total
                    kept += 1
                elif rank < K:
                    shares = [*self.weights[:, k, b], weights[k, b]]
                    self._add(b, self.ids[:, k, b], shares, total, ended=True)
        left = [b for b in range(B) if self._is_open(b, totals[0, b])]
        self._extend(parents, ids, totals, weights, np.array(left, np.int64))

    def _run(self, ids: Array) -> tuple[Array, Array]:
        """Read a token of every sequence; return the logits [K*B, V] and the weights [K, B, S]."""
        K, B = self.totals.shape
        state = from_tuple([Tensor(one) for one in self.states])
        features, after, weights = self.decoder(ids, state, self.memory)
        self.states = [one.data for one in as_tuple(after)]
        logits = self.decoder.output(features).data[0]
        if weights is None:
            return logits, np.empty((K, B, 0), logits.dtype)
        return logits, weights.data.reshape(K, B, -1)

    def _repeating(self) -> list[NDArray[np.int64]]:
        """The ids that each row of the decoder's batch must not produce."""
        n = self.no_repeat_ngram
        sequences = self.ids.reshape(len(self.ids), self.totals.size)
        return [repeating(ids, n) for ids in sequences.T] if n else []

    def _extend(
        self, parents: Array, ids: Array, totals: Array, weights: Array, left: NDArray[np.int64]
    ) -> None:
        """Append the new tokens to their parents, dropping rows that are done."""
        B = len(self.rows)
        parents, ids, totals = parents[:, left], ids[:, left], totals[:, left]
        places = (parents * B + left).reshape(-1)
        self.states = [state[:, places] for state in self.states]
        self.ids = np.concatenate([self.ids[:, parents, left], ids[None]])
        self.weights = np.concatenate([self.weights, weights[None]])[:, parents, left]
        self.totals = totals
        if len(left) < B:
            self.rows = self.rows[left]
            self.memory = None if self.memory is None else self.memory.rows(left)

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self.length_penalty)

    def _is_open(self, b: int, best: float) -> bool:
        """Whether a row's best unfinished sequence may still change the result."""
        scores = sorted(hypothesis.score for hypothesis in self.found[self.rows[b]])
        K = len(self.totals)
        return best > -np.inf and (
            len(scores) < K or self._score(best, len(self.ids) + 1) > scores[-K]
        )

    def _add(self, b: int, ids: Array, weights: Any, total: float, ended: bool) -> None:
        length = len(ids) + ended
        self.found[self.rows[b]].append(
            Hypothesis(
                ids,
                float(total),
                self._score(total, length),
                ended,
                None if self.memory is None else np.array(weights),
            )
        )

    def finish(self) -> list[list[Hypothesis]]:
        """The hypotheses of each row, best first, including unfinished ones."""
        for b in range(len(self.rows)):
            for k in np.flatnonzero(self.totals[:, b] > -np.inf):
                self._add(
                    b, self.ids[:, k, b], self.weights[:, k, b], self.totals[k, b], ended=False
                )
        K = len(self.totals)
        return [sorted(found, key=lambda h: (not h.ended, -h.score))[:K] for found in self.found]


def _best_tokens(
    logits: Array, count: int, excluded: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], Array]:
    """The most likely tokens of each row and their log-probabilities: [N, V] gives [N, count].

    `excluded` has ids of each row, whose log-probabilities become -inf, or is empty.
    """
    logits, each = np.array(logits), np.arange(len(logits))
    largest = logits.max(axis=1, keepdims=True)
    totals = np.exp(logits - largest).sum(axis=1, dtype=np.float64)
    if not np.isfinite(totals).all():
        raise ValueError("beam_search: the model's scores are NaN; its weights may be too")
    log_totals = largest[:, 0] + np.log(totals)
    for row, ids in zip(logits, excluded, strict=bool(excluded)):
        row[ids] = -np.inf
    tokens, scores = [], []
    for _ in range(min(count, logits.shape[1])):
        best = logits.argmax(axis=1)  # the first of ties
        tokens.append(best)
        scores.append(logits[each, best] - log_totals)
        logits[each, best] = -np.inf
    return np.stack(tokens, axis=-1), np.stack(scores, axis=-1)
