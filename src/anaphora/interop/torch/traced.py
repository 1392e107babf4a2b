"""Modules of one's own class in PyTorch: their forwards, traced by torch.fx, and run."""

from __future__ import annotations

import inspect
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from anaphora import nn, ops
from anaphora.interop.cells import ACTIVATIONS
from anaphora.tensor import Array, Tensor


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
            value = member(self, step.target)
            return value if isinstance(value, Tensor) else _input(value)
        if step.kind == "module":
            module = member(self, step.target)
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


# Tracing -----------------------------------------------------------------------------------------

_MOST_OPTIONAL = 4


def traced_forward(torch: Any, module: Any) -> Traced:
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


def member(module: Any, path: str) -> Any:
    """A part of a module by its name, such as ``encoder.0``."""
    for name in path.split("."):
        module = module[int(name)] if isinstance(module, nn.Sequential) else getattr(module, name)
    return module
