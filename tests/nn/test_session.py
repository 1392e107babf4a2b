"""Sessions of layers: the values of the layer itself, the state, forks, and what is refused."""

import copy
import itertools
import pickle
import threading

import numpy as np
import pytest

from anaphora import cell, engine, matmul_precision, nn, random
from anaphora.cells import CELLS
from anaphora.equations import sigmoid, tanh
from anaphora.tensor import Tensor, no_grad

T, B, I, H, L = 6, 3, 5, 7, 2
NATIVE = engine.info()["engine"] == "native"


@cell(gates="f n", state="h", fused=False)
def untraced(f, n, h):
    f = sigmoid(f)
    return f * h + (1.0 - f) * tanh(n)


@cell(gates="a b", state="s u v", parameters="p")
def odd_states(a, b, s, u, v, p):
    """States that change places, and one that is not read."""
    new_u = sigmoid(a.x) * v + p
    return tanh(b.h + u), new_u, s


def make(name, dtype="float32", **options):
    random.seed(4)
    given = {"input_size": I, "hidden_size": H, "num_layers": L, "dtype": dtype, **options}
    return nn.Recurrent(name, **given)


def states_of(layer, *batch, seed=0):
    rng = np.random.default_rng(seed)
    shapes = layer.state_shapes(*batch).values()
    states = tuple(rng.standard_normal(shape).astype(layer.dtype) for shape in shapes)
    return states if len(states) > 1 else states[0]


def as_arrays(state):
    return [np.asarray(s.data) for s in (state if isinstance(state, tuple) else (state,))]


def complete(layer, x, state):
    """The outputs and the last state of the layer itself."""
    with no_grad():
        outputs, after = layer.eval()(x, state)
    return outputs.data, as_arrays(after)


