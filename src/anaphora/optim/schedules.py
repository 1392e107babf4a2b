"""Schedules: how the learning rate changes during training."""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

from anaphora import foreign_names
from anaphora.optim.base import Optimizer, fraction, not_negative
from anaphora.optim.optimizers import ASGD


class Schedule(foreign_names.Answering):
    """Sets ``optimizer.learning_rate`` when the training loop calls it; the base of all schedules.

    Training loops call all three methods; a schedule implements those that it needs.

    Args:
        optimizer: Its current learning rate is the initial one.

    Attributes:
        learning_rate: The learning rate that this schedule has set.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> class Inverse(Schedule):
    ...     def on_epoch(self, epoch):
    ...         self._set(self.initial_learning_rate / (epoch + 1))
    >>> optimizer = SGD([Parameter([0.0])], learning_rate=1.0)
    >>> Inverse(optimizer).on_epoch(3)
    >>> optimizer.learning_rate
    0.25
    """

    foreign_names = "Schedule"

    _kept: ClassVar[tuple[str, ...]] = ("initial_learning_rate", "learning_rate")

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.initial_learning_rate = self.learning_rate = optimizer.learning_rate

    def on_step(self, step: int) -> None:
        """Before each step of the optimizer; steps are counted from 0."""

    def on_epoch(self, epoch: int) -> None:
        """Before each epoch; epochs are counted from 0."""

    def on_evaluation(self, loss: float) -> None:
        """After each evaluation, with the validation loss."""

    def _set(self, learning_rate: float) -> None:
        self.learning_rate = self.optimizer.learning_rate = learning_rate

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state that changes with each step, as JSON values."""
        return {
            "schedule": type(self).__name__,
            **{name: copy.deepcopy(getattr(self, name)) for name in self._kept},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; sets the learning rate.

        Raises:
            ValueError: the state is from another schedule.
        """
        owner = type(self).__name__
        if state.get("schedule") != owner:
            raise ValueError(
                f"{owner}: the state is from {state.get('schedule')!r}; load it into the schedule "
                "that it was saved from"
            )
        for name in self._kept:
            if name not in state:
                raise ValueError(f"{owner}: the state has no {name!r}; give all that was saved")
        for name in self._kept:
            setattr(self, name, copy.deepcopy(state[name]))
        self._set(self.learning_rate)


class Constant(Schedule):
    """The learning rate does not change.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> schedule = Constant(SGD([Parameter([0.0])], learning_rate=1.0))
    >>> schedule.on_epoch(100)
    >>> schedule.learning_rate
    1.0
    """


