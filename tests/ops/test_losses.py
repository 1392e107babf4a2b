"""Losses: by their definitions, one target at a time."""

import itertools
import math

import numpy as np
import pytest

from anaphora import engine, matmul_precision, ops
from anaphora.tensor import Tensor, no_grad


def plain_cross_entropy(logits, targets, ignored, reduction):
    losses = np.zeros(targets.shape)
    count = 0
    for index in np.ndindex(targets.shape):
        target = targets[index]
        if target != ignored:
            weights = [math.exp(z) for z in logits[index]]
            losses[index] = -math.log(weights[target] / sum(weights))
            count += 1
    if reduction == "none":
        return losses
    return losses.sum() / (max(count, 1) if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (0,), (3, 0)], ids=str)
def test_cross_entropy(shape, ignored, reduction, rng, check_gradients):
    logits = rng.standard_normal((*shape, 5))
    targets = rng.integers(0, 5, shape)

    def loss(logits):
        return ops.cross_entropy(logits, targets, ignore_index=ignored, reduction=reduction)

    expected = plain_cross_entropy(logits, targets, ignored, reduction)
    np.testing.assert_allclose(loss(logits).data, expected, rtol=1e-13)
    assert loss(logits).shape == np.shape(expected)
    check_gradients(loss, logits)


