"""What a cell's equations may say, and how they are traced to a program and its adjoint.

A cell is an ordinary Python function of its gates, states and parameters, written with the
vocabulary of this module: ``+ - * /``, unary minus, numbers, and ``sigmoid tanh relu exp log
softplus abs maximum minimum``. Called with symbols in place of arrays, it leaves a straight-line
`Program`; `adjoint` derives from that program the one that runs it backwards.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Operand: TypeAlias = "int | float"
"""What an instruction reads: an ``int`` is the number of a value, a ``float`` is a constant."""


class EquationError(TypeError):
    """A mistake in a cell's equations, found when the cell is declared."""


# The vocabulary -----------------------------------------------------------------------------------


def _sigmoid(x: Any) -> Any:
    with np.errstate(over="ignore"):  # exp(-x) may reach infinity; 1 / infinity is the right 0
        return 1 / (1 + np.exp(-x))


class Function(NamedTuple):
    """One word of the vocabulary: its values, and its cotangents by the chain rule.

    ``pullback(d, y, *operands)`` gives the cotangent of each operand of ``y = evaluate(*operands)``
    from the cotangent ``d`` of ``y``. It is written in the vocabulary itself, so that it can be
    read with symbols as well as with numbers.
    """

    evaluate: Callable[..., Any]
    pullback: Callable[..., tuple[Any, ...]]
    infix: str | None = None


FUNCTIONS: dict[str, Function] = {
    "add": Function(np.add, lambda d, y, a, b: (d, d), "+"),
    "subtract": Function(np.subtract, lambda d, y, a, b: (d, -d), "-"),
    "multiply": Function(np.multiply, lambda d, y, a, b: (d * b, d * a), "*"),
    "divide": Function(np.true_divide, lambda d, y, a, b: (d / b, -(d * y / b)), "/"),
    "negative": Function(np.negative, lambda d, y, a: (-d,), "-"),
    "sigmoid": Function(_sigmoid, lambda d, y, a: (d * (y * (1 - y)),)),
    "tanh": Function(np.tanh, lambda d, y, a: (d * (1 - y * y),)),
    "relu": Function(lambda x: np.maximum(x, 0), lambda d, y, a: (d * sign(y),)),
    "exp": Function(np.exp, lambda d, y, a: (d * y,)),
    "log": Function(np.log, lambda d, y, a: (d / a,)),
    "softplus": Function(lambda x: np.logaddexp(x, 0), lambda d, y, a: (d * sigmoid(a),)),
    "abs": Function(np.abs, lambda d, y, a: (d * sign(a),)),
    # Where the two operands are equal each of them gets half of the cotangent.
    "maximum": Function(np.maximum, lambda d, y, a, b: _split_by_sign(d, a - b)),
    "minimum": Function(np.minimum, lambda d, y, a, b: _split_by_sign(d, b - a)),
    "sign": Function(np.sign, lambda d, y, a: (0.0,)),
}


def _split_by_sign(d: Any, difference: Any) -> tuple[Any, Any]:
    first = d * (0.5 * sign(difference) + 0.5)
    return first, d - first


def apply(name: str, *operands: Any) -> Any:
    """Apply one word of the vocabulary to arrays, Tensors or symbols, as the operands ask for.

    Objects other than NumPy's say what a word means to them by a method ``__equation__(name,
    *operands)``.
    """
    for operand in operands:
        if hasattr(operand, "__equation__"):
            return operand.__equation__(name, *operands)
    return FUNCTIONS[name].evaluate(*operands)


