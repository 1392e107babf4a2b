"""Time series from tables: times, steps, gaps, several series, and what is refused."""

import io
import json
import types
from datetime import date

import numpy as np
import pytest

from anaphora.data import DataError
from anaphora.data.time_series import (
    Frequency,
    TimeSeries,
    calendar_features,
    read_time_series,
    same_columns,
)


@pytest.fixture
def table(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def days(*dates):
    return np.array(dates, "datetime64[us]")


def test_all_other_columns_are_targets(table):
    (series,) = read_time_series(table("t,a,b\n2,3,-1.5\n1,2,?\n3,NaN,1e3\n4,,\n"))
    assert series.times.tolist() == [1, 2, 3, 4]  # rows may come in any order
    np.testing.assert_array_equal(
        series.targets, [[2, np.nan], [3, -1.5], [np.nan, 1000], [np.nan, np.nan]]
    )
    assert series.target_names == ("a", "b")
    assert (series.steps, series.frequency) == (3, Frequency("number", 1.0))
    assert series.future(2).tolist() == [4, 5]


def test_long_format_with_columns_known_in_advance(table):
    text = (
        "shop\tday\tprice\tsold\n"
        "b\t2024-02-01\t1\t10\n"
        "a\t2024-01-31\t2\t20\n"
        "b\t2024-02-02\t3\t\n"
        "a\t2024-02-01\t4\t40\n"
        "b\t2024-02-03\t5\t\n"
        "a\t2024-02-02\t6\t60\n"
    )
    b, a = read_time_series(
        table(text, "table.tsv"), time_column="day", series_column="shop", known_columns=["price"]
    )
    assert (a.name, a.targets[:, 0].tolist(), a.known[:, 0].tolist()) == (
        "a",
        [20, 40, 60],
        [2, 4, 6],
    )
    assert (b.name, b.steps, b.known[:, 0].tolist()) == ("b", 1, [1, 3, 5])
    assert b.times.tolist() == days("2024-02-01", "2024-02-02", "2024-02-03").tolist()
    assert a.known_names == ("price",)
    assert a.target_names == ("sold",)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["2024-01-31", "2024-02-29", "2024-03-31"], "month end"),
        (["2023-01-30", "2023-02-28", "2023-03-30"], "month"),
        (["2024-01", "2024-02", "2024-04"], "month"),
        (["2024/1/1", "2024/4/1", "2024/7/1"], "quarter"),
        (["1999-05-05", "2000-05-05", "2001-05-05"], "year"),
        (["2024-02-01", "2024-02-29", "2024-03-28"], "4 weeks"),
        (["2024-01-01", "2024-01-08", "2024-01-22"], "week"),
        (["2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09", "2024-01-12"], "weekday"),
        (["2024-01-05", "2024-01-06", "2024-01-07"], "day"),
        (["2024-01-01T23:30", "2024-01-01T23:45", "2024-01-02 00:00"], "15 minutes"),
        (["2024-01-01T01:00+02:00", "2024-01-01T01:00+01:00"], "hour"),
        (["0.1", "0.2", "0.30000000000000004"], "0.1"),
        (["1700.0", "1701.0", "1702.0"], "1"),
    ],
)
def test_the_step_is_found(table, times, said):
    text = "t,y\n" + "".join(f"{time},1\n" for time in times)
    (series,) = read_time_series(table(text), gaps="missing")
    assert str(series.frequency) == said
    assert Frequency.parse(said) == series.frequency


