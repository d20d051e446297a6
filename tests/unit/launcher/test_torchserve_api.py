"""The launcher's probe, and the handler's reading of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from launcher import self_test
from launcher.settings import Settings
from launcher.torchserve_api import TorchServe
from visionserve.request_parsing import RawRequest, parse

PREDICTION = {"predictions": [{"label": name, "probability": 0.2} for name in "abcde"], "novelty": 0.5}


def test_a_model_of_two_labels_answers_the_probe(tmp_path: Path) -> None:
    headers: dict[str, str] = {}

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers.update({name.lower(): value for name, value in self.headers.items()})
            self.rfile.read(int(headers["content-length"]))
            body = json.dumps(PREDICTION).encode()
            self.send_response(200)
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
        answer = TorchServe(settings, tmp_path, "secret", {"pets/1.0": b"image"}).predict("pets/1.0", 30)
        thread.join()
    assert answer.pid == 7
    assert parse(RawRequest("", {"body": b"image"}, headers), classes=2).top_k == 2


def test_the_first_answer_has_three_labels_at_most() -> None:
    rows = self_test.table("title", PREDICTION).splitlines()
    assert [row.split()[0] for row in rows] == ["title", "a", "b", "c", "novelty"]
