"""The parts of a cell, gates and operations, and its equations, from its traced program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from anaphora.cells import Cell
from anaphora.equations import Operand, Program
from anaphora.plot.diagram import Span, Text, subscripted

_FUNCTIONS = {"sigmoid": "σ", "negative": "−", "abs": "abs"}
SYMBOLS = {
    "add": "+",
    "subtract": "−",
    "multiply": "×",
    "divide": "÷",
    "maximum": "max",
    "minimum": "min",
}
_COMMUTATIVE = ("add", "multiply", "maximum", "minimum")
_INFIX = {"add": ("+", 1), "subtract": ("−", 1), "multiply": ("⊙", 2), "divide": ("/", 2)}
_ATOM, _NEGATIVE = 4, 3

Spans = tuple[Span, ...]


class Part(NamedTuple):
    """A gate or an operation of a cell.

    Attributes:
        kind: "gate": a product with weights and its function; "function": of one value;
            "operation": of two.
        label: Its symbol, such as σ or +.
        name: The author's name of its value, or "".
        function: The function's name in the vocabulary; of a gate without one, "".
        operands: The numbers of the values that it reads; a gate has none.
        reads: What a gate multiplies by weights: "x", "h" or both.

    >>> Part("operation", "+", "c", "add", (3, 4), "").operands
    (3, 4)
    """

    kind: str
    label: Text
    name: str
    function: str
    operands: tuple[int, ...]
    reads: str


class CellGraph:
    """A cell's program as parts: what only weights and constants enter is folded into labels.

    Attributes:
        parts: By the number of the value in the program, in its order.
        states: The name of each previous state, by the number of its value.
        outputs: The number of the value of each new state, by its name.

    >>> from anaphora.cells import lstm
    >>> [part.label for part in CellGraph(lstm).parts.values()]
    ['σ', 'σ', 'tanh', 'σ', '×', '×', '+', 'tanh', '×']
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.program: Program = cell.program
        inputs, named = self.program.inputs, set(cell.trace.named.values())
        self.outputs = dict(zip(cell.states, map(int, self.program.outputs), strict=True))
        self.states = {n: name for n, name in enumerate(inputs) if name in cell.states}
        self._names = {n: self._name(n, n in named) for n in range(len(self.program.names))}
        self._weights = {n for n, name in enumerate(inputs) if name in cell.parameters}
        for number, instruction in self._instructions():
            if not any(self._is_variable(o) for o in instruction.operands):
                self._weights.add(number)
        self._gates = {
            n: name
            for n, name in enumerate(inputs)
            if n not in self.states and n not in self._weights
        }
        self.parts: dict[int, Part] = {}
        self._fill()

    def _instructions(self) -> Iterator[tuple[int, Any]]:
        return enumerate(self.program.instructions, start=len(self.program.inputs))

    def _is_variable(self, operand: Operand) -> bool:
        return type(operand) is int and operand not in self._weights

    def _name(self, number: int, is_named: bool) -> str:
        """The author's name of a value, or "" if it has none."""
        name = self.program.names[number]
        if not is_named and re.fullmatch(r"t\d+'*", name):
            return ""
        base = name.rstrip("'")
        is_before = number >= len(self.program.inputs) and number not in self.outputs.values()
        return f"{base}′" if is_before and base in self.cell.states else base

    def _fill(self) -> None:
        readers: dict[int, list[int]] = {}
        for number, instruction in self._instructions():
            for operand in instruction.operands:
                if type(operand) is int:
                    readers.setdefault(operand, []).append(number)
        merged: dict[int, int] = {}  # the value of a gate's function, by the gate's
        for gate in self._gates:
            by = readers.get(gate, [])
            if len(by) == 1 and gate not in self.outputs.values():
                instruction = self.program.instructions[by[0] - len(self.program.inputs)]
                if len(instruction.operands) == 1 and instruction.function != "negative":
                    merged[by[0]] = gate
        for number, name in self._gates.items():
            if number not in merged.values():
                self.parts[number] = Part("gate", "", name, "", (), self._reads(name))
        for number, instruction in self._instructions():
            if number in self._weights:
                continue
            function, operands = instruction.function, instruction.operands
            if number in merged:
                before = self._gates[merged[number]]
                is_output = number in self.outputs.values()
                name = before if is_output else self._names[number] or before
                label = _FUNCTIONS.get(function, function)
                self.parts[number] = Part("gate", label, name, function, (), self._reads(before))
                continue
            variables = tuple(o for o in operands if self._is_variable(o))
            is_binary = len(variables) == 2
            symbol = SYMBOLS[function] if is_binary else self._label(function, operands)
            kind = "operation" if is_binary else "function"
            self.parts[number] = Part(kind, symbol, self._names[number], function, variables, "")

        for number in self._weights.intersection(self.outputs.values()):
            self.parts[number] = Part("function", self.expression(number, 0, False), "", "", (), "")

    def _reads(self, gate: str) -> str:
        _name, _, half = gate.partition(".")
        return half or "xh"

    def _label(self, function: str, operands: Sequence[Operand]) -> Text:
        """The label of what is computed from one value, with its constants and weights."""
        if len(operands) == 1:
            return _FUNCTIONS.get(function, function)
        symbol = Span(SYMBOLS[function])
        is_second = self._is_variable(operands[0])
        weights = self.expression(operands[1 if is_second else 0], outer=2)
        if is_second or function in _COMMUTATIVE:
            return (symbol, Span(" "), *weights)
        return (*weights, Span(" "), symbol)

    # Equations

    def equations(self) -> list[Spans]:
        """The equations, one for each named value; unnamed ones are written where they are used.

        >>> from anaphora.cells import rnn
        >>> from anaphora.plot.diagram import plain
        >>> plain(CellGraph(rnn).equations()[0])
        'h_t = tanh(W_a x_t + U_a h_t−1 + b_a)'
        """
        lines: list[Spans] = []
        for number in range(len(self.program.inputs), len(self.program.names)):
            if self._is_written(number):
                left = self._left(number)
                lines.append((*left, Span(" = "), *self.expression(number, is_inner=False)))
        for state, number in self.outputs.items():
            if number < len(self.program.inputs):
                left = subscripted(state, "t")
                lines.append((*left, Span(" = "), *self.expression(number)))
        return lines

    def _is_written(self, number: int) -> bool:
        """Whether a value has an equation of its own."""
        return number >= len(self.program.inputs) and (
            bool(self._names[number]) or number in self.outputs.values()
        )

    def _left(self, number: int) -> Spans:
        for state, output in self.outputs.items():
            if output == number:
                return subscripted(state, "t")
        return subscripted(self._names[number])

    def expression(self, operand: Operand, outer: int = 0, is_inner: bool = True) -> Spans:
        """An operand as text.

        Args:
            operand: The operand.
            outer: The precedence of what is around it.
            is_inner: Whether a value that has its own equation is only named.
        """
        if type(operand) is not int:
            text = f"{operand:.4g}".replace("-", "−")
            return (Span(f"({text})" if operand < 0 and outer > 1 else text),)
        if is_inner and self._is_written(operand):
            return self._left(operand)
        if operand < len(self.program.inputs):
            return self._input(operand, outer)
        instruction = self.program.instructions[operand - len(self.program.inputs)]
        function, operands = instruction.function, instruction.operands
        if function == "negative":
            return _enclosed((Span("−"), *self.expression(operands[0], _NEGATIVE)), outer > 2)
        if function in _INFIX:
            symbol, precedence = _INFIX[function]
            is_number = function == "multiply" and type(operands[0]) is float
            middle = " " if is_number else f" {symbol} "
            after = precedence + (function in ("subtract", "divide"))
            first, second = (
                self.expression(operands[0], precedence),
                self.expression(operands[1], after),
            )
            return _enclosed((*first, Span(middle), *second), outer > precedence)
        inner: Spans = ()
        for n, part in enumerate(operands):
            inner += (*((Span(", "),) if n else ()), *self.expression(part))
        name = {**_FUNCTIONS, "maximum": "max", "minimum": "min"}.get(function, function)
        return (Span(f"{name}("), *inner, Span(")"))

    def _input(self, number: int, outer: int) -> Spans:
        if number in self.states:
            return subscripted(self.states[number], "t−1")
        name = self.program.inputs[number]
        if number in self._weights:
            return subscripted(name)
        gate, _, half = name.partition(".")
        h = self.cell.states[0]
        x_half = (Span("W"), Span(gate, True), Span(" "), *subscripted("x", "t"))
        h_half = (Span("U"), Span(gate, True), Span(" "), *subscripted(h, "t−1"))
        bias = (Span(" + b′" if half == "h" else " + b"), Span(gate, True))
        halves = {"x": x_half, "h": h_half, "": (*x_half, Span(" + "), *h_half)}
        return _enclosed((*halves[half], *bias), outer > 1)


def _enclosed(text: Spans, is_needed: bool) -> Spans:
    return (Span("("), *text, Span(")")) if is_needed else text
