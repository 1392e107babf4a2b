"""The lock of a model directory, and links within one, which are never followed."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import anaphora
from anaphora.artifact import LOCK_FILE, ArtifactError, ModelDirectory
from anaphora.artifact.folder import Folder
from anaphora.artifact.lock import Held, Lock
from anaphora.training import LanguageModelOptions, prepare_language_model, resume_language_model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX files, signals and pipes")

TEXT = "to be or not to be, that is the question\n" * 30
ARRAYS = {"bias": np.arange(3.0)}


def python(code, *arguments):
    """A Python process, to talk to by its standard streams."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(anaphora.__file__).parent.parent)},
        text=True,
    )


HOLD = """
import sys
from anaphora.artifact import ModelDirectory
home = ModelDirectory(sys.argv[1])
home.lock()
print("held", flush=True)
sys.stdin.readline()
"""


def options(**changes):
    tiny = {"hidden_size": 4, "batch_size": 2, "window": 8, "minimum_count": 1, "max_steps": 2}
    return LanguageModelOptions.from_preset(**{**tiny, **changes})


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def model(tmp_path, text):
    """A model directory whose training can go on."""
    prepare_language_model(options(), tmp_path / "model", [text]).run()
    return tmp_path / "model"


def test_one_process_holds_it_until_it_ends(tmp_path):
    ModelDirectory.create(tmp_path)
    with python(HOLD, tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(
            ArtifactError,
            match=rf"a training is writing to it \(process {process.pid} on .*, since \d{{4}}-.* "
            r"UTC\); wait for its end, stop it, or choose another --out",
        ):
            ModelDirectory(tmp_path).lock()
        process.send_signal(signal.SIGKILL)
        process.wait()
    home = ModelDirectory(tmp_path)
    home.lock()  # what the killed process left behind locks nothing
    home.lock()
    home.unlock()
    assert not (tmp_path / LOCK_FILE).exists()


def test_threads_and_objects_of_one_process_keep_each_other_out(tmp_path):
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.acquire()
    found = []

    def other():
        try:
            second.acquire()
        except Held as error:
            found.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found[0].startswith(f"this process, process {os.getpid()} on ")
    del first
    second.acquire()
    assert second.held


def test_a_forked_child_does_not_hold_it(tmp_path):
    lock = Lock(tmp_path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        held = lock.held
        lock.release()
        os._exit(int(held))
    assert os.waitpid(child, 0)[1] == 0
    assert lock.held
    with pytest.raises(Held):
        Lock(tmp_path).acquire()


def test_a_training_holds_it_while_it_lives(tmp_path, text):
    trainer = prepare_language_model(options(), tmp_path / "model", [text])
    for start in (
        lambda: prepare_language_model(options(), tmp_path / "model", [text], overwrite=True),
        lambda: resume_language_model(tmp_path / "model"),
    ):
        with pytest.raises(ArtifactError, match="a training is writing to it"):
            start()
    assert trainer.run() == "2 steps done"
    assert resume_language_model(tmp_path / "model").run() == "2 steps done"
    assert not (tmp_path / "model" / LOCK_FILE).exists()


TRAIN = """
import sys
from anaphora.artifact import ArtifactError
from anaphora.training import LanguageModelOptions, prepare_language_model
options = LanguageModelOptions.from_preset(
    hidden_size=4, batch_size=2, window=8, minimum_count=1, max_steps=2
)
print("ready", flush=True)
sys.stdin.readline()
try:
    trainer = prepare_language_model(options, sys.argv[1], [sys.argv[2]])
except ArtifactError as error:
    print(error, flush=True)
else:
    trainer.run()
    print("trained", flush=True)
"""


def test_of_several_that_begin_at_once_one_wins(tmp_path, text):
    processes = [python(TRAIN, tmp_path / "model", text) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert ends.count("trained") == 1
    for end in ends:
        assert end == "trained" or "is writing to it" in end or "already holds a model" in end
    home = ModelDirectory.open(tmp_path / "model")
    config, tokenizer, _ = home.load()
    assert config["task"] == "language_model"
    assert tokenizer["level"] == "char"
    assert resume_language_model(home.path, {"max_steps": 3}).run() == "3 steps done"


def test_what_cannot_be_prepared_leaves_nothing(tmp_path, text):
    missing = tmp_path / "missing.txt"
    with pytest.raises(ValueError, match="does not exist"):
        prepare_language_model(options(), tmp_path / "new" / "model", [missing])
    assert not (tmp_path / "new" / "model").exists()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match="does not exist"):
        prepare_language_model(options(), other, [missing])
    assert list(other.iterdir()) == []
    (other / "photo.jpg").write_bytes(b"")
    with pytest.raises(ArtifactError, match="is not empty and is not a model directory"):
        prepare_language_model(options(), other, [text])
    assert [entry.name for entry in other.iterdir()] == ["photo.jpg"]


# Links


def replace_by_link(path, target):
    """Put a link in the place of a file or folder, which moves to where the link leads."""
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    path.symlink_to(target)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ENTRIES = [
    "config.json", "tokenizer.json", "model.safetensors", "metrics.jsonl", "checkpoint",
    "checkpoint/state.safetensors", "checkpoint/train.npy",
]  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_no_link_is_followed(tmp_path, model, text, name):
    elsewhere = tmp_path / "elsewhere"
    replace_by_link(model / name, elsewhere / Path(name).name)
    before = contents(elsewhere)
    with pytest.raises(ArtifactError, match=f"{Path(name).name} is a symbolic link; replace it"):
        resume_language_model(model, {"max_steps": 4}).run()
    assert contents(elsewhere) == before
    if name == "config.json":  # which would tell whether the directory is one of ours
        with pytest.raises(ArtifactError, match=r"config\.json is a symbolic link"):
            prepare_language_model(options(), model, [text], overwrite=True)
        assert contents(elsewhere) == before
        return
    prepare_language_model(options(), model, [text], overwrite=True).run()
    assert contents(elsewhere) == before
    assert not (model / name).is_symlink()
    resume_language_model(model, {"max_steps": 4}).run()
    assert contents(elsewhere) == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "checkpoint/train.npy"])
