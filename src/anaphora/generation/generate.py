"""Text from a language model, token by token as it comes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from anaphora.data import DataError, Tokenizer
from anaphora.generation.sampling import Sampler
from anaphora.models import LanguageModel
from anaphora.nn import Module
from anaphora.tensor import no_grad


def generate(
    model: Module,
    tokenizer: Tokenizer,
    prompt: str = "",
    length: int = 500,
    sampler: Sampler | None = None,
    unknown: bool = False,
) -> Iterator[str]:
    """Continue a prompt; yield it, then the text in pieces as they come.

    Args:
        model: A `LanguageModel`, or any module that takes ids [T, B] and a state (None to begin),
            and returns logits [T, B, V] and a state. It is read in evaluation mode, whatever mode
            it is in.
        tokenizer: The one that the model was trained with.
        prompt: What stands before; without one the model begins as at the beginning of a line.
        length: The number of tokens after the prompt.
        sampler: How to draw; from the model's own distribution if None.
        unknown: Whether the unknown token may be drawn, where the vocabulary has one. What the
            prompt has of it, `Tokenizer.unknown_tokens` tells.

    Raises:
        DataError: the prompt has a token that the vocabulary lacks, and nothing stands for it.
        ValueError: the length is negative; or, as the text comes, the model's scores are NaN.

    >>> from anaphora.models import LanguageModel
    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit("ab")
    >>> model = LanguageModel(vocabulary_size=2, hidden_size=3)
    >>> text = "".join(generate(model, tokenizer, "ba", length=4, sampler=Sampler(seed=1)))
    >>> text.startswith("ba"), len(text)
    (True, 6)
    """
    if length < 0:
        raise ValueError(f"generate: length is {length}; expected a number of tokens >= 0")
    shown, context = _prompt_ids(tokenizer, prompt)
    sampler = sampler or Sampler()
    if not unknown and tokenizer.unknown_id is not None:
        sampler = dataclasses.replace(sampler, excluded=(*sampler.excluded, tokenizer.unknown_id))
    continuation = generate_ids(model, context, sampler, length)
    return tokenizer.stream(itertools.chain(shown, continuation))


def generate_ids(
    model: Module, context: Sequence[int], sampler: Sampler, length: int | None = None
) -> Iterator[int]:
    """Yield the ids that follow a context.

    A model that offers sessions draws them in growing chunks, up to 64 at once, with the weights
    that it has when the first one is asked for.

    Args:
        model: As for `generate`.
        context: At least one id.
        sampler: How to draw.
        length: The number of ids; without end if None.

    Raises:
        ValueError: the context is empty; or the model's scores are NaN.

    >>> from anaphora.models import LanguageModel
    >>> ids = generate_ids(LanguageModel(vocabulary_size=2, hidden_size=3), [1, 0], Sampler(seed=1))
    >>> next(ids) in (0, 1)
    True
    """
    if not context:
        raise ValueError("generate_ids: a model needs at least one token to go on from")
    if length == 0:
        return
    if isinstance(model, LanguageModel):
        yield from _chunks(model, context, sampler, length)
    else:
        yield from itertools.islice(_one_by_one(model, context, sampler), length)


def _chunks(
    model: LanguageModel, context: Sequence[int], sampler: Sampler, length: int | None
) -> Iterator[int]:
    """Ids drawn in chunks of 1, 2, 4 ... 64, so that the first ones are soon there."""
    generator, session = sampler.generator(), model.session(excluded=sampler.excluded)
    ids: Any = context
    chunk, left = 1, math.inf if length is None else length
    while left > 0:
        uniforms = sampler.uniforms(generator, int(min(chunk, left)))
        ids = session.generate(ids, uniforms, sampler.temperature, sampler.top_k, sampler.top_p)
        yield from ids.tolist()
        ids = ids[-1]
        chunk, left = min(2 * chunk, 64), left - len(uniforms)


def _one_by_one(model: Module, context: Sequence[int], sampler: Sampler) -> Iterator[int]:
    generator = sampler.generator()
    ids, state = np.asarray(context)[:, None], None
    while True:
        was_training = model.training
        model.eval()
        try:
            # A gate may saturate; of what is no number the sampler tells.
            with no_grad(), np.errstate(over="ignore", invalid="ignore"):
                logits, state = model(ids, state)
        finally:
            model.train(was_training)
        ids = sampler.sample(logits.data[-1], generator)[None]
        yield int(ids[0, 0])


def _prompt_ids(tokenizer: Tokenizer, prompt: str) -> tuple[list[int], list[int]]:
    """The ids of the prompt to show, and those that the model reads: at least one."""
    shown = [int(id) for id in tokenizer.encode(prompt)] if prompt else []
    start = tokenizer.start_id
    if start is not None:
        # A tokenizer of words ends the last line; a prompt is a line that goes on.
        if shown and not prompt.endswith("\n"):
            shown.pop()
        opening = [int(id) for id in tokenizer.encode("\n")][:-1]  # <bos>, if there is one
        return shown, (shown or opening) if opening else [start, *shown]
    if shown:
        return shown, shown
    try:
        return [], [int(id) for id in tokenizer.encode("\n")]
    except DataError:
        return [], [0]
