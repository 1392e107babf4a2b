"""The server's application: its paths, and what answers them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from anaphora import engine
from anaphora.data import DataError
from anaphora.generation.reading import opening
from anaphora.serve import messages, openapi, page
from anaphora.serve.batcher import Batcher, Request
from anaphora.serve.completions import Answer, Limits, encoded, to_request
from anaphora.serve.errors import NO_RETRY, RequestError, queue_full
from anaphora.serve.guard import Access, Guard
from anaphora.serve.inspect import Inspector
from anaphora.serve.metrics import CONTENT_TYPE, Metrics
from anaphora.serve.models import ServedModel
from anaphora.serve.openapi import Operation
from anaphora.serve.predict import Prediction, Predictor, check_inside, inputs_of
from anaphora.serve.worker import Worker

_LONG = 20_000  # bytes of a body, from which on it is read in another thread
_MOST_INSPECTIONS = 16  # that may wait

OPERATIONS = {
    "models": Operation("GET", "/v1/models", "The served models.", None, messages.Models),
    "model": Operation("GET", "/v1/models/{name}", "A served model.", None, messages.Model),
    "completions": Operation(
        "POST",
        "/v1/completions",
        "Continue prompts, or give the log-probabilities of their tokens.",
        messages.CompletionRequest,
        messages.Completion,
        "text/event-stream",
    ),
    "tokenize": Operation(
        "POST",
        "/v1/tokenize",
        "The token ids of a text.",
        messages.TokenizeRequest,
        messages.Tokenized,
    ),
    "detokenize": Operation(
        "POST",
        "/v1/detokenize",
        "The text of token ids.",
        messages.DetokenizeRequest,
        messages.Detokenized,
    ),
    "predict": Operation(
        "POST",
        "/v1/predict",
        "Labels, tags, numbers or translations, with probabilities.",
        messages.PredictRequest,
        messages.Predictions,
    ),
    "inspect": Operation(
        "POST",
        "/v1/inspect",
        "States, gates, guesses and gradients of a language model that reads a text.",
        messages.InspectRequest,
        messages.Inspection,
    ),
    "health": Operation("GET", "/health", "Whether the server works.", None, messages.Health),
    "metrics_page": Operation(
        "GET", "/metrics", "Counters, in Prometheus' format.", None, None, "text/plain"
    ),
    "openapi_document": Operation(
        "GET", "/openapi.json", "This document.", None, None, "application/json"
    ),
}
"""The documented paths, by the method of `Server` that answers them."""

ALIASES = {
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
    "/tokenizer_info": "tokenizer_info",
}
"""Paths of vLLM's server, at which lm-evaluation-harness looks for a tokenizer."""


