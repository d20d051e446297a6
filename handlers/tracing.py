"""Traces: a span for each request, sent by OTLP over HTTP to the OpenTelemetry collector that the environment names.

    traceparent of the client --gateway--> handler --a span, in the background--> OTEL_EXPORTER_OTLP_ENDPOINT

Without that variable nothing of this is imported. A collector that is away costs spans and never an answer: they
wait in a bounded queue, which a thread of its own empties.
"""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

# The SDK reads these, and many more: https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SERVICE = "OTEL_SERVICE_NAME"
_SERVER_ERRORS = 500
_NANOSECONDS = 1_000_000_000
logger = logging.getLogger("visionserve")


class Tracer(Protocol):
    """Takes a request that has been answered."""

    def record(self, name: str, headers: Mapping[str, str], seconds: float, attributes: Mapping[str, Any]) -> None:
        """Note a request that ended now and took so many seconds; ``attributes`` has its HTTP status."""
        ...


def from_environment() -> Tracer | None:
    """Return a tracer where a collector is named and OpenTelemetry is installed, which is the extra `otel`."""
    if not any(os.environ.get(name) for name in _ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED", "") == "true":
        return None
    try:
        return _OpenTelemetry()
    except Exception:
        # Whatever is wrong with it, images are classified.
        logger.exception("no traces are sent: OpenTelemetry (`pip install visionserve[otel]`) does not start")
        return None


STATUS = "http.response.status_code"


class _OpenTelemetry:
    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": os.environ.get(_SERVICE) or "visionserve"})
        # A worker ends at once when it should: what was noted in its last seconds is lost then.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = provider.get_tracer(__name__)
        self._extract = TraceContextTextMapPropagator().extract
        self._server, self._error = SpanKind.SERVER, StatusCode.ERROR

    def record(self, name: str, headers: Mapping[str, str], seconds: float, attributes: Mapping[str, Any]) -> None:
        """Note a request that ended now."""
        ended = time.time_ns()
        span = self._tracer.start_span(
            name,
            self._extract(headers),
            self._server,
            attributes,
            start_time=ended - int(seconds * _NANOSECONDS),
        )
        if attributes[STATUS] >= _SERVER_ERRORS:
            span.set_status(self._error)
        span.end(ended)
