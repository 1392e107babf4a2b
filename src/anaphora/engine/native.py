"""The native engine's Python interface: the same functions of NumPy arrays as on NumPy.

Each function names its NumPy counterpart, which documents the arguments and has an example. The
import fails if the native module is not built. Precisions other than float32 and float64 use NumPy.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

import anaphora.engine._native as _native  # if it is missing, the error says so
from anaphora import settings
from anaphora.engine import crf, ctc, graph, kernels, recurrence, updates
from anaphora.engine.precision import current_matmul_precision, rounded
from anaphora.engine.recurrence import LayerWeights, Pair, RecurrenceGradients
from anaphora.equations import Program, Trace

Array: TypeAlias = NDArray[Any]

_PRECISIONS = {np.dtype(np.float32): _native.float32, np.dtype(np.float64): _native.float64}


F = TypeVar("F", bound=Callable[..., Any])


def _native_for(twin: F, arrays: str) -> Callable[[Callable[..., Any]], F]:
    """A decorator: the function gets the native functions of these arrays' common precision first.

    If there is none, the twin on NumPy is called instead. The twin's signature is that of the
    result, and its documentation refers to the twin's.
    """
    signature = inspect.signature(twin)
    names = list(signature.parameters)
    places = [(name, names.index(name)) for name in arrays.split()]

    def decorate(native: Callable[..., Any]) -> F:
        @functools.wraps(native)
        def function(*arguments: Any, **options: Any) -> Any:
            dtype, count = None, len(arguments)
            for name, place in places:
                array = arguments[place] if place < count else options.get(name)
                if array is not None:
                    if dtype is not None and array.dtype != dtype:
                        return twin(*arguments, **options)
                    dtype = array.dtype
            module = _PRECISIONS.get(dtype)
            if module is None:
                return twin(*arguments, **options)
            return native(module, *arguments, **options)

        of = f"{twin.__module__.rpartition('.')[2]}.{twin.__name__}"
        function.__doc__ = f"As `{of}`. {native.__doc__ or ''}".strip()
        vars(function).update(__signature__=signature)
        return cast("F", function)

    return decorate


def _contiguous(array: Any, dtype: Any = None) -> Any:
    return None if array is None else np.ascontiguousarray(array, dtype)


def _integers(array: Any) -> Any:
    return _contiguous(array, np.int64)


def _element_strided(a: Array) -> Array:
    """The array, copied unless it is aligned and its strides are multiples of the element size."""
    usable = a.flags.aligned and all(stride % a.itemsize == 0 for stride in a.strides)
    return a if usable else np.array(a, order="C")


def _update_in_place(function: Any, arrays: Sequence[Array | None], *rest: Any) -> None:
    """Call a native function that updates arrays in place; other layouts are copied in and out."""
    usable = [
        a if a is None or (a.flags.c_contiguous and a.flags.aligned) else np.array(a, order="C")
        for a in arrays
    ]
    copies = [(a, b) for a, b in zip(arrays, usable, strict=True) if a is not None and a is not b]
    function(*usable, *rest)
    if copies:  # without any, nothing after the update asks for memory
        for array, values in copies:
            array[...] = values


def _same_as(twin: F) -> F:
    """The native function of the twin's name, which takes the same arguments in the same order.

    If it returns nothing, it updates its first argument in place.
    """
    signature = inspect.signature(twin)
    arrays = [p.name for p in signature.parameters.values() if "Array" in str(p.annotation)]
    in_place = signature.return_annotation in (None, "None")

    def native(module: Any, *arguments: Any, **options: Any) -> Any:
        given = signature.bind(*arguments, **options).args
        first, *rest = [np.asarray(a, order="C") if isinstance(a, np.ndarray) else a for a in given]
        function = getattr(module, twin.__name__)
        return _update_in_place(function, given[:1], *rest) if in_place else function(first, *rest)

    return _native_for(twin, " ".join(arrays))(native)


# Products, losses, sums ---------------------------------------------------------------------------


@_native_for(kernels.matmul, "a b bias")
def matmul(
    module: Any, a: Array, b: Array, bias: Array | None = None, *, gradient: str = ""
) -> Any:
    """Each element is one chain of fused multiply-adds along K (src/formats/chain.h); with the
    instruction set "amx" some products of float32 are in fixed point instead (src/format.h). In
    bfloat16 sums are those of src/formats/bfloat16.h.
    """
    return module.matmul(
        _element_strided(a),
        _element_strided(b),
        _contiguous(bias),
        gradient,
        current_matmul_precision(),
    )


@_native_for(kernels.batch_matmul, "a b")
def batch_matmul(module: Any, a: Array, b: Array) -> Any:
    """Each element is one chain of fused multiply-adds along K, with every instruction set, so that
    zeros at the end of K change no bit.
    """
    return module.batch_matmul(_element_strided(rounded(a)), _element_strided(rounded(b)))


@_native_for(kernels.softmax_forward, "x")
def softmax_forward(
    module: Any, x: Array, mask: Array | None = None, *, logarithm: bool = False
) -> Any:
    """Elements at the end of a row that the mask excludes change no bit of the others, however many
    they are.
    """
    return module.softmax_forward(np.ascontiguousarray(x), _contiguous(mask), logarithm)


@_native_for(kernels.softmax_backward, "y dy")
def softmax_backward(module: Any, y: Array, dy: Array, *, logarithm: bool = False) -> Any:
    """Sums are those of `softmax_forward`."""
    return module.softmax_backward(np.ascontiguousarray(y), np.ascontiguousarray(dy), logarithm)


@_native_for(kernels.sum_columns, "x")
def sum_columns(module: Any, x: Array) -> Any:
    """Each column is summed from the first row to the last."""
    return module.sum_columns(np.ascontiguousarray(x))


@_native_for(kernels.erf, "x")
def erf(module: Any, x: Array) -> Any:
    """Each element by the C library."""
    return module.erf(np.ascontiguousarray(x).reshape(-1)).reshape(x.shape)


@_native_for(kernels.cross_entropy_forward, "logits")
def cross_entropy_forward(
    module: Any, logits: Array, targets: Array, in_place: bool = False
) -> Any:
    logits = np.ascontiguousarray(logits)
    out = logits if in_place and logits.flags.aligned else None
    losses, probabilities = module.cross_entropy_forward(logits, _integers(targets), out)
    return losses, probabilities


@_native_for(kernels.cross_entropy_backward, "probabilities")
def cross_entropy_backward(
    module: Any, probabilities: Array, targets: Array, d_losses: Array
) -> Any:
    return module.cross_entropy_backward(
        np.ascontiguousarray(probabilities),
        _integers(targets),
        _contiguous(d_losses, probabilities.dtype),
    )


@_native_for(kernels.linear_cross_entropy_losses, "x weight bias")
def linear_cross_entropy_losses(
    module: Any, x: Array, weight: Array, bias: Array | None, targets: Array
) -> Any:
    """The same bits as from all logits."""
    arrays = map(_contiguous, (x, weight, bias))
    return module.linear_cross_entropy(*arrays, _integers(targets), current_matmul_precision())


# Conditional random fields ------------------------------------------------------------------------


@_native_for(crf.crf_forward, "emissions transitions start end")
def crf_forward(module: Any, *arrays: Array) -> Any:
    """Each row has the same bits in every batch, whatever its padding."""
    *numbers, lengths = arrays
    return module.crf_forward(*map(_contiguous, numbers), _integers(lengths))


@_native_for(crf.crf_backward, "emissions transitions start end weights")
def crf_backward(module: Any, *arrays: Array) -> Any:
    """Transitions are summed from the first step to the last, row by row."""
    *numbers, lengths, log_partitions, alphas, weights = arrays
    rest = map(_contiguous, (log_partitions, alphas, weights))
    return module.crf_backward(*map(_contiguous, numbers), _integers(lengths), *rest)


@_native_for(crf.crf_decode, "emissions transitions start end")
def crf_decode(module: Any, *arguments: Any) -> Any:
    """Bit for bit as on NumPy."""
    *numbers, lengths, padding = arguments
    tags, scores = module.crf_decode(*map(_contiguous, numbers), _integers(lengths), padding)
    return tags.view(np.int64), scores  # as NumPy itself makes them


# Connectionist temporal classification ------------------------------------------------------------


@_native_for(ctc.ctc_forward, "logits")
def ctc_forward(module: Any, logits: Array, *arguments: Any) -> Any:
    """Each row has the same bits in every batch, whatever its padding."""
    *integers, blank = arguments
    return module.ctc_forward(np.ascontiguousarray(logits), *map(_integers, integers), blank)


@_native_for(ctc.ctc_backward, "logits weights")
def ctc_backward(module: Any, logits: Array, *arguments: Any) -> Any:
    integers, (blank, *numbers) = arguments[:3], arguments[3:]
    arrays = map(np.ascontiguousarray, numbers)
    return module.ctc_backward(
        np.ascontiguousarray(logits), *map(_integers, integers), blank, *arrays
    )


# Along an axis ------------------------------------------------------------------------------------


@_native_for(kernels.cumsum, "x")
def cumsum(module: Any, x: Array, axis: int, *, reverse: bool = False) -> Any:
    """In order, as on NumPy."""
    return module.cumsum(np.ascontiguousarray(x), axis, reverse)


@_native_for(kernels.take_along_axis, "x")
def take_along_axis(module: Any, x: Array, indices: Array, axis: int) -> Any:
    return module.take_along_axis(np.ascontiguousarray(x), _integers(indices), axis)


@_native_for(kernels.add_along_axis, "dy")
def add_along_axis(module: Any, dy: Array, indices: Array, axis: int, count: int) -> Any:
    return module.add_along_axis(np.ascontiguousarray(dy), _integers(indices), axis, count)


@_native_for(kernels.add_rows, "dy")
def add_rows(module: Any, dy: Array, rows: Array, shape: tuple[int, ...], axes: int) -> Any:
    return module.add_rows(np.ascontiguousarray(dy), _integers(rows), shape, axes)


@_native_for(kernels.order_rows, "x")
def order_rows(module: Any, x: Array, count: int, *, descending: bool = False) -> Any:
    order = module.order_rows(np.ascontiguousarray(x), count, descending)
    return order.view(np.int64)  # as NumPy itself makes them


# Layers -------------------------------------------------------------------------------------------


@_native_for(kernels.gather_rows, "table")
def gather_rows(module: Any, table: Array, ids: Array) -> Any:
    if table.ndim != 2:
        return kernels.gather_rows(table, ids)
    ids = np.asarray(ids, np.int64, order="C")
    return module.gather_rows(np.ascontiguousarray(table), ids, current_matmul_precision())


@_native_for(kernels.sum_rows, "values")
def sum_rows(module: Any, indices: Array, values: Array) -> Any:
    """Values are summed in their order."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    rows, sums = module.sum_rows(_integers(indices), np.ascontiguousarray(flat))
    return rows.astype(indices.dtype), sums.reshape(len(rows), *values.shape[1:])


