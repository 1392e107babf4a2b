"""`anaphora train --task forecast`: from tables to forecasts, through a kill, and messages."""

import contextlib
import json
import math
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora import random
from anaphora.artifact import ModelDirectory, read_weights, write_weights
from anaphora.cli.app import app
from anaphora.data import read_time_series
from anaphora.models import load
from anaphora.training import (
    FORECAST,
    Callback,
    FittedForecaster,
    TrainingDiverged,
    backtest,
    fit_forecaster,
    prepare_training,
    resume_training,
    seasonal_naive,
)

SMALL = ("--hidden-size", "6", "--learning-rate", "0.01", "--max-steps", "60")
HORIZON = 4


def run(*arguments, code=0, stdin=None):
    """Run a command in this process; return standard output and standard error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, " ".join(result.stderr.split())


def write_shops(path, days=70, future=0, missing=True):
    """Two shops with a season of a week, a price that is known in advance, and missing numbers."""
    generator = np.random.default_rng(1)
    dates = np.datetime64("2024-01-01") + np.arange(days + future)
    lines = ["shop,day,price,sold"]
    for shop, size in (("north", 10), ("south", 3000)):
        price = generator.integers(0, 2, days + future)
        for k, date in enumerate(dates):
            sold = size * (5 + 4 * (k % 7 == 6) - 2 * price[k] + 0.1 * generator.standard_normal())
            cell = "" if k >= days or (missing and k in (20, 40, 41)) else f"{sold:.3f}"
            lines.append(f"{shop},{date},{price[k]},{cell}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


READING = ("--time-column", "day", "--series-column", "shop", "--known-column", "price")
COLUMNS = {"time_column": "day", "series_column": "shop", "known_columns": ["price"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model of shops; what its training wrote is in `trained.txt`."""
    folder = tmp_path_factory.mktemp("forecast")
    write_shops(folder / "shops.csv")
    write_shops(folder / "next.csv", future=HORIZON)
    out, err = run(
        "train", "--task", "forecast", folder / "shops.csv", "--horizon", HORIZON, *READING, *SMALL,
        "--out", folder / "model",
    )  # fmt: skip
    (folder / "trained.txt").write_text(out + err)
    return folder


def test_a_training_says_what_it_learns_from(folder):
    notice = " ".join((folder / "trained.txt").read_text().split())
    # The last fifth of 70 days, 2 shops; 3 numbers are missing of each before it.
    assert "2 x" not in notice
    assert "106 values to train on, 28 to validate on, 1 to forecast by day, 1 columns" in notice
    assert "horizon 4, season 7, lags up to 15 steps" in notice
    assert "best validation loss " in notice
    assert f"anaphora predict {folder / 'model'} YOUR_SERIES.csv" in notice


def test_config_has_what_the_data_decided(folder):
    config = ModelDirectory(folder / "model").load_config()
    assert config["task"] == "forecaster"
    data = config["data"]
    assert (data["frequency"], data["season"], data["context"]) == ("day", 7, 7)
    assert (data["target_column"], data["known_column"]) == (["sold"], ["price"])
    assert config["model"]["lags"] == data["lags"] == list(range(1, 16))
    assert config["model"]["feature_size"] == 1 + 7 + 4  # price, days of the week, time of the year
    out, _ = run("info", folder / "model")
    assert "a forecaster" in out
    assert "distribution" in out
    assert "validation loss" in out


def test_predict_prints_a_table_of_each_series(folder):
    out, err = run("predict", folder / "model", folder / "next.csv")
    assert err == ""
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert header == ["time", "shop", "sold 0.1", "sold", "sold 0.9"]
    assert [row[1] for row in rows] == ["north"] * 4 + ["south"] * 4
    assert [row[0] for row in rows[:4]] == ["2024-03-11", "2024-03-12", "2024-03-13", "2024-03-14"]
    series = read_time_series(folder / "next.csv", target_columns=["sold"], **COLUMNS)
    model = load(folder / "model")
    forecasts = FittedForecaster([model], model.codec).forecast(series, HORIZON)
    expected_values = forecasts[1].quantile([0.1, 0.5, 0.9])[:, :, 0].T
    found = [[float(cell) for cell in row[2:]] for row in rows[-4:]]
    np.testing.assert_allclose(found, expected_values, rtol=1e-5)
    # What a shop sells depends on its price, which the file has.
    price = series[1].known[70:, 0]
    np.testing.assert_allclose(expected_values[:, 1], 3000 * (5 - 2 * price), rtol=0.25)


