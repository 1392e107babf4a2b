"""What a cell's equations read besides their arguments: closures, globals, bound arguments."""

from __future__ import annotations

import contextlib
import dis
import functools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from anaphora.equations.symbols import EquationError, Symbol


def check_references(equations: Callable[..., Any], fused: bool) -> None:
    """Refuse equations that read outside values that would silently never change.

    These are trainable values (no layer would find them) and, for equations that are traced once to
    a program, arrays and Tensors (their current numbers would be frozen into it).

    Raises:
        EquationError: the equations read such a value; the message names it.

    >>> scale = np.ones(3)
    >>> check_references(lambda a, h: scale[0] * a, fused=True)
    Traceback (most recent call last):
    anaphora.equations.symbols.EquationError: the equations read 'scale', an array ...
    """
    for name, value in _references(equations):
        if _is_trained(value):
            raise EquationError(
                f"the equations read {name!r} ({type(value).__name__}), which would be neither "
                "trained nor saved, because no layer holds it: declare its numbers in parameters= "
                "and take them as arguments, so that every layer has its own"
            )
        if fused and (isinstance(value, np.ndarray) or hasattr(value, "__equation__")):
            raise EquationError(
                f"the equations read {name!r}, an array outside of them; they are traced once, so "
                "its current numbers would be frozen: take a number out of it before "
                f"(rate = float({name}[0])), declare it in parameters=, or declare the cell with "
                "fused=False"
            )


def _is_trained(value: Any, depth: int = 4) -> bool:
    """Whether a value is or holds a trainable Tensor or module, by duck typing."""
    if isinstance(value, (type, Symbol, FunctionType, ModuleType)) or depth == 0:
        return False
    if hasattr(value, "__equation__"):
        return bool(getattr(value, "requires_grad", False))
    if hasattr(value, "named_parameters"):
        return any(True for _ in value.parameters())
    held: Any = ()
    if isinstance(value, (list, tuple)):
        held = value
    elif isinstance(value, dict):
        held = value.values()
    elif hasattr(value, "__dict__"):
        held = vars(value).values()
    return any(_is_trained(part, depth - 1) for part in held)


def _references(function: Any, seen: frozenset[Any] = frozenset()) -> Iterator[tuple[str, Any]]:
    """The names and values that a function and its helpers read from outside.

    Helpers are functions of the same Python module.
    """
    if isinstance(function, functools.partial):
        bound = dict(enumerate(function.args)) | function.keywords
        yield from ((f"argument {name}", value) for name, value in bound.items())
        yield from _references(function.func, seen)
    elif isinstance(function, MethodType):
        yield "self", function.__self__
        yield from _references(function.__func__, seen)
    elif not isinstance(function, FunctionType):
        yield from vars(function).items() if hasattr(function, "__dict__") else ()
    elif function not in seen:
        outside = {name: function.__globals__[name] for name in _globals_read(function)}
        names, cells = function.__code__.co_freevars, function.__closure__ or ()
        for name, held in zip(names, cells, strict=True):
            with contextlib.suppress(ValueError):  # not assigned yet
                outside[name] = held.cell_contents
        for name, value in outside.items():
            yield name, value
            if isinstance(value, FunctionType) and value.__module__ == function.__module__:
                yield from _references(value, seen | {function})


def _globals_read(function: FunctionType) -> set[str]:
    """The defined globals that a function and its nested functions read."""
    names: set[str] = set()
    codes: list[Any] = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        names |= {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return names & function.__globals__.keys()
