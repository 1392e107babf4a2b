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
    """All options of a training of a classifier.

    >>> ClassifierOptions.make(hidden_size=64).hidden_size
    64
    """

    label_column: str | None = data_option(None, "Column of the label, in tables.", reading=True)
    label_separator: str | None = data_option(
        None,
        "Sign between labels, for examples that may have several, such as |. Lists need none.",
        reading=True,
    )
    class_weights: str = training_option(
        "none",
        "How much the targets of a class count in the loss of training: all alike, or such that "
        "each class counts as much in all (balanced), however rare it is; of several labels, such "
        "that of each label the examples that have it count as much as the others.",
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
        "series": {**SERIES, "monitor": "auto"},  # unless another one is named
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_separator == "":
            raise ValueError("label_separator is empty; expected a sign, such as |")


def classify(model: SequenceClassifier, examples: Sequence[Any]) -> Iterator[dict[str, float]]:
    """Yield for each text or series the probability of each class, the most likely first.

    With several labels an example each is a yes or no of its own: the probabilities do not add up
    to 1.

    Args:
        model: A classifier with its codec, ready to evaluate.
        examples: Texts, or series [T, I].

    Raises:
        DataError: as `ClassifierCodec.encode_input`.
        ValueError: the model's scores are not finite.

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
    """The classes that a file of series has, if it has some."""
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
    answers = list(map(str, classes))
    if options.label_separator is None:
        return answers
    return [labels_of(answer, options.label_separator) for answer in answers]


_read = functools.partial(
    read_examples,
    reader="classifier",
    nothing="nothing was given to classify: name tables, a folder with a .txt file for each class, "
    "or files of series",
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
    """Where in a file each label stands first."""
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


def _shown(
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
    shown=_shown,
)
"""A class for each text or series."""
