"""``anaphora plot``: plots of a trained model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from anaphora.artifact import ArtifactError, Folder, ModelDirectory
from anaphora.cli.output import (
    JSON_HELP,
    Output,
    load_text_model,
    reported_errors,
    reported_misuse,
)
from anaphora.cli.precision import MatmulPrecision, Weights, products_in
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.plot import Picture, losses, read, token_embeddings
from anaphora.plot.picture import require_matplotlib


class Name(StrEnum):
    """The pictures."""

    LOSSES = "losses"
    EMBEDDINGS = "embeddings"
    STATES = "states"
    GATES = "gates"
    TEXT = "text"


_OF_A_TEXT = (Name.STATES, Name.GATES, Name.TEXT)


def plot(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    text: Annotated[
        str | None,
        typer.Option(help="The text to read, for the pictures states, gates and text."),
    ] = None,
    pictures: Annotated[
        list[Name] | None,
        typer.Option("--picture", help="The picture to make. May be repeated.", show_default="all"),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            help="The state or gate that colours the text, with its layer, such as c_l0 or f_l1.",
            show_default="the last state of the last layer",
        ),
    ] = None,
    unit: Annotated[
        int | None,
        typer.Option(
            help="Its unit, from 0.", show_default="the one that varies most over the text"
        ),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--word",
            help="A token whose nearest neighbours the embeddings picture shows. May be repeated.",
            show_default="the first 120 tokens of the vocabulary",
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Another model directory, to compare its losses. May be repeated.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[Literal["png", "svg"], typer.Option(help="The file format.")] = "png",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to.", show_default="DIR/plots")
    ] = None,
    matmul_precision: MatmulPrecision = "float32",
    weights: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Plot a language model: its losses and embeddings, and its states and gates over a text.

    Writes losses, embeddings and, with --text, states, gates and text (coloured by one unit), each
    to a file. Needs matplotlib, which the extra "plot" installs.

    With --json, one line: files (by picture), value and unit (of the coloured text), nearest
    (tokens with cosines, for each --word).
    """
    output = Output(as_json)
    with reported_errors(), contextlib.ExitStack() as stack:
        chosen = list(pictures or [])
        with reported_misuse():
            if text is None and (needing := [p for p in chosen if p in _OF_A_TEXT]):
                raise ValueError(f"--picture {needing[0].value} needs --text")
        require_matplotlib()
        model = load_text_model(directory, weights)
        stack.enter_context(products_in(matmul_precision, model))
        tokenizer = model.codec
        runs = {str(path): ModelDirectory.open(path) for path in (directory, *(compare or []))}
        records = {name: run.read_metrics() for name, run in runs.items()}
        if not chosen:
            chosen = [p for p in Name if text is not None or p not in _OF_A_TEXT]
            if not all(records.values()):
                chosen.remove(Name.LOSSES)
                output.say("no picture of losses: none are recorded yet")
        made: dict[str, Picture] = {}
        found: dict[str, Any] = {}
        with reported_misuse(), np.errstate(over="ignore", invalid="ignore"):
            if Name.LOSSES in chosen:
                made[Name.LOSSES] = losses(records)
            if Name.EMBEDDINGS in chosen:
                made[Name.EMBEDDINGS] = token_embeddings(model, tokenizer, words or [])
                found["nearest"] = made[Name.EMBEDDINGS].data["nearest"]
            if text is not None and set(chosen).intersection(_OF_A_TEXT):
                reading = read(model, tokenizer, text, value, unit)
                report_unknown("the text", tokenizer, tokenizer.unknown_tokens([text]))
                made |= {name: getattr(reading, name) for name in _OF_A_TEXT if name in chosen}
                found |= {"value": reading.value, "unit": reading.unit}
        for name, picture in made.items():
            if not _is_finite(picture.data):
                raise ArtifactError(
                    f"{directory}: the picture of {name} would contain NaN or infinity; the "
                    "model's weights are too large: train again with a lower learning_rate"
                )
        folder = ModelDirectory(directory).make_folder("plots") if out is None else out
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, picture in made.items():
            with Folder(folder) as place:
                place.remove_link(f"{name}.{format}")  # never write through a link
            files[name] = str(picture.save(folder / f"{name}.{format}"))
            output.say(f"wrote {files[name]}")
        for word, neighbours in found.get("nearest", {}).items():
            near = ", ".join(f"{label!r} {cosine:.2f}" for label, cosine in neighbours)
            output.say(f"nearest to {word!r}: {near}")
        output.emit({"files": files, **found})


def _is_finite(data: Any) -> bool:
    """Whether all numbers are finite, in mappings and lists of any depth."""
    if isinstance(data, np.ndarray):
        return data.dtype.kind != "f" or bool(np.isfinite(data).all())
    if isinstance(data, float):
        return math.isfinite(data)
    if isinstance(data, (Mapping, list, tuple)):
        return all(map(_is_finite, data.values() if isinstance(data, Mapping) else data))
    return True
