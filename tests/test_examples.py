"""The files in examples/ run as they stand, in tiny sizes."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import anaphora

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SOURCE = Path(anaphora.__file__).parent.parent


def run(name: str, *arguments: object) -> str:
    """What an example prints."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "digits_to_words.py",
        "execute_programs.py",
        "language_model.py",
        "new_cell.py",
        "translation.py",
    }


def test_language_model(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("A word that refers back to what was said before.\n" * 40, encoding="utf-8")
    sizes = ("--hidden-size", 16, "--batch-size", 4, "--window", 16, "--epochs", 4)
    printed = run("language_model.py", text, "--cell", "gru", "--learning-rate", 0.02, *sizes)
    lines = [line for line in printed.splitlines() if line.startswith("epoch ")]
    losses = [float(line.split("validation loss ")[1].split(",")[0]) for line in lines]
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 0.5
    sample = printed.partition(lines[-1] + "\n")[2]
    assert len(sample) == 301  # and the line end


def test_new_cell():
    printed = run("new_cell.py", "--steps", 10, "--length", 6, "--hidden-size", 3)
    assert "cell forgetful: gates f n; state h" in printed
    assert "    h' = t1 + t3\n" in printed
    assert printed.count("mean squared error") == 10  # five lines a cell
    trace = [line for line in printed.splitlines() if "  f = " in line]
    assert len(trace) == 6
    assert sum(" * " in line for line in trace) == 2
    assert "wanted" in printed.splitlines()[-1]


def main_of(name: str, *arguments: object) -> dict:
    """What the main function of an example returns."""
    return runpy.run_path(str(EXAMPLES / name))["main"]([str(a) for a in arguments])


def test_translation(tmp_path, capsys):
    pytest.importorskip("sacrebleu", reason='needs the extra "examples"')
    rng = np.random.default_rng(1)
    words = {"a": "ein", "dog": "hund", "cat": "katze", "runs": "rennt", "sees": "sieht"}
    for part, count in (("train", 200), ("val", 10), ("test_2016_flickr", 10)):
        lines = [rng.choice(list(words), rng.integers(1, 5)) for _ in range(count)]
        for ending, of in (("en", str), ("de", words.__getitem__)):
            text = "".join(" ".join(of(str(w)) for w in line) + "\n" for line in lines)
            (tmp_path / f"{part}.{ending}").write_text(text, encoding="utf-8")
    sizes = ("--hidden-size", 32, "--embedding-size", 16, "--batch-size", 8, "--dropout", 0)
    out = ("--out", tmp_path / "model")
    rate = ("--learning-rate", 0.02, "--epochs", 20)
    found = main_of("translation.py", tmp_path, *out, *sizes, *rate)
    assert len(found["validation_losses"]) == 20
    assert found["validation_losses"][-1] < found["validation_losses"][0] / 2
    assert found["bleu"] > 60
    assert "epoch 20.00" in capsys.readouterr().out

    again = main_of("translation.py", tmp_path, *out, "--epochs", 0)
    assert again["translations"] == found["translations"]
    greedy = main_of("translation.py", tmp_path, *out, "--epochs", 0, "--beam-size", 1)
    assert len(greedy["translations"]) == 10


def test_digits_to_words(capsys):
    pytest.importorskip("sklearn", reason='needs the extra "examples"')
    found = main_of("digits_to_words.py", "--epochs", 5, "--hidden-size", 32)
    assert len(found["words"]) == 359
    assert found["exact"] > 0.5
    assert f"{found['exact']:.2%} of 359 words exact" in capsys.readouterr().out


def test_execute_programs(capsys):
    sizes = ("--length", 1, "--nesting", 2, "--hidden-size", 8, "--batch-size", 10)
    steps = ("--max-steps", 4, "--evaluate-every", 2, "--test-programs", 20)
    found = main_of("execute_programs.py", *sizes, *steps)
    assert set(found["exact"]) == {(1, 1), (1, 2)}
    assert found["steps"] == 4
    assert all(0 <= share <= 1 for share in found["characters"].values())
    assert "length 1, nesting 2: " in capsys.readouterr().out
