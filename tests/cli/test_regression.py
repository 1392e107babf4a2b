"""`anaphora train --task regress`: numbers of texts and series, from file to answer."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora.artifact import ModelDirectory
from anaphora.cli.app import app
from anaphora.models import load

SMALL = (
    "--task", "regress", "--hidden-size", "12", "--batch-size", "8", "--dropout", "0",
    "--learning-rate", "0.02", "--evaluate-every", "40", "--max-steps", "160",
)  # fmt: skip
TABLE = ("--column", "notes", "--level", "word")
PRICES = {"oak": 3.0, "plum": -2.0, "cork": -6.0, "lime": 0.0}


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


def wines(generator, count):
    """Texts with a price and a weight that follow from their words."""
    for _ in range(count):
        words = generator.choice(list(PRICES), generator.integers(1, 5)).tolist()
        price = 1000 + 10 * sum(PRICES[word] for word in words) / len(words)
        yield " ".join(words), round(price, 3), 0.5 * ("oak" in words)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("tables"), np.random.default_rng(5)
    for part, count in (("train", 160), ("valid", 60)):
        rows = "".join(f"{text},{price},{oak}\n" for text, price, oak in wines(generator, count))
        (folder / f"{part}.csv").write_text("notes,price,oaky\n" + rows)
    return folder


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Series of two channels, 4 to 9 steps, whose number is the mean of the first."""
    folder, generator = tmp_path_factory.mktemp("series"), np.random.default_rng(6)
    for part, count in (("train", 120), ("valid", 60)):
        text = "@targetLabel true\n@data\n"
        for _ in range(count):
            x = 50 + 9 * generator.standard_normal((generator.integers(4, 10), 2))
            channels = (",".join(f"{value:.4f}" for value in channel) for channel in x.T)
            text += f"{':'.join(channels)}:{-3 * x[:, 0].mean():.5f}\n"
        (folder / f"{part}.ts").write_text(text)
    return folder


def errors(actual, answers):
    """RMSE, MAE and R2 as the textbook has them."""
    residual = np.asarray(actual) - answers
    spread = np.square(actual - np.mean(actual)).sum()
    return {
        "root_mean_squared_error": np.sqrt(np.mean(residual**2)),
        "mean_absolute_error": np.abs(residual).mean(),
        "r2": 1 - np.square(residual).sum() / spread,
    }


def check(model, valid, training, actual):
    """What evaluate says is what the predictions say; the prediction is better than the mean."""
    records = [json.loads(line) for line in run("predict", model, valid, "--json")[0].splitlines()]
    answers = np.array([record["prediction"] for record in records])
    plain = np.array(run("predict", model, valid)[0].split(), float)
    np.testing.assert_allclose(plain, answers, rtol=1e-5)
    found = json.loads(run("evaluate", model, valid, "--json")[0])
    for name, value in errors(actual, answers).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4)
    assert found["mean_squared_error"] == pytest.approx(found["root_mean_squared_error"] ** 2)
    of_mean = np.sqrt(np.mean(np.square(np.asarray(actual) - np.mean(training))))
    assert found["root_mean_squared_error_of_mean"] == pytest.approx(of_mean)
    assert found["root_mean_squared_error"] < 0.25 * of_mean
    assert found["tokens"] == len(actual)
    return found


def prices(path):
    return [float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]]


