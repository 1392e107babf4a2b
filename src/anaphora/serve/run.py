"""Running the server's application with uvicorn."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Iterator

import uvicorn

from anaphora.serve.app import Server

_KEEP_ALIVE = 60  # seconds that a connection without requests stays open


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        OSError: the address is not this machine's, or the port is in use.

    >>> with listen("127.0.0.1", 0) as found:
    ...     found.getsockname()[1] > 0
    True
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    found = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        found.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    return found


def address_of(listening: socket.socket) -> str:
    """The address of a listening socket.

    >>> with listen("127.0.0.1", 0) as found:
    ...     address_of(found).startswith("http://127.0.0.1:")
    True
    """
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(server: Server, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what runs; a second Ctrl-C ends at once.

    Raises:
        KeyboardInterrupt: after a signal.
    """
    _uvicorn(server).run(sockets=[listening])


@contextlib.contextmanager
def running(server: Server, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in another thread, within the block, which gets the address.

    >>> import urllib.request
    >>> with running(Server([])) as address, urllib.request.urlopen(address + "/health") as found:
    ...     found.read()
    b'{"status":"ok","changed_on_disk":[]}'
    """
    listening = listen(host, port)
    address = address_of(listening)
    program = _uvicorn(server)
    thread = threading.Thread(target=program.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield address  # the socket listens already: a connection waits until it is accepted
    finally:
        program.should_exit = True
        thread.join()


def _uvicorn(server: Server) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            server.app,
            log_config=None,
            log_level="error",  # a client that sends no HTTP is not worth a line
            access_log=False,
            lifespan="on",
            ws="none",
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(2 * server.limits.seconds) + 5,
        )
    )
