"""Files of any format: the same data give the same model, and messages say what was expected."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora.artifact import ModelDirectory
from anaphora.cli.app import app

SMALL = ("--hidden-size", "4", "--batch-size", "4", "--max-steps", "3", "--evaluate-every", "0")
ROWS = [("good and new", "yes"), ("bad, old", "no"), ("so good", "yes"), ("bad bad", "no")] * 5
SENTENCES = [(["It", "rains"], ["P", "V"]), (["Yes"], ["I"]), (["It", "is", "#"], ["P", "V", "S"])]
PAIRS = [("it rains", "es regnet"), ("yes", "ja"), ("no rain", "kein Regen")] * 5


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0, stdin=None):
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.stdout, result.stderr

    return run


def train(run, task, files, *options, out="model", stdin=None, code=0):
    """The weights and the options of a model that is trained on files."""
    command = ("train", *files, "--task", task, *SMALL, "--out", out, "--overwrite", *options)
    said = run(*command, code=code, stdin=stdin)
    if code:
        return said[1]
    return ModelDirectory(out).weights.read_bytes(), ModelDirectory(out).load_config()["data"]


def table(names, rows, format):
    if format == "jsonl":
        return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    separator = "," if format == "csv" else "\t"
    quoted = [[f'"{x}"' if format == "csv" else x for x in row] for row in rows]
    return "".join(separator.join(row) + "\n" for row in [names, *quoted])


def write_parquet(path, columns):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), path)


def test_a_classifier_is_the_same_from_tables_of_any_format(run):
    columns = ("--column", "body", "--label-column", "side")
    models = {}
    for format in ("csv", "tsv", "jsonl"):
        text = table(("body", "side"), ROWS, format)
        Path(f"a.{format}").write_text(text)
        models[format] = train(run, "classify", [f"a.{format}"], *columns)
        models[f"- {format}"] = train(
            run, "classify", ["-"], *columns, "--format", format, stdin=text
        )
        losses = {
            json.loads(run("evaluate", "model", *more, "--json", stdin=text)[0])["loss"]
            for more in ([f"a.{format}"], ["-", "--format", format])
        }
        assert len(losses) == 1
    write_parquet("a.parquet", dict(zip(("body", "side"), zip(*ROWS, strict=True), strict=True)))
    models["parquet"] = train(run, "classify", ["a.parquet"], *columns)
    assert len({weights for weights, _ in models.values()}) == 1
    answers = {run("predict", "model", f"a.{f}", "--json")[0] for f in ("csv", "jsonl", "parquet")}
    lines = "".join(f"{text}\n" for text, _ in ROWS)
    assert answers == {run("predict", "model", "--json", stdin=lines)[0]}


def test_a_classifier_is_the_same_from_series_of_any_format(run):
    generator = np.random.default_rng(3)
    X = generator.normal(size=(12, 5)).round(3)
    y = np.arange(12) % 2 + 1
    rows = np.column_stack([y, X])
    np.save("a.npy", rows)
    np.savez("a.npz", X=X, y=y)
    Path("a.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    values = [",".join(map(str, row)) for row in X]
    Path("a.ts").write_text(
        "@data\n" + "".join(f"{v}:{c}\n" for v, c in zip(values, y, strict=True))
    )
    head = "".join(f"@attribute a{n} numeric\n" for n in range(5))
    Path("a.arff").write_text(
        f"@relation a\n{head}@attribute class {{1,2}}\n@data\n"
        + "".join(f"{v},{c}\n" for v, c in zip(values, y, strict=True))
    )
    files = ("a.npy", "a.npz", "a.tsv", "a.ts", "a.arff")
    models = [train(run, "classify", [file])[0] for file in files]
    assert len(set(models)) == 1
    assert len({run("predict", "model", file, "--json")[0] for file in files}) == 1
    assert len(run("predict", "model", "a.tsv")[0].split()) == 12
    text = Path("a.tsv").read_text()
    assert train(run, "classify", ["-"], "--format", "ucr", stdin=text)[0] == models[0]
    err = train(run, "classify", ["a.tsv"], "--column", "2", code=2)
    assert "column is for tables, but none was given" in err


def columns_of(sentences, order, separator, between=""):
    blocks = [
        "".join(separator.join(order(word, tag)) + "\n" for word, tag in zip(*one, strict=True))
        for one in sentences
    ]
    return between + "\n".join(blocks)


def test_a_tagger_is_the_same_from_files_of_any_columns(run):
    sentences = SENTENCES * 5
    files = {
        "a.txt": (columns_of(sentences, lambda w, t: (w, "x", t), " ", "-DOCSTART- -X- O\n\n"), ()),
        "b.txt": (
            columns_of(sentences, lambda w, t: (t, "x", w), ";"),
            ("--word-column", "-1", "--tag-column", "1", "--separator", ";"),
        ),
        "c.tsv": (columns_of(sentences, lambda w, t: (w, t), "\t"), ("--tag-column", "2")),
    }
    numbered = []
    for words, tags in sentences:
        for n, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
            numbered.append(f"{n}\t{word}\t_\t{tag}\t_\t_\t_\t_\t_\t_\n")
        numbered.append("\n")
    files["d.conllu"] = ("".join(numbered), ())
    files["e.jsonl"] = (
        "".join(json.dumps({"words": w, "ner": t}) + "\n" for w, t in sentences),
        ("--word-column", "words", "--tag-column", "ner"),
    )
    models = {}
    for name, (text, options) in files.items():
        Path(name).write_text(text)
        models[name] = train(run, "tag", [name], *options)[0]
    text, _ = files["a.txt"]
    models["-"] = train(run, "tag", ["-"], "--format", "columns", stdin=text)[0]
    write_parquet(
        "f.parquet", dict(zip(("tokens", "tags"), zip(*sentences, strict=True), strict=True))
    )
    models["f"] = train(run, "tag", ["f.parquet"])[0]
    assert len(set(models.values())) == 1

    # Files without tags are answered too, and so are lines.
    Path("bare.jsonl").write_text("".join(json.dumps({"tokens": w}) + "\n" for w, _ in SENTENCES))
    Path("bare.conll").write_text("\n".join("\n".join(w) + "\n" for w, _ in SENTENCES))
    lines = "".join(" ".join(w) + "\n" for w, _ in SENTENCES)
    expected = run("predict", "model", "--json", stdin=lines)[0]
    for file in ("bare.jsonl", "bare.conll"):
        assert run("predict", "model", file, "--json")[0] == expected
    assert len(expected.splitlines()) == 3
    result = json.loads(run("evaluate", "model", "e.jsonl", *files["e.jsonl"][1], "--json")[0])
    assert result["tokens"] == 30


def test_a_translator_is_the_same_from_texts_and_tables(run):
    sides = list(zip(*PAIRS, strict=True))
    for name, side in zip(("a.en", "a.de"), sides, strict=True):
        Path(name).write_text("".join(f"{line}\n" for line in side))
    Path("a.tsv").write_text(table(("en", "de"), PAIRS, "tsv"))
    Path("b.jsonl").write_text(
        table(("id", "target", "source"), [("1", t, s) for s, t in PAIRS], "jsonl")
    )
    expected, data = train(run, "translate", ["a.en", "a.de"])
    assert data["split"] == "whitespace"
    assert train(run, "translate", ["a.tsv"])[0] == expected
    assert train(run, "translate", ["b.jsonl"])[0] == expected
    named = ("--source-column", "en", "--target-column", "de")
    text = Path("a.tsv").read_text()
    more = (*named, "--format", "tsv")
    assert train(run, "translate", ["-"], *more, stdin=text)[0] == expected
    answers = run("predict", "model", "a.en", "--json")[0]
    assert run("predict", "model", "a.tsv", "--json")[0] == answers
    assert run("predict", "model", "b.jsonl", "--source-column", "source", "--json")[0] == answers
    losses = {
        json.loads(run("evaluate", "model", *files, "--json")[0])["loss"]
        for files in (["a.en", "a.de"], ["a.tsv"])
    }
    assert len(losses) == 1


def test_a_language_model_is_the_same_from_tables(run):
    lines = [text for text, _ in ROWS]
    Path("a.txt").write_text("".join(f"{line}\n" for line in lines))
    Path("a.jsonl").write_text(table(("body", "side"), ROWS, "jsonl"))
    small = ("--window", "5", "--minimum-count", "1")
    expected = train(run, "language-model", ["a.txt"], *small)[0]
    column = ("--column", "body")
    assert train(run, "language-model", ["a.jsonl"], *small, *column)[0] == expected
    text = Path("a.jsonl").read_text()
    found = train(run, "language-model", ["-"], *small, *column, "--format", "jsonl", stdin=text)
    assert found[0] == expected
    results = [json.loads(run("evaluate", "model", f, "--json")[0]) for f in ("a.txt", "a.jsonl")]
    assert results[0]["loss"] == results[1]["loss"]


def test_punctuation_is_split_off_raw_pairs_alone(run):
    raw = [("It rains, again.", "Es regnet, wieder.")] * 10
    apart = [("It rains , again .", "Es regnet , wieder .")] * 10
    for name, pairs in (("raw", raw), ("apart", apart)):
        Path(f"{name}.jsonl").write_text(table(("source", "target"), pairs, "jsonl"))
    weights, data = train(run, "translate", ["raw.jsonl"])
    other, others = train(run, "translate", ["apart.jsonl"])
    assert weights == other  # the same words
    assert (data["split"], others["split"]) == ("punctuation", "whitespace")
    _, data = train(run, "translate", ["raw.jsonl"], "--split", "whitespace")
    assert data["split"] == "whitespace"
    assert "raw.jsonl" in ModelDirectory("model").load_config()["sources"]["texts"]


def test_texts_of_several_words_are_classified_by_words(run):
    columns = ("--column", "text", "--label-column", "side")
    cases = {
        "words": ([("so good", "a"), ("bad", "b"), ("not so bad", "b")] * 5, "word"),
        "names": ([("Ada", "a"), ("de Vries", "b"), ("Bo", "b")] * 5, "char"),
    }
    for name, (rows, level) in cases.items():
        Path(f"{name}.csv").write_text(table(("text", "side"), rows, "csv"))
        weights, data = train(run, "classify", [f"{name}.csv"], *columns)
        assert data["level"] == level
        assert train(run, "classify", [f"{name}.csv"], *columns, "--level", level)[0] == weights
        other = "char" if level == "word" else "word"
        assert train(run, "classify", [f"{name}.csv"], *columns, "--level", other)[0] != weights
    err = train(run, "classify", ["names.csv"], *columns, "--lowercase", out="x", code=2)
    assert "most of the texts have at most one word, so they are read by characters" in err
    assert not Path("x").exists()
    for more, expected in [
        ((), ("mean", 0.3)),
        (("--dropout", "0.4"), ("mean", 0.4)),
        (("--preset", "series", "--pooling", "last"), ("last", 0.2)),
    ]:
        _, data = train(run, "classify", ["words.csv"], *columns, "--lowercase", *more)
        assert data["lowercase"] is True
        model = ModelDirectory("model").load_config()["model"]
        assert (model["pooling"], model["dropout"]) == expected
    run("train", "--resume", "--out", "model", "--max-steps", "5")
    assert json.loads(run("evaluate", "model", "words.csv", "--json")[0])["tokens"] == 15


def test_words_that_become_unknown_are_reported(run):
    Path("a.txt").write_text("a a a b b c <unk>\n" * 4 + "d e e\n")
    small = ("--window", "5", "--level", "word", "--validation-share", "0", "--task",
             "language-model", *SMALL, "--out", "model", "--overwrite")  # fmt: skip
    out, _ = run("train", "a.txt", *small, "--minimum-count", "3")
    assert (
        "the vocabulary has 5 entries; 2 rarer words become unknown: 3 of the 36 tokens "
        "(8.33%); --minimum-count 1 without --vocabulary-size keeps all words\n"
    ) in out
    out, _ = run("train", "a.txt", *small, "--minimum-count", "1")
    assert "unknown" not in out.split("parameters")[0].replace("unknown)", "")


@pytest.mark.parametrize(
    ("task", "files", "options", "code", "message"),
    [
        ("classify", {"a.jsonl": "{]"}, ["--column", "t", "--label-column", "l"], 1,
         "a.jsonl, line 1: this is not JSON"),
        ("classify", {"a.jsonl": '{"t": "x"}\n'}, ["--column", "t", "--label-column", "l"], 1,
         "there is no field 'l'; it has 't'"),
        ("classify", {"a.jsonl": '{"t": "x", "l": "y"}\n'}, [], 1,
         "say with --column and --label-column which columns hold the texts and their labels; it "),
        ("classify", {"a.txt": "x\n"}, ["--format", "conllu"], 2,
         "format 'conllu' is not for this task; expected one of csv, tsv, jsonl, parquet, arrow, "
         "d"),
        ("classify", {"a.txt": "x\n"}, ["--column", "t"], 2,
         "column is for tables, but none was given; give the format of files"),
        ("classify", {"a.ts": "@targetLabel true\n@data\n1,2:0.5\n"}, [], 1,
         "a.ts has numeric targets (@targetLabel true, or a numeric attribute), but classify"),
        ("classify", {"a.ts": "@targetLabel true\n@data\n1,2:0.5\n"}, [], 1, "--task regress"),
        ("classify", {"a.npz": ""}, [], 1, "a.npz"),
        ("classify", {"a.ts": "@data\n1:x\n", "b.csv": "a,b\n1,2\n"}, [], 1,
         "both texts and series were given"),
        ("tag", {"a.txt": "It P\n"}, ["--tag-column", "3"], 1,
         "a.txt, line 1: there are 2 columns, but column 3 was requested"),
        ("tag", {"a.txt": "It P\nrains\n"}, [], 1,
         "a.txt, line 2: there are 1 columns, where line 1 has 2"),
        ("tag", {"a.txt": "It P\n"}, ["--tag-column", "UPOS"], 1, "there is no column 'UPOS'"),
        ("tag", {"a.txt": "It P\n"}, ["--separator", ""], 2, "separator is empty"),
        ("tag", {"a.jsonl": '{"tokens": ["It"]}\n'}, [], 1,
         "a.jsonl has no column 'tags'; it has 'tokens'; name one of them with --tag-column"),
        ("tag", {"a.txt": "It P\n"}, ["--format", "csv"], 2, "format 'csv' is not for this task"),
        ("translate", {"a.txt": "x\n"}, [], 1, "needs two files, the source and the target; 1"),
        ("translate", {"a.csv": "a,b,c\n1,2,3\n"}, [], 1,
         "say with --source-column and --target-column which columns hold the sources and the tar"),
        ("translate", {"a.en": "x\n", "a.de": "y\n"}, ["--source-column", "x"], 2,
         "source_column is for tables, but none was given"),
        ("language-model", {"a.txt": "x\n"}, ["--format", "ts"], 2,
         "format 'ts' is not for this task; expected one of csv, tsv, jsonl, parquet, arrow, data"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(run, task, files, options, code, message):
    for name, text in files.items():
        Path(name).write_text(text)
    assert message in train(run, task, sorted(files, reverse="a.en" in files), *options, code=code)
    assert not Path("model").exists()
