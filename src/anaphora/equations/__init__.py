"""The vocabulary of a cell's equations, and their tracing to a program and its adjoint.

A cell is an ordinary Python function of its gates, states and parameters, written with the
vocabulary of this module: ``+ - * /``, unary minus, numbers, and ``sigmoid tanh relu exp log
softplus abs maximum minimum``. Called with symbols instead of arrays, it yields a straight-line
`Program`, from which `adjoint` derives the backward program.
"""

from anaphora.equations.differentiation import Adjoint, adjoint
from anaphora.equations.program import Instruction, Operand, Program
from anaphora.equations.references import check_references
from anaphora.equations.symbols import EquationError, Symbol
from anaphora.equations.tracing import GateInput, Trace, trace
from anaphora.equations.vocabulary import (
    FUNCTIONS,
    VOCABULARY,
    Function,
    abs,
    apply,
    exp,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    softplus,
    tanh,
)

__all__ = [
    "FUNCTIONS",
    "VOCABULARY",
    "Adjoint",
    "EquationError",
    "Function",
    "GateInput",
    "Instruction",
    "Operand",
    "Program",
    "Symbol",
    "Trace",
    "abs",
    "adjoint",
    "apply",
    "check_references",
    "exp",
    "log",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "sign",
    "softplus",
    "tanh",
    "trace",
]
