"""Module: the owner of parameters, with PyTorch's conventions."""

from __future__ import annotations

import collections
import contextlib
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NamedTuple,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
)

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import foreign_names, notebook
from anaphora.engine.precision import int8_weights
from anaphora.foreign_names import arguments_checked
from anaphora.tensor import Array, Buffer, Parameter, Tensor, no_grad
from anaphora.tensor.hooks import thread

Hook = Callable[..., Any]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Forward(Protocol[P, R_co]):
    """What has a method forward, with its arguments and its result: for type checkers."""

    def forward(self, *arguments: P.args, **options: P.kwargs) -> R_co:
        """Compute the result."""


class LoadResult(NamedTuple):
    """What `Module.load_state_dict` could not match.

    Attributes:
        missing_keys: Names that the module has and the state does not.
        unexpected_keys: Names that the state has and the module does not.

    >>> from anaphora.nn import Linear
    >>> Linear(2, 1).load_state_dict({"weight": [[1.0, 2.0]], "scale": [3.0]}, strict=False)
    LoadResult(missing_keys=['bias'], unexpected_keys=['scale'])
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class HookHandle:
    """A hook of a module, to remove it again; also a context, at whose end it is removed.

    >>> from anaphora.nn import ReLU
    >>> relu, seen = ReLU(), []
    >>> with relu.register_forward_hook(lambda module, inputs, output: seen.append(output.shape)):
    ...     _ = relu([1.0, -1.0])
    >>> _ = relu([1.0])
    >>> seen
    [(2,)]
    """

    def __init__(self, module: Module, place: str, hook: Hook) -> None:
        self._module, self._place, self._hook = module, place, hook
        vars(module)[place] = (*getattr(module, place), self)

    def __call__(self, *arguments: Any) -> Any:  # noqa: D102 - it is the hook
        return self._hook(*arguments)

    def remove(self) -> None:
        """Call the hook no more."""
        hooks = getattr(self._module, self._place)
        vars(self._module)[self._place] = tuple(hook for hook in hooks if hook is not self)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class Module(foreign_names.Answering):
    """The base of everything that has parameters.

    A subclass makes parameters and other modules in ``__init__`` by assigning them to attributes
    (also lists, tuples and dictionaries of them), and defines in ``forward`` what it computes.
    Parameters are named by the attributes that lead to them, joined by dots. A `Buffer` is saved
    with them, but not trained.

    Parameters cannot be lost by accident: an attribute that holds some cannot become an array or
    another Tensor (None, another Parameter or Module can replace it), and parameters in places that
    are not searched, a set or the class, are refused.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.factor = Parameter([2.0])
    ...
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()([3.0]).data
    array([6.], dtype=float32)
    """

    training: bool = True
    in_int8: bool = False
    """Whether its weights are computed with in 8 bits, for inference; see `use_int8`."""
    foreign_names = "Module"

    _forward_hooks: tuple[HookHandle, ...] = ()
    _forward_pre_hooks: tuple[HookHandle, ...] = ()

    returns_state: ClassVar[bool] = False
    """Whether forward returns the output and the state after it, as recurrent layers do."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, _ in _members(dict(vars(cls))):
            raise TypeError(
                f"{cls.__name__}.{name} belongs to the class, where it would be neither trained "
                "nor saved: make it in __init__, as self." + name
            )

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name)
        if isinstance(before, Buffer) and isinstance(value, (Tensor, np.ndarray, np.generic)):
            if not isinstance(value, (Buffer, Parameter)):  # as in PyTorch it stays a buffer
                value = Buffer(value, before.persistent)
        elif before is not None and value is not None and _holds(before) and not _holds(value):
            lost = (
                f"{type(self).__name__}.{name} holds trained parameters; a value of type "
                f"{type(value).__name__} in its place would be neither trained nor saved: "
            )
            if isinstance(before, Parameter):
                raise TypeError(
                    f"{lost}to change its numbers write 'with module.{name}.writing() as array: "
                    "array[...] = values', or use load_state_dict(); to replace it assign "
                    "Parameter(values), or None for none"
                )
            raise TypeError(f"{lost}assign a Module or a Parameter, or None for none")
        super().__setattr__(name, value)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Compute the result; a subclass defines how."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def _called(self, *arguments: Any, **options: Any) -> Any:
        if thread.interpreter is not None:
            result = thread.interpreter.module(self, arguments, options)
            if result is not NotImplemented:
                return result
        for hook in self._forward_pre_hooks:
            changed = hook(self, arguments)
            if changed is not None:
                arguments = changed if isinstance(changed, tuple) else (changed,)
        if not self.in_int8:
            output = self.forward(*arguments, **options)
        else:
            with _in_int8():
                output = self.forward(*arguments, **options)
        for hook in self._forward_hooks:
            changed = hook(self, arguments, output)
            output = output if changed is None else changed
        return output

    if TYPE_CHECKING:  # a call has the arguments and the result of the class's own forward

        def __call__(self: Forward[P, R], *arguments: P.args, **options: P.kwargs) -> R:
            """Call `forward`, and the hooks."""
    else:
        __call__ = _called

    def register_forward_hook(self, hook: Hook) -> HookHandle:
        """Call ``hook(module, arguments, output)`` after each call of this module.

        What it returns, unless it is None, replaces the output. Sessions and generation compute
        with packed weights and call no hooks. For every operation, and for gradients, see
        `anaphora.hook`.

        >>> from anaphora.nn import ReLU
        >>> relu = ReLU()
        >>> handle = relu.register_forward_hook(lambda module, arguments, output: output * 2)
        >>> relu([3.0]).data
        array([6.], dtype=float32)
        >>> handle.remove()
        """
        return HookHandle(self, "_forward_hooks", hook)

    def register_forward_pre_hook(self, hook: Hook) -> HookHandle:
        """Call ``hook(module, arguments)`` before each call of this module.

        What it returns, a tuple or a single value, replaces the arguments, unless it is None.
        """
        return HookHandle(self, "_forward_pre_hooks", hook)

    def products(self) -> contextlib.AbstractContextManager[None]:
        """The context in which products with its weights are computed; calls of it are in it.

        >>> from anaphora.engine import current_matmul_precision
        >>> with Module().use_int8().products():
        ...     current_matmul_precision()
        'int8'
        """
        return _in_int8() if self.in_int8 else contextlib.nullcontext()

    # Walking the attributes

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (named "") and all inside it, each once, parents first."""
        seen: set[int] = set()
        for name, found in _walk(self, prefix):
            if isinstance(found, Module) and id(found) not in seen:
                seen.add(id(found))
                yield name, found

    def named_parameters(
        self, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters by name; a shared one under its first name, or under each.

        Raises:
            ValueError: two have the same name, such as those under the keys 1 and "1".
            TypeError: some are in a set or another container that has no names for them.
        """
        seen: set[int] = set()
        names: dict[str, Parameter] = {}
        for name, found in _walk(self, prefix):
            if not isinstance(found, Parameter):
                continue
            if names.setdefault(name, found) is not found:
                raise ValueError(
                    f"{type(self).__name__}: two parameters have the name {name!r}; rename a key "
                    "of the dictionary that holds one of them"
                )
            if not (remove_duplicate and id(found) in seen):
                seen.add(id(found))
                yield name, found

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Buffer]]:
        """All buffers by name, each once."""
        seen: set[int] = set()
        for name, found in _walk(self, prefix):
            if isinstance(found, Buffer) and id(found) not in seen:
                seen.add(id(found))
                yield name, found

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly in this one, also in lists, tuples and dictionaries of it."""
        seen: set[int] = set()
        for name, found in _members(self):
            if isinstance(found, Module) and id(found) not in seen:
                seen.add(id(found))
                yield name, found

    def modules(self) -> Iterator[Module]:
        """This module and all inside it."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """The modules directly in this one."""
        return (module for _, module in self.named_children())

    def buffers(self) -> Iterator[Buffer]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers())

    def register_buffer(self, name: str, tensor: ArrayLike | None, persistent: bool = True) -> None:
        """Make an attribute that is saved, loaded and converted with the module, but not trained.

        It is the same as ``self.name = Buffer(tensor)``.

        Args:
            name: Of the attribute.
            tensor: Its numbers, which are copied; None for none.
            persistent: Whether `state_dict` has it.

        Raises:
            ValueError: the name is not that of an attribute, or the module has such an attribute.

        >>> class Centred(Module):
        ...     def __init__(self, mean):
        ...         self.register_buffer("mean", mean)
        ...
        ...     def forward(self, x):
        ...         return x - self.mean
        >>> Centred([1.0, 2.0]).state_dict()
        {'mean': array([1., 2.], dtype=float32)}
        """
        if not name.isidentifier() or hasattr(type(self), name) or name in vars(self):
            raise ValueError(
                f"register_buffer: {name!r} is not a name that is free for an attribute of "
                f"{type(self).__name__}; choose another"
            )
        setattr(self, name, None if tensor is None else Buffer(tensor, persistent))

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    # For this module and all inside it

    def train(self, mode: bool = True) -> Self:
        """Switch to training (dropout drops) or, with False, to evaluation; return the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation: dropout does nothing; return the module."""
        return self.train(False)

    def use_int8(self, mode: bool = True) -> Self:
        """Compute with weights in 8 bits, or again in float32 (False); return the module.

        For inference: the module is switched to evaluation too, and nothing that is computed in 8
        bits can be differentiated. The weights are those of recurrent layers, linear layers,
        convolutions and embeddings, of float32. They are stored as before.

        >>> from anaphora.nn import Linear
        >>> layer = Linear(2, 1, bias=False)
        >>> _ = layer.load_state_dict({"weight": [[2.0, 1.0]]})
        >>> layer([1.0, 0.26]).data, layer.use_int8()([1.0, 0.26]).data
        (array([2.26], dtype=float32), array([2.2578638], dtype=float32))
        """
        for module in self.modules():
            module.in_int8 = mode
        return self.eval() if mode else self

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call a function with every module inside this one, then with this; return the module.

        >>> from anaphora.nn import Linear, Sequential
        >>> def clear(module):
        ...     if isinstance(module, Linear):
        ...         with module.weight.writing() as array:
        ...             array[...] = 0
        >>> Sequential(Linear(3, 1)).apply(clear)([[1.0, 2.0, 3.0]]).shape
        (1, 1)
        """
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def to(self, target: DTypeLike | str) -> Self:
        """Convert parameters and buffers of floats to float32 or float64; return the module.

        An optimizer and a session keep what they were made with: convert before. The device "cpu"
        is accepted and changes nothing.

        Raises:
            ValueError: the target is neither of these dtypes nor "cpu", or a number is too large.

        >>> from anaphora.nn import GRU
        >>> GRU(3, 4).to(np.float64)(np.ones((5, 2, 3)))[0].dtype
        dtype('float64')
        """
        if isinstance(target, str) and target == "cpu":
            return self
        try:
            dtype = np.dtype(target)
        except TypeError:
            dtype = np.dtype(object)
        if dtype not in (np.float32, np.float64):
            raise ValueError(
                f"to: {target!r} is neither float32 nor float64; everything runs on the CPU, and "
                "for products in bfloat16 there is anaphora.matmul_precision('bfloat16')"
            )
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.dtype.kind == "f":
                tensor.convert(dtype)
        for module in self.modules():
            if isinstance(vars(module).get("dtype"), np.dtype):
                module.dtype = dtype
        return self

    def float(self) -> Self:
        """Convert to float32; return the module."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Convert to float64; return the module."""
        return self.to(np.float64)

    @arguments_checked
    def zero_grad(self) -> None:
        """Remove all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze all parameters (False) or train them; return the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    # States

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters, and of persistent buffers, as arrays by PyTorch's names.

        A shared one is under each of its names.

        >>> class Scale(Module):
        ...     def __init__(self):
        ...         self.factor = Parameter([2.0])
        >>> scale = Scale()
        >>> before = scale.state_dict()
        >>> with scale.factor.writing() as array:
        ...     array[0] = 5
        >>> before
        {'factor': array([2.], dtype=float32)}
        """
        saved = self._saved()
        copies = {id(tensor): np.array(tensor.data) for tensor in saved.values()}
        return {name: copies[id(tensor)] for name, tensor in saved.items()}

    def _saved(self) -> dict[str, Tensor]:
        """What is saved, by all its names: parameters and persistent buffers."""
        parameters = dict(self.named_parameters(remove_duplicate=False))  # checks the names
        return {
            name: cast(Tensor, found)
            for name, found in _walk(self, "")
            if name in parameters or (isinstance(found, Buffer) and found.persistent)
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy arrays (or tensors of PyTorch) into parameters and buffers; nothing else changes.

        Args:
            state: Arrays by name. A parameter that has several names needs only one of them.
                Tensors of bfloat16 are widened, exactly.
            strict: Refuse a state whose names are not exactly those of the module.

        Raises:
            KeyError: names are missing or unexpected, and ``strict`` is true.
            ValueError: a shape differs. Nothing is loaded then.

        >>> class Scale(Module):
        ...     def __init__(self):
        ...         self.factor = Parameter([2.0])
        >>> scale = Scale()
        >>> scale.load_state_dict({"factor": [5.0]})
        LoadResult(missing_keys=[], unexpected_keys=[])
        >>> scale.state_dict()
        {'factor': array([5.], dtype=float32)}
        """
        saved = self._saved()
        given = {id(saved[name]) for name in state if name in saved}
        missing = [name for name, p in saved.items() if id(p) not in given]
        unexpected = [name for name in state if name not in saved]
        if strict and (missing or unexpected):
            problems = [f"the state has no {', '.join(missing)}"] if missing else []
            if unexpected:
                problems.append(f"{type(self).__name__} has no {', '.join(unexpected)}")
            prefix = _prefix(unexpected, saved)
            raise KeyError(
                f"load_state_dict: {'; '.join(problems)}; "
                + (
                    f"all names of the state begin with {prefix!r}: load "
                    f"{{name.removeprefix({prefix!r}): array for name, array in state.items()}}"
                    if prefix
                    else "strict=False loads the names that both have"
                )
            )
        arrays = {name: _numbers(state[name]) for name in saved if name in state}
        wrong = [
            f"{name} is {array.shape} in the state, {saved[name].shape} in the module"
            for name, array in arrays.items()
            if array.shape != saved[name].shape
        ]
        if wrong:
            raise ValueError(
                f"load_state_dict: {'; '.join(wrong)}; build the module with the sizes and options "
                "with which the state was saved"
            )
        for name, array in arrays.items():
            with saved[name].writing() as values:
                values[...] = array
        return LoadResult(missing, unexpected)

    # Text

    def extra_repr(self) -> str:
        """The module's own options, for its repr."""
        return ""

    def _size(self) -> str:
        """The number of parameters, in parentheses; nothing if there are none."""
        sizes = [(p.size, p.requires_grad) for p in self.parameters()]
        if not sizes:
            return ""
        count = sum(size for size, _ in sizes)
        frozen = count - sum(size for size, trained in sizes if trained)
        return (
            f" ({count:,} parameter{'' if count == 1 else 's'}"
            f"{f', {frozen:,} of them frozen' if frozen else ''})"
        )

    def __repr__(self) -> str:
        options = self.extra_repr()
        children = [
            f"({name}): {child!r}" for name, child in _members(self) if isinstance(child, Module)
        ]
        if not children:
            return f"{type(self).__name__}({options}){self._size()}"
        lines = "\n".join([options, *children] if options else children)
        return f"{type(self).__name__}(\n{textwrap.indent(lines, '  ')}\n){self._size()}"

    def _repr_html_(self) -> str:
        """Nested modules with their parameters: shapes, statistics, and the norms of gradients."""
        return self._html("")

    def _html(self, name: str) -> str:
        members = list(_members(self))
        rows = [
            [one, notebook.shape(p.data), p.dtype, *notebook.statistics(p.data), *_gradient(p)]
            for one, p in members
            if isinstance(p, Parameter)
        ]
        children = [child._html(one) for one, child in members if isinstance(child, Module)]
        head = ["parameter", "shape", "dtype", *notebook.STATISTICS, "gradient norm"]
        options = notebook.escaped(f"{self.extra_repr()}{self._size()}")
        label = f"{notebook.escaped(name)}: " if name else ""
        summary = f"{label}<b>{type(self).__name__}</b> {options}"
        content = notebook.table(head, rows) + "".join(children)
        return notebook.folded(summary, content) if content else f"<div>{summary}</div>"


def _prefix(unexpected: list[str], parameters: Mapping[str, Tensor]) -> str:
    """What stands before every name of a state, such as DataParallel's "module.", or nothing."""
    for name in parameters:
        for found in unexpected:
            prefix = found.removesuffix(name)
            if (
                prefix != found
                and prefix.endswith(".")
                and all(u.startswith(prefix) and u[len(prefix) :] in parameters for u in unexpected)
            ):
                return prefix
    return ""


def _numbers(value: Any) -> Array:
    """An array, or a tensor of PyTorch as one: NumPy has no bfloat16, which float32 holds."""
    if type(value).__module__.partition(".")[0] == "torch":
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)


