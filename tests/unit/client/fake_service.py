"""A service on a free port that gives scripted replies and records its requests."""

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = {
    "predictions": [
        {"label": "rose", "index": 3, "probability": 0.75},
        {"label": "dahlia", "index": 1, "probability": 0.2},
    ],
    "novelty": 0.25,
    "model": {"name": "flowers", "version": "1.0"},
}
TENSORS = {
    "model_name": "flowers",
    "model_version": "1.0",
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [1, 2], "data": ["rose", "dahlia"]},
        {"name": "probability", "datatype": "FP32", "shape": [1, 2], "data": [0.75, 0.2]},
        {"name": "index", "datatype": "INT64", "shape": [1, 2], "data": [3, 1]},
        {"name": "novelty", "datatype": "FP32", "shape": [1], "data": [0.25]},
    ],
}
MODEL = {
    "name": "flowers",
    "version": "1.0",
    "digest": "ab" * 32,
    "status": "ready",
    "workers": {"ready": 2, "total": 2},
}


@dataclass(frozen=True)
class Scripted:
    """One reply; ``None`` as its status hangs up instead."""

    status: int | None = 200
    content: Any = field(default_factory=lambda: ANSWER)
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class FakeService:
    """Gives the scripted replies in turn, the last one for ever; lists the models ``served`` beside them, if any."""

    def __init__(self, replies: list[Scripted], served: Sequence[str] = ()) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.url = ""
        self.most_at_once = 0
        self._at_once = 0
        self.served = served
        self._replies = replies
        self._lock = threading.Lock()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the requests that are being answered."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def next_reply(self, asked: Asked) -> Scripted:
        if self.served and asked.path == "/models":
            return Scripted(content={"models": [{**MODEL, "name": name} for name in self.served]})
        with self._lock:
            self.asked.append(asked)
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_arguments: Any) -> None:
        """Say nothing when a client has gone away."""


@contextmanager
def serving(*replies: Scripted, served: Sequence[str] = (), tls: ssl.SSLContext | None = None) -> Iterator[FakeService]:
    service = FakeService(list(replies) or [Scripted()], served)
    server = _Server(("127.0.0.1", 0), _handler(service))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    service.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(service: FakeService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            service.connections += 1

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = service.next_reply(Asked(self.command, self.path, headers, body))
            with service.counted():
                time.sleep(reply.delay_s)
            if reply.status is None:
                self.close_connection = True
                return
            content = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
            self.send_response(reply.status)
            for name, value in {"content-length": str(len(content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_arguments: Any) -> None:
            pass

    return Handler
