"""``anaphora predict``: the answers of a classifier, a tagger or a translator."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from anaphora.artifact import ArtifactError
from anaphora.cli.output import (
    JSON_HELP,
    Output,
    complain,
    reported_errors,
    reported_misuse,
    reported_numbers,
)
from anaphora.cli.unknown_tokens import report_example_tokens
from anaphora.data import located, split_words
from anaphora.generation import translate
from anaphora.training import ExampleTask, classify, tag, task_of

Answers = Iterator[tuple[dict[str, Any], str]]  # a record, and how it is shown

_BEAM_SIZE = 5
_INPUTS_AT_ONCE = 500


def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Lines of text, or - for standard input. classify: also .ts files of series, and "
            "tables. tag: also .conllu and .tsv files as in training.",
            show_default="standard input",
        ),
    ] = "-",
    column: Annotated[
        str | None,
        typer.Option(
            help="classify: read a .csv or .tsv file, and take the text from this column.",
            show_default="that of the training",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of FILE.", show_default="that of the training"),
    ] = None,
    beam_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="translate: how many translations the search keeps beside each other.",
            show_default=str(_BEAM_SIZE),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Print what a model answers to each line: a label, tags, or a translation.

    A classifier prints the label of each text or series; a tagger a line for each word, with a tab
    before its tag, and an empty line after each sentence; a translator the translation.

    Each line has its answer; that to a line without a word is an empty line, and told. At a
    terminal an answer comes right after its line, elsewhere after 500 lines. Words that the
    vocabulary lacks are read as unknown, and told.

    With --json, a line for each answer: text, label, probabilities (by label, the likeliest first);
    or words, tags, probabilities (of these tags); or source, translation, log_probability, score.
    To a line without a word label, log_probability and score are null.
    """
    output = Output(as_json)
    with reported_errors():
        task = task_of(directory)
        if not isinstance(task, ExampleTask):
            raise ArtifactError(
                f"{directory}: is a language model, which goes on with a text; use it with: "
                f"anaphora generate {shlex.quote(str(directory))}"
            )
        with reported_misuse():
            if beam_size is not None and task.name != "translate":
                raise ValueError(f"--beam-size is for translators; this is one to {task.name}")
            if column is not None and task.name != "classify":
                raise ValueError(f"--column is for classifiers; this is one to {task.name}")
            task.check_files({"column": column}, [file])
            options = {"column": column, "encoding": encoding}
            changes = {name: given for name, given in options.items() if given is not None}
            text = dataclasses.replace(task.load_options(directory).text, **changes)
        model, vocabulary = task.load(directory)
        at_terminal = file == "-" and sys.stdin is not None and sys.stdin.isatty()
        if at_terminal:
            typer.echo("reading lines; end them with Ctrl-D", err=True)
        inputs = task.read_inputs(text, file)
        notices = _Notices(task, vocabulary)
        while part := list(itertools.islice(inputs, 1 if at_terminal else _INPUTS_AT_ONCE)):
            for place, one in part:
                notices.read(place, one)
            full = [one for _, one in part if not _is_blank(one)]
            answers = _ANSWERS[task.name](model, vocabulary, full, beam_size or _BEAM_SIZE)
            for _, one in part:
                with reported_numbers(directory):
                    record, shown = _blank_answer(task, one) if _is_blank(one) else next(answers)
                if as_json:
                    output.emit(record)
                else:
                    output.write(f"{shown}\n")
            if at_terminal:
                notices.tell()
        notices.tell()


class _Notices:
    """What is told of inputs besides the answers to them."""

    def __init__(self, task: ExampleTask, vocabulary: Any) -> None:
        self._task, self._vocabulary = task, vocabulary
        self._blank: list[str] = []
        self._unknown = Counter[str]()
        self._place = ""  # of the first unknown token

    def read(self, place: str, one: Any) -> None:
        """Look at an input; refuse one that the model cannot read."""
        if _is_blank(one):
            self._blank.append(place)
            return
        with located(place):
            found = self._task.unknown_tokens(self._vocabulary, one)
        if found and not self._unknown:
            self._place = place
        self._unknown.update(found)

    def tell(self) -> None:
        """Say what there was since it was said last."""
        if self._blank:
            more = f" and {len(self._blank) - 1:,} more" if len(self._blank) > 1 else ""
            complain(f"{self._blank[0]}{more}: nothing to read there; the answer is empty")
        where = self._place if self._unknown.total() == 1 else f"{self._place} and later"
        report_example_tokens(where, self._task, self._vocabulary, self._unknown)
        self._blank, self._unknown = [], Counter()


def _is_blank(one: Any) -> bool:
    """Whether an input is a line without a word, which training leaves out too."""
    return not (split_words(one) if isinstance(one, str) else len(one))


def _blank_answer(task: ExampleTask, one: Any) -> tuple[dict[str, Any], str]:
    if task.name == "classify":
        return {"text": one, "label": None, "probabilities": {}}, ""
    if task.name == "tag":
        return {"words": [], "tags": [], "probabilities": []}, ""
    return {"source": one, "translation": "", "log_probability": None, "score": None}, ""


def _labels(model: Any, vocabulary: Any, inputs: list[Any], beam_size: int) -> Answers:
    for example, shares in zip(inputs, classify(model, vocabulary, inputs), strict=True):
        text = {"text": example} if isinstance(example, str) else {}
        label = next(iter(shares))
        yield {**text, "label": label, "probabilities": shares}, label


def _tags(model: Any, vocabulary: Any, inputs: list[Any], beam_size: int) -> Answers:
    for words, found in zip(inputs, tag(model, vocabulary, inputs), strict=True):
        tags, shares = ([pair[k] for pair in found] for k in (0, 1))
        shown = "".join(f"{word}\t{its_tag}\n" for word, its_tag in zip(words, tags, strict=True))
        yield {"words": words, "tags": tags, "probabilities": shares}, shown


def _translations(model: Any, vocabulary: Any, inputs: list[Any], beam_size: int) -> Answers:
    for sentence, one in zip(inputs, translate(model, vocabulary, inputs, beam_size), strict=True):
        best = one.hypothesis
        record = {"source": sentence, "translation": one.text}
        scores = {"log_probability": best.log_probability, "score": best.score}
        yield {**record, **scores}, one.text


_ANSWERS: dict[str, Callable[[Any, Any, list[Any], int], Answers]] = {
    "classify": _labels,
    "tag": _tags,
    "translate": _translations,
}
