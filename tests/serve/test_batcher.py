"""Continuing many prompts at once: each as if it were alone."""

import dataclasses
import threading

import numpy as np
import pytest

from anaphora import engine, random
from anaphora.data import BPETokenizer, CharacterTokenizer, WordTokenizer
from anaphora.generation import Sampler, generate, score
from anaphora.generation.generate import prompt_ids
from anaphora.generation.scoring import most_likely
from anaphora.models import LanguageModel
from anaphora.serve import batcher as module
from anaphora.serve.batcher import Batcher, Prompt, Request

TEXT = "to be or not to be, that is the question:\nwhether 'tis nobler in the mind to suffer\n"
NATIVE = engine.info()["engine"] == "native"

pytestmark = pytest.mark.skipif(not NATIVE, reason="NumPy's bits depend on the batch")


def make(tokenizer, hidden_size=16, **options):
    random.seed(5)
    return LanguageModel(
        tokenizer.vocabulary_size,
        hidden_size=hidden_size,
        num_layers=2,
        initialization=2 / hidden_size**0.5,
        **options,
    ).eval()


@pytest.fixture(scope="module")
def characters():
    return CharacterTokenizer.fit(TEXT)


@pytest.fixture(scope="module")
def model(characters):
    return make(characters)


def ask(tokenizer, text, samplers, max_tokens, **options):
    shown, context = prompt_ids(tokenizer, text)
    return Prompt(shown=shown, context=context, samplers=samplers, max_tokens=max_tokens, **options)


def run(batcher, *requests, steps=10**6):
    """Work in this thread."""
    for request in requests:
        batcher.ask(request)
    while (batcher.busy() or batcher.waiting) and steps:
        batcher.step()
        steps -= 1


def text_of(request, choice=0):
    return "".join(piece.text for piece in request.pieces if piece.choice == choice)


def reasons(request):
    return [piece.finish_reason for piece in request.pieces if piece.finish_reason]


SAMPLERS = [
    Sampler(seed=1),
    Sampler(seed=2, temperature=0.5),
    Sampler(seed=3, temperature=0),
    Sampler(seed=4, top_k=3),
    Sampler(seed=5, top_p=0.7),
    Sampler(seed=6, repetition_penalty=1.3),
    Sampler(seed=7, no_repeat_ngram=4),
    Sampler(seed=8, logit_bias=((3, 1.5), (4, -9.0))),
    Sampler(seed=9, excluded=(0, 2)),
]


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {}),
        (1, {"cell": "gru"}),
        (2, {"dtype": "float64"}),
        (3, {"hidden_size": 128}),  # from 96 on, tile registers multiply in fixed point
        (4, {"hidden_size": 128, "layer_norm": True}),
    ],
)
def test_answers_are_those_of_generate_whoever_else_is_served(characters, seed, options):
    model = make(characters, **options)
    rng = np.random.default_rng(seed)
    batcher = Batcher(model, characters, max_batch_size=5, cache_bytes=20_000)
    asked = []
    for number in range(40):
        start = int(rng.integers(0, 20))
        text = TEXT[start : start + int(rng.choice([0, 1, 2, 17, 40]))]
        sampler = dataclasses.replace(SAMPLERS[number % len(SAMPLERS)], seed=number)
        length = int(rng.integers(0, 30))
        stop = ["e", "the q"] if rng.random() < 0.3 else []
        prompt = ask(characters, text, [sampler], length, stop=stop)
        request = Request([prompt], streams=bool(rng.random() < 0.5))
        asked.append((request, text, length, sampler, stop))
        batcher.ask(request)
        for _ in range(int(rng.integers(0, 12))):
            if batcher.busy() or batcher.waiting:
                batcher.step()
    run(batcher)
    for request, text, length, sampler, stop in asked:
        expected = "".join(generate(model, characters, text, length, sampler, stop=stop))
        assert request.done
        assert text + text_of(request) == expected
    assert batcher.cache.bytes <= 20_000
    assert sum(request.cached_tokens for request, *_ in asked) > 0


