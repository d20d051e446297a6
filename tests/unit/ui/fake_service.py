"""A service for the page's tests: gives set answers, and counts its requests."""

import base64
import contextlib
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class FakeService:
    """Its models, the bodies it is too busy for, and its requests by path."""

    models: tuple[str, ...] = ("flowers",)
    versions: tuple[str, ...] = ("1.0",)
    busy: set[bytes] = field(default_factory=set)
    unsupported: set[bytes] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""

    def model(self, name: str, version: str = "") -> dict[str, Any]:
        version = version or self.versions[0]
        card = {"name": name, "labels": ["rose", "sweet pea"], "input": {"crop": 0.95}, "metrics": {}}
        workers = {"ready": 2, "total": 2}
        names = {"name": name, "version": version, "default": version == self.versions[0], "digest": f"d{version}"}
        return names | {"status": "ready", "workers": workers, "card": card}

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.asked[path] += 1
        if body in self.busy:
            return 503, {"error": {"code": "overloaded", "message": "too many requests at once"}, "request_id": "r"}
        if body in self.unsupported:
            return 415, {"error": {"code": "unsupported_image", "message": "Send JPEG."}, "request_id": "r"}
        name, version = (*path.split("/")[2:], self.versions[0])[:2]
        predictions = [
            {"label": "rose", "index": 0, "probability": 0.9},
            {"label": "sweet pea", "index": 1, "probability": 0.1},
        ]
        answer = {"predictions": predictions, "novelty": 0.3, "model": {"name": name, "version": version}}
        return 200, answer | {"heatmap": base64.b64encode(png(1)).decode()}


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (11, 17), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextlib.contextmanager
def running(service: FakeService) -> Iterator[FakeService]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/models":
                every = [service.model(name, version) for name in service.models for version in service.versions]
                self.reply(200, {"models": every})
            else:
                self.reply(200, service.model(*self.path.split("/")[2:]))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(*service.answer(self.path, body))

        do_PUT = do_POST  # noqa: N815

        def reply(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
