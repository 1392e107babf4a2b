"""Series in arrays: `.npy` and `.npz` files, and the tables of the UCR archive."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anaphora.data.encodings import open_bytes
from anaphora.data.errors import DataError
from anaphora.data.series.ts import Answers, Series, is_number
from anaphora.data.sources import open_source

__all__ = ["read_npy", "read_npz", "read_ucr", "trimmed"]

Array = NDArray[Any]
Place = Callable[[int, int, float], str]

INPUTS = ("X", "x", "data")
ANSWERS = ("y", "Y", "target", "targets", "label", "labels")
SEPARATOR = re.compile(r"[\t, ]+")


def read_npy(
    path: str | os.PathLike[str], targets: bool, channels_first: bool
) -> tuple[Series, Answers]:
    """Read rows of a class and the values of a series [n, 1 + T], or series alone [n, T, I]."""
    table = _load(path, lambda file: np.load(file, allow_pickle=False))
    if not isinstance(table, np.ndarray):
        raise DataError(f"{path} holds several arrays; rename it to .npz")
    found = f"{table.dtype} {table.shape}"
    if table.ndim == 3:
        return _series(path, "the array", table, channels_first), None
    if table.ndim != 2 or table.shape[1] < 2 or not len(table):
        raise DataError(
            f"{path} holds {found}; expected rows of a class and the values of a series, or series "
            "[n, T, I]"
        )
    _check_numbers(path, "the array", table)
    values = np.asarray(table[:, 1:, np.newaxis], np.float64)
    series = [trimmed(one, _in_table(path, n)) for n, one in enumerate(values)]
    return series, _answers(path, "column 0", table[:, 0], targets)


def read_npz(
    path: str | os.PathLike[str], targets: bool, channels_first: bool
) -> tuple[Series, Answers]:
    """Read named arrays of series and of their answers."""

    def named(file: BinaryIO) -> dict[str, Array]:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"{path} holds one array; rename it to .npy")
        with archive:
            names = archive.files
            inputs = [name for name in names if name in INPUTS]
            answers = [name for name in names if name in ANSWERS]
            if len(inputs) != 1 or len(answers) > 1:
                raise DataError(
                    f"{path} has the arrays {', '.join(map(repr, names))}; expected one of series, "
                    "X or data, and at most one of answers, y or target"
                )
            return {name: archive[name] for name in inputs + answers}

    arrays = _load(path, named)
    name, *answers_name = arrays
    X = arrays[name]
    series = _series(path, f"the array {name}", X[..., np.newaxis] if X.ndim == 2 else X,
                     channels_first and X.ndim == 3)  # fmt: skip
    if not answers_name:
        return series, None
    y = arrays[answers_name[0]]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (len(series),):
        raise DataError(
            f"{path} has {answers_name[0]} of shape {y.shape} for {len(series)} series; expected "
            f"[{len(series)}]"
        )
    return series, _answers(path, answers_name[0], y, targets)


def read_ucr(path: str | os.PathLike[str], encoding: str, targets: bool) -> tuple[Series, Answers]:
    """Read lines of a class and the values of one channel, the UCR archive's format."""
    source = open_source(path, encoding=encoding)
    rows: list[list[float]] = []
    places: list[int] = []
    for number, line in enumerate("".join(source).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{source.name}, line {number}"
        words = SEPARATOR.split(line.strip())
        for column, word in enumerate(words, start=1):
            if not is_number(word):
                raise DataError(
                    f"{place}, column {column}: {word!r} is not a number; expected a class, which "
                    "is an integer, and the values of a series"
                )
        if rows and len(words) != len(rows[0]):
            raise DataError(
                f"{place}: there are {len(words)} columns, where line {places[0]} has "
                f"{len(rows[0])}; pad shorter series with NaN at the end"
            )
        if len(words) < 2:
            raise DataError(
                f"{place}: there is one number; expected a class and values of a series"
            )
        rows.append(list(map(float, words)))
        places.append(number)
    if not rows:
        raise DataError(f"{source.name} has no series")
    table = np.array(rows)
    series = [
        trimmed(row[1:, np.newaxis], _in_line(source.name, n))
        for n, row in zip(places, table, strict=True)
    ]
    return series, _answers(source.name, "column 1", table[:, 0], targets)


def trimmed(series: NDArray[np.float64], place: Place) -> NDArray[np.float64]:
    """A series [T, I] without the steps at its end that are missing (NaN) in all channels.

    Args:
        series: [T, I].
        place: Describes where a value is, given its step, its channel and the value.

    Raises:
        DataError: nothing is left, or a value is not finite.
    """
    steps = np.flatnonzero(~np.isnan(series).all(axis=1))
    series = series[: steps[-1] + 1 if len(steps) else 1]
    for step, channel in np.argwhere(~np.isfinite(series))[:1]:
        value = series[step, channel]
        raise DataError(
            f"{place(int(step), int(channel), value)}; expected finite numbers: fill it in, or "
            "remove the series"
        )
    return series


def _in_table(path: Any, n: int) -> Place:
    return lambda t, _, value: f"{path} has {value} in row {n}, column {t + 1} (from 0)"


def _in_line(name: str, n: int) -> Place:
    return lambda t, _, value: f"{name}, line {n}, column {t + 2}: the value is {value}"


def _in_array(path: Any, n: int) -> Place:
    return lambda t, i, value: f"{path} has {value} in series {n}, step {t}, channel {i} (from 0)"


def _load(path: str | os.PathLike[str], load: Callable[[BinaryIO], Any]) -> Any:
    if os.fspath(path) == "-":
        raise DataError("arrays cannot be read from standard input; name a file")
    try:
        with open_bytes(Path(path), str(path)) as file:
            return load(file)
    except (ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        if "Object arrays" in str(error):
            raise DataError(
                f"{path} has an array of Python objects, which is not read, because it could run "
                "code. Save series of one length as numbers [n, T] or [n, T, I]; of different "
                "lengths too, padded with NaN at the end, or as a .ts file"
            ) from error
        raise DataError(f"{path} cannot be read as an array: {error}") from error
    except Exception as error:  # of zipfile and zlib
        raise DataError(
            f"{path} cannot be read as arrays: {error}; copy or download it again"
        ) from error


def _series(path: str | os.PathLike[str], name: str, array: Array, channels_first: bool) -> Series:
    """The series of an array [n, T, I]."""
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(
            f"{path}: {name} has the shape {array.shape}; expected series [n, T] or [n, T, I], all "
            "of them at least 1"
        )
    _check_numbers(path, name, array)
    values = np.asarray(array, np.float64)
    if channels_first:
        values = values.transpose(0, 2, 1)
    return [trimmed(one, _in_array(path, n)) for n, one in enumerate(values)]


def _check_numbers(path: str | os.PathLike[str], name: str, array: Array) -> None:
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: {name} holds {array.dtype} {array.shape}, which are not numbers; expected "
            "numbers"
        )


def _answers(path: str | os.PathLike[str], name: str, y: Array, targets: bool) -> Answers:
    """Classes or targets from an array [n]."""
    kind = y.dtype.kind
    if targets:
        _check_numbers(path, name, y)
        numbers = y.astype(np.float64)
        for n in np.flatnonzero(~np.isfinite(numbers))[:1]:
            raise DataError(
                f"{path} has the target {numbers[n]} of series {n} (from 0) in {name}; expected "
                "finite numbers"
            )
        return list(map(float, numbers))
    if kind == "b":
        return [str(value).lower() for value in y.tolist()]
    if kind in "US":
        return [value.decode() if isinstance(value, bytes) else value for value in y.tolist()]
    _check_numbers(path, name, y)
    if kind == "f" and (parts := y[y % 1 != 0].tolist()):
        raise DataError(
            f"{path} has a class {parts[0]} in {name}; expected integers there, as classes; "
            "for numbers to predict, use regression"
        )
    return [str(int(value)) for value in y]
