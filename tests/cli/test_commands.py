"""The commands on real text: what they print, and where."""

import json
import math
import os
import re
import shlex
import subprocess
import typing

import numpy as np
import pytest

from anaphora.artifact import ModelDirectory, read_weights, write_weights
from anaphora.cli.train import show_sample, text_prompt
from anaphora.data import CharacterTokenizer, cover
from anaphora.models import LanguageModel
from anaphora.training import (
    LANGUAGE_MODEL,
    LanguageModelOptions,
    evaluate,
    prepare_training,
)

ESCAPE = "\x1b"


def lines_of(out):
    return [json.loads(line) for line in out.splitlines()]


# train


def test_train_says_what_it_does_and_what_to_try_next(trained):
    out = trained.printed
    assert out.startswith("reading text.txt\n2,144 characters to train on, 112 to validate on, a ")
    assert re.search(r"[\d,]+ parameters; 134 steps per epoch of 2 streams x 8 tokens\n", out)
    for step in (20, 40, 60):
        assert re.search(rf"step {step}, 0:\d\d: validation loss \d\.\d+, \d\.\d+ bits per ch", out)
    assert "60 steps done (60 steps, 0:" in out
    assert re.search(r"best validation loss \d.\d{4}, .*; the model is in model\n", out)
    assert "Try next:\n  anaphora generate model --prompt 'The ' --temp" in out or (
        "Try next:\n  anaphora generate model --prompt 'the ' --temp" in out
    )
    assert out.endswith(
        "  anaphora train --resume --out model --max-steps 120 --learning-rate 0.004\n"
    )


def test_train_without_a_terminal_has_no_escape_codes_and_no_bar(trained):
    assert ESCAPE not in trained.printed
    assert "━" not in trained.printed
    assert "\r" not in trained.printed


def test_what_train_proposes_works(trained):
    (proposed,) = re.findall(r"anaphora (generate model .*)\n", trained.printed)
    out, _ = trained.run(*re.sub("'(.*?) '", r"\1_", proposed).replace("_", " ").split())
    assert len(out) > 500


def test_resume_changes_limits_learning_rate_and_schedule(command):
    command.train("--max-steps", "20", "--log-every", "1")  # the default schedule, cosine

    def resume(*arguments):
        out, err = command.run("train", "--resume", "--out", "model", "--json", *arguments)
        rates = [r["learning_rate"] for r in lines_of(out) if r["kind"] == "train"]
        return rates, lines_of(out)[-1]["reason"], err

    (last,) = {
        r["learning_rate"]
        for r in ModelDirectory(command.folder / "model").read_metrics()
        if r["kind"] == "train" and r["step"] == 20
    }
    rates, reason, err = resume("--max-steps", "30", "--learning-rate", "0.25")
    assert reason == "30 steps done"
    assert rates[0] == 0.25 > rates[-1]
    assert "the schedule restarts at step 20: cosine, from the learning rate 0.25" in err
    rates, _, _ = resume("--max-steps", "40", "--schedule", "constant", "--learning-rate", "0.1")
    assert rates == [0.1] * 10

    command.train("--max-steps", "20", "--log-every", "1", "--overwrite")
    rates, reason, err = resume("--minutes", "0.005")
    assert reason == "0.005 minutes are over"
    assert all(rate <= last for rate in rates)
    assert "the schedule restarts at step 20: plateau, as cosine needs a known last step" in err
    assert "is too low to learn: give learning_rate too, such as 0.004" in err


@pytest.mark.parametrize(
    ("limits", "proposed"),
    [
        (["--epochs", "1"], "--epochs 2 --learning-rate 0.004"),
        (["--minutes", "0.005", "--schedule", "constant"], "--minutes 0.01"),
        (["--max-steps", "900000", "--minutes", "0.005"], "--max-steps 1800000 --minutes 0.01"),
        (["--max-steps", "9", "--epochs", "5"], "--epochs 10 --max-steps 18 --learning-rate 0.004"),
        (["--max-steps", "500", "--patience", "1", "--evaluate-every", "1", "--learning-rate", "9"],
         "--patience 2"),
    ],
)  # fmt: skip
def test_train_proposes_to_go_on_by_the_limit_that_it_had(command, limits, proposed):
    out, _ = command.train(*limits)
    assert out.endswith(f"  anaphora train --resume --out model {proposed}\n")
    out, _ = command.run("train", "--resume", "--out", "model", *proposed.split())
    assert "Try next" in out


