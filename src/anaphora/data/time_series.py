"""Time series to forecast: tables with a time column, regular steps, calendar features."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora.data.errors import DataError
from anaphora.data.files import SourceFile
from anaphora.data.tables import is_table, names_of, read_rows, table_file

__all__ = ["GAPS", "Frequency", "TimeSeries", "calendar_features", "read_time_series"]

GAPS = ("refuse", "missing", "previous", "linear")

# Contents of a cell that mean a missing value, in lower case.
MISSING = frozenset(["", "?", "na", "n/a", "nan", "null", "none"])

_MICROSECONDS = {
    "microsecond": 1,
    "millisecond": 10**3,
    "second": 10**6,
    "minute": 60 * 10**6,
    "hour": 3600 * 10**6,
    "day": 86400 * 10**6,
    "week": 7 * 86400 * 10**6,
}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_DAY = np.timedelta64(1, "D")
_LARGEST = 1e100  # the squares of larger ones may overflow

Times = NDArray[Any]  # float64, or datetime64[us]


@dataclass(frozen=True)
class Frequency:
    """The step of a regular time axis.

    Args:
        unit: "number" for an axis of plain numbers; "microsecond" for dates at fixed intervals;
            "weekday" (Monday to Friday); "month".
        count: The number of units in a step.
        month_end: Whether steps of months go from month end to month end.

    >>> Frequency.parse("quarter").after("2024-01-31", 2).astype("datetime64[D]").tolist()
    [datetime.date(2024, 4, 30), datetime.date(2024, 7, 31)]
    >>> str(Frequency.parse("15 minutes")), Frequency.parse("15 minutes").season
    ('15 minutes', 96)
    """

    unit: str
    count: float = 1
    month_end: bool = False

    @classmethod
    def parse(cls, text: str) -> Frequency:
        """The frequency named by a text such as "day", "15 minutes", "month" or "0.5".

        Raises:
            ValueError: the text names none.
        """
        units = [*_MICROSECONDS, "weekday", *_MONTHS]
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)?\s*([a-z]+?)?s?( end)?\s*", text)
        number, unit, end = match.groups() if match else ("0", None, None)
        count = float(number or 1)
        if (
            not 0 < count < math.inf
            or (unit is None and number is None)
            or unit not in (None, *units)
        ):
            raise ValueError(
                f"the frequency {text!r} is unknown; expected a number, or one of "
                f"{', '.join(units)}, with an optional number before it: '15 minutes'"
            )
        if unit is None:
            return cls("number", count)
        if unit in _MICROSECONDS:
            unit, count = "microsecond", count * _MICROSECONDS[unit]
        elif unit in _MONTHS:
            unit, count = "month", count * _MONTHS[unit]
        if count != int(count):
            raise ValueError(f"the frequency {text!r} is not a multiple of its smallest unit")
        return cls(unit, int(count), month_end=end is not None)

    def __str__(self) -> str:
        if self.unit == "number":
            return f"{self.count:g}"
        unit, count = self.unit, int(self.count)
        for larger, size in (_MICROSECONDS if unit == "microsecond" else _MONTHS).items():
            if unit != "weekday" and self.count % size == 0:
                unit, count = larger, int(self.count) // size
        name = unit if count == 1 else f"{count} {unit}s"
        return f"{name.removesuffix('s')} end" if self.month_end else name

    @property
    def season(self) -> int:
        """The usual seasonal period, in steps: 12 for months; 1 if there is none.

        Hours and shorter steps repeat after a day, days after a week, weeks after 52, months and
        quarters after a year.
        """
        if self.unit == "weekday":
            return 5
        if self.unit == "month":
            return int(12 // self.count) if 12 % self.count == 0 else 1
        if self.unit == "microsecond":
            day, week = _MICROSECONDS["day"], _MICROSECONDS["week"]
            for cycle in (day, week):
                if self.count < cycle and cycle % self.count == 0:
                    return int(cycle // self.count)
            return 52 if self.count == week else 1
        return 1

    def after(self, time: Any, steps: int) -> Times:
        """The times of the next steps after `time`, [steps]."""
        first = time if self.unit == "number" else np.datetime64(time, "us")
        return self.at(first, np.arange(1, steps + 1))

    def at(self, first: Any, positions: NDArray[np.int64]) -> Times:
        """The times that are `positions` steps after the first."""
        times: Times
        if self.unit == "number":
            times = first + positions * float(self.count)
        elif self.unit == "microsecond":
            times = first + positions * np.timedelta64(int(self.count), "us")
        elif self.unit == "weekday":
            day = first.astype("datetime64[D]")
            moved = np.busday_offset(day, positions * int(self.count), roll="forward")
            times = moved + (first - day)
        else:
            month = first.astype("datetime64[M]")
            months = month + positions * int(self.count)
            lengths = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")
            days = np.broadcast_to(
                first.astype("datetime64[D]") - month.astype("datetime64[D]"), lengths.shape
            )
            days = lengths - _DAY if self.month_end else np.minimum(days, lengths - _DAY)
            times = months.astype("datetime64[D]") + days + (first - first.astype("datetime64[D]"))
        return times

    def positions(self, times: Times) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The steps from the first of the times [T] to each, and whether it falls on a step."""
        first = times[0]
        if self.unit == "number":
            steps = np.rint((times - first) / self.count).astype(np.int64)
            return steps, np.isclose(self.at(first, steps), times, rtol=0, atol=1e-4 * self.count)
        if self.unit == "microsecond":
            steps = (times - first).astype(np.int64) // int(self.count)
        elif self.unit == "weekday":
            days = times.astype("datetime64[D]")
            steps = np.busday_count(days[0], days).astype(np.int64) // int(self.count)
        else:
            months = times.astype("datetime64[M]").astype(np.int64)
            steps = (months - months[0]) // int(self.count)
        return steps, self.at(first, steps) == times


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """One series at regular times.

    The forecast begins after the last row that has a target. Rows after it are the future, where
    only columns that are known in advance have values.

    Attributes:
        times: [T] float64 or datetime64[us], each a step after the previous one.
        targets: [T, N] the values to forecast; NaN where missing.
        known: [T, K] values known in advance, such as holidays and prices.
        frequency: The step.
        name: The name of the series, for messages and forecasts.
        target_names: [N].
        known_names: [K].
        past: The number of rows of the past; None counts those up to the last that has a target.

    >>> series = TimeSeries.of([3.0, 5.0, 4.0], start="2024-01-31", frequency="month")
    >>> series.steps, series.future(2).astype("datetime64[D]").tolist()
    (3, [datetime.date(2024, 4, 30), datetime.date(2024, 5, 31)])
    """

    times: Times
    targets: NDArray[np.float64]
    known: NDArray[np.float64]
    frequency: Frequency
    name: str = "series"
    target_names: tuple[str, ...] = ("target",)
    known_names: tuple[str, ...] = ()
    past: int | None = None

    @classmethod
    def of(
        cls,
        targets: ArrayLike,
        known: ArrayLike | None = None,
        *,
        start: Any = 0,
        frequency: str = "1",
        name: str = "series",
    ) -> TimeSeries:
        """A series made of arrays.

        Args:
            targets: [T] or [T, N], NaN where missing.
            known: [T + F] or [T + F, K]; F rows more than the targets are the future.
            start: The time of the first row: a number, or a date that NumPy accepts.
            frequency: As for `Frequency.parse`; if `start` is the end of a month, steps of months
                and quarters go to month ends.
            name: The name of the series.

        Raises:
            DataError: a shape does not fit, or a value is infinite.
        """
        values = np.asarray(targets, np.float64)
        values = values[:, None] if values.ndim == 1 else values
        rows = len(values)
        if known is None:
            columns = np.zeros((rows, 0))
        else:
            columns = np.asarray(known, np.float64)
            columns = columns[:, None] if columns.ndim == 1 else columns
        if values.ndim != 2 or columns.ndim != 2 or len(columns) < rows:
            raise DataError(
                f"{name}: targets of shape {np.shape(targets)} with known columns of shape "
                f"{columns.shape}; expected [T] or [T, N], and at least as many known rows"
            )
        values = np.concatenate([values, np.full((len(columns) - rows, values.shape[1]), np.nan)])
        step = Frequency.parse(frequency)
        if step.unit == "number":
            first: Any = float(start)
        else:
            first = np.datetime64(start, "us")
            if step.unit == "month" and _is_month_end(first):
                step = Frequency("month", step.count, month_end=True)
        numbers = [f"target {n}" for n in range(values.shape[1])]
        series = cls(
            step.at(first, np.arange(len(values))),
            values,
            columns,
            step,
            name,
            ("target",) if len(numbers) == 1 else tuple(numbers),
            tuple(f"known {k}" for k in range(columns.shape[1])),
        )
        series.check()
        return series

    @classmethod
    def at(
        cls,
        times: Sequence[Times],
        targets: Sequence[NDArray[np.float64]],
        known: Sequence[NDArray[np.float64]],
        names: Sequence[str] = ("series",),
        target_names: Sequence[str] = ("target",),
        known_names: Sequence[str] = (),
    ) -> list[TimeSeries]:
        """Series made of arrays, each with its times, from which the step is inferred.

        Args:
            times: For each series, [T] numbers or dates, ascending.
            targets: For each, [T, N].
            known: For each, [T, K].
            names: The names of the series.
            target_names: [N].
            known_names: [K].

        Raises:
            DataError: times are irregular or have gaps; or as for `check`.

        >>> days = np.array(["2024-01-01", "2024-01-02"], "datetime64[us]")
        >>> (series,) = TimeSeries.at([days], [np.ones((2, 1))], [np.ones((2, 0))])
        >>> str(series.frequency)
        'day'
        """
        step = _infer(times)
        return [
            _regular(
                name,
                when,
                np.concatenate([columns, values], axis=1),
                [f"{name}, row {row}" for row in range(len(when))],
                step,
                "refuse",
                columns.shape[1],
                tuple(target_names),
                tuple(known_names),
            )
            for name, when, values, columns in zip(names, times, targets, known, strict=True)
        ]

    def check(self) -> None:
        """Refuse infinite values, and missing values in columns known in advance.

        Raises:
            DataError: there is one; the message says where.
        """
        for row, column in np.argwhere(np.abs(self.targets) > _LARGEST)[:1]:
            raise DataError(
                f"{self.name}: {self.target_names[column]!r} is {self.targets[row, column]:g} at "
                f"{shown(self.times[row])}; expected numbers up to {_LARGEST:g}: correct it, or "
                "leave the cell empty"
            )
        for row, column in np.argwhere(~(np.abs(self.known) <= _LARGEST))[:1]:
            raise DataError(
                f"{self.name}: {self.known_names[column]!r} is {self.known[row, column]:g} at "
                f"{shown(self.times[row])}; a column that is known in advance needs a number up "
                f"to {_LARGEST:g} in every row"
            )

    @property
    def steps(self) -> int:
        """The number of rows before the forecast."""
        if self.past is not None:
            return self.past
        rows = np.flatnonzero(~np.isnan(self.targets).all(axis=1))
        return int(rows[-1]) + 1 if len(rows) else 0

    @property
    def start(self) -> int:
        """The number of rows before the first that has a target; 0 if none does."""
        rows = np.flatnonzero(~np.isnan(self.targets).all(axis=1))
        return int(rows[0]) if len(rows) else 0

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.times)

    def future(self, horizon: int) -> Times:
        """The times of the steps after the last target, [horizon]."""
        return self.frequency.at(self.times[0], np.arange(self.steps, self.steps + horizon))

    def until(self, steps: int) -> TimeSeries:
        """The series as it was after `steps` steps: later targets are missing, in the future."""
        targets = self.targets.copy()
        targets[steps:] = np.nan
        return replace(self, targets=targets, past=steps)


