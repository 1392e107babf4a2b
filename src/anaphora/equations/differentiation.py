"""Differentiation: derives the backward program of a program, by the chain rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anaphora.equations.program import Operand, Program
from anaphora.equations.symbols import Builder, Symbol
from anaphora.equations.vocabulary import FUNCTIONS


@dataclass(frozen=True)
class Adjoint:
    """The backward program of a program.

    The program's inputs are the forward values numbered in ``saved``, then the cotangents of the
    forward outputs; its outputs are the cotangents of all forward inputs.

    >>> from anaphora.equations import trace
    >>> backward = trace(lambda f, h: f * h, gates=["f"], states=["h"]).adjoint
    >>> backward.saved, backward.program.inputs
    ((0, 1), ('f', 'h', "d(h')"))
    >>> backward.program.lines()
    ["d(f) = d(h') * h", "d(h) = d(h') * f", 'return d(f): d(f), d(h): d(h)']
    """

    program: Program
    saved: tuple[int, ...]


def adjoint(program: Program) -> Adjoint:
    """Derive the program from cotangents of the outputs to cotangents of the inputs.

    >>> from anaphora.equations import tanh, trace
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
    builder = Builder([*program.names, *cotangent_names], unnamed="u")
    cotangents: dict[int, Symbol] = {}

    def accumulate(number: Operand, cotangent: Any) -> None:
        # Constants have no cotangent; a constant cotangent is the 0 of sign().
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
