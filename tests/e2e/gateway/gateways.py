"""Run a gateway on a free port, and fake servers behind it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import ROOT, free_ports

NEEDS_NGINX = pytest.mark.skipif(
    shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") is None,
    reason="nginx is not installed: apt-get install nginx-light",
)
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
LOG_TIMEOUT_S = 30
NOWHERE = "127.0.0.1:1"


@dataclass(frozen=True)
class Gateway:
    """A running gateway: nginx's process, its port and where it logs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    host: str = "127.0.0.1"

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}/{path}"

    def put(self, body: bytes, path: str = "predictions/flowers", **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.put(self.url(path), data=body, headers=named, timeout=60)

    def post(self, path: str = "predictions/flowers", **content: Any) -> requests.Response:
        return requests.post(self.url(path), timeout=60, **content)

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(
            self.url(path), headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=60
        )

    def connect(self, timeout_s: float = 30, address: str = "127.0.0.1") -> socket.socket:
        """Connect from one of this machine's addresses."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_s, (address, 0))

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are and return all that comes until the end of the connection."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def records(self, count: int = 1, **wanted: object) -> list[dict[str, Any]]:
        """Return the access records with these fields, once there are so many; one is written just after its answer."""
        deadline = time.monotonic() + LOG_TIMEOUT_S
        while True:
            # Whole lines only: the last one may be half written.
            lines = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
            records = [json.loads(line) for line in lines if line.startswith("{")]
            found = [record for record in records if record.items() >= wanted.items()]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                pytest.fail(f"{len(found)} of {count} access records with {wanted}:\n{self.log.read_text()}")
            time.sleep(0.05)

    def log_line(self, request_id: str) -> dict[str, Any]:
        """Return the access record of a request."""
        return self.records(request_id=request_id)[0]


@contextlib.contextmanager
def running(folder: Path, inference: str = NOWHERE, **options: str | int | Path) -> Iterator[Gateway]:
    """Run a gateway as a person does; stopped by SIGTERM at the end unless it has ended."""
    port = free_ports(1)[0]
    defaults: dict[str, str | int | Path] = {"records": "off", "status": NOWHERE, "workers": 1}
    settings = defaults | {"port": port, "inference": inference} | options
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    log = folder / "gateway.log"
    # To append, as nginx opens it a second time.
    with log.open("ab") as stream:
        command = [sys.executable, "-m", "gateway", "run", *flags]
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
    try:
        gateway = Gateway(process, port, log, "[::1]" if options.get("host") == "::1" else "127.0.0.1")
        _wait_for(gateway)
        yield gateway
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=STOP_TIMEOUT_S)


def _wait_for(gateway: Gateway) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        # An answer, not a connection: nginx listens for a moment while it checks its configuration.
        with contextlib.suppress(requests.RequestException):
            requests.get(gateway.url(""), timeout=5)
            return
        if gateway.process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f"the gateway did not open:\n{gateway.log.read_text()}")


def read_all(connection: socket.socket) -> bytes:
    """Read to the end; a reset is an end too."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


@dataclass
class Seen:
    """A request as a server behind the gateway gets it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What a server behind the gateway answers; ``close`` ends the connection without saying so."""

    status: int = 200
    body: bytes = b'{"predictions":[]}'
    headers: dict[str, str] = field(default_factory=lambda: {"Server-Timing": "total;dur=1.00"})
    close: bool = False


Answer = Callable[[Seen], Reply | None]


class Behind:
    """A server of HTTP/1.1 that keeps connections; ``answer`` says what, None ends the connection without a word."""

    def __init__(self, answer: Answer) -> None:
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self.now = 0
        self._lock = threading.Lock()
        behind = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _take(self) -> None:
                behind.take(self, answer)

            do_GET = do_HEAD = do_POST = do_PUT = _take  # noqa: N815

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Keep quiet: the gateway ends connections as it likes."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def take(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        with self._lock:
            self.now += 1
            self.most_at_once = max(self.most_at_once, self.now)
        try:
            body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            seen = Seen(handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()}, body)
            self.seen.append(seen)
            reply = answer(seen)
        finally:
            with self._lock:
                self.now -= 1
        if reply is None:
            handler.close_connection = True
            return
        # The gateway may have given up waiting.
        with contextlib.suppress(ConnectionError):
            _send(handler, reply)
        handler.close_connection = reply.close

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.send_response(reply.status)
    handler.send_header("Content-Length", str(len(reply.body)))
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(reply.body)


@contextlib.contextmanager
def behind(answer: Answer) -> Iterator[Behind]:
    server = Behind(answer)
    try:
        yield server
    finally:
        server.close()


def code(answer: requests.Response) -> str:
    """Return the error's code, having checked that the answer is one of ours throughout."""
    content = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == content["request_id"]
    v2 = str(answer.request.path_url).startswith("/v2")
    error = {"code": content["code"], "message": content["error"]} if v2 else content["error"]
    assert set(content) == ({"error", "code", "request_id"} if v2 else {"error", "request_id"})
    assert set(error) == {"code", "message"}
    assert all(isinstance(text, str) for text in error.values())
    error_code: str = error["code"]
    return error_code


def plain(_: Seen) -> Reply:
    return Reply()
