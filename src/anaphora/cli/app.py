"""The commands as one program."""

from __future__ import annotations

import inspect
import math
import os
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

import anaphora
from anaphora.cli.evaluate import evaluate
from anaphora.cli.export import export
from anaphora.cli.generate import generate
from anaphora.cli.help import CONTEXT_SETTINGS, Command
from anaphora.cli.import_ import import_
from anaphora.cli.info import info
from anaphora.cli.output import (
    INTERRUPTED,
    complain,
    description,
    end_together,
    open_standard_streams,
    silence,
)
from anaphora.cli.plot import plot
from anaphora.cli.predict import predict
from anaphora.cli.processes import share_processors
from anaphora.cli.quantize import quantize
from anaphora.cli.score import score
from anaphora.cli.serve import serve
from anaphora.cli.train import train
from anaphora.distributed import ProcessesDiffer, world
from anaphora.distributed.processes import launched_rank

__all__ = ["app", "run"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
    help="Recurrent networks: train a model on files, evaluate it, use it.",
    epilog="Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted (Ctrl-C).",
)
_COMMANDS: dict[Callable[..., None], str] = {
    train: "Train a language model, or with --task another kind of model.",
    evaluate: "Evaluate a model on files: its loss, and the figures of its task.",
    predict: "Print a label, tags, a translation or a forecast for each input.",
    generate: "Generate text from a language model, streamed to the terminal.",
    score: "Print the log-probability of each line under a language model.",
    serve: "Serve models over HTTP, to clients of OpenAI's interface.",
    info: "Print what a model directory contains.",
    plot: "Plot a language model: losses, embeddings, states and gates.",
    quantize: "Write a copy of a model directory with weights in 8 bits.",
    export: "Write a model in a format that other programs read.",
    import_: "Make a model directory of a Keras, PyTorch or ONNX model.",
}
for _command, _short in _COMMANDS.items():
    # Typer keeps the line ends of a docstring; a paragraph should fill the terminal's lines.
    _paragraphs = (inspect.getdoc(_command) or "").split("\n\n")
    _help = "\n\n".join(" ".join(p.split()) for p in _paragraphs)
    _name = _command.__name__.rstrip("_")
    app.command(_name, cls=Command, help=_help, short_help=_short)(_command)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"anaphora {anaphora.__version__}")
        engine = anaphora.engine.info()
        if engine["engine"] == "native":
            typer.echo(
                f"native engine: {engine['instruction_set']}, {engine['threads']} "
                f"thread{'' if engine['threads'] == 1 else 's'}"
            )
        else:
            typer.echo("no native engine: NumPy")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


_LARGEST = 2**63 - 1  # the largest signed 64-bit integer


def _checked(context: typer.Context, parameter: Any, value: Any) -> Any:
    """Refuse numbers that are not finite, or too large for 64 bits."""
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, int) and abs(number) > _LARGEST:
            limit = _LARGEST if number > 0 else -_LARGEST
            end = "largest" if number > 0 else "smallest"
            raise typer.BadParameter(
                f"{number} is out of range; the {end} is {limit}", ctx=context, param=parameter
            )
        if isinstance(number, float) and not math.isfinite(number):
            raise typer.BadParameter(
                f"{number} is not a finite number", ctx=context, param=parameter
            )
    return value


_OF_ALL_PROCESSES = {"train", "evaluate", "predict", "generate", "score"}
"""The commands that many processes share; rank 0 alone runs the others."""


def run() -> int:
    """Run the command line of this process, or of many; return the exit code."""
    open_standard_streams()
    try:
        processes = world()
    except (ImportError, RuntimeError) as error:
        if launched_rank(os.environ) == 0:
            complain(str(error))
        return 1
    if processes.size == 1:
        return _run()
    if not processes.is_main:
        silence()
    own = {"the command line": shlex.join(sys.argv[1:]), "version": anaphora.__version__}
    try:
        processes.check_alike(own)
    except ProcessesDiffer as error:
        complain(str(error))
        return end_together(processes, 2)
    share_processors(processes)
    shared = processes.is_main or bool(_OF_ALL_PROCESSES & set(sys.argv[1:2]))
    return end_together(processes, _run() if shared else 0)


def _run() -> int:
    program: Any = typer.main.get_command(app)
    for command in program.commands.values():
        for parameter in command.params:
            if parameter.callback is None:
                parameter.callback = _checked
    try:
        code = program.main(prog_name="anaphora", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return 1
    except OSError as error:  # while printing outside the commands, such as help
        complain(description(error))
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # not an error of click or typer
            raise
        return _misused(error)


def _misused(error: Any) -> int:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        if message:
            typer.echo(message, err=True)
        return 2
    if context is not None:
        typer.echo(f"{context.get_usage()}\nTry: {context.command_path} --help", err=True)
    complain(message)
    return int(error.exit_code)
