"""Sessions of classifiers, regressors and taggers beside the models on each prefix, bit for bit
with the native engine.
"""

import copy
import dataclasses
import pickle
from itertools import pairwise

import numpy as np
import pytest

from anaphora import engine, no_grad, ops, random
from anaphora.data import (
    CharacterTokenizer,
    ClassifierCodec,
    DataError,
    Frames,
    RegressorCodec,
    TaggerCodec,
    WordTokenizer,
)
from anaphora.models import SequenceClassifier, SequenceRegressor, SequenceTagger, load

NATIVE = engine.info()["engine"] == "native"
T, B, I, H, C, V = 7, 3, 5, 6, 4, 9
MEAN, SCALE = np.array([3.0, -80.0, 0.25, 9.0, 1e4]), np.array([0.5, 20.0, 3.0, 1.0, 700.0])
CODEC = ClassifierCodec(tuple("abcd"), None, MEAN, SCALE)
NUMBERS = RegressorCodec(
    tuple("abcd"),
    np.array([7.0, -1.0, 0.0, 1e3]),
    np.array([3.0, 2.0, 1.0, 50.0]),
    None,
    MEAN,
    SCALE,
)
KINDS = {
    "lstm": {},
    "gru, two layers": {"cell": "gru", "num_layers": 2},
    "rnn, normalised": {"cell": "rnn", "layer_norm": True},
    "zoneout": {"zoneout": 0.2, "dropout": 0.3},
}


def make(kind=SequenceClassifier, dtype="float32", **options):
    """A model with weights that matter, so that a layer or a step left out is seen."""
    random.seed(3)
    outputs = {SequenceTagger: "num_tags", SequenceClassifier: "num_classes"}
    read = {} if {"vocabulary_size", "input_size"} & set(options) else {"input_size": I}
    sizes = {outputs.get(kind, "num_outputs"): C, "hidden_size": H, **read}
    return kind(**sizes, initialization=0.7, dtype=dtype, **options)


def series(rng, *shape):
    return MEAN + SCALE * rng.standard_normal((*shape, I))


def answers(model, x):
    """What the model says of each prefix of x [T, B, ...], by a call of its own: [T, B, C]."""
    model.eval()
    with no_grad():
        if isinstance(model, SequenceTagger):
            return model(x)[0].data
        outputs = [model(x[: t + 1]).data for t in range(len(x))]
    classifies = isinstance(model, SequenceClassifier)
    return np.array([ops.softmax(y).data if classifies else y for y in outputs])


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    if NATIVE:
        np.testing.assert_array_equal(found, expected)
    else:  # NumPy may sum otherwise for other shapes
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_each_prefix_is_answered_as_by_the_model(rng, options, kind, pooling, dtype):
    model = make(kind, dtype, pooling=pooling, **options)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    expected = answers(model, x)
    assert len(np.unique(expected[:, 0, 0])) == T or pooling == "max"  # each step says something
    session = model.train().session(batch_size=B)
    assert_same(session.feed(x), expected)
    session.reset()
    assert_same(np.array([session.feed(step) for step in x]), expected)
    session.reset()
    assert_same(np.concatenate([session.feed(x[:2]), session.feed(x[2:])]), expected)
    alone = model.session()
    assert_same(alone.feed(x[0, 1]), expected[0, 1])
    assert_same(alone.feed(x[1:, 1]), expected[1:, 1])


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_series_are_standardised_inside_as_in_training(rng, pooling):
    model = make(pooling=pooling)
    x = series(rng, T, B)
    model.codec = CODEC
    prepared = np.stack([CODEC.encode_input(x[:, b]) for b in range(B)], axis=1)
    expected = answers(model, prepared.astype(np.float32))
    assert_same(model.session(B).feed(x), expected)
    session = model.session()
    assert_same(np.array([session.feed(list(step)) for step in x[:, 2]]), expected[:, 2])
    # In float32 the input itself differs by its rounding.
    np.testing.assert_allclose(model.session(B).feed(x.astype("f")), expected, rtol=1e-3)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_a_regressor_answers_in_the_units_of_the_targets(rng, pooling):
    model = make(SequenceRegressor, pooling=pooling)
    x = series(rng, T, B)
    prepared = np.stack([CODEC.encode_input(x[:, b]) for b in range(B)], axis=1)
    expected = NUMBERS.target_mean + NUMBERS.target_scale * answers(model, prepared.astype("f"))
    model.codec = NUMBERS
    assert_same(model.session(B).feed(x), expected)
    assert_same(np.array([model.session().feed(x[0, b]) for b in range(B)]), expected[0])


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_ids_and_texts_are_read_through_the_tokenizer(pooling):
    tokenizer = CharacterTokenizer.fit("abcdefghi")
    model = make(vocabulary_size=tokenizer.vocabulary_size, embedding_size=3, pooling=pooling)
    model.codec = ClassifierCodec(tuple("wxyz"), tokenizer)
    ids = tokenizer.encode("gadheic")
    expected = answers(model, ids[:, None])[:, 0]
    session = model.session()
    assert_same(session.feed(ids), expected)
    session.reset()
    assert_same(np.concatenate([session.feed("gad"), session.feed("h"), session.feed("eic")]),
                expected)  # fmt: skip
    assert_same(model.session(2).feed(np.array([ids, ids[::-1]]).T)[:, 0], expected)


