"""Series of measurements from files of the archives: what is read, and what is refused."""

import gzip

import numpy as np
import pytest

from anaphora.data import DataError, moments, read_series


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


def write_ts(folder, text):
    path = folder / "bad.ts"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1,2:up\n", "has no line @data"),
        ("@data\n\n# none\n", "has no series after its line @data"),
        ("@data\n1,2:up\n1,?:up\n", r"line 3, channel 1, step 2: the value is missing \('\?'\)"),
        ("@data\n# 1\n1,2:3, NaN :up\n", r"line 3, channel 2, step 2: the value is missing"),
        ("@data\n1,2,:up\n", r"line 2, channel 1, step 3: the value is missing \(''\)"),
        ("@data\n1,inf:up\n", "line 2, channel 1, step 2: inf is not finite; fix it"),
        ("@data\n1,1_0:up\n", "line 2, channel 1, step 2: '1_0' is no number; wanted numbers"),
        (
            "@data\n(0,1),(1,2):up\n",
            r"line 2, channel 1, step 1: '\(0' is no number; .* no time stamps",
        ),
        (
            "@data\n1,2:3:up\n",
            "line 2: channels of 1 to 2 steps; wanted channels of one length, and",
        ),
        ("@data\nup\n", "line 2: there is no channel, or no class"),
        ("@data\n1,2:up\n1,2:3,4:up\n", "line 3: 2 channels; those above have 1"),
        (
            "@data\n1,2:up\n3,4:\n",
            r"line 3: there is no class after the last colon \(''\); give it",
        ),
        ("@data\n1,2:up\n3,4:?\n", r"line 3: there is no class after the last colon \('\?'\)"),
        (
            "@data\n1:2\n3:4\n",
            "line 2: whether '2' is a class or a channel cannot be told; say @cl",
        ),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"bad\.ts.*{message}"):
        read_series(write_ts(tmp_path, text))


UP, BARE = "1,2:3,4:up\n5,6:7,8:down\n", "1,2:3,4\n5,6:7,8\n"


@pytest.mark.parametrize(
    ("header", "data", "answers"),
    [
        # What the header says
        ("@classLabel true down up", UP, ["up", "down"]),
        ("@CLASSLABEL TRUE", UP, ["up", "down"]),
        ("@classLabel true 4 8 9", "1,2:3,4:4\n5,6:7,8:8\n", ["4", "8"]),
        ("@classLabel false", BARE, None),
        ("@classLabel false\n@targetLabel false", BARE, None),
        ("@targetLabel true", "1,2:3,4:0.5\n5,6:7,8:-1e3\n", [0.5, -1000.0]),
        ("@targetLabel true\n@classLabel false", "1,2:3,4:1\n5,6:7,8:2\n", [1.0, 2.0]),
        # Where it says nothing: its channels, or the lines
        ("@dimensions 2", BARE, None),
        ("@dimension 2", "1,2:3,4:1\n5,6:7,8:2\n", ["1", "2"]),
        ("@targetLabel false", UP, ["up", "down"]),
        ("", UP, ["up", "down"]),
        ("", "1,2:3,4:5\n5,6:7,8:6\n", ["5", "6"]),
        ("", BARE, None),
    ],
)
def test_whether_series_have_classes_targets_or_nothing(tmp_path, header, data, answers):
    comments = "# a comment\n% another\n\n@problemName Two words\n" if header else ""
    path = write_ts(tmp_path, f"{comments}{header}\n@data\n{data}")
    series, found = read_series(path)
    assert [x.tolist() for x in series] == [[[1, 3], [2, 4]], [[5, 7], [6, 8]]]
    assert found == answers
    assert found is None or [type(a) for a in found] == [type(a) for a in answers]


@pytest.mark.parametrize(
    ("header", "data", "answers"),
    [
        ("@univariate true\n", "1:2\n3:4\n", ["2", "4"]),
        ("@univariate true\n", "1\n3\n", None),
        ("@classLabel true 2 4\n", "1:2\n3:4\n", ["2", "4"]),
        ("", "1:2\n3:?\n5,6:4\n", "there is no class"),
        ("", "1\n3\n", None),
        ("", "1:2\n3,4:4\n", ["2", "4"]),
    ],
)
def test_series_of_one_step(tmp_path, header, data, answers):
    path = write_ts(tmp_path, f"{header}@data\n{data}")
    if isinstance(answers, str):
        with pytest.raises(DataError, match=answers):
            read_series(path)
        return
    series, found = read_series(path)
    assert (series[0].tolist(), found) == ([[1]], answers)


