"""`anaphora train --from MODEL`: options, messages, and what the other commands make of it."""

import json

import pytest
from typer.testing import CliRunner

from anaphora.cli.app import app

SMALL = ("--max-steps", "6", "--evaluate-every", "3", "--batch-size", "2", "--json")
TEXT = ("--window", "8")


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not to be that is the question\n" * 20)
    (tmp_path / "new.txt").write_text("to be Xor notZ\n" * 20)
    (tmp_path / "table.tsv").write_text("text\tlabel\n" + "to be\tlow\nor not\thigh\n" * 20)
    run("train", "text.txt", "--out", "m", "--hidden-size", "6", "--minimum-count", "1",
        *SMALL, *TEXT)  # fmt: skip
    return tmp_path / "m"


def config(out):
    with open(f"{out}/config.json") as file:
        return json.load(file)


def test_a_vocabulary_that_grows(model):
    arguments = ("train", "new.txt", "--from", "m", *SMALL, *TEXT, "--out", "n")
    _, err = run(*arguments, code=1)
    assert "'X'" in err
    assert "or extend the vocabulary of m (--extend-vocabulary)" in err
    out, err = run(*arguments, "--extend-vocabulary", "--minimum-count", "1", "--freeze", "rec*",
                   "--freeze", "embedding.*", "--discriminative-factor", "2.6")  # fmt: skip
    assert "starting from m, which knows 14 of 16 tokens" in err
    assert json.loads(out.splitlines()[-1])["step"] == 6
    made = config("n")
    assert made["from"]["path"] == "m"
    assert made["from"]["vocabulary"] == "extend"
    assert made["training"]["freeze"] == ["rec*", "embedding.*"]
    assert made["model"]["hidden_size"] == 6
    out, _ = run("info", "n")
    assert "\nfrom\n  path        m\n  task        language-model\n  vocabulary  extend\n" in out
    assert "discriminative_factor  2.6" in out
    assert "\nfrom\n" not in run("info", "m")[0]
    out, _ = run("train", "--resume", "--out", "n", "--max-steps", "8", "--json")
    assert json.loads(out.splitlines()[-1])["step"] == 8
    run("generate", "n", "--prompt", "X", "--length", "3")


def test_a_classifier_of_a_language_model(model):
    columns = ("--column", "text", "--label-column", "label")
    run("train", "table.tsv", "--task", "classify", "--from", "m", *columns, *SMALL, "--out", "c",
        "--gradual-unfreezing")  # fmt: skip
    made = config("c")
    assert made["from"]["task"] == "language-model"
    assert made["model"]["bidirectional"] is False
    assert made["training"]["gradual_unfreezing"] is True
    assert made["training"]["learning_rate"] == 0.004  # the task's own
    out, _ = run("predict", "c", stdin="to be\n")
    assert out in ("low\n", "high\n")
    out, _ = run("evaluate", "c", "table.tsv", "--json")
    assert 0 <= json.loads(out)["accuracy"] <= 1
    # And on from there, with the same classes.
    run("train", "table.tsv", "--task", "classify", "--from", "c", *columns, *SMALL, "--out", "d")
    assert config("d")["from"]["task"] == "classify"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--extend-vocabulary"],
            "--extend-vocabulary is only for training that starts from a model",
        ),
        (
            ["--new-vocabulary"],
            "--new-vocabulary is only for training that starts from a model: give",
        ),
        (
            ["--from", "m", "--new-vocabulary", "--extend-vocabulary"],
            "vocabulary exclude each other",
        ),
        (["--from", "m", "--hidden-size", "7"], "hidden_size 7 would change the shape of the wei"),
        (["--from", "m", "--resume"], "omit FILE, --task, --valid, --preset, --overwrite, --from"),
        (["--freeze", "embed.*"], "no parameter is named 'embed.*'; expected embedding.weight"),
    ],
)
def test_misuse(model, arguments, message):
    _, err = run("train", "text.txt", *arguments, "--out", "n", *SMALL, *TEXT, code=2)
    assert message in err


def test_a_model_that_is_not_there(model):
    _, err = run("train", "text.txt", "--from", "gone", "--out", "n", code=1)
    assert "gone: no such folder" in err


def test_a_damaged_origin_is_named(model):
    run("train", "text.txt", "--from", "m", *SMALL, *TEXT, "--out", "n")
    made = config("n")
    made["from"]["weights"] = 5
    with open("n/config.json", "w") as file:
        json.dump(made, file)
    _, err = run("evaluate", "n", "text.txt", code=1)
    assert "from.weights is 5; expected str" in err
