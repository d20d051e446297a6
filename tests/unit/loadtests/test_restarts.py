import json
import shutil
import threading
import time
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtests import restarts
from loadtests.__main__ import main
from loadtests.benchmark.server import free_port
from loadtests.load.http_client import Target
from loadtests.load.images import synthetic_images
from loadtests.load.openloop import Limits, OpenLoop
from loadtests.load.workload import Workload
from loadtests.restart_backends import BackendError, Balancer, balanced
from loadtests.restarts import Plan, Result

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin") is None,
    reason="nginx is missing: install the Debian package nginx-light",
)


class FakeBackend:
    """A service in threads; a rude one hangs up on everybody when it gets its signal to stop.

    A polite one answers everybody and ends only when nobody has come for a while: the balancer leaves it out when its
    new configuration is in force, on a busy machine some time after its signal.
    """

    def __init__(self, polite: bool, mixed_up_after_restart: bool = False) -> None:
        self.port = free_port()
        self._mixed_up = mixed_up_after_restart
        self.starts = 0
        self._polite = polite

    def start(self) -> None:
        self.starts += 1
        self._hung_up = threading.Event()
        self._came: list[float] = []
        handler = type(
            "Handler",
            (_Handler,),
            {
                "hung_up": self._hung_up,
                "came": self._came,
                "label": "tulip" if self._mixed_up and self.starts > 1 else "",
            },
        )
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = False
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def ready(self) -> bool:
        return True

    def ask_to_stop(self) -> None:
        if not self._polite:
            self._hung_up.set()

    def wait_for_end(self) -> None:
        while self._polite and self._came and time.monotonic() < self._came[-1] + 1:
            time.sleep(0.05)
        self._server.shutdown()
        self._server.server_close()

    def log_tail(self) -> str:
        return ""


class _Handler(BaseHTTPRequestHandler):
    hung_up: threading.Event
    came: list[float]
    label: str

    def do_POST(self) -> None:
        self.came.append(time.monotonic())
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.hung_up.wait(0.2):
            return
        label = self.label or str(zlib.crc32(body))
        text = json.dumps({"predictions": [{"label": label, "index": 0, "probability": 1.0}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def lost(backends: list[FakeBackend], folder: Path) -> Counter[str]:
    balancer = Balancer(folder, [backend.port for backend in backends])
    images = synthetic_images({(40, 30): 1.0}, per_size=1)
    with balanced(backends, balancer):
        target = Target.parse(f"http://127.0.0.1:{balancer.port}/predictions/flowers")
        load = restarts.Load(OpenLoop(target, Workload(images), Limits(20)), rate=40)
        restarts.restart_in_turn(backends, balancer, Plan(restarts=2, requests=100, rate=40, lag_s=0.5))
        load.finish(100)
    interval = load.loop.stats.between(0, 1e12)
    assert sum(interval.outcomes.values()) >= 100
    assert [backend.starts for backend in backends] == [2, 2]
    return Counter({reason: count for reason, count in interval.reasons.items() if count})


@needs_nginx
def test_backends_that_answer_before_they_end_lose_nothing(tmp_path: Path) -> None:
    assert lost([FakeBackend(polite=True), FakeBackend(polite=True)], tmp_path) == {}


@needs_nginx
def test_what_a_backend_hangs_up_on_is_counted_by_kind(tmp_path: Path) -> None:
    reasons = lost([FakeBackend(polite=False), FakeBackend(polite=False)], tmp_path)
    assert reasons["status 502"] >= 4


@needs_nginx
def test_another_images_label_after_a_restart_is_a_lost_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = iter([FakeBackend(polite=True, mixed_up_after_restart=True), FakeBackend(polite=True)])
    monkeypatch.setattr(restarts, "_backend", lambda *_: next(backends))
    plan = Plan(restarts=1, requests=150, rate=40, lag_s=0.5, sizes="40x30")
    result = restarts.measure("visionserve", tmp_path / "flowers.mar", plan)
    assert result.lost >= 5
    assert all("tulip instead of" in reason for reason in result.reasons)


def test_a_machine_without_nginx_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(BackendError, match="nginx-light"):
        Balancer(tmp_path, [])


def test_the_table_says_what_was_lost_and_how() -> None:
    visionserve = Result("visionserve", 5, 1000, 0, Counter(), 0.41)
    torchserve = Result("torchserve", 5, 1000, 12, Counter({"status 502": 11, "connection lost": 1}), 1.0)
    assert restarts.table([visionserve, torchserve]).splitlines()[2:] == [
        "| visionserve, SIGTERM | 5 | 1000 | 0 | - | 0.4 s |",
        "| TorchServe alone, `torchserve --stop` | 5 | 1000 | 12 | 11 x status 502, 1 x connection lost | 1.0 s |",
    ]


def test_another_kind_of_backend_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restarts", "--only=other", f"--archive={tmp_path / 'flowers.mar'}"]) == 3
    assert "unknown kind of backend 'other': choose from visionserve, torchserve" in capsys.readouterr().err
