"""The commands as one program."""

from __future__ import annotations

import inspect
import math
import sys
from typing import Annotated, Any

import typer

import anaphora
from anaphora.cli.evaluate import evaluate
from anaphora.cli.export import export
from anaphora.cli.generate import generate
from anaphora.cli.help import CONTEXT_SETTINGS, Command
from anaphora.cli.info import info
from anaphora.cli.output import INTERRUPTED, complain, description, open_standard_streams
from anaphora.cli.plot import plot
from anaphora.cli.predict import predict
from anaphora.cli.quantize import quantize
from anaphora.cli.score import score
from anaphora.cli.serve import serve
from anaphora.cli.train import train

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
for _command in (train, evaluate, predict, generate, score, serve, info, plot, quantize, export):
    # Typer keeps the line ends of a docstring; a paragraph should fill the terminal's lines.
    _paragraphs = (inspect.getdoc(_command) or "").split("\n\n")
    app.command(cls=Command, help="\n\n".join(" ".join(p.split()) for p in _paragraphs))(_command)


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


def run() -> int:
    """Run the command line of this process; return the exit code."""
    open_standard_streams()
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