def test_predict_for_machines(folder):
    out, _ = run(
        "predict", folder / "model", folder / "next.csv", "--json", "--horizon", 2, "--levels",
        "0.05,0.5", "--levels", "0.75", "--paths", 50,
    )  # fmt: skip
    north, south = map(json.loads, out.splitlines())
    assert north["series"] == "north"
    assert south["times"] == ["2024-03-11", "2024-03-12"]
    sold = south["forecasts"]["sold"]
    assert list(sold["quantiles"]) == ["0.05", "0.5", "0.75"]
    assert sold["quantiles"]["0.5"] == sold["median"]
    assert sold["quantiles"]["0.05"][1] < sold["median"][1] < sold["quantiles"]["0.75"][1]


def test_evaluate_is_a_backtest_beside_seasonal_naive(folder):
    arguments = ("evaluate", folder / "model", folder / "shops.csv", "--origins", 3)
    (line,) = run(*arguments, "--json")[0].splitlines()
    found = json.loads(line)
    series = read_time_series(folder / "shops.csv", target_columns=["sold"], **COLUMNS)
    model = load(folder / "model")
    methods = {
        "ours": FittedForecaster([model], model.codec).forecast,
        "naive": lambda series, h: seasonal_naive(series, h, 7),
    }
    scores = backtest(series, methods, HORIZON, 3, season=7)
    for name, value in scores["ours"].figures.items():
        assert found[name] == pytest.approx(value), name
    assert found["seasonal_naive"] == pytest.approx(scores["naive"].figures)
    assert (
        found["mean_absolute_scaled_error"] < found["seasonal_naive"]["mean_absolute_scaled_error"]
    )
    assert (found["tokens"], found["forecasts"]) == (2 * 3 * HORIZON, 6)
    assert math.isfinite(found["loss"])

    table = dict(line.split("  ", 1) for line in run(*arguments)[0].splitlines())
    assert table["MASE"].strip() == (
        f"{scores['ours'].mase:.4g} (seasonal naive {scores['naive'].mase:.4g})"
    )
    assert table["loss"].strip() == f"{found['loss']:.4f} nats"
    assert table["values"].strip() == "24"


def test_evaluate_with_another_horizon(folder):
    out, _ = run("evaluate", folder / "model", folder / "shops.csv", "--horizon", 2, "--json")
    assert json.loads(out)["tokens"] == 2 * 5 * 2