class ExponentialDecay(Schedule):
    """Constant for some epochs, then times `decay` at the start of each (Zaremba et al. 2014).

        learning_rate = initial * decay ** max(epoch + 1 - constant_epochs, 0)     epoch = 0, 1, ...

    with epochs counted from `first_epoch`.

    The defaults are those of the paper's small model, which trains for 13 epochs from the rate 1;
    the medium model has 1/1.2 after 6 epochs (of 39), the large one 1/1.15 after 14 (of 55).

    Args:
        optimizer: Its current learning rate is the initial one.
        decay: The factor, 0 < decay <= 1.
        constant_epochs: The number of epochs before the first decay.
        first_epoch: The epoch in which the schedule begins, if resumed training restarts it.

    Raises:
        ValueError: a number is out of range.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> schedule = ExponentialDecay(SGD([Parameter([0.0])], learning_rate=1.0))
    >>> for epoch in range(6):
    ...     schedule.on_epoch(epoch)
    ...     print(epoch, schedule.learning_rate)
    0 1.0
    1 1.0
    2 1.0
    3 1.0
    4 0.5
    5 0.25
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        decay: float = 0.5,
        constant_epochs: int = 4,
        first_epoch: int = 0,
    ) -> None:
        super().__init__(optimizer)
        if not 0 < decay <= 1:
            raise ValueError(f"ExponentialDecay: decay must be > 0 and <= 1, not {decay!r}")
        self.decay = float(decay)
        self.constant_epochs = _count("ExponentialDecay", "constant_epochs", constant_epochs, 0)
        self.first_epoch = _count("ExponentialDecay", "first_epoch", first_epoch, 0)

    def on_epoch(self, epoch: int) -> None:
        """Set the learning rate of this epoch, counted from 0."""
        epochs = epoch - self.first_epoch + 1
        self._set(self.initial_learning_rate * self.decay ** max(epochs - self.constant_epochs, 0))


class StepDecay(Schedule):
    """Times `decay` after every so many epochs.

        learning_rate = initial * decay ** ((epoch - first_epoch) // epochs)     epoch = 0, 1, ...

    It is PyTorch's ``StepLR(optimizer, step_size=epochs, gamma=decay)``, called once an epoch.

    Args:
        optimizer: Its current learning rate is the initial one.
        epochs: The number of epochs from one decay to the next, >= 1.
        decay: The factor, 0 < decay <= 1.
        first_epoch: The epoch in which the schedule begins, if resumed training restarts it.

    Raises:
        ValueError: a number is out of range.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> schedule = StepDecay(SGD([Parameter([0.0])], learning_rate=1.0), epochs=2, decay=0.5)
    >>> for epoch in range(5):
    ...     schedule.on_epoch(epoch)
    ...     print(epoch, schedule.learning_rate)
    0 1.0
    1 1.0
    2 0.5
    3 0.5
    4 0.25
    """

    def __init__(
        self, optimizer: Optimizer, *, epochs: int, decay: float = 0.1, first_epoch: int = 0
    ) -> None:
        super().__init__(optimizer)
        if not 0 < decay <= 1:
            raise ValueError(f"StepDecay: decay must be > 0 and <= 1, not {decay!r}")
        self.epochs = _count("StepDecay", "epochs", epochs, 1)
        self.decay = float(decay)
        self.first_epoch = _count("StepDecay", "first_epoch", first_epoch, 0)

    def on_epoch(self, epoch: int) -> None:
        """Set the learning rate of this epoch, counted from 0."""
        decays = max(epoch - self.first_epoch, 0) // self.epochs
        self._set(self.initial_learning_rate * self.decay**decays)


class ReduceOnPlateau(Schedule):
    """Multiplied by `factor` when the validation loss has had no new best for some evaluations.

    Args:
        optimizer: Its current learning rate is the initial one.
        factor: 0 <= factor < 1.
        patience: The number of consecutive evaluations without a new best to tolerate; the next
            one reduces the learning rate, and the count restarts.
        minimum: The lowest learning rate.

    Raises:
        ValueError: a number is out of range.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> schedule = ReduceOnPlateau(SGD([Parameter([0.0])], learning_rate=20.0), patience=1)
    >>> for loss in (5.0, 4.5, 4.6, 4.5, 4.4):
    ...     schedule.on_evaluation(loss)
    ...     print(loss, schedule.learning_rate)
    5.0 20.0
    4.5 20.0
    4.6 20.0
    4.5 10.0
    4.4 10.0
    """

    _kept = (*Schedule._kept, "best_loss", "evaluations_without_best")

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        factor: float = 0.5,
        patience: int = 0,
        minimum: float = 0.0,
    ) -> None:
        super().__init__(optimizer)
        self.factor = fraction("ReduceOnPlateau", "factor", factor)
        self.patience = _count("ReduceOnPlateau", "patience", patience, 0)
        self.minimum = not_negative("ReduceOnPlateau", "minimum", minimum)
        self.best_loss: float | None = None
        self.evaluations_without_best = 0

    def on_evaluation(self, loss: float) -> None:
        """Compare with the best loss; NaN and infinity are never better."""
        if loss < (math.inf if self.best_loss is None else self.best_loss):
            self.best_loss = float(loss)
            self.evaluations_without_best = 0
            return
        self.evaluations_without_best += 1
        if self.evaluations_without_best > self.patience:
            self.evaluations_without_best = 0
            reduced = max(self.learning_rate * self.factor, self.minimum)
            self._set(min(reduced, self.learning_rate))


class Cosine(Schedule):
    """Half a cosine from the initial learning rate down to `minimum` (Loshchilov & Hutter 2017).

        share = (step - first_step) / (total_steps - first_step)
        learning_rate = minimum + (initial - minimum) * (1 + cos(pi * share)) / 2

    and `minimum` from `total_steps` on.

    Args:
        optimizer: Its current learning rate is the initial one.
        total_steps: The total number of optimizer steps, >= 1.
        minimum: The learning rate at the end.
        first_step: The step at which the schedule begins, if resumed training restarts it.

    Raises:
        ValueError: a number is out of range.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> schedule = Cosine(SGD([Parameter([0.0])], learning_rate=1.0), total_steps=2)
    >>> for step in range(4):
    ...     schedule.on_step(step)
    ...     print(step, round(schedule.learning_rate, 6))
    0 1.0
    1 0.5
    2 0.0
    3 0.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        minimum: float = 0.0,
        first_step: int = 0,
    ) -> None:
        super().__init__(optimizer)
        self.first_step = _count("Cosine", "first_step", first_step, 0)
        self.total_steps = _count("Cosine", "total_steps", total_steps, self.first_step + 1)
        self.minimum = not_negative("Cosine", "minimum", minimum)

    def on_step(self, step: int) -> None:
        """Set the learning rate of this step, counted from 0."""
        steps = min(step, self.total_steps) - self.first_step
        share = (1 + math.cos(math.pi * steps / (self.total_steps - self.first_step))) / 2
        self._set(self.minimum + (self.initial_learning_rate - self.minimum) * share)


