"""The native engine's Python interface: the same functions of NumPy arrays as on NumPy.

Each function names its NumPy counterpart, which documents the arguments and has an example. The
import fails if the native module is not built. Precisions other than float32 and float64 use NumPy.
"""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import anaphora.engine._native as _native  # if it is missing, the error says so
from anaphora import settings
from anaphora.engine import crf, ctc, kernels, recurrence, updates
from anaphora.engine.recurrence import LayerWeights, RecurrenceGradients
from anaphora.equations import Program, Trace

Array: TypeAlias = NDArray[Any]

_PRECISIONS = {np.dtype(np.float32): _native.float32, np.dtype(np.float64): _native.float64}

# The order of the operations in src/program.h.
_OPERATION_NAMES = """
    add subtract multiply divide negative
    sigmoid tanh relu exp log softplus abs maximum minimum sign
"""
_OPERATIONS = _OPERATION_NAMES.split()


def matmul(a: Array, b: Array, bias: Array | None = None, *, gradient: str = "") -> Array:
    """As `kernels.matmul`; each element is one chain of fused multiply-adds along K.

    With the instruction set "amx", float32 is multiplied in fixed point if K is 96 to 32,768, and
    the gradient of a weight if both its sides are at least 64 (src/fixed.h).
    """
    module = _PRECISIONS.get(a.dtype)
    if module is None or a.dtype != b.dtype or (bias is not None and bias.dtype != a.dtype):
        return kernels.matmul(a, b, bias)
    result: Array = module.matmul(
        _element_strided(a),
        _element_strided(b),
        _contiguous(bias),
        gradient == "weight" if gradient else None,
    )
    return result


def batch_matmul(a: Array, b: Array) -> Array:
    """As `kernels.batch_matmul`; each element is one chain of fused multiply-adds along K, with
    every instruction set, so that zeros at the end of K change no bit.
    """
    module = _common_precision(a, b)
    if module is None:
        return kernels.batch_matmul(a, b)
    result: Array = module.batch_matmul(_element_strided(a), _element_strided(b))
    return result


def softmax_forward(x: Array, mask: Array | None = None, *, logarithm: bool = False) -> Array:
    """As `kernels.softmax_forward`; what the mask leaves out at the end of a row changes no bit of
    the rest, however much it is.
    """
    module = _common_precision(x)
    if module is None:
        return kernels.softmax_forward(x, mask, logarithm=logarithm)
    result: Array = module.softmax_forward(np.ascontiguousarray(x), _contiguous(mask), logarithm)
    return result


def softmax_backward(y: Array, dy: Array, *, logarithm: bool = False) -> Array:
    """As `kernels.softmax_backward`, with sums as in `softmax_forward`."""
    module = _common_precision(y, dy)
    if module is None:
        return kernels.softmax_backward(y, dy, logarithm=logarithm)
    result: Array = module.softmax_backward(
        np.ascontiguousarray(y), np.ascontiguousarray(dy), logarithm
    )
    return result


def sum_columns(x: Array) -> Array:
    """As `kernels.sum_columns`; each column is summed from the first row to the last."""
    module = _PRECISIONS.get(x.dtype)
    if module is None:
        return kernels.sum_columns(x)
    result: Array = module.sum_columns(np.ascontiguousarray(x))
    return result


def _element_strided(a: Array) -> Array:
    """The array, copied unless it is aligned and its strides are multiples of the element size."""
    usable = a.flags.aligned and all(stride % a.itemsize == 0 for stride in a.strides)
    return a if usable else np.array(a, order="C")


