"""Plots over a sequence: states, gates, text colored by one unit, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from anaphora.nn import Recurrent
from anaphora.options import check_sizes
from anaphora.plot.picture import COLORS, Picture, add_legend, label_steps, shown_token
from anaphora.tensor import Array, no_grad

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Units: TypeAlias = "str | Sequence[int]"
CHOICES = ("all", "similar", "active", "selective")
"""The ways of `units` to choose."""

_MAX_UNITS = 24  # of those that are chosen for what they do
_MAX_NAMED = 32  # rows of a heat map that are numbered individually
_MAX_LINES = 7  # units plotted as lines, one color each; more are a heat map
_MAX_LABELS = 100  # steps that are labeled individually
_INCHES_PER_STEP = 0.11
_LINE, _BAR = 0.21, 0.1  # the heights of a line of text and of a bar of colors, in inches


def units(
    named: Mapping[str, ArrayLike], which: Units = "active", count: int = _MAX_UNITS
) -> list[int]:
    """The numbers of units to look at, from their values over the steps of a sequence.

    Args:
        named: [T, H] by name: values of the same H units, such as the gates and states of a layer.
        which: ``"active"``: those that vary most (their standard deviation over the steps, summed
            over the names), the first most. ``"selective"``: those that respond to few steps, by
            the lifetime sparseness ``1 - mean(|d|)**2 / mean(d**2)`` of the deviation ``d`` from
            their median (Vinje & Gallant 2000). ``"similar"``: all, in an order in which units that
            do the same stand side by side (by their angle in the plane of the first two principal
            components). ``"all"``: all, by their number. Or the numbers themselves.
        count: The maximum number of active or selective units.

    Raises:
        ValueError: there is no such choice, a number is out of range, there are no values, or their
            shapes differ.

    >>> steps = np.array([[0.0, 0.1, 0.9], [0.0, 0.1, -0.9], [0.0, 0.9, 0.9], [0.0, 0.1, -0.9]])
    >>> units({"h": steps}, "active", 2), units({"h": steps}, "selective", 1)
    ([2, 1], [1])
    """
    arrays = [np.asarray(given, np.float64) for given in named.values()]
    if not arrays or any(a.ndim != 2 or a.shape != arrays[0].shape for a in arrays):
        shapes = ", ".join(f"{name!r} {np.shape(given)}" for name, given in named.items())
        raise ValueError(f"units: expected values of one shape [T, H]; got {shapes or 'none'}")
    H = arrays[0].shape[1]
    if not isinstance(which, str):
        for number in which:
            if not 0 <= number < H:
                raise ValueError(f"there is no unit {number}; the units are 0 to {H - 1}")
        if not len(which):
            raise ValueError("units: no unit was chosen")
        return [int(number) for number in which]
    check_sizes("units", count=count)
    if which == "all":
        return list(range(H))
    if which == "similar":
        return _by_similarity(np.concatenate(arrays))
    if which == "active":
        scores = sum(array.std(axis=0) for array in arrays)
    elif which == "selective":
        scores = sum(map(_sparseness, arrays))
    else:
        raise ValueError(f"units: {which!r} is none of {', '.join(CHOICES)}, nor numbers of units")
    return [int(number) for number in np.argsort(-np.asarray(scores), kind="stable")[:count]]


def _sparseness(array: Array) -> Array:
    """The lifetime sparseness of each unit, from 0 (always the same) to almost 1; [H]."""
    deviations = np.abs(array - np.median(array, axis=0))
    squares = np.square(deviations).mean(axis=0)
    # What never moves, up to rounding, responds to nothing.
    moves = np.sqrt(squares) > 1e-3 * max(float(np.abs(array).max(initial=0)), 1e-30)
    shares = np.square(deviations.mean(axis=0)) / np.where(moves, squares, 1)
    result: Array = np.where(moves, 1 - shares, 0)
    return result


def _by_similarity(array: Array) -> list[int]:
    """Units in the order of their angle in the plane of the first two principal components."""
    centered = (array - array.mean(axis=0)).T  # [H, T]
    if min(centered.shape) < 2 or not np.isfinite(centered).all():
        return list(range(len(centered)))
    left, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    plane = left[:, :2] * sizes[:2]
    return [int(number) for number in np.argsort(np.arctan2(plane[:, 1], plane[:, 0]))]


def values(
    named: Mapping[str, ArrayLike],
    *,
    labels: Sequence[str] | None = None,
    row: int = 0,
    units: Units = "all",
    max_units: int = _MAX_UNITS,
) -> Picture:
    """Plot values of units over the steps of one sequence, one panel per name.

    Up to 7 units are plotted as lines, more as a heat map with a row for each.

    Args:
        named: [T, H] or [T, B, H] by name, such as what a layer's ``record`` returns.
        labels: [T] labels of the steps, such as the tokens read.
        row: The number of the sequence in the batch.
        units: The units to plot, and their order: see `units`. They are chosen once for the values
            of a layer and direction, those whose names end alike (``f_l0`` and ``c_l0``).
        max_units: The maximum number of active or selective units.

    Returns:
        A picture; its data are the arrays [T, H] by name; of chosen units, these only.

    Raises:
        ValueError: there are no values, a shape is wrong, or there is no such row, unit or choice.

    >>> picture = values({"h": np.zeros((5, 2, 3)), "c": np.ones((5, 2, 3))}, row=1)
    >>> picture.data["c"].shape
    (5, 3)
    """
    data = {name: _of_row(name, np.asarray(given), row) for name, given in named.items()}
    if not data:
        raise ValueError("values: no values were given")
    steps = {len(array) for array in data.values()}
    T = max(steps)
    if len(steps) > 1 or T == 0 or (labels is not None and len(labels) != T):
        count = "" if labels is None else f", and {len(labels)} labels"
        raise ValueError(
            f"values: sequences of {', '.join(map(str, sorted(steps)))} steps{count}; expected one "
            "number of steps, at least 1"
        )
    shown = None if labels is None else [shown_token(label.strip(" ") or label) for label in labels]
    numbers = _chosen(data, units, max_units)
    data = {name: array[:, numbers[name]] for name, array in data.items()}
    heights = [_panel_height(array.shape[1]) for array in data.values()]

    def render(figure: Figure) -> None:
        ratios = {"height_ratios": heights}
        panels = figure.subplots(len(data), sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
        widest = max(array.shape[1] for array in data.values())
        for axes, (name, array) in zip(panels, data.items(), strict=True):
            axes.set_title(name, loc="left", parse_math=False)
            axes.tick_params(axis="x", length=0)
            if array.shape[1] <= _MAX_LINES:
                _lines(axes, array, numbers[name])
                if array.shape[1] == widest > 1:  # one legend names each line
                    add_legend(axes, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
                    widest = 0
            else:
                _heat_map(figure, axes, array, numbers[name])
        label_steps(panels[-1], shown, T, _MAX_LABELS)

    width = min(max(7.0, 1.6 + _INCHES_PER_STEP * T), 14.0)
    return Picture(data, render, (width, 0.5 + sum(heights)))


def _chosen(data: Mapping[str, Array], which: Units, count: int) -> dict[str, list[int]]:
    """The units of each name, the same for all names of a layer and direction."""
    layers: dict[tuple[str, int], dict[str, Array]] = {}
    for name, array in data.items():
        layers.setdefault((name.partition("_l")[2], array.shape[1]), {})[name] = array
    return {
        name: found for of in layers.values() for found in [units(of, which, count)] for name in of
    }


def _panel_height(count: int) -> float:
    """The height of a panel of that many units, in inches: rows of a heat map can be told apart."""
    if count <= _MAX_LINES:
        return 1.45
    return min(max(1.45, 0.45 + (0.13 if count <= _MAX_NAMED else 0.02) * count), 3.6)


def recorded_values(layer: Recurrent, x: Any) -> dict[str, Array]:
    """Every named value of a layer's cell, [T, B, H] or [T, H], in evaluation mode."""
    was_training = layer.training
    try:
        with no_grad():
            _, _, recorded = layer.eval().record(x)
    finally:
        layer.train(was_training)
    if layer.batch_first and np.ndim(x) == 3:
        recorded = {name: array.swapaxes(0, 1) for name, array in recorded.items()}
    return dict(recorded)


