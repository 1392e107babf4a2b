"""What a task is to a training: its options, how its files are read, and what its model is."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np

from anaphora import schema
from anaphora.artifact import (
    ArtifactError,
    ModelDirectory,
    Shape,
    check_finite,
    read_weights,
    write_weights,
)
from anaphora.cells import CELLS
from anaphora.data import Batches, DataError, stream_lines
from anaphora.models.saved import load_model
from anaphora.tensor import Array
from anaphora.training.evaluation import perplexity
from anaphora.training.options import ExampleOptions, Options, TrainingOptions

Notify = Callable[[str], None]
Paths = Sequence[Any]

LIMITS = {"epochs", "max_steps", "minutes"}
_NAMED = 20  # labels or tags that a message lists
_OF_STREAMS = frozenset({"window", "evaluation_batch_size", "loss_per"})


@dataclass(frozen=True)
class TaskOptions:
    """All options of a training, in sections; each task has a subclass.

    Attributes:
        text: How files are read.
        model: The shape of the model.
        training: How it is trained.

    >>> from anaphora.training import TASKS
    >>> options = TASKS["tag"].options.make(hidden_size=64, epochs=3)
    >>> options.model.hidden_size, options.training.epochs, options.training.max_steps
    (64, 3, None)
    """

    text: Any
    model: Any
    training: TrainingOptions

    defaults: ClassVar[Mapping[str, Any]] = {}
    """Defaults of the task, where they are not those of the sections."""

    unused: ClassVar[frozenset[str]] = _OF_STREAMS
    """Options of the sections that mean nothing to the task."""

    sizes: ClassVar[tuple[str, ...]] = ("vocabulary_size",)
    """What ``config.json`` has beside the options of the model, as it follows from the data."""

    @classmethod
    def sections(cls) -> dict[str, type[Options]]:
        """The options classes by the names of their sections."""
        hints = typing.get_type_hints(cls)
        return {name: hints[name] for name in ("text", "model", "training")}

    @classmethod
    def names(cls) -> set[str]:
        """The names of the options of all sections."""
        names = {name for section in cls.sections().values() for name in section.names()}
        return names - cls.unused

    @classmethod
    def make(cls, **changes: Any) -> Self:
        """The task's default options, with some of them changed.

        A limit (``epochs``, ``max_steps``, ``minutes``) among the changes takes the place of the
        default limits. Where the changes leave no room for another default, that gives way: a
        forget_bias with a cell that has no forget gate, and the schedule cosine, which ends at a
        known step, with ``minutes`` alone (it becomes plateau).

        Raises:
            ValueError: the name of an option is unknown, or a value is out of range.
        """
        return cls._changed(cls.defaults, changes)

    @classmethod
    def _changed(cls, defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> Self:
        values = with_new_limits(defaults, changes)
        cell = CELLS.get(changes.get("cell", "lstm"))
        if cell is not None and "f" not in cell.gates:
            values.pop("forget_bias", None)
        values |= changes
        if unknown := sorted(set(values) - cls.names()):
            raise ValueError(f"unknown options: {', '.join(unknown)}")
        sections: dict[str, Any] = {
            name: section.from_dict({k: v for k, v in values.items() if k in section.names()})
            for name, section in cls.sections().items()
        }
        return cls(**sections)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The options as `to_dict` gave them, or as ``config.json`` has them.

        Raises:
            ValueError: something is missing, unknown or out of range.
        """
        if missing := sorted(set(cls.sections()) - set(values)):
            raise ValueError(
                f"there is no section {', '.join(missing)}, which anaphora train writes; load a "
                "model that was saved from Python there"
            )
        sections: dict[str, Any] = {}
        for name, section in cls.sections().items():
            part: dict[str, Any] = schema.convert(values[name], dict[str, Any], name)
            if name == "model":
                part = {k: v for k, v in part.items() if k not in cls.sizes}
            try:
                sections[name] = section.from_dict(part)
            except ValueError as error:
                named = str(error).split(" ", 1)[0] in section.names()
                raise ValueError(f"{name}{'.' if named else ': '}{error}") from error
        return cls(**sections)

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, in sections."""
        return {
            name: {k: v for k, v in getattr(self, name).to_dict().items() if k not in self.unused}
            for name in self.sections()
        }


def with_new_limits(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a training, without what gives way to a limit among the changes.

    That are the limits before, and the schedule cosine, which ends at a known step, where
    ``minutes`` is the only limit now: it becomes plateau.

    >>> with_new_limits({"max_steps": 10, "schedule": "cosine"}, {"minutes": 5.0})
    {'schedule': 'plateau'}
    """
    if not LIMITS & set(changes):
        return dict(values)
    kept = {name: value for name, value in values.items() if name not in LIMITS}
    if kept.get("schedule") == "cosine" and not {"epochs", "max_steps"} & set(changes):
        kept["schedule"] = "plateau"
    return kept


