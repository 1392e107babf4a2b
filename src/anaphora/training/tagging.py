"""Tagging words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import ops
from anaphora.data import (
    DataError,
    TaggerCodec,
    read_conllu,
    split_words,
    uncompressed_name,
)
from anaphora.models import SequenceTagger
from anaphora.models.body import TaggerBody
from anaphora.tensor import no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.examples import example_task, in_batches, line_inputs
from anaphora.training.options import DataOptions, TaskOptions, data_option
from anaphora.training.task import Answer, Paths

Example = tuple[list[str], list[str]]  # the words of a sentence, and their tags

_PREDICTION_BATCH = 64


@dataclass(kw_only=True)
class TaggerOptions(DataOptions, TaggerBody, TaskOptions):
    """All options of a training of a tagger.

    >>> TaggerOptions.make(tag_column=5).tag_column
    5
    """

    tag_column: int = data_option(
        4,
        "Column of the tags, from 1: 4 or 5 of CoNLL-U, or 2 of lines of a word and its tag.",
        reading=True,
    )

    presets = {  # noqa: RUF012 - it is never changed
        "default": {
            "minimum_count": 2,
            "lowercase": True,
            "hidden_size": 128,
            "bidirectional": True,
            "dropout": 0.4,
            "forget_bias": 1.0,
            "character_embedding_size": 32,
            "character_hidden_size": 64,
            "learning_rate": 0.004,
            "schedule": "cosine",
            "max_steps": 2000,
            "evaluate_every": 200,
        }
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tag_column < 2:
            raise ValueError(f"tag_column is {self.tag_column}; it must be 2 or more")


def tag(
    model: SequenceTagger, sentences: Sequence[Sequence[str]]
) -> Iterator[list[tuple[str, float]]]:
    """Yield for each sentence the most likely tag of each word, and its probability.

    Args:
        model: A tagger with its codec, ready to evaluate.
        sentences: Their words.

    Raises:
        DataError: a word has a character that the vocabulary lacks, and nothing stands for it.
        ValueError: the model's scores are not finite.

    >>> from anaphora.data import CharacterTokenizer
    >>> model = SequenceTagger(2, hidden_size=3, vocabulary_size=2, num_characters=2).eval()
    >>> model.codec = TaggerCodec(("ab",), True, CharacterTokenizer.fit("ab"), ("X", "Y"))
    >>> [[len(of_word) for of_word in of_words] for of_words in tag(model, [["ab"]])]
    [[2]]
    """
    for _, part in in_batches(sentences, _PREDICTION_BATCH):
        batch = model.codec.input_batch(part)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            shares = ops.softmax(model.scores(batch)).data  # [T, B, C]
        check_scores("tag", shares)
        for row, words in enumerate(part):
            best = shares[: len(words), row].argmax(axis=-1)
            yield [(model.codec.tags[k], float(shares[t, row, k])) for t, k in enumerate(best)]


def _read(options: TaggerOptions, paths: Paths) -> list[Example]:
    if not paths:
        raise DataError(
            "nothing was given to tag: name .conllu files, or files with a word and its tag a "
            "line, a tab between them, and --tag-column 2"
        )
    more = options.tag_column, options.encoding
    return [s for path in paths for s in read_conllu(path, *more)]


def _fit(options: TaggerOptions, training: list[Example], held_out: list[Example]) -> TaggerCodec:
    return TaggerCodec.fit(
        training,
        held_out,
        vocabulary_size=options.vocabulary_size,
        minimum_count=options.minimum_count,
        lowercase=options.lowercase,
    )


def _inputs(options: TaggerOptions, path: str) -> Iterator[tuple[str, Any]]:
    if uncompressed_name(path).lower().endswith((".conllu", ".tsv")):
        sentences = read_conllu(path, options.tag_column, options.encoding)
        for number, (words, _) in enumerate(sentences, start=1):
            yield f"{path}, sentence {number:,}", words
    else:
        for place, line in line_inputs(options, path):
            yield place, split_words(line)


def _answer(
    options: TaggerOptions, model: SequenceTagger, inputs: Sequence[Any]
) -> Iterator[Answer]:
    found = tag(model, [words for words in inputs if words])
    for words in inputs:
        pairs = next(found) if words else []
        tags, shares = ([pair[k] for pair in pairs] for k in (0, 1))
        text = "".join(f"{word}\t{its_tag}\n" for word, its_tag in zip(words, tags, strict=True))
        yield Answer({"words": words, "tags": tags, "probabilities": shares}, text)


TAG = example_task(
    name="tag",
    model=SequenceTagger,
    options=TaggerOptions,
    files=".conllu files, or lines of a word and its tag",
    unit="words",
    read_examples=_read,
    fit=_fit,
    inputs=_inputs,
    answer=_answer,
)
"""A tag for each word of a sentence."""
