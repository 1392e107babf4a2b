"""The recurrence as an operation, fused by the engine, and its unfused twin on the tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anaphora import engine
from anaphora.cells import Cell, Gate
from anaphora.equations import Trace
from anaphora.ops.arithmetic import where
from anaphora.ops.linear import linear
from anaphora.ops.shapes import getitem, stack
from anaphora.tensor import Array, Tensor, differentiable

States = tuple[Tensor, ...]


def recurrence(
    cell: Cell,
    x_gates: Tensor,
    states: Sequence[Tensor],
    weight_hh: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    parameters: Sequence[Tensor] = (),
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    record: dict[str, Array] | None = None,
) -> tuple[Tensor, States]:
    """Run a cell over time, in one layer and one direction.

    Args:
        cell: The cell, with Gx gates that have an input half and Gh that have a recurrent one.
        x_gates: [T, B, Gx*H] the input halves of the gates: ``x W_ih^T + b_ih``.
        states: The initial states: [B, P], then [B, H] for the others.
        weight_hh: [Gh*H, P], None where no gate has a recurrent half.
        bias_hh: [Gh*H] or None.
        weight_hr: [P, H] a projection of the first state after every step, or None; then P is H.
        parameters: The cell's own vectors, each [H].
        lengths: [B] integers in 0..T: the number of steps of each row. The output is 0 beyond
            them, the final state is that after a row's last step.
        reverse: Go from each row's last step to its first.
        record: A dictionary that gets every value to which the cell's equations give a name,
            [T, B, H].

    Returns:
        The output [T, B, P] (the first state after every step) and the final states.

    Raises:
        ValueError: a shape or a length does not fit.
    """
    if not cell.fused:
        return recurrence_unfused(
            cell,
            x_gates,
            states,
            weight_hh,
            bias_hh,
            weight_hr,
            parameters,
            lengths,
            reverse,
            record,
        )
    lengths = _checked_lengths(lengths, x_gates.shape)
    output, *final = _recurrence(
        x_gates, weight_hh, bias_hh, weight_hr, *states, *parameters,
        trace=cell.trace, lengths=lengths, reverse=reverse, record=record,
    )  # fmt: skip
    return output, tuple(final)


@differentiable
def _recurrence(
    *arrays: Any,
    trace: Trace,
    lengths: Array | None,
    reverse: bool,
    record: dict[str, Array] | None,
) -> Any:
    x_gates, weight_hh, bias_hh, weight_hr, *others = arrays
    initial, parameters = others[: trace.states], others[trace.states :]
    weights = (weight_hh, bias_hh, weight_hr, parameters)
    steps = engine.recurrence_forward(
        trace, x_gates, initial, *weights, lengths, reverse, record is not None
    )
    if record is not None:
        record.update(steps.named)

    def pullback(gradients: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
        d = engine.recurrence_backward(
            trace, steps, gradients[0], gradients[1:], x_gates, *weights, lengths, reverse
        )
        return (d.x_gates, d.weight_hh, d.bias_hh, d.weight_hr, *d.states, *d.parameters)

    return (steps.output, *steps.final), pullback


def _checked_lengths(lengths: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    if lengths is None:
        return None
    T, B = shape[:2]
    array = np.asarray(lengths)
    if array.shape != (B,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"lengths: got {array.dtype}{array.shape}, wanted one integer for each of the {B} rows "
            "of the batch"
        )
    if array.size and not (array.min() >= 0 and array.max() <= T):
        raise ValueError(
            f"lengths: from {array.min()} to {array.max()}, but the sequences have {T} steps"
        )
    return array.astype(np.int64)


class _WholeGate(Tensor):
    """A gate of a cell that was not traced: the sum of its halves, with the halves at hand."""

    __slots__ = ("h", "x")

    x: Tensor
    h: Tensor


def _whole_gate(x: Tensor, h: Tensor) -> _WholeGate:
    total = x + h
    gate = _WholeGate._result(total.data, total._node, total._output)
    gate.x, gate.h = x, h
    return gate


def recurrence_unfused(
    cell: Cell,
    x_gates: Tensor,
    states: Sequence[Tensor],
    weight_hh: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    parameters: Sequence[Tensor] = (),
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    record: dict[str, Array] | None = None,
) -> tuple[Tensor, States]:
    """`recurrence`, step by step with ordinary operations: what the fused one is checked against.

    Cells declared with ``fused=False`` run here. `record` gets their states only, since their
    intermediates have no names.
    """
    checked = _checked_lengths(lengths, x_gates.shape)
    T, B = x_gates.shape[:2]
    H = states[0].shape[-1] if weight_hr is None else weight_hr.shape[1]
    order = np.broadcast_to(np.arange(T)[:, None], (T, B))  # the step that each row takes at t
    if reverse:
        ends = np.full(B, T) if checked is None else checked
        order = np.where(order < ends, ends - 1 - order, order)
    rows = np.arange(B)

    def half(gates: Tensor | None, owners: tuple[str, ...], gate: str) -> Any:
        if gate not in owners:
            return None
        start = owners.index(gate) * H
        return getitem(gates, (slice(None), slice(start, start + H)))

    current = tuple(states)
    outputs: list[Tensor] = []
    recorded: dict[str, list[Array]] = {name: [] for name in cell.states}
    for t in range(T):
        x = getitem(x_gates, (order[t], rows))
        h = None if weight_hh is None else linear(current[0], weight_hh, bias_hh)
        gates: list[Any] = []
        for gate in cell.gates:
            x_half = half(x, cell.input_gates, gate)
            h_half = half(h, cell.recurrent_gates, gate)
            if not cell.fused:
                gates.append(_whole_gate(x_half, h_half))
            elif gate in cell.program.inputs:
                gates.append(x_half + h_half)
            else:
                gates.append(Gate(x_half, h_half))
        returned = cell(*gates, *current, *parameters)
        after = list(returned) if isinstance(returned, tuple) else [returned]
        if weight_hr is not None:
            after[0] = linear(after[0], weight_hr)
        if checked is not None:
            alive = (t < checked)[:, None]
            after = [where(alive, new, old) for new, old in zip(after, current, strict=True)]
            outputs.append(where(alive, after[0], np.zeros_like(after[0].data)))
        else:
            outputs.append(after[0])
        current = tuple(after)
        for name, state in zip(cell.states, current, strict=True):
            recorded[name].append(state.data)

    if not outputs:
        return Tensor(np.zeros((0, *states[0].shape), x_gates.dtype)), current
    inverse = np.argsort(order, axis=0, kind="stable")
    output = getitem(stack(outputs), (inverse, rows))
    if record is not None:
        for name, values in recorded.items():
            record[name] = np.stack(values)[inverse, rows]
            if checked is not None:
                record[name][np.arange(T)[:, None] >= checked] = 0
    return output, current
