"""The scikit-learn estimators: scikit-learn's own checks, ragged sequences, and what is refused."""

import pickle

import numpy as np
import pytest

from anaphora import engine, matmul_precision, no_grad, random
from anaphora.data import side_by_side

pytest.importorskip("sklearn", reason="needs scikit-learn (extra sklearn)")

from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from anaphora.estimators import RecurrentClassifier, RecurrentRegressor
from anaphora.estimators import sequences as estimators
from anaphora.training import Evaluation, Trainer

SMALL = {"hidden_size": 8, "n_models": 1, "epochs": 15, "min_updates": 100, "random_state": 1}
QUICK = {**SMALL, "learning_rate": 0.03, "batch_size": 64}
ENOUGH = {"hidden_size": 16, "n_models": 2, "min_updates": 400, "learning_rate": 0.02}
LEARNED = {**QUICK, **ENOUGH, "pooling": "last", "dropout": 0.0, "batch_size": 32}


@parametrize_with_checks([RecurrentClassifier(**QUICK), RecurrentRegressor(**QUICK)])
def test_scikit_learns_own_checks(estimator, check):
    name = getattr(check, "func", check).__name__
    if name.endswith("_train"):  # the only ones that ask for a score
        changes = {**LEARNED, "n_models": 1, "min_updates": 250}
    else:
        changes = {"epochs": 1, "min_updates": 10}
    if name == "check_methods_subset_invariance" and engine.info()["engine"] != "native":
        pytest.skip("NumPy's products in float32 differ by the number of rows; the engine's do not")
    check(clone(estimator).set_params(**changes))


def ragged(count, features=2, seed=5):
    """Sequences of 0 to 8 steps, and the sums of their first features."""
    rng = np.random.default_rng(seed)
    X = [10 + 3 * rng.standard_normal((n, features)) for n in rng.integers(0, 9, count)]
    return X, np.array([(x[:, 0] - 10).sum() for x in X])


def test_ragged_sequences_are_classified():
    X, sums = ragged(240)
    y = np.where(sums > 0, "more", "less")
    classifier = RecurrentClassifier(**{**SMALL, "epochs": 40}).fit(X[:160], y[:160])
    assert classifier.classes_.tolist() == ["less", "more"]
    assert classifier.n_features_in_ == 2
    assert classifier.score(X[160:], y[160:]) > 0.8
    probabilities = classifier.predict_proba(X[160:])
    assert probabilities.shape == (80, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    best = classifier.classes_[probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(best, classifier.predict(X[160:]))


@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_ragged_sequences_are_answered_with_numbers_in_their_units(outputs):
    X, sums = ragged(240)
    y = 1000 + 50 * sums
    if outputs:
        y = y[:, None] * np.arange(1, outputs + 1)
    options = {**SMALL, "epochs": 80, "hidden_size": 16}
    regressor = RecurrentRegressor(**options).fit(X[:160], y[:160])
    predicted = regressor.predict(X[160:])
    assert predicted.shape == y[160:].shape
    assert regressor.score(X[160:], y[160:]) > 0.9


def several_labels(count):
    """Ragged sequences, and of each whether two features, and then both, rise above a level."""
    rng = np.random.default_rng(7)
    X = [rng.standard_normal((n, 2)) for n in rng.integers(1, 9, count)]
    high = np.array([x.max(axis=0) > 1 for x in X])
    return X, np.column_stack([high, high.all(axis=1)]).astype(int)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_ragged_sequences_have_several_labels(early_stopping):
    X, Y = several_labels(240)
    assert len({tuple(row) for row in Y}) == 4
    options = {**SMALL, "epochs": 40, "hidden_size": 16, "early_stopping": early_stopping}
    classifier = RecurrentClassifier(**options).fit(X[:160], Y[:160])
    assert classifier.classes_.tolist() == [0, 1, 2]
    predicted, probabilities = classifier.predict(X[160:]), classifier.predict_proba(X[160:])
    assert predicted.dtype == np.int64
    assert predicted.shape == probabilities.shape == (80, 3)
    np.testing.assert_array_equal(predicted, probabilities > 0.5)
    assert not np.allclose(probabilities.sum(axis=1), 1)
    assert f1_score(Y[160:], predicted, average="micro") > 0.8
    exact = (predicted == Y[160:]).all(axis=1).mean()
    assert classifier.score(X[160:], Y[160:]) == pytest.approx(exact)
    for one in (Y.tolist(), Y.astype(bool), Y.astype(float), csr_matrix(Y)):
        again = RecurrentClassifier(**{**SMALL, "min_updates": 5, "epochs": 1}).fit(X, one)
        assert again.predict(X).shape == Y.shape


def test_probabilities_of_labels_are_the_mean_of_the_models():
    X, Y = several_labels(40)
    quick = {**SMALL, "epochs": 2, "min_updates": 4, "n_models": 3}
    classifier = RecurrentClassifier(**quick).fit(X, Y)
    framed = [classifier.frames_(x) for x in X]
    with no_grad():
        batch = side_by_side(framed)
        logits = np.array([m(batch.inputs, batch.lengths).data for m in classifier.models_])
    expected = (1 / (1 + np.exp(-logits.astype(np.float64)))).mean(axis=0)
    np.testing.assert_allclose(classifier.predict_proba(X), expected, rtol=1e-6)


def test_labels_that_are_no_indicator_matrix_are_refused():
    X, Y = several_labels(20)
    with pytest.raises(ValueError, match=r"y has the shape \(20, 3\), but values other than 0"):
        RecurrentClassifier(**SMALL).fit(X, 2 * Y)
    with pytest.raises(ValueError, match="y contains NaN at index 4, 1"):
        RecurrentClassifier(**SMALL).fit(X, np.where(np.arange(60).reshape(20, 3) == 13, np.nan, Y))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RecurrentClassifier(**SMALL).fit(X, Y[:-1])


def test_layouts_of_the_same_sequences_are_the_same():
    rng = np.random.default_rng(2)
    table, y = rng.standard_normal((30, 6)), rng.integers(0, 3, 30)
    objects = np.empty(30, object)
    objects[:] = [row[:, None] for row in table]
    layouts = [table, table.tolist(), table[:, :, None], list(table[:, :, None]), list(table)]
    layouts += [objects, tuple(table)]
    found = [RecurrentClassifier(**SMALL).fit(X, y).predict_proba(X) for X in layouts]
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])


