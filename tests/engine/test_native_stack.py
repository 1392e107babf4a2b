"""Packed layers on the native engine: the same bits, sampling, and refused arguments."""

import gc
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anaphora import nn
from anaphora.cells import CELLS, lstm
from anaphora.engine import LayerWeights, kernels

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

FLOATS = [np.float32, np.float64]
V = 23
EPSILON = 1e-3


class Stack:
    """Random layers of a cell, optionally with an embedding table and an output layer."""

    def __init__(
        self, cell, rng, dtype=np.float32, sizes=(5, 7), L=2, P=None, table=0, N=0, normalized=False
    ):
        def normal(*shape):
            return (rng.standard_normal(shape) / max(1, shape[-1]) ** 0.5).astype(dtype)

        I, H = sizes
        Gx, Gh = len(cell.input_gates), len(cell.recurrent_gates)
        self.trace, self.H, self.P, self.L, self.I = cell.trace, H, P or H, L, I
        self.layers = [
            LayerWeights(
                normal(Gx * H, self.P if layer else I),
                normal(Gh * H, self.P) if Gh else None,
                normal(Gx * H),
                normal(Gh * H) if Gh else None,
                normal(P, H) if P else None,
                [normal(H) for _ in cell.parameters],
            )
            for layer in range(L)
        ]
        self.table = normal(table, I) if table else None
        self.output = (normal(N, self.P), normal(N)) if N else None
        self.norms = [(normal(self.P), normal(self.P)) for _ in range(L)] if normalized else []
        self.dtype, self.states = dtype, len(cell.states)

    def pack(self):
        return native.pack_layers(
            self.trace, self.H, self.layers, self.table, self.output, self.norms, EPSILON
        )

    def start(self, B, seed=3):
        rng = np.random.default_rng(seed)
        sizes = [self.P, *[self.H] * (self.states - 1)]
        return [rng.standard_normal((self.L, B, size)).astype(self.dtype) for size in sizes]

    def run(self, x, states):
        """The same result from the recurrence, layer by layer."""
        if self.table is not None:
            x = self.table[x]
        final = []
        for k, layer in enumerate(self.layers):
            T, B, _ = x.shape
            gates = native.matmul(x.reshape(T * B, x.shape[-1]), layer.weight_ih.T, layer.bias_ih)
            gates = gates.reshape(T, B, gates.shape[-1])
            steps = native.recurrence_forward(
                self.trace, gates, [s[k] for s in states],
                layer._replace(weight_ih=None, bias_ih=None),
            )  # fmt: skip
            x = steps.output
            if self.norms:
                rows = x.reshape(T * B, self.P)
                x = native.layer_norm_forward(rows, *self.norms[k], EPSILON)[0].reshape(x.shape)
            final.append(steps.final)
        if self.output is not None:
            rows = x.reshape(len(x) * x.shape[1], x.shape[-1])
            rows = native.matmul(rows, self.output[0].T, self.output[1])
            x = rows.reshape(*x.shape[:2], rows.shape[-1])
        return x, [np.stack(state) for state in zip(*final, strict=True)]


def assert_equal(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def sets():
    before, found = _native.instruction_set(), []
    for name in ("amx", "amx-emulated", "avx512", "avx2", "baseline"):
        if name == "amx-emulated" and "amx" in found:  # test_native_fixed.py compares them
            continue
        try:
            _native.use_instruction_set(name)
            found.append(name)
        except ValueError:
            pass
    _native.use_instruction_set(before)
    return found


@pytest.mark.parametrize("instructions", sets())
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*CELLS, "projected"])
def test_the_bits_of_the_recurrence(name, dtype, instructions, native_settings, rng):
    native_settings.use_instruction_set(instructions)
    cell, P = (lstm, 19) if name == "projected" else (CELLS[name], None)
    # Units of the last vector: half of them, few, one, and one more than half.
    for sizes, table, N in [((5, 40), 0, 0), ((70, 66), 0, 9), ((6, 1), V, 3), ((40, 137), V, 70)]:
        if P and sizes[1] <= P:
            continue
        stack = Stack(cell, rng, dtype, sizes, P=P, table=table, N=N, normalized=table == 0)
        packed = stack.pack()
        for T, B in [(1, 1), (1, 2), (1, 9), (4, 1), (3, 7), (0, 3), (70, 2)]:
            shape = (T, B) if table else (T, B, stack.I)
            x = rng.integers(0, V, shape) if table else rng.standard_normal(shape).astype(dtype)
            states = stack.start(B)
            expected, final = stack.run(x, states)
            assert_equal(packed.run(x, states), expected)
            for state, reference in zip(states, final, strict=True):
                assert_equal(state, reference)


