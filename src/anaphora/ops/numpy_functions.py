"""NumPy's functions on Tensors: the operation for each of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from anaphora.ops.activations import tanh
from anaphora.ops.arithmetic import (
    abs,
    add,
    ceil,
    clip,
    cos,
    divide,
    exp,
    floor,
    floor_divide,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    remainder,
    round,
    sign,
    sin,
    sqrt,
    subtract,
    where,
)
from anaphora.ops.contraction import einsum
from anaphora.ops.linear import matmul
from anaphora.ops.order import argmax, argmin, argsort, sort, take_along_axis
from anaphora.ops.reductions import all, any, cumsum, max, mean, min, norm, prod, std, sum, var
from anaphora.ops.shapes import (
    broadcast_to,
    concatenate,
    expand_dims,
    flatten,
    flip,
    moveaxis,
    pad,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    swapaxes,
    tile,
    transpose,
    unstack,
)
from anaphora.tensor import NUMPY_FUNCTIONS


def _where(condition: Any, *choices: Any) -> Any:
    return where(condition, *choices) if choices else np.where(np.asarray(condition))


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return clip(a, a_min if min is None else min, a_max if max is None else max)


def _dot(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(a, b)
    if np.ndim(b) > 2:
        raise TypeError("numpy.dot: of more than two axes it is unlike a @ b; write ops.einsum")
    return matmul(a, b)


def _einsum(*operands: Any, optimize: Any = False) -> Any:
    return einsum(*operands)


def _matrix_norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    over = np.ndim(x) if axis is None else np.size(axis)
    if ord is not None and over != 1:
        raise TypeError(
            f"numpy.linalg.norm: with ord={ord!r} over {over} axes it is a norm of matrices, which "
            "is not differentiable here; pass x.data, or write ops.norm for one of vectors"
        )
    return norm(x, 2 if ord is None else ord, axis, keepdims)


NUMPY_FUNCTIONS |= {
    np.absolute: abs,
    np.add: add,
    np.divide: divide,
    np.ceil: ceil,
    np.cos: cos,
    np.exp: exp,
    np.floor: floor,
    np.floor_divide: floor_divide,
    np.log: log,
    np.matmul: matmul,
    np.maximum: maximum,
    np.minimum: minimum,
    np.multiply: multiply,
    np.negative: negative,
    np.power: power,
    np.reciprocal: lambda x: divide(1.0, x),
    np.remainder: remainder,
    np.rint: round,
    np.sign: sign,
    np.sin: sin,
    np.sqrt: sqrt,
    np.square: lambda x: multiply(x, x),
    np.subtract: subtract,
    np.tanh: tanh,
    np.all: all,
    np.amax: max,
    np.amin: min,
    np.any: any,
    np.argmax: argmax,
    np.argmin: argmin,
    np.argsort: argsort,
    np.around: round,
    np.broadcast_to: broadcast_to,
    np.clip: _clip,
    np.concatenate: concatenate,
    np.cumsum: cumsum,
    np.dot: _dot,
    np.einsum: _einsum,
    np.expand_dims: expand_dims,
    np.flip: flip,
    np.linalg.norm: _matrix_norm,
    np.max: max,
    np.mean: mean,
    np.min: min,
    np.moveaxis: moveaxis,
    np.pad: pad,
    np.prod: prod,
    np.ravel: flatten,
    np.repeat: repeat,
    np.reshape: reshape,
    np.roll: roll,
    np.round: round,
    np.sort: sort,
    np.split: split,
    np.squeeze: squeeze,
    np.stack: stack,
    np.std: std,
    np.sum: sum,
    np.swapaxes: swapaxes,
    np.take_along_axis: take_along_axis,
    np.tile: tile,
    np.transpose: transpose,
    np.var: var,
    np.where: _where,
}
if hasattr(np, "unstack"):  # NumPy 2.1
    NUMPY_FUNCTIONS[np.unstack] = unstack
