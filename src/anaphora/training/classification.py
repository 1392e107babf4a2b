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
from anaphora.training.measures import ClassMeasure
from anaphora.training.options import TaskOptions, data_option, training_option
from anaphora.training.task import Answer
from anaphora.training.trainer import Trainer

Example = tuple[Any, str]  # a text, or a series [T, I]; and its label


@dataclass(kw_only=True)
class ClassifierOptions(InputOptions, ClassifierBody, TaskOptions):
    """All options of a training of a classifier.

    >>> ClassifierOptions.make(hidden_size=64).hidden_size
    64
    """

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
        },
        "series": {**SERIES, "monitor": "auto"},  # unless another one is named
    }


def classify(model: SequenceClassifier, examples: Sequence[Any]) -> Iterator[dict[str, float]]:
    """Yield for each text or series the probability of each class, the most likely first.

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


def _classes(path: Any, classes: Any) -> list[str]:
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
    return list(map(str, classes))


_read = functools.partial(
    read_examples,
    reader="classifier",
    nothing="nothing was given to classify: name tables, a folder with a .txt file for each class, "
    "or files of series",
    of_texts=lambda options, path: read_labelled(
        path, options.column, options.label_column, options.encoding, options.format
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


def _shown(model: SequenceClassifier, one: Any, shares: dict[str, float] | None) -> Answer:
    label = None if shares is None else next(iter(shares))
    record = {"text": one} if isinstance(one, str) else {}
    return Answer({**record, "label": label, "probabilities": shares or {}}, label or "")


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
    measure_of=lambda options, model, codec: ClassMeasure(codec.labels),
    predict=classify,
    shown=_shown,
)
"""A class for each text or series."""