def test_prices_of_texts(tables, tmp_path):
    files = tables / "train.csv", "--valid", tables / "valid.csv"
    model = tmp_path / "model"
    options = *SMALL, *TABLE, "--target-column", "price"
    printed, _ = run("train", *files, *options, "--out", model)
    assert "160 examples to train on, 60 to validate on, a vocabulary of 6" in printed
    valid = tables / "valid.csv"
    found = check(model, valid, prices(tables / "train.csv"), prices(valid))
    best = found["root_mean_squared_error"]
    told = f"root mean squared error {best:.4g} (predicting the training mean: "
    assert f", {told}" in printed.split("best validation: loss")[1]
    assert told in run("info", model)[0]
    out, err = run("predict", model, "--json", stdin="oak\n\nzzz oak\n")
    first, blank, unknown = map(json.loads, out.splitlines())
    assert first["text"] == "oak"
    assert abs(first["prediction"] - 1030) < 5
    assert blank == {"text": "", "prediction": None}
    assert unknown["prediction"] != first["prediction"]
    assert "line 2: nothing to read there" in err
    assert "'zzz'" in err
    out, _ = run("evaluate", model, valid)
    assert "nats" not in out
    assert f"mean absolute error         {found['mean_absolute_error']:.6g}" in out
    assert "error of the training mean  " in out
    records = ModelDirectory.open(model).read_metrics()
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert [r["step"] for r in evaluations] == [40, 80, 120, 160]
    for record in records:  # the loss is of standardised targets, so no error follows from it
        assert ("root_mean_squared_error" in record) == (record["kind"] == "evaluation")
    best = min(evaluations, key=lambda record: record["root_mean_squared_error"])
    assert best["root_mean_squared_error"] == pytest.approx(found["root_mean_squared_error"])


def test_several_numbers_of_a_text(tables, tmp_path):
    files = tables / "train.csv", "--valid", tables / "valid.csv"
    model = tmp_path / "model"
    run("train", *files, *SMALL, *TABLE, "--target-column", "price, oaky", "--out", model)
    out, _ = run("predict", model, tables / "valid.csv", "--json")
    answers = [json.loads(line)["predictions"] for line in out.splitlines()]
    rows = [line.split(",") for line in (tables / "valid.csv").read_text().splitlines()[1:]]
    found = json.loads(run("evaluate", model, tables / "valid.csv", "--json")[0])
    for column, name in ((1, "price"), (2, "oaky")):
        actual = np.array([float(row[column]) for row in rows])
        expected = errors(actual, np.array([answer[name] for answer in answers]))
        assert found["targets"][name] == pytest.approx(expected, rel=1e-4)
        assert expected["r2"] > 0.5
    table = run("evaluate", model, tables / "valid.csv")[0].split("\n\n")[1]
    assert table.split()[:5] == ["target", "RMSE", "MAE", "R2", "price"]
    line = run("predict", model, stdin="oak\n")[0]
    price, oaky = map(float, line.split("\t"))
    assert abs(price - 1030) < 8
    assert abs(oaky - 0.5) < 0.2
    out, _ = run("predict", model, "--json", stdin="\n")
    assert json.loads(out) == {"text": "", "predictions": {}}


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber"])
def test_numbers_of_series_by_each_loss(series, tmp_path, loss):
    model = tmp_path / "model"
    valid = series / "valid.ts"
    run("train", series / "train.ts", "--valid", valid, *SMALL, "--loss", loss, "--out", model)
    lines = {part: (series / f"{part}.ts").read_text().split("\n") for part in ("train", "valid")}
    numbers = {
        part: [float(line.split(":")[2]) for line in of if ":" in line]
        for part, of in lines.items()
    }
    found = check(model, valid, numbers["train"], numbers["valid"])
    actual, answers = np.array(numbers["valid"]), run("predict", model, valid)[0].split()
    d = np.abs(actual - np.array(answers, float)) / np.std(numbers["train"])
    losses = {"squared": d**2, "absolute": d, "huber": np.where(d < 1, d**2 / 2, d - 0.5)}
    assert found["loss"] == pytest.approx(losses[loss].mean(), rel=1e-3)
    assert load(model).codec.target_mean == pytest.approx(np.mean(numbers["train"]))


def test_a_training_that_goes_on_is_bit_for_bit_one_that_never_stopped(series, tmp_path):
    command = "train", series / "train.ts", *SMALL, "--loss", "huber"
    run(*command, "--max-steps", "60", "--schedule", "constant", "--out", tmp_path / "all")
    run(*command, "--max-steps", "25", "--schedule", "constant", "--out", tmp_path / "part")
    run("train", "--resume", "--out", tmp_path / "part", "--max-steps", "60")
    states = []
    for name in ("all", "part"):
        arrays, metadata = ModelDirectory.open(tmp_path / name).load_checkpoint()
        best = metadata["progress"]["best"], metadata["progress"]["best_loss"]
        states.append(({key: array.tobytes() for key, array in arrays.items()}, best))
    assert states[0][0] == states[1][0]
    losses = [
        {record["step"]: record["loss"] for record in ModelDirectory.open(path).read_metrics()}
        for path in (tmp_path / "all", tmp_path / "part")
    ]
    assert losses[0][60] == losses[1][60]