def test_words_are_cut_in_each_call_by_itself():
    tokenizer = WordTokenizer.fit(["the dog barks\n"])
    model = make(vocabulary_size=tokenizer.vocabulary_size)
    model.codec = ClassifierCodec(tuple("wxyz"), tokenizer)
    expected = answers(model, tokenizer.encode("the dog barks")[:, None])[:, 0]
    assert expected.shape == (4, C)  # with the end
    for texts in (["the dog barks\n"], ["the", "dog barks", "\n"], ["the ", "", "dog", "barks\n"]):
        session = model.session()
        assert_same(np.concatenate([session.feed(text) for text in texts]), expected)


@pytest.mark.parametrize("options", [{}, {"vocabulary_size": V, "embedding_size": 2}], ids=str)
def test_a_tagger_scores_each_step(rng, options):
    model = make(SequenceTagger, num_layers=2, cell="gru", **options)
    x = rng.integers(0, V, (T, B)) if options else rng.standard_normal((T, B, I)).astype("f")
    expected = answers(model, x)
    assert_same(model.session(B).feed(x), expected)
    session = model.session()
    assert_same(np.array([session.feed(step) for step in x[:, 1]]), expected[:, 1])


def spelling_tagger():
    sentences = [
        (["The", "dog", "barks"], ["D", "N", "V"]),
        (["Dogs", "bark", "."], ["N", "V", "."]),
    ]
    codec = TaggerCodec.fit(sentences, minimum_count=1, lowercase=True)
    sizes = {"character_embedding_size": 3, "character_hidden_size": 2}
    random.seed(4)
    model = SequenceTagger(
        **codec.sizes(), hidden_size=H, embedding_size=5, initialization=0.7, **sizes
    )
    model.codec = codec
    return model


def test_a_tagger_reads_words_with_their_spelling():
    model = spelling_tagger()
    sentences = [["the", "brakes", "bark", "."], ["Dogs", "bark", "The", "s"]]
    with no_grad():
        expected = model.eval().scores(model.codec.input_batch(sentences)).data
    words = np.array(sentences).T
    assert_same(model.session(2).feed(words), expected)
    session = model.session()
    assert_same(np.array([session.feed(word) for word in sentences[0]]), expected[:, 0])
    session.reset()
    assert_same(session.feed(sentences[0]), expected[:, 0])
    assert session.feed([]).shape == (0, 4)
    again = pickle.loads(pickle.dumps(session))
    assert_same(again.feed("Dogs"), session.feed("Dogs"))
    for wrong in (3, [1, 2]):
        with pytest.raises(TypeError, match="a tagger reads words; expected a text, or lists"):
            session.feed(wrong)


