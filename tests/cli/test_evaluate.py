"""`anaphora evaluate` and what trainings are judged by: spans, classes, labels never seen."""

import json
import math
import random
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from anaphora import metrics
from anaphora.artifact import ModelDirectory, read_weights
from anaphora.cli.app import app
from anaphora.data import read_tagged
from anaphora.training import TASKS

SMALL = (
    "--hidden-size", "8", "--batch-size", "4", "--dropout", "0", "--learning-rate", "0.02",
    "--evaluate-every", "20", "--max-steps", "80",
)  # fmt: skip


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def evaluated(*arguments):
    out, err = run("evaluate", *arguments, "--json")
    return json.loads(out), err


def records(model, kind="evaluation"):
    return [r for r in ModelDirectory.open(model).read_metrics() if r["kind"] == kind]


def names(generator, count):
    """Sentences with names of persons (a, b) and places (c, d), all of them in BIO."""
    text = ""
    for _ in range(count):
        for _ in range(generator.randint(2, 5)):
            kind, letters = generator.choice([("PER", "ab"), ("LOC", "cd"), ("", "xyz")])
            for n in range(generator.randint(1, 2)):
                tag = f"{'BI'[n > 0]}-{kind}" if kind else "O"
                text += f"{''.join(generator.choices(letters, k=2))}\t{tag}\n"
        text += "\n"
    return text


@pytest.fixture(scope="module")
def spans(tmp_path_factory):
    """A tagger with a CRF, and the files that it is of."""
    folder, generator = tmp_path_factory.mktemp("spans"), random.Random(4)
    for part, count in (("train", 60), ("valid", 30)):
        (folder / f"{part}.tsv").write_text(names(generator, count))
    out, _ = run(
        "train", folder / "train.tsv", "--valid", folder / "valid.tsv", "--task", "tag", "--crf",
        "--tag-column", "2", *SMALL, "--out", folder / "model",
    )  # fmt: skip
    assert "span F1" in out
    return folder


def test_spans_are_counted_as_conlleval_does(spans):
    found, err = evaluated(spans / "model", spans / "valid.tsv")
    out, _ = run("predict", spans / "model", spans / "valid.tsv", "--json")
    answers = [json.loads(line)["tags"] for line in out.splitlines()]
    right = [tags for _, tags in read_tagged(spans / "valid.tsv")]
    scores = metrics.span_scores(right, answers)
    assert found["span_f1"] == pytest.approx(scores.overall_f1) == pytest.approx(1, abs=0.5)
    assert found["span_precision"] == pytest.approx(scores.overall_precision)
    assert found["span_recall"] == pytest.approx(scores.overall_recall)
    assert found["classes"] == scores.to_dict()
    assert list(found["classes"]) == ["LOC", "PER"]
    assert err == ""
    for tags in answers:  # which a CRF that knows the scheme never breaks
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert tag[0] != "I" or before[1:] == tag[1:]
    out, _ = run("evaluate", spans / "model", spans / "valid.tsv")
    assert f"span F1         {scores.overall_f1:.2%}" in out
    assert str(scores) in out


def test_the_best_by_the_f1_of_spans_is_kept(spans):
    evaluations = records(spans / "model")
    best = max(evaluations, key=lambda r: (r["span_f1"], -r["loss"]))
    results = ModelDirectory.open(spans / "model").load_config()["results"]
    assert (results["step"], results["span_f1"]) == (best["step"], best["span_f1"])
    assert evaluated(spans / "model", spans / "valid.tsv")[0]["span_f1"] == best["span_f1"]


