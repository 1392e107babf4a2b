"""Continuing many prompts at once: what arrives while a step runs joins the next one.

A step runs every sequence that is being read or written, in few calls of the engine. The bits of a
row do not depend on the other rows, and so the answers do not either.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from anaphora.data import BPETokenizer, Tokenizer
from anaphora.generation import Sampler
from anaphora.generation.generate import TextStream
from anaphora.generation.scoring import log_probabilities, most_likely
from anaphora.models import LanguageModel
from anaphora.serve.errors import NO_RETRY, RequestError
from anaphora.serve.prefix import PrefixCache, State
from anaphora.serve.worker import Worker
from anaphora.tensor import Array

_LOGGER = logging.getLogger(__name__)

LONG_PIECE, SHORT_PIECE = 256, 16
"""How many ids of a prompt a step reads at most: alone, and while other texts are written."""

_MOST_LOGITS = 1 << 24
"""Logits that a call of the engine computes, roughly: of prompts whose tokens are all scored."""

_SHORTEST_SHARED = 16  # ids that two prompts begin with, from which on their state is kept


# What is asked, and what is answered


class Token(NamedTuple):
    """A token of an answer with its log-probability.

    Attributes:
        text: Its text; "bytes:" and its bytes in hexadecimal if it is a part of a character.
        log_probability: In nats, by the model's own distribution; None without context.
        top: The log-probabilities of the most likely tokens and of this one, by text.
        offset: The character of the text, from 0, at which it begins.

    >>> Token("the", -1.5, None, 0).text
    'the'
    """

    text: str
    log_probability: float | None
    top: dict[str, float] | None
    offset: int


class Piece(NamedTuple):
    """More of the text of a choice.

    Attributes:
        choice: The index of the choice in the request.
        text: The text.
        tokens: Its tokens, if log-probabilities were asked for.
        finish_reason: "stop" or "length" in the last piece of a choice, otherwise None.

    >>> Piece(0, "the", [], "stop").finish_reason
    'stop'
    """

    choice: int
    text: str
    tokens: list[Token]
    finish_reason: str | None


class Held(NamedTuple):
    """A unit of a state that is set to a value before a step.

    Attributes:
        state: The name of the state.
        layer: The number of the layer.
        unit: The number of the unit.
        value: The value.

    >>> Held("c", 0, 3, 1.5).state
    'c'
    """

    state: str
    layer: int
    unit: int
    value: float


@dataclass(eq=False, kw_only=True)
class Prompt:
    """A prompt, and how it is to be continued.

    Attributes:
        shown: Its ids.
        context: The ids that the model reads; at least one.
        first_choice: The index of the first of its choices in the request.
        samplers: How tokens are chosen, for each of its choices; the seed too.
        max_tokens: The number of tokens to write.
        stop: Texts before which a choice ends.
        echo: Whether the text begins with the prompt.
        logprobs: The number of most likely tokens to give with each token; None for no
            log-probabilities.
        held: Units that are held while it is continued, from its last id on.

    >>> Prompt(shown=[1], context=[0, 1], samplers=[Sampler()], max_tokens=0).reads_all
    False
    """

    shown: Sequence[int]
    context: Sequence[int]
    samplers: Sequence[Sampler]
    max_tokens: int
    first_choice: int = 0
    stop: Sequence[str] = ()
    echo: bool = False
    logprobs: int | None = None
    held: Sequence[Held] = ()

    @property
    def reads_all(self) -> bool:
        """Whether the scores of every id of the prompt are needed."""
        return self.echo and self.logprobs is not None


@dataclass(eq=False)
class Request:
    """Prompts that are answered together.

    Attributes:
        prompts: The prompts.
        streams: Whether pieces are wanted as they come, or only all at the end.
        pieces: What has been written and not yet been taken.
        cancelled: Set it to free the places of its sequences.
        done: Whether nothing more will be written.
        error: Why it failed.
        prompt_tokens: The number of tokens of the prompts.
        cached_tokens: How many of them were not read, because a state was cached.
        completion_tokens: The number of tokens written.

    >>> Request([], streams=False).done
    False
    """

    prompts: Sequence[Prompt]
    streams: bool
    pieces: deque[Piece] = field(default_factory=deque)
    cancelled: bool = False
    done: bool = False
    error: RequestError | None = None
    cached_tokens: int = 0
    completion_tokens: int = 0
    choices_left: int = 0

    def __post_init__(self) -> None:
        self.choices_left = sum(len(prompt.samplers) for prompt in self.prompts)

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens of the prompts."""
        return sum(len(prompt.shown) for prompt in self.prompts)


