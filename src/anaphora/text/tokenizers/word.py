"""One token a word, and one an end of line."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from anaphora.text.errors import TextError
from anaphora.text.tokenizers.base import Ids, Tokenizer, advise_on_limits, check_limits, described

__all__ = ["END", "START", "UNKNOWN", "Split", "WordTokenizer"]

END = "<eos>"
START = "<bos>"
UNKNOWN = "<unk>"

Split = Literal["whitespace", "punctuation"]

# <unk>; or letters and digits, with single apostrophes and hyphens inside; or any other single
# character.
PUNCTUATION = re.compile(r"<unk>|\w+(?:['’-]\w+)*|[^\w\s]")


class _Description(TypedDict):
    words: list[str]
    lowercase: bool
    split: str
    sentence_start: bool


class WordTokenizer(Tokenizer):
    r"""Words, with `<eos>` at the end of each line; the vocabulary sorted by falling frequency.

    A line is a sentence. Every line end is one `<eos>`, and so is the end of a text whose last line
    has none; a blank line is an `<eos>` alone, as the published results on WikiText count it.
    `<unk>` stands for words that the vocabulary lacks. Decoding puts spaces between words and a
    line end for `<eos>`, so it gives the text back but for white space (and case, with
    `lowercase`).

    Split "whitespace" leaves words as they are, for text that is tokenized already (Penn Treebank,
    WikiText). "punctuation" splits words from punctuation by the expression

        <unk>|\w+(?:['’-]\w+)*|[^\w\s]

    that is: `<unk>` stays whole, apostrophes and hyphens inside a word stay in it, and each other
    sign is a token. Combining marks count as signs there, so bring accents to their composed form
    (NFC) first, and use "whitespace" for scripts that write vowels as marks.

    Args:
        words: The vocabulary, each word once, `<eos>` among them; in the order of their ids.
        lowercase: Whether text is lower-cased first.
        split: What separates words.
        sentence_start: Whether each line begins with `<bos>`, which must be in the vocabulary then.

    Raises:
        TextError: the vocabulary does not fit that description.

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
    ) -> None:
        _check_split(split)
        self.words = tuple(words)
        self.lowercase = lowercase
        self.split = split
        self.sentence_start = sentence_start
        self._ids = {word: id for id, word in enumerate(self.words)}
        for needed in [END, START] if sentence_start else [END]:
            if needed not in self._ids:
                raise TextError(
                    f"the word vocabulary lacks {needed}: it is damaged, or of another program"
                )
        if len(self._ids) < len(self.words):
            word = next(word for id, word in enumerate(self.words) if self._ids[word] != id)
            raise TextError(f"the word vocabulary has {word!r} more than once: it is damaged")
        self.start_id = self._ids[END]
        self.unknown_id = self._ids.get(UNKNOWN)

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

        Words are sorted by falling frequency, equally frequent ones by alphabet. The vocabulary has
        `<unk>` if `minimum_count` is more than 1, if `vocabulary_size` leaves words out, or if the
        text itself has it. It counts as often as the words that it stands for.

        Args:
            chunks: The text, cut anywhere.
            vocabulary_size: The most entries to keep, `<eos>`, `<unk>` and `<bos>` counted.
            minimum_count: Leave out words that occur less often than this.
            lowercase: Lower-case the text first.
            split: What separates words: "whitespace" or "punctuation".
            sentence_start: Begin each line with `<bos>`.

        Raises:
            TextError: the text has no word, or the limits leave none.
        """
        check_limits(vocabulary_size, minimum_count)
        _check_split(split)
        counts: Counter[str] = Counter()
        for tokens in _tokens(chunks, lowercase, split, sentence_start):
            counts.update(tokens)
        if not counts:
            raise TextError("the text is empty: there is nothing to build a vocabulary from")

        def rank(word: str) -> tuple[int, str]:
            return -counts[word], word

        special = [END, START] if sentence_start else [END]
        words = {word for word in counts if counts[word] >= minimum_count}.difference(special)
        limit = sys.maxsize if vocabulary_size is None else vocabulary_size
        if minimum_count > 1 or len(words) + len(special) > limit or UNKNOWN in words:
            words.discard(UNKNOWN)
            special.append(UNKNOWN)
        kept = sorted(words, key=rank)[: max(0, limit - len(special))]
        if not kept:
            raise TextError(
                f"no word of the text is left in the vocabulary, only {', '.join(special)}: "
                + advise_on_limits(vocabulary_size, minimum_count)
            )
        if UNKNOWN in special:
            others = [word for word in special if word != UNKNOWN]
            counts[UNKNOWN] = counts.total() - sum(counts[word] for word in [*others, *kept])
        return cls(sorted([*special, *kept], key=rank), lowercase, split, sentence_start)

    @property
    def vocabulary_size(self) -> int:
        """The number of words, `<eos>` and the like counted."""
        return len(self.words)

    def tokens(self, line: str) -> list[str]:
        """The words of a line as they stand there, those included that the vocabulary lacks.

        >>> WordTokenizer.fit("a b", lowercase=True, split="punctuation").tokens("A B, C")
        ['A', 'B', ',', 'C']
        """
        return _words(line, self.split)

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of a text that comes in chunks, which may be cut anywhere.

        Raises:
            TextError: a word is not in the vocabulary, and that has no `<unk>`.
        """
        line = 1
        for tokens in _tokens(chunks, self.lowercase, self.split, self.sentence_start):
            if self.unknown_id is None:
                for position, token in enumerate(tokens):
                    if token not in self._ids:
                        line += tokens[:position].count(END)
                        raise TextError(
                            f"the word {token!r} at line {line:,} of the text is not in the "
                            f"vocabulary of {self.vocabulary_size:,} words, which has no "
                            f"{UNKNOWN}; train anew with a minimum_count of 2 or a "
                            f"vocabulary_size, so that rare words become {UNKNOWN}"
                        )
                line += tokens.count(END)
            ids = (self._ids.get(token, self.unknown_id) for token in tokens)
            yield np.fromiter(ids, dtype=np.int64, count=len(tokens))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield each word with the space before it, where it has one, and a line end for `<eos>`.

        Raises:
            TextError: an id is not one of the vocabulary.
        """
        space = ""
        for id in self._checked(ids):
            word = self.words[id]
            if word == END:
                yield "\n"
                space = ""
            elif word != START:
                yield space + word
                space = " "

    def to_dict(self) -> dict[str, Any]:
        """Return the level, the words and how text is split into them."""
        return {
            "level": self.level,
            "lowercase": self.lowercase,
            "split": self.split,
            "sentence_start": self.sentence_start,
            "words": list(self.words),
        }

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> "WordTokenizer":
        return cls(**described(data, _Description))


def _check_split(split: str) -> None:
    if split not in get_args(Split):
        raise TextError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")


def _tokens(
    chunks: Iterable[str], lowercase: bool, split: Split, sentence_start: bool
) -> Iterator[list[str]]:
    """Yield the words of the text, `<eos>` and `<bos>` among them, in lists of about a chunk."""

    def words(text: str) -> list[str]:
        return _words(text.lower() if lowercase else text, split)

    begin = [START] if sentence_start else []
    word = ""  # the last one so far, which the next chunk may go on with
    open_line = False  # whether the last line has begun and not ended
    for chunk in chunks:
        tokens: list[str] = []
        *lines, last = (word + chunk).split("\n")
        for line in lines:
            tokens += [] if open_line else begin
            tokens += words(line)
            tokens.append(END)
            open_line = False
        text, word = _hold_back_word(last)
        if last and not open_line:
            tokens += begin
            open_line = True
        tokens += words(text)
        yield tokens
    if open_line:
        yield [*words(word), END]


def _words(text: str, split: Split) -> list[str]:
    return text.split() if split == "whitespace" else PUNCTUATION.findall(text)


def _hold_back_word(line: str) -> tuple[str, str]:
    """Cut the line before its last word, if it ends with one."""
    if not line or line[-1].isspace():
        return line, ""
    word = line.rsplit(maxsplit=1)[-1]
    return line[: len(line) - len(word)], word