def test_a_tagger_with_a_codec_but_no_layer_of_characters_reads_words_too():
    codec = spelling_tagger().codec
    model = SequenceTagger(4, vocabulary_size=len(codec.words) + 1, hidden_size=H)
    model.codec = codec
    ids = codec.encode_words(["dog", "xyz", "bark"])
    assert_same(model.session().feed(["dog", "xyz", "bark"]), answers(model, ids[:, None])[:, 0])


def assert_paths(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("crf", [True, False])
def test_the_tags_so_far_are_those_of_the_model(rng, crf, dtype):
    model = make(SequenceTagger, dtype, crf=crf, cell="gru")
    x = rng.standard_normal((T, B, I)).astype(dtype)
    with no_grad():
        expected = [model.eval().answers(model(x[:t])[0], None) for t in range(T + 1)]
    each = model(x)[0].data.argmax(axis=-1)
    if crf:  # the path is no choice of each step, and what comes later changes it
        assert (expected[-1] != each).any()
        assert any((now[:-1] != before).any() for before, now in pairwise(expected))
    else:
        np.testing.assert_array_equal(expected[-1], each)
    session, alone = model.session(B, keep_scores=True), model.session(keep_scores=True)
    assert_same(session.feed(x[:0]), model(x[:0])[0].data)
    found, of_one = [session.tags()], [alone.tags()]
    for t, step in enumerate(x):
        scores = session.feed(step)
        assert_same(scores, model(x)[0].data[t])
        scores[...] = np.nan  # they belong to the caller
        alone.feed(step[1])
        found.append(session.tags())
        of_one.append(alone.tags())
    assert_paths(found, expected)
    assert_paths(of_one, [path[:, 1] for path in expected])
    session.reset()
    assert session.tags().shape == (0, B)
    session.feed(x[:5])
    session.feed(x[5:])
    np.testing.assert_array_equal(session.tags(), expected[-1])


def entities():
    sentences = [
        (["Ada", "Lovelace", "met", "Charles", "Babbage"], ["B-P", "I-P", "O", "B-P", "I-P"]),
        (["Ada", "lived", "in", "New", "York"], ["B-P", "O", "O", "B-L", "I-L"]),
    ]
    codec = TaggerCodec.fit(sentences)
    assert codec.scheme == "BIO"
    random.seed(2)
    model = SequenceTagger(**codec.sizes(), hidden_size=H, crf=True, initialization=0.7)
    model.codec = codec
    return model


def test_the_tags_of_words_are_names_and_follow_the_scheme():
    model = entities()
    sentences = [
        ["Ada", "met", "Babbage", "in", "New", "York"],
        ["New", "York", "lived", "in", "Ada", "Lovelace"],
    ]
    with no_grad():
        scores = model.eval().scores(model.codec.input_batch(sentences))
    best = model.answers(scores, None)
    expected = [[model.codec.tags[k] for k in row] for row in best.T]
    assert best.tolist() != scores.data.argmax(axis=-1).tolist()
    session = model.session(2, keep_scores=True)
    for words in zip(*sentences, strict=True):
        session.feed(words)
    assert session.tags() == expected
    alone = model.session(keep_scores=True)
    assert alone.tags() == []
    alone.feed(sentences[1][:4])
    for word in sentences[1][4:]:
        alone.feed(word)
    assert alone.tags() == expected[1]
    for before, tag in pairwise(["O", *expected[1]]):
        assert tag[:1] != "I" or before in (f"B-{tag[2:]}", tag)


@pytest.mark.parametrize("batch_size", [None, B])
def test_scores_that_are_kept_are_part_of_the_state(rng, batch_size, tmp_path):
    model = make(SequenceTagger, crf=True)
    x = rng.standard_normal((T, I) if batch_size is None else (T, B, I)).astype("f")
    session = model.session(batch_size, keep_scores=True)
    session.feed(x)
    expected = session.tags()
    session.reset()
    session.feed(x[:3])
    session.feed(x[3])
    np.savez(tmp_path / "state.npz", **session.state_dict())
    loaded = model.session(batch_size, keep_scores=True)
    loaded.feed(x[:2])  # which the state replaces
    loaded.load_state_dict(np.load(tmp_path / "state.npz"))
    copies = [pickle.loads(pickle.dumps(session)), session.fork(), copy.deepcopy(session), loaded]
    for other in [*copies, session]:
        other.feed(x[4:])
        np.testing.assert_array_equal(other.tags(), expected)
    assert session.state_dict()["scores"].shape == (*x.shape[:-1], C)
    session.state = session.state  # the scores stay
    np.testing.assert_array_equal(session.tags(), expected)


def test_later_training_changes_no_path(rng):
    model = make(SequenceTagger, crf=True)
    x = rng.standard_normal((T, I)).astype("f")
    session = model.session(keep_scores=True)
    session.feed(x)
    expected = session.tags()
    for parameter in model.crf_layer.parameters():
        with parameter.writing() as array:
            array[...] = -3 * array
    np.testing.assert_array_equal(session.tags(), expected)
    other = model.session(keep_scores=True)
    other.feed(x)
    assert (other.tags() != expected).any()


def test_scores_that_are_not_there_are_explained(rng):
    model = make(SequenceTagger)
    session, keeps = model.session(2), model.session(2, keep_scores=True)
    session.feed(rng.standard_normal((2, I)))
    with pytest.raises(
        ValueError, match=r"tags: .* does not keep the scores .* model.session\(keep_scores=True\)"
    ):
        session.tags()
    with pytest.raises(KeyError, match="the state has h, c, but no scores, which this session nee"):
        keeps.load_state_dict(session.state_dict())
    with pytest.raises(KeyError, match="the state has h, c, scores; expected h, c"):
        session.load_state_dict(keeps.state_dict())
    keeps.feed(rng.standard_normal((3, 2, I)))
    before = keeps.state_dict()
    for scores in (np.zeros((3, C)), np.zeros((3, 1, C)), 1.0):
        with pytest.raises(ValueError, match=r"scores have shape \(.*\); expected \[T, 2, 4\]"):
            keeps.load_state_dict({**model.session(2).state_dict(), "scores": scores})
    with pytest.raises(ValueError, match="h has shape"):
        keeps.load_state_dict({**before, "h": np.zeros(3), "scores": before["scores"][:0]})
    for name, array in keeps.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


SESSIONS = {
    "mean": lambda: make(pooling="mean"),
    "max": lambda: make(SequenceRegressor, pooling="max", cell="gru"),
    "last": lambda: make(pooling="last"),
    "tagger": lambda: make(SequenceTagger),
}


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.parametrize(
    "made", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy, lambda s: s.fork()]
)
def test_copies_go_on_with_the_same_bits_and_alone(rng, name, made):
    model = SESSIONS[name]()
    model.codec = {"max": NUMBERS, "tagger": None}.get(name, CODEC)
    x = series(rng, T)
    session = model.session()
    expected = session.feed(x)
    session.reset()
    session.feed(x[:3])
    other = made(session)
    assert type(other) is type(session)
    assert (other.codec is None) == (name == "tagger")
    assert_same(other.feed(x[3:]), expected[3:])
    assert_same(session.feed(x[3:]), expected[3:])


