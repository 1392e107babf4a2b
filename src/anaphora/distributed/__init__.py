"""Many processes: who they are, what they tell each other, and sums in one fixed order."""

from anaphora.distributed.processes import ALONE, Processes, ProcessesDiffer, world
from anaphora.distributed.sharing import from_main, helped, helpers, shared, spread

__all__ = [
    "ALONE",
    "Processes",
    "ProcessesDiffer",
    "from_main",
    "helped",
    "helpers",
    "shared",
    "spread",
    "world",
]
