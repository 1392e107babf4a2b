"""Series of measurements with their classes, from files of the UEA and UCR archives."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora.data.encodings import open_bytes, uncompressed_name
from anaphora.data.errors import DataError
from anaphora.data.sources import open_source

__all__ = ["moments", "read_series", "standardized"]

Series = list[NDArray[np.float64]]
Answers = list[str] | list[float] | None  # classes, targets, or nothing

# The fields of the header of a .ts file in small letters, and what their values are.
FIELDS = {
    "@problemname": "name",
    "@timestamps": "flag",
    "@missing": "flag",
    "@univariate": "flag",
    "@dimensions": "count",
    "@equallength": "flag",
    "@serieslength": "count",
    "@classlabel": "classes",
    "@targetlabel": "flag",
}
OTHER_NAMES = {"@dimension": "@dimensions"}


def read_series(path: str | os.PathLike[str], encoding: str = "utf-8") -> tuple[Series, Answers]:
    r"""Read the series of a file of the UEA and UCR archives (timeseriesclassification.com).

    A line of a ``.ts`` file after ``@data`` is a series: its channels, separated by colons, each
    with its values, separated by commas, and after a last colon its class or its target. The header
    tells which: ``@classLabel true`` and the classes, ``@classLabel false``, or
    ``@targetLabel true``. If it tells nothing, there are classes where its number of channels, or
    the lines themselves, can be read in no other way. A ``.npy`` file has a row for each
    series: its class, a whole number, and the values of its one channel. Both may be compressed
    with gzip.

    Args:
        path: The file.
        encoding: That of a ``.ts`` file.

    Returns:
        The series, each [T, I]; and their classes as str, their targets as float, or None if they
        have neither.

    Raises:
        DataError: what `open_source` raises; the file is not of this form, or has no series; a
            value is missing or no finite number; there are time stamps; channels differ in length,
            or series in their number of channels; a class is empty or not among those of the
            header; the header says something else of channels or lengths; whether there are classes
            cannot be told.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "two.ts")
    ...     _ = path.write_text("@data\n1,2,3:4,5,6:rising\n3,2:9,8:falling\n")
    ...     series, classes = read_series(path)
    >>> series[1].tolist(), classes
    ([[3.0, 9.0], [2.0, 8.0]], ['rising', 'falling'])
    """
    path = Path(path)
    if uncompressed_name(path).lower().endswith(".npy"):
        return _read_table(path)
    return _read_ts(path, encoding)


def _read_table(path: Path) -> tuple[Series, list[str]]:
    try:
        with open_bytes(path, str(path)) as file:
            table = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as an array: {error}") from error
    found = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else "several arrays"
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] < 2 or not len(table):
        raise DataError(f"{path} holds {found}; wanted rows of a class and the values of a series")
    if table.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {found}, which are no numbers; wanted numbers")
    for row, column in np.argwhere(~np.isfinite(table))[:1]:
        raise DataError(
            f"{path} has {table[row, column]} in row {row}, column {column} (from 0); wanted "
            "finite numbers: fill it in, or leave the row out"
        )
    if parts := table[:, 0][table[:, 0] % 1 != 0].tolist():
        raise DataError(f"{path} has a class {parts[0]} in column 0; wanted whole numbers there")
    return [row[1:, None] for row in table], [str(int(row[0])) for row in table]


def _read_ts(path: Path, encoding: str) -> tuple[Series, Answers]:
    lines = "".join(open_source(path, encoding=encoding)).split("\n")
    header, start = _read_header(path, lines)
    rows = [
        (f"{path}, line {number}", [part.strip() for part in line.split(":")])
        for number, line in enumerate(lines[start:], start=start + 1)
        if line.strip() and not _is_comment(line)
    ]
    if not rows:
        raise DataError(f"{path} has no series after its line @data")
    targets, classes = header.get("@targetlabel", False), header.get("@classlabel")
    if targets and classes is not None:
        raise DataError(
            f"{path} says both @classLabel true and @targetLabel true; a series has one of them"
        )
    if not targets and "@classlabel" not in header and _has_classes(header, rows):
        classes = []  # of any names
    answered = targets or classes is not None
    series: Series = []
    answers: list[Any] = []
    for where, parts in rows:
        channels = parts[:-1] if answered else parts
        if not channels:
            raise DataError(f"{where}: there is no channel, or no class after a last colon")
        columns = [_values(where, n, channel) for n, channel in enumerate(channels, start=1)]
        steps = sorted({len(column) for column in columns})
        if len(steps) != 1:
            ending = ", and a class after a last colon" if answered and not targets else ""
            raise DataError(
                f"{where}: channels of {steps[0]} to {steps[-1]} steps; wanted channels of one "
                f"length{ending}"
            )
        values = np.array(columns).T
        _check_shape(where, header, values.shape, series[0].shape if series else values.shape)
        series.append(values)
        if answered:
            answers.append(
                _target(where, parts[-1]) if targets else _class(where, parts[-1], classes or [])
            )
    return series, answers if answered else None


def _read_header(path: Path, lines: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The values of the fields by their names in small letters, and the number of the line @data.

    The value of @classlabel is the list of classes, or None for none.
    """
    header: dict[str, Any] = {}
    other = ""
    for number, line in enumerate(lines, start=1):
        if not line.strip() or _is_comment(line):
            continue
        where = f"{path}, line {number}"
        name, *words = line.split()
        key = OTHER_NAMES.get(name.lower(), name.lower())
        if key == "@data" and not words:
            if other:
                raise DataError(
                    f"{other}: before @data a line begins with @, or with # or % for a comment"
                )
            return header, number
        if not key.startswith("@"):
            other = other or where
            continue
        if key not in FIELDS:
            raise DataError(
                f"{where}: {name} is none of the fields of a .ts file, which are "
                f"{', '.join(FIELDS)} and, alone on its line, @data; make it a comment with #"
            )
        if key in header:
            raise DataError(f"{where}: {name} stands in the header twice; remove one of them")
        header[key] = _field(f"{where}: {name} {' '.join(words)}".rstrip(), FIELDS[key], words)
        if key == "@timestamps" and header[key]:
            raise DataError(
                f"{where}: the values have time stamps, which are not read; leave them out, with "
                "values at even steps, and say @timeStamps false"
            )
    raise DataError(f"{path} has no line @data, after which a .ts file has its series")


