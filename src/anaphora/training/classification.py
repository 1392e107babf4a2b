"""Classifying texts or series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anaphora import ops
from anaphora.data import (
    CharacterTokenizer,
    ClassifierCodec,
    DataError,
    Tokenizer,
    WordTokenizer,
    is_table,
    located,
    read_columns,
    read_labelled,
    read_series,
    split_words,
    uncompressed_name,
)
from anaphora.models import SequenceClassifier
from anaphora.models.body import ClassifierBody
from anaphora.tensor import no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.examples import example_task, in_batches, line_inputs
from anaphora.training.measures import ClassMeasure
from anaphora.training.options import SplitOptions, TaskOptions, data_option, training_option
from anaphora.training.task import Answer, Paths, TrainingData

Example = tuple[Any, str]  # a text, or a series [T, I]; and its label

_SERIES = (".ts", ".npy")
_PREDICTION_BATCH = 256


@dataclass(kw_only=True)
class ClassifierOptions(SplitOptions, ClassifierBody, TaskOptions):
    """All options of a training of a classifier.

    >>> ClassifierOptions.make(hidden_size=64).hidden_size
    64
    """

    level: str = data_option("char", "What a token is.", ("char", "word"), common=True)
    column: str | None = data_option(
        None, "Read .csv or .tsv files, and take the text from this column.", reading=True
    )
    label_column: str | None = data_option(None, "Take the label from this column.", reading=True)
    class_weights: str = training_option(
        "none",
        "How much the targets of a class count in the loss of training: all alike, or such that "
        "each class counts as much in all (balanced), however rare it is.",
        ("none", "balanced"),
    )

    presets = {  # noqa: RUF012 - it is never changed
        "default": {
            "minimum_count": 2,
            "validation_share": 0.1,
            "hidden_size": 128,
            "bidirectional": True,
            "dropout": 0.3,
            "forget_bias": 1.0,
            "pooling": "mean",
            "learning_rate": 0.004,
            "schedule": "cosine",
            "max_steps": 2000,
            "evaluate_every": 200,
            "monitor": "auto",
        }
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level != "word" and (self.lowercase or self.split != "whitespace"):
            raise ValueError(f"lowercase and split are for level 'word', not for {self.level!r}")


def classify(model: SequenceClassifier, examples: Sequence[Any]) -> Iterator[dict[str, float]]:
    """Yield for each text or series the probability of each class, the most likely first.

    Args:
        model: A classifier with its codec, ready to evaluate.
        examples: Texts, or series [T, I].

    Raises:
        DataError: as `ClassifierCodec.encode_input`.
        ValueError: the model's scores are not finite.

    >>> model = SequenceClassifier(num_classes=2, hidden_size=3, vocabulary_size=2).eval()
    >>> model.codec = ClassifierCodec(("no", "yes"), CharacterTokenizer.fit("ab"))
    >>> (probabilities,) = classify(model, ["abba"])
    >>> sorted(probabilities), round(sum(probabilities.values()), 3)
    (['no', 'yes'], 1.0)
    """
    for start, part in in_batches(examples, _PREDICTION_BATCH):
        with located(f"an example after the first {start:,}" if start else "an example"):
            batch = model.codec.input_batch(part, model.dtype)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            shares = ops.softmax(model.scores(batch)).data
        check_scores("classify", shares)
        for row in shares:
            order = np.argsort(-row, kind="stable")
            yield {model.codec.classes[k]: float(row[k]) for k in order}


def _read(options: ClassifierOptions, paths: Paths) -> list[Example]:
    if not paths:
        raise DataError(
            "nothing was given to classify: name .csv or .tsv files, a folder with a .txt file "
            "for each class, or series as .ts files"
        )
    are_series = {_holds_series(path) for path in paths}
    if are_series == {True}:
        encoding = options.encoding
        return [example for path in paths for example in _labelled_series(path, encoding)]
    if are_series == {False}:
        more = options.column, options.label_column, options.encoding
        return [example for path in paths for example in read_labelled(path, *more)]
    raise DataError("both texts and series were given; a classifier is of one or the other")


def _check_files(given: Mapping[str, Any], paths: Paths) -> None:
    if any(map(is_table, paths)):
        return
    for name in ("column", "label_column"):
        if given.get(name) is not None:
            raise ValueError(f"{name} is for .csv and .tsv files, and none was given")


def _fit(
    options: ClassifierOptions, training: list[Example], held_out: list[Example]
) -> ClassifierCodec:
    def fit_tokenizer(texts: Sequence[str]) -> Tokenizer:
        limits = options.vocabulary_size, options.minimum_count
        if options.level == "char":
            return CharacterTokenizer.fit(texts, *limits)
        lines = [f"{text}\n" for text in texts]
        split: Any = options.split
        return WordTokenizer.fit(lines, *limits, options.lowercase, split)

    if not isinstance(training[0][0], str):
        _refuse_text_options(options)
    return ClassifierCodec.fit(training, held_out, fit_tokenizer=fit_tokenizer)


def _begin(options: ClassifierOptions, model: SequenceClassifier, data: TrainingData) -> None:
    if options.class_weights == "balanced":
        targets = np.concatenate([batch.targets for batch in data.batches])
        model.class_weights = ops.balanced_class_weights(targets, model.num_classes)


def _places(options: ClassifierOptions, path: Any) -> dict[str, str]:
    """Where in a file each label stands first."""
    found: dict[str, str] = {}
    if is_table(path) and options.label_column is not None:
        for place, (label,) in read_columns(path, [options.label_column], options.encoding):
            found.setdefault(str(label), place)
        return found
    for number, (_, label) in enumerate(_read(options, [path]), start=1):
        found.setdefault(label, f"{path}, example {number:,}")
    return found


def _inputs(options: ClassifierOptions, path: str) -> Iterator[tuple[str, Any]]:
    if _holds_series(path):
        for number, series in enumerate(read_series(path, options.encoding)[0], start=1):
            yield f"{path}, series {number:,}", series
    elif not is_table(path):
        yield from line_inputs(options, path)
    elif options.column is None:
        raise DataError(f"{path} is a table: say with --column which column holds the texts")
    else:
        for place, (text,) in read_columns(path, [options.column], options.encoding):
            yield place, text.strip("\n")


def _answer(
    options: ClassifierOptions, model: SequenceClassifier, inputs: Sequence[Any]
) -> Iterator[Answer]:
    found = classify(model, [one for one in inputs if not _is_blank(one)])
    for one in inputs:
        text = {"text": one} if isinstance(one, str) else {}
        if _is_blank(one):
            yield Answer({**text, "label": None, "probabilities": {}}, "")
        else:
            shares = next(found)
            label = next(iter(shares))
            yield Answer({**text, "label": label, "probabilities": shares}, label)


def _is_blank(one: Any) -> bool:
    return not (split_words(one) if isinstance(one, str) else len(one))


def _example_file(options: ClassifierOptions, files: str) -> str:
    suffix = Path(uncompressed_name(files.split(", ")[0])).suffix.lower()
    if suffix in (".csv", ".tsv"):
        column = "" if options.column is not None else " --column YOUR_COLUMN"
        return f"YOUR_TABLE{suffix}{column}"
    return f"YOUR_SERIES{suffix}" if suffix in _SERIES else "YOUR_LINES.txt"


def _holds_series(path: Any) -> bool:
    return uncompressed_name(path).lower().endswith(_SERIES)


def _labelled_series(path: Any, encoding: str) -> list[Example]:
    series, classes = read_series(path, encoding)
    if classes is None:
        raise DataError(
            f"{path} has no classes; to train or to evaluate, give each series its own after a "
            "last colon, and list them: @classLabel true a b. anaphora predict reads series without"
        )
    if isinstance(classes[0], float):
        raise DataError(
            f"{path} has numbers as targets (@targetLabel true), and classify needs classes; "
            "anaphora.estimators.RecurrentRegressor learns numbers. If these are names of classes, "
            "list them: @classLabel true 1 2"
        )
    return list(zip(series, map(str, classes), strict=True))


def _refuse_text_options(options: ClassifierOptions) -> None:
    """Series have no tokens and no columns: options of texts are a misunderstanding."""
    for name in sorted(set(options.fields("data")) - {"validation_share", "encoding"}):
        if getattr(options, name) != options.default(name):
            raise ValueError(f"{name} is for texts, but the files hold series")


CLASSIFY = example_task(
    name="classify",
    model=SequenceClassifier,
    options=ClassifierOptions,
    files=".csv or .tsv files, a folder with a .txt file for each class, or .ts files of series",
    unit="sequences",
    rows="sequences",
    read_examples=_read,
    check_files=_check_files,
    fit=_fit,
    label=lambda example: example[1],
    places=_places,
    begin=_begin,
    measure_of=lambda options, model, codec: ClassMeasure(codec.labels),
    inputs=_inputs,
    answer=_answer,
    example_file=_example_file,
)
"""A class for each text or series."""
