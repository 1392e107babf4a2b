"""The recurrence: fused by the engine, and an unfused reference on the tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anaphora import engine
from anaphora.cells import Cell, Gate
from anaphora.engine import LayerWeights
from anaphora.engine.recurrence import Pair
from anaphora.equations import Trace
from anaphora.ops.arithmetic import where
from anaphora.ops.linear import linear
from anaphora.ops.shapes import broadcast_to, getitem, split, stack, unstack
from anaphora.tensor import Array, Input, Tensor, as_tensor, differentiable, floating, recording
from anaphora.tensor.hooks import thread

States = tuple[Tensor, ...]

_NO_WEIGHTS: LayerWeights[Tensor] = LayerWeights()


def recurrence(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor],
    weights: LayerWeights[Tensor] = _NO_WEIGHTS,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    record: dict[str, Array] | None = None,
) -> tuple[Tensor, States]:
    """Run a cell over time, in one layer and one direction.

    Args:
        cell: The cell, with Gx gates that have an input half and Gh that have a recurrent half.
        x: [T, B, I] the input; without `weight_ih`, [T, B, Gx*H], the input halves of the gates.
        states: The initial states: [B, P], then [B, H] for the others.
        weights: Of the layer, in the shapes of `engine.LayerWeights`.
        lengths: [B] integers in 0..T, the number of steps of each row. The output is 0 after
            them; the final state is that after a row's last step.
        reverse: Run from each row's last step to its first.
        record: A dictionary to fill with every named value of the cell's equations, [T, B, H].

    Returns:
        The output [T, B, P] (the first state after every step) and the final states.

    Raises:
        ValueError: a shape or a length is wrong.

    >>> from anaphora.cells import mingru  # no recurrent half, so no weight_hh
    >>> x_gates, h = Tensor(np.ones((5, 2, 2 * 4))), Tensor(np.zeros((2, 4)))
    >>> output, (last,) = recurrence(mingru, x_gates, [h], lengths=[5, 3])
    >>> output.shape, bool((last.data[1] == output.data[2, 1]).all())
    ((5, 2, 4), True)
    """
    x, *states = _tensors((x, *states), (weights.weight_ih, weights.weight_hh))
    if not cell.fused:
        return recurrence_unfused(cell, x, states, weights, lengths, reverse, record)
    _check_shapes(cell, x, states, weights)
    output, *final = _recurrence(
        x, *states, *weights.flat(),
        trace=cell.trace, lengths=checked_lengths("recurrence", lengths, x.shape), reverse=reverse,
        record=record, wants_d_x=x.requires_grad,
    )  # fmt: skip
    return output, tuple(final)


@differentiable
@floating
def _recurrence(
    *arrays: Input,
    trace: Trace,
    lengths: Array | None,
    reverse: bool,
    record: dict[str, Array] | None,
    wants_d_x: bool,
) -> Any:
    x, *others = arrays
    initial = others[: trace.states]
    weights: LayerWeights[Array] = LayerWeights.from_flat(others[trace.states :])
    steps = engine.recurrence_forward(
        trace, x, initial, weights, lengths, reverse, record is not None, recording()
    )
    if record is not None:
        record.update(steps.named)

    def pullback(gradients: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
        d = engine.recurrence_backward(
            trace, steps, gradients[0], gradients[1:], x, weights, lengths, reverse, wants_d_x
        )
        return (d.x, *d.states, *d.weights.flat())

    return (steps.output, *steps.final), pullback


def bidirectional_recurrence(
    cell: Cell,
    x: Pair[Tensor],
    states: Pair[Sequence[Tensor]],
    weights: Pair[LayerWeights[Tensor]],
    lengths: ArrayLike | None = None,
    record: Pair[dict[str, Array]] | None = None,
) -> Pair[tuple[Tensor, States]]:
    """`recurrence` in both directions, forward and reversed; the engine may run them side by side.

    Args:
        cell: The cell.
        x: For each direction the input, as for `recurrence`; often the same one.
        states: For each direction the initial states.
        weights: For each direction the weights.
        lengths: Of both directions.
        record: For each direction a dictionary to fill.

    Returns:
        For each direction the output and the final states.

    Raises:
        ValueError: a shape or a length is wrong.

    >>> from anaphora.cells import mingru
    >>> x, h = Tensor(np.ones((5, 2, 2 * 4))), Tensor(np.zeros((2, 4)))
    >>> both = bidirectional_recurrence(mingru, (x, x), ([h], [h]), (LayerWeights(),) * 2)
    >>> (forward, _), (backward, _) = both  # of equal weights and steps
    >>> bool((forward.data == backward.data[::-1]).all())
    True
    """
    if not cell.fused:
        first, second = zip(x, states, weights, strict=True)
        records = record or (None, None)
        return (
            recurrence(cell, *first, lengths, False, records[0]),
            recurrence(cell, *second, lengths, True, records[1]),
        )
    arrays: list[Tensor | None] = []
    for one, initial, of in zip(x, states, weights, strict=True):
        given = _tensors((one, *initial), (of.weight_ih, of.weight_hh))
        _check_shapes(cell, given[0], given[1:], of)
        arrays += [*given, *of.flat()]
    results: Any = _bidirectional_recurrence(
        *arrays, trace=cell.trace, lengths=checked_lengths("recurrence", lengths, x[0].shape),
        record=record, wants_d_x=x[0].requires_grad or x[1].requires_grad,
    )  # fmt: skip
    (output, *final), (reversed_output, *reversed_final) = _halves(results)
    return (output, tuple(final)), (reversed_output, tuple(reversed_final))


@differentiable
@floating
def _bidirectional_recurrence(
    *arrays: Input,
    trace: Trace,
    lengths: Array | None,
    record: Pair[dict[str, Array]] | None,
    wants_d_x: bool,
) -> Any:
    x, initial, weights = zip(
        *(
            (x, others[: trace.states], LayerWeights.from_flat(others[trace.states :]))
            for x, *others in _halves(arrays)
        ),
        strict=True,
    )
    both = engine.bidirectional_forward(
        trace, x, initial, weights, lengths, record is not None, recording()
    )
    if record is not None:
        for named, steps in zip(record, both, strict=True):
            named.update(steps.named)

    def pullback(gradients: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
        d_output, d_final = zip(*((d, rest) for d, *rest in _halves(gradients)), strict=True)
        found = engine.bidirectional_backward(
            trace, both, d_output, d_final, x, weights, lengths, wants_d_x
        )
        return tuple(g for d in found for g in (d.x, *d.states, *d.weights.flat()))

    return tuple(y for steps in both for y in (steps.output, *steps.final)), pullback


def _halves(values: Sequence[Any]) -> Pair[Sequence[Any]]:
    return values[: len(values) // 2], values[len(values) // 2 :]


def _tensors(values: Sequence[Any], weights: Sequence[Tensor | None]) -> list[Tensor]:
    """The input and the states as Tensors; arrays get the dtype of the first Tensor."""
    tensors = (v for v in (*values, *weights) if isinstance(v, Tensor))
    dtype = next((tensor.dtype for tensor in tensors), None)
    return [v if isinstance(v, Tensor) else as_tensor(v, dtype, "recurrence") for v in values]


def _check_shapes(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor],
    weights: LayerWeights[Tensor],
) -> None:
    """Report a wrong shape, before broadcasting hides it."""
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, parameters = weights
    of = f"recurrence: cell {cell.name!r}"
    for kind, names, given in (
        ("states", cell.states, states),
        ("parameters", cell.parameters, parameters),
    ):
        if len(given) != len(names):
            expected = f"{len(names)} ({', '.join(names)})" if names else "none"
            raise ValueError(f"{of} got {len(given)} {kind}, expected {expected}")
    if weight_hr is not None and cell.fused and cell.reads_output_state():
        raise ValueError(
            f"{of} reads its state {cell.states[0]!r} elementwise, so that state cannot be "
            "projected; omit weight_hr"
        )
    if weight_ih is None and bias_ih is not None:
        raise ValueError(f"{of} got bias_ih without weight_ih")
    if x.ndim != 3:
        width = "Gx*H" if weight_ih is None else "I"
        raise ValueError(f"{of} got x of shape {x.shape}, expected [T, B, {width}]")
    T, B, I = x.shape
    P = states[0].shape[-1] if states[0].ndim else 0
    H = P if weight_hr is None else weight_hr.shape[-1]
    Gx, Gh = len(cell.input_gates), len(cell.recurrent_gates)
    tensors = (*states, x, weight_ih, bias_ih, weight_hh, bias_hh, weight_hr, *parameters)
    shapes = (
        (B, P),
        *((B, H) for _ in states[1:]),
        (T, B, Gx * H if weight_ih is None else I),
        (Gx * H, I),
        (Gx * H,),
        (Gh * H, P),
        (Gh * H,),
        (P, H),
        *((H,) for _ in parameters),
    )
    for k, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
        if tensor is not None and tensor.shape != shape:
            names = (
                *(f"state {name!r}" for name in cell.states),
                *("x", "weight_ih", "bias_ih", "weight_hh", "bias_hh", "weight_hr"),
                *(f"parameter {name!r}" for name in cell.parameters),
            )
            raise ValueError(
                f"{of} got {names[k]} of shape {tensor.shape}, expected {shape} for B={B}, H={H}"
            )
    if (weight_hh is None) != (Gh == 0) or (Gh == 0 and bias_hh is not None):
        raise ValueError(
            f"{of} has {Gh} gates with a recurrent half, so weight_hh "
            + (f"is required, of shape {(Gh * H, P)}" if Gh else "and bias_hh must be None")
        )


def checked_lengths(
    operation: str, lengths: ArrayLike | None, shape: tuple[int, ...]
) -> Array | None:
    """The lengths [B] of sequences [T, B, ...] as int64; None stays None.

    Raises:
        ValueError: they are not B integers in 0..T; the message starts with the operation.
    """
    if lengths is None or is_symbol(lengths):
        return lengths  # type: ignore[return-value]
    T, B = shape[:2]
    array = np.asarray(lengths)
    if array.shape != (B,) or (B and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{operation}: lengths got {array.dtype}{array.shape}, expected one integer for each "
            f"of the {B} rows of the batch"
        )
    if array.size and not (array.min() >= 0 and array.max() <= T):
        raise ValueError(
            f"{operation}: lengths from {array.min()} to {array.max()}, but the sequences have {T} "
            "steps"
        )
    return array.astype(np.int64)


def is_symbol(lengths: Any) -> bool:
    """Whether lengths are no numbers, but an interpreter's own kind of value."""
    return thread.interpreter is not None and isinstance(lengths, Tensor)