@pytest.mark.parametrize("level", ["word", "bpe"])
def test_words_and_byte_pairs_are_those_of_generate(level):
    text = "☃ " + TEXT
    if level == "bpe":
        pytest.importorskip("tokenizers")
        tokenizer = BPETokenizer.fit([text], vocabulary_size=258)
    else:
        tokenizer = WordTokenizer.fit([text])
    model = make(tokenizer)
    batcher = Batcher(model, tokenizer)
    texts = ["", "to be", "not to be, that\n", "☃", "☃ to"]
    requests = [
        Request([ask(tokenizer, one, [Sampler(seed=4)], 25)], streams=False) for one in texts
    ]
    run(batcher, *requests)
    for one, request in zip(texts, requests, strict=True):
        expected = "".join(generate(model, tokenizer, one, 25, Sampler(seed=4)))
        prompt = tokenizer.decode(prompt_ids(tokenizer, one)[0])
        assert prompt + text_of(request) == expected


def test_a_stream_has_the_text_of_the_answer_and_never_a_part_of_a_stop_text(characters, model):
    for seed in range(30):
        prompt = ask(characters, "to be", [Sampler(seed=seed)], 60, stop=["at", "ta", "e b"])
        request = Request([prompt], streams=True)
        batcher = Batcher(model, characters)
        batcher.ask(request)
        given = ""
        expected = "".join(
            generate(model, characters, "to be", 60, Sampler(seed=seed), stop=prompt.stop)
        )
        while not request.done:
            batcher.step()
            while request.pieces:
                piece = request.pieces.popleft()
                given += piece.text
            assert expected.startswith("to be" + given)
        assert "to be" + given == expected
        assert piece.finish_reason == ("stop" if len(expected) < 65 else "length")


def test_the_choices_of_a_prompt_share_its_reading_and_have_their_own_seeds(characters, model):
    samplers = [Sampler(seed=seed) for seed in (7, 8, 9)]
    steps = []
    batcher = Batcher(model, characters, observe=steps.append)
    request = Request([ask(characters, "to be or", samplers, 12)], streams=False)
    run(batcher, request)
    for choice, sampler in enumerate(samplers):
        expected = "".join(generate(model, characters, "to be or", 12, sampler))
        assert "to be or" + text_of(request, choice) == expected
    assert sum(one.read for one in steps) == len("to be or")
    assert request.completion_tokens == sum(one.written for one in steps) == 36
    assert reasons(request) == ["length"] * 3


def test_a_prompt_is_read_once_and_a_branch_is_kept_for_the_third(characters, model):
    batcher = Batcher(model, characters)
    shared = TEXT[:30]
    texts = [shared + "q", shared + "w", shared + "'"]
    requests = []
    for text in texts:
        requests.append(Request([ask(characters, text, [Sampler(seed=1)], 5)], streams=False))
        run(batcher, requests[-1])
    assert [request.cached_tokens for request in requests] == [0, 30, 30]
    # After its own continuation the state is carried on.
    longer = texts[0] + text_of(requests[0])
    request = Request([ask(characters, longer, [Sampler(seed=2)], 5)], streams=False)
    run(batcher, request)
    assert request.cached_tokens == len(longer) - 1
    expected = "".join(generate(model, characters, longer, 5, Sampler(seed=2)))
    assert longer + text_of(request) == expected


def test_prompts_that_differ_in_their_middle_share_their_beginning_from_the_third_on(
    characters, model
):
    batcher = Batcher(model, characters)
    found = []
    for end in ("that is the question", "whether 'tis nobler", "in the mind to suffer"):
        prompt = ask(characters, TEXT[:20] + end, [Sampler(seed=1)], 0, echo=False)
        prompt.max_tokens = 1
        request = Request([prompt], streams=False)
        run(batcher, request)
        found.append(request.cached_tokens)
    assert found[0] == found[1] == 0
    assert found[2] >= 20


