"""Help that fits a screen: common options first, the others by section or all at once."""

from __future__ import annotations

import itertools
import re
import textwrap
from typing import Any

import typer.core

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Settings of all commands; lines are limited in width, as long ones are hard to read."""

_ALL = "all"
_TYPE = re.compile(r"<(?:list\[)?(\w+)(?: range)?\]?>")
_TYPES = {"str": "TEXT", "int": "N", "float": "X"}
_COMMON = ""
_TOPIC = "anaphora.help.topic"
_LONGEST_NAME = 28
_DEFAULTS = re.compile(r" *\[default: \([^)]*;.*\]$")


class Command(typer.core.TyperCommand):
    """A command whose ``--help`` may be followed by ``all`` or the name of a section of options.

    Options with a ``rich_help_panel`` belong to that section. ``--help`` alone shows the first
    paragraph of the help, the options without a section, and the common options of the sections:
    those named in the callback's attribute ``common_options``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remove the word after ``--help`` from the arguments, if it is ``all`` or a section."""
        names = ctx.help_option_names
        for place, (word, topic) in enumerate(itertools.pairwise(args)):
            if word == "--":
                break
            if word in names and topic in (_ALL, *self._sections()):
                ctx.meta[_TOPIC] = topic
                args = [*args[: place + 1], *args[place + 2 :]]
                break
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the requested help."""
        sections = self._sections()
        topic = ctx.meta.get(_TOPIC, _COMMON if sections else _ALL)
        self.format_usage(ctx, formatter)
        if topic in (_ALL, _COMMON):
            paragraphs = (self.help or "").split("\n\n")
            for paragraph in paragraphs[: 1 if topic == _COMMON else None]:
                _write_text(formatter, paragraph)
            arguments = _records(ctx, self._arguments())
            if topic == _COMMON:
                arguments = [(name, _first_sentence(text)) for name, text in arguments]
            _write_list(formatter, "Arguments", arguments)
            own = [*self._own(), self.get_help_option(ctx)]
            _write_list(formatter, "Options", _records(ctx, own))
        if topic == _COMMON:
            common: frozenset[str] = getattr(self.callback, "common_options", frozenset())
            of_sections = [p for parameters in sections.values() for p in parameters]
            shown = _records(ctx, [p for p in of_sections if p.name in common])
            # Defaults that depend on the task take too many lines.
            shorter = [(names, _DEFAULTS.sub("", text)) for names, text in shown]
            _write_list(formatter, "Common options", shorter)
            *others, last = sections
            these = f"{', '.join(others)} or {last}" if others else last
            all_options = f"{ctx.command_path} --help {_ALL}"
            _write_text(formatter, f"All options: {all_options}; by section: --help {these}.")
        for name, parameters in sections.items():
            if topic in (_ALL, name):
                _write_list(formatter, f"{name.capitalize()} options", _records(ctx, parameters))

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage line, with required arguments without braces."""
        pieces = [re.sub("[{}]", "", piece) for piece in self.collect_usage_pieces(ctx)]
        formatter.write_usage(ctx.command_path, " ".join(pieces))

    def _arguments(self) -> list[Any]:
        return [p for p in self.params if p.param_type_name == "argument"]

    def _own(self) -> list[Any]:
        """The options without a section."""
        return [p for p in self.params if p.param_type_name == "option" and not _section(p)]

    def _sections(self) -> dict[str, list[Any]]:
        """The options of each section, by its lower-case name."""
        found: dict[str, list[Any]] = {}
        for parameter in self.params:
            if parameter.param_type_name == "option" and _section(parameter):
                found.setdefault(_section(parameter).lower(), []).append(parameter)
        return found


def _first_sentence(text: str) -> str:
    """The first sentence of a text.

    >>> _first_sentence("What to train on. tag: .conllu files.")
    'What to train on.'
    """
    return text.split(". ", 1)[0] + ("." if ". " in text else "")


def _records(ctx: Any, parameters: list[Any]) -> list[tuple[str, str]]:
    """The names and the help of each option or argument."""
    records = [parameter.get_help_record(ctx) for parameter in parameters]
    return [(_readable(record[0]), record[1]) for record in records if record is not None]


def _write_list(formatter: Any, heading: str, records: list[tuple[str, str]]) -> None:
    """Write names and texts in two columns; long names get their own line."""
    if not records:
        return
    formatter.write(f"\n{heading}:\n")
    lengths = [len(names) for names, _ in records]
    indent = 4 + max((length for length in lengths if length <= _LONGEST_NAME), default=0)
    for names, text in records:
        lines = _wrap(text, formatter.width - indent)
        if len(names) > indent - 4:
            formatter.write(f"  {names}\n")
        else:
            formatter.write(f"  {names}".ljust(indent) + (lines.pop(0) if lines else "") + "\n")
        for line in lines:
            formatter.write(" " * indent + line + "\n")


def _write_text(formatter: Any, text: str) -> None:
    formatter.write("".join(f"{line}\n" for line in ["", *_wrap(text, formatter.width)]))


def _wrap(text: str, width: int) -> list[str]:
    """Fill lines, without breaking at hyphens."""
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _readable(names: str) -> str:
    """The names of an option or argument, with its type as manuals write it.

    >>> _readable("--size <int range>"), _readable("FILE <list[str]>")
    ('--size N', 'FILE')
    """
    if not names.startswith("-"):
        return names.split(" <")[0]
    return _TYPE.sub(lambda found: _TYPES.get(found[1], found[1].upper()), names)


def _section(parameter: Any) -> str:
    return getattr(parameter, "rich_help_panel", None) or ""
