"""``anaphora predict``: what a model answers to inputs."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from anaphora.artifact import ArtifactError
from anaphora.cli.options import OPTIONS, options_of, with_options_of
from anaphora.cli.output import (
    JSON_HELP,
    Output,
    complain,
    reported_errors,
    reported_misuse,
    reported_numbers,
)
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.data import located, split_words
from anaphora.training import TASKS, task_of

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
            "tables, files of columns.",
            show_default="standard input",
        ),
    ] = "-",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    options: Mapping[str, Any] = {},
) -> None:
    """Print what a model answers to each line or series: a label, tags, a translation, a forecast.

    A classifier prints the label of each text or series, or those of its labels that are more
    likely than not, with the sign of --label-separator between them; a tagger a line for each word,
    with a tab before its tag, and an empty line after each sentence; a translator the translation.
    A forecaster prints a table of each series, with tabs between its columns: time, and of each
    target the median between quantiles, for --horizon steps after the last row that has a target.

    Each line has its answer; that to a line without a word is an empty line, and reported. At a
    terminal an answer comes right after its line, elsewhere after 500 lines. Words that are
    not in the vocabulary are read as unknown, and reported. Files are read as in training, but for
    --format.

    With --json, a line for each answer: text, label (or labels), probabilities (by label, the
    likeliest first); or words, tags, probabilities (of these tags); or source, translation,
    log_probability, score; or series, times, forecasts (by target: median, quantiles by level).
    To a line without a word label, log_probability and score are null.
    """
    output = Output(as_json)
    with reported_errors():
        task = task_of(directory)
        if task.inputs is None or task.answer is None:
            raise ArtifactError(
                f"{directory}: is a language model, which continues a text; use it with: "
                f"anaphora generate {shlex.quote(str(directory))}"
            )
        with reported_misuse():
            options = options_of(task.name, options, OPTIONS)
            task.check_files(options, [file])
            given = dataclasses.replace(task.load_options(directory), **options)
        model = task.load(directory)
        at_terminal = file == "-" and sys.stdin is not None and sys.stdin.isatty()
        if at_terminal:
            typer.echo("reading lines; end them with Ctrl-D", err=True)
        inputs = task.inputs(given, file)
        notices = _Notices(model.codec)
        heading = ""
        while part := list(itertools.islice(inputs, 1 if at_terminal else _INPUTS_AT_ONCE)):
            for place, one in part:
                notices.read(place, one)
            answers = task.answer(given, model, [one for _, one in part])
            for _ in part:
                with reported_numbers(directory):
                    answer = next(answers)
                if as_json:
                    output.emit(answer.record)
                    continue
                if answer.heading != heading:
                    heading = answer.heading
                    output.write(f"{heading}\n")
                output.write(f"{answer.text}\n")
            if at_terminal:
                notices.report()
        notices.report()


class _Notices:
    """What is reported of inputs besides the answers to them."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self._blank: list[str] = []
        self._unknown = Counter[str]()
        self._place = ""  # of the first unknown token

    def read(self, place: str, one: Any) -> None:
        """Look at an input; refuse one that the model cannot read."""
        if not (split_words(one) if isinstance(one, str) else len(one)):
            self._blank.append(place)
            return
        with located(place):
            found = self._codec.unknown_tokens(one)
        if found and not self._unknown:
            self._place = place
        self._unknown.update(found)

    def report(self) -> None:
        """Say what there was since it was said last."""
        if self._blank:
            more = f" and {len(self._blank) - 1:,} more" if len(self._blank) > 1 else ""
            complain(f"{self._blank[0]}{more}: nothing to read there; the answer is empty")
        where = self._place if self._unknown.total() == 1 else f"{self._place} and later"
        report_unknown(where, self._codec, self._unknown)
        self._blank, self._unknown = [], Counter()
