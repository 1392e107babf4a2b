"""A cell as a diagram, drawn from its traced program."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence

from anaphora.cells import CELLS, Cell
from anaphora.nn import Recurrent
from anaphora.plot.cell_graph import SYMBOLS, CellGraph, Part
from anaphora.plot.cell_layout import CellLayout
from anaphora.plot.diagram import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    Box,
    Diagram,
    Drawing,
    Point,
    Span,
    Text,
    plain,
    subscripted,
    text_width,
)
from anaphora.plot.routing import DOWN, LEFT, RIGHT, UP, Place, Router

_GRID = 10  # pixels between the places of wires
_ROW, _GAP = 6, 4  # from row to row, and between columns, in places
_TOP, _BUS = 5, 5  # above the frame; from the gates down to the wires of their inputs
_STATE_COLORS = (BLUE, ORANGE, PURPLE, "#8a5a00", "#5a3d99")
_FILLS = {"sigmoid": "#fdeacc", "tanh": "#dcebf7", "": "#eef1f4"}
_OTHER_FILL = "#d9f0e6"


def cell(
    cell: Cell | Recurrent | str,
    path: str | os.PathLike[str] | None = None,
    *,
    equations: bool = True,
    title: str | None = None,
) -> Diagram:
    """Draw a cell: its gates, states and products, as traced from its equations.

    States run from left (step t-1) to right (step t), the input x comes from below. A box is a
    gate, ``W x + U h + b`` with weights of its own, and its function (σ is the sigmoid); where it
    reads one of the two only, or has no function, it says which product it is. Circles combine two
    values unit by unit, pills change one, by a function or by a constant or parameter. The
    equations have the author's names; in them ``⊙`` multiplies unit by unit.

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
    ['i', 'f', 'g', 'o']
    """
    found = _cell(cell)
    graph = CellGraph(found)
    lines = graph.equations()
    drawing = Drawing(
        title or f"The cell {found.name}",
        f"A recurrent cell with the gates {', '.join(found.gates)} and the states "
        f"{', '.join(found.states)}: {'; '.join(map(plain, lines))}.",
    )
    picture = _Picture(drawing, CellLayout(graph))
    picture.draw()
    diagram = picture.finish(lines if equations else [])
    if path is not None:
        diagram.save(path)
    return diagram


class _Picture:
    """Draws a cell: boxes where the layout says, wires where the router finds a way."""

    def __init__(self, drawing: Drawing, layout: CellLayout) -> None:
        self.drawing, self.layout, self.graph = drawing, layout, layout.graph
        states = self.graph.cell.states
        self.colors = {
            state: _STATE_COLORS[n % len(_STATE_COLORS)] for n, state in enumerate(states)
        }
        self.first = states[0]  # the output, which gates read
        self.x_column: int | None = None
        self.names = self._names()
        labels = [subscripted(state, step) for state in states for step in ("t−1", "t")]
        margin = math.ceil((max(text_width(label, 16, True) for label in labels) + 20) / _GRID)
        self.halves = {n: self._half_width(n) for n in layout.parts}
        self.frame_left = margin
        self.lane = margin + 2  # of a state on its way down to the gates
        self.join = self.lane + 2 if self._is_joined() else self.lane
        self.middles = self._columns(self.join + 2)
        self.rows = max((row for _, row in layout.places.values()), default=0)
        self.rows = max(self.rows, *layout.track_rows.values(), len(states) - 1)
        self.gates_y = _TOP + 4 + self.rows * _ROW
        self.bus_y = self.gates_y + _BUS
        self.frame_bottom = self.bus_y + (2 if self._is_joined() else 4)
        self.columns = self.frame_right + margin
        self.router = Router(self.columns + 1, self.frame_bottom + 5)
        # The wires of x and h, up to where one carries both.
        self.joined: list[tuple[list[Place], str]] = []
        self.wires: list[tuple[str, str, list[Place], str]] = []

    # Sizes and places

    def _names(self) -> dict[int, str]:
        """A unique name of each part: gates have the author's."""
        names: dict[int, str] = {}
        for number, part in self.layout.parts.items():
            name = part.name if part.kind == "gate" else ""
            if not name or name in names.values():
                name = f"{part.name}_{part.function}" if part.name else part.function
                base, count = name or "weights", 1
                while name in names.values() or not name:
                    count += 1
                    name = f"{base}_{count}"
            names[number] = name
        return names

    def _is_joined(self) -> bool:
        """Whether every gate reads both x and h, so that one wire carries both."""
        return all(self.layout.parts[number].reads == "xh" for number in self._gates())

    def _gates(self) -> list[int]:
        """The numbers of the gates, from left to right."""
        gates = [n for n, part in self.layout.parts.items() if part.kind == "gate"]
        return sorted(gates, key=lambda number: self.layout.places[number])

    def _label(self, number: int) -> tuple[Text, Text]:
        """The lines of a box; one, unless it is a gate."""
        part = self.layout.parts[number]
        name = subscripted(part.name.partition(".")[0])
        if part.kind == "gate":
            product = {"x": "W x", "h": "U h", "xh": "W x + U h"}[part.reads]
            return name, part.label or product
        if part.kind == "function" and part.name and number not in self.graph.outputs.values():
            symbol = [Span(part.label)] if isinstance(part.label, str) else part.label
            return (*name, Span(" = "), *symbol), ""
        return part.label, ""

    def _has_name_beside(self, number: int) -> bool:
        """Whether an operation has a name of the author's, which does not fit into its circle."""
        part, outputs = self.layout.parts[number], self.graph.outputs.values()
        return part.kind == "operation" and bool(part.name) and number not in outputs

    def _extent(self, number: int) -> int:
        """Half of the width that a part needs in its column."""
        half = self.halves[number]
        if self._has_name_beside(number):
            name = subscripted(self.layout.parts[number].name)
            half += math.ceil(text_width(name, 13, True) / _GRID)
        return half

    def _half_width(self, number: int) -> int:
        """Half of the width of a box, in places."""
        part = self.layout.parts[number]
        if part.kind == "operation" and len(part.label) == 1:
            return 1
        first, second = self._label(number)
        is_gate = part.kind == "gate"
        width = max(text_width(first, 15, is_gate), text_width(second, 13))
        least = 3 if is_gate else 2
        if not part.label and part.reads == "xh":
            least = 6  # a wire from its side passes what stands above it, as a peephole does
        return max(least, math.ceil((width / 2 + 5) / _GRID))

    def _columns(self, left: int) -> list[int]:
        """The middle of each column; sets the right edge of the frame."""
        count = 1 + max(column for column, _ in self.layout.places.values())
        middles = []
        for column in range(count):
            half = max(
                (self._extent(n) for n, (c, _) in self.layout.places.items() if c == column),
                default=1,
            )
            middles.append(left + half)
            left += 2 * half + _GAP
        self.frame_right = left
        return middles

    def _middle(self, number: int) -> Place:
        column, row = self.layout.places[number]
        return self.middles[column], self.gates_y - row * _ROW

    def _half_height(self, number: int) -> int:
        return 2 if self.layout.parts[number].kind == "gate" else 1

    def _ports(self, number: int) -> dict[Place, Place]:
        """Where wires leave a part, and in which direction."""
        (x, y), half, height = self._middle(number), self.halves[number], self._half_height(number)
        ports = {(x, y - height - 1): UP, (x + half + 1, y): RIGHT, (x - half - 1, y): LEFT}
        if self.layout.parts[number].kind != "gate":
            return {**ports, (x, y + height + 1): DOWN}
        sides = (half - 1, 1 - half)
        return {**ports, **{(x + side, y - height - 1): UP for side in sides}}

    def _box(self, number: int) -> Box:
        (x, y), half, height = self._middle(number), self.halves[number], self._half_height(number)
        across = half * _GRID - 2 if half > 1 else 13
        up = height * _GRID + (2 if height > 1 else 3)
        return (x * _GRID - across, y * _GRID - up, x * _GRID + across, y * _GRID + up)

    # Drawing

    def draw(self) -> None:
        """Lay all wires, then draw them and the boxes."""
        for number in self.layout.parts:
            (x, y), half, height = (
                self._middle(number),
                self.halves[number],
                self._half_height(number),
            )
            self.router.block(
                (x + dx, y + dy)
                for dx in range(-half, half + 1)
                for dy in range(-height, height + 1)
            )
            self.router.reserve(self._ports(number))
            if self._has_name_beside(number):
                left = self._extent(number)
                self.router.block((x - dx, y - dy) for dx in range(2, left + 1) for dy in (1, 2))
        self._lay_inputs()
        self._lay_wires()
        self._draw_frame()
        for source, target, path, color in self.wires:
            points = self._to_edges(source, target, path)
            self.drawing.edge(source, target, points, color=color, has_halo=True)
        for path, color in self.joined:
            points = [(float(x * _GRID), float(y * _GRID)) for x, y in path]
            self.drawing.line(points, color=color, is_arrow=False)
        if self.joined:
            self.drawing.dot(self.join * _GRID, self.bus_y * _GRID)
        for net, (x, y) in self.router.branches():
            self.drawing.dot(x * _GRID, y * _GRID, self._color(net))
        for number, part in self.layout.parts.items():
            self._draw_part(number, part)

    def _color(self, net: str) -> str:
        if net in ("x", "both"):
            return GREEN if net == "x" else INK
        number = int(net)
        for state, output in self.graph.outputs.items():
            if output == number or number in self.layout.tracks.get(state, ()):
                return self.colors[state]
        state = self.graph.states.get(number, "")
        return self.colors.get(state, INK)

    def _entries(self) -> dict[str, int]:
        """The row of places where each previous state comes in that something reads."""
        parts, entries = self.layout.parts, self._track_rows()
        for number, state in self.graph.states.items():
            readers = [n for n, part in parts.items() if number in part.operands]
            if state in entries:
                continue
            if state == self.first and any("h" in part.reads for part in parts.values()):
                entries[state] = self.bus_y
            elif readers:
                entries[state] = self._free_row(self._middle(readers[0])[1], entries)
        return entries

    def _exits(self) -> dict[str, int]:
        """The row of places where each new state goes out."""
        exits = self._track_rows()
        for state, number in self.graph.outputs.items():
            if state not in exits:
                y = self._middle(number)[1] if number in self.layout.parts else self.gates_y
                exits[state] = self._free_row(y, exits)
        return exits

    def _track_rows(self) -> dict[str, int]:
        return {state: self.gates_y - row * _ROW for state, row in self.layout.track_rows.items()}

    def _free_row(self, near: int, taken: Mapping[str, int]) -> int:
        """The row of places that is nearest to another and has no state yet."""
        rows = {self.gates_y - row * _ROW for row in range(self.rows + 1)} - {*taken.values()}
        return min(rows, key=lambda row: (abs(row - near), row))

    def _lay_inputs(self) -> None:
        """The wires of states from the left, and of x and h to the gates."""
        entries = self._entries()
        for number, state in self.graph.states.items():
            if state in entries:
                y = entries[state]
                x, label = self.frame_left * _GRID - 12, subscripted(state, "t−1")
                name, color = f"{state}_before", self.colors[state]
                self.drawing.label(
                    name, "state", label, x, y * _GRID, size=16, anchor="end", color=color
                )
                self.router.lay(str(number), [(self.frame_left - 1, y), (self.lane, y)])
        h = next(number for number, name in self.graph.states.items() if name == self.first)
        lay = self._lay_joined if self._is_joined() else self._lay_apart
        lay(str(h), f"{self.first}_before", (self.lane, entries.get(self.first, self.bus_y)))

    def _lay_joined(self, h: str, source: str, start: Place) -> None:
        """One wire to all gates, which carries x and h."""
        bus, below = self.bus_y, self.frame_bottom + 2
        into = self.router.lay(h, [start, (self.lane, bus), (self.join, bus)])
        up = self.router.lay("x", [(self.join, below), (self.join, bus)])
        self._label_x(self.join)
        for number in self._gates():
            x, y = self._middle(number)
            path = self.router.lay("both", [(self.join, bus), (x, bus), (x, y + 3)])
            for end, before in (("x", up), (source, into)):
                self.wires.append((end, self.names[number], before[:-1] + path, INK))
        self.joined = [(up, GREEN), (into, self.colors[self.first])]

    def _lay_apart(self, h: str, source: str, start: Place) -> None:
        """A wire for x and one for h, each to the gates that read it."""
        below, bus = self.frame_bottom + 2, {"h": self.bus_y, "x": self.bus_y + 2}
        for number in self._gates():
            x, y = self._middle(number)
            for letter in self.layout.parts[number].reads:
                side = len(self.layout.parts[number].reads) - 1  # 1 if it reads both
                port = (x + side * (1 if letter == "x" else -1), y + 3)
                net, end, begin = h, source, start
                if letter == "x":
                    if self.x_column is None:
                        self.x_column = port[0]
                        self._label_x(port[0])
                    net, end, begin = "x", "x", (self.x_column, below)
                corners = [begin, (begin[0], bus[letter]), (port[0], bus[letter]), port]
                path = self.router.lay(net, corners)
                self.wires.append((end, self.names[number], path, self._color(net)))

    def _label_x(self, x: int) -> None:
        y = (self.frame_bottom + 3) * _GRID + 4
        self.drawing.label("x", "input", subscripted("x", "t"), x * _GRID, y, size=16, color=GREEN)

    def _lay_wires(self) -> None:
        """The wires between parts, and to the new states: tracks first, then short before long."""
        parts, states = self.layout.parts, self.graph.states
        jobs = [(o, n, k) for n, part in parts.items() for k, o in enumerate(part.operands)]
        jobs.sort(key=lambda job: (self._length(*job[:2]), job))
        for state, track in self.layout.tracks.items():
            start = next(number for number, name in states.items() if name == state)
            for operand, number in itertools.pairwise([start, *track]):
                job = (operand, number, parts[number].operands.index(operand))
                jobs.remove(job)
                self._connect(*job)
        self._lay_outputs()
        for job in jobs:
            self._connect(*job)

    def _length(self, source: int, target: int) -> int:
        x, y = self._middle(target)
        from_x, from_y = self._middle(source) if source in self.layout.parts else (self.lane, 0)
        return abs(y - from_y) if x == from_x else 1000 + abs(x - from_x) + abs(y - from_y)

    def _sources(self, number: int) -> dict[Place, Place]:
        """Where a wire may begin: not where others end."""
        if number not in self.layout.parts:
            return {}
        ports = self._ports(number)
        return {place: ports[place] for place in ports if not self.router.is_end(place)}

    def _connect(self, source: int, target: int, position: int) -> None:
        net = str(source)
        ends = {
            place: (-direction[0], -direction[1])
            for place, direction in self._ports(target).items()
            if not self.router.is_end(place)
        }
        path = self.router.connect(net, self._sources(source), ends)
        self._mark(target, position, path[-1], ends[path[-1]])
        self.wires.append((self._source_name(source), self.names[target], path, self._color(net)))

    def _mark(self, target: int, position: int, port: Place, direction: Place) -> None:
        """Say which operand is subtracted or divides."""
        part = self.layout.parts[target]
        if part.function not in ("subtract", "divide") or len(part.operands) < 2:
            return
        sign = "−" if part.function == "subtract" else "÷"
        if position == 0:
            sign = "+" if part.function == "subtract" else ""
        x, y = port[0] * _GRID, port[1] * _GRID
        dx, dy = (0, -9) if direction[1] == 0 else (9, -3 * direction[1])
        if sign:
            self.drawing.text(sign, x + dx, y + dy, size=13, color=FAINT, is_bold=True)

    def _source_name(self, number: int) -> str:
        if number in self.graph.states:
            return f"{self.graph.states[number]}_before"
        return self.names[number]

    def _lay_outputs(self) -> None:
        """The wires to the new states at the right, and of the first also at the top."""
        exits = self._exits()
        top = (self.frame_right - 2, _TOP - 2)
        ends = {(x, y) for y in exits.values() for x in (self.frame_right, self.frame_right + 1)}
        ends |= {(top[0], y) for y in range(top[1], _TOP + 1)}
        self.router.block(place for place in self._margin() if place not in ends)
        for n, (state, number) in enumerate(self.graph.outputs.items()):
            y = exits[state]
            end = (self.frame_right + 1, y)
            path = self.router.connect(str(number), self._sources(number), {end: RIGHT})
            color, label = self.colors[state], subscripted(state, "t")
            self.drawing.label(
                f"{state}_after",
                "state",
                label,
                end[0] * _GRID + 6,
                y * _GRID,
                size=16,
                anchor="start",
                color=color,
            )
            self.wires.append((self._source_name(number), f"{state}_after", path, color))
            if n == 0:
                end = top
                path = self.router.connect(str(number), {}, {end: UP})
                self.drawing.label(
                    f"{state}_above",
                    "output",
                    label,
                    end[0] * _GRID,
                    end[1] * _GRID - 14,
                    size=16,
                    color=color,
                )
                self.wires.append((self._source_name(number), f"{state}_above", path, color))

    def _margin(self) -> Iterator[Place]:
        """The places on the frame and around it."""
        for x, y in itertools.product(range(self.columns + 1), range(self.frame_bottom + 5)):
            if not (self.frame_left < x < self.frame_right and _TOP < y < self.frame_bottom):
                yield x, y

    def _to_edges(self, source: str, target: str, path: list[Place]) -> list[Point]:
        """A path in pixels, its ends moved to the edges of the boxes."""
        points = [(float(x * _GRID), float(y * _GRID)) for x, y in path]
        numbers = {name: number for number, name in self.names.items()}
        if source in numbers:
            points.insert(0, _onto(self._box(numbers[source]), points[0]))
        if target in numbers:
            points.append(_onto(self._box(numbers[target]), points[-1]))
        return straightened(points)

    def _draw_frame(self) -> None:
        box = (
            self.frame_left * _GRID,
            _TOP * _GRID,
            self.frame_right * _GRID,
            self.frame_bottom * _GRID,
        )
        self.drawing.rectangle(box, fill="#fafbfc", stroke="#c3cad1", radius=14)

    def _draw_part(self, number: int, part: Part) -> None:
        box, drawing = self._box(number), self.drawing
        first, second = self._label(number)
        name = self.names[number]
        if part.kind == "gate":
            fill = _FILLS.get(part.function, _OTHER_FILL)
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            drawing.node(name, "gate", box, fill=fill)
            drawing.nodes[-1] = drawing.nodes[-1]._replace(
                label=f"{plain(first)} = {plain(second)}"
            )
            drawing.text(first, x, y - 9, size=15, is_bold=True)
            drawing.text(second, x, y + 9, size=13)
            return
        is_plain = part.function in (*SYMBOLS, "negative", "")
        fill = "#ffffff" if is_plain else _FILLS.get(part.function, _OTHER_FILL)
        size = 17 if len(part.label) == 1 and part.kind == "operation" else 13
        drawing.node(name, part.kind, box, first, fill=fill, radius=13, size=size)
        if self._has_name_beside(number):
            x, y = box[0], box[1] - 4
            drawing.text(subscripted(part.name), x, y, size=13, anchor="end", is_bold=True)

    def finish(self, lines: Sequence[Sequence[Span]]) -> Diagram:
        """The diagram, with equations below."""
        y = (self.frame_bottom + 6) * _GRID
        width = float((self.columns + 1) * _GRID)
        lengths = [text_width(line, 14) for line in lines]
        columns = 2 if len(lines) > 3 and 2 * max(lengths) + 70 <= width else 1
        per_column = -(-len(lines) // columns)
        for n, line in enumerate(lines):
            x = 24 + (n // per_column) * (max(lengths) + 30)
            self.drawing.text(line, x, y + 12 + 24 * (n % per_column), size=14, anchor="start")
        width = max(width, 48 + max(lengths, default=0.0))
        return self.drawing.finish(width, y + 24 * per_column + 12 if lines else y)


def straightened(points: Sequence[Point]) -> list[Point]:
    """The same line, without points between others on a straight line.

    >>> straightened([(0, 0), (1, 0), (2, 0), (2, 1)])
    [(0, 0), (2, 0), (2, 1)]
    """
    kept = [points[0]]
    for point, after in itertools.pairwise(points):
        before = kept[-1]
        across = (point[0] - before[0]) * (after[1] - point[1])
        if across != (point[1] - before[1]) * (after[0] - point[0]):
            kept.append(point)
    return [*kept, points[-1]]


def _onto(box: Box, point: Point) -> Point:
    """The nearest point of the edge of a box."""
    x0, y0, x1, y1 = box
    return min(max(point[0], x0), x1), min(max(point[1], y0), y1)


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
