"""Real clients: the openai package, lm-evaluation-harness, schemathesis and curl."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from anaphora import engine
from anaphora.generation import Sampler, generate, score
from anaphora.models import LanguageModel
from anaphora.serve import Access, Limits, RequestError, ServedModel, Server, running
from anaphora.serve.guard import Guard

NATIVE = pytest.mark.skipif(
    engine.info()["engine"] != "native", reason="NumPy's bits depend on the batch"
)
WITHOUT_WARNINGS = pytest.mark.filterwarnings("ignore")  # those of the clients


@pytest.fixture(scope="module")
def model(folders):
    return LanguageModel.load(folders["characters"])


# openai


@pytest.fixture
def openai(client):
    package = pytest.importorskip("openai", reason="the extra clients is not installed")
    with package.OpenAI(base_url=f"{client.address}/v1", api_key="none") as found:
        yield found


@NATIVE
@WITHOUT_WARNINGS
def test_openai_completes(openai, model):
    found = openai.completions.create(
        model="characters", prompt=["to be", "or"], max_tokens=20, temperature=0.8, seed=4, n=2,
        logprobs=2, echo=True, stop=["zzz"], top_p=0.9, logit_bias={"3": -5},
        extra_body={"top_k": 9},
    )  # fmt: skip
    for choice in found.choices:
        prompt = ["to be", "or"][choice.index // 2]
        sampler = Sampler(0.8, 9, 0.9, seed=4 + choice.index, logit_bias=((3, -5.0),))
        assert choice.text == "".join(generate(model, model.codec, prompt, 20, sampler))
        assert "".join(choice.logprobs.tokens) == choice.text
        assert choice.logprobs.token_logprobs[0] is None
        assert choice.finish_reason == "length"
    assert found.object == "text_completion"
    assert found.usage.total_tokens == 7 + 80


@NATIVE
@WITHOUT_WARNINGS
def test_openai_streams(openai, model):
    stream = openai.completions.create(
        model="characters", prompt="to be", max_tokens=30, seed=5, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *chunks, last = stream
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert "to be" + text == "".join(generate(model, model.codec, "to be", 30, Sampler(seed=5)))
    assert len({chunk.id for chunk in [*chunks, last]}) == 1
    assert last.choices == []
    assert last.usage.completion_tokens == 30


@WITHOUT_WARNINGS
def test_openai_knows_the_errors(openai):
    package = sys.modules["openai"]
    with pytest.raises(package.NotFoundError, match="the model 'gpt-4' is not served") as caught:
        openai.completions.create(model="gpt-4", prompt="to")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(package.BadRequestError, match="suffix: the model reads") as caught:
        openai.completions.create(model="characters", prompt="to", suffix="be")
    assert (caught.value.code, caught.value.param) == ("unsupported_field", "suffix")
    assert {one.id for one in openai.models.list()} >= {"characters", "words"}
    assert openai.models.retrieve("words").owned_by == "anaphora"


@WITHOUT_WARNINGS
def test_openai_sends_its_key_and_tries_again_when_the_queue_is_full(folders, monkeypatch):
    package = pytest.importorskip("openai", reason="the extra clients is not installed")
    server = Server([ServedModel.load(folders["characters"])], access=Access(keys=["secret"]))
    statuses, attempts = [], []
    monkeypatch.setattr(server.app, "_log", lambda path, status, seconds: statuses.append(status))
    assert isinstance(server.app, Guard)
    batcher = server._workers["characters"]
    full = batcher.submit

    def submit(items):
        attempts.append(items)
        if len(attempts) < 3:
            raise RequestError("full", 429, code="queue_full", headers={"Retry-After": "0.001"})
        full(items)

    monkeypatch.setattr(batcher, "submit", submit)
    with running(server) as address:
        with package.OpenAI(base_url=f"{address}/v1", api_key="secret") as client:
            found = client.completions.create(model="characters", prompt="to", max_tokens=3)
            assert len(found.choices[0].text) == 3
            server.limits = Limits(seconds=0.1)
            with pytest.raises(package.InternalServerError, match="time limit"):
                client.completions.create(model="characters", prompt="to", max_tokens=16_000, n=60)
        other = package.OpenAI(base_url=f"{address}/v1", api_key="other")
        with other, pytest.raises(package.AuthenticationError, match="missing or wrong"):
            other.models.list()
    assert statuses == [429, 429, 200, 504, 401]  # after 504 it was told not to try again


# curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(client):
    def curl(*arguments):
        done = subprocess.run(
            ["curl", "--silent", "--show-error", *arguments], capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    json_body = ("--header", "Content-Type: application/json", "--data")
    completions = f"{client.address}/v1/completions"
    asked = '{"model": "characters", "prompt": "to be", "seed": 1, "temperature": 0}'
    answer = json.loads(curl(completions, *json_body, asked))
    assert len(answer["choices"][0]["text"]) == 16
    streamed = curl("--no-buffer", completions, *json_body, asked[:-1] + ', "stream": true}')
    assert streamed.endswith("data: [DONE]\n\n")
    refused = json.loads(curl(completions, "--data", asked))
    assert "expected application/json" in refused["error"]["message"]
    status = curl(
        "--output", os.devnull, "--write-out", "%{http_code}", "--header", "Host: evil.example",
        client.address + "/health",
    )  # fmt: skip
    assert status == "403"


# lm-evaluation-harness

TASK = """
task: endings
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: choices
doc_to_target: label
target_delimiter: ""
metric_list:
  - metric: acc
"""


@NATIVE
@WITHOUT_WARNINGS
def test_lm_evaluation_harness_finds_the_log_likelihoods_of_score(folders, model, tmp_path):
    pytest.importorskip("lm_eval", reason="the extra clients is not installed")
    documents = [
        {"context": "\nto be or", "choices": [" not", " to be"], "label": 0},
        {"context": "\nthat is", "choices": [" the question", " be", " nobler to"], "label": 2},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    (tmp_path / "endings.yaml").write_text(TASK.format(file=tmp_path / "data.jsonl"))
    with running(Server([ServedModel.load(folders["characters"])])) as address:
        done = subprocess.run(
            [
                sys.executable, "-m", "lm_eval", "--model", "local-completions",
                "--model_args",
                f"model=characters,base_url={address}/v1/completions,"
                "num_concurrent=2,max_retries=1",  # it asks the server for tokens
                "--tasks", "endings", "--include_path", str(tmp_path), "--batch_size", "2",
                "--log_samples", "--output_path", str(tmp_path / "out"),
            ],
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
                 "HF_HOME": str(tmp_path / "cache"), "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").glob("**/samples_endings_*.jsonl")
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(samples) == 2
    for sample in samples:
        document = documents[sample["doc_id"]]
        for choice, response in zip(document["choices"], sample["filtered_resps"], strict=True):
            line = document["context"].removeprefix("\n") + choice
            (found,) = score(model, model.codec, [line], end=False)
            expected = found.log_probabilities[-len(choice) :].tolist()
            assert float(response[0]) == pytest.approx(sum(expected), rel=1e-12)


# schemathesis


@WITHOUT_WARNINGS
def test_schemathesis_finds_no_answer_that_the_document_does_not_describe(serve, tmp_path):
    pytest.importorskip("schemathesis", reason="the extra clients is not installed")
    client = serve(["characters", "classifier"], Limits(max_tokens=50, choices=4, seconds=60))
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{client.address}/openapi.json",
            "--max-examples", "40", "--seed", "1", "--phases", "examples,coverage,fuzzing",
            "--checks", "all", "--exclude-checks", "positive_data_acceptance",
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=500,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        cwd=tmp_path,  # it leaves a cache there
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
