"""The command line: one file a command; parsing and printing only."""

import os
import signal
import sys
import warnings
from types import FrameType

from anaphora.settings import SettingError

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    _handle_signals(_end_at_once)  # an exception might be lost in an import
    warnings.formatwarning = _format_warning
    try:
        from anaphora.cli.app import run  # takes a while
    except SettingError as error:
        if sys.stderr is not None:
            print(f"anaphora: {error}", file=sys.stderr)
        sys.exit(2)

    _handle_signals(signal.default_int_handler)
    code = 130
    try:
        code = run()
    except KeyboardInterrupt:  # while it ends
        pass
    finally:
        _handle_signals(_end_at_once)
    sys.exit(code)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(130)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: object = None
) -> str:
    return f"anaphora: {message}\n"


def _handle_signals(handler: "signal._HANDLER") -> None:
    """Let Ctrl-C, and what ends a session, do something; those that are ignored stay so."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
