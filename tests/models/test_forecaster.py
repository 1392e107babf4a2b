"""The forecaster: what it reads, what it learns from, and the paths that it samples."""

import numpy as np
import pytest

from anaphora import ops, random
from anaphora.cells import cell
from anaphora.data import ForecastBatch
from anaphora.equations import tanh
from anaphora.models import Forecaster
from anaphora.models.distributions import make_distribution, normal_scores, stratified_normals
from anaphora.tensor import Tensor

B, N, F, J, P, C, h = 3, 2, 4, 3, 3, 4, 2
LEVELS = (0.1, 0.5, 0.7)
DISTRIBUTIONS = ["gaussian", "student_t", "negative_binomial", "quantiles"]


def make(distribution="gaussian", seed=3, **options):
    random.seed(seed)
    counts = distribution == "negative_binomial"
    given = {
        "hidden_size": 5,
        "target_size": N,
        "feature_size": F,
        "linear_features": J,
        "context": C,
        "lags": [1, 3],
        "distribution": distribution,
        "quantiles": LEVELS,
        "scaling": "mean_absolute" if counts else "standard",
        "typical_scale": [2.0, 3.0],
        "dtype": "float64",
    }
    model = Forecaster(**{**given, **options})
    for parameter in model.parameters():
        parameter.assign(random.generator().normal(0, 0.4, parameter.shape))
    return model


def make_batch(seed=1, counts=False, missing=True):
    rng = np.random.default_rng(seed)
    shape = (P + C + h, B, N)
    values = rng.poisson(6, shape).astype(float) if counts else 5 + 2 * rng.standard_normal(shape)
    observed = rng.random(shape) > 0.2 if missing else np.ones(shape, bool)
    observed[2] = True
    return ForecastBatch(
        np.where(observed, values, 0),
        np.where(observed, values, 0)[P:],
        features=rng.standard_normal((C + h, B, F)),
        observed=observed,
    )


def expected_reading(model, batch):
    """What each step reads, [C + h, B, I]; lags and features [C + h, B, N, K + J]; targets."""
    read = np.zeros((C + h, B, N * 2 + N + F + N))
    lagged = np.zeros((C + h, B, N, 2 + J))
    scaled = np.zeros(batch.inputs.shape)
    for b in range(B):
        for n in range(N):
            observed = batch.observed[:, b, n]
            past = batch.inputs[: P + C, b, n][observed[: P + C]]
            if model.scaling == "standard":
                mean, scale = past.mean(), past.std()
            else:
                mean, scale = 0.0, 1 + np.abs(past).mean()
            for s in range(P + C + h):
                if observed[: s + 1].any():
                    scaled[s, b, n] = (batch.inputs[s, b, n] - mean) / scale
            for t in range(C + h):
                s = t + P
                lagged[t, b, n] = (
                    scaled[s - 1, b, n],
                    scaled[s - 3, b, n],
                    *batch.features[t, b, :J],
                )
                read[t, b, 2 * n : 2 * n + 2] = lagged[t, b, n, :2]
                read[t, b, 2 * N + n] = observed[s - 1]
                read[t, b, 2 * N + N + F + n] = np.log(scale / [2.0, 3.0][n])
    read[:, :, 3 * N : 3 * N + F] = batch.features
    return read, lagged, scaled[P:]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_reads_lags_features_and_scale(distribution, dtype):
    model = make(distribution, dtype=dtype)
    batch = make_batch(counts=distribution == "negative_binomial")
    read, lagged, _ = expected_reading(model, batch)
    y, _ = model.recurrent(read)
    size = model.head.size
    raw = (y.data @ model.output.weight.data.T + model.output.bias.data).reshape(C + h, B, N, size)
    level = (lagged * model.linear_weights.data).sum(axis=-1)
    raw = raw + level[..., None] * model.head.location
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(model(batch).data, raw, rtol=tolerance, atol=tolerance)
    assert model(batch).dtype == dtype


