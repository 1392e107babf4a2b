"""The task "tag": a tag for each word of a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora.data import (
    DataError,
    TaggerCodec,
    format_of,
    read_tagged,
    read_words,
    split_words,
)
from anaphora.models import LanguageModel, SequenceTagger
from anaphora.models.body import TaggerBody
from anaphora.tensor import no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.examples import example_task, in_batches, line_inputs, name_of
from anaphora.training.measures import tag_measure
from anaphora.training.options import DataOptions, TaskOptions, check_format, data_option
from anaphora.training.task import Answer, Paths

Example = tuple[list[str], list[str]]  # the words of a sentence, and their tags

_PREDICTION_BATCH = 64
_TABLES = ("tsv", "jsonl", "parquet", "arrow", "dataset")


@dataclass(kw_only=True)
class TaggerOptions(DataOptions, TaggerBody, TaskOptions):
    """All options for training a tagger.

    >>> TaggerOptions.make(tag_column=5).tag_column
    5
    """

    word_column: str | int | None = data_option(
        None, "Column of the words: name or number (-1 is last).", reading=True
    )
    tag_column: str | int | None = data_option(None, "Column of the tags, likewise.", reading=True)
    separator: str | None = data_option(
        None, "Separator of columns: a character, or tab, space, comma.", reading=True
    )

    presets = {  # noqa: RUF012 - they are never changed
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
            "monitor": "auto",
            "patience": 4,
        },
        "entities": {  # named entities, for which spelling matters
            "minimum_count": 2,
            "lowercase": True,
            "hidden_size": 128,
            "bidirectional": True,
            "dropout": 0.5,
            "forget_bias": 1.0,
            "character_embedding_size": 25,
            "character_hidden_size": 50,
            "crf": True,
            "batch_size": 16,
            "learning_rate": 0.003,
            "schedule": "cosine",
            "epochs": 15,
            "monitor": "auto",
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("word_column", "tag_column"):
            if getattr(self, name) in (0, "0", ""):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; expected a name, or a number from 1, or "
                    "from -1 for the last column"
                )
        if self.separator == "":
            raise ValueError(
                "separator is empty; expected a character, or whitespace, tab, space or comma"
            )
        check_format(self.format, ("tagged",), _TABLES)


def tag(
    model: SequenceTagger, sentences: Sequence[Sequence[str]]
) -> Iterator[list[tuple[str, float]]]:
    """Yield the most likely tag of each word of each sentence, with its probability.

    Args:
        model: A tagger with its codec, in evaluation mode.
        sentences: The words of each.

    Raises:
        DataError: a character is not in the vocabulary, which has no unknown token.
        ValueError: the model's scores are NaN or infinite.

    >>> from anaphora.data import CharacterTokenizer
    >>> model = SequenceTagger(2, hidden_size=3, vocabulary_size=2, num_characters=2).eval()
    >>> model.codec = TaggerCodec(("ab",), True, CharacterTokenizer.fit("ab"), ("X", "Y"))
    >>> [[len(pair) for pair in pairs] for pairs in tag(model, [["ab"]])]
    [[2]]
    """
    for _, part in in_batches(sentences, _PREDICTION_BATCH):
        batch = model.codec.input_batch(part)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            scores = model.scores(batch)
            best = model.answers(scores, batch.lengths)  # [T, B]
            shares = model.probabilities(scores, batch.lengths)  # [T, B, C]
        check_scores("tag", shares)
        for row, words in enumerate(part):
            yield [
                (model.codec.tags[k], float(shares[t, row, k]))
                for t, k in enumerate(best[: len(words), row])
            ]


def _read(
    options: TaggerOptions, paths: Paths, places: dict[str, str] | None = None
) -> list[Example]:
    if not paths:
        raise DataError(
            "no files to tag: give files of columns, such as .conllu files or lines of a word and "
            "its tag, or tables with lists of words and of tags"
        )
    columns = options.word_column, options.tag_column, options.separator
    more = options.encoding, options.format, places
    return [sentence for path in paths for sentence in read_tagged(path, *columns, *more)]


def _fit(options: TaggerOptions, training: list[Example], held_out: list[Example]) -> TaggerCodec:
    return TaggerCodec.fit(
        training,
        held_out,
        vocabulary_size=options.vocabulary_size,
        minimum_count=options.minimum_count,
        lowercase=options.lowercase,
    )


def _places(options: TaggerOptions, path: Any) -> dict[str, str]:
    """Where each tag first occurs in a file."""
    places: dict[str, str] = {}
    _read(options, [path], places)
    return places


def _inputs(options: TaggerOptions, path: str) -> Iterator[tuple[str, Any]]:
    if format_of(path, options.format) is not None:
        columns = options.word_column, options.separator
        sentences = read_words(path, *columns, options.encoding, options.format)
        for number, words in enumerate(sentences, start=1):
            yield f"{name_of(path)}, sentence {number:,}", words
    else:
        for place, line in line_inputs(options, path):
            yield place, split_words(line)


def _to_answer(
    options: TaggerOptions, model: SequenceTagger, words: list[str], pairs: Any
) -> Answer:
    tags, shares = ([pair[k] for pair in pairs or []] for k in (0, 1))
    text = "".join(f"{word}\t{its_tag}\n" for word, its_tag in zip(words, tags, strict=True))
    return Answer({"words": words, "tags": tags, "probabilities": shares}, text)


TAG = example_task(
    name="tag",
    model=SequenceTagger,
    starts=(LanguageModel,),
    options=TaggerOptions,
    files="files of columns (.conllu, ...), or tables with lists",
    unit="words",
    read_examples=_read,
    fit=_fit,
    places=_places,
    measure_of=lambda options, model, codec: tag_measure(codec.labels),
    inputs=_inputs,
    predict=lambda options, model, sentences: tag(model, sentences),
    to_answer=_to_answer,
    is_empty=lambda words: not words,
)
"""Predicts a tag for each word of a sentence."""
