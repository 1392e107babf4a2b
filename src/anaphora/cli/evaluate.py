"""``anaphora evaluate``: how well a model predicts."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from anaphora.artifact import ArtifactError
from anaphora.cli.output import JSON_HELP, Output, reported_errors, reported_misuse
from anaphora.cli.unknown_tokens import report_example_tokens, report_tokens
from anaphora.data import Batches, encode_to_file, is_table, open_source
from anaphora.models import load_language_model
from anaphora.training import (
    Evaluation,
    ExampleTask,
    TextOptions,
    evaluation_batches,
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
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the files.", show_default="that of the training"),
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

    What of a text the vocabulary lacks is told, and the share of unknown tokens; a text of which
    the vocabulary lacks something has no bits per character, as these characters were not
    predicted.

    With --json, one line: loss (nats), tokens, seconds, unknown_tokens, unknown_share (of a
    translator, of both sides); of a language model also perplexity, bits_per_token,
    bits_per_character, characters; of a translator perplexity and bits_per_token; of a classifier
    or tagger accuracy.
    """
    output = Output(as_json)
    with reported_errors():
        task = task_of(directory)
        options = {"column": column, "label_column": label_column, "encoding": encoding}
        changes = {name: given for name, given in options.items() if given is not None}
        with reported_misuse():
            for name in changes:
                if name not in task.options.names():
                    option = name.replace("_", "-")
                    raise ValueError(f"--{option} is not for models of the task {task.name}")
            text = dataclasses.replace(task.load_options(directory).text, **changes)
        if not isinstance(task, ExampleTask):
            if column is None and not all(map(is_table, texts)):
                text = dataclasses.replace(text, column=None)
            _evaluate_language_model(output, directory, texts, text, batch_size or 1)
            return
        with reported_misuse():
            if batch_size is not None:
                raise ValueError(f"--batch-size is for language models; this is one to {task.name}")
            task.check_files(changes, texts)
        began = time.monotonic()
        model, vocabulary, batches, share = task.evaluation(directory, texts, **changes)
        unknown, count, total = share
        result = _evaluate(output, directory, model, batches)
        figures = result.figures
        shown = (
            f"accuracy    {figures['accuracy']:.2%}"
            if "accuracy" in figures
            else f"perplexity  {figures['perplexity']:,.2f}"
        )
        output.emit(
            {
                "loss": result.loss,
                **figures,
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
        report_example_tokens(
            ", ".join(texts), task, vocabulary, unknown, both_sides=task.name == "translate"
        )


def _evaluate(output: Output, directory: Path, model: Any, batches: Batches) -> Evaluation:
    with Progress(
        console=output.console, transient=True, disable=not output.console.is_terminal
    ) as progress:
        bar = progress.add_task("evaluating", total=batches.tokens)
        result = evaluate_model(model, batches, lambda n: progress.advance(bar, n))
    if not math.isfinite(result.loss):
        raise ArtifactError(
            f"{directory}: the loss is {result.loss}, so there is nothing to report; the model's "
            "weights or its inputs are too large: train again with a lower learning_rate"
        )
    return result


def _evaluate_language_model(
    output: Output, directory: Path, texts: list[str], options: TextOptions, batch_size: int
) -> None:
    model, tokenizer = load_language_model(directory)
    source = open_source(texts, options.column, options.pattern, options.encoding)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ids = encode_to_file(source, tokenizer, Path(folder, "ids.npy"))
        batches = evaluation_batches(options, tokenizer, ids, min(batch_size, len(ids)))
        result = _evaluate(output, directory, model, batches)
        unknown_tokens = int(np.count_nonzero(ids == tokenizer.unknown_id))
        unknown_share = unknown_tokens / len(ids)
    characters = sum(len(chunk) for chunk in source)
    unknown = tokenizer.unknown_tokens(source)
    figures = result.figures
    bits: float | None = result.loss * result.tokens / characters / math.log(2)
    if options.level == "char":
        bits = figures["bits_per_token"]  # the first character may have none before it
    if unknown:
        bits = None  # the characters that they are of were not predicted
    shown = "none, as the text has unknown tokens" if bits is None else f"{bits:.4f}"
    output.emit(
        {
            "loss": result.loss,
            **figures,
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
            f"perplexity          {figures['perplexity']:,.2f}\n"
            f"bits per character  {shown}\n"
            f"tokens              {result.tokens:,} ({characters:,} characters)\n"
            f"unknown tokens      {unknown_tokens:,} ({unknown_share:.2%})"
        )
    report_tokens(source.name, tokenizer, unknown)