class Server:
    """What answers requests; `app` is the ASGI application.

    Its models compute matrix products in the precision of its construction (see
    `matmul_precision`).

    Args:
        models: The models, each with a name of its own.
        limits: What a request may ask for.
        access: Who may use the server.
        max_batch_size: Texts that a model reads or writes at the same time.
        max_queue: Prompts, or predictions, that may wait for a model.
        cache_bytes: The limit of each model's cache of prefixes; that of inspections has an eighth
            of it.
        log: Called with a line about each request; None for no log.
        log_prompts: Whether that line has the body of the request.

    Raises:
        ValueError: two models have the same name.

    >>> server = Server([], Limits(max_tokens=1000), Access(keys=["secret"]), max_batch_size=32)
    >>> server.limits.max_tokens
    1000
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        limits: Limits | None = None,
        access: Access | None = None,
        *,
        max_batch_size: int = 64,
        max_queue: int = 256,
        cache_bytes: int = 64 << 20,
        log: Callable[[str], None] | None = None,
        log_prompts: bool = False,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.metrics = Metrics()
        self._access = Access() if access is None else access
        self._log, self._log_prompts = log, log_prompts
        self._models = {model.name: model for model in models}
        if len(self._models) < len(models):
            names = ", ".join(model.name for model in models)
            raise ValueError(f"two models have the same name: {names}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: dict[Request | Prediction, asyncio.Event] = {}
        self._inspections = 0
        self._precision = engine.current_matmul_precision()
        self._workers: dict[str, Worker[Any]] = {}
        self._inspectors = {
            model.name: Inspector(model, cache_bytes // 8)
            for model in models
            if model.task.writes_text
        }
        for model in models:
            if model.task.writes_text:
                self._workers[model.name] = Batcher(
                    model.model,
                    model.model.codec,
                    name=model.name,
                    max_batch_size=max_batch_size,
                    max_queue=max_queue,
                    cache_bytes=cache_bytes,
                    notify=self._notify,
                    observe=functools.partial(self.metrics.step, model.name),
                )
            else:
                self._workers[model.name] = Predictor(
                    model, max_queue=max_queue, notify=self._notify
                )
        self._told: set[str] = set()  # models of which the log has that they changed
        document = openapi.document(OPERATIONS.values(), bool(self._access.keys))
        self._document = messages.encode(document)
        self.app = Guard(self._application(), self._access, self.limits.body_bytes, self._count)

    def _application(self) -> Starlette:
        operations = {one.path: (name, one.method) for name, one in OPERATIONS.items()}
        for path, name in ALIASES.items():
            operations[path] = (name, OPERATIONS[name].method if name in OPERATIONS else "GET")
        routes = [
            Route(path.replace("{name}", "{name:path}"), getattr(self, name), methods=[method])
            for path, (name, method) in operations.items()
        ]
        routes += [Route(path, page.answer, methods=["GET"]) for path in page.FILES]
        handlers: dict[Any, Any] = {
            RequestError: _answer_error,
            HTTPException: _answer_missing,
            ClientDisconnect: _answer_nobody,
            Exception: _answer_failure,
        }
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        for worker in self._workers.values():
            worker.start()
        yield
        for worker in self._workers.values():
            await asyncio.to_thread(worker.close)

    # What is counted and logged

    def _count(self, path: str, status: int, seconds: float) -> None:
        known = {*(one.path for one in OPERATIONS.values()), *ALIASES, *page.FILES}
        shown = path if path in known else "other"
        if path.startswith("/v1/models/"):
            shown = OPERATIONS["model"].path
        self.metrics.request(shown, status, seconds)
        if self._log is not None:
            self._log(f"{path!r:.80} {status} {1000 * seconds:.1f} ms")

    def _tell_changed(self, model: ServedModel) -> bool:
        """Whether a model changed on disk; the log is told once."""
        changed = model.changed()
        if changed and model.name not in self._told and self._log is not None:
            self._told.add(model.name)
            self._log(
                f"{model.directory}: changed on disk; the model that was loaded is still served. "
                "Restart to serve the new one"
            )
        return changed

    # Reading requests

    async def _parsed(self, http: HTTPRequest, kind: type[messages.Kind]) -> messages.Kind:
        """The body of a request."""
        media = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise RequestError(
                f"the Content-Type is {media[:80]!r}; expected application/json",
                415,
                code="wrong_content_type",
            )
        try:
            async with asyncio.timeout(self.limits.seconds):
                body = await http.body()
        except TimeoutError:
            raise RequestError(
                "the body did not arrive in time",
                408,
                code="timeout",
                headers={"Connection": "close"},
            ) from None
        if self._log is not None and self._log_prompts:
            self._log(f"{http.url.path} {body.decode(errors='replace')!r}")
        parsed: messages.Kind = await _maybe_threaded(len(body), messages.parse, body, kind)
        return parsed

    def _model(self, name: str | None, *, writes_text: bool | None = None) -> ServedModel:
        """The model of a name, or the only one."""
        if name is None:
            candidates = [
                model
                for model in self._models.values()
                if writes_text is None or model.task.writes_text == writes_text
            ]
            if len(candidates) != 1:
                raise RequestError(
                    f"model is missing; expected one of {', '.join(self._models)}",
                    param="model",
                    code="model_missing",
                )
            return candidates[0]
        if name not in self._models:
            raise RequestError(
                f"the model {name[:80]!r} is not served; expected one of {', '.join(self._models)}",
                404,
                param="model",
                code="model_not_found",
            )
        model = self._models[name]
        if writes_text is not None and model.task.writes_text != writes_text:
            path = "/v1/completions" if model.task.writes_text else "/v1/predict"
            raise RequestError(
                f"the model {name!r} is for the task {model.task.name}; use it with {path}",
                param="model",
                code="wrong_task",
            )
        return model

    def _answer(self, model: ServedModel, message: Any) -> Response:
        return _json(message, self._headers(model))

    def _headers(self, model: ServedModel) -> dict[str, str]:
        return {"anaphora-model-changed": "true"} if self._tell_changed(model) else {}

    # Waiting for workers

    def _notify(self, finished: Iterable[Request | Prediction]) -> None:
        """Wake those who wait; called in the threads of workers."""
        woken = tuple(finished)
        if woken and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake, woken)

    def _wake(self, woken: Sequence[Request | Prediction]) -> None:
        for one in woken:
            if (event := self._events.get(one)) is not None:
                event.set()

    @contextlib.asynccontextmanager
    async def _submitted(
        self, worker: Worker[Any], work: Request | Prediction, receive: Any
    ) -> AsyncIterator[_Waiting]:
        """Submit work; it is cancelled if the client leaves."""
        event = self._events[work] = asyncio.Event()
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(lambda task: event.set())
        self.metrics.running.inc()
        try:
            worker.ask(work)
            yield _Waiting(event, gone, self.limits.seconds)
        finally:
            work.cancelled = True
            gone.cancel()
            del self._events[work]
            self.metrics.running.dec()

    # Paths

    async def models(self, http: HTTPRequest) -> Response:
        """List the models."""
        data = [self._described(model) for model in self._models.values()]
        return _json(messages.Models("list", data))

    async def model(self, http: HTTPRequest) -> Response:
        """Describe a model."""
        return _json(self._described(self._model(http.path_params["name"])))

    def _described(self, model: ServedModel) -> messages.Model:
        return messages.Model(
            model.name,
            "model",
            model.created,
            "anaphora",
            model.task.name,
            model.reads,
            model.fingerprint,
            self._tell_changed(model),
        )

    async def completions(self, http: HTTPRequest) -> Response:
        """Continue prompts."""
        asked = await self._parsed(http, messages.CompletionRequest)
        model = self._model(asked.model, writes_text=True)
        size = len(asked.prompt or "") if isinstance(asked.prompt, str | None) else _LONG
        request = await _maybe_threaded(size, to_request, asked, model, self.limits)
        answer = Answer(model, asked, request)
        worker = self._workers[model.name]
        if request.streams:
            return _EventStream(self, worker, request, answer, self._headers(model))
        async with self._submitted(worker, request, http.receive) as waiting:
            while not request.done:
                await waiting.next()
        if request.error is not None:
            raise request.error
        return self._answer(model, answer.complete())

    async def tokenize(self, http: HTTPRequest) -> Response:
        """Encode a text."""
        asked = await self._parsed(http, messages.TokenizeRequest)
        model = self._model(asked.model, writes_text=True)

        def tokenized() -> messages.Tokenized:
            tokenizer = model.model.codec
            shown, context = encoded(tokenizer, asked.prompt)
            ids = context if asked.add_special_tokens else shown
            unknown = dict(tokenizer.unknown_tokens([asked.prompt]))
            return messages.Tokenized(ids, len(ids), unknown)

        return self._answer(model, await _maybe_threaded(len(asked.prompt), tokenized))

    async def detokenize(self, http: HTTPRequest) -> Response:
        """Decode ids."""
        asked = await self._parsed(http, messages.DetokenizeRequest)
        model = self._model(asked.model, writes_text=True)
        try:
            text = await _maybe_threaded(len(asked.tokens), model.model.codec.decode, asked.tokens)
        except DataError as error:
            raise RequestError(str(error), param="tokens", code="unknown_token") from error
        return self._answer(model, messages.Detokenized(text))

    async def tokenizer_info(self, http: HTTPRequest) -> Response:
        """The marks of the only tokenizer, as vLLM gives them."""
        tokenizer = self._model(None, writes_text=True).model.codec
        end = "\n" if opening(tokenizer) else None
        return _json(
            {
                "tokenizer_class": type(tokenizer).__name__,
                "vocab_size": tokenizer.vocabulary_size,
                "bos_token": None,
                "eos_token": end,
                "pad_token": None,
            }
        )

    async def predict(self, http: HTTPRequest) -> Response:
        """Predict for inputs."""
        asked = await self._parsed(http, messages.PredictRequest)
        model = self._model(asked.model, writes_text=False)
        prediction = Prediction(
            await _maybe_threaded(
                len(asked.input) if isinstance(asked.input, str) else _LONG,
                inputs_of,
                model,
                asked.input,
            ),
            inside=bool(asked.inside),
        )
        if asked.inside:
            check_inside(prediction.inputs)
        worker = self._workers[model.name]
        async with self._submitted(worker, prediction, http.receive) as waiting:
            while not prediction.finished.is_set():
                await waiting.next()
        if prediction.error is not None:
            raise prediction.error
        return self._answer(
            model, messages.Predictions("list", model.name, [dict(r) for r in prediction.records])
        )

    async def inspect(self, http: HTTPRequest) -> Response:
        """Look inside a language model."""
        asked = await self._parsed(http, messages.InspectRequest)
        model = self._model(asked.model, writes_text=True)
        if self._inspections >= _MOST_INSPECTIONS:
            raise queue_full(
                f"{_MOST_INSPECTIONS} inspections are running already; try again later"
            )
        self._inspections += 1
        inspector = self._inspectors[model.name]
        try:
            async with _before(asyncio.get_running_loop().time() + self.limits.seconds):
                with engine.precision.products_in(self._precision):  # the thread has this context
                    return self._answer(model, await asyncio.to_thread(inspector.inspect, asked))
        finally:
            self._inspections -= 1

    async def health(self, http: HTTPRequest) -> Response:
        """Whether the server works."""
        changed = [model.name for model in self._models.values() if self._tell_changed(model)]
        return _json(messages.Health("ok", changed))

    async def metrics_page(self, http: HTTPRequest) -> Response:
        """All counters."""
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def openapi_document(self, http: HTTPRequest) -> Response:
        """The OpenAPI document."""
        return Response(self._document, media_type="application/json")


class _Waiting:
    """Waits for news of work, for its client to leave, or for the time limit."""

    def __init__(self, event: asyncio.Event, gone: asyncio.Task[None], seconds: float) -> None:
        self._event, self._gone = event, gone
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def next(self) -> None:
        """Wait for news.

        Raises:
            ClientDisconnect: the client has left.
            RequestError: the time is over.
        """
        async with _before(self._deadline):
            await self._event.wait()
        self._event.clear()
        if self._gone.done():
            raise ClientDisconnect


@contextlib.asynccontextmanager
async def _before(deadline: float) -> AsyncIterator[None]:
    """A context that ends with an error at a time of the event loop."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise RequestError(
            "the request took longer than the server's time limit; ask for less",
            504,
            code="timeout",
            headers=NO_RETRY,
        ) from None


