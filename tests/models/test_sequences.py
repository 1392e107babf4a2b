"""Classifier, regressor and tagger: values by hand, gradients, lengths, and model directories."""

import itertools
import json
import math

import numpy as np
import pytest

from anaphora import cell, engine, hook, nn, ops, random
from anaphora.artifact import ArtifactError
from anaphora.data import Batch, CharacterTokenizer, PairBatch, SpelledBatch, TaggerCodec
from anaphora.equations import EquationError, tanh
from anaphora.models import (
    EncoderDecoder,
    LanguageModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    load,
)
from anaphora.training import evaluate
from anaphora.training.measures import LabelMeasure

T, B, I, E, H, C, V, W = 6, 4, 3, 5, 4, 2, 11, 7
LENGTHS = np.array([6, 0, 3, 1])


def make(kind=SequenceClassifier, outputs=C, **options):
    random.seed(4)
    return kind(
        outputs, hidden_size=H, dtype="float64", **{"input_size": I, "cell": "gru", **options}
    )


def arrays(model):
    return {name: parameter.data for name, parameter in model.named_parameters()}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gru_by_hand(x, weights, suffix):
    """The outputs [T, H] of a GRU over one sequence [T, I], in plain NumPy, written again."""
    w_ih, w_hh, b_ih, b_hh = (
        weights[f"recurrent.{name}{suffix}"]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, outputs = np.zeros(w_hh.shape[1]), []
    for x_t in x:
        r_x, z_x, n_x = np.split(w_ih @ x_t + b_ih, 3)
        r_h, z_h, n_h = np.split(w_hh @ h + b_hh, 3)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        h = (1 - z) * np.tanh(n_x + r * n_h) + z * h
        outputs.append(h)
    return np.array(outputs).reshape(len(x), len(b_hh) // 3)


def both_ways_by_hand(x, weights, layer=0):
    """The outputs [T, 2H] of one bidirectional layer over one sequence."""
    forward = gru_by_hand(x, weights, f"_l{layer}")
    backward = gru_by_hand(x[::-1], weights, f"_l{layer}_reverse")[::-1]
    return np.concatenate([forward, backward], axis=1)


def pooled_by_hand(y, pooling):
    if len(y) == 0:
        return np.zeros(2 * H)
    if pooling == "last":
        return np.concatenate([y[-1, :H], y[0, H:]])
    return y.mean(axis=0) if pooling == "mean" else y.max(axis=0)


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, B, I))


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_values_are_those_of_each_sequence_alone_by_hand(x, pooling):
    model = make(pooling=pooling, num_layers=2, bidirectional=True)
    weights = arrays(model)
    logits = model(x, lengths=LENGTHS)
    assert logits.shape == (B, C)
    for b, length in enumerate(LENGTHS):
        y = x[:length, b]
        for layer in range(2):
            y = both_ways_by_hand(y, weights, layer) if length else np.zeros((0, 2 * H))
        expected = weights["output.weight"] @ pooled_by_hand(y, pooling) + weights["output.bias"]
        np.testing.assert_allclose(logits.data[b], expected, atol=1e-12)


@pytest.mark.parametrize("options", [{"cell": "lstm"}, {"cell": "gru", "bidirectional": True}])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_padding_and_other_rows_change_no_bit(x, pooling, options):
    if engine.info()["engine"] != "native":
        pytest.skip("equal to the bit on the native engine")
    model = make(pooling=pooling, **options)
    together = model(x, lengths=LENGTHS).data
    padded = np.concatenate([x, np.full((2, B, I), 7.0)])
    np.testing.assert_array_equal(model(padded, lengths=LENGTHS).data, together)
    for b, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(model(x[:length, b : b + 1]).data[0], together[b])


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i8", "u1"])
@pytest.mark.parametrize("model_type", [SequenceClassifier, SequenceRegressor, SequenceTagger])
def test_features_and_targets_of_any_dtype_are_converted(model_type, kind):
    random.seed(4)
    model = model_type(C, hidden_size=H, input_size=I)
    x = np.random.default_rng(5).integers(0, 4, (T, B, I))
    targets = np.ones({SequenceRegressor: (B, C), SequenceTagger: (T, B)}.get(model_type, (B,)))
    targets = targets.astype(kind if model_type is SequenceRegressor else int)
    expected, _ = model.loss(Batch(x.astype(np.float32), targets, LENGTHS))
    found, _ = model.loss(Batch(x.astype(kind), targets, LENGTHS))
    assert found.dtype == np.float32
    assert found.item() == expected.item()
    found.backward()
    assert all(p.grad.dtype == np.float32 for p in model.parameters())


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("embedded", [False, True])
def test_gradients_are_those_of_central_differences(rng, x, kind, pooling, embedded):
    inputs = {"vocabulary_size": V, "embedding_size": E, "input_size": None} if embedded else {}
    model = make(kind, pooling=pooling, bidirectional=True, **inputs)
    sequences = rng.integers(0, V, (T, B)) if embedded else x
    targets = np.array([1, 0, 1, 1]) if kind is SequenceClassifier else rng.normal(size=(B, C))
    check_loss_gradients(model, Batch(sequences, targets, LENGTHS))


