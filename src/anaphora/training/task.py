"""What a task is to a training: its options, how its files are read, and what its model is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.data import Batches, UnknownShare, is_table
from anaphora.models import SavedModel
from anaphora.training.evaluation import Evaluation, evaluate, loss_figures, report_loss
from anaphora.training.measures import Measure
from anaphora.training.options import NAME_FORMAT, TaskOptions

Notify = Callable[[str], None]
Paths = Sequence[Any]
Adapt = Callable[[Callable[[], Any]], Any]
"""Makes the codec of a training, given what fits one to its files."""
MeasureOf = Callable[[Any, Any, Any], Measure | None]


class TrainingData(NamedTuple):
    """What a training runs on.

    Attributes:
        batches: What to train on.
        validation: What to validate on; None for nothing.
        description: A line on how much that is.

    >>> TrainingData([], None, "nothing").description
    'nothing'
    """

    batches: Batches
    validation: Batches | None
    description: str


class EvaluationData(NamedTuple):
    """What an evaluation runs on.

    Attributes:
        batches: Batches in which every target counts once.
        place: What the files are called.
        unknown: What of them is not in the vocabulary.
        figures: More figures of a result, besides its own, by name; None where there is none, and a
            dictionary of those of another method, by its name, to compare with.
        evaluate: Evaluates a model on the batches; it has the arguments of `training.evaluate`.
        measure: Counts more as well; None for nothing.
        unknown_labels: How many targets are labels or tags that training did not have.
        notices: What the user should know of.

    >>> from collections import Counter
    >>> EvaluationData([], "text.txt", UnknownShare(Counter(), 0, 7)).unknown.total
    7
    """

    batches: Batches
    place: str
    unknown: UnknownShare
    figures: Callable[[Evaluation], Mapping[str, Any]] = lambda result: {}
    evaluate: Callable[..., Evaluation] = evaluate
    measure: Measure | None = None
    unknown_labels: int = 0
    notices: Sequence[str] = ()


class Answer(NamedTuple):
    """What a model answers to an input.

    Attributes:
        record: For machines.
        text: For people.
        heading: A line before texts that have the same, such as the names of their columns.

    >>> Answer({"label": "yes"}, "yes").text
    'yes'
    """

    record: Mapping[str, Any]
    text: str
    heading: str = ""


@dataclass(frozen=True)
class Task:
    """A task that ``anaphora train --task`` knows: all that commands and trainings ask of one.

    Attributes:
        name: As on the command line.
        model: The class of its model, which names the class of its codec.
        options: The class of its options.
        files: What it trains on, as ``--help`` says it.
        unit: What its losses are the mean of, in the plural.
        read: Reads files for a training, and writes what that needs to a folder, given options,
            texts, validation texts, folder, notify and an `Adapt`; returns the codec, and what the
            files are called as ``texts`` and ``validation_texts``.
        resolve: The options with what the data decided of those that were not given, given the
            options and the codec.
        open: The data of a training, given options, codec and that folder.
        evaluation: The data of an evaluation, given options, model, files and a batch size or
            None.
        inputs: Yields where each input of a file is, and the input, given options and a path, which
            may be ``-`` for standard input; None for a model without inputs, which writes text.
        answer: Yields the `Answer` to each of some inputs, given options, model and inputs; an
            input that is empty has an empty one.
        begin: Prepares a training, given options, the `Trainer`, and whether its model has initial
            weights: neither those of a model to begin with, nor those of a checkpoint.
        measure_of: What evaluations count beside the loss, given options, the model and a codec,
            whose labels may be more than the model's; None for nothing.
        rows: What is side by side in a batch, in the plural.
        check: Refuses options that do not fit together, whatever the files say.
        columns: The options that name columns of tables.
        report: A record as people of the field read it, given options, the record, and whether it
            is to be short.
        starts: The classes of models of other tasks whose reader its model can begin with.
        example_file: A file that its model could answer, as an argument, given options and the
            files of the training.

    >>> from anaphora.training import TASKS
    >>> [(task.name, task.unit) for task in TASKS.values()][:2]
    [('language-model', 'tokens'), ('classify', 'sequences')]
    """

    name: str
    model: type[SavedModel]
    options: type[TaskOptions]
    files: str
    unit: str
    read: Callable[..., tuple[Any, dict[str, str | None]]]
    open: Callable[[Any, Any, Path], TrainingData]
    evaluation: Callable[[Any, Any, Paths, int | None], EvaluationData]
    inputs: Callable[[Any, str], Iterator[tuple[str, Any]]] | None = None
    answer: Callable[[Any, Any, Sequence[Any]], Iterator[Answer]] | None = None
    begin: Callable[[Any, Any, bool], None] = lambda options, trainer, initial: None
    measure_of: MeasureOf = lambda options, model, codec: None
    rows: str = "sentences"
    resolve: Callable[[Any, Any], Any] = lambda options, codec: options
    check: Callable[[Any], None] = lambda options: None
    columns: tuple[str, ...] = ()
    report: Callable[..., str] = lambda options, record, short=False: report_loss(record, short)
    starts: tuple[type[SavedModel], ...] = ()
    example_file: Callable[[Any, str], str] = lambda options, files: "YOUR_SENTENCES.txt"

    def check_files(self, given: Mapping[str, Any], paths: Paths) -> None:
        """Refuse options that name columns, among those that were given, where no file is a table.

        Raises:
            ValueError: there is one.

        >>> from anaphora.training import TASKS
        >>> TASKS["classify"].check_files({"column": "body"}, ["reviews.csv"])
        """
        named = [name for name in self.columns if given.get(name) is not None]
        if named and not any(is_table(path, given.get("format")) for path in paths):
            raise ValueError(f"{named[0]} is for tables, and none was given; {NAME_FORMAT}")

    def measure(self, options: Any, loss: float) -> str:
        """A loss as people of the field read it, in few characters."""
        figures = loss_figures(self.model.loss_kind, loss)
        return self.report(options, {"loss": loss, **figures}, short=True)

    def describe_batches(self, options: Any) -> str:
        """How large a batch is."""
        at_most = "" if self.rows == "streams" else "at most "
        window = f" x {options.window} {self.unit}" if "window" in options.fields() else ""
        return f"{at_most}{options.batch_size} {self.rows}{window}"

    @property
    def writes_text(self) -> bool:
        """Whether its model continues a text, instead of answering to inputs."""
        return self.answer is None

    def load_options(self, directory: str | os.PathLike[str] | ModelDirectory) -> Any:
        """Read with which options the model of a directory was trained.

        The format is not among them: it is what the names of those files did not tell.

        Raises:
            ArtifactError: the directory holds a model of another task, or its ``config.json`` is
                damaged.
        """
        if isinstance(directory, ModelDirectory):
            directory = directory.path
        home = ModelDirectory.open(directory)
        config = home.load_config()
        if config.get("task") != self.model.kind:
            raise ArtifactError(
                f"{home.config}: its task is {config.get('task')!r:.80}; expected "
                f"{self.model.kind!r}"
            )
        try:
            options: Any = self.options.from_config(config)
        except ValueError as error:
            raise ArtifactError(f"{home.config}: {error}") from error
        tokenizer = home.load_tokenizer() if "data" in config else {}
        for name, value in options.to_dict("data").items():
            said = tokenizer.get(name, value)
            if said != value and type(said) is type(value) and name != "vocabulary_size":
                raise ArtifactError(
                    f"{home.config}: data.{name} is {value!r}, but in {home.tokenizer.name} it is "
                    f"{said!r}; put back the two files that were saved together"
                )
        return (
            dataclasses.replace(options, format=None) if "format" in options.fields() else options
        )

    def load(self, directory: str | os.PathLike[str]) -> Any:
        """Load the model, ready to evaluate, with its codec.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
        """
        model = self.model.load(directory)
        if model.codec is None:
            home = ModelDirectory(directory)
            raise ArtifactError(f"{home.tokenizer}: is empty, so what the model reads is unknown")
        return model

    def make_model(self, options: TaskOptions, sizes: Mapping[str, Any]) -> Any:
        """A new model of options, and of the sizes that follow from the data."""
        names = self.model.fields("model")
        return self.model.from_dict({**sizes, **{n: vars(options)[n] for n in names}})


def names_of(paths: Iterable[Any]) -> str:
    """What files are called together."""
    return ", ".join(map(str, paths))
