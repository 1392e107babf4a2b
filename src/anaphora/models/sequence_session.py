"""Sessions of models that read sequences: a prediction after each step, as input arrives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from anaphora import nn
from anaphora.data import DataError, TaggerCodec, standardized
from anaphora.tensor import Array, as_tensor

if TYPE_CHECKING:
    from anaphora.models.reader import SequenceModel
    from anaphora.models.sequences import SequenceTagger


class SequenceSession(nn.Session):
    r"""A model of sequences that is fed step by step; the model's ``session`` makes one.

    After each step it predicts as the model does for the sequence so far, bit for bit with the
    native engine. State, forks, pickling and threads are as for `nn.Session`; the state of the
    pooling is in `state_dict`.

    Inputs are those of the model's codec. Series are fed in their own units, and standardized by
    the session. A model of texts reads ids, or text, which is tokenized call by call: at word level
    a call must contain complete words, and ``"\n"`` is the end of a text, which
    `ClassifierCodec.encode_input` adds. A tagger with a codec reads words, one without reads ids.
    Without a codec, features are read unchanged.

    A model that reads series in frames (`data.Frames`) is fed single steps too. A frame advances
    the state at its last step; an incomplete last frame is recomputed for each prediction, with the
    last step repeated, as at the end of a complete series.

    Args:
        model: The model, which must be unidirectional.
        batch_size: B; None for one sequence, whose arrays have no batch axis.
        weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

    Raises:
        ValueError: the model is bidirectional; the batch size is below 1; the model has a character
            layer, but no codec; or the weights are not of these two.

    >>> from anaphora.models import SequenceClassifier
    >>> model = SequenceClassifier(num_classes=2, hidden_size=4, input_size=3, pooling="mean")
    >>> session = model.session()
    >>> session.feed([18.0, 25.0, 21.0]).shape  # the probability of each class after one step
    (2,)
    >>> sorted(session.state_dict())
    ['c', 'h', 'steps', 'total']
    """

    def __init__(
        self, model: SequenceModel, batch_size: int | None = None, *, weights: str | None = None
    ) -> None:
        name = type(model).__name__
        if model.bidirectional:
            raise ValueError(
                f"{name}: a bidirectional model has no session, as it also reads sequences from "
                "their ends; call it with the complete sequence, or train a model with "
                "bidirectional=False (--no-bidirectional)"
            )
        reading: dict[str, Any] = {}
        if model.embedding is None:
            if model.codec is not None:
                reading = {
                    "step": model.codec.mean.shape,
                    "dtype": np.float64,
                    "before": _standardized,
                    "frames": model.codec.frames,
                }
        elif isinstance(model.codec, TaggerCodec):
            reading = {"step": (), "dtype": np.object_, "before": _embed}
        elif model.characters is not None:
            raise ValueError(
                f"{name}: its session reads words, which needs a codec to make ids and characters "
                "of them; set model.codec"
            )
        else:
            reading = {"table": model.embedding.weight}
        arguments = {**reading, **model.session_arguments()}
        super().__init__(model.recurrent, batch_size, model, weights=weights, **arguments)
        self.codec = model.codec

    def feed(self, inputs: Any) -> Array:
        """Read the next step, or several, and advance the state.

        Args:
            inputs: One step [I], or several [T, I]; with a batch size [B, I] or [T, B, I]. Ids and
                words have no axis I. Or, without a batch size, a text.

        Returns:
            The prediction after each step, with the same leading axes; for a text [T, ...], one per
            token: the probabilities of the classes, numbers in the units of the targets, or the
            scores (logits) of the tags, which are the emission scores of a CRF (see
            `TaggerSession.tags`).

        Raises:
            ValueError: a shape does not match; or (a `DataError`) a value is NaN or infinite, or a
                token is not in the vocabulary. The state does not change.
            TypeError: ids are not integers, or words are not text.
            RuntimeError: another thread is feeding this session.
        """
        return super().feed(self._encoded(inputs))

    def _encoded(self, inputs: Any) -> Any:
        """The input as an array, if it is text or words."""
        if self._dtype.kind == "O":
            words = np.array(inputs, np.object_)
            if not all(isinstance(word, str) for word in words.flat):
                raise TypeError("feed: a tagger reads words; expected a text, or lists of them")
            return words
        if not isinstance(inputs, str) or self.codec is None:
            return inputs
        if self.batch_size is not None:
            raise ValueError(
                f"feed: one text was given to a session of {self.batch_size} sequences; give ids "
                "[B] or [T, B], as codec.encode_input makes them of a text"
            )
        ids = self.codec.encode_input(inputs)
        # A word tokenizer appends the end of the line.
        is_incomplete = self.codec.level == "word" and not inputs.endswith("\n")
        return ids[:-1] if is_incomplete else ids


class TaggerSession(SequenceSession):
    """A tagger that is fed step by step; `SequenceTagger.session` makes one.

    `feed` returns the scores of the tags. With ``keep_scores``, `tags` returns the tags of all
    steps so far; the scores take 4 or 8 bytes per step and tag until `reset`, and are part of the
    state, as ``scores``.

    Args:
        model: The tagger, which must be unidirectional.
        batch_size: B; None for one sequence, whose arrays have no batch axis.
        keep_scores: Whether to keep the scores of all steps, for `tags`.
        weights: "float32", or "int8" for weights in 8 bits; None for those of the model.

    Raises:
        ValueError: as for `SequenceSession`.

    >>> from anaphora.models import SequenceTagger
    >>> model = SequenceTagger(num_tags=3, hidden_size=4, vocabulary_size=9, crf=True)
    >>> session = model.session(keep_scores=True)
    >>> for word in (7, 2, 5):
    ...     scores = session.feed(word)
    >>> session.tags().shape, session.state_dict()["scores"].shape
    ((3,), (3, 3))
    """

    def __init__(
        self,
        model: SequenceTagger,
        batch_size: int | None = None,
        *,
        keep_scores: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__(model, batch_size, weights=weights)
        dtype = model.recurrent.dtype
        self._scores = [np.zeros((0, batch_size or 1, model.num_tags), dtype)]  # [T, B, C] each
        self._keeps = keep_scores
        self._crf: nn.CRF | None = None
        if model.crf:
            session_weights = {
                id(parameter): self._weights["module", f"crf_layer.{name}"]
                for name, parameter in model.crf_layer.named_parameters()
            }
            self._crf = copy.deepcopy(model.crf_layer, session_weights)

    def feed(self, inputs: Any) -> Array:  # noqa: D102
        if not self._keeps:
            return super().feed(inputs)
        x = self._encoded(inputs)
        with self._changing("feed"):
            scores = self._advance(x if isinstance(x, np.ndarray) else self._array(x))
            self._scores.append(scores.reshape(-1, *self._scores[0].shape[1:]).copy())
        return scores

    def tags(self) -> Any:
        """The tags of all steps since the start or `reset`.

        They are those of `SequenceTagger.answers` for the sequence so far: with a CRF the most
        likely path, in which later steps may change earlier tags; else the most likely tag of each
        step.

        Returns:
            Indices [T], or [T, B] with a batch size; if the tagger has a codec, a list of T names,
            or B such lists.

        Raises:
            ValueError: the session keeps no scores, or the scores contain NaN.
            RuntimeError: another thread is feeding this session.
        """
        if not self._keeps:
            raise ValueError(
                "tags: this session does not keep the scores of all steps; make it with "
                "model.session(keep_scores=True)"
            )
        with self._changing("tags"):
            scores = self._joined()
        best = scores.argmax(axis=-1) if self._crf is None else self._crf.decode(scores)
        if self.codec is None:
            return best[:, 0] if self.batch_size is None else best
        named = [[self.codec.tags[k] for k in row] for row in best.T]
        return named[0] if self.batch_size is None else named

    def _joined(self) -> Array:
        """The scores of all steps, [T, B, C]."""
        self._scores = [np.concatenate(self._scores)]
        return self._scores[0]

    def state_dict(self) -> dict[str, Array]:
        """Copies of the arrays of the state; scores are [T, C], or [T, B, C]."""
        state = super().state_dict()
        if self._keeps:
            scores = self._joined()
            state["scores"] = (scores[:, 0] if self.batch_size is None else scores).copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned; see `nn.Session.load_state_dict`."""
        if not self._keeps:
            super().load_state_dict(state)
            return
        others = {name: state[name] for name in state if name != "scores"}
        if len(others) == len(state):
            raise KeyError(
                f"load_state_dict: the state has {', '.join(state) or 'no arrays'}, but no scores, "
                "which this session needs; it is from a session with keep_scores=False"
            )
        _, B, C = self._scores[0].shape
        dtype = self._scores[0].dtype
        scores = as_tensor(state["scores"], dtype, "load_state_dict: scores").data
        expected = (C,) if self.batch_size is None else (B, C)
        if scores.ndim == 0 or scores.shape[1:] != expected:
            raise ValueError(
                f"load_state_dict: scores have shape {scores.shape}; expected "
                f"[T, {', '.join(map(str, expected))}]"
            )
        super().load_state_dict(others)
        self._scores = [scores.reshape(-1, B, C).copy()]

    def reset(self) -> None:
        """Return to the initial state, and discard the scores of all steps."""
        super().reset()
        self._scores = [self._scores[0][:0]]

    def resized(self, batch_size: int | None) -> Self:
        """A session for another number of sequences; see `nn.Session.resized`."""
        other = super().resized(batch_size)
        scores = self._scores[0]
        other._scores = [np.zeros((0, batch_size or 1, scores.shape[2]), scores.dtype)]
        return other

    def fork(self) -> Self:
        """An independent session with the same weights and a copy of the state."""
        other = super().fork()
        other._scores = list(self._scores)  # the arrays are never written to
        return other


def _standardized(model: Any, x: Array) -> Array:
    """Series [T, B, I], standardized as in training."""
    moments = model.codec.mean, model.codec.scale
    try:
        return standardized(x.reshape(-1, x.shape[-1]), *moments, "the input").reshape(x.shape)
    except DataError:
        for number, series in enumerate(x.swapaxes(0, 1) if x.shape[1] > 1 else ()):
            standardized(series, *moments, f"sequence {number} of the input")
        raise


def _embed(model: Any, words: Array) -> Any:
    """The inputs of the recurrent layers for words [T, B]."""
    if words.size == 0:
        return np.zeros((*words.shape, model.recurrent.input_size), model.recurrent.dtype)
    batch = model.codec.input_batch([list(sentence) for sentence in words.T])
    if model.characters is None:
        return model.embed(batch.inputs)
    return model.embed(batch.inputs, batch.characters, batch.character_lengths)
