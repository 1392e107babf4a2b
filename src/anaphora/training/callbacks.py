"""Callbacks: what watches a training, and what it writes down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anaphora.artifact import ModelDirectory

if TYPE_CHECKING:
    from anaphora.training.trainer import Trainer


class Callback:
    """Empty hooks; a subclass fills those that it needs. None of them changes the training."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first update, also of a training that goes on."""

    def on_step(self, trainer: Trainer, loss: float) -> None:
        """After each update; the loss of its batch, in nats a token."""

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        """When there is something to write down: of kind "train" or "evaluation"."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        """After a checkpoint was written."""

    def on_stop(self, trainer: Trainer, reason: str) -> None:
        """After the last update."""


class MetricsFile(Callback):
    """Appends every record to ``metrics.jsonl`` of a model directory."""

    def __init__(self, directory: ModelDirectory) -> None:
        self.directory = directory

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:  # noqa: D102
        self.directory.append_metrics(record)


class TensorBoard(Callback):
    """Writes every number of every record for TensorBoard (extra ``tensorboard``).

    Args:
        folder: Where to write; show it with ``tensorboard --logdir FOLDER``.

    Raises:
        RuntimeError: the extra is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise RuntimeError(
                'TensorBoard needs an extra: pip install "anaphora[tensorboard]"'
            ) from error
        self._writer = SummaryWriter(os.fspath(folder))

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:  # noqa: D102
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def on_stop(self, trainer: Trainer, reason: str) -> None:  # noqa: D102
        self._writer.close()
