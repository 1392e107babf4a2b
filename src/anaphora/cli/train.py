"""``anaphora train``: train a model of a task on files."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NoReturn

import typer

from anaphora.artifact import ModelDirectory
from anaphora.cli.cells import cell_of
from anaphora.cli.options import OPTIONS, options_of, with_options_of
from anaphora.cli.output import (
    INTERRUPTED,
    JSON_HELP,
    Output,
    complain,
    description,
    end,
    failures_of_streams,
    reported_errors,
    reported_misuse,
)
from anaphora.cli.sweep import show_sweep
from anaphora.data import Tokenizer
from anaphora.distributed import Processes, world
from anaphora.generation import Sampler, generate
from anaphora.metrics import DIRECTIONS
from anaphora.training import (
    TASKS,
    Callback,
    ProgressBar,
    Start,
    Task,
    TaskOptions,
    TensorBoard,
    Trainer,
    check_changes,
    prepare_training,
    resume_training,
    task_of,
)
from anaphora.training.progress import duration

_SECONDS_BETWEEN_SAMPLES = 30
_PROMPTS = ("def ", "The ", "the ")
_LONGEST_PROMPT = 30  # characters
_TOKENS_OF_OPENING = 8192
_MARK = re.compile("<(unk|eos|bos|pad)>")  # entries of a vocabulary that are not words


_FIGURES = set(DIRECTIONS) - {"loss", "perplexity", "bits_per_token"}  # in the JSON result

_DEFAULT_TASK = next(iter(TASKS))


@with_options_of(OPTIONS, lambda field: field["section"] in ("data", "model", "training"))
def train(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="What to train on. "
            + " ".join(f"{task.name}: {task.files}." for task in TASKS.values()),
        ),
    ] = None,
    task: Annotated[
        Literal[tuple(TASKS)] | None,  # type: ignore[valid-type]
        typer.Option(
            metavar="TASK",
            help=f"The task of the model: {', '.join(TASKS)}.",
            show_default=_DEFAULT_TASK,
        ),
    ] = None,
    valid: Annotated[
        list[str] | None,
        typer.Option(
            help="Files to validate on, of the same kind; by default the end of a text, or "
            "examples sampled by --seed. May be repeated."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The model directory to write.")] = Path(
        "anaphora-model"
    ),
    preset: Annotated[
        str | None,
        typer.Option(
            help="Default options. "
            + " ".join(
                f"{name}: {', '.join(o.presets)}."
                for name, o in OPTIONS.items()
                if len(o.presets) > 1
            ),
            show_default="the first",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="A model to start from; see --help start.",
            show_default=False,
        ),
    ] = None,
    extend_vocabulary: Annotated[
        bool,
        typer.Option(
            "--extend-vocabulary",
            rich_help_panel="Start",
            help="Add the tokens, labels and tags of FILE that are not in the --from model.",
        ),
    ] = False,
    new_vocabulary: Annotated[
        bool,
        typer.Option(
            "--new-vocabulary",
            rich_help_panel="Start",
            help="Use the vocabulary of FILE; shared entries keep the weights of the --from model.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint in the model directory.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that the directory holds.")
    ] = False,
    sweep: Annotated[
        bool,
        typer.Option(
            "--find-learning-rate",
            rich_help_panel="Start",
            help="Train no model: print a suggested learning rate, found by a short training run "
            "with a rising rate, and plot its losses to OUT/learning-rate.png.",
        ),
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            rich_help_panel="Output",
            help="Also log for TensorBoard, into OUT/tensorboard.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    options: Mapping[str, Any] = {},
) -> None:
    """Train a model: a language model on a text, or with --task a classifier, tagger, translator or
    forecaster.

    Without arguments: a small character model on the source of Python's standard library, in about
    two minutes. Training ends at the first of --epochs, --max-steps and --minutes; Ctrl-C saves,
    and --resume continues. Limits are totals: they include training before --resume, which may
    change them and --patience, and with --learning-rate, --schedule and its options starts a new
    schedule. With --from training starts from the weights of a model of the same task, or, for a
    classifier or tagger, of a language model; its model options and its vocabulary are kept.
    Options that are not for every task name theirs; the defaults for a language model are those of
    --preset char-small.

    With --json, the lines of metrics.jsonl (kind "train" or "evaluation": step, epoch, loss in
    nats, tokens, seconds, ...; perplexity and bits_per_token for a language model or translator;
    accuracy, macro_f1, span_f1, ... for a classifier or tagger in evaluations), and one line of
    kind "result".
    """
    output = Output(as_json)
    reader = _Reader()
    with reported_errors(), failures_of_streams(reader.lose):
        board = [TensorBoard(out / "tensorboard")] if tensorboard else []
        with reported_misuse():
            if resume:
                for_new_runs = (texts, valid, overwrite, preset, task, start, sweep)
                if any(for_new_runs) or extend_vocabulary or new_vocabulary:
                    raise ValueError(
                        "--resume continues with the files and the options of the model directory; "
                        "omit FILE, --task, --valid, --preset, --overwrite, --from and its "
                        "options, and --find-learning-rate"
                    )
                check_changes(options)
                chosen = task_of(out)
                consequences: list[str] = []
                trainer = resume_training(chosen, out, options, consequences.append)
                output.say(f"continuing from step {trainer.progress.step:,} of {out}")
                for sentence in consequences:
                    output.say(sentence)
            else:
                chosen = TASKS[task or _DEFAULT_TASK]
                begin = _start(start, extend_vocabulary, new_vocabulary)
                made = _options(chosen, preset, options, begin)
                prepare = functools.partial(
                    prepare_training,
                    chosen,
                    made,
                    texts=texts or (),
                    validation_texts=valid or (),
                    start=begin,
                    notify=output.say,
                )
                if sweep:
                    with _temporary_folder(out) as folder:
                        show_sweep(output, prepare(folder, overwrite=True), out)
                    return
                trainer = prepare(out, overwrite=overwrite)
        shown = chosen.load_options(out)
        if not resume:
            output.say(_describe(trainer, chosen, shown))
        if trainer.processes.size > 1:
            output.say(_describe_processes(trainer.processes))
        display = _Display(output, chosen, shown)
        if board and trainer.directory is not None and trainer.processes.is_main:
            trainer.directory.make_folder("tensorboard")  # refuses a link
        trainer.callbacks += [*board, display, reader]
        if chosen.writes_text:
            trainer.callbacks.append(_Samples(output))
        try:
            with _interruptible(trainer, display), display:
                reason = trainer.run()
        except KeyboardInterrupt:
            output.say(f"stopped; continue from the last checkpoint with: {_resume(out)}")
            raise typer.Exit(INTERRUPTED) from None
        if not trainer.processes.is_main:
            raise typer.Exit(INTERRUPTED if reason == "interrupted" else 0)
        of_default_text = not (resume or texts)
        try:
            _finish(output, trainer, chosen, out, reason, of_default_text)
        finally:
            if reader.failure is not None:  # reported even if the training was interrupted
                reader.end(out, reason)


@contextlib.contextmanager
def _temporary_folder(out: Path) -> Iterator[str]:
    """A folder that is removed afterwards; of many processes on a disk that all have."""
    processes = world()
    with contextlib.ExitStack() as stack:
        folder = ""
        if processes.is_main:
            place = out.absolute().parent if processes.size > 1 else None
            folder = stack.enter_context(TemporaryDirectory(dir=place))
        yield processes.broadcast(folder)
        processes.barrier()


def _start(path: Path | None, extend: bool, new: bool) -> Start | None:
    """The model to start from, if there is one."""
    if extend and new:
        raise ValueError("--extend-vocabulary and --new-vocabulary exclude each other; omit one")
    if path is None:
        if extend or new:
            raise ValueError(
                f"--{'extend' if extend else 'new'}-vocabulary is only for training that starts "
                "from a model: give --from"
            )
        return None
    return Start(path, "extend" if extend else "new" if new else "keep")


def _options(
    task: Task, preset: str | None, options: Mapping[str, Any], start: Start | None
) -> TaskOptions:
    """The options that the user gave for a task."""
    options = options_of(task.name, options, OPTIONS)
    if "cell" in options:
        options = {**options, "cell": cell_of(options["cell"])}
    make = task.options.make if start is None else functools.partial(start.options, task)
    made: TaskOptions = make(preset, **options)
    return made


def _resume(out: Path) -> str:
    return f"anaphora train --resume --out {shlex.quote(str(out))}"


def _describe(trainer: Trainer, task: Task, options: TaskOptions) -> str:
    count = sum(p.size for _, p in trainer.model.named_parameters())
    bfloat16 = trainer.options.matmul_precision == "bfloat16"
    precision = "; matrix products in bfloat16" if bfloat16 else ""
    return (
        f"{count:,} parameters; {trainer.epoch_steps:,} steps per epoch of "
        f"{task.describe_batches(options)}{precision}"
    )


def _describe_processes(processes: Processes) -> str:
    """The ranks, their machines and PIDs, by which a launcher names one that was killed."""
    ids = processes.all_gather(os.getpid())
    names = (f"{processes.name(rank)} is PID {number}" for rank, number in enumerate(ids))
    return f"{processes.size} processes: {', '.join(names)}"


def _signals() -> list[signal.Signals]:
    """The signals that interrupt: Ctrl-C, termination, and the terminal's hang-up."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


