"""Embedding, dropout and layer normalisation."""

import numpy as np
import pytest

from anaphora import ops, random
from anaphora.tensor import RowGradient, Tensor


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)], ids=str)
def test_embedding(shape, dtype, rng, check_gradients):
    weight = rng.standard_normal((5, 4))
    ids = rng.integers(0, 5, shape).astype(dtype)
    result = ops.embedding(weight, ids).data
    assert result.shape == (*shape, 4)
    for index in np.ndindex(shape):
        assert result[index].tolist() == weight[int(ids[index])].tolist()
    check_gradients(lambda w: ops.embedding(w, ids), weight)


def test_gradient_of_an_embedding_has_each_row_once():
    weight = Tensor(np.zeros((6, 2)), requires_grad=True)
    scale = np.array([[1.0], [10], [100], [1000]])
    (ops.embedding(weight, [4, 1, 4, 4]) * scale).sum().backward()
    assert isinstance(weight.grad, RowGradient)
    assert weight.grad.indices.tolist() == [1, 4]
    assert weight.grad.values.tolist() == [[10, 10], [1101, 1101]]
    assert weight.grad.shape == (6, 2)


def test_embedding_keeps_its_own_ids():
    weight, ids = Tensor(np.zeros((3, 1)), requires_grad=True), np.array([0, 1])
    y = ops.embedding(weight, ids).sum()
    ids[:] = 2  # whoever makes batches may use the array again
    y.backward()
    assert weight.grad.indices.tolist() == [0, 1]


def test_embedding_refuses_ids_that_are_none():
    weight = Tensor(np.zeros((3, 2)))
    for ids in ([0, 3], [-1]):
        with pytest.raises(IndexError, match=r"^embedding: ids from .* for a table of 3 rows"):
            ops.embedding(weight, ids)
    with pytest.raises(TypeError, match=r"^embedding: ids are integers, not float64"):
        ops.embedding(weight, [1.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout(dtype):
    random.seed(1)
    x = Tensor(np.full((200, 300), 3, dtype), requires_grad=True)
    y = ops.dropout(x, 0.2)
    assert y.dtype == dtype
    assert set(np.unique(y.data)) == {0, dtype(3) * dtype(1 / 0.8)}
    assert abs((y.data == 0).mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / y.size)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data / 3)


@pytest.mark.parametrize("axes", [(0,), (-3,), (0, 2)])
def test_dropout_that_is_shared_along_axes(axes):
    random.seed(1)
    y = ops.dropout(Tensor(np.ones((5, 8, 9))), 0.5, shared_axes=axes).data
    first = np.take(y, [0], axis=axes[0])
    np.testing.assert_array_equal(y, np.broadcast_to(first, y.shape))
    assert len(np.unique(y)) == 2


def test_dropout_draws_from_the_package_generator():
    x = Tensor(np.ones((4, 5)))
    random.seed(3)
    first, second = ops.dropout(x, 0.5), ops.dropout(x, 0.5)
    random.seed(3)
    assert (ops.dropout(x, 0.5) == first).all()
    assert (first != second).any()


@pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 2)], ids=str)
def test_dropout_draws_the_same_mask_in_the_backward_pass(axes, rng):
    x = Tensor(rng.standard_normal((5, 8, 9)), requires_grad=True)
    y = ops.dropout(x, 0.3, shared_axes=axes)
    ops.dropout(x, 0.3)  # what is drawn in between does not matter
    dy = rng.standard_normal(x.shape)
    y.backward(dy)
    np.testing.assert_array_equal(x.grad, np.where(y.data != 0, dy * (1 / 0.7), 0))


def test_dropout_draws_one_number_for_a_mask_of_any_size():
    states = []
    for size in (1, 1000):
        random.seed(3)
        ops.dropout(Tensor(np.ones(size)), 0.5)
        states.append(random.get_state())
    assert states[0] == states[1]


def test_dropout_of_nothing_is_the_same_tensor():
    x = Tensor([1.0])
    assert ops.dropout(x, 0.0) is x


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_dropout_rate_is_a_share(rate):
    with pytest.raises(ValueError, match=r"^dropout: rate, the share to drop"):
        ops.dropout(Tensor([1.0]), rate)


