"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from anaphora.serve.batcher import StepFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of a server.

    >>> metrics = Metrics()
    >>> metrics.step("mine", StepFigures(0.01, sequences=3, written=3))
    >>> b'anaphora_generated_tokens_total{model="mine"} 3.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ["model"]
        self._requests = Counter(
            "anaphora_requests",
            "Requests, by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "anaphora_request_seconds",
            "Time from a request to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.running = Gauge(
            "anaphora_running_requests", "Requests that are being answered.", registry=self.registry
        )
        counts = {
            "read": ("anaphora_prompt_tokens", "Tokens of prompts that were read."),
            "cached": (
                "anaphora_cached_prompt_tokens",
                "Tokens of prompts whose state was kept from another prompt.",
            ),
            "written": ("anaphora_generated_tokens", "Tokens that were written."),
        }
        self._counts = {
            name: Counter(*about, model, registry=self.registry) for name, about in counts.items()
        }
        gauges = {
            "waiting": ("anaphora_waiting_prompts", "Prompts that wait for a place."),
            "cache_bytes": ("anaphora_prefix_cache_bytes", "Size of the cache of states."),
        }
        self._gauges = {
            name: Gauge(*about, model, registry=self.registry) for name, about in gauges.items()
        }
        self._sequences = Histogram(
            "anaphora_step_sequences",
            "Sequences in a step of the engine.",
            model,
            buckets=_SEQUENCES,
            registry=self.registry,
        )
        self._step_seconds = Histogram(
            "anaphora_step_seconds",
            "Time of a step of the engine.",
            model,
            buckets=(0.0001, 0.0003, *_SECONDS),
            registry=self.registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def step(self, model: str, figures: StepFigures) -> None:
        """Count a step of a model's engine."""
        for name, counter in self._counts.items():
            if count := getattr(figures, name):
                counter.labels(model).inc(count)
        for name, gauge in self._gauges.items():
            gauge.labels(model).set(getattr(figures, name))
        if figures.sequences:
            self._sequences.labels(model).observe(figures.sequences)
            self._step_seconds.labels(model).observe(figures.seconds)

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self.registry)