def test_arrays_with_numbers(tmp_path):
    generator = np.random.default_rng(3)
    x = 9 * generator.standard_normal((90, 6, 2))
    np.savez(tmp_path / "train.npz", X=x, y=x[:, :, 1].mean(axis=1) + 0.25)
    run("train", tmp_path / "train.npz", *SMALL, "--out", tmp_path / "model")
    found = json.loads(run("evaluate", tmp_path / "model", tmp_path / "train.npz", "--json")[0])
    assert found["r2"] > 0.9
    assert len(run("predict", tmp_path / "model", tmp_path / "train.npz")[0].split()) == 90


def test_series_are_read_in_frames_unless_each_step_is_asked_for(tmp_path):
    generator = np.random.default_rng(8)
    x = generator.standard_normal((20, 90, 2)).cumsum(axis=1)
    np.savez(tmp_path / "train.npz", X=x, y=x[:, :, 1].mean(axis=1))
    small = ("--task", "regress", "--hidden-size", "5", "--max-steps", "4")
    inputs = {}
    for name, more in {
        "default": (), "few": ("--max-frames", "10"), "steps": ("--max-frames", "0"),
        "named": ("--preset", "series"),
    }.items():  # fmt: skip
        run("train", tmp_path / "train.npz", *small, *more, "--out", tmp_path / name)
        model = load(tmp_path / name)
        inputs[name] = model.codec.input_batch(x[:1], "float32").inputs[:, 0]
        config = ModelDirectory.open(tmp_path / name).load_config()
        assert config["data"]["max_frames"] == {"few": 10, "steps": 0}.get(name, 32)
        assert config["training"]["monitor"] == "root_mean_squared_error"
        assert model.input_size == inputs[name].shape[1]
        assert len(run("predict", tmp_path / name, tmp_path / "train.npz")[0].split()) == 20
    assert {name: array.shape for name, array in inputs.items()} == {
        "default": (30, 2 * 10), "named": (30, 2 * 10),  # strides of 3, frames of 9 and their means
        "few": (10, 2 * 28), "steps": (90, 2),
    }  # fmt: skip
    codec = load(tmp_path / "steps").codec
    np.testing.assert_allclose(inputs["steps"], (x[0] - codec.mean) / codec.scale, rtol=1e-4)
    few = load(tmp_path / "few").codec.frames
    means = few.deviation * inputs["few"].reshape(10, 28, 2)[:, -1] + few.mean
    np.testing.assert_allclose(means[1], x[0, 9:36].mean(axis=0), rtol=1e-3)


