"""What the numbers of models stand for: classes and series, words, their spelling, and tags."""

import json

import numpy as np
import pytest

from anaphora.data import (
    ClassifierCodec,
    Column,
    DataError,
    Frames,
    RegressorCodec,
    TaggerCodec,
)


def test_series_are_standardised_by_the_moments_of_all_training_steps(rng):
    lengths = (5, 3, 4)
    series = [rng.normal([3, -20], [2, 0.1], (length, 2)) for length in lengths]
    training = list(zip(series, ("up", "down", "up"), strict=True))
    held_out = [(100 + rng.normal(size=(2, 2)), "flat")]

    fitted = ClassifierCodec.fit(training, held_out)
    codec = ClassifierCodec.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert codec.classes == ("down", "flat", "up")  # answers are those of all examples

    steps = [step for one in series for step in one]
    mean = [sum(step[i] for step in steps) / len(steps) for i in (0, 1)]
    variance = [sum((step[i] - mean[i]) ** 2 for step in steps) / len(steps) for i in (0, 1)]
    arrays = codec.encode(held_out + training)
    expected = np.concatenate([held_out[0][0], *series])
    np.testing.assert_allclose(arrays["inputs"], (expected - mean) / np.sqrt(variance))
    assert arrays["lengths"].tolist() == [2, 5, 3, 4]
    assert arrays["targets"].tolist() == [1, 2, 0, 2]


@pytest.mark.parametrize(
    ("codec", "examples"),
    [
        (ClassifierCodec, [("one", "good"), ("two", "bad"), ("three", " good")]),
        (TaggerCodec, [(["a"], ["good"]), (["b", "c"], ["bad", " good"])]),
    ],
)
def test_labels_of_several_files_that_look_the_same(codec, examples):
    with pytest.raises(
        DataError, match=r"the files: the (label|tag) 'good' and ' good' .* the same"
    ):
        codec.fit(examples[:2], examples[2:])


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        (["B-X I-X O", "O B-Y B-Y"], "BIO"),
        (["I-X I-X O I-Y", "I-X B-X"], "IOB1"),
        (["S-X O B-Y I-Y E-Y"], "BIOES"),
        (["B-X I-X L-X U-Y"], None),
        (["NOUN O"], None),
        (["O O"], None),
        (["B I O"], None),
        (["B-X O", "B-X O", "I-X O"], "BIO"),  # with a mistake
    ],
)
def test_tags_show_how_they_mark_spans(sentences, scheme):
    examples = [(["a"] * len(tags.split()), tags.split()) for tags in sentences]
    fitted = TaggerCodec.fit(examples[:1], examples[1:])
    codec = TaggerCodec.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert codec.to_dict() == fitted.to_dict()
    assert codec.scheme == scheme


def test_labels_that_training_lacked_are_the_last_ones():
    codec = TaggerCodec.fit([(["a", "a"], ["Y", "X"])])
    more = codec.with_labels_of([(["a", "a", "a"], ["Z", "Y", "A"])])
    assert (codec.labels, more.labels) == (("X", "Y"), ("X", "Y", "A", "Z"))
    assert more.encode([(["a"], ["Z"])])["tags"].tolist() == [3]
    with pytest.raises(
        DataError, match="the tag 'Z' is not one of the 2 tags of the training: 'X'"
    ):
        codec.encode([(["a"], ["Z"])])
    codec = ClassifierCodec(("b", "c"), None, np.zeros(1), np.ones(1))
    assert codec.with_labels_of([(np.ones((2, 1)), "a")]).classes == ("b", "c", "a")


def test_series_of_other_channels_are_refused():
    codec = ClassifierCodec(("a", "b"), None, np.zeros(2), np.ones(2))
    with pytest.raises(DataError, match="a series has 3 channels; those of the training have 2"):
        codec.encode_input(np.zeros((4, 3)))


