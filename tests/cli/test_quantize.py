"""`--weights` and `anaphora quantize`: what commands compute with, and what they refuse."""

import itertools
import json
import math
import shutil

import numpy as np
import pytest
from tests.cli.conftest import SMALL, TEXT, write_task
from typer.testing import CliRunner

import anaphora
from anaphora.artifact import ModelDirectory
from anaphora.cli.app import app
from anaphora.generation import Sampler, generate, score
from anaphora.training import TASKS, evaluate, task_of

INT8 = ("--weights", "int8")
FLOAT32 = ("--weights", "float32")
LINE = "Beginning each clause"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and a language model: as trained, and quantized."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "text.txt").write_text(TEXT)
    (folder / "lines.txt").write_text(f"{LINE}\nIt is what\n")
    for name, options in (("plain", ()), ("double", ("--dtype", "float64"))):
        run(
            "train", folder / "text.txt", "--out", folder / name, *SMALL, "--max-steps", "60",
            "--log-every", "10", *options,
        )  # fmt: skip
    out, err = run("quantize", folder / "plain", folder / "small", "--json")
    sizes = [(folder / n / "model.safetensors").stat().st_size for n in ("plain", "small")]
    assert json.loads(out) == {
        "out": str(folder / "small"), "bytes": sizes[1], "bytes_before": sizes[0],
    }  # fmt: skip
    assert "MB of weights instead of" in err
    return folder


def output(command, model, *arguments):
    out, _ = run(command, model, *arguments, "--json")
    return [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in out.splitlines()
    ]


def test_an_evaluation_is_of_the_weights_that_are_asked_for(folder):
    plain, small, text = folder / "plain", folder / "small", folder / "text.txt"
    task = task_of(plain)
    losses = {}
    for weights in ("float32", "int8"):
        model = task.load(plain, weights)
        data = task.evaluation(task.load_options(plain), model, [text], None)
        losses[weights] = evaluate(model, data.batches).loss
    ((by_default,), (asked,)) = (
        output("evaluate", plain, text),
        output("evaluate", plain, text, *INT8),
    )
    assert by_default["loss"] == losses["float32"]
    assert asked["loss"] == losses["int8"]
    assert 0 < abs(losses["int8"] - losses["float32"]) < 0.1
    assert output("evaluate", small, text) == output("evaluate", small, text, *INT8) == [asked]
    (rounded,) = output("evaluate", small, text, *FLOAT32)
    assert rounded["loss"] not in losses.values()
    (cached,) = output("evaluate", small, text, "--cache")
    assert cached == output("evaluate", plain, text, "--cache", *INT8)[0]
    assert cached != output("evaluate", plain, text, "--cache")[0]


def test_an_evaluation_gives_what_a_session_says_token_by_token(folder):
    model = anaphora.load(folder / "small")
    ids = [int(id) for id in model.codec.encode(TEXT)]
    session, losses = model.session(), []
    for before, after in itertools.pairwise(ids):
        scores = session.feed(before).astype(np.float64)
        losses.append(np.log(np.exp(scores - scores.max()).sum()) - (scores[after] - scores.max()))
    (result,) = output("evaluate", folder / "small", folder / "text.txt")
    assert result["tokens"] == len(losses)
    np.testing.assert_allclose(result["loss"], math.fsum(losses) / len(losses), rtol=1e-6)
    (other,) = output("evaluate", folder / "plain", folder / "text.txt")
    assert abs(result["loss"] - other["loss"]) > 3e-6 * other["loss"]


def test_texts_are_generated_and_scored_with_them(folder):
    place = ("--length", "150", "--seed", "3", "--prompt", LINE)
    texts = {}
    for weights in ("float32", "int8"):
        model = anaphora.load(folder / "plain", weights)
        texts[weights] = "".join(generate(model, model.codec, LINE, 150, Sampler(seed=3)))
        (found,) = output("generate", folder / "plain", *place, "--weights", weights)
        assert found["text"] == texts[weights]
        scores = list(score(model, model.codec, [LINE, "It is what"]))
        found = output("score", folder / "plain", folder / "lines.txt", "--weights", weights)
        for one, expected in zip(found, scores, strict=True):
            np.testing.assert_array_equal(one["log_probabilities"], expected.log_probabilities)
    assert output("generate", folder / "small", *place) == [
        {"text": texts["int8"], "prompt": LINE, "seed": 3}
    ]
    next_of = [
        output("generate", model, "--next", "3", *options)
        for model, options in (
            (folder / "plain", INT8), (folder / "small", ()), (folder / "plain", ()),
        )
    ]  # fmt: skip
    assert next_of[0] == next_of[1] != next_of[2]
    scored = [
        output("score", model, folder / "lines.txt", *options)
        for model, options in (
            (folder / "plain", INT8), (folder / "small", ()), (folder / "plain", ()),
        )
    ]  # fmt: skip
    assert scored[0] == scored[1] != scored[2]


@pytest.mark.parametrize("name", ["classify", "regress", "tag", "translate", "forecast"])
def test_every_task(name, tmp_path):
    path, options = write_task(name, tmp_path)
    model, small = tmp_path / "model", tmp_path / "small"
    run(
        "train", path, "--task", name, "--out", model, "--hidden-size", "8", "--batch-size", "8",
        "--max-steps", "5", *options,
    )  # fmt: skip
    run("quantize", model, small)
    inputs = tmp_path / "inputs.txt"
    inputs.write_text("so x1 it2\n")
    for command, given in (("evaluate", path), ("predict", path if name == "forecast" else inputs)):
        by_default, asked = output(command, model, given), output(command, model, given, *INT8)
        assert output(command, model, given, *FLOAT32) == by_default != asked
        assert output(command, small, given) == asked


