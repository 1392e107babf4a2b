"""A trained model on disk: a directory of JSON and safetensors files, each replaced atomically.

    config.json                    architecture, preprocessing, how it was trained, package version
    tokenizer.json                 how text becomes token ids
    model.safetensors              the weights, under PyTorch's parameter names; in 8 bits see below
    metrics.jsonl                  one JSON object per line, written during training
    checkpoint/state.safetensors   all that is needed to resume training, in one file

The ``"format"`` of ``config.json`` is 2; or 3 if its ``"weights"`` is ``"int8"``, as `anaphora
quantize` writes it. A weight NAME [N, K] is then stored as two arrays: NAME, the integers q
(I8 [N, K], within +-127), and NAME.scales, one scale s for each of its rows (F32 [N], with at most
16 significant bits). It stands for the float32 weight q s, an exact product. The weights of
recurrent layers, of linear layers and of embeddings are stored so. All other parameters (biases,
norms, a cell's own, attention's score vector, transitions of tags) are float32, as in format 2.

Nothing is pickled. A file is written to a temporary file in the same folder, flushed to disk and
renamed, so a kill at any moment leaves the old or the new file, never a partial one.

A directory may come from an untrusted source, so symbolic links in it are not followed, neither to
read nor to write; the directory itself may be reached through one. The lock ``.lock`` prevents two
training runs in one directory.
"""

import contextlib
import importlib
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from anaphora import schema
from anaphora.artifact import foreign
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

FORMAT = 2
"""Version of the directory layout, increased when older versions of anaphora cannot read it."""

INT8_FORMAT = 3
"""Version of a directory with weights in 8 bits; others have stayed as they were."""

_EXPECTED = "expected the folder that anaphora train wrote"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Results(TypedDict, total=False):
    """The last evaluation in ``config.json``; null where a number was not finite."""

    step: schema.Count
    epoch: schema.NotNegative | None
    loss: float | None
    perplexity: schema.NotNegative | None
    bits_per_token: float | None
    accuracy: schema.NotNegative | None
    tokens: schema.Count | None
    seconds: schema.NotNegative | None


SWEEP_PICTURE = "learning-rate.png"
"""The plot of ``anaphora train --find-learning-rate``."""


class Change(TypedDict):
    """Where a resumed training run restarted its schedule, and the options that changed."""

    step: schema.Count
    epoch: schema.Count
    learning_rate: schema.NotNegative
    warm_up_step: schema.Count
    options: dict[str, Any]


class Origin(TypedDict):
    """The model that training started from."""

    path: str
    task: str
    weights: str
    vocabulary: str


# The name is a keyword, which a class cannot have as a field.
_From = TypedDict("_From", {"from": NotRequired[Origin]})


class Config(_From):
    """``config.json``; the task checks the contents of the sections."""

    format: int
    anaphora: str
    weights: NotRequired[str]
    task: NotRequired[str]
    model: NotRequired[dict[str, Any]]
    text: NotRequired[dict[str, Any]]
    training: NotRequired[dict[str, Any]]
    sources: NotRequired[dict[str, str | None]]
    results: NotRequired[Results]
    changes: NotRequired[list[Change]]


class Record(TypedDict, total=False):
    """A line of ``metrics.jsonl``, which may have more fields."""

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
    """The required fields of a record of kind "train" or "evaluation"."""

    step: schema.Count
    loss: float