def test_times_after_the_last():
    def after(text, time, steps=2):
        times = Frequency.parse(text).after(time, steps)
        return times.astype("datetime64[D]").astype(str).tolist()

    assert after("month end", "2024-01-31") == ["2024-02-29", "2024-03-31"]
    assert after("month", "2024-01-30") == ["2024-02-29", "2024-03-30"]
    assert after("year", "2024-02-29") == ["2025-02-28", "2026-02-28"]
    assert after("weekday", "2024-01-04") == ["2024-01-05", "2024-01-08"]
    assert after("2 weeks", "2024-01-04", 1) == ["2024-01-18"]
    assert Frequency.parse("0.5").after(3.0, 2).tolist() == [3.5, 4.0]


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ("missing", [1, np.nan, np.nan, 4, np.nan, np.nan, 9]),
        ("previous", [1, 1, 1, 4, np.nan, 4, 9]),
        ("linear", [1, 2, 3, 4, np.nan, 9 - 5 / 3, 9]),
    ],
)
def test_gaps_are_filled_on_request(table, gaps, expected):
    # Days 2, 3 and 6 have no row; day 5 has one without a value, which stays missing.
    text = "d,k,y\n" + "".join(
        f"2024-01-0{day},{10 * day},{y}\n" for day, y in [(1, 1), (4, 4), (5, ""), (7, 9)]
    )
    path = table(text)
    with pytest.raises(DataError, match="3 of 7 steps have no row") as told:
        read_time_series(path, frequency="day")
    assert "line 3: 2024-01-01 is followed by 2024-01-04, but the step is day" in str(told.value)
    (series,) = read_time_series(path, frequency="day", gaps=gaps, known_columns=["k"])
    np.testing.assert_allclose(series.targets[:, 0], expected, rtol=1e-12)
    assert series.known[:, 0].tolist() == [10, 10, 10, 40, 50, 50, 70]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("t,y\n1,2\n2,3\n2.5,4\n3.5,4\n", {}, "line 4: the time 2.5 is not a multiple of the step"),
        ("t,y\n2024-01-01,2\n2024-01-02,2\n2024-01-03T01:00,3\n2024-01-04T01:00,3\n", {},
         r"time 2024-01-03T01:00:00 is not a multiple of the step \(day\) after 2024-01-02;"),
        ("t,y\n1,2\n2,3\n1,4\n", {}, "line 4: the time 1 is also in line 2; remove one, or"),
        ("t,s,y\n1,a,2\n1,b,3\n1,a,4\n", {"series_column": "s"}, "of series 'a' is also in line 2"),
        ("t,y\nJanuary,2\n", {}, "line 2: the time in 't' is 'January'; expected a number"),
        ("t,y\n1.2.2024,2\n13.13.2024,1\n", {"time_format": "%d.%m.%Y"},
         "line 3: the time in 't' is '13.13.2024'; expected a date of the form '%d.%m.%Y'"),
        ("t,y\n1,2\n2,x\n", {}, "line 3: 'y' has 'x'; expected a finite number"),
        ("t,y\n1,2\n2,inf\n", {}, "line 3: 'y' has 'inf'; expected a finite number"),
        ("t,y\n1,2\n2,1_000\n", {}, "line 3: 'y' has '1_000'; expected a finite number"),
        ("t,k,y\n1,2,3\n2,,3\n", {"known_columns": ["k"]}, "line 3: 'k' is empty; a column that"),
        ("t,y\n1,\n2,\n", {}, "no row has a number in 'y'"),
        ("t,y\n", {}, "has no row after its header"),
        ("t\n1\n", {}, "there is no column to forecast beside t"),
        ("t;y\n1;2\n", {}, "no column to forecast beside t;y; fields are separated by commas"),
        ("t,y\n1,2e100\n", {}, "table.csv: 'y' is 2e.100 at 1; expected numbers up to 1e.100"),
        ("t,y\n1,2\n", {"known_columns": ["y"], "series_column": "y"}, "'y' has two roles"),
        ("t,y\n1,2\n", {"target_columns": ["z"]}, "has no column 'z'; it has 't', 'y'"),
        ("t,y\n20240101,2\n", {"frequency": "day"}, "give a time_format: '%Y%m%d'"),
        ("t,y\n1,2\n2,3\n1000000,3\n", {"gaps": "missing"}, "3 rows are spread over 1,000,000"),
        ("t,y\n2024-01-01,2\n2024-01-20,3\n", {"frequency": "month"}, "the time 2024-01-20 is no"),
    ],
)  # fmt: skip
def test_what_is_refused(table, text, options, message):
    with pytest.raises(DataError, match=message):
        read_time_series(table(text), **options)


def test_options_that_are_none(table):
    with pytest.raises(ValueError, match="gaps 'zero' is not one of refuse, missing, previous"):
        read_time_series(table("t,y\n1,2\n"), gaps="zero")
    for text in ("fortnight", "", "-1", "0 days", "nan"):
        with pytest.raises(
            ValueError, match="is unknown; expected a number, or one of microsecond"
        ):
            Frequency.parse(text)
    with pytest.raises(DataError, match=r"are read from tables"):
        read_time_series("series.txt")


def test_calendar():
    times = days("2024-07-01T06:00", "2024-07-07T12:00")  # a Monday and a Sunday
    hours = calendar_features(times, Frequency.parse("hour"))
    assert hours.shape == (2, 4 + 7 + 4)
    np.testing.assert_allclose(hours[0, :4], [1, 0, 0, -1], atol=1e-12)  # a quarter of the day
    np.testing.assert_allclose(hours[1, :4], [0, -1, 0, 1], atol=1e-12)
    assert hours[:, 4:11].argmax(axis=1).tolist() == [0, 6]
    assert hours[:, 4:11].sum(axis=1).tolist() == [1, 1]
    angle = 2 * np.pi * (31 + 29 + 31 + 30 + 31 + 30 + 0.25) / 366
    np.testing.assert_allclose(
        hours[0, 11:], [np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]
    )
    assert calendar_features(times, Frequency.parse("month")).shape == (2, 4)
    assert calendar_features(times, Frequency.parse("weekday")).shape == (2, 11)
    assert calendar_features(times, Frequency.parse("year")).shape == (2, 0)
    assert calendar_features(np.arange(3.0), Frequency.parse("1")).shape == (3, 0)