def test_ragged_lists_of_plain_numbers():
    X, y = [[1.0, 2.0], [3.0], [-1.0, -2.0, -3.0], [-2.0]] * 5, [1, 1, 0, 0] * 5
    assert RecurrentClassifier(**SMALL).fit(X, y).score(X, y) == 1
    nested = [[[value] for value in x] for x in X]
    assert RecurrentClassifier(**SMALL).fit(nested, y).score(nested, y) == 1


def test_the_seed_decides_and_the_packages_own_generator_is_left_alone():
    X, sums = ragged(20)
    random.seed(3)
    before = random.get_state()
    one, two, other = (
        RecurrentRegressor(**{**LEARNED, "min_updates": 100, "dropout": 0.5, "random_state": seed})
        .fit(X, sums)
        .predict(X)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert random.get_state() == before


def test_a_fitted_estimator_is_pickled_and_cloned_unfitted():
    X, sums = ragged(20)
    regressor = RecurrentRegressor(**SMALL, bidirectional=True, num_layers=2).fit(X, sums)
    again = pickle.loads(pickle.dumps(regressor))
    np.testing.assert_array_equal(again.predict(X), regressor.predict(X))
    assert not hasattr(clone(regressor), "model_")


def test_it_works_in_a_pipeline_and_a_search():
    X, sums = ragged(60)
    y = sums > 0
    differences = FunctionTransformer(lambda X: [np.diff(x, axis=0, prepend=0) for x in X])
    assert (
        make_pipeline(differences, RecurrentClassifier(**SMALL)).fit(X, y).predict(X).dtype == bool
    )
    search = GridSearchCV(RecurrentClassifier(**SMALL), {"pooling": ["last", "mean"]}, cv=2)
    search.fit(X, y)
    assert search.best_params_["pooling"] in ("last", "mean")


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            [np.ones((3, 2)), np.ones((3, 4))],
            r"sequence 1 has the shape \(3, 4\); expected \[T, 2\]",
        ),
        (
            [np.ones((3, 2)), np.array([[1, 2], [3, np.nan]])],
            "Input X contains NaN: sequence 1, step 1, feature 1",
        ),
        (np.array([[1, 2, 3], [1, np.inf, 3]]), "contains infinity: sequence 1, step 1, feature 0"),
        ([np.ones((3, 2)), np.ones((2, 2, 2))], r"sequence 1 has the shape \(2, 2, 2\)"),
        ([[1.0, 2.0], [1.0, "a", 3.0]], "sequence 1 is not an array of numbers: it holds <U"),
        (
            [[1.0, 2.0], [[1.0, 2.0], [3.0]]],
            "sequence 1 is not an array of numbers: .*inhomogeneous",
        ),
        ([np.ones((3, 2)), np.ones((2, 2), complex)], "sequence 1 is not an array .* complex128"),
        ([np.ones((3, 2))] * 3, "inconsistent numbers of samples"),
        (np.zeros((0, 3, 2)), "X has no sequence"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        RecurrentClassifier(**SMALL).fit(X, [0, 1])


def test_what_is_missing_or_other_than_in_fit_is_refused():
    X, sums = ragged(20)
    regressor = RecurrentRegressor(**SMALL)
    with pytest.raises(ValueError, match="requires y to be passed"):
        regressor.fit(X, None)
    regressor.fit(X, sums)
    with pytest.raises(ValueError, match=r"X has 3 features per step, but .* was fitted with 2"):
        regressor.predict([np.ones((2, 3))])
    with pytest.raises(ValueError, match="pooling 'first' is not one of"):
        RecurrentRegressor(pooling="first").fit(X, sums)
    for wrong, message in [
        ({"epochs": 0}, "epochs must be an integer of at least 1, not 0"),
        ({"n_models": 1.5}, "n_models must be an integer of at least 1, not 1.5"),
        ({"min_updates": -1}, "min_updates must be an integer of at least 0, not -1"),
        ({"noise": -1.0}, "noise must be at least 0, not -1.0"),
        ({"validation_fraction": 1.0}, "validation_fraction must be > 0 and < 1, not 1.0"),
        ({"max_frames": 0}, "max_frames is 0; it must be at least 1, or None"),
        (
            {"layout": "first"},
            "layout 'first' is not one of None, 'channels_last', 'channels_first'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            RecurrentRegressor(**wrong).fit(X, sums)


RAGGED = [[1.0, 2.0], [3.0], [-1.0, -2.0, -3.0], [-2.0]] * 5


def test_what_was_fitted_on_ragged_lists_takes_every_layout_of_sequences():
    regressor = RecurrentRegressor(**SMALL).fit(RAGGED, [sum(x) for x in RAGGED])
    table = [[1.0, 2.0, 3.0], [-1.0, 0.0, 4.0]]
    expected = [regressor.predict([x, [5.0]])[0] for x in table]  # ragged, one by one
    objects = np.empty(2, object)
    objects[:] = [np.array(x) for x in table]
    for layout in [
        table, tuple(table), np.array(table), np.array(table, object), objects,
        np.array(table)[:, :, None],
        [np.array(x) for x in table], [[[v] for v in x] for x in table],
        [np.array(x, np.float16) for x in table], np.array(table, int),
    ]:  # fmt: skip
        np.testing.assert_allclose(regressor.predict(layout), expected, rtol=1e-6)
    for one in ([[1.0, 2.0, 3.0]], np.array([[1.0, 2.0, 3.0]]), [np.array([1.0, 2.0, 3.0])]):
        np.testing.assert_allclose(regressor.predict(one), expected[:1], rtol=1e-6)
    assert regressor.n_features_in_ == 1


def test_lists_of_other_lengths_after_a_table():
    rng = np.random.default_rng(3)
    table = rng.standard_normal((30, 4))
    regressor = RecurrentRegressor(**SMALL).fit(table, table.sum(axis=1))
    assert regressor.n_features_in_ == 4
    assert regressor.predict([[1.0, 2.0], [3.0]]).shape == regressor.predict([[1.0]] * 2).shape
    with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 4"):
        regressor.predict(np.ones((3, 2)))


def test_one_sequence_of_several_channels():
    X, sums = ragged(20)
    regressor = RecurrentRegressor(**SMALL).fit(X, sums)
    assert regressor.predict([np.ones((4, 2))]).shape == (1,)
    assert regressor.predict([np.ones((4, 2)), []]).shape == (2,)  # a sequence without steps
    with pytest.raises(ValueError, match=r"was fitted with 2; for one sequence \[T, I\] write"):
        regressor.predict(np.ones((4, 2)))
    with pytest.raises(
        ValueError, match=r"sequence 1 has the value 1e\+300 in channel 1 at step 1"
    ):
        regressor.predict([np.ones((1, 2)), np.array([[1, 2], [3, 1e300]])])


@pytest.mark.parametrize("X", [RAGGED, np.arange(60.0).reshape(20, 3)])
def test_targets_that_are_no_numbers_are_reported_by_their_place(X):
    y = np.arange(20.0)
    y[3] = np.nan
    for estimator in (RecurrentRegressor(**SMALL), RecurrentClassifier(**SMALL)):
        with pytest.raises(ValueError, match="Input y contains NaN at index 3"):
            estimator.fit(X, y)
    two = np.ones((20, 2))
    two[4, 1] = -np.inf
    with pytest.raises(ValueError, match="Input y contains infinity at index 4, 1"):
        RecurrentRegressor(**SMALL).fit(X, two)
    for words in (["low", "high"] * 10, np.array(["low", "high"] * 10, object)):
        with pytest.raises(
            ValueError, match=r"y must be numbers: .*; for classes use RecurrentClassifier"
        ):
            RecurrentRegressor(**SMALL).fit(X, words)
    with pytest.raises(ValueError, match="Input y contains NaN at index 1"):
        RecurrentClassifier(**SMALL).fit(X, np.array(["a", None] * 10, object))
    with pytest.raises(ValueError, match=r"y has only one class, .*'a'.*; expected two or more"):
        RecurrentClassifier(**SMALL).fit(X, ["a"] * 20)
    with pytest.raises(ValueError, match=r"output 0 has values as large as 1e\+200"):
        RecurrentRegressor(**SMALL).fit(X, y=np.where(np.arange(20) == 3, 1e200, 0))


def test_float16_series_are_scaled_in_float64():
    rng = np.random.default_rng(4)
    X = [(60000 + 500 * rng.standard_normal((n, 1))).astype(np.float16) for n in (3, 5, 4) * 7]
    regressor = RecurrentRegressor(**SMALL).fit(X, [float(x.mean()) for x in X])
    steps = np.concatenate(X).astype(np.float64)
    np.testing.assert_allclose(regressor.frames_.mean, steps.mean(axis=0))
    np.testing.assert_allclose(regressor.frames_.deviation, steps.std(axis=0))
    assert np.isfinite(regressor.predict(X)).all()


def test_a_list_of_numbers_is_no_list_of_sequences():
    ragged = [np.ones(3), np.ones(4)] * 6
    fitted = RecurrentClassifier(epochs=1, min_updates=9, hidden_size=4).fit(ragged, ["a", "b"] * 6)
    for X in ([1.0, 2.0, 3.0], np.array([1.0, 2.0])):
        with pytest.raises(ValueError, match=r"X has the number 1.0 instead of a seq"):
            fitted.predict(X)
    with pytest.raises(ValueError, match=r"X is float; expected a list"):
        fitted.predict(3.0)
    with pytest.raises(ValueError, match="all sequences of X are empty"):
        fitted.predict([[]])


# Layouts


def channels(count=24):
    """Sequences [n, T = 9, I = 2], whose classes the first feature tells."""
    rng = np.random.default_rng(6)
    y = np.arange(count) % 2
    X = rng.standard_normal((count, 9, 2)) + np.stack([y, 0 * y], axis=1)[:, None]
    return X, y


def test_channels_first_are_converted_on_request():
    X, y = channels()
    expected = RecurrentClassifier(**SMALL).fit(X, y).predict_proba(X)
    first = RecurrentClassifier(**SMALL, layout="channels_first")
    flipped = np.swapaxes(X, 1, 2)
    for layout in (flipped, list(flipped)):
        fitted = first.fit(layout, y)
        assert fitted.n_features_in_ == 2
        np.testing.assert_array_equal(fitted.predict_proba(flipped), expected)
        np.testing.assert_array_equal(fitted.predict_proba(list(flipped)), expected)
    table = X[:, :, 0]
    flat = RecurrentClassifier(**SMALL).fit(table, y).predict_proba(table)
    np.testing.assert_array_equal(first.fit(table, y).predict_proba(table), flat)


def test_channels_first_are_noticed():
    X, y = channels()
    flipped = np.swapaxes(X, 1, 2)
    with pytest.warns(UserWarning, match=r"\(24, 2, 9\), .* 2 steps of 9 features\. if these are"):
        RecurrentClassifier(**SMALL).fit(flipped, y)
    RecurrentClassifier(**SMALL, layout="channels_last").fit(flipped, y)  # warnings are errors
    fitted = RecurrentClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match=r"X has 9 features .* fitted with 2; if .*'channels_firs"):
        fitted.predict(flipped)
    with pytest.raises(ValueError, match=r"sequence 1 has the shape \(2, 7\).*'channels_first'"):
        fitted.fit([flipped[0], flipped[1, :, :7]], [0, 1])


# Models and frames


def test_the_probabilities_of_the_models_are_averaged():
    X, y = channels()
    fitted = RecurrentClassifier(**{**SMALL, "n_models": 3}).fit(X, y)
    assert len(fitted.models_) == 3
    inputs = np.stack([fitted.frames_(x) for x in X], axis=1)
    logits = [model(inputs).data.astype(np.float64) for model in fitted.models_]
    each = [np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in logits]
    assert np.abs(each[0] - each[1]).max() > 0.01
    np.testing.assert_allclose(fitted.predict_proba(X), np.mean(each, axis=0), rtol=1e-5)


def test_few_sequences_get_as_many_updates_as_are_the_least(monkeypatch):
    counts = []
    update = Trainer._update

    def counted(trainer, batch):
        counts[-1] += 1
        return update(trainer, batch)

    monkeypatch.setattr(Trainer, "_update", counted)
    X, y = channels()
    for epochs, least, expected in [(5, 0, 10), (5, 31, 32), (40, 31, 80)]:
        counts.append(0)
        options = {"epochs": epochs, "min_updates": least, "batch_size": 12}
        RecurrentClassifier(hidden_size=4, n_models=1, **options).fit(X, y)
        assert counts[-1] == expected


def test_long_sequences_are_classified_by_frames():
    rng = np.random.default_rng(7)
    y = np.arange(60) % 2
    t = np.arange(300.0)
    X = np.sin(t / (8.0 + 4 * y[:, None]) + rng.uniform(0, 6, (60, 1)))
    X += 0.3 * rng.standard_normal(X.shape)
    classifier = RecurrentClassifier(**SMALL).fit(X[:40], y[:40])
    assert classifier.frames_.stride == 10
    assert classifier.score(X[40:], y[40:]) > 0.9


# Early stopping


@pytest.mark.parametrize("several", [False, True])
def test_the_weights_that_are_best_by_accuracy_or_f1_are_kept(monkeypatch, several):
    """Evaluations with figures as said: the third is the best, and patience ends it."""
    X, y = channels(120)
    if several:
        y = np.column_stack([y, 1 - y])
    said = iter([0.5, 0.7, 0.9, 0.9, 0.9, 0.8, 0.9])
    losses = iter([1.0, 1.0, 0.5, 0.6, 0.5, 0.1, 0.7])
    seen = []

    def evaluated(model, batches, measure=None):
        seen.append({name: p.data.copy() for name, p in model.named_parameters()})
        held = sum(len(batch.targets) for batch in batches)
        assert held == 24
        assert (measure is not None) == several
        if several:
            return Evaluation(next(losses), 24, more={"micro_f1": next(said)})
        return Evaluation(next(losses), 100, int(100 * next(said)))

    monkeypatch.setattr(estimators, "evaluate", evaluated)
    options = {**SMALL, "epochs": 100, "early_stopping": True, "patience": 3}
    fitted = RecurrentClassifier(**options).fit(X, y)
    assert len(seen) == 6
    for name, parameter in fitted.models_[0].named_parameters():
        np.testing.assert_array_equal(parameter.data, seen[2][name])
    assert any((seen[2][name] != seen[5][name]).any() for name in seen[2])


def test_too_few_to_judge_by_is_said_and_the_last_weights_are_kept():
    X, y = channels()
    plain = RecurrentClassifier(**SMALL).fit(X, y).predict_proba(X)
    with pytest.warns(UserWarning, match="5 held-out examples are too few .* which needs 20"):
        fitted = RecurrentClassifier(**SMALL, early_stopping=True).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), plain)