def test_gradient_is_the_probabilities_without_the_target():
    logits = Tensor(np.log([[0.2, 0.3, 0.5]]), requires_grad=True)
    ops.cross_entropy(logits, [1]).backward()
    np.testing.assert_allclose(logits.grad, [[0.2, -0.7, 0.5]], rtol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ignored_targets_do_not_count(reduction, rng):
    logits = Tensor(rng.standard_normal((3, 4)), requires_grad=True)
    loss = ops.cross_entropy(logits, [1, -100, 2], reduction=reduction)
    counted = ops.cross_entropy(logits.data[[0, 2]], [1, 2], reduction=reduction)
    assert loss.item() == pytest.approx(counted.item(), rel=1e-15)
    loss.backward()
    assert logits.grad[1].tolist() == [0, 0, 0, 0]
    assert (logits.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_alone_is_that_of_the_training(dtype, reduction, bias, rng):
    x, weight = rng.standard_normal((5, 8, 3)), rng.standard_normal((70, 3))
    inputs = [a.astype(dtype) for a in (x, weight, rng.standard_normal(70))][: 2 + bias]
    targets = rng.integers(0, 70, (5, 8))
    targets[2, 3:5] = -1
    options = {"targets": targets, "ignore_index": -1, "reduction": reduction}
    trained = ops.linear_cross_entropy(*map(Tensor, inputs), **options)
    with no_grad():
        alone = ops.linear_cross_entropy(*map(Tensor, inputs), **options)
    assert alone.dtype == trained.dtype
    if engine.info()["engine"] == "native":
        np.testing.assert_array_equal(alone.data, trained.data)
    else:  # the products of NumPy depend on the number of rows
        np.testing.assert_allclose(alone.data, trained.data, rtol=1e-5)


def test_the_loss_alone_keeps_no_probabilities(monkeypatch):
    monkeypatch.setattr(engine, "cross_entropy_forward", lambda *_, **__: pytest.fail("all logits"))
    with no_grad():
        loss = ops.linear_cross_entropy([[1.0]], [[0.0], [0.0]], targets=[1])
    assert round(loss.item(), 4) == 0.6931


def test_loss_is_zero_where_no_target_counts():
    logits = Tensor(np.ones((2, 3)), requires_grad=True)
    loss = ops.cross_entropy(logits, [-100, -100])
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_large_logits(dtype):
    logits = Tensor(np.array([[1e4, 0], [0, 1e4]], dtype), requires_grad=True)
    loss = ops.cross_entropy(logits, [0, 0], reduction="none")
    assert loss.data.tolist() == [0, 1e4]
    loss.sum().backward()
    assert logits.grad.tolist() == [[0, 0], [-1, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_targets_are_integers_of_any_width(dtype):
    loss = ops.cross_entropy(np.zeros((2, 4)), np.array([3, 0], dtype))
    assert loss.item() == pytest.approx(math.log(4))
    assert ops.cross_entropy(np.zeros((1, 4)), Tensor(np.array([3], dtype))).size == 1


@pytest.mark.parametrize(
    ("targets", "options", "error", "message"),
    [
        ([0, 3], {}, ValueError, r"target 3 is outside 0\.\.2 \(and is not ignore_index=-100\)"),
        ([0, -1], {}, ValueError, r"target -1 is outside 0\.\.2"),
        ([0], {}, ValueError, r"targets of shape \(1,\) for logits of shape \(2, 3\)"),
        ([[0, 0]], {}, ValueError, r"targets of shape \(1, 2\)"),
        ([0.0, 1.0], {}, TypeError, "targets are integers .class numbers., not float64"),
        (
            [0, 1],
            {"reduction": "average"},
            ValueError,
            r"reduction 'average' is not one of \('mean'",
        ),
    ],
)
def test_cross_entropy_refuses(targets, options, error, message):
    with pytest.raises(error, match=f"^cross_entropy: .*{message}"):
        ops.cross_entropy(Tensor(np.zeros((2, 3))), targets, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weights", [None, np.array([0.5, 2.0, 0.0, 1.25, 3.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_probabilities_as_targets(smoothing, weights, reduction, rng, check_gradients):
    logits, p = rng.standard_normal((3, 2, 5)), rng.dirichlet(np.ones(5), (3, 2))

    def loss(logits, p):
        return ops.cross_entropy(
            logits, p, reduction=reduction, class_weights=weights, label_smoothing=smoothing
        )

    q = (1 - smoothing) * p + smoothing / 5
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    losses = -(q * log_probabilities * (1 if weights is None else weights)).sum(axis=-1)
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    np.testing.assert_allclose(loss(logits, p).data, expected, rtol=1e-12)
    check_gradients(loss, logits, p)


def test_probabilities_of_one_class_are_the_class(rng):
    logits, targets = rng.standard_normal((7, 4)), np.array([0, 3, 3, 1, 2, 0, 2])
    found = ops.cross_entropy(logits.tolist(), np.eye(4)[targets])
    assert found.dtype == np.float32
    expected = ops.cross_entropy(logits, targets).item()
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert ops.cross_entropy(logits[0], np.eye(4)[2]).shape == ()


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ([[0.5, -0.5, 1.0]], {}, "the probability -0.5 in the targets; expected finite numbers"),
        ([[0.5, np.nan, 0.5]], {}, "the probability nan in the targets"),
        ([[0.5, 0.5, 0.0]], {"ignore_index": 0}, "ignore_index=0 is for integer targets"),
        ([[0.5, 0.5, 0.0]], {"label_smoothing": 2}, "label_smoothing must be from 0 to 1"),
        ([[0.5, 0.5, 0.0]], {"reduction": "all"}, "reduction 'all' is not one of"),
        ([[0.5, 0.5, 0.0]], {"class_weights": [1, 2]}, "class_weights of shape"),
    ],
)
def test_probabilities_are_checked(targets, options, message):
    with pytest.raises(ValueError, match=f"^cross_entropy: .*{message}"):
        ops.cross_entropy(np.zeros((1, 3)), targets, **options)


# Class weights and label smoothing -------------------------------------------------------------

WEIGHTS = np.array([0.5, 2.0, 0.0, 1.25, 3.0])


def by_definition(logits, targets, ignored, reduction, weights, smoothing):
    """The sum of -w q log p over all classes, one target at a time."""
    V = logits.shape[-1]
    weights = [1.0] * V if weights is None else weights
    losses, total = np.zeros(targets.shape), 0.0
    for index in np.ndindex(targets.shape):
        if targets[index] == ignored:
            continue
        exps = [math.exp(z) for z in logits[index]]
        for c in range(V):
            q = (1 - smoothing) * (c == targets[index]) + smoothing / V
            losses[index] -= weights[c] * q * math.log(exps[c] / sum(exps))
        total += weights[targets[index]]
    if reduction == "none":
        return losses
    return losses.sum() / ((total or 1) if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0, 0.3, 1])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", [(4,), (3, 2), (0,)], ids=str)
def test_class_weights_and_label_smoothing(
    shape, weights, smoothing, reduction, rng, check_gradients
):
    logits, x = rng.standard_normal((*shape, 5)), rng.standard_normal((*shape, 3))
    weight, bias = rng.standard_normal((5, 3)), rng.standard_normal(5)
    targets = rng.integers(0, 5, shape)
    targets.reshape(-1)[1:2] = -100
    options = {"class_weights": weights, "label_smoothing": smoothing, "reduction": reduction}
    expected = by_definition(logits, targets, -100, reduction, weights, smoothing)
    loss = ops.cross_entropy(logits, targets, **options)
    np.testing.assert_allclose(loss.data, expected, rtol=1e-12)
    check_gradients(lambda z: ops.cross_entropy(z, targets, **options), logits)

    expected = by_definition(x @ weight.T + bias, targets, -100, reduction, weights, smoothing)
    for b in (bias, None):
        z = x @ weight.T + (0 if b is None else b)
        expected = by_definition(z, targets, -100, reduction, weights, smoothing)
        loss = ops.linear_cross_entropy(x, weight, b, targets=targets, **options)
        np.testing.assert_allclose(loss.data, expected, rtol=1e-12, atol=1e-14)
        with no_grad():
            alone = ops.linear_cross_entropy(x, weight, b, targets=targets, **options)
        np.testing.assert_allclose(alone.data, loss.data, rtol=1e-14)
        check_gradients(
            lambda *arrays: ops.linear_cross_entropy(*arrays, targets=targets, **options),
            x, weight, b,
        )  # fmt: skip


def test_without_weights_and_smoothing_the_bits_stay(rng):
    logits = rng.standard_normal((9, 5)).astype(np.float32)
    targets = rng.integers(0, 5, 9)
    results = []
    for options in ({}, {"class_weights": None, "label_smoothing": 0.0}):
        x = Tensor(logits, requires_grad=True)
        loss = ops.cross_entropy(x, targets, **options)
        loss.backward()
        results.append((loss.item(), x.grad))
    losses, probabilities = engine.cross_entropy_forward(logits, targets)
    mean = losses.sum() * np.float32(1 / 9)
    grad = engine.cross_entropy_backward(probabilities, targets, np.full(9, 1 / 9, np.float32))
    for loss, gradient in results:
        assert loss == mean
        np.testing.assert_array_equal(gradient, grad)


def test_smoothing_of_large_logits_is_exact():
    logits = np.float32(1e4) + np.array([[0.25, 0, 0.5, 0]], np.float32)
    small = ops.cross_entropy(logits - 1e4, [2], label_smoothing=0.5).item()
    assert ops.cross_entropy(logits, [2], label_smoothing=0.5).item() == small


@pytest.mark.parametrize("targets", [[2, 2], [-100, -100]])
def test_targets_without_weight_have_loss_0(targets):
    logits = Tensor(np.ones((2, 5)), requires_grad=True)
    loss = ops.cross_entropy(logits, targets, class_weights=WEIGHTS)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, r"class_weights of shape \(2,\); .* each of 3 classes"),
        ({"class_weights": [1.0, -2.0, 1.0]}, r"the class weight -2.0 of class 1; .* at least 0"),
        ({"class_weights": [1.0, 2.0, np.nan]}, "the class weight nan of class 2; "),
        ({"label_smoothing": 1.5}, "label_smoothing must be from 0 to 1, not 1.5"),
        ({"label_smoothing": math.nan}, "label_smoothing must be from 0 to 1, not nan"),
    ],
)
def test_wrong_weights_and_smoothing_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^cross_entropy: {message}"):
        ops.cross_entropy(np.zeros((2, 3)), [0, 1], **options)
    with pytest.raises(ValueError, match=f"^linear_cross_entropy: {message}"):
        ops.linear_cross_entropy(np.zeros((2, 4)), np.zeros((3, 4)), targets=[0, 1], **options)


