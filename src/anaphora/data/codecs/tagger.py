"""The codec of taggers, and the schemes by which tags mark spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from anaphora import schema
from anaphora.data.batches import SequenceBatches, side_by_side
from anaphora.data.codecs.base import (
    Array,
    Codec,
    Column,
    UnknownShare,
    adapted_answers,
    check_names,
    numbers_of,
)
from anaphora.data.errors import DataError
from anaphora.data.labelled import check_labels
from anaphora.data.tokenizers import CharacterTokenizer, Tokenizer, WordTokenizer
from anaphora.data.tokenizers.word import UNKNOWN

UNKNOWN_WORD = 0
"""The id of words that are not in the vocabulary of a tagger."""


def span_scheme(sentences: Iterable[Sequence[str]]) -> str | None:
    """The scheme by which tags mark spans, such as names of persons.

    "BIO" (also called IOB2) if most spans start with B, "IOB1" if only spans that follow another
    directly do, "BIOES" if spans end with E, or have S if they are one word.

    Args:
        sentences: The tags of each sentence.

    Returns:
        The scheme; None if tags mark no spans, or by another scheme.

    >>> span_scheme([["B-PER", "I-PER", "O"]]), span_scheme([["I-PER", "O"]])
    ('BIO', 'IOB1')
    >>> span_scheme([["B-PER", "E-PER", "S-LOC"]]), span_scheme([["NOUN", "VERB"]])
    ('BIOES', None)
    """
    sentences = list(sentences)
    tags = {tag for sentence in sentences for tag in sentence} - {"O"}
    letters = {tag[:1] for tag in tags}
    if not tags or not letters <= set("BIES") or any(tag[1:2] != "-" for tag in tags):
        return None
    if letters & set("ES"):
        return "BIOES"
    first = Counter(
        tag[0]
        for sentence in sentences
        for before, tag in zip(["O", *sentence], sentence, strict=False)
        if before == "O" != tag
    )
    return "BIO" if first["B"] >= first["I"] else "IOB1"


class _TaggerFields(TypedDict):
    words: list[str]
    lowercase: bool
    characters: dict[str, Any] | None
    tags: list[str]
    scheme: str | None


@dataclass(frozen=True)
class TaggerCodec(Codec):
    """The codec of a tagger.

    Attributes:
        words: The vocabulary, the most frequent word first; ids start at 1, as 0 is any other word.
        lowercase: Whether words are looked up in lower case.
        characters: The tokenizer of the spelling, which keeps case; None if the model reads words
            alone.
        tags: The tags, sorted.
        scheme: The scheme by which they mark spans, such as "BIO"; see `span_scheme`.

    >>> codec = TaggerCodec(("yes", "no"), True, CharacterTokenizer.fit("yes"), ("X",))
    >>> codec.encode_words(["No", "doubt"]).tolist()
    [2, 0]
    """

    words: tuple[str, ...]
    lowercase: bool
    characters: Tokenizer | None
    tags: tuple[str, ...]
    scheme: str | None = None

    counted = "words"

    def __post_init__(self) -> None:
        ids = {word: id for id, word in enumerate(self.words, start=UNKNOWN_WORD + 1)}
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def fit(
        cls,
        training: Sequence[tuple[Sequence[str], Sequence[str]]],
        held_out: Sequence[tuple[Sequence[str], Sequence[str]]] = (),
        *,
        vocabulary_size: int | None = None,
        minimum_count: int = 1,
        lowercase: bool = False,
    ) -> TaggerCodec:
        """Fit a codec: the vocabularies to the training sentences, the tags to all sentences.

        Args:
            training: Words and their tags; at least one sentence.
            held_out: Validation sentences.
            vocabulary_size: The maximum number of words, the most frequent ones; None for all.
            minimum_count: The occurrences that a word needs to be kept.
            lowercase: Look words up in lower case.

        Raises:
            DataError: two tags look the same.
        """
        spelled = [word for words, _ in training for word in words]
        counts = Counter(word.lower() if lowercase else word for word in spelled)
        kept = sorted(
            (word for word, count in counts.items() if count >= minimum_count),
            key=lambda word: (-counts[word], word),
        )
        tags = {tag for _, its_tags in [*training, *held_out] for tag in its_tags}
        check_labels(dict.fromkeys(sorted(tags), "the files"), "tag")
        return cls(
            tuple(kept[:vocabulary_size]),
            lowercase,
            CharacterTokenizer.fit(spelled, minimum_count=2),
            tuple(sorted(tags)),
            span_scheme([its_tags for _, its_tags in [*training, *held_out]]),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags

    def with_labels_of(self, examples: Sequence[Any]) -> TaggerCodec:  # noqa: D102
        more = sorted({tag for _, its_tags in examples for tag in its_tags} - set(self.tags))
        return replace(self, tags=(*self.tags, *more))

    def encode_words(self, words: Sequence[str]) -> Array:
        """The ids of words, [T]."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        looked_up = (word.lower() if self.lowercase else word for word in words)
        return np.array([ids.get(word, UNKNOWN_WORD) for word in looked_up], np.int64)

    def encode(self, examples: Sequence[Any]) -> dict[str, Array]:  # noqa: D102
        tags = [tag for _, its_tags in examples for tag in its_tags]
        words = [word for sentence, _ in examples for word in sentence]
        arrays = {
            "words": self.encode_words(words),
            "tags": numbers_of(tags, self.tags, "tag"),
            "lengths": np.array([len(sentence) for sentence, _ in examples]),
        }
        if self.characters is not None:
            arrays["characters"] = self.characters.encode("".join(words))
            arrays["character_lengths"] = np.array([len(word) for word in words])
        return arrays

    def columns(self) -> dict[str, Column]:  # noqa: D102
        sizes = self.sizes()
        columns = {
            "words": Column("words", below=sizes["vocabulary_size"]),
            "tags": Column("words", below=sizes["num_tags"]),
            "lengths": Column("sentences", of="words"),
        }
        if self.characters is not None:
            columns["characters"] = Column("characters", below=sizes["num_characters"])
            columns["character_lengths"] = Column("words", of="characters")
        return columns

    def batches(  # noqa: D102
        self, arrays: Mapping[str, Array], batch_size: int, dtype: str
    ) -> SequenceBatches:
        ends, characters = np.cumsum(arrays["lengths"]), None
        if self.characters is not None:
            letters = np.split(arrays["characters"], np.cumsum(arrays["character_lengths"])[:-1])
            characters = [
                letters[end - length : end]
                for end, length in zip(ends, arrays["lengths"], strict=True)
            ]
        return SequenceBatches(
            np.split(arrays["words"], ends[:-1]),
            np.split(arrays["tags"], ends[:-1]),
            batch_size,
            per_step=True,
            characters=characters,
        )

    def input_batch(self, sentences: Sequence[Sequence[str]]) -> Any:
        """One batch of sentences, in order, without meaningful targets."""
        characters = None
        if (spelling := self.characters) is not None:
            characters = [[spelling.encode(word) for word in words] for words in sentences]
        return side_by_side([self.encode_words(words) for words in sentences], characters)

    def counts(self, arrays: Mapping[str, Array]) -> int:  # noqa: D102
        return len(arrays["tags"])

    def sizes(self) -> dict[str, int]:  # noqa: D102
        sizes = {"num_tags": len(self.tags), "vocabulary_size": len(self.words) + 1}
        if self.characters is not None:
            sizes["num_characters"] = self.characters.vocabulary_size
        return sizes

    def describe(self) -> str:  # noqa: D102
        return f"{len(self.tags)} tags, a vocabulary of {len(self.words):,}"

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        entries: dict[str, Sequence[str]] = {"vocabulary_size": (UNKNOWN, *self.words)}
        if self.characters is not None:
            entries["num_characters"] = self.characters.tokens_by_id()
        return entries | {"num_tags": self.tags}

    def options(self) -> dict[str, Any]:  # noqa: D102
        return {"lowercase": self.lowercase}

    def adapted(self, start: Any, vocabulary: str) -> TaggerCodec:  # noqa: D102
        if isinstance(start, TaggerCodec):
            characters = self.characters
            if start.characters is None:
                characters = None
            elif characters is not None:
                characters = characters.adapted(start.characters, vocabulary)
            tags = adapted_answers(self.tags, start.tags, vocabulary, "tag")
            words = start.words
        elif isinstance(start, WordTokenizer):
            characters, tags = self.characters, self.tags
            words = tuple(w for w in start.tokens_by_id() if w != UNKNOWN and not w.isspace())
        else:
            raise DataError(
                "a tagger reads words; the model to start from reads at level "
                f"{getattr(start, 'level', None)!r}"
            )
        if vocabulary == "new":
            words = self.words
        elif vocabulary == "extend":
            words = tuple(dict.fromkeys([*words, *self.words]))
        return TaggerCodec(words, self.lowercase, characters, tags)

    def unknown_tokens(self, input: Any) -> Counter[str]:  # noqa: D102
        if self.characters is not None:
            self.characters.encode("".join(input))
        known = self.encode_words(input) != UNKNOWN_WORD
        return Counter(word for word, is_known in zip(input, known, strict=True) if not is_known)

    def unknown_share(  # noqa: D102
        self, examples: Sequence[Any], arrays: Mapping[str, Array]
    ) -> UnknownShare:
        unknown = self.unknown_tokens([word for words, _ in examples for word in words])
        return UnknownShare(unknown, unknown.total(), len(arrays["words"]))

    def knows(self, token: str) -> bool:  # noqa: D102
        return not self.unknown_tokens([token])

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        return {
            "words": list(self.words),
            "lowercase": self.lowercase,
            "characters": None if self.characters is None else self.characters.to_dict(),
            "tags": list(self.tags),
            "scheme": self.scheme,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaggerCodec:
        """Make a codec from the result of `to_dict`; see `Codec.from_dict`."""
        fields = schema.convert(data, _TaggerFields)
        check_names("words", fields["words"], minimum=0)
        check_names("tags", fields["tags"], minimum=1)
        characters = fields["characters"]
        return cls(
            tuple(fields["words"]),
            fields["lowercase"],
            None if characters is None else Tokenizer.from_dict(characters),
            tuple(fields["tags"]),
            fields["scheme"],
        )
