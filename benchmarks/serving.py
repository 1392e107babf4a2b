"""The server: tokens per second of one client and of many, and the time to a first token.

    python -m benchmarks.serving [--hidden-size 512] [--clients 32] [--tokens 128] [--threads 2]

It starts `anaphora serve` in a process of its own, with a random character model.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anaphora import engine
from anaphora.data import CharacterTokenizer
from anaphora.generation import Sampler, generate
from anaphora.models import LanguageModel

CHARACTERS = "".join(map(chr, range(32, 97)))
PROMPT = "TO BE OR NOT TO BE"
_ROUNDS = 3
_FIRST_TOKENS = 50


def character_model(hidden_size: int) -> LanguageModel:
    """A random model of two layers that reads and writes `CHARACTERS`."""
    tokenizer = CharacterTokenizer(CHARACTERS)
    model = LanguageModel(tokenizer.vocabulary_size, hidden_size=hidden_size, num_layers=2).eval()
    model.codec = tokenizer
    return model


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    engine.set_num_threads(options.threads)
    model = character_model(options.hidden_size)
    with served(model, options.threads) as port:
        print(json.dumps(measured(model, port, options.clients, options.tokens)))


@contextlib.contextmanager
def served(model: LanguageModel, threads: int) -> Iterator[int]:
    """The port of a server of a model."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "ANAPHORA_NUM_THREADS": str(threads),
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "anaphora", "serve", "model", "--port", "0", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        with server:
            try:
                assert server.stdout is not None
                yield int(json.loads(server.stdout.readline())["address"].rpartition(":")[2])
            finally:
                server.terminate()


def measured(model: LanguageModel, port: int, clients: int, tokens: int) -> dict[str, Any]:
    """Tokens per second of one and of many clients, without and with streams, and their ratio; and
    the median time to a first token in seconds: by `generate`, which packs the weights, by a
    session, which has them packed, and by the idle server.
    """
    found: dict[str, Any] = {"engine": engine.info()["instruction_set"], "clients": clients}
    for name, stream in (("answers", False), ("streams", True)):
        rates: dict[int, list[float]] = {1: [], clients: []}
        for _ in range(_ROUNDS):
            for count in rates:
                rates[count].append(_rate(port, count, tokens, stream))
        one, many = (statistics.median(rates[count]) for count in rates)
        found[name] = {"one": round(one), "many": round(many), "ratio": round(many / one, 2)}
    times: dict[str, list[float]] = {"generate": [], "session": [], "served": []}
    packed = model.session()
    ids = model.codec.encode(PROMPT)
    for number in range(_FIRST_TOKENS):
        start = time.perf_counter()
        pieces = generate(model, model.codec, PROMPT, 2, Sampler(seed=number))
        next(pieces), next(pieces)  # the prompt and the first token
        times["generate"].append(time.perf_counter() - start)
        start = time.perf_counter()
        packed.fork().generate(ids, [0.5])
        times["session"].append(time.perf_counter() - start)
        prompt = PROMPT[number % len(PROMPT) :] + PROMPT[: number % len(PROMPT)]  # not cached
        times["served"].append(_first_token(port, number, prompt))
    found["first_token"] = {name: round(statistics.median(t), 5) for name, t in times.items()}
    return found


def _ask(connection: http.client.HTTPConnection, **asked: Any) -> http.client.HTTPResponse:
    body = json.dumps({"prompt": PROMPT} | asked)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", body, headers)
    return connection.getresponse()


def _rate(port: int, clients: int, tokens: int, stream: bool) -> float:
    """Tokens per second."""
    each = 4 if clients > 1 else 8  # requests

    def work(seed: int) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            for number in range(each):
                asked = {"max_tokens": tokens, "seed": 1000 * seed + number, "stream": stream}
                answer = _ask(connection, **asked)
                body = answer.read()
                assert answer.status == 200, body

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients * each * tokens / (time.perf_counter() - start)


def _first_token(port: int, seed: int, prompt: str) -> float:
    """Seconds from the request to the first event of a stream."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.connect()
        start = time.perf_counter()
        answer = _ask(connection, prompt=prompt, max_tokens=2, seed=seed, stream=True)
        answer.readline()
        taken = time.perf_counter() - start
        answer.read()
    return taken


if __name__ == "__main__":
    main()
