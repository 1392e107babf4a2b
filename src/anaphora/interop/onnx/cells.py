"""The cells of ONNX's RNN, GRU and LSTM: each combination of attributes as equations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from anaphora import equations
from anaphora.cells import Cell
from anaphora.equations import exp, maximum, minimum, relu, sigmoid, sign, softplus, tanh


class Activation(NamedTuple):
    """An activation function of the standard, with its alpha and beta (None if it has none).

    >>> round(float(Activation("HardSigmoid", 0.2, 0.5)(1.0)), 4)
    0.7
    >>> Activation("Tanh")
    Tanh
    """

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __call__(self, x: Any) -> Any:
        """The function of x."""
        return ACTIVATIONS[self.name].equation(x, self.alpha, self.beta)

    def __repr__(self) -> str:
        numbers = [
            f"{n}={v:g}" for n, v in (("alpha", self.alpha), ("beta", self.beta)) if v is not None
        ]
        return f"{self.name}({', '.join(numbers)})" if numbers else self.name


class _Function(NamedTuple):
    """An equation of x, alpha and beta, and which of the two it has: a default, or REQUIRED."""

    equation: Callable[[Any, Any, Any], Any]
    alpha: float | None = None
    beta: float | None = None


REQUIRED = float("nan")
"""In place of a default: the standard and ONNX Runtime disagree about it."""

ACTIVATIONS: dict[str, _Function] = {
    "Relu": _Function(lambda x, a, b: relu(x)),
    "Tanh": _Function(lambda x, a, b: tanh(x)),
    "Sigmoid": _Function(lambda x, a, b: sigmoid(x)),
    "Affine": _Function(lambda x, a, b: a * x + b, REQUIRED, 0.0),
    "LeakyRelu": _Function(lambda x, a, b: relu(x) - a * relu(-x), 0.01),
    "ThresholdedRelu": _Function(lambda x, a, b: x * relu(sign(x - a)), REQUIRED),
    "ScaledTanh": _Function(lambda x, a, b: a * tanh(b * x), REQUIRED, REQUIRED),
    "HardSigmoid": _Function(lambda x, a, b: maximum(minimum(a * x + b, 1.0), 0.0), 0.2, 0.5),
    "Elu": _Function(lambda x, a, b: relu(x) + a * (exp(minimum(x, 0.0)) - 1.0), 1.0),
    "Softsign": _Function(lambda x, a, b: x / (1.0 + equations.abs(x))),
    "Softplus": _Function(lambda x, a, b: softplus(x)),
}
"""The activation functions of the standard's recurrent operators."""

_NAMES = {name.lower(): name for name in ACTIVATIONS}


