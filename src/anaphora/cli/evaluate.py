"""``anaphora evaluate``: how well a model predicts."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from anaphora.artifact import ArtifactError
from anaphora.cli.options import OPTIONS, options_of, with_options_of
from anaphora.cli.output import (
    JSON_HELP,
    Output,
    complain,
    load_model,
    reported_errors,
    reported_misuse,
)
from anaphora.cli.precision import MatmulPrecision, Weights, products_in
from anaphora.cli.processes import check_alike
from anaphora.cli.unknown_tokens import report_unknown
from anaphora.distributed import Processes, world
from anaphora.training import Evaluation, EvaluationData, loss_unit, task_of
from anaphora.training import evaluate as evaluate_model

_LABELS = {
    "span_f1": ("span F1", "{:.2%}"),
    "span_precision": ("span precision", "{:.2%}"),
    "span_recall": ("span recall", "{:.2%}"),
    "accuracy": ("accuracy", "{:.2%}"),
    "micro_f1": ("micro F1", "{:.2%}"),
    "macro_f1": ("macro F1", "{:.2%}"),
    "subset_accuracy": ("subset accuracy", "{:.2%}"),
    "bleu": ("BLEU", "{:.2f}"),
    "chrf": ("chrF", "{:.2f}"),
    "mean_absolute_error": ("mean absolute error", "{:.6g}"),
    "perplexity": ("perplexity", "{:,.2f}"),
    "mean_squared_error": ("mean squared error", "{:.6g}"),
    "root_mean_squared_error": ("root mean squared error", "{:.6g}"),
    "r2": ("R2", "{:.4f}"),
    "root_mean_squared_error_of_mean": ("error of the training mean", "{:.6g}"),
    "bits_per_character": ("bits per character", "{:.4f}"),
    "mean_absolute_scaled_error": ("MASE", "{:.4g}"),
    "quantile_loss": ("quantile loss", "{:.4g}"),
    "coverage_80": ("in the 80 % interval", "{:.1%}"),
    "coverage_95": ("in the 95 % interval", "{:.1%}"),
    "forecasts": ("forecasts", "{:,}"),
}


@with_options_of(
    OPTIONS,
    lambda field: field["reading"] or field["section"] in ("prediction", "evaluation"),
    show_default=False,
)
def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model directory.")],
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Files as in training (anaphora train --help all), except for --format.",
        ),
    ],
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Examples per batch, or parallel streams of a text; with 1 the state is carried "
            "through the entire text.",
            show_default="1 for a text",
        ),
    ] = None,
    matmul_precision: MatmulPrecision = "float32",
    weights: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    options: Mapping[str, Any] = {},
) -> None:
    """Evaluate a model on files: loss, and perplexity, accuracy, F1 or BLEU.

    For a language model every token counts once, and the state is carried through the entire text;
    a model trained on separate sentences starts each from zeros. For classes, the scores of each
    and the confusion matrix are shown; for spans, such as names, the F1 of each type. A translator
    translates the files. Labels not seen in training count as wrong. A forecaster forecasts from
    --origins times before the end of each series, a horizon apart; its errors are shown beside
    those of the seasonal naive forecast.

    A language model may adapt to the text, which is then read as one stream: with --cache (Grave et
    al. 2017) or --dynamic-evaluation (Krause et al. 2018). The saved model is not changed.

    Tokens that are not in the vocabulary are reported; bits per character are then undefined.

    Several processes (mpiexec -n 4 anaphora evaluate ...) share out batches, or the streams of a
    text, and find the same numbers as one.

    With --json, one line: loss (nats), tokens, seconds, unknown_tokens, unknown_share,
    unknown_labels, perplexity, bits_per_token, bits_per_character, characters, bleu, chrf,
    accuracy, macro_f1, micro_f1, subset_accuracy, span_f1, span_precision, span_recall, classes,
    confusion_matrix, as far as the model has them; for a forecaster mean_absolute_scaled_error,
    mean_absolute_error, root_mean_squared_error, quantile_loss, coverage_80, coverage_95,
    forecasts, and seasonal_naive with the same fields.
    """
    output = Output(as_json)
    processes = world()
    with reported_errors(), contextlib.ExitStack() as stack:
        began = time.monotonic()
        with processes.together():
            task = task_of(directory)
            with reported_misuse():
                options = options_of(task.name, options, OPTIONS)
                task.check_files(options, texts)
                given = dataclasses.replace(task.load_options(directory), **options)
                if processes.size > 1 and "-" in texts:
                    raise ValueError(
                        f"standard input (-) reaches only {processes.name(0)}, but each of the "
                        f"{processes.size} processes reads the text: name a file that all have"
                    )
            model = load_model(task, directory, weights)
            stack.enter_context(products_in(matmul_precision, model))
            with reported_misuse():
                data = task.evaluation(given, model, texts, batch_size)
        check_alike(processes, model)
        processes.check_alike({"number of targets": f"{data.batches.tokens:,}"})
        if (notice := _idle(data, processes)) is not None:
            complain(notice)
        result = _evaluate(output, directory, model, data, processes)
        unknown = data.unknown
        figures = {**result.figures, **data.figures(result, processes)}
        details = {} if data.measure is None else data.measure.details()
        if data.unknown_labels:
            details = {"unknown_labels": data.unknown_labels, **details}
        share: dict[str, float] = {}
        if unknown.total:
            share["unknown_tokens"] = unknown.unknown
            share["unknown_share"] = unknown.unknown / unknown.total
        seconds = round(time.monotonic() - began, 3)
        output.emit(
            {
                "loss": result.loss,
                **figures,
                "tokens": result.tokens,
                **share,
                **details,
                "seconds": seconds,
            }
        )
        if not as_json:
            unit = loss_unit(result.loss_kind)
            rows = [("loss", f"{result.loss:.4f} {unit}".rstrip()), *_rows(figures)]
            characters = figures.get("characters")
            amount = f" ({characters:,} characters)" if characters is not None else ""
            rows.append((task.unit, f"{result.tokens:,}{amount}"))
            if share:
                counted = f"{unknown.unknown:,} of {unknown.total:,}"
                rows.append(("unknown tokens", f"{counted} ({share['unknown_share']:.2%})"))
            if data.unknown_labels:
                rows.append(("unknown labels", f"{data.unknown_labels:,}, counted as wrong"))
            width = max(len(label) for label, _ in rows)
            output.say("\n".join(f"{label:{width}}  {text}" for label, text in rows))
            for table in [] if data.measure is None else data.measure.tables():
                output.say(f"\n{table}")
        for notice in data.notices:
            complain(notice)
        report_unknown(data.place, model.codec, unknown.tokens)


def _rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The metrics to show, with their labels, and beside them those of a baseline."""
    others = {name: value for name, value in figures.items() if isinstance(value, Mapping)}
    for name, (label, form) in _LABELS.items():
        if name not in figures:
            continue
        value = figures[name]
        text = "undefined, as the text has unknown tokens" if value is None else form.format(value)
        beside = [
            f"{other.replace('_', ' ')} {form.format(of_other[name])}"
            for other, of_other in others.items()
            if name in of_other
        ]
        yield label, f"{text} ({', '.join(beside)})" if beside else text


