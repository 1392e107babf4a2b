"""``anaphora train``: train a language model on a text."""

from __future__ import annotations

import contextlib
import itertools
import math
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from anaphora.artifact import ModelDirectory, read_json
from anaphora.cli.options import with_options_of
from anaphora.cli.output import (
    INTERRUPTED,
    JSON_HELP,
    Output,
    format_loss,
    reported_errors,
    reported_misuse,
)
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
    perplexity,
    prepare_language_model,
    resume_language_model,
)

_SECONDS_BETWEEN_SAMPLES = 30
_SECONDS_BETWEEN_LINES = 60  # of progress, where there is no terminal for a bar
_PROMPTS = ("def ", "The ", "the ")
_DEFAULT_PRESET = "char-small"


@with_options_of(
    {"Text": TextOptions, "Model": ModelOptions, "Training": TrainingOptions},
    defaults=PRESETS[_DEFAULT_PRESET],
)
def train(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT",
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

    With --json, the lines that metrics.jsonl gets (kind "train" or "evaluation": step, epoch, loss
    in nats a token, perplexity, bits_per_token, tokens, seconds, ...), and one of kind "result".
    """
    output = Output(as_json)
    with reported_errors():
        board = [TensorBoard(out / "tensorboard")] if tensorboard else []
        with reported_misuse():
            if resume:
                if texts or valid or overwrite or preset:
                    raise ValueError(
                        "--resume goes on with the text and the options of the model directory; "
                        "leave TEXT, --valid, --preset and --overwrite away"
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
        tokenizer = Tokenizer.from_dict(read_json(ModelDirectory(out).tokenizer))
        display = _Display(output, tokenizer)
        trainer.callbacks += [*board, display]
        try:
            with _interruptible(trainer, display), display:
                reason = trainer.run()
        except KeyboardInterrupt:
            output.say(f"stopped at once; go on from the last checkpoint with: {_resume(out)}")
            raise typer.Exit(INTERRUPTED) from None
        _finish(output, trainer, out, reason, tokenizer)


def _resume(out: Path) -> str:
    return f"anaphora train --resume --out {shlex.quote(str(out))}"


def _describe(trainer: Trainer) -> str:
    count = sum(p.size for _, p in trainer.model.named_parameters())
    at_most = "" if trainer.batches.carries_state else "at most "  # sentences may be shorter
    return (
        f"{count:,} parameters; {len(trainer.batches):,} steps an epoch of {at_most}"
        f"{trainer.options.batch_size} x {trainer.options.window} tokens"
    )


@contextlib.contextmanager
def _interruptible(trainer: Trainer, display: _Display) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the training after the step, a second one at once."""

    def ask_to_stop(number: int, frame: object) -> None:
        trainer.request_stop("interrupted")
        display.show_stopping()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as of a job in the background of a script
            signal.signal(number, ask_to_stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Display(Callback):
    """Shows a training: a progress bar, evaluations, and now and then a sample."""

    def __init__(self, output: Output, tokenizer: Tokenizer) -> None:
        self.output = output
        self._tokenizer = tokenizer
        self._last_sample = self._last_line = time.monotonic()
        self._smoothed: float | None = None
        self._speed_from = (0.0, 0)
        whole = Column(no_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=whole),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[status]}", table_column=whole),
            console=output.console,
            transient=True,
            expand=True,
            disable=not output.console.is_terminal,
        )
        self._task = self._progress.add_task("training", total=1.0, status="")

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show_stopping(self) -> None:
        """Show that the training has been asked to stop; a signal handler may call it."""
        self._progress.update(self._task, description="stopping")

    def on_start(self, trainer: Trainer) -> None:
        self._speed_from = (trainer.progress.seconds, trainer.progress.tokens)

    def on_step(self, trainer: Trainer, loss: float) -> None:
        self._smoothed = loss if self._smoothed is None else 0.98 * self._smoothed + 0.02 * loss
        done, step = trainer.fraction_done(), f"step {trainer.progress.step:,}"
        status = self._status(trainer, self._smoothed, done)
        self._progress.update(self._task, completed=done, description=step, status=status)
        now = time.monotonic()
        if self._progress.disable and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.output.say(f"{step} ({done:.0%}): {status}")

    def _status(self, trainer: Trainer, loss: float, done: float) -> str:
        """Loss, speed and time left in fewer than 60 columns."""
        seconds, tokens = self._speed_from
        progress = trainer.progress
        speed = (progress.tokens - tokens) / max(progress.seconds - seconds, 1e-9)
        left = progress.seconds * (1 - done) / done if done else 0.0
        if self._tokenizer.level == "char":
            measure = f"{loss / math.log(2):.3f} bits/char"
        else:
            measure = f"perplexity {perplexity(loss):,.1f}"
        amount = f"{speed:,.0f}" if speed < 10_000 else f"{speed / 1000:,.0f}k"
        return f"loss {loss:.3f}  {measure}  {amount} tokens/s  {_duration(left)} left"

    def on_evaluation(self, trainer: Trainer) -> None:
        self._progress.update(self._task, description="evaluating")

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        self.output.emit(record)
        if record["kind"] != "evaluation":
            return
        self.output.say(
            f"step {record['step']:,}, {_duration(record['seconds'])}: validation loss "
            f"{record['loss']:.4f}, {format_loss(record['loss'], self._tokenizer.level)}"
            f"{'' if record['best'] else ' (no better)'}"
        )
        if time.monotonic() - self._last_sample > _SECONDS_BETWEEN_SAMPLES:
            self._last_sample = time.monotonic()
            prompt = text_prompt(trainer, self._tokenizer)
            sample = show_sample(trainer.model, self._tokenizer, prompt, share=0.4)
            self.output.say(sample, style="dim")