def text_prompt_of(text, level, tmp_path):
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    options = LanguageModelOptions.make(
        level=level, hidden_size=2, batch_size=1, window=4, minimum_count=1, validation_share=0.0,
        max_steps=1,
    )  # fmt: skip
    trainer = prepare_training(LANGUAGE_MODEL, options, tmp_path / "model", [tmp_path / "text.txt"])
    trainer.run()
    model = LanguageModel.load(tmp_path / "model")
    tokenizer = model.codec
    prompt = text_prompt(trainer, tokenizer)
    assert show_sample(model, prompt)
    return prompt


@pytest.mark.parametrize(
    ("text", "level", "prompt"),
    [
        ("0123456789" * 99, "char", "012345678901234567890123456789"),
        ("".join(str(k * k) for k in range(3999)), "bpe", "014916253649648110012114416919"),
        ("0123456789" * 99 + " ab it's" * 9, "word", "ab"),
        ("0123456789" * 99 + "\n" + "x" * 99 + "\n" + "y" * 99 + "\nz" * 9, "word", "z"),
        (("x" * 31 + "\n") * 9, "word", ""),
        ("it's \x1b[31m\n" * 9, "char", "it's"),
        ("\x1b[31m\x07 it's\n" * 9, "char", "it's"),
        ("'\"$(x)\n" * 9, "char", "'\"$(x)"),
    ],
)
def test_a_prompt_is_short_and_can_be_pasted(tmp_path, text, level, prompt):
    if level == "bpe":
        pytest.importorskip("tokenizers")
    assert text_prompt_of(text, level, tmp_path) == prompt
    (pasted,) = shlex.split(shlex.quote(prompt))
    assert pasted == prompt


def test_a_second_training_is_refused_while_one_runs(command):
    command.train("--max-steps", "2")
    running = ModelDirectory(command.folder / "model")
    running.lock()
    for more in (["train", "--resume"], ["train", "text.txt", "--overwrite"], ["train"]):
        _, err = command.run(*more, "--out", "model", code=1)
        assert err.startswith(f"anaphora: model: is being trained by process {os.getpid()} on ")
    command.run("generate", "model", "--length", "3")
    command.run("evaluate", "model", "text.txt")
    out, _ = command.run("info", "model", "--json")
    running.unlock()
    files = [f for f in (command.folder / "model").rglob("*") if f.is_file()]
    assert lines_of(out)[0]["bytes_on_disk"] == sum(f.stat().st_size for f in files)


def test_tensorboard_is_not_written_through_a_link(command):
    pytest.importorskip("tensorboardX")
    command.train("--max-steps", "2")
    (command.folder / "elsewhere").mkdir()
    (command.folder / "model" / "tensorboard").symlink_to(command.folder / "elsewhere")
    _, err = command.run("train", "--resume", "--out", "model", "--tensorboard", code=1)
    assert "model/tensorboard: cannot be written: tensorboard is a symbolic link; replace" in err
    assert list((command.folder / "elsewhere").iterdir()) == []


