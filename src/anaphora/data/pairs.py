"""Pairs of texts: two files aligned line by line, or tables with a column for each side."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from anaphora.data.errors import DataError
from anaphora.data.sources import read_lines
from anaphora.data.tables import column_names, is_table, read_columns, text_of

__all__ = ["read_pairs", "read_sources"]


def read_pairs(
    paths: Sequence[str | os.PathLike[str]],
    source_column: str | None = None,
    target_column: str | None = None,
    encoding: str = "utf-8",
    format: str | None = None,
) -> list[tuple[str, str]]:
    r"""Read pairs of a source and a target, such as sentences and their translations.

    Args:
        paths: Two texts, the source and the target, aligned line by line; or tables, as
            `read_columns` reads them.
        source_column: The column of a table that holds the sources. None takes the column
            ``source``, or the first of two columns.
        target_column: The column that holds the targets. None takes the column ``target``, or the
            second of two columns.
        encoding: The encoding of the files.
        format: The format of tables without a name, such as standard input; a key of `FORMATS`.

    Returns:
        The pairs, each side one line: line ends within a field of a table become spaces. Rows
        whose sides are both blank are skipped.

    Raises:
        DataError: as for `open_source` and `read_columns`; the paths are neither two texts nor
            tables; the texts differ in their number of lines; the columns are not named; there is
            no pair.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "pairs.csv")
    ...     _ = path.write_text("en,de\nyes,ja\nno,nein\n")
    ...     read_pairs([path]), read_pairs([path], "de", "en")[0]
    ([('yes', 'ja'), ('no', 'nein')], ('ja', 'yes'))
    """
    tables = [is_table(path, format) for path in paths]
    if tables and all(tables):
        pairs = []
        for path in paths:
            columns = _columns(path, source_column, target_column, encoding, format)
            for place, values in read_columns(path, columns, encoding, format):
                source, target = (
                    _line(value, place, column)
                    for value, column in zip(values, columns, strict=True)
                )
                if source.strip() or target.strip():
                    pairs.append((source, target))
        if not pairs:
            raise DataError(f"{paths[0]} has no pair: there is nothing to read")
        return pairs
    if len(paths) != 2 or any(tables):
        raise DataError(
            f"translation needs two files, the source and the target; {len(paths)} given"
            if not any(tables)
            else "both texts and tables were given; expected a source text and a target text, or "
            "tables with a column for each"
        )
    source_lines, target_lines = (read_lines(path, encoding) for path in paths)
    if len(source_lines) != len(target_lines):
        raise DataError(
            f"{paths[0]} has {len(source_lines):,} lines, but {paths[1]} has "
            f"{len(target_lines):,}; give files that are aligned line by line"
        )
    return list(zip(source_lines, target_lines, strict=True))


def read_sources(
    path: str | os.PathLike[str],
    source_column: str | None = None,
    encoding: str = "utf-8",
    format: str | None = None,
) -> Iterator[tuple[str, str]]:
    r"""Yield the place of each source in a table, and the source; the table needs no targets.

    Arguments and exceptions are those of `read_pairs`.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "new.csv")
    ...     _ = path.write_text("en\nyes\nno\n")
    ...     [source for _, source in read_sources(path)]
    ['yes', 'no']
    """
    if source_column is None:
        names = [] if os.fspath(path) == "-" else column_names(path, encoding, format)
        if "source" not in names and len(names) != 1:
            source_column = _columns(path, None, None, encoding, format)[0]
        else:
            source_column = "source" if "source" in names else names[0]
    for place, (value,) in read_columns(path, [source_column], encoding, format):
        yield place, _line(value, place, source_column)


def _line(value: Any, place: str, column: str) -> str:
    """A text from a table as one line."""
    return " ".join(text_of(value, place, column).split("\n")).strip(" ")


def _columns(
    path: str | os.PathLike[str],
    source: str | None,
    target: str | None,
    encoding: str,
    format: str | None,
) -> tuple[str, str]:
    """The names of both columns."""
    if source is not None and target is not None:
        return source, target
    if os.fspath(path) == "-":
        raise DataError(
            "standard input is a table: say with --source-column and --target-column which columns "
            "hold the sources and the targets"
        )
    names = column_names(path, encoding, format)
    plain = [name for name in names if "." not in name] if len(names) > 2 else names
    if len(plain) == 2 and not {"source", "target"} & set(plain):
        first, second = plain
    else:
        first, second = "source", "target"
    source, target = source or first, target or second
    if source in names and target in names and source != target:
        return source, target
    raise DataError(
        f"{path} is a table: say with --source-column and --target-column which columns hold the "
        f"sources and the targets; it has {', '.join(map(repr, names)) or 'none'}"
    )
