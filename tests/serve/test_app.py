"""The server as a whole: its paths, who may use it, what it bears, and what it tells."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
import urllib.parse

import numpy as np
import pytest
from tests.serve.conftest import TEXT, Client, language_model, save

from anaphora import engine
from anaphora.data import CharacterTokenizer
from anaphora.generation import Sampler, generate
from anaphora.models import LanguageModel
from anaphora.serve import Access, Limits, ServedModel, Server, running
from anaphora.serve.app import OPERATIONS

COMPLETIONS = "/v1/completions"
NATIVE = engine.info()["engine"] == "native"


def error_of(answer):
    status, headers, body = answer
    assert headers["Content-Type"] == "application/json"
    return status, json.loads(body)["error"]


def connection(client):
    return http.client.HTTPConnection(urllib.parse.urlsplit(client.address).netloc, timeout=60)


def wait_for(condition):
    """Wait for another thread; a test that fails here hangs for a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# What there is


def test_models_and_health(client, folders):
    listed = client.get("/v1/models")
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == list(folders)
    one = listed["data"][0]
    assert client.get("/v1/models/characters") == one
    assert (one["object"], one["task"], one["changed_on_disk"]) == (
        "model",
        "language-model",
        False,
    )
    assert one["created"] == int((folders["characters"] / "model.safetensors").stat().st_mtime)
    assert client.get("/health") == {"status": "ok", "changed_on_disk": []}
    status, error = error_of(client.send("/v1/models/nobody"))
    assert (status, error["code"]) == (404, "model_not_found")
    assert error["message"].startswith(
        "the model 'nobody' is not served; expected one of characters"
    )


def test_tokens(client, folders):
    tokenizer = LanguageModel.load(folders["characters"]).codec
    ids = tokenizer.encode("to be").tolist()
    found = client.post("/v1/tokenize", model="characters", prompt="to be")
    assert found == {"tokens": ids, "count": 5, "unknown": {}}
    found = client.post("/v1/detokenize", model="characters", tokens=ids)
    assert found == {"prompt": "to be"}
    error = client.refused("/v1/detokenize", model="characters", tokens=[99])
    assert error["message"].startswith("the id 99 is not in the vocabulary")
    words = client.post("/v1/tokenize", model="words", prompt="to gnu be gnu")
    assert words["unknown"] == {"gnu": 2}
    with_start = client.post("/v1/tokenize", model="words", prompt="to be", add_special_tokens=True)
    assert len(with_start["tokens"]) == 3
    assert client.post("/v1/detokenize", model="words", tokens=with_start["tokens"]) == {
        "prompt": "\nto be"
    }


def test_missing_paths_methods_and_models(client):
    status, error = error_of(client.send("/v1/nothing"))
    assert (status, error["code"]) == (404, "not_found")
    assert error["message"] == "there is no path '/v1/nothing'; see /openapi.json"
    status, error = error_of(client.send(COMPLETIONS))
    assert (status, error["message"]) == (
        405, "GET is not possible for '/v1/completions'; see /openapi.json",
    )  # fmt: skip
    error = client.refused(COMPLETIONS, 404, model="gpt", prompt="to")
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    error = client.refused(COMPLETIONS, prompt="to")
    assert error["message"].startswith("model is missing; expected one of characters, words")


def test_the_only_model_need_not_be_named(serve):
    client = serve(["characters", "classifier"])
    assert client.post(COMPLETIONS, prompt="to")["model"] == "characters"
    assert client.post("/v1/predict", input="to")["model"] == "classifier"
    info = client.get("/tokenizer_info")
    assert (info["eos_token"], info["tokenizer_class"]) == ("\n", "CharacterTokenizer")
    assert client.post("/tokenize", prompt="to")["count"] == 2


def test_two_models_of_one_name_are_refused(folders):
    models = [ServedModel.load(folders[name], "same") for name in ("characters", "words")]
    with pytest.raises(ValueError, match="two models have the same name: same, same"):
        Server(models)


