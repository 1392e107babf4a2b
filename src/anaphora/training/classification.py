"""Classifying texts or series."""

from __future__ import annotations

import dataclasses
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
    kind_of,
    located,
    read_columns,
    read_labelled,
    read_series,
    split_words,
    text_of,
    uncompressed_name,
)
from anaphora.data.tables import label_of
from anaphora.models import LanguageModel, SequenceClassifier
from anaphora.models.body import ClassifierBody
from anaphora.tensor import no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.examples import (
    example_of_table,
    example_task,
    in_batches,
    line_inputs,
    split_of,
)
from anaphora.training.measures import ClassMeasure
from anaphora.training.options import (
    NAME_FORMAT,
    SentenceOptions,
    TaskOptions,
    check_format,
    data_option,
    training_option,
)
from anaphora.training.task import Answer, Paths, TrainingData

Example = tuple[Any, str]  # a text, or a series [T, I]; and its label

_PREDICTION_BATCH = 256


@dataclass(kw_only=True)
class ClassifierOptions(SentenceOptions, ClassifierBody, TaskOptions):
    """All options of a training of a classifier.

    >>> ClassifierOptions.make(hidden_size=64).hidden_size
    64
    """

    level: str = data_option(
        "auto",
        "What a token is; auto is word if most texts have several.",
        ("auto", "char", "word"),
        common=True,
    )
    column: str | None = data_option(
        None, "Column of the text, in tables (.csv, .jsonl, ...).", reading=True
    )
    label_column: str | None = data_option(None, "Column of the label, in tables.", reading=True)
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
            "patience": 4,
        }
    }
    presets["words"] = {  # noqa: RUF012 - of texts that are read by words, unless one is given
        **presets["default"],
        "pooling": "max",
        "dropout": 0.5,
        "initialization": "0.1",
        "monitor": "accuracy",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level == "char" and (self.lowercase or self.split != "auto"):
            raise ValueError(f"lowercase and split are for level 'word', not for {self.level!r}")
        check_format(self.format, ("table", "series"))


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
            "nothing was given to classify: name tables, a folder with a .txt file for each class, "
            "or files of series"
        )
    are_series = {_holds_series(options, path) for path in paths}
    if are_series == {True}:
        return [example for path in paths for example in _labelled_series(options, path)]
    if are_series == {False}:
        more = options.column, options.label_column, options.encoding, options.format
        return [example for path in paths for example in read_labelled(path, *more)]
    raise DataError("both texts and series were given; a classifier is of one or the other")


def _check_files(given: Mapping[str, Any], paths: Paths) -> None:
    if any(is_table(path, given.get("format")) for path in paths):
        return
    for name in ("column", "label_column"):
        if given.get(name) is not None:
            raise ValueError(f"{name} is for tables, and none was given; {NAME_FORMAT}")


def _fit(
    options: ClassifierOptions, training: list[Example], held_out: list[Example]
) -> ClassifierCodec:
    def fit_tokenizer(texts: Sequence[str]) -> Tokenizer:
        limits = options.vocabulary_size, options.minimum_count
        level = options.level if options.level != "auto" else _level_of(texts)
        if level == "char":
            _refuse_word_options(options)
            return CharacterTokenizer.fit(texts, *limits)
        lines = [f"{text}\n" for text in texts]
        split: Any = split_of(options, texts)
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
    if not is_table(path, options.format) or options.label_column is None:
        for number, (_, label) in enumerate(_read(options, [path]), start=1):
            found.setdefault(label, f"{path}, example {number:,}")
        return found
    columns, more = [options.label_column], (options.encoding, options.format)
    for place, (label,) in read_columns(path, columns, *more):
        found.setdefault(label_of(label, place, options.label_column), place)
    return found


def _level_of(texts: Sequence[str]) -> str:
    of_words = sum(len(split_words(text)) > 1 for text in texts)
    return "word" if 2 * of_words > len(texts) else "char"


def _resolved(options: ClassifierOptions, codec: ClassifierCodec) -> ClassifierOptions:
    tokenizer = codec.tokenizer
    if isinstance(tokenizer, WordTokenizer):
        if options.given is not None:
            changes = {name: getattr(options, name) for name in options.given}
            options = type(options).make("words", **changes)
        return dataclasses.replace(options, level="word", split=tokenizer.split)
    return dataclasses.replace(options, level="char") if tokenizer else options


def _inputs(options: ClassifierOptions, path: str) -> Iterator[tuple[str, Any]]:
    if _holds_series(options, path):
        series, _ = read_series(path, options.encoding, options.format)
        for number, one in enumerate(series, start=1):
            yield f"{path}, series {number:,}", one
    elif not is_table(path, options.format):
        yield from line_inputs(options, path)
    elif options.column is None:
        raise DataError(f"{path} is a table: say with --column which column holds the texts")
    else:
        rows = read_columns(path, [options.column], options.encoding, options.format)
        for place, (value,) in rows:
            yield place, text_of(value, place, options.column).strip("\n")


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
    first = files.split(", ")[0]
    if _holds_series(options, first):
        format = "" if options.format is None else f" --format {options.format}"
        return f"YOUR_SERIES{Path(uncompressed_name(first)).suffix.lower()}{format}"
    return example_of_table(files, options.format) or "YOUR_LINES.txt"


def _holds_series(options: ClassifierOptions, path: Any) -> bool:
    return kind_of(path, options.format) == "series"


def _labelled_series(options: ClassifierOptions, path: Any) -> list[Example]:
    series, classes = read_series(path, options.encoding, options.format)
    if classes is None:
        raise DataError(
            f"{path} has no classes; to train or to evaluate, give each series its own: in a .ts "
            "file after a last colon, all of them listed (@classLabel true a b), in a .npz file in "
            "an array y. anaphora predict reads series without"
        )
    if isinstance(classes[0], float):
        raise DataError(
            f"{path} has numbers to predict (@targetLabel true, or a numeric attribute), and "
            "classify needs classes: use --task regress. If these are names of classes, list them: "
            "@classLabel true 1 2"
        )
    return list(zip(series, map(str, classes), strict=True))


def _refuse_word_options(options: ClassifierOptions) -> None:
    """Texts that are read by characters have no words, though the options may want some."""
    if options.lowercase or options.split != "auto":
        raise ValueError(
            "lowercase and split are for words, but most of the texts have one word or none, so "
            "they are read by characters; say level word, or omit these options"
        )


def _refuse_text_options(options: ClassifierOptions) -> None:
    """Series have no tokens and no columns: options of texts are a misunderstanding."""
    for name in sorted(set(options.fields("data")) - {"validation_share", "encoding", "format"}):
        if getattr(options, name) != options.default(name):
            raise ValueError(f"{name} is for texts, but the files hold series")


CLASSIFY = example_task(
    name="classify",
    model=SequenceClassifier,
    starts=(LanguageModel,),
    options=ClassifierOptions,
    files="tables, folders of a .txt file a class, or series",
    unit="sequences",
    rows="sequences",
    read_examples=_read,
    check_files=_check_files,
    fit=_fit,
    label=lambda example: example[1],
    places=_places,
    begin=_begin,
    measure_of=lambda options, model, codec: ClassMeasure(codec.labels),
    resolve=_resolved,
    inputs=_inputs,
    answer=_answer,
    example_file=_example_file,
)
"""A class for each text or series."""
