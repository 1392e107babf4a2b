"""``anaphora predict``: a model's predictions for inputs."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from anaphora.artifact import ArtifactError
from anaphora.cli.options import OPTIONS, options_of, with_options_of
from anaphora.cli.output import (
    JSON_HELP,
    Output,
    complain,
    load_model,
    reported_errors,
    reported_misuse,
    reported_numbers,
)
from anaphora.cli.precision import MatmulPrecision, Weights, products_in
from anaphora.cli.processes import Group, check_alike, in_groups
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.data import located, split_words
from anaphora.distributed import world
from anaphora.training import TASKS, Answer, task_of

_INPUTS_AT_ONCE = 500
_OPTIONS = {name: OPTIONS[name] for name, task in TASKS.items() if not task.writes_text}


@with_options_of(
    _OPTIONS,
    lambda field: field["reading"] or field["section"] == "prediction",
    show_default=False,
)
def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Lines of text, or - for standard input; or files as in training: series, "
            "tables, column files.",
            show_default="standard input",
        ),
    ] = "-",
    matmul_precision: MatmulPrecision = "float32",
    weights: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    options: Mapping[str, Any] = {},
) -> None:
    """Print a model's prediction for each line or series: a label, tags, a translation, a forecast.

    A classifier prints the label of each text or series (with several labels, those more likely
    than not, separated by --label-separator); a tagger one line per word, with a tab before its
    tag, and an empty line after each sentence; a translator the translation. A forecaster prints a
    tab-separated table for each series: the time, and the median and quantiles of each target, for
    --horizon steps after the last row that has a target.

    Each line gets a prediction; for a line without words it is an empty line, and reported. At a
    terminal a prediction is printed right after its line, otherwise after every 500 lines. Words
    that are not in the vocabulary are read as unknown, and reported. Files are read as in training,
    except for --format.

    Several processes (mpiexec -n 4 anaphora predict ...) share out groups of 500 lines; the output
    is that of one.

    With --json, one line per prediction: text, label (or labels), probabilities (by label, most
    likely first); or words, tags, probabilities (of these tags); or source, translation,
    log_probability, score; or series, times, forecasts (by target: median, quantiles by level).
    For a line without words, label, log_probability and score are null.
    """
    output = Output(as_json)
    processes = world()
    with reported_errors(), contextlib.ExitStack() as stack:
        with processes.together():
            task = task_of(directory)
            if task.inputs is None or task.answer is None:
                raise ArtifactError(
                    f"{directory}: is a language model, which continues text; use it with: "
                    f"anaphora generate {shlex.quote(str(directory))}"
                )
            with reported_misuse():
                options = options_of(task.name, options, OPTIONS)
                task.check_files(options, [file])
                given = dataclasses.replace(task.load_options(directory), **options)
            model = load_model(task, directory, weights)
            stack.enter_context(products_in(matmul_precision, model))
        check_alike(processes, model)
        at_terminal = file == "-" and sys.stdin is not None and sys.stdin.isatty()
        if at_terminal:
            typer.echo("reading lines; end with Ctrl-D", err=True)
        notices = _Notices(model.codec)
        heading = ""
        predict_for = task.answer

        def answers(group: list[tuple[str, Any]]) -> Iterator[Answer]:
            with reported_numbers(directory):
                yield from predict_for(given, model, [item for _, item in group])

        def show(group: Group[tuple[str, Any], Answer]) -> None:
            nonlocal heading
            for place, item in group.inputs:
                notices.read(place, item)
            for answer in group.found:
                if as_json:
                    output.emit(answer.record)
                    continue
                if answer.heading != heading:
                    heading = answer.heading
                    output.write(f"{heading}\n")
                output.write(f"{answer.text}\n")
            if at_terminal:
                notices.report()

        size = 1 if at_terminal else _INPUTS_AT_ONCE
        in_groups(processes, task.inputs(given, file), size, answers, show)
        notices.report()


class _Notices:
    """Reports about inputs besides the predictions."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self._blank: list[str] = []
        self._unknown = Counter[str]()
        self._place = ""  # of the first unknown token

    def read(self, place: str, item: Any) -> None:
        """Check an input; refuse one that the model cannot read."""
        if not (split_words(item) if isinstance(item, str) else len(item)):
            self._blank.append(place)
            return
        with located(place):
            found = self._codec.unknown_tokens(item)
        if found and not self._unknown:
            self._place = place
        self._unknown.update(found)

    def report(self) -> None:
        """Report what was found since the last report."""
        if self._blank:
            more = f" and {len(self._blank) - 1:,} more" if len(self._blank) > 1 else ""
            complain(f"{self._blank[0]}{more}: nothing to read there; the prediction is empty")
        where = self._place if self._unknown.total() == 1 else f"{self._place} and later"
        report_unknown(where, self._codec, self._unknown)
        self._blank, self._unknown = [], Counter()
