"""New Tensors."""

import numpy as np
import pytest

import anaphora
from anaphora import arange, full, ones, rand, randint, randn, random, zeros


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


def test_what_is_not_there_is_answered():
    with pytest.raises(AttributeError, match=r"'empty': write anaphora\.zeros\(shape\)"):
        _ = anaphora.empty
