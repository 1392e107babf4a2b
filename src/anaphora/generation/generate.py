"""Generating text with a language model: one text as a stream, or many in batches."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora import engine, ops
from anaphora.data import Tokenizer
from anaphora.generation.reading import Ids, evaluating, opening, read, token_text
from anaphora.generation.sampling import Sampler
from anaphora.generation.scoring import most_likely
from anaphora.models import LanguageModel
from anaphora.nn import Module
from anaphora.tensor import no_grad

_LONGEST_CHUNK = 64


def generate(
    model: Module,
    tokenizer: Tokenizer,
    prompt: str = "",
    length: int = 500,
    sampler: Sampler | None = None,
    unknown: bool = False,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Continue a prompt; yield it, then the text piece by piece.

    Args:
        model: A `LanguageModel`, or any module that takes ids [T, B] and a state (None to begin),
            and returns logits [T, B, V] and a state. It is run in evaluation mode.
        tokenizer: The model's tokenizer.
        prompt: The text to continue; if empty, the model starts at the beginning of a line.
        length: The maximum number of tokens after the prompt.
        sampler: How tokens are chosen; None samples from the model's own distribution.
        unknown: Whether the unknown token may be chosen, if the vocabulary has one. See
            `Tokenizer.unknown_tokens` for the unknown tokens of a prompt.
        stop: The text ends before the first of these texts, also within a token. A stop text that
            begins within the prompt does not count. Of several, the one that is complete first
            counts, then the longest.

    Raises:
        DataError: a token of the prompt is not in the vocabulary, which has no unknown token.
        ValueError: the length is negative, or a stop text is empty; or, during iteration, the
            model's scores are NaN.

    >>> from anaphora.models import LanguageModel
    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit("ab")
    >>> model = LanguageModel(vocabulary_size=2, hidden_size=3)
    >>> text = "".join(generate(model, tokenizer, "ba", length=4, sampler=Sampler(seed=1)))
    >>> text.startswith("ba"), len(text)
    (True, 6)
    """
    _check("generate", length, stop)
    shown, context = prompt_ids(tokenizer, prompt)
    sampler = _without_unknown(sampler or Sampler(), tokenizer, unknown)
    continuation = generate_ids(model, context, sampler, length)
    return _stream(tokenizer, shown, continuation, stop)


def generate_batch(
    model: Module,
    tokenizer: Tokenizer,
    prompts: Iterable[str],
    length: int = 500,
    sampler: Sampler | None = None,
    unknown: bool = False,
    stop: Sequence[str] = (),
    batch_size: int = 32,
) -> Iterator[str]:
    """Continue many prompts in batches; yield their texts in order, each with its prompt.

    Prompt k, counted from 0, is continued with the seed ``sampler.seed + k``: its text is what
    `generate` gives for it alone with that seed, bit for bit with the native engine.

    Args:
        model: As for `generate`; one that is not a `LanguageModel` reads prompts one by one.
        tokenizer: As for `generate`.
        prompts: Texts of any length; they are consumed one batch at a time.
        length: As for `generate`.
        sampler: As for `generate`, with the seed of the first prompt.
        unknown: As for `generate`.
        stop: As for `generate`.
        batch_size: B, prompts per batch.

    Raises:
        DataError, ValueError: as for `generate`; or the batch size is below 1.

    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit("ab")
    >>> model = LanguageModel(vocabulary_size=2, hidden_size=3)
    >>> first, second = generate_batch(model, tokenizer, ["a", "bb"], 9, Sampler(seed=4))
    >>> second == "".join(generate(model, tokenizer, "bb", 9, Sampler(seed=5)))
    True
    """
    _check("generate_batch", length, stop)
    if batch_size < 1:
        raise ValueError(f"generate_batch: batch_size is {batch_size}; expected at least 1")
    sampler = _without_unknown(sampler or Sampler(), tokenizer, unknown)
    seeded = (
        (
            prompt,
            dataclasses.replace(sampler, seed=None if sampler.seed is None else sampler.seed + k),
        )
        for k, prompt in enumerate(prompts)
    )
    if not (isinstance(model, LanguageModel) and type(model).forward is LanguageModel.forward):
        return engine.with_current_precision(
            "".join(generate(model, tokenizer, prompt, length, one, unknown, stop))
            for prompt, one in seeded
        )
    return engine.with_current_precision(
        _generate_batches(model, tokenizer, seeded, length, stop, batch_size)
    )