@contextlib.contextmanager
def _interruptible(trainer: Trainer, display: _Display) -> Iterator[None]:
    """The first Ctrl-C (SIGTERM, SIGHUP) ends training after the step, a second immediately."""

    def ask_to_stop(number: int, frame: object) -> None:
        trainer.request_stop("interrupted")
        display.show_stopping()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in _signals()}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as in a background job of a script
            signal.signal(number, ask_to_stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Reader(Callback):
    """The reader of the output: if it closes the pipe, training is interrupted and saved.

    If the output fails otherwise, as on a full disk, training continues without it.
    """

    only_main = True

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def lose(self, failure: OSError) -> None:
        """Handle the failure of a standard stream."""
        if not isinstance(failure, BrokenPipeError):
            complain(f"{description(failure)}; the training continues without it")
        if not isinstance(self.failure, BrokenPipeError):
            self.failure = failure

    def on_start(self, trainer: Trainer) -> None:
        if isinstance(self.failure, BrokenPipeError):
            trainer.request_stop("interrupted")

    def on_step(self, trainer: Trainer, loss: float) -> None:
        self.on_start(trainer)

    def end(self, out: Path, reason: str) -> NoReturn:
        """End the command; its training is saved."""
        assert self.failure is not None
        what = description(self.failure)
        if reason == "interrupted":
            end(f"{what}: interrupted and saved; continue with: {_resume(out)}", INTERRUPTED)
        end(f"{what}; the model is in {out}", 1)


class _Display(ProgressBar):
    """Shows a training run, and emits its records for machines."""

    def __init__(self, output: Output, task: Task, options: TaskOptions) -> None:
        super().__init__(
            output.console,
            say=output.say,
            unit=task.unit,
            measure=functools.partial(task.measure, options),
            report=functools.partial(task.report, options),
        )
        self.output = output

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        self.output.emit(record)
        super().on_record(trainer, record)


class _Samples(Callback):
    """Occasionally shows, after an evaluation, a sample of a language model's text."""

    only_main = True

    def __init__(self, output: Output) -> None:
        self.output = output
        self._last = time.monotonic()

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        seconds = time.monotonic() - self._last
        if record["kind"] == "evaluation" and seconds > _SECONDS_BETWEEN_SAMPLES:
            self._last = time.monotonic()
            model: Any = trainer.model
            sample = show_sample(model, text_prompt(trainer, model.codec), share=0.4)
            self.output.say(sample, style="dim")


def show_sample(model: Any, prompt: str = "", share: float = 1.0) -> str:
    """A sample of the model's text between two rules; the same at each call."""
    tokenizer = model.codec
    length = int(share * (500 if tokenizer.level == "char" else 100))
    sampler = Sampler(0.7, seed=1)
    try:
        text = "".join(generate(model, tokenizer, prompt, length, sampler))
    except ValueError:  # scores of some text may not be finite, even if the loss is
        return "no sample: the model's scores overflow; try a lower learning_rate"
    rule = "-" * 60
    return f"{rule}\n{text.strip()}\n{rule}"


def _finish(
    output: Output, trainer: Trainer, task: Task, out: Path, reason: str, of_default_text: bool
) -> None:
    progress = trainer.progress
    results = ModelDirectory(out).load_config()["results"]
    output.emit(
        {
            "kind": "result",
            "reason": reason,
            "directory": str(out),
            "step": progress.step,
            "epoch": progress.epoch,
            "tokens": progress.tokens,
            "best_loss": progress.best_loss,
            **{name: value for name, value in results.items() if name in _FIGURES},
            "seconds": round(progress.seconds, 3),
        }
    )
    output.say(f"{reason} ({progress.step:,} steps, {duration(progress.seconds)})")
    if progress.best_loss is not None:
        best = task.report(task.load_options(out), results)
        best = f"{progress.best_loss:.4f}{', ' if best else ''}{best}"
        by_loss = trainer.options.monitor == "loss"
        what = "best validation loss" if by_loss else "best validation: loss"
        output.say(f"{what} {best}; the model is in {out}")
    else:
        output.say(f"the model is in {out}")
    if reason == "interrupted":
        output.say(f"saved; continue with: {_resume(out)}")
        raise typer.Exit(INTERRUPTED)
    output.say("\n".join(["Try next:", *_proposals(output, trainer, task, out, of_default_text)]))


def _proposals(
    output: Output, trainer: Trainer, task: Task, out: Path, of_default_text: bool
) -> Iterator[str]:
    """Commands to try next with the model; a language model shows a sample before them."""
    folder = shlex.quote(str(out))
    if task.writes_text:
        model = task.load(out)
        prompt = text_prompt(trainer, model.codec)
        output.say(show_sample(model, prompt))
        yield f"  anaphora generate {folder} --prompt {shlex.quote(prompt)} --temperature 0.7"
    else:
        files = ModelDirectory(out).load_config()["sources"]["texts"]
        yield f"  anaphora predict {folder} {task.example_file(trainer.options, files)}"
    yield f"  {_resume(out)} {_more(trainer)}"
    if of_default_text:
        yield "  anaphora train YOUR_TEXT.txt --minutes 30 --out your-model"


def _more(trainer: Trainer) -> str:
    """Options with which finished training continues for as long again; limits are totals."""
    options, progress = trainer.options, trainer.progress
    if options.patience and progress.evaluations_since_best >= options.patience:
        return f"--patience {2 * options.patience}"
    limits = [
        ("--epochs", options.epochs, progress.epoch),
        ("--max-steps", options.max_steps, progress.step),
        ("--minutes", options.minutes, 0),
    ]
    more = [f"{name} {2 * limit:.15g}" for name, limit, _ in limits if limit is not None]
    if options.schedule == "cosine" and any(limit and done >= limit for _, limit, done in limits):
        more.append(f"--learning-rate {options.learning_rate:g}")  # the rate has decayed to 0
    return " ".join(more)


def text_prompt(trainer: Trainer, tokenizer: Tokenizer) -> str:
    """A short prompt from the text itself, so that it is in the vocabulary.

    It is a word of the text, or the beginning of one if the text has no spaces; with a word
    tokenizer, which cannot read a beginning, it may be empty.
    """
    windows = range(min(128, len(trainer.batches)))
    ids = itertools.chain.from_iterable(trainer.batches[k].inputs[:, 0] for k in windows)
    opening = tokenizer.decode(itertools.islice(ids, _TOKENS_OF_OPENING))
    for prompt in _PROMPTS:
        if prompt in opening:
            return prompt
    for word in opening.split():
        beginning = word if tokenizer.level == "word" else word[:_LONGEST_PROMPT]
        known = not _MARK.fullmatch(word) and "\ufffd" not in beginning
        if len(beginning) <= _LONGEST_PROMPT and beginning.isprintable() and known:
            return beginning
    return ""
