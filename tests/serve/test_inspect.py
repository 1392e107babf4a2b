"""/v1/inspect: what the model does, as the layers themselves say."""

import re

import numpy as np
import pytest

from anaphora.generation import next_tokens, score
from anaphora.models import LanguageModel
from anaphora.plot.sequences import recorded_values
from anaphora.serve import ServedModel
from anaphora.serve.inspect import MOST_TOKENS, Inspector, connectivity
from anaphora.serve.messages import InspectRequest
from anaphora.serve.switching import places, switches
from anaphora.tensor import no_grad

PATH = "/v1/inspect"
TEXT = "to be or not"


@pytest.fixture(scope="module")
def model(folders):
    return LanguageModel.load(folders["characters"])


def recorded(model, ids):
    with no_grad():
        return recorded_values(model.recurrent, model.embedding(np.array(ids)))


def test_values_are_those_that_the_layer_records(client, model):
    ids = model.codec.encode(TEXT).tolist()
    expected = recorded(model, ids)
    found = client.post(PATH, model="characters", prompt=TEXT, values=list(expected))
    assert found["ids"] == ids
    assert found["tokens"] == list(TEXT)
    assert list(found["values"]) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(found["values"][name], np.float32), values)
    assert {one["name"]: (one["kind"], one["layer"]) for one in found["available"]} == {
        f"{name}_l{layer}": (kind, layer)
        for layer in (0, 1)
        for kind, names in (("state", "hc"), ("gate", "ifgo"))
        for name in names
    }
    assert {one["units"] for one in found["available"]} == {16}
    assert found["connectivity"] is None
    chosen = client.post(PATH, model="characters", prompt=ids, values=["f_l1"], units=[3, 0])
    assert chosen["values"] == {"f_l1": np.array(found["values"]["f_l1"])[:, [3, 0]].tolist()}


def test_guesses_and_log_probabilities_after_each_token(client, model):
    found = client.post(PATH, model="characters", prompt="\n" + TEXT + "\n", top=4)
    (scores,) = score(model, model.codec, [TEXT])
    assert found["logprobs"][0] is None
    np.testing.assert_allclose(found["logprobs"][1:], scores.log_probabilities, rtol=1e-5)
    assert len(found["next"]) == len(TEXT) + 2
    for t in (0, 3, 7):
        expected = next_tokens(model, model.codec, ("\n" + TEXT)[: t + 1], 4)
        assert [one["token"] for one in found["next"][t]] == [one.token for one in expected]
        assert [one["id"] for one in found["next"][t]] == [one.id for one in expected]
        np.testing.assert_allclose(
            [one["probability"] for one in found["next"][t]],
            [one.probability for one in expected],
            rtol=1e-5,
        )


def test_words_have_the_line_end_that_the_model_reads_first(client, folders):
    found = client.post(PATH, model="words", prompt="to be")
    assert found["tokens"] == ["\n", "to", " be"]
    assert len(found["ids"]) == len(found["next"]) == 3


