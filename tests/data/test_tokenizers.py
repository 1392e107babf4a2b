"""Tokenizers: values, round trips, chunks, limits and messages."""

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.data import (
    BPETokenizer,
    CharacterTokenizer,
    DataError,
    Tokenizer,
    WordTokenizer,
    split_words,
)

SAMPLE = "the cat saw the dog .\nthe dog did n't see <unk> .\n\n a café ☃ — 漢字 😀\n"
unicode = st.characters(exclude_categories=["Cs"])
lines = st.lists(st.text(unicode, max_size=12), max_size=6)
texts = lines.map("\n".join)
# Texts that are rich in what the tokenizers treat specially.
words = st.text(alphabet="ab ’'-.\n\t\u2028é<>unk_1", max_size=40)


@pytest.fixture(scope="module")
def bpe():
    pytest.importorskip("tokenizers", reason="needs the extra bpe")
    return BPETokenizer.fit([SAMPLE] * 3, vocabulary_size=300)


def through_json(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))


def cut(data, text: str) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


# Characters


def test_characters_by_code_point():
    tokenizer = CharacterTokenizer.fit(["ba\n", "😀é"])
    assert tokenizer.characters == "\nabé😀"
    assert tokenizer.encode("é😀ab").tolist() == [3, 4, 1, 2]
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.encode("a").dtype == np.int64
    assert (tokenizer.unknown_id, tokenizer.start_id, tokenizer.level) == (None, None, "char")


@pytest.mark.parametrize(
    ("limits", "characters"),
    [
        ({}, " abcd"),
        ({"minimum_count": 2}, " abc\ufffd"),
        ({"minimum_count": 3}, "ab\ufffd"),
        ({"vocabulary_size": 5}, " abcd"),
        ({"vocabulary_size": 4}, " ab\ufffd"),
        ({"vocabulary_size": 2}, "a\ufffd"),
        ({"vocabulary_size": 4, "minimum_count": 3}, "ab\ufffd"),
    ],
)
def test_character_limits(limits, characters):
    tokenizer = CharacterTokenizer.fit(["aaaa bbb", "cc d"], **limits)
    assert tokenizer.characters == characters
    assert tokenizer.vocabulary_size == len(characters)
    if "\ufffd" in characters:
        assert tokenizer.unknown_id == characters.index("\ufffd")
        assert tokenizer.encode("!").tolist() == [tokenizer.unknown_id]
        assert tokenizer.encode("\U0010ffff").tolist() == [tokenizer.unknown_id]


def test_a_text_with_the_unknown_character():
    tokenizer = CharacterTokenizer.fit(["a\ufffd😀"])
    assert tokenizer.characters == "a\ufffd😀"
    assert tokenizer.encode("xa\ufffd").tolist() == [1, 0, 1]


def test_unknown_character_message():
    tokenizer = CharacterTokenizer.fit(["abc\n"])
    chunks = ["abc\nab", "c\na", "b\xe9c"]
    with pytest.raises(DataError) as caught:
        list(tokenizer.encode_chunks(chunks))
    message = str(caught.value)
    assert "'é' (U+00E9)" in message
    assert "line 3, column 2" in message
    assert "vocabulary of 4 characters" in message
    assert "minimum_count" in message
    with pytest.raises(DataError, match=r"U\+D800"):
        tokenizer.encode("\ud800")


@given(st.text())
def test_character_round_trip(text):
    tokenizer = CharacterTokenizer.fit([text, "."])
    ids = tokenizer.encode(text)
    assert ids.tolist() == [tokenizer.characters.index(c) for c in text]
    assert tokenizer.decode(ids) == text
    assert through_json(tokenizer).to_dict() == tokenizer.to_dict()
    assert list(tokenizer.stream(ids)) == list(text)


# Words


def test_words_by_frequency_then_alphabet():
    tokenizer = WordTokenizer.fit(["b a b\n", "c <unk>"])
    assert tokenizer.words == ("<eos>", "b", "<unk>", "a", "c")
    assert tokenizer.encode("c b zzz\n\na").tolist() == [4, 1, 2, 0, 0, 3, 0]
    assert (tokenizer.unknown_id, tokenizer.start_id, tokenizer.level) == (2, 0, "word")


