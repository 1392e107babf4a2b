"""/v1/predict: the records of `anaphora predict --json`, for what waits together or alone."""

import re
import threading

import numpy as np
import pytest

from anaphora import engine
from anaphora.generation import beam_search
from anaphora.serve import ServedModel
from anaphora.serve.predict import Prediction, Predictor, inputs_of
from anaphora.training import task_of

PATH = "/v1/predict"
SERIES = [[2.0, -1.0], [2.5, 0.0], [3, 1]]


def direct(folder, inputs):
    """The records of the task itself."""
    task = task_of(folder)
    model = task.load(folder)
    return [answer.record for answer in task.answer(task.load_options(folder), model, inputs)]


def plain(record):
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in record.items()
    }


INPUTS = {
    "classifier": (["to be", "not to be to be", ""], ["to be", "not to be to be", ""]),
    "tagger": (["not to", ["be", "what", "to"]], [["not", "to"], ["be", "what", "to"]]),
    "regressor": (["to be not", "not"], ["to be not", "not"]),
    "translator": (["to be", "not to be"], ["to be", "not to be"]),
    "series": ([SERIES, SERIES[:1]], [np.array(SERIES), np.array(SERIES[:1])]),
    "numbers": ([SERIES, SERIES[1:]], [np.array(SERIES), np.array(SERIES[1:])]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_predictions_are_those_of_the_task(client, folders, name):
    given, inputs = INPUTS[name]
    expected = list(map(plain, direct(folders[name], inputs)))
    answer = client.post(PATH, model=name, input=given)
    assert answer == {"object": "list", "model": name, "data": expected}
    single = client.post(PATH, model=name, input=given[0])  # a text or a series alone
    if name == "tagger":
        assert client.post(PATH, model=name, input=[given[1]])["data"] == expected[1:]
    assert single["data"] == expected[:1]


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_inside_comes_with_the_prediction(client, folders, name):
    given, inputs = INPUTS[name]
    served = ServedModel.load(folders[name])
    (record,) = client.post(PATH, model=name, input=given[:1], inside=True)["data"]
    found = record.pop("inside")
    assert record == plain(direct(folders[name], inputs[:1])[0])
    if name == "translator":
        words = record["translation"].split()
        assert found["steps"] == ["to", "be", "<eos>"]
        assert found["targets"] == [*words, "<eos>"][: len(found["attention"])]
        np.testing.assert_allclose(np.sum(found["attention"], axis=1), 1, rtol=1e-5)
        model = served.model
        ids = np.array([model.codec["source"].encode("to be\n")]).T
        (best,) = beam_search(model, ids, beam_size=served.options.beam_size, max_length=2 * 3 + 10)
        np.testing.assert_array_equal(np.float32(found["attention"]), best[0].weights)
        return
    outputs = served.model.read(*read_arguments(served, inputs[0]))[0].data[:, 0]
    states = found["states"]
    assert list(states) == ["h_l0", "c_l0"]
    np.testing.assert_array_equal(np.float32(states["h_l0"]), outputs[:, :6])
    series = name in ("series", "numbers")
    assert found["steps"] == ([] if series else list(inputs[0]))


def read_arguments(served, input):
    """The arguments of `read` for one input."""
    codec = served.model.codec
    batch = (
        codec.input_batch([input])
        if served.task.name == "tag"
        else codec.input_batch([input], "float32")
    )
    spelling = [getattr(batch, name, None) for name in ("characters", "character_lengths")]
    return batch.inputs, None, None, *spelling


def test_inside_is_for_one_input(client):
    error = client.refused(PATH, model="classifier", input=["to", "be"], inside=True)
    assert (error["param"], error["message"]) == (
        "inside",
        "inside is for one input of at most 4,096 steps; 2 inputs were given, with 4 steps",
    )
    error = client.refused(PATH, model="classifier", input="t" * 4097, inside=True)
    assert error["param"] == "inside"
    (record,) = client.post(PATH, model="classifier", input="", inside=True)["data"]
    assert "inside" not in record


def test_probabilities(client):
    (record,) = client.post(PATH, model="classifier", input="to be")["data"]
    assert record["label"] == next(iter(record["probabilities"]))
    assert sum(record["probabilities"].values()) == pytest.approx(1, rel=1e-5)
    (record,) = client.post(PATH, model="tagger", input="not to")["data"]
    assert len(record["tags"]) == len(record["probabilities"]) == 2


REFUSED = {
    "numbers for a text": (
        "classifier", [3], r"input\[0\] is not a text; this model reads texts",
    ),
    "words for a text": ("translator", [["to"]], r"input\[0\] is not a text; .*"),
    "a number in a sentence": (
        "tagger", [["to", 3]],
        r"input\[0\] is not a text or a list of words; this model reads sentences",
    ),
    "lines": ("classifier", "to\nbe", r"input\[0\] has a line end; give its lines one by one"),
    "a text for a series": (
        "series", "to", r"input is a text, but this model reads series; expected a series of 2 .*",
    ),
    "channels": ("series", [[1, 2, 3]], r"input is not a series; expected a series of 2 .*"),
    "ragged": ("series", [[[1, 2]], [[1, 2], [3]]], r"input\[1\] is not a series; .*"),
    "a flag": ("series", [[1, True]], r"input is not a series; .*"),
    "digits": ("series", [[1, "2"]], r"input is not a series; .*"),
    "large": ("series", [[1, 10**400]], r"input is not a series; .*"),
    "null": ("series", [[1, None]], r"input is not a series; .*"),
    "a character": ("regressor", ["to be", "Ω"], r"input 1: the character 'Ω' .* is not in .*"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_inputs_that_are_refused(client, name):
    model, given, message = REFUSED[name]
    error = client.refused(PATH, model=model, input=given)
    assert error["param"] == "input"
    assert re.fullmatch(message, error["message"]), error["message"]


def test_other_mistakes(client):
    error = client.refused(PATH, model="characters", input="to")
    assert error["message"] == (
        "the model 'characters' is for the task language-model; use it with /v1/completions"
    )
    assert client.refused(PATH, model="series")["message"] == "there is no input, which is required"
    error = client.refused("/v1/completions", model="tagger", prompt="to")
    assert error["message"] == "the model 'tagger' is for the task tag; use it with /v1/predict"
    assert client.post(PATH, model="series", input=[])["data"] == []


def test_what_waits_is_predicted_together_and_each_gets_its_own(folders):
    served = ServedModel.load(folders["classifier"])
    predictor = Predictor(served)
    texts = [["to be"], ["not", "to be to"], [], ["be"]]
    asked = [Prediction(inputs_of(served, given)) for given in texts]
    predictor.submit(asked)
    calls = []
    answer = served.task.answer
    object.__setattr__(served, "task", Spy(served.task, calls))
    predictor.step()
    assert calls == [["to be", "not", "to be to", "be"]]
    for given, one in zip(texts, asked, strict=True):
        expected = [found.record for found in answer(served.options, served.model, given)]
        assert one.records == expected
        assert one.finished.is_set()


class Spy:
    def __init__(self, task, calls):
        self._task, self._calls = task, calls

    def answer(self, options, model, inputs):
        self._calls.append(list(inputs))
        if "bad" in inputs:
            raise ValueError("the model's scores are NaN")
        return self._task.answer(options, model, inputs)


def test_a_failing_input_fails_its_request_alone(folders):
    served = ServedModel.load(folders["classifier"])
    served.task = Spy(served.task, [])
    told = []
    predictor = Predictor(served, notify=told.extend)
    asked = [Prediction(["to be"]), Prediction(["bad"]), Prediction(["to"])]
    gone = Prediction(["to"], cancelled=True)
    predictor.submit([*asked, gone])
    predictor.step()
    assert [one.error is None for one in asked] == [True, False, True]
    assert str(asked[1].error) == "the prediction failed: the model's scores are NaN"
    assert asked[1].error.status == 500
    assert [len(one.records) for one in asked] == [1, 0, 1]
    assert told == asked
    assert not gone.records


def test_many_clients_at_once(client, folders):
    texts = [" ".join(["to", "be", "not"][: 1 + k % 3] * (1 + k // 3)) for k in range(12)]
    found = {}

    def ask(k):
        found[k] = client.post(PATH, model="classifier", input=texts[k])["data"]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = list(map(plain, direct(folders["classifier"], texts)))
    for k, record in enumerate(expected):
        (answer,) = found[k]
        assert (answer["text"], answer["label"]) == (texts[k], record["label"])
        if engine.info()["engine"] == "native":  # NumPy's bits depend on the batch
            assert answer == record
