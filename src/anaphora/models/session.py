"""Sessions of a language model: ids as they come, and text that it goes on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import engine, nn
from anaphora.engine import PackedLayers
from anaphora.tensor import Array, as_integers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anaphora.models.language_model import LanguageModel


class LanguageModelSession(nn.Session):
    """A language model that is fed ids as they come; `LanguageModel.session` makes one.

    State, forks and threads are as for `nn.Session`.

    >>> from anaphora.models import LanguageModel
    >>> session = LanguageModel(vocabulary_size=10, hidden_size=4).session()
    >>> session.feed(7).shape, session.feed([1, 2, 3]).shape  # one id, then three
    ((10,), (3, 10))
    """

    def __init__(
        self,
        model: LanguageModel,
        batch_size: int | None,
        packed: PackedLayers | None,
        excluded: Sequence[int] = (),
    ) -> None:
        super().__init__(model.recurrent, batch_size, model, packed, (), np.int64)
        if packed is None and excluded:
            self._run = _excluding(self._run, list(excluded))

    def feed(self, inputs: Any) -> Array:
        """Read the next id, or several; the state goes on from there.

        Args:
            inputs: Integers: one id, or [T] of them; with a batch size [B], or [T, B].

        Returns:
            The scores of the ids that may follow each: [..., V].

        Raises:
            ValueError: the shape does not fit.
            TypeError: the ids are not integers.
            IndexError: an id is not in the vocabulary.
        """
        return super().feed(inputs)

    def _array(self, inputs: Any) -> Array:
        return np.asarray(inputs)

    def _converted(self, x: Array) -> Array:
        return as_integers(x, "feed: ids are integers").astype(np.int64, order="C")

    def generate(
        self,
        ids: Any,
        uniforms: ArrayLike,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> NDArray[np.int64]:
        """Read ids, then draw one id after the other, each but the last being read in its turn.

        To go on, give the last drawn id to the next call. The same numbers draw the same ids,
        however many are drawn at once; `generation.generate_ids` takes them from a seed.

        Args:
            ids: As for `feed`, at least one.
            uniforms: [length], or [length, B]: a number 0 <= u < 1 for each id to draw.
            temperature: Divides the scores; 0 takes the most likely id.
            top_k: The number of ids to draw from; 0 is all.
            top_p: The probability that the nucleus reaches, above 0 and at most 1.

        Returns:
            The drawn ids, [length] or [length, B].

        Raises:
            ValueError: a shape does not fit, a number is out of its range, or the scores are not
                numbers to draw from. The state is then as before.
            TypeError: the ids are not integers.
            IndexError: an id is not in the vocabulary.

        >>> from anaphora.models import LanguageModel
        >>> session = LanguageModel(vocabulary_size=10, hidden_size=4).session()
        >>> drawn = session.generate([3, 1, 4], np.full(20, 0.5), temperature=0.7)
        >>> drawn.shape, session.generate(drawn[-1], [0.1, 0.9]).shape
        ((20,), (2,))
        """
        read = self._checked(self._array(ids))
        numbers = np.asarray(uniforms, np.float64, order="C")
        batch = self._step
        if numbers.ndim != 1 + len(batch) or numbers.shape[1:] != batch:
            wanted = "[length]" if not batch else f"[length, {batch[0]}]"
            raise ValueError(f"generate: uniforms of shape {numbers.shape}; wanted {wanted}")
        if read.size == 0:
            raise ValueError("generate: a model needs at least one id to go on from")
        if not (temperature >= 0 and top_k >= 0 and 0 < top_p <= 1):
            raise ValueError(
                f"generate: temperature {temperature}, top_k {top_k}, top_p {top_p}; wanted "
                "temperature >= 0, top_k >= 0 and 0 < top_p <= 1"
            )
        options = (float(temperature), int(top_k), float(top_p))
        if len(numbers) == 0:
            self._run(read, self._states)
            return np.empty(numbers.shape, np.int64)
        columns = numbers.reshape(len(numbers), -1)  # [length, B]
        if self._packed is not None:
            drawn = self._packed.generate(read, self._states, columns, *options)
        else:
            drawn = self._generate_step_by_step(read, columns, *options)
        return drawn.reshape(numbers.shape)

    def _generate_step_by_step(
        self, ids: Array, uniforms: Array, *options: Any
    ) -> NDArray[np.int64]:
        states = [state.copy() for state in self._states]
        drawn = np.empty(uniforms.shape, np.int64)
        B = uniforms.shape[1]
        ids = ids.reshape(-1, B)
        for n, numbers in enumerate(uniforms):
            logits = self._run(ids, states)[-1]
            drawn[n] = engine.sample(logits, numbers, *options)
            ids = drawn[n : n + 1]
        self._states = states
        return drawn


def _excluding(
    run: Callable[[Array, list[Array]], Array], excluded: list[int]
) -> Callable[[Array, list[Array]], Array]:
    """Run as before, with scores of -inf for some ids."""

    def run_without(ids: Array, states: list[Array]) -> Array:
        scores = run(ids, states)
        scores[..., excluded] = -np.inf
        return scores

    return run_without
