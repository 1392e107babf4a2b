"""Several threads on a busy machine: ``python -m benchmarks.busy [--processes N] [NAME ...]``.

As many busy processes as there are processors compete for them while work runs alternately on one
thread and on several. Waiting for a thread that is not running must not cost more than
doing its work: several threads should take at most 1.3 times as long as one. The medians, the
means (which include rare long waits) and the worst times are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from anaphora import engine
from benchmarks.inference import Sampling, StreamingStep
from benchmarks.training import LanguageModelStep, Layer, Recurrence
from benchmarks.work import Peers, Run, Work

_TURN_SECONDS = 0.25  # long compared with a scheduler's time slices
_BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    sum(range(100_000))"

ROWS: list[Work] = [
    Layer("LSTM layer, T 50 B 32 H 128", "lstm", T=50, B=32, H=128),
    Layer("LSTM layer, T 35 B 20 H 200", "lstm", T=35, B=20, H=200),
    Layer("RNN tanh layer, T 100 B 32 H 64", "rnn", T=100, B=32, H=64),
    LanguageModelStep("character model step, 2 x 128", V=65, H=128, T=50, B=50),
    Recurrence("recurrence alone, T 50 B 50 H 512", T=50, B=50, H=512),
    StreamingStep("streaming step, 2 x 1024", H=1024, streams=True),
    Sampling("sampled character, 2 x 512, B 32", V=65, H=512, B=32),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print.

    Raises:
        SystemExit: with 2, an option is invalid or a name matches nothing.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("names", nargs="*", help="only work whose name contains one of these")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="number of busy processes"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads to compare with one")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each piece of work")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.processes < 0 or not options.seconds > 0:
        parser.error("--threads must be at least 1, --processes at least 0, --seconds above 0")
    for name in options.names:
        if not any(name in work.name for work in ROWS):
            known = "\n  ".join(work.name for work in ROWS)
            parser.error(f"no work has {name!r} in its name; known are\n  {known}")
    print(f"{options.processes} busy processes on {os.cpu_count()} processors")
    print(f"| {'work':<33} | threads |   median |     mean |    worst | median's ratio |")
    print(f"|:{'-' * 34}|{'-' * 8}:|{'-' * 9}:|{'-' * 9}:|{'-' * 9}:|{'-' * 15}:|")
    for work in ROWS:
        if options.names and not any(name in work.name for name in options.names):
            continue
        run = work.runs(Peers(options.threads))["anaphora"]
        with _busy(options.processes):
            times = _in_turns(run, [1, options.threads], options.seconds)
        one = statistics.median(times[1])
        for threads, values in times.items():
            median = statistics.median(values)
            figures = (median, statistics.mean(values), max(values))
            shown = " | ".join(f"{1e3 * f / work.count:5.2f} ms" for f in figures)
            print(f"| {work.name:<33} | {threads:7} | {shown} | {median / one:14.2f} |", flush=True)


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Processes that compute until the context ends or this process is gone."""
    processes = [
        subprocess.Popen([sys.executable, "-c", _BUSY, str(os.getpid())]) for _ in range(count)
    ]
    try:
        time.sleep(0.2 if count else 0.0)  # until they have started
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _in_turns(run: Run, threads: Sequence[int], seconds: float) -> dict[int, list[float]]:
    """The times of single runs on each number of threads; the first run of a turn is omitted."""
    times: dict[int, list[float]] = {count: [] for count in threads}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or not all(times.values()):
        for count in threads:
            engine.set_num_threads(count)
            run()
            turn = time.perf_counter()
            while time.perf_counter() - turn < _TURN_SECONDS or not times[count]:
                start = time.perf_counter()
                run()
                times[count].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
