"""Sequence to sequence and vector to sequence: values by hand, gradients, padding, directories."""

import json

import numpy as np
import pytest

from anaphora import optim, random
from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.data import CharacterTokenizer, PairBatch, PairCodec, TargetCodec, pair_batches
from anaphora.generation import greedy_search
from anaphora.models import Decoder, EncoderDecoder, VectorToSequence
from anaphora.models.body import DecoderBody
from anaphora.tensor import no_grad

V_SOURCE, V, E, H, S, T, B, I = 9, 7, 3, 4, 6, 5, 3, 2
SOURCE_LENGTHS = np.array([6, 2, 0])
LENGTHS = np.array([4, 5, 1])
KINDS = [None, "additive", "multiplicative"]


def make(**options):
    random.seed(3)
    given = {"embedding_size": E, "num_layers": 2, "dtype": "float64", "end_id": 5, **options}
    return EncoderDecoder(V_SOURCE, V, hidden_size=H, **given)


def make_vector_model(**options):
    random.seed(3)
    return VectorToSequence(
        I, V, hidden_size=H, embedding_size=E, num_layers=2, dtype="float64", end_id=5, **options
    )


@pytest.fixture
def batch(rng):
    real = np.arange(T)[:, None] < LENGTHS
    targets = np.where(real, rng.integers(0, V, (T, B)), -100)
    inputs = np.concatenate([np.full((1, B), 5), np.maximum(targets[:-1], 0)])
    source = rng.integers(0, V_SOURCE, (S, B))
    return PairBatch(inputs, targets, LENGTHS, source=source, source_lengths=SOURCE_LENGTHS)


@pytest.fixture
def vector_batch(batch, rng):
    vectors = rng.normal(size=(B, I))
    return PairBatch(batch.inputs, batch.targets, LENGTHS, source=vectors, source_lengths=None)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(weights, name, xs, h, c):
    """One direction of one layer over the steps of one row."""
    outputs = []
    for x in xs:
        z = weights["weight_ih" + name] @ x + weights["bias_ih" + name]
        z = z + weights["weight_hh" + name] @ h + weights["bias_hh" + name]
        i, f, g, o = np.split(z, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return outputs, h, c


def of(weights, prefix):
    return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}


def attend(weights, kind, query, states):
    """The shares of the states of one row."""
    scores = []
    for state in states:
        key = weights["key.weight"] @ state
        if kind == "additive":
            key = weights["score.weight"][0] @ np.tanh(weights["query.weight"] @ query + key)
            scores.append(key)
        else:
            scores.append(query @ key)
    return np.exp(scores) / np.exp(scores).sum()


