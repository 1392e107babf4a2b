"""The commands by name. Each is imported when it is used: all of them take a while."""

from __future__ import annotations

import functools
import importlib
import inspect
import keyword
import math
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from anaphora.cli.help import Command

__all__ = ["Commands"]

_DESCRIPTIONS = {
    "train": "Train a language model, or with --task another kind of model.",
    "evaluate": "Evaluate a model on files: its loss, and the figures of its task.",
    "predict": "Print a label, tags, a translation or a forecast for each input.",
    "generate": "Generate text from a language model, streamed to the terminal.",
    "score": "Print the log-probability of each line under a language model.",
    "serve": "Serve models over HTTP, to clients of OpenAI's interface.",
    "info": "Print what a model directory contains.",
    "plot": "Plot a language model: losses, embeddings, states and gates.",
    "quantize": "Write a copy of a model directory with weights in 8 bits.",
    "export": "Write a model in a format that other programs read.",
    "import": "Make a model directory of a Keras, PyTorch or ONNX model.",
}


class Commands(typer.core.TyperGroup):
    """The program that consists of them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _ByName()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write what each does."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_DESCRIPTIONS.items()))


class _ByName(Mapping[str, Command]):
    def __iter__(self) -> Iterator[str]:
        return iter(_DESCRIPTIONS)

    def __len__(self) -> int:
        return len(_DESCRIPTIONS)

    def __getitem__(self, name: str) -> Command:
        if name not in _DESCRIPTIONS:
            raise KeyError(name)
        return _command(name)


@functools.cache
def _command(name: str) -> Command:
    """A command: the function of its name, in the module of that name."""
    in_python = f"{name}_" if keyword.iskeyword(name) else name
    function = getattr(importlib.import_module(f"anaphora.cli.{in_python}"), in_python)
    # Typer keeps the line ends of a docstring; a paragraph should fill the terminal's lines.
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=Command, help=text)(function)
    command: Any = typer.main.get_command(app)
    for parameter in command.params:
        if parameter.callback is None:
            parameter.callback = _checked
    return command  # type: ignore[no-any-return]


_LARGEST = 2**63 - 1  # the largest signed 64-bit integer


def _checked(context: typer.Context, parameter: Any, value: Any) -> Any:
    """Refuse numbers that are not finite, or too large for 64 bits."""
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, int) and abs(number) > _LARGEST:
            limit = _LARGEST if number > 0 else -_LARGEST
            end = "largest" if number > 0 else "smallest"
            raise typer.BadParameter(
                f"{number} is out of range; the {end} is {limit}", ctx=context, param=parameter
            )
        if isinstance(number, float) and not math.isfinite(number):
            raise typer.BadParameter(
                f"{number} is not a finite number", ctx=context, param=parameter
            )
    return value
