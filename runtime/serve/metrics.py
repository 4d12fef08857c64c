"""Figures of a server for Prometheus. Each server has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tritpack.runtime.continuation import Generation

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """What a server counts by itself; the scheduler's own figures are read when they are asked for."""

    def __init__(self, stats: Callable[[], Any]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_SchedulerFigures(stats))
        self.requests = Counter("tritpack_requests", "HTTP requests.", ["path", "status"], registry=self.registry)
        self.first_token = Histogram(
            "tritpack_first_token_seconds", "From a request to the first token of its answer.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.answers = Histogram(
            "tritpack_answer_seconds", "From a request to the end of its answer.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.ends = Counter(
            "tritpack_answers_ended", "Answers, by what ended them.", ["reason"], registry=self.registry
        )
        self.prompt_tokens = Counter("tritpack_prompt_tokens", "Tokens of prompts.", registry=self.registry)
        self.cached_tokens = Counter(
            "tritpack_cached_prompt_tokens", "Tokens of prompts that the prefix cache spared.", registry=self.registry
        )
        self.generated_tokens = Counter("tritpack_generated_tokens", "Tokens of answers.", registry=self.registry)

    def count(self, generation: Generation) -> None:
        """Count an answer that has ended."""
        self.ends.labels(generation.stop_reason).inc()
        self.prompt_tokens.inc(generation.prompt_tokens)
        self.cached_tokens.inc(generation.cached_tokens)
        self.generated_tokens.inc(len(generation.ids))


class _SchedulerFigures(Collector):
    def __init__(self, stats: Callable[[], Any]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        yield GaugeMetricFamily("tritpack_slots_busy", "Answers that are being written.", value=stats.busy)
        yield GaugeMetricFamily("tritpack_requests_queued", "Requests that wait for a slot.", value=stats.waiting)
        cancelled = "Answers that were stopped: the client had gone, the time limit came, or the server shut down."
        yield CounterMetricFamily("tritpack_answers_cancelled", cancelled, value=stats.cancelled)
        guessed = "Tokens that were guessed to be checked in one pass."
        yield CounterMetricFamily("tritpack_guessed_tokens", guessed, value=stats.guessed_tokens)
        yield CounterMetricFamily("tritpack_right_guesses", "Guesses that were right.", value=stats.right_guesses)
        yield CounterMetricFamily("tritpack_passes", "Passes over the weights.", value=stats.passes)
        yield CounterMetricFamily("tritpack_cache_evictions", "Prefixes that the cache gave up.", value=stats.evictions)


class CountRequests:
    """ASGI middleware that counts answers by path and status. Paths that do not exist share one name, since anybody can
    make up more of them."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Iterable[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counted)
