"""Telling on standard error which tokens of a text the vocabulary lacks, and what helps."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

from anaphora.cli.output import complain
from anaphora.data import Tokenizer
from anaphora.training import ExampleTask

_LEVELS = {"word": "bpe or char", "char": "bpe"}
"""At which other level of a language model a token is known."""

_NAMED = 5


def report_unknown(
    where: str, unknown: Counter[str], knows: Callable[[str], bool], level: str, levels: str = ""
) -> None:
    """Say what was read as unknown, if anything was.

    Args:
        where: What the text is called.
        unknown: Its tokens that the vocabulary lacks.
        knows: Whether the vocabulary has a token.
        level: "char" or "word".
        levels: Levels at which another model would read them.
    """
    if not unknown:
        return
    kind = {"char": "character", "word": "word"}[level]
    count = unknown.total()
    are = "is" if count == 1 else "are"
    named = ", ".join(map(repr, list(unknown)[:_NAMED])) + (
        ", ..." if len(unknown) > _NAMED else ""
    )
    complain(
        f"{where}: {count:,} {kind}{'' if count == 1 else 's'} {are} not in the vocabulary, and "
        f"read as unknown: {named}; {_advice(unknown, knows, levels)}"
    )


def report_tokens(where: str, tokenizer: Tokenizer, unknown: Counter[str]) -> None:
    """Do so for a text that a language model has read."""
    report_unknown(
        where,
        unknown,
        lambda token: not tokenizer.unknown_tokens([token]),
        tokenizer.level,
        _LEVELS.get(tokenizer.level, ""),
    )


def report_example_tokens(
    where: str,
    task: ExampleTask,
    vocabulary: Any,
    unknown: Counter[str],
    both_sides: bool = False,
) -> None:
    """Do the same for what a classifier, a tagger or a translator has read: of a translator the
    source, or both sides.
    """

    def knows(token: str) -> bool:
        if both_sides:  # whichever one it is of
            return not any(side.unknown_tokens([token]) for side in vocabulary.values())
        return not task.unknown_tokens(vocabulary, [token] if task.name == "tag" else token)

    tokenizer = getattr(vocabulary, "tokenizer", None)
    level = "word" if tokenizer is None else tokenizer.level
    can_spell = task.name == "classify" and level == "word"
    report_unknown(where, unknown, knows, level, "char" if can_spell else "")


def _advice(unknown: Counter[str], knows: Callable[[str], bool], levels: str) -> str:
    for token in unknown:
        if token != token.lower() and knows(token.lower()):
            return f"in lower case the vocabulary has it: {token.lower()!r}"
        composed = unicodedata.normalize("NFC", token)
        if (composed != token and knows(composed)) or unicodedata.combining(token[0]):
            return "bring the text to composed characters (Unicode's form NFC)"
    other = f" or at --level {levels}" if levels else ""
    return f"a model trained on more text, with a lower --minimum-count{other} may know more"
