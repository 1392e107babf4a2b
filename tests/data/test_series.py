"""Series of measurements from files of the archives: what is read, and what is refused."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from anaphora.data import DataError, moments, read_series

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


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
        ("@data\n1,1_0:up\n", "line 2, channel 1, step 2: '1_0' is not a number; expected numbers"),
        (
            "@data\n(0,1),(1,2):up\n",
            r"line 2, channel 1, step 1: '\(0' is not a number; .* no time stamps",
        ),
        (
            "@data\n1,2:3:up\n",
            "line 2: channels of 1 to 2 steps; expected channels of one length, and",
        ),
        ("@data\nup\n", "line 2: there is no channel, or no class"),
        ("@data\n1,2:up\n1,2:3,4:up\n", "line 3: 2 channels; those before have 1"),
        (
            "@data\n1,2:up\n3,4:\n",
            r"line 3: there is no class after the last colon \(''\); give it",
        ),
        ("@data\n1,2:up\n3,4:?\n", r"line 3: there is no class after the last colon \('\?'\)"),
        (
            "@data\n1:2\n3:4\n",
            "line 2: whether '2' is a class or a channel is ambiguous; add @cl",
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
        (
            "@timeStamps true",
            UP,
            "line 1: the values have time stamps, which are not supported; resample",
        ),
        ("@missing true", "1,?:3,4:up\n", "line 3, channel 1, step 2: the value is missing"),
        ("@univariate true", UP, "line 3: 2 channels, but the header says @univariate true"),
        ("@univariate false", "1,2:up\n", "line 3: 1 channels, but the header says @univariate fa"),
        ("@dimensions 3", UP, "line 3: 2 channels, but the header says @dimensions 3"),
        ("@dimensions 1", UP, "line 3: 2 channels, but the header says @dimensions 1"),
        ("@seriesLength 3", UP, "line 3: 2 steps, but the header says @seriesLength 3"),
        (
            "@equalLength true",
            "1,2:up\n1,2,3:up\n",
            "line 4: 3 steps, but the header says @equalLength true, and those before have 2",
        ),
        (
            "@classLabel true up left",
            UP,
            "line 4: the class 'down' is not one of those in the header: 'up', 'left'; fix it",
        ),
        ("@classLabel true up", "1,2:\n", "line 3: there is no class after the last colon"),
        ("@classLabel false", UP, "line 3, channel 3, step 1: 'up' is not a number; .* @class"),
        ("@classLabel false", "1,2:3,4:5\n", "line 3: channels of 1 to 2 steps"),
        (
            "@targetLabel true",
            UP,
            "line 3: the target after the last colon is 'up'; expected a fin",
        ),
        ("@targetLabel true", "1,2:nan\n", "line 3: the target after the last colon is 'nan'"),
        ("@classLabel", UP, "line 1: @classLabel: expected true and the classes, or false"),
        ("@classLabel false up", UP, "line 1: @classLabel false up: expected true and the classes"),
        ("@missing maybe", UP, "line 1: @missing maybe: expected true or false"),
        ("@dimensions 0", UP, "line 1: @dimensions 0: expected an integer of at least 1"),
        (
            "@classLable false",
            UP,
            "line 1: @classLable is not one of the fields of a .ts file, which",
        ),
        (
            "@missing false\n@Missing true",
            UP,
            "line 2: @Missing appears in the header twice; remove",
        ),
        ("@dimension 2\n@dimensions 2", UP, "line 2: @dimensions appears in the header twice"),
        ("two words", UP, "line 1: lines before @data must begin with @, or with # or % for"),
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
        (np.ones(3), r"holds float64 \(3,\); expected rows"),
        (np.ones((0, 3)), "expected rows"),
        (
            np.array([[1, 2], [1, np.inf]]),
            r"has inf in row 1, column 1 \(from 0\); expected finite",
        ),
        (np.array([["a", "b"]]), "which are not numbers"),
        (np.array([[1, 0.5], [1.5, 2]]), r"a class 1\.5 in column 0; expected integers"),
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
        (np.zeros((0, 3)), "^moments: there are no steps; expected at least one"),
    ],
)
def test_moments_that_do_not_exist_are_reported_by_channel(values, message):
    with pytest.raises(DataError, match=message):
        moments(values)


# Arrays


def save(path, array=None, **arrays):
    with path.open("wb") as file:
        if arrays:
            np.savez(file, **arrays)
        else:
            np.save(file, array)
    return path


def test_layouts_of_arrays(tmp_path, rng):
    x = rng.normal(size=(4, 5, 3)).astype(np.float32)
    for read, arrays in [
        ({}, {"X": x}),
        ({}, {"data": x}),
        ({"channels_first": True}, {"X": x.transpose(0, 2, 1)}),
    ]:
        for compress in (False, True):
            path = save(tmp_path / ("a.npz.gz" if compress else "a.npz"), **arrays, y=[2, 0, 1, 0])
            if compress:
                path.write_bytes(gzip.compress(path.read_bytes()))
            series, classes = read_series(path, **read)
            assert all(np.array_equal(a, b) for a, b in zip(series, x, strict=True))
            assert series[0].dtype == np.float64
            assert classes == ["2", "0", "1", "0"]
    series, classes = read_series(save(tmp_path / "a.npz", x=x[:, :, 0]))
    assert classes is None
    np.testing.assert_array_equal(series[3], x[3, :, :1])
    series, classes = read_series(
        save(tmp_path / "a.npy", x.transpose(0, 2, 1)), channels_first=True
    )
    assert classes is None
    np.testing.assert_array_equal(series[1], x[1])


@pytest.mark.parametrize(
    ("y", "targets", "answers"),
    [
        (np.array(["b", "a"]), False, ["b", "a"]),
        (np.array([b"b", b"a"]), False, ["b", "a"]),
        (np.array([True, False]), False, ["true", "false"]),
        (np.array([[3.0], [-1.0]], np.float32), False, ["3", "-1"]),
        (np.array([3, -1], np.int8), True, [3.0, -1.0]),
        (np.array([0.25, 7]), True, [0.25, 7.0]),
        (np.array([0.25, 7]), False, "has a class 0.25 in y; .* use regression"),
        (np.array([0.25, np.nan]), True, r"the target nan of series 1 \(from 0\) in y"),
        (np.array(["a", "b"]), True, "y holds <U1 .* which are not numbers"),
        (np.array([1, 2, 3]), False, r"has y of shape \(3,\) for 2 series"),
        (np.array([["a"], [1]], object), False, "an array of Python objects, which is not read"),
    ],
)
def test_answers_in_arrays(tmp_path, y, targets, answers):
    path = save(tmp_path / "a.npz", X=np.ones((2, 3)), y=y)
    if isinstance(answers, str):
        with pytest.raises(DataError, match=rf"a\.npz.*{answers}"):
            read_series(path, targets=targets)
        return
    _, found = read_series(path, targets=targets)
    assert found == answers
    assert [type(one) for one in found] == [type(one) for one in answers]


def test_series_of_different_lengths_in_arrays_are_padded_with_nan(tmp_path):
    x = np.arange(24.0).reshape(2, 4, 3)
    x[0, 2:] = np.nan
    series, _ = read_series(save(tmp_path / "a.npz", X=x))
    assert [one.tolist() for one in series] == [x[0, :2].tolist(), x[1].tolist()]
    table = np.array([[1, 2, 3, np.nan], [0, 4, np.nan, np.nan]])
    series, classes = read_series(save(tmp_path / "a.npy", table))
    assert ([one.tolist() for one in series], classes) == ([[[2], [3]], [[4]]], ["1", "0"])
    x[1, 3, 1] = np.nan  # not in all channels
    with pytest.raises(DataError, match=r"has nan in series 1, step 3, channel 1 \(from 0\); "):
        read_series(save(tmp_path / "a.npz", X=x))
    with pytest.raises(DataError, match=r"has nan in row 0, column 1 \(from 0\); expected finite"):
        read_series(save(tmp_path / "{a}.npy", np.array([[1, np.nan, 3], [1, 2, 3]])))
    with pytest.raises(DataError, match=r"has nan in row 1, column 1 \(from 0\); expected finite"):
        read_series(save(tmp_path / "a.npy", np.array([[1, 2, 3], [1, np.nan, np.nan]])))


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        (
            "a.npz",
            {"X_train": [1], "X_test": [1]},
            "has the arrays 'X_train', 'X_test'; expected",
        ),
        ("a.npz", {"X": np.ones((2, 3)), "data": [1]}, "has the arrays 'X', 'data'; expected one"),
        ("a.npz", {"X": np.ones(3)}, r"the array X has the shape \(3,\); expected series"),
        ("a.npz", {"X": np.ones((2, 0))}, r"has the shape \(2, 0, 1\); expected series"),
        ("a.npz", {"X": np.array([["a"]])}, "X holds <U1 .* which are not numbers"),
        ("a.npz", {"X": np.ones((2, 3), complex)}, "X holds complex128 .* which are not numbers"),
        (
            "a.npz",
            {"X": np.array([[1, 2], [3]], object)},
            "padded with NaN at the end, or as",
        ),
        ("a.npy", {"array": np.array([[1, 2], [3]], object)}, "an array of Python objects"),
        ("a.npy", {"X": [1], "y": [1]}, "holds several arrays; rename it to .npz"),
        ("a.npz", {"array": np.ones((2, 3))}, "holds one array; rename it to .npy"),
    ],
)
def test_arrays_that_are_refused(tmp_path, name, arrays, message):
    path = tmp_path / name
    with path.open("wb") as file:
        if "array" in arrays:
            np.save(file, arrays["array"], allow_pickle=True)
        else:
            np.savez(file, **arrays)
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        read_series(path)


def test_damaged_archives_of_arrays(tmp_path):
    path = save(tmp_path / "a.npz", X=np.ones((50, 30)), y=np.ones(50))
    data = path.read_bytes()
    for cut in (0, 3, 100, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"a\.npz cannot be read as"):
            read_series(path)
    with pytest.raises(DataError, match="arrays cannot be read from standard input"):
        read_series("-", format="npz")


# Tables of the UCR archive


def test_a_table_of_the_ucr_archive(tmp_path, monkeypatch):
    path = tmp_path / "a.tsv"
    path.write_text("1\t0.5\t-1e3\tNaN\n-1\t2\t3\t4\n\n")
    series, classes = read_series(path)
    assert [one.tolist() for one in series] == [[[0.5], [-1000]], [[2], [3], [4]]]
    assert classes == ["1", "-1"]
    assert read_series(path, targets=True)[1] == [1.0, -1.0]
    path = tmp_path / "a.txt"  # as before 2018
    path.write_text("  1.0000000e+00  5.0e-01  2\n  2.0  1  3\n")
    series, classes = read_series(path, format="ucr")
    assert ([one.tolist() for one in series], classes) == ([[[0.5], [2]], [[1], [3]]], ["1", "2"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert read_series("-", format="ucr")[1] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t2\t3\n1\t2\n", r"line 2: there are 2 columns, where line 1 has 3; pad"),
        ("1\t2\n1\tx\n", r"line 2, column 2: 'x' is not a number; expected a class"),
        ("1\t2\n\n1.5\t2\n", "has a class 1.5 in column 1; expected integers"),
        ("1\t2\t3\n1\tNaN\t3\n", "line 2, column 2: the value is nan; expected finite"),
        ("1\t2\n1\tNaN\n", "line 2, column 2: the value is nan; expected finite"),
        ("1\t2\n1\tinf\n", "line 2, column 2: the value is inf; expected finite"),
        ("1\n", "line 1: there is one number; expected a class and values"),
        ("\n\n", "has no series"),
    ],
)
def test_tables_of_the_ucr_archive_that_are_refused(tmp_path, text, message):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.tsv.*{message}"):
        read_series(path)


def test_files_that_are_not_known_to_hold_series(tmp_path):
    for path in (tmp_path / "a.txt", "-"):
        with pytest.raises(
            DataError, match=r"is not recognized as a file of series; expected a file named \.ts"
        ):
            read_series(path)


# ARFF


RELATIONAL = r"""% Two channels of three steps
@relation Two
@attribute 'the series' relational
  @ATTRIBUTE att0 NUMERIC
  @attribute att1 real
  @attribute att2 numeric