def test_series_of_float16_are_standardised_in_float64(rng):
    series = [(60000 + 100 * rng.normal(size=(50, 1))).astype(np.float16) for _ in range(4)]
    examples = list(zip(series, "abab", strict=True))
    fitted = ClassifierCodec.fit(examples)
    json.dumps(fitted.to_dict(), allow_nan=False)
    steps = np.concatenate(series).astype(np.float64)
    np.testing.assert_allclose(fitted.mean, steps.mean(axis=0))
    np.testing.assert_allclose(fitted.scale, steps.std(axis=0))
    inputs = fitted.encode(examples)["inputs"]
    np.testing.assert_allclose([inputs.mean(), inputs.std()], [0, 1], atol=1e-10)


def test_a_value_that_no_float32_holds_is_reported_by_channel():
    codec = ClassifierCodec(("a", "b"), None, np.zeros(2), np.array([1.0, 0.5]))
    series = np.zeros((4, 2))
    series[2, 1] = 1e300
    with pytest.raises(DataError, match=r"has the value 1e\+300 in channel 1 at step 2, which"):
        codec.encode_input(series)
    assert codec.encode_input(np.full((4, 2), 1e38)).max() == 2e38


TRAINING = [
    (["Der", "Hund", "und", "der", "Hut"], list("DNCDN")),
    (["und", "DER", "Hut"], list("CDN")),
]
HELD_OUT = [(["Der", "Tag"], list("DX"))]


@pytest.mark.parametrize(
    ("changes", "words", "ids"),
    [
        ({}, ("der", "hut", "und"), [1, 0, 3]),  # the most frequent first, then by the alphabet
        ({"vocabulary_size": 1}, ("der",), [1, 0, 0]),
        ({"minimum_count": 1}, ("der", "hut", "und", "hund"), [1, 0, 3]),
        ({"lowercase": False}, ("Hut", "und"), [0, 0, 2]),
    ],
)
def test_words_are_those_of_training_and_tags_those_of_all(changes, words, ids):
    fitted = TaggerCodec.fit(
        TRAINING, HELD_OUT, **{"minimum_count": 2, "lowercase": True, **changes}
    )
    codec = TaggerCodec.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert codec.words == words
    assert codec.tags == ("C", "D", "N", "X")
    assert codec.encode_words(["Der", "Tag", "und"]).tolist() == ids


def test_arrays_hold_words_spellings_and_tags_in_the_order_of_the_text():
    codec = TaggerCodec.fit(TRAINING, HELD_OUT, minimum_count=2, lowercase=True)
    arrays = codec.encode(HELD_OUT)
    assert arrays["lengths"].tolist() == [2]
    assert arrays["tags"].tolist() == [1, 3]
    assert arrays["character_lengths"].tolist() == [3, 3]
    spelled = codec.characters.decode(arrays["characters"])
    assert (spelled[0], spelled[1:3]) == ("D", "er")  # the case of the spelling stays
    (batch,) = codec.batches(arrays, 4, "float32")
    assert batch.inputs[:, 0].tolist() == [1, 0]
    assert batch.characters[:, 0, 0].tolist() == arrays["characters"][:3].tolist()
    assert batch.characters[:, 1, 0].tolist() == arrays["characters"][3:].tolist()


def test_series_in_frames_come_back_from_plain_data(rng):
    series = [rng.normal([3, -20], [2, 0.1], (length, 2)) for length in (90, 70, 80)]
    examples = list(zip(series, "aba", strict=True))
    fitted = ClassifierCodec.fit(examples, max_frames=10)
    assert (fitted.frames.stride, fitted.frames.size) == (8, 24)  # the median length is 80
    assert fitted.sizes() == {"num_classes": 2, "multi_label": False, "input_size": 2 * 25}
    codec = ClassifierCodec.from_dict(json.loads(json.dumps(fitted.to_dict())))
    arrays, again = fitted.encode(examples), codec.encode(examples)
    assert arrays["lengths"].tolist() == [12, 9, 10]
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
    expected = Frames.fit(series, 10)(series[1])
    np.testing.assert_array_equal(arrays["inputs"][12:21], expected)
    assert ClassifierCodec.fit(examples, max_frames=90).frames is None  # no series is that long


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 0}, "frames.stride is 0; expected 1 to frames.size, 24"),
        ({"stride": 25}, "frames.stride is 25; expected 1 to frames.size"),
        ({"spread": [1.0]}, "expected a number above 0 for each channel"),
        ({"spread": [1.0, -1.0]}, "expected a number above 0 for each channel"),
        ({"size": "24"}, "frames.size is '24'; expected int"),
    ],
)
def test_damaged_frames_are_named(rng, change, message):
    series = [rng.normal(size=(80, 2)) for _ in range(2)]
    data = ClassifierCodec.fit(list(zip(series, "ab", strict=True)), max_frames=10).to_dict()
    data["frames"] |= change
    with pytest.raises(ValueError, match=message):
        ClassifierCodec.from_dict(data)


