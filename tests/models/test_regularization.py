"""The language model's regularisers against plain NumPy, and that evaluation has none of them."""

import numpy as np
import pytest

from anaphora import engine, ops, random
from anaphora.data import Batch
from anaphora.models import LanguageModel
from anaphora.models.body import LanguageModelBody
from anaphora.tensor import RowGradient, Tensor

V, E, H, T, B = 11, 3, 4, 6, 5
NUMBERS = np.random.default_rng(7)
IDS = NUMBERS.integers(0, V, (T, B))
TARGETS = NUMBERS.integers(0, V, (T, B))
LENGTHS = np.array([4, 0, 6, 1, 3])
PENALTIES = {"activation_penalty": 2.0, "temporal_penalty": 3.0}
RATES = ("dropout", "embedding_dropout", "weight_dropout", "zoneout")
STATE = tuple(NUMBERS.standard_normal((2, B, H)) for _ in range(2))


def make(**options):
    random.seed(3)
    given = {"embedding_size": E, "num_layers": 2, "dtype": "float64", **options}
    model = LanguageModel(V, hidden_size=H, **given)
    numbers = np.random.default_rng(8)
    for name, parameter in model.named_parameters():
        if ".norm_" in name:  # weights that are not all 1, biases that are not 0
            with parameter.writing() as array:
                array += numbers.standard_normal(H)
    return model


def batch(lengths=LENGTHS):
    if lengths is None:
        return Batch(IDS, TARGETS)
    return Batch(IDS, np.where(np.arange(T)[:, None] < lengths, TARGETS, -100), lengths)


def arrays(model):
    return {name: parameter.data for name, parameter in model.named_parameters()}


