"""`anaphora train --task classify` with several labels an example: texts, lists and series."""

import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora.artifact import ArtifactError, read_weights
from anaphora.cli.app import app
from anaphora.data import SequenceBatches
from anaphora.models import SequenceClassifier, load
from anaphora.training import CLASSIFY, Evaluation, classify
from anaphora.training.examples import check_columns

SMALL = (
    "--task", "classify", "--hidden-size", "12", "--batch-size", "8", "--learning-rate", "0.02",
    "--dropout", "0", "--evaluate-every", "30", "--max-steps", "90", "--level", "char",
    "--validation-share", "0.2",
)  # fmt: skip
COLUMNS = ("--column", "text", "--label-column", "labels")


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def examples(count, seed):
    """Texts of some letters, whose labels are those of "abc" that are in them."""
    generator = random.Random(seed)
    for _ in range(count):
        text = "".join(generator.choices("abcdefgh", k=generator.randint(1, 5)))
        yield text, [letter.upper() for letter in "abc" if letter in text]


def write_table(path, rows, separator="|"):
    lines = [f"{text},{separator.join(labels)}" for text, labels in rows]
    path.write_text("\n".join(["text,labels", *lines, ""]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables to train and to evaluate on, and a model in `model`."""
    folder = tmp_path_factory.mktemp("labels")
    write_table(folder / "train.csv", examples(300, 1))
    write_table(folder / "test.csv", examples(80, 2))
    out, err = run(
        "train", folder / "train.csv", *SMALL, *COLUMNS, "--label-separator", "|",
        "--out", folder / "model",
    )  # fmt: skip
    assert "3 labels, several for each example, a vocabulary of 9" in out + err
    return folder


def test_figures_are_those_of_the_answers(folder):
    out, _ = run("evaluate", folder / "model", folder / "test.csv", "--json")
    result = json.loads(out)
    model, rows = load(folder / "model"), list(examples(80, 2))
    actual = np.array([[c in labels for c in "ABC"] for _, labels in rows])
    found = list(classify(model, [text for text, _ in rows]))
    p = np.array([[shares[c] for c in "ABC"] for shares in found])
    hits = actual & (p > 0.5)
    f1 = 2 * hits.sum(axis=0) / (actual.sum(axis=0) + (p > 0.5).sum(axis=0))
    expected = {
        "loss": -np.log(np.where(actual, p, 1 - p)).mean(),
        "micro_f1": 2 * hits.sum() / (actual.sum() + (p > 0.5).sum()),
        "macro_f1": f1.mean(),
        "subset_accuracy": (actual == (p > 0.5)).all(axis=1).mean(),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert 0.8 < result["subset_accuracy"] < 1  # it has learnt something
    assert result["tokens"] == 80
    assert "accuracy" not in result
    assert [result["classes"][c]["support"] for c in "ABC"] == actual.sum(axis=0).tolist()
    assert [result["classes"][c]["f1"] for c in "ABC"] == pytest.approx(f1.tolist())
    out, _ = run("evaluate", folder / "model", folder / "test.csv")
    assert f"micro F1         {expected['micro_f1']:.2%}" in out
    assert "sequences        80" in out
    assert re.search(r"\n +precision +recall +F1 +predicted +support\nA ", out)


def test_the_best_micro_f1_is_kept(folder):
    lines = (folder / "model" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    evaluations = [record for record in metrics if record["kind"] == "evaluation"]
    assert len(evaluations) == 3
    assert Evaluation(0.5, 60, more=evaluations[0]).monitored("auto") == "micro_f1"
    results = json.loads((folder / "model" / "config.json").read_text())["results"]
    assert results["micro_f1"] == max(record["micro_f1"] for record in evaluations)
    assert {"macro_f1", "subset_accuracy"} < set(results)
    out, _ = run("info", folder / "model")
    assert f"micro F1 {results['micro_f1']:.2%}" in out
    assert re.search(r"multi_label +True", out)
    assert "label_separator" in out


def test_labels_that_are_likelier_than_not_are_printed(folder):
    out, err = run("predict", folder / "model", stdin="abc\ndef\n\ncab\n")
    assert [set(line.split("|")) for line in out.splitlines()] == [
        {"A", "B", "C"}, {""}, {""}, {"A", "B", "C"}
    ]  # fmt: skip
    assert "line 3: nothing to read there" in err
    out, _ = run("predict", folder / "model", "--json", stdin="bd\n\nd\n")
    one, blank, none = map(json.loads, out.splitlines())
    assert (one["text"], one["labels"]) == ("bd", ["B"])
    shares = one["probabilities"]
    assert list(shares) == sorted("ABC", key=lambda c: -shares[c])
    assert min(shares["B"], 1 - shares["A"], 1 - shares["C"]) > 0.5
    assert blank == {"text": "", "labels": None, "probabilities": {}}
    assert none["labels"] == []
    assert max(none["probabilities"].values()) < 0.5


def test_labels_not_seen_in_training_count_as_wrong(folder, tmp_path):
    rows = [(text, [*labels, "Z", "Y"][: 1 + len(labels)]) for text, labels in examples(80, 2)]
    write_table(tmp_path / "more.csv", rows)
    out, err = run("evaluate", folder / "model", tmp_path / "more.csv", "--json")
    result = json.loads(out)
    plain = json.loads(run("evaluate", folder / "model", folder / "test.csv", "--json")[0])
    assert result["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert (result["unknown_labels"], result["subset_accuracy"]) == (80, 0)
    assert result["classes"]["Z"] == {
        "precision": 0, "recall": 0, "f1": 0, "predicted": 0, "support": 80
    }  # fmt: skip
    found = plain["classes"]
    hits, predicted, support = (
        sum(found[c][name] * (found[c]["support"] if name == "recall" else 1) for c in "ABC")
        for name in ("recall", "predicted", "support")
    )
    assert result["micro_f1"] == pytest.approx(2 * hits / (predicted + support + 80))
    assert "80 targets have labels not seen in training (first in" in err
    assert "more.csv, line 2): 'Z'; counted as wrong" in err
    write_table(tmp_path / "other.csv", [("ab", ["Z"]), ("c", ["Y", "Z"])])
    _, err = run("evaluate", folder / "model", tmp_path / "other.csv", code=1)
    assert "other.csv has none of the training labels, which are 'A', 'B', 'C'" in err


def test_lists_are_several_labels_without_a_separator(folder, tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [{"text": text, "labels": labels} for text, labels in examples(300, 1)]
    path.write_text("\n".join(map(json.dumps, rows)))
    run("train", path, *SMALL, *COLUMNS, "--out", tmp_path / "model")
    one, other = (load(place / "model") for place in (folder, tmp_path))
    for name, parameter in one.named_parameters():  # they are the same examples
        np.testing.assert_array_equal(dict(other.named_parameters())[name].data, parameter.data)
    out, _ = run("predict", tmp_path / "model", stdin="abc\n")
    assert set(out.strip().split("|")) == set("ABC")
    out, _ = run(
        "evaluate", tmp_path / "model", folder / "test.csv", "--label-separator", "|", "--json"
    )
    assert json.loads(out)["micro_f1"] > 0.9


def test_sets_of_labels_are_held_out_in_proportion_and_rare_ones_together(folder):
    arrays = {
        part: read_weights(folder / "model" / "checkpoint" / f"{part}.safetensors")[0]["targets"]
        for part in ("train", "validation")
    }
    assert all(targets.dtype == bool for targets in arrays.values())
    assert [len(targets) for targets in arrays.values()] == [240, 60]
    sets = {part: [tuple(row) for row in targets] for part, targets in arrays.items()}
    for one in {*sets["train"]}:
        count, held = sets["train"].count(one), sets["validation"].count(one)
        if count + held >= 5:  # which have a share of one or more
            assert held in ((count + held) // 5, (count + held) // 5 + 1)


def test_examples_whose_sets_are_all_different_are_held_out_too(tmp_path):
    generator, seen = random.Random(5), set()
    while len(seen) < 40:
        seen.add(tuple(sorted(generator.sample("ABCDEFGHIJ", generator.randint(1, 5)))))
    write_table(tmp_path / "rare.csv", [("".join(one).lower(), one) for one in sorted(seen)])
    few = (*SMALL, *COLUMNS, "--label-separator", "|", "--max-steps", "2")
    out, err = run(
        "train", tmp_path / "rare.csv", *few, "--validation-share", "0.25",
        "--out", tmp_path / "model",
    )  # fmt: skip
    assert "30 examples to train on, 10 to validate on, 10 labels" in out + err


def test_rare_labels_weigh_more_if_balanced():
    targets = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    model = SequenceClassifier(3, hidden_size=2, vocabulary_size=4, multi_label=True)
    options = CLASSIFY.options.make(class_weights="balanced")
    batches = SequenceBatches([[n % 4] for n in range(5)], targets, batch_size=2)
    CLASSIFY.begin(options, SimpleNamespace(model=model, batches=batches), True)
    assert model.class_weights == pytest.approx([4, 2 / 3, 1])  # no example has the last


def test_a_training_of_several_labels_goes_on_to_the_same_bits(folder, tmp_path):
    more = (*COLUMNS, "--label-separator", "|", "--schedule", "constant")
    for name, steps in (("once", "60"), ("twice", "30")):
        run(
            "train", folder / "train.csv", *SMALL, *more, "--max-steps", steps,
            "--out", tmp_path / name,
        )  # fmt: skip
    run("train", "--resume", "--out", tmp_path / "twice", "--max-steps", "60")
    one, other = (read_weights(tmp_path / n / "model.safetensors")[0] for n in ("once", "twice"))
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array)


def test_series_have_several_labels_and_stream(tmp_path):
    generator = np.random.default_rng(3)
    lines = []
    for number in range(60):
        x = generator.standard_normal((2, 30))
        x[:, 5:12] += [[4 * (number % 2)], [4 * (number % 3 == 0)]]
        label = "+".join(name for name, on in (("first", number % 2), ("second", number % 3 == 0))
                         if on) or "+"  # fmt: skip
        channels = [",".join(f"{value:.4f}" for value in channel) for channel in x]
        lines.append(":".join([*channels, label]))
    names = sorted({line.split(":")[-1] for line in lines})
    header = f"@classLabel true {' '.join(names)}\n@data\n"
    (tmp_path / "train.ts").write_text(header + "\n".join(lines))
    run(
        "train", tmp_path / "train.ts", "--task", "classify", "--label-separator", "+",
        "--no-bidirectional", "--max-steps", "200", "--hidden-size", "12", "--out",
        tmp_path / "model",
    )  # fmt: skip
    model = load(tmp_path / "model")
    assert (model.codec.classes, model.multi_label) == (("first", "second"), True)
    out, _ = run("evaluate", tmp_path / "model", tmp_path / "train.ts", "--json")
    assert json.loads(out)["micro_f1"] > 0.9
    series = np.array([lines[3].split(":")[k].split(",") for k in (0, 1)], float).T
    (expected,) = classify(model, [series])
    shares = model.session().feed(series)
    assert dict(zip(model.codec.classes, shares[-1], strict=True)) == pytest.approx(expected)
    out, _ = run("predict", tmp_path / "model", tmp_path / "train.ts")
    assert set(out.splitlines()[3].split("+")) == {"first", "second"}


def test_what_does_not_fit_several_labels_is_reported(folder, tmp_path):
    given = ("train", folder / "train.csv", *SMALL, *COLUMNS, "--out", tmp_path / "model")
    _, err = run(*given, "--label-separator", "", code=2)
    assert "label_separator is empty; expected a character, such as |" in " ".join(err.split())
    _, err = run(*given, "--label-separator", "|", "--label-smoothing", "0.1", code=2)
    assert "label_smoothing spreads a target over the other classes" in err
    write_table(tmp_path / "one.csv", [("a", ["A"]), ("b", ["B"])] * 20)
    one = ("train", tmp_path / "one.csv", *SMALL, *COLUMNS, "--max-steps", "1")
    run(*one, "--out", tmp_path / "one")
    _, err = run(
        "evaluate", tmp_path / "one", folder / "test.csv", "--label-separator", "|", code=1
    )
    assert "an example has" in err
    assert "the classifier expects one label per example" in err


def test_targets_that_no_training_wrote_are_reported(folder):
    codec = load(folder / "model").codec
    arrays = {"inputs": np.zeros(4, int), "lengths": np.ones(4, int)}
    with pytest.raises(ArtifactError, match=r"targets is int64 \[4, 3\]; .* rows of 3 booleans"):
        check_columns("a", {**arrays, "targets": np.zeros((4, 3), int)}, codec.columns())
    with pytest.raises(ArtifactError, match="targets has rows of 2; expected 3"):
        check_columns("a", {**arrays, "targets": np.zeros((4, 2), bool)}, codec.columns())
