"""The base class of codecs, and functions that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from anaphora.data.batches import Batches
from anaphora.data.errors import DataError
from anaphora.data.labelled import check_labels

Array = NDArray[Any]

_MAXIMUM_LISTED = 20  # labels or tags in a message


class Column(NamedTuple):
    """The contents of an array of examples: ids, features, or lengths.

    Attributes:
        along: The name of the first axis; arrays with the same name have the same length.
        below: Ids are 0 to ``below - 1``.
        features: The size of a row; None for a vector of integers.
        of: For lengths, the axis that they divide: its length is their sum.
        booleans: Whether the rows are booleans.

    >>> Column("sequences", of="steps").features is None
    True
    """

    along: str
    below: int | None = None
    features: int | None = None
    of: str | None = None
    booleans: bool = False


class UnknownShare(NamedTuple):
    """The tokens of examples that are not in the vocabulary.

    Attributes:
        tokens: The count of each of them.
        unknown: The number of unknown tokens, including those that the text itself marks as
            unknown.
        total: The number of all tokens.

    >>> UnknownShare(Counter(["abc"]), 1, 40).total
    40
    """

    tokens: Counter[str]
    unknown: int
    total: int


class Codec(ABC):
    """Converts examples, pairs of an input and its target, to arrays.

    >>> from anaphora.data import ClassifierCodec, TaggerCodec
    >>> issubclass(ClassifierCodec, Codec), issubclass(TaggerCodec, Codec)
    (True, True)
    """

    level: str = "word"
    """The level of the tokens of its inputs."""

    other_levels: str = ""
    """Levels at which a model would have fewer unknown tokens, for messages."""

    counted: ClassVar[str] = "examples"
    """The unit of `counts`, in the plural."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The arguments of the model that the codec determines."""

    @abstractmethod
    def encode(self, examples: Sequence[Any]) -> dict[str, Array]:
        """Convert examples to arrays for `batches`.

        Raises:
            DataError: a token is not in the vocabulary, which has no unknown token.
        """

    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The contents of the arrays of `encode`, by name."""

    @abstractmethod
    def batches(self, arrays: Mapping[str, Array], batch_size: int, dtype: str) -> Batches:
        """Batches of the arrays of `encode`."""

    @abstractmethod
    def counts(self, arrays: Mapping[str, Array]) -> int:
        """The number of targets in the arrays of `encode`."""

    @abstractmethod
    def describe(self) -> str:
        """A few words about its size."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The codec as plain values, for a JSON file."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a codec from the result of `to_dict`.

        Raises:
            ValueError: the data is damaged; the message names the field.
        """

    def entries(self) -> dict[str, Sequence[str]]:
        """The tokens, classes and tags, in the order of their ids, by the name of their size."""
        return {}

    def options(self) -> dict[str, Any]:
        """The training options that determine its tokens."""
        return {}

    def adapted(self, start: Any, vocabulary: str) -> Any:
        """The codec of a training run that starts from a model; this one is fitted to its files.

        Args:
            start: The model's codec.
            vocabulary: One of `VOCABULARIES`.

        Raises:
            DataError: the model reads another kind of inputs.
        """
        if type(start) is not type(self):
            raise DataError("the model to start from reads another kind of inputs than the files")
        return self if vocabulary == "new" else start

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels or tags, in the order of their ids; () if targets are of another kind."""
        return ()

    def with_labels_of(self, examples: Sequence[Any]) -> Self:
        """The codec with the unknown labels of examples appended.

        It encodes examples for an evaluation, in which the model never predicts these.
        """
        return self

    def unknown_tokens(self, input: Any) -> Counter[str]:
        """Count the tokens of an input that are not in the vocabulary.

        Raises:
            DataError: the input cannot be encoded.
        """
        return Counter()

    def unknown_share(self, examples: Sequence[Any], arrays: Mapping[str, Array]) -> UnknownShare:
        """The unknown tokens of examples, given their arrays from `encode`."""
        return UnknownShare(Counter(), 0, 0)

    def knows(self, token: str) -> bool:
        """Whether the vocabulary has a token."""
        return not self.unknown_tokens(token)


def adapted_answers(
    answers: tuple[str, ...], old: tuple[str, ...], vocabulary: str, what: str
) -> tuple[str, ...]:
    """The labels or tags of a run that starts from a model: the model's, if they suffice."""
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
    """Check the names of a vocabulary.

    Raises:
        ValueError: there are too few, or one appears twice.

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
    """The ids of labels or tags.

    Args:
        answers: Labels or tags.
        known: All labels or tags of the training, in the order of their ids.
        what: "label" or "tag", for messages.

    Raises:
        DataError: an answer is unknown.

    >>> numbers_of(["yes", "no", "yes"], ["no", "yes"], "label").tolist()
    [1, 0, 1]
    """
    numbers = {name: number for number, name in enumerate(known)}
    answers = list(answers)
    if unknown := sorted(set(answers) - set(numbers)):
        more = ", ..." if len(known) > _MAXIMUM_LISTED else ""
        raise DataError(
            f"the {what} {unknown[0]!r} is not one of the {len(known)} {what}s of the training: "
            f"{', '.join(map(repr, known[:_MAXIMUM_LISTED]))}{more}"
        )
    return np.array([numbers[answer] for answer in answers], np.int64)


def shorten(line: str) -> str:
    """A line as quoted in messages.

    >>> shorten("It rains." * 9)
    "'It rains.It rains.It rains.It rains.It r...'"
    """
    return repr(line if len(line) <= 40 else f"{line[:40]}...")
