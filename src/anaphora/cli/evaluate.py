"""``anaphora evaluate``: how well a model predicts."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from anaphora.cli.output import JSON_HELP, Output, reported_errors, reported_misuse
from anaphora.cli.unknown_tokens import LEVELS, report_example_tokens, report_unknown
from anaphora.models import load_language_model
from anaphora.text import Batches, encode_to_file, is_table, open_source
from anaphora.training import (
    Evaluation,
    ExampleTask,
    evaluation_batches,
    load_language_model_options,
    task_of,
)
from anaphora.training import evaluate as evaluate_model


def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Files as in training. Of a language model: files, folders, or - for standard "
            "input. Of a translator: the source, then the target.",
        ),
    ],
    column: Annotated[
        str | None,
        typer.Option(
            help="language-model, classify: read .csv or .tsv files, and take the text from this "
            "column.",
            show_default="that of the training",
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            help="classify: take the labels from this column.", show_default="that of the training"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="language-model: cut the text into so many streams, each with a state of its own: "
            "faster. With 1 the state is carried through the whole text, as in papers.",
            show_default="1",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Print how well a model predicts: loss, and perplexity or accuracy.

    Of a language model every token counts once, and the state is carried through the whole text; a
    model that was trained on separate sentences starts anew with each. Of a classifier or tagger
    the accuracy is the share of right answers.

    What of a text the vocabulary lacks is told, and the share of unknown tokens; a text that has
    such tokens has no bits per character, as these characters were not predicted.

    With --json, one line: loss (nats a token), tokens, seconds, unknown_tokens, unknown_share (of
    a translator, of both sides); of a language model also perplexity, bits_per_token,
    bits_per_character, characters; of a translator perplexity; of a classifier or tagger accuracy.
    """
    output = Output(as_json)
    with reported_errors():
        task = task_of(directory)
        columns = {"column": column, "label_column": label_column}
        changes = {name: given for name, given in columns.items() if given is not None}
        with reported_misuse():
            for name in changes:
                if name not in task.options.names():
                    option = name.replace("_", "-")
                    raise ValueError(f"--{option} is not for models of the task {task.name}")
        if not isinstance(task, ExampleTask):
            _evaluate_language_model(output, directory, texts, column, batch_size or 1)
            return
        with reported_misuse():
            if batch_size is not None:
                raise ValueError(f"--batch-size is for language models; this is one to {task.name}")
            task.check_files(changes, texts)
        began = time.monotonic()
        model, vocabulary, batches, share = task.evaluation(directory, texts, **changes)
        unknown, count, total = share
        result = _evaluate(output, model, batches)
        if result.accuracy is None:
            name, value = "perplexity", result.perplexity
            shown = f"perplexity  {value:,.2f}"
        else:
            name, value = "accuracy", result.accuracy
            shown = f"accuracy    {value:.2%}"
        output.emit(
            {
                "loss": result.loss,
                name: value,
                "tokens": result.tokens,
                **({"unknown_tokens": count, "unknown_share": count / total} if total else {}),
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        if not as_json:
            output.say(
                f"loss        {result.loss:.4f} nats\n{shown}\n{task.unit:10}  {result.tokens:,}"
                + (f"\nunknown     {count:,} of {total:,} ({count / total:.2%})" if total else "")
            )
        report_example_tokens(", ".join(texts), task, vocabulary, unknown)


def _evaluate(output: Output, model: Any, batches: Batches) -> Evaluation:
    with Progress(
        console=output.console, transient=True, disable=not output.console.is_terminal
    ) as progress:
        bar = progress.add_task("evaluating", total=batches.tokens)
        return evaluate_model(model, batches, lambda n: progress.advance(bar, n))


def _evaluate_language_model(
    output: Output, directory: Path, texts: list[str], column: str | None, batch_size: int
) -> None:
    model, tokenizer = load_language_model(directory)
    options = load_language_model_options(directory).text
    if column is None and all(map(is_table, texts)):
        column = options.column
    source = open_source(texts, column, options.pattern)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ids = encode_to_file(source, tokenizer, Path(folder, "ids.npy"))
        batches = evaluation_batches(options, tokenizer, ids, min(batch_size, len(ids)))
        result = _evaluate(output, model, batches)
        unknown_tokens = int(np.count_nonzero(ids == tokenizer.unknown_id))
        unknown_share = unknown_tokens / len(ids)
    characters = sum(len(chunk) for chunk in source)
    unknown = tokenizer.unknown_tokens(source)
    bits: float | None = result.loss * result.tokens / characters / math.log(2)
    if options.level == "char":
        bits = result.bits_per_token  # the first character may have none before it
    if unknown:
        bits = None  # the characters that they are of were not predicted
    shown = "none, as the text has unknown tokens" if bits is None else f"{bits:.4f}"
    output.emit(
        {
            "loss": result.loss,
            "perplexity": result.perplexity,
            "bits_per_token": result.bits_per_token,
            "bits_per_character": bits,
            "tokens": result.tokens,
            "characters": characters,
            "unknown_tokens": unknown_tokens,
            "unknown_share": unknown_share,
            "seconds": round(time.monotonic() - began, 3),
        }
    )
    if not output.as_json:
        output.say(
            f"loss                {result.loss:.4f} nats a token\n"
            f"perplexity          {result.perplexity:,.2f}\n"
            f"bits per character  {shown}\n"
            f"tokens              {result.tokens:,} ({characters:,} characters)\n"
            f"unknown tokens      {unknown_tokens:,} ({unknown_share:.2%})"
        )
    report_unknown(
        source.name,
        unknown,
        lambda token: not tokenizer.unknown_tokens([token]),
        tokenizer.level,
        LEVELS.get(tokenizer.level, ""),
    )