def check_loss_gradients(model, batch):
    rng = np.random.default_rng(1)
    model.loss(batch)[0].backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        gradient = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
        assert np.abs(gradient).max() > 1e-4, name
        direction = rng.standard_normal(parameter.shape)

        def moved(step, parameter=parameter, direction=direction):
            with parameter.writing() as array:
                array += step * direction
            loss = model.loss(batch)[0].item()
            with parameter.writing() as array:
                array -= step * direction
            return loss

        numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
        np.testing.assert_allclose(
            (gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-8, err_msg=name
        )


def test_losses_are_the_mean_over_sequences(rng, x):
    classifier, regressor = make(), make(SequenceRegressor, 3)
    classes, numbers = np.array([1, -100, 0, 1]), rng.normal(size=(B, 3))
    loss, state = classifier.loss(Batch(x, classes, LENGTHS))
    log_p = ops.log_softmax(classifier(x, LENGTHS)).data
    np.testing.assert_allclose(loss.item(), -(log_p[0, 1] + log_p[2, 0] + log_p[3, 1]) / 3)
    assert state is None
    loss, state = regressor.loss(Batch(x, numbers, LENGTHS))
    np.testing.assert_allclose(loss.item(), ((regressor(x, LENGTHS).data - numbers) ** 2).mean())
    assert state is None


def test_dropout_is_on_embeddings_between_layers_and_before_the_output_never_on_features(rng):
    ids = {"vocabulary_size": V, "embedding_size": E, "input_size": None, "num_layers": 2}
    for options, shapes in [(ids, [(T, B, E), (T, B, H), (B, H)]), ({}, [(B, H)])]:
        dropped = []

        class Watcher:
            def enter(self, phase, operation, inputs, dropped=dropped):
                if operation == "dropout":
                    dropped.append(inputs[0].shape)

            def leave(self, phase, operation, outputs):
                pass

        model = make(dropout=0.5, **options)
        with hook(Watcher()):
            model(rng.integers(0, V, (T, B)) if options else np.ones((T, B, I)))
            model.eval()(rng.integers(0, V, (T, B)) if options else np.ones((T, B, I)))
        assert dropped == shapes


# Tagger ----------------------------------------------------------------------------------------


def word_batch(rng):
    batch = spelled_batch(rng)
    return Batch(batch.inputs, batch.targets, LENGTHS)


def spelled_batch(rng):
    ids, tags = rng.integers(0, V, (T, B)), rng.integers(0, C, (T, B))
    real = np.arange(T)[:, None] < LENGTHS
    characters = rng.integers(0, V, (W, T, B))
    counts = np.where(real, rng.integers(0, W + 1, (T, B)), 0)
    return SpelledBatch(ids, np.where(real, tags, -100), LENGTHS, characters, counts)


def tagger(**options):
    given = {"vocabulary_size": V, "embedding_size": E, "input_size": None, "bidirectional": True}
    return make(SequenceTagger, **{**given, **options})


SPELLING = {"num_characters": V, "character_embedding_size": 2, "character_hidden_size": 3}


@pytest.mark.parametrize("spelling", [{}, SPELLING])
def test_tags_are_scored_as_by_hand(rng, spelling):
    model, batch = tagger(**spelling), spelled_batch(rng)
    weights = arrays(model)
    below = {name[len("characters.") :]: w for name, w in weights.items()}
    given = (batch.characters, batch.character_lengths) if spelling else ()
    logits, _ = model(batch.inputs, None, LENGTHS, *given)
    assert logits.shape == (T, B, C)
    for b, length in enumerate(LENGTHS):
        steps = []
        for t in range(length):
            vector = weights["embedding.weight"][batch.inputs[t, b]]
            if spelling:
                letters = batch.characters[: batch.character_lengths[t, b], t, b]
                y = both_ways_by_hand(below["embedding.weight"][letters], below)
                ends = np.concatenate([y[-1, :3], y[0, 3:]]) if len(letters) else np.zeros(6)
                vector = np.concatenate([vector, ends])
            steps.append(vector)
        if length:
            y = both_ways_by_hand(np.array(steps), weights)
            expected = y @ weights["output.weight"].T + weights["output.bias"]
            np.testing.assert_allclose(logits.data[:length, b], expected, atol=1e-12)


@pytest.mark.parametrize("spelling", [{}, SPELLING])
def test_gradients_of_the_tagger(rng, spelling):
    check_loss_gradients(tagger(**spelling), (spelled_batch if spelling else word_batch)(rng))


def test_a_taggers_loss_is_the_mean_over_steps_that_count(rng):
    model, batch = tagger(), word_batch(rng)
    log_p = ops.log_softmax(model(batch.inputs, None, LENGTHS)[0]).data
    counted = [log_p[t, b, batch.targets[t, b]] for b in range(B) for t in range(LENGTHS[b])]
    assert batch.tokens == len(counted) == 10
    np.testing.assert_allclose(model.loss(batch)[0].item(), -np.mean(counted))


# A conditional random field, label smoothing, class weights


TAGS = ("B-X", "I-X", "I-Y", "O")  # so that C is 4 here


def crf_tagger(**options):
    random.seed(4)
    model = SequenceTagger(
        len(TAGS), hidden_size=H, vocabulary_size=V, embedding_size=E, crf=True, dtype="float64",
        cell="gru", initialization=1.5, **options,
    )  # fmt: skip
    model.codec = TaggerCodec(tuple("abcdefghij"), False, CharacterTokenizer.fit("a"), TAGS, "BIO")
    return model


def paths_by_hand(model, scores):
    """Every path of a row's scores [T, C], its score, and whether BIO has it."""
    weights = arrays(model)
    for path in itertools.product(range(len(TAGS)), repeat=len(scores)):
        total = sum(scores[t, k] for t, k in enumerate(path))
        total += weights["crf_layer.start_transitions"][path[0]]
        total += weights["crf_layer.end_transitions"][path[-1]]
        total += sum(weights["crf_layer.transitions"][a, b] for a, b in itertools.pairwise(path))
        names = ["O", *(TAGS[k] for k in path)]
        pairs = itertools.pairwise(names)
        yield path, total, all(b[0] != "I" or a[1:] == b[1:] for a, b in pairs)


def crf_batch(rng):
    ids, tags = rng.integers(0, V, (T, B)), rng.integers(0, len(TAGS), (T, B))
    lengths = np.array([3, 0, 5, 1])
    return Batch(ids, np.where(np.arange(T)[:, None] < lengths, tags, -100), lengths)


def test_a_crf_judges_whole_paths(rng):
    """Loss over all paths; answers and probabilities over those that the tags' scheme has."""
    model, batch = crf_tagger().eval(), crf_batch(rng)
    scores = model.scores(batch)
    answers = model.answers(scores, batch.lengths)
    shares = model.probabilities(scores, batch.lengths)
    losses, differs = [], 0
    for b, length in enumerate(batch.lengths):
        if not length:
            continue
        found = list(paths_by_hand(model, scores.data[:length, b]))
        partition = math.log(sum(math.exp(score) for _, score, _ in found))
        target = tuple(batch.targets[:length, b])
        losses += [partition - score for path, score, _ in found if path == target]
        valid = [(path, score) for path, score, allowed in found if allowed]
        best = max(valid, key=lambda pair: pair[1])[0]
        assert tuple(answers[:length, b]) == best
        differs += best != tuple(scores.data[:length, b].argmax(axis=-1))
        norm = sum(math.exp(score) for _, score in valid)
        for t, k in itertools.product(range(length), range(len(TAGS))):
            share = sum(math.exp(score) for path, score in valid if path[t] == k) / norm
            assert shares[t, b, k] == pytest.approx(share)
    assert differs > 0
    assert model.loss(batch)[0].item() == pytest.approx(sum(losses) / sum(batch.lengths))
    result = evaluate(model, [batch])
    real = batch.targets != -100
    assert result.correct == np.count_nonzero((answers == batch.targets) & real)


def test_gradients_of_a_crf(rng):
    check_loss_gradients(crf_tagger(), crf_batch(rng))


def test_a_saved_crf_knows_again_which_tags_may_follow_each_other(tmp_path):
    model = crf_tagger(num_characters=1)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert arrays(again).keys() == arrays(model).keys() >= {"crf_layer.transitions"}
    for name, constraint in nn.tag_constraints(TAGS)._asdict().items():
        np.testing.assert_array_equal(getattr(again.crf_layer.constraints, name), constraint)
    model.codec = None
    assert model.crf_layer.constraints is None


def test_a_crf_is_not_smoothed():
    with pytest.raises(ValueError, match="label_smoothing is for tags that are predicted"):
        crf_tagger(label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing must be >= 0 and < 1"):
        make(label_smoothing=1.0)


def smoothed_by_hand(logits, targets, smoothing, weights):
    log_p = np.log(np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True))
    total = 0
    for row, target in zip(log_p, targets, strict=True):
        q = [(1 - smoothing) * (k == target) + smoothing / len(row) for k in range(len(row))]
        total -= sum(w * share * p for w, share, p in zip(weights, q, row, strict=True))
    return total / len(targets)


def test_label_smoothing_and_class_weights_count_in_training_alone(x):
    model, targets = make(outputs=3, label_smoothing=0.2), np.array([2, 0, 2, 1])
    batch = Batch(x, targets, LENGTHS)
    logits = model.scores(batch).data
    assert model.loss(batch)[0].item() == pytest.approx(
        smoothed_by_hand(logits, targets, 0.2, [1, 1, 1])
    )
    model.class_weights = np.array([3.0, 1.0, 0.5])
    loss = model.loss(batch)[0].item()
    assert loss == pytest.approx(smoothed_by_hand(logits, targets, 0.2, [3, 1, 0.5]))
    plain = smoothed_by_hand(logits, targets, 0, [1, 1, 1])
    assert model.eval().loss(batch)[0].item() == pytest.approx(plain) != loss


LABELS = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)  # of B sequences