def test_the_loss_is_the_mean_over_observed_targets():
    model, batch = make("gaussian"), make_batch()
    _, _, targets = expected_reading(model, batch)
    raw = model(batch).data
    deviation = np.log1p(np.exp(raw[..., 1])) + 1e-3
    losses = np.log(deviation) + ((targets - raw[..., 0]) / deviation) ** 2 / 2
    losses += np.log(2 * np.pi) / 2
    observed = batch.observed[P:]
    assert 0 < observed.sum() < observed.size
    loss, state = model.loss(batch)
    assert state is None
    assert loss.item() == pytest.approx(losses[observed].mean(), rel=1e-12)
    assert batch.tokens == observed.sum()

    counted = np.zeros_like(observed)
    counted[C:] = True
    horizon = ForecastBatch(
        batch.inputs, batch.targets, features=batch.features, observed=batch.observed,
        counted=counted,
    )  # fmt: skip
    assert model.loss(horizon)[0].item() == pytest.approx(
        losses[C:][observed[C:]].mean(), rel=1e-12
    )
    assert horizon.tokens == observed[C:].sum()


def test_what_stands_for_a_missing_value_is_read_but_not_learnt():
    model, batch = make("gaussian"), make_batch()
    # Where the last step alone is missing, nothing reads it.
    observed = batch.observed.copy()
    observed[-1] = False
    losses = []
    for filler in (0.0, 77.0):
        values = batch.inputs.copy()
        values[-1] = filler
        changed = ForecastBatch(values, values[P:], features=batch.features, observed=observed)
        losses.append(model.loss(changed)[0].item())
    assert losses[0] == losses[1]


def test_missing_values_are_what_the_weighted_lags_and_features_say():
    model = make("student_t", target_size=1, lags=[1, 3], typical_scale=[1.0])
    rng = np.random.default_rng(2)
    values = rng.standard_normal((9, 2, 1))
    features = rng.standard_normal((9, 2, F))
    holes = values.copy()
    holes[0, 1] = holes[2, 0] = holes[5, 0] = holes[6, 0] = np.nan
    filled = model.fill(holes, features)
    expected = holes.copy()
    expected[2, 0] = values[1, 0]  # too early for the lags
    w = model.linear_weights.data[0]
    for step in (5, 6):
        past = expected[step - 3 : step, 0, 0]
        mean, deviation = past.mean(), past.std()
        lags = (np.array([past[-1], past[-3]]) - mean) / deviation
        expected[step, 0] = mean + deviation * (lags @ w[:2] + features[step, 0, :J] @ w[2:])
    np.testing.assert_allclose(filled, expected, rtol=1e-12)
    assert np.isnan(filled[0, 1])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_gradients_are_numerical_ones(distribution):
    counts = distribution == "negative_binomial"
    model, batch = make(distribution), make_batch(counts=counts)
    model.loss(batch)[0].backward()
    rng = np.random.default_rng(5)
    for name, parameter in model.named_parameters():
        direction = rng.standard_normal(parameter.shape)
        found = float((parameter.grad * direction).sum())
        before, step = parameter.data.copy(), 1e-6
        sides = []
        for sign in (1, -1):
            parameter.assign(before + sign * step * direction)
            sides.append(model.loss(batch)[0].item())
        parameter.assign(before)
        assert found == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-5, abs=1e-8), name


def test_least_squares_start():
    model, batch = make("student_t"), make_batch(missing=False)
    batches = [batch, make_batch(seed=2, missing=False)]
    model.start_from_least_squares(batches)
    for n in range(N):
        rows, answers = [], []
        for one in batches:
            _, lagged, targets = expected_reading(model, one)
            rows.append(
                np.concatenate([lagged[:, :, n].reshape(-1, 2 + J), np.ones(((C + h) * B, 1))], 1)
            )
            answers.append(targets[:, :, n].reshape(-1))
        x, y = np.concatenate(rows), np.concatenate(answers)
        ridge = 1e-4 * len(x) * np.eye(3 + J)
        weights = np.linalg.solve(x.T @ x + ridge, x.T @ y)
        np.testing.assert_allclose(model.linear_weights.data[n], weights[:-1], rtol=1e-7)
        level = rows[0] @ weights
        np.testing.assert_allclose(
            model(batch).data[:, :, n, 0].reshape(-1), level, rtol=1e-8, atol=1e-10
        )
    with pytest.raises(ValueError, match="the model is not autoregressive"):
        make(autoregressive=False).start_from_least_squares(batches)


# Forecasts


def past_of(batch):
    return np.where(batch.observed, batch.inputs, np.nan)[: P + C]


