"""Tensor and the tape: recorded operations, backward, no_grad, detach, hooks."""

from anaphora.tensor.hooks import Hook, hook, no_grad, recording
from anaphora.tensor.operations import differentiable, floating
from anaphora.tensor.rows import Array, Gradient, RowGradient
from anaphora.tensor.tensor import (
    NUMPY_FUNCTIONS,
    OPERATIONS,
    Buffer,
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
    "Buffer",
    "Gradient",
    "Hook",
    "Parameter",
    "RowGradient",
    "Tensor",
    "as_integers",
    "as_tensor",
    "detach",
    "differentiable",
    "floating",
    "hook",
    "no_grad",
    "recording",
]
