"""Modules of PyTorch in and out, and its checkpoints."""

from __future__ import annotations

import inspect
import itertools
import math
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anaphora import nn, ops
from anaphora.artifact import ArtifactError
from anaphora.cells import CELLS
from anaphora.interop.cells import ACTIVATIONS, Activation
from anaphora.interop.layers import function, named_function
from anaphora.interop.models import of_state
from anaphora.models import SavedModel
from anaphora.nn.initialization import shapes_only
from anaphora.tensor import Array, Parameter, Tensor, as_tensor

__all__ = [
    "ChannelsFirst", "Own", "Sequential", "from_torch", "load_checkpoint", "to_torch",
]  # fmt: skip


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError("this needs PyTorch: pip install torch") from error
    return torch


# Modules that PyTorch has and we lack -------------------------------------------------------------


class ChannelsFirst(nn.Conv1d):
    """A convolution with PyTorch's layout, [B, I, T] or [I, T] to [B, O, S] or [O, S].

    >>> ChannelsFirst(3, 2, kernel_size=4)(np.ones((5, 3, 9), np.float32)).shape
    (5, 2, 6)
    """

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        """Convolve; as `nn.Conv1d` but for the layout."""
        x = as_tensor(x, self.weight.dtype, "Conv1d: an input")
        if x.ndim not in (2, 3):
            raise ValueError(f"Conv1d: an input of shape {x.shape}; expected [B, I, T] or [I, T]")
        y = super().forward(x.transpose(2, 0, 1) if x.ndim == 3 else x.transpose(1, 0), lengths)
        return y.transpose(1, 2, 0) if y.ndim == 3 else y.transpose(1, 0)


class NormChannelsFirst(nn.BatchNorm1d):
    """A batch normalization with PyTorch's layout, [B, I, T] or [B, I].

    >>> NormChannelsFirst(3).eval()(np.ones((5, 3, 9), np.float32)).shape
    (5, 3, 9)
    """

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        """Normalize; as `nn.BatchNorm1d` but for the layout."""
        x = as_tensor(x, self.dtype, "BatchNorm1d: an input")
        if x.ndim != 3:
            return super().forward(x, lengths)
        return super().forward(x.transpose(2, 0, 1), lengths).transpose(1, 2, 0)


class Packed(NamedTuple):
    """A packed sequence of PyTorch, here a padded batch with its lengths.

    Attributes:
        data: [T, B, ...], or [B, T, ...].
        lengths: [B].
        batch_first: Whether the batch is the first axis.
    """

    data: Any
    lengths: Array
    batch_first: bool


class Step(NamedTuple):
    """One operation of a traced forward: what is called, and with what.

    Attributes:
        result: The name of its result.
        kind: "input", "module", "attribute", "call" or "output".
        target: The name of what is called or read.
        arguments: With a `Reference` for each earlier result.
        options: Those by name.
    """

    result: str
    kind: str
    target: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Reference(NamedTuple):
    """An earlier result, by its name."""

    name: str


@dataclass(frozen=True)
class Traced:
    """What a module's forward computes.

    Attributes:
        names: The names of its arguments.
        defaults: The values of those that may be omitted.
        graphs: The operations, or why there are none, by the arguments that are given among those
            that are None by default.
        problem: Why there are no graphs at all.
    """

    names: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    graphs: Mapping[frozenset[str], list[Step] | str] = field(default_factory=dict)
    problem: str = ""


