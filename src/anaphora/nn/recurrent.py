"""The recurrent layers: a stack of any kind of layer, in one or both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import engine, foreign_names, ops
from anaphora.cells import Cell
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.nn.kinds import CellLayer, LayerKind, States, without_padding
from anaphora.nn.layers import LayerNorm
from anaphora.nn.module import Module
from anaphora.nn.session import Session
from anaphora.nn.states import GivenState, S_co, as_tuple, from_tuple
from anaphora.nn.steps import KINDS
from anaphora.ops.recurrence import checked_lengths
from anaphora.options import check_shares, check_sizes
from anaphora.tensor import Array, Operand, Parameter, Tensor, as_input, as_tensor


class Recurrent(Module, Generic[S_co]):
    """A stack of recurrent layers, in one or both directions.

    Parameters of layer k (and ``_reverse`` for its second direction) are PyTorch's:
    ``weight_ih_lk [Gx*H, I]``, ``weight_hh_lk [Gh*H, H]``, ``bias_ih_lk [Gx*H]``, ``bias_hh_lk
    [Gh*H]``, ``weight_hr_lk [P, H]`` with a projection; then the cell's own vectors, such as
    ``p_i_lk [H]``. Gx gates have an input half and Gh a recurrent one, in the order of the cell.
    With ``layer_norm`` each layer has ``norm_lk.weight`` and ``norm_lk.bias`` too, [D*H], and with
    ``trainable_state`` an initial state for each of its states, such as ``initial_c_lk`` [H].

    A call runs over complete sequences, `record` also returns the gates, and `session` creates a
    session that is fed step by step.

    Args:
        cell: A `Cell`, the name of one in `anaphora.cells.CELLS`, or another `LayerKind`, or the
            name of one in `anaphora.nn.KINDS`.
        input_size: I.
        hidden_size: H.
        num_layers: L; each layer reads the output of the previous one.
        bias: Whether the gates have biases.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...]; states keep their layout.
        dropout: The share of the output of every layer but the last that is dropped in training.
        bidirectional: Run each layer in both directions, D = 2, and concatenate their outputs.
        proj_size: P > 0: project the output of every step to P numbers (Sak et al. 2014). Only
            for cells whose equations do not read that state themselves.
        locked_dropout: Drop the same units at all steps of a call (the variational dropout of Gal &
            Ghahramani 2016, between layers).
        weight_dropout: The share of the recurrent weights ``weight_hh`` that are dropped in
            training, the same ones at all steps of a call (DropConnect of Wan et al. 2013, as
            used by Merity et al. 2018).
        zoneout: The share of the units that keep each of their states in a step in training,
            sampled for every state, unit and step; in evaluation states are mixed with those before
            in that proportion (Krueger et al. 2017). Not with a projection.
        layer_norm: Normalize the output of every step of each layer, over both directions, before
            the next layer reads it (Ba et al. 2016); states are not normalized.
        initialization: "pytorch" (uniform(-a, a), a = 1 / sqrt(H), for all), "xavier" (each gate's
            matrices; biases 0), "orthogonal" (recurrent matrices orthogonal, the others as
            "xavier"), or a number for uniform(-a, a).
        forget_bias: The bias with which the gate ``f`` starts (1 is usual; Jozefowicz et al. 2015);
            None leaves it to the initialization.
        trainable_state: Whether the initial states are parameters, which start at 0. They are used
            in calls without a state, and in sessions.
        dtype: float32 or float64.

    Raises:
        ValueError: an option is out of range, or does not apply to the cell.

    >>> layer = Recurrent("mgu", input_size=3, hidden_size=4, bidirectional=True)
    >>> y, h = layer(np.ones((5, 2, 3), np.float32), lengths=[5, 2])
    >>> y.shape, h.shape
    ((5, 2, 8), (2, 2, 4))
    """

    returns_state = True

    if TYPE_CHECKING:  # the parameters of the first layer; others are there in the same way
        weight_ih_l0: Parameter
        weight_hh_l0: Parameter
        bias_ih_l0: Parameter
        bias_hh_l0: Parameter
        weight_ih_l0_reverse: Parameter
        weight_hh_l0_reverse: Parameter
        bias_ih_l0_reverse: Parameter
        bias_hh_l0_reverse: Parameter

    def __init__(
        self,
        cell: Cell | str | LayerKind,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        locked_dropout: bool = False,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        trainable_state: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.kind = _kind(cell)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.locked_dropout = locked_dropout
        self.weight_dropout = weight_dropout
        self.zoneout = zoneout
        self.layer_norm = layer_norm
        self.forget_bias = forget_bias
        self.trainable_state = trainable_state
        self.dtype = initialize.parameter_dtype(dtype)
        check_sizes(self, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_shares(self, dropout=dropout, weight_dropout=weight_dropout, zoneout=zoneout)
        self.kind.check(self)
        for k in range(num_layers):
            shapes = self.kind.parameter_shapes(self, self.output_size if k else input_size)
            for suffix in self._suffixes(k):
                for name, shape in shapes.items():
                    setattr(self, name + suffix, initialize.parameter(shape, dtype))
                if trainable_state:
                    for name, shape in self.kind.state_shapes(self).items():
                        initial = initialize.parameter(shape, dtype)
                        setattr(self, f"initial_{name}{suffix}", initial)
            if layer_norm:
                setattr(self, f"norm_l{k}", LayerNorm(self.output_size, dtype=dtype))
        self._names = tuple(shapes)
        self.reset_parameters(initialization)

    @property
    def cell(self) -> Cell:
        """The `Cell`; or another kind of layer."""
        return self.kind.cell if isinstance(self.kind, CellLayer) else cast(Cell, self.kind)

    @property
    def num_directions(self) -> int:
        """D: 1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """The size of the last axis of the output: D * P, or D * H without a projection."""
        return self.num_directions * self.kind.output_size(self)

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _places(self) -> int:
        """L*D, the number of layers times directions."""
        return self.num_layers * self.num_directions

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.num_directions]

    def _parameters(self, suffix: str) -> dict[str, Parameter]:
        """The parameters of one direction of a layer, by name; those that are None are omitted."""
        found = {name: getattr(self, name + suffix) for name in self._names}
        return {name: parameter for name, parameter in found.items() if parameter is not None}

    def reset_parameters(self, initialization: Initialization = "pytorch") -> None:
        """Initialize the parameters again; see the class for the schemes."""
        initialize.check(initialization)
        if not initialize.is_enabled():
            return
        for k in range(self.num_layers):
            for suffix in self._suffixes(k):
                self.kind.reset_parameters(self, self._parameters(suffix), initialization)
                if self.trainable_state:
                    for name in self.kind.state_shapes(self):
                        initialize.constant(getattr(self, f"initial_{name}{suffix}"), 0)
            if self.layer_norm:
                getattr(self, f"norm_l{k}").reset_parameters()

    @foreign_names.arguments_checked
    def forward(
        self, x: Operand, state: GivenState = None, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, S_co]:
        """Run over a batch of sequences, or over one.

        Args:
            x: [T, B, I], or [B, T, I] with ``batch_first``; [T, I] is one sequence. Arrays and
                lists are converted to the layer's dtype.
            state: The initial state as an earlier call returned it, or None for zeros: [L*D, B, H]
                ([L*D, B, P] with a projection), or a tuple of one for each state of the cell.
            lengths: [B] integers in 0..T, in any order: the number of steps of each sequence.
                Outputs beyond it are 0; the final state is that after the last step.

        Returns:
            The output [T, B, D*H] (layout as x) and the final state.

        Raises:
            ValueError: a shape does not match, or a number is too large for the dtype.
            TypeError: a Tensor's dtype is not the layer's.
        """
        return self._call(x, state, lengths, None)

    @foreign_names.arguments_checked
    def record(
        self, x: Operand, state: GivenState = None, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, S_co, dict[str, Array]]:
        """Run like a call, and also return every value that the cell's equations name.

        Args:
            x: As for `forward`.
            state: As for `forward`.
            lengths: As for `forward`.

        Returns:
            The output and the final state as from `forward`, and the values of all steps by names
            such as ``i_l0`` and ``c_l1_reverse``: arrays [T, B, H] (layout as x), 0 beyond the
            lengths.

        Raises:
            ValueError: as for `forward`.
            TypeError: as for `forward`.

        >>> y, (h, c), gates = LSTM(3, 4).record(np.ones((5, 2, 3), np.float32), lengths=[5, 2])
        >>> sorted(gates), gates["f_l0"].shape
        (['c_l0', 'f_l0', 'g_l0', 'h_l0', 'i_l0', 'o_l0'], (5, 2, 4))
        """
        recorded: dict[str, Array] = {}
        with self.products():
            y, final = self._call(x, state, lengths, recorded)
        if y.ndim == 2:
            recorded = {name: values[:, 0] for name, values in recorded.items()}
        elif self.batch_first:
            recorded = {name: values.swapaxes(0, 1) for name, values in recorded.items()}
        return y, final, recorded

    def _call(
        self,
        x: Operand,
        state: GivenState,
        lengths: ArrayLike | None,
        recorded: dict[str, Array] | None,
    ) -> tuple[Tensor, S_co]:
        """The public edge of the stack: layouts, and a single state as a Tensor."""
        x = as_input(x, self.dtype, f"{self._name}: an input")
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            layout = "[B, T, I]" if self.batch_first else "[T, B, I]"
            raise ValueError(
                f"{self._name}: an input of shape {x.shape}; expected {layout} or [T, I] with "
                f"I = {self.input_size}"
            )
        single = x.ndim == 2
        if single:
            x = x.reshape(len(x), 1, self.input_size)
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        initial = self._initial_states(state, x.shape[1], single)
        ends = checked_lengths(self._name, lengths, x.shape)
        x, final = self._stack(x, initial, ends, recorded)
        if single:
            x = x.reshape(len(x), self.output_size)
            final = tuple(s.reshape(len(s), *s.shape[2:]) for s in final)
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        return x, cast(S_co, from_tuple(final))

    def _stack(
        self,
        x: Tensor,
        initial: tuple[States, ...],
        lengths: Array | None,
        recorded: dict[str, Array] | None,
    ) -> tuple[Tensor, States]:
        """Run all layers in all directions over [T, B, I].

        Args:
            x: [T, B, I].
            initial: For each state, the initial one of every layer and direction, [B, ...].
            lengths: [B] int64, or None.
            recorded: A dictionary for what is recorded, or None.

        Returns:
            The output [T, B, D*N], and each final state [L*D, B, ...].
        """
        final: list[list[Tensor]] = [[] for _ in initial]
        for k in range(self.num_layers):
            if k and self.dropout and self.training:
                x = ops.dropout(x, self.dropout, shared_axes=(0,) if self.locked_dropout else ())
            suffixes = self._suffixes(k)
            first = k * self.num_directions
            before = [tuple(states[first + d] for states in initial) for d in range(len(suffixes))]
            parameters = [self._parameters(suffix) for suffix in suffixes]
            named: list[dict[str, Array] | None] = [
                None if recorded is None else {} for _ in suffixes
            ]
            results: tuple[tuple[Tensor, States], ...]
            if self.bidirectional:
                pairs = (before[0], before[1]), (parameters[0], parameters[1])
                results = self.kind.run_both(self, x, *pairs, lengths, (named[0], named[1]))
                x = ops.concatenate([results[0][0], results[1][0]], axis=-1)
            else:
                one = self.kind.run(self, x, before[0], parameters[0], lengths, False, named[0])
                x, results = one[0], (one,)
            for (_, after), values, suffix in zip(results, named, suffixes, strict=True):
                for kept, new in zip(final, after, strict=True):
                    kept.append(new)
                if recorded is not None and values is not None:
                    recorded.update({name + suffix: array for name, array in values.items()})
            if self.layer_norm:
                x = getattr(self, f"norm_l{k}")(x)
        if self.layer_norm:
            x = without_padding(x, lengths)
        return x, tuple(ops.stack(kept) for kept in final)

    def state_shapes(self, *batch: int) -> dict[str, tuple[int, ...]]:
        """The shape of each state by its name: [L*D, B, H], without B if none is given.

        >>> LSTM(input_size=3, hidden_size=4, proj_size=2).state_shapes(5)
        {'h': (1, 5, 2), 'c': (1, 5, 4)}
        """
        shapes = self.kind.state_shapes(self)
        return {name: (self._places, *batch, *shape) for name, shape in shapes.items()}

    def _trained(self, name: str) -> list[Parameter]:
        """The trainable initial states of a name, of all layers and directions."""
        return [
            getattr(self, f"initial_{name}{suffix}")
            for k in range(self.num_layers)
            for suffix in self._suffixes(k)
        ]

    def initial_state(self, batch_size: int) -> dict[str, Array]:
        """New arrays of the initial states by name, [L*D, B, H]: zeros, or what was trained.

        >>> GRU(input_size=3, hidden_size=4).initial_state(2)["h"].shape
        (1, 2, 4)
        """
        arrays = {n: np.zeros(s, self.dtype) for n, s in self.state_shapes(batch_size).items()}
        if self.trainable_state:
            for name, array in arrays.items():
                for place, one in zip(array, self._trained(name), strict=True):
                    place[...] = one.data
        return arrays

    def _initial_states(self, state: Any, batch: int, single: bool) -> tuple[States, ...]:
        """For each state, the initial one of every layer and direction: [B, ...]."""
        shapes = self.kind.state_shapes(self)
        if state is None and self.trainable_state:
            return tuple(
                tuple(ops.broadcast_to(one, (batch, *one.shape)) for one in self._trained(name))
                for name in shapes
            )
        if state is None:
            zeros = {
                shape: Tensor._result(np.zeros((batch, *shape), self.dtype), None, 0)
                for shape in set(shapes.values())
            }
            return tuple((zeros[shape],) * self._places for shape in shapes.values())
        states = as_tuple(state)
        if len(states) != len(shapes):
            raise ValueError(
                f"{self._name}: the state of {self.kind.name!r} is ({', '.join(shapes)}), "
                f"{len(shapes)} Tensors; {len(states)} were given"
            )
        checked: list[States] = []
        for (name, shape), given in zip(shapes.items(), states, strict=True):
            tensor = as_tensor(given, self.dtype, f"{self._name}: an initial state {name}")
            expected = (self._places, *shape) if single else (self._places, batch, *shape)
            if tensor.shape != expected:
                raise ValueError(
                    f"{self._name}: an initial state {name} of shape {tensor.shape}; expected "
                    f"{expected}: layers times directions, {'' if single else 'batch, '}size"
                )
            tensor = tensor.reshape(self._places, batch, *shape) if single else tensor
            if tensor.requires_grad:
                checked.append(ops.unstack(tensor))
            else:
                checked.append(tuple(Tensor(array) for array in tensor.data))
        return tuple(checked)

    def session(self, batch_size: int | None = None, *, weights: str | None = None) -> Session:
        """A session with the current weights, which is fed step by step.

        Args:
            batch_size: B sequences at a time; None for one, whose arrays have no axis for it.
            weights: "float32", or "int8" for weights in 8 bits; None for what the layer computes
                with.

        Raises:
            ValueError: the layer is bidirectional and needs the complete sequence; the batch size
                is below 1; or the weights are not of these two, or int8 with float64.

        >>> session = GRU(input_size=3, hidden_size=4, num_layers=2).session()
        >>> session.feed(np.ones(3, np.float32)).shape, session.state.shape
        ((4,), (2, 4))
        """
        return Session(self, batch_size, weights=weights)

    def pack(
        self, table: Array | None = None, output: tuple[Array, Array | None] | None = None
    ) -> engine.PackedLayers | None:
        """The layers packed for single steps, by `engine.pack_layers`.

        Args:
            table: [V, I] the vectors of ids, if the input is ids.
            output: The weight and the bias (or None) of a linear layer after the last.

        Returns:
            None if the engine cannot pack them; the layer itself must then run.
        """
        if self.bidirectional or type(self).forward is not Recurrent.forward:
            return None
        norms = [
            getattr(self, f"norm_l{k}") for k in range(self.num_layers if self.layer_norm else 0)
        ]
        return self.kind.pack(
            self,
            [self._parameters(f"_l{k}") for k in range(self.num_layers)],
            table,
            output,
            norms=[(norm.weight.data, norm.bias.data) for norm in norms],
            epsilon=norms[0].epsilon if norms else 0.0,
        )

    def extra_repr(self) -> str:  # noqa: D102
        options = (
            f"{self.kind.name}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        )
        options += "" if self.bias else ", bias=False"
        for name in (
            "batch_first", "dropout", "bidirectional", "proj_size", "locked_dropout",
            "weight_dropout", "zoneout", "layer_norm", "trainable_state",
        ):  # fmt: skip
            if getattr(self, name):
                options += f", {name}={getattr(self, name)}"
        options += "" if self.forget_bias is None else f", forget_bias={self.forget_bias}"
        return options + ("" if self.dtype == np.float32 else f", dtype={self.dtype}")


def _kind(cell: Cell | str | LayerKind) -> LayerKind:
    if isinstance(cell, LayerKind):
        return cell
    return KINDS[cell]() if isinstance(cell, str) and cell in KINDS else CellLayer(cell)


class RNN(Recurrent[Tensor]):
    """The simple recurrent network (Elman 1990).

        h = tanh(W_ih x + b_ih + W_hh h + b_hh)

    Shapes: x [T, B, I]; h [L*D, B, H]; returns y [T, B, D*H], h. The arguments are those of
    `Recurrent`, except for the nonlinearity.

    Args:
        nonlinearity: "tanh" or "relu".

    Raises:
        ValueError: the nonlinearity is unknown; or as for `Recurrent`.

    >>> layer = RNN(input_size=3, hidden_size=4, nonlinearity="relu")
    >>> y, h = layer(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        locked_dropout: bool = False,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initialization: Initialization = "pytorch",
        trainable_state: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        cells = {"tanh": "rnn", "relu": "rnn_relu"}
        if nonlinearity not in cells:
            raise ValueError(f"RNN: nonlinearity {nonlinearity!r} is neither 'tanh' nor 'relu'")
        super().__init__(
            cells[nonlinearity],
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            locked_dropout=locked_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            layer_norm=layer_norm,
            initialization=initialization,
            trainable_state=trainable_state,
            dtype=dtype,
        )


class LSTM(Recurrent[tuple[Tensor, Tensor]]):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)
        f = sigmoid(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)
        c = f * c + i * g
        h = o * tanh(c)

    Shapes: x [T, B, I]; h, c [L*D, B, H]; returns y [T, B, D*H], (h, c). With ``proj_size`` P the
    output and h have P in place of H. The arguments are those of `Recurrent`.

    Raises:
        ValueError: as for `Recurrent`.

    >>> layer = LSTM(input_size=3, hidden_size=4)
    >>> y, (h, c) = layer(np.ones((5, 2, 3), np.float32))
    >>> y.shape, h.shape, c.shape
    ((5, 2, 4), (1, 2, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        locked_dropout: bool = False,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        trainable_state: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            "lstm",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            locked_dropout=locked_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            layer_norm=layer_norm,
            initialization=initialization,
            forget_bias=forget_bias,
            trainable_state=trainable_state,
            dtype=dtype,
        )


class GRU(Recurrent[Tensor]):
    """Gated recurrent unit (Cho et al. 2014, in cuDNN's form).

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h = (1 - z) * n + z * h

    Shapes: x [T, B, I]; h [L*D, B, H]; returns y [T, B, D*H], h. The arguments are those of
    `Recurrent`; a GRU has no gate ``f`` to bias and no projection.

    Raises:
        ValueError: as for `Recurrent`.

    >>> layer = GRU(input_size=3, hidden_size=4, num_layers=2, batch_first=True)
    >>> y, h = layer(np.ones((2, 5, 3), np.float32), lengths=[5, 2])
    >>> y.shape, h.shape
    ((2, 5, 4), (2, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        locked_dropout: bool = False,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initialization: Initialization = "pytorch",
        trainable_state: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            "gru",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            locked_dropout=locked_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            layer_norm=layer_norm,
            initialization=initialization,
            trainable_state=trainable_state,
            dtype=dtype,
        )
