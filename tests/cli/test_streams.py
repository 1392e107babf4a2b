"""Standard streams: terminals, pipes, encodings, full disks, readers that leave."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from anaphora.artifact import ModelDirectory
from anaphora.cli.output import Output, visible

pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")

WILD = "a\x1b[31mred\x07\r\x9b\u202eb"
ESCAPED = "a\\x1b[31mred\\x07\\r\\x9b\\u202eb"
EMOJI = "\N{WOMAN}"


def on_terminal(command, *arguments, code=0, **options):
    """Run on a pseudo-terminal; return what it shows."""
    ours, theirs = pty.openpty()
    with command.start(*arguments, stdout=theirs, **options) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while data := os.read(ours, 65536):
                shown += data
        _, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code, (shown, err)
    return shown.decode().replace("\r\n", "\n")


def test_what_steers_a_terminal_is_visible():
    assert visible(WILD) == ESCAPED
    assert visible("line\n\tend \u2066\u2069\udcff\x7f\x00") == (
        "line\n\tend \\u2066\\u2069\\udcff\\x7f\\x00"
    )
    plain = f"é ß {EMOJI} \N{HEBREW LETTER ALEF}"
    assert visible(plain) == plain


@pytest.fixture
def tagger(command):
    """A model whose input and answers have signs that steer terminals."""
    word = WILD.replace("\r", "")
    (command.folder / "t.tsv").write_text(f"{word}\tX\x1b[1m\nb\tX\x1b[1m\n\n" * 20)
    command.run(
        "train", "t.tsv", "--task", "tag", "--tag-column", "2", "--out", "tagger",
        "--hidden-size", "4", "--batch-size", "2", "--max-steps", "2",
    )  # fmt: skip
    (command.folder / "in.tsv").write_text(f"{word}\tX\nb\tX\n\n")
    return command


def test_answers_are_escaped_on_a_terminal_and_bytes_in_a_pipe(tagger):
    with tagger.start("predict", "tagger", "in.tsv", encoding=None) as process:
        out, _ = process.communicate(timeout=60)
    assert out.startswith(b"a\x1b[31mred\x07\xc2\x9b")
    assert b"\tX\x1b[1m\n" in out
    shown = on_terminal(tagger, "predict", "tagger", "in.tsv")
    assert "\x1b" not in shown
    assert "a\\x1b[31mred\\x07" in shown
    assert "\tX\\x1b[1m\n" in shown


def test_a_file_name_in_a_message_and_in_info_is_escaped_on_a_terminal(command):
    name = "text\x1b[31m.txt"
    (command.folder / name).write_text(command.text.read_text())
    shown = on_terminal(
        command, "train", name, "--out", "model", *command.small, "--max-steps", "2"
    )
    assert "reading text\\x1b[31m.txt" in shown
    assert "\x1b[31m" not in on_terminal(command, "info", "model")
    out, _ = command.run("info", "model")
    assert name in out
    for arguments in (("info", name), ("train", "text.txt", "--cell", name), (name,)):
        ours, theirs = pty.openpty()
        with command.start(*arguments, stderr=theirs):
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):
                while data := os.read(ours, 65536):
                    shown += data
        os.close(ours)
        assert b"\\x1b[31m" in shown
        assert b"\x1b[31m" not in shown


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_output_is_utf_8_whatever_the_locale_and_json_is_ascii(command, environment):
    command.text.write_text(f"hm {EMOJI}\n" * 60)
    command.train("--max-steps", "2", environment=environment)
    arguments = ("generate", "model", "--prompt", f"hm {EMOJI}", "--length", "2")
    out, _ = command.run(*arguments, environment=environment)
    assert out.startswith(f"hm {EMOJI}")
    out, _ = command.run(*arguments, "--json", environment=environment)
    assert out.isascii()
    assert json.loads(out)["text"].startswith(f"hm {EMOJI}")


def test_a_name_that_is_not_utf_8_is_reported(command):
    with command.start("info", b"caf\xe9".decode(errors="surrogateescape")) as process:
        err = process.stderr.buffer.read()
    assert err.startswith(b"anaphora: caf\xe9: no such folder")  # as the name is


def test_no_number_that_json_lacks_is_printed(capsys):
    Output(as_json=True).emit(
        {
            "loss": math.nan,
            "deep": [{"x": (math.inf, 1.5)}, np.float32(np.nan), np.array([1.0, -np.inf])],
            "scalars": [np.int64(3), np.float32(0.5), np.bool_(True)],
            "text": f"{EMOJI}\udcff",
        }
    )
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {
        "loss": None,
        "deep": [{"x": [None, 1.5]}, None, [1.0, None]],
        "scalars": [3, 0.5, True],
        "text": f"{EMOJI}\udcff",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "model"],
        ["info", "model", "--json"],
        ["generate", "model", "--length", "3"],
        ["evaluate", "model", "text.txt"],
        ["--help"],
        ["--version"],
    ],
)
def test_a_full_disk_is_named(trained, arguments):
    with open("/dev/full", "w") as full:
        _, err = trained.run(*arguments, stdout=full, code=1)
    assert err == "anaphora: standard output: No space left on device\n"


def test_a_training_whose_output_is_full_goes_on(command):
    with open("/dev/full", "w") as full:
        _, err = command.train("--max-steps", "4", stdout=full, code=1)
    said = "anaphora: standard output: No space left on device; "
    assert err == f"{said}the training continues without it\n{said}the model is in model\n"
    directory = ModelDirectory(command.folder / "model")
    assert directory.load_checkpoint()[1]["progress"]["step"] == 4


@pytest.mark.parametrize("lines", [1, 6])
def test_a_training_whose_reader_leaves_is_saved(command, lines):
    arguments = ("--max-steps", "1000000", "--evaluate-every", "5", *command.small)
    with command.start("train", "text.txt", "--out", "model", *arguments) as process:
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 130
    assert err == (
        "anaphora: standard output: Broken pipe: interrupted and saved; continue with: "
        "anaphora train --resume --out model\n"
    )
    step = ModelDirectory(command.folder / "model").load_checkpoint()[1]["progress"]["step"]
    command.run("generate", "model", "--length", "3")
    command.run("train", "--resume", "--out", "model", "--max-steps", str(step + 2))


def closing(*numbers):
    """What a shell does for ``>&-``."""

    def close():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_is_closed_is_no_trouble(command, number):
    with command.start(
        "train", "text.txt", "--out", "model", *command.small, "--max-steps", "2",
        preexec_fn=closing(number),
    ) as process:  # fmt: skip
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""
    command.run("generate", "model", "--length", "3", preexec_fn=closing(number))


def test_standard_input_that_is_closed_is_reported(command):
    _, err = command.run("train", "-", "--out", "model", code=1, preexec_fn=closing(0))
    assert err == "anaphora: standard input is closed; name a file, or pipe a text into it\n"


# Settings and numbers


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ANAPHORA_NUM_THREADS", "0", "expected an integer from 1 to 1,024; correct it"),
        ("ANAPHORA_NUM_THREADS", "9" * 30, "expected an integer from 1 to 1,024"),
        ("ANAPHORA_INSTRUCTION_SET", "foo", "expected one of amx, avx512, avx2 and baseline; set"),
        ("ANAPHORA_ENGINE", "fast", "expected 'native' (the default) or 'numpy'; set it to one"),
    ],
)
def test_a_wrong_setting_is_one_line(command, name, value, expected):
    out, err = command.run("info", "model", code=2, environment={name: value})
    assert out == ""
    assert err.startswith(f"anaphora: {name} is '{value}'")
    assert expected in err
    assert err.count("\n") == 1
    script = command.folder / "anaphora"  # as pip makes it
    script.write_text("from anaphora.cli import main\nmain()\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), name: value}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, err)


HUGE = "99999999999999999999"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "model", "--top-k", HUGE], f"'--top-k': {HUGE} is out of range; the largest"),
        (["generate", "model", "--seed", HUGE], f"'--seed': {HUGE} is out of range"),
        (["generate", "model", "--seed", f"-{HUGE}"], "the smallest is -9223372036854775807"),
        (["generate", "model", "--length", HUGE], f"'--length': {HUGE} is out of range"),
        (["generate", "model", "--temperature", "nan"], "'--temperature': nan is not a finite num"),
        (["evaluate", "model", "text.txt", "--batch-size", HUGE], "'--batch-size'"),
        (["predict", "model", "--beam-size", HUGE], "'--beam-size'"),
        (["plot", "model", "--unit", HUGE], "'--unit'"),
        (["train", "text.txt", "--hidden-size", f"1{'0' * 30}"], "'--hidden-size'"),
        (["train", "text.txt", "--minutes", "1e400"], "'--minutes': inf is not a finite number"),
        (["train", "text.txt", "--seed", HUGE], "'--seed'"),
        (["train", "text.txt", "--initialization", "nan"], "initialization"),
        (["train", "text.txt", "--hidden-size", str(2**63 - 1)], "hidden_size"),
    ],
)
def test_a_number_that_is_too_large_is_reported(trained, arguments, message):
    _, err = trained.run(*arguments, code=2)
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
