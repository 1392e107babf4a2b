"""The native engine's robustness: unusual arrays, invalid calls and programs, threads, forks."""

import functools
import gc
import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anaphora import engine
from anaphora.cells import CELLS, gru, lstm, mingru, peephole_lstm
from anaphora.engine import LayerWeights

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
LENGTHS = np.array([3, 0, 4, 4, 1, 2, 4])  # of 7 rows, T = 4
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or forks")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# Unusual arrays ----------------------------------------------------------------------------------


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def strided(array):
    wide = np.full((*array.shape, 3), 99, array.dtype)
    wide[..., 1] = array
    return wide[..., 1]


def backwards(array):
    return np.flip(np.flip(array).copy())


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


ODD = [read_only, np.asfortranarray, strided, backwards, misaligned]


@pytest.mark.parametrize("odd", ODD, ids=lambda f: f.__name__)
@pytest.mark.parametrize("cell", [lstm, peephole_lstm, mingru], ids=lambda c: c.name)
def test_odd_arrays_in_a_recurrence(cell, odd, problem, rng):
    P = 9 if cell is lstm else None
    p = problem(cell, rng, np.float32, B=7, H=20, P=P)
    for lengths in (None, LENGTHS):
        expected = p.results(native, lengths, record=True)
        changed = None if lengths is None else odd(lengths)
        assert_equal(p.copy(odd).results(native, changed, record=True), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("odd", [*ODD, lambda a: a.astype(a.dtype.newbyteorder())])
def test_odd_arrays_in_kernels(odd, dtype, rng):
    a, b = rng.standard_normal((13, 20)).astype(dtype), rng.standard_normal((20, 35)).astype(dtype)
    bias, targets = rng.standard_normal(35).astype(dtype), rng.integers(0, 35, 13)

    def close(found, expected):  # other byte orders use NumPy
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    product = native.matmul(a, b, bias)
    close(native.matmul(odd(a), odd(b), odd(bias)), product)
    close(native.matmul(odd(a), b, bias), product)
    close(native.matmul(a, odd(b)), native.matmul(a, b))
    close(native.sum_columns(odd(a)), native.sum_columns(a))
    losses, probabilities = native.cross_entropy_forward(product, targets)
    for found, expected in zip(
        native.cross_entropy_forward(odd(product), odd(targets)),
        (losses, probabilities),
        strict=True,
    ):
        close(found, expected)
    close(
        native.cross_entropy_backward(odd(probabilities), odd(targets), odd(losses)),
        native.cross_entropy_backward(probabilities, targets, losses),
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("odd", [*ODD, lambda a: a.astype(a.dtype.newbyteorder())])
def test_odd_arrays_in_layers(odd, dtype, rng):
    x, dy = rng.standard_normal((2, 13, 20)).astype(dtype)
    weight, bias = rng.standard_normal((2, 20)).astype(dtype)
    ids = rng.integers(0, 13, 9)

    def results(change):
        y, means, factors = native.layer_norm_forward(*map(change, (x, weight, bias)), 0.1)
        kept = map(change, (x, weight, means, factors, dy))
        targets = change(rng.permutation(13))
        return [
            y,
            *native.layer_norm_backward(*kept),
            native.gather_rows(change(x), change(ids)),
            *native.sum_rows(change(ids), change(x[:9])),
            native.dropout(change(x), 0.3, 7),
            native.dropout(change(x), 0.3, 7, (0,)),
            native.dropout(change(x), 0.3, 7, (1,)),
            native.linear_cross_entropy_losses(change(x), change(x), change(x[:, 0]), targets),
        ]

    before = rng.bit_generator.state
    expected = results(lambda a: a)
    rng.bit_generator.state = before
    for found, reference in zip(results(odd), expected, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("odd", [np.asfortranarray, strided, backwards, misaligned])
def test_odd_arrays_are_changed_in_place(odd, rng):
    start, d, state = (rng.random((13, 20)) for _ in range(3))
    numbers = {"learning_rate": 0.3, "epsilon": 0.01, "weight_decay": 0.1}
    expected, found = ([change(a.copy()) for a in (start, d, state)] for change in (np.array, odd))
    for arrays in (expected, found):
        native.adagrad_update(*arrays, **numbers)
        native.average_update(arrays[0], arrays[1], 2)
        native.scale(arrays[0], 0.7)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_read_only_arrays_are_not_changed():
    numbers = {"learning_rate": 0.3, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    for array in (read_only(ones(3)), np.broadcast_to(1.0, 3)):
        with pytest.raises((TypeError, ValueError)):
            native.sgd_update(array, ones(3), None, **numbers)
        with pytest.raises((TypeError, ValueError)):
            native.scale(array, 2.0)
        assert array.tolist() == [1, 1, 1]


def native_calls(dtype, rng, precision):
    """For each native function its arguments and the positions of those that it changes."""

    def uniform(*shape):
        return rng.random(shape).astype(dtype)

    T, B, H, V = 4, 3, 5, 6
    trace = peephole_lstm.trace
    cell, ids = native._cell(trace), rng.integers(0, V, (T, B))
    weights = (uniform(4 * H, H), uniform(4 * H), uniform(4 * H, H), uniform(4 * H))
    vectors = [uniform(H) for _ in range(3)]
    module = native._PRECISIONS[np.dtype(dtype)]
    states = [uniform(B, H), uniform(B, H)]
    weight_ih, bias_ih, weight_hh, bias_hh = weights
    layer = LayerWeights(weight_ih, weight_hh, bias_ih, bias_hh, None, vectors)
    lengths = np.array([4, 0, 2])
    forward = (cell, uniform(T, B, H), states, layer, lengths, False, True, [], precision)
    _, kept, saved, _, _ = module.recurrence_forward(*forward)
    backward = (cell, saved, kept[0], None, forward[1], layer, uniform(T, B, H), states, lengths)
    backward += (False, True, precision)
    both_forward = (cell, *(2 * [a] for a in forward[1:4]), lengths, True, [], precision)
    (_, *kept_1), (_, *kept_2) = module.bidirectional_forward(*both_forward)
    both_states = [[uniform(B, H), uniform(B, H)] for _ in range(2)]
    both_backward = (cell, [kept_1[1], kept_2[1]], [kept_1[0][0], kept_2[0][0]], [None, None])
    both_backward += (*both_forward[1:2], [layer, layer], 2 * [backward[6]], both_states, lengths)
    both_backward += (True, precision)
    norms, output = [(uniform(H), uniform(H))], (uniform(V, H), uniform(V))
    stack = (cell, H, [layer], uniform(V, H), output, norms, 1e-5, precision)
    on_ids, on_rows = module.pack_stack(*stack), module.pack_stack(*stack[:3], None, *stack[4:])
    states = [uniform(1, B, H), uniform(1, B, H)]
    x, dy, vector, targets = uniform(V, H), uniform(V, H), uniform(V), rng.integers(0, H, V)
    numbers = (0.1, 0.2, 0.3)

    crf = (uniform(T, B, H), uniform(H, H), uniform(H), uniform(H), np.array([4, 0, 2]))
    paths = (*module.crf_forward(*crf), uniform(B))

    ctc = (
        uniform(T, B, H),
        targets[:B, None].T % (H - 1),
        np.array([4, 0, 2]),
        np.array([1, 0, 1]),
    )
    ctc += (H - 1,)
    alignments = (*module.ctc_forward(*ctc), uniform(B))

    graph_steps = [
        ("gather", 16, np.array([1, 0, 2, 3, 4])),
        ("product", 32, 16, 16, 1, uniform(V, H), uniform(V)),
        ("tanh", 64, 32, 32, V),
        ("gather", 104, np.arange(B * H)),
        ("gather", 128, np.arange(B * H)),
        ("layers", 80, 0, 1, B, on_rows, [104, 128]),
    ]
    graph = (160, uniform(1), [(0, (B, H))], [(64, (V,)), (80, (B, V))], graph_steps)
    uniform_rows = uniform(B, H)
    normalized = (x, rng.random(V) < 0.7, uniform(H))

    def results(found):  # except `saved`, parts of which are unused
        return [r for k, r in enumerate(found) if k != 2]

    return module, {
        "matmul": (module.matmul, (x, dy.T, vector, "", precision), ()),
        "make_graph": (
            lambda *a: module.run_graph(module.make_graph(*a), [uniform_rows]),
            graph,
            (),
        ),
        "run_graph": (module.run_graph, (module.make_graph(*graph), [uniform_rows]), ()),
        "batch_norm_forward": (module.batch_norm_forward, (*normalized, uniform(H), 0.1), ()),
        "batch_norm_backward": (
            module.batch_norm_backward,
            (*normalized, uniform(H), uniform(H), dy),
            (),
        ),
        "batch_matmul": (module.batch_matmul, (uniform(T, B, H), uniform(T, H, V)), ()),
        "softmax_forward": (module.softmax_forward, (x, x > 0, False), ()),
        "softmax_backward": (module.softmax_backward, (x, dy, True), ()),
        "sum_columns": (module.sum_columns, (x,), ()),
        "erf": (module.erf, (x.reshape(-1),), ()),
        "cross_entropy_forward": (module.cross_entropy_forward, (x, targets, uniform(V, H)), (2,)),
        "cross_entropy_backward": (module.cross_entropy_backward, (x, targets, vector), ()),
        "linear_cross_entropy": (
            module.linear_cross_entropy,
            (x, dy, vector, targets, precision),
            (),
        ),
        "crf_forward": (module.crf_forward, crf, ()),
        "crf_backward": (module.crf_backward, (*crf, *paths), ()),
        "crf_decode": (module.crf_decode, (*crf, -1), ()),
        "ctc_forward": (module.ctc_forward, ctc, ()),
        "ctc_backward": (module.ctc_backward, (*ctc, *alignments), ()),
        "gather_rows": (module.gather_rows, (x, ids), ()),
        "sum_rows": (module.sum_rows, (targets, x), ()),
        "cumsum": (module.cumsum, (x, 1, True), ()),
        "take_along_axis": (module.take_along_axis, (x, 0 * x.astype(int), 0), ()),
        "add_along_axis": (module.add_along_axis, (x, 0 * x.astype(int), 0, 3), ()),
        "add_rows": (module.add_rows, (x, targets, (V, H), 1), ()),
        "order_rows": (module.order_rows, (x, 3, True), ()),
        "dropout": (module.dropout, (x, x.size, 7, 2**31, 2.0), ()),
        "layer_norm_forward": (module.layer_norm_forward, (x, uniform(H), uniform(H), 0.1), ()),
        "layer_norm_backward": (
            module.layer_norm_backward,
            (x, uniform(H), vector, vector, dy),
            (),
        ),
        "sgd": (module.sgd, (x, dy, uniform(V, H), *numbers, True), (0, 1)),
        "adam": (
            module.adam,
            (x, dy, uniform(V, H), uniform(V, H), *numbers, *numbers, 0.5),
            (0, 1, 2),
        ),
        "rmsprop": (
            module.rmsprop,
            (x, dy, x, dy, uniform(V, H), *numbers, 0.4, 0.5),
            (0, 1, 2, 3),
        ),
        "adagrad": (module.adagrad, (x, dy, uniform(V, H), *numbers), (0, 1)),
        "average": (module.average, (x, dy, 0.5), (0,)),
        "scale": (module.scale, (x, 0.5), (0,)),
        "sum_of_squares": (module.sum_of_squares, (x,), ()),
        "recurrence_forward": (lambda *a: results(module.recurrence_forward(*a)), forward, ()),
        "recurrence_backward": (module.recurrence_backward, backward, (7,)),
        "bidirectional_forward": (
            lambda *a: [r for found in module.bidirectional_forward(*a) for r in results(found)],
            both_forward,
            (),
        ),
        "bidirectional_backward": (module.bidirectional_backward, both_backward, (7,)),
        "pack_stack": (
            lambda *a: module.run_stack_on_ids(module.pack_stack(*a), ids, deep(np.array, states)),
            stack,
            (),
        ),
        "run_stack": (module.run_stack, (on_rows, uniform(T, B, H), states), (2,)),
        "run_stack_on_ids": (module.run_stack_on_ids, (on_ids, ids, states), (2,)),
        "generate": (
            module.generate,
            (on_ids, ids, states, rng.random((2, B)), 1.0, 0, 1.0),
            (2,),
        ),
        "sample": (module.sample, (x, rng.random(V), 1.0, 0, 1.0), ()),
    }


def deep(change, value, only=None, count=None):
    """Apply a function to the arrays in nested tuples and lists, or to only one of them."""
    count = itertools.count() if count is None else count
    if isinstance(value, LayerWeights):
        return LayerWeights.from_flat(deep(change, value.flat(), only, count))
    if isinstance(value, (tuple, list)):
        return type(value)(deep(change, part, only, count) for part in value)
    if not isinstance(value, np.ndarray):
        return value
    return change(value) if only in (None, next(count)) else value


def arrays_in(value):
    found = []
    deep(found.append, value)
    return found


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (np.float32, "float32"),
        (np.float32, "bfloat16"),
        (np.float32, "int8"),
        (np.float64, "float32"),
    ],
)
def test_no_misaligned_array_reaches_native_code(dtype, precision, rng):
    module, calls = native_calls(dtype, rng, precision)
    functions = {n for n in dir(module) if not n.startswith("_") and n != "stack_bytes"}
    assert set(calls) == functions
    for name, (function, arguments, changed) in calls.items():
        fresh = deep(np.array, arguments)
        expected = [*arrays_in(function(*fresh)), *arrays_in(fresh)]
        # Single bytes are always aligned, and have no order.
        wide = [k for k, array in enumerate(arrays_in(arguments)) if array.itemsize > 1]
        written = {k for place in changed for k in range(
            len(arrays_in(arguments[:place])), len(arrays_in(arguments[: place + 1]))
        )}  # fmt: skip
        for k in wide:
            odd = deep(misaligned, deep(np.array, arguments), k)
            assert not arrays_in(odd)[k].flags.aligned
            if k in written or (name in ("matmul", "batch_matmul") and k < 2):
                with pytest.raises(TypeError, match="incompatible function arguments"):
                    function(*odd)
                continue
            found = [*arrays_in(function(*odd)), *arrays_in(odd)]
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"{name}, array {k}")
        for k in wide:
            swapped = deep(lambda a: a.astype(a.dtype.newbyteorder()), arguments, k)
            with pytest.raises(TypeError, match="incompatible function arguments"):
                function(*swapped)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_targets_of_any_width(dtype, rng):
    logits, targets = rng.standard_normal((5, 9)), rng.integers(0, 9, 5)
    for found, expected in zip(
        native.cross_entropy_forward(logits, targets.astype(dtype)),
        native.cross_entropy_forward(logits, targets),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


# Invalid calls -----------------------------------------------------------------------------------


def call(cell, rng, **changes):
    """The arguments of a good call of `_native.float64.recurrence_forward`, with changes."""
    T, B, H = 4, 3, 5
    Gx, Gh = len(cell.input_gates), len(cell.recurrent_gates)
    arguments = {
        "x": rng.standard_normal((T, B, Gx * H)),
        "initial": [np.zeros((B, H)) for _ in cell.states],
        "lengths": None,
        "reverse": False,
        "save": True,
        "named": [],
        "precision": "float32",
    }
    weights = {
        "weight_hh": rng.standard_normal((Gh * H, H)) if Gh else None,
        "bias_hh": rng.standard_normal(Gh * H) if Gh else None,
        "parameters": [np.ones(H) for _ in cell.parameters],
    }
    for name, value in changes.items():
        (arguments if name in arguments else weights)[name] = value
    arguments["weights"] = LayerWeights(**weights)
    return _native.float64.recurrence_forward(native._cell(cell.trace), **arguments)


def ones(*shape):
    return np.ones(shape)


WRONG_FORWARD = {
    "x of two axes": {"x": ones(4, 20)},
    "x of another width": {"x": ones(4, 3, 19)},
    "weight_ih of another width": {"weight_ih": ones(20, 19)},
    "weight_ih of another height": {"weight_ih": ones(19, 20)},
    "bias_ih of another size": {"weight_ih": ones(20, 20), "bias_ih": ones(19)},
    "bias_ih without weight_ih": {"bias_ih": ones(20)},
    "no states": {"initial": []},
    "one state": {"initial": [ones(3, 5)]},
    "three states": {"initial": [ones(3, 5)] * 3},
    "states of three axes": {"initial": [ones(1, 3, 5)] * 2},
    "states of another batch": {"initial": [ones(2, 5)] * 2},
    "states of two sizes": {"initial": [ones(3, 5), ones(3, 4)]},
    "states without axes": {"initial": [ones(), ones()]},
    "weight_hh of another shape": {"weight_hh": ones(20, 4)},
    "weight_hh transposed": {"weight_hh": ones(5, 20)},
    "no weight_hh": {"weight_hh": None},
    "bias_hh of another size": {"bias_hh": ones(19)},
    "bias_hh of two axes": {"bias_hh": ones(20, 1)},
    "weight_hr of another shape": {"weight_hr": ones(4, 5)},
    "weight_hr of one axis": {"weight_hr": ones(5)},
    "a parameter too many": {"parameters": [ones(5)]},
    "lengths of another batch": {"lengths": np.array([1, 2])},
    "lengths of two axes": {"lengths": np.array([[1, 2, 3]])},
    "a negative length": {"lengths": np.array([1, -1, 3])},
    "a length beyond T": {"lengths": np.array([1, 5, 3])},
    "a length far beyond T": {"lengths": np.array([1, 2**62, -(2**63)])},
    "a negative name": {"named": [-1]},
    "a name that does not exist": {"named": [1000]},
}


@pytest.mark.parametrize("wrong", WRONG_FORWARD)
def test_a_wrong_call_forward_is_refused(wrong, rng):
    call(lstm, rng)
    with pytest.raises(
        ValueError, match=r"^recurrence: |^wrong shape of |^weight_hr must have two axes"
    ):
        call(lstm, rng, **WRONG_FORWARD[wrong])


def test_a_projected_state_is_not_read(rng):
    weights = {"weight_hh": ones(15, 2), "weight_hr": ones(2, 5), "initial": [ones(3, 2)]}
    with pytest.raises(ValueError, match="a state that the program reads cannot be projected"):
        call(gru, rng, **weights)
    projected = {"weight_hh": ones(20, 2), "weight_hr": ones(2, 5)}
    projected["initial"] = [ones(3, 2), ones(3, 5)]
    call(lstm, rng, **projected)
    first_state = len(lstm.trace.gate_inputs)
    with pytest.raises(ValueError, match="cannot be recorded"):
        call(lstm, rng, **projected, named=[first_state])


def test_a_cell_without_recurrent_halves_takes_no_weights(rng):
    with pytest.raises(ValueError, match="weight_hh must be given if and only if"):
        call(mingru, rng, weight_hh=ones(0, 5))
    with pytest.raises(ValueError, match="bias_hh"):
        call(mingru, rng, bias_hh=ones(5))
    with pytest.raises(ValueError, match="wrong number of parameters"):
        call(peephole_lstm, rng, parameters=[])
    with pytest.raises(ValueError, match="wrong shape of parameters"):
        call(peephole_lstm, rng, parameters=[ones(5), ones(5), ones(4)])


WRONG_DTYPES = {
    "x": ones(4, 3, 20).astype(np.float32),
    "weight_ih": ones(20, 20).astype(np.float32),
    "initial": [ones(3, 5).astype(np.float32)] * 2,
    "weight_hh": ones(20, 5).astype(int),
    "bias_hh": ones(20).astype(">f8"),
    "parameters": [ones(5).astype(np.float32)],
    "lengths": np.array([1, 2, 3], np.int32),
}


@pytest.mark.parametrize("name", WRONG_DTYPES)
def test_a_wrong_dtype_is_refused(name, rng):
    with pytest.raises(TypeError):
        call(lstm, rng, **{name: WRONG_DTYPES[name]})


def test_a_wrong_call_backward_is_refused(rng):
    cell = native._cell(lstm.trace)
    _, states, saved, _, _ = call(lstm, rng)
    good = {
        "saved": saved,
        "state": states[0],
        "unprojected": None,
        "d_output": ones(4, 3, 5),
        "d_states": [ones(3, 5), ones(3, 5)],
        "x": ones(4, 3, 20),
        "lengths": None,
        "reverse": False,
        "wants_d_x": True,
        "precision": "float32",
    }
    good_weights = {"weight_hh": ones(20, 5), "bias_hh": ones(20)}

    def call_backward(**changes):
        weights = {n: v for n, v in changes.items() if n not in good}
        arguments = good | {n: v for n, v in changes.items() if n in good}
        weights = LayerWeights(**good_weights | weights)
        return _native.float64.recurrence_backward(cell, **arguments, weights=weights)

    call_backward()
    for wrong in (
        {"saved": saved[:-1]},
        {"saved": saved[:, :-1].copy()},
        {"saved": ones(0, 0)},
        {"saved": ones(0)},
        {"d_output": ones(4, 3, 4)},
        {"d_output": ones(3, 3, 5)},
        {"d_states": []},
        {"d_states": [ones(3, 5)]},
        {"d_states": [ones(3, 5), ones(3, 4)]},
        {"d_states": [ones(5), ones(5)]},
        {"state": ones(4, 3, 5)},
        {"unprojected": ones(4, 3, 5)},
        {"x": ones(5, 3, 20)},
        {"x": ones(4, 3, 19)},
        {"weight_ih": ones(20, 19)},
        {"weight_hh": None},
        {"weight_hh": ones(20, 4)},
        {"weight_hr": ones(4, 5)},
        {"weight_hr": ones(5)},
        {"lengths": np.array([4, 4])},
        {"lengths": np.array([4, 5, 4])},
        {"lengths": np.array([4, -1, 4])},
    ):
        with pytest.raises(ValueError, match=r"."):
            call_backward(**wrong)


def test_wrong_calls_of_kernels_are_refused():
    m, f = _native.float64, np.float32
    matmul = functools.partial(m.matmul, gradient="", precision="float32")
    losses = functools.partial(m.linear_cross_entropy, precision="float32")
    ids = np.array([0, 1, 2])
    for error, function, *arguments in (
        (ValueError, matmul, ones(2, 3), ones(2, 3), None),
        (ValueError, matmul, ones(2, 3), ones(3, 4), ones(3)),
        (ValueError, matmul, ones(2, 3), ones(3, 4), ones(1, 4)),
        (TypeError, matmul, ones(2, 3, 1), ones(3, 4), None),
        (TypeError, matmul, ones(2, 3).astype(f), ones(3, 4), None),
        (TypeError, matmul, ones(2, 3).astype(int), ones(3, 4), None),
        (TypeError, matmul, [[1.0]], [[1.0]], None),
        (ValueError, m.matmul, ones(2, 3), ones(3, 4), None, "", "bf16"),
        (ValueError, m.matmul, ones(2, 3), ones(3, 4), None, "bias", "float32"),
        (TypeError, m.matmul, ones(2, 3), ones(3, 4), None, "", None),
        (ValueError, m.linear_cross_entropy, ones(3, 2), ones(5, 2), None, ids, ""),
        (ValueError, m.sum_columns, ones(3)),
        (ValueError, m.erf, ones(3, 2)),
        (ValueError, m.cross_entropy_forward, ones(3), ids, None),
        (ValueError, m.cross_entropy_forward, ones(3, 2), ids, None),
        (ValueError, m.cross_entropy_forward, ones(3, 5), ids[:2], None),
        (ValueError, m.cross_entropy_forward, ones(3, 5), -ids, None),
        (ValueError, m.cross_entropy_forward, ones(3, 0), ids, None),
        (TypeError, m.cross_entropy_forward, ones(3, 5), ids.astype(np.int32), None),
        (ValueError, m.cross_entropy_forward, ones(3, 5), ids, ones(3, 4)),
        (ValueError, m.cross_entropy_forward, ones(3, 5), ids, ones(15)),
        (TypeError, m.cross_entropy_forward, ones(3, 5), ids, read_only(ones(3, 5))),
        (TypeError, m.cross_entropy_forward, ones(3, 5), ids, strided(ones(3, 5))),
        (ValueError, m.cross_entropy_backward, ones(3, 5), ids, ones(2)),
        (ValueError, m.cross_entropy_backward, ones(3, 2), ids, ones(3)),
        (TypeError, m.cross_entropy_backward, ones(3, 5), ids, ones(3).astype(f)),
        (ValueError, losses, ones(3, 2), ones(5, 3), None, ids),
        (ValueError, losses, ones(3), ones(5, 3), None, ids),
        (ValueError, losses, ones(3, 2), ones(5, 2), ones(4), ids),
        (ValueError, losses, ones(3, 2), ones(5, 2), None, ids[:2]),
        (ValueError, losses, ones(3, 2), ones(2, 2), None, ids),
        (ValueError, losses, ones(3, 2), ones(0, 2), None, ids),
        (TypeError, losses, ones(3, 2), ones(5, 2), None, ids.astype(np.int32)),
        (ValueError, m.batch_matmul, ones(2, 3, 4), ones(2, 3, 4)),
        (ValueError, m.batch_matmul, ones(2, 3, 4), ones(1, 4, 3)),
        (TypeError, m.batch_matmul, ones(3, 4), ones(4, 3)),
        (TypeError, m.batch_matmul, ones(1, 3, 4), ones(1, 4, 3).astype(f)),
        (ValueError, m.softmax_forward, ones(3), None, False),
        (ValueError, m.softmax_forward, ones(3, 2), ones(2, 3) > 0, False),
        (TypeError, m.softmax_forward, ones(3, 2), ones(3, 2), False),
        (ValueError, m.softmax_backward, ones(3, 2), ones(2, 3), False),
        (IndexError, m.gather_rows, ones(2, 4), ids),
        (IndexError, m.gather_rows, ones(5, 4), -ids),
        (IndexError, m.gather_rows, ones(0, 4), ids),
        (ValueError, m.gather_rows, ones(5), ids),
        (TypeError, m.gather_rows, ones(5, 4), ids.astype(np.int32)),
        (ValueError, m.sum_rows, ids, ones(2, 4)),
        (ValueError, m.sum_rows, ids, ones(3)),
        (ValueError, m.sum_rows, ids[:, None], ones(3, 4)),
        (ValueError, m.cumsum, ones(3), 1, False),
        (ValueError, m.cumsum, ones(), 0, False),
        (TypeError, m.cumsum, ones(3), -1, False),
        (ValueError, m.take_along_axis, ones(3, 4), np.zeros((2, 4, 1), int), 0),
        (ValueError, m.take_along_axis, ones(3, 4), np.zeros((2, 3), int), 0),
        (ValueError, m.take_along_axis, ones(3, 4), np.zeros((3, 4), int), 2),
        (IndexError, m.take_along_axis, ones(3, 4), np.full((1, 4), 3), 0),
        (IndexError, m.take_along_axis, ones(0, 4), np.zeros((1, 4), int), 0),
        (ValueError, m.add_along_axis, ones(3, 4), np.zeros((3, 3), int), 1, 9),
        (ValueError, m.add_along_axis, ones(3, 4), np.zeros((3, 4), int), 2, 9),
        (TypeError, m.add_along_axis, ones(3, 4), np.zeros((3, 4), int), 1, -9),
        (IndexError, m.add_along_axis, ones(3, 4), np.zeros((3, 4), int), 1, 0),
        (MemoryError, m.add_along_axis, ones(3, 4), np.zeros((3, 4), int), 1, 2**62),
        (ValueError, m.add_rows, ones(3, 4), ids, (9, 5), 1),
        (ValueError, m.add_rows, ones(3, 4), ids, (9, 4), 3),
        (TypeError, m.add_rows, ones(3, 4), ids, (-9, 4), 1),
        (IndexError, m.add_rows, ones(3, 4), ids, (0, 4), 1),
        (MemoryError, m.add_rows, ones(3, 4), ids, (2**62, 4), 1),
        (ValueError, m.order_rows, ones(3), 1, False),
        (ValueError, m.order_rows, ones(3, 4), 5, False),
        (ValueError, m.order_rows, ones(3, 4), -1, False),
        (ValueError, m.dropout, ones(6), 4, 1, 2**31, 2.0),
        (ValueError, m.dropout, ones(6), 12, 1, 2**31, 2.0),
        (ValueError, m.dropout, ones(6), 0, 1, 2**31, 2.0),
        (ValueError, m.dropout, ones(6), -6, 1, 2**31, 2.0),
        (TypeError, m.dropout, ones(6), 6, 2**64, 2**31, 2.0),
        (TypeError, m.dropout, ones(6), 6, -1, 2**31, 2.0),
        (TypeError, m.dropout, ones(6), 6, 1, 2**32, 2.0),
        (ValueError, m.batch_norm_forward, ones(3), None, None, None, 0.1),
        (ValueError, m.batch_norm_forward, ones(3, 4), ones(4) > 0, None, None, 0.1),
        (ValueError, m.batch_norm_forward, ones(3, 4), None, ones(3), None, 0.1),
        (ValueError, m.batch_norm_backward, ones(3, 4), None, None, ones(4), ones(3), ones(3, 4)),
        (ValueError, m.batch_norm_backward, ones(3, 4), None, None, ones(4), ones(4), ones(4, 3)),
        (ValueError, m.make_graph, -1, ones(0), [], [], []),
        (ValueError, m.make_graph, 4, ones(5), [], [], []),
        (ValueError, m.make_graph, 4, ones(1), [(2, (3,))], [], []),
        (ValueError, m.make_graph, 4, ones(1), [], [(-1, (2,))], []),
        (ValueError, m.make_graph, 4, ones(1), [], [], [("tan", 0, 0, 0, 1)]),
        (ValueError, m.make_graph, 4, ones(1), [], [], [("tanh", 0, 0, 0, 5)]),
        (ValueError, m.make_graph, 4, ones(1), [], [], [("tanh", 0, 4, 0, 1)]),
        (ValueError, m.make_graph, 4, ones(1), [], [], [("gather", 0, np.array([4]))]),
        (ValueError, m.make_graph, 4, ones(1), [], [], [("gather", 4, np.array([0]))]),
        (ValueError, m.make_graph, 4, ones(1), [], [], [("product", 0, 2, 0, 1, ones(2, 1), None)]),
        (
            ValueError,
            m.make_graph,
            99,
            ones(1),
            [],
            [],
            [("product", 0, 16, 98, 1, ones(2, 2), None)],
        ),
        (ValueError, m.run_graph, m.make_graph(4, ones(1), [(0, (3,))], [], []), []),
        (ValueError, m.run_graph, m.make_graph(4, ones(1), [(0, (3,))], [], []), [ones(4)]),
        (ValueError, m.layer_norm_forward, ones(3), None, None, 0.1),
        (ValueError, m.layer_norm_forward, ones(3, 4), ones(3), None, 0.1),
        (ValueError, m.layer_norm_forward, ones(3, 4), None, ones(4, 1), 0.1),
        (TypeError, m.layer_norm_forward, ones(3, 4).astype(f), None, None, 0.1),
        (ValueError, m.layer_norm_backward, ones(3, 4), None, ones(4), ones(3), ones(3, 4)),
        (ValueError, m.layer_norm_backward, ones(3, 4), None, ones(3), ones(3, 1), ones(3, 4)),
        (ValueError, m.layer_norm_backward, ones(3, 4), None, ones(3), ones(3), ones(4, 3)),
        (ValueError, m.layer_norm_backward, ones(3, 4), ones(3), ones(3), ones(3), ones(3, 4)),
        (ValueError, m.sgd, ones(3), None, ones(4), 0.1, 0.0, 0.0, False),
        (ValueError, m.sgd, ones(3), ones(4), ones(3), 0.1, 0.0, 0.0, False),
        (TypeError, m.sgd, ones(3), None, ones(3).astype(f), 0.1, 0.0, 0.0, False),
        (TypeError, m.sgd, read_only(ones(3)), None, ones(3), 0.1, 0.0, 0.0, False),
        (TypeError, m.sgd, ones(3), read_only(ones(3)), ones(3), 0.1, 0.0, 0.0, False),
        (ValueError, m.adam, ones(3), ones(3), ones(4), ones(3), *[0.5] * 7),
        (ValueError, m.adam, ones(3), ones(3), ones(3), ones(4), *[0.5] * 7),
        (ValueError, m.adam, *[ones(3)] * 3, ones(2), *[0.5] * 7, np.array([0, 1, 2])),
        (ValueError, m.adam, *[ones(3)] * 3, ones(2), *[0.5] * 7, np.array([1, 1])),
        (ValueError, m.adam, *[ones(3)] * 3, ones(2), *[0.5] * 7, np.array([1, 0])),
        (ValueError, m.adam, *[ones(3)] * 3, ones(2), *[0.5] * 7, np.array([1, 3])),
        (ValueError, m.adam, *[ones(3)] * 3, ones(2), *[0.5] * 7, np.array([-1, 1])),
        (ValueError, m.adam, *[ones(3, 2)] * 3, ones(2, 1), *[0.5] * 7, np.array([0, 1])),
        (ValueError, m.adam, *[np.ones(())] * 3, ones(1), *[0.5] * 7, np.array([0])),
        (TypeError, m.adam, ones(3), None, ones(3), ones(3), *[0.5] * 7),
        (ValueError, m.rmsprop, ones(3), ones(3), ones(2), None, ones(3), *[0.5] * 5),
        (ValueError, m.rmsprop, ones(3), ones(3), None, ones(2), ones(3), *[0.5] * 5),
        (ValueError, m.rmsprop, ones(3), ones(2), None, None, ones(3), *[0.5] * 5),
        (ValueError, m.adagrad, ones(3), ones(2), ones(3), *[0.5] * 3),
        (ValueError, m.average, ones(3), ones(2), 0.5),
        (TypeError, m.scale, read_only(ones(3)), 2.0),
        (TypeError, m.scale, strided(ones(3)), 2.0),
        (TypeError, m.sum_of_squares, ones(3).astype(f)),
    ):
        with pytest.raises(error):
            function(*arguments)


def test_sizes_that_overflow_are_refused():
    one = np.float32(1)
    tall, wide = np.broadcast_to(one, (2**60, 1)), np.broadcast_to(one, (1, 2**60))
    for a, b in (
        (tall, wide),
        (tall, np.ones((1, 64), np.float32)),  # 2**66 elements: 4 times 2**64
        (np.ones((64, 1), np.float32), wide),
        (np.empty((2**60, 0), np.float32), np.ones((0, 2), np.float32)),
    ):
        with pytest.raises((MemoryError, ValueError)):
            native.matmul(a, b)
    empty = np.empty((2**40, 0, 20), np.float32)
    states = [np.empty((0, 5), np.float32)] * 2
    weights = LayerWeights(weight_hh=np.ones((20, 5), np.float32))
    with pytest.raises((MemoryError, ValueError)):
        _native.float32.recurrence_forward(
            native._cell(lstm.trace), empty, states, weights, None, False, True, [], "float32"
        )


def test_no_hidden_units():
    x_gates, state, weight = np.ones((3, 2, 0)), np.ones((2, 0)), np.ones((0, 0))
    weights = LayerWeights(weight_hh=weight)
    steps = native.recurrence_forward(lstm.trace, x_gates, [state, state], weights)
    assert steps.output.shape == (3, 2, 0)


def test_unknown_instruction_sets_and_thread_counts(native_settings):
    with pytest.raises(ValueError, match="no instruction set 'sse9'"):
        native_settings.use_instruction_set("sse9")
    assert native_settings.instruction_set() != "sse9"
    with pytest.raises(TypeError):
        native_settings.set_num_threads(2**40)


# Crafted programs --------------------------------------------------------------------------------

# h = tanh(a) forward; backward from the saved h and the cotangent d: d * h, and no gradient of h.
GOOD = {
    "forward": (2, [], [("tanh", 0, 0)], [2]),
    "backward": (2, [0.0], [("multiply", 0, 1)], [3, 2]),
    "gates": [(0, 0)],
    "saved": [2],
    "states": 1,
    "parameters": 0,
}
CRAFTED = {
    "an operand out of range": {"forward": (2, [], [("tanh", 2, 0)], [2])},
    "a negative operand": {"forward": (2, [], [("tanh", -1, 0)], [2])},
    "a second operand out of range": {"forward": (2, [], [("add", 0, 9)], [2])},
    "a negative second operand": {"forward": (2, [], [("add", 0, -1)], [2])},
    "an operand out of range that is not read": {"forward": (2, [], [("tanh", 0, 2**31 - 1)], [2])},
    "a negative operand that is not read": {"forward": (2, [], [("tanh", 0, -1)], [2])},
    "itself for an operand that is not read": {"forward": (2, [], [("tanh", 0, 2)], [2])},
    "a backward operand out of range that is not read": {
        "backward": (2, [0.0], [("multiply", 0, 1), ("negative", 3, 2**31 - 1)], [4, 2])
    },
    "a reference forward": {"forward": (2, [], [("tanh", 3, 0), ("tanh", 0, 0)], [2])},
    "an unknown operation": {"forward": (2, [], [("sinh", 0, 0)], [2])},
    "an operation without a name": {"forward": (2, [], [("", 0, 0)], [2])},
    "an output out of range": {"forward": (2, [], [("tanh", 0, 0)], [3])},
    "a negative output": {"forward": (2, [], [("tanh", 0, 0)], [-1])},
    "no outputs": {"forward": (2, [], [("tanh", 0, 0)], [])},
    "two outputs": {"forward": (2, [], [("tanh", 0, 0)], [2, 2])},
    "an input too many": {"forward": (3, [], [("tanh", 0, 0)], [3])},
    "no inputs": {"forward": (0, [], [], [])},
    "a negative number of inputs": {"forward": (-1, [0.0, 1.0], [("tanh", 0, 0)], [0])},
    "too many inputs": {"forward": (2**31 - 1, [0.0], [("tanh", 0, 0)], [2])},
    "a backward operand out of range": {"backward": (2, [0.0], [("multiply", 0, 4)], [3, 2])},
    "a backward output out of range": {"backward": (2, [0.0], [("multiply", 0, 1)], [3, 4])},
    "a backward output too few": {"backward": (2, [0.0], [("multiply", 0, 1)], [3])},
    "a backward input too few": {"backward": (1, [0.0], [("multiply", 0, 0)], [2, 1])},
    "a saved value out of range": {"saved": [3]},
    "a negative saved value": {"saved": [-1]},
    "a value saved twice": {
        "saved": [2, 2],
        "backward": (3, [0.0], [("multiply", 0, 1)], [3, 2]),
    },
    "a saved constant": {"forward": (2, [1.0], [("tanh", 0, 0)], [3]), "saved": [2]},
    "nothing saved": {"saved": []},
    "no states": {"states": 0},
    "two states": {"states": 2},
    "a negative number of states": {"states": -1},
    "a parameter too many": {"parameters": 1},
    "a negative number of parameters": {"states": 2, "parameters": -1},
    "too many parameters": {"parameters": 2**31 - 1},
    "no gates": {"gates": []},
    "a gate from nowhere": {"gates": [(-1, -1)]},
    "a gate from a negative block": {"gates": [(-2, 0)]},
    "a gate from a block that does not exist": {"gates": [(1, 0)]},
    "a gate from a block far away": {"gates": [(2**31 - 1, 0)]},
    "two gates from one block": {
        "forward": (3, [], [("tanh", 0, 0)], [3]),
        "saved": [3],
        "backward": (2, [0.0], [("multiply", 0, 1)], [3, 2, 2]),
        "gates": [(0, 0), (0, -1)],
    },
}


def test_a_valid_crafted_program_runs():
    cell = _native.make_cell(**GOOD)
    state = np.zeros((1, 2))
    x_gates, weight = np.ones((2, 1, 2)), np.zeros((2, 2))
    arguments = (LayerWeights(weight_hh=weight), None, False, False, [], "float32")
    output, *_ = _native.float64.recurrence_forward(cell, x_gates, [state], *arguments)
    np.testing.assert_allclose(output, np.tanh(x_gates), rtol=1e-15)


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_program_is_refused(name):
    with pytest.raises(ValueError, match=r"^(program|cell): "):
        _native.make_cell(**GOOD | CRAFTED[name])


@pytest.mark.parametrize(
    "wrong",
    [
        {"forward": (2, [], [("tanh", 0, 0)])},
        {"forward": (2, [], ["tanh", 0, 0], [2])},
        {"forward": (2, [], [("tanh", 0)], [2])},
        {"forward": (2, [], [(6, 0, 0)], [2])},
        {"forward": (2.5, [], [("tanh", 0, 0)], [2])},
        {"forward": (2, [], [("tanh", 0, 2**40)], [2])},
        {"forward": None},
        {"gates": [(0,)]},
        {"saved": [2**40]},
    ],
    ids=str,
)
def test_a_program_of_other_types_is_refused(wrong):
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        _native.make_cell(**GOOD | wrong)


# Numbers that are not finite ---------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CELLS)
def test_non_finite_numbers_stay_in_their_row(name, dtype, bad, problem, rng):
    p = problem(CELLS[name], rng, dtype, B=7, H=20)
    for lengths in (None, LENGTHS):
        clean = p.results(native, lengths, record=True)
        spoiled = p.copy()
        spoiled.x[1, 3, 2] = spoiled.initial[-1][3, 5] = bad
        spoiled.d_output[2, 3, 1] = bad
        found = spoiled.results(native, lengths, record=True)
        assert not np.isfinite(found["final 0"][3]).all() or np.isinf(bad)
        others = [0, 1, 2, 4, 5, 6]
        for key, array in found.items():
            if key == "output" or key.startswith("value") or key == "d x":
                np.testing.assert_array_equal(array[:, others], clean[key][:, others], err_msg=key)
            elif key.startswith(("final", "d state")):
                np.testing.assert_array_equal(array[others], clean[key][others], err_msg=key)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_numbers_stay_in_their_row_of_a_kernel(bad, rng):
    a, b = rng.standard_normal((20, 30)), rng.standard_normal((30, 40))
    targets = rng.integers(0, 40, 20)
    spoiled = a.copy()
    spoiled[7, 3] = bad
    others = np.arange(20) != 7
    products = native.matmul(spoiled, b), native.matmul(a, b)
    assert not np.isfinite(products[0][7]).any()
    pairs = [products]
    pairs += zip(*(native.cross_entropy_forward(c, targets) for c in products), strict=True)
    for found, expected in pairs:
        np.testing.assert_array_equal(found[others], expected[others])
    assert np.isnan(pairs[1][0][7])
    losses, alone = (
        native.linear_cross_entropy_losses(x, b.T, None, targets) for x in (spoiled, a)
    )
    np.testing.assert_array_equal(losses[others], alone[others])
    assert np.isnan(losses[7])
    normalised = [native.layer_norm_forward(x, None, None, 0.1)[0] for x in (spoiled, a)]
    np.testing.assert_array_equal(normalised[0][others], normalised[1][others])
    assert np.isnan(normalised[0][7]).all()
    columns = native.sum_columns(spoiled)
    np.testing.assert_array_equal(np.isfinite(columns), np.arange(30) != 3)


# Threads and processes ---------------------------------------------------------------------------


def test_calls_from_several_threads_at_once(native_settings, problem, rng):
    native_settings.set_num_threads(2)
    cells = [lstm, gru, peephole_lstm, mingru]
    problems = [problem(c, rng, np.float32, T=3, B=9, H=70) for c in cells]
    expected = [p.results(native, record=True) for p in problems]
    begin, failures = threading.Barrier(len(cells)), []

    def work(number):
        try:
            begin.wait()
            for _ in range(20):
                assert_equal(problems[number].results(native, record=True), expected[number])
        except BaseException as error:  # a failed thread must fail the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(cells))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_number_of_threads_changes_during_calls(native_settings, rng):
    a = rng.standard_normal((200, 100))
    expected, stop, wrong = native.matmul(a, a.T), threading.Event(), []

    def work():
        while not stop.is_set():
            if not np.array_equal(native.matmul(a, a.T), expected):
                wrong.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    for count in [1, 2, 4, 3] * 20:
        native_settings.set_num_threads(count)
        np.testing.assert_array_equal(native.matmul(a, a.T), expected)
    stop.set()
    thread.join()
    assert wrong == []


def _bits(p, count, results):
    native.set_num_threads(count)
    results.put({name: array.tobytes() for name, array in p.results(native).items()})


@on_linux
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_after_use(native_settings, problem, rng):
    native_settings.set_num_threads(2)
    p = problem(lstm, rng, np.float32, B=9, H=70)
    expected = {name: array.tobytes() for name, array in p.results(native).items()}
    context = multiprocessing.get_context("fork")
    for count in (1, 2, 3):
        results = context.Queue()
        child = context.Process(target=_bits, args=(p, count, results))
        child.start()
        found = results.get(timeout=60)
        child.join(60)
        assert child.exitcode == 0
        assert found == expected
    assert {name: array.tobytes() for name, array in p.results(native).items()} == expected


def python(source, **environment):
    """Run a program in a fresh interpreter; return its exit code, output and errors."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ANAPHORA_")}
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", source],
        env={**inherited, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout.strip(), done.stderr


INFO = "from anaphora import engine; print(engine.info()['engine'], engine.info()['threads'])"


def test_the_environment_chooses_the_instruction_set():
    source = "from anaphora import engine; print(engine.info()['instruction_set'])"
    for name in ("baseline", "amx-emulated"):
        assert python(source, ANAPHORA_INSTRUCTION_SET=name) == (0, name, "")
    assert "emulated" not in python(source)[1]  # never chosen by itself
    code, _, errors = python(source, ANAPHORA_INSTRUCTION_SET="sse9")
    assert code == 1
    assert "ANAPHORA_INSTRUCTION_SET is 'sse9', which this machine or build" in errors
    assert "amx, avx512, avx2 and baseline" in errors


def test_the_environment_chooses():
    assert python(INFO, ANAPHORA_NUM_THREADS="3", OMP_NUM_THREADS="2") == (0, "native 3", "")
    assert python(INFO, ANAPHORA_NUM_THREADS="", OMP_NUM_THREADS="2, 4") == (0, "native 2", "")
    for not_ours in ("", "0", "many", "9" * 30):  # another program may understand it
        environment = {"ANAPHORA_NUM_THREADS": "", "OMP_NUM_THREADS": not_ours}
        assert python(INFO, **environment) == (0, f"native {native.available_threads()}", "")
    assert python(INFO, ANAPHORA_ENGINE="numpy") == (0, "numpy None", "")
    code, _, errors = python(INFO, ANAPHORA_ENGINE="fast")
    assert code == 1
    assert "ANAPHORA_ENGINE is 'fast'; expected 'native' (the default) or 'numpy'" in errors
    for wrong in ("0", "-2", "many", "1.5"):
        code, _, errors = python(INFO, ANAPHORA_NUM_THREADS=wrong)
        assert code == 1
        assert f"ANAPHORA_NUM_THREADS is '{wrong}'; expected an integer from 1" in errors


WITHOUT = """
import sys, warnings

class NotBuilt:
    def find_spec(self, name, path=None, target=None):
        if name == "anaphora.engine._native":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotBuilt())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import anaphora
    from anaphora import engine, nn
    import numpy as np
    y, _ = nn.LSTM(3, 4)(np.ones((5, 2, 3), np.float32))
print(engine.info()["engine"], y.shape)
for warning in caught:
    print(warning.category.__name__, warning.message)
"""


def test_a_missing_module_warns_once():
    code, printed, errors = python(WITHOUT)
    assert (code, errors) == (0, "")
    first, *warnings = printed.splitlines()
    assert first == "numpy (5, 2, 4)"
    assert len(warnings) == 1
    assert warnings[0].startswith("RuntimeWarning anaphora runs on NumPy, slower: ")
    is_checkout = (Path(engine.__file__).parent / "src").is_dir()
    assert ("(No module named 'anaphora.engine._native')" in warnings[0]) == is_checkout
    assert ("could not be compiled when it was installed" in warnings[0]) != is_checkout
    assert "pip install " in warnings[0]
    assert "ANAPHORA_ENGINE=numpy" in warnings[0]


def test_an_installed_package_without_an_engine_says_that_a_compiler_was_missing(tmp_path):
    package = Path(engine.__file__).parents[1]
    shutil.copytree(
        package, tmp_path / "anaphora", ignore=shutil.ignore_patterns("_native*", "src")
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": os.environ.get("PATH", "")}
    done = subprocess.run(
        [sys.executable, "-c", "import anaphora; print(anaphora.engine.info()['engine'])"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "numpy\n"
    assert "could not be compiled when it was installed, as no C++20 compiler" in done.stderr
    assert "pip install --force-reinstall --no-deps --no-cache-dir ." in done.stderr
    assert "No module named" not in done.stderr


def test_too_many_threads_are_refused():
    for count in (0, 1025, 2**70):
        with pytest.raises(ValueError, match=rf"at least 1 and at most 1,024, not {count}"):
            engine.set_num_threads(count)


LIMITED = """
import resource
import numpy as np
from anaphora.engine import native

small = np.ones((300, 300), np.float32)
native.set_num_threads(2)
native.matmul(small, small)
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
limit = pages * resource.getpagesize() + (300 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
large = np.ones((2000, 8000), np.float32)
weights = np.broadcast_to(np.float32(1), (8000, 50000))
for attempt in range(3):
    try:
        native.matmul(large, weights)
    except MemoryError as error:
        print("no memory:", error)
native.set_num_threads(3000)
tall = np.ones((20000, 1), np.float32)
try:
    native.matmul(tall, small[:1])
    native.matmul(tall, np.ones((1, 2000), np.float32))
except MemoryError as error:
    print("no threads:", error)
native.set_num_threads(2)
assert (native.matmul(small, small) == 300).all()
print("continuing")
"""


@on_linux
def test_out_of_memory_or_threads():
    code, printed, errors = python(LIMITED)
    assert (code, errors) == (0, "")
    assert (
        printed.split("\n")[:3] == ["no memory: the engine cannot allocate 400.6 MB of memory"] * 3
    )
    assert "no threads: the engine cannot start its threads, for lack of memory" in printed
    assert "ANAPHORA_NUM_THREADS or engine.set_num_threads asks for fewer" in printed
    assert printed.endswith("continuing")


SUMMING = """
import resource
import numpy as np
from anaphora import Tensor, engine, nn

engine.set_num_threads(2)
layer = nn.RNN(20_000, 32)
y, _ = layer(Tensor(np.ones((20, 64, 20_000), np.float32), requires_grad=True))
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
limit = pages * resource.getpagesize() + (150 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    y.backward(np.ones(y.shape, np.float32))
except MemoryError:
    print("no memory")
"""


@on_linux
def test_out_of_memory_for_the_sums_of_threads():
    assert python(SUMMING) == (0, "no memory", "")


# Memory ------------------------------------------------------------------------------------------


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@on_linux
def test_no_growth_over_steps_of_changing_shapes(problem, rng):
    def some_steps(count):
        for _ in range(count):
            T, B, H = rng.integers(0, 9), rng.integers(0, 30), rng.integers(1, 50)
            p = problem(cells[rng.integers(len(cells))], rng, np.float32, T, B, H)
            lengths = rng.integers(0, T + 1, B) if rng.random() < 0.5 else None
            p.results(native, lengths, record=True)
            product = native.matmul(p.bias_hh[:H, None] if p.bias_hh is not None else one, row)
            native.cross_entropy_forward(product, np.zeros(len(product), int))
            with pytest.raises(ValueError, match="inner sizes"):  # a call that fails keeps nothing
                native.matmul(np.ones((300, 300)), np.ones((299, 300)))

    one, row = np.ones((1, 1), np.float32), np.ones((1, 333), np.float32)
    cells = [lstm, gru, peephole_lstm, mingru]
    some_steps(800)
    gc.collect()
    before = resident()
    some_steps(2000)
    gc.collect()
    assert resident() - before < 16 << 20


def test_results_outlive_the_engine_s_references(problem, rng):
    p = problem(lstm, rng, np.float32, B=9, H=40)
    kept = p.results(native, record=True)
    views = {name: array[..., :3] for name, array in kept.items()}
    copies = {name: array.copy() for name, array in views.items()}
    del kept
    gc.collect()
    for _ in range(20):
        p.copy(lambda array: -array).results(native, record=True)
    assert_equal(views, copies)


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_no_two_live_arrays_share_memory(data, seed):
    rng = np.random.default_rng(seed)
    sizes = [1, 60, 64, 65, 1000, 1024, 1025, 40_000]
    live = []
    for number in range(data.draw(st.integers(5, 40))):
        if live and data.draw(st.booleans()):
            live.pop(rng.integers(len(live)))
        N = data.draw(st.sampled_from(sizes))
        row = np.full((1, 1), number + 1, np.float32)
        array = native.matmul(row, np.ones((1, N), np.float32))
        assert array.flags.writeable
        array += 0.5
        live.append((number + 1.5, array))
        for value, other in live:
            assert (other == value).all()
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for _, a in live)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
