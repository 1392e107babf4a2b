"""The losses of a sweep over learning rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from anaphora.plot.picture import COLORS, Picture, add_legend
from anaphora.tensor import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Sweep(Protocol):
    """The result of `training.find_learning_rate`."""

    @property
    def learning_rates(self) -> Array:
        """The learning rate of each update, [N]."""

    @property
    def losses(self) -> Array:
        """The loss of its batch, [N]."""

    @property
    def smoothed(self) -> Array:
        """The running mean of the losses, [N]."""

    @property
    def suggestion(self) -> float:
        """A learning rate to train with."""


def learning_rates(sweep: Sweep) -> Picture:
    """Plot the losses of a run with rising learning rate over the learning rate (Smith 2017).

    A faint line is the loss of each update, a strong one its running mean; a vertical line marks
    the suggested learning rate.

    Args:
        sweep: The result of `training.find_learning_rate`.

    Returns:
        A picture; its data are a dictionary of ``learning_rate``, ``loss`` and ``smoothed_loss``,
        arrays [N], and ``suggestion``.

    >>> import numpy as np
    >>> from anaphora.training import LearningRateSweep
    >>> rates, losses = np.array([0.01, 0.1, 1.0]), np.array([3.0, 1.0, 2.0])
    >>> picture = learning_rates(LearningRateSweep(rates, losses, losses, suggestion=0.01))
    >>> picture.data["learning_rate"]
    array([0.01, 0.1 , 1.  ])
    """
    data = {
        "learning_rate": sweep.learning_rates,
        "loss": sweep.losses,
        "smoothed_loss": sweep.smoothed,
        "suggestion": sweep.suggestion,
    }

    def render(figure: Figure) -> None:
        axes = figure.subplots()
        axes.semilogx(sweep.learning_rates, sweep.losses, color=COLORS[0], alpha=0.45, linewidth=1)
        axes.semilogx(sweep.learning_rates, sweep.smoothed, color=COLORS[0], label="running mean")
        suggestion = f"suggestion: {sweep.suggestion:.2g}"
        axes.axvline(sweep.suggestion, color=COLORS[1], linestyle="--", label=suggestion)
        high = max(sweep.smoothed[0], sweep.smoothed.min())
        margin = 0.2 * (high - sweep.smoothed.min()) or 1.0
        axes.set_ylim(sweep.smoothed.min() - margin, high + 2 * margin)  # clips diverging losses
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        add_legend(axes)

    return Picture(data, render)
