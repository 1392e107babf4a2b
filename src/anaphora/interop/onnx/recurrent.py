"""ONNX's recurrent operators: their attributes as cells, their weights as the engine's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anaphora import engine, ops
from anaphora.cells import Cell
from anaphora.engine import LayerWeights, PackedLayers
from anaphora.interop.cells import stacked
from anaphora.interop.onnx.cells import Activation, activations_of, cell_of
from anaphora.interop.onnx.reading import Array, Node
from anaphora.nn.reset_before import run_in_halves
from anaphora.tensor import Tensor

Function = Callable[..., Any]

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
FEW_STEPS = 64
"""The most rows, T times B, that are run with weights packed beforehand."""


class RecurrentNode:
    """One RNN, GRU or LSTM node: a cell a direction, and how the node's inputs reach them.

    Attributes:
        cells: Of each direction.
        reverse: Whether each direction runs from the last step to the first.

    Raises:
        OnnxError: an attribute is wrong.
    """

    def __init__(self, node: Node, operator: str | None = None) -> None:
        self.node = node
        self.operator = operator or node.operator
        direction = node.get("direction", "forward")
        if direction not in _DIRECTIONS:
            raise node.error(f"direction {direction!r:.40} is not one of {', '.join(_DIRECTIONS)}")
        self.reverse = _DIRECTIONS[direction]
        self.layout = node.get("layout", 0)
        self.input_forget = bool(node.get("input_forget", 0))
        self.hidden_size: int | None = node.get("hidden_size", None, int)
        clip = node.get("clip", None, float)
        if self.layout not in (0, 1):
            raise node.error(f"layout {self.layout} is neither 0 nor 1")
        if clip is not None and not (0 < clip < np.inf):
            raise node.error(f"clip {clip:g}; expected a number above 0, or none")
        linear_before_reset = node.get("linear_before_reset", 0)
        self.peepholes = self.operator == "LSTM" and len(node.inputs) > 7 and bool(node.inputs[7])
        self.resets_first = self.operator == "GRU" and not linear_before_reset
        self.cells = tuple(
            self._cell(functions, clip) for functions in self._activations(len(self.reverse))
        )
        self._packed: tuple[tuple[Any, ...], PackedLayers | None] = ((), None)

    def _activations(self, directions: int) -> list[tuple[Activation, ...]]:
        defaults = _DEFAULTS[self.operator]
        names = list(self.node.get("activations", (), tuple)) or defaults * directions
        if self.operator == "RNN" and self.node.attributes.get("activations") == ("Tanh", "Tanh"):
            names = names[:directions]  # the standard's default, whatever the direction
        if len(names) != len(defaults) * directions:
            raise self.node.error(
                f"{len(names)} activations, expected {len(defaults)} for each of {directions} "
                "directions"
            )
        numbers = [self.node.get(f"activation_{n}", (), tuple) for n in ("alpha", "beta")]
        try:
            found = activations_of([str(name) for name in names], *numbers)
        except (TypeError, ValueError) as error:
            raise self.node.error(str(error)) from error
        return [found[k : k + len(defaults)] for k in range(0, len(found), len(defaults))]

    def _cell(self, functions: tuple[Activation, ...], clip: float | None) -> Cell:
        return cell_of(
            self.operator,
            functions,
            clip,
            input_forget=self.input_forget,
            peepholes=self.peepholes,
            resets_first=self.resets_first,
        )

    def at(self, *inputs: Any) -> Function:
        """The function for inputs of these shapes: few steps are run with packed weights."""
        x, _, _, _, lengths, _, _, _ = (*inputs, *[None] * 8)[:8]
        T, rows, _ = x.shape
        few = 0 < T * rows <= FEW_STEPS and lengths is None and self.reverse == (False,)
        if not few or self.layout or self.resets_first:
            return self
        return FewSteps(self)

    def __call__(self, x: Any, W: Any, R: Any, B: Any = None, *rest: Any) -> tuple[Any, ...]:
        """The outputs Y, Y_h (and Y_c of an LSTM); see the standard for the shapes."""
        lengths, h, c, P = (*rest, *[None] * 4)[:4]
        if self.layout:
            x, h, c = (None if v is None else _moved(v, (1, 0, 2), self.node) for v in (x, h, c))
        self.check(x, W, R, B, lengths, h, c, P)
        rows, H = x.shape[1], R.shape[2]
        if lengths is not None:
            lengths = lengths.astype(np.int64)
        initial = [zeros(x, (len(self.reverse), rows, H)) if s is None else s for s in (h, c)]
        if self.operator != "LSTM":
            del initial[1:]
        outputs, finals = [], []
        for d, (cell, reverse) in enumerate(zip(self.cells, self.reverse, strict=True)):
            weights = self.weights(W[d], R[d], None if B is None else B[d], P, d)
            states = [state[d] for state in initial]
            run = self._run_reset_first if self.resets_first else run_cell
            output, final = run(cell, x, states, weights, lengths, reverse)
            outputs.append(output)
            finals.append(final)
        Y = stacked(outputs, 1)
        ends = [stacked(states, 0) for states in zip(*finals, strict=True)]
        if lengths is not None and not lengths.all():  # a row without steps ends in zeros
            active = (lengths > 0)[:, None].astype(x.dtype)
            ends = [end * active for end in ends]
        if self.layout:
            Y = Y.transpose(2, 0, 1, 3)
            ends = [end.transpose(1, 0, 2) for end in ends]
        return (Y, *ends)

    def weights(self, W: Any, R: Any, B: Any, P: Any, d: int) -> LayerWeights[Any]:
        """The weights of a direction, with the rows of its cell's gates."""
        H = R.shape[1]
        G = GATES[self.operator]
        bias_ih, bias_hh = (None, None) if B is None else (B[: G * H], B[G * H :])
        parameters = [] if P is None else [P[d][k * H : (k + 1) * H] for k in range(3)]
        if self.input_forget:  # i o f c without f
            kept = [*range(2 * H), *range(3 * H, 4 * H)]
            W, R, bias_ih, bias_hh = (
                None if w is None else w[kept] for w in (W, R, bias_ih, bias_hh)
            )
            parameters = parameters[:2]
        return LayerWeights(W, R, bias_ih, bias_hh, None, parameters)

    def pack(self, *arrays: Array | None) -> PackedLayers | None:
        """W, R, B and P, packed once for as long as they are the same arrays."""
        known, packed = self._packed
        if len(known) != len(arrays) or any(a is not b for a, b in zip(known, arrays, strict=True)):
            W, R, B, P = arrays
            assert W is not None
            assert R is not None
            weights = self.weights(W[0], R[0], None if B is None else B[0], P, 0)
            layer = weights.map(np.ascontiguousarray)
            packed = engine.pack_layers(self.cells[0].trace, R.shape[2], [layer])
            self._packed = (arrays, packed)
        return packed

    def _run_reset_first(
        self,
        cell: Cell,
        x: Any,
        states: Sequence[Any],
        weights: LayerWeights[Any],
        lengths: Array | None,
        reverse: bool,
    ) -> tuple[Any, Sequence[Any]]:
        (h,) = states
        halves = product(x, weights.weight_ih, weights.bias_ih)
        recurrent = LayerWeights(weight_hh=weights.weight_hh, bias_hh=weights.bias_hh)
        output, final = run_in_halves(run_cell, cell, halves, h, recurrent, lengths, reverse)
        return output, (final,)

    def check(self, x: Any, W: Any, R: Any, B: Any, lengths: Any, h: Any, c: Any, P: Any) -> None:
        """Check the shapes of the inputs.

        Raises:
            OnnxError: one is wrong.
        """
        D, G = len(self.reverse), GATES[self.operator]
        for name, value, axes in (("X", x, 3), ("W", W, 3), ("R", R, 3)):
            if value is None or value.ndim != axes:
                got = "nothing" if value is None else f"shape {value.shape}"
                raise self.node.error(f"{name} got {got}, expected {axes} axes")
        T, rows, I = x.shape
        H = self.hidden_size or R.shape[2]
        for name, value, expected in (
            ("W", W, (D, G * H, I)), ("R", R, (D, G * H, H)), ("B", B, (D, 2 * G * H)),
            ("initial_h", h, (D, rows, H)), ("initial_c", c, (D, rows, H)), ("P", P, (D, 3 * H)),
            ("sequence_lens", lengths, (rows,)),
        ):  # fmt: skip
            if value is None:
                continue
            if value.shape != expected:
                raise self.node.error(
                    f"{name} has the shape {value.shape}, expected {expected} for {D} directions, "
                    f"hidden_size {H} and an input of {T} steps, {rows} rows and {I} features"
                )
            if name != "sequence_lens" and value.dtype != x.dtype:
                raise self.node.error(f"{name} is {value.dtype}, but X {x.dtype}")
        if x.dtype not in (np.float32, np.float64):
            raise self.node.error(f"X is {x.dtype}; expected float32 or float64")
        if lengths is not None:
            if lengths.dtype.kind not in "iu":
                raise self.node.error(f"sequence_lens is {lengths.dtype}, expected int32")
            if len(lengths) and not (lengths.min() >= 0 and lengths.max() <= T):
                raise self.node.error(
                    f"sequence_lens from {lengths.min()} to {lengths.max()}, but the input has {T} "
                    "steps"
                )