def test_log_probabilities_of_a_prompt_are_those_of_score(characters, model, monkeypatch):
    monkeypatch.setattr(module, "LONG_PIECE", 8)
    line = TEXT.splitlines()[0]
    (expected,) = score(model, characters, [line])
    for max_tokens in (0, 3):
        prompt = ask(
            characters, f"\n{line}\n", [Sampler(seed=1)], max_tokens, echo=True, logprobs=2
        )
        request = Request([prompt], streams=False)
        run(Batcher(model, characters), request)
        tokens = [token for piece in request.pieces for token in piece.tokens]
        assert len(tokens) == len(line) + 2 + max_tokens
        assert tokens[0][:3] == ("\n", None, None)
        assert [token.text for token in tokens[1 : len(line) + 2]] == expected.tokens
        values = [token.log_probability for token in tokens[1 : len(line) + 2]]
        assert values == expected.log_probabilities.tolist()  # the same bits
        assert [token.offset for token in tokens] == list(range(len(tokens)))
        for token in tokens[1:]:
            assert token.top[token.text] == token.log_probability
            assert len(token.top) in (2, 3)
            assert max(token.top.values()) >= token.log_probability
        assert text_of(request)[: len(line) + 2] == f"\n{line}\n"
        assert request.completion_tokens == max_tokens


def test_tokens_cut_off_by_a_stop_text_are_not_given(characters, model):
    sampler = Sampler(seed=3)
    full = "".join(generate(model, characters, "to", 30, sampler))[2:]
    stop = full[10:13]
    at = full.index(stop)
    prompt = ask(characters, "to", [sampler], 30, stop=[stop], logprobs=0)
    request = Request([prompt], streams=True)
    run(Batcher(model, characters), request)
    tokens = [token for piece in request.pieces for token in piece.tokens]
    assert "".join(token.text for token in tokens) == text_of(request) == full[:at]
    assert [token.offset for token in tokens] == list(range(2, 2 + at))
    assert reasons(request) == ["stop"]
    assert request.completion_tokens == at + 3
    for piece in request.pieces:
        assert "".join(token.text for token in piece.tokens) == piece.text


def test_tokens_that_are_parts_of_characters_are_named_by_their_bytes():
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer.fit(["a\n"], vocabulary_size=256)
    prompt = ask(tokenizer, "a☃b", [Sampler(seed=1)], 0, echo=True, logprobs=0)
    request = Request([prompt], streams=False)
    run(Batcher(make(tokenizer), tokenizer), request)
    tokens = request.pieces[0].tokens
    assert [token.text for token in tokens] == [
        "a", r"bytes:\xe2", r"bytes:\x98", r"bytes:\x83", "b",
    ]  # fmt: skip
    assert [token.offset for token in tokens] == [0, 1, 1, 1, 2]


def test_one_failing_choice_fails_its_request_alone(characters, model):
    good = Request([ask(characters, "to", [Sampler(seed=1)], 30)], streams=False)
    # After some ids every token would complete a bigram that occurred before.
    bad = Request([ask(characters, TEXT, [Sampler(seed=1, no_repeat_ngram=1)], 30)], streams=False)
    run(Batcher(model, characters), good, bad)
    assert bad.error.status == 500
    assert "no_repeat_ngram 1 leaves no token" in str(bad.error)
    assert bad.done
    assert good.error is None
    assert "to" + text_of(good) == "".join(generate(model, characters, "to", 30, Sampler(seed=1)))


def test_cancelled_requests_free_their_places_and_queued_ones_take_them(characters, model):
    batcher = Batcher(model, characters, max_batch_size=2)
    first, second, third = (
        Request([ask(characters, "to", [Sampler(seed=n)], 500)], streams=False) for n in range(3)
    )
    for request in (first, second, third):
        batcher.ask(request)
    for _ in range(5):
        batcher.step()
    assert [request.completion_tokens > 0 for request in (first, second, third)] == [1, 1, 0]
    first.cancelled = True
    batcher.step()
    count = first.completion_tokens
    batcher.step()
    assert third.completion_tokens > 0
    assert first.completion_tokens == count
    second.cancelled = third.cancelled = True
    batcher.step()
    assert not batcher.busy()


def test_a_full_queue_refuses_but_never_what_finds_it_empty(characters, model):
    batcher = Batcher(model, characters, max_batch_size=1, max_queue=2)
    many = [ask(characters, "to", [Sampler(seed=n)], 3) for n in range(4)]
    for prompt in many[:3]:  # one can be written, two may wait
        batcher.ask(Request([prompt], streams=False))
    with pytest.raises(module.RequestError, match="3 requests are waiting already"):
        batcher.ask(Request(many[3:], streams=False))
    run(batcher)
    batcher.ask(Request(many, streams=False))
    with pytest.raises(module.RequestError, match="4 requests are waiting already") as caught:
        batcher.ask(Request(many[:1], streams=False))
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert caught.value.headers == {"Retry-After": "1"}


