"""Sampling the next token from a language model's logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anaphora import engine

Ids = Sequence[int] | npt.NDArray[np.int64]

_LARGEST = 2**63 - 1  # the largest signed 64-bit integer


@dataclass(frozen=True)
class Sampler:
    """How the next token is chosen: biases, penalties, then temperature, top-k and nucleus.

        z = logits + bias; for tokens that occurred before: z / penalty if z > 0, else z * penalty
        z = -inf for tokens that would complete an n-gram that occurred before
        p = softmax(z / temperature)              [B, V]
        top-k:    keep the k most likely tokens
        nucleus:  of those, keep the smallest set of most likely tokens that reaches top_p
        id = the first kept token at which the cumulative probability exceeds a uniform number

    Ties are broken in favor of the lower id. Top-k and nucleus always keep at least one token.
    "Before" means everything that the model has read, including the prompt. The result is that of
    Hugging Face's logits processors, in their order.

    Sources: repetition penalty, Keskar et al. 2019, "CTRL"; no repeated n-grams, Paulus et al.
    2018; top-k, Fan et al. 2018, "Hierarchical Neural Story Generation"; nucleus, Holtzman et al.
    2020, "The Curious Case of Neural Text Degeneration".

    Args:
        temperature: Divides the logits. 1 is the model's own distribution; lower values favor
            likely tokens, higher ones unlikely tokens; 0 always takes the most likely token.
        top_k: Number of tokens to sample from; 0 keeps all.
        top_p: Probability that the nucleus reaches, above 0 and at most 1; 1 keeps all tokens.
        seed: Seed of `generator`; ``None`` is random.
        excluded: Ids that are never chosen, whatever their logits.
        repetition_penalty: Above 1 makes tokens that occurred before less likely (1.2 in the
            paper), below 1 more likely.
        no_repeat_ngram: The n of n-grams that must not repeat; 0 allows all.
        logit_bias: Pairs of an id and the number that is added to its logit.

    Raises:
        ValueError: an option is out of range.

    >>> sampler = Sampler(temperature=0.8, top_k=2, seed=1)
    >>> sampler.sample(np.array([[1.0, 3.0, 2.0], [9.0, 0.0, 0.0]]), sampler.generator())
    array([1, 0])
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    excluded: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"Sampler: temperature is {self.temperature}; expected a finite number >= 0 "
                "(0 always takes the most likely token)"
            )
        if not isinstance(self.top_k, int | np.integer) or self.top_k < 0:
            raise ValueError(
                f"Sampler: top_k is {self.top_k}; expected an integer >= 0 (0 keeps all tokens)"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"Sampler: top_p is {self.top_p}; expected 0 < top_p <= 1 (1 keeps all tokens)"
            )
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"Sampler: seed is {self.seed}; expected an integer >= 0 or None")
        if self.top_k > _LARGEST:
            raise ValueError(
                f"Sampler: top_k is {self.top_k}; expected at most {_LARGEST} (0 keeps all tokens)"
            )
        if any(id < 0 for id in self.excluded):
            raise ValueError(f"Sampler: excluded is {self.excluded}; expected ids >= 0")
        if any(id < 0 or not math.isfinite(bias) for id, bias in self.logit_bias):
            raise ValueError(
                f"Sampler: logit_bias is {self.logit_bias}; expected ids >= 0 with finite numbers"
            )

        penalty, n = self.repetition_penalty, self.no_repeat_ngram
        if not (math.isfinite(penalty) and penalty > 0):
            raise ValueError(
                f"Sampler: repetition_penalty is {penalty}; expected a finite number > 0 (1 "
                "penalizes nothing)"
            )
        if not isinstance(n, int | np.integer) or not 0 <= n <= _LARGEST:
            raise ValueError(
                f"Sampler: no_repeat_ngram is {n}; expected an integer >= 0 (0 allows all n-grams)"
            )

    @property
    def needs_history(self) -> bool:
        """Whether choices depend on the previous ids: whether repetition is penalized.

        >>> Sampler(top_k=5).needs_history, Sampler(no_repeat_ngram=3).needs_history
        (False, True)
        """
        return self.repetition_penalty != 1 or self.no_repeat_ngram > 0

    @property
    def changes_logits(self) -> bool:
        """Whether biases or penalties change the logits, besides excluding ids.

        >>> Sampler(logit_bias=((3, -1.0),)).changes_logits
        True
        """
        return self.needs_history or bool(self.logit_bias)

    def generator(self) -> np.random.Generator:
        """Make a generator seeded with ``seed``: the same seed gives the same ids."""
        return np.random.default_rng(self.seed)

    def uniforms(self, generator: np.random.Generator, *shape: int) -> npt.NDArray[np.float64]:
        """The random numbers for samples of this shape; zeros at temperature 0.

        >>> sampler = Sampler(seed=1)
        >>> sampler.uniforms(sampler.generator(), 2)
        array([0.51182162, 0.9504637 ])
        """
        return np.zeros(shape) if self.temperature == 0 else generator.random(shape)

    def sample(
        self,
        logits: npt.NDArray[Any],
        generator: np.random.Generator,
        previous: Sequence[Ids] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Sample one id for each row of ``logits``.

        Takes ``B`` uniform numbers from ``generator``, one per row (none at temperature 0).

        Shapes and exceptions are those of `choose`.

        >>> sampler = Sampler(temperature=0, no_repeat_ngram=2)
        >>> logits = np.array([[1.0, 3.0, 2.0]])
        >>> sampler.sample(logits, sampler.generator(), previous=[[0, 1, 2, 0]])  # not 0 1 again
        array([2])
        """
        count = len(logits) if logits.ndim else 0
        return self.choose(logits, self.uniforms(generator, count), previous)

    def choose(
        self,
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[np.float64],
        previous: Sequence[Ids] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Choose one id for each row of ``logits``, given its random number.

        A row's id depends only on its own logits, random number and previous ids.

        Args:
            logits: [B, V], float32 or float64, -inf where a token is excluded.
            uniforms: [B] numbers, 0 <= u < 1; not used at temperature 0.
            previous: The previous ids of each row, [N] of any N; needed if repetition is
                penalized.

        Returns:
            [B] ids.

        Raises:
            TypeError: the logits are not floating-point numbers; or repetition is penalized, and
                ``previous`` is missing.
            ValueError: the logits are not [B, V] with V > 0; or a row has NaN, +inf or only -inf,
                as when all ids that are not excluded have -inf.
            IndexError: an excluded, biased or previous id is not in 0..V-1.

        >>> Sampler(top_k=2).choose(np.array([[1.0, 3.0, 2.0]]), np.array([0.9]))
        array([2])
        """
        if self.changes_logits or self.excluded:
            logits = self._changed(logits, previous)
        return engine.sample(logits, uniforms, self.temperature, self.top_k, self.top_p)

    def _changed(
        self, logits: npt.NDArray[Any], previous: Sequence[Ids] | None
    ) -> npt.NDArray[Any]:
        """The logits with biases, penalized by the previous ids, with excluded ids at -inf."""
        logits = np.array(logits)
        for id, bias in self.logit_bias:
            logits[:, id] += bias
        logits[:, list(self.excluded)] = -np.inf
        if not self.needs_history:
            return logits
        if previous is None:
            raise TypeError("sample: repetition penalties need the previous ids of each row")
        for row, ids in zip(logits, previous, strict=True):
            seen = np.unique(np.asarray(ids, np.int64))
            scores = row[seen]
            penalty = self.repetition_penalty
            row[seen] = np.where(scores < 0, scores * penalty, scores / penalty)
            if self.no_repeat_ngram:
                possible = row.max() > -np.inf
                row[repeating(ids, self.no_repeat_ngram)] = -np.inf
                if possible and row.max() == -np.inf:
                    raise ValueError(
                        f"sample: after {len(ids):,} ids no_repeat_ngram {self.no_repeat_ngram} "
                        "leaves no token; choose a larger n or a shorter length"
                    )
        return logits


def repeating(ids: Ids, n: int) -> npt.NDArray[np.int64]:
    """The ids that would complete an n-gram that the sequence already contains; n >= 1.

    >>> repeating([1, 2, 3, 1, 2, 4, 1, 2], 3)
    array([3, 4])
    """
    sequence = np.asarray(ids, np.int64)
    if len(sequence) < n:
        return sequence[:0]
    ngrams = np.lib.stride_tricks.sliding_window_view(sequence, n)
    beginning = sequence[len(sequence) - n + 1 :]
    found: npt.NDArray[np.int64] = ngrams[(ngrams[:, :-1] == beginning).all(axis=1), -1]
    return found
