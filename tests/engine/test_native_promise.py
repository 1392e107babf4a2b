"""The native engine's numerical guarantee, by equality: the same bits however work is divided."""

import functools
import itertools

import numpy as np
import pytest

from anaphora import engine, nn, ops
from anaphora.cells import CELLS, gru, lstm, mingru
from anaphora.engine import recurrence
from anaphora.models import LanguageModel
from anaphora.tensor import no_grad

pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
PRODUCTS = ["float32", "float64", "bfloat16"]
LENGTHS = [3, 0, 5, 5, 1, 4, 2]  # of 7 rows, T = 5
# Sizes that threads share by rows, by units because there are few rows, and by units because the
# weights are large.
SHARED = [(7, 65), (2, 200), (13, 330)]

layers_run_native = pytest.mark.skipif(
    engine.info()["engine"] != "native", reason="layers do not run on the native engine"
)


@pytest.fixture(params=PRODUCTS)
def dtype(request):
    """The dtype of numbers; bfloat16 is that of float32's products."""
    precision = "bfloat16" if request.param == "bfloat16" else "float32"
    with engine.matmul_precision(precision):
        yield np.dtype("float64" if request.param == "float64" else "float32").type


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request):
    """The precision of products of float32."""
    with engine.matmul_precision(request.param):
        yield


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert not np.isnan(array).any()
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def with_threads(native_settings, run):
    """The results with 1, 2, 3 and 5 threads."""
    results = []
    for count in (1, 2, 3, 5):
        native_settings.set_num_threads(count)
        results.append(run())
    return results


# Threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("B", "H"), SHARED)
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "peephole_lstm"])
def test_threads_of_a_recurrence(name, B, H, dtype, native_settings, problem, rng):
    p = problem(CELLS[name], rng, dtype, T=3, B=B, H=H)
    for options in ({}, {"lengths": np.arange(B) % 4, "reverse": True}):
        first, *others = with_threads(
            native_settings, lambda options=options: p.results(native, record=True, **options)
        )
        for other in others:
            assert_equal(other, first)


# Both directions run side by side, or one after the other on all threads.
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(
    ("B", "H", "P"), [(1, 33, None), (3, 140, None), (40, 24, None), (5, 64, 9)]
)
def test_both_directions_are_two_calls(B, H, P, ragged, native_settings, problem, rng):
    T = 6
    lengths = rng.integers(0, T + 1, B) if ragged else None
    for dtype, cell in itertools.product((np.float32, np.float64), (lstm, CELLS["gru"])):
        size = None if cell.reads_output_state() else P
        one, two = (problem(cell, rng, dtype, T=T, B=B, H=H, P=size) for _ in range(2))
        expected = [
            p.results(native, lengths, reverse, record=True)
            for p, reverse in ((one, False), (two, True))
        ]
        results = functools.partial(results_of_both, one, two, lengths)
        for found in with_threads(native_settings, results):
            for direction, wanted in zip(found, expected, strict=True):
                assert_equal(direction, wanted)