@_native_for(kernels.dropout, "x")
def dropout(module: Any, x: Array, rate: float, key: int, shared_axes: Sequence[int] = ()) -> Any:
    """Bit for bit as on NumPy."""
    shape = kernels.mask_shape(x.shape, shared_axes)
    numbers = math.prod(shape), key, kernels.dropout_threshold(rate), 1 / (1 - rate)
    first = next((axis for axis, size in enumerate(shape) if size != 1), x.ndim)
    if x.shape[first:] == shape[first:]:  # shared along the first axes, or along none
        return module.dropout(np.asarray(x, order="C"), *numbers)
    mask = module.dropout(np.ones(shape, x.dtype), *numbers)
    # Of the whole shape, since NumPy ends the process if it has no memory to broadcast.
    return np.multiply(x, np.array(np.broadcast_to(mask, x.shape), order="C"), order="C")


@_native_for(kernels.layer_norm_forward, "x weight bias")
def layer_norm_forward(
    module: Any, x: Array, weight: Array | None, bias: Array | None, epsilon: float
) -> Any:
    return module.layer_norm_forward(*map(_contiguous, (x, weight, bias)), epsilon)


@_native_for(kernels.layer_norm_backward, "x weight means factors dy")
def layer_norm_backward(module: Any, *arrays: Array | None) -> Any:
    """Rows are summed from the first to the last."""
    return module.layer_norm_backward(*map(_contiguous, arrays))


