"""Ctrl-C, SIGTERM and SIGKILL: what is left, and that training continues as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import anaphora
from anaphora.artifact import ModelDirectory
from anaphora.models import LanguageModel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has none of these signals")

OPTIONS = ("--dropout", "0.3", "--evaluate-every", "7", "--log-every", "5")
ENDLESS = (*OPTIONS, "--max-steps", "1000000", "--checkpoint-seconds", "0")


def wait_for(process, condition):
    """Wait until a condition holds, for at most a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def checkpointed_steps(directory):
    """A condition: the checkpoint of a training has come so far."""

    def at_least(step):
        return directory.checkpoint.exists() and (
            directory.load_checkpoint()[1]["progress"]["step"] >= step
        )

    return at_least


def outcome(folder):
    directory = ModelDirectory.open(folder)
    records = [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in directory.read_metrics()
    ]
    arrays, metadata = directory.load_checkpoint()
    metadata["progress"].pop("seconds")
    metadata.pop("metrics_size")
    last = {name: array.tobytes() for name, array in arrays.items()}
    return directory.weights.read_bytes(), records, last, metadata


def test_killed_again_and_again_it_ends_as_if_it_had_never_been(command):
    steps = ("--max-steps", "300")
    command.train(*OPTIONS, *steps, "--warm-up", "9", out="complete")
    expected = outcome(command.folder / "complete")
    assert len(expected[1]) == 300 // 5 + 300 // 7 + 1

    directory = ModelDirectory(command.folder / "killed")
    reached = checkpointed_steps(directory)
    chance = random.Random(1)
    arguments = (
        "train", "text.txt", "--out", "killed", *command.small, *OPTIONS, *steps,
        "--warm-up", "9", "--checkpoint-seconds", "0",
    )  # fmt: skip
    for kill_after in (0, 15, 40, 80):
        with command.start(*arguments) as process:
            wait_for(process, lambda step=kill_after: reached(step))
            time.sleep(chance.uniform(0, 0.02))  # somewhere within a step
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        arguments = ("train", "--resume", "--out", "killed")
    out, _ = command.run(*arguments)
    assert out.startswith("continuing from step ")
    assert outcome(command.folder / "killed") == expected


def start_training(command, *arguments):
    return command.start(
        "train", "text.txt", "--out", "model", *command.small, *ENDLESS, *arguments
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_saves_and_says_how_to_go_on(command, number):
    directory = ModelDirectory(command.folder / "model")
    before = signal.signal(number, lambda *_: None)  # a child inherits what is ignored, as by nohup
    try:
        process = start_training(command)
    finally:
        signal.signal(number, before)
    with process:
        wait_for(process, lambda: checkpointed_steps(directory)(10))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert "interrupted (" in out
    assert out.endswith("saved; continue with: anaphora train --resume --out model\n")
    step = directory.load_checkpoint()[1]["progress"]["step"]
    LanguageModel.load(directory.path)
    out, _ = command.run("train", "--resume", "--out", "model", "--max-steps", str(step + 3))
    assert out.startswith(f"continuing from step {step:,} of model\n")
    assert f"{step + 3:,} steps done" in out


def test_interrupted_with_json(command):
    directory = ModelDirectory(command.folder / "model")
    with start_training(command, "--json") as process:
        wait_for(process, lambda: checkpointed_steps(directory)(3))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert '"kind": "result", "reason": "interrupted"' in out.splitlines()[-1]
    assert "saved; continue with" in err


def test_interrupted_while_it_reads_it_leaves_nothing(command):
    """Standard input that does not end keeps it reading."""
    with command.start("train", "-", "--out", "model", stdin=subprocess.PIPE) as process:
        wait_for(process, (command.folder / "model").exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "anaphora: interrupted\n"
    assert out == ""
    assert not (command.folder / "model").exists()


def test_killed_while_it_reads_the_folder_can_be_used_again(command):

    with command.start("train", "-", "--out", "model", stdin=subprocess.PIPE) as process:
        wait_for(process, (command.folder / "model" / "checkpoint").exists)
        process.kill()
        process.communicate()
    _, err = command.run("generate", "model", code=1)
    assert "its training stopped before a model was saved; train again with the same --out" in err
    command.train("--max-steps", "2")
    command.run("generate", "model", "--length", "3")


@pytest.mark.parametrize("way", ["-m", "script"])
@pytest.mark.parametrize(
    ("number", "package"),
    [(signal.SIGINT, "numpy"), (signal.SIGINT, "typer"), (signal.SIGTERM, "typer")],
)
def test_interrupted_while_it_is_imported_it_ends_without_a_word(command, way, number, package):
    """A package of that name that does not end to be imported takes its place."""
    (command.folder / f"{package}.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    script = command.folder / "anaphora"
    script.write_text("from anaphora.cli import main\nmain()\n")
    start = ["-m", "anaphora"] if way == "-m" else [str(script)]
    source = str(Path(anaphora.__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, *start, "info", "model"],
        cwd=command.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(command.folder), source])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
