"""The one exception of this package."""


class TextError(ValueError):
    """A text, vocabulary or batch cannot be had as asked; the message says why and what to do.

    >>> raise TextError("notes.txt is empty: there is nothing to read")
    Traceback (most recent call last):
    anaphora.text.errors.TextError: notes.txt is empty: there is nothing to read
    """
