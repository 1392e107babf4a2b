"""The OpenAPI document, from the types that check requests and make answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

import anaphora
from anaphora.serve import messages

_DESCRIPTIONS = {
    400: "The request is wrong; the message says what was expected.",
    401: "The API key is missing or wrong.",
    403: "A foreign Host or Origin.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many requests wait; Retry-After says when to try again.",
    500: "The server or the model failed.",
    503: "The server is shutting down.",
    504: "The request took longer than the time limit.",
}
_ID = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_PROMPTS = {
    "description": "A text, ids, or a list of either.",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "array", "items": _ID, "minItems": 1},
        {"type": "array", "items": {"type": "array", "items": _ID}, "minItems": 1},
        {"type": "null"},
    ],
}
_OTHER_FORMS: dict[str, Any] = {
    "application/json": {},
    "text/plain": {"type": "string"},
    "text/event-stream": {
        "description": "An event of the stream.",
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {"type": "string", "description": "A Completion as JSON, finally [DONE]."}
        },
    },
}


@dataclass(frozen=True)
class Operation:
    """A path of the server.

    Attributes:
        method: "GET" or "POST".
        path: The path.
        summary: What it is for.
        request: The type of its body, or None.
        answer: The type of its answer; None for a text.
        also: The media type of another form of the answer, such as a stream.

    >>> Operation("GET", "/health", "Whether the server works.", None, messages.Health).errors
    (403,)
    """

    method: str
    path: str
    summary: str
    request: type | None
    answer: type | None
    also: str | None = None

    @property
    def errors(self) -> tuple[int, ...]:
        """The statuses of its errors."""
        if self.path == "/health":
            return (403,)
        if self.request is not None:
            return tuple(_DESCRIPTIONS)
        return (401, 403, 404) if "{" in self.path else (401, 403)


def document(operations: Iterable[Operation], with_keys: bool) -> dict[str, Any]:
    """The OpenAPI document of some operations.

    Args:
        operations: The operations.
        with_keys: Whether requests need a key.

    >>> operation = Operation("GET", "/health", "Whether it works.", None, messages.Health)
    >>> found = document([operation], with_keys=False)
    >>> list(found["paths"]["/health"]["get"]["responses"])
    ['200', '403']
    """
    operations = list(operations)
    types = [one for item in operations for one in (item.request, item.answer) if one is not None]
    types.append(messages.ErrorAnswer)
    references, schemas = msgspec.json.schema_components(
        dict.fromkeys(types), ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(dict.fromkeys(types), references, strict=True))
    completion = schemas.get("CompletionRequest")
    if completion is not None:  # msgspec has one kind of lists in a union, JSON Schema several
        completion["properties"]["prompt"] = _PROMPTS
    paths: dict[str, Any] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, by_type)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "anaphora",
            "version": anaphora.__version__,
            "description": "Recurrent models, served by `anaphora serve`.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if with_keys:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
        if "/health" in paths:
            paths["/health"]["get"]["security"] = []
    return found


def _operation(one: Operation, by_type: dict[type, Any]) -> dict[str, Any]:
    answer = {"application/json": {"schema": by_type[one.answer]}} if one.answer else {}
    if one.also is not None:
        answer[one.also] = {"schema": _OTHER_FORMS[one.also]}
    error = {"application/json": {"schema": by_type[messages.ErrorAnswer]}}
    described: dict[str, Any] = {
        "operationId": one.path.strip("/").replace("/", "_") or "page",
        "summary": one.summary,
        "responses": {
            "200": {"description": "The answer.", "content": answer},
            **{
                str(status): {"description": _DESCRIPTIONS[status], "content": error}
                for status in one.errors
            },
        },
    }
    if one.request is not None:
        body = {"application/json": {"schema": by_type[one.request]}}
        described["requestBody"] = {"required": True, "content": body}
    if parameters := _parameters(one.path):
        described["parameters"] = parameters
    return described


def _parameters(path: str) -> Sequence[dict[str, Any]]:
    names = [part.strip("{}").partition(":")[0] for part in path.split("/") if part[:1] == "{"]
    schema = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]
