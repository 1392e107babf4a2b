"""Checking plain data, such as JSON, against types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An integer of at least 0."""

Size = Annotated[int, msgspec.Meta(ge=0, le=2**28)]
"""The size of an axis of an array; the product of two fits in 64 bits."""

NotNegative = Annotated[float, msgspec.Meta(ge=0)]
"""A number of at least 0."""

_NAMES = {
    bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object",
    type(None): "null",
}  # fmt: skip
_SHOWN = 60  # characters of a value that a message shows
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")


class SchemaError(ValueError):
    """Data does not match its type; the message begins with the place in it."""


def convert(data: Any, kind: Any, place: str = "") -> Any:
    """Convert plain data to a type: a dataclass, a `TypedDict`, ``list[str]``, ...

    Strings are not converted to numbers, booleans are not numbers, and an integer is accepted
    where a float is expected. A dataclass checks itself in ``__post_init__``. Fields that a
    `TypedDict` or a dataclass does not name are dropped.

    Args:
        data: The data.
        kind: The type.
        place: The name of the data in messages.

    Raises:
        SchemaError: the data does not match; the message has the place, the value there, and what
            was expected.

    >>> from typing import TypedDict
    >>> class Result(TypedDict):
    ...     step: Count
    ...     loss: float | None
    >>> convert({"step": 3, "loss": 2}, Result)
    {'step': 3, 'loss': 2.0}
    >>> convert([{"step": -5, "loss": 2.0}], list[Result], "results")
    Traceback (most recent call last):
        ...
    anaphora.schema.SchemaError: results[0].step is -5; expected int >= 0
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise SchemaError(_explained(str(error), data, place)) from error
    except UnicodeEncodeError as error:  # a lone surrogate where no string is allowed
        path = next((path for path, value in _walk(data) if value == error.object), "")
        within = f"{place}{path}" if place else path.removeprefix(".")
        raise SchemaError(
            f"{within or 'the value'} is {_shown(error.object)}; expected something other than a "
            "string"
        ) from error


def convert_fields(
    data: Mapping[str, Any], kinds: Mapping[str, tuple[Any, bool]], place: str = ""
) -> dict[str, Any]:
    """Check the entries of a mapping, each against its own type; return the converted ones.

    Args:
        data: The mapping.
        kinds: For each name its type, and whether it is required.
        place: The name of the data in messages.

    Raises:
        SchemaError: an entry is missing or unknown, or does not match.

    >>> kinds = {"classes": (int, True), "dropout": (float, False)}
    >>> convert_fields({"classes": 2}, kinds)
    {'classes': 2}
    >>> convert_fields({"classes": 2, "color": 1}, kinds, "model")
    Traceback (most recent call last):
        ...
    anaphora.schema.SchemaError: model has the unknown option color
    >>> convert_fields({"dropout": 0.5}, kinds, "model")
    Traceback (most recent call last):
        ...
    anaphora.schema.SchemaError: model has no classes, which is required
    """
    fields = [
        (name, kind) if required else (name, kind | msgspec.UnsetType, msgspec.UNSET)
        for name, (kind, required) in kinds.items()
    ]
    struct = msgspec.defstruct("Fields", fields, forbid_unknown_fields=True, kw_only=True)
    return {
        name: value
        for name, value in msgspec.structs.asdict(convert(data, struct, place)).items()
        if value is not msgspec.UNSET
    }


def _explained(message: str, data: Any, place: str) -> str:
    """A message of msgspec, with the place and its value first."""
    problem, _, path = message.partition(" - at `$")
    value, found, path = _at(data, path.rstrip("`"), problem)
    within = f"{place}{path}" if place else path.removeprefix(".")
    owner = f"{within} has" if within else "there is"
    if match := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{owner} no {match[1]}, which is required"
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
        return f"{owner} the unknown option {match[1]}"
    if match := re.fullmatch(r"Expected (.*?)(?:, got .*)?", problem):
        expected = match[1].replace("`", "")
    elif problem == "Number out of range":
        expected = "a smaller number"
    else:  # of a dataclass that checked itself
        return f"{within}: {problem}" if within else problem
    shown = f"is {_shown(value)}" if found else "does not match"
    return f"{within or 'the value'} {shown}; expected {expected}"


def _at(data: Any, path: str, problem: str) -> tuple[Any, bool, str]:
    """The value at a path of msgspec, whether it was found, and the path as we write it."""
    written = ""
    for step in _STEP.finditer(path):
        key: Any = int(step[2]) if step[2] else step[1]
        if key is None and isinstance(data, dict):  # msgspec does not say which entry of a mapping
            wrong = re.search(r"got `(\w+)`", problem)
            key = next((k for k, v in data.items() if wrong and _NAMES[type(v)] == wrong[1]), None)
        written += f"[{'...' if key is None else key}]" if step[2] or key is None else f".{key}"
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None, False, written
    return data, True, written


def _walk(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value within data, with its path."""
    yield path, data
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _walk(value, f"{path}.{key}")
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from _walk(value, f"{path}[{number}]")


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)) and len(value):
        return "an object" if isinstance(value, dict) else f"a list of {len(value):,}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
