"""What all optimisers share: parameters by name, steps, row gradients, saving and restoring."""

from __future__ import annotations

import contextlib
import copy
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from anaphora import foreign_names
from anaphora.tensor import Array, Parameter, RowGradient

Parameters: TypeAlias = Iterable[Parameter] | Iterable[tuple[str, Parameter]]
"""What ``module.parameters()`` or ``module.named_parameters()`` gives."""


class Optimizer(foreign_names.Answering):
    """Changes parameters along their gradients; the base of all optimisers.

    Args:
        parameters: Parameters, or pairs of name and Parameter. Names are used in messages and in
            the state; parameters without one are called by their position, "0", "1", ...
        learning_rate: The size of a step, >= 0; a schedule may change it at any time.
        options: The algorithm's other numbers, which do not change.

    A parameter whose ``grad`` is None is skipped: neither it nor its state changes.

    **Rows.** The result never depends on whether a gradient is a `RowGradient` or the dense table
    that it stands for: same bits. Weight decay therefore shrinks, and momentum moves, the rows that
    were not read too, as they do in PyTorch with a dense gradient. Where a row with gradient 0
    stays as it is, nothing but the rows that were read is touched, which is what makes a large
    vocabulary cheap: `SGD` without momentum and weight decay, `Adagrad` without weight decay, and
    `ASGD` without weight decay until it averages. The others make a dense table at every step.

    Raises:
        TypeError: `parameters` is not an iterable of Parameters.
        ValueError: there is no parameter, one is given twice, or a number is out of its range.

    >>> class SignDescent(Optimizer):
    ...     def _update(self, array, gradient, state, step):
    ...         array -= self.learning_rate * np.sign(gradient)
    >>> weight = Parameter([1.0, -2.0])
    >>> (weight * weight).sum().backward()
    >>> SignDescent([weight], learning_rate=0.5).step()
    >>> weight.data
    array([ 0.5, -1.5], dtype=float32)
    """

    foreign_names = "Optimizer"

    def __init__(self, parameters: Parameters, learning_rate: float, **options: Any) -> None:
        name = type(self).__name__
        self._parameters = named(name, parameters)
        self._options = options
        self._steps = dict.fromkeys(self._parameters, 0)
        self._state: dict[str, dict[str, Array]] = {
            key: {part: np.zeros_like(p.data) for part in self._parts(options)}
            for key, p in self._parameters.items()
        }
        self.learning_rate = learning_rate

    @property
    def learning_rate(self) -> float:
        """The size of the next step, finite and >= 0."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = not_negative(type(self).__name__, "learning_rate", value)

    def __repr__(self) -> str:
        count, rate = len(self._parameters), self.learning_rate
        settings = {"parameters": count, "learning_rate": rate, **self._options}
        listed = ", ".join(f"{key}={value}" for key, value in settings.items())
        return f"{type(self).__name__}({listed})"

    # What an algorithm is made of

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the arrays that are kept for each parameter."""
        return ()

    def _keeps_rows(self) -> bool:
        """Whether a row with gradient 0 stays as it is, and so does its state."""
        return False

    def _update(self, array: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
        """Change a parameter, or some rows of it, and its state; `step` counts from 1."""
        raise NotImplementedError

    # Steps

    def step(self) -> None:
        """Change every parameter that has a gradient.

        Raises:
            ValueError: a gradient has another shape or dtype than its parameter.
        """
        gradients = {
            name: self._checked(name, parameter)
            for name, parameter in self._parameters.items()
            if parameter.grad is not None
        }
        for name, gradient in gradients.items():
            self._steps[name] += 1
            state, step = self._state[name], self._steps[name]
            with self._parameters[name].writing() as array:
                if isinstance(gradient, RowGradient) and self._keeps_rows():
                    rows = gradient.indices
                    read, read_state = array[rows], {k: part[rows] for k, part in state.items()}
                    self._update(read, gradient.values, read_state, step)
                    array[rows] = read
                    for key, part in read_state.items():
                        state[key][rows] = part
                else:
                    dense = gradient.dense() if isinstance(gradient, RowGradient) else gradient
                    self._update(array, dense, state, step)

    def _checked(self, name: str, parameter: Parameter) -> Array | RowGradient:
        gradient = parameter.grad
        if not isinstance(gradient, RowGradient):
            gradient = np.asarray(gradient)
        if gradient.shape != parameter.shape or gradient.dtype != parameter.dtype:
            raise ValueError(
                f"{type(self).__name__}: the gradient of parameter {name!r} is "
                f"{gradient.dtype}{gradient.shape}, but the parameter is "
                f"{parameter.dtype}{parameter.shape}; a grad that you set must fit its parameter"
            )
        return gradient

    def zero_grad(self) -> None:
        """Set ``grad`` of every parameter to None."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the parameters are those to evaluate and to save; see `ASGD`.

        All other optimisers leave them as they are, so a training loop need not ask which it has.
        """
        yield

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """All that a training needs to continue bit for bit, as a copy.

        Returns:
            "optimizer", its name; "learning_rate"; "options"; "steps", the number of steps of each
            parameter; and "arrays", NumPy arrays named PARAMETER.PART, such as
            "decoder.weight.velocity". All but "arrays" are JSON values.

        >>> from anaphora.optim import Adagrad
        >>> optimizer = Adagrad([("weight", Parameter([1.0, 2.0]))])
        >>> state = optimizer.state_dict()
        >>> state["steps"], list(state["arrays"])
        ({'weight': 0}, ['weight.square_sum'])
        >>> optimizer.load_state_dict(state)
        """
        return {
            "optimizer": type(self).__name__,
            "learning_rate": self.learning_rate,
            "options": copy.deepcopy(self._options),
            "steps": dict(self._steps),
            "arrays": {
                f"{name}.{part}": array.copy()
                for name, state in self._state.items()
                for part, array in state.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned: learning rate and options as well as arrays.

        Raises:
            ValueError: it is of another optimiser, or of other parameters; nothing is changed then.
        """
        owner = type(self).__name__
        if state.get("optimizer") != owner:
            raise ValueError(
                f"{owner}: the state is of {state.get('optimizer')!r}; load it into the optimizer "
                "that it was saved from"
            )
        missing = [
            key for key in ("learning_rate", "options", "steps", "arrays") if key not in state
        ]
        if missing:
            raise ValueError(f"{owner}: the state has no {missing[0]!r}; give all that was saved")
        options, arrays = copy.deepcopy(dict(state["options"])), state["arrays"]
        _same_names(owner, "option", options, self._options)
        _same_names(owner, "parameter", state["steps"], self._steps)
        expected = {
            f"{name}.{part}": (name, part)
            for name in self._parameters
            for part in self._parts(options)
        }
        _same_names(owner, "array", arrays, expected)
        for key, (name, _) in expected.items():
            array, parameter = arrays[key], self._parameters[name]
            if array.shape != parameter.shape or array.dtype != parameter.dtype:
                raise ValueError(
                    f"{owner}: {key!r} in the state is {array.dtype}{array.shape}, but parameter "
                    f"{name!r} is {parameter.dtype}{parameter.shape}; load it beside the model "
                    "that it was saved with"
                )
        self.learning_rate = state["learning_rate"]
        self._options = options
        self._steps = {name: int(state["steps"][name]) for name in self._steps}
        self._state = {name: {} for name in self._parameters}
        for key, (name, part) in expected.items():
            self._state[name][part] = np.array(arrays[key])


def _same_names(owner: str, kind: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in wanted:
        if name not in found:
            raise ValueError(
                f"{owner}: the state has no {kind} {name!r}; load it into the optimizer of the "
                "model that it was saved with"
            )
    for name in found:
        if name not in wanted:
            raise ValueError(
                f"{owner}: the state has the {kind} {name!r}, which this optimizer has not; load "
                "it into the optimizer of the model that it was saved with"
            )


# Checking what is given ---------------------------------------------------------------------------


def named(owner: str, parameters: Parameters) -> dict[str, Parameter]:
    """The parameters by name, checked; `owner` begins the messages."""
    if isinstance(parameters, (Parameter, str)) or not isinstance(parameters, Iterable):
        raise TypeError(
            f"{owner}: wants a list of parameters, not {type(parameters).__name__}; give it "
            "module.parameters() or module.named_parameters()"
        )
    result: dict[str, Parameter] = {}
    names: dict[int, str] = {}
    for position, item in enumerate(parameters):
        name, parameter = item if isinstance(item, tuple) and len(item) == 2 else (position, item)
        name = str(name)
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"{owner}: {name!r} of the parameters is of type {type(parameter).__name__}; give "
                "Parameters, or pairs of name and Parameter"
            )
        if id(parameter) in names:
            raise ValueError(
                f"{owner}: parameter {name!r} is the same as {names[id(parameter)]!r}; give it once"
            )
        if name in result:
            raise ValueError(f"{owner}: two parameters are called {name!r}; rename one")
        names[id(parameter)] = name
        result[name] = parameter
    if not result:
        raise ValueError(
            f"{owner}: there are no parameters; if you gave a generator, it was used up before: "
            "call module.parameters() anew"
        )
    return result


def not_negative(owner: str, name: str, value: object) -> float:
    """The value as a float; a message if it is not finite and >= 0."""
    if isinstance(value, numbers.Real) and 0 <= float(value) < math.inf:
        return float(value)
    raise ValueError(f"{owner}: {name} is a finite number >= 0, not {value!r}")


def fraction(owner: str, name: str, value: object) -> float:
    """The value as a float; a message if it is not 0 <= value < 1."""
    if isinstance(value, numbers.Real) and 0 <= float(value) < 1:
        return float(value)
    raise ValueError(f"{owner}: {name} is a number >= 0 and < 1, not {value!r}")


def positive(owner: str, name: str, value: object) -> float:
    """The value as a float; a message if it is not > 0. Infinity is."""
    if isinstance(value, numbers.Real) and float(value) > 0:
        return float(value)
    raise ValueError(f"{owner}: {name} is a number > 0, not {value!r}")
