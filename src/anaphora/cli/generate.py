"""``anaphora generate``: text from a model, shown as it comes."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from anaphora.cli.output import (
    JSON_HELP,
    Output,
    load_text_model,
    reported_errors,
    reported_misuse,
    reported_numbers,
)
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.generation import Sampler
from anaphora.generation import generate as generate_text


def generate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    prompt: Annotated[
        str, typer.Option(help="The text to go on from; without it, the beginning of a line.")
    ] = "",
    length: Annotated[int, typer.Option(min=0, help="Tokens to generate after the prompt.")] = 500,
    temperature: Annotated[
        float,
        typer.Option(help="Less is bolder, more is wilder; 0 always takes the likeliest token."),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(help="Draw from the k likeliest tokens only; 0 for all.")
    ] = 0,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest tokens that reach this probability.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed, the same text.", show_default="drawn anew")
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown/--no-unknown",
            help="Whether the unknown token may be drawn: <unk> of words, U+FFFD of characters.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Generate text from a model; it streams to the terminal as it comes.

    What the prompt has of tokens that the vocabulary lacks is read as the unknown one, and told.

    With --json, one line at the end: text (the prompt too), prompt, seed.
    """
    output = Output(as_json)
    with reported_errors():
        seed = secrets.randbelow(2**32) if seed is None else seed
        with reported_misuse():
            sampler = Sampler(temperature, top_k, top_p, seed)
        model = load_text_model(directory)
        tokenizer = model.codec
        pieces = generate_text(model, tokenizer, prompt, length, sampler, unknown)
        report_unknown("the prompt", tokenizer, tokenizer.unknown_tokens([prompt]))
        with reported_numbers(directory):
            if as_json:
                output.emit({"text": "".join(pieces), "prompt": prompt, "seed": seed})
                return
            for piece in pieces:
                output.write(piece)
            output.write("\n")
