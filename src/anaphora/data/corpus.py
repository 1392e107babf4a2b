"""Token ids in a memory-mapped file, so that a text need not fit in memory."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anaphora.data.errors import DataError
from anaphora.data.tokenizers import Tokenizer

__all__ = ["encode_to_file", "open_ids"]


def encode_to_file(
    chunks: Iterable[str], tokenizer: Tokenizer, path: str | os.PathLike[str]
) -> NDArray[np.unsignedinteger[Any]]:
    """Write the ids of a text to an `.npy` file and return them as a read-only memory map, [N].

    The ids have the smallest unsigned type that holds the vocabulary. Memory use is a few chunks,
    whatever the length of the text. The file is written as `PATH.partial`, and renamed when it is
    complete.

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
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    dtype = np.min_scalar_type(tokenizer.vocabulary_size - 1)
    length = 0
    try:
        partial.unlink(missing_ok=True)  # "x" creates it anew, and follows no link
        with partial.open("xb") as file:
            _write_header(file, dtype, 0)
            start = file.tell()
            for ids in tokenizer.encode_chunks(chunks):
                file.write(ids.astype(dtype).data)
                length += len(ids)
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
        partial.unlink(missing_ok=True)
    return open_ids(path)


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
