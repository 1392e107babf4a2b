"""One token per word, and one per line end."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict, get_args

import numpy as np

from anaphora.data.errors import DataError
from anaphora.data.tokenizers.base import Ids, Tokenizer, advise_on_limits, described
from anaphora.options import check_sizes

__all__ = ["UNKNOWN", "Split", "WordTokenizer", "is_tokenized", "split_words"]

UNKNOWN = "<unk>"

# The marks among the words of a text: white space, which cannot occur in a word. They are only
# displayed as `<eos>` and `<bos>`; in a text, these are words like any other.
_END = "\n"
_START = "\r"
_SHOWN = {_END: "<eos>", _START: "<bos>"}

Split = Literal["whitespace", "punctuation"]

# <unk>; or letters and digits, with single apostrophes and hyphens inside; or any other single
# character.
PUNCTUATION = re.compile(r"<unk>|\w+(?:['’-]\w+)*|[^\w\s]")

_NO_BREAK_SPACES = "\u00a0\u2007\u202f"
_WORD = re.compile(rf"[\S{_NO_BREAK_SPACES}]+")


def split_words(line: str) -> list[str]:
    r"""The words of a line, separated by white space other than no-break spaces.

    U+00A0, U+2007 and U+202F join a word, such as the number 10 000 in French; all other Unicode
    white space separates words.

    >>> split_words("about 10\u00a0000 \t dogs\u3000here\n")
    ['about', '10\xa0000', 'dogs', 'here']
    """
    if any(space in line for space in _NO_BREAK_SPACES):
        return _WORD.findall(line)
    return line.split()


_MARKS = ".,;:!?"


def is_tokenized(lines: Iterable[str]) -> bool:
    """Whether the punctuation of a text is separated from its words.

    It is if there are at least as many marks (``.,;:!?``) between white space as at the ends of
    words, where abbreviations put some in any text. A text without marks counts as tokenized.

    >>> is_tokenized(["yes , it rains ."]), is_tokenized(["Yes, it rains."])
    (True, False)
    """
    apart = attached = 0
    for line in lines:
        for word in split_words(line):
            if word[-1] in _MARKS:
                apart += len(word) == 1
                attached += word[-2:-1].isalnum()
    return apart >= attached


class _Description(TypedDict):
    words: list[str]
    lowercase: bool
    split: str
    sentence_start: bool
    start_id: NotRequired[int | None]  # older files have no ids, but each mark once
    sentence_start_id: NotRequired[int | None]


class WordTokenizer(Tokenizer):
    r"""Words, with `<eos>` at the end of each line; the vocabulary in descending frequency.

    A line is a sentence. Every line end is one `<eos>`, and so is the end of a text whose last line
    has none; a blank line is a single `<eos>`, as in the published results on WikiText. Decoding
    puts spaces between words and a line end for `<eos>`, so it restores the text except for white
    space (and case, with `lowercase`).

    `<eos>` and `<bos>` come only from line ends: written in a text they are words like any other,
    distinct from these marks in the vocabulary. `<unk>` represents words that are not in the
    vocabulary, and also itself: Penn Treebank and WikiText contain it in place of rare words, and
    published perplexities count it as the unknown word.

    Split "whitespace" leaves words as they are, for text that is already tokenized (Penn Treebank,
    WikiText); see `split_words`. "punctuation" separates words and punctuation by the regular
    expression

        <unk>|\w+(?:['’-]\w+)*|[^\w\s]

    that is: `<unk>` is not split, apostrophes and hyphens within a word stay in it, and any other
    character is a token. That includes combining marks, so normalize accents to their composed form
    (NFC) first, and use "whitespace" for scripts that write vowels as marks.

    Args:
        words: The vocabulary, in the order of the ids: each word once, and the marks `<eos>` and,
            with `sentence_start`, `<bos>`.
        lowercase: Whether text is lower-cased first.
        split: What separates words.
        sentence_start: Whether each line begins with `<bos>`.
        start_id: The id of the mark `<eos>`; None if the vocabulary has only one `<eos>`.
        sentence_start_id: The id of the mark `<bos>`; None if it has only one `<bos>`, or if
            lines do not begin with it.

    Raises:
        DataError: the vocabulary does not match that description.

    >>> tokenizer = WordTokenizer.fit(["the cat saw\n", "the dog\n"])
    >>> tokenizer.words
    ('<eos>', 'the', 'cat', 'dog', 'saw')
    >>> tokenizer.encode("the dog saw\nthe cat")
    array([1, 3, 4, 0, 1, 2, 0])
    >>> tokenizer.decode([1, 3, 4, 0, 1, 2, 0])
    'the dog saw\nthe cat\n'
    """

    level = "word"

    def __init__(
        self,
        words: Sequence[str],
        lowercase: bool = False,
        split: Split = "whitespace",
        sentence_start: bool = False,
        start_id: int | None = None,
        sentence_start_id: int | None = None,
    ) -> None:
        _check_split(split)
        self.words = tuple(words)
        self.lowercase = lowercase
        self.split = split
        self.sentence_start = sentence_start
        self.start_id = self._mark_id(_END, start_id)
        self.sentence_start_id = (
            self._mark_id(_START, sentence_start_id) if sentence_start else None
        )
        marks = {self.start_id: _END, self.sentence_start_id: _START}
        tokens = [marks.get(id, word) for id, word in enumerate(self.words)]
        self._ids = {token: id for id, token in enumerate(tokens)}
        if len(self._ids) < len(tokens):
            word = next(word for id, word in enumerate(tokens) if self._ids[word] != id)
            raise DataError(f"the word vocabulary has {word!r} more than once: it is damaged")
        self.unknown_id = self._ids.get(UNKNOWN)

    def _mark_id(self, mark: str, given: int | None) -> int:
        """The id of a mark: the given one, or that of the only word that looks like it."""
        shown = _SHOWN[mark]
        if given is not None:
            if not 0 <= given < len(self.words) or self.words[given] != shown:
                raise DataError(f"the word vocabulary is damaged: its id {given} is not {shown}")
            return given
        found = [id for id, word in enumerate(self.words) if word == shown]
        if not found:
            raise DataError(
                f"the word vocabulary has no {shown}: it is damaged, or from another program"
            )
        if len(found) > 1:
            raise DataError(
                f"the word vocabulary has {shown!r} more than once: give the id of the mark, or "
                "restore the file if it is damaged"
            )
        return found[0]

    @classmethod
    def fit(
        cls,
        chunks: Iterable[str],
        vocabulary_size: int | None = None,
        minimum_count: int = 1,
        lowercase: bool = False,
        split: Split = "whitespace",
        sentence_start: bool = False,
    ) -> "WordTokenizer":
        """Build the vocabulary of a text.

        Words are sorted by descending frequency, ties alphabetically. The vocabulary has
        `<unk>` if `minimum_count` is more than 1, if `vocabulary_size` omits words, or if the
        text itself contains it. Its frequency is that of the words that it represents.

        Args:
            chunks: The text, cut anywhere.
            vocabulary_size: The maximum number of entries, including `<eos>`, `<unk>` and `<bos>`.
            minimum_count: Omit words that occur less often than this.
            lowercase: Lower-case the text first.
            split: What separates words: "whitespace" or "punctuation".
            sentence_start: Begin each line with `<bos>`.

        Raises:
            DataError: the text has no word, or the limits leave none.
        """
        counts = cls.count(chunks, lowercase, split, sentence_start)
        return cls.of_counts(
            [counts], vocabulary_size, minimum_count, lowercase, split, sentence_start
        )

    @staticmethod
    def count(
        chunks: Iterable[str],
        lowercase: bool = False,
        split: Split = "whitespace",
        sentence_start: bool = False,
    ) -> Counter[str]:
        r"""How often each word and mark occurs in a text, which consists of entire lines.

        >>> WordTokenizer.count(["to be or ", "not to be\n"]).most_common(2)
        [('to', 2), ('be', 2)]
        """
        _check_split(split)
        counts: Counter[str] = Counter()
        for tokens in _tokens(chunks, lowercase, split, sentence_start):
            counts.update(tokens)
        return counts

    @classmethod
    def of_counts(
        cls,
        counted: Iterable[Counter[str]],
        vocabulary_size: int | None = None,
        minimum_count: int = 1,
        lowercase: bool = False,
        split: Split = "whitespace",
        sentence_start: bool = False,
    ) -> "WordTokenizer":
        r"""As `fit`, from the results of `count` for the pieces of a text, each of entire lines.

        >>> pieces = ["to be\n", "or not\nto be\n"]
        >>> WordTokenizer.of_counts(map(WordTokenizer.count, pieces)).words
        ('<eos>', 'be', 'to', 'not', 'or')
        """
        check_sizes(cls.__name__, vocabulary_size=vocabulary_size, minimum_count=minimum_count)
        _check_split(split)
        counts: Counter[str] = Counter()
        for more in counted:
            counts.update(more)
        if not counts:
            raise DataError("the text is empty: there is nothing to build a vocabulary from")

        def rank(word: str) -> tuple[int, str, str]:
            return -counts[word], _SHOWN.get(word, word), word

        special = [_END, _START] if sentence_start else [_END]
        words = {word for word in counts if counts[word] >= minimum_count}.difference(special)
        limit = sys.maxsize if vocabulary_size is None else vocabulary_size
        if minimum_count > 1 or len(words) + len(special) > limit or UNKNOWN in words:
            words.discard(UNKNOWN)
            special.append(UNKNOWN)
        kept = sorted(words, key=rank)[: max(0, limit - len(special))]
        if not kept:
            raise DataError(
                "the vocabulary would have no word of the text, only "
                f"{', '.join(_SHOWN.get(word, word) for word in special)}: "
                + advise_on_limits(vocabulary_size, minimum_count)
            )
        if UNKNOWN in special:
            others = [word for word in special if word != UNKNOWN]
            counts[UNKNOWN] = counts.total() - sum(counts[word] for word in [*others, *kept])
        tokens = sorted([*special, *kept], key=rank)
        return cls(
            [_SHOWN.get(token, token) for token in tokens],
            lowercase,
            split,
            sentence_start,
            start_id=tokens.index(_END),
            sentence_start_id=tokens.index(_START) if sentence_start else None,
        )

    @property
    def vocabulary_size(self) -> int:
        """The number of words, including `<eos>` and other marks."""
        return len(self.words)

    def tokens(self, line: str) -> list[str]:
        """The words of a line as written, including those that are not in the vocabulary.

        >>> WordTokenizer.fit("a b", lowercase=True, split="punctuation").tokens("A B, C")
        ['A', 'B', ',', 'C']
        """
        return _words(line, self.split)

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of a text that comes in chunks, which may be cut anywhere.

        Raises:
            DataError: a word is not in the vocabulary, which has no `<unk>`.
        """
        line = 1
        for tokens in _tokens(chunks, self.lowercase, self.split, self.sentence_start):
            if self.unknown_id is None:
                for position, token in enumerate(tokens):
                    if token not in self._ids:
                        several = line > 1 or tokens.count(_END) > 1
                        line += tokens[:position].count(_END)
                        place = f" at line {line:,} of the text" if several else ""
                        raise DataError(
                            f"the word {token!r}{place} is not in the vocabulary of "
                            f"{self.vocabulary_size:,} words, which has no {UNKNOWN}; train again "
                            "with a minimum_count of 2 or a vocabulary_size, so that rare words "
                            f"become {UNKNOWN}"
                        )
                line += tokens.count(_END)
            ids = (self._ids.get(token, self.unknown_id) for token in tokens)
            yield np.fromiter(ids, dtype=np.int64, count=len(tokens))

    def unknown_tokens(self, chunks: Iterable[str]) -> Counter[str]:
        r"""Count the words of a text that become `<unk>`, except those written `<unk>`.

        >>> tokenizer = WordTokenizer.fit(["a a b\n"], minimum_count=2)
        >>> tokenizer.unknown_tokens(["a c <unk>\n", "b c"])
        Counter({'c': 2, 'b': 1})
        """
        unknown: Counter[str] = Counter()
        for tokens in _tokens(chunks, self.lowercase, self.split, self.sentence_start):
            unknown.update(token for token in tokens if token not in self._ids)
        return unknown

    def tokens_by_id(self) -> list[str]:
        """The words, with a line end for `<eos>` and a carriage return for `<bos>`."""
        return list(self._ids)

    def extended(self, other: Tokenizer) -> "WordTokenizer":
        r"""These words, followed by the additional words of the other tokenizer.

        >>> tokenizer = WordTokenizer.fit(["a b\n"])
        >>> tokenizer.extended(WordTokenizer.fit(["c c a\n"])).words
        ('<eos>', 'a', 'b', 'c')
        """
        new = [word for word in other.tokens_by_id() if word not in self._ids | _SHOWN]
        return WordTokenizer(
            [*self.words, *new],
            self.lowercase,
            self.split,
            self.sentence_start,
            self.start_id,
            self.sentence_start_id,
        )

    def decoder(self) -> Callable[[int | None], str]:
        """A function that returns each word, with a space before it within a line, and a line end
        for `<eos>`.
        """
        space = ""

        def decode(id: int | None) -> str:
            nonlocal space
            if id is None or id == self.sentence_start_id:
                return ""
            piece = "\n" if id == self.start_id else space + self.words[id]
            space = "" if id == self.start_id else " "
            return piece

        return decode

    def to_dict(self) -> dict[str, Any]:
        """Return the level, the words, the ids of the marks, and how text is split into words."""
        return {
            "level": self.level,
            "lowercase": self.lowercase,
            "split": self.split,
            "sentence_start": self.sentence_start,
            "start_id": self.start_id,
            "sentence_start_id": self.sentence_start_id,
            "words": list(self.words),
        }

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> "WordTokenizer":
        return cls(**described(data, _Description))


def _check_split(split: str) -> None:
    if split not in get_args(Split):
        raise DataError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")


def _tokens(
    chunks: Iterable[str], lowercase: bool, split: Split, sentence_start: bool
) -> Iterator[list[str]]:
    """Yield the words of the text and the marks among them, in one list per chunk."""

    def words(text: str) -> list[str]:
        return _words(text.lower() if lowercase else text, split)

    begin = [_START] if sentence_start else []
    word = ""  # the last one so far, which the next chunk may continue with
    open_line = False  # whether the last line has begun and not ended
    for chunk in chunks:
        tokens: list[str] = []
        *lines, last = (word + chunk).split("\n")
        for line in lines:
            tokens += [] if open_line else begin
            tokens += words(line)
            tokens.append(_END)
            open_line = False
        text, word = _hold_back_word(last)
        if last and not open_line:
            tokens += begin
            open_line = True
        tokens += words(text)
        yield tokens
    if open_line:
        yield [*words(word), _END]


def _words(text: str, split: Split) -> list[str]:
    return split_words(text) if split == "whitespace" else PUNCTUATION.findall(text)


def _hold_back_word(line: str) -> tuple[str, str]:
    """Split the line before its last word, if it ends with one."""
    start = len(line)
    while start and (not line[start - 1].isspace() or line[start - 1] in _NO_BREAK_SPACES):
        start -= 1
    return line[:start], line[start:]
