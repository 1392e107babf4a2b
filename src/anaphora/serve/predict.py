"""Predictions of classifiers, taggers, regressors and translators, for all that waits at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anaphora.data import DataError, located, split_words
from anaphora.serve.errors import RequestError
from anaphora.serve.inside import MOST_STEPS, inside
from anaphora.serve.models import ServedModel
from anaphora.serve.worker import Worker

_LOGGER = logging.getLogger(__name__)

_TOGETHER = 256  # inputs that are predicted together


@dataclass(eq=False)
class Prediction:
    """Inputs, and the records of their predictions.

    Attributes:
        inputs: The inputs, as `inputs_of` returns them.
        inside: Whether the record has what is inside the model too.
        records: The record of each input, when done.
        error: Why there are none.
        finished: Set when done.
        cancelled: Set it if nobody waits any more.

    >>> Prediction(["a text"]).records
    []
    """

    inputs: Sequence[Any]
    inside: bool = False
    records: Sequence[Mapping[str, Any]] = ()
    error: RequestError | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.records = list(self.records)


def inputs_of(served: ServedModel, given: Any) -> list[Any]:
    """The inputs of a request, as the model's task takes them.

    Args:
        served: The model.
        given: A text or texts; for a tagger also sentences as lists of words; for a model of series
            one [T][I], or a list of such.

    Raises:
        RequestError: they are of another kind, or the model cannot read them.
    """
    codec = served.model.codec
    if served.reads == "series":
        inputs = _series(given, len(codec.mean) if codec.mean is not None else 0)
    else:
        inputs = _texts(given, words=served.reads == "words")
    for number, one in enumerate(inputs):
        if len(one) == 0 or (isinstance(one, str) and not split_words(one)):
            continue  # its prediction is empty
        try:
            with located(f"input {number}"):
                codec.unknown_tokens(one)  # raises if it cannot be read
        except DataError as error:
            raise RequestError(str(error), param="input", code="unreadable_input") from error
    return inputs


def _texts(given: Any, words: bool) -> list[Any]:
    texts = [given] if isinstance(given, str) else given
    found: list[Any] = []
    for number, one in enumerate(texts):
        is_sentence = isinstance(one, list) and all(isinstance(word, str) for word in one)
        if not (isinstance(one, str) or (words and is_sentence)):
            raise RequestError(
                f"input[{number}] is not a text{' or a list of words' if words else ''}; this "
                f"model reads {'sentences' if words else 'texts'}",
                param="input",
            )
        if isinstance(one, str) and "\n" in one.rstrip("\n"):
            raise RequestError(
                f"input[{number}] has a line end; give its lines one by one", param="input"
            )
        if isinstance(one, str):
            found.append(split_words(one) if words else one.rstrip("\n"))
        else:
            found.append(one)
    return found


def _series(given: Any, channels: int) -> list[Any]:
    expected = (
        f"expected a series of {channels} numbers a step, [[...], [...], ...], or a list of such"
    )
    if isinstance(given, str):
        raise RequestError(
            f"input is a text, but this model reads series; {expected}", param="input"
        )
    depth, inner = 0, given
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    found = []
    for number, one in enumerate([given] if depth == 2 else given):
        place = "input" if depth == 2 else f"input[{number}]"
        try:
            series = np.array(one, np.float64)
        except (ValueError, TypeError, OverflowError):
            series = np.empty(0)
        if series.ndim != 2 or series.shape[1] != channels or _has_others(one):
            raise RequestError(f"{place} is not a series; {expected}", param="input")
        found.append(series)
    return found


def _has_others(series: Any) -> bool:
    """Whether a list of lists has something other than numbers, which NumPy would convert."""
    return any(
        isinstance(number, bool) or not isinstance(number, (int, float))
        for step in series
        for number in step
    )


def check_inside(inputs: Sequence[Any]) -> None:
    """Refuse to look inside of what is too much.

    Raises:
        RequestError: there is not one input, or it is long.
    """
    if len(inputs) != 1 or len(inputs[0]) > MOST_STEPS:
        raise RequestError(
            f"inside is for one input of at most {MOST_STEPS:,} steps; {len(inputs):,} inputs "
            f"were given, with {sum(map(len, inputs)):,} steps",
            param="inside",
        )


class Predictor(Worker[Prediction]):
    """A thread that predicts.

    Args:
        served: The model.
        max_queue: Requests that may wait.
        notify: Called in the thread with the requests that are finished.
    """

    def __init__(
        self,
        served: ServedModel,
        *,
        max_queue: int = 256,
        notify: Callable[[Sequence[Prediction]], None] = lambda finished: None,
    ) -> None:
        super().__init__(f"anaphora-{served.name}", max_queue)
        self._served, self._notify = served, notify

    def ask(self, work: Prediction) -> None:
        """Submit inputs.

        Raises:
            RequestError: as for `Worker.submit`.
        """
        self.submit([work])

    def busy(self) -> bool:
        """Whether there is work besides what waits: never."""
        return False

    def step(self) -> None:
        """Predict for what waits."""
        taken: list[Prediction] = []
        with self.lock:
            while self.waiting and sum(len(one.inputs) for one in taken) < _TOGETHER:
                if not (one := self.waiting.popleft()).cancelled:
                    taken.append(one)
        self._answer(taken)
        for one in taken:
            one.finished.set()
        self._notify(taken)

    def _answer(self, taken: Sequence[Prediction]) -> None:
        inputs = [item for one in taken for item in one.inputs]
        answer: Any = self._served.task.answer
        try:
            records = iter(
                [found.record for found in answer(self._served.options, self._served.model, inputs)]
            )
            for one in taken:
                one.records = [next(records) for _ in one.inputs]
                if one.inside and len(one.inputs[0]):
                    found = inside(self._served, one.inputs[0])
                    one.records = [{**one.records[0], "inside": found}]
        except Exception as error:
            if len(taken) > 1:  # which of them is to blame?
                for one in taken:
                    self._answer([one])
            elif taken:
                taken[0].error = _failure(error)


def _failure(error: Exception) -> RequestError:
    if isinstance(error, DataError):
        return RequestError(str(error), param="input", code="unreadable_input")
    _LOGGER.error("a prediction failed", exc_info=error)
    return RequestError(f"the prediction failed: {error}", 500, code="failed")
