"""`--matmul-precision`: a training records it, other commands have their own."""

import importlib
import json
import math
import shutil

import numpy as np
import pytest
from tests.cli.conftest import SMALL, TEXT, write_task
from typer.testing import CliRunner

from anaphora import engine, matmul_precision
from anaphora.artifact import ModelDirectory, read_weights
from anaphora.cli.app import app
from anaphora.generation import Sampler, generate, score
from anaphora.training import TASKS, evaluate, task_of

BFLOAT16 = ("--matmul-precision", "bfloat16")
FLOAT32 = ("--matmul-precision", "float32")
LINE = "Beginning each clause"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert engine.current_matmul_precision() == "float32"  # it ends with the command
    return result.stdout, result.stderr


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Whatever runs the tests multiplies bfloat16 fast, so that no command says otherwise."""
    found = engine.info()
    monkeypatch.setattr(engine, "info", lambda: {**found, "bfloat16": "tiles"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and the models of trainings in both precisions."""
    folder = tmp_path_factory.mktemp("precision")
    (folder / "text.txt").write_text(TEXT)
    for name, options in (
        ("plain", ()),
        ("bfloat16", BFLOAT16),
        ("double", ("--dtype", "float64")),
    ):
        out, _ = run(
            "train", folder / "text.txt", "--out", folder / name, *SMALL, "--max-steps", "60",
            *options,
        )  # fmt: skip
        assert ("; matrix products in bfloat16" in out) == (name == "bfloat16")
    return folder


def recorded(model):
    return ModelDirectory.open(model).load_config()["training"]["matmul_precision"]


def test_a_training_records_it(folder):
    precisions = {name: recorded(folder / name) for name in ("plain", "bfloat16", "double")}
    assert precisions == {"plain": "float32", "bfloat16": "bfloat16", "double": "float32"}
    plain, rounded = (
        read_weights(folder / name / "model.safetensors")[0] for name in ("plain", "bfloat16")
    )
    assert any((plain[name] != array).any() for name, array in rounded.items())
    out, _ = run("info", folder / "bfloat16")
    assert ["matmul_precision", "bfloat16"] in [line.split() for line in out.splitlines()]


def test_a_resumed_training_keeps_it(folder, tmp_path):
    shutil.copytree(folder / "bfloat16", tmp_path / "model")
    run("train", "--resume", "--out", tmp_path / "model", "--max-steps", "70")
    assert recorded(tmp_path / "model") == "bfloat16"
    _, err = run("train", "--resume", "--out", tmp_path / "model", *FLOAT32, code=2)
    assert "matmul_precision: cannot change when a training is resumed" in err


def evaluated(model, *options):
    out, err = run("evaluate", model, model.parent / "text.txt", "--json", *options)
    assert err == ""
    return json.loads(out)["loss"]


def test_evaluations_are_in_float32_unless_asked(folder):
    for name in ("plain", "bfloat16"):
        model, task = folder / name, task_of(folder / name)
        losses = {}
        for precision in ("float32", "bfloat16"):
            data = task.evaluation(
                task.load_options(model), task.load(model), [folder / "text.txt"], None
            )
            with matmul_precision(precision):
                losses[precision] = evaluate(task.load(model), data.batches).loss
        assert evaluated(model) == evaluated(model, *FLOAT32) == losses["float32"]
        assert evaluated(model, *BFLOAT16) == losses["bfloat16"]
        assert 0 < abs(losses["bfloat16"] - losses["float32"]) < 0.01


def test_texts_are_generated_and_scored_in_it(folder):
    model = task_of(folder / "plain").load(folder / "plain")
    place = ("--length", "120", "--seed", "3", "--json", "--prompt", LINE)
    for precision, options in (("float32", ()), ("bfloat16", BFLOAT16)):
        with matmul_precision(precision):
            text = "".join(generate(model, model.codec, LINE, 120, Sampler(seed=3)))
            (scored,) = score(model, model.codec, [LINE])
        out, _ = run("generate", folder / "plain", *place, *options)
        assert json.loads(out)["text"] == text
        out, _ = run("generate", folder / "plain", "--next", "3", *place[4:], *options)
        (folder / "lines.txt").write_text(f"{LINE}\n")
        out, _ = run("score", folder / "plain", folder / "lines.txt", "--json", *options)
        np.testing.assert_array_equal(
            json.loads(out)["log_probabilities"], scored.log_probabilities
        )


