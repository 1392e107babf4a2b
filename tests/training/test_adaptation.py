"""Dynamic evaluation and the neural cache against plain and slow ones that are written here."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from anaphora import random
from anaphora.data import Batch, batchify, cover, sentence_batches
from anaphora.models import LanguageModel
from anaphora.training import (
    cache_evaluation,
    dynamic_evaluation,
    evaluate,
    gradient_mean_squares,
)

V, H = 5, 3


def make(dtype="float64", **options):
    random.seed(4)
    return LanguageModel(V, hidden_size=H, dtype=dtype, initialization=0.7, **options)


@pytest.fixture
def ids(rng):
    return rng.integers(0, V, 23)


def weights_of(model):
    return {name: p.data.copy() for name, p in model.named_parameters()}


# Dynamic evaluation, with numeric gradients


def numeric_gradient(model, weights, batch, state, step=1e-5):
    """Of the mean loss of a batch, from differences of losses."""

    def loss():
        model.load_state_dict(weights)
        return model.loss(batch, state)[0].item()

    gradient = {}
    for name, array in weights.items():
        gradient[name] = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = loss()
            array[place] = kept - step
            gradient[name][place] = (above - loss()) / (2 * step)
            array[place] = kept
    return gradient


def plain_dynamic_evaluation(model, ids, window, update):
    """The losses of all tokens, summed; `update` gets weights, gradient and trained weights."""
    model.eval()
    trained, weights = weights_of(model), weights_of(model)
    total, state = 0.0, None
    for start in range(0, len(ids) - 1, window):
        targets = ids[start + 1 : start + 1 + window]
        batch = Batch(ids[start : start + len(targets), None], targets[:, None])
        gradient = numeric_gradient(model, weights, batch, state)
        model.load_state_dict(weights)
        loss, after = model.loss(batch, state)
        state = tuple(s.data for s in after)
        total += loss.item() * len(targets)
        for name in weights:
            weights[name] = update(name, weights[name], gradient[name], trained[name])
    model.load_state_dict(trained)
    return total / (len(ids) - 1)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("tied", [False, True])
def test_plain_descent_is_that_of_numeric_gradients(ids, decay, tied):
    model = make(tied=tied)
    before = weights_of(model)
    found = dynamic_evaluation(model, cover(ids, 1, 6), learning_rate=0.8, decay=decay)
    assert model.training
    for name, array in weights_of(model).items():
        assert_array_equal(array, before[name])
    assert all(p.grad is None for _, p in model.named_parameters())
    expected = plain_dynamic_evaluation(
        model, ids, 6, lambda _, w, g, w0: w - 0.8 * g + decay * (w0 - w)
    )
    assert found.tokens == len(ids) - 1
    assert found.loss == pytest.approx(expected, rel=1e-8)
    assert abs(found.loss - evaluate(model, cover(ids, 1, 6)).loss) > 1e-3


def test_rms_is_that_of_numeric_gradients(ids, rng):
    model = make()
    text = rng.integers(0, V, 40)
    batches = batchify(text, 2, window=7)
    mean_squares = gradient_mean_squares(model, batches)
    assert model.training
    model.eval()
    squares, state = dict.fromkeys(mean_squares, 0.0), None
    for batch in batches:
        gradient = numeric_gradient(model, weights_of(model), batch, state)
        _, after = model.loss(batch, state)
        state = tuple(s.data for s in after)
        for name in squares:
            squares[name] = squares[name] + gradient[name] ** 2 / len(batches)
    for name in squares:
        assert_allclose(mean_squares[name], squares[name], rtol=1e-3, atol=1e-10)

    rate, decay, epsilon = 0.05, 0.4, 0.002
    every = np.concatenate([np.sqrt(s).ravel() for s in squares.values()])
    assert (decay * every / every.mean() > 1).any()  # so that the limit is tested

    def update(name, w, g, w0):
        root = np.sqrt(squares[name])
        pull = np.minimum(decay * root / every.mean(), 1)
        return w - rate * g / (root + epsilon) + pull * (w0 - w)

    found = dynamic_evaluation(model, cover(ids, 1, 6), rate, decay, mean_squares, epsilon=epsilon)
    assert found.loss == pytest.approx(plain_dynamic_evaluation(model, ids, 6, update), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{"dropout": 0.5, "weight_dropout": 0.3}, {"cell": "gru"}])
def test_without_learning_it_is_the_evaluation(ids, dtype, options):
    model = make(dtype, activation_penalty=2.0, **options)
    static = evaluate(model, cover(ids, 1, 6))
    assert dynamic_evaluation(model, cover(ids, 1, 6), learning_rate=0).loss == pytest.approx(
        static.loss, rel=1e-6
    )
    found = dynamic_evaluation(model, cover(ids, 1, 6), learning_rate=2.0)
    assert found.loss != pytest.approx(static.loss, rel=1e-4)
    assert found.loss_kind == "tokens"


def test_float32_learns_as_float64(ids):
    losses = []
    for dtype in ("float32", "float64"):
        model = make(dtype)
        random.seed(4)
        model.load_state_dict(make("float64").state_dict())
        mean_squares = gradient_mean_squares(model, cover(ids, 1, 6))
        losses.append(dynamic_evaluation(model, cover(ids, 1, 6), 0.01, 0.1, mean_squares).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_sentences_start_from_zeros_with_the_weights_that_were_learned(ids):
    text = np.concatenate([[1, 2, 3, 0], [1, 2, 3, 0]] * 5)
    model = make()
    batches = sentence_batches(text, end_id=0, batch_size=1, window=9, start_id=0)
    static = evaluate(model, batches)
    found = dynamic_evaluation(model, batches, learning_rate=0.5)
    assert found.tokens == static.tokens
    assert found.loss < static.loss


def test_weights_come_back_after_an_error(ids):
    model = make()
    before = weights_of(model)

    def interrupt(tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dynamic_evaluation(model, cover(ids, 1, 6), 0.5, on_batch=interrupt)
    assert model.training
    for name, array in weights_of(model).items():
        assert_array_equal(array, before[name])


# The cache, by its definition


def plain_cache_evaluation(model, ids, window, theta, weight):
    h, _ = model.eval().recurrent(model.embedding(ids[:-1, None]))
    logits = model.output(h).data[:, 0].astype(np.float64)
    h = h.data[:, 0].astype(np.float64)
    total = 0.0
    for t, target in enumerate(ids[1:]):
        p_model = np.exp(logits[t]) / np.exp(logits[t]).sum()
        p = p_model[target]
        scores, found = 0.0, 0.0
        for i in range(max(0, t - window), t):
            score = math.exp(theta * sum(a * b for a, b in zip(h[t], h[i], strict=True)))
            scores += score
            found += score * (ids[i + 1] == target)
        if t > 0:
            p = (1 - weight) * p + weight * found / scores
        total -= math.log(p)
    return total / (len(ids) - 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize(
    ("window", "theta", "weight"), [(4, 2.0, 0.3), (1, 0.0, 0.5), (100, 5.0, 0.9), (7, 1.0, 0.0)]
)
def test_the_cache_is_its_definition(ids, dtype, tolerance, window, theta, weight):
    model = make(dtype, num_layers=2, dropout=0.4)
    before = weights_of(model)
    expected = plain_cache_evaluation(model, ids, window, theta, weight)
    model.train()
    for steps in (1, 6, 100):
        counted = []
        found = cache_evaluation(
            model, cover(ids, 1, steps), window, theta, weight, on_batch=counted.append
        )
        assert found.loss == pytest.approx(expected, rel=tolerance)
        assert found.tokens == sum(counted) == len(ids) - 1
        assert found.loss_kind == "tokens"
    assert model.training
    for name, array in weights_of(model).items():
        assert_array_equal(array, before[name])


def test_with_a_start_token_the_first_token_counts_without_a_cache(ids):
    model = make()
    found = cache_evaluation(model, cover(ids, 1, 6, start_id=2), 4, 2.0, 0.3)
    expected = plain_cache_evaluation(model, np.array([2, *ids]), 4, 2.0, 0.3)
    assert found.tokens == len(ids)
    assert found.loss == pytest.approx(expected, rel=1e-12)


# Messages


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (dynamic_evaluation, {"learning_rate": -1.0}, "learning_rate is -1.0; expected 0 <= lear"),
        (dynamic_evaluation, {"learning_rate": math.nan}, "learning_rate is nan"),
        (
            dynamic_evaluation,
            {"learning_rate": 1, "decay": 2},
            "decay is 2; expected 0 <= decay <=",
        ),
        (dynamic_evaluation, {"learning_rate": 1, "epsilon": math.inf}, "epsilon is inf"),
        (
            dynamic_evaluation,
            {"learning_rate": 1, "mean_squares": {"output.bias": np.zeros(V)}},
            "mean_squares does not match the parameters of this model",
        ),
        (cache_evaluation, {"window": 0}, "cache_evaluation: window is 0; expected at least 1"),
        (cache_evaluation, {"theta": -1}, "theta is -1; expected 0 <= theta"),
        (cache_evaluation, {"weight": 1.5}, "weight is 1.5; expected 0 <= weight <= 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(ids, function, options, message):
    with pytest.raises(ValueError, match=message):
        function(make(), cover(ids, 1, 6), **options)


def test_more_than_one_text_and_none(ids):
    model = make()
    for function, options in [(dynamic_evaluation, {"learning_rate": 1}), (cache_evaluation, {})]:
        with pytest.raises(ValueError, match="a batch has 2 streams; expected one"):
            function(model, cover(ids, 2, 6), **options)
        with pytest.raises(ValueError, match="the batches have no tokens to predict"):
            function(model, [], **options)
    with pytest.raises(ValueError, match="gradient_mean_squares: there are no batches"):
        gradient_mean_squares(model, [])


def test_what_diverges_comes_back_as_the_loss(ids):
    found = dynamic_evaluation(make("float32"), cover(ids, 1, 2), learning_rate=1e30)
    assert not math.isfinite(found.loss) or found.loss > 1e3
