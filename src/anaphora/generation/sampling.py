"""Drawing the next token from a language model's logits: temperature, top-k and nucleus."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anaphora import engine

_LARGEST = 2**63 - 1  # what fits into 64 bits


@dataclass(frozen=True)
class Sampler:
    """Draws token ids from logits, with the options that people turn.

        p = softmax(logits / temperature)         [B, V]
        top-k:    keep the k most likely tokens
        nucleus:  of those, keep the fewest, most likely first, that together reach top_p
        id = the first kept token at which the cumulative probability exceeds a uniform number

    Of equally likely tokens the one with the lower id counts as more likely. At least one token is
    always kept. The nucleus is that of Holtzman et al. 2020, "The Curious Case of Neural Text
    Degeneration"; top-k that of Fan et al. 2018, "Hierarchical Neural Story Generation".

    Attributes:
        temperature: Divides the logits. 1 is the model's own distribution, less is bolder, more is
            wilder; 0 always takes the most likely token.
        top_k: Number of tokens to draw from; 0 is all of them.
        top_p: Probability that the nucleus reaches, above 0 and at most 1; 1 is all tokens.
        seed: Seed of `generator`; ``None`` is another one each time.
        excluded: Ids that are never drawn, whatever their logits.

    Raises:
        ValueError: an option is out of its range.

    >>> sampler = Sampler(temperature=0.8, top_k=2, seed=1)
    >>> sampler.sample(np.array([[1.0, 3.0, 2.0], [9.0, 0.0, 0.0]]), sampler.generator())
    array([1, 0])
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    excluded: tuple[int, ...] = ()

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

    def generator(self) -> np.random.Generator:
        """Make a generator that starts from ``seed``: the same seed draws the same ids again."""
        return np.random.default_rng(self.seed)

    def sample(
        self, logits: npt.NDArray[Any], generator: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Draw one id for each row of ``logits``.

        Takes ``B`` uniform numbers from ``generator``, one a row (none at temperature 0): a row's
        id depends on its own logits and its own number alone.

        Shapes: logits [B, V], float32 or float64, -inf where a token is excluded; returns [B].

        Raises:
            TypeError: the logits are not floating-point numbers.
            ValueError: the logits are not [B, V] with V > 0; or a row has NaN, +inf or only -inf,
                which is so where all ids that are not excluded are impossible.
            IndexError: an id that is excluded is none of the V.
        """
        if self.excluded:
            logits = np.array(logits)
            logits[:, list(self.excluded)] = -np.inf
        count = len(logits) if logits.ndim else 0
        return engine.sample(
            logits, self.uniforms(generator, count), self.temperature, self.top_k, self.top_p
        )

    def uniforms(self, generator: np.random.Generator, *shape: int) -> npt.NDArray[np.float64]:
        """The numbers that draws of this shape take from a generator; at temperature 0 it is zeros.

        >>> sampler = Sampler(seed=1)
        >>> sampler.uniforms(sampler.generator(), 2)
        array([0.51182162, 0.9504637 ])
        """
        return np.zeros(shape) if self.temperature == 0 else generator.random(shape)
