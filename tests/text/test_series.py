"""Series of measurements from files of the archives: what is read, and what is refused."""

import numpy as np
import pytest

from anaphora.text import TextError, moments, read_series


def test_channels_steps_and_classes(tmp_path):
    path = tmp_path / "three.ts"
    path.write_text(
        "# about the data\n@dimensions 2\n@classLabel true up down\n@DATA\n"
        "1,2,3:4,5,6:up\n\n-1.5,2e-3:9,8: down \n7:7:up\n"
    )
    series, classes = read_series(path)
    assert [x.tolist() for x in series] == [
        [[1, 4], [2, 5], [3, 6]], [[-1.5, 9], [0.002, 8]], [[7, 7]]
    ]  # fmt: skip
    assert classes == ["up", "down", "up"]
    assert all(x.dtype == np.float64 for x in series)


def test_a_table_of_one_channel(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.array([[2, 0.5, 1.5], [1, 3, 4]], np.float32))
    series, classes = read_series(path)
    assert [x.tolist() for x in series] == [[[0.5], [1.5]], [[3], [4]]]
    assert classes == ["2", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1,2:up\n", "has no line @data"),
        ("@data\n\n", "has no series behind its line @data"),
        ("@data\n1,2:up\n1,?:up\n", "line 3: could not convert .*no missing ones"),
        ("@data\n1,nan:up\n", "line 2: a value is not finite"),
        ("@data\n1,2:3:up\n", "line 2: channels of 1 to 2 steps; wanted channels of one length"),
        ("@data\nup\n", "line 2: no channel"),
        ("@data\n1,2:up\n1,2:3,4:up\n", "line 3: 2 channels; those above have 1"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.ts"
    path.write_text(text)
    with pytest.raises(TextError, match=rf"bad\.ts.*{message}"):
        read_series(path)


def test_the_case_of_a_suffix_does_not_matter(tmp_path):
    path = tmp_path / "ONE.NPY"
    with path.open("wb") as file:
        np.save(file, np.array([[2.0, 0.5, 0.25]]))
    (series,), classes = read_series(path)
    assert (series.tolist(), classes) == ([[0.5], [0.25]], ["2"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.ones(3), r"holds float64 \(3,\); wanted rows"),
        (np.ones((0, 3)), "wanted rows"),
        (np.array([[1, np.inf]]), "not all of it finite numbers"),
        (np.array([["a", "b"]]), "not all of it finite numbers"),
        (np.array([[1, 0.5], [1.5, 2]]), r"a class 1\.5 in column 0; wanted whole numbers"),
    ],
)
def test_tables_that_are_refused(tmp_path, table, message):
    path = tmp_path / "bad.npy"
    np.save(path, table)
    with pytest.raises(TextError, match=message):
        read_series(path)
    with pytest.raises(TextError, match="cannot be read as an array"):
        read_series(tmp_path / "missing.npy")


def test_moments_of_a_constant():
    values = np.random.default_rng(1).normal(3, 2, (50, 4))
    values[:, 2] = 7
    mean, deviation = moments(values)
    np.testing.assert_allclose(mean, values.sum(axis=0) / 50)
    expected = np.sqrt(((values - mean) ** 2).sum(axis=0) / 50)
    np.testing.assert_allclose(deviation, np.where([1, 1, 0, 1], expected, 1.0))
    assert moments(np.full((50, 1), 0.1))[1] == 1  # by rounding it would be 3e-17


@pytest.mark.parametrize(
    "values",
    [
        np.array([[60000.0, 1.0], [65000.0, 2.0]], np.float16),  # their sum overflows, and squares
        np.array([[3e38, 1.0], [-3e38, 2.0]], np.float32),  # so do these squares
        np.array([[200, 1], [250, 2]], np.uint8),
        np.array([[2**62, 1], [2**62 + 2**40, 2]], np.int64),
    ],
)
def test_moments_are_taken_in_float64(values):
    mean, deviation = moments(values)
    assert mean.dtype == deviation.dtype == np.float64
    exact = values.astype(np.float64)
    np.testing.assert_allclose(mean, (exact[0] + exact[1]) / 2, rtol=1e-15)
    np.testing.assert_allclose(deviation, np.abs(exact[0] - exact[1]) / 2, rtol=1e-15)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [[1.0, 1e200], [2.0, -3e200]],
            r"^channel 1 has values as large as 3e\+200, whose squares",
        ),
        ([[1.0, 2.0], [np.nan, 2.0]], "^channel 0 has the value nan, which is not finite"),
        ([[1.0, 2.0], [1.0, np.inf]], "^channel 1 has the value inf, which is not finite"),
        (np.zeros((0, 3)), "^there is no step of which to take a mean"),
    ],
)
def test_moments_that_do_not_exist_are_told_by_channel(values, message):
    with pytest.raises(TextError, match=message):
        moments(values)
