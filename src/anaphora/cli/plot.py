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
from anaphora.models import LanguageModel
from anaphora.plot import (
    Diagram,
    Picture,
    batching,
    cell,
    losses,
    read,
    token_embeddings,
    tokens,
    unrolled,
)
from anaphora.plot.picture import require_matplotlib
from anaphora.plot.sequences import CHOICES


class Name(StrEnum):
    """The pictures."""

    LOSSES = "losses"
    EMBEDDINGS = "embeddings"
    STATES = "states"
    GATES = "gates"
    TEXT = "text"
    CELL = "cell"
    UNROLLED = "unrolled"
    BATCHING = "batching"


_READING = (Name.STATES, Name.GATES, Name.TEXT)
_OF_A_TEXT = (*_READING, Name.UNROLLED, Name.BATCHING)
_DIAGRAMS = (Name.CELL, Name.UNROLLED, Name.BATCHING)  # SVG, without matplotlib
_MAX_STEPS = 8  # of an unrolled network


def plot(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    text: Annotated[
        str | None,
        typer.Option(help="The text to read; all but losses, embeddings and cell need it."),
    ] = None,
    pictures: Annotated[
        list[Name] | None,
        typer.Option(
            "--picture",
            help="A picture. May be repeated.",
            show_default="first 5",
        ),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            help="The state or gate that colors the text, with its layer, such as c_l0 or f_l1.",
            show_default="the last state of the last layer",
        ),
    ] = None,
    unit: Annotated[
        int | None,
        typer.Option(
            help="Its unit, from 0.", show_default="the one that varies most over the text"
        ),
    ] = None,
    units: Annotated[
        str,
        typer.Option(
            help="The units of states and gates: all, by number; similar, sorted; active, that "
            "vary most; selective, that respond to few tokens; or numbers: 3,17."
        ),
    ] = "similar",
    max_units: Annotated[int, typer.Option(min=1, help="Maximum of such units.")] = 24,
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--word",
            help="A token whose nearest neighbors the embeddings picture shows. May be repeated.",
            show_default="the first 120 tokens of the vocabulary",
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Show the losses of this model too. May be repeated.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Streams in the batching picture.")] = 3,
    window: Annotated[int, typer.Option(min=1, help="Steps of its windows.")] = 6,
    format: Annotated[
        Literal["png", "svg"],
        typer.Option(help="The format; of diagrams, SVG."),
    ] = "png",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to.", show_default="DIR/plots")
    ] = None,
    matmul_precision: MatmulPrecision = "float32",
    weights: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Plot a language model: losses, embeddings, and states and gates over a text.

    Writes losses, embeddings and, with --text, states, gates and text (colored by one unit), each
    to a file. Needs the extra "plot"; the diagrams do not: cell, the equations of the model's cell;
    unrolled, its layers as they read the text; and batching, how a training cuts the text into
    streams and windows.

    With --json, one line: files (by picture), value and unit (of the colored text), nearest
    (tokens with cosines, for each --word).
    """
    output = Output(as_json)
    with reported_errors(), contextlib.ExitStack() as stack:
        chosen = list(pictures or [])
        with reported_misuse():
            if text is None and (needing := [p for p in chosen if p in _OF_A_TEXT]):
                raise ValueError(f"--picture {needing[0].value} needs --text")
            chosen_units = _units(units)
        if not chosen or any(name not in _DIAGRAMS for name in chosen):
            require_matplotlib()
        model = load_text_model(directory, weights)
        stack.enter_context(products_in(matmul_precision, model))
        tokenizer = model.codec
        runs = {str(path): ModelDirectory.open(path) for path in (directory, *(compare or []))}
        records = {name: run.read_metrics() for name, run in runs.items()}
        if not chosen:
            chosen = [p for p in Name if text is not None or p not in _OF_A_TEXT]
            chosen = [p for p in chosen if p not in _DIAGRAMS]
            if not all(records.values()):
                chosen.remove(Name.LOSSES)
                output.say("no picture of losses: none are recorded yet")
        made: dict[str, Picture] = {}
        diagrams: dict[str, Diagram] = {}
        found: dict[str, Any] = {}
        with reported_misuse(), np.errstate(over="ignore", invalid="ignore"):
            if Name.LOSSES in chosen:
                made[Name.LOSSES] = losses(records)
            if Name.EMBEDDINGS in chosen:
                made[Name.EMBEDDINGS] = token_embeddings(model, tokenizer, words or [])
                found["nearest"] = made[Name.EMBEDDINGS].data["nearest"]
            if text is not None and set(chosen).intersection(_READING):
                options: dict[str, Any] = {"units": chosen_units, "max_units": max_units}
                reading = read(model, tokenizer, text, value, unit, **options)
                report_unknown("the text", tokenizer, tokenizer.unknown_tokens([text]))
                made |= {name: getattr(reading, name) for name in _READING if name in chosen}
                found |= {"value": reading.value, "unit": reading.unit}
            if Name.CELL in chosen:
                diagrams[Name.CELL] = cell(model.recurrent)
            if text is not None and set(chosen).intersection((Name.UNROLLED, Name.BATCHING)):
                pieces = tokens(tokenizer, tokenizer.encode(text))
                if Name.UNROLLED in chosen:
                    diagrams[Name.UNROLLED] = _unrolled(model, pieces)
                if Name.BATCHING in chosen:
                    diagrams[Name.BATCHING] = batching(pieces, batch_size=batch_size, window=window)
        for name, checked in made.items():
            if not _is_finite(checked.data):
                raise ArtifactError(
                    f"{directory}: the picture of {name} would contain NaN or infinity; the "
                    "model's weights are too large: train again with a lower learning_rate"
                )
        folder = ModelDirectory(directory).make_folder("plots") if out is None else out
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        drawn: dict[str, Picture | Diagram] = {**made, **diagrams}
        for name, picture in drawn.items():
            file = f"{name}.{'svg' if name in diagrams else format}"
            with Folder(folder) as place:
                place.remove_link(file)  # never write through a link
            files[name] = str(picture.save(folder / file))
            output.say(f"wrote {files[name]}")
        for word, neighbors in found.get("nearest", {}).items():
            near = ", ".join(f"{label!r} {cosine:.2f}" for label, cosine in neighbors)
            output.say(f"nearest to {word!r}: {near}")
        output.emit({"files": files, **found})


def _units(text: str) -> str | list[int]:
    """The units of ``--units``: a choice, or numbers."""
    if text in CHOICES:
        return text
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--units {text!r:.100} is none of {', '.join(CHOICES)}, nor numbers such as 3,17,40"
        ) from None


def _unrolled(model: LanguageModel, pieces: list[str]) -> Diagram:
    """The layers of a language model that reads the first tokens of a text."""
    if len(pieces) < 2:
        raise ValueError("--picture unrolled needs a text of at least 2 tokens")
    pieces = [piece.strip(" ") or piece for piece in pieces[: _MAX_STEPS + 1]]
    return unrolled(
        inputs=pieces[:-1],
        outputs=pieces[1:],
        num_layers=model.recurrent.num_layers,
        cell=model.recurrent.cell.name.upper(),
    )


def _is_finite(data: Any) -> bool:
    """Whether all numbers are finite, in mappings and lists of any depth."""
    if isinstance(data, np.ndarray):
        return data.dtype.kind != "f" or bool(np.isfinite(data).all())
    if isinstance(data, float):
        return math.isfinite(data)
    if isinstance(data, (Mapping, list, tuple)):
        return all(map(_is_finite, data.values() if isinstance(data, Mapping) else data))
    return True