def _field(said: str, kind: str, words: list[str]) -> Any:
    first = words[0].lower() if words else ""
    if kind == "classes":
        if first == "true":
            return words[1:]
        if first == "false" and len(words) == 1:
            return None
        raise DataError(f"{said}: wanted true and the classes, or false")
    if kind == "flag":
        if first in ("true", "false") and len(words) == 1:
            return first == "true"
        raise DataError(f"{said}: wanted true or false")
    if kind == "count":
        if len(words) == 1 and first.isdecimal() and int(first) > 0:
            return int(first)
        raise DataError(f"{said}: wanted a whole number of at least 1")
    return " ".join(words)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("#", "%"))


def _has_classes(header: dict[str, Any], rows: Sequence[tuple[str, list[str]]]) -> bool:
    """Whether series have classes of which the header says nothing."""
    where, first = rows[0]
    channels = header.get("@dimensions", 1 if header.get("@univariate") else None)
    if channels is not None:
        return len(first) > channels or not _may_end_with_a_channel(first)
    if not all(_may_end_with_a_channel(parts) for _, parts in rows):
        return True
    if any(len(parts) == 1 or "," in parts[0] for _, parts in rows):
        return False
    raise DataError(
        f"{where}: whether {first[-1]!r} is a class or a channel cannot be told; say @classLabel "
        "true and the classes, or @classLabel false, before @data"
    )


