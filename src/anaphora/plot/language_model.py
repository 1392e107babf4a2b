"""A language model that reads a text, seen from inside."""

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
from anaphora.plot.sequences import gates, recorded_values, states, text
from anaphora.tensor import no_grad


class Reading(NamedTuple):
    """Pictures of a language model that reads a text.

    Attributes:
        states: See `states`.
        gates: See `gates`.
        text: The text, coloured by one unit.
        value: What the colour is: a name such as ``c_l0``.
        unit: Which unit of it.

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
    r"""The text of each id by itself; joined, they are what the ids decode to.

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
        pieces[-1] += piece  # of the id that was read last
    return pieces


def read(
    model: LanguageModel,
    tokenizer: Tokenizer,
    what: str,
    value: str | None = None,
    unit: int | None = None,
) -> Reading:
    """Let a language model read a text, from a state of zeros, and show what happens in it.

    Args:
        model: The model.
        tokenizer: The one that it was trained with.
        what: The text.
        value: By what to colour the text: a state or a gate, such as ``c_l0`` or ``f_l1``; the last
            state of the last layer if None.
        unit: Which unit of it, from 0; the one that varies most over the text if None.

    Raises:
        DataError: the text has a token that the vocabulary lacks.
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
        x = copy.deepcopy(model.embedding).eval()(ids)  # whatever mode the model is in
    pieces = tokens(tokenizer, ids)
    found = recorded_values(layer, x)
    value = f"{layer.cell.states[-1]}_l{layer.num_layers - 1}" if value is None else value
    if value not in found:
        raise ValueError(f"there is no value {value!r}; this model has {', '.join(found)}")
    units = found[value]
    unit = int(units.std(axis=0).argmax()) if unit is None else unit
    if not 0 <= unit < units.shape[1]:
        raise ValueError(f"there is no unit {unit}; those of {value} are 0 to {units.shape[1] - 1}")
    coloured = text(pieces, units[:, unit], title=f"{value}, unit {unit}")
    return Reading(
        states(layer, x, labels=pieces), gates(layer, x, labels=pieces), coloured, value, unit
    )


def token_embeddings(
    model: LanguageModel, tokenizer: Tokenizer, words: Iterable[str] = ()
) -> Picture:
    """The embeddings of a language model's tokens, as `embeddings` shows them.

    Of tokens that have the same text by themselves, or none, only the first is shown.

    Args:
        model: The model.
        tokenizer: The one that it was trained with.
        words: Tokens to show with their nearest neighbours; without them, the first tokens.

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
