"""The options of a training: every one with its default and its help, written once.

The command line, `config.json` and Python use the same names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from anaphora import schema
from anaphora.cells import CELLS
from anaphora.data import check_encoding
from anaphora.optim import OPTIMIZERS, SCHEDULES


def option(default: Any, help: str, choices: tuple[str, ...] = (), *, common: bool = False) -> Any:
    """A field of an options class.

    Args:
        default: Its default.
        help: What it means.
        choices: The words it may be; none if it may be anything.
        common: Whether the command line's ``--help`` shows it without being asked for all options.
    """
    metadata = {"help": help, "choices": choices, "common": common}
    return dataclasses.field(default=default, metadata=metadata)


class Options:
    """What all options classes share: they check their words and are made from dictionaries."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, choices = getattr(self, field.name), field.metadata["choices"]
            if isinstance(value, int) and abs(value) >= 2**63:
                raise ValueError(f"{field.name} is {value:.3g}; expected a number of 63 bits")
            if choices and value not in choices:
                raise ValueError(f"{field.name} {value!r:.80} is none of {', '.join(choices)}")

    @classmethod
    def names(cls) -> set[str]:
        """The names of the options."""
        return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make the options of a dictionary; what it lacks gets its default.

        Raises:
            ValueError: a name is unknown, or a value is of another type than the field, or out of
                its range.
        """
        unknown = sorted(set(values) - cls.names())
        if unknown:
            raise ValueError(
                f"unknown options {', '.join(unknown)}; there are {sorted(cls.names())}"
            )
        numbers = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        options: Self = schema.convert(numbers, cls)
        return options

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values."""
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True)
class TextOptions(Options):
    """How a text is read and cut into tokens.

    >>> TextOptions(level="word", lowercase=True).split
    'whitespace'
    >>> TextOptions(lowercase=True)
    Traceback (most recent call last):
        ...
    ValueError: lowercase is for level 'word', not for 'char'
    """

    level: str = option("char", "What a token is.", ("char", "word", "bpe"), common=True)
    vocabulary_size: int | None = option(
        None, "Most entries of the vocabulary; the rarest tokens become unknown."
    )
    minimum_count: int = option(
        1, "Characters or words that occur less often become unknown (not at level bpe)."
    )
    lowercase: bool = option(False, "Make words lower-case.")
    split: str = option("whitespace", "How words are told apart.", ("whitespace", "punctuation"))
    sentence_start: bool = option(False, "Put <bos> before each line, at word level.")
    batching: str = option(
        "stream",
        "One text in parallel streams with carried state, or lines as separate sentences.",
        ("stream", "sentences"),
    )
    column: str | None = option(
        None, "Read .csv or .tsv files, and take the text from this column."
    )
    pattern: str = option("*.txt", "Which files of a folder to read.")
    validation_share: float = option(
        0.05,
        "Share of the text (its end) or of the examples (drawn by seed) that is held out for "
        "validation where no --valid is given.",
    )
    encoding: str = option(
        "utf-8",
        "Encoding of the files, as Python calls it: cp1252, latin-1, utf-16, shift_jis, ...",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_encoding(self)
        _check_shares(self, "validation_share")
        least = 256 if self.level == "bpe" else 1  # byte pairs begin with the 256 bytes
        _check_sizes(self, least, "vocabulary_size")
        _check_sizes(self, 1, "minimum_count")
        if self.level == "word":
            return
        if self.batching == "sentences":
            raise ValueError(
                "batching 'sentences' needs level 'word', whose tokenizer marks where lines end"
            )
        for name in ("lowercase", "sentence_start"):
            if getattr(self, name):
                raise ValueError(f"{name} is for level 'word', not for {self.level!r}")
        if self.split != "whitespace":
            raise ValueError(f"split {self.split!r} is for level 'word', not for {self.level!r}")


@dataclass(frozen=True)
class ModelOptions(Options):
    """The shape of a language model.

    >>> options = ModelOptions(hidden_size=200, initialization="0.1")  # as on the command line
    >>> options.cell, options.initialization
    ('lstm', 0.1)
    """

    cell: str = option("lstm", "The recurrent cell.", tuple(CELLS), common=True)
    hidden_size: int = option(256, "Units of each recurrent layer.", common=True)
    embedding_size: int | None = option(None, "Size of the embeddings; hidden_size if not given.")
    num_layers: int = option(1, "Recurrent layers.", common=True)
    dropout: float = option(
        0.0, "Share dropped on the embeddings, between layers and before the output.", common=True
    )
    locked_dropout: bool = option(
        False, "Let dropout drop the same units at all steps of a window."
    )
    embedding_dropout: float = option(
        0.0, "Share of the vocabulary whose embeddings are dropped in a window."
    )
    weight_dropout: float = option(
        0.0, "Share of the recurrent weights that are dropped in a window."
    )
    zoneout: float = option(0.0, "Share of the units that keep their states in a step.")
    activation_penalty: float = option(
        0.0, "Factor of the mean square of the last layer's output, added to the training loss."
    )
    temporal_penalty: float = option(
        0.0, "Factor of the mean squared change of that output from step to step, added likewise."
    )
    layer_norm: bool = option(False, "Normalise the outputs of each recurrent layer.")
    tied: bool = option(False, "Use the embeddings as output weights too.")
    initialization: str | float = option(
        "pytorch", "pytorch, xavier, orthogonal, or a number a for uniform(-a, a)."
    )
    forget_bias: float | None = option(None, "Bias with which forget gates start.")
    dtype: str = option("float32", "Precision.", ("float32", "float64"))

    def __post_init__(self) -> None:
        super().__post_init__()
        with contextlib.suppress(ValueError):  # a name stays a name
            object.__setattr__(self, "initialization", float(self.initialization))
        _check_sizes(self, 1, "hidden_size", "embedding_size", "num_layers")
        _check_units(self, "hidden_size", "embedding_size")
        _check_shares(self, "dropout", "embedding_dropout", "weight_dropout", "zoneout")
        if self.locked_dropout and not self.dropout:
            raise ValueError("locked_dropout says how dropout drops, but dropout is 0: give it too")
        for name in ("activation_penalty", "temporal_penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, not {getattr(self, name)}")
        if self.tied and self.embedding_size not in (None, self.hidden_size):
            raise ValueError(
                f"tied needs embedding_size ({self.embedding_size}) to be hidden_size "
                f"({self.hidden_size}), as the output has the embeddings as its weights"
            )


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How a model is trained, and when that ends: at the first limit that is reached.

    >>> TrainingOptions(epochs=13, optimizer="sgd", learning_rate=1.0).clip_norm
    5.0
    >>> TrainingOptions()
    Traceback (most recent call last):
        ...
    ValueError: give a limit: epochs, max_steps or minutes
    """

    epochs: int | None = option(
        None, "Stop after so many passes over the text in all, also with --resume.", common=True
    )
    max_steps: int | None = option(
        None, "Stop after so many updates in all, also with --resume.", common=True
    )
    minutes: float | None = option(
        None, "Stop after so many minutes in all, also with --resume.", common=True
    )
    batch_size: int = option(32, "Parallel streams, sentences or other examples (B).", common=True)
    window: int = option(64, "Steps of truncated backpropagation through time (T).")
    optimizer: str = option("adam", "Optimiser.", tuple(OPTIMIZERS))
    learning_rate: float = option(0.002, "Learning rate at the start.", common=True)
    momentum: float = option(0.0, "Momentum, for sgd and rmsprop.")
    weight_decay: float = option(0.0, "Weight decay.")
    schedule: str = option(
        "constant",
        "What becomes of the learning rate: exponential multiplies it by decay at each epoch after "
        "constant_epochs, plateau when validation gets no better; cosine ends at 0; nonmonotonic "
        "leaves it and starts the averaging of asgd.",
        tuple(SCHEDULES),
    )
    warm_up: int = option(0, "Updates over which the learning rate rises to its start.")
    decay: float = option(0.5, "Factor of the schedules exponential and plateau.")
    constant_epochs: int = option(4, "Epochs before the schedule exponential begins.")
    plateau_patience: int = option(
        0, "Evaluations without progress that the schedule plateau waits for."
    )
    clip_norm: float = option(5.0, "Clip gradients to this global norm; 0 for no clipping.")
    clip_value: float = option(0.0, "Clip each gradient to +- this; 0 for no clipping.")
    loss_per: str = option(
        "token",
        "What the loss is the mean of before clipping and updates: tokens, or sequences (then it "
        "is a sum over the window).",
        ("token", "sequence"),
    )
    evaluate_every: int = option(0, "Updates between evaluations; 0 for once an epoch.")
    evaluation_batch_size: int = option(
        32, "Streams that the validation text is cut into; 1 carries the state through all of it."
    )
    patience: int = option(0, "Stop after so many evaluations without progress; 0 to go on.")
    log_every: int = option(10, "Updates between lines in metrics.jsonl.")
    checkpoint_seconds: float = option(60.0, "Seconds between checkpoints.")
    seed: int = option(1, "Seed of all random numbers.", common=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is None and self.max_steps is None and self.minutes is None:
            raise ValueError("give a limit: epochs, max_steps or minutes")
        _check_sizes(
            self, 1, "epochs", "max_steps", "batch_size", "window", "log_every",
            "evaluation_batch_size",
        )  # fmt: skip
        _check_sizes(
            self, 0, "patience", "evaluate_every", "warm_up", "plateau_patience",
            "constant_epochs", "seed",
        )  # fmt: skip
        for name in ("minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be more than 0 and finite, not {value}")
        for name in ("clip_norm", "clip_value", "checkpoint_seconds", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number >= 0, not {value}")
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(f"momentum is for sgd and rmsprop, not for {self.optimizer}")
        if self.schedule == "cosine" and self.epochs is None and self.max_steps is None:
            raise ValueError(
                "the schedule cosine ends at a known step: give epochs or max_steps, with minutes "
                "if you like, or begin with another schedule, such as plateau"
            )
        if self.schedule == "nonmonotonic" and self.optimizer != "asgd":
            raise ValueError(
                "the schedule nonmonotonic starts averaging: it needs the optimizer asgd, not "
                f"{self.optimizer}"
            )


def _check_sizes(options: Options, least: int, *names: str) -> None:
    """Refuse an option that is not a whole number of at least `least`; None is no number given."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not (isinstance(value, int) and value >= least):
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if value is not None and value >= 2**63:
            raise ValueError(f"{name} must fit into 64 bits; {value} does not")


def _check_units(options: Options, *names: str) -> None:
    """Refuse a size whose square could not be the size of an array."""
    for name in names:
        if (getattr(options, name) or 0) > 10**8:
            raise ValueError(f"{name} must be at most 100,000,000, not {getattr(options, name):,}")


def _check_shares(options: Options, *names: str) -> None:
    """Refuse an option that is not a share."""
    for name in names:
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"{name} is a share, 0 <= {name} < 1, not {getattr(options, name)}")