class Own(nn.Module):
    """A module of one's own class in PyTorch: its parts by their names, and its traced forward.

    What ``forward`` computes was written down operation by operation, once for each combination of
    arguments that are None by default. Where that was not possible, a call says why; then write
    the class anew, with a forward, and load the ``state_dict()``.

    >>> parts = {"linear": nn.Linear(3, 2)}
    >>> Own("Model", parts, Traced(problem="it has a loop over its input"))([[1.0]])
    Traceback (most recent call last):
    NotImplementedError: Model: its forward could not be traced: it has a loop over its input; ...
    """

    def __init__(self, name: str, members: Mapping[str, Any], traced: Traced) -> None:
        self._own_name = name
        self._traced = traced
        for member, value in members.items():
            if hasattr(nn.Module, member) or member in vars(self):
                raise ValueError(
                    f"its attribute {member!r} has a name that Module needs; rename it"
                )
            setattr(self, member, value)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Compute what the traced forward does."""
        given = self._given(arguments, options)
        values: dict[str, Any] = {}
        for step in self._graph(given):
            if step.kind == "input":
                values[step.result] = _input(given[step.target])
                continue
            passed = _resolved(step.arguments, values)
            if step.kind == "output":
                return passed[0]
            values[step.result] = self._result(step, passed, _resolved(step.options, values))
        return None

    def _given(self, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name."""
        names, defaults = self._traced.names, self._traced.defaults
        given = {**defaults, **dict(zip(names, arguments, strict=False)), **options}
        wrong = [name for name in given if name not in names] + [*arguments[len(names) :]]
        if self._traced.graphs and (wrong or (missing := [n for n in names if n not in given])):
            problem = f"not {len(arguments)} and {', '.join(options) or 'none'} by name"
            if not wrong:
                problem = f"and {missing[0]} is missing"
            raise TypeError(f"{self._own_name}: takes {', '.join(names)}, {problem}")
        for name, default in defaults.items():
            value = given[name]
            if default is not None and (type(value) is not type(default) or value != default):
                raise ValueError(
                    f"{self._own_name}: its forward was traced with {name}={default!r}, and cannot "
                    f"be called with {value!r:.60}"
                )
        return given

    def _graph(self, given: Mapping[str, Any]) -> list[Step]:
        """The operations for these arguments."""
        graph: Any = self._traced.problem
        if self._traced.graphs:
            optional = (name for name, value in self._traced.defaults.items() if value is None)
            graph = self._traced.graphs[frozenset(n for n in optional if given[n] is not None)]
        if isinstance(graph, str):
            raise NotImplementedError(
                f"{self._own_name}: its forward could not be traced: {graph}; write the class anew "
                "with anaphora.nn, with a forward, and load this module's state_dict() into it"
            )
        steps: list[Step] = graph
        return steps

    def _result(self, step: Step, arguments: Any, options: Any) -> Any:
        if step.kind == "attribute":
            value = _member(self, step.target)
            return value if isinstance(value, Tensor) else _input(value)
        if step.kind == "module":
            module = _member(self, step.target)
            if isinstance(module, nn.Recurrent) and isinstance(arguments[0], Packed):
                packed, *rest = arguments
                layer: Any = module
                y, state = layer(packed.data, *rest, lengths=packed.lengths, **_named(options))
                return Packed(y, packed.lengths, packed.batch_first), state
            return module(*arguments, **_named(options))
        if step.target == "dropout":
            return _dropout(self, *arguments, **options)
        try:
            return _CALLS[step.target](*arguments, **options)
        except TypeError as error:
            raise TypeError(f"{self._own_name}: {step.target}: {error}") from error

    def extra_repr(self) -> str:  # noqa: D102
        return self._own_name


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of PyTorch's layers by our names."""
    return {"state" if name in ("hx", "h_0") else name: v for name, v in options.items()}


