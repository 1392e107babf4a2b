"""Files of a model directory: JSON and safetensors, each replaced atomically."""

import contextlib
import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from anaphora import schema
from anaphora.artifact.folder import Folder, opener_within

Array = npt.NDArray[Any]

_MAX_DEPTH = 64  # of nested JSON
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)
_METADATA_KEY = "anaphora"  # safetensors metadata maps strings to strings; ours is one JSON string
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "check its permissions, or choose another folder",
    errno.EPERM: "check its permissions, or choose another folder",
    errno.EROFS: "choose a folder that can be written to",
    errno.ELOOP: "replace it with the file or folder itself",
}


class ArtifactError(Exception):
    """A file of a model directory cannot be read or written; the message names it and says why."""


@contextlib.contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn an ``OSError`` within the block into an ``ArtifactError`` that names ``path``."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the path")
        reason = error.strerror or str(error)
        raise ArtifactError(f"{path}: cannot be {action}: {reason}; {advice}") from error


# Files


def atomic_write(path: str | os.PathLike[str], data: bytes, *, within: Path | None = None) -> None:
    """Write ``data`` to ``path`` atomically: at any moment either the old or the new file exists.

    The bytes are written to a temporary ``.NAME.RANDOM.tmp`` in the same folder, flushed to disk
    and renamed; then the folder is flushed, so that the rename survives a power failure. On an
    exception the temporary is removed and the old file is unchanged. A kill can leave a temporary
    file: nothing reads it, and the next save of a `ModelDirectory` removes it.

    Args:
        path: The file. If it is a symbolic link, the link is replaced.
        data: Its new content.
        within: A parent folder, within which symbolic links are not followed; None follows all.

    Raises:
        ArtifactError: the folder is missing or read-only, the disk is full, ...

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_write(Path(folder, "note.txt"), b"again")
    ...     Path(folder, "note.txt").read_bytes()
    b'again'
    """
    path = Path(path)
    temporary = f".{path.name}.{secrets.token_hex(8)}.tmp"
    root = path.parent if within is None else within
    with explained(path, "written"), Folder.within(root, path.parent) as folder:
        try:
            with open(temporary, "xb", opener=folder.open) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            folder.replace(temporary, path.name)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.remove(temporary)
            raise
        folder.flush()


def remove_temporaries(folder: Folder) -> None:
    """Remove temporary files left by killed writes."""
    for name in folder.names():
        if _TEMPORARY.fullmatch(name):
            folder.remove(name)


def read_bytes(path: Path, within: Path | None = None) -> bytes:
    """Read a file.

    Args:
        path: The file.
        within: A parent folder, within which symbolic links are not followed and only regular
            files are opened; None opens any path.

    Raises:
        ArtifactError: it is missing or cannot be read.
    """
    opener = None if within is None else opener_within(within)
    with explained(path, "read"), open(path, "rb", opener=opener) as file:
        return file.read()


# JSON


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically.

    ``value`` is made of ``None``, booleans, integers, finite floats, strings, lists or tuples, and
    mappings with string keys; a NumPy scalar is written as the Python number it equals. Floats
    round-trip bit for bit.

    Raises:
        ArtifactError: ``value`` holds something else (the message says where), or the file cannot
            be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder, "config.json"), {"cell": "lstm", "hidden_size": 200})
    ...     read_json(Path(folder, "config.json"))
    {'cell': 'lstm', 'hidden_size': 200}
    """
    atomic_write(path, json_bytes(Path(path), value))


def read_json(path: str | os.PathLike[str], *, within: Path | None = None) -> Any:
    """Read a JSON file written by `write_json`, possibly edited by hand.

    Args:
        path: The file.
        within: As for `read_weights`.

    Raises:
        ArtifactError: the file is missing or is not JSON; the message gives the line and column.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text('{"hidden_size": 200}')
    ...     read_json(Path(folder, "config.json"))
    {'hidden_size': 200}
    """
    path = Path(path)
    try:
        return parse_json(read_bytes(path, within).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        problem = f"line {line}, column {column}: not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise ArtifactError(f"{path}: is not valid JSON: {problem}; correct it there, or restore it")


def json_bytes(path: Path, value: object) -> bytes:
    """The bytes that `write_json` writes; ``path`` is for messages."""
    text = json.dumps(plain(value, path), indent=2, ensure_ascii=False) + "\n"
    # File names that are not UTF-8 contain lone surrogates in Python. Python's escape for them,
    # \udcff, is also JSON's, and is read back as the same string.
    return text.encode("utf-8", errors="backslashreplace")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON with finite numbers and unique names in each object.

    Raises:
        ValueError: it is not JSON, or violates this.
    """
    value = json.loads(
        text,
        parse_constant=_refuse_constant,
        parse_float=_finite,
        object_pairs_hook=_with_unique_names,
    )
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise ValueError(f"its objects and arrays are nested more than {_MAX_DEPTH} deep")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        name = next(name for n, (name, _) in enumerate(pairs) if name in dict(pairs[:n]))
        raise ValueError(f"the name {name!r} occurs twice in an object")
    return result


