"""Loss curves of training runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from anaphora.artifact import ModelDirectory
from anaphora.plot.picture import COLORS, Picture, add_legend
from anaphora.tensor import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Run: TypeAlias = "str | os.PathLike[str] | Sequence[Mapping[str, Any]]"

_KINDS = {"train": "train", "validation": "evaluation"}  # our names, and those of the records


def losses(runs: Mapping[str, Run]) -> Picture:
    """Plot the losses of one or more training runs over their updates.

    A faint line is the training loss, a strong one with dots the validation loss; the legend shows
    the lowest validation loss.

    Args:
        runs: Model directories (their ``metrics.jsonl``) by the name to show, or the records
            themselves, dictionaries with ``kind`` ("train" or "evaluation"), ``step`` and ``loss``.

    Returns:
        A picture; its data are, for each run, a dictionary of arrays ``train_step``,
        ``train_loss``, ``validation_step`` and ``validation_loss``.

    Raises:
        ArtifactError: a directory is not a model directory, or its records are damaged.
        ValueError: there are no runs, or a run has no records.

    >>> records = [{"kind": "train", "step": n, "loss": 4 / n} for n in (1, 2, 4)]
    >>> losses({"a run": records}).data["a run"]["train_loss"]
    array([4., 2., 1.])
    """
    records = {
        name: ModelDirectory.open(run).read_metrics()
        if isinstance(run, (str, os.PathLike))
        else run
        for name, run in runs.items()
    }
    data = {name: _curves(name, run) for name, run in records.items()}
    if not data:
        raise ValueError("losses: no runs were given")
    label = _label([record for run in records.values() for record in run])

    def render(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (name, run) in enumerate(data.items()):
            color = COLORS[number % len(COLORS)]
            best = run["validation_loss"]
            best = best[np.isfinite(best)]
            axes.plot(
                run["train_step"],
                run["train_loss"],
                color=color,
                alpha=0.45,
                linewidth=1,
                label=f"{name}, training",
            )
            if len(best):
                axes.plot(
                    run["validation_step"],
                    run["validation_loss"],
                    "o-",
                    color=color,
                    markersize=3.5,
                    label=f"{name}, validation (lowest {best.min():.3f})",
                )
        axes.set_xlabel("updates")
        axes.set_ylabel(label)
        add_legend(axes)

    return Picture(data, render)


def _label(records: Sequence[Mapping[str, Any]]) -> str:
    """The label of the losses, by the records of all runs."""
    for figure, label in (
        ("bits_per_token", "loss, nats a token"),
        ("mean_squared_error", "mean squared error"),
    ):
        if all(figure in record for record in records if record.get("kind") in _KINDS.values()):
            return label
    return "loss"


def _curves(name: str, run: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    curves = {}
    for ours, kind in _KINDS.items():
        records = [record for record in run if record.get("kind") == kind]
        for what in ("step", "loss"):
            curves[f"{ours}_{what}"] = np.array([record[what] for record in records], np.float64)
    if not any(len(values) for values in curves.values()):
        raise ValueError(f"losses: the run {name!r} has no records of losses")
    return curves
