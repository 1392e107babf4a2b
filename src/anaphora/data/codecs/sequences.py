"""How models of texts or of series read them."""

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
    """What the numbers of a model of texts or of series stand for; a subclass says it of answers.

    Attributes:
        reader: What such a model is called.
        tokenizer: Of texts; None for series.
        mean: Of each channel of series, by which they are standardised; None for texts.
        scale: The standard deviation of each channel.
        frames: What cuts series into frames, each of which is a step; None reads every step.
    """

    reader: ClassVar[str]
    tokenizer: Tokenizer | None
    mean: Array | None
    scale: Array | None
    frames: Frames | None

    @abstractmethod
    def encode_answers(self, answers: Sequence[Any]) -> Array:
        """The answers of examples, one for each."""

    @abstractmethod
    def answer_column(self) -> Column:
        """What the array of `encode_answers` holds."""

    @staticmethod
    def fit_inputs(
        inputs: Sequence[Any],
        fit_tokenizer: Callable[[Sequence[str]], Tokenizer],
        max_frames: int = 0,
    ) -> dict[str, Any]:
        """The fields that say how inputs are read, of those to train on; at least one.

        Args:
            inputs: Texts, or series [T, I].
            fit_tokenizer: Makes the tokenizer of texts.
            max_frames: About how many frames a series of median length is cut into; 0 for none.

        Raises:
            DataError: series have other channels than others, or no deviation.
        """
        if isinstance(inputs[0], str):
            return {"tokenizer": fit_tokenizer(inputs)}
        channels = sorted({series.shape[1] for series in inputs})
        if len(channels) > 1:
            raise DataError(
                f"there are series of {channels[0]} and of {channels[-1]} channels; give files "
                "whose series have the same channels"
            )
        if max_frames:
            frames = Frames.fit(inputs, max_frames)
            if frames.size > 1:  # shorter series have no more steps than that
                return {"mean": frames.mean, "scale": frames.deviation, "frames": frames}
        mean, scale = moments(np.concatenate(inputs))
        return {"mean": mean, "scale": scale}

    @property
    def level(self) -> str:  # type: ignore[override]
        """What a token of texts is."""
        return "word" if self.tokenizer is None else self.tokenizer.level

    @property
    def other_levels(self) -> str:  # type: ignore[override]
        """Levels at which another model would know more."""
        return "char" if self.level == "word" else ""

    def encode_input(self, example: Any) -> Array:
        """A text as ids [T], or a series standardised [T, I].

        Raises:
            DataError: the text has what is not in the vocabulary; the series has other channels or
                a value that is far out of the range of the training; or one was given for the
                other.
        """
        if isinstance(example, str) != (self.tokenizer is not None):
            expected, given = ("texts", "a series") if self.tokenizer else ("series", "a text")
            raise DataError(f"the {self.reader} is one of {expected}, but {given} was given to it")
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
        """One batch of texts or series in the order given; its targets mean nothing."""
        return side_by_side([as_floats(self.encode_input(one), dtype) for one in examples])

    def counts(self, arrays: Mapping[str, Array]) -> int:  # noqa: D102
        return len(arrays["targets"])

    def input_sizes(self) -> dict[str, int]:
        """The vocabulary of texts, or the channels of series, as an argument of the model."""
        if self.tokenizer is not None:
            return {"vocabulary_size": self.tokenizer.vocabulary_size}
        assert self.mean is not None
        return {"input_size": len(self.mean) if self.frames is None else self.frames.features}

    def describe_inputs(self) -> str:
        """How large that is, in a few words."""
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
        end = "" if tokenizer.level == "char" else "\n"  # a word must not run into the next text
        unknown = tokenizer.unknown_tokens(f"{text}{end}" for text, _ in examples)
        ids = arrays["inputs"]
        return UnknownShare(unknown, int(np.count_nonzero(ids == tokenizer.unknown_id)), len(ids))

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        return {} if self.tokenizer is None else self.tokenizer.entries()

    def options(self) -> dict[str, Any]:  # noqa: D102
        return {} if self.tokenizer is None else self.tokenizer.options()

    def adapted_inputs(self, start: Any, vocabulary: str) -> dict[str, Any]:
        """The fields that say how inputs are read, of a training that begins with a model.

        Args:
            start: The model's codec, of the same kind, or a tokenizer.
            vocabulary: As of `adapted`.

        Raises:
            DataError: the model reads something else.
        """
        tokenizer = start if isinstance(start, Tokenizer) else start.tokenizer
        if self.tokenizer is not None and tokenizer is not None:
            return {"tokenizer": self.tokenizer.adapted(tokenizer, vocabulary)}
        if self.tokenizer is not None or tokenizer is not None:
            came, wanted = ("series", "texts") if tokenizer else ("texts", "series")
            raise DataError(f"the model to begin with reads {wanted}, but the files hold {came}")
        assert self.mean is not None
        if len(self.mean) != len(start.mean):
            raise DataError(
                f"the series have {len(self.mean)} channels; those of the model to begin with have "
                f"{len(start.mean)}"
            )
        of = self if vocabulary == "new" else start
        if (0 if self.frames is None else self.frames.features) != (
            0 if start.frames is None else start.frames.features
        ):
            raise DataError(
                "the model to begin with cuts series into other frames; give --max-frames as there"
            )
        return {"mean": of.mean, "scale": of.scale, "frames": of.frames}

    def inputs_to_dict(self) -> dict[str, Any]:
        """What `inputs_from_dict` needs, for a JSON file."""
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
        """The fields that say how inputs are read.

        Raises:
            ValueError: the data is damaged; the message names the field.
        """
        of_series = "tokenizer" not in data and ("mean" in data or "scale" in data)
        description = schema.convert(data, _OfSeries if of_series else _OfTexts)
        if not of_series:
            return {"tokenizer": Tokenizer.from_dict(data["tokenizer"])}
        mean, scale = checked_moments(description, "mean", "scale", "channel")
        cut = description.get("frames")
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


class _OfTexts(TypedDict):
    tokenizer: dict[str, Any]


class _OfFrames(TypedDict):
    size: schema.Size
    stride: schema.Size
    spread: list[float]


class _OfSeries(TypedDict):
    mean: list[float]
    scale: list[float]
    frames: NotRequired[_OfFrames]


def checked_moments(
    data: Mapping[str, Sequence[float]], mean: str, scale: str, what: str
) -> tuple[Array, Array]:
    """Means and deviations from plain data, by the names of their fields.

    Raises:
        ValueError: they are not equally many, there are none, or a deviation is not above 0.

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
    """Floats in a precision; ids and classes as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array
