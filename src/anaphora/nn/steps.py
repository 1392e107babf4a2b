"""Kinds of layers whose step is not just an elementwise program: any operations, step by step.

A `Cell` is traced to a program, which the engine runs over time. What changes the input by the
state, has matrices of its own or normalizes over units cannot be one: such a kind says what one
step computes, and runs on the tape. That costs several times as much as a cell of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from anaphora import cells, ops
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.nn.kinds import LayerKind, Shape, States
from anaphora.nn.reset_before import ResetBeforeGRU
from anaphora.ops.recurrence import step_by_step
from anaphora.tensor import Array, Parameter, Tensor

if TYPE_CHECKING:
    from anaphora.nn.recurrent import Recurrent


class StepKind(LayerKind):
    """A kind that says what one step computes: the base of those that are not elementwise.

    A subclass defines the states, the parameters, and `step`; lengths, directions, recording,
    saving and sessions follow. Parameters are initialized by the option of the layer: matrices, and
    all for "pytorch" and a number; vectors are else 0. Those called ``norm...weight`` are 1 and
    ``norm...bias`` 0.

    >>> class Multiplicative(StepKind):  # Krause et al. 2016, with a simple cell
    ...     name = "multiplicative"
    ...
    ...     def state_shapes(self, layer):
    ...         return {"h": (layer.hidden_size,)}
    ...
    ...     def parameter_shapes(self, layer, input_size):
    ...         H = layer.hidden_size
    ...         sizes = {"weight_ih": (H, input_size), "factor": (H, input_size)}
    ...         return sizes | {"weight_hh": (H, H)}
    ...
    ...     def step(self, layer, x, states, parameters):
    ...         (h,) = states
    ...         h = ops.linear(h, parameters["weight_hh"]) * ops.linear(x, parameters["factor"])
    ...         return (ops.tanh(ops.linear(x, parameters["weight_ih"]) + h),)
    >>> from anaphora import nn
    >>> layer = nn.Recurrent(Multiplicative(), 3, 4, bidirectional=True)
    >>> layer(np.ones((5, 2, 3), np.float32), lengths=[5, 2])[0].shape
    (5, 2, 8)
    """

    def step(
        self, layer: Recurrent, x: Tensor, states: States, parameters: Mapping[str, Parameter]
    ) -> States:
        """The next states of an input [B, I]; the first is the output.

        Args:
            layer: The stack, for its options.
            x: [B, I].
            states: [B, ...] each, as `state_shapes` says.
            parameters: By name.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define step()")

    def reset_parameters(  # noqa: D102
        self,
        layer: Recurrent,
        parameters: Mapping[str, Parameter],
        initialization: Initialization,
    ) -> None:
        H = layer.hidden_size
        for name, parameter in parameters.items():
            if name.startswith("norm"):
                initialize.constant(parameter, 1 if name.endswith("weight") else 0)
                continue
            square = parameter.shape[1:] == (H,) and len(parameter) % H == 0
            initialize.of_layer(parameter, initialization, H, is_recurrent=square and "hh" in name)

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
        def step(inputs: Tensor, before: States) -> tuple[Tensor, States, States]:
            after = self.step(layer, inputs, before, parameters)
            return after[0], after, after

        names = tuple(self.state_shapes(layer))
        if recorded is not None and not len(x):
            zeros = (np.zeros((0, *state.shape), x.dtype) for state in states)
            recorded.update(zip(names, zeros, strict=True))
        return step_by_step(step, names, x, states, lengths, reverse, recorded)


def _gate_shapes(layer: Recurrent, input_size: int) -> dict[str, Shape]:
    """The parameters of the gates of an LSTM, as in PyTorch."""
    H = layer.hidden_size
    shapes: dict[str, Shape] = {"weight_ih": (4 * H, input_size), "weight_hh": (4 * H, H)}
    return shapes | ({"bias_ih": (4 * H,), "bias_hh": (4 * H,)} if layer.bias else {})


def _gates(x: Tensor, h: Tensor, parameters: Mapping[str, Parameter]) -> list[Tensor]:
    """i, f, g and o before their functions, [B, H] each."""
    both = ops.linear(x, parameters["weight_ih"], parameters.get("bias_ih")) + ops.linear(
        h, parameters["weight_hh"], parameters.get("bias_hh")
    )
    return list(ops.split(both, 4, axis=-1))


class MogrifierLSTM(StepKind):
    """An LSTM whose input and state first scale each other, in turns (Melis et al. 2020).

        x = 2 * sigmoid(Q_r h) * x      in rounds r = 1, 3, ...
        h = 2 * sigmoid(R_r x) * h      in rounds r = 2, 4, ...

    then the step of an LSTM with these x and h. Without rounds it is an LSTM.

    Shapes: as `nn.LSTM`, and mogrify_1, mogrify_3, ... (Q) [I, H]; mogrify_2, ... (R) [H, I].

    Args:
        rounds: The number of rounds.

    >>> from anaphora import nn
    >>> layer = nn.Recurrent(MogrifierLSTM(rounds=2), input_size=3, hidden_size=4)
    >>> [name for name, _ in layer.named_parameters() if "mogrify" in name]
    ['mogrify_1_l0', 'mogrify_2_l0']
    """

    name = "mogrifier_lstm"

    def __init__(self, rounds: int = 5) -> None:
        self.rounds = rounds

    def state_shapes(self, layer: Recurrent) -> dict[str, Shape]:  # noqa: D102
        return {"h": (layer.hidden_size,), "c": (layer.hidden_size,)}

    def parameter_shapes(self, layer: Recurrent, input_size: int) -> dict[str, Shape]:  # noqa: D102
        sizes = input_size, layer.hidden_size
        own = {f"mogrify_{r}": sizes if r % 2 else sizes[::-1] for r in range(1, self.rounds + 1)}
        return _gate_shapes(layer, input_size) | own

    def step(  # noqa: D102
        self, layer: Recurrent, x: Tensor, states: States, parameters: Mapping[str, Parameter]
    ) -> States:
        h, c = states
        for r in range(1, self.rounds + 1):
            weight = parameters[f"mogrify_{r}"]
            if r % 2:
                x = 2 * ops.sigmoid(ops.linear(h, weight)) * x
            else:
                h = 2 * ops.sigmoid(ops.linear(x, weight)) * h
        after: States = cells.lstm(*_gates(x, h, parameters), h, c)
        return after


