"""The progress bar of a training: in a terminal, in a notebook, or as lines now and then."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import loss_figures

if TYPE_CHECKING:
    from rich.console import Console

    from anaphora.training.trainer import Trainer

_SECONDS_BETWEEN_LINES = 60  # where there is no terminal for a bar
_SECONDS_BETWEEN_DRAWINGS = 0.5  # of a bar in a notebook
_COLUMNS_OF_NOTEBOOK = 100


class ProgressBar(Callback):
    """Shows a training: a bar with loss, speed and time left, and a line for each evaluation.

    `Trainer.run` shows one by itself. In what is neither a terminal nor a notebook, a line each
    minute takes the place of the bar.

    Args:
        console: Where to show it; None for standard output.
        say: Prints a line; None prints on the console.
        unit: What losses are the mean of, in the plural.
        measure: A loss as people of the field read it, in few signs; None for what the model's
            ``loss_kind`` says.
        report: The record of an evaluation as people of the field read it; None for its figures.

    >>> bar = ProgressBar(unit="tokens")
    >>> with bar:  # `Trainer(..., callbacks=[bar])` fills it
    ...     bar.on_notice(None, "a line")
    a line
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        say: Callable[[str], None] | None = None,
        unit: str = "targets",
        measure: Callable[[float], str] | None = None,
        report: Callable[[Mapping[str, Any]], str] = lambda record: _figures(record),
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._notebook = _NotebookCell() if console is None and in_notebook() else None
        if console is None:
            console = Console(force_jupyter=False, highlight=False, emoji=False, soft_wrap=True)
        self._bar_in_terminal = self._notebook is None and console.is_terminal
        self._say = say or (_print if not self._bar_in_terminal else _printer(console))
        self._unit, self._measure, self._report = unit, measure, report
        self._last_line = time.monotonic()
        self._smoothed: float | None = None
        self._speed_from = (0.0, 0)
        full = Column(no_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=full),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[status]}", table_column=full),
            console=console,
            transient=True,
            expand=True,
            disable=not self._bar_in_terminal,
        )
        self._task = self._progress.add_task("training", total=1.0, status="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        if self._notebook is not None:
            self._notebook.clear()

    def _show(self, **fields: Any) -> None:
        self._progress.update(self._task, **fields)
        if self._notebook is not None:
            self._notebook.show(self._progress)

    def show_stopping(self) -> None:
        """Show that the training has been asked to stop; a signal handler may call it."""
        self._show(description="stopping")

    def on_start(self, trainer: Trainer) -> None:  # noqa: D102
        self._speed_from = (trainer.progress.seconds, trainer.progress.tokens)

    def on_step(self, trainer: Trainer, loss: float) -> None:  # noqa: D102
        self._smoothed = loss if self._smoothed is None else 0.98 * self._smoothed + 0.02 * loss
        done, step = trainer.fraction_done(), f"step {trainer.progress.step:,}"
        status = self._status(trainer, self._smoothed, done)
        self._show(completed=done, description=step, status=status)
        now = time.monotonic()
        without_bar = self._notebook is None and not self._bar_in_terminal
        if without_bar and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._say(f"{step} ({done:.0%}): {status}")

    def _status(self, trainer: Trainer, loss: float, done: float) -> str:
        """Loss, speed and time left in fewer than 60 columns."""
        seconds, tokens = self._speed_from
        progress = trainer.progress
        speed = (progress.tokens - tokens) / max(progress.seconds - seconds, 1e-9)
        left = progress.seconds * (1 - done) / done if done else 0.0
        if self._measure is None:
            kind = getattr(trainer.model, "loss_kind", None)
            measure = _figures({**loss_figures(kind, loss)}, decimals=1)
        else:
            measure = self._measure(loss)
        amount = f"{speed:,.0f}" if speed < 10_000 else f"{speed / 1000:,.0f}k"
        parts = (
            f"loss {loss:.3f}",
            *([measure] if measure else []),
            f"{amount} {self._unit}/s",
            f"{duration(left)} left",
        )
        return "  ".join(parts)

    def on_evaluation(self, trainer: Trainer) -> None:  # noqa: D102
        self._show(description="evaluating", completed=0, status="")

    def on_evaluation_batch(self, trainer: Trainer, done: int, total: int) -> None:  # noqa: D102
        status = f"batch {done:,} of {total:,}"
        self._show(description="evaluating", completed=done / total, status=status)

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:  # noqa: D102
        if record["kind"] != "evaluation":
            return
        report = self._report(record)
        self._say(
            f"step {record['step']:,}, {duration(record['seconds'])}: validation loss "
            f"{record['loss']:.4f}{', ' if report else ''}{report}"
            f"{'' if record['best'] else ' (no better)'}"
        )

    def on_notice(self, trainer: Trainer, sentence: str) -> None:  # noqa: D102
        self._say(sentence)


def bar_for(callbacks: list[Callback]) -> ProgressBar | None:
    """The bar that `Trainer.run` shows: none where there is one already, or nobody to see it.

    >>> bar_for([]) is None  # standard output is neither a terminal nor a notebook here
    True
    """
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return None
    return ProgressBar() if in_notebook() or _in_terminal() else None


def in_notebook() -> bool:
    """Whether this runs in a Jupyter notebook, or in what derives from one, such as Colab.

    >>> in_notebook()
    False
    """
    interactive: Any = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return any(base.__name__ == "ZMQInteractiveShell" for base in type(shell).__mro__)


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours.

    >>> duration(75.2), duration(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _NotebookCell:
    """A part of the output of a notebook's cell that is shown again and again."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = -_SECONDS_BETWEEN_DRAWINGS

    def show(self, progress: Any) -> None:
        """Show a bar of rich as text, unless it was shown just now."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_DRAWINGS:
            return
        self._last = now
        from rich.console import Console

        text = io.StringIO()
        width = _COLUMNS_OF_NOTEBOOK
        console = Console(file=text, width=width, force_terminal=False, force_jupyter=False)
        console.print(progress.get_renderable())
        self._put(text.getvalue().rstrip())

    def clear(self) -> None:
        """Leave nothing of the bar."""
        if self._handle is not None:
            self._put("")

    def _put(self, text: str) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)


def _in_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _print(line: str) -> None:
    print(line, flush=True)


def _printer(console: Console) -> Callable[[str], None]:
    """Prints lines before a bar."""
    return lambda line: console.print(line, markup=False)


def _figures(record: Mapping[str, Any], decimals: int = 2) -> str:
    """The figures of a record that say more than its loss."""
    if "accuracy" in record:
        return f"accuracy {record['accuracy']:.2%}"
    if "perplexity" in record:
        return f"perplexity {record['perplexity']:,.{decimals}f}"
    if "root_mean_squared_error" in record:
        return f"error {record['root_mean_squared_error']:.4g}"
    return ""
