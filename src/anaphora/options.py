"""Options: the fields of a dataclass, each with its default, its help, and how it is checked."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from anaphora import schema

_Class = TypeVar("_Class", bound=type)

LARGEST = 2**63 - 1
"""The largest integer that an option may be."""


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    *,
    section: str,
    common: bool = False,
    reading: bool = False,
) -> Any:
    """A field of an options class.

    Args:
        default: What it is where nothing else was given.
        help: What it means, as ``--help`` prints it.
        choices: The words that it may be; any value if there are none.
        section: Where ``config.json`` has it: "data", "model" or "training".
        common: Whether ``--help`` shows it among the first.
        reading: Whether it says how files are read, so that commands which use a trained model
            take it too.

    >>> @dataclasses.dataclass(kw_only=True)
    ... class Size(Options):
    ...     hidden_size: int = option(256, "Units of each layer.", section="model")
    >>> Size(hidden_size=3).to_dict()
    {'hidden_size': 3}
    """
    metadata = {
        "help": help, "choices": choices, "section": section, "common": common, "reading": reading,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def defaults(**values: Any) -> Callable[[_Class], _Class]:
    """Give a dataclass other defaults of fields that it inherits; below ``@dataclass``.

    >>> @dataclasses.dataclass(kw_only=True)
    ... class Size(Options):
    ...     hidden_size: int = option(256, "Units of each layer.", section="model")
    >>> @dataclasses.dataclass(kw_only=True)
    ... @defaults(hidden_size=128)
    ... class SmallSize(Size):
    ...     pass
    >>> SmallSize().hidden_size, Size().hidden_size
    (128, 256)
    """

    def decorate(cls: _Class) -> _Class:
        hints = typing.get_type_hints(cls)
        inherited = {
            name: field
            for base in reversed(cls.__mro__)
            for name, field in vars(base).get("__dataclass_fields__", {}).items()
        }
        for name, value in values.items():
            field = dataclasses.field(
                default=value, kw_only=True, metadata=inherited[name].metadata
            )
            cls.__annotations__[name] = hints[name]
            setattr(cls, name, field)
        return cls

    return decorate


class Options:
    """What all options classes share: they check themselves and are made from dictionaries.

    A subclass is a dataclass whose fields are `option`.
    """

    plain_types: ClassVar[Mapping[Any, Any]] = {}
    """What fields of some types are in plain data, where that is another type."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, choices = getattr(self, field.name), field.metadata.get("choices")
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(f"{field.name} is {value:.3g}; expected a number of 63 bits")
            if choices and isinstance(value, str) and value not in choices:
                raise ValueError(f"{field.name} {value!r:.80} is not one of {', '.join(choices)}")

    @classmethod
    def fields(cls, section: str | None = None) -> dict[str, dataclasses.Field[Any]]:
        """The fields by name, of one section or of all."""
        return {
            field.name: field
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
            if section is None or field.metadata.get("section") == section
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], place: str = "", **objects: Any) -> Self:
        """Make the options of a dictionary of plain values; what is missing has its default.

        Args:
            values: The values by the names of the fields.
            place: What the dictionary is called, for messages.
            **objects: Values that are not plain.

        Raises:
            ValueError: a name is unknown, or a value is of another type than the field, or out of
                its range.
        """
        fields = cls.fields()
        if unknown := sorted(set(values) - set(fields)):
            raise ValueError(f"unknown options {', '.join(unknown)}; there are {sorted(fields)}")
        hints = typing.get_type_hints(cls)
        kinds = {
            name: (cls.plain_types.get(hints[name], hints[name]), _is_required(field))
            for name, field in fields.items()
            if name not in objects
        }
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        return cls(**schema.convert_fields(plain, kinds, place), **objects)

    def to_dict(self, section: str | None = None) -> dict[str, Any]:
        """The options as plain values, of one section or of all."""
        return {name: getattr(self, name) for name in self.fields(section)}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING


def check_sizes(options: Any, minimum: int, *names: str) -> None:
    """Refuse options that are not integers of at least a minimum; None is no number given.

    Raises:
        ValueError: one is not.

    >>> import types
    >>> check_sizes(types.SimpleNamespace(batch_size=0), 1, "batch_size")
    Traceback (most recent call last):
        ...
    ValueError: batch_size must be an integer of at least 1, not 0
    """
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
            raise ValueError(f"{name} must be an integer of at least {minimum}, not {value!r}")
        if value > LARGEST:
            raise ValueError(f"{name} must fit into 64 bits; {value} does not")


def check_shares(options: Any, *names: str) -> None:
    """Refuse options that are not shares, 0 to below 1.

    Raises:
        ValueError: one is not.

    >>> import types
    >>> check_shares(types.SimpleNamespace(dropout=1.0), "dropout")
    Traceback (most recent call last):
        ...
    ValueError: dropout is a share, 0 <= dropout < 1, not 1.0
    """
    for name in names:
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"{name} is a share, 0 <= {name} < 1, not {getattr(options, name)}")


def check_factors(options: Any, *names: str) -> None:
    """Refuse options that are not finite numbers of at least 0.

    Raises:
        ValueError: one is not.

    >>> import types
    >>> check_factors(types.SimpleNamespace(clip_norm=math.inf), "clip_norm")
    Traceback (most recent call last):
        ...
    ValueError: clip_norm must be finite and >= 0, not inf
    """
    for name in names:
        if not 0 <= getattr(options, name) < math.inf:
            raise ValueError(f"{name} must be finite and >= 0, not {getattr(options, name)}")
