"""The base of the codecs of models that read texts or series."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np

from anaphora import schema
from anaphora.data.batches import SequenceBatches, side_by_side
from anaphora.data.codecs.base import (
    Array,
    Codec,
    Column,
    UnknownShare,
    shorten,
)
from anaphora.data.errors import DataError, located
from anaphora.data.frames import Frames
from anaphora.data.series import moments, standardized
from anaphora.data.tokenizers import Tokenizer


class SequenceCodec(Codec):
    """The base of codecs of texts or series; subclasses encode the targets.

    Attributes:
        reader: The name of such models, for messages.
        tokenizer: The tokenizer of texts; None for series.
        mean: The mean of each channel of series, for standardization; None for texts.
        scale: The standard deviation of each channel.
        frames: Cuts series into frames, which are the steps of the model; None for single steps.
    """

    reader: ClassVar[str]
    tokenizer: Tokenizer | None
    mean: Array | None
    scale: Array | None
    frames: Frames | None

    @abstractmethod
    def encode_answers(self, answers: Sequence[Any]) -> Array:
        """The targets of examples as an array."""

    @abstractmethod
    def answer_column(self) -> Column:
        """The contents of the array of `encode_answers`."""

    @staticmethod
    def fit_inputs(
        inputs: Sequence[Any],
        fit_tokenizer: Callable[[Sequence[str]], Tokenizer],
        max_frames: int = 0,
    ) -> dict[str, Any]:
        """Fit the fields of the inputs: the tokenizer, or moments and frames.

        Args:
            inputs: The training texts, or series [T, I]; at least one.
            fit_tokenizer: Fits the tokenizer of texts.
            max_frames: Approximate number of frames of a series of median length; 0 for no frames.

        Raises:
            DataError: series have different numbers of channels, or a channel has no standard
                deviation.
        """
        if isinstance(inputs[0], str):
            return {"tokenizer": fit_tokenizer(inputs)}
        channels = sorted({series.shape[1] for series in inputs})
        if len(channels) > 1:
            raise DataError(
                f"there are series with {channels[0]} and with {channels[-1]} channels; give files "
                "whose series have the same channels"
            )
        if max_frames:
            frames = Frames.fit(inputs, max_frames)
            if frames.size > 1:  # else the series have few steps already
                return {"mean": frames.mean, "scale": frames.deviation, "frames": frames}
        mean, scale = moments(np.concatenate(inputs))
        return {"mean": mean, "scale": scale}

    @property
    def level(self) -> str:  # type: ignore[override]
        """The level of the tokens of texts."""
        return "word" if self.tokenizer is None else self.tokenizer.level

    @property
    def other_levels(self) -> str:  # type: ignore[override]
        """Levels at which a model would have fewer unknown tokens."""
        return "char" if self.level == "word" else ""

    def encode_input(self, example: Any) -> Array:
        """Encode a text as ids [T], or a series as standardized steps or frames [T, I].

        Raises:
            DataError: a token is not in the vocabulary; the series has other channels or a value
                far out of the range of the training; or a text was given instead of a series, or
                the reverse.
        """
        if isinstance(example, str) != (self.tokenizer is not None):
            expected, given = ("texts", "a series") if self.tokenizer else ("series", "a text")
            raise DataError(f"the {self.reader} reads {expected}, but {given} was given")
        if self.tokenizer is not None:
            return self.tokenizer.encode(example)
        assert self.mean is not None
        assert self.scale is not None
        if example.shape[1] != len(self.mean):
            raise DataError(
                f"a series has {example.shape[1]} channels; those of the training have "
                f"{len(self.mean)}"
            )
        if self.frames is not None:
            return self.frames(example)
        return standardized(example, self.mean, self.scale)

    def encode(self, examples: Sequence[Any]) -> dict[str, Array]:  # noqa: D102
        inputs = []
        for example, _ in examples:
            name = f"the text {shorten(example)}" if isinstance(example, str) else "the series"
            with located(name):
                inputs.append(self.encode_input(example))
        return {
            "inputs": np.concatenate(inputs),
            "lengths": np.array([len(sequence) for sequence in inputs]),
            "targets": self.encode_answers([answer for _, answer in examples]),
        }

    def columns(self) -> dict[str, Column]:  # noqa: D102
        sizes = self.input_sizes()
        return {
            "inputs": Column("steps", sizes.get("vocabulary_size"), sizes.get("input_size")),
            "lengths": Column("sequences", of="steps"),
            "targets": self.answer_column(),
        }

    def batches(  # noqa: D102
        self, arrays: Mapping[str, Array], batch_size: int, dtype: str
    ) -> SequenceBatches:
        inputs, targets = (as_floats(arrays[name], dtype) for name in ("inputs", "targets"))
        sequences = np.split(inputs, np.cumsum(arrays["lengths"])[:-1])
        return SequenceBatches(sequences, targets, batch_size)

    def input_batch(self, examples: Sequence[Any], dtype: str) -> Any:
        """One batch of texts or series, in order, without meaningful targets."""
        return side_by_side([as_floats(self.encode_input(one), dtype) for one in examples])

    def counts(self, arrays: Mapping[str, Array]) -> int:  # noqa: D102
        return len(arrays["targets"])

    def input_sizes(self) -> dict[str, int]:
        """The size of the vocabulary or of a step of series, as an argument of the model."""
        if self.tokenizer is not None:
            return {"vocabulary_size": self.tokenizer.vocabulary_size}
        assert self.mean is not None
        return {"input_size": len(self.mean) if self.frames is None else self.frames.features}

    def describe_inputs(self) -> str:
        """A few words about the size of the inputs."""
        (size,) = self.input_sizes().values()
        if self.tokenizer is not None:
            return f"a vocabulary of {size:,}"
        channels = f"{0 if self.mean is None else len(self.mean)} channels"
        if self.frames is None:
            return channels
        return f"{channels}, in frames of {self.frames.size} steps, {self.frames.stride} apart"

    def unknown_tokens(self, input: Any) -> Counter[str]:  # noqa: D102
        self.encode_input(input)
        return Counter() if self.tokenizer is None else self.tokenizer.unknown_tokens([input])

    def unknown_share(  # noqa: D102
        self, examples: Sequence[Any], arrays: Mapping[str, Array]
    ) -> UnknownShare:
        tokenizer = self.tokenizer
        if tokenizer is None:
            return UnknownShare(Counter(), 0, 0)
        end = "" if tokenizer.level == "char" else "\n"  # separates the last word from the next
        unknown = tokenizer.unknown_tokens(f"{text}{end}" for text, _ in examples)
        ids = arrays["inputs"]
        return UnknownShare(unknown, int(np.count_nonzero(ids == tokenizer.unknown_id)), len(ids))

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        return {} if self.tokenizer is None else self.tokenizer.entries()

    def options(self) -> dict[str, Any]:  # noqa: D102
        return {} if self.tokenizer is None else self.tokenizer.options()

    def adapted_inputs(self, start: Any, vocabulary: str) -> dict[str, Any]:
        """The fields of the inputs, for a training run that starts from a model.

        Args:
            start: The model's codec, of the same class, or a tokenizer.
            vocabulary: As for `adapted`.

        Raises:
            DataError: the model reads another kind of inputs.
        """
        tokenizer = start if isinstance(start, Tokenizer) else start.tokenizer
        if self.tokenizer is not None and tokenizer is not None:
            return {"tokenizer": self.tokenizer.adapted(tokenizer, vocabulary)}
        if self.tokenizer is not None or tokenizer is not None:
            given, expected = ("series", "texts") if tokenizer else ("texts", "series")
            raise DataError(f"the model to start from reads {expected}, but the files hold {given}")
        assert self.mean is not None
        if len(self.mean) != len(start.mean):
            raise DataError(
                f"the series have {len(self.mean)} channels; those of the model to start from have "
                f"{len(start.mean)}"
            )
        scaled = self if vocabulary == "new" else start
        if (0 if self.frames is None else self.frames.features) != (
            0 if start.frames is None else start.frames.features
        ):
            raise DataError(
                "the model to start from reads series in other frames; give its --max-frames"
            )
        return {"mean": scaled.mean, "scale": scaled.scale, "frames": scaled.frames}

    def inputs_to_dict(self) -> dict[str, Any]:
        """The fields of the inputs as plain values, for a JSON file."""
        if self.tokenizer is not None:
            return {"tokenizer": self.tokenizer.to_dict()}
        assert self.mean is not None
        assert self.scale is not None
        values: dict[str, Any] = {"mean": self.mean.tolist(), "scale": self.scale.tolist()}
        if self.frames is not None:
            spread = self.frames.spread.tolist()
            size, stride = self.frames.size, self.frames.stride
            values["frames"] = {"size": size, "stride": stride, "spread": spread}
        return values

    @staticmethod
    def inputs_from_dict(data: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the inputs from plain values.

        Raises:
            ValueError: the data is damaged; the message names the field.
        """
        is_series = "tokenizer" not in data and ("mean" in data or "scale" in data)
        fields = schema.convert(data, _SeriesFields if is_series else _TextFields)
        if not is_series:
            return {"tokenizer": Tokenizer.from_dict(data["tokenizer"])}
        mean, scale = checked_moments(fields, "mean", "scale", "channel")
        cut = fields.get("frames")
        if cut is None:
            return {"mean": mean, "scale": scale}
        spread = np.array(cut["spread"], np.float64)
        if len(spread) != len(mean) or not (spread > 0).all():
            raise ValueError(
                f"frames.spread is {cut['spread']}; expected a number above 0 for each channel"
            )
        if not 1 <= cut["stride"] <= cut["size"]:
            raise ValueError(
                f"frames.stride is {cut['stride']}; expected 1 to frames.size, {cut['size']}"
            )
        frames = Frames(mean, scale, cut["stride"], cut["size"], spread)
        return {"mean": mean, "scale": scale, "frames": frames}


