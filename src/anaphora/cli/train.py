"""``anaphora train``: train a language model on a text."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from anaphora.artifact import ModelDirectory
from anaphora.cli.options import with_options_of
from anaphora.cli.output import INTERRUPTED, JSON_HELP, Output, format_loss, reported_errors
from anaphora.generation import Sampler, generate
from anaphora.models import load_language_model
from anaphora.text import Tokenizer
from anaphora.training import (
    PRESETS,
    Callback,
    LanguageModelOptions,
    ModelOptions,
    TensorBoard,
    TextOptions,
    Trainer,
    TrainingOptions,
    prepare_language_model,
    resume_language_model,
)

_SECONDS_BETWEEN_SAMPLES = 30
_DEFAULT_PRESET = "char-small"


@with_options_of(
    {"Text": TextOptions, "Model": ModelOptions, "Training": TrainingOptions},
    defaults=PRESETS[_DEFAULT_PRESET],
)
def train(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Files, folders, or - for standard input. Without any: the source of Python's "
            "standard library.",
        ),
    ] = None,
    valid: Annotated[
        list[str] | None,
        typer.Option(help="Text to validate on; else the end of TEXT. May be given again."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The model directory to write.")] = Path(
        "anaphora-model"
    ),
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Options to begin with: {', '.join(PRESETS)}.", show_default=_DEFAULT_PRESET
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the model directory.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that the directory holds.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log for TensorBoard, into OUT/tensorboard.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    options: Mapping[str, Any] = {},
) -> None:
    """Train a language model on a text.

    Without arguments: a small character model on the source of Python's standard library, in about
    two minutes. Training ends at the first of --epochs, --max-steps and --minutes; Ctrl-C saves,
    and --resume goes on. The defaults below are those of --preset char-small.
    """
    output = Output(as_json)
    with reported_errors():
        if resume:
            if texts or valid or overwrite or preset:
                raise ValueError(
                    "--resume goes on with the text and the options of the model directory; leave "
                    "TEXT, --valid, --preset and --overwrite away"
                )
            trainer = resume_language_model(out, options)
            output.say(f"going on from step {trainer.progress.step:,} of {out}")
        else:
            trainer = prepare_language_model(
                LanguageModelOptions.from_preset(preset or _DEFAULT_PRESET, **options),
                out,
                texts or (),
                valid or (),
                overwrite=overwrite,
                notify=output.say,
            )
            output.say(_describe(trainer))
        if tensorboard:
            trainer.callbacks.append(TensorBoard(out / "tensorboard"))
        display = _Display(output, trainer, *_level_and_tokenizer(out))
        trainer.callbacks.append(display)
        with _interruptible(trainer), display:
            reason = trainer.run()
        _finish(output, trainer, out, reason, display.level)


def _level_and_tokenizer(out: Path) -> tuple[str, Tokenizer]:
    config, tokenizer, _ = ModelDirectory.open(out).load()
    return config["text"]["level"], Tokenizer.from_dict(tokenizer)


def _describe(trainer: Trainer) -> str:
    count = sum(p.size for _, p in trainer.model.named_parameters())
    return (
        f"{count:,} parameters; {len(trainer.batches):,} steps an epoch of "
        f"{trainer.options.batch_size} x {trainer.options.window} tokens"
    )


@contextlib.contextmanager
def _interruptible(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the training after the step, a second one at once."""

    def ask_to_stop(number: int, frame: object) -> None:
        trainer.request_stop("interrupted")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    for number, _ in before:
        signal.signal(number, ask_to_stop)
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class _Display(Callback):
    """Shows a training: a progress bar, evaluations, and now and then a sample."""

    def __init__(self, output: Output, trainer: Trainer, level: str, tokenizer: Tokenizer) -> None:
        self.output = output
        self.level = level
        self._tokenizer = tokenizer
        self._last_sample = time.monotonic()
        self._smoothed: float | None = None
        self._speed_from = (0.0, 0)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[status]}"),
            console=output.console,
            transient=True,
        )
        self._task = self._progress.add_task("training", total=1.0, status="")

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def on_start(self, trainer: Trainer) -> None:
        self._speed_from = (trainer.progress.seconds, trainer.progress.tokens)

    def on_step(self, trainer: Trainer, loss: float) -> None:
        self._smoothed = loss if self._smoothed is None else 0.98 * self._smoothed + 0.02 * loss
        progress, done = trainer.progress, trainer.fraction_done()
        seconds, tokens = self._speed_from
        speed = (progress.tokens - tokens) / max(progress.seconds - seconds, 1e-9)
        left = progress.seconds * (1 - done) / done if done else 0.0
        self._progress.update(
            self._task,
            completed=done,
            description=f"step {progress.step:,}",
            status=f"loss {self._smoothed:.3f}  {format_loss(self._smoothed, self.level)}  "
            f"{speed:,.0f} tokens/s  {_duration(left)} left",
        )

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        self.output.emit(record)
        if record["kind"] != "evaluation":
            return
        self.output.say(
            f"step {record['step']:,}, {_duration(record['seconds'])}: validation loss "
            f"{record['loss']:.4f}, {format_loss(record['loss'], self.level)}"
            f"{'' if record['best'] else ' (no better)'}"
        )
        if time.monotonic() - self._last_sample > _SECONDS_BETWEEN_SAMPLES:
            self._last_sample = time.monotonic()
            sample = show_sample(trainer.model, self._tokenizer, self.level, 0.2)
            self.output.say(sample, style="dim")


def show_sample(model: Any, tokenizer: Tokenizer, level: str, share: float = 1.0) -> str:
    """A sample of the model's text between two rules; the same one at each call."""
    length = int(share * (500 if level == "char" else 100))
    text = "".join(generate(model, tokenizer, length=length, sampler=Sampler(0.7, seed=1)))
    rule = "-" * 60
    return f"{rule}\n{text.strip()}\n{rule}"


def _finish(output: Output, trainer: Trainer, out: Path, reason: str, level: str) -> None:
    progress = trainer.progress
    output.emit(
        {
            "kind": "result",
            "reason": reason,
            "directory": str(out),
            "step": progress.step,
            "epoch": progress.epoch,
            "tokens": progress.tokens,
            "best_loss": progress.best_loss,
            "seconds": round(progress.seconds, 3),
        }
    )
    output.say(f"{reason} ({progress.step:,} steps, {_duration(progress.seconds)})")
    if progress.best_loss is not None:
        best = format_loss(progress.best_loss, level)
        output.say(f"best validation loss {progress.best_loss:.4f}, {best}; the model is in {out}")
    if reason == "interrupted":
        output.say(f"saved; go on with: anaphora train --resume --out {out}")
        raise typer.Exit(INTERRUPTED)
    model, tokenizer = load_language_model(out)
    output.say(show_sample(model, tokenizer, level))
    prompt = "def " if level == "char" else "the"
    output.say(
        f"Try next:\n"
        f"  anaphora generate {out} --prompt {prompt!r} --temperature 0.7\n"
        f"  anaphora train --resume --out {out} --max-steps {2 * progress.step}\n"
        f"  anaphora train YOUR_TEXT.txt --minutes 30 --schedule plateau --out your-model"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