def test_blank_lines_and_last_lines():
    tokenizer = WordTokenizer.fit(["a\n"])
    end, a = tokenizer.start_id, 1 - tokenizer.start_id
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.encode("\n").tolist() == [end]
    assert tokenizer.encode("a").tolist() == [a, end]
    assert tokenizer.encode("a\n").tolist() == [a, end]
    assert tokenizer.encode("a\n ").tolist() == [a, end, end]
    assert tokenizer.encode("\n\n a \n").tolist() == [end, end, a, end]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "a <eos> b c d"),
        ({"vocabulary_size": 5}, "a <eos> b c d"),
        # <unk> counts as often as what it stands for: c and d, 3; so it comes before b in the
        # alphabet.
        ({"vocabulary_size": 4}, "a <eos> <unk> b"),
        ({"vocabulary_size": 3}, "<unk> a <eos>"),
        ({"minimum_count": 2}, "a <eos> b c <unk>"),
        ({"minimum_count": 3}, "a <eos> <unk> b"),
    ],
)
def test_word_limits(limits, words):
    tokenizer = WordTokenizer.fit(["a a a a a b b b\n", "c c d\n\n\n"], **limits)
    assert tokenizer.words == tuple(words.split())


@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer])
@pytest.mark.parametrize(
    ("limits", "advice"),
    [
        ({"vocabulary_size": 1}, "raise vocabulary_size (1), or give more text"),
        ({"minimum_count": 9}, "lower minimum_count (9), or give more text"),
        (
            {"vocabulary_size": 7, "minimum_count": 9},
            "raise vocabulary_size (7), lower minimum_count (9), or give more text",
        ),
    ],
)
def test_limits_that_leave_nothing(kind, limits, advice):
    with pytest.raises(DataError, match="of the text, only") as caught:
        kind.fit(["a b c"], **limits)
    assert str(caught.value).endswith(f": {advice}")


def test_sentence_start():
    tokenizer = WordTokenizer.fit(["a\n", "\nb"], sentence_start=True)
    text = "a b\n\nb"
    shown = [tokenizer.words[id] for id in tokenizer.encode(text)]
    assert shown == ["<bos>", "a", "b", "<eos>", "<bos>", "<eos>", "<bos>", "b", "<eos>"]
    assert tokenizer.decode(tokenizer.encode(text)) == "a b\n\nb\n"
    assert through_json(tokenizer).encode(text).tolist() == tokenizer.encode(text).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, she said.", "Don't stop , she said ."),
        ("a well-known<unk>thing (really)!?", "a well-known <unk> thing ( really ) ! ?"),
        ("l’été -- 'quoted' 3.14", "l’été - - ' quoted ' 3 . 14"),
        ("<eos>", "< eos >"),
    ],
)
def test_punctuation(text, expected):
    tokenizer = WordTokenizer.fit([text], split="punctuation")
    assert tokenizer.decode(tokenizer.encode(text)) == expected + "\n"


def test_marks_that_a_text_has_written_are_words_like_any_other():
    text = "a <eos> <pad> a\n<bos> <eos>\n"
    tokenizer = WordTokenizer.fit([text])
    assert tokenizer.words == ("<eos>", "<eos>", "a", "<bos>", "<pad>")
    ids = tokenizer.encode(text)
    assert ids.tolist() == [2, 1, 4, 2, 0, 3, 1, 0]
    assert (tokenizer.start_id, tokenizer.decode(ids)) == (0, text)
    assert tokenizer.decode([3, 1, 0, 1]) == "<bos> <eos>\n<eos>"
    again = through_json(tokenizer)
    assert (again.encode(text).tolist(), again.decode(ids)) == (ids.tolist(), text)

    begun = WordTokenizer.fit([text], sentence_start=True)
    shown = [begun.words[id] for id in begun.encode(text)]
    assert " ".join(shown) == "<bos> a <eos> <pad> a <eos> <bos> <bos> <eos> <eos>"
    assert begun.decode(begun.encode(text)) == text
    assert len(set(begun.encode("<bos> <eos>").tolist())) == 4
    assert through_json(begun).encode(text).tolist() == begun.encode(text).tolist()

    other = WordTokenizer.fit(["a a b\n"], minimum_count=2)
    assert other.encode("<eos> <bos> a").tolist() == [
        *[other.unknown_id] * 2, other.encode("a")[0], other.start_id
    ]  # fmt: skip
    with pytest.raises(DataError, match="the word '<eos>' is not in the vocabulary of 2 words"):
        WordTokenizer.fit(["a\n"]).encode("<eos>\n")


