"""Pairs of texts: two files whose lines belong together, or tables with a column for each side."""

import os
from collections.abc import Sequence

from anaphora.data.errors import DataError
from anaphora.data.sources import read_lines
from anaphora.data.tables import column_names, is_table, read_columns, text_of

__all__ = ["read_pairs"]


def read_pairs(
    paths: Sequence[str | os.PathLike[str]],
    source_column: str | None = None,
    target_column: str | None = None,
    encoding: str = "utf-8",
    format: str | None = None,
) -> list[tuple[str, str]]:
    r"""Read texts and what each is to become, such as sentences and their translations.

    Args:
        paths: Two texts, the source and the target, whose lines belong together; or tables, as
            `read_columns` reads them.
        source_column: The column of a table that holds the sources. None takes the column
            ``source``, or the first of two columns.
        target_column: The column that holds the targets. None takes the column ``target``, or the
            second of two columns.
        encoding: That of the files.
        format: That of tables without a name, such as standard input; a key of `FORMATS`.

    Returns:
        The pairs, each side one line: line ends within a field of a table become spaces. Rows
        whose sides are both blank are skipped.

    Raises:
        DataError: what `open_source` and `read_columns` raise; there are neither two texts nor
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
                    " ".join(text_of(value, place, column).split("\n")).strip(" ")
                    for value, column in zip(values, columns, strict=True)
                )
                if source.strip() or target.strip():
                    pairs.append((source, target))
        if not pairs:
            raise DataError(f"{paths[0]} has no pair: there is nothing to read")
        return pairs
    if len(paths) != 2 or any(tables):
        raise DataError(
            f"translating needs two files, the source and the target, but {len(paths)} came"
            if not any(tables)
            else "texts and tables were given; expected a text of sources and one of targets, or "
            "tables with a column for each"
        )
    source_lines, target_lines = (read_lines(path, encoding) for path in paths)
    if len(source_lines) != len(target_lines):
        raise DataError(
            f"{paths[0]} has {len(source_lines):,} lines, but {paths[1]} has "
            f"{len(target_lines):,}; give files whose lines belong together, one by one"
        )
    return list(zip(source_lines, target_lines, strict=True))


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
