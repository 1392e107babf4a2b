"""`anaphora train --find-learning-rate`: it prints and draws, and trains nothing."""

import importlib.util
import json

import pytest
from typer.testing import CliRunner

from anaphora.cli.app import app
from anaphora.training import (
    LANGUAGE_MODEL,
    LanguageModelOptions,
    find_learning_rate,
    prepare_training,
)

SMALL = {"hidden_size": 6, "window": 8, "batch_size": 2, "minimum_count": 1, "max_steps": 5}
OPTIONS = [word for n, v in SMALL.items() for word in (f"--{n.replace('_', '-')}", str(v))]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not to be that is the question\n" * 20)
    return tmp_path


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_it_suggests_what_python_suggests_and_the_training_may_follow(folder):
    pytest.importorskip("matplotlib")
    out, err = run("train", "text.txt", *OPTIONS, "--find-learning-rate", "--out", "m", "--json")
    (record,) = [json.loads(line) for line in out.splitlines()]
    options = LanguageModelOptions.make(**SMALL)
    trainer = prepare_training(LANGUAGE_MODEL, options, folder / "p", [folder / "text.txt"])
    sweep = find_learning_rate(trainer, progress=False)
    assert record["suggestion"] == sweep.suggestion
    assert record["losses"] == sweep.losses.tolist()
    assert f"try: --learning-rate {sweep.suggestion:.2g}\n" in err
    assert [path.name for path in (folder / "m").iterdir()] == ["learning-rate.png"]
    assert (folder / "m" / "learning-rate.png").read_bytes()[:4] == b"\x89PNG"
    run("train", "text.txt", *OPTIONS, "--out", "m")  # which needs no --overwrite
    assert (folder / "m" / "model.safetensors").exists()


def test_a_model_stays_as_it_is(folder):
    run("train", "text.txt", *OPTIONS, "--out", "m")
    before = files(folder / "m")
    arguments = ("--window", "8", "--batch-size", "2", "--from", "m")
    out, _ = run("train", "text.txt", *arguments, "--find-learning-rate", "--out", "m")
    assert "starting from m, which knows 14 of 14 tokens" in out
    after = files(folder / "m")
    assert {path.name for path in after.keys() - before.keys()} <= {"learning-rate.png"}
    assert {path: after[path] for path in before} == before
    run("train", "--resume", "--max-steps", "6", "--out", "m")


def test_a_table_without_matplotlib(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else find(name)
    )
    out, _ = run("train", "text.txt", *OPTIONS, "--find-learning-rate", "--out", "m")
    lines = out.splitlines()
    first = lines.index("learning rate  loss") + 1
    rates = [float(line.split()[0]) for line in lines[first : first + 15]]
    assert rates == sorted(rates)
    assert rates[0] == 1e-6
    assert 'pip install "anaphora[plot]"' in out
    assert not (folder / "m").exists()


def test_misuse(folder):
    _, err = run("train", "--resume", "--find-learning-rate", code=2)
    assert "and --find-learning-rate" in err
    _, err = run("train", "text.txt", "--find-learning-rate", "--hidden-size", "0", code=2)
    assert "hidden_size must be an integer of at least 1" in err
    _, err = run("train", "gone.txt", "--find-learning-rate", "--out", "m", code=1)
    assert "gone.txt" in err
    assert not (folder / "m").exists()
