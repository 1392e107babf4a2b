"""From a sequence to one answer: a class, or numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anaphora import nn, ops
from anaphora.cells import Cell
from anaphora.data import IGNORE_INDEX, Batch
from anaphora.models.saved import SavedModel
from anaphora.nn.initialization import Initialization
from anaphora.tensor import Tensor

POOLINGS = ("last", "mean", "max")


class SequenceModel(SavedModel):
    """What models of sequences share: features or embedded ids, recurrent layers, a linear layer.

    A subclass says what becomes of the recurrent layers' output.

    Args:
        output_size: O, the size of the linear layer's output.
        hidden_size: H of every layer.
        input_size: I, for sequences of features [T, B, I].
        vocabulary_size: V, for sequences of ids [T, B]; this or ``input_size`` is given.
        embedding_size: E of the ids; H if None.
        num_layers: L.
        cell: The name of a cell, or a `Cell`.
        bidirectional: Read in both directions, D = 2.
        dropout: The share that is dropped on embeddings, between the layers, and before the linear
            layer; features are left as they are.
        initialization: Of all layers; see `nn.Recurrent`.
        forget_bias: The bias with which forget gates start; None leaves it to the initialisation.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option is out of range, or not just one of ``input_size`` and
            ``vocabulary_size`` was given.
    """

    def __init__(
        self,
        output_size: int,
        hidden_size: int,
        *,
        input_size: int | None = None,
        vocabulary_size: int | None = None,
        embedding_size: int | None = None,
        num_layers: int = 1,
        cell: str | Cell = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
        initialization: Initialization = "pytorch",
        forget_bias: float | None = None,
        dtype: str = "float32",
    ) -> None:
        name = type(self).__name__
        if (input_size is None) == (vocabulary_size is None):
            raise ValueError(
                f"{name}: give input_size, for features [T, B, I], or vocabulary_size, for ids "
                f"[T, B]; not {'both' if input_size is not None else 'neither'}"
            )
        if embedding_size is not None and vocabulary_size is None:
            raise ValueError(f"{name}: embedding_size is for ids, so give vocabulary_size too")
        self.options = {
            "hidden_size": hidden_size,
            "input_size": input_size,
            "vocabulary_size": vocabulary_size,
            "embedding_size": embedding_size,
            "num_layers": num_layers,
            "cell": cell,
            "bidirectional": bidirectional,
            "dropout": dropout,
            "initialization": initialization,
            "forget_bias": forget_bias,
            "dtype": dtype,
        }
        shared: dict[str, Any] = {"initialization": initialization, "dtype": dtype}
        self.embedding: nn.Embedding | None = None
        if vocabulary_size is not None:
            embedding_size = hidden_size if embedding_size is None else embedding_size
            self.embedding = nn.Embedding(vocabulary_size, embedding_size, **shared)
        self.recurrent = nn.Recurrent(
            cell,
            self._recurrent_input_size(),
            hidden_size,
            num_layers,
            dropout=dropout,
            bidirectional=bidirectional,
            forget_bias=forget_bias,
            **shared,
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.recurrent.output_size, output_size, **shared)

    def _recurrent_input_size(self) -> int:
        if self.embedding is not None:
            return self.embedding.embedding_dim
        size: int = self.options["input_size"]
        return size

    def _embed(self, inputs: Any) -> Any:
        """What the recurrent layers read of features or ids: [T, B, ...]."""
        return inputs if self.embedding is None else self.dropout(self.embedding(inputs))


class SequenceToVector(SequenceModel):
    """One vector for each sequence: its recurrent outputs, pooled, through a linear layer.

    Args:
        output_size: O.
        hidden_size: H of every layer.
        pooling: "last" is the state after the last real step (in the reversed direction: after the
            first), "mean" and "max" are over the outputs of the real steps. A sequence without
            steps has zeros there.
        **options: As of `SequenceModel`.

    Raises:
        ValueError: the pooling is none of these; or as `SequenceModel`.
    """

    def __init__(
        self, output_size: int, hidden_size: int, *, pooling: str = "last", **options: Any
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(
                f"{type(self).__name__}: pooling {pooling!r} is none of {', '.join(POOLINGS)}"
            )
        super().__init__(output_size, hidden_size, **options)
        self.pooling = pooling
        self.options["pooling"] = pooling

    def forward(self, inputs: Any, lengths: ArrayLike | None = None) -> Tensor:
        """Answer for each sequence.

        Args:
            inputs: Features [T, B, I], or ids [T, B].
            lengths: [B] the number of steps of each sequence, or None for all T.

        Returns:
            [B, O].
        """
        y, state = self.recurrent(self._embed(inputs), lengths=lengths)
        pooled = self._last(state) if self.pooling == "last" else self._pool(y, lengths)
        answer: Tensor = self.output(self.dropout(pooled))
        return answer

    def _last(self, state: Any) -> Tensor:
        """The output state of the top layer, its directions side by side: [B, D*H]."""
        h: Tensor = state[0] if isinstance(state, tuple) else state
        D, B = self.recurrent.num_directions, h.shape[1]
        return h[len(h) - D :].transpose(1, 0, 2).reshape(B, self.recurrent.output_size)

    def _pool(self, y: Tensor, lengths: ArrayLike | None) -> Tensor:
        """The mean or the maximum of the outputs [T, B, D*H] over the real steps."""
        T, B = y.shape[:2]
        steps = np.full(B, T) if lengths is None else np.asarray(lengths)
        if self.pooling == "mean":
            mean: Tensor = y.sum(axis=0) / np.maximum(steps, 1)[:, None].astype(y.dtype)
            return mean
        if T == 0:
            return y.sum(axis=0)
        real = (np.arange(T)[:, None] < steps)[:, :, None]  # [T, B, 1]
        padding = np.where(steps > 0, -np.inf, 0).astype(y.dtype)[:, None]
        masked: Tensor = ops.where(real, y, padding)
        return masked.max(axis=0)


class SequenceClassifier(SequenceToVector):
    """A class for each sequence of features or ids.

    Shapes: inputs [T, B, I] or ids [T, B]; lengths [B]; returns logits [B, C].

    Args:
        num_classes: C.
        hidden_size: H of every layer.
        **options: As of `SequenceToVector` (``pooling``) and `SequenceModel` (``input_size`` or
            ``vocabulary_size``, and the others).

    Raises:
        ValueError: as `SequenceToVector`.

    >>> model = SequenceClassifier(num_classes=3, hidden_size=4, input_size=2, pooling="mean")
    >>> model(np.ones((5, 2, 2), np.float32), lengths=[5, 3]).shape
    (2, 3)
    """

    task = "sequence_classifier"
    loss_kind = "classes"

    def __init__(self, num_classes: int, hidden_size: int, **options: Any) -> None:
        super().__init__(num_classes, hidden_size, **options)
        self.num_classes = num_classes
        self.options["num_classes"] = num_classes

    def scores(self, batch: Batch) -> Tensor:
        """The logits [B, C] of a batch."""
        logits: Tensor = self(batch.inputs, batch.lengths)
        return logits

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, None]:
        """The mean negative log-probability of the classes ``batch.targets`` [B], in nats.

        Every sequence begins anew, so the state, which the training loop hands on, is None.
        """
        logits = self.scores(batch)
        loss: Tensor = ops.cross_entropy(logits, batch.targets, ignore_index=IGNORE_INDEX)
        return loss, None


class SequenceRegressor(SequenceToVector):
    """Numbers for each sequence of features or ids.

    Shapes: inputs [T, B, I] or ids [T, B]; lengths [B]; returns [B, O].

    Args:
        num_outputs: O.
        hidden_size: H of every layer.
        **options: As of `SequenceToVector` (``pooling``) and `SequenceModel` (``input_size`` or
            ``vocabulary_size``, and the others).

    Raises:
        ValueError: as `SequenceToVector`.

    >>> model = SequenceRegressor(num_outputs=1, hidden_size=4, vocabulary_size=9, cell="gru")
    >>> model([[1, 2], [3, 4], [5, 0]], lengths=[3, 2]).shape
    (2, 1)
    """

    task = "sequence_regressor"
    loss_kind = "squared error"

    def __init__(self, num_outputs: int, hidden_size: int, **options: Any) -> None:
        super().__init__(num_outputs, hidden_size, **options)
        self.num_outputs = num_outputs
        self.options["num_outputs"] = num_outputs

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, None]:
        """The mean of the squared differences to ``batch.targets`` [B, O], and no state."""
        return ops.mean_squared_error(self(batch.inputs, batch.lengths), batch.targets), None