class FewSteps:
    """A recurrent node for few steps of one direction: its weights are packed beforehand."""

    def __init__(self, recurrent: RecurrentNode) -> None:
        self.recurrent = recurrent

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """As `RecurrentNode.__call__`."""
        packed = None
        if not any(isinstance(value, Tensor) for value in inputs):
            x, W, R, B, _, h, c, P = (*inputs, *[None] * 8)[:8]
            packed = self.recurrent.pack(W, R, B, P)
        if packed is None:
            return self.recurrent(*inputs)
        T, rows, _ = x.shape
        shape = (1, rows, R.shape[2])
        given = (h, c) if self.recurrent.operator == "LSTM" else (h,)
        states = [np.zeros(shape, x.dtype) if s is None else np.array(s, order="C") for s in given]
        Y = packed.run(np.ascontiguousarray(x), states)
        return (Y.reshape(T, *shape), *states)


def run_cell(
    cell: Cell,
    x: Any,
    states: Sequence[Any],
    weights: LayerWeights[Any],
    lengths: Array | None,
    reverse: bool,
) -> tuple[Any, Sequence[Any]]:
    """A cell over time, on Tensors if any value is one, otherwise on arrays."""
    if any(isinstance(value, Tensor) for value in (x, *states, *weights.flat())):
        return ops.recurrence(
            cell, tensor(x), list(map(tensor, states)), weights.map(tensor), lengths, reverse
        )
    steps = engine.recurrence_forward(
        cell.trace, x, states, weights, lengths, reverse, False, False
    )
    return steps.output, steps.final


# Each works on Tensors, and gives one, if any value is a Tensor, and otherwise on arrays.


def tensor(value: Any) -> Tensor:
    """A value as a Tensor."""
    return value if isinstance(value, Tensor) else Tensor(value)


def zeros(like: Any, shape: tuple[int, ...]) -> Array:
    """Zeros of the dtype of another value."""
    return np.zeros(shape, like.dtype)


def product(x: Any, weight: Any, bias: Any = None) -> Any:
    """``x W^T + b`` over the last axis."""
    if any(isinstance(value, Tensor) for value in (x, weight, bias)):
        return ops.linear(x, weight, bias)
    rows = engine.matmul(x.reshape(-1, x.shape[-1]), weight.T, bias)
    return rows.reshape(*x.shape[:-1], len(weight))


def _moved(value: Any, axes: tuple[int, ...], node: Node) -> Any:
    if value.ndim != len(axes):
        raise node.error(f"an input has the shape {value.shape}, expected {len(axes)} axes")
    return value.transpose(*axes)
