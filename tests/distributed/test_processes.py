"""The processes that work together, and what they exchange."""

import os
import subprocess
import sys

import pytest

from anaphora.distributed import ALONE, Processes, world
from anaphora.distributed.processes import launched_size


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, 1),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, 3),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}, 1),  # srun --mpi=none
        ({"SLURM_STEP_NUM_TASKS": "8", "PMIX_RANK": "3"}, 8),
        ({"SLURM_NTASKS": "8", "PMIX_RANK": "0"}, 1),  # a batch script, before its srun
        ({"PMI_SIZE": "?"}, 1),
        ({"PMI_SIZE": "1"}, 1),
    ],
)
def test_launchers_are_known_by_their_environment(environment, size):
    assert launched_size(environment) == size


def test_one_process_is_alone_and_needs_no_mpi():
    program = (
        "import sys; from anaphora.distributed import ALONE, world; assert world() is ALONE; "
        "assert not {'mpi4py', 'anaphora.distributed.mpi'} & set(sys.modules)"
    )
    environment = {**os.environ, "PMI_SIZE": "1"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert world() is ALONE


def test_one_process_exchanges_with_itself():
    value = object()
    assert ALONE.broadcast(value) is value
    assert ALONE.all_gather(value) == ALONE.gather(value) == [value]
    ALONE.barrier()
    ALONE.abort()
    for exchange in (lambda: ALONE.send(value, 1), lambda: ALONE.receive(0)):
        with pytest.raises(ValueError, match=r"there is no rank \d besides this one, of 1"):
            exchange()
    with pytest.raises(KeyError, match="lost"), ALONE.together():
        raise KeyError("lost")
    assert isinstance(ALONE, Processes)


def test_several_processes_without_mpi4py_are_told_what_to_install(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("ANAPHORA_STARTED_BY_MPI", str(os.getpid()))
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "anaphora.distributed.mpi", raising=False)
    with pytest.raises(ImportError, match=r'2 processes .* pip install "anaphora\[mpi\]"'):
        world.__wrapped__()


CHILDREN = """
import subprocess, sys
from anaphora.distributed import world

assert world().size == 2
program = "from anaphora.distributed import world; print(world().size)"
sizes = [subprocess.run([sys.executable, "-c", program], capture_output=True).stdout.strip()]
assert world().all_gather(sizes) == [[b"1"]] * 2, sizes
if world().is_main:
    print("all is right")
"""


def test_what_a_process_starts_is_alone(launch, script):
    assert launch(2, [script(CHILDREN)])[0] == "all is right\n"


EXCHANGES = """
import numpy as np
from anaphora.distributed import world

w = world()
ranks = range(w.size)
assert w.size == 3 and w.is_main == (w.rank == 0)
assert w.broadcast({"from": w.rank}, 1) == {"from": 1}
assert w.all_gather("x" * w.rank) == ["x" * k for k in ranks]
assert w.gather([w.rank]) == ([[k] for k in ranks] if w.is_main else [])
numbers = w.all_gather_numbers(np.full((2, 3), w.rank + 0.5, np.float32))
assert numbers.dtype == np.float32 and numbers.shape == (3, 2, 3)
assert (numbers == np.arange(3)[:, None, None] + 0.5).all()
w.barrier()
following = w.split()
if w.rank:
    w.send(np.arange(10**6) * w.rank, w.rank - 1)
    following.send("apart", w.rank - 1)
if w.rank < 2:
    assert (w.receive(w.rank + 1) == np.arange(10**6) * (w.rank + 1)).all()
    assert following.receive(w.rank + 1) == "apart"
caught = []
for failing in (2,), (1, 2), (0, 1), ():
    try:
        with w.together():
            if w.rank in failing:
                raise ValueError(f"bad at {w.rank}", 5)
    except ValueError as error:
        caught.append(error.args)
host = w.name(0).removeprefix("rank 0 on ")
assert caught == [(f"rank 2 on {host}: bad at 2", 5), (f"rank 1 on {host}: bad at 1", 5),
                  ("bad at 0", 5)], caught
try:
    with w.together():
        if w.rank == 1:
            open("/nowhere/file")
except OSError as error:
    assert error.filename == f"rank 1 on {host}: /nowhere/file", error.filename
class Unpicklable(Exception):
    def __init__(self, a):
        super().__init__(a, 2)
try:
    with w.together():
        if w.rank == 1:
            raise Unpicklable(1)
except RuntimeError as error:
    assert str(error).startswith(f"rank 1 on {host}: Unpicklable"), error
if w.is_main:
    print("all is right")
"""


def test_exchanges(launch, script, mpi):
    out, errors = launch(3, [script(EXCHANGES)], mpi)
    assert out == "all is right\n", errors


UNCAUGHT = """
from anaphora.distributed import world

w = world()
if w.rank == 1:
    raise KeyError("gone")
w.barrier()
print("not reached")
"""


def test_an_exception_of_one_process_ends_all_and_names_its_rank(launch, script, mpi):
    out, errors = launch(2, [script(UNCAUGHT)], mpi, code=1)
    assert out == ""
    assert "rank 1 on " in errors
    assert ": KeyError: 'gone'\n" in errors


HELD_UP = """
import os, signal, subprocess
from anaphora.distributed import world

w = world()
if w.rank == 1:
    launcher = os.getppid()
    os.kill(launcher, signal.SIGSTOP)
    goes_on = ["sh", "-c", f"sleep 0.02; kill -CONT {launcher}"]
    subprocess.Popen(goes_on, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    raise KeyError("gone")
w.barrier()
"""


def test_what_a_process_prints_before_it_ends_all_is_read(launch, script):
    program = script(HELD_UP)
    for _ in range(10):  # without waiting, a quarter of them print nothing
        assert ": KeyError: 'gone'\n" in launch(2, [program], code=1)[1]


def test_processes_that_do_not_find_each_other_are_told(launch, script):
    program = """
import os
os.environ["OMPI_COMM_WORLD_SIZE"] = "4"  # as under the mpiexec of Open MPI
from anaphora.distributed import world
try:
    world()
except RuntimeError as error:
    print(error)
"""
    out, _ = launch(1, [script(program)])
    assert "4 processes were started together, but MPI finds 1: mpi4py uses MPICH" in out
