"""The table of operators, and what several of them need."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anaphora.interop.onnx.reading import Node, OnnxError
from anaphora.tensor import Tensor

Function = Callable[..., Any]

LARGEST = 2**28
"""The most elements of a value that an operator may make: 1 GiB of float32."""

OPERATORS: dict[str, Callable[[Node], Function]] = {}
"""By the operator's name: what makes, of a node, the function that computes it."""

STATIC: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,),
    "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,), "Unsqueeze": (1,),
    "CumSum": (1,), "OneHot": (1,), "ReduceL1": (1,), "ReduceL2": (1,), "ReduceLogSumExp": (1,),
    "ReduceMax": (1,), "ReduceMean": (1,), "ReduceMin": (1,), "ReduceProd": (1,), "ReduceSum": (1,),
    "ReduceSumSquare": (1,), "TopK": (1,),
}  # fmt: skip
"""The inputs of an operator whose numbers determine shapes, by position."""


def operator(*names: str) -> Callable[[Callable[[Node], Function]], Callable[[Node], Function]]:
    """Register what makes the function of a node, for operators of these names."""

    def register(prepare: Callable[[Node], Function]) -> Callable[[Node], Function]:
        OPERATORS.update(dict.fromkeys(names, prepare))
        return prepare

    return register


def apply(operation: Any, *inputs: Any, **options: Any) -> Any:
    """An operation of `anaphora.ops`: on arrays alone unless an input is a Tensor."""
    if any(isinstance(value, Tensor) for value in inputs):
        return operation(*inputs, **options)
    return operation.__wrapped__(*inputs, **options)[0]


class Shaped:
    """A function in two parts: what depends on shapes and sizes alone, and the rest.

    ``at(*inputs)`` returns the function for all inputs of the same shapes and dtypes, and with the
    same numbers where these determine shapes (`STATIC`).
    """

    def __init__(self, at: Callable[..., Function]) -> None:
        self.at = at

    def __call__(self, *inputs: Any) -> Any:
        """The result."""
        return self.at(*inputs)(*inputs)


def check_size(node: Node, shape: Sequence[int]) -> None:
    """Check the size of a value before memory is asked for it."""
    if math.prod(shape) > LARGEST:
        raise node.error(
            f"would make a value of shape {str(list(shape))[:80]}, more than {LARGEST} elements"
        )


def integers(node: Node, value: Any, what: str) -> list[int]:
    """The numbers of a list of integers, such as axes."""
    if isinstance(value, Tensor) or value.dtype.kind not in "iu" or value.ndim > 1:
        raise node.error(f"{what}: expected a list of integers, not {value.dtype}{value.shape}")
    return [int(number) for number in value.reshape(-1)]


def axis_of(node: Node, axis: int, axes: int) -> int:
    """An axis counted from the front."""
    if not -axes <= axis < axes:
        raise node.error(f"axis {axis} of a value of {axes} axes")
    return axis % axes


def number_list(node: Node, name: str) -> list[int] | None:
    """A list of integers among the attributes; None if there is none."""
    value = node.get(name, None, tuple)
    if value is not None and not all(type(number) is int for number in value):
        raise node.error(f"attribute {name!r} is {value!r:.60}, expected integers")
    return None if value is None else list(value)


def check_broadcast(node: Node, *values: Any) -> None:
    """Check that shapes broadcast, to a size that is allowed."""
    shapes = [v.shape for v in values]
    try:
        check_size(node, np.broadcast_shapes(*shapes))
    except OnnxError:
        raise
    except ValueError:
        raise node.error(f"the shapes {', '.join(map(str, shapes))} do not broadcast") from None
