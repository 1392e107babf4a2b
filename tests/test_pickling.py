"""What can be pickled and copied: cells, layers, models, sessions, optimisers and others."""

import copy
import functools
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import anaphora
from anaphora import cells, nn, optim, random
from anaphora.cells import CELLS, Gate, cell, zoneout
from anaphora.data import BPETokenizer, CharacterTokenizer, WordTokenizer
from anaphora.equations import sigmoid, tanh
from anaphora.models import (
    EncoderDecoder,
    LanguageModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    VectorToSequence,
)
from anaphora.tensor import Tensor

T, B, I, H = 6, 3, 5, 7


@cell(gates="f n", state="h")
def leaky(f, n, h):
    f = sigmoid(f)
    return f * h + (1 - f) * tanh(n)


def equations(a, h):
    return tanh(a) + 0.5 * h


other_name = cell(gates="a", state="h", fused=False)(equations)


class Cells:
    @cell(gates="a", state="h")
    def within(a, h):  # noqa: N805
        return tanh(a) * 0.5


def unpickled(value):
    return pickle.loads(pickle.dumps(value))


COPIES = [unpickled, copy.copy, copy.deepcopy]


def values(size=I, seed=3, batch=B):
    return np.random.default_rng(seed).standard_normal((T, batch, size)).astype(np.float32)


# Cells


@pytest.mark.parametrize("made", COPIES)
@pytest.mark.parametrize("found", [*CELLS.values(), leaky, Cells.within], ids=lambda c: c.name)
def test_a_cell_is_found_where_it_was_defined(found, made):
    assert made(found) is found


def test_a_cell_under_another_name_is_made_of_its_equations():
    made = unpickled(other_name)
    assert (made.equations, made.gates, made.states, made.fused) == (
        equations,
        ("a",),
        ("h",),
        False,
    )


@pytest.mark.parametrize("rate", [None, 0.25])
def test_a_cell_with_zoneout_is_made_again(rate):
    made, expected = unpickled(zoneout(leaky, rate)), zoneout(leaky, rate)
    assert made.program == expected.program
    renew = () if rate else (Gate(x=1.0, h=None),)
    assert float(made(0.1, 0.2, *renew, 0.3)) == float(expected(0.1, 0.2, *renew, 0.3))


def test_programs_are_pickled():
    for found in (cells.lstm, leaky):
        assert unpickled(found.program) == found.program
        assert unpickled(found.adjoint) == found.adjoint
        assert unpickled(found.trace).named == found.trace.named


