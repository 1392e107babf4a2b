"""Measuring: interleaved, warm, the median of several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The median time of each run in seconds.

    All runs take turns, A B A B ..., so that a machine whose speed drifts is the same for all.

    Args:
        runs: What to measure, by name.
        seconds: About how long to measure in all.
    """
    for run in runs.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(next(iter(times.values()))) < 5:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
