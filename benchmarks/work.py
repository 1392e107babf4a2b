"""A piece of work to measure, and the peers that do the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

# Does the work and is timed from outside; or, if a separate process does it, returns the figure.
Run = Callable[[], float | None]
Runs = dict[str, Run]


@dataclass(frozen=True)
class Peers:
    """The other frameworks, as modules; None for one that is not installed.

    Attributes:
        threads: The number of threads of each framework.
    """

    threads: int
    torch: Any = None
    onnxruntime: Any = None


class Work(Protocol):
    """Something to measure: the same model, shapes and data for each framework.

    Attributes:
        name: Its name in the table.
        unit: The unit of its figures: seconds or bytes.
        count: How many times one run does it; figures are for one time.
    """

    name: str
    unit: Literal["s", "B"] = "s"
    count: int = 1

    def missing(self) -> str | None:
        """The hardware that it needs and this machine lacks; None if nothing is missing."""
        return None

    def operations(self) -> float | None:
        """Multiply-adds of the matrix products, counted as two; None if not meaningful."""
        return None

    def bytes_read(self) -> float | None:
        """Bytes that are read from memory each time; None if not meaningful."""
        return None

    def runs(self, peers: Peers) -> Runs:
        """A run of each available framework that can do it, by its name; ``anaphora`` first."""
        ...


def framework_runs(
    peers: Peers, anaphora: Callable[..., Run], torch: Callable[..., Run], *data: Any
) -> Runs:
    """Runs on the same data: `anaphora` makes ours, `torch` that of PyTorch, if it is installed.

    Args:
        peers: The other frameworks.
        anaphora: Called with the data.
        torch: Called with the module and the data.
        *data: What both get.
    """
    runs: Runs = {"anaphora": anaphora(*data)}
    if peers.torch is not None:
        runs["torch"] = torch(peers.torch, *data)
    return runs