def activations_of(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> tuple[Activation, ...]:
    """The activations with these names; alphas and betas belong to those that have one, in order.

    Raises:
        ValueError: a name is unknown, or a number is missing that has no default.

    >>> activations_of(["sigmoid", "LeakyRelu"], [0.3], [])
    (Sigmoid, LeakyRelu(alpha=0.3))
    """
    rest = {"activation_alpha": list(alphas), "activation_beta": list(betas)}
    found = []
    for given in names:
        name = _NAMES.get(given.lower())
        if name is None:
            raise ValueError(
                f"activation {given!r:.40} is not one of the standard's: {', '.join(ACTIVATIONS)}"
            )
        numbers: list[float | None] = []
        for key, default in zip(rest, ACTIVATIONS[name][1:], strict=True):
            if default is None:
                numbers.append(None)
                continue
            value = rest[key].pop(0) if rest[key] else default
            if value != value:
                raise ValueError(
                    f"activation {name} needs its {key}; the standard and ONNX Runtime disagree "
                    "about the default"
                )
            numbers.append(float(value))
        found.append(Activation(name, *numbers))
    return tuple(found)


def _clipped(clip: float | None) -> Callable[[Any], Any]:
    if clip is None:
        return lambda x: x
    return lambda x: maximum(minimum(x, clip), -clip)


def _made(
    function: Any, equations: Any, gates: str, state: str, parameters: str, *key: Any
) -> Cell:
    cell = Cell(equations, gates, state, parameters)
    cell._origin = function, key  # called again by unpickling
    return cell


@functools.lru_cache(maxsize=1000)
def rnn_cell(f: Activation, clip: float | None = None) -> Cell:
    """ONNX's RNN: ``h = f(clip(a))``.

    >>> float(rnn_cell(Activation("Relu"), 1.5)(2.0, 0.0))
    1.5
    """
    clipped = _clipped(clip)

    def onnx_rnn(a, h):  # type: ignore[no-untyped-def]
        h = f(clipped(a))
        return h

    return _made(rnn_cell, onnx_rnn, "a", "h", "", f, clip)


@functools.lru_cache(maxsize=1000)
def lstm_cell(
    gate: Activation,
    candidate: Activation,
    output: Activation,
    clip: float | None = None,
    input_forget: bool = False,
    peepholes: bool = False,
) -> Cell:
    """ONNX's LSTM, its gates in the standard's order, i o f c (here ``g``).

        i = gate(clip(i + p_i c));  f = gate(clip(f + p_f c)), or 1 - i with input_forget
        c = f c + i candidate(clip(g));  o = gate(clip(o + p_o c));  h = o output(c)

    >>> sigmoid, tanh = Activation("Sigmoid"), Activation("Tanh")
    >>> h, c = lstm_cell(sigmoid, tanh, tanh, input_forget=True)(-100.0, 100.0, 1.0, 0.0, 2.0)
    >>> float(c)
    2.0
    """
    clipped = _clipped(clip)
    gates = "i o g" if input_forget else "i o f g"
    parameters = "" if not peepholes else "p_i p_o" if input_forget else "p_i p_o p_f"
    names = (*gates.split(), "h", "c", *parameters.split())

    def onnx_lstm(*arguments: Any) -> Any:
        values = dict(zip(names, arguments, strict=True))

        def gated(name: str, c: Any) -> Any:
            peep = values[f"p_{name}"] * c if peepholes else 0.0
            return gate(clipped(values[name] + peep))

        c = values["c"]
        i, g = gated("i", c), candidate(clipped(values["g"]))
        f = 1 - i if input_forget else gated("f", c)
        c = f * c + i * g
        o = gated("o", c)
        h = o * output(c)
        return h, c

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    onnx_lstm.__signature__ = signature  # type: ignore[attr-defined]
    key = (gate, candidate, output, clip, input_forget, peepholes)
    return _made(lstm_cell, onnx_lstm, gates, "h c", parameters, *key)


@functools.lru_cache(maxsize=1000)
def gru_cell(f: Activation, g: Activation, clip: float | None = None) -> Cell:
    """ONNX's GRU with linear_before_reset: the reset gate multiplies after the matrix product.

        z, r = f(clip(z)), f(clip(r));  n = g(clip(n.x + r n.h));  h = (1 - z) n + z h

    >>> from anaphora.cells import Gate
    >>> cell = gru_cell(Activation("Sigmoid"), Activation("Tanh"))
    >>> float(cell(100.0, 0.0, Gate(x=1.0, h=1.0), 0.25))  # z open: the state is kept
    0.25
    """
    clipped = _clipped(clip)

    def onnx_gru(z, r, n, h):  # type: ignore[no-untyped-def]
        z, r = f(clipped(z)), f(clipped(r))
        n = g(clipped(n.x + r * n.h))
        h = (1 - z) * n + z * h
        return h

    return _made(gru_cell, onnx_gru, "z r n", "h", "", f, g, clip)


@functools.lru_cache(maxsize=1000)
def gru_reset_first_cell(f: Activation, g: Activation, clip: float | None = None) -> Cell:
    """ONNX's GRU without linear_before_reset: ``n = g(clip(W x + R (r h) + b))``.

    The matrix product is of ``r h``, which depends on a product itself, so a step takes two: in the
    first (``resets`` is 1) the state ``s`` that is multiplied becomes ``r h``, and ``kept`` the
    update gate; in the second (``resets`` is 0) ``h`` and ``s`` become the new state.

    >>> from anaphora.cells import Gate
    >>> cell = gru_reset_first_cell(Activation("Sigmoid"), Activation("Tanh"))
    >>> first, second = Gate(x=1.0, h=None), Gate(x=0.0, h=None)
    >>> s, h, kept = cell(100.0, 0.0, 0.0, first, 0.5, 0.5, 0.0)
    >>> float(s), float(h), float(kept)
    (0.25, 0.5, 1.0)
    >>> float(cell(0.0, 0.0, 100.0, second, s, h, 0.0)[0])
    1.0
    """
    clipped = _clipped(clip)

    def onnx_gru(z, r, n, resets, s, h, kept):  # type: ignore[no-untyped-def]
        first = resets.x
        z, r, n = f(clipped(z)), f(clipped(r)), g(clipped(n))
        new = (1 - kept) * n + kept * h
        s = first * (r * h) + (1 - first) * new
        kept = first * z + (1 - first) * kept
        h = first * h + (1 - first) * new
        return s, h, kept

    return _made(gru_reset_first_cell, onnx_gru, "z r n resets", "s h kept", "", f, g, clip)
