"""The commands as one program."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import anaphora
from anaphora import engine
from anaphora.cli.commands import Commands
from anaphora.cli.help import CONTEXT_SETTINGS
from anaphora.cli.output import (
    INTERRUPTED,
    complain,
    description,
    end_together,
    open_standard_streams,
    silence,
)
from anaphora.cli.processes import share_processors
from anaphora.distributed import ProcessesDiffer, world
from anaphora.distributed.processes import launched_rank

__all__ = ["app", "prepare", "run"]

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
    help="Recurrent networks: train a model on files, evaluate it, use it.",
    epilog="Exit codes: 0 done, 1 failed, 2 misused, 130 interrupted (Ctrl-C).",
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"anaphora {anaphora.__version__}")
        found = engine.info()
        if found["engine"] == "native":
            typer.echo(
                f"native engine: {found['instruction_set']}, {found['threads']} "
                f"thread{'' if found['threads'] == 1 else 's'}"
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


_OF_ALL_PROCESSES = {"train", "evaluate", "predict", "generate", "score"}
"""The commands that many processes share; rank 0 alone runs the others."""


def prepare(arguments: Sequence[str]) -> None:
    """Import what the command of a command line needs, if it names one."""
    program: Any = typer.main.get_command(app)
    for name in arguments[:1]:
        program.commands.get(name)


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
