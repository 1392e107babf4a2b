"""The command line: one file a command; parsing and printing only."""

import os
import signal
import sys

from anaphora import _startup

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    _handle_signals(_startup.end_at_once)
    from anaphora.cli.app import run  # takes a while

    _handle_signals(signal.default_int_handler)
    code = 130
    try:
        code = run()
    except KeyboardInterrupt:  # while it ends
        pass
    finally:
        _handle_signals(lambda number, frame: os._exit(130))
    sys.exit(code)


def _handle_signals(handler: "signal._HANDLER") -> None:
    """Let Ctrl-C, and what ends a session, do something; those that are ignored stay so."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
