"""One generator: seeded, saved and restored."""

import json

import numpy as np
import pytest

from anaphora import random


def test_the_same_seed_gives_the_same_numbers():
    generator = random.generator()
    random.seed(5)
    first = generator.random(3)
    random.seed(5)
    assert random.generator() is generator
    np.testing.assert_array_equal(generator.random(3), first)
    random.seed(6)
    assert (generator.random(3) != first).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_state_goes_through_json(dtype):
    generator = random.generator()
    random.seed(5)
    generator.random(3, dtype=np.float32)  # an odd number leaves half of 64 bits over
    saved = json.dumps(random.get_state())
    following = generator.random(4, dtype=dtype)
    generator.random(7)
    random.set_state(json.loads(saved))
    np.testing.assert_array_equal(generator.random(4, dtype=dtype), following)


def test_a_state_is_not_changed_by_drawing():
    state = random.get_state()
    copy = json.dumps(state)
    random.generator().random(5)
    assert json.dumps(state) == copy


def test_a_state_of_another_generator_is_refused():
    with pytest.raises(ValueError, match="PCG64"):
        random.set_state(np.random.Philox(1).state)
    with pytest.raises(ValueError, match="non-negative"):
        random.seed(-1)