@pytest.mark.parametrize("position", [0, 4, 11])
def test_connectivity_is_the_norm_of_the_numerical_gradient(folders, position):
    served = ServedModel.load(folders["characters"])
    model = served.model
    ids = model.codec.encode(TEXT).tolist()
    found = connectivity(model, ids, position)
    double = LanguageModel(**{**model.options, "dtype": "float64"})
    for name, parameter in double.named_parameters():
        parameter.assign(dict(model.named_parameters())[name].data)
    double.eval()
    with no_grad():
        x = double.embedding(np.array(ids)).data
        outputs, _ = double.recurrent(x)
        best = int(double.output(outputs).data[position].argmax())

        def logit(inputs):
            outputs, _ = double.recurrent(inputs)
            return float(double.output(outputs).data[position, best])

        gradient = np.zeros_like(x)
        for index in np.ndindex(*x.shape):
            step = np.zeros_like(x)
            step[index] = 1e-6
            gradient[index] = (logit(x + step) - logit(x - step)) / 2e-6
    expected = np.linalg.norm(gradient, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert (found[position + 1 :] == 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def without_model(found, start):
    """What an inspection says of the tokens from a position on."""
    parts = ("tokens", "logprobs", "next")
    values = {name: rows[start:] for name, rows in found["values"].items()}
    return {**{name: found[name][start:] for name in parts}, "values": values}


@pytest.mark.parametrize("name", ["characters", "words"])
def test_a_text_is_read_on_from_any_position_with_the_same_bits(serve, name):
    client = serve([name])
    text = "to be or not to be or"
    asked = {"prompt": text, "values": ["i_l0", "c_l1"], "top": 3}
    whole = client.post(PATH, **asked)
    length = len(whole["ids"])
    assert whole["opening"] == (name == "words")
    for start in [*range(length), 2, length - 1]:  # with no state of that position, or with one
        found = client.post(PATH, **asked, start=start)
        assert (found["ids"], found["start"]) == (whole["ids"], start)
        assert without_model(found, 0) == without_model(whole, start)

    assert client.post(PATH, **asked, start=length + 5) == found  # the last token


def test_typing_reads_only_the_new_token_and_the_one_before(folders, monkeypatch):
    inspector = Inspector(ServedModel.load(folders["characters"]))
    layer = inspector._served.model.recurrent
    read = []
    for method in ("record", "forward"):
        original = getattr(layer, method)

        def counted(x, *arguments, original=original):
            read.append(len(x))
            return original(x, *arguments)

        monkeypatch.setattr(layer, method, counted)
    for end in range(2, len(TEXT) + 1):
        read.clear()
        request = InspectRequest(prompt=TEXT[:end], start=end - 1)
        found = inspector.inspect(request)
        assert len(found.next) == 1
        assert sum(read) == 2  # the token before, for the scores after it, and the new one


@pytest.mark.parametrize("start", [0, 2])
def test_the_units_of_a_span_have_its_positions(client, model, start):
    found = client.post(PATH, model="characters", prompt=TEXT, span=[3, 5], start=start)["span"]
    first = max(0, start - 1)
    recorded_from = {
        name: values[first:]
        for name, values in recorded(model, model.codec.encode(TEXT).tolist()).items()
    }
    units = switches(recorded_from, 3 - first, 5 - first)
    assert [(one["value"], one["unit"]) for one in found["units"]] == [one[:2] for one in units]
    assert [one["contrast"] for one in found["units"]] == [one.contrast for one in units]
    expected = places(recorded_from, units, 3 - first, 5 - first)
    assert len(expected) > 0
    assert found["places"] == [
        {"start": one.start + first, "end": one.end + first, "share": one.share} for one in expected
    ]


def test_too_many_numbers_are_refused(client, monkeypatch):
    asked = {"model": "characters", "prompt": TEXT, "values": ["h_l0", "c_l1"]}
    monkeypatch.setattr("anaphora.serve.inspect.MOST_NUMBERS", 2 * 12 * 16)
    assert client.post(PATH, **asked)["values"]
    monkeypatch.setattr("anaphora.serve.inspect.MOST_NUMBERS", 2 * 12 * 16 - 1)
    error = client.refused(PATH, **asked)
    assert (error["param"], error["message"]) == (
        "values",
        "values are 384 numbers; at most 383 can be given at a time; give units, or start",
    )
    assert client.post(PATH, **asked, units=[3])["values"]
    assert client.post(PATH, **asked, start=1)["values"]


def test_what_a_guess_adds_to_the_text(client):
    found = client.post(PATH, model="words", prompt="to be", top=20)
    for guess in found["next"][-1]:
        expected = {"<eos>": "\n"}.get(guess["token"], " " + guess["token"])
        assert guess["text"] == expected


REFUSED = {
    "an empty span": ({"span": [3, 3]}, "span", r"span is \[3, 3\]; expected a part, .* 0 to 12"),
    "a whole text": ({"span": [0, 12]}, "span", r"span is \[0, 12\]; expected a part, not all, .*"),
    "a span beyond": ({"span": [3, 13]}, "span", r"span is \[3, 13\]; .* the positions 0 to 12"),
    "a span before": ({"span": [1, 4], "start": 5}, "span", r".* the positions 4 to 12"),
    "a span of one": ({"span": [1]}, "span", "span .*"),
    "a gradient of a long text": (
        {"prompt": "to" * 3000, "start": 5999, "connectivity": 5999},
        "connectivity", "the prompt has 6,000 tokens; connectivity is for at most 4,096",
    ),
    "a value": ({"values": ["x_l0"]}, "values", "values has 'x_l0'; this model has i_l0, .*"),
    "a unit": ({"values": ["h_l0"], "units": [16]}, "units", "units has 16; h_l0 has .* 0 to 15"),
    "a position": (
        {"connectivity": 12}, "connectivity", "connectivity is 12; expected a position of 0 to 11",
    ),
    "an id": ({"prompt": [99]}, "prompt", "prompt has the id 99; .*"),
    "a character": ({"prompt": "Ω"}, "prompt", "the character 'Ω' .*"),
    "a long text": (
        {"prompt": "to" * 3000}, "prompt", "the prompt has 6,000 tokens; at most 4,096 can be .*",
    ),
    "too many guesses": ({"top": 21}, "top", "top is 21; expected int <= 20"),
    "a field": ({"units_of": 1}, "units_of", "the field 'units_of' is unknown; expected .*"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(client, name):
    options, param, message = REFUSED[name]
    error = client.refused(PATH, **{"model": "characters", "prompt": TEXT, **options})
    assert error["param"] == param
    assert re.fullmatch(message, error["message"]), error["message"]
    assert MOST_TOKENS == 4096