def results_of_both(one, two, lengths):
    x, initial, weights, d_output, d_final = (
        (getattr(one, name), getattr(two, name))
        for name in ("x", "initial", "weights", "d_output", "d_final")
    )
    steps = native.bidirectional_forward(one.trace, x, initial, weights, lengths, record=True)
    unsaved = native.bidirectional_forward(one.trace, x, initial, weights, lengths, save=False)
    d = native.bidirectional_backward(one.trace, steps, d_output, d_final, x, weights, lengths)
    for kept, not_kept in zip(steps, unsaved, strict=True):
        for a, b in zip(
            (kept.output, *kept.final), (not_kept.output, *not_kept.final), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    return [p.named_results(*found) for p, *found in zip((one, two), steps, d, strict=True)]


# A step that saves nothing takes several blocks of units at once.
@pytest.mark.parametrize(("B", "H"), [(1, 200), (2, 65), (5, 330), (7, 33)])
@pytest.mark.parametrize("name", ["lstm", "gru", "mingru"])
def test_forward_without_saving(name, B, H, dtype, native_settings, instructions, problem, rng):
    p = problem(CELLS[name], rng, dtype, T=4, B=B, H=H)
    lengths = np.arange(4, 4 + B, dtype=np.int64)[::-1] % 5
    check_without_saving(p, native_settings, lengths=lengths, reverse=True)


# One row has a step of its own, if its units are whole vectors.
@pytest.mark.parametrize(("H", "P"), [(16, None), (64, 29), (192, None), (192, 40), (320, None)])
@pytest.mark.parametrize("name", CELLS)
def test_one_row_without_saving(name, H, P, native_settings, instructions, problem, rng):
    if P is not None and CELLS[name].reads_output_state():
        P = None
    for inputs, biased in ((5, True), (0, True), (5, False)):
        p = problem(CELLS[name], rng, np.float32, T=7, B=1, H=H, P=P, I=inputs)
        if not biased:
            p.bias_ih = p.bias_hh = None
        for options in (
            {},
            {"lengths": np.array([5]), "reverse": True},
            {"lengths": np.array([0])},
        ):
            check_without_saving(p, native_settings, **options)


def check_without_saving(p, native_settings, **options):
    def outputs(save):
        found = native.recurrence_forward(p.trace, p.x, p.initial, p.weights, save=save, **options)
        return [found.output, *found.final]

    expected = outputs(True)
    for found in with_threads(native_settings, lambda: outputs(False)):
        for array, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize("P", [None, 29])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_backward_pass_in_several_spans(ragged, reverse, P, native_settings, problem, rng):
    """Enough steps that weight gradients are summed span by span."""
    T, B, H = 60, 40, 48
    p = problem(lstm, rng, T=T, B=B, H=H, P=P, I=11)
    lengths = rng.integers(0, T + 1, B) if ragged else None
    first, *others = with_threads(native_settings, lambda: p.results(native, lengths, reverse))
    for other in others:
        assert_equal(other, first)
    for name, array in p.results(recurrence, lengths, reverse).items():
        np.testing.assert_allclose(first[name], array, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("P", [20, 150])
@pytest.mark.usefixtures("precision")
def test_threads_of_a_projected_recurrence(P, native_settings, problem, rng):
    p = problem(lstm, rng, np.float32, T=3, B=13, H=100, P=P)
    first, *others = with_threads(
        native_settings, lambda: p.results(native, lengths=np.arange(13) % 4)
    )
    for other in others:
        assert_equal(other, first)


def test_threads_of_the_kernels(dtype, native_settings, rng):
    a, b = rng.standard_normal((300, 170)), rng.standard_normal((170, 210))
    a, b, bias = a.astype(dtype), b.astype(dtype), rng.standard_normal(210).astype(dtype)
    logits, targets = (a @ b).astype(dtype), rng.integers(0, 210, 300)

    def run():
        losses, probabilities = native.cross_entropy_forward(logits, targets)
        return {
            "product": native.matmul(a, b, bias),
            "of transposed": native.matmul(logits.T, a),
            "sums": native.sum_columns(logits),
            "losses": losses,
            "probabilities": probabilities,
            "gradient": native.cross_entropy_backward(probabilities, targets, losses),
            "losses alone": native.linear_cross_entropy_losses(a, b.T, bias, targets),
        }

    first, *others = with_threads(native_settings, run)
    for other in others:
        assert_equal(other, first)


def updated(start, d, state, rows=None):
    """The results of every update for a parameter, a gradient and three state arrays."""
    found = {}
    numbers = {"learning_rate": 0.3, "weight_decay": 0.01, "rows": rows}
    adam = {"betas": (0.8, 0.9), "epsilon": 0.01, "step": 3, "decoupled": True}
    for name, count, options in (
        ("sgd", 0, {"momentum": 0.0, "nesterov": False}),
        ("sgd", 1, {"momentum": 0.7, "nesterov": True}),
        ("adam", 2, adam),
        ("adam", 2, adam | {"decoupled": False}),
        ("rmsprop", 3, {"alpha": 0.7, "epsilon": 0.01, "momentum": 0.7}),
        ("adagrad", 1, {"epsilon": 0.01}),
    ):
        arrays = [start.copy(), *(part.copy() for part in state[:count])]
        given = [None] if name == "sgd" and count == 0 else arrays[1:]
        getattr(native, f"{name}_update")(arrays[0], d, *given, **numbers, **options)
        found |= {f"{name} {options} {k}": a for k, a in enumerate(arrays)}
    return found


def averaged(start, d):
    """The results of the other functions that change arrays; the norm."""
    found = {"average": start.copy(), "scaled": d.copy()}
    native.average_update(found["average"], d, 3)
    native.scale(found["scaled"], 0.7)
    return found | {"norm": np.array(native.global_norm([start, d]))}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 17, 100_001])
