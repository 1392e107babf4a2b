"""HTML for notebooks, in which every text is escaped; colors suit light and dark pages."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ROWS, _MOST_COLUMNS = 16, 12
"""Rows and columns of a matrix whose numbers are shown; from larger ones the first and last."""


def escaped(text: object) -> str:
    """A text as HTML.

    >>> escaped("i < T")
    'i &lt; T'
    """
    return html.escape(str(text))


def code(lines: Iterable[str]) -> str:
    """Lines of code.

    >>> code(["h = o * t"])
    '<pre style="margin: 0; text-align: left">h = o * t</pre>'
    """
    return f'<pre style="margin: 0; text-align: left">{escaped(chr(10).join(lines))}</pre>'


def folded(summary: str, content: str, *, is_open: bool = True) -> str:
    """HTML that can be folded to its summary, HTML too.

    >>> folded("<b>LSTM</b>", "...", is_open=False)
    '<details><summary><b>LSTM</b></summary><div style="margin-left: 1em">...</div></details>'
    """
    opened = " open" if is_open else ""
    body = f'<div style="margin-left: 1em">{content}</div>'
    return f"<details{opened}><summary>{summary}</summary>{body}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of texts; empty without rows.

    >>> table(["name"], [["weight"]])
    '<table><thead><tr><th>name</th></tr></thead><tbody><tr><td>weight</td></tr></tbody></table>'
    """
    body = "".join(
        f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    titles = "".join(f"<th>{escaped(title)}</th>" for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>" if body else ""


def shape(array: NDArray[Any]) -> str:
    """The shape of an array.

    >>> shape(np.zeros((3, 2)))
    '3 × 2'
    """
    return " × ".join(map(str, array.shape)) or "a number"


def statistics(array: NDArray[Any]) -> list[str]:
    """The mean, standard deviation, minimum and maximum of the finite numbers of an array, and how
    many others there are.

    >>> statistics(np.array([1.0, 3.0, np.nan]))
    ['2', '1', '1', '3', '1']
    """
    values = np.asarray(array, np.float64)
    finite = values[np.isfinite(values)]
    others = values.size - finite.size
    if not finite.size:
        return ["", "", "", "", str(others)]
    scale = np.abs(finite).max() or 1.0  # so that no square overflows
    deviation = (finite / scale).std() * scale
    numbers = (np.mean(finite / scale) * scale, deviation, finite.min(), finite.max())
    return [*(f"{number:.4g}" for number in numbers), str(others)]


STATISTICS = ("mean", "standard deviation", "minimum", "maximum", "not finite")
"""What `statistics` returns."""


def matrix(array: NDArray[Any]) -> str:
    """The numbers of an array, its last axis across: blue above 0, red below, by their size.

    >>> matrix(np.array([0.5, -1.0])).count("<td")
    2
    """
    values = np.asarray(array, np.float64)
    values = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    finite = np.abs(values[np.isfinite(values)])
    most = finite.max() if finite.size and finite.max() else 1.0
    rows, columns = _ends(len(values), _MOST_ROWS), _ends(values.shape[1], _MOST_COLUMNS)
    lines = []
    for row in rows:
        cells = [
            "<td>…</td>" if row is None or column is None else _cell(values[row, column], most)
            for column in columns
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def _ends(count: int, most: int) -> list[int | None]:
    """All of the first numbers, or as many from both ends, with None between."""
    if count <= most:
        return list(range(count))
    half = most // 2
    return [*range(half), None, *range(count - half, count)]


def _cell(number: float, most: float) -> str:
    share = min(1.0, abs(number) / most) if np.isfinite(number) else 0.0
    color = "225, 60, 60" if number < 0 else "50, 110, 235"
    style = f"background: rgba({color}, {0.75 * share:.3f})"
    return f'<td style="{style}">{number:.4g}</td>'
