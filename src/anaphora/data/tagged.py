"""Sentences whose words have tags: files of CoNLL-U, or of two columns."""

import os
import re
from collections.abc import Iterator

from anaphora.data.errors import DataError
from anaphora.data.files import SourceFile
from anaphora.data.labelled import check_labels
from anaphora.data.sources import Source, open_source

__all__ = ["read_conllu"]

# The first column: the number of a word, of several that are written as one (3-4), or of a word
# that is not written (5.1).
NUMBER = re.compile(r"\d+(?P<no_word>[-.]\d+)?")


def read_conllu(
    path: str | os.PathLike[str], column: int = 4, encoding: str = "utf-8"
) -> list[tuple[list[str], list[str]]]:
    r"""Read the words and the tags of each sentence of a CoNLL-U file (Nivre et al. 2020).

    A line is a word with its columns, separated by tabs; a blank line ends a sentence. Column 1 is
    the word's number, 2 the word, 4 its universal part of speech, 5 that of the language. Comments
    (#), words written as one (3-4) and words that are not written (5.1) are left out.

    With ``column=2`` the lines are plain pairs of a word and its tag: the word is column 1, and
    there are neither comments nor numbers.

    Args:
        path: A file, a folder of ``.conllu`` files, or ``-`` for standard input.
        column: The column of the tags, counted from 1.
        encoding: That of the files.

    Returns:
        For each sentence its words and their tags.

    Raises:
        DataError: what `open_source` raises; a line lacks a column, has an empty one or no number;
            there is no sentence; two tags look the same, as `check_labels` says.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "pairs.tsv")
    ...     _ = path.write_text("It\tPRON\nrains\tVERB\n\nYes\tINTJ\n")
    ...     read_conllu(path, column=2)
    [(['It', 'rains'], ['PRON', 'VERB']), (['Yes'], ['INTJ'])]
    """
    if column < 2:
        raise DataError(
            f"column is {column}; tags can be in column 2, of words in column 1, or in a later "
            "one, of CoNLL-U"
        )
    source = open_source(path, pattern="*.conllu", encoding=encoding)
    places: dict[str, str] = {}
    sentences = [one for file in source.files for one in _sentences(file, column, places)]
    if not sentences:
        raise DataError(f"{source.name} has no sentence; give a file with tagged words")
    check_labels(places, "tag")
    return sentences


def _sentences(
    file: SourceFile, column: int, places: dict[str, str]
) -> Iterator[tuple[list[str], list[str]]]:
    """The sentences of one file; a last one needs no blank line behind it. `places` gets the place
    at which each tag is found first.
    """
    numbered = column > 2
    words: list[str] = []
    tags: list[str] = []
    source = Source([file])
    source.by_lines = True
    lines = "".join(source).split("\n")
    for number, line in enumerate([*lines, ""], start=1):
        if not line.strip():
            if words:
                yield words, tags
                words, tags = [], []
            continue
        if numbered and line.startswith("#"):
            continue
        where = f"{file.name}, line {number}"
        fields = line.split("\t")
        if len(fields) < column:
            raise DataError(
                f"{where}: there are {len(fields)} columns, and column {column} was asked for; "
                f"wanted {'CoNLL-U' if numbered else 'a word and its tag'}, separated by tabs"
            )
        if numbered:
            match = NUMBER.fullmatch(fields[0])
            if match is None:
                raise DataError(
                    f"{where}: the first column is {fields[0]!r}; wanted the number of a word, as "
                    "CoNLL-U has it. For lines of a word and its tag, ask for column 2"
                )
            if match["no_word"]:
                continue
        word, tag = fields[1 if numbered else 0], fields[column - 1]
        if not word.strip() or not tag.strip():
            empty = "tag" if word.strip() else "word"
            raise DataError(f"{where}: the {empty} is empty; fix the line")
        places.setdefault(tag, where)
        words.append(word)
        tags.append(tag)
