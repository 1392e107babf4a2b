"""What clients send and get, as types: they check requests, and are the OpenAPI document."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from anaphora import schema
from anaphora.serve.errors import RequestError

Id = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
MOST_LOGPROBS = 20
"""The number of most likely tokens that a client may ask for."""

_ID = re.compile(r"(0|[1-9][0-9]{0,8})")

Kind = TypeVar("Kind", bound=msgspec.Struct)


class Message(msgspec.Struct, omit_defaults=False):
    """The base of answers."""


class Question(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The base of requests.

    Attributes:
        model: The name of a served model; it may be omitted if there is only one.
    """

    model: str | None = None


# Completions, in the shape of OpenAI's


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of a streamed answer.

    Attributes:
        include_usage: Whether a last chunk has the number of tokens.
    """

    include_usage: bool | None = None


class Hold(msgspec.Struct, forbid_unknown_fields=True):
    """A unit of a state that is held at a value.

    Attributes:
        state: The name of the state and its layer, such as ``c_l0``.
        unit: The number of the unit.
        value: The value.
    """

    state: str
    unit: Id
    value: Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class CompletionRequest(Question, kw_only=True):
    """A request to continue prompts; null is as good as omitting a field.

    Attributes:
        prompt: A text, token ids, or a list of either; without it, the beginning of a line.
        max_tokens: Tokens to write; 16 if omitted, and 0 writes none.
        temperature: Divides the logits; 0 always takes the most likely token.
        top_p: The probability that the nucleus reaches.
        top_k: The number of most likely tokens to sample from; 0 for all.
        n: Choices for each prompt.
        stop: Texts before which a choice ends.
        seed: The same seed gives the same text; choice k has the seed + k.
        echo: Whether the text begins with the prompt.
        logprobs: The number of most likely tokens to give with each token.
        logit_bias: Numbers to add to logits, by token id.
        stream: Whether the answer comes in events, as it is written.
        stream_options: Options of a stream.
        repetition_penalty: Above 1 makes tokens that occurred before less likely.
        no_repeat_ngram: The n of n-grams that must not repeat; 0 allows all.
        hold: Units of states to set to a value before each step, from that of the last token of the
            prompt on.
        frequency_penalty: Not offered: 0.
        presence_penalty: Not offered: 0.
        best_of: Not offered: the same as n.
        suffix: Not offered: empty.
    """

    prompt: str | list[str | Id | list[Id]] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    stop: Text | Annotated[list[Text], msgspec.Meta(max_length=16)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_LOGPROBS)] | None = None
    logit_bias: (
        dict[
            Annotated[str, msgspec.Meta(pattern=f"^{_ID.pattern}$")],
            Annotated[float, msgspec.Meta(ge=-100, le=100)],
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=100)] | None = None
    no_repeat_ngram: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    hold: Annotated[list[Hold], msgspec.Meta(max_length=64)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=0, le=0)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    suffix: Literal[""] | None = None


class Logprobs(Message):
    """The tokens of a text with their log-probabilities, in nats.

    Attributes:
        tokens: Their texts.
        token_logprobs: Null for a first token without context.
        top_logprobs: The log-probabilities of the most likely tokens, by text.
        text_offset: Where each token begins in prompt and text, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(Message):
    """A continuation of a prompt, or in a stream more of it."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class PromptTokensDetails(Message):
    """How many tokens of the prompts were not read again, because their state was kept."""

    cached_tokens: int


class Usage(Message):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Completion(Message):
    """The answer to a `CompletionRequest`, or a chunk of it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage | None = None


# Tokens


class TokenizeRequest(Question, kw_only=True):
    """A text to encode.

    Attributes:
        prompt: The text.
        add_special_tokens: Whether to add the ids that a model reads before a text; false if
            omitted.
    """

    prompt: str
    add_special_tokens: bool | None = None


class Tokenized(Message):
    """Token ids.

    Attributes:
        tokens: The ids.
        count: Their number.
        unknown: Words or characters of the text that are not in the vocabulary, with their number.
    """

    tokens: list[int]
    count: int
    unknown: dict[str, int]


