"""Tensor and the tape: recorded operations, backward, no_grad, detach, hooks,
interpreters.
"""

from anaphora.tensor.hooks import Hook, Interpreter, hook, interpreting, no_grad, recording
from anaphora.tensor.operations import differentiable, floating
from anaphora.tensor.rows import Array, Gradient, RowGradient
from anaphora.tensor.tensor import (
    NUMPY_FUNCTIONS,
    OPERATIONS,
    Parameter,
    Tensor,
    as_integers,
    as_tensor,
    detach,
)

__all__ = [
    "NUMPY_FUNCTIONS",
    "OPERATIONS",
    "Array",
    "Gradient",
    "Hook",
    "Interpreter",
    "Parameter",
    "RowGradient",
    "Tensor",
    "as_integers",
    "as_tensor",
    "detach",
    "differentiable",
    "floating",
    "hook",
    "interpreting",
    "no_grad",
    "recording",
]