def test_tags_that_training_lacked_count_as_wrong(spans):
    text = (spans / "valid.tsv").read_text()
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.endswith("B-LOC"))
    alike = [line.partition("\t")[0] for line in lines]
    lines[at] = f"{alike[at]}\tB-MISC"
    (spans / "other.tsv").write_text("\n".join(lines) + "\n")
    before, _ = evaluated(spans / "model", spans / "valid.tsv")
    found, err = evaluated(spans / "model", spans / "other.tsv")
    assert found["unknown_labels"] == 1
    assert found["classes"]["MISC"]["support"] == 1
    assert found["classes"]["MISC"]["recall"] == 0
    assert found["tokens"] == before["tokens"]
    assert 0 <= before["accuracy"] - found["accuracy"] <= 1 / found["tokens"] + 1e-9
    assert math.isfinite(found["loss"])
    assert "1 target has a label not seen in training (first in " in err
    assert "other.tsv, " in err
    assert "'B-MISC'; counted as wrong, and excluded from the loss" in err
    out, _ = run("evaluate", spans / "model", spans / "other.tsv")
    assert "unknown labels  1, counted as wrong" in out


def table(path, rows):
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return path


def texts(generator, count, share=0.5):
    for _ in range(count):
        label, letters = ("low", "abc") if generator.random() < share else ("high", "def")
        yield "".join(generator.choices(letters, k=4)), label


COLUMNS = ("--column", "text", "--label-column", "label")


def train_classifier(folder, rows, *more, out="model"):
    file = table(folder / "train.tsv", rows)
    return run("train", file, "--task", "classify", *COLUMNS, *SMALL, "--out", folder / out, *more)[
        0
    ]


def test_labels_that_training_lacked_count_as_wrong(tmp_path):
    generator = random.Random(5)
    train_classifier(tmp_path, texts(generator, 300))
    rows = list(texts(generator, 40))
    known, _ = evaluated(tmp_path / "model", table(tmp_path / "known.tsv", rows))
    mixed = table(tmp_path / "mixed.tsv", [*rows[:20], ("aaa", "odd"), *rows[20:], ("ddd", "even")])
    found, err = evaluated(tmp_path / "model", mixed)
    assert found["unknown_labels"] == 2
    assert found["tokens"] == 42
    assert found["loss"] == pytest.approx(known["loss"])
    assert found["accuracy"] == pytest.approx(known["accuracy"] * 40 / 42)
    assert list(found["classes"]) == ["high", "low", "even", "odd"]
    assert [sum(row) for row in found["confusion_matrix"]][2:] == [1, 1]
    assert [row[2:] for row in found["confusion_matrix"]] == [[0, 0]] * 4
    assert "2 targets have labels not seen in training (first in " in err
    assert "mixed.tsv, row 21" in err or "mixed.tsv, line 22" in err
    _, err = run("evaluate", tmp_path / "model", table(tmp_path / "none.tsv", [("a", "x")]), code=1)
    assert "none.tsv has none of the training labels, which are 'high', 'low'" in err


def test_held_out_examples_are_of_every_class_and_the_most_accurate_weights_are_kept(tmp_path):
    rows = list(texts(random.Random(6), 1000, share=0.1))
    out = train_classifier(tmp_path, rows)
    evaluations = records(tmp_path / "model")
    assert evaluations[0]["tokens"] == 100
    best = max(evaluations, key=lambda r: (r["accuracy"], -r["loss"]))
    results = ModelDirectory.open(tmp_path / "model").load_config()["results"]
    assert (results["step"], results["macro_f1"]) == (best["step"], best["macro_f1"])
    assert "too few" not in out
    rare = sum(label == "low" for _, label in rows)
    validation = ModelDirectory.open(tmp_path / "model").checkpoint.parent
    targets = read_weights(validation / "validation.safetensors")[0]["targets"]
    assert abs(int((targets == 1).sum()) - rare / 10) < 1  # low


def test_with_too_few_to_judge_by_the_last_weights_are_kept_and_it_is_said(tmp_path):
    out = train_classifier(tmp_path, texts(random.Random(7), 100))
    assert "10 validation targets are too few to select the best weights by accuracy" in out
    results = ModelDirectory.open(tmp_path / "model").load_config()["results"]
    assert results["step"] == 80