def test_train_json(command):
    out, err = command.train("--max-steps", "20", "--evaluate-every", "10", "--json")
    records = lines_of(out)
    assert [r["kind"] for r in records] == ["train", "evaluation"] * 2 + ["result"]
    common = {"kind", "step", "epoch", "loss", "perplexity", "bits_per_token", "tokens", "seconds"}
    assert set(records[0]) == common | {"learning_rate", "gradient_norm"}
    assert set(records[1]) == common | {"best"}
    result = records[-1]
    assert set(result) == {
        "kind", "reason", "directory", "step", "epoch", "tokens", "best_loss", "seconds"
    }  # fmt: skip
    assert (result["step"], result["reason"], result["directory"]) == (20, "20 steps done", "model")
    assert result["tokens"] == 20 * 16
    assert result["best_loss"] == min(r["loss"] for r in records[:-1] if r["kind"] != "train")
    assert "reading text.txt" in err
    assert "Try next" in err
    assert ModelDirectory(command.folder / "model").read_metrics() == records[:-1]


def test_standard_input_a_column_words_and_tensorboard(command):
    arguments = ("--hidden-size", "4", "--batch-size", "2", "--window", "4", "--max-steps", "3")
    text = command.text.read_text()
    command.run("train", "-", "--out", "piped", *arguments, stdin=text)
    (command.folder / "t.csv").write_text('id,body\n1,"' + text + '"\n')
    command.run("train", "t.csv", "--column", "body", "--out", "column", *arguments)
    out, _ = command.run("evaluate", "column", "t.csv", "--json")
    assert lines_of(out)[0]["characters"] == len(text)
    out, _ = command.run("evaluate", "column", "text.txt", "--json")
    assert lines_of(out)[0]["characters"] == len(text)
    tabs = "id\tbody\n" + "".join(f"7\t{line}\n" for line in text.splitlines())
    (command.folder / "t.tsv").write_text(tabs)
    out, _ = command.run("evaluate", "column", "t.tsv", "--json")  # the column of the training
    assert lines_of(out)[0]["characters"] == len(text)

    pytest.importorskip("tensorboardX")
    words = ("--level", "word", "--batching", "sentences", "--sentence-start", "--tensorboard")
    out, _ = command.run("train", "text.txt", "--out", "words", *words, *arguments)
    assert "words to train on" in out
    assert "perplexity" in out
    assert list((command.folder / "words" / "tensorboard").iterdir())
    out, _ = command.run("generate", "words", "--length", "5", "--prompt", "the word")
    assert out.startswith(("the word ", "the word\n"))  # what follows is sampled


# evaluate


