"""A text larger than memory: encoded by several processes and trained on, each with a limit.

    python -m benchmarks.corpus --gigabytes 20 --limit 2 --processes 2 --folder /disk/corpus

Writes a synthetic text, and trains on it with ``mpiexec -n N anaphora train`` (extra ``mpi``);
no process may allocate more than the limit (``ulimit -d``; a mapped file does not count, as the
kernel can drop its pages). Prints a line of JSON: sizes in bytes, the tokens, the seconds until the
training began and those of the training, and the highest memory of any process. The folder needs
room for the text and twice its ids; they are removed, unless ``--keep``.

In a container MPICH may need ``FI_PROVIDER=tcp``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_BLOCKS, _BLOCK_WORDS = 32, 500_000


def main(arguments: list[str] | None = None) -> None:
    """Run, and print what happened.

    Raises:
        SystemExit: the training failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gigabytes", type=float, default=0.2, help="of text")
    parser.add_argument("--limit", type=float, default=2.0, help="gigabytes of a process")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--level", default="char", choices=("char", "word"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="instead of a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep what is in the folder")
    options = parser.parse_args(arguments)
    with _folder(options.folder, options.keep) as folder:
        print(json.dumps(run(folder, options)))


@contextlib.contextmanager
def _folder(given: Path | None, keep: bool) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory(prefix="anaphora-corpus-") as name:
            yield Path(name)
        return
    given.mkdir(parents=True, exist_ok=True)
    try:
        yield given
    finally:
        if not keep:
            (given / "text.txt").unlink(missing_ok=True)
            shutil.rmtree(given / "model", ignore_errors=True)


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write the text and train on it.

    Raises:
        SystemExit: the training failed.
    """
    text, model = folder / "text.txt", folder / "model"
    write_text(text, int(options.gigabytes * 1e9))
    limits = ["--vocabulary-size", "2000"] if options.level == "word" else []
    train = [
        sys.executable, "-m", "anaphora", "train", str(text), "--out", str(model), "--overwrite",
        "--level", options.level, *limits, "--hidden-size", "64", "--batch-size", "16",
        "--shards", str(1 << (options.processes - 1).bit_length()), "--validation-share", "0",
        "--max-steps", str(options.steps),
    ]  # fmt: skip
    kilobytes = int(options.limit * 1e6)
    command = ["sh", "-c", f'ulimit -d {kilobytes}; exec "$@"', "sh", *train]
    if options.processes > 1:
        place = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        launcher = shutil.which("mpiexec", path=place)
        if launcher is None:
            raise SystemExit('mpiexec was not found: pip install "anaphora[mpi]"')
        command = [launcher, "-n", str(options.processes), *command]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        highest = {"RssAnon": 0, "RssFile": 0, "VmData": 0}
        while process.poll() is None:
            for name, size in _memory(str(model)):
                highest[name] = max(highest[name], size)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    if process.returncode != 0:
        raise SystemExit(f"the training ended with {process.returncode}")
    seconds = time.monotonic() - began
    records = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return {
        "text_bytes": text.stat().st_size,
        "tokens": len(np.load(model / "checkpoint" / "train.npy", mmap_mode="r")),
        "processes": options.processes,
        "limit_bytes": kilobytes * 1000,
        "preparation_seconds": round(seconds - records[-1]["seconds"], 1),
        "training_seconds": records[-1]["seconds"],
        "steps": records[-1]["step"],
        "loss": records[-1]["loss"],
        "allocated_bytes": highest["VmData"],
        "resident_bytes": highest["RssAnon"],
        "resident_bytes_of_files": highest["RssFile"],
    }


def write_text(path: Path, size: int) -> None:
    """Write a text of about `size` bytes: lines of words, the rarer the longer their list."""
    if path.exists() and abs(path.stat().st_size - size) < 1e-3 * size + 1e7:
        return
    rng = np.random.default_rng(1)
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz"])
    words = ["".join(rng.choice(letters, 2 + k % 9)) for k in range(5000)]
    share = 1 / np.arange(10, 10 + len(words))
    blocks = []
    for _ in range(min(_BLOCKS, 1 + size // 2_000_000)):
        chosen = rng.choice(len(words), _BLOCK_WORDS, p=share / share.sum())
        ends = np.where(rng.random(_BLOCK_WORDS) < 0.1, "\n", " ")
        pairs = zip(chosen.tolist(), ends.tolist(), strict=True)
        blocks.append("".join(words[k] + end for k, end in pairs).encode() + b"\n")
    with path.open("wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(blocks[rng.integers(len(blocks))][:left])


def _memory(name: str) -> Iterator[tuple[str, int]]:
    """The memory of the running processes whose command has a name, in bytes."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            if name.encode() not in command or b"-m" not in command[:3]:
                continue
            for line in (process / "status").read_text().splitlines():
                field, _, value = line.partition(":")
                if field in ("RssAnon", "RssFile", "VmData"):
                    yield field, int(value.split()[0]) * 1024


if __name__ == "__main__":
    main()
