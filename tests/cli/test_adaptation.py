"""`anaphora evaluate` with a model that adapts, and `predict` without repetitions."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora.cli.app import app
from anaphora.data import cover
from anaphora.models import load
from anaphora.training import cache_evaluation, dynamic_evaluation, evaluate

TEXT = "to be or not to be that is the question\n" * 8


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptive")
    (folder / "text.txt").write_text(TEXT * 3)
    (folder / "other.txt").write_text(TEXT[::-1])
    run("train", folder / "text.txt", "--out", folder / "m", "--hidden-size", "8", "--window", "8",
        "--batch-size", "2", "--minimum-count", "1", "--max-steps", "30")  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("options", "evaluated"),
    [
        ((), lambda model, ids: evaluate(model, cover(ids, 1, 100))),
        (("--cache",), lambda model, ids: cache_evaluation(model, cover(ids, 1, 100))),
        (
            ("--cache", "--cache-window", "30", "--cache-theta", "0.2", "--cache-weight", "0.4"),
            lambda model, ids: cache_evaluation(model, cover(ids, 1, 7), 30, 0.2, 0.4),
        ),
        (
            ("--dynamic-evaluation", "0.3"),
            lambda model, ids: dynamic_evaluation(model, cover(ids, 1, 5), 0.3),
        ),
        (
            ("--dynamic-evaluation", "0.3", "--dynamic-decay", "0.01", "--dynamic-window", "9"),
            lambda model, ids: dynamic_evaluation(model, cover(ids, 1, 9), 0.3, 0.01),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_language_model_adapts_to_the_text(folder, options, evaluated):
    weights = (folder / "m" / "model.safetensors").read_bytes()
    out, _ = run("evaluate", folder / "m", folder / "other.txt", *options, "--json")
    result = json.loads(out)
    model = load(folder / "m")
    expected = evaluated(model, model.codec.encode(TEXT[::-1]))
    assert result["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert result["tokens"] == expected.tokens == len(TEXT) - 1
    assert result["bits_per_character"] == pytest.approx(expected.loss / np.log(2), rel=1e-6)
    assert (folder / "m" / "model.safetensors").read_bytes() == weights
    plain = evaluate(model, cover(model.codec.encode(TEXT[::-1]), 1, 100)).loss
    assert (result["loss"] < plain - 0.01) == bool(options)
    assert f"{result['loss']:.4f} nats" in run("evaluate", folder / "m", folder / "other.txt",
                                               *options)[0]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cache", "--batch-size", "2"), "cache reads the text as one stream, but batch_size is"),
        (("--dynamic-evaluation", "1", "--batch-size", "3"), "dynamic_evaluation reads the text"),
        (("--cache", "--dynamic-evaluation", "1"), "cache and dynamic_evaluation cannot be"),
        (("--cache-theta", "0.5"), "cache_theta is for cache, which is off: give cache too"),
        (("--dynamic-decay", "0.5"), "dynamic_decay is for dynamic_evaluation, which is off"),
        (("--cache", "--cache-weight", "1"), "cache_weight must be >= 0 and < 1, not"),
        (("--cache", "--cache-window", "0"), "cache_window must be an integer of at least 1"),
        (("--dynamic-evaluation", "-1"), "dynamic_evaluation must be finite and >= 0, not -1.0"),
        (("--dynamic-evaluation", "1", "--dynamic-decay", "2"), "dynamic_decay is 2.0; expected 0"),
    ],
)  # fmt: skip
def test_misuse(folder, options, message):
    _, err = run("evaluate", folder / "m", folder / "other.txt", *options, code=2)
    assert message in err


def test_what_adapts_until_it_overflows_is_named(folder):
    arguments = ("--dynamic-evaluation", "1e300")
    _, err = run("evaluate", folder / "m", folder / "other.txt", *arguments, code=1)
    assert "the loss is nan" in err
    assert "or lower the rate of adaptation" in err


def test_the_options_are_for_language_models(folder):
    table = folder / "table.tsv"
    table.write_text("text\tlabel\n" + "oh\tlow\nhm\thigh\n" * 20)
    columns = ("--column", "text", "--label-column", "label")
    run("train", table, "--task", "classify", *columns, "--out", folder / "c", "--max-steps", "1")
    _, err = run("evaluate", folder / "c", table, "--cache", code=2)
    assert "--cache is not for the task classify, only for language-model; omit it" in err


def test_translations_without_repetitions(folder):
    for side, line in (("en", "again"), ("de", "da da da da da da")):
        Path(folder, f"t.{side}").write_text(f"{line}\n" * 30)
    run("train", folder / "t.en", folder / "t.de", "--task", "translate", "--out", folder / "t",
        "--hidden-size", "16", "--minimum-count", "1", "--max-steps", "60", "--batch-size", "4",
        "--dropout", "0", "--learning-rate", "0.01")  # fmt: skip
    out, _ = run("predict", folder / "t", stdin="again\n")
    assert out == "da da da da da da\n"
    out, _ = run("predict", folder / "t", "--no-repeat-ngram", "2", stdin="again\n")
    words = out.split()
    pairs = list(itertools.pairwise(words))
    assert len(set(pairs)) == len(pairs)
    assert words.count("da") <= 3
    _, err = run("predict", folder / "t", "--no-repeat-ngram", "-1", stdin="again\n", code=2)
    assert "no_repeat_ngram must be an integer of at least 0, not -1" in err
