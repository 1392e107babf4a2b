"""What all optimizers share: parameters by name, groups, steps, averages, saving and restoring."""

from __future__ import annotations

import contextlib
import copy
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from anaphora import engine, foreign_names
from anaphora.foreign_names import arguments_checked
from anaphora.tensor import Array, Parameter, RowGradient

Parameters: TypeAlias = Iterable[Parameter] | Iterable[tuple[str, Parameter]]
"""The result of ``module.parameters()`` or ``module.named_parameters()``."""

Groups: TypeAlias = Iterable[Mapping[str, Any]]
"""Dictionaries with "parameters" and, if they differ, "learning_rate" and "weight_decay"."""

_AVERAGE = "average"  # the name of the array that holds a parameter's average


@dataclass(frozen=True)
class _Group:
    """Parameters with their own learning rate or weight decay; None for the optimizer's."""

    names: tuple[str, ...]
    learning_rate: float | None
    weight_decay: float | None


class Optimizer(foreign_names.Answering):
    """Updates parameters by their gradients; the base of all optimizers.

    Args:
        parameters: Parameters, or pairs of name and Parameter. Names are used in messages and in
            the state; parameters without one are named by position, "0", "1", ... Or a list
            of groups, dictionaries as in PyTorch: "parameters" (or "params") with one of these, and
            "learning_rate" (or "lr") and "weight_decay" if they are not the optimizer's.
        learning_rate: The size of a step, >= 0; a schedule may change it at any time. A group's own
            learning rate is multiplied by the same factor.
        options: The algorithm's other numbers, which do not change.

    A parameter whose ``grad`` is None is skipped: neither it nor its state changes. A frozen one
    (``requires_grad`` False) has none, and no state is kept for it before its first step.

    **Averages.** After `start_averaging`, an average of each parameter's values after each step is
    kept; `averaged` puts the averages into the parameters, to evaluate and to save.

    **Rows.** A `RowGradient` and the dense table that it represents give the same result, bit for
    bit, except with ``lazy_rows`` of `Adam`. Weight decay and momentum therefore also change rows
    that were not read, as in PyTorch with a dense gradient. If a row with gradient 0 does not
    change, only the rows that were read are touched, which makes a large vocabulary cheap: `SGD`
    without momentum and weight decay, `Adagrad` without weight decay, and `ASGD` without weight
    decay, all until they average. The others pass over the whole table at every step, without
    making a dense gradient.

    Raises:
        TypeError: `parameters` is not an iterable of Parameters or groups.
        ValueError: there is no parameter, one is given twice, or a number is out of range.

    >>> class SignDescent(Optimizer):
    ...     def _update(self, array, gradient, state, step, learning_rate, options):
    ...         array -= learning_rate * np.sign(gradient)
    >>> weight, bias = Parameter([1.0, -2.0]), Parameter([3.0])
    >>> groups = [{"parameters": [weight]}, {"parameters": [bias], "learning_rate": 0.25}]
    >>> optimizer = SignDescent(groups, learning_rate=0.5)
    >>> optimizer.learning_rate = 1.0  # doubled, for all groups
    >>> ((weight * weight).sum() + bias.sum()).backward()
    >>> optimizer.step()
    >>> weight.data, bias.data
    (array([ 0., -1.], dtype=float32), array([2.5], dtype=float32))
    """

    foreign_names = "Optimizer"

    def __init__(
        self, parameters: Parameters | Groups, learning_rate: float, **options: Any
    ) -> None:
        name = type(self).__name__
        self._options = options
        self._parameters, self._groups = _grouped(name, parameters, options)
        self._steps = dict.fromkeys(self._parameters, 0)
        self._state: dict[str, dict[str, Array]] = {}  # of parameters that had a step
        self._averaged_steps: int | None = None  # None: not averaging
        self._average_decay: float | None = None
        self._evaluating = False
        self.learning_rate = learning_rate
        self._initial_learning_rate = self._learning_rate
        self._check_groups(self._groups, self._initial_learning_rate)

    @property
    def learning_rate(self) -> float:
        """The size of the next step, finite and >= 0.

        Setting it multiplies the learning rates of all groups by the same factor, so that their
        ratios remain the initial ones.
        """
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = not_negative(type(self).__name__, "learning_rate", value)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The current groups: "parameters" (names), "learning_rate" and "weight_decay".

        >>> from anaphora.optim import SGD
        >>> bias = [("bias", Parameter([1.0]))]
        >>> SGD([{"params": bias, "lr": 0.1}], learning_rate=1.0, weight_decay=0.5).groups
        [{'parameters': ['bias'], 'learning_rate': 0.1, 'weight_decay': 0.5}]
        """
        return [
            {
                "parameters": list(group.names),
                "learning_rate": self._rate(group),
                **(
                    {"weight_decay": options["weight_decay"]}
                    if "weight_decay" in (options := self._options_of(group))
                    else {}
                ),
            }
            for group in self._groups
        ]

    def _rate(self, group: _Group) -> float:
        if group.learning_rate is None:
            return self._learning_rate
        return group.learning_rate * (self._learning_rate / self._initial_learning_rate)

    def _options_of(self, group: _Group) -> dict[str, Any]:
        if group.weight_decay is None:
            return self._options
        return {**self._options, "weight_decay": group.weight_decay}

    def _check_groups(self, groups: Iterable[_Group], initial_learning_rate: float) -> None:
        if any(group.learning_rate is not None for group in groups) and not initial_learning_rate:
            raise ValueError(
                f"{type(self).__name__}: the learning rates of groups change in proportion to "
                "learning_rate, which is 0; give one > 0"
            )

    def __repr__(self) -> str:
        count, rate = len(self._parameters), self.learning_rate
        groups = {"groups": len(self._groups)} if self._is_grouped() else {}
        settings = {"parameters": count, **groups, "learning_rate": rate, **self._options}
        listed = ", ".join(f"{key}={value}" for key, value in settings.items())
        return f"{type(self).__name__}({listed})"

    def _is_grouped(self) -> bool:
        """Whether any group has its own learning rate or weight decay."""
        return any(
            group.learning_rate is not None or group.weight_decay is not None
            for group in self._groups
        )

    # The parts of an algorithm

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the arrays that are kept for each parameter."""
        return ()

    def _keeps_rows(self, options: Mapping[str, Any]) -> bool:
        """Whether a row with gradient 0 stays unchanged, and so does its state."""
        return False

    _reads_rows = False
    """Whether `_update` takes a `RowGradient` too; else it is given the dense table."""

    def _update(
        self,
        array: Array,
        gradient: Any,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        """Update a parameter, or some of its rows, and its state; `step` counts from 1.

        The learning rate and the options are those of the parameter's group. The gradient is not to
        be changed: where several processes train, it may be a sum that all of them read.
        """
        raise NotImplementedError

    # Steps

    def step(self) -> None:
        """Update every parameter that has a gradient, and the averages when averaging.

        Raises:
            ValueError: a gradient has another shape or dtype than its parameter.
            RuntimeError: within `averaged`, where averages replace the parameters.
        """
        if self._evaluating:
            raise RuntimeError(
                f"{type(self).__name__}: a step within averaged() would be lost; train outside the "
                "with block"
            )
        gradients = {
            name: self._checked(name, parameter)
            for name, parameter in self._parameters.items()
            if parameter.grad is not None
        }
        for group in self._groups:
            rate, options = self._rate(group), self._options_of(group)
            for name in group.names:
                if name in gradients:
                    self._step(name, gradients[name], rate, options)
        if self._averaged_steps is not None:
            self._averaged_steps += 1
            for name, state in self._state.items():
                engine.average_update(
                    state[_AVERAGE], self._parameters[name].data, self._averaged_count()
                )

    def _step(
        self,
        name: str,
        gradient: Array | RowGradient,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        parameter, parts = self._parameters[name], self._parts(options)
        if name not in self._state:
            self._state[name] = {part: np.zeros_like(parameter.data) for part in parts}
            if self._averaged_steps is not None:  # the average of its values so far
                self._state[name][_AVERAGE] = parameter.data.copy()
        self._steps[name] += 1
        step = self._steps[name]
        state = {part: array for part, array in self._state[name].items() if part != _AVERAGE}
        with parameter.writing() as array:
            if isinstance(gradient, RowGradient) and self._keeps_rows(options):
                rows = gradient.indices
                read, read_state = array[rows], {k: part[rows] for k, part in state.items()}
                self._update(read, gradient.values, read_state, step, learning_rate, options)
                array[rows] = read
                for key, part in read_state.items():
                    state[key][rows] = part
            else:
                if isinstance(gradient, RowGradient) and not self._reads_rows:
                    gradient = gradient.dense()
                self._update(array, gradient, state, step, learning_rate, options)

    def _checked(self, name: str, parameter: Parameter) -> Array | RowGradient:
        gradient = parameter.grad
        if not isinstance(gradient, RowGradient):
            gradient = np.asarray(gradient)
        if gradient.shape != parameter.shape or gradient.dtype != parameter.dtype:
            raise ValueError(
                f"{type(self).__name__}: the gradient of parameter {name!r} is "
                f"{gradient.dtype}{gradient.shape}, but the parameter is "
                f"{parameter.dtype}{parameter.shape}; a grad that you set must match its parameter"
            )
        return gradient

    @arguments_checked
    def zero_grad(self) -> None:
        """Set ``grad`` of every parameter to None."""
        for parameter in self._parameters.values():
            parameter.grad = None

    # Averages

    @property
    def averaging(self) -> bool:
        """Whether the averaging has started."""
        return self._averaged_steps is not None

    def start_averaging(self, decay: float | None = None) -> None:
        """Average the parameters from the next step on; no effect if already averaging.

            average = d * average + (1 - d) * parameter,  d = min(decay, (n - 1) / (n + 9))

        after the n-th step from here: an exponential moving average over about ``1 / (1 - decay)``
        steps and, early in training, over the last tenth of it, so that the initial weights soon
        cease to count (like TensorFlow's ``num_updates``).

        Args:
            decay: 0 < decay < 1; None for the plain mean, ``d = (n - 1) / n`` (Polyak & Juditsky
                1992).

        Raises:
            ValueError: the decay is out of range.

        >>> from anaphora.optim import SGD
        >>> weight = Parameter([8.0])
        >>> optimizer = SGD([weight], learning_rate=1.0)
        >>> optimizer.start_averaging(decay=0.5)
        >>> for _ in range(2):  # the weight becomes 7, 6
        ...     optimizer.zero_grad()
        ...     weight.sum().backward()
        ...     optimizer.step()
        >>> with optimizer.averaged():
        ...     print(weight.data.round(3))  # 7 + (6 - 7) * 10 / 11
        [6.091]
        """
        if decay is not None and fraction(type(self).__name__, "decay", decay) == 0:
            raise ValueError(
                f"{type(self).__name__}: decay must be a number > 0 and < 1, not {decay!r}"
            )
        if self._averaged_steps is not None:
            return
        self._averaged_steps, self._average_decay = 0, decay
        for name, state in self._state.items():
            state[_AVERAGE] = np.zeros_like(self._parameters[name].data)

    def _averaged_count(self) -> float:
        """The effective number of averaged values; at 1 the average becomes the parameter."""
        count = self._averaged_steps or 0
        if self._average_decay is None:
            return count
        return min((count + 9) / 10, 1 / (1 - self._average_decay))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the parameters are their averages, to evaluate and to save.

        Without `start_averaging`, and before the first step after it, the parameters stay
        unchanged, so a training loop need not check.
        """
        if not self._averaged_steps or self._evaluating:
            yield
            return
        before = {name: self._parameters[name].data.copy() for name in self._state}
        self._evaluating = True
        self._put({name: state[_AVERAGE] for name, state in self._state.items()})
        try:
            yield
        finally:
            self._put(before)
            self._evaluating = False

    def _put(self, arrays: Mapping[str, Array]) -> None:
        for name, values in arrays.items():
            with self._parameters[name].writing() as array:
                array[...] = values

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, with which training continues bit for bit.

        Returns:
            "optimizer", its name; "learning_rate"; "options"; "steps", the number of steps of each
            parameter; and "arrays", NumPy arrays named PARAMETER.PART, such as
            "decoder.weight.velocity". With groups, "groups" and "initial_learning_rate", which
            their rates are relative to; when averaging, "averaged_steps" and "average_decay". All
            but "arrays" are JSON values. Frozen parameters that never had a step have no arrays.

        >>> from anaphora.optim import Adagrad
        >>> optimizer = Adagrad([("weight", Parameter([1.0, 2.0]))])
        >>> state = optimizer.state_dict()
        >>> state["steps"], list(state["arrays"])
        ({'weight': 0}, ['weight.square_sum'])
        >>> optimizer.load_state_dict(state)
        """
        state: dict[str, Any] = {
            "optimizer": type(self).__name__,
            "learning_rate": self.learning_rate,
            "options": copy.deepcopy(self._options),
            "steps": dict(self._steps),
        }
        if self._is_grouped():
            state["initial_learning_rate"] = self._initial_learning_rate
            state["groups"] = [
                {
                    "parameters": list(group.names),
                    "learning_rate": group.learning_rate,
                    "weight_decay": group.weight_decay,
                }
                for group in self._groups
            ]
        if self._averaged_steps is not None:
            state["averaged_steps"] = self._averaged_steps
            if self._average_decay is not None:
                state["average_decay"] = self._average_decay
        parts = self._kept_parts(self._options, averaging=self.averaging)
        state["arrays"] = {
            f"{name}.{part}": self._state[name][part].copy()
            if name in self._state and part in self._state[name]
            else np.zeros_like(parameter.data)
            for name, parameter in self._parameters.items()
            if name in self._state or parameter.requires_grad
            for part in parts
        }
        return state

    def _kept_parts(self, options: Mapping[str, Any], *, averaging: bool) -> tuple[str, ...]:
        parts = self._parts(options)
        return (*parts, _AVERAGE) if averaging and _AVERAGE not in parts else parts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned: learning rate and options as well as arrays.

        Raises:
            ValueError: it is from another optimizer, or for other parameters or groups; nothing is
                changed then.
        """
        owner = type(self).__name__
        if state.get("optimizer") != owner:
            raise ValueError(
                f"{owner}: the state is from {state.get('optimizer')!r}; load it into the "
                "optimizer that it was saved from"
            )
        missing = [
            key for key in ("learning_rate", "options", "steps", "arrays") if key not in state
        ]
        if missing:
            raise ValueError(f"{owner}: the state has no {missing[0]!r}; give all that was saved")
        options, arrays = copy.deepcopy(dict(state["options"])), state["arrays"]
        _same_names(owner, "option", options, self._options)
        _same_names(owner, "parameter", state["steps"], self._steps)
        learning_rate = not_negative(owner, "learning_rate", state["learning_rate"])
        groups, initial = self._loaded_groups(state)
        averaged_steps, decay = state.get("averaged_steps"), state.get("average_decay")
        decay = None if decay is None else fraction(owner, "average_decay", decay)
        steps = {name: int(state["steps"][name]) for name in self._steps}
        expected = self.arrays_of(state)
        _same_names(owner, "array", arrays, expected)
        for key, parameter in expected.items():
            array, name = arrays[key], key.rpartition(".")[0]
            if array.shape != parameter.shape or array.dtype != parameter.dtype:
                raise ValueError(
                    f"{owner}: {key!r} in the state is {array.dtype}{array.shape}, but parameter "
                    f"{name!r} is {parameter.dtype}{parameter.shape}; load it together with the "
                    "model "
                    "that it was saved with"
                )
        self._learning_rate, self._initial_learning_rate = learning_rate, initial
        self._groups, self._options, self._steps = groups, options, steps
        self._averaged_steps, self._average_decay = averaged_steps, decay
        parts = self._kept_parts(options, averaging=averaged_steps is not None)
        self._state = {
            name: {part: np.array(arrays[f"{name}.{part}"]) for part in parts}
            for name, count in steps.items()
            if count
        }

    def arrays_of(self, state: Mapping[str, Any]) -> dict[str, Parameter]:
        """The names of the arrays that belong to a state, each with its parameter.

        Those of a parameter that never had a step may be missing if it is frozen now.

        >>> from anaphora.optim import Adagrad
        >>> optimizer = Adagrad([("weight", Parameter([1.0, 2.0]))])
        >>> list(optimizer.arrays_of(optimizer.state_dict()))
        ['weight.square_sum']
        """
        averaging = state.get("averaged_steps") is not None
        return {
            f"{name}.{part}": parameter
            for name, parameter in self._parameters.items()
            for part in self._kept_parts(state["options"], averaging=averaging)
            if state["steps"].get(name)
            or parameter.requires_grad
            or f"{name}.{part}" in state["arrays"]
        }

    def _loaded_groups(self, state: Mapping[str, Any]) -> tuple[list[_Group], float]:
        """The groups of a state and the learning rate that theirs are relative to."""
        owner = type(self).__name__
        if "groups" not in state:
            if self._is_grouped():
                raise ValueError(
                    f"{owner}: the state has no groups, but this optimizer has {len(self._groups)};"
                    " load it into an optimizer with the groups that it was saved from"
                )
            return self._groups, self._initial_learning_rate
        found = [tuple(group["parameters"]) for group in state["groups"]]
        if found != [group.names for group in self._groups]:
            raise ValueError(
                f"{owner}: the groups in the state differ from this optimizer's; "
                "load it into an optimizer with the groups that it was saved from"
            )
        groups = [
            _Group(
                names,
                *(
                    None if group[key] is None else not_negative(owner, key, group[key])
                    for key in ("learning_rate", "weight_decay")
                ),
            )
            for names, group in zip(found, state["groups"], strict=True)
        ]
        initial = not_negative(owner, "initial_learning_rate", state["initial_learning_rate"])
        self._check_groups(groups, initial)
        return groups, initial


def _same_names(
    owner: str, kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    for name in expected:
        if name not in found:
            raise ValueError(
                f"{owner}: the state has no {kind} {name!r}; load it into the optimizer of the "
                "model that it was saved with"
            )
    for name in found:
        if name not in expected:
            raise ValueError(
                f"{owner}: the state has the {kind} {name!r}, which this optimizer does not have; "
                "load it into the optimizer of the model that it was saved with"
            )


# Checking arguments -------------------------------------------------------------------------------

_KEYS = {"params": "parameters", "lr": "learning_rate"}  # PyTorch's names, and ours


def _grouped(
    owner: str, parameters: Parameters | Groups, options: Mapping[str, Any]
) -> tuple[dict[str, Parameter], list[_Group]]:
    """The parameters by name and the groups that hold them."""
    given: Any = parameters
    if isinstance(given, Iterable) and not isinstance(given, (Parameter, str, Mapping)):
        given = list(given)
        if given and all(isinstance(item, Mapping) for item in given):
            return _of_groups(owner, given, options)
    found = named(owner, given)
    return found, [_Group(tuple(found), None, None)]


def _of_groups(
    owner: str, dictionaries: Iterable[Mapping[str, Any]], options: Mapping[str, Any]
) -> tuple[dict[str, Parameter], list[_Group]]:
    groups: list[dict[str, Any]] = []
    pairs: list[tuple[str, Parameter]] = []
    sizes: list[int] = []
    for number, dictionary in enumerate(dictionaries):
        group = {_KEYS.get(key, key): value for key, value in dictionary.items()}
        allowed = ["parameters", "learning_rate"] + ["weight_decay"] * ("weight_decay" in options)
        unknown = [key for key in dictionary if _KEYS.get(key, key) not in allowed]
        if unknown or "parameters" not in group or len(group) < len(dictionary):
            problem = f"has {unknown[0]!r}" if unknown else f"has the keys {list(dictionary)}"
            raise ValueError(
                f"{owner}: group {number} {problem}; a group has 'parameters' and optionally "
                f"{' and '.join(repr(key) for key in allowed[1:])}"
            )
        items = list(named(f"{owner}: group {number}", group["parameters"], len(pairs)).items())
        pairs += items
        sizes.append(len(items))
        groups.append(group)
    found = named(owner, pairs)
    names = iter(found)
    return found, [
        _Group(
            tuple(next(names) for _ in range(size)),
            *(
                not_negative(f"{owner}: group {number}", key, group[key]) if key in group else None
                for key in ("learning_rate", "weight_decay")
            ),
        )
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True))
    ]


def named(owner: str, parameters: Parameters, first: int = 0) -> dict[str, Parameter]:
    """The parameters by name, checked; `owner` begins messages, positions count from `first`."""
    if isinstance(parameters, (Parameter, str)) or not isinstance(parameters, Iterable):
        raise TypeError(
            f"{owner}: expects a list of parameters, not {type(parameters).__name__}; give it "
            "module.parameters() or module.named_parameters()"
        )
    result: dict[str, Parameter] = {}
    names: dict[int, str] = {}
    for position, item in enumerate(parameters, start=first):
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
            raise ValueError(f"{owner}: two parameters are named {name!r}; rename one")
        names[id(parameter)] = name
        result[name] = parameter
    if not result:
        raise ValueError(
            f"{owner}: there are no parameters; if you gave a generator, it was already consumed: "
            "call module.parameters() again"
        )
    return result


def not_negative(owner: str, name: str, value: object) -> float:
    """The value as a float; raises if it is not finite and >= 0."""
    if isinstance(value, numbers.Real) and 0 <= float(value) < math.inf:
        return float(value)
    raise ValueError(f"{owner}: {name} must be a finite number >= 0, not {value!r}")


def fraction(owner: str, name: str, value: object) -> float:
    """The value as a float; raises if it is not 0 <= value < 1."""
    if isinstance(value, numbers.Real) and 0 <= float(value) < 1:
        return float(value)
    raise ValueError(f"{owner}: {name} must be a number >= 0 and < 1, not {value!r}")


def positive(owner: str, name: str, value: object) -> float:
    """The value as a float; raises if it is not > 0. Infinity is allowed."""
    if isinstance(value, numbers.Real) and float(value) > 0:
        return float(value)
    raise ValueError(f"{owner}: {name} must be a number > 0, not {value!r}")
