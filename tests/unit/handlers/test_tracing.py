"""Spans of requests reach an OpenTelemetry collector, and one that is away costs nobody an answer."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from handlers.image_handler import ImageHandler
from tests.unit.handlers.test_handler import FakeContext, ask, png

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector:
    """A collector's OTLP/HTTP receiver: keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = ExportTraceServiceRequest()
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for of_resource in message.resource_spans:
                    names = [
                        entry.value.string_value for entry in of_resource.resource.attributes if "name" in entry.key
                    ]
                    collector.services.update(names)
                    collector.spans += [span for scope in of_resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def wait(self, count: int) -> list[Any]:
        deadline = time.monotonic() + 30
        while len(self.spans) < count:
            assert time.monotonic() < deadline, f"{len(self.spans)} of {count} spans have arrived"
            time.sleep(0.05)
        return self.spans


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in span.attributes}


def test_each_request_is_a_span_of_its_clients_trace(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("VISIONSERVE_PROBE", "secret")
    context = FakeContext(tiny.directory)
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{collector.server.server_port}")
        handler = ImageHandler()
        handler.initialize(context)
        traced = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-1"}
        began = time.time_ns()
        ask(
            *(handler, context, ({"body": png()}, traced), ({"body": b"no image"}, {"explain": "True"})),
            *[({"body": png()}, {"x-visionserve-probe": "secret"})],
        )
        spans = {span.name: span for span in collector.wait(2)}
        time.sleep(0.2)
        assert len(collector.spans) == 2  # the launcher's probe is none
    assert collector.services >= {"visionserve"}
    span = spans["predict"]
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, PARENT, span.SPAN_KIND_SERVER)
    assert began <= span.start_time_unix_nano < span.end_time_unix_nano <= time.time_ns()
    wanted: dict[str, Any] = {
        "http.response.status_code": 200,
        "visionserve.batch_size": 3,
        "visionserve.request_id": "r-1",
    }
    assert (
        attributes(span).items()
        >= (wanted | {"visionserve.code": "ok", "visionserve.model": handler._classifier.card.name}).items()
    )
    other = spans["explain"]
    assert other.trace_id.hex() != TRACE and not other.parent_span_id
    assert (
        attributes(other).items() >= {"http.response.status_code": 415, "visionserve.code": "unsupported_image"}.items()
    )
    # By OpenTelemetry's conventions only a 5xx is an error of a server.
    assert {span.status.code for span in spans.values()} == {span.status.STATUS_CODE_UNSET}


def test_a_failure_of_the_service_is_a_span_with_an_error(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    context = FakeContext(tiny.directory)
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{collector.server.server_port}")
        handler = ImageHandler()
        handler.initialize(context)

        def fail(_: object) -> None:
            raise RuntimeError("it broke")

        monkeypatch.setattr(handler._classifier, "classify", fail)
        ask(handler, context, ({"body": png()}, {}))
        (span,) = collector.wait(1)
    assert (attributes(span)["http.response.status_code"], span.status.code) == (500, span.status.STATUS_CODE_ERROR)


def test_a_collector_that_is_away_costs_no_answer_and_no_time(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    context = FakeContext(tiny.directory)
    handler = ImageHandler()
    handler.initialize(context)
    began = time.monotonic()
    for _ in range(100):  # far more than the queue holds
        ask(handler, context, ({"body": png()}, {}))
        assert context.statuses[0][0] == 200
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("missing", [False, True], ids=["not configured", "not installed"])
def test_without_a_collector_or_the_packages_requests_are_answered_untraced(missing: bool) -> None:
    program = f"""
import os, sys
if {missing}:
    sys.modules["opentelemetry"] = None
    os.environ["{ENDPOINT}"] = "http://127.0.0.1:1"
from handlers import tracing
assert tracing.from_environment() is None
print([name for name in sys.modules if name.startswith("opentelemetry.")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert ("visionserve[otel]" in done.stderr) == missing
