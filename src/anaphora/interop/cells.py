"""Cells of other libraries: any activations, clipping, peepholes, and gates in any order.

They are equations like all cells, so the engine runs them, forward and backward.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anaphora import ops
from anaphora.cells import CELLS, Cell
from anaphora.equations import abs, exp, maximum, minimum, relu, sigmoid, sign, softplus, tanh
from anaphora.nn.reset_before import half_gru
from anaphora.tensor import Tensor

# Activations --------------------------------------------------------------------------------------


def _clipped(x: Any, low: float, high: float) -> Any:
    return maximum(minimum(x, high), low)


def _elu(x: Any, alpha: float = 1.0) -> Any:
    return relu(x) + alpha * (exp(minimum(x, 0.0)) - 1.0)


def _gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


def _hard_sigmoid(x: Any, slope: float, offset: float = 0.5) -> Any:
    return _clipped(slope * x + offset, 0.0, 1.0)


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "linear": lambda x: x,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "relu": relu,
    "softplus": softplus,
    "exp": exp,
    "softsign": lambda x: x / (1.0 + abs(x)),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772),
    "leaky_relu": lambda x, slope: relu(x) - slope * relu(-x),
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * tanh(softplus(x)),
    "log_sigmoid": lambda x: -softplus(-x),
    "tanhshrink": lambda x: x - tanh(x),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda x, slope: x * _hard_sigmoid(x, slope),
    "clipped": _clipped,
    "affine": lambda x, slope, offset: slope * x + offset,
    "scaled_tanh": lambda x, scale, slope: scale * tanh(slope * x),
    "thresholded_relu": lambda x, threshold: x * relu(sign(x - threshold)),
}
"""Elementwise functions of numbers, Tensors, and a cell's equations, by name; some have options."""

Activation = tuple[str, tuple[float, ...]]
"""The name of an activation, and its options."""

TANH: Activation = ("tanh", ())
SIGMOID: Activation = ("sigmoid", ())


def applied(activation: Activation, clip: float | None = None) -> Callable[[Any], Any]:
    """An activation as a function of a gate, which is clipped first to -clip and clip.

    Raises:
        ValueError: the equations of a cell do not have it.

    >>> float(applied(("affine", (2.0, 1.0)), clip=3.0)(5.0))
    7.0
    """
    name, options = activation
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r:.60} is none that the equations of a cell have")
    function = ACTIVATIONS[name]
    if clip is None:
        return lambda x: function(x, *options)
    return lambda x: function(_clipped(x, -clip, clip), *options)


# Cells --------------------------------------------------------------------------------------------


def named(kind: str, *activations: Activation) -> str:
    """The name of a cell with these activations.

    >>> named("rnn", ("softsign", ()))
    'rnn_softsign'
    """
    return "_".join([kind, *(name for name, _ in activations)])