def test_bodies_that_are_no_requests(client):
    for body, message in {
        b"": "the body is not valid JSON: .*",
        b"{": "the body is not valid JSON: .*",
        b"\xff\xfe": "the body is not valid JSON: .*",
        b"[" * 100_000: "the body is not valid JSON: .*",
        b'{"prompt": "\\ud800"}': "the body is not valid JSON: .*",
        b"3": "the body is not a JSON object",
    }.items():
        status, error = error_of(client.send(COMPLETIONS, body))
        assert (status, error["code"]) == (400, "invalid_json")
        assert re.fullmatch(message, error["message"])
    answer = client.send(COMPLETIONS, b"{}", {"Content-Type": "text/plain"})
    status, error = error_of(answer)
    assert (status, error["message"]) == (
        415, "the Content-Type is 'text/plain'; expected application/json",
    )  # fmt: skip


def test_every_answer_forbids_a_browser_to_take_it_for_a_page(client):
    for path in ("/health", "/v1/models", "/v1/nothing", "/metrics", "/openapi.json"):
        _, headers, _ = client.send(path)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "html" not in headers["Content-Type"]
        assert headers["Access-Control-Allow-Origin"] is None


def test_the_document_has_every_path_and_type(client):
    document = client.get("/openapi.json")
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {one.path for one in OPERATIONS.values()}
    schemas = document["components"]["schemas"]
    request = schemas["CompletionRequest"]
    assert request["additionalProperties"] is False
    assert request["properties"]["top_p"]["anyOf"][0] == {
        "type": "number", "exclusiveMinimum": 0, "maximum": 1,
    }  # fmt: skip
    references = re.findall(
        r'"\$ref":"#/components/schemas/(\w+)"', json.dumps(document).replace(" ", "")
    )
    assert set(references) <= set(schemas)
    assert "security" not in document


def test_metrics_count_what_was_done(serve):
    client = serve()
    client.post(COMPLETIONS, prompt="to be or not", max_tokens=7, n=2)
    client.post(COMPLETIONS, prompt="to be or not", max_tokens=1)
    client.refused(COMPLETIONS, prompt=[99])
    client.send("/some/other/path")
    _, headers, body = client.send("/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = dict(
        line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#")
    )
    assert lines['anaphora_prompt_tokens_total{model="characters"}'] == "13.0"
    assert lines['anaphora_cached_prompt_tokens_total{model="characters"}'] == "11.0"
    assert lines['anaphora_generated_tokens_total{model="characters"}'] == "15.0"
    assert lines['anaphora_requests_total{path="/v1/completions",status="200"}'] == "2.0"
    assert lines['anaphora_requests_total{path="/v1/completions",status="400"}'] == "1.0"
    assert lines['anaphora_requests_total{path="other",status="404"}'] == "1.0"
    assert lines["anaphora_running_requests"] == "0.0"
    assert float(lines['anaphora_prefix_cache_bytes{model="characters"}']) > 0
    assert not any("some/other" in line for line in lines)


# Who may use it


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.1.2.3", "[::2]", ""]
)
def test_foreign_hosts_are_refused(client, host):
    status, error = error_of(client.send("/health", headers={"Host": host}))
    assert (status, error["code"]) == (403, "foreign_host")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:80", "[::1]:8"]
)
def test_own_hosts_are_accepted(client, host):
    assert client.send("/health", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"]
)
def test_foreign_origins_are_refused(client, origin):
    answer = client.send(COMPLETIONS, {"model": "characters"}, {"Origin": origin})
    status, error = error_of(answer)
    assert (status, error["code"]) == (403, "foreign_origin")
    assert answer[1]["Access-Control-Allow-Origin"] is None


def test_its_own_pages_may_use_it(client):
    assert client.send("/v1/models", headers={"Origin": client.address})[0] == 200


