"""What every codec has, and what several need."""

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

    >>> from anaphora.data import ClassifierCodec, TaggerCodec
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


def adapted_answers(
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


def shorten(line: str) -> str:
    """A line as messages quote it.

    >>> shorten("It rains." * 9)
    "'It rains.It rains.It rains.It rains.It r...'"
    """
    return repr(line if len(line) <= 40 else f"{line[:40]}...")