def within(lengths: Any, steps: Any) -> Any:
    """Whether each of a number of steps is within the lengths [...]: booleans [steps, ...].

    >>> within([2, 0], 3).tolist()
    [[True, False], [True, False], [False, False]]
    """
    if is_symbol(lengths):
        return lengths.active(steps)
    lengths = np.asarray(lengths)
    return np.arange(steps).reshape(-1, *[1] * lengths.ndim) < lengths


class _SummedGate(Tensor):
    """The sum of a gate's halves, with the halves as attributes, for untraced cells."""

    __slots__ = ("h", "x")

    x: Tensor
    h: Tensor


def _summed_gate(x: Tensor, h: Tensor) -> _SummedGate:
    total = x + h
    gate = _SummedGate._result(total.data, total._node, total._output)
    gate.x, gate.h = x, h
    return gate


def recurrence_unfused(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor],
    weights: LayerWeights[Tensor] = _NO_WEIGHTS,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    record: dict[str, Array] | None = None,
) -> tuple[Tensor, States]:
    """`recurrence`, step by step with ordinary operations: the reference for the fused one.

    Cells declared with ``fused=False`` run here. At each step a cell receives only the active rows
    of the batch, in order. `record` receives only states, since intermediates have no names here.

    >>> from anaphora.cells import mingru
    >>> arguments = mingru, Tensor(np.ones((5, 2, 2 * 4))), [Tensor(np.zeros((2, 4)))]
    >>> one, reference = recurrence(*arguments)[0], recurrence_unfused(*arguments)[0]
    >>> np.allclose(one.data, reference.data)
    True
    """
    x, *states = _tensors((x, *states), (weights.weight_ih, weights.weight_hh))
    _check_shapes(cell, x, states, weights)
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, parameters = weights
    ends = checked_lengths("recurrence", lengths, x.shape)
    T, B, _ = x.shape
    H = states[0].shape[-1] if weight_hr is None else weight_hr.shape[1]
    if ends is not None:  # the cell must not see padding
        x = where((np.arange(T)[:, None] < ends)[:, :, None], x, 0.0)
    x_gates = x if weight_ih is None else linear(x, weight_ih, bias_ih)

    def step(halves: Tensor, before: States) -> tuple[Tensor, States, States]:
        h = None if weight_hh is None else linear(before[0], weight_hh, bias_hh)
        returned = cell(*_gates(cell, halves, h), *before, *parameters)
        after = list(returned) if isinstance(returned, tuple) else [returned]
        if len(after) != len(before):
            raise ValueError(
                f"recurrence: cell {cell.name!r} returned {len(after)} of its states, expected "
                f"{', '.join(cell.states)}"
            )
        for k, name in enumerate(cell.states):
            after[k] = _state(cell, name, after[k], (len(halves), H), x_gates.dtype)
        named = tuple(after)
        if weight_hr is not None:
            after[0] = linear(after[0], weight_hr)
        return after[0], tuple(after), named

    if record is not None and not T:
        record.update({name: np.zeros((0, B, H), x_gates.dtype) for name in cell.states})
    return step_by_step(step, cell.states, x_gates, tuple(states), ends, reverse, record)


