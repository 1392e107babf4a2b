"""Tasks whose data are examples, pairs of an input and its target, that fit into memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.artifact import ArtifactError, Shape, check_finite, read_weights, write_weights
from anaphora.data import (
    FORMATS,
    Batches,
    Codec,
    Column,
    DataError,
    format_of,
    is_tokenized,
    label_strata,
    stratified_split,
    stream_lines,
    uncompressed_name,
)
from anaphora.tensor import Array
from anaphora.training.task import (
    Adapt,
    Answer,
    EvaluationData,
    MeasureOf,
    Notify,
    Paths,
    Task,
    TrainingData,
    names_of,
)

ReadExamples = Callable[[Any, Paths], list[Any]]
"""Reads the examples of files, given options and the files."""

Label = Callable[[Any], Hashable]
"""The class of an example, by which the held-out sample is stratified."""

Places = Callable[[Any, str], Mapping[str, str]]
"""Where each label first occurs in a file, given options and the file."""

Fit = Callable[[Any, list[Any], list[Any]], Codec]
"""Fits the codec, given options, the training examples, and those held out of the same files."""

Predict = Callable[[Any, Any, Sequence[Any]], Iterable[Any]]
"""Yields a model's prediction for each input, given options, model and inputs."""

ToAnswer = Callable[[Any, Any, Any, Any], Answer]
"""Makes an `Answer`, given options, the model, the input, and its prediction (None of an empty
input)."""

_MAXIMUM_LISTED = 20  # labels in a message


def example_task(
    *,
    read_examples: ReadExamples,
    fit: Fit,
    predict: Predict,
    to_answer: ToAnswer,
    is_empty: Callable[[Any], bool],
    measure_of: MeasureOf,
    label: Label | None = None,
    places: Places | None = None,
    rows: str = "sentences",
    **entry: Any,
) -> Task:
    """A `Task` whose data are examples.

    Args:
        read_examples: Reads the examples of files.
        fit: Fits the codec.
        predict: Predicts for the inputs that are not empty.
        to_answer: Makes an `Answer` of a prediction.
        is_empty: Whether an input is empty.
        measure_of: As for `Task`.
        label: The class of an example, if examples have one.
        places: Locates labels in a file, if examples have labels.
        rows: The name of the rows of a batch, in the plural.
        **entry: The other fields of the task.
    """
    evaluation = functools.partial(evaluation_data, read_examples, places, measure_of)
    return Task(
        read=functools.partial(_read, read_examples, fit, label, rows),
        open=open_examples,
        answer=functools.partial(_answers, predict, to_answer, is_empty),
        measure_of=measure_of,
        rows=rows,
        **{"evaluation": evaluation, **entry},
    )


def _answers(
    predict: Predict,
    to_answer: ToAnswer,
    is_empty: Callable[[Any], bool],
    options: Any,
    model: Any,
    inputs: Sequence[Any],
) -> Iterator[Answer]:
    predictions = iter(predict(options, model, [one for one in inputs if not is_empty(one)]))
    for one in inputs:
        yield to_answer(options, model, one, None if is_empty(one) else next(predictions))


def _read(
    read_examples: ReadExamples,
    fit: Fit,
    label: Label | None,
    rows: str,
    options: Any,
    texts: Paths,
    validation_texts: Paths,
    folder: Path,
    notify: Notify,
    adapt: Adapt,
) -> tuple[Codec, dict[str, str | None]]:
    if texts:
        notify(f"reading {names_of(texts)}")
    training = read_examples(options, texts)
    held_out: list[Any] = []
    if validation_texts:
        notify(f"reading {names_of(validation_texts)}")
        validation = read_examples(options, validation_texts)
    else:
        training, held_out = _split(training, label, options.validation_share, options.seed)
        validation = held_out
    if not training:
        raise DataError(f"no {rows} are left for training; give more, or hold out fewer")
    codec = adapt(lambda: fit(options, training, held_out))
    write_weights(folder / "train.safetensors", codec.encode(training), within=folder)
    if validation:
        try:
            arrays = codec.encode(validation)
        except DataError as error:
            raise DataError(f"the validation examples: {error}") from error
        write_weights(folder / "validation.safetensors", arrays, within=folder)
    names = {"texts": names_of(texts), "validation_texts": names_of(validation_texts) or None}
    return codec, names


