"""Finding a learning rate by a sweep over all that come into question (Smith 2017)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import random
from anaphora.optim import Optimizer, Schedule
from anaphora.tensor import Array
from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import AnyBatches, Model
from anaphora.training.options import TrainingOptions
from anaphora.training.trainer import Trainer, TrainingDiverged

_SMOOTHING = 0.9  # share of the running mean of the losses that each step keeps
_DIVERGED = 4.0  # times the lowest smoothed loss; beyond it nothing is learnt any more
_BELOW_LOWEST = 10.0  # how far below the rate of the lowest loss a good one lies
_FEWEST_STEPS = 10


@dataclass(frozen=True)
class LearningRateSweep:
    """The losses of a training whose learning rate rises from update to update.

    Attributes:
        learning_rates: [N] of each update, in equal ratios.
        losses: [N] of their batches, before the update.
        smoothed: [N] their running mean, corrected for its beginning as Adam's moments are.
        suggestion: A learning rate to train with: a tenth of the one at which the smoothed loss is
            lowest.

    >>> rates, losses = np.array([0.01, 0.1, 1.0]), np.array([3.0, 1.0, 2.0])
    >>> LearningRateSweep(rates, losses, losses, suggestion=0.01).suggestion
    0.01
    """

    learning_rates: Array
    losses: Array
    smoothed: Array
    suggestion: float


def find_learning_rate(
    trained: Trainer | Model,
    optimizer: Optimizer | None = None,
    batches: AnyBatches | None = None,
    *,
    smallest: float = 1e-6,
    largest: float = 10.0,
    steps: int = 100,
    progress: bool = True,
) -> LearningRateSweep:
    """Train with an exponentially rising learning rate, and see where the loss falls (Smith 2017).

    Afterwards everything is as it was before: parameters and gradients, optimizer, random numbers,
    and the trainer. The sweep ends early where the loss diverges.

    Args:
        trained: A trainer, whose optimizer, batches and options (clipping, accumulation) are used;
            or a model.
        optimizer: That of the model, with its other options; None with a trainer.
        batches: What to train on, again from the start if they are fewer than `steps`; None with a
            trainer.
        smallest: The learning rate of the first update.
        largest: That of the last.
        steps: The number of updates, at least 10.
        progress: Show a progress bar, as `Trainer.run` does.

    Raises:
        TypeError: a model without optimizer or batches, or a trainer with one.
        ValueError: a number is out of its range, or the loss diverges at once.

    >>> from anaphora import data, models, optim
    >>> random.seed(1)
    >>> model = models.LanguageModel(vocabulary_size=2, hidden_size=4)
    >>> batches = data.batchify(np.tile([0, 1], 50), batch_size=2, window=8)
    >>> sweep = find_learning_rate(model, optim.SGD(model.parameters(), 1.0), batches, largest=100)
    >>> bool(sweep.learning_rates[0] < sweep.suggestion < sweep.learning_rates[-1])
    True
    """
    if isinstance(trained, Trainer):
        if optimizer is not None or batches is not None:
            raise TypeError(
                "find_learning_rate: a trainer has its optimizer and batches; omit them"
            )
        model, options = trained.model, trained.options
        optimizer, batches = trained.optimizer, trained.batches
    elif optimizer is None or batches is None:
        raise TypeError("find_learning_rate: give a model with its optimizer and batches")
    else:
        model, options = trained, TrainingOptions(max_steps=steps)
    assert batches is not None
    if not 0 < smallest < largest < math.inf:
        raise ValueError(
            f"find_learning_rate: needs 0 < smallest < largest, which are finite, not {smallest!r} "
            f"and {largest!r}"
        )
    if steps < _FEWEST_STEPS:
        raise ValueError(f"find_learning_rate: steps is at least {_FEWEST_STEPS}, not {steps!r}")
    rates = np.geomspace(smallest, largest, steps)
    sweep = _Losses()
    options = dataclasses.replace(
        options, max_steps=steps, epochs=None, minutes=None, schedule="constant", ema_decay=0.0
    )
    with _restored(model, optimizer), contextlib.suppress(TrainingDiverged):
        model.train(True)
        schedule = _Exponential(optimizer, rates)
        Trainer(
            model, optimizer, batches, options, schedule=schedule, callbacks=[sweep]
        ).run(progress=progress)  # fmt: skip
    count = len(sweep.losses)
    if count < _FEWEST_STEPS:
        raise ValueError(
            f"find_learning_rate: the loss diverged after {count} updates, at a learning rate of "
            f"{rates[count]:.3g}; begin with a smallest below {smallest:g}"
        )
    losses, smoothed = np.array(sweep.losses), np.array(sweep.smoothed)
    lowest = float(rates[np.argmin(smoothed)])
    return LearningRateSweep(rates[:count], losses, smoothed, lowest / _BELOW_LOWEST)


class _Exponential(Schedule):
    """Sets the learning rate of each update."""

    def __init__(self, optimizer: Optimizer, learning_rates: Array) -> None:
        super().__init__(optimizer)
        self.learning_rates = learning_rates

    def on_step(self, step: int) -> None:
        """Set the learning rate of this step, counted from 0."""
        self._set(float(self.learning_rates[step]))


class _Losses(Callback):
    """Keeps the losses and their running mean, and stops where they diverge."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._mean = 0.0

    def on_step(self, trainer: Trainer, loss: float) -> None:
        self.losses.append(loss)
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        self.smoothed.append(self._mean / (1 - _SMOOTHING ** len(self.losses)))
        if self.smoothed[-1] > _DIVERGED * min(self.smoothed) > 0:
            trainer.request_stop("the loss diverges")


@contextlib.contextmanager
def _restored(model: Any, optimizer: Optimizer) -> Iterator[None]:
    """Leave everything as it was, whatever happens."""
    parameters = dict(model.named_parameters())
    arrays = {name: parameter.data.copy() for name, parameter in parameters.items()}
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    state, generator, training = optimizer.state_dict(), random.get_state(), model.training
    optimizer.zero_grad()
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            with parameter.writing() as array:
                array[...] = arrays[name]
            parameter.grad = gradients[name]
        optimizer.load_state_dict(state)
        random.set_state(generator)
        model.train(training)