# A regressor is never worse than the mean


def test_where_nothing_can_be_learnt_the_mean_is_predicted():
    options = {"hidden_size": 8, "n_models": 2, "epochs": 5, "min_updates": 60}
    far = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((60, 9, 1)), 5 + 2 * rng.standard_normal(60)
        regressor = RecurrentRegressor(random_state=seed, **options).fit(X, y)
        assert regressor.score(X, y) >= 0
        predicted = regressor.predict(rng.standard_normal((40, 9, 1)))
        far.append(np.abs(predicted - y.mean()).max() / y.std())
    assert np.median(far) == 0
    assert max(far) < 0.3


@pytest.mark.parametrize("count", [1, 3, 9, 10, 30])
def test_r2_on_the_training_is_never_below_0(count):
    rng = np.random.default_rng(8)
    X = rng.standard_normal((count, 5, 1))
    options = {"hidden_size": 4, "n_models": 2, "epochs": 1, "min_updates": 3}
    for y in (rng.standard_normal(count), np.full(count, 7.0), rng.standard_normal((count, 2))):
        regressor = RecurrentRegressor(random_state=1, **options).fit(X, y)
        error = np.square(regressor.predict(X) - y).mean(axis=0)
        assert (error <= y.var(axis=0) * (1 + 1e-9) + 1e-9).all()


