"""Where the parts of a cell stand: gates in a row at the bottom, states in tracks at the top."""

from __future__ import annotations

from collections.abc import Mapping

from anaphora.plot.cell_graph import CellGraph, Part


class CellLayout:
    """Columns and rows of the parts of a cell.

    Gates stand in row 0, in the order in which they are used. A state that passes through
    operations on its way to the next step has a track: a row above all others, with these
    operations. What else is computed stands between, each operation above what it reads.

    Attributes:
        graph: The parts.
        tracks: The operations on the track of each state that has one, in their order.
        places: The column and row of each part; rows are counted from the bottom.
        track_rows: The row of each state's track.

    >>> from anaphora.cells import lstm
    >>> layout = CellLayout(CellGraph(lstm))
    >>> layout.tracks, layout.track_rows  # f * c and + i * g
    ({'c': [10, 12]}, {'c': 3})
    >>> [layout.places[gate] for gate in (7, 6, 8, 9)]  # f i g o
    [(0, 0), (1, 0), (2, 0), (3, 0)]
    """

    def __init__(self, graph: CellGraph) -> None:
        self.graph = graph
        self.tracks = self._find_tracks()
        self.places: dict[int, tuple[int, int]] = {}
        self._track_of = {n: s for s, track in self.tracks.items() for n in track}
        self._taken: set[tuple[int, int]] = set()  # between the rows of gates and tracks
        self._columns = 0
        self._track_columns: dict[int, int] = {}
        for number in sorted(set(graph.outputs.values())):
            self._visit(number)
        top = max((row for _, row in self.places.values()), default=0)
        states = [state for state in graph.cell.states if state in self.tracks]
        self.track_rows = {state: top + 1 + n for n, state in enumerate(states)}
        for number, column in self._track_columns.items():
            self.places[number] = (column, self.track_rows[self._track_of[number]])

    @property
    def parts(self) -> Mapping[int, Part]:
        """The parts of the graph."""
        return self.graph.parts

    def _find_tracks(self) -> dict[str, list[int]]:
        """The shortest way of each state through operations to its next value."""
        readers: dict[int, list[int]] = {}
        for number, part in self.graph.parts.items():
            for operand in part.operands:
                readers.setdefault(operand, []).append(number)
        tracks: dict[str, list[int]] = {}
        taken: set[int] = set()
        for number, state in reversed(self.graph.states.items()):
            end = self.graph.outputs[state]
            ways = [[number]]
            seen = {number} | taken
            while ways and ways[0][-1] != end:
                way = ways.pop(0)
                onward = [n for n in readers.get(way[-1], []) if n not in seen]
                seen.update(onward)
                ways += [[*way, n] for n in onward]
            if ways:
                tracks[state] = ways[0][1:]
                taken.update(tracks[state])
        return tracks

    def _is_placed(self, number: int) -> bool:
        return number in self.places or number in self._track_columns

    def _visit(self, number: int) -> None:
        """Place a part after what it reads."""
        if number not in self.parts or self._is_placed(number):
            return
        part = self.parts[number]
        hanging = [n for n in part.operands if self._hangs(n) and self._is_end(number)]
        # What is on the track comes first, so that time runs to the right.
        for operand in sorted(part.operands, key=lambda n: n not in self._track_of):
            if operand not in hanging:
                self._visit(operand)
        if part.kind == "gate":
            self.places[number] = (self._columns, 0)
            self._columns += 1
        elif number in self._track_of:
            self._place_on_track(number)
        else:
            self._place(number)
        for operand in hanging:
            self._hang(operand, number)

    def _is_end(self, number: int) -> bool:
        """Whether a part is the new value of a state without a track."""
        return number in self.graph.outputs.values() and number not in self._track_of

    def _hangs(self, number: int) -> bool:
        """Whether a part reads nothing but tracks, such as tanh(c), so it may stand below them."""
        part = self.parts.get(number)
        if part is None or number in self._track_of or not part.operands:
            return False
        return all(n in self._track_of or self._hangs(n) for n in part.operands)

    def _column_of(self, number: int) -> int:
        if number in self._track_columns:
            return self._track_columns[number]
        return self.places[number][0] if number in self.places else -1

    def _place(self, number: int) -> None:
        """Place a part above what it reads."""
        operands = self.parts[number].operands
        below = [self.places[n] for n in operands if n in self.places]
        row = 1 + max((row for _, row in below), default=0)
        column = max((column for column, _ in below), default=max(self._columns - 1, 0))
        self._take(number, column, row)

    def _take(self, number: int, column: int, row: int) -> None:
        if (column, row) in self._taken:
            column = self._columns
        self._columns = max(self._columns, column + 1)
        self._taken.add((column, row))
        self.places[number] = (column, row)

    def _place_on_track(self, number: int) -> None:
        track = self.tracks[self._track_of[number]]
        before = max((self._track_columns.get(n, -1) for n in track), default=-1)
        operands = [n for n in self.parts[number].operands if self._is_placed(n)]
        column = max(before + 1, *map(self._column_of, operands), 0)
        self._track_columns[number] = column
        self._columns = max(self._columns, column + 1)
        for operand in operands:  # keep the straight way up
            place = self.places.get(operand)
            if place is not None and place[0] == column:
                self._taken.update((column, row) for row in range(place[1] + 1, 100))

    def _hang(self, number: int, below: int) -> None:
        """Place a part over the one that reads it, and what it reads over itself."""
        for operand in self.parts[number].operands:
            self._visit(operand) if operand in self._track_of else None
        if self._is_placed(number):
            return
        column, row = self.places[below]
        self._take(number, column, row + 1)
        for operand in self.parts[number].operands:
            if operand not in self._track_of:
                self._hang(operand, number)
