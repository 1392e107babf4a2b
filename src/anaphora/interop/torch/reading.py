"""Modules of PyTorch as ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from anaphora import nn
from anaphora.interop.layers import function
from anaphora.interop.torch.layers import (
    ChannelsFirst,
    NormChannelsFirst,
    Sequential,
    numbers,
    place_of,
    pytorch,
)
from anaphora.interop.torch.traced import Own, Traced, member, traced_forward
from anaphora.nn.initialization import shapes_only
from anaphora.tensor import Parameter


def from_torch(module: Any) -> nn.Module:
    """A module of PyTorch as one of ours: the same structure, names, options and weights.

    RNN, LSTM, GRU and their cells, Embedding, Linear, LayerNorm, BatchNorm1d, Conv1d, Dropout,
    activations and Sequential become our layers. It takes and returns what the module did: Conv1d
    and BatchNorm1d keep PyTorch's layout [B, I, T] (`ChannelsFirst`, `NormChannelsFirst`). A module
    of one's own class becomes an `Own`, with the same parts by their names: its ``forward`` is
    traced by torch.fx, with packed sequences.

    Weights are copied, those of bfloat16 and float16 to float32, exactly; shared ones stay shared.

    Raises:
        ImportError: there is no PyTorch.
        ValueError: a layer has no equivalent; the message names it.

    >>> import torch
    >>> from_torch(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()))
    Sequential(
      (0): Linear(3, 4, bias=True) (16 parameters)
      (1): Tanh()
    ) (16 parameters)
    """
    torch = pytorch()
    while type(module).__name__ in ("DataParallel", "DistributedDataParallel"):
        module = module.module
    with shapes_only():
        made = _converted(torch, module, "")
    parameters = dict(made.named_parameters())
    shared: dict[int, Parameter] = {}
    for name, theirs in module.named_parameters(remove_duplicate=False):
        parameter = parameters[name]
        if (first := shared.get(id(theirs))) is not None:
            owner, _, last = name.rpartition(".")
            setattr(member(made, owner) if owner else made, last, first)
            continue
        shared[id(theirs)] = parameter
        parameter.assign(numbers(torch, theirs))
        parameter.requires_grad = theirs.requires_grad
    buffers = dict(made.named_buffers())
    for name, theirs in module.named_buffers():
        if name in buffers:
            with buffers[name].writing() as array:
                array[...] = numbers(torch, theirs)
    for name, theirs in module.named_modules():
        (member(made, name) if name else made).training = theirs.training
    return made


def _dtype(torch: Any, module: Any) -> Any:
    return next((np.float64 for p in module.parameters() if p.dtype == torch.float64), np.float32)


def _converted(torch: Any, module: Any, place: str) -> nn.Module:
    kind = type(module)
    make = _MAKERS.get(kind.__name__) if kind.__module__.startswith("torch.nn.modules") else None
    if make is not None:
        try:
            return make(module, _dtype(torch, module))
        except ValueError as error:
            raise ValueError(f"{place_of(place, kind)}: {error}") from error
    inside = {
        name: _converted(torch, child, f"{place}.{name}".strip("."))
        for name, child in module.named_children()
    }
    if kind is torch.nn.Sequential:
        return Sequential(*inside.values())
    if kind.__module__.startswith("torch.nn.modules"):
        if kind.__name__ in ("ModuleList", "ModuleDict"):
            return Own(kind.__name__, inside, Traced(problem="its members are called, not it"))
        known = ", ".join([*_MAKERS, "Sequential"])
        raise ValueError(f"{place_of(place, kind)} has no equivalent; expected {known}")
    members: dict[str, Any] = {}  # in PyTorch's order
    for name, parameter in module.named_parameters(recurse=False):
        dtype = np.float64 if parameter.dtype == torch.float64 else np.float32
        members[name] = Parameter.without_memory(tuple(parameter.shape), dtype)
    for name, buffer in module.named_buffers(recurse=False):
        members[name] = numbers(torch, buffer)
    members |= inside
    try:
        return Own(kind.__name__, members, traced_forward(torch, module))
    except ValueError as error:
        raise ValueError(f"{place_of(place, kind)}: {error}") from error


def _sole(value: Any, name: str) -> int:
    """The number of a tuple of one."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    if not isinstance(value, int):
        raise ValueError(f"{name}={value!r} cannot be converted")
    return value