@_native_for(kernels.batch_norm_forward, "x weight bias")
def batch_norm_forward(
    module: Any,
    x: Array,
    mask: Array | None,
    weight: Array | None,
    bias: Array | None,
    epsilon: float,
) -> Any:
    return module.batch_norm_forward(*map(_contiguous, (x, mask, weight, bias)), epsilon)


@_native_for(kernels.batch_norm_backward, "x weight means factors dy")
def batch_norm_backward(module: Any, *arrays: Array | None) -> Any:
    """Rows are summed in blocks, from the first to the last."""
    return module.batch_norm_backward(*map(_contiguous, arrays))


@_native_for(kernels.sample, "logits")
def sample(
    module: Any, logits: Array, uniforms: Array, temperature: float, top_k: int, top_p: float
) -> Any:
    if logits.ndim != 2 or logits.shape[1] == 0:
        return kernels.sample(logits, uniforms, temperature, top_k, top_p)
    options = float(temperature), int(top_k), float(top_p)
    arrays = np.ascontiguousarray(logits), _contiguous(uniforms, np.float64)
    ids, valid = module.sample(*arrays, *options)
    if not valid:
        kernels.check_logits(logits)
    return ids.view(np.int64)


# Updates ------------------------------------------------------------------------------------------


@_native_for(updates.sgd_update, "parameter gradient velocity")
def sgd_update(
    module: Any,
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
    _update_in_place(
        module.sgd,
        (parameter, velocity),
        np.ascontiguousarray(gradient),
        learning_rate,
        momentum,
        weight_decay,
        nesterov,
        _integers(rows),
    )


@_native_for(updates.adam_update, "parameter gradient first_moment second_moment")
def adam_update(
    module: Any,
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
        _integers(rows),
    )


@_native_for(updates.rmsprop_update, "parameter gradient square_average gradient_average velocity")
def rmsprop_update(
    module: Any,
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
    _update_in_place(
        module.rmsprop,
        (parameter, square_average, gradient_average, velocity),
        np.ascontiguousarray(gradient),
        learning_rate,
        1 - alpha,
        epsilon,
        momentum,
        weight_decay,
        _integers(rows),
    )


@_native_for(updates.adagrad_update, "parameter gradient square_sum")
def adagrad_update(
    module: Any,
    parameter: Array,
    gradient: Array,
    square_sum: Array,
    *,
    learning_rate: float,
    epsilon: float,
    weight_decay: float,
    rows: Array | None = None,
) -> None:
    arrays = (parameter, square_sum)
    numbers = (learning_rate, epsilon, weight_decay, _integers(rows))
    _update_in_place(module.adagrad, arrays, np.ascontiguousarray(gradient), *numbers)


@_native_for(updates.average_update, "average parameter")
def average_update(module: Any, average: Array, parameter: Array, count: float) -> None:
    if count == 1:
        updates.average_update(average, parameter, count)
        return
    _update_in_place(module.average, (average,), np.ascontiguousarray(parameter), 1 / count)


def global_norm(arrays: Iterable[Array]) -> float:
    """As `updates.global_norm`."""
    return math.sqrt(sum(map(_sum_of_squares, arrays)))


def _norm_squared(x: Array) -> float:
    return updates.global_norm([x]) ** 2


@_native_for(_norm_squared, "x")
def _sum_of_squares(module: Any, x: Array) -> Any:
    return module.sum_of_squares(np.ascontiguousarray(x))


# Elementwise functions that are natively as they are on NumPy.
for _name in updates.__all__:
    if _name not in globals():
        globals()[_name] = _same_as(getattr(updates, _name))


# The recurrence -----------------------------------------------------------------------------------


@dataclass
class NativeSteps:
    """What a native forward pass saves for the backward pass; see `recurrence.RecurrenceSteps`.

    States are stored by position: rows sorted by descending length. ``saved`` is opaque.
    """

    output: Array
    final: list[Array]
    named: dict[str, Array]
    state: Array  # the first one: [T+1, B, P], if anything is saved
    saved: Array | None
    unprojected: Array | None
    order: Array | None  # [B] the row at each position; None if unsorted
    precision: str  # of the products


_Code: TypeAlias = list[tuple[str, int, int]]  # operation and the numbers of its operands
NumberedProgram: TypeAlias = tuple[int, list[float], _Code, list[int]]

_cells: weakref.WeakKeyDictionary[Trace, _native.Cell] = weakref.WeakKeyDictionary()


def _cell(trace: Trace) -> _native.Cell:
    if trace not in _cells:
        _cells[trace] = _native.make_cell(**cell_parts(trace))
    return _cells[trace]


def is_compiled(trace: Trace) -> bool:
    """Whether the engine has compiled a cell's step; else it interprets its program."""
    return _native.is_compiled(_cell(trace))


class CellParts(TypedDict):
    """A cell as the engine takes it: values are numbers of inputs, constants and instructions."""

    forward: NumberedProgram
    backward: NumberedProgram
    gates: list[tuple[int, int]]
    saved: list[int]
    states: int
    parameters: int


def cell_parts(trace: Trace) -> CellParts:
    """A traced cell as the engine takes it."""
    adjoint = trace.adjoint
    return {
        "forward": _program(trace.program),
        "backward": _program(adjoint.program),
        "gates": [(-1 if x is None else x, -1 if h is None else h) for x, h in trace.gate_inputs],
        "saved": [_number(trace.program, value) for value in adjoint.saved],
        "states": trace.states,
        "parameters": len(trace.program.inputs) - len(trace.gate_inputs) - trace.states,
    }


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


def _program(program: Program) -> NumberedProgram:
    code = []
    for instruction in program.instructions:
        operands = [_number(program, operand) for operand in instruction.operands]
        code.append((instruction.function, operands[0], operands[-1]))
    outputs = [_number(program, output) for output in program.outputs]
    return len(program.inputs), _constants(program), code, outputs


def recurrence_forward(
    trace: Trace,
    x: Array,
    initial: Sequence[Array],
    weights: LayerWeights[Array],
    lengths: Array | None = None,
    reverse: bool = False,
    record: bool = False,
    save: bool = True,
) -> NativeSteps | recurrence.RecurrenceSteps:
    """As `recurrence.recurrence_forward`."""
    module = _PRECISIONS.get(x.dtype)
    if module is None:
        return recurrence.recurrence_forward(
            trace, x, initial, weights, lengths, reverse, record, save
        )
    order = _order(lengths)
    found = module.recurrence_forward(
        _cell(trace),
        *_forward_arrays(module, x, initial, weights, order),
        _contiguous(lengths),
        reverse,
        save,
        _named(trace, record),
        current_matmul_precision(),
    )
    return _steps(module, trace, found, order, record, save)


def bidirectional_forward(
    trace: Trace,
    x: Pair[Array],
    initial: Pair[Sequence[Array]],
    weights: Pair[LayerWeights[Array]],
    lengths: Array | None = None,
    record: bool = False,
    save: bool = True,
) -> Pair[NativeSteps] | Pair[recurrence.RecurrenceSteps]:
    """As `recurrence.bidirectional_forward`."""
    module = _PRECISIONS.get(x[0].dtype)
    if module is None:
        return recurrence.bidirectional_forward(trace, x, initial, weights, lengths, record, save)
    order = _order(lengths)
    directions = zip(x, initial, weights, strict=True)
    arrays = [_forward_arrays(module, *one, order) for one in directions]
    first, second = module.bidirectional_forward(
        _cell(trace),
        [one[0] for one in arrays],
        [one[1] for one in arrays],
        [one[2] for one in arrays],
        _contiguous(lengths),
        save,
        _named(trace, record),
        current_matmul_precision(),
    )
    return (
        _steps(module, trace, first, order, record, save),
        _steps(module, trace, second, order, record, save),
    )


def _order(lengths: Array | None) -> Array | None:
    """The rows by descending length."""
    return None if lengths is None else np.argsort(-lengths, kind="stable")


def _named(trace: Trace, record: bool) -> list[int]:
    """The numbers of the values to record."""
    return [_number(trace.program, value) for value in trace.named.values()] if record else []


def _forward_arrays(
    module: _native._Precision,
    x: Array,
    initial: Sequence[Array],
    weights: LayerWeights[Array],
    order: Array | None,
) -> tuple[Array, list[Array], LayerWeights[Array]]:
    """The arrays of a forward pass in one direction, as native functions take them."""
    return (
        np.ascontiguousarray(x),
        [_sorted(module, np.ascontiguousarray(state), order) for state in initial],
        weights.map(np.ascontiguousarray),
    )


def _steps(
    module: _native._Precision,
    trace: Trace,
    found: tuple[Any, ...],
    order: Array | None,
    record: bool,
    save: bool,
) -> NativeSteps:
    """What a native forward pass in one direction returned."""
    output, (first, *others), saved, unprojected, recorded = found
    last = first[-1] if save else first
    if save and order is None:
        last = last.copy()  # which does not keep the other steps
    final = [_unsorted(module, state, order) for state in (last, *others)]
    if output is None:
        output = first[1:]
    named = dict(zip(trace.named, recorded, strict=True)) if record else {}
    precision = current_matmul_precision()
    return NativeSteps(output, final, named, first, saved, unprojected, order, precision)


def recurrence_backward(
    trace: Trace,
    steps: NativeSteps | recurrence.RecurrenceSteps,
    d_output: Array | None,
    d_final: Sequence[Array | None],
    x: Array,
    weights: LayerWeights[Array],
    lengths: Array | None = None,
    reverse: bool = False,
    wants_d_x: bool = True,
) -> RecurrenceGradients:
    """As `recurrence.recurrence_backward`."""
    if isinstance(steps, recurrence.RecurrenceSteps):
        return recurrence.recurrence_backward(
            trace, steps, d_output, d_final, x, weights, lengths, reverse, wants_d_x
        )
    module = _PRECISIONS[x.dtype]
    arrays = _backward_arrays(module, steps, x, weights, d_output, d_final)
    options = _contiguous(lengths), reverse, wants_d_x, steps.precision
    found = cast(Any, module).recurrence_backward(_cell(trace), *arrays, *options)
    return _gradients(module, found, arrays[-1], steps.order)


def bidirectional_backward(
    trace: Trace,
    steps: Pair[NativeSteps] | Pair[recurrence.RecurrenceSteps],
    d_output: Pair[Array | None],
    d_final: Pair[Sequence[Array | None]],
    x: Pair[Array],
    weights: Pair[LayerWeights[Array]],
    lengths: Array | None = None,
    wants_d_x: bool = True,
) -> Pair[RecurrenceGradients]:
    """As `recurrence.bidirectional_backward`."""
    if isinstance(steps[0], recurrence.RecurrenceSteps):
        return recurrence.bidirectional_backward(
            trace, steps, d_output, d_final, x, weights, lengths, wants_d_x
        )
    module, order = _PRECISIONS[x[0].dtype], steps[0].order
    directions = zip(steps, x, weights, d_output, d_final, strict=True)
    arrays = list(zip(*(_backward_arrays(module, *one) for one in directions), strict=True))
    options = _contiguous(lengths), wants_d_x, steps[0].precision
    found = cast(Any, module).bidirectional_backward(_cell(trace), *arrays, *options)
    d_states = arrays[-1]
    return (
        _gradients(module, found[0], d_states[0], order),
        _gradients(module, found[1], d_states[1], order),
    )


def _backward_arrays(
    module: _native._Precision,
    steps: NativeSteps,
    x: Array,
    weights: LayerWeights[Array],
    d_output: Array | None,
    d_final: Sequence[Array | None],
) -> tuple[Any, ...]:
    """The arrays of a backward pass in one direction, as native functions take them; the last ones,
    of the states, are updated in place.
    """
    d_states = []
    for state, d in zip(steps.final, d_final, strict=True):
        if d is None:
            d_states.append(np.zeros(state.shape, x.dtype))
        else:
            d_states.append(_sorted(module, np.array(d, x.dtype, order="C"), steps.order))
    return (
        steps.saved,
        steps.state,
        steps.unprojected,
        np.ascontiguousarray(x),
        weights.map(np.ascontiguousarray),
        _contiguous(d_output),
        d_states,
    )


def _gradients(
    module: _native._Precision,
    found: tuple[Any, ...],
    d_states: Sequence[Array],
    order: Array | None,
) -> RecurrenceGradients:
    """What a native backward pass in one direction returned, and those of the states."""
    d_x, *d_weights, d_parameters = found
    parameters = [module.sum_columns(d) for d in d_parameters]
    return RecurrenceGradients(
        d_x,
        LayerWeights.from_flat([*d_weights, *parameters]),
        [_unsorted(module, d, order) for d in d_states],
    )


def _sorted(module: _native._Precision, rows: Array, order: Array | None) -> Array:
    return rows if order is None else module.gather_rows(rows, order)


def _unsorted(module: _native._Precision, rows: Array, order: Array | None) -> Array:
    return rows if order is None else module.gather_rows(rows, np.argsort(order))


# Layers whose weights are packed once -------------------------------------------------------------


class NativeLayers:
    """As `recurrence.PackedLayers`."""

    def __init__(self, module: _native._Precision, stack: _native.Stack, on_ids: bool) -> None:
        self._module, self._stack = module, stack
        self.run = functools.partial(module.run_stack_on_ids if on_ids else module.run_stack, stack)

    @property
    def bytes(self) -> int:
        """As `recurrence.PackedLayers.bytes`."""
        return self._module.stack_bytes(self._stack)

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
        sampled, count, logits = self._module.generate(
            self._stack, ids, states, np.ascontiguousarray(uniforms), temperature, top_k, top_p
        )
        if count < len(sampled):
            kernels.check_logits(logits)  # raises with the reason
        return sampled.view(np.int64)  # NumPy's own int64


def pack_layers(
    trace: Trace,
    hidden_size: int,
    layers: Sequence[LayerWeights[Array]],
    table: Array | None = None,
    output: tuple[Array, Array | None] | None = None,
    norms: Sequence[tuple[Array, Array]] = (),
    epsilon: float = 0.0,
) -> NativeLayers | None:
    """As `recurrence.pack_layers`."""
    module = None if layers[0].weight_ih is None else _PRECISIONS.get(layers[0].weight_ih.dtype)
    if module is None:
        return None
    packed = [layer.map(np.ascontiguousarray) for layer in layers]
    output_layer = (
        None if output is None else (np.ascontiguousarray(output[0]), _contiguous(output[1]))
    )
    layer_norms = [
        (np.ascontiguousarray(weight), np.ascontiguousarray(bias)) for weight, bias in norms
    ]
    stack = module.pack_stack(
        _cell(trace),
        hidden_size,
        packed,
        _contiguous(table),
        output_layer,
        layer_norms,
        epsilon,
        current_matmul_precision(),
    )
    return NativeLayers(module, stack, table is not None)


def pack_graph(
    memory: int,
    constants: Array,
    given: Sequence[graph.GraphArray],
    results: Sequence[graph.GraphArray],
    steps: Sequence[graph.GraphStep],
) -> NativeGraph | None:
    """As `graph.pack_graph`."""
    module = _PRECISIONS.get(constants.dtype)
    if module is None:
        return None
    plain: list[tuple[Any, ...]] = []
    for step in steps:
        if isinstance(step, graph.Elementwise):
            plain.append(step)
        elif isinstance(step, graph.Layers):
            packed = cast("NativeLayers", step.packed)
            plain.append(("layers", *step[:4], packed._stack, step.states))
        else:
            plain.append((type(step).__name__.lower(), *step))
    return NativeGraph(module, module.make_graph(memory, constants, given, results, plain), plain)


class NativeGraph:
    """As what `graph.pack_graph` returns."""

    def __init__(self, module: _native._Precision, made: _native.Graph, steps: Any) -> None:
        self._steps = steps  # which own the layers
        self._run = functools.partial(module.run_graph, made)

    def __call__(self, given: Sequence[Array]) -> tuple[Array, ...]:
        """The results."""
        return self._run(given)


# Threads and instruction sets ---------------------------------------------------------------------


def info(measure: bool = False) -> dict[str, Any]:
    """As `engine.info`."""
    found: dict[str, Any] = {
        "engine": "native",
        "instruction_set": _native.instruction_set(),
        "threads": _native.get_num_threads(),
        "bfloat16": _native.bfloat16_unit(),
    }
    return {**found, "peak_gflops": _native.peak()} if measure else found


def set_num_threads(count: int) -> None:
    """As `engine.set_num_threads`."""
    _native.set_num_threads(count)


def available_threads() -> int:
    """The number of processors of this process, by its affinity and its cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as file:
        quota, period = file.read().split()
        count = min(count, max(1, math.ceil(int(quota) / int(period))))
    return count


_native.set_num_threads(settings.num_threads() or available_threads())
if _requested := settings.instruction_set():
    try:
        _native.use_instruction_set(_requested)
    except ValueError as error:
        raise settings.unavailable_instruction_set(_requested) from error
