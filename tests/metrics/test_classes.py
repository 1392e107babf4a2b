"""Scores of classes and the confusion matrix against scikit-learn's."""

import json

import numpy as np
import pytest

from anaphora.metrics import (
    accuracy,
    class_scores,
    confusion_matrix,
    confusion_table,
    label_scores,
    subset_accuracy,
)


@pytest.mark.parametrize("classes", [2, 5, 9])
def test_scores_are_those_of_scikit_learn(classes, rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn (extra sklearn)")
    for _ in range(20):
        actual = rng.integers(0, max(classes - 1, 2), 40)  # one class is never there
        predicted = np.where(rng.random(40) < 0.6, actual, rng.integers(0, classes, 40))
        predicted[predicted == 1] = 0  # and one is never predicted
        matrix = confusion_matrix(actual, predicted, classes)
        labels = np.arange(classes)
        np.testing.assert_array_equal(
            matrix, metrics.confusion_matrix(actual, predicted, labels=labels)
        )
        scores = class_scores(matrix)
        expected = metrics.precision_recall_fscore_support(
            actual, predicted, labels=labels, zero_division=0
        )
        for found, reference in zip(
            (scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True
        ):
            np.testing.assert_allclose(found, reference, atol=1e-12)
        for name in ("macro", "weighted"):
            reference = metrics.f1_score(actual, predicted, average=name, zero_division=0)
            assert getattr(scores, f"{name}_f1") == pytest.approx(reference)
        assert accuracy(matrix) == pytest.approx(metrics.accuracy_score(actual, predicted))
        assert scores.overall_f1 == pytest.approx(accuracy(matrix))


def test_no_examples():
    matrix = confusion_matrix([], [], 3)
    scores = class_scores(matrix)
    assert (accuracy(matrix), scores.macro_f1, scores.weighted_f1) == (0, 0, 0)


def test_the_table_as_text_and_as_plain_numbers():
    scores = class_scores([[8, 2], [1, 4]], ["setosa", "x"])
    assert str(scores).splitlines() == [
        "        precision   recall       F1  predicted  support",
        "setosa    88.89 %  80.00 %  84.21 %          9       10",
        "x         66.67 %  80.00 %  72.73 %          6        5",
    ]
    plain = json.loads(json.dumps(scores.to_dict()))
    assert plain["x"] == {
        "precision": pytest.approx(2 / 3),
        "recall": 0.8,
        "f1": pytest.approx(8 / 11),
        "predicted": 6,
        "support": 5,
    }


def test_the_confusion_matrix_as_text():
    assert confusion_table([[10, 0], [3, 4]], ["a long name", "b"]).splitlines() == [
        "actual          0  1",
        "0 a long name  10  0",
        "1 b             3  4",
    ]
    matrix = np.diag(np.full(30, 5))
    assert confusion_table(matrix) == "none of 30 classes was confused with another"
    matrix[4, 17], matrix[2, 0], matrix[0, 2] = 12, 3, 7
    assert confusion_table(matrix, limit=2).splitlines() == [
        "actual  predicted  count",
        "4       17            12",
        "0       2              7",
    ]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"predicted has the class 2 at index 1; expected 0 to 1"):
        confusion_matrix([0, 1], [0, 2], 2)
    with pytest.raises(ValueError, match=r"actual has the class -100 at index 0"):
        confusion_matrix([-100, 1], [0, 1], 2)
    with pytest.raises(ValueError, match=r"actual has the shape \(2,\) and predicted \(3,\)"):
        confusion_matrix([0, 1], [0, 1, 1], 2)
    with pytest.raises(ValueError, match=r"the matrix has the shape \(1, 2\); expected \[C, C\]"):
        class_scores([[1, 2]])
    with pytest.raises(ValueError, match="3 names for 2 classes"):
        class_scores([[1, 2], [3, 4]], ["a", "b", "c"])


def test_several_labels_are_counted_as_by_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn (extra sklearn)")
    actual, predicted = rng.random((2, 50, 6)) < [0.1, 0.3, 0.5, 0.7, 0.9, 0.0]
    predicted[:, 0], actual[:, 1] = False, False  # precision and recall of nothing
    predicted[:5] = actual[:5]
    scores = label_scores(actual, predicted, list("abcdef"))
    given = {"average": None, "zero_division": 0.0}
    np.testing.assert_allclose(
        scores.precision, metrics.precision_score(actual, predicted, **given)
    )
    np.testing.assert_allclose(scores.recall, metrics.recall_score(actual, predicted, **given))
    np.testing.assert_allclose(scores.f1, metrics.f1_score(actual, predicted, **given))
    assert scores.overall_f1 == pytest.approx(metrics.f1_score(actual, predicted, average="micro"))
    assert (scores.support[5], scores.predicted[5]) == (0, 0)
    assert scores.macro_f1 == pytest.approx(
        metrics.f1_score(actual, predicted, average="macro", zero_division=np.nan)
    )
    exact = metrics.accuracy_score(actual, predicted)
    assert subset_accuracy(actual, predicted) == pytest.approx(exact)
    assert 0 < exact < 1


def test_labels_of_other_shapes_are_refused():
    wrong = r"actual has the shape \(2, 3\) and predicted \(2,\); expected \[N, C\] for both"
    with pytest.raises(ValueError, match=f"label_scores: {wrong}"):
        label_scores(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match=f"subset_accuracy: {wrong}"):
        subset_accuracy(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="label_scores: 2 names for 3 labels"):
        label_scores(np.zeros((2, 3)), np.zeros((2, 3)), ["a", "b"])
    empty = np.zeros((0, 3))
    assert subset_accuracy(empty, empty) == 0
    assert label_scores(empty, empty).names == ("0", "1", "2")
