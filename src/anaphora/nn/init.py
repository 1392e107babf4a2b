"""Fill parameters with numbers: the functions of PyTorch's ``nn.init``.

Layers initialize themselves, by `initialization=`; these are for what a model does besides. Each
writes into a Tensor that was created, not computed, and returns it.

>>> from anaphora import nn
>>> layer = nn.Linear(2, 1)
>>> nn.init.constant_(layer.weight, 0.5)
Tensor([[0.5, 0.5]], dtype=float32, requires_grad=True)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from anaphora import foreign_names, random
from anaphora.nn import initialization
from anaphora.tensor import Array, Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

T = TypeVar("T", bound=Tensor)


def _filled(tensor: T, values: float | Array) -> T:
    with tensor.writing() as array:
        array[...] = values
    return tensor


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Samples of the uniform distribution between a and b.

    >>> weight = uniform_(Tensor([[0.0] * 3] * 2), -0.1, 0.1)
    >>> bool((abs(weight) < 0.1).all())
    True
    """
    return _filled(tensor, random.generator().uniform(a, b, tensor.shape))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Samples of a normal distribution.

    >>> normal_(Tensor([0.0, 0.0]), mean=3.0, std=0.0)
    Tensor([3., 3.], dtype=float32)
    """
    return _filled(tensor, random.generator().normal(mean, std, tensor.shape))


def constant_(tensor: T, val: float) -> T:
    """One number everywhere.

    >>> constant_(Tensor([0.0, 0.0]), 0.5)
    Tensor([0.5, 0.5], dtype=float32)
    """
    return _filled(tensor, val)


def zeros_(tensor: T) -> T:
    """Zeros.

    >>> zeros_(Tensor([1.0, 2.0]))
    Tensor([0., 0.], dtype=float32)
    """
    return _filled(tensor, 0)


def ones_(tensor: T) -> T:
    """Ones.

    >>> ones_(Tensor([0.0, 2.0]))
    Tensor([1., 1.], dtype=float32)
    """
    return _filled(tensor, 1)


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """``uniform(-a, a)`` with ``a = gain * sqrt(6 / (inputs + outputs))`` (Glorot & Bengio 2010).

    Args:
        tensor: [outputs, inputs], or [outputs, inputs, K] of a convolution, whose K terms count.
        gain: A factor, such as `calculate_gain` returns.

    Raises:
        ValueError: the Tensor has fewer than 2 axes.

    >>> xavier_uniform_(Tensor([[0.0] * 3] * 2)).shape
    (2, 3)
    """
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """``normal(0, s)`` with ``s = gain * sqrt(2 / (inputs + outputs))``; see `xavier_uniform_`.

    >>> xavier_normal_(Tensor([[0.0] * 3] * 2)).shape
    (2, 3)
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))))


def kaiming_uniform_(
    tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> T:
    """``uniform(-b, b)`` with ``b = gain * sqrt(3 / fan)`` (He et al. 2015).

    Args:
        tensor: As for `xavier_uniform_`.
        a: The slope of a leaky rectifier below 0.
        mode: Which number is the fan: "fan_in" (inputs) or "fan_out" (outputs).
        nonlinearity: What follows, as for `calculate_gain`.

    Raises:
        ValueError: the Tensor has fewer than 2 axes, or a name is unknown.

    >>> kaiming_uniform_(Tensor([[0.0] * 3] * 2), nonlinearity="relu").shape
    (2, 3)
    """
    bound = math.sqrt(3) * _kaiming_deviation(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> T:
    """``normal(0, gain / sqrt(fan))``; see `kaiming_uniform_`.

    >>> kaiming_normal_(Tensor([[0.0] * 3] * 2), mode="fan_out").shape
    (2, 3)
    """
    return normal_(tensor, 0.0, _kaiming_deviation(tensor, a, mode, nonlinearity))


def orthogonal_(tensor: T, gain: float = 1.0) -> T:
    """A random matrix whose rows, or columns, are orthonormal, times a factor (Saxe et al. 2014).

    The matrix is that of the first axis and all others. Of the stacked gates of a recurrent layer
    each gets one of its own by ``initialization="orthogonal"``.

    Raises:
        ValueError: the Tensor has fewer than 2 axes.

    >>> weight = orthogonal_(Tensor([[0.0] * 3] * 2)).data
    >>> (weight @ weight.T).round(4) + 0
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    _fans(tensor)
    initialization.orthogonal(tensor)
    return _filled(tensor, gain * tensor.data)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before a nonlinearity are larger, to keep the variance.

    Args:
        nonlinearity: "linear", "conv1d", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
        param: The slope of "leaky_relu" below 0, 0.01 by default.

    Raises:
        ValueError: another name.

    >>> calculate_gain("tanh"), round(calculate_gain("relu"), 4)
    (1.6666666666666667, 1.4142)
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0, "conv1d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)), "selu": 3 / 4,
    }  # fmt: skip
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity {nonlinearity!r} is not one of {', '.join(gains)}")
    return gains[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    """The numbers of inputs and outputs of each unit.

    Raises:
        ValueError: the Tensor has fewer than 2 axes.
    """
    if tensor.ndim < 2:
        raise ValueError(
            f"a Tensor of shape {tensor.shape} has no inputs and outputs; a vector, such as a "
            "bias, is filled by zeros_, uniform_ or normal_"
        )
    terms = int(np.prod(tensor.shape[2:]))
    return tensor.shape[1] * terms, tensor.shape[0] * terms


def _kaiming_deviation(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    modes = ("fan_in", "fan_out")
    if mode not in modes:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(modes)}")
    return calculate_gain(nonlinearity, a) / math.sqrt(_fans(tensor)[modes.index(mode)])


if not TYPE_CHECKING:  # type checkers should see the real attributes only
    __getattr__ = foreign_names.module_getattr("anaphora.nn.init")
