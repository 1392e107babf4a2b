"""Labels of points that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from anaphora.tensor import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""

_DISTANCES = (
    4.0,
    8.0,
    14.0,
    22.0,
    32.0,
    44.0,
    58.0,
    74.0,
    92.0,
    115.0,
    140.0,
)  # from the point, in pixels
_LED = 14.0  # from this distance on, a line leads from the label to its point
_DOT = 2.5  # half of the size of a point


def free_places(points: Array, sizes: Array, bounds: Box) -> list[Box | None]:
    """Boxes for labels beside their points, which overlap neither each other nor a point.

    Each takes the nearest free place, in order; None where there is none.

    Args:
        points: [N, 2].
        sizes: [N, 2], the width and height of each label.
        bounds: What all labels stay in.

    >>> at = np.array([[10.0, 10.0], [11.0, 10.0]])
    >>> first, second = free_places(at, np.array([[20.0, 8.0]] * 2), (0, 0, 100, 50))
    >>> first
    (14.0, 6.0, 34.0, 14.0)
    >>> second[1] >= first[3] or second[3] <= first[1] or second[0] >= first[2]
    True
    """
    dots = np.concatenate([points - _DOT, points + _DOT], axis=1)
    taken = dots
    found: list[Box | None] = []
    for point, size in zip(points, sizes, strict=True):
        place = None
        for box in _candidates(point, size):
            inside = (
                box[0] >= bounds[0] and box[1] >= bounds[1]
                and box[2] <= bounds[2] and box[3] <= bounds[3]
            )  # fmt: skip
            if inside and not _overlaps(box, taken).any():
                place = box
                taken = np.concatenate([taken, [box]])
                break
        found.append(place)
    return found


def _candidates(point: Array, size: Array) -> Iterator[Box]:
    """Places around a point, the nearest first; to the right first."""
    width, height = size
    for distance in _DISTANCES:
        for step in range(16):
            angle = 2 * math.pi * ((step + 1) // 2 * (1 if step % 2 else -1)) / 16
            across, up = math.cos(angle), math.sin(angle)
            # The label touches a circle around the point from outside.
            x = point[0] + across * (distance + width / 2) - width / 2
            y = point[1] + up * (distance + height / 2) - height / 2
            yield float(x), float(y), float(x + width), float(y + height)


def _overlaps(box: Box, others: Array) -> Array:
    result: Array = (
        (box[0] < others[:, 2]) & (others[:, 0] < box[2])
        & (box[1] < others[:, 3]) & (others[:, 1] < box[3])
    )  # fmt: skip
    return result


def place_labels(
    figure: Figure, axes: Axes, points: Array, labels: Sequence[str], colors: Sequence[str]
) -> int:
    """Write labels beside points of a plot; return how many found no place.

    Args:
        figure: The figure.
        axes: Its axes, with all else drawn.
        points: [N, 2], in the coordinates of the data.
        labels: One per point; the first ones get the best places.
        colors: The color of each; those that have one are bold, "" is black.
    """
    texts = [
        axes.text(
            float(point[0]),
            float(point[1]),
            label,
            color=color or "black",
            weight="bold" if color else "normal",
            parse_math=False,
            va="bottom",
        )
        for point, label, color in zip(points, labels, colors, strict=True)
    ]
    for text in texts:
        text.set_in_layout(False)  # so that they do not shrink the axes
    figure.draw_without_rendering()  # lays the figure out
    extents = [text.get_window_extent() for text in texts]
    pixels = axes.transData.transform(points)
    sizes = np.array([[extent.width + 2, extent.height + 1] for extent in extents])
    frame = axes.get_window_extent()
    bounds = (frame.x0, frame.y0, frame.x1, frame.y1)
    back = axes.transData.inverted()
    missing = 0
    for text, point, place in zip(texts, pixels, free_places(pixels, sizes, bounds), strict=True):
        if place is None:
            text.remove()
            missing += 1
            continue
        x, y = back.transform((place[0] + 1, place[1]))
        text.set_position((float(x), float(y)))
        nearest = np.clip(point, place[:2], place[2:])
        if np.hypot(*(nearest - point)) >= _LED:
            line = back.transform([point, nearest])
            axes.plot(*line.T, color="0.75", linewidth=0.6, zorder=0, scalex=False, scaley=False)
    if missing:
        note = f"{missing} label{'' if missing == 1 else 's'} left out for space"
        axes.set_title(note, loc="right", fontsize=8, color="0.4")
    return missing
