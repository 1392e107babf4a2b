"""Layers that others have and `anaphora.nn` lacks: activations, a GRU, masks, pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anaphora import nn, ops
from anaphora.interop.cells import (
    ACTIVATIONS,
    SIGMOID,
    TANH,
    Activation,
    half_gru_cell,
    named,
)
from anaphora.nn.reset_before import half_gru
from anaphora.nn.states import as_tuple
from anaphora.tensor import Array, Tensor, as_tensor

# Activations --------------------------------------------------------------------------------------

OF_TENSORS: dict[str, Callable[[], nn.Module]] = {
    "softmax": nn.Softmax,
    "log_softmax": nn.LogSoftmax,
    "gelu": nn.GELU,
}
"""Functions that the equations of a cell do not have, by name."""

_MODULES: dict[str, Callable[..., nn.Module]] = {
    **OF_TENSORS,
    "linear": nn.Identity,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
}
"""The functions that `anaphora.nn` has as modules, by the names that they have here."""


class Function(nn.Module):
    """An elementwise function that `anaphora.nn` lacks as a module; see `function`.

    Args:
        name: A name of `ACTIVATIONS`.
        *options: The numbers that the function takes after x.

    >>> Function("clipped", -1.0, 2.0)([-2.0, 3.0]).data
    array([-1.,  2.], dtype=float32)
    """

    def __init__(self, name: str, *options: float) -> None:
        self.name = name
        self.options = options

    def forward(self, x: Any) -> Tensor:
        """Shapes: x [...]; returns the same."""
        x = as_tensor(x, None if isinstance(x, Tensor) else np.float32, self.name)
        result: Tensor = ACTIVATIONS[self.name](x, *self.options)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return ", ".join([self.name, *map(str, self.options)])


def function(name: str, *options: float) -> nn.Module:
    """The module of a function: that of `anaphora.nn`, or a `Function` where there is none.

    Args:
        name: A name of `ACTIVATIONS` or of `OF_TENSORS`.
        *options: The numbers that the function takes after x.

    Raises:
        ValueError: the name is unknown.

    >>> function("leaky_relu", 0.1), function("mish")
    (LeakyReLU(negative_slope=0.1), Function(mish))
    """
    if name in _MODULES:
        return _MODULES[name](*options)
    if name not in ACTIVATIONS:
        known = ", ".join([*ACTIVATIONS, *OF_TENSORS])
        raise ValueError(f"activation {name!r:.60} is not one of {known}")
    return Function(name, *options)


def named_function(module: nn.Module) -> Activation | None:
    """The name and the options with which `function` makes a module; None for another module.

    >>> named_function(nn.ELU(0.5)), named_function(nn.Linear(2, 3))
    (('elu', (0.5,)), None)
    """
    if isinstance(module, Function):
        return module.name, module.options
    if isinstance(module, (nn.Softmax, nn.LogSoftmax)) and module.axis != -1:
        return None
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_tanh", ()
    if isinstance(module, nn.ELU):
        return "elu", (module.alpha,)
    if isinstance(module, nn.LeakyReLU):
        return "leaky_relu", (module.negative_slope,)
    return next(((n, ()) for n, kind in _MODULES.items() if kind is type(module)), None)


# A kind of layers ---------------------------------------------------------------------------------


class ResetBefore(nn.ResetBeforeGRU):
    """`nn.ResetBeforeGRU`, with other activations.

    Args:
        activation: That of n.
        of_gates: That of r and z.

    >>> ResetBefore(("relu", ())).name, ResetBefore().name
    ('gru_reset_before_relu_sigmoid', 'gru_reset_before')
    """

    def __init__(self, activation: Activation = TANH, of_gates: Activation = SIGMOID) -> None:
        super().__init__(half_gru_cell(activation, of_gates))
        if self.half is not half_gru:
            self.name = named("gru_reset_before", activation, of_gates)


# Masks --------------------------------------------------------------------------------------------


class Masked(nn.Module):
    """The base of layers that read or change the mask of a batch.

    Called with x [B, T, ...] and a mask [B, T] of booleans, False at steps to skip, or None; it
    returns both anew.
    """


class MaskingEmbedding(Masked):
    """An embedding in which the id 0 is padding, wherever it stands.

    >>> x, mask = MaskingEmbedding(nn.Embedding(5, 3))([[4, 1, 0]], None)
    >>> x.shape, mask.tolist()
    ((1, 3, 3), [[True, True, False]])
    """

    def __init__(self, table: nn.Embedding) -> None:
        self.table = table

    def forward(self, x: Any, mask: Array | None) -> tuple[Tensor, Array]:
        """Look the ids up; the mask is where they are not 0."""
        return self.table(x), np.asarray(x) != 0


class Masking(Masked):
    """A mask of the steps whose features are not all of one value; the others become 0.

    >>> x, mask = Masking(-1.0)([[[2.0], [-1.0]]], None)
    >>> x.data.tolist(), mask.tolist()
    ([[[2.0], [0.0]]], [[True, False]])
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def forward(self, x: Any, mask: Array | None) -> tuple[Tensor, Array]:
        """Mask the steps of x [B, T, I]."""
        x = as_tensor(x, None if isinstance(x, Tensor) else np.float32, "Masking: an input")
        mask = (x.data != x.dtype.type(self.value)).any(axis=-1)
        return ops.where(mask[..., None], x, 0.0), mask

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.value}"


