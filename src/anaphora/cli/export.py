"""``anaphora export``: a model in a format that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anaphora import interop, models
from anaphora.cli.output import JSON_HELP, Output, end, reported_errors, reported_misuse
from anaphora.cli.precision import Weights


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

    A .c file is C99, with a header beside it: for microcontrollers, plug-ins and WebAssembly. A
    .json file is what RTNeural reads, in audio plug-ins.

    An .html file is a page on which a language model of characters writes in the browser, without a
    server; writing it needs clang and wasm-ld.

    With --json, one line: format, out and what the format adds; of ONNX instead of out: files, each
    with out, opset, bytes, inputs, outputs, largest_difference.
    """
    output = Output(as_json)
    with reported_errors():
        with reported_misuse():
            interop.format_of(out, format)
            model = models.load(directory, weights)
        try:
            exported = interop.export(model, out, format)
        except ValueError as error:
            end(str(error), 1)
        for line in exported.lines:
            output.say(line)
        output.emit(exported.record)
