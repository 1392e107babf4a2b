"""States of recurrent layers: tuples inside; a single state is a Tensor at the public edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from anaphora.tensor import Operand, Tensor

State: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""What layers take and return: a Tensor, or a tuple of them for a cell with several states."""


GivenState: TypeAlias = "Operand | Sequence[Operand] | None"
"""What layers are given: what they return, or arrays; None for the initial state."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S_co = TypeVar("S_co", bound=State, default=State, covariant=True)
else:
    from typing import TypeVar

    S_co = TypeVar("S_co", covariant=True)

T = TypeVar("T")


def as_tuple(state: Any) -> tuple[Any, ...]:
    """A state as users give it, one or several in a tuple or list, as a tuple.

    >>> as_tuple("h"), as_tuple(["h", "c"])
    (('h',), ('h', 'c'))
    """
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)


def from_tuple(states: Sequence[T]) -> T | tuple[T, ...]:
    """A state as users get it: the only one, or all in a tuple.

    >>> from_tuple(("h",)), from_tuple(["h", "c"])
    ('h', ('h', 'c'))
    """
    return states[0] if len(states) == 1 else tuple(states)