class Unmasked(Masked):
    """A layer after which there is no mask any more, such as a convolution.

    >>> Unmasked(nn.Linear(2, 3))(np.ones((1, 4, 2)), np.ones((1, 4), bool))[1] is None
    True
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def forward(self, x: Any, mask: Array | None) -> tuple[Tensor, None]:
        """Call the layer."""
        return self.layer(x), None


class Pooling(Masked):
    """The mean of all unmasked steps, or the maximum of all steps.

    >>> Pooling("mean")([[[2.0], [4.0], [9.0]]], np.array([[True, True, False]]))[0].data
    array([[3.]], dtype=float32)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def forward(self, x: Any, mask: Array | None) -> tuple[Tensor, None]:
        """Pool x [B, T, I] to [B, I]."""
        x = as_tensor(x, None if isinstance(x, Tensor) else np.float32, "Pooling: an input")
        if self.kind == "max":
            return x.max(axis=1), None
        if mask is None:
            return x.mean(axis=1), None
        kept = mask[..., None].astype(x.dtype)
        return (x * kept).sum(axis=1) / kept.sum(axis=1), None

    def extra_repr(self) -> str:  # noqa: D102
        return self.kind


class Repeat(Masked):
    """A vector [B, I] repeated over n steps, [B, n, I].

    >>> Repeat(3)([[2.0]], None)[0].data.tolist()
    [[[2.0], [2.0], [2.0]]]
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def forward(self, x: Any, mask: Array | None) -> tuple[Tensor, None]:
        """Repeat x."""
        x = as_tensor(x, None if isinstance(x, Tensor) else np.float32, "Repeat: an input")
        B, size = x.shape
        return ops.broadcast_to(x.reshape(B, 1, size), (B, self.steps, size)), None

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.steps}"


MERGES: dict[str, Callable[[Sequence[Tensor]], Any]] = {
    "concat": lambda halves: ops.concatenate(halves, axis=-1),
    "sum": lambda halves: halves[0] + halves[1],
    "mul": lambda halves: halves[0] * halves[1],
    "ave": lambda halves: (halves[0] + halves[1]) / 2,
    "none": tuple,
}
"""What becomes of the outputs of two directions, by Keras's names."""


