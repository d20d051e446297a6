"""Metrics: the launcher's own and TorchServe's, as one Prometheus text."""

import re
from collections.abc import Iterable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from launcher.access_log import Record
from launcher.workers import WorkerMonitor

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds; 0.25 is the limit of the latency objective.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
# The answers whose durations are promised.
_ANSWERED = 200
_TIMED = ("predictions", "explanations")
# Counted from 0: Prometheus sees growth from a counter's second sample on, and a burst of failures may be the first.
_EXPECTED = ("200", "429", "500", "503", "504")


class Metrics:
    """The launcher's own metrics; `text` renders them."""

    def __init__(self, monitor: WorkerMonitor) -> None:
        # They would double the text for times that nobody asks for.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests_total", "Requests that the gateway answered", ["route", "status"], registry=self._registry
        )
        self._durations = Histogram(
            "gateway_request_duration_seconds",
            "From the first byte of a request to the last byte of its answer with status 200, at the gateway",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._seconds = Counter(
            "gateway_request_seconds_total",
            "Durations of all requests, whatever their answer; its rate is how many are in flight",
            ["route"],
            registry=self._registry,
        )
        self._queues = Histogram(
            "gateway_queue_seconds",
            "What TorchServe took beyond the handler's own time, most of it waiting for a worker",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._malformed = Counter(
            "gateway_malformed_records_total", "Datagrams that are not a record of the gateway", registry=self._registry
        )
        self._places: Gauge | None = None
        for route in _TIMED:
            self._durations.labels(route)
            self._seconds.labels(route)
            for status in _EXPECTED:
                self._requests.labels(route, status)
        self._registry.register(_WorkerCollector(monitor))

    def count(self, record: Record) -> None:
        """Count a request at the gateway."""
        self._requests.labels(record.route, str(record.status)).inc()
        if record.route in _TIMED:
            self._seconds.labels(record.route).inc(record.duration_s)
            # A refusal or a preflight is quick: among the answers it would hide that they are slow.
            if record.status == _ANSWERED:
                self._durations.labels(record.route).observe(record.duration_s)
            if record.queue_s is not None:
                self._queues.observe(record.queue_s)

        if record.places is not None:
            self._state_places(record.places)

    def _state_places(self, places: int) -> None:
        """Say how many the gateway lets in, from its first record on: before that nobody knows."""
        if self._places is None:
            self._places = Gauge(
                "gateway_places", "Requests that the gateway lets into TorchServe at once", registry=self._registry
            )
        self._places.set(places)

    def count_malformed(self) -> None:
        """Count a malformed datagram."""
        self._malformed.inc()

    def text(self, torchserve: str) -> str:
        """Return TorchServe's text and the launcher's after it; a family that is in both is TorchServe's."""
        names = set(re.findall(r"(?m)^# (?:HELP|TYPE) (\S+)", torchserve))
        launcher = prometheus_client.generate_latest(self._registry).decode()
        families = [family for family in re.split(r"(?m)^(?=# HELP )", launcher) if family]
        separator = "\n" if torchserve and not torchserve.endswith("\n") else ""
        return torchserve + separator + "".join(text for text in families if text.split(" ", 3)[2] not in names)


class _WorkerCollector(Collector):
    """The workers' state at the time of a scrape."""

    def __init__(self, monitor: WorkerMonitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterable[Metric]:
        monitor = self._monitor
        yield _gauge("visionserve_ready", "Whether requests should be sent here", not monitor.not_ready_reason())
        yield _gauge("visionserve_draining", "Whether it is about to stop", monitor.draining_since is not None)
        if monitor.start_s is not None:
            yield _gauge("visionserve_start_seconds", "From the start to the first answer", monitor.start_s)
        workers = GaugeMetricFamily("visionserve_workers", "Worker processes", labels=["model", "version", "state"])
        restarts = CounterMetricFamily(
            "visionserve_worker_restarts", "Worker processes that ended unasked", labels=["model", "version"]
        )
        for model in monitor.models.values():
            names = [model.archive.name, model.archive.version]
            workers.add_metric([*names, "ready"], model.ready)
            workers.add_metric([*names, "other"], max(model.total - model.ready, 0))
            restarts.add_metric(names, model.deaths)
        yield from (workers, restarts)


def _gauge(name: str, explanation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, explanation, value=float(value))
