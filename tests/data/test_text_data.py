"""Real texts, where they are next to the checkout: the counts that the papers give."""

from pathlib import Path

import pytest

from anaphora.data import (
    CharacterTokenizer,
    DataError,
    WordTokenizer,
    cover,
    encode_to_file,
    open_source,
)

DATA = Path(__file__).parents[3] / "shared" / "data"


def data(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in ../shared/data next to the checkout")
    return path


def test_penn_treebank(tmp_path):
    train = open_source(data("ptb/ptb.train.txt"))
    tokenizer = WordTokenizer.fit(train)
    assert tokenizer.vocabulary_size == 10_000
    assert WordTokenizer.fit(train, vocabulary_size=10_000).words == tokenizer.words
    assert tokenizer.words[:5] == ("the", "<unk>", "<eos>", "N", "of")
    for split, count in [("train", 929_589), ("valid", 73_760), ("test", 82_430)]:
        source = open_source(data(f"ptb/ptb.{split}.txt"))
        ids = encode_to_file(source, tokenizer, tmp_path / f"{split}.npy")
        assert ids.dtype == "u2"
        assert len(ids) == count
        assert cover(ids, 20, 35, tokenizer.start_id).tokens == count


def test_tiny_shakespeare():
    source = open_source(data("tinyshakespeare.txt"))
    tokenizer = CharacterTokenizer.fit(source)
    assert tokenizer.vocabulary_size == 65
    assert sum(map(len, tokenizer.encode_chunks(source))) == 1_115_394


def test_reddit_comments(tmp_path):
    path = data("reddit-comments-2015-08.first.csv")
    with pytest.raises(
        DataError, match=r"csv, line 874: a field begins with a quote that is never"
    ):
        list(open_source(path, column="body"))  # it was cut inside a comment
    closed = tmp_path / "closed.csv"
    closed.write_bytes(path.read_bytes() + b'"\n')
    source = open_source(closed, column="body")
    comments = list(source)
    assert len(comments) == 212
    assert comments[0].startswith("I joined a new league this year")
    assert any(comment.count("\n") > 1 for comment in comments)
    tokenizer = WordTokenizer.fit(source, vocabulary_size=1_000, split="punctuation")
    assert tokenizer.vocabulary_size == 1_000