class MaskedRecurrent(nn.Module):
    """A recurrent layer of batches [B, T, I] that skips masked steps, wherever they are.

    A skipped step changes no state. Its output is that of the step before, or 0 with
    ``zero_output``, and in both directions.

    Args:
        recurrent: The layer, with one layer in one or two directions.
        return_sequences: Return the outputs of all steps, not only the last.
        go_backwards: Run from the last step to the first; outputs are in that order.
        merge: How outputs of two directions are merged, one of `MERGES`.
        zero_output: Whether outputs of skipped steps are 0.
        stateful: Whether a call continues from the state that it is given.
        dropout: The share of the features that are dropped in training, at all steps the same.

    >>> layer = MaskedRecurrent(nn.LSTM(3, 4), return_sequences=False)
    >>> x, mask = np.ones((2, 5, 3), np.float32), np.array([[0, 1, 1, 0, 1], [1, 1, 1, 0, 0]], bool)
    >>> y, mask, (h, c) = layer(x, mask)
    >>> y.shape, mask, bool(np.allclose(y.data[0], y.data[1]))
    ((2, 4), None, True)
    """

    def __init__(
        self,
        recurrent: nn.Recurrent,
        *,
        return_sequences: bool = True,
        go_backwards: bool = False,
        merge: str = "concat",
        zero_output: bool = False,
        stateful: bool = False,
        dropout: float = 0.0,
    ) -> None:
        self.recurrent = recurrent
        self.return_sequences = return_sequences
        self.go_backwards = go_backwards
        self.merge = merge
        self.zero_output = zero_output
        self.stateful = stateful
        self.dropout = nn.Dropout(dropout, locked=True)

    def forward(
        self, x: Any, mask: Array | None = None, state: Any = None
    ) -> tuple[Any, Array | None, Any]:
        """Run over a batch.

        Args:
            x: [B, T, I].
            mask: [B, T] booleans, or None.
            state: The initial state, or None for zeros.

        Returns:
            The output, [B, T, D*H] or [B, D*H]; its mask, or None; the final state.
        """
        x = as_tensor(x, self.recurrent.dtype, "an input")
        if x.ndim != 3 or x.shape[-1] != self.recurrent.input_size:
            raise ValueError(
                f"an input of shape {x.shape}; expected [B, T, I] with "
                f"I = {self.recurrent.input_size}"
            )
        x = self.dropout(x.transpose(1, 0, 2))
        steps = None if mask is None else mask.T
        if self.go_backwards:
            x, steps = x[::-1], None if steps is None else steps[::-1]
        y, state = self._over(x, steps, state)
        directions = ops.split(y, self.recurrent.num_directions, axis=-1)
        if self.return_sequences:
            directions = tuple(d.transpose(1, 0, 2) for d in directions)
        merged = MERGES[self.merge](directions) if len(directions) > 1 else directions[0]
        return merged, mask if self.return_sequences else None, state

    def _over(self, x: Tensor, steps: Array | None, state: Any) -> tuple[Tensor, Any]:
        """Outputs [T, B, D*H], or the last [B, D*H], of x [T, B, I]; and the state."""
        lengths = None
        if steps is not None:
            lengths, rows = steps.sum(axis=0), np.arange(x.shape[1])
            if (steps[1:] > steps[:-1]).any():  # real steps first, in their order
                x = x[np.argsort(~steps, axis=0, kind="stable"), rows]
        y, state = self.recurrent(x, state, lengths=lengths)
        if not self.return_sequences:
            last = ops.concatenate(ops.unstack(as_tuple(state)[0]), axis=-1)
            if steps is not None and self.zero_output:
                last = ops.where(steps[-1][:, None], last, 0.0)
            return last, state
        if steps is not None:
            real = np.cumsum(steps, axis=0)  # the number of real steps so far
            shown = steps if self.zero_output else real > 0
            y = ops.where(shown[..., None], y[np.maximum(real - 1, 0), rows], 0.0)
        return y, state

    def extra_repr(self) -> str:  # noqa: D102
        shown = [f"return_sequences={self.return_sequences}"]
        shown += ["go_backwards=True"] if self.go_backwards else []
        shown += [f"merge={self.merge}"] if self.recurrent.bidirectional else []
        shown += ["stateful=True"] if self.stateful else []
        return ", ".join(shown)
