"""Sessions: a recurrent layer, or a model around one, that is fed step by step."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import ops
from anaphora.engine import PackedLayers, current_matmul_precision
from anaphora.engine.precision import int8_weights, products_in
from anaphora.nn.module import Module
from anaphora.nn.states import as_tuple, from_tuple
from anaphora.tensor import Array, Buffer, Parameter, Tensor, as_integers, as_tensor, no_grad

if TYPE_CHECKING:
    from anaphora.nn.recurrent import Recurrent


class Framing(Protocol):
    """How steps are read as frames of several steps, such as `data.Frames`.

    Frame k consists of the steps k * stride to k * stride + size - 1. Until all have arrived, the
    last step is repeated in place of the others.

    >>> from anaphora.data import Frames
    >>> framing: Framing = Frames.fit([np.arange(100.0)[:, None]], max_frames=10)
    >>> framing.stride, framing.size, framing.vectors(np.zeros((2, 30, 1))).shape
    (10, 30, (2, 31))
    """

    @property
    def stride(self) -> int:
        """The steps from one frame to the next, at most ``size``."""

    @property
    def size(self) -> int:
        """The steps of a frame."""

    def vectors(self, cut: Array) -> Array:
        """The vectors [K, I] that the layer reads of frames [K, size, *step]."""


class Session:
    """A recurrent layer that is fed step by step, as input arrives; `Recurrent.session` makes one.

    It holds the state, and a snapshot of the weights: training the layer further does not change
    it. It runs in evaluation mode, whatever mode the layer is in, and its matrix products have the
    precision of its construction (see `matmul_precision`), wherever it is fed. Its outputs are
    those of the layer on the complete sequence; bit for bit with the native engine.

    Forks and copies share the weights, so that each costs only its state. Pickling includes weights
    and state: in another process the session continues with the same outputs. Different sessions
    may run in different threads at the same time; one session is for one thread at a time, and
    a second thread gets a RuntimeError.

    A model builds its own session from what it computes before and after its recurrent layer, as
    functions of the model (with the weights of the snapshot), of arrays, and of a memory that is
    part of the state. A classifier that averages over time answers after each step:

    >>> from anaphora import nn
    >>> class Classifier(nn.Module):
    ...     def __init__(self):
    ...         self.recurrent, self.output = nn.LSTM(3, 4), nn.Linear(4, 2)
    ...
    ...     def session(self, batch_size=None):
    ...         return Session(
    ...             self.recurrent, batch_size, self, before=standardized, after=answer,
    ...             memory={"total": np.zeros(4, "f"), "steps": 0.0},
    ...         )
    >>> def standardized(model, x):  # [T, B, ...] as fed
    ...     return (x - 20) / 5
    >>> def answer(model, h, memory):  # h [T, B, N]; memory [B, ...] each
    ...     totals = np.cumsum([memory["total"], *h], axis=0)  # [T + 1, B, N]
    ...     steps = memory["steps"] + np.arange(len(totals))[:, None]
    ...     memory["total"][...], memory["steps"][...] = totals[-1], steps[-1]
    ...     return model.output(totals[1:] / steps[1:, :, None])
    >>> session = Classifier().session()
    >>> session.feed([18.0, 25.0, 21.0]).shape, sorted(session.state_dict())
    ((2,), ['c', 'h', 'steps', 'total'])

    Args:
        layer: The recurrent layer, in one direction.
        batch_size: B sequences at a time; None for one, whose arrays have no axis for it.
        module: The model around the layer; None for the layer alone.
        step: The shape of one input step of one sequence; None for (I,), or () for ids.
        dtype: Of the input; None for the layer's, or int64 for ids.
        before: ``before(module, inputs)`` computes the layer's input [T, B, I] from the session's,
            [T, B, *step]. None: they are the same.
        after: ``after(module, h, memory)`` computes the answers [T, B, ...] from the layer's output
            [T, B, N], and updates the arrays of the memory in place. None: the output is the
            answer.
        memory: What ``after`` keeps between steps: initial values for one sequence, by name. Arrays
            keep their dtype, other numbers take the layer's.
        table: The embedding [V, I] of ids that are fed, looked up natively: for ``before``.
        output: Weight [O, N] and bias [O] (or None) of a linear layer, computed natively: for
            ``after``.
        frames: Cuts the steps that are fed, or what ``before`` makes of them in the same shape and
            dtype, into frames: each is one step of the layer. A frame advances the state when its
            last step has arrived; incomplete frames are computed again for each answer, on a copy
            of the state. The steps that are still needed are part of the state, as ``waiting`` and
            ``num_waiting``.
        run: ``run(module, inputs, state)`` returns output and state, for a module that computes
            something other than its layer; nothing is then packed.
        weights: "float32", "int8", or None for "int8" if the layer computes so (`Module.use_int8`).
            "int8" computes with weights in 8 bits: of the layer, of embeddings and of linear
            layers, with one scale an output unit (of embeddings: a row), and one for each row that
            is multiplied, as it comes. The packed weights then take a quarter of the memory.

    Attributes:
        batch_size: B, or None.

    Raises:
        ValueError: the layer is bidirectional; the batch size is below 1; the memory is not of
            floats, or has the name of one of the layer's states; the stride of the frames is not 1
            to their size; or the weights are neither "float32" nor "int8", or int8 for a layer of
            another dtype than float32.

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
        batch_size: int | None = None,
        module: Module | None = None,
        *,
        step: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
        before: Callable[[Any, Array], Any] | None = None,
        after: Callable[[Any, Any, dict[str, Array]], Any] | None = None,
        memory: Mapping[str, ArrayLike] | None = None,
        table: Parameter | None = None,
        output: tuple[Parameter, Parameter | Array | None] | None = None,
        frames: Framing | None = None,
        run: Callable[[Any, Tensor, Any], tuple[Tensor, Any]] | None = None,
        weights: str | None = None,
    ) -> None:
        if layer.bidirectional:
            raise ValueError(
                f"{type(layer).__name__}: a bidirectional layer has no session, because it reads a "
                "sequence from its end too; call it with the complete sequence"
            )
        _check_batch_size(batch_size)
        weights = weights or ("int8" if layer.in_int8 else "float32")
        check_weights(weights, layer.dtype)
        if frames is not None and not 1 <= frames.stride <= frames.size:
            raise ValueError(
                f"session: frames of {frames.size} steps, {frames.stride} apart; expected a stride "
                "of 1 to the size"
            )
        module = layer if module is None else module
        if step is None:
            step = (layer.input_size,) if table is None else ()
        if dtype is None:
            dtype = layer.dtype if table is None else np.int64
        self.batch_size = batch_size
        with weights_as(weights):
            self._precision = current_matmul_precision()
        self._step = step if batch_size is None else (batch_size, *step)
        self._dtype = np.dtype(dtype)
        self._swaps = layer.batch_first and batch_size is not None
        self._in_use = False
        starts = {
            name: np.array(value, value.dtype if isinstance(value, np.ndarray) else layer.dtype)
            for name, value in (memory or {}).items()
        }
        self._frame_size = None if frames is None else frames.size
        waiting: dict[str, Array] = {}
        if frames is not None:
            shape = (frames.size - 1, *step)
            waiting = {"waiting": np.zeros(shape, dtype), "num_waiting": np.zeros(())}
        self._memory = [*starts.items(), *waiting.items()]  # the initial values for one sequence
        self._allocate(layer, self._memory)

        shared: dict[int, Tensor] = {}

        def snapshot(value: Any) -> Any:
            if isinstance(value, (Parameter, Buffer)):
                return shared.setdefault(id(value), value.shared())
            return value

        self._weights = {
            (owner, name): snapshot(tensor)
            for owner, part in (("layer", layer), ("module", module))
            for name, tensor in (*part.named_parameters(), *part.named_buffers())
        }
        self._arguments: dict[str, Any] = {
            "layer": layer,
            "batch_size": batch_size,
            "module": module,
            "step": step,
            "dtype": dtype,
            "before": before,
            "after": after,
            "memory": starts,
            "table": snapshot(table),
            "output": None if output is None else tuple(map(snapshot, output)),
            "frames": frames,
            "run": run,
        }
        self._packed: PackedLayers | None = None
        if run is None:
            linear = None if output is None else tuple(map(_numbers, output))
            with products_in(self._precision):
                self._packed = layer.pack(_numbers(table), linear)
        self._run: Callable[[Array, list[Array]], Array]
        if self._packed is not None and before is None and after is None and frames is None:
            self._run = self._packed.run
        else:
            self._run = _runner(self._packed, self._precision, **self._frozen())
        self._made = frozenset((*vars(self), "_made"))

    def _allocate(self, layer: Recurrent, memory: Iterable[tuple[str, Array]]) -> None:
        """Make the states: the layer's, then the memory's, then the waiting steps."""
        batch = () if self.batch_size is None else (self.batch_size,)
        B = self.batch_size or 1
        self._layer_shapes = layer.state_shapes(*batch)
        self._shapes = dict(self._layer_shapes)  # as users see them, without B if it is None
        self._initial = list(layer.initial_state(B).values())
        for name, start in memory:
            if name in self._shapes or start.dtype.kind != "f":
                raise ValueError(
                    f"session: a memory {name!r} of {start.dtype}; expected floats, by a name "
                    f"other than the states {', '.join(self._shapes)}"
                )
            self._shapes[name] = (*batch, *start.shape)
            self._initial.append(np.broadcast_to(start, (B, *start.shape)).copy())
        self._states = [state.copy() for state in self._initial]

    def feed(self, inputs: Any) -> Array:
        """Run over the next step, or over several, and advance the state.

        Args:
            inputs: One step [I], or several [T, I]; with a batch size [B, I], or [T, B, I] ([B, T,
                I] for a layer with ``batch_first``). Ids have no axis I.

        Returns:
            The output, with the same leading axes: [..., N].

        Raises:
            ValueError: a shape does not match.
            TypeError: a Tensor's dtype is not the layer's; arrays and lists are converted. Or ids
                are not integers.
            RuntimeError: another thread is feeding this session.
        """
        if self._in_use:  # a plain flag: threads do not switch between test and assignment
            raise _used("feed")
        self._in_use = True
        try:
            x = inputs if isinstance(inputs, np.ndarray) else self._array(inputs)
            if x.shape == self._step and x.dtype == self._dtype and x.flags.c_contiguous:
                return self._run(x, self._states)  # one step: nothing to convert
            return self._advance(x)
        finally:
            self._in_use = False

    def _advance(self, x: Array) -> Array:
        """The output for an input of any valid shape and dtype."""
        x = self._checked(x)
        if self._swaps and x.ndim > len(self._step):
            outputs = self._run(np.ascontiguousarray(x.swapaxes(0, 1)), self._states)
            return outputs.swapaxes(0, 1)
        return self._run(np.asarray(x, order="C"), self._states)

    @contextlib.contextmanager
    def _changing(self, method: str) -> Iterator[None]:
        """A context in which any other use of the session is refused."""
        if self._in_use:
            raise _used(method)
        self._in_use = True
        try:
            yield
        finally:
            self._in_use = False

    def _check_unused(self, method: str) -> None:
        if self._in_use:
            raise _used(method)

    def _array(self, inputs: Any) -> Array:
        if self._dtype.kind == "i":
            return np.asarray(inputs)
        return as_tensor(inputs, self._dtype, "feed: an input").data

    def _checked(self, x: Array) -> Array:
        """The input, of one step or several, with its shape and dtype checked."""
        shape = x.shape
        several = len(shape) > len(self._step)
        if several:
            time = 1 if self._swaps else 0
            shape = shape[:time] + shape[time + 1 :]
        if shape != self._step:
            several_steps: list[Any] = list(self._step)
            several_steps.insert(1 if self._swaps else 0, "T")
            raise ValueError(
                f"feed: an input of shape {x.shape}; expected {list(self._step)} for one step, "
                f"[{', '.join(map(str, several_steps))}] for T of them"
            )
        if self._dtype.kind == "i":
            return as_integers(x, "feed: ids are integers").astype(self._dtype, order="C")
        return x if x.dtype == self._dtype else as_tensor(x, self._dtype, "feed: an input").data

    @property
    def state(self) -> Any:
        """The layer's state, as the layer takes and returns it: [L, B, H], or a tuple of such.

        It is a copy. What is assigned is copied too; None resets it. Without a batch
        size there is no B. A model's memory is not part of it, but of `state_dict`.
        """
        arrays = self.state_dict()
        return from_tuple([arrays[name] for name in self._layer_shapes])

    @state.setter
    def state(self, state: Any) -> None:
        if state is None:
            self.reset()
            return
        arrays = as_tuple(state)
        if len(arrays) != len(self._layer_shapes):
            raise ValueError(
                f"session: the state is ({', '.join(self._layer_shapes)}), "
                f"{len(self._layer_shapes)} arrays; {len(arrays)} were given"
            )
        self.load_state_dict(self.state_dict() | dict(zip(self._layer_shapes, arrays, strict=True)))

    def state_dict(self) -> dict[str, Array]:
        """The state as copies of its arrays, by the names of the cell, such as ``h`` and ``c``.

        It includes a model's memory, by its names.

        >>> from anaphora.nn import GRU
        >>> session = GRU(input_size=3, hidden_size=4).session()
        >>> session.state_dict()
        {'h': array([[0., 0., 0., 0.]], dtype=float32)}
        """
        self._check_unused("state_dict")
        pairs = zip(self._shapes.items(), self._states, strict=True)
        return {name: array.reshape(shape).copy() for (name, shape), array in pairs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned; it is copied.

        Raises:
            KeyError: names are missing or unexpected.
            ValueError: a shape differs, or ``num_waiting`` is out of range.
            TypeError: the dtype of a Tensor differs; arrays are converted. After any error the
                state is unchanged.
            RuntimeError: another thread is feeding this session.
        """
        shapes = self._shapes
        if state.keys() != shapes.keys():
            raise KeyError(
                f"load_state_dict: the state has {', '.join(state) or 'no arrays'}; expected "
                f"{', '.join(shapes)}"
            )
        arrays = []
        for (name, shape), own in zip(shapes.items(), self._states, strict=True):
            array = as_tensor(state[name], own.dtype, f"load_state_dict: {name}").data
            if array.shape != shape:
                raise ValueError(
                    f"load_state_dict: {name} has shape {array.shape}; expected {shape}: layers, "
                    f"{'' if self.batch_size is None else 'batch, '}size"
                )
            arrays.append(np.array(array.reshape(own.shape), order="C"))
        if self._frame_size is not None:
            counts = np.unique(arrays[-1])
            if len(counts) != 1 or counts[0] not in range(self._frame_size):
                raise ValueError(
                    f"load_state_dict: num_waiting is {', '.join(map(str, counts))}; expected an "
                    f"integer of 0 to {self._frame_size - 1}, the same for all sequences"
                )
        with self._changing("load_state_dict"):
            self._states = arrays

    def reset(self) -> None:
        """Return to the initial state: zeros, and the initial values of the memory."""
        with self._changing("reset"):
            self._states = [state.copy() for state in self._initial]

    def fork(self) -> Self:
        """An independent session with the same weights and a copy of the state.

        >>> from anaphora.nn import GRU
        >>> session = GRU(input_size=3, hidden_size=4).session()
        >>> y = session.feed([1.0, 2.0, 3.0])
        >>> other = session.fork()
        >>> bool((session.feed([4.0, 5.0, 6.0]) == other.feed([4.0, 5.0, 6.0])).all())
        True
        """
        self._check_unused("fork")
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._states = [state.copy() for state in self._states]
        return other

    def resized(self, batch_size: int | None) -> Self:
        """A session for another number of sequences, with the same weights, in the initial state.

        Args:
            batch_size: B; None for one sequence, whose arrays have no batch axis.

        Raises:
            ValueError: the batch size is below 1.

        >>> from anaphora.nn import GRU
        >>> session = GRU(input_size=3, hidden_size=4).session()
        >>> session.resized(2).feed(np.ones((5, 2, 3), np.float32)).shape
        (5, 2, 4)
        """
        _check_batch_size(batch_size)
        self._check_unused("resized")
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        step, layer = self._arguments["step"], self._arguments["layer"]
        other.batch_size = batch_size
        other._arguments = {**self._arguments, "batch_size": batch_size}
        other._step = step if batch_size is None else (batch_size, *step)
        other._swaps = layer.batch_first and batch_size is not None
        other._allocate(layer, other._memory)
        return other

    def __copy__(self) -> Self:
        return self.fork()

    def __deepcopy__(self, memo: Any) -> Self:
        return self.fork()

    def __getstate__(self) -> dict[str, Any]:
        self._check_unused("pickling")
        others = {name: value for name, value in vars(self).items() if name not in self._made}
        return {
            "arguments": self._frozen(),
            "precision": self._precision,
            "states": self._states,
            "others": others,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        with products_in(state["precision"]):
            Session.__init__(self, **state["arguments"])  # it packs the weights again
        self._states = state["states"]
        vars(self).update(state["others"])

    def _frozen(self) -> dict[str, Any]:
        """The arguments, with copies of layer and module that have the weights of the snapshot."""
        memo: dict[int, Any] = {id(shared): shared for shared in self._weights.values()}
        for owner in ("layer", "module"):
            part = self._arguments[owner]
            for name, tensor in (*part.named_parameters(), *part.named_buffers()):
                if (owner, name) in self._weights:
                    memo[id(tensor)] = self._weights[owner, name]
        frozen = copy.deepcopy(self._arguments, memo)
        for part in (frozen["layer"], frozen["module"]):
            part.eval().use_int8(False)  # the session has a precision of its own
        return frozen

    def __repr__(self) -> str:
        layer, module = self._arguments["layer"], self._arguments["module"]
        of = repr(layer) if module is layer else f"{type(module).__name__}{module._size()}"
        states = (f"{name} {list(shape)}" for name, shape in self._shapes.items())
        return f"{type(self).__name__}({of}, batch_size={self.batch_size}, {', '.join(states)})"


def _check_batch_size(batch_size: int | None) -> None:
    if batch_size is not None and (not isinstance(batch_size, (int, np.integer)) or batch_size < 1):
        raise ValueError(
            "session: batch_size must be an integer of at least 1, or None for one "
            f"sequence, not {batch_size!r}"
        )


def check_weights(weights: str, dtype: DTypeLike = np.float32) -> None:
    """Check how weights are to be computed with.

    Raises:
        ValueError: they are neither "float32" nor "int8", or int8 for another dtype than float32.

    >>> check_weights("int8")
    >>> check_weights("int4")
    Traceback (most recent call last):
    ValueError: weights is 'int4'; expected 'float32' or 'int8'
    """
    if weights not in ("float32", "int8"):
        raise ValueError(f"weights is {weights!r:.80}; expected 'float32' or 'int8'")
    if weights == "int8" and np.dtype(dtype) != np.float32:
        raise ValueError(
            f"weights='int8' for layers of {np.dtype(dtype)}; 8 bits stand for float32: "
            "convert the model to float32, or omit the argument"
        )


def weights_as(weights: str) -> contextlib.AbstractContextManager[None]:
    """A context in which weights are computed with as the session's argument says.

    >>> from anaphora.engine import current_matmul_precision
    >>> with weights_as("int8"):
    ...     current_matmul_precision()
    'int8'
    """
    return int8_weights() if weights == "int8" else contextlib.nullcontext()


def _used(method: str) -> RuntimeError:
    return RuntimeError(
        f"{method}: another thread is feeding this session, and its state is for one thread at a "
        "time; give each thread its own session, such as session.fork()"
    )


def _numbers(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


def _runner(
    packed: PackedLayers | None,
    precision: str,
    *,
    layer: Recurrent,
    module: Module,
    step: tuple[int, ...],
    before: Callable[[Any, Array], Any] | None,
    after: Callable[[Any, Any, dict[str, Array]], Any] | None,
    memory: Mapping[str, Array],
    table: Parameter | None,
    output: tuple[Any, Any] | None,
    frames: Framing | None,
    run: Callable[[Any, Tensor, Any], tuple[Tensor, Any]] | None,
    **_: Any,
) -> Callable[[Array, list[Array]], Array]:
    """A function with the interface of `PackedLayers.run`; it owns its layer and module."""
    layer.batch_first = False
    count = len(layer.state_shapes())

    def unpacked(x: Any, states: list[Array]) -> Any:
        if table is not None:
            x = ops.embedding(table, x)
        state = from_tuple(states)
        y, final = layer(x, state) if run is None else run(module, x, state)
        for own, new in zip(states, as_tuple(final), strict=True):
            own[...] = new.data
        return y if output is None else ops.linear(y, *output)

    def answers(x: Array, states: list[Array]) -> Array:
        """The answers [T, B, ...] to the layer's input [T, B, I]; the caller may keep them."""
        if packed is None:
            y = unpacked(x, states[:count])
        else:
            y = packed.run(np.asarray(x, order="C"), states[:count])
        if after is not None:
            y = after(module, _numbers(y), dict(zip(memory, states[count:], strict=True)))
        y = np.array(_numbers(y))
        if y.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"session: after returned the shape {y.shape}; expected {[*x.shape[:2], '...']}, "
                "an answer for each step and sequence"
            )
        return y

    def runner(inputs: Array, states: list[Array]) -> Array:
        B = states[0].shape[1]
        leading = inputs.shape[: inputs.ndim - len(step)]
        x = inputs.reshape(-1, B, *step)
        # A gate may saturate, and the caller sees NaN in the outputs: no warnings.
        quiet = np.errstate(over="ignore", invalid="ignore")
        with no_grad(), quiet, products_in(precision):
            if before is not None:
                dtype = layer.dtype if frames is None else x.dtype
                x = as_tensor(before(module, x), dtype, "session: the result of before").data
            if frames is None:
                y = answers(x, states)
            else:
                y = _framed_answers(frames, answers, layer, x, states)
        return y.reshape(*leading, *y.shape[2:])

    return runner


