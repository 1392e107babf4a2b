"""Measures: the figures that an evaluation computes besides the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from anaphora import metrics
from anaphora.data import IGNORE_INDEX, WordTokenizer
from anaphora.generation import greedy_search
from anaphora.tensor import Array


class Measure(ABC):
    """Accumulates predictions batch by batch, in `evaluate`, and computes figures of them.

    >>> class Longest(Measure):
    ...     steps = 0
    ...     def update(self, batch, answers):
    ...         self.steps = max(self.steps, len(answers))
    ...     def figures(self):
    ...         return {"longest": self.steps}
    >>> Longest().figures(), Longest().tables()
    ({'longest': 0}, [])
    """

    def found(self, batch: Any, answers: Any) -> Any:
        """What `update` gets for a batch, given the model's predictions; by default these.

        Costly computations belong here: several processes share the batches out. The result must
        be one that can be pickled.
        """
        return answers

    @abstractmethod
    def update(self, batch: Any, answers: Any) -> None:
        """Add the predictions for a batch with ``targets``; None if the model has no ``scores``."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """The figures by their names in `anaphora.metrics.DIRECTIONS`."""

    def details(self) -> dict[str, Any]:
        """Structured results, by name, as plain values for JSON."""
        return {}

    def tables(self) -> list[str]:
        """Tables for printing, each a string of several lines."""
        return []


class ClassMeasure(Measure):
    """Macro F1, the scores of each class and the confusion matrix.

    Classes not seen in training follow those of the model, and are never predicted.

    Args:
        names: The names of the classes, in the order of their indices.

    >>> import types
    >>> measure = ClassMeasure(["no", "yes"])
    >>> measure.update(types.SimpleNamespace(targets=np.array([0, 1, 1])), np.array([0, 1, 0]))
    >>> round(measure.figures()["macro_f1"], 3), measure.details()["confusion_matrix"]
    (0.667, [[1, 0], [1, 1]])
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._matrix = np.zeros((len(names), len(names)), np.int64)

    def update(self, batch: Any, answers: Any) -> None:  # noqa: D102
        counted = batch.targets != IGNORE_INDEX
        self._matrix += metrics.confusion_matrix(
            batch.targets[counted], answers[counted], len(self._names)
        )

    def figures(self) -> dict[str, float]:  # noqa: D102
        return {"macro_f1": metrics.class_scores(self._matrix).macro_f1}

    def details(self) -> dict[str, Any]:  # noqa: D102
        return {
            "classes": metrics.class_scores(self._matrix, self._names).to_dict(),
            "confusion_matrix": self._matrix.tolist(),
        }

    def tables(self) -> list[str]:  # noqa: D102
        return [
            str(metrics.class_scores(self._matrix, self._names)),
            metrics.confusion_table(self._matrix, self._names),
        ]


