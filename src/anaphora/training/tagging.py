"""Training a tagger of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from anaphora import ops, schema
from anaphora.data import (
    CharacterTokenizer,
    DataError,
    Tokenizer,
    check_labels,
    located,
    read_conllu,
    split_words,
    uncompressed_name,
)
from anaphora.data.batches import SequenceBatches, side_by_side
from anaphora.models import SequenceTagger
from anaphora.tensor import Array, no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.options import ExampleOptions, RecurrentOptions, option
from anaphora.training.task import (
    Column,
    ExampleTask,
    Paths,
    TaskOptions,
    check_names,
    numbers_of,
)

Example = tuple[list[str], list[str]]  # the words of a sentence, and their tags

UNKNOWN = 0  # the id of words that the vocabulary lacks
_PREDICTION_BATCH = 64


@dataclass(frozen=True)
class TaggedOptions(ExampleOptions):
    """How sentences with tags are read.

    >>> TaggedOptions(tag_column=2).lowercase
    False
    """

    tag_column: int = option(
        4, "Column of the tags, from 1: 4 or 5 of CoNLL-U, or 2 of lines of a word and its tag."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tag_column < 2:
            raise ValueError(f"tag_column is {self.tag_column}; it must be 2 or more")


@dataclass(frozen=True)
class TaggerShape(RecurrentOptions):
    """The shape of a tagger with a layer that reads the characters of each word.

    >>> TaggerShape().character_hidden_size
    32
    """

    character_embedding_size: int = option(16, "Size of the embeddings of characters.")
    character_hidden_size: int = option(
        32, "Units of each direction of the layer that reads characters."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("character_embedding_size", "character_hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class TaggerOptions(TaskOptions):
    """All options of a training of a tagger.

    >>> TaggerOptions.make(tag_column=5).text.tag_column
    5
    """

    text: TaggedOptions
    model: TaggerShape

    defaults = {  # noqa: RUF012 - it is never changed
        "minimum_count": 2,
        "lowercase": True,
        "hidden_size": 128,
        "dropout": 0.4,
        "forget_bias": 1.0,
        "character_embedding_size": 32,
        "character_hidden_size": 64,
        "learning_rate": 0.004,
        "schedule": "cosine",
        "max_steps": 2000,
        "evaluate_every": 200,
    }
    sizes = ("vocabulary_size", "input_size", "num_tags", "num_characters")


class _Description(TypedDict):
    words: list[str]
    lowercase: bool
    characters: dict[str, Any]
    tags: list[str]


@dataclass(frozen=True)
class TaggerVocabulary:
    """What the numbers of a tagger stand for.

    Attributes:
        words: The words that it knows, the most frequent first; their ids begin at 1, as 0 is any
            other word.
        lowercase: Whether words are looked up in lower case.
        characters: Of the spelling, whose case stays.
        tags: The tags, sorted.

    >>> vocabulary = TaggerVocabulary(("yes", "no"), True, CharacterTokenizer.fit("yes"), ("X",))
    >>> vocabulary.encode_words(["No", "doubt"]).tolist()
    [2, 0]
    """

    words: tuple[str, ...]
    lowercase: bool
    characters: Tokenizer
    tags: tuple[str, ...]

    def __post_init__(self) -> None:
        ids = {word: id for id, word in enumerate(self.words, start=UNKNOWN + 1)}
        object.__setattr__(self, "_ids", ids)

    def encode_words(self, words: Sequence[str]) -> Array:
        """The ids of words, [T]."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        looked_up = (word.lower() if self.lowercase else word for word in words)
        return np.array([ids.get(word, UNKNOWN) for word in looked_up], np.int64)

    def to_dict(self) -> dict[str, Any]:
        """All that `from_dict` needs, for a JSON file."""
        return {
            "words": list(self.words),
            "lowercase": self.lowercase,
            "characters": self.characters.to_dict(),
            "tags": list(self.tags),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaggerVocabulary:
        """What `to_dict` described.

        Raises:
            ValueError: the data is damaged; the message names the field.
        """
        description = schema.convert(data, _Description)
        check_names("words", description["words"], least=0)
        check_names("tags", description["tags"], least=1)
        return cls(
            tuple(description["words"]),
            description["lowercase"],
            Tokenizer.from_dict(description["characters"]),
            tuple(description["tags"]),
        )


class TagTask(ExampleTask):
    """A tag for each word of a sentence.

    >>> TagTask().name
    'tag'
    """

    name = "tag"
    kind = SequenceTagger.task
    model_type = SequenceTagger
    options = TaggerOptions
    unit = "words"

    def check(self, options: TaggerOptions) -> None:  # noqa: D102
        sizes = {"num_tags": 2, "vocabulary_size": 2, "num_characters": 2}
        self.model({**options.model.to_dict(), **sizes})

    def read_files(self, options: TaggedOptions, paths: Paths) -> list[Example]:  # noqa: D102
        if not paths:
            raise DataError(
                "nothing was given to tag: name .conllu files, or files with a word and its tag a "
                "line, a tab between them, and --tag-column 2"
            )
        more = options.tag_column, options.encoding
        return [s for path in paths for s in read_conllu(path, *more)]

    def fit(  # noqa: D102
        self, options: TaggerOptions, training: list[Example], held_out: list[Example]
    ) -> TaggerVocabulary:
        text = options.text
        spelled = [word for words, _ in training for word in words]
        counts = Counter(word.lower() if text.lowercase else word for word in spelled)
        kept = sorted(
            (word for word, count in counts.items() if count >= text.minimum_count),
            key=lambda word: (-counts[word], word),
        )
        tags = {tag for _, of_words in [*training, *held_out] for tag in of_words}
        check_labels(dict.fromkeys(sorted(tags), "the files"), "tag")
        return TaggerVocabulary(
            tuple(kept[: text.vocabulary_size]),
            text.lowercase,
            CharacterTokenizer.fit(spelled, minimum_count=2),
            tuple(sorted(tags)),
        )

    def encode(  # noqa: D102
        self, vocabulary: TaggerVocabulary, examples: list[Example]
    ) -> dict[str, Array]:
        tags = [tag for _, of_words in examples for tag in of_words]
        words = [word for of_sentence, _ in examples for word in of_sentence]
        return {
            "words": vocabulary.encode_words(words),
            "tags": numbers_of(tags, vocabulary.tags, "tag"),
            "lengths": np.array([len(of_sentence) for of_sentence, _ in examples]),
            "characters": vocabulary.characters.encode("".join(words)),
            "character_lengths": np.array([len(word) for word in words]),
        }

    def columns(self, vocabulary: TaggerVocabulary) -> dict[str, Column]:  # noqa: D102
        sizes = self.sizes(vocabulary)
        return {
            "words": Column("words", below=sizes["vocabulary_size"]),
            "tags": Column("words", below=sizes["num_tags"]),
            "lengths": Column("sentences", of="words"),
            "characters": Column("characters", below=sizes["num_characters"]),
            "character_lengths": Column("words", of="characters"),
        }

    def example_batches(  # noqa: D102
        self,
        vocabulary: TaggerVocabulary,
        arrays: Mapping[str, Array],
        batch_size: int,
        dtype: str,
    ) -> SequenceBatches:
        ends = np.cumsum(arrays["lengths"])
        letters = np.split(arrays["characters"], np.cumsum(arrays["character_lengths"])[:-1])
        return SequenceBatches(
            np.split(arrays["words"], ends[:-1]),
            np.split(arrays["tags"], ends[:-1]),
            batch_size,
            per_step=True,
            characters=[
                letters[end - length : end]
                for end, length in zip(ends, arrays["lengths"], strict=True)
            ],
        )

    def sizes(self, vocabulary: TaggerVocabulary) -> dict[str, Any]:  # noqa: D102
        return {
            "num_tags": len(vocabulary.tags),
            "vocabulary_size": len(vocabulary.words) + 1,
            "num_characters": vocabulary.characters.vocabulary_size,
        }

    def vocabulary(self, data: Mapping[str, Any]) -> TaggerVocabulary:  # noqa: D102
        return TaggerVocabulary.from_dict(data)

    def read_inputs(  # noqa: D102
        self, options: TaggedOptions, path: str
    ) -> Iterator[tuple[str, Any]]:
        if uncompressed_name(path).lower().endswith((".conllu", ".tsv")):
            sentences = read_conllu(path, options.tag_column, options.encoding)
            for number, (words, _) in enumerate(sentences, start=1):
                yield f"{path}, sentence {number:,}", words
        else:
            for place, line in super().read_inputs(options, path):
                yield place, split_words(line)

    def unknown_tokens(  # noqa: D102
        self, vocabulary: TaggerVocabulary, one: Sequence[str]
    ) -> Counter[str]:
        vocabulary.characters.encode("".join(one))
        known = vocabulary.encode_words(one) != UNKNOWN
        return Counter(word for word, is_known in zip(one, known, strict=True) if not is_known)

    def unknown_share(  # noqa: D102
        self, vocabulary: TaggerVocabulary, examples: list[Example], arrays: Mapping[str, Array]
    ) -> tuple[Counter[str], int, int]:
        unknown = self.unknown_tokens(vocabulary, [word for words, _ in examples for word in words])
        return unknown, unknown.total(), len(arrays["words"])

    def describe_data(  # noqa: D102
        self, options: TaggerOptions, vocabulary: TaggerVocabulary, folder: Path
    ) -> str:
        training, validation = self.counts(folder, "tags")
        return (
            f"{training:,} words to train on, {validation:,} to validate on, "
            f"{len(vocabulary.tags)} tags, a vocabulary of {len(vocabulary.words):,}"
        )


def tag(
    model: SequenceTagger, vocabulary: TaggerVocabulary, sentences: Sequence[Sequence[str]]
) -> Iterator[list[tuple[str, float]]]:
    """Yield for each sentence the likeliest tag of each word, and its probability.

    Args:
        model: A tagger that is ready to evaluate.
        vocabulary: Its vocabulary.
        sentences: Their words.

    Raises:
        DataError: a word has a character that the vocabulary lacks, and nothing stands for it.
        ValueError: the model's scores are not finite.

    >>> vocabulary = TaggerVocabulary(("ab",), True, CharacterTokenizer.fit("ab"), ("X", "Y"))
    >>> model = SequenceTagger(2, hidden_size=3, vocabulary_size=2, num_characters=2).eval()
    >>> [[len(of_word) for of_word in of_words] for of_words in tag(model, vocabulary, [["ab"]])]
    [[2]]
    """
    for start in range(0, len(sentences), _PREDICTION_BATCH):
        part = sentences[start : start + _PREDICTION_BATCH]
        characters = []
        for number, words in enumerate(part, start=start + 1):
            with located(f"sentence {number:,}"):
                characters.append([vocabulary.characters.encode(word) for word in words])
        batch = side_by_side([vocabulary.encode_words(words) for words in part], characters)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            shares = ops.softmax(model.scores(batch)).data  # [T, B, C]
        check_scores("tag", shares)
        for row, words in enumerate(part):
            best = shares[: len(words), row].argmax(axis=-1)
            yield [(vocabulary.tags[k], float(shares[t, row, k])) for t, k in enumerate(best)]
