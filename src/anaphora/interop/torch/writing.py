"""Our modules as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from anaphora import nn
from anaphora.cells import CELLS
from anaphora.interop.cells import Activation
from anaphora.interop.layers import named_function
from anaphora.interop.torch.layers import (
    ChannelsFirst,
    NormChannelsFirst,
    Sequential,
    place_of,
    pytorch,
)
from anaphora.models import (
    ConditionalLanguageModel,
    EncoderDecoder,
    Forecaster,
    LanguageModel,
    SequenceTagger,
    VectorToSequence,
)
from anaphora.models.decoder import Decoder
from anaphora.models.reader import CharacterLayer, Reader
from anaphora.models.sequences import SequenceToVector


def to_torch(model: nn.Module) -> Any:
    """One of our modules as one of PyTorch's: the same structure, names, options and weights.

    Sequential, RNN, LSTM, GRU, Embedding, Linear, LayerNorm, BatchNorm1d, Conv1d, Dropout and
    activations become PyTorch's; it takes and returns what ours does, [T, B, ...] by default. So do
    models (`anaphora.models`) whose layers are these: language models, taggers, classifiers,
    regressors, encoder-decoders and decoders of vectors, with ids and lengths as tensors of
    integers. A module of another class becomes a ``torch.nn.Module`` with the same parts and
    ``state_dict()``, whose forward is to be written, in a subclass or as ``module.forward = ...``.

    Weights are copied, those that are computed with in 8 bits as the floats that they are stored
    as; shared ones stay shared. Codecs stay behind.

    Raises:
        ImportError: there is no PyTorch.
        ValueError: a layer has no equivalent, such as one of another cell; the message names it.

    >>> import torch
    >>> to_torch(nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 2)))(torch.ones(5, 2, 3)).shape
    torch.Size([5, 2, 2])
    """
    torch = pytorch()
    made = _to(torch, model, "")
    tensors: dict[int, Any] = {}
    for name, ours in model.named_parameters(remove_duplicate=False):
        owner, _, last = name.rpartition(".")
        module = made.get_submodule(owner)
        if id(ours) not in tensors:
            array = torch.from_numpy(np.array(ours.data))
            tensors[id(ours)] = torch.nn.Parameter(array, requires_grad=ours.requires_grad)
        setattr(module, last, tensors[id(ours)])
    for name, buffer in model.named_buffers():
        owner, _, last = name.rpartition(".")
        made.get_submodule(owner).register_buffer(last, torch.from_numpy(np.array(buffer.data)))
    for name, part in model.named_modules():
        made.get_submodule(name).training = part.training
    return made


def _to(torch: Any, module: nn.Module, place: str) -> Any:
    kind = type(module)
    dtype = next((torch.float64 for p in module.parameters() if p.dtype == np.float64), None)
    options = {} if dtype is None else {"dtype": dtype}
    if isinstance(module, nn.Recurrent) and kind.forward is nn.Recurrent.forward:
        return _to_recurrent(torch, module, place_of(place, kind), options)
    if kind is nn.Linear and isinstance(module, nn.Linear):
        bias = module.bias is not None
        return torch.nn.Linear(module.in_features, module.out_features, bias, **options)
    if kind is nn.Embedding and isinstance(module, nn.Embedding):
        if module.dropout:
            raise ValueError(f"{place_of(place, kind)}: dropout of embeddings has no equivalent")
        return torch.nn.Embedding(
            module.num_embeddings, module.embedding_dim, module.padding_idx, **options
        )
    if kind is nn.Dropout and isinstance(module, nn.Dropout):
        if module.locked and module.p:
            raise ValueError(f"{place_of(place, kind)}: a locked dropout has no equivalent")
        return torch.nn.Dropout(module.p)
    if kind is nn.LayerNorm and isinstance(module, nn.LayerNorm):
        bias = module.bias is not None
        return torch.nn.LayerNorm(module.normalized_shape, module.epsilon, bias=bias, **options)
    if isinstance(module, nn.BatchNorm1d) and kind in (nn.BatchNorm1d, NormChannelsFirst):
        return _to_batch_norm(torch, module, options)
    if isinstance(module, nn.Conv1d) and kind in (nn.Conv1d, ChannelsFirst):
        return _to_convolution(torch, module, options)
    if (
        isinstance(module, nn.RecurrentCell)
        and module.kind.name in _CELLS
        and module.kind.cell is CELLS[module.kind.name]
    ):
        return _to_cell(torch, module, options)
    if (activation := named_function(module)) is not None:
        return _to_function(torch, activation, place_of(place, kind))
    inside = {
        name: _to(torch, child, f"{place}.{name}".strip("."))
        for name, child in module.named_modules()
        if name and "." not in name
    }
    nested = [n for n, _ in module.named_modules() if n.partition(".")[0] not in inside and n]
    if nested:
        raise ValueError(
            f"{place_of(place, kind)}: {nested[0]} is in a list or a dictionary, which PyTorch "
            "names otherwise; make it an attribute"
        )
    if isinstance(module, nn.Sequential):
        return _to_sequential(torch, module, inside)
    if (model := _to_model(module, place)) is not None:
        for name, child in inside.items():
            setattr(model, name, child)
        return model

    class Converted(torch.nn.Module):  # type: ignore[misc]
        def forward(self, *arguments: Any, **options: Any) -> Any:
            raise NotImplementedError(
                f"{kind.__name__}: its parts and weights were converted, but its forward is to be "
                "written: module.forward = lambda x: ..., with module's parts"
            )

    Converted.__name__ = Converted.__qualname__ = kind.__name__
    made = Converted()
    for name, child in inside.items():
        made.add_module(name, child)
    return made


def _to_model(module: nn.Module, place: str) -> Any:
    """What computes in PyTorch as a model does, or a part of one, without its parts.

    None for another class.

    Raises:
        ValueError: PyTorch has no equivalent for what a model reads or computes.
    """
    from anaphora.interop.torch import models as theirs  # which imports PyTorch

    if isinstance(module, (Forecaster, nn.CRF)):
        what = "reads windows of series" if isinstance(module, Forecaster) else "decodes paths"
        raise ValueError(
            f"{place_of(place, type(module))}: {what}, which has no equivalent in PyTorch; convert "
            "the modules beside it"
        )
    forward = type(module).forward
    if isinstance(module, Reader) and (type(module).read, type(module).embed) != (
        Reader.read, Reader.embed
    ):  # fmt: skip
        return None
    if forward is SequenceToVector.forward and isinstance(module, SequenceToVector):
        return theirs.SequenceToVector(module.pooling)
    if forward is ConditionalLanguageModel.forward:
        encode = getattr(type(module), "encode", None)
        if encode is EncoderDecoder.encode:
            return theirs.EncoderDecoder()
        return theirs.VectorToSequence() if encode is VectorToSequence.encode else None
    plain: dict[Any, Callable[[], Any]] = {
        LanguageModel.forward: theirs.LanguageModel,
        SequenceTagger.forward: theirs.SequenceTagger,
        CharacterLayer.forward: theirs.CharacterLayer,
        Decoder.forward: theirs.Decoder,
    }
    if type(module) in (nn.AdditiveAttention, nn.MultiplicativeAttention):
        plain[forward] = getattr(theirs, type(module).__name__)
    return plain[forward]() if forward in plain else None


def _to_recurrent(torch: Any, module: nn.Recurrent, place: str, options: dict[str, Any]) -> Any:
    kinds = {"rnn": "RNN", "rnn_relu": "RNN", "lstm": "LSTM", "gru": "GRU"}
    if (name := kinds.get(module.kind.name)) is None or CELLS[module.kind.name] is not module.cell:
        raise ValueError(f"{place}: PyTorch has no layer of {module.kind.name!r}")
    for option in ("weight_dropout", "zoneout", "layer_norm", "trainable_state"):
        if getattr(module, option):
            raise ValueError(f"{place}: {option} has no equivalent in PyTorch")
    if module.locked_dropout and module.dropout:
        raise ValueError(f"{place}: locked_dropout has no equivalent in PyTorch")
    if name == "RNN":
        options = {**options, "nonlinearity": "relu" if "relu" in module.kind.name else "tanh"}
    if module.proj_size:
        if name != "LSTM":
            raise ValueError(f"{place}: PyTorch projects only LSTMs")
        options = {**options, "proj_size": module.proj_size}
    dropout = module.dropout if module.num_layers > 1 else 0.0  # PyTorch warns of it for one
    return getattr(torch.nn, name)(
        module.input_size, module.hidden_size, module.num_layers, bias=module.bias,
        batch_first=module.batch_first, dropout=dropout, bidirectional=module.bidirectional,
        **options,
    )  # fmt: skip


def _to_convolution(torch: Any, module: nn.Conv1d, options: dict[str, Any]) -> Any:
    first = isinstance(module, ChannelsFirst)
    before, after = module._padding
    batch_first = module.batch_first

    class Convolution(torch.nn.Conv1d):  # type: ignore[misc]
        """A convolution of [T, B, I], or [B, T, I] or [T, I], with zeros before and after."""

        def forward(self, x: Any) -> Any:
            if first:
                return super().forward(torch.nn.functional.pad(x, (before, after)))
            axes = (1, 0) if x.ndim == 2 else (0, 2, 1) if batch_first else (1, 2, 0)
            back = (1, 0) if x.ndim == 2 else (0, 2, 1) if batch_first else (2, 0, 1)
            padded = torch.nn.functional.pad(x.permute(axes), (before, after))
            return super().forward(padded).permute(back)

    plain = first and before == after
    make = torch.nn.Conv1d if plain else Convolution
    return make(
        module.in_channels, module.out_channels, module.kernel_size, module.stride,
        before if plain else 0, module.dilation, module.groups, module.bias is not None, **options,
    )  # fmt: skip


def _to_batch_norm(torch: Any, module: nn.BatchNorm1d, options: dict[str, Any]) -> Any:
    class Norm(torch.nn.BatchNorm1d):  # type: ignore[misc]
        """A normalization of [..., I]."""

        def forward(self, x: Any) -> Any:
            return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    make = torch.nn.BatchNorm1d if isinstance(module, NormChannelsFirst) else Norm
    return make(
        module.num_features, module.epsilon, module.momentum, module.weight is not None,
        module.running_mean is not None, **options,
    )  # fmt: skip


_CELLS = {"rnn": "RNNCell", "rnn_relu": "RNNCell", "lstm": "LSTMCell", "gru": "GRUCell"}


def _to_cell(torch: Any, module: nn.RecurrentCell, options: dict[str, Any]) -> Any:
    if module.kind.name == "rnn_relu":
        options = {**options, "nonlinearity": "relu"}
    make = getattr(torch.nn, _CELLS[module.kind.name])
    return make(module.input_size, module.hidden_size, module.bias, **options)


def _to_function(torch: Any, activation: Activation, place: str) -> Any:
    nn_, (name, options) = torch.nn, activation
    makers: dict[str, Callable[..., Any]] = {
        "linear": nn_.Identity, "tanh": nn_.Tanh, "sigmoid": nn_.Sigmoid, "relu": nn_.ReLU,
        "softplus": nn_.Softplus, "softsign": nn_.Softsign, "elu": nn_.ELU, "selu": nn_.SELU,
        "leaky_relu": nn_.LeakyReLU, "silu": nn_.SiLU, "mish": nn_.Mish, "clipped": nn_.Hardtanh,
        "log_sigmoid": nn_.LogSigmoid, "tanhshrink": nn_.Tanhshrink,
        "gelu": nn_.GELU, "gelu_tanh": lambda: nn_.GELU("tanh"), "softmax": lambda: nn_.Softmax(-1),
        "log_softmax": lambda: nn_.LogSoftmax(-1),
    }  # fmt: skip
    slopes: dict[str, Any] = {"hard_sigmoid": nn_.Hardsigmoid, "hard_silu": nn_.Hardswish}
    if name in slopes and options == (1 / 6,):
        return slopes[name]()
    if name not in makers:
        raise ValueError(
            f"{place}: {', '.join([name, *map(str, options)])} has no equivalent in PyTorch"
        )
    return makers[name](*options)


def _to_sequential(torch: Any, module: nn.Sequential, inside: Mapping[str, Any]) -> Any:
    whole_results = isinstance(module, Sequential)
    carries = [part.returns_state for part in module]

    class Outputs(torch.nn.Sequential):  # type: ignore[misc]
        """A Sequential whose modules get the output of a recurrent layer, without its state."""

        def forward(self, x: Any) -> Any:
            before = False
            for part, carries_state in zip(self, carries, strict=True):
                x, before = part(x[0] if before else x), carries_state
            return x

    plain = whole_results or not any(carries[:-1])
    return (torch.nn.Sequential if plain else Outputs)(*inside.values())