def result(trainer):
    """All that a training leaves, without the times."""
    directory = trainer.directory
    records = [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in directory.read_metrics()
    ]
    config = json.loads(directory.config.read_text())
    config["results"].pop("seconds")
    last = {name: p.data.tobytes() for name, p in trainer.model.named_parameters()}
    return records, config, last, directory.weights.read_bytes(), json.dumps(random.get_state())


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, loss):
        if trainer.progress.step == self.step:
            trainer.request_stop("stopped")


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.2, "zoneout": 0.1},
        {"autoregressive": False, "num_layers": 2, "weight_dropout": 0.3},
        {"distribution": "quantiles", "layer_norm": True, "dtype": "float64", "cell": "gru"},
    ],
)
def test_stopped_and_killed_anywhere(tmp_path, changes):
    """Bit for bit, though missing values are filled by the *first* weights."""
    table = write_shops(tmp_path / "shops.csv")
    options = FORECAST.options.make(
        **{"time_column": "day", "series_column": "shop", "known_column": ["price"], "horizon": 4,
           "hidden_size": 5, "batch_size": 16, "max_steps": 24, "evaluate_every": 7, "log_every": 4,
           "patience": 0, **changes}
    )  # fmt: skip
    complete = prepare_training(FORECAST, options, tmp_path / "complete", [table])
    complete.run()
    expected = result(complete)
    assert max(record["step"] for record in expected[0]) == 24

    trainer = prepare_training(FORECAST, options, tmp_path / "stopped", [table])
    for stop in (1, 6, 7, 15):
        trainer.callbacks.append(StopAt(stop))
        assert trainer.run() == "stopped"
        random.seed(stop)
        trainer = resume_training(FORECAST, tmp_path / "stopped")
        assert trainer.progress.step == stop
    checkpoint = trainer.directory.checkpoint.read_bytes()
    trainer.callbacks.append(StopAt(20))
    trainer.run()
    trainer.directory.checkpoint.write_bytes(checkpoint)  # as if killed since
    trainer = resume_training(FORECAST, tmp_path / "stopped")
    assert trainer.progress.step == 15
    trainer.run()
    for found, reference in zip(result(trainer), expected, strict=True):
        assert found == reference


def test_the_linear_model_is_kept_where_the_network_is_no_better(tmp_path):
    """A network that diverges into nonsense leaves the weights of the least squares."""
    table = write_shops(tmp_path / "shops.csv")
    options = FORECAST.options.make(
        time_column="day", series_column="shop", known_column=["price"], horizon=4, hidden_size=5,
        learning_rate=3.0, max_steps=20, evaluate_every=5,
    )  # fmt: skip
    trainer = prepare_training(FORECAST, options, tmp_path / "model", [table])
    first = {name: p.data.copy() for name, p in trainer.model.named_parameters()}
    assert trainer.progress.best_loss is not None
    with contextlib.suppress(TrainingDiverged):
        trainer.run()
    kept = load(tmp_path / "model")
    for name, parameter in kept.named_parameters():
        np.testing.assert_array_equal(parameter.data, first[name])


FIGURES = (
    "mean_absolute_scaled_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "quantile_loss",
)


def test_monitor_chooses_the_weights_and_ends_the_training(folder, tmp_path):
    """Each figure of the validation part has its best at another step here than the loss has."""
    arguments = (
        "train", "--task", "forecast", folder / "shops.csv", "--horizon", HORIZON, *READING,
        "--max-steps", 60, "--evaluate-every", 2, "--learning-rate", 0.1, "--json",
    )  # fmt: skip

    def evaluations(*more):
        records = map(json.loads, run(*arguments, *more, "--overwrite")[0].splitlines())
        return [record for record in records if record["kind"] == "evaluation"]

    out = tmp_path / "model"
    by_loss = evaluations("--patience", 0, "--out", out)
    lowest_loss = min(by_loss, key=lambda record: record["loss"])["step"]
    for figure in FIGURES:
        best = min(by_loss, key=lambda record: record[figure])
        assert best["step"] != lowest_loss
        found = evaluations("--patience", 0, "--monitor", figure, "--out", out)
        assert [r[figure] for r in found] == [r[figure] for r in by_loss]
        results = ModelDirectory(out).load_config()["results"]
        assert (results["step"], results[figure]) == (best["step"], best[figure])
    patient = evaluations("--patience", 3, "--monitor", FIGURES[0], "--out", out)
    assert [record["best"] for record in patient[-4:]] == [True, False, False, False]
    assert len(patient) < len(by_loss)


def test_progress_shows_mase_and_what_is_monitored(folder, tmp_path):
    arguments = (
        "train", "--task", "forecast", folder / "shops.csv", *READING, *SMALL, "--max-steps", 5,
        "--out", tmp_path / "model",
    )  # fmt: skip
    notice, _ = run(*arguments)
    assert re.search(r"step 5, \S+: validation loss \S+, MASE 0\.\d{4}\n", notice)
    assert re.search(r"best validation loss \S+, MASE 0\.\d{4}; the model is in", notice)
    notice, _ = run(*arguments, "--overwrite", "--monitor", "root_mean_squared_error")
    assert re.search(r"MASE 0\.\d{4}, root mean squared error [\d.]+\n", notice)


