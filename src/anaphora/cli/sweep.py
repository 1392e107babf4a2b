"""``anaphora train --find-learning-rate``: a sweep over learning rates, and its plot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from anaphora.artifact import SWEEP_PICTURE, Folder
from anaphora.cli.output import Output
from anaphora.plot import learning_rates
from anaphora.training import LearningRateSweep, Trainer, find_learning_rate

_ROWS = 15  # of the table


def show_sweep(output: Output, trainer: Trainer, out: Path) -> None:
    """Find a learning rate without training a model; print it, and plot the losses.

    Without matplotlib the losses are printed as a table.

    Args:
        output: Where to print.
        trainer: The training.
        out: The folder of the plot.

    Raises:
        ValueError: the loss diverges immediately.
    """
    sweep = find_learning_rate(trainer, progress=output.console.is_terminal)
    if not trainer.processes.is_main:
        return
    picture = None
    if importlib.util.find_spec("matplotlib") is None:
        output.say(_table(sweep))
        output.say('to plot it, install matplotlib: pip install "anaphora[plot]"')
    else:
        out.mkdir(parents=True, exist_ok=True)
        with Folder(out) as place:
            place.remove_link(SWEEP_PICTURE)  # never write through a link
        picture = str(learning_rates(sweep).save(out / SWEEP_PICTURE))
        output.say(f"wrote {picture}")
    output.emit(
        {
            "kind": "sweep",
            "suggestion": sweep.suggestion,
            "learning_rates": sweep.learning_rates,
            "losses": sweep.losses,
            "picture": picture,
        }
    )
    output.say(f"nothing was trained; try: --learning-rate {sweep.suggestion:.2g}")


def _table(sweep: LearningRateSweep) -> str:
    """Some of the learning rates with the running mean of their losses."""
    count = len(sweep.learning_rates)
    places = np.unique(np.linspace(0, count - 1, min(_ROWS, count)).round().astype(int))
    rows = (f"{sweep.learning_rates[k]:13.3g}  {sweep.smoothed[k]:.4f}" for k in places)
    return "\n".join(["learning rate  loss", *rows])
