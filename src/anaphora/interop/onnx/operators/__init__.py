"""ONNX's operators besides the recurrent ones: each as a function of its inputs.

A function gets arrays, or Tensors where a gradient may be asked for; each operator is written once,
and calls the same operation for both.
"""

from anaphora.interop.onnx.operators import arithmetic, layers, shapes
from anaphora.interop.onnx.operators.registry import (
    OPERATORS,
    STATIC,
    Function,
    Shaped,
    axis_of,
    check_size,
    operator,
)

__all__ = [
    "OPERATORS",
    "STATIC",
    "Function",
    "Shaped",
    "arithmetic",
    "axis_of",
    "check_size",
    "layers",
    "operator",
    "shapes",
]