def test_balanced_class_weights():
    targets = np.array([[0, 3, 3], [3, -100, 1]])
    found = ops.balanced_class_weights(targets, 5)
    np.testing.assert_allclose(found, [5 / 3, 5 / 3, 1, 5 / 9, 1], rtol=1e-15)
    # each class that occurs counts alike
    counts = [sum(t == c for t in targets.flat) for c in range(5)]
    assert len({round(n * w, 12) for n, w in zip(counts, found, strict=True) if n}) == 1
    assert ops.balanced_class_weights([], 2).tolist() == [1, 1]
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.array([2, 0, 2, 2, 1, 0])
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(ops.balanced_class_weights(labels, 3), expected, rtol=1e-15)


def test_balanced_class_weights_refuse():
    with pytest.raises(ValueError, match=r"^balanced_class_weights: target 2 is outside 0\.\.1"):
        ops.balanced_class_weights([0, 2], 2)
    with pytest.raises(TypeError, match=r"^balanced_class_weights: targets are integers"):
        ops.balanced_class_weights([0.5], 2)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("from_probabilities", [False, True])
def test_nll_loss(from_probabilities, weights, reduction, rng, check_gradients):
    p = rng.uniform(0.05, 1, (3, 2, 5))
    targets = np.array([[0, 3], [-100, 4], [4, 1]])
    given = p if from_probabilities else np.log(p)
    losses = np.zeros((3, 2))
    total = 0.0
    for index in np.ndindex(3, 2):
        if targets[index] >= 0:
            w = 1 if weights is None else weights[targets[index]]
            losses[index] = -w * math.log(p[index][targets[index]])
            total += w
    expected = {"mean": losses.sum() / total, "sum": losses.sum(), "none": losses}[reduction]

    def loss(x):
        return ops.nll_loss(
            x, targets, reduction=reduction, class_weights=weights,
            from_probabilities=from_probabilities,
        )  # fmt: skip

    np.testing.assert_allclose(loss(given).data, expected, rtol=1e-13)
    check_gradients(loss, given)


