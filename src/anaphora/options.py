"""Options: the fields of a dataclass, each with a default, help, and checks."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from anaphora import schema

_Class = TypeVar("_Class", bound=type)

LARGEST = 2**63 - 1
"""The largest integer allowed as an option."""


def option(
    default: Any,
    help: str,
    allowed: tuple[str, ...] | Callable[..., None] = (),
    *,
    section: str,
    common: bool = False,
    reading: bool = False,
) -> Any:
    """A field of an options class.

    Args:
        default: The default.
        help: The description that ``--help`` prints.
        allowed: The allowed words; or for a number `SIZE`, `COUNT`, `SHARE` or `FACTOR`; empty
            allows any value.
        section: Its section of ``config.json``: "data", "model" or "training".
        common: Whether ``--help`` alone shows it.
        reading: Whether it determines how files are read, so that commands which use a trained
            model accept it too.

    >>> @dataclasses.dataclass(kw_only=True)
    ... class Size(Options):
    ...     hidden_size: int = option(256, "Units of each layer.", SIZE, section="model")
    >>> Size(hidden_size=3).to_dict()
    {'hidden_size': 3}
    >>> Size(hidden_size=0)
    Traceback (most recent call last):
        ...
    ValueError: hidden_size must be an integer of at least 1, not 0
    """
    choices, check = ((), allowed) if callable(allowed) else (allowed, None)
    metadata = {
        "help": help, "choices": choices, "check": check, "section": section, "common": common,
        "reading": reading,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def defaults(**values: Any) -> Callable[[_Class], _Class]:
    """Override defaults of inherited fields of a dataclass; write it below ``@dataclass``.

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
    """The base of all options classes: checks and conversion from and to dictionaries.

    A subclass is a dataclass whose fields are made by `option`.
    """

    plain_types: ClassVar[Mapping[Any, Any]] = {}
    """The types of plain data for field types that have no plain equivalent."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, choices = getattr(self, field.name), field.metadata.get("choices")
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(
                    f"{field.name} is {value:.3g}; expected a number that fits in 64 bits"
                )
            if choices and isinstance(value, str) and value not in choices:
                raise ValueError(f"{field.name} {value!r:.80} is not one of {', '.join(choices)}")
            if check := field.metadata.get("check"):
                check(**{field.name: value})

    @classmethod
    def fields(cls, section: str | None = None) -> dict[str, dataclasses.Field[Any]]:
        """The fields by name, of one section or all."""
        return {
            field.name: field
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
            if section is None or field.metadata.get("section") == section
        }

    @classmethod
    @functools.cache
    def types(cls) -> dict[str, Any]:
        """The types of the fields by name."""
        return typing.get_type_hints(cls)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], place: str = "", **objects: Any) -> Self:
        """Make options from a dictionary of plain values; missing ones have their defaults.

        Args:
            values: The values by field name.
            place: The name of the dictionary in messages.
            **objects: Values that are not plain.

        Raises:
            ValueError: a name is unknown, or a value has the wrong type or is out of range.
        """
        fields = cls.fields()
        if unknown := sorted(set(values) - set(fields)):
            raise ValueError(f"unknown options {', '.join(unknown)}; expected {sorted(fields)}")
        hints = cls.types()
        kinds = {
            name: (cls.plain_types.get(hints[name], hints[name]), _is_required(field))
            for name, field in fields.items()
            if name not in objects
        }
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        return cls(**schema.convert_fields(plain, kinds, place), **objects)

    def to_dict(self, section: str | None = None) -> dict[str, Any]:
        """The options as plain values, of one section or all."""
        return {name: getattr(self, name) for name in self.fields(section)}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING


def check_sizes(owner: object = None, minimum: int = 1, **sizes: Any) -> None:
    """Refuse sizes that are not integers of at least a minimum; None is skipped.

    Args:
        owner: Whose arguments they are, a name or an object, with which the message begins.
        minimum: The minimum.
        **sizes: The sizes by name.

    Raises:
        ValueError: one is not.

    >>> check_sizes("batchify", batch_size=0)
    Traceback (most recent call last):
        ...
    ValueError: batchify: batch_size must be an integer of at least 1, not 0
    """
    for name, size in sizes.items():
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < minimum:
            raise ValueError(
                f"{_of(owner)}{name} must be an integer of at least {minimum}, not {size!r}"
            )
        if size > LARGEST:
            raise ValueError(f"{_of(owner)}{name} must fit in 64 bits; {size} does not")


def check_shares(owner: object = None, **shares: float) -> None:
    """Refuse shares that are not in 0 <= share < 1; the arguments are as for `check_sizes`.

    Raises:
        ValueError: one is not.

    >>> check_shares(dropout=1.0)
    Traceback (most recent call last):
        ...
    ValueError: dropout must be >= 0 and < 1, not 1.0
    """
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{_of(owner)}{name} must be >= 0 and < 1, not {share}")


def check_factors(owner: object = None, **factors: float) -> None:
    """Refuse factors that are not finite and at least 0; the arguments are as for `check_sizes`.

    Raises:
        ValueError: one is not.

    >>> check_factors(clip_norm=math.inf)
    Traceback (most recent call last):
        ...
    ValueError: clip_norm must be finite and >= 0, not inf
    """
    for name, factor in factors.items():
        if not 0 <= factor < math.inf:
            raise ValueError(f"{_of(owner)}{name} must be finite and >= 0, not {factor}")


SIZE, SHARE, FACTOR = check_sizes, check_shares, check_factors
COUNT = functools.partial(check_sizes, minimum=0)
"""What an option that is a number may be."""


def _of(owner: object) -> str:
    """The beginning of a message."""
    if owner is None:
        return ""
    return f"{owner if isinstance(owner, str) else type(owner).__name__}: "
