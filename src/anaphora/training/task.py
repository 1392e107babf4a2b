"""`Task`: the options of a task, how its files are read, its model and its results."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.data import Batches, UnknownShare, is_table
from anaphora.distributed import Processes
from anaphora.models import SavedModel
from anaphora.training.evaluation import Evaluation, evaluate, loss_figures, report_loss
from anaphora.training.measures import Measure
from anaphora.training.options import NAME_FORMAT, TaskOptions

Notify = Callable[[str], None]
Paths = Sequence[Any]
Adapt = Callable[[Callable[[], Any]], Any]
"""Makes the codec of a training run, given a function that fits one to its files."""
MeasureOf = Callable[[Any, Any, Any], Measure | None]


class TrainingData(NamedTuple):
    """The data of a training run.

    Attributes:
        batches: The training batches.
        validation: The validation batches, or None.
        description: A line about their size.

    >>> TrainingData([], None, "nothing").description
    'nothing'
    """

    batches: Batches
    validation: Batches | None
    description: str


class EvaluationData(NamedTuple):
    """The data of an evaluation.

    Attributes:
        batches: Batches in which every target counts once.
        place: The names of the files.
        unknown: The tokens that are not in the vocabulary.
        figures: Computes more figures of a result, by name, given the processes that share this
            out; a figure may be None (not available), or the figures of another method to compare
            with, under its name.
        evaluate: Evaluates a model on the batches, with the arguments of `training.evaluate`.
        measure: Computes more figures; None for none.
        unknown_labels: The number of targets with labels or tags not seen in training.
        notices: Messages for the user.

    >>> from collections import Counter
    >>> EvaluationData([], "text.txt", UnknownShare(Counter(), 0, 7)).unknown.total
    7
    """

    batches: Batches
    place: str
    unknown: UnknownShare
    figures: Callable[[Evaluation, Processes], Mapping[str, Any]] = lambda result, processes: {}
    evaluate: Callable[..., Evaluation] = evaluate
    measure: Measure | None = None
    unknown_labels: int = 0
    notices: Sequence[str] = ()


class Answer(NamedTuple):
    """A model's prediction for an input, ready to print.

    Attributes:
        record: The prediction as JSON.
        text: The prediction as text.
        heading: A line above texts with the same heading, such as the names of columns.

    >>> Answer({"label": "yes"}, "yes").text
    'yes'
    """

    record: Mapping[str, Any]
    text: str
    heading: str = ""


@dataclass(frozen=True)
class Task:
    """A task of ``anaphora train --task``: its model and options, and functions on its data.

    Attributes:
        name: The name on the command line.
        model: The class of its model, which names the class of its codec.
        options: The class of its options.
        files: The kinds of files that it trains on, for ``--help``.
        unit: What its losses are averaged over, in the plural.
        read: Reads files for a training run, and writes its data to a folder, given options, texts,
            validation texts, folder, notify and an `Adapt`; returns the codec, and the names of
            the files as ``texts`` and ``validation_texts``.
        resolve: The options with those that depend on the data filled in, given the options and
            the codec.
        open: The data of a training run, given options, codec and that folder.
        evaluation: The data of an evaluation, given options, model, files and a batch size or
            None.
        inputs: Yields the location of each input of a file, and the input, given options and a
            path, which may be ``-`` for standard input; None for a model that generates text.
        answer: Yields the `Answer` for each input, given options, model and inputs; that for an
            empty input is empty.
        begin: Prepares a training run, given options, the `Trainer`, and whether its model is newly
            initialized, not fine-tuned or resumed.
        measure_of: The `Measure` of evaluations, given options, the model and a codec, which may
            have more labels than the model; None for no figures besides the loss.
        rows: The name of the rows of a batch, in the plural.
        check: Refuses options that contradict each other, before files are read.
        columns: The options that name columns of tables.
        report: Formats a record, given options, the record, and whether to use few characters.
        starts: The classes of models of other tasks that a training run can start from.
        example_file: A placeholder argument for a file to predict, given options and the training
            files.

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
        """Refuse options of columns that were given, if no file is a table.

        Raises:
            ValueError: there is one.

        >>> from anaphora.training import TASKS
        >>> TASKS["classify"].check_files({"column": "body"}, ["reviews.csv"])
        """
        named = [name for name in self.columns if given.get(name) is not None]
        if named and not any(is_table(path, given.get("format")) for path in paths):
            raise ValueError(f"{named[0]} is for tables, but none was given; {NAME_FORMAT}")

    def measure(self, options: Any, loss: float) -> str:
        """Format a loss in few characters."""
        figures = loss_figures(self.model.loss_kind, loss)
        return self.report(options, {"loss": loss, **figures}, short=True)

    def describe_batches(self, options: Any) -> str:
        """The size of a batch, in words."""
        at_most = "" if self.rows == "streams" else "at most "
        window = f" x {options.window} {self.unit}" if "window" in options.fields() else ""
        return f"{at_most}{options.batch_size} {self.rows}{window}"

    @property
    def writes_text(self) -> bool:
        """Whether its model generates text, instead of predicting for inputs."""
        return self.answer is None

    def load_options(self, directory: str | os.PathLike[str] | ModelDirectory) -> Any:
        """Read the options with which the model of a directory was trained.

        The format is omitted, as it applies to those files only.

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
                    f"{said!r}; restore the two files that were saved together"
                )
        return (
            dataclasses.replace(options, format=None) if "format" in options.fields() else options
        )

    def load(self, directory: str | os.PathLike[str], weights: str | None = None) -> Any:
        """Load the model in evaluation mode, with its codec.

        Args:
            directory: The directory.
            weights: As for `models.load`.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
            ValueError: as from `models.load`.
        """
        model = self.model.load(directory, weights)
        if model.codec is None:
            home = ModelDirectory(directory)
            raise ArtifactError(
                f"{home.tokenizer}: is empty, so the model has no vocabulary; in Python, "
                f"anaphora.load({str(home.path)!r}) takes ids or features"
            )
        return model

    def make_model(self, options: TaskOptions, sizes: Mapping[str, Any]) -> Any:
        """A new model, from options and the sizes that depend on the data."""
        names = self.model.fields("model")
        return self.model.from_dict({**sizes, **{n: vars(options)[n] for n in names}})


def names_of(paths: Iterable[Any]) -> str:
    """The names of files, in one string."""
    return ", ".join(map(str, paths))
