"""What is held out has every class in its proportion."""

import numpy as np
import pytest

from anaphora.data import held_out_in_proportion


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
def test_every_class_in_its_proportion(share, rng):
    classes = rng.permutation(np.repeat([0, 1, 2, 3], [3, 40, 57, 100]))
    held = held_out_in_proportion(classes, share, np.random.default_rng(2))
    assert len(held) == len(set(held.tolist())) == round(200 * share)
    for k, count in enumerate([3, 40, 57, 100]):
        assert abs(np.count_nonzero(classes[held] == k) - share * count) < 1
    other = held_out_in_proportion(classes, share, np.random.default_rng(3))
    assert not np.array_equal(held, other)


def test_one_example_of_each_class_is_left():
    classes = ["a", "b", "c", "c"]
    held = held_out_in_proportion(classes, 0.9, np.random.default_rng(1))
    assert np.asarray(classes)[held].tolist() == ["c"]


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"share is 1.0; wanted 0 < share < 1"):
        held_out_in_proportion([0, 1], 1.0, np.random.default_rng(1))
