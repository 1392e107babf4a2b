"""Run the benchmarks and print a table: ``python -m benchmarks [--json] [NAME ...]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from typing import Any

import numpy as np

import anaphora
from anaphora import engine
from benchmarks.measure import interleaved
from benchmarks.work import WORK


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="only work whose name contains one of these")
    parser.add_argument("--threads", type=int, default=2, help="threads of each framework")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each piece of work")
    parser.add_argument("--json", action="store_true", help="print a JSON line for each")
    options = parser.parse_args()

    warnings.filterwarnings("ignore", module="torch")
    engine.set_num_threads(options.threads)
    torch = _torch(options.threads)
    peak = engine.info(measure=True).get("peak_gflops")
    if not options.json:
        print(_head(torch, options.threads, peak))
    for work in WORK:
        if options.names and not any(name in work.name for name in options.names):
            continue
        times = interleaved(work.runs(torch), options.seconds)
        ours = times["anaphora"]
        rate = work.operations() / ours / 1e9
        record: dict[str, Any] = {
            "work": work.name,
            "seconds": times,
            "gflops": rate,
            "share_of_peak": rate / (peak * options.threads) if peak else None,
            "ratios": {name: t / ours for name, t in times.items() if name != "anaphora"},
        }
        print(json.dumps(record) if options.json else _row(record), flush=True)


def _torch(threads: int) -> Any:
    try:
        import torch
    except ImportError:
        print("torch is not installed: skipped (pip install '.[peers]')", file=sys.stderr)
        return None
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch


def _head(torch: Any, threads: int, peak: float | None) -> str:
    versions = f"anaphora {anaphora.__version__}, NumPy {np.__version__}"
    if torch is not None:
        versions += f", torch {torch.__version__}"
    info = engine.info()
    measured = f", {peak:.0f} GFLOP/s float32 peak a core (measured)" if peak else ""
    return (
        f"{platform.machine()}, {os.cpu_count()} processors, {threads} threads, "
        f"{info['engine']} engine {info['instruction_set'] or ''}{measured}\n"
        f"Python {platform.python_version()}, {versions}\n\n"
        "| work | anaphora | GFLOP/s | of peak | torch | ratio |\n|---|---|---|---|---|---|"
    )


def _row(record: dict[str, Any]) -> str:
    seconds, share = record["seconds"], record["share_of_peak"]
    peer = seconds.get("torch")
    cells = [
        record["work"],
        f"{1e3 * seconds['anaphora']:.2f} ms",
        f"{record['gflops']:.0f}",
        f"{share:.0%}" if share else "",
        f"{1e3 * peer:.2f} ms" if peer else "not there",
        f"{record['ratios']['torch']:.2f}" if peer else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
