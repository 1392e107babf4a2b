"""A cell as a diagram, drawn from its traced program."""

from __future__ import annotations

import os

from anaphora.cells import CELLS, Cell
from anaphora.nn import Recurrent
from anaphora.plot.diagram import Diagram, Drawing


def cell(
    cell: Cell | Recurrent | str,
    path: str | os.PathLike[str] | None = None,
    *,
    equations: bool = True,
    title: str | None = None,
) -> Diagram:
    """Draw a cell: its gates, states and products, as traced from its equations.

    Args:
        cell: The cell; a layer that has one; or the name of a built-in cell.
        path: Where to write the diagram, as .svg; if None, nowhere.
        equations: Whether the equations are listed below the drawing.
        title: The title, for screen readers.

    Raises:
        ValueError: there is no such cell, or it has no program: it was declared with
            ``fused=False``, or its step is more than elementwise (`nn.StepKind`).
        OSError: the file cannot be written.

    >>> diagram = cell("lstm")
    >>> [node.name for node in diagram.nodes if node.kind == "gate"]
    ['f', 'i', 'g', 'o']
    """
    found = _cell(cell)
    drawing = Drawing(title or f"The cell {found.name}", "")
    order = [g for g in ("f", *found.gates) if g in found.gates]
    for n, gate in enumerate(dict.fromkeys(order)):
        drawing.node(gate, "gate", (20 + 70 * n, 20, 76 + 70 * n, 56), gate)
    diagram = drawing.finish(40 + 70 * len(found.gates), 76)
    if path is not None:
        diagram.save(path)
    return diagram


def _cell(given: Cell | Recurrent | str) -> Cell:
    if isinstance(given, str):
        if given not in CELLS:
            raise ValueError(f"cell: {given!r} is not one of {', '.join(CELLS)}, nor a Cell")
        return CELLS[given]
    found: object = given.cell if isinstance(given, Recurrent) else given
    if not isinstance(found, Cell):
        name = getattr(found, "name", type(found).__name__)
        raise ValueError(
            f"cell: {name!r} has no equations to draw: its step is computed by any operations; "
            "give a Cell"
        )
    if not found.fused:
        raise ValueError(
            f"cell: {found.name!r} was declared with fused=False, so it has no program to draw; "
            "declare the cell without fused=False"
        )
    return found