def open_examples(options: Any, codec: Codec, folder: Path) -> TrainingData:
    """The data of a training run from the arrays in a folder; see `Task.open`.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    training, count = _open_batches(options, codec, folder / "train.safetensors")
    validation, held_out = None, 0
    if (path := folder / "validation.safetensors").exists():
        validation, held_out = _open_batches(options, codec, path)
    description = (
        f"{count:,} {codec.counted} to train on, {held_out:,} to validate on, {codec.describe()}"
    )
    return TrainingData(training, validation, description)


def _open_batches(options: Any, codec: Codec, path: Path) -> tuple[Batches, int]:
    """The batches of a file of arrays, and their number of targets."""
    if not path.exists():
        raise ArtifactError(f"{path}: no such file; train again")
    # Neither file nor folder may be reached through a link.
    arrays = read_weights(path, within=path.parent.parent)[0]
    check_columns(path, arrays, codec.columns())
    try:
        return codec.batches(arrays, options.batch_size, options.dtype), codec.counts(arrays)
    except DataError as error:
        raise ArtifactError(f"{path}: {error}; train again") from error


def evaluation_data(
    read_examples: ReadExamples,
    places: Places | None,
    measure_of: MeasureOf,
    options: Any,
    model: Any,
    files: Paths,
    batch_size: int | None,
) -> EvaluationData:
    """The data of an evaluation; labels not seen in training count as wrong.

    Args:
        read_examples: As for `example_task`.
        places: As for `example_task`.
        measure_of: As for `example_task`.
        options: All options.
        model: The model, with its codec.
        files: The files.
        batch_size: None for that of the training.

    Raises:
        DataError: a file cannot be read, or no label was seen in training.
    """
    examples = read_examples(options, files)
    known = model.codec
    codec = known.with_labels_of(examples)
    arrays = codec.encode(examples)
    batches = codec.batches(arrays, batch_size or options.batch_size, model.dtype)
    more = codec.labels[len(known.labels) :]
    count, notices = 0, []
    if more and places is not None:
        targets = arrays.get("tags", arrays.get("targets"))
        if targets.dtype.kind == "b":  # multi-hot
            targets = np.nonzero(targets)[1]
        count = int(np.count_nonzero(targets >= len(known.labels)))
        if count == len(targets):
            raise DataError(
                f"{names_of(files)} has none of the training labels, which are "
                f"{', '.join(map(repr, known.labels[:_MAXIMUM_LISTED]))}: evaluate on files of the "
                "same task"
            )
        notices = [_unknown_labels(more, count, [places(options, file) for file in files])]
    return EvaluationData(
        batches,
        names_of(files),
        codec.unknown_share(examples, arrays),
        measure=measure_of(options, model, codec),
        unknown_labels=count,
        notices=notices,
    )


def _unknown_labels(labels: Sequence[str], count: int, found: Sequence[Mapping[str, str]]) -> str:
    """The notice about labels not seen in training."""
    first = {label: place for of_file in reversed(found) for label, place in of_file.items()}
    named = ", ".join(repr(label) for label in labels[:_MAXIMUM_LISTED])
    more = ", ..." if len(labels) > _MAXIMUM_LISTED else ""
    place = next((f" (first in {first[one]})" for one in first if one in labels), "")
    targets = "1 target has a label" if count == 1 else f"{count:,} targets have labels"
    return (
        f"{targets} not seen in training{place}: {named}{more}; counted as wrong, and excluded "
        "from the loss"
    )


def name_of(path: str) -> str:
    """The name of a file in messages.

    >>> name_of("-")
    'standard input'
    """
    return "standard input" if path == "-" else path


def line_inputs(options: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the location of each line of a file, and the line.

    Args:
        options: The options, with the encoding.
        path: The file, or ``-`` for standard input, which is read line by line as it arrives.

    Raises:
        DataError: the file is missing or is not text.
    """
    name = name_of(path)
    for number, line in enumerate(stream_lines(path, options.encoding), start=1):
        yield f"{name}, line {number:,}", line


