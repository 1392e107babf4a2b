"""The command line: one file per command; parsing and printing only."""

import os
import signal
import sys
import warnings
from types import FrameType

from anaphora.settings import SettingError

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    _handle_signals(_exit_immediately)  # an exception might be lost in an import
    warnings.formatwarning = _format_warning
    try:
        from anaphora.cli.app import prepare, run  # takes a while

        prepare(sys.argv[1:])
    except SettingError as error:
        if sys.stderr is not None:
            print(f"anaphora: {error}", file=sys.stderr)
        sys.exit(2)

    _handle_signals(signal.default_int_handler)
    code = 130
    try:
        code = run()
    except KeyboardInterrupt:  # while the command ends
        pass
    finally:
        _handle_signals(_exit_immediately)
    sys.exit(code)


def _exit_immediately(number: int, frame: FrameType | None) -> None:
    os._exit(130)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: object = None
) -> str:
    return f"anaphora: {message}\n"


def _handle_signals(handler: "signal._HANDLER") -> None:
    """Handle Ctrl-C, SIGTERM and SIGHUP; ignored signals stay ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