def generate_ids(
    model: Module, context: Sequence[int], sampler: Sampler, length: int | None = None
) -> Iterator[int]:
    """Yield the ids that follow a context.

    A model with sessions generates them in growing chunks, up to 64 at once, with the weights
    that it has when the first id is requested. Matrix products have the precision of this call, as
    those of `generate` and `generate_batch`.

    Args:
        model: As for `generate`.
        context: At least one id.
        sampler: How ids are chosen.
        length: The number of ids; None is unlimited.

    Raises:
        ValueError: the context is empty; or the model's scores are NaN.

    >>> from anaphora.models import LanguageModel
    >>> ids = generate_ids(LanguageModel(vocabulary_size=2, hidden_size=3), [1, 0], Sampler(seed=1))
    >>> next(ids) in (0, 1)
    True
    """
    if not len(context):
        raise ValueError("generate_ids: a model needs at least one token to continue from")
    return engine.with_current_precision(_generate_ids(model, context, sampler, length))


def _generate_ids(
    model: Module, context: Sequence[int], sampler: Sampler, length: int | None
) -> Iterator[int]:
    if length == 0:
        return
    if isinstance(model, LanguageModel):
        batch = _Batch(model, [context], sampler, [sampler.generator()])
        for count in _chunks(length):
            yield from batch.generate(count)[:, 0].tolist()
    else:
        yield from itertools.islice(_one_by_one(model, context, sampler), length)


@dataclasses.dataclass(frozen=True)
class NextToken:
    """A candidate for the next token.

    Attributes:
        id: Its id.
        token: Its text.
        probability: Its probability, given what the model has read.

    >>> NextToken(3, "the", 0.25).token
    'the'
    """

    id: int
    token: str
    probability: float


def next_tokens(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str = "", count: int = 10
) -> list[NextToken]:
    """The most likely tokens after a prompt, most likely first, by the model's own distribution.

    Args:
        model: The model, which is run in evaluation mode.
        tokenizer: The model's tokenizer.
        prompt: As for `generate`.
        count: The number of tokens; fewer if the vocabulary has fewer.

    Raises:
        DataError: a token of the prompt is not in the vocabulary, which has no unknown token.
        ValueError: the count is below 1, or the model's scores are NaN.

    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer.fit("abc")
    >>> model = LanguageModel(vocabulary_size=3, hidden_size=4)
    >>> found = next_tokens(model, tokenizer, "ab")
    >>> len(found), round(sum(one.probability for one in found), 6)
    (3, 1.0)
    """
    if count < 1:
        raise ValueError(f"next_tokens: count is {count}; expected at least 1")
    _, context = prompt_ids(tokenizer, prompt)
    *_, last = read(model, [context])
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        logits = model.output(last.features[-1]).data[0].astype(np.float64)
    if not np.isfinite(logits).all():
        raise ValueError("next_tokens: the model's scores are NaN or infinite")
    log_p = ops.log_softmax(logits).data
    return [
        NextToken(id, token_text(tokenizer, id), float(np.exp(log_p[id])))
        for id in most_likely(logits, count)
    ]


