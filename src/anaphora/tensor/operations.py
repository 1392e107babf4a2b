"""`differentiable` and `composed`: make operations of functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from anaphora import foreign_names
from anaphora.tensor.hooks import enter, leave, thread
from anaphora.tensor.methods import OPERATIONS
from anaphora.tensor.rows import Array
from anaphora.tensor.tape import Edge, Node
from anaphora.tensor.tensor import Tensor, as_array

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")


def differentiable(function: Callable[P, Any]) -> Callable[P, Tensor]:
    """Make an operation on Tensors of a function that returns its value and its pullback.

    The function gets NumPy arrays. Its parameters before ``/`` (and ``*arrays``) are its inputs;
    the others are options and are passed unchanged. It returns ``(value, pullback)``; the value is
    a tuple if there are several outputs. The pullback is

    - for one input, a function from the gradient of the value to the gradient of the input;
    - for several, a tuple of such functions, which are called only for inputs that need a gradient;
      or one function that returns a tuple, with None for an input without gradient.

    The pullback of a tuple gets a tuple, with None for outputs that the result does not depend on.
    It returns new arrays, or the gradient that it was given, or views of these; never a saved
    array. Broadcasting is undone, and shape and dtype of each gradient are checked, here.
    Messages and hooks use the function's name, without a leading underscore. (Type checkers see one
    Tensor as the result: an operation with several outputs is called by a function that says so.)

    All arrays that the function gets have one dtype: that of the Tensors among the inputs, which
    must agree; arrays and numbers are converted to it, as are booleans.

    >>> @differentiable
    ... def cube(x, /):
    ...     return x**3, lambda dy: 3 * x**2 * dy
    >>> x = Tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> float(x.grad)
    12.0
    """
    name = function.__name__.removeprefix("_")
    in_floats = getattr(function, "in_floats", False)
    parameters = inspect.signature(function).parameters.values()
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    differentiated = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    count = len(differentiated)
    required = sum(p.default is p.empty for p in differentiated)
    names = [p.name for p in parameters]

    @functools.wraps(function)
    def operation(*arguments: Any, **options: Any) -> Any:
        if thread.interpreter is not None:
            result = thread.interpreter.operation(name, arguments, options)
            if result is not NotImplemented:
                return result
        inputs, rest = (arguments, ()) if variadic else (arguments[:count], arguments[count:])
        if required <= len(inputs) < count:
            inputs += (None,) * (count - len(inputs))
        if options:
            foreign_names.check_arguments(name, options, names)
        enter("forward", name, inputs)
        result = run(inputs, rest, options)
        leave("forward", name, result if isinstance(result, tuple) else (result,))
        return result

    def run(inputs: tuple[Any, ...], rest: tuple[Any, ...], options: dict[str, Any]) -> Any:
        arrays = _unwrap(name, inputs, in_floats)
        rest = tuple(o._data if isinstance(o, Tensor) else o for o in rest)
        options = {k: o._data if isinstance(o, Tensor) else o for k, o in options.items()}
        value, pullback = function(*arrays, *rest, **options)
        if isinstance(value, np.generic) and arrays[0].dtype.kind == "f":
            value = np.asarray(value, arrays[0].dtype)  # NumPy 1 promotes scalars to float64
        node = None
        if thread.recording:
            tensors = [i for i in inputs if isinstance(i, Tensor)]
            if any(i.requires_grad for i in tensors):
                edges = [
                    Edge(i._node or i, i._output, i._data.shape, i._data.dtype)
                    if isinstance(i, Tensor) and i.requires_grad
                    else None
                    for i in inputs
                ]
                versions = [
                    (i, i._version, i._version.number) for i in tensors if i._version is not None
                ]
                outputs = len(value) if isinstance(value, tuple) else None
                node = Node(name, tuple(edges), pullback, outputs, tuple(versions))
        if isinstance(value, tuple):
            return tuple(Tensor._result(v, node, k, inputs) for k, v in enumerate(value))
        return Tensor._result(value, node, 0, inputs)

    OPERATIONS[name] = operation
    return operation


def floating(function: F) -> F:
    """Mark a function for `differentiable` that computes in floats: integers become float32.

    >>> @differentiable
    ... @floating
    ... def halves(x, /):
    ...     return x * x.dtype.type(0.5), lambda dy: dy * dy.dtype.type(0.5)
    >>> halves([1, 2]).data
    array([0.5, 1. ], dtype=float32)
    """
    function.in_floats = True  # type: ignore[attr-defined]
    return function


def composed(function: F) -> F:
    """Make an operation of a function that is written with other operations.

    Methods of Tensors find it by its name, and arguments named as in other libraries are answered.

    >>> @composed
    ... def doubled(x):
    ...     return x + x
    >>> doubled(Tensor([1.0])).data
    array([2.], dtype=float32)
    """
    checked = foreign_names.arguments_checked(function)
    name = function.__name__

    @functools.wraps(function)
    def operation(*arguments: Any, **options: Any) -> Any:
        if thread.interpreter is not None:
            result = thread.interpreter.composed(name, arguments, options)
            if result is not NotImplemented:
                return result
        return checked(*arguments, **options)

    OPERATIONS[name] = operation
    return cast(F, operation)


def _unwrap(name: str, inputs: tuple[Any, ...], in_floats: bool) -> list[Any]:
    """The arrays of an operation's inputs, all of one dtype.

    Tensors determine it, and must agree; arrays, lists and numbers are converted to it. Without
    Tensors, arrays are promoted as in NumPy. Booleans, which are masks, never determine it, but are
    converted, also in Tensors.
    """
    dtype: np.dtype[Any] | None = None
    for value in inputs:
        if isinstance(value, Tensor) and value._data.dtype.kind != "b":
            if dtype is None:
                dtype = value._data.dtype
            elif value._data.dtype != dtype:
                raise _mixed(name, dtype, value._data.dtype)
    if dtype is None:
        arrays = [v.dtype for v in inputs if isinstance(v, np.ndarray) and v.dtype.kind in "fiu"]
        given = arrays or [v.dtype for v in inputs if isinstance(v, np.floating)]
        dtype = np.result_type(*given) if given else None
    if in_floats and (dtype is None or dtype.kind != "f"):
        dtype = np.dtype(np.float32)
    return [
        None if v is None
        else v._data if isinstance(v, Tensor) and v._data.dtype is dtype  # most inputs
        else _adopted(name, v, dtype)
        for v in inputs
    ]  # fmt: skip


def _adopted(name: str, value: Any, dtype: np.dtype[Any] | None) -> Array:
    """An input as an array of a dtype, or unchanged if that is None."""
    if not isinstance(value, (Tensor, np.ndarray)):
        own = dtype if dtype is not None and dtype.kind == "f" else None
        if own is not None and isinstance(value, (int, float)) and -6e4 < value < 6e4:
            return np.array(value, own)  # every dtype can represent it
        return as_array(value, own, name)
    array = value._data if isinstance(value, Tensor) else value
    if array.dtype == dtype or (dtype is None and array.dtype.kind == "b"):
        return array
    if dtype is not None and dtype.kind != "f" and not np.can_cast(array.dtype, dtype):
        raise _mixed(name, dtype, array.dtype)
    return as_array(array, dtype, name)


def _mixed(name: str, one: np.dtype[Any], other: np.dtype[Any]) -> TypeError:
    return TypeError(f"{name}: {one} and {other} do not mix; convert one of them with .astype()")
