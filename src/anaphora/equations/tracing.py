"""Tracing: from a cell's equations to its program."""

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
    """Where a gate that a program reads comes from.

    Attributes:
        x: Its place among the blocks of ``H`` input halves, or None if it has no input half.
        h: Its place among the blocks of ``H`` recurrent halves, or None.

    A gate with both is read whole: the sum of the two.

    >>> def reset(r, n, h):
    ...     return n.x + r * n.h
    >>> trace(reset, gates=["r", "n"], states=["h"]).gate_inputs
    (GateInput(x=0, h=0), GateInput(x=1, h=None), GateInput(x=None, h=1))
    """

    x: int | None
    h: int | None


@dataclass(frozen=True, eq=False)
class Trace:
    """All that the engine needs to know of a cell.

    Attributes:
        program: One step forward. Its inputs are the gates in their order, each whole (``i``) or
            in the halves that the equations use (``n.x``, ``n.h``), then the states, then the
            parameters; it returns the states.
        gate_inputs: For each gate among the program's inputs, where it comes from.
        states: The number of states.
        named: The value that each of the author's names stands for at the end of a step, except
            the parameters.

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
    """Read a cell's equations with symbols.

    Raises:
        EquationError: the equations use something outside the vocabulary, leave a gate, a state or
            a parameter out, or do not return the states.

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
    keep = range(3 * len(gates), builder.input_count)  # states and parameters keep their places
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
    """Call the equations; name each value after the variable that the author put it into.

    Returns what they return, and the number of the value that each variable holds at the end.
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
                f"{error.name!r} is not defined where the equations stand: the vocabulary is "
                f"{VOCABULARY}, all of them in anaphora.equations"
            ) from error
        raise EquationError(
            f"the equations stopped with {type(error).__name__}: {error}; they are read once with "
            f"symbols in place of arrays, and the vocabulary is {VOCABULARY}"
        ) from error
    finally:
        sys.settrace(before)


def _returned_states(
    returned: Any, states: Sequence[str], variables: Mapping[str, int], builder: Builder
) -> list[Operand]:
    """Check that the equations return every state, in order; give an unnamed one its name."""
    values = returned if isinstance(returned, tuple) else (returned,)
    wanted = f"return {', '.join(states)}"
    if returned is None:
        raise EquationError(f"the equations return nothing: end them with '{wanted}'")
    if len(values) != len(states):
        raise EquationError(
            f"the equations return {len(values)} of the {len(states)} states {', '.join(states)}: "
            f"end them with '{wanted}'"
        )
    outputs: list[Operand] = []
    for state, value in zip(states, values, strict=True):
        if not isinstance(value, Symbol):
            raise EquationError(
                f"the equations return {value!r} for the state {state!r}, which depends on no "
                f"gate and no state: end them with '{wanted}'"
            )
        number = value.number
        computed = number >= builder.input_count  # a state before the step may go anywhere
        names = [name for name in states if computed and variables.get(name) == number]
        if names and state not in names:
            raise EquationError(
                f"the equations return {names[0]!r} in the place of {state!r}: the states are "
                f"returned in the order in which they were declared, '{wanted}'"
            )
        if builder.names[number] is None:
            builder.names[number] = state
        outputs.append(number)
    return outputs


def _check_use(
    gates: Sequence[str], parameters: Sequence[str], read: set[int], builder: Builder
) -> None:
    for number, gate in enumerate(gates):
        whole, x, h = (3 * number + k in read for k in range(3))
        if whole and (x or h):
            raise EquationError(
                f"gate {gate!r} is used both whole and by its halves: for the whole of it write "
                f"{gate}.x + {gate}.h"
            )
        if not (whole or x or h):
            raise EquationError(f"gate {gate!r} is not used: use it, or leave it out of gates=")
    for number, name in enumerate(parameters, start=builder.input_count - len(parameters)):
        if number not in read:
            raise EquationError(
                f"parameter {name!r} is not used: use it, or leave it out of parameters="
            )
