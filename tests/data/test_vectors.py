"""Vectors of words: the formats, vocabularies, and files that are damaged."""

import gzip
import re

import numpy as np
import pytest

from anaphora import data, nn
from anaphora.data import DataError, read_vectors

ROWS = {"the": [1, 2.5, -3], "New York": [0, 1e-3, 7], "cat": [4, 5, 6]}
TEXT = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in ROWS.items())


@pytest.mark.parametrize("name", ["a.vec", "a.txt", "a.txt.gz", "tabs.vec"])
def test_texts(name, tmp_path):
    text = f"3 3\n{TEXT}" if name.endswith("vec") else TEXT
    if name.startswith("tabs"):
        text = text.replace(" ", "\t").replace("New\tYork", "New York")
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    found = read_vectors(path)
    assert found.words == list(ROWS)
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, np.array(list(ROWS.values()), np.float32))
    some = read_vectors(path, ["cat", "dog", "the"])
    assert some.words == ["the", "cat"]
    np.testing.assert_array_equal(some.vectors, found.vectors[[0, 2]])


def test_the_first_vector_of_a_word_counts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a 1 2\nb 3 4\na 5 6\n\n")
    np.testing.assert_array_equal(read_vectors(path).vectors, [[1, 2], [3, 4]])


def test_arrays_and_their_words(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([[1.0, 2.0], [3.0, 4.0]]))
    found = read_vectors(path, ["x", "y"])
    assert found.words == ["x", "y"]
    np.testing.assert_array_equal(found.table(["y"]), [[3, 4]])
    for words, message in (
        (None, "an array has no words; give those of its rows"),
        (["x"], "1 different words for an array of 2 vectors; give one for each"),
        (["x", "x"], "1 different words for an array of 2 vectors"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            read_vectors(path, words)
    np.save(path, np.ones(3))
    with pytest.raises(DataError, match=re.escape("the array is float64(3,); expected numbers")):
        read_vectors(path, ["x"])
    np.save(path, np.array([[1.0], [np.inf]]))
    with pytest.raises(DataError, match="the vector of 'y' is not finite"):
        read_vectors(path, ["x", "y"])
    path.write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(DataError, match=r"a\.npy is not an array that numpy\.save wrote"):
        read_vectors(path, ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("2 3\n", "has 0 vectors, but its first line says 2: it is cut off"),
        ("3 2\na 1 2\nb 3 4\n", "has 2 vectors, but its first line says 3: it is cut off"),
        ("a 1 2 3\nb 1 2\n", ", line 2: 2 numbers after the word; expected 3"),
        ("a\nb\n", ", line 1: 0 numbers after the word; expected 1"),
        ("a 1 2\nb 1 x2\n", ", line 2: 'x2' is not a number"),
        ("a 1 nan\n", ", line 1: a number is not finite"),
    ],
)
def test_damaged_texts(text, message, tmp_path):
    path = tmp_path / "a.vec"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        read_vectors(path)


def test_other_files(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.vec does not exist; the current folder is"):
        read_vectors(tmp_path / "nothing.vec")
    path = tmp_path / "a.bin"
    path.write_bytes(b"1")
    with pytest.raises(DataError, match=r"binary files of word2vec and fastText are not read"):
        read_vectors(path)
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    with pytest.raises(DataError, match=r"has none of the 1 words; compare the spelling"):
        read_vectors(path, ["Cat"])
    path.write_bytes(b"\xff\xfe\xfa 1 2\n")
    with pytest.raises(DataError, match=r"a\.txt"):
        read_vectors(path)


def test_words_without_a_vector():
    rng = np.random.default_rng(1)
    words = [f"w{k}" for k in range(400)]
    vectors = data.WordVectors(words, rng.normal(3, 0.5, (400, 2)).astype(np.float32))
    vocabulary = ["w1", *(f"x{k}" for k in range(300)), "w0"]
    with pytest.raises(DataError, match=r"^300 of 302 words have no vector: 'x0', .* and 295"):
        vectors.table(vocabulary)
    table = vectors.table(vocabulary, unknown="normal")
    np.testing.assert_array_equal(table[[0, -1]], vectors.vectors[[1, 0]])
    assert abs(table[1:-1].mean() - 3) < 0.1
    assert abs(table[1:-1].std() - 0.5) < 0.1
    zeros = vectors.table(vocabulary, unknown="zeros")
    assert not zeros[1:-1].any()
    with pytest.raises(DataError, match="2 of 2 words have no vector: 'a', 'b'; choose"):
        vectors.table(["a", "b"], unknown="zeros")
    with pytest.raises(ValueError, match="unknown 'mean' is not one of raise, normal, zeros"):
        vectors.table(words, unknown="mean")
    embedding = nn.Embedding.from_pretrained(zeros, freeze=False)
    np.testing.assert_array_equal(embedding([301]).data, vectors.vectors[:1])
