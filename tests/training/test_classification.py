"""What a classifier's numbers stand for: classes, and how series are standardised."""

import json

import numpy as np
import pytest

from anaphora.data import DataError
from anaphora.training import TASKS, ClassifierVocabulary


def test_series_are_standardised_by_the_moments_of_all_training_steps(rng):
    task = TASKS["classify"]
    lengths = (5, 3, 4)
    series = [rng.normal([3, -20], [2, 0.1], (length, 2)) for length in lengths]
    training = list(zip(series, ("up", "down", "up"), strict=True))
    held_out = [(100 + rng.normal(size=(2, 2)), "flat")]

    fitted = task.fit(task.options.make(), training, held_out)
    vocabulary = ClassifierVocabulary.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert vocabulary.classes == ("down", "flat", "up")  # answers are those of all examples

    steps = [step for one in series for step in one]
    mean = [sum(step[i] for step in steps) / len(steps) for i in (0, 1)]
    variance = [sum((step[i] - mean[i]) ** 2 for step in steps) / len(steps) for i in (0, 1)]
    arrays = task.encode(vocabulary, held_out + training)
    expected = np.concatenate([held_out[0][0], *series])
    np.testing.assert_allclose(arrays["inputs"], (expected - mean) / np.sqrt(variance))
    assert arrays["lengths"].tolist() == [2, 5, 3, 4]
    assert arrays["targets"].tolist() == [1, 2, 0, 2]


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("classify", [("one", "good"), ("two", "bad"), ("three", " good")]),
        ("tag", [(["a"], ["good"]), (["b", "c"], ["bad", " good"])]),
    ],
)
def test_labels_of_several_files_that_look_the_same(name, examples):
    task = TASKS[name]
    with pytest.raises(
        DataError, match=r"the files: the (label|tag) 'good' and ' good' .* the same"
    ):
        task.fit(task.options.make(), examples[:2], examples[2:])


def test_series_of_other_channels_are_refused():
    vocabulary = ClassifierVocabulary(("a", "b"), None, np.zeros(2), np.ones(2))
    with pytest.raises(DataError, match="a series has 3 channels; those of the training have 2"):
        vocabulary.encode(np.zeros((4, 3)))


def test_series_of_float16_are_standardised_in_float64(rng):
    task = TASKS["classify"]
    series = [(60000 + 100 * rng.normal(size=(50, 1))).astype(np.float16) for _ in range(4)]
    examples = list(zip(series, "abab", strict=True))
    fitted = task.fit(task.options.make(), examples, [])
    json.dumps(fitted.to_dict(), allow_nan=False)
    steps = np.concatenate(series).astype(np.float64)
    np.testing.assert_allclose(fitted.mean, steps.mean(axis=0))
    np.testing.assert_allclose(fitted.scale, steps.std(axis=0))
    inputs = task.encode(fitted, examples)["inputs"]
    np.testing.assert_allclose([inputs.mean(), inputs.std()], [0, 1], atol=1e-10)


def test_a_value_that_no_float32_holds_is_told_by_channel():
    vocabulary = ClassifierVocabulary(("a", "b"), None, np.zeros(2), np.array([1.0, 0.5]))
    series = np.zeros((4, 2))
    series[2, 1] = 1e300
    with pytest.raises(DataError, match=r"has the value 1e\+300 in channel 1 at step 2, which"):
        vocabulary.encode(series)
    assert vocabulary.encode(np.full((4, 2), 1e38)).max() == 2e38
