"""What a tagger's numbers stand for: words, their spelling, and tags."""

import json

import pytest

from anaphora.training import TASKS, TaggerVocabulary

TRAINING = [
    (["Der", "Hund", "und", "der", "Hut"], list("DNCDN")),
    (["und", "DER", "Hut"], list("CDN")),
]
HELD_OUT = [(["Der", "Tag"], list("DX"))]


@pytest.mark.parametrize(
    ("changes", "words", "ids"),
    [
        ({}, ("der", "hut", "und"), [1, 0, 3]),  # the most frequent first, then by the alphabet
        ({"vocabulary_size": 1}, ("der",), [1, 0, 0]),
        ({"minimum_count": 1}, ("der", "hut", "und", "hund"), [1, 0, 3]),
        ({"lowercase": False}, ("Hut", "und"), [0, 0, 2]),
    ],
)
def test_words_are_those_of_training_and_tags_those_of_all(changes, words, ids):
    task = TASKS["tag"]
    fitted = task.fit(task.options.make(**changes), TRAINING, HELD_OUT)
    vocabulary = TaggerVocabulary.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert vocabulary.words == words
    assert vocabulary.tags == ("C", "D", "N", "X")
    assert vocabulary.encode_words(["Der", "Tag", "und"]).tolist() == ids


def test_arrays_hold_words_spellings_and_tags_in_the_order_of_the_text():
    task = TASKS["tag"]
    vocabulary = task.fit(task.options.make(), TRAINING, HELD_OUT)
    arrays = task.encode(vocabulary, HELD_OUT)
    assert arrays["lengths"].tolist() == [2]
    assert arrays["tags"].tolist() == [1, 3]
    assert arrays["character_lengths"].tolist() == [3, 3]
    spelled = vocabulary.characters.decode(arrays["characters"])
    assert (spelled[0], spelled[1:3]) == ("D", "er")  # the case of the spelling stays
    (batch,) = task.example_batches(vocabulary, arrays, 4, "float32")
    assert batch.inputs[:, 0].tolist() == [1, 0]
    assert batch.characters[:, 0, 0].tolist() == arrays["characters"][:3].tolist()
    assert batch.characters[:, 1, 0].tolist() == arrays["characters"][3:].tolist()