@pytest.mark.parametrize("name", SESSIONS)
def test_a_state_that_was_saved_continues(rng, name, tmp_path):
    model = SESSIONS[name]()
    x = rng.standard_normal((T, I))
    session = model.session()
    expected = session.feed(x)
    session.reset()
    session.feed(x[:4])
    np.savez(tmp_path / "state.npz", **session.state_dict())
    other = model.session()
    other.load_state_dict(np.load(tmp_path / "state.npz"))
    assert_same(other.feed(x[4:]), expected[4:])


def test_later_training_changes_no_session(rng):
    model = make(pooling="mean")
    x = rng.standard_normal((T, I)).astype("f")
    expected = model.session().feed(x)
    session = model.session()
    for parameter in model.parameters():
        with parameter.writing() as array:
            array[...] += 1
    assert_same(session.feed(x), expected)
    assert not np.allclose(model.session().feed(x), expected)


def test_a_model_that_was_saved_streams_with_its_codec(tmp_path, rng):
    model = make(pooling="mean")
    model.codec = CODEC
    x = series(rng, T)
    expected = model.session().feed(x)
    model.save(tmp_path / "model")
    assert_same(load(tmp_path / "model").session().feed(x), expected)


FRAMES = {  # stride and size
    "as fitted": (3, 9),
    "apart": (4, 4),
    "every step": (1, 5),
    "uneven": (3, 7),
    "one step": (1, 1),
    "long": (2, 40),
}
STEPS = 23


