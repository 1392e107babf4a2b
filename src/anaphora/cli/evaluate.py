"""``anaphora evaluate``: how well a model predicts."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from anaphora.artifact import ArtifactError
from anaphora.cli.options import OPTIONS, refuse_options_of_others, with_options_of
from anaphora.cli.output import JSON_HELP, Output, reported_errors, reported_misuse
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.data import Batches
from anaphora.training import TASKS, Evaluation, task_of
from anaphora.training import evaluate as evaluate_model

_LABELS = {
    "accuracy": ("accuracy", "{:.2%}"),
    "perplexity": ("perplexity", "{:,.2f}"),
    "mean_squared_error": ("mean squared error", "{:.6g}"),
    "root_mean_squared_error": ("root mean squared error", "{:.6g}"),
    "bits_per_character": ("bits per character", "{:.4f}"),
}


@with_options_of(OPTIONS, lambda field: field["reading"], show_default=False)
def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Files as in training. "
            + " ".join(f"{t.name}: {t.files}." for t in TASKS.values()),
        ),
    ],
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Examples side by side, or streams that a text is cut into, each with a state of "
            "its own: faster. With 1 the state is carried through all of it.",
            show_default="1 for a text",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    options: Mapping[str, Any] = {},
) -> None:
    """Print how well a model predicts: loss, and perplexity or accuracy.

    Of a language model every token counts once, and the state is carried through the whole text; a
    model that was trained on separate sentences starts anew with each. Of a classifier or tagger
    the accuracy is the share of right answers. Files are read as in training, but for
    --format.

    What of a text the vocabulary lacks is told, and the share of unknown tokens; a text of which
    the vocabulary lacks something has no bits per character, as these characters were not
    predicted.

    With --json, one line: loss (nats), tokens, seconds, unknown_tokens, unknown_share (of a
    translator, of both sides); of a language model also perplexity, bits_per_token,
    bits_per_character, characters; of a translator perplexity and bits_per_token; of a classifier
    or tagger accuracy.
    """
    output = Output(as_json)
    with reported_errors():
        task = task_of(directory)
        with reported_misuse():
            refuse_options_of_others(options, task.name, OPTIONS)
            task.check_files(options, texts)
            given = dataclasses.replace(task.load_options(directory), **options)
        began = time.monotonic()
        model = task.load(directory)
        data = task.evaluation(given, model, texts, batch_size)
        result = _evaluate(output, directory, model, data.batches)
        unknown = data.unknown
        figures = {**result.figures, **data.figures(result)}
        share: dict[str, float] = {}
        if unknown.total:
            share["unknown_tokens"] = unknown.unknown
            share["unknown_share"] = unknown.unknown / unknown.total
        seconds = round(time.monotonic() - began, 3)
        output.emit(
            {"loss": result.loss, **figures, "tokens": result.tokens, **share, "seconds": seconds}
        )
        if not as_json:
            rows = [("loss", f"{result.loss:.4f} nats"), *_rows(figures)]
            characters = figures.get("characters")
            amount = f" ({characters:,} characters)" if characters is not None else ""
            rows.append((task.unit, f"{result.tokens:,}{amount}"))
            if share:
                counted = f"{unknown.unknown:,} of {unknown.total:,}"
                rows.append(("unknown tokens", f"{counted} ({share['unknown_share']:.2%})"))
            width = max(len(label) for label, _ in rows)
            output.say("\n".join(f"{label:{width}}  {text}" for label, text in rows))
        report_unknown(data.place, model.codec, unknown.tokens)


def _rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The figures that people read, with their labels."""
    for name, (label, form) in _LABELS.items():
        if name in figures:
            value = figures[name]
            yield (
                label,
                "none, as the text has unknown tokens" if value is None else form.format(value),
            )


def _evaluate(output: Output, directory: Path, model: Any, batches: Batches) -> Evaluation:
    with Progress(
        console=output.console, transient=True, disable=not output.console.is_terminal
    ) as progress:
        bar = progress.add_task("evaluating", total=batches.tokens)
        result = evaluate_model(model, batches, lambda n: progress.advance(bar, n))
    if not math.isfinite(result.loss):
        raise ArtifactError(
            f"{directory}: the loss is {result.loss}, so there is nothing to report; the model's "
            "weights or its inputs are too large: train again with a lower learning_rate"
        )
    return result