def test_all_fields_of_a_header(tmp_path):
    header = (
        "@problemName Vowels\n@timeStamps false\n@missing false\n@univariate false\n"
        "@dimensions 2\n@equalLength true\n@seriesLength 2\n@classLabel true up down\n"
    )
    series, classes = read_series(write_ts(tmp_path, f"{header}@data\n{UP}"))
    assert (len(series), classes) == (2, ["up", "down"])
    header = header.replace("@equalLength true\n@seriesLength 2", "@equalLength false")
    _, classes = read_series(write_ts(tmp_path, f"{header}@data\n{UP}9:9:up\n"))
    assert classes == ["up", "down", "up"]


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ("@timeStamps true", UP, "line 1: the values have time stamps, which are not read; leave"),
        ("@missing true", "1,?:3,4:up\n", "line 3, channel 1, step 2: the value is missing"),
        ("@univariate true", UP, "line 3: 2 channels, but the header says @univariate true"),
        ("@univariate false", "1,2:up\n", "line 3: 1 channels, but the header says @univariate fa"),
        ("@dimensions 3", UP, "line 3: 2 channels, but the header says @dimensions 3"),
        ("@dimensions 1", UP, "line 3: 2 channels, but the header says @dimensions 1"),
        ("@seriesLength 3", UP, "line 3: 2 steps, but the header says @seriesLength 3"),
        (
            "@equalLength true",
            "1,2:up\n1,2,3:up\n",
            "line 4: 3 steps, but the header says @equalLength true, and those above have 2",
        ),
        (
            "@classLabel true up left",
            UP,
            "line 4: the class 'down' is none of the header: 'up', 'left'; fix it, or add it to",
        ),
        ("@classLabel true up", "1,2:\n", "line 3: there is no class after the last colon"),
        ("@classLabel false", UP, "line 3, channel 3, step 1: 'up' is no number; .* @class"),
        ("@classLabel false", "1,2:3,4:5\n", "line 3: channels of 1 to 2 steps"),
        ("@targetLabel true", UP, "line 3: the target after the last colon is 'up'; wanted a fin"),
        ("@targetLabel true", "1,2:nan\n", "line 3: the target after the last colon is 'nan'"),
        ("@classLabel", UP, "line 1: @classLabel: wanted true and the classes, or false"),
        ("@classLabel false up", UP, "line 1: @classLabel false up: wanted true and the classes"),
        ("@missing maybe", UP, "line 1: @missing maybe: wanted true or false"),
        ("@dimensions 0", UP, "line 1: @dimensions 0: wanted a whole number of at least 1"),
        ("@classLable false", UP, "line 1: @classLable is none of the fields of a .ts file, which"),
        (
            "@missing false\n@Missing true",
            UP,
            "line 2: @Missing stands in the header twice; remove",
        ),
        ("@dimension 2\n@dimensions 2", UP, "line 2: @dimensions stands in the header twice"),
        ("two words", UP, "line 1: before @data a line begins with @, or with # or % for"),
        ("@targetLabel true\n@classLabel true a", UP, "both @classLabel true and @targetLabel t"),
    ],
)
def test_headers_that_the_data_do_not_follow(tmp_path, header, data, message):
    with pytest.raises(DataError, match=rf"bad\.ts.*{message}"):
        read_series(write_ts(tmp_path, f"{header}\n@data\n{data}"))


def test_compressed_series_with_an_encoding(tmp_path):
    path = tmp_path / "one.TS.gz"
    path.write_bytes(gzip.compress("@classLabel true größer\n@data\n1,2:größer\n".encode("cp1252")))
    (series,), classes = read_series(path, encoding="cp1252")
    assert (series.tolist(), classes) == ([[1], [2]], ["größer"])
    path = tmp_path / "table.npy.gz"
    with gzip.open(path, "wb") as file:
        np.save(file, np.array([[2.0, 0.5, 0.25]]))
    (series,), classes = read_series(path)
    assert (series.tolist(), classes) == ([[0.5], [0.25]], ["2"])


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
        (np.array([[1, 2], [1, np.inf]]), r"has inf in row 1, column 1 \(from 0\); wanted finite"),
        (np.array([["a", "b"]]), "which are no numbers"),
        (np.array([[1, 0.5], [1.5, 2]]), r"a class 1\.5 in column 0; wanted whole numbers"),
    ],
)
def test_tables_that_are_refused(tmp_path, table, message):
    path = tmp_path / "bad.npy"
    np.save(path, table)
    with pytest.raises(DataError, match=message):
        read_series(path)
    with pytest.raises(DataError, match=r"missing\.npy cannot be read: No such file"):
        read_series(tmp_path / "missing.npy")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"bad\.npy cannot be read as an array: "):
        read_series(path)


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
    with pytest.raises(DataError, match=message):
        moments(values)
