"""OpenAI's completions: what a request asks of the batcher, and the answers in its shape."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from anaphora.data import DataError, Tokenizer
from anaphora.generation import Sampler
from anaphora.generation.generate import prompt_ids
from anaphora.serve import messages
from anaphora.serve.batcher import Held, Piece, Prompt, Request
from anaphora.serve.errors import RequestError
from anaphora.serve.models import ServedModel

DEFAULT_MAX_TOKENS = 16  # as OpenAI's


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for.

    Attributes:
        body_bytes: The size of its body.
        prompt_tokens: The tokens of all prompts.
        max_tokens: Tokens to write for a choice.
        choices: Choices, of all prompts.
        seconds: The time that it may take.

    >>> Limits(choices=8).choices
    8
    """

    body_bytes: int = 4 << 20
    prompt_tokens: int = 100_000
    max_tokens: int = 16_384
    choices: int = 128
    seconds: float = 600.0


def to_request(asked: messages.CompletionRequest, served: ServedModel, limits: Limits) -> Request:
    """What the batcher is to do.

    Raises:
        RequestError: the request exceeds a limit, or a token is not in the vocabulary.
    """
    tokenizer: Tokenizer = served.model.codec
    if asked.stream_options is not None and not asked.stream:
        raise RequestError(
            "stream_options is for streams; give stream true", param="stream_options"
        )
    prompts = _prompts(asked.prompt)
    n = asked.n or 1
    if len(prompts) * n > limits.choices:
        raise RequestError(
            f"{len(prompts):,} prompts with n {n:,} have {len(prompts) * n:,} choices; at most "
            f"{limits.choices:,} are allowed",
            param="n" if n > 1 else "prompt",
            code="too_many_choices",
        )
    max_tokens = DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
    if max_tokens > limits.max_tokens:
        raise RequestError(
            f"max_tokens is {max_tokens:,}; at most {limits.max_tokens:,} are allowed",
            param="max_tokens",
            code="too_many_tokens",
        )
    held = [_held(one, served) for one in asked.hold or ()]
    if held and asked.echo and asked.logprobs is not None:
        raise RequestError(
            "hold does not go with echo and logprobs: units are held after the prompt", param="hold"
        )
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    seed = secrets.randbelow(2**63) if asked.seed is None else asked.seed
    found = []
    left = limits.prompt_tokens
    for number, prompt in enumerate(prompts):
        shown, context = encoded(tokenizer, prompt)
        left -= len(shown)
        found.append(
            Prompt(
                shown=shown,
                context=context,
                samplers=[_sampler(asked, tokenizer, seed + number * n + k) for k in range(n)],
                max_tokens=max_tokens,
                first_choice=number * n,
                stop=stop,
                echo=bool(asked.echo),
                logprobs=asked.logprobs,
                held=held,
            )
        )
    if left < 0:
        raise RequestError(
            f"the prompts have {limits.prompt_tokens - left:,} tokens; at most "
            f"{limits.prompt_tokens:,} are allowed",
            param="prompt",
            code="context_length_exceeded",
        )
    return Request(found, streams=bool(asked.stream))


def _held(asked: messages.Hold, served: ServedModel) -> Held:
    """A unit to hold, as the batcher holds it."""
    shapes = served.model.recurrent.state_shapes()
    found = {
        f"{name}_l{layer}": (name, layer, shape[-1])
        for layer in range(served.model.recurrent.num_layers)
        for name, shape in shapes.items()
    }
    if asked.state not in found:
        raise RequestError(
            f"hold has {asked.state[:80]!r}; the states of this model are {', '.join(found)}",
            param="hold",
        )
    name, layer, size = found[asked.state]
    if asked.unit >= size:
        raise RequestError(
            f"hold has the unit {asked.unit}; {asked.state} has the units 0 to {size - 1}",
            param="hold",
        )
    return Held(name, layer, asked.unit, asked.value)


def _prompts(given: Any) -> list[str | list[int]]:
    """The prompts, each a text or ids."""
    if given is None or isinstance(given, str):
        return [given or ""]
    kinds = {type(one) for one in given}
    if kinds == {int}:
        return [given]
    if kinds in ({str}, {list}):
        return list(given)
    raise RequestError(
        "prompt is an empty list; give a text, or ids"
        if not given
        else "prompt mixes texts and ids; give a text, ids, or a list of either",
        param="prompt",
    )


