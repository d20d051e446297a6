"""The client inside the cluster: sends a constant load, single requests, and the smoke test, as it is asked to.

It runs in a pod with Python alone and listens on port 9000; the tests reach it through the API server's proxy, which
needs no route to the pods. POST /start, /stop, /send, /smoke with JSON; GET /counts.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PORT = 9000
REQUEST_TIMEOUT_S = 60
PENDING_TIMEOUT_S = 90
SMOKE_TIMEOUT_S = 200


class Load:
    """Requests on connections of their own: ``rate`` a second whatever the answers, or ``clients`` that each wait."""

    def __init__(self, request: dict[str, Any], rate: float = 0, clients: int = 0) -> None:
        self._request, self._rate, self._clients = request, rate, clients
        self._outcomes: Counter[str] = Counter()
        self._sent = 0
        self._lock, self._over = threading.Lock(), threading.Event()
        targets = [self._pace] if rate else [self._repeat] * clients
        for target in targets:
            threading.Thread(target=target, daemon=True).start()

    def counts(self) -> dict[str, Any]:
        with self._lock:
            return {"sent": self._sent, "outcomes": dict(self._outcomes)}

    def stop(self) -> dict[str, Any]:
        """Send no more, wait for what is under way, and return the counts."""
        self._over.set()
        deadline = time.monotonic() + PENDING_TIMEOUT_S
        while (counts := self.counts())["sent"] > sum(counts["outcomes"].values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return counts

    def _pace(self) -> None:
        started = time.monotonic()
        while not self._over.wait(max(0.0, started + self._sent / self._rate - time.monotonic())):
            threading.Thread(target=self._one, args=(self._begun(),), daemon=True).start()

    def _repeat(self) -> None:
        while not self._over.is_set():
            self._one(self._begun())

    def _begun(self) -> float:
        with self._lock:
            self._sent += 1
        return time.time()

    def _one(self, begun: float) -> None:
        outcome = outcome_of(self._request)
        with self._lock:
            self._outcomes[outcome] += 1
        if outcome != "200":
            # In the pod's log, for who looks into a loss.
            sys.stdout.write(f"begun {begun:.3f}, ended {time.time():.3f}: {outcome}\n")
            sys.stdout.flush()


def outcome_of(request: dict[str, Any]) -> str:
    """Return the status of a response, or what there was instead."""
    try:
        return str(send(request)["status"])
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"


def send(request: dict[str, Any]) -> dict[str, Any]:
    """Send one request on a new connection and return status, headers and text of the response."""
    address = urlsplit(request["url"])
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=REQUEST_TIMEOUT_S)
    body = base64.b64decode(request["body"]) * request.get("repeat", 1) if request.get("body") else None
    headers = {"Content-Type": "application/octet-stream", "Connection": "close", **request.get("headers", {})}
    path = f"{address.path or '/'}?{address.query}" if address.query else address.path or "/"
    try:
        connection.request(request.get("method", "PUT"), path, body, headers)
        response = connection.getresponse()
        return {"status": response.status, "headers": dict(response.getheaders()), "text": response.read().decode()}
    finally:
        connection.close()


def smoke(settings: dict[str, Any]) -> dict[str, Any]:
    """Run the smoke test that lies beside this file."""
    environment = {**os.environ, "API_KEY": settings.get("key", "")}
    done = subprocess.run(
        ["sh", str(Path(__file__).with_name("smoke_test.sh")), settings["url"]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SMOKE_TIMEOUT_S,
        check=False,
    )
    return {"code": done.returncode, "output": done.stdout + done.stderr}


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """Return the body of a request; the API server's proxy sends it in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    chunks = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        chunks.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(chunks)


class Client(BaseHTTPRequestHandler):
    """Answers the tests."""

    load: Load | None = None

    def do_GET(self) -> None:
        self._answer(Client.load.counts() if Client.load else {})

    def do_POST(self) -> None:
        settings = json.loads(body_of(self) or b"{}")
        if self.path == "/start":
            Client.load = Load(**settings)
            self._answer({})
        elif self.path == "/stop":
            self._answer(Client.load.stop() if Client.load else {})
        elif self.path == "/send":
            try:
                self._answer(send(settings))
            except (OSError, http.client.HTTPException) as error:
                self._answer({"status": 0, "headers": {}, "text": f"{type(error).__name__}: {error}"})
        else:
            self._answer(smoke(settings))

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of the tests' own requests."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", PORT), Client).serve_forever()
