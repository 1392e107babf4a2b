"""The HTTP server (extra ``serve``): models for clients of OpenAI's interface.

Its command is ``anaphora serve``. From Python, `running` serves within a block:

    from anaphora.serve import ServedModel, Server, running

    with running(Server([ServedModel.load("model")])) as address:
        ...
"""

from anaphora.serve.app import Server
from anaphora.serve.completions import Limits
from anaphora.serve.errors import RequestError
from anaphora.serve.guard import Access
from anaphora.serve.models import ServedModel
from anaphora.serve.run import address_of, listen, run, running

__all__ = [
    "Access",
    "Limits",
    "RequestError",
    "ServedModel",
    "Server",
    "address_of",
    "listen",
    "run",
    "running",
]
