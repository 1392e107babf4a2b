"""Operators that compute: elementwise, over axes, in order, sums of products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora import engine, ops
from anaphora.interop.onnx.cells import ACTIVATIONS, Activation, activations_of
from anaphora.interop.onnx.operators.registry import (
    Function,
    Shaped,
    apply,
    axis_of,
    check_broadcast,
    check_size,
    operator,
)
from anaphora.interop.onnx.operators.shapes import axes_input
from anaphora.interop.onnx.reading import Array, Node
from anaphora.interop.onnx.recurrent import tensor
from anaphora.tensor import Tensor, differentiable, floating


def _quotient(a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise ValueError("an integer is divided by 0")
    quotient = np.abs(a) // np.abs(b)  # rounded toward 0
    return (np.sign(a) * np.sign(b) * quotient).astype(a.dtype)


def _power(a: Any, b: Any) -> Any:
    if b.size == 1 and not isinstance(b, Tensor):
        exponent = b.reshape(-1)[0].item()
        if isinstance(a, Tensor):
            return a**exponent
        return np.square(a) if exponent == 2 else np.power(a, np.asarray(exponent, a.dtype))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return ops.exp(ops.log(tensor(a)) * tensor(b))
    return np.power(a, b).astype(a.dtype)


_BINARY: dict[str, Function] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _quotient,
    "Pow": _power,
    "Equal": lambda a, b: a == b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "PRelu": lambda a, b: apply(ops.relu, a) - b * apply(ops.relu, -a),
}


@operator(*_BINARY)
def _binary(node: Node) -> Function:
    function = _BINARY[node.operator]

    def at(a: Any, b: Any) -> Function:
        check_broadcast(node, a, b)
        if a.dtype != b.dtype and node.operator != "Pow":
            raise node.error(f"mixes {a.dtype} and {b.dtype}")
        return function

    return Shaped(at)


@operator("Mod")
def _mod(node: Node) -> Function:
    remainder = np.fmod if node.get("fmod", 0) else np.mod

    def function(a: Any, b: Any) -> Any:
        check_broadcast(node, a, b)
        if a.dtype.kind != "f" and not np.all(b):
            raise node.error("an integer is divided by 0")
        return remainder(np.asarray(a), np.asarray(b))

    return function


_VARIADIC: dict[str, Function] = {
    "Sum": lambda a, b: a + b,
    "Mean": lambda a, b: a + b,
    "Max": lambda a, b: apply(ops.maximum, a, b),
    "Min": lambda a, b: apply(ops.minimum, a, b),
}


@operator(*_VARIADIC)
def _variadic(node: Node) -> Function:
    function = _VARIADIC[node.operator]

    def checked(*values: Any) -> Any:
        check_broadcast(node, *values)
        total = values[0]
        for value in values[1:]:
            total = function(total, value)
        return total / len(values) if node.operator == "Mean" else total

    return checked


def _rounded(function: Function) -> Function:
    return lambda x: function(np.asarray(x))


@differentiable
@floating
def _erf(x: Array, /) -> Any:
    """The error function."""
    return engine.erf(x), lambda dy: dy * (2 / math.sqrt(math.pi) * np.exp(-x * x))


_OF_FLOATS = {"Sin", "Cos", "Erf", "Selu", "HardSwish", "Mish"}

_UNARY: dict[str, Function] = {
    "Relu": lambda x: ops.relu(x) if isinstance(x, Tensor) else np.maximum(x, 0),
    "Sigmoid": lambda x: ops.sigmoid(x) if isinstance(x, Tensor) else 1 / (1 + np.exp(-x)),
    "Tanh": lambda x: ops.tanh(x) if isinstance(x, Tensor) else np.tanh(x),
    "Exp": lambda x: apply(ops.exp, x),
    "Log": lambda x: apply(ops.log, x),
    "Sqrt": lambda x: apply(ops.sqrt, x),
    "Abs": lambda x: apply(ops.abs, x),
    "Sign": lambda x: apply(ops.sign, x),
    "Neg": lambda x: -x,
    "Reciprocal": lambda x: 1 / x,
    "Softplus": lambda x: apply(ops.softplus, x),
    "Softsign": lambda x: Activation("Softsign")(x),
    "Not": lambda x: np.logical_not(x),
    "Floor": _rounded(np.floor),
    "Ceil": _rounded(np.ceil),
    "Round": _rounded(np.rint),
    "Sin": lambda x: apply(ops.sin, x),
    "Cos": lambda x: apply(ops.cos, x),
    "Erf": lambda x: apply(_erf, x),
    "Selu": lambda x: 1.0507009873554805 * apply(ops.elu, x, alpha=1.6732632423543772),
    "HardSwish": lambda x: (
        x * apply(ops.minimum, apply(ops.maximum, x / 6 + 0.5, x.dtype.type(0)), x.dtype.type(1))
    ),
    "Mish": lambda x: x * apply(ops.tanh, apply(ops.softplus, x)),
}


@operator(*_UNARY)
def _unary(node: Node) -> Function:
    if node.attributes and node.operator == "Selu":
        raise node.error("with an alpha or a gamma of its own, which is not read")
    function = _UNARY[node.operator]
    if node.operator not in _OF_FLOATS:
        return function
    return lambda x: function(x).astype(x.dtype)


@operator("LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu")
def _activation(node: Node) -> Function:
    defaults = ACTIVATIONS[node.operator]
    alpha = node.get("alpha", 1.0 if node.operator == "ThresholdedRelu" else defaults.alpha, float)
    beta = node.get("beta", defaults.beta, float)
    (activation,) = activations_of([node.operator], [alpha], [] if beta is None else [beta])
    return activation.__call__


@operator("Clip")
def _clip(node: Node) -> Function:
    lowest, highest = node.get("min", None, float), node.get("max", None, float)

    def function(x: Any, low: Any = None, high: Any = None) -> Any:
        low, high = (lowest if low is None else low), (highest if high is None else high)
        if low is not None:
            x = apply(ops.maximum, x, np.asarray(low, x.dtype))
        return x if high is None else apply(ops.minimum, x, np.asarray(high, x.dtype))

    return function


@operator("Softmax", "LogSoftmax")
def _softmax(node: Node) -> Function:
    operation = ops.softmax if node.operator == "Softmax" else ops.log_softmax
    over_rest = node.version < 13  # all axes from this one on, as one
    axis = node.get("axis", 1 if over_rest else -1)

    def function(x: Any) -> Any:
        k = axis_of(node, axis, x.ndim)
        if not over_rest or k == x.ndim - 1:
            return apply(operation, x, axis=k)
        rows = x.reshape(math.prod(x.shape[:k]), math.prod(x.shape[k:]))
        return apply(operation, rows, axis=1).reshape(x.shape)

    return function


_REDUCTIONS: dict[str, Function] = {
    "ReduceSum": lambda x, **o: apply(ops.sum, x, **o),
    "ReduceMean": lambda x, **o: apply(ops.mean, x, **o),
    "ReduceMax": lambda x, **o: apply(ops.max, x, **o),
    "ReduceMin": lambda x, **o: -apply(ops.max, -x, **o),
    "ReduceSumSquare": lambda x, **o: apply(ops.sum, x * x, **o),
    "ReduceL2": lambda x, **o: apply(ops.sqrt, apply(ops.sum, x * x, **o)),
    "ReduceL1": lambda x, **o: apply(ops.sum, apply(ops.abs, x), **o),
    "ReduceLogSumExp": lambda x, **o: apply(ops.logsumexp, x, **o),
    "ReduceProd": lambda x, **o: apply(ops.prod, x, **o),
}


@operator(*_REDUCTIONS)
def _reduction(node: Node) -> Function:
    since = 13 if node.operator == "ReduceSum" else 18
    axes_of = axes_input(node, since)  # an attribute in earlier versions
    function = _REDUCTIONS[node.operator]
    keepdims = bool(node.get("keepdims", 1))
    keeps_all = bool(node.get("noop_with_empty_axes", 0))

    def checked(x: Any, axes: Any = None) -> Any:
        given = axes_of(axes)
        if not given:
            if keeps_all:
                return x
            given = list(range(x.ndim))
        along = tuple(sorted({axis_of(node, axis, x.ndim) for axis in given}))
        if not along:
            return x
        return function(x, axis=along[0] if len(along) == 1 else along, keepdims=keepdims)

    return checked


@operator("ArgMax", "ArgMin")
def _arg_max(node: Node) -> Function:
    axis, keepdims = node.get("axis", 0), bool(node.get("keepdims", 1))
    last = bool(node.get("select_last_index", 0))
    find = np.argmax if node.operator == "ArgMax" else np.argmin

    def function(x: Any) -> Any:
        array = np.asarray(x)
        k = axis_of(node, axis, array.ndim)
        if last:
            return array.shape[k] - 1 - find(np.flip(array, k), axis=k, keepdims=keepdims)
        return find(array, axis=k, keepdims=keepdims).astype(np.int64)

    return function


@operator("Gelu")
def _gelu(node: Node) -> Function:
    approximate = node.get("approximate", "none")
    return lambda x: apply(ops.gelu, x, approximate=approximate)


@operator("CumSum")
def _cum_sum(node: Node) -> Function:
    exclusive, reverse = bool(node.get("exclusive", 0)), bool(node.get("reverse", 0))

    def function(x: Any, axis: Any) -> Any:
        k = axis_of(node, int(np.asarray(axis).reshape(-1)[0]), x.ndim)
        backward = (*(slice(None),) * k, slice(None, None, -1))
        if reverse:
            x = x[backward]
        y = apply(ops.cumsum, x, axis=k)
        y = y if exclusive is False else y - x
        return (y[backward] if reverse else y).astype(x.dtype)

    return function


@operator("TopK")
def _top_k(node: Node) -> Function:
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    attribute = node.get("k", None, int)  # until version 10

    def function(x: Any, k: Any = None) -> Any:
        along = axis_of(node, axis, x.ndim)
        count = attribute if k is None else int(np.asarray(k).reshape(-1)[0])
        if count is None or not 0 <= count <= x.shape[along]:
            raise node.error(f"{count} of an axis of {x.shape[along]}")
        values, indices = ops.topk(x, count, along, largest)
        return values if isinstance(x, Tensor) else values.data, indices.data

    return function


@operator("Einsum")
def _einsum(node: Node) -> Function:
    equation = node.get("equation", "")

    def function(*values: Any) -> Any:
        sizes: dict[str, int] = {}
        for term, value in zip(equation.partition("->")[0].split(","), values, strict=False):
            letters = term.replace(" ", "")
            if "..." not in letters:
                sizes.update(zip(letters, value.shape, strict=False))
        check_size(node, [*sizes.values()])  # of the largest product, before sums
        y = ops.einsum(equation, *values)
        return y if any(isinstance(value, Tensor) for value in values) else y.data

    return function
