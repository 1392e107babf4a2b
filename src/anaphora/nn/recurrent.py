"""The recurrent layers: any cell, over any number of layers and both directions."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import engine, foreign_names, ops
from anaphora.cells import CELLS, Cell
from anaphora.cells import zoneout as zoned_out
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.nn.layers import LayerNorm
from anaphora.nn.module import Module, check_shares, check_sizes
from anaphora.nn.session import Session
from anaphora.ops.recurrence import checked_lengths
from anaphora.tensor import Array, Parameter, Tensor, as_tensor

State: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""The state of a layer: a Tensor, or a tuple of them where the cell has several states."""


class Recurrent(Module):
    """A cell over time, in several layers and one or both directions.

    Parameters of layer k (and ``_reverse`` for its second direction) are PyTorch's:
    ``weight_ih_lk [Gx*H, I]``, ``weight_hh_lk [Gh*H, H]``, ``bias_ih_lk [Gx*H]``, ``bias_hh_lk
    [Gh*H]``, ``weight_hr_lk [P, H]`` with a projection; then the cell's own vectors, such as
    ``p_i_lk [H]``. Gx gates have an input half and Gh a recurrent one, in the order of the cell.
    With ``layer_norm`` each layer has ``norm_lk.weight`` and ``norm_lk.bias`` too, [D*H].

    A call runs over whole sequences; `session` makes what is fed step by step, as input comes.

    Args:
        cell: A `Cell`, or the name of one in `anaphora.cells.CELLS`.
        input_size: I.
        hidden_size: H.
        num_layers: L; each layer reads the output of the one below.
        bias: Whether the gates have biases.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...]; states stay as they are.
        dropout: The share of the output of every layer but the last that is dropped in training.
        bidirectional: Run each layer in both directions, D = 2, and join their outputs.
        proj_size: P > 0: project the output of every step to P numbers (Sak et al. 2014). Only
            for cells whose equations do not read that state themselves.
        locked_dropout: Drop the same units at all steps of a call (the variational dropout of Gal &
            Ghahramani 2016, between layers).
        weight_dropout: The share of the recurrent weights ``weight_hh`` that are dropped in
            training, the same ones at all steps of a call (DropConnect of Wan et al. 2013, so used
            by Merity et al. 2018).
        zoneout: The share of the units that keep each of their states in a step in training, drawn
            anew for every state, unit and step; in evaluation states are mixed with those before in
            that proportion (Krueger et al. 2017). Not with a projection.
        layer_norm: Normalise the output of every step of each layer, over both directions, before
            the next layer reads it (Ba et al. 2016); states are not touched.
        initialization: "pytorch" (uniform(-a, a), a = 1 / sqrt(H), for all), "xavier" (each gate's
            matrices; biases 0), "orthogonal" (recurrent matrices orthogonal, the others as
            "xavier"), or a number for uniform(-a, a).
        forget_bias: The bias with which the gate ``f`` starts (1 is usual; Jozefowicz et al. 2015);
            None leaves it to the initialisation.
        dtype: float32 or float64.

    Raises:
        ValueError: an option is out of range, or does not suit the cell.

    >>> layer = Recurrent("mgu", input_size=3, hidden_size=4, bidirectional=True)
    >>> y, h = layer(np.ones((5, 2, 3), np.float32), lengths=[5, 2])
    >>> y.shape, h.shape
    ((5, 2, 8), (2, 2, 4))
    """

    returns_state = True

    def __init__(
        self,
        cell: Cell | str,
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
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.cell = _cell(cell)
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
        self.dtype = np.dtype(dtype)
        self._check_options()
        self._training_cell = self._evaluation_cell = self.cell
        if zoneout:
            self._training_cell = zoned_out(self.cell)
            self._evaluation_cell = zoned_out(self.cell, zoneout)
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                for name, shape in self._shapes(layer).items():
                    setattr(self, name + suffix, initialize.parameter(shape, dtype))
            if layer_norm:
                setattr(self, f"norm_l{layer}", LayerNorm(self.output_size, dtype=dtype))
        self.reset_parameters(initialization)

    def _check_options(self) -> None:
        check_sizes(
            self,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
        )
        check_shares(
            self, dropout=self.dropout, weight_dropout=self.weight_dropout, zoneout=self.zoneout
        )
        if self.zoneout and (self.proj_size or not self.cell.fused):
            raise ValueError(
                f"{self._name}: zoneout needs a cell whose equations were traced, and states that "
                f"are not projected; {self.cell.name!r} has fused={self.cell.fused}, and proj_size "
                f"is {self.proj_size}"
            )
        if self.weight_dropout and not self.cell.recurrent_gates:
            raise ValueError(
                f"{self._name}: weight_dropout needs recurrent weights; {self.cell.name!r} has none"
            )
        if self.proj_size and not 0 < self.proj_size < self.hidden_size:
            raise ValueError(
                f"{self._name}: proj_size must be positive and smaller than hidden_size="
                f"{self.hidden_size}, or 0 for no projection, not {self.proj_size}"
            )
        if self.proj_size and (not self.cell.fused or self.cell.reads_output_state()):
            reason = "read it" if self.cell.fused else "were not traced (fused=False)"
            raise ValueError(
                f"{self._name}: proj_size needs a cell whose equations leave the state "
                f"{self.cell.states[0]!r} to the gates; those of {self.cell.name!r} {reason}"
            )
        if self.forget_bias is not None and not abs(self.forget_bias) <= initialize.LARGEST:
            raise ValueError(
                f"{self._name}: forget_bias must be a finite number of float32, not "
                f"{self.forget_bias}"
            )
        if self.forget_bias is not None and ("f" not in self.cell.gates or not self.bias):
            raise ValueError(
                f"{self._name}: forget_bias needs biases and a gate called f; {self.cell.name!r} "
                f"has the gates {' '.join(self.cell.gates)}, bias={self.bias}"
            )

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def num_directions(self) -> int:
        """D: 1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """The size of the last axis of the output: D * P, or D * H without a projection."""
        return self.num_directions * (self.proj_size or self.hidden_size)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.num_directions]

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction of a layer."""
        H = self.hidden_size
        x_rows = len(self.cell.input_gates) * H
        h_rows = len(self.cell.recurrent_gates) * H
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (x_rows, self.output_size if layer else self.input_size)
        }
        if h_rows:
            shapes["weight_hh"] = (h_rows, self.proj_size or H)
        if self.bias:
            shapes["bias_ih"] = (x_rows,)
            if h_rows:
                shapes["bias_hh"] = (h_rows,)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, H)
        return shapes | dict.fromkeys(self.cell.parameters, (H,))

    def reset_parameters(self, initialization: Initialization = "pytorch") -> None:
        """Draw the parameters anew; see the class for the schemes."""
        initialize.check(initialization)
        if not initialize.draws():
            return
        H = self.hidden_size
        own = {name: p for name, p in vars(self).items() if isinstance(p, Parameter)}
        for name, parameter in own.items():
            if initialization == "pytorch":
                initialize.uniform(parameter, 1 / math.sqrt(H))
            elif not isinstance(initialization, str):
                initialize.uniform(parameter, initialization)
            elif parameter.ndim == 1:
                initialize.constant(parameter, 0)
            elif name.startswith("weight_hr"):
                initialize.xavier(parameter)
            elif name.startswith("weight_hh") and initialization == "orthogonal":
                initialize.orthogonal(parameter, blocks=len(parameter) // H)
            else:
                initialize.xavier(parameter, blocks=len(parameter) // H)
        for norm in vars(self).values():
            if isinstance(norm, LayerNorm):
                norm.reset_parameters()
        if self.forget_bias is not None:
            self._set_forget_bias(self.forget_bias)

    def _set_forget_bias(self, value: float) -> None:
        """Make the two biases of ``f`` add up to the value: one of them has it, the other is 0."""
        gates = {"bias_ih": self.cell.input_gates, "bias_hh": self.cell.recurrent_gates}
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                rest = value
                for name, owners in gates.items():
                    if "f" in owners:
                        start = owners.index("f") * self.hidden_size
                        with getattr(self, name + suffix).writing() as array:
                            array[start : start + self.hidden_size] = rest
                        rest = 0.0

    @foreign_names.arguments_checked
    def forward(
        self, x: Any, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, State]:
        """Run over a batch of sequences, or over one.

        Args:
            x: [T, B, I], or [B, T, I] with ``batch_first``; [T, I] is one sequence. Arrays and
                lists are converted to the layer's dtype.
            state: The initial state as a call before returned it, or None for zeros: [L*D, B, H],
                ([L*D, B, P] with a projection), or a tuple of one for each state of the cell.
            lengths: [B] integers in 0..T, in any order: the number of steps of each sequence.
                Outputs beyond it are 0, the final state is that after the last step.

        Returns:
            The output [T, B, D*H] (layout as x) and the final state.

        Raises:
            ValueError: a shape does not fit, or a number is too large for the dtype.
            TypeError: a Tensor's dtype is not the layer's.
        """
        return self._over_time(x, state, lengths, None)

    @foreign_names.arguments_checked
    def record(
        self, x: Any, state: Any = None, lengths: ArrayLike | None = None
    ) -> tuple[Tensor, State, dict[str, Array]]:
        """Run as a call does, and return every value that the cell's equations name as well.

        Args:
            x: As of `forward`.
            state: As of `forward`.
            lengths: As of `forward`.

        Returns:
            The output and the final state as of `forward`, and the values of all steps by names
            such as ``i_l0`` and ``c_l1_reverse``: arrays [T, B, H] (layout as x), 0 beyond the
            lengths.

        Raises:
            ValueError: as `forward`.
            TypeError: as `forward`.

        >>> y, (h, c), gates = LSTM(3, 4).record(np.ones((5, 2, 3), np.float32), lengths=[5, 2])
        >>> sorted(gates), gates["f_l0"].shape
        (['c_l0', 'f_l0', 'g_l0', 'h_l0', 'i_l0', 'o_l0'], (5, 2, 4))
        """
        recorded: dict[str, Array] = {}
        y, state = self._over_time(x, state, lengths, recorded)
        if y.ndim == 2:
            recorded = {name: values[:, 0] for name, values in recorded.items()}
        elif self.batch_first:
            recorded = {name: values.swapaxes(0, 1) for name, values in recorded.items()}
        return y, state, recorded

    def _over_time(
        self, x: Any, state: Any, lengths: ArrayLike | None, recorded: dict[str, Array] | None
    ) -> tuple[Tensor, State]:
        x = as_tensor(x, self.dtype, f"{self._name}: an input")
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            layout = "[B, T, I]" if self.batch_first else "[T, B, I]"
            raise ValueError(
                f"{self._name}: an input of shape {x.shape}; wanted {layout} or [T, I] with "
                f"I = {self.input_size}"
            )
        single = x.ndim == 2
        if single:
            x = x.reshape(len(x), 1, self.input_size)
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        states = self._initial_states(state, x.shape[1], single)

        final: list[list[Tensor]] = [[] for _ in states]
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = ops.dropout(x, self.dropout, shared_axes=(0,) if self.locked_dropout else ())
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                place = layer * self.num_directions + direction
                output, after = self._run(
                    x, [s[place] for s in states], suffix, lengths, direction == 1, recorded
                )
                outputs.append(output)
                for kept, new in zip(final, after, strict=True):
                    kept.append(new)
            x = ops.concatenate(outputs, axis=-1) if self.bidirectional else outputs[0]
            if self.layer_norm:
                x = getattr(self, f"norm_l{layer}")(x)
        if self.layer_norm:
            x = _without_padding(x, lengths)

        finals = tuple(ops.stack(kept) for kept in final)
        if single:
            x = x.reshape(len(x), self.output_size)
            finals = tuple(s.reshape(len(s), s.shape[-1]) for s in finals)
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        return x, finals if len(finals) > 1 else finals[0]

    def _run(
        self,
        x: Tensor,
        states: list[Tensor],
        suffix: str,
        lengths: ArrayLike | None,
        reverse: bool,
        recorded: dict[str, Array] | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One direction of one layer."""
        named: dict[str, Array] | None = None if recorded is None else {}
        weight_hh: Tensor | None = self._parameter("weight_hh", suffix)
        if weight_hh is not None and self.training:
            weight_hh = ops.dropout(weight_hh, self.weight_dropout)
        weight_ih: Tensor | None = self._parameter("weight_ih", suffix)
        bias_ih: Tensor | None = self._parameter("bias_ih", suffix)
        cell = self._training_cell if self.training else self._evaluation_cell
        if self.zoneout and self.training:  # which units take their new states: more gates
            ones = Tensor(np.ones((*x.shape[:2], len(states) * self.hidden_size), self.dtype))
            renew = ops.dropout(ones, self.zoneout)
            halves = ops.linear(_without_padding(x, lengths), weight_ih, bias_ih)
            x = ops.concatenate([halves, renew], axis=-1)
            weight_ih = bias_ih = None
        output, final = ops.recurrence(
            cell,
            x,
            states,
            weight_hh=weight_hh,
            bias_hh=self._parameter("bias_hh", suffix),
            weight_hr=self._parameter("weight_hr", suffix),
            parameters=[getattr(self, name + suffix) for name in self.cell.parameters],
            lengths=lengths,
            reverse=reverse,
            record=named,
            weight_ih=weight_ih,
            bias_ih=bias_ih,
        )
        if recorded is not None and named is not None:
            recorded.update({name + suffix: values for name, values in named.items()})
        return output, final

    def session(self, batch_size: int | None = None) -> Session:
        """A session that is fed as the input comes, with the weights as they are now.

        Args:
            batch_size: B sequences at a time; None for one, whose arrays have no axis for it.

        Raises:
            ValueError: the layer is bidirectional, and so needs the end of a sequence first; or the
                batch size is below 1.

        >>> session = GRU(input_size=3, hidden_size=4, num_layers=2).session()
        >>> session.feed(np.ones(3, np.float32)).shape, session.state.shape
        ((4,), (2, 4))
        """
        if self.bidirectional:
            raise ValueError(
                f"{self._name}: a bidirectional layer has no session, because it reads a sequence "
                "from its end too; call it with the whole sequence"
            )
        return Session(self, batch_size, self, self.pack(), (self.input_size,), self.dtype)

    def pack(
        self, table: Array | None = None, output: tuple[Array, Array | None] | None = None
    ) -> engine.PackedLayers | None:
        """The layers packed for steps, as `engine.pack_layers` does it.

        Args:
            table: [V, I] what ids stand for, if the input is to be ids.
            output: The weight and the bias (or None) of a linear layer to put above.

        Returns:
            None where the engine cannot: the layer itself is then to be run.
        """
        plain = self.cell.fused and type(self).forward is Recurrent.forward
        if not plain or self.bidirectional:
            return None

        def data(name: str, layer: int) -> Any:
            parameter = self._parameter(name, f"_l{layer}")
            return None if parameter is None else parameter.data

        layers = [
            engine.LayerWeights(
                data("weight_ih", layer),
                data("weight_hh", layer),
                data("bias_ih", layer),
                data("bias_hh", layer),
                data("weight_hr", layer),
                [data(name, layer) for name in self.cell.parameters],
            )
            for layer in range(self.num_layers)
        ]
        norms: list[Any] = []
        if self.layer_norm:
            norms = [getattr(self, f"norm_l{layer}") for layer in range(self.num_layers)]
        return engine.pack_layers(
            self._evaluation_cell.trace,
            self.hidden_size,
            layers,
            table,
            output,
            norms=[(norm.weight.data, norm.bias.data) for norm in norms],
            epsilon=norms[0].epsilon if norms else 0.0,
        )

    def state_shapes(self, *batch: int) -> dict[str, tuple[int, ...]]:
        """The shape of each state by its name: [L*D, B, H], without B if none is given.

        >>> LSTM(input_size=3, hidden_size=4, proj_size=2).state_shapes(5)
        {'h': (1, 5, 2), 'c': (1, 5, 4)}
        """
        places = self.num_layers * self.num_directions
        sizes = dict.fromkeys(self.cell.states, self.hidden_size)
        sizes[self.cell.states[0]] = self.proj_size or self.hidden_size
        return {name: (places, *batch, size) for name, size in sizes.items()}

    def _parameter(self, name: str, suffix: str) -> Parameter | None:
        return getattr(self, name + suffix, None)

    def _initial_states(
        self, state: Any, batch: int, single: bool
    ) -> tuple[tuple[Tensor, ...], ...]:
        """For each state of the cell, what every place (layer and direction) begins with."""
        places = self.num_layers * self.num_directions
        sizes = [self.proj_size or self.hidden_size] + [self.hidden_size] * (
            len(self.cell.states) - 1
        )
        if state is None:
            return tuple((Tensor(np.zeros((batch, n), self.dtype)),) * places for n in sizes)
        states = tuple(state) if isinstance(state, (tuple, list)) else (state,)
        if len(states) != len(sizes):
            raise ValueError(
                f"{self._name}: the state of {self.cell.name!r} is "
                f"({', '.join(self.cell.states)}), {len(sizes)} Tensors; {len(states)} were given"
            )
        checked: list[tuple[Tensor, ...]] = []
        for name, given, n in zip(self.cell.states, states, sizes, strict=True):
            tensor = as_tensor(given, self.dtype, f"{self._name}: an initial state {name}")
            wanted = (places, n) if single else (places, batch, n)
            if tensor.shape != wanted:
                raise ValueError(
                    f"{self._name}: an initial state {name} of shape {tensor.shape}; wanted "
                    f"{wanted}: layers times directions, {'' if single else 'batch, '}size"
                )
            tensor = tensor.reshape(places, batch, n) if single else tensor
            if tensor.requires_grad:
                checked.append(ops.unstack(tensor))
            else:
                checked.append(tuple(Tensor(array) for array in tensor.data))
        return tuple(checked)

    def extra_repr(self) -> str:  # noqa: D102
        options = (
            f"{self.cell.name}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        )
        options += "" if self.bias else ", bias=False"
        for name in (
            "batch_first", "dropout", "bidirectional", "proj_size", "locked_dropout",
            "weight_dropout", "zoneout", "layer_norm",
        ):  # fmt: skip
            if getattr(self, name):
                options += f", {name}={getattr(self, name)}"
        return options


def _without_padding(x: Tensor, lengths: ArrayLike | None) -> Tensor:
    """[T, B, ...] with 0 beyond each row's length."""
    ends = checked_lengths("recurrence", lengths, x.shape)
    if ends is None:
        return x
    active = np.arange(len(x))[:, None] < ends
    result: Tensor = ops.where(active[:, :, None], x, 0.0)
    return result


def _cell(cell: Cell | str) -> Cell:
    if isinstance(cell, Cell):
        return cell
    if cell not in CELLS:
        raise ValueError(
            f"cell {cell!r} is neither one of {', '.join(CELLS)} nor a Cell (see "
            "anaphora.cells.cell)"
        )
    return CELLS[cell]


class RNN(Recurrent):
    """The simple recurrent network (Elman 1990).

        h = tanh(W_ih x + b_ih + W_hh h + b_hh)

    Shapes: x [T, B, I]; h [L*D, B, H]; returns y [T, B, D*H], h. The arguments are those of
    `Recurrent`, but for the nonlinearity.

    Args:
        nonlinearity: "tanh" or "relu".

    Raises:
        ValueError: the nonlinearity is another one; or as `Recurrent`.

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
            dtype=dtype,
        )


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)
        f = sigmoid(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)
        c = f * c + i * g
        h = o * tanh(c)

    Shapes: x [T, B, I]; h, c [L*D, B, H]; returns y [T, B, D*H], (h, c). With ``proj_size`` P the
    output and h have P in the place of H. The arguments are those of `Recurrent`.

    Raises:
        ValueError: as `Recurrent`.

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
            dtype=dtype,
        )


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014, in cuDNN's form).

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h = (1 - z) * n + z * h

    Shapes: x [T, B, I]; h [L*D, B, H]; returns y [T, B, D*H], h. The arguments are those of
    `Recurrent`; a GRU has no gate ``f`` to bias and no projection.

    Raises:
        ValueError: as `Recurrent`.

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
            dtype=dtype,
        )
