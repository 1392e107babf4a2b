"""Starting several processes by MPI, as a user does."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PREFIX = Path(sys.executable).parent


def _mpich():
    """The command and environment of MPICH's launcher, or None if it is not installed."""
    command = shutil.which("mpiexec.hydra", path=f"{PREFIX}{os.pathsep}{os.environ['PATH']}")
    return command and ([command], {"FI_PROVIDER": "tcp"})


def _openmpi():
    """The same of Open MPI's; it runs as root, and with more processes than cores, if told to."""
    library = PREFIX.parent / "lib" / "libmpi.so.40"
    command = shutil.which("ompirun_wrapper", path=str(PREFIX))
    if command is None or not library.exists():
        return None
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    chosen = {"MPI4PY_MPIABI": "openmpi", "MPI4PY_LIBMPI": str(library)}
    return [command, "--oversubscribe"], {"OPAL_PREFIX": str(PREFIX.parent), **allowed, **chosen}


LAUNCHERS = {"mpich": _mpich, "openmpi": _openmpi}


def start(count, arguments, mpi="mpich", **options):
    """Start processes of this Python; return the Popen of their launcher, or None without MPI."""
    if importlib.util.find_spec("mpi4py") is None or (found := LAUNCHERS[mpi]()) is None:
        pytest.skip(f"mpi4py and {mpi} are not installed")
    command, environment = found
    return subprocess.Popen(
        [*command, "-n", str(count), sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def launch(count, arguments, mpi="mpich", code=0):
    """Run processes to their end; return what all wrote to standard output, and to the other."""
    process = start(count, arguments, mpi)
    try:
        out, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.terminate()  # so that it ends the others
        out, errors = process.communicate()
        raise AssertionError(f"the processes hang\n{out}\n{errors}") from None
    assert process.returncode == code, f"{process.returncode}\n{out}\n{errors}"
    return out, errors


@pytest.fixture(name="launch", scope="session")
def _launch():
    return launch


@pytest.fixture(name="start", scope="session")
def _start():
    return start


@pytest.fixture
def script(tmp_path):
    """Writes a program to a file, to be started by `launch`."""

    def write(text, name="program.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(params=list(LAUNCHERS))
def mpi(request):
    return request.param
