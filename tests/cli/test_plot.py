"""`anaphora plot` as a user runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import anaphora
from anaphora.artifact import ModelDirectory
from anaphora.models import LanguageModel
from anaphora.plot import read, token_embeddings

pytest.importorskip("matplotlib")


def test_plot_draws_everything_and_says_what(trained, tmp_path):
    out, err = trained.run(
        "plot", "model", "--text", "the same words", "--word", "e", "--json",
        "--out", tmp_path / "new" / "folder", "--format", "svg", "--compare", "model",
    )  # fmt: skip
    record = json.loads(out)
    names = ["losses", "embeddings", "states", "gates", "text"]
    assert [*record["files"]] == names
    for name in names:
        path = tmp_path / "new" / "folder" / f"{name}.svg"
        assert record["files"][name] == str(path)
        assert "<svg" in path.read_text()[:1000]
        assert f"wrote {path}\n" in err
    model = LanguageModel.load(trained.folder / "model")
    tokenizer = model.codec
    reading = read(model, tokenizer, "the same words")
    assert (record["value"], record["unit"]) == ("c_l0", reading.unit)
    nearest = token_embeddings(model, tokenizer, ["e"]).data["nearest"]
    assert record["nearest"]["e"] == [[label, cosine] for label, cosine in nearest["e"]]
    assert "nearest to 'e': '" in err


def test_plot_without_a_text_draws_what_needs_none(trained):
    out, _ = trained.run("plot", "model")
    assert out == "wrote model/plots/losses.png\nwrote model/plots/embeddings.png\n"
    out, _ = trained.run("plot", "model", "--picture", "text", "--text", "a", "--value", "f_l0")
    assert out == "wrote model/plots/text.png\n"


def test_units_are_chosen_and_sorted(trained):
    plot = ["plot", "model", "--picture", "gates", "--text", "the same words", "--json"]
    out, _ = trained.run(*plot, "--units", "selective", "--max-units", "3")
    model = LanguageModel.load(trained.folder / "model")
    reading = read(model, model.codec, "the same words", units="selective", max_units=3)
    assert json.loads(out)["unit"] == reading.unit
    assert reading.gates.data["f_l0"].shape[1] == 3
    out, _ = trained.run(*plot, "--units", "5,2")
    assert json.loads(out)["unit"] == 5
    _, err = trained.run(*plot, "--units", "loud", code=2)
    message = "--units 'loud' is none of all, similar, active, selective, nor numbers such as 3,17"
    assert message in " ".join(err.replace("│", " ").split())
    _, err = trained.run(*plot, "--units", "5,8", code=2)
    assert "there is no unit 8; the units are 0 to 7" in " ".join(err.replace("│", " ").split())


def test_diagrams_are_svg(trained):
    out, _ = trained.run(
        "plot", "model", "--picture", "cell", "--picture", "unrolled", "--picture", "batching",
        "--batch-size", "2", "--window", "3", "--text", "the same", "--json",
    )  # fmt: skip
    files = json.loads(out)["files"]
    assert files == {name: f"model/plots/{name}.svg" for name in ("cell", "unrolled", "batching")}
    svg = {name: (trained.folder / file).read_text() for name, file in files.items()}
    assert "The cell lstm" in svg["cell"]
    assert "inputs t, h, e, ·, s, a, m; outputs h, e, ·, s, a, m, e" in svg["unrolled"]
    assert ">LSTM<" in svg["unrolled"]
    assert "A text of 8 tokens as 2 streams, read in 1 window of 3 steps" in svg["batching"]


def test_plot_is_not_written_through_a_link(trained, command):
    shutil.copytree(trained.folder / "model", command.folder / "model")
    shutil.rmtree(command.folder / "model" / "plots", ignore_errors=True)
    mine = command.folder / "mine"
    mine.mkdir()
    (mine / "losses.png").write_text("mine")
    plots = command.folder / "model" / "plots"
    plots.symlink_to(mine)
    _, err = command.run("plot", "model", "--picture", "losses", code=1)
    assert "model/plots: cannot be written: plots is a symbolic link; replace it" in err
    plots.unlink()
    plots.mkdir()
    (plots / "losses.png").symlink_to(mine / "losses.png")
    command.run("plot", "model", "--picture", "losses")
    assert (mine / "losses.png").read_text() == "mine"
    assert not (plots / "losses.png").is_symlink()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--picture", "gates"], 2, "--picture gates needs --text"),
        (["--picture", "unrolled"], 2, "--picture unrolled needs --text"),
        (["--picture", "batching"], 2, "--picture batching needs --text"),
        (["--picture", "batching", "--text", "the"], 1, "the text has 3 tokens, but one window"),
        (["--picture", "dreams"], 2, "'dreams' is not one of"),
        (["--text", "the", "--unit", "8"], 2, "there is no unit 8; those of c_l0 are 0 to 7"),
        (["--text", "the", "--value", "z_l0"], 2, "no value 'z_l0'; this model has i_l0, f_l0"),
        (["--word", "☃"], 2, "'☃' is not one of the "),
        (["--text", "☃"], 1, "is not in the vocabulary"),
    ],
)
def test_plot_says_what_is_wrong(trained, options, code, message):
    _, err = trained.run("plot", "model", *options, code=code)
    assert message in " ".join(err.replace("│", " ").split())


def test_plot_of_what_is_no_model_or_has_no_losses(trained, command):
    _, err = command.run("plot", ".", code=1)
    assert err.startswith("anaphora: .: is not a model directory")
    parts = ModelDirectory.open(trained.folder / "model").load()
    ModelDirectory.create(command.folder / "bare").save(*parts)
    out, _ = command.run("plot", "bare")
    assert out.startswith("no picture of losses: none are recorded yet\nwrote bare")


def test_plot_without_matplotlib_names_the_extra(trained, tmp_path):
    script = "import sys; sys.modules['matplotlib'] = None; from anaphora.cli import main; main()"
    (tmp_path / "run.py").write_text(script)
    done = subprocess.run(
        [
            sys.executable,
            str(tmp_path / "run.py"),
            "plot",
            str(trained.folder / "model"),
            "--out",
            str(trained.folder / "model" / "pictures"),
        ],
        env={"PYTHONPATH": str(Path(anaphora.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert not (trained.folder / "model" / "pictures").exists()
    assert done.stderr.endswith('anaphora: pictures need an extra: pip install "anaphora[plot]"\n')