class LabelMeasure(Measure):
    """Micro and macro F1, subset accuracy, and the scores of each label of a multi-label model.

    See `metrics.label_scores` and `metrics.subset_accuracy`.

    Args:
        names: The names of the labels, in the order of their indices; labels not seen in training
            follow those of the model, and are never predicted.

    >>> import types
    >>> measure = LabelMeasure(["cat", "dog"])
    >>> batch = types.SimpleNamespace(targets=np.array([[True, True], [False, True]]))
    >>> measure.update(batch, np.array([[True, False], [False, True]]))
    >>> {name: round(value, 3) for name, value in measure.figures().items()}
    {'micro_f1': 0.8, 'macro_f1': 0.833, 'subset_accuracy': 0.5}
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._actual = [np.zeros((0, len(names)), bool)]
        self._answers = [np.zeros((0, len(names)), bool)]

    def update(self, batch: Any, answers: Any) -> None:  # noqa: D102
        unknown = len(self._names) - answers.shape[1]
        self._actual.append(batch.targets)
        self._answers.append(np.pad(answers, [(0, 0), (0, unknown)]))

    def _labels(self) -> tuple[Array, Array]:
        return np.concatenate(self._actual), np.concatenate(self._answers)

    def _scores(self) -> metrics.ClassScores:
        return metrics.label_scores(*self._labels(), self._names)

    def figures(self) -> dict[str, float]:  # noqa: D102
        scores = self._scores()
        return {
            "micro_f1": scores.overall_f1,
            "macro_f1": scores.macro_f1,
            "subset_accuracy": metrics.subset_accuracy(*self._labels()),
        }

    def details(self) -> dict[str, Any]:  # noqa: D102
        return {"classes": self._scores().to_dict()}

    def tables(self) -> list[str]:  # noqa: D102
        return [str(self._scores())]


class SpanMeasure(Measure):
    """Precision, recall and F1 of spans, such as names of persons, as conlleval counts them.

    Args:
        names: The names of the tags, in the order of their indices; tags not seen in training
            follow those of the model.

    >>> import types
    >>> measure = SpanMeasure(["B-PER", "I-PER", "O"])
    >>> batch = types.SimpleNamespace(targets=np.array([[0], [1], [2]]))
    >>> measure.update(batch, np.array([[0], [1], [0]]))
    >>> {name: round(value, 3) for name, value in measure.figures().items()}
    {'span_precision': 0.5, 'span_recall': 1.0, 'span_f1': 0.667}
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = np.array(names, object)
        self._actual: list[list[str]] = []
        self._answers: list[list[str]] = []

    def update(self, batch: Any, answers: Any) -> None:  # noqa: D102
        for targets, predicted in zip(batch.targets.T, answers.T, strict=True):
            counted = targets != IGNORE_INDEX
            self._actual.append(self._names[targets[counted]].tolist())
            self._answers.append(self._names[predicted[counted]].tolist())

    def _scores(self) -> metrics.ClassScores:
        return metrics.span_scores(self._actual, self._answers)

    def figures(self) -> dict[str, float]:  # noqa: D102
        scores = self._scores()
        return {
            "span_precision": scores.overall_precision,
            "span_recall": scores.overall_recall,
            "span_f1": scores.overall_f1,
        }

    def details(self) -> dict[str, Any]:  # noqa: D102
        return {"classes": self._scores().to_dict()}

    def tables(self) -> list[str]:  # noqa: D102
        return [str(self._scores())]


class TranslationMeasure(Measure):
    """BLEU and chrF of translations by greedy search.

    They serve to select the weights of a run: the references are tokenized, with unknown words
    replaced. ``anaphora evaluate`` computes the numbers to publish.

    Args:
        model: The model.
        tokenizer: The tokenizer of the target.

    >>> from anaphora.data import WordTokenizer
    >>> TranslationMeasure(None, WordTokenizer.fit(["ein Hund"])).tables()
    []
    """

    def __init__(self, model: Any, tokenizer: WordTokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._references: list[str] = []
        self._translations: list[str] = []

    def found(self, batch: Any, answers: Any) -> list[Array]:
        """The ids of the translations."""
        max_length = 2 * len(batch.source) + 10
        found = greedy_search(self._model, batch.source, batch.source_lengths, max_length)
        return [hypothesis.ids for hypothesis in found]

    def update(self, batch: Any, answers: Any) -> None:  # noqa: D102
        for targets, translation in zip(batch.targets.T, answers, strict=True):
            ids = targets[targets != IGNORE_INDEX]
            self._references.append(self._text(ids, unknown="\N{REPLACEMENT CHARACTER}"))
            self._translations.append(self._text(translation, unknown="<unk>"))

    def _text(self, ids: Array, unknown: str) -> str:
        words, end = self._tokenizer.words, self._tokenizer.start_id
        spelled = (
            unknown if k == self._tokenizer.unknown_id else words[k] for k in ids if k != end
        )
        return " ".join(spelled)

    def figures(self) -> dict[str, float]:  # noqa: D102
        pair = self._translations, self._references
        return {"bleu": metrics.bleu(*pair), "chrf": metrics.chrf(*pair)}


def tag_measure(names: Sequence[str]) -> Measure:
    """The measure of tags: `SpanMeasure` if the tags mark spans, else `ClassMeasure`.

    >>> type(tag_measure(["O", "B-PER"])).__name__, type(tag_measure(["NOUN"])).__name__
    ('SpanMeasure', 'ClassMeasure')
    """
    return SpanMeasure(names) if metrics.are_span_tags(names) else ClassMeasure(names)
