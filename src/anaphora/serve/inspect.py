"""Looking inside a language model while it reads a text: states, gates, guesses, gradients."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from anaphora import nn
from anaphora.generation.reading import token_text
from anaphora.generation.scoring import log_probabilities, most_likely
from anaphora.nn.states import as_tuple, from_tuple
from anaphora.serve import messages
from anaphora.serve.batcher import TokenNames
from anaphora.serve.completions import encoded
from anaphora.serve.errors import RequestError
from anaphora.serve.models import ServedModel
from anaphora.serve.prefix import PrefixCache
from anaphora.serve.switching import places, switches
from anaphora.tensor import Array, Tensor, no_grad

MOST_TOKENS = 4096
"""Tokens of a text, all of whose states are kept in memory while they are looked at."""

MOST_NUMBERS = 1 << 22
"""Numbers of states and gates in an answer."""

_MOST_LOGITS = 1 << 24  # at a time


class Inspector:
    """Looks inside one model, and keeps states: what was read is not read again.

    Args:
        served: A language model.
        cache_bytes: The limit of its cache of states.
    """

    def __init__(self, served: ServedModel, cache_bytes: int = 8 << 20) -> None:
        self._served = served
        self._cache = PrefixCache(cache_bytes)
        self._lock = threading.Lock()  # inspections run in several threads

    def inspect(self, request: messages.InspectRequest) -> messages.Inspection:
        """Read a text, and return what was asked for; see `messages.InspectRequest`.

        Raises:
            RequestError: the text cannot be read or is too long, or there is no such value, unit or
                position.
        """
        model, tokenizer = self._served.model, self._served.model.codec
        shown, ids = encoded(tokenizer, request.prompt)
        start = min(request.start or 0, len(ids) - 1)
        if request.connectivity is not None and len(ids) > MOST_TOKENS:
            raise RequestError(
                f"the prompt has {len(ids):,} tokens; connectivity is for at most {MOST_TOKENS:,}",
                param="connectivity",
            )
        first = max(0, start - 1)  # the scores after it are those of the token at start
        if len(ids) - first > MOST_TOKENS:
            raise RequestError(
                f"the prompt has {len(ids) - start:,} tokens; at most {MOST_TOKENS:,} can be "
                "inspected at a time; give start",
                param="prompt",
            )
        names = TokenNames(tokenizer)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            outputs, recorded = self._record(ids, first)
        top = 5 if request.top is None else request.top
        logprobs: list[float | None] = [] if start else [None]
        guesses = []
        following = [*ids[first + 1 :], None]
        for t, (scores, id) in enumerate(zip(_scores(model, outputs), following, strict=True)):
            if id is not None:
                logprobs.append(float(scores[id]))
            if first + t >= start:
                guesses.append(
                    [
                        messages.NextToken(
                            k,
                            token_text(tokenizer, k),
                            names(k, ids[first + t]),
                            float(np.exp(scores[k])),
                        )
                        for k in most_likely(scores, top)
                    ]
                )
        previous = [None, *ids[:-1]]
        values = {
            name: _chosen(recorded, name, request.units)[start - first :]
            for name in request.values or ()
        }
        if (count := sum(array.size for array in values.values())) > MOST_NUMBERS:
            raise RequestError(
                f"values are {count:,} numbers; at most {MOST_NUMBERS:,} can be given at a time; "
                "give units, or start",
                param="values",
            )
        return messages.Inspection(
            model=self._served.name,
            ids=ids,
            start=start,
            opening=len(ids) - len(shown),
            tokens=[names(ids[t], previous[t]) for t in range(start, len(ids))],
            logprobs=logprobs,
            available=[_described(model.recurrent, *pair) for pair in recorded.items()],
            values={name: array.tolist() for name, array in values.items()},
            next=guesses,
            connectivity=None
            if request.connectivity is None
            else connectivity(model, ids, request.connectivity).tolist(),
            span=None if request.span is None else _span(recorded, request.span, first),
        )

    def _record(self, ids: list[int], first: int) -> tuple[Tensor, dict[str, Array]]:
        """Read ids, and record from a position on: outputs and values [T - first, ...].

        The state before the last id is kept, for a text that goes on as this one does.
        """
        embedding, layer = self._served.model.embedding, self._served.model.recurrent
        with self._lock:
            length, kept, _ = self._cache.find(ids[:first])
        state = None if kept is None else from_tuple([kept[name] for name in layer.state_shapes()])
        if length < first:
            _, state = layer(embedding(np.array(ids[length:first])), state)
        last = len(ids) - 1
        if first == last:
            outputs, _, recorded = layer.record(embedding(np.array(ids[last:])), state)
            return outputs, recorded
        before, state, values = layer.record(embedding(np.array(ids[first:last])), state)
        arrays = [one.data for one in as_tuple(state)]
        with self._lock:
            self._cache.add(ids[:last], dict(zip(layer.state_shapes(), arrays, strict=True)))
        outputs, _, recorded = layer.record(embedding(np.array(ids[last:])), state)
        both = {name: np.concatenate([values[name], recorded[name]]) for name in recorded}
        return Tensor(np.concatenate([before.data, outputs.data])), both


def connectivity(model: Any, ids: list[int], position: int) -> Array:
    """The norm of the gradient of the largest logit after a position, by each embedding before it.

    The connectivity of step t to an earlier step s is

        || d max_k logit_k(t) / d x_s ||      x_s: the embedding of token s

    (Madsen 2019, "Visualizing memorization in RNNs").

    Args:
        model: A language model in evaluation mode.
        ids: [T] the ids that it reads.
        position: 0 to T - 1.

    Returns:
        [T] norms; 0 after the position.

    Raises:
        RequestError: there is no such position.

    >>> from anaphora.models import LanguageModel
    >>> model = LanguageModel(vocabulary_size=5, hidden_size=4).eval()
    >>> (connectivity(model, [1, 2, 3], position=1) > 0).tolist()
    [True, True, False]
    """
    if position >= len(ids):
        raise RequestError(
            f"connectivity is {position}; expected a position of 0 to {len(ids) - 1}",
            param="connectivity",
        )
    if model.in_int8:  # what is computed in 8 bits has no gradient; the rounded weights have
        same = {id(parameter): parameter for parameter in model.parameters()}
        model = copy.deepcopy(model, same).use_int8(False)
    with no_grad():
        embedded = model.embedding(np.array(ids[: position + 1])).data
    x = Tensor(embedded, requires_grad=True)
    outputs, _ = model.recurrent(x)
    logits = model.output(outputs[-1])
    logits[int(logits.data.argmax())].backward()
    norms = np.zeros(len(ids), embedded.dtype)
    norms[: position + 1] = np.sqrt((np.asarray(x.grad) ** 2).sum(axis=-1))
    return norms


def _span(recorded: dict[str, Array], span: list[int], first: int) -> messages.Span:
    """What units do in a span of positions, given what was recorded from a position on."""
    start, end = (position - first for position in span)
    length = len(next(iter(recorded.values())))
    if not 0 <= start < end <= length or end - start == length:
        raise RequestError(
            f"span is {span}; expected a part, not all, of the positions {first} to "
            f"{first + length}",
            param="span",
        )
    units = switches(recorded, start, end)
    return messages.Span(
        [messages.Switch(one.value, one.unit, one.contrast) for one in units],
        [
            messages.Place(one.start + first, one.end + first, one.share)
            for one in places(recorded, units, start, end)
        ],
    )


def _scores(model: Any, outputs: Tensor) -> Iterator[Array]:
    """Yield the log-probabilities [V] of the next token after each step, computed in blocks."""
    steps = max(1, _MOST_LOGITS // model.vocabulary_size)
    for start in range(0, len(outputs), steps):
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            logits = model.output(outputs[start : start + steps]).data
        yield from log_probabilities(logits)


def _described(layer: nn.Recurrent, name: str, array: Array) -> messages.Value:
    value, _, number = name.rpartition("_l")
    kind: Any = "state" if value in layer.state_shapes() else "gate"
    return messages.Value(name, kind, int(number), array.shape[-1])


def _chosen(recorded: dict[str, Array], name: str, units: list[int] | None) -> Array:
    """The units [T, K] of a value."""
    if name not in recorded:
        raise RequestError(
            f"values has {name[:80]!r}; this model has {', '.join(recorded)}", param="values"
        )
    array = recorded[name]
    if units is None:
        return array
    if any(unit >= array.shape[-1] for unit in units):
        raise RequestError(
            f"units has {max(units)}; {name} has the units 0 to {array.shape[-1] - 1}",
            param="units",
        )
    return array[:, units]
