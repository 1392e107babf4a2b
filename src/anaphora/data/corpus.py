"""Token ids in a memory-mapped file, so that a text need not fit in memory."""

import functools
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError
from anaphora.data.sources import Source
from anaphora.data.tokenizers import Tokenizer
from anaphora.distributed import helpers, spread

__all__ = ["count_id", "encode_to_file", "open_ids"]

_BLOCK = 1 << 22  # ids that are looked at at once


def encode_to_file(
    chunks: Iterable[str], tokenizer: Tokenizer, path: str | os.PathLike[str]
) -> NDArray[np.unsignedinteger[Any]]:
    """Write the ids of a text to an `.npy` file and return them as a read-only memory map, [N].

    The ids have the smallest unsigned type that holds the vocabulary. Memory use is a few chunks,
    whatever the length of the text. The file is written as `PATH.partial`, and renamed when it is
    complete. Processes that help (`anaphora.distributed.helped`) encode pieces of a `Source`, each
    to a file beside this one, which is appended to it.

    Raises:
        DataError: the text has no tokens, or one that is not in the vocabulary.
        OSError: the file cannot be written.

    >>> import tempfile, pathlib
    >>> from anaphora.data import CharacterTokenizer
    >>> text = ["to be or ", "not to be"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "ids.npy")
    ...     ids = encode_to_file(text, CharacterTokenizer.fit(text), path)
    ...     print(ids.dtype, len(ids), ids[:5])
    uint8 18 [6 4 0 1 2]
    """
    path = Path(path).absolute()
    partial = path.with_name(path.name + ".partial")
    dtype = np.min_scalar_type(tokenizer.vocabulary_size - 1)
    sources = chunks.pieces(helpers()) if isinstance(chunks, Source) else []
    pieces = [path.with_name(f"{path.name}.piece{number}") for number in range(len(sources))]
    try:
        partial.unlink(missing_ok=True)  # "x" creates it anew, and follows no link
        with partial.open("xb") as file:
            _write_header(file, dtype, 0)
            start = file.tell()
            if len(sources) > 1:
                work = functools.partial(_encode_piece, tokenizer, dtype)
                try:
                    spread(work, list(zip(sources, pieces, strict=True)))
                except DataError:
                    _write_ids(chunks, tokenizer, dtype, None)  # says where it is in the text
                    raise
                for piece in pieces:
                    _append(file, piece)
            else:
                _write_ids(chunks, tokenizer, dtype, file)
            length = (file.tell() - start) // dtype.itemsize
            if length == 0:
                raise DataError("the text is empty: there are no tokens to write")
            # NumPy leaves room in the header for the first dimension to grow.
            file.seek(0)
            _write_header(file, dtype, length)
            if file.tell() != start:
                raise AssertionError("NumPy's header grew with the length of the array")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        for left in (partial, *pieces):
            left.unlink(missing_ok=True)
    return open_ids(path)


def _write_ids(
    chunks: Iterable[str], tokenizer: Tokenizer, dtype: np.dtype[Any], file: BinaryIO | None
) -> None:
    for ids in tokenizer.encode_chunks(chunks):
        if file is not None:
            file.write(ids.astype(dtype).data)


def _encode_piece(tokenizer: Tokenizer, dtype: np.dtype[Any], work: tuple[Source, Path]) -> None:
    source, path = work
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        _write_ids(source, tokenizer, dtype, file)
        file.flush()
        os.fsync(file.fileno())


def _append(file: BinaryIO, piece: Path) -> None:
    """Move the ids of a piece to the end of a file."""
    try:
        with piece.open("rb") as written:
            shutil.copyfileobj(written, file, 1 << 22)
    except FileNotFoundError as error:
        raise DataError(
            f"{piece}, which another process wrote, cannot be seen by this one: all processes need "
            "the same folder, on a disk that their machines share"
        ) from error
    piece.unlink()


def count_id(ids: NDArray[Any], id: int | None) -> int:
    """How often an id occurs in a text, which is read in blocks; 0 if it is None.

    >>> count_id(np.array([3, 1, 3]), 3)
    2
    """
    if id is None:
        return 0
    starts = range(0, len(ids), _BLOCK)
    return sum(int(np.count_nonzero(ids[start : start + _BLOCK] == id)) for start in starts)


def open_ids(
    path: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    opener: Callable[[str, int], int] | None = None,
) -> NDArray[np.unsignedinteger[Any]]:
    """Return the ids that `encode_to_file` wrote, as a read-only memory map, [N].

    Args:
        path: The file.
        tokenizer: If given, the file is read once to check that all ids are in its vocabulary.
        opener: Opens the file, as the argument of Python's ``open``.

    Raises:
        DataError: the file is missing, damaged, or holds something else.

    >>> open_ids("missing.npy")
    Traceback (most recent call last):
    anaphora.data.errors.DataError: missing.npy cannot be read as token ids: ...
    """
    try:
        with open(path, "rb", opener=opener) as file:
            ids: NDArray[Any] = _mapped(file)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{os.fspath(path)} cannot be read as token ids: {error}; delete it so that it is "
            "created again"
        ) from error
    if ids.ndim != 1 or ids.dtype.kind != "u":
        found = f"{ids.dtype} {ids.shape}"
        raise DataError(
            f"{os.fspath(path)} holds {found}; expected a one-dimensional array of unsigned "
            "integers: it is not a file of token ids"
        )
    if tokenizer is not None and len(ids) and ids.max() >= tokenizer.vocabulary_size:
        raise DataError(
            f"{os.fspath(path)} has the id {ids.max()}; expected ids from 0 to "
            f"{tokenizer.vocabulary_size - 1}, those of the vocabulary; restore the file that was "
            "written with it"
        )
    return ids


def _mapped(file: Any) -> Any:
    """A memory map of an open ``.npy`` file; NumPy's own function takes only a path."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it is not in version 1.0 of NumPy's format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    return np.memmap(file, dtype, "r", file.tell(), shape, "F" if is_fortran else "C")


def _write_header(file: BinaryIO, dtype: np.dtype[Any], length: int) -> None:
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (length,),
        },
    )
