"""Metrics: the launcher's own, and TorchServe's beside them, as one Prometheus text."""

import re
from collections.abc import Iterable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from launcher.access_log import Record
from launcher.workers import Watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds; 0.25 is the limit of the latency objective.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_TIMED = ("predictions", "explanations")
# Counted from 0: Prometheus sees growth from a counter's second sample on, and a burst of failures may be the first.
_EXPECTED = ("200", "429", "500", "503", "504")


class Metrics:
    """What the launcher counts itself; given to Prometheus by `text`."""

    def __init__(self, watch: Watch) -> None:
        # They would double the text for times that nobody asks for.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests_total", "Requests that the gateway answered", ["route", "status"], registry=self._registry
        )
        self._durations = Histogram(
            "gateway_request_duration_seconds",
            "From the first byte of a request to the last byte of its answer, at the gateway",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._queues = Histogram(
            "gateway_queue_seconds",
            "What TorchServe took beyond the handler's own time, most of it waiting for a worker",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._malformed = Counter(
            "gateway_malformed_records_total", "Datagrams that are no record of the gateway", registry=self._registry
        )
        for route in _TIMED:
            self._durations.labels(route)
            for status in _EXPECTED:
                self._requests.labels(route, status)
        self._registry.register(_Workers(watch))

    def count(self, record: Record) -> None:
        """Count a request at the gateway."""
        self._requests.labels(record.route, str(record.status)).inc()
        if record.route in _TIMED:
            self._durations.labels(record.route).observe(record.duration_s)
            if record.queue_s is not None:
                self._queues.observe(record.queue_s)

    def count_malformed(self) -> None:
        """Count a datagram that is no record."""
        self._malformed.inc()

    def text(self, others: str) -> str:
        """Return TorchServe's text and ours after it; a family that is in both is TorchServe's."""
        theirs = set(re.findall(r"(?m)^# (?:HELP|TYPE) (\S+)", others))
        ours = prometheus_client.generate_latest(self._registry).decode()
        families = re.split(r"(?m)^(?=# HELP )", ours)
        kept = [family for family in families if family and family.split(" ", 3)[2] not in theirs]
        return "".join([others if not others or others.endswith("\n") else others + "\n", *kept])


class _Workers(Collector):
    """The watch's state at the time of asking."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterable[Metric]:
        watch = self._watch
        yield _gauge("visionserve_ready", "Whether requests should be sent here", not watch.why_not_ready())
        yield _gauge("visionserve_draining", "Whether it is about to stop", watch.drained_at is not None)
        if watch.start_s is not None:
            yield _gauge("visionserve_start_seconds", "From the start to the first answer", watch.start_s)
        workers = GaugeMetricFamily("visionserve_workers", "Worker processes", labels=["model", "state"])
        restarts = CounterMetricFamily(
            "visionserve_worker_restarts", "Worker processes that ended unasked", labels=["model"]
        )
        for name, model in watch.models.items():
            workers.add_metric([name, "ready"], model.ready)
            workers.add_metric([name, "other"], max(model.total - model.ready, 0))
            restarts.add_metric([name], model.deaths)
        yield from (workers, restarts)


def _gauge(name: str, explanation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, explanation, value=float(value))
