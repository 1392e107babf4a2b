"""Vocabularies and labels for models of others, whose files do not hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.artifact import ArtifactError
from anaphora.artifact.files import parse_json, read_bytes
from anaphora.data import (
    CharacterTokenizer,
    ClassifierCodec,
    RegressorCodec,
    TaggerCodec,
    Tokenizer,
    WordTokenizer,
)
from anaphora.data.codecs.base import check_names
from anaphora.data.codecs.tagger import span_scheme
from anaphora.data.tokenizers.character import UNKNOWN_CHARACTER
from anaphora.data.tokenizers.word import UNKNOWN
from anaphora.models import LanguageModel, SequenceClassifier, SequenceTagger

__all__ = ["give_codec", "read_names"]

_END = "<eos>"
_ALIASES = {
    UNKNOWN: ("<UNK>", "[UNK]", "UNK", "<unknown>", UNKNOWN_CHARACTER),
    _END: ("</s>", "<EOS>", "[EOS]", "<end>"),
}
"""How others write the unknown token and the end of a line."""


def give_codec(
    model: Any, vocabulary: Sequence[str] | None = None, labels: Sequence[str] | None = None
) -> None:
    """Give a model of others a codec, so that it reads texts and names its predictions.

    A vocabulary of single characters, besides the unknown token, is one of characters, another one
    of words, which are looked up in lower case if none has a capital letter. The rows of the
    embedding, and the outputs of a language model, are brought into the order of our vocabularies:
    characters are sorted, and the unknown word of a tagger is the first one.

    Args:
        model: A language model, tagger, classifier or regressor without a codec.
        vocabulary: The token of each id, of a model that reads ids. ``<unk>`` stands for tokens
            that are not in it; words need ``<eos>``, the end of a line, except those of a tagger,
            which needs ``<unk>``.
        labels: The name of each class, tag or target, of a model that predicts such.

    Raises:
        ValueError: one of both is missing, or not for this model, or does not fit it.

    >>> model = LanguageModel(vocabulary_size=3, hidden_size=4)
    >>> give_codec(model, ["b", "a", "<unk>"])
    >>> model.codec.encode("abc").tolist()
    [0, 1, 2]
    """
    what = model.kind.replace("_", " ")
    if model.codec is not None:
        raise ValueError(f"the {what} has a vocabulary or labels of its own; omit these")
    reads_ids, answers = model.embedding is not None, not isinstance(model, LanguageModel)
    for needed, given, name, why in (
        (reads_ids, vocabulary, "vocabulary", "reads ids" if reads_ids else "reads features"),
        (answers, labels, "labels", "predicts what has names" if answers else "predicts tokens"),
    ):
        if needed is (given is None):
            advice = f"give its {name} too" if needed else f"it has no {name}: omit them"
            raise ValueError(f"the {what} {why}; {advice}")
    for names, size, name in (
        (vocabulary, reads_ids and model.vocabulary_size, "vocabulary"),
        (labels, model.output.out_features, "labels"),
    ):
        if names is None:
            continue
        check_names(name, names, 1)
        if len(names) != size:
            raise ValueError(f"the {what} needs {name} of {size:,} names, not {len(names):,}")
    if isinstance(model, SequenceTagger):
        assert labels is not None
        words = () if vocabulary is None else _tagger_words(model, vocabulary)
        if not words:
            raise ValueError(f"a {what} of features has no codec; use it in Python")
        scheme = span_scheme([[label] for label in labels])
        model.codec = TaggerCodec(words, _lower(words), None, tuple(labels), scheme)
        return
    tokenizer = None if vocabulary is None else _tokenizer(model, vocabulary)
    if labels is None:
        model.codec = tokenizer
        return
    inputs: dict[str, Any] = {"tokenizer": tokenizer}
    if tokenizer is None:
        I = model.recurrent.input_size
        inputs = {"mean": np.zeros(I), "scale": np.ones(I)}
    if isinstance(model, SequenceClassifier):
        several = model.multi_label
        check_names("labels", labels, 1 if several else 2)
        model.codec = ClassifierCodec(tuple(labels), **inputs, multi_label=several)
    else:
        O = len(labels)
        model.codec = RegressorCodec(tuple(labels), np.zeros(O), np.ones(O), **inputs)


def _tokenizer(model: Any, vocabulary: Sequence[str]) -> Tokenizer:
    """The tokenizer of a vocabulary; the model's ids become its ids."""
    tokens = _named(vocabulary, UNKNOWN)
    if all(len(token) == 1 or token == UNKNOWN for token in tokens):
        characters = [UNKNOWN_CHARACTER if token == UNKNOWN else token for token in tokens]
        order = sorted(range(len(characters)), key=characters.__getitem__)
        _reorder(model, order)
        return CharacterTokenizer("".join(characters[id] for id in order))
    tokens = _named(tokens, _END)
    if _END not in tokens:
        raise ValueError(
            f"the vocabulary is one of words and has no {_END}, the end of a line, which texts of "
            f"words have here; expected {_END} or one of {', '.join(_ALIASES[_END])}"
        )
    return WordTokenizer(tokens, lowercase=_lower(tokens))


def _tagger_words(model: Any, vocabulary: Sequence[str]) -> tuple[str, ...]:
    """The words of a tagger after the unknown one, which becomes the first."""
    tokens = _named(vocabulary, UNKNOWN)
    if UNKNOWN not in tokens:
        raise ValueError(
            f"the vocabulary has no {UNKNOWN} for words that are not in it, which a tagger needs; "
            f"expected {UNKNOWN} or one of {', '.join(_ALIASES[UNKNOWN])}"
        )
    first = tokens.index(UNKNOWN)
    order = [first, *(id for id in range(len(tokens)) if id != first)]
    _reorder(model, order)
    return tuple(tokens[id] for id in order[1:])


def _named(tokens: Sequence[str], mark: str) -> list[str]:
    """The tokens with a mark as it is written here."""
    aliases = [alias for alias in _ALIASES[mark] if alias in tokens]
    if mark in tokens or not aliases:
        return list(tokens)
    return [mark if token == aliases[0] else token for token in tokens]


def _lower(words: Sequence[str]) -> bool:
    return all(word == word.lower() for word in words)


def _reorder(model: Any, order: Sequence[int]) -> None:
    """Bring the ids of a model into another order: new id k is the old id ``order[k]``."""
    parameters = [model.embedding.weight]
    if isinstance(model, LanguageModel):
        parameters += [model.output.bias] if model.tied else [*model.output.parameters()]
    for parameter in parameters:
        parameter.assign(parameter.data[list(order)])


def read_names(path: Path) -> list[str]:
    """The names in a file: a line each, or in JSON a list, or an object with a number for each.

    Raises:
        ArtifactError: the file cannot be read, or holds something else.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "tokens.json")
    ...     _ = path.write_text('{"b": 1, "a": 0}')
    ...     read_names(path)
    ['a', 'b']
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: is not UTF-8: {error}") from error
    if path.suffix.lower() != ".json":
        lines = text.split("\n")
        return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
    try:
        value = parse_json(text.encode())
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: is not valid JSON: {error}") from error
    if isinstance(value, dict) and all(type(number) is int for number in value.values()):
        names = sorted(value, key=lambda name: value[name])
        if [value[name] for name in names] == [*range(len(names))]:
            return names
        raise ArtifactError(f"{path}: its numbers are not 0 to {len(names) - 1}, each once")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ArtifactError(
            f"{path}: expected a list of names, or an object with a number for each, as JSON"
        )
    return value