def binary_by_hand(logits, labels, pos_weight):
    p = sigmoid(logits)
    losses = np.where(labels, -pos_weight * np.log(p), -np.log(1 - p))
    return losses.sum() / losses.size


def test_each_of_several_labels_is_a_yes_or_no(x):
    model, batch = make(outputs=3, multi_label=True), Batch(x, LABELS, LENGTHS)
    logits = model.scores(batch)
    assert batch.tokens == B
    ones = np.ones(3)
    assert model.loss(batch)[0].item() == pytest.approx(binary_by_hand(logits.data, LABELS, ones))
    np.testing.assert_allclose(model.answer(logits).data, sigmoid(logits.data), rtol=1e-12)
    np.testing.assert_array_equal(model.answers(logits, None), sigmoid(logits.data) > 0.5)
    assert 0 < model.answers(logits, None).sum() < LABELS.size
    # A label that the model does not know is no part of the loss.
    more = Batch(x, np.concatenate([LABELS, ~LABELS[:, :1]], axis=1), LENGTHS)
    assert model.loss(more)[0].item() == model.loss(batch)[0].item()
    weights = np.array([3.0, 0.25, 1.0])
    model.class_weights = weights
    expected = binary_by_hand(logits.data, LABELS, weights)
    assert model.loss(batch)[0].item() == pytest.approx(expected)
    unweighted = binary_by_hand(logits.data, LABELS, ones)
    assert model.eval().loss(batch)[0].item() == pytest.approx(unweighted) != expected