def assert_same(found, expected):
    """The same bits on the native engine; BLAS may add in another order."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if NATIVE:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


LAYERS = {
    **{name: {"name": name} for name in CELLS},
    "projection": {"name": "lstm", "proj_size": 4},
    "no bias": {"name": "gru", "bias": False},
    "one layer": {"name": "lstm", "num_layers": 1},
    "odd states": {"name": odd_states},
    "untraced": {"name": untraced},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_steps_have_the_values_of_the_full_sequence(options, dtype, rng):
    layer = make(**options, dtype=dtype)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    start = states_of(layer, B)
    expected, last = complete(layer, x, start)
    session = layer.session(B)
    for pieces in ([T], [1] * T, [2, 0, 3, 1]):
        session.state = start
        found, at = [], 0
        for count in pieces:
            found.append(session.feed(x[at : at + count]))
            at += count
        assert_same(np.concatenate(found), expected)
        for state, reference in zip(as_arrays(session.state), last, strict=True):
            assert_same(state, reference)
    session.state = start
    assert_same(np.stack([session.feed(step) for step in x]), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_one_sequence_has_no_axis_for_the_batch(options, dtype, rng):
    layer = make(**options, dtype=dtype)
    x = rng.standard_normal((T, I)).astype(dtype)
    start = states_of(layer)
    expected, last = complete(layer, x, start)
    session = layer.session()
    session.state = start
    found = [
        session.feed(x[0])[None],
        session.feed(x[1:4]),
        *(session.feed(s)[None] for s in x[4:]),
    ]
    assert_same(np.concatenate(found), expected)
    for state, reference in zip(as_arrays(session.state), last, strict=True):
        assert_same(state, reference)


@pytest.mark.parametrize("hidden", [1, 16, 65, 130, 200])
@pytest.mark.parametrize("batch", [1, 2, 7, 20])
def test_sizes_of_all_tiles(hidden, batch, rng):
    for name in ("lstm", "rnn", "gru"):
        layer = make(name, hidden_size=hidden)
        x = rng.standard_normal((3, batch, I)).astype(np.float32)
        session = layer.session(batch)
        assert_same(session.feed(x), complete(layer, x, None)[0])


# The engine takes a block of one sequence in one call; of up to 8 units on narrow vectors.
@pytest.mark.parametrize("hidden", [5, 8, 16, 40, 64, 130])
@pytest.mark.parametrize("name", ["lstm", "gru", "peephole_lstm"])
def test_more_steps_than_are_run_at_once(name, hidden, rng):
    layer = make(name, hidden_size=hidden)
    x = rng.standard_normal((150, I)).astype(np.float32)
    expected, last = complete(layer, x, None)
    session = layer.session()
    found = [session.feed(x[:70]), session.feed(x[70:])]
    assert_same(np.concatenate(found), expected)
    for state, reference in zip(as_arrays(session.state), last, strict=True):
        assert_same(state, reference)


@pytest.mark.parametrize("name", ["lstm", untraced], ids=["lstm", "untraced"])
def test_batch_first_is_for_several_steps(name, rng):
    layer = make(name, batch_first=True)
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    expected, _ = complete(layer, x, None)
    session = layer.session(B)
    assert_same(session.feed(x[:, 0]), expected[:, 0])
    assert_same(session.feed(x[:, 1:]), expected[:, 1:])
    single = layer.session()
    assert_same(single.feed(x[1]), expected[1])


def test_dropout_is_off_and_the_mode_of_the_layer_is_left_alone(rng):
    layer = make("lstm", dropout=0.5).train()
    x = rng.standard_normal((T, I)).astype(np.float32)
    session = layer.session()
    found = session.feed(x)
    assert layer.training
    assert_same(found, complete(layer, x, None)[0])


@pytest.mark.parametrize("name", ["lstm", untraced])
def test_a_session_keeps_the_weights_that_it_was_made_with(name, rng):
    layer = make(name)
    x = rng.standard_normal((T, I)).astype(np.float32)
    expected, _ = complete(layer, x, None)
    session = layer.session()
    for parameter in layer.parameters():
        with parameter.writing() as array:
            array[...] = 1
    assert_same(session.feed(x), expected)
    assert not np.allclose(layer.session().feed(x), expected)


def test_what_is_fed_may_be_lists_tensors_and_any_layout(rng):
    layer = make("gru")
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    session = layer.session(B)
    expected = session.fork().feed(x)
    x.flags.writeable = False
    for given in (x, x.tolist(), Tensor(x), np.asfortranarray(x), x.repeat(2, axis=2)[..., ::2]):
        assert_same(session.fork().feed(given), expected)
        assert_same(session.fork().feed(given[0]), expected[0])


# The state ----------------------------------------------------------------------------------------


def test_the_state_starts_at_zero_and_is_a_copy(rng):
    session = make("lstm").session(B)
    h, c = session.state
    assert h.shape == c.shape == (L, B, H)
    assert not h.any()
    assert not c.any()
    h[...] = 1
    assert not session.state[0].any()
    x = rng.standard_normal((B, I)).astype(np.float32)
    first = session.feed(x)
    assert session.state[0].any()
    session.reset()
    np.testing.assert_array_equal(session.feed(x), first)
    session.state = None
    np.testing.assert_array_equal(session.feed(x), first)


@pytest.mark.parametrize("batch", [None, B])
@pytest.mark.parametrize("options", [{"name": "gru"}, {"name": "lstm", "proj_size": 4}], ids=str)
def test_a_state_goes_to_a_file_and_to_another_session(options, batch, tmp_path, rng):
    layer = make(**options)
    one, other = layer.session(batch), layer.session(batch)
    x = rng.standard_normal((T, I) if batch is None else (T, batch, I)).astype(np.float32)
    one.feed(x[:4])
    np.savez(tmp_path / "state.npz", **one.state_dict())
    with np.load(tmp_path / "state.npz") as saved:
        assert sorted(saved) == sorted(layer.cell.states)
        other.load_state_dict(saved)
    np.testing.assert_array_equal(one.feed(x[4:]), other.feed(x[4:]))


def test_a_state_goes_to_the_layer_and_back(rng):
    layer = make("lstm")
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    expected, _ = complete(layer, x, None)
    session = layer.session(B)
    session.feed(x[:2])
    y, state = complete(layer, x[2:4], session.state)
    assert_same(y, expected[2:4])
    session.state = tuple(Tensor(s) for s in state)
    assert_same(session.feed(x[4:]), expected[4:])


def test_forks_go_on_by_themselves(rng):
    layer = make("lstm")
    x = rng.standard_normal((T, I)).astype(np.float32)
    session = layer.session()
    session.feed(x[:3])
    fork = session.fork()
    before = session.state_dict()
    fork.feed(x[3:])
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    np.testing.assert_array_equal(session.feed(x[3:]), layer.session().feed(x)[3:])


def test_forks_run_in_threads_at_the_same_time(rng):
    layer = make("gru", hidden_size=70)
    session = layer.session(2)
    x = rng.standard_normal((40, 2, I)).astype(np.float32)
    expected = session.fork().feed(x)
    found = {}

    def run(number):
        fork = session.fork()
        found[number] = np.stack([fork.feed(step) for step in x])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs in found.values():
        assert_same(outputs, expected)
    assert len(found) == 4


def test_nan_stays_in_its_row(rng):
    session = make("lstm").session(B)
    x = rng.standard_normal((B, I)).astype(np.float32)
    expected = session.fork().feed(x)
    x[1, 2] = np.nan
    found = session.feed(x)
    assert np.isnan(found[1]).any()
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


# What is refused ----------------------------------------------------------------------------------


def test_bad_inputs_are_explained():
    session = make("lstm").session(B)
    before = session.state_dict()
    message = r"expected \[3, 5\] for one step, \[T, 3, 5\] for T of them"
    for shape in [(B, I + 1), (B + 1, I), (I,), (T, B, I, 1), (), (T, B)]:
        with pytest.raises(ValueError, match=message):
            session.feed(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"expected \[5\] for one step, \[T, 5\] for T of them"):
        make("lstm").session().feed(np.zeros((T, B, I), np.float32))
    with pytest.raises(ValueError, match=r"\[3, T, 5\] for T of them"):
        make("lstm", batch_first=True).session(B).feed(np.zeros((T, B, I), np.float32))
    with pytest.raises(TypeError, match=r"an input of float64 for a layer of float32; convert it"):
        session.feed(Tensor(np.zeros((B, I))))
    with pytest.raises(TypeError, match="feed: an input: cannot hold complex128"):
        session.feed(np.zeros((B, I), complex))
    with pytest.raises(ValueError, match=r"feed: an input: 1e\+300 is too large for float32"):
        session.feed(np.full((B, I), 1e300))
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_and_lists_are_converted(dtype, rng):
    layer = make("lstm", dtype=dtype)
    x = rng.integers(-3, 4, (T, B, I))
    expected = layer.session(B).feed(x.astype(dtype))
    for given in (x, x.astype("f2"), x.astype("f4"), x.astype("f8"), x.tolist()):
        session = layer.session(B)
        session.load_state_dict({n: s.astype("f8") for n, s in session.state_dict().items()})
        steps = [session.feed(step) for step in given]
        assert steps[0].dtype == dtype
        assert_same(np.stack(steps), expected)
        assert_same(layer.session(B).feed(given), expected)


def test_bad_states_are_explained_and_change_nothing(rng):
    session = make("lstm").session(B)
    session.feed(rng.standard_normal((B, I)).astype(np.float32))
    before = session.state_dict()
    good = np.zeros((L, B, H), np.float32)
    for state, error, message in [
        ({"h": good}, KeyError, "the state has h; expected h, c"),
        ({}, KeyError, "the state has no arrays; expected h, c"),
        ({"h": good, "c": good, "d": good}, KeyError, "the state has h, c, d; expected h, c"),
        ({"h": good, "c": good[:1]}, ValueError, r"c has shape \(1, 3, 7\); expected \(2, 3, 7\)"),
        (
            {"h": good, "c": Tensor(good.astype(float))},
            TypeError,
            "c of float64 for a layer of flo",
        ),
        ({"h": good, "c": good.astype(complex)}, TypeError, "load_state_dict: c: cannot hold"),
    ]:
        with pytest.raises(error, match=message):
            session.load_state_dict(state)
    with pytest.raises(ValueError, match=r"the state is \(h, c\), 2 arrays; 1 were given"):
        session.state = good
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_layers_that_cannot_be_fed_and_batch_sizes():
    with pytest.raises(ValueError, match="a bidirectional layer has no session"):
        make("lstm", bidirectional=True).session()
    for size in (0, -1, 2.0, "3"):
        with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
            make("lstm").session(size)


def test_a_layer_that_computes_something_else_is_run_itself(rng):
    class Doubled(nn.GRU):
        def forward(self, x, state=None, lengths=None, record=False):
            y, state = super().forward(x, state, lengths)
            return y * 2.0, state

    random.seed(1)
    layer = Doubled(I, H)
    x = rng.standard_normal((T, I)).astype(np.float32)
    assert_same(layer.session().feed(x), complete(layer, x, None)[0])


# A model around the layer -------------------------------------------------------------------------


class Averaging(nn.Module):
    """A classifier of ids by the mean output, on complete sequences and in its sessions."""

    def __init__(self, cell="lstm", dtype="float32", layers=L, **options):
        random.seed(6)
        self.embedding = nn.Embedding(9, I, dtype=dtype)
        self.recurrent = nn.Recurrent(cell, I, H, layers, dtype=dtype, **options)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(H, 4, dtype=dtype)

    def forward(self, ids):
        """The answers after each step: [T, B, 4]."""
        y, _ = self.recurrent(2.0 * self.dropout(self.embedding(ids)))
        steps = np.arange(1, len(y) + 1, dtype=y.dtype)[:, None, None]
        return self.output(np.cumsum(y.data, axis=0) / steps)

    def session(self, batch_size=None):
        return nn.Session(
            self.recurrent,
            batch_size,
            self,
            step=(),
            dtype=np.int64,
            before=doubled_embedding,
            after=running_mean,
            memory={"total": np.zeros(H, self.recurrent.dtype), "steps": 0},
        )


def doubled_embedding(model, ids):
    return 2.0 * model.dropout(model.embedding(ids))


def running_mean(model, h, memory):
    totals = np.cumsum([memory["total"], *h], axis=0)
    steps = memory["steps"] + np.arange(len(totals))[:, None]
    memory["total"][...], memory["steps"][...] = totals[-1], steps[-1]
    return model.output(totals[1:] / steps[1:, :, None].astype(h.dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell_", ["lstm", "gru", untraced], ids=["lstm", "gru", "untraced"])
def test_a_model_answers_as_it_is_fed(cell_, dtype, rng):
    model = Averaging(cell_, dtype).train()
    ids = rng.integers(0, 9, (T, B))
    with no_grad():
        expected = model.eval()(ids).data
    model.train()
    session, single = model.session(B), model.session()
    first = session.feed(ids[:2])
    assert first.dtype == dtype
    found = np.concatenate([first, session.feed(ids[2])[None], session.feed(ids[3:].tolist())])
    assert_same(found, expected)
    assert session.feed(ids[:0]).shape == (0, B, 4)
    assert session.state_dict()["steps"].tolist() == [T] * B
    assert_same(single.feed(int(ids[0, 1])), expected[0, 1])
    assert_same(single.feed(ids[1:, 1]), expected[1:, 1])
    assert model.training


def test_the_memory_is_part_of_the_state(rng):
    model, ids = Averaging(), rng.integers(0, 9, (T, B))
    whole_session = model.session(B)
    expected = whole_session.feed(ids)
    session = model.session(B)
    session.feed(ids[:4])
    saved = session.state_dict()
    assert {name: array.shape for name, array in saved.items()} == {
        "h": (L, B, H), "c": (L, B, H), "total": (B, H), "steps": (B,),
    }  # fmt: skip
    resumed = model.session(B)
    resumed.load_state_dict(saved)
    for other in (session.fork(), pickle.loads(pickle.dumps(session)), resumed):
        assert_same(other.feed(ids[4:]), expected[4:])
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, saved[name])
    session.state = whole_session.state  # the layer's alone
    np.testing.assert_array_equal(session.state_dict()["total"], saved["total"])
    np.testing.assert_array_equal(session.state[1], whole_session.state[1])
    session.reset()
    assert_same(session.feed(ids), expected)


def test_a_model_is_as_it_was_when_its_session_was_made(rng):
    model, ids = Averaging(), rng.integers(0, 9, (T, B))
    with no_grad():
        expected = model.eval()(ids).data
    session = model.session(B)
    for parameter in model.parameters():
        with parameter.writing() as array:
            array += 1
    assert_same(session.fork().feed(ids), expected)
    model.output = nn.Linear(H, 4)
    assert_same(pickle.loads(pickle.dumps(session)).feed(ids), expected)


@pytest.mark.parametrize("cell_", ["gru", untraced], ids=["gru", "untraced"])
def test_a_table_and_an_output_run_natively_or_by_operations(cell_, rng):
    model, ids = Averaging(cell_), rng.integers(0, 9, (T, B))
    weights = {"table": model.embedding.weight, "output": (model.output.weight, None)}
    session = nn.Session(model.recurrent, B, model, **weights)
    with no_grad():
        y, _ = model.recurrent(model.embedding(ids))
        expected = y.data @ model.output.weight.data.T
    for parameter in model.parameters():
        with parameter.writing() as array:
            array[...] = 1
    found = np.concatenate([session.feed(ids[0])[None], session.feed(ids[1:])])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(IndexError, match="for a table of 9 rows"):
        session.feed([9, 0, 0])
    with pytest.raises(TypeError, match="ids are integers, not float64"):
        session.feed([1.0, 2.0, 3.0])
    again = pickle.loads(pickle.dumps(session))
    np.testing.assert_array_equal(again.feed(ids), session.feed(ids))


def test_features_of_their_own_shape_and_batch_first(rng):
    layer = make("gru", batch_first=True)
    x = rng.standard_normal((B, T, 2, I)).astype(np.float32)
    expected, _ = complete(layer, x[:, :, 0] - x[:, :, 1], None)
    session = nn.Session(layer, B, step=(2, I), before=lambda layer, x: x[..., 0, :] - x[..., 1, :])
    assert_same(session.feed(x[:, 0]), expected[:, 0])
    assert_same(session.feed(x[:, 1:]), expected[:, 1:])
    with pytest.raises(
        ValueError, match=r"expected \[3, 2, 5\] for one step, \[3, T, 2, 5\] for T"
    ):
        session.feed(x[:, :, 0])


class Pairs:
    """Frames of two steps [I - 2], of which the layer reads the sum and the last two numbers."""

    stride, size = 1, 2

    def vectors(self, cut):
        assert cut.dtype == np.float64
        return np.concatenate([cut.sum(axis=1), cut[:, 1, :2]], axis=1)


@pytest.mark.parametrize("cell_", ["lstm", untraced], ids=["lstm", "untraced"])
def test_a_layer_reads_frames_of_steps(cell_, rng):
    layer = make(cell_)
    x = rng.standard_normal((T, B, I - 2))
    session = nn.Session(
        layer, B, step=(I - 2,), dtype=np.float64, before=lambda layer, x: 2 * x, frames=Pairs()
    )
    z = 2 * x
    pairs = [np.concatenate([a + b, b[:, :2]], axis=1) for a, b in itertools.pairwise(z)]
    expected = []
    for t in range(T):
        last = np.concatenate([z[t] + z[t], z[t][:, :2]], axis=1)
        inputs = np.array([*pairs[:t], last], np.float32)
        expected.append(complete(layer, inputs, None)[0][-1])
    assert_same(np.concatenate([session.feed(x[:1]), session.feed(x[1:])]), np.array(expected))
    assert session.feed(x[:0]).shape == (0, B, H)
    np.testing.assert_array_equal(session.state_dict()["waiting"], z[-1][:, None])
    # The state is that after the frames that are complete.
    _, states = complete(layer, np.array(pairs, np.float32), None)
    for found, state in zip(session.state_dict().values(), states, strict=False):
        np.testing.assert_allclose(found, state, rtol=1e-6)


def test_bad_models_of_sessions_are_reported(rng):
    layer = make("lstm")
    with pytest.raises(
        ValueError, match="a memory 'c' of float32; expected floats, by a name other"
    ):
        nn.Session(layer, memory={"c": 0})
    frames = Pairs()
    with pytest.raises(
        ValueError, match=r"a memory 'waiting' of float32; .* other than the states"
    ):
        nn.Session(layer, memory={"waiting": 0.0}, frames=frames)
    for stride in (0, 3):
        frames.stride = stride
        with pytest.raises(ValueError, match=f"frames of 2 steps, {stride} apart; expected a stri"):
            nn.Session(layer, frames=frames)
    with pytest.raises(ValueError, match="a memory 'steps' of int64; expected floats"):
        nn.Session(layer, memory={"steps": np.array(0)})
    session = nn.Session(layer, B, after=lambda layer, h, memory: h[0])
    with pytest.raises(
        ValueError, match=r"after returned the shape \(3, 7\); expected \[6, 3, '...'\]"
    ):
        session.feed(rng.standard_normal((T, B, I)))
    session = nn.Session(layer, B, before=lambda layer, x: Tensor(x.astype(np.float64)))
    with pytest.raises(
        TypeError, match="session: the result of before of float64 for a layer of float32"
    ):
        session.feed(rng.standard_normal((T, B, I)))
    assert not session.state[0].any()


def test_a_session_shows_what_it_is():
    assert repr(make("lstm").session(B)) == (
        "Session(Recurrent(lstm, 5, 7, num_layers=2) (840 parameters), batch_size=3, "
        "h [2, 3, 7], c [2, 3, 7])"
    )
    assert repr(Averaging("gru").session()) == (
        "Session(Averaging (707 parameters), batch_size=None, h [2, 7], total [7], steps [])"
    )


# Threads ------------------------------------------------------------------------------------------


def test_a_second_thread_is_reported_and_changes_nothing(rng):
    layer = make("lstm")
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    expected, last = complete(layer, x, None)
    inside, finish, found = threading.Event(), threading.Event(), []

    def waiting(layer, x):
        inside.set()
        assert finish.wait(60)
        return x

    session = nn.Session(layer, B, before=waiting)
    thread = threading.Thread(target=lambda: found.append(session.feed(x)))
    thread.start()
    assert inside.wait(60)
    state = tuple(np.ones((L, B, H), np.float32) for _ in "hc")
    uses = {
        "feed": lambda: session.feed(x),
        "state_dict": lambda: session.state,
        "fork": session.fork,
        "reset": session.reset,
        "load_state_dict": lambda: session.load_state_dict(dict(zip("hc", state, strict=True))),
        "pickling": lambda: pickle.dumps(session),
    }
    for method, use in uses.items():
        with pytest.raises(RuntimeError, match=f"{method}: another thread is feeding this session"):
            use()
    finish.set()
    thread.join()
    assert_same(found[0], expected)
    for array, reference in zip(session.state, last, strict=True):
        assert_same(array, reference)
    session.reset()
    assert_same(session.feed(x), expected)  # one after the other is no mistake


def test_a_refused_input_leaves_the_session_free(rng):
    session = make("lstm").session(B)
    with pytest.raises(ValueError, match="feed: an input of shape"):
        session.feed(np.zeros(2, np.float32))
    assert session.feed(np.zeros((B, I), np.float32)).shape == (B, H)
    with pytest.raises(KeyError):
        session.load_state_dict({})
    session.reset()


@pytest.mark.parametrize("name", ["lstm", odd_states, untraced])
def test_a_resized_session_has_the_weights_but_not_the_state(name):
    layer = make(name)
    x = np.random.default_rng(2).standard_normal((T, B, I)).astype(np.float32)
    session = layer.session()
    session.feed(x[:, 0])
    with layer.weight_ih_l0.writing() as array:
        array += 1  # which the snapshot of the session does not see
    resized = session.resized(B)
    assert resized.batch_size == B
    outputs = resized.feed(x)
    for b in range(B):
        single = resized.resized(None)
        assert_same(single.feed(x[:, b]), outputs[:, b])
    assert session.batch_size is None
    again = pickle.loads(pickle.dumps(resized))
    assert_same(again.feed(x), resized.feed(x))
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        session.resized(0)


def test_a_resized_session_has_the_initial_memory_of_each_sequence():
    layer = make("gru")

    def after(layer, h, memory):
        memory["steps"][...] += len(h)
        return np.broadcast_to(memory["steps"][:, None], (*h.shape[:2], 1))

    session = nn.Session(layer, after=after, memory={"steps": 3.0})
    session.feed(np.zeros((T, I), np.float32))
    assert session.resized(B).feed(np.zeros((2, B, I), np.float32)).tolist() == [[[5.0]] * B] * 2


# The precision of products -----------------------------------------------------------------------


class TwoAtATime:
    """Frames of two steps: the input is their sum."""

    stride, size = 2, 2

    def vectors(self, cut):
        return cut.sum(axis=1)


MADE = {
    "packed": lambda: make("lstm").session(B),
    "untraced": lambda: make(untraced).session(B),
    "frames": lambda: nn.Session(make("gru"), B, frames=TwoAtATime()),
    "before and after": lambda: Averaging().session(B),
    "before and after, untraced": lambda: Averaging(untraced).session(B),
}


@pytest.mark.parametrize("made", MADE)
def test_a_session_has_the_precision_of_its_construction(made, rng):
    """Wherever it is fed, as its forks and copies."""
    ids = made.startswith("before")
    x = rng.integers(0, 9, (T, B)) if ids else rng.standard_normal((T, B, I)).astype("f")
    plain, expected = MADE[made](), {}
    with matmul_precision("bfloat16"):
        rounded = MADE[made]()
        expected["bfloat16"] = rounded.feed(x)  # fed where it was made
    expected["float32"] = plain.feed(x)
    assert np.abs(expected["bfloat16"] - expected["float32"]).max() > 1e-4
    for precision, session in (("bfloat16", rounded), ("float32", plain)):
        session.reset()
        for elsewhere in ("float32", "bfloat16"):
            with matmul_precision(elsewhere):
                others = [
                    session.fork(),
                    copy.copy(session),
                    copy.deepcopy(session),
                    session.resized(B),
                    pickle.loads(pickle.dumps(session)) if made != "untraced" else session.fork(),
                ]
                others.append(others[-1].resized(B))
            for other in (*others, *(one.fork() for one in others)):
                with matmul_precision(elsewhere):
                    found = [other.feed(x[:1]), other.feed(x[1:3])]
                found.append(other.feed(x[3:]))
                assert_same(np.concatenate(found), expected[precision])


@pytest.mark.parametrize("layer", [{"name": "lstm", "proj_size": 4}, {"name": untraced}], ids=str)
def test_a_session_in_bfloat16_has_the_outputs_of_its_layer(layer, rng):
    layer = make(**layer)
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    with matmul_precision("bfloat16"):
        expected, _ = complete(layer, x, None)
        session = layer.session(B)
    assert_same(np.stack([session.feed(step) for step in x]), expected)