def test_the_trust_in_answers_by_its_definition():
    rng = np.random.default_rng(9)
    y = rng.standard_normal((50, 3))
    noise = rng.standard_normal((2, 50, 3))
    answers = y * np.array([1.0, 0.5, 0.0]) + noise * np.array([0.1, 0.1, 1.0])
    held = [np.arange(0, 25), np.arange(25, 50)]
    trust = estimators._trust(y, answers, held)
    f = np.concatenate([answers[0, :25], answers[1, 25:]])
    expected = []
    for k in range(3):
        a = (f[:, k] @ y[:, k]) / (f[:, k] @ f[:, k])
        error = np.sqrt(((f[:, k] * (y[:, k] - a * f[:, k])) ** 2).sum()) / (f[:, k] @ f[:, k])
        mean = answers.mean(axis=0)[:, k]
        best = min(max((mean @ y[:, k]) / (mean @ mean), 0), 1)
        expected.append(min(a * max(1 - (2 * error / a) ** 2, 0) if a > 0 else 0, best))
    np.testing.assert_allclose(trust, expected)
    assert trust[0] > 0.9
    assert trust[1] == 1
    assert trust[2] < 0.1


@pytest.mark.parametrize("kind", [RecurrentClassifier, RecurrentRegressor])
def test_products_in_bfloat16(kind):
    """The option is for fitting; predictions have the precision that is current."""
    X, sums = ragged(30)
    y = sums > 0 if kind is RecurrentClassifier else sums
    few = {**SMALL, "epochs": 1, "min_updates": 3}

    def weights(precision, around="float32"):
        with matmul_precision(around):
            fitted = kind(**few, matmul_precision=precision).fit(X, y)
        return [p.data for p in fitted.models_[0].parameters()], fitted

    (in_bfloat16, fitted), (around, _) = weights("bfloat16"), weights(None, "bfloat16")
    in_float32 = weights(None)[0]
    for one, other in zip(in_bfloat16, around, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((a != b).any() for a, b in zip(in_bfloat16, in_float32, strict=True))
    if kind is RecurrentClassifier:
        expected = fitted.predict_proba(X)
        with matmul_precision("bfloat16"):
            assert np.abs(fitted.predict_proba(X) - expected).max() > 0
    assert clone(fitted).matmul_precision == "bfloat16"
    with pytest.raises(ValueError, match=r"^matmul_precision 'half' is not one of float32, bfloat"):
        kind(**few, matmul_precision="half").fit(X, y)


def test_models_with_weights_in_8_bits_predict_and_are_pickled():
    rng = np.random.default_rng(3)
    X = [rng.standard_normal((12, 2)) + k % 2 for k in range(30)]
    small = {"epochs": 2, "min_updates": 40, "n_models": 2, "hidden_size": 8}
    estimator = RecurrentClassifier(**small, random_state=1)
    estimator.fit(X, [k % 2 for k in range(30)])
    in_float32 = estimator.predict_proba(X)
    for model in estimator.models_:
        model.weights = "int8"
    in_int8 = estimator.predict_proba(X)
    assert 0 < np.abs(in_int8 - in_float32).max() < 0.1
    copied = pickle.loads(pickle.dumps(estimator))
    assert [model.weights for model in copied.models_] == ["int8", "int8"]
    np.testing.assert_array_equal(copied.predict_proba(X), in_int8)