def reads_frames(rng, stride, size, kind=SequenceClassifier, dtype="float32", **options):
    """A model whose codec cuts series into frames."""
    frames = Frames(MEAN, SCALE, stride, size, rng.random(I) + 0.3)
    model = make(kind, dtype, input_size=frames.features, **options)
    codec = CODEC if kind is SequenceClassifier else NUMBERS
    model.codec = dataclasses.replace(codec, frames=frames)
    return model


def answers_to_series(model, x):
    """What the model says of each prefix of series x [T, B, I], each by itself: [T, B, C]."""
    model.eval()
    found = []
    with no_grad():
        for t in range(len(x)):
            batch = model.codec.input_batch(list(x[: t + 1].swapaxes(0, 1)), model.dtype)
            found.append(model.answer(model.scores(batch)))
    return np.array([getattr(y, "data", y) for y in found])


@pytest.mark.pairs
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("stride", "size"), FRAMES.values(), ids=FRAMES)
def test_each_prefix_is_answered_as_by_a_model_of_frames(
    rng, stride, size, cell, kind, pooling, dtype
):
    model = reads_frames(
        rng, stride, size, kind, dtype, cell=cell, num_layers=2, pooling=pooling, dropout=0.3
    )
    x = series(rng, STEPS, B)
    expected = answers_to_series(model, x)
    assert len(np.unique(expected[:, 0, 0])) == STEPS or pooling == "max"
    session = model.train().session(batch_size=B)
    assert_same(session.feed(x), expected)
    session.reset()
    assert_same(np.array([session.feed(step) for step in x]), expected)
    session.reset()
    parts = np.split(x, [5, 5, 14])
    assert_same(np.concatenate([session.feed(part) for part in parts]), expected)
    alone = model.session()
    assert_same(np.array([alone.feed(list(step)) for step in x[:, 1]]), expected[:, 1])