def _check_encoding(options: Any) -> None:
    """Refuse an encoding that there is none of; as misuse, not as something wrong with a text."""
    try:
        check_encoding(options.encoding)
    except ValueError as error:
        raise ValueError(str(error)) from None


def same_as(section: type[Options], name: str) -> Any:
    """A field like one of another options class: the same default, help and choices.

    >>> @dataclass(frozen=True)
    ... class CellOptions(Options):
    ...     cell: str = same_as(ModelOptions, "cell")
    >>> CellOptions()
    CellOptions(cell='lstm')
    """
    (field,) = (field for field in dataclasses.fields(section) if field.name == name)  # type: ignore[arg-type]
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclass(frozen=True)
class ExampleOptions(Options):
    """How the examples of a task are read; each task adds its own options.

    >>> ExampleOptions(minimum_count=2).validation_share
    0.05
    """

    vocabulary_size: int | None = same_as(TextOptions, "vocabulary_size")
    minimum_count: int = same_as(TextOptions, "minimum_count")
    lowercase: bool = same_as(TextOptions, "lowercase")
    validation_share: float = same_as(TextOptions, "validation_share")
    encoding: str = same_as(TextOptions, "encoding")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_encoding(self)
        _check_sizes(self, 1, "vocabulary_size", "minimum_count")
        _check_shares(self, "validation_share")


@dataclass(frozen=True)
class RecurrentOptions(Options):
    """The shape of a model that reads sequences; a task adds its own options.

    >>> RecurrentOptions(hidden_size=64).bidirectional
    True
    """

    cell: str = same_as(ModelOptions, "cell")
    hidden_size: int = same_as(ModelOptions, "hidden_size")
    embedding_size: int | None = same_as(ModelOptions, "embedding_size")
    num_layers: int = same_as(ModelOptions, "num_layers")
    bidirectional: bool = option(True, "Read sequences in both directions.")
    dropout: float = same_as(ModelOptions, "dropout")
    initialization: str | float = same_as(ModelOptions, "initialization")
    forget_bias: float | None = same_as(ModelOptions, "forget_bias")
    dtype: str = same_as(ModelOptions, "dtype")

    def __post_init__(self) -> None:
        super().__post_init__()
        with contextlib.suppress(ValueError):  # a name stays a name
            object.__setattr__(self, "initialization", float(self.initialization))
        _check_sizes(self, 1, "hidden_size", "embedding_size", "num_layers")
        _check_units(self, "hidden_size", "embedding_size")
        _check_shares(self, "dropout")
