"""A trained model on disk: a directory of JSON and safetensors files, each replaced in one rename.

    config.json                    architecture, preprocessing, how it was trained, package version
    tokenizer.json                 how text becomes token ids
    model.safetensors              the weights, under PyTorch's parameter names
    metrics.jsonl                  one JSON object a line, as training went
    checkpoint/state.safetensors   what a training needs to continue, in one file

Nothing is pickled. A file is written beside its place, flushed to the disk and renamed, so a kill
at any moment leaves the file of before or the file of after, never a part of one.
"""

import contextlib
import errno
import importlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

Array = npt.NDArray[Any]

FORMAT = 1
"""Number of the directory's layout; it goes up when an older anaphora could no longer read it."""

_METADATA_KEY = "anaphora"  # safetensors metadata maps strings to strings: ours is one JSON text
_EXPECTED = "expected the folder that anaphora train wrote"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "check its permissions, or choose another folder",
    errno.EPERM: "check its permissions, or choose another folder",
    errno.EROFS: "choose a folder that can be written to",
}


class ArtifactError(Exception):
    """A file of a model directory cannot be read or written; the message names it and says why."""


@contextlib.contextmanager
def _explained(path: Path, action: str) -> Iterator[None]:
    """Turn an ``OSError`` within the block into an ``ArtifactError`` that names ``path``."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the path")
        reason = error.strerror or str(error)
        raise ArtifactError(f"{path}: cannot be {action}: {reason}; {advice}") from error


# Files


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``: at every moment all of the old file or all of the new is there.

    The bytes go to a temporary ``.NAME.RANDOM.tmp`` in the same folder, are flushed to the disk and
    renamed; then the folder is flushed, so that the rename outlives a power cut. On an exception
    the temporary is removed and the old file is untouched. A kill can leave a temporary behind:
    nothing reads it, and the next save of a `ModelDirectory` removes it.

    Raises:
        ArtifactError: the folder is missing or read-only, the disk is full, ...

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_write(Path(folder, "note.txt"), b"again")
    ...     Path(folder, "note.txt").read_bytes()
    b'again'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with _explained(path, "written"):
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make the renames within ``folder`` durable, where the system can."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _remove_temporaries(folder: Path) -> None:
    """Remove what killed writes left in ``folder``."""
    for temporary in folder.glob(f".*.{'[0-9a-f]' * 16}.tmp"):
        temporary.unlink(missing_ok=True)


def _read_bytes(path: Path) -> bytes:
    with _explained(path, "read"):
        return path.read_bytes()


# JSON


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically.

    ``value`` is made of ``None``, booleans, integers, finite floats, strings, lists or tuples, and
    mappings with string keys; a NumPy scalar is written as the Python number it equals. Floats come
    back bit for bit.

    Raises:
        ArtifactError: ``value`` holds something else (the message says where), or the file cannot
            be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder, "config.json"), {"cell": "lstm", "hidden_size": 200})
    ...     read_json(Path(folder, "config.json"))
    {'cell': 'lstm', 'hidden_size': 200}
    """
    atomic_write(path, _json_bytes(Path(path), value))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read what `write_json` wrote, or what a person made of it in an editor.

    Raises:
        ArtifactError: the file is missing or is not JSON; the message gives the line and column.
    """
    path = Path(path)
    try:
        return _parse_json(_read_bytes(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        problem = f"line {line}, column {column}: not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise ArtifactError(f"{path}: is not valid JSON: {problem}; correct it there, or restore it")


def _json_bytes(path: Path, value: object) -> bytes:
    text = json.dumps(_plain(value, path), indent=2, ensure_ascii=False) + "\n"
    # A file name that is not UTF-8 reaches Python as lone surrogates. Python's \udcff for one of
    # them is JSON's escape as well, and reads back as the same string.
    return text.encode("utf-8", errors="backslashreplace")


def _parse_json(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _plain(value: object, path: Path, place: str = "") -> Any:
    """``value`` in JSON's own types, or a message that names the place JSON has no type for."""
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
            return {key: _plain(item, path, f"{place}.{key}") for key, item in value.items()}
        case Mapping():
            key = next(key for key in value if not isinstance(key, str))
            problem = f"has the key {key!r}, which JSON would turn into a string; use str({key!r})"
        case list() | tuple():
            return [_plain(item, path, f"{place}[{i}]") for i, item in enumerate(value)]
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
) -> None:
    """Write named arrays, of any shape and memory layout, as one safetensors file, atomically.

    ``metadata`` is anything that `write_json` takes; it is kept in the file's header.

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
    text = json.dumps(_plain(metadata or {}, path, "metadata"))
    atomic_write(path, safetensors.numpy.save(storable, {_METADATA_KEY: text}))


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a safetensors file: its arrays by name (in no particular order), and our metadata.

    The arrays are writable and the caller's own: the file is closed and may be replaced. A file
    that another program wrote has the metadata ``{}``.

    Raises:
        ArtifactError: the file is missing, empty, truncated, damaged, or not a safetensors file.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        arrays = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = _parse_json(header.get("__metadata__", {}).get(_METADATA_KEY, "{}"))
        if not isinstance(metadata, dict):
            raise ValueError("its metadata is not a JSON object")
    except KeyError as error:
        raise ArtifactError(
            f"{path}: holds numbers of type {error.args[0]}, which NumPy does not have; "
            "convert them to F32 where they were written"
        ) from error
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: {_diagnosis(data, error)}") from error
    return arrays, metadata


def _storable(array: Array, path: Path, name: str) -> Array:
    """``array`` in C order and little-endian, as safetensors takes for granted."""
    if name == "__metadata__":
        raise ArtifactError(
            f"{path}: safetensors keeps the name {name!r} to itself; rename the array"
        )
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ArtifactError(
            f"{path}: array {name!r} has dtype {array.dtype}; "
            "expected booleans, integers or floats of at most 64 bits: convert it with astype"
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _diagnosis(data: bytes, error: Exception) -> str:
    """What is wrong with ``data``, which is not a whole safetensors file, and what to do."""
    again = "copy it again from where it is whole, or write it anew"
    if not data:
        return f"is empty; {again}"
    if len(data) > 8 and data[8:9] != b"{":
        archive = data.startswith(b"PK") and b"data.pkl" in data
        if archive or data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            return (
                "is a pickle (torch.save), not a safetensors file; with PyTorch, convert it: "
                "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE)"
            )
        return "is not a safetensors file; expected what anaphora or safetensors wrote"
    # 8 bytes with the length of the header; the header, JSON; the numbers
    expected = 8 + int.from_bytes(data[:8], "little")
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        tensors = json.loads(data[8:expected])
        tensors.pop("__metadata__", None)
        expected += max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if len(data) < max(expected, 9):
        return f"is truncated: {len(data)} bytes of at least {expected} are there; {again}"
    return f"is damaged ({error}); {again}"


# The directory


class ModelDirectory:
    """A trained model's directory: where its files are, and how each is read and written safely.

    Make one with `create` (to train) or `open` (to use or continue); the constructor only names it.
    One process writes to a directory at a time; any number may read meanwhile.

    Attributes:
        path: the directory.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> directory = ModelDirectory.create(Path(folder.name, "model"))
    >>> directory.save({"cell": "gru"}, {"tokens": ["a", "b"]}, {"bias": np.zeros(2)})
    >>> config, tokenizer, arrays = ModelDirectory.open(directory.path).load()
    >>> config["cell"], tokenizer, arrays
    ('gru', {'tokens': ['a', 'b']}, {'bias': array([0., 0.])})
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"ModelDirectory({str(self.path)!r})"

    @property
    def config(self) -> Path:
        """Path of ``config.json``."""
        return self.path / "config.json"

    @property
    def tokenizer(self) -> Path:
        """Path of ``tokenizer.json``."""
        return self.path / "tokenizer.json"

    @property
    def weights(self) -> Path:
        """Path of ``model.safetensors``; the file is there once a model was saved."""
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """Path of ``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Path of ``checkpoint/state.safetensors``; with that file training can continue."""
        return self.path / "checkpoint" / "state.safetensors"

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, overwrite: bool = False) -> "ModelDirectory":
        """Make the directory for a new training, parents included.

        A training that was stopped before it saved anything is replaced without asking. With
        ``overwrite`` a model is removed too: its own files, and no others in the folder.

        Raises:
            ArtifactError: ``path`` is a file, a folder with other things in it, or (without
                ``overwrite``) holds a model or a checkpoint; or it cannot be written.
        """
        self = cls(path)
        with _explained(self.path, "written"):
            if self.path.exists() and not self.path.is_dir():
                raise ArtifactError(f"{self.path}: is a file; choose another --out")
            if self.path.exists() and any(self.path.iterdir()) and not self._is_ours():
                raise ArtifactError(
                    f"{self.path}: is not empty and is not a model directory; choose another --out"
                )
            if not overwrite and (self.weights.exists() or self.checkpoint.exists()):
                raise ArtifactError(
                    f"{self.path}: already holds a model; continue its training with --resume, "
                    "or choose another --out"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            self.metrics.touch()
            self.checkpoint.parent.mkdir(exist_ok=True)
            # From here on it is recognised as ours, however far the removal gets.
            for file in (self.checkpoint, self.weights, self.tokenizer, self.config):
                file.unlink(missing_ok=True)
            os.truncate(self.metrics, 0)
            for folder in (self.checkpoint.parent, self.path):
                _remove_temporaries(folder)
                _flush_folder(folder)
        return self

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "ModelDirectory":
        """Find a directory that holds a model, or at least a checkpoint to continue from.

        Raises:
            ArtifactError: the folder is missing, is not a model directory, is from a newer
                anaphora, or its training stopped before anything was saved.
        """
        self = cls(path)
        with _explained(self.path, "read"):
            if not self.path.exists():
                raise ArtifactError(f"{self.path}: no such folder; {_EXPECTED}")
            if not self.path.is_dir():
                raise ArtifactError(f"{self.path}: is a file; {_EXPECTED}")
            if not self._is_ours():
                raise ArtifactError(
                    f"{self.path}: is not a model directory, as it has no config.json with a "
                    f'"format"; {_EXPECTED}'
                )
            if self.config.exists():
                self._load_config()
            if not self.weights.exists() and not self.checkpoint.exists():
                raise ArtifactError(
                    f"{self.path}: its training stopped before a model was saved; "
                    "train again with the same --out"
                )
        return self

    def _is_ours(self) -> bool:
        if self.config.exists():  # a name that others use too: "format" tells
            config = read_json(self.config)
            return isinstance(config, dict) and "format" in config
        return self.metrics.is_file() and self.checkpoint.parent.is_dir()

    # The model

    def save(
        self,
        config: Mapping[str, object],
        tokenizer: Mapping[str, object],
        arrays: Mapping[str, Array],
    ) -> None:
        """Save a model: its configuration and tokenizer, where they are new, then its weights.

        The rename of the weights is what makes the save count. So within one directory the
        architecture and the tokenizer stay what they are, and ``config`` may otherwise change: a
        kill between two renames leaves a new ``config.json`` beside the weights of before.
        ``config.json`` also gets ``"format"`` and ``"anaphora"``, the version of the package.

        Raises:
            ArtifactError: the tokenizer is not the one that the saved weights were trained with; or
                a file cannot be written.
        """
        header = {"format": FORMAT, "anaphora": _package_version()}
        new_config = _json_bytes(self.config, {**header, **config, **header})
        new_tokenizer = _json_bytes(self.tokenizer, tokenizer)
        with _explained(self.path, "written"):
            _remove_temporaries(self.path)
        if not _holds(self.tokenizer, new_tokenizer):
            if self.weights.exists() and self.tokenizer.exists():
                raise ArtifactError(
                    f"{self.tokenizer}: differs from the tokenizer to save, so the weights beside "
                    "it have other token ids; save to another folder"
                )
            atomic_write(self.tokenizer, new_tokenizer)
        if not _holds(self.config, new_config):
            atomic_write(self.config, new_config)
        write_weights(self.weights, arrays)

    def load(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Array]]:
        """Load the model: configuration (with ``"format"`` and ``"anaphora"``), tokenizer, weights.

        Raises:
            ArtifactError: no model was saved yet, it is from a newer anaphora, or a file is missing
                or damaged.
        """
        if not self.weights.exists() and self.checkpoint.exists():
            raise ArtifactError(
                f"{self.path}: its training stopped before a model was saved; "
                "continue it with --resume"
            )
        return self._load_config(), read_json(self.tokenizer), read_weights(self.weights)[0]

    def _load_config(self) -> dict[str, Any]:
        config: dict[str, Any] = read_json(self.config)
        format = config.get("format") if isinstance(config, dict) else None
        if format == FORMAT:
            return config
        if isinstance(format, int) and format > FORMAT:
            raise ArtifactError(
                f"{self.config}: was written by a newer anaphora ({config.get('anaphora')}); "
                "upgrade: pip install --upgrade anaphora"
            )
        raise ArtifactError(f'{self.config}: has "format" {format!r}; expected {FORMAT}')

    # The checkpoint

    def save_checkpoint(self, arrays: Mapping[str, Array], metadata: Mapping[str, object]) -> None:
        """Save all that a training needs to continue, in one file and so in one rename.

        Raises:
            ArtifactError: as `write_weights`.
        """
        with _explained(self.checkpoint, "written"):
            self.checkpoint.parent.mkdir(exist_ok=True)
            _remove_temporaries(self.checkpoint.parent)
        write_weights(self.checkpoint, arrays, metadata)

    def load_checkpoint(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Load the arrays and metadata of the last `save_checkpoint`.

        Raises:
            ArtifactError: there is no checkpoint, or it is damaged.
        """
        if not self.checkpoint.exists():
            raise ArtifactError(
                f"{self.checkpoint}: no such file, so there is no training to continue; "
                "train without --resume"
            )
        return read_weights(self.checkpoint)

    # The metrics

    def append_metrics(self, record: Mapping[str, object]) -> None:
        """Append ``record`` as one line; NaN and infinities become "NaN", "Infinity", "-Infinity".

        Half a line that a kill left at the end is removed first.

        Raises:
            ArtifactError: the record is not JSON, or the file cannot be written.
        """
        plain = _plain({name: _spelled(value) for name, value in record.items()}, self.metrics)
        line = json.dumps(plain) + "\n"
        with _explained(self.metrics, "written"), open(self.metrics, "a+b") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.truncate(self.metrics_size())
            file.write(line.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read the records, without a last line that is not finished; none if there is no file.

        Raises:
            ArtifactError: a line is not a JSON object; the message gives its number.
        """
        if not self.metrics.exists():
            return []
        records = []
        lines = _read_bytes(self.metrics).split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                record = _parse_json(line)
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
            except (ValueError, RecursionError) as error:
                raise ArtifactError(
                    f"{self.metrics}: line {number}: {error}; remove that line"
                ) from error
            records.append({name: _number(value) for name, value in record.items()})
        return records

    def metrics_size(self) -> int:
        """Size in bytes of the finished lines, which a checkpoint keeps for `truncate_metrics`."""
        if not self.metrics.exists():
            return 0
        return _read_bytes(self.metrics).rfind(b"\n") + 1

    def truncate_metrics(self, size: int) -> None:
        """Cut the lines after the first ``size`` bytes, which a resumed training writes again.

        Fewer than ``size`` bytes, after a power cut or an edit, stay as they are.
        """
        if size < self.metrics_size():
            with _explained(self.metrics, "written"):
                os.truncate(self.metrics, size)


def _holds(path: Path, data: bytes) -> bool:
    return path.exists() and _read_bytes(path) == data


def _package_version() -> str:
    # By name, when it is needed: this module imports nothing of the package, which may import it.
    return str(importlib.import_module("anaphora").__version__)


def _spelled(value: object) -> object:
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return json.dumps(float(value))
    return value


def _number(value: object) -> object:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
