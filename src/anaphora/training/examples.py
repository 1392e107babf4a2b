"""Tasks whose data are examples, an input and its answer each, that fit into memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.artifact import ArtifactError, Shape, check_finite, read_weights, write_weights
from anaphora.data import Codec, Column, DataError, stream_lines
from anaphora.tensor import Array
from anaphora.training.task import (
    EvaluationData,
    Notify,
    Paths,
    Task,
    TrainingData,
    names_of,
)

ReadExamples = Callable[[Any, Paths], list[Any]]
"""The examples of some files, given options and the files."""

Fit = Callable[[Any, list[Any], list[Any]], Codec]
"""The codec, given options, the examples to train on, and those held out of the same files."""


def example_task(
    *, read_examples: ReadExamples, fit: Fit, rows: str = "sentences", **entry: Any
) -> Task:
    """A `Task` whose data are examples.

    Args:
        read_examples: Reads the examples of files.
        fit: Makes the codec.
        rows: What stands side by side in a batch, in the plural.
        **entry: The other fields of the task.
    """
    return Task(
        read=functools.partial(_read, read_examples, fit, rows),
        open=functools.partial(_open, rows),
        evaluation=functools.partial(_evaluation, read_examples),
        rows=rows,
        **{"inputs": line_inputs, **entry},
    )


def _read(
    read_examples: ReadExamples,
    fit: Fit,
    rows: str,
    options: Any,
    texts: Paths,
    validation_texts: Paths,
    folder: Path,
    notify: Notify,
) -> tuple[Codec, dict[str, str | None]]:
    if texts:
        notify(f"reading {names_of(texts)}")
    training = read_examples(options, texts)
    held_out: list[Any] = []
    if validation_texts:
        notify(f"reading {names_of(validation_texts)}")
        validation = read_examples(options, validation_texts)
    else:
        training, held_out = _split(training, options.validation_share, options.seed)
        validation = held_out
    if not training:
        raise DataError(f"no {rows} are left to train on; give more, or hold out fewer")
    codec = fit(options, training, held_out)
    write_weights(folder / "train.safetensors", codec.encode(training), within=folder)
    if validation:
        try:
            arrays = codec.encode(validation)
        except DataError as error:
            raise DataError(f"the examples to validate on: {error}") from error
        write_weights(folder / "validation.safetensors", arrays, within=folder)
    names = {"texts": names_of(texts), "validation_texts": names_of(validation_texts) or None}
    return codec, names


def _open(rows: str, options: Any, codec: Codec, folder: Path) -> TrainingData:
    found: list[Any] = []
    counts = []
    for path in (folder / "train.safetensors", folder / "validation.safetensors"):
        if not path.exists():
            found.append(None)
            counts.append(0)
            continue
        # Neither file nor folder may be reached through a link.
        arrays = read_weights(path, within=path.parent.parent)[0]
        check_columns(path, arrays, codec.columns())
        counts.append(codec.counts(arrays))
        try:
            found.append(codec.batches(arrays, options.batch_size, options.dtype))
        except DataError as error:
            raise ArtifactError(f"{path}: {error}; train anew") from error
    if found[0] is None:
        raise ArtifactError(f"{folder / 'train.safetensors'}: no such file; train anew")
    training, validation = counts
    description = (
        f"{training:,} {codec.counted} to train on, {validation:,} to validate on, "
        f"{codec.describe()}"
    )
    return TrainingData(found[0], found[1], description)


def _evaluation(
    read_examples: ReadExamples, options: Any, model: Any, files: Paths, batch_size: int | None
) -> EvaluationData:
    examples = read_examples(options, files)
    codec = model.codec
    arrays = codec.encode(examples)
    batches = codec.batches(arrays, batch_size or options.batch_size, model.dtype)
    return EvaluationData(batches, names_of(files), codec.unknown_share(examples, arrays))


def line_inputs(options: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield where each line of a file is, and the line.

    Args:
        options: Which say how it is encoded.
        path: The file, or ``-`` for standard input, whose lines are read as they come.

    Raises:
        DataError: the file is missing or is not text.
    """
    name = "standard input" if path == "-" else path
    for number, line in enumerate(stream_lines(path, options.encoding), start=1):
        yield f"{name}, line {number:,}", line


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
    anaphora.artifact.files.ArtifactError: a: ids has 2; expected integers of 0 to 1; train ...
    """
    lengths: dict[str, int] = {}
    problems = [f"has no array {name}" for name in columns if name not in arrays]
    problems += [f"has an unknown array {name}" for name in arrays if name not in columns]
    for name, column in columns.items() if not problems else ():
        array = arrays[name]
        axes = 1 if column.features is None else 2
        if array.ndim != axes or array.dtype.kind not in ("iu" if axes == 1 else "f"):
            kind = "integers" if axes == 1 else f"rows of {column.features} floats"
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
        total = arrays[name].sum(dtype=np.float64)  # which does not overflow
        if total != lengths[column.of]:
            problems.append(
                f"{name} adds up to {total:,.0f}; expected {lengths[column.of]:,}, as there are "
                f"{column.of}"
            )
    if problems:
        raise ArtifactError(f"{path}: {problems[0]}; train anew")


def _split(examples: list[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """The examples to train on, in the order in which they stand, and those that are held out."""
    sampled = np.random.default_rng(seed).permutation(len(examples))
    held_out = set(sampled[: int(len(examples) * share)].tolist())
    return (
        [example for n, example in enumerate(examples) if n not in held_out],
        [example for n, example in enumerate(examples) if n in held_out],
    )


def in_batches(inputs: Sequence[Any], batch_size: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield parts of some inputs, each with the number of inputs before it.

    >>> list(in_batches("abcde", 2))
    [(0, 'ab'), (2, 'cd'), (4, 'e')]
    """
    for start in range(0, len(inputs), batch_size):
        yield start, inputs[start : start + batch_size]
