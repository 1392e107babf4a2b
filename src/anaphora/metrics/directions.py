"""Which of two values of a metric is the better one."""

import math

DIRECTIONS = {
    "loss": "lower",
    "perplexity": "lower",
    "bits_per_token": "lower",
    "accuracy": "higher",
    "subset_accuracy": "higher",
    "micro_f1": "higher",
    "macro_f1": "higher",
    "weighted_f1": "higher",
    "span_precision": "higher",
    "span_recall": "higher",
    "span_f1": "higher",
    "bleu": "higher",
    "chrf": "higher",
    "mean_squared_error": "lower",
    "root_mean_squared_error": "lower",
    "mean_absolute_error": "lower",
    "mean_absolute_scaled_error": "lower",
    "quantile_loss": "lower",
    "r2": "higher",
}
"""For each metric by name whether "higher" or "lower" values are better."""


def direction(name: str) -> str:
    """Whether "higher" or "lower" values of a metric are better.

    Raises:
        ValueError: the metric is unknown; the message lists the known ones.

    >>> direction("span_f1"), direction("perplexity")
    ('higher', 'lower')
    """
    if name not in DIRECTIONS:
        raise ValueError(f"unknown metric {name!r}; expected {', '.join(sorted(DIRECTIONS))}")
    return DIRECTIONS[name]


def is_better(name: str, value: float, best: float | None) -> bool:
    """Whether a value of a metric is better than the best so far, which is None before the first.

    NaN is never better, and every other value is better than NaN.

    Raises:
        ValueError: as for `direction`.

    >>> is_better("accuracy", 0.8, best=0.7), is_better("loss", 0.8, best=0.7)
    (True, False)
    >>> is_better("loss", float("nan"), best=None)
    False
    """
    higher = direction(name) == "higher"
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    return value > best if higher else value < best