class _Batch:
    """A batch of texts that a model continues.

    Attributes:
        rows: The indices of the contexts that are still continued, ascending.
    """

    def __init__(
        self,
        model: LanguageModel,
        contexts: Sequence[Ids],
        sampler: Sampler,
        generators: Sequence[np.random.Generator],
    ) -> None:
        self.rows = list(range(len(contexts)))
        self._sampler, self._generators = sampler, list(generators)
        self._previous = [[int(id) for id in ids] for ids in contexts]
        self._session = model.session(len(contexts), excluded=sampler.excluded)
        if len(contexts) == 1:
            self._ids = np.asarray(contexts[0], np.int64)[:, None]  # [T, B] to read next
        else:
            *_, last = read(model, [ids[:-1] for ids in contexts])
            self._session.state = last.state
            self._ids = np.array([[ids[-1] for ids in contexts]], np.int64)

    def generate(self, count: int) -> NDArray[np.int64]:
        """The next ids of each row, [count, B]."""
        sampler = self._sampler
        numbers = [sampler.uniforms(generator, count) for generator in self._generators]
        uniforms = np.stack(numbers, axis=1)
        if not sampler.changes_logits:
            options = (sampler.temperature, sampler.top_k, sampler.top_p)
            ids: NDArray[np.int64] = self._session.generate(self._ids, uniforms, *options)
            self._ids = ids[-1:]
            return ids
        ids = np.empty(uniforms.shape, np.int64)
        for n in range(count):
            logits = self._session.feed(self._ids)[-1]
            ids[n] = sampler.choose(logits, uniforms[n], self._previous)
            self._ids = ids[n : n + 1]
            for previous, id in zip(self._previous, ids[n].tolist(), strict=True):
                previous.append(id)
        return ids

    def keep(self, rows: Sequence[int]) -> None:
        """Continue only some of the rows."""
        places = [self.rows.index(row) for row in rows]
        state = self._session.state_dict()
        self.rows = list(rows)
        self._session = self._session.resized(len(rows))
        self._session.load_state_dict({name: a[:, places] for name, a in state.items()})
        self._ids = self._ids[:, places]
        self._previous = [self._previous[place] for place in places]
        self._generators = [self._generators[place] for place in places]


def _generate_batches(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Iterator[tuple[str, Sampler]],
    length: int,
    stop: Sequence[str],
    batch_size: int,
) -> Iterator[str]:
    while group := list(itertools.islice(prompts, batch_size)):
        encoded = [prompt_ids(tokenizer, prompt) for prompt, _ in group]
        contexts = [context for _, context in encoded]
        generators = [sampler.generator() for _, sampler in group]
        batch = _Batch(model, contexts, group[0][1], generators)
        texts = [TextStream(tokenizer, shown, stop) for shown, _ in encoded]
        found = [text.prompt for text in texts]

        def add(
            row: int, ids: Iterable[int | None], texts: Any = texts, found: Any = found
        ) -> None:
            for id in ids:
                if not texts[row].stopped:
                    found[row] += texts[row].push(id)

        for count in _chunks(length):
            for row, ids in zip(batch.rows, batch.generate(count).T.tolist(), strict=True):
                add(row, ids)
            active = [row for row in batch.rows if not texts[row].stopped]
            if not active:
                break
            if active != batch.rows:
                batch.keep(active)
        for row in range(len(group)):
            add(row, [None])
        yield from found


def _chunks(length: int | None) -> Iterator[int]:
    """Numbers of ids to generate at once: 1, 2, 4 ... so that the first ones arrive soon."""
    chunk, done = 1, 0
    while length is None or done < length:
        count = chunk if length is None else min(chunk, length - done)
        yield count
        done += count
        chunk = min(2 * chunk, _LONGEST_CHUNK)


def _one_by_one(model: Module, context: Sequence[int], sampler: Sampler) -> Iterator[int]:
    generator = sampler.generator()
    ids, state = np.asarray(context)[:, None], None
    previous = [int(id) for id in context]
    while True:
        # A gate may saturate; the sampler reports NaN.
        with evaluating(model), no_grad(), np.errstate(over="ignore", invalid="ignore"):
            logits, state = model(ids, state)
        ids = sampler.sample(logits.data[-1], generator, [previous])[None]
        previous.append(int(ids[0, 0]))
        yield previous[-1]


