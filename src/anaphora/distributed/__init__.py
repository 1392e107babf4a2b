"""Many processes: who they are, what they tell each other, and sums in one fixed order."""

from anaphora.distributed.processes import ALONE, Processes, world

__all__ = ["ALONE", "Processes", "world"]