def test_evaluate_prints_the_loss_of_the_full_text(trained):
    out, err = trained.run("evaluate", "model", "text.txt", "--json")
    (record,) = lines_of(out)
    model = LanguageModel.load(trained.folder / "model")
    tokenizer = model.codec
    text = trained.text.read_text()
    ids = tokenizer.encode(text)
    expected = evaluate(model, cover(ids, 1, len(ids)))
    assert record["tokens"] == expected.tokens == len(text) - 1
    assert record["characters"] == len(text)
    assert record["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert record["perplexity"] == pytest.approx(math.exp(record["loss"]))
    assert record["bits_per_token"] == record["bits_per_character"]
    assert record["bits_per_token"] == pytest.approx(record["loss"] / math.log(2))
    assert set(record) == {
        "loss", "perplexity", "bits_per_token", "bits_per_character", "tokens", "characters",
        "seconds", "unknown_tokens", "unknown_share",
    }  # fmt: skip
    assert err == ""

    out, _ = trained.run("evaluate", "model", "text.txt")
    assert f"loss                {record['loss']:.4f} nats" in out
    assert f"perplexity          {record['perplexity']:,.2f}" in out
    assert "tokens              2,255 (2,256 characters)" in out
    assert "unknown tokens      0 of " in out
    assert ESCAPE not in out

    out, _ = trained.run("evaluate", "model", "text.txt", "--json", "--batch-size", "5")
    assert lines_of(out)[0]["tokens"] == record["tokens"]


def test_unknown_words_are_reported_and_counted(command):
    command.text.write_text("the cat saw the dog\nthe dog saw a <unk>\n" * 20)
    small = ("--level", "word", "--hidden-size", "4", "--batch-size", "2", "--window", "5")
    command.run("train", "text.txt", "--out", "model", *small, "--max-steps", "2")
    (command.folder / "new.txt").write_text("The cat saw <unk> ostrich ostrich\na\n")
    out, err = command.run("evaluate", "model", "new.txt", "--json")
    (record,) = lines_of(out)
    assert (record["unknown_tokens"], record["unknown_share"]) == (4, 4 / 9)
    assert record["bits_per_character"] is None
    assert (
        "new.txt: 3 words are not in the vocabulary, and read as unknown: 'The', 'ostrich'; the "
        "vocabulary has it in lower case: 'the'" in err
    )
    out, _ = command.run("evaluate", "model", "new.txt")
    assert "bits per character  undefined, as the text has unknown tokens" in out
    assert "unknown tokens      4 of 9 (44.44%)" in out

    # A text that has the unknown word written has no unknown words.
    (command.folder / "own.txt").write_text("the <unk>\n")
    out, err = command.run("evaluate", "model", "own.txt", "--json")
    (record,) = lines_of(out)
    assert (record["unknown_tokens"], err) == (1, "")
    assert record["bits_per_character"] == pytest.approx(
        record["bits_per_token"] * record["tokens"] / len("the <unk>\n")
    )

    out, err = command.run("generate", "model", "--prompt", "the emu", "--length", "200")
    assert "the prompt: 1 word is not in the vocabulary, and read as unknown: 'emu'; train" in err
    assert "with a lower --minimum-count or at --level bpe or char for fewer unknown ones" in err
    assert out.count("<unk>") == 1  # that of the prompt
    shown = ("generate", "model", "--length", "200", "--seed", "1")
    assert "<unk>" in command.run(*shown, "--unknown")[0]
    assert "<unk>" not in command.run(*shown, "--no-unknown")[0]


# generate


def test_generate_is_the_same_with_the_same_seed(trained):
    def text(*arguments):
        return trained.run("generate", "model", "--prompt", "the ", "--length", "60", *arguments)[0]

    first = text("--seed", "1")
    assert first.startswith("the ")
    assert len(first) == 4 + 60 + 1
    assert text("--seed", "1") == first != text("--seed", "2")
    greedy = text("--temperature", "0")
    assert greedy == text("--top-k", "1", "--seed", "7") == text("--top-p", "0.001")


def test_generate_json(trained):
    out, err = trained.run(
        "generate", "model", "--prompt", "the ", "--length", "9", "--seed", "3", "--json"
    )
    (record,) = lines_of(out)
    plain, _ = trained.run("generate", "model", "--prompt", "the ", "--length", "9", "--seed", "3")
    assert record == {"text": plain[:-1], "prompt": "the ", "seed": 3}
    assert err == ""
    # A random seed is reported, so that the text can be had again.
    out, _ = trained.run("generate", "model", "--length", "9", "--json")
    (record,) = lines_of(out)
    seed = str(record["seed"])
    again, _ = trained.run("generate", "model", "--length", "9", "--seed", seed)
    assert again[:-1] == record["text"]


def test_generate_into_a_pipe_that_closes_ends_quietly(trained):
    with trained.start("generate", "model", "--length", "100000") as process:
        assert len(process.stdout.read(20)) == 20
        process.stdout.close()
        process.wait(60)
        assert process.stderr.read() == ""


# info


def test_info(trained):
    out, _ = trained.run("info", "model")
    for line in (
        "  hidden_size         8",
        "  level             char",
        "  max_steps              60",
    ):
        assert line in out
    assert "recurrent.weight_hh_l0" in out
    assert "can be resumed" in out
    assert "validation loss" in out
    out, err = trained.run("info", "model", "--json")
    (record,) = lines_of(out)
    assert record["task"] == "language_model"
    assert record["model"]["hidden_size"] == 8
    assert record["parameters"]["recurrent.weight_hh_l0"] == [32, 8]
    shapes = record["parameters"].values()
    assert record["parameter_count"] == sum(math.prod(shape) for shape in shapes)
    assert record["bytes_on_disk"] > 4 * record["parameter_count"]
    assert record["sources"] == {"texts": "text.txt", "validation_texts": None}
    assert err == ""


def test_a_regularised_model_is_trained_shown_and_goes_on(command):
    command.train(
        "--max-steps", "3", "--dropout", "0.3", "--locked-dropout", "--embedding-dropout", "0.1",
        "--weight-dropout", "0.2", "--zoneout", "0.1", "--activation-penalty", "2",
        "--temporal-penalty", "1", "--layer-norm",
    )  # fmt: skip
    out, _ = command.run("info", "model")
    for line in ("locked_dropout      True", "temporal_penalty    1.0", "norm_l0.weight"):
        assert line in out
    assert len(command.run("generate", "model", "--length", "9")[0]) >= 9
    _, err = command.run("train", "--cell", "mingru", "--weight-dropout", "0.2", code=2)
    assert "weight_dropout needs recurrent weights; 'mingru' has none" in " ".join(err.split())


# help


def test_help_names_every_option_with_its_default(command):
    out, _ = command.run("train", "--help", "all", environment={"COLUMNS": "200"})
    hints = typing.get_type_hints(LanguageModelOptions)
    for name, field in LanguageModelOptions.fields().items():
        if field.metadata["section"] == "evaluation":
            continue
        option = f"--{name.replace('_', '-')}"
        assert option in out
        if hints[name] is bool:
            assert f"--no-{name.replace('_', '-')}" in out
    for option in ("--valid", "--out", "--preset", "--resume", "--overwrite", "--json"):
        assert option in out
    assert "[default: (0.004; translate 0.002; forecast 0.001)]" in " ".join(out.split())
    assert ESCAPE not in out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("evaluate", ["--column", "--batch-size", "--json"]),
        ("generate", ["--prompt", "--length", "--temperature", "--top-k", "--top-p", "--seed"]),
        ("info", ["--json"]),
    ],
)
def test_help_of_the_others(command, name, options):
    out, _ = command.run(name, "--help", "all")
    assert all(option in out for option in options)