class Vocabulary(Protocol):
    """What the numbers that a model reads and writes stand for."""

    def to_dict(self) -> dict[str, Any]:
        """All that is needed to make it again, for ``tokenizer.json``."""


class Task(ABC):
    """A task that ``anaphora train --task`` knows.

    Attributes:
        name: As on the command line.
        kind: As in ``config.json``.
        model_type: The class of its model.
        options: Its options.
        unit: What its losses are the mean of, in the plural.
        rows: What stands side by side in a batch, in the plural.
        model_type: The class of its model, whose ``loss_kind`` says what is reported.

    >>> from anaphora.training import TASKS
    >>> [(task.name, task.unit) for task in TASKS.values()][:2]
    [('language-model', 'tokens'), ('classify', 'sequences')]
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    model_type: ClassVar[Any]
    options: ClassVar[type[TaskOptions]]
    unit: ClassVar[str]
    rows: ClassVar[str] = "sentences"

    @abstractmethod
    def read(
        self, options: Any, texts: Paths, validation_texts: Paths, folder: Path, notify: Notify
    ) -> tuple[Any, dict[str, str | None]]:
        """Read the files, write what training needs of them to a folder.

        Returns:
            The vocabulary, and what the texts are called, as ``texts`` and ``validation_texts``.
        """

    @abstractmethod
    def arguments(self, options: Any, vocabulary: Any) -> dict[str, Any]:
        """The arguments that make the model."""

    def model(self, arguments: Mapping[str, Any]) -> Any:
        """Make the model."""
        return self.model_type(**arguments)

    @abstractmethod
    def batches(
        self, options: Any, vocabulary: Any, folder: Path
    ) -> tuple[Batches, Batches | None]:
        """What to train on and what to validate on, of the files that `read` wrote."""

    @abstractmethod
    def vocabulary(self, data: Mapping[str, Any]) -> Any:
        """The vocabulary of what its ``to_dict`` gave.

        Raises:
            ValueError: the data is damaged.
        """

    @abstractmethod
    def load(self, directory: Path) -> tuple[Any, Any]:
        """Load the model, ready to evaluate, and its vocabulary.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
        """

    @abstractmethod
    def describe_data(self, options: Any, vocabulary: Any, folder: Path) -> str:
        """A line on what there is to train on."""

    @abstractmethod
    def check(self, options: Any) -> None:
        """Refuse options that do not fit together, whatever the files say; in no time.

        Raises:
            ValueError: they do not.
        """

    def describe_batches(self, options: TaskOptions) -> str:
        """How large a batch is."""
        return f"at most {options.training.batch_size} {self.rows}"

    def measure(self, options: TaskOptions, loss: float) -> str:
        """A loss as people of the field read it, in few signs, or nothing."""
        return f"perplexity {perplexity(loss):,.1f}" if self._is_of_tokens() else ""

    def report(self, options: TaskOptions, record: Mapping[str, Any]) -> str:
        """The outcome of an evaluation as people of the field read it."""
        if "accuracy" in record:
            return f"accuracy {record['accuracy']:.2%}"
        return f"perplexity {perplexity(record['loss']):,.2f}" if self._is_of_tokens() else ""

    def _is_of_tokens(self) -> bool:
        return bool(self.model_type.loss_kind == "tokens")

    def load_options(self, directory: Any) -> Any:
        """Read with which options the model of a directory was trained.

        Raises:
            ArtifactError: the directory holds a model of another task, or its ``config.json`` is
                damaged.
        """
        home = ModelDirectory.open(directory)
        config = home.load_config()
        if config.get("task") != self.kind:
            raise ArtifactError(
                f"{home.config}: its task is {config.get('task')!r:.80}; expected {self.kind!r}"
            )
        try:
            return self.options.from_dict(config)
        except ValueError as error:
            raise ArtifactError(f"{home.config}: {error}") from error


class ExampleTask(Task):
    """A task whose data are examples, an input and its answer each, that fit into memory.

    >>> from anaphora.training import TASKS
    >>> [name for name, task in TASKS.items() if isinstance(task, ExampleTask)]
    ['classify', 'tag', 'translate']
    """

    @abstractmethod
    def sizes(self, vocabulary: Any) -> dict[str, Any]:
        """The arguments of the model that follow from the vocabulary."""

    @abstractmethod
    def read_files(self, options: Any, paths: Paths) -> list[tuple[Any, Any]]:
        """The examples of some files.

        Args:
            options: The section ``text``.
            paths: The files.

        Raises:
            DataError: a file is missing or is not what the task reads.
        """

    def check_files(self, given: Mapping[str, Any], paths: Paths) -> None:
        """Refuse options that are for a kind of files where none of that kind is given.

        Args:
            given: Options of the section ``text``; None where one was not given.
            paths: The files.

        Raises:
            ValueError: there are some.
        """

    @abstractmethod
    def fit(self, options: Any, training: list[Any], held_out: list[Any]) -> Any:
        """The vocabulary: what is read, of the examples to train on; answers, of all.

        Args:
            options: All options.
            training: The examples to train on, at least one.
            held_out: Those that were drawn from the same files.

        Raises:
            DataError: the examples leave nothing to learn.
        """

    @abstractmethod
    def encode(self, vocabulary: Any, examples: list[Any]) -> dict[str, Array]:
        """The examples as arrays that `example_batches` reads.

        Raises:
            DataError: something is not in the vocabulary, and nothing stands for it.
        """

    @abstractmethod
    def columns(self, vocabulary: Any) -> dict[str, Column]:
        """What the arrays of `encode` hold, by their names."""

    @abstractmethod
    def example_batches(
        self, vocabulary: Any, arrays: Mapping[str, Array], batch_size: int, dtype: str
    ) -> Any:
        """Batches of examples that `encode` made arrays of."""

    def read(  # noqa: D102
        self, options: Any, texts: Paths, validation_texts: Paths, folder: Path, notify: Notify
    ) -> tuple[Any, dict[str, str | None]]:
        self.check_files(options.text.to_dict(), [*texts, *validation_texts])
        if texts:
            notify(f"reading {_names(texts)}")
        training = self.read_files(options.text, texts)
        held_out: list[Any] = []
        if validation_texts:
            notify(f"reading {_names(validation_texts)}")
            validation = self.read_files(options.text, validation_texts)
        else:
            training, held_out = _drawn(training, options.text, options.training.seed)
            validation = held_out
        if not training:
            raise DataError(f"no {self.rows} are left to train on; give more, or hold out fewer")
        vocabulary = self.fit(options, training, held_out)
        write_weights(
            folder / "train.safetensors", self.encode(vocabulary, training), within=folder
        )
        if validation:
            try:
                arrays = self.encode(vocabulary, validation)
            except DataError as error:
                raise DataError(f"the examples to validate on: {error}") from error
            write_weights(folder / "validation.safetensors", arrays, within=folder)
        names = {"texts": _names(texts), "validation_texts": _names(validation_texts) or None}
        return vocabulary, names

    def batches(  # noqa: D102
        self, options: Any, vocabulary: Any, folder: Path
    ) -> tuple[Batches, Batches | None]:
        size, dtype = options.training.batch_size, options.model.dtype
        found: list[Batches | None] = []
        for path in (folder / "train.safetensors", folder / "validation.safetensors"):
            if not path.exists():
                found.append(None)
                continue
            arrays = _read_data(path)
            check_columns(path, arrays, self.columns(vocabulary))
            try:
                found.append(self.example_batches(vocabulary, arrays, size, dtype))
            except DataError as error:
                raise ArtifactError(f"{path}: {error}; train anew") from error
        if found[0] is None:
            raise ArtifactError(f"{folder / 'train.safetensors'}: no such file; train anew")
        return found[0], found[1]

    def read_inputs(self, options: Any, path: str) -> Iterator[tuple[str, Any]]:
        """Yield where each input of a file is, and the input: lines, if the task knows no better.

        Args:
            options: The section ``text``.
            path: The file, or ``-`` for standard input, whose lines are read as they come.

        Raises:
            DataError: the file is missing or is not what the task reads.
        """
        name = "standard input" if path == "-" else path
        for number, line in enumerate(stream_lines(path, options.encoding), start=1):
            yield f"{name}, line {number:,}", line

    def unknown_tokens(self, vocabulary: Any, one: Any) -> Counter[str]:
        """Count the tokens of an input that the model reads as unknown.

        Args:
            vocabulary: That of the model.
            one: An input, as `read_inputs` has it.

        Raises:
            DataError: the model cannot read the input at all.
        """
        return Counter()

    def unknown_share(
        self, vocabulary: Any, examples: list[Any], arrays: Mapping[str, Array]
    ) -> tuple[Counter[str], int, int]:
        """Which tokens of examples are unknown, how many are, and how many tokens there are.

        Args:
            vocabulary: That of the model.
            examples: As `read_files` gives them.
            arrays: The same, as `encode` gives them.

        Returns:
            The tokens that the vocabulary lacks; the number of unknown tokens, those included that
            are written so in the text; the number of all tokens, 0 where there are none.
        """
        return Counter(), 0, 0

    def arguments(self, options: Any, vocabulary: Any) -> dict[str, Any]:  # noqa: D102
        return {**self.sizes(vocabulary), **options.model.to_dict()}

    def load(self, directory: Path) -> tuple[Any, Any]:  # noqa: D102
        model, data, home = load_model(self.model_type, self.kind, directory)
        try:
            vocabulary = self.vocabulary(data)
            for name, size in self.sizes(vocabulary).items():
                if model.options[name] != size:
                    raise ValueError(
                        f"makes {name} {size}, but that of the model is {model.options[name]}"
                    )
        except ValueError as error:
            raise ArtifactError(
                f"{home.tokenizer}: {error}; put back the one that the model was trained with"
            ) from error
        return model, vocabulary

    def counts(self, folder: Path, name: str) -> tuple[int, int]:
        """How much an array of `encode` holds of what to train on, and of what to validate on."""
        paths = (folder / f"{part}.safetensors" for part in ("train", "validation"))
        training, validation = (
            len(_read_data(path)[name]) if path.exists() else 0 for path in paths
        )
        return training, validation

    def evaluation(
        self, directory: Path, texts: Paths, **changes: Any
    ) -> tuple[Any, Any, Batches, tuple[Counter[str], int, int]]:
        """The model of a directory, its vocabulary, batches of files in which every answer counts
        once, and what `unknown_share` says of the files.

        Args:
            directory: The model directory.
            texts: The files.
            **changes: Options of the section ``text`` that are not as in training.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
            DataError: as `read_files` and `encode`.
        """
        options = self.load_options(directory)
        section = self.options.sections()["text"]
        model, vocabulary = self.load(directory)
        text = section.from_dict({**options.text.to_dict(), **changes})
        examples = self.read_files(text, texts)
        arrays = self.encode(vocabulary, examples)
        size, dtype = options.training.batch_size, options.model.dtype
        batches = self.example_batches(vocabulary, arrays, size, dtype)
        return model, vocabulary, batches, self.unknown_share(vocabulary, examples, arrays)


class Column(NamedTuple):
    """What an array of examples holds: ids, numbers of features, or lengths.

    Attributes:
        along: What it has one row for; arrays that say the same are equally long.
        below: Ids are 0 to ``below - 1``.
        features: The numbers of a row; None for whole numbers, of which a row has one.
        of: Of lengths, what they are the lengths of: added up they are so many.

    >>> Column("sequences", of="steps").features is None
    True
    """

    along: str
    below: int | None = None
    features: int | None = None
    of: str | None = None


def check_columns(path: Path, arrays: Mapping[str, Array], columns: Mapping[str, Column]) -> None:
    """Refuse arrays of examples that a training cannot have written.

    Raises:
        ArtifactError: an array is missing, unknown, misshapen, of another kind of numbers, out of
            range, or does not fit the others.

    >>> columns = {"ids": Column("steps", below=2), "lengths": Column("texts", of="steps")}
    >>> check_columns(Path("a"), {"ids": np.array([1, 0]), "lengths": np.array([2])}, columns)
    >>> check_columns(Path("a"), {"ids": np.array([2, 0]), "lengths": np.array([2])}, columns)
    Traceback (most recent call last):
        ...
    anaphora.artifact.files.ArtifactError: a: ids has 2; expected whole numbers of 0 to 1; train ...
    """
    lengths: dict[str, int] = {}
    problems = [f"has no array {name}" for name in columns if name not in arrays]
    problems += [f"has an unknown array {name}" for name in arrays if name not in columns]
    for name, column in columns.items() if not problems else ():
        array = arrays[name]
        axes = 1 if column.features is None else 2
        if array.ndim != axes or array.dtype.kind not in ("iu" if axes == 1 else "f"):
            kind = "whole numbers" if axes == 1 else f"rows of {column.features} floats"
            problems.append(f"{name} is {Shape(array.shape, array.dtype)}; expected {kind}")
            break
        if column.features not in (None, array.shape[-1]):
            problems.append(f"{name} has rows of {array.shape[1]}; expected {column.features}")
        check_finite(path, name, array)
        if axes == 1 and array.size:
            low, high = int(array.min()), int(array.max())
            if low < 0 or (column.below is not None and high >= column.below):
                limit = "at least 0" if column.below is None else f"0 to {column.below - 1}"
                outside = low if low < 0 else high
                problems.append(f"{name} has {outside}; expected whole numbers of {limit}")
        if lengths.setdefault(column.along, len(array)) != len(array):
            problems.append(f"{name} has {len(array):,} rows; expected {lengths[column.along]:,}")
    for name, column in columns.items() if not problems else ():
        if column.of is None:
            continue
        total = arrays[name].sum(dtype=np.float64)  # which does not overflow
        if total != lengths[column.of]:
            problems.append(
                f"{name} adds up to {total:,.0f}; expected {lengths[column.of]:,}, as there are "
                f"{column.of}"
            )
    if problems:
        raise ArtifactError(f"{path}: {problems[0]}; train anew")


def check_names(field: str, names: Sequence[str], least: int) -> None:
    """Refuse the names of a vocabulary that are too few, or of which one stands twice.

    Raises:
        ValueError: they are.

    >>> check_names("tags", ["X", "Y", "X"], least=1)
    Traceback (most recent call last):
        ...
    ValueError: tags has 'X' twice; expected each once
    """
    if len(names) < least:
        raise ValueError(f"{field} has {len(names)} names; expected at least {least}")
    if len(set(names)) < len(names):
        again = next(name for n, name in enumerate(names) if name in names[:n])
        raise ValueError(f"{field} has {again!r} twice; expected each once")


def numbers_of(answers: Iterable[str], known: Sequence[str], what: str) -> Array:
    """The number of each answer among those that training knows.

    Args:
        answers: Labels or tags.
        known: All that there are, in the order of their numbers.
        what: What one of them is called.

    Raises:
        DataError: an answer is none of them.

    >>> numbers_of(["yes", "no", "yes"], ["no", "yes"], "label").tolist()
    [1, 0, 1]
    """
    numbers = {name: number for number, name in enumerate(known)}
    answers = list(answers)
    if unknown := sorted(set(answers) - set(numbers)):
        more = ", ..." if len(known) > _NAMED else ""
        raise DataError(
            f"the {what} {unknown[0]!r} is none of the {len(known)} of the training: "
            f"{', '.join(map(repr, known[:_NAMED]))}{more}"
        )
    return np.array([numbers[answer] for answer in answers], np.int64)


def _read_data(path: Path) -> dict[str, Array]:
    """The arrays of a file in a folder of a model directory, neither reached through a link."""
    return read_weights(path, within=path.parent.parent)[0]


def _names(paths: Paths) -> str:
    return ", ".join(map(str, paths))


def _drawn(examples: list[Any], options: ExampleOptions, seed: int) -> tuple[list[Any], list[Any]]:
    """The examples to train on, in the order in which they stand, and those that are held out."""
    drawn = np.random.default_rng(seed).permutation(len(examples))
    held_out = set(drawn[: int(len(examples) * options.validation_share)].tolist())
    return (
        [example for n, example in enumerate(examples) if n not in held_out],
        [example for n, example in enumerate(examples) if n in held_out],
    )