def test_nll_loss_of_zero_probabilities():
    x = Tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    losses = ops.nll_loss(x, [1, 1, -100], reduction="none", from_probabilities=True)
    assert losses.data.tolist() == [0, np.inf, 0]
    losses.backward(np.ones(3, np.float32))
    assert x.grad.tolist() == [[0, -1], [0, -np.inf], [0, 0]]
    with pytest.raises(ValueError, match=r"^nll_loss: target 2 is outside 0\.\.1"):
        ops.nll_loss(x, [1, 1, 2])


# Yes or no -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(weighted, masked, reduction, rng, check_gradients):
    x, y = 3 * rng.standard_normal((3, 2, 4)), rng.uniform(0, 1, (3, 2, 4))
    y[0] = y[0] > 0.5
    weight, pos_weight = rng.uniform(0.5, 2, (2, 1)), rng.uniform(0.5, 2, 4)
    where = rng.uniform(0, 1, (3, 2, 1)) > 0.4 if masked else None
    options = {"weight": weight, "pos_weight": pos_weight} if weighted else {}
    losses, count = np.zeros(x.shape), 0
    for t, b, k in itertools.product(*map(range, x.shape)):
        if masked and not where[t, b, 0]:
            continue
        p = 1 / (1 + math.exp(-x[t, b, k]))
        w, v = (weight[b, 0], pos_weight[k]) if weighted else (1, 1)
        losses[t, b, k] = -w * (v * y[t, b, k] * math.log(p) + (1 - y[t, b, k]) * math.log(1 - p))
        count += 1
    expected = {"mean": losses.sum() / count, "sum": losses.sum(), "none": losses}[reduction]

    def loss(x):
        return ops.binary_cross_entropy_with_logits(
            x, y, where=where, reduction=reduction, **options
        )

    np.testing.assert_allclose(loss(x).data, expected, rtol=1e-12)
    check_gradients(loss, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_of_large_logits(dtype):
    x = Tensor(np.array([1e4, -1e4, 1e4, -1e4], dtype), requires_grad=True)
    losses = ops.binary_cross_entropy_with_logits(x, [True, False, False, True], reduction="none")
    assert losses.dtype == dtype
    assert losses.data.tolist() == [0, 0, 1e4, 1e4]
    losses.sum().backward()
    assert x.grad.tolist() == [0, 0, 1, -1]


@pytest.mark.parametrize(
    ("targets", "options", "error", "message"),
    [
        ([[1, 0]], {}, ValueError, r"targets of shape \(1, 2\) for logits of shape \(2,\)"),
        ([1, 2], {}, ValueError, r"target 2\.0 is outside 0\.\.1"),
        ([1, -0.5], {}, ValueError, r"target -0\.5 is outside 0\.\.1"),
        ([1, 0], {"weight": [1, 2, 3]}, ValueError, r"weight of shape \(3,\) cannot be broadc"),
        ([1, 0], {"pos_weight": [[1, 2]]}, ValueError, r"pos_weight of shape \(1, 2\) cannot be"),
        ([1, 0], {"reduction": "no"}, ValueError, "reduction 'no' is not one of"),
        ([1, 0], {"where": [1, 0]}, TypeError, "where must be an array of booleans, not int64"),
        ([1, 0], {"where": [True] * 3}, ValueError, r"where of shape \(3,\) cannot be broadcast"),
    ],
)
def test_binary_cross_entropy_refuses(targets, options, error, message):
    with pytest.raises(error, match=f"^binary_cross_entropy_with_logits: {message}"):
        ops.binary_cross_entropy_with_logits(Tensor([0.5, 2.0]), targets, **options)


# Numbers ---------------------------------------------------------------------------------------


def squared(d):
    return d * d


def huber(d, delta):
    return d * d / 2 if -delta <= d <= delta else delta * (math.fabs(d) - delta / 2)


NUMBERS = {
    "squares": (ops.mean_squared_error, squared),
    "l1": (ops.l1_loss, math.fabs),
    "huber, 1": (ops.huber_loss, lambda d: huber(d, 1)),
    "huber, 0.3": (lambda *a, **o: ops.huber_loss(*a, delta=0.3, **o), lambda d: huber(d, 0.3)),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NUMBERS)
def test_losses_of_numbers(name, masked, reduction, rng, check_gradients):
    ours, plain = NUMBERS[name]
    x, y = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    where = np.array([[True], [False], [True]]) if masked else None
    losses = np.array([[plain(a - b) for a, b in zip(*r, strict=True)] for r in zip(x, y)])  # noqa: B905
    losses[1] *= not masked
    mean = losses.sum() / (8 if masked else 12)
    expected = {"mean": mean, "sum": losses.sum(), "none": losses}[reduction]
    found = ours(x, y, where=where, reduction=reduction)
    np.testing.assert_allclose(found.data, expected, rtol=1e-13)
    check_gradients(lambda x, y: ours(x, y, where=where, reduction=reduction), x, y)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("kind", [list, np.asarray, lambda y: Tensor(y, dtype=np.float32)])
def test_what_does_not_count_is_not_read(name, kind):
    x = Tensor([1.0, np.nan, 3.0, 4.0], requires_grad=True)
    target = kind([1.5, 2.0, np.nan, 2.0])
    loss = NUMBERS[name][0](x, target, where=[True, False, False, True])
    loss.backward()
    assert loss.dtype == np.float32
    d = np.array([-0.5, 2])
    assert loss.item() == pytest.approx(np.mean([NUMBERS[name][1](v) for v in d]))
    assert (x.grad[[0, 3]] != 0).all()
    assert x.grad[[1, 2]].tolist() == [0, 0]
    x.grad = None
    nothing = NUMBERS[name][0](x, target, where=False)
    nothing.backward()
    assert (nothing.item(), x.grad.tolist()) == (0, [0] * 4)


@pytest.mark.parametrize("loss", [ops.l1_loss, ops.huber_loss])
def test_losses_of_numbers_refuse(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: a prediction of shape \(3, 1\) for a"):
        loss(np.ones((3, 1)), np.ones(3))
    with pytest.raises(ValueError, match=rf"{loss.__name__}: reduction 'x' is not one of"):
        loss(np.ones(3), np.ones(3), reduction="x")
    with pytest.raises(ValueError, match=rf"{loss.__name__}: where of shape \(2,\) cannot be bro"):
        loss(np.ones(3), np.ones(3), where=[True, False])
    assert loss(np.ones(0), np.ones(0)).item() == 0


@pytest.mark.parametrize("delta", [0, -1, math.inf, math.nan])
def test_huber_refuses_its_delta(delta):
    with pytest.raises(
        ValueError, match=f"huber_loss: delta must be above 0 and finite, not {delta}"
    ):
        ops.huber_loss([1.0], [2.0], delta)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("masked", [False, True])
def test_pinball_loss(masked, reduction, rng, check_gradients):
    quantiles = [0.1, 0.5, 0.75]
    x, y = rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 2))
    where = np.array([[True, False]] * 3 + [[False, True]]) if masked else None
    losses = np.zeros((4, 2, 3))
    for t, b, k in itertools.product(range(4), range(2), range(3)):
        if not masked or where[t, b]:
            d, q = y[t, b] - x[t, b, k], quantiles[k]
            losses[t, b, k] = q * d if d >= 0 else (q - 1) * d
    mean = losses.sum() / (12 if masked else 24)
    expected = {"mean": mean, "sum": losses.sum(), "none": losses}[reduction]
    given = y.copy()
    if masked:
        given[~where] = np.nan

    def loss(x):
        return ops.pinball_loss(x, given, quantiles, where=where, reduction=reduction)

    np.testing.assert_allclose(loss(x).data, expected, rtol=1e-13)
    check_gradients(loss, x)