def test_help_and_version(command):
    out, _ = command.run("train", "--help", "all")
    assert "Without arguments: a small character model on the source of Python's standard\n" in out
    assert "library, in about two minutes. Training ends" in out  # filled, not cut as in the source
    out, _ = command.run("--help")
    assert all(name in out for name in ("train", "evaluate", "generate", "info"))
    assert "Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted" in out
    out, _ = command.run("--version")
    assert re.fullmatch(r"anaphora \d+\.\d+\S*\n(no )?native engine: .+\n", out)
    # Without arguments it shows what there is; whether that counts as misuse is typer's affair.
    process = command.start()
    out, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 2)


def test_no_color_in_a_terminal_without_colours(trained):
    environment = {"FORCE_COLOR": "", "NO_COLOR": "1", "TERM": "dumb"}
    out, _ = trained.run("info", "model", environment=environment)
    assert ESCAPE not in out
    _, err = trained.run("train", "--banana", code=2, environment=environment)
    assert ESCAPE not in err


# Misuse and failures


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--banana"], 2, "No such option"),
        (["train", "text.txt", "--cell", "lsmt"], 2, "lsmt"),
        (["train", "text.txt", "--hidden-size", "many"], 2, "Invalid value for '--hidden-size'"),
        (["train", "missing.txt", "--hidden-size", "0"], 2, "hidden_size must be an integer"),
        (["train", "missing.txt", "--dropout", "2"], 2, "dropout must be >= 0 and < 1"),
        (["train", "missing.txt", "--momentum", "0.9"], 2, "momentum is for sgd and rmsprop"),
        (["train", "missing.txt", "--preset", "huge"], 2, "preset 'huge' is not one of char-small"),
        (
            ["train", "missing.txt", "--initialization", "big"],
            2,
            "initialization 'big' is not one of",
        ),
        (["train", "missing.txt"], 1, "missing.txt does not exist; the current folder is "),
        (["train", "empty.txt"], 1, "empty.txt is empty: there is nothing to read"),
        (["train", "latin.txt"], 1, "latin.txt is not valid UTF-8: byte 0xE9 at offset 3"),
        (["train", "short.txt", "--minimum-count", "1"], 1, "the text has 18 tokens, but one wind"),
        (["train", "table.csv"], 1, "table.csv is a CSV file: say with --column which column"),
        (["train", "--resume", "--out", "nowhere"], 1, "nowhere: no such folder"),
        (["train", "text.txt", "--resume"], 2, "omit FILE, --task, --valid, --preset,"),
        (["train", "--resume", "--window", "3"], 2, "window: cannot change when a training is "),
        (["generate", "nowhere"], 1, "nowhere: no such folder"),
        (["generate", "model", "--prompt", "Öl"], 1, "the character 'Ö' (U+00D6) at column 1"),
        (["generate", "model", "--temperature", "-1"], 2, "temperature is -1.0; expected a finite"),
        (["generate", "model", "--top-p", "0"], 2, "top_p is 0.0; expected 0 < top_p <= 1"),
        (["generate", "model", "--length", "-1"], 2, "--length"),
        (["evaluate", "model"], 2, "FILE"),
        (["evaluate", "model", "missing.txt"], 1, "missing.txt does not exist"),
        (["evaluate", "model", "latin.txt"], 1, "is not valid UTF-8"),
        (["evaluate", "model", "foreign.txt"], 1, "the character 'Z' (U+005A) at line 1, column"),
        (["info", "text.txt"], 1, "text.txt: is a file; expected the folder that anaphora train"),
        (["info", "."], 1, "is not a model directory"),
    ],
)
def test_messages(trained, arguments, code, message):
    folder = trained.folder
    (folder / "empty.txt").write_bytes(b"")
    (folder / "latin.txt").write_bytes(b"caf\xe9 au lait")
    (folder / "short.txt").write_text("shorter than that\n")
    (folder / "foreign.txt").write_text("Zaremba\n")
    (folder / "table.csv").write_text("id,body\n1,text\n")
    out, err = trained.run(*arguments, code=code)
    assert message in " ".join(err.replace("│", " ").split())
    assert out in ("", f"reading {arguments[1]}\n")
    if code == 1:
        assert err.splitlines()[-1].startswith("anaphora: ")
    assert not (folder / "anaphora-model").exists()


