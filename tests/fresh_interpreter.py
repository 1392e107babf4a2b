"""Runs pieces of code, each in a forked process of this interpreter, which has imported NumPy.

A program of its own. It reads a line of JSON for each, a piece of code, and answers with one:
[exit code, standard output, standard error].
"""

import json
import os
import sys
import tempfile

import numpy as np  # noqa: F401  all need it, and to import it takes longest


def contents(file):
    file.seek(0)
    return file.read().decode()


for line in sys.stdin:
    code = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            exec(code, {"__name__": "__main__"})
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, contents(out), contents(err)]), flush=True)
