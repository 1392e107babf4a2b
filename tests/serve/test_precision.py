"""A server computes matrix products in the precision of its construction, in all of its threads."""

import numpy as np
import pytest

from anaphora import matmul_precision
from anaphora.generation import Sampler, generate, score
from anaphora.training import task_of

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