def show_sample(model: Any, tokenizer: Tokenizer, prompt: str = "", share: float = 1.0) -> str:
    """A sample of the model's text between two rules; the same one at each call."""
    length = int(share * (500 if tokenizer.level == "char" else 100))
    sampler = Sampler(0.7, seed=1)
    try:
        text = "".join(generate(model, tokenizer, prompt, length, sampler))
    except ValueError:  # the loss may still be finite where the scores of some text are not
        return "no sample: the model's scores overflow; try a lower learning_rate"
    rule = "-" * 60
    return f"{rule}\n{text.strip()}\n{rule}"


def _finish(output: Output, trainer: Trainer, out: Path, reason: str, tokenizer: Tokenizer) -> None:
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
        best = format_loss(progress.best_loss, tokenizer.level)
        output.say(f"best validation loss {progress.best_loss:.4f}, {best}; the model is in {out}")
    else:
        output.say(f"the model is in {out}")
    if reason == "interrupted":
        output.say(f"saved; go on with: {_resume(out)}")
        raise typer.Exit(INTERRUPTED)
    model, _ = load_language_model(out)
    prompt, folder = text_prompt(trainer, tokenizer), shlex.quote(str(out))
    output.say(show_sample(model, tokenizer, prompt))
    output.say(
        f"Try next:\n"
        f"  anaphora generate {folder} --prompt {shlex.quote(prompt)} --temperature 0.7\n"
        f"  {_resume(out)} --max-steps {2 * progress.step}\n"
        f"  anaphora train YOUR_TEXT.txt --minutes 30 --out your-model"
    )


def text_prompt(trainer: Trainer, tokenizer: Tokenizer) -> str:
    """A prompt that the text itself has, so that the vocabulary has it too."""
    windows = range(min(128, len(trainer.batches)))
    ids = itertools.chain.from_iterable(trainer.batches[k].inputs[:, 0] for k in windows)
    opening = tokenizer.decode(ids)
    words = opening.split() or [""]
    return next((prompt for prompt in _PROMPTS if prompt in opening), words[0])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
