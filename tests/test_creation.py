"""New Tensors."""

import numpy as np
import pytest

import anaphora
from anaphora import Tensor, arange, full, multinomial, ones, rand, randint, randn, random, zeros


@pytest.mark.parametrize("create", [zeros, ones, rand, randn])
def test_sizes_follow_one_another_or_are_a_tuple(create):
    for shape in ((2, 3), (4,), (), (0, 2)):
        for x in (create(*shape), create(shape), create(list(shape))):
            assert (x.shape, x.dtype, x.requires_grad) == (shape, np.float32, False)
    x = create(2, 3, dtype=np.float64, requires_grad=True)
    assert (x.dtype, x.requires_grad) == (np.float64, True)
    with pytest.raises(TypeError, match=rf"^{create.__name__}: sizes are integers, not .*dtype="):
        create((2, 3), "float64")
    with pytest.raises(TypeError, match=rf"^{create.__name__}: .* 'device': omit it"):
        create(2, device="cpu")


def test_numbers():
    assert zeros(2).tolist() == [0, 0]
    assert ones(1, 2).tolist() == [[1, 1]]
    assert full((1, 2), -np.inf).tolist() == [[-np.inf, -np.inf]]
    assert full(2, 7, dtype="float64").dtype == np.float64
    assert arange(2, 8, 3).tolist() == [2, 5]
    assert arange(3, dtype="float32").dtype == np.float32
    assert arange(3).dtype == np.int64


@pytest.mark.parametrize("name", ["zeros", "ones", "full", "rand", "randn"])
def test_shape_and_dtype_are_those_of_another(name):
    create, like = (getattr(anaphora, name + ending) for ending in ("", "_like"))
    number = (3,) if name == "full" else ()
    floats = (np.float32, np.float64)
    for dtype in floats if name.startswith("rand") else (*floats, np.int64):
        array = np.arange(6).reshape(2, 3).astype(dtype)
        for x in (array, Tensor(array)):
            y = like(x, *number)
            assert (y.shape, y.dtype, y.requires_grad) == ((2, 3), dtype, False)
            random.seed(4)
            expected = create((2, 3), *number, dtype=dtype)
            random.seed(4)
            np.testing.assert_array_equal(like(x, *number).data, expected.data)
    y = like(np.ones(4, np.int64), *number, dtype=np.float64, requires_grad=True)
    assert (y.shape, y.dtype, y.requires_grad) == ((4,), np.float64, True)
    assert like([1.0, 2.0], *number).dtype == np.float32
    with pytest.raises(TypeError, match=rf"^{name}_like: .* 'device': omit it"):
        like([1.0], *number, device="cpu")


def test_random_numbers_come_from_the_seeded_generator():
    def numbers():
        random.seed(3)
        return rand(500), randn(500), randint(2, 5, (500,))

    first, again = numbers(), numbers()
    for x, y in zip(first, again, strict=True):
        np.testing.assert_array_equal(x.data, y.data)
    uniform, normal, integers = (x.data for x in first)
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert abs(uniform.mean() - 0.5) < 0.05
    assert abs(normal.mean()) < 0.2
    assert abs(normal.std() - 1) < 0.1
    assert set(integers.tolist()) == {2, 3, 4}
    assert randint(0, 2, (2, 3)).shape == (2, 3)


def shares(ids, classes):
    return np.bincount(ids.data.reshape(-1), minlength=classes) / ids.size


def test_samples_have_their_probabilities():
    random.seed(1)
    weights = np.array([[1.0, 0.0, 3.0], [0.5, 0.5, 0.0]], np.float32)
    ids = multinomial(weights, 4000, replacement=True)
    assert (ids.shape, ids.dtype) == ((2, 4000), np.int64)
    np.testing.assert_allclose(shares(ids[0], 3), [0.25, 0, 0.75], atol=0.03)
    np.testing.assert_allclose(shares(ids[1], 3), [0.5, 0.5, 0], atol=0.03)
    alone = multinomial(zeros(4000, 1, 3) + Tensor(weights[0]), 1)
    assert alone.shape == (4000, 1, 1)
    np.testing.assert_allclose(shares(alone, 3), [0.25, 0, 0.75], atol=0.03)


def test_samples_without_replacement_are_drawn_one_after_the_other():
    random.seed(2)
    weights = np.array([0.5, 0.3, 0.0, 0.2])
    pairs = multinomial(np.tile(weights, (6000, 1)), 2).data
    found = np.zeros((4, 4))
    np.add.at(found, (pairs[:, 0], pairs[:, 1]), 1 / len(pairs))
    expected = weights[:, None] * weights / (1 - weights[:, None])
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, atol=0.025)
    assert sorted(multinomial(weights, 3).tolist()) == [0, 1, 3]


def test_samples_depend_on_the_seed_and_have_no_gradient():
    x = Tensor([0.25, 0.75], requires_grad=True)
    random.seed(3)
    first = multinomial(x, 30, replacement=True)
    random.seed(3)
    assert multinomial(x, 30, replacement=True).tolist() == first.tolist()
    assert not first.requires_grad


@pytest.mark.parametrize(
    ("weights", "count", "message"),
    [
        ([0.5, -0.5], 1, "probabilities are finite, not negative"),
        ([[0.5, 0.5], [0.0, 0.0]], 1, "probabilities are finite, not negative"),
        ([np.nan, 1.0], 1, "probabilities are finite, not negative"),
        ([0.5, 0.5, 0.0], 3, "3 different indices, but a row has only 2 whose"),
    ],
)
def test_what_cannot_be_sampled(weights, count, message):
    with pytest.raises(ValueError, match=f"^multinomial: {message}"):
        multinomial(weights, count)


def test_what_is_not_there_is_answered():
    with pytest.raises(AttributeError, match=r"'empty': write anaphora\.zeros\(shape\)"):
        _ = anaphora.empty
