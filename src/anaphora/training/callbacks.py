"""Callbacks: what watches a training, and what it writes down."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anaphora.artifact import ModelDirectory
from anaphora.optim.freezing import divided, layer_groups
from anaphora.tensor import Parameter

if TYPE_CHECKING:
    from anaphora.training.trainer import Trainer


class Callback:
    """Empty hooks; a subclass fills those that it needs. Most only watch a training.

    >>> class PrintLoss(Callback):
    ...     def on_step(self, trainer, loss):
    ...         print(f"loss {loss:.2f}")
    >>> PrintLoss().on_step(None, 0.6931)  # `Trainer(..., callbacks=[PrintLoss()])` calls it
    loss 0.69
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first update, also of a training that continues."""

    def on_epoch(self, trainer: Trainer) -> None:
        """Before the first update of each epoch."""

    def on_step(self, trainer: Trainer, loss: float) -> None:
        """After each update; the loss of its batches."""

    def on_evaluation(self, trainer: Trainer) -> None:
        """Before an evaluation."""

    def on_evaluation_batch(self, trainer: Trainer, done: int, total: int) -> None:
        """After each batch of an evaluation: how many are done, of how many."""

    def on_notice(self, trainer: Trainer, sentence: str) -> None:
        """When there is something that the user should know of."""

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        """When there is something to write down.

        Args:
            trainer: The training.
            record: ``kind``, "train" or "evaluation"; ``step``, the updates so far; ``epoch``, the
                passes so far, with a fraction; ``loss``, the mean of the targets since the last
                record or of those to validate on; ``tokens``, how many these are; ``seconds`` of
                training so far. Besides the loss it has what follows from it, see `loss_figures`:
                of tokens ``perplexity`` and ``bits_per_token``, which at level "char" is bits per
                character; of regressors ``mean_squared_error`` and ``root_mean_squared_error``. Of
                kind "train" also ``learning_rate`` and ``gradient_norm`` of the last update, the
                latter before clipping; of kind "evaluation" also ``best``, whether these weights
                are kept (see ``monitor`` of `TrainingOptions`), and of a classifier or a tagger
                ``accuracy``, the share of right answers.
        """

    def on_checkpoint(self, trainer: Trainer) -> None:
        """After a checkpoint was written."""

    def on_stop(self, trainer: Trainer, reason: str) -> None:
        """After the last update."""


class GradualUnfreezing(Callback):
    """Trains the last layer first, and one layer more from epoch to epoch (Howard & Ruder 2018).

    In fine-tuning, it keeps what the early layers know of another task from being lost to the
    errors of a last layer that is new. In epoch k, counted from 0, the last k + 1 groups are
    trained; the others are frozen, and cost nothing. A training that is resumed continues so.

    Args:
        named_parameters: What ``model.named_parameters()`` gives; those that are frozen already
            stay so.
        groups: Names or patterns of the parameters of each layer, the one nearest the inputs first;
            those that match none are in the last group. None takes `optim.layer_groups`.

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
            raise ValueError("GradualUnfreezing: all parameters are frozen; leave some to train")
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

    def __init__(self, directory: ModelDirectory) -> None:
        self.directory = directory

    def on_record(self, trainer: Trainer, record: Mapping[str, Any]) -> None:  # noqa: D102
        self.directory.append_metrics(record)


class TensorBoard(Callback):
    """Writes every number of every record for TensorBoard (extra ``tensorboard``).

    A training that continues hides what was written after its checkpoint.

    Args:
        folder: Where to write; show it with ``tensorboard --logdir FOLDER``.

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