def filled(model, values, batch):
    """The batch of values [P + C + h, B, N], NaN where missing."""
    inputs = np.nan_to_num(model.fill(values, features_of(batch)[: len(values)]))
    features = batch.features[: len(values) - P]
    return ForecastBatch(inputs, inputs[P:], features=features, observed=~np.isnan(values))


def features_of(batch):
    """Of all steps of the past and of the horizon; the first P are not read."""
    return np.concatenate([np.zeros((P, B, F)), batch.features])


def test_the_first_step_has_the_distribution_of_the_forward_pass():
    model, batch = make("gaussian"), make_batch()
    paths = model.predict(past_of(batch), h, features_of(batch), paths=50, seed=4)
    assert paths.shape == (50, h, B, N)
    past = past_of(batch)
    raw = model(filled(model, np.concatenate([past, np.ones((h, B, N))]), batch)).data[C]
    mean, scale = np.nanmean(past, axis=0), np.nanstd(past, axis=0)
    deviation = np.log1p(np.exp(raw[..., 1])) + 1e-3
    sampled = np.sort((paths[:, 0] - mean) / scale, axis=0)
    scores = normal_scores(50)[:, None, None]
    np.testing.assert_allclose(sampled, raw[..., 0] + deviation * scores, rtol=1e-9)


def test_each_path_reads_what_it_drew():
    model, batch = make("gaussian"), make_batch()
    paths = model.predict(past_of(batch), 2, features_of(batch), paths=6, seed=4)
    scores = []
    for path in paths:
        values = np.concatenate([past_of(batch), path])
        forced = filled(model, values, batch)
        raw = model(forced).data[C + 1]
        deviation = np.log1p(np.exp(raw[..., 1])) + 1e-3
        scaled = expected_reading(model, forced)[2][C + 1]
        scores.append((scaled - raw[..., 0]) / deviation)
    expected = np.broadcast_to(normal_scores(6)[:, None, None], (6, B, N))
    np.testing.assert_allclose(np.sort(scores, axis=0), expected, atol=1e-8)


def test_a_forecast_scales_and_shifts_with_the_series():
    model, batch = make("student_t"), make_batch()
    past = past_of(batch)
    paths = model.predict(past, h, features_of(batch), paths=20)
    larger = make("student_t", typical_scale=[200.0, 300.0])
    again = larger.predict(past * 100 - 50, h, features_of(batch), paths=20)
    np.testing.assert_allclose(again, paths * 100 - 50, rtol=1e-9)


def test_a_constant_past_is_scaled_by_its_size():
    model = make("gaussian", target_size=1, feature_size=0, linear_features=0, typical_scale=[1.0])
    for level in (0.0, 0.1, -3e9):
        paths = model.predict(np.full((P + C, 1, 1), level), 3, paths=5)
        assert np.isfinite(paths).all()
        assert np.abs(paths - level).max() < 20 * max(abs(level), 1)


def test_a_short_past_is_one_whose_beginning_is_missing():
    model, batch = make("gaussian"), make_batch(missing=False)
    past, features = past_of(batch), features_of(batch)
    short = model.predict(past[-2:], h, features[-2 - h :], paths=4)
    padded = np.where(np.arange(P + C)[:, None, None] < P + C - 2, np.nan, past)
    features = np.where(np.arange(P + C + h)[:, None, None] < P + C - 2, 0, features)
    np.testing.assert_array_equal(short, model.predict(padded, h, features, paths=4))
    longer = np.concatenate([np.full((5, B, N), 99.0), past])
    more = np.concatenate([np.full((5, B, F), 99.0), features_of(batch)])
    np.testing.assert_array_equal(
        model.predict(longer, h, more, paths=4),
        model.predict(past, h, features_of(batch), paths=4),
    )


def test_counts_are_sampled_as_counts():
    model, batch = make("negative_binomial"), make_batch(counts=True)
    paths = model.predict(past_of(batch), h, features_of(batch), paths=30)
    np.testing.assert_allclose(paths, np.rint(paths), atol=1e-9)
    assert paths.min() >= 0
    assert len(np.unique(np.rint(paths))) > 3


def test_more_series_than_run_together():
    model = make("gaussian", target_size=1, feature_size=0, linear_features=0, typical_scale=[1.0])
    past = np.random.default_rng(1).standard_normal((P + C, 5, 1))
    many = model.predict(past, 2, paths=3000)  # one series at a time
    few = model.predict(past, 2, paths=100)
    for b in range(5):
        np.testing.assert_allclose(
            np.median(many[:, :, b], axis=0), np.median(few[:, :, b], axis=0), atol=0.3
        )
    np.testing.assert_array_equal(many, model.predict(past, 2, paths=3000))


