"""``anaphora generate``: text from a model, streamed, or for many prompts."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from anaphora.cli.output import (
    JSON_HELP,
    Output,
    load_text_model,
    reported_errors,
    reported_misuse,
    reported_numbers,
)
from anaphora.cli.precision import MatmulPrecision, Weights, products_in
from anaphora.cli.processes import Group, check_alike, in_groups
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.data import Tokenizer, located, stream_lines
from anaphora.distributed import world
from anaphora.generation import NextToken, Sampler, generate_batch, next_tokens
from anaphora.generation import generate as generate_text
from anaphora.training import task_of

_PROMPTS_AT_ONCE = 32
_RULE = "-" * 60


def generate(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="The text to continue; without it, the beginning of a line. May be repeated.",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A file whose lines to continue, or - for standard input."
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the file of prompts.", show_default="as in training"),
    ] = None,
    length: Annotated[int, typer.Option(min=0, help="Tokens to generate after a prompt.")] = 500,
    temperature: Annotated[
        float,
        typer.Option(
            help="Below 1 favors likely tokens, above 1 unlikely ones; 0 always takes the most "
            "likely."
        ),
    ] = 1.0,
    top_k: Annotated[
        int,
        typer.Option(
            rich_help_panel="Sampling", help="Sample only from the k most likely tokens; 0 for all."
        ),
    ] = 0,
    top_p: Annotated[
        float,
        typer.Option(
            rich_help_panel="Sampling",
            help="Sample from the most likely tokens that together reach this probability.",
        ),
    ] = 1.0,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            rich_help_panel="Sampling",
            help="Above 1 makes tokens that occurred before less likely (as in CTRL).",
        ),
    ] = 1.0,
    no_repeat_ngram: Annotated[
        int,
        typer.Option(
            metavar="N",
            rich_help_panel="Sampling",
            help="Never repeat N tokens in a row; 0 allows all.",
        ),
    ] = 0,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="Stop before this text, if it is generated. May be repeated."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same text.", show_default="random"),
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown/--no-unknown",
            rich_help_panel="Sampling",
            help="Whether the unknown token may be chosen: <unk> of words, U+FFFD of characters.",
        ),
    ] = False,
    next_count: Annotated[
        int | None,
        typer.Option(
            "--next",
            min=1,
            metavar="K",
            help="Instead of text, print the K most likely next tokens and their probabilities.",
        ),
    ] = None,
    matmul_precision: MatmulPrecision = "float32",
    weights: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Generate text from a language model, streamed to the terminal.

    With several prompts (repeated --prompt, or --prompts), or with --next, a line of dashes follows
    each result. Prompts are continued in batches of 32: the first with --seed, the next with
    --seed + 1, and so on, each with the same result as alone with that seed. Several processes
    (mpiexec -n 4 anaphora generate ...) share out the batches.

    Tokens of a prompt that are not in the vocabulary are read as unknown, and reported.

    With --json, one line for each prompt: text (the prompt too), prompt, seed; or with --next:
    prompt, next (a list of token and probability, most likely first).
    """
    output = Output(as_json)
    processes = world()
    with reported_errors(), contextlib.ExitStack() as stack:
        seed = processes.broadcast(secrets.randbelow(2**32)) if seed is None else seed
        with processes.together():
            with reported_misuse():
                sampler = Sampler(
                    temperature,
                    top_k,
                    top_p,
                    seed,
                    repetition_penalty=repetition_penalty,
                    no_repeat_ngram=no_repeat_ngram,
                )
                if stop and "" in stop:
                    raise ValueError("--stop is empty; omit it")
                if next_count is not None:
                    _refuse_sampling(context)
            model = load_text_model(directory, weights)
            stack.enter_context(products_in(matmul_precision, model))
        check_alike(processes, model)
        tokenizer = model.codec
        stops = stop or []
        if prompts is None and len(prompt or []) < 2 and next_count is None:
            if not processes.is_main:  # there is nothing to share out
                return
            text = prompt[0] if prompt else ""
            pieces = generate_text(model, tokenizer, text, length, sampler, unknown, stops)
            report_unknown("the prompt", tokenizer, tokenizer.unknown_tokens([text]))
            with reported_numbers(directory):
                if as_json:
                    output.emit({"text": "".join(pieces), "prompt": text, "seed": seed})
                    return
                for piece in pieces:
                    output.write(piece)
                output.write("\n")
            return
        with processes.together():
            encoding = encoding or task_of(directory).load_options(directory).encoding
        at_terminal = prompts == "-" and sys.stdin is not None and sys.stdin.isatty()
        if at_terminal:
            typer.echo("reading prompts, one per line; end with Ctrl-D", err=True)
        unknown_tokens: Counter[str] = Counter()
        given = prompt or ([] if prompts else [""])

        def results(group: list[tuple[int, str]]) -> Iterator[Any]:
            texts = [text for _, text in group]
            with reported_numbers(directory):
                if next_count is not None:
                    yield from (next_tokens(model, tokenizer, t, next_count) for t in texts)
                    return
                own = dataclasses.replace(sampler, seed=seed + group[0][0])
                yield from generate_batch(
                    model, tokenizer, texts, length, own, unknown, stops, batch_size=len(texts)
                )

        def show(group: Group[tuple[int, str], Any]) -> None:
            for (number, text), found in zip(group.inputs, group.found, strict=False):
                if next_count is not None:
                    _show_next(output, text, found)
                    continue
                output.emit({"text": found, "prompt": text, "seed": seed + number})
                if not as_json:
                    output.write(f"{found}\n{_RULE}\n")

        numbered = enumerate(_read(tokenizer, given, prompts, encoding, unknown_tokens))
        size = 1 if at_terminal or next_count is not None else _PROMPTS_AT_ONCE
        in_groups(processes, numbered, size, results, show)
        report_unknown(
            "the prompts" if prompts or len(given) > 1 else "the prompt", tokenizer, unknown_tokens
        )


def _refuse_sampling(context: typer.Context) -> None:
    """Refuse options that have no meaning with --next."""
    for name in (
        "length",
        "temperature",
        "top_k",
        "top_p",
        "repetition_penalty",
        "no_repeat_ngram",
        "stop",
        "seed",
        "unknown",
    ):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise ValueError(
                "--next shows the model's own distribution and generates nothing; omit "
                f"--{name.replace('_', '-')}"
            )


def _read(
    tokenizer: Tokenizer,
    given: list[str],
    file: str | None,
    encoding: str,
    unknown_tokens: Counter[str],
) -> Iterator[str]:
    """Yield the prompts; count the tokens that are not in the vocabulary."""
    numbered = [(f"prompt {number}", text) for number, text in enumerate(given, start=1)]
    lines = [] if file is None else enumerate(stream_lines(file, encoding), start=1)
    name = "standard input" if file == "-" else file
    of_file = ((f"{name}, line {number:,}", line) for number, line in lines)
    for place, text in itertools.chain(numbered, of_file):
        with located(place):
            tokenizer.encode(text)  # raises if a token cannot be read
        unknown_tokens.update(tokenizer.unknown_tokens([text]))
        yield text


def _show_next(output: Output, prompt: str, found: list[NextToken]) -> None:
    pairs = [{"token": one.token, "probability": one.probability} for one in found]
    output.emit({"prompt": prompt, "next": pairs})
    if not output.as_json:
        lines = [f"{one.probability:.4f}\t{one.token!r}\n" for one in found]
        output.write("".join([f"{prompt}\n", *lines, f"{_RULE}\n"]))
