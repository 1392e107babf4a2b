"""Vocabularies and labels for models whose files do not hold them."""

import re

import numpy as np
import pytest

from anaphora import random
from anaphora.artifact import ArtifactError
from anaphora.data import CharacterTokenizer, WordTokenizer
from anaphora.interop.vocabulary import give_codec, read_names
from anaphora.models import LanguageModel, SequenceClassifier, SequenceRegressor, SequenceTagger

SIZES = {"hidden_size": 5, "embedding_size": 3}


@pytest.fixture(autouse=True)
def seed():
    random.seed(5)


def tagger(**sizes):
    return SequenceTagger(2, **(sizes or {"vocabulary_size": 4}), **SIZES).eval()


@pytest.mark.parametrize("tied", [False, True])
def test_characters_are_sorted_and_their_rows_with_them(tied):
    sizes = {"hidden_size": 5} if tied else SIZES
    model = LanguageModel(vocabulary_size=4, tied=tied, **sizes).eval()
    model.output.bias.assign(np.arange(4, dtype="f"))
    tokens = ["c", "[UNK]", "a", "b"]
    theirs = np.array([[0], [2], [1], [3]])
    expected = model(theirs)[0].data
    give_codec(model, tokens)
    assert isinstance(model.codec, CharacterTokenizer)
    ids = model.codec.encode("ca?b")
    assert ids.tolist() == [2, 0, 3, 1]
    found = model(ids[:, None])[0].data
    np.testing.assert_array_equal(found, expected[..., [2, 3, 0, 1]])
    assert (model.output.weight is model.embedding.weight) == tied


def test_words_keep_their_order():
    model = LanguageModel(vocabulary_size=4, **SIZES)
    give_codec(model, ["<pad>", "dog", "</s>", "<UNK>"])
    assert isinstance(model.codec, WordTokenizer)
    assert model.codec.words == ("<pad>", "dog", "<eos>", "<unk>")
    assert model.codec.lowercase
    assert model.codec.encode("Dog cat\n").tolist() == [1, 3, 2]
    model = LanguageModel(vocabulary_size=3, **SIZES)
    give_codec(model, ["Dog", "dog", "<eos>"])
    assert model.codec.encode("dog Dog").tolist() == [1, 0, 2]


def test_the_unknown_word_of_a_tagger_is_its_first():
    model = tagger()
    expected = model(np.array([[2], [0], [3]]))[0].data
    give_codec(model, ["The", "cat", "<unk>", "dog"], ["N", "D"])
    assert model.codec.characters is None
    ids = model.codec.encode_words(["mouse", "The", "dog"])
    assert ids.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(model(ids[:, None])[0].data, expected)
    arrays = model.codec.encode([(["The", "mouse"], ["D", "N"])])
    assert sorted(arrays) == sorted(model.codec.columns()) == ["lengths", "tags", "words"]
    (batch,) = model.codec.batches(arrays, 1, "float32")
    assert batch.inputs.T.tolist() == [[1, 0]]
    assert model.codec.unknown_tokens(["The", "mouse"]) == {"mouse": 1}
    again = type(model.codec).from_dict(model.codec.to_dict())
    assert again == model.codec
    assert again.adapted(again, "keep").characters is None
    session = model.session()
    np.testing.assert_allclose(
        session.feed(np.array(["mouse", "The", "dog"], object)), expected[:, 0], rtol=1e-6
    )


def test_features_are_taken_as_they_are():
    model = SequenceClassifier(2, input_size=3, hidden_size=4, multi_label=True).eval()
    give_codec(model, None, ["a", "b"])
    assert model.codec.multi_label
    series = np.random.default_rng(3).normal(size=(5, 3))
    np.testing.assert_array_equal(model.codec.encode_input(series), series)
    model = SequenceRegressor(num_outputs=1, input_size=3, hidden_size=4)
    give_codec(model, None, ["price"])
    assert model.codec.decode([[2.0]]).tolist() == [[2.0]]


def with_codec():
    model = LanguageModel(vocabulary_size=2, **SIZES)
    model.codec = CharacterTokenizer("ab")
    return model


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (with_codec, (["a", "b"],), "the language model has a vocabulary or labels of its own; om"),
        (lambda: LanguageModel(2, **SIZES), (None, ["a", "b"]),
         "the language model reads ids; give its vocabulary too"),
        (lambda: LanguageModel(2, **SIZES), (["a", "b"], ["a", "b"]),
         "the language model predicts tokens; it has no labels: omit them"),
        (lambda: LanguageModel(2, **SIZES), (["a", "b", "c"],),
         "the language model needs vocabulary of 2 names, not 3"),
        (lambda: LanguageModel(2, **SIZES), (["a", "a"],), "vocabulary has 'a' twice"),
        (lambda: LanguageModel(2, **SIZES), (["the", "dog"],), "is one of words and has no <eos>"),
        (tagger, (["a", "b", "c", "d"], ["N", "D"]), "the vocabulary has no <unk> for words that"),
        (tagger, (["a", "b", "c", "<unk>"],), "predicts what has names; give its labels too"),
        (lambda: SequenceTagger(2, input_size=3), (None, ["N", "D"]),
         "a sequence tagger of features has no codec; use it in Python"),
        (lambda: SequenceClassifier(2, input_size=3), (["a"], ["x", "y"]),
         "the sequence classifier reads features; it has no vocabulary: omit them"),
        (lambda: SequenceClassifier(2, input_size=3), (None, ["x"]),
         "the sequence classifier needs labels of 2 names, not 1"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_change_nothing(model, names, message):
    model = model()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        give_codec(model, *names)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_files_of_names(tmp_path):
    def read(text, suffix=".txt"):
        path = tmp_path / f"names{suffix}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_names(path)

    assert read("a\r\n b\n\u2028\n") == ["a", " b", "\u2028"]
    assert read("\ufeffa\n\nb") == ["a", "", "b"]
    assert read('["\\n", "b"]', ".json") == ["\n", "b"]
    assert read('{"b": 1, "a": 0}', ".json") == ["a", "b"]
    for text, message in (
        ('{"b": 1, "a": 2}', "its numbers are not 0 to 1, each once"),
        ('{"b": "1"}', "expected a list of names, or an object with a number for each"),
        ("[1]", "expected a list of names"),
        ("[", "is not valid JSON"),
        ("[" * 10**5, "is not valid JSON"),
    ):
        with pytest.raises(ArtifactError, match=re.escape(message)):
            read(text, ".json")
    with pytest.raises(ArtifactError, match="is not UTF-8"):
        read(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        read_names(tmp_path / "missing")
