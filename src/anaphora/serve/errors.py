"""Errors in the shape that clients of OpenAI's interface expect."""

from __future__ import annotations

from collections.abc import Mapping

NO_RETRY = {"x-should-retry": "false"}
"""Headers of an answer that would be the same again."""


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        message: What came, what was expected, and what to do.
        status: The HTTP status.
        param: The field that is wrong.
        code: A short name for programs.
        headers: More headers of the answer.

    >>> RequestError("n is 0; expected int >= 1", param="n").content()["error"]["type"]
    'invalid_request_error'
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """The type of the error, by its status."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return kinds.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )

    def content(self) -> dict[str, dict[str, str | None]]:
        """The body of the answer."""
        return {
            "error": {
                "message": str(self),
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def queue_full(message: str) -> RequestError:
    """The error of a server that has too much to do now.

    >>> queue_full("try again later").status
    429
    """
    return RequestError(message, 429, code="queue_full", headers={"Retry-After": "1"})
