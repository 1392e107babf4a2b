"""Single steps of recurrent layers as modules, for programs with their own loop over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, cast

import numpy as np
from numpy.typing import DTypeLike

from anaphora import foreign_names
from anaphora.cells import Cell
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.nn.kinds import CellLayer
from anaphora.nn.module import Module
from anaphora.nn.states import GivenState, S_co, as_tuple, from_tuple
from anaphora.options import check_sizes
from anaphora.tensor import Operand, Parameter, Tensor, as_tensor


class RecurrentCell(Module, Generic[S_co]):
    """One step of any cell, with parameters of its own: what a layer does, step by step.

    A step is a sequence of one step to the engine, so it has the bits of the layer with the same
    weights. A loop of steps on the tape is slower than a layer, which runs over complete sequences;
    where nothing is learned, ``layer.session()`` is the fastest.

    Parameters are PyTorch's: ``weight_ih [Gx*H, I]``, ``weight_hh [Gh*H, H]``, ``bias_ih``,
    ``bias_hh``, then the cell's own vectors [H].

    Args:
        cell: A `Cell`, or the name of one in `anaphora.cells.CELLS`.
        input_size: I.
        hidden_size: H.
        bias: Whether the gates have biases.
        initialization: As for `Recurrent`.
        forget_bias: As for `Recurrent`.
        dtype: float32 or float64.

    Raises:
        ValueError: an option is out of range, or does not apply to the cell.

    >>> step, h = RecurrentCell("mgu", input_size=3, hidden_size=4), None
    >>> for x in np.ones((5, 2, 3), np.float32):
    ...     h = step(x, h)
    >>> h.shape
    (2, 4)
    """

    # Options of layers that a single step does not have.
    proj_size = 0
    weight_dropout = zoneout = 0.0

    if TYPE_CHECKING:
        weight_ih: Parameter
        weight_hh: Parameter
        bias_ih: Parameter
        bias_hh: Parameter

    def __init__(
        self,
        cell: Cell | str,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, input_size=input_size, hidden_size=hidden_size)
        self.kind = CellLayer(cell)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.forget_bias = forget_bias
        self.dtype = initialize.parameter_dtype(dtype)
        layer: Any = self
        self.kind.check(layer)
        shapes = self.kind.parameter_shapes(layer, input_size)
        for name, shape in shapes.items():
            setattr(self, name, initialize.parameter(shape, dtype))
        self._names = tuple(shapes)
        self.reset_parameters(initialization)

    def _parameters(self) -> dict[str, Parameter]:
        found = {name: getattr(self, name) for name in self._names}
        return {name: parameter for name, parameter in found.items() if parameter is not None}

    def reset_parameters(self, initialization: Initialization = "pytorch") -> None:
        """Initialize the parameters again."""
        initialize.check(initialization)
        if initialize.is_enabled():
            layer: Any = self
            self.kind.reset_parameters(layer, self._parameters(), initialization)

    @foreign_names.arguments_checked
    def forward(self, x: Operand, state: GivenState = None) -> S_co:
        """Run one step.

        Args:
            x: [B, I], or [I] for one sequence.
            state: The state that the step before returned, [B, H] or [H], or a tuple of one for
                each state of the cell; None for zeros.

        Returns:
            The next state: a Tensor, or a tuple for a cell with several, of which the first is the
            output.

        Raises:
            ValueError: a shape does not match.
            TypeError: a Tensor's dtype is not the cell's.
        """
        name = type(self).__name__
        x = as_tensor(x, self.dtype, f"{name}: an input")
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"{name}: an input of shape {x.shape}; expected [B, I] or [I] with I = "
                f"{self.input_size}: one step"
            )
        single = x.ndim == 1
        if single:
            x = x.reshape(1, self.input_size)
        shape = len(x), self.hidden_size
        names = self.kind.cell.states
        given = (np.zeros(shape, self.dtype),) * len(names) if state is None else as_tuple(state)
        if len(given) != len(names):
            raise ValueError(
                f"{name}: the state of {self.kind.name!r} is ({', '.join(names)}), {len(names)} "
                f"Tensors; {len(given)} were given"
            )
        states = []
        for one, value in zip(names, given, strict=True):
            tensor = as_tensor(value, self.dtype, f"{name}: a state {one}")
            expected = shape[1:] if single and state is not None else shape
            if tensor.shape != expected:
                raise ValueError(
                    f"{name}: a state {one} of shape {tensor.shape}; expected {expected}"
                )
            states.append(tensor.reshape(*shape))
        layer: Any = self
        _, after = self.kind.run(
            layer,
            x.reshape(1, *x.shape),
            tuple(states),
            self._parameters(),
            None,
            False,
            None,
        )
        states_after = [s.reshape(self.hidden_size) if single else s for s in after]
        return cast(S_co, from_tuple(states_after))

    def extra_repr(self) -> str:  # noqa: D102
        options = f"{self.kind.name}, {self.input_size}, {self.hidden_size}"
        options += "" if self.bias else ", bias=False"
        options += "" if self.forget_bias is None else f", forget_bias={self.forget_bias}"
        return options + ("" if self.dtype == np.float32 else f", dtype={self.dtype}")


class RNNCell(RecurrentCell[Tensor]):
    """One step of `RNN`: ``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    Shapes: x [B, I]; h [B, H]; returns h.

    Args:
        input_size: I.
        hidden_size: H.
        bias: Whether to add the biases.
        nonlinearity: "tanh" or "relu".
        initialization: As for `Recurrent`.
        dtype: float32 or float64.

    Raises:
        ValueError: the nonlinearity is unknown; or as for `RecurrentCell`.

    >>> RNNCell(3, 4)(np.ones((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        cells = {"tanh": "rnn", "relu": "rnn_relu"}
        if nonlinearity not in cells:
            raise ValueError(f"RNNCell: nonlinearity {nonlinearity!r} is neither 'tanh' nor 'relu'")
        super().__init__(
            cells[nonlinearity],
            input_size,
            hidden_size,
            bias,
            initialization=initialization,
            dtype=dtype,
        )


class LSTMCell(RecurrentCell[tuple[Tensor, Tensor]]):
    """One step of `LSTM`, whose equations it has.

    Shapes: x [B, I]; h, c [B, H]; returns (h, c).

    Args:
        input_size: I.
        hidden_size: H.
        bias: Whether the gates have biases.
        initialization: As for `Recurrent`.
        forget_bias: As for `Recurrent`.
        dtype: float32 or float64.

    Raises:
        ValueError: as for `RecurrentCell`.

    >>> h, c = LSTMCell(3, 4)(np.ones((2, 3), np.float32))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            "lstm",
            input_size,
            hidden_size,
            bias,
            initialization=initialization,
            forget_bias=forget_bias,
            dtype=dtype,
        )


class GRUCell(RecurrentCell[Tensor]):
    """One step of `GRU`, whose equations it has.

    Shapes: x [B, I]; h [B, H]; returns h.

    Args:
        input_size: I.
        hidden_size: H.
        bias: Whether the gates have biases.
        initialization: As for `Recurrent`.
        dtype: float32 or float64.

    Raises:
        ValueError: as for `RecurrentCell`.

    >>> GRUCell(3, 4)(np.ones(3, np.float32)).shape
    (4,)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, bias, initialization=initialization, dtype=dtype
        )
