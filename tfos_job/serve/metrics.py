"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_OUTCOMES = ("answered", "doubtful", "unreadable")
_PREFIX = "tfos_job_serve_"


class Metrics:
    """The counters of one server; several may live in a process."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second series beside each, which nobody asks for
        self._registry = CollectorRegistry()
        model = ["model"]
        self._requests = self._counter("requests", "requests by route and status of HTTP", ["route", "status"])
        self._seconds = self._histogram("request_seconds", "from a request's first byte to its answer", ["route"])
        self._pictures = self._counter("pictures", "pictures by what became of them", [*model, "outcome"])
        self._batches = self._histogram("batch_pictures", "pictures in a batch", model, _PICTURES)
        self._waits = self._histogram("queue_seconds", "from a request's first byte to its picture's batch", model)
        self._computing = self._histogram("network_seconds", "of the network, for a batch", model)
        self._waiting = self._gauge("queue_pictures", "pictures that wait for the network", model)
        self._model = self._gauge("model_info", "the model that answers", [*model, "digest", "version"])
        self._reloads = self._counter("reloads", "newer versions by what became of them", [*model, "outcome"])
        self._ready = self._gauge("ready", "1 while requests are answered", [])

    def answered(self, route: str, status: int, took_s: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(took_s)

    def saw(self, model: str, outcome: str, number: int = 1) -> None:
        """Counts pictures: `answered`, `doubtful` or `unreadable`."""
        self._pictures.labels(model, outcome).inc(number)

    def watcher(self, model: str) -> BatchMetrics:
        return BatchMetrics(self._batches.labels(model), self._waits.labels(model), self._computing.labels(model))

    def watch_queue(self, model: str, num_waiting: Callable[[], int]) -> None:
        self._waiting.labels(model).set_function(num_waiting)

    def loaded(self, model: str, digest: str, version: int) -> None:
        """Names the model that answers, instead of the one before; what is counted of it begins at 0."""
        for counter, outcomes in ((self._pictures, _OUTCOMES), (self._reloads, ("loaded", "failed"))):
            for outcome in outcomes:
                counter.labels(model, outcome)
        self._model.remove_by_labels({"model": model})
        self._model.labels(model, digest, str(version)).set(1)

    def reloaded(self, model: str, outcome: str) -> None:
        """Counts a newer version: `loaded` or `failed`."""
        self._reloads.labels(model, outcome).inc()

    def text(self, is_ready: bool) -> bytes:
        self._ready.set(is_ready)
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float] = _SECONDS) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, registry=self._registry, buckets=buckets)


class BatchMetrics:
    """What is told of a model's batches."""

    def __init__(self, sizes: Histogram, waits: Histogram, seconds: Histogram) -> None:
        self._sizes, self._waits, self._seconds = sizes, waits, seconds

    def began(self, waits_s: Sequence[float]) -> None:
        self._sizes.observe(len(waits_s))
        for wait_s in waits_s:
            self._waits.observe(wait_s)

    def ended(self, took_s: float) -> None:
        self._seconds.observe(took_s)
