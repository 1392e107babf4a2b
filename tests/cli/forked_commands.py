"""Runs commands of anaphora, each in a forked process, which need not import anaphora anew.

A program of its own. It reads a line of JSON for each command, [folder, arguments, standard input],
and answers with one: [exit code, standard output, standard error].
"""

import contextlib
import gc
import json
import os
import signal
import sys
import tempfile

import typer
from typer.testing import CliRunner

from anaphora.cli import main
from anaphora.cli.app import app


def run(folder, arguments, *streams):
    """Become a command with these standard streams; this does not return."""
    signal.alarm(120)  # nobody waits for ever
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  none of our lines is in it
    os.chdir(folder)
    sys.path[0] = folder  # as with python -m anaphora
    sys.argv = ["anaphora", *arguments]
    main()


def contents(file):
    file.seek(0)
    return file.read().decode()


CliRunner().invoke(app, ["info", os.devnull])  # imports what typer needs to parse options
for command in typer.main.get_command(app).commands:
    CliRunner().invoke(app, [command, "--help"])  # imports the command
with contextlib.suppress(ImportError):  # an extra, of which most of `plot`'s time is the import
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
gc.freeze()  # so that a child's collections copy nothing of this
for line in sys.stdin:
    folder, arguments, text = json.loads(line)
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(text.encode())
        given.seek(0)
        child = os.fork()
        if child == 0:
            run(folder, arguments, given, out, err)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([code, contents(out), contents(err)]), flush=True)