@pytest.mark.parametrize("count", [1, 3])
def test_sequences_of_several_labels_are_evaluated(x, count):
    model, batch = make(outputs=count, multi_label=True), Batch(x, LABELS[:, :count], LENGTHS)
    result = evaluate(model, [batch, batch], measure=LabelMeasure("abc"[:count]))
    expected = binary_by_hand(model.scores(batch).data, batch.targets, np.ones(count))
    assert result.loss == pytest.approx(expected)
    assert (result.tokens, result.correct) == (2 * B, None)
    exact = (model.answers(model.scores(batch), None) == batch.targets).all(axis=1).mean()
    assert result.more["subset_accuracy"] == exact


def test_gradients_of_several_labels(x):
    model = make(outputs=3, multi_label=True, bidirectional=True, pooling="mean")
    model.class_weights = np.array([3.0, 0.25, 1.0])
    check_loss_gradients(model, Batch(x, LABELS, LENGTHS))


def test_several_labels_in_other_places_are_reported(x):
    model = make(outputs=3, multi_label=True)
    with pytest.raises(ValueError, match=r"targets of shape \(4,\) for logits of shape \(4, 3\)"):
        model.loss(Batch(x, np.zeros(B, int), LENGTHS))
    with pytest.raises(ValueError, match="label_smoothing spreads a target over the other classes"):
        make(outputs=3, multi_label=True, label_smoothing=0.1)


