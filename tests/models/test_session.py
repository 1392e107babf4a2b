"""Sessions of a language model: the model's own scores, and what it continues with."""

import pickle
import threading

import numpy as np
import pytest

from anaphora import engine, nn, random
from anaphora.cells import CELLS
from anaphora.generation import Sampler
from anaphora.models import LanguageModel
from anaphora.tensor import no_grad

V, E, H, T, B = 11, 5, 7, 6, 3
NATIVE = engine.info()["engine"] == "native"


def make(dtype="float32", **options):
    random.seed(3)
    given = {"embedding_size": E, "num_layers": 2, "dtype": dtype, **options}
    model = LanguageModel(
        given.pop("vocabulary_size", V), hidden_size=given.pop("hidden_size", H), **given
    )
    for parameter in model.parameters():  # wide, so that the scores differ
        with parameter.writing() as array:
            array *= 2
    return model.eval()


def complete(model, ids):
    with no_grad():
        logits, state = model(ids)
    return logits.data, state


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if NATIVE:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# With at most E ids their products are looked up, and with more they are computed.
MODELS = {
    **{name: {"cell": name} for name in CELLS},
    "few ids": {"vocabulary_size": 4},
    "few ids, gru": {"vocabulary_size": 5, "cell": "gru"},
    "tied": {"tied": True, "embedding_size": H},
    "one layer": {"num_layers": 1, "vocabulary_size": 3},
}


def draw_ids(rng, model, *shape):
    return rng.integers(0, model.vocabulary_size, shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_steps_have_the_scores_of_the_full_sequence(options, dtype, rng):
    model = make(dtype, **options)
    ids = draw_ids(rng, model, T, B)
    expected, state = complete(model, ids)
    session = model.session(B)
    for pieces in ([T], [1] * T, [2, 0, 3, 1]):
        session.reset()
        found, at = [], 0
        for count in pieces:
            found.append(session.feed(ids[at : at + count]))
            at += count
        assert_same(np.concatenate(found), expected)
    states = state if isinstance(state, tuple) else (state,)
    for array, reference in zip(session.state_dict().values(), states, strict=True):
        assert_same(array, reference.data)
    single = model.session()
    assert_same(single.feed(int(ids[0, 0])), expected[0, 0])
    assert_same(single.feed(ids[1:, 0].tolist()), expected[1:, 0])


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64])
def test_ids_are_integers_of_any_width(dtype, rng):
    session = make().session(B)
    ids = draw_ids(rng, make(), T, B)
    expected = session.fork().feed(ids)
    assert_same(session.fork().feed(ids.astype(dtype)), expected)
    assert_same(session.feed(np.asfortranarray(ids.astype(dtype))[0]), expected[0])


# Generation ---------------------------------------------------------------------------------------

SAMPLERS = [
    Sampler(0),
    Sampler(1.0),
    Sampler(0.7, top_k=4),
    Sampler(1.3, top_p=0.8),
    Sampler(0.9, top_k=100, top_p=0.5),
]


def by_hand(model, ids, sampler, uniforms):
    """The same, each step the model's own and each draw the sampler's."""

    class Given:
        def random(self, shape):
            return next(rows).reshape(shape)

    rows = iter(uniforms)
    state, sampled = None, []
    for _ in uniforms:
        with no_grad():
            logits, state = model(ids, state)
        ids = sampler.sample(logits.data[-1], Given())[None]
        sampled.append(ids[0])
    return np.array(sampled)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("options", [{}, {"vocabulary_size": 4, "cell": "gru"}], ids=str)
def test_what_is_generated_is_what_the_sampler_draws_step_by_step(options, sampler, rng):
    model = make("float64", **options)
    ids, uniforms = draw_ids(rng, model, T, B), rng.random((40, B))
    turns = (sampler.temperature, sampler.top_k, sampler.top_p)
    expected = by_hand(model, ids, sampler, uniforms)
    session = model.session(B)
    fork = session.fork()
    sampled = session.generate(ids, uniforms, *turns)
    assert sampled.dtype == np.int64
    np.testing.assert_array_equal(sampled, expected)
    if sampler.temperature:
        assert len(np.unique(sampled)) > 2

    again = model.session(B).generate(np.asfortranarray(ids), np.asfortranarray(uniforms), *turns)
    np.testing.assert_array_equal(again, expected)

    # Cut anywhere, and a row alone.
    first = fork.generate(ids, uniforms[:7], *turns)
    rest = fork.generate(first[-1], uniforms[7:], *turns)
    np.testing.assert_array_equal(np.concatenate([first, rest]), expected)
    assert_same(session.feed(sampled[-1]), fork.feed(sampled[-1]))
    alone = model.session().generate(ids[:, 1], uniforms[:, 1], *turns)
    np.testing.assert_array_equal(alone, expected[:, 1])


def test_no_length_only_reads(rng):
    model = make()
    one, other = model.session(), model.session()
    assert one.generate([1, 2, 3], []).shape == (0,)
    other.feed([1, 2, 3])
    np.testing.assert_array_equal(one.feed(4), other.feed(4))


def test_scores_that_are_nan_are_explained_and_change_nothing(rng):
    model = make()
    with model.output.bias.writing() as bias:
        bias[2] = np.nan
    session = model.session(B)
    session.feed(draw_ids(rng, model, B))
    before = session.state_dict()
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="sample: row 0 of the logits has NaN; expected fin"):
            session.generate([[1, 2, 3]], rng.random((5, B)), temperature)
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_one_row_whose_scores_become_nan(rng):
    model = make(num_layers=1, cell="rnn")
    with model.embedding.weight.writing() as table:
        table[5] = np.nan
    with pytest.raises(ValueError, match="row 1 of the logits has NaN"):
        model.session(B).generate([[1, 5, 3]], rng.random((5, B)))


