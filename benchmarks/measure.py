"""Measuring: in turns, after warming up, the median of many runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.work import Run

_TURN_SECONDS = 0.1
_MIN_TURNS = 3


def interleaved(runs: Mapping[str, Run], seconds: float) -> dict[str, float]:
    """The median figure of each run: its time in seconds, or what it returns.

    All runs take turns, A B A B ..., so that changes of the machine's speed affect all alike.

    Args:
        runs: What to measure, by name.
        seconds: The approximate total time; every run has at least three turns.
    """
    figures: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    turns = 0
    while turns < _MIN_TURNS or time.perf_counter() - began < seconds:
        turns += 1
        for name, run in runs.items():
            figures[name] += _turn(run)
    return {name: statistics.median(values) for name, values in figures.items()}


def _turn(run: Run) -> list[float]:
    """One figure, if the run has its own; otherwise the times of a few runs.

    The first of these does not count, because idle threads of the previous framework may still be
    spinning.
    """
    figure = run()
    if figure is not None:
        return [figure]
    times = []
    began = time.perf_counter()
    while time.perf_counter() - began < _TURN_SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def memory_bandwidth(threads: int) -> float:
    """The bytes that threads read per second: the best of several sums over an array of 1 GiB.

    NumPy sums, each thread its own section. The array is larger than the caches of common machines.
    """
    parts = np.array_split(np.ones(2**28, np.float32), threads)
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(np.sum, parts))
            times.append(time.perf_counter() - start)
    return sum(part.nbytes for part in parts) / min(times)
