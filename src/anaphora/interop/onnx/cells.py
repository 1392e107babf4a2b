"""ONNX's activations, and the cells of its RNN, GRU and LSTM for each combination of attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from anaphora.cells import Cell
from anaphora.interop.cells import applied, gru_cell, half_gru_cell, lstm_cell, rnn_cell


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
        return applied(self.plain())(x)

    def plain(self) -> tuple[str, tuple[float, ...]]:
        """Its name and options in `interop.cells`.

        >>> Activation("LeakyRelu", 0.1).plain()
        ('leaky_relu', (0.1,))
        """
        numbers = (number for number in (self.alpha, self.beta) if number is not None)
        return ACTIVATIONS[self.name].name, tuple(numbers)

    def __repr__(self) -> str:
        numbers = [
            f"{n}={v:g}" for n, v in (("alpha", self.alpha), ("beta", self.beta)) if v is not None
        ]
        return f"{self.name}({', '.join(numbers)})" if numbers else self.name


class _Function(NamedTuple):
    """Its name in `interop.cells`, and which of alpha and beta it has: a default, or REQUIRED."""

    name: str
    alpha: float | None = None
    beta: float | None = None


REQUIRED = float("nan")
"""In place of a default: the standard and ONNX Runtime disagree about it."""

ACTIVATIONS: dict[str, _Function] = {
    "Relu": _Function("relu"),
    "Tanh": _Function("tanh"),
    "Sigmoid": _Function("sigmoid"),
    "Affine": _Function("affine", REQUIRED, 0.0),
    "LeakyRelu": _Function("leaky_relu", 0.01),
    "ThresholdedRelu": _Function("thresholded_relu", REQUIRED),
    "ScaledTanh": _Function("scaled_tanh", REQUIRED, REQUIRED),
    "HardSigmoid": _Function("hard_sigmoid", 0.2, 0.5),
    "Elu": _Function("elu", 1.0),
    "Softsign": _Function("softsign"),
    "Softplus": _Function("softplus"),
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


GATES = {"RNN": "a", "LSTM": "i o f g", "GRU": "z r n"}
"""The gates of each operator, in its order; the standard's c is g here."""


def cell_of(
    operator: str,
    functions: Sequence[Activation],
    clip: float | None = None,
    *,
    input_forget: bool = False,
    peepholes: bool = False,
    resets_first: bool = False,
) -> Cell:
    """The cell of an operator with these attributes, its gates in the order of the operator.

    Args:
        operator: RNN, LSTM or GRU.
        functions: Its activations: f; f and g; or f, g and h.
        clip: Of the gates.
        input_forget: Of an LSTM: the forget gate is 1 - i.
        peepholes: Of an LSTM: gates read c.
        resets_first: Of a GRU: linear_before_reset is 0; the cell is a `half_gru_cell`.

    >>> cell_of("LSTM", activations_of(["Sigmoid", "Tanh", "Relu"], [], [])).gates
    ('i', 'o', 'f', 'g')
    """
    order, (first, *others) = GATES[operator], [one.plain() for one in functions]
    if operator == "RNN":
        return rnn_cell(first, clip)
    if operator == "LSTM":
        candidate, output = others
        return lstm_cell(candidate, first, output, clip, input_forget, peepholes, order)
    return (half_gru_cell if resets_first else gru_cell)(others[0], first, clip, order)