def plain(value: object, path: Path, place: str = "") -> Any:
    """``value`` in JSON's own types; the error for other types gives their place."""
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case float():
            problem = f"is {value}, which JSON cannot hold; write None or a string"
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: plain(item, path, f"{place}.{key}") for key, item in value.items()}
        case Mapping():
            key = next(key for key in value if not isinstance(key, str))
            problem = f"has the key {key!r}, which JSON would turn into a string; use str({key!r})"
        case list() | tuple():
            return [plain(item, path, f"{place}[{i}]") for i, item in enumerate(value)]
        case _:
            problem = (
                f"is of type {type(value).__name__}; "
                "expected None, a boolean, a number, a string, a list or a mapping"
            )
    raise ArtifactError(f"{path}: {place.lstrip('.') or 'the value'} {problem}")


# Weights


def write_weights(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, object] | None = None,
    *,
    within: Path | None = None,
) -> None:
    """Write named arrays, of any shape and memory layout, as one safetensors file, atomically.

    ``metadata`` is anything that `write_json` accepts; it is stored in the file's header.
    ``within`` is as for `atomic_write`.

    Raises:
        ArtifactError: an array is not of booleans, integers or floats of at most 64 bits; the
            metadata is not JSON; the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.safetensors")
    ...     write_weights(path, {"decoder.bias": np.arange(3.0)}, {"step": 7})
    ...     read_weights(path)
    ({'decoder.bias': array([0., 1., 2.])}, {'step': 7})
    """
    path = Path(path)
    storable = {name: _storable(array, path, name) for name, array in arrays.items()}
    text = json.dumps(plain(metadata or {}, path, "metadata"))
    atomic_write(path, safetensors.numpy.save(storable, {_METADATA_KEY: text}), within=within)


# Other programs may write more metadata, or null for none.
_Header = TypedDict("_Header", {"__metadata__": dict[str, str] | None}, total=False)


