"""Small models of every task, as directories, and servers that serve them."""

import contextlib
import importlib.util
import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from anaphora import random
from anaphora.data import (
    CharacterTokenizer,
    ClassifierCodec,
    PairCodec,
    RegressorCodec,
    TaggerCodec,
    WordTokenizer,
)
from anaphora.models import (
    EncoderDecoder,
    LanguageModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
)

TEXT = "to be or not to be, that is the question:\nwhether 'tis nobler in the mind to suffer\n"

if importlib.util.find_spec("starlette") is None:  # the extra `serve` is not installed
    collect_ignore_glob = ["test_*.py"]
else:
    from anaphora.serve import ServedModel, Server, running


def save(folder, model, codec):
    model.codec = codec
    model.save(folder)
    return folder


def language_model(tokenizer, seed=5, **options):
    random.seed(seed)
    return LanguageModel(
        tokenizer.vocabulary_size, hidden_size=16, num_layers=2, initialization=0.5, **options
    )


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A directory with a model for each name."""
    root = tmp_path_factory.mktemp("served")
    characters, words = (
        CharacterTokenizer.fit(TEXT),
        WordTokenizer.fit([TEXT, "to be or not\n"], minimum_count=2),
    )
    random.seed(4)
    classifier = ClassifierCodec.fit([("to be", "yes"), ("not to be", "no")])
    tagger = TaggerCodec.fit([(["to", "be"], ["A", "B"]), (["not", "to"], ["C", "A"])])
    regressor = RegressorCodec.fit([("to be", (20.0,)), ("not to be", (40.0,))])
    pairs = PairCodec.fit(
        [("to be", "zu sein"), ("not", "nicht")],
        fit_tokenizer=lambda lines: WordTokenizer.fit(lines),
    )
    series = ClassifierCodec(("falling", "rising"), mean=np.array([2.0, -1.0]), scale=np.ones(2))
    numbers = RegressorCodec.fit(
        [(np.eye(2) + k, (float(k), 2.0 * k)) for k in range(4)], targets=("a", "b")
    )
    small = {"hidden_size": 6, "initialization": 0.5}
    models = {
        "characters": (language_model(characters), characters),
        "words": (language_model(words), words),
        "classifier": (SequenceClassifier(**classifier.sizes(), **small), classifier),
        "tagger": (SequenceTagger(**tagger.sizes(), crf=True, **small), tagger),
        "regressor": (SequenceRegressor(**regressor.sizes(), **small), regressor),
        "translator": (
            EncoderDecoder(**pairs.sizes(), **small),
            pairs,
        ),
        "series": (SequenceClassifier(**series.sizes(), **small), series),
        "numbers": (SequenceRegressor(**numbers.sizes(), **small), numbers),
    }
    return {name: save(root / name, *pair) for name, pair in models.items()}


class Client:
    """Sends requests to a server; no library between it and the tests."""

    def __init__(self, address):
        self.address = address

    def send(self, path, data=None, headers=None, method=None):
        """The status, the headers and the body of an answer."""
        given = {"Content-Type": "application/json"} if data is not None else {}
        body = data if isinstance(data, bytes | None) else json.dumps(data).encode()
        request = urllib.request.Request(
            self.address + path, body, {**given, **(headers or {})}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def get(self, path):
        status, _, body = self.send(path)
        assert status == 200, body
        return json.loads(body)

    def post(self, path, **data):
        status, _, body = self.send(path, data)
        assert status == 200, body
        return json.loads(body)

    def refused(self, path, status=400, **data):
        """The error of a request that is refused."""
        found, headers, body = self.send(path, data)
        assert (found, headers["Content-Type"]) == (status, "application/json"), body
        error = json.loads(body)["error"]
        assert list(error) == ["message", "type", "param", "code"]
        return error

    def events(self, **data):
        """The chunks of a streamed completion."""
        status, headers, body = self.send("/v1/completions", {"stream": True, **data})
        assert status == 200, body
        assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
        events = body.decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.fixture(scope="session")
def client(folders):
    """A client of a server with all models."""
    models = [ServedModel.load(folder) for folder in folders.values()]
    with running(Server(models)) as address:
        yield Client(address)


@pytest.fixture
def serve(folders):
    """Starts servers of some models, given them or their names, and the arguments of `Server`."""
    with contextlib.ExitStack() as stack:

        def start(names=("characters",), *arguments, **options):
            models = [
                name if isinstance(name, ServedModel) else ServedModel.load(folders[name])
                for name in names
            ]
            server = Server(models, *arguments, **options)
            client = Client(stack.enter_context(running(server)))
            client.server = server
            return client

        yield start
