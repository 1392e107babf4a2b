"""Picture: data, and the figure that is drawn of them. Only this file imports matplotlib."""

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

Draw: TypeAlias = "Callable[[Figure], None]"

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""One after the other for lines; told apart by the colour-blind too (Okabe & Ito 2008)."""

_FORMATS = (".png", ".svg")
_STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # it comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "legend.frameon": False,
    "savefig.dpi": 100,
    "svg.fonttype": "path",
    "svg.hashsalt": "anaphora",  # the same picture, the same bytes
}


class Picture:
    """What a function of `anaphora.plot` returns: data at once, and a figure of them.

    The figure is drawn when it is first asked for, by `figure`, by `save` or by a notebook, which
    shows a picture that a cell ends with. No display is needed, and nothing of matplotlib's own
    state is changed.

    Args:
        data: What is shown.
        draw: Draws it on an empty figure of matplotlib.
        size: Width and height of the figure, in inches; at 100 dots each.

    Attributes:
        data: What is shown; each function says what that is.

    >>> import tempfile
    >>> picture = Picture({"y": [1, 4, 9]}, lambda figure: figure.subplots().plot([1, 4, 9]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture.save(Path(folder, "y.svg")).name
    'y.svg'
    """

    def __init__(
        self, data: Mapping[str, Any], draw: Draw, size: tuple[float, float] = (7.0, 3.6)
    ) -> None:
        self.data = data
        self._draw = draw
        self._size = size

    @cached_property
    def figure(self) -> Figure:
        """The drawn ``matplotlib.figure.Figure``, to add to or to change.

        Raises:
            ImportError: matplotlib is not installed.
        """
        with _styled() as new_figure:
            figure = new_figure(figsize=self._size, layout="constrained")
            self._draw(figure)
            # Lay it out once: each further time would move things by a hair.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure as PNG or SVG, by the suffix of the path; return the path.

        Raises:
            ValueError: the suffix is another one.
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
        # Neither a date nor a version of the library: the same data give the same bytes.
        metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
        options: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if format == "png" else {}
        figure, file = self.figure, io.BytesIO()
        with _styled():
            figure.savefig(file, format=format, metadata=metadata, **options)
        return file.getvalue()


def require_matplotlib() -> None:
    """Refuse to go on where pictures cannot be drawn.

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
    """Within it matplotlib draws in our style; gives its class of figures."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A sign that the font lacks is drawn as a box, and that says it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure


def shown_token(token: str) -> str:
    r"""A token as a label: a space and a line end get signs that can be seen.

    >>> [shown_token(token) for token in (" ", "a\n", "b")]
    ['·', 'a↵', 'b']
    """
    signs = {" ": "·", "\n": "↵", "\t": "→"}
    unknown = "\N{REPLACEMENT CHARACTER}"
    return "".join(signs.get(c, c if c.isprintable() else unknown) for c in token)


def label_steps(axes: Axes, labels: list[str] | None, steps: int, most: int) -> None:
    """Put what each step read below the horizontal axis, or numbers where that is too much."""
    if labels is None or steps > most:
        axes.set_xlabel("step")
        axes.tick_params(axis="x", length=3)
        return
    longest = max((len(label) for label in labels), default=0)
    axes.set_xticks(
        range(steps),
        labels=labels,
        rotation=90 if longest > 2 else 0,
        family="DejaVu Sans Mono",
        parse_math=False,
    )


def add_legend(axes: Axes, **options: Any) -> None:
    """A legend whose names are shown as they are: a $ in one is a $."""
    for label in axes.legend(**options).get_texts():
        label.set_parse_math(False)
