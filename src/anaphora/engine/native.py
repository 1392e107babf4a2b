"""The native engine's face: NumPy arrays in and out, the same functions as on NumPy.

Each function names the one that it stands in for, where its arguments and an example are. Importing
this file fails where the native module was not built. Precisions other than float32 and float64 go
to NumPy.
"""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import anaphora.engine._native as _native  # where it is missing, the error says just that
from anaphora.engine import kernels, recurrence, updates
from anaphora.engine.recurrence import LayerWeights, RecurrenceGradients
from anaphora.equations import Program, Trace

Array: TypeAlias = NDArray[Any]

_PRECISIONS = {np.dtype(np.float32): _native.float32, np.dtype(np.float64): _native.float64}

# The order of the operations in src/program.h.
_WORDS = """
    add subtract multiply divide negative
    sigmoid tanh relu exp log softplus abs maximum minimum sign
"""
_OPERATIONS = _WORDS.split()


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """As `kernels.matmul`; each element is one chain of multiply-adds in the order of K."""
    module = _PRECISIONS.get(a.dtype)
    if module is None or a.dtype != b.dtype or (bias is not None and bias.dtype != a.dtype):
        return kernels.matmul(a, b, bias)
    result: Array = module.matmul(_elements_apart(a), _elements_apart(b), _contiguous(bias))
    return result


def sum_columns(x: Array) -> Array:
    """As `kernels.sum_columns`; each column is summed from the first row to the last."""
    module = _PRECISIONS.get(x.dtype)
    if module is None:
        return kernels.sum_columns(x)
    result: Array = module.sum_columns(np.ascontiguousarray(x))
    return result


def _elements_apart(a: Array) -> Array:
    """The array with strides that are whole elements."""
    whole = a.dtype.isnative and all(stride % a.itemsize == 0 for stride in a.strides)
    return a if whole else np.ascontiguousarray(a)


def cross_entropy_forward(
    logits: Array, targets: Array, in_place: bool = False
) -> tuple[Array, Array]:
    """As `kernels.cross_entropy_forward`."""
    module = _PRECISIONS.get(logits.dtype)
    if module is None:
        return kernels.cross_entropy_forward(logits, targets, in_place)
    logits = np.ascontiguousarray(logits)
    losses, probabilities = module.cross_entropy_forward(
        logits, np.ascontiguousarray(targets, np.int64), logits if in_place else None
    )
    return losses, probabilities


def cross_entropy_backward(probabilities: Array, targets: Array, d_losses: Array) -> Array:
    """As `kernels.cross_entropy_backward`."""
    module = _PRECISIONS.get(probabilities.dtype)
    if module is None:
        return kernels.cross_entropy_backward(probabilities, targets, d_losses)
    result: Array = module.cross_entropy_backward(
        np.ascontiguousarray(probabilities),
        np.ascontiguousarray(targets, np.int64),
        np.ascontiguousarray(d_losses, probabilities.dtype),
    )
    return result


