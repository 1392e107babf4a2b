"""Commands that processes share out: what they print is, to the byte, what one process prints."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import anaphora
from anaphora import engine
from anaphora.cli.processes import sharing
from anaphora.training import TASKS, prepare_training

pytestmark = pytest.mark.skipif(
    engine.info()["engine"] != "native",
    reason="NumPy's products in float32 differ by the number of rows; the engine's do not",
)

WORDS = ["it", "rains", "and", "the", "cat", "sees", "a", "dog", "that", "runs", "home", "again"]
SMALL = {"hidden_size": 6, "embedding_size": 5, "batch_size": 4, "max_steps": 12, "seed": 3}


def train(name, folder, texts, **options):
    task = TASKS[name]
    prepare_training(task, task.options.make(**{**SMALL, **options}), folder, texts).run()


def lines(rng, count, longest=9):
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model of each kind, and files to evaluate them on and to predict for."""
    pytest.importorskip("sacrebleu", reason="needs the extra translation")
    home, rng = tmp_path_factory.mktemp("commands"), np.random.default_rng(5)
    before = Path.cwd()
    os.chdir(home)
    texts = lines(rng, 60)
    Path("text.txt").write_text("".join(f"{line}\n" for line in texts))
    train("language-model", "char", ["text.txt"], level="char", window=7, minimum_count=1)
    train("language-model", "sentences", ["text.txt"], level="word", batching="sentences")

    many = lines(rng, 1100)
    many[7], many[503], many[1001] = "", "snow and the cat", "   "
    Path("many.txt").write_text("".join(f"{line}\n" for line in many))
    Path("some.txt").write_text("".join(f"{line}\n" for line in many[:505]))
    Path("wrong.txt").write_text("".join(f"{line}\n" for line in [*many[:700], "é"]))

    Path("labels.csv").write_text(
        "text,label\n" + "".join(f"{t},{'long' if len(t) > 20 else 'short'}\n" for t in texts)
    )
    Path("more.csv").write_text(
        "text,label\n" + "".join(f"{t},long\n" for t in many[:40]) + "a,?\n"
    )
    column = {"column": "text", "label_column": "label"}
    train("classify", "classifier", ["labels.csv"], minimum_count=2, level="word", **column)

    sentences = [
        [(word, f"{'BI'[k > 0]}-{word[0]}") for k, word in enumerate(t.split())] for t in texts
    ]
    Path("tags.tsv").write_text(
        "\n".join("".join(f"{w}\t{t}\n" for w, t in sentence) for sentence in sentences)
    )
    train("tag", "tagger", ["tags.tsv"], tag_column=2)

    for name in ("pairs", "others"):
        sources = lines(rng, 130)
        pairs = "".join(f"{a}\t{a[::-1]}\n" for a in sources)
        Path(f"{name}.tsv").write_text(f"source\ttarget\n{pairs}")
    both = {"source_column": "source", "target_column": "target"}
    train("translate", "translator", ["pairs.tsv"], hidden_size=8, max_steps=40, **both)

    values = 5 + np.sin(np.arange(60)) + rng.standard_normal((7, 60)) / 5
    rows = (f"{n},{t},{v:.3f}\n" for n, one in enumerate(values) for t, v in enumerate(one))
    Path("series.csv").write_text("series,time,value\n" + "".join(rows))
    train(
        "forecast", "forecaster", ["series.csv"], horizon=4, season=6, series_column="series",
        time_column="time", target_column=("value",), embedding_size=None,
    )  # fmt: skip
    yield home
    os.chdir(before)


COMMANDS = {
    "evaluate char --json --batch-size 5 text.txt": None,
    "evaluate char --json text.txt": None,  # one stream
    "evaluate char --json --batch-size 2 --cache text.txt": 2,  # misuse
    "evaluate char --json --cache text.txt": None,
    "evaluate sentences --json --batch-size 3 many.txt": None,
    "evaluate classifier more.csv": None,
    "evaluate classifier --json more.csv": None,
    "evaluate tagger tags.tsv --batch-size 7": None,
    "evaluate translator others.tsv --json": None,
    "evaluate forecaster series.csv --origins 3 --json": None,
    "predict classifier many.txt": None,
    "predict classifier - --json": None,
    "predict tagger some.txt": None,
    "predict translator some.txt --json --beam-size 2": None,
    "predict forecaster series.csv --horizon 3": None,
    "predict nowhere many.txt": 1,
    "score sentences many.txt --tokens": None,
    "score char wrong.txt": 1,
    "generate char --prompts text.txt --length 12 --seed 4": None,
    "generate char --prompts wrong.txt --length 3 --seed 4 --json": 1,
    "generate char --prompt it --length 30 --seed 4": None,
    "generate sentences --prompts text.txt --next 3": None,
    "info char": None,
}
"""Each command, and its exit code unless it is 0."""

