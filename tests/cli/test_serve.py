"""`anaphora serve` as a user runs it: what it prints, what it refuses, and how it ends."""

import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import anaphora
from anaphora.generation import Sampler, generate
from anaphora.models import LanguageModel

pytest.importorskip("starlette", reason="the extra serve is not installed")


class Serving:
    """A server in a process of its own; port 0 takes a free one."""

    def __init__(self, command, *arguments, **options):
        self.process = command.start("serve", *arguments, "--port", "0", "--json", **options)
        self.announced = json.loads(self.process.stdout.readline())
        self.address = self.announced["address"]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def end(self, number=signal.SIGTERM):
        """End it; return the exit code and standard error."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err

    def ask(self, path="/v1/completions", headers=None, **data):
        body = json.dumps(data).encode() if data else None
        headers = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.address + path, body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_announces_itself_answers_and_ends(trained, number):
    with Serving(trained, "model", "--log-requests") as server:
        assert server.announced["models"] == ["model"]
        assert server.address.startswith("http://127.0.0.1:")
        text = server.ask(prompt="A word", seed=2, max_tokens=30)["choices"][0]["text"]
        model = LanguageModel.load(trained.folder / "model")
        expected = "".join(generate(model, model.codec, "A word", 30, Sampler(seed=2)))
        assert "A word" + text == expected
        code, err = server.end(number)
    assert code == 0
    first, second, third = err.splitlines()
    assert first == f"serving model at {server.address}"
    assert second.startswith("anaphora: '/v1/completions' 200 ")
    assert third == "ended"


def test_sigterm_finishes_what_runs(trained):
    found = []
    with Serving(trained, "model") as server:
        thread = threading.Thread(
            target=lambda: found.append(server.ask(prompt="A", seed=1, max_tokens=16_000))
        )
        thread.start()
        while server.ask("/v1/models") and b"running_requests 1.0" not in metrics(server):
            pass
        code, _ = server.end()
        thread.join()
    assert code == 0
    model = LanguageModel.load(trained.folder / "model")
    expected = "".join(generate(model, model.codec, "A", 16_000, Sampler(seed=1)))
    assert "A" + found[0]["choices"][0]["text"] == expected


def metrics(server):
    with urllib.request.urlopen(server.address + "/metrics", timeout=60) as answer:
        return answer.read()


def test_names_and_a_key_from_the_environment(trained):
    environment = {"ANAPHORA_API_KEY": "secret"}
    with Serving(trained, "one=model", "two=model", environment=environment) as server:
        assert server.announced["models"] == ["one", "two"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            server.ask("/v1/models")
        listed = server.ask("/v1/models", {"Authorization": "Bearer secret"})
        assert [one["id"] for one in listed["data"]] == ["one", "two"]


MISUSED = {
    "two of a name": (("model", "model"), "two models have the name 'model'; give one another: "),
    "a key": (("model", "--api-key", ""), "--api-key is empty or has characters other than "),
    "an origin": (
        ("model", "--cors-origin", "example.org"), "--cors-origin 'example.org'; expected ",
    ),
    "a name": (("a b=model",), "model name 'a b': expected letters, digits and"),
    "nothing": ((), "Missing argument"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSED)
def test_misuse(trained, name):
    arguments, message = MISUSED[name]
    _, err = trained.run("serve", *arguments, code=2)
    assert message in err


def test_failures(trained, tmp_path):
    _, err = trained.run("serve", tmp_path / "nothing", code=1)
    assert "nothing" in err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, err = trained.run("serve", "model", "--port", port, code=1)
    assert err == f"anaphora: 127.0.0.1:{port}: Address already in use\n"
    _, err = trained.run("serve", "model", "--host", "no such host", code=1)
    assert err.startswith("anaphora: ")


def test_without_the_extra_it_says_what_to_install(trained):
    (trained.folder / "absent").mkdir(exist_ok=True)
    (trained.folder / "absent" / "starlette.py").write_text(
        "raise ModuleNotFoundError(name='starlette')"
    )
    process = trained.start("serve", "model", environment={"PYTHONPATH": path(trained)})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == (
        'anaphora: serving needs the package starlette; install it: pip install "anaphora[serve]"\n'
    )


def path(trained):
    folders = [trained.folder / "absent", Path(anaphora.__file__).parent.parent]
    return os.pathsep.join(map(str, folders))
