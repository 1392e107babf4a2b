"""`anaphora train --task classify` on series, with the defaults: frames, and their preset."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from anaphora.cli.app import app
from anaphora.data import read_series
from anaphora.models import load
from anaphora.training import classify


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Series of 120 steps: a burst of fast or of slow movement, somewhere in noise."""
    folder, generator = tmp_path_factory.mktemp("series"), np.random.default_rng(3)
    for part, count in (("train", 80), ("test", 40)):
        lines = []
        for number in range(count):
            x = 0.3 * generator.normal(size=120)
            start, period = generator.integers(0, 90), (4, 10)[number % 2]
            x[start : start + 30] += np.sin(2 * np.pi * np.arange(30) / period)
            lines.append(
                ",".join(f"{value:.4f}" for value in x) + f":{('fast', 'slow')[number % 2]}"
            )
        header = "@classLabel true fast slow\n@data\n"
        (folder / f"{part}.ts").write_text(header + "\n".join(lines))
    return folder


def test_the_files_choose_the_preset_and_what_is_given_stays(folder, tmp_path):
    few = ("--max-steps", "8", "--hidden-size", "5")
    run("train", folder / "train.ts", "--task", "classify", *few, "--out", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["data"]["max_frames"] == 32
    assert (config["model"]["cell"], config["model"]["hidden_size"]) == ("gru", 5)
    assert (config["training"]["optimizer"], config["training"]["max_steps"]) == ("adamw", 8)
    model = load(tmp_path / "model")
    assert (model.codec.frames.stride, model.codec.frames.size, model.input_size) == (4, 12, 13)
    with pytest.raises(ValueError, match=r"has no session.*--no-bidirectional"):
        model.session()
    run("train", "--resume", "--out", tmp_path / "model", "--max-steps", "9")

    steps = (*few, "--max-frames", "0", "--no-bidirectional")
    run("train", folder / "train.ts", "--task", "classify", *steps, "--out", tmp_path / "steps")
    one = load(tmp_path / "steps")
    assert (one.codec.frames, one.input_size) == (None, 1)
    assert one.session().feed(np.ones((7, 1))).shape == (7, 2)


def test_what_reads_frames_in_one_direction_streams(folder, tmp_path):
    few = ("--max-steps", "8", "--hidden-size", "5", "--no-bidirectional")
    run("train", folder / "train.ts", "--task", "classify", *few, "--out", tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.codec.frames.size == 12
    series, _ = read_series(folder / "test.ts")
    session = model.session()
    for one, expected in zip(series[:3], classify(model, series[:3]), strict=True):
        session.reset()
        shares = session.feed(one)[-1]
        assert dict(zip(model.codec.classes, shares, strict=True)) == pytest.approx(expected)


def test_the_defaults_find_short_movements(folder, tmp_path):
    out = tmp_path / "model"
    run("train", folder / "train.ts", "--task", "classify", "--max-steps", "150", "--out", out)
    result = json.loads(run("evaluate", out, folder / "test.ts", "--json"))
    assert result["accuracy"] >= 0.9
