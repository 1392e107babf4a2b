"""``anaphora evaluate``: how well a model predicts a text."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from anaphora.cli.output import JSON_HELP, Output, reported_errors
from anaphora.models import load_language_model
from anaphora.text import encode_to_file, open_source
from anaphora.training import evaluate as evaluate_model
from anaphora.training import evaluation_batches, load_language_model_options


def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT", help="Files, folders, or - for standard input."),
    ],
    column: Annotated[
        str | None,
        typer.Option(
            help="Read .csv files, and take the text from this column.",
            show_default="that of the training",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Cut the text into so many streams, each with a state of its own: faster. With 1 "
            "the state is carried through the whole text, as in papers.",
        ),
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Print loss, perplexity and bits per character of a model on a text.

    Every token counts once, and the state is carried through the whole text; a model that was
    trained on separate sentences starts anew with each. With --json, one line: loss (nats a token),
    perplexity, bits_per_token, bits_per_character, tokens, characters, seconds.
    """
    output = Output(as_json)
    with reported_errors():
        model, tokenizer = load_language_model(directory)
        options = load_language_model_options(directory).text
        if column is None and all(text.lower().endswith(".csv") for text in texts):
            column = options.column
        source = open_source(texts, column, options.pattern)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            ids = encode_to_file(source, tokenizer, Path(folder, "ids.npy"))
            batches = evaluation_batches(options, tokenizer, ids, min(batch_size, len(ids)))
            with Progress(
                console=output.console, transient=True, disable=not output.console.is_terminal
            ) as progress:
                task = progress.add_task("evaluating", total=batches.tokens)
                result = evaluate_model(model, batches, lambda n: progress.advance(task, n))
        characters = sum(len(chunk) for chunk in source)
        bits = result.loss * result.tokens / characters / math.log(2)
        if options.level == "char":
            bits = result.bits_per_token  # the first character may have none before it
        output.emit(
            {
                "loss": result.loss,
                "perplexity": result.perplexity,
                "bits_per_token": result.bits_per_token,
                "bits_per_character": bits,
                "tokens": result.tokens,
                "characters": characters,
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        if not as_json:
            output.say(
                f"loss                {result.loss:.4f} nats a token\n"
                f"perplexity          {result.perplexity:,.2f}\n"
                f"bits per character  {bits:.4f}\n"
                f"tokens              {result.tokens:,} ({characters:,} characters)"
            )
