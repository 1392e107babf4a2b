"""One token per character."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypedDict

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError
from anaphora.data.tokenizers.base import Ids, Tokenizer, advise_on_limits, described
from anaphora.options import check_sizes

__all__ = ["UNKNOWN_CHARACTER", "CharacterTokenizer"]

UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class _Description(TypedDict):
    characters: str


class CharacterTokenizer(Tokenizer):
    r"""Characters (Unicode code points), sorted by code point.

    If the vocabulary has U+FFFD, Unicode's replacement character, it represents all characters that
    are not in the vocabulary.

    Args:
        characters: The vocabulary: distinct characters, sorted.

    Raises:
        DataError: `characters` is empty, or not distinct and sorted.

    >>> tokenizer = CharacterTokenizer.fit(["to be or ", "not to be\n"], minimum_count=2)
    >>> tokenizer.characters
    ' beot\ufffd'
    >>> tokenizer.decode(tokenizer.encode("to eat"))
    'to e\ufffdt'
    """

    level = "char"

    def __init__(self, characters: str) -> None:
        codes = _codes(characters).astype(np.int64)
        if len(codes) == 0 or np.any(np.diff(codes) <= 0):
            raise DataError(
                "a character vocabulary must have at least one character, each once, sorted by "
                f"code point; {_shorten(characters)} is not"
            )
        self.characters = characters
        unknown = characters.find(UNKNOWN_CHARACTER)
        self.unknown_id = None if unknown < 0 else unknown
        # From code point to id; the last entry is for all larger code points.
        self._ids = np.full(codes[-1] + 2, unknown, dtype=np.int64)
        self._ids[codes] = np.arange(len(codes))

    @classmethod
    def fit(
        cls,
        chunks: Iterable[str],
        vocabulary_size: int | None = None,
        minimum_count: int = 1,
    ) -> "CharacterTokenizer":
        """Build the vocabulary of a text.

        The vocabulary has an unknown character, U+FFFD, if `minimum_count` is more than 1, if
        `vocabulary_size` omits characters, or if the text itself contains it.

        Args:
            chunks: The text, cut anywhere.
            vocabulary_size: The maximum number of entries, including the unknown character; the
                most frequent characters are kept, ties broken by the lower code point.
            minimum_count: Omit characters that occur less often than this.

        Raises:
            DataError: the text is empty, or a limit leaves no character.
        """
        return cls.of_counts([cls.count(chunks)], vocabulary_size, minimum_count)

    @staticmethod
    def count(chunks: Iterable[str]) -> NDArray[np.int64]:
        """How often each character occurs in a text, by its code point.

        >>> int(CharacterTokenizer.count(["to be"])[ord("o")])
        1
        """
        return _total(np.bincount(_codes(chunk)) for chunk in chunks)

    @classmethod
    def of_counts(
        cls,
        counts: Iterable[NDArray[np.int64]],
        vocabulary_size: int | None = None,
        minimum_count: int = 1,
    ) -> "CharacterTokenizer":
        """As `fit`, from the results of `count` for the pieces of a text.

        >>> pieces = ["to be ", "or not to be"]
        >>> CharacterTokenizer.of_counts(map(CharacterTokenizer.count, pieces)).characters
        ' benort'
        """
        check_sizes(cls.__name__, vocabulary_size=vocabulary_size, minimum_count=minimum_count)
        counts = _total(counts)
        if not counts.any():
            raise DataError("the text is empty: there is nothing to build a vocabulary from")
        codes = np.flatnonzero(counts >= minimum_count)
        unknown = ord(UNKNOWN_CHARACTER)
        limit = sys.maxsize if vocabulary_size is None else vocabulary_size
        if minimum_count > 1 or len(codes) > limit or unknown in codes:
            codes = codes[codes != unknown]
            most_frequent = np.argsort(-counts[codes], kind="stable")[: limit - 1]
            codes = np.sort(codes[most_frequent])
            if len(codes) == 0:
                raise DataError(
                    "the vocabulary would have no character of the text, only the unknown one: "
                    + advise_on_limits(vocabulary_size, minimum_count)
                )
            codes = np.sort(np.append(codes, unknown))
        return cls("".join(map(chr, codes.tolist())))

    @property
    def vocabulary_size(self) -> int:
        """The number of characters, including the unknown one."""
        return len(self.characters)

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of each chunk; chunks may be cut anywhere.

        Raises:
            DataError: a character is not in the vocabulary, which has no unknown character.
        """
        line = 1
        for chunk in chunks:
            codes = _codes(chunk)
            ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
            if self.unknown_id is None and len(ids) and ids.min() < 0:
                self._refuse(chunk, int(ids.argmin()), line)
            yield ids
            line += chunk.count("\n")

    def unknown_tokens(self, chunks: Iterable[str]) -> Counter[str]:
        """Count the characters of a text that are not in the vocabulary, except U+FFFD.

        >>> CharacterTokenizer.fit("ab\ufffd").unknown_tokens(["aXbY\ufffd", "X"])
        Counter({'X': 2, 'Y': 1})
        """
        unknown: Counter[str] = Counter()
        known = np.zeros(len(self._ids), bool)  # by code point, as `_ids`
        known[_codes(self.characters)] = True
        for chunk in chunks:
            codes = _codes(chunk)
            missing = codes[~known[np.minimum(codes, len(known) - 1)]]
            unknown.update(map(chr, missing.tolist()))
        del unknown[UNKNOWN_CHARACTER]
        return unknown

    def tokens_by_id(self) -> list[str]:
        """The characters."""
        return list(self.characters)

    def extended(self, other: Tokenizer) -> "CharacterTokenizer":
        """The characters of both.

        >>> CharacterTokenizer("ac").extended(CharacterTokenizer("bc")).characters
        'abc'
        """
        return CharacterTokenizer("".join(sorted({*self.characters, *other.tokens_by_id()})))

    def decoder(self) -> Callable[[int | None], str]:
        """A function that returns the character of each id."""

        def decode(id: int | None) -> str:
            return "" if id is None else self.characters[id]

        return decode

    def to_dict(self) -> dict[str, Any]:
        """Return the level and the characters."""
        return {"level": self.level, "characters": self.characters}

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> "CharacterTokenizer":
        return cls(described(data, _Description)["characters"])

    def _refuse(self, chunk: str, position: int, first_line: int) -> NoReturn:
        """Say which character is unknown and where; the chunk begins at line `first_line`."""
        line = first_line + chunk.count("\n", 0, position)
        column = position - chunk.rfind("\n", 0, position)
        place = f"column {column:,}"
        if line > 1 or "\n" in chunk:
            place = f"line {line:,}, {place}"
        character = chunk[position]
        raise DataError(
            f"the character {character!r} (U+{ord(character):04X}) at {place} of the text is not "
            f"in the vocabulary of {self.vocabulary_size:,} characters, which has no unknown "
            "character; remove it from this text, or train again with a minimum_count of 2, so "
            "that rare characters share an unknown one"
        )


def _codes(text: str) -> NDArray[np.uint32]:
    """Return the code points of the text, [N]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _total(counts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum of counts by code point, each up to its highest one."""
    total = np.zeros(0, dtype=np.int64)
    for more in counts:
        if len(more) > len(total):
            total, more = more.copy(), total
        total[: len(more)] += more
    return total


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
