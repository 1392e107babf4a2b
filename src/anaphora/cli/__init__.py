"""The command line: one file a command; parsing and printing only."""

from __future__ import annotations

import inspect
import io
import os
import sys
from typing import Annotated

import typer

import anaphora
from anaphora.cli.evaluate import evaluate
from anaphora.cli.generate import generate
from anaphora.cli.info import info
from anaphora.cli.plot import plot
from anaphora.cli.predict import predict
from anaphora.cli.train import train

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Recurrent networks: train a model on files, evaluate it, use it.",
    epilog="Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted (Ctrl-C).",
)
for _command in (train, evaluate, predict, generate, info, plot):
    # Typer keeps the line ends of a docstring; a paragraph is to fill the terminal's lines.
    _paragraphs = (inspect.getdoc(_command) or "").split("\n\n")
    app.command(help="\n\n".join(" ".join(p.split()) for p in _paragraphs))(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"anaphora {anaphora.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):  # a sign that their encoding lacks is no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
