"""Tensor and the tape: recorded operations, backward, no_grad, detach, hooks,
interpreters.
"""

import sys

from anaphora import foreign_names
from anaphora.tensor.creation import (
    arange,
    full,
    full_like,
    multinomial,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    zeros,
    zeros_like,
)
from anaphora.tensor.hooks import Hook, Interpreter, hook, interpreting, no_grad, recording
from anaphora.tensor.methods import OPERATIONS, Booleans, Operand, TopK
from anaphora.tensor.operations import composed, differentiable, floating
from anaphora.tensor.rows import Array, Gradient, Input, RowGradient
from anaphora.tensor.tensor import (
    NUMPY_FUNCTIONS,
    Buffer,
    Parameter,
    Tensor,
    as_input,
    as_integers,
    as_tensor,
    detach,
)

__all__ = [
    "NUMPY_FUNCTIONS",
    "OPERATIONS",
    "Array",
    "Booleans",
    "Buffer",
    "Gradient",
    "Hook",
    "Input",
    "Interpreter",
    "Operand",
    "Parameter",
    "RowGradient",
    "Tensor",
    "TopK",
    "arange",
    "as_input",
    "as_integers",
    "as_tensor",
    "composed",
    "detach",
    "differentiable",
    "floating",
    "full",
    "full_like",
    "hook",
    "interpreting",
    "multinomial",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "recording",
    "zeros",
    "zeros_like",
]

sys.modules[__name__].__class__ = foreign_names.TensorModule