@end 'the series'
@attribute class {Walking,"Running fast",'it\'s'}

@data
'1,2,3\n4,5,-6e-1',Walking
% a comment
"7,8,?\n9,10,?", "Running fast"
'1,1,1\n2,2,2','it\'s'
"""


def write_arff(folder, text):
    path = folder / "a.arff"
    path.write_text(text)
    return path


def test_relational_attributes_are_series_of_channels(tmp_path):
    series, classes = read_series(write_arff(tmp_path, RELATIONAL))
    assert [one.tolist() for one in series] == [
        [[1, 4], [2, 5], [3, -0.6]], [[7, 9], [8, 10]], [[1, 2], [1, 2], [1, 2]]
    ]  # fmt: skip
    assert classes == ["Walking", "Running fast", "it's"]


def test_attributes_are_steps(tmp_path):
    header = "@relation a\n@attribute t0 numeric\n@attribute t1 integer\n"
    for last, data, answers, targets in [
        ("@attribute class {1,2}", "0.5,3,2\n7,?,1\n", ["2", "1"], False),
        ("@attribute target numeric", "0.5,3,2\n7,?,-1.5\n", [2.0, -1.5], False),
        ("@attribute price real", "0.5,3,2\n7,?,-1.5\n", [2.0, -1.5], True),
        ("@attribute name string", "0.5,3,'a b'\n7,?,c\n", ["a b", "c"], False),
    ]:
        path = write_arff(tmp_path, f"{header}{last}\n@DATA\n{data}")
        series, found = read_series(path, targets=targets)
        assert [one.tolist() for one in series] == [[[0.5], [3]], [[7]]]
        assert found == answers
    series, found = read_series(write_arff(tmp_path, f"{header}@data\n1,2\n"))
    assert (series[0].tolist(), found) == ([[1], [2]], None)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("@data\n", "", "line 10: expected @relation, @attribute NAME TYPE, @data"),
        (RELATIONAL[RELATIONAL.index("@data") :], "", "has no line @data"),
        ("@end 'the series'", "", "line 10: @data before @end the series; add that line"),
        ("NUMERIC", "date", "line 4: the type 'date' is not one of numeric, real"),
        (
            "NUMERIC",
            "{1,2}",
            "the attribute 'att0' is nominal; expected numeric attributes for the steps",
        ),
        (
            "@relation Two",
            "relation Two",
            "line 2: expected @relation, @attribute NAME TYPE, @data",
        ),
        (
            "@attribute class",
            "@attribute n numeric\n@attribute class",
            r"the series \(relational\), n",
        ),
        (",Walking", "", "line 11: there are 1 values, but 2 attributes"),
        (
            ",Walking",
            ",Flying",
            "line 11: the class 'Flying' is not one of those in the header: 'Walking', 'Run",
        ),
        (",Walking", ",?", r"line 11: the class is missing \('\?'\)"),
        ("1,2,3", "1,2", "line 11, channel 1: 2 values, but 3 attributes"),
        ("1,2,3", "1,b,3", "line 11, channel 1, step 2: 'b' is not a number"),
        ("1,2,3", "1,?,3", "line 11, channel 1, step 2: the value is nan; expected finite"),
        ("5,-6e-1", "5,?", "line 11, channel 2, step 3: the value is nan; expected finite"),
        ("'1,2,3", "{0 1, 2 3}", "line 11: sparse rows in braces are not supported"),
        ("-6e-1'", "-6e-1'x", "line 11: a quote is not closed, or a value continues after it"),
        (r"'1,1,1\n2,2,2'", "'1,1,1'", "line 14: 1 channels; those before have 2"),
        (RELATIONAL[RELATIONAL.index("'1,2") :], "", "has no series after its line @data"),
    ],
)
def test_arff_that_is_refused(tmp_path, before, after, message):
    assert before in RELATIONAL
    with pytest.raises(DataError, match=rf"a\.arff.*({message})"):
        read_series(write_arff(tmp_path, RELATIONAL.replace(before, after)))


def test_arff_is_what_scipy_reads(tmp_path, rng):
    arff = pytest.importorskip("scipy.io.arff")
    x = rng.normal(size=(20, 3, 6))
    classes = rng.choice(["up", "down"], 20)
    steps = "".join(f"@attribute att{t} numeric\n" for t in range(6))
    rows = [
        "'" + r"\n".join(",".join(map(repr, channel.tolist())) for channel in one) + f"',{name}"
        for one, name in zip(x, classes, strict=True)
    ]
    header = f"@relation r\n@attribute s relational\n{steps}@end s\n@attribute class {{up,down}}\n"
    path = write_arff(tmp_path, header + "@data\n" + "\n".join(rows))
    series, found = read_series(path)
    theirs, _ = arff.loadarff(path)
    assert found == [name.decode() for name in theirs["class"]] == classes.tolist()
    for ours, their, own in zip(series, theirs["s"], x, strict=True):
        np.testing.assert_array_equal(ours.T, own)
        np.testing.assert_array_equal(ours.T, np.array(their.tolist()))
    flat = "\n".join(
        ",".join(map(repr, one[0].tolist())) + f",{name}"
        for one, name in zip(x, classes, strict=True)
    )
    path.write_text(f"@relation r\n{steps}@attribute class {{up,down}}\n@data\n{flat}\n")
    series, found = read_series(path)
    theirs, _ = arff.loadarff(path)
    np.testing.assert_array_equal(
        np.array(series)[:, :, 0], np.array(theirs[[f"att{t}" for t in range(6)]].tolist())
    )
    assert found == classes.tolist()


# The archives' own files


def test_the_same_series_in_every_format(tmp_path):
    """ECG5000 as it comes, and written as a table of the UCR archive, ARFF and arrays."""
    path = DATA / "ecg5000" / "ECG5000_TRAIN.ts"
    if not path.is_file():
        pytest.skip("needs ecg5000 in ../shared/data")
    series, classes = read_series(path)
    assert (len(series), series[0].shape, sorted(set(classes))) == (500, (140, 1), list("12345"))
    x = np.array(series)[:, :, 0]
    np.savetxt(tmp_path / "a.tsv", np.c_[list(map(int, classes)), x], "%.17g", "\t")
    save(tmp_path / "a.npz", X=x, y=np.array(classes))
    steps = "".join(f"@attribute att{t} numeric\n" for t in range(140))
    rows = "".join(
        ",".join(map(repr, row.tolist())) + f",{name}\n"
        for row, name in zip(x, classes, strict=True)
    )
    header = f"@relation ECG\n{steps}@attribute target {{1,2,3,4,5}}\n"
    (tmp_path / "a.arff").write_text(f"{header}@data\n{rows}")
    for name in ("a.tsv", "a.npz", "a.arff"):
        again, found = read_series(tmp_path / name)
        np.testing.assert_array_equal(np.array(again)[:, :, 0], x)
        assert found == classes
