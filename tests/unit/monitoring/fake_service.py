"""A service whose answer is the image itself: ``rose 0.9`` is answered with the label rose, ``broken`` rejected."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any


class Service(ThreadingHTTPServer):
    """Keeps the requests' bodies; stops answering after ``patience`` requests, and is busy for the first ``busy``.

    Its answers come from the ``versions`` of the model in turn.
    """

    daemon_threads = True

    def __init__(self, patience: int | None, busy: int, model: str, versions: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.patience, self.busy = patience, busy
        self.model, self.versions = model, versions
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(
    patience: int | None = None, busy: int = 0, model: str = "flowers", versions: Sequence[str] = ("1.0",)
) -> Iterator[Service]:
    service = Service(patience, busy, model, versions)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(body)
        if self.server.patience is not None and len(self.server.bodies) > self.server.patience:
            self.close_connection = True
            return
        count = len(self.server.bodies)
        if count <= self.server.busy:
            self._answer(503, {"error": {"code": "overloaded", "message": "later"}}, {"Retry-After": "1"})
            return
        status, content = _reply(body.decode())
        version = self.server.versions[count % len(self.server.versions)]
        self._answer(status, content | {"model": {"name": self.server.model, "version": version}})

    do_PUT = do_POST  # noqa: N815 - the server's own name

    def _answer(self, status: int, content: dict[str, Any], headers: Mapping[str, str] = MappingProxyType({})) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-request-id", f"request-{len(self.server.bodies)}")
        self.send_header("Server-Timing", "decode;dur=1.5, inference;dur=2.5, total;dur=5")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def _reply(text: str) -> tuple[int, dict[str, Any]]:
    label, _, probability = text.rpartition(" ")
    if not label:
        return 415, {"error": {"code": "unsupported_image", "message": "no"}, "request_id": "r"}
    best = {"label": label, "index": 0, "probability": float(probability)}
    other = {"label": "iris", "index": 1, "probability": 1 - float(probability)}
    return 200, {"predictions": [best, other], "novelty": 0.25}