def test_a_local_cell_cannot_be_pickled():
    @cell(gates="a", state="h")
    def local(a, h):
        return tanh(a)

    for hidden in (local, nn.Recurrent(local, I, H)):
        with pytest.raises(
            pickle.PicklingError,
            match=r"^cell 'local' cannot be pickled: .*<locals>\.local, by which .* is a different "
            "object; define the cell at the top level of a module, under its own name",
        ):
            pickle.dumps(hidden)
    assert copy.deepcopy(nn.Recurrent(local, I, H)).cell is local  # a copy needs no name


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            ("anaphora.cells", "lost"),
            r"anaphora\.cells\.lost was not found \(module .*importable under",
        ),
        (("no_such_module", "lost"), r"no_such_module\.lost was not found \(No module named"),
        (
            ("anaphora.cells", "Cell"),
            r"anaphora\.cells\.Cell was not found \(it is now a type\)",
        ),
        (
            ("__main__", "lost"),
            r"__main__\.lost was not found .*move the cell to a module that both",
        ),
    ],
)
def test_unpickling_a_missing_cell_is_explained(place, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        cells._unpickled(*place)


# Layers and models


def layers():
    random.seed(1)
    yield from (nn.Recurrent(name, I, H, num_layers=2) for name in CELLS)
    yield nn.LSTM(I, H, bidirectional=True, proj_size=4, layer_norm=True, weight_dropout=0.1)
    yield nn.GRU(I, H, batch_first=True, zoneout=0.1, dropout=0.1, num_layers=2)
    yield nn.Recurrent(leaky, I, H)
    yield nn.Recurrent(other_name, I, H)


@pytest.mark.parametrize("made", [unpickled, copy.deepcopy])
@pytest.mark.parametrize("layer", list(layers()), ids=lambda layer: layer.cell.name)
def test_a_layer_has_the_same_outputs_and_trains_alone(layer, made):
    layer.eval()
    other = made(layer)
    x = values()
    expected = layer(x)[0].data
    np.testing.assert_array_equal(other(x)[0].data, expected)
    other.train()(x)[0].sum().backward()
    optim.SGD(other.parameters(), learning_rate=1.0).step()
    assert not np.array_equal(other.eval()(x)[0].data, expected)
    np.testing.assert_array_equal(layer(x)[0].data, expected)


IDS = np.random.default_rng(5).integers(0, 9, (T, B))
MODELS = {
    "language model": (lambda: LanguageModel(9, hidden_size=H, tied=True, cell="gru"), (IDS,)),
    "classifier": (lambda: SequenceClassifier(3, hidden_size=H, input_size=I), (values(),)),
    "regressor": (lambda: SequenceRegressor(2, hidden_size=H, vocabulary_size=9), (IDS,)),
    "tagger": (
        lambda: SequenceTagger(3, hidden_size=H, vocabulary_size=9, num_characters=9),
        (IDS, None, None, np.stack([IDS, IDS]), np.full((T, B), 2)),
    ),
    "encoder-decoder": (lambda: EncoderDecoder(9, 9, hidden_size=8), (IDS, IDS)),
    "vector to sequence": (lambda: VectorToSequence(I, 9, hidden_size=H), (values()[0], IDS)),
}


@pytest.mark.parametrize("made", [unpickled, copy.deepcopy])
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_has_the_same_outputs(kind, made):
    make, inputs = MODELS[kind]
    model = make().eval()
    first, second = (m(*inputs) for m in (model, made(model)))
    first, second = (y[0] if isinstance(y, tuple) else y for y in (first, second))
    np.testing.assert_array_equal(first.data, second.data)


def test_a_model_and_its_optimizer_stay_together():
    layer = nn.LSTM(I, H)
    optimizer = optim.Adam(layer.named_parameters())
    schedule = optim.WarmUp(optim.Cosine(optimizer, total_steps=9), steps=2)

    def step(layer, optimizer, schedule, number):
        schedule.on_step(number)
        optimizer.zero_grad()
        layer(values())[0].sum().backward()
        optimizer.step()

    step(layer, optimizer, schedule, 0)
    both = unpickled((layer, optimizer, schedule)), copy.deepcopy((layer, optimizer, schedule))
    step(layer, optimizer, schedule, 1)
    for other in both:
        step(*other, 1)
        for name, array in layer.state_dict().items():
            np.testing.assert_array_equal(other[0].state_dict()[name], array)


# Sessions


def sessions():
    for layer in layers():
        if not layer.bidirectional:
            several = values().swapaxes(0, 1) if layer.batch_first else values()
            yield functools.partial(layer.session, B), several
            yield layer.session, values()[:, 0]
    yield LanguageModel(9, hidden_size=H).session, IDS[:, 0]
    yield functools.partial(LanguageModel(9, hidden_size=H, cell=other_name).session, B), IDS


@pytest.mark.parametrize("made", COPIES)
@pytest.mark.parametrize(("make", "x"), list(sessions()))
def test_a_session_goes_on_with_the_same_bits_and_alone(make, x, made):
    session = make()
    session.feed(x)
    other, before = made(session), session.state_dict()
    after = other.feed(x)
    for name, array in session.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    np.testing.assert_array_equal(session.feed(x), after)


@pytest.mark.parametrize("made", COPIES)
def test_a_session_keeps_its_weights_when_the_layer_is_trained_before_pickling(made):
    layer, x = nn.LSTM(I, H), values()
    session, expected = layer.session(B), layer(x)[0].data.copy()
    layer(x)[0].sum().backward()
    optim.SGD(layer.parameters(), learning_rate=1.0).step()
    assert not np.allclose(layer(x)[0].data, expected)
    layer.bias_ih_l0 = nn.Parameter(np.ones(4 * H))
    np.testing.assert_array_equal(made(session).feed(x), expected)


def test_what_a_session_of_a_language_model_draws_is_the_same():
    session = LanguageModel(9, hidden_size=H).session()
    session.feed([1, 2])
    uniforms = np.random.default_rng(4).random(30)
    sampled = unpickled(session).generate([3], uniforms)
    np.testing.assert_array_equal(session.generate([3], uniforms), sampled)


# Tokenizers and estimators


@pytest.mark.parametrize("made", COPIES)
@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer, BPETokenizer])
def test_a_tokenizer_reads_the_same(kind, made):
    if kind is BPETokenizer:
        pytest.importorskip("tokenizers")
    text = "one two three two one"
    tokenizer = kind.fit(text, **({"vocabulary_size": 260} if kind is BPETokenizer else {}))
    other = made(tokenizer)
    ids = other.encode(text)
    np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert other.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("made", [unpickled, copy.deepcopy])
def test_an_estimator_predicts_the_same(made):
    pytest.importorskip("sklearn")
    from anaphora.estimators import RecurrentRegressor

    X, y = values(2, batch=8).swapaxes(0, 1), np.arange(8.0)
    estimator = RecurrentRegressor(hidden_size=3, min_updates=9, random_state=0).fit(list(X), y)
    np.testing.assert_array_equal(made(estimator).predict(list(X)), estimator.predict(list(X)))


# Another process

CHILD = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    layer, session, x = pickle.load(file)
np.savez(sys.argv[2], layer=layer(x)[0].data, session=session.feed(x))
"""


def test_another_process_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    (tmp_path / "my_cells.py").write_text(
        "from anaphora import cell\nfrom anaphora.equations import tanh\n\n\n"
        "@cell(gates='a', state='h')\ndef own(a, h):\n    return tanh(a) + 0.5 * h\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    layer = nn.Recurrent(importlib.import_module("my_cells").own, I, H, zoneout=0.1).eval()
    session, x = layer.session(B), values()
    session.feed(x)
    with open(tmp_path / "given", "wb") as file:
        pickle.dump((layer, session, x), file)
    paths = [str(tmp_path), str(Path(anaphora.__file__).parents[1])]
    subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "given"), str(tmp_path / "found.npz")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["layer"], layer(Tensor(x))[0].data)
        np.testing.assert_array_equal(found["session"], session.feed(x))
