"""The codec of regressors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from anaphora import schema
from anaphora.data.codecs.base import (
    Array,
    Column,
    check_names,
)
from anaphora.data.codecs.sequences import SequenceCodec, checked_moments
from anaphora.data.errors import DataError
from anaphora.data.frames import Frames
from anaphora.data.series import moments
from anaphora.data.tokenizers import CharacterTokenizer, Tokenizer


class _RegressorFields(TypedDict):
    targets: list[str]
    target_mean: list[float]
    target_scale: list[float]


@dataclass(frozen=True)
class RegressorCodec(SequenceCodec):
    """The codec of a regressor of texts or series.

    The model's targets and outputs are standardized by the mean and the standard deviation of the
    training targets.

    Attributes:
        targets: The names of the O targets.
        target_mean: [O] their means.
        target_scale: [O] their standard deviations.
        tokenizer: The tokenizer of texts; None for series.
        mean: The mean of each channel of series, for standardization; None for texts.
        scale: The standard deviation of each channel.
        frames: Cuts series into frames; None for single steps.

    >>> codec = RegressorCodec.fit([("a", (20.0,)), ("b", (40.0,)), ("ab", (30.0,))])
    >>> codec.encode_answers([(30.0,)]).tolist(), codec.decode([[0.0]]).tolist()
    ([[0.0]], [[30.0]])
    """

    targets: tuple[str, ...]
    target_mean: Array
    target_scale: Array
    tokenizer: Tokenizer | None = None
    mean: Array | None = None
    scale: Array | None = None
    frames: Frames | None = None

    reader = "regressor"

    @classmethod
    def fit(
        cls,
        training: Sequence[tuple[Any, Sequence[float]]],
        held_out: Sequence[tuple[Any, Sequence[float]]] = (),
        *,
        targets: Sequence[str] = ("target",),
        fit_tokenizer: Callable[[Sequence[str]], Tokenizer] = CharacterTokenizer.fit,
        max_frames: int = 0,
    ) -> RegressorCodec:
        """Fit a codec to training examples.

        Args:
            training: Texts, or series [T, I], each with its O numbers; at least one.
            held_out: Validation examples, which are ignored.
            targets: The names of the numbers.
            fit_tokenizer: Fits the tokenizer of texts.
            max_frames: Approximate number of frames of a series, see `Frames`; 0 for no frames.

        Raises:
            DataError: a target is constant, or its squares overflow.
        """
        numbers = np.array([answer for _, answer in training], np.float64)
        mean, scale = moments(numbers, "target")
        for name, column in zip(targets, numbers.T, strict=True):
            if column.min() == column.max():
                raise DataError(
                    f"all examples have the same {name}, {column[0]:g}; give examples whose "
                    "targets differ"
                )
        inputs = [example for example, _ in training]
        read = cls.fit_inputs(inputs, fit_tokenizer, max_frames)
        return cls(tuple(targets), mean, scale, **read)

    def encode_answers(self, answers: Sequence[Any]) -> Array:
        """Standardize targets [N, O].

        Raises:
            DataError: a standardized target overflows float32.
        """
        numbers = np.array(answers, np.float64).reshape(-1, len(self.targets))
        scaled: Array = (numbers - self.target_mean) / self.target_scale
        for n, k in np.argwhere(~(np.abs(scaled) <= np.finfo(np.float32).max))[:1]:
            raise DataError(
                f"the {self.targets[k]} {numbers[n, k]:g} overflows float32 when standardized by "
                f"the mean {self.target_mean[k]:g} and the standard deviation "
                f"{self.target_scale[k]:g} of the training; correct it or remove the example"
            )
        return scaled

    def decode(self, numbers: Any) -> Array:
        """Convert outputs of the model [..., O] to the units of the targets, in float64."""
        decoded: Array = np.asarray(numbers, np.float64) * self.target_scale + self.target_mean
        return decoded

    def answer_column(self) -> Column:  # noqa: D102
        return Column("sequences", features=len(self.targets))

    def sizes(self) -> dict[str, int]:  # noqa: D102
        return {"num_outputs": len(self.targets), **self.input_sizes()}

    def describe(self) -> str:  # noqa: D102
        several = f"{len(self.targets)} targets, " if len(self.targets) > 1 else ""
        return several + self.describe_inputs()

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        return {**super().entries(), "num_outputs": self.targets}

    def adapted(self, start: Any, vocabulary: str) -> RegressorCodec:  # noqa: D102
        inputs = self.adapted_inputs(start, vocabulary)
        known = isinstance(start, RegressorCodec) and start.targets == self.targets
        scaled = start if known and vocabulary != "new" else self
        return RegressorCodec(self.targets, scaled.target_mean, scaled.target_scale, **inputs)

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        return {
            "targets": list(self.targets),
            "target_mean": self.target_mean.tolist(),
            "target_scale": self.target_scale.tolist(),
            **self.inputs_to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RegressorCodec:
        """Make a codec from the result of `to_dict`; see `Codec.from_dict`."""
        fields = schema.convert(data, _RegressorFields)
        check_names("targets", fields["targets"], minimum=1)
        mean, scale = checked_moments(fields, "target_mean", "target_scale", "target")
        if len(mean) != len(fields["targets"]):
            raise ValueError(
                f"target_mean has {len(mean)} numbers; expected one for each of the "
                f"{len(fields['targets'])} targets"
            )
        return cls(tuple(fields["targets"]), mean, scale, **cls.inputs_from_dict(data))