def test_it_is_reported_when_the_mean_is_as_good(tmp_path):
    generator = np.random.default_rng(4)
    rows = [f"{text},{generator.standard_normal():.4f}\n" for text, _, _ in wines(generator, 120)]
    (tmp_path / "noise.csv").write_text("notes,luck\n" + "".join(rows))
    files = tmp_path / "noise.csv", "--validation-share", "0.5", "--target-column", "luck"
    printed, _ = run("train", *files, *SMALL, *TABLE, "--out", tmp_path / "model")
    last = printed.split("best validation: loss")[1]
    record = json.loads((tmp_path / "model" / "config.json").read_text())["results"]
    worse = record["root_mean_squared_error"] >= record["root_mean_squared_error_of_mean"]
    assert ("no better than predicting the training mean (" in last) == worse
    assert worse  # of noise


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,1\nb,two\n", {}, "line 3: 'two' in column 'n' is not a finite number; write it as 1"),
        ("a,1\nb,\n", {}, "line 3: the row has no number in column 'n'; fill it in, or remove"),
        ("a,1\nb,nan\n", {}, "line 3: 'nan' in column 'n' is not a finite number"),
        ("a,1\nb,1_0\n", {}, "line 3: '1_0' in column 'n' is not a finite number"),
        ("a,1\nb,1e999\n", {}, "line 3: '1e999' in column 'n' is not a finite number"),
        ("a,3\nb,3\n", {}, "all examples have the same n, 3; give examples"),
        ("a,1e300\nb,-1e300\n", {}, "whose squares overflow float64"),
        (",1\n ,2\n", {}, "holds no text in column 't': there is nothing to read"),
        ("a,1\nb,2\n", {"--target-column": None}, "say with --column which column holds the texts,"
         " and with --target-column which holds the numbers to predict; it has 't', 'n'"),
        ("a,1\nb,2\n", {"--target-column": "m"}, "no column 'm'"),
        ("a,1\nb,2\n", {"--target-column": "n,n"}, "has a repeated or an empty name"),
        ("a,1\nb,2\n", {"--target-column": "n,"}, "has a repeated or an empty name"),
        ("a,1\nb,2\n", {"--loss-per": "sequence"}, "loss_per 'sequence' is for tokens"),
        ("a,1\nb,2\n", {"--loss": "cubic"}, "'cubic' is not one of 'squared', 'absolute', 'hube"),
        ("a,1\nb,2\n", {"--label-column": "n"}, "--label-column is not for the task regress"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path, content, options, message):
    (tmp_path / "table.csv").write_text("t,n\n" + content)
    given = {"--column": "t", "--target-column": "n", "--validation-share": "0", **options}
    arguments = [word for pair in given.items() if pair[1] is not None for word in pair]
    result = CliRunner().invoke(
        app,
        ["train", str(tmp_path / "table.csv"), *SMALL, *arguments, "--out", str(tmp_path / "m")],
    )
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split()).replace("│ ", "")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.ts", "@classLabel true 1 2\n@data\n1,2:1\n2,1:2\n", (), "has classes, such as '1', but "
         "regress needs numbers: for numeric targets, write @targetLabel true instead"),
        ("a.ts", "@classLabel false\n@data\n1,2\n2,1\n", (), "has no targets, which train"),
        ("a.ts", "@targetLabel true\n@data\n1,2:5\n2,1:7\n", ("--level", "word"), "level is for"),
        ("a.ts", "@targetLabel true\n@data\n1,2:5\n2,1:7\n", ("--target-column", "n"),
         "target_column is for tables, but none was given"),
        ("a.txt", "a text\n", (), "a.txt is not a table; texts with numbers are read from .csv"),
    ],
)  # fmt: skip
def test_other_files_that_are_refused(tmp_path, name, content, options, message):
    (tmp_path / name).write_text(content)
    code = 2 if "target_column" in message or "level" in message else 1
    result = CliRunner().invoke(
        app, ["train", str(tmp_path / name), *SMALL, *options, "--out", str(tmp_path / "m")]
    )
    assert result.exit_code in (1, code), result.output
    assert message in result.stderr


def test_a_damaged_codec_is_named(series, tmp_path):
    model = tmp_path / "model"
    run("train", series / "train.ts", *SMALL, "--max-steps", "2", "--out", model)
    kept = (model / "tokenizer.json").read_text()
    for change, message in [
        ({"target_scale": [0.0]}, "target_scale[0] is 0.0; expected a number above 0"),
        ({"target_mean": []}, "target_mean has 0 numbers and target_scale 1"),
        ({"targets": ["a", "a"]}, "targets has 'a' twice; expected each once"),
        ({"targets": ["a", "b"]}, "target_mean has 1 numbers; expected one for each of the 2 tar"),
        ({"mean": [1.0]}, "mean has 1 numbers and scale 2; expected one of each for every channel"),
    ]:
        (model / "tokenizer.json").write_text(json.dumps({**json.loads(kept), **change}))
        assert message in run("predict", model, series / "valid.ts", code=1)[1]