def test_a_series_that_repeats_itself_has_no_mase(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("t,y\n" + "".join(f"{k},{k % 3}\n" for k in range(60)))
    arguments = (
        "train", "--task", "forecast", table, *SMALL, "--max-steps", 2, "--season", 3, "--out",
        tmp_path / "m",
    )  # fmt: skip
    notice, _ = run(*arguments)
    assert re.search(r"validation loss \S+, mean absolute error [\d.e-]+\n", notice)
    _, err = run(*arguments, "--overwrite", "--monitor", FIGURES[0], code=2)
    assert (
        "no figure 'mean_absolute_scaled_error'; monitor one of loss, mean_absolute_error, "
        "root_mean_squared_error, quantile_loss" in err
    )


@pytest.mark.parametrize("monitor", ["loss", "mean_absolute_scaled_error"])
def test_in_memory_the_same_weights_are_learnt(tmp_path, monitor):
    table = write_shops(tmp_path / "shops.csv")
    options = FORECAST.options.make(
        time_column="day", series_column="shop", known_column=["price"], horizon=4, hidden_size=5,
        max_steps=80, evaluate_every=2, dropout=0.1, monitor=monitor,
    )  # fmt: skip
    prepare_training(FORECAST, options, tmp_path / "model", [table]).run()
    saved = load(tmp_path / "model")
    fitted = fit_forecaster(read_time_series(table, target_columns=["sold"], **COLUMNS), options)
    assert fitted.codec == saved.codec
    for found, expected in zip(fitted.models[0].parameters(), saved.parameters(), strict=True):
        np.testing.assert_array_equal(found.data, expected.data)


def test_tables_from_standard_input(folder, tmp_path):
    """The model, the forecasts and the scores are those of the file."""
    text = (folder / "next.csv").read_text()
    records = [
        dict(zip(("shop", "day", "price", "sold"), line.split(","), strict=True))
        for line in text.splitlines()[1:]
    ]
    lines = "".join(json.dumps({**r, "price": int(r["price"])}) + "\n" for r in records)
    arguments = ("--horizon", HORIZON, *READING, *SMALL, "--target-column", "sold", "--out")
    weights, tables, scores = set(), set(), []
    for number, (stdin, more) in enumerate(
        [(None, ()), (text, ()), (text, ("--format", "csv")), (lines, ("--format", "jsonl"))]
    ):
        file = folder / "next.csv" if stdin is None else "-"
        model = tmp_path / str(number)
        run("train", "--task", "forecast", file, *arguments, model, *more, stdin=stdin)
        weights.add((model / "model.safetensors").read_bytes())
        tables.add(run("predict", model, file, *more, stdin=stdin)[0])
        scores.append(json.loads(run("evaluate", model, file, *more, "--json", stdin=stdin)[0]))
        scores[-1].pop("seconds")
    assert len(weights) == len(tables) == 1
    assert all(of_table == scores[0] for of_table in scores)
    one = "".join(f"{r['day']},{r['sold']}\n" for r in records if r["shop"] == "north")
    run(
        "train", "--task", "forecast", "-", *SMALL, "--max-steps", 1, "--out", tmp_path / "one",
        stdin="day,sold\n" + one,
    )  # fmt: skip
    record = json.loads(run("predict", tmp_path / "one", "--json", stdin="day,sold\n" + one)[0])
    assert record["series"] == "standard input"


@pytest.mark.parametrize(
    ("stdin", "options", "message"),
    [
        ("", (), "standard input is empty: there is nothing to read"),
        ("day,shop,price,sold\n", (), "standard input has no row after its header"),
        ("day,shop,price,sold\n1,a,2,x\n", (), "standard input, line 2: 'sold' has 'x'"),
        ("day,shop,price\n1,a,2\n", (), "standard input has no column 'sold'"),
        ("", ("-",), "standard input (-) was given more than once"),
        ("", ("--format", "ts"), "format 'ts' is not for this task; expected one of csv, tsv"),
    ],
)
def test_what_is_refused_of_standard_input(folder, stdin, options, message):
    command = ("evaluate", folder / "model", "-", *options)
    _, err = run(*command, stdin=stdin, code=2 if "--format" in options else 1)
    assert message in err


def test_series_to_validate_on(tmp_path):
    table, other = write_shops(tmp_path / "a.csv"), write_shops(tmp_path / "b.csv", days=40)
    notice, _ = run(
        "train", "--task", "forecast", table, "--valid", other, *READING, *SMALL, "--max-steps",
        "2", "--out", tmp_path / "model",
    )  # fmt: skip
    assert "134 values to train on, 76 to validate on" in " ".join(notice.split())


def test_several_targets_of_an_axis_of_numbers(tmp_path):
    generator = np.random.default_rng(1)
    values = generator.standard_normal((60, 2)).cumsum(axis=0)
    table = tmp_path / "wide.csv"
    rows = [f"{k / 2},{a:.3f},note,{b:.3f}" for k, (a, b) in enumerate(values)]
    table.write_text("\n".join(["x,left,text,right", *rows]))
    targets = ("--target-column", "left", "--target-column", "right")
    run(
        "train", "--task", "forecast", table, *targets, *SMALL, "--max-steps", "3", "--lags",
        "1,2,4", "--horizon", "2", "--distribution", "quantiles", "--quantiles", "0.1,0.5,0.9",
        "--out", tmp_path / "model",
    )  # fmt: skip
    config = ModelDirectory(tmp_path / "model").load_config()
    assert config["model"]["lags"] == [1, 2, 4]
    assert config["model"]["quantiles"] == [0.1, 0.5, 0.9]
    out, _ = run("predict", tmp_path / "model", table)
    header, first, second = [line.split("\t") for line in out.splitlines()]
    assert header == ["time", *(f"{n}{q}" for n in ("left", "right") for q in (" 0.1", "", " 0.9"))]
    assert [first[0], second[0]] == ["30", "30.5"]
    out, _ = run("evaluate", tmp_path / "model", table)
    assert "nats" not in out  # of pinball losses


def test_no_validation_is_reported(tmp_path):
    table = tmp_path / "short.csv"
    table.write_text("t,y\n" + "".join(f"{k},{k % 3}\n" for k in range(13)))
    notice, _ = run(
        "train", "--task", "forecast", table, *SMALL, "--max-steps", "2", "--out", tmp_path / "m",
        "--season", "3", "--horizon", "3",
    )  # fmt: skip
    assert "no series is long enough to hold out its end for validation, so the last" in " ".join(
        notice.split()
    )


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("t,y\n1,2\n2,x\n", (), "'y' has 'x'; expected a finite number with a decimal point"),
        ("t,y\n1,2\n3,2\n4,1\n", (), "fill them with gaps 'missing', 'previous' or 'linear'"),
        ("t,y\n1,2\n2,2\n", (), "the series have too few steps: the longest, "),
        ("t,y\n1,2\n", ("--time-column", "when"), "has no column 'when'"),
        ("t,y\n1,2\n", ("--lags", "1,two"), "'1,two' is not a list of integers with commas"),
        ("t,y\n1,2\n", ("--lags", "2,0"), "lags [2, 0]: expected distinct numbers of at least 1"),
        ("t,y\n1,2\n", ("--frequency", "soon"), "the frequency 'soon' is unknown"),
        ("t,y\n1,2\n", ("--embedding-size", "3"), "embedding_size is for ids"),
        ("t,y\n1,2\n", ("--horizon", "0"), "horizon must be an integer of at least 1, not 0"),
        ("t,y\n1,2\n", ("--level", "word"), "--level is not for the task forecast, only for"),
        (
            "t,y\n" + "".join(f"{k},{k / 2}\n" for k in range(50)),
            ("--distribution", "negative_binomial"),
            "the distribution 'negative_binomial' is for counts 0, 1, 2, ...",
        ),
    ],
)
def test_what_a_training_refuses(tmp_path, rows, options, message):
    table = tmp_path / "t.csv"
    table.write_text(rows)
    result = CliRunner().invoke(
        app, ["train", "--task", "forecast", str(table), "--out", str(tmp_path / "m"), *options]
    )
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "m").exists()


