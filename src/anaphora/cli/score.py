"""``anaphora score``: the likelihood of each line of a text under a language model."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable
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
from anaphora.cli.precision import MatmulPrecision, Weights, products_in
from anaphora.cli.processes import Group, check_alike, in_groups
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.data import located, stream_lines
from anaphora.distributed import world
from anaphora.generation import TextScore
from anaphora.generation import score as score_texts
from anaphora.training import task_of

_LINES_AT_ONCE = 512


def score(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Lines of text, or - for standard input.",
            show_default="standard input",
        ),
    ] = "-",
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Print one line per token instead of per line.")
    ] = False,
    end: Annotated[
        bool, typer.Option("--end/--no-end", help="Whether the end of the line counts.")
    ] = True,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of FILE.", show_default="as in training")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Lines per batch; the values do not depend on it.")
    ] = 32,
    matmul_precision: MatmulPrecision = "float32",
    weights: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Print the likelihood of each line of a text under a language model.

    For each line: its log-probability in nats (natural logarithm), its perplexity, and the text,
    separated by tabs. With --tokens, for each token: its log-probability, a tab, the token; and
    an empty line after each line of the text.

    Each line is scored on its own. Before its first token the model reads a line end, so that the
    first token counts too, and finally the end of the line itself is predicted, unless --no-end is
    given. A character vocabulary without a line end allows neither: the first character is then
    not predicted, and has nan (with --json null).

    Tokens that are not in the vocabulary are read as unknown, and reported: their log-probability
    is that of the unknown token. At a terminal a line is scored immediately, otherwise in groups of
    512 lines, which several processes (mpiexec -n 4 anaphora score ...) share out; the output is
    that of one.

    With --json, one line per text line: text, tokens, log_probabilities (of each token), sum (of
    these), perplexity (null if nothing was predicted).
    """
    output = Output(as_json)
    processes = world()
    with reported_errors(), contextlib.ExitStack() as stack:
        with processes.together():
            text = task_of(directory).load_options(directory)
            with reported_misuse():
                text = dataclasses.replace(text, encoding=encoding or text.encoding)
            model = load_text_model(directory, weights)
            stack.enter_context(products_in(matmul_precision, model))
        check_alike(processes, model)
        tokenizer = model.codec
        at_terminal = file == "-" and sys.stdin is not None and sys.stdin.isatty()
        if at_terminal:
            typer.echo("reading lines; end with Ctrl-D", err=True)
        name = "standard input" if file == "-" else file
        unknown: Counter[str] = Counter()

        def scores(group: list[tuple[int, str]]) -> Iterable[TextScore]:
            with reported_numbers(directory):
                yield from score_texts(
                    model, tokenizer, [line for _, line in group], end, batch_size
                )

        def show(group: Group[tuple[int, str], TextScore]) -> None:
            for number, line in group.inputs:
                with located(f"{name}, line {number:,}"):
                    tokenizer.encode(line)  # raises if a token cannot be read
                unknown.update(tokenizer.unknown_tokens([line]))
            group.check()
            for (_, line), found in zip(group.inputs, group.found, strict=True):
                _show(output, line, found, tokens)
            if at_terminal:
                report_unknown(name, tokenizer, unknown)
                unknown.clear()

        numbered = enumerate(stream_lines(file, text.encoding), start=1)
        in_groups(processes, numbered, 1 if at_terminal else _LINES_AT_ONCE, scores, show)
        report_unknown(name, tokenizer, unknown)


def _show(output: Output, text: str, found: TextScore, tokens: bool) -> None:
    if output.as_json:
        output.emit(
            {
                "text": text,
                "tokens": found.tokens,
                "log_probabilities": found.log_probabilities,
                "sum": found.log_probability,
                "perplexity": found.perplexity,
            }
        )
    elif tokens:
        pairs = zip(found.log_probabilities, found.tokens, strict=True)
        shown = (
            f"{value:.4f}\t{'<eos>' if token == chr(10) else token}\n" for value, token in pairs
        )
        output.write("".join([*shown, "\n"]))
    else:
        output.write(f"{found.log_probability:.4f}\t{found.perplexity:.4g}\t{text}\n")
