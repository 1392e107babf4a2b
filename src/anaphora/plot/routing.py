"""Wires between boxes on a grid: short, with few bends and crossings, and never on each other."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Place: TypeAlias = tuple[int, int]
"""Column and row of a point of the grid, from the top left."""

RIGHT, DOWN, LEFT, UP = (1, 0), (0, 1), (-1, 0), (0, -1)
_DIRECTIONS = (RIGHT, DOWN, LEFT, UP)
_ANY = (0, 0)

_STEP, _BEND, _CROSSING, _BESIDE = 1.0, 2.5, 3.0, 0.6
_SECOND_PORT, _AT_PORT, _OVERLAP = 3.0, 12.0, 200.0


class Router:
    """Finds wires one after the other, each around those before (Lee 1961, by an A* search).

    All wires of one net carry the same value: they branch off each other. Wires of different nets
    may cross, but not lie on each other.

    Args:
        columns: The width of the grid.
        rows: Its height.

    >>> router = Router(8, 3)
    >>> router.block([(3, 1), (4, 1)])
    >>> router.connect("a", {(0, 1): RIGHT}, {(7, 1): RIGHT})  # around the block
    [(0, 1), (2, 1), (2, 2), (6, 2), (6, 1), (7, 1)]
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._blocked: set[Place] = set()
        self._ports: set[Place] = set()
        self._ends: set[Place] = set()
        self._wires: dict[Place, dict[str, set[bool]]] = {}  # nets there; whether horizontal
        self._paths: dict[str, dict[Place, list[Place]]] = {}  # from a net's source to each place

    def block(self, places: Iterable[Place]) -> None:
        """Keep wires from places."""
        self._blocked.update(places)

    def reserve(self, places: Iterable[Place]) -> None:
        """Make wires avoid places where others are to end."""
        self._ports.update(places)

    def is_free(self, place: Place, net: str) -> bool:
        """Whether no wire of another net is there."""
        return not any(other != net for other in self._wires.get(place, ()))

    def branches(self) -> list[tuple[str, Place]]:
        """The nets, and where their wires branch off."""
        found = []
        for net, paths in self._paths.items():
            ways: dict[Place, set[Place]] = {}
            for path in paths.values():
                for a, b in zip(path[-2:], path[-1:], strict=False):
                    ways.setdefault(a, set()).add(b)
                    ways.setdefault(b, set()).add(a)
            found += [(net, place) for place, to in ways.items() if len(to) > 2]
        return found

    def is_end(self, place: Place) -> bool:
        """Whether a wire begins or ends there."""
        return place in self._ends

    def lay(self, net: str, corners: Sequence[Place]) -> list[Place]:
        """Lay a wire through given corners, without a search; return the corners."""
        path = [corners[0]]
        for corner in corners[1:]:
            while path[-1] != corner:
                (x, y), (to_x, to_y) = path[-1], corner
                path.append((x + _sign(to_x - x), y + _sign(to_y - y)))
        known = self._paths.get(net, {}).get(corners[0])
        return self._keep(net, (known or [corners[0]])[:-1] + path)

    def connect(
        self, net: str, sources: Mapping[Place, Place], targets: Mapping[Place, Place]
    ) -> list[Place]:
        """Lay a wire from a source, or from any wire of the net, to a target.

        Args:
            net: The name of the net.
            sources: Where it may begin, with the direction in which it leaves.
            targets: Where it may end, with the direction in which it arrives.

        Returns:
            The corners of the path from the source to the target, along wires that were there.

        Raises:
            ValueError: boxes leave no way.
        """
        paths = self._paths.get(net, {})
        best: dict[tuple[Place, Place], float] = {}
        before: dict[tuple[Place, Place], tuple[Place, Place] | None] = {}
        queue: list[tuple[float, int, float, Place, Place]] = []

        def reach(
            place: Place, direction: Place, cost: float, origin: tuple[Place, Place] | None
        ) -> None:
            key = (place, direction)
            if cost < best.get(key, float("inf")):
                best[key], before[key] = cost, origin
                rest = min(abs(x - place[0]) + abs(y - place[1]) for x, y in targets) * _STEP
                heapq.heappush(queue, (cost + rest, len(best), cost, place, direction))

        for place in paths:
            if self.is_free(place, net) and place not in self._ports:
                reach(place, _ANY, 0.0, None)
        for place, direction in sources.items():
            taken = 0.0 if self.is_free(place, net) else _OVERLAP
            reach(place, direction, taken + (_SECOND_PORT if paths else 0.0), None)
        while queue:
            _, _, cost, place, direction = heapq.heappop(queue)
            key = (place, direction)
            if cost > best[key]:
                continue
            if direction == targets.get(place):
                return self._keep(net, self._traced(net, key, before))
            if place in targets and self.is_free(place, net):  # turn at the end
                reach(place, targets[place], cost + _BEND + _STEP, key)
            for step in _DIRECTIONS:
                if step == (-direction[0], -direction[1]) and direction != _ANY:
                    continue
                onto = (place[0] + step[0], place[1] + step[1])
                if onto in self._blocked or not self._is_inside(onto):
                    continue
                turn = _BEND if direction not in (_ANY, step) else 0.0
                if turn and not self.is_free(place, net):
                    turn = _OVERLAP  # a bend on another's wire looks like a branch
                reach(onto, step, cost + turn + self._cost(net, onto, step, targets), key)
        raise ValueError(f"no way for a wire of {net!r}")

    def _cost(self, net: str, place: Place, step: Place, targets: Mapping[Place, Place]) -> float:
        is_horizontal = step[0] != 0
        cost = _STEP
        if place in self._ports and place not in targets:
            cost += _AT_PORT
        for other, axes in self._wires.get(place, {}).items():
            if other != net:
                cost += _CROSSING if axes == {not is_horizontal} else _OVERLAP
        for side in ((0, 1), (0, -1)) if is_horizontal else ((1, 0), (-1, 0)):
            beside = self._wires.get((place[0] + side[0], place[1] + side[1]), {})
            if any(other != net and is_horizontal in axes for other, axes in beside.items()):
                cost += _BESIDE
        return cost

    def _is_inside(self, place: Place) -> bool:
        return 0 <= place[0] < self.columns and 0 <= place[1] < self.rows

    def _traced(
        self,
        net: str,
        key: tuple[Place, Place],
        before: Mapping[tuple[Place, Place], tuple[Place, Place] | None],
    ) -> list[Place]:
        """The full path to the end of a search."""
        path = [key[0]]
        origin = before[key]
        while origin is not None:
            if origin[0] != path[-1]:
                path.append(origin[0])
            origin = before[origin]
        path.reverse()
        known = self._paths.get(net, {}).get(path[0])
        if known is None:
            return path
        return known[:-1] + path

    def _keep(self, net: str, path: list[Place]) -> list[Place]:
        """Note what a path occupies; return its corners."""
        paths = self._paths.setdefault(net, {})
        self._ends.update((path[0], path[-1]))
        for n, place in enumerate(path):
            paths.setdefault(place, path[: n + 1])
        for a, b in itertools.pairwise(path):
            for place in (a, b):
                axes = self._wires.setdefault(place, {}).setdefault(net, set())
                axes.add(a[1] == b[1])
        return corners(path)


def corners(path: Sequence[Place]) -> list[Place]:
    """The ends of a path and where it bends.

    >>> corners([(0, 0), (1, 0), (2, 0), (2, 1)])
    [(0, 0), (2, 0), (2, 1)]
    """
    kept = [path[0]]
    for before, place, after in zip(path, path[1:], path[2:], strict=False):
        if (place[0] - before[0], place[1] - before[1]) != (
            after[0] - place[0],
            after[1] - place[1],
        ):
            kept.append(place)
    return [*kept, path[-1]]


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
