"""Vectors of words that were trained elsewhere: those of word2vec, fastText and GloVe, arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anaphora.data.encodings import open_text, uncompressed_name
from anaphora.data.errors import DataError

Vectors = NDArray[np.float32]

_UNKNOWN = ("raise", "normal", "zeros")
_SHOWN = 5  # words that a message names


class WordVectors(NamedTuple):
    """Words and their vectors; `read_vectors` reads them.

    Attributes:
        words: V words, each once.
        vectors: [V, E] float32.

    >>> found = WordVectors(["the", "cat"], np.array([[1, 2], [3, 4]], np.float32))
    >>> found.table(["cat", "the"])
    array([[3., 4.],
           [1., 2.]], dtype=float32)
    """

    words: list[str]
    vectors: Vectors

    def table(
        self,
        vocabulary: Iterable[str],
        unknown: str = "raise",
        generator: np.random.Generator | None = None,
    ) -> Vectors:
        """The vectors of a vocabulary in its order, for `nn.Embedding.from_pretrained`.

        Args:
            vocabulary: The words.
            unknown: What a word without a vector gets: "normal" for random numbers with mean and
                deviation of the vectors that there are, "zeros", or "raise" for an error.
            generator: Of the random numbers; None for one with the seed 0.

        Raises:
            DataError: a word has no vector, and ``unknown`` is "raise"; or no word has one.
            ValueError: ``unknown`` is none of these.
        """
        if unknown not in _UNKNOWN:
            raise ValueError(f"table: unknown {unknown!r} is not one of {', '.join(_UNKNOWN)}")
        wanted = list(vocabulary)
        places = {word: place for place, word in enumerate(self.words)}
        rows = np.array([places.get(word, -1) for word in wanted], np.intp)
        without = [word for word, row in zip(wanted, rows, strict=True) if row < 0]
        if without and (unknown == "raise" or len(without) == len(wanted)):
            shown = ", ".join(map(repr, without[:_SHOWN]))
            more = f" and {len(without) - _SHOWN:,} more" if len(without) > _SHOWN else ""
            raise DataError(
                f"{len(without):,} of {len(wanted):,} words have no vector: {shown}{more}; choose "
                "unknown='normal' or 'zeros' for these, and compare the spelling, such as upper "
                "case, with that of the file"
            )
        table = np.zeros((len(wanted), self.vectors.shape[1]), np.float32)
        table[rows >= 0] = self.vectors[rows[rows >= 0]]
        if unknown == "normal" and without:
            mean, deviation = self.vectors.mean(axis=0), self.vectors.std(axis=0)
            shape = (len(without), self.vectors.shape[1])
            generator = np.random.default_rng(0) if generator is None else generator
            table[rows < 0] = generator.normal(mean, deviation, shape)
        return table


def read_vectors(
    path: str | os.PathLike[str],
    words: Iterable[str] | None = None,
    *,
    encoding: str = "utf-8",
) -> WordVectors:
    r"""Read the vectors of words.

    A text has a word and its numbers in each line, separated by spaces or tabs (``.txt`` of GloVe),
    perhaps after a line with the number of words and of dimensions (``.vec`` of fastText and
    word2vec); it may be compressed (``.gz``). The first of several vectors of a word counts. An
    array (``.npy``, [V, E]) has no words: they are given.

    Args:
        path: The file.
        words: Read only the vectors of these words, which saves memory; for an array, the words of
            its rows, in order.
        encoding: Of the text.

    Raises:
        DataError: the file is missing, empty, cut off or damaged, a number is not finite, or it has
            none of the words; the message names file and line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "small.vec")
    >>> _ = path.write_text("2 3\nthe 1 2 3\ncat 4 5 6\n")
    >>> read_vectors(path).words, read_vectors(path, ["cat", "dog"]).vectors
    (['the', 'cat'], array([[4., 5., 6.]], dtype=float32))
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; the current folder is {Path.cwd()}")
    if path.suffix == ".npy":
        return _of_array(path, words)
    if Path(uncompressed_name(path)).suffix == ".bin":
        raise DataError(
            f"{path}: binary files of word2vec and fastText are not read; take the .vec file, or "
            "save the array with numpy.save"
        )
    return _of_text(path, None if words is None else set(words), encoding)


def _of_array(path: Path, words: Iterable[str] | None) -> WordVectors:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not an array that numpy.save wrote: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{path}: the array is {array.dtype}{array.shape}; expected numbers [V, E]")
    if words is None:
        raise DataError(f"{path}: an array has no words; give those of its rows, words=")
    given = list(words)
    if len(given) != len(array) or len(set(given)) != len(given):
        raise DataError(
            f"{path}: {len(set(given)):,} different words for an array of {len(array):,} vectors; "
            "give one for each, in their order"
        )
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise DataError(f"{path}: the vector of {given[row]!r} is not finite")
    return WordVectors(given, array.astype(np.float32))


def _of_text(path: Path, wanted: set[str] | None, encoding: str) -> WordVectors:
    found: dict[str, Vectors] = {}
    size: int | None = None  # numbers in a line
    announced: int | None = None  # lines, according to the first
    count = 0
    with open_text(path, str(path), encoding) as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip().replace("\t", " ").split(" ")
            if number == 1 and len(fields) == 2 and all(f.isdecimal() for f in fields):
                announced, size = int(fields[0]), int(fields[1])
                continue
            if not line.strip():
                continue
            count += 1
            size = len(fields) - 1 if size is None else size
            if size < 1 or len(fields) <= size:
                raise DataError(
                    f"{path}, line {number}: {len(fields) - 1} numbers after the word; "
                    f"expected {max(size, 1)}"
                )
            word = " ".join(fields[:-size])
            if word in found or (wanted is not None and word not in wanted):
                continue
            found[word] = _numbers(fields[-size:], f"{path}, line {number}")
    if announced is not None and count < announced:
        raise DataError(
            f"{path} has {count:,} vectors, but its first line says {announced:,}: it is cut off"
        )
    if not count:
        raise DataError(f"{path} is empty: there is nothing to read")
    if not found:
        raise DataError(f"{path} has none of the {len(wanted or ()):,} words; compare the spelling")
    return WordVectors(list(found), np.array(list(found.values())))


def _numbers(fields: Sequence[str], place: str) -> Vectors:
    try:
        values = np.array(fields, np.float32)
    except ValueError:
        wrong = next(field for field in fields if not _is_number(field))
        raise DataError(f"{place}: {wrong!r:.60} is not a number") from None
    if not np.isfinite(values).all():
        raise DataError(f"{place}: a number is not finite")
    return values


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