def states(
    layer: Recurrent,
    x: Any,
    *,
    labels: Sequence[str] | None = None,
    row: int = 0,
    units: Units = "all",
    max_units: int = _MAX_UNITS,
) -> Picture:
    """Plot the states of a layer over a sequence, such as ``h`` and ``c`` of an LSTM.

    Args:
        layer: With any number of layers and directions.
        x: The input of the layer.
        labels: [T] labels of the steps, such as the tokens read.
        row: The number of the sequence in the batch.
        units: The units to plot; see `values`.
        max_units: The maximum number of active or selective units.

    Returns:
        A picture as from `values`, with names such as ``h_l0`` and ``c_l1_reverse``.

    Raises:
        ValueError: a shape is wrong, or there is no such row, unit or choice.

    >>> from anaphora.nn import LSTM
    >>> states(LSTM(3, 4), np.ones((5, 2, 3), np.float32)).data["c_l0"].shape
    (5, 4)
    """
    recorded = recorded_values(layer, x)
    chosen = {
        name: a for name, a in recorded.items() if name.split("_l")[0] in layer.state_shapes()
    }
    return values(chosen, labels=labels, row=row, units=units, max_units=max_units)


def gates(
    layer: Recurrent,
    x: Any,
    *,
    labels: Sequence[str] | None = None,
    row: int = 0,
    units: Units = "all",
    max_units: int = _MAX_UNITS,
) -> Picture:
    """Plot the gates of a layer over a sequence, and all other named values except states.

    Args:
        layer: With any number of layers and directions.
        x: The input of the layer.
        labels: [T] labels of the steps, such as the tokens read.
        row: The number of the sequence in the batch.
        units: The units to plot; see `values`.
        max_units: The maximum number of active or selective units.

    Returns:
        A picture as from `values`, with names such as ``f_l0`` and ``z_l1_reverse``.

    Raises:
        ValueError: a shape is wrong, or the cell was declared with ``fused=False``, so its gates
            have no names.

    >>> from anaphora.nn import GRU
    >>> [*gates(GRU(3, 4), np.ones((5, 2, 3), np.float32)).data]
    ['r_l0', 'z_l0', 'n_l0']
    """
    recorded = recorded_values(layer, x)
    states = tuple(layer.state_shapes())
    chosen = {name: a for name, a in recorded.items() if name.split("_l")[0] not in states}
    if not chosen:
        raise ValueError(
            f"gates: the gates of the cell {layer.cell.name!r} have no names; declare the cell "
            "without fused=False, so that its equations are traced"
        )
    return values(chosen, labels=labels, row=row, units=units, max_units=max_units)