def test_threads_of_the_updates(size, dtype, native_settings, rng):
    start, d = rng.standard_normal((2, size)).astype(dtype)
    state = (0.1 + rng.random((3, size))).astype(dtype)
    first, *others = with_threads(
        native_settings, lambda: updated(start, d, state) | averaged(start, d)
    )
    for other in others:
        assert_equal(other, first)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("V", "E"), [(1, 1), (5, 3), (777, 61), (40_003, 1), (3, 20_001), (0, 4)])
def test_updates_by_rows_are_those_by_the_dense_gradient(V, E, dtype, native_settings, rng):
    """Rows within blocks of elements, across their borders, and larger than one."""
    start = rng.standard_normal((V, E)).astype(dtype)
    state = (0.1 + rng.random((3, V, E))).astype(dtype)
    for share in (0, 0.1, 1):
        rows = np.flatnonzero(rng.random(V) < share)
        values = rng.standard_normal((len(rows), E)).astype(dtype)
        dense = np.zeros((V, E), dtype)
        dense[rows] = values
        expected = updated(start, dense, state)
        for found in with_threads(
            native_settings,
            lambda rows=rows, values=values: updated(start, values, state, rows.astype(np.int32)),
        ):
            assert_equal(found, expected)


def layered(x, dy, weight, ids):
    """The results of the kernels of other layers for [N, H]."""
    y, means, factors = native.layer_norm_forward(x, weight, weight, 1e-3)
    dx, d_weight, d_bias = native.layer_norm_backward(x, weight, means, factors, dy)
    found = {"y": y, "means": means, "dx": dx, "d weight": d_weight, "d bias": d_bias}
    found["gathered"] = native.gather_rows(x, ids)
    found["rows"], found["summed"] = native.sum_rows(ids, dy[: len(ids)])
    found["dropped"] = native.dropout(x, 0.3, 2**63 + 5)
    return found | {"locked": native.dropout(x, 0.3, 5, (0,))}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("H", [1, 150, 5000])
def test_threads_of_layers(H, dtype, native_settings, rng):
    x, dy = rng.standard_normal((2, 41, H)).astype(dtype)
    weight, ids = rng.standard_normal(H).astype(dtype), rng.integers(0, 41, 30)
    first, *others = with_threads(native_settings, lambda: layered(x, dy, weight, ids))
    for other in others:
        assert_equal(other, first)


# Other rows and padding --------------------------------------------------------------------------


@pytest.mark.parametrize("K", [5, 300])
def test_an_element_of_a_product_depends_on_its_row_and_column_only(K, dtype, rng):
    M, N = 50, 150
    a, b = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
    bias = rng.standard_normal(N).astype(dtype)
    full = native.matmul(a, b, bias)
    for m in (1, 2, 3, 5, 6, 7, 13, 25, 49):
        rows = rng.permutation(M)[:m]
        np.testing.assert_array_equal(native.matmul(a[rows], b, bias), full[rows])
    for n in (1, 2, 15, 16, 17, 31, 33, 63, 65, 100, 149):
        columns = rng.permutation(N)[:n]
        part = native.matmul(a, b[:, columns], bias[columns])
        np.testing.assert_array_equal(part, full[:, columns])
    rows, columns = rng.permutation(M)[:9], rng.permutation(N)[:20]
    part = native.matmul(a.T.copy().T[rows], b.T.copy().T[:, columns], bias[columns])
    np.testing.assert_array_equal(part, full[np.ix_(rows, columns)])


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_loss_depends_on_its_row_only(dtype, rng):
    logits, targets = rng.standard_normal((40, 77)).astype(dtype), rng.integers(0, 77, 40)
    losses, probabilities = native.cross_entropy_forward(logits, targets)
    for n in (1, 7, 9, 33):
        rows = rng.permutation(40)[:n]
        alone = native.cross_entropy_forward(logits[rows], targets[rows])
        np.testing.assert_array_equal(alone[0], losses[rows])
        np.testing.assert_array_equal(alone[1], probabilities[rows])


