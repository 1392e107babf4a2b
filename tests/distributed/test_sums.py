"""Sums in the order of a balanced binary tree, against that tree written down."""

import numpy as np
import pytest

from anaphora.distributed.sums import TreeSum, add_arrays, is_power_of_two, tree_sum


def expected(values):
    """The tree from its top: half and half."""
    if len(values) == 1:
        return values[0]
    middle = len(values) // 2
    return expected(values[:middle]) + expected(values[middle:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_the_order_is_that_of_a_balanced_tree(rng, count, dtype):
    values = rng.normal(size=(count, 1000)).astype(dtype) * 10.0 ** rng.integers(-6, 6, 1000)
    values = values.astype(dtype)
    found = tree_sum([value.copy() for value in values], add_arrays)
    assert found.tobytes() == expected(values).tobytes()
    if count > 2:  # which is not that from left to right
        assert found.tobytes() != sum(values[1:], values[0]).tobytes()


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_subtrees_of_processes_give_the_same(rng, processes):
    values = rng.normal(size=(8, 1000)).astype(np.float32)
    parts = np.split(values, processes)
    sums = [tree_sum([value.copy() for value in part], add_arrays) for part in parts]
    assert tree_sum(sums, add_arrays).tobytes() == expected(values).tobytes()


def test_few_values_are_kept():
    total = TreeSum(lambda a, b: a + b)
    for number in range(64):
        total.push(number)
        assert len(total._subtrees) <= 6
    assert total.pop() == sum(range(64))
    total.push(5)  # it starts anew
    assert total.pop() == 5


def test_powers_of_two():
    assert [n for n in range(-2, 40) if is_power_of_two(n)] == [1, 2, 4, 8, 16, 32]


SUMS = """
import numpy as np
from anaphora.distributed import world

w = world()

def expected(values):
    if len(values) == 1:
        return values[0]
    middle = len(values) // 2
    return expected(values[:middle]) + expected(values[middle:])

for size in (1, 3, 7, 100_003):  # of which some ranks have no part
    for dtype in (np.float32, np.float64):
        values = np.random.default_rng(size).normal(size=(w.size, size)).astype(dtype)
        own = values[w.rank].copy()
        w.sum_in_order(own)
        assert own.tobytes() == expected(values).tobytes(), (size, dtype)
if w.is_main:
    print("all is right")
"""


@pytest.mark.parametrize("count", [2, 4])
def test_processes_sum_in_that_order(launch, script, mpi, count):
    out, errors = launch(count, [script(SUMS)], mpi)
    assert out == "all is right\n", errors
