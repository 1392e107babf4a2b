"""Training by several processes beside one with as many threads, also over a slow network.

    python -m benchmarks.distributed [--work NAME] [--processes 2] [--steps 20] [--runs 3]
    sudo python -m benchmarks.distributed --rate 1gbit --processes 4

The first prints the throughput of one process of N threads, and of N processes of one thread, and
their ratio. With --rate each process is a host of its own: a network namespace, whose link `tc`
limits, and which shares no memory; and the ratio is to one process of one thread. The model of cost
is that of docs/guide.
Needs the extra `mpi`; --rate needs Linux, root, `ip` and `tc`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anaphora import random
from anaphora.data import batchify
from anaphora.distributed import world
from anaphora.models import LanguageModel
from anaphora.optim import SGD
from anaphora.training import Callback, Trainer, TrainingOptions

WORKS: dict[str, dict[str, Any]] = {
    "char 2 x 512": {"vocabulary": 96, "hidden": 512, "layers": 2, "batch": 64, "window": 64},
    "zaremba-medium": {"vocabulary": 10_000, "hidden": 650, "layers": 2, "batch": 20, "window": 35},
}
"""Their batches are those of all processes together."""

_NETWORK = "10.77.0"
_WARM_UP = 3  # steps


def main(arguments: list[str] | None = None) -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(prog="benchmarks.distributed")
    parser.add_argument("--work", choices=WORKS, action="append", help="may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of each run")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--rate", help="limit of each link, such as 1gbit")
    parser.add_argument("--be-one-of-them", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.be_one_of_them:
        _train(options.be_one_of_them, options.steps)
        return
    with _hosts(options.processes, options.rate) as launcher:
        for work in options.work or WORKS:
            print(json.dumps(_compared(work, options, launcher)), flush=True)


def _compared(work: str, options: Any, launcher: list[str]) -> dict[str, Any]:
    """The medians of runs that take turns."""
    own = [sys.executable, "-m", "benchmarks.distributed", "--steps", str(options.steps)]
    own += ["--be-one-of-them", work]
    threads = 1 if options.rate else options.processes
    if options.rate:
        os.environ["ANAPHORA_SHARED_MEMORY"] = "0"
    alone, many = [], []
    for _ in range(options.runs):
        alone.append(_run(own, threads))
        many.append(_run([*launcher, *own], 1))
    found = {name: statistics.median(run[name] for run in many) for name in many[0]}
    before = statistics.median(run["tokens_per_second"] for run in alone)
    return {
        "work": work,
        "processes": options.processes,
        "rate": options.rate,
        f"one process, {threads} threads: tokens/s": round(before),
        "processes: tokens/s": round(found["tokens_per_second"]),
        "ratio": round(found["tokens_per_second"] / before, 3),
        "step, ms": round(1000 * found["second"], 1),
        "communication, share of time": round(found["communication"], 3),
        "gradient MB": round(found["gradient_bytes"] / 1e6, 2),
    }


def _run(command: list[str], threads: int) -> dict[str, float]:
    environment = {**os.environ, "FI_PROVIDER": "tcp"}
    for library in ("ANAPHORA", "OMP", "OPENBLAS"):
        environment[f"{library}_NUM_THREADS"] = str(threads)
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


class _Clock(Callback):
    """The times of the steps, and those of waiting for other processes."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.communication: list[float] = []

    def on_step(self, trainer: Trainer, loss: float) -> None:
        self.times.append(time.perf_counter())

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        self.communication.append(record.get("communication_seconds", 0.0))


def _train(work: str, steps: int) -> None:
    """Some steps of a training; rank 0 prints the median throughput."""
    given, processes = WORKS[work], world()
    random.seed(1)
    model = LanguageModel(
        given["vocabulary"], hidden_size=given["hidden"], num_layers=given["layers"], dropout=0.5
    )
    total = given["batch"] * (given["window"] * (steps + _WARM_UP) + 1)
    ids = np.random.default_rng(1).integers(0, given["vocabulary"], total)
    batches = batchify(ids, given["batch"], given["window"])
    options = TrainingOptions(
        max_steps=steps + _WARM_UP, epochs=None, shards=processes.size, log_every=1
    )
    clock = _Clock()
    trainer = Trainer(model, SGD(model.parameters(), 0.1), batches, options, callbacks=[clock])
    trainer.run(progress=False)
    if processes.is_main:
        times = np.diff(clock.times)[_WARM_UP - 1 :]
        second = float(np.median(times))
        result = {
            "tokens_per_second": given["batch"] * given["window"] / second,
            "second": second,
            "communication": float(np.median(clock.communication[_WARM_UP:])) / second,
            "gradient_bytes": sum(p.data.nbytes for p in model.parameters()),
        }
        print(json.dumps(result))


# Hosts


@contextlib.contextmanager
def _hosts(count: int, rate: str | None) -> Iterator[list[str]]:
    """The command that starts processes: here, or each in a network namespace of its own."""
    command = shutil.which(
        "mpiexec.hydra", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    if command is None:
        raise SystemExit('benchmarks.distributed needs an extra: pip install "anaphora[mpi]"')
    if rate is None:
        yield [command, "-n", str(count)]
        return
    names = [f"anaphora{k + 1}" for k in range(count)]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        _ip("link", "add", "anaphora0", "type", "bridge")
        stack.callback(_ip, "link", "del", "anaphora0")
        _ip("link", "set", "anaphora0", "up")
        for k, name in enumerate(names, start=1):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("link", "add", f"link{k}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"link{k}", "master", "anaphora0", "up")
            _ip("-n", name, "addr", "add", f"{_NETWORK}.{k}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
            limit = ["root", "tbf", "rate", rate, "burst", "1mb", "latency", "50ms"]
            for place, device in (([], f"link{k}"), (["ip", "netns", "exec", name], "eth0")):
                subprocess.run([*place, "tc", "qdisc", "add", "dev", device, *limit], check=True)
        # Hydra starts its proxy on a host by: LAUNCHER HOST COMMAND.
        launcher = Path(folder, "launcher")
        launcher.write_text(
            '#!/bin/sh\nhost=${1##*.}; shift; exec ip netns exec anaphora$host sh -c "$*"\n'
        )
        launcher.chmod(0o755)
        hosts = ",".join(f"{_NETWORK}.{k}" for k in range(1, count + 1))
        yield [
            "ip", "netns", "exec", names[0], command, "-launcher", "rsh", "-launcher-exec",
            str(launcher), "-localhost", "none", "-iface", "eth0", "-hosts", hosts,
            "-n", str(count), *_over("eth0"),
        ]  # fmt: skip


def _over(interface: str) -> list[str]:
    """What makes MPICH send over this interface, by either of its libraries, and nowhere else.

    Its processes would otherwise find the memory that they share: they are on one machine.
    """
    environment = {
        "MPIR_CVAR_NOLOCAL": "1",
        "FI_PROVIDER": "tcp",
        "FI_TCP_IFACE": interface,
        "UCX_TLS": "tcp",
        "UCX_NET_DEVICES": interface,
    }
    return [part for name, value in environment.items() for part in ("-env", name, value)]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    main()