def test_a_classifier_of_several_labels_comes_back_and_one_of_before_too(tmp_path, x):
    model = make(outputs=3, multi_label=True)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.multi_label
    np.testing.assert_array_equal(again(x).data, model.eval()(x).data)
    make(outputs=3).save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    assert config["model"].pop("multi_label") is False  # as directories of before lack it
    path.write_text(json.dumps(config))
    assert load(tmp_path / "model").multi_label is False


@pytest.mark.parametrize("kind", ["tagger", "language model", "encoder-decoder"])
def test_targets_of_steps_are_smoothed_in_training_alone(rng, kind):
    random.seed(4)
    more = {"hidden_size": H, "dtype": "float64", "label_smoothing": 0.3}
    ids, targets = rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B))
    batch = Batch(ids, targets, np.full(B, T))
    if kind == "tagger":
        model = SequenceTagger(V, vocabulary_size=V, **more)
    elif kind == "language model":
        model = LanguageModel(vocabulary_size=V, **more)
    else:
        model = EncoderDecoder(source_vocabulary_size=V, vocabulary_size=V, **more)
        given = {"source": ids[:2], "source_lengths": np.full(B, 2)}
        batch = PairBatch(ids, targets, batch.lengths, **given)
    first = (batch.source, ids) if kind == "encoder-decoder" else (ids,)
    logits = model(*first)[0].data.reshape(-1, V)
    for mode, smoothing in (True, 0.3), (False, 0.0):
        expected = smoothed_by_hand(logits, targets.reshape(-1), smoothing, np.ones(V))
        assert model.train(mode).loss(batch)[0].item() == pytest.approx(expected)


def test_answers_that_training_lacked_are_wrong_and_the_loss_is_that_of_the_rest(x, rng):
    """Of a tagger it is that of the sentences without: a path is judged as a whole."""
    model = make(outputs=3)
    targets = np.array([2, 3, 0, 4])
    result = evaluate(model, [Batch(x, targets, LENGTHS)])
    known = evaluate(model, [Batch(x[:, ::2], targets[::2], LENGTHS[::2])])
    assert (result.tokens, result.correct) == (4, known.correct)
    assert result.loss == pytest.approx(known.loss)

    for model in (crf_tagger(), SequenceTagger(4, hidden_size=H, vocabulary_size=V)):
        batch = crf_batch(rng)
        changed = batch.targets.copy()
        changed[1, 2] = 4
        result = evaluate(model, [Batch(batch.inputs, changed, batch.lengths)])
        rows = [0, 1, 3]
        known = evaluate(
            model, [Batch(batch.inputs[:, rows], batch.targets[:, rows], batch.lengths[rows])]
        )
        assert result.loss == pytest.approx(known.loss, rel=1e-6)
        answers = model.answers(model.scores(batch), batch.lengths)
        assert result.correct == np.count_nonzero((answers == changed) & (changed != -100))
        assert result.tokens == 9


def test_a_tagger_of_features_carries_its_state_over_chunks(x):
    model = make(SequenceTagger, num_layers=2)
    complete, last = model(x)
    first, state = model(x[:4])
    second, end = model(x[4:], state)
    np.testing.assert_array_equal(complete.data, np.concatenate([first.data, second.data]))
    np.testing.assert_array_equal(last.data, end.data)


