"""The GRU whose reset gate multiplies before the matrix product, as two steps of one cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anaphora import engine, ops
from anaphora.cells import Cell, cell
from anaphora.engine import LayerWeights
from anaphora.equations import sigmoid, tanh
from anaphora.nn.initialization import Initialization
from anaphora.nn.kinds import CellLayer, LayerKind, Shape, States, without_padding
from anaphora.tensor import Array, Parameter, Tensor

if TYPE_CHECKING:
    from anaphora.nn.recurrent import Recurrent


@cell(gates="r z n first", state="q h k")
def half_gru(r: Any, z: Any, n: Any, first: Any, q: Any, h: Any, k: Any) -> Any:
    """A step of a GRU with ``n = tanh(W x + R (r h) + b)`` as two, whose products follow in turn.

    In the first (``first`` is 1) the state ``q`` that the weights multiply becomes ``r h``, and
    ``k`` the update gate; in the second q and h become the new state. See `run_in_halves`.

    >>> from anaphora.cells import Gate
    >>> q, h, k = half_gru(0.0, 100.0, 0.0, Gate(x=1.0, h=None), 0.5, 0.5, 0.0)
    >>> float(q), float(h), float(k)
    (0.25, 0.5, 1.0)
    >>> float(half_gru(0.0, 0.0, 100.0, Gate(x=0.0, h=None), q, h, 0.0)[0])
    1.0
    """
    second = 1 - first.x
    r, z, n = sigmoid(r), sigmoid(z), tanh(n)
    new = (1 - k) * n + k * h
    q = first.x * (r * h) + second * new
    h = first.x * h + second * new
    k = first.x * z + second * k
    return q, h, k


Run = Callable[..., tuple[Any, Sequence[Any]]]


def run_in_halves(
    run: Run,
    cell: Cell,
    halves: Any,
    h: Any,
    weights: LayerWeights[Any],
    lengths: Array | None,
    reverse: bool,
    record: dict[str, Array] | None = None,
) -> tuple[Any, Any]:
    """Run `half_gru`, or a cell like it, over time.

    Args:
        run: `ops.recurrence`, or what takes the same arguments in the same order.
        cell: The cell.
        halves: [T, B, 3*H] the input halves of r, z and n, in the cell's order.
        h: [B, H] the initial state.
        weights: Those of the recurrent halves.
        lengths: [B], or None.
        reverse: Run from each row's last step to its first.
        record: As for `ops.recurrence`; r and z of the first half-steps, n and h of the second.

    Returns:
        The output [T, B, H] and the final state; on arrays, not Tensors, if none was given.
    """
    (T, B, _), H, first = halves.shape, h.shape[1], int(reverse)  # which half comes first in time
    flags = np.zeros((T, 2, B, H), halves.dtype)
    flags[:, first] = 1
    if isinstance(halves, Tensor):
        steps: Any = ops.concatenate([ops.stack([halves, halves], 1), flags], 3)
    else:
        steps = np.concatenate([np.stack([halves, halves], 1), flags], 3)
    found: dict[str, Array] | None = None if record is None else {}
    options = {} if found is None else {"record": found}
    ends = None if lengths is None else 2 * lengths
    initial = [h, h, np.zeros((B, H), halves.dtype)]
    steps = steps.reshape(2 * T, B, 4 * H)
    y, final = run(cell, steps, initial, weights, ends, reverse, **options)
    if record is not None and found is not None:
        for name, half in (("r", first), ("z", first), ("n", 1 - first), ("h", 1 - first)):
            record[name] = found[name][half::2]
    return y.reshape(T, 2, B, H)[:, 1 - first], final[1]


class ResetBeforeGRU(LayerKind):
    """A GRU whose reset gate multiplies before the matrix product (Cho et al. 2014).

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + W_hn (r * h) + b_hn)
        h = (1 - z) * n + z * h

    Two products follow one another in a step, so the engine runs it as two steps of a cell: twice
    the work of `nn.GRU`, which is the form of cuDNN and PyTorch. It is ONNX's GRU with
    linear_before_reset 0, and Keras's with reset_after False.

    Shapes: as `nn.GRU`.

    Args:
        cell: `half_gru`, or one with other functions in its place.

    >>> from anaphora import nn
    >>> layer = nn.Recurrent("gru_reset_before", input_size=3, hidden_size=4)
    >>> y, h = layer(np.ones((5, 2, 3), np.float32), lengths=[5, 2])
    >>> y.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    name = "gru_reset_before"

    def __init__(self, cell: Cell = half_gru) -> None:
        self.half = cell

    def state_shapes(self, layer: Recurrent) -> dict[str, Shape]:  # noqa: D102
        return {"h": (layer.hidden_size,)}

    def parameter_shapes(self, layer: Recurrent, input_size: int) -> dict[str, Shape]:  # noqa: D102
        return CellLayer("gru").parameter_shapes(layer, input_size)

    def reset_parameters(  # noqa: D102
        self,
        layer: Recurrent,
        parameters: Mapping[str, Parameter],
        initialization: Initialization,
    ) -> None:
        CellLayer("gru").reset_parameters(layer, parameters, initialization)

    def run(  # noqa: D102
        self,
        layer: Recurrent,
        x: Tensor,
        states: States,
        parameters: Mapping[str, Parameter],
        lengths: Array | None,
        reverse: bool,
        recorded: dict[str, Array] | None,
    ) -> tuple[Tensor, States]:
        (h,) = states
        halves = ops.linear(
            without_padding(x, lengths), parameters["weight_ih"], parameters.get("bias_ih")
        )
        weights = engine.LayerWeights(
            weight_hh=parameters["weight_hh"], bias_hh=parameters.get("bias_hh")
        )
        y, final = run_in_halves(
            ops.recurrence, self.half, halves, h, weights, lengths, reverse, recorded
        )
        return y, (final,)
