"""Models that predict a class or numbers for a sequence, or a tag for each of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora import nn, ops
from anaphora.data import (
    IGNORE_INDEX,
    Batch,
    ClassifierCodec,
    RegressorCodec,
    SpelledBatch,
    TaggerCodec,
)
from anaphora.models.body import ClassifierBody, PooledBody, TaggerBody
from anaphora.models.reader import CharacterLayer, SequenceModel, last_outputs, make_linear
from anaphora.models.sequence_session import TaggerSession
from anaphora.nn.states import State
from anaphora.tensor import Array, Tensor


@dataclass(eq=False, repr=False)
class SequenceTagger(SequenceModel, TaggerBody):
    """A tag for each step of a sequence of ids or features.

    With characters, a `CharacterLayer` reads the spelling of each word, and its output is
    concatenated to the word's embedding, which helps with unknown words.

    Shapes: ids [T, B] or inputs [T, B, I]; characters [W, T, B]; lengths [B]; state as for
    `nn.Recurrent`; returns logits [T, B, C], state.

    Attributes:
        num_tags: C.
        num_characters: The size of the character vocabulary; None for no character layer.

    The other arguments are those of `TaggerBody`.

    Raises:
        ValueError: an option is out of range, or both or neither of ``input_size`` and
            ``vocabulary_size`` are given.

    >>> model = SequenceTagger(
    ...     num_tags=3, hidden_size=4, vocabulary_size=9, num_characters=26, bidirectional=True
    ... )
    >>> spelling = {"characters": np.ones((6, 5, 2), int), "character_lengths": np.full((5, 2), 6)}
    >>> model(np.ones((5, 2), int), lengths=[5, 3], **spelling)[0].shape
    (5, 2, 3)
    """

    num_tags: int
    num_characters: int | None = field(default=None, kw_only=True)

    kind = "sequence_tagger"
    loss_kind = "classes"
    codec_type = TaggerCodec

    def __post_init__(self) -> None:
        if self.num_characters is not None:
            self.characters = CharacterLayer(
                self.num_characters,
                self.character_embedding_size,
                self.character_hidden_size,
                cell=self.cell,
                dtype=self.dtype,
            )
        super().__post_init__()
        self.output = make_linear(self, self.recurrent.output_size, self.num_tags)
        if self.crf:
            self.crf_layer = nn.CRF(
                self.num_tags, initialization=self.initialization, dtype=self.dtype
            )

    @property
    def codec(self) -> Any:
        """Converts words and tags to ids; for a CRF, its scheme constrains the tag sequences."""
        return vars(self).get("_codec")

    @codec.setter
    def codec(self, codec: Any) -> None:
        self._codec = codec
        if self.crf:
            scheme = None if codec is None else codec.scheme
            self.crf_layer.constraints = (
                None if scheme is None else nn.tag_constraints(codec.tags, scheme)
            )

    def forward(
        self,
        inputs: Any,
        state: Any = None,
        lengths: ArrayLike | None = None,
        characters: Any = None,
        character_lengths: Any = None,
    ) -> tuple[Tensor, State]:
        """Score the tags of each step; the arguments are those of `read`.

        Returns:
            The logits [T, B, C] and the state.

        Raises:
            ValueError: characters are missing, or the model has no character layer.
        """
        y, state = self.read(inputs, state, lengths, characters, character_lengths)
        return self.output(self.drop(y)), state

    def session(
        self,
        batch_size: int | None = None,
        *,
        keep_scores: bool = False,
        weights: str | None = None,
    ) -> TaggerSession:
        """A session, which reads step by step and returns the scores of the tags after each.

        Args:
            batch_size: B; None for one sequence, whose arrays have no batch axis.
            keep_scores: Whether to keep the scores of all steps, so that `TaggerSession.tags`
                returns the tags so far (with a CRF, the most likely path).
            weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

        Raises:
            ValueError: as for `SequenceModel.session`.

        >>> model = SequenceTagger(num_tags=3, hidden_size=4, vocabulary_size=9)
        >>> session = model.session(keep_scores=True)
        >>> session.feed([7, 2]).shape, session.tags().shape
        ((2, 3), (2,))
        """
        return TaggerSession(self, batch_size, keep_scores=keep_scores, weights=weights)

    def scores(self, batch: Batch) -> Tensor:
        """The logits [T, B, C] of a batch, with the initial state zero."""
        logits: Tensor = self(batch.inputs, None, batch.lengths, *_spelling(batch))[0]
        return logits

    def answers(self, scores: Tensor, lengths: ArrayLike | None) -> NDArray[np.int64]:
        """The most likely tags [T, B], given the result of `scores`: with a CRF the most likely
        path, else the most likely tag of each step.
        """
        if self.crf:
            return self.crf_layer.decode(scores, lengths)
        best: NDArray[np.int64] = scores.data.argmax(axis=-1)
        return best

    def probabilities(self, scores: Tensor, lengths: ArrayLike | None) -> Array:
        """The probability of each tag [T, B, C], given the result of `scores`; with a CRF the
        marginal over all paths.
        """
        if self.crf:
            return self.crf_layer.marginals(scores, lengths)
        shares: Array = ops.softmax(scores).data
        return shares

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, State]:
        """The mean negative log-probability of the tags ``batch.targets`` [T, B], and the state.

        Steps with the tag -100 do not count. With a CRF it is that of the path, divided by its
        number of tags. With a character layer the batch is a `SpelledBatch`.
        """
        y, state = self.read(batch.inputs, state, batch.lengths, *_spelling(batch))
        if self.crf:
            return self.crf_layer.loss(
                self.output(self.drop(y)), batch.targets, batch.lengths
            ), state
        return token_loss(self, self.drop(y), self.output, batch.targets), state


@dataclass(eq=False, repr=False)
class SequenceToVector(SequenceModel, PooledBody):
    """One prediction per sequence: the outputs of the recurrent layers are pooled over time.

    Shapes: inputs [T, B, I] or ids [T, B]; lengths [B]; returns [B, O].
    """

    def forward(self, inputs: Any, lengths: ArrayLike | None = None) -> Tensor:
        """Predict for each sequence.

        Args:
            inputs: Features [T, B, I], or ids [T, B].
            lengths: [B] the number of steps of each sequence, or None for all T.

        Returns:
            [B, O].
        """
        y, state = self.read(inputs, lengths=lengths)
        pooled = self._last(state, lengths) if self.pooling == "last" else self._pool(y, lengths)
        answer: Tensor = self.output(self.pooled_drop(pooled))
        return answer

    def build_output(self, size: int) -> None:
        """Make the linear layer."""
        self.output = make_linear(self, self.recurrent.output_size, size)
        self.pooled_drop = nn.Dropout(self.dropout)  # never locked, as there is no time axis

    def _last(self, state: Any, lengths: ArrayLike | None) -> Tensor:
        """The output of the last layer at the last step, with concatenated directions [B, D*H]."""
        last = last_outputs(self.recurrent, state)
        if not self.layer_norm:
            return last
        normalized: Tensor = getattr(self.recurrent, f"norm_l{self.num_layers - 1}")(last)
        if lengths is None or np.all(lengths):
            return normalized
        nonempty: Tensor = ops.where(np.asarray(lengths)[:, None] > 0, normalized, last)
        return nonempty  # empty sequences keep the initial zeros

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

    def answer(self, outputs: Any) -> Any:
        """The prediction of a session, from the outputs [..., O] of the linear layer."""
        return outputs

    def session_arguments(self) -> dict[str, Any]:  # noqa: D102
        start: float = 0.0 if self.pooling == "mean" else -np.inf
        size, dtype = self.recurrent.output_size, self.recurrent.dtype
        pooled = {"total" if self.pooling == "mean" else "maximum": np.full(size, start, dtype)}
        if self.pooling == "last":
            return {**super().session_arguments(), "after": _answer}
        steps = {"steps": np.zeros(())} if self.pooling == "mean" else {}
        return {"after": _pool_and_answer, "memory": {**pooled, **steps}}


@dataclass(eq=False, repr=False)
class SequenceClassifier(SequenceToVector, ClassifierBody):
    """A class for each sequence of features or ids; with ``multi_label``, any number of labels.

    Shapes: inputs [T, B, I] or ids [T, B]; lengths [B]; returns logits [B, C].

    Attributes:
        num_classes: C.
        multi_label: Whether a sequence may have any number of labels: each of the C outputs is then
            a binary prediction, whose probability is the sigmoid of its logit; labels with a
            probability above 0.5 are predicted ("binary relevance", Tsoumakas & Katakis 2007, with
            shared layers).
        class_weights: [C] the weights of the classes in the training loss; None for equal weights.
            With ``multi_label``, the weights of positive relative to negative targets. It is not an
            argument, and is not saved: set it before training.

    The other arguments are those of `ClassifierBody`, and ``input_size`` or ``vocabulary_size``.

    Raises:
        ValueError: an option is out of range, both or neither of ``input_size`` and
            ``vocabulary_size`` are given, or ``label_smoothing`` is used with ``multi_label``.

    >>> model = SequenceClassifier(num_classes=3, hidden_size=4, input_size=2, pooling="mean")
    >>> model(np.ones((5, 2, 2), np.float32), lengths=[5, 3]).shape
    (2, 3)
    """

    num_classes: int
    multi_label: bool = field(default=False, kw_only=True)

    kind = "sequence_classifier"
    loss_kind = "classes"
    codec_type = ClassifierCodec

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multi_label and self.label_smoothing:
            raise ValueError(
                "SequenceClassifier: label_smoothing spreads a target over the other classes, but "
                "with several labels each is predicted independently: omit it"
            )
        self.class_weights: Array | None = None
        self.build_output(self.num_classes)

    def answer(self, outputs: Any) -> Any:
        """The probabilities of the classes or labels [..., C], from their logits."""
        return ops.sigmoid(outputs) if self.multi_label else ops.softmax(outputs)

    def scores(self, batch: Batch) -> Tensor:
        """The logits [B, C] of a batch."""
        logits: Tensor = self(batch.inputs, batch.lengths)
        return logits

    def answers(self, scores: Tensor, lengths: ArrayLike | None) -> Array:
        """The most likely class of each sequence [B], given the result of `scores`; with
        ``multi_label`` booleans [B, C], True where the probability is above 0.5.
        """
        predicted: Array = scores.data > 0 if self.multi_label else scores.data.argmax(axis=-1)
        return predicted

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, None]:
        """The mean negative log-probability of the classes ``batch.targets`` [B], in nats.

        With ``multi_label`` targets are booleans [B, C], and it is the mean binary cross-entropy
        over all labels of all sequences. Targets may have more than C columns; those of labels that
        the model lacks do not count.

        In training, targets are smoothed, and weighted by `class_weights` (the weighted sum is
        divided by the number of targets). Each sequence starts from zeros; the state is None.
        """
        weights = self.class_weights if self.training else None
        logits = self.scores(batch)
        if self.multi_label:
            targets = np.asarray(batch.targets)
            if targets.ndim == 2:
                targets = targets[:, : self.num_classes]
            return ops.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights), None
        loss: Tensor = ops.cross_entropy(
            logits,
            batch.targets,
            ignore_index=IGNORE_INDEX,
            reduction="mean" if weights is None else "sum",
            class_weights=weights,
            label_smoothing=smoothing(self),
        )
        if weights is not None:
            # Dividing by the sum of the weights would give a batch without a rare class the same
            # weight as one with it.
            loss = loss / max(batch.tokens, 1)
        return loss, None


@dataclass(eq=False, repr=False)
class SequenceRegressor(SequenceToVector):
    """Numbers for each sequence of features or ids.

    Shapes: inputs [T, B, I] or ids [T, B]; lengths [B]; returns [B, O].

    Attributes:
        num_outputs: O.
        criterion: The loss, one of `CRITERIA`: "squared", "absolute" or "huber". It is not an
            argument, and is not saved: set it before training.

    The other arguments are those of `PooledBody`, and ``input_size`` or ``vocabulary_size``.

    Raises:
        ValueError: an option is out of range, or both or neither of ``input_size`` and
            ``vocabulary_size`` are given.

    >>> model = SequenceRegressor(num_outputs=1, hidden_size=4, vocabulary_size=9, cell="gru")
    >>> model([[1, 2], [3, 4], [5, 0]], lengths=[3, 2]).shape
    (2, 1)
    """

    num_outputs: int

    kind = "sequence_regressor"
    loss_kind = "squared error"
    codec_type = RegressorCodec

    def __post_init__(self) -> None:
        super().__post_init__()
        self.criterion = "squared"
        self.build_output(self.num_outputs)

    @property
    def criterion(self) -> str:
        """The loss, one of `CRITERIA`."""
        return self._criterion

    @criterion.setter
    def criterion(self, name: str) -> None:
        if name not in CRITERIA:
            raise ValueError(
                f"SequenceRegressor: criterion {name!r:.40} is not one of {', '.join(CRITERIA)}"
            )
        self._criterion = name
        kind = "squared error" if name == "squared" else None
        self.loss_kind = kind  # type: ignore[assignment, misc]

    def answer(self, outputs: Any) -> Any:
        """The outputs [..., O], in the units of the targets if there is a codec."""
        if self.codec is None:
            return outputs
        return self.codec.decode(outputs.data if isinstance(outputs, Tensor) else outputs)

    def scores(self, batch: Batch) -> Tensor:
        """The numbers [B, O] of a batch."""
        numbers: Tensor = self(batch.inputs, batch.lengths)
        return numbers

    def answers(self, scores: Tensor, lengths: ArrayLike | None) -> Array:
        """The numbers themselves, as an array."""
        return scores.data

    def loss(self, batch: Batch, state: Any = None) -> tuple[Tensor, None]:
        """The mean loss against ``batch.targets`` [B, O] by `criterion`; the state is None."""
        return CRITERIA[self.criterion](self.scores(batch), batch.targets), None


CRITERIA: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "squared": ops.mean_squared_error,
    "absolute": ops.l1_loss,
    "huber": ops.huber_loss,
}
"""Regression losses by name; the Huber loss is quadratic for differences of at most 1."""


def _answer(model: SequenceToVector, outputs: Array, memory: Mapping[str, Array]) -> Any:
    return model.answer(outputs)


def _pool_and_answer(model: SequenceToVector, y: Array, memory: Mapping[str, Array]) -> Any:
    """The predictions after each step, from the layer's outputs [T, B, N]; updates the memory.

    Steps are added in the order of the sum over a complete sequence, so the bits are the same.
    """
    if model.pooling == "max":
        maxima = np.maximum.accumulate([memory["maximum"], *y])
        memory["maximum"][...] = maxima[-1]
        return model.answer(model.output(maxima[1:]))
    totals = np.cumsum([memory["total"], *y], axis=0, dtype=y.dtype)
    steps = memory["steps"] + np.arange(len(totals))[:, None]
    memory["total"][...], memory["steps"][...] = totals[-1], steps[-1]
    return model.answer(model.output(totals[1:] / steps[1:, :, None].astype(y.dtype)))


def token_loss(
    model: Any, y: Tensor, output: nn.Linear, targets: Any, reduction: str = "mean"
) -> Tensor:
    """The mean negative log-probability of targets [T, B], in nats, with logits ``output(y)``; or,
    with the reduction "none", that of each target [T, B].

    Targets of -100 do not count. In training, targets are smoothed by the model's label_smoothing.
    """
    with output.products():
        loss: Tensor = ops.linear_cross_entropy(
            y, output.weight, output.bias, targets, ignore_index=IGNORE_INDEX,
            reduction=reduction, label_smoothing=smoothing(model),
        )  # fmt: skip
    return loss


def smoothing(model: Any) -> float:
    """The label smoothing of a model in its current mode: 0 in evaluation."""
    return model.label_smoothing if model.training else 0.0


def _spelling(batch: Batch) -> tuple[Any, Any]:
    """The characters of a batch and their lengths, or None twice."""
    if isinstance(batch, SpelledBatch):
        return batch.characters, batch.character_lengths
    return None, None
