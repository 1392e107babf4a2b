"""The scikit-learn estimators: scikit-learn's own checks, ragged sequences, and what is refused."""

import pickle

import numpy as np
import pytest

from anaphora import engine, random

pytest.importorskip("sklearn", reason="needs scikit-learn (extra sklearn)")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from anaphora.estimators import RecurrentClassifier, RecurrentRegressor

SMALL = {"hidden_size": 8, "epochs": 15, "random_state": 1}
QUICK = {**SMALL, "learning_rate": 0.03, "batch_size": 64}
CHECKED = [RecurrentClassifier(**QUICK), RecurrentRegressor(**{**QUICK, "epochs": 40})]


@parametrize_with_checks(CHECKED)
def test_scikit_learns_own_checks(estimator, check):
    name = getattr(check, "func", check).__name__
    if name == "check_methods_subset_invariance" and engine.info()["engine"] != "native":
        pytest.skip("NumPy's products in float32 differ by the number of rows; the engine's do not")
    check(estimator)


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
        RecurrentRegressor(hidden_size=4, epochs=2, dropout=0.5, random_state=seed)
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
        ([[1.0, 2.0], [1.0, "a", 3.0]], "sequence 1 is no array of numbers: it holds <U"),
        ([[1.0, 2.0], [[1.0, 2.0], [3.0]]], "sequence 1 is no array of numbers: .*inhomogeneous"),
        ([np.ones((3, 2)), np.ones((2, 2), complex)], "sequence 1 is no array .* complex128"),
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
    with pytest.raises(ValueError, match=r"X has 3 features a step, but .* was fitted with 2"):
        regressor.predict([np.ones((2, 3))])
    with pytest.raises(ValueError, match="pooling 'first' is not one of"):
        RecurrentRegressor(pooling="first").fit(X, sums)
    with pytest.raises(ValueError, match="epochs must be an integer of at least 1"):
        RecurrentRegressor(epochs=0).fit(X, sums)


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
def test_targets_that_are_no_numbers_are_told_by_their_place(X):
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
            ValueError, match=r"y is to be numbers: .*; a RecurrentClassifier learns classes"
        ):
            RecurrentRegressor(**SMALL).fit(X, words)
    with pytest.raises(ValueError, match="Input y contains NaN at index 1"):
        RecurrentClassifier(**SMALL).fit(X, np.array(["a", None] * 10, object))
    with pytest.raises(ValueError, match=r"y has one class, .*'a'.*, only; expected two or more"):
        RecurrentClassifier(**SMALL).fit(X, ["a"] * 20)
    with pytest.raises(ValueError, match=r"output 0 has values as large as 1e\+200"):
        RecurrentRegressor(**SMALL).fit(X, y=np.where(np.arange(20) == 3, 1e200, 0))


def test_float16_series_are_scaled_in_float64():
    rng = np.random.default_rng(4)
    X = [(60000 + 500 * rng.standard_normal((n, 1))).astype(np.float16) for n in (3, 5, 4) * 7]
    regressor = RecurrentRegressor(**SMALL).fit(X, [float(x.mean()) for x in X])
    steps = np.concatenate(X).astype(np.float64)
    np.testing.assert_allclose(regressor.feature_mean_, steps.mean(axis=0))
    np.testing.assert_allclose(regressor.feature_scale_, steps.std(axis=0))
    assert np.isfinite(regressor.predict(X)).all()


def test_a_list_of_numbers_is_no_list_of_sequences():
    ragged = [np.ones(3), np.ones(4)] * 6
    fitted = RecurrentClassifier(epochs=1, hidden_size=4).fit(ragged, ["a", "b"] * 6)
    for X in ([1.0, 2.0, 3.0], np.array([1.0, 2.0])):
        with pytest.raises(ValueError, match=r"X has the number 1.0 in the place of a seq"):
            fitted.predict(X)
    with pytest.raises(ValueError, match=r"X is no list of sequences, but float"):
        fitted.predict(3.0)
    with pytest.raises(ValueError, match="no sequence of X has a step"):
        fitted.predict([[]])
