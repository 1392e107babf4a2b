"""Series in `.arff` files (Weka's format) of the UEA and UCR archives."""

import os
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError
from anaphora.data.series.arrays import trimmed
from anaphora.data.series.ts import Answers, Series, is_number
from anaphora.data.sources import open_source

__all__ = ["read_arff"]

WORD = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
ATTRIBUTE = re.compile(rf"@attribute\s+({WORD}|[^\s{{]+)\s*(.*)", re.IGNORECASE | re.DOTALL)
FIELD = re.compile(rf"\s*({WORD}|[^,'\"][^,]*?|)\s*(,|$)", re.DOTALL)
NUMERIC = ("numeric", "real", "integer")
TARGET_NAMES = ("class", "target", "label", "classlabel", "y")


@dataclass
class Attribute:
    """An attribute of the header: its name and type.

    Attributes:
        name: Its name, without quotes.
        kind: ``numeric``, ``nominal``, ``string`` or ``relational``.
        classes: The values of a nominal attribute.
        inner: The attributes of a relational attribute.
    """

    name: str
    kind: str
    classes: list[str] = field(default_factory=list)
    inner: list["Attribute"] = field(default_factory=list)


def read_arff(path: str | os.PathLike[str], encoding: str, targets: bool) -> tuple[Series, Answers]:
    """Read an `.arff` file; see `read_series`."""
    source = open_source(path, encoding=encoding)
    lines = "".join(source).split("\n")
    attributes, start = _read_header(source.name, lines)
    last = attributes[-1]
    is_target = last.kind == "numeric" and (targets or last.name.lower() in TARGET_NAMES)
    answered = last.kind in ("nominal", "string") or is_target
    measured = attributes[:-1] if answered else attributes
    relational = [one for one in measured if one.kind == "relational"]
    if not measured or (relational and len(measured) > 1):
        raise DataError(
            f"{source.name} has the attributes {_listed(attributes)}; expected a numeric attribute "
            "for each step, or one relational attribute, and the class"
        )
    for one in relational[0].inner if relational else measured:
        if one.kind != "numeric":
            raise DataError(
                f"{source.name}: the attribute {one.name!r} is {one.kind}; expected numeric "
                "attributes for the steps of a series, and only the last one a class"
            )
    series: Series = []
    answers: list[Any] = []
    for number, line in enumerate(lines[start:], start=start + 1):
        if not line.strip() or line.lstrip().startswith("%"):
            continue
        place = f"{source.name}, line {number}"
        fields = _fields(line, place)
        if len(fields) != len(attributes):
            raise DataError(
                f"{place}: there are {len(fields)} values, but {len(attributes)} attributes; fix "
                "the line"
            )
        rows = re.split(r"\\n|\n", fields[0]) if relational else [",".join(fields[: len(measured)])]
        values = _values(rows, place, len(relational[0].inner) if relational else len(measured))
        if series and values.shape[1] != series[0].shape[1]:
            raise DataError(
                f"{place}: {values.shape[1]} channels; those before have {series[0].shape[1]}"
            )
        series.append(values)
        if answered:
            answers.append(_answer(fields[-1], last, place))
    if not series:
        raise DataError(f"{source.name} has no series after its line @data")
    return series, answers if answered else None


def _read_header(name: str, lines: list[str]) -> tuple[list[Attribute], int]:
    """The attributes, and the number of the line @data."""
    attributes: list[Attribute] = []
    relation: Attribute | None = None  # the relational attribute whose lines these are
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        word = text.split(None, 1)[0].lower() if text else ""
        place = f"{name}, line {number}"
        if not text or text.startswith("%") or word == "@relation":
            continue
        if word == "@data":
            if relation is not None:
                raise DataError(f"{place}: @data before @end {relation.name}; add that line")
            if not attributes:
                raise DataError(f"{place}: @data without any @attribute before it")
            return attributes, number
        if word == "@end" and relation is not None:
            relation = None
            continue
        match = ATTRIBUTE.fullmatch(text)
        if match is None:
            raise DataError(
                f"{place}: expected @relation, @attribute NAME TYPE, @data, or % and a comment"
            )
        attribute = _attribute(_unquoted(match[1]), match[2].strip(), place)
        (relation.inner if relation is not None else attributes).append(attribute)
        if attribute.kind == "relational":
            relation = attribute
    raise DataError(f"{name} has no line @data, after which an .arff file has its series")


def _attribute(name: str, type: str, place: str) -> Attribute:
    kind = type.lower()
    if kind in NUMERIC:
        return Attribute(name, "numeric")
    if kind in ("string", "relational"):
        return Attribute(name, kind)
    if type.startswith("{") and type.endswith("}"):
        return Attribute(name, "nominal", [_unquoted(one) for one in _fields(type[1:-1], place)])
    raise DataError(
        f"{place}: the type {type!r} is not one of numeric, real, integer, string, relational and "
        "{class, class}"
    )


def _fields(text: str, place: str) -> list[str]:
    """The values between commas; quoted ones may contain commas. Quotes are removed."""
    if text.lstrip().startswith("{"):
        raise DataError(f"{place}: sparse rows in braces are not supported; write all values")
    fields = []
    position = 0
    while True:
        match = FIELD.match(text, position)
        if match is None:
            raise DataError(f"{place}: a quote is not closed, or a value continues after it")
        fields.append(_unquoted(match[1]))
        position = match.end()
        if not match[2]:
            return fields


def _unquoted(word: str) -> str:
    return word[1:-1].replace("\\'", "'") if word[:1] in ("'", '"') and len(word) > 1 else word


def _values(rows: list[str], place: str, steps: int) -> NDArray[np.float64]:
    """A series [T, I] from the text of each of its channels."""
    channels = []
    for channel, row in enumerate(rows, start=1):
        words = [word.strip() for word in row.split(",")]
        if len(words) != steps:
            raise DataError(
                f"{place}, channel {channel}: {len(words)} values, but {steps} attributes; fix "
                "the line"
            )
        for step, word in enumerate(words, start=1):
            if word != "?" and not is_number(word):
                raise DataError(
                    f"{place}, channel {channel}, step {step}: {word!r} is not a number; expected "
                    "numbers between commas"
                )
        channels.append([np.nan if word == "?" else float(word) for word in words])
    return trimmed(
        np.array(channels).T,
        lambda t, i, value: f"{place}, channel {i + 1}, step {t + 1}: the value is {value}",
    )


def _answer(word: str, attribute: Attribute, place: str) -> str | float:
    if attribute.kind == "numeric":
        if not is_number(word) or not np.isfinite(float(word)):
            raise DataError(
                f"{place}: the target {attribute.name!r} is {word!r}; expected a finite number"
            )
        return float(word)
    if word in ("", "?"):
        raise DataError(f"{place}: the class is missing ({word!r}); give it, or remove the series")
    if attribute.classes and word not in attribute.classes:
        raise DataError(
            f"{place}: the class {word!r} is not one of those in the header: "
            f"{', '.join(map(repr, attribute.classes))}; fix it, or add it to the attribute "
            f"{attribute.name!r}"
        )
    return word


def _listed(attributes: list[Attribute]) -> str:
    shown = [f"{one.name} ({one.kind})" for one in attributes[:5]]
    return ", ".join(shown) + (", ..." if len(attributes) > 5 else "")
