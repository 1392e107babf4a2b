"""The models that are served: loaded once, and watched for changes on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.data.codecs.sequences import SequenceCodec
from anaphora.training import FORECAST, Task, task_of

_TRIES = 3  # to load a model that is being replaced

Signature = tuple[tuple[int, int, int], ...]


@dataclass(eq=False)
class ServedModel:
    """A model with its name; `load` makes one.

    Attributes:
        name: The name by which clients ask for it.
        directory: Its directory.
        task: Its task.
        options: The options with which it was trained.
        model: The model, in evaluation mode, without gradients of its parameters.
        created: When its weights were written, in seconds since 1970.
        fingerprint: A digest of its files.

    >>> import tempfile
    >>> import numpy as np
    >>> from anaphora.data import ClassifierCodec
    >>> from anaphora.models import SequenceClassifier
    >>> model = SequenceClassifier(num_classes=2, hidden_size=4, input_size=3)
    >>> model.codec = ClassifierCodec(("no", "yes"), mean=np.zeros(3), scale=np.ones(3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     served = ServedModel.load(folder, "mine")
    ...     before = served.changed()
    ...     model.save(folder)
    ...     served.name, served.task.name, before, served.changed()
    ('mine', 'classify', False, True)
    """

    name: str
    directory: Path
    task: Task
    options: Any
    model: Any
    created: int
    fingerprint: str
    _signature: Signature = field(repr=False)

    @classmethod
    def load(
        cls, directory: str | Path, name: str | None = None, weights: str | None = None
    ) -> ServedModel:
        """Load a model.

        Args:
            directory: Its directory.
            name: Its name; None for that of the directory.
            weights: "float32", or "int8" for weights in 8 bits; None for what the directory holds.

        Raises:
            ArtifactError: the directory is missing, damaged, or has a forecaster; or its files
                change all the time.
            ValueError: the weights are not of these two, or int8 with float64.
        """
        directory = Path(directory)
        for _ in range(_TRIES):
            task = task_of(directory)
            if task is FORECAST:
                raise ArtifactError(
                    f"{directory}: is a forecaster, which is not served; use it with: anaphora "
                    "predict"
                )
            files = _files(directory)
            before = _signature(files)
            options, model = task.load_options(directory), task.load(directory, weights)
            digest = hashlib.sha256()
            for file in files:
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
            if _signature(files) == before:
                return cls(
                    name=directory.resolve().name if name is None else name,
                    directory=directory,
                    task=task,
                    options=options,
                    model=model.requires_grad_(False),
                    created=int(files[-1].stat().st_mtime),
                    fingerprint=digest.hexdigest()[:16],
                    _signature=before,
                )
        raise ArtifactError(f"{directory}: its files change while they are read; try again")

    @property
    def reads(self) -> Literal["text", "words", "series"]:
        """What it reads."""
        codec = self.model.codec
        if isinstance(codec, SequenceCodec) and codec.tokenizer is None:
            return "series"
        return "words" if self.task.name == "tag" else "text"

    def changed(self) -> bool:
        """Whether the files of the directory are others than those that were loaded."""
        return _signature(_files(self.directory)) != self._signature


def _files(directory: Path) -> list[Path]:
    home = ModelDirectory(directory)
    return [home.config, home.tokenizer, home.weights]


def _signature(files: list[Path]) -> Signature:
    """What tells whether files were replaced or written; empty if one is missing."""
    try:
        stats = [file.stat() for file in files]
    except OSError:
        return ()
    return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in stats)
