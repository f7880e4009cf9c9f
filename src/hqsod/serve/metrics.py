"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
OTHER = "other"  # whatever path is not the service's own: clients must not make up labels


class Metrics:
    """Counters of one service; `process_...` are those of its process, memory among them.

    Args:
        in_progress: how many images the service works on now.
    """

    def __init__(self, in_progress: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        where, labels = self.registry, ("path", "status")
        self.requests = Counter("hqsod_requests", "Requests answered.", labels, registry=where)
        self.seconds = Histogram(
            "hqsod_request_seconds",
            "From a request's first line to its answer's last byte.",
            ("path",),
            buckets=SECONDS,
            registry=where,
        )
        self.batches = Histogram(
            "hqsod_batch_images",
            "Images that went through the network together.",
            buckets=BATCH_SIZES,
            registry=where,
        )
        self.network = Histogram(
            "hqsod_network_seconds", "Network time of a batch.", buckets=SECONDS, registry=where
        )
        inside = Gauge("hqsod_requests_in_progress", "Images being worked on.", registry=where)
        inside.set_function(in_progress)

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that counts and times every answer of `app`, refusals too.

    Args:
        app: what is measured.
        metrics: where it is counted.
        paths: that are told apart.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; count it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in self._paths else OTHER
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(perf_counter() - started)