def read_weights(
    path: str | os.PathLike[str], *, within: Path | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a safetensors file: its arrays by name (in no particular order), and our metadata.

    The arrays are writable copies: the file is closed and may be replaced. The metadata of files
    written by other programs are ``{}``.

    Args:
        path: The file.
        within: A parent folder, within which symbolic links are not followed and only regular
            files are opened, as in an untrusted model directory; None follows links.

    Raises:
        ArtifactError: the file is missing, empty, truncated, damaged, or not a safetensors file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.safetensors")
    ...     safetensors.numpy.save_file({"bias": np.zeros(2)}, path)
    ...     read_weights(path)
    ({'bias': array([0., 0.])}, {})
    """
    path = Path(path)
    data = read_bytes(path, within)
    try:
        arrays = safetensors.numpy.load(data)
        header: _Header = schema.convert(
            parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")]), _Header
        )
        text = (header.get("__metadata__") or {}).get(_METADATA_KEY, "{}")
        metadata: dict[str, Any] = schema.convert(parse_json(text), dict[str, Any], "its metadata")
    except KeyError as error:
        raise ArtifactError(
            f"{path}: holds numbers of type {error.args[0]}, which NumPy does not have; "
            "convert them to F32 where they were written"
        ) from error
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: {_diagnosis(data, error)}") from error
    return arrays, metadata


class Shape(NamedTuple):
    """The expected shape and dtype of an array of a file.

    Attributes:
        axes: Its size along each axis.
        dtype: Its dtype.

    >>> print(Shape((3, 2), np.dtype("float32")))
    float32 [3, 2]
    """

    axes: tuple[int, ...]
    dtype: npt.DTypeLike

    def __str__(self) -> str:
        return f"{np.dtype(self.dtype)} {list(self.axes)}"


def check_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], expected: Mapping[str, Shape]
) -> None:
    """Check that the arrays of a file are the expected ones, and finite.

    Args:
        path: The file, for messages.
        arrays: Its arrays.
        expected: The expected arrays.

    Raises:
        ArtifactError: an array is missing, is not expected, has another shape or dtype, or has a
            number that is not finite.

    >>> expected = {"bias": Shape((2,), np.dtype("float32"))}
    >>> check_arrays("model.safetensors", {"bias": np.zeros(2, np.float32)}, expected)
    >>> check_arrays("model.safetensors", {"bias": np.zeros(2, np.int32)}, expected)
    Traceback (most recent call last):
        ...
    anaphora.artifact.files.ArtifactError: model.safetensors: bias is int32 [2]; expected ...
    """
    problem = None
    if missing := [name for name in expected if name not in arrays]:
        problem = f"has no array {missing[0]}"
    elif unexpected := [name for name in arrays if name not in expected]:
        problem = f"has an array {unexpected[0]}, which the model of config.json does not have"
    for name, shape in expected.items() if problem is None else ():
        found = Shape(arrays[name].shape, arrays[name].dtype)
        if found != shape:
            problem = f"{name} is {found}; expected {shape}"
            break
    if problem is not None:
        raise ArtifactError(f"{path}: {problem}; restore the file that was saved with config.json")
    for name, array in arrays.items():
        check_finite(path, name, array)


def check_finite(path: str | os.PathLike[str], name: str, array: Array) -> None:
    """Check that an array has no NaN and no infinity.

    Raises:
        ArtifactError: it has one; the message gives the index of the first.

    >>> check_finite("model.safetensors", "bias", np.array([1.0, np.nan]))
    Traceback (most recent call last):
        ...
    anaphora.artifact.files.ArtifactError: model.safetensors: bias[1] is nan; expected finite ...
    """
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        place = np.unravel_index(int(finite.argmin()), array.shape)
        raise ArtifactError(
            f"{path}: {name}{list(map(int, place)) if place else ''} is {array[place]}; expected "
            "finite numbers; restore an intact file, or train again"
        )


def _storable(array: Array, path: Path, name: str) -> Array:
    """``array`` in C order and little-endian, as safetensors requires."""
    if name == "__metadata__":
        raise ArtifactError(f"{path}: safetensors reserves the name {name!r}; rename the array")
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ArtifactError(
            f"{path}: array {name!r} has dtype {array.dtype}; "
            "expected booleans, integers or floats of at most 64 bits: convert it with astype"
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _diagnosis(data: bytes, error: Exception) -> str:
    """What is wrong with ``data``, an invalid safetensors file, and what to do."""
    again = "copy it again from an intact source, or write it again"
    if not data:
        return f"is empty; {again}"
    if len(data) > 8 and data[8:9] != b"{":
        archive = data.startswith(b"PK") and b"data.pkl" in data
        if archive or data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            return (
                "is a pickle (torch.save), not a safetensors file; with PyTorch, convert it: "
                "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE)"
            )
        return "is not a safetensors file; expected one that anaphora or safetensors wrote"
    # 8 bytes with the length of the header; the header, JSON; the numbers
    expected = 8 + int.from_bytes(data[:8], "little")
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        tensors = json.loads(data[8:expected])
        tensors.pop("__metadata__", None)
        expected += max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if len(data) < max(expected, 9):
        return f"is truncated: it has {len(data)} of at least {expected} bytes; {again}"
    return f"is damaged ({error}); {again}"