def test_vocabularies_of_files_without_the_ids_of_marks():
    tokenizer = WordTokenizer.fit(["b a b\n"], sentence_start=True)
    data = tokenizer.to_dict()
    assert (data.pop("start_id"), data.pop("sentence_start_id")) == (2, 1)
    assert Tokenizer.from_dict(data).encode("a b").tolist() == tokenizer.encode("a b").tolist()
    for damaged, message in [
        ({"start_id": 0}, "its id 0 is not <eos>"),
        ({"start_id": 99}, "its id 99 is not <eos>"),
        ({"start_id": "1"}, "start_id is '1'; expected int"),
        ({"words": [*data["words"], "<eos>"]}, "'<eos>' more than once: give the id of the mark"),
    ]:
        with pytest.raises(DataError, match=message):
            Tokenizer.from_dict({**data, **damaged})


@given(st.text(alphabet="ab<eos> \n\u00a0\u3000", max_size=40))
def test_there_are_as_many_ends_as_lines(text):
    tokenizer = WordTokenizer.fit([text, "\nx"])
    lines = text.removesuffix("\n").count("\n") + 1 if text else 0
    ids = tokenizer.encode(text)
    assert np.count_nonzero(ids == tokenizer.start_id) == lines
    assert tokenizer.encode(tokenizer.decode(ids)).tolist() == ids.tolist()
    pieces = [*tokenizer.encode_chunks(text)]  # one character a chunk
    assert np.concatenate([np.empty(0, int), *pieces]).tolist() == ids.tolist()


def test_no_break_spaces_hold_a_word_together():
    assert split_words("10\u00a0000\u2007\u202fm a\u3000b\u2028c\x1cd \t\r\n") == [
        "10\u00a0000\u2007\u202fm", "a", "b", "c", "d"
    ]  # fmt: skip
    assert split_words(" ") == split_words("") == []
    tokenizer = WordTokenizer.fit(["10\u00a0000 10 000"])
    assert len(tokenizer.encode("10\u00a0000")) == 2


def test_unknown_tokens_are_counted_in_order():
    words = WordTokenizer.fit(["a a <unk> b\n"], minimum_count=2, lowercase=True)
    text = ["b A <unk> c", "d\n<eos> b"]
    assert list(words.unknown_tokens(text).items()) == [("b", 2), ("cd", 1), ("<eos>", 1)]
    characters = CharacterTokenizer.fit(["aab\n"], minimum_count=2)
    assert dict(characters.unknown_tokens(["ab\ufffd", "\U0010ffffb"])) == {
        "b": 2, "\U0010ffff": 1
    }  # fmt: skip
    # Also where nothing stands for them.
    assert dict(CharacterTokenizer.fit("a").unknown_tokens("ab")) == {"b": 1}


def test_lowercase():
    tokenizer = WordTokenizer.fit(["The the THE <UNK>"], lowercase=True)
    assert tokenizer.words == ("the", "<eos>", "<unk>")
    assert tokenizer.encode("tHe").tolist() == [0, 1]


def test_unknown_word_message():
    tokenizer = WordTokenizer.fit(["a b\n"])
    with pytest.raises(DataError, match=r"'cat' at line 3 .* of 3 words, which has no <unk>"):
        list(tokenizer.encode_chunks(["a\na\na ", "b ca", "t b\n"]))


