"""Sessions: a layer that is fed as its input comes, with the state in hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike

from anaphora.engine import PackedLayers
from anaphora.nn.module import Module
from anaphora.tensor import Array, as_tensor, no_grad

if TYPE_CHECKING:
    from anaphora.nn.recurrent import Recurrent


class Session:
    """A recurrent layer that is fed as its input comes; `Recurrent.session` makes one.

    It holds the state, and the weights as they were when it was made: training the layer further
    does not change it. It runs in evaluation mode, whatever mode the layer is in. Its outputs are
    the layer's own on the whole sequence; with the native engine, to the bit.

    Forks and copies share the weights, so that each costs its state alone. What is pickled are the
    weights and the state: in another process the session goes on with the same outputs. Different
    sessions may run in different threads at the same time; one session is for one thread at a time.

    Attributes:
        batch_size: B; None for one sequence, whose arrays then have no axis for it.

    >>> from anaphora.nn import LSTM
    >>> layer = LSTM(input_size=3, hidden_size=4)
    >>> x = np.ones((5, 3), np.float32)
    >>> session = layer.session()
    >>> for step in x:
    ...     y = session.feed(step)
    >>> bool((y == layer(x)[0].data[-1]).all())
    True
    """

    def __init__(
        self,
        layer: Recurrent,
        batch_size: int | None,
        module: Module,
        packed: PackedLayers | None,
        step: tuple[int, ...],
        dtype: DTypeLike,
    ) -> None:
        """Make one; a layer's ``session`` does it.

        Args:
            layer: Whose state it is.
            batch_size: B or None.
            module: What makes this session, and runs where nothing was packed: it takes
                [T, B, ...] and a state.
            packed: The packed layers, or None.
            step: The shape of one step of the input of one sequence.
            dtype: Of the input.
        """
        if batch_size is not None and (
            not isinstance(batch_size, (int, np.integer)) or batch_size < 1
        ):
            raise ValueError(
                "session: batch_size must be a whole number of at least 1, or None for one "
                f"sequence, not {batch_size!r}"
            )
        self.batch_size = batch_size
        self._module = module
        self._weights = {name: p.shared() for name, p in module.named_parameters()}
        self._packed = packed
        self._run: Callable[[Array, list[Array]], Array]
        self._run = _running(self._frozen()) if packed is None else packed.run
        self._swaps = layer.batch_first and batch_size is not None
        self._dtype = np.dtype(dtype)
        self._step = step if batch_size is None else (batch_size, *step)
        self._shapes = layer.state_shapes(*([] if batch_size is None else [batch_size]))
        inner = layer.state_shapes(batch_size or 1)
        self._states = [np.zeros(shape, layer.dtype) for shape in inner.values()]

    def feed(self, inputs: Any) -> Array:
        """Run over the next step, or over several; the state goes on from there.

        Args:
            inputs: One step [I], or several [T, I]; with a batch size [B, I], or [T, B, I] ([B, T,
                I] for a layer with ``batch_first``).

        Returns:
            The output, with the same leading axes: [..., N].

        Raises:
            ValueError: a shape does not fit.
            TypeError: a Tensor's dtype is not the layer's; arrays and lists are converted.
        """
        x = inputs if isinstance(inputs, np.ndarray) else self._array(inputs)
        if x.shape == self._step and x.dtype == self._dtype and x.flags.c_contiguous:
            return self._run(x, self._states)  # one step: nothing stands in its way
        x = self._checked(x)
        if self._swaps and x.ndim > len(self._step):
            outputs = self._run(np.ascontiguousarray(x.swapaxes(0, 1)), self._states)
            return outputs.swapaxes(0, 1)
        return self._run(np.asarray(x, order="C"), self._states)

    def _array(self, inputs: Any) -> Array:
        return as_tensor(inputs, self._dtype, "feed: an input").data

    def _checked(self, x: Array) -> Array:
        """The input, of one step or several, if its shape and dtype fit."""
        shape = x.shape
        several = len(shape) > len(self._step)
        if several:
            time = 1 if self._swaps else 0
            shape = shape[:time] + shape[time + 1 :]
        if shape != self._step:
            several_steps: list[Any] = list(self._step)
            several_steps.insert(1 if self._swaps else 0, "T")
            raise ValueError(
                f"feed: an input of shape {x.shape}; wanted {list(self._step)} for one step, "
                f"[{', '.join(map(str, several_steps))}] for T of them"
            )
        return self._converted(x)

    def _converted(self, x: Array) -> Array:
        return x if x.dtype == self._dtype else as_tensor(x, self._dtype, "feed: an input").data

    @property
    def state(self) -> Any:
        """The state, as the layer takes and returns it: [L, B, H], or a tuple of such.

        It is a copy. What is assigned is copied too; None stands for zeros. Without a batch size
        there is no B.
        """
        arrays = tuple(self.state_dict().values())
        return arrays if len(arrays) > 1 else arrays[0]

    @state.setter
    def state(self, state: Any) -> None:
        if state is None:
            self.reset()
            return
        arrays = state if isinstance(state, (tuple, list)) else (state,)
        if len(arrays) != len(self._shapes):
            raise ValueError(
                f"session: the state is ({', '.join(self._shapes)}), {len(self._shapes)} arrays; "
                f"{len(arrays)} were given"
            )
        self.load_state_dict(dict(zip(self._shapes, arrays, strict=True)))

    def state_dict(self) -> dict[str, Array]:
        """The state as copies of its arrays, by the names of the cell, such as ``h`` and ``c``.

        >>> from anaphora.nn import GRU
        >>> session = GRU(input_size=3, hidden_size=4).session()
        >>> session.state_dict()
        {'h': array([[0., 0., 0., 0.]], dtype=float32)}
        """
        pairs = zip(self._shapes.items(), self._states, strict=True)
        return {name: array.reshape(shape).copy() for (name, shape), array in pairs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` returned; it is copied.

        Raises:
            KeyError: names are missing or unexpected.
            ValueError: a shape differs.
            TypeError: the dtype of a Tensor differs; arrays are converted. Whatever is raised,
                nothing has changed.
        """
        if state.keys() != self._shapes.keys():
            raise KeyError(
                f"load_state_dict: the state has {', '.join(state) or 'no arrays'}; wanted "
                f"{', '.join(self._shapes)}"
            )
        arrays = []
        for (name, shape), own in zip(self._shapes.items(), self._states, strict=True):
            given = state[name]
            array = as_tensor(given, own.dtype, f"load_state_dict: {name}").data
            if array.shape != shape:
                raise ValueError(
                    f"load_state_dict: {name} has shape {array.shape}; wanted {shape}: layers, "
                    f"{'' if self.batch_size is None else 'batch, '}size"
                )
            arrays.append(np.array(array.reshape(own.shape), order="C"))
        self._states = arrays

    def reset(self) -> None:
        """Begin anew, from a state of zeros."""
        self._states = [np.zeros_like(state) for state in self._states]

    def fork(self) -> Self:
        """A session that goes on from here by itself, with the same weights.

        >>> from anaphora.nn import GRU
        >>> session = GRU(input_size=3, hidden_size=4).session()
        >>> y = session.feed([1.0, 2.0, 3.0])
        >>> other = session.fork()
        >>> bool((session.feed([4.0, 5.0, 6.0]) == other.feed([4.0, 5.0, 6.0])).all())
        True
        """
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._states = [state.copy() for state in self._states]
        return other

    def __copy__(self) -> Self:
        return self.fork()

    def __deepcopy__(self, memo: Any) -> Self:
        return self.fork()

    def __getstate__(self) -> dict[str, Any]:
        made = ("_packed", "_run", "_weights")
        kept = {name: value for name, value in vars(self).items() if name not in made}
        return kept | {"_module": self._frozen()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = state["_module"].session(state["batch_size"])  # it packs the weights again
        vars(self).update(vars(made) | state)

    def _frozen(self) -> Module:
        """A copy of the module to evaluate, with the weights that it had when this was made."""
        parameters: dict[int, Any] = {
            id(parameter): self._weights[name]
            for name, parameter in self._module.named_parameters()
            if name in self._weights
        }
        return copy.deepcopy(self._module, parameters).eval()


def _running(frozen: Module) -> Callable[[Array, list[Array]], Array]:
    """A module that is nobody else's run as packed layers are."""
    if hasattr(frozen, "batch_first"):
        frozen.batch_first = False

    def run(inputs: Array, states: list[Array]) -> Array:
        B = states[0].shape[1]
        leading = inputs.shape if inputs.dtype.kind == "i" else inputs.shape[:-1]
        x = inputs.reshape(-1, B, *inputs.shape[len(leading) :])
        # A gate may saturate; what is no number the caller will see.
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            outputs, after = frozen(x, states[0] if len(states) == 1 else tuple(states))
        for state, new in zip(states, after if len(states) > 1 else [after], strict=True):
            state[...] = new.data
        return np.array(outputs.data).reshape(*leading, outputs.shape[-1])

    return run