def cross_entropy_forward(
    logits: Array, targets: Array, in_place: bool = False
) -> tuple[Array, Array]:
    """As `kernels.cross_entropy_forward`."""
    module = _PRECISIONS.get(logits.dtype)
    if module is None:
        return kernels.cross_entropy_forward(logits, targets, in_place)
    logits = np.ascontiguousarray(logits)
    losses, probabilities = module.cross_entropy_forward(
        logits,
        np.ascontiguousarray(targets, np.int64),
        logits if in_place and logits.flags.aligned else None,
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


def linear_cross_entropy_losses(
    x: Array, weight: Array, bias: Array | None, targets: Array
) -> Array:
    """As `kernels.linear_cross_entropy_losses`; the same bits as from all logits."""
    module = _common_precision(x, weight, bias)
    if module is None:
        return kernels.linear_cross_entropy_losses(x, weight, bias, targets)
    losses: Array = module.linear_cross_entropy(
        np.ascontiguousarray(x),
        np.ascontiguousarray(weight),
        _contiguous(bias),
        np.ascontiguousarray(targets, np.int64),
    )
    return losses


def _common_precision(first: Array, *others: Array | None) -> Any:
    """The native functions for the common precision of all arrays; None if there are none."""
    if all(other is None or other.dtype == first.dtype for other in others):
        return _PRECISIONS.get(first.dtype)
    return None


# Conditional random fields ------------------------------------------------------------------------


def crf_forward(
    emissions: Array, transitions: Array, start: Array, end: Array, lengths: Array
) -> tuple[Array, Array]:
    """As `crf.crf_forward`; each row has the same bits in every batch, whatever its padding."""
    module = _common_precision(emissions, transitions, start, end)
    if module is None:
        return crf.crf_forward(emissions, transitions, start, end, lengths)
    log_partitions, alphas = module.crf_forward(
        *_crf_arrays(emissions, transitions, start, end, lengths)
    )
    return log_partitions, alphas


def crf_backward(
    emissions: Array,
    transitions: Array,
    start: Array,
    end: Array,
    lengths: Array,
    log_partitions: Array,
    alphas: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """As `crf.crf_backward`; transitions are summed from the first step to the last, row by row."""
    module = _common_precision(emissions, transitions, start, end, weights)
    if module is None:
        return crf.crf_backward(
            emissions, transitions, start, end, lengths, log_partitions, alphas, weights
        )
    d_emissions, d_transitions = module.crf_backward(
        *_crf_arrays(emissions, transitions, start, end, lengths),
        np.ascontiguousarray(log_partitions),
        np.ascontiguousarray(alphas),
        np.ascontiguousarray(weights),
    )
    return d_emissions, d_transitions


def crf_decode(
    emissions: Array, transitions: Array, start: Array, end: Array, lengths: Array, padding: int
) -> tuple[NDArray[np.int64], Array]:
    """As `crf.crf_decode`, bit for bit."""
    module = _common_precision(emissions, transitions, start, end)
    if module is None:
        return crf.crf_decode(emissions, transitions, start, end, lengths, padding)
    tags, scores = module.crf_decode(
        *_crf_arrays(emissions, transitions, start, end, lengths), padding
    )
    return tags.view(np.int64), scores  # NumPy's own int64


def _crf_arrays(*arrays: Array) -> list[Array]:
    *numbers, lengths = arrays
    return [*map(np.ascontiguousarray, numbers), np.ascontiguousarray(lengths, np.int64)]


# Connectionist temporal classification ------------------------------------------------------------


def ctc_forward(
    logits: Array, targets: Array, lengths: Array, target_lengths: Array, blank: int
) -> tuple[Array, Array, Array]:
    """As `ctc.ctc_forward`; each row has the same bits in every batch, whatever its padding."""
    module = _common_precision(logits)
    if module is None:
        return ctc.ctc_forward(logits, targets, lengths, target_lengths, blank)
    losses, normalizers, alphas = module.ctc_forward(
        np.ascontiguousarray(logits), *_integers(targets, lengths, target_lengths), blank
    )
    return losses, normalizers, alphas


def ctc_backward(
    logits: Array,
    targets: Array,
    lengths: Array,
    target_lengths: Array,
    blank: int,
    losses: Array,
    normalizers: Array,
    alphas: Array,
    weights: Array,
) -> Array:
    """As `ctc.ctc_backward`."""
    module = _common_precision(logits, weights)
    if module is None:
        return ctc.ctc_backward(
            logits,
            targets,
            lengths,
            target_lengths,
            blank,
            losses,
            normalizers,
            alphas,
            weights,
        )
    result: Array = module.ctc_backward(
        np.ascontiguousarray(logits),
        *_integers(targets, lengths, target_lengths),
        blank,
        *map(np.ascontiguousarray, (losses, normalizers, alphas, weights)),
    )
    return result


def _integers(*arrays: Array) -> list[Array]:
    return [np.ascontiguousarray(a, np.int64) for a in arrays]


# Layers -------------------------------------------------------------------------------------------


def gather_rows(table: Array, ids: Array) -> Array:
    """As `kernels.gather_rows`."""
    module = _PRECISIONS.get(table.dtype)
    if module is None or table.ndim != 2:
        return kernels.gather_rows(table, ids)
    rows: Array = module.gather_rows(
        np.ascontiguousarray(table), np.asarray(ids, np.int64, order="C")
    )
    return rows


def sum_rows(indices: Array, values: Array) -> tuple[Array, Array]:
    """As `kernels.sum_rows`; values are summed in their order."""
    module = _PRECISIONS.get(values.dtype)
    if module is None:
        return kernels.sum_rows(indices, values)
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    rows, sums = module.sum_rows(
        np.ascontiguousarray(indices, np.int64), np.ascontiguousarray(flat)
    )
    return rows.astype(indices.dtype), sums.reshape(len(rows), *values.shape[1:])


def dropout(x: Array, rate: float, key: int, shared_axes: Sequence[int] = ()) -> Array:
    """As `kernels.dropout`, bit for bit."""
    module = _PRECISIONS.get(x.dtype)
    if module is None:
        return kernels.dropout(x, rate, key, shared_axes)
    shape = kernels.mask_shape(x.shape, shared_axes)
    numbers = math.prod(shape), key, kernels.dropout_threshold(rate), 1 / (1 - rate)
    first = next((axis for axis, size in enumerate(shape) if size != 1), x.ndim)
    if x.shape[first:] == shape[first:]:  # shared along the first axes, or along none
        result: Array = module.dropout(np.asarray(x, order="C"), *numbers)
        return result
    return np.asarray(x * module.dropout(np.ones(shape, x.dtype), *numbers))


def layer_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, epsilon: float
) -> tuple[Array, Array, Array]:
    """As `kernels.layer_norm_forward`."""
    module = _common_precision(x, weight, bias)
    if module is None:
        return kernels.layer_norm_forward(x, weight, bias, epsilon)
    y, means, factors = module.layer_norm_forward(
        np.ascontiguousarray(x), _contiguous(weight), _contiguous(bias), epsilon
    )
    return y, means, factors


def layer_norm_backward(
    x: Array, weight: Array | None, means: Array, factors: Array, dy: Array
) -> tuple[Array, Array, Array]:
    """As `kernels.layer_norm_backward`; rows are summed from the first to the last."""
    module = _common_precision(x, weight, means, factors, dy)
    if module is None:
        return kernels.layer_norm_backward(x, weight, means, factors, dy)
    dx, d_weight, d_bias = module.layer_norm_backward(
        np.ascontiguousarray(x),
        _contiguous(weight),
        np.ascontiguousarray(means),
        np.ascontiguousarray(factors),
        np.ascontiguousarray(dy),
    )
    return dx, d_weight, d_bias


# Updates ------------------------------------------------------------------------------------------


def _update_in_place(function: Any, arrays: Sequence[Array | None], *rest: Any) -> None:
    """Call a native function that updates arrays in place; other layouts are copied in and out."""
    usable = [
        a if a is None or (a.flags.c_contiguous and a.flags.aligned) else np.array(a, order="C")
        for a in arrays
    ]
    function(*usable, *rest)
    for array, values in zip(arrays, usable, strict=True):
        if array is not None and array is not values:
            array[...] = values


def _contiguous_rows(rows: Array | None) -> Array | None:
    return None if rows is None else np.ascontiguousarray(rows, np.int64)


def sgd_update(
    parameter: Array,
    gradient: Array,
    velocity: Array | None,
    *,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    rows: Array | None = None,
) -> None:
    """As `updates.sgd_update`."""
    module = _common_precision(parameter, gradient, velocity)
    if module is None:
        updates.sgd_update(
            parameter,
            gradient,
            velocity,
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            rows=rows,
        )
        return
    _update_in_place(
        module.sgd,
        (parameter, velocity),
        np.ascontiguousarray(gradient),
        learning_rate,
        momentum,
        weight_decay,
        nesterov,
        _contiguous_rows(rows),
    )


def adam_update(
    parameter: Array,
    gradient: Array,
    first_moment: Array,
    second_moment: Array,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
    rows: Array | None = None,
) -> None:
    """As `updates.adam_update`."""
    module = _common_precision(parameter, gradient, first_moment, second_moment)
    if module is None:
        updates.adam_update(
            parameter,
            gradient,
            first_moment,
            second_moment,
            step=step,
            learning_rate=learning_rate,
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            decoupled=decoupled,
            rows=rows,
        )
        return
    beta_1, beta_2 = betas
    _update_in_place(
        module.adam,
        (parameter, first_moment, second_moment),
        np.ascontiguousarray(gradient),
        learning_rate / (1 - beta_1**step),
        1 - beta_1,
        1 - beta_2,
        1 / math.sqrt(1 - beta_2**step),
        epsilon,
        0.0 if decoupled else weight_decay,
        1 - learning_rate * weight_decay if decoupled else 1.0,
        _contiguous_rows(rows),
    )


def rmsprop_update(
    parameter: Array,
    gradient: Array,
    square_average: Array,
    gradient_average: Array | None,
    velocity: Array | None,
    *,
    learning_rate: float,
    alpha: float,
    epsilon: float,
    momentum: float,
    weight_decay: float,
    rows: Array | None = None,
) -> None:
    """As `updates.rmsprop_update`."""
    changed = (parameter, square_average, gradient_average, velocity)
    module = _common_precision(gradient, *changed)
    if module is None:
        updates.rmsprop_update(
            parameter,
            gradient,
            square_average,
            gradient_average,
            velocity,
            learning_rate=learning_rate,
            alpha=alpha,
            epsilon=epsilon,
            momentum=momentum,
            weight_decay=weight_decay,
            rows=rows,
        )
        return
    _update_in_place(
        module.rmsprop,
        changed,
        np.ascontiguousarray(gradient),
        learning_rate,
        1 - alpha,
        epsilon,
        momentum,
        weight_decay,
        _contiguous_rows(rows),
    )


def adagrad_update(
    parameter: Array,
    gradient: Array,
    square_sum: Array,
    *,
    learning_rate: float,
    epsilon: float,
    weight_decay: float,
    rows: Array | None = None,
) -> None:
    """As `updates.adagrad_update`."""
    module = _common_precision(parameter, gradient, square_sum)
    if module is None:
        updates.adagrad_update(
            parameter,
            gradient,
            square_sum,
            learning_rate=learning_rate,
            epsilon=epsilon,
            weight_decay=weight_decay,
            rows=rows,
        )
        return
    _update_in_place(
        module.adagrad,
        (parameter, square_sum),
        np.ascontiguousarray(gradient),
        learning_rate,
        epsilon,
        weight_decay,
        _contiguous_rows(rows),
    )


def average_update(average: Array, parameter: Array, count: float) -> None:
    """As `updates.average_update`."""
    module = _common_precision(average, parameter)
    if module is None or count == 1:
        updates.average_update(average, parameter, count)
        return
    _update_in_place(module.average, (average,), np.ascontiguousarray(parameter), 1 / count)


def scale(x: Array, factor: float) -> None:
    """As `updates.scale`."""
    module = _PRECISIONS.get(x.dtype)
    if module is None:
        updates.scale(x, factor)
        return
    _update_in_place(module.scale, (x,), factor)


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


# The recurrence -----------------------------------------------------------------------------------


@dataclass
class NativeSteps:
    """What a native forward pass saves for the backward pass; see `recurrence.RecurrenceSteps`.

    States are stored by position: rows sorted by descending length. ``saved`` is opaque.
    """

    output: Array
    final: list[Array]
    named: dict[str, Array]
    states: list[Array]
    saved: Array | None
    unprojected: Array | None
    order: Array | None  # [B] the row at each position; None if unsorted


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
    x: Array,
    initial: Sequence[Array],
    weight_hh: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    parameters: Sequence[Array],
    lengths: Array | None = None,
    reverse: bool = False,
    record: bool = False,
    save: bool = True,
    weight_ih: Array | None = None,
    bias_ih: Array | None = None,
) -> NativeSteps | recurrence.RecurrenceSteps:
    """As `recurrence.recurrence_forward`."""
    module = _PRECISIONS.get(x.dtype)
    if module is None:
        return recurrence.recurrence_forward(
            trace,
            x,
            initial,
            weight_hh,
            bias_hh,
            weight_hr,
            parameters,
            lengths,
            reverse,
            record,
            save,
            weight_ih,
            bias_ih,
        )
    order = None if lengths is None else np.argsort(-lengths, kind="stable")
    names = list(trace.named) if record else []
    output, states, saved, unprojected, recorded = module.recurrence_forward(
        _cell(trace),
        np.ascontiguousarray(x),
        _contiguous(weight_ih),
        _contiguous(bias_ih),
        [np.ascontiguousarray(state if order is None else state[order]) for state in initial],
        _contiguous(weight_hh),
        _contiguous(bias_hh),
        _contiguous(weight_hr),
        [np.ascontiguousarray(p) for p in parameters],
        _contiguous(lengths),
        reverse,
        save,
        [_number(trace.program, trace.named[name]) for name in names],
    )
    if save:
        final = [s[-1].copy() if order is None else _unsorted(s[-1], order) for s in states]
    else:
        final = states if order is None else [_unsorted(s, order) for s in states]
    named = dict(zip(names, recorded, strict=True))
    return NativeSteps(output, final, named, states, saved, unprojected, order)