class OneCycle(Schedule):
    """Up to the learning rate of the optimizer, then down to almost 0 (Smith & Topin 2018).

    It rises along half a cosine from ``peak / div_factor`` to the peak, over the first `pct_start`
    of the steps, and falls along another to ``peak / div_factor / final_div_factor``. It is
    PyTorch's ``OneCycleLR``, whose ``max_lr`` is the learning rate of the optimizer here; the
    momentum stays the same.

    Args:
        optimizer: Its current learning rate is the peak.
        total_steps: The number of optimizer steps, at least 2.
        pct_start: The share of the steps in which it rises, above 0 and below 1.
        div_factor: The peak divided by the learning rate of the first step, >= 1.
        final_div_factor: The learning rate of the first step divided by that of the last, >= 1.
        first_step: The step at which the schedule begins, if resumed training restarts it.

    Raises:
        ValueError: a number is out of range.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> optimizer = SGD([Parameter([0.0])], learning_rate=1.0)
    >>> schedule = OneCycle(optimizer, total_steps=5, pct_start=0.6, div_factor=10)
    >>> for step in range(5):
    ...     schedule.on_step(step)
    ...     print(step, round(schedule.learning_rate, 5))
    0 0.1
    1 0.55
    2 1.0
    3 0.50001
    4 1e-05
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        first_step: int = 0,
    ) -> None:
        super().__init__(optimizer)
        self.first_step = _count("OneCycle", "first_step", first_step, 0)
        self.total_steps = _count("OneCycle", "total_steps", total_steps, self.first_step + 2)
        if not 0 < pct_start < 1:
            raise ValueError(f"OneCycle: pct_start must be > 0 and < 1, not {pct_start!r}")
        for name, factor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not 1 <= factor < math.inf:
                raise ValueError(f"OneCycle: {name} must be finite and >= 1, not {factor!r}")
        self.pct_start = pct_start
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.on_step(self.first_step)

    def on_step(self, step: int) -> None:
        """Set the learning rate of this step, counted from 0."""
        count = self.total_steps - self.first_step
        done = min(max(step - self.first_step, 0), count - 1)
        peak, top = self.pct_start * count - 1, self.initial_learning_rate
        low = top / self.div_factor
        if done <= peak and peak > 0:
            start, end, share = low, top, done / peak
        else:
            peak = max(peak, 0)
            start, end, share = top, low / self.final_div_factor, (done - peak) / (count - 1 - peak)
        self._set(end + (start - end) * (1 + math.cos(math.pi * share)) / 2)


class WarmUp(Schedule):
    """Wraps a schedule: a factor rises from 1/steps to 1 over the first steps.

        learning_rate = that of the wrapped schedule * min(1, (step + 1 - first_step) / steps)

    Args:
        schedule: The wrapped schedule, which need not be called itself. `Constant` for warm-up
            alone.
        steps: The number of warm-up steps, >= 1; the last has the full learning rate.
        first_step: The step at which the schedule begins, if resumed training restarts it.

    Raises:
        ValueError: a number is out of range.

    >>> from anaphora.optim import SGD
    >>> from anaphora.tensor import Parameter
    >>> schedule = WarmUp(Constant(SGD([Parameter([0.0])], learning_rate=1.0)), steps=4)
    >>> for step in range(5):
    ...     schedule.on_step(step)
    ...     print(step, schedule.learning_rate)
    0 0.25
    1 0.5
    2 0.75
    3 1.0
    4 1.0
    """

    _kept = (*Schedule._kept, "factor")

    def __init__(self, schedule: Schedule, *, steps: int, first_step: int = 0) -> None:
        super().__init__(schedule.optimizer)
        self.schedule = schedule
        self.steps = _count("WarmUp", "steps", steps, 1)
        self.first_step = _count("WarmUp", "first_step", first_step, 0)
        self.factor = 1 / self.steps
        self._set(schedule.learning_rate * self.factor)

    def on_step(self, step: int) -> None:
        """Set the learning rate of this step, counted from 0."""
        self.schedule.on_step(step)
        self.factor = min(1.0, (step + 1 - self.first_step) / self.steps)
        self._set(self.schedule.learning_rate * self.factor)

    def on_epoch(self, epoch: int) -> None:
        """Call the wrapped schedule."""
        self.schedule.on_epoch(epoch)
        self._set(self.schedule.learning_rate * self.factor)

    def on_evaluation(self, loss: float) -> None:
        """Call the wrapped schedule."""
        self.schedule.on_evaluation(loss)
        self._set(self.schedule.learning_rate * self.factor)

    def state_dict(self) -> dict[str, Any]:
        """As `Schedule.state_dict`, including that of the wrapped schedule."""
        return {**super().state_dict(), "of": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Schedule.load_state_dict`."""
        super().load_state_dict(state)
        self.schedule.load_state_dict(state.get("of", {}))
        self._set(self.learning_rate)