class _TextFields(TypedDict):
    tokenizer: dict[str, Any]


class _FramesFields(TypedDict):
    size: schema.Size
    stride: schema.Size
    spread: list[float]


class _SeriesFields(TypedDict):
    mean: list[float]
    scale: list[float]
    frames: NotRequired[_FramesFields]


def checked_moments(
    data: Mapping[str, Sequence[float]], mean: str, scale: str, what: str
) -> tuple[Array, Array]:
    """Means and standard deviations from plain data, by the names of their fields.

    Raises:
        ValueError: their numbers differ or are 0, or a standard deviation is not above 0.

    >>> checked_moments({"mean": [1.0], "scale": [2.0]}, "mean", "scale", "channel")
    (array([1.]), array([2.]))
    """
    means, scales = (np.array(data[name], np.float64) for name in (mean, scale))
    if len(means) != len(scales) or not len(means):
        raise ValueError(
            f"{mean} has {len(means)} numbers and {scale} {len(scales)}; expected one of each for "
            f"every {what}"
        )
    if not (scales > 0).all():
        k = int((scales > 0).argmin())
        raise ValueError(f"{scale}[{k}] is {scales[k]}; expected a number above 0")
    return means, scales


def as_floats(array: Array, dtype: str) -> Array:
    """Convert floats to a precision; ids and classes are returned unchanged."""
    return array.astype(dtype) if array.dtype.kind == "f" else array
