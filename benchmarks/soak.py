"""A server under many clients, of which some leave, some send garbage, and some read slowly.

    python -m benchmarks.soak [--requests 10000] [--clients 64]

Every request must get the answer of the model itself, or the error that it asked for; the server's
memory must not grow. It runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anaphora.data import CharacterTokenizer
from anaphora.generation import Sampler, generate
from anaphora.models import LanguageModel

TEXT = "to be or not to be, that is the question:\nwhether 'tis nobler in the mind to suffer\n"
ANSWERS = 40  # different requests, whose answers are computed before
MAX_GROWTH = 20 << 20  # bytes, beyond which memory grows


def main(arguments: list[str] | None = None) -> None:
    """Run, and print what happened.

    Raises:
        SystemExit: with 1, an answer was wrong or missing, or memory grew.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args(arguments)
    print(json.dumps(run(options.requests, options.clients)))


def run(requests: int, clients: int) -> dict[str, Any]:
    """Send requests; return the number of each kind, and the server's memory in bytes.

    Raises:
        SystemExit: with a message, an answer was wrong or missing, or memory grew.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = CharacterTokenizer.fit(TEXT)
        model = LanguageModel(tokenizer.vocabulary_size, hidden_size=32, num_layers=2).eval()
        model.codec = tokenizer
        model.save(Path(folder) / "model")
        expected = {number: _expected(model, number) for number in range(ANSWERS)}
        command = [sys.executable, "-m", "anaphora", "serve", "model", "--port", "0", "--json",
                   "--max-queue", "10000", "--cache", "4"]  # fmt: skip
        source = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        server = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, **source},
        )  # fmt: skip
        with server:
            try:
                assert server.stdout is not None
                port = int(json.loads(server.stdout.readline())["address"].rpartition(":")[2])
                found = _load(port, server.pid, requests, clients, expected)
            finally:
                server.terminate()
                code = server.wait(60)
        if code != 0:
            raise SystemExit(f"the server ended with {code}")
        return found


def _load(
    port: int, process: int, requests: int, clients: int, expected: Mapping[int, str]
) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    numbers = iter(range(requests))
    lock = threading.Lock()
    memory: list[int] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            if number in (requests // 5, requests - 1):
                memory.append(_resident(process))
            kind = chance.choice(list(KINDS))
            try:
                KINDS[kind](port, chance, expected)
            except (AssertionError, OSError, ValueError) as error:
                wrong.append(f"request {number:,}, {kind}: {type(error).__name__}: {error}")
            with lock:
                counts[kind] += 1

    start = time.monotonic()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    health = _read(_request(port, b"GET", "/health"))
    if wrong or b'"ok"' not in health:
        raise SystemExit(
            "\n".join([f"{len(wrong):,} of {requests:,} requests failed", *wrong[:20]])
        )
    memory.append(_resident(process))
    if memory[-1] - memory[0] > MAX_GROWTH:
        raise SystemExit(f"the server's memory grew from {memory[0]:,} to {memory[-1]:,} bytes")
    return {"requests": dict(counts), "memory": memory, "seconds": round(seconds, 1)}


def _resident(process: int) -> int:
    """The resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _asked(number: int) -> dict[str, Any]:
    start = number % 20
    return {
        "prompt": TEXT[start : start + 5 + number],
        "max_tokens": 5 + number % 13,
        "seed": number,
    }


def _expected(model: LanguageModel, number: int) -> str:
    asked = _asked(number)
    sampler = Sampler(seed=number)
    text = "".join(generate(model, model.codec, asked["prompt"], asked["max_tokens"], sampler))
    return text[len(asked["prompt"]) :]


# Requests, sent through plain sockets, so that they may be anything


def _request(port: int, method: bytes, path: str, body: bytes = b"") -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port), timeout=120)
    opened.sendall(
        b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (method, path.encode(), len(body), body)
    )
    return opened


def _read(opened: socket.socket) -> bytes:
    with opened, opened.makefile("rb") as file:
        return file.read()


def _post(port: int, asked: Mapping[str, Any]) -> socket.socket:
    return _request(port, b"POST", "/v1/completions", json.dumps(asked).encode())


def _answer(port: int, chance: random.Random, expected: Mapping[int, str]) -> None:
    number = chance.randrange(ANSWERS)
    head, _, body = _read(_post(port, _asked(number))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert json.loads(body)["choices"][0]["text"] == expected[number]


def _events(answer: bytes) -> list[str]:
    """The events of a chunked answer."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body.decode().split("\n\n")


def _stream(port: int, chance: random.Random, expected: Mapping[int, str]) -> None:
    number = chance.randrange(ANSWERS)
    *events, done, end = _events(_read(_post(port, {**_asked(number), "stream": True})))
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected[number]


def _abort(port: int, chance: random.Random, expected: Mapping[int, str]) -> None:
    """Leave: before the answer, or within a stream."""
    stream = chance.random() < 0.5
    with _post(port, {"prompt": "to", "max_tokens": 10_000, "stream": stream}) as opened:
        if stream:
            opened.recv(chance.randrange(1, 2000))


def _half(port: int, chance: random.Random, expected: Mapping[int, str]) -> None:
    """Leave within the body."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as opened:
        opened.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
        )


def _garbage(port: int, chance: random.Random, expected: Mapping[int, str]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=120) as opened:
        opened.sendall(chance.randbytes(chance.randrange(1, 300)) + b"\r\n\r\n")
        opened.shutdown(socket.SHUT_WR)
        opened.recv(100)


def _mistake(port: int, chance: random.Random, expected: Mapping[int, str]) -> None:
    body = chance.choice([b"", b"{", b"[" * 9000, b'{"n": 0}', b'{"prompt": [-1]}', b'{"x": 1}'])
    answer = _read(_request(port, b"POST", "/v1/completions", body))
    assert answer.startswith(b"HTTP/1.1 400"), answer[:100]
    assert b'"error"' in answer


KINDS: dict[str, Callable[[int, random.Random, Mapping[int, str]], None]] = {
    "answers": _answer,
    "more answers": _answer,
    "streams": _stream,
    "aborted": _abort,
    "aborted within the body": _half,
    "garbage": _garbage,
    "mistakes": _mistake,
}

if __name__ == "__main__":
    main()
