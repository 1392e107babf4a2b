"""The table of built-in cells that the engine compiles: ``make cells`` writes it.

Printed is ``src/anaphora/engine/src/built_in_cells.h``; tests/engine/test_built_in_cells.py tells
when it differs from the equations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anaphora.cells import CELLS, Cell
from anaphora.engine import native

_HEAD = """\
// The built-in cells as the engine sees them. Written by `make cells` from their equations.
#pragma once

#include "program.h"

#include <array>

namespace anaphora::built_in {

// clang-format off
"""
_FOOT = """\
#define ANAPHORA_BUILT_IN_CELLS(CELL) {calls}
// clang-format on

}} // namespace anaphora::built_in
"""


def header() -> str:
    """The text of the header."""
    calls = " ".join(f"CELL({name})" for name in CELLS)
    return _HEAD + "".join(map(_cell, CELLS.values())) + _FOOT.format(calls=calls)


def _cell(cell: Cell) -> str:
    parts = native.cell_parts(cell.trace)
    lines = [
        *(f"// {line}" for line in cell.program.lines()),
        f"struct {cell.name} {{",
        *_program("forward", parts["forward"]),
        *_program("backward", parts["backward"]),
        _array("GateInput", "gates", [_braces(gate) for gate in parts["gates"]]),
        _array("std::int32_t", "saved", parts["saved"]),
        f"static constexpr int states = {parts['states']}, parameters = {parts['parameters']};",
        f"static constexpr int x_blocks = {_count(x for x, _ in parts['gates'])}, "
        f"h_blocks = {_count(h for _, h in parts['gates'])};",
        "};",
    ]
    return "\n".join(lines) + "\n\n"


def _program(name: str, parts: native.NumberedProgram) -> list[str]:
    inputs, constants, code, outputs = parts
    return [
        f"struct {name} {{",
        f"static constexpr int inputs = {inputs};",
        _array("double", "constants", [f"{constant!r}" for constant in constants]),
        _array("Instruction", "instructions", [f"{{Op::{op}, {a}, {b}}}" for op, a, b in code]),
        _array("std::int32_t", "outputs", outputs),
        "};",
    ]


def _count(blocks: Iterable[int]) -> int:
    return sum(block >= 0 for block in blocks)


def _array(kind: str, name: str, items: Sequence[object]) -> str:
    return f"static constexpr std::array<{kind}, {len(items)}> {name}{{{_braces(items)}}};"


def _braces(items: Iterable[object]) -> str:
    return f"{{{', '.join(map(str, items))}}}"


if __name__ == "__main__":
    print(header(), end="")