ONE_STREAM = ("evaluate char --json text.txt", "evaluate char --json --cache text.txt")
"""Of which all processes but one are told that they have nothing to do."""

PROGRAM = """
import json, os, sys
from anaphora.cli.app import run
from anaphora.distributed import world

_, commands, name = sys.argv
rank, codes, kept = world().rank, [], []
for number, command in enumerate(json.loads(commands)):
    for k, which in (1, "out"), (2, "err"):
        path = f"{name}.{number}.{rank}.{which}"
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), k)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
    kept += [sys.stdout, sys.stderr]  # they would close what wraps them
    sys.stdin = open("many.txt" if rank == 0 else os.devnull)
    sys.argv = ["anaphora", *command.split()]
    codes.append(run())
if rank == 0:
    with open(f"{name}.codes", "w") as file:
        json.dump(codes, file)
"""


def outputs(folder, name, size):
    """What the ranks printed: for each command the exit code, standard output and errors."""
    codes = json.loads((folder / f"{name}.codes").read_text())
    for number, (command, code) in enumerate(zip(COMMANDS, codes, strict=True)):
        assert code == (COMMANDS[command] or 0), command
        streams = [(folder / f"{name}.{number}.0.{which}").read_text() for which in ("out", "err")]
        for rank in range(1, size):
            for which in ("out", "err"):
                assert (folder / f"{name}.{number}.{rank}.{which}").read_text() == "", command
        out, errors = streams
        errors, idle = re.subn("anaphora: the text is read as .*\n", "", errors)
        assert idle == (size > 1 and command in ONE_STREAM)
        yield command, [re.sub(r'"seconds": [\d.]+', "", out), errors]


@pytest.fixture(scope="module")
def of_one(folder):
    """What one process prints."""
    (folder / "program.py").write_text(PROGRAM)
    arguments = ["program.py", json.dumps([*COMMANDS]), "one"]
    source = str(Path(anaphora.__file__).parent.parent)
    subprocess.run(
        [sys.executable, *arguments], check=True, env={**os.environ, "PYTHONPATH": source}
    )
    return dict(outputs(folder, "one", 1))


def test_one_process_prints_results_and_errors(of_one):
    for command, (out, errors) in of_one.items():
        assert out or COMMANDS[command], command
        assert errors or not COMMANDS[command], command


@pytest.mark.parametrize("size", [2, 3])
def test_processes_print_what_one_prints(launch, folder, of_one, size):
    name = f"of{size}"
    launch(size, [folder / "program.py", json.dumps([*COMMANDS]), name])
    for command, found in outputs(folder, name, size):
        assert found == of_one[command], command


def test_processes_divide_the_processors_that_they_share():
    places = [("a", frozenset({0, 1})), ("b", frozenset({0, 1})), ("a", frozenset({0, 1}))]
    places.append(("a", frozenset({2})))
    assert [sharing(place, places) for place in places] == [2, 1, 2, 1]


THREADS = """
import os, sys
for library in "ANAPHORA", "OMP":
    os.environ.pop(f"{library}_NUM_THREADS", None)
from anaphora import engine
from anaphora.cli.app import run
from anaphora.distributed import world
w = world()
sys.argv = ["anaphora", "--version"]
run()
if len(os.sched_getaffinity(0)) > 1:
    assert engine.info()["threads"] == max(1, engine.native.available_threads() // w.size)
os.environ["ANAPHORA_NUM_THREADS"] = "3"
engine.set_num_threads(3)
run()
assert engine.info()["threads"] == 3
"""


def test_a_number_of_threads_that_is_set_stays(launch, script):
    out, errors = launch(2, [script(THREADS)])
    assert out.startswith("anaphora "), errors


DIFFERENT = """
import os, sys
rank = int(os.environ["PMI_RANK"])
if sys.argv[1] == "engine" and rank == 1:
    os.environ["ANAPHORA_ENGINE"] = "numpy"
from anaphora.cli.app import run
from anaphora.training import language_model
if sys.argv[1] == "text":  # of one name, but each machine has its own
    open_source = language_model.open_source
    language_model.open_source = lambda paths, *given: open_source([f"text{rank}.txt"], *given)
sys.argv = ["anaphora", "evaluate", "char", "text.txt"]
sys.exit(run())
"""


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "engine",
            r"anaphora: the processes differ in engine: rank 0 on \S+ has native \w+, rank 1",
        ),
        (
            "text",
            r"differ in number of targets: rank 0 on \S+ has 8, rank 1 on \S+ has 10; start all",
        ),
    ],
)
def test_processes_that_differ_are_told(launch, script, folder, what, message):
    for rank in (0, 1):
        (folder / f"text{rank}.txt").write_text("it rains\n" + "a\n" * rank)
    _, errors = launch(2, [script(DIFFERENT), what], code=1)
    assert re.search(message, errors), errors
    assert errors.count("anaphora: ") == 1