class NestedLSTM(StepKind):
    """An LSTM whose memory is the state of another LSTM, with weights of its own.

        i, f, o = sigmoid(...)      g = tanh(...)       of x and h, as in an LSTM
        c, n = LSTM of the input i * g and the states (f * c, n)
        h = o * tanh(c)

    Shapes: as `nn.LSTM`, with a third state n [L*D, B, H], and inner_weight_ih [4 * H, H],
    inner_weight_hh [4 * H, H], inner_bias_ih and inner_bias_hh [4 * H]. Source: Moniz & Krueger
    2018.

    >>> from anaphora import nn
    >>> y, (h, c, n) = nn.Recurrent(NestedLSTM(), 3, 4)(np.ones((5, 2, 3), np.float32))
    >>> n.shape
    (1, 2, 4)
    """

    name = "nested_lstm"

    def state_shapes(self, layer: Recurrent) -> dict[str, Shape]:  # noqa: D102
        return dict.fromkeys("hcn", (layer.hidden_size,))

    def parameter_shapes(self, layer: Recurrent, input_size: int) -> dict[str, Shape]:  # noqa: D102
        inner = _gate_shapes(layer, layer.hidden_size)
        own = {f"inner_{name}": shape for name, shape in inner.items()}
        return _gate_shapes(layer, input_size) | own

    def step(  # noqa: D102
        self, layer: Recurrent, x: Tensor, states: States, parameters: Mapping[str, Parameter]
    ) -> States:
        h, c, n = states
        i, f, g, o = _gates(x, h, parameters)
        inner = {
            name.removeprefix("inner_"): p
            for name, p in parameters.items()
            if name.startswith("inner_")
        }
        kept = ops.sigmoid(f) * c
        c, n = cells.lstm(*_gates(ops.sigmoid(i) * ops.tanh(g), kept, inner), kept, n)
        return ops.sigmoid(o) * ops.tanh(c), c, n


class LayerNormLSTM(StepKind):
    """An LSTM with layer normalization inside the step (Ba et al. 2016).

        i, f, g, o = norm(W_ih x) + norm(W_hh h) + b
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(norm(c))

    Shapes: as `nn.LSTM`, with one bias [4 * H], and norm_ih_weight, norm_ih_bias, norm_hh_weight,
    norm_hh_bias [4 * H], over all gates; norm_c_weight, norm_c_bias [H]. For normalization between
    layers see the option ``layer_norm`` of `Recurrent`, which is faster.

    >>> from anaphora import nn
    >>> y, (h, c) = nn.Recurrent(LayerNormLSTM(), 3, 4)(np.ones((5, 2, 3), np.float32))
    >>> y.shape
    (5, 2, 4)
    """

    name = "layer_norm_lstm"

    def state_shapes(self, layer: Recurrent) -> dict[str, Shape]:  # noqa: D102
        return {"h": (layer.hidden_size,), "c": (layer.hidden_size,)}

    def parameter_shapes(self, layer: Recurrent, input_size: int) -> dict[str, Shape]:  # noqa: D102
        H = layer.hidden_size
        shapes: dict[str, Shape] = {"weight_ih": (4 * H, input_size), "weight_hh": (4 * H, H)}
        shapes |= {"bias": (4 * H,)} if layer.bias else {}
        for place, size in (("ih", 4 * H), ("hh", 4 * H), ("c", H)):
            shapes |= {f"norm_{place}_weight": (size,), f"norm_{place}_bias": (size,)}
        return shapes

    def step(  # noqa: D102
        self, layer: Recurrent, x: Tensor, states: States, parameters: Mapping[str, Parameter]
    ) -> States:
        def norm(values: Tensor, place: str) -> Tensor:
            weight, bias = (parameters[f"norm_{place}_{name}"] for name in ("weight", "bias"))
            return ops.layer_norm(values, weight, bias)

        h, c = states
        gates = norm(ops.linear(x, parameters["weight_ih"]), "ih") + norm(
            ops.linear(h, parameters["weight_hh"]), "hh"
        )
        if layer.bias:
            gates = gates + parameters["bias"]
        i, f, g, o = ops.split(gates, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        return ops.sigmoid(o) * ops.tanh(norm(c, "c")), c


KINDS: dict[str, type[LayerKind]] = {
    kind.name: kind for kind in (MogrifierLSTM, NestedLSTM, LayerNormLSTM, ResetBeforeGRU)
}
"""The built-in kinds that are more than a cell, by name: layers and models take these as cells."""