class ModelDirectory:
    """The directory of a trained model: paths of its files, and safe reading and writing.

    Use `create` (to train) or `open` (to use or resume); the constructor only stores the path. One
    process writes to a directory at a time, as ensured by `lock`, which a `Trainer` calls; any
    number may read concurrently.

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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)  # a copy holds no lock

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
        """Path of ``model.safetensors``; it exists once a model was saved."""
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """Path of ``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Path of ``checkpoint/state.safetensors``; it exists if training can be resumed."""
        return self.path / "checkpoint" / "state.safetensors"

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, overwrite: bool = False) -> "ModelDirectory":
        """Create the directory for a new training run, including parents.

        A run that was stopped before it saved anything is replaced. With ``overwrite`` a model is
        removed too: its own files, and no others in the folder.

        Raises:
            ArtifactError: ``path`` is a file, a folder with other contents, or (without
                ``overwrite``) holds a model or a checkpoint; it is being trained; or it cannot be
                written.
        """
        self = cls(path)
        self.lock()
        try:
            self.clear(overwrite=overwrite)
        finally:
            self.unlock()
        return self

    def clear(self, *, overwrite: bool = False) -> None:
        """Remove the files of an earlier training run; `create` does so within the lock.

        A link is removed, not its target.

        Raises:
            ArtifactError: as for `create`.
        """
        self._refuse_others()
        if not overwrite and (os.path.lexists(self.weights) or os.path.lexists(self.checkpoint)):
            raise ArtifactError(
                f"{self.path}: already holds a model; continue its training with --resume, "
                "choose another --out, or replace it with --overwrite"
            )
        with explained(self.path, "written"), Folder(self.path) as folder:
            for link in (self.metrics.name, self.checkpoint.parent.name):
                folder.remove_link(link)
            os.close(folder.open(self.metrics.name, os.O_WRONLY | os.O_CREAT))
            folder.make_folder(self.checkpoint.parent.name)
            with Folder.within(self.path, self.checkpoint.parent) as checkpoint:
                # From here on it is recognized as ours, even if the removal is interrupted.
                checkpoint.remove(self.checkpoint.name)
                for file in (self.weights, self.tokenizer, self.config):
                    folder.remove(file.name)
                os.close(folder.open(self.metrics.name, os.O_WRONLY | os.O_TRUNC))
                for part in (checkpoint, folder):
                    remove_temporaries(part)
                    part.flush()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "ModelDirectory":
        """Open a directory that holds a model, or at least a checkpoint to resume from.

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
                held = foreign.described(self.path)
                raise ArtifactError(
                    f"{self.path}: is not a model directory, as it has no config.json with a "
                    f'"format"; {held or _EXPECTED}'
                )
            if os.path.lexists(self.config):
                self.load_config()
            if not os.path.lexists(self.weights) and not os.path.lexists(self.checkpoint):
                raise ArtifactError(
                    f"{self.path}: its training stopped before a model was saved; "
                    "train again with the same --out"
                )
        return self

    def is_empty(self) -> bool:
        """Whether the folder has nothing but a lock, metrics without records, and the plot of a
        learning rate sweep, all of which may precede training.
        """
        with explained(self.path, "read"):
            names = set(os.listdir(self.path)) - {LOCK_FILE, SWEEP_PICTURE}
            with contextlib.suppress(FileNotFoundError):
                if self.metrics.lstat().st_size == 0:
                    names.discard(self.metrics.name)
            return not names

    def _refuse_others(self) -> None:
        """Raise if the path is a file or an unrelated folder."""
        with explained(self.path, "read"):
            if not self.path.exists():
                return
            if not self.path.is_dir():
                raise ArtifactError(f"{self.path}: is a file; choose another --out")
            if not self.is_empty() and not self._is_ours():
                raise ArtifactError(
                    f"{self.path}: is not empty and is not a model directory; choose another --out"
                )

    def _is_ours(self) -> bool:
        if os.path.lexists(self.config):  # a common name, so look for "format"
            config = read_json(self.config, within=self.path)
            return isinstance(config, dict) and "format" in config
        return self.metrics.is_file() and self.checkpoint.parent.is_dir()

    def make_folder(self, name: str) -> Path:
        """Create a folder in the directory, unless it exists; return its path.

        Raises:
            ArtifactError: a link or a file has that name.
        """
        with explained(self.path / name, "written"), Folder(self.path) as folder:
            folder.make_folder(name)
        return self.path / name

    def size(self) -> int:
        """Size in bytes of all files in the directory, also while some are being replaced."""
        sizes = []
        for folder, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(os.path.join(folder, name))
                    if stat.S_ISREG(status.st_mode) and name != LOCK_FILE:
                        sizes.append(status.st_size)
        return sum(sizes)

    # The lock

    def lock(self) -> None:
        """Lock the directory against other runs, also of this process; create it if missing.

        The lock is released by `unlock`, with this object, or when the process ends in any way; a
        forked child does not inherit it. If this object already holds it, nothing happens. Reading
        needs no lock.

        Raises:
            ArtifactError: another run holds it (the message says which); ``path`` is a file or an
                unrelated folder; or it cannot be written.
        """
        if self._lock.held:
            return
        self._refuse_others()  # before writing anything
        with explained(self.path, "written"):
            while not self._lock.held:
                self.path.mkdir(parents=True, exist_ok=True)
                try:
                    self._lock.acquire()
                except FileNotFoundError:  # another run, which failed, has just removed it
                    continue
                except Held as holder:
                    raise ArtifactError(
                        f"{self.path}: is being trained by {holder}; wait until that training "
                        "finishes, stop it (in Python: delete its trainer), or choose another --out"
                    ) from None

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.held

    def unlock(self) -> None:
        """Release the lock, if this object holds it."""
        self._lock.release()

    # The model

    def save(
        self,
        config: Mapping[str, object],
        tokenizer: Mapping[str, object],
        arrays: Mapping[str, Array],
    ) -> None:
        """Save a model: its configuration and tokenizer, if changed, then its weights.

        The rename of the weights completes the save. Within one directory the architecture and the
        tokenizer must therefore not change; the rest of ``config`` may, and a kill between two
        renames leaves a new ``config.json`` with the old weights. ``config.json`` also gets
        ``"format"`` and ``"anaphora"``, the package version.

        Raises:
            ArtifactError: the tokenizer is not the one that the saved weights were trained with; or
                a file cannot be written.
        """
        format = INT8_FORMAT if config.get("weights") == "int8" else FORMAT
        header = {"format": format, "anaphora": _package_version()}
        new_config = json_bytes(self.config, {**header, **config, **header})
        new_tokenizer = json_bytes(self.tokenizer, tokenizer)
        with explained(self.path, "written"), Folder(self.path) as folder:
            remove_temporaries(folder)
        if not self._holds(self.tokenizer, new_tokenizer):
            if self.weights.exists() and self.tokenizer.exists():
                raise ArtifactError(
                    f"{self.tokenizer}: differs from the tokenizer to save, so the weights next to "
                    "it have other token ids; save to another folder"
                )
            atomic_write(self.tokenizer, new_tokenizer, within=self.path)
        if not self._holds(self.config, new_config):
            atomic_write(self.config, new_config, within=self.path)
        write_weights(self.weights, arrays, within=self.path)

    def _holds(self, path: Path, data: bytes) -> bool:
        return os.path.lexists(path) and read_bytes(path, self.path) == data

    def load(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Array]]:
        """Load the model: configuration (with ``"format"`` and ``"anaphora"``), tokenizer, weights.

        Weights in 8 bits are returned as they are stored; `models.load` makes float32 of them.

        Raises:
            ArtifactError: no model was saved yet, it is from a newer anaphora, or a file is missing
                or damaged.
        """
        if not os.path.lexists(self.weights) and os.path.lexists(self.checkpoint):
            raise ArtifactError(
                f"{self.path}: its training stopped before a model was saved; "
                "continue it with --resume"
            )
        weights, _ = read_weights(self.weights, within=self.path)
        return self.load_config(), self.load_tokenizer(), weights

    def load_tokenizer(self) -> dict[str, Any]:
        """Load ``tokenizer.json``, whose fields its writer must check.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        found = read_json(self.tokenizer, within=self.path)
        data: dict[str, Any] = _checked(self.tokenizer, found, dict[str, Any])
        return data

    def load_config(self) -> dict[str, Any]:
        """Load ``config.json``; the fields of `Config` are checked.

        Raises:
            ArtifactError: it is missing or damaged, or is from a newer anaphora.
        """
        config: dict[str, Any] = read_json(self.config, within=self.path)
        format = config.get("format") if isinstance(config, dict) else None
        if format in (FORMAT, INT8_FORMAT) and not isinstance(format, bool):
            _checked(self.config, config, Config)
            if config.get("weights") != ("int8" if format == INT8_FORMAT else None):
                raise ArtifactError(
                    f'{self.config}: has "format" {format} and "weights" '
                    f"{config.get('weights')!r:.80}; expected {INT8_FORMAT} and 'int8', or "
                    f"{FORMAT} and no weights: restore the file"
                )
            return config
        if isinstance(format, int) and format > INT8_FORMAT:
            raise ArtifactError(
                f"{self.config}: was written by a newer anaphora ({config.get('anaphora')}); "
                "upgrade: pip install --upgrade anaphora"
            )
        raise ArtifactError(
            f'{self.config}: has "format" {format!r}; expected {FORMAT} or {INT8_FORMAT}'
        )

    # The checkpoint

    def save_checkpoint(self, arrays: Mapping[str, Array], metadata: Mapping[str, object]) -> None:
        """Save all that is needed to resume training, in one file and thus atomically.

        Raises:
            ArtifactError: as for `write_weights`.
        """
        folder = self.make_folder(self.checkpoint.parent.name)
        with explained(self.checkpoint, "written"), Folder.within(self.path, folder) as checkpoint:
            remove_temporaries(checkpoint)
        write_weights(self.checkpoint, arrays, metadata, within=self.path)

    def load_checkpoint(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Load the arrays and metadata of the last `save_checkpoint`.

        Raises:
            ArtifactError: there is no checkpoint, or it is damaged.
        """
        if not os.path.lexists(self.checkpoint):
            raise ArtifactError(
                f"{self.checkpoint}: no such file, so there is no training to continue; "
                "train without --resume"
            )
        return read_weights(self.checkpoint, within=self.path)

    # The metrics

    def append_metrics(self, record: Mapping[str, object]) -> None:
        """Append ``record`` as one line; NaN and infinities become "NaN", "Infinity", "-Infinity".

        An unfinished last line, left by a kill, is removed first.

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
        """Read the records, without an unfinished last line; none if there is no file.

        Raises:
            ArtifactError: a line is not a JSON object, or has a field of the wrong type
                for `Record`; the message gives its number.
        """
        if not os.path.lexists(self.metrics):
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
        """Size in bytes of the complete lines, stored in checkpoints for `truncate_metrics`."""
        if not os.path.lexists(self.metrics):
            return 0
        return read_bytes(self.metrics, self.path).rfind(b"\n") + 1

    def truncate_metrics(self, size: int) -> None:
        """Remove the lines after the first ``size`` bytes, which a resumed run writes again.

        A file of fewer bytes, after a power failure or an edit, is not changed.

        Raises:
            ArtifactError: ``size`` is not a size, or not the end of a line; or the file cannot be
                written.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ArtifactError(
                f"{self.checkpoint}: metrics_size is {size!r}; expected the number of bytes of "
                f"{self.metrics.name} that it continues from; train again"
            )
        if size >= self.metrics_size():
            return
        opener = opener_within(self.path)
        with explained(self.metrics, "written"), open(self.metrics, "r+b", opener=opener) as file:
            file.seek(max(size - 1, 0))
            if size > 0 and file.read(1) != b"\n":
                raise ArtifactError(
                    f"{self.metrics}: the checkpoint continues after {size} bytes, but no line "
                    "ends there; restore the file of the checkpoint, or remove it to continue "
                    "without the records so far"
                )
            file.truncate(size)


def _checked(path: Path, data: Any, kind: Any) -> Any:
    try:
        return schema.convert(data, kind)
    except schema.SchemaError as error:
        raise ArtifactError(f"{path}: {error}; correct it there, or restore the file") from error


def _package_version() -> str:
    # Imported lazily by name, since the package may import this module.
    return str(importlib.import_module("anaphora").__version__)


def _spelled(value: object) -> object:
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return json.dumps(float(value))
    return value


def _number(value: object) -> object:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