def test_an_error_of_the_engine_reaches_whoever_waits_and_the_thread_goes_on(
    characters, model, monkeypatch, caplog
):
    batcher = Batcher(model, characters, name="mine")
    request = Request([ask(characters, "to", [Sampler()], 3)], streams=False)
    with monkeypatch.context() as patched:
        patched.setattr(batcher, "_feed", lambda *_: 1 / 0)
        run(batcher, request)
    assert str(request.error) == "the server failed: ZeroDivisionError: division by zero"
    assert "a step of anaphora-mine failed\nTraceback" in caplog.text
    with monkeypatch.context() as patched:  # before it is read
        patched.setattr(module, "_Reader", lambda *_: 1 / 0)
        request = Request([ask(characters, "to", [Sampler()], 3)] * 2, streams=False)
        run(batcher, request)
    assert request.error.status == 500
    again = Request([ask(characters, "to", [Sampler()], 3)], streams=False)
    run(batcher, again)
    assert again.error is None
    assert again.completion_tokens == 3


def test_closing_finishes_what_was_asked(characters, model):
    batcher = Batcher(model, characters, max_batch_size=2)
    batcher.start()
    requests = [
        Request([ask(characters, "to", [Sampler(seed=n)], 40)], streams=False) for n in range(7)
    ]
    for request in requests:
        batcher.ask(request)
    batcher.close()
    assert all(request.done and request.completion_tokens == 40 for request in requests)
    assert batcher not in threading.enumerate()
    with pytest.raises(module.RequestError, match="shutting down") as caught:
        batcher.ask(requests[0])
    assert caught.value.status == 503


def test_the_most_likely_ids_are_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 6, 12).astype(np.float32)
        order = np.argsort(-scores, kind="stable").tolist()
        for count in (0, 1, 5, 12, 20):
            assert most_likely(scores, count) == order[:count]


def test_a_long_prompt_does_not_hold_up_what_is_written(characters, model):
    steps = []
    batcher = Batcher(model, characters, observe=steps.append)
    writing = Request([ask(characters, "to", [Sampler(seed=1)], 100)], streams=False)
    batcher.ask(writing)
    run(batcher, steps=2)
    long = TEXT * 10
    reading = [
        Request([ask(characters, long[k:], [Sampler(seed=2)], 3)], streams=False) for k in range(3)
    ]
    for request in reading:
        batcher.ask(request)
    before = len(steps)
    while batcher._readers or batcher.waiting:
        batcher.step()
        assert steps[-1].read <= 3 * module.SHORT_PIECE
    assert writing.completion_tokens == len(steps) - 1  # one in every step, as before
    assert len(steps) - before >= (len(long) - 2) // module.SHORT_PIECE
    run(batcher)
    for k, request in enumerate(reading):
        expected = "".join(generate(model, characters, long[k:], 3, Sampler(seed=2)))
        assert long[k:] + text_of(request) == expected


@pytest.mark.parametrize("most", [1, 50, 500])
def test_prompts_whose_tokens_are_scored_are_read_in_pieces_whose_logits_fit(
    characters, model, most, monkeypatch
):
    def tokens():
        batcher = Batcher(model, characters)
        shapes = []
        feed = batcher._feed

        def recorded(rows, size, scored):
            shapes.append((size, len(rows)))
            return feed(rows, size, scored)

        monkeypatch.setattr(batcher, "_feed", recorded)
        prompts = [
            ask(characters, text, [Sampler(seed=1)], 0, echo=True, logprobs=1)
            for text in (TEXT, TEXT[7:])
        ]
        request = Request(prompts, streams=False)
        run(batcher, request)
        return shapes, [piece.tokens for piece in request.pieces]

    _, expected = tokens()
    monkeypatch.setattr(module, "_MOST_LOGITS", most)
    shapes, found = tokens()
    for size, rows in shapes:
        assert size == 1 or size * rows * characters.vocabulary_size <= most
    assert sorted(found) == sorted(expected)
