"""Symbols: what equations are called with instead of arrays, to record a program."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from anaphora.equations.program import Array, Instruction, Operand, Program
from anaphora.equations.vocabulary import FUNCTIONS, VOCABULARY


class EquationError(TypeError):
    """A mistake in a cell's equations, found when the cell is declared."""


class Builder:
    """Collects instructions; the same instruction emitted twice is one value."""

    def __init__(self, inputs: Iterable[str], unnamed: str = "t") -> None:
        self.names: list[str | None] = list(inputs)
        self.unnamed = unnamed  # prefix of the names of unnamed values
        self.input_count = len(self.names)
        self.instructions: list[Instruction] = []
        # Keyed by text, which distinguishes the value number 2 from the constant 2.0.
        self._known: dict[str, int] = {}

    def symbol(self, operand: Operand) -> Symbol | float:
        """The operand as equations see it."""
        return Symbol(self, operand) if type(operand) is int else operand

    def emit(self, function: str, *arguments: Any) -> Any:
        """Add an instruction; return its value as a symbol, or a number if it is constant."""
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
        """The program that computes `outputs`, without unused instructions.

        Unused inputs are removed too, except those in `keep`. Also returns a dict from the old to
        the new number of each remaining value, in order.
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
    """The pairs (operand, other) where the operand is the result if the other is neutral."""
    if function not in _NEUTRAL:
        return []
    a, b = operands
    return [(a, b), (b, a)] if function in ("add", "multiply") else [(a, b)]


def _unique_names(names: Sequence[str | None], unnamed: str) -> list[str]:
    """A unique name for every value: duplicates get a prime, unnamed values a number."""
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


_STRAIGHT_LINE = (
    "a cell's equations are a straight line, so they cannot ask which of two values is larger "
    "(if, while, and, or, <, ==, max, min): use maximum, minimum, relu or abs, or declare the "
    "cell with fused=False to have it run step by step on the tape"
)


class Symbol:
    """A symbolic value, with which the equations are called when they are traced.

    >>> builder = Builder(["a"])
    >>> y = 2 * Symbol(builder, 0) + 1
    >>> for instruction in builder.instructions:
    ...     print(instruction)
    Instruction(function='multiply', operands=(2.0, 0))
    Instruction(function='add', operands=(1, 1.0))
    """

    __slots__ = ("builder", "number")

    def __init__(self, builder: Builder, number: int) -> None:
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
            "a function of Python's math module does not work on a gate, which is an array: "
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
            "a function of NumPy or anaphora.ops does not work on a symbol of a gate: "
            f"the vocabulary is {VOCABULARY}, all of them in anaphora.equations"
        )

    @property
    def x(self) -> Symbol:
        """The input half of a gate; other values have none."""
        raise EquationError("only a gate has the halves .x and .h; this value is not a gate")

    h = x


class GateSymbol(Symbol):
    """A gate's pre-activation: the sum, or its input half ``.x`` and recurrent half ``.h``."""

    __slots__ = ("_h", "_x")

    def __init__(self, builder: Builder, total: int, x: int, h: int) -> None:
        super().__init__(builder, total)
        self._x = Symbol(builder, x)
        self._h = Symbol(builder, h)

    @property
    def x(self) -> Symbol:
        """The input half."""
        return self._x

    @property
    def h(self) -> Symbol:
        """The recurrent half."""
        return self._h