def sigmoid(x: Any) -> Any:
    """The logistic function ``1 / (1 + exp(-x))``.

    >>> float(sigmoid(0.0))
    0.5
    """
    return apply("sigmoid", x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return apply("tanh", x)


def relu(x: Any) -> Any:
    """The rectifier ``max(x, 0)``; its derivative at 0 is 0."""
    return apply("relu", x)


def exp(x: Any) -> Any:
    """The exponential function."""
    return apply("exp", x)


def log(x: Any) -> Any:
    """The natural logarithm."""
    return apply("log", x)


def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``, computed without overflow."""
    return apply("softplus", x)


def abs(x: Any) -> Any:
    """The absolute value; its derivative at 0 is 0."""
    return apply("abs", x)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values; where they are equal, each gets half of the gradient."""
    return apply("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values; where they are equal, each gets half of the gradient."""
    return apply("minimum", a, b)


def sign(x: Any) -> Any:
    """-1, 0 or 1: what the derivatives of `relu`, `abs`, `maximum` and `minimum` are made of."""
    return apply("sign", x)


VOCABULARY = "+ - * /, numbers, sigmoid tanh relu exp log softplus abs maximum minimum"


# Programs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instruction:
    """``value = function(*operands)``: one step of a straight-line program."""

    function: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Program:
    """A straight-line program over arrays of one shape.

    Values are numbered in the order in which they come into being: the inputs first, then one for
    each instruction. ``names`` holds a name for every value, ``outputs`` what the program returns
    and ``output_names`` what it calls them.
    """

    inputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[Operand, ...]
    output_names: tuple[str, ...]
    names: tuple[str, ...]

    def values(self, inputs: Sequence[Array]) -> list[Array]:
        """Run the program on NumPy arrays; return every value, the inputs first."""
        values = list(inputs)
        for instruction in self.instructions:
            operands = [values[o] if type(o) is int else o for o in instruction.operands]
            values.append(FUNCTIONS[instruction.function].evaluate(*operands))
        return values

    def results(self, values: Sequence[Array]) -> list[Any]:
        """Pick the outputs from what `values` returned; constants come as plain numbers."""
        return [values[o] if type(o) is int else o for o in self.outputs]

    def reads(self) -> set[int]:
        """The numbers of the values that an instruction or an output reads."""
        operands = itertools.chain(self.outputs, *(i.operands for i in self.instructions))
        return {o for o in operands if type(o) is int}

    def lines(self) -> list[str]:
        """The program as text, an instruction a line, then what it returns."""

        def show(operand: Operand) -> str:
            return self.names[operand] if type(operand) is int else f"{operand:g}"

        lines = []
        for number, instruction in enumerate(self.instructions, start=len(self.inputs)):
            operands = [show(o) for o in instruction.operands]
            infix = FUNCTIONS[instruction.function].infix
            if infix:
                right = f" {infix} ".join(operands) if len(operands) > 1 else infix + operands[0]
            else:
                right = f"{instruction.function}({', '.join(operands)})"
            lines.append(f"{self.names[number]} = {right}")
        returned = (f"{n}: {show(o)}" for n, o in zip(self.output_names, self.outputs, strict=True))
        lines.append(f"return {', '.join(returned)}")
        return lines


class _Builder:
    """Collects instructions; the same instruction asked for twice is the same value."""

    def __init__(self, inputs: Iterable[str], unnamed: str = "t") -> None:
        self.names: list[str | None] = list(inputs)
        self.unnamed = unnamed  # what values without a name are called, with a number
        self.input_count = len(self.names)
        self.instructions: list[Instruction] = []
        # By their text, for which the value number 2 and the constant 2.0 are not the same.
        self._known: dict[str, int] = {}

    def symbol(self, operand: Operand) -> Symbol | float:
        return Symbol(self, operand) if type(operand) is int else operand

    def emit(self, function: str, *arguments: Any) -> Any:
        operands = tuple(self._operand(function, argument) for argument in arguments)
        if not any(type(o) is int for o in operands):  # constants only: fold
            return float(FUNCTIONS[function].evaluate(*operands))
        for kept, neutral in _neutral(function, operands):
            if type(neutral) is float and neutral == _NEUTRAL[function]:
                return self.symbol(kept)
        instruction = Instruction(function, operands)
        if repr(instruction) not in self._known:
            self._known[repr(instruction)] = len(self.names)
            self.instructions.append(instruction)
            self.names.append(None)
        return Symbol(self, self._known[repr(instruction)])

    def _operand(self, function: str, argument: Any) -> Operand:
        if isinstance(argument, Symbol):
            return argument.number
        if isinstance(argument, (int, float, np.integer, np.floating)):
            return float(argument)
        raise EquationError(
            f"{function} got {argument!r} of type {type(argument).__name__}; "
            "the equations of a cell work on gates, states, parameters and numbers"
        )

    def program(
        self, outputs: Sequence[Operand], output_names: Sequence[str], keep: Iterable[int] = ()
    ) -> tuple[Program, dict[int, int]]:
        """The program that computes `outputs`, without what it does not need.

        Inputs that are not read go too, except those in `keep`. Also returns the new number of
        each value that stayed, by its old one, in their order.
        """
        needed = {o for o in outputs if type(o) is int} | set(keep)
        for number in range(len(self.names) - 1, self.input_count - 1, -1):
            if number in needed:
                operands = self.instructions[number - self.input_count].operands
                needed.update(o for o in operands if type(o) is int)
        old = sorted(needed)
        new = {number: position for position, number in enumerate(old)}

        def renumber(operands: Sequence[Operand]) -> tuple[Operand, ...]:
            return tuple(new[o] if type(o) is int else o for o in operands)

        inputs = sum(number < self.input_count for number in old)
        names = _unique_names([self.names[number] for number in old], self.unnamed)
        program = Program(
            inputs=tuple(names[:inputs]),
            instructions=tuple(
                Instruction(i.function, renumber(i.operands))
                for i in (self.instructions[n - self.input_count] for n in old[inputs:])
            ),
            outputs=renumber(outputs),
            output_names=tuple(output_names),
            names=tuple(names),
        )
        return program, new


_NEUTRAL = {"add": 0.0, "subtract": 0.0, "multiply": 1.0, "divide": 1.0}


def _neutral(function: str, operands: tuple[Operand, ...]) -> list[tuple[Operand, Operand]]:
    """The pairs (operand, other) in which the operand is the result if the other is neutral."""
    if function not in _NEUTRAL:
        return []
    a, b = operands
    return [(a, b), (b, a)] if function in ("add", "multiply") else [(a, b)]


def _unique_names(names: Sequence[str | None], unnamed: str) -> list[str]:
    """A name for every value: a name given again gets a prime, a value without one a number."""
    taken: set[str] = set()
    numbers = itertools.count(1)
    unique = []
    for name in names:
        name = f"{unnamed}{next(numbers)}" if name is None else name
        while name in taken:
            name += "'"
        taken.add(name)
        unique.append(name)
    return unique


# Symbols ------------------------------------------------------------------------------------------

_STRAIGHT_LINE = (
    "a cell's equations are a straight line, so they cannot ask which of two values is larger "
    "(if, while, and, or, <, ==, max, min): use maximum, minimum, relu or abs, or declare the "
    "cell with fused=False to have it run step by step on the tape"
)


class Symbol:
    """A value that is not known yet: what the equations get when they are traced."""

    __slots__ = ("builder", "number")

    def __init__(self, builder: _Builder, number: int) -> None:
        self.builder = builder
        self.number = number

    def __equation__(self, name: str, *operands: Any) -> Any:
        return self.builder.emit(name, *operands)

    def __add__(self, other: Any) -> Any:
        return self.builder.emit("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self.builder.emit("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self.builder.emit("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.builder.emit("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return self.builder.emit("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.builder.emit("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self.builder.emit("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.builder.emit("divide", other, self)

    def __neg__(self) -> Any:
        return self.builder.emit("negative", self)

    def __abs__(self) -> Any:
        return self.builder.emit("abs", self)

    def __pow__(self, other: Any) -> Any:
        raise EquationError("** is not in a cell's vocabulary: write x * x, or exp(p * log(x))")

    def __matmul__(self, other: Any) -> Any:
        raise EquationError(
            "a cell's equations are elementwise: its matrix products are its gates, so declare "
            "another gate instead of @"
        )

    __rpow__ = __pow__
    __rmatmul__ = __matmul__

    def __bool__(self) -> bool:
        raise EquationError(_STRAIGHT_LINE)

    def _compare(self, other: Any) -> bool:
        raise EquationError(_STRAIGHT_LINE)

    __lt__ = __le__ = __gt__ = __ge__ = _compare
    __eq__ = __ne__ = _compare
    __hash__ = object.__hash__

    def __float__(self) -> float:
        raise EquationError(
            "a function of Python's math module does not work on a whole gate: "
            f"the vocabulary is {VOCABULARY}"
        )

    __int__ = __index__ = __float__

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__
        infix = name in FUNCTIONS and FUNCTIONS[name].infix
        if infix and method == "__call__":  # a NumPy number on the left of + - * /
            return self.builder.emit(name, *args)
        known = name in FUNCTIONS and not infix
        hint = f"write {name} of anaphora.equations instead; " if known else ""
        raise EquationError(
            f"numpy.{name} is not in a cell's vocabulary: {hint}the vocabulary is {VOCABULARY}"
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise EquationError(
            "a function of NumPy or anaphora.ops does not work on what stands for a whole gate: "
            f"the vocabulary is {VOCABULARY}, all of them in anaphora.equations"
        )

    @property
    def x(self) -> Symbol:
        """The input half of a gate; other values have none."""
        raise EquationError("only a gate has the halves .x and .h; this value is not a gate")

    h = x


class _GateSymbol(Symbol):
    """A gate's pre-activation: whole, or its input half ``.x`` and recurrent half ``.h``."""

    __slots__ = ("_h", "_x")

    def __init__(self, builder: _Builder, whole: int, x: int, h: int) -> None:
        super().__init__(builder, whole)
        self._x = Symbol(builder, x)
        self._h = Symbol(builder, h)

    @property
    def x(self) -> Symbol:
        return self._x

    @property
    def h(self) -> Symbol:
        return self._h


# Tracing ------------------------------------------------------------------------------------------


class GateInput(NamedTuple):
    """Where a gate that a program reads comes from.

    Attributes:
        x: Its place among the blocks of ``H`` input halves, or None if it has no input half.
        h: Its place among the blocks of ``H`` recurrent halves, or None.

    A gate with both is read whole: the sum of the two.
    """

    x: int | None
    h: int | None


@dataclass(frozen=True)
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
    """
    halves = itertools.chain(*((gate, f"{gate}.x", f"{gate}.h") for gate in gates))
    builder = _Builder([*halves, *states, *parameters])
    arguments: list[Symbol] = [
        _GateSymbol(builder, n, n + 1, n + 2) for n in range(0, 3 * len(gates), 3)
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
    equations: Callable[..., Any], arguments: Sequence[Symbol], builder: _Builder
) -> tuple[Any, dict[str, int]]:
    """Call the equations; name each value after the variable that the author put it into.

    Returns what they return, and the number of the value that each variable holds at the end.
    """
    code = getattr(equations, "__code__", None)
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
    returned: Any, states: Sequence[str], variables: Mapping[str, int], builder: _Builder
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
    gates: Sequence[str], parameters: Sequence[str], read: set[int], builder: _Builder
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


# The adjoint --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adjoint:
    """A program run backwards.

    The program's inputs are the forward values numbered in ``saved``, then the cotangents of the
    forward outputs; its outputs are the cotangents of all forward inputs.
    """

    program: Program
    saved: tuple[int, ...]


def adjoint(program: Program) -> Adjoint:
    """Derive the program that takes cotangents of the outputs to cotangents of the inputs.

    >>> def rnn(a, h):
    ...     return tanh(a)
    >>> for line in adjoint(trace(rnn, gates=["a"], states=["h"]).program).program.lines():
    ...     print(line)
    u1 = h' * h'
    u2 = 1 - u1
    d(a) = d(h') * u2
    return d(a): d(a), d(h): 0
    """
    count = len(program.names)
    cotangent_names = [f"d({_output_name(program, k)})" for k in range(len(program.outputs))]
    builder = _Builder([*program.names, *cotangent_names], unnamed="u")
    cotangents: dict[int, Symbol] = {}

    def accumulate(number: Operand, cotangent: Any) -> None:
        # A constant has no cotangent, and one that is constant is the 0 of sign().
        if type(number) is int and isinstance(cotangent, Symbol):
            cotangents[number] = (
                cotangents[number] + cotangent if number in cotangents else cotangent
            )

    for number, output in enumerate(program.outputs, start=count):
        accumulate(output, Symbol(builder, number))
    for number in range(count - 1, -1, -1):
        if number not in cotangents:
            continue
        d = cotangents[number]
        if builder.names[d.number] is None:
            builder.names[d.number] = f"d({program.names[number]})"
        if number < len(program.inputs):
            continue
        instruction = program.instructions[number - len(program.inputs)]
        operands = [builder.symbol(o) for o in instruction.operands]
        pullback = FUNCTIONS[instruction.function].pullback
        pulled = pullback(d, Symbol(builder, number), *operands)
        for operand, cotangent in zip(instruction.operands, pulled, strict=True):
            accumulate(operand, cotangent)

    backward, new = builder.program(
        outputs=[
            cotangents[number].number if number in cotangents else 0.0
            for number in range(len(program.inputs))
        ],
        output_names=[f"d({name})" for name in program.inputs],
        keep=range(count, count + len(program.outputs)),
    )
    return Adjoint(backward, tuple(number for number in new if number < count))


def _output_name(program: Program, k: int) -> str:
    output = program.outputs[k]
    return program.names[output] if type(output) is int else program.output_names[k]