def recurrence_backward(
    trace: Trace,
    steps: NativeSteps | recurrence.RecurrenceSteps,
    d_output: Array | None,
    d_final: Sequence[Array | None],
    x: Array,
    weight_hh: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    parameters: Sequence[Array],
    lengths: Array | None = None,
    reverse: bool = False,
    weight_ih: Array | None = None,
    bias_ih: Array | None = None,
    wants_d_x: bool = True,
) -> RecurrenceGradients:
    """As `recurrence.recurrence_backward`."""
    if isinstance(steps, recurrence.RecurrenceSteps):
        return recurrence.recurrence_backward(
            trace,
            steps,
            d_output,
            d_final,
            x,
            weight_hh,
            bias_hh,
            weight_hr,
            parameters,
            lengths,
            reverse,
            weight_ih,
            bias_ih,
            wants_d_x,
        )
    assert steps.saved is not None
    module, dtype, order = _PRECISIONS[x.dtype], x.dtype, steps.order
    d_states = []
    for state, d in zip(steps.final, d_final, strict=True):
        if d is None:
            d_states.append(np.zeros(state.shape, dtype))
        else:
            d_states.append(np.array(d if order is None else d[order], dtype, order="C"))
    *gradients, d_parameters = module.recurrence_backward(
        _cell(trace),
        steps.saved,
        steps.states[0],
        steps.unprojected,
        _contiguous(d_output),
        d_states,
        np.ascontiguousarray(x),
        wants_d_x,
        _contiguous(weight_ih),
        bias_ih is not None,
        _contiguous(weight_hh),
        bias_hh is not None,
        _contiguous(weight_hr),
        _contiguous(lengths),
        reverse,
    )
    if order is not None:
        d_states = [_unsorted(d, order) for d in d_states]
    d_x, d_weight_ih, d_bias_ih, d_weight_hh, d_bias_hh, d_weight_hr = gradients
    return RecurrenceGradients(
        x=d_x,
        weight_ih=d_weight_ih,
        bias_ih=d_bias_ih,
        weight_hh=d_weight_hh,
        bias_hh=d_bias_hh,
        weight_hr=d_weight_hr,
        states=d_states,
        parameters=[module.sum_columns(d) for d in d_parameters],
    )


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
        sampled, count, logits = self._stack.generate(
            ids, states, np.ascontiguousarray(uniforms), temperature, top_k, top_p
        )
        if count < len(sampled):
            kernels.check_logits(logits)  # raises with the reason
        return sampled.view(np.int64)  # NumPy's own int64


