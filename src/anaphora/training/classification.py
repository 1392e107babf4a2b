"""Classifying texts or series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import ops
from anaphora.data import (
    ClassifierCodec,
    DataError,
    is_table,
    labels_of,
    located,
    read_columns,
    read_labelled,
    read_series,
)
from anaphora.data.tables import label_of
from anaphora.models import LanguageModel, SequenceClassifier
from anaphora.models.body import ClassifierBody
from anaphora.tensor import no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.examples import example_task, in_batches
from anaphora.training.inputs import (
    InputOptions,
    are_series,
    check_columns_of_tables,
    example_file,
    fit_tokenizer,
    is_blank,
    of_preset,
    read_inputs,
    refuse_text_options,
    resolved,
)
from anaphora.training.measures import ClassMeasure, LabelMeasure
from anaphora.training.options import TaskOptions, data_option, training_option
from anaphora.training.task import Answer, Paths, TrainingData

Example = tuple[Any, Any]  # a text, or a series [T, I]; and its label, or a tuple of several

_PREDICTION_BATCH = 256


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
        }
    }
    presets["series"] = {  # noqa: RUF012 - of series, unless another one is given
        "max_frames": 32,
        "validation_share": 0.1,
        "cell": "gru",
        "hidden_size": 64,
        "bidirectional": True,
        "dropout": 0.2,
        "pooling": "max",
        "batch_size": 16,
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "schedule": "cosine",
        "max_steps": 800,
        "evaluate_every": 100,
        "monitor": "auto",
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
    for start, part in in_batches(examples, _PREDICTION_BATCH):
        with located(f"an example after the first {start:,}" if start else "an example"):
            batch = model.codec.input_batch(part, model.dtype)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            shares = model.answer(model.scores(batch)).data
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
    if are_series(options, paths, "classifier"):
        return [example for path in paths for example in _labelled_series(options, path)]
    more = options.column, options.label_column, options.encoding, options.format
    separator = options.label_separator
    return [example for path in paths for example in read_labelled(path, *more, separator)]


def _check_files(given: Mapping[str, Any], paths: Paths) -> None:
    check_columns_of_tables(("column", "label_column"), given, paths)


def _fit(
    options: ClassifierOptions, training: list[Example], held_out: list[Example]
) -> ClassifierCodec:
    if isinstance(training[0][0], str):
        return ClassifierCodec.fit(training, held_out, fit_tokenizer=fit_tokenizer(options))
    refuse_text_options(options)
    max_frames = of_preset(options, "series").max_frames
    return ClassifierCodec.fit(training, held_out, max_frames=max_frames)


def _begin(options: ClassifierOptions, model: SequenceClassifier, data: TrainingData) -> None:
    if options.class_weights == "balanced":
        targets = np.concatenate([batch.targets for batch in data.batches])
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


def _answer(
    options: ClassifierOptions, model: SequenceClassifier, inputs: Sequence[Any]
) -> Iterator[Answer]:
    found = classify(model, [one for one in inputs if not is_blank(one)])
    for one in inputs:
        text = {"text": one} if isinstance(one, str) else {}
        name = "labels" if model.multi_label else "label"
        if is_blank(one):
            yield Answer({**text, name: None, "probabilities": {}}, "")
            continue
        shares = next(found)
        labels = list(shares)[:1]
        if model.multi_label:
            labels = [label for label, share in shares.items() if share > 0.5]
        answer = labels if model.multi_label else labels[0]
        shown = (options.label_separator or "|").join(labels)
        yield Answer({**text, name: answer, "probabilities": shares}, shown)


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
    answers: list[Any] = [str(label) for label in classes]
    if options.label_separator is not None:
        answers = [labels_of(label, options.label_separator) for label in answers]
    return list(zip(series, answers, strict=True))


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
    measure_of=lambda options, model, codec: (
        LabelMeasure(codec.labels) if codec.multi_label else ClassMeasure(codec.labels)
    ),
    resolve=resolved,
    inputs=read_inputs,
    answer=_answer,
    example_file=example_file,
)
"""A class for each text or series."""