def logits_by_hand(weights, kind, source, inputs):
    """One row, each number in its turn: two layers in two directions, then two in one."""
    encoder, decoder = of(weights, "encoder."), of(weights, "decoder.")
    recurrent, attention = of(decoder, "recurrent."), of(decoder, "attention.")
    states = [weights["embedding.weight"][id] for id in source]
    initial = []
    for layer in range(2):
        zeros = np.zeros(H // 2)
        one, h, c = lstm(encoder, f"_l{layer}", states, zeros, zeros)
        other, h_back, c_back = lstm(encoder, f"_l{layer}_reverse", states[::-1], zeros, zeros)
        states = [np.concatenate(pair) for pair in zip(one, other[::-1], strict=True)]
        initial.append((np.concatenate([h, h_back]), np.concatenate([c, c_back])))
    ys = [decoder["embedding.weight"][id] for id in inputs]
    for layer in range(2):
        ys, _, _ = lstm(recurrent, f"_l{layer}", ys, *initial[layer])
    if kind is not None:
        contexts = []
        for y in ys:
            context = np.zeros(H)
            if len(states):
                for share, state in zip(attend(attention, kind, y, states), states, strict=True):
                    context = context + share * state
            contexts.append(context)
        pairs = zip(contexts, ys, strict=True)
        ys = [np.tanh(decoder["combine.weight"] @ np.concatenate(pair)) for pair in pairs]
    output = decoder.get("output.weight", decoder["embedding.weight"])
    return np.stack([output @ y + decoder["output.bias"] for y in ys])


def arrays(model):
    return {name: parameter.data for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_equations(kind, tied, batch):
    model = make(attention=kind, tied=tied, embedding_size=H if kind is None else E)
    logits, weights = model(batch.source, batch.inputs, SOURCE_LENGTHS, LENGTHS)
    assert logits.shape == (T, B, V)
    assert weights is None if kind is None else weights.shape == (T, B, S)
    for b in range(B):
        source, inputs = batch.source[: SOURCE_LENGTHS[b], b], batch.inputs[: LENGTHS[b], b]
        expected = logits_by_hand(arrays(model), kind, source, inputs)
        np.testing.assert_allclose(logits.data[: LENGTHS[b], b], expected, atol=1e-12)


def test_logits_about_a_vector_are_those_of_the_equations(vector_batch):
    model = make_vector_model()
    logits, weights = model(vector_batch.source, vector_batch.inputs)
    assert weights is None
    values = arrays(model)
    recurrent = of(values, "decoder.recurrent.")
    for b, x in enumerate(vector_batch.source):
        z = np.tanh(values["initial.weight"] @ x + values["initial.bias"])
        (h, c) = z.reshape(2, 2, H)  # states, layers
        ys = [values["decoder.embedding.weight"][id] for id in vector_batch.inputs[:, b]]
        for layer in range(2):
            ys, _, _ = lstm(recurrent, f"_l{layer}", ys, h[layer], c[layer])
        expected = ys @ values["decoder.output.weight"].T + values["decoder.output.bias"]
        np.testing.assert_allclose(logits.data[:, b], expected, atol=1e-12)


def test_the_loss_is_the_mean_over_targets_that_count(batch):
    model = make()
    logits, _ = model(batch.source, batch.inputs, SOURCE_LENGTHS, LENGTHS)
    log_p = logits.data - np.log(np.exp(logits.data).sum(axis=2, keepdims=True))
    expected = [log_p[t, b, batch.targets[t, b]] for b in range(B) for t in range(LENGTHS[b])]
    loss, state = model.loss(batch)
    assert state is None
    np.testing.assert_allclose(loss.item(), -np.mean(expected), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_padding_changes_nothing(kind, dtype, batch):
    model = make(attention=kind, dtype=dtype)
    source, inputs = batch.source.copy(), batch.inputs.copy()
    source[np.arange(S)[:, None] >= SOURCE_LENGTHS] = 8
    inputs[np.arange(T)[:, None] >= LENGTHS] = 6
    other = PairBatch(inputs, batch.targets, LENGTHS, source=source, source_lengths=SOURCE_LENGTHS)
    one, two = model.loss(batch)[0], model.loss(other)[0]
    assert one.dtype == dtype
    assert one.item() == two.item()


def check_all_gradients(model, batch):
    model.loss(batch)[0].backward()
    rng = np.random.default_rng(1)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        gradient = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
        assert np.abs(gradient).max() > 1e-6, name
        direction = rng.standard_normal(parameter.shape)
        values = []
        for step in (1e-5, -2e-5):
            with parameter.writing() as array:
                array += step * direction
            values.append(model.loss(batch)[0].item())
        with parameter.writing() as array:
            array += 1e-5 * direction
        numeric = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), numeric, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        *({"attention": kind} for kind in KINDS),
        {"cell": "gru", "bidirectional": False},
        {"attention": "additive", "tied": True},
    ],
)
def test_gradients_of_all_parameters_are_those_of_central_differences(options, batch):
    check_all_gradients(make(**options, initialization=1.0), batch)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gradients_of_the_vector_model(name, vector_batch):
    check_all_gradients(make_vector_model(cell=name), vector_batch)


def test_dropout_stands_everywhere_and_only_in_training(batch):
    model = make(dropout=0.4)
    random.seed(5)
    one, two = (model.loss(batch)[0].item() for _ in range(2))
    assert one != two
    random.seed(5)
    assert model.loss(batch)[0].item() == one
    model.eval()
    assert model.loss(batch)[0].item() == make().loss(batch)[0].item()


def test_several_rows_may_share_a_row_of_the_memory(batch):
    model = make().eval()
    with no_grad():
        state, memory = model.encode(batch.source, SOURCE_LENGTHS)
        twice = tuple(np.tile(s.data, (1, 2, 1)) for s in state)
        ids = np.concatenate([batch.inputs, batch.inputs[::-1]], axis=1)
        features, _, weights = model.decoder(ids, twice, memory)
        for k, inputs in enumerate([batch.inputs, batch.inputs[::-1].copy()]):
            expected, _, expected_weights = model.decoder(inputs, state, memory)
            rows = slice(k * B, (k + 1) * B)
            np.testing.assert_allclose(features.data[:, rows], expected.data, atol=1e-14)
            np.testing.assert_allclose(weights.data[:, rows], expected_weights.data, atol=1e-14)


