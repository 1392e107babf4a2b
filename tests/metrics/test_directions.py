"""Which values of a metric are better."""

import pytest

from anaphora import metrics
from anaphora.metrics import DIRECTIONS, direction, is_better


def test_better_is_what_the_direction_says():
    for name, way in DIRECTIONS.items():
        assert is_better(name, 2.0, 1.0) is (way == "higher")
        assert is_better(name, 1.0, 2.0) is (way == "lower")
        assert not is_better(name, 1.0, 1.0)
        assert is_better(name, 1.0, None)
        assert is_better(name, 1.0, float("nan"))
        assert not is_better(name, float("nan"), 1.0)
        assert not is_better(name, float("nan"), None)


def test_every_function_that_measures_has_a_direction():
    measures = ["accuracy", "bleu", "chrf", "mean_absolute_error", "mean_absolute_scaled_error"]
    for name in [*measures, "r2", "root_mean_squared_error"]:
        assert callable(getattr(metrics, name))
        assert direction(name) == ("lower" if "error" in name else "higher")


def test_an_unknown_metric_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"unknown metric 'f1'; expected accuracy, .*span_f1"):
        direction("f1")
