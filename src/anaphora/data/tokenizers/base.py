"""The interface of all tokenizers."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError

__all__ = ["VOCABULARIES", "Ids", "Tokenizer"]

Ids = NDArray[np.int64]

VOCABULARIES = ("keep", "extend", "new")
"""What training that starts from a model does with the model's vocabulary."""


class Tokenizer(ABC):
    """Turns text into token ids, 0 to `vocabulary_size - 1`, and back.

    A subclass that sets `level` can be restored by `Tokenizer.from_dict`.

    Attributes:
        level: "char", "word" or "bpe".
        unknown_id: The id of tokens that are not in the vocabulary; None if there is none.
        start_id: The token that precedes a text, so that its first token can be
            predicted too: the end of a sentence at word level, otherwise None.

    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit(["abracadabra"])
    >>> tokenizer.encode("cab")
    array([2, 0, 1])
    >>> tokenizer.decode([2, 0, 1])
    'cab'
    >>> Tokenizer.from_dict(tokenizer.to_dict())
    CharacterTokenizer(5 entries)
    """

    level: ClassVar[str]
    unknown_id: int | None = None
    start_id: int | None = None

    _levels: ClassVar[dict[str, type["Tokenizer"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "level" in cls.__dict__:
            Tokenizer._levels[cls.level] = cls

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocabulary_size:,} entries)"

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """The number of entries, V."""

    def sizes(self) -> dict[str, int]:
        """The arguments of a language model that the vocabulary determines."""
        return {"vocabulary_size": self.vocabulary_size}

    @abstractmethod
    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of a text that comes in chunks, as a `Source` yields it.

        The arrays, joined, are `encode` of the chunks, joined. Characters and words may be
        cut anywhere; byte pairs at line ends, or before a single space between two words.

        Raises:
            DataError: a token is not in the vocabulary, which has no unknown token.
        """

    @abstractmethod
    def tokens_by_id(self) -> list[str]:
        """The distinct token of each id: `<eos>` is a line end, which no word can contain."""

    def entries(self) -> dict[str, Sequence[str]]:
        """The meanings of a language model's ids, by the name of the size that counts them."""
        return {"vocabulary_size": self.tokens_by_id()}

    def options(self) -> dict[str, Any]:
        """How it splits a text into tokens, by the names of training options."""
        names = ("level", "lowercase", "split", "sentence_start")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def extended(self, other: "Tokenizer") -> "Tokenizer":
        """This tokenizer with the additional tokens of another of its kind.

        Raises:
            DataError: it is of another kind, or of one that cannot be extended.
        """
        raise DataError(
            f"a vocabulary of level {self.level!r} cannot be extended; keep it, or use a new one"
        )

    @final
    def adapted(self, start: Any, vocabulary: str) -> "Tokenizer":
        """The tokenizer for training that starts from a model; self is fitted to the files.

        Args:
            start: The model's tokenizer.
            vocabulary: One of `VOCABULARIES`.

        Raises:
            DataError: the two are of different kinds.
        """
        if type(start) is not type(self):
            raise DataError(
                f"the model to start from has the level {getattr(start, 'level', None)!r}; "
                f"expected {self.level!r}"
            )
        if vocabulary == "new":
            return self
        kept: Tokenizer = start.extended(self) if vocabulary == "extend" else start
        return kept

    def unknown_tokens(self, chunks: Iterable[str]) -> Counter[str]:
        """Count the tokens of a text that are not in the vocabulary, in order of first use.

        The unknown token itself, if a text contains it, does not count. Byte-pair encoding has no
        unknown tokens.

        Args:
            chunks: The text, cut as for `encode_chunks`.
        """
        return Counter()

    def knows(self, token: str) -> bool:
        """Whether the vocabulary has a token."""
        return not self.unknown_tokens([token])

    @property
    def other_levels(self) -> str:
        """Levels with fewer unknown tokens, for advice."""
        return {"word": "bpe or char", "char": "bpe"}.get(self.level, "")

    @abstractmethod
    def decoder(self) -> Callable[[int | None], str]:
        """A function that is called with each id of a text in turn, and finally with None.

        It returns the text that the id completes, which may be empty; the results, joined, are
        `decode` of the ids. The ids must be in the vocabulary.

        >>> from anaphora.data import CharacterTokenizer
        >>> decode = CharacterTokenizer("ab").decoder()
        >>> decode(1), decode(0), decode(None)
        ('b', 'a', '')
        """

    @final
    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text of ids as they arrive; the pieces, joined, are `decode` of the ids.

        Raises:
            DataError: an id is not in the vocabulary.
        """
        decode = self.decoder()
        for id in self._checked(ids):
            if piece := decode(id):
                yield piece
        if piece := decode(None):
            yield piece

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs, for a JSON file."""

    @classmethod
    @abstractmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> "Tokenizer":
        """Implement `from_dict` for the level of this class."""

    @final
    def encode(self, text: str) -> Ids:
        """Return the ids of a text, [N].

        Raises:
            DataError: a token is not in the vocabulary, which has no unknown token.
        """
        return np.concatenate([np.empty(0, np.int64), *self.encode_chunks([text])])

    @final
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids.

        Raises:
            DataError: an id is not in the vocabulary.
        """
        return "".join(self.stream(ids))

    @final
    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Tokenizer":
        """Return the tokenizer that `to_dict` described.

        Raises:
            DataError: `data` is of another kind, or damaged.
        """
        known = ", ".join(Tokenizer._levels)
        if not isinstance(data, Mapping) or "level" not in data:
            raise DataError(f"this is not a tokenizer: it has no entry 'level' (one of {known})")
        level = data["level"]
        if not isinstance(level, str) or level not in Tokenizer._levels:
            raise DataError(
                f"the tokenizer has the level {level!r:.80}, which is unknown to this version; "
                f"expected one of {known}"
            )
        return Tokenizer._levels[level]._from_dict(data)

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        size = self.vocabulary_size
        for id in ids:
            if not 0 <= id < size:
                raise DataError(
                    f"the id {id} is not in the vocabulary, whose ids are 0 to {size - 1}"
                )
            yield int(id)


def described(data: Mapping[str, Any], kind: Any) -> Any:
    """Return the result of `to_dict`, checked; raise `DataError` if it does not match its type."""
    from anaphora import schema  # imported lazily, as only files need it

    try:
        return schema.convert(data, kind)
    except schema.SchemaError as error:
        raise DataError(f"the tokenizer is damaged: {error}") from error


def advise_on_limits(vocabulary_size: int | None, minimum_count: int) -> str:
    """What to do if the limits leave nothing of a text; mentions only limits that are set."""
    advice = []
    if vocabulary_size is not None:
        advice.append(f"raise vocabulary_size ({vocabulary_size})")
    if minimum_count > 1:
        advice.append(f"lower minimum_count ({minimum_count})")
    return ", ".join([*advice, "or give more text"]) if advice else "give more text"
