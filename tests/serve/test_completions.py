"""/v1/completions: the answers of the model itself, in OpenAI's shape."""

import dataclasses
import re
import threading

import pytest

from anaphora import engine
from anaphora.generation import Sampler, generate, generate_batch, next_tokens, score
from anaphora.models import LanguageModel
from anaphora.serve import Limits

pytestmark = pytest.mark.skipif(
    engine.info()["engine"] != "native", reason="NumPy's bits depend on the batch"
)

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def model(folders):
    return LanguageModel.load(folders["characters"])


def expected(model, prompt, length, sampler=None, **options):
    return "".join(generate(model, model.codec, prompt, length, sampler, **options))


def test_the_shape(client, model):
    answer = client.post(PATH, model="characters", prompt="to be", seed=3)
    (choice,) = answer.pop("choices")
    assert re.fullmatch("cmpl-[0-9a-f]{32}", answer.pop("id"))
    assert answer.pop("created") > 1.7e9
    assert re.fullmatch("[0-9a-f]{16}", answer.pop("system_fingerprint"))
    cached = answer["usage"].pop("prompt_tokens_details")
    assert list(cached) == ["cached_tokens"]
    assert answer == {
        "object": "text_completion",
        "model": "characters",
        "usage": {"prompt_tokens": 5, "completion_tokens": 16, "total_tokens": 21},
    }
    assert "to be" + choice.pop("text") == expected(model, "to be", 16, Sampler(seed=3))
    assert choice == {"index": 0, "logprobs": None, "finish_reason": "length"}


