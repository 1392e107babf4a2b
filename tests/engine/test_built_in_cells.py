"""The engine's table of built-in cells, whose steps are compiled, beside their equations."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from anaphora import cells, nn
from anaphora.engine import native

_ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_equations() -> None:
    written = (_ROOT / "src/anaphora/engine/src/built_in_cells.h").read_text()
    generator = runpy.run_path(str(Path(__file__).with_name("built_in_cells.py")))
    assert written == generator["header"](), "make cells writes it"


@pytest.mark.parametrize("name", cells.CELLS)
def test_the_built_in_cells_are_compiled(name: str) -> None:
    assert native.is_compiled(cells.CELLS[name].trace)


def test_a_cell_of_the_same_equations_is_compiled_too() -> None:
    @cells.cell(gates="r z n", state="h")
    def renamed(r, z, n, h):  # type: ignore[no-untyped-def]
        reset, update = cells.sigmoid(r), cells.sigmoid(z)
        new = cells.tanh(n.x + reset * n.h)
        return (1 - update) * new + update * h

    assert native.is_compiled(renamed.trace)


def test_a_cell_of_other_equations_is_interpreted() -> None:
    @cells.cell(gates="i f g o", state="h c")
    def subtracting(i, f, g, o, h, c):  # type: ignore[no-untyped-def]
        c = cells.sigmoid(f) * c - cells.sigmoid(i) * cells.tanh(g)
        return cells.sigmoid(o) * cells.tanh(c), c

    assert not native.is_compiled(subtracting.trace)
    assert not native.is_compiled(cells.zoneout(cells.lstm, 0.1).trace)


# What a step records is interpreted, so that the two can be compared from here too; gradients and
# sessions are compared by tests/native/recurrence_test.cpp.
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("units", [1, 16, 37])
@pytest.mark.parametrize("name", cells.CELLS)
def test_recording_changes_no_bit(name: str, units: int, dtype: type) -> None:
    rng = np.random.default_rng(3)
    layer = nn.Recurrent(cells.CELLS[name], 3, units, 2, bidirectional=True, dtype=dtype)
    x = rng.normal(size=(9, 5, 3)).astype(dtype)
    (plain, _), (beside, _, values) = layer(x), layer.record(x)
    assert values
    np.testing.assert_array_equal(plain.data, beside.data)
