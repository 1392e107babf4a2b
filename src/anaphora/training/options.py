"""The options of a training run, each with its default and help, defined once.

The command line, `config.json` and Python use the same names. Options of models are in
`anaphora.models.body`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from anaphora import engine, schema
from anaphora.cells import CELLS, Cell
from anaphora.data import FORMATS, check_encoding
from anaphora.distributed.sums import is_power_of_two
from anaphora.equations import EquationError
from anaphora.metrics import DIRECTIONS
from anaphora.models.body import Body
from anaphora.optim import OPTIMIZERS, SCHEDULES
from anaphora.options import COUNT, FACTOR, SHARE, SIZE, Options, check_sizes, option

LIMITS = {"epochs", "max_steps", "minutes"}
"""The options that end a training run."""

NAME_FORMAT = "give the format of files whose names do not show it, such as standard input"
"""Advice for messages."""

data_option = functools.partial(option, section="data")
training_option = functools.partial(option, section="training")


@dataclass(kw_only=True)
class FileOptions(Options):
    """How files are read and what is held out, for every task.

    >>> FileOptions().validation_share
    0.05
    """

    validation_share: float = data_option(
        0.05,
        "Fraction of the text or of each series to forecast (its end), or of the examples (sampled "
        "by seed), that is held out for validation if --valid is not given.",
        SHARE,
    )
    encoding: str = data_option(
        "utf-8",
        "Encoding of the files, by its name in Python: cp1252, latin-1, utf-16, ...",
        reading=True,
    )
    format: str | None = data_option(
        None,
        "Format of the files, if their names do not show it (standard input).",
        tuple(FORMATS),
        reading=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            check_encoding(self.encoding)
        except ValueError as error:  # misuse, not a fault of a text
            raise ValueError(str(error)) from None


@dataclass(kw_only=True)
class DataOptions(FileOptions):
    """What the vocabulary of a task contains.

    >>> DataOptions(minimum_count=2).validation_share
    0.05
    """

    vocabulary_size: int | None = data_option(
        None, "Maximum entries of the vocabulary; the rarest tokens become unknown.", SIZE
    )
    minimum_count: int = data_option(
        1, "Characters or words that occur less often become unknown (not at level bpe).", SIZE
    )
    lowercase: bool = data_option(False, "Convert words to lower case.")


def check_format(format: str | None, kinds: tuple[str, ...], others: tuple[str, ...] = ()) -> None:
    """Check that a task reads a format.

    Args:
        format: A key of `anaphora.data.FORMATS`, or None.
        kinds: The kinds of formats that the task reads.
        others: Additional formats that it reads.

    Raises:
        ValueError: it does not.

    >>> check_format("ts", ("tagged",), ("jsonl",))
    Traceback (most recent call last):
        ...
    ValueError: format 'ts' is not for this task; expected one of jsonl, conllu, columns
    """
    known = [name for name, one in FORMATS.items() if one.kind in kinds or name in others]
    if format is not None and format not in known:
        raise ValueError(
            f"format {format!r} is not for this task; expected one of {', '.join(known)}"
        )


@dataclass(kw_only=True)
class SentenceOptions(DataOptions):
    """How sentences, or other short texts, are split into words.

    >>> SentenceOptions().split
    'auto'
    """

    split: str = data_option(
        "auto",
        "How words are split; auto is whitespace for texts that are tokenized already, and "
        "punctuation for others.",
        ("auto", "whitespace", "punctuation"),
    )


@dataclass(kw_only=True)
class TextOptions(DataOptions):
    """How a text is read and tokenized.

    >>> TextOptions(level="word", lowercase=True).split
    'whitespace'
    >>> TextOptions(lowercase=True)
    Traceback (most recent call last):
        ...
    ValueError: lowercase is for level 'word', not for 'char'
    """

    level: str = data_option("char", "Kind of tokens.", ("char", "word", "bpe"), common=True)
    split: str = data_option("whitespace", "How words are split.", ("whitespace", "punctuation"))
    sentence_start: bool = data_option(False, "Put <bos> before each line, at word level.")
    batching: str = data_option(
        "stream",
        "One text in parallel streams with carried state, or lines as separate sentences.",
        ("stream", "sentences"),
    )
    column: str | None = data_option(
        None, "Column of the text, in tables (.csv, .jsonl, ...).", reading=True
    )
    pattern: str = data_option("*.txt", "Which files of a folder to read.", reading=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        minimum = 256 if self.level == "bpe" else 1  # byte pairs start from the 256 bytes
        check_sizes(minimum=minimum, vocabulary_size=self.vocabulary_size)
        if self.level == "word":
            return
        if self.batching == "sentences":
            raise ValueError(
                "batching 'sentences' needs level 'word', whose tokenizer marks the ends of lines"
            )
        for name in ("lowercase", "sentence_start"):
            if getattr(self, name):
                raise ValueError(f"{name} is for level 'word', not for {self.level!r}")
        if self.split != "whitespace":
            raise ValueError(f"split {self.split!r} is for level 'word', not for {self.level!r}")


@dataclass(kw_only=True)
class TrainingOptions(Options):
    """How a model is trained, and when training ends: at the first limit that is reached.

    >>> TrainingOptions(epochs=13, optimizer="sgd", learning_rate=1.0).clip_norm
    5.0
    >>> TrainingOptions()
    Traceback (most recent call last):
        ...
    ValueError: give a limit: epochs, max_steps or minutes
    """

    epochs: int | None = training_option(
        None, "Stop after this many passes over the data in total.", SIZE, common=True
    )
    max_steps: int | None = training_option(
        None, "Stop after this many updates in total.", SIZE, common=True
    )
    minutes: float | None = training_option(
        None, "Stop after this many minutes in total.", common=True
    )
    batch_size: int = training_option(
        32, "Parallel streams, sentences or other examples (B).", SIZE, common=True
    )
    optimizer: str = training_option("adam", "Optimizer.", tuple(OPTIMIZERS))
    learning_rate: float = training_option(0.002, "Initial learning rate.", common=True)
    momentum: float = training_option(0.0, "Momentum, for sgd and rmsprop.")
    weight_decay: float = training_option(0.0, "Weight decay.", FACTOR)
    lazy_rows: bool = training_option(
        False,
        "adam and adamw update only those rows of an embedding that were read, as PyTorch's "
        "SparseAdam does: faster with a large vocabulary, with another result.",
    )
    schedule: str = training_option(
        "constant",
        "Learning rate schedule: exponential multiplies it by decay at each epoch after "
        "constant_epochs, plateau when validation stops improving; cosine decays to 0; "
        "nonmonotonic keeps it and starts the averaging of asgd.",
        tuple(SCHEDULES),
    )
    warm_up: int = training_option(
        0, "Updates of linear warm-up to the initial learning rate.", COUNT
    )
    decay: float = training_option(0.5, "Factor of the schedules exponential and plateau.")
    constant_epochs: int = training_option(
        4, "Epochs before the schedule exponential starts to decay.", COUNT
    )
    plateau_patience: int = training_option(
        0, "Evaluations without improvement that the schedule plateau tolerates.", COUNT
    )
    clip_norm: float = training_option(
        5.0, "Clip gradients to this global norm; 0 for no clipping.", FACTOR
    )
    clip_value: float = training_option(
        0.0, "Clip each gradient to +- this; 0 for no clipping.", FACTOR
    )
    loss_per: str = training_option(
        "token",
        "What the loss is averaged over before clipping and updates: tokens, or sequences (summed "
        "over the window).",
        ("token", "sequence"),
    )
    evaluate_every: int = training_option(
        0, "Updates between evaluations; 0 for one per epoch.", COUNT
    )
    patience: int = training_option(
        0, "Stop after this many evaluations without improvement; 0 for no early stopping.", COUNT
    )
    log_every: int = training_option(10, "Updates between lines in metrics.jsonl.", SIZE)
    checkpoint_seconds: float = training_option(60.0, "Seconds between checkpoints.", FACTOR)
    seed: int = training_option(1, "Seed of all random numbers.", COUNT, common=True)
    monitor: str = training_option(
        "loss",
        "Figure of an evaluation that decides which weights are kept and when to stop early; the "
        "loss breaks ties. auto: the F1 of spans or the accuracy of classes, else the loss.",
        ("auto", *DIRECTIONS),
    )
    shards: int | None = training_option(
        None,
        "Cut each batch into this many shards, a power of two, whose gradients are added in a "
        "fixed order: any number of processes (mpiexec -n) that divides it gives the same bits. "
        "By default as many as processes.",
        SIZE,
    )
    average_every: int = training_option(
        1,
        "Updates that each process makes by itself before the weights of all are averaged (local "
        "SGD), for slow networks; 1 adds the gradients of each update instead.",
        SIZE,
    )
    outer_momentum: float = training_option(
        0.0, "Nesterov momentum of the averages of average_every, 0.9 in DiLoCo.", SHARE
    )
    outer_learning_rate: float = training_option(
        1.0, "The step from one average to the next, 0.7 in DiLoCo; 1 takes the average itself."
    )
    accumulate: int = training_option(
        1, "Batches per update, whose gradients are accumulated as of one batch.", SIZE
    )
    matmul_precision: str | None = training_option(
        None,
        "Precision of the operands of matrix products: float32, unless this is given, or bfloat16, "
        "which is faster on processors with AVX512_BF16 or AMX, and slower on others.",
        engine.MATMUL_PRECISIONS,
    )
    ema_decay: float = training_option(
        0.0,
        "Decay of an exponential moving average of the weights, such as 0.999, which is evaluated "
        "and saved instead of them; 0 for none.",
        SHARE,
    )

    freeze: tuple[str, ...] = training_option(
        (),
        "Parameters that are not trained, by name or pattern, such as 'embedding.*'. May be "
        "repeated.",
    )
    gradual_unfreezing: bool = training_option(
        False,
        "Train only the last layer in the first epoch, and unfreeze one more layer each epoch.",
    )
    discriminative_factor: float = training_option(
        1.0,
        "Divide the learning rate by this for each layer closer to the inputs; 2.6 in ULMFiT.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is None and self.max_steps is None and self.minutes is None:
            raise ValueError("give a limit: epochs, max_steps or minutes")
        for name in ("minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be more than 0 and finite, not {value}")
        if not 1 <= self.discriminative_factor < math.inf:
            raise ValueError(
                "discriminative_factor must be at least 1 and finite, not "
                f"{self.discriminative_factor}"
            )
        if self.shards is not None and not is_power_of_two(self.shards):
            raise ValueError(f"shards must be a power of two (1, 2, 4, ...), not {self.shards}")
        if not 0 < self.outer_learning_rate < math.inf:
            raise ValueError(
                "outer_learning_rate must be more than 0 and finite, not "
                f"{self.outer_learning_rate}"
            )
        if self.average_every == 1 and (self.outer_momentum or self.outer_learning_rate != 1):
            raise ValueError(
                "outer_momentum and outer_learning_rate are for averages: give average_every"
            )
        if self.evaluate_every % self.average_every:
            raise ValueError(
                f"evaluate_every must be a multiple of average_every, {self.average_every}, not "
                f"{self.evaluate_every}: between averages there are no common weights"
            )
        if self.ema_decay and self.optimizer == "asgd":
            raise ValueError("ema_decay and asgd both average the weights: omit one of them")
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is for sgd and rmsprop, not for {self.optimizer}")
        if self.lazy_rows and self.optimizer not in ("adam", "adamw"):
            raise ValueError(f"lazy_rows is for adam and adamw, not for {self.optimizer}")
        if self.schedule == "cosine" and self.epochs is None and self.max_steps is None:
            raise ValueError(
                "the schedule cosine ends at a known step: give epochs or max_steps (minutes may "
                "be given too), or another schedule, such as plateau"
            )
        if self.schedule == "nonmonotonic" and self.optimizer != "asgd":
            raise ValueError(
                "the schedule nonmonotonic starts averaging: it needs the optimizer asgd, not "
                f"{self.optimizer}"
            )

    def last_step(self, epoch_steps: int) -> int | None:
        """The step at which training ends, given the updates of an epoch; None if only
        ``minutes`` limits it.
        """
        ends = (self.max_steps, self.epochs and self.epochs * epoch_steps)
        return min((step for step in ends if step is not None), default=None)


@dataclass(kw_only=True)
class StreamTrainingOptions(TrainingOptions):
    """How a model is trained on streams of text.

    >>> StreamTrainingOptions(epochs=1).window
    64
    """

    window: int = training_option(64, "Steps of truncated backpropagation through time (T).", SIZE)
    evaluation_batch_size: int = training_option(
        32,
        "Streams that the validation text is split into; 1 carries the state through all of it.",
        SIZE,
    )


class TaskOptions(Body, TrainingOptions):
    """All options of the training of a task, which has a subclass.

    ``config.json`` stores them in the sections "data", "model" and "training".

    >>> from anaphora.training import TASKS
    >>> options = TASKS["tag"].options.make(hidden_size=64, epochs=3)
    >>> options.hidden_size, options.epochs, options.max_steps
    (64, 3, None)
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Presets by name; the first has the task's defaults."""

    given: frozenset[str] | None = None
    """The options that `make` was given without a preset, so that the others may depend on the
    files; None if a preset was given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_matmul_precision(self.matmul_precision, self.dtype)
        if self.shards is not None and self.batch_size < self.shards:
            raise ValueError(
                f"a batch of batch_size {self.batch_size} cannot be cut into {self.shards} shards: "
                "give a larger batch_size or fewer shards"
            )
        if isinstance(self.cell, Cell):
            try:
                self.cell.to_dict()
            except EquationError as error:
                raise ValueError(
                    f"{error}; a model directory stores a cell as its traced equations, so give "
                    "one without fused=False, whose numbers are finite"
                ) from error

    @classmethod
    def make(cls, preset: str | None = None, **changes: Any) -> Self:
        """The options of a preset, with changes.

        A limit (``epochs``, ``max_steps``, ``minutes``) among the changes replaces the limits of
        the preset. Options of the preset that conflict with the changes are dropped: forget_bias
        for a cell without a forget gate; and the schedule cosine, which ends at a known step, if
        ``minutes`` is the only limit (it becomes plateau).

        Args:
            preset: One of `presets`; None for the first.
            **changes: Options by name.

        Raises:
            ValueError: the preset or an option is unknown, or a value is out of range.
        """
        if preset is not None and preset not in cls.presets:
            raise ValueError(f"preset {preset!r} is not one of {', '.join(cls.presets)}")
        values = with_new_limits(cls.presets[preset or next(iter(cls.presets))], changes)
        cell = changes.get("cell", "lstm")
        cell = cell if isinstance(cell, Cell) else CELLS.get(cell)
        if cell is None or "f" not in cell.gates:
            values.pop("forget_bias", None)
        values |= changes
        if unknown := sorted(set(values) - set(cls.fields())):
            raise ValueError(f"unknown options: {', '.join(unknown)}")
        made = cls.from_dict(values)
        made.given = frozenset(changes) if preset is None else None
        return made

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of an option: that of the first preset, if it sets the option."""
        return next(iter(cls.presets.values())).get(name, cls.fields()[name].default)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The options in ``config.json``, without sizes that depend on the data.

        A model saved from Python has no sections "data" and "training"; the first preset then has
        their options.

        Raises:
            ValueError: an option is unknown or out of range.
        """
        first = next(iter(cls.presets.values()))
        values: dict[str, Any] = {"matmul_precision": "float32", "shards": 1}  # before recorded
        for section in ("data", "model", "training"):
            names = cls.fields(section)
            preset = {name: value for name, value in first.items() if name in names}
            part: dict[str, Any] = schema.convert(
                config.get(section, preset), dict[str, Any], section
            )
            if section == "model":
                part = {name: value for name, value in part.items() if name in names}
            if unknown := sorted(set(part) - set(names)):
                raise ValueError(
                    f"{section}: unknown options {', '.join(unknown)}; expected some of "
                    f"{sorted(names)}"
                )
            values |= part
        try:
            return cls.from_dict(values)
        except ValueError as error:
            name = re.match(r"\w*", str(error))
            field = cls.fields().get(name[0]) if name else None
            raise ValueError(f"{field.metadata['section']}.{error}" if field else error) from error

    def to_config(self) -> dict[str, dict[str, Any]]:
        """The options as plain values, by section."""
        return {section: self.to_dict(section) for section in ("data", "model", "training")}


def check_matmul_precision(precision: str | None, dtype: str) -> None:
    """Check the precision of the matrix products of a model.

    Raises:
        ValueError: it is not for the model's dtype.

    >>> check_matmul_precision("bfloat16", "float64")
    Traceback (most recent call last):
        ...
    ValueError: matmul_precision 'bfloat16' is for models of float32, not of float64; omit it, or...
    """
    if precision == "bfloat16" and dtype == "float64":
        raise ValueError(
            "matmul_precision 'bfloat16' is for models of float32, not of float64; omit it, or "
            "train with the dtype float32"
        )


def matmul_precision_notice() -> str | None:
    """A sentence for who computes in bfloat16 where that is slower than float32; None elsewhere.

    >>> matmul_precision_notice()  # in float32
    """
    faster = engine.info()["bfloat16"] in ("dots", "tiles")
    if engine.current_matmul_precision() == "float32" or faster:
        return None
    return (
        "matrix products in bfloat16 are slower than in float32 here: the engine found neither "
        "AVX512_BF16 nor AMX"
    )


def with_new_limits(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a training run, without those that a new limit among the changes replaces.

    These are the old limits, and the schedule cosine, which ends at a known step and becomes
    plateau if ``minutes`` is now the only limit.

    >>> with_new_limits({"max_steps": 10, "schedule": "cosine"}, {"minutes": 5.0})
    {'schedule': 'plateau'}
    """
    if not LIMITS & set(changes):
        return dict(values)
    kept = {name: value for name, value in values.items() if name not in LIMITS}
    if kept.get("schedule") == "cosine" and not {"epochs", "max_steps"} & set(changes):
        kept["schedule"] = "plateau"
    return kept