@pytest.mark.pairs
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru", "peephole_lstm", "projected"])
@pytest.mark.parametrize(
    "family", [["amx", "amx-emulated"], ["avx512", "avx2"], ["baseline"]], ids=lambda f: f[0]
)
def test_threads_and_instruction_sets(name, normalized, dtype, family, native_settings, rng):
    """The instruction sets of a family give the same bits."""
    family = [name for name in family if name in sets()]
    if not family:
        pytest.skip("this machine or build has none of them")
    cell, P = (lstm, 150) if name == "projected" else (CELLS[name], None)
    # Large enough for threads to share units, in shares of different sizes.
    stack = Stack(cell, rng, dtype, (30, 210), P=P, table=V, N=V, normalized=normalized)
    for T, B in [(5, 1), (3, 6), (2, 18)]:
        ids, uniforms = rng.integers(0, V, (T, B)), rng.random((9, B))
        results = []
        for instructions in family:
            native_settings.use_instruction_set(instructions)
            packed = stack.pack()
            for count in (1, 2, 3, 5):
                native_settings.set_num_threads(count)
                states = stack.start(B)
                outputs = packed.run(ids, states)
                sampled = packed.generate(ids, states, uniforms, 0.9, 7, 0.9)
                results.append([outputs, sampled, *states])
        expected, _ = stack.run(ids, stack.start(B))
        assert_equal(results[0][0], expected)
        for result in results[1:]:
            for found, reference in zip(result, results[0], strict=True):
                assert_equal(found, reference)


def test_a_row_alone_and_in_a_batch(rng):
    stack = Stack(lstm, rng, sizes=(12, 50), table=V, N=V)
    packed = stack.pack()
    ids = rng.integers(0, V, (4, 11))
    states = stack.start(11)
    alone = [np.ascontiguousarray(s[:, [6]]) for s in states]
    full = packed.run(ids, states)
    assert_equal(packed.run(ids[:, [6]].copy(), alone), full[:, [6]])
    for state, reference in zip(alone, states, strict=True):
        assert_equal(state, reference[:, [6]])


def test_denormal_numbers_count_as_zero(rng):
    stack = Stack(CELLS["rnn_relu"], rng)
    packed = stack.pack()
    tiny = np.full((2, 1, 7), 1e-42, np.float32)
    zeros = np.zeros((2, 1, 7), np.float32)
    x = rng.standard_normal((1, 1, 5)).astype(np.float32)
    assert_equal(packed.run(x, [tiny]), packed.run(x, [zeros]))


# Sampling -----------------------------------------------------------------------------------------

logits_with_ties = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, 2.0, -np.inf]),
        # The engine flushes denormal numbers to 0.
        st.floats(-30, 30, width=32, allow_subnormal=False),
    ),
).filter(lambda x: np.isfinite(x.max(axis=1)).all())


@settings(max_examples=300)
@given(
    logits_with_ties,
    st.sampled_from(FLOATS),
    st.sampled_from([0.0, 1e-320, 0.25, 1.0, 2.5, 1e300]),
    st.sampled_from([0, 1, 2, 7, 1000]),
    st.sampled_from([1e-300, 0.01, 0.3, 0.8, 0.99, 1.0]),
    st.integers(0, 2**32),
)
def test_samples_equal_those_of_numpy(logits, dtype, temperature, top_k, top_p, seed):
    logits = logits.astype(dtype)
    uniforms = np.random.default_rng(seed).random(len(logits))
    options = (temperature, top_k, top_p)
    expected = kernels.sample(logits, uniforms, *options)
    assert_equal(native.sample(logits, uniforms, *options), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.5, 1 - 2**-53])
def test_samples_at_the_edges_of_equal_weights(uniform, dtype):
    # Weights of 1 and 0 are exact on both engines, and so are the sums.
    for size in (1, 2, 4, 8, 33, 64):
        logits = np.zeros((1, size), dtype)
        logits[0, 1::3] = -np.inf
        for top_k in (0, 1, 3, size):
            for top_p in (0.25, 0.5, 1.0):
                options = (np.array([uniform]), 1.0, top_k, top_p)
                assert_equal(native.sample(logits, *options), kernels.sample(logits, *options))


