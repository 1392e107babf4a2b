"""``anaphora export``: a model in a format that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anaphora import interop
from anaphora.cli.output import JSON_HELP, Output, load_model, reported_errors, reported_misuse
from anaphora.cli.precision import Weights
from anaphora.training import task_of


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="The file to write; its suffix is the format: "
            f"{', '.join(dict.fromkeys(f.suffix for f in interop.FORMATS.values()))}.",
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help=f"The format: {', '.join(interop.FORMATS)}.", show_default="that of the suffix"
        ),
    ] = None,
    weights: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Write a model in a format that other programs read.

    An .onnx file runs in ONNX Runtime, on servers, phones and in browsers; it is run after it was
    written and compared with the model. It needs an extra: pip install "anaphora[onnx]".

    With --json, one line: out, format, and what the format adds.
    """
    output = Output(as_json)
    with reported_errors():
        with reported_misuse():
            interop.format_of(out, format)
        model = load_model(task_of(directory), directory, weights)
        with reported_misuse():
            exported = interop.export(model, out, format)
        for line in exported.lines:
            output.say(line)
        output.emit(exported.record)