@given(words)
def test_word_round_trip_but_for_white_space(text):
    tokenizer = WordTokenizer.fit([text, "\nx"])
    lines = text.removesuffix("\n").split("\n")
    expected = "".join(" ".join(line.split()) + "\n" for line in lines)
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert decoded == (expected if text else "")
    assert tokenizer.encode(decoded).tolist() == tokenizer.encode(text).tolist()
    assert through_json(tokenizer).to_dict() == tokenizer.to_dict()


@given(words, st.data())
def test_words_may_be_cut_anywhere(text, data):
    options = {
        "lowercase": data.draw(st.booleans()),
        "split": data.draw(st.sampled_from(["whitespace", "punctuation"])),
        "sentence_start": data.draw(st.booleans()),
    }
    chunks = cut(data, text)
    complete = WordTokenizer.fit([text + " x"], **options)
    assert WordTokenizer.fit([*chunks, " x"], **options).words == complete.words
    pieces = [*complete.encode_chunks([*chunks, " x"])]
    assert np.concatenate(pieces).tolist() == complete.encode(text + " x").tolist()


# Byte pairs


def test_bpe_values(bpe):
    assert bpe.level == "bpe"
    assert 256 < bpe.vocabulary_size <= 300
    assert (bpe.unknown_id, bpe.start_id) == (None, None)
    ids = bpe.encode("the cat\n")
    assert ids.dtype == np.int64
    assert len(ids) < len("the cat\n"), "something was merged"
    assert [bpe.decode([id]) for id in bpe.encode("the dog")] == ["the", " dog"]


@given(text=texts)
def test_bpe_round_trip(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert ids.max(initial=0) < bpe.vocabulary_size
    assert through_json(bpe).encode(text).tolist() == ids.tolist()


def test_special_tokens_that_a_text_has_written_are_text(bpe):
    import tokenizers

    model = tokenizers.Tokenizer.from_str(bpe._model.to_str())
    model.add_special_tokens(["<|endoftext|>"])
    tokenizer = BPETokenizer(model)
    text = "the <|endoftext|> cat"
    assert tokenizer.vocabulary_size == bpe.vocabulary_size + 1
    assert tokenizer.encode(text).tolist() == bpe.encode(text).tolist()
    assert bpe.unknown_tokens([text]) == {}


@given(st.lists(st.integers(0, 255), max_size=20))
def test_bpe_stream_of_any_bytes(bpe, ids):
    # The library's own decoder replaces bytes that are not UTF-8 in the same way.
    assert bpe.decode(ids) == bpe._model.decode(ids)


def test_bpe_stream_holds_incomplete_characters_back(bpe):
    ids = bpe.encode("x😁")  # 😁 is not in the sample, so its last byte stands alone
    pieces = list(bpe.stream(iter(ids)))
    assert pieces == ["x", "😁"]
    assert len(ids) > 2
    assert list(bpe.stream(ids[:-1])) == ["x", "\ufffd"]


@given(lines=lines)
def test_bpe_may_be_cut_at_line_ends(bpe, lines):
    chunks = [line + "\n" for line in lines]
    pieces = [np.empty(0, int), *bpe.encode_chunks(chunks)]
    assert np.concatenate(pieces).tolist() == bpe.encode("".join(chunks)).tolist()


@given(text=st.text(alphabet="the dog,.\n\t'1é", max_size=40))
def test_bpe_may_be_cut_before_a_single_space(bpe, text):
    chunks = re.split(r"(?<=\S)(?= \S)", text)
    pieces = [np.empty(0, int), *bpe.encode_chunks(chunks)]
    assert np.concatenate(pieces).tolist() == bpe.encode(text).tolist()


def test_bpe_messages(bpe, monkeypatch):
    with pytest.raises(DataError, match="at least 256"):
        BPETokenizer.fit(["a"], vocabulary_size=255)
    with pytest.raises(DataError, match="text is empty"):
        BPETokenizer.fit([], vocabulary_size=300)
    with pytest.raises(DataError, match=r"'\\ud800' at character 1"):
        bpe.encode("a\ud800")

    def broken():
        yield "text"
        raise DataError("not UTF-8")

    with pytest.raises(DataError, match="not UTF-8"):
        BPETokenizer.fit(broken(), vocabulary_size=300)
    data = bpe.to_dict()
    damaged = {"level": "bpe", "model": {"version": "1.0"}}
    with pytest.raises(DataError, match="damaged: model has no model, which is required"):
        Tokenizer.from_dict(damaged)
    other = json.loads(json.dumps(data))
    other["model"]["model"]["vocab"]["snow man"] = bpe.vocabulary_size
    with pytest.raises(DataError, match="not byte-level"):
        Tokenizer.from_dict(other)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for action in (lambda: BPETokenizer.fit(["a"], 300), lambda: Tokenizer.from_dict(data)):
        with pytest.raises(DataError, match=r'pip install "anaphora\[bpe\]"'):
            action()


# All of them


@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer])
def test_limits_and_empty_texts(kind):
    for chunks in [[], [""], ["", ""]]:
        with pytest.raises(DataError, match="text is empty"):
            kind.fit(chunks)
    with pytest.raises(ValueError, match="vocabulary_size must be an integer of at least 1, not 0"):
        kind.fit(["a"], vocabulary_size=0)
    with pytest.raises(ValueError, match="minimum_count must be an integer of at least 1, not 0"):
        kind.fit(["a"], minimum_count=0)