class _EventStream(Response):
    """A completion in server-sent events, as it is written."""

    def __init__(
        self,
        server: Server,
        worker: Worker[Any],
        request: Request,
        answer: Answer,
        headers: dict[str, str],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**headers, "content-type": "text/event-stream; charset=utf-8"})
        # Its length is not known, and proxies must not collect it.
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self.raw_headers.append((b"x-accel-buffering", b"no"))
        self._server, self._worker, self._request, self._answer = server, worker, request, answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_in_time(message: Any) -> None:
            # A client that does not read blocks it, but not the engine.
            async with asyncio.timeout(self._server.limits.seconds):
                await send(message)

        with contextlib.suppress(ClientDisconnect, TimeoutError):
            await self._run(receive, send_in_time)

    async def _run(self, receive: Any, send: Any) -> None:
        request, started = self._request, False
        submitted = self._server._submitted(self._worker, request, receive)
        async with submitted as waiting:
            while True:
                error = None
                try:
                    await waiting.next()
                except RequestError as late:
                    error = late
                done = request.done  # before the pieces, which come before it
                pieces = [request.pieces.popleft() for _ in range(len(request.pieces))]
                if done and error is None:
                    error = request.error
                if error is not None and not started:
                    raise error
                events = [messages.encode(chunk) for chunk in self._answer.chunks(pieces)]
                if error is not None:
                    events.append(messages.encode(error.content()))
                elif done:
                    events += map(messages.encode, self._answer.last_chunks())
                    events.append(b"[DONE]")
                if not started:
                    started = True
                    start = {"type": "http.response.start", "status": 200}
                    await send({**start, "headers": self.raw_headers})
                body = b"".join(b"data: %b\n\n" % event for event in events)
                ends = done or error is not None
                await send({"type": "http.response.body", "body": body, "more_body": not ends})
                if ends:
                    return


async def _disconnected(receive: Any) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _maybe_threaded(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function, computed in another thread if it may take long."""
    if size < _LONG:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def _json(message: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(messages.encode(message), media_type="application/json", headers=headers)


def _error(error: RequestError) -> Response:
    return Response(
        messages.encode(error.content()),
        error.status,
        media_type="application/json",
        headers=error.headers,
    )


async def _answer_error(http: HTTPRequest, error: Any) -> Response:
    return _error(error)


async def _answer_missing(http: HTTPRequest, error: Any) -> Response:
    """The answer for a path or method that does not exist."""
    message = {
        404: f"there is no path {http.url.path[:80]!r}; see /openapi.json",
        405: f"{http.method} is not possible for {http.url.path[:80]!r}; see /openapi.json",
    }.get(error.status_code, str(error.detail))
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    headers = dict(error.headers or {})
    return _error(RequestError(message, error.status_code, code=code, headers=headers))


async def _answer_nobody(http: HTTPRequest, error: Any) -> Response:
    return Response(status_code=499)  # the client has left; it is for the log


async def _answer_failure(http: HTTPRequest, error: Any) -> Response:
    return _error(RequestError("the server failed", 500, code="failed"))
