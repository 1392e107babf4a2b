"""`anaphora train --task`: what is learnt, reported, resumed, predicted, and refused."""

import gzip
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import anaphora
from anaphora import metrics
from anaphora.artifact import ModelDirectory, read_weights, write_weights
from anaphora.cli.app import app
from anaphora.data import CharacterTokenizer, PairCodec, TaggerCodec
from anaphora.models import SequenceTagger
from anaphora.training import TASKS, task_of

SMALL = (
    "--hidden-size", "8", "--batch-size", "4", "--dropout", "0.1", "--learning-rate", "0.02",
    "--evaluate-every", "20", "--max-steps", "80",
)  # fmt: skip
WORDS = {"dog": "Hund", "cat": "Katze", "sees": "sieht", "a": "ein", "one": "eine", "big": "groß"}


def run(*arguments, code=0, stdin=None):
    """Run a command in this process; return standard output and standard error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


def lines_of(out):
    return [json.loads(line) for line in out.splitlines()]


class Task:
    """Data of a task: files to train on, files to validate on, and what is right for these."""

    def __init__(self, folder, task, train, valid, options=()):
        self.folder, self.task, self.train, self.valid = folder, task, train, valid
        self.options = ("--task", task.split()[0], *SMALL, *options)

    def command(self, *more, out="model"):
        valid = [argument for path in self.valid for argument in ("--valid", path)]
        place = ("--out", self.folder / out)
        return ("train", *self.train, *valid, *self.options, *place, *more)


def labelled(generator, count):
    """Words of the letters a-c, of class low, or d-f, of class high; all letters in any order."""
    for _ in range(count):
        label, letters = generator.choice([("low", "abc"), ("high", "def")])
        yield "".join(generator.choices(letters, k=generator.randint(1, 6))), label


def make(name, folder):
    """The data of a task in a folder."""
    generator = random.Random(7)
    if name == "classify folder":
        for part, count in (("train", 80), ("valid", 20)):
            (folder / part).mkdir()
            examples = list(labelled(generator, count))
            for label in ("low", "high"):
                text = "".join(f"{word}\n" for word, its in examples if its == label)
                (folder / part / f"{label}.txt").write_text(text)
        return Task(folder, name, [folder / "train"], [folder / "valid"])
    if name == "classify table":
        for part, count in (("train", 80), ("valid", 20)):
            rows = [
                f"{n}\t{label}\t{' '.join(word)}\n"
                for n, (word, label) in enumerate(labelled(generator, count))
            ]
            (folder / f"{part}.tsv").write_text("id\tside\tbody\n" + "".join(rows))
        options = ("--column", "body", "--label-column", "side", "--level", "word")
        return Task(folder, name, [folder / "train.tsv"], [folder / "valid.tsv"], options)
    if name == "classify series":
        for part, count in (("train", 60), ("valid", 15)):
            series = []
            for n in range(count):
                steps = np.cumsum([generator.random() for _ in range(generator.randint(2, 7))])
                rising = (100 + steps * (1 if n % 2 else -1)).round(3)
                other = [str(generator.random()) for _ in steps]
                channels = [",".join(map(str, rising.tolist())), ",".join(other)]
                series.append(f"{':'.join(channels)}:{'up' if n % 2 else 'down'}\n")
            (folder / f"{part}.ts").write_text("@data\n" + "".join(series))
        return Task(folder, name, [folder / "train.ts"], [folder / "valid.ts"])
    if name == "tag":
        for part, count in (("train", 60), ("valid", 15)):
            text = ""
            for _ in range(count):
                for n in range(generator.randint(1, 5)):
                    word, tag = generator.choice([("ab", "X"), ("Ab", "Y"), ("cd", "X")])
                    word = word if generator.random() < 0.6 else word + generator.choice("bcd")
                    text += f"{n + 1}\t{word}\t_\t{tag}\t_\n"
                text += "\n"
            (folder / f"{part}.conllu").write_text(text)
        return Task(folder, name, [folder / "train.conllu"], [folder / "valid.conllu"])
    for part, count in (("train", 200), ("valid", 10)):
        lengths = [generator.randint(1, 4) for _ in range(count)]
        sentences = [generator.choices(list(WORDS), k=length) for length in lengths]
        for side, of in (("en", str), ("de", WORDS.__getitem__)):
            text = "".join(" ".join(map(of, sentence)) + "\n" for sentence in sentences)
            (folder / f"{part}.{side}").write_text(text, encoding="utf-8")
    files = [[folder / f"{part}.{side}" for side in ("en", "de")] for part in ("train", "valid")]
    options = ("--hidden-size", "32", "--no-tied", "--dropout", "0", "--max-steps", "400")
    return Task(folder, name, *files, options)


NAMES = ("classify folder", "classify table", "classify series", "tag", "translate")


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory):
    """A trained model of each task; what its training printed is in `printed`."""
    task = make(request.param, tmp_path_factory.mktemp(request.param.replace(" ", "-")))
    task.printed, _ = run(*task.command())
    task.model = task.folder / "model"
    return task


def outcome(path):
    directory = ModelDirectory.open(path)
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in directory.read_metrics()]
    arrays, metadata = directory.load_checkpoint()
    metadata["progress"].pop("seconds")
    metadata.pop("metrics_size")
    last = {name: array.tobytes() for name, array in arrays.items()}
    return directory.weights.read_bytes(), records, last, metadata


def predictions(task):
    """The records that predict gives for the validation files, and the right answers."""
    if task.task == "classify folder":
        texts, labels = [], []
        for label in ("high", "low"):
            words = (task.valid[0] / f"{label}.txt").read_text().split()
            texts, labels = texts + words, labels + [label] * len(words)
        out, _ = run("predict", task.model, "--json", stdin="".join(f"{t}\n" for t in texts))
        assert [record["text"] for record in lines_of(out)] == texts
        return lines_of(out), labels
    out, _ = run("predict", task.model, task.valid[0], "--json")
    lines = task.valid[0].read_text(encoding="utf-8").split("\n")[:-1]
    if task.task == "classify table":
        return lines_of(out), [line.split("\t")[1] for line in lines[1:]]
    if task.task == "classify series":
        return lines_of(out), [line.split(":")[2] for line in lines[1:]]
    if task.task == "tag":
        sentences = "\n".join(lines).strip("\n").split("\n\n")
        return lines_of(out), [[w.split("\t")[3] for w in s.split("\n")] for s in sentences]
    return lines_of(out), task.valid[1].read_text(encoding="utf-8").split("\n")[:-1]


def test_what_is_learnt_is_predicted_and_reported(trained):
    """Accuracy and loss are those of the predictions, counted here one by one."""
    records, right = predictions(trained)
    (found,) = lines_of(run("evaluate", trained.model, *trained.valid, "--json")[0])
    assert len(records) == len(right)
    if trained.task == "translate":
        assert sum(r["translation"] == t for r, t in zip(records, right, strict=True)) >= 9
        scores = {}
        if find_spec("sacrebleu") is not None:
            texts = [record["translation"] for record in records]
            scores = {"bleu": metrics.bleu(texts, right), "chrf": metrics.chrf(texts, right)}
            assert scores["bleu"] > 50
        assert {k: v for k, v in found.items() if k in ("bleu", "chrf")} == scores
        (less,) = lines_of(run("evaluate", trained.model, *trained.valid, "--json", "--no-bleu")[0])
        assert set(less) == {
            "loss", "perplexity", "bits_per_token", "tokens", "seconds", "unknown_tokens",
            "unknown_share",
        }  # fmt: skip
        assert set(found) == {*less, *scores}
        assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
        assert found["tokens"] == sum(len(sentence.split()) + 1 for sentence in right)
    else:
        correct, chances, pairs = [], [], []
        for record, answer in zip(records, right, strict=True):
            if trained.task == "tag":
                correct += [a == b for a, b in zip(record["tags"], answer, strict=True)]
                pairs += zip(record["tags"], answer, strict=True)
            else:
                pairs.append((record["label"], answer))
                correct.append(record["label"] == answer)
                chances.append(record["probabilities"][answer])
                assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
                assert next(iter(record["probabilities"])) == record["label"]
        of_tokens = {"unknown_tokens", "unknown_share"} if "series" not in trained.task else set()
        assert set(found) == {
            "loss", "accuracy", "macro_f1", "classes", "confusion_matrix", "tokens", "seconds",
            *of_tokens,
        }  # fmt: skip
        check_scores_of_classes(found, pairs)
        assert found["accuracy"] == sum(correct) / len(correct) > 0.9
        assert found["tokens"] == len(correct)
        if chances:
            loss = -sum(map(math.log, chances)) / len(chances)
            assert found["loss"] == pytest.approx(loss, rel=1e-4)

    evaluations = [r for r in task_records(trained.model) if r["kind"] == "evaluation"]
    best = [record for record in evaluations if record["best"]][-1]
    if trained.task == "translate":
        assert best == min(evaluations, key=lambda record: record["loss"])
    else:  # too few to judge by, so that the last weights are kept, and it is said
        assert best == evaluations[-1]
        assert f"{found['tokens']} validation targets are too few" in trained.printed
    assert best["loss"] == pytest.approx(found["loss"], rel=1e-6)
    assert best.get("accuracy") == found.get("accuracy")
    results = json.loads((trained.model / "config.json").read_text())["results"]
    assert results["step"] == best["step"]


def check_scores_of_classes(found, pairs):
    """`pairs` are of an answer and what is right."""
    counts = Counter(pairs)
    answers, actual = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    names = sorted(answers | actual)
    assert list(found["classes"]) == names
    f1s = []
    for name in names:
        scores = found["classes"][name]
        right = counts[name, name]
        assert (scores["predicted"], scores["support"]) == (answers[name], actual[name])
        assert scores["precision"] == pytest.approx(right / answers[name])
        assert scores["recall"] == pytest.approx(right / actual[name])
        f1s.append(2 * right / (answers[name] + actual[name]))
        assert scores["f1"] == pytest.approx(f1s[-1])
    assert found["macro_f1"] == pytest.approx(sum(f1s) / len(f1s))
    assert found["confusion_matrix"] == [[counts[j, i] for j in names] for i in names]


def task_records(model):
    return ModelDirectory.open(model).read_metrics()


def test_train_says_what_it_does(trained):
    out = trained.printed
    assert out.startswith(f"reading {trained.train[0]}")
    measure = "perplexity" if trained.task == "translate" else "accuracy"
    rows = "sequences" if trained.task.startswith("classify") else "sentences"
    assert f"of at most 4 {rows}\n" in out
    assert f", {measure} " in re.split("best validation:? loss", out)[1]
    file = {
        "classify folder": "YOUR_LINES.txt",
        "classify table": "YOUR_TABLE.tsv",
        "classify series": "YOUR_SERIES.ts",
    }.get(trained.task, "YOUR_SENTENCES.txt")
    assert f"Try next:\n  anaphora predict {trained.model} {file}\n" in out
    assert "anaphora train YOUR_TEXT" not in out


def test_predictions_as_text_are_those_of_json(trained):
    records, _ = predictions(trained)
    if trained.task == "classify folder":
        text = "".join(record["text"] + "\n" for record in records)
        assert run("predict", trained.model, stdin=text)[0].split() == [r["label"] for r in records]
        return
    out, err = run("predict", trained.model, trained.valid[0])
    assert err == "" or trained.task == "tag", "only the tagger is given words that it has not seen"
    if trained.task == "tag":
        sentences = [zip(r["words"], r["tags"], strict=True) for r in records]
        assert out == "".join("".join(f"{w}\t{t}\n" for w, t in s) + "\n" for s in sentences)
        path = trained.folder / "predicted.tsv"
        path.write_text(out)  # it can be read again
        found = run("train", path, "--task", "tag", "--tag-column", "2", "--out",
                    trained.folder / "again", *SMALL, "--max-steps", "1")[0]  # fmt: skip
        assert "words to train on" in found
    else:
        name = "translation" if trained.task == "translate" else "label"
        assert out == "".join(record[name] + "\n" for record in records)


def test_an_empty_line_has_an_empty_answer(trained):
    if trained.task == "classify series":
        return  # series are no lines
    line = {"tag": "ab Ab", "translate": "a dog"}.get(trained.task, "a b c")
    text = f"{line}\n\n{line}\n \n"
    out, err = run("predict", trained.model, "--json", stdin=text)
    first, second, third, fourth = lines_of(out)
    assert first == third
    assert second.keys() == fourth.keys() == first.keys()
    assert not any(second.values())
    assert [value for value in fourth.values() if value] in ([], [" "])
    assert (
        "standard input, line 2 and 1 more: nothing to read there; the prediction is empty" in err
    )
    out, _ = run("predict", trained.model, stdin=text)
    answers = out.split("\n\n") if trained.task == "tag" else out.split("\n")
    assert answers[0] == answers[2 if trained.task != "tag" else 1].strip("\n") != ""
    assert out.endswith("\n\n")


def test_unknown_words_are_reported(trained):
    if trained.task in ("classify series", "classify folder"):
        return  # no words
    known, text = {
        "tag": ("ab", "ab xyz\nxyz\n"),
        "translate": ("dog", "Dog xyz\nxyz\n"),
        "classify table": ("a", "a xyz\nxyz\n"),
    }[trained.task]
    assert run("predict", trained.model, stdin=f"{known}\n")[1] == ""
    _, err = run("predict", trained.model, stdin=text)
    notice = {
        "tag": "2 words are not in the vocabulary, and read as unknown: 'xyz'; train on more",
        "translate": "3 words are not in the vocabulary, and read as unknown: 'Dog', 'xyz'; the "
        "vocabulary has it in lower case: 'dog'",
        "classify table": "'xyz'; train on more text, with a lower --minimum-count or at "
        "--level char for fewer unknown ones",
    }[trained.task]
    assert "standard input, line 1 and later: " in err
    assert notice in err


def test_a_training_that_goes_on_is_bit_for_bit_one_that_never_stopped(trained):
    every = ("--evaluate-every", "11", "--schedule", "constant", "--max-steps")
    run(*trained.command(*every, "66", out="complete"))
    run(*trained.command(*every, "33", out="stopped"))  # within an epoch
    out, _ = run("train", "--resume", "--out", trained.folder / "stopped", "--max-steps", "66")
    assert out.startswith("continuing from step 33 of ")
    assert outcome(trained.folder / "stopped") == outcome(trained.folder / "complete")


def test_info(trained):
    out, _ = run("info", trained.model)
    kind = {"tag": "a sequence tagger", "translate": "an encoder decoder"}
    assert kind.get(trained.task, "a sequence classifier") in out
    assert "validation loss" in out
    assert ("perplexity" if trained.task == "translate" else ", accuracy ") in out
    (record,) = lines_of(run("info", trained.model, "--json")[0])
    assert record["task"] == task_of(trained.model).model.kind
    assert record["training"]["max_steps"] == (400 if trained.task == "translate" else 80)
    assert "window" not in record["training"]


def test_the_commands_of_language_models_point_to_predict(trained):
    for command in ("generate", "plot"):
        _, err = run(command, trained.model, code=1)
        name = trained.task.split()[0]
        assert (
            f"is not a language model, but one for the task {name}; use it with: anaphora pre"
            in err
        )


def test_json_lines(trained):
    out, err = run(*trained.command("--max-steps", "20", "--json", out="json"))
    *records, result = lines_of(out)
    assert records == task_records(trained.folder / "json")
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    assert [r["step"] for r in evaluations] == [10, 20]
    best = [r for r in evaluations if r["best"]][-1]
    assert ("accuracy" in best) == (trained.task != "translate")
    assert result.get("accuracy") == best.get("accuracy")
    assert "Try next" in err


def test_predict_names_the_line(tmp_path):
    task = make("classify folder", tmp_path)
    run(*task.command("--max-steps", "1", "--minimum-count", "1"))
    path = tmp_path / "lines.txt"
    path.write_text("abc\nabc\n" * 300 + "aX\nabc\n")
    _, err = run("predict", tmp_path / "model", path, code=1)
    message = "line 601: the character 'X' (U+0058) at column 2 of the text is not in the vocab"
    assert f"anaphora: {path}, {message}" in err
    assert f"standard input, {message}" in run(
        "predict", tmp_path / "model", stdin=path.read_text(), code=1
    )[1]  # fmt: skip
    table = tmp_path / "table.csv"
    table.write_text('body\nabc\n"ab\nXc"\n')
    _, err = run("predict", tmp_path / "model", table, "--column", "body", code=1)
    assert f"{table}, line 3: the character" in err  # where the row begins
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "low.txt").write_text("abc\naXb\n")
    _, err = run("evaluate", tmp_path / "model", tmp_path / "other", code=1)
    assert "the text 'aXb': the character 'X' (U+0058) at column 2" in err


def test_standard_input_that_cannot_be_read(tmp_path):
    task = make("classify folder", tmp_path)
    run(*task.command("--max-steps", "1"))
    assert "standard input is empty" in run("predict", tmp_path / "model", stdin="", code=1)[1]
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "model")], input=b"abc\n\xe9a\n")
    assert result.exit_code == 1
    assert "standard input is not valid UTF-8: byte 0xE9 at offset 4" in result.stderr


@pytest.mark.parametrize("at_terminal", [True, False])
def test_answers_come_before_the_input_ends(tmp_path, at_terminal):
    """At a terminal after each line, in a pipe after 500 of them."""
    task = make("classify folder", tmp_path)
    run(*task.command("--max-steps", "1"))
    reading, writing = os.openpty() if at_terminal else os.pipe()
    if at_terminal:
        reading, writing = writing, reading
    command = [sys.executable, "-m", "anaphora", "predict", str(tmp_path / "model")]
    environment = {**os.environ, "PYTHONPATH": str(Path(anaphora.__file__).parent.parent)}
    with subprocess.Popen(
        command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(reading)
        for _ in range(2):
            for _ in range(1 if at_terminal else 500):
                os.write(writing, b"abc\n")
            for _ in range(1 if at_terminal else 500):
                assert process.stdout.readline() in (b"low\n", b"high\n")
        os.write(writing, b"\x04" if at_terminal else b"abc")
        if not at_terminal:
            os.close(writing)
        out, _ = process.communicate(timeout=60)
        if at_terminal:
            os.close(writing)
    assert process.returncode == 0
    assert len(out.splitlines()) == (0 if at_terminal else 1)


def test_a_no_break_space_holds_a_word_together_in_training_and_in_predict(tmp_path):
    sentences = tmp_path / "train.tsv"
    sentences.write_text("10\u00a0000\tNUM\ndogs\tNOUN\n\n" * 20, encoding="utf-8")
    run("train", sentences, "--task", "tag", "--tag-column", "2", "--out", tmp_path / "model",
        *SMALL)  # fmt: skip
    out, err = run("predict", tmp_path / "model", stdin="10\u00a0000 dogs\n")
    assert (out, err) == ("10\u00a0000\tNUM\ndogs\tNOUN\n\n", "")


def test_pairs_are_made_by_lines_whatever_is_written_in_them(tmp_path):
    """Marks that are written in some lines, and blank lines of one side, shift nothing."""
    source = [f"s{n}" for n in range(8)]
    target = [f"t{n}" for n in range(8)]
    source[1], source[4], source[6] = "<eos> s1", "", "s6 <bos> <pad> <unk>"
    target[2], target[3], target[6] = "", "t3 <eos> <eos>", "<eos>"
    for name, lines in (("source", source), ("target", target)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    task = TASKS["translate"]
    options = task.options.make(minimum_count=1, batch_size=1, validation_share=0.0)
    files = [tmp_path / "source", tmp_path / "target"]
    codec, _ = task.read(options, files, [], tmp_path, lambda message: None, lambda fit: fit())
    vocabulary = PairCodec.from_dict(codec.to_dict())
    batches = task.open(options, vocabulary, tmp_path).batches
    found = [
        tuple(
            vocabulary[name].decode(ids[:, 0]).removesuffix("\n")
            for name, ids in (("source", batch.source), ("target", batch.targets))
        )
        for batch in batches
    ]
    assert sorted(found) == sorted(zip(source, target, strict=True))


def test_predict_points_to_generate(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 20)
    out = tmp_path / "model"
    small = ("--hidden-size", "3", "--batch-size", "2", "--window", "5", "--max-steps", "1")
    run("train", text, "--out", out, "--minimum-count", "1", *small)
    _, err = run("predict", out, text, code=1)
    assert "is a language model, which continues text; use it with: anaphora gener" in err


# What is held out


def test_a_share_is_sampled_by_seed(tmp_path):
    task = make("classify folder", tmp_path)
    task.valid = []

    def parts(out, *more):
        run(*task.command("--max-steps", "1", "--validation-share", "0.25", *more, out=out))
        arrays = [
            read_weights(tmp_path / out / "checkpoint" / f"{name}.safetensors")[0]
            for name in ("train", "validation")
        ]
        return [list(map(bytes, np.split(a["inputs"], a["lengths"].cumsum()[:-1]))) for a in arrays]

    train, valid = parts("one")
    assert (len(train), len(valid)) == (60, 20)
    assert parts("again") == [train, valid]
    other = parts("other", "--seed", "2")
    assert other[1] != valid
    assert sorted(other[0] + other[1]) == sorted(train + valid)
    run(*task.command("--max-steps", "1", "--validation-share", "0", out="none"))
    assert not (tmp_path / "none" / "checkpoint" / "validation.safetensors").exists()


# Refused options and bad input


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (
            "classify",
            ["--window", "5"],
            "--window is not for the task classify, only for language-mo",
        ),
        (
            "classify",
            ["--tag-column", "2"],
            "--tag-column is not for the task classify, only for tag",
        ),
        ("classify", ["--preset", "zaremba-small"], "preset 'zaremba-small' is not one of default"),
        ("classify", ["--level", "bpe"], "level 'bpe' is not one of auto, char, word"),
        (
            "classify",
            ["--level", "char", "--lowercase"],
            "lowercase and split are for level 'word', not for 'char'",
        ),
        ("classify", ["--dropout", "2"], "dropout must be >= 0 and < 1"),
        ("classify", ["--hidden-size", "0"], "hidden_size must be an integer of at least 1"),
        ("tag", ["--pooling", "max"], "--pooling is not for the task tag, only for classify"),
        (
            "tag",
            ["--column", "text"],
            "--column is not for the task tag, only for language-model, cl",
        ),
        ("tag", ["--tag-column", "0"], "tag_column is '0'; expected a name, or a number from 1"),
        (
            "tag",
            ["--character-hidden-size", "0"],
            "character_hidden_size must be an integer of at least 1",
        ),
        ("translate", ["--window", "5"], "--window is not for the task translate, only for la"),
        ("translate", ["--hidden-size", "5"], "must be even, not 5"),
        (
            "translate",
            ["--validation-share", "1"],
            "validation_share must be >= 0 and < 1, not 1.0",
        ),
        (
            "language-model",
            ["--bidirectional"],
            "--bidirectional is not for the task language-model",
        ),
        ("language-model", ["--attention", "none"], "only for translate; omit it"),
    ],
)
def test_options_that_are_refused(tmp_path, task, options, message):
    out = ("--out", tmp_path / "model")
    _, err = run("train", "missing", "--task", task, *out, *options, code=2)
    assert message in err
    assert not (tmp_path / "model").exists()


def test_options_that_are_refused_of_other_commands(tmp_path):
    task = make("tag", tmp_path)
    run(*task.command("--max-steps", "1"))
    for arguments, message in [
        (
            ["evaluate", tmp_path / "model", *task.valid, "--column", "x"],
            "--column is not for the task tag, only for",
        ),
        (
            ["predict", tmp_path / "model", "--beam-size", "2"],
            "--beam-size is not for the task tag, only for tr",
        ),
        (
            ["predict", tmp_path / "model", "--column", "x"],
            "--column is not for the task tag, only for",
        ),
        (["train", "--resume", "--task", "tag"], "omit FILE, --task, --valid, --preset, --over"),
        (["train", "--resume", "--pooling", "max"], "pooling: cannot change when a training"),
    ]:
        assert message in run(*arguments, code=2)[1]


def test_a_table_with_other_columns(tmp_path):
    task = make("classify table", tmp_path)
    run(*task.command("--max-steps", "20"))
    expected = lines_of(run("evaluate", tmp_path / "model", *task.valid, "--json")[0])[0]
    other, lines = tmp_path / "other.csv", task.valid[0].read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    other.write_text("stars,words\n" + "".join(f'{label},"{text}"\n' for _, label, text in rows))
    columns = ("--column", "words", "--label-column", "stars")
    found = lines_of(run("evaluate", tmp_path / "model", other, *columns, "--json")[0])[0]
    assert (found["loss"], found["accuracy"]) == (expected["loss"], expected["accuracy"])
    labels, _ = run("predict", tmp_path / "model", other, "--column", "words")
    assert labels == run("predict", tmp_path / "model", *task.valid)[0]
    assert (
        "has no column 'body'; it has 'stars', 'words'"
        in run("predict", tmp_path / "model", other, code=1)[1]
    )


def test_texts_are_refused_by_a_classifier_of_series(tmp_path):
    task = make("classify series", tmp_path)
    run(*task.command("--max-steps", "1"))
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "other.txt").write_text("x\n")
    _, err = run("evaluate", tmp_path / "model", tmp_path / "names", code=1)
    assert "the classifier reads series, but a text was given" in err


def test_options_of_texts_are_refused_for_series(tmp_path):
    task = make("classify series", tmp_path)
    for options, message in [
        (["--level", "word"], "level is for texts, but the files hold series"),
        (["--column", "text"], "column is for tables, but none was given"),
        (["--embedding-size", "3"], "embedding_size is for ids"),
    ]:
        assert message in run(*task.command(*options), code=2)[1]
        assert not (tmp_path / "model").exists()


def test_columns_are_refused_where_no_table_is_given(tmp_path):
    task = make("classify folder", tmp_path)
    refused = "column is for tables, but none was given"
    assert f"label_{refused}" in run(*task.command("--label-column", "side"), code=2)[1]
    run(*task.command("--max-steps", "1"))
    lines = task.valid[0] / "low.txt"
    for arguments in (["predict", lines], ["evaluate", *task.valid]):
        command, *files = arguments
        _, err = run(command, tmp_path / "model", *files, "--column", "body", code=2)
        assert refused in err


@pytest.mark.parametrize(
    ("task", "files", "given", "message"),
    [
        ("classify", {}, [], "no files to classify: give tables, a folder with a .txt"),
        ("classify", {"a.csv": "text,label\nx,y\n"}, ["a.csv"], "say with --column and --label-co"),
        (
            "classify",
            {"a.csv": "text,label\nx,y\n"},
            ["a.csv", "--column", "text", "--label-column", "stars"],
            "has no column 'stars'; it has 'text', 'label'",
        ),
        ("classify", {"d/a.txt": "x\n", "d/b.txt": ""}, ["d"], "b.txt has no text, so there is no"),
        ("classify", {"d/a.txt": "x\ny\n"}, ["d"], "all examples have the label 'a'; expected two"),
        ("classify", {"a.ts": ""}, ["a.ts"], "a.ts is empty"),
        (
            "classify",
            {"a.ts": "@data\n1:x\n2:y\n", "d/a.txt": "x\n"},
            ["a.ts", "d"],
            "both texts and series were given",
        ),
        (
            "classify",
            {"d/a.txt": "x\nx\n", "d/b.txt": "x\n", "e/c.txt": "x\n"},
            ["d", "--valid", "e"],
            "the validation examples: the label 'c' is not one of the 2 labels of the training: "
            "'a', 'b'",
        ),
        ("tag", {}, [], "no files to tag"),
        ("tag", {"a.conllu": "x\ty\n"}, ["a.conllu"], "a.conllu, line 1: there are 2 columns"),
        (
            "tag",
            {"a.tsv": "ab\tX\n\nab\tY\n", "b.tsv": "ab\tZ\n"},
            ["a.tsv", "--tag-column", "2", "--valid", "b.tsv"],
            "the tag 'Z' is not one of the 2 tags of the training: 'X', 'Y'",
        ),
        (
            "translate",
            {"a": "x\n"},
            ["a"],
            "translation needs two files, the source and the target; 1 given",
        ),
        (
            "translate",
            {"a": "x\n\ny\n", "b": "x\ny\n"},
            ["a", "b"],
            "a has 3 lines, but b has 2; give files that are aligned line by line",
        ),
        ("translate", {"a": "x\n", "b": ""}, ["a", "b"], "b is empty"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, task, files, given, message):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    _, err = run("train", *given, "--task", task, "--minimum-count", "1", "--out", "new", code=1)
    assert message in err
    assert err.splitlines()[-1].startswith("anaphora: ")
    assert not (tmp_path / "new").exists()


def test_a_model_that_is_to_be_replaced_stays_where_the_input_is_bad(tmp_path):
    task = make("classify folder", tmp_path)
    run(*task.command("--max-steps", "2"))
    before = {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}
    (tmp_path / "train" / "other.txt").write_text("")
    _, err = run(*task.command("--overwrite"), code=1)
    assert "other.txt has no text" in err
    assert {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()} == before
    (tmp_path / "train" / "other.txt").write_text("xyz\n")
    run(*task.command("--overwrite", "--max-steps", "2"))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model"]["num_classes"] == 3


def test_a_replaced_model_leaves_no_data_of_another_task(tmp_path):
    tagger = make("tag", tmp_path)
    run(*tagger.command("--max-steps", "1"))
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 20)
    small = ("--hidden-size", "3", "--batch-size", "2", "--window", "5", "--max-steps", "1")
    run("train", text, "--out", tmp_path / "model", "--minimum-count", "1", *small, "--overwrite")
    names = {path.name for path in (tmp_path / "model" / "checkpoint").iterdir()}
    assert names == {"state.safetensors", "train.npy"}
    run("train", "--resume", "--out", tmp_path / "model", "--max-steps", "2")


def test_damaged_directories_are_named(tmp_path):
    task = make("classify folder", tmp_path)
    run(*task.command("--max-steps", "2"))
    model = tmp_path / "model"
    tokenizer = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text('{"classes": ["low"]}')
    assert (
        f"{model / 'tokenizer.json'}: there is no tokenizer, which is required"
        in run("predict", model, stdin="a\n", code=1)[1]
    )
    (model / "tokenizer.json").write_text(tokenizer.replace('"low"', '"low", "other"'))
    _, err = run("evaluate", model, *task.valid, code=1)
    assert "model.num_classes is 2, but tokenizer.json has 3; restore" in err
    (model / "tokenizer.json").write_text(tokenizer)
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace("sequence_classifier", "fortune_teller"))
    for arguments in (("info", model), ("train", "--resume", "--out", model)):
        assert "its task 'fortune_teller' is unknown" in run(*arguments, code=1)[1]
    (model / "config.json").write_text(config.replace('"pooling": "mean"', '"pooling": "sum"'))
    assert "pooling 'sum' is not one of last, mean, max" in run("info", model, code=1)[1]
    (model / "config.json").write_text(config)
    (model / "checkpoint" / "train.safetensors").unlink()
    assert (
        "train.safetensors: no such file; train again"
        in run("train", "--resume", "--out", model, code=1)[1]
    )


def test_a_model_that_was_saved_from_python_is_used_by_the_commands(tmp_path):
    model = SequenceTagger(2, hidden_size=3, vocabulary_size=3, num_characters=2)
    model.save(tmp_path / "model")
    assert "num_tags" in run("info", tmp_path / "model")[0]
    _, err = run("predict", tmp_path / "model", code=1, stdin="a b\n")
    assert "tokenizer.json: is empty, so the model has no vocabulary" in err
    codec = TaggerCodec(("a", "b"), False, CharacterTokenizer.fit("ab"), ("X", "Y"))
    model.codec = codec
    model.save(tmp_path / "model")
    out, err = run("predict", tmp_path / "model", stdin="a b\n")
    assert (re.fullmatch("a\t[XY]\nb\t[XY]\n\n", out) is not None, err) == (True, "")


def test_the_help_says_for_which_task_an_option_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    out, _ = run("train", "--help", "all")
    out = " ".join(out.replace("│", " ").split())
    for name, task in TASKS.items():
        assert name in out
        for option, field in task.options.fields().items():
            trained = field.metadata["section"] in ("data", "model", "training")
            assert not trained or f"--{option.replace('_', '-')}" in out
    assert "classify, regress, tag, translate: Read sequences in both directions. [default:" in out
    sizes = "classify, tag 128; regress 64; translate 256; forecast 16)]"
    assert f"[default: (320; {sizes}" in out or f"[default: (256; {sizes}" in out
    assert "[default: (no-lowercase; tag lowercase)]" in out


def test_other_cells_and_no_attention(tmp_path):
    """Options that change what is built come back with the directory."""
    task = make("translate", tmp_path)
    small = ("--max-steps", "2", "--cell", "gru", "--attention", "none", "--split", "punctuation")
    run(*task.command(*small))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["model"]["attention"] == "none"
    assert (config["model"]["cell"], config["model"]["forget_bias"]) == ("gru", None)
    run("train", "--resume", "--out", tmp_path / "model", "--max-steps", "3")
    out, _ = run("predict", tmp_path / "model", "--json", "--beam-size", "1", stdin="a dog.\n")
    assert lines_of(out)[0]["source"] == "a dog."
    assert "attention               none" in run("info", tmp_path / "model")[0]


def test_no_limit_but_time(tmp_path):
    """The schedule cosine of the defaults needs a last step, and gives way."""
    task = make("tag", tmp_path)
    options = TASKS["tag"].options.make(minutes=0.001, hidden_size=4)
    assert (options.schedule, options.max_steps) == ("plateau", None)
    run("train", *task.train, "--task", "tag", "--minutes", "0.001", "--out", tmp_path / "model")
    assert task_of(tmp_path / "model").name == "tag"


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("a.csv", '7,"low,abc\n', "a.csv, line 4: a field begins with a quote that is never"),
        ("a.tsv", '7\t"low\n"\tabc\n', "a.tsv, line 4: the last field begins with a quote and se"),
    ],
)
def test_no_command_reads_a_table_whose_quotes_are_broken(tmp_path, name, broken, message):
    task = make("classify table", tmp_path)
    run(*task.command("--max-steps", "1"))
    separator = "," if name.endswith("csv") else "\t"
    row = "7,low,abc\n".replace(",", separator)
    table = tmp_path / name
    table.write_text("id,side,body\n".replace(",", separator) + 2 * row + broken + 5 * row)
    out = ("--out", tmp_path / "other")
    for command in (
        ("train", table, "--column", "body", *out),
        ("train", table, *task.options, *out),
        ("train", *task.train, "--valid", table, *task.options, *out),
        ("evaluate", tmp_path / "model", table),
        ("predict", tmp_path / "model", table),
    ):
        printed, err = run(*command, code=1)
        assert message in err
        assert "low\n" not in printed, "no answer to a part of the rows"


@pytest.mark.parametrize("name", ["classify table", "tag", "translate", "language-model"])
def test_an_encoding_is_recorded_and_used_by_every_command(tmp_path, name):
    """The same files in UTF-8, in CP-1252 and compressed make the same model and answers."""
    folders = [tmp_path / "utf-8", tmp_path / "cp1252"]
    for folder in folders:
        folder.mkdir()
    if name == "language-model":
        tasks = [Task(f, name, [f / "train.txt"], [f / "valid.txt"]) for f in folders]
        for task in tasks:
            task.options = ("--hidden-size", "8", "--batch-size", "2", "--max-steps", "2")
            for path in (*task.train, *task.valid):
                path.write_text("schöne Größe\n" * 40, encoding="utf-8")
    else:
        tasks = [make(name, folder) for folder in folders]
    plain, other = tasks
    renamed = {}
    for path in {*other.train, *other.valid}:
        text = path.read_text(encoding="utf-8").replace("b", "ß").replace("ßody", "body")
        (plain.folder / path.name).write_text(text, encoding="utf-8")
        renamed[path] = path.with_name(path.name + ".gz")
        renamed[path].write_bytes(gzip.compress(text.encode("cp1252")))
        path.unlink()
    other.train, other.valid = ([renamed[p] for p in paths] for paths in (other.train, other.valid))

    _, err = run(*other.command("--max-steps", "2"), code=1)
    assert "train." in err
    assert "give --encoding latin-1" in err
    run(*other.command("--max-steps", "2", "--encoding", "CP1252"))
    run(*plain.command("--max-steps", "2"))
    models = [folder / "model" for folder in folders]
    weights = [(model / "model.safetensors").read_bytes() for model in models]
    assert weights[0] == weights[1]
    text = json.loads((models[1] / "config.json").read_text())["data"]
    assert text["encoding"] == "CP1252"

    for command in ("evaluate", "predict"):
        files = [task.valid if command == "evaluate" else task.valid[:1] for task in tasks]
        if command == "predict" and name == "language-model":
            continue
        found = [
            [{**record, "seconds": 0} for record in lines_of(run(command, *paths, "--json")[0])]
            for paths in (
                [models[0], *files[0]],
                [models[1], *files[1]],
                [models[1], *files[0], "--encoding", "utf-8"],
            )
        ]
        assert found[0] == found[1] == found[2]
        assert "is UTF-8, not CP1252; give --enc" in run(command, models[1], *files[0], code=1)[1]
        unknown = run(command, models[1], *files[1], "--encoding", "utf-9", code=2)[1]
        assert "encoding 'utf-9' is unknown to Python" in unknown
    _, err = run(*plain.command("--encoding", "utf-9", out="none"), code=2)
    assert "encoding 'utf-9' is unknown to Python" in err
    assert not (plain.folder / "none").exists()


def test_series_without_classes_are_predicted_and_nothing_else(tmp_path):
    task = make("classify series", tmp_path)
    run(*task.command("--max-steps", "20"))
    expected, _ = run("predict", tmp_path / "model", *task.valid, "--json")
    lines = task.valid[0].read_text().splitlines()[1:]
    bare = tmp_path / "bare.ts"
    series = [line.rpartition(":")[0] for line in lines]
    for header in ("", "@dimensions 2\n", "@univariate false\n@classLabel false\n"):
        bare.write_text(header + "@data\n" + "\n".join(series))
        assert run("predict", tmp_path / "model", bare, "--json")[0] == expected
    refused = "bare.ts has no classes, which training and evaluation need: write the class of"
    out = ("--out", tmp_path / "other", "--task", "classify")
    assert refused in run("evaluate", tmp_path / "model", bare, code=1)[1]
    assert refused in run("train", bare, *out, code=1)[1]
    assert refused in run("train", *task.train, "--valid", bare, *out, code=1)[1]

    bare.write_text("@targetLabel true\n@data\n" + "\n".join(f"{one}:0.5" for one in series))
    assert run("predict", tmp_path / "model", bare, "--json")[0] == expected
    refused = (
        "bare.ts has numeric targets (@targetLabel true, or a numeric attribute), but "
        "classify needs classes: use --task regress"
    )
    assert refused in run("evaluate", tmp_path / "model", bare, code=1)[1]
    assert refused in run("train", bare, *out, code=1)[1]

    bare.write_text("@data\n1,2:3,4:up\n1,?:3,4:up\n")
    for command in (("predict", tmp_path / "model", bare), ("train", bare, *out)):
        assert "line 3, channel 1, step 2: the value is missing ('?')" in run(*command, code=1)[1]


@pytest.mark.parametrize("name", ["classify folder", "classify series", "tag", "translate"])
def test_no_answer_comes_from_numbers_that_are_not_finite(name, tmp_path):
    task = make(name, tmp_path)
    run(*task.command("--max-steps", "2", "--cell", "lstm"))
    model = tmp_path / "model"
    complete, metadata = read_weights(model / "model.safetensors")
    given = {"classify series": {"file": task.valid[0]}}.get(name, {"stdin": "ab dog\n"})
    predict = ["predict", model, *([given["file"]] if "file" in given else [])]

    def refused(message):
        for arguments in (predict, [*predict, "--json"], ["evaluate", model, *task.valid]):
            out, err = run(*arguments, stdin=given.get("stdin"), code=1)
            assert out == ""
            assert message in err
            assert "nan" not in out.lower()

    bias = next(name for name in complete if name.endswith("output.bias"))
    nan = np.where(np.arange(len(complete[bias])) == 1, np.nan, complete[bias]).astype(np.float32)
    write_weights(model / "model.safetensors", {**complete, bias: nan}, metadata)
    refused(f"{model / 'model.safetensors'}: {bias}[1] is nan; expected finite numbers")
    # All weights are finite, their sums are not.
    huge = {
        n: np.full_like(a, 3e38) for n, a in complete.items() if "output" in n or "combine" in n
    }
    huge |= {
        n: np.full_like(a, 100) for n, a in complete.items() if "bias_ih" in n
    }  # gates are open
    write_weights(model / "model.safetensors", {**complete, **huge}, metadata)
    refused(f"anaphora: {model}: ")
