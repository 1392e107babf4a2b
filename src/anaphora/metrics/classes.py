"""Precision, recall and F1 of each class, and the confusion matrix that they follow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """How well each of C classes, or types of spans, was found.

        precision = correct / predicted
        recall = correct / support
        F1 = 2 correct / (predicted + support)

    A ratio with a denominator of 0 is 0, as in scikit-learn and conlleval. `str` gives a table.

    Attributes:
        names: The names of the classes.
        correct: [C] the number of correct predictions of each class.
        predicted: [C] the number of predictions of each class.
        support: [C] the number of examples of each class.

    >>> scores = ClassScores(("cat", "dog"), np.array([3, 1]), np.array([4, 2]), np.array([3, 3]))
    >>> scores.precision.tolist(), scores.recall.round(2).tolist(), scores.f1.round(2).tolist()
    ([0.75, 0.5], [1.0, 0.33], [0.86, 0.4])
    >>> round(scores.macro_f1, 3), round(scores.overall_f1, 3)
    (0.629, 0.667)
    >>> print(scores)
         precision    recall       F1  predicted  support
    cat    75.00 %  100.00 %  85.71 %          4        3
    dog    50.00 %   33.33 %  40.00 %          2        3
    """

    names: tuple[str, ...]
    correct: Counts
    predicted: Counts
    support: Counts

    @property
    def precision(self) -> Shares:
        """[C]."""
        return _share(self.correct, self.predicted)

    @property
    def recall(self) -> Shares:
        """[C]."""
        return _share(self.correct, self.support)

    @property
    def f1(self) -> Shares:
        """[C], the harmonic mean of precision and recall."""
        return _share(2 * self.correct, self.predicted + self.support)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that occur or were predicted; 0 if there are none."""
        occurring = self.predicted + self.support > 0
        return float(self.f1[occurring].mean()) if occurring.any() else 0.0

    @property
    def weighted_f1(self) -> float:
        """The mean F1 weighted by support; 0 if there is none."""
        return float(_share(self.f1 @ self.support, self.support.sum()))

    @property
    def overall_precision(self) -> float:
        """The precision of all classes counted together (micro average)."""
        return float(_share(self.correct.sum(), self.predicted.sum()))

    @property
    def overall_recall(self) -> float:
        """The recall of all classes counted together."""
        return float(_share(self.correct.sum(), self.support.sum()))

    @property
    def overall_f1(self) -> float:
        """The F1 of all classes counted together; for spans, the published figure."""
        return float(_share(2 * self.correct.sum(), self.predicted.sum() + self.support.sum()))

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The scores and counts of each class as plain numbers, by name."""
        return {
            name: {
                "precision": float(self.precision[k]),
                "recall": float(self.recall[k]),
                "f1": float(self.f1[k]),
                "predicted": int(self.predicted[k]),
                "support": int(self.support[k]),
            }
            for k, name in enumerate(self.names)
        }

    def __str__(self) -> str:
        columns = [
            ["", *self.names],
            ["precision", *map(_percent, self.precision)],
            ["recall", *map(_percent, self.recall)],
            ["F1", *map(_percent, self.f1)],
            ["predicted", *map(str, self.predicted)],
            ["support", *map(str, self.support)],
        ]
        return _table(columns)


def confusion_matrix(actual: ArrayLike, predicted: ArrayLike, num_classes: int) -> Counts:
    """How often examples of each class were predicted as each class.

    Args:
        actual: [N] the classes, 0 <= class < num_classes.
        predicted: [N] the predicted classes.
        num_classes: C.

    Returns:
        [C, C]: a row for each actual class, a column for each predicted one.

    Raises:
        ValueError: the two differ in length, or a class is out of range.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], num_classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    rows, columns = np.asarray(actual, np.int64), np.asarray(predicted, np.int64)
    if rows.ndim != 1 or rows.shape != columns.shape:
        raise ValueError(
            f"confusion_matrix: actual has the shape {rows.shape} and predicted {columns.shape}; "
            "expected [N] for both"
        )
    for name, classes in (("actual", rows), ("predicted", columns)):
        wrong = np.flatnonzero((classes < 0) | (classes >= num_classes))
        if len(wrong):
            raise ValueError(
                f"confusion_matrix: {name} has the class {classes[wrong[0]]} at index {wrong[0]}; "
                f"expected 0 to {num_classes - 1}"
            )
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.astype(np.int64).reshape(num_classes, num_classes)


def class_scores(matrix: ArrayLike, names: Sequence[str] | None = None) -> ClassScores:
    """The scores of each class, from a confusion matrix.

    Args:
        matrix: [C, C], as from `confusion_matrix`.
        names: The names of the classes; their numbers if None.

    Raises:
        ValueError: the matrix is not square, or there is not one name for each class.

    >>> class_scores([[1, 1], [0, 1]], ["cat", "dog"]).recall.tolist()
    [0.5, 1.0]
    """
    counts, named = _named(matrix, names, "class_scores")
    return ClassScores(named, counts.diagonal().copy(), counts.sum(axis=0), counts.sum(axis=1))