def test_it_learns_to_turn_words_round():
    words = ["abc", "bca", "ca", "ab", "cab", "b", "acbb", "cc"]
    source = "".join(word + "." for word in words)
    target = "".join(word[::-1] + "." for word in words)
    tokenizer = CharacterTokenizer.fit([source])
    (end,) = tokenizer.encode(".")
    batches = pair_batches(tokenizer.encode(source), tokenizer.encode(target), 4, end, end)
    random.seed(1)
    model = EncoderDecoder(4, 4, hidden_size=16, end_id=end)
    optimizer = optim.Adam(model.parameters(), 0.02)
    generator = np.random.default_rng(1)
    for _ in range(60):
        for batch in batches.shuffled(generator):
            model.loss(batch)[0].backward()
            optimizer.step()
            optimizer.zero_grad()
    for order, batch in zip(batches.order, batches, strict=True):
        found = greedy_search(model, batch.source, batch.source_lengths, max_length=6)
        assert [tokenizer.decode(h.ids) for h in found] == [words[k][::-1] for k in order]


# Model directories


def tokenizers():
    return {
        "source": CharacterTokenizer.fit(["abcdefghi"]),
        "target": CharacterTokenizer.fit(["tuvwxyz"]),
    }


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"attention": None, "cell": "gru"}])
def test_a_directory_gives_the_model_and_both_tokenizers_back(options, batch, tmp_path):
    model = make(**options, dropout=0.3)
    model.codec = PairCodec(tokenizers())
    model.save(tmp_path / "model", seed=3)
    loaded = EncoderDecoder.load(tmp_path / "model")
    read = loaded.codec
    assert not loaded.training
    assert loaded.options == model.options
    assert read["source"].decode([0, 8]) == "ai"
    assert read["target"].decode([0, 6]) == "tz"
    assert loaded.loss(batch)[0].item() == model.eval().loss(batch)[0].item()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["seed"] == 3


def test_a_directory_gives_a_vector_model_back(vector_batch, tmp_path):
    model = make_vector_model()
    model.codec = TargetCodec({"target": tokenizers()["target"]})
    model.save(tmp_path)
    loaded = VectorToSequence.load(tmp_path)
    assert loaded.codec["target"].decode([1]) == "u"
    assert loaded.loss(vector_batch)[0].item() == model.loss(vector_batch)[0].item()


def test_what_a_directory_cannot_hold_is_refused(tmp_path):
    directory = ModelDirectory.create(tmp_path / "other")
    directory.save({"task": "language_model", "model": {}}, {}, {"a": np.zeros(1)})
    with pytest.raises(ArtifactError, match="its task is 'language_model', not 'encoder_decoder'"):
        EncoderDecoder.load(tmp_path / "other")

    model = make()
    swapped = {"source": tokenizers()["target"], "target": tokenizers()["source"]}
    model.codec = PairCodec(swapped)
    model.save(tmp_path / "swapped")
    message = r"model.source_vocabulary_size is 9, but tokenizer.json has 7; restore the two"
    with pytest.raises(ArtifactError, match=message):
        EncoderDecoder.load(tmp_path / "swapped")

    model.codec, model.hidden_size = PairCodec(tokenizers()), 6
    model.save(tmp_path / "sizes")
    with pytest.raises(ArtifactError, match=r"config.json: model.hidden_size 6 makes"):
        EncoderDecoder.load(tmp_path / "sizes")


def test_options_that_do_not_fit_are_refused(batch):
    with pytest.raises(ValueError, match="must be even, not 5"):
        EncoderDecoder(V_SOURCE, V, hidden_size=5)
    with pytest.raises(ValueError, match="EncoderDecoder: attention 'dot' is not one of mult"):
        make(attention="dot")
    with pytest.raises(ValueError, match=r"tied needs equal embedding_size \(3\) and hidden"):
        make(attention=None, tied=True)
    with pytest.raises(ValueError, match="end_id is 7 and vocabulary_size 7"):
        make(end_id=7)
    model = make()
    state, memory = model.encode(batch.source, SOURCE_LENGTHS)
    with pytest.raises(ValueError, match="give a memory to a decoder with attention"):
        model.decoder(batch.inputs, state)
    with pytest.raises(ValueError, match="ids have 4 rows and the memory 3; expected a multiple"):
        model.decoder(np.zeros((2, 4), int), None, memory)
    with pytest.raises(ValueError, match="give a memory to a decoder with attention"):
        Decoder(DecoderBody(hidden_size=H), V)(batch.inputs, None, memory)
    with pytest.raises(ValueError, match=r"shape \(3, 4\); expected \[B, 2\], and no lengths"):
        make_vector_model().encode(np.zeros((3, 4)))