# Sessions


def test_a_session_forecasts_as_with_the_full_series():
    model, batch = make("gaussian"), make_batch()
    values = np.where(batch.observed, batch.inputs, np.nan)[:, 1]
    rng = np.random.default_rng(3)
    features = rng.standard_normal((P + C + h + h, F))
    session = model.session()
    for step in range(P + C + h):
        session.feed(values[step], features[step])
        if step == 1:
            fork = session.fork()
        if step < 2:
            continue
        known = features[: step + 1 + h][:, None]
        expected = model.predict(values[: step + 1, None], h, known, paths=5, seed=2)[:, :, 0]
        for _ in range(2):  # it is left as it was
            found = session.forecast(h, features[step + 1 : step + 1 + h], paths=5, seed=2)
            np.testing.assert_array_equal(found, expected)
    fork.feed(values[2:], features[2 : P + C + h])
    last = features[P + C + h :]
    np.testing.assert_array_equal(
        fork.forecast(h, last, paths=5), session.forecast(h, last, paths=5)
    )


def test_a_session_is_for_one_thread_at_a_time(monkeypatch):
    model = make("gaussian", target_size=1, feature_size=0, linear_features=0, typical_scale=[1.0])
    session = model.session()
    session.feed(np.ones((3, 1)))
    predict = type(model)._predict

    def meanwhile(model, *arguments):
        for name, use in [
            ("feed", lambda: session.feed([1.0])),
            ("forecast", lambda: session.forecast(2)),
            ("fork", session.fork),
        ]:
            with pytest.raises(RuntimeError, match=f"{name}: another thread is using this session"):
                use()
        return predict(model, *arguments)

    monkeypatch.setattr(type(model), "_predict", meanwhile)
    session.forecast(2, paths=3)
    monkeypatch.undo()
    session.fork().feed([2.0])  # which is of its own
    session.feed([2.0])


@pytest.mark.parametrize("option", ["weight_dropout", "zoneout", "layer_norm", "locked_dropout"])
def test_options_of_the_body_reach_the_layers(option):
    value = {"weight_dropout": 0.4, "zoneout": 0.3}.get(option, True)
    batch = make_batch()
    plain, other = (make("gaussian", dropout=0.2, **options) for options in ({}, {option: value}))
    random.seed(1)
    loss = plain.train().loss(batch)[0].item()
    random.seed(1)
    assert other.train().loss(batch)[0].item() != loss


def test_a_cell_of_ones_own(tmp_path):
    @cell(gates="n", state="h")
    def mean(n, h):
        return 0.5 * h + 0.5 * tanh(n)

    model, batch = make("gaussian", cell=mean), make_batch()
    model.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model")
    np.testing.assert_array_equal(
        again.predict(past_of(batch), h, features_of(batch), paths=3),
        model.predict(past_of(batch), h, features_of(batch), paths=3),
    )


def test_what_a_session_refuses():
    session = make().session()
    with pytest.raises(ValueError, match="forecast: feed at least one value of each target first"):
        session.forecast(h, np.zeros((h, F)))
    with pytest.raises(
        ValueError, match=r"feed: values of shape \(3,\); expected \[2\] for one step"
    ):
        session.feed([1.0, 2.0, 3.0], np.zeros(F))
    with pytest.raises(ValueError, match=r"feed: features of shape \(1, 0\); expected \(1, 4\)"):
        session.feed([1.0, 2.0])
    session.feed([1.0, 2.0], np.zeros(F))
    with pytest.raises(
        ValueError, match=r"forecast: features of shape \(1, 4\); expected \(2, 4\)"
    ):
        session.forecast(2, np.zeros((1, F)))


# Distributions