def label_scores(
    actual: ArrayLike, predicted: ArrayLike, names: Sequence[str] | None = None
) -> ClassScores:
    """The scores of each label, if an example may have several or none.

    `ClassScores.overall_f1` is then the micro average, over all labels of all examples, and
    `ClassScores.macro_f1` the mean over the labels that occur or were predicted; both are
    scikit-learn's ``f1_score`` of the same arrays, the latter with ``zero_division=nan``. Source:
    Tsoumakas & Katakis 2007, "Multi-Label Classification: An Overview".

    Args:
        actual: [N, C] whether an example has a label.
        predicted: [N, C] whether the label was predicted.
        names: The names of the labels; their numbers if None.

    Raises:
        ValueError: the two differ in shape, or there is not one name for each label.

    >>> scores = label_scores([[1, 1], [0, 1], [0, 0]], [[1, 0], [1, 1], [0, 0]], ["cat", "dog"])
    >>> scores.precision.tolist(), scores.recall.tolist(), round(scores.overall_f1, 3)
    ([0.5, 1.0], [1.0, 0.5], 0.667)
    """
    real, found = _indicators(actual, predicted, "label_scores")
    if names is None:
        names = [str(k) for k in range(real.shape[1])]
    if len(names) != real.shape[1]:
        raise ValueError(f"label_scores: {len(names)} names for {real.shape[1]} labels")
    counts = ((real & found).sum(axis=0), found.sum(axis=0), real.sum(axis=0))
    return ClassScores(tuple(map(str, names)), *counts)


def subset_accuracy(actual: ArrayLike, predicted: ArrayLike) -> float:
    """The share of examples with exactly the right set of labels; 0 if there are no examples.

    It is scikit-learn's multi-label ``accuracy_score``, also called exact match ratio. The
    arguments are those of `label_scores`.

    Raises:
        ValueError: the two differ in shape.

    >>> subset_accuracy([[1, 1], [0, 1], [0, 0]], [[1, 0], [0, 1], [0, 0]])
    0.666...
    """
    real, found = _indicators(actual, predicted, "subset_accuracy")
    return float(_share((real == found).all(axis=1).sum(), len(real)))


def _indicators(
    actual: ArrayLike, predicted: ArrayLike, owner: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    real, found = np.asarray(actual), np.asarray(predicted)
    if real.ndim != 2 or real.shape != found.shape:
        raise ValueError(
            f"{owner}: actual has the shape {real.shape} and predicted {found.shape}; expected "
            "[N, C] for both"
        )
    return real.astype(bool), found.astype(bool)


def accuracy(matrix: ArrayLike) -> float:
    """The share of correct predictions, from their confusion matrix [C, C].

    >>> accuracy([[1, 1], [0, 2]])
    0.75
    """
    counts = np.asarray(matrix)
    return float(_share(counts.trace(), counts.sum()))


def confusion_table(matrix: ArrayLike, names: Sequence[str] | None = None, limit: int = 20) -> str:
    """A confusion matrix as text: a row for each actual class, a column for each predicted one.

    Columns have numbers, and rows have numbers and names, so that long names fit. If there are more
    than `limit` classes, the pairs that were confused most often are listed instead.

    Args:
        matrix: [C, C], as from `confusion_matrix`.
        names: The names of the classes; their numbers if None.
        limit: The maximum number of classes shown as a matrix, and of listed pairs.

    Raises:
        ValueError: as for `class_scores`.

    >>> print(confusion_table([[5, 1], [0, 12]], ["cat", "dog"]))
    actual  0   1
    0 cat   5   1
    1 dog   0  12
    """
    counts, named = _named(matrix, names, "confusion_table")
    if len(named) > limit:
        off = counts.copy()
        np.fill_diagonal(off, 0)
        order = np.argsort(-off, axis=None, kind="stable")[:limit]
        pairs = [divmod(int(k), len(named)) for k in order if off.ravel()[k]]
        if not pairs:
            return f"none of {len(named)} classes was confused with another"
        return _table(
            [
                ["actual", *(named[i] for i, _ in pairs)],
                ["predicted", *(named[j] for _, j in pairs)],
                ["count", *(str(off[pair]) for pair in pairs)],
            ],
            left=2,
        )
    columns = [["actual", *(f"{k} {name}" for k, name in enumerate(named))]]
    columns += [[str(j), *map(str, counts[:, j])] for j in range(len(named))]
    return _table(columns)


def _named(
    matrix: ArrayLike, names: Sequence[str] | None, owner: str
) -> tuple[Counts, tuple[str, ...]]:
    """The matrix as an array, and a name for each of its classes."""
    counts = np.asarray(matrix, np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"{owner}: the matrix has the shape {counts.shape}; expected [C, C]")
    if names is None:
        names = [str(k) for k in range(len(counts))]
    if len(names) != len(counts):
        raise ValueError(f"{owner}: {len(names)} names for {len(counts)} classes")
    return counts, tuple(map(str, names))


def _share(count: Any, total: Any) -> Shares:
    """The count divided by the total; 0 where that is 0."""
    return np.asarray(np.where(total > 0, count / np.maximum(total, 1), 0.0))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _table(columns: list[list[str]], left: int = 1) -> str:
    """Columns separated by two spaces, the first `left` of them aligned left."""
    padded = []
    for k, column in enumerate(columns):
        width = max(map(len, column))
        padded.append([f"{cell:<{width}}" if k < left else f"{cell:>{width}}" for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))
