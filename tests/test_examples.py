"""The files in examples/ run as they stand, in tiny sizes."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import anaphora

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SOURCE = Path(anaphora.__file__).parent.parent


TINY = {
    "adding_problem": ("--length 6 --max-sequences 3200 --test-sequences 50", "sequences"),
    "counting": ("--longest 2 --sequences 40 --epochs 3", "largest_n"),
    "signal_echo": ("--delays 0 1 --window 5 --max-steps 60", 1),
    "temporal_order": ("--length 10 --max-sequences 1600 --test-sequences 50", "accuracy"),
}
"""Examples that return what they have measured: their arguments, and one of the names of it."""


def run(name: str, *arguments: object) -> str:
    """What an example prints."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested():
    tested = {"language_model.py", "new_cell.py", *(f"{name}.py" for name in TINY)}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_language_model(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("A word that refers back to what was said before.\n" * 40, encoding="utf-8")
    sizes = ("--hidden-size", 16, "--batch-size", 4, "--window", 16, "--epochs", 4)
    printed = run("language_model.py", text, "--cell", "gru", "--learning-rate", 0.02, *sizes)
    lines = [line for line in printed.splitlines() if line.startswith("epoch ")]
    losses = [float(line.split("validation loss ")[1].split(",")[0]) for line in lines]
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 0.5
    sample = printed.partition(lines[-1] + "\n")[2]
    assert len(sample) == 301  # and the line end


def test_new_cell():
    printed = run("new_cell.py", "--steps", 10, "--length", 6, "--hidden-size", 3)
    assert "cell forgetful: gates f n; state h" in printed
    assert "    h' = t1 + t3\n" in printed
    assert printed.count("mean squared error") == 10  # five lines a cell
    trace = [line for line in printed.splitlines() if "  f = " in line]
    assert len(trace) == 6
    assert sum(" * " in line for line in trace) == 2
    assert "wanted" in printed.splitlines()[-1]


@pytest.mark.parametrize("name", TINY)
def test_an_example_returns_what_it_prints(name, capsys):
    arguments, key = TINY[name]
    found = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](arguments.split())
    assert key in found
    printed = capsys.readouterr().out.splitlines()[-1]
    values = found[key].values() if isinstance(found[key], dict) else [found[key]]
    for value in values:
        assert any(text in printed for text in (f"{value:,}", f"{value:.2%}"))
