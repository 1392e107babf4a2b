"""Sessions of a language model: reading ids step by step, and generating."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import engine, nn
from anaphora.tensor import Array

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anaphora.models.language_model import LanguageModel


class LanguageModelSession(nn.Session):
    """A language model that is fed ids step by step; `LanguageModel.session` makes one.

    State, forks and threads are as for `nn.Session`.

    Args:
        model: The model.
        batch_size: B; None for one text, whose arrays have no batch axis.
        excluded: Ids whose scores are -inf, so that `generate` never samples them.
        run: As for `nn.Session`, for a model other than embedding, recurrent layers and linear
            layer; None for these.
        weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

    Raises:
        ValueError: the batch size is below 1, or the weights are not of these two.
        IndexError: an excluded id is not in the vocabulary.

    >>> from anaphora.models import LanguageModel
    >>> session = LanguageModel(vocabulary_size=10, hidden_size=4).session()
    >>> session.feed(7).shape, session.feed([1, 2, 3]).shape  # one id, then three
    ((10,), (3, 10))
    """

    def __init__(
        self,
        model: LanguageModel,
        batch_size: int | None = None,
        excluded: Sequence[int] = (),
        run: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None,
        *,
        weights: str | None = None,
    ) -> None:
        parts: dict[str, Any] = {"run": run}
        if run is None:
            weight, bias = model.output.weight, cast(Any, model.output.bias)
            if excluded:
                masked = np.zeros(len(weight), weight.dtype) if bias is None else bias.data.copy()
                masked[list(excluded)] = -np.inf
                bias = masked
            parts = {"table": model.embedding.weight, "output": (weight, bias)}
        elif excluded:
            parts["after"] = functools.partial(_excluding, list(excluded))
        super().__init__(
            model.recurrent, batch_size, model, step=(), dtype=np.int64, weights=weights, **parts
        )

    def feed(self, inputs: Any) -> Array:
        """Read the next id, or several, and advance the state.

        Args:
            inputs: Integers: one id, or [T]; with a batch size [B], or [T, B].

        Returns:
            The scores of the next id after each, [..., V].

        Raises:
            ValueError: the shape does not match.
            TypeError: the ids are not integers.
            IndexError: an id is not in the vocabulary.
        """
        return super().feed(inputs)

    def read(self, ids: Any) -> None:
        """Read ids like `feed`, without scoring the next ones, which takes less time.

        Args:
            ids: As for `feed`.

        Raises:
            ValueError, TypeError, IndexError: as for `feed`.
            RuntimeError: another thread is using this session.

        >>> from anaphora.models import LanguageModel
        >>> session = LanguageModel(vocabulary_size=10, hidden_size=4).session()
        >>> other = session.fork()
        >>> session.read([3, 1, 4])
        >>> bool((session.feed(1) == other.feed([3, 1, 4, 1])[-1]).all())
        True
        """
        read = self._checked(self._array(ids))
        with self._changing("read"):
            if self._packed is not None and read.size:
                # A generation scores the last step alone, and does not read the id that it samples.
                uniforms = np.zeros((1, self.batch_size or 1))
                try:
                    self._packed.generate(read, self._states, uniforms, 0.0, 0, 1.0)
                    return
                except ValueError:  # scores are NaN, which `feed` does not refuse either
                    pass
            self._run(read, self._states)

    def generate(
        self,
        ids: Any,
        uniforms: ArrayLike,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> NDArray[np.int64]:
        """Read ids, then sample ids one by one, reading each but the last.

        To continue, pass the last id to the next call. The same uniforms sample the same ids, in
        one call or several; `generation.generate_ids` makes them from a seed.

        Args:
            ids: As for `feed`, at least one.
            uniforms: [length], or [length, B]: a number 0 <= u < 1 for each id to sample.
            temperature: Divides the scores; 0 takes the most likely id.
            top_k: The number of most likely ids to sample from; 0 for all.
            top_p: The probability mass of the nucleus, above 0 and at most 1.

        Returns:
            The sampled ids, [length] or [length, B].

        Raises:
            ValueError: a shape does not match, a number is out of range, or the scores contain NaN.
                The state does not change.
            TypeError: the ids are not integers.
            IndexError: an id is not in the vocabulary.
            RuntimeError: another thread is using this session.

        >>> from anaphora.models import LanguageModel
        >>> session = LanguageModel(vocabulary_size=10, hidden_size=4).session()
        >>> sampled = session.generate([3, 1, 4], np.full(20, 0.5), temperature=0.7)
        >>> sampled.shape, session.generate(sampled[-1], [0.1, 0.9]).shape
        ((20,), (2,))
        """
        read = self._checked(self._array(ids))
        numbers = np.asarray(uniforms, np.float64, order="C")
        batch = self._step
        if numbers.ndim != 1 + len(batch) or numbers.shape[1:] != batch:
            expected = "[length]" if not batch else f"[length, {batch[0]}]"
            raise ValueError(f"generate: uniforms of shape {numbers.shape}; expected {expected}")
        if read.size == 0:
            raise ValueError("generate: a model needs at least one id to continue from")
        if not (temperature >= 0 and top_k >= 0 and 0 < top_p <= 1):
            raise ValueError(
                f"generate: temperature {temperature}, top_k {top_k}, top_p {top_p}; expected "
                "temperature >= 0, top_k >= 0 and 0 < top_p <= 1"
            )
        options = (float(temperature), int(top_k), float(top_p))
        with self._changing("generate"):
            if len(numbers) == 0:
                self._run(read, self._states)
                return np.empty(numbers.shape, np.int64)
            columns = numbers.reshape(len(numbers), -1)  # [length, B]
            if self._packed is not None:
                sampled = self._packed.generate(read, self._states, columns, *options)
            else:
                sampled = self._generate_step_by_step(read, columns, *options)
        return sampled.reshape(numbers.shape)

    def _generate_step_by_step(
        self, ids: Array, uniforms: Array, *options: Any
    ) -> NDArray[np.int64]:
        states = [state.copy() for state in self._states]
        sampled = np.empty(uniforms.shape, np.int64)
        B = uniforms.shape[1]
        ids = ids.reshape(-1, B)
        for n, numbers in enumerate(uniforms):
            logits = self._run(ids, states)[-1]
            sampled[n] = engine.sample(logits, numbers, *options)
            ids = sampled[n : n + 1]
        self._states = states
        return sampled


def _excluding(
    excluded: list[int], model: LanguageModel, scores: Array, memory: dict[str, Array]
) -> Array:
    """The scores, with -inf for excluded ids."""
    scores = scores.copy()
    scores[..., excluded] = -np.inf
    return scores