OPTIONS = {
    "temperature": ({"temperature": 0.5}, Sampler(temperature=0.5)),
    "greedy": ({"temperature": 0}, Sampler(temperature=0)),
    "top_k": ({"top_k": 3}, Sampler(top_k=3)),
    "top_p": ({"top_p": 0.5}, Sampler(top_p=0.5)),
    "repetition_penalty": ({"repetition_penalty": 1.5}, Sampler(repetition_penalty=1.5)),
    "no_repeat_ngram": ({"no_repeat_ngram": 2}, Sampler(no_repeat_ngram=2)),
    "logit_bias": (
        {"logit_bias": {"7": 2.5, "3": -100}},
        Sampler(logit_bias=((3, -100.0), (7, 2.5))),
    ),
    "nothing": (
        {"suffix": None, "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "n": 1,
         "stop": None, "logit_bias": {}, "stream_options": None, "echo": None},
        Sampler(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_those_of_the_sampler(client, model, name):
    options, sampler = OPTIONS[name]
    sampler = dataclasses.replace(sampler, seed=11)
    text = expected(model, "to be", 40, sampler)
    asked = {"model": "characters", "prompt": "to be", "max_tokens": 40, "seed": 11, **options}
    assert "to be" + client.post(PATH, **asked)["choices"][0]["text"] == text
    plain = expected(model, "to be", 40, Sampler(seed=11))
    assert (text == plain) == (name == "nothing")  # the option counts


def test_prompts_of_all_forms(client, model):
    texts = ["to be", "", "whether"]
    ids = [model.codec.encode(text).tolist() for text in texts]
    expected = list(generate_batch(model, model.codec, texts, 12, Sampler(seed=5)))
    for prompt in (texts, ids):
        answer = client.post(
            PATH, model="characters", prompt=prompt, seed=5, max_tokens=12, echo=True
        )
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
        assert [choice["text"] for choice in answer["choices"]] == expected
        assert answer["usage"]["prompt_tokens"] == 12
        assert answer["usage"]["completion_tokens"] == 36
    for prompt in (texts[0], ids[0], [texts[0]], [ids[0]]):
        answer = client.post(PATH, model="characters", prompt=prompt, seed=5, max_tokens=12)
        assert texts[0] + answer["choices"][0]["text"] == expected[0]
    for prompt in (None, "", [[]]):
        answer = client.post(PATH, model="characters", prompt=prompt, seed=6, max_tokens=12)
        assert answer["choices"][0]["text"] == expected[1]


def test_several_choices_have_consecutive_seeds(client, model):
    answer = client.post(
        PATH, model="characters", prompt=["to", "be"], n=3, seed=20, max_tokens=9, best_of=3
    )
    texts = [choice["text"] for choice in answer["choices"]]
    prompts = ["to"] * 3 + ["be"] * 3
    for k, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        assert prompt + text == expected(model, prompt, 9, Sampler(seed=20 + k))
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 54


def test_without_a_seed_texts_differ(client):
    texts = {
        client.post(PATH, model="characters", prompt="to", max_tokens=50)["choices"][0]["text"]
        for _ in range(5)
    }
    assert len(texts) == 5


def test_a_stop_text_ends_a_choice(client, model):
    full = expected(model, "to be", 200, Sampler(seed=3))[5:]
    stop = [full[40:43], full[60:62]]
    text = full[: min(full.index(one) for one in stop)]
    for stream in (False, True):
        asked = {
            "model": "characters", "prompt": "to be", "seed": 3, "max_tokens": 200, "stop": stop,
        }  # fmt: skip
        if stream:
            chunks = client.events(**asked)
            found = "".join(chunk["choices"][0]["text"] for chunk in chunks)
            reason = chunks[-1]["choices"][0]["finish_reason"]
        else:
            (choice,) = client.post(PATH, **asked)["choices"]
            found, reason = choice["text"], choice["finish_reason"]
        assert (found, reason) == (text, "stop")


def test_a_stream_has_one_id_and_the_text_of_the_answer(client, model):
    asked = {
        "model": "characters", "prompt": ["to", "be"], "n": 2, "seed": 8, "max_tokens": 30,
        "logprobs": 2, "echo": True,
    }  # fmt: skip
    whole = client.post(PATH, **asked)
    chunks = client.events(**asked, stream_options={"include_usage": True})
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert len({chunk["created"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    *chunks, last = chunks
    assert last["choices"] == []
    for usage in (last["usage"], whole["usage"]):
        del usage["prompt_tokens_details"]
    assert last["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks)
    for choice in whole["choices"]:
        parts = [
            part
            for chunk in chunks
            for part in chunk["choices"]
            if part["index"] == choice["index"]
        ]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [part["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
        assert parts[-1]["finish_reason"] == choice["finish_reason"] == "length"
        for name, values in choice["logprobs"].items():
            assert [one for part in parts for one in part["logprobs"][name]] == values
        assert len(values) == 32
    assert "usage" not in client.events(**asked)[-1] or client.events(**asked)[-1]["choices"]


def test_log_probabilities_of_a_prompt_are_those_of_score(client, model):
    line = "to be or not to be"
    (found,) = score(model, model.codec, [line])
    for max_tokens in (0, 1):
        answer = client.post(
            PATH, model="characters", prompt=f"\n{line}\n", echo=True, logprobs=3,
            max_tokens=max_tokens,
        )  # fmt: skip
        (choice,) = answer["choices"]
        logprobs = choice["logprobs"]
        size = len(line) + 2
        assert len(logprobs["tokens"]) == size + max_tokens
        assert logprobs["token_logprobs"][1:size] == found.log_probabilities.tolist()
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert logprobs["text_offset"] == list(range(size + max_tokens))
        assert answer["usage"]["completion_tokens"] == max_tokens
    first = next_tokens(model, model.codec, "\n", 3)
    top = logprobs["top_logprobs"][1]
    assert [one.token for one in first] == list(top)[:3]
    assert logprobs["top_logprobs"][1][logprobs["tokens"][1]] == logprobs["token_logprobs"][1]


def test_log_probabilities_of_words_have_the_spaces_of_the_text(client, folders):
    model = LanguageModel.load(folders["words"])
    (found,) = score(model, model.codec, ["to be or not"])
    (choice,) = client.post(
        PATH, model="words", prompt="to be or not\n", echo=True, logprobs=1, max_tokens=0
    )["choices"]
    # The model reads a line end before the prompt, and so scores its first word too.
    assert choice["logprobs"]["tokens"][:2] == ["to", " be"]
    assert choice["logprobs"]["tokens"][-1] == "\n"
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["logprobs"]["token_logprobs"] == found.log_probabilities.tolist()
    assert choice["logprobs"]["text_offset"][:3] == [0, 2, 5]


def test_max_tokens_0_without_log_probabilities(client):
    (choice,) = client.post(PATH, model="characters", prompt="to be", echo=True, max_tokens=0)[
        "choices"
    ]
    assert choice == {"index": 0, "text": "to be", "logprobs": None, "finish_reason": "length"}
    (choice,) = client.post(PATH, model="characters", prompt="to", max_tokens=0)["choices"]
    assert choice["text"] == ""


def test_the_unknown_token_is_never_written(client):
    answer = client.post(PATH, model="words", prompt="to be", max_tokens=400, seed=1)
    assert "<unk>" not in answer["choices"][0]["text"]


def test_an_answer_does_not_depend_on_who_else_is_served(client, model):
    found = {}

    def ask(number):
        prompt = "to be or not to be, that"[: 1 + number]
        answer = client.post(
            PATH, model="characters", prompt=prompt, seed=number, max_tokens=60, logprobs=1
        )
        found[number] = (prompt, answer["choices"][0])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for number, (prompt, choice) in found.items():
        text = expected(model, prompt, 60, Sampler(seed=number))
        assert prompt + choice["text"] == text
        alone = client.post(
            PATH, model="characters", prompt=prompt, seed=number, max_tokens=60, logprobs=1
        )["choices"][0]
        assert choice == alone  # the log-probabilities too


REFUSED = {
    "an unknown field": (
        {"temprature": 1},
        "temprature",
        r"the field 'temprature' is unknown; expected model, prompt, max_tokens, .*",
    ),
    "suffix": ({"suffix": "x"}, "suffix", "suffix: the model reads what comes before, .*"),
    "best_of": ({"best_of": 2}, "best_of", "best_of: choices are not ranked; omit it, .*"),
    "presence_penalty": ({"presence_penalty": 0.1}, "presence_penalty", "presence_penalty: .*"),
    "frequency_penalty": ({"frequency_penalty": -1}, "frequency_penalty", "frequency_penalty: .*"),
    "user": ({"user": "me"}, "user", "user: nothing is kept about users; omit it"),
    "messages": ({"messages": []}, "messages", "messages: there are no chats; .*"),
    "temperature": ({"temperature": -1}, "temperature", "temperature is -1; expected float >= 0.0"),
    "a text": ({"temperature": "1"}, "temperature", "temperature is '1'; expected float.*"),
    "top_p": ({"top_p": 0}, "top_p", "top_p is 0; expected float > 0.0"),
    "top_k": ({"top_k": -1}, "top_k", "top_k is -1; expected int >= 0"),
    "n": ({"n": 0}, "n", "n is 0; expected int >= 1"),
    "choices": ({"n": 129}, "n", "1 prompts with n 129 have 129 choices; at most 128 .*"),
    "max_tokens": ({"max_tokens": -1}, "max_tokens", "max_tokens is -1; expected int >= 0"),
    "too many": ({"max_tokens": 20_000}, "max_tokens", "max_tokens is 20,000; at most 16,384 .*"),
    "stop": ({"stop": ["a", ""]}, "stop", r"stop\[1\] is ''; expected str of length >= 1"),
    "seed": ({"seed": -4}, "seed", "seed is -4; expected int >= 0"),
    "logprobs": ({"logprobs": 21}, "logprobs", "logprobs is 21; expected int <= 20"),
    "a bias": ({"logit_bias": {"3": 101}}, "logit_bias", "logit_bias.3 is 101; expected .*"),
    "a token": ({"logit_bias": {"a": 1}}, "logit_bias", "logit_bias has the entry 'a'; .*"),
    "no token": ({"logit_bias": {"99": 1}}, "logit_bias", "logit_bias has the id 99; this .*"),
    "stream_options": (
        {"stream_options": {"include_usage": True}}, "stream_options",
        "stream_options is for streams; give stream true",
    ),
    "an option": (
        {"stream": True, "stream_options": {"include": 1}}, "stream_options",
        "stream_options has the unknown option include",
    ),
    "no prompt": ({"prompt": []}, "prompt", "prompt is an empty list; give a text, or ids"),
    "a mix": ({"prompt": ["a", [1]]}, "prompt", "prompt mixes texts and ids; .*"),
    "an id": ({"prompt": [3, 99]}, "prompt", "prompt has the id 99; this model's ids are 0 to .*"),
    "a character": ({"prompt": "to Ω"}, "prompt", "the character 'Ω' .* is not in the vocab.*"),
    "a number": ({"prompt": 3}, "prompt", r"prompt is 3; expected str \| array \| null"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(client, name):
    options, param, message = REFUSED[name]
    error = client.refused(PATH, **{"model": "characters", "prompt": "to", **options})
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert re.fullmatch(message, error["message"]), error["message"]


def test_prompts_that_are_too_long_are_refused(serve):
    client = serve(["characters"], Limits(prompt_tokens=10))
    client.post(PATH, prompt=["to be", "or no"], max_tokens=0)
    error = client.refused(PATH, prompt=["to be,", "or no"])
    assert error["message"] == "the prompts have 11 tokens; at most 10 are allowed"
    assert error["code"] == "context_length_exceeded"


# Held units


HELD = [("c", 0, 3, 4.0), ("h", 1, 15, -2.5)]  # state, layer, unit, value


def with_held(model, prompt, length):
    """The most likely continuation, by a session whose state is changed before each step."""
    session = model.session()
    ids = model.codec.encode(prompt).tolist()
    if ids[:-1]:
        session.feed(ids[:-1])
    written = ids[-1:]
    for _ in range(length):
        state = session.state_dict()
        for name, layer, unit, value in HELD:
            state[name][layer, unit] = value
        session.load_state_dict(state)
        written.append(int(session.feed(written[-1]).argmax()))
    return model.codec.decode(written[1:])


def hold(*held):
    return [
        {"state": f"{name}_l{layer}", "unit": unit, "value": value}
        for name, layer, unit, value in held
    ]


def test_held_units_have_their_value_before_each_step(serve, model):
    client = serve()
    texts = ["to be", "t", "not to be that question"]
    asked = {"max_tokens": 20, "temperature": 0}
    expected_texts = [with_held(model, text, 20) for text in texts]
    free = [generated(client, prompt=text, **asked) for text in texts]
    for _ in range(2):  # the second time the prompts' states are cached
        for text, found in zip(texts, expected_texts, strict=True):
            assert generated(client, prompt=text, **asked, hold=hold(*HELD)) == found
    assert expected_texts != free
    choices = client.post(PATH, prompt=texts, **asked, hold=hold(*HELD))["choices"]
    assert [one["text"] for one in choices] == expected_texts
    # What was held leaves nothing behind.
    assert [generated(client, prompt=text, **asked) for text in texts] == free
    for text, held in zip(texts, expected_texts, strict=True):
        again = generated(client, prompt=text + held, **asked)
        assert again == expected(model, text + held, 20, Sampler(temperature=0))[len(text + held) :]


def generated(client, **asked):
    (choice,) = client.post(PATH, **asked)["choices"]
    return choice["text"]


@pytest.mark.parametrize(
    ("entry", "options", "message"),
    [
        (("i", 0, 3, 1.0), {}, "hold has 'i_l0'; the states of this model are h_l0, c_l0, .*"),
        (("c", 2, 3, 1.0), {}, "hold has 'c_l2'; the states .*"),
        (("c", 1, 16, 1.0), {}, "hold has the unit 16; c_l1 has the units 0 to 15"),
        (("c", 1, 1, 1.0), {"echo": True, "logprobs": 1}, "hold does not go with echo and .*"),
        (("c", 1, 1, 1e7), {}, r"hold\[0\]\.value is 10000000\.0; expected .*"),
    ],
)
def test_holds_that_are_refused(client, entry, options, message):
    error = client.refused(PATH, model="characters", prompt="to", hold=hold(entry), **options)
    assert error["param"] == "hold"
    assert re.fullmatch(message, error["message"]), error["message"]
