"""Further operators: order, running sums, one-hot vectors, sums of products, windows of steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from anaphora import engine, ops
from anaphora.interop.cells import joined
from anaphora.interop.onnx.operators import (
    STATIC,
    Function,
    Shaped,
    _numbers,
    apply,
    axis_of,
    check_size,
    integers,
    operator,
    reduction,
)
from anaphora.interop.onnx.reading import Node
from anaphora.ops.convolution import output_steps
from anaphora.tensor import Array, Tensor, differentiable, floating

STATIC.update(
    {
        "CumSum": (1,), "OneHot": (1,), "TopK": (1,), "ReduceL1": (1,), "ReduceLogSumExp": (1,),
        "ReduceProd": (1,),
    }
)  # fmt: skip


@differentiable
@floating
def _erf(x: Array, /) -> Any:
    """The error function."""
    return engine.erf(x), lambda dy: dy * (2 / math.sqrt(math.pi) * np.exp(-x * x))


_FUNCTIONS: dict[str, Function] = {
    "Sin": lambda x: apply(ops.sin, x),
    "Cos": lambda x: apply(ops.cos, x),
    "Erf": lambda x: apply(_erf, x),
    "Selu": lambda x: 1.0507009873554805 * apply(ops.elu, x, alpha=1.6732632423543772),
    "HardSwish": lambda x: (
        x * apply(ops.minimum, apply(ops.maximum, x / 6 + 0.5, x.dtype.type(0)), x.dtype.type(1))
    ),
    "Mish": lambda x: x * apply(ops.tanh, apply(ops.softplus, x)),
}


@operator(*_FUNCTIONS)
def _function(node: Node) -> Function:
    if node.attributes and node.operator == "Selu":
        raise node.error("with an alpha or a gamma of its own, which is not read")
    function = _FUNCTIONS[node.operator]
    return lambda x: function(x).astype(x.dtype)


@operator("Gelu")
def _gelu(node: Node) -> Function:
    approximate = node.get("approximate", "none")
    return lambda x: apply(ops.gelu, x, approximate=approximate)


_REDUCTIONS: dict[str, Function] = {
    "ReduceL1": lambda x, **o: apply(ops.sum, apply(ops.abs, x), **o),
    "ReduceLogSumExp": lambda x, **o: apply(ops.logsumexp, x, **o),
    "ReduceProd": lambda x, **o: apply(ops.prod, x, **o),
}


@operator(*_REDUCTIONS)
def _reduction(node: Node) -> Function:
    return reduction(node, _REDUCTIONS[node.operator], 18)


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


@operator("OneHot")
def _one_hot(node: Node) -> Function:
    axis = node.get("axis", -1)

    def function(ids: Any, depth: Any, values: Any) -> Any:
        (count,) = integers(node, np.asarray(depth).astype(np.int64).reshape(-1)[:1], "depth")
        if values.shape != (2,) or count < 1:
            raise node.error(f"values of shape {values.shape} and a depth of {count}")
        check_size(node, [*ids.shape, count])
        k = axis_of(node, axis, ids.ndim + 1)
        ids = np.asarray(ids)
        found = np.expand_dims(np.where(ids < 0, ids + count, ids), k) == np.arange(count).reshape(
            -1, *(1,) * (ids.ndim - k)
        )
        off, on = (values[n : n + 1].reshape(()) for n in (0, 1))
        return ops.where(found, on, off) if isinstance(values, Tensor) else np.where(found, on, off)

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


@operator("MaxPool", "AveragePool")
def _pool(node: Node) -> Function:
    """Pools over one axis, [N, C, T]."""
    kernel, strides, pads, dilations = (
        _numbers(node, name) for name in ("kernel_shape", "strides", "pads", "dilations")
    )
    automatic, rounds_up = node.get("auto_pad", "NOTSET"), bool(node.get("ceil_mode", 0))
    counts = bool(node.get("count_include_pad", 0))
    is_max = node.operator == "MaxPool"
    if kernel is None or len(kernel) != 1 or kernel[0] < 1:
        raise node.error(f"kernel_shape {kernel}: pools are read over one axis (time), [N, C, T]")
    (K,), (stride, *_), (before, after) = kernel, strides or [1], (pads or [0, 0])[:2]
    (dilation, *_) = dilations or [1]
    if min(stride, dilation) < 1 or min(before, after) < 0 or max(before, after) >= K:
        raise node.error(f"strides {strides}, pads {pads}, dilations {dilations}")
    if rounds_up or automatic not in ("NOTSET", "VALID") or sum(map(bool, node.outputs)) > 1:
        raise node.error("ceil_mode, auto_pad SAME and indices are not read")

    def at(x: Any) -> Function:
        if x.ndim != 3:
            raise node.error(f"an input of shape {x.shape}, expected [N, C, T]")
        N, C, T = x.shape
        steps = output_steps(T, before + after, K, stride, dilation)
        if steps < 1:
            raise node.error(f"{T} steps with pads {before} and {after} for windows of {K}")
        check_size(node, [N, C, steps, K])
        places = np.arange(steps)[:, None] * stride + dilation * np.arange(K)
        real = (places >= before) & (places < T + before)
        shares = 1 / (K if counts else real.sum(1)) * np.ones(steps)

        def function(x: Any) -> Any:
            fill = -np.inf if is_max else 0.0
            sides = [np.full((N, C, n), fill, x.dtype) for n in (before, after)]
            windows = joined([sides[0], x, sides[1]], 2)[:, :, places]
            if is_max:
                return apply(ops.max, windows, axis=3)
            return apply(ops.sum, windows, axis=3) * shares.astype(x.dtype)

        return function

    return Shaped(at)


@operator("InstanceNormalization")
def _instance_normalization(node: Node) -> Function:
    epsilon = node.get("epsilon", 1e-5)

    def function(x: Any, scale: Any, bias: Any) -> Any:
        if x.ndim < 3 or scale.shape != x.shape[1:2] or bias.shape != x.shape[1:2]:
            raise node.error(f"an input of shape {x.shape} for {scale.shape} channels")
        size = math.prod(x.shape[2:])
        rows = x.reshape(x.shape[0] * x.shape[1], size)
        y = apply(ops.layer_norm, rows, epsilon=epsilon).reshape(x.shape)
        axes = (-1, *(1,) * (x.ndim - 2))
        return y * scale.reshape(axes) + bias.reshape(axes)

    return function
