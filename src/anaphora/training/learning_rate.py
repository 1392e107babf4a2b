"""Finding a learning rate by a range test (Smith 2017)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import random
from anaphora.distributed import world
from anaphora.optim import Optimizer, Schedule
from anaphora.tensor import Array
from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import AnyBatches, Model
from anaphora.training.options import TrainingOptions
from anaphora.training.trainer import Trainer, TrainingDiverged

_SMOOTHING = 0.9  # decay of the running mean of the losses
_DIVERGED = 4.0  # ratio to the lowest smoothed loss above which training has diverged
_BELOW_LOWEST = 10.0  # ratio of the rate of the lowest loss to the suggested rate
_MINIMUM_STEPS = 10


@dataclass(frozen=True)
class LearningRateSweep:
    """The losses of a training run whose learning rate rises at each update.

    Attributes:
        learning_rates: The learning rate of each update, [N], geometrically spaced.
        losses: The loss of its batch before the update, [N].
        smoothed: The running mean of the losses, bias-corrected as Adam's moments are, [N].
        suggestion: A learning rate to train with: a tenth of the one at the lowest smoothed loss.

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
    """Train with an exponentially rising learning rate, and record the loss (Smith 2017).

    Parameters, gradients, optimizer, random numbers and the trainer are restored afterwards. The
    sweep ends early if the loss diverges.

    Args:
        trained: A trainer, whose optimizer, batches and options (clipping, accumulation) are used;
            or a model.
        optimizer: The optimizer of the model; None with a trainer.
        batches: The batches to train on, repeated if there are fewer than `steps`; None with a
            trainer.
        smallest: The learning rate of the first update.
        largest: The learning rate of the last update.
        steps: The number of updates, at least 10.
        progress: Show a progress bar, as `Trainer.run` does.

    Raises:
        TypeError: a model without optimizer or batches, or a trainer with either.
        ValueError: a number is out of range, or the loss diverges immediately.

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
        processes = trained.processes
    elif optimizer is None or batches is None:
        raise TypeError("find_learning_rate: give a model with its optimizer and batches")
    else:
        model, options, processes = trained, TrainingOptions(max_steps=steps), world()
    assert batches is not None
    if not 0 < smallest < largest < math.inf:
        raise ValueError(
            f"find_learning_rate: smallest is {smallest!r} and largest {largest!r}; expected "
            "finite numbers, 0 < smallest < largest"
        )
    if steps < _MINIMUM_STEPS:
        raise ValueError(
            f"find_learning_rate: steps is {steps!r}; expected at least {_MINIMUM_STEPS}"
        )
    rates = np.geomspace(smallest, largest, steps)
    sweep = _Losses()
    options = dataclasses.replace(
        options,
        max_steps=steps,
        epochs=None,
        minutes=None,
        schedule="constant",
        ema_decay=0.0,
        average_every=1,
        outer_momentum=0.0,
        outer_learning_rate=1.0,
    )
    with _restored(model, optimizer), contextlib.suppress(TrainingDiverged):
        model.train(True)
        schedule = _Exponential(optimizer, rates)
        Trainer(
            model, optimizer, batches, options, schedule=schedule, callbacks=[sweep],
            processes=processes,
        ).run(progress=progress)  # fmt: skip
    count = len(sweep.losses)
    if count < _MINIMUM_STEPS:
        raise ValueError(
            f"find_learning_rate: the loss diverged after {count} updates, at a learning rate of "
            f"{rates[count]:.3g}; set smallest below {smallest:g}"
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
    """Records the losses and their running mean, and stops if they diverge."""

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
    """Restore model, optimizer and random numbers, also after an exception."""
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
