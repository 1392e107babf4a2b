"""What every request passes before it is answered: the checks that keep strangers out.

A page of another site must not reach a server on this machine through its reader's browser: neither
by its address (its requests have a foreign Origin), nor by a name of its own that it points to this
machine (DNS rebinding: its requests have a foreign Host).
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from anaphora.serve import page
from anaphora.serve.errors import RequestError

Scope = Any
Receive = Callable[[], Any]
Send = Callable[[Any], Any]

OPEN = ("/health", *page.FILES)
"""Paths that need no key; the page asks its reader for one."""

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of answers that do not set them: no browser takes one for a page, or keeps it."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may use the server.

    Attributes:
        host: The address that it listens on.
        names: More names by which it may be addressed.
        origins: Origins of pages of other sites that may use it, such as "https://example.org".
        keys: Keys, one of which a request must have; none if empty.

    >>> access = Access(host="127.0.0.1")
    >>> access.check_host("localhost:8000"), access.check_origin(None, "localhost:8000")
    (None, None)
    """

    host: str = "127.0.0.1"
    names: Sequence[str] = ()
    origins: Sequence[str] = ()
    keys: Sequence[str] = ()

    def check_host(self, header: str | None) -> None:
        """Refuse a request that is addressed to a name that is not the server's.

        An address is accepted if the server listens on more than this machine's own interface: a
        foreign page can point its own name to this machine, but not the address itself.

        Raises:
            RequestError: it is.
        """
        name = _host_name(header)
        allowed = {"localhost", self.host.lower().strip("[]"), *(one.lower() for one in self.names)}
        address = _address(name)
        mine = address is not None and (address.is_loopback or not is_loopback(self.host))
        if name not in allowed and not mine:
            raise RequestError(
                f"the Host {str(header)[:80]!r} is not this server's; name it with --allowed-host "
                "if it is",
                403,
                code="foreign_host",
            )

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Refuse a request of a page of another site.

        Raises:
            RequestError: it is.
        """
        if origin is None or origin in self.origins:
            return
        if urlsplit(origin).netloc.lower() != (host or "").lower() or origin == "null":
            raise RequestError(
                f"pages of {origin[:80]!r} may not use this server; name the origin with "
                "--cors-origin if they may",
                403,
                code="foreign_origin",
            )

    def check_key(self, header: str | None) -> None:
        """Refuse a request without a key, if there are keys.

        Raises:
            RequestError: it has none, or another.
        """
        if not self.keys:
            return
        scheme, _, given = (header or "").partition(" ")
        found = [
            hmac.compare_digest(given.strip().encode(), key.encode()) for key in self.keys
        ]  # all of them, so that the time says nothing
        if scheme.lower() != "bearer" or not any(found):
            raise RequestError(
                "the API key is missing or wrong; send the header Authorization: Bearer KEY",
                401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _host_name(header: str | None) -> str:
    """The name of a Host header, without its port."""
    text = (header or "").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _address(name: str) -> Any:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine reaches.

    >>> is_loopback("::1"), is_loopback("0.0.0.0")
    (True, False)
    """
    address = _address(host.strip("[]"))
    return host == "localhost" if address is None else bool(address.is_loopback)


class Guard:
    """An ASGI application that checks requests before another one answers them.

    Args:
        app: The other.
        access: Who may use it.
        body_bytes: The largest body; it is counted while it arrives.
        log: Called with the path, the status and the seconds of each request.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Any],
        access: Access,
        body_bytes: int,
        log: Callable[[str, int, float], None] = lambda path, status, seconds: None,
    ) -> None:
        self._app, self._access, self._body_bytes, self._log = app, access, body_bytes, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        start, status = time.monotonic(), 500

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = list(message["headers"])
                names = {name.lower() for name, _ in given}
                others = [pair for pair in HEADERS if pair[0] not in names]
                message = {**message, "headers": [*given, *others, *self._cors(origin)]}
            await send(message)

        try:
            try:
                self._access.check_host(headers.get(b"host"))
                self._access.check_origin(origin, headers.get(b"host"))
                if scope["method"] == "OPTIONS" and origin in self._access.origins:
                    await _send(send_with_headers, 204, (), b"")
                    return
                if scope["path"] not in OPEN:
                    self._access.check_key(headers.get(b"authorization"))
                self._check_size(_length(headers))
            except RequestError as error:
                await send_error(send_with_headers, error)
                return
            await self._app(scope, self._counted(receive), send_with_headers)
        finally:
            self._log(scope["path"], status, time.monotonic() - start)

    def _counted(self, receive: Receive) -> Receive:
        """A function that receives a body, and refuses more than the limit."""
        size = 0

        async def counted() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            self._check_size(size)
            return message

        return counted

    def _check_size(self, size: int) -> None:
        if size > self._body_bytes:
            raise RequestError(
                f"the body has more than {self._body_bytes:,} bytes",
                413,
                code="body_too_large",
                headers={"Connection": "close"},
            )

    def _cors(self, origin: str | None) -> Iterable[tuple[bytes, bytes]]:
        """The headers that let a page of an allowed origin use the answer."""
        if origin is None or origin not in self._access.origins:
            return ()
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"vary", b"origin"),
        )


def _length(headers: dict[bytes, str]) -> int:
    """The length that a body is said to have; 0 if it is not said."""
    given = headers.get(b"content-length", "")
    return int(given) if given.isdecimal() and len(given) < 20 else 0


async def send_error(send: Send, error: RequestError) -> None:
    """Answer with an error."""
    headers = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    headers.append((b"content-type", b"application/json"))
    await _send(send, error.status, headers, json.dumps(error.content()).encode())


async def _send(
    send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> None:
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status, "headers": [*headers, length]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
