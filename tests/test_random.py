"""One generator: seeded, saved and restored."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

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


def test_a_block_has_a_generator_that_no_other_thread_uses():
    random.seed(3)
    before = random.get_state()
    meeting = Barrier(2, timeout=60)

    def sampled(value):
        found = []
        with random.seeded(value):
            for _ in range(3):  # in turns with the other thread
                meeting.wait()
                found.append(random.generator().random())
            with pytest.raises(TypeError), random.seeded(9):  # within another, with an error
                random.seed("nine")
            state = random.get_state()
            found.append(random.generator().random())
            random.set_state(state)
            assert random.generator().random() == found[-1]
            random.seed(value)
            assert random.generator().random() == found[0]
        return found

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(sampled, [7, 8]))
    for value, numbers in zip([7, 8], found, strict=True):
        expected = np.random.Generator(np.random.PCG64(value)).random(4)
        np.testing.assert_array_equal(numbers, expected)
    assert random.get_state() == before
