"""Metrics of classification, spans, regression and translation.

They are computed from plain lists and arrays, independent of models and files.
"""

from anaphora.metrics.classes import (
    ClassScores,
    accuracy,
    class_scores,
    confusion_matrix,
    confusion_table,
    label_scores,
    subset_accuracy,
)
from anaphora.metrics.directions import DIRECTIONS, direction, is_better
from anaphora.metrics.numbers import (
    mean_absolute_error,
    mean_absolute_scaled_error,
    r2,
    root_mean_squared_error,
)
from anaphora.metrics.spans import Span, are_span_tags, find_spans, span_scores
from anaphora.metrics.translation import bleu, chrf

__all__ = [
    "DIRECTIONS",
    "ClassScores",
    "Span",
    "accuracy",
    "are_span_tags",
    "bleu",
    "chrf",
    "class_scores",
    "confusion_matrix",
    "confusion_table",
    "direction",
    "find_spans",
    "is_better",
    "label_scores",
    "mean_absolute_error",
    "mean_absolute_scaled_error",
    "r2",
    "root_mean_squared_error",
    "span_scores",
    "subset_accuracy",
]
