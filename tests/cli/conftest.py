"""Runs the command line as a user does: in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import anaphora

TEXT = (
    "Beginning each clause with the same words is a habit of speech.\n"
    "A word that refers back to what was said before needs a memory of it.\n"
    "It is what a network with a state does, step by step.\n"
) * 12
SMALL = (
    "--hidden-size", "8", "--embedding-size", "4", "--batch-size", "2", "--window", "8",
    "--minimum-count", "1",
)  # fmt: skip


class CommandLine:
    """`anaphora` in a folder of its own, with a text and room for models."""

    small = SMALL

    def __init__(self, folder):
        self.folder = Path(folder)
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT)

    def start(self, *arguments, **options):
        source = str(Path(anaphora.__file__).parent.parent)
        environment = {
            **os.environ, "PYTHONPATH": source, "COLUMNS": "80", "PYTHONWARNINGS": "error",
            **options.pop("environment", {}),
        }  # fmt: skip
        given = {
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "encoding": "utf-8",
            # A shell that runs the tests in the background has Ctrl-C ignored; here it is not.
            "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **options,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "anaphora", *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            **given,
        )

    def run(self, *arguments, code=0, stdin=None, **options):
        """Run to the end; return standard output and standard error."""
        if stdin is not None:
            options["stdin"] = subprocess.PIPE
        with self.start(*arguments, **options) as process:
            out, err = process.communicate(stdin, timeout=120)
        assert process.returncode == code, (out, err)
        assert "Traceback" not in err
        return out, err

    def train(self, *arguments, out="model", **options):
        return self.run("train", "text.txt", "--out", out, *SMALL, *arguments, **options)


@pytest.fixture
def command(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a trained model; what training it printed is in `printed`."""
    command = CommandLine(tmp_path_factory.mktemp("trained"))
    command.printed, _ = command.train("--max-steps", "60", "--evaluate-every", "20")
    return command
