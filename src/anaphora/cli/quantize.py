"""``anaphora quantize``: a model directory with weights in 8 bits."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from anaphora import models
from anaphora.artifact import ModelDirectory
from anaphora.cli.output import JSON_HELP, Output, reported_errors


def quantize(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new directory.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that OUT holds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Write a model directory with weights in 8 bits, a quarter of the size.

    The weights of recurrent layers, linear layers and embeddings become integers, with one scale
    for each output unit or token. OUT can be used like DIR, but not trained further, so keep DIR.
    Commands compute with these integers: what they print is to the bit what DIR gives with
    --weights int8.

    To see what that costs, compare: anaphora evaluate DIR FILE, anaphora evaluate OUT FILE.

    With --json, one line: out, bytes (of the weights), bytes_before.
    """
    output = Output(as_json)
    with reported_errors():
        models.quantize(directory, out, overwrite=overwrite)
        before, after = (ModelDirectory(path).weights.stat().st_size for path in (directory, out))
        output.emit({"out": str(out), "bytes": after, "bytes_before": before})
        output.say(
            f"wrote {out}: {after / 1e6:.2f} MB of weights instead of {before / 1e6:.2f} "
            f"({after / before:.1%}); keep {shlex.quote(str(directory))} to train it further"
        )
