"""Tracing: turns a cell's equations into a program."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

from anaphora.equations.differentiation import Adjoint, adjoint
from anaphora.equations.program import Operand, Program
from anaphora.equations.symbols import Builder, EquationError, GateSymbol, Symbol
from anaphora.equations.vocabulary import VOCABULARY


class GateInput(NamedTuple):
    """The source of a gate that a program reads.

    Attributes:
        x: The index of its block of ``H`` input halves, or None if it has no input half.
        h: The index of its block of ``H`` recurrent halves, or None.

    A gate with both is the sum of the two.

    >>> def reset(r, n, h):
    ...     return n.x + r * n.h
    >>> trace(reset, gates=["r", "n"], states=["h"]).gate_inputs
    (GateInput(x=0, h=0), GateInput(x=1, h=None), GateInput(x=None, h=1))
    """

    x: int | None
    h: int | None


@dataclass(frozen=True, eq=False)
class Trace:
    """A traced cell, as the engine needs it.

    Attributes:
        program: One step forward. Its inputs are the gates in order, each as a sum (``i``) or as
            the halves that the equations use (``n.x``, ``n.h``), then the states, then the
            parameters; it returns the states.
        gate_inputs: The source of each gate among the program's inputs.
        states: The number of states.
        named: The number of the value that each variable of the equations holds at the end of a
            step, except the parameters.

    >>> def leaky(f, h):
    ...     return f * h
    >>> traced = trace(leaky, gates=["f"], states=["h"])
    >>> traced.program.inputs, traced.states, traced.named
    (('f', 'h'), 1, {'f': 0, 'h': 2})
    """

    program: Program
    gate_inputs: tuple[GateInput, ...]
    states: int
    named: Mapping[str, int]

    @functools.cached_property
    def adjoint(self) -> Adjoint:
        """One step backward."""
        return adjoint(self.program)


def trace(
    equations: Callable[..., Any],
    gates: Sequence[str],
    states: Sequence[str],
    parameters: Sequence[str] = (),
) -> Trace:
    """Trace a cell's equations by calling them with symbols.

    Raises:
        EquationError: the equations use something outside the vocabulary, do not use a gate, a
            state or a parameter, or do not return the states.

    >>> def leaky(f, h):
    ...     return f * h
    >>> trace(leaky, gates=["f"], states=["h"]).program.lines()
    ["h' = f * h", "return h: h'"]
    """
    halves = itertools.chain(*((gate, f"{gate}.x", f"{gate}.h") for gate in gates))
    builder = Builder([*halves, *states, *parameters])
    arguments: list[Symbol] = [
        GateSymbol(builder, n, n + 1, n + 2) for n in range(0, 3 * len(gates), 3)
    ]
    arguments += [Symbol(builder, n) for n in range(3 * len(gates), builder.input_count)]

    returned, variables = _call_watching_names(equations, arguments, builder)
    outputs = _returned_states(returned, states, variables, builder)
    keep = range(3 * len(gates), builder.input_count)  # unused states and parameters stay
    program, new = builder.program(outputs, states, keep)

    read = program.reads()
    _check_use(gates, parameters, {old for old in new if new[old] in read}, builder)
    named = {
        name: new[number]
        for name, number in variables.items()
        if number in new and name not in parameters
    }
    named |= {s: o for s, o in zip(states, program.outputs, strict=True) if type(o) is int}
    return Trace(program, _gate_inputs(gates, program.inputs), len(states), named)


def _gate_inputs(gates: Sequence[str], inputs: Sequence[str]) -> tuple[GateInput, ...]:
    with_x = [gate for gate in gates if gate in inputs or f"{gate}.x" in inputs]
    with_h = [gate for gate in gates if gate in inputs or f"{gate}.h" in inputs]
    found = []
    for gate in gates:
        if gate in inputs:
            found.append(GateInput(with_x.index(gate), with_h.index(gate)))
        if f"{gate}.x" in inputs:
            found.append(GateInput(with_x.index(gate), None))
        if f"{gate}.h" in inputs:
            found.append(GateInput(None, with_h.index(gate)))
    return tuple(found)


def _call_watching_names(
    equations: Callable[..., Any], arguments: Sequence[Symbol], builder: Builder
) -> tuple[Any, dict[str, int]]:
    """Call the equations, and name each value after the variable that it is assigned to.

    Returns their result, and the number of the value that each variable holds at the end.
    """
    code = getattr(inspect.unwrap(equations), "__code__", None)
    variables: dict[str, int] = {}

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is not code:
            return None
        values = frame.f_locals.items()
        variables.clear()
        variables.update({n: value.number for n, value in values if isinstance(value, Symbol)})
        for name, number in variables.items():
            if builder.names[number] is None:
                builder.names[number] = name
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        return equations(*arguments), variables
    except EquationError:
        raise
    except Exception as error:
        if type(error) is NameError:
            raise EquationError(
                f"{error.name!r} is not defined in the equations' module: the vocabulary is "
                f"{VOCABULARY}, all of them in anaphora.equations"
            ) from error
        raise EquationError(
            f"the equations failed with {type(error).__name__}: {error}; they are called once with "
            f"symbols instead of arrays, and the vocabulary is {VOCABULARY}"
        ) from error
    finally:
        sys.settrace(before)


def _returned_states(
    returned: Any, states: Sequence[str], variables: Mapping[str, int], builder: Builder
) -> list[Operand]:
    """Check that the equations return every state, in order; name unnamed ones."""
    values = returned if isinstance(returned, tuple) else (returned,)
    expected = f"return {', '.join(states)}"
    if returned is None:
        raise EquationError(f"the equations return nothing: end them with '{expected}'")
    if len(values) != len(states):
        raise EquationError(
            f"the equations return {len(values)} of the {len(states)} states {', '.join(states)}: "
            f"end them with '{expected}'"
        )
    outputs: list[Operand] = []
    for state, value in zip(states, values, strict=True):
        if not isinstance(value, Symbol):
            raise EquationError(
                f"the equations return {value!r} for the state {state!r}, which depends on no "
                f"gate and no state: end them with '{expected}'"
            )
        number = value.number
        computed = number >= builder.input_count  # a previous state may be returned for any other
        names = [name for name in states if computed and variables.get(name) == number]
        if names and state not in names:
            raise EquationError(
                f"the equations return {names[0]!r} in place of {state!r}: states are returned in "
                f"the declared order, '{expected}'"
            )
        if builder.names[number] is None:
            builder.names[number] = state
        outputs.append(number)
    return outputs


def _check_use(
    gates: Sequence[str], parameters: Sequence[str], read: set[int], builder: Builder
) -> None:
    for number, gate in enumerate(gates):
        total, x, h = (3 * number + k in read for k in range(3))
        if total and (x or h):
            raise EquationError(
                f"gate {gate!r} is used both as a sum and by its halves: write the sum as "
                f"{gate}.x + {gate}.h"
            )
        if not (total or x or h):
            raise EquationError(f"gate {gate!r} is not used: use it, or remove it from gates=")
    for number, name in enumerate(parameters, start=builder.input_count - len(parameters)):
        if number not in read:
            raise EquationError(
                f"parameter {name!r} is not used: use it, or remove it from parameters="
            )
