"""Callbacks: hooks into the training loop, and the loggers built on them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from anaphora.artifact import ModelDirectory
from anaphora.optim.freezing import divided, layer_groups
from anaphora.tensor import Parameter

if TYPE_CHECKING:
    from anaphora.training.trainer import Trainer


class Callback:
    """Base class of callbacks, whose hooks do nothing; a subclass overrides those that it needs.

    Attributes:
        only_main: Whether only rank 0 of several processes calls it, because it writes or prints.

    >>> class PrintLoss(Callback):
    ...     def on_step(self, trainer, loss):
    ...         print(f"loss {loss:.2f}")
    >>> PrintLoss().on_step(None, 0.6931)  # `Trainer(..., callbacks=[PrintLoss()])` calls it
    loss 0.69
    """

    only_main: ClassVar[bool] = False

    def on_start(self, trainer: Trainer) -> None:
        """Before the first update, also when training is resumed."""

    def on_epoch(self, trainer: Trainer) -> None:
        """Before the first update of each epoch."""

    def on_step(self, trainer: Trainer, loss: float) -> None:
        """After each update, with the mean loss of its batches."""

    def on_evaluation(self, trainer: Trainer) -> None:
        """Before an evaluation."""

    def on_evaluation_batch(self, trainer: Trainer, done: int, total: int) -> None:
        """After each batch of an evaluation, with the number of batches done and in total."""

    def on_notice(self, trainer: Trainer, sentence: str) -> None:
        """When the trainer has a message for the user."""

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        """When there is a record to log.

        Args:
            trainer: The trainer.
            record: ``kind``, "train" or "evaluation"; ``step``, the updates so far; ``epoch``, the
                passes so far, with a fraction; ``loss``, the mean over the targets since the last
                record, or over the validation data; ``tokens``, the number of these targets;
                ``seconds`` of training so far; and the figures derived from the loss, see
                `loss_figures`: for tokens ``perplexity`` and ``bits_per_token`` (at level "char",
                bits per character), for regressors ``mean_squared_error`` and
                ``root_mean_squared_error``. Records of kind "train" have ``learning_rate`` and
                ``gradient_norm`` (before clipping) of the last update; those of kind "evaluation"
                have ``best``, whether these weights are kept (see ``monitor`` of
                `TrainingOptions`), and for classifiers and taggers ``accuracy``, the fraction of
                correct predictions.
        """

    def on_checkpoint(self, trainer: Trainer) -> None:
        """After a checkpoint is written."""

    def on_stop(self, trainer: Trainer, reason: str) -> None:
        """After the last update."""


class GradualUnfreezing(Callback):
    """Trains the last layer first, and unfreezes one more layer each epoch (Howard & Ruder 2018).

    In fine-tuning, it prevents the errors of a new last layer from destroying what the pretrained
    layers have learned. In epoch k, counted from 0, the last k + 1 groups are trained; the others
    are frozen, and cost nothing. A resumed training continues at its epoch.

    Args:
        named_parameters: As from ``model.named_parameters()``; parameters that are frozen already
            stay frozen.
        groups: Names or patterns of the parameters of each layer, the one nearest the inputs first;
            parameters that match no pattern are in the last group. None for `optim.layer_groups`.

    Raises:
        ValueError: a pattern matches no parameter, or all are frozen.

    >>> from anaphora.models import LanguageModel
    >>> model = LanguageModel(vocabulary_size=5, hidden_size=3, num_layers=2)
    >>> callback = GradualUnfreezing(model.named_parameters())  # of `Trainer(..., callbacks=...)`
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['output.weight', 'output.bias']
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Parameter]],
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        parameters = dict(named_parameters)
        names = divided(parameters, layer_groups(parameters.items()) if groups is None else groups)
        trained = [[parameters[n] for n in group if parameters[n].requires_grad] for group in names]
        self._groups = [group for group in trained if group]
        if not self._groups:
            raise ValueError("GradualUnfreezing: all parameters are frozen; unfreeze some")
        self._unfreeze(1)

    def _unfreeze(self, count: int) -> None:
        for number, group in enumerate(reversed(self._groups)):
            for parameter in group:
                parameter.requires_grad = number < count

    def on_start(self, trainer: Trainer) -> None:  # noqa: D102
        self._unfreeze(trainer.progress.epoch + 1)

    def on_epoch(self, trainer: Trainer) -> None:  # noqa: D102
        self._unfreeze(trainer.progress.epoch + 1)


class MetricsFile(Callback):
    """Appends every record to ``metrics.jsonl`` of a model directory.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     directory = ModelDirectory.create(folder)
    ...     MetricsFile(directory).on_record(None, {"kind": "train", "step": 10, "loss": 0.5})
    ...     directory.read_metrics()
    [{'kind': 'train', 'step': 10, 'loss': 0.5}]
    """

    only_main = True

    def __init__(self, directory: ModelDirectory) -> None:
        self.directory = directory

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:  # noqa: D102
        self.directory.append_metrics(record)


class TensorBoard(Callback):
    """Logs every number of every record to TensorBoard (extra ``tensorboard``).

    A resumed training hides the events logged after its checkpoint.

    Args:
        folder: The log directory; show it with ``tensorboard --logdir FOLDER``.

    Raises:
        ImportError: the extra is not installed.

    >>> import tempfile
    >>> from anaphora import data, models, optim, training
    >>> ids = data.CharacterTokenizer.fit("ab").encode("abab")
    >>> model = models.LanguageModel(vocabulary_size=2, hidden_size=3)
    >>> optimizer = optim.SGD(model.parameters(), learning_rate=0.1)
    >>> options = training.TrainingOptions(max_steps=1)
    >>> trainer = training.Trainer(model, optimizer, data.batchify(ids, 1, 2), options)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer.callbacks.append(TensorBoard(folder))
    ...     trainer.run(), os.listdir(folder)
    ('1 step done', ['events.out.tfevents...'])
    """

    only_main = True

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                'TensorBoard needs an extra: pip install "anaphora[tensorboard]"'
            ) from error
        self._folder = os.fspath(folder)
        self._make_writer = SummaryWriter
        self._writer: Any = None

    def on_start(self, trainer: Trainer) -> None:  # noqa: D102
        self._writer = self._make_writer(self._folder, purge_step=trainer.progress.step + 1)

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:  # noqa: D102
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        self._writer.flush()

    def on_stop(self, trainer: Trainer, reason: str) -> None:  # noqa: D102
        self._writer.close()
