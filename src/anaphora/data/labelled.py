"""Labelled texts: from tables, or from folders with a file for each label."""

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anaphora.data.encodings import uncompressed_name
from anaphora.data.errors import DataError
from anaphora.data.files import matching_files
from anaphora.data.formats import format_of
from anaphora.data.sources import read_lines
from anaphora.data.tables import column_names, is_table, label_of, read_columns, text_of

__all__ = ["check_labels", "labels_of", "read_labelled"]


def read_labelled(
    path: str | os.PathLike[str],
    column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    format: str | None = None,
    label_separator: str | None = None,
) -> list[tuple[str, Any]]:
    r"""Read texts and their labels.

    Args:
        path: A table, as `read_columns` reads it; or a folder of ``.txt`` files, each named after
            its label, with one text per line. Empty texts and files whose names begin with a dot
            are skipped. A file may be compressed with gzip if its name ends in ``.gz``.
        column: The column of a table that holds the texts.
        label_column: The column that holds the labels.
        encoding: The encoding of the files.
        format: The format of a table without a name, such as standard input; a key of `FORMATS`.
        label_separator: What separates the labels of an example that may have several.

    Returns:
        The texts with their labels. With a separator, and where a table has a list, the labels are
        a tuple, as from `labels_of`.

    Raises:
        DataError: as for `open_source`; a column is not named or does not exist; a row has no
            label, where it must have one; a file has no text; two labels look the same (see
            `check_labels`).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "de.txt").write_text("ja\nnein\n")
    ...     _ = Path(folder, "fr.txt").write_text("oui\n")
    ...     read_labelled(folder)
    [('ja', 'de'), ('nein', 'de'), ('oui', 'fr')]
    """
    folder = Path(path)
    if os.fspath(path) != "-" and not folder.exists():
        raise DataError(f"{path} does not exist; the current folder is {Path.cwd()}")
    if not folder.is_dir() or format_of(path, format) is not None:
        return _read_table(path, column, label_column, encoding, format, label_separator)
    files, contents = matching_files(folder, "*.txt", recursive=False)
    if not files:
        raise DataError(
            f"the folder {folder} has no .txt file ({contents}); expected one for each label, with "
            "one text per line"
        )
    labels = {Path(uncompressed_name(file)).stem: file for file in files}
    check_labels({label: str(file) for label, file in labels.items()})
    examples: list[tuple[str, Any]] = []
    for label, file in labels.items():
        lines = read_lines(file, encoding) if file.stat().st_size else []
        if not any(line.strip() for line in lines):
            raise DataError(f"{file} has no text, so there is no example of the label {label!r}")
        answer = label if label_separator is None else labels_of(label, label_separator)
        examples += [(line, answer) for line in lines if line.strip()]
    return examples


def labels_of(
    value: Any, separator: str | None = None, place: str = "", column: str = ""
) -> tuple[str, ...]:
    """The labels of an example that may have several or none: sorted, each once.

    Args:
        value: A list of labels; or a text or a number, which is one label.
        separator: What separates the labels of a text, if it may have several.
        place: Where the value is, for messages.
        column: The column that it is of.

    Raises:
        DataError: one of them is not a label.

    >>> labels_of("war|crime| war", "|"), labels_of(["b", "a"]), labels_of("", "|")
    (('crime', 'war'), ('a', 'b'), ())
    """
    if isinstance(value, list):
        labels = [label_of(one, place, column) for one in value]
    else:
        labels = [label_of(value, place, column)]
        if separator is not None:
            labels = labels[0].split(separator)
    return tuple(sorted({label.strip() for label in labels} - {""}))


def check_labels(places: Mapping[str, str], what: str = "label") -> None:
    """Refuse labels that look the same: that differ only in white space or Unicode normalization.

    Args:
        places: Where each label was first found.
        what: What a label is called in messages.

    Raises:
        DataError: there are two such labels.

    >>> check_labels({"good": "line 2", " good": "line 7"})
    Traceback (most recent call last):
    anaphora.data.errors.DataError: line 7: the label ' good' and 'good' (line 2) look the same, ...
    """
    seen: dict[str, str] = {}
    for label, place in places.items():
        other = seen.setdefault(" ".join(unicodedata.normalize("NFC", label).split()), label)
        if other != label:
            raise DataError(
                f"{place}: the {what} {label!a} and {other!a} ({places[other]}) look the same, but "
                "differ in white space or in how their characters are composed; write both alike"
            )


def _read_table(
    path: str | os.PathLike[str],
    column: str | None,
    label_column: str | None,
    encoding: str,
    format: str | None,
    label_separator: str | None,
) -> list[tuple[str, Any]]:
    name = "standard input" if os.fspath(path) == "-" else os.fspath(path)
    if not is_table(path, format):
        raise DataError(
            f"{name} is neither a .csv or .tsv file nor a folder with a .txt file for each label; "
            "tables may also be .jsonl or .parquet files, or folders of Hugging Face's datasets"
            if name != "standard input"
            else "standard input has no name that shows its format; give the format of the table, "
            "such as csv, tsv or jsonl"
        )
    if column is None or label_column is None:
        has = (
            ""
            if name == "standard input"
            else "; it has "
            + (", ".join(map(repr, column_names(path, encoding, format))) or "none")
        )
        raise DataError(
            f"{name} is a table: say with --column and --label-column which columns hold the texts "
            f"and their labels{has}"
        )
    examples: list[tuple[str, Any]] = []
    places: dict[str, str] = {}
    for where, values in read_columns(path, [column, label_column], encoding, format):
        text = text_of(values[0], where, column)
        several = label_separator is not None or isinstance(values[1], list)
        if several:
            answer: Any = labels_of(values[1], label_separator, where, label_column)
        else:
            answer = label_of(values[1], where, label_column)
        if not text.strip():
            continue
        if not several and not answer.strip():
            raise DataError(f"{where}: the row has no label in column {label_column!r}")
        for label in answer if several else [answer]:
            places.setdefault(label, where)
        examples.append((text.strip("\n"), answer))
    if not examples:
        raise DataError(f"{name} holds no text in column {column!r}: there is nothing to read")
    check_labels(places)
    return examples
