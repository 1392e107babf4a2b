"""A recurrent network unrolled in time, as a diagram."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from anaphora.options import check_sizes
from anaphora.plot.diagram import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    Box,
    Diagram,
    Drawing,
    Text,
    plain,
    subscripted,
    text_width,
)
from anaphora.plot.picture import shown_token

SHAPES = ("one-to-many", "many-to-one", "many-to-many", "encoder-decoder")
"""The shapes of recurrent networks that `unrolled` draws."""

_MAX_STEPS, _MAX_LAYERS = 60, 12
_FILLS = (  # of what has weights of its own, in turns
    "#dcebf7", "#fdeacc", "#d9f0e6", "#f6e1ee", "#fbf6c8", "#e3e0f5", "#f9dcd2", "#d8f1f4",
)  # fmt: skip
_BOX, _PITCH_Y = 34.0, 62.0  # the height of a box; from row to row


def unrolled(
    shape: str = "many-to-many",
    path: str | os.PathLike[str] | None = None,
    *,
    steps: int | None = None,
    output_steps: int | None = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    cell: str = "RNN",
    title: str | None = None,
) -> Diagram:
    """Draw a recurrent network unrolled in time: its layers at each step, and what passes between.

    The four shapes: ``"one-to-many"`` (a picture to its caption: each output is the next input),
    ``"many-to-one"`` (a text to its class), ``"many-to-many"`` (a word to its part of speech, or to
    the next word, at every step), and ``"encoder-decoder"`` (a sentence to its translation).
    Boxes of one color share their weights. Time runs to the right, from inputs up to outputs.

    Args:
        shape: The shape.
        path: Where to write the diagram, as .svg; if None, nowhere.
        steps: The number of steps; of an encoder-decoder, of the encoder. By default as many as
            there are labels, else 4.
        output_steps: The number of steps of a decoder; by default as many as there are labels of
            outputs, else 3.
        num_layers: L, drawn one above the other.
        bidirectional: Whether a second row of each layer reads from right to left; not for what
            writes its own input.
        inputs: Labels of the inputs, one per step (one in all for "one-to-many"); by default
            x_1, x_2, ...
        outputs: Labels of the outputs, one per step that has one; by default y_1, y_2, ...
        cell: What the boxes are called, such as "LSTM".
        title: The title, for screen readers.

    Raises:
        ValueError: there is no such shape, the labels do not match the steps, or it has no second
            direction.
        OSError: the file cannot be written.

    >>> diagram = unrolled("many-to-one", inputs=["a", "fine", "film"], outputs=["positive"])
    >>> [node.label for node in diagram.nodes if node.kind == "output"]
    ['positive']
    >>> len([node for node in diagram.nodes if node.kind == "cell"])
    3
    """
    plan = _plan(shape, steps, output_steps, num_layers, bidirectional, inputs, outputs)
    words = f"{num_layers} layer{'' if num_layers == 1 else 's'}"
    words += ", in both directions" if bidirectional else ""
    drawing = Drawing(
        title or f"A recurrent network unrolled in time: {shape.replace('-', ' ')}",
        f"{len(plan.inputs)} steps of {cell}, {words}; inputs "
        f"{', '.join(plain(text) for text in plan.inputs if text) or 'none'}; outputs "
        f"{', '.join(plain(text) for text in plan.outputs if text)}. Boxes of one color share "
        "their weights; arrows to the right carry the state.",
    )
    diagram = _drawn(drawing, plan, cell)
    if path is not None:
        diagram.save(path)
    return diagram


class _Plan(NamedTuple):
    """What is drawn: a label per step of inputs and outputs, empty where there is none."""

    inputs: list[Text]
    outputs: list[Text]
    encoder_steps: int  # 0 without one
    is_fed_back: bool  # whether outputs are the next inputs
    num_layers: int
    bidirectional: bool
    is_summary: bool  # whether the one output reads the last state of each direction


def _plan(
    shape: str,
    steps: int | None,
    output_steps: int | None,
    num_layers: int,
    bidirectional: bool,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
) -> _Plan:
    if shape not in SHAPES:
        raise ValueError(
            f"unrolled: there is no shape {shape!r}; the shapes are {', '.join(SHAPES)}"
        )
    check_sizes("unrolled", num_layers=num_layers)
    if num_layers > _MAX_LAYERS:
        raise ValueError(f"unrolled: num_layers {num_layers}; at most {_MAX_LAYERS} are drawn")
    if output_steps is not None and shape != "encoder-decoder":
        raise ValueError(
            f"unrolled: output_steps is for the shape encoder-decoder; {shape} has steps only"
        )
    is_decoder = shape in ("one-to-many", "encoder-decoder")
    if bidirectional and shape == "one-to-many":
        raise ValueError(
            "unrolled: one-to-many writes its own input, so it cannot be read from right to left; "
            "leave bidirectional False"
        )
    with_steps = outputs if shape == "one-to-many" else inputs
    T = _count("steps", steps, with_steps, 4)
    if shape == "encoder-decoder":
        U = _count("output_steps", output_steps, outputs, 3)
        read = [*_labels("inputs", inputs, T, "x"), *[""] * U]
        read[T] = "start"
        written = [*[""] * T, *_labels("outputs", outputs, U, "y")]
    elif shape == "one-to-many":
        read = [*_labels("inputs", inputs, 1, "x"), *[""] * (T - 1)]
        written = _labels("outputs", outputs, T, "y")
    else:
        read = _labels("inputs", inputs, T, "x")
        only_one = shape == "many-to-one"
        written = _labels("outputs", outputs, 1 if only_one else T, "y")
        written = [*[""] * (T - 1), *written] if only_one else written
    encoder_steps = T if shape == "encoder-decoder" else 0
    is_summary = shape == "many-to-one"
    return _Plan(read, written, encoder_steps, is_decoder, num_layers, bidirectional, is_summary)


def _count(name: str, count: int | None, labels: Sequence[str] | None, default: int) -> int:
    found = count if count is not None else default if labels is None else len(labels)
    if not 1 <= found <= _MAX_STEPS:
        raise ValueError(f"unrolled: {name} is {found}; 1 to {_MAX_STEPS} can be drawn")
    return found


def _labels(name: str, labels: Sequence[str] | None, count: int, letter: str) -> list[Text]:
    if labels is None:
        return [subscripted(letter, str(t + 1) if count > 1 else "") for t in range(count)]
    if len(labels) != count:
        raise ValueError(
            f"unrolled: {len(labels)} labels of {name} for {count} step{'' if count == 1 else 's'}"
        )
    return [
        shown_token(label) if label.isspace() else " ".join(map(shown_token, label.split(" ")))
        for label in labels
    ]


class _Layout:
    """Where everything is: steps are columns, layers are bands of one row or two."""

    def __init__(self, plan: _Plan, cell: str) -> None:
        self.plan = plan
        self.box_width = max(44.0, text_width(cell, 13) + 18)
        self.rows = 2 if plan.bidirectional else 1
        self.longest = max(text_width(text, 15, True) for text in (*plan.inputs, *plan.outputs))
        self.pitch = max(self.rows * (self.box_width + 12) + 40, self.longest + 22)
        self.band = self.rows * _PITCH_Y + (30.0 if plan.bidirectional else 0.0)
        self.gap = 70.0 if plan.encoder_steps else 0.0
        self.has_row_labels = plan.num_layers > 1 or plan.bidirectional
        self.left = 84.0 if self.has_row_labels else 24.0
        self.top = 62.0
        self.bottom = self.top + plan.num_layers * self.band
        self.width = self.left + len(plan.inputs) * self.pitch + self.gap + 24
        self.height = self.bottom + 62

    def is_decoder(self, t: int) -> bool:
        return 0 < self.plan.encoder_steps <= t

    def is_two_way(self, t: int) -> bool:
        return self.plan.bidirectional and not self.is_decoder(t)

    def x(self, t: int, row: int | None = None) -> float:
        """The middle of a column, or of the box of a row in it."""
        middle = self.left + (t + 0.5) * self.pitch + (self.gap if self.is_decoder(t) else 0.0)
        if row is None or not self.is_two_way(t):
            return middle
        return middle + (self.box_width / 2 + 6) * (1 if row else -1)

    def band_top(self, layer: int) -> float:
        return self.bottom - (layer + 1) * self.band

    def y(self, t: int, layer: int, row: int) -> float:
        """The middle of a box."""
        base = self.bottom - layer * self.band
        if self.plan.bidirectional and self.is_decoder(t):
            return base - _PITCH_Y
        return base - (row + 0.5) * _PITCH_Y

    def box(self, t: int, layer: int, row: int) -> Box:
        x, y = self.x(t, row), self.y(t, layer, row)
        return (x - self.box_width / 2, y - _BOX / 2, x + self.box_width / 2, y + _BOX / 2)

    def joint(self, t: int, layer: int) -> Box:
        """The box that joins the outputs of both directions."""
        x, y = self.x(t), self.band_top(layer) + 16
        half = self.box_width / 2 + 16
        return (x - half, y - 8, x + half, y + 8)


def _drawn(drawing: Drawing, plan: _Plan, cell: str) -> Diagram:
    layout = _Layout(plan, cell)
    _draw_boxes(drawing, layout, cell)
    for layer in range(plan.num_layers):
        _draw_states(drawing, layout, layer)
        _draw_inputs_of(drawing, layout, layer)
    _draw_outputs(drawing, layout)
    return drawing.finish(layout.width, layout.height)


def _name(t: int, layer: int, row: int) -> str:
    return f"cell_{t + 1}_l{layer}{'_reverse' if row else ''}"


def _rows(layout: _Layout, t: int) -> range:
    return range(2 if layout.is_two_way(t) else 1)


def _draw_boxes(drawing: Drawing, layout: _Layout, cell: str) -> None:
    plan = layout.plan
    for t, text in enumerate(plan.inputs):
        for layer in range(plan.num_layers):
            for row in _rows(layout, t):
                kind = layer * layout.rows + row
                if layout.is_decoder(t):
                    kind = plan.num_layers * layout.rows + layer
                fill = _FILLS[kind % len(_FILLS)]
                box = layout.box(t, layer, row)
                drawing.node(_name(t, layer, row), "cell", box, cell, fill=fill, size=13)
            is_last = layer == plan.num_layers - 1
            if layout.is_two_way(t) and (not is_last or plan.outputs[t]):
                drawing.node(
                    f"joint_{t + 1}_l{layer}",
                    "joint",
                    layout.joint(t, layer),
                    size=11,
                    label="both",
                    fill="#eef1f4",
                    stroke=FAINT,
                    color=FAINT,
                    radius=8,
                )
        if text:
            drawing.label(f"x_{t + 1}", "input", text, layout.x(t), layout.height - 20, color=GREEN)
        if plan.outputs[t]:
            drawing.label(f"y_{t + 1}", "output", plan.outputs[t], layout.x(t), 20, color=ORANGE)
    if layout.has_row_labels:
        for layer in range(plan.num_layers):
            y = layout.bottom - layer * layout.band - layout.rows * _PITCH_Y / 2
            name = f"layer {layer + 1}"
            drawing.text(name, 12, y, size=12, anchor="start", color=FAINT)
    if plan.encoder_steps:
        S, last = plan.encoder_steps, len(plan.inputs) - 1
        x = (layout.x(0) + layout.x(S - 1)) / 2
        drawing.text("encoder", x, 20, size=13, color=FAINT)
        if last > S:  # beside its first input
            x, y = (layout.x(S + 1) + layout.x(last)) / 2, layout.height - 20
            drawing.text("decoder", x, y, size=13, color=FAINT)


def _draw_states(drawing: Drawing, layout: _Layout, layer: int) -> None:
    """The arrows from step to step, and from an encoder to its decoder."""
    plan = layout.plan
    S = plan.encoder_steps
    for t in range(len(plan.inputs) - 1):
        for row in _rows(layout, t):
            if S and t == S - 1:
                continue
            left, right = layout.box(t, layer, row), layout.box(t + 1, layer, row)
            y = layout.y(t, layer, row)
            ends, names = (
                [(left[2], y), (right[0], y)],
                [_name(t, layer, row), _name(t + 1, layer, row)],
            )
            if row:
                ends, names = ends[::-1], names[::-1]
            drawing.edge(names[0], names[1], ends, color=BLUE)
            if layout.rows == 1 and plan.num_layers == 1:
                step = str(t + 1 - (S if layout.is_decoder(t) else 0))
                letter = "s" if layout.is_decoder(t) else "h"
                x = (left[2] + right[0]) / 2
                if plan.is_fed_back:  # beside the line of what is fed back
                    x += (right[0] - left[2]) / 4
                drawing.text(subscripted(letter, step), x, y - 11, size=12, color=BLUE)
    if not S:
        return
    last, first = _name(S - 1, layer, 0), _name(S, layer, 0)
    x0, x1 = layout.box(S - 1, layer, 0)[2], layout.box(S, layer, 0)[0]
    y0, y1 = layout.y(S - 1, layer, 0), layout.y(S, layer, 0)
    if not plan.bidirectional:
        drawing.edge(last, first, [(x0, y0), (x1, y1)], color=BLUE)
        drawing.text(subscripted("h", str(S)), (x0 + x1) / 2, y0 - 11, size=12, color=BLUE)
        return
    x, name = x1 - 48, f"joint_state_l{layer}"
    box = (x - 22, y1 - 8, x + 22, y1 + 8)
    drawing.node(
        name, "joint", box, "both", size=11, fill="#eef1f4", stroke=FAINT, color=FAINT, radius=8
    )
    drawing.edge(last, name, [(x0, y0), (x, y0), (x, box[3])], color=BLUE)
    top = layout.box(0, layer, 1)
    corner = layout.band_top(layer) + 35
    start = (top[0] + top[2]) / 2 - 12
    path = [(start, top[1]), (start, corner), (x, corner), (x, box[1])]
    drawing.edge(_name(0, layer, 1), name, path, color=BLUE)
    drawing.edge(name, first, [(box[2], y1), (x1, y1)], color=BLUE)


def _draw_inputs_of(drawing: Drawing, layout: _Layout, layer: int) -> None:
    """The arrows up into a layer: from inputs, outputs fed back, or the layer below."""
    plan = layout.plan
    for t, text in enumerate(plan.inputs):
        rows = _rows(layout, t)
        if layer == 0:
            if not text:
                continue
            source, start = f"x_{t + 1}", layout.height - 32
        elif layout.is_two_way(t):
            source, start = f"joint_{t + 1}_l{layer - 1}", layout.joint(t, layer - 1)[1]
        else:
            source, start = _name(t, layer - 1, 0), layout.box(t, layer - 1, 0)[1]
        for row in rows:
            x, y = layout.x(t, row), layout.box(t, layer, row)[3]
            fork = layout.bottom - layer * layout.band + 2
            path = (
                [(x, start), (x, y)]
                if len(rows) == 1
                else [(layout.x(t), start), (layout.x(t), fork), (x, fork), (x, y)]
            )
            drawing.edge(source, _name(t, layer, row), path, color=GREEN if layer == 0 else INK)
        if layout.is_two_way(t) and layer < plan.num_layers - 1:
            _draw_joint(drawing, layout, t, layer)


def _draw_joint(drawing: Drawing, layout: _Layout, t: int, layer: int) -> None:
    for row in (0, 1):
        x, joint = layout.x(t, row), layout.joint(t, layer)
        path = [(x, layout.box(t, layer, row)[1]), (x, joint[3])]
        drawing.edge(_name(t, layer, row), f"joint_{t + 1}_l{layer}", path)


def _draw_outputs(drawing: Drawing, layout: _Layout) -> None:
    plan = layout.plan
    layer = plan.num_layers - 1
    for t, text in enumerate(plan.outputs):
        if not text:
            continue
        source, start = _name(t, layer, 0), layout.box(t, layer, 0)[1]
        if layout.is_two_way(t):
            source, start = f"joint_{t + 1}_l{layer}", layout.joint(t, layer)[1]
            if plan.is_summary and t:
                # Each direction ends elsewhere: from left to right here, the other at step 1.
                joint, x = layout.joint(t, layer), layout.x(t, 0)
                path = [(x, layout.box(t, layer, 0)[1]), (x, joint[3])]
                drawing.edge(_name(t, layer, 0), source, path)
                x, y = layout.x(0, 1), (joint[1] + joint[3]) / 2
                path = [(x, layout.box(0, layer, 1)[1]), (x, y), (joint[0], y)]
                drawing.edge(_name(0, layer, 1), source, path)
            else:
                _draw_joint(drawing, layout, t, layer)
        drawing.edge(source, f"y_{t + 1}", [(layout.x(t), start), (layout.x(t), 32)])
        if plan.is_fed_back and t + 1 < len(plan.inputs):
            x, right = (
                layout.x(t) + layout.pitch / 2,
                layout.x(t) + text_width(text, 15, True) / 2 + 4,
            )
            below, target = layout.bottom + 14, layout.x(t + 1)
            path = [
                (right, 20),
                (x, 20),
                (x, below),
                (target, below),
                (target, layout.box(t + 1, 0, 0)[3]),
            ]
            drawing.edge(f"y_{t + 1}", _name(t + 1, 0, 0), path, color=ORANGE, is_dashed=True)