Step = Callable[[Tensor, States], tuple[Tensor, States, Sequence[Tensor]]]


def step_by_step(
    step: Step,
    names: Sequence[str],
    x: Tensor,
    states: States,
    lengths: Array | None,
    reverse: bool,
    record: dict[str, Array] | None,
) -> tuple[Tensor, States]:
    """Run a function of one step over time, on the tape.

    Args:
        step: ``step(x [B, I], states)`` returns the output [B, N], the next states, and the values
            [B, ...] to record. It receives only the active rows of the batch, in order.
        names: The names of the values to record.
        x: [T, B, I].
        states: The initial states, [B, ...] each.
        lengths: [B] int64 in 0..T, or None for all T. The output is 0 beyond; the final state is
            that after a row's last step.
        reverse: Run from each row's last step to its first.
        record: A dictionary to fill with the values by name, [T, B, ...] each, or None.

    Returns:
        The output [T, B, N] and the final states.

    >>> def total(x, states):
    ...     y = states[0] + x
    ...     return y, (y,), [y]
    >>> x, zeros = Tensor([[[1.0]], [[2.0]], [[4.0]]]), (Tensor([[0.0]]),)
    >>> y, _ = step_by_step(total, ["y"], x, zeros, None, True, None)
    >>> y.data.ravel()
    array([7., 6., 4.], dtype=float32)
    """
    T, B = x.shape[:2]
    order = np.broadcast_to(np.arange(T)[:, None], (T, B))  # the step of each row at t
    if reverse:
        last = (np.full(B, T) if lengths is None else lengths) - 1
        order = np.where(order <= last, last - order, order)
        x = getitem(x, (order, np.arange(B)))

    current = states
    outputs: list[Tensor] = []
    recorded: dict[str, Array] = {}
    for t, inputs in enumerate(unstack(x)):
        rows = None
        if lengths is not None and t >= lengths.min(initial=T):
            rows = np.flatnonzero(t < lengths)
        if rows is not None and t and not len(rows):
            # Step 0 always runs, so that every weight has a gradient.
            outputs.append(Tensor(np.zeros_like(outputs[0].data)))
            continue
        before = current
        if rows is not None:
            inputs = getitem(inputs, rows)
            before = tuple(getitem(state, rows) for state in current)
        output, after, named = step(inputs, before)
        for name, value in zip(names, named, strict=True):
            steps = recorded.setdefault(name, np.zeros((T, B, *value.shape[1:]), x.dtype))
            steps[t, slice(None) if rows is None else rows] = value.data
        if rows is None:
            outputs.append(output)
            current = after
        else:
            zeros = Tensor(np.zeros((B, *output.shape[1:]), x.dtype))
            outputs.append(_put_rows(zeros, output, rows))
            current = tuple(_put_rows(s, new, rows) for s, new in zip(current, after, strict=True))

    if record is not None:
        for name, steps in recorded.items():
            record[name] = steps[order, np.arange(B)]
    if not outputs:
        return Tensor(np.zeros((0, *states[0].shape), x.dtype)), current
    sequence = stack(outputs)
    if reverse:  # reversing within the length is its own inverse
        sequence = getitem(sequence, (order, np.arange(B)))
    return sequence, current


