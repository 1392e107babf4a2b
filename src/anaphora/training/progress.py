"""The progress bar of a training run: in a terminal, in a notebook, or as occasional lines."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from anaphora.training.callbacks import Callback
from anaphora.training.evaluation import loss_figures, report_loss

if TYPE_CHECKING:
    from rich.console import Console

    from anaphora.training.trainer import Trainer

_SECONDS_BETWEEN_LINES = 60  # without a terminal
_SECONDS_BETWEEN_UPDATES = 0.5  # of a bar in a notebook
_NOTEBOOK_WIDTH = 100


class ProgressBar(Callback):
    """Shows a bar with loss, speed and time left, and a line for each evaluation.

    `Trainer.run` shows one by default. Outside terminals and notebooks, a line every minute
    replaces the bar.

    Args:
        console: Where to show it; None for standard output.
        say: Prints a line; None prints to the console.
        unit: What the loss is averaged over, in the plural.
        measure: Formats a loss in a few characters; None for the figures of the model's
            ``loss_kind``.
        report: Formats the record of an evaluation.

    >>> bar = ProgressBar(unit="tokens")
    >>> with bar:  # `Trainer(..., callbacks=[bar])` fills it
    ...     bar.on_notice(None, "a line")
    a line
    """

    only_main = True

    def __init__(
        self,
        console: Console | None = None,
        *,
        say: Callable[[str], None] | None = None,
        unit: str = "targets",
        measure: Callable[[float], str] | None = None,
        report: Callable[[Mapping[str, Any]], str] = report_loss,
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
        """Show that the training is stopping; signal handlers may call it."""
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
            measure = report_loss(loss_figures(kind, loss), short=True)
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
    """The bar that `Trainer.run` shows: None if there is one already, or nowhere to show it.

    >>> bar_for([]) is None  # standard output is neither a terminal nor a notebook here
    True
    """
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return None
    return ProgressBar() if in_notebook() or _in_terminal() else None


def in_notebook() -> bool:
    """Whether this runs in a Jupyter notebook, or a derivative such as Colab.

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
    """An updatable part of the output of a notebook's cell."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = -_SECONDS_BETWEEN_UPDATES

    def show(self, progress: Any) -> None:
        """Show a bar of rich as text, unless it was updated very recently."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        from rich.console import Console

        text = io.StringIO()
        width = _NOTEBOOK_WIDTH
        console = Console(file=text, width=width, force_terminal=False, force_jupyter=False)
        console.print(progress.get_renderable())
        self._put(text.getvalue().rstrip())

    def clear(self) -> None:
        """Remove the bar."""
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
    except (AttributeError, ValueError):  # no standard output, or it is closed
        return False


def _print(line: str) -> None:
    print(line, flush=True)


def _printer(console: Console) -> Callable[[str], None]:
    """Prints lines above a bar."""
    return lambda line: console.print(line, markup=False)
