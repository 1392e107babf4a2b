"""Drawing the next token from a language model's logits: temperature, top-k and nucleus."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


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
            ValueError: the logits are not [B, V] with V > 0; or a row has NaN, +inf or only -inf.
        """
        _check(logits)
        if self.temperature == 0:
            greedy: npt.NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
            return greedy
        ranked = self.top_k > 0 or self.top_p < 1

        # Weights are probabilities up to a factor; a row's likeliest token has weight 1. They are
        # float64, as a float32 sum over a large vocabulary would lose the rare tokens.
        scores = logits.astype(np.float64)  # [B, V]
        with np.errstate(over="ignore"):  # a difference too large to write is a weight of 0
            scores = (scores - scores.max(axis=1, keepdims=True)) / self.temperature
        if ranked:
            order = np.argsort(-logits, axis=1, kind="stable")  # [B, V], likeliest first
            order = order[:, : self.top_k or None]
            scores = np.take_along_axis(scores, order, axis=1)
        cumulative = np.exp(scores).cumsum(axis=1)  # [B, V or k]
        total = cumulative[:, -1:]  # [B, 1]
        if self.top_p < 1:
            # The tokens before the one that reaches top_p, which is the nucleus's last.
            last = (cumulative < self.top_p * total).sum(axis=1, keepdims=True)
            total = np.take_along_axis(cumulative, last, axis=1)

        threshold = generator.random((len(logits), 1)) * total  # [B, 1], below the total
        drawn = (cumulative <= threshold).sum(axis=1, keepdims=True)  # [B, 1]
        if ranked:
            drawn = np.take_along_axis(order, drawn, axis=1)
        ids: npt.NDArray[np.int64] = drawn[:, 0].astype(np.int64)
        return ids


def _check(logits: npt.NDArray[Any]) -> None:
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"sample: logits have shape {list(logits.shape)}; expected [B, V], V > 0")
    if not np.issubdtype(logits.dtype, np.floating):
        raise TypeError(f"sample: logits are {logits.dtype}; expected float32 or float64")
    largest = logits.max(axis=1)  # NaN if any is
    if not np.isfinite(largest).all():
        row = int(np.argmin(np.isfinite(largest)))
        problem = {-math.inf: "only -inf", math.inf: "+inf"}.get(float(largest[row]), "NaN")
        raise ValueError(
            f"sample: row {row} of the logits has {problem}; expected finite numbers, or -inf for "
            "some tokens: have the model's weights become NaN, or were all tokens excluded?"
        )