def _state(cell: Cell, name: str, value: Any, shape: tuple[int, int], dtype: Any) -> Tensor:
    """A state that a cell returned, broadcast over the batch if it depends on no row."""
    if isinstance(value, (int, float, np.number, np.ndarray)):
        value = Tensor(np.asarray(value, dtype))
    if not isinstance(value, Tensor):
        raise TypeError(
            f"recurrence: cell {cell.name!r} returned {value!r} for the state {name!r}, expected a "
            "Tensor"
        )
    if value.shape == shape:
        return value
    try:
        fits = np.broadcast_shapes(shape, value.shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"recurrence: cell {cell.name!r} returned a state {name!r} of shape {value.shape}, "
            f"expected {shape} for the rows that are active, or a shape that broadcasts to it"
        )
    result: Tensor = broadcast_to(value, shape)
    return result


@differentiable
def _put_rows(x: Input, new: Input, /, rows: Input) -> Any:
    """Replace some rows of x [B, ...]."""
    y = x.copy()
    y[rows] = new

    def pull_x(dy: Array) -> Array:
        dx = dy.copy()
        dx[rows] = 0
        return dx

    return y, (pull_x, lambda dy: dy[rows])


def _gates(cell: Cell, x: Tensor, h: Tensor | None) -> list[Any]:
    """The arguments of the equations for each gate, from the concatenated halves x and h."""
    xs = split(x, len(cell.input_gates), axis=-1) if cell.input_gates else ()
    hs = () if h is None else split(h, len(cell.recurrent_gates), axis=-1)
    x_halves = dict(zip(cell.input_gates, xs, strict=True))
    h_halves = dict(zip(cell.recurrent_gates, hs, strict=True))

    def gate(name: str) -> Any:
        if cell.fused and name not in cell.program.inputs:
            return Gate(x_halves.get(name), h_halves.get(name))
        return _summed_gate(x_halves[name], h_halves[name])

    return [gate(name) for name in cell.gates]