def text(
    tokens: Sequence[str], numbers: ArrayLike, *, title: str = "", columns: int = 80
) -> Picture:
    """Plot a text colored by one number per token, such as one unit (Karpathy et al. 2015).

    The color of a token is the number after the model has read it.

    Args:
        tokens: [T] the tokens of the text.
        numbers: [T] a number for each token.
        title: The title.
        columns: The maximum length of a line.

    Returns:
        A picture; its data are ``tokens`` and ``numbers`` [T].

    Raises:
        ValueError: there are no tokens, or not one number per token.

    >>> text(["to ", "be"], [0.1, -0.9]).data["numbers"]
    array([ 0.1, -0.9])
    """
    colors = np.asarray(numbers)
    if colors.shape != (len(tokens),) or not len(tokens):
        raise ValueError(
            f"text: {len(tokens)} tokens and numbers of shape {colors.shape}; expected one number "
            "for each of at least one token"
        )
    characters, places = _typeset(tokens, columns)
    rows = 1 + max(line for line, _, _ in places)
    width = max(column for _, column, _ in places) + 1
    grid = np.full((rows, width), np.nan)
    for line, column, number in places:
        grid[line, column] = colors[number]

    size = (max(3.5, 0.3 + 0.095 * width), 0.75 + _BAR + _LINE * rows)

    def render(figure: Figure) -> None:
        # The bar of colors is as high for one line of text as for many.
        heights = {"height_ratios": [_LINE * rows, _BAR]}
        axes, below = figure.subplots(2, gridspec_kw=heights)
        limit = _limit(colors)
        image = axes.imshow(grid, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        for character, (line, column, number) in zip(characters, places, strict=True):
            dark = abs(colors[number]) > 0.7 * limit
            axes.text(
                column,
                line,
                character,
                ha="center",
                va="center_baseline",
                family="DejaVu Sans Mono",
                color="white" if dark else "black",
                parse_math=False,
            )
        axes.set_title(title, loc="left", parse_math=False)
        axes.axis("off")
        below.axis("off")
        bar = below.inset_axes((0, 0, min(1.0, 2.5 / size[0]), 1))
        figure.colorbar(
            image, cax=bar, orientation="horizontal", ticks=[-limit, 0, limit], format="%.3g"
        )

    return Picture({"tokens": list(tokens), "numbers": colors}, render, size)


def attention(
    weights: ArrayLike,
    source: Sequence[str] | None = None,
    target: Sequence[str] | None = None,
) -> Picture:
    """Plot an attention matrix (Bahdanau et al. 2015).

    Args:
        weights: [T, S], one row per step of the target.
        source: [S] the tokens of the source.
        target: [T] the tokens of the target.

    Returns:
        A picture; its data are ``weights`` [T, S], ``source`` and ``target``.

    Raises:
        ValueError: the shapes do not match.

    >>> attention([[0.9, 0.1], [0.2, 0.8]], ["ein", "Wort"], ["a", "word"]).data["weights"].shape
    (2, 2)
    """
    matrix = np.asarray(weights)
    expected = tuple(
        size if given is None else len(given)
        for given, size in zip((target, source), matrix.shape, strict=False)
    )
    if matrix.ndim != 2 or matrix.size == 0 or expected != matrix.shape:
        raise ValueError(
            f"attention: weights of shape {matrix.shape}; expected [T, S], for "
            f"{'T' if target is None else len(target)} tokens of the target and "
            f"{'S' if source is None else len(source)} of the source"
        )
    T, S = matrix.shape

    def render(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=max(1.0, float(matrix.max())))
        if source is not None:
            labels = [shown_token(token) for token in source]
            rotation = 90 if max(map(len, labels)) > 2 else 0
            axes.set_xticks(range(S), labels=labels, rotation=rotation, parse_math=False)
        if target is not None:
            shown = [shown_token(token) for token in target]
            axes.set_yticks(range(T), labels=shown, parse_math=False)
        axes.set_xlabel("source")
        axes.set_ylabel("target")
        figure.colorbar(image, ax=axes, label="weight", shrink=0.8)

    size = (min(2.5 + 0.3 * S, 14.0), min(1.5 + 0.3 * T, 14.0))
    return Picture({"weights": matrix, "source": source, "target": target}, render, size)


def _of_row(name: str, array: Array, row: int) -> Array:
    if array.ndim == 3 and not -array.shape[1] <= row < array.shape[1]:
        raise ValueError(f"values: there is no row {row} of {array.shape[1]} in {name!r}")
    array = array[:, row] if array.ndim == 3 else array
    if array.ndim != 2:
        raise ValueError(
            f"values: {name!r} has the shape {array.shape}; expected [T, H] or [T, B, H]"
        )
    return array


def _limit(array: Array) -> float:
    """The limit of a symmetric scale: 1, or the largest finite magnitude if that is larger."""
    finite = np.abs(array[np.isfinite(array)])
    return max(1.0, float(finite.max(initial=0)))


def _lines(axes: Axes, array: Array, numbers: Sequence[int]) -> None:
    for place, (unit, line) in enumerate(zip(numbers, array.T, strict=True)):
        axes.plot(line, color=COLORS[place % len(COLORS)], label=f"unit {unit}", linewidth=1.2)
    if array.min() >= 0 and array.max() <= 1:
        axes.set_ylim(-0.03, 1.03)
    axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)


