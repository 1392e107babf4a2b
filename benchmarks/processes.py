"""Measurements that need separate processes: startup time and peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.training import LanguageModelStep
from benchmarks.work import Peers, Runs, Work


def _line_of(*arguments: str) -> tuple[float, str]:
    """Run Python; the seconds until it prints its first line, and that line."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed with {process.returncode}")
    return seconds, line


def _of_each(peers: Peers, run: Callable[[str], float]) -> Runs:
    frameworks = ["anaphora"] if peers.torch is None else ["anaphora", "torch"]
    return {name: partial(run, name) for name in frameworks}


@dataclass(frozen=True)
class Import(Work):
    """From the start of Python until the framework is imported."""

    name: str

    def runs(self, peers: Peers) -> Runs:
        """A process of each framework."""
        # `import anaphora` alone imports no layers, nor anything else that takes time.
        modules = {"anaphora": "anaphora.nn"}
        return _of_each(
            peers,
            lambda name: _line_of("-c", f"import {modules.get(name, name)}; print(flush=True)")[0],
        )


@dataclass(frozen=True)
class FirstStep(Work):
    """From the start of Python until a model has been built and has made one step."""

    name: str
    step: LanguageModelStep

    def runs(self, peers: Peers) -> Runs:
        """A process of each framework."""
        return _of_each(peers, lambda name: _steps(name, peers.threads, self.step, 1)[0])


@dataclass(frozen=True)
class PeakMemory(Work):
    """The peak memory of a process over a few steps: in all, or beyond its initial memory.

    The latter is that of Python, the framework's libraries, the model and the batch.
    """

    name: str
    step: LanguageModelStep
    beyond_start: bool = False
    unit = "B"

    def runs(self, peers: Peers) -> Runs:
        """A process of each framework."""

        def run(framework: str) -> float:
            memory = _steps(framework, peers.threads, self.step, 5)[1]
            return memory["peak"] - (memory["start"] if self.beyond_start else 0)

        return _of_each(peers, run)


def _steps(
    framework: str, threads: int, step: LanguageModelStep, count: int
) -> tuple[float, dict[str, int]]:
    """The seconds until a process has done some steps, and its memory in bytes."""
    what = {"framework": framework, "threads": threads, "count": count, "step": asdict(step)}
    seconds, line = _line_of("-m", "benchmarks.processes", json.dumps(what))
    return seconds, json.loads(line)


def _child(framework: str, threads: int, count: int, step: dict[str, Any]) -> None:
    """What the process does: steps, and a line with its memory before them and at its peak."""
    work = LanguageModelStep(**step)
    if framework == "torch":
        import torch

        torch.set_num_threads(threads)
        run = work.torch(torch)
    else:
        from anaphora import engine

        engine.set_num_threads(threads)
        run = work.anaphora()
    start = _memory("VmRSS")
    for _ in range(count):
        run()
    print(json.dumps({"start": start, "peak": _memory("VmHWM")}), flush=True)


def _memory(field: str) -> int:
    """The resident memory of this process in bytes: now (VmRSS), or at its peak (VmHWM).

    Linux reports both. Elsewhere both are the peak so far, from getrusage, which on Linux would
    include the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        values = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(values[field].split()[0])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    _child(**json.loads(sys.argv[1]))