def test_character_limits_that_leave_nothing():
    for limits in [{"vocabulary_size": 1}, {"minimum_count": 9}]:
        with pytest.raises(DataError, match="would have no character of the text"):
            CharacterTokenizer.fit(["ab"], **limits)


@given(texts, st.data())
def test_characters_may_be_cut_anywhere(text, data):
    chunks = cut(data, text + ".")
    complete = CharacterTokenizer.fit([text + "."])
    assert CharacterTokenizer.fit(chunks).characters == complete.characters
    joined = np.concatenate(list(complete.encode_chunks(chunks)))
    assert joined.tolist() == complete.encode(text + ".").tolist()


def test_ids_outside_the_vocabulary(bpe):
    for tokenizer in [CharacterTokenizer.fit(["ab"]), WordTokenizer.fit(["ab"]), bpe]:
        size = tokenizer.vocabulary_size
        for id in [-1, size]:
            with pytest.raises(DataError, match=f"the id {id} is not in .* 0 to {size - 1}"):
                tokenizer.decode([0, id])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "not a tokenizer: it has no entry 'level'"),
        ({"characters": "ab"}, "no entry 'level'"),
        ({"level": "syllable"}, "'syllable', which is unknown to this version; expected one of"),
        ({"level": ["char"]}, "which is unknown to this version"),
        ({"level": "char"}, "there is no characters, which is required"),
        ({"level": "char", "characters": 3}, "characters is 3; expected str"),
        ({"level": "char", "characters": ""}, "at least one character"),
        ({"level": "char", "characters": "ba"}, "'ba' is not"),
        ({"level": "char", "characters": "aab"}, "'aab' is not"),
        ({"level": "word"}, "there is no words, which is required"),
        ({"level": "word", "words": ["<eos>", 3]}, "words[1] is 3; expected str"),
        ({"level": "word", "words": ["<eos>"]}, "there is no lowercase, which is required"),
        ({"level": "bpe"}, "there is no model, which is required"),
    ],
)
def test_damaged_dicts(data, message):
    with pytest.raises(DataError, match=re.escape(message)):
        Tokenizer.from_dict(data)


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["a"], {}, "has no <eos>"),
        (["a", "<eos>"], {"sentence_start": True}, "has no <bos>"),
        (["a", "b", "a", "<eos>"], {}, "'a' more than once"),
        (["<eos>"], {"split": "syllables"}, "split is 'syllables'; it must be one of"),
    ],
)
def test_word_vocabularies_that_do_not_fit(words, options, message):
    with pytest.raises(DataError, match=re.escape(message)):
        WordTokenizer(words, **options)


def test_repr():
    assert repr(CharacterTokenizer.fit(["ab"])) == "CharacterTokenizer(2 entries)"