@dataclass
class StepFigures:
    """What a step did, for metrics.

    >>> StepFigures(seconds=0.5).sequences
    0
    """

    seconds: float
    sequences: int = 0
    waiting: int = 0
    read: int = 0
    cached: int = 0
    written: int = 0
    cache_bytes: int = 0


class TokenNames:
    r"""The text of a token in its place: a word has a space before it within a line.

    >>> from anaphora.data import WordTokenizer
    >>> names = TokenNames(WordTokenizer(["<eos>", "a"]))
    >>> names(1, None), names(1, 1), names(0, 1)
    ('a', ' a', '\n')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, id: int, previous: int | None) -> str:
        """The text of an id that follows another."""
        if isinstance(self.tokenizer, BPETokenizer):
            data = self.tokenizer.token_bytes(id)
            try:
                return data.decode()
            except UnicodeDecodeError:  # the shape in which OpenAI gives such tokens
                return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
        decode = self.tokenizer.decoder()
        if previous is not None:
            decode(previous)
        return decode(id)


# Sequences


class _Sequence:
    """A sequence that is being read or written.

    Attributes:
        state: The state after the ids that were read; None at the beginning.
    """

    request: Request
    prompt: Prompt
    state: State | None = None

    @property
    def held(self) -> Sequence[Held]:
        """The units that are held in its next step."""
        return self.prompt.held


class _Reader(_Sequence):
    """A prompt that is being read."""

    def __init__(self, request: Request, prompt: Prompt, names: TokenNames) -> None:
        self.request, self.prompt = request, prompt
        self.tokens: list[Token] = []
        self.position = 0  # ids that were read
        self.cuts: set[int] = set()  # positions whose states are cached
        self._names = names
        self.end = 0  # ids to read: the last one only if something follows it
        if prompt.max_tokens > 0:
            self.end = len(prompt.context)
        elif prompt.reads_all:
            self.end = len(prompt.context) - 1
        self._start = len(prompt.context) - len(prompt.shown)  # the first id that is shown
        self.text = TextStream(names.tokenizer, [], ())
        if prompt.reads_all and self._start == 0 and prompt.shown:
            self._add_token(0, None)

    @property
    def held(self) -> Sequence[Held]:
        """The units that are held in its next step: none before the last id."""
        return self.prompt.held if self.position == self.end - 1 else ()

    def size(self, limit: int) -> int:
        """How many ids to read next: a power of two, so that many prompts have the same."""
        end = min((cut for cut in self.cuts if cut > self.position), default=self.end)
        return 1 << (min(end - self.position, limit).bit_length() - 1)

    def advance(self, size: int, logits: Array | None) -> None:
        """Note that ids were read; logits [size, V] are given if they are needed."""
        first = self.position
        self.position += size
        if not self.prompt.reads_all or logits is None:
            return
        scores = log_probabilities(logits)
        for k in range(size):
            if self._start <= first + k + 1 < len(self.prompt.context):
                self._add_token(first + k + 1, scores[k])

    def _add_token(self, position: int, scores: Array | None) -> None:
        context, count = self.prompt.context, self.prompt.logprobs or 0
        previous = context[position - 1] if position else None
        offset = self.text.length
        self.text.push(context[position])
        self.tokens.append(_token(self._names, context[position], previous, scores, count, offset))


class _Writer(_Sequence):
    """A choice that is being written."""

    def __init__(self, reader: _Reader, number: int, tokenizer: Tokenizer) -> None:
        prompt = reader.prompt
        sampler = prompt.samplers[number]
        self.request, self.prompt = reader.request, prompt
        self.state = reader.state
        self.choice = prompt.first_choice + number
        self.sampler = _without_seed(sampler)
        self.uniforms = sampler.uniforms(sampler.generator(), prompt.max_tokens)
        self.written: list[int] = []
        self.text = TextStream(tokenizer, prompt.shown, prompt.stop)
        self._given = self._offset = len(self.text.prompt)
        self._tokens: list[Token] = []

    @property
    def ids(self) -> list[int]:
        """The ids of the context and of what was written."""
        return [*self.prompt.context, *self.written]

    def begin(self, tokens: list[Token]) -> None:
        """Give the prompt, if it is echoed."""
        if self.prompt.echo:
            self._give(self.text.prompt, tokens, None)
        if self.prompt.max_tokens == 0:
            self._give("", [], "length")

    def take(self, id: int, scores: Array | None, names: TokenNames) -> bool:
        """Add the next id; return whether the choice is finished."""
        if self.prompt.logprobs is not None:
            offset = self._offset + self.text.length
            last = (self.written or self.prompt.context)[-1]
            self._tokens.append(_token(names, id, last, scores, self.prompt.logprobs, offset))
        self.written.append(id)
        self.request.completion_tokens += 1
        text = self.text.push(id)
        full = len(self.written) == self.prompt.max_tokens and not self.text.stopped
        if full:
            text += self.text.push(None)
        reason = "stop" if self.text.stopped else "length" if full else None
        if text or reason:
            self._given += len(text)
            certain = [one for one in self._tokens if one.offset < self._given]
            if reason == "length":
                certain = self._tokens
            self._tokens = self._tokens[len(certain) :]
            self._give(text, certain, reason)
        return reason is not None

    def _give(self, text: str, tokens: list[Token], reason: str | None) -> None:
        self.request.pieces.append(Piece(self.choice, text, tokens, reason))
        self.request.choices_left -= reason is not None


def _token(
    names: TokenNames, id: int, previous: int | None, scores: Array | None, count: int, offset: int
) -> Token:
    """A token with the log-probabilities [V] of all ids in its place."""
    text = names(id, previous)
    if scores is None:
        return Token(text, None, None, offset)
    top = {names(k, previous): float(scores[k]) for k in most_likely(scores, count)}
    top.setdefault(text, float(scores[id]))
    return Token(text, float(scores[id]), top, offset)


def _without_seed(sampler: Sampler) -> Sampler:
    """The sampler by which choices are grouped; each has random numbers of its own."""
    return dataclasses.replace(sampler, seed=None)


# The engine's thread


class Batcher(Worker[tuple[Request, Prompt]]):
    """A thread that continues prompts with a language model, many at once.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        max_batch_size: Sequences that are read or written at the same time.
        max_queue: Prompts that may wait.
        cache_bytes: The limit of the cache of prefixes.
        notify: Called in the thread after a step, with the requests that have something new.
        observe: Called in the thread after a step.

    >>> from anaphora.data import CharacterTokenizer
    >>> from anaphora.generation import generate
    >>> tokenizer = CharacterTokenizer("abc")
    >>> model = LanguageModel(vocabulary_size=3, hidden_size=4)
    >>> prompt = Prompt(shown=[0, 1], context=[0, 1], samplers=[Sampler(seed=3)], max_tokens=5)
    >>> request = Request([prompt], streams=False)
    >>> batcher = Batcher(model, tokenizer)
    >>> batcher.start(), batcher.ask(request), batcher.close()
    (None, None, None)
    >>> text = "".join(piece.text for piece in request.pieces)
    >>> "ab" + text == "".join(generate(model, tokenizer, "ab", 5, Sampler(seed=3)))
    True
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        name: str = "model",
        max_batch_size: int = 64,
        max_queue: int = 256,
        cache_bytes: int = 64 << 20,
        notify: Callable[[Iterable[Request]], None] = lambda requests: None,
        observe: Callable[[StepFigures], None] = lambda figures: None,
    ) -> None:
        super().__init__(f"anaphora-{name}", max_queue)
        self.tokenizer = tokenizer
        self.cache = PrefixCache(cache_bytes)
        self._max_batch_size = self.room = max_batch_size
        self._notify, self._observe = notify, observe
        self._names = TokenNames(tokenizer)
        self._session = model.session(batch_size=1)
        self._initial = {name: a[:, 0] for name, a in self._session.state_dict().items()}
        self._arrived: list[tuple[Request, Prompt]] = []
        self._readers: list[_Reader] = []
        self._writers: list[_Writer] = []

    def ask(self, work: Request) -> None:
        """Submit a request.

        Raises:
            RequestError: as for `Worker.submit`.
        """
        self.submit([(work, prompt) for prompt in work.prompts])

    def busy(self) -> bool:
        """Whether a sequence is being read or written."""
        return bool(self._readers or self._writers)

    def step(self) -> None:
        """Run every sequence a little further."""
        start = time.monotonic()
        figures = StepFigures(0.0)
        try:
            self._remove_ended()
            self._admit(figures)
            changed = self._run(figures)
        except Exception as error:  # the thread must live on; whoever waits must know
            _LOGGER.exception("a step of %s failed", self.name)
            changed = {one.request for one in [*self._readers, *self._writers]}
            changed |= {request for request, _ in self._arrived}
            self._readers, self._writers, self._arrived = [], [], []
            for request in changed:
                self._fail(request, _unexpected(error))
        if not self.busy():
            self.room = self._max_batch_size
        self._notify([one for one in changed if one.streams or one.done or one.error is not None])
        figures.seconds = time.monotonic() - start
        figures.cache_bytes = self.cache.bytes
        self._observe(figures)

    def _remove_ended(self) -> None:
        """Free the places of requests that were cancelled or have failed."""
        with self.lock:
            if any(request.cancelled for request, _ in self.waiting):
                kept = [one for one in self.waiting if not one[0].cancelled]
                self.waiting.clear()
                self.waiting.extend(kept)
        self._readers = [one for one in self._readers if not one.request.cancelled]
        self._writers = [one for one in self._writers if not one.request.cancelled]

    @staticmethod
    def _fail(request: Request, error: RequestError) -> None:
        request.error, request.done, request.cancelled = error, True, True

    def _admit(self, figures: StepFigures) -> None:
        """Begin to read prompts for which there is room, in their order."""
        rows = len(self._writers) + sum(len(one.prompt.samplers) for one in self._readers)
        with self.lock:
            while self.waiting:
                count = len(self.waiting[0][1].samplers)
                if rows and rows + count > self._max_batch_size:
                    break
                rows += count
                self._arrived.append(self.waiting.popleft())
            self.room = max(0, self._max_batch_size - rows)
            figures.waiting = len(self.waiting)
        for request, prompt in self._arrived:
            self._readers.append(reader := _Reader(request, prompt, self._names))
            if reader.end and not prompt.reads_all:
                self._continue_cached(reader)
                figures.cached += reader.position
        self._arrived = []

    def _continue_cached(self, reader: _Reader) -> None:
        """Begin with the longest cached prefix; the last id is read, for the scores after it."""
        known = reader.prompt.context[: reader.end - 1]
        length, state, shared = self.cache.find(known)
        reader.position, reader.state = length, state
        reader.request.cached_tokens += length
        reader.cuts = {len(known)} if len(known) > length else set()
        if shared - length >= _SHORTEST_SHARED:
            reader.cuts.add(shared)  # where two prompts branch, a third one may too

    def _run(self, figures: StepFigures) -> set[Request]:
        """Advance all sequences; return the requests that have something new."""
        limit = SHORT_PIECE if self._writers else LONG_PIECE
        all_logits = self.tokenizer.vocabulary_size * max(1, len(self._readers))  # of a step
        scored_limit = max(1, min(limit, _MOST_LOGITS // all_logits))
        groups: dict[tuple[int, bool], list[Any]] = {(1, True): list(self._writers)}
        changed: set[Request] = set()
        finished: list[tuple[_Reader, Any]] = []  # with the scores after the last id
        for reader in self._readers:
            if reader.position < reader.end:
                size = reader.size(scored_limit if reader.prompt.reads_all else limit)
                scored = size == 1 or reader.prompt.reads_all
                groups.setdefault((size, scored), []).append(reader)
            else:
                finished.append((reader, None))
        figures.sequences = sum(map(len, groups.values()))
        sampled: list[tuple[_Writer, Array]] = []
        for (size, scored), rows in groups.items():
            if not rows:
                continue
            logits = self._feed(rows, size, scored)
            for b, row in enumerate(rows):
                if isinstance(row, _Writer):
                    sampled.append((row, logits[-1, b]))
                    continue
                row.advance(size, None if logits is None else logits[:, b])
                figures.read += size
                if row.position in row.cuts:
                    self.cache.add(row.prompt.context[: row.position], row.state)
                if row.position == row.end:
                    finished.append((row, None if logits is None else logits[-1, b]))
        for reader, last in finished:
            self._readers.remove(reader)
            writers = [
                _Writer(reader, number, self.tokenizer)
                for number in range(len(reader.prompt.samplers))
            ]
            for writer in writers:
                writer.begin(reader.tokens)
            changed.add(reader.request)
            if reader.prompt.max_tokens:
                self._writers += writers
                sampled += [(writer, last) for writer in writers]
        figures.written = len(sampled)
        changed |= self._write(sampled)
        for request in changed:
            request.done = request.done or request.choices_left == 0
        return changed

    def _feed(self, rows: Sequence[Any], size: int, scored: bool) -> Any:
        """Feed each row its next ids, and update its state.

        Returns:
            The scores after each id, [size, B, V]; None if they are not needed.
        """
        ids = np.array(
            [
                [row.written[-1]]
                if isinstance(row, _Writer)
                else row.prompt.context[row.position : row.position + size]
                for row in rows
            ],
            np.int64,
        ).T
        if self._session.batch_size != len(rows):
            self._session = self._session.resized(len(rows))
        states = [self._initial if row.state is None else row.state for row in rows]
        stacked = {
            name: np.stack([state[name] for state in states], axis=1) for name in self._initial
        }
        for b, row in enumerate(rows):
            for one in row.held:
                stacked[one.state][one.layer, b, one.unit] = one.value
        self._session.load_state_dict(stacked)
        logits = None
        if scored:
            logits = self._session.feed(ids)
        else:
            self._session.read(ids)
        after = self._session.state_dict()
        for b, row in enumerate(rows):
            row.state = {name: array[:, b] for name, array in after.items()}
        return logits

    def _write(self, sampled: Sequence[tuple[_Writer, Array]]) -> set[Request]:
        """Sample the next id of each writer from its scores; return the requests with news."""
        groups: dict[Sampler, list[tuple[_Writer, Array]]] = {}
        for writer, logits in sampled:
            groups.setdefault(writer.sampler, []).append((writer, logits))
        changed = set()
        ended = set()
        for sampler, pairs in groups.items():
            logits = np.stack([scores for _, scores in pairs])
            needs_scores = any(writer.prompt.logprobs is not None for writer, _ in pairs)
            scores = log_probabilities(logits) if needs_scores else None
            for n, ((writer, _), id) in enumerate(
                zip(pairs, self._choose(sampler, pairs, logits), strict=True)
            ):
                before = len(writer.request.pieces)
                if isinstance(id, RequestError):
                    self._fail(writer.request, id)
                    ended.add(writer)
                elif writer.take(id, None if scores is None else scores[n], self._names):
                    ended.add(writer)
                    if not writer.held:  # its state is not that of its ids alone
                        self.cache.add(writer.ids[:-1], writer.state or {})
                if len(writer.request.pieces) > before or writer.request.error is not None:
                    changed.add(writer.request)
        if ended:
            self._writers = [one for one in self._writers if one not in ended]
        return changed

    @staticmethod
    def _choose(
        sampler: Sampler, pairs: Sequence[tuple[_Writer, Array]], logits: Array
    ) -> list[int | RequestError]:
        """The next id of each writer, or why there is none."""
        uniforms = np.array([writer.uniforms[len(writer.written)] for writer, _ in pairs])
        previous = [writer.ids for writer, _ in pairs] if sampler.needs_history else None
        try:
            chosen: list[int | RequestError] = [
                *sampler.choose(logits, uniforms, previous).tolist()
            ]
            return chosen
        except ValueError as error:
            if len(pairs) == 1:
                return [RequestError(str(error), 500, code="no_token", headers=NO_RETRY)]
        return [
            Batcher._choose(sampler, [pair], logits[n : n + 1])[0] for n, pair in enumerate(pairs)
        ]


def _unexpected(error: Exception) -> RequestError:
    return RequestError(f"the server failed: {type(error).__name__}: {error}", 500, code="failed")
