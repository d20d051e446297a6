"""Status server: health, readiness, models and metrics over HTTP. All its routes are in this file.

GET  /livez /v2/health/live            is there still something to wait for?
GET  /readyz /health /v2/health/ready  should requests be sent here?
GET  /metrics                          Prometheus: TorchServe's and the launcher's
GET  /models /models/{name}[/{version}]   what is served, by which workers
GET  /v2 /v2/models/{name}[/versions/{version}][/ready]
GET  /openapi.yaml                     the API's description
GET  /docs /docs/{file}                a page to try it out (api_page)
POST /drain                            be not ready from now on; from this machine only
"""

import contextlib
import http
import ipaddress
import json
import re
import socket
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from launcher import api_page, metadata, metrics
from launcher.settings import SetupError
from launcher.torchserve_api import NoAnswer
from launcher.workers import Model, WorkerMonitor

# Readers that are slower than this, or ask for nothing, are cut off.
_CLIENT_TIMEOUT_S = 10
_MOST_CLIENTS = 64
# For the thread of a connection that was cut off to end.
_CUT_OFF_S = 0.5
# A scrape waits for ten seconds at most; TorchServe's metrics are left out if they take longer than this.
_METRICS_TIMEOUT_S = 2.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MODEL = re.compile(r"/models/(?P<name>[^/]+)(?:/(?P<version>[^/]+))?")
_V2_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<ready>/ready)?")


@dataclass(frozen=True)
class Reply:
    """A status, a body, its type and further headers; ``gzipped`` is the same body for whoever accepts it."""

    status: int
    body: bytes
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})
    gzipped: bytes = b""


