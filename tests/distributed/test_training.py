"""Training by many processes: the bits of one, whatever fails and however it goes on."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anaphora.artifact import ModelDirectory
from anaphora.training import LANGUAGE_MODEL, TASKS, prepare_training, resume_training

TRAININGS = Path(__file__).with_name("trainings.py")
_spec = importlib.util.spec_from_file_location("trainings", TRAININGS)
trainings = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(trainings)

SOME = ("characters", "lazy", "tag", "forecast")


def new_folder(path):
    path.mkdir()
    trainings.write_files(path)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The results of one process, without MPI."""
    folder = new_folder(tmp_path_factory.mktemp("alone") / "files")
    command = [sys.executable, TRAININGS, folder, "train", "0"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def test_every_task_is_among_them(alone):
    assert {kind for kind, _, _ in trainings.VARIANTS.values()} == set(TASKS)
    assert set(alone) == set(trainings.VARIANTS)
    assert len({result[0] for result in alone.values()}) == len(alone)


@pytest.mark.parametrize("memory", ["shared", "messages"])
@pytest.mark.parametrize(("count", "mpi"), [(2, "mpich"), (4, "mpich"), (4, "openmpi")])
def test_four_shards_have_the_same_bits(alone, launch, tmp_path, monkeypatch, count, mpi, memory):
    """Weights, the state of the optimizer, every record, and the saved model."""
    monkeypatch.setenv("ANAPHORA_SHARED_MEMORY", str(int(memory == "shared")))
    out, _ = launch(count, [TRAININGS, new_folder(tmp_path / "f"), "train", "0"], mpi)
    assert json.loads(out) == alone


def test_it_goes_on_with_other_numbers_of_processes(alone, launch, tmp_path):
    folder = new_folder(tmp_path / "f")
    stopped, _ = launch(2, [TRAININGS, folder, "train", "1", *SOME])
    assert {result[3] for result in json.loads(stopped).values()} == {"rank 1 stops"}
    shutil.copytree(folder, tmp_path / "copy")
    stopped, _ = launch(4, [TRAININGS, folder, "resume", "2", *SOME])
    assert {result[3] for result in json.loads(stopped).values()} == {"rank 3 stops"}
    ended, _ = launch(2, [TRAININGS, folder, "resume", "0", *SOME])
    expected = {name: alone[name] for name in SOME}
    assert json.loads(ended) == expected
    for name in SOME:  # on one
        task = TASKS[trainings.VARIANTS[name][0]]
        trainer = resume_training(task, tmp_path / "copy" / name)
        assert trainer.run() == expected[name][3]
        assert trainings.digest(trainer) == expected[name][0]


# The same with Python's Trainer

OWN = """
import hashlib, json, sys
import numpy as np
from anaphora import nn, ops, random
from anaphora.artifact import ModelDirectory
from anaphora.data import SignalBatches
from anaphora.distributed import world
from anaphora.optim import Adam
from anaphora.tensor import Tensor
from anaphora.training import Callback, Trainer, TrainingDiverged, TrainingOptions

class Running(nn.Module):
    def __init__(self):
        self.recurrent = nn.GRU(2, 6)
        self.output = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)

    def loss(self, batch, state=None):
        y, state = self.recurrent(Tensor(batch.inputs), state)
        y = self.output(ops.dropout(y, 0.2))
        return ops.mean_squared_error(y, batch.targets), state

rng = np.random.default_rng(5)
stream = rng.normal(size=(30, 5, 2)).astype(np.float32)  # of 5 rows: shards of 1, 1, 1 and 2
targets = np.repeat(stream.cumsum(axis=0)[..., :1], 3, axis=-1)
batches = SignalBatches(stream, targets, window=7)
losses, told = [], []

def tell():
    everybody = world().gather(told)
    if world().is_main:
        print(json.dumps(everybody))

class Record(Callback):
    def on_step(self, trainer, loss):
        losses.append(loss)

def trainer(shards=4, **more):
    random.seed(3)
    model = Running()
    options = TrainingOptions(epochs=3, shards=shards, clip_norm=0.5, **more)
    return Trainer(model, Adam(model.parameters(), 0.02), batches, options, callbacks=[Record()])
"""

STEPS = """
one = trainer()
one.run()
found = hashlib.sha256(repr(losses).encode())
for _, parameter in one.model.named_parameters():
    found.update(parameter.data.tobytes())
if world().is_main:
    print(found.hexdigest())
"""

DIVERGED = """
first = trainer()
if world().rank == world().size - 1:
    batches._inputs[9, -1] = np.nan  # in the second batch, of the last shard
try:
    first._check_alike = lambda: None
    first.run()
except TrainingDiverged as error:
    assert first.progress.step == 1, first.progress
    told.append(str(error))
tell()
"""

DIFFERENT = """
for number, more in enumerate(({"accumulate": 1 + world().rank % 2}, {})):
    if number and world().rank:
        stream[20, 1] = 5  # which the batches have
    try:
        trainer(**more).run()
    except ValueError as error:
        told.append(str(error))
tell()
"""

UNSEEDED = """
random.seed = lambda value: None
one = trainer()
try:
    one.run()
except ValueError as error:
    told.append(str(error))
batches = [(stream[:7], targets[:7])]
random.seed = lambda value: random.set_state(np.random.PCG64(value).state)
try:
    trainer().run()
except TypeError as error:
    told.append(str(error))
for shards in (2, 3):
    try:
        trainer(shards)
    except ValueError as error:
        told.append(str(error))
tell()
"""


def test_a_trainer_in_python(launch, script, tmp_path):
    program = script(OWN + STEPS)
    command = [sys.executable, program]
    expected = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(expected) == 65
    for count in (2, 4):
        assert launch(count, [program])[0] == expected
    other = subprocess.run(
        [sys.executable, script(OWN.replace("shards=4", "shards=2") + STEPS, "two.py")],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert other != expected  # the bits depend on the shards


def test_divergence_of_one_shard_is_raised_by_all(launch, script):
    out, _ = launch(4, [script(OWN + DIVERGED)])
    everybody = json.loads(out)
    assert [len(told) for told in everybody] == [1] * 4
    for (message,) in everybody:
        assert message.startswith("rank 3 on ")
        assert "became nan at step 2" in message


def test_processes_that_differ_are_told(launch, script):
    out, _ = launch(2, [script(OWN + DIFFERENT)])
    first, second = json.loads(out)
    assert first == second
    of_options, of_data = first
    assert of_options.startswith("the processes differ in accumulate: rank 0 on ")
    assert " has 1, rank 1 on " in of_options
    assert " has 2; start all with the same options, files and versions" in of_options
    assert of_data.startswith("the processes differ in training data: rank 0 on ")


def test_what_a_trainer_refuses(launch, script):
    out, _ = launch(4, [script(OWN + UNSEEDED)])
    for told in json.loads(out):
        assert told[0].startswith("the processes differ in initial weights: rank 0 on ")
        assert "a batch of type tuple cannot be cut into 4 shards: give it a method" in told[1]
        assert told[2].startswith("4 processes cannot share 2 shards: start 1 or 2 processes, or")
        assert told[3] == "shards must be a power of two (1, 2, 4, ...), not 3"


# The command line

TEXT = "to be or not to be, that is the question\n" * 40
SMALL = (
    "--hidden-size", "5", "--batch-size", "4", "--window", "8", "--minimum-count", "1",
    "--dropout", "0.3", "--evaluate-every", "7", "--log-every", "5",
)  # fmt: skip


@pytest.fixture
def command(launch, start, tmp_path):
    """Starts `anaphora train` on a text, with some processes."""
    (tmp_path / "text.txt").write_text(TEXT)

    def run(count, *options, code=0, mpi="mpich", wait=True):
        given = ["-m", "anaphora", "train", *map(str, options)]
        if "--resume" not in options:
            given[3:3] = [tmp_path / "text.txt", *SMALL]
        given += ["--out", tmp_path / "model"]
        return launch(count, given, mpi, code) if wait else start(count, given, mpi)

    return run


def saved(folder):
    arrays, metadata = ModelDirectory.open(folder).load_checkpoint()
    return {name: array.tobytes() for name, array in arrays.items()}, metadata["progress"]["step"]


def prepared(folder, text, shards, steps):
    """A training as that of `command`, by this process."""
    options = LANGUAGE_MODEL.options.make(
        hidden_size=5, batch_size=4, window=8, minimum_count=1, dropout=0.3, evaluate_every=7,
        log_every=5, shards=shards, max_steps=steps,
    )  # fmt: skip
    return prepare_training(LANGUAGE_MODEL, options, folder, [text])


def test_the_command_records_its_shards_and_prints_once(command, tmp_path):
    out, errors = command(2, "--max-steps", "20", "--json")
    assert errors.count("20 steps done") == 1
    ids = re.search(r"2 processes: rank 0 on \S+ is PID (\d+), rank 1 on \S+ is PID (\d+)", errors)
    assert ids[1] != ids[2]
    records = [json.loads(line) for line in out.splitlines()]
    kinds = [record["kind"] for record in records]
    assert kinds.count("result") == 1
    assert kinds.count("train") == 4
    for record in records:
        assert ("communication_seconds" in record) == (record["kind"] == "train")
        assert record.get("communication_seconds", 0) >= 0
    assert json.loads((tmp_path / "model" / "config.json").read_text())["training"]["shards"] == 2
    expected = prepared(tmp_path / "alone", tmp_path / "text.txt", 2, 20)
    expected.run()
    assert saved(tmp_path / "model") == saved(tmp_path / "alone")
    _, errors = command(4, "--resume", "--max-steps", "30", code=2)
    assert errors == (
        "anaphora: 4 processes cannot share 2 shards: start 1 or 2 processes, or start a new "
        "training with shards a power of two and a multiple of the processes\n"
    )
    command(2, "--resume", "--max-steps", "30")
    assert saved(tmp_path / "model")[1] == 30


@pytest.mark.parametrize(
    ("count", "options", "code", "message"),
    [
        (2, ("--shards", "8"), 2, "a batch of batch_size 4 cannot be cut into 8 shards"),
        (2, ("--shards", "3"), 2, "shards must be a power of two (1, 2, 4, ...), not 3"),
        (3, (), 2, "3 processes cannot share the shards of a batch, whose number is a power of "
                   "two: start 2 or 4 processes"),
        (4, ("--shards", "2"), 2, "4 processes cannot share 2 shards: start 1 or 2 processes"),
        (2, ("--hidden-sise", "3"), 2, "--hidden-sise"),
        (2, ("--valid", "missing.txt"), 1, "missing.txt does not exist"),
    ],
)  # fmt: skip
def test_misuse_is_told_once(command, tmp_path, count, options, code, message):
    _, errors = command(count, "--max-steps", "5", *options, code=code)
    assert errors.count(message) == 1, errors
    assert errors.count("anaphora: ") == 1
    assert not (tmp_path / "model").exists()


def test_ranks_with_different_commands_are_told(start, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    given = ["-m", "anaphora", "train", tmp_path / "text.txt", *SMALL, "--out", tmp_path / "model"]
    other = [":", "-n", "1", sys.executable, *given, "--max-steps", "6"]
    process = start(1, [*given, "--max-steps", "5", *other])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.startswith("anaphora: the processes differ in the command line: rank 0 on ")
    assert errors.count("anaphora: the processes") == 1


def test_ranks_that_compute_differently_are_told(start, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    given = ["-m", "anaphora", "train", tmp_path / "text.txt", *SMALL, "--out", tmp_path / "model"]
    given += ["--max-steps", "5"]
    program = (
        "import os, runpy; os.environ['ANAPHORA_ENGINE'] = 'numpy'; runpy.run_module('anaphora')"
    )
    program = program.replace("('anaphora')", "('anaphora', run_name='__main__')")
    process = start(1, [*given, ":", "-n", "1", sys.executable, "-c", program, *given[2:]])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert errors.count("anaphora: the processes differ in ") == 1
    assert "engine: rank 0 on " in errors
    assert "has numpy" in errors


def wait_for(process, condition):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def is_at(folder, step):
    """A condition: the checkpoint of a training has come so far."""

    def at_least():
        directory = ModelDirectory(folder)
        return directory.checkpoint.exists() and saved(folder)[1] >= step

    return at_least


def of_rank(process, rank):
    """The PID of a rank that a launcher has started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            text = (entry / "cmdline").read_bytes()
            parents = _ancestors(int(entry.name))
        except (OSError, ValueError):
            continue
        is_rank = b"anaphora" in text and (
            {f"{name}={rank}".encode() for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK")}
            & set(variables)
        )
        if is_rank and process.pid in parents:
            return int(entry.name)
    raise AssertionError(f"no rank {rank}")


def shared_files(number):
    """The files of shared memory that a process has mapped, besides those of the test in memory."""
    maps = Path(f"/proc/{number}/maps").read_text()
    assert "/memfd:anaphora-" in maps
    return re.findall(r"/dev/shm/(?!pytest-of-).*", maps)


def _ancestors(number):
    found = []
    while number > 1:
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(number)
    return found


ENDLESS = ("--max-steps", "1000000", "--checkpoint-seconds", "0", "--shards", "4")
proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


@proc
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others_and_the_checkpoint_is_whole(command, tmp_path, mpi, rank):
    process = command(2, *ENDLESS, "--schedule", "constant", mpi=mpi, wait=False)
    wait_for(process, is_at(tmp_path / "model", 12))
    killed = of_rank(process, rank)
    files = shared_files(killed)
    os.kill(killed, signal.SIGKILL)
    out, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert f"rank {rank} on " in out
    assert re.search(rf"rank {rank} on \S+ is PID {killed}\b", out)
    named = "PID {} RUNNING" if mpi == "mpich" else "with PID {} on node"
    assert named.format(killed) in out + errors  # as the launcher names it
    assert not [file for file in files if os.path.exists(file)]
    _, step = saved(tmp_path / "model")
    assert step >= 12
    goes_on(tmp_path, step + 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_once(command, tmp_path, mpi, number):
    process = command(2, *ENDLESS, "--schedule", "constant", mpi=mpi, wait=False)
    wait_for(process, is_at(tmp_path / "model", 5))
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    _, step = saved(tmp_path / "model")
    if mpi == "mpich":
        assert process.returncode == 130, (out, errors)
        assert out.count("interrupted (") == out.count("saved; continue with: ") == 1
        assert f"interrupted ({step:,} steps" in out
    else:  # its launcher no longer prints what they write, and kills them after a second
        assert process.returncode != 0
        assert step >= 5
    goes_on(tmp_path, step + 5)


def goes_on(tmp_path, step):
    """The training of a directory goes on, to the weights of one that was never stopped."""
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "model", {"max_steps": step})
    trainer.run()
    options = LANGUAGE_MODEL.load_options(tmp_path / "model")
    expected = prepare_training(
        LANGUAGE_MODEL, options, tmp_path / "alone", [tmp_path / "text.txt"]
    )
    expected.run()
    assert trainings.digest(trainer) == trainings.digest(expected)


DRIFTING = """
import sys
from anaphora.cli import main
from anaphora.distributed import world
from anaphora.training.trainer import Trainer

update = Trainer._update

def drift(self, batches):
    loss = update(self, batches)
    if self.progress.step == 4 and world().rank == 1:
        with next(self.model.parameters()).writing() as array:
            array[0] += 1
    return loss

Trainer._update = drift
sys.argv[0] = "anaphora"
main()
"""


def test_weights_that_differ_are_not_saved(launch, script, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    given = ["train", tmp_path / "text.txt", *SMALL, "--max-steps", "6", "--out", tmp_path / "m"]
    _, errors = launch(2, [script(DRIFTING), *given, "--evaluate-every", "100"], code=1)
    assert errors.startswith("anaphora: the processes differ in weights after 6 steps: rank 0 on ")
    assert "nothing was saved" in errors
    assert errors.count("anaphora: ") == 1
    assert saved(tmp_path / "m")[1] == 0


UNREADABLE = """
import os, sys
from anaphora.artifact import ModelDirectory
from anaphora.cli import main
from anaphora.distributed import world

if world().rank == 1:
    sys.modules["anaphora.artifact.directory"].ModelDirectory.open = classmethod(
        lambda cls, path: (_ for _ in ()).throw(FileNotFoundError(2, "No such file", str(path)))
    )
sys.argv[0] = "anaphora"
main()
"""


def test_a_rank_that_cannot_read_the_text_is_named(launch, script, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    program = script(UNREADABLE)
    given = ["train", tmp_path / "text.txt", *SMALL, "--max-steps", "3", "--out", tmp_path / "m"]
    _, errors = launch(2, [program, *given], code=1)
    assert errors.startswith("anaphora: rank 1 on ")
    assert "cannot read what rank 0 wrote" in errors
    assert "on a disk that their machines share" in errors
    assert errors.count("anaphora: ") == 1


FAILING = """
import sys
from anaphora.cli import main, app
from anaphora.distributed import world
from anaphora.training.trainer import Trainer

save = Trainer._update

def fail(self, batches):
    if self.progress.step == 3 and world().rank == 1:
        raise MemoryError("of the test")
    return save(self, batches)

Trainer._update = fail
sys.argv[0] = "anaphora"
main()
"""


def test_an_error_of_one_rank_ends_the_others_and_is_told(launch, script, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    given = ["train", tmp_path / "text.txt", *SMALL, "--max-steps", "9", "--out", tmp_path / "m"]
    _, errors = launch(2, [script(FAILING), *given], code=1)
    assert re.search(r"^anaphora: rank 1 on \S+: out of memory: of the test$", errors, re.M), errors
