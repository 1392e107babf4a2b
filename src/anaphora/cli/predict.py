"""``anaphora predict``: the answers of a classifier, a tagger or a translator."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from anaphora.artifact import ArtifactError
from anaphora.cli.output import (
    JSON_HELP,
    Output,
    reported_errors,
    reported_misuse,
    reported_numbers,
)
from anaphora.generation import translate
from anaphora.training import ExampleTask, classify, tag, task_of

Answers = Iterator[tuple[dict[str, Any], str]]  # a record, and how it is shown

_BEAM_SIZE = 5
_SENTENCES_AT_ONCE = 500


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

    With --json, a line for each answer: text, label, probabilities (by label, the likeliest first);
    or words, tags, probabilities (of these tags); or source, translation, log_probability, score.
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
        if file == "-" and sys.stdin is not None and sys.stdin.isatty():
            typer.echo("reading lines; end them with Ctrl-D", err=True)
        inputs = task.read_inputs(text, file)
        answers = _ANSWERS[task.name](model, vocabulary, inputs, beam_size or _BEAM_SIZE)
        with reported_numbers(directory):
            for record, shown in answers:
                if as_json:
                    output.emit(record)
                else:
                    output.write(f"{shown}\n")


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
    for start in range(0, len(inputs), _SENTENCES_AT_ONCE):
        sentences = inputs[start : start + _SENTENCES_AT_ONCE]
        found = translate(model, vocabulary, sentences, beam_size)
        for sentence, one in zip(sentences, found, strict=True):
            best = one.hypothesis
            record = {"source": sentence, "translation": one.text}
            scores = {"log_probability": best.log_probability, "score": best.score}
            yield {**record, **scores}, one.text


_ANSWERS: dict[str, Callable[[Any, Any, list[Any], int], Answers]] = {
    "classify": _labels,
    "tag": _tags,
    "translate": _translations,
}
