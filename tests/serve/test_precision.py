"""A server computes matrix products in the precision of its construction, in all of its threads,
and with weights in 8 bits for those of its models that have such.
"""

import numpy as np
import pytest

import anaphora
from anaphora import matmul_precision, models
from anaphora.data import cover
from anaphora.generation import Sampler, generate, score
from anaphora.serve import ServedModel
from anaphora.training import evaluate, task_of

COMPLETIONS, PREDICT, INSPECT = "/v1/completions", "/v1/predict", "/v1/inspect"
NAMES = ("characters", "classifier", "translator")


@pytest.fixture
def clients(serve):
    """Clients of two servers at the same time, by their precisions."""
    found = {}
    for precision in ("float32", "bfloat16"):
        with matmul_precision(precision):
            found[precision] = serve(NAMES)
    return found


def test_each_server_has_its_own(clients, folders):
    model = task_of(folders["characters"]).load(folders["characters"])
    classify = task_of(folders["classifier"])
    classifier, options = (
        read(folders["classifier"]) for read in (classify.load, classify.load_options)
    )
    seen = {}
    for precision, client in clients.items():
        with matmul_precision(precision):
            (scored,) = score(model, model.codec, ["to be or"], end=False)
            text = "".join(generate(model, model.codec, "to", 20, Sampler(seed=3)))
            (expected,) = classify.answer(options, classifier, ["not to be"])
        given = {"model": "characters", "prompt": "\nto be or", "max_tokens": 0, "logprobs": 0}
        (choice,) = client.post(COMPLETIONS, echo=True, **given)["choices"]
        values = choice["logprobs"]["token_logprobs"][1:]
        np.testing.assert_allclose(values, scored.log_probabilities, atol=1e-6)
        request = {"model": "characters", "prompt": "to", "max_tokens": 20, "seed": 3}
        (choice,) = client.post(COMPLETIONS, temperature=1, **request)["choices"]
        assert "to" + choice["text"] == text
        (record,) = client.post(PREDICT, model="classifier", input="not to be")["data"]
        assert record["probabilities"] == expected.record["probabilities"]
        inspected = client.post(INSPECT, model="characters", prompt="\nto be or")
        guesses = [step for step in inspected["logprobs"] if step is not None]
        np.testing.assert_allclose(guesses, values, atol=1e-6)
        (record,) = client.post(PREDICT, model="translator", input="to be")["data"]
        seen[precision] = values, list(expected.record["probabilities"].values()), guesses
        seen[precision] += ([record["log_probability"]],)
    for one, other in zip(*seen.values(), strict=True):
        assert np.abs(np.subtract(one, other)).max() > 1e-5


def test_a_quantized_model_is_served_beside_others(serve, folders, tmp_path):
    small = tmp_path / "small"
    models.quantize(folders["characters"], small)
    model = anaphora.load(small)
    served = [
        ServedModel.load(folders["characters"], "plain"),
        ServedModel.load(small, "small"),
        ServedModel.load(folders["characters"], "asked", weights="int8"),
        ServedModel.load(small, "rounded", weights="float32"),
        ServedModel.load(folders["classifier"], "classifier", weights="int8"),
    ]
    client = serve(served)
    prompt = "to be or not"
    ids = [int(id) for id in model.codec.encode(f"\n{prompt}")]
    found, texts, connected = {}, {}, {}
    for name in ("plain", "small", "asked", "rounded"):
        given = {"model": name, "prompt": f"\n{prompt}", "max_tokens": 0, "logprobs": 0}
        (choice,) = client.post(COMPLETIONS, echo=True, **given)["choices"]
        found[name] = choice["logprobs"]["token_logprobs"][1:]
        request = {"model": name, "prompt": "to", "max_tokens": 20, "seed": 3, "temperature": 1}
        (choice,) = client.post(COMPLETIONS, **request)["choices"]
        texts[name] = "to" + choice["text"]
        inspected = client.post(INSPECT, model=name, prompt=f"\n{prompt}")
        guesses = [step for step in inspected["logprobs"] if step is not None]
        np.testing.assert_allclose(guesses, found[name], atol=1e-6)
        given = {"model": name, "prompt": prompt, "connectivity": 5}
        connected[name] = client.post(INSPECT, **given)["connectivity"]
    assert connected["small"] == connected["rounded"] != connected["plain"]
    assert min(connected["small"][:6]) > 0
    assert found["asked"] == found["small"]
    assert np.abs(np.subtract(found["plain"], found["small"])).max() > 1e-5
    assert np.abs(np.subtract(found["rounded"], found["small"])).max() > 1e-5
    assert texts["small"] == "".join(generate(model, model.codec, "to", 20, Sampler(seed=3)))
    # What an evaluation says is what is served.
    (scored,) = score(model, model.codec, [prompt], end=False)
    np.testing.assert_array_equal(found["small"], scored.log_probabilities)
    result = evaluate(model, cover(np.array(ids), batch_size=1, window=1))
    assert result.loss == -sum(found["small"]) / len(found["small"])
    classify = task_of(folders["classifier"])
    (expected,) = classify.answer(
        classify.load_options(folders["classifier"]),
        classify.load(folders["classifier"], "int8"),
        ["not to be"],
    )
    (record,) = client.post(PREDICT, model="classifier", input="not to be")["data"]
    assert record["probabilities"] == expected.record["probabilities"]