# Model directories -----------------------------------------------------------------------------

MODELS = {
    "classifier": lambda: make(pooling="max", bidirectional=True, num_layers=2, forget_bias=None),
    "regressor": lambda: make(SequenceRegressor, 3, vocabulary_size=V, input_size=None),
    "tagger": lambda: tagger(**SPELLING),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, name):
    model = MODELS[name]()
    model.save(tmp_path / "model", seed=4)
    loaded = type(model).load(tmp_path / "model")
    assert loaded.config["seed"] == 4
    assert type(load(tmp_path / "model")) is type(model)
    assert loaded.options == model.options
    assert not loaded.training
    before, after = arrays(model), arrays(loaded)
    assert list(before) == list(after)
    for key in before:
        assert after[key].dtype == np.float64
        np.testing.assert_array_equal(before[key], after[key])
    assert json.loads((tmp_path / "model" / "config.json").read_text())["seed"] == 4


def test_another_models_directory_is_named(tmp_path):
    make().save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="task is 'sequence_classifier', not 'sequence_tagger'"):
        SequenceTagger.load(tmp_path / "model")


def test_a_config_that_does_not_fit_the_weights_is_named(tmp_path):
    make().save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["model"]["hidden_size"] = H + 1
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"json: model.hidden_size .* makes .*weight_ih_l0"):
        SequenceClassifier.load(path.parent)
    del config["model"]["hidden_size"]
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"input_size 3 makes recurrent\.weight_ih_l0"):
        SequenceClassifier.load(path.parent)


def test_a_cell_of_ones_own_comes_back_from_its_program(tmp_path, x):
    @cell(gates="n m", state="h", parameters="p")
    def gru(n, m, h, p):
        inner = tanh(n.x + p * n.h)
        h = inner * 0.25 + m.h
        return h

    model = make(cell=gru)
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert "inner" in config["model"]["cell"]["names"]
    loaded = load(tmp_path / "model")
    batch = Batch(x, np.array([0, 1, 1, 0]))
    np.testing.assert_array_equal(loaded.scores(batch).data, model.eval().scores(batch).data)
    assert loaded.recurrent.cell.program == gru.program
    loaded.save(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again["model"] == config["model"]


def test_a_cell_without_a_program_is_not_saved(tmp_path):
    @cell(gates="n", state="h", fused=False)
    def plain(n, h):
        return tanh(n)

    with pytest.raises(EquationError, match="'plain' was declared with fused=False"):
        make(cell=plain).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# Misuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": None}, "give input_size, .* or vocabulary_size, .*; not neither"),
        ({"vocabulary_size": V}, "not both"),
        ({"embedding_size": E}, "embedding_size is for ids"),
        ({"pooling": "first"}, "pooling 'first' is not one of last, mean, max"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=f"SequenceClassifier: .*{message}"):
        make(**options)


def test_characters_where_they_do_not_belong_are_refused(rng):
    batch = spelled_batch(rng)
    with pytest.raises(ValueError, match=r"needs characters .* give loss a SpelledBatch"):
        tagger(**SPELLING).loss(Batch(batch.inputs, batch.targets, LENGTHS))
    with pytest.raises(ValueError, match="make it with num_characters"):
        tagger().loss(batch)
    with pytest.raises(ValueError, match=r"expected \[W, ...\] and \[...\]"):
        tagger(**SPELLING)(batch.inputs, None, LENGTHS, batch.characters, LENGTHS)


@pytest.mark.parametrize("crf", [False, True])
def test_padding_is_no_right_answer(rng, crf):
    model = SequenceTagger(3, hidden_size=H, input_size=I, dtype="float64", crf=crf)
    targets = np.full((T, B), -100)
    for b, length in enumerate(LENGTHS):
        targets[:length, b] = rng.integers(0, 3, length)
    batch = Batch(rng.normal(size=(T, B, I)), targets, LENGTHS)
    answers = model.answers(model.scores(batch), LENGTHS)
    right = sum(
        int((answers[:length, b] == targets[:length, b]).sum()) for b, length in enumerate(LENGTHS)
    )
    result = evaluate(model, [batch])
    assert (result.correct, result.tokens) == (right, LENGTHS.sum())