def _may_end_with_a_channel(parts: list[str]) -> bool:
    """Whether the last part may be values, as many as the first has."""
    last = parts[-1]
    return "," in last or (
        (_is_number(last) or last == "?") and (len(parts) == 1 or "," not in parts[0])
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word  # as Python's own numbers may have


def _values(where: str, channel: int, text: str) -> list[float]:
    words = text.split(",")
    if all(map(_is_number, words)) and np.isfinite(values := list(map(float, words))).all():
        return values
    for step, word in enumerate(map(str.strip, words), start=1):
        if _is_number(word) and np.isfinite(float(word)):
            continue
        place = f"{where}, channel {channel}, step {step}"
        if word.lower() in ("", "?", "nan"):
            raise DataError(
                f"{place}: the value is missing ({word!r}); fill it in, or leave the series out"
            )
        if _is_number(word):
            raise DataError(f"{place}: {word} is not finite; fix it, or leave the series out")
        raise DataError(
            f"{place}: {word!r} is no number; wanted numbers between commas, no time stamps, and "
            "@classLabel true where a class follows"
        )
    raise AssertionError("all values are finite numbers")


def _check_shape(
    where: str, header: dict[str, Any], shape: tuple[int, ...], before: tuple[int, ...]
) -> None:
    """Refuse a series [T, I] that is not like the header says, or like those above it."""
    steps, channels = shape
    said = ""
    if channels != header.get("@dimensions", channels):
        said = f"@dimensions {header['@dimensions']}"
    elif "@univariate" in header and header["@univariate"] != (channels == 1):
        said = f"@univariate {str(header['@univariate']).lower()}"
    if said:
        raise DataError(
            f"{where}: {channels} channels, but the header says {said}; fix one of them"
        )
    if channels != before[1]:
        raise DataError(f"{where}: {channels} channels; those above have {before[1]}")
    equal = header.get("@equallength")
    if equal is not False and steps != header.get("@serieslength", steps):
        said = f"@seriesLength {header['@serieslength']}"
    elif equal and steps != before[0]:
        said = f"@equalLength true, and those above have {before[0]}"
    if said:
        raise DataError(f"{where}: {steps} steps, but the header says {said}; fix one of them")


def _class(where: str, name: str, classes: list[str]) -> str:
    if name in ("", "?"):
        raise DataError(
            f"{where}: there is no class after the last colon ({name!r}); give it, or say "
            "@classLabel false and leave all classes out"
        )
    if classes and name not in classes:
        raise DataError(
            f"{where}: the class {name!r} is none of the header: {', '.join(map(repr, classes))}; "
            "fix it, or add it to @classLabel true"
        )
    return name


def _target(where: str, word: str) -> float:
    if not _is_number(word) or not np.isfinite(float(word)):
        raise DataError(
            f"{where}: the target after the last colon is {word!r}; wanted a finite number, as "
            "the header says @targetLabel true"
        )
    return float(word)


def moments(
    values: ArrayLike, what: str = "channel"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean and the deviation along the first axis; that of a constant channel counts as 1.

    They are computed in float64, whatever the dtype of the values.

    Args:
        values: [N, ...] finite numbers, such as the steps of all series [N, I].
        what: What a column is called in messages.

    Raises:
        DataError: a channel has a value that is not finite, or values so large that their squares
            overflow; the message names it. Or N is 0.

    >>> mean, deviation = moments([[1.0, 5.0], [3.0, 5.0]])
    >>> mean.tolist(), deviation.tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    array = np.asarray(values)
    if len(array) == 0:
        raise DataError("there is no step of which to take a mean and a deviation; give some")
    with np.errstate(over="ignore", invalid="ignore"):  # told below, by channel
        mean = array.mean(axis=0, dtype=np.float64)
        deviation = array.std(axis=0, dtype=np.float64)
    overflowed = np.flatnonzero(~np.isfinite(mean + deviation))
    if len(overflowed):
        channel = int(overflowed[0])
        column = array.reshape(len(array), -1)[:, channel]
        wrong = column[~np.isfinite(column)]
        raise DataError(
            f"{what} {channel} has the value {wrong[0]}, which is not finite; leave it out or "
            "replace it"
            if len(wrong)
            else f"{what} {channel} has values as large as {np.abs(column).max():g}, whose squares "
            "overflow in float64, so it has no deviation; divide it by a power of ten"
        )
    # By rounding alone the deviation of a constant may be a little above 0.
    constant = (array.min(axis=0) == array.max(axis=0)) | (deviation == 0)
    return mean, np.where(constant, 1.0, deviation)


def standardized(
    series: NDArray[Any], mean: NDArray[Any], deviation: NDArray[Any], what: str = "a series"
) -> NDArray[np.float64]:
    """A series [T, I] less the mean of each channel, over its deviation, as `moments` gave them.

    Args:
        series: [T, I].
        mean: [I].
        deviation: [I].
        what: What the series is called in messages.

    Raises:
        DataError: a value is so far from the mean that no float32 can hold it then; the message
            names channel and step.

    >>> standardized(np.array([[1.0], [4.0]]), np.array([2.0]), np.array([0.5])).tolist()
    [[-2.0], [4.0]]
    """
    scaled: NDArray[np.float64] = (series - mean) / deviation
    beyond = np.argwhere(~(np.abs(scaled) <= np.finfo(np.float32).max))
    if len(beyond):
        step, channel = beyond[0]
        raise DataError(
            f"{what} has the value {series[step, channel]:g} in channel {channel} at step {step}, "
            f"which no float32 can hold when standardised by the mean {mean[channel]:g} and the "
            f"deviation {deviation[channel]:g} of the training; correct it or leave the series out"
        )
    return scaled
