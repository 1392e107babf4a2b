"""Diagram: a drawing as SVG, with its nodes, edges and texts as data. Needs no other package."""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels from the top left corner."""

INK, FAINT, PAPER = "#1f2933", "#66727f", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#c25100", "#00795a", "#a8487f"
"""Colors of lines and letters: those of Okabe & Ito (2008), darkened for small text."""

_FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_SUBSCRIPT = 0.72  # the size of a subscript, as a part of the text's


class Node(NamedTuple):
    """A box, circle or label of a diagram.

    Attributes:
        name: Its unique name, by which edges refer to it.
        kind: What it is, such as "gate" or "state".
        label: Its text.
        box: Left, top, right and bottom.

    >>> Node("f", "gate", "σ", (0, 0, 60, 30)).label
    'σ'
    """

    name: str
    kind: str
    label: str
    box: Box


class Edge(NamedTuple):
    """An arrow of a diagram.

    Attributes:
        source: The name of the node where it begins.
        target: The name of the node where it ends.
        points: The corners of its line, from the source to the target.

    >>> Edge("f", "c", ((30, 0), (30, -40))).target
    'c'
    """

    source: str
    target: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Diagram:
    """A drawing as SVG: complete in itself, the same bytes for the same input.

    It has a white background, so that it can be read on light and dark pages, and a title and a
    description for screen readers. Notebooks show it.

    Attributes:
        svg: The SVG document.
        title: Its title.
        description: What it shows, in words.
        nodes: Boxes, circles and labels at the ends of edges.
        edges: The arrows.
        texts: All texts, with the boxes that they fill.

    >>> diagram = Diagram("<svg/>", "nothing", "An empty drawing.")
    >>> diagram
    Diagram('nothing', 0 nodes, 0 edges)
    """

    svg: str
    title: str
    description: str
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    texts: tuple[tuple[str, Box], ...] = ()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawing as SVG; return the path.

        Raises:
            ValueError: the suffix is not .svg.
            OSError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".svg":
            raise ValueError(f"{path}: a diagram is written as .svg")
        path.write_text(self.svg, encoding="utf-8")
        return path

    def _repr_svg_(self) -> str:  # for notebooks
        return self.svg

    def __repr__(self) -> str:
        return f"Diagram({self.title!r}, {len(self.nodes)} nodes, {len(self.edges)} edges)"


class Span(NamedTuple):
    """A piece of a text: on the line, or a subscript.

    >>> Span("t", is_subscript=True).text
    't'
    """

    text: str
    is_subscript: bool = False


Text: TypeAlias = "str | Sequence[Span]"


def subscripted(name: str, step: str = "") -> tuple[Span, ...]:
    """The name of a variable as it is set: what follows a letter and an underscore is a subscript.

    Args:
        name: The name, as in a program.
        step: A further subscript, such as the step "t".

    >>> subscripted("p_i", "t")
    (Span(text='p', is_subscript=False), Span(text='i, t', is_subscript=True))
    """
    base, _, index = name.partition("_")
    if len(base) != 1 or not index or "_" in index:  # a name of words stays as it is
        base, index = name, ""
    below = ", ".join(part for part in (index, step) if part)
    return (Span(base), *([Span(below, True)] if below else []))


def plain(text: Text) -> str:
    """A text without its setting; a subscript follows an underscore.

    >>> plain(subscripted("h", "t"))
    'h_t'
    """
    if isinstance(text, str):
        return text
    return "".join(f"_{span.text}" if span.is_subscript else span.text for span in text)


def text_width(text: Text, size: float, is_bold: bool = False) -> float:
    """The width of a text in pixels: at most this, in common sans-serif fonts.

    >>> text_width("mm", 10) > text_width("ii", 10)
    True
    """
    if isinstance(text, str):
        return size * sum(map(_character_width, text)) * (1.1 if is_bold else 1.0)
    return sum(
        text_width(span.text, size * (_SUBSCRIPT if span.is_subscript else 1), is_bold)
        for span in text
    )


def _character_width(character: str) -> float:
    """In units of the font size, by the widest of the fonts, DejaVu Sans."""
    if character in "ijlIJrft ,.·:;'′|!()[]/\\-":
        return 0.42
    if character in "mMW%@…":
        return 1.0
    if character in "w#+<=>^~⊙→−↵×÷":
        return 0.85
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if unicodedata.combining(character):
        return 0.0
    return 0.8 if character.isupper() else 0.65


class Drawing:
    """Collects the parts of a diagram; `finish` makes it.

    Args:
        title: The title.
        description: What is drawn, in words.

    >>> drawing = Drawing("two letters", "The letters a and b.")
    >>> drawing.text("a b", 20, 20)
    >>> drawing.finish(40, 40).texts[0][0]
    'a b'
    """

    def __init__(self, title: str, description: str) -> None:
        self.title = title
        self.description = description
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.texts: list[tuple[str, Box]] = []
        self._lines: list[str] = []  # below
        self._shapes: list[str] = []  # above

    def node(
        self,
        name: str,
        kind: str,
        box: Box,
        label: Text = "",
        *,
        fill: str = PAPER,
        stroke: str = INK,
        radius: float = 6.0,
        size: float = 14.0,
        color: str = INK,
        is_bold: bool = False,
        is_dashed: bool = False,
    ) -> None:
        """Draw a rectangle with round corners (a circle, with a large radius) and its label."""
        x0, y0, x1, y1 = box
        radius = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
        dashes = ' stroke-dasharray="4 3"' if is_dashed else ""
        self._shapes.append(
            f'<rect x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}" '
            f'rx="{radius:g}" fill="{fill}" stroke="{stroke}" stroke-width="1.4"{dashes}/>'
        )
        self.nodes.append(Node(name, kind, plain(label), box))
        if label:
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            self.text(label, x, y, size=size, color=color, is_bold=is_bold)

    def label(
        self,
        name: str,
        kind: str,
        label: Text,
        x: float,
        y: float,
        *,
        size: float = 15.0,
        anchor: str = "middle",
        color: str = INK,
    ) -> Box:
        """Draw a text that is a node of its own, centered on `y`; return its box."""
        self.text(label, x, y, size=size, anchor=anchor, color=color, is_bold=True)
        box = self.texts[-1][1]
        self.nodes.append(Node(name, kind, plain(label), box))
        return box

    def text(
        self,
        text: Text,
        x: float,
        y: float,
        *,
        size: float = 14.0,
        anchor: str = "middle",
        color: str = INK,
        is_bold: bool = False,
    ) -> None:
        """Draw a text, vertically centered on `y`."""
        width = text_width(text, size, is_bold)
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * width
        self.texts.append((plain(text), (left, y - 0.6 * size, left + width, y + 0.6 * size)))
        weight = ' font-weight="bold"' if is_bold else ""
        self._shapes.append(
            f'<text x="{x:g}" y="{y + 0.35 * size:g}" font-size="{size:g}" '
            f'text-anchor="{anchor}" fill="{color}"{weight}>{_spans(text, size)}</text>'
        )

    def line(
        self,
        points: Sequence[Point],
        *,
        color: str = INK,
        width: float = 1.6,
        is_arrow: bool = True,
        is_dashed: bool = False,
        has_halo: bool = False,
    ) -> None:
        """Draw a line with round corners, and an arrowhead; a halo cuts what it crosses."""
        path = _rounded(points, 6.0)
        dashes = ' stroke-dasharray="5 4"' if is_dashed else ""
        if has_halo:
            self._lines.append(
                f'<path d="{path}" fill="none" stroke="{PAPER}" stroke-width="{width + 4:g}"/>'
            )
        self._lines.append(
            f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"{dashes}/>'
        )
        if is_arrow:
            self._shapes.append(f'<path d="{_arrowhead(points)}" fill="{color}"/>')

    def edge(
        self,
        source: str,
        target: str,
        points: Sequence[Point],
        *,
        color: str = INK,
        is_dashed: bool = False,
        has_halo: bool = False,
    ) -> None:
        """Draw an arrow between nodes."""
        self.line(points, color=color, is_dashed=is_dashed, has_halo=has_halo)
        self.edges.append(Edge(source, target, tuple(points)))

    def dot(self, x: float, y: float, color: str = INK, radius: float = 3.2) -> None:
        """Draw a dot, as where a line branches."""
        self._shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{color}"/>')

    def rectangle(
        self,
        box: Box,
        *,
        fill: str,
        stroke: str = "none",
        radius: float = 0.0,
        is_dashed: bool = False,
    ) -> None:
        """Draw a rectangle below everything that comes later."""
        x0, y0, x1, y1 = box
        dashes = ' stroke-dasharray="5 4"' if is_dashed else ""
        self._lines.append(
            f'<rect x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}" '
            f'rx="{radius:g}" fill="{fill}" stroke="{stroke}"{dashes}/>'
        )

    def finish(self, width: float, height: float) -> Diagram:
        """The diagram, of this size."""
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:g}" '
            f'height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
            f'style="max-width: 100%; height: auto" font-family="{_FONT}">',
            f"<title>{_escaped(self.title)}</title>",
            f"<desc>{_escaped(self.description)}</desc>",
            f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{PAPER}"/>',
            *self._lines,
            *self._shapes,
            "</svg>",
        ]
        return Diagram(
            "\n".join(lines) + "\n",
            self.title,
            self.description,
            tuple(self.nodes),
            tuple(self.edges),
            tuple(self.texts),
        )


def _escaped(text: str) -> str:
    """A text as XML, in which control characters are not allowed."""
    return html.escape(re.sub(r"[\x00-\x1f\x7f\ud800-\udfff￾￿]", "�", text))


def _spans(text: Text, size: float) -> str:
    if isinstance(text, str):
        return _escaped(text)
    parts, shift = [], 0.0  # dy, since Firefox knows no baseline-shift
    for span in text:
        down = 0.26 * size if span.is_subscript else 0.0
        options = f' dy="{down - shift:.4g}"' if down != shift else ""
        if span.is_subscript:
            options += f' font-size="{_SUBSCRIPT * size:.4g}"'
        parts.append(f"<tspan{options}>{_escaped(span.text)}</tspan>")
        shift = down
    return "".join(parts)


def _rounded(points: Sequence[Point], radius: float) -> str:
    """The path through points, its corners rounded."""
    commands = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, (x, y), after in zip(points, points[1:], points[2:], strict=False):
        room = min(_distance(before, (x, y)), _distance((x, y), after)) / 2
        start = _towards((x, y), before, min(radius, room))
        end = _towards((x, y), after, min(radius, room))
        commands.append(f"L{start[0]:g} {start[1]:g}Q{x:g} {y:g} {end[0]:g} {end[1]:g}")
    commands.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
    return "".join(commands)


def _arrowhead(points: Sequence[Point]) -> str:
    """A triangle whose tip is the last point."""
    tip = points[-1]
    x, y = _towards(tip, points[-2], 8.0)
    across_x, across_y = (tip[1] - y) * 0.45, (x - tip[0]) * 0.45
    return (
        f"M{tip[0]:.4g} {tip[1]:.4g}L{x + across_x:.4g} {y + across_y:.4g}"
        f"L{x - across_x:.4g} {y - across_y:.4g}Z"
    )


def _distance(a: Point, b: Point) -> float:
    return float(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5)


def _towards(a: Point, b: Point, length: float) -> Point:
    """The point at a distance from `a` on the way to `b`."""
    share = length / max(_distance(a, b), 1e-9)
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)
