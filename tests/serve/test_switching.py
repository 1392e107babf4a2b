"""Units that switch in a span, against a search through all of them."""

import numpy as np
import pytest

from anaphora.serve.switching import places, switches


def brute_force(recorded, start, end):
    """Every unit that switches, with its contrast, by loops over single numbers."""
    found = {}
    for name, values in recorded.items():
        for unit in range(values.shape[1]):
            row = [float(v) for v in values[:, unit]]
            around = [row[t] for t in (start - 1, end) if 0 <= t < len(row)]
            inside, spread = row[start:end], max(row) - min(row)
            if min(inside) > max(around):
                found[name, unit] = (min(inside) - max(around)) / spread
            if max(inside) < min(around):
                found[name, unit] = (max(inside) - min(around)) / spread
    return found


@pytest.mark.parametrize(("start", "end"), [(3, 5), (0, 2), (17, 19), (6, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_are_those_of_a_search_through_all(start, end, dtype):
    generator = np.random.default_rng(3)
    recorded = {
        "c_l0": generator.normal(size=(19, 40)).astype(dtype),
        "f_l1": generator.random(size=(19, 23)).astype(dtype),
    }
    expected = brute_force(recorded, start, end)
    found = switches(recorded, start, end, count=1000)
    assert {(one.value, one.unit): one.contrast for one in found} == pytest.approx(expected, 1e-6)
    contrasts = [abs(one.contrast) for one in found]
    assert contrasts == sorted(contrasts, reverse=True)
    assert switches(recorded, start, end, count=4) == found[:4]
    for one in found:
        row = recorded[one.value][:, one.unit]
        sign = np.sign(one.contrast)
        assert (sign * row[start:end] > sign * one.threshold).all()
        assert all(
            sign * row[t] < sign * one.threshold for t in (start - 1, end) if 0 <= t < len(row)
        )


def test_units_that_never_change_do_not_switch():
    assert switches({"h_l0": np.full((6, 3), 0.25, np.float32)}, 2, 4) == []
    assert places({"h_l0": np.full((6, 3), 0.25, np.float32)}, [], 2, 4) == []


def test_places_are_where_three_quarters_of_the_units_are_on():
    on = np.zeros((20, 4))
    on[3:6] = 1  # the span
    on[9:12] = 1  # the same again
    on[14:16, :3] = 1  # three of four
    on[18, :2] = 1  # two of four
    on[:, 1] *= -1  # a unit that switches off
    units = switches({"h_l0": on}, 3, 6)
    assert {one.unit: one.contrast for one in units} == {0: 1, 1: -1, 2: 1, 3: 1}
    found = [tuple(one) for one in places({"h_l0": on}, units, 3, 6)]
    assert found == [(9, 12, 1.0), (14, 16, 0.75)]
    assert [tuple(one) for one in places({"h_l0": on}, units, 9, 12, count=1)] == [(3, 6, 1.0)]
