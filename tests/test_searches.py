"""scikit-learn's searches with the estimators: by joblib in threads and processes, and by dask."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra sklearn)")

import joblib
from scipy.stats import loguniform
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_validate,
)

from anaphora import random
from anaphora.estimators import RecurrentClassifier, RecurrentForecaster

SMALL = {"n_models": 2, "epochs": 1, "min_updates": 6, "dropout": 0.5, "random_state": 1}
GRID = {"hidden_size": [3, 5], "cell": ["lstm", "gru"]}


@pytest.fixture(scope="module")
def sequences():
    """Sequences of several lengths with two features, and the class of each."""
    rng = np.random.default_rng(4)
    X = [rng.standard_normal((n, 2)) for n in rng.integers(1, 9, 24)]
    return X, np.array(["more" if x[:, 0].sum() > 0 else "less" for x in X])


def results(sequences):
    """Yield the scores of searches, and what estimators predict that workers fitted."""
    X, y = sequences
    classifier, log_loss = RecurrentClassifier(**SMALL), {"cv": 2, "scoring": "neg_log_loss"}
    rates = {"learning_rate": loguniform(1e-3, 1e-1), "pooling": ["last", "max"]}
    for search in (
        GridSearchCV(classifier, GRID, **log_loss),
        RandomizedSearchCV(classifier, rates, n_iter=3, random_state=1, **log_loss),
        HalvingGridSearchCV(
            classifier, GRID, resource="min_updates", min_resources=3, max_resources=9, **log_loss
        ),
    ):
        found = search.fit(X, y)
        yield found.cv_results_["mean_test_score"]
        yield found.predict_proba(X)
    validated = cross_validate(classifier, X, y, cv=3, return_estimator=True)
    yield from (estimator.predict_proba(X) for estimator in validated["estimator"])
    y = np.arange(60.0) % 6
    fits = (
        joblib.delayed(RecurrentForecaster.fit)(
            RecurrentForecaster(
                season=6, max_steps=4, paths=20, dropout=0.5, members=2, random_state=seed
            ),
            y,
        )
        for seed in (1, 2, 1)
    )
    yield from (forecaster.predict() for forecaster in joblib.Parallel()(fits))


@pytest.fixture(scope="module")
def expected(sequences):
    with joblib.parallel_config("sequential"):
        return list(results(sequences))


def assert_same_bits(found, expected):
    assert len(found) == len(expected) == 12
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_candidates_differ(expected):
    assert len(set(expected[0].tolist())) == 4
    assert not np.array_equal(expected[6], expected[7])
    one, other, again = expected[-3:]  # two seeds
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib_finds_the_same_bits(sequences, expected, backend):
    state = random.get_state()
    with joblib.parallel_config(backend, n_jobs=3):
        assert_same_bits(list(results(sequences)), expected)
    assert random.get_state() == state


def test_dask_finds_the_same_bits(sequences, expected):
    distributed = pytest.importorskip("distributed", reason="needs dask (extra searches)")
    with (
        distributed.LocalCluster(2, threads_per_worker=2, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        assert_same_bits(list(results(sequences)), expected)