def split_of(options: Any, texts: Iterable[str]) -> str:
    """How the words of texts are split; "auto" depends on the texts.

    >>> from types import SimpleNamespace
    >>> split_of(SimpleNamespace(split="auto"), ["Yes, it rains."])
    'punctuation'
    """
    if options.split != "auto":
        split: str = options.split
        return split
    return "whitespace" if is_tokenized(texts) else "punctuation"


def example_of_table(files: str, format: str | None) -> str | None:
    """A placeholder argument like the tables of a training run; None if they were no tables."""
    first = files.split(", ")[0]
    found = format_of(first, format)
    if found is None or FORMATS[found].kind != "table":
        return None
    suffix = Path(uncompressed_name(first)).suffix if found != "dataset" else ""
    return f"YOUR_TABLE{suffix or f' --format {found}'}"


def check_columns(path: Path, arrays: Mapping[str, Array], columns: Mapping[str, Column]) -> None:
    """Check the arrays of the examples of a training run.

    Raises:
        ArtifactError: an array is missing or unknown, has the wrong shape or kind of numbers, is
            out of range, or does not match the others.

    >>> columns = {"ids": Column("steps", below=2), "lengths": Column("texts", of="steps")}
    >>> check_columns(Path("a"), {"ids": np.array([1, 0]), "lengths": np.array([2])}, columns)
    >>> check_columns(Path("a"), {"ids": np.array([2, 0]), "lengths": np.array([2])}, columns)
    Traceback (most recent call last):
        ...
    anaphora.artifact.files.ArtifactError: a: ids has 2; expected integers of 0 to 1; train ...
    """
    lengths: dict[str, int] = {}
    problems = [f"has no array {name}" for name in columns if name not in arrays]
    problems += [f"has an unknown array {name}" for name in arrays if name not in columns]
    for name, column in columns.items() if not problems else ():
        array = arrays[name]
        axes = 1 if column.features is None else 2
        kinds = "iu" if axes == 1 else "b" if column.booleans else "f"
        if array.ndim != axes or array.dtype.kind not in kinds:
            numbers = "booleans" if column.booleans else "floats"
            kind = "integers" if axes == 1 else f"rows of {column.features} {numbers}"
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
                problems.append(f"{name} has {outside}; expected integers of {limit}")
        if lengths.setdefault(column.along, len(array)) != len(array):
            problems.append(f"{name} has {len(array):,} rows; expected {lengths[column.along]:,}")
    for name, column in columns.items() if not problems else ():
        if column.of is None:
            continue
        total = arrays[name].sum(dtype=np.float64)  # does not overflow
        if total != lengths[column.of]:
            problems.append(
                f"{name} adds up to {total:,.0f}; expected {lengths[column.of]:,}, the number of "
                f"{column.of}"
            )
    if problems:
        raise ArtifactError(f"{path}: {problems[0]}; train again")


def _split(
    examples: list[Any], label: Label | None, share: float, seed: int
) -> tuple[list[Any], list[Any]]:
    """The training examples, in their order, and those held out, stratified by class."""
    if share == 0 or len(examples) < 2:
        return examples, []
    if label is not None:
        labels = label_strata([label(one) for one in examples], share)
        kept, sampled = stratified_split(labels, share, seed)
        return [examples[n] for n in kept], [examples[n] for n in sampled]
    order = np.random.default_rng(seed).permutation(len(examples))
    held_out = set(order[: int(len(examples) * share)].tolist())
    return (
        [example for n, example in enumerate(examples) if n not in held_out],
        [example for n, example in enumerate(examples) if n in held_out],
    )


def in_batches(inputs: Sequence[Any], batch_size: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield batches of inputs, each with the number of inputs before it.

    >>> list(in_batches("abcde", 2))
    [(0, 'ab'), (2, 'cd'), (4, 'e')]
    """
    for start in range(0, len(inputs), batch_size):
        yield start, inputs[start : start + batch_size]
