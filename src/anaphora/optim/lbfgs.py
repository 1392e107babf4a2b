"""L-BFGS, which evaluates the loss several times a step, and its line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from anaphora.optim.base import Groups, Optimizer, Parameters, not_negative
from anaphora.options import check_sizes
from anaphora.tensor import Array, RowGradient, Tensor


class Point(NamedTuple):
    """What is known of one point on a line of parameters.

    Attributes:
        length: How far it is along the direction.
        loss: The loss there.
        gradient: The gradient of all parameters there.
    """

    length: float
    loss: float
    gradient: Array


class LBFGS(Optimizer):
    """Limited-memory BFGS (Liu & Nocedal 1989), with steps of fixed length or a line search.

    For small models and complete data sets: each iteration moves all parameters by
    ``learning_rate`` along the gradient times an approximate inverse Hessian, which is that of the
    latest changes of the parameters s and of the gradient y. The first iteration moves by at most
    ``learning_rate`` along the gradient. With a line search these are only the lengths that are
    tried first: the length t along the direction d then meets the strong Wolfe conditions,

        loss(t) <= loss(0) + 1e-4 * t * slope(0),  abs(slope(t)) <= 0.9 * abs(slope(0))

    where slope is the derivative with respect to t (Nocedal & Wright 2006, algorithms 3.5 and 3.6).
    Iterations are PyTorch's; evaluations are limited by iterations, and to 25 for each search.

    Args:
        parameters: Parameters, or pairs of name and Parameter; no groups.
        learning_rate: >= 0.
        max_iterations: The largest number of iterations of a step.
        tolerance_grad: A step ends when no gradient is larger.
        tolerance_change: A step ends when nothing changes by more.
        history_size: The number of pairs of changes that are kept.
        line_search_fn: "strong_wolfe", or None for steps of fixed length.

    Raises:
        TypeError, ValueError: as for `Optimizer`, or groups are given, or the line search is
            unknown.

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
        line_search_fn: str | None = None,
    ) -> None:
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(
                f"LBFGS: line_search_fn {line_search_fn!r} is neither 'strong_wolfe' nor None"
            )
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
        self._line_search = line_search_fn
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
            previous, found = loss, None
            if self._line_search:
                found = self._search(closure, direction, Point(0.0, loss, gradient), length)
                length, loss, gradient = found
            self._latest = direction * length
            self._move(self._latest)
            for name in self._parameters:
                self._steps[name] += 1
            if iteration + 1 == options["max_iterations"]:
                break  # the loss would be evaluated for nothing
            if found is None:
                loss, gradient = closure().item(), self._gradient()
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

    def _search(
        self, closure: Callable[[], Tensor], direction: Array, start: Point, length: float
    ) -> Point:
        """Where along a direction the loss is low enough; the parameters stay where they are."""
        before = [parameter.data.copy() for parameter in self._parameters.values()]

        def evaluate(length: float) -> Point:
            self._move(direction * length)
            try:
                return Point(length, closure().item(), self._gradient())
            finally:
                for parameter, array in zip(self._parameters.values(), before, strict=True):
                    with parameter.writing() as values:
                        values[...] = array

        smallest = self._options["tolerance_change"] / float(np.abs(direction).max())
        return strong_wolfe(evaluate, direction, start, length, smallest)

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
        for parameter in self._parameters.values():
            with parameter.writing() as array:
                array += change[start : start + parameter.size].reshape(parameter.shape)
            start += parameter.size

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


def strong_wolfe(
    evaluate: Callable[[float], Point],
    direction: Array,
    start: Point,
    length: float,
    smallest: float,
    evaluations: int = 25,
) -> Point:
    """A point along a direction that meets the strong Wolfe conditions, or the best that was found.

    Args:
        evaluate: The point at a length.
        direction: Along which the loss falls at the start.
        start: The point at length 0.
        length: The length to try first.
        smallest: An interval of lengths below this is searched no further.
        evaluations: The largest number of them.
    """

    def slope(point: Point) -> float:
        return float(point.gradient @ direction)

    falling = slope(start)

    def is_low(point: Point) -> bool:  # NaN is not
        return point.loss <= start.loss + 1e-4 * point.length * falling

    def is_flat(point: Point) -> bool:
        return abs(slope(point)) <= -0.9 * falling

    # Go on until an interval contains such a point.
    before, here, count = start, evaluate(length), 1
    while is_low(here) and not (count > 2 and here.loss >= before.loss) and slope(here) < 0:
        if is_flat(here):
            return here
        if count == evaluations:
            return here
        limits = here.length + 0.01 * (here.length - before.length), here.length * 10
        ahead = _cubic_minimum(before, slope(before), here, slope(here), limits)
        before, here, count = here, evaluate(ahead), count + 1
    if is_low(here) and not (count > 2 and here.loss >= before.loss) and is_flat(here):
        return here

    # Make the interval smaller; the lower of its ends is the best point so far.
    low, high = (
        (before, here) if before.loss <= here.loss or here.loss != here.loss else (here, before)
    )
    is_slow = False
    while count < evaluations and abs(high.length - low.length) > smallest:
        first, last = sorted((low, high), key=lambda point: point.length)
        trial = _cubic_minimum(first, slope(first), last, slope(last), (first.length, last.length))
        margin = 0.1 * (last.length - first.length)
        nearest = min(last.length - trial, trial - first.length)
        if nearest < margin and (is_slow or nearest <= 0):
            is_nearer_last = last.length - trial < trial - first.length
            trial = last.length - margin if is_nearer_last else first.length + margin
            is_slow = False
        else:
            is_slow = nearest < margin
        here, count = evaluate(trial), count + 1
        if not is_low(here) or here.loss >= low.loss:
            low, high = (here, low) if here.loss < low.loss else (low, here)
            continue
        if is_flat(here):
            return here
        if slope(here) * (high.length - low.length) >= 0:
            high = low
        low = here
    return low


def _cubic_minimum(
    a: Point, slope_a: float, b: Point, slope_b: float, limits: tuple[float, float]
) -> float:
    """Where the cubic through two points with these slopes is lowest, within limits."""
    d = slope_a + slope_b - 3 * (a.loss - b.loss) / (a.length - b.length)
    square = d * d - slope_a * slope_b
    if not square >= 0:  # there is no minimum, or something is NaN
        return sum(limits) / 2
    root = math.sqrt(square)
    divisor = slope_b - slope_a + 2 * root
    if divisor == 0:
        return sum(limits) / 2
    place = b.length - (b.length - a.length) * ((slope_b + root - d) / divisor)
    return min(max(place, limits[0]), limits[1])
