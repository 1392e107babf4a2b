"""Lists and dictionaries of modules and of parameters, which are modules themselves.

A module may hold its parts in plain lists and dictionaries just as well; these have the methods of
a module too, such as ``parameters()`` and ``eval()``, and PyTorch's names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic

from anaphora.nn.module import Module
from anaphora.tensor import Parameter

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    M = TypeVar("M", bound=Module, default=Module)
else:
    from typing import TypeVar

    M = TypeVar("M", bound=Module)


class _Container(Module):
    """What lists and dictionaries that are modules share: each is equal to itself only."""

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__: Any = object.__hash__

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Refuse a call.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__}: it holds its items and computes nothing; call them one by "
            "one, or use nn.Sequential"
        )


class ModuleList(_Container, list[M], Generic[M]):
    """A list of modules that is a module; its methods are those of a list.

    Parameters are named ``0.weight``, ``1.weight``, ... by position.

    Args:
        modules: Any number of modules.

    Raises:
        TypeError: one of them is not a Module; or it is called.

    >>> from anaphora.nn import Linear
    >>> layers = ModuleList(Linear(3, 3, bias=False) for _ in range(2))
    >>> layers.append(Linear(3, 1))
    >>> [name for name, _ in layers.named_parameters()]
    ['0.weight', '1.weight', '2.weight', '2.bias']
    """

    def __init__(self, modules: Iterable[M] = ()) -> None:
        super().__init__(_checked(self, modules, Module))


class ModuleDict(_Container, dict[str, M], Generic[M]):
    """A dictionary of modules that is a module; its methods are those of a dictionary.

    Parameters are named ``KEY.weight``.

    Args:
        modules: Modules by name, or pairs of name and module.

    Raises:
        TypeError: one of them is not a Module; or it is called.

    >>> from anaphora.nn import GRU, LSTM
    >>> layers = ModuleDict({"lstm": LSTM(3, 4), "gru": GRU(3, 4)})
    >>> list(layers.state_dict())[:2], layers["gru"].hidden_size
    (['lstm.weight_ih_l0', 'lstm.weight_hh_l0'], 4)
    """

    def __init__(self, modules: Mapping[str, M] | Iterable[tuple[str, M]] = ()) -> None:
        given = dict(modules)
        _checked(self, given.values(), Module)
        super().__init__(given)


class ParameterList(_Container, list[Parameter]):
    """A list of parameters that is a module, named by position; its methods are those of a list.

    Args:
        parameters: Any number of Parameters; arrays and other Tensors become Parameters.

    >>> [(name, p.shape) for name, p in ParameterList([[1.0, 2.0], [3.0]]).named_parameters()]
    [('0', (2,)), ('1', (1,))]
    """

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        super().__init__(map(_parameter, parameters))


class ParameterDict(_Container, dict[str, Parameter]):
    """A dictionary of parameters that is a module; its methods are those of a dictionary.

    Args:
        parameters: Parameters by name; arrays and other Tensors become Parameters.

    >>> list(ParameterDict({"scale": [1.0], "shift": [0.0]}).state_dict())
    ['scale', 'shift']
    """

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__({name: _parameter(p) for name, p in dict(parameters).items()})


def _parameter(value: Any) -> Parameter:
    return value if isinstance(value, Parameter) else Parameter(value)


def _checked(owner: Module, items: Iterable[M], kind: type) -> list[M]:
    name = type(owner).__name__
    if not isinstance(items, Iterable):
        raise TypeError(f"{name}: it takes a list of modules; write {name}([module])")
    found = list(items)
    for item in found:
        if not isinstance(item, kind):
            raise TypeError(f"{name}: {item!r} is not a {kind.__name__}; wrap it in one")
    return found