def mask(rate, *shape):
    """What the model draws next for an array of this shape."""
    return ops.dropout(Tensor(np.ones(shape)), rate).data


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_hand(model, rates=(), lengths=LENGTHS):
    """The model with LSTM in plain NumPy, drawing its masks in the same order.

    Returns the output of the last layer, what the output layer reads, the logits and the states.
    """
    weights, rates = arrays(model), {**dict.fromkeys(RATES, 0), **dict(rates)}
    steps = 1 if rates.get("locked_dropout") else T

    def dropped(x):
        return x * mask(rates["dropout"], steps, *x.shape[1:])

    table = weights["embedding.weight"] * mask(rates["embedding_dropout"], V, 1)
    x = dropped(table[IDS])
    final = []
    for layer in range(2):
        w_ih, w_hh, b_ih, b_hh = (
            weights[f"recurrent.{name}_l{layer}"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        x = dropped(x) if layer else x
        w_hh = w_hh * mask(rates["weight_dropout"], *w_hh.shape)
        keep = np.zeros((T, 2, B, H))
        if zoneout := rates["zoneout"]:
            keep = (mask(zoneout, T, B, 2 * H) == 0).reshape(T, B, 2, H).swapaxes(1, 2)
        h, c = (state[layer] for state in STATE)
        outputs = []
        for t in range(T):
            i, f, g, o = np.split(x[t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=1)
            new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            new_h = sigmoid(o) * np.tanh(new_c)
            new_h = np.where(keep[t, 0], h, new_h)
            new_c = np.where(keep[t, 1], c, new_c)
            running = (t < lengths)[:, None]
            h, c = np.where(running, new_h, h), np.where(running, new_c, c)
            outputs.append(np.where(running, h, 0))
        x = np.stack(outputs)
        if f"recurrent.norm_l{layer}.weight" in weights:
            centred = x - x.mean(axis=2, keepdims=True)
            x = centred / np.sqrt(centred.var(axis=2, keepdims=True) + 1e-5)
            x = x * weights[f"recurrent.norm_l{layer}.weight"]
            x = x + weights[f"recurrent.norm_l{layer}.bias"]
            x = np.where((np.arange(T)[:, None] < lengths)[..., None], x, 0)
        final.append((h, c))
    y = dropped(x)
    logits = y @ weights["output.weight"].T + weights["output.bias"]
    return x, y, logits, [np.stack(states) for states in zip(*final, strict=True)]


def check_gradients(model):
    """Hold the gradients of the loss to central differences, with the same masks for each."""

    def loss():
        random.seed(5)
        return model.loss(batch(), STATE)[0]

    loss().backward()
    rng = np.random.default_rng(1)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        gradient = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
        assert np.abs(gradient).max() > 1e-4, name
        direction = rng.standard_normal(parameter.shape)

        def moved(step, parameter=parameter, direction=direction):
            with parameter.writing() as array:
                array += step * direction
            value = loss().item()
            with parameter.writing() as array:
                array -= step * direction
            return value

        numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), numeric, atol=1e-8, err_msg=name)


REGULARISERS = [
    {"dropout": 0.4},
    {"dropout": 0.4, "locked_dropout": True},
    {"embedding_dropout": 0.4},
    {"weight_dropout": 0.4},
    {"dropout": 0.3, "locked_dropout": True, "embedding_dropout": 0.2, "weight_dropout": 0.3},
    {"zoneout": 0.3},
    {"zoneout": 0.3, "weight_dropout": 0.3, "dropout": 0.3},
    {"layer_norm": True},
    {"layer_norm": True, "dropout": 0.3, "weight_dropout": 0.3},
]


@pytest.mark.parametrize("options", REGULARISERS, ids=str)
def test_values_are_those_by_hand_with_the_same_masks(options):
    model = make(**options)
    random.seed(5)
    logits, states = model(IDS, STATE, LENGTHS)
    random.seed(5)
    _, _, expected, final = by_hand(model, options)
    np.testing.assert_allclose(logits.data, expected, atol=1e-12)
    for state, other in zip(states, final, strict=True):
        np.testing.assert_allclose(state.data, other, atol=1e-12)


@pytest.mark.parametrize("options", [*REGULARISERS, {"dropout": 0.3, **PENALTIES}], ids=str)
def test_gradients_are_those_of_central_differences(options):
    check_gradients(make(**options))


@pytest.mark.parametrize("options", REGULARISERS, ids=str)
def test_evaluation_and_sessions_have_none_of_it(options):
    structure = {name: options[name] for name in ("layer_norm", "zoneout") if name in options}
    model, plain = make(**options), make(**structure).eval()
    plain.load_state_dict(model.state_dict())
    session = model.session(batch_size=B).feed(IDS)
    expected = plain(IDS)[0].data
    np.testing.assert_array_equal(model.eval()(IDS)[0].data, expected)
    np.testing.assert_allclose(session, expected, atol=1e-12)
    assert model.loss(batch())[0].item() == plain.loss(batch())[0].item()
    random_in_training = options != {"layer_norm": True}
    assert (np.abs(model.train()(IDS)[0].data - expected).max() > 1e-3) == random_in_training


def test_locked_dropout_drops_the_same_units_at_all_steps():
    model = make(dropout=0.5, locked_dropout=True)
    _, y, _, _ = by_hand(model, {"dropout": 0.5, "locked_dropout": True}, np.full(B, T))
    assert ((y == 0) == (y[0] == 0)).all()
    assert 0 < (y[0] == 0).sum() < B * H


def test_embedding_dropout_drops_words_wherever_they_stand():
    model = make(embedding_dropout=0.5)
    x = model.embedding(IDS).data
    table = model.embedding.weight.data[IDS]
    dropped = (x == 0).all(axis=-1)
    np.testing.assert_allclose(x, np.where(dropped[..., None], 0, table / 0.5), rtol=1e-15)
    assert 0 < dropped.sum() < dropped.size
    for word in range(V):
        assert len(set(dropped[word == IDS])) <= 1


def test_embedding_dropout_spares_the_output_of_tied_weights_and_keeps_row_gradients():
    model = make(embedding_dropout=0.5, tied=True, embedding_size=H)
    check_gradients(model)
    alone = make(embedding_dropout=0.5)
    alone.loss(batch())[0].backward()
    assert isinstance(alone.embedding.weight.grad, RowGradient)


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_reported(name, share):
    with pytest.raises(ValueError, match=f"must be >= 0 and < 1, not {share}"):
        make(**{name: share})
    with pytest.raises(ValueError, match=f"{name} must be >= 0 and < 1, not {share}"):
        LanguageModelBody(**{name: share})


def test_weight_dropout_leaves_the_parameters_alone():
    model = make(weight_dropout=0.5)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    assert before.keys() == make().state_dict().keys()
    model.loss(batch())[0].backward()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    gradient = model.recurrent.weight_hh_l1.grad
    assert 0.3 < (gradient == 0).mean() < 0.7  # what was dropped had no part in the loss


def test_weight_dropout_needs_recurrent_weights():
    with pytest.raises(ValueError, match="weight_dropout needs recurrent weights; 'mingru' has"):
        make(cell="mingru", weight_dropout=0.5)


# Penalties


@pytest.mark.parametrize("name", [*PENALTIES, None])
def test_penalties_are_added_to_the_loss_in_training_only(name):
    penalties = PENALTIES if name is None else {name: PENALTIES[name]}
    model, plain = make(dropout=0.3, **penalties), make(dropout=0.3)
    random.seed(5)
    h, y, _, _ = by_hand(model, {"dropout": 0.3})
    rows = [(t, b) for b in range(B) for t in range(LENGTHS[b])]
    squares = np.mean([y[t, b] ** 2 for t, b in rows])
    changes = np.mean([(h[t, b] - h[t - 1, b]) ** 2 for t, b in rows if t > 0])
    alpha, beta = (penalties.get(name, 0) for name in PENALTIES)

    random.seed(5)
    loss, penalty, _ = model.loss_and_penalty(batch(), STATE)
    np.testing.assert_allclose(penalty.item(), alpha * squares + beta * changes, rtol=1e-12)
    random.seed(5)
    assert plain.loss(batch(), STATE)[0].item() == loss.item()
    random.seed(5)
    assert model.loss(batch(), STATE)[0].item() == loss.item() + penalty.item()

    model, plain = model.eval(), plain.eval()
    expected = plain.loss(batch(), STATE)[0].item()
    assert model.loss(batch(), STATE)[0].item() == expected
    assert model.loss_and_penalty(batch(), STATE)[1] is None


def test_a_model_without_penalties_has_none():
    model = make(dropout=0.3)
    assert not model.penalized
    assert model.loss_and_penalty(batch())[1] is None


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("factor", [-1.0, np.inf])
def test_a_factor_out_of_range_is_reported(name, factor):
    for model in (make, LanguageModelBody):
        with pytest.raises(ValueError, match=f"{name} must be finite and >= 0, not {factor}"):
            model(**{name: factor})


# Layer normalisation


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_session_of_a_normalised_model_gives_the_bits_of_the_full_sequence(dtype):
    model = make(layer_norm=True, dropout=0.3, dtype=dtype).eval()
    complete = model(IDS)[0].data
    session = model.session(batch_size=B)
    steps = np.stack([session.feed(ids) for ids in IDS])
    pieces = model.session(batch_size=B)
    pieces = np.concatenate([pieces.feed(IDS[:2]), pieces.feed(IDS[2:])])
    if engine.info()["engine"] == "native":
        np.testing.assert_array_equal(steps, complete)
        np.testing.assert_array_equal(pieces, complete)
    np.testing.assert_allclose(steps, complete, rtol=1e-5)
    np.testing.assert_allclose(pieces, complete, rtol=1e-5)


def test_a_normalised_model_generates_what_it_says_is_likeliest():
    model = make(layer_norm=True).eval()
    sampled = model.session().generate([3], np.zeros(8), temperature=0)
    ids = np.concatenate([[3], sampled])[:, None]
    np.testing.assert_array_equal(model(ids[:-1])[0].data[:, 0].argmax(axis=-1), sampled)
