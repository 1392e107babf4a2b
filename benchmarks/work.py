"""What a piece of work is, and the peers that do the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

# Does the work and is timed from outside; or, where a process of its own does it, returns the
# figure.
Run = Callable[[], float | None]
Runs = dict[str, Run]


@dataclass(frozen=True)
class Peers:
    """The other frameworks, as modules; None for one that is not installed.

    Attributes:
        threads: Of each framework.
    """

    threads: int
    torch: Any = None
    onnxruntime: Any = None


class Work(Protocol):
    """Something to measure: the same model, shapes and data for each framework.

    Attributes:
        name: What the table calls it.
        unit: Of its figures: seconds or bytes.
        count: How many times over one run does it; figures are for once.
    """

    name: str
    unit: Literal["s", "B"] = "s"
    count: int = 1

    def operations(self) -> float | None:
        """Multiply-adds of the matrix products, counted as two; None where they say nothing."""
        return None

    def bytes_read(self) -> float | None:
        """Bytes that have to come from memory each time; None where they say nothing."""
        return None

    def runs(self, peers: Peers) -> Runs:
        """A run of each framework that is there and can do it, by its name; ``anaphora`` first."""
        ...
