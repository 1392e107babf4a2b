"""Plots of a language model that reads a text."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from anaphora.data import Tokenizer
from anaphora.models import LanguageModel
from anaphora.nn import Recurrent
from anaphora.plot.embeddings import embeddings
from anaphora.plot.picture import Picture
from anaphora.plot.sequences import Units, gates, recorded_values, states, text
from anaphora.plot.sequences import units as choose
from anaphora.tensor import no_grad


class Reading(NamedTuple):
    """Pictures of a language model that reads a text.

    Attributes:
        states: See `states`.
        gates: See `gates`.
        text: The text, colored by one unit.
        value: The name of the colored value, such as ``c_l0``.
        unit: The number of its unit.

    >>> empty = Picture({}, lambda figure: None)
    >>> Reading(empty, empty, empty, "c_l0", 3).unit
    3
    """

    states: Picture
    gates: Picture
    text: Picture
    value: str
    unit: int


def tokens(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    r"""The text of each id; concatenated, they are the decoded text.

    >>> from anaphora.data import WordTokenizer
    >>> tokenizer = WordTokenizer.fit(["to be or not to be"])
    >>> tokens(tokenizer, tokenizer.encode("to be"))
    ['to', ' be', '\n']
    """
    pieces: list[str] = []

    def feed() -> Iterator[int]:
        for id in ids:
            pieces.append("")
            yield int(id)

    for piece in tokenizer.stream(feed()):
        pieces[-1] += piece  # text of the last id
    return pieces


def read(
    model: LanguageModel,
    tokenizer: Tokenizer,
    what: str,
    value: str | None = None,
    unit: int | None = None,
    *,
    units: Units = "all",
    max_units: int = 24,
) -> Reading:
    """Plot the states and gates of a language model while it reads a text, from a zero state.

    Args:
        model: The model.
        tokenizer: The tokenizer that it was trained with.
        what: The text.
        value: The state or gate that colors the text, such as ``c_l0`` or ``f_l1``; by default the
            last state of the last layer.
        unit: The number of its unit, from 0; by default the first that `units` names, or the one
            with the largest variance.
        units: The units of the pictures of states and gates; see `values`.
        max_units: The maximum number of active or selective units.

    Raises:
        DataError: a token of the text is not in the vocabulary.
        ValueError: the text is empty, or there is no such value or unit.

    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit("abc")
    >>> reading = read(LanguageModel(3, hidden_size=4), tokenizer, "abacab", unit=2)
    >>> reading.value, reading.text.data["numbers"].shape
    ('c_l0', (6,))
    """
    ids = tokenizer.encode(what)
    if len(ids) == 0:
        raise ValueError("read: the text is empty")
    layer: Recurrent = model.recurrent
    with no_grad():
        x = copy.deepcopy(model.embedding).eval()(ids)  # in evaluation mode
    pieces = tokens(tokenizer, ids)
    found = recorded_values(layer, x)
    if value is None:
        value = f"{[*layer.state_shapes()][-1]}_l{layer.num_layers - 1}"
    if value not in found:
        raise ValueError(f"there is no value {value!r}; this model has {', '.join(found)}")
    array = found[value]
    if unit is None:
        is_order = units in ("all", "similar")
        unit = choose({value: array}, "active" if is_order else units, 1)[0]
    if not 0 <= unit < array.shape[1]:
        raise ValueError(f"there is no unit {unit}; those of {value} are 0 to {array.shape[1] - 1}")
    colored = text(pieces, array[:, unit], title=f"{value}, unit {unit}")
    return Reading(
        states(layer, x, labels=pieces, units=units, max_units=max_units),
        gates(layer, x, labels=pieces, units=units, max_units=max_units),
        colored,
        value,
        unit,
    )


def token_embeddings(
    model: LanguageModel, tokenizer: Tokenizer, words: Iterable[str] = ()
) -> Picture:
    """Plot the embeddings of a language model's tokens; see `embeddings`.

    Of tokens with the same text only the first is shown; those without text are not.

    Args:
        model: The model.
        tokenizer: The tokenizer that it was trained with.
        words: Tokens to show with their nearest neighbors; if empty, the first tokens.

    Raises:
        ValueError: a word is not a token of the vocabulary.

    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit("abc")
    >>> token_embeddings(LanguageModel(3, hidden_size=4), tokenizer).data["labels"]
    ['a', 'b', 'c']
    """
    first: dict[str, int] = {}
    for id in range(tokenizer.vocabulary_size):
        first.setdefault(tokenizer.decode([id]), id)
    first.pop("", None)
    vectors = np.asarray(model.embedding.weight.data)[list(first.values())]
    return embeddings(vectors, list(first), list(words))