@pytest.mark.parametrize("instructions", sets())
@pytest.mark.parametrize("options", [(0.8, 0, 1.0), (1.0, 50, 1.0), (1.2, 0, 0.9), (1.0, 300, 0.5)])
def test_samples_from_a_large_vocabulary(options, instructions, native_settings, rng):
    native_settings.use_instruction_set(instructions)
    logits = (3 * rng.standard_normal((20, 10_007))).astype(np.float32)
    uniforms = rng.random(20)
    expected = kernels.sample(logits, uniforms, *options)
    assert_equal(native.sample(logits, uniforms, *options), expected)


def test_logits_that_cannot_be_sampled():
    for bad, problem in [(np.nan, "NaN"), (np.inf, r"\+inf"), (-np.inf, "only -inf")]:
        logits = np.full((3, 1), 1.0)
        logits[1] = bad
        with pytest.raises(ValueError, match=f"row 1 of the logits has {problem}"):
            native.sample(logits, np.zeros(3), 1.0, 0, 1.0)
    logits = np.zeros((2, 30), np.float32)
    logits[0, 29] = np.nan
    with pytest.raises(ValueError, match="row 0 of the logits has NaN"):
        native.sample(logits, np.zeros(2), 0, 0, 1.0)
    assert native.sample(np.zeros((0, 4)), np.zeros(0), 1.0, 2, 0.5).shape == (0,)


# What the native module refuses -------------------------------------------------------------------


@pytest.fixture
def parts(rng):
    """The arguments of a valid stack: LSTM, I 3, H 4, two layers, a projection to 2."""

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    layers = [
        [normal(16, size), normal(16, 2), normal(16), normal(16), normal(2, 4), []]
        for size in (3, 2)
    ]
    return {
        "cell": native._cell(lstm.trace),
        "hidden": 4,
        "layers": layers,
        "table": normal(V, 3),
        "output": (normal(V, 2), normal(V)),
        "norms": [(normal(2), normal(2)), (normal(2), normal(2))],
    }


def make(parts):
    module = _native.float32
    stack = module.pack_stack(
        parts["cell"], parts["hidden"], [LayerWeights(*layer) for layer in parts["layers"]],
        parts["table"], parts["output"], parts["norms"], 1e-5, "float32",
    )  # fmt: skip
    return SimpleNamespace(
        run=partial(module.run_stack, stack),
        run_ids=partial(module.run_stack_on_ids, stack),
        generate=partial(module.generate, stack),
    )


def test_a_valid_stack_is_accepted(parts):
    make(parts)


@pytest.mark.parametrize("hidden", [-1, 0, 3, 5, 2**40])
def test_a_wrong_hidden_size(parts, hidden):
    parts["hidden"] = hidden
    with pytest.raises(ValueError, match=r"stack|wrong shape"):
        make(parts)


def test_wrong_layer_norms(parts):
    good = parts["norms"]
    short = np.ones(1, np.float32)
    for bad in (good[:1], [good[0], (short, good[1][1])], [good[0], (good[1][0], short)]):
        parts["norms"] = bad
        with pytest.raises(ValueError, match=r"stack|wrong shape"):
            make(parts)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("layer", [0, 1])
def test_wrong_weights(parts, layer, place):
    good = parts["layers"][layer][place]
    for bad in (good[:-1].copy(), good[:0].copy(), good[None].copy(), good.ravel().copy()):
        if bad.shape == good.shape:
            continue
        parts["layers"][layer][place] = bad
        with pytest.raises(ValueError, match=r"stack|wrong shape|must have two axes"):
            make(parts)
    for bad in (good.astype(float), np.repeat(good, 2, axis=-1)[..., ::2], [1.0], "x"):
        parts["layers"][layer][place] = bad
        with pytest.raises(TypeError):
            make(parts)


def test_missing_and_extra_parts(parts):
    def refused(change):
        broken = {**parts, "layers": [list(layer) for layer in parts["layers"]]}
        change(broken)
        with pytest.raises((ValueError, TypeError)):
            make(broken)

    refused(lambda p: p.update(layers=[]))
    refused(lambda p: p.update(table=p["table"][:0]))
    refused(lambda p: p.update(table=p["table"][:, :2].copy()))
    refused(lambda p: p.update(output=(p["output"][0][:0], None)))
    refused(lambda p: p.update(output=(p["output"][0], p["output"][1][:3])))
    refused(lambda p: p["layers"][1].__setitem__(0, None))
    refused(lambda p: p["layers"][0].__setitem__(0, None))  # the table is not of x halves
    refused(lambda p: p["layers"][1].__setitem__(1, None))
    refused(lambda p: p["layers"][1].__setitem__(4, None))
    refused(lambda p: p["layers"][0].__setitem__(4, None))
    refused(lambda p: p["layers"][0].__setitem__(5, [np.zeros(4, np.float32)]))
    refused(lambda p: p.update(cell=native._cell(CELLS["gru"].trace)))
    refused(lambda p: p.update(cell=None))