class TextStream:
    """The text of a prompt and its continuation, as ids arrive; it ends before a stop text.

    A stop text that begins within the prompt does not count. Of several, the one that is complete
    first counts, then the longest.

    Args:
        tokenizer: The tokenizer.
        prompt: The ids of the prompt.
        stop: The stop texts, none of which is empty.

    Attributes:
        prompt: The text of the prompt. A character that its last id leaves incomplete belongs to
            the continuation.
        stopped: Whether a stop text has been found; nothing follows.
        length: The characters of the continuation so far, with those that may begin a stop text.

    >>> from anaphora.data import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer("abc")
    >>> text = TextStream(tokenizer, [0, 1], stop=["bc"])
    >>> text.prompt, [text.push(id) for id in (0, 1, 1, 2)], text.stopped
    ('ab', ['a', '', 'b', ''], True)
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Iterable[int], stop: Sequence[str]) -> None:
        self._decode = tokenizer.decoder()
        self._stop = stop
        self._held = ""  # a possible beginning of a stop text
        self.stopped = False
        self.length = 0
        self.prompt = "".join(map(self._decode, prompt))

    def push(self, id: int | None) -> str:
        """The text that is certain after one more id, or at the end (None)."""
        piece = self._decode(id)
        self.length += len(piece)
        text = self._held + piece
        end = _find_stop(text, self._stop)
        if end is not None:
            self.stopped = True
        elif id is None or not self._stop:
            end = len(text)
        else:
            end = next(
                k for k in range(len(text) + 1) if any(s.startswith(text[k:]) for s in self._stop)
            )
        self._held = text[end:]
        return text[:end]


def _stream(
    tokenizer: Tokenizer, shown: Sequence[int], continuation: Iterable[int], stop: Sequence[str]
) -> Iterator[str]:
    """The text of ids, piece by piece; the continuation ends before a stop text."""
    text = TextStream(tokenizer, shown, stop)
    if text.prompt:
        yield text.prompt
    for id in itertools.chain(continuation, [None]):
        if piece := text.push(id):
            yield piece
        if text.stopped:
            return


def _find_stop(text: str, stop: Sequence[str]) -> int | None:
    """The start of the stop text that is complete first, the longest of ties; None without one."""
    found = [(at + len(one), at) for one in stop if (at := text.find(one)) >= 0]
    return min(found)[1] if found else None


def _check(name: str, length: int, stop: Sequence[str]) -> None:
    if length < 0:
        raise ValueError(f"{name}: length is {length}; expected a number of tokens >= 0")
    if isinstance(stop, str):
        raise TypeError(f"{name}: stop is the text {stop!r}; expected a list of texts")
    if "" in stop:
        raise ValueError(f"{name}: a stop text is empty; omit it")


def _without_unknown(sampler: Sampler, tokenizer: Tokenizer, unknown: bool) -> Sampler:
    if unknown or tokenizer.unknown_id is None:
        return sampler
    return dataclasses.replace(sampler, excluded=(*sampler.excluded, tokenizer.unknown_id))


def prompt_ids(tokenizer: Tokenizer, prompt: str | Sequence[int]) -> tuple[list[int], list[int]]:
    """The ids of a prompt, a text or ids, to show; and those that the model reads: at least one.

    >>> from anaphora.data import WordTokenizer
    >>> tokenizer = WordTokenizer(["<eos>", "a", "b"])
    >>> prompt_ids(tokenizer, "a b"), prompt_ids(tokenizer, [1]), prompt_ids(tokenizer, "")
    (([1, 2], [0, 1, 2]), ([1], [0, 1]), ([], [0]))
    """
    start = opening(tokenizer)
    shown = [int(id) for id in (tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)]
    if tokenizer.start_id is None:
        return shown, shown or start or [tokenizer.unknown_id or 0]
    # A word tokenizer ends the last line; a prompt is an unfinished line.
    if shown and isinstance(prompt, str) and not prompt.endswith("\n"):
        shown.pop()
    return shown, [*start, *shown] if start == [tokenizer.start_id] else shown or start
