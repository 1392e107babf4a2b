"""Kinds of recurrent layers: what one direction of one layer computes; `Recurrent` stacks them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from anaphora import cells, engine, ops
from anaphora.cells import CELLS, Cell
from anaphora.engine.recurrence import Pair
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.ops.recurrence import within
from anaphora.tensor import Array, Parameter, Tensor

if TYPE_CHECKING:
    from anaphora.nn.recurrent import Recurrent

States = tuple[Tensor, ...]
Shape = tuple[int, ...]


class LayerKind:
    """What one direction of one layer of a `Recurrent` computes: its parameters, states and steps.

    The stack does the rest: layers, directions, dropout and normalization between layers, layouts,
    checks of lengths and states, sessions. It passes itself as ``layer``, for its options
    (``hidden_size``, ``bias``, ``dtype``, ``training``) and owns the parameters; a kind has none.

    A subclass defines its states and parameters, their initial values, and how it runs. States may
    have any shape, such as a matrix for each sequence, [B, H, H].

    Attributes:
        name: Its name in messages.

    >>> class MovingAverage(LayerKind):  # h = decay * h + (1 - decay) * W x
    ...     name = "moving_average"
    ...
    ...     def state_shapes(self, layer):
    ...         return {"h": (layer.hidden_size,)}
    ...
    ...     def parameter_shapes(self, layer, input_size):
    ...         return {"weight_ih": (layer.hidden_size, input_size)}
    ...
    ...     def reset_parameters(self, layer, parameters, initialization):
    ...         initialize.constant(parameters["weight_ih"], 1)
    ...
    ...     def run(self, layer, x, states, parameters, lengths, reverse, recorded):
    ...         (h,), outputs = states, []
    ...         for step in ops.unstack(ops.linear(x, parameters["weight_ih"])):
    ...             h = 0.5 * h + 0.5 * step
    ...             outputs.append(h)
    ...         return ops.stack(outputs), (h,)
    >>> from anaphora import nn
    >>> layer = nn.Recurrent(MovingAverage(), input_size=1, hidden_size=1, num_layers=2)
    >>> y, h = layer([[[4.0]], [[4.0]]])
    >>> y.data.ravel().tolist(), layer.session().feed([4.0]).tolist()
    ([1.0, 2.0], [1.0])
    """

    name: str

    def check(self, layer: Recurrent) -> None:
        """Refuse options of the layer that this kind does not support; by default all of these.

        Raises:
            ValueError: one was given.
        """
        for option in ("proj_size", "weight_dropout", "zoneout", "forget_bias"):
            if getattr(layer, option):
                raise ValueError(
                    f"{type(layer).__name__}: layers of {self.name!r} do not support {option}; "
                    "omit it"
                )

    def output_size(self, layer: Recurrent) -> int:
        """N, the size of the output of one direction; by default H."""
        return layer.hidden_size

    def state_shapes(self, layer: Recurrent) -> dict[str, Shape]:
        """The shape of each state of one sequence, by its name."""
        raise NotImplementedError(f"{type(self).__name__} does not define state_shapes()")

    def parameter_shapes(self, layer: Recurrent, input_size: int) -> dict[str, Shape]:
        """The shape of each parameter by its name, to which the stack adds ``_l0_reverse``."""
        raise NotImplementedError(f"{type(self).__name__} does not define parameter_shapes()")

    def reset_parameters(
        self,
        layer: Recurrent,
        parameters: Mapping[str, Parameter],
        initialization: Initialization,
    ) -> None:
        """Initialize the parameters of one direction of one layer."""
        raise NotImplementedError(f"{type(self).__name__} does not define reset_parameters()")

    def run(
        self,
        layer: Recurrent,
        x: Tensor,
        states: States,
        parameters: Mapping[str, Parameter],
        lengths: Array | None,
        reverse: bool,
        recorded: dict[str, Array] | None,
    ) -> tuple[Tensor, States]:
        """Run over time.

        Args:
            layer: The stack, for its options.
            x: [T, B, I] of the layer's dtype.
            states: [B, ...] each, as `state_shapes` says.
            parameters: By name.
            lengths: [B] int64 in 0..T, or None for all T. Outputs beyond them are 0; the final
                state is that after each sequence's last step.
            reverse: Go from each sequence's last step to its first.
            recorded: A dictionary to fill with what `Recurrent.record` returns, [T, B, ...] each,
                or None.

        Returns:
            The output [T, B, N] and the final states.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define run()")

    def run_both(
        self,
        layer: Recurrent,
        x: Tensor,
        states: Pair[States],
        parameters: Pair[Mapping[str, Parameter]],
        lengths: Array | None,
        recorded: Pair[dict[str, Array] | None],
    ) -> Pair[tuple[Tensor, States]]:
        """Run in both directions, forward and reversed: by default `run` of one, then the other.

        Args:
            layer: As for `run`.
            x: As for `run`.
            states: As for `run`, for each direction.
            parameters: As for `run`, for each direction.
            lengths: As for `run`.
            recorded: As for `run`, for each direction.

        Returns:
            As `run`, for each direction.
        """
        first, second = zip(states, parameters, recorded, strict=True)
        return (
            self.run(layer, x, *first[:2], lengths, False, first[2]),
            self.run(layer, x, *second[:2], lengths, True, second[2]),
        )

    def pack(
        self,
        layer: Recurrent,
        parameters: Sequence[Mapping[str, Parameter]],
        table: Array | None,
        output: tuple[Array, Array | None] | None,
        norms: Sequence[tuple[Array, Array]],
        epsilon: float,
    ) -> engine.PackedLayers | None:
        """The layers packed for single steps, as in `Recurrent.pack`; None if they cannot be."""
        return None