def pack_layers(
    trace: Trace,
    hidden_size: int,
    layers: Sequence[LayerWeights],
    table: Array | None = None,
    output: tuple[Array, Array | None] | None = None,
    norms: Sequence[tuple[Array, Array]] = (),
    epsilon: float = 0.0,
) -> NativeLayers | None:
    """As `recurrence.pack_layers`."""
    module = _PRECISIONS.get(layers[0].weight_ih.dtype)
    if module is None:
        return None
    first: Array | None = np.ascontiguousarray(layers[0].weight_ih)
    bias = layers[0].bias_ih
    if table is not None and first is not None and len(first) and len(table) <= first.shape[1]:
        # The table of products takes no more memory than the weights: look products up instead.
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
    output_layer = (
        None if output is None else (np.ascontiguousarray(output[0]), _contiguous(output[1]))
    )
    layer_norms = [
        (np.ascontiguousarray(weight), np.ascontiguousarray(bias)) for weight, bias in norms
    ]
    stack = module.Stack(
        _cell(trace), hidden_size, packed, _contiguous(table), output_layer, layer_norms, epsilon
    )
    return NativeLayers(stack, table is not None)


def sample(
    logits: Array, uniforms: Array, temperature: float, top_k: int, top_p: float
) -> NDArray[np.int64]:
    """As `kernels.sample`."""
    module = _PRECISIONS.get(logits.dtype)
    if module is None or logits.ndim != 2 or logits.shape[1] == 0:
        return kernels.sample(logits, uniforms, temperature, top_k, top_p)
    ids, valid = module.sample(
        np.ascontiguousarray(logits),
        np.ascontiguousarray(uniforms, np.float64),
        float(temperature),
        int(top_k),
        float(top_p),
    )
    if not valid:
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
    """The number of processors of this process, by its affinity and its cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as file:
        quota, period = file.read().split()
        count = min(count, max(1, math.ceil(int(quota) / int(period))))
    return count


_native.set_num_threads(settings.num_threads() or _available_threads())
if _requested := settings.instruction_set():
    try:
        _native.use_instruction_set(_requested)
    except ValueError as error:
        raise settings.unavailable_instruction_set(_requested) from error