class DetokenizeRequest(Question, kw_only=True):
    """Ids to decode."""

    tokens: list[Id]


class Detokenized(Message):
    """The text of ids."""

    prompt: str


# Predictions


class PredictRequest(Question, kw_only=True):
    """Inputs to predict for.

    Attributes:
        input: A text or a list of texts; for a tagger also a list of sentences, each a list of
            words; for a model of series a series [T][I], or a list of such.
        inside: Whether the prediction, of one input, has an entry "inside": the attention of a
            translator [targets][steps], or the states of another model over time, each [T][H].
    """

    input: str | list[Any]
    inside: bool | None = None


class Predictions(Message):
    """A prediction for each input, with the entries of ``anaphora predict --json``."""

    object: Literal["list"]
    model: str
    data: list[dict[str, Any]]


# Looking inside


class InspectRequest(Question, kw_only=True):
    """A text to read while looking at the model.

    Attributes:
        prompt: A text, or token ids.
        values: The names of states and gates to give, such as ``c_l0``; none if omitted.
        units: The numbers of their units; all if omitted.
        top: The number of most likely next tokens after each token; 5 if omitted.
        connectivity: The position of a token: how much the best guess after it depends on each
            token before.
        start: The position of the first token to look at, 0 if omitted, and the last one if there
            are fewer; a text that goes on as an earlier one is read on from a state that was kept.
        span: The position of a first token and that after a last one: which units switch on or off
            there, and where else they do.
    """

    prompt: str | list[Id]
    values: list[str] | None = None
    units: list[Id] | None = None
    top: Annotated[int, msgspec.Meta(ge=0, le=MOST_LOGPROBS)] | None = None
    connectivity: Id | None = None
    start: Id | None = None
    span: Annotated[list[Id], msgspec.Meta(min_length=2, max_length=2)] | None = None


class Value(Message):
    """A state or gate of a layer.

    Attributes:
        name: Its name in the cell's equations, and its layer, such as ``c_l0``.
        kind: Whether it is a state.
        layer: The number of the layer, from 0.
        units: The number of its units.
    """

    name: str
    kind: Literal["state", "gate"]
    layer: int
    units: int


class NextToken(Message):
    """A candidate for the next token.

    Attributes:
        id: Its id.
        token: How it is shown.
        text: What it adds to the text, a space before a word for example.
        probability: Its probability.
    """

    id: int
    token: str
    text: str
    probability: float


class Switch(Message):
    """A unit that switches at both ends of a span.

    Attributes:
        value: The state or gate.
        unit: The number of its unit.
        contrast: The part of its range in the text by which the span is above its neighbors, or
            below them if negative.
    """

    value: str
    unit: int
    contrast: float


class Place(Message):
    """Tokens in which the units of a span are on too.

    Attributes:
        start: The position of the first.
        end: The position after the last.
        share: The mean share of the units that are on.
    """

    start: int
    end: int
    share: float


class Span(Message):
    """The units that switch at both ends of a span, and where else they are on."""

    units: list[Switch]
    places: list[Place]


class Inspection(Message):
    """What a model does while it reads a text of T tokens.

    Attributes:
        model: The model.
        ids: All ids that it reads, which may begin with one that is not shown.
        start: The position of the first token that is looked at.
        opening: How many of them come before the prompt: 0, or 1.
        tokens: Their texts; this and what follows is from `start` on.
        logprobs: The log-probability of each token, in nats; null for the first of a text.
        available: The states and gates.
        values: Those that were asked for, [T - start][units].
        next: The most likely next tokens after each token.
        connectivity: For each token of the whole text the norm of the gradient of the largest logit
            after the position asked for, by the token's embedding; null if it was not asked for.
        span: The units and places of the span; null if it was not asked for.
    """

    model: str
    ids: list[int]
    start: int
    opening: int
    tokens: list[str]
    logprobs: list[float | None]
    available: list[Value]
    values: dict[str, list[list[float]]]
    next: list[list[NextToken]]
    connectivity: list[float] | None
    span: Span | None