def test_the_best_constants_of_pinball_are_quantiles(rng):
    y = rng.standard_normal(501)
    levels = [0.2, 0.9]
    best = np.quantile(y, levels)
    x = Tensor(np.tile(best, (501, 1)), requires_grad=True)
    least = ops.pinball_loss(x, y, levels)
    for step in (-0.05, 0.05):
        for k in range(2):
            other = best + step * np.eye(2)[k]
            assert ops.pinball_loss(np.tile(other, (501, 1)), y, levels).item() > least.item()


@pytest.mark.parametrize(
    ("quantiles", "message"),
    [
        ([0.1], r"predictions of shape \(2, 2\) for targets of shape \(2,\) and 1 quantiles"),
        ([0.1, 1], "quantiles are a list of numbers above 0 and below 1"),
        ([0.1, math.nan], "quantiles are a list of numbers above 0 and below 1"),
        (0.5, "quantiles are a list of numbers above 0 and below 1, not 0.5"),
    ],
)
def test_pinball_refuses(quantiles, message):
    with pytest.raises(ValueError, match=f"^pinball_loss: {message}"):
        ops.pinball_loss(np.ones((2, 2)), np.ones(2), quantiles)


@pytest.mark.parametrize("shape", [(4,), (3, 2), ()], ids=str)
def test_mean_squared_error(shape, rng, check_gradients):
    prediction, target = rng.standard_normal(shape), rng.standard_normal(shape)
    pairs = zip(np.ravel(prediction), np.ravel(target), strict=True)
    expected = sum((p - t) ** 2 for p, t in pairs) / max(1, np.size(target))
    assert ops.mean_squared_error(prediction, target).item() == pytest.approx(expected)
    check_gradients(ops.mean_squared_error, np.asarray(prediction), np.asarray(target))


