"""Classifying texts or series."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import ops
from anaphora.data import (
    ClassifierCodec,
    DataError,
    is_table,
    labels_of,
    read_columns,
    read_labelled,
)
from anaphora.data.tables import label_of
from anaphora.models import SequenceClassifier
from anaphora.models.body import ClassifierBody
from anaphora.training.inputs import (
    SERIES,
    InputOptions,
    predictions,
    read_examples,
    reading,
    sequence_task,
)
from anaphora.training.measures import ClassMeasure, LabelMeasure
from anaphora.training.options import TaskOptions, data_option, training_option
from anaphora.training.task import Answer
from anaphora.training.trainer import Trainer

Example = tuple[Any, Any]  # a text, or a series [T, I]; and its label, or a tuple of several


@dataclass(kw_only=True)
class ClassifierOptions(InputOptions, ClassifierBody, TaskOptions):
    """All options for training a classifier.

    >>> ClassifierOptions.make(hidden_size=64).hidden_size
    64
    """

    label_column: str | None = data_option(None, "Column of the label, in tables.", reading=True)
    label_separator: str | None = data_option(
        None,
        "Separator of labels, where examples may have several, such as |. Lists need none.",
        reading=True,
    )
    class_weights: str = training_option(
        "none",
        "Weights of the targets in the training loss: none weights all targets equally; balanced "
        "gives each class the same total weight, however rare it is (with several labels, the "
        "examples with a label the same as those without).",
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
        },
        "series": {**SERIES, "monitor": "auto"},  # the default for series
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_separator == "":
            raise ValueError("label_separator is empty; expected a character, such as |")


def classify(model: SequenceClassifier, examples: Sequence[Any]) -> Iterator[dict[str, float]]:
    """Yield the probabilities of the classes of each text or series, the most likely first.

    If examples may have several labels, each label is predicted independently, and the
    probabilities do not add up to 1.

    Args:
        model: A classifier with its codec, in evaluation mode.
        examples: Texts, or series [T, I].

    Raises:
        DataError: as for `ClassifierCodec.encode_input`.
        ValueError: the model's scores are NaN or infinite.

    >>> from anaphora.data import CharacterTokenizer
    >>> model = SequenceClassifier(num_classes=2, hidden_size=3, vocabulary_size=2).eval()
    >>> model.codec = ClassifierCodec(("no", "yes"), CharacterTokenizer.fit("ab"))
    >>> (probabilities,) = classify(model, ["abba"])
    >>> sorted(probabilities), round(sum(probabilities.values()), 3)
    (['no', 'yes'], 1.0)
    """
    for shares in predictions("classify", model, examples):
        order = np.argsort(-shares, kind="stable")
        yield {model.codec.classes[k]: float(shares[k]) for k in order}


def _classes(options: ClassifierOptions, path: Any, classes: Any) -> list[Any]:
    """The classes in a file of series."""
    if classes is None:
        raise DataError(
            f"{path} has no classes, which training and evaluation need: write the class of each "
            "series after a last colon in a .ts file, whose header lists them (@classLabel true a "
            "b), or in an array y of a .npz file. anaphora predict needs no classes"
        )
    if isinstance(classes[0], float):
        raise DataError(
            f"{path} has numeric targets (@targetLabel true, or a numeric attribute), but classify "
            "needs classes: use --task regress, or, if the numbers are names of classes, list "
            "them: @classLabel true 1 2"
        )
    answers = list(map(str, classes))
    if options.label_separator is None:
        return answers
    return [labels_of(answer, options.label_separator) for answer in answers]


_read = functools.partial(
    read_examples,
    reader="classifier",
    nothing="no files to classify: give tables, a folder with a .txt file for each class, or files "
    "of series",
    of_texts=lambda options, path: read_labelled(
        path,
        options.column,
        options.label_column,
        options.encoding,
        options.format,
        options.label_separator,
    ),
    answers_of=_classes,
)


def _fit(
    options: ClassifierOptions, training: list[Example], held_out: list[Example]
) -> ClassifierCodec:
    return ClassifierCodec.fit(training, held_out, **reading(options, training))


def _begin(options: ClassifierOptions, trainer: Trainer, initial: bool) -> None:
    if options.class_weights == "balanced":
        model: Any = trainer.model
        targets = np.concatenate([batch.targets for batch in trainer.batches])
        if model.multi_label:
            count = targets.sum(axis=0)
            model.class_weights = np.where(count, (len(targets) - count) / np.maximum(count, 1), 1)
        else:
            model.class_weights = ops.balanced_class_weights(targets, model.num_classes)


def _places(options: ClassifierOptions, path: Any) -> dict[str, str]:
    """Where each label first occurs in a file."""
    found: dict[str, str] = {}
    if not is_table(path, options.format) or options.label_column is None:
        for number, (_, answer) in enumerate(_read(options, [path]), start=1):
            for label in answer if isinstance(answer, tuple) else [answer]:
                found.setdefault(label, f"{path}, example {number:,}")
        return found
    column, separator = options.label_column, options.label_separator
    for place, (value,) in read_columns(path, [column], options.encoding, options.format):
        several = separator is not None or isinstance(value, list)
        of_row = labels_of(value, separator, place, column) if several else None
        for label in [label_of(value, place, column)] if of_row is None else of_row:
            found.setdefault(label, place)
    return found


def _to_answer(
    options: ClassifierOptions, model: SequenceClassifier, one: Any, shares: dict[str, float] | None
) -> Answer:
    record = {"text": one} if isinstance(one, str) else {}
    name = "labels" if model.multi_label else "label"
    if shares is None:
        return Answer({**record, name: None, "probabilities": {}}, "")
    labels = list(shares)[:1]
    if model.multi_label:
        labels = [label for label, share in shares.items() if share > 0.5]
    answer = labels if model.multi_label else labels[0]
    text = (options.label_separator or "|").join(labels)
    return Answer({**record, name: answer, "probabilities": shares}, text)


CLASSIFY = sequence_task(
    name="classify",
    model=SequenceClassifier,
    options=ClassifierOptions,
    files="tables, folders of a .txt file a class, or series",
    unit="sequences",
    columns=("column", "label_column"),
    read_examples=_read,
    fit=_fit,
    label=lambda example: example[1],
    places=_places,
    begin=_begin,
    measure_of=lambda options, model, codec: (
        LabelMeasure(codec.labels) if codec.multi_label else ClassMeasure(codec.labels)
    ),
    predict=classify,
    to_answer=_to_answer,
)
"""Predicts a class for each text or series."""
