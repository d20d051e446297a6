"""A stand-in for an adapter: the custom metrics API with the values that it was given last.

It runs in a pod with Python and client.py. POST /values with {"POD": number} on port 9000, from the tests; the API
itself, over TLS, on port 6443, for the API server, which passes the autoscaler's questions on.
"""

import json
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from client import body_of  # type: ignore[import-not-found]  # they lie side by side in the pod

VERSION = "custom.metrics.k8s.io/v1beta2"
NAMESPACE, METRIC = sys.argv[1:]
_VERBS = ["get"]
_values: dict[str, float] = {}


def metrics() -> dict[str, Any]:
    """Return a MetricValueList with the value of each pod."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        {
            "describedObject": {"kind": "Pod", "apiVersion": "v1", "namespace": NAMESPACE, "name": pod},
            "metric": {"name": METRIC, "selector": None},
            "timestamp": now,
            "value": f"{round(value * 1000)}m",
        }
        for pod, value in _values.items()
    ]
    return {"kind": "MetricValueList", "apiVersion": VERSION, "metadata": {}, "items": items}


class Api(BaseHTTPRequestHandler):
    """Answers the API server and the tests."""

    def do_GET(self) -> None:
        # The API server's client writes the asterisk as %2A.
        path = unquote(self.path.partition("?")[0])
        if path == f"/apis/{VERSION}":
            resource = {"name": f"pods/{METRIC}", "namespaced": True, "kind": "MetricValueList", "verbs": _VERBS}
            content = {"singularName": "", **resource}
            self._answer(200, {"kind": "APIResourceList", "groupVersion": VERSION, "resources": [content]})
        elif path == f"/apis/{VERSION}/namespaces/{NAMESPACE}/pods/*/{METRIC}" and _values:
            self._answer(200, metrics())
        elif path == "/ready":
            self._answer(200, {})
        else:
            failure = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
            self._answer(404, {**failure, "message": f"nothing at {path}, with the values {_values}"})

    def do_POST(self) -> None:
        values = json.loads(body_of(self))
        _values.clear()
        _values.update(values)
        self._answer(200, {})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Make a certificate and serve."""
    files = ["-keyout", "/tmp/key.pem", "-out", "/tmp/cert.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=metrics", *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tmp/cert.pem", "/tmp/key.pem")
    api = ThreadingHTTPServer(("", 6443), Api)
    api.socket = context.wrap_socket(api.socket, server_side=True)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("", 9000), Api).serve_forever()


if __name__ == "__main__":
    main()