def test_quantiles_are_sampled_from_the_lines_between_them():
    distribution = make_distribution("test", "quantiles", [0.1, 0.5, 0.9])
    raw = np.array([[3.0, 1.0, 2.0], [-4.0, 0.0, 8.0]])  # the first ones cross
    count = 20_000
    normals = stratified_normals(count, (2,), np.random.default_rng(1))
    sampled = distribution.sample(np.broadcast_to(raw, (count, 2, 3)), normals, np.ones(2), None)
    found = np.quantile(sampled, [0.1, 0.5, 0.9], axis=0)
    np.testing.assert_allclose(found, np.sort(raw, axis=1).T, atol=2e-3)
    # Equal distances of normal quantiles: the distribution is normal, its tails too.
    deviation = 1 / 1.2815515655446004
    assert np.quantile(sampled[:, 0], 0.99) == pytest.approx(
        2 + 2.3263478740408408 * deviation, rel=1e-3
    )


@pytest.mark.parametrize("distribution", ["gaussian", "student_t", "negative_binomial"])
def test_samples_have_the_likelihood_that_is_learnt(distribution):
    """The loss of a distribution's own samples is least for its own numbers, and its entropy."""
    own = make_distribution("test", distribution, [])
    raw = np.array([1.2, 0.3, 0.8][: own.size])
    scale = np.array(4.0)
    count = 200_000
    rng = np.random.default_rng(1)
    normals = stratified_normals(count, (), rng).reshape(count)
    sampled = own.sample(np.broadcast_to(raw, (count, own.size)), normals, scale, rng)
    numbers = Tensor(raw, requires_grad=True)
    many = ops.broadcast_to(numbers, (count, own.size))
    own.loss(many, sampled, np.broadcast_to(scale, (count,))).mean().backward()
    # The expected gradient of the log-likelihood is 0 at the true parameters, and only there.
    for k in range(own.size):
        other = Tensor(raw + 1.0 * (np.arange(own.size) == k), requires_grad=True)
        many = ops.broadcast_to(other, (count, own.size))
        own.loss(many, sampled, np.broadcast_to(scale, (count,))).mean().backward()
        assert abs(numbers.grad[k]) < other.grad[k] / 5


def test_stratified_normals_are_permutations():
    normals = stratified_normals(7, (2, 3), np.random.default_rng(1))
    np.testing.assert_allclose(np.sort(normals, axis=0)[:, 1, 2], normal_scores(7))
    assert not np.array_equal(normals[:, 0, 0], normals[:, 1, 2])


# Options and files


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_saved_and_loaded(distribution, tmp_path):
    model = make(distribution)
    model.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model")
    assert again.options == model.options
    assert again.loss_kind == ("quantile loss" if distribution == "quantiles" else "likelihood")
    past = past_of(make_batch(counts=distribution == "negative_binomial"))
    features = features_of(make_batch())
    np.testing.assert_array_equal(
        again.predict(past, h, features, paths=3), model.predict(past, h, features, paths=3)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context 0; expected at least 1, 0 and 1"),
        ({"lags": [0, 1]}, r"lags \[0, 1\]; expected distinct numbers of at least 1 step"),
        ({"lags": []}, r"lags \[\]; expected distinct numbers"),
        ({"scaling": "log"}, "scaling 'log' is not one of standard, mean_absolute, none"),
        ({"distribution": "cauchy"}, "distribution 'cauchy' is not one of quantiles, gaussian"),
        (
            {"distribution": "quantiles", "quantiles": [0.5, 0.1]},
            "expected at least two increasing levels",
        ),
        (
            {"distribution": "negative_binomial", "scaling": "standard"},
            "give the scaling 'mean_absolute' or 'none'",
        ),
        ({"typical_scale": [1.0]}, r"typical_scale \[1.0\]; expected 2 numbers above 0"),
        ({"dropout": 1.5}, "dropout"),
        ({"embedding_size": 4}, "embedding_size is for ids"),
    ],
)
def test_options_that_are_refused(options, message):
    given = {"hidden_size": 3, "target_size": 2, "context": 2}
    with pytest.raises(ValueError, match=message):
        Forecaster(**{**given, **options})


def test_what_a_forecast_refuses():
    model, batch = make(), make_batch()
    past, features = past_of(batch), features_of(batch)
    with pytest.raises(
        ValueError, match=r"values of shape \(7, 3\), horizon 2, paths 200; expected"
    ):
        model.predict(past[:, :, 0], h, features)
    with pytest.raises(ValueError, match=r"features of shape \(8, 3, 4\); expected \(9, 3, 4\)"):
        model.predict(past, h, features[1:])
    past[:, 2, 1] = np.nan
    with pytest.raises(ValueError, match="series 2, target 1 has no value in its last 7 steps"):
        model.predict(past, h, features)
