"""Local SGD: processes that train apart for some updates, and then average their weights."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from anaphora.distributed import Processes
from anaphora.distributed.sums import tree_sum
from anaphora.optim import Optimizer
from anaphora.tensor import Array, Parameter
from anaphora.training.options import TrainingOptions


def check_apart(average_every: int, shards: int, processes: int) -> None:
    """Check that each process can train weights of its own.

    Raises:
        ValueError: there is one process, or another number of shards than of processes.

    >>> check_apart(1, shards=4, processes=2)
    >>> check_apart(8, shards=4, processes=2)
    Traceback (most recent call last):
        ...
    ValueError: average_every 8 needs one process for each of the 4 shards, because each trains...
    """
    if average_every > 1 and (shards != processes or processes == 1):
        raise ValueError(
            f"average_every {average_every} needs one process for each of "
            f"{f'the {shards} shards' if shards > 1 else 'several shards'}, because each trains "
            f"weights of its own; there {'is 1' if processes == 1 else f'are {processes}'}"
        )


class Averaging:
    """Averages weights, and the state of the optimizer, over processes (Stich 2019, "Local SGD").

    With a momentum m and a rate r other than 0 and 1, the average is a step of an outer optimizer
    (Douillard et al. 2023, "DiLoCo"):

        d = weights - mean;  v = m v + d;  weights = weights - r (d + m v)

    from the weights of the last time.

    Args:
        parameters: The parameters of the model, by name.
        optimizer: Their optimizer.
        options: ``outer_momentum`` and ``outer_learning_rate``.
        processes: Those that train.
        step: The update at which their weights are the same.
        velocity: v of each parameter, from a checkpoint; empty for 0.

    >>> from anaphora.distributed import ALONE
    >>> from anaphora.optim import SGD
    >>> weight = Parameter([1.0])
    >>> options = TrainingOptions(max_steps=8, average_every=4, outer_learning_rate=0.5)
    >>> averaging = Averaging({"weight": weight}, SGD([weight], 1.0), options, ALONE, 0, {})
    >>> with weight.writing() as array:
    ...     array[0] = 2.0
    >>> averaging.average(step=4), weight.data
    ((0.0, 0), array([1.5], dtype=float32))
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        optimizer: Optimizer,
        options: TrainingOptions,
        processes: Processes,
        step: int,
        velocity: Mapping[str, Array],
    ) -> None:
        self._parameters, self._optimizer = dict(parameters), optimizer
        self._processes = processes
        self._momentum, self._rate = options.outer_momentum, options.outer_learning_rate
        self._is_outer = has_outer_steps(options)
        self.velocity = dict(velocity)
        if self._is_outer and not velocity:
            self.velocity = {name: np.zeros_like(p.data) for name, p in self._parameters.items()}
        self._weights: dict[str, Array] = {}
        self._begin(step)

    def _begin(self, step: int) -> None:
        self.step = step
        self.loss, self.tokens = 0.0, 0  # of this process since then
        self.failure: Exception | None = None
        if self._is_outer:
            self._weights = {name: p.data.copy() for name, p in self._parameters.items()}

    def count(self, loss: float, tokens: int) -> None:
        """Count the sum of the losses of an update of this process, and its targets."""
        self.loss += loss
        self.tokens += tokens

    def average(self, step: int) -> tuple[float, int]:
        """Average; return the sum of the losses of all processes since the last time, and the
        targets.

        Raises:
            Exception: the first that a process failed with.
        """
        own = np.array([self.loss, self.tokens, self.failure is not None], np.float64)
        shared = self._processes.all_gather_numbers(own)
        if shared[:, 2].any():
            self._processes.raise_first(self.failure)
        state = self._optimizer.state_dict()
        self._processes.check_alike({"parameters with steps": str(sorted(state["arrays"]))})
        arrays = {name: parameter.data.copy() for name, parameter in self._parameters.items()}
        self._mean([*arrays.values(), *state["arrays"].values()])
        self._optimizer.load_state_dict(state)
        for name, mean in arrays.items():
            with self._parameters[name].writing() as array:
                array[...] = self._stepped(name, mean)
        self._begin(step)
        return tree_sum(shared[:, 0].tolist(), operator.add), int(shared[:, 1].sum())

    def _mean(self, arrays: Iterable[Array]) -> None:
        """Replace arrays by their means over the processes."""
        for array in arrays:
            flat = array.reshape(-1)
            self._processes.sum_in_order(flat)
            flat /= array.dtype.type(self._processes.size)  # exactly: it is a power of two
            array[...] = flat.reshape(array.shape)

    def _stepped(self, name: str, mean: Array) -> Array:
        if not self._is_outer:
            return mean
        kind = mean.dtype.type
        difference = self._weights[name] - mean
        velocity = kind(self._momentum) * self.velocity[name] + difference
        self.velocity[name] = velocity
        step: Any = kind(self._rate) * (difference + kind(self._momentum) * velocity)
        stepped: Array = self._weights[name] - step
        return stepped


def has_outer_steps(options: TrainingOptions) -> bool:
    """Whether the average is a step of an outer optimizer.

    >>> has_outer_steps(TrainingOptions(epochs=1, average_every=8))
    False
    """
    return bool(options.outer_momentum) or options.outer_learning_rate != 1
