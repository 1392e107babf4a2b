"""The codec of classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict

import numpy as np

from anaphora import schema
from anaphora.data.codecs.base import (
    Array,
    Column,
    adapted_answers,
    check_names,
    numbers_of,
)
from anaphora.data.codecs.sequences import SequenceCodec
from anaphora.data.errors import DataError
from anaphora.data.frames import Frames
from anaphora.data.labelled import check_labels
from anaphora.data.tokenizers import CharacterTokenizer, Tokenizer


class _ClassifierFields(TypedDict):
    classes: list[str]
    multi_label: NotRequired[bool]


@dataclass(frozen=True)
class ClassifierCodec(SequenceCodec):
    """The codec of a classifier of texts or series.

    Attributes:
        classes: The labels, sorted.
        tokenizer: The tokenizer of texts; None for series.
        mean: The mean of each channel of series, for standardization; None for texts.
        scale: The standard deviation of each channel.
        frames: Cuts series into frames; None for single steps.
        multi_label: Whether an example may have any number of labels. Its target is then a tuple of
            labels, which `encode_answers` converts to a row of booleans, one per class.

    >>> codec = ClassifierCodec(("no", "yes"), CharacterTokenizer.fit("ab"))
    >>> codec.encode_input("ba").tolist(), codec.encode_answers(["yes"]).tolist()
    ([1, 0], [1])
    >>> replace(codec, multi_label=True).encode_answers([("no", "yes"), ()]).tolist()
    [[True, True], [False, False]]
    """

    classes: tuple[str, ...]
    tokenizer: Tokenizer | None = None
    mean: Array | None = None
    scale: Array | None = None
    frames: Frames | None = None
    multi_label: bool = False

    reader = "classifier"

    @classmethod
    def fit(
        cls,
        training: Sequence[tuple[Any, str | tuple[str, ...]]],
        held_out: Sequence[tuple[Any, str | tuple[str, ...]]] = (),
        *,
        fit_tokenizer: Callable[[Sequence[str]], Tokenizer] = CharacterTokenizer.fit,
        max_frames: int = 0,
    ) -> ClassifierCodec:
        """Fit a codec: tokenizer or moments to the training examples, classes to all examples.

        Args:
            training: Texts, or series [T, I], with their labels; at least one. If the labels of an
                example are a tuple, examples may have any number of labels.
            held_out: Validation examples.
            fit_tokenizer: Fits the tokenizer of texts.
            max_frames: Approximate number of frames of a series, see `Frames`; 0 for no frames.

        Raises:
            DataError: all examples have the same labels.
        """
        answers = [answer for _, answer in [*training, *held_out]]
        multi_label = any(isinstance(answer, tuple) for answer in answers)
        sets = {_label_set(answer) for answer in answers}
        classes = tuple(sorted(set().union(*sets)))
        check_labels(dict.fromkeys(classes, "the files"))  # files may contradict each other
        if len(sets) < 2:
            labels = ", ".join(map(repr, classes))
            have = f"the label {labels}" if len(classes) == 1 else f"the labels {labels}"
            raise DataError(
                f"all examples have {have if labels else 'no label'}; expected two or more"
                + (" sets of labels" if multi_label else "")
            )
        inputs = [example for example, _ in training]
        read = cls.fit_inputs(inputs, fit_tokenizer, max_frames)
        return cls(classes, **read, multi_label=multi_label)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def with_labels_of(self, examples: Sequence[Any]) -> ClassifierCodec:  # noqa: D102
        found = set().union(*(_label_set(answer) for _, answer in examples))
        return replace(self, classes=(*self.classes, *sorted(found - set(self.classes))))

    def encode_answers(self, answers: Sequence[Any]) -> Array:
        """Labels as class ids [N], or with ``multi_label`` as booleans [N, C].

        Raises:
            DataError: a label is unknown, or an example does not have exactly one label without
                ``multi_label``.
        """
        if not self.multi_label:
            return numbers_of(map(_only_label, answers), self.classes, "label")
        sets = [_label_set(answer) for answer in answers]
        rows = np.repeat(np.arange(len(sets)), [len(labels) for labels in sets])
        targets = np.zeros((len(sets), len(self.classes)), bool)
        given = [label for labels in sets for label in labels]
        targets[rows, numbers_of(given, self.classes, "label")] = True
        return targets

    def answer_column(self) -> Column:  # noqa: D102
        if self.multi_label:
            return Column("sequences", features=len(self.classes), booleans=True)
        return Column("sequences", below=len(self.classes))

    def sizes(self) -> dict[str, int]:  # noqa: D102
        inputs = self.input_sizes()
        return {"num_classes": len(self.classes), "multi_label": self.multi_label, **inputs}

    def describe(self) -> str:  # noqa: D102
        what = "labels, several for each example" if self.multi_label else "classes"
        return f"{len(self.classes)} {what}, {self.describe_inputs()}"

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        return {**super().entries(), "num_classes": self.classes}

    def adapted(self, start: Any, vocabulary: str) -> ClassifierCodec:  # noqa: D102
        classes = self.classes
        if isinstance(start, ClassifierCodec):
            classes = adapted_answers(self.classes, start.classes, vocabulary, "label")
        inputs = self.adapted_inputs(start, vocabulary)
        return ClassifierCodec(classes, **inputs, multi_label=self.multi_label)

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        several = {"multi_label": True} if self.multi_label else {}
        return {"classes": list(self.classes), **several, **self.inputs_to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassifierCodec:
        """Make a codec from the result of `to_dict`; see `Codec.from_dict`."""
        fields, inputs = schema.convert(data, _ClassifierFields), cls.inputs_from_dict(data)
        multi_label = fields.get("multi_label", False)
        check_names("classes", fields["classes"], minimum=1 if multi_label else 2)
        return cls(tuple(fields["classes"]), **inputs, multi_label=multi_label)


def _label_set(answer: str | tuple[str, ...]) -> frozenset[str]:
    """The labels of an example: those of a tuple, or a single one."""
    return frozenset(answer if isinstance(answer, tuple) else [answer])


def _only_label(answer: str | tuple[str, ...]) -> str:
    """The label of an example, which must have exactly one."""
    labels = sorted(_label_set(answer))
    if len(labels) != 1:
        found = f"the labels {', '.join(map(repr, labels))}" if labels else "no label"
        raise DataError(f"an example has {found}; the classifier expects one label per example")
    return labels[0]
