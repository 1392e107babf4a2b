"""A trained model on disk: a directory of JSON and safetensors files, each replaced in one rename.

    config.json                    architecture, preprocessing, how it was trained, package version
    tokenizer.json                 how text becomes token ids
    model.safetensors              the weights, under PyTorch's parameter names
    metrics.jsonl                  one JSON object a line, as training went
    checkpoint/state.safetensors   what a training needs to continue, in one file

Nothing is pickled. A file is written beside its place, flushed to the disk and renamed, so a kill
at any moment leaves the file of before or the file of after, never a part of one.

A directory may come from anybody: below it no symbolic link is followed, and only regular files are
opened. The directory itself may be reached through a link.
"""

import importlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from anaphora import schema
from anaphora.artifact.files import (
    Array,
    ArtifactError,
    atomic_write,
    explained,
    json_bytes,
    parse_json,
    plain,
    read_bytes,
    read_json,
    read_weights,
    remove_temporaries,
    write_weights,
)
from anaphora.artifact.folder import Folder, opener_within
from anaphora.artifact.lock import LOCK_FILE, Held, Lock

FORMAT = 1
"""Number of the directory's layout; it goes up when an older anaphora could no longer read it."""

_EXPECTED = "expected the folder that anaphora train wrote"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Results(TypedDict, total=False):
    """The last evaluation that ``config.json`` tells of; null where a number was not finite."""

    step: schema.Count
    epoch: schema.NotNegative | None
    loss: float | None
    perplexity: schema.NotNegative | None
    bits_per_token: float | None
    accuracy: schema.NotNegative | None
    tokens: schema.Count | None
    seconds: schema.NotNegative | None


class Change(TypedDict):
    """Where a training that went on began its schedule anew, and the options that asked for it."""

    step: schema.Count
    epoch: schema.Count
    learning_rate: schema.NotNegative
    warm_up_step: schema.Count
    options: dict[str, Any]


class Config(TypedDict):
    """``config.json``; the sections are checked by who knows the task."""

    format: int
    anaphora: str
    task: NotRequired[str]
    model: NotRequired[dict[str, Any]]
    text: NotRequired[dict[str, Any]]
    training: NotRequired[dict[str, Any]]
    sources: NotRequired[dict[str, str | None]]
    results: NotRequired[Results]
    changes: NotRequired[list[Change]]


class Record(TypedDict, total=False):
    """A line of ``metrics.jsonl``; it may have more."""

    kind: str
    step: schema.Count
    epoch: float
    loss: float
    perplexity: float
    bits_per_token: float
    accuracy: float
    tokens: schema.Count
    seconds: float
    learning_rate: float
    gradient_norm: float
    best: bool


class LossRecord(TypedDict):
    """What a record of the kind "train" or "evaluation" has at least."""

    step: schema.Count
    loss: float


