"""Texts with numbers to predict, from tables."""

import math
import os
from collections.abc import Sequence
from typing import Any

from anaphora.data.errors import DataError
from anaphora.data.tables import column_names, is_table, read_columns, text_of

__all__ = ["read_targets"]


def read_targets(
    path: str | os.PathLike[str],
    column: str | None,
    target_columns: Sequence[str],
    encoding: str = "utf-8",
    format: str | None = None,
) -> list[tuple[str, tuple[float, ...]]]:
    r"""Read texts, each with one number or several.

    Args:
        path: A table, as `read_columns` reads it. Empty texts are skipped.
        column: The column that holds the texts.
        target_columns: The columns that hold the numbers.
        encoding: The encoding of the file.
        format: The format of a table without a name, such as standard input; a key of `FORMATS`.

    Raises:
        DataError: as for `open_source`; it is not a table; a column is not named or does not
            exist; a number is missing, malformed or not finite; there is no text.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "wines.csv")
    ...     _ = path.write_text("notes,price,points\ncherry and oak,18.5,87\n")
    ...     read_targets(path, "notes", ["price", "points"])
    [('cherry and oak', (18.5, 87.0))]
    """
    name = "standard input" if os.fspath(path) == "-" else os.fspath(path)
    if not is_table(path, format):
        raise DataError(
            f"{name} is not a table; texts with numbers are read from .csv, .tsv, .jsonl and "
            ".parquet files and folders of Hugging Face's datasets; series with numbers from .ts, "
            ".arff, .npy and .npz files"
        )
    if column is None or not target_columns:
        has = "" if name == "standard input" else ", ".join(
            map(repr, column_names(path, encoding, format))
        )  # fmt: skip
        raise DataError(
            f"{name} is a table: say with --column which column holds the texts, and with "
            "--target-column which holds the numbers to predict"
            + (f"; it has {has}" if has else "")
        )
    examples = []
    for where, (text, *answers) in read_columns(path, [column, *target_columns], encoding, format):
        words = text_of(text, where, column)
        if words.strip():
            numbers = (
                _number(value, where, name)
                for value, name in zip(answers, target_columns, strict=True)
            )
            examples.append((words.strip("\n"), tuple(numbers)))
    if not examples:
        raise DataError(f"{name} holds no text in column {column!r}: there is nothing to read")
    return examples


def _number(value: Any, place: str, column: str) -> float:
    """A number from a field of a table."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(
            f"{place}: the row has no number in column {column!r}; fill it in, or remove the row"
        )
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = math.nan if isinstance(value, str) and "_" in value else float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise DataError(
        f"{place}: {value!r:.40} in column {column!r} is not a finite number; write it as 1234.5, "
        "without separators or units"
    )
