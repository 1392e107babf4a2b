"""Options: the fields of a dataclass, each with its default, its help, and how it is checked."""

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
"""The largest integer that an option may be."""


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
        default: What it is where nothing else was given.
        help: What it means, as ``--help`` prints it.
        allowed: The words that it may be; or for a number `SIZE`, `COUNT`, `SHARE` or `FACTOR`; or
            anything.
        section: Where ``config.json`` has it: "data", "model" or "training".
        common: Whether ``--help`` shows it among the first.
        reading: Whether it says how files are read, so that commands which use a trained model
            take it too.

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
            if check := field.metadata.get("check"):
                check(**{field.name: value})

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


def check_sizes(owner: object = None, minimum: int = 1, **sizes: Any) -> None:
    """Refuse sizes that are not integers of at least a minimum; None is no size given.

    Args:
        owner: Whose arguments they are, a name or an object, which the message begins with.
        minimum: The least that each may be.
        **sizes: The sizes by their names.

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
            raise ValueError(f"{_of(owner)}{name} must fit into 64 bits; {size} does not")


def check_shares(owner: object = None, **shares: float) -> None:
    """Refuse shares that are not 0 to below 1; the arguments are as of `check_sizes`.

    Raises:
        ValueError: one is not.

    >>> check_shares(dropout=1.0)
    Traceback (most recent call last):
        ...
    ValueError: dropout is a share, 0 <= dropout < 1, not 1.0
    """
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{_of(owner)}{name} is a share, 0 <= {name} < 1, not {share}")


def check_factors(owner: object = None, **factors: float) -> None:
    """Refuse factors that are not finite and at least 0; the arguments are as of `check_sizes`.

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
