"""`anaphora train --cell FILE.py:NAME`: a cell of one's own, also without its file."""

import json

import pytest
from typer.testing import CliRunner

from anaphora.artifact import ModelDirectory
from anaphora.cells import Cell, cell
from anaphora.cli.app import app
from anaphora.equations import sigmoid, tanh
from anaphora.training import TASKS

CELLS = """
import pathlib
import beside
from anaphora.cells import cell
from anaphora.equations import minimum, sigmoid, tanh

@cell(gates="f n", state="h", parameters="p")
def forgetful(f, n, h, p):
    f = sigmoid(f + p * h)
    return f * h + beside.ONE * (1 - f) * tanh(n)

@cell(gates="f", state="h", fused=False)
def loose(f, h):
    return tanh(f)

@cell(gates="f", state="h")
def endless(f, h):
    return minimum(tanh(f), float("inf"))

def plain(f, h):
    return f

with pathlib.Path("ran").open("a") as file:
    file.write("x")
"""
SMALL = ("--hidden-size", "6", "--max-steps", "12", "--evaluate-every", "6", "--batch-size", "2")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.py").write_text(CELLS)
    (tmp_path / "beside.py").write_text("ONE = 0.5 + 0.5\n")
    (tmp_path / "text.txt").write_text("to be or not to be that is the question\n" * 20)
    (tmp_path / "table.tsv").write_text("text\tlabel\n" + "oh ah\tlow\nhm hm\thigh\n" * 20)
    return tmp_path


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


def runs(folder):
    return len((folder / "ran").read_text())


def test_a_language_model_without_the_file(folder):
    window = ("--window", "8", "--minimum-count", "1")
    run("train", "text.txt", "--cell", "cells.py:forgetful", *SMALL, *window, "--out", "m")
    assert runs(folder) == 1
    program = json.loads((folder / "m" / "config.json").read_text())["model"]["cell"]
    assert program["gates"] == ["f", "n"]
    assert program["parameters"] == ["p"]
    for name in ("cells.py", "beside.py"):
        (folder / name).unlink()
    out, _ = run("info", "m")
    lines = [line.strip() for line in out.splitlines()]
    assert "cell                forgetful: gates f n; state h; parameters p" in lines
    assert "f' = sigmoid(t2)" in lines
    assert "return h: h'" in lines
    assert "instructions" not in out
    assert json.loads(run("info", "m", "--json")[0])["model"]["cell"] == program
    run("generate", "m", "--prompt", "to", "--length", "5")
    out, _ = run("evaluate", "m", "text.txt", "--json")
    assert 0 < json.loads(out)["loss"] < 10
    pytest.importorskip("matplotlib")
    out, _ = run("plot", "m", "--text", "to be", "--picture", "gates", "--value", "f_l0", "--json")
    assert json.loads(out)["value"] == "f_l0"
    out, _ = run("train", "--resume", "--max-steps", "14", "--out", "m", "--json")
    assert [json.loads(line) for line in out.splitlines()][-1]["step"] == 14
    assert runs(folder) == 1


def test_a_classifier_without_the_file(folder):
    columns = ("--column", "text", "--label-column", "label", "--minimum-count", "1")
    run(
        "train", "table.tsv", "--task", "classify", *columns, *SMALL, "--out", "m",
        "--cell", folder / "cells.py:forgetful",
    )  # fmt: skip
    (folder / "cells.py").unlink()
    out, _ = run("evaluate", "m", "table.tsv", "--json")
    assert 0 <= json.loads(out)["accuracy"] <= 1
    out, _ = run("predict", "m", stdin="oh ah\n")
    assert out in ("low\n", "high\n")
    names = ModelDirectory.open(folder / "m").load()[2]
    assert names["recurrent.weight_ih_l0"].shape[0] == 2 * 6  # two gates
    assert "recurrent.p_l0" in names


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("gone.py:forgetful", "gone.py: no such file; give a custom cell as FILE.py:NAME"),
        ("cells.py:lost", "cells.py: has no cell 'lost'; its cells are forgetful, loose, endless"),
        ("cells.py:plain", "cells.py: plain is a function, not a cell (decorate it with @cell of"),
        ("cells.py:beside", "cells.py: beside is a module, not a cell; its cells are"),
        ("cells.py:loose", "cell 'loose' was declared with fused=False: it has no program; a mode"),
        ("cells.py:endless", "cell 'endless' has the constant inf, which cannot be saved; a mod"),
        ("cells.py:", "'' is not a valid name; give FILE.py:NAME"),
        ("cells.py", "cell 'cells.py' names only a file; give FILE.py:NAME"),
        ("lsmt", "cell 'lsmt' is not one of rnn, "),
        ("failing.py:x", "failing.py, line 2: running it failed with ZeroDivisionError: division"),
        ("leaving.py:x", "leaving.py, line 1: running it failed with SystemExit: 3"),
        ("wrong.py:x", "wrong.py, line 1: running it failed with SyntaxError: "),
        ("untraced.py:bad", "failed with EquationError: cell 'bad': numpy.sin is not in a cell's"),
    ],
)  # fmt: skip
def test_what_is_no_cell_is_named_before_files_are_read(folder, cell, message):
    (folder / "failing.py").write_text("x = 1\ny = x / 0\n")
    (folder / "leaving.py").write_text("raise SystemExit(3)\n")
    (folder / "wrong.py").write_text("def x(:\n")
    (folder / "untraced.py").write_text(
        "import numpy\nfrom anaphora.cells import cell\n"
        "@cell(gates='f', state='h')\ndef bad(f, h):\n    return numpy.sin(f)\n"
    )
    _, err = run("train", "no-such-text.txt", "--cell", cell, "--out", "m", code=2)
    assert message in err
    assert not (folder / "m").exists()


def test_python_files_in_hidden_places_are_not_run(folder):
    """A name in config.json is never looked up as a file."""
    run("train", "text.txt", *SMALL, "--window", "8", "--out", "m")
    config = json.loads((folder / "m" / "config.json").read_text())
    config["model"]["cell"] = "cells.py:forgetful"
    (folder / "m" / "config.json").write_text(json.dumps(config))
    _, err = run("info", "m", code=1)
    assert "model.cell 'cells.py:forgetful' is not one of rnn, " in err
    assert not (folder / "ran").exists()


def test_every_task_takes_a_cell_of_ones_own():
    @cell(gates="f n", state="h")
    def mine(f, n, h):
        f = sigmoid(f)
        return f * h + (1 - f) * tanh(n)

    for task in TASKS.values():
        options = task.options.make(cell=mine, max_steps=1)
        config = json.loads(json.dumps(options.to_config()))
        again = task.options.from_config(config)
        assert isinstance(again.cell, Cell)
        assert again.cell.program == mine.program
        assert float(again.cell(0.3, 0.2, 0.7)) == float(mine(0.3, 0.2, 0.7)) != 0