class ModelDirectory:
    """A trained model's directory: where its files are, and how each is read and written safely.

    Make one with `create` (to train) or `open` (to use or continue); the constructor only names it.
    One training writes to a directory at a time, which holds its `lock`; any number may read
    meanwhile.

    Attributes:
        path: The directory.

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
        self._lock = Lock(self.path)

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
        with explained(self.path, "written"):
            self.check_usable(overwrite=overwrite)
            self.path.mkdir(parents=True, exist_ok=True)
            with Folder(self.path) as folder:
                for name in (self.metrics.name, self.checkpoint.parent.name):
                    folder.remove_link(name)
                os.close(folder.open(self.metrics.name, os.O_WRONLY | os.O_CREAT))
                folder.make_folder(self.checkpoint.parent.name)
                # From here on it is recognised as ours, however far the removal gets.
                with Folder.within(self.path, self.checkpoint.parent) as below:
                    below.remove(self.checkpoint.name)
                    remove_temporaries(below)
                    below.flush()
                for file in (self.weights, self.tokenizer, self.config):
                    folder.remove(file.name)
                os.close(folder.open(self.metrics.name, os.O_WRONLY | os.O_TRUNC))
                remove_temporaries(folder)
                folder.flush()
        return self

    def clear(self) -> None:
        """Remove the files that `create` makes or removes, and the checkpoint's folder."""
        with explained(self.path, "written"), Folder(self.path) as folder:
            for name in (self.metrics.name, self.checkpoint.parent.name):
                folder.remove_link(name)
            for file in (self.weights, self.tokenizer, self.config, self.metrics):
                folder.remove(file.name)
            shutil.rmtree(self.checkpoint.parent, ignore_errors=True)

    def check_usable(self, *, overwrite: bool = False) -> None:
        """Refuse what `create` cannot make a model directory of.

        Raises:
            ArtifactError: as `create`.
        """
        with explained(self.path, "written"):
            if not self.path.exists():
                return
            if not self.path.is_dir():
                raise ArtifactError(f"{self.path}: is a file; choose another --out")
            names = {entry.name for entry in self.path.iterdir()} - {LOCK_FILE}
            if names and not self._is_ours():
                raise ArtifactError(
                    f"{self.path}: is not empty and is not a model directory; choose another --out"
                )
            if not overwrite and (self.weights.exists() or self.checkpoint.exists()):
                raise ArtifactError(
                    f"{self.path}: already holds a model; continue its training with --resume, "
                    "choose another --out, or replace it with --overwrite"
                )

    def make_folder(self, name: str) -> None:
        """Make a folder within the directory, if it is not there.

        Raises:
            ArtifactError: a symbolic link or a file is in its place, or it cannot be made.
        """
        with explained(self.path / name, "written"), Folder(self.path) as folder:
            folder.make_folder(name)

    def lock(self) -> None:
        """Keep other trainings out, until `unlock` or the end of this object or process.

        Raises:
            ArtifactError: another training holds the directory; the message names its process.
        """
        try:
            with explained(self.path, "locked"):
                self._lock.acquire()
        except Held as error:
            raise ArtifactError(
                f"{self.path}: a training is writing to it ({error}); wait for its end, stop it, "
                "or choose another --out"
            ) from None

    def unlock(self) -> None:
        """Let other trainings write to the directory, if this object kept them out."""
        self._lock.release()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "ModelDirectory":
        """Find a directory that holds a model, or at least a checkpoint to continue from.

        Raises:
            ArtifactError: the folder is missing, is not a model directory, is from a newer
                anaphora, or its training stopped before anything was saved.
        """
        self = cls(path)
        with explained(self.path, "read"):
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
                self.load_config()
            if not self.weights.exists() and not self.checkpoint.exists():
                raise ArtifactError(
                    f"{self.path}: its training stopped before a model was saved; "
                    "train again with the same --out"
                )
        return self

    def _is_ours(self) -> bool:
        if self.config.exists():  # a name that others use too: "format" tells
            config = read_json(self.config, within=self.path)
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
        new_config = json_bytes(self.config, {**header, **config, **header})
        new_tokenizer = json_bytes(self.tokenizer, tokenizer)
        with explained(self.path, "written"), Folder(self.path) as folder:
            remove_temporaries(folder)
        if not self._holds(self.tokenizer, new_tokenizer):
            if self.weights.exists() and self.tokenizer.exists():
                raise ArtifactError(
                    f"{self.tokenizer}: differs from the tokenizer to save, so the weights beside "
                    "it have other token ids; save to another folder"
                )
            atomic_write(self.tokenizer, new_tokenizer, within=self.path)
        if not self._holds(self.config, new_config):
            atomic_write(self.config, new_config, within=self.path)
        write_weights(self.weights, arrays, within=self.path)

    def _holds(self, path: Path, data: bytes) -> bool:
        return path.exists() and read_bytes(path, self.path) == data

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
        weights, _ = read_weights(self.weights, within=self.path)
        return self.load_config(), self.load_tokenizer(), weights

    def load_tokenizer(self) -> dict[str, Any]:
        """Load ``tokenizer.json``, whose fields are the business of who wrote it.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        found = read_json(self.tokenizer, within=self.path)
        data: dict[str, Any] = _checked(self.tokenizer, found, dict[str, Any])
        return data

    def load_config(self) -> dict[str, Any]:
        """Load ``config.json``; what `Config` names is of the types that it says.

        Raises:
            ArtifactError: it is missing or damaged, or is from a newer anaphora.
        """
        config: dict[str, Any] = read_json(self.config, within=self.path)
        format = config.get("format") if isinstance(config, dict) else None
        if format == FORMAT and not isinstance(format, bool):
            _checked(self.config, config, Config)
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
        with explained(self.checkpoint, "written"):
            self.make_folder(self.checkpoint.parent.name)
            with Folder.within(self.path, self.checkpoint.parent) as below:
                remove_temporaries(below)
        write_weights(self.checkpoint, arrays, metadata, within=self.path)

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
        return read_weights(self.checkpoint, within=self.path)

    # The metrics

    def append_metrics(self, record: Mapping[str, object]) -> None:
        """Append ``record`` as one line; NaN and infinities become "NaN", "Infinity", "-Infinity".

        Half a line that a kill left at the end is removed first.

        Raises:
            ArtifactError: the record is not JSON, or the file cannot be written.
        """
        values = plain({name: _spelled(value) for name, value in record.items()}, self.metrics)
        line = json.dumps(values) + "\n"
        opener = opener_within(self.path)
        with explained(self.metrics, "written"), open(self.metrics, "a+b", opener=opener) as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.truncate(self.metrics_size())
            file.write(line.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read the records, without a last line that is not finished; none if there is no file.

        Raises:
            ArtifactError: a line is not a JSON object, or has a field of another type than
                `Record` says; the message gives its number.
        """
        if not self.metrics.exists():
            return []
        records = []
        lines = read_bytes(self.metrics, self.path).split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                values = schema.convert(parse_json(line), dict[str, Any])
                record = {name: _number(value) for name, value in values.items()}
                schema.convert(record, Record)
                if record.get("kind") in ("train", "evaluation"):
                    schema.convert(record, LossRecord)
            except (ValueError, RecursionError) as error:
                raise ArtifactError(
                    f"{self.metrics}: line {number}: {error}; remove that line"
                ) from error
            records.append(record)
        return records

    def metrics_size(self) -> int:
        """Size in bytes of the finished lines, which a checkpoint keeps for `truncate_metrics`."""
        if not self.metrics.exists():
            return 0
        return read_bytes(self.metrics, self.path).rfind(b"\n") + 1

    def truncate_metrics(self, size: int) -> None:
        """Cut the lines after the first ``size`` bytes, which a resumed training writes again.

        Fewer than ``size`` bytes, after a power cut or an edit, stay as they are.

        Raises:
            ArtifactError: no line ends there, so that the size is not of this file; or it cannot be
                written.
        """
        if size >= self.metrics_size():
            return
        if size > 0 and read_bytes(self.metrics, self.path)[size - 1 : size] != b"\n":
            raise ArtifactError(
                f"{self.metrics}: no line ends after its first {size:,} bytes, where one does by "
                "the checkpoint; put back the two files that were saved together"
            )
        opener = opener_within(self.path)
        with explained(self.metrics, "written"), open(self.metrics, "r+b", opener=opener) as file:
            file.truncate(size)


def _checked(path: Path, data: Any, kind: Any) -> Any:
    try:
        return schema.convert(data, kind)
    except schema.SchemaError as error:
        raise ArtifactError(f"{path}: {error}; correct it there, or restore the file") from error


def _package_version() -> str:
    # By name, when it is needed: this module imports nothing of the package, which may import it.
    return str(importlib.import_module("anaphora").__version__)


def _spelled(value: object) -> object:
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return json.dumps(float(value))
    return value


def _number(value: object) -> object:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
