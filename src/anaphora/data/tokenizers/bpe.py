"""One token per frequent sequence of bytes (byte-pair encoding), by the library `tokenizers`."""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from anaphora.data.errors import DataError
from anaphora.data.tokenizers.base import Ids, Tokenizer, described

if TYPE_CHECKING:
    import tokenizers

__all__ = ["BPETokenizer"]


class BPETokenizer(Tokenizer):
    r"""Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: Radford et al. 2019).

    Every text can be encoded, and decoding restores it exactly. Text is split after each line end,
    then by GPT-2's regular expression into words with the space before them; pairs are merged only
    within these pieces, so that lines can be encoded one by one. Needs the extra `bpe`.

    Special tokens of the library, such as `<|endoftext|>`, are treated as ordinary text.

    Args:
        model: The tokenizer of the library, with a byte-level alphabet.

    >>> tokenizer = BPETokenizer.fit(["low lower lowest\n"] * 9, vocabulary_size=260)
    >>> tokenizer.decode(tokenizer.encode("slowest ☃"))
    'slowest ☃'
    """

    level = "bpe"

    def __init__(self, model: "tokenizers.Tokenizer") -> None:
        self._model = model
        self._model.encode_special_tokens = True  # as ordinary text
        vocabulary = model.get_vocab()
        byte = {character: byte for byte, character in enumerate(_byte_alphabet())}
        try:
            tokens = {id: bytes(byte[c] for c in token) for token, id in vocabulary.items()}
            self._bytes = [tokens[id] for id in range(len(vocabulary))]
        except KeyError as error:
            raise DataError(
                f"the tokenizer is damaged, or not byte-level: its {len(vocabulary):,} entries are "
                f"not byte sequences numbered from 0 without gaps (at {error})"
            ) from None

    @classmethod
    def fit(cls, chunks: Iterable[str], vocabulary_size: int) -> "BPETokenizer":
        """Learn the merges of a text.

        Args:
            chunks: The text, cut at line ends.
            vocabulary_size: The maximum number of entries, at least 256 for the single bytes; a
                short text gives fewer.

        Raises:
            DataError: the extra `bpe` is not installed, the text is empty, or `vocabulary_size` is
                too small.
        """
        library = require_tokenizers()
        if vocabulary_size < 256:
            raise DataError(
                f"vocabulary_size is {vocabulary_size}; byte-pair encoding needs at least 256, one "
                "for each byte, and some thousands to be useful"
            )
        model = _untrained()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary_size, initial_alphabet=list(_byte_alphabet()), show_progress=False
        )
        read_any = False

        def checked() -> Iterator[str]:
            nonlocal read_any
            for chunk in chunks:
                _check_unicode(chunk)
                read_any = read_any or bool(chunk)
                yield chunk

        model.train_from_iterator(checked(), trainer)
        if not read_any:
            raise DataError("the text is empty: there is nothing to build a vocabulary from")
        return cls(model)

    @property
    def vocabulary_size(self) -> int:
        """The number of byte sequences."""
        return len(self._bytes)

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[Ids]:
        """Yield the ids of each chunk; chunks are cut at line ends, or before a single space.

        Raises:
            DataError: the text is not valid Unicode.
        """
        for chunk in chunks:
            _check_unicode(chunk)
            yield np.array(self._model.encode(chunk, add_special_tokens=False).ids, dtype=np.int64)

    def tokens_by_id(self) -> list[str]:
        """The library's names of the byte sequences."""
        ids: dict[str, int] = self._model.get_vocab()
        return sorted(ids, key=ids.__getitem__)

    def decoder(self) -> Callable[[int | None], str]:
        """A function that returns text as soon as its bytes are complete characters.

        Bytes that are not UTF-8 become U+FFFD.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def decode(id: int | None) -> str:
            return decoder.decode(b"" if id is None else self._bytes[id], final=id is None)

        return decode

    def token_bytes(self, id: int) -> bytes:
        r"""The bytes of a token, which may be a part of a character.

        >>> BPETokenizer.fit(["a\n"], vocabulary_size=256).token_bytes(0)
        b'!'
        """
        return self._bytes[id]

    def to_dict(self) -> dict[str, Any]:
        """Return the level and the library's own description."""
        return {"level": self.level, "model": json.loads(self._model.to_str())}

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> "BPETokenizer":
        library = require_tokenizers()
        checked = described(data, _Description)["model"]
        _check_settings(data["model"], json.loads(_untrained().to_str()), "model")
        vocabulary, merges = checked["model"]["vocab"], checked["model"]["merges"]
        for byte, character in enumerate(_byte_alphabet()):
            if character not in vocabulary:
                raise DataError(
                    f"the tokenizer is damaged: model.model.vocab has no {character!r}, which "
                    f"represents the byte {byte}"
                )
        for number, merge in enumerate(merges):
            pair = merge.split(" ") if isinstance(merge, str) else merge
            if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
                raise DataError(
                    f"the tokenizer is damaged: model.model.merges[{number}] is {merge!r}; "
                    "expected two entries of the vocabulary whose concatenation is a third"
                )
        try:
            model = library.Tokenizer.from_str(json.dumps(data["model"]))
        except Exception as error:  # the library raises no narrower one
            raise DataError(
                f"the tokenizer is damaged; the tokenizers library says: {error}"
            ) from error
        return cls(model)


class _Model(TypedDict):
    vocab: dict[str, int]
    merges: list[str | list[str]]  # "a b", as the library wrote them before 0.20, or ["a", "b"]


class _Settings(TypedDict):
    model: _Model


class _Description(TypedDict):
    model: _Settings


def _untrained() -> Any:
    """The library's tokenizer with our settings, and no vocabulary yet."""
    library = require_tokenizers()
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Split("\n", "merged_with_previous"),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    model.decoder = library.decoders.ByteLevel()
    return model


def _check_settings(found: Any, expected: Any, place: str) -> None:
    """Refuse settings of the library that are not ours: a file must not bring its own regular
    expressions, normalizers, truncation or dropout. Versions of the library differ in which unset
    fields they write.
    """
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected} - {"vocab", "merges"}):
            _check_settings(found.get(name), expected.get(name), f"{place}.{name}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            _check_settings(one, other, f"{place}[{number}]")
    elif found != expected and (found or expected):
        shown = "an object" if isinstance(found, dict) else repr(found)
        required = "an object" if isinstance(expected, dict) else repr(expected)
        raise DataError(
            f"the tokenizer is not one of anaphora's: {place} is {shown:.80}; expected {required}"
        )


def require_tokenizers() -> Any:
    """The library `tokenizers`.

    Raises:
        DataError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(
            "byte-pair encoding needs the tokenizers library; install it: "
            'pip install "anaphora[bpe]"'
        ) from error
    return tokenizers


def _byte_alphabet() -> str:
    """Return GPT-2's 256 printable characters that represent the bytes 0 to 255."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text has {text[error.start]!r} at character {error.start:,}, a lone surrogate "
            "or a byte that was not UTF-8; remove it"
        ) from None
