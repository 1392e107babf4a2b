"""What holds while the command is being imported: Ctrl-C and wrong settings end it in one line.

Whoever runs ``anaphora`` or ``python -m anaphora`` imports this package before any code of the
command line can run, and that takes a while. So the package imports this file first.
"""

import os
import signal
import sys
import threading
import warnings
from pathlib import PurePath
from types import FrameType, TracebackType


class SettingError(ValueError):
    """An environment variable has a value that it cannot have; the message names both."""


def is_command() -> bool:
    """Whether this process is the command ``anaphora``, not a program that imports the package."""
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] == "-m":  # as long as ``python -m`` imports the package that it is to run
        return sys.orig_argv[-len(arguments)].removeprefix("-m") == "anaphora"
    return PurePath(arguments[0]).stem == "anaphora"


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends the process, as an exception in an import might be lost."""
    os._exit(130)


def _report(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not isinstance(error, SettingError):
        sys.__excepthook__(kind, error, traceback)
        return
    if sys.stderr is not None:
        print(f"anaphora: {error}", file=sys.stderr, flush=True)
    os._exit(2)  # a hook cannot choose the exit code otherwise


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: object = None
) -> str:
    return f"anaphora: {message}\n"


if is_command():
    sys.excepthook = _report
    warnings.formatwarning = _format_warning
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, end_at_once)