def sgd_update(
    parameter: Array,
    gradient: Array,
    velocity: Array | None,
    *,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """As `updates.sgd_update`."""
    module = _PRECISIONS.get(parameter.dtype)
    plain = velocity is None and parameter.dtype == gradient.dtype
    if module is None or not plain:
        updates.sgd_update(
            parameter,
            gradient,
            velocity,
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
        )
        return
    with _in_c_order(parameter) as values:
        module.sgd(values, np.ascontiguousarray(gradient), learning_rate, weight_decay)


def scale(x: Array, factor: float) -> None:
    """As `updates.scale`."""
    module = _PRECISIONS.get(x.dtype)
    if module is None:
        updates.scale(x, factor)
        return
    with _in_c_order(x) as values:
        module.scale(values, factor)


def global_norm(arrays: Iterable[Array]) -> float:
    """As `updates.global_norm`."""
    total = 0.0
    for array in arrays:
        module = _PRECISIONS.get(array.dtype)
        if module is None:
            total += updates.global_norm([array]) ** 2
        else:
            total += module.sum_of_squares(np.ascontiguousarray(array))
    return math.sqrt(total)


@contextlib.contextmanager
def _in_c_order(array: Array) -> Iterator[Array]:
    """The array to change in place, or a copy in C order whose changes are copied back."""
    if array.flags.c_contiguous and array.flags.aligned:
        yield array
        return
    values = np.array(array, order="C")
    yield values
    array[...] = values


# The recurrence -----------------------------------------------------------------------------------


@dataclass
class NativeSteps:
    """What a native pass forward leaves for the pass backward; see `recurrence.RecurrenceSteps`.

    States lie by position: rows in the order of falling length. Only the engine reads ``saved``.
    """

    output: Array
    final: list[Array]
    named: dict[str, Array]
    states: list[Array]
    saved: Array
    unprojected: Array | None
    order: Array | None  # [B] the row at each position; None for their own order


_cells: weakref.WeakKeyDictionary[Trace, _native.Cell] = weakref.WeakKeyDictionary()


def _cell(trace: Trace) -> _native.Cell:
    if trace not in _cells:
        adjoint = trace.adjoint
        _cells[trace] = _native.Cell(
            forward=_program(trace.program),
            backward=_program(adjoint.program),
            gates=[(-1 if x is None else x, -1 if h is None else h) for x, h in trace.gate_inputs],
            saved=[_number(trace.program, value) for value in adjoint.saved],
            states=trace.states,
            parameters=len(trace.program.inputs) - len(trace.gate_inputs) - trace.states,
        )
    return _cells[trace]


def _constants(program: Program) -> list[float]:
    operands = [o for i in program.instructions for o in i.operands] + list(program.outputs)
    return list(dict.fromkeys(o for o in operands if type(o) is float))


def _number(program: Program, operand: int | float) -> int:
    """The number of an operand among inputs, constants and instructions."""
    constants = _constants(program)
    if type(operand) is float:
        return len(program.inputs) + constants.index(operand)
    number = int(operand)
    return number if number < len(program.inputs) else number + len(constants)


def _program(program: Program) -> tuple[int, list[float], list[int], list[int]]:
    code: list[int] = []
    for instruction in program.instructions:
        operands = [_number(program, operand) for operand in instruction.operands]
        code += [_OPERATIONS.index(instruction.function), operands[0], operands[-1]]
    outputs = [_number(program, output) for output in program.outputs]
    return len(program.inputs), _constants(program), code, outputs


def recurrence_forward(
    trace: Trace,
    x_gates: Array,
    initial: Sequence[Array],
    weight_hh: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    parameters: Sequence[Array],
    lengths: Array | None = None,
    reverse: bool = False,
    record: bool = False,
) -> NativeSteps | recurrence.RecurrenceSteps:
    """As `recurrence.recurrence_forward`."""
    module = _PRECISIONS.get(x_gates.dtype)
    if module is None:
        return recurrence.recurrence_forward(
            trace,
            x_gates,
            initial,
            weight_hh,
            bias_hh,
            weight_hr,
            parameters,
            lengths,
            reverse,
            record,
        )
    T = len(x_gates)
    order = None if lengths is None else np.argsort(-lengths, kind="stable")
    states = []
    for start in initial:
        state = np.empty((T + 1, *start.shape), x_gates.dtype)
        state[0] = start if order is None else start[order]
        states.append(state)
    names = list(trace.named) if record else []
    output, saved, unprojected, recorded = module.recurrence_forward(
        _cell(trace),
        np.ascontiguousarray(x_gates),
        states,
        _contiguous(weight_hh),
        _contiguous(bias_hh),
        _contiguous(weight_hr),
        [np.ascontiguousarray(p) for p in parameters],
        _contiguous(lengths),
        reverse,
        True,
        [_number(trace.program, trace.named[name]) for name in names],
    )
    final = [state[T].copy() if order is None else _unsorted(state[T], order) for state in states]
    named = dict(zip(names, recorded, strict=True))
    return NativeSteps(output, final, named, states, saved, unprojected, order)


def recurrence_backward(
    trace: Trace,
    steps: NativeSteps | recurrence.RecurrenceSteps,
    d_output: Array | None,
    d_final: Sequence[Array | None],
    x_gates: Array,
    weight_hh: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    parameters: Sequence[Array],
    lengths: Array | None = None,
    reverse: bool = False,
) -> RecurrenceGradients:
    """As `recurrence.recurrence_backward`."""
    if isinstance(steps, recurrence.RecurrenceSteps):
        return recurrence.recurrence_backward(
            trace,
            steps,
            d_output,
            d_final,
            x_gates,
            weight_hh,
            bias_hh,
            weight_hr,
            parameters,
            lengths,
            reverse,
        )
    module, dtype, order = _PRECISIONS[x_gates.dtype], x_gates.dtype, steps.order
    d_states = []
    for state, d in zip(steps.states, d_final, strict=True):
        if d is None:
            d_states.append(np.zeros(state.shape[1:], dtype))
        else:
            d_states.append(np.array(d if order is None else d[order], dtype, order="C"))
    d_x_gates, d_h_gates, d_projected, d_parameters = module.recurrence_backward(
        _cell(trace),
        steps.saved,
        _contiguous(d_output),
        d_states,
        len(x_gates),
        _contiguous(weight_hh),
        _contiguous(weight_hr),
        _contiguous(lengths),
        reverse,
    )
    if order is not None:
        d_states = [_unsorted(d, order) for d in d_states]
    return RecurrenceGradients(
        x_gates=d_x_gates,
        weight_hh=None if d_h_gates is None else _outer(d_h_gates, steps.states[0][:-1]),
        bias_hh=None
        if d_h_gates is None or bias_hh is None
        else module.sum_columns(d_h_gates.reshape(-1, d_h_gates.shape[-1])),
        weight_hr=None if d_projected is None else _outer(d_projected, steps.unprojected),
        states=d_states,
        parameters=[module.sum_columns(d) for d in d_parameters],
    )


def _outer(d: Array, x: Array | None) -> Array:
    assert x is not None
    return matmul(d.reshape(-1, d.shape[-1]).T, x.reshape(-1, x.shape[-1]))


def _contiguous(array: Array | None) -> Array | None:
    return None if array is None else np.ascontiguousarray(array)


def _unsorted(array: Array, order: Array) -> Array:
    result = np.empty_like(array)
    result[order] = array
    return result


# Layers whose weights are packed once -------------------------------------------------------------


class NativeLayers:
    """As `recurrence.PackedLayers`."""

    def __init__(self, stack: _native._Stack, on_ids: bool) -> None:
        self._stack = stack
        self.run = stack.run_ids if on_ids else stack.run

    def generate(
        self,
        ids: Array,
        states: list[Array],
        uniforms: Array,
        temperature: float,
        top_k: int,
        top_p: float,
    ) -> NDArray[np.int64]:
        """As `recurrence.PackedLayers.generate`."""
        drawn, count, logits = self._stack.generate(
            ids, states, np.ascontiguousarray(uniforms), temperature, top_k, top_p
        )
        if count < len(drawn):
            kernels.check_logits(logits)  # it says what is wrong with them
        return drawn.view(np.int64)  # as NumPy itself makes them


def pack_layers(
    trace: Trace,
    hidden_size: int,
    layers: Sequence[LayerWeights],
    table: Array | None = None,
    output: tuple[Array, Array | None] | None = None,
) -> NativeLayers | None:
    """As `recurrence.pack_layers`."""
    module = _PRECISIONS.get(layers[0].weight_ih.dtype)
    if module is None:
        return None
    first: Array | None = np.ascontiguousarray(layers[0].weight_ih)
    bias = layers[0].bias_ih
    if table is not None and first is not None and len(first) and len(table) <= first.shape[1]:
        # The product of every row of the table takes no more memory than the weights: look it up.
        table, first, bias = matmul(table, first.T, bias), None, None
    packed = [
        (
            np.ascontiguousarray(layer.weight_ih) if k else first,
            _contiguous(layer.weight_hh),
            _contiguous(layer.bias_ih if k else bias),
            _contiguous(layer.bias_hh),
            _contiguous(layer.weight_hr),
            [np.ascontiguousarray(p) for p in layer.parameters],
        )
        for k, layer in enumerate(layers)
    ]
    above = None if output is None else (np.ascontiguousarray(output[0]), _contiguous(output[1]))
    stack = module.Stack(_cell(trace), hidden_size, packed, _contiguous(table), above)
    return NativeLayers(stack, table is not None)


def draw(
    logits: Array, uniforms: Array, temperature: float, top_k: int, top_p: float
) -> NDArray[np.int64]:
    """As `kernels.draw`."""
    module = _PRECISIONS.get(logits.dtype)
    if module is None or logits.ndim != 2 or logits.shape[1] == 0:
        return kernels.draw(logits, uniforms, temperature, top_k, top_p)
    ids, fit = module.draw(
        np.ascontiguousarray(logits),
        np.ascontiguousarray(uniforms, np.float64),
        float(temperature),
        int(top_k),
        float(top_p),
    )
    if not fit:
        kernels.check_logits(logits)
    return ids.view(np.int64)


# Threads and instruction sets ---------------------------------------------------------------------


def info(measure: bool = False) -> dict[str, Any]:
    """As `engine.info`."""
    found: dict[str, Any] = {
        "engine": "native",
        "instruction_set": _native.instruction_set(),
        "threads": _native.get_num_threads(),
    }
    return {**found, "peak_gflops": _native.peak()} if measure else found


def set_num_threads(count: int) -> None:
    """As `engine.set_num_threads`."""
    _native.set_num_threads(count)


def _available_threads() -> int:
    """The processors that this process may use, by its affinity and its control group's quota."""
    asked = os.environ.get("ANAPHORA_NUM_THREADS", "")
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"ANAPHORA_NUM_THREADS is {asked!r}; it is a number of at least 1")
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as file:
        quota, period = file.read().split()
        count = min(count, max(1, math.ceil(int(quota) / int(period))))
    return count


_native.set_num_threads(_available_threads())