@pytest.mark.parametrize("parts", ["", "weight", "bias", "weight bias"])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (5, 3, 4), (0, 4)], ids=str)
def test_layer_norm(shape, parts, rng, check_gradients):
    x = rng.standard_normal(shape) * 3 + 2
    weight = rng.standard_normal(4) if "weight" in parts else None
    bias = rng.standard_normal(4) if "bias" in parts else None
    result = ops.layer_norm(x, weight, bias, epsilon=0.1).data
    for index in np.ndindex(shape[:-1]):
        row = x[index]
        variance = ((row - row.mean()) ** 2).sum() / 4
        expected = (row - row.mean()) / np.sqrt(variance + 0.1)
        expected = expected * (1 if weight is None else weight) + (0 if bias is None else bias)
        np.testing.assert_allclose(result[index], expected, atol=1e-14)
    check_gradients(lambda *arrays: ops.layer_norm(*arrays, epsilon=0.1), x, weight, bias)


def test_layer_norm_of_equal_elements_is_finite():
    x = Tensor([[2.0, 2.0]], requires_grad=True)
    y = ops.layer_norm(x)
    y.sum().backward()
    assert y.data.tolist() == x.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_layer_norm_says_which_shape_does_not_fit(name):
    vectors = [Tensor([1.0]) if name == n else None for n in ("weight", "bias")]
    message = (
        rf"^layer_norm: a {name} of shape \(1,\) for an input of shape \(2, 3\); expected \(3,"
    )
    with pytest.raises(ValueError, match=message):
        ops.layer_norm(Tensor(np.ones((2, 3), np.float32)), *vectors)
    with pytest.raises(ValueError, match=r"^layer_norm: the input is a single number"):
        ops.layer_norm(Tensor(1.0))


@pytest.mark.parametrize("kind", [list, np.array, Tensor, lambda ids: np.array(ids, "u1")])
def test_one_hot(kind):
    ids = [[2, 0, 1], [3, 3, 0]]
    y = ops.one_hot(kind(ids), 5)
    assert (y.shape, y.dtype, y.requires_grad) == ((2, 3, 5), np.float32, False)
    for row, column in np.ndindex(2, 3):
        assert y.data[row, column].tolist() == [float(k == ids[row][column]) for k in range(5)]
    assert ops.one_hot(kind(ids)).shape == (2, 3, 4)
    assert ops.one_hot(kind(ids), dtype=np.int64).dtype == np.int64
    assert ops.one_hot(2, 3).data.tolist() == [0, 0, 1]
    assert ops.one_hot([], 3).shape == (0, 3)


def test_one_hot_of_ids_that_are_none():
    with pytest.raises(TypeError, match=r"^one_hot: ids are integers, not float64; convert"):
        ops.one_hot(np.array([1.0]), 3)
    with pytest.raises(IndexError, match=r"^one_hot: an id of 3 for 3 classes; ids are in 0\.\.2"):
        ops.one_hot([0, 3], 3)
    with pytest.raises(IndexError, match=r"^one_hot: an id of -1"):
        ops.one_hot([0, -1])
    with pytest.raises(ValueError, match=r"^one_hot: without ids, give num_classes"):
        ops.one_hot([])


@pytest.mark.parametrize("axis", [-1, 1])
def test_gumbel_softmax_chooses_classes_by_their_probabilities(axis):
    random.seed(5)
    logits = np.log([[0.1], [0.6], [0.3]])  # [3, 1]
    drawn = np.broadcast_to(logits, (3, 4000)).T
    rows = np.moveaxis(drawn[:, None], 2, axis)  # [N, 1, 3] or [N, 3, 1]
    y = ops.gumbel_softmax(rows, hard=True, axis=axis).data
    assert y.shape == rows.shape
    np.testing.assert_allclose(y.sum(axis=axis), 1, atol=1e-12)
    chosen = y > 0.5
    np.testing.assert_allclose(y, chosen, atol=1e-12)
    np.testing.assert_allclose(chosen.mean(axis=0).ravel(), [0.1, 0.6, 0.3], atol=0.03)


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_has_the_gradient_of_the_soft_choice(hard, rng, check_gradients):
    logits, weights = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))

    def soft(x):
        random.seed(6)
        return ops.gumbel_softmax(x, 0.7, axis=1) * weights

    check_gradients(soft, logits)
    found = []
    for choice in (False, hard):
        x = Tensor(logits, requires_grad=True)
        random.seed(6)
        ops.gumbel_softmax(x, 0.7, choice, 1).backward(weights)
        found.append(x.grad)
    np.testing.assert_array_equal(*found)


def test_gumbel_softmax_becomes_a_choice_as_it_cools():
    random.seed(7)
    warm = ops.gumbel_softmax(np.zeros((500, 3)), 1.0).data.max(axis=1).mean()
    cold = ops.gumbel_softmax(np.zeros((500, 3)), 0.01).data.max(axis=1).mean()
    assert cold > 0.95 > warm
    with pytest.raises(ValueError, match=r"^gumbel_softmax: temperature must be above 0, not 0$"):
        ops.gumbel_softmax([1.0], 0)