def calendar_features(times: Times, frequency: Frequency) -> NDArray[np.float64]:
    """The calendar features of each time: [T, C] numbers between -1 and 1.

    For steps below a day the time of day, below a week the day of the week (one-hot, Monday
    first), below a year the time of year. Times of day and of year are two harmonics each: sin and
    cos of the phase, and of twice the phase. An axis of numbers has no calendar, C = 0.

    >>> monday = np.array(["2024-01-01"], "datetime64[us]")
    >>> calendar_features(monday, Frequency.parse("day"))[0, :7].tolist()
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if frequency.unit == "number":
        return np.zeros((len(times), 0))
    columns: list[NDArray[np.float64]] = []
    days = times.astype("datetime64[D]")
    fixed = frequency.unit == "microsecond"
    if fixed and frequency.count < _MICROSECONDS["day"]:
        columns += _harmonics((times - days) / _DAY)
    if frequency.unit == "weekday" or (fixed and frequency.count < _MICROSECONDS["week"]):
        weekdays = (days.astype(np.int64) + 3) % 7  # day 0 was a Thursday
        columns += list((weekdays == np.arange(7)[:, None]).astype(np.float64))
    if not (frequency.unit == "month" and frequency.count % 12 == 0):
        years = times.astype("datetime64[Y]")
        lengths = (years + 1).astype("datetime64[D]") - years.astype("datetime64[D]")
        columns += _harmonics((times - years.astype("datetime64[us]")) / lengths)
    return np.stack(columns, axis=1) if columns else np.zeros((len(times), 0))


def _harmonics(phase: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    angle = 2 * np.pi * phase
    return [np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]


def read_time_series(
    path: str | os.PathLike[str],
    *,
    time_column: str | None = None,
    target_columns: Sequence[str] = (),
    series_column: str | None = None,
    known_columns: Sequence[str] = (),
    frequency: str | None = None,
    gaps: str = "refuse",
    time_format: str | None = None,
    encoding: str = "utf-8",
    format: str | None = None,
) -> list[TimeSeries]:
    r"""Read the time series of a table, such as ``.csv`` or ``.jsonl``; see `data.read_columns`.

    A row is a time with its values. Times are numbers, or dates in ISO 8601 (with an offset they
    become UTC). Rows may come in any order. An empty target (or ``NA``, ``NaN``, ``?``, ``null``)
    is missing. Rows after the last that has a target are the future, where only columns that are
    known in advance have values.

    Args:
        path: The file, with a header line or names; ``-`` for standard input.
        time_column: The name of the time column; None takes the first column without another role.
        target_columns: The columns to forecast; empty takes all columns without another role.
        series_column: The column that identifies the series, in the long format; series may differ
            in length.
        known_columns: Columns known in advance, which have a value in every row, future included.
        frequency: The step, as for `Frequency.parse`; None infers it.
        gaps: How steps without a row are handled: "refuse" them; "missing", "previous" or "linear"
            fills them with missing values, with the previous values, or by linear interpolation
            (missing targets in existing rows stay missing). Columns known in advance take the
            previous value.
        time_format: As for `datetime.strptime`, for other dates: "%d.%m.%Y".
        encoding: The encoding of the file.
        format: A key of `data.FORMATS`; None for that of the name, ``.csv`` for standard input.

    Returns:
        The series, in the order of their first rows; without a series column one, which has the
        name of the file.

    Raises:
        DataError: as for `data.read_columns`; a time or a number cannot be read; a time appears
            twice; times are irregular or have gaps; there is no target.
        ValueError: the frequency or `gaps` is unknown.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "sold.csv")
    ...     _ = path.write_text("day,shop,sold\n2024-01-01,a,5\n2024-01-02,a,\n2024-01-02,b,3\n"
    ...                         "2024-01-03,a,7\n2024-01-03,b,4\n")
    ...     series = read_time_series(path, series_column="shop")
    >>> [(one.name, one.targets[:, 0].tolist()) for one in series], str(series[0].frequency)
    ([('a', [5.0, nan, 7.0]), ('b', [3.0, 4.0])], 'day')
    """
    if gaps not in GAPS:
        raise ValueError(f"gaps {gaps!r} is not one of {', '.join(GAPS)}")
    step = None if frequency is None else Frequency.parse(frequency)
    if os.fspath(path) != "-" and not is_table(path, format):
        raise DataError(
            f"{path}: series to forecast are read from tables: .csv, .tsv, .jsonl, .parquet"
        )
    with table_file(path, encoding, format) as file:
        return _read_series(
            file, time_column, target_columns, series_column, known_columns, step, gaps, time_format
        )


def _read_series(
    file: SourceFile,
    time_column: str | None,
    target_columns: Sequence[str],
    series_column: str | None,
    known_columns: Sequence[str],
    step: Frequency | None,
    gaps: str,
    time_format: str | None,
) -> list[TimeSeries]:
    """The series of a table; see `read_time_series`."""
    path, names = file.name, names_of(file)
    if time_column is None:
        others = {series_column, *known_columns, *target_columns}
        time_column = next((name for name in names if name not in others), "")
    roles = [time_column, *known_columns, *([series_column] if series_column else [])]
    targets = list(target_columns) or [name for name in names if name not in roles]
    columns = [*roles, *targets]
    if repeated := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path}: the column {repeated[0]!r} has two roles; give it one")
    if not targets:
        separated = "; fields are separated by commas, in .tsv files by tabs" * (len(names) == 1)
        raise DataError(
            f"{path}: there is no column to forecast beside {', '.join(roles)}{separated}"
        )

    rows: dict[str, list[tuple[str, str, list[float]]]] = {}
    K = len(known_columns)
    for where, values in read_rows(file, columns):
        fields = [_text(value) for value in values]
        name = fields[K + 1] if series_column else path
        cells = fields[1 : K + 1] + fields[len(roles) :]
        numbers = [
            _number(where, column, cell, known=k < K)
            for k, (column, cell) in enumerate(zip([*known_columns, *targets], cells, strict=True))
        ]
        rows.setdefault(name, []).append((where, fields[0].strip(), numbers))
    if not rows:
        raise DataError(f"{path} has no row after its header")
    everywhere = [(where, text) for series in rows.values() for where, text, _ in series]
    all_times = _parse_times(everywhere, time_column, time_format)
    if step is not None and (step.unit == "number") != (all_times.dtype.kind == "f"):
        found = "numbers" if all_times.dtype.kind == "f" else "dates"
        raise DataError(
            f"{path}: the times in {time_column!r} are {found} ({everywhere[0][1]}), which cannot "
            f"have the frequency {str(step)!r}"
            + ("; for dates of digits give a time_format: '%Y%m%d'" if found == "numbers" else "")
        )

    read: list[tuple[str, Times, NDArray[np.float64], list[str]]] = []
    start = 0
    for name, series in rows.items():
        times = all_times[start : start + len(series)]
        start += len(series)
        order = np.argsort(times, kind="stable")
        places = [series[k][0] for k in order]
        times = times[order]
        for k in np.flatnonzero(times[1:] == times[:-1])[:1]:
            of_series = f" of series {name!r}" if series_column else ""
            raise DataError(
                f"{places[k + 1]}: the time {shown(times[k])}{of_series} is also in "
                f"{places[k].rpartition(', ')[2]}; "
                + ("remove one" if series_column else "remove one, or name the series_column")
            )
        read.append((name, times, np.array([series[k][2] for k in order]), places))
    step = step or _infer([times for _, times, _, _ in read])
    series_list = [
        _regular(name, times, values, places, step, gaps, K, tuple(targets), tuple(known_columns))
        for name, times, values, places in read
    ]
    if all(one.steps == 0 for one in series_list):
        raise DataError(f"{path}: no row has a number in {', '.join(map(repr, targets))}")
    return series_list


def _text(value: Any) -> str:
    """A field of a table as a text, as .csv files have it."""
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, date) else str(value)


def _number(where: str, column: str, cell: str, *, known: bool) -> float:
    text = cell.strip()
    if text.lower() in MISSING:
        if known:
            raise DataError(
                f"{where}: {column!r} is empty; a column that is known in advance needs a number "
                "in every row"
            )
        return math.nan
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{where}: {column!r} has {cell!r:.80}; expected a finite number with a decimal point"
            + ("" if known else ", or an empty field where it is missing")
        )
    return value


def _parse_times(rows: Sequence[tuple[str, str]], column: str, time_format: str | None) -> Times:
    """The times of all rows: numbers if all are, or dates."""
    if time_format is None:
        try:
            numbers = np.array([float(text) for _, text in rows])
        except ValueError:
            pass
        else:
            if np.isfinite(numbers).all():
                return numbers
    dates = np.empty(len(rows), "datetime64[us]")
    for k, (where, text) in enumerate(rows):
        try:
            dates[k] = _date(text, time_format)
        except ValueError:
            expected = (
                "a number or an ISO 8601 date (2024-01-31, 2024-01-31T12:00); for other dates give "
                "a time_format such as '%d.%m.%Y'"
                if time_format is None
                else f"a date of the form {time_format!r}"
            )
            raise DataError(
                f"{where}: the time in {column!r} is {text!r:.80}; expected {expected}"
            ) from None
    return dates


def _date(text: str, time_format: str | None) -> np.datetime64:
    if time_format is not None:
        time = datetime.strptime(text, time_format)
    else:
        if re.fullmatch(r"\d{4}[-/]\d{1,2}", text):
            text += "-1"
        if match := re.fullmatch(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(\D.*)?", text):
            text = f"{match[1]}-{int(match[2]):02}-{int(match[3]):02}{match[4] or ''}"
        time = datetime.fromisoformat(text)
    if time.tzinfo is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(time, "us")


def _infer(series: Sequence[Times]) -> Frequency:
    """The frequency of the sorted times of all series; the most frequent step if none fits all."""
    steps = np.concatenate([np.diff(times) for times in series])
    dates = series[0].dtype.kind == "M"
    if len(steps) == 0:
        return Frequency("microsecond", _MICROSECONDS["day"]) if dates else Frequency("number")
    if not dates:
        rounded = np.array([float(f"{step:.6g}") for step in steps])
        return Frequency("number", float(_mode(rounded)))
    candidates: list[Frequency] = []
    if steps.min() >= 28 * _DAY:
        months = [np.diff(times.astype("datetime64[M]").astype(np.int64)) for times in series]
        count = int(np.gcd.reduce(np.concatenate(months)))
        candidates += [Frequency("month", count, end) for end in (True, False) if count]
    weekdays = all(np.is_busday(times.astype("datetime64[D]")).all() for times in series)
    if weekdays and steps.min() == _DAY and max(t[-1] - t[0] for t in series) > 7 * _DAY:
        candidates.append(Frequency("weekday"))
    usual = Frequency("microsecond", int(_mode(steps.astype(np.int64))))
    for candidate in candidates:
        if all(candidate.positions(times)[1].all() for times in series):
            return candidate
    return usual


def _mode(values: NDArray[Any]) -> Any:
    """The most frequent value; the smallest if several are."""
    unique, counts = np.unique(values, return_counts=True)
    return unique[counts.argmax()]


def _regular(
    name: str,
    times: Times,
    values: NDArray[np.float64],
    places: Sequence[str],
    step: Frequency,
    gaps: str,
    K: int,
    targets: tuple[str, ...],
    known: tuple[str, ...],
) -> TimeSeries:
    """A series with a row at every step from its first time to its last."""
    for k in np.flatnonzero(times[1:] <= times[:-1])[:1]:
        raise DataError(
            f"{places[k + 1]}: the time {shown(times[k + 1])} follows {shown(times[k])}; expected "
            "ascending times"
        )
    positions, on_step = step.positions(times)
    for k in np.flatnonzero(~on_step)[:1]:
        raise DataError(
            f"{places[k]}: the time {shown(times[k])} is not a multiple of the step ({step}) after "
            f"{shown(times[k - 1])}; correct it, give the frequency, or resample to regular times "
            "first"
        )
    for k in np.flatnonzero(np.diff(positions) < 1)[:1]:
        raise DataError(
            f"{places[k + 1]}: {shown(times[k + 1])} and {shown(times[k])} are in the same step "
            f"({step}); give the frequency, or resample to regular times first"
        )
    rows = int(positions[-1]) + 1
    if rows != len(times) and gaps == "refuse":
        k = int(np.flatnonzero(np.diff(positions) > 1)[0])
        missing = rows - len(times)
        raise DataError(
            f"{places[k + 1]}: {shown(times[k])} is followed by {shown(times[k + 1])}, but the "
            f"step is {step}; {missing:,} of {rows:,} steps have no row. Add them, or fill them "
            "with gaps 'missing', 'previous' or 'linear'"
        )
    if rows > 1000 + 100 * len(times):
        raise DataError(
            f"{places[0]}: {len(times):,} rows are spread over {rows:,} steps of {step}; give a "
            "longer frequency"
        )
    filled = np.full((rows, values.shape[1]), np.nan)
    filled[positions] = values
    before = np.searchsorted(positions, np.arange(rows), side="right") - 1
    columns, answers = filled[:, :K], filled[:, K:]
    columns = values[before, :K]
    if gaps in ("previous", "linear"):
        absent = np.ones(rows, bool)
        absent[positions] = False
        for column in answers.T:
            there = np.flatnonzero(~np.isnan(column))
            if len(there) and gaps == "linear":
                column[absent] = np.interp(np.flatnonzero(absent), there, column[there])
            elif len(there):
                last = np.searchsorted(there, np.flatnonzero(absent), side="right") - 1
                column[absent] = np.where(last >= 0, column[there[np.maximum(last, 0)]], np.nan)
    series = TimeSeries(
        step.at(times[0], np.arange(rows)), answers, columns, step, name, targets, known
    )
    series.check()
    return series


def _is_month_end(time: np.datetime64) -> bool:
    month = time.astype("datetime64[M]")
    return bool((time.astype("datetime64[D]") + _DAY).astype("datetime64[M]") != month)


def shown(time: Any) -> str:
    """A time as written in files: a date, without the time of day at midnight, or a number.

    >>> shown(np.datetime64("2024-01-31T00:00:00", "us")), shown(1700.0)
    ('2024-01-31', '1700')
    """
    if isinstance(time, np.datetime64):
        return str(time.astype("datetime64[s]")).removesuffix("T00:00:00")
    return f"{time:.12g}"


def same_columns(series: Iterable[TimeSeries]) -> None:
    """Refuse series whose columns or frequencies differ, as one model cannot forecast them.

    Raises:
        DataError: they differ; the message says which.

    >>> same_columns([TimeSeries.of([1.0, 2.0]), TimeSeries.of([1.0, 2.0], frequency="2")])
    Traceback (most recent call last):
    anaphora.data.errors.DataError: series 1 ('series') has the step 2, the first 1; forecast them \
with separate models
    """
    first: TimeSeries | None = None
    for number, one in enumerate(series):
        first = first or one
        what = ""
        if str(one.frequency) != str(first.frequency):
            what = f"the step {one.frequency}, the first {first.frequency}"
        elif one.targets.shape[1] != first.targets.shape[1]:
            what = f"{one.targets.shape[1]} targets, the first {first.targets.shape[1]}"
        elif one.known.shape[1] != first.known.shape[1]:
            what = (
                f"{one.known.shape[1]} columns known in advance, the first {first.known.shape[1]}"
            )
        if what:
            raise DataError(
                f"series {number} ({one.name!r}) has {what}; forecast them with separate models"
            )