def test_a_regressor_reads_series_in_frames(rng):
    series = [rng.normal([3, -20], [2, 0.1], (length, 2)) for length in (90, 70, 80)]
    examples = [(one, (float(n),)) for n, one in enumerate(series)]
    codec = RegressorCodec.fit(examples, max_frames=10)
    assert codec.sizes() == {"num_outputs": 1, "input_size": 2 * 25}
    arrays = codec.encode(examples)
    assert arrays["lengths"].tolist() == [12, 9, 10]
    np.testing.assert_array_equal(arrays["inputs"][12:21], Frames.fit(series, 10)(series[1]))
    steps = RegressorCodec.fit(examples).encode(examples)
    assert steps["lengths"].tolist() == [90, 70, 80]
    together = np.concatenate(series)
    expected = (together - together.mean(axis=0)) / together.std(axis=0)
    np.testing.assert_allclose(steps["inputs"], expected, rtol=1e-5, atol=1e-6)


SETS = [("abba", ("x", "y")), ("ab", ()), ("b", ("y",)), ("a", "x"), ("ba", ("z", "y"))]


def test_several_labels_are_rows_of_booleans_and_come_back():
    fitted = ClassifierCodec.fit(SETS[:3], SETS[3:])
    codec = ClassifierCodec.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert (codec.multi_label, codec.classes) == (True, ("x", "y", "z"))
    assert codec.sizes() == {"num_classes": 3, "multi_label": True, "vocabulary_size": 2}
    targets = codec.encode(SETS)["targets"]
    assert targets.dtype == bool
    expected = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 1]]
    assert targets.astype(int).tolist() == expected
    assert codec.answer_column() == Column("sequences", features=3, booleans=True)
    (batch,) = codec.batches(codec.encode(SETS), 8, "float32")
    assert batch.targets.dtype == bool
    assert batch.tokens == 5
    more = codec.with_labels_of([("a", ("w", "x")), ("a", "v")])
    assert more.classes == ("x", "y", "z", "v", "w")
    assert more.encode_answers([("w", "x")]).tolist() == [[True, False, False, False, True]]
    with pytest.raises(DataError, match="the label 'w' is not one of the 3 labels of the training"):
        codec.encode_answers([("w",)])


def test_one_label_each_is_stored_as_before():
    one = ClassifierCodec.fit([("a", "x"), ("b", "y")])
    assert "multi_label" not in one.to_dict()
    assert one.encode_answers([("y",), "x"]).tolist() == [1, 0]
    assert one.with_labels_of([("a", ("z", "x"))]).classes == ("x", "y", "z")
    with pytest.raises(DataError, match="has the labels 'x', 'y'; the classifier expects one"):
        one.encode_answers([("x", "y")])
    with pytest.raises(DataError, match="an example has no label; the classifier"):
        one.encode_answers([()])


def test_several_labels_that_leave_nothing_to_learn_are_reported():
    for answers, message in [
        ([("x",), "x"], "have the label 'x'; expected two or more sets of labels"),
        ([("x", "y"), ("y", "x")], "have the labels 'x', 'y'; expected two or more sets of labels"),
        ([(), ()], "have no label; expected two or more sets"),
        (["x", "x"], "have the label 'x'; expected two or more$"),
    ]:
        with pytest.raises(DataError, match=f"all examples {message}"):
            ClassifierCodec.fit([("ab", answer) for answer in answers])
    codec = ClassifierCodec.fit([("a", ("x",)), ("b", ())])  # one label, which some have
    assert ClassifierCodec.from_dict(codec.to_dict()).classes == ("x",)
    damaged = {**codec.to_dict(), "multi_label": False}
    with pytest.raises(ValueError, match="classes has 1 names; expected at least 2"):
        ClassifierCodec.from_dict(damaged)
