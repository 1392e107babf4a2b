"""The one exception of this package."""

import contextlib
from collections.abc import Iterator


class DataError(ValueError):
    """A text, vocabulary or batch cannot be read or made; the message says why, and what to do.

    >>> raise DataError("notes.txt is empty: there is nothing to read")
    Traceback (most recent call last):
    anaphora.data.errors.DataError: notes.txt is empty: there is nothing to read
    """


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Prefix the message of a `DataError` with the place of the text that it is about.

    >>> with located("names.txt, line 7"):
    ...     raise DataError("the line has no tab")
    Traceback (most recent call last):
    anaphora.data.errors.DataError: names.txt, line 7: the line has no tab
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