def test_memory_that_does_not_suffice(command):
    size = ("--cell", "rnn", "--embedding-size", "1", "--hidden-size", "9000000")
    _, err = command.train(*size, "--max-steps", "1", code=1)
    assert "anaphora: out of memory: " in err
    assert not (command.folder / "model").exists()


def test_an_unknown_token_in_the_validation_text(command):
    (command.folder / "valid.txt").write_text("A word\nof Zaremba\n")
    _, err = command.train("--valid", "valid.txt", code=1)
    assert "the validation text valid.txt: the character 'Z' (U+005A) at line 2, column 4" in err
    assert not (command.folder / "model").exists()


def test_an_existing_model_stays(command):
    command.train("--max-steps", "2")
    before = (command.folder / "model" / "model.safetensors").read_bytes()
    command.text.unlink()
    _, err = command.train(code=1)
    assert "model: already holds a model; continue its training with --resume" in err
    _, err = command.train("--overwrite", code=1)
    assert "text.txt does not exist" in err
    _, err = command.train("--overwrite", "--hidden-size", "0", code=2)
    assert (command.folder / "model" / "model.safetensors").read_bytes() == before
    command.run("generate", "model", "--length", "5")


def test_divergence(command):
    options = ("--optimizer", "sgd", "--learning-rate", "1e38", "--clip-norm", "0")
    _, err = command.train(*options, "--max-steps", "20", "--log-every", "1", code=1)
    message = err.splitlines()[-1]
    assert re.search(r"^anaphora: .* became (nan|inf) at step \d+ \(epoch 1\); the model", message)
    assert "Try a learning_rate lower than 1e+38, a clip_norm such as 5, or a warm_up" in message
    command.run("generate", "model", "--length", "5")


