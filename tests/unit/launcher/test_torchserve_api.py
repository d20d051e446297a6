"""The launcher's probe, and the handler's reading of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from launcher import self_test
from launcher.settings import Settings
from launcher.torchserve_api import ProbeAnswer, Refused, TorchServe
from visionserve.request_parsing import RawRequest, parse

PREDICTION = {"predictions": [{"label": name, "probability": 0.2} for name in "abcde"], "novelty": 0.5}


def probe(tmp_path: Path, status: int, content: object) -> tuple[ProbeAnswer, dict[str, str]]:
    """Send a probe to a server that answers so; return what it makes of the answer, and the headers it sent."""
    headers: dict[str, str] = {}

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers.update({name.lower(): value for name, value in self.headers.items()})
            self.rfile.read(int(headers["content-length"]))
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-visionserve-worker", "7")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        settings = cast(Settings, SimpleNamespace(ports={"port": server.server_port}))
        try:
            return TorchServe(settings, tmp_path, "secret", {"pets/1.0": b"image"}).predict("pets/1.0", 30), headers
        finally:
            thread.join()


def test_a_model_of_two_labels_answers_the_probe(tmp_path: Path) -> None:
    answer, headers = probe(tmp_path, 200, PREDICTION)
    assert answer.pid == 7
    assert parse(RawRequest("", {"body": b"image"}, headers), classes=2).top_k == 2


@pytest.mark.parametrize(
    "content",
    [{"error": {"code": "unavailable", "message": "No worker."}}, {"code": 503, "message": "No worker."}, "No worker."],
    ids=["ours", "TorchServe's", "another's"],
)
def test_a_refusal_has_the_status_and_the_message(tmp_path: Path, content: object) -> None:
    with pytest.raises(Refused, match=r'^status 503: "?No worker."?$'):
        probe(tmp_path, 503, content)


def test_the_first_answer_has_three_labels_at_most() -> None:
    rows = self_test.table("title", PREDICTION).splitlines()
    assert [row.split()[0] for row in rows] == ["title", "a", "b", "c", "novelty"]
