"""The recurrence: any traced cell over time, forward and backward, on plain arrays.

A cell's program is interpreted with one NumPy call per instruction, on all rows of the batch. The
matrix products that do not depend on the previous step are outside the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from anaphora.engine.kernels import matmul
from anaphora.equations import Trace

Array: TypeAlias = NDArray[Any]


A = TypeVar("A")
B = TypeVar("B")


class LayerWeights(NamedTuple, Generic[A]):
    """The weights of one layer in one direction, or their gradients; None where there are none.

    Attributes:
        weight_ih: [Gx*H, I], for the input halves ``x W_ih^T + b_ih`` of the gates.
        weight_hh: [Gh*H, P]; none if no gate has a recurrent half.
        bias_ih: [Gx*H].
        bias_hh: [Gh*H].
        weight_hr: [P, H] a projection of the first state after every step; without one P is H.
        parameters: The cell's own vectors, each [H].

    >>> LayerWeights(weight_ih=np.ones((2, 3)), weight_hh=np.ones((2, 2))).parameters
    ()
    """

    weight_ih: A | None = None
    weight_hh: A | None = None
    bias_ih: A | None = None
    bias_hh: A | None = None
    weight_hr: A | None = None
    parameters: Sequence[A] = ()

    def flat(self) -> list[A | None]:
        """The five weights, then the parameters.

        >>> LayerWeights(bias_ih=1.0, parameters=[2.0]).flat()
        [None, None, 1.0, None, None, 2.0]
        """
        *five, parameters = self
        return [*five, *parameters]

    @classmethod
    def from_flat(cls, values: Sequence[A | None]) -> LayerWeights[A]:
        """The weights that `flat` took apart.

        >>> LayerWeights.from_flat([None, None, 1.0, None, None, 2.0]).parameters
        [2.0]
        """
        weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, *rest = values
        parameters = cast("list[A]", rest)
        return LayerWeights(weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, parameters)

    def map(self, function: Callable[[A], B]) -> LayerWeights[B]:
        """The same for each of the weights.

        >>> LayerWeights(bias_ih=1.0, parameters=[2.0]).map(str).flat()
        [None, None, '1.0', None, None, '2.0']
        """
        return LayerWeights.from_flat([None if w is None else function(w) for w in self.flat()])


@dataclass
class RecurrenceSteps:
    """What a forward pass saves for the backward pass.

    Attributes:
        output: [T, B, P] the first state after every step; 0 after a row's length.
        final: The states after each row's last step: [B, P], then [B, H] for the others.
        named: Every named value of the cell's equations, [T, B, H]; empty unless recorded.

    >>> from anaphora.equations import trace
    >>> running_sum = trace(lambda n, h: h + n.x, gates=["n"], states=["h"])
    >>> x_gates, h, lengths = np.ones((3, 2, 1)), np.zeros((2, 1)), np.array([3, 2])
    >>> steps = recurrence_forward(running_sum, x_gates, [h], LayerWeights(), lengths)
    >>> steps.output[:, 1, 0], steps.final[0][1]  # of the row that has 2 steps
    (array([1., 2., 0.]), array([2.]))
    """

    output: Array
    final: list[Array]
    named: dict[str, Array]
    states: list[Array]  # [T+1, B, P], [T+1, B, H] ...; the initial state is at 0
    saved: list[list[Array]]  # for each step, the values that the adjoint needs
    unprojected: Array | None  # [T, B, H] the first state before its projection


@dataclass
class RecurrenceGradients:
    """The gradients of a recurrence's arguments, in their shapes; None for absent ones.

    >>> from anaphora.equations import trace
    >>> decay = trace(lambda f, h: f.x * h, gates=["f"], states=["h"])
    >>> x, weights = np.full((2, 1, 1), 0.5), LayerWeights()
    >>> steps = recurrence_forward(decay, x, [np.array([[8.0]])], weights)
    >>> gradients = recurrence_backward(decay, steps, None, [np.ones((1, 1))], x, weights)
    >>> gradients.x.ravel(), gradients.states[0].ravel()  # h = 0.5 * 0.5 * 8
    (array([4., 4.]), array([0.25]))
    """

    x: Array | None
    weights: LayerWeights[Array]
    states: list[Array]


def recurrence_forward(
    trace: Trace,
    x: Array,
    initial: Sequence[Array],
    weights: LayerWeights[Array],
    lengths: Array | None = None,
    reverse: bool = False,
    record: bool = False,
    save: bool = True,
) -> RecurrenceSteps:
    """Run a cell over time.

    Args:
        trace: The traced cell; its gates have Gx input halves and Gh recurrent halves.
        x: [T, B, I] the input; without ``weight_ih`` [T, B, Gx*H], the input halves of the gates.
        initial: The initial states: [B, P], then [B, H] for the others.
        weights: Of the layer.
        lengths: [B] the number of steps of each row, 0..T; None means T for all.
        reverse: Run from each row's last step to its first.
        record: Also return every named value.
        save: Save what `recurrence_backward` needs; otherwise there is no backward pass, and only
            the output takes memory.

    >>> from anaphora.equations import trace
    >>> running_sum = trace(lambda n, h: h + n.x, gates=["n"], states=["h"])
    >>> x_gates, h = np.array([[[1.0]], [[2.0]], [[3.0]]]), np.zeros((1, 1))
    >>> recurrence_forward(running_sum, x_gates, [h], LayerWeights()).output.ravel()
    array([1., 3., 6.])
    """
    T, B, I = x.shape
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, parameters = weights
    H = initial[0].shape[-1] if weight_hr is None else weight_hr.shape[1]
    program, saved_values = trace.program, trace.adjoint.saved
    x = _without_padding(x, lengths)
    x = _reversed(x, lengths) if reverse else x
    x_gates = x
    if weight_ih is not None:
        x_gates = matmul(x.reshape(T * B, I), weight_ih.T, bias_ih).reshape(T, B, len(weight_ih))

    states = [np.empty((T + 1, *state.shape), state.dtype) for state in initial]
    for state, start in zip(states, initial, strict=True):
        state[0] = start
    unprojected = None if weight_hr is None else np.zeros((T, B, H), x_gates.dtype)
    saved: list[list[Array]] = []
    named = {n: np.zeros((T, B, H), x_gates.dtype) for n in trace.named} if record else {}
    for t in range(T):
        rows = _rows_at(t, lengths)
        before = [state[t, rows] for state in states]
        h_gates = None if weight_hh is None else matmul(before[0], weight_hh.T)
        if h_gates is not None and bias_hh is not None:
            h_gates += bias_hh
        gates = [
            _block(x_gates[t, rows], x, H) + _block(h_gates, h, H)
            if x is not None and h is not None
            else _block(x_gates[t, rows] if h is None else h_gates, x if h is None else h, H)
            for x, h in trace.gate_inputs
        ]
        values = program.values([*gates, *before, *parameters])
        after = program.results(values)
        if weight_hr is not None and unprojected is not None:
            unprojected[t, rows] = after[0]
            after[0] = matmul(unprojected[t, rows], weight_hr.T)
        for state, new in zip(states, after, strict=True):
            if lengths is not None:
                state[t + 1] = state[t]
            state[t + 1, rows] = new
        if save:
            saved.append([values[number] for number in saved_values])
        for name, kept in named.items():
            kept[t, rows] = values[trace.named[name]]

    def finish(sequence: Array) -> Array:
        return _reversed(sequence, lengths) if reverse else sequence

    return RecurrenceSteps(
        output=finish(_without_padding(states[0][1:], lengths)),
        final=[state[T].copy() for state in states],
        named={name: finish(values) for name, values in named.items()},
        states=states,
        saved=saved,
        unprojected=unprojected,
    )


def recurrence_backward(
    trace: Trace,
    steps: RecurrenceSteps,
    d_output: Array | None,
    d_final: Sequence[Array | None],
    x: Array,
    weights: LayerWeights[Array],
    lengths: Array | None = None,
    reverse: bool = False,
    wants_d_x: bool = True,
) -> RecurrenceGradients:
    """The gradients of `recurrence_forward`.

    ``steps`` is what `recurrence_forward` returned, ``d_output`` [T, B, P] and ``d_final`` are the
    gradients of the output and of the final states, None for zero; the other arguments are those
    of `recurrence_forward`. Without `wants_d_x` the gradient of x may be None.

    >>> from anaphora.equations import trace
    >>> running_sum = trace(lambda n, h: h + n.x, gates=["n"], states=["h"])
    >>> x_gates, h, d_output = np.ones((3, 1, 1)), np.zeros((1, 1)), np.ones((3, 1, 1))
    >>> weights = LayerWeights()
    >>> steps = recurrence_forward(running_sum, x_gates, [h], weights)
    >>> recurrence_backward(running_sum, steps, d_output, [None], x_gates, weights).x.ravel()
    array([3., 2., 1.])
    """
    T, B, I = x.shape
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, parameters = weights
    H = steps.states[0].shape[-1] if weight_hr is None else weight_hr.shape[1]
    adjoint, dtype = trace.adjoint.program, x.dtype
    if d_output is not None and reverse:
        d_output = _reversed(d_output, lengths)

    d_states = [
        np.zeros(s.shape[1:], dtype) if d is None else np.array(d)
        for s, d in zip(steps.states, d_final, strict=True)
    ]
    d_x_gates = np.zeros((T, B, I if weight_ih is None else len(weight_ih)), dtype)
    d_h_gates = None if weight_hh is None else np.zeros((T, B, len(weight_hh)), dtype)
    d_projected = None if weight_hr is None else np.zeros((T, *d_states[0].shape), dtype)
    d_parameters = [np.zeros_like(p) for p in parameters]
    gate_count = len(trace.gate_inputs)
    for t in reversed(range(T)):
        rows = _rows_at(t, lengths)  # the gradients of inactive rows skip this step
        d_after = [d[rows].copy() for d in d_states]
        if d_output is not None:
            d_after[0] = d_after[0] + d_output[t, rows]
        if weight_hr is not None and d_projected is not None:
            d_projected[t, rows] = d_after[0]
            d_after[0] = matmul(d_after[0], weight_hr)
        d_inputs = adjoint.results(adjoint.values([*steps.saved[t], *d_after]))
        for (x_half, h_half), d in zip(trace.gate_inputs, d_inputs[:gate_count], strict=True):
            if x_half is not None:
                _block(d_x_gates, x_half, H)[t, rows] = d
            if h_half is not None:
                _block(d_h_gates, h_half, H)[t, rows] = d
        d_before = d_inputs[gate_count : gate_count + trace.states]
        if d_h_gates is not None and weight_hh is not None:
            d_before[0] = matmul(d_h_gates[t, rows], weight_hh) + d_before[0]
        for state, d in zip(d_states, d_before, strict=True):
            state[rows] = d
        count = len(d_states[0][rows])
        for total, d in zip(d_parameters, d_inputs[gate_count + trace.states :], strict=True):
            total += np.broadcast_to(d, (count, H)).sum(axis=0)

    def outer(d: Array, x: Array) -> Array:
        x = _without_padding(x, lengths)
        return matmul(d.reshape(T * B, d.shape[-1]).T, x.reshape(T * B, x.shape[-1]))

    before = steps.states[0][:-1]
    d_x_gates = _reversed(d_x_gates, lengths) if reverse else d_x_gates
    d_x: Array = d_x_gates
    if weight_ih is not None:
        d_x = matmul(d_x_gates.reshape(T * B, len(weight_ih)), weight_ih).reshape(x.shape)
    d_weights: LayerWeights[Array] = LayerWeights(
        weight_ih=None if weight_ih is None else outer(d_x_gates, x),
        weight_hh=None if d_h_gates is None else outer(d_h_gates, before),
        bias_ih=None if bias_ih is None else d_x_gates.sum(axis=(0, 1)),
        bias_hh=None if d_h_gates is None or bias_hh is None else d_h_gates.sum(axis=(0, 1)),
        weight_hr=None
        if d_projected is None or steps.unprojected is None
        else outer(d_projected, steps.unprojected),
        parameters=d_parameters,
    )
    return RecurrenceGradients(_without_padding(d_x, lengths), d_weights, d_states)


Pair = tuple[A, A]  # of the forward direction, and of the reversed one


def bidirectional_forward(
    trace: Trace,
    x: Pair[Array],
    initial: Pair[Sequence[Array]],
    weights: Pair[LayerWeights[Array]],
    lengths: Array | None = None,
    record: bool = False,
    save: bool = True,
) -> Pair[RecurrenceSteps]:
    """`recurrence_forward` in both directions, of the same sizes: forward, and reversed.

    The results are those of two calls; the native engine runs the two directions side by side where
    that takes less time.

    >>> from anaphora.equations import trace
    >>> running_sum = trace(lambda n, h: h + n.x, gates=["n"], states=["h"])
    >>> x, h = np.array([[[1.0]], [[2.0]], [[4.0]]]), np.zeros((1, 1))
    >>> both = bidirectional_forward(running_sum, (x, x), ([h], [h]), (LayerWeights(),) * 2)
    >>> [steps.output.ravel().tolist() for steps in both]
    [[1.0, 3.0, 7.0], [7.0, 6.0, 4.0]]
    """
    forward, backward = zip(x, initial, weights, strict=True)
    return (
        recurrence_forward(trace, *forward, lengths, False, record, save),
        recurrence_forward(trace, *backward, lengths, True, record, save),
    )


def bidirectional_backward(
    trace: Trace,
    steps: Pair[RecurrenceSteps],
    d_output: Pair[Array | None],
    d_final: Pair[Sequence[Array | None]],
    x: Pair[Array],
    weights: Pair[LayerWeights[Array]],
    lengths: Array | None = None,
    wants_d_x: bool = True,
) -> Pair[RecurrenceGradients]:
    """The gradients of `bidirectional_forward`, as from `recurrence_backward`.

    >>> from anaphora.equations import trace
    >>> running_sum = trace(lambda n, h: h + n.x, gates=["n"], states=["h"])
    >>> x, h, weights = np.ones((3, 1, 1)), np.zeros((1, 1)), (LayerWeights(),) * 2
    >>> both = bidirectional_forward(running_sum, (x, x), ([h], [h]), weights)
    >>> d = bidirectional_backward(running_sum, both, (x, x), ([None], [None]), (x, x), weights)
    >>> [one.x.ravel().tolist() for one in d]
    [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    """
    forward, backward = zip(steps, d_output, d_final, x, weights, strict=True)
    return (
        recurrence_backward(trace, *forward, lengths, False, wants_d_x),
        recurrence_backward(trace, *backward, lengths, True, wants_d_x),
    )


def _rows_at(t: int, lengths: Array | None) -> Any:
    """The active rows at step t; the cell must not see padding, where its derivative may not be
    finite.
    """
    return slice(None) if lengths is None else np.flatnonzero(t < lengths)


def _block(gates: Array | None, number: int | None, H: int) -> Array:
    """One block of H along the last axis."""
    assert gates is not None
    assert number is not None
    return gates[..., number * H : (number + 1) * H]


def _without_padding(x: Array, lengths: Array | None) -> Array:
    """[T, B, ...] with 0 after each row's length, whatever the padding holds."""
    if lengths is None:
        return x
    active = (np.arange(len(x))[:, None] < lengths)[:, :, None]
    return np.where(active, x, 0).astype(x.dtype, copy=False)


def _reversed(sequence: Array, lengths: Array | None) -> Array:
    """Each row of [T, B, ...] reversed up to its length; the padding stays."""
    if lengths is None:
        return sequence[::-1]
    t = np.arange(len(sequence))[:, None]
    source = np.where(t < lengths, lengths - 1 - t, t)[:, :, None]
    return np.take_along_axis(sequence, source, axis=0)


# Layers whose weights are packed once -------------------------------------------------------------


class PackedLayers(Protocol):
    """Layers whose weights are packed once; any number of threads may run them concurrently.

    States are contiguous arrays of the layers' dtype, [L, B, P] for the first and [L, B, H] for the
    others, updated in place. N is the size of the output.
    """

    @property
    def bytes(self) -> int:
        """The size of the packed weights in memory."""

    def run(self, inputs: Array, states: list[Array]) -> Array:
        """Run over [T, B, I], or ids [T, B]; return [T, B, N].

        Leading axes may also be [B], or none if B is 1; the output has the same.
        """

    def generate(
        self,
        ids: Array,
        states: list[Array],
        uniforms: Array,
        temperature: float,
        top_k: int,
        top_p: float,
    ) -> NDArray[np.int64]:
        """Run over ids [T, B], T > 0; sample ids [length, B], and run over all but the last.

        Uniforms are [length, B]; the options are those of `kernels.sample`. If it raises, the
        states are unchanged.
        """


def pack_layers(
    trace: Trace,
    hidden_size: int,
    layers: Sequence[LayerWeights[Array]],
    table: Array | None = None,
    output: tuple[Array, Array | None] | None = None,
    norms: Sequence[tuple[Array, Array]] = (),
    epsilon: float = 0.0,
) -> PackedLayers | None:
    """Pack the weights of stacked layers, for runs of few steps.

    Args:
        trace: The cell's.
        hidden_size: H.
        layers: From the input to the output.
        table: [V, I]: the input is ids, each a row of it.
        output: weight [N, P] and bias [N] (or None) of a final linear layer.
        norms: weight [P] and bias [P] of the layer normalization after each layer, if any.
        epsilon: Of these layer normalizations.

    Returns:
        The packed layers, a copy that later changes of the weights do not affect; or None if the
        engine cannot pack: on NumPy, and for precisions other than float32 and float64.

    >>> from anaphora.cells import rnn
    >>> layer = LayerWeights(np.ones((4, 3)), np.ones((4, 4)))
    >>> pack_layers(rnn.trace, 4, [layer]) is None  # NumPy's version
    True
    """
    return None
