"""Looking inside a language model while it reads a text: states, gates, guesses, gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from anaphora import nn
from anaphora.generation.reading import token_text
from anaphora.generation.scoring import log_probabilities, most_likely
from anaphora.serve import messages
from anaphora.serve.batcher import TokenNames
from anaphora.serve.completions import encoded
from anaphora.serve.errors import RequestError
from anaphora.serve.models import ServedModel
from anaphora.tensor import Array, Tensor, no_grad

MOST_TOKENS = 4096
"""Tokens of a text, all of whose states are kept in memory while they are looked at."""

_MOST_LOGITS = 1 << 24  # at a time


def inspect(served: ServedModel, request: messages.InspectRequest) -> messages.Inspection:
    """Read a text, and return what was asked for; see `messages.InspectRequest`.

    The connectivity of step t to an earlier step s is

        || d max_k logit_k(t) / d x_s ||      x_s: the embedding of token s

    (Madsen 2019, "Visualizing memorization in RNNs").

    Raises:
        RequestError: the text cannot be read or is too long, or there is no such value, unit or
            position.
    """
    model, tokenizer = served.model, served.model.codec
    _, ids = encoded(tokenizer, request.prompt)
    if len(ids) > MOST_TOKENS:
        raise RequestError(
            f"the prompt has {len(ids):,} tokens; at most {MOST_TOKENS:,} can be inspected",
            param="prompt",
        )
    names = TokenNames(tokenizer)
    layer: nn.Recurrent = model.recurrent
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        outputs, _, recorded = layer.record(model.embedding(np.array(ids)))
    available = {name: _described(layer, name, array) for name, array in recorded.items()}
    top = 5 if request.top is None else request.top
    previous = [None, *ids[:-1]]
    logprobs: list[float | None] = [None]
    guesses = []
    for scores, id in zip(_scores(model, outputs), [*ids[1:], None], strict=True):
        guesses.append(
            [
                messages.NextToken(k, token_text(tokenizer, k), float(np.exp(scores[k])))
                for k in most_likely(scores, top)
            ]
        )
        if id is not None:
            logprobs.append(float(scores[id]))
    return messages.Inspection(
        model=served.name,
        ids=ids,
        tokens=[names(id, before) for id, before in zip(ids, previous, strict=True)],
        logprobs=logprobs,
        available=list(available.values()),
        values={
            name: _chosen(recorded, name, request.units).tolist() for name in request.values or ()
        },
        next=guesses,
        connectivity=None
        if request.connectivity is None
        else connectivity(model, ids, request.connectivity).tolist(),
    )


def connectivity(model: Any, ids: list[int], position: int) -> Array:
    """The norm of the gradient of the largest logit after a position, by each embedding before it.

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


def _scores(model: Any, outputs: Tensor) -> Iterator[Array]:
    """Yield the log-probabilities [V] of the next token after each step, computed in blocks."""
    steps = max(1, _MOST_LOGITS // model.vocabulary_size)
    for start in range(0, len(outputs), steps):
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            logits = model.output(outputs[start : start + steps]).data
        yield from log_probabilities(logits)


def _described(layer: nn.Recurrent, name: str, array: Array) -> messages.Value:
    value, _, number = name.rpartition("_l")
    kind: Any = "state" if value in layer.cell.states else "gate"
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
