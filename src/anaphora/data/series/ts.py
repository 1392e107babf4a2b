"""Series in `.ts` files of the UEA and UCR archives, and of the regression archive."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError
from anaphora.data.sources import open_source

__all__ = ["Answers", "Series", "is_number", "read_ts"]

Series = list[NDArray[np.float64]]
Answers = list[str] | list[float] | None  # classes, targets, or nothing

# The fields of the header of a .ts file, in lower case, and the types of their values.
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


def read_ts(path: str | os.PathLike[str], encoding: str) -> tuple[Series, Answers]:
    """Read a `.ts` file; see `read_series`."""
    source = open_source(path, encoding=encoding)
    name = source.name
    lines = "".join(source).split("\n")
    header, start = _read_header(name, lines)
    rows = [
        (f"{name}, line {number}", [part.strip() for part in line.split(":")])
        for number, line in enumerate(lines[start:], start=start + 1)
        if line.strip() and not _is_comment(line)
    ]
    if not rows:
        raise DataError(f"{name} has no series after its line @data")
    targets, classes = header.get("@targetlabel", False), header.get("@classlabel")
    if targets and classes is not None:
        raise DataError(
            f"{name} has both @classLabel true and @targetLabel true; a series has only one of them"
        )
    if not targets and "@classlabel" not in header and _has_classes(header, rows):
        classes = []  # with any names
    answered = targets or classes is not None
    series: Series = []
    answers: list[Any] = []
    for where, parts in rows:
        channels = parts[:-1] if answered else parts
        if not channels:
            raise DataError(f"{where}: there is no channel, or no class after the last colon")
        columns = [_values(where, n, channel) for n, channel in enumerate(channels, start=1)]
        steps = sorted({len(column) for column in columns})
        if len(steps) != 1:
            ending = ", and a class after the last colon" if answered and not targets else ""
            raise DataError(
                f"{where}: channels of {steps[0]} to {steps[-1]} steps; expected channels of one "
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


def _read_header(name: str, lines: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The values of the fields by their lower-case names, and the number of the line @data.

    The value of @classlabel is the list of classes, or None for none.
    """
    header: dict[str, Any] = {}
    other = ""
    for number, line in enumerate(lines, start=1):
        if not line.strip() or _is_comment(line):
            continue
        where = f"{name}, line {number}"
        field, *words = line.split()
        key = OTHER_NAMES.get(field.lower(), field.lower())
        if key == "@data" and not words:
            if other:
                raise DataError(
                    f"{other}: lines before @data must begin with @, or with # or % for a comment"
                )
            return header, number
        if not key.startswith("@"):
            other = other or where
            continue
        if key not in FIELDS:
            raise DataError(
                f"{where}: {field} is not one of the fields of a .ts file, which are "
                f"{', '.join(FIELDS)} and, alone on its line, @data; make it a comment with #"
            )
        if key in header:
            raise DataError(f"{where}: {field} appears in the header twice; remove one of them")
        header[key] = _field(f"{where}: {field} {' '.join(words)}".rstrip(), FIELDS[key], words)
        if key == "@timestamps" and header[key]:
            raise DataError(
                f"{where}: the values have time stamps, which are not supported; resample to even "
                "steps, remove them, and write @timeStamps false"
            )
    raise DataError(f"{name} has no line @data, after which a .ts file has its series")


def _field(said: str, kind: str, words: list[str]) -> Any:
    first = words[0].lower() if words else ""
    if kind == "classes":
        if first == "true":
            return words[1:]
        if first == "false" and len(words) == 1:
            return None
        raise DataError(f"{said}: expected true and the classes, or false")
    if kind == "flag":
        if first in ("true", "false") and len(words) == 1:
            return first == "true"
        raise DataError(f"{said}: expected true or false")
    if kind == "count":
        if len(words) == 1 and first.isdecimal() and int(first) > 0:
            return int(first)
        raise DataError(f"{said}: expected an integer of at least 1")
    return " ".join(words)


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("#", "%"))


def _has_classes(header: dict[str, Any], rows: Sequence[tuple[str, list[str]]]) -> bool:
    """Whether series have classes that the header does not mention."""
    where, first = rows[0]
    channels = header.get("@dimensions", 1 if header.get("@univariate") else None)
    if channels is not None:
        return len(first) > channels or not _may_end_with_a_channel(first)
    if not all(_may_end_with_a_channel(parts) for _, parts in rows):
        return True
    if any(len(parts) == 1 or "," in parts[0] for _, parts in rows):
        return False
    raise DataError(
        f"{where}: whether {first[-1]!r} is a class or a channel is ambiguous; add @classLabel "
        "true and the classes, or @classLabel false, before @data"
    )


def _may_end_with_a_channel(parts: list[str]) -> bool:
    """Whether the last part may be values, as many as the first part has."""
    last = parts[-1]
    return "," in last or (
        (is_number(last) or last == "?") and (len(parts) == 1 or "," not in parts[0])
    )


def is_number(word: str) -> bool:
    """Whether a word is a number; NaN and infinity are."""
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word  # as Python's own numbers may have


def _values(where: str, channel: int, text: str) -> list[float]:
    words = text.split(",")
    if all(map(is_number, words)) and np.isfinite(values := list(map(float, words))).all():
        return values
    for step, word in enumerate(map(str.strip, words), start=1):
        if is_number(word) and np.isfinite(float(word)):
            continue
        place = f"{where}, channel {channel}, step {step}"
        if word.lower() in ("", "?", "nan"):
            raise DataError(
                f"{place}: the value is missing ({word!r}); fill it in, or remove the series"
            )
        if is_number(word):
            raise DataError(f"{place}: {word} is not finite; fix it, or remove the series")
        raise DataError(
            f"{place}: {word!r} is not a number; expected numbers between commas, no time stamps, "
            "and @classLabel true where a class follows"
        )
    raise AssertionError("all values are finite numbers")


def _check_shape(
    where: str, header: dict[str, Any], shape: tuple[int, ...], before: tuple[int, ...]
) -> None:
    """Refuse a series [T, I] that contradicts the header, or the series before it."""
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
        raise DataError(f"{where}: {channels} channels; those before have {before[1]}")
    equal = header.get("@equallength")
    if equal is not False and steps != header.get("@serieslength", steps):
        said = f"@seriesLength {header['@serieslength']}"
    elif equal and steps != before[0]:
        said = f"@equalLength true, and those before have {before[0]}"
    if said:
        raise DataError(f"{where}: {steps} steps, but the header says {said}; fix one of them")


def _class(where: str, name: str, classes: list[str]) -> str:
    if name in ("", "?"):
        raise DataError(
            f"{where}: there is no class after the last colon ({name!r}); give it, or write "
            "@classLabel false and omit all classes"
        )
    if classes and name not in classes:
        raise DataError(
            f"{where}: the class {name!r} is not one of those in the header: "
            f"{', '.join(map(repr, classes))}; fix it, or add it to @classLabel true"
        )
    return name


def _target(where: str, word: str) -> float:
    if not is_number(word) or not np.isfinite(float(word)):
        raise DataError(
            f"{where}: the target after the last colon is {word!r}; expected a finite number, as "
            "the header says @targetLabel true"
        )
    return float(word)
