"""Operators that are layers: products, convolutions, pools, normalizations, recurrences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import engine, ops
from anaphora.interop.cells import joined
from anaphora.interop.onnx.operators.registry import (
    Function,
    Shaped,
    apply,
    axis_of,
    check_broadcast,
    check_size,
    number_list,
    operator,
)
from anaphora.interop.onnx.reading import Array, Node
from anaphora.interop.onnx.recurrent import RecurrentNode
from anaphora.ops.convolution import output_steps
from anaphora.tensor import Tensor


@operator("MatMul")
def _matmul(node: Node) -> Function:
    def function(a: Any, b: Any) -> Any:
        if a.ndim and b.ndim:
            rows = a.shape[:-1] if a.ndim > 1 else ()
            check_size(node, [*rows, *b.shape[:-2], b.shape[-1] if b.ndim > 1 else 1])
        if a.dtype != b.dtype or a.dtype.kind != "f":
            raise node.error(f"of {a.dtype} and {b.dtype}, expected floats of one type")
        return apply(ops.matmul, a, b)

    return function


@operator("Gemm")
def _gemm(node: Node) -> Function:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    transposes = [bool(node.get(name, 0)) for name in ("transA", "transB")]

    def function(a: Any, b: Any, c: Any = None) -> Any:
        if a.ndim != 2 or b.ndim != 2 or a.dtype != b.dtype or a.dtype.kind != "f":
            raise node.error(f"of {a.dtype}{a.shape} and {b.dtype}{b.shape}, expected matrices")
        a, b = (v.transpose() if t else v for v, t in zip((a, b), transposes, strict=True))
        check_size(node, [a.shape[0], b.shape[1]])
        y = apply(ops.matmul, a, b)
        y = y if alpha == 1 else y * alpha
        if c is None or beta == 0:
            return y
        check_broadcast(node, y, c)
        return y + (c if beta == 1 else c * beta)

    return function


@operator("Conv")
def _conv(node: Node) -> Function:
    given = {n: number_list(node, n) for n in ("kernel_shape", "strides", "dilations", "pads")}
    groups, automatic = node.get("group", 1), node.get("auto_pad", "NOTSET")
    if any(
        v is not None and len(v) != n for v, n in zip(given.values(), (1, 1, 1, 2), strict=True)
    ):
        raise node.error("more than one axis of space: convolutions are read over one axis (time)")
    if automatic not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.error(f"auto_pad {automatic!r:.40}")
    stride, dilation = ((given[n] or [1])[0] for n in ("strides", "dilations"))
    pads = given["pads"] or [0, 0]
    if stride < 1 or dilation < 1 or groups < 1 or min(pads) < 0:
        raise node.error(f"strides {stride}, dilations {dilation}, group {groups}, pads {pads}")

    def at(x: Any, weight: Any, bias: Any = None) -> Function:
        if x.ndim != 3 or weight.ndim != 3:
            raise node.error(
                f"an input of shape {x.shape} and filters of shape {weight.shape}; convolutions "
                "are read over one axis (time), [N, C, T]"
            )
        (O, C, K), T = weight.shape, x.shape[2]
        if x.shape[1] != C * groups or O % groups or (bias is not None and bias.shape != (O,)):
            raise node.error(f"an input of shape {x.shape} for filters of shape {weight.shape}")
        before, after = pads
        if automatic.startswith("SAME"):
            total = max(0, (-(-T // stride) - 1) * stride + dilation * (K - 1) + 1 - T)
            before, after = total // 2, total - total // 2
            if automatic == "SAME_LOWER":
                before, after = after, before
        steps = (T + before + after - dilation * (K - 1) - 1) // stride + 1
        if steps < 1:
            raise node.error(f"{T} steps with pads {before} and {after} for a filter of {K}")
        check_size(node, [x.shape[0], steps, C * K])
        check_size(node, [x.shape[0], T + before + after, C * groups])
        check_size(node, [x.shape[0], steps, O])
        return Convolution(stride, before, after, dilation, groups)

    return Shaped(at)


@dataclass(frozen=True)
class Convolution:
    """A convolution over time of x [N, C, T]."""

    stride: int
    before: int
    after: int
    dilation: int
    groups: int

    def windows(self, x: Array, K: int) -> Array:
        """What each output of a filter of K terms reads: [N, S, C, K]."""
        N, C, T = x.shape
        if self.before or self.after:
            padded = np.zeros((N, C, self.before + T + self.after), x.dtype)
            padded[:, :, self.before : self.before + T] = x
            x = padded
        S = (x.shape[2] - self.dilation * (K - 1) - 1) // self.stride + 1
        n, c, t = x.strides
        return np.lib.stride_tricks.as_strided(
            x, (N, S, C, K), (n, self.stride * t, c, self.dilation * t), writeable=False
        )

    def __call__(self, x: Any, weight: Any, bias: Any = None) -> Any:
        """As `ops.conv1d`; of one group of arrays with sums of their precision.

        Spectra, as models of sound begin with, range over too many magnitudes for the fixed point
        of AMX.
        """
        recorded = isinstance(x, Tensor) or isinstance(weight, Tensor)
        if self.groups > 1 or recorded or isinstance(bias, Tensor):
            y = apply(
                ops.conv1d, x.transpose(2, 0, 1), weight, bias, stride=self.stride,
                padding=(self.before, self.after), dilation=self.dilation, groups=self.groups,
            )  # fmt: skip
            return y.transpose(1, 2, 0)
        windows = self.windows(x, weight.shape[2])
        N, S = windows.shape[:2]
        flat = weight.reshape(1, len(weight), -1).swapaxes(1, 2)
        y = engine.batch_matmul(windows.reshape(1, N * S, -1), flat)[0]
        if bias is not None:
            y += bias
        return y.reshape(N, S, -1).transpose(0, 2, 1)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node) -> Function:
    operation = ops.mean if node.operator == "GlobalAveragePool" else ops.max
    return lambda x: apply(operation, x, axis=tuple(range(2, x.ndim)), keepdims=True)


@operator("BatchNormalization")
def _batch_normalization(node: Node) -> Function:
    epsilon = node.get("epsilon", 1e-5)
    if node.get("training_mode", 0) or sum(map(bool, node.outputs)) > 1:
        raise node.error("in training mode, which is not read; export the model for inference")

    return BatchScale(node, epsilon)


class BatchScale:
    """A batch normalization with fixed statistics."""

    def __init__(self, node: Node, epsilon: float) -> None:
        self.node, self.epsilon = node, epsilon

    def scale(self, axes: int, scale: Any, bias: Any, mean: Any, variance: Any) -> tuple[Any, Any]:
        """What an input of so many axes is multiplied by, and what is added then."""
        factor = scale * (1 / np.sqrt(np.asarray(variance) + variance.dtype.type(self.epsilon)))
        shift = bias - mean * factor
        shape = (-1, *(1,) * (axes - 2))
        return factor.reshape(shape), shift.reshape(shape)

    def __call__(self, x: Any, *vectors: Any) -> Any:
        """The normalized x."""
        if x.ndim < 2 or any(v.shape != x.shape[1:2] for v in vectors):
            raise self.node.error(f"an input of shape {x.shape} for {vectors[0].shape} channels")
        factor, shift = self.scale(x.ndim, *vectors)
        return x * factor + shift


@operator("LayerNormalization")
def _layer_normalization(node: Node) -> Function:
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    if sum(map(bool, node.outputs)) > 1:
        raise node.error("its mean and deviation are read, which are not computed")

    def function(x: Any, scale: Any, bias: Any = None) -> Any:
        k = axis_of(node, axis, x.ndim)
        size = math.prod(x.shape[k:])
        vectors = []
        for vector in (scale, bias):
            if vector is not None and vector.shape != x.shape[k:]:
                if np.broadcast_shapes(vector.shape, x.shape[k:]) != x.shape[k:]:
                    raise node.error(f"{vector.shape} for an input of shape {x.shape}")
                vector = apply(ops.broadcast_to, vector, shape=x.shape[k:])
            vectors.append(None if vector is None else vector.reshape(size))
        rows = x.reshape(math.prod(x.shape[:k]), size)
        return apply(ops.layer_norm, rows, *vectors, epsilon=epsilon).reshape(x.shape)

    return function


@operator("RNN", "GRU", "LSTM")
def _recurrent(node: Node) -> Function:
    return RecurrentNode(node)


@operator("MaxPool", "AveragePool")
def _pool(node: Node) -> Function:
    """Pools over one axis, [N, C, T]."""
    kernel, strides, pads, dilations = (
        number_list(node, name) for name in ("kernel_shape", "strides", "pads", "dilations")
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
