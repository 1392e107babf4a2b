"""Measuring: in turns, warm, the median of many."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

_TURN_SECONDS = 0.1


def interleaved(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The median time of each run in seconds.

    All runs take turns, A B A B ..., so that a machine whose speed drifts is the same for all. A
    turn is a few runs long, and its first one does not count: the idle threads of the framework
    before may still be spinning then.

    Args:
        runs: What to measure, by name.
        seconds: About how long to measure in all.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    turns = 0
    while turns < 4 or time.perf_counter() - began < seconds:
        turns += 1
        for name, run in runs.items():
            run()
            turn_began = time.perf_counter()
            while time.perf_counter() - turn_began < _TURN_SECONDS:
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