def test_what_is_no_regular_file_is_refused_at_once(model, name):
    (model / name).unlink()
    os.mkfifo(model / name)
    with pytest.raises(ArtifactError, match=f"{Path(name).name} is not a regular file"):
        resume_language_model(model, {"max_steps": 4})


def test_the_directory_itself_may_be_reached_through_a_link(tmp_path, model):
    (tmp_path / "latest").symlink_to(model)
    assert resume_language_model(tmp_path / "latest", {"max_steps": 4}).run() == "4 steps done"


def test_sizes_of_the_metrics_are_checked(model):
    home = ModelDirectory(model)
    whole = home.metrics.read_bytes()
    with pytest.raises(ArtifactError, match="no line ends after its first 3 bytes, where one does"):
        home.truncate_metrics(3)
    home.truncate_metrics(len(whole) + 99)
    assert home.metrics.read_bytes() == whole
    home.truncate_metrics(0)
    assert home.metrics.read_bytes() == b""


def test_links_below_a_folder_are_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text(json.dumps({}))
    with Folder(tmp_path) as folder:
        for use in (
            lambda: folder.make_folder("link"),
            lambda: folder.open("link", os.O_WRONLY | os.O_CREAT),
            lambda: folder.open("real", os.O_RDONLY),
        ):
            with pytest.raises(OSError, match=r"is a symbolic link|is not a regular file"):
                use()
        with (
            pytest.raises(OSError, match="link is a symbolic link"),
            Folder.within(tmp_path, tmp_path / "link"),
        ):
            pass
        folder.remove_link("file")
        assert folder.status("file") is not None
        folder.remove_link("link")
        assert sorted(folder.names()) == ["file", "real"]
