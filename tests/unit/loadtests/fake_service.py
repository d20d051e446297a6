"""A small real HTTP server that answers like the service: labels by body, 4xx except for JPEGs, delays, mistakes."""

import json
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How the fake answers; a test may change it while it runs."""

    delay_s: float = 0.002
    wrong: bool = False
    status: int = 200
    seen: list[bytes] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behaviour: Behaviour

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.behaviour.seen.append(body[:8])
        time.sleep(self.behaviour.delay_s)
        if not (body.startswith(b"\xff\xd8") and body.endswith(b"\xff\xd9")):
            self._answer(400 if body else 415, {"error": {"code": "corrupt_image", "message": "no"}})
        elif self.behaviour.status != 200:
            self._answer(self.behaviour.status, {"error": {"code": "overloaded", "message": "no"}})
        else:
            label = "another" if self.behaviour.wrong else f"label {zlib.crc32(body) % 7}"
            self._answer(200, {"predictions": [{"label": label, "index": 1, "probability": 0.9}]})

    def _answer(self, status: int, content: dict[str, object]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Server-Timing", "decode;dur=0.50, inference;dur=1.00, total;dur=1.75")
        self.send_header("Content-Length", str(len(text)))
        if status >= 400:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that has measured enough hangs up in the middle of an answer."""


@contextmanager
def running(behaviour: Behaviour) -> Iterator[str]:
    """Serve on a free port of this machine; yields the address to post to."""
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/predictions/flowers"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