def _gradient(parameter: Parameter) -> list[str]:
    """The norm of a parameter's gradient, or that it has none."""
    if not parameter.requires_grad:
        return ["frozen"]
    if parameter.grad is None:
        return [""]
    return [f"{np.linalg.norm(np.asarray(parameter.grad, np.float64)):.4g}"]


@contextlib.contextmanager
def _in_int8() -> Iterator[None]:
    with no_grad(), int8_weights():
        yield


def _members(owner: Any) -> Iterator[tuple[str, Any]]:
    """The parameters and modules directly in a module, or in containers in it, by name."""
    items: list[tuple[Any, Any]] = list(vars(owner).items()) if isinstance(owner, Module) else []
    if isinstance(owner, dict):
        items += owner.items()
    elif isinstance(owner, (list, tuple)):
        items += enumerate(owner)
    for name, value in items:
        if type(value) in _PLAIN:  # most attributes
            continue
        if isinstance(value, (Parameter, Buffer, Module)):
            yield str(name), value
        elif isinstance(value, (list, tuple, dict)):
            for inner, found in _members(value):
                yield f"{name}.{inner}", found
        elif any(isinstance(item, (Parameter, Module)) for item in _unnamed(value)):
            raise TypeError(
                f"{name}: modules or parameters in a {type(value).__name__} have no names, and "
                "would be neither trained nor saved; put them into a list, a tuple or a dict"
            )


_PLAIN = frozenset({bool, int, float, str, type(None)})
_UNNAMED: tuple[type[Any], ...] = (
    set,
    frozenset,
    collections.deque,
    collections.UserList,
    type({}.values()),
)
_UNNAMED_MAPPINGS: tuple[type[Any], ...] = (collections.UserDict, types.MappingProxyType)


def _unnamed(value: Any) -> Iterable[Any]:
    """The items of a container that is not searched for parameters."""
    if isinstance(value, np.ndarray):
        return cast(Iterable[Any], value.flat) if value.dtype == object else ()
    if isinstance(value, _UNNAMED_MAPPINGS):
        return cast(Iterable[Any], value.values())
    return cast(Iterable[Any], value) if isinstance(value, _UNNAMED) else ()


def _holds(value: Any) -> bool:
    """Whether a value is a parameter or a module, or holds some."""
    if isinstance(value, (list, tuple, dict)):
        return any(map(_holds, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (Parameter, Module)) or any(map(_holds, _unnamed(value)))


def _walk(module: Module, prefix: str) -> Iterator[tuple[str, Module | Tensor]]:
    yield prefix, module
    for name, found in _members(module):
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(found, Module):
            yield from _walk(found, path)
        else:
            yield path, found
