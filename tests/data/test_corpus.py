"""Ids on disk: values, types, bounded memory, and files that are not what they should be."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.data import (
    CharacterTokenizer,
    DataError,
    WordTokenizer,
    encode_to_file,
    open_ids,
    open_source,
)


@given(st.lists(st.text(alphabet="abc \n", max_size=30), min_size=1))
def test_ids_on_disk_are_the_ids(tmp_path_factory, chunks):
    chunks = [*chunks, "\nend"]
    path = tmp_path_factory.mktemp("ids") / "ids.npy"
    for tokenizer in [CharacterTokenizer.fit(chunks), WordTokenizer.fit(chunks)]:
        ids = encode_to_file(iter(chunks), tokenizer, path)
        expected = tokenizer.encode("".join(chunks))
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_array_equal(np.load(path), expected)  # by NumPy itself


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, "u1"), (256, "u1"), (257, "u2"), (65_536, "u2"), (65_537, "u4")]
)
def test_smallest_type(tmp_path, size, dtype):
    alphabet = "".join(map(chr, range(0x10000, 0x10000 + size)))
    tokenizer = CharacterTokenizer(alphabet)
    ids = encode_to_file([alphabet], tokenizer, tmp_path / "ids.npy")
    assert isinstance(ids, np.memmap)
    assert not ids.flags.writeable
    assert ids.dtype == dtype
    assert ids[-1] == size - 1
    assert tokenizer.decode(ids) == alphabet


def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "ids.npy"
    tokenizer = CharacterTokenizer("ab")
    encode_to_file(["abba"], tokenizer, path)
    with pytest.raises(DataError, match="'c'"):
        encode_to_file(["a", "abc"], tokenizer, path)
    with pytest.raises(DataError, match="the text is empty"):
        encode_to_file([""], tokenizer, path)
    assert open_ids(path).tolist() == [0, 1, 1, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["ids.npy"]


def test_memory_stays_bounded(tmp_path):
    line = "how now brown cow, said the fox to the lazy dog, and went on jumping over it\n"
    path = tmp_path / "text.txt"
    with path.open("w") as file:
        for _ in range(1_000):
            file.write(line * (20_000 // len(line)))
    source = open_source(path)
    tracemalloc.start()
    tokenizer = CharacterTokenizer.fit(source)
    ids = encode_to_file(source, tokenizer, tmp_path / "ids.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ids) == path.stat().st_size > 19e6
    assert peak < 10e6


def test_files_that_hold_no_ids(tmp_path):
    path = tmp_path / "ids.npy"
    encode_to_file(["abba" * 100], CharacterTokenizer("ab"), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"ids\.npy cannot be read as token ids: .*; delete it"):
        open_ids(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as token ids"):
        open_ids(path)
    for array in [np.zeros(3), np.zeros((2, 2), np.uint8), np.arange(3)]:
        np.save(path, array)
        with pytest.raises(
            DataError, match="expected a one-dimensional array of unsigned integers"
        ):
            open_ids(path)
    np.savez(tmp_path / "a.npz", np.arange(3))
    with pytest.raises(DataError, match="cannot be read as token ids: the magic string"):
        open_ids(tmp_path / "a.npz")