@dataclass(frozen=True)
class Service:
    """What the routes report; ``runs`` is whether TorchServe does, ``torchserve_metrics`` takes a time limit in s."""

    monitor: WorkerMonitor
    metrics: metrics.Metrics
    runs: Callable[[], bool]
    torchserve_metrics: Callable[[float], str]
    openapi: Path

    def get(self, path: str, request_id: str) -> Reply:
        """Return the reply to a GET."""
        if path in ("/livez", "/v2/health/live"):
            return self._health("live", "" if self.runs() else "TorchServe has ended")
        if path in ("/readyz", "/health", "/v2/health/ready"):
            return self._health("ready", self.monitor.not_ready_reason())
        if path == "/metrics":
            return Reply(
                http.HTTPStatus.OK, self.metrics.text(self._torchserve_metrics()).encode(), metrics.CONTENT_TYPE
            )
        if path == "/models":
            return _json(metadata.list_models(self.monitor))
        if path == "/v2":
            return _json(metadata.server_metadata())
        if path == "/openapi.yaml" and self.openapi.is_file():
            return Reply(http.HTTPStatus.OK, self.openapi.read_bytes(), "application/yaml")
        if path == f"{api_page.PATH}/":
            return Reply(http.HTTPStatus.PERMANENT_REDIRECT, b"", "text/plain", {"Location": f"..{api_page.PATH}"})
        if path.startswith(api_page.PATH) and (file := api_page.files().get(path)):
            return Reply(http.HTTPStatus.OK, file.body, file.type, file.headers, file.gzipped)
        return self._model(path) or _error(
            http.HTTPStatus.NOT_FOUND, f"There is nothing at {path}.", request_id, v2=path.startswith("/v2")
        )

    def post(self, path: str, client: str, headers: Mapping[str, str], request_id: str) -> Reply:
        """Return the reply to a POST; a browser's from another site, or by another name, is refused."""
        if path != "/drain":
            message = (
                "Only /drain takes anything here: send images to the gateway or to TorchServe, on their own ports."
            )
            return _error(http.HTTPStatus.NOT_FOUND, message, request_id)
        origin, host = headers.get("origin"), headers.get("host")
        local = (origin is None or _is_loopback(origin)) and (host is None or _is_loopback(f"http://{host}"))
        if not _is_this_machine(client) or not local:
            return _error(
                http.HTTPStatus.FORBIDDEN, "A drain can be requested from the machine itself only.", request_id
            )
        self.monitor.begin_drain()
        return _json({"draining": True}, http.HTTPStatus.ACCEPTED)

    def _health(self, state: str, trouble: str) -> Reply:
        trouble = trouble or (self.monitor.not_live_reason() if state == "live" else "")
        if trouble:
            return _json({state: False, "reason": trouble}, http.HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({state: True})

    def _torchserve_metrics(self) -> str:
        with contextlib.suppress(NoAnswer):
            return self.torchserve_metrics(_METRICS_TIMEOUT_S)
        return ""

    def _model(self, path: str) -> Reply | None:
        if match := _MODEL.fullmatch(path):
            model = self.monitor.find(match["name"], match["version"])
            return _json(metadata.describe_model(self.monitor, model)) if model else None
        match = _V2_MODEL.fullmatch(path)
        model = self.monitor.find(match["name"], match["version"]) if match else None
        if match is None or model is None:
            return None
        return self._readiness(model) if match["ready"] else _json(metadata.model_metadata(self.monitor, model))

    def _readiness(self, model: Model) -> Reply:
        ready = self.monitor.status(model) == "ready"
        status = http.HTTPStatus.OK if ready else http.HTTPStatus.SERVICE_UNAVAILABLE
        return _json({"name": model.archive.name, "ready": ready}, status)


@contextlib.contextmanager
def serve(host: str, port: int, service: Service) -> Iterator[int]:
    """Serve the routes at an address and yield the port; port 0 serves none."""
    if port == 0:
        yield 0
        return
    try:
        server = _Server((host, port), _handler(service))
    except OSError as error:
        raise SetupError(
            f"The status server cannot listen at {host}:{port} ({error.strerror}): choose another address with "
            "--status-host and --status-port (0 for none)."
        ) from error
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    """As many threads as there may be clients; when all are in use, the one that has been silent longest is cut off."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._slots = threading.BoundedSemaphore(_MOST_CLIENTS)
        self._silent: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in arguments[0][0] else socket.AF_INET
        super().__init__(*arguments)

    def server_bind(self) -> None:
        if self.server_address[0] == "::":
            # As 0.0.0.0 is all of IPv4, this is everything.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False) or (self._cut_off_one() and self._slots.acquire(timeout=_CUT_OFF_S)):
            self.mark(request, silent=True)
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.mark(request, silent=False)
            self._slots.release()

    def mark(self, request: socket.socket, *, silent: bool) -> None:
        """Note whether a connection has an open request or waits for one."""
        with self._lock:
            self._silent.pop(request, None)
            if silent:
                self._silent[request] = None

    def _cut_off_one(self) -> bool:
        with self._lock:
            if not self._silent:
                return False
            request, _ = self._silent.popitem(last=False)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not log clients that went away."""


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _CLIENT_TIMEOUT_S

        def do_GET(self) -> None:
            self._answer(service.get(self._path(), self._request_id()))

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            # Nothing that is sent here is read, so the connection cannot be used again.
            self.close_connection = True
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._answer(service.post(self._path(), self.client_address[0], headers, self._request_id()))

        def do_PUT(self) -> None:
            self.close_connection = True
            self._answer(service.post("", self.client_address[0], {}, self._request_id()))

        def parse_request(self) -> bool:
            self._mark(silent=False)
            return super().parse_request()

        def _mark(self, *, silent: bool) -> None:
            cast(_Server, self.server).mark(self.connection, silent=silent)

        def version_string(self) -> str:
            return metadata.NAME

        def log_message(self, *_: Any) -> None:
            """Log nothing: probes and scrapes come all the time."""

        def _path(self) -> str:
            return self.path.split("?", 1)[0]

        def _request_id(self) -> str:
            request_id = self.headers.get("x-request-id", "")
            return request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex

        def _answer(self, reply: Reply) -> None:
            compressed = reply.gzipped and "gzip" in self.headers.get("accept-encoding", "")
            body = reply.gzipped if compressed else reply.body
            headers = {"Content-Type": reply.type, "Content-Length": str(len(body)), **reply.headers}
            if reply.gzipped:
                headers["Vary"] = "Accept-Encoding"
            if compressed:
                headers["Content-Encoding"] = "gzip"
            self.send_response(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self._mark(silent=True)

    return Handler


def _is_this_machine(client: str) -> bool:
    address = ipaddress.ip_address(client)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_loopback(url: str) -> bool:
    """Whether a URL names this machine: localhost or a loopback address."""
    try:
        name = urlsplit(url).hostname or ""
        return name == "localhost" or _is_this_machine(name)
    except ValueError:
        return False


def _json(content: metadata.Document, status: int = http.HTTPStatus.OK) -> Reply:
    return Reply(status, json.dumps(content, ensure_ascii=False).encode())


def _error(status: http.HTTPStatus, message: str, request_id: str, *, v2: bool = False) -> Reply:
    return _json(metadata.error(status.name.lower(), message, request_id, v2=v2), status)