def test_a_quantized_directory_is_shown_and_plotted(folder, tmp_path):
    out, _ = run("info", folder / "small")
    assert "MB on disk, weights in 8 bits" in out
    assert ", at step 60, before it was quantized" in out
    assert "has no checkpoint" in out
    plain, small = (output("info", folder / name)[0] for name in ("plain", "small"))
    assert (small["weights"], small["format"]) == ("int8", 3)
    for entry in ("parameters", "parameter_count", "model", "text", "training", "results"):
        assert small.get(entry) == plain.get(entry), entry
    records = [ModelDirectory.open(folder / name).read_metrics() for name in ("plain", "small")]
    assert records[0] == records[1] != []
    pytest.importorskip("matplotlib")
    made = output("plot", folder / "small", "--text", LINE, "--out", tmp_path)[0]
    assert set(made["files"]) == {"losses", "embeddings", "states", "gates", "text"}


def test_it_is_not_trained_further(folder, tmp_path):
    text, small = folder / "text.txt", tmp_path / "small"
    shutil.copytree(folder / "small", small)
    message = "its weights have 8 bits, which cannot be trained; train the model that it was quant"
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    _, err = run("train", "--resume", "--out", small, code=1)
    assert message in err
    _, err = run("train", text, "--from", small, "--out", tmp_path / "tuned", code=1)
    assert message in err
    assert not (tmp_path / "tuned").exists()
    _, err = run("train", text, "--out", small, *SMALL, "--max-steps", "2", code=1)
    assert "already holds a model" in err
    _, err = run("evaluate", small, text, "--dynamic-evaluation", "0.1", code=2)
    assert f"dynamic_evaluation: {message}" in err
    assert before == {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}


def test_a_model_can_start_from_the_rounded_weights(folder, tmp_path):
    model = anaphora.load(folder / "small", weights="float32")
    model.save(tmp_path / "rounded", **model.config)
    run(
        "train", folder / "text.txt", "--from", tmp_path / "rounded", "--out", tmp_path / "tuned",
        "--max-steps", "2", "--batch-size", "2", "--window", "8",
    )  # fmt: skip
    assert anaphora.load(tmp_path / "tuned").weights == "float32"


def test_what_is_refused(folder, tmp_path):
    text = folder / "text.txt"
    _, err = run("evaluate", folder / "plain", text, "--weights", "int4", code=2)
    assert "'int4'" in err
    assert "int8" in err
    double = ("evaluate", "generate", "score", "plot")
    for command in double:
        given = (text,) if command in ("evaluate", "score") else ()
        _, err = run(command, folder / "double", *given, *INT8, code=2)
        assert "weights='int8' for layers of float64; 8 bits stand for float32" in err, command
    _, err = run("serve", folder / "plain", folder / "double", *INT8, code=2)
    assert "weights='int8' for layers of float64" in err
    message = "--matmul-precision bfloat16 cannot be combined with --weights int8, the default of a"
    bfloat16 = ("--matmul-precision", "bfloat16")
    for arguments in (
        ("evaluate", folder / "plain", text, *INT8),
        ("evaluate", folder / "small", text),
        ("generate", folder / "small"),
        ("score", folder / "small", text),
        ("plot", folder / "small"),
        ("serve", folder / "plain", folder / "small"),
    ):
        _, err = run(*arguments, *bfloat16, code=2)
        assert message in err, arguments
    run("evaluate", folder / "small", text, *bfloat16, *FLOAT32)
    for arguments, message in (
        ((folder / "plain", folder / "plain"), "plain: is the directory to quantize; choose anoth"),
        ((folder / "small", tmp_path / "new"), "small: is quantized already"),
        ((folder / "double", tmp_path / "new"), "double: its weights are float64"),
        ((folder / "plain", folder / "small"), "small: already holds a model; choose another fold"),
        ((folder / "none", tmp_path / "new"), "none: no such folder"),
    ):
        _, err = run("quantize", *arguments, code=1)
        assert message in err
        assert not (tmp_path / "new").exists()
    run("quantize", folder / "plain", tmp_path / "new")
    run("quantize", folder / "plain", tmp_path / "new", "--overwrite")


def test_every_command_that_uses_a_model_has_it():
    for name in ("evaluate", "predict", "generate", "score", "serve", "plot"):
        out, _ = run(name, "--help", "all")
        assert "--weights" in out, name
    assert set(TASKS) == {"language-model", "classify", "regress", "tag", "translate", "forecast"}


def test_a_server_says_which_models_have_8_bits(folder, monkeypatch):
    pytest.importorskip("starlette")
    served = []
    monkeypatch.setattr("anaphora.serve.run", lambda server, listening: served.append(server))
    for options, shown in (
        ((), "serving plain, small (weights in 8 bits) at http"),
        (INT8, "serving plain (weights in 8 bits), small (weights in 8 bits) at http"),
        (FLOAT32, "serving plain, small at http"),
    ):
        out, _ = run("serve", folder / "plain", folder / "small", "--port", "0", *options)
        assert shown in out
    assert len(served) == 3