class NonMonotonicTrigger(Schedule):
    """Starts the averaging of `ASGD` when the validation loss stops falling (Merity et al. 2018).

    That is, when it exceeds the smallest of the previous losses, not counting the last `interval`.
    The learning rate does not change.

    Args:
        optimizer: An `ASGD`.
        interval: The paper's n, in evaluations, >= 1.

    Raises:
        TypeError: the optimizer is not an `ASGD`.
        ValueError: the interval is less than 1.

    >>> from anaphora.tensor import Parameter
    >>> optimizer = ASGD([Parameter([0.0])], learning_rate=30.0)
    >>> trigger = NonMonotonicTrigger(optimizer, interval=2)
    >>> for loss in (5.0, 4.0, 4.5, 4.2, 4.1):
    ...     trigger.on_evaluation(loss)
    ...     print(loss, optimizer.averaging)
    5.0 False
    4.0 False
    4.5 False
    4.2 False
    4.1 True
    """

    _kept = (*Schedule._kept, "losses")

    def __init__(self, optimizer: ASGD, *, interval: int = 5) -> None:
        if not isinstance(optimizer, ASGD):
            raise TypeError(
                "NonMonotonicTrigger: it starts the averaging of ASGD, which "
                f"{type(optimizer).__name__} does not have; use ASGD"
            )
        super().__init__(optimizer)
        self.optimizer: ASGD = optimizer
        self.interval = _count("NonMonotonicTrigger", "interval", interval, 1)
        self.losses: list[float] = []

    def on_evaluation(self, loss: float) -> None:
        """Compare with the previous losses."""
        earlier = self.losses[: -self.interval]
        if earlier and loss > min(earlier):
            self.optimizer.start_averaging()
        if math.isfinite(loss):
            self.losses = [*self.losses, float(loss)]


def _count(owner: str, name: str, value: object, minimum: int) -> int:
    if isinstance(value, numbers.Integral) and int(value) >= minimum:
        return int(value)
    raise ValueError(f"{owner}: {name} must be an integer >= {minimum}, not {value!r}")
