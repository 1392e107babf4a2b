"""Codecs: what the numbers of a model mean, one class for each kind of examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from anaphora import schema
from anaphora.data.batches import Batches, SequenceBatches, pair_batches, side_by_side
from anaphora.data.errors import DataError, located
from anaphora.data.frames import Frames
from anaphora.data.labelled import check_labels
from anaphora.data.series import moments, standardized
from anaphora.data.tokenizers import CharacterTokenizer, Tokenizer, WordTokenizer
from anaphora.data.tokenizers.word import UNKNOWN

Array = NDArray[Any]

SIDES = ("source", "target")
UNKNOWN_WORD = 0
"""The id that a tagger has for words that are not in the vocabulary."""

_NAMED = 20  # labels or tags that a message lists


class Column(NamedTuple):
    """What an array of examples holds: ids, numbers of features, or lengths.

    Attributes:
        along: What it has one row for; arrays that say the same are equally long.
        below: Ids are 0 to ``below - 1``.
        features: The numbers of a row; None for integers, of which a row has one.
        of: Of lengths, what they are the lengths of: added up they are so many.
        booleans: Whether the numbers of a row are booleans.

    >>> Column("sequences", of="steps").features is None
    True
    """

    along: str
    below: int | None = None
    features: int | None = None
    of: str | None = None
    booleans: bool = False


class UnknownShare(NamedTuple):
    """What of examples is not in the vocabulary.

    Attributes:
        tokens: The tokens that are not in it, counted.
        unknown: The number of unknown tokens, those included that are written so in the text.
        total: The number of all tokens; 0 where there are none.

    >>> UnknownShare(Counter(["abc"]), 1, 40).total
    40
    """

    tokens: Counter[str]
    unknown: int
    total: int


class Codec(ABC):
    """What the numbers of a kind of examples mean; an example is an input and its answer.

    >>> issubclass(ClassifierCodec, Codec), issubclass(TaggerCodec, Codec)
    (True, True)
    """

    level: str = "word"
    """What a token of its inputs is."""

    other_levels: str = ""
    """Levels at which another model would know more, as advice has them."""

    counted: ClassVar[str] = "examples"
    """What `counts` counts, in the plural."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The arguments of the model that follow from it."""

    @abstractmethod
    def encode(self, examples: Sequence[Any]) -> dict[str, Array]:
        """The examples as arrays, which `batches` reads.

        Raises:
            DataError: something is not in the vocabulary, which has no unknown token.
        """

    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """What the arrays of `encode` hold, by their names."""

    @abstractmethod
    def batches(self, arrays: Mapping[str, Array], batch_size: int, dtype: str) -> Batches:
        """Batches of examples that `encode` made arrays of."""

    @abstractmethod
    def counts(self, arrays: Mapping[str, Array]) -> int:
        """The number of targets in such arrays."""

    @abstractmethod
    def describe(self) -> str:
        """How large it is, in a few words."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All that `from_dict` needs, for a JSON file."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the codec that `to_dict` described.

        Raises:
            ValueError: the data is damaged; the message names the field.
        """

    def entries(self) -> dict[str, Sequence[str]]:
        """What the numbers of vocabularies, classes and tags stand for, by the size of each."""
        return {}

    def options(self) -> dict[str, Any]:
        """How it cuts a text into tokens, by the names of the options of a training."""
        return {}

    def adapted(self, start: Any, vocabulary: str) -> Any:
        """The codec of a training that begins with a model; this one is fitted to its files.

        Args:
            start: The model's codec.
            vocabulary: One of `VOCABULARIES`.

        Raises:
            DataError: the model reads something else.
        """
        if type(start) is not type(self):
            raise DataError("the model to begin with reads something else than these files hold")
        return self if vocabulary == "new" else start

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels or tags that are answers, in the order of their numbers; () if others are."""
        return ()

    def with_labels_of(self, examples: Sequence[Any]) -> Self:
        """The same codec with those labels of examples that it lacks, as the last ones.

        It encodes examples to evaluate a model on, which answers none of these.
        """
        return self

    def unknown_tokens(self, input: Any) -> Counter[str]:
        """Count the tokens of an input that the model reads as unknown.

        Raises:
            DataError: the model cannot read the input at all.
        """
        return Counter()

    def unknown_share(self, examples: Sequence[Any], arrays: Mapping[str, Array]) -> UnknownShare:
        """What of examples, and of what `encode` made of them, is not in the vocabulary."""
        return UnknownShare(Counter(), 0, 0)

    def knows(self, token: str) -> bool:
        """Whether the vocabulary has a token."""
        return not self.unknown_tokens(token)


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
            name = f"the text {_shorten(example)}" if isinstance(example, str) else "the series"
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
        inputs, targets = (_as_floats(arrays[name], dtype) for name in ("inputs", "targets"))
        sequences = np.split(inputs, np.cumsum(arrays["lengths"])[:-1])
        return SequenceBatches(sequences, targets, batch_size)

    def input_batch(self, examples: Sequence[Any], dtype: str) -> Any:
        """One batch of texts or series in the order given; its targets mean nothing."""
        return side_by_side([_as_floats(self.encode_input(one), dtype) for one in examples])

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


class _OfClassifier(TypedDict):
    classes: list[str]
    multi_label: NotRequired[bool]


@dataclass(frozen=True)
class ClassifierCodec(SequenceCodec):
    """What the numbers of a classifier of texts or of series mean.

    Attributes:
        classes: The labels, sorted.
        tokenizer: Of texts; None for series.
        mean: Of each channel of series, by which they are standardised; None for texts.
        scale: The standard deviation of each channel.
        multi_label: Whether an example may have several labels, or none. Its answer is then a tuple
            of labels, which `encode_answers` makes a row of booleans, one for each class.

    >>> codec = ClassifierCodec(("no", "yes"), CharacterTokenizer.fit("ab"))
    >>> codec.encode_input("ba").tolist(), codec.encode_answers(["yes"]).tolist()
    ([1, 0], [1])
    >>> replace(codec, multi_label=True).encode_answers([("no", "yes"), ()]).tolist()
    [[True, True], [False, False]]
    """

    classes: tuple[str, ...]
    tokenizer: Tokenizer | None = None
    mean: Array | None = None
    scale: Array | None = None
    frames: Frames | None = None
    multi_label: bool = False

    reader = "classifier"

    @classmethod
    def fit(
        cls,
        training: Sequence[tuple[Any, str | tuple[str, ...]]],
        held_out: Sequence[tuple[Any, str | tuple[str, ...]]] = (),
        *,
        fit_tokenizer: Callable[[Sequence[str]], Tokenizer] = CharacterTokenizer.fit,
        max_frames: int = 0,
    ) -> ClassifierCodec:
        """The codec of examples: what is read, of those to train on; classes, of all.

        Args:
            training: Texts, or series [T, I], with their labels; at least one. If the labels of an
                example are a tuple, any may have several or none.
            held_out: Others.
            fit_tokenizer: Makes the tokenizer of texts.
            max_frames: About how many frames series are cut into, see `Frames`; 0 for none.

        Raises:
            DataError: the examples leave nothing to learn.
        """
        answers = [answer for _, answer in [*training, *held_out]]
        multi_label = any(isinstance(answer, tuple) for answer in answers)
        sets = {_label_set(answer) for answer in answers}
        classes = tuple(sorted(set().union(*sets)))
        check_labels(dict.fromkeys(classes, "the files"))  # each may be consistent in itself
        if len(sets) < 2:
            labels = ", ".join(map(repr, classes))
            have = f"the label {labels}" if len(classes) == 1 else f"the labels {labels}"
            raise DataError(
                f"all examples have {have if labels else 'no label'}; expected two or more"
                + (" sets of labels" if multi_label else "")
            )
        inputs = [example for example, _ in training]
        read = cls.fit_inputs(inputs, fit_tokenizer, max_frames)
        return cls(classes, **read, multi_label=multi_label)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def with_labels_of(self, examples: Sequence[Any]) -> ClassifierCodec:  # noqa: D102
        found = set().union(*(_label_set(answer) for _, answer in examples))
        return replace(self, classes=(*self.classes, *sorted(found - set(self.classes))))

    def encode_answers(self, answers: Sequence[Any]) -> Array:
        """Labels as the numbers of their classes [N], or several each as booleans [N, C].

        Raises:
            DataError: a label is not one of the classes, or an example has several or none, but the
                classifier gives each one label.
        """
        if not self.multi_label:
            return numbers_of(map(_only_label, answers), self.classes, "label")
        sets = [_label_set(answer) for answer in answers]
        rows = np.repeat(np.arange(len(sets)), [len(labels) for labels in sets])
        targets = np.zeros((len(sets), len(self.classes)), bool)
        given = [label for labels in sets for label in labels]
        targets[rows, numbers_of(given, self.classes, "label")] = True
        return targets

    def answer_column(self) -> Column:  # noqa: D102
        if self.multi_label:
            return Column("sequences", features=len(self.classes), booleans=True)
        return Column("sequences", below=len(self.classes))

    def sizes(self) -> dict[str, int]:  # noqa: D102
        inputs = self.input_sizes()
        return {"num_classes": len(self.classes), "multi_label": self.multi_label, **inputs}

    def describe(self) -> str:  # noqa: D102
        what = "labels, several for each example" if self.multi_label else "classes"
        return f"{len(self.classes)} {what}, {self.describe_inputs()}"

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        return {**super().entries(), "num_classes": self.classes}

    def adapted(self, start: Any, vocabulary: str) -> ClassifierCodec:  # noqa: D102
        classes = self.classes
        if isinstance(start, ClassifierCodec):
            classes = _adapted_answers(self.classes, start.classes, vocabulary, "label")
        inputs = self.adapted_inputs(start, vocabulary)
        return ClassifierCodec(classes, **inputs, multi_label=self.multi_label)

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        several = {"multi_label": True} if self.multi_label else {}
        return {"classes": list(self.classes), **several, **self.inputs_to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassifierCodec:
        """Make the codec that `to_dict` described; see `Codec.from_dict`."""
        description, inputs = schema.convert(data, _OfClassifier), cls.inputs_from_dict(data)
        multi_label = description.get("multi_label", False)
        check_names("classes", description["classes"], minimum=1 if multi_label else 2)
        return cls(tuple(description["classes"]), **inputs, multi_label=multi_label)


def _label_set(answer: str | tuple[str, ...]) -> frozenset[str]:
    """The labels of an example, of which it has one if they are no tuple."""
    return frozenset(answer if isinstance(answer, tuple) else [answer])


def _only_label(answer: str | tuple[str, ...]) -> str:
    """The label of an example, which must have one."""
    labels = sorted(_label_set(answer))
    if len(labels) != 1:
        found = f"the labels {', '.join(map(repr, labels))}" if labels else "no label"
        raise DataError(f"an example has {found}, but the classifier gives each one label")
    return labels[0]


class _OfRegressor(TypedDict):
    targets: list[str]
    target_mean: list[float]
    target_scale: list[float]


@dataclass(frozen=True)
class RegressorCodec(SequenceCodec):
    """What the numbers of a regressor of texts or of series mean.

    The model's own numbers are standardised: the target less its mean, over its deviation, those of
    the training.

    Attributes:
        targets: The names of the O numbers that are predicted.
        target_mean: [O] in their units.
        target_scale: [O] their standard deviations.
        tokenizer: Of texts; None for series.
        mean: Of each channel of series, by which they are standardised; None for texts.
        scale: The standard deviation of each channel.

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
        """The codec of examples to train on.

        Args:
            training: Texts, or series [T, I], each with its O numbers; at least one.
            held_out: Others, of which nothing is taken.
            targets: The names of the numbers.
            fit_tokenizer: Makes the tokenizer of texts.
            max_frames: About how many frames series are cut into, see `Frames`; 0 for none.

        Raises:
            DataError: a target is the same in all examples, so that there is nothing to learn; or
                its squares overflow.
        """
        numbers = np.array([answer for _, answer in training], np.float64)
        mean, scale = moments(numbers, "target")
        for name, column in zip(targets, numbers.T, strict=True):
            if column.min() == column.max():
                raise DataError(
                    f"all examples have the same {name}, {column[0]:g}, so there is nothing to "
                    "learn; give examples whose targets differ"
                )
        inputs = [example for example, _ in training]
        read = cls.fit_inputs(inputs, fit_tokenizer, max_frames)
        return cls(tuple(targets), mean, scale, **read)

    def encode_answers(self, answers: Sequence[Any]) -> Array:
        """Targets [N, O] in their units as the model's numbers.

        Raises:
            DataError: a target is so far from the mean that no float32 can hold it.
        """
        numbers = np.array(answers, np.float64).reshape(-1, len(self.targets))
        scaled: Array = (numbers - self.target_mean) / self.target_scale
        for n, k in np.argwhere(~(np.abs(scaled) <= np.finfo(np.float32).max))[:1]:
            raise DataError(
                f"the {self.targets[k]} {numbers[n, k]:g} is one that no float32 can hold when "
                f"standardised by the mean {self.target_mean[k]:g} and the deviation "
                f"{self.target_scale[k]:g} of the training; correct it or remove the example"
            )
        return scaled

    def decode(self, numbers: Any) -> Array:
        """Numbers of the model [..., O] in the units of the targets, in float64."""
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
        of = start if known and vocabulary != "new" else self  # whose units its output has
        return RegressorCodec(self.targets, of.target_mean, of.target_scale, **inputs)

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        return {
            "targets": list(self.targets),
            "target_mean": self.target_mean.tolist(),
            "target_scale": self.target_scale.tolist(),
            **self.inputs_to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RegressorCodec:
        """Make the codec that `to_dict` described; see `Codec.from_dict`."""
        description = schema.convert(data, _OfRegressor)
        check_names("targets", description["targets"], minimum=1)
        mean, scale = checked_moments(description, "target_mean", "target_scale", "target")
        if len(mean) != len(description["targets"]):
            raise ValueError(
                f"target_mean has {len(mean)} numbers; expected one for each of the "
                f"{len(description['targets'])} targets"
            )
        return cls(tuple(description["targets"]), mean, scale, **cls.inputs_from_dict(data))


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


def _as_floats(array: Array, dtype: str) -> Array:
    """Floats in a precision; ids and classes as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array


def span_scheme(sentences: Iterable[Sequence[str]]) -> str | None:
    """How tags mark spans, such as names of persons: with which letter before their type.

    "BIO" (also called IOB2) where most spans begin with B, "IOB1" where B only stands between
    spans side by side, "BIOES" where spans end with E and those of one word have S.

    Args:
        sentences: The tags of each sentence.

    Returns:
        The scheme; None where tags mark no spans, or otherwise.

    >>> span_scheme([["B-PER", "I-PER", "O"]]), span_scheme([["I-PER", "O"]])
    ('BIO', 'IOB1')
    >>> span_scheme([["B-PER", "E-PER", "S-LOC"]]), span_scheme([["NOUN", "VERB"]])
    ('BIOES', None)
    """
    sentences = list(sentences)
    tags = {tag for of_sentence in sentences for tag in of_sentence} - {"O"}
    letters = {tag[:1] for tag in tags}
    if not tags or not letters <= set("BIES") or any(tag[1:2] != "-" for tag in tags):
        return None
    if letters & set("ES"):
        return "BIOES"
    first = Counter(
        tag[0]
        for of_sentence in sentences
        for before, tag in zip(["O", *of_sentence], of_sentence, strict=False)
        if before == "O" != tag
    )
    return "BIO" if first["B"] >= first["I"] else "IOB1"


class _OfTagger(TypedDict):
    words: list[str]
    lowercase: bool
    characters: dict[str, Any]
    tags: list[str]
    scheme: str | None


@dataclass(frozen=True)
class TaggerCodec(Codec):
    """What the numbers of a tagger mean.

    Attributes:
        words: The words that it knows, the most frequent first; their ids begin at 1, as 0 is any
            other word.
        lowercase: Whether words are looked up in lower case.
        characters: Of the spelling, whose case stays.
        tags: The tags, sorted.
        scheme: How they mark spans, such as "BIO"; see `span_scheme`.

    >>> codec = TaggerCodec(("yes", "no"), True, CharacterTokenizer.fit("yes"), ("X",))
    >>> codec.encode_words(["No", "doubt"]).tolist()
    [2, 0]
    """

    words: tuple[str, ...]
    lowercase: bool
    characters: Tokenizer
    tags: tuple[str, ...]
    scheme: str | None = None

    counted = "words"

    def __post_init__(self) -> None:
        ids = {word: id for id, word in enumerate(self.words, start=UNKNOWN_WORD + 1)}
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def fit(
        cls,
        training: Sequence[tuple[Sequence[str], Sequence[str]]],
        held_out: Sequence[tuple[Sequence[str], Sequence[str]]] = (),
        *,
        vocabulary_size: int | None = None,
        minimum_count: int = 1,
        lowercase: bool = False,
    ) -> TaggerCodec:
        """The codec of sentences with tags: words, of those to train on; tags, of all.

        Args:
            training: Words and their tags; at least one sentence.
            held_out: Others.
            vocabulary_size: The maximum number of words, the most frequent ones; None for all.
            minimum_count: The occurrences that a word needs to be kept.
            lowercase: Look words up in lower case.

        Raises:
            DataError: two tags look the same.
        """
        spelled = [word for words, _ in training for word in words]
        counts = Counter(word.lower() if lowercase else word for word in spelled)
        kept = sorted(
            (word for word, count in counts.items() if count >= minimum_count),
            key=lambda word: (-counts[word], word),
        )
        tags = {tag for _, of_words in [*training, *held_out] for tag in of_words}
        check_labels(dict.fromkeys(sorted(tags), "the files"), "tag")
        return cls(
            tuple(kept[:vocabulary_size]),
            lowercase,
            CharacterTokenizer.fit(spelled, minimum_count=2),
            tuple(sorted(tags)),
            span_scheme([of_words for _, of_words in [*training, *held_out]]),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags

    def with_labels_of(self, examples: Sequence[Any]) -> TaggerCodec:  # noqa: D102
        more = sorted({tag for _, of_words in examples for tag in of_words} - set(self.tags))
        return replace(self, tags=(*self.tags, *more))

    def encode_words(self, words: Sequence[str]) -> Array:
        """The ids of words, [T]."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        looked_up = (word.lower() if self.lowercase else word for word in words)
        return np.array([ids.get(word, UNKNOWN_WORD) for word in looked_up], np.int64)

    def encode(self, examples: Sequence[Any]) -> dict[str, Array]:  # noqa: D102
        tags = [tag for _, of_words in examples for tag in of_words]
        words = [word for of_sentence, _ in examples for word in of_sentence]
        return {
            "words": self.encode_words(words),
            "tags": numbers_of(tags, self.tags, "tag"),
            "lengths": np.array([len(of_sentence) for of_sentence, _ in examples]),
            "characters": self.characters.encode("".join(words)),
            "character_lengths": np.array([len(word) for word in words]),
        }

    def columns(self) -> dict[str, Column]:  # noqa: D102
        sizes = self.sizes()
        return {
            "words": Column("words", below=sizes["vocabulary_size"]),
            "tags": Column("words", below=sizes["num_tags"]),
            "lengths": Column("sentences", of="words"),
            "characters": Column("characters", below=sizes["num_characters"]),
            "character_lengths": Column("words", of="characters"),
        }

    def batches(  # noqa: D102
        self, arrays: Mapping[str, Array], batch_size: int, dtype: str
    ) -> SequenceBatches:
        ends = np.cumsum(arrays["lengths"])
        letters = np.split(arrays["characters"], np.cumsum(arrays["character_lengths"])[:-1])
        return SequenceBatches(
            np.split(arrays["words"], ends[:-1]),
            np.split(arrays["tags"], ends[:-1]),
            batch_size,
            per_step=True,
            characters=[
                letters[end - length : end]
                for end, length in zip(ends, arrays["lengths"], strict=True)
            ],
        )

    def input_batch(self, sentences: Sequence[Sequence[str]]) -> Any:
        """One batch of sentences in the order given; its targets mean nothing."""
        characters = [[self.characters.encode(word) for word in words] for words in sentences]
        return side_by_side([self.encode_words(words) for words in sentences], characters)

    def counts(self, arrays: Mapping[str, Array]) -> int:  # noqa: D102
        return len(arrays["tags"])

    def sizes(self) -> dict[str, int]:  # noqa: D102
        return {
            "num_tags": len(self.tags),
            "vocabulary_size": len(self.words) + 1,
            "num_characters": self.characters.vocabulary_size,
        }

    def describe(self) -> str:  # noqa: D102
        return f"{len(self.tags)} tags, a vocabulary of {len(self.words):,}"

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        return {
            "vocabulary_size": (UNKNOWN, *self.words),
            "num_characters": self.characters.tokens_by_id(),
            "num_tags": self.tags,
        }

    def options(self) -> dict[str, Any]:  # noqa: D102
        return {"lowercase": self.lowercase}

    def adapted(self, start: Any, vocabulary: str) -> TaggerCodec:  # noqa: D102
        if isinstance(start, TaggerCodec):
            characters = self.characters.adapted(start.characters, vocabulary)
            tags = _adapted_answers(self.tags, start.tags, vocabulary, "tag")
            words = start.words
        elif isinstance(start, WordTokenizer):
            characters, tags = self.characters, self.tags
            words = tuple(w for w in start.tokens_by_id() if w != UNKNOWN and not w.isspace())
        else:
            raise DataError(
                "a tagger reads words; the model to begin with reads at level "
                f"{getattr(start, 'level', None)!r}"
            )
        if vocabulary == "new":
            words = self.words
        elif vocabulary == "extend":
            words = tuple(dict.fromkeys([*words, *self.words]))
        return TaggerCodec(words, self.lowercase, characters, tags)

    def unknown_tokens(self, input: Any) -> Counter[str]:  # noqa: D102
        self.characters.encode("".join(input))
        known = self.encode_words(input) != UNKNOWN_WORD
        return Counter(word for word, is_known in zip(input, known, strict=True) if not is_known)

    def unknown_share(  # noqa: D102
        self, examples: Sequence[Any], arrays: Mapping[str, Array]
    ) -> UnknownShare:
        unknown = self.unknown_tokens([word for words, _ in examples for word in words])
        return UnknownShare(unknown, unknown.total(), len(arrays["words"]))

    def knows(self, token: str) -> bool:  # noqa: D102
        return not self.unknown_tokens([token])

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        return {
            "words": list(self.words),
            "lowercase": self.lowercase,
            "characters": self.characters.to_dict(),
            "tags": list(self.tags),
            "scheme": self.scheme,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaggerCodec:
        """Make the codec that `to_dict` described; see `Codec.from_dict`."""
        description = schema.convert(data, _OfTagger)
        check_names("words", description["words"], minimum=0)
        check_names("tags", description["tags"], minimum=1)
        return cls(
            tuple(description["words"]),
            description["lowercase"],
            Tokenizer.from_dict(description["characters"]),
            tuple(description["tags"]),
            description["scheme"],
        )


class PairCodec(dict[str, Tokenizer], Codec):
    """The tokenizers of sentences and their translations, as "source" and "target".

    >>> codec = PairCodec.fit([("a b", "c"), ("b", "d e")])
    >>> codec.sizes()
    {'source_vocabulary_size': 3, 'vocabulary_size': 4, 'end_id': 0}
    """

    counted = "words of the target"
    sides: ClassVar[tuple[str, ...]] = SIDES

    @classmethod
    def fit(
        cls,
        training: Sequence[tuple[str, str]],
        held_out: Sequence[tuple[str, str]] = (),
        *,
        fit_tokenizer: Callable[[Sequence[str]], Tokenizer] = WordTokenizer.fit,
    ) -> PairCodec:
        """The codec of pairs to train on.

        Args:
            training: Sentences and their translations; at least one.
            held_out: Others, of which nothing is taken.
            fit_tokenizer: Makes a tokenizer of lines.
        """
        return cls(
            {
                name: fit_tokenizer([f"{line}\n" for line in lines])
                for name, lines in zip(SIDES, zip(*training, strict=True), strict=True)
            }
        )

    def encode(self, examples: Sequence[Any]) -> dict[str, Array]:  # noqa: D102
        arrays = {}
        for name, lines in zip(SIDES, zip(*examples, strict=True), strict=True):
            ids = []
            for line in lines:
                with located(f"the {name} {_shorten(line)}"):
                    ids.append(self[name].encode(f"{line}\n"))
            arrays[name] = np.concatenate(ids)
        return arrays

    def columns(self) -> dict[str, Column]:  # noqa: D102
        return {name: Column(name, self[name].vocabulary_size) for name in SIDES}

    def batches(  # noqa: D102
        self, arrays: Mapping[str, Array], batch_size: int, dtype: str
    ) -> Batches:
        ends = [self.words(name).start_id for name in SIDES]
        assert ends[1] is not None
        return pair_batches(arrays["source"], arrays["target"], batch_size, ends[1], ends[0])

    def words(self, name: str) -> WordTokenizer:
        """The tokenizer of a side, where that must be one of words.

        Raises:
            DataError: it is another one.
        """
        tokenizer = self[name]
        if not isinstance(tokenizer, WordTokenizer):
            raise DataError(
                f"the tokenizer of the {name} has the level {tokenizer.level!r}; translating "
                "needs 'word'"
            )
        return tokenizer

    def counts(self, arrays: Mapping[str, Array]) -> int:  # noqa: D102
        return len(arrays["target"])

    def sizes(self) -> dict[str, int]:  # noqa: D102
        sizes = {}
        if "source" in self:
            sizes["source_vocabulary_size"] = self["source"].vocabulary_size
        sizes["vocabulary_size"] = self["target"].vocabulary_size
        end = self["target"].start_id
        return sizes if end is None else {**sizes, "end_id": end}

    def describe(self) -> str:  # noqa: D102
        return f"vocabularies of {' and '.join(f'{t.vocabulary_size:,}' for t in self.values())}"

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        names = {"source": "source_vocabulary_size", "target": "vocabulary_size"}
        return {names[side]: tokenizer.tokens_by_id() for side, tokenizer in self.items()}

    def options(self) -> dict[str, Any]:  # noqa: D102
        return self["target"].options()

    def adapted(self, start: Any, vocabulary: str) -> PairCodec:  # noqa: D102
        return type(self)(
            {side: own.adapted(start[side], vocabulary) for side, own in self.items()}
        )

    def unknown_tokens(self, input: Any) -> Counter[str]:  # noqa: D102
        self["source"].encode(f"{input}\n")
        return self["source"].unknown_tokens([f"{input}\n"])

    def unknown_share(  # noqa: D102
        self, examples: Sequence[Any], arrays: Mapping[str, Array]
    ) -> UnknownShare:
        unknown = Counter[str]()
        for name, lines in zip(SIDES, zip(*examples, strict=True), strict=True):
            unknown += self[name].unknown_tokens(f"{line}\n" for line in lines)
        marked = (arrays[name] == self[name].unknown_id for name in SIDES)
        count = sum(int(np.count_nonzero(side)) for side in marked)
        return UnknownShare(unknown, count, sum(len(arrays[name]) for name in SIDES))

    def knows(self, token: str) -> bool:  # noqa: D102
        return any(not side.unknown_tokens([token]) for side in self.values())

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        return {name: tokenizer.to_dict() for name, tokenizer in self.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairCodec:
        """Make the codec that `to_dict` described; see `Codec.from_dict`."""
        if set(data) != set(cls.sides):
            raise ValueError(f"the tokenizers are {sorted(data)}; expected {sorted(cls.sides)}")
        return cls({name: Tokenizer.from_dict(data[name]) for name in cls.sides})


class TargetCodec(PairCodec):
    """The tokenizer of what is written about sources that are no text, as "target".

    >>> TargetCodec({"target": WordTokenizer.fit(["a b"])}).sizes()
    {'vocabulary_size': 3, 'end_id': 0}
    """

    sides = ("target",)


def _adapted_answers(
    answers: tuple[str, ...], old: tuple[str, ...], vocabulary: str, what: str
) -> tuple[str, ...]:
    """The labels or tags of a training that begins with a model: the model's, if they suffice."""
    if vocabulary == "new":
        return answers
    if set(answers) <= set(old):
        return old
    if vocabulary == "keep":
        return answers
    both = sorted({*answers, *old})
    check_labels(dict.fromkeys(both, "the files and the model"), what)
    return tuple(both)


def check_names(field: str, names: Sequence[str], minimum: int) -> None:
    """Refuse the names of a vocabulary that are too few, or of which one appears twice.

    Raises:
        ValueError: they are.

    >>> check_names("tags", ["X", "Y", "X"], minimum=1)
    Traceback (most recent call last):
        ...
    ValueError: tags has 'X' twice; expected each once
    """
    if len(names) < minimum:
        raise ValueError(f"{field} has {len(names)} names; expected at least {minimum}")
    if len(set(names)) < len(names):
        again = next(name for n, name in enumerate(names) if name in names[:n])
        raise ValueError(f"{field} has {again!r} twice; expected each once")


def numbers_of(answers: Iterable[str], known: Sequence[str], what: str) -> Array:
    """The number of each answer among those that training knows.

    Args:
        answers: Labels or tags.
        known: All that there are, in the order of their numbers.
        what: What one of them is called.

    Raises:
        DataError: an answer is not one of them.

    >>> numbers_of(["yes", "no", "yes"], ["no", "yes"], "label").tolist()
    [1, 0, 1]
    """
    numbers = {name: number for number, name in enumerate(known)}
    answers = list(answers)
    if unknown := sorted(set(answers) - set(numbers)):
        more = ", ..." if len(known) > _NAMED else ""
        raise DataError(
            f"the {what} {unknown[0]!r} is not one of the {len(known)} of the training: "
            f"{', '.join(map(repr, known[:_NAMED]))}{more}"
        )
    return np.array([numbers[answer] for answer in answers], np.int64)


def _shorten(line: str) -> str:
    return repr(line if len(line) <= 40 else f"{line[:40]}...")
