"""What all commands share: where output goes, and how errors end a command."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TextIO

import numpy as np
import typer
from rich.console import Console

from anaphora.artifact import ArtifactError
from anaphora.data import DataError
from anaphora.distributed import Processes, ProcessesDiffer
from anaphora.training import Task, TrainingDiverged, task_of

JSON_HELP = "Print JSON on standard output, prose on standard error."

INTERRUPTED = 130

_SECONDS_TO_FAIL_ALONE = 2.0  # that a process waits for the others to fail too

# Control characters except line end and tab, marks that change the direction of text, and
# surrogates, as which Python reads bytes that are not UTF-8.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


# Standard streams

_SURROGATES = "anaphora.surrogates"


def _encode_surrogates(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes of a name that is not UTF-8, which Python reads as surrogates."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(_SURROGATES, _encode_surrogates)


def _raise(failure: OSError) -> None:
    """The default handler of a failing standard stream."""
    raise failure


class StandardStream(io.RawIOBase):
    """Standard output or error: a failure names the stream, and later output is dropped."""

    on_failure: ClassVar[Callable[[OSError], None]] = staticmethod(_raise)

    def __init__(self, raw: io.FileIO, title: str) -> None:
        self._raw = raw
        self._title = title
        self._failed = False

    def writable(self) -> bool:
        """Whether it is writable: always."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._raw.isatty()

    def fileno(self) -> int:
        """The file descriptor."""
        return self._raw.fileno()

    def write(self, data: Any, /) -> int | None:
        """Write bytes, or drop them after a failure; return the number consumed."""
        if not self._failed:
            try:
                return self._raw.write(data)
            except OSError as error:
                self._failed = True
                StandardStream.on_failure(OSError(error.errno, error.strerror, self._title))
        return len(memoryview(data))


def open_standard_streams() -> None:
    """Make standard output and error UTF-8, and name them in errors when they fail.

    Streams that the process was started without are opened on the null device, so that no file
    opened later takes their descriptors.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    for number, name, title in (1, "stdout", "standard output"), (2, "stderr", "standard error"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.flush()
            raw: Any = getattr(stream.buffer, "raw", stream.buffer)
            buffer = io.BufferedWriter(StandardStream(raw, title))
            wrapped = io.TextIOWrapper(buffer, "utf-8", errors=_SURROGATES, line_buffering=True)
            setattr(sys, name, wrapped)


@contextlib.contextmanager
def failures_of_streams(handle: Callable[[OSError], None]) -> Iterator[None]:
    """Within the block, a failing standard stream calls a function instead of raising."""
    StandardStream.on_failure = staticmethod(handle)
    try:
        yield
    finally:
        StandardStream.on_failure = staticmethod(_raise)


def visible(text: str) -> str:
    r"""Text that is safe on a terminal: control sequences are escaped.

    >>> visible("\x1b[31mred\r\n\u202e")
    '\\x1b[31mred\\r\n\\u202e'
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _write(stream: TextIO, text: str) -> None:
    """Write text, escaped if the stream is a terminal."""
    stream.write(visible(text) if stream.isatty() else text)
    stream.flush()


_complaints: list[str] = []


def complain(message: str) -> None:
    """Print an error of a command."""
    _complaints.append(message)
    _write(sys.stderr, f"anaphora: {message}\n")


# Many processes


def silence() -> None:
    """Print nothing more: rank 0 prints for all processes."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def end_together(processes: Processes, code: int) -> int:
    """The exit code of processes that end together, of which every error is printed once.

    One that fails alone ends the others.
    """
    found = processes.farewell((code, _complaints), None if code == 0 else _SECONDS_TO_FAIL_ALONE)
    if found is None:
        if not processes.is_main:
            _print_of(processes.name(), _complaints)
        processes.abort(code)
        return code
    if processes.is_main:
        heard = set(_complaints)
        for rank, (_, complaints) in enumerate(found):
            _print_of(processes.name(rank), [one for one in complaints if one not in heard])
            heard.update(complaints)
    return next((code for code, _ in found if code), 0)


def _print_of(name: str, complaints: list[str]) -> None:
    for complaint in complaints:
        print(f"anaphora: {name}: {complaint}", file=sys.__stderr__, flush=True)


# Commands


class Output:
    """Prose for people and, with ``--json``, records for machines, on separate streams."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False, emoji=False, soft_wrap=True)

    def say(self, text: str = "", style: str | None = None) -> None:
        """Print a line for people."""
        if self.console.is_terminal:  # there may be a progress bar below
            self.console.print(visible(text), style=style, markup=False)
        else:
            _write(sys.stderr if self.as_json else sys.stdout, f"{text}\n")

    def write(self, text: str) -> None:
        """Write a model's output to standard output, escaped if that is a terminal."""
        _write(sys.stdout, text)

    def emit(self, record: Mapping[str, Any]) -> None:
        """Print a record as one line of ASCII JSON, with ``--json``.

        Numbers that are not finite become null, at any depth.
        """
        if self.as_json:
            _write(sys.stdout, json.dumps(_json_value(record), allow_nan=False) + "\n")


def _json_value(value: Any) -> Any:
    """A value as JSON types."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return value


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Turn expected errors into one message and an exit code."""
    try:
        yield
    except (DataError, ArtifactError, TrainingDiverged, ProcessesDiffer, ImportError) as error:
        end(str(error), 1)
    except BrokenPipeError as error:  # the reader of the output, such as head, has closed it
        raise typer.Exit(1) from error
    except OSError as error:
        end(description(error), 1)
    except MemoryError as error:
        end(f"out of memory: {error or 'choose smaller sizes'}", 1)
    except KeyboardInterrupt:
        end("interrupted", INTERRUPTED)


def description(error: OSError) -> str:
    """What went wrong, and with which file or stream."""
    if error.filename is None or error.strerror is None:
        return error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


@contextlib.contextmanager
def reported_misuse() -> Iterator[None]:
    """Turn options that are out of range or in conflict into one message and exit code 2."""
    try:
        yield
    except DataError:  # it is a ValueError, but no option's fault
        raise
    except ValueError as error:
        end(str(error), 2)


@contextlib.contextmanager
def reported_numbers(directory: Path) -> Iterator[None]:
    """Turn a model's error about scores that are not finite into one that names its directory.

    Raises:
        ArtifactError: there are such scores.
    """
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise ArtifactError(f"{directory}: {error}") from error


def end(message: str, code: int) -> NoReturn:
    """End the command with a message and an exit code."""
    complain(message)
    raise typer.Exit(code)


def load_model(task: Task, directory: Path, weights: str | None = None) -> Any:
    """Load the model of a task, with the weights of ``--weights``.

    Raises:
        ArtifactError: as for `Task.load`.
        typer.Exit: the weights are int8, but the model's dtype is float64.
    """
    with reported_misuse():
        return task.load(directory, weights)


def load_text_model(directory: Path, weights: str | None = None) -> Any:
    """Load a language model; refuse another model, and name the command for it.

    Raises:
        ArtifactError: the directory holds no language model, or is damaged.
    """
    task = task_of(directory)
    if not task.writes_text:
        raise ArtifactError(
            f"{directory}: is not a language model, but one for the task {task.name}; use it with: "
            f"anaphora predict {shlex.quote(str(directory))}"
        )
    return load_model(task, directory, weights)
