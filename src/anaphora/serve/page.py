"""The page on which one writes with a model and sees inside: three files, which need no other."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
"""The files of the page and their media types, by path."""

_FOLDER = Path(__file__).parent / "static"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)  # nothing from outside, and no code or style but that of the two files


async def answer(http: Request) -> Response:
    """A file of the page."""
    name, media_type = FILES[http.url.path]
    content = (_FOLDER / name).read_bytes()
    return Response(content, media_type=media_type, headers={"Content-Security-Policy": _POLICY})
