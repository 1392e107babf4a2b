"""Losses: by their definitions, one target at a time."""

import math

import numpy as np
import pytest

from anaphora import engine, ops
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
        ([0, 1], {"reduction": "average"}, ValueError, r"reduction 'average' is none of \('mean'"),
    ],
)
def test_cross_entropy_refuses(targets, options, error, message):
    with pytest.raises(error, match=f"^cross_entropy: .*{message}"):
        ops.cross_entropy(Tensor(np.zeros((2, 3))), targets, **options)


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
