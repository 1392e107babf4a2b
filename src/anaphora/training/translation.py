"""Training an encoder-decoder that translates sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.data import (
    DataError,
    PairBatches,
    Tokenizer,
    WordTokenizer,
    located,
    pair_batches,
    read_lines,
)
from anaphora.models import EncoderDecoder
from anaphora.tensor import Array
from anaphora.training.options import (
    ExampleOptions,
    ModelOptions,
    RecurrentOptions,
    TextOptions,
    option,
    same_as,
)
from anaphora.training.task import Column, ExampleTask, Paths, TaskOptions

Example = tuple[str, str]  # a sentence, and its translation

SIDES = ("source", "target")


@dataclass(frozen=True)
class PairOptions(ExampleOptions):
    """How sentences and their translations are read.

    >>> PairOptions(split="punctuation").lowercase
    False
    """

    split: str = same_as(TextOptions, "split")


@dataclass(frozen=True)
class TranslatorShape(RecurrentOptions):
    """The shape of an encoder-decoder.

    >>> TranslatorShape(attention="additive").tied
    False
    """

    attention: str | None = option(
        "multiplicative",
        "How the decoder attends to the source.",
        ("multiplicative", "additive", "none"),
    )
    tied: bool = same_as(ModelOptions, "tied")

    def __post_init__(self) -> None:
        if self.attention is None:  # as the model has it
            object.__setattr__(self, "attention", "none")
        super().__post_init__()

    def arguments(self) -> dict[str, Any]:
        """The arguments of the model, which has None for no attention."""
        return {**self.to_dict(), "attention": None if self.attention == "none" else self.attention}


@dataclass(frozen=True)
class TranslatorOptions(TaskOptions):
    """All options of a training of an encoder-decoder.

    >>> TranslatorOptions.make(tied=False).model.attention
    'multiplicative'
    """

    text: PairOptions
    model: TranslatorShape

    defaults = {  # noqa: RUF012 - it is never changed
        "minimum_count": 2,
        "hidden_size": 256,
        "dropout": 0.3,
        "initialization": "0.1",
        "forget_bias": 1.0,
        "tied": True,
        "batch_size": 64,
        "learning_rate": 0.002,
        "schedule": "cosine",
        "max_steps": 5000,
        "evaluate_every": 500,
    }
    sizes = ("source_vocabulary_size", "vocabulary_size", "end_id")


class PairVocabulary(dict[str, WordTokenizer]):
    """The tokenizers of the source and the target, by these names."""

    def to_dict(self) -> dict[str, Any]:
        """The tokenizers as plain values."""
        return {name: tokenizer.to_dict() for name, tokenizer in self.items()}


class TranslateTask(ExampleTask):
    """A sentence for a sentence.

    >>> TranslateTask().name
    'translate'
    """

    name = "translate"
    kind = EncoderDecoder.task
    model_type = EncoderDecoder
    options = TranslatorOptions
    unit = "words"

    def check(self, options: TranslatorOptions) -> None:  # noqa: D102
        sizes = {"source_vocabulary_size": 2, "vocabulary_size": 2}
        self.model({**options.model.arguments(), **sizes})

    def read_files(self, options: PairOptions, paths: Paths) -> list[Example]:  # noqa: D102
        if len(paths) != 2:
            raise DataError(
                f"translating needs two files, the source and the target, but {len(paths)} came"
            )
        source, target = (read_lines(path, options.encoding) for path in paths)
        if len(source) != len(target):
            raise DataError(
                f"{paths[0]} has {len(source):,} lines, but {paths[1]} has {len(target):,}; give "
                "files whose lines belong together, one by one"
            )
        return list(zip(source, target, strict=True))

    def fit(  # noqa: D102
        self, options: TranslatorOptions, training: list[Example], held_out: list[Example]
    ) -> PairVocabulary:
        text, split = options.text, options.text.split
        return PairVocabulary(
            {
                name: WordTokenizer.fit(
                    [f"{line}\n" for line in lines],
                    text.vocabulary_size,
                    text.minimum_count,
                    text.lowercase,
                    split,  # type: ignore[arg-type]
                )
                for name, lines in zip(SIDES, zip(*training, strict=True), strict=True)
            }
        )

    def encode(  # noqa: D102
        self, vocabulary: PairVocabulary, examples: list[Example]
    ) -> dict[str, Array]:
        arrays = {}
        for name, lines in zip(SIDES, zip(*examples, strict=True), strict=True):
            ids = []
            for line in lines:
                with located(f"the {name} {_shorten(line)}"):
                    ids.append(vocabulary[name].encode(f"{line}\n"))
            arrays[name] = np.concatenate(ids)
        return arrays

    def columns(self, vocabulary: PairVocabulary) -> dict[str, Column]:  # noqa: D102
        return {name: Column(name, vocabulary[name].vocabulary_size) for name in SIDES}

    def unknown_tokens(self, vocabulary: PairVocabulary, one: str) -> Counter[str]:  # noqa: D102
        vocabulary["source"].encode(f"{one}\n")
        return vocabulary["source"].unknown_tokens([f"{one}\n"])

    def unknown_share(  # noqa: D102
        self, vocabulary: PairVocabulary, examples: list[Example], arrays: Mapping[str, Array]
    ) -> tuple[Counter[str], int, int]:
        unknown = Counter[str]()
        for name, lines in zip(SIDES, zip(*examples, strict=True), strict=True):
            unknown += vocabulary[name].unknown_tokens(f"{line}\n" for line in lines)
        marked = (arrays[name] == vocabulary[name].unknown_id for name in SIDES)
        count = sum(int(np.count_nonzero(side)) for side in marked)
        return unknown, count, sum(len(arrays[name]) for name in SIDES)

    def example_batches(  # noqa: D102
        self,
        vocabulary: PairVocabulary,
        arrays: Mapping[str, Array],
        batch_size: int,
        dtype: str,
    ) -> PairBatches:
        ends = [vocabulary[name].start_id for name in SIDES]
        assert ends[1] is not None
        return pair_batches(arrays["source"], arrays["target"], batch_size, ends[1], ends[0])

    def sizes(self, vocabulary: PairVocabulary) -> dict[str, Any]:  # noqa: D102
        return {
            "source_vocabulary_size": vocabulary["source"].vocabulary_size,
            "vocabulary_size": vocabulary["target"].vocabulary_size,
            "end_id": vocabulary["target"].start_id,
        }

    def arguments(  # noqa: D102
        self, options: TranslatorOptions, vocabulary: PairVocabulary
    ) -> dict[str, Any]:
        return {**self.sizes(vocabulary), **options.model.arguments()}

    def vocabulary(self, data: Mapping[str, Any]) -> PairVocabulary:  # noqa: D102
        if set(data) != set(SIDES):
            raise ValueError(f"the tokenizers are {sorted(data)}; expected {sorted(SIDES)}")
        vocabulary = PairVocabulary()
        for name in SIDES:
            tokenizer = Tokenizer.from_dict(data[name])
            if not isinstance(tokenizer, WordTokenizer):
                raise DataError(
                    f"the tokenizer of the {name} has the level {tokenizer.level!r}; translating "
                    "needs 'word'"
                )
            vocabulary[name] = tokenizer
        return vocabulary

    def describe_data(  # noqa: D102
        self, options: TranslatorOptions, vocabulary: PairVocabulary, folder: Path
    ) -> str:
        training, validation = self.counts(folder, "target")
        sizes = [f"{vocabulary[name].vocabulary_size:,}" for name in SIDES]
        return (
            f"{training:,} words of the target to train on, {validation:,} to validate on, "
            f"vocabularies of {' and '.join(sizes)}"
        )


def _shorten(line: str) -> str:
    return repr(line if len(line) <= 40 else f"{line[:40]}...")
