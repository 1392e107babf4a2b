"""Units that switch within a span of a text, and where else they do (Strobelt et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from anaphora.tensor import Array

_SHARE = 0.75  # of the units that must be on in another place


class Switch(NamedTuple):
    """A unit that switches.

    Attributes:
        value: The state or gate.
        unit: The number of its unit.
        contrast: The part of its range by which the span is above (positive) or below (negative)
            its neighbors.
        threshold: The value halfway between the span and its neighbors.
    """

    value: str
    unit: int
    contrast: float
    threshold: float


def switches(recorded: Mapping[str, Array], start: int, end: int, count: int = 10) -> list[Switch]:
    """The units that switch on or off at both ends of a span, the most decided first.

    For a unit with the values v_t, the span start <= t < end, and s = 1 or -1:

        contrast = s (min_t s v_t - max(s v_{start-1}, s v_end)) / (max v - min v)

    Args:
        recorded: Values by name, each [T, H].
        start: The first position of the span.
        end: The position after it; the span is not the whole text.
        count: The number of units.

    >>> v = np.array([[0, 5], [1, 5], [1, 6], [0, 6.0]])
    >>> switches({"c_l0": v}, 1, 3)
    [Switch(value='c_l0', unit=0, contrast=1.0, threshold=0.5)]
    """
    found = []
    for name, values in recorded.items():
        around = [t for t in (start - 1, end) if 0 <= t < len(values)]
        spread = np.maximum(np.ptp(values, axis=0), np.finfo(values.dtype).tiny)
        for sign in (1, -1):
            inside = (sign * values[start:end]).min(axis=0)
            outside = (sign * values[around]).max(axis=0)
            contrasts = (inside - outside) / spread
            for unit in np.flatnonzero(contrasts > 0):
                threshold = sign * (inside[unit] + outside[unit]) / 2
                contrast = sign * float(contrasts[unit])
                found.append(Switch(name, int(unit), contrast, float(threshold)))
    return sorted(found, key=lambda one: -abs(one.contrast))[:count]


class Place(NamedTuple):
    """A part of a text in which units are on together.

    Attributes:
        start: Its first position.
        end: The position after it.
        share: The mean share of the units that are on.
    """

    start: int
    end: int
    share: float


def places(
    recorded: Mapping[str, Array], units: list[Switch], start: int, end: int, count: int = 20
) -> list[Place]:
    """Other parts in which at least three quarters of the units are on, the most alike first.

    Args:
        recorded: As for `switches`.
        units: What it returned.
        start: The first position of the span, which is not among the places.
        end: The position after it.
        count: The number of places.

    >>> v = np.array([[0], [1], [1], [0], [0], [1], [0.0]])
    >>> places({"c_l0": v}, switches({"c_l0": v}, 1, 3), 1, 3)
    [Place(start=5, end=6, share=1.0)]
    """
    if not units:
        return []
    on = [(recorded[one.value][:, one.unit] > one.threshold) == (one.contrast > 0) for one in units]
    shares = np.mean(on, axis=0)
    shares[start:end] = 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shares >= _SHARE, [0]])))
    found = [
        Place(int(a), int(b), float(shares[a:b].mean()))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]
    length = end - start
    return sorted(found, key=lambda one: (-one.share, abs(one.end - one.start - length)))[:count]