@pytest.mark.parametrize("name", ["classify", "regress", "tag", "translate", "forecast"])
def test_every_task(name, tmp_path):
    path, options = write_task(name, tmp_path)
    model = tmp_path / "model"
    run(
        "train", path, "--task", name, "--out", model, "--hidden-size", "8", "--batch-size", "8",
        "--max-steps", "5", *options, *BFLOAT16,
    )  # fmt: skip
    assert recorded(model) == "bfloat16"
    found = []
    for precision in ((), FLOAT32, BFLOAT16):
        out, _ = run("evaluate", model, path, "--json", *precision)
        found.append(json.loads(out)["loss"])
        assert math.isfinite(found[-1])
    assert found[0] == found[1] != found[2]
    inputs = tmp_path / "inputs.txt"
    inputs.write_text("so x1 it2\n")
    given = path if name == "forecast" else inputs
    answers = [run("predict", model, given, "--json", *p)[0] for p in ((), FLOAT32, BFLOAT16)]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_pictures_and_servers_compute_in_it(folder, monkeypatch):
    used = []

    def stop(*arguments, **options):
        used.append(engine.current_matmul_precision())
        raise MemoryError

    pytest.importorskip("matplotlib")
    pytest.importorskip("starlette")
    monkeypatch.setattr(importlib.import_module("anaphora.cli.plot"), "read", stop)
    monkeypatch.setattr("anaphora.serve.Server", lambda *arguments, **options: stop())
    for command in (("plot", "--text", "the same"), ("serve",)):
        for options in (FLOAT32, BFLOAT16):
            _, err = run(command[0], folder / "plain", *command[1:], *options, code=1)
            assert "out of memory" in err
    assert used == ["float32", "bfloat16"] * 2


def test_what_is_refused(folder):
    text = folder / "text.txt"
    out = ("--out", folder / "never")
    message = "matmul_precision 'bfloat16' is for models of float32, not of float64"
    for arguments in (
        ("train", text, *out, "--dtype", "float64"),
        ("evaluate", folder / "double", text),
        ("generate", folder / "double"),
        ("score", folder / "double", text),
        # An address that is not this machine's: it never serves.
        ("serve", folder / "plain", folder / "double", "--host", "203.0.113.1"),
    ):
        _, err = run(*arguments, *BFLOAT16, code=2)
        assert message in err, arguments
    for arguments in (("train", text, *out), ("evaluate", folder / "plain", text)):
        _, err = run(*arguments, "--matmul-precision", "bf16", code=2)
        assert "'bf16'" in err
        assert "bfloat16" in err
    assert not (folder / "never").exists()


def test_every_command_that_computes_has_it():
    for name in ("train", "evaluate", "predict", "generate", "score", "serve", "plot"):
        out, _ = run(name, "--help", "all")
        assert "--matmul-precision" in out, name
    assert set(TASKS) == {"language-model", "classify", "regress", "tag", "translate", "forecast"}


def test_it_is_said_where_it_is_slower(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "info", lambda: {"bfloat16": "vectors"})
    sentence = "matrix products in bfloat16 are slower than in float32 here"
    text = folder / "text.txt"
    _, err = run("evaluate", folder / "plain", text, "--json", *BFLOAT16)
    assert err.count(sentence) == 1
    _, err = run("evaluate", folder / "plain", text, "--json")
    assert err == ""
    out, err = run(
        "train", text, "--out", tmp_path / "m", *SMALL, "--max-steps", "20", "--evaluate-every",
        "5", *BFLOAT16,
    )  # fmt: skip
    assert (out + err).count(sentence) == 1