# About the server


class Model(Message):
    """A served model.

    Attributes:
        id: Its name.
        object: "model".
        created: When its weights were written, in seconds since 1970.
        owned_by: "anaphora".
        task: Its task, as in ``anaphora train --task``.
        reads: What it reads: texts, sentences as lists of words, or series.
        fingerprint: A digest of its files.
        changed_on_disk: Whether the directory has another model by now, which is not served.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: str
    reads: Literal["text", "words", "series"]
    fingerprint: str
    changed_on_disk: bool


class Models(Message):
    """The served models."""

    object: Literal["list"]
    data: list[Model]


class Health(Message):
    """Whether the server works.

    Attributes:
        status: "ok".
        changed_on_disk: The models whose directory has another model by now.
    """

    status: Literal["ok"]
    changed_on_disk: list[str]


class ErrorDescription(Message):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Message):
    """The answer to a request that failed."""

    error: ErrorDescription


# Reading requests

NOT_OFFERED = {
    "frequency_penalty": "it is not offered; omit it, or use repetition_penalty",
    "presence_penalty": "it is not offered; omit it, or use repetition_penalty",
    "best_of": "choices are not ranked; omit it, give n, and compare the logprobs",
    "suffix": "the model reads what comes before, not what comes after; omit it",
    "user": "nothing is kept about users; omit it",
    "messages": "there are no chats; give a prompt to /v1/completions",
    "min_p": "it is not offered; omit it, or use top_p",
    "stop_token_ids": "it is not offered; omit it, or use stop",
    "response_format": "it is not offered; omit it",
    "logits_processors": "it is not offered; omit it, or use logit_bias",
    "max_completion_tokens": "its name here is max_tokens",
}
"""Fields of other servers, and why they are refused."""


def parse(body: bytes, kind: type[Kind]) -> Kind:
    """The request in a body.

    Raises:
        RequestError: it is not JSON, or not such a request; the error names the field.
    """
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(data, dict):
        raise RequestError("the body is not a JSON object", code="invalid_json")
    fields = kind.__struct_fields__
    for name, value in data.items():
        _check_offered(name, value, data, fields)
    _check_biases(data.get("logit_bias"))
    try:
        request: Kind = schema.convert(data, kind)
    except schema.SchemaError as error:
        named = re.match(r"(?:there is no )?(\w+)", str(error))
        param = named[1] if named is not None and named[1] in fields else None
        raise RequestError(str(error), param=param) from error
    return request


def _check_offered(name: str, value: Any, data: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Refuse a field that is not offered, unless its value asks for nothing."""
    reason = NOT_OFFERED.get(name)
    if name not in fields:
        known = ", ".join(fields)
        raise RequestError(
            f"{name[:80]}: {reason}"
            if reason
            else f"the field {name[:80]!r} is unknown; expected {known}",
            param=name[:80],
            code="unknown_field",
        )
    if reason:
        neutral = {"best_of": data.get("n") or 1, "suffix": ""}.get(name, 0)
        if value is not None and (value != neutral or isinstance(value, bool)):
            raise RequestError(f"{name}: {reason}", param=name, code="unsupported_field")


def _check_biases(biases: Any) -> None:
    """Refuse an entry that is not a bias, by name; the general check does not name it."""
    for id, bias in biases.items() if isinstance(biases, dict) else ():
        if not _ID.fullmatch(id):
            raise RequestError(
                f"logit_bias has the entry {id[:80]!r}; expected token ids", param="logit_bias"
            )
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise RequestError(
                f"logit_bias.{id} is {bias!r:.80}; expected a number of -100 to 100",
                param="logit_bias",
            )


def encode(message: Any) -> bytes:
    """A message as JSON; numbers that are not finite become null."""
    return msgspec.json.encode(message, enc_hook=_plain)


def _plain(value: Any) -> Any:
    return value.tolist()  # an array, or a number of NumPy
