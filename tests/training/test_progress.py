"""What a training shows: in a terminal, in a notebook, and elsewhere."""

import contextlib
import io
import re
import sys
import types

import numpy as np
import pytest
from rich.console import Console

from anaphora import random
from anaphora.data import batchify, cover
from anaphora.models import LanguageModel
from anaphora.optim import SGD
from anaphora.training import Callback, ProgressBar, Trainer, TrainingOptions
from anaphora.training import progress as progress_module

IDS = np.random.default_rng(4).integers(0, 7, 400)


def make(callbacks=(), **options):
    random.seed(6)
    model = LanguageModel(7, hidden_size=5)
    return Trainer(
        model,
        SGD(model.parameters(), 0.1),
        batchify(IDS, 4, 5),
        TrainingOptions(**{"max_steps": 30, "evaluate_every": 15, **options}),
        validation=cover(IDS[:100], 1, 10),
        callbacks=callbacks,
    )


def bits(trainer):
    return {name: p.data.tobytes() for name, p in trainer.model.named_parameters()}


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that remembers what was written, to be put in the place of standard output."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


class Cell:
    """What IPython is asked for in a notebook; it remembers what was displayed."""

    def __init__(self):
        self.sampled = []
        self.module = types.ModuleType("IPython")
        self.module.get_ipython = type("ZMQInteractiveShell", (), {})
        self.module.display = types.ModuleType("IPython.display")
        self.module.display.display = self.display

    def display(self, data, *, raw, display_id):
        assert raw
        assert display_id
        self.sampled.append(data["text/plain"])
        return self

    def update(self, data, *, raw):
        assert raw
        self.sampled.append(data["text/plain"])


@pytest.fixture
def notebook(monkeypatch):
    cell = Cell()
    monkeypatch.setitem(sys.modules, "IPython", cell.module)
    monkeypatch.setitem(sys.modules, "IPython.display", cell.module.display)
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN_UPDATES", 0)
    return cell


def test_nothing_is_printed_where_nobody_watches(capsys):
    trainer = make()
    trainer.run()
    assert capsys.readouterr() == ("", "")
    assert trainer.callbacks == []


EVALUATION = r"step (15|30), 0:\d\d: validation loss \d\.\d{4}, perplexity \d\.\d\d"


def test_a_terminal_shows_a_bar_and_evaluations(terminal):
    shown, silent = make(), make()
    with contextlib.redirect_stdout(terminal):
        shown.run()
    written = terminal.getvalue()
    assert len(re.findall(EVALUATION, written)) == 2
    assert "\x1b[" in written  # a bar, which is taken away at the end
    with contextlib.redirect_stdout(terminal):
        silent.run(progress=False)
    assert terminal.getvalue() == written
    assert bits(shown) == bits(silent)
    assert shown.callbacks == []


def test_the_bar_of_the_callbacks_is_the_only_one(terminal):
    stream = io.StringIO()
    bar = ProgressBar(Console(file=stream, force_terminal=False), say=lambda line: None)
    with contextlib.redirect_stdout(terminal):
        make([bar]).run()
    assert terminal.getvalue() == stream.getvalue() == ""


def test_the_bar_tells_where_the_training_is():
    lines, seen = [], []

    class Look(Callback):
        def look(self, *_):
            (task,) = bar._progress.tasks
            seen.append((task.description, round(task.completed, 3), task.fields["status"]))

        on_step = on_evaluation_batch = look

    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = ProgressBar(console, say=lines.append, unit="tokens")
    trainer = make([bar, Look()], max_steps=20)
    with bar:
        trainer.run()
    assert seen[0][:2] == ("step 1", 0.05)
    assert re.fullmatch(
        r"loss \d\.\d{3}  perplexity \d+\.\d  [\d,]+k? tokens/s  0:\d\d left", seen[0][2]
    )
    assert seen[15:25] == [("evaluating", (k + 1) / 10, f"batch {k + 1} of 10") for k in range(10)]
    assert seen[25][:2] == ("step 16", 0.8)
    assert len(lines) == 2
    assert re.fullmatch(EVALUATION + r"( \(no better\))?", lines[0])
    bar.show_stopping()
    assert bar._progress.tasks[0].description == "stopping"


def test_a_notebook_shows_the_same_bar(notebook, capsys):
    trainer = make()
    trainer.run()
    assert len(re.findall(EVALUATION, capsys.readouterr().out)) == 2
    assert notebook.sampled[0].startswith("step 1 ")
    assert re.search(r"━.* 3%  loss \d\.\d{3}  perplexity \d", notebook.sampled[0])
    assert any("batch 3 of 10" in text for text in notebook.sampled)
    assert all("\x1b" not in text for text in notebook.sampled)
    assert notebook.sampled[-1] == ""  # taken away at the end
    sampled = len(notebook.sampled)
    make().run(progress=False)
    assert len(notebook.sampled) == sampled


def test_a_shell_in_a_terminal_is_no_notebook(notebook, monkeypatch):
    assert progress_module.in_notebook()
    colab = type("Shell", (notebook.module.get_ipython,), {})
    monkeypatch.setattr(notebook.module, "get_ipython", colab)
    assert progress_module.in_notebook()
    shell = type("TerminalInteractiveShell", (), {})
    monkeypatch.setattr(notebook.module, "get_ipython", shell)
    assert not progress_module.in_notebook()
    monkeypatch.setattr(notebook.module, "get_ipython", lambda: None)
    assert not progress_module.in_notebook()


def test_lines_stand_in_for_a_bar_that_was_asked_for(monkeypatch):
    lines = []
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN_LINES", -1)
    bar = ProgressBar(Console(file=io.StringIO(), force_terminal=False), say=lines.append)
    make([bar], max_steps=2, evaluate_every=9).run()
    assert re.fullmatch(r"step 1 \(50%\): loss .* targets/s  0:\d\d left", lines[0])
    assert [line.split(",")[0].split(" (")[0] for line in lines] == [
        "step 1", "step 1", "step 2", "step 2",
    ]  # fmt: skip


def test_the_bar_goes_when_a_training_fails(terminal):
    class Fail(Callback):
        def on_step(self, trainer, loss):
            raise ZeroDivisionError

    trainer = make([Fail()])
    with contextlib.redirect_stdout(terminal):
        with pytest.raises(ZeroDivisionError):
            trainer.run()
        assert len(trainer.callbacks) == 1
        trainer.callbacks.clear()
        trainer.run()  # another bar can be shown
    assert len(re.findall(EVALUATION, terminal.getvalue())) == 2
