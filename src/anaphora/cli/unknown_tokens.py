"""Reports on standard error which tokens of a text are not in the vocabulary, and what helps."""

from __future__ import annotations

import unicodedata
from collections import Counter

from anaphora.cli.output import complain
from anaphora.data import Codec, Tokenizer

_NAMED = 5


def report_unknown(where: str, codec: Codec | Tokenizer, unknown: Counter[str]) -> None:
    """Say what was read as unknown, if anything was.

    Args:
        where: What the text is called.
        codec: That of the model which has read it.
        unknown: Its tokens that are not in the vocabulary.
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
            return f"in lower case the vocabulary has it: {token.lower()!r}"
        composed = unicodedata.normalize("NFC", token)
        if (composed != token and codec.knows(composed)) or unicodedata.combining(token[0]):
            return "bring the text to composed characters (Unicode's form NFC)"
    other = f" or at --level {codec.other_levels}" if codec.other_levels else ""
    return f"a model trained on more text, with a lower --minimum-count{other} may know more"