def test_a_sample_that_cannot_be_sampled_is_explained():
    tokenizer = CharacterTokenizer.fit(["ab"])
    model = LanguageModel(tokenizer.vocabulary_size, hidden_size=3)
    with model.output.bias.writing() as bias:
        bias[...] = np.inf
    model.codec = tokenizer
    assert show_sample(model) == (
        "no sample: the model's scores overflow; try a lower learning_rate"
    )


def test_tensorboard_that_is_missing_comes_up_first(command):
    # A package of that name that cannot be imported takes its place.
    (command.folder / "tensorboardX.py").write_text("raise ImportError")
    _, err = command.train("--tensorboard", code=1)
    assert err == 'anaphora: TensorBoard needs an extra: pip install "anaphora[tensorboard]"\n'
    assert not (command.folder / "model").exists()


def test_byte_pairs_without_their_library_come_up_before_files_are_read(command):
    (command.folder / "tokenizers.py").write_text("raise ImportError")
    out, err = command.run("train", "missing.txt", "--level", "bpe", code=1)
    assert out == ""
    assert err == (
        "anaphora: byte-pair encoding needs the tokenizers library; install it: "
        'pip install "anaphora[bpe]"\n'
    )


def test_a_damaged_model_is_named(command):
    command.train("--max-steps", "2")
    model = command.folder / "model"
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace('"level": "char"', '"level": "rune"'))
    for arguments in (("info", "model"), ("evaluate", "model", "text.txt")):
        _, err = command.run(*arguments, code=1)
        assert "anaphora: model/config.json: data.level 'rune' is not one of char, word, bpe" in err
    (model / "config.json").write_text(config[:100])
    _, err = command.run("info", "model", code=1)
    assert "anaphora: model/config.json: is not valid JSON: line " in err
    (model / "config.json").write_text(config)
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-9])
    _, err = command.run("generate", "model", code=1)
    assert "model.safetensors: is truncated" in err


def test_weights_that_are_nan(command):
    command.train("--max-steps", "2", "--cell", "rnn_relu")  # whose states may overflow
    path = command.folder / "model" / "model.safetensors"
    arrays, metadata = read_weights(path)
    bias = arrays["output.bias"].copy()
    bias[2] = np.nan
    write_weights(path, {**arrays, "output.bias": bias}, metadata)
    for arguments in (("generate", "model"), ("evaluate", "model", "text.txt")):
        out, err = command.run(*arguments, code=1)
        assert out == ""
        assert "model/model.safetensors: output.bias[2] is nan; expected finite numbers; " in err
    # Finite weights whose sums overflow.
    huge = {name: np.full_like(a, 3e38) for name, a in arrays.items() if "bias_" in name}
    write_weights(path, {**arrays, **huge}, metadata)
    for arguments, message in (
        (("generate", "model", "--json"), "anaphora: model: sample: row 0 of the logits has "),
        (("evaluate", "model", "text.txt", "--json"), "anaphora: model: the loss is "),
    ):
        out, err = command.run(*arguments, code=1)
        assert out == ""
        assert message in err
    _, err = command.run("plot", "model", "--text", "a word", "--picture", "gates", code=1)
    assert "anaphora: model: the picture of gates would contain NaN" in err
    assert not (command.folder / "model" / "plots").exists()


def test_output_to_a_full_disk(trained):
    with open("/dev/full", "w") as full:
        process = trained.start("generate", "model", "--length", "5", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err


def test_nothing_of_the_command_line_is_imported_with_the_package(command):
    code = (
        "import anaphora, sys; print([n for n in ('typer', 'rich', 'msgspec') if n in sys.modules])"
    )
    import os
    import sys
    from pathlib import Path

    import anaphora

    environment = {**os.environ, "PYTHONPATH": str(Path(anaphora.__file__).parent.parent)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert out == "[]\n"
