"""Reporting, on standard error, tokens that are not in the vocabulary, and what to do."""

from __future__ import annotations

import unicodedata
from collections import Counter

from anaphora.cli.output import complain
from anaphora.data import Codec, Tokenizer

_NAMED = 5


def report_unknown(where: str, codec: Codec | Tokenizer, unknown: Counter[str]) -> None:
    """Report the tokens that were read as unknown, if any.

    Args:
        where: The name of the text.
        codec: The codec of the model that read it.
        unknown: The tokens that are not in the vocabulary.
    """
    if not unknown:
        return
    kind = {"char": "character", "word": "word"}[codec.level]
    count = unknown.total()
    are = "is" if count == 1 else "are"
    named = ", ".join(map(repr, list(unknown)[:_NAMED])) + (
        ", ..." if len(unknown) > _NAMED else ""
    )
    complain(
        f"{where}: {count:,} {kind}{'' if count == 1 else 's'} {are} not in the vocabulary, and "
        f"read as unknown: {named}; {_advice(unknown, codec)}"
    )


def _advice(unknown: Counter[str], codec: Codec | Tokenizer) -> str:
    for token in unknown:
        if token != token.lower() and codec.knows(token.lower()):
            return f"the vocabulary has it in lower case: {token.lower()!r}"
        composed = unicodedata.normalize("NFC", token)
        if (composed != token and codec.knows(composed)) or unicodedata.combining(token[0]):
            return "normalize the text to composed characters (Unicode's NFC)"
    other = f" or at --level {codec.other_levels}" if codec.other_levels else ""
    return f"train on more text, with a lower --minimum-count{other} for fewer unknown ones"
