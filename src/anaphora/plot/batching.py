"""How a text becomes parallel streams in windows with carried state, as a diagram."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from anaphora.data import StreamBatches, batchify
from anaphora.options import check_sizes
from anaphora.plot.diagram import BLUE, FAINT, INK, ORANGE, Box, Diagram, Drawing, text_width
from anaphora.plot.picture import shown_token

_FILLS = ("#cfe4f5", "#fde3b5", "#cdebdf", "#f3d9e8", "#e3e0f5")  # of windows, in turns
_REST = "#e6e9ec"
_MAX_STREAMS, _MAX_STEPS = 5, 12  # drawn one by one; of more, the middle is left out
_ROW, _CELL = 44.0, 34.0  # from stream to stream; the height of a step's box
_LEFT, _BETWEEN = 92.0, 46.0  # of the first window; between windows
_STRIP = 26.0  # the height of the strip of the text
_LONGEST = 12  # characters of a token


def batching(
    tokens: str | Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    batch_size: int,
    window: int,
    max_windows: int = 3,
    title: str | None = None,
) -> Diagram:
    """Draw how `data.batchify` cuts a text into B streams, read in windows of T steps.

    The strip at the top is the text, from left to right; below it the streams, one per row. Each
    window of steps has a color, in the strip as in the streams. Every step shows what it reads and,
    small, what it is to predict: the next token. Between windows the state is carried (blue), but
    gradients are cut (dashed): backpropagation through time goes back to the beginning of its
    window (orange), which is truncated backpropagation through time.

    Args:
        tokens: The text; or its tokens, such as what `tokens` returns.
        path: Where to write the diagram, as .svg; if None, nowhere.
        batch_size: B.
        window: T.
        max_windows: The number of windows that are drawn; the strip says how many follow.
        title: The title, for screen readers.

    Raises:
        DataError: the text is shorter than one window, B * (T + 1) tokens.
        ValueError: a size is not positive.
        OSError: the file cannot be written.

    >>> diagram = batching("to be or not to be", batch_size=2, window=4)
    >>> diagram.title
    'A text of 18 tokens as 2 streams, read in 2 windows of 4 steps'
    >>> "".join(node.label for node in diagram.nodes if node.kind == "step")
    'to·be·ornot·to·b'
    """
    check_sizes("batching", max_windows=max_windows)
    batches = batchify(np.arange(len(tokens)), batch_size, window)
    count = len(batches)
    drawing = Drawing(
        title
        or f"A text of {len(tokens):,} tokens as {_counted(batch_size, 'stream')}, read in "
        f"{_counted(count, 'window')} of {_counted(window, 'step')}",
        f"Each stream is {len(tokens) // batch_size:,} consecutive tokens. A batch is the same "
        "window of all streams. From window to window the state is carried and gradients are cut.",
    )
    diagram = _Layout(drawing, tokens, batches, batch_size, window, min(count, max_windows)).drawn()
    if path is not None:
        diagram.save(path)
    return diagram


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shown(count: int, limit: int) -> list[int | None]:
    """The numbers from 0 that are drawn; None stands for those that are left out."""
    if count <= limit:
        return [*range(count)]
    return [*range(limit - 2), None, count - 1]


def _label(token: str) -> str:
    text = shown_token(token.strip(" ") or token)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class _Layout:
    """Where everything is, in rows of streams and columns of windows."""

    def __init__(
        self,
        drawing: Drawing,
        tokens: Sequence[str],
        batches: StreamBatches,
        batch_size: int,
        window: int,
        windows: int,
    ) -> None:
        self.drawing, self.tokens, self.batches = drawing, tokens, batches
        self.batch_size, self.window, self.windows = batch_size, window, windows
        self.streams = _shown(batch_size, _MAX_STREAMS)
        self.top = 150.0  # of the first stream
        self.bottom = self.top + _ROW * len(self.streams)
        self.batch = [batches[k] for k in range(windows)]
        self.steps = [_shown(len(batch.inputs), _MAX_STEPS) for batch in self.batch]
        shown = [
            _label(tokens[number])
            for batch, steps in zip(self.batch, self.steps, strict=True)
            for b in self.streams
            for t in steps
            if b is not None and t is not None
            for number in (int(batch.inputs[t, b]),)
        ]
        self.cell = math.ceil(max(24.0, *(text_width(text, 14) + 10 for text in shown)))
        self.starts = [_LEFT]
        for steps in self.steps:
            self.starts.append(self.starts[-1] + self.cell * len(steps) + _BETWEEN)
        self.more = len(batches) - windows
        self.width = self.starts[-1] - _BETWEEN + (110.0 if self.more else 40.0)

    def y(self, row: int) -> float:
        """The middle of the row of a stream."""
        return self.top + (row + 0.5) * _ROW

    def end(self, k: int) -> float:
        return self.starts[k + 1] - _BETWEEN

    def drawn(self) -> Diagram:
        self._draw_strip()
        for row, b in enumerate(self.streams):
            self._draw_stream(row, b)
        for k in range(self.windows):
            self._draw_window(k)
        return self.drawing.finish(self.width, self.bottom + 66)

    def _draw_strip(self) -> None:
        """The text in its order, its streams beside each other."""
        drawing, n = self.drawing, len(self.tokens) // self.batch_size
        dropped = len(self.tokens) - n * self.batch_size
        text = f"the text: {_counted(len(self.tokens), 'token')}"
        text += f", as {_counted(self.batch_size, 'stream')} of {n:,}"
        text += f" ({dropped:,} left over)" if dropped else ""
        drawing.text(text, 12, 22, size=13, anchor="start")
        self.width = max(self.width, 24 + text_width(text, 13))
        left, right, y = 12.0, self.width - 24.0, 38.0
        width = (right - left) / len(self.streams)
        for row, b in enumerate(self.streams):
            x0 = left + row * width
            if b is None:
                drawing.text("…", x0 + width / 2, y + _STRIP / 2, color=FAINT)
                continue
            tokens = [len(batch.inputs) for batch in self.batch]
            rest = min(float(n - sum(tokens)), 1.3 * self.window) if self.more else 0.0
            scale, x = width / (sum(tokens) + rest), x0
            for k, length in enumerate(tokens):
                fill = _FILLS[k % len(_FILLS)]
                drawing.rectangle((x, y, x + length * scale, y + _STRIP), fill=fill)
                x += length * scale
            drawing.rectangle((x, y, x0 + width, y + _STRIP), fill=_REST)
            box: Box = (x0, y, x0 + width, y + _STRIP)
            drawing.node(f"segment_{b + 1}", "segment", box, f"{b + 1}", fill="none", radius=0)

    def _draw_stream(self, row: int, b: int | None) -> None:
        drawing, y = self.drawing, self.y(row)
        if b is None:
            for x in (
                12.0 + 20,
                *((self.starts[k] + self.end(k)) / 2 for k in range(self.windows)),
            ):
                drawing.text("⋮", x, y, color=FAINT)
            return
        drawing.text(f"stream {b + 1:,}", 12, y, size=13, anchor="start", color=INK)
        for k, (batch, steps) in enumerate(zip(self.batch, self.steps, strict=True)):
            fill = _FILLS[k % len(_FILLS)]
            for place, t in enumerate(steps):
                x = self.starts[k] + place * self.cell
                if t is None:
                    drawing.text("…", x + self.cell / 2, y, color=FAINT)
                    continue
                box = (x, y - _CELL / 2, x + self.cell, y + _CELL / 2)
                label = _label(self.tokens[int(batch.inputs[t, b])])
                target = _label(self.tokens[int(batch.targets[t, b])])
                name = f"stream_{b + 1}_window_{k + 1}_step_{t + 1}"
                drawing.node(name, "step", box, fill=fill, radius=2)
                drawing.nodes[-1] = drawing.nodes[-1]._replace(label=label)
                drawing.text(label, x + self.cell / 2, y - 5, size=14)
                drawing.text(target, x + self.cell / 2, y + 10, size=9, color=FAINT)
            if k + 1 < self.windows:
                name = f"stream_{b + 1}_window_{k + 1}"
                source = f"{name}_step_{len(batch.inputs)}"
                target = f"stream_{b + 1}_window_{k + 2}_step_1"
                line = [(self.end(k), y), (self.starts[k + 1], y)]
                drawing.edge(source, target, line, color=BLUE)
        if self.more:
            x = self.end(self.windows - 1)
            drawing.line([(x, y), (x + 34, y)], color=BLUE)

    def _draw_window(self, k: int) -> None:
        drawing, x0, x1 = self.drawing, self.starts[k], self.end(k)
        middle, T = (x0 + x1) / 2, len(self.batch[k].inputs)
        drawing.text(f"window {k + 1}", middle, self.top - 40, size=13, is_bold=True)
        drawing.text(_counted(T, "step"), middle, self.top - 22, size=11, color=FAINT)
        y = self.bottom + 12
        drawing.line([(x1 - 4, y), (x0 + 4, y)], color=ORANGE)
        drawing.text("gradients", middle, y + 13, size=11, color=ORANGE)
        if k + 1 < self.windows or self.more:
            x = x1 + _BETWEEN / 2 if k + 1 < self.windows else x1 + 17
            drawing.line(
                [(x, self.top - 14), (x, self.bottom + 30)],
                color=ORANGE,
                is_arrow=False,
                is_dashed=True,
            )
            drawing.text("cut", x, self.bottom + 42, size=11, color=ORANGE)
            drawing.text("state", x, self.top - 24, size=11, color=BLUE)
        if k + 1 == self.windows and self.more:
            text = f"{self.more:,} more"
            drawing.text(text, x1 + 40, self.y(0), size=12, anchor="start", color=FAINT)
