"""Run the benchmarks and print a table: ``python -m benchmarks [--json] [NAME ...]``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import anaphora
from anaphora import engine
from benchmarks.measure import interleaved, memory_bandwidth
from benchmarks.rows import ROWS
from benchmarks.work import Peers, Work

_ROOT = Path(__file__).parents[1]
_FRAMEWORKS = ("anaphora", "torch", "onnxruntime", "C")
_PROCESSES = 3  # of each, where they are apart
_FLOAT32 = " float32"  # the end of the names of runs beside those of another precision

_COLUMNS = [  # and their widths
    ("work", max(len(work.name) for work in ROWS)),
    ("anaphora", 9),
    ("GFLOP/s", 7),
    ("of FMA", 6),
    ("of RAM", 6),
    ("torch", 9),
    ("ratio", 5),
    ("ORT or C", 8),
    ("ratio", 5),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print.

    Raises:
        SystemExit: with 2, an option is invalid or a name matches nothing.
    """
    options = _options(arguments)
    chosen = [w for w in ROWS if not options.names or any(n in w.name for n in options.names)]
    warnings.filterwarnings("ignore", module="torch")
    engine.set_num_threads(options.threads)
    peers = _peers(options.threads)
    if options.framework is not None:
        for work in chosen:
            print(json.dumps(_medians(work, peers, options)))
        return
    machine = _machine(peers, any(work.bytes_read() is not None for work in chosen))
    print(json.dumps(machine) if options.json else _head(machine), flush=True)
    for work in chosen:
        if missing := work.missing():
            record = {"work": work.name, "missing": missing}
            print(json.dumps(record) if options.json else f"| {work.name} | {missing} |")
            continue
        medians = _apart(work, peers, options) if options.apart else _medians(work, peers, options)
        record = _measured(work, medians, machine)
        print(json.dumps(record) if options.json else _rows(record), flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="only work whose name contains one of these")
    parser.add_argument("--threads", type=int, default=2, help="threads of each framework")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each piece of work")
    parser.add_argument("--json", action="store_true", help="print one JSON line for each")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="each framework in processes of its own, in turns: no other one's threads wait there",
    )
    parser.add_argument("--framework", choices=_FRAMEWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, not {options.threads}")
    if not options.seconds > 0:
        parser.error(f"--seconds must be above 0, not {options.seconds}")
    for name in options.names:
        if not any(name in work.name for work in ROWS):
            known = "\n  ".join(work.name for work in ROWS)
            parser.error(f"no work has {name!r} in its name; known are\n  {known}")
    return options


def _peers(threads: int) -> Peers:
    """The installed ones; a message says which are skipped."""
    torch = _imported("torch")
    if torch is not None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
    return Peers(
        threads, torch, _imported("onnxruntime", "onnx")
    )  # onnx builds the graph that it runs


def _imported(peer: str, *needed: str) -> Any:
    try:
        return [importlib.import_module(name) for name in (*needed, peer)][-1]
    except ImportError as error:
        print(f"{peer} is skipped: {error}; pip install '.[peers]' installs it", file=sys.stderr)
        return None


def _machine(peers: Peers, needs_bandwidth: bool) -> dict[str, Any]:
    """The machine, the versions, and the measured peaks of all threads together."""
    info = engine.info(measure=True)
    peak = info.get("peak_gflops")
    versions = {"Python": platform.python_version(), "anaphora": anaphora.__version__}
    modules = {"NumPy": np, "torch": peers.torch, "ONNX Runtime": peers.onnxruntime}
    versions |= {name: m.__version__ for name, m in modules.items() if m is not None}
    return {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "threads": peers.threads,
        "engine": info["engine"],
        "instruction_set": info["instruction_set"],
        "bfloat16": info["bfloat16"],
        "peak_gflops": peak * peers.threads if peak else None,
        "bandwidth_gbytes": memory_bandwidth(peers.threads) / 1e9 if needs_bandwidth else None,
        "versions": versions,
    }


def _medians(work: Work, peers: Peers, options: argparse.Namespace) -> dict[str, float]:
    """The figure of each framework, or of the one that is chosen; in turns."""
    runs = work.runs(peers)
    if options.framework is not None:
        names = (options.framework, options.framework + _FLOAT32)
        runs = {name: run for name, run in runs.items() if name in names}
    return interleaved(runs, options.seconds)


def _apart(work: Work, peers: Peers, options: argparse.Namespace) -> dict[str, float]:
    """The figure of each framework, in processes of its own that take turns."""
    figures: dict[str, list[float]] = {}
    command = [sys.executable, "-m", "benchmarks", "--threads", str(options.threads), "--seconds"]
    frameworks = dict.fromkeys(name.removesuffix(_FLOAT32) for name in work.runs(peers))
    line = [w.name for w in ROWS if work.name in w.name].index(work.name)  # of what one prints
    for framework in [*frameworks] * _PROCESSES:
        chosen = [str(options.seconds / _PROCESSES), "--framework", framework, work.name]
        printed = subprocess.run(
            [*command, *chosen], cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        medians = json.loads(printed.stdout.splitlines()[line])
        for name, median in medians.items():
            figures.setdefault(name, []).append(median)
    return {name: statistics.median(values) for name, values in figures.items()}


def _measured(work: Work, medians: dict[str, float], machine: dict[str, Any]) -> dict[str, Any]:
    figures = {name: median / work.count for name, median in medians.items()}
    ours = figures["anaphora"]
    rate, read = _rate(work.operations(), ours), _rate(work.bytes_read(), ours)
    return {
        "work": work.name,
        "unit": work.unit,
        "medians": figures,
        "gflops": rate,
        "share_of_peak": _share(rate, machine["peak_gflops"]),
        "share_of_bandwidth": _share(read, machine["bandwidth_gbytes"]),
        "ratios": {name: f / ours for name, f in figures.items() if name != "anaphora"},
    }


def _rate(amount: float | None, seconds: float) -> float | None:
    return None if amount is None else amount / seconds / 1e9


def _share(rate: float | None, limit: float | None) -> float | None:
    return None if rate is None or limit is None else rate / limit


def _head(machine: dict[str, Any]) -> str:
    peak, bandwidth = machine["peak_gflops"], machine["bandwidth_gbytes"]
    measured = []
    if peak is not None:
        measured.append(f"{peak:.0f} GFLOP/s float32 FMA")
    if bandwidth is not None:
        measured.append(f"{bandwidth:.0f} GB/s from memory")
    lines = [
        f"{machine['machine']}, {machine['processors']} processors, {machine['threads']} threads, "
        f"{machine['engine']} engine {machine['instruction_set'] or ''}".rstrip(),
        *([f"measured peaks: {', '.join(measured)}"] if measured else []),
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
    ]
    rules = ["-" * (width + 1) + (":" if k else "-") for k, (_, width) in enumerate(_COLUMNS)]
    return "  \n".join(lines) + f"\n\n{_line([head for head, _ in _COLUMNS])}\n|{'|'.join(rules)}|"


def _rows(record: dict[str, Any]) -> str:
    """A line; and one for the runs of float32, if there are any beside others."""
    medians = record["medians"]
    beside = {
        name.removesuffix(_FLOAT32): figure
        for name, figure in medians.items()
        if name.endswith(_FLOAT32)
    }
    if not beside:
        return _row(record)
    ours = beside["anaphora"]
    second = {
        **record,
        "work": "... in float32",
        "medians": beside,
        "ratios": {name: f / ours for name, f in beside.items() if name != "anaphora"},
    }
    for name in ("gflops", "share_of_peak", "share_of_bandwidth"):
        if record[name] is not None:
            second[name] = record[name] * medians["anaphora"] / ours
    return f"{_row(record)}\n{_row(second)}"


def _row(record: dict[str, Any]) -> str:
    def percent(share: float | None) -> str:
        return "" if share is None else f"{share:.0%}"

    rate = record["gflops"]
    cells = [
        record["work"],
        _figure(record["medians"]["anaphora"], record["unit"]),
        "" if rate is None else f"{rate:.0f}",
        percent(record["share_of_peak"]),
        percent(record["share_of_bandwidth"]),
    ]
    for peer in ("torch", "C" if "C" in record["ratios"] else "onnxruntime"):
        there = peer in record["ratios"]
        cells.append(_figure(record["medians"][peer], record["unit"]) if there else "")
        cells.append(f"{record['ratios'][peer]:.2f}" if there else "")
    return _line(cells)


def _figure(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / 1e6:.0f} MB"
    if value >= 1:
        return f"{value:.2f} s"
    for unit, scale, places in (("ms", 1e3, 2), ("us", 1e6, 1)):
        if value * scale >= 1:
            return f"{value * scale:.{places}f} {unit}"
    return f"{1e9 * value:.0f} ns"


def _line(cells: Sequence[str]) -> str:
    """The cells in columns: the name on the left, figures on the right."""
    first, *others = (width for _, width in _COLUMNS)
    figures = (f"{c:>{w}}" for c, w in zip(cells[1:], others, strict=True))
    return f"| {' | '.join([f'{cells[0]:<{first}}', *figures])} |"


if __name__ == "__main__":
    main()
