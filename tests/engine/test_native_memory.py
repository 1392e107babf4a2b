"""No lack of memory ends the process: every function of the engine raises a MemoryError then,
changes no array, and works when it is called again.

The attempts are made by lack_of_memory.py, a program of its own. By default some of the requests of
each call fail in turn, on one thread and on three; with ANAPHORA_ALL_REQUESTS=1 each of them does,
on two, which takes minutes.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anaphora import engine

pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits the memory")

PROGRAM = Path(__file__).with_name("lack_of_memory.py")
SOURCE = Path(__file__).parents[1] / "native" / "failing_allocator.c"
ALL = os.environ.get("ANAPHORA_ALL_REQUESTS") == "1"
THREADS = [2] if ALL else [1, 3]


@pytest.fixture(scope="module")
def allocator(tmp_path_factory):
    """A library whose requests for memory can fail."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or platform.libc_ver()[0] != "glibc":
        pytest.skip("needs a C compiler and the GNU C library")
    library = tmp_path_factory.mktemp("allocator") / "failing_allocator.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


def run(*arguments, **environment):
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "ANAPHORA_ENGINE": "native", **environment},
        capture_output=True, text=True, timeout=1000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(report, frugal=()):
    called = {title.split()[0] for title in report}
    functions = {
        name
        for name in engine.__all__
        if name[0].islower() and getattr(engine, name).__module__ != "anaphora.engine.precision"
    }
    assert called == functions
    for title, found in report.items():
        assert found["failure"] == "", f"{title}: {found['failure']}"
        assert found["succeeded"] > 0, title
        if title == "share_processors":
            continue  # where no variable sets the threads, it reads how many processors there are
        asks_for_nothing = title.startswith(("set_num_threads", "info", *frugal))
        assert (found["failed"] > 0) != asks_for_nothing, title


@pytest.mark.parametrize("threads", THREADS)
def test_requests_for_memory_that_fail(threads, allocator):
    report = run(PROGRAM, "requests", threads, 1 if ALL else 127, LD_PRELOAD=allocator)
    check(json.loads(report))


@pytest.mark.parametrize("threads", THREADS)
def test_limits_of_the_address_space(threads):
    report = json.loads(run(PROGRAM, "limits", threads, 1 if ALL else 11))
    updates = ("sgd", "adam", "rmsprop", "adagrad", "average", "scale")
    in_place = [t for t in report if t.startswith(updates) and not t.endswith("odd")]
    check(report, in_place if threads == 1 else ())


WIDE = """
import resource
import numpy as np
from anaphora import engine
from anaphora.cells import rnn
from anaphora.engine import LayerWeights

T, B, I, H = 1, 2000, 20_000, 16  # a copy of x is 160 MB
rng = np.random.default_rng(0)
x, states = rng.random((T, B, I), np.float32), [np.zeros((B, H), np.float32)]
weights = LayerWeights(rng.random((H, I), np.float32), rng.random((H, H), np.float32))
engine.set_num_threads(2)
outcomes = []
_, hard = resource.getrlimit(resource.RLIMIT_AS)
for megabytes in (0, 1, 10, 100, 400):
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        found = engine.recurrence_forward(rnn.trace, x, states, weights, reverse=True).output
        outcomes.append("succeeded")
    except MemoryError:
        outcomes.append("failed")
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
again = engine.recurrence_forward(rnn.trace, x, states, weights, reverse=True).output
assert np.array_equal(found, again)
print(*outcomes)
"""


def test_a_copy_of_the_input_that_does_not_fit():
    assert run("-c", WIDE).split() == ["failed"] * 4 + ["succeeded"]