def _idle(data: EvaluationData, processes: Processes) -> str | None:
    """The notice about processes that have nothing to read."""
    if processes.size == 1 or not data.batches.carries_state:
        return None
    streams = data.batches[0].inputs.shape[1]
    if streams >= processes.size:
        return None
    read = "1 stream" if streams == 1 else f"{streams:,} streams"
    return (
        f"the text is read as {read}, each by one process, so that {processes.size - streams} of "
        f"{processes.size} have nothing to do; a larger --batch-size has more streams, whose first "
        "tokens have less context"
    )


def _evaluate(
    output: Output, directory: Path, model: Any, data: EvaluationData, processes: Processes
) -> Evaluation:
    more: dict[str, Any] = {}
    if data.measure is not None:
        more["measure"] = data.measure
    if data.evaluate is evaluate_model:
        more["processes"] = processes
    with Progress(
        console=output.console, transient=True, disable=not output.console.is_terminal
    ) as progress:
        bar = progress.add_task("evaluating", total=data.batches.tokens)
        result = data.evaluate(
            model, data.batches, on_batch=lambda n: progress.advance(bar, n), **more
        )
    if not math.isfinite(result.loss):
        raise ArtifactError(
            f"{directory}: the loss is {result.loss}; the model's weights or its inputs are too "
            "large, or it adapts to the text too fast: train again with a lower learning_rate, or "
            "lower the rate of adaptation"
        )
    return result