def _made(
    name: str, gates: str, states: str, parameters: str, equations: Callable[..., Any]
) -> Cell:
    """A cell whose gates are in any order, of equations that take gates, states and parameters by
    name. It can be pickled, as it is restored from its program.
    """
    names = [*gates.split(), *states.split(), *parameters.split()]

    @functools.wraps(equations)
    def ordered(*arguments: Any) -> Any:
        return equations(**dict(zip(names, arguments, strict=True)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    ordered.__signature__ = signature  # type: ignore[attr-defined]
    ordered.__name__ = name
    cell = Cell(ordered, gates, states, parameters)
    cell._origin = Cell.from_dict, (cell.to_dict(),)
    return cell


@functools.lru_cache(maxsize=1000)
def rnn_cell(activation: Activation = TANH, clip: float | None = None) -> Cell:
    """The simple recurrent cell with any activation: ``h = activation(clip(a))``.

    >>> rnn_cell(("softsign", ())).name, rnn_cell() is CELLS["rnn"]
    ('rnn_softsign', True)
    >>> float(rnn_cell(("relu", ()), 1.5)(2.0, 0.0))
    1.5
    """
    if activation in (TANH, ("relu", ())) and clip is None:
        return CELLS["rnn" if activation == TANH else "rnn_relu"]
    function = applied(activation, clip)

    def equations(a: Any, h: Any) -> Any:
        h = function(a)
        return h

    return _made(named("rnn", activation), "a", "h", "", equations)


@functools.lru_cache(maxsize=1000)
def lstm_cell(
    activation: Activation = TANH,
    of_gates: Activation = SIGMOID,
    of_output: Activation | None = None,
    clip: float | None = None,
    input_forget: bool = False,
    peepholes: bool = False,
    order: str = "i f g o",
) -> Cell:
    """The LSTM with any activations.

        i = gate(clip(i + p_i c));  f = gate(clip(f + p_f c)), or 1 - i with input_forget
        c = f c + i activation(clip(g));  o = gate(clip(o + p_o c));  h = o output(c)

    Args:
        activation: That of g.
        of_gates: That of i, f and o.
        of_output: That of c in the output; None for that of g.
        clip: Gates are clipped to -clip and clip; None for no limits.
        input_forget: Whether the forget gate is 1 - i.
        peepholes: Whether gates read c.
        order: The gates in the order of their weights.

    >>> lstm_cell(TANH, ("hard_sigmoid", (0.2,))).name, lstm_cell() is CELLS["lstm"]
    ('lstm_tanh_hard_sigmoid', True)
    >>> h, c = lstm_cell(input_forget=True)(-100.0, 100.0, 1.0, 0.0, 2.0)
    >>> float(c)
    2.0
    """
    plain = (activation, of_gates, clip, input_forget) == (TANH, SIGMOID, None, False)
    if plain and of_output in (None, TANH) and order == "i f g o" and not peepholes:
        return CELLS["lstm"]
    gate, candidate = applied(of_gates, clip), applied(activation, clip)
    output = applied(of_output or activation)

    def equations(i: Any, g: Any, o: Any, h: Any, c: Any, f: Any = None, **peeps: Any) -> Any:
        i = gate(i + peeps["p_i"] * c if peepholes else i)
        g = candidate(g)
        f = 1 - i if input_forget else gate(f + peeps["p_f"] * c if peepholes else f)
        c = f * c + i * g
        o = gate(o + peeps["p_o"] * c if peepholes else o)
        h = o * output(c)
        return h, c

    gates = order.split()
    if input_forget:
        gates.remove("f")
    owned = [f"p_{name}" for name in "iof" if peepholes and name in gates]
    others = () if of_output in (None, activation) else (of_output,)
    name = named("lstm", activation, of_gates, *others)
    return _made(name, " ".join(gates), "h c", " ".join(owned), equations)


@functools.lru_cache(maxsize=1000)
def gru_cell(
    activation: Activation = TANH,
    of_gates: Activation = SIGMOID,
    clip: float | None = None,
    order: str = "r z n",
) -> Cell:
    """The GRU whose reset gate multiplies after the matrix product, with any activations.

        r, z = gate(clip(r)), gate(clip(z));  n = activation(clip(n.x + r n.h))
        h = (1 - z) n + z h

    >>> gru_cell() is CELLS["gru"]
    True
    """
    if (activation, of_gates, clip, order) == (TANH, SIGMOID, None, "r z n"):
        return CELLS["gru"]
    candidate, gate = applied(activation, clip), applied(of_gates, clip)

    def equations(r: Any, z: Any, n: Any, h: Any) -> Any:
        r, z = gate(r), gate(z)
        n = candidate(n.x + r * n.h)
        h = (1 - z) * n + z * h
        return h

    return _made(named("gru", activation, of_gates), order, "h", "", equations)


@functools.lru_cache(maxsize=1000)
def half_gru_cell(
    activation: Activation = TANH,
    of_gates: Activation = SIGMOID,
    clip: float | None = None,
    order: str = "r z n",
) -> Cell:
    """A cell like `half_gru`, with any activations: half a step of a GRU that resets first.

    >>> half_gru_cell() is half_gru
    True
    """
    if (activation, of_gates, clip, order) == (TANH, SIGMOID, None, "r z n"):
        return half_gru
    candidate, gate = applied(activation, clip), applied(of_gates, clip)

    def equations(r: Any, z: Any, n: Any, first: Any, q: Any, h: Any, k: Any) -> Any:
        second = 1 - first.x
        r, z, n = gate(r), gate(z), candidate(n)
        new = (1 - k) * n + k * h
        q = first.x * (r * h) + second * new
        h = first.x * h + second * new
        k = first.x * z + second * k
        return q, h, k

    return _made(named("half_gru", activation, of_gates), f"{order} first", "q h k", "", equations)


# Each works on Tensors, and gives one, if any value is a Tensor, and otherwise on arrays.


def stacked(values: Sequence[Any], axis: int) -> Any:
    """Values along a new axis.

    >>> stacked([np.zeros(3), np.ones(3)], 1).shape
    (3, 2)
    """
    if any(isinstance(value, Tensor) for value in values):
        return ops.stack(values, axis)
    return np.expand_dims(values[0], axis) if len(values) == 1 else np.stack(values, axis)


def joined(values: Sequence[Any], axis: int) -> Any:
    """Values along an axis that they have.

    >>> joined([np.zeros((2, 3)), np.ones((1, 3))], 0).shape
    (3, 3)
    """
    if any(isinstance(value, Tensor) for value in values):
        return ops.concatenate(values, axis)
    return np.concatenate(values, axis)
