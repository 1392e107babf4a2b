"""NumPy's functions on Tensors: the operation for each of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from anaphora.ops.activations import tanh
from anaphora.ops.arithmetic import (
    abs,
    add,
    divide,
    exp,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    sign,
    sqrt,
    subtract,
    where,
)
from anaphora.ops.linear import matmul
from anaphora.ops.reductions import max, mean, sum
from anaphora.ops.shapes import broadcast_to, concatenate, reshape, split, stack, transpose
from anaphora.tensor import NUMPY_FUNCTIONS


def _where(condition: Any, *choices: Any) -> Any:
    return where(condition, *choices) if choices else np.where(np.asarray(condition))


NUMPY_FUNCTIONS |= {
    np.absolute: abs,
    np.add: add,
    np.divide: divide,
    np.exp: exp,
    np.log: log,
    np.matmul: matmul,
    np.maximum: maximum,
    np.minimum: minimum,
    np.multiply: multiply,
    np.negative: negative,
    np.power: power,
    np.sign: sign,
    np.sqrt: sqrt,
    np.square: lambda x: multiply(x, x),
    np.subtract: subtract,
    np.tanh: tanh,
    np.amax: max,
    np.max: max,
    np.mean: mean,
    np.sum: sum,
    np.broadcast_to: broadcast_to,
    np.concatenate: concatenate,
    np.reshape: reshape,
    np.split: split,
    np.stack: stack,
    np.transpose: transpose,
    np.where: _where,
}
