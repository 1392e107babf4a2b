"""Differentiable operations: value and pullback side by side, one file per family."""

from typing import TYPE_CHECKING

from anaphora import foreign_names
from anaphora.ops import numpy_functions  # noqa: F401 - registers them
from anaphora.ops.activations import (
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from anaphora.ops.arithmetic import (
    abs,
    add,
    astype,
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
from anaphora.ops.attention import additive_scores, masked_softmax
from anaphora.ops.convolution import conv1d
from anaphora.ops.crf import crf_decode, crf_loss, crf_marginals
from anaphora.ops.ctc import ctc_loss
from anaphora.ops.likelihoods import (
    gaussian_nll_loss,
    negative_binomial_nll_loss,
    student_t_nll_loss,
)
from anaphora.ops.linear import linear, matmul
from anaphora.ops.losses import (
    balanced_class_weights,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    linear_cross_entropy,
    mean_squared_error,
    nll_loss,
    pinball_loss,
)
from anaphora.ops.network import dropout, embedding, layer_norm, one_hot
from anaphora.ops.normalization import batch_norm
from anaphora.ops.penalties import activation_penalty, temporal_penalty
from anaphora.ops.recurrence import recurrence, recurrence_unfused
from anaphora.ops.reductions import max, mean, sum
from anaphora.ops.shapes import (
    broadcast_to,
    concatenate,
    getitem,
    pad,
    reshape,
    split,
    stack,
    transpose,
    unstack,
)

__all__ = [
    "abs",
    "activation_penalty",
    "add",
    "additive_scores",
    "astype",
    "balanced_class_weights",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "concatenate",
    "conv1d",
    "crf_decode",
    "crf_loss",
    "crf_marginals",
    "cross_entropy",
    "ctc_loss",
    "divide",
    "dropout",
    "elu",
    "embedding",
    "exp",
    "gaussian_nll_loss",
    "gelu",
    "getitem",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_cross_entropy",
    "log",
    "log_softmax",
    "masked_softmax",
    "matmul",
    "max",
    "maximum",
    "mean",
    "mean_squared_error",
    "minimum",
    "multiply",
    "negative",
    "negative_binomial_nll_loss",
    "nll_loss",
    "one_hot",
    "pad",
    "pinball_loss",
    "power",
    "recurrence",
    "recurrence_unfused",
    "relu",
    "reshape",
    "sigmoid",
    "sign",
    "silu",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "stack",
    "student_t_nll_loss",
    "subtract",
    "sum",
    "tanh",
    "temporal_penalty",
    "transpose",
    "unstack",
    "where",
]

if not TYPE_CHECKING:  # type checkers should see the real attributes only
    __getattr__ = foreign_names.module_getattr("anaphora.ops")