def encoded(tokenizer: Tokenizer, prompt: str | list[int]) -> tuple[list[int], list[int]]:
    """The ids of a prompt, and those that the model reads.

    Raises:
        RequestError: a token is not in the vocabulary.
    """
    size = tokenizer.vocabulary_size
    if not isinstance(prompt, str) and any(id >= size for id in prompt):
        raise RequestError(
            f"prompt has the id {max(prompt)}; this model's ids are 0 to {size - 1}",
            param="prompt",
            code="unknown_token",
        )
    try:
        return prompt_ids(tokenizer, prompt)
    except DataError as error:
        raise RequestError(str(error), param="prompt", code="unknown_token") from error


def _sampler(asked: messages.CompletionRequest, tokenizer: Tokenizer, seed: int) -> Sampler:
    bias = {int(id): float(number) for id, number in (asked.logit_bias or {}).items()}
    size = tokenizer.vocabulary_size
    if bias and max(bias) >= size:
        raise RequestError(
            f"logit_bias has the id {max(bias)}; this model's ids are 0 to {size - 1}",
            param="logit_bias",
        )
    given = {
        "temperature": asked.temperature,
        "top_k": asked.top_k,
        "top_p": asked.top_p,
        "repetition_penalty": asked.repetition_penalty,
        "no_repeat_ngram": asked.no_repeat_ngram,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    unknown = tokenizer.unknown_id
    return Sampler(
        **options,
        seed=seed,
        excluded=() if unknown is None else (unknown,),
        logit_bias=tuple(sorted(bias.items())),
    )


class Answer:
    """The answer to a request, whole or in chunks with one id.

    Args:
        served: The model.
        asked: What was asked.
        request: What the batcher does.
    """

    def __init__(
        self, served: ServedModel, asked: messages.CompletionRequest, request: Request
    ) -> None:
        self.id = f"cmpl-{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._served = served
        self._with_logprobs = asked.logprobs is not None
        options = asked.stream_options
        self._with_usage = options is not None and bool(options.include_usage)
        self._request = request

    def complete(self) -> messages.Completion:
        """The whole answer, when the request is done."""
        return self._message(self._choices(self._request.pieces), self.usage())

    def chunks(self, pieces: Iterable[Piece]) -> list[messages.Completion]:
        """A chunk for the pieces of each choice that have come together."""
        return [self._message([choice]) for choice in self._choices(pieces)]

    def last_chunks(self) -> list[messages.Completion]:
        """The chunk with the usage, if it was asked for."""
        return [self._message([], self.usage())] if self._with_usage else []

    def usage(self) -> messages.Usage:
        """The numbers of tokens."""
        read, written = self._request.prompt_tokens, self._request.completion_tokens
        details = messages.PromptTokensDetails(self._request.cached_tokens)
        return messages.Usage(read, written, read + written, details)

    def _message(
        self, choices: list[messages.Choice], usage: messages.Usage | None = None
    ) -> messages.Completion:
        return messages.Completion(
            self.id,
            "text_completion",
            self._created,
            self._served.name,
            self._served.fingerprint,
            choices,
            usage,
        )

    def _choices(self, pieces: Iterable[Piece]) -> list[messages.Choice]:
        """The choices, each from its pieces."""
        by_choice: dict[int, list[Piece]] = {}
        for piece in pieces:
            by_choice.setdefault(piece.choice, []).append(piece)
        choices = []
        for index, found in sorted(by_choice.items()):
            logprobs = None
            if self._with_logprobs:
                tokens = [token for piece in found for token in piece.tokens]
                logprobs = messages.Logprobs(
                    [one.text for one in tokens],
                    [one.log_probability for one in tokens],
                    [one.top for one in tokens],
                    [one.offset for one in tokens],
                )
            text = "".join(piece.text for piece in found)
            reason: Any = found[-1].finish_reason
            choices.append(messages.Choice(index, text, logprobs, reason))
        return choices
