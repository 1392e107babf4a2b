"""Straight-line programs of elementwise instructions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from anaphora.equations.vocabulary import FUNCTIONS, OPERANDS

Array: TypeAlias = NDArray[Any]
Operand: TypeAlias = "int | float"
"""An operand of an instruction: an ``int`` is the number of a value, a ``float`` a constant."""


@dataclass(frozen=True)
class Instruction:
    """``value = function(*operands)``: one step of a straight-line program.

    >>> Instruction("multiply", (0, 2.0))  # the value number 0, times 2
    Instruction(function='multiply', operands=(0, 2.0))
    """

    function: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, repr=False)
class Program:
    """A straight-line program over arrays of one shape.

    Values are numbered in the order of their computation: the inputs first, then one for each
    instruction. ``names`` names every value, ``outputs`` are the returned operands and
    ``output_names`` their names.

    Raises:
        ValueError: an instruction's function is not in the vocabulary or has the wrong number of
            operands, an operand or output is neither an earlier value nor a ``float``, or the
            number of names is wrong.

    >>> twice = Program(("a",), (Instruction("multiply", (0, 2.0)),), (1,), ("y",), ("a", "y"))
    >>> twice.lines()
    ['y = a * 2', 'return y: y']
    >>> [float(y) for y in twice.results(twice.values([3.0]))]
    [6.0]
    >>> twice
    Program(a -> y, 1 instruction)
    """

    inputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[Operand, ...]
    output_names: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for number, instruction in enumerate(self.instructions):
            expected = OPERANDS.get(instruction.function)
            if len(instruction.operands) != expected:
                raise ValueError(
                    f"program: instruction {number} is {instruction.function!r} of "
                    f"{len(instruction.operands)} operands; "
                    + (f"it takes {expected}" if expected else f"known are {', '.join(OPERANDS)}")
                )
            self._check(f"instruction {number} reads", instruction.operands, number)
        self._check("an output is", self.outputs, len(self.instructions))
        values = len(self.inputs) + len(self.instructions)
        if len(self.names) != values or len(self.output_names) != len(self.outputs):
            raise ValueError(
                f"program: {len(self.names)} names and {len(self.output_names)} output_names; "
                f"expected {values} and {len(self.outputs)}, one for each value and output"
            )

    def _check(self, what: str, operands: tuple[Operand, ...], instructions: int) -> None:
        """Check that operands exist after a number of instructions."""
        known = len(self.inputs) + instructions
        for operand in operands:
            if type(operand) is not float and not (type(operand) is int and 0 <= operand < known):
                raise ValueError(
                    f"program: {what} {operand!r}; expected a float, or an int in 0..{known - 1}, "
                    "the number of an earlier value"
                )

    def values(self, inputs: Sequence[Array]) -> list[Array]:
        """Run the program on NumPy arrays; return every value, the inputs first."""
        values = list(inputs)
        for instruction in self.instructions:
            operands = [values[o] if type(o) is int else o for o in instruction.operands]
            values.append(FUNCTIONS[instruction.function].evaluate(*operands))
        return values

    def results(self, values: Sequence[Array]) -> list[Any]:
        """The outputs among what `values` returned; constants are plain numbers."""
        return [values[o] if type(o) is int else o for o in self.outputs]

    def reads(self) -> set[int]:
        """The numbers of the values that an instruction or an output reads."""
        operands = itertools.chain(self.outputs, *(i.operands for i in self.instructions))
        return {o for o in operands if type(o) is int}

    def lines(self) -> list[str]:
        """The program as text: one instruction per line, then the outputs."""

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

    def __repr__(self) -> str:
        count = len(self.instructions)
        return (
            f"Program({', '.join(self.inputs)} -> {', '.join(self.output_names)}, "
            f"{count} instruction{'' if count == 1 else 's'})"
        )