def test_balanced_class_weights_find_rare_classes_and_go_on_bit_for_bit(tmp_path):
    """Where texts tell nothing, the most frequent class is the answer, or either."""
    rows = [("a", "often")] * 90 + [("a", "rare")] * 10
    steps = ("--class-weights", "balanced", "--monitor", "loss", "--validation-share", "0")
    train_classifier(tmp_path, rows, *steps, "--max-steps", "100", out="balanced")
    train_classifier(tmp_path, rows, "--validation-share", "0", "--max-steps", "100", out="plain")

    def share(model):
        out, _ = run("predict", tmp_path / model, "--json", stdin="a\n")
        return json.loads(out)["probabilities"]["rare"]

    assert share("plain") < 0.3
    assert share("balanced") == pytest.approx(0.5, abs=0.1)
    train_classifier(
        tmp_path, rows, *steps, "--max-steps", "100", "--schedule", "constant", out="a"
    )
    train_classifier(tmp_path, rows, *steps, "--max-steps", "45", "--schedule", "constant", out="b")
    run("train", "--resume", "--out", tmp_path / "b", "--max-steps", "100")
    one, other = (ModelDirectory.open(tmp_path / name).weights.read_bytes() for name in "ab")
    assert one == other


def test_patience_ends_a_training_that_gets_no_better(tmp_path):
    assert TASKS["classify"].options.default("monitor") == "auto"
    assert TASKS["tag"].options.default("monitor") == "auto"
    rows = [("a", "often")] * 450 + [("a", "rare")] * 150  # nothing to learn but their shares
    out = train_classifier(tmp_path, rows, "--patience", "2", "--max-steps", "2000")
    assert "2 evaluations without improvement" in out
    evaluations = records(tmp_path / "model")
    assert [r["best"] for r in evaluations[-2:]] == [False, False]
    assert evaluations[-1]["step"] < 2000


@pytest.mark.skipif(find_spec("sacrebleu") is None, reason="needs sacrebleu (extra translation)")
def test_translations_are_judged_by_bleu(tmp_path):
    generator = random.Random(9)
    words = {"dog": "Hund", "cat": "Katze", "sees": "sieht", "big": "groß"}
    for part, count in (("train", 100), ("valid", 20)):
        sentences = [
            generator.choices(list(words), k=generator.randint(4, 5)) for _ in range(count)
        ]
        for side, of in (("en", str), ("de", words.__getitem__)):
            lines = "".join(" ".join(map(of, one)) + "\n" for one in sentences)
            (tmp_path / f"{part}.{side}").write_text(lines, encoding="utf-8")
    files = [[tmp_path / f"{part}.{side}" for side in ("en", "de")] for part in ("train", "valid")]
    more = ("--hidden-size", "32", "--no-tied", "--monitor", "bleu", "--max-steps", "120")
    valid = [option for file in files[1] for option in ("--valid", file)]
    out = run(
        "train", *files[0], *valid, "--task", "translate", *SMALL, *more, "--out", tmp_path / "m"
    )[0]
    evaluations = records(tmp_path / "m")
    best = max(evaluations, key=lambda r: (r["bleu"], -r["loss"]))
    assert ModelDirectory.open(tmp_path / "m").load_config()["results"]["step"] == best["step"]
    assert f"BLEU {best['bleu']:.1f}" in out
    found, _ = evaluated(tmp_path / "m", *files[1], "--beam-size", "1")
    assert found["bleu"] == pytest.approx(best["bleu"])  # greedy, and every word is known
    assert found["chrf"] == pytest.approx(best["chrf"])


def test_without_sacrebleu_the_rest_is_counted_and_it_is_said(tmp_path, monkeypatch):
    for side in ("en", "de"):
        (tmp_path / side).write_text("a b\nb a\n" * 10)
    files = [tmp_path / side for side in ("en", "de")]
    run("train", *files, "--task", "translate", *SMALL, "--out", tmp_path / "m")

    def missing(*arguments, **options):
        raise ImportError('bleu needs an extra: pip install "anaphora[translation]"')

    monkeypatch.setattr("anaphora.metrics.bleu", missing)
    found, err = evaluated(tmp_path / "m", *files)
    assert "bleu" not in found
    assert 'no BLEU and chrF: bleu needs an extra: pip install "anaphora[translation]"' in err
    assert "omit them with --no-bleu" in err