def test_mean_squared_error_does_not_broadcast():
    with pytest.raises(ValueError, match=r"prediction of shape \(3, 1\) for a target of shape \(3"):
        ops.mean_squared_error(Tensor(np.ones((3, 1))), Tensor(np.ones(3)))


@pytest.mark.parametrize("target", [np.array([1.0, 4.0]), np.array([1, 4]), [1.0, 4.0], [1, 4]])
def test_squared_errors_of_a_tensor_take_targets_of_any_dtype(target):
    x = Tensor([1.0, 2.0], requires_grad=True)
    for error in (ops.mean_squared_error(x, target), ops.mean_squared_error(target, x)):
        assert (error.dtype, error.item()) == (np.float32, 2.0)
    assert ops.mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])).item() == 2


def test_label_smoothing_is_not_rounded(rng):
    """In bfloat16 logits are products; what smoothing makes of them is a loss, in float32."""
    logits, targets = rng.standard_normal((7, 50)).astype("f"), rng.integers(0, 50, 7)
    expected = ops.cross_entropy(logits, targets, label_smoothing=0.5).item()
    with matmul_precision("bfloat16"):
        assert ops.cross_entropy(logits, targets, label_smoothing=0.5).item() == expected
        x, weight = rng.standard_normal((7, 33)).astype("f"), rng.standard_normal((50, 33))
        weight = weight.astype("f")
        alone = ops.linear_cross_entropy(x, weight, None, targets).item()
        found = ops.linear_cross_entropy(x, weight, None, targets, label_smoothing=0.5).item()
    unrounded = x.astype(np.float64) @ weight.T
    gaps = 0.5 * (unrounded[np.arange(7), targets] - unrounded.mean(axis=1))
    assert found == pytest.approx(alone + gaps.mean(), rel=1e-6)
