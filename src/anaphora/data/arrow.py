"""Apache Arrow tables: Parquet files, and folders saved by Hugging Face's `datasets`."""

import contextlib
import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anaphora.data.errors import DataError
from anaphora.data.files import SourceFile

__all__ = ["column_names", "read_rows"]

SPLITS = ("train", "test", "validation", "valid", "dev")
SHARD = re.compile(r"-\d+-of-\d+(-\w+)?$")

Part = tuple[str, Any, Iterable[Any], Mapping[str, Any]]  # name, schema, batches, features


def column_names(file: SourceFile) -> list[str]:
    """The names of the columns; fields of a struct are named STRUCT.FIELD."""
    with contextlib.closing(_parts(file)) as parts:
        _, schema, _, _ = next(parts)
        return _names(schema)


def read_rows(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the place of each row, and its values in the columns.

    Class numbers become the names that `datasets` stores for them (``ClassLabel``); -1, which
    means no class, becomes None.
    """
    for name, schema, batches, features in _parts(file, columns):
        for column in columns:
            if column not in _names(schema):
                raise DataError(
                    f"{name} has no column {column!r}; it has "
                    f"{', '.join(map(repr, _names(schema)))}"
                )
        classes = [_class_names(_feature(features, column)) for column in columns]
        number = 0
        for batch in batches:
            values = [_values(batch, column) for column in columns]
            for row in zip(*values, strict=True):
                number += 1
                place = f"{name}, row {number}"
                yield (
                    place,
                    [
                        value if names is None else _named(place, value, names)
                        for value, names in zip(row, classes, strict=True)
                    ],
                )


def _parts(file: SourceFile, columns: Sequence[str] | None = None) -> Generator[Part, None, None]:
    """The files of a table, one after the other."""
    pa = _pyarrow(file)
    folder_features: Mapping[str, Any] = {}
    paths = [(file.path, file.name)]
    if file.path.is_dir():
        paths = [(path, str(path)) for path in _files_of_folder(file.path)]
        folder_features = _json(file.path / "dataset_info.json").get("features") or {}
    for path, name in paths:
        try:
            with _opened(pa, path, file.format, columns) as (schema, batches):
                yield name, schema, batches, _features(schema) or folder_features
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, DataError):
                raise
            kind = "Arrow" if path.suffix.lower() == ".arrow" else "Parquet"
            raise DataError(
                f"{name} cannot be read as {kind}: {error}; copy or download it again"
            ) from error


@contextlib.contextmanager
def _opened(
    pa: Any, path: Path, format: str | None, columns: Sequence[str] | None
) -> Iterator[tuple[Any, Iterable[Any]]]:
    """The schema of a file, and its batches of rows."""
    if format == "arrow" or path.suffix.lower() == ".arrow":
        with pa.memory_map(str(path)) as source:
            try:
                reader = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                source.seek(0)
                reader = pa.ipc.open_file(source)
                batches = map(reader.get_batch, range(reader.num_record_batches))
                yield reader.schema, batches
            else:
                yield reader.schema, reader
        return
    with pa.parquet.ParquetFile(path) as table:
        schema = table.schema_arrow
        fields = None
        if columns is not None:  # all fields of a struct
            top = {column if column in schema.names else column.split(".")[0] for column in columns}
            fields = [name for name in schema.names if name in top]
        yield schema, table.iter_batches(columns=fields)


def _pyarrow(file: SourceFile) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{file.name} is a Parquet or Arrow table, which needs an extra: "
            'pip install "anaphora[parquet]"'
        ) from error
    return pyarrow


def _files_of_folder(folder: Path) -> list[Path]:
    """The files of a data set, in order."""
    splits = _json(folder / "dataset_dict.json").get("splits")
    if splits:
        raise DataError(
            f"{folder} has the splits {', '.join(splits)}; name one of them: {folder / splits[0]}"
        )
    saved = _json(folder / "state.json").get("_data_files")
    if saved:
        return [folder / Path(entry["filename"]).name for entry in saved]
    for place, suffix in [
        (folder, ".arrow"),
        (folder, ".parquet"),
        (folder / "data", ".parquet"),
    ]:
        paths = sorted(place.glob(f"*{suffix}"))
        found = {SHARD.sub("", path.stem) for path in paths}
        if len(found & set(SPLITS)) > 1:
            raise DataError(
                f"{place} has files of the splits {', '.join(sorted(found))}; name the files of "
                f"one: {place}/{min(found)}*{suffix}"
            )
        if paths:
            return paths
    raise DataError(f"{folder} has no .arrow or .parquet file; copy or download it again")


def _json(path: Path) -> dict[str, Any]:
    """The contents of a JSON file that `datasets` wrote; empty if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; copy or download it again") from error
    return found if isinstance(found, dict) else {}


def _features(schema: Any) -> Mapping[str, Any]:
    """The features with which `datasets` describes columns, from the metadata of a file."""
    described = (schema.metadata or {}).get(b"huggingface")
    try:
        info = json.loads(described or b"{}")
    except ValueError:  # another program's metadata
        return {}
    features = info.get("info", {}).get("features") if isinstance(info, dict) else None
    return features if isinstance(features, dict) else {}


def _feature(features: Any, column: str) -> Any:
    """The feature of a column, or of a field in a struct."""
    if not isinstance(features, dict):
        return None
    if column in features:
        return features[column]
    first, _, rest = column.partition(".")
    return _feature(features.get(first), rest) if rest else None


def _class_names(feature: Any) -> list[str] | None:
    """The names of the classes of a feature, or of the items of a list feature."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        names: list[str] | None = feature.get("names")
        return names
    return _class_names(feature.get("feature"))


def _named(place: str, value: Any, names: Sequence[str]) -> Any:
    """The name of a class number, or the names of a list of them."""
    if isinstance(value, list):
        return [_named(place, item, names) for item in value]
    if not isinstance(value, int) or value == -1:
        return None if value == -1 else value
    if not 0 <= value < len(names):
        raise DataError(
            f"{place}: the class {value} is not one of the {len(names)} classes that the file names"
        )
    return names[value]


def _names(schema: Any) -> list[str]:
    names: list[str] = []
    for field in schema:
        names.append(field.name)
        fields = getattr(field.type, "fields", None) if _is_struct(field.type) else None
        names += [f"{field.name}.{inner.name}" for inner in fields or []]
    return names


def _is_struct(type: Any) -> bool:
    return str(type).startswith("struct")


def _values(batch: Any, column: str) -> list[Any]:
    if column in batch.schema.names:
        values: list[Any] = batch.column(column).to_pylist()
        return values
    first, _, rest = column.partition(".")
    rows = batch.column(first).to_pylist()
    return [None if row is None else row.get(rest) for row in rows]