def test_a_server_for_a_network_has_addresses_and_names(serve):
    access = Access(host="0.0.0.0", names=["models.example"])
    for host in ("10.1.2.3:8000", "[fe80::1]:8000", "Models.Example", "localhost"):
        access.check_host(host)
    with pytest.raises(Exception, match=r"the Host 'evil.example' is not this server's"):
        access.check_host("evil.example")
    client = serve(["characters"], None, Access(names=["models.example"]))
    assert client.send("/health", headers={"Host": "models.example:80"})[0] == 200


def test_named_origins_may_use_it(serve):
    client = serve(["characters"], None, Access(origins=["https://lab.example"], keys=["k"]))
    origin = {"Origin": "https://lab.example"}
    status, headers, _ = client.send(COMPLETIONS, headers=origin, method="OPTIONS")
    assert status == 204
    assert headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    status, headers, _ = client.send("/health", headers=origin)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://lab.example")
    assert client.send("/health", headers={"Origin": "https://lab.example.evil"})[0] == 403


def test_keys(serve):
    client = serve(["characters"], None, Access(keys=["first", "second"]))
    for header in (
        None,
        "Bearer",
        "Bearer wrong",
        "Bearer firs",
        "Basic first",
        "first",
        "Bearer ü",
    ):
        given = {} if header is None else {"Authorization": header.encode().decode("latin-1")}
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
            answer = client.send(path, headers=given)
            status, error = error_of(answer)
            assert (status, error["code"]) == (401, "invalid_api_key")
            assert answer[1]["WWW-Authenticate"] == "Bearer"
    for key in ("first", "second"):
        assert client.send("/v1/models", headers={"Authorization": f"Bearer {key}"})[0] == 200
    assert client.send("/health")[0] == 200
    _, _, body = client.send("/openapi.json", headers={"Authorization": "bearer first"})
    document = json.loads(body)
    assert document["security"] == [{"key": []}]
    assert document["paths"]["/health"]["get"]["security"] == []


# What it bears


@pytest.fixture
def endless(serve):
    """A server whose requests take long, with a place for two rows."""
    return serve(["characters"], Limits(max_tokens=10**7), max_batch_size=2, max_queue=1)


def start(client, **data):
    """A connection on which a request has been sent."""
    opened = connection(client)
    body = json.dumps({"prompt": "to", "max_tokens": 10**6, "seed": 1, **data})
    opened.request("POST", COMPLETIONS, body, {"Content-Type": "application/json"})
    return opened


def raw_connection(client):
    return socket.create_connection(("127.0.0.1", int(client.address.rpartition(":")[2])))


def batcher(client):
    return client.server._workers["characters"]


def test_large_bodies_are_refused_while_they_arrive(serve):
    client = serve(["characters"], Limits(body_bytes=1000))
    status, error = error_of(client.send(COMPLETIONS, {"prompt": "to" * 1000}))
    assert (status, error["message"]) == (413, "the body has more than 1,000 bytes")
    with raw_connection(client) as raw:
        raw.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(3):  # it does not say how much will come, and never ends
            raw.sendall(b"1f4\r\n" + b" " * 500 + b"\r\n")
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def test_a_body_that_does_not_arrive_is_given_up(serve):
    client = serve(["characters"], Limits(seconds=0.05))
    with raw_connection(client) as raw:
        raw.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the body did not arrive in time" in answer


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long_fails(serve, stream):
    client = serve(["characters"], Limits(seconds=0.05, max_tokens=10**7))
    if stream:  # the first events come before the error
        client.server.limits = Limits(seconds=0.5, max_tokens=10**7)
    answer = client.send(COMPLETIONS, {"prompt": "to", "max_tokens": 10**6, "stream": stream})
    status, headers, body = answer
    if stream:
        assert status == 200
        last = body.decode().split("\n\n")[-2]
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert status == 504
        assert headers["x-should-retry"] == "false"
        error = json.loads(body)["error"]
    assert error["code"] == "timeout"
    client.server.limits = Limits()
    assert client.post(COMPLETIONS, prompt="to", max_tokens=1)["choices"]