def test_a_loss_without_all_logits_depends_on_its_row_only(dtype, rng):
    x, weight = rng.standard_normal((40, 9)).astype(dtype), rng.standard_normal((77, 9))
    weight, targets = weight.astype(dtype), rng.integers(0, 77, 40)
    losses = native.linear_cross_entropy_losses(x, weight, None, targets)
    for n in (1, 7, 9, 33):
        rows = rng.permutation(40)[:n]
        alone = native.linear_cross_entropy_losses(x[rows], weight, None, targets[rows])
        np.testing.assert_array_equal(alone, losses[rows])


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm_depends_on_its_row_only(dtype, rng):
    x, dy = rng.standard_normal((2, 40, 77)).astype(dtype)
    y, means, factors = native.layer_norm_forward(x, None, None, 1e-3)
    dx, *_ = native.layer_norm_backward(x, None, means, factors, dy)
    for n in (1, 7, 9, 33):
        rows = rng.permutation(40)[:n]
        np.testing.assert_array_equal(
            native.layer_norm_forward(x[rows], None, None, 1e-3)[0], y[rows]
        )
        numbers = x[rows], None, means[rows], factors[rows], dy[rows]
        np.testing.assert_array_equal(native.layer_norm_backward(*numbers)[0], dx[rows])


# Optimisers rely on it for row gradients: the last elements of an array, which are not vectorised,
# are updated like the others.
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 3, 15, 17, 33, 100])
@pytest.mark.parametrize("instructions", ["amx", "avx512", "avx2", "baseline"])
def test_rows_are_updated_as_in_their_table(instructions, width, dtype, native_settings, rng):
    try:
        native_settings.use_instruction_set(instructions)
    except ValueError:
        pytest.skip(f"this machine or build has no {instructions}")
    start, d = rng.standard_normal((2, 31, width)).astype(dtype)
    state = (0.1 + rng.random((3, 31, width))).astype(dtype)
    full = updated(start, d, state)
    for rows in ([0], [30], [2, 5, 6], list(range(1, 30))):
        part = updated(start[rows], d[rows], state[:, rows])
        for name in part.keys() - {"norm"}:
            np.testing.assert_array_equal(part[name], full[name][rows], err_msg=name)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_column_sum_depends_on_its_column_only(dtype, rng):
    x = rng.standard_normal((45, 150)).astype(dtype)
    sums = native.sum_columns(x)
    for n in (1, 15, 17, 64, 65, 149):
        columns = rng.permutation(150)[:n]
        np.testing.assert_array_equal(native.sum_columns(x[:, columns]), sums[columns])


def assert_rows(found, batch, rows, steps):
    """The values of some rows equal those within the batch; weights have no rows."""
    for name, array in found.items():
        if name == "output" or name.startswith("value") or name == "d x":
            np.testing.assert_array_equal(array, batch[name][:steps, rows], err_msg=name)
        elif name.startswith(("final", "d state")):
            np.testing.assert_array_equal(array, batch[name][rows], err_msg=name)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_row_alone_and_in_a_batch(name, dtype, reverse, problem, rng):
    p = problem(CELLS[name], rng, dtype, T=5, B=7, H=33)
    full = p.results(native, reverse=reverse, record=True)
    padded = p.results(native, np.array(LENGTHS), reverse, record=True)
    for row, length in enumerate(LENGTHS):
        alone = p.rows([row]).results(native, reverse=reverse, record=True)
        assert_rows(alone, full, [row], 5)
        alone = p.rows([row], slice(length)).results(native, reverse=reverse, record=True)
        assert_rows(alone, padded, [row], length)
        assert not padded["output"][length:, row].any()
        assert not padded["d x"][length:, row].any()
    for count in (2, 3, 5, 6):
        rows = rng.permutation(7)[:count]
        some = p.rows(rows).results(native, np.array(LENGTHS)[rows], reverse, record=True)
        assert_rows(some, padded, rows, 5)