@pytest.mark.parametrize("at", [0, 2, 8, 9, 15])
@pytest.mark.parametrize("batch_size", [None, B])
def test_steps_that_wait_for_their_frame_are_part_of_the_state(rng, batch_size, at, tmp_path):
    model = reads_frames(rng, 3, 9, pooling="mean")
    x = series(rng, STEPS, *([] if batch_size is None else [B]))
    session = model.session(batch_size)
    expected = session.feed(x)
    session.reset()
    session.feed(x[:at])
    state = session.state_dict()
    waiting = at - 3 * max((at - 6) // 3, 0)  # after the begin of the frames that are complete
    assert state["num_waiting"].ravel().tolist() == [waiting] * (batch_size or 1)
    assert state["waiting"].shape == ((8, I) if batch_size is None else (B, 8, I))
    np.savez(tmp_path / "state.npz", **state)
    loaded = model.session(batch_size)
    loaded.load_state_dict(np.load(tmp_path / "state.npz"))
    copies = [pickle.loads(pickle.dumps(session)), session.fork(), copy.deepcopy(session), loaded]
    for other in [*copies, session]:  # the original last: none of them has changed it
        assert_same(other.feed(x[at:]), expected[at:])
    session.reset()
    assert not session.state_dict()["waiting"].any()
    assert_same(session.feed(x), expected)


def test_a_state_with_steps_that_cannot_wait_is_refused(rng):
    session = reads_frames(rng, 3, 9).session(2)
    session.feed(series(rng, 7, 2))
    state = session.state_dict()
    for count, shown in (([9, 9], "9.0"), ([2, 3], "2.0, 3.0"), ([0.5, 0.5], "0.5")):
        with pytest.raises(
            ValueError, match=f"num_waiting is {shown}; expected an integer of 0 to 8, the same"
        ):
            session.load_state_dict({**state, "num_waiting": count})
    assert session.state_dict()["num_waiting"].tolist() == [7, 7]


def test_frames_after_a_step_that_is_not_finite_are_as_before(rng):
    session = reads_frames(rng, 3, 9, pooling="max").session()
    x = series(rng, STEPS)
    expected = session.feed(x)
    session.reset()
    session.feed(x[:5])
    with pytest.raises(DataError, match="the input has the value nan in channel 0 at step 11"):
        session.feed(np.where(np.arange(STEPS)[:, None] == 11, np.nan, x))
    assert_same(session.feed(x[5:]), expected[5:])
    with pytest.raises(ValueError, match=r"an input of shape \(50,\); expected \[5\] for one step"):
        session.feed(np.ones(50))  # a frame


def test_a_value_that_is_not_finite_is_reported_and_changes_nothing(rng):
    model = make(pooling="mean")
    model.codec = CODEC
    x = series(rng, T)
    session = model.session()
    expected = session.feed(x)
    session.reset()
    session.feed(x[:2])
    with pytest.raises(DataError, match="the input has the value nan in channel 0 at step 1"):
        session.feed(np.where(np.arange(T)[:, None] == 1, np.nan, x))
    assert_same(session.feed(x[2:]), expected[2:])
    several = series(rng, T, B)
    several[4, 2, 3] = np.inf
    with pytest.raises(DataError, match=r"sequence 2 of the input .* inf in channel 3 at step 4"):
        model.session(B).feed(several)


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor, SequenceTagger])
def test_what_has_no_session_says_why(kind):
    reason = "as it also reads sequences from their ends; call it .*--no-bidirectional"
    with pytest.raises(
        ValueError, match=f"{kind.__name__}: a bidirectional .* no session, {reason}"
    ):
        make(kind, bidirectional=True).session()
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        make(kind).session(0)


def test_input_that_does_not_fit_is_explained():
    model = spelling_tagger()
    model.codec = None
    with pytest.raises(
        ValueError, match="SequenceTagger: its session reads words, which needs a co"
    ):
        model.session()
    model = make(vocabulary_size=2)
    model.codec = ClassifierCodec(tuple("wxyz"), CharacterTokenizer.fit("ab"))
    with pytest.raises(ValueError, match="one text was given to a session of 2 sequences; give id"):
        model.session(2).feed("ab")
    with pytest.raises(TypeError, match="ids are integers"):
        model.session().feed([0.5])
    with pytest.raises(DataError, match="'c'"):
        model.session().feed("abc")
    with pytest.raises(ValueError, match=r"an input of shape \(3,\); expected \[5\] for one step"):
        make().session().feed([1.0, 2.0, 3.0])


def test_a_resized_session_of_a_tagger_keeps_scores_of_its_own_size():
    model = SequenceTagger(num_tags=3, hidden_size=4, vocabulary_size=9)
    session = model.session(keep_scores=True)
    session.feed([7, 2])
    resized = session.resized(2)
    resized.feed([[1, 2], [3, 4], [5, 6]])
    single = model.session(keep_scores=True)
    single.feed([2, 4, 6])
    assert resized.tags()[:, 1].tolist() == single.tags().tolist()
    assert session.tags().shape == (2,)
