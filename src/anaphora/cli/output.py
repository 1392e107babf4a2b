"""What all commands share: where output goes, and how errors end a command."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from anaphora.artifact import ArtifactError
from anaphora.text import TextError
from anaphora.training import TrainingDiverged, task_of

JSON_HELP = "Print machine-readable lines on standard output, and prose on standard error."

INTERRUPTED = 130


class Output:
    """Prose for people on one stream, and with ``--json`` records for machines on another."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False, emoji=False, soft_wrap=True)

    def say(self, text: str = "", style: str | None = None) -> None:
        """Print a line for people."""
        self.console.print(text, style=style, markup=False)

    def emit(self, record: Mapping[str, Any]) -> None:
        """Print a record for machines, if they asked for it; what is not finite becomes null."""
        if self.as_json:
            finite = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in record.items()
            }
            typer.echo(json.dumps(finite, ensure_ascii=False))


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Turn what can go wrong without a bug of ours into one message and an exit code."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (TextError, ArtifactError, TrainingDiverged, ImportError, OSError) as error:
        _end(str(error), 1)
    except MemoryError as error:
        _end(f"out of memory: {error or 'choose smaller sizes'}", 1)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)


@contextlib.contextmanager
def reported_misuse() -> Iterator[None]:
    """Do the same with options that are out of range or do not fit together."""
    try:
        yield
    except TextError:  # it is a ValueError, but no option's fault
        raise
    except ValueError as error:
        _end(str(error), 2)


@contextlib.contextmanager
def reported_numbers(directory: Path) -> Iterator[None]:
    """Turn what a model says of scores that are not finite into an error that names its directory.

    Raises:
        ArtifactError: there are such scores.
    """
    try:
        yield
    except TextError:
        raise
    except ValueError as error:
        raise ArtifactError(f"{directory}: {error}") from error


def _end(message: str, code: int) -> None:
    typer.echo(f"anaphora: {message}", err=True)
    raise typer.Exit(code)


def require_language_model(directory: Path) -> None:
    """Refuse the model of another task, and say which command is for it.

    Raises:
        ArtifactError: the directory holds no language model.
    """
    task = task_of(directory)
    if task.name != "language-model":
        raise ArtifactError(
            f"{directory}: is no language model, but one of the task {task.name}; use it with: "
            f"anaphora predict {shlex.quote(str(directory))}"
        )