@pytest.mark.parametrize("P", [3, 16, 40])
@pytest.mark.usefixtures("precision")
def test_a_projected_row_alone_and_in_a_batch(P, problem, rng):
    p = problem(lstm, rng, np.float32, T=5, B=7, H=33, P=P)
    padded = p.results(native, np.array(LENGTHS), record=True)
    for row, length in enumerate(LENGTHS):
        alone = p.rows([row], slice(length)).results(native, record=True)
        assert_rows(alone, padded, [row], length)


@pytest.mark.parametrize(("B", "H"), SHARED)
@pytest.mark.usefixtures("precision")
def test_a_row_alone_on_several_threads(B, H, native_settings, problem, rng):
    p = problem(gru, rng, np.float32, T=3, B=B, H=H)
    native_settings.set_num_threads(2)
    full = p.results(native)
    for row in (0, B - 1):
        assert_rows(p.rows([row]).results(native), full, [row], 3)


@pytest.mark.parametrize("cell", [lstm, gru, mingru], ids=lambda c: c.name)
@pytest.mark.usefixtures("precision")
def test_padding_does_not_change_weight_gradients(cell, problem, rng):
    p = problem(cell, rng, np.float32, T=5, B=7, H=20)
    alone = p.rows(slice(None), slice(3)).results(native)
    padded = p.results(native, np.full(7, 3))
    for name in ("d weight_hh", "d bias_hh"):
        if name in alone:
            np.testing.assert_array_equal(padded[name], alone[name], err_msg=name)


def test_padding_does_not_change_gradients_summed_in_spans(dtype, problem, rng):
    """Steps at which no row is active do not move the span boundaries."""
    T, B, H = 60, 150, 48
    p = problem(lstm, rng, dtype, T=T + 9, B=B, H=H, I=11)
    lengths = rng.integers(0, T + 1, B)
    lengths[5] = T
    alone = p.rows(slice(None), slice(T)).results(native, lengths)
    padded = p.results(native, lengths)
    for name in ("d weight_ih", "d bias_ih", "d weight_hh", "d bias_hh"):
        np.testing.assert_array_equal(padded[name], alone[name], err_msg=name)


# All at once, in chunks, step by step ------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[2, 3], [1] * 5, [0, 4, 1]], ids=str)
@pytest.mark.parametrize(("name", "P"), [*((name, None) for name in CELLS), ("lstm", 9)])
def test_all_at_once_or_in_chunks(name, P, dtype, chunks, problem, rng):
    p = problem(CELLS[name], rng, dtype, T=5, B=6, H=35, P=P)
    full = p.results(native, record=True)
    parts, kept, start = [], [], 0
    for count in chunks:
        part = p.rows(slice(None), slice(start, start + count))
        if parts:
            part.initial = kept[-1].final
        parts.append(part)
        kept.append(part.forward(native, record=True))
        start += count
    found = {"output": np.concatenate([steps.output for steps in kept])}
    found |= {f"final {k}": state for k, state in enumerate(kept[-1].final)}
    for value in kept[0].named:
        found[f"value {value}"] = np.concatenate([steps.named[value] for steps in kept])
    d_final, d_x = p.d_final, []
    for part, steps in zip(reversed(parts), reversed(kept), strict=True):
        part.d_final = d_final
        d = part.backward(native, steps)
        d_final = d.states
        d_x.insert(0, d.x)
    found["d x"] = np.concatenate(d_x)
    found |= {f"d state {k}": d for k, d in enumerate(d_final)}
    assert_equal(found, {name: full[name] for name in found})


# Layers and models -------------------------------------------------------------------------------


def numbers(value):
    state = value[1] if isinstance(value[1], tuple) else (value[1],)
    return [value[0].data, *(s.data for s in state)]


LAYERS = {
    "lstm": lambda: nn.LSTM(11, 40, num_layers=2),
    "gru": lambda: nn.GRU(11, 40, num_layers=2, dtype="float64"),
    "rnn": lambda: nn.RNN(11, 40, num_layers=2),
    "projected": lambda: nn.LSTM(11, 40, num_layers=2, proj_size=17),
    "peephole": lambda: nn.Recurrent("peephole_lstm", 11, 40),
}