def test_seasons():
    seasons = {
        "hour": 24, "15 minutes": 96, "day": 7, "12 hours": 2, "week": 52, "month": 12,
        "quarter": 4, "year": 1, "weekday": 5, "2": 1, "5 hours": 1, "7 months": 1,
    }  # fmt: skip
    assert {text: Frequency.parse(text).season for text in seasons} == seasons


def test_series_of_arrays():
    series = TimeSeries.of(
        [1, 2, np.nan], known=[[1], [2], [3], [4]], start="2024-01-31", frequency="month"
    )
    assert series.times.astype("datetime64[D]").astype(str).tolist()[1:] == [
        "2024-02-29",
        "2024-03-31",
        "2024-04-30",
    ]
    assert (series.steps, len(series.known)) == (2, 4)
    before = series.until(1)
    assert (before.steps, series.steps, len(before.known)) == (1, 2, 4)
    with pytest.raises(DataError, match="'target' is inf at 1; expected numbers up to 1e"):
        TimeSeries.of([0, np.inf])
    with pytest.raises(DataError, match="'known 0' is nan at 1; a column that is known"):
        TimeSeries.of([0, 1], known=[2, np.nan])
    with pytest.raises(DataError, match="at least as many known rows"):
        TimeSeries.of([0, 1], known=[2])


def test_one_model_needs_the_same_columns():
    one = TimeSeries.of([[1, 2]], known=[3])
    for other, message in [
        (TimeSeries.of([1], known=[3]), r"series 1 \('series'\) has 1 targets, the first 2"),
        (TimeSeries.of([[1, 2]]), "has 0 columns known in advance, the first 1"),
        (TimeSeries.of([[1, 2]], known=[3], frequency="3"), "has the step 3, the first 1"),
    ]:
        with pytest.raises(DataError, match=message):
            same_columns([one, other])


def test_the_times_are_in_the_first_column_that_has_no_other_role(table):
    path = table("shop,sold,day\na,1,2024-01-01\na,2,2024-01-02\n")
    (series,) = read_time_series(path, series_column="shop", target_columns=["sold"])
    assert series.targets.tolist() == [[1], [2]]
    assert str(series.frequency) == "day"


def test_tables_of_any_format_and_standard_input_are_read_alike(table, tmp_path, monkeypatch):
    names = ("day", "shop", "price", "sold")
    rows = [
        ("2024-01-01", 7, 1.5, 3),
        ("2024-01-02", 7, 2, None),
        ("2024-01-03", 7, 2.5, 4.25),
        ("2024-01-02", 8, 0, 1000),
        ("2024-01-03", 8, 1, 2000),
    ]
    texts = {
        suffix: "".join(
            separator.join("" if cell is None else str(cell) for cell in row) + "\n"
            for row in [names, *rows]
        )
        for suffix, separator in (("csv", ","), ("tsv", "\t"))
    }
    records = [dict(zip(names, row, strict=True)) for row in rows]
    texts["jsonl"] = "".join(json.dumps(record) + "\n" for record in records)
    roles = {"series_column": "shop", "known_columns": ["price"]}

    def values(path, **options):
        return [
            (one.name, str(one.frequency), one.times.tolist(), one.known.tolist(),
             np.nan_to_num(one.targets, nan=-1).tolist())
            for one in read_time_series(path, **roles, **options)
        ]  # fmt: skip

    expected = [
        ("7", "day", days("2024-01-01", "2024-01-02", "2024-01-03").tolist(),
         [[1.5], [2], [2.5]], [[3], [-1], [4.25]]),
        ("8", "day", days("2024-01-02", "2024-01-03").tolist(), [[0], [1]], [[1000], [2000]]),
    ]  # fmt: skip
    for suffix, text in texts.items():
        assert values(table(text, f"table.{suffix}")) == expected
        for format in {suffix, None if suffix == "csv" else suffix}:
            stdin = types.SimpleNamespace(buffer=io.BytesIO(text.encode()))
            monkeypatch.setattr("sys.stdin", stdin)
            assert values("-", format=format) == expected
        assert values(table(text, "table"), format=suffix) == expected
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    dates = [{**record, "day": date.fromisoformat(record["day"])} for record in records]
    pyarrow.parquet.write_table(pa.Table.from_pylist(dates), tmp_path / "table.parquet")
    assert values(tmp_path / "table.parquet") == expected


@pytest.mark.parametrize("cell", ["true", '"x"', "[1]", "NaN", "Infinity"])
def test_fields_of_json_that_are_no_numbers(table, cell):
    path = table('{"t": 1, "y": 2}\n{"t": 2, "y": ' + cell + "}\n", "t.jsonl")
    if cell == "NaN":  # missing, as in .csv files
        assert np.isnan(read_time_series(path)[0].targets[1, 0])
        return
    with pytest.raises(DataError, match=r"t.jsonl, line 2: 'y' has .*; expected a finite number"):
        read_time_series(path)