def _member(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = module[int(name)] if isinstance(module, nn.Sequential) else getattr(module, name)
    return module


def _input(value: Any) -> Any:
    """An array as a Tensor, since operations on it are to be those of Tensors."""
    if isinstance(value, (list, np.ndarray)):
        array = np.asarray(value)
        return Tensor(array) if array.dtype.kind == "f" else array
    return tuple(map(_input, value)) if isinstance(value, tuple) else value


def _resolved(value: Any, values: Mapping[str, Any]) -> Any:
    """Arguments with the results that they refer to."""
    if isinstance(value, Reference):
        return values[value.name]
    if isinstance(value, tuple):
        return tuple(_resolved(v, values) for v in value)
    if isinstance(value, list):
        return [_resolved(v, values) for v in value]
    if isinstance(value, dict):
        return {name: _resolved(v, values) for name, v in value.items()}
    if isinstance(value, slice):
        return slice(*(_resolved(v, values) for v in (value.start, value.stop, value.step)))
    return value


# What traced forwards call ------------------------------------------------------------------------


def _same(x: Any, *arguments: Any, **options: Any) -> Any:
    return x


def _transposed(x: Any, dim0: int, dim1: int) -> Any:
    axes = [*range(x.ndim)]
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return x.transpose(*axes)


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape


def _expanded(x: Any, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of ``x.expand(sizes)``, where -1 keeps a size."""
    own = (1,) * (len(sizes) - x.ndim) + tuple(x.shape)
    return tuple(o if s == -1 else s for o, s in zip(own, sizes, strict=True))


def _squeezed(x: Any, dim: Any = None) -> Any:
    axes = range(x.ndim) if dim is None else np.atleast_1d(dim) % x.ndim
    return x.reshape([s for k, s in enumerate(x.shape) if not (k in axes and s == 1)])


def _unsqueezed(x: Any, dim: int) -> Any:
    dim = dim % (x.ndim + 1)
    return x.reshape((*x.shape[:dim], 1, *x.shape[dim:]))


def _flattened(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    start, end = start_dim % x.ndim, end_dim % x.ndim
    return x.reshape((*x.shape[:start], -1, *x.shape[end + 1 :]))


def _over(name: str) -> Callable[..., Any]:
    def reduced(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        return getattr(x, name)(tuple(dim) if isinstance(dim, list) else dim, keepdim)

    return reduced


def _largest(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        return x.max()
    values = x.data if isinstance(x, Tensor) else x
    places = np.argmax(values, dim, keepdims=keepdim)
    return x.max(dim, keepdim), places


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    def over(x: Any, dim: int = -1, dtype: Any = None, _stacklevel: int = 3) -> Any:
        return function(x, axis=dim)

    return over


def _dropout(
    module: nn.Module, x: Any, p: float = 0.5, training: bool | None = None, inplace: bool = False
) -> Any:
    """Functional dropout, in training if it was told of it, else always."""
    return ops.dropout(x, p) if training is None or module.training else x


def _pack(x: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> Packed:
    ends = np.asarray(lengths.data if isinstance(lengths, Tensor) else lengths)
    return Packed(x, ends.astype(np.int64), batch_first)


def _pad(
    packed: Packed, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Any, Array]:  # fmt: skip
    steps = int(packed.lengths.max()) if total_length is None else total_length
    y = packed.data[:, :steps] if packed.batch_first else packed.data[:steps]
    return _transposed(y, 0, 1) if packed.batch_first != batch_first else y, packed.lengths


def _zeros(*shape: Any, **options: Any) -> Tensor:
    return Tensor(np.zeros(_sizes(shape), np.float32))


def _attribute(x: Any, name: str) -> Any:
    if name in ("device", "dtype", "is_cuda"):
        return None
    return x.data if name == "data" and not isinstance(x, Packed) else getattr(x, name)


def _elementwise(name: str) -> Callable[..., Any]:
    def function(x: Any, inplace: bool = False) -> Any:
        return ACTIVATIONS[name](x)

    return function


_CALLS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(operator, name)
        for name in ("add", "sub", "mul", "truediv", "floordiv", "neg", "pow", "getitem", "matmul")
    },
    **{f"i{name}": getattr(operator, name) for name in ("add", "sub", "mul", "truediv")},
    **{
        name: _elementwise(name)
        for name in ("tanh", "sigmoid", "relu", "softplus", "softsign", "selu", "silu", "mish")
    },
    **dict.fromkeys(
        (
            "contiguous", "detach", "clone", "to", "cpu", "cuda", "float", "type_as",
            "requires_grad_", "flatten_parameters",
        ),
        _same,
    ),
    "rsub": lambda x, y: y - x,
    "div": operator.truediv,
    "bmm": operator.matmul,
    "mm": operator.matmul,
    "relu_": _elementwise("relu"),
    "logsigmoid": _elementwise("log_sigmoid"),
    "gelu": ops.gelu,
    "leaky_relu": lambda x, negative_slope=0.01, inplace=False: ops.leaky_relu(x, negative_slope),
    "elu": lambda x, alpha=1.0, inplace=False: ops.elu(x, alpha),
    "linear": ops.linear,
    "embedding": lambda ids, weight, *options, **named: ops.embedding(weight, ids),
    "expand": lambda x, *sizes: ops.broadcast_to(x, _expanded(x, _sizes(sizes))),
    "exp": ops.exp,
    "log": ops.log,
    "sqrt": ops.sqrt,
    "abs": ops.abs,
    "softmax": _along(ops.softmax),
    "log_softmax": _along(ops.log_softmax),
    "cat": lambda tensors, dim=0: ops.concatenate(tensors, dim),
    "concat": lambda tensors, dim=0: ops.concatenate(tensors, dim),
    "stack": lambda tensors, dim=0: ops.stack(tensors, dim),
    "chunk": lambda x, chunks, dim=0: ops.split(x, chunks, dim),
    "unbind": lambda x, dim=0: ops.unstack(x, dim),
    "transpose": _transposed,
    "permute": lambda x, *dims: x.transpose(*_sizes(dims)),
    "reshape": lambda x, *shape: x.reshape(_sizes(shape)),
    "view": lambda x, *shape: x.reshape(_sizes(shape)),
    "flatten": _flattened,
    "squeeze": _squeezed,
    "unsqueeze": _unsqueezed,
    "size": lambda x, dim=None: x.shape if dim is None else x.shape[dim],
    "dim": lambda x: x.ndim,
    "getattr": _attribute,
    "sum": _over("sum"),
    "mean": _over("mean"),
    "max": _largest,
    "amax": lambda x, dim=None, keepdim=False: x.max(dim, keepdim),
    "zeros": _zeros,
    "pack_padded_sequence": _pack,
    "pad_packed_sequence": _pad,
    "dropout": _dropout,
}  # fmt: skip
"""Functions, operators and methods of PyTorch by name, on our Tensors."""


# From PyTorch -------------------------------------------------------------------------------------


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
    torch = _torch()
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
            setattr(_member(made, owner) if owner else made, last, first)
            continue
        shared[id(theirs)] = parameter
        parameter.assign(_array(torch, theirs))
        parameter.requires_grad = theirs.requires_grad
    buffers = dict(made.named_buffers())
    for name, theirs in module.named_buffers():
        if name in buffers:
            with buffers[name].writing() as array:
                array[...] = _array(torch, theirs)
    for name, theirs in module.named_modules():
        (_member(made, name) if name else made).training = theirs.training
    return made


def _array(torch: Any, tensor: Any) -> Array:
    """The numbers of a tensor: float32, or float64 as it is."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    found: Array = tensor.numpy()
    return found


def _dtype(torch: Any, module: Any) -> Any:
    return next((np.float64 for p in module.parameters() if p.dtype == torch.float64), np.float32)


def _converted(torch: Any, module: Any, place: str) -> nn.Module:
    kind = type(module)
    make = _MAKERS.get(kind.__name__) if kind.__module__.startswith("torch.nn.modules") else None
    if make is not None:
        try:
            return make(module, _dtype(torch, module))
        except ValueError as error:
            raise ValueError(f"{_place(place, kind)}: {error}") from error
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
        raise ValueError(f"{_place(place, kind)} has no equivalent; expected {known}")
    members: dict[str, Any] = {}  # in PyTorch's order
    for name, parameter in module.named_parameters(recurse=False):
        dtype = np.float64 if parameter.dtype == torch.float64 else np.float32
        members[name] = Parameter.without_memory(tuple(parameter.shape), dtype)
    for name, buffer in module.named_buffers(recurse=False):
        members[name] = _array(torch, buffer)
    members |= inside
    try:
        return Own(kind.__name__, members, _traced(torch, module))
    except ValueError as error:
        raise ValueError(f"{_place(place, kind)}: {error}") from error


def _place(place: str, kind: type) -> str:
    return f"{place} ({kind.__name__})" if place else kind.__name__


class Sequential(nn.Sequential):
    """PyTorch's Sequential, whose modules get the complete result of the one before.

    >>> Sequential(nn.Linear(3, 4), nn.GRU(4, 5))(np.ones((6, 2, 3), np.float32))[1].shape
    (1, 2, 5)
    """

    def forward(self, x: Any) -> Any:
        """Run the modules in order."""
        for module in self:
            x = module(x)
        return x


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

_MOST_OPTIONAL = 4


def _traced(torch: Any, module: Any) -> Traced:
    """What a module's forward computes."""
    parameters = inspect.signature(module.forward).parameters
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return Traced(problem="it takes any number of arguments")
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    optional = [name for name, default in defaults.items() if default is None]
    if len(optional) > _MOST_OPTIONAL:
        return Traced(problem=f"more than {_MOST_OPTIONAL} of its arguments are None by default")
    graphs: dict[frozenset[str], list[Step] | str] = {}
    for count in range(len(optional) + 1):
        for given in itertools.combinations(optional, count):
            fixed = {n: d for n, d in defaults.items() if n not in given}
            try:
                graphs[frozenset(given)] = [*_steps(torch, module, fixed)]
            except Exception as error:  # whatever the module's own code raises when it is traced
                lines = str(error).strip().splitlines() or [repr(error)]
                graphs[frozenset(given)] = lines[0][:200]
    return Traced(tuple(parameters), defaults, graphs)


def _steps(torch: Any, module: Any, fixed: Mapping[str, Any]) -> Iterator[Step]:
    """The operations of a module's forward, with fixed values of some arguments.

    Raises:
        ValueError: one of them is unknown.
        Exception: it cannot be traced.
    """

    class Tracer(torch.fx.Tracer):  # type: ignore[misc]
        def is_leaf_module(self, m: Any, name: str) -> bool:
            return True

    tracer = Tracer(autowrap_modules=(math, torch.nn.utils.rnn))
    kinds = {
        "placeholder": "input", "call_module": "module", "get_attr": "attribute",
        "call_function": "call", "call_method": "call", "output": "output",
    }  # fmt: skip
    omitted: set[Any] = set()  # fixed arguments, and fx's checks of them
    for node in tracer.trace(module, concrete_args=dict(fixed)).nodes:
        target = node.target if isinstance(node.target, str) else node.target.__name__
        kind = kinds[node.op]
        if (kind == "input" and target.rpartition("_")[0] in fixed) or (
            kind == "call" and omitted.intersection(node.all_input_nodes)
        ):
            omitted.add(node)
            continue
        if kind == "call" and target not in _CALLS:
            raise ValueError(f"it calls {target}, which has no equivalent")
        arguments, options = (_plain(torch, given) for given in (node.args, node.kwargs))
        yield Step(node.name, kind, target, tuple(arguments), dict(options))


def _plain(torch: Any, value: Any) -> Any:
    """An argument without anything of PyTorch's."""
    if isinstance(value, torch.fx.Node):
        return Reference(value.name)
    if isinstance(value, (torch.dtype, torch.device)):
        return None
    if isinstance(value, tuple):
        return tuple(_plain(torch, v) for v in value)
    if isinstance(value, list):
        return [_plain(torch, v) for v in value]
    if isinstance(value, dict):
        return {name: _plain(torch, v) for name, v in value.items()}
    if isinstance(value, slice):
        return slice(*(_plain(torch, v) for v in (value.start, value.stop, value.step)))
    return value


# To PyTorch ---------------------------------------------------------------------------------------


def to_torch(model: nn.Module) -> Any:
    """One of our modules as one of PyTorch's: the same structure, names, options and weights.

    Sequential, RNN, LSTM, GRU, Embedding, Linear, LayerNorm, BatchNorm1d, Conv1d, Dropout and
    activations become PyTorch's; it takes and returns what ours does, [T, B, ...] by default. A
    module of another class, such as a model, becomes a ``torch.nn.Module`` with the same parts and
    ``state_dict()``, whose forward is to be written, in a subclass or as ``module.forward = ...``.

    Weights are copied; shared ones stay shared.

    Raises:
        ImportError: there is no PyTorch.
        ValueError: a layer has no equivalent, such as one of another cell; the message names it.

    >>> import torch
    >>> to_torch(nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 2)))(torch.ones(5, 2, 3)).shape
    torch.Size([5, 2, 2])
    """
    torch = _torch()
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
        return _to_recurrent(torch, module, _place(place, kind), options)
    if kind is nn.Linear and isinstance(module, nn.Linear):
        bias = module.bias is not None
        return torch.nn.Linear(module.in_features, module.out_features, bias, **options)
    if kind is nn.Embedding and isinstance(module, nn.Embedding):
        if module.dropout:
            raise ValueError(f"{_place(place, kind)}: dropout of embeddings has no equivalent")
        return torch.nn.Embedding(
            module.num_embeddings, module.embedding_dim, module.padding_idx, **options
        )
    if kind is nn.Dropout and isinstance(module, nn.Dropout):
        if module.locked and module.p:
            raise ValueError(f"{_place(place, kind)}: a locked dropout has no equivalent")
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
        return _to_function(torch, activation, _place(place, kind))
    inside = {
        name: _to(torch, child, f"{place}.{name}".strip("."))
        for name, child in module.named_modules()
        if name and "." not in name
    }
    nested = [n for n, _ in module.named_modules() if n.partition(".")[0] not in inside and n]
    if nested:
        raise ValueError(
            f"{_place(place, kind)}: {nested[0]} is in a list or a dictionary, which PyTorch names "
            "otherwise; make it an attribute"
        )
    if isinstance(module, nn.Sequential):
        return _to_sequential(torch, module, inside)

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
    return getattr(torch.nn, name)(
        module.input_size, module.hidden_size, module.num_layers, bias=module.bias,
        batch_first=module.batch_first, dropout=module.dropout, bidirectional=module.bidirectional,
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


# Checkpoints --------------------------------------------------------------------------------------

_STATES = ("state_dict", "model_state_dict", "model_state", "model", "net", "module", "weights")


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The weights of a file of ``torch.save``, by name, as ``load_state_dict`` takes them.

    It is read by ``torch.load(weights_only=True)`` alone: PyTorch then refuses to run code of the
    file. Of a dictionary with more than weights, those under `state_dict`, `model_state_dict` or a
    similar name are taken. bfloat16 and float16 become float32, exactly.

    Raises:
        ImportError: there is no PyTorch; safetensors files need none.
        ArtifactError: the file is missing or damaged, has Python objects other than weights, or no
            weights.

    >>> load_checkpoint("missing.pt")  # doctest: +SKIP
    """
    torch, path = _torch(), Path(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # of pickle, zipfile or PyTorch, by what is wrong
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise ArtifactError(
            f"{path}: PyTorch cannot read it as weights alone ({reason}); where the model is, save "
            "them so: torch.save(model.state_dict(), FILE)"
        ) from error
    state = _state(torch, held)
    if not state:
        raise ArtifactError(
            f"{path}: holds a {type(held).__name__} without a dictionary of weights; save "
            "model.state_dict()"
        )
    return {name: _array(torch, tensor) for name, tensor in state.items()}


def _state(torch: Any, held: Any, depth: int = 2) -> Mapping[str, Any]:
    """The tensors by name in a checkpoint, or nothing."""
    if not isinstance(held, Mapping):
        return {}
    tensors = {
        name: value
        for name, value in held.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and not value.is_quantized
    }
    if tensors and len(tensors) == len(held):
        return tensors
    for name in _STATES if depth else ():
        if found := _state(torch, held.get(name), depth - 1):
            return found
    return tensors


def read(path: Path, task: str | None, config: Path | None) -> SavedModel:
    """For `interop.read`: the model with the weights of a checkpoint."""
    return of_state(path, load_checkpoint(path), task, config)