def test_predictions_and_inspections_that_take_too_long_fail(serve, monkeypatch):
    client = serve(["characters", "classifier"], Limits(seconds=0.05))
    going_on = threading.Event()
    monkeypatch.setattr(
        client.server._workers["classifier"], "_answer", lambda taken: going_on.wait()
    )
    monkeypatch.setattr("anaphora.serve.inspect.Inspector.inspect", lambda *_: going_on.wait())
    for path, asked in (("/v1/predict", {"input": "to"}), ("/v1/inspect", {"prompt": "to"})):
        error = client.refused(path, 504, **asked)
        assert error["message"].startswith("the request took longer than the server's time limit")
    going_on.set()


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_free_their_places(endless, stream):
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(contextlib.closing(start(endless, stream=stream)))
        wait_for(lambda: len(batcher(endless)._writers) == 2)
        stack.enter_context(contextlib.closing(start(endless, stream=stream)))
        wait_for(lambda: len(batcher(endless).waiting) == 1)
        status, error = error_of(endless.send(COMPLETIONS, {"prompt": "to"}))
        assert (status, error["code"], error["type"]) == (429, "queue_full", "rate_limit_error")
        assert endless.send(COMPLETIONS, {"prompt": "to"})[1]["Retry-After"] == "1"
    wait_for(lambda: not batcher(endless).busy() and not batcher(endless).waiting)
    assert endless.post(COMPLETIONS, prompt="to", max_tokens=3)["choices"][0]["text"]
    wait_for(lambda: not endless.server._events)


def test_a_client_that_does_not_read_does_not_hold_up_the_others(serve):
    client = serve(["characters"], Limits(max_tokens=10**7), max_batch_size=2)
    with contextlib.closing(start(client, stream=True, max_tokens=5000, logprobs=20)) as slow:
        wait_for(lambda: batcher(client)._writers)
        assert client.post(COMPLETIONS, prompt="to", max_tokens=50)["choices"][0]["text"]
        wait_for(lambda: not batcher(client).busy())  # all is written, and nobody has read it
        body = slow.getresponse().read()
    assert body.endswith(b"data: [DONE]\n\n")
    assert body.count(b"data: ") > 2


@pytest.mark.skipif(not NATIVE, reason="NumPy's bits depend on the batch")
def test_an_end_finishes_what_runs(folders):
    server = Server([ServedModel.load(folders["characters"])], max_batch_size=1)
    found = {}

    def ask(seed):
        found[seed] = client.post(COMPLETIONS, prompt="to", seed=seed, max_tokens=3000)

    with running(server) as address:
        client = Client(address)
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(server._events) == 3 or found)  # one is written, two wait
    for thread in threads:
        thread.join()
    model = LanguageModel.load(folders["characters"])
    for seed in range(3):
        expected = "".join(generate(model, model.codec, "to", 3000, Sampler(seed=seed)))
        assert "to" + found[seed]["choices"][0]["text"] == expected
    with pytest.raises(OSError, match="refused"):
        client.get("/health")


# What it tells


