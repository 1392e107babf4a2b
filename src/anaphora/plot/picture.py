"""Picture: data and their figure. Only this file imports matplotlib."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Render: TypeAlias = "Callable[[Figure], None]"

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colors of lines, in order; a color-blind-safe palette (Okabe & Ito 2008)."""

_FORMATS = (".png", ".svg")
_STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 9,
    "legend.frameon": False,
    "savefig.dpi": 100,
    "svg.fonttype": "path",
    "svg.hashsalt": "anaphora",  # the same picture, the same bytes
}


class Picture:
    """The result of the functions of `anaphora.plot`: data, and a figure of them.

    The figure is rendered on first use, by `figure`, by `save` or by a notebook. No display is
    needed, and matplotlib's global state is not changed.

    Args:
        data: The plotted data.
        render: Plots them on an empty figure of matplotlib.
        size: Width and height of the figure in inches, at 100 dots per inch.

    Attributes:
        data: The plotted data; each function documents them.

    >>> import tempfile
    >>> picture = Picture({"y": [1, 4, 9]}, lambda figure: figure.subplots().plot([1, 4, 9]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture.save(Path(folder, "y.svg")).name
    'y.svg'
    """

    def __init__(
        self, data: Mapping[str, Any], render: Render, size: tuple[float, float] = (7.0, 3.6)
    ) -> None:
        self.data = data
        self._render = render
        self._size = size

    @cached_property
    def figure(self) -> Figure:
        """The ``matplotlib.figure.Figure``, which may be modified.

        Raises:
            ImportError: matplotlib is not installed.
        """
        with _styled() as new_figure:
            figure = new_figure(figsize=self._size, layout="constrained")
            self._render(figure)
            # Lay it out only once, since each further layout moves things slightly.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure as PNG or SVG, by the suffix of the path; return the path.

        Raises:
            ValueError: the suffix is neither.
            ImportError: matplotlib is not installed.
            OSError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in _FORMATS:
            raise ValueError(f"{path}: a picture is written as {' or '.join(_FORMATS)}")
        path.write_bytes(self._bytes(path.suffix[1:].lower()))
        return path

    def _repr_png_(self) -> bytes:
        return self._bytes("png")

    def _bytes(self, format: str) -> bytes:
        # No date and no library version, so that the same data give the same bytes.
        metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
        options: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if format == "png" else {}
        figure, file = self.figure, io.BytesIO()
        with _styled():
            figure.savefig(file, format=format, metadata=metadata, **options)
        return file.getvalue()


def require_matplotlib() -> None:
    """Raise an error if pictures cannot be rendered.

    Raises:
        ImportError: matplotlib is not installed.

    >>> require_matplotlib()
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('pictures need an extra: pip install "anaphora[plot]"') from error


@contextmanager
def _styled() -> Iterator[type[Figure]]:
    """Apply our matplotlib style within the block; yields the Figure class."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Characters missing in the font are shown as boxes, which is clear enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure


def shown_token(token: str) -> str:
    r"""A token as a label, with visible symbols for spaces and line ends.

    >>> [shown_token(token) for token in (" ", "a\n", "b")]
    ['·', 'a↵', 'b']
    """
    symbols = {" ": "·", "\n": "↵", "\t": "→"}
    unknown = "\N{REPLACEMENT CHARACTER}"
    return "".join(symbols.get(c, c if c.isprintable() else unknown) for c in token)


def label_steps(axes: Axes, labels: list[str] | None, steps: int, max_labels: int) -> None:
    """Label the horizontal axis with what each step read, or with numbers if there are too many."""
    if labels is None or steps > max_labels:
        axes.set_xlabel("step")
        axes.tick_params(axis="x", length=3)
        return
    longest = max((len(label) for label in labels), default=0)
    is_upright = longest <= 2
    if is_upright:  # letters on one line, with room for the tallest above it
        axes.tick_params(axis="x", pad=12)
    axes.set_xticks(
        range(steps),
        labels=labels,
        rotation=0 if is_upright else 90,
        va="baseline" if is_upright else "top",
        family="DejaVu Sans Mono",
        parse_math=False,
    )


def add_legend(axes: Axes, **options: Any) -> None:
    """A legend whose labels are shown literally: a $ is a $."""
    for label in axes.legend(**options).get_texts():
        label.set_parse_math(False)