def states_for(B, *, P=2, H=4, L=2):
    return [np.zeros((L, B, P), np.float32), np.zeros((L, B, H), np.float32)]


def test_wrong_runs(parts):
    stack = make(parts)
    ids = np.zeros((5, 2), np.int64)
    assert stack.run_ids(ids, states_for(2)).shape == (5, 2, V)
    for states in (
        [], states_for(2)[:1], states_for(2) * 2, states_for(3), states_for(2, L=1),
        states_for(2, P=3), states_for(2, H=5), [s[0] for s in states_for(2)],
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"stack|wrong shape"):
            stack.run_ids(ids, states)
    read_only = states_for(2)
    read_only[1].flags.writeable = False
    strided = states_for(2)
    strided[0] = np.zeros((2, 2, 4), np.float32)[..., ::2]
    for states in (read_only, strided, [s.astype(float) for s in states_for(2)], None):
        with pytest.raises(TypeError):
            stack.run_ids(ids, states)
    for bad in (ids.astype(np.int32), ids.astype(float), ids[:, ::2], None):
        with pytest.raises(TypeError):
            stack.run_ids(bad, states_for(2))
    with pytest.raises(ValueError, match="one row for each row of the states"):
        stack.run_ids(np.zeros(3, np.int64), states_for(2))
    with pytest.raises(ValueError, match="one row for each row of the states"):
        stack.run_ids(ids, states_for(0))
    with pytest.raises(ValueError, match=r"the input must be \[..., I\]"):
        stack.run(np.zeros((1, 2, 3), np.float32), states_for(2))
    for number in (-1, V, 2**62, -(2**63)):
        with pytest.raises(IndexError, match="rows"):
            stack.run_ids(np.full((1, 2), number), states_for(2))
    assert stack.run_ids(np.zeros((3, 0), np.int64), states_for(0)).shape == (3, 0, V)
    assert stack.run_ids(np.zeros((0, 2), np.int64), states_for(2)).shape == (0, 2, V)


def test_wrong_generations(parts):
    stack = make(parts)
    ids, uniforms = np.zeros((1, 2), np.int64), np.zeros((3, 2))
    assert stack.generate(ids, states_for(2), uniforms, 1.0, 0, 1.0)[1] == 3
    for changed in (uniforms[:0], uniforms[:, :1].copy(), uniforms.ravel()):
        with pytest.raises(ValueError, match="generate"):
            stack.generate(ids, states_for(2), changed, 1.0, 0, 1.0)
    with pytest.raises(ValueError, match="generate"):
        stack.generate(ids[:0], states_for(2), uniforms, 1.0, 0, 1.0)
    for options in [(-1.0, 0, 1.0), (np.nan, 0, 1.0), (1.0, -1, 1.0), (1.0, 0, 0.0)]:
        with pytest.raises(ValueError, match="sample"):
            stack.generate(ids, states_for(2), uniforms, *options)
    # Invalid uniforms still sample a valid id.
    for odd in (-1.0, 2.0, np.nan, np.inf):
        sampled, count, _ = stack.generate(ids, states_for(2), uniforms + odd, 1.0, 5, 0.5)
        assert count == 3
        assert sampled.min() >= 0
        assert sampled.max() < V
    parts["output"] = None
    with pytest.raises(ValueError, match="not logits of its ids"):
        make(parts).generate(ids, states_for(2), uniforms, 1.0, 0, 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sessions_do_not_leak_memory():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    layer = nn.LSTM(60, 200, num_layers=2)
    x = np.zeros((3, 60), np.float32)

    def use(count):
        for k in range(count):
            session = layer.session()
            session.feed(x)
            session.fork().feed(x[k % 3])
        gc.collect()

    growth = []
    for _ in range(5):
        before = resident()
        use(25)
        growth.append(resident() - before)
    # One session has 2 MB. What leaks does so in every round; what else the process does, does not.
    assert min(growth) < 4e6