def _heat_map(figure: Figure, axes: Axes, array: Array, numbers: Sequence[int]) -> None:
    """A heat map from 0 to 1 if all values are in that range, as for a gate; else symmetric."""
    in_unit_range = bool(array.min() >= 0 and array.max() <= 1)
    limit = _limit(array)
    image = axes.imshow(
        array.T,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis" if in_unit_range else "RdBu_r",
        vmin=0 if in_unit_range else -limit,
        vmax=1 if in_unit_range else limit,
    )
    axes.set_ylabel("unit")
    if len(numbers) <= _MAX_NAMED:
        axes.set_yticks(range(len(numbers)), labels=map(str, numbers), fontsize=7)
    elif list(numbers) != list(range(len(numbers))):
        axes.set_yticks([])
        axes.set_ylabel(f"{len(numbers)} units")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=12)


def _typeset(tokens: Sequence[str], columns: int) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Lay out a text: its characters, and the line, column and token number of each."""
    characters: list[str] = []
    places: list[tuple[int, int, int]] = []
    line = column = 0
    for number, token in enumerate(tokens):
        for character in token:
            if column >= columns:
                line, column = line + 1, 0
            characters.append(" " if character == " " else shown_token(character))
            places.append((line, column, number))
            column += 1
            if character == "\n":
                line, column = line + 1, 0
    return characters, places