def _framed_answers(
    frames: Framing,
    answers: Callable[[Array, list[Array]], Array],
    layer: Recurrent,
    x: Array,
    states: list[Array],
) -> Array:
    """The answers [T, B, ...] after each of some steps [T, B, *step], which are read in frames.

    A complete frame advances the states. The others, whose last steps have not arrived, are
    computed on copies of them.
    """
    *advanced, waiting, num_waiting = states
    B, before = len(waiting), int(num_waiting[0])
    steps = np.concatenate([waiting[:, :before], x.swapaxes(0, 1)], axis=1)  # [B, T, *step]
    start = 0  # of the first frame that has not advanced the states
    found = []
    for end in range(before + 1, steps.shape[1] + 1):
        held = end - start
        first = np.arange(0, held, frames.stride)  # [K], of each frame that has begun
        index = np.minimum(first[:, None] + np.arange(frames.size), held - 1)
        cut = steps[:, start + index]  # [B, K, size, *step]
        vectors = frames.vectors(cut.reshape(-1, *cut.shape[2:])).astype(layer.dtype)
        inputs = vectors.reshape(B, len(first), -1).swapaxes(0, 1)  # [K, B, I]
        if held == frames.size:
            y = answers(inputs[:1], advanced)
            start += frames.stride
            inputs = inputs[1:]
        if len(inputs):
            y = answers(inputs, [state.copy() for state in advanced])
        found.append(y[-1])
    left = steps[:, start:]
    num_waiting[...] = left.shape[1]
    waiting[...] = 0
    waiting[:, : left.shape[1]] = left
    if not found:
        return answers(np.zeros((0, B, layer.input_size), layer.dtype), advanced)
    return np.array(found)
