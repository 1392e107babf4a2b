"""`anaphora score` on real text: what it prints, and where."""

import json
import math

import numpy as np
import pytest

from anaphora.data import cover
from anaphora.generation import score
from anaphora.models import LanguageModel
from anaphora.training import evaluate

LINES = ["A word with a state.", "", "It is what it was, and what a network does, step by step."]


@pytest.fixture
def lines(trained):
    path = trained.folder / "lines.txt"
    path.write_text("".join(line + "\n" for line in LINES))
    return path


def test_lines_and_their_log_probabilities(trained, lines):
    out, err = trained.run("score", "model", "lines.txt")
    assert err == ""
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[2] for row in rows] == LINES
    model = LanguageModel.load(trained.folder / "model")
    tokenizer = model.codec
    for (shown, perplexity, text), found in zip(rows, score(model, tokenizer, LINES), strict=True):
        assert shown == f"{found.log_probability:.4f}"
        assert perplexity == f"{found.perplexity:.4g}"
        ids = tokenizer.encode("\n" + text + "\n")
        expected = evaluate(model, cover(np.array(ids), batch_size=1, window=9))
        assert float(shown) == pytest.approx(-expected.loss * expected.tokens, abs=1e-3)


def test_json_has_all_tokens_and_the_same_values_from_standard_input(trained, lines):
    out, err = trained.run("score", "model", "lines.txt", "--json", "--batch-size", "1")
    assert err == ""
    records = [json.loads(line) for line in out.splitlines()]
    assert list(records[0]) == ["text", "tokens", "log_probabilities", "sum", "perplexity"]
    for record, line in zip(records, LINES, strict=True):
        assert record["text"] == line
        assert "".join(record["tokens"]) == line + "\n"
        assert sum(record["log_probabilities"]) == pytest.approx(record["sum"], rel=1e-12)
        mean = record["sum"] / len(record["tokens"])
        assert record["perplexity"] == pytest.approx(math.exp(-mean), rel=1e-12)
    again, _ = trained.run("score", "model", "--json", stdin=lines.read_text())
    assert again == out


def test_tokens_one_a_line(trained, lines):
    out, _ = trained.run("score", "model", "lines.txt", "--tokens")
    blocks = out.removesuffix("\n\n").split("\n\n")
    shown = [[row.split("\t") for row in block.split("\n")] for block in blocks]
    assert ["".join(row[1] for row in block[:-1]) for block in shown] == LINES
    assert all(block[-1][1] == "<eos>" for block in shown)
    plain, _ = trained.run("score", "model", "lines.txt")
    for block, line in zip(shown, plain.splitlines(), strict=True):
        total = float(line.split("\t")[0])
        assert sum(float(row[0]) for row in block) == pytest.approx(total, abs=1e-2)


def test_without_the_end_of_the_line(trained, lines):
    out, _ = trained.run("score", "model", "lines.txt", "--json", "--no-end")
    records = [json.loads(line) for line in out.splitlines()]
    assert ["".join(record["tokens"]) for record in records] == LINES
    assert records[1]["sum"] == 0
    assert records[1]["perplexity"] is None


def test_unknown_words_are_reported(command):
    command.train("--level", "word", "--minimum-count", "2", "--max-steps", "2")
    out, err = command.run("score", "model", "--json", stdin="A gnu is\na yak\n")
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["tokens"] == ["A", "<unk>", "is", "<eos>"]
    assert second["tokens"] == ["a", "<unk>", "<eos>"]
    assert (
        "anaphora: standard input: 2 words are not in the vocabulary, and read as unknown: 'gnu', "
        "'yak'; " in err
    )


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["missing"], "a", 1, "missing: no such folder"),
        (["model", "missing.txt"], None, 1, "missing.txt"),
        (["model", "-"], "", 1, "standard input is empty: there is nothing to read"),
        (["model"], "word\nw\u2603rd\n", 1, "standard input, line 2: the character '\u2603'"),
        (["model", "--batch-size", "0"], "a", 2, "--batch-size"),
        (["model", "--encoding", "utf-77"], "a", 2, "utf-77"),
    ],
)
def test_messages(trained, arguments, stdin, code, message):
    out, err = trained.run("score", *arguments, code=code, stdin=stdin)
    assert out == ""
    assert message in err


def test_the_model_of_another_task_is_refused(command):
    (command.folder / "texts.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 20)
    command.run(
        "train", "texts.csv", "--task", "classify", "--column", "text", "--label-column", "label",
        "--max-steps", "2", "--out", "classifier", "--hidden-size", "4",
    )  # fmt: skip
    _, err = command.run("score", "classifier", code=1, stdin="good\n")
    assert "is not a language model, but one for the task classify" in err
