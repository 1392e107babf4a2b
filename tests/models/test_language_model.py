"""The language model: values by hand, gradients, dropout, and what a model directory gives back."""

import json

import numpy as np
import pytest

from anaphora import nn, ops, random
from anaphora.artifact import ArtifactError, ModelDirectory, write_weights
from anaphora.data import Batch, CharacterTokenizer
from anaphora.models import LanguageModel
from anaphora.tensor import Tensor

V, E, H, T, B = 7, 3, 4, 5, 2
IDS = np.array([[1, 2], [6, 0], [3, 3], [5, 4], [0, 6]])
TARGETS = np.array([[6, 0], [3, 3], [5, 4], [0, 6], [2, 1]])


def make(**options):
    random.seed(3)
    given = {"embedding_size": E, "num_layers": 2, "dtype": "float64", **options}
    return LanguageModel(V, hidden_size=H, **given)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def logits_by_hand(weights, ids):
    """Embedding, two layers of LSTM and the output, in plain NumPy, written again."""
    x = weights["embedding.weight"][ids]  # [T, B, E]
    for layer in range(2):
        w_ih, w_hh, b_ih, b_hh = (
            weights[f"recurrent.{name}_l{layer}"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = np.zeros((ids.shape[1], H))
        outputs = []
        for x_t in x:
            i, f, g, o = np.split(x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs)
    return x @ weights["output.weight"].T + weights["output.bias"]


def arrays(model):
    return {name: parameter.data for name, parameter in model.named_parameters()}


def test_logits_are_those_of_the_layers_by_hand():
    model = make()
    logits, (h, c) = model(IDS)
    assert logits.shape == (T, B, V)
    assert h.shape == c.shape == (2, B, H)
    np.testing.assert_allclose(logits.data, logits_by_hand(arrays(model), IDS), atol=1e-12)


def test_parameter_names_and_shapes_are_pytorchs():
    shapes = {name: p.shape for name, p in make().named_parameters()}
    assert shapes["embedding.weight"] == (V, E)
    assert shapes["recurrent.weight_ih_l0"] == (4 * H, E)
    assert shapes["recurrent.weight_hh_l1"] == (4 * H, H)
    assert shapes["output.weight"] == (V, H)
    assert shapes["output.bias"] == (V,)


def test_one_pass_is_two_chunks_with_carried_state():
    model = make()
    complete, last = model(IDS)
    first, state = model(IDS[:2])
    second, end = model(IDS[2:], state)
    np.testing.assert_array_equal(complete.data, np.concatenate([first.data, second.data]))
    for one, other in zip(last, end, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_the_loss_is_the_mean_over_targets_that_count():
    model = make()
    targets = TARGETS.copy()
    targets[3:, 1] = -100
    loss, _ = model.loss(Batch(IDS, targets))
    scores = logits_by_hand(arrays(model), IDS)
    log_p = scores - np.log(np.exp(scores).sum(axis=2, keepdims=True))
    counted = [log_p[t, b, targets[t, b]] for t in range(T) for b in range(B) if targets[t, b] >= 0]
    assert len(counted) == 8
    np.testing.assert_allclose(loss.item(), -np.mean(counted), atol=1e-12)


def test_what_stands_at_ignored_positions_changes_nothing():
    model = make()
    lengths = np.array([5, 3])
    targets = np.where(np.arange(T)[:, None] < lengths, TARGETS, -100)
    other = IDS.copy()
    other[3:, 1] = 1
    one, _ = model.loss(Batch(IDS, targets, lengths))
    two, _ = model.loss(Batch(other, targets, lengths))
    assert one.item() == two.item()


@pytest.mark.parametrize("options", [{}, {"tied": True, "embedding_size": H}, {"cell": "gru"}])
def test_gradients_of_all_parameters_are_those_of_central_differences(options):
    model = make(**options)
    targets = TARGETS.copy()
    targets[4, 0] = -100
    batch = Batch(IDS, targets)
    _, state = model(IDS[::-1].copy())
    state = tuple(Tensor(s.data) for s in state) if isinstance(state, tuple) else Tensor(state.data)
    model.loss(batch, state)[0].backward()
    rng = np.random.default_rng(1)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        gradient = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
        assert np.abs(gradient).max() > 1e-4, name
        direction = rng.standard_normal(parameter.shape)

        def moved(step, parameter=parameter, direction=direction):
            with parameter.writing() as array:
                array += step * direction
            value = model.loss(batch, state)[0].item()
            with parameter.writing() as array:
                array -= step * direction
            return value

        numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), numeric, atol=1e-8, err_msg=name)


def test_tied_weights_are_one_parameter_whose_gradient_has_both_parts():
    model = make(tied=True, embedding_size=H)
    assert model.output.weight is model.embedding.weight
    assert "output.weight" not in dict(model.named_parameters())
    logits, _ = model(IDS)
    np.testing.assert_allclose(
        logits.data,
        logits_by_hand({**arrays(model), "output.weight": model.embedding.weight.data}, IDS),
        atol=1e-12,
    )
    # As an output layer's, not normal(0, 1): the first logits are small.
    assert np.abs(model.embedding.weight.data).max() <= 1 / np.sqrt(H)


def test_dropout_is_on_embeddings_between_layers_and_before_the_output():
    model = make(dropout=0.5)
    random.seed(5)
    found, _ = model(IDS)
    layers = []
    for layer in range(2):
        one = nn.LSTM(E if layer == 0 else H, H, dtype="float64")
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        source = arrays(model)
        one.load_state_dict({f"{n}_l0": source[f"recurrent.{n}_l{layer}"] for n in names})
        layers.append(one)
    random.seed(5)
    x = ops.dropout(model.embedding(IDS), 0.5)
    y, _ = layers[0](x)
    y, _ = layers[1](ops.dropout(y, 0.5))
    expected = model.output(ops.dropout(y, 0.5))
    np.testing.assert_allclose(found.data, expected.data, atol=1e-12)


def test_evaluation_has_no_dropout():
    model = make(dropout=0.5).eval()
    logits, _ = model(IDS)
    np.testing.assert_allclose(logits.data, logits_by_hand(arrays(model), IDS), atol=1e-12)
    model.train()
    assert np.abs(model(IDS)[0].data - logits.data).max() > 0.01


def test_forget_bias_and_uniform_initialisation():
    model = LanguageModel(V, hidden_size=H, forget_bias=2.0, initialization=0.1)
    weights = arrays(model)
    biases = weights["recurrent.bias_ih_l0"] + weights["recurrent.bias_hh_l0"]
    np.testing.assert_allclose(biases[H : 2 * H], 2.0)
    others = [a for name, a in weights.items() if "recurrent.bias" not in name]
    assert all(0.05 < np.abs(a).max() <= 0.1 for a in others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tied": True}, r"tied needs equal embedding_size \(3\) and hidden_size \(4\)"),
        ({"dropout": 1.0}, "dropout"),
        ({"cell": "lsmt"}, "lsmt"),
        ({"initialization": "random"}, "initialization 'random'"),
        ({"num_layers": 0}, "num_layers"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


# On disk


@pytest.fixture
def saved(tmp_path):
    tokenizer = CharacterTokenizer.fit("abcdefg")
    options = {
        "vocabulary_size": V, "hidden_size": H, "embedding_size": E, "num_layers": 2,
        "dropout": 0.5, "dtype": "float64",
    }  # fmt: skip
    random.seed(3)
    model = LanguageModel(**options)
    directory = ModelDirectory.create(tmp_path / "model")
    config = {"task": "language_model", "model": options}
    directory.save(config, tokenizer.to_dict(), arrays(model))
    return directory, model, tokenizer


def test_a_model_directory_gives_the_same_model_ready_to_evaluate(saved):
    directory, model, tokenizer = saved
    random.seed(99)
    loaded = LanguageModel.load(directory.path)
    assert not loaded.training
    assert loaded.codec.to_dict() == tokenizer.to_dict()
    np.testing.assert_array_equal(loaded(IDS)[0].data, model.eval()(IDS)[0].data)


def edit_config(directory, change):
    config = json.loads(directory.config.read_text())
    change(config)
    directory.config.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(task="classifier"), "its task is 'classifier', not 'language_model'"),
        (lambda c: c.pop("task"), "its task is None"),
        (lambda c: c.pop("model"), "it has no model, not .language_model."),
        (lambda c: c["model"].update(hidden_size=5), "hidden_size 5 makes .*, but in model"),
        (lambda c: c["model"].update(hidden_size="big"), "hidden_size is .big.; expected int"),
        (lambda c: c["model"].update(dropout="much"), "model.dropout is .much.; expected float"),
        (lambda c: c["model"].update(colour="red"), "colour"),
        (lambda c: c["model"].pop("vocabulary_size"), "vocabulary_size"),
        (lambda c: c["model"].update(cell="transformer"), "transformer"),
    ],
)
def test_a_damaged_config_is_named(saved, change, message):
    directory, _, _ = saved
    edit_config(directory, change)
    with pytest.raises(ArtifactError, match=message) as error:
        LanguageModel.load(directory.path)
    assert str(directory.path) in str(error.value)


def test_a_missing_weight_is_named(saved):
    directory, model, _ = saved
    weights = arrays(model)
    del weights["output.bias"]
    write_weights(directory.weights, weights)
    with pytest.raises(ArtifactError, match=r"output\.bias"):
        LanguageModel.load(directory.path)


def test_another_tokenizer_is_refused(saved):
    directory, _, _ = saved
    directory.tokenizer.write_text(json.dumps(CharacterTokenizer.fit("ab").to_dict()))
    with pytest.raises(ArtifactError, match=r"vocabulary_size is 7, but tokenizer.json has 2"):
        LanguageModel.load(directory.path)


def test_a_damaged_tokenizer_is_named(saved):
    directory, _, _ = saved
    directory.tokenizer.write_text('{"level": "syllable"}')
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: .*syllable"):
        LanguageModel.load(directory.path)