class CellLayer(LayerKind):
    """Layers of a `Cell`: gates from matrix products, then its elementwise equations.

    >>> from anaphora import nn
    >>> kind = nn.LSTM(input_size=3, hidden_size=4).kind
    >>> kind.parameter_shapes(nn.GRU(input_size=3, hidden_size=4), 3)["weight_ih"]
    (16, 3)
    """

    def __init__(self, cell: Cell | str) -> None:
        if not isinstance(cell, Cell):
            if cell not in CELLS:
                raise ValueError(
                    f"cell {cell!r} is neither one of {', '.join(CELLS)} nor a Cell (see "
                    "anaphora.cells.cell)"
                )
            cell = CELLS[cell]
        self.cell = cell
        self.name = cell.name

    def check(self, layer: Recurrent) -> None:  # noqa: D102
        cell, name = self.cell, type(layer).__name__
        if layer.zoneout and (layer.proj_size or not cell.fused):
            raise ValueError(
                f"{name}: zoneout needs a cell whose equations were traced, and states that "
                f"are not projected; {cell.name!r} has fused={cell.fused}, and proj_size "
                f"is {layer.proj_size}"
            )
        if layer.weight_dropout and not cell.recurrent_gates:
            raise ValueError(
                f"{name}: weight_dropout needs recurrent weights; {cell.name!r} has none"
            )
        if layer.proj_size and not 0 < layer.proj_size < layer.hidden_size:
            raise ValueError(
                f"{name}: proj_size must be positive and smaller than hidden_size="
                f"{layer.hidden_size}, or 0 for no projection, not {layer.proj_size}"
            )
        if layer.proj_size and (not cell.fused or cell.reads_output_state()):
            reason = "read it" if cell.fused else "were not traced (fused=False)"
            raise ValueError(
                f"{name}: proj_size needs a cell whose equations leave the state "
                f"{cell.states[0]!r} to the gates; those of {cell.name!r} {reason}"
            )
        if layer.forget_bias is not None and not abs(layer.forget_bias) <= initialize.LARGEST:
            raise ValueError(
                f"{name}: forget_bias must be a finite number of float32, not {layer.forget_bias}"
            )
        if layer.forget_bias is not None and ("f" not in cell.gates or not layer.bias):
            raise ValueError(
                f"{name}: forget_bias needs biases and a gate called f; {cell.name!r} "
                f"has the gates {' '.join(cell.gates)}, bias={layer.bias}"
            )

    def output_size(self, layer: Recurrent) -> int:  # noqa: D102
        return layer.proj_size or layer.hidden_size

    def state_shapes(self, layer: Recurrent) -> dict[str, Shape]:  # noqa: D102
        first, *others = self.cell.states
        shapes: dict[str, Shape] = {first: (self.output_size(layer),)}
        return shapes | dict.fromkeys(others, (layer.hidden_size,))

    def parameter_shapes(self, layer: Recurrent, input_size: int) -> dict[str, Shape]:  # noqa: D102
        H = layer.hidden_size
        x_rows = len(self.cell.input_gates) * H
        h_rows = len(self.cell.recurrent_gates) * H
        shapes: dict[str, Shape] = {"weight_ih": (x_rows, input_size)}
        if h_rows:
            shapes["weight_hh"] = (h_rows, self.output_size(layer))
        if layer.bias:
            shapes["bias_ih"] = (x_rows,)
            if h_rows:
                shapes["bias_hh"] = (h_rows,)
        if layer.proj_size:
            shapes["weight_hr"] = (layer.proj_size, H)
        return shapes | dict.fromkeys(self.cell.parameters, (H,))

    def reset_parameters(  # noqa: D102
        self,
        layer: Recurrent,
        parameters: Mapping[str, Parameter],
        initialization: Initialization,
    ) -> None:
        H = layer.hidden_size
        for name, parameter in parameters.items():
            initialize.of_layer(parameter, initialization, H, is_recurrent=name == "weight_hh")
        for name, value in self.cell.initial.items():
            initialize.constant(parameters[name], value)
        if layer.forget_bias is not None:
            self._set_forget_bias(parameters, H, layer.forget_bias)

    def _set_forget_bias(self, parameters: Mapping[str, Parameter], H: int, value: float) -> None:
        """Set the sum of the two biases of ``f``: one has the value, the other is 0."""
        for name, gates in (
            ("bias_ih", self.cell.input_gates),
            ("bias_hh", self.cell.recurrent_gates),
        ):
            if "f" in gates:
                start = gates.index("f") * H
                with parameters[name].writing() as array:
                    array[start : start + H] = value
                value = 0.0

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
        x, weights = self._prepared(layer, x, parameters, lengths)
        cell = self._running(layer)
        return ops.recurrence(cell, x, states, weights, lengths, reverse, recorded)

    def run_both(  # noqa: D102
        self,
        layer: Recurrent,
        x: Tensor,
        states: Pair[States],
        parameters: Pair[Mapping[str, Parameter]],
        lengths: Array | None,
        recorded: Pair[dict[str, Array] | None],
    ) -> Pair[tuple[Tensor, States]]:
        if type(self).run is not CellLayer.run:  # a subclass has one of its own
            return super().run_both(layer, x, states, parameters, lengths, recorded)
        x_1, weights_1 = self._prepared(layer, x, parameters[0], lengths)
        x_2, weights_2 = self._prepared(layer, x, parameters[1], lengths)
        first, second = recorded
        return ops.bidirectional_recurrence(
            self._running(layer),
            (x_1, x_2),
            states,
            (weights_1, weights_2),
            lengths,
            None if first is None or second is None else (first, second),
        )

    def _prepared(
        self,
        layer: Recurrent,
        x: Tensor,
        parameters: Mapping[str, Parameter],
        lengths: Array | None,
    ) -> tuple[Tensor, engine.LayerWeights[Tensor]]:
        """The input and the weights of a direction: after weight dropout, with zoneout's gates."""
        get = parameters.get
        weight_ih, bias_ih, weight_hh = get("weight_ih"), get("bias_ih"), get("weight_hh")
        own = [parameters[name] for name in self.cell.parameters]
        dropped: Tensor | None = weight_hh
        if layer.weight_dropout and layer.training and weight_hh is not None:
            dropped = ops.dropout(weight_hh, layer.weight_dropout)
        if layer.zoneout and layer.training:  # which units take their new state: additional gates
            renewed = len(self.cell.states) * layer.hidden_size
            renew = ops.dropout(
                Tensor(np.ones((*x.shape[:2], renewed), layer.dtype)), layer.zoneout
            )
            halves = ops.linear(without_padding(x, lengths), parameters["weight_ih"], bias_ih)
            x, weight_ih, bias_ih = ops.concatenate([halves, renew], axis=-1), None, None
        return x, engine.LayerWeights(
            weight_ih, dropped, bias_ih, get("bias_hh"), get("weight_hr"), own
        )

    def _running(self, layer: Recurrent) -> Cell:
        """The cell with zoneout: sampled in training, its expectation in evaluation."""
        if not layer.zoneout:
            return self.cell
        return _zoned_out(self.cell, None if layer.training else layer.zoneout)

    def pack(  # noqa: D102
        self,
        layer: Recurrent,
        parameters: Sequence[Mapping[str, Parameter]],
        table: Array | None,
        output: tuple[Array, Array | None] | None,
        norms: Sequence[tuple[Array, Array]],
        epsilon: float,
    ) -> engine.PackedLayers | None:
        if not self.cell.fused:
            return None
        cell = _zoned_out(self.cell, layer.zoneout) if layer.zoneout else self.cell
        packed = []
        for given in parameters:
            arrays = {name: parameter.data for name, parameter in given.items()}
            own = [arrays.pop(name) for name in self.cell.parameters]
            packed.append(engine.LayerWeights(**arrays, parameters=own))
        return engine.pack_layers(
            cell.trace, layer.hidden_size, packed, table, output, norms=norms, epsilon=epsilon
        )


@functools.lru_cache(maxsize=64)
def _zoned_out(cell: Cell, rate: float | None) -> Cell:
    return cells.zoneout(cell, rate)


def without_padding(x: Tensor, lengths: Array | None) -> Tensor:
    """[T, B, ...] with 0 beyond each sequence's length."""
    if lengths is None:
        return x
    active = within(lengths, x.shape[0])
    result: Tensor = ops.where(active[:, :, None], x, 0.0)
    return result