def test_excluded_ids_are_never_sampled(rng):
    model = make()
    with model.output.bias.writing() as bias:
        bias[3:] = -np.inf
    assert model.session().generate([1], rng.random(300)).max() == 2


def test_sessions_generate_in_threads_at_the_same_time(rng):
    model = make()
    session, uniforms = model.session(B), rng.random((100, B))
    expected = session.fork().generate([[1, 2, 3]], uniforms)
    found = {}

    def run(number):
        found[number] = session.fork().generate([[1, 2, 3]], uniforms)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for sampled in found.values():
        np.testing.assert_array_equal(sampled, expected)


def test_a_changed_model_is_run_itself(rng):
    class Louder(LanguageModel):
        def forward(self, ids, state=None, lengths=None):
            logits, state = super().forward(ids, state, lengths)
            return logits * 3.0, state

    random.seed(3)
    louder = Louder(V, hidden_size=H).eval()
    replaced = make()
    replaced.output = nn.Sequential(nn.Linear(H, H), nn.Linear(H, V))
    ids = draw_ids(rng, louder, T, B)
    for model in (louder, replaced):
        assert_same(model.session(B).feed(ids), complete(model, ids)[0])
        assert model.session(B).generate(ids, rng.random((4, B))).shape == (4, B)


# What is refused ----------------------------------------------------------------------------------


def test_bad_ids_are_explained_and_change_nothing(rng):
    session = make().session(B)
    session.feed(draw_ids(rng, make(), B))
    before = session.state_dict()
    for call in (session.feed, lambda ids: session.generate(ids, rng.random((2, B)))):
        for ids in ([V, 0, 0], [0, -1, 0], [[0, 0, 0], [0, 0, V]]):
            with pytest.raises(IndexError, match="for a table of 11 rows"):
                call(ids)
        with pytest.raises(TypeError, match="ids are integers, not float64"):
            call([1.0, 2.0, 3.0])
        for ids in (1, [1, 2], [[1], [2], [3]]):
            with pytest.raises(ValueError, match=r"expected \[3\] for one step, \[T, 3\] for T"):
                call(ids)
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_bad_draws_are_explained():
    session = make().session(B)
    ids = [1, 2, 3]
    with pytest.raises(ValueError, match=r"uniforms of shape \(4,\); expected \[length, 3\]"):
        session.generate(ids, np.zeros(4))
    with pytest.raises(ValueError, match=r"uniforms of shape \(4, 1\); expected \[length\]"):
        make().session().generate(1, np.zeros((4, 1)))
    with pytest.raises(ValueError, match="at least one id"):
        make().session().generate(np.zeros(0, int), np.zeros(4))
    for turns in [(-1.0,), (np.nan,), (1.0, -1), (1.0, 0, 0.0), (1.0, 0, 1.1), (1.0, 0, np.nan)]:
        with pytest.raises(ValueError, match="expected temperature >= 0, top_k >= 0 and 0 < top_p"):
            session.generate(ids, np.zeros((4, B)), *turns)


def test_ids_that_are_excluded_stay_so_in_another_process_and_in_a_changed_model(rng):
    replaced = make()
    replaced.output = nn.Sequential(nn.Linear(H, H), nn.Linear(H, V))
    for model in (make(), replaced):
        session = model.session(excluded=[0, 2, *range(4, V)])
        for made in (session, session.fork(), pickle.loads(pickle.dumps(session))):
            assert set(made.generate([1], rng.random(50))) == {1, 3}
        scores = session.feed(1)
        assert np.isneginf(scores[[0, 2, 4]]).all()
        assert np.isfinite(scores[[1, 3]]).all()


def test_generating_is_for_one_thread_at_a_time(rng):
    model = make()
    inside, finish = threading.Event(), threading.Event()

    class Waiting(LanguageModel):
        def forward(self, ids, state=None, lengths=None):
            inside.set()
            assert finish.wait(60)
            return super().forward(ids, state, lengths)

    session = Waiting(V, hidden_size=H).session()
    thread = threading.Thread(target=lambda: session.generate([1], [0.5]))
    thread.start()
    assert inside.wait(60)
    for method, call in (("generate", lambda: session.generate([1], [0.5])),
                         ("feed", lambda: session.feed(1))):  # fmt: skip
        with pytest.raises(RuntimeError, match=f"{method}: another thread is feeding this session"):
            call()
    finish.set()
    thread.join()
    assert session.generate([1], [0.5]).shape == (1,)
    assert "LanguageModelSession(LanguageModel (" in repr(model.session())


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_reading_advances_the_state_as_feeding_does(options):
    model = make(**options)
    ids = np.random.default_rng(0).integers(0, model.vocabulary_size, (T, B))
    session = model.session(B)
    other = session.fork()
    session.read(ids)
    session.read(ids[:0])
    other.feed(ids)
    for name, state in session.state_dict().items():
        assert_same(state, other.state_dict()[name])
    with pytest.raises(IndexError):
        session.read([model.vocabulary_size] * B)


def test_reading_advances_all_rows_if_the_scores_of_one_are_nan():
    model = make()
    with model.embedding.weight.writing() as array:
        array[3] = np.nan
    session = model.session(2)
    other = session.fork()
    session.read([[3, 1], [2, 4]])
    other.feed([[3, 1], [2, 4]])
    for name, state in session.state_dict().items():
        np.testing.assert_array_equal(state, other.state_dict()[name])
        assert np.isnan(state[:, 0]).all()
        assert np.isfinite(state[:, 1]).all()
