"""The one exception of this package."""

import contextlib
from collections.abc import Iterator


class TextError(ValueError):
    """A text, vocabulary or batch cannot be had as asked; the message says why and what to do.

    >>> raise TextError("notes.txt is empty: there is nothing to read")
    Traceback (most recent call last):
    anaphora.text.errors.TextError: notes.txt is empty: there is nothing to read
    """


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Say in a `TextError` where the text is that it is about.

    >>> with located("names.txt, line 7"):
    ...     raise TextError("the line has no tab")
    Traceback (most recent call last):
    anaphora.text.errors.TextError: names.txt, line 7: the line has no tab
    """
    try:
        yield
    except TextError as error:
        raise TextError(f"{place}: {error}") from error