@layers_run_native
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("precision")
def test_layers(name, rng):
    layer = LAYERS[name]()
    x = rng.standard_normal((6, 5, 11)).astype(layer.dtype)
    with no_grad():
        full = numbers(layer(x))
        for row in range(5):
            alone = numbers(layer(x[:, [row]]))
            for found, expected in zip(alone, full, strict=True):
                np.testing.assert_array_equal(found[:, 0], expected[:, row])
        for size in (1, 4):
            state, outputs = None, []
            for start in range(0, 6, size):
                y, state = layer(x[start : start + size], state)
                outputs.append(y.data)
            for found, expected in zip(numbers((y, state))[1:], full[1:], strict=True):
                np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(np.concatenate(outputs), full[0])


@layers_run_native
@pytest.mark.usefixtures("precision")
def test_padding_in_bidirectional_layers(rng):
    layer = nn.GRU(11, 40, num_layers=2, bidirectional=True)
    x = rng.standard_normal((5, 7, 11)).astype(np.float32)
    with no_grad():
        y, h = layer(x, lengths=LENGTHS)
        for row, length in enumerate(LENGTHS):
            alone, state = layer(x[:length, [row]])
            np.testing.assert_array_equal(alone.data[:, 0], y.data[:length, row])
            np.testing.assert_array_equal(state.data[:, 0], h.data[:, row])


@layers_run_native
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.usefixtures("precision")
def test_language_model(cell, native_settings, rng):
    model = LanguageModel(vocabulary_size=70, hidden_size=130, num_layers=2, cell=cell)
    ids = rng.integers(0, 70, (6, 9))
    with no_grad():
        full, _ = model(ids)
        for row in (0, 4, 8):
            np.testing.assert_array_equal(model(ids[:, [row]])[0].data[:, 0], full.data[:, row])
        state = None
        for t in range(6):
            logits, state = model(ids[[t]], state)
            np.testing.assert_array_equal(logits.data[0], full.data[t])

    def gradients():
        model.zero_grad()
        logits, _ = model(ids)
        loss = ops.cross_entropy(logits, np.roll(ids, -1, axis=0))
        loss.backward()
        found = {name: p.grad for name, p in model.named_parameters()}
        found["embedding.weight"] = found["embedding.weight"].dense()
        return {"loss": loss.data, "logits": logits.data, **found}

    first, *others = with_threads(native_settings, gradients)
    for other in others:
        assert_equal(other, first)


# Instruction sets --------------------------------------------------------------------------------


# The baseline has no fused multiply-add, so its products differ.
def test_avx2_and_avx512(dtype, native_settings, problem, rng):
    a, b = rng.standard_normal((40, 300)), rng.standard_normal((300, 70))
    a, b = a.astype(dtype), b.astype(dtype)
    problems = {c: problem(CELLS[c], rng, dtype, T=3, B=7, H=33) for c in CELLS}
    for B, H in [(30, 16), (40, 33), (100, 32)]:  # enough rows for several tiles
        problems |= {f"{c} {B}": problem(CELLS[c], rng, dtype, T=3, B=B, H=H) for c in CELLS}
    found = []
    for name in ("avx2", "avx512", "amx"):
        if name == "amx" and dtype is np.float32:
            continue  # its products are others
        try:
            native_settings.use_instruction_set(name)
        except ValueError:
            if name == "amx":
                continue
            pytest.skip(f"this machine or build has no {name}")
        assert native.info()["instruction_set"] == name
        results = {"product": native.matmul(a, b), "sums": native.sum_columns(a)}
        results["losses"], results["probabilities"] = native.cross_entropy_forward(
            a, np.arange(40) * 7
        )
        targets = np.arange(40)
        results["losses alone"] = native.linear_cross_entropy_losses(a, b.T.copy(), None, targets)
        results |= layered(a, a[::-1].copy(), b[:, 0].copy(), np.arange(40) * 7 % 40)
        results |= updated(a, a[::-1].copy(), [a * a] * 3)
        for c, p in problems.items():
            values = p.results(native, np.arange(p.x.shape[1]) % 4, record=True)
            results |= {f"{c} {key}": value for key, value in values.items()}
        found.append(results)
    first, *others = found
    for other in others:
        assert_equal(other, first)
