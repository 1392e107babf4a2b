"""No link in a model directory is followed, and one training at a time holds its lock."""

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import anaphora
from anaphora.artifact import ArtifactError, ModelDirectory, lock
from anaphora.data import DataError
from anaphora.training import (
    LANGUAGE_MODEL,
    TASKS,
    LanguageModelOptions,
    prepare_training,
    resume_training,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and signals are those of POSIX")

FILES = (
    "config.json", "tokenizer.json", "model.safetensors", "metrics.jsonl", "checkpoint",
    "checkpoint/state.safetensors", "checkpoint/train.npy", "checkpoint/validation.npy",
)  # fmt: skip
OPTIONS = LanguageModelOptions.make(
    max_steps=2, log_every=1, hidden_size=4, batch_size=2, window=8, minimum_count=1
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a text, and a model directory of two steps."""
    folder = tmp_path_factory.mktemp("links")
    (folder / "text.txt").write_text("to be or not to be " * 60)
    valid = folder / "valid.txt"
    valid.write_text("to be or not to be " * 9)
    prepare_training(
        LANGUAGE_MODEL, OPTIONS, folder / "model", [folder / "text.txt"], [valid]
    ).run()
    return folder


def copied(model, folder):
    shutil.copytree(model / "model", folder / "model")
    return folder / "model"


def contents(path):
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def linked(path, name, aside):
    """Move a part of a model directory aside and put a link to it in its place."""
    target = aside / "elsewhere"
    shutil.move(path / name, target)
    (path / name).symlink_to(target)
    return target


def use(path):
    """Read and write all that a training has."""
    task = TASKS["language-model"]
    task.load(path)
    ModelDirectory.open(path).read_metrics()
    resume_training(task, path, {"max_steps": 4}).run()


@pytest.mark.parametrize("name", FILES)
def test_no_link_in_a_directory_is_followed(model, tmp_path, name):
    path = copied(model, tmp_path)
    target = linked(path, name, tmp_path)
    before = contents(target)
    last = name.split("/")[-1]
    with pytest.raises((ArtifactError, DataError), match=f"{last} is a symbolic link"):
        use(path)
    assert contents(target) == before


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_a_directory_keeps_nobody_waiting(model, tmp_path, name):
    path = copied(model, tmp_path)
    shutil.move(path / name, tmp_path / "elsewhere")
    os.mkfifo(path / name)
    with pytest.raises(
        (ArtifactError, DataError), match=r"is not a regular file|Not a directory|no checkpoint"
    ):
        use(path)


def test_weights_of_examples_are_not_read_through_a_link(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("text,label\n" + "oh,vowel\nhm,consonant\n" * 9)
    task = TASKS["classify"]
    options = task.options.make(
        column="text", label_column="label", hidden_size=4, batch_size=2, max_steps=2
    )
    path = tmp_path / "model"
    prepare_training(task, options, path, [table]).run()
    linked(path, "checkpoint/train.safetensors", tmp_path)
    with pytest.raises(ArtifactError, match=r"train.safetensors: .* is a symbolic link; replace"):
        resume_training(task, path, {"max_steps": 4})


@pytest.mark.parametrize("name", FILES[1:6])
def test_overwrite_removes_links_and_not_what_they_point_to(model, tmp_path, name):
    path = copied(model, tmp_path)
    target = linked(path, name, tmp_path)
    before = contents(target)
    directory = ModelDirectory.create(path, overwrite=True)
    directory.append_metrics({"step": 1})
    directory.save({}, {}, {})
    directory.save_checkpoint({}, {})
    assert contents(target) == before
    assert not (path / name).is_symlink()


@pytest.mark.parametrize("name", FILES[1:])
def test_a_training_that_overwrites_writes_through_no_link(model, tmp_path, name):
    path = copied(model, tmp_path)
    target = linked(path, name, tmp_path)
    before = contents(target)
    prepare_training(LANGUAGE_MODEL, OPTIONS, path, [model / "text.txt"], overwrite=True).run()
    assert contents(target) == before
    assert not (path / name).is_symlink()
    use(path)


def test_the_directory_itself_may_be_reached_through_a_link(model, tmp_path):
    path = copied(model, tmp_path)
    (tmp_path / "latest").symlink_to(path)
    use(tmp_path / "latest")
    assert ModelDirectory.open(path).load_checkpoint()[1]["progress"]["step"] == 4


@pytest.mark.parametrize("size", [-1, 5, 1.0, True, None, "0"])
def test_a_size_that_is_none_cuts_nothing(tmp_path, size):
    directory = ModelDirectory.create(tmp_path)
    for step in range(3):
        directory.append_metrics({"step": step})
    with pytest.raises(
        ArtifactError,
        match=r"metrics.jsonl: the checkpoint continues after 5 bytes, but no line ends there"
        if size == 5
        else rf"state.safetensors: metrics_size is {size!r}; expected the number of bytes",
    ):
        directory.truncate_metrics(size)
    assert len(directory.read_metrics()) == 3


# The lock

HOLD = """
import sys
from anaphora.artifact import ModelDirectory
directory = ModelDirectory(sys.argv[1])
directory.lock()
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path):
    """Another process that holds the lock until the block ends."""
    source = str(Path(anaphora.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    ) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.communicate()


def test_a_second_training_is_told_who_trains(model, tmp_path):
    path = copied(model, tmp_path)
    before = contents(path)
    with holder(path) as process:
        message = (
            rf"model: is being trained by process {process.pid} on {socket.gethostname()}, since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC; wait until that training finishes, stop it \(in "
            r"Python: delete its trainer\), or choose another --out"
        )
        for attempt in (
            lambda: prepare_training(LANGUAGE_MODEL, OPTIONS, path, [model / "text.txt"]),
            lambda: prepare_training(
                LANGUAGE_MODEL, OPTIONS, path, [model / "text.txt"], overwrite=True
            ),
            lambda: resume_training(TASKS["language-model"], path, {"max_steps": 4}),
            lambda: ModelDirectory.create(path, overwrite=True),
        ):
            with pytest.raises(ArtifactError, match=message):
                attempt()
        size = ModelDirectory.open(path).size()
        TASKS["language-model"].load(path)  # readers do not mind
        shutil.copytree(path, tmp_path / "copy")
    assert contents(path) == before  # the lock's file has gone too
    assert size == sum(map(len, before.values()))
    use(tmp_path / "copy")  # the lock's file, which was copied with it, locks nothing


def test_a_lock_ends_with_its_process(model, tmp_path):
    path = copied(model, tmp_path)
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (path / ".lock").exists()
        use(path)
    assert not (path / ".lock").exists()


def test_a_killed_lock_leaves_a_folder_that_can_be_used(tmp_path):
    with holder(tmp_path / "new") as process:
        process.kill()
        process.wait()
    assert os.listdir(tmp_path / "new") == [".lock"]
    ModelDirectory.create(tmp_path / "new")


def test_a_lock_of_this_process_ends_with_the_trainer(model, tmp_path):
    task, path = TASKS["language-model"], copied(model, tmp_path)
    trainer = resume_training(task, path, {"max_steps": 3})
    with pytest.raises(ArtifactError, match=f"by this process, process {os.getpid()} on"):
        resume_training(task, path)
    trainer.run()
    trainer = resume_training(task, path, {"max_steps": 4})
    del trainer
    resume_training(task, path).run()
    assert not (path / ".lock").exists()


def test_a_failed_start_unlocks_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError):
        prepare_training(LANGUAGE_MODEL, OPTIONS, tmp_path / "new", [tmp_path / "none.txt"])
    assert not (tmp_path / "new").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not empty and is not a model directory"):
        prepare_training(LANGUAGE_MODEL, OPTIONS, mine, [])
    assert os.listdir(mine) == ["notes.txt"]


def test_a_link_as_lock_is_refused(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(ArtifactError, match=r"\.lock is a symbolic link"):
        ModelDirectory.create(tmp_path / "new")
    assert (tmp_path / "target").read_text() == "mine"


def test_one_of_two_threads_wins(tmp_path):
    barrier, won = threading.Barrier(4), []

    def attempt():
        directory = ModelDirectory(tmp_path / "new")
        barrier.wait()
        with contextlib.suppress(ArtifactError):
            directory.lock()
            won.append(directory)
        barrier.wait()

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].unlock()
    ModelDirectory(tmp_path / "new").lock()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_holds_nothing_and_keeps_nothing(tmp_path):
    directory = ModelDirectory(tmp_path)
    directory.lock()
    context = multiprocessing.get_context("fork")
    pipe, other = context.Pipe()

    def child():
        pipe.close()
        try:
            directory.lock()
        except ArtifactError as error:
            other.send(str(error))
        other.recv()  # it lives on
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    other.close()
    assert f"is being trained by process {os.getpid()} on" in pipe.recv()
    assert (tmp_path / ".lock").exists()
    with pytest.raises(ArtifactError):
        ModelDirectory(tmp_path).lock()  # the child has not released it
    directory.unlock()
    ModelDirectory(tmp_path).lock()
    pipe.send(None)
    process.join()


RACE = """
import sys
from anaphora.artifact import ArtifactError
from anaphora.training import LANGUAGE_MODEL, LanguageModelOptions, prepare_training
options = LanguageModelOptions.make(
    max_steps=2, hidden_size=4, batch_size=2, window=8, minimum_count=1
)
print("ready", flush=True)
sys.stdin.readline()
try:
    trainer = prepare_training(LANGUAGE_MODEL, options, sys.argv[1], [sys.argv[2]])
except ArtifactError as error:
    print(error, flush=True)
    sys.exit(1)
print("training", flush=True)
sys.stdin.readline()
trainer.run()
"""


def test_of_trainings_that_start_at_once_one_wins(model, tmp_path):
    source = str(Path(anaphora.__file__).parents[1])
    path = tmp_path / "new"
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACE, str(path), str(model / "text.txt")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                    env={**os.environ, "PYTHONPATH": source},
                )
            )
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
        answers = [process.stdout.readline() for process in processes]
        assert answers.count("training\n") == 1
        for answer in answers:
            assert answer == "training\n" or "is being trained by " in answer
        for process in processes:
            with contextlib.suppress(BrokenPipeError):
                process.communicate("\n")
    assert sorted(process.returncode for process in processes) == [0, 1, 1]
    use(path)
    names = {str(file.relative_to(path)) for file in path.rglob("*")}
    assert names == set(FILES[:7])
    json.loads((path / "config.json").read_text())


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch):
    def unsupported(descriptor):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_lock", unsupported)
    with pytest.warns(RuntimeWarning, match="the file system has no locks .*one runs at a time"):
        ModelDirectory.create(tmp_path)


def test_reading_takes_no_lock_and_writing_is_not_needed(model, tmp_path, monkeypatch):
    path = copied(model, tmp_path)

    def refuse(self):
        raise AssertionError("a reader locks")

    monkeypatch.setattr(ModelDirectory, "lock", refuse)
    TASKS["language-model"].load(path)
    ModelDirectory.open(path).read_metrics()


def test_a_directory_that_another_has_begun_to_make_is_one_of_ours(tmp_path):
    (tmp_path / "metrics.jsonl").touch()  # a kill may leave it at that, too
    directory = ModelDirectory(tmp_path)
    directory.lock()
    with pytest.raises(ArtifactError, match="is being trained by "):
        ModelDirectory(tmp_path).lock()
    directory.unlock()
    (tmp_path / "metrics.jsonl").write_text("{}\n")  # of another program
    with pytest.raises(ArtifactError, match="is not empty and is not a model directory"):
        directory.lock()