def test_what_predict_and_evaluate_refuse(folder, tmp_path):
    _, err = run("predict", folder / "model", folder / "shops.csv", code=1)
    assert "'price' must be known for all 4 steps to forecast, but only 0 rows follow" in err
    _, err = run("predict", folder / "model", folder / "next.csv", "--horizon", 9, code=1)
    assert "only 4 rows follow the last target; add 5 rows with empty targets" in err
    _, err = run("evaluate", folder / "model", folder / "shops.csv", "--origins", 18, code=1)
    assert "a backtest of 18 origins every 4 steps, with a horizon of 4, needs at least 74" in err
    assert "north has 70" in err
    _, err = run("predict", folder / "model", folder / "next.csv", "--levels", "1.5", code=2)
    assert "levels [1.5]: expected numbers between 0 and 1" in err
    weekly = tmp_path / "weekly.csv"
    weekly.write_text("day,shop,price,sold\n" + "".join(
        f"{np.datetime64('2024-01-01') + 7 * k},north,1,{k}\n" for k in range(40)
    ))  # fmt: skip
    _, err = run("predict", folder / "model", weekly, code=1)
    assert "but the step is day; 234 of 274 steps have no row" in err
    shutil.copytree(folder / "model", tmp_path / "large")
    weights = tmp_path / "large" / "model.safetensors"
    arrays, metadata = read_weights(weights)
    write_weights(weights, arrays | {"output.weight": 0 * arrays["output.weight"] + 3e38}, metadata)
    _, err = run("predict", tmp_path / "large", folder / "next.csv", code=1)
    assert "forecast: the model's predictions are NaN or infinite" in err
    text = tmp_path / "text.txt"
    text.write_text("words\n")
    _, err = run("predict", folder / "model", text, code=1)
    assert "series to forecast are read from tables" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("observed"), "has no array observed"),
        (lambda arrays: arrays.update(targets=arrays["targets"] * np.nan), "targets"),
        (lambda arrays: arrays.update(lengths=arrays["lengths"][:1]), "after has 2 rows"),
        (lambda arrays: arrays.update(features=arrays["features"][:, :3]), "has rows of 3"),
    ],
)
def test_damaged_data_of_a_training_is_named(tmp_path, change, message):
    table = write_shops(tmp_path / "shops.csv")
    run(
        "train", "--task", "forecast", table, *READING, *SMALL, "--max-steps", "1", "--out",
        tmp_path / "model",
    )  # fmt: skip
    path = ModelDirectory(tmp_path / "model").checkpoint.parent / "train.safetensors"
    arrays = dict(read_weights(path)[0])
    change(arrays)
    write_weights(path, arrays)
    _, err = run("train", "--resume", "--out", tmp_path / "model", "--max-steps", "9", code=1)
    assert message in err
    assert "train a" in err  # anew, again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"known_mean": []}, "known_mean is []; expected 1 finite numbers"),
        ({"typical_scale": [0.0]}, "typical_scale has a number of 0 or less"),
        ({"lags": [1, 1]}, "distinct lags >= 1"),
        ({"frequency": "soon"}, "the frequency 'soon' is unknown"),
        ({"season": "7"}, "season is '7'; expected int"),
        ({"context": 9}, "model.context is 7, but tokenizer.json has 9"),
    ],
)
def test_a_damaged_codec_is_named(folder, tmp_path, change, message):
    model = load(folder / "model")
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    _, err = run("predict", tmp_path / "model", folder / "next.csv", code=1)
    assert message in err