def _recurrent(module: Any, dtype: Any) -> nn.Module:
    kinds = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
    options: dict[str, Any] = {
        name: getattr(module, name)
        for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
    }
    if module.mode.startswith("RNN"):
        options["nonlinearity"] = module.nonlinearity
    if module.proj_size:
        options["proj_size"] = module.proj_size
    make: Any = kinds[type(module).__name__]
    layer: nn.Module = make(module.input_size, module.hidden_size, dtype=dtype, **options)
    return layer


def _cell(module: Any, dtype: Any) -> nn.Module:
    kind = type(module).__name__.removesuffix("Cell").lower()
    if getattr(module, "nonlinearity", None) == "relu":
        kind += "_relu"
    size = module.input_size, module.hidden_size
    return nn.RecurrentCell(kind, *size, module.bias, dtype=dtype)


def _embedding(module: Any, dtype: Any) -> nn.Module:
    if module.max_norm is not None:
        raise ValueError("max_norm, which changes the table when it is read, is not supported")
    return nn.Embedding(
        module.num_embeddings, module.embedding_dim, module.padding_idx, dtype=dtype
    )


def _layer_norm(module: Any, dtype: Any) -> nn.Module:
    size = _sole(module.normalized_shape, "normalized_shape")
    if not module.elementwise_affine:
        raise ValueError("elementwise_affine=False is not supported")
    return nn.LayerNorm(size, module.eps, module.bias is not None, dtype=dtype)


def _convolution(module: Any, dtype: Any) -> nn.Module:
    if module.padding_mode != "zeros":
        raise ValueError(f"padding_mode={module.padding_mode!r} is not supported; only zeros are")
    padding = module.padding
    if not isinstance(padding, str):
        padding = _sole(padding, "padding")
    return ChannelsFirst(
        module.in_channels,
        module.out_channels,
        _sole(module.kernel_size, "kernel_size"),
        _sole(module.stride, "stride"),
        0 if padding == "valid" else padding,
        _sole(module.dilation, "dilation"),
        module.groups,
        module.bias is not None,
        dtype=dtype,
    )


def _batch_norm(module: Any, dtype: Any) -> nn.Module:
    return NormChannelsFirst(
        module.num_features,
        module.eps,
        module.momentum,
        module.affine,
        module.track_running_stats,
        dtype=dtype,
    )


def _over_classes(name: str) -> Callable[[Any, Any], nn.Module]:
    def make(module: Any, dtype: Any) -> nn.Module:
        if module.dim not in (-1, None):
            raise ValueError(f"dim={module.dim} is not supported; it must be the last, -1")
        return function(name)

    return make


def _gelu(module: Any, dtype: Any) -> nn.Module:
    return function("gelu_tanh" if module.approximate == "tanh" else "gelu")


_MAKERS: dict[str, Callable[[Any, Any], nn.Module]] = {
    "RNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNNCell": _cell,
    "LSTMCell": _cell,
    "GRUCell": _cell,
    "Linear": lambda m, dtype: nn.Linear(
        m.in_features, m.out_features, m.bias is not None, dtype=dtype
    ),
    "Embedding": _embedding,
    "LayerNorm": _layer_norm,
    "BatchNorm1d": _batch_norm,
    "Conv1d": _convolution,
    "Dropout": lambda m, dtype: nn.Dropout(m.p),
    "Identity": lambda m, dtype: function("linear"),
    "Tanh": lambda m, dtype: function("tanh"),
    "Sigmoid": lambda m, dtype: function("sigmoid"),
    "ReLU": lambda m, dtype: function("relu"),
    "ReLU6": lambda m, dtype: function("clipped", 0.0, 6.0),
    "Hardtanh": lambda m, dtype: function("clipped", m.min_val, m.max_val),
    "Hardsigmoid": lambda m, dtype: function("hard_sigmoid", 1 / 6),
    "Hardswish": lambda m, dtype: function("hard_silu", 1 / 6),
    "LeakyReLU": lambda m, dtype: function("leaky_relu", m.negative_slope),
    "ELU": lambda m, dtype: function("elu", m.alpha),
    "SELU": lambda m, dtype: function("selu"),
    "GELU": _gelu,
    "SiLU": lambda m, dtype: function("silu"),
    "Mish": lambda m, dtype: function("mish"),
    "Softsign": lambda m, dtype: function("softsign"),
    "Tanhshrink": lambda m, dtype: function("tanhshrink"),
    "LogSigmoid": lambda m, dtype: function("log_sigmoid"),
    "Softmax": _over_classes("softmax"),
    "LogSoftmax": _over_classes("log_softmax"),
}
"""What makes our layer of one of PyTorch's, by its class."""
