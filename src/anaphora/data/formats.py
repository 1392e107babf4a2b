"""The format of a file: from its suffix, or given by name."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anaphora.data.encodings import open_bytes, uncompressed_name
from anaphora.data.errors import DataError

__all__ = ["FORMATS", "Format", "format_of", "kind_of"]

Kind = Literal["table", "series", "tagged", "text"]

DATASET_MARKERS = ("state.json", "dataset_dict.json", "dataset_info.json")
SAMPLE = 1 << 20  # bytes of a first line by which a table of series is recognized


@dataclass(frozen=True)
class Format:
    """What files of one format contain.

    Attributes:
        kind: ``table`` (records with fields by name), ``series``, or ``tagged`` (words with tags).
        suffixes: Their suffixes, in lower case.

    >>> FORMATS["jsonl"].kind
    'table'
    """

    kind: Kind
    suffixes: tuple[str, ...] = ()


FORMATS = {
    "csv": Format("table", (".csv",)),
    "tsv": Format("table", (".tsv",)),
    "jsonl": Format("table", (".jsonl", ".ndjson", ".json")),
    "parquet": Format("table", (".parquet",)),
    "arrow": Format("table", (".arrow",)),
    "dataset": Format("table"),  # a folder, recognized by its contents
    "ts": Format("series", (".ts",)),
    "arff": Format("series", (".arff",)),
    "npy": Format("series", (".npy",)),
    "npz": Format("series", (".npz",)),
    "ucr": Format("series"),  # a .tsv file, recognized by its first line
    "conllu": Format("tagged", (".conllu", ".conllup")),
    "columns": Format("tagged", (".conll", ".iob", ".iob2", ".bio")),
}


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str | None:
    """The name of a file's format, a key of `FORMATS`; None for plain text.

    A folder is a ``dataset`` if Hugging Face's `datasets` saved it, or if it or its subfolder
    ``data`` has ``.parquet`` files. A ``.tsv`` file whose first line has only numbers is in the
    UCR archive's format, ``ucr``: a table has column names there.

    Args:
        path: A file, a folder, or ``-``.
        format: The format, where the name does not show it, as for standard input.

    Raises:
        DataError: the given format is unknown; a ``.tsv`` file cannot be read.

    >>> format_of("reviews.csv.gz"), format_of("ECG200.TS"), format_of("book.txt")
    ('csv', 'ts', None)
    >>> format_of("-", "jsonl")
    'jsonl'
    """
    if format is not None:
        if format not in FORMATS:
            raise DataError(f"format {format!r} is unknown; expected one of {', '.join(FORMATS)}")
        return format
    if os.path.isdir(path):
        return "dataset" if _is_dataset(Path(path)) else None
    name = uncompressed_name(path).lower()
    found = next((key for key, value in FORMATS.items() if name.endswith(value.suffixes)), None)
    if found == "tsv" and os.path.isfile(path) and _has_only_numbers(Path(path)):
        return "ucr"
    return found


def kind_of(path: str | os.PathLike[str], format: str | None = None) -> Kind:
    """What a file contains: a ``table``, ``series``, ``tagged`` words, or ``text``.

    Arguments and exceptions are those of `format_of`.

    >>> kind_of("reviews.parquet"), kind_of("gestures.arff"), kind_of("book.txt")
    ('table', 'series', 'text')
    """
    found = format_of(path, format)
    return "text" if found is None else FORMATS[found].kind


def _is_dataset(folder: Path) -> bool:
    if any((folder / name).is_file() for name in DATASET_MARKERS):
        return True
    return any(any(place.glob("*.parquet")) for place in (folder, folder / "data"))


def _has_only_numbers(path: Path) -> bool:
    with open_bytes(path, str(path)) as file:
        fields = file.readline(SAMPLE).strip().split(b"\t")
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        return False
    return len(numbers) > 1
