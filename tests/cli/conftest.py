"""Runs the command line as a user does: in a process of its own."""

import json
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


FORKED = Path(__file__).with_name("forked_commands.py")


def _environment():
    source = str(Path(anaphora.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": source, "COLUMNS": "80", "PYTHONWARNINGS": "error"}


class CommandLine:
    """`anaphora` in a folder of its own, with a text and room for models."""

    small = SMALL

    def __init__(self, folder, forked):
        self.folder = Path(folder)
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT)
        self._forked = forked

    def start(self, *arguments, **options):
        environment = _environment() | options.pop("environment", {})
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
        """Run to the end; return standard output and standard error.

        With options of `start` this is a new interpreter, else a forked process.
        """
        if not options:
            returned, out, err = self._forked(self.folder, arguments, stdin or "")
        else:
            if stdin is not None:
                options["stdin"] = subprocess.PIPE
            with self.start(*arguments, **options) as process:
                out, err = process.communicate(stdin, timeout=120)
            returned = process.returncode
        assert returned == code, (out, err)
        assert "Traceback" not in err
        return out, err

    def train(self, *arguments, out="model", **options):
        return self.run("train", "text.txt", "--out", out, *SMALL, *arguments, **options)


@pytest.fixture(scope="session")
def forked():
    """Runs a command in a folder, by the program that forks: exit code and what was printed."""
    with subprocess.Popen(
        [sys.executable, str(FORKED)], env=_environment(), encoding="utf-8",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as program:  # fmt: skip

        def run(folder, arguments, stdin):
            program.stdin.write(json.dumps([str(folder), [*map(str, arguments)], stdin]) + "\n")
            program.stdin.flush()
            return json.loads(program.stdout.readline())

        yield run
        program.stdin.close()


@pytest.fixture
def command(tmp_path, forked):
    return CommandLine(tmp_path, forked)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, forked):
    """A folder with a trained model; what training it printed is in `printed`."""
    command = CommandLine(tmp_path_factory.mktemp("trained"), forked)
    command.printed, _ = command.train("--max-steps", "60", "--evaluate-every", "20")
    return command


def write_task(name, folder):
    """Write 40 examples (a forecaster: 120 steps) for a task; return the file and the options."""
    rows = [f"{'so' * (n % 3)}x{n % 5} it{n % 7} is" for n in range(40)]
    sentences = ("".join(f"{word}\tT{len(word)}\n" for word in row.split()) for row in rows)
    files = {
        "classify": ("t.csv", ["text,label", *(f"{row},{n % 2}" for n, row in enumerate(rows))]),
        "regress": ("t.csv", ["text,y", *(f"{row},{n % 9}" for n, row in enumerate(rows))]),
        "tag": ("t.tsv", sentences),
        "translate": ("t.tsv", [f"{row}\t{row[::-1]}" for row in rows]),
        "forecast": ("t.csv", ["time,y", *(f"{n},{n % 6}" for n in range(120))]),
    }
    options = {
        "classify": ("--column", "text", "--label-column", "label"),
        "regress": ("--column", "text", "--target-column", "y"),
        "tag": ("--tag-column", "2"),
        "translate": (),
        "forecast": ("--time-column", "time", "--target-column", "y", "--horizon", "6"),
    }
    file, content = files[name]
    path = folder / file
    path.write_text("".join(f"{line}\n" for line in content))
    return path, options[name]
