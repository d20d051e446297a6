"""A service whose answer is the image itself: ``rose 0.9`` is answered with the label rose, ``broken`` rejected."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Service(ThreadingHTTPServer):
    """Keeps the requests' bodies, and stops answering after ``patience`` requests."""

    daemon_threads = True

    def __init__(self, patience: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.patience = patience
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(patience: int | None = None) -> Iterator[Service]:
    service = Service(patience)
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
        self._answer(*_reply(body.decode()))

    do_PUT = do_POST  # noqa: N815 - the server's own name

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-request-id", f"request-{len(self.server.bodies)}")
        self.send_header("Server-Timing", "decode;dur=1.5, inference;dur=2.5, total;dur=5")
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
    model = {"name": "flowers", "version": "1.0"}
    return 200, {"predictions": [best, other], "novelty": 0.25, "model": model}