@pytest.mark.skipif(not NATIVE, reason="NumPy's bits depend on the batch")
def test_a_model_that_is_replaced_is_told_and_not_mixed(tmp_path):
    tokenizer = CharacterTokenizer.fit(TEXT)
    folder = save(tmp_path / "mine", language_model(tokenizer, seed=1), tokenizer)
    old = LanguageModel.load(folder)
    lines = []
    server = Server([ServedModel.load(folder)], log=lines.append)
    asked = {"prompt": "to be", "seed": 3, "max_tokens": 30}
    expected = "".join(generate(old, old.codec, "to be", 30, Sampler(seed=3)))
    with running(server) as address:
        client = Client(address)
        before = client.post(COMPLETIONS, **asked)
        assert client.send(COMPLETIONS, asked)[1]["anaphora-model-changed"] is None
        other = CharacterTokenizer.fit(TEXT + "XYZ")
        save(folder, language_model(other, seed=2), other)
        for _ in range(2):
            _, headers, body = client.send(COMPLETIONS, asked)
            answer = json.loads(body)
            assert headers["anaphora-model-changed"] == "true"
            assert "to be" + answer["choices"][0]["text"] == expected
            assert answer["system_fingerprint"] == before["system_fingerprint"]
        assert client.refused(COMPLETIONS, prompt="X")["code"] == "unknown_token"
        assert client.get("/health")["changed_on_disk"] == ["mine"]
        assert client.get("/v1/models/mine")["changed_on_disk"] is True
    told = [line for line in lines if "changed on disk" in line]
    assert told == [
        f"{folder}: changed on disk; the model that was loaded is still served. Restart to serve "
        "the new one"
    ]
    again = ServedModel.load(folder)
    assert again.fingerprint != before["system_fingerprint"]


def test_a_model_that_changes_while_it_is_loaded_is_loaded_again(tmp_path, monkeypatch):
    tokenizer = CharacterTokenizer.fit(TEXT)
    folder = save(tmp_path / "mine", language_model(tokenizer, seed=1), tokenizer)
    load, calls = LanguageModel.load, []

    def load_and_replace(path, weights=None):
        model = load(path)
        calls.append(path)
        if len(calls) < 2:
            save(folder, language_model(tokenizer, seed=len(calls) + 1), tokenizer)
        return model

    monkeypatch.setattr(LanguageModel, "load", load_and_replace)
    served = ServedModel.load(folder)
    assert len(calls) == 2
    weights = dict(load(folder).named_parameters())
    for name, parameter in served.model.named_parameters():
        np.testing.assert_array_equal(parameter.data, weights[name].data)
    assert not served.changed()
    (folder / "tokenizer.json").unlink()
    assert served.changed()


def test_two_models_at_once(client, folders):
    found = {}

    def ask(name, seed):
        found[name, seed] = client.post(COMPLETIONS, model=name, prompt="to", seed=seed)

    pairs = [(name, seed) for name in ("characters", "words") for seed in range(5)]
    threads = [threading.Thread(target=ask, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, seed in pairs:
        assert found[name, seed]["model"] == name
        if NATIVE:
            model = LanguageModel.load(folders[name])
            expected = "".join(generate(model, model.codec, "to", 16, Sampler(seed=seed)))
            assert "to" + found[name, seed]["choices"][0]["text"] == expected


@pytest.mark.parametrize("log_prompts", [False, True])
def test_prompts_are_logged_only_if_asked(serve, log_prompts):
    lines = []
    client = serve(["characters"], log=lines.append, log_prompts=log_prompts)
    client.post(COMPLETIONS, prompt="whether", max_tokens=1)
    client.refused(COMPLETIONS, prompt="Ω")
    client.send("/whether?whether=1", {"prompt": "whether"})
    wait_for(lambda: sum("404" in line for line in lines))
    assert any("whether" in line for line in lines if "/v1" in line) == log_prompts
    assert re.fullmatch(r"'/v1/completions' 200 \d+\.\d ms", lines[1 if log_prompts else 0])


def test_an_unexpected_error_is_an_answer_and_the_server_lives(serve, monkeypatch, caplog):
    client = serve()
    monkeypatch.setattr("anaphora.serve.app.to_request", lambda *_: 1 / 0)
    status, error = error_of(client.send(COMPLETIONS, {"prompt": "to"}))
    assert (status, error["message"], error["type"]) == (500, "the server failed", "server_error")
    monkeypatch.undo()
    assert client.post(COMPLETIONS, prompt="to")
    assert "ZeroDivisionError" in caplog.text
