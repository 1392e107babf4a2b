"""L-BFGS, which evaluates the loss several times a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from anaphora.optim.base import Groups, Optimizer, Parameters, not_negative
from anaphora.options import check_sizes
from anaphora.tensor import Array, RowGradient, Tensor


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu & Nocedal 1989) with steps of fixed length, as in PyTorch.

    For small models and complete data sets: each iteration moves all parameters by
    ``learning_rate`` along the gradient times an approximate inverse Hessian, which is that of the
    latest changes of the parameters s and of the gradient y. The first iteration moves by at most
    ``learning_rate`` along the gradient. There is no line search, and no limit of evaluations but
    that of iterations.

    Args:
        parameters: Parameters, or pairs of name and Parameter; no groups.
        learning_rate: >= 0.
        max_iterations: The largest number of iterations of a step.
        tolerance_grad: A step ends when no gradient is larger.
        tolerance_change: A step ends when nothing changes by more.
        history_size: The number of pairs of changes that are kept.

    Raises:
        TypeError, ValueError: as for `Optimizer`, or groups are given.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([4.0, -3.0], dtype=np.float64)
    >>> optimizer = LBFGS([weight])
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((weight - 1) ** 2 * [1.0, 10.0]).sum()
    ...     loss.backward()
    ...     return loss
    >>> first = optimizer.step(closure)
    >>> weight.data.round(4)
    array([1., 1.])
    """

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 1.0,
        *,
        max_iterations: int = 20,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
    ) -> None:
        check_sizes("LBFGS", max_iterations=max_iterations, history_size=history_size)
        super().__init__(
            parameters,
            learning_rate,
            max_iterations=int(max_iterations),
            tolerance_grad=not_negative("LBFGS", "tolerance_grad", tolerance_grad),
            tolerance_change=not_negative("LBFGS", "tolerance_change", tolerance_change),
            history_size=int(history_size),
        )
        if len(self._groups) > 1 or self._is_grouped():
            raise ValueError("LBFGS: it moves all parameters as one vector; give no groups")
        self._latest: Array | None = None  # the last change of all parameters
        self._before: Array | None = None  # the gradient before it
        self._history: list[tuple[Array, Array]] = []  # changes of parameters and of gradients

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """Run iterations; return the loss before the first.

        Args:
            closure: Removes the gradients, computes the loss, calls its ``backward`` and returns
                it.

        Raises:
            TypeError: there is no closure.
        """
        if closure is None:
            raise TypeError(
                "LBFGS: step() evaluates the loss several times; give it a function that calls "
                "zero_grad(), computes the loss, calls its backward() and returns it"
            )
        options, first = self._options, closure()
        loss, gradient = first.item(), self._gradient()
        for iteration in range(options["max_iterations"]):
            if np.abs(gradient).max(initial=0) <= options["tolerance_grad"]:
                break
            direction, length = self._direction(gradient)
            self._before = gradient
            if gradient @ direction > -options["tolerance_change"]:
                self._latest = direction * length
                break
            self._latest = direction * length
            self._move(self._latest)
            if iteration + 1 == options["max_iterations"]:
                break  # the loss would be evaluated for nothing
            previous, loss = loss, closure().item()
            gradient = self._gradient()
            change = np.abs(self._latest).max(initial=0)
            if min(change, abs(loss - previous)) <= options["tolerance_change"]:
                break
        return first

    def _direction(self, gradient: Array) -> tuple[Array, float]:
        """Where to go, and how far; the history takes in what the last move changed."""
        if self._latest is None or self._before is None:
            return -gradient, min(1.0, 1 / float(np.abs(gradient).sum())) * self.learning_rate
        y, s = gradient - self._before, self._latest
        if y @ s > 1e-10:
            self._history = [*self._history[-self._options["history_size"] + 1 :], (s, y)]
            if self._options["history_size"] == 1:
                self._history = [(s, y)]
        q, shares = -gradient, []
        for s, y in reversed(self._history):
            shares.append((s @ q) / (y @ s))
            q = q - shares[-1] * y
        if self._history:
            s, y = self._history[-1]
            q = q * ((y @ s) / (y @ y))
        for (s, y), share in zip(self._history, reversed(shares), strict=True):
            q = q + s * (share - (y @ q) / (y @ s))
        return q, self.learning_rate

    def _gradient(self) -> Array:
        """The gradients of all parameters as one vector; 0 where there is none."""
        parts = []
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                parts.append(np.zeros(parameter.size, parameter.dtype))
                continue
            found = self._checked(name, parameter)
            dense = found.dense() if isinstance(found, RowGradient) else found
            parts.append(dense.reshape(-1))
        return np.concatenate(parts)

    def _move(self, change: Array) -> None:
        start = 0
        for name, parameter in self._parameters.items():
            with parameter.writing() as array:
                array += change[start : start + parameter.size].reshape(parameter.shape)
            start += parameter.size
            self._steps[name] += 1

    def start_averaging(self, decay: float | None = None) -> None:
        """Refuse to average: a step is not one update.

        Raises:
            ValueError: always.
        """
        raise ValueError("LBFGS: its iterations are not averaged; use another optimizer")

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, as from `Optimizer.state_dict`.

        Its arrays are vectors of all parameters: "latest" and "before" after the first iteration,
        and "history", [2, N, number of elements].
        """
        state = super().state_dict()
        if self._latest is not None and self._before is not None:
            state["arrays"] = {"latest": self._latest.copy(), "before": self._before.copy()}
            if self._history:
                state["arrays"]["history"] = np.array(self._history).swapaxes(0, 1)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is from another optimizer, or for other parameters.
        """
        arrays = {name: np.array(array) for name, array in state.get("arrays", {}).items()}
        size = sum(parameter.size for parameter in self._parameters.values())
        wrong = [name for name, array in arrays.items() if array.shape[-1:] != (size,)]
        if wrong or not {"latest", "before", "history"} >= arrays.keys():
            raise ValueError(
                "LBFGS: the state is of other parameters; load it together with the model that it "
                "was saved with"
            )
        super().load_state_dict({**state, "arrays": {}})
        self._latest, self._before = arrays.get("latest"), arrays.get("before")
        history = arrays.get("history", np.zeros((2, 0, size)))
        self._history = list(zip(*history, strict=True))
